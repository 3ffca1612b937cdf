"""What every test of a fault needs: the program on a terminal and in a pipe, and what must hold whatever goes wrong.

Each program runs in an environment that carries a mark, which all its children inherit: so they are found in /proc,
however they were started, for the processor time they use and to see that none is left.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from support.kernel import Namespace, send_signal
from support.terminal import PROGRAM, ROOT, Terminal
from support.waiting import PATIENCE, wait_for

CAPTURES = ROOT / "fixtures" / "captures"
MIXED = CAPTURES / "mixed-table" / "L.ext-id.txt"
EVENT = (CAPTURES / "tcp-lifecycle" / "E.ext-id-ts.txt").read_text().splitlines()[0]
MARK = "FAULT_MARK"
PROMPT = 2.0  # seconds to end in
SHARE = 0.5  # of one core: a program that spins uses all of it, one that rests a hundredth


def environment(folder: Path, **more: str) -> dict[str, str]:
    """What a program under test gets beside our own environment: the mark, and no database from anywhere."""
    (folder / "no-databases").mkdir(exist_ok=True)
    return {
        MARK: str(folder),
        "CONNTRACK_MONITOR_NO_DOWNLOAD": "1",
        "GEOIP_DB_PATHS": str(folder / "no-databases"),
        "XDG_CACHE_HOME": str(folder / "no-cache"),
        **more,
    }


def changed(statement: str) -> list[str]:
    """The program with a constant of its own changed by a Python statement, where the real one takes too long."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); {statement}; import conntrack_monitor; conntrack_monitor.main()"
    return [sys.executable, "-c", code]


# --- processes --------------------------------------------------------------------------------------------------------


def processes(folder: Path) -> list[int]:
    """The processes that carry the folder's mark; those that have ended and wait to be reaped do not count."""
    mark = f"{MARK}={folder}".encode()
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            if mark in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                found.append(int(entry))
    return found


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on: the second may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def cpu_seconds(folder: Path) -> float:
    """Processor time that the mark's processes, and those of their children that have ended, used so far."""
    ticks = 0
    for pid in processes(folder):
        with suppress(OSError):
            ticks += sum(map(int, _stat(pid)[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def kept_waiting(pid: int) -> float:
    """Seconds that a process wanted a processor and others had it."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    return 0.0


def wait_for_children(program: OnScreen | Piped, words: str, *screens: OnScreen) -> list[int]:
    """Wait for processes of the program with these words in their command lines; their numbers."""

    def there() -> list[int]:
        return [pid for pid in processes(program.folder) if words in cmdline(pid) and pid != program.pid]

    wait_for(there, lambda: f"no {words!r} among {[cmdline(pid) for pid in processes(program.folder)]}", *screens)
    return there()


def no_orphans(folder: Path) -> None:
    """None of the mark's processes is left. A child that was told to end may take a moment to."""
    wait_for(lambda: not processes(folder), lambda: [cmdline(pid) for pid in processes(folder)])


def cmdline(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


# --- conntrack, played by a script ------------------------------------------------------------------------------------


class FakeConntrack:
    """A conntrack of our own, well until it ``breaks``: what ``-L`` and ``-E`` do then are lines of shell.

    ``name``: who is played; an ssh or a sudo sees conntrack's words behind its own. Every start is noted.
    """

    def __init__(self, folder: Path, listing: str = "", events: str = "", name: str = "conntrack") -> None:
        self._broken, self._log = folder / "broken", folder / "starts"
        self._log.touch()
        self.lines = MIXED.read_bytes().count(b"\n")
        self.env = {"PATH": f"{folder}:{os.environ['PATH']}"}
        path = folder / name
        path.write_text(f"""#!/bin/sh
broken() {{ [ -e {shlex.quote(str(self._broken))} ]; }}
case " $* " in
*" -L "*)
    echo -L >> {shlex.quote(str(self._log))}
    if broken; then :
        {listing or "cat " + shlex.quote(str(MIXED))}
    else cat {shlex.quote(str(MIXED))}; fi ;;
*" -E "*)
    echo -E >> {shlex.quote(str(self._log))}
    until broken; do sleep 0.05; done
    {events or "exec sleep 60"} ;;
esac
""")
        path.chmod(0o755)

    def breaks(self) -> None:
        self._broken.touch()

    def starts(self, option: str) -> int:
        return self._log.read_text().split().count(option)


# --- the program ------------------------------------------------------------------------------------------------------


class Stopwatch:
    """Seconds that a process takes, without those in which the machine was busy with others."""

    def __init__(self, pid: int) -> None:
        self._pids = (pid, os.getpid())
        self._began = time.monotonic()
        self._before = dict.fromkeys(self._pids, 0.0) | {pid: kept_waiting(pid) for pid in self._pids}
        self._waited = dict(self._before)

    def seconds(self) -> float:
        for pid in self._pids:
            self._waited[pid] = max(self._waited[pid], kept_waiting(pid))
        waited = sum(self._waited[pid] - self._before[pid] for pid in self._pids)
        return time.monotonic() - self._began - waited


class OnScreen(Terminal):
    """The program on a terminal."""

    def __init__(
        self,
        folder: Path,
        *args: object,
        size: tuple[int, int] = (100, 30),
        env: Mapping[str, str] | None = None,
        program: Sequence[str] = PROGRAM,
        cwd: Path | None = None,
    ) -> None:
        self.folder = folder
        super().__init__(
            *map(str, args), size=size, env=environment(folder, **(env or {})), program=program, cwd=cwd or folder
        )
        self._before = termios.tcgetattr(self.fd)

    def __enter__(self) -> OnScreen:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in processes(self.folder):
            send_signal(pid, signal.SIGKILL)
        super().__exit__()

    def words(self) -> str:
        """What was written after the screen was left, or all of it if it never was entered."""
        return self.seen.rpartition(b"\x1b[?1049l")[2].decode("utf-8", "replace")

    def leave(self, how: str | int = "q", status: int = 0) -> None:
        """End it by a key or a signal: soon, well, and the terminal is as it was."""
        if isinstance(how, str):
            self.type(how)
        else:
            os.kill(self.pid, how)
        self.has_left(status)

    def has_left(self, status: int = 0) -> None:
        """It ends with that status, within two seconds from now, and the terminal is as it was."""
        watch = Stopwatch(self.pid)
        until = time.monotonic() + PATIENCE
        while os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            assert time.monotonic() < until, "it does not end:\n" + self.text
            watch.seconds()
            self.read(0.01)
        took = watch.seconds()
        assert self.end() == status, self.words()
        assert took < PROMPT
        self.is_given_back()
        no_orphans(self.folder)

    def is_given_back(self) -> None:
        assert b"Traceback" not in self.seen
        assert b"internal error" not in self.seen
        for on, off in (
            (b"\x1b[?1049h", b"\x1b[?1049l"),
            (b"\x1b[?25l", b"\x1b[?25h"),
            (b"\x1b[?2026h", b"\x1b[?2026l"),
            (b"\x1b[?1000h", b"\x1b[?1000l"),
            (b"\x1b[?1006h", b"\x1b[?1006l"),
        ):
            assert self.seen.rfind(off) >= self.seen.rfind(on), on
        assert termios.tcgetattr(self.fd) == self._before


class Piped:
    """The program with its output in files: ``--json`` unless told otherwise."""

    def __init__(
        self,
        folder: Path,
        *args: object,
        env: Mapping[str, str] | None = None,
        program: Sequence[str] = PROGRAM,
        mode: Sequence[str] = ("--json",),
    ) -> None:
        self.folder = folder / "pipe"
        self.folder.mkdir(exist_ok=True)
        self.out, self.err = self.folder / "out", self.folder / "err"
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.process = subprocess.Popen(
                [*program, *mode, *map(str, args)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, **environment(self.folder, **(env or {}))},
            )
        self.pid = self.process.pid

    def __enter__(self) -> Piped:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in processes(self.folder):
            send_signal(pid, signal.SIGKILL)
        self.process.wait(PATIENCE)

    def words(self) -> str:
        return self.err.read_text()

    def lines(self) -> int:
        return self.out.read_bytes().count(b"\n")

    def wait(self, condition: Callable[[], object] | str, *screens: OnScreen) -> None:
        """Until the condition holds, or a text is on standard error."""
        there = (lambda: condition in self.words()) if isinstance(condition, str) else condition
        wait_for(there, lambda: f"{self.words()} {self.out.read_bytes()[-300:]!r}", *screens)

    def leave(self, how: int = signal.SIGTERM, status: int = 0) -> None:
        self.process.send_signal(how)
        self.has_left(status)

    def has_left(self, status: int = 0) -> None:
        watch = Stopwatch(self.pid)
        until = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < until, "it does not end: " + self.words()
            watch.seconds()
            time.sleep(0.01)
        took = watch.seconds()
        assert self.process.returncode == status, self.words()
        assert took < PROMPT
        assert "Traceback" not in self.words()
        assert "internal error" not in self.words()
        assert "\x1b" not in self.words()
        no_orphans(self.folder)


def cpu_used(*programs: OnScreen | Piped, seconds: float = 1.0) -> list[float]:
    """The processor time that each, with all its children, uses in that time; screens are read meanwhile."""
    before = [cpu_seconds(program.folder) for program in programs]
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        for program in programs:
            if isinstance(program, OnScreen):
                assert program.read(0.0), "the program has ended:\n" + program.text
        time.sleep(min(left, 0.02))
    return [cpu_seconds(program.folder) - then for program, then in zip(programs, before)]


def stays_idle(*programs: OnScreen | Piped, seconds: float = 1.0) -> None:
    """They use little of a core for that long."""
    used = cpu_used(*programs, seconds=seconds)
    assert max(used) < SHARE * seconds, used


def run_once(
    folder: Path, *args: object, env: Mapping[str, str] | None = None, program: Sequence[str] = PROGRAM
) -> tuple[int, str]:
    """``--once``: its exit status and what it said on standard error; nothing is left of it."""
    result = subprocess.run(
        [*program, "--once", *map(str, args)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**os.environ, **environment(folder, **(env or {}))},
        timeout=3 * PATIENCE,
        check=False,
    )
    words = result.stderr.decode()
    assert "Traceback" not in words
    assert "internal error" not in words
    assert "\x1b" not in words
    no_orphans(folder)
    return result.returncode, words


def inside(ns: Namespace) -> list[str]:
    """The program in a namespace, as one process."""
    ip, *words = ns.prefix
    return [shutil.which(ip) or ip, *words, *PROGRAM]
