"""The running kernel as a source: what is read first, and what is asked of `conntrack -S`."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import source
from child import EventSocket
from intake import Block, Facts, Item, ListingBegan, ListingEnded, Lost, Statistics, Status, Trouble
from source import ASKED_EVERY, Command, LiveSource, parse_statistics
from support.kernel import items_until
from support.program import CAPTURES
from support.waiting import PATIENCE, wait_for

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
        source._facts_due, events.gathers_until, listing.gathers_until = (
            0.0,
            time.monotonic() + 60,
            time.monotonic() + 0.01,
        )
        seen = []
        for item in source.poll():
            seen.append(item)
            wait_for(lambda: time.monotonic() > listing.gathers_until, what="the end of the listing's rest")
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


def test_a_socket_that_gets_more_room_is_opened_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the notice of a loss proposes, sysctl -w net.core.rmem_default=8388608, helps while the program runs."""
    program = tmp_path / "conntrack"
    program.write_text(
        '#!/bin/sh\n[ "$1" = -E ] || exit 0\necho >> "$0.began"\n'
        'echo "WARNING: We have hit ENOBUFS! We are losing events." >&2\nexec sleep 60\n'
    )
    program.chmod(0o755)
    facts = {"rmem_default": 212_992}
    monkeypatch.setattr("source.read_facts", lambda: dict(facts))
    monkeypatch.setattr("source.FACTS_EVERY", 0.05)
    source = LiveSource(Command(conntrack=str(program)), 60.0)
    said: list[Lost] = []

    def losses(number: int) -> bool:
        said.extend(item for item in source.poll() if isinstance(item, Lost))
        return len(said) >= number

    try:
        wait_for(lambda: losses(1), what="the loss")
        assert said[0].narrow
        began = program.with_suffix(".began")
        wait_for(lambda: losses(1) and not source._asked, what="facts")
        assert began.read_text() == "\n"
        facts["rmem_default"] = 8_388_608
        wait_for(lambda: losses(2), what="another listener")
        assert said[1].what == "events (begun anew, with more room)"
        assert not said[1].narrow
        wait_for(lambda: losses(3), what="its words")
        assert began.read_text() == "\n\n"
    finally:
        source.close()


def has_written(fd: int | None) -> bool:
    return fd is not None and bool(select.select([fd], [], [], 0)[0])


# --- how old events are, what a listing costs -------------------------------------------------------------------------

EPOCH = 1_795_386_400.0  # of the clock that conntrack stamps with, when ours says 0


def stamped(*times: float) -> bytes:
    return b"".join(b"[%.6f]\t    [NEW] udp      17 30 src=10.0.0.1 ...\n" % (EPOCH + at) for at in times)


def test_events_are_as_old_as_their_stamps_say_while_more_of_them_wait() -> None:
    age = source._Age(0.0)
    age.read(stamped(1.0, 2.0), 10.0, 0.0, EPOCH + 10.0)
    assert age.behind(10.0) == pytest.approx(8.0)
    assert age.behind(11.0) == pytest.approx(9.0)
    age.read(stamped(9.5), 11.0, 11.0, EPOCH + 11.0)  # nothing was left to be read
    assert age.behind(11.0) == 0.0
    age.drained(20.0)
    assert age.behind(20.5) == 0.5  # no data for 9 s: that is not late


def test_late_events_that_are_read_all_at_once_are_said_to_be_late_once() -> None:
    """A reader stood still for 9 s, and what had waited fitted into one piece: nothing waits when it has been read."""
    age = source._Age(0.0)
    age.read(stamped(1.0), 10.0, 10.0, EPOCH + 10.0)
    assert age.behind(10.0) == 0.0
    assert age.behind_since_asked(10.0) == pytest.approx(9.0)
    assert age.behind_since_asked(10.0) == 0.0


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_a_clock_that_is_set_makes_no_event_late(step: float) -> None:
    age = source._Age(0.0)
    age.read(stamped(1.0), 1.0, 1.0, EPOCH + 1.0)
    age.read(stamped(1.2), 1.3, 1.0, EPOCH + 1.3 + step)
    assert age.behind(1.3) <= 0.31  # no longer than since nothing was left to be read


def test_another_machine_s_clock_need_not_be_right_only_go() -> None:
    age, ahead = source._Age(0.0), 500.0
    age.read(stamped(1.0 + ahead), 1.1, 1.1, None)
    age.read(stamped(2.0 + ahead), 6.1, 1.1, None)
    assert age.behind(6.1) == pytest.approx(4.0)
    age.read(stamped(7.0 + ahead), 7.0, 7.0, None)
    age.read(stamped(7.5 - ahead), 7.6, 7.0, None)  # it was set back
    assert age.behind(7.6) <= 0.6


def test_what_waits_in_conntrack_s_socket_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    age = source._Age(0.0)
    monkeypatch.setattr(source, "event_socket", lambda _pid: EventSocket(4000 * source.EVENT_MEMORY))
    for second in (1.0, 2.0):
        age.read(stamped(second) * 1000, second, second, EPOCH + second)
    age.look(7, 2.0)
    assert age.behind(2.0) == pytest.approx(2.0)  # 4,000 of 2,000 a second
    age.look(7, 2.1, 0.0)
    age.drained(2.1)
    assert age.behind(2.1) == pytest.approx(2.1, abs=0.2)
    monkeypatch.setattr(source, "event_socket", lambda _pid: EventSocket(10 * source.EVENT_MEMORY))
    age.look(7, 3.0)
    age.drained(3.0)
    assert age.behind(3.0) == 0.0


def test_a_loss_lasts_until_the_socket_was_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says it once, and then drops all that comes until conntrack has read the rest."""
    seen = [
        (0, 0),
        (100, 5),
        (60, 5),
        (60, 5),
        (20, 9),
        (10, 9),
        (0, 9),
        (50, 9),
        (90, 9),
        (90, 10),
        (95, 10),
        (90, 10),
    ]
    sockets = iter(seen)
    monkeypatch.setattr(source, "event_socket", lambda _pid: EventSocket(*next(sockets)))
    age = source._Age(0.0)
    loses = [age.look(7, float(at), 0.0) for at in range(1, len(seen) + 1)]
    assert loses == [False, True, True, True, True, True, False, False, False, True, False, False]
    monkeypatch.setattr(source, "event_socket", lambda _pid: None)  # gone, or on another machine
    assert not age.look(7, 100.0)
    assert not age.look(None, 200.0)


SLOW_LISTING = """\
#!/bin/sh
case "$1" in
-L) sleep 1.2; echo "conntrack v1.4.7 (conntrack-tools): 0 flow entries have been shown." >&2 ;;
*) echo "[ENOBUFS] something is lost: No buffer space available" >&2; exec sleep 60 ;;
esac
"""


def test_the_time_on_the_wall_is_no_cost(tmp_path: Path) -> None:
    """A listing that starved in a flood put the next one off by twice as long, though a loss was known."""
    program = tmp_path / "conntrack"
    program.write_text(SLOW_LISTING)
    program.chmod(0o755)
    live = LiveSource(Command(conntrack=str(program)), 0.3)
    try:
        items_until(live, lambda items: any(isinstance(item, ListingEnded) and item.complete for item in items))
        assert live._next_listing(live.clock()) - live.clock() <= 0.5
    finally:
        live.close()


GATED = """\
#!/bin/sh
case "$1" in
-L) while [ -e "$0.wait" ]; do sleep 0.01; done
    echo "conntrack v1.4.7 (conntrack-tools): 0 flow entries have been shown." >&2 ;;
*) until [ -e "$0.lose" ]; do sleep 0.01; done; echo "WARNING: We have hit ENOBUFS! We are losing events." >&2
   exec sleep 60 ;;
esac
"""


@pytest.fixture
def gated(tmp_path: Path) -> Iterator[tuple[LiveSource, Path, Path]]:
    """A source; its listener loses events when the first file is there, its listings wait while the second one is."""
    program = tmp_path / "conntrack"
    program.write_text(GATED)
    program.chmod(0o755)
    live = LiveSource(Command(conntrack=str(program)), 1.0)
    try:
        yield live, tmp_path / "conntrack.lose", tmp_path / "conntrack.wait"
    finally:
        live.close()


def has_listed(items: Sequence[Item]) -> bool:
    return any(isinstance(item, ListingEnded) and item.complete for item in items)


def is_listed_anew(items: Sequence[Item]) -> bool:
    return any(isinstance(item, ListingBegan) and item.in_step for item in items)


def has_lost(items: Sequence[Item]) -> bool:
    return any(isinstance(item, Lost) for item in items)


def test_a_loss_is_made_good_when_it_is_calm_whatever_the_last_listing_cost(
    gated: tuple[LiveSource, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 200,000 flows as JSON the first listing costs 11 s: the one after a loss came 13 s after it was calm."""
    live, lose, _wait = gated
    monkeypatch.setattr("child._cpu_seconds", lambda _pid: 2 * PATIENCE)
    items_until(live, has_listed)
    assert live._next_listing(live.clock()) - live.clock() > 2 * PATIENCE  # where nothing is lost
    lose.touch()
    items_until(live, has_lost)
    items_until(live, lambda items: is_listed_anew(items) and has_listed(items))
    assert live._missing is None


def test_a_listing_that_was_killed_is_said_where_another_one_would_take_its_place(
    gated: tuple[LiveSource, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    live, _lose, wait = gated
    wait.touch()
    items_until(live, lambda _: live._listing is not None)
    listing = live._listing
    assert listing is not None
    listing.process.kill()
    wait_for(listing.is_over, what="its end")
    live._resync(live.clock())  # as after a loss: this listing began too early to make it good
    monkeypatch.setattr(live, "_is_calm", lambda _now: True)
    statuses = iter([None])  # there is more to be read of it
    monkeypatch.setattr(listing, "ended", lambda: next(statuses, -9))
    items_until(
        live, lambda items: any(isinstance(item, Trouble) and item.part == "listing" and item.problem for item in items)
    )


def test_in_a_storm_of_losses_each_listing_waits_a_little_longer(gated: tuple[LiveSource, Path, Path]) -> None:
    live, _lose, _wait = gated
    for now, cost, pause in [
        *((100.0, 10.0, 0.0), (104.0, 10.0, 0.5), (110.0, 10.0, 1.0), (116.0, 0.2, 0.4)),
        *((163.0, 10.0, 1.5), (300.0, 10.0, 0.0)),
    ]:
        live._missing, live._listing_began = now - 3.0, now - 2.0
        live._mended(now, cost)
        assert live._missing is None
        assert live._calm_due - now == pytest.approx(pause)


def test_a_loss_that_goes_on_in_silence_is_made_good_too(
    gated: tuple[LiveSource, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """conntrack is told once, and more is dropped until its socket is empty: 14,000 flows too many stayed on show."""
    live, lose, wait = gated
    status = Status()

    def take(items: Sequence[Item]) -> None:
        for item in items:
            if not isinstance(item, Block):
                status.take(item)

    take(items_until(live, has_listed))
    lose.touch()
    wait.touch()
    take(items_until(live, has_lost))
    take(items_until(live, is_listed_anew))
    dropped = count(1)
    monkeypatch.setattr(source, "event_socket", lambda _pid: EventSocket(waiting=1280, dropped=next(dropped)))
    take(items_until(live, has_lost))
    wait.unlink()
    take(items_until(live, has_listed))
    assert (status.losses, status.healed) == (2, 1)
    assert live._missing is not None
    last = next(dropped) - 1
    monkeypatch.setattr(source, "event_socket", lambda _pid: EventSocket(waiting=0, dropped=last))
    take(items_until(live, lambda _items: live._missing is None))
    assert (status.losses, status.healed) == (2, 2)


# --- conntrack -S -----------------------------------------------------------------------------------------------------


def test_netlink_s_counters_are_summed_over_the_cpus() -> None:
    values = parse_statistics((CAPTURES / "stats-count" / "S.txt").read_text())
    assert values["insert"] == 12259 + 6623
    assert values["found"] == 1
    assert values["invalid"] == values["error"] == 2
    assert {*COUNTERS, "search_restart", "clash_resolve"} <= values.keys()


@pytest.mark.parametrize("path", ["stats-count/nobody-S.txt", "failures/nobody-S.stdout"])
def test_proc_s_counters_have_the_same_names(path: str) -> None:
    values = parse_statistics((CAPTURES / path).read_text())
    assert {*COUNTERS, "clash_resolve", "error", "invalid"} <= values.keys()
    assert not {"entries", "clashres", "icmp_error", "chainlength"} & values.keys()
    if "stats" in path:
        netlink = parse_statistics((CAPTURES / "stats-count" / "S.txt").read_text())
        assert {name: values[name] for name in netlink} == netlink


@given(st.one_of(st.text(), st.text("cpu=0 \tfound=19_\n")))
def test_any_answer_is_taken(text: str) -> None:
    values = parse_statistics(text)
    assert all(name and number >= 0 for name, number in values.items())


@pytest.mark.parametrize("text", ["", "found=1 drop=2\n", "conntrack v1.4.7: 3 flow entries\n", "cpu=0 drop=-1 x==2\n"])
def test_what_is_no_answer_is_none(text: str) -> None:
    assert parse_statistics(text) == {}


COUNTERS = ("insert_failed", "drop", "early_drop", "chaintoolong")
FAKE = """#!/bin/sh
echo "$*" >>{log}
case "$*" in
-S) {answer} ;;
-L*) echo "conntrack v1.4.7 (conntrack-tools): 0 flow entries have been shown." >&2 ;;
*) exec sleep 60 ;;
esac
"""


@pytest.mark.parametrize(
    ("statistics", "answer", "wanted"),
    [
        (True, "printf 'cpu=0   \\tdrop=7 \\n'; exit 1", {"drop": 7}),
        (True, "echo must be root >&2; exit 1", None),
        (True, "echo 'cpu=0 is busy'", None),
        (False, "echo 'cpu=0 drop=7'", None),
    ],
)
def test_it_is_asked_where_somebody_looks_and_no_answer_is_no_trouble(
    statistics: bool, answer: str, wanted: dict[str, int] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, log = tmp_path / "conntrack", tmp_path / "log"
    program.write_text(FAKE.format(log=log, answer=answer))
    program.chmod(0o755)
    monkeypatch.setattr(source, "STATISTICS_FIRST", 0.0)
    monkeypatch.setattr(source, "STATISTICS_EVERY", 0.1)
    live = source.LiveSource(source.Command(conntrack=str(program)), 0.1, statistics=statistics)
    try:
        enough = 2 if statistics else 0
        ended = items_until(
            live,
            lambda items: (
                sum(isinstance(item, ListingEnded) for item in items) >= 4
                and log.read_text().split("\n").count("-S") >= enough
                and (wanted is None or any(isinstance(item, Statistics) for item in items))
            ),
        )
    finally:
        live.close()
    assert ("-S" in log.read_text().split("\n")) is statistics
    answers = [item.values for item in ended if isinstance(item, Statistics)]
    assert all(values == wanted for values in answers)
    assert [item for item in ended if isinstance(item, Trouble) and item.problem] == []


@pytest.mark.parametrize(
    ("cost", "took", "machines", "pause"),
    [
        (0.001, 0.002, 1, 2.0),  # a small table: --interval
        (0.12, 0.15, 1, 3.72),
        (0.12, 0.15, 10, 9.35),  # no rate gets older than 9.5 s
        (0.001, 0.002, 10, 2.0),
        (1.2, 9.0, 10, 2.4),  # a third of a core at most, whatever the others cost
    ],
)
def test_listings_of_all_machines_share_what_one_may_cost(
    cost: float, took: float, machines: int, pause: float
) -> None:
    assert source._listing_pause(2.0, cost, took, machines) == pytest.approx(pause)
