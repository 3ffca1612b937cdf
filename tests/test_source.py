"""The running kernel as a source: what is read first."""

from __future__ import annotations

import select
import time
from pathlib import Path

from lab import wait_for

from intake import Block, Facts
from source import ASKED_EVERY, Command, LiveSource

# An end that is said at once, and a listing that named the flow just before.
CONNTRACK = """\
#!/bin/sh
while [ ! -e "$0.go" ]; do sleep 0.01; done
flow='src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1'
case "$1" in
-E) echo "[DESTROY] ipv4     2 udp      17 $flow id=7" ;;
*) echo "ipv4     2 udp      17 30 $flow mark=0 use=1 id=7" ;;
esac
exec sleep 60
"""


def test_events_are_read_before_a_listing_that_may_not_know_of_them(tmp_path: Path) -> None:
    program = tmp_path / "conntrack"
    program.write_text(CONNTRACK)
    program.chmod(0o755)
    source = LiveSource(Command(conntrack=str(program)), 1.0)
    try:
        list(source.poll())
        events, listing = source._events and source._events.child, source._listing  # the two pipes are the point
        assert events
        assert listing
        (tmp_path / "conntrack.go").touch()
        wait_for(lambda: has_written(events.out) and has_written(listing.out), what="both children")
        # The events are left to gather, and the listing's rest ends while items are taken in.
        source._facts_due, events.rests_until, listing.rests_until = 0.0, time.monotonic() + 60, time.monotonic() + 0.01
        seen = []
        for item in source.poll():
            seen.append(item)
            wait_for(lambda: time.monotonic() > listing.rests_until, what="the end of the listing's rest")
        assert [type(item) for item in seen if not isinstance(item, Block)] == [Facts]
        assert not [item for item in seen if isinstance(item, Block)]
        blocks = [item for item in source.poll() if isinstance(item, Block)]
        assert [block.events for block in blocks] == [True, False]
    finally:
        source.close()


def test_a_listing_asked_for_while_one_runs_waits_its_turn(tmp_path: Path) -> None:
    """A key held down asks again in every listing."""
    program = tmp_path / "conntrack"
    program.write_text('#!/bin/sh\n[ "$1" = -E ] && exec sleep 60\nwhile [ ! -e "$0.go" ]; do sleep 0.01; done\n')
    program.chmod(0o755)
    source = LiveSource(Command(conntrack=str(program)), 60.0)
    try:
        for _ in range(2):
            wait_for(lambda: list(source.poll()) is not None and source._listing is not None, what="a listing")
            began = source._listing_began
            source.list_now()
            program.with_suffix(".go").touch()
            wait_for(lambda: list(source.poll()) is not None and source._listing is None, what="its end")
            program.with_suffix(".go").unlink()
            assert source._listing_due == began + ASKED_EVERY
    finally:
        source.close()


def has_written(fd: int | None) -> bool:
    return fd is not None and bool(select.select([fd], [], [], 0)[0])
