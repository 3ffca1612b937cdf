"""What Linux tells of the conntrack children of a program, and what can be done to them from outside.

All of it goes by process ids: it works on the children of this process and on those of a child program alike. The
receive buffer of a running ``conntrack -E`` is set through a copy of its socket (pidfd_getfd): net.core.rmem_default
would do, too, but it is one number for the whole machine, and other tests run there.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import struct
import termios
from contextlib import suppress
from pathlib import Path

SO_RCVBUFFORCE = 33  # asm-generic/socket.h: over rmem_max, for root
PIDFD_GETFD = 438  # the same number on all architectures

NETFILTER = "12"  # the netlink protocol
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


def _event_socket(pid: int) -> tuple[int, list[str]] | None:
    """The file descriptor of its socket for events, and the socket's row in /proc/net/netlink.

    The kernel walks a hash table for that file, and now and then leaves out a row while others come and go: so a socket
    that is not there is looked for again.
    """
    for _ in range(5):
        try:
            links = {os.readlink(f"/proc/{pid}/fd/{fd}"): int(fd) for fd in os.listdir(f"/proc/{pid}/fd")}
            rows = [line.split() for line in Path(f"/proc/{pid}/net/netlink").read_text().splitlines()[1:]]
        except OSError:
            return None
        # sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
        for row in rows:
            number = links.get(f"socket:[{row[9]}]")
            if number is not None and row[1] == NETFILTER and int(row[3], 16) & EVENT_GROUPS:
                return number, row
    return None


def listens(pid: int) -> bool:
    return _event_socket(pid) is not None


def waiting_bytes(pid: int) -> int:
    """What the kernel holds for it in its socket for events, in bytes of memory."""
    found = _event_socket(pid)
    return int(found[1][4]) if found else 0


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
    found = _event_socket(pid)
    return int(found[1][8]) if found else 0


def receive_buffer(pid: int) -> int:
    """What its socket for events may hold, in bytes of memory; 0 before it listens."""
    if not listens(pid):
        return 0
    with _event_socket_copy(pid) as copy:
        return copy.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def set_receive_buffer(pid: int, size: int) -> None:
    """Give its socket for events another buffer; OSError where pidfd_getfd is not allowed."""
    with _event_socket_copy(pid) as copy:
        copy.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, size)


def _event_socket_copy(pid: int) -> socket.socket:
    found = _event_socket(pid)
    if found is None:
        raise ProcessLookupError(pid, "does not listen to events")
    handle = os.pidfd_open(pid)
    try:
        fd = ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, handle, found[0], 0)
        if fd < 0:
            raise OSError(ctypes.get_errno(), "pidfd_getfd")
    finally:
        os.close(handle)
    return socket.socket(fileno=fd)


def send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
