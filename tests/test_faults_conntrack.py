"""Everything that can go wrong with conntrack and with what stands before it: on screen, in a stream, with --once.

Played by scripts; test_faults_kernel.py has what the real one can be made to do. Proven elsewhere:

============================================================================  ========================================
conntrack missing, not executable, not permitted, killed, failing, no kernel  test_cli: test_conntrack_failing_at_the_
support, at the start of --once, --json and --csv                             start, test_no_conntrack_at_all
no privileges, a namespace that does not exist, with the real conntrack       test_kernel
a child that ignores SIGTERM is killed; signals end a stream                  test_cli
arguments reach conntrack without a shell                                     test_cli, test_architecture
============================================================================  ========================================
"""

from __future__ import annotations

import shlex
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.kernel import send_signal
from support.program import (
    CAPTURES,
    MIXED,
    SHARE,
    FakeConntrack,
    OnScreen,
    Piped,
    changed,
    cpu_used,
    run_once,
    stays_idle,
    wait_for_children,
)
from support.terminal import PROGRAM

NOT_PERMITTED = "needs root or CAP_NET_ADMIN"
REFUSED = "root@router: Permission denied (publickey,password)."


def failing(name: str) -> str:
    """Lines of shell that fail as a capture did."""
    text = (CAPTURES / "failures" / f"{name}.stderr").read_text()
    return f"cat >&2 <<'EOF'\n{text}EOF\nexit {(CAPTURES / 'failures' / f'{name}.rc').read_text()}"


@dataclass
class Fault:
    """What -L and -E do when it happens, what is said of both, and how --once ends if it happens at the start."""

    listing: str = ""
    events: str = ""
    of_listing: str = ""
    of_events: str = ""
    code: int | None = 1  # None: not tried, to save time
    via: str = ""
    on_screen: str = ""  # what is said there at first
    program: Sequence[str] = tuple(PROGRAM)


SILENT = changed("import health, child; child.SILENCE, health.SLOW = 1.6, 0.5")  # 30 and 5 seconds
NO_ANSWER = "listing stopped: conntrack -L -o extended,id: no answer within 2 s"
NOT_ENDED = " s ago has not finished: the table is older than that"

FAULTS = {
    "hangs": Fault("exec sleep 60", "", NO_ANSWER, "", on_screen=NOT_ENDED, program=SILENT),
    # A byte now and then is not an answer either: such a listing never ended, under a green dot.
    "dribbles": Fault(
        "while :; do printf i; sleep 0.4; done",
        "",
        "listing stopped: conntrack -L -o extended,id: too slow: ",
        "",
        None,
        on_screen=NOT_ENDED,
        program=SILENT,
    ),
    "hangs after half a line": Fault(f"head -c 1000 {MIXED}; exec sleep 60", "", NO_ANSWER, "", None, program=SILENT),
    "exits 1": Fault(
        "exit 1",
        "exit 1",
        "listing stopped: conntrack -L -o extended,id exited with status 1",
        "events stopped: conntrack -E -o extended,id,timestamp exited with status 1",
    ),
    "is killed": Fault(
        "kill -9 $$", "kill -9 $$", "listing stopped: killed by signal 9", "events stopped: killed by signal 9"
    ),
    "writes half a line and ends": Fault(
        f"head -c 1000 {MIXED}",
        f"head -c 100 {MIXED}",
        "listing stopped: conntrack -L -o extended,id stopped in the middle of a line",
        "events stopped: conntrack -E -o extended,id,timestamp stopped in the middle of a line",
    ),
    "closes its output and goes on": Fault(
        "exec >&-; exec sleep 60",
        "exec >&-; exec sleep 60",
        "listing stopped: conntrack -L -o extended,id closed its output but did not exit",
        "events stopped: conntrack -E -o extended,id,timestamp closed its output but did not exit",
    ),
    "may do it no more": Fault(
        failing("nobody-L"),
        failing("nobody-E"),
        f"listing stopped: not permitted: reading the connection table {NOT_PERMITTED}",
        "events stopped: not permitted",
        code=3,
    ),
    "writes garbage": Fault(
        "head -c 20000 /dev/urandom; echo",
        "while :; do head -c 2000 /dev/urandom; sleep 0.05; done",
        "lines not understood; first: ",
        code=1,
    ),
    "loses its ssh": Fault(
        f"head -c 1000 {MIXED}; echo 'Connection to router closed by remote host.' >&2; exit 255",
        "echo 'client_loop: send disconnect: Broken pipe' >&2; exit 255",
        "listing stopped: Connection to router closed by remote host.",
        "events stopped: client_loop: send disconnect: Broken pipe",
        via="ssh root@router",
    ),
    # It would ask if it had a terminal to ask at; then it would hang, and take our keys.
    "is asked for a password": Fault(
        f"(: < /dev/tty) 2>/dev/null && exec sleep 60; echo '{REFUSED}' >&2; exit 255",
        f"(: < /dev/tty) 2>/dev/null && exec sleep 60; echo '{REFUSED}' >&2; exit 255",
        "listing stopped: ssh login failed: it can't ask for a password here",
        "events stopped: ssh login failed",
        code=3,
        via="ssh root@router",
    ),
}


class Trial:
    """A fault that happens to a screen and to a stream in the middle of their work."""

    def __init__(self, folder: Path, fault: Fault) -> None:
        self.folder, self.fault = folder, fault
        self.fake = FakeConntrack(folder, fault.listing, fault.events, name=fault.via.split(" ")[0] or "conntrack")
        self.args = ["--interval", "0.2", *(["--via", fault.via] if fault.via else [])]
        self.screen = OnScreen(folder, *self.args, size=(160, 30), env=self.fake.env, program=fault.program)
        self.stream = Piped(folder, *self.args, env=self.fake.env, program=fault.program)
        self.trouble: Exception | None = None
        self.used: list[float] = []
        self.starts = 0, 0

    def __enter__(self) -> Trial:
        return self

    def __exit__(self, *_: object) -> None:
        self.screen.__exit__()
        self.stream.__exit__()

    def is_well(self) -> None:
        self.screen.wait("Connections · 308")
        self.stream.wait(lambda: self.stream.lines() >= self.fake.lines, self.screen)

    def breaks(self) -> None:
        self.starts = self.fake.starts("-L"), self.fake.starts("-E")
        self.fake.breaks()

    def is_said(self) -> None:
        self.screen.wait(self.fault.on_screen)
        for words in (self.fault.of_listing, self.fault.of_events):
            self.screen.wait(words)
            self.stream.wait(words, self.screen)
        self.screen.wait("Connections · 308")  # nothing of this sweeps the table; half a frame may have been read
        if "stopped" in self.fault.of_listing:
            self.screen.wait(lambda: "● stale" in self.screen.text and " s old, retrying" in self.screen.text)

    def starts_no_storm(self) -> None:
        """Two programs; after 1, 2, 5, 10, 30 s again. Garbage is a listing that ended well."""
        if "stopped" in self.fault.of_listing:
            assert self.fake.starts("-L") - self.starts[0] <= 2 * 5
        assert self.fake.starts("-E") - self.starts[1] <= 2 * 5

    def ends(self) -> None:
        self.screen.leave()
        self.stream.leave()

    def is_so_at_the_start(self) -> None:
        if self.fault.code is None:
            return
        status, words = run_once(self.folder, *self.args, env=self.fake.env, program=self.fault.program)
        assert status == self.fault.code
        assert self.fault.of_listing.removeprefix("listing stopped: ") in words


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Trial]]:
    """All at once: each takes a second or two to be seen, and another one to be watched."""
    with ExitStack() as stack:
        made = {name: stack.enter_context(Trial(tmp_path_factory.mktemp("fault"), FAULTS[name])) for name in FAULTS}
        for step in (Trial.is_well, Trial.breaks, Trial.is_said):
            for trial in made.values():
                try:
                    step(trial)
                except AssertionError as trouble:
                    trial.trouble = trial.trouble or trouble
        alive = [trial for trial in made.values() if trial.trouble is None]
        used = iter(cpu_used(*(program for trial in alive for program in (trial.screen, trial.stream))))
        for trial in alive:
            trial.used = [next(used), next(used)]
        yield made


@pytest.mark.parametrize("name", FAULTS)
def test_it_happens_in_the_middle_and_at_the_start(trials: dict[str, Trial], name: str) -> None:
    trial = trials[name]
    if trial.trouble is not None:
        raise trial.trouble
    assert max(trial.used) < SHARE
    trial.starts_no_storm()
    trial.ends()
    trial.is_so_at_the_start()


def test_a_listener_that_hears_nothing_of_what_is_listed_is_started_anew(tmp_path: Path) -> None:
    """As in a container that was made anew while `docker exec` went on: nothing here can see where it listens."""
    new = MIXED.read_text().splitlines()[0].replace(" id=6 ", " id=7 ")
    fake = FakeConntrack(tmp_path, listing=f"cat {MIXED}; echo {shlex.quote(new)}")
    with Piped(tmp_path, "--interval", "0.3", env=fake.env) as stream:
        stream.wait(lambda: fake.starts("-L") > 10)  # since long before the last of them it has listened
        fake.breaks()
        stream.wait("lost: events (a listing shows flows that no event told of); the table is being reloaded")
        stream.wait(lambda: fake.starts("-E") == 2)
        listings = fake.starts("-L")
        stream.wait(lambda: fake.starts("-L") > listings + 10)
        assert fake.starts("-E") == 2
        stream.leave()


def test_it_never_stops_writing_garbage(tmp_path: Path) -> None:
    with Trial(tmp_path, Fault("exec yes", "exec yes", "lines not understood; first: y")) as trial:
        trial.is_well()
        trial.breaks()
        trial.is_said()
        stays_idle(trial.screen, trial.stream, seconds=2.0)  # it comes in pieces of 0.2 s
        trial.ends()
        trial.is_so_at_the_start()


def test_garbage_is_no_empty_table(tmp_path: Path) -> None:
    fake = FakeConntrack(tmp_path, FAULTS["writes garbage"].listing)
    fake.breaks()
    with OnScreen(tmp_path, env=fake.env) as screen:
        screen.wait("None of the input was understood")
        assert "tracking is off" not in screen.text
        screen.leave()


def test_it_is_not_there_when_the_screen_starts(tmp_path: Path) -> None:
    with OnScreen(tmp_path, env={"PATH": str(tmp_path)}) as screen:
        screen.has_left(status=4)
        assert "conntrack is not installed here; try: apt install conntrack" in screen.words()


# --- no storms ----------------------------------------------------------------------------------------------------------


def test_losses_while_listings_fail_start_no_storm_of_them(tmp_path: Path) -> None:
    lost = "while :; do echo 'WARNING: We have hit ENOBUFS! We are losing events.' >&2; sleep 0.05; done"
    fake = FakeConntrack(tmp_path, "exit 1", lost)
    with OnScreen(tmp_path, env=fake.env) as screen, Piped(tmp_path, env=fake.env) as stream:
        screen.wait("Connections · 308")
        stream.wait(lambda: stream.lines() >= fake.lines, screen)
        fake.breaks()
        screen.wait("listing stopped")
        stream.wait("lost: events (ENOBUFS); the table is being reloaded", screen)
        before = fake.starts("-L")
        stays_idle(screen, stream, seconds=1.5)
        assert fake.starts("-L") - before <= 2 * 2  # five a second without pauses
        screen.wait("events (ENOBUFS) lost ")
        assert stream.words().count("lost: ") == 1  # one storm, and it lasts
        screen.leave()
        stream.leave()


def test_a_key_held_down_starts_no_storm_of_listings(tmp_path: Path) -> None:
    fake = FakeConntrack(tmp_path)
    with OnScreen(tmp_path, "--interval", "60", env=fake.env) as screen:
        screen.wait("Connections · 308")
        before, began = fake.starts("-L"), time.monotonic()
        for _ in range(50):
            screen.type("\f")
            screen.read(0.02)
            time.sleep(0.02)  # as fast as a keyboard repeats
        assert fake.starts("-L") - before <= 2 + (time.monotonic() - began)  # 20 in 2 s without a bound
        screen.leave()


def test_noise_on_standard_error_is_not_listened_to_all_day(tmp_path: Path) -> None:
    fake = FakeConntrack(tmp_path, events="yes noise >&2")
    with OnScreen(tmp_path, env=fake.env) as screen, Piped(tmp_path, env=fake.env) as stream:
        screen.wait("Connections · 308")
        stream.wait(lambda: stream.lines() >= fake.lines, screen)
        fake.breaks()
        wait_for_children(screen, "yes noise", screen)
        wait_for_children(stream, "yes noise", screen)
        stays_idle(screen, stream)
        screen.leave()
        stream.leave()


# --- no orphans ---------------------------------------------------------------------------------------------------------

STUBBORN = "trap '' TERM; while :; do sleep 0.2; done"


def test_what_a_killed_prefix_leaves_behind_is_ended(tmp_path: Path) -> None:
    """The --via is killed, and what it started neither knows that nor minds SIGTERM."""
    prefix = tmp_path / "prefix"
    prefix.write_text('#!/bin/sh\n[ "$2" = -E ] || exec "$@"\ntrap "" TERM\n"$@" &\nwait\n')
    prefix.chmod(0o755)
    fake = FakeConntrack(tmp_path, events="exec sleep 60")
    fake.breaks()
    args = ("--via", prefix)
    with OnScreen(tmp_path, *args, env=fake.env) as screen, Piped(tmp_path, *args, env=fake.env) as stream:
        screen.wait("Connections · 308")
        stream.wait(lambda: stream.lines() >= fake.lines, screen)
        for program in (screen, stream):
            wait_for_children(program, "sleep 60", screen)
            for pid in wait_for_children(program, f"{prefix} conntrack -E", screen):
                send_signal(pid, signal.SIGKILL)
        screen.leave()
        stream.leave()


def test_children_that_do_not_want_to_end_share_one_patience(tmp_path: Path) -> None:
    """Events, listing, facts and addresses: four of them, and a terminal that does not take the last words."""
    prefix = tmp_path / "prefix"
    prefix.write_text(f"#!/bin/sh\n{STUBBORN}\n")
    prefix.chmod(0o755)
    soon = changed("import source; source.OWN_PATIENCE = 0.2")  # else the listing waits 3 s for the addresses
    with (
        OnScreen(tmp_path, "--via", prefix, program=soon) as screen,
        Piped(tmp_path, "--via", prefix, program=soon) as stream,
    ):
        screen.wait("reading the connection table")
        for program in (screen, stream):
            for words in ("conntrack -E", "conntrack -L", "grep", "ip"):
                wait_for_children(program, f"{prefix} {words}", screen)
        screen.leave()
        stream.leave()
