"""Host names: from /etc/hosts at once, from the name servers in /etc/resolv.conf when they answer.

Names are off by default: a name server sees every address on show, and the owner of an address may see the question.
Nothing here waits. A question is one datagram from its own socket: a forged answer must guess a port and a number. The
loop's poll says when a socket can be read. getnameinfo(3) knows more sources of names (nsswitch.conf), but it waits
up to 30 s for a silent name server, in a thread that can't be stopped.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import struct
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

import addresses
from text import clean

# --- DNS messages -----------------------------------------------------------------------------------------------------

_TYPE_PTR, _CLASS_IN = 12, 1
_RECURSE = 0x0100
_IS_ANSWER, _CUT, _STATUS = 0x8000, 0x0200, 0x000F
_NO_SUCH_NAME = 3
MOST_RECORDS = 64  # read in one answer; the first record with a name ends the search
LONGEST = 253  # characters of a name

# A label of a host name (RFC 1123, section 2.1), or one with underscores, which are in use.
_DNS_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


def dns_question(address: str, number: int) -> bytes:
    """The datagram that asks for an address's name (RFC 1035, section 4). The answer repeats ``number`` (16 bits).

    Raises ValueError where ``address`` is not an address.
    """
    name = ipaddress.ip_address(address.partition("%")[0]).reverse_pointer
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!6H", number, _RECURSE, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", _TYPE_PTR, _CLASS_IN)


def dns_answer(data: bytes, asked: bytes) -> str | None:
    """The name in the datagram that answers ``asked``: "" if the address has none, None if the server can't tell.

    Raises ValueError for a damaged datagram and for the answer to another question, which may be forged.
    """
    try:
        return _read_answer(data, asked)
    except (struct.error, IndexError):
        raise ValueError("the answer is cut") from None


def _read_answer(data: bytes, asked: bytes) -> str | None:
    number, flags, questions, answers = struct.unpack_from("!4H", data)
    status = flags & _STATUS
    if number != int.from_bytes(asked[:2], "big") or not flags & _IS_ANSWER:
        raise ValueError("it answers another question")
    if questions == 0 and status:
        return None  # the server did not understand the question
    if questions != 1 or data[12 : len(asked)].lower() != asked[12:].lower():
        raise ValueError("it answers another question")
    if status:
        return "" if status == _NO_SUCH_NAME else None
    at = len(asked)
    for _ in range(min(answers, MOST_RECORDS)):
        at = _behind_name(data, at)
        kind, kind_of_net, _seconds, length = struct.unpack_from("!HHIH", data, at)
        at += 10
        if (kind, kind_of_net) == (_TYPE_PTR, _CLASS_IN) and (name := host_name(_read_name(data, at))):
            return name  # the record's owner is not compared: it may be an alias (RFC 2317)
        at += length
    return None if flags & _CUT else ""


def _behind_name(data: bytes, at: int) -> int:
    while length := data[at]:
        if length >= 0xC0:
            return at + 2
        at += 1 + length
    return at + 1


def _read_name(data: bytes, at: int) -> str:
    """The name at ``at``. A pointer must lead backwards, so that a chain of pointers ends."""
    labels: list[bytes] = []
    first = at
    while length := data[at]:
        if length >= 0xC0:
            to = (length & 0x3F) << 8 | data[at + 1]
            if to >= first:
                raise ValueError("a name's pointer leads forwards")
            first = at = to
        elif length > 63 or len(labels) > 127:
            raise ValueError("a name is too long")
        else:
            labels.append(data[at + 1 : at + 1 + length])
            at += 1 + length
    return b".".join(labels).decode("latin-1")


def host_name(text: str) -> str:
    """``text`` if it is a valid host name, else "". The owner of an address can give it any name.

    A name that looks like an address is not valid: a reader would take it for one.

    >>> host_name("mail.example."), host_name("192.0.2.1"), host_name("a\\x1b[31m.example"), host_name("-x")
    ('mail.example', '', '', '')
    """
    text = text.removesuffix(".")
    labels = text.split(".")
    if len(text) > LONGEST or not all(map(_DNS_LABEL.fullmatch, labels)) or labels[-1].isdigit():
        return ""
    return text


# --- asking -----------------------------------------------------------------------------------------------------------

HOSTS_FILE, RESOLV_FILE = "/etc/hosts", "/etc/resolv.conf"
LARGEST_FILE = 1 << 20  # bytes read of such a file: 30,000 lines
LOOK_EVERY = 5.0  # seconds between two looks at the files
MOST_SERVERS = 3  # as in resolv.conf(5)
MAX_ANSWERS = 10_000  # answers
NAMED, NAMELESS, UNANSWERED = 3600.0, 600.0, 60.0  # seconds an answer is kept: a name, no name, no answer
MOST_WAITING = 256  # addresses: three tall screens; the oldest are dropped first
MOST_OPEN = 16  # questions under way
GAP = 0.05  # seconds between two datagrams: 20 a second
PATIENCE = 3.0  # seconds for an answer
TRIES = 2  # datagrams for an address; one for each server where there are more servers
UNASKED = frozenset({"", "multicast", "broadcast", "unspecified", "loopback", "reserved"})  # scopes without names


@dataclass
class _Question:
    """A question under way."""

    address: str
    tries: int  # datagrams so far, with this one
    asked: bytes
    socket: socket.socket
    until: float


class Resolver:
    """Names of addresses. The loop polls it; ``renewed`` tells whether there are new names."""

    def __init__(
        self,
        hosts: str = HOSTS_FILE,
        resolv: str = RESOLV_FILE,
        port: int = 53,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fresh = False
        self.on = False
        self.servers: list[str] = []
        self._files = {hosts: self._take_hosts, resolv: self._take_servers}
        self._seen: dict[str, object] = {}  # a file's time, inode and size when it was read
        self._port = port
        self._clock = clock
        self._hosts: dict[str, str] = {}
        self._targets: list[tuple[int, tuple[object, ...]]] = []  # family and address of each server
        self._known: OrderedDict[str, tuple[str | None, float]] = OrderedDict()  # name, and when to ask again
        self._waiting: OrderedDict[str, None] = OrderedDict()  # the newest last
        self._again: deque[tuple[str, int]] = deque()  # no answer yet: address, datagrams so far
        self._open: dict[int, _Question] = {}  # by fd
        self._asked: set[str] = set()  # addresses in _again or _open
        self._next = 0.0  # when the next datagram may go
        self._look_due = 0.0
        self._silent = ""  # why there was no answer

    def switch(self, on: bool) -> str:
        """Switch names on or off. Returns the message about it."""
        self.on = on
        self._fresh = True
        if not on:
            self.close()
            return "names of hosts are off"
        self._look()
        return f"names of hosts: {', '.join(self.servers)} is asked for every address on show"

    def name(self, address: str) -> str | None:
        """The name that is known now; an unknown one is asked for. None without a name, and while names are off."""
        if not self.on:
            return None
        if (local := self._hosts.get(address)) is not None:
            return local
        name, until = self._known.get(address, (None, 0.0))
        if until:
            self._known.move_to_end(address)
        if self._clock() >= until and address not in self._asked and addresses.scope(address) not in UNASKED:
            self._waiting[address] = None
            self._waiting.move_to_end(address)
            if len(self._waiting) > MOST_WAITING:
                self._waiting.popitem(last=False)
        return name

    def listed_name(self, address: str) -> str | None:
        """The name in the hosts file, whether names are on or off: nobody is asked for it."""
        if self._clock() >= self._look_due:
            self._look()
        return self._hosts.get(address)

    def notices(self) -> list[tuple[str, str]]:
        """What is wrong, and the command that helps."""
        return [(f"no names of hosts: {self._silent}", "cat /etc/resolv.conf")] if self.on and self._silent else []

    def renewed(self) -> bool:
        """Whether names have changed since the last call."""
        fresh, self._fresh = self._fresh, False
        return fresh

    # --- the loop's side ---

    def fds(self) -> list[int]:
        return list(self._open)

    def deadline(self) -> float | None:
        """When ``poll`` must be called, even if no answer comes; None: never. Seconds of time.monotonic()."""
        if not self.on:
            return None
        due = [self._look_due, *(question.until for question in self._open.values())]
        if (self._waiting or self._again) and len(self._open) < MOST_OPEN:
            due.append(self._next)
        return min(due)

    def poll(self) -> None:
        """Do what is due, without waiting."""
        if not self.on:
            return
        now = self._clock()
        if now >= self._look_due:
            self._look()
        for fd, question in list(self._open.items()):
            if not self._is_settled(question):
                if now < question.until:
                    continue
                self._unanswered(question.address, question.tries, "no answer")
            question.socket.close()
            del self._open[fd]
        while (self._waiting or self._again) and len(self._open) < MOST_OPEN and now >= self._next:
            self._next = now + GAP
            if self._again:
                self._ask(*self._again.popleft())
            else:
                self._ask(self._waiting.popitem()[0], 0)

    def close(self) -> None:
        """Stop asking. Names that are known stay."""
        for question in self._open.values():
            question.socket.close()
        for store in (self._open, self._asked, self._waiting, self._again):
            store.clear()
        self._silent = ""

    # --- asking ---

    def _ask(self, address: str, tries: int) -> None:
        self._asked.add(address)
        family, target = self._targets[tries % len(self._targets)]
        try:
            asked = dns_question(address, int.from_bytes(os.urandom(2), "big"))
            channel = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except (OSError, ValueError) as error:  # no file descriptor left; not an address
            self._learn(address, None, UNANSWERED)
            self._silent = clean(str(error))
            return
        try:
            channel.connect(target)  # the kernel then delivers only this server's datagrams
            channel.send(asked)
        except OSError as error:
            channel.close()
            self._unanswered(address, tries + 1, error.strerror or "")
            return
        question = _Question(address, tries + 1, asked, channel, self._clock() + PATIENCE)
        self._open[channel.fileno()] = question

    def _is_settled(self, question: _Question) -> bool:
        """Read the datagrams that have come; returns whether the question is settled."""
        for _ in range(8):  # forged answers are skipped, 8 at a time
            try:
                name = dns_answer(question.socket.recv(4096), question.asked)
            except BlockingIOError:
                return False
            except ValueError:
                continue
            except OSError as error:  # no server listens there
                self._unanswered(question.address, question.tries, error.strerror or "")
                return True
            if name is None:
                self._unanswered(question.address, question.tries, "it can't tell")
                return True
            self._silent = ""
            self._learn(question.address, name or None, NAMED if name else NAMELESS)
            return True
        return False

    def _unanswered(self, address: str, tries: int, why: str) -> None:
        if tries < max(TRIES, len(self._targets)):
            self._again.append((address, tries))
            return
        if why != "it can't tell":  # then the server works, and only this address has a problem
            self._silent = f"{', '.join(self.servers)}: {why}"
        self._learn(address, self._known.get(address, (None, 0.0))[0], UNANSWERED)

    def _learn(self, address: str, name: str | None, seconds: float) -> None:
        self._asked.discard(address)
        self._waiting.pop(address, None)
        self._fresh = self._fresh or self._known.get(address, (None,))[0] != name
        self._known[address] = name, self._clock() + seconds
        self._known.move_to_end(address)
        if len(self._known) > MAX_ANSWERS:
            self._known.popitem(last=False)

    # --- files ---

    def _look(self) -> None:
        """Read the files that changed."""
        self._look_due = self._clock() + LOOK_EVERY
        for path, take in self._files.items():
            state: object = None
            text = ""
            try:
                found = os.stat(path)
                state = found.st_mtime_ns, found.st_ino, found.st_size
                if path in self._seen and self._seen[path] == state:
                    continue
                with open(path, "rb") as file:
                    text = file.read(LARGEST_FILE).decode("ascii", "replace")
                if len(text) == LARGEST_FILE:
                    text = text.rpartition("\n")[0]  # a name that is cut is another name
            except OSError:  # a missing file counts as an empty one
                if path in self._seen and self._seen[path] is None:
                    continue
                state = None
            self._seen[path] = state
            take([line.partition("#")[0].split() for line in text.split("\n")])

    def _take_hosts(self, lines: list[list[str]]) -> None:
        hosts: dict[str, str] = {}
        for address, *names in filter(None, lines):
            if names and address not in hosts and (name := host_name(names[0])):
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                try:
                    hosts.setdefault(socket.inet_ntop(family, socket.inet_pton(family, address)), name)
                except (OSError, ValueError):
                    continue
        self._hosts = hosts
        self._fresh = True

    def _take_servers(self, lines: list[list[str]]) -> None:
        named = [line[1] for line in lines if line[:1] == ["nameserver"] and len(line) > 1][:MOST_SERVERS]
        targets = {address: target for address in named if (target := self._target(address))}
        # resolv.conf(5): without a nameserver line, the server on this machine is asked.
        targets = targets or {"127.0.0.1": (socket.AF_INET, ("127.0.0.1", self._port))}
        self.servers, self._targets = list(targets), list(targets.values())

    def _target(self, address: str) -> tuple[int, tuple[object, ...]] | None:
        """A server's family and socket address; "fe80::1%eth0" names its interface."""
        try:
            found = socket.getaddrinfo(address, self._port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
        except (OSError, ValueError):
            return None
        return found[0][0], found[0][4]
