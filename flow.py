"""One flow: mostly the text that conntrack printed about it, read when somebody looks.

Bytes, not parsed fields, are what a listing compares with, so an unchanged flow costs one comparison.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from addresses import Ends
from parse import Kind, Parts, Record, is_turned, join_parts, record, with_reply


class Counts(NamedTuple):
    """Packets and layer-3 bytes of both directions."""

    original_packets: int
    original_bytes: int
    reply_packets: int
    reply_bytes: int


_COUNTERS = re.compile(rb"packets=(\d{1,20}) bytes=(\d{1,20})")
_ENDS = re.compile(
    rb"(?<![^ ])src=([0-9a-fA-F:.]{2,45}) dst=([0-9a-fA-F:.]{2,45})"
    rb"(?: sport=(\d{1,5}) dport=(\d{1,5})(?!\d)| type=(\d{1,3}) code=\d{1,3} id=(\d{1,5})(?!\d)"
    rb"| srckey=0x([0-9a-f]{1,8}) dstkey=0x([0-9a-f]{1,8})(?![0-9a-f]))?"
)
ICMP = (1, 58)
_MARK = re.compile(rb" mark=(\d{1,10})")
_FLAG = re.compile(rb"\[(UNREPLIED|ASSURED|OFFLOAD|HW_OFFLOAD)\]")
_DELTA = re.compile(rb" delta-time=(\d{1,9})(?!\d)")  # more digits: a clock that was stepped back


class Group:
    """Flows of one kind in one state: what 200,000 of them share, and how many live ones there are."""

    __slots__ = ("kind", "number", "prefix", "state")

    def __init__(self, kind: Kind, state: str | None) -> None:
        self.kind = kind
        self.state = state
        self.prefix = b"%d " % kind.number  # what a key begins with
        self.number = 0


class Sight(NamedTuple):
    """When a flow was named last: the time, and the newest listing then. All lines of a block share one."""

    at: float
    generation: int


class Course(NamedTuple):
    """How a flow fares. Most of 200,000 flows rest, and all that rest alike share one (see ``settled``)."""

    rates: tuple[float, float] | None = None  # bytes a second: original, reply; None until there are two samples
    inbound: bool | None = None  # see ends.inbound; None until it has moved something
    exact: bool = False  # its NEW was seen, so ``born`` is its birth and not only our first sight of it
    listed: bytes | None = None  # the last listing's text, while ``rest`` is an event's and has no counters
    ended: float | None = None
    inferred: bool = False  # a listing showed that it is gone; no DESTROY said so


IDLE = (0.0, 0.0)  # one object for all flows that rest
_SHARED = {
    course: course
    for exact in (False, True)
    for inbound in (None, False, True)
    for rates in (None, IDLE)
    for course in (Course(rates, inbound, exact),)
}


def settled(course: Course) -> Course:
    """The same course, shared if it is that of a flow that rests."""
    return _SHARED.get(course, course)


BORN, FOUND, RESTING = settled(Course(exact=True)), settled(Course()), settled(Course(IDLE))


def told(rest: bytes) -> bytes:
    """``rest`` without the [USERSPACE] part, in which a program's name may say anything."""
    return rest.partition(b" [USERSPACE]")[0] if b"[USERSPACE]" in rest else rest


def counts_in(rest: bytes) -> Counts | None:
    """The counters of both directions, or None where accounting was off when the flow began."""
    found = _COUNTERS.findall(told(rest))
    if len(found) < 2:
        return None
    (packets, size), (reply_packets, reply_size) = found[:2]
    return Counts(int(packets), int(size), int(reply_packets), int(reply_size))


class Flow:
    """One flow, mostly as text: 200,000 of them stay in memory and a few dozen are on show."""

    __slots__ = ("born", "course", "group", "key", "rest", "sampled", "sight", "timeout")

    def __init__(self, key: bytes, group: Group, born: float, course: Course, sight: Sight) -> None:
        self.key = key
        self.group = group
        self.timeout: int | None = None  # seconds, at the time ``seen``
        self.rest = b""  # the newest line's text behind the original tuple, as parse.rest_of gives it
        self.born = born
        self.course = course
        self.sight = sight
        self.sampled = born  # when the counters were read last

    @property
    def kind(self) -> Kind:
        return self.group.kind

    @property
    def state(self) -> str | None:
        return self.group.state

    @property
    def ended(self) -> float | None:
        return self.course.ended

    @property
    def inferred(self) -> bool:
        return self.course.inferred

    @property
    def exact(self) -> bool:
        return self.course.exact

    @property
    def rates(self) -> tuple[float, float] | None:
        return self.course.rates

    @property
    def family(self) -> str:
        """The family printed, else the one that the addresses tell."""
        return self.group.kind.family or ("ipv6" if b":" in self.key else "ipv4")

    @property
    def original(self) -> bytes:
        """The original tuple's text."""
        return self.key.partition(b" ")[2].partition(b"|")[0]

    @property
    def plain(self) -> bool:
        """Certainly without NAT: its text has no reply tuple of its own. (A program's name may say src=, too.)"""
        return b"src=" not in self.rest

    def addresses(self) -> tuple[bytes, bytes]:
        """Source and destination of the original tuple, as text: what ``ends`` gives in a fifth of its time."""
        key = self.key
        src = key.index(b"=") + 1
        end = key.index(b" ", src)
        dst = end + 5
        return key[src:end], key[dst : key.index(b" ", dst)]

    def ports(self) -> tuple[bytes, bytes]:
        """Ports of the original tuple, as text; b"" where the protocol has none."""
        sport, _, dport = self.key.partition(b" sport=")[2].partition(b" dport=")
        return sport, dport.partition(b" ")[0]

    @property
    def row(self) -> Parts:
        """The newest line about this flow, as the parser cuts it."""
        return self._row(self.rest)

    def line(self) -> str:
        """The newest line about this flow, as `conntrack -L` prints it."""
        _, _, head, timeout, state, original, *rest = self.row
        return b"".join((head, timeout, state, original, *rest[4:])).decode("utf-8", "replace")

    def _row(self, rest: bytes) -> Parts:
        timeout = b"" if self.timeout is None else b"%d " % self.timeout
        state = b"" if self.state is None else self.state.encode() + b" "
        return join_parts(b"", b"", _head(self.kind), timeout, state, self.original, with_reply(self.original, rest))

    def record(self) -> Record:
        """All that is known: the newest line, and what only the last listing said (counters, use, helper...)."""
        newest = record(self.row)
        if self.course.listed is not None:
            _fill(newest, record(self._row(self.course.listed)))
        return newest

    def counts(self) -> Counts | None:
        listed = self.course.listed
        return counts_in(self.rest) or (counts_in(listed) if listed is not None else None)

    def total(self) -> int | None:
        """Bytes of both directions."""
        for rest in (self.rest, self.course.listed):
            if rest is not None and len(found := _COUNTERS.findall(told(rest))) >= 2:
                return int(found[0][1]) + int(found[1][1])
        return None

    def packets(self) -> int | None:
        counts = self.counts()
        return None if counts is None else counts.original_packets + counts.reply_packets

    def rate(self) -> float | None:
        """Smoothed bytes a second of both directions; None until two samples of the counters are there."""
        rates = self.course.rates
        return None if rates is None else rates[0] + rates[1]

    def age(self, now: float) -> float:
        """Seconds since its birth, or, where ``knows_age`` is False, at least that many.

        A closed flow's age is its duration.
        """
        end = now if self.ended is None else self.ended
        if not self.course.exact and (delta := _DELTA.search(self.course.listed or self.rest)):
            return int(delta.group(1)) + max(0.0, end - self.sampled)
        return max(0.0, end - self.born)

    def knows_age(self) -> bool:
        return self.course.exact or _DELTA.search(self.course.listed or self.rest) is not None

    def remaining(self, now: float) -> int | None:
        """Seconds until the kernel forgets it if nothing more comes."""
        if self.timeout is None or self.ended is not None:
            return None
        return max(0, round(self.timeout - (now - self.sight.at)))

    def status(self) -> str:
        """The state; for protocols without one the flag that says most; "" where there is neither."""
        if state := self.group.state:
            return state
        flags = self.flags()
        return next((flag for flag in ("HW_OFFLOAD", "OFFLOAD", "UNREPLIED", "ASSURED") if flag in flags), "")

    def flags(self) -> list[str]:
        return [flag.decode() for flag in _FLAG.findall(told(self.rest))]

    def mark(self) -> int:
        found = _MARK.search(told(self.rest))
        return int(found.group(1)) if found else 0

    def zones(self) -> list[int]:
        return [int(word.rpartition(b"=")[2]) for word in self.key.partition(b"|")[2].split(b"|") if word]

    def ends(self) -> Ends:
        src, dst, sport, dport = _pair(self.original)
        if is_turned(self.rest):
            return Ends(src, dst, sport, dport, dst, src, dport, sport)
        reply_src, reply_dst, reply_sport, reply_dport = _pair(told(self.rest))
        if self.kind.number in ICMP:  # an id is the initiator's: masquerading gives out another as it does ports
            dport = reply_sport = None
        return Ends(src, dst, sport, dport, reply_src, reply_dst, reply_sport, reply_dport)


def _pair(text: bytes) -> tuple[str, str, int | None, int | None]:
    """Addresses and ports of the first tuple in ``text``; an ICMP id or GRE key stands where a port would."""
    match = _ENDS.search(text)
    if match is None:
        return "", "", None, None
    src, dst, sport, dport, icmp_type, icmp_id, srckey, dstkey = match.groups()
    if sport is not None:
        return src.decode(), dst.decode(), int(sport), int(dport)
    if icmp_type is not None:
        return src.decode(), dst.decode(), int(icmp_id), int(icmp_id)
    if srckey is not None:
        return src.decode(), dst.decode(), int(srckey, 16), int(dstkey, 16)
    return src.decode(), dst.decode(), None, None


def _head(kind: Kind) -> bytes:
    numbers = {"ipv4": "2", "ipv6": "10"}
    family = f"{kind.family:<8} {numbers.get(kind.family, '0')} " if kind.family else ""
    return f"{family}{kind.protocol:<8} {kind.number} ".encode()


def _fill(newest: Record, listed: Record) -> None:
    """Put what only the listing said into the newest record."""
    for name in ("mark", "secmark", "secctx", "delta_time", "start", "helper", "use", "id", "labels"):
        if getattr(newest, name) is None:
            setattr(newest, name, getattr(listed, name))
    for mine, theirs in ((newest.original, listed.original), (newest.reply, listed.reply)):
        if mine.packets is None:
            mine.packets, mine.bytes = theirs.packets, theirs.bytes
