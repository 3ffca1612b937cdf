"""The program on a pseudo-terminal, with pyte as what a person sees."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shlex
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyte

# TEST_PROGRAM="python3.10 dist/conntrack-monitor.pyz" puts another program to the same tests.
PROGRAM = shlex.split(os.environ.get("TEST_PROGRAM", "")) or [
    sys.executable,
    str(Path(__file__).parent.parent / "conntrack_monitor.py"),
]
PATIENCE = 20.0


class Terminal:
    """Runs the program; ``text`` is the screen now, ``wait`` reads until a condition holds."""

    def __init__(
        self,
        *args: str,
        size: tuple[int, int] = (100, 30),
        env: Mapping[str, str] | None = None,
        program: Sequence[str] = PROGRAM,
        cwd: Path | None = None,
    ) -> None:
        self.screen = pyte.Screen(*size)
        self.stream = pyte.ByteStream(self.screen)
        self.seen = b""
        self.status: int | None = None
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update({"TERM": "xterm-256color", "LANG": "C.UTF-8", **(env or {})})
            os.environ.pop("LC_ALL", None)
            self._size(0, *size)
            if cwd is not None:
                os.chdir(cwd)
            os.execvp(program[0], [*program, *args])
        self._size(self.fd, *size)

    @staticmethod
    def _size(fd: int, columns: int, lines: int) -> None:
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display)

    def read(self, seconds: float) -> bool:
        """Take in what comes within the time; False at the end."""
        if select.select([self.fd], [], [], seconds)[0]:
            try:
                data = os.read(self.fd, 65_536)
            except OSError:
                return False
            self.seen += data
            self.stream.feed(data)
            return bool(data)
        return True

    def wait(self, condition: Callable[[], bool] | str) -> None:
        """Read until the condition holds (or a text is on the screen)."""
        until = time.monotonic() + PATIENCE
        while not (condition in self.text if isinstance(condition, str) else condition()):
            assert time.monotonic() < until, self.text
            assert self.read(0.1), "the program has ended:\n" + self.text

    def type(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        self.screen.resize(lines, columns)
        self._size(self.fd, columns, lines)

    def end(self) -> int:
        """Read to the end; the exit status."""
        until = time.monotonic() + PATIENCE
        while self.read(0.1):
            assert time.monotonic() < until, self.text
        _, status = os.waitpid(self.pid, 0)
        self.status = os.waitstatus_to_exitcode(status)
        return self.status
