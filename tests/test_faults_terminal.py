"""Everything that a terminal, a keyboard, closed streams and job control can do to the program.

Proven elsewhere:

===================================================================  =================================================
every size from 1x1 on, changes of size with help and prompt open    test_render, test_tmux
Ctrl+Z and fg; q, Ctrl+C, F10 and signals give the terminal back     test_tmux
ASCII in the C locale, in each frame  test_screen
a frame that a stalled terminal did not take; leaving it then        test_screen
junk from the keyboard; any keys on any table                        test_screen, test_view
a reader that stalls, or that goes while a table is printed          test_cli
===================================================================  =================================================
"""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import termios
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.kernel import is_in_state
from support.program import (
    MIXED,
    PROMPT,
    FakeConntrack,
    OnScreen,
    Piped,
    Stopwatch,
    cpu_seconds,
    environment,
    no_orphans,
    run_once,
    stays_idle,
    wait_for_children,
)
from support.tables import event
from support.terminal import PROGRAM
from support.waiting import PATIENCE, wait_for


def redirected(how: str) -> list[str]:
    """The program with a shell's redirection."""
    return ["/bin/sh", "-c", f'exec "$@" {how}', "sh", *PROGRAM]


def body(screen: OnScreen) -> list[str]:
    """What a pause holds still: all from the title line on."""
    lines = screen.text.split("\n")
    at = next(i for i, line in enumerate(lines) if line.startswith("Connections"))
    return lines[at:]


def is_as_if_drawn_whole(screen: OnScreen) -> None:
    """What the differences left on the screen is what a whole frame puts there."""

    def is_whole() -> bool:
        return screen.seen.endswith(b"\x1b[?2026l")

    screen.type("p")
    screen.wait(lambda: "PAUSED" in screen.text and is_whole())
    before = body(screen)
    entered = screen.seen.count(b"\x1b[?1049h")
    os.kill(screen.pid, signal.SIGWINCH)
    screen.wait(lambda: screen.seen.count(b"\x1b[?1049h") > entered and is_whole())
    assert body(screen) == before
    screen.type("p")
    screen.wait(lambda: "PAUSED" not in screen.text)


def settle(screen: OnScreen) -> None:
    """Until the program has taken in all that was typed: it waits, and goes on waiting."""
    rests, used = 0, 0.0
    until = time.monotonic() + PATIENCE
    while rests < 10:
        assert time.monotonic() < until, screen.text
        screen.read(0.02)
        now = cpu_seconds(screen.folder)
        rests = rests + 1 if is_in_state(screen.pid, "S") and now - used < 0.02 else 0
        used = now


def paste(screen: OnScreen, keys: str, reading: bool = True) -> None:
    """All at once: as fast as the terminal takes them."""
    data = keys.encode()
    os.set_blocking(screen.fd, False)
    until = time.monotonic() + PATIENCE
    while data:
        assert time.monotonic() < until
        if select.select([], [screen.fd], [], 0.02)[1]:
            data = data[os.write(screen.fd, data) :]
        if reading:
            os.set_blocking(screen.fd, True)
            screen.read(0.0)
            os.set_blocking(screen.fd, False)
    os.set_blocking(screen.fd, True)


# --- a terminal that does not read --------------------------------------------------------------------------------------


def stall(screen: OnScreen) -> None:
    """Nobody reads, and the program draws, until the terminal takes nothing more."""
    slave = os.open(os.readlink(f"/proc/{screen.pid}/fd/1"), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
    until = time.monotonic() + PATIENCE
    full = 0
    while full < 5:
        assert time.monotonic() < until
        os.kill(screen.pid, signal.SIGWINCH)
        full = 0 if select.select([], [slave], [], 0.03)[1] else full + 1
        time.sleep(0.03)
    os.close(slave)


def test_events_are_taken_in_while_the_terminal_does_not_read(tmp_path: Path) -> None:
    """A minute of it, measured in events: 100,000 come meanwhile, and none is lost."""
    events, told = tmp_path / "events", tmp_path / "told"
    events.write_text(
        "".join(event("NEW", n, sport=1000, src=f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}") for n in range(100_000))
    )
    fake = FakeConntrack(tmp_path, events=f"cat {events}; touch {told}; exec sleep 60")
    with OnScreen(tmp_path, "--interval", "3600", env=fake.env) as screen:
        screen.wait("Connections · 308")
        stall(screen)
        used = cpu_seconds(tmp_path)
        fake.breaks()
        wait_for(told.exists, lambda: "the program does not read them")
        wait_for(lambda: is_in_state(screen.pid, "S"))
        before = cpu_seconds(tmp_path)
        assert before > used
        until = time.monotonic() + 1.0
        while time.monotonic() < until:  # stays_idle() would read the screen
            time.sleep(0.05)
        assert cpu_seconds(tmp_path) - before < 0.5
        screen.wait("Connections · 100308")
        assert "lost" not in screen.text
        is_as_if_drawn_whole(screen)
        screen.leave()


def test_keys_are_heeded_while_the_terminal_does_not_read(tmp_path: Path) -> None:
    fake = FakeConntrack(tmp_path)
    with OnScreen(tmp_path, env=fake.env) as screen:
        screen.wait("Connections · 308")
        modes = termios.tcgetattr(screen.fd)
        assert not modes[3] & termios.ICANON
        stall(screen)
        paste(screen, "j" * 3000 + "q", reading=False)
        watch = Stopwatch(screen.pid)
        wait_for(lambda: watch.seconds() and os.waitid(os.P_PID, screen.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG))
        assert watch.seconds() < PROMPT
        no_orphans(tmp_path)
        assert termios.tcgetattr(screen.fd)[3] & termios.ICANON
        assert screen.end() == 0


# --- sizes, kinds, keys -------------------------------------------------------------------------------------------------


def test_a_window_of_one_character(tmp_path: Path) -> None:
    fake = FakeConntrack(tmp_path)
    with OnScreen(tmp_path, size=(1, 1), env=fake.env) as screen:
        screen.wait(lambda: b"\x1b[?1049h" in screen.seen)
        stays_idle(screen)
        screen.type("/a?\r")
        screen.resize(100, 30)
        screen.wait("Connections")
        screen.resize(1, 1)
        screen.wait(lambda: len(screen.text) <= 1)
        screen.leave(signal.SIGTERM)


def test_500_new_sizes_in_a_second(tmp_path: Path) -> None:
    fake = FakeConntrack(tmp_path)
    some = random.Random(500)
    with OnScreen(tmp_path, env=fake.env) as screen:
        screen.wait("Connections · 308")
        for _ in range(500):
            screen.resize(some.randint(1, 160), some.randint(1, 50))
            screen.read(0.0)
            time.sleep(0.001)
        screen.resize(100, 30)
        screen.wait(lambda: "Connections · 308" in screen.text and "q quit" in screen.text)
        is_as_if_drawn_whole(screen)
        stays_idle(screen)
        screen.leave()


def test_10000_keys_pasted_at_once(tmp_path: Path) -> None:
    """Every key there is but those that end it; then filter, table and quit work as ever."""
    fake = FakeConntrack(tmp_path)
    some = random.Random(10_000)
    keys = '/?jkhsSrIpzoncGg<>+- \r\f\x7f\t\x01\x04\x15\x17ab1:!("\\lmtuvwxyXNeH[]12345678é漢'
    with OnScreen(tmp_path, env=fake.env) as screen:
        screen.wait("Connections · 308")
        before = fake.starts("-L")
        paste(screen, "".join(some.choice(keys) for _ in range(10_000)))
        settle(screen)
        for _ in range(5):  # prompt or help, details, the way back, filter, selection
            screen.type("\x1b")
            settle(screen)
        screen.type("1")
        screen.wait("q quit")
        if "PAUSED" in screen.text:
            screen.type("p")
        screen.wait("Connections · 308")
        assert fake.starts("-L") - before <= 20
        is_as_if_drawn_whole(screen)
        stays_idle(screen)
        screen.leave()


@pytest.mark.parametrize("keys", ["j" * 10_000, "/" + "x" * 10_000 + "\x15\r", "\x1b[B" * 3_333])
def test_q_behind_10000_keys(tmp_path: Path, keys: str) -> None:
    fake = FakeConntrack(tmp_path)
    with OnScreen(tmp_path, env=fake.env) as screen:
        screen.wait("Connections · 308")
        paste(screen, keys)
        screen.leave("q")


def test_kinds_of_terminals(tmp_path: Path) -> None:
    with ExitStack() as stack:
        screens = {}
        for kind in ("no-such-terminal", "vt100", "linux"):
            folder = tmp_path / f"kind-{kind}"
            folder.mkdir()
            env = {**FakeConntrack(folder).env, "TERM": kind, "COLORTERM": ""}
            screens[kind] = stack.enter_context(OnScreen(folder, env=env))
        for screen in screens.values():
            screen.wait("Connections · 308")
        stays_idle(*screens.values())
        for kind, screen in screens.items():
            screen.type("/proto:icmp\r")
            screen.wait("Connections · 40 of 308")
            screen.leave()
            assert b"\x1b" in screen.seen, kind
            assert b"No such" not in screen.seen, kind
            assert b"Warning" not in screen.seen, kind


@pytest.mark.parametrize("variable", ["LANG", "LC_CTYPE"])
def test_the_c_locale(tmp_path: Path, variable: str) -> None:
    fake = FakeConntrack(tmp_path)
    env = {**fake.env, "LANG": "", variable: "C"}
    with OnScreen(tmp_path, env=env) as screen:
        screen.wait("Connections | 308")
        screen.type("?")
        screen.wait("this help")
        screen.type("/é漢\x15")
        screen.leave(signal.SIGTERM)
        assert screen.seen.isascii()
    assert run_once(tmp_path, env={**env, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})[0] == 0


# --- stopped and continued ----------------------------------------------------------------------------------------------


def test_sigstop_and_sigcont(tmp_path: Path) -> None:
    fake = FakeConntrack(tmp_path)
    with OnScreen(tmp_path, env=fake.env) as screen, Piped(tmp_path, env=fake.env) as stream:
        screen.wait("Connections · 308")
        stream.wait(lambda: stream.lines() >= fake.lines, screen)
        for program in (screen, stream):
            os.kill(program.pid, signal.SIGSTOP)
            wait_for(lambda pid=program.pid: is_in_state(pid, "T"))  # type: ignore[misc]
        screen.read(0.0)
        screen.resize(90, 25)
        screen.stream.feed(b"\x1b[2J\x1b[H$ a shell's own text")
        for program in (screen, stream):
            os.kill(program.pid, signal.SIGCONT)
        screen.wait("Connections · 308")
        assert "a shell's" not in screen.text
        is_as_if_drawn_whole(screen)
        stays_idle(screen, stream)
        screen.leave()
        stream.leave()


# --- standard input at its end, closed streams ----------------------------------------------------------------------------


def test_a_screen_with_a_stream_at_its_end(tmp_path: Path) -> None:
    with ExitStack() as stack:
        screens = []
        for number, how in enumerate(("</dev/null", "<&-", "2>&-", "2>/dev/full")):
            folder = tmp_path / str(number)
            folder.mkdir()
            screens.append(
                stack.enter_context(OnScreen(folder, env=FakeConntrack(folder).env, program=redirected(how)))
            )
        piped = ["/bin/sh", "-c", f'cat {MIXED} | "$@"', "sh", *PROGRAM]
        screens.append(stack.enter_context(OnScreen(tmp_path, "--replay", "-", program=piped)))
        screens[-1].wait("replay ended")
        for screen in screens:
            screen.wait("Connections · 308")
        stays_idle(*screens)
        for screen in screens:
            screen.type("?")  # keys come from the terminal all the same
            screen.wait("this help")
            screen.leave()


def test_a_screen_without_a_keyboard(tmp_path: Path) -> None:
    """Standard input is at its end, and there is no terminal of the process's own: a daemon's child."""
    fake = FakeConntrack(tmp_path)
    with OnScreen(tmp_path, env=fake.env, program=["/usr/bin/setsid", "-w", *redirected("</dev/null")]) as screen:
        screen.wait("Connections · 308")
        stays_idle(screen)
        (pid,) = [pid for pid in wait_for_children(screen, "conntrack_monitor.py") if pid != screen.pid]
        os.kill(pid, signal.SIGTERM)
        screen.has_left()


@pytest.mark.parametrize("mode", [[], ["--json"], ["--once", "--csv", "--record", "rec"]])
@pytest.mark.parametrize("how", [">&-", "<&- >&- 2>&-"])
def test_standard_output_is_closed(tmp_path: Path, mode: list[str], how: str) -> None:
    """The next pipe or file that is opened must not take its place: the program would write to itself."""
    fake = FakeConntrack(tmp_path)
    result = subprocess.run(
        [*redirected(how), *mode],
        capture_output=True,
        env={**os.environ, **environment(tmp_path), **fake.env},
        cwd=tmp_path,
        timeout=PATIENCE,
        check=False,
    )
    assert result.returncode == 2
    assert result.stdout == b""
    assert b"stdout is closed" in result.stderr or "2>&-" in how
    assert b"Traceback" not in result.stderr
    no_orphans(tmp_path)


@pytest.mark.parametrize("how", ["2>/dev/full", "2>&-", "<&-", "<&- 2>&-"])
def test_no_place_for_messages_costs_no_data(tmp_path: Path, how: str) -> None:
    result = subprocess.run(
        [*redirected(how), "--once", "--json", "--replay", str(MIXED)],
        capture_output=True,
        env={**os.environ, **environment(tmp_path)},
        timeout=PATIENCE,
        check=False,
    )
    assert result.returncode == 0
    assert result.stdout.count(b"\n") == MIXED.read_bytes().count(b"\n")


def test_the_terminal_goes_away(tmp_path: Path) -> None:
    fake = FakeConntrack(tmp_path)
    with OnScreen(tmp_path, env=fake.env) as screen:
        screen.wait("Connections · 308")
        os.close(screen.fd)
        screen.fd = os.open(os.devnull, os.O_RDONLY)
        watch = Stopwatch(screen.pid)
        wait_for(lambda: watch.seconds() and os.waitid(os.P_PID, screen.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG))
        assert watch.seconds() < PROMPT
        no_orphans(tmp_path)


def test_the_reader_of_a_quiet_stream_goes_away(tmp_path: Path) -> None:
    fake = FakeConntrack(tmp_path)
    process = subprocess.Popen(
        [*PROGRAM, "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment(tmp_path), **fake.env},
    )
    with process:
        assert process.stdout
        assert process.stderr
        for _ in range(fake.lines):
            assert process.stdout.readline()
        process.stdout.close()
        watch = Stopwatch(process.pid)
        wait_for(lambda: watch.seconds() and process.poll() is not None)
        assert watch.seconds() < PROMPT
        assert process.returncode == 0
        assert b"Traceback" not in process.stderr.read()
    no_orphans(tmp_path)
