"""Recordings: what `--record` writes and `--replay` reads, in the same items that a live source gives.

A recording holds conntrack's own lines as they came, and between them directives for what the lines don't say:

    # conntrack-monitor recording 1
    # 1795386413.786793 list                    a listing begins here, at that wall-clock time
    # 1795386413.912001 end 1                   it ended; 1 complete, 0 cut or failed
    # 1795386414.100000 lost events (ENOBUFS)   something was lost
    # 1795386414.200000 facts count=12 max=262144 acct=1
    # 1795386414.200000 statistics insert=12259 insert_failed=0
    # 1795386414.200000 own 192.0.2.1 2001:db8::1 198.51.100.0/24 broadcast=192.0.2.255
    # 1795386414.200000 node r7               whose lines follow: with all directives, till another one is named
    # 1795386414.200000 whole 1               its lines that follow come from JSON: none was cut off; 0: that ends here
    # 1795386414.300000 gone LINE             the line of a flow that a listing showed to be gone

So what `conntrack -E` or `-L` printed, saved by hand, is a recording too. Our own JSON lines become one
(``jsonlines``), and what gzip has packed is unpacked.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import select
import sys
import time
import zlib
from collections import deque
from collections.abc import Iterator

from intake import (
    Block,
    Ended,
    Facts,
    Gone,
    Item,
    LeftOut,
    ListingBegan,
    ListingEnded,
    Lost,
    OfNode,
    OwnAddresses,
    Playback,
    Statistics,
)
from jsonlines import NOT_WHOLE, WHOLE, JsonLines, stamp_of
from parse import ADDRESS, Splitter
from text import clean

FIRST_LINE = b"# conntrack-monitor recording 1\n"
FILE_READ_SIZE = 1 << 18
PACKED_READ_SIZE = 1 << 14  # gzip makes at most 16 MB of it
_DIRECTIVE = re.compile(
    rb"^# (?:(\d{1,12}\.\d{1,6}) (list|end|lost|facts|statistics|own|whole|gone)\b *([^\n]*)|"
    rb"conntrack-monitor recording \d+)\n?",
    re.M,
)
_OWN = re.compile(rf"(?:broadcast=)?{ADDRESS}(?:/\d{{1,3}})?")
_STAMP = re.compile(rb"\[(\d{1,12}\.\d{1,6})\]\t")

# Seconds. A longer pause in a recording is not one of the traffic: the recorder stood still (a suspended laptop).
LONGEST_WAIT = 300.0


class Recorder:
    """Writes items to a file that only its owner may read: it holds who talked to whom."""

    def __init__(self, path: str) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(fd, 0o600)
        except OSError:
            pass  # the mode of /dev/full, a pipe or another user's file stays as it is
        self._file = io.BufferedWriter(io.FileIO(fd, "wb"), 1 << 16)
        self._file.write(FIRST_LINE)
        self._flushed = 0.0
        self._node = ""  # whose items were written last
        self._whole: set[str] = set()  # nodes whose lines that were written last are
        self.stopped = ""  # why nothing is written any more
        self._has_complained = False  # somebody has asked why

    def take(self, item: Item, node: str = "") -> None:
        """Write what comes of a node. The first error ends the recording, because one with a hole would lie."""
        if not self.stopped:
            try:
                self.write(item, node)
                self.flush()
            except OSError as error:
                self._stop(error)
                self.close()

    def _stop(self, error: OSError) -> None:
        self.stopped = self.stopped or f"recording stopped: {error.strerror}"

    def complaint(self) -> str:
        """Why nothing is written any more, to the first who asks; else ""."""
        if self._has_complained or not self.stopped:
            return ""
        self._has_complained = True
        return self.stopped

    def write(self, item: Item, node: str = "") -> None:
        node = item.node if isinstance(item, OfNode) else node
        if node != self._node:
            self._node = node
            self._file.write(f"# {time.time():.6f} node {node}\n".encode("utf-8", "replace"))
        if isinstance(item, Block):
            if item.whole != (node in self._whole):
                self._whole ^= {node}
                self._file.write((WHOLE if item.whole else NOT_WHOLE) + b"\n")
            self._file.write(item.data if item.data.endswith(b"\n") else item.data + b"\n")
        elif isinstance(item, Gone):
            self._file.write(b"# %.6f gone %b\n" % (item.at, item.data))
        elif text := _directive(item):
            self._file.write(f"# {time.time():.6f} {text}\n".encode())

    def flush(self) -> None:
        """Flush once a second: enough for `tail -f`, and little is lost in a crash."""
        now = time.monotonic()
        if now - self._flushed >= 1.0:
            self._flushed = now
            self._file.flush()

    def close(self) -> None:
        """Write what is left; a full disk stops that, too."""
        try:
            self._file.close()
        except OSError as error:
            self._stop(error)


def _directive(item: Item) -> str | None:
    if isinstance(item, ListingBegan):
        return "list"
    if isinstance(item, ListingEnded):
        return f"end {int(item.complete)}"
    if isinstance(item, Lost):
        return f"lost {item.what}"
    if isinstance(item, (Facts, Statistics)):
        word = "facts" if isinstance(item, Facts) else "statistics"
        return f"{word} " + " ".join(f"{name}={value}" for name, value in item.values.items())
    if isinstance(item, OwnAddresses):
        return "own " + " ".join(sorted(item.addresses))
    return None


SPEEDS = 1 / 16, 256.0  # that keys can set
LOOKED_AT = 1 << 18  # bytes at each end of a file that tell when it begins and ends


class Replay:
    """A file, or standard input for "-". ``speed`` 0: as fast as it reads; else that many times the recorded speed.

    A file can be played from any of its moments: going back is reloading it up to there.
    """

    live = False
    command = None

    def __init__(self, path: str, speed: float, data: bytes | None = None, node: str = "", every: bool = False) -> None:
        """``data``: what is played in place of the file of this name. ``node``: whose lines are, "" the first one's.

        ``every``: those of all nodes are. Then an ``OfNode`` comes before the first item, and before each that is of
        another node than the one before; ``Ended`` is of all.
        """
        self.name = "standard input" if path == "-" else clean(os.path.basename(path))
        self.speed = speed
        if path == "-" and sys.stdin is None:
            raise ValueError("standard input is closed")
        self._file = _file_of(path, data)
        self._ready = select.poll()  # O_NONBLOCK would hold for standard output, too, if both are one terminal
        self._ready.register(self._file.fileno(), select.POLLIN)
        self._asked = node, every
        self._node = node  # whose lines are being read
        self._begin_reading()
        self._waiting: deque[tuple[float, Item]] = deque()
        self._position: float | None = None  # the recorded time that was reached, seconds since 1970
        self._started: tuple[float, float] | None = None  # recorded and monotonic time of the first item
        self._reading = True
        self._over = False
        self._held: float | None = None  # the recorded time at which it stands still
        self._target: float | None = None  # the recorded time that is gone to: all up to there is played at once
        self._bounds = None if path == "-" else _bounds_of(self._file)

    def clock(self) -> float:
        if self._target is not None:
            return self._position or 0.0
        if self._held is not None and not self._over:
            return self._held
        if self._started is None:
            return self._position or 0.0
        if not self.speed or self._over:
            return self._position or 0.0
        recorded, monotonic = self._started
        return recorded + (time.monotonic() - monotonic) * self.speed

    # --- moving in it ---

    def playback(self) -> Playback | None:
        """Where it is; None where it has no times, or can't go back (a pipe)."""
        if self._bounds is None or (not self.speed and not self._over):
            return None
        begins, ends = self._bounds
        return Playback(min(max(self.clock(), begins), ends), begins, ends, self.speed, self._held is not None)

    def hold(self, on: bool) -> None:
        """Stand still, or go on from there."""
        if on == (self._held is not None):
            return
        now = self._aim()
        self._held = now if on else None
        self._go_on_from(now)

    def step(self) -> None:
        """Play what comes next, a tenth of a second of lines at most, and stand still there."""
        self.hold(True)
        self._read()
        if self._waiting:
            self._held = max(self._held or 0.0, self._waiting[0][0])

    def set_speed(self, factor: float) -> float:
        """Play so many times as fast; returns how many times the recorded speed that is."""
        now = self._aim()
        self.speed = max(SPEEDS[0], min((self.speed or 1.0) * factor, SPEEDS[1]))
        self._go_on_from(now)
        return self.speed

    def _aim(self) -> float:
        """The recorded time where it is, or where it is going."""
        return self.clock() if self._target is None else self._target

    def _go_on_from(self, now: float) -> None:
        """The recorded time that is now, once it has begun."""
        if self._started is not None:
            self._started = now, time.monotonic()

    def seek(self, seconds: float) -> bool:
        """Go so far on, or back. True: it went back and is read anew, so that the table must begin anew, too."""
        if self._bounds is None:
            return False
        before = self._aim()
        target = min(max(before + seconds, self._bounds[0]), self._bounds[1])
        self.speed = self.speed or 1.0
        self._held = None if self._held is None else target
        self._target, self._started = target, (target, time.monotonic())
        if target >= before:
            return False
        self._file.seek(0)
        self._begin_reading()
        self._waiting.clear()
        self._position, self._reading, self._over = None, True, False
        return True

    def _begin_reading(self) -> None:
        self._splitter, self._unpacker, self._json = Splitter(), Unpacker(), JsonLines(*self._asked)
        self._left_out = 0
        self._whole: set[str] = set()  # nodes whose lines that follow are
        self._told: str | None = None if self.every else ""  # the node that was told last

    def fds(self) -> list[int]:
        return [self._file.fileno()] if self._reading and len(self._waiting) < 1000 else []

    def deadline(self) -> float | None:
        """On the scale of time.monotonic()."""
        if not self._waiting:
            return None
        if self._target is not None:
            return 0.0
        if self._held is not None:
            return 0.0 if self._waiting[0][0] <= self._held else None
        if not self.speed or self._started is None:
            return 0.0
        recorded, monotonic = self._started
        return monotonic + (self._waiting[0][0] - recorded) / self.speed

    def list_now(self) -> None:
        pass  # a recording lists when it did

    def pace(self, factor: float) -> None:  # noqa: ARG002
        return None

    def unannounced(self, flows: int) -> None:
        pass  # nobody listens

    def poll(self) -> Iterator[Item]:
        self._read()
        while self._waiting and self._waiting[0][0] <= self._due():
            at, item = self._waiting.popleft()
            self._position = max(at, self._position or 0.0)
            yield item
        if self._target is not None and (self._waiting or not self._reading):  # it is there
            self._started, self._target = (self._target, time.monotonic()), None
        if not self._reading and not self._waiting and not self._over:
            self._over = True
            yield Ended(self._position or 0.0)

    def _due(self) -> float:
        """The recorded time that is now; jumps over pauses longer than LONGEST_WAIT."""
        if self._target is not None:
            return self._target
        if self._held is not None:
            return self._held
        if not self.speed or self._started is None:  # at once; so are lines without times
            return math.inf
        recorded, monotonic = self._started
        now = recorded + (time.monotonic() - monotonic) * self.speed
        if self._waiting and self._waiting[0][0] - max(now, self._position or 0.0) > LONGEST_WAIT:
            self._started = self._waiting[0][0], time.monotonic()
            return self._waiting[0][0]
        return now

    def close(self) -> None:
        self._file.close()

    def _read(self) -> None:
        if not self._reading or len(self._waiting) >= 1000 or not self._ready.poll(0):
            return
        data = self._next_bytes()
        if data is None:
            return
        block = self._splitter.feed(data)
        if not data:
            self._reading = False
        for text in self._json.recordings_in(block, self.speed > 0):
            self._node = text.node
            self._push_recording(text.data)
        self._tell_left_out()

    def _push_recording(self, block: bytes) -> None:
        at = 0
        for match in _DIRECTIVE.finditer(block) if b"# " in block else ():
            self._push_lines(block[at : match.start()])
            at = match.end()
            if match.group(1):
                self._push_directive(float(match.group(1)), match.group(2), match.group(3))
        self._push_lines(block[at:])

    def _next_bytes(self) -> bytes | None:
        """What can be read now, unpacked; b"" at the end, None where that is none yet."""
        try:
            packed = self._file.read(self._unpacker.read_size)
            data = self._unpacker.feed(packed or b"")
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            self._push(Lost(0.0, f"the rest of the recording can't be read: {why}"), None)
            return b""
        return None if packed and not data else data

    def _tell_left_out(self) -> None:
        """How many lines of other nodes were left out."""
        if (number := sum(self._json.left_out.values())) != self._left_out:
            self._left_out = number
            self._push(LeftOut(0.0, dict(self._json.left_out)), None)

    def _push_lines(self, block: bytes) -> None:
        if not block:
            return
        if not self.speed:
            stamps = _STAMP.findall(block)
            self._push(self._block(block), float(stamps[-1]) if stamps else None)
            return
        # At recorded speed: a new block begins with each tenth of a second.
        start = 0
        tenth = -1.0
        last: float | None = None
        for match in _STAMP.finditer(block):
            stamp = float(match.group(1))
            if (match.start() and block[match.start() - 1] != 10) or int(stamp * 10) == tenth:
                continue
            if match.start() > start:
                self._push(self._block(block[start : match.start()]), last)
            start, tenth, last = match.start(), int(stamp * 10), stamp
        self._push(self._block(block[start:]), last)

    def _block(self, data: bytes) -> Block:
        return Block(data, None, whole=self._whole_key in self._whole)

    @property
    def every(self) -> bool:
        """Does it read the lines of all nodes?"""
        return self._asked[1]

    @property
    def _whole_key(self) -> str:
        """Where one node is read, what names none may come before its name does."""
        return self._node if self.every else ""

    def _push_directive(self, at: float, word: bytes, text: bytes) -> None:
        words = text.decode("utf-8", "replace")
        if word == b"list":
            self._push(ListingBegan(at), at)
        elif word == b"end":
            self._push(ListingEnded(at, words.strip() == "1"), at)
        elif word == b"lost":
            self._push(Lost(at, clean(words, 80)), at)
        elif word in (b"facts", b"statistics"):
            found = re.findall(r"(?<![^ ])([a-z_0-9]+)=(\d{1,19})\b", words)
            values = {name: int(value) for name, value in found}
            self._push(Facts(at, values) if word == b"facts" else Statistics(at, values), at)
        elif word == b"own":
            self._push(OwnAddresses(at, frozenset(_OWN.findall(words))), at)
        elif word == b"whole":
            (self._whole.add if words.strip() == "1" else self._whole.discard)(self._whole_key)
        elif word == b"gone":
            self._push(Gone(at, text), at)

    def _push(self, item: Item, at: float | None) -> None:
        """Queue an item for its time. A time that goes back is taken as the newest so far."""
        newest = self._waiting[-1][0] if self._waiting else (self._position or 0.0)
        if at is None:
            at = newest
        at = max(at, newest)
        if self._started is None and at:
            self._started = at, time.monotonic()
        if self._told != self._node:
            self._told = self._node
            self._waiting.append((at, OfNode(0.0, self._node)))
        self._waiting.append((at, item))


class Mixture:
    """A recording of several nodes, taken apart: a source for each, as they are met.

    It reads on when all that it gave is taken, so that it waits for the slowest.
    """

    def __init__(self, whole: Replay) -> None:
        self._whole = whole
        self._parts: dict[str, NodeReplay] = {}
        self._current: NodeReplay | None = None  # whose items come

    def read(self) -> list[NodeReplay]:
        """Read on, if all was taken; returns the parts of nodes that were not met before. With the end there is one."""
        met: list[NodeReplay] = []
        if any(part.has_items for part in self._parts.values()):
            return met
        for item in self._whole.poll():
            if isinstance(item, OfNode) or self._current is None:
                node = item.node if isinstance(item, OfNode) else ""
                if node not in self._parts:
                    self._parts[node] = NodeReplay(self._whole, node)
                    met.append(self._parts[node])
                self._current = self._parts[node]
            for part in self._parts.values() if isinstance(item, Ended) else [self._current]:
                part.give(item)
        return met

    def fds(self) -> list[int]:
        return [] if any(part.has_items for part in self._parts.values()) else self._whole.fds()

    def deadline(self) -> float | None:
        """On the scale of time.monotonic()."""
        return self._whole.deadline()


class NodeReplay:
    """What a recording of several nodes has of one of them. The mixture is waited for, and gives the items."""

    live = False
    command = None

    def __init__(self, whole: Replay, node: str) -> None:
        self.name, self.node = whole.name, node
        self._whole = whole
        self._items: deque[tuple[float, Item]] = deque()  # with the time that it was when they came
        self._at: float | None = None  # that of the item that is being taken
        self._told = False  # whose items these are: once is enough

    @property
    def has_items(self) -> bool:
        return bool(self._items)

    def give(self, item: Item) -> None:
        if not isinstance(item, OfNode) or not self._told:
            self._told = True
            self._items.append((self._whole.clock(), item))

    def clock(self) -> float:
        return self._whole.clock() if self._at is None else self._at

    def fds(self) -> list[int]:
        return []

    def deadline(self) -> float | None:
        return 0.0 if self._items else None

    def poll(self) -> Iterator[Item]:
        try:
            while self._items:
                self._at, item = self._items.popleft()
                yield item
        finally:
            self._at = None

    def list_now(self) -> None:
        pass

    def pace(self, factor: float) -> None:  # noqa: ARG002
        return None

    def unannounced(self, flows: int) -> None:
        pass

    def close(self) -> None:
        pass  # the whole is closed by who has opened it


class Unpacker:
    """What an input says, unpacked where it begins as gzip's output does (RFC 1952), with all members that it has."""

    def __init__(self) -> None:
        self._begin = b""  # till it is known what it is
        self._kind: bool | None = None  # is it packed?
        self._member: zlib._Decompress | None = None

    @property
    def read_size(self) -> int:
        return PACKED_READ_SIZE if self._kind is not False else FILE_READ_SIZE

    def feed(self, data: bytes) -> bytes:
        """``data``: what was read, b"" at the end. ValueError where it is damaged or cut off."""
        if self._kind is None:
            self._begin += data
            if len(self._begin) < len(GZIP) and data and GZIP.startswith(self._begin):
                return b""
            self._kind = self._begin.startswith(GZIP)
            data, self._begin = self._begin, b""
        return self._unpacked(data) if self._kind else data

    def _unpacked(self, data: bytes) -> bytes:
        if not data:
            if self._member is not None or self._begin:
                raise ValueError("its gzip data is cut off")
            return b""
        data, self._begin, out = self._begin + data, b"", []
        while data:
            if self._member is None:
                if len(data) < len(GZIP) and GZIP.startswith(data):
                    self._begin = data
                    break
                if not data.strip(b"\0"):  # tapes and some tools fill a last block with them
                    break
                self._member = zlib.decompressobj(wbits=31)
            try:
                out.append(self._member.decompress(data))
            except zlib.error:
                raise ValueError("its gzip data is damaged") from None
            data = self._member.unused_data
            self._member = None if self._member.eof else self._member
        return b"".join(out)


GZIP = b"\x1f\x8b"  # what its output begins with


def _file_of(path: str, data: bytes | None) -> io.FileIO:
    if data is not None:
        file = io.FileIO(os.memfd_create("recording"), "r+b")  # has a descriptor to wait for, as a file has
        file.write(data)
        file.seek(0)
        return file
    return io.FileIO(os.dup(sys.stdin.fileno()) if path == "-" else path, "rb")


_TIMES = re.compile(rb"^(?:# (\d{1,12}\.\d{1,6}) [a-z]|\[(\d{1,12}\.\d{1,6})\]\t)", re.M)


_JSON_TIMES = re.compile(rb'^\s*\{[^\n]*?"time": ?"(\d[0-9TZ:.+ -]{9,40})"', re.M)


def _bounds_of(file: io.FileIO) -> tuple[float, float] | None:
    """The first and the last time in a file; None where it has none, or is no file that can be read twice."""
    try:
        size = os.fstat(file.fileno()).st_size
        if not file.seekable() or not size:
            return None
        first = os.pread(file.fileno(), LOOKED_AT, 0)
        last = os.pread(file.fileno(), LOOKED_AT, max(0, size - LOOKED_AT))
    except OSError:
        return None
    times = [float(found[0] or found[1]) for found in (*_TIMES.findall(first), *_TIMES.findall(last))]
    for found in (*_JSON_TIMES.findall(first), *_JSON_TIMES.findall(last)):
        with contextlib.suppress(ValueError):
            times.append(float(stamp_of(found.decode())))
    return (times[0], max(times)) if times and max(times) > times[0] else None
