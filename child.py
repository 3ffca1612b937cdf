"""One command: started without a shell, read without blocking, stopped with all that it started."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence

from intake import Problem, explain
from parse import Splitter
from text import clean

# 550 lines of a listing. Parsing so many needs 0.4 MiB for a moment; a read of 1 MiB would need 15 bytes a flow.
PIPE_READ_SIZE = 1 << 17

# Linux gives pipes of 64 KiB; 1 MiB (the default pipe-max-size) holds 4,500 events while we draw.
PIPE_SIZE = 1 << 20
URGENT = -10  # nice value
CLOSED_PATIENCE = 1.0  # seconds for a child to end after it has closed its output
STOP_PATIENCE = 0.5  # seconds for children to end before they are killed
CHATTER = 4096  # bytes on stderr in one read that are too many; a message of conntrack has 60 to 100
CHATTER_PAUSE = 0.2  # seconds without reading stderr after that

# Linux gives a socket 208 KiB: room for 250 events, which is 10 ms of 20,000 a second. The kernel doubles this number:
# 16 MiB hold 0.5 s of 30,000 a second. Memory is used only while conntrack waits for us.
SOCKET_SIZE = 8 << 20
SO_RCVBUFFORCE = 33  # asm-generic/socket.h: beyond rmem_max; needs the same right as listening to events
PIDFD_GETFD = 438  # asm-generic/unistd.h: Linux 5.6; pidfd_getfd(2)
CONNTRACK_GROUPS = 7  # linux/netfilter/nfnetlink_compat.h: NEW, UPDATE, DESTROY
F_SETPIPE_SZ = 1031  # linux/fcntl.h; the fcntl module has it from Python 3.10 on, but only where built against it


class Child:
    """A process and both its pipes."""

    def __init__(self, argv: Sequence[str], gather: float = 0.0, shown_as: Sequence[str] = ()) -> None:
        """``gather``: seconds to let output gather after all that was there has been read.

        ``shown_as``: the words that messages have in place of the command's own.
        """
        self.argv = list(argv)
        self._shown_as = list(shown_as) or self.argv
        self.gathers_until = 0.0  # until then its output is left to gather
        self.started = time.monotonic()
        self.heard = self.started
        self.splitter = Splitter()
        self.closed = 0.0  # when it closed its output
        self.silenced = False  # ... and did not end, so that it was killed
        self.stderr = b""
        self._quiet_until = 0.0  # till then nobody listens to its stderr
        self.leftover = b""  # what came after the last newline, once it has closed its output
        self._collected = b""  # what a short command printed
        self.process = _process(self.argv)
        assert self.process.stdout
        assert self.process.stderr
        self.out: int | None = self.process.stdout.fileno()
        self.err: int | None = self.process.stderr.fileno()
        for fd in (self.out, self.err):
            os.set_blocking(fd, False)
        try:
            fcntl.fcntl(self.out, F_SETPIPE_SZ, PIPE_SIZE)
            self._gather = gather
        except OSError:
            self._gather = 0.0  # over the user's pipe quota: 64 KiB do, with less room for bursts

    def fds(self) -> list[int]:
        """What to wait for; if ``gathers_until`` lies ahead, until then, too."""
        now = time.monotonic()
        out = self.out if now >= self.gathers_until else None
        err = self.err if now >= self._quiet_until else None
        return [fd for fd in (out, err) if fd is not None]

    def raise_priority(self) -> None:
        """Let it run before others, if that is allowed: the kernel drops events that are not read in time."""
        with contextlib.suppress(OSError):  # not root, or no CAP_SYS_NICE in this container
            os.setpriority(os.PRIO_PROCESS, self.process.pid, URGENT)

    def enlarge_buffer(self) -> bool:
        """Give its socket for events more room. True: nothing is left to do; False: the socket is not open yet.

        conntrack's own --buffer-size does that up to 1.4.6 only; from 1.4.7 on it enlarges another socket. Where it is
        not allowed (another user's process, a container's seccomp filter), only net.core.rmem_default helps.
        """
        folder = f"/proc/{self.process.pid}/fd"
        try:
            return any(_enlarge_buffer_of(self.process.pid, int(fd)) for fd in os.listdir(folder) if int(fd) > 2)
        except OSError:
            return True

    def read(self) -> bytes:
        """The output that is there now, up to PIPE_READ_SIZE, as whole lines; b"" if there is none."""
        if self.out is None or time.monotonic() < self.gathers_until:
            return b""
        try:
            data = os.read(self.out, PIPE_READ_SIZE)
        except BlockingIOError:
            return b""
        if data:
            self.heard = time.monotonic()
            if len(data) < PIPE_READ_SIZE:
                self.gathers_until = self.heard + self._gather
            return self.splitter.feed(data)
        self._close_out()
        self.leftover = self.splitter.feed(b"")
        return b""

    def collect(self) -> bytes:
        """Read on; return all whole lines so far. For a command with a short output."""
        self._collected += self.read()
        return self._collected

    def gather_no_longer(self) -> None:
        """Read what is there now, though more would gather."""
        self.gathers_until = 0.0

    def read_errors(self) -> bytes:
        """New bytes on stderr; the last 8 KiB of all stay in ``stderr``. Large reads are followed by a pause."""
        if self.err is None:
            return b""
        try:
            data = os.read(self.err, 65_536)
        except BlockingIOError:
            return b""
        if not data:
            assert self.process.stderr
            self.process.stderr.close()
            self.err = None
        if len(data) >= CHATTER:
            self._quiet_until = time.monotonic() + CHATTER_PAUSE
        self.stderr = (self.stderr + data)[-8192:]
        return data

    def _close_out(self) -> None:
        assert self.process.stdout
        self.process.stdout.close()
        self.out = None
        self.closed = time.monotonic()

    def ended(self) -> int | None:
        """Its exit status once it has ended and all it wrote has been read."""
        if self.out is not None:
            return None
        status = self.process.poll()
        if status is None and time.monotonic() - self.closed > CLOSED_PATIENCE:
            self.silenced = True  # it will never say anything again
            self.stop()
            status = self.process.poll()
        if status is not None:
            # A grandchild may hold stderr open for ever, or keep writing: read what fits into a pipe, 64 KiB.
            for _ in range(16):
                if self.err is None or not self.read_errors():
                    break
        return status

    def problem(self, status: int) -> Problem:
        if self.silenced:
            return Problem(f"{self.name()} closed its output and did not end")
        if self.leftover and status == 0:
            return Problem(f"{self.name()} broke off in the middle of a line")
        return explain(self._shown_as, self.stderr.decode("utf-8", "replace"), status)

    def name(self) -> str:
        """The command's name for messages, without what --via puts before it."""
        return clean(" ".join(self._shown_as[-4:]), 60)

    def signal(self, number: int) -> bool:
        """Send a signal to it and its children, until it is reaped; False where that is not allowed."""
        if self.process.returncode is not None:
            return True  # its number may be another process's by now
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass
        except PermissionError:
            return False
        return True

    def stop(self, patience: float = STOP_PATIENCE) -> None:
        """End it and its children: SIGTERM, after ``patience`` seconds SIGKILL; then it is reaped.

        Its children may outlive it, as when a --via is killed. Until it is reaped, its number is that of their group.
        A child of another user (a user's sudo) can't be signalled; it ends when it writes to its closed pipe.
        """
        for stream in (self.process.stdout, self.process.stderr):
            if stream and not stream.closed:
                stream.close()
        self.out = self.err = None
        if self.process.returncode is not None:
            return
        until = time.monotonic() + (patience if self.signal(signal.SIGTERM) else 0.1)
        while not self._is_over() and time.monotonic() < until:
            time.sleep(0.005)
        allowed = self.signal(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_PATIENCE if allowed else 0.0)

    def _is_over(self) -> bool:
        """Has it ended? The answer does not reap it."""
        return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _process(argv: Sequence[str]) -> subprocess.Popen[bytes]:
    # It has a session of its own: Ctrl+C and Ctrl+Z do not reach it, and a sudo or ssh in it can't ask for a password
    # at our terminal. restore_signals sets SIGPIPE back to its default; else conntrack -E would never end after us.
    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C"},
        start_new_session=True,
        restore_signals=True,
        bufsize=0,
    )


def _enlarge_buffer_of(pid: int, fd: int) -> bool:
    """Widen a socket of another process if it is bound to conntrack's events; an OSError where that is not allowed."""
    import ctypes

    handle = os.pidfd_open(pid)
    try:
        copy = ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, handle, fd, 0)
    finally:
        os.close(handle)
    if copy < 0:
        if ctypes.get_errno() == errno.EBADF:
            return False  # closed meanwhile
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    try:
        theirs = socket.socket(fileno=copy)
    except OSError:  # a file
        os.close(copy)
        return False
    with theirs:
        if theirs.family != socket.AF_NETLINK or not theirs.getsockname()[1] & CONNTRACK_GROUPS:
            return False
        theirs.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, SOCKET_SIZE)
    return True
