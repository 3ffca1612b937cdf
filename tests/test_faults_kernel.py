"""Faults of the real conntrack on the real kernel: killed, taken away, forbidden, its namespace gone, its events lost.

test_kernel.py has what goes wrong at the start; test_faults_conntrack.py what the real one can't be made to do.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from child import SOCKET_SIZE
from support.kernel import (
    Namespace,
    conntrack_children,
    conntrack_xml,
    dropped_events,
    insert,
    insert_arguments,
    is_in_state,
    kernel_mark,
    listeners,
    load,
    receive_buffer,
    send_signal,
    set_receive_buffer,
    stop_process,
)
from support.program import OnScreen, Piped, environment, inside, stays_idle, wait_for_children
from support.waiting import wait_for

pytestmark = kernel_mark()

SIZE = (160, 30)


@pytest.fixture
def ns() -> Iterator[Namespace]:
    with Namespace() as made:
        load(made, entries(1, 20))
        yield made


def entries(first: int, last: int) -> Iterator[str]:
    for port in range(first, last + 1):
        yield "-I " + " ".join(insert_arguments(src="192.0.2.1", dst="192.0.2.2", sport=port, dport=80, timeout=3600))


def begin(ns: Namespace, screen: OnScreen, stream: Piped) -> None:
    """Until both have listed the 20 entries, and their listeners run."""
    screen.wait("Connections · 20")
    stream.wait(lambda: stream.lines() >= 20, screen)
    wait_for(lambda: listeners(ns) == 2, lambda: listeners(ns), screen)


def test_the_listener_is_killed(ns: Namespace, tmp_path: Path) -> None:
    args = ("--interval", "0.2")
    with (
        OnScreen(tmp_path, *args, size=SIZE, program=inside(ns)) as screen,
        Piped(tmp_path, *args, program=inside(ns)) as stream,
    ):
        begin(ns, screen, stream)
        for program in (screen, stream):
            for pid in wait_for_children(program, "conntrack -E", screen):
                send_signal(pid, signal.SIGKILL)
        screen.wait("events stopped: killed by signal 9")
        stream.wait("events stopped: killed by signal 9", screen)
        insert(ns, src="192.0.2.9", dst="192.0.2.2", sport=1, dport=80)  # while nobody listens
        stream.wait("events are back", screen)
        screen.wait("● live")
        screen.wait("Connections · 21")
        stream.wait(lambda: b'"192.0.2.9"' in stream.out.read_bytes(), screen)
        assert len(wait_for_children(screen, "conntrack -E")) == len(wait_for_children(stream, "conntrack -E")) == 1
        screen.leave()
        stream.leave()


def test_conntrack_is_taken_away_and_put_back(ns: Namespace, tmp_path: Path) -> None:
    real, copy = shutil.which("conntrack"), tmp_path / "conntrack"
    assert real
    shutil.copy(real, copy)
    args = ("--interval", "0.2", "--conntrack", copy)
    with (
        OnScreen(tmp_path, *args, size=SIZE, program=inside(ns)) as screen,
        Piped(tmp_path, *args, program=inside(ns)) as stream,
    ):
        begin(ns, screen, stream)
        copy.unlink()
        screen.wait(f"listing stopped: {copy} is not installed here, table is ")
        stream.wait(f"listing stopped: {copy} is not installed here; try: apt install conntrack; retrying", screen)
        screen.wait("try: apt install conntrack")
        insert(ns, src="192.0.2.9", dst="192.0.2.2", sport=1, dport=80)
        screen.wait("Connections · 21")  # the listener runs on
        shutil.copy(real, copy)
        screen.wait("● live")
        stream.wait("listing is back", screen)
        screen.leave()
        stream.leave()


def test_the_permission_is_lost(ns: Namespace, tmp_path: Path) -> None:
    lost, prefix = tmp_path / "lost", tmp_path / "prefix"
    drop = "setpriv --bounding-set -net_admin --inh-caps -net_admin"
    prefix.write_text(f'#!/bin/sh\n[ -e {lost} ] && exec {drop} "$@"\nexec "$@"\n')
    prefix.chmod(0o755)
    args = ("--interval", "0.2", "--via", prefix)
    with (
        OnScreen(tmp_path, *args, size=SIZE, program=inside(ns)) as screen,
        Piped(tmp_path, *args, program=inside(ns)) as stream,
    ):
        begin(ns, screen, stream)
        lost.touch()
        for program in (screen, stream):
            for pid in wait_for_children(program, "conntrack -E", screen):
                send_signal(pid, signal.SIGKILL)
        for part in ("listing", "events"):
            words = f"{part} stopped: not permitted: reading the connection table needs root or CAP_NET_ADMIN"
            screen.wait(words)
            stream.wait(words, screen)
        screen.wait("try: sudo, or --via sudo")
        screen.wait("Connections · 20")
        stays_idle(screen, stream)
        screen.leave()
        stream.leave()


def test_the_namespace_is_gone(tmp_path: Path) -> None:
    """Its name, that is: the listener inside keeps the namespace, and goes on."""
    with Namespace() as ns:
        load(ns, entries(1, 20))
        args = ("--interval", "0.2", "--via", ns.via)
        with OnScreen(tmp_path, *args, size=SIZE) as screen, Piped(tmp_path, *args) as stream:
            begin(ns, screen, stream)
            subprocess.run(["ip", "netns", "del", ns.name], check=True)
            words = f"listing stopped: there is no network namespace '{ns.name}'"
            screen.wait(words)
            stream.wait(words, screen)
            screen.wait("try: ip netns list")
            screen.wait("Connections · 20")
            stays_idle(screen, stream)
            screen.leave()
            stream.leave()


@pytest.mark.parametrize("named", [True, False])
def test_a_namespace_made_anew_is_listened_in(named: bool, tmp_path: Path) -> None:
    """The old listener keeps the old namespace alive, and would wait in it for ever. What a script enters is unknown."""
    with Namespace() as ns:
        prefix = tmp_path / "prefix"
        prefix.write_text(f'#!/bin/sh\nip netns exec {ns.name} "$@"\nexit $?\n')
        prefix.chmod(0o755)
        args = ("--interval", "0.5", "--via", ns.via if named else prefix)
        load(ns, entries(1, 20))
        with OnScreen(tmp_path, *args, size=SIZE) as screen, Piped(tmp_path, *args) as stream:
            screen.wait("Connections · 20")
            stream.wait(lambda: stream.lines() >= 20, screen)
            wait_for_children(screen, "conntrack -E")
            wait_for_children(stream, "conntrack -E", screen)
            subprocess.run(["ip", "netns", "del", ns.name], check=True)
            subprocess.run(["ip", "netns", "add", ns.name], check=True)
            port = iter(range(21, 2000))

            def comes_as_an_event() -> bool:
                number = next(port)
                insert(ns, src="192.0.2.1", dst="192.0.2.2", sport=number, dport=80)
                news = [line for line in stream.out.read_bytes().splitlines() if b'"event":"new"' in line]
                return len(news) >= 3

            wait_for(comes_as_an_event, stream.words, screen)
            why = r"lost: events \((the network namespace was made anew|a listing shows flows that no event told of)\)"
            assert re.search(why, stream.words())
            screen.wait(" lost 1x, ")
            screen.wait("● live")
            screen.leave()
            stream.leave()


def test_a_reader_that_stood_still_is_told_how_late_it_is_and_gets_what_was_lost(ns: Namespace, tmp_path: Path) -> None:
    with Late(ns, tmp_path) as stream:
        stream.read_until(lambda: len(stream.told) >= 20)
        set_receive_buffer(stream.listener(), 106_496)
        load(ns, entries(21, 12_020))  # the pipes hold 6,000 of them
        wait_for(lambda: dropped_events(stream.listener()) > 0, what="a loss")
        stopped = time.monotonic()
        wait_for(lambda: time.monotonic() - stopped > 3.0, what="the reader to be late")
        kernels = {flow["id"] for flow in conntrack_xml(ns)}
        stream.read_until(lambda: stream.told == kernels)
        words = stream.err.read_text()
        assert re.search(r"\d+ s behind: events arrive faster than they can be read", words), words
        assert "lost: events (ENOBUFS); the table is being reloaded" in words
        stream.read_until(lambda: "no longer behind" in stream.err.read_text())


def test_without_a_screen_or_a_stream_it_also_says_how_late_it_was_and_that_this_is_over(
    ns: Namespace, tmp_path: Path
) -> None:
    words = ("--metrics", tmp_path / "flows.prom")
    with Piped(tmp_path, *words, program=inside(ns), mode=("--headless",)) as running:
        listener(running)
        running.wait(lambda: (tmp_path / "flows.prom").exists())
        os.kill(running.pid, signal.SIGSTOP)
        load(ns, entries(21, 60))
        stopped = time.monotonic()
        wait_for(lambda: time.monotonic() - stopped > 3.0, what="the program to be late")
        os.kill(running.pid, signal.SIGCONT)
        running.wait(lambda: "no longer behind" in running.err.read_text())
        assert re.search(r"\d+ s behind: events arrive faster than they can be read", running.err.read_text())
        running.leave()


class Late:
    """The program with --json in a namespace; its output is read when the test says so."""

    def __init__(self, ns: Namespace, folder: Path) -> None:
        self.told: set[int] = set()
        self.err = folder / "late-err"
        self._left = b""
        with open(self.err, "wb") as err:
            self.process = subprocess.Popen(
                [*inside(ns), "--json", "--interval", "0.5"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=err,
                env={**os.environ, **environment(folder)},
            )

    def __enter__(self) -> Late:
        return self

    def __exit__(self, *_: object) -> None:
        stop_process(self.process)

    def listener(self) -> int:
        wait_for(lambda: any(receive_buffer(pid) for pid in conntrack_children(self.process.pid, "-E")))
        return conntrack_children(self.process.pid, "-E")[0]

    def read_until(self, enough: Callable[[], bool]) -> None:
        assert self.process.stdout
        fd = self.process.stdout.fileno()

        def read() -> bool:
            if select.select([fd], [], [], 0.05)[0]:
                *lines, self._left = (self._left + os.read(fd, 1 << 20)).split(b"\n")
                self.told.update(json.loads(line)["id"] for line in lines)
            return enough()

        wait_for(read, lambda: f"{len(self.told)} {self.err.read_text()}")


def stop_during(programs: list[OnScreen | Piped], ns: Namespace, new: range) -> None:
    """SIGSTOP, so many events, SIGCONT."""
    for program in programs:
        os.kill(program.pid, signal.SIGSTOP)
        wait_for(lambda pid=program.pid: is_in_state(pid, "T"))  # type: ignore[misc]
    load(ns, entries(new.start, new.stop))
    for program in programs:
        os.kill(program.pid, signal.SIGCONT)


def listener(program: OnScreen | Piped) -> int:
    """Its conntrack -E, once the program has given its socket more room."""
    wait_for(lambda: any(receive_buffer(pid) >= 2 * SOCKET_SIZE for pid in conntrack_children(program.pid, "-E")))
    return conntrack_children(program.pid, "-E")[0]


def test_events_that_come_while_stopped_wait(ns: Namespace, tmp_path: Path) -> None:
    """The pipe takes 4,500 of them, Linux's default socket 250 more; ours all the rest."""
    with (
        OnScreen(tmp_path, size=SIZE, program=inside(ns)) as screen,
        Piped(tmp_path, program=inside(ns)) as stream,
    ):
        begin(ns, screen, stream)
        listener(screen)
        listener(stream)
        stop_during([screen, stream], ns, range(21, 8_020))
        screen.wait("Connections · 8020")
        stream.wait(lambda: stream.out.read_text().count('"event":"new"') == 8_000, screen)
        screen.leave()
        stream.leave()
        assert "lost" not in screen.text
        assert "lost" not in stream.err.read_text()


def test_events_lost_while_stopped_are_said_and_made_good(ns: Namespace, tmp_path: Path) -> None:
    """More events than the pipe and a socket of Linux's default size hold."""
    with (
        OnScreen(tmp_path, size=SIZE, program=inside(ns)) as screen,
        Piped(tmp_path, program=inside(ns)) as stream,
    ):
        begin(ns, screen, stream)
        for program in (screen, stream):
            set_receive_buffer(listener(program), 106_496)
        stop_during([screen, stream], ns, range(21, 8_020))
        screen.wait("events (ENOBUFS) lost ")
        stream.wait("lost: events (ENOBUFS); the table is being reloaded", screen)
        screen.wait("Connections · 8020")
        screen.wait("table reloaded since")
        kernels = {flow["id"] for flow in conntrack_xml(ns)}

        def told() -> set[int]:
            text = stream.out.read_text()
            return {json.loads(line)["id"] for line in text[: text.rfind("\n") + 1].splitlines()}

        stream.wait(lambda: told() == kernels, screen)
        screen.leave()
        stream.leave()


# --- a recording on a full disk -------------------------------------------------------------------------------------------


def test_a_recording_fills_its_disk(ns: Namespace, tmp_path: Path) -> None:
    """A file system of 64 KiB in a mount namespace of the program's own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = 'mount -t tmpfs -o size=64k,mode=755 none "$0" && exec "$@"'
    small = ["/usr/bin/unshare", "-m", "/bin/sh", "-c", mount, str(disk)]
    args = ("--interval", "0.2", "--record", disk / "some.rec")
    with (
        OnScreen(tmp_path, *args, size=SIZE, program=[*small, *inside(ns)]) as screen,
        Piped(tmp_path, *args, program=[*small, *inside(ns)]) as stream,
    ):
        begin(ns, screen, stream)
        load(ns, entries(21, 1000))
        screen.wait("! recording stopped: No space left on device")
        stream.wait("recording stopped: No space left on device", screen)
        screen.wait("Connections · 1000")
        screen.type("n")
        screen.wait("192.0.2.2:80")
        screen.wait("recording stopped")  # not only till the next key
        stays_idle(screen, stream)
        for program in (screen, stream):
            there = Path(f"/proc/{program.pid}/root{disk}/some.rec")
            assert stat.S_IMODE(there.stat().st_mode) == 0o600
        screen.leave()
        assert "recording stopped: No space left on device" in screen.words()
        stream.leave()
