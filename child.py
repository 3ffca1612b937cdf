"""One command: started without a shell, read without blocking, stopped with all that it started."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

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
NETLINK_NETFILTER = "12"  # linux/netlink.h, as /proc/net/netlink prints it
TICK = os.sysconf("SC_CLK_TCK")
DEEPEST = 4  # processes between ours and a command: sudo has one

# A command that writes a list gets on if it wrote something in the last SILENCE seconds, and SLOWEST bytes a second in
# them: a line of modem has ten times as much. In TOO_LONG seconds 1,000,000 flows come over a line of 3 Mbit/s.
SILENCE, SLOWEST, TOO_LONG = 30.0, 100, 900.0
LISTENED = 1.0  # seconds between two looks at a command; in what is more than that nobody listened to it

F_SETPIPE_SZ = 1031  # linux/fcntl.h; the fcntl module has it from Python 3.10 on, but only where built against it


class Patience:
    """Whether a command that writes a list gets on: by the time in which somebody listened to it, and what it wrote.

    A byte now and then is no progress. Time in which we did not listen (a reader of ours that stands still, a stopped
    process) does not count.
    """

    def __init__(self, now: float) -> None:
        self.looked = now
        self._silent = self._slow = self._all = 0.0  # seconds
        self._bytes = 0  # in the last ``_slow`` seconds

    def take(self, size: int, now: float) -> None:
        """So many bytes were there to be read now."""
        spent = min(now - self.looked, LISTENED)
        self.looked = now
        self._silent = 0.0 if size else self._silent + spent
        self._all += spent
        self._slow += spent
        self._bytes += size
        if self._bytes >= SLOWEST * SILENCE:
            self._slow, self._bytes = 0.0, 0

    def complaint(self) -> str:
        """Why nobody should wait any longer; else ""."""
        if self._silent >= SILENCE:
            return f"no answer within {SILENCE:.0f} s"
        if self._slow >= SILENCE:
            return f"too slow: {self._bytes} bytes in {self._slow:.0f} s"
        return f"not finished after {self._all:.0f} s" if self._all >= TOO_LONG else ""


def _open_wide(process: subprocess.Popen[bytes]) -> tuple[int, int, bool]:
    """Its output's and its errors' pipe, which never block; and whether there is room for bursts.

    Over the user's quota of pipes there is none, and 64 KiB must do.
    """
    assert process.stdout
    assert process.stderr
    for pipe in filter(None, (process.stdin, process.stdout, process.stderr)):
        os.set_blocking(pipe.fileno(), False)
    if process.stdin:
        with contextlib.suppress(OSError):
            fcntl.fcntl(process.stdin, F_SETPIPE_SZ, PIPE_SIZE)
    try:
        fcntl.fcntl(process.stdout, F_SETPIPE_SZ, PIPE_SIZE)
    except OSError:
        return process.stdout.fileno(), process.stderr.fileno(), False
    return process.stdout.fileno(), process.stderr.fileno(), True


class _Ahead:
    """Output that has been read before anybody asked for it, up to so many bytes; one piece is always taken."""

    def __init__(self, most: int) -> None:
        self._pieces: deque[bytes] = deque()
        self._most, self._size = most, 0

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def has_room(self) -> bool:
        return not self._pieces or self._size < self._most

    def put(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)

    def take(self) -> bytes:
        data = self._pieces.popleft()
        self._size -= len(data)
        return data


class Child:
    """A process and both its pipes."""

    def __init__(
        self,
        argv: Sequence[str],
        gather: float = 0.0,
        shown_as: Sequence[str] = (),
        fed: bool = False,
        ahead: int = 0,
    ) -> None:
        """``gather``: seconds to let output gather after all that was there has been read.

        ``ahead``: bytes of output that are taken out of the pipe before anybody asks for them.

        ``shown_as``: the words that messages have in place of the command's own. ``fed``: it has a standard input, see
        ``feed``; else that is empty.
        """
        self.argv = list(argv)
        self._shown_as = list(shown_as) or self.argv
        self.gathers_until = 0.0  # until then its output is left to gather
        self.started = time.monotonic()
        self.patience = Patience(self.started)
        self.drained = self.started  # when nothing was left to be read last
        self.cpu = 0.0  # seconds of processor time that it and what it waited for have used, once it has ended
        self.splitter = Splitter()
        self._ahead, self._emptied = _Ahead(ahead), self.started  # ``_emptied``: when the pipe was seen empty last
        self.closed = 0.0  # when it closed its output
        self.silenced = False  # ... and did not end, so that it was killed
        self.widened = False  # its socket for events has got more room
        self.stderr = b""
        self._quiet_until = 0.0  # till then nobody listens to its stderr
        self.leftover = b""  # what came after the last newline, once it has closed its output
        self._collected = b""  # what a short command printed
        self.process = _process(self.argv, fed)
        self.out: int | None
        self.err: int | None
        self.out, self.err, wide = _open_wide(self.process)
        self._gather = gather if wide else 0.0

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
        not allowed (another user's process, a container's seccomp filter) or this Python has no ctypes, only
        net.core.rmem_default helps.
        """
        folder = f"/proc/{self.process.pid}/fd"
        try:
            open_now = [int(name) for name in os.listdir(folder)]
            self.widened = any(_enlarge_buffer_of(self.process.pid, fd) for fd in open_now if fd > 2)
            return self.widened
        except (OSError, ImportError):
            return True

    @property
    def has_more(self) -> bool:
        """Has it written something that was read ahead, so that there is nothing to wait for?"""
        return bool(self._ahead)

    def read(self) -> bytes:
        """The output that is there now, about PIPE_READ_SIZE of it, as whole lines; b"" if there is none.

        With ``ahead`` the whole pipe is emptied first: its writer goes on while its output waits here for its turn.
        """
        if self.out is None or (time.monotonic() < self.gathers_until and not self._ahead):
            return b""
        over = self._read_ahead()
        if self._ahead:
            data = self._ahead.take()
            if not self._ahead:
                self.drained = self._emptied
            return self.splitter.feed(data)
        if over:
            self._close_out()
            self.leftover = self.splitter.feed(b"")
        else:
            self.drained = self._emptied
        return b""

    def _read_ahead(self) -> bool:
        """Read what the pipe holds, as long as there is room for it; True if its writer has closed it."""
        assert self.out is not None
        while self._ahead.has_room():
            try:
                data = os.read(self.out, PIPE_READ_SIZE)
            except BlockingIOError:
                self._emptied = time.monotonic()
                self.patience.take(0, self._emptied)
                return False
            if not data:
                return True
            now = time.monotonic()
            self.patience.take(len(data), now)
            self._ahead.put(data)
            if len(data) < PIPE_READ_SIZE:
                self._emptied, self.gathers_until = now, now + self._gather
                return False
        return False

    def feed(self, data: memoryview) -> int:
        """Write to its standard input as much as it takes now; returns how many bytes. All, once it has closed it."""
        if self.process.stdin is None or self.process.stdin.closed:
            return len(data)
        try:
            return os.write(self.process.stdin.fileno(), data)
        except BlockingIOError:
            return 0
        except OSError:  # it has ended: nobody will read it
            self.end_feed()
            return len(data)

    def feed_soon(self, until: float) -> bool:
        """Wait until it takes more, or for ``until`` on the scale of time.monotonic(); False if it takes no more."""
        if self.process.stdin is None or self.process.stdin.closed:
            return False
        poll = select.poll()
        poll.register(self.process.stdin, select.POLLOUT)
        return bool(poll.poll(max(0.0, until - time.monotonic()) * 1000))

    def end_feed(self) -> None:
        """There is no more for its standard input."""
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()

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
        if self.process.returncode is None and self.is_over():
            self.cpu = _cpu_seconds(self.process.pid)  # before it is reaped
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

    def worker(self, program: str) -> int | None:
        """The process that runs ``program`` for it on this machine; None where none does: it may be on another one."""
        wanted, pids = os.path.basename(program)[:15], [self.process.pid]
        for _ in range(DEEPEST):
            for pid in pids:
                if file_text(f"/proc/{pid}/comm").rstrip("\n") == wanted:
                    return pid
            pids = [int(word) for pid in pids for word in file_text(f"/proc/{pid}/task/{pid}/children").split()]
        return None

    def problem(self, status: int) -> Problem:
        if self.silenced:
            return Problem(f"{self.name()} closed its output but did not exit")
        if self.leftover and status == 0:
            return Problem(f"{self.name()} stopped in the middle of a line")
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
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream and not stream.closed:
                stream.close()
        self.out = self.err = None
        if self.process.returncode is not None:
            return
        until = time.monotonic() + (patience if self.signal(signal.SIGTERM) else 0.1)
        while not self.is_over() and time.monotonic() < until:
            time.sleep(0.005)
        allowed = self.signal(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_PATIENCE if allowed else 0.0)

    def is_over(self) -> bool:
        """Has it ended? The answer does not reap it."""
        return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def this_program(*words: str) -> list[str]:
    """The command that runs this program again, as another process, with these options."""
    return [sys.executable, os.path.abspath(sys.argv[0]), *words]


class EventSocket(NamedTuple):
    """A socket for conntrack's events."""

    waiting: int = 0  # bytes of memory that events take which nobody has read yet
    dropped: int = 0  # events for which there was no room, since it was opened


def event_socket(pid: int) -> EventSocket | None:
    """The socket in which a process listens to conntrack's events; None where that is not known.

    proc(5) shows it, also where pidfd_getfd is forbidden. The number that netlink knows it by is the process's for its
    first socket only, and from 1.4.7 on conntrack opens another one before this.
    """
    inodes = _sockets_of(pid)
    for line in file_text(f"/proc/{pid}/net/netlink").splitlines()[1:]:
        words = line.split()
        listens = words[1] == NETLINK_NETFILTER and int(words[3], 16) & CONNTRACK_GROUPS
        if listens and (words[9] in inodes or words[2] == str(pid)):
            return EventSocket(int(words[4]), int(words[8]))
    return None


def _sockets_of(pid: int) -> set[str]:
    """The inodes of a process's sockets; none where another user's process does not show them."""
    folder, found = f"/proc/{pid}/fd", set()
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):  # closed meanwhile
                kind, _, inode = os.readlink(f"{folder}/{name}").partition(":")
                if kind == "socket":
                    found.add(inode.strip("[]"))
    return found


def namespace_of(pid: int) -> int | None:
    """The number of a process's network namespace; None where that is not known."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return None


def _cpu_seconds(pid: int) -> float:
    """Seconds of a process that has ended, and of those it waited for: utime, stime, cutime, cstime of proc(5)."""
    fields = file_text(f"/proc/{pid}/stat").rpartition(") ")[2].split()
    return sum(map(int, fields[11:15])) / TICK


def file_text(path: str) -> str:
    """What a file says; "" where it can't be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _process(argv: Sequence[str], fed: bool) -> subprocess.Popen[bytes]:
    # It has a session of its own: Ctrl+C and Ctrl+Z do not reach it, and a sudo or ssh in it can't ask for a password
    # at our terminal. restore_signals sets SIGPIPE back to its default; else conntrack -E would never end after us.
    return subprocess.Popen(
        argv,
        stdin=subprocess.PIPE if fed else subprocess.DEVNULL,
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
