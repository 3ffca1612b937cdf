"""What Linux tells of the conntrack children of a program, and what can be done to them from outside.

All of it goes by process ids: it works on the children of this process and on those of a child program alike. The
receive buffer of a running ``conntrack -E`` is set through a copy of its socket (pidfd_getfd): net.core.rmem_default
would do, too, but it is one number for the whole machine, and other tests run there.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import socket
import struct
import termios
from contextlib import suppress
from pathlib import Path

SO_RCVBUFFORCE = 33  # asm-generic/socket.h: over rmem_max, for root
SO_MEMINFO = 55  # asm-generic/socket.h: Linux 4.12
PIDFD_GETFD = 438  # the same number on all architectures

NETFILTER = 12  # the netlink protocol
EVENT_GROUPS = 7  # bits of NEW, UPDATE and DESTROY


def conntrack_children(pid: int, option: str) -> list[int]:
    """The process's running children that are ``conntrack`` with that option (or are about to become it)."""
    found = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            for child in (thread / "children").read_text().split():
                words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
                if b"conntrack" in words and option.encode() in words:
                    found.append(int(child))
    return found


def state(pid: int) -> str:
    """The letter of /proc/PID/stat (R, S, T stopped, Z ended and not reaped), "" when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return ""


def has_written(pid: int) -> bool:
    """Has it written anything yet?"""
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    except OSError:
        return False
    return any(line.startswith("wchar:") and int(line.split()[1]) > 0 for line in lines)


def _event_socket(pid: int) -> socket.socket | None:
    """A copy of its socket for events, to be closed; None where it has none (yet). OSError where that is not allowed.

    Not by /proc/net/netlink: that file now and then leaves out a row while others come and go.
    """
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    try:
        fds = sorted(int(fd) for fd in os.listdir(f"/proc/{pid}/fd"))
        copies = (ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, handle, fd, 0) for fd in fds)
        for copy in copies:
            if copy < 0:
                if ctypes.get_errno() == errno.EPERM:
                    raise PermissionError(errno.EPERM, "pidfd_getfd")
                continue  # closed meanwhile
            try:
                found = socket.socket(fileno=copy)
            except OSError:  # a file
                os.close(copy)
                continue
            if (found.family, found.proto) == (socket.AF_NETLINK, NETFILTER) and found.getsockname()[1] & EVENT_GROUPS:
                return found
            found.close()
    except (FileNotFoundError, ProcessLookupError):
        pass  # it has ended
    finally:
        os.close(handle)
    return None


def _memory(pid: int) -> tuple[int, ...]:
    """What the kernel says of its socket for events: SK_MEMINFO_* of linux/sock_diag.h; zeros where it has none."""
    found = _event_socket(pid)
    if found is None:
        return (0,) * 9
    with found:
        return struct.unpack("9I", found.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36))


def listens(pid: int) -> bool:
    found = _event_socket(pid)
    if found is not None:
        found.close()
    return found is not None


def waiting_bytes(pid: int) -> int:
    """What the kernel holds for it in its socket for events, in bytes of memory."""
    return _memory(pid)[0]


def unread(pid: int) -> int:
    """Bytes that it has written into its standard output and error, pipes, and that nobody has read yet."""
    total = 0
    for fd in (1, 2):
        try:
            pipe = os.open(f"/proc/{pid}/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return 0  # it is gone
        try:
            total += struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))[0]
        finally:
            os.close(pipe)
    return total


def dropped(pid: int) -> int:
    """Events that the kernel could not give it."""
    return _memory(pid)[8]


def receive_buffer(pid: int) -> int:
    """What its socket for events may hold, in bytes of memory; 0 before it listens."""
    return _memory(pid)[1]


def set_receive_buffer(pid: int, size: int) -> None:
    """Give its socket for events another buffer."""
    found = _event_socket(pid)
    if found is None:
        raise ProcessLookupError(pid, "does not listen to events")
    with found:
        found.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, size)


def send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
