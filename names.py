"""Asking who is behind an address: what the machine knows is read again and again, name servers answer when they do.

What the machine knows (``Names``) is read by default, and nobody else hears of it. Name servers (``Resolver``) are off
by default: a name server sees every address on show, and the owner of an address may see the question. Nothing here
waits. A question is one datagram from its own socket: a forged answer must guess a port and a number. The loop's poll
says when a socket can be read. getnameinfo(3) waits up to 30 s for a silent name server, in a thread that can't be
stopped.
"""

from __future__ import annotations

import contextlib
import glob
import ipaddress
import os
import re
import shutil
import socket
import struct
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import addresses
from addresses import PLAIN_SITE, Site
from child import Child
from devices import (
    COMMANDS,
    HOSTS_FILE,
    LEASE_FILES,
    LEASE_FOLDERS,
    RANK,
    SOCKETS_COMMAND,
    UNTOLD,
    Book,
    Directory,
    Entry,
    Sockets,
    entries_of_neighbours,
    ids_of,
    of_files,
    read_hosts,
    read_leases,
    read_sockets,
)
from source import neighbours
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


# --- files ------------------------------------------------------------------------------------------------------------


def signature(paths: Sequence[str]) -> list[tuple[str, int, int, int]]:
    """Time, inode and size of those of the files that are there: what changes when a file does."""
    found = []
    for path in paths:
        with contextlib.suppress(OSError, ValueError):
            state = os.stat(path)
            found.append((path, state.st_mtime_ns, state.st_ino, state.st_size))
    return found


def content(path: str) -> str:
    """The whole lines of a file, up to LARGEST_FILE; "" where it can't be read. What is no file is not waited for."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK | os.O_NOCTTY)) as file:
            data = file.read(LARGEST_FILE) or b""
    except (OSError, ValueError):
        return ""
    text = data.decode("utf-8", "replace")
    return text.rpartition("\n")[0] if len(data) == LARGEST_FILE else text  # a name that is cut is another name


# --- asking name servers ----------------------------------------------------------------------------------------------

RESOLV_FILE = "/etc/resolv.conf"
LARGEST_FILE = 1 << 20  # bytes read of a file: 25,000 leases
LOOK_EVERY = 5.0  # seconds between two looks at a file
MOST_SERVERS = 3  # as in resolv.conf(5)
MAX_ANSWERS = 10_000  # answers
NAMED, NAMELESS, UNANSWERED = 3600.0, 600.0, 60.0  # seconds an answer is kept: a name, no name, no answer
MOST_WAITING = 256  # addresses: three tall screens; the oldest are dropped first
MOST_OPEN = 16  # questions under way
GAP = 0.05  # seconds between two datagrams: 20 a second
PATIENCE = 3.0  # seconds for an answer
TRIES = 2  # datagrams for an address; one for each server where there are more servers


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
        resolv: str = RESOLV_FILE,
        port: int = 53,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fresh = False
        self.on = False
        self.servers: list[str] = []
        self._file = resolv
        self._seen: object = ""  # the file's time, inode and size when it was read
        self._port = port
        self._clock = clock
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
            return "Host names are off"
        self._look()
        return f"Resolving names through {', '.join(self.servers)}"

    def name(self, address: str) -> str | None:
        """The name that is known now; an unknown one is asked for. None without a name, and while names are off."""
        if not self.on:
            return None
        name, until = self._known.get(address, (None, 0.0))
        if until:
            self._known.move_to_end(address)
        if self._clock() >= until and address not in self._asked and addresses.scope(address) not in UNTOLD:
            self._waiting[address] = None
            self._waiting.move_to_end(address)
            if len(self._waiting) > MOST_WAITING:
                self._waiting.popitem(last=False)
        return name

    def notices(self) -> list[tuple[str, str]]:
        """What is wrong, and the command that helps."""
        return [(f"Host names unavailable: {self._silent}", "cat /etc/resolv.conf")] if self.on and self._silent else []

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
                self._unanswered(question.address, question.tries, "the server failed")
                return True
            self._silent = ""
            self._learn(question.address, name or None, NAMED if name else NAMELESS)
            return True
        return False

    def _unanswered(self, address: str, tries: int, why: str) -> None:
        if tries < max(TRIES, len(self._targets)):
            self._again.append((address, tries))
            return
        if why != "the server failed":  # then the server works, and only this address has a problem
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

    # --- its file ---

    def _look(self) -> None:
        """Read the file if it has changed."""
        self._look_due = self._clock() + LOOK_EVERY
        if (state := signature([self._file])) != self._seen:
            self._seen = state
            self._take_servers([line.partition("#")[0].split() for line in content(self._file).split("\n")])

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


# --- what the machine knows -------------------------------------------------------------------------------------------

READ_EVERY = 30.0  # seconds
SOCKETS_EVERY = 5.0  # seconds: connections come and go faster than devices
SHARE_OF_COMMANDS = 20  # a command that takes long is run in 1/20 of the time: ss looks at each open file
FAILED_AGAIN = 600.0  # ... after a command that is not there, or that is not permitted
LOOK_SHARE = 50  # reading files takes 1/50 of the time at most: 25,000 leases take 0.2 s
LONGEST_ANSWER_OF_BOOK = 8 << 20  # bytes of a command's answer
BOOK_PATIENCE = 20.0  # seconds for a command to end
MOST_FILES = 200
NOT_THERE = (126, 127)  # a shell's exit status, and that of sudo, ssh and docker
# A server of ssh refuses one login of three where ten are under way, and conntrack's own commands are seven.
MOST_LOGINS = 2
DOCKER_SOCKET = "/var/run/docker.sock"
Books = dict[str, list[Entry]]


class _Errand:
    """A command that is run again and again, and how it went."""

    def __init__(
        self, words: Sequence[str], via: Sequence[str], take: Callable[[str], None], book: Book | None = None
    ) -> None:
        """``take``: hears what was printed. ``book``: what follows the first command, and who has asked for it."""
        self.program = words[0]
        self._words, self._via, self._take = list(words), list(via), take
        self._follow = book.follow if book else ()
        self._asked = book is not None and book.asked
        self._lenient = words[0] == "grep"  # its exit status says that a file is missing
        self._every = SOCKETS_EVERY if words[0] == SOCKETS_COMMAND[0] else READ_EVERY
        self.due = 0.0
        self.child: Child | None = None
        self._followed = False
        self.answered = False  # it has ended once
        self.problem = ""

    def is_there(self) -> bool:
        """Can it be run at all? Through a prefix nobody knows before it was tried."""
        if self._via:
            return True
        runs = self.program != "docker" or "DOCKER_HOST" in os.environ or os.path.exists(DOCKER_SOCKET)
        return runs and shutil.which(self.program) is not None

    def start(self, now: float) -> None:
        self._followed = False
        if self.is_there():
            self._run(self._words, now)
        else:
            self._failed(f"{self.program}: not found", now, missing=True)
            self.due = now + self._every

    def _run(self, words: Sequence[str], now: float) -> None:
        try:
            self.child = Child([*self._via, *words], shown_as=words[:4])
        except OSError as error:
            self._failed(f"{self.program}: {error.strerror}", now)

    def _failed(self, why: str, now: float, missing: bool = False) -> None:
        """``missing``: that is no problem where nobody has asked for it."""
        self.problem = "" if missing and not self._asked else clean(why, 200)
        self.answered, self.due = True, now + FAILED_AGAIN

    def poll(self, now: float) -> None:
        """Read on; what it said is taken once all of it is there."""
        child = self.child
        if child is None:
            return
        answer = child.collect()
        child.read_errors()
        status = child.ended()
        if status is None:
            if len(answer) > LONGEST_ANSWER_OF_BOOK or now - child.started > BOOK_PATIENCE:
                self.close()
                self._failed(f"{self.program}: its answer did not end", now)
            return
        self.close()
        text = (answer + child.leftover).decode("utf-8", "replace")
        if status and not self._lenient and not text.strip():
            self._failed(child.problem(status).what, now, missing=status in NOT_THERE)
            return
        if self._follow and not self._followed and (found := ids_of(text)):
            self._followed = True
            self._run([*self._follow, *found], now)
            return
        self._take("" if self._follow and not self._followed else text)
        pause = max(self._every, SHARE_OF_COMMANDS * (now - child.started))
        self.answered, self.problem, self.due = True, "", now + pause

    def close(self) -> None:
        if self.child is not None:
            self.child.stop(0.0)
            self.child = None


class Names:
    """What the machine knows whose table is read: leases, neighbours, containers, VPN peers, its hosts file.

    The loop polls it; ``renewed`` tells whether there is news. On this machine files and the kernel are asked at once;
    commands are children, and through a prefix all of it is.
    """

    def __init__(
        self,
        sources: Sequence[str] = (),
        via: Sequence[str] = (),
        site: Site = PLAIN_SITE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``sources``: words of --names. ``via``: the words before each command."""
        self.directory, self.sockets = Directory(site), Sockets()
        self._clock, self._site = clock, site
        self._fresh = bool(site.hosts)
        self._most_at_once = MOST_LOGINS if via else len(sources) + 1
        self._here = () if via else tuple(source for source in sources if source in ("leases", "hosts", "neighbours"))
        self._errands: list[_Errand] = []
        files = [source for source in sources if source in ("leases", "hosts")]
        if via and files:
            words = ["grep", "-Hrs", ".", *(path for path in self._paths(files) if "*" not in path)]
            self._errands.append(_Errand(words, via, lambda text: self._take(books_of(of_files(text)))))
        for source in sources:
            for book in () if source in self._here else COMMANDS.get(source, ()):
                self._errands.append(_Errand(book.words, via, self._reader(source, book), book))
        if "processes" in sources:
            self._errands.append(_Errand(SOCKETS_COMMAND, via, self._take_sockets))
        self._look_due = self._neighbours_due = 0.0
        self._seen: object = None

    def _reader(self, source: str, book: Book) -> Callable[[str], None]:
        key = f"{source} {book.words[0]}"
        return lambda text: self._take({key: book.read(text, self._site)})

    @staticmethod
    def _paths(sources: Sequence[str]) -> list[str]:
        found = [*LEASE_FILES, *LEASE_FOLDERS] if "leases" in sources else []
        return found + ([HOSTS_FILE] if "hosts" in sources else [])

    def fds(self) -> list[int]:
        return [fd for errand in self._errands if errand.child for fd in errand.child.fds()]

    def deadline(self) -> float | None:
        """When ``poll`` must be called, on the scale of time.monotonic(); None: never."""
        now, running = self._clock(), [errand for errand in self._errands if errand.child]
        due = [self._look_due] if self._here else []
        if len(running) < self._most_at_once:
            due += [errand.due for errand in self._errands if not errand.child]
        for errand in running:
            assert errand.child
            due.append(now + 0.02 if errand.child.out is None else errand.child.started + BOOK_PATIENCE)
        return min(due, default=None)

    def poll(self) -> None:
        """Do what is due, without waiting."""
        now = self._clock()
        if self._here and now >= self._look_due:
            self._look(now)
        for errand in self._errands:
            errand.poll(now)
        for errand in self._errands:
            running = sum(other.child is not None for other in self._errands)
            if errand.child is None and now >= errand.due and running < self._most_at_once:
                errand.start(now)

    def waits(self) -> bool:
        """Is there something that has not answered yet, not even once?"""
        return not all(errand.answered for errand in self._errands)

    def renewed(self) -> bool:
        """Whether there is news since the last call."""
        fresh, self._fresh = self._fresh, False
        return fresh

    def state(self) -> str:
        """What was found, and what can't be read, in words; "" where nothing is read."""
        if not self._here and not self._errands:
            return ""
        sizes: dict[str, int] = {}
        for book, size in self.directory.sizes().items():
            sizes[book.partition(" ")[0]] = sizes.get(book.partition(" ")[0], 0) + size
        found = [f"{book} {sizes[book]}" for book in RANK if book in sizes]
        found += [f"sockets {self.sockets.number}"] if self.sockets.known() else []
        return "; ".join([", ".join(found) or "none found", *self.problems()])

    def problems(self) -> list[str]:
        """What can't be read, and why."""
        return [f"unavailable: {errand.problem}" for errand in self._errands if errand.problem]

    def close(self) -> None:
        for errand in self._errands:
            errand.close()

    def _take(self, books: Books) -> None:
        for book, entries in books.items():
            self._fresh = self.directory.take(book, entries) or self._fresh

    def _take_sockets(self, text: str) -> None:
        self._fresh = self.sockets.take(read_sockets(text)) or self._fresh

    def _look(self, now: float) -> None:
        """Read what of this machine can be read at once: files that have changed, and the kernel's neighbours."""
        paths = list(_existing(self._paths(self._here)))
        if (state := signature(paths)) != self._seen:
            self._seen = state
            self._take(books_of([(path, content(path)) for path in paths]))
        if "neighbours" in self._here and now >= self._neighbours_due:
            self._neighbours_due = now + READ_EVERY
            self._take({"neighbours": entries_of_neighbours(neighbours())})
        self._look_due = now + max(LOOK_EVERY, LOOK_SHARE * (self._clock() - now))


def books_of(files: Sequence[tuple[str, str]]) -> Books:
    """Leases and the hosts file, of files with what is in them."""
    leases = [file for file in files if file[0] != HOSTS_FILE]
    hosts = "\n".join(text for path, text in files if path == HOSTS_FILE)
    return {"leases": read_leases(leases), "hosts": read_hosts(hosts)}


def _existing(patterns: Sequence[str]) -> Iterator[str]:
    """The files that patterns and folders name."""
    left = MOST_FILES
    for pattern in patterns:
        names = glob.glob(pattern) if "*" in pattern else [pattern]
        if pattern in LEASE_FOLDERS:
            with contextlib.suppress(OSError):
                names = sorted(os.path.join(pattern, name) for name in os.listdir(pattern))
        for name in names[:left]:
            left -= 1
            yield name
