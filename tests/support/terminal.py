"""The program on a pseudo-terminal, with pyte as what a person sees; and a shell in tmux, a real terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyte

from support.waiting import PATIENCE, GaveUp, wait_for

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "fixtures" / "demo.rec"

# TEST_PROGRAM="python3.10 dist/conntrack-monitor.pyz" puts another program to the same tests.
PROGRAM = shlex.split(os.environ.get("TEST_PROGRAM", "")) or [sys.executable, str(ROOT / "conntrack_monitor.py")]


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
        began, beginning = os.pipe()  # closed when the program takes this one's place
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                os.environ.update({"TERM": "xterm-256color", "LANG": "C.UTF-8", **(env or {})})
                os.environ.pop("LC_ALL", None)
                self._size(0, *size)
                if cwd is not None:
                    os.chdir(cwd)
                os.execvp(program[0], [*program, *args])
            finally:
                os._exit(127)
        # A Ctrl+C before that would be pytest's: the child would go on with the tests and remove what they share.
        os.close(beginning)
        os.read(began, 1)
        os.close(began)
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
        """Read until the condition holds (or a text is on the screen), and then the frame to its end."""
        until = time.monotonic() + PATIENCE
        while not (condition in self.text if isinstance(condition, str) else condition()):
            assert time.monotonic() < until, self.text
            assert self.read(0.1), "the program has ended:\n" + self.text
        for _ in range(20):  # a program that is stopped, or has ended, may never finish it
            if self.seen.rfind(b"\x1b[?2026l") >= self.seen.rfind(b"\x1b[?2026h") or not self.read(0.05):
                break

    def type(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def click(self, text: str, button: int = 0) -> None:
        """Press and release a button of the mouse where a text stands; buttons 64 and 65 are the wheel."""
        self.wait(text)
        y, x = next((y, line.index(text)) for y, line in enumerate(self.screen.display) if text in line)
        self.type(f"\x1b[<{button};{x + 1};{y + 1}M" + (f"\x1b[<{button};{x + 1};{y + 1}m" if button < 64 else ""))

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


class Tmux:
    """A shell in tmux, on a server of its own."""

    def __init__(self, folder: Path) -> None:
        assert shutil.which("tmux"), "CI must have tmux: these tests prove that the terminal is given back"
        self.socket = str(folder / "tmux")
        self.environ = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            **{"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TERM": "xterm-256color", "HISTFILE": ""},
        }
        self.configuration = str(folder / "tmux.conf")
        Path(self.configuration).write_text("set -g default-terminal screen-256color\nset -g status off\n")

    def start(self, width: int = 80, height: int = 24) -> None:
        size = ["-x", str(width), "-y", str(height)]
        self("-f", self.configuration, "new-session", "-d", *size, "sh -i")
        self("set-option", "-g", "window-size", "manual")
        self.run("PS1='$ '; clear; echo ready")  # root's dash has a prompt of its own
        self.wait("ready\n$", gone=("clear",))

    def __call__(self, *words: str) -> str:
        run = subprocess.run(
            ["tmux", "-S", self.socket, *words], env=self.environ, capture_output=True, text=True, timeout=30
        )
        assert run.returncode == 0, run.stderr
        return run.stdout

    def screen(self) -> str:
        return "\n" + self("capture-pane", "-p")

    def fact(self, name: str) -> str:
        return self("display-message", "-p", f"#{{{name}}}").strip()

    def wait(self, *parts: str, gone: tuple[str, ...] = ()) -> str:
        """Until all parts are on the screen, and these gone; returns it."""
        shown = ""

        def there() -> bool:
            nonlocal shown
            shown = self.screen()
            return all(part in shown for part in parts) and not any(part in shown for part in gone)

        try:
            wait_for(there, timeout=30.0)
        except GaveUp:
            raise GaveUp(f"waited for {parts}, and {gone} to go; the screen is:\n{shown}") from None
        return shown

    def type(self, text: str) -> None:
        self("send-keys", "-l", text)

    def press(self, *keys: str) -> None:
        self("send-keys", *keys)

    def run(self, command: str) -> None:
        self.type(command)
        self.press("Enter")

    def resize(self, width: int, height: int) -> None:
        self("resize-window", "-x", str(width), "-y", str(height))

    def close(self) -> None:
        subprocess.run(["tmux", "-S", self.socket, "kill-server"], env=self.environ, capture_output=True, timeout=30)
