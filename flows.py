"""The flow table: events and listings in; live flows, recently closed flows, rates and totals out.

What holds at all times:

* A flow is its original tuple with protocol and zones. ``id`` tells a reused tuple apart: another id is another flow.
  The same id proves nothing, because the kernel gives it out again at once.
* A *complete* listing sweeps: a flow is gone if neither the listing nor an event since its beginning named it. With
  nf_conntrack_events=2 nothing else tells of the end of flows that are older than the listener.
* A line of a listing never revives a flow whose DESTROY came after that listing began. Another flow of the same tuple,
  with another id, is alive.
* Counters come from listings and DESTROY only, and rates are their differences over time.

The clock is an argument everywhere: seconds of any steady clock.
"""

from __future__ import annotations

import math
import re
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from itertools import chain, islice, takewhile, zip_longest
from operator import itemgetter
from typing import Any, NamedTuple

from addresses import Context, Ends, KnownAddresses, inbound_by_nat, own_addresses_of
from parse import (
    ADDRESS,
    COUNTERS,
    EVENTS,
    FAMILIES,
    FLAGS,
    GENERIC_TIMEOUTS,
    HEAD,
    ORIGINAL,
    RESENT_TIMEOUTS,
    STATE,
    TIMEOUT,
    TIMEOUT_OF_STATE,
    TIMEOUTS,
    TIMEOUTS_WITHOUT_STATE,
    Cut,
    Kind,
    Parts,
    Record,
    Tuple,
    has_counters,
    is_turned,
    join_parts,
    kind_of,
    record,
    tail_of,
    with_reply,
)


class Counts(NamedTuple):
    """Packets and layer-3 bytes of both directions."""

    original_packets: int
    original_bytes: int
    reply_packets: int
    reply_bytes: int


_COUNTERS = re.compile(COUNTERS)
# A text with both counters, in the seven pieces that _COUNTERS splits it into: every third is none of the numbers.
_COUNTED_TEXT, _PIECES = b"%bpackets=%b bytes=%b%bpackets=%b bytes=%b%b", 7
_TUPLE = re.compile(
    rf"(?<![^ ])src=({ADDRESS}) dst=({ADDRESS})".encode()
    + rb"(?: sport=(\d{1,5}) dport=(\d{1,5})(?!\d)| type=(\d{1,3}) code=\d{1,3} id=(\d{1,5})(?!\d)"
    rb"| srckey=0x([0-9a-f]{1,8}) dstkey=0x([0-9a-f]{1,8})(?![0-9a-f]))?"
)
ICMP = (1, 58)
TCP = 6
_FAMILY_NUMBERS = {name: number for number, name in FAMILIES.items()}
_REPLY = re.compile(rf"(?<![^ ])src=({ADDRESS}) dst={ADDRESS}(?: sport=(\d{{1,5}}))?".encode())
_MARK = re.compile(rb" mark=(\d{1,10})")
_FLAG = re.compile(rf"\[({'|'.join(FLAGS)})\]".encode())
_DELTA = re.compile(rb" delta-time=(\d{1,9})(?!\d)")  # more digits: a clock that was stepped back


class Group:
    """Flows of one kind in one state on one node: what 200,000 of them share, and how many live ones there are."""

    __slots__ = ("begin", "kind", "node", "number", "prefix", "state")

    def __init__(self, kind: Kind, state: str | None, begin: bytes = b"", node: str = "") -> None:
        """``begin``: head and state, with which a listing's line begins but for the timeout between them."""
        self.kind = kind
        self.state = state
        self.begin = begin
        self.node = node  # the machine whose table they are in; "" where nobody has named it
        self.prefix = b"%d " % kind.number  # what a key begins with
        self.number = 0


class LastSeen(NamedTuple):
    """When a flow was named last: the time, and the newest listing then. All lines of a block share one."""

    at: float
    generation: int


class Progress(NamedTuple):
    """What a flow moves and how it ended. Most of 200,000 flows are idle; those share one (``shared_progress``)."""

    rates: tuple[float, float] | None = None  # bytes a second: original, reply; None until there are two samples
    inbound: bool | None = None  # see addresses.KnownAddresses; None until the flow has moved something
    exact: bool = False  # its NEW was seen, so ``born`` is its birth; else it is only when the flow was seen first
    listed: bytes | None = None  # the last listing's text, while ``tail`` is an event's and has no counters
    resting: bool = False  # nothing moved between the two newest listings
    begun: tuple[float, int, int] | None = None  # since when, and bytes so far: of a first interval that is too short
    ended: float | None = None
    inferred: bool = False  # a listing showed that it is gone; no DESTROY said so


IDLE = (0.0, 0.0)  # one object for all idle flows
_SHARED = {
    progress: progress
    for exact in (False, True)
    for inbound in (None, False, True)
    for rates in (None, IDLE)
    for progress in (Progress(rates, inbound, exact),)
}


def shared_progress(progress: Progress) -> Progress:
    """The same progress, shared if it is that of an idle flow."""
    return _SHARED.get(progress, progress)


SEEN_NEW, FIRST_LISTED, AT_REST = (
    shared_progress(Progress(exact=True)),
    shared_progress(Progress()),
    shared_progress(Progress(IDLE)),
)


def without_userspace(tail: bytes) -> bytes:
    """``tail`` without the [USERSPACE] part, in which a program's name may say anything."""
    return tail.partition(b" [USERSPACE]")[0] if b"[USERSPACE]" in tail else tail


def counts_in(tail: bytes) -> Counts | None:
    """The counters of both directions, or None where accounting was off when the flow began."""
    found = _COUNTERS.findall(without_userspace(tail)) if b"packets=" in tail else ()
    if len(found) < 2:
        return None
    (packets, size), (reply_packets, reply_size) = found[:2]
    return Counts(int(packets), int(size), int(reply_packets), int(reply_size))


BytesMoved = tuple[int, int]  # bytes of both directions


def moved_in(tail: bytes) -> BytesMoved | None:
    """The bytes that ``counts_in`` tells, in a third of its time: 40,000 flows of a listing move something."""
    parts = without_userspace(tail).split(b" bytes=", 2)
    if len(parts) < 3 or b"packets=" not in parts[0]:
        return None
    try:
        return int(parts[1].partition(b" ")[0]), int(parts[2].partition(b" ")[0])
    except ValueError:
        return None


class Flow:
    """One flow, mostly as text: 200,000 of them stay in memory and a few dozen are on show."""

    __slots__ = ("born", "group", "key", "last_seen", "progress", "sampled", "tail", "timeout")

    def __init__(
        self,
        key: bytes,
        group: Group,
        born: float,
        progress: Progress,
        last_seen: LastSeen,
        tail: bytes = b"",
        timeout: int | None = None,
    ) -> None:
        self.key = key
        self.group = group
        self.timeout = timeout  # seconds, at the time of ``last_seen``
        self.tail = tail  # the newest line's text behind the original tuple, as parse.tail_of gives it
        self.born = born  # its birth where ``exact``; else it was born then or earlier, see ``birth``
        self.progress = progress
        self.last_seen = last_seen
        self.sampled = born  # when the counters were read last

    @property
    def kind(self) -> Kind:
        return self.group.kind

    @property
    def state(self) -> str | None:
        return self.group.state

    @property
    def node(self) -> str:
        return self.group.node

    @property
    def ended(self) -> float | None:
        return self.progress.ended

    @property
    def inferred(self) -> bool:
        return self.progress.inferred

    @property
    def exact(self) -> bool:
        return self.progress.exact

    @property
    def rates(self) -> tuple[float, float] | None:
        return self.progress.rates

    @property
    def family(self) -> str:
        """The family printed, else the one that the addresses tell."""
        return self.group.kind.family or ("ipv6" if b":" in self.key else "ipv4")

    @property
    def original(self) -> bytes:
        """The original tuple's text."""
        text = self.key[len(self.group.prefix) :]
        return text.partition(b"|")[0] if b"|" in text else text

    @property
    def text(self) -> bytes:
        """The newest line's text from the original tuple on, as ``parse.usual_text`` gives it."""
        return self.original + self.tail

    @property
    def plain(self) -> bool:
        """Certainly without NAT: its text has no reply tuple of its own. (A program's name may say src=, too.)"""
        return b"src=" not in self.tail

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
        return self._row(self.tail)

    def line(self) -> str:
        """The newest line about this flow, as `conntrack -L` prints it."""
        _, _, head, timeout, state, original, *tail = self.row
        return b"".join((head, timeout, state, original, *tail[4:])).decode("utf-8", "replace")

    def _row(self, tail: bytes) -> Parts:
        timeout = b"" if self.timeout is None else b"%d " % self.timeout
        state = b"" if self.state is None else self.state.encode() + b" "
        return join_parts(
            b"", b"", _head_text(self.kind), timeout, state, self.original, with_reply(self.original, tail)
        )

    def record(self) -> Record:
        """All that is known: the newest line, and what only the last listing said (counters, use, helper...)."""
        newest = record(self.row)
        listed = self.progress.listed
        return newest if listed is None else _completed(newest, record(self._row(listed)))

    def counts(self) -> Counts | None:
        listed = self.progress.listed
        return counts_in(self.tail) or (counts_in(listed) if listed is not None else None)

    def moved(self) -> BytesMoved | None:
        """Bytes of both directions."""
        listed = self.progress.listed
        return moved_in(self.tail) or (moved_in(listed) if listed is not None else None)

    def total(self) -> int | None:
        """Bytes of both directions together."""
        moved = self.moved()
        return None if moved is None else moved[0] + moved[1]

    def packets(self) -> int | None:
        counts = self.counts()
        return None if counts is None else counts.original_packets + counts.reply_packets

    def rate(self) -> float | None:
        """Smoothed bytes a second of both directions; None until two samples of the counters are there."""
        rates = self.known_rates
        return None if rates is None else rates[0] + rates[1]

    def birth(self) -> float:
        """When it was born, or, where ``knows_age`` is False, when it was seen first.

        delta-time is in whole seconds: a listing's says when it was born at the latest, and the earliest of all counts.
        """
        if not self.progress.exact and (delta := _DELTA.search(self.progress.listed or self.tail)):
            return min(self.born, self.sampled - int(delta.group(1)))
        return self.born

    def age(self, now: float) -> float:
        """Seconds since its birth, or, where ``knows_age`` is False, at least that many.

        A closed flow's age is its duration.
        """
        return max(0.0, (now if self.ended is None else self.ended) - self.birth())

    def knows_age(self) -> bool:
        return self.progress.exact or _DELTA.search(self.progress.listed or self.tail) is not None

    def remaining(self, now: float) -> int | None:
        """Seconds until the kernel forgets it if nothing more comes."""
        if self.timeout is None or self.ended is not None:
            return None
        return max(0, round(self.timeout - (now - self.last_seen.at)))

    def idle(self, now: float, timeouts: Mapping[str, int]) -> float | None:
        """Seconds since its last packet: the timeout of its state less the time left.

        None where Unknown: without the state's timeout (see parse.TIMEOUTS), in a flowtable, with a timeout of
        its own, and of a TCP flow whose time may have been shortened because data was sent again.
        """
        if (left := self.remaining(now)) is None:
            return None
        number = self.group.kind.number
        if (state := self.group.state) is not None:
            whole = timeouts.get(TIMEOUT_OF_STATE.get((number, state), ""))
        else:
            whole = timeouts.get(TIMEOUTS_WITHOUT_STATE.get(number, GENERIC_TIMEOUTS)["ASSURED" in self.flags()])
        if whole is None or left > whole:
            return None
        if number == TCP and left <= max([timeouts.get(name, 300) for name in RESENT_TIMEOUTS]) < whole:
            return None
        # The timeout may have been made longer since.
        return min(whole - left, now - self.born) if self.progress.exact else whole - left

    @property
    def offloaded(self) -> bool:
        """Is it in a flowtable? Its packets then pass by the connection table, and may not be counted."""
        return b"OFFLOAD]" in self.tail and b"OFFLOAD]" in without_userspace(self.tail)

    @property
    def known_rates(self) -> tuple[float, float] | None:
        """Its rates, where they are known: of an offloaded flow nothing may be counted, so that 0 says nothing."""
        rates = self.progress.rates
        return None if rates is IDLE and self.offloaded else rates

    def status(self) -> str:
        """The state; for protocols without one the flag that says most; "" where there is neither."""
        return self.group.state or self.flag()

    def flag(self) -> str:
        """The flag that says most; "" without one."""
        flags = self.flags()
        return next((flag for flag in ("HW_OFFLOAD", "OFFLOAD", "UNREPLIED", "ASSURED") if flag in flags), "")

    def flags(self) -> list[str]:
        return [flag.decode() for flag in _FLAG.findall(without_userspace(self.tail))]

    def mark(self) -> int:
        found = _MARK.search(without_userspace(self.tail))
        return int(found.group(1)) if found else 0

    def zones(self) -> list[int]:
        return [int(word.rpartition(b"=")[2]) for word in self.key.partition(b"|")[2].split(b"|") if word]

    def ends(self) -> Ends:
        src, dst, sport, dport = _pair(self.original)
        if is_turned(self.tail):
            return Ends(src, dst, sport, dport, dst, src, dport, sport)
        reply_src, reply_dst, reply_sport, reply_dport = _pair(without_userspace(self.tail))
        if self.kind.number in ICMP:  # the initiator chose the id; NAT may change it as it changes a source port
            dport = reply_sport = None
        return Ends(src, dst, sport, dport, reply_src, reply_dst, reply_sport, reply_dport)


def _pair(text: bytes) -> tuple[str, str, int | None, int | None]:
    """Addresses and ports of the first tuple in ``text``; an ICMP id or GRE key stands where a port would."""
    match = _TUPLE.search(text)
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


def _head_text(kind: Kind) -> bytes:
    family = f"{kind.family:<8} {_FAMILY_NUMBERS.get(kind.family, '0')} " if kind.family else ""
    return f"{family}{kind.protocol:<8} {kind.number} ".encode()


LISTED_ONLY = ("mark", "secmark", "secctx", "delta_time", "start", "helper", "use", "id", "labels")


def _completed(newest: Record, listed: Record) -> Record:
    """The newest record with what only the listing said."""
    more = {name: getattr(listed, name) for name in LISTED_ONLY if getattr(newest, name) is None}
    original, reply = _counted_as(newest.original, listed.original), _counted_as(newest.reply, listed.reply)
    return replace(newest, original=original, reply=reply, **more)


def _counted_as(mine: Tuple, theirs: Tuple) -> Tuple:
    return mine if mine.packets is not None else replace(mine, packets=theirs.packets, bytes=theirs.bytes)


TapeLine = tuple[float, str, Flow, str | None]  # the fields of a TapeEvent, as the tape has them


class TapeEvent(NamedTuple):
    """An event of the tape."""

    at: float  # on the source's clock
    event: str
    flow: Flow
    state: str | None  # the flow's state then


def tape_events(table: AnyTable) -> list[TapeEvent]:
    """The tape, the newest last."""
    return [TapeEvent(*event) for event in table.tape]


Found = tuple[str, Flow, Parts]  # what a line tells that was not known: "list" or the event, the flow, the line
_FLOW_OF: Callable[[Found], Flow] = itemgetter(1)


# --- traffic ----------------------------------------------------------------------------------------------------------

FINE = 1024  # parts of a byte: sums of whole numbers come back to 0 exactly
IN, OUT = 0, 1


class Traffic:
    """Bytes a second in and out of all flows: the sum of the live flows' rates, and what none of these rates tells.

    No rate tells of the first packets of a flow that is too young to have a rate, nor of the last ones before its end.
    """

    def __init__(self) -> None:
        self._rates = [0, 0]  # sums of the flows' rates, in 1/FINE bytes a second
        self._untold = [0, 0]  # bytes since the newest complete listing that no rate tells of
        self._untold_rates: tuple[float, float] | None = None  # the same in the interval before it, a second
        self.moved = [0, 0]  # bytes in and out that counters have shown to move since the table was made

    def change(
        self, inbound: bool | None, before: tuple[float, float] | None, after: tuple[float, float] | None
    ) -> None:
        """The rates of a live flow, original and reply, have changed; None: it has none."""
        original = reply = 0
        if before is not None:
            original, reply = -int(before[0] * FINE), -int(before[1] * FINE)
        if after is not None:
            original += int(after[0] * FINE)
            reply += int(after[1] * FINE)
        self._rates[not inbound] += original
        self._rates[bool(inbound)] += reply

    def add(self, inbound: bool | None, original: float, reply: float) -> None:
        """A flow has moved so many bytes, and its rates do not tell of them."""
        self._untold[not inbound] += round(original)
        self._untold[bool(inbound)] += round(reply)

    def count(self, inbound: bool | None, original: int, reply: int) -> None:
        """A flow's counters have gone up by so many bytes: that is in its rates, or will be added apart from them."""
        self.moved[not inbound] += original
        self.moved[bool(inbound)] += reply

    def end_interval(self, seconds: float | None, counted: bool, any_flows: bool) -> None:
        """A complete listing has ended, ``seconds`` after the one before (None: it is the first).

        ``counted``: it had counters. Without counters nothing is known; without flows nothing moves.
        """
        if seconds is not None and seconds > 0 and (counted or any(self._untold)):
            self._untold_rates = self._untold[0] / seconds, self._untold[1] / seconds
        elif any_flows and not counted:
            self._untold_rates = None
        elif self._untold_rates is not None:
            self._untold_rates = IDLE
        self._untold = [0, 0]

    def rate(self, way: int) -> float | None:
        """Bytes a second, ``way`` IN or OUT; None before the second complete listing, and where nothing is counted."""
        return None if self._untold_rates is None else self._rates[way] / FINE + self._untold_rates[way]


# --- the table --------------------------------------------------------------------------------------------------------

# The kernel's default maximum is 262,144. Four times that bounds the memory for a recording that only opens flows.
MAX_LIVE = 1_048_576
MAX_CLOSED = 50_000
PAST = 10_000
HISTORY = 60  # seconds of the events sparkline
TAPE = 20_000  # events kept for a flow's "life so far"
SMOOTHING = 3.0  # time constant of the smoothed rates, seconds
SHORTEST_INTERVAL = 1.0  # seconds: one packet within less makes a first rate that was never there
FINISHED = {"TIME_WAIT", "CLOSE", "LAST_ACK"}
_ZONES = re.compile(rb"(?:^| )(zone(?:-orig|-reply)?=[1-9]\d{0,4})(?= |$)")
_ID = re.compile(rb" id=(\d{1,10})(?= labels|$)")


REORDERED = 64  # places that a line may have moved on within a listing, by flows that are gone


class Order:
    """The lines of a listing: what each said but for its timeout, and the flow, None where it must be read again."""

    def __init__(self) -> None:
        self.marks = array("q")  # hashes: 8 bytes a flow; keeping the texts took 250
        self.flows: list[Flow | None] = []

    def go_on(self, before: Order, at: int, generation: int, limit: int) -> None:
        """A listing was broken off: behind its lines follow those of the one before it from ``at`` on.

        Without them, the listing after it had to read 100,000 lines anew, which took 2 s. A flow that was seen since
        the listing began (``generation``) may have another text now. ``limit``: of lines, where every listing fails.
        """
        end = at + max(0, limit - len(self.marks))
        self.marks += before.marks[at:end]
        self.flows += [
            flow if flow is not None and flow.last_seen.generation != generation else None
            for flow in before.flows[at:end]
        ]


class FlowTable:
    """All flows. Feed it rows; read ``live`` and ``closed``; call ``tick`` about once a second.

    ``on_new`` hears of each flow of which the kernel says that it begins, ``on_closed`` of each that ends,
    ``on_inferred`` where only a listing showed that. ``on_show``: somebody looks at flows that have ended and
    at the tape; ``taped``: at the tape; ``tape``: that of several tables which are shown as one; ``totals``: at rates
    in and out, or at what moved. A pipe needs none of these, which saves 5 of 25 us an event.
    """

    def __init__(
        self,
        linger: float = 5.0,
        own: Set[str] = frozenset(),
        limit: int = MAX_LIVE,
        past: int = PAST,
        on_inferred: Callable[[Flow], None] | None = None,
        shortest: float = SHORTEST_INTERVAL,
        on_show: bool = True,
        taped: bool = False,
        totals: bool = True,
        on_closed: Callable[[Flow], None] | None = None,
        on_new: Callable[[Flow], None] | None = None,
        tape: deque[TapeLine] | None = None,
    ) -> None:
        self.live: dict[bytes, Flow] = {}
        self.closed, self.past = deque[Flow](), deque[Flow](maxlen=past if on_show else 0)  # past: for the NAT view
        self.linger, self.limit, self.own = linger if on_show else 0.0, limit, own
        self.timeouts: dict[str, int] = {}  # the kernel's, see parse.TIMEOUTS
        self._own_told, self._addresses = own, KnownAddresses(own)
        self.generation, self.listing, self.node = 0, False, ""
        # Complete listings; flows that began since the listing before the newest, and no event said so.
        self.listings = self.unannounced = 0
        self.listed_at: float | None = None  # when the newest complete listing ended
        self.since: float | None = None  # when the first listing began, or the first event came
        self.watched_since: float | None = None  # since when births are heard of; None: nobody hears of any
        self.events, self.heard = 0, dict.fromkeys(EVENTS.values(), 0)  # all that were taken in; by what they are
        self.overflow, self.counted = 0, False  # flows dropped for want of room; the newest listing had counters
        self.history: deque[float] = deque(maxlen=HISTORY)  # events a second, a value a second
        self.tape = deque[TapeLine](maxlen=TAPE if on_show or taped else 0) if tape is None else tape
        self._on_inferred, self._on_closed, self._on_new = on_inferred, on_closed, on_new
        self._began = self._in_step_at = 0.0  # when the newest listing began, and the newest one that was in step
        self._gone: dict[bytes, list[bytes]] = {}  # by key, the texts of flows whose DESTROY came while a listing ran
        self._shortest, self._totals = shortest, totals
        self._pause = math.inf  # seconds from the end of the complete listing before to the beginning of the newest one
        self.traffic, self._last_seen = Traffic(), LastSeen(0.0, 0)
        self._ticked: float | None = None
        self._ticked_events, self._counters_seen = 0, False
        self._groups: dict[bytes, Group] = {}  # by head and state: the parser knows about 1,000 of them
        self._order, self._new_order, self._at = Order(), Order(), 0

    @property
    def facts(self) -> Mapping[str, NodeFacts]:
        """How each of several nodes is doing, see ``FlowTables``."""
        return {}

    def know_own(self, addresses: Set[str]) -> None:
        """This host's own addresses, as they are now."""
        if addresses != self._own_told:  # the same ones again would empty what is remembered about each
            self._own_told, self.own = addresses, own_addresses_of(addresses)
            self._addresses = KnownAddresses(self.own)

    def know_node(self, node: str) -> None:
        """The name of the machine whose table this is."""
        self.node = node
        for group in self._groups.values():
            group.node = node

    def know_timeouts(self, facts: Mapping[str, int]) -> None:
        """The kernel's timeouts, as they are now."""
        self.timeouts = {name: facts[name] for name in TIMEOUTS if name in facts}

    def watch(self, now: float) -> None:
        """From now on births are heard of."""
        if self.watched_since is None:
            self.watched_since = now
            self.since = now if self.since is None else self.since

    def keeps_since(self, now: float, history: bool) -> float | None:
        """Since when flows are known that have ended; None before anything was heard.

        ``history``: also those that linger no longer, as many as are kept.
        """
        if self.since is None:
            return None
        kept, most = (self.past, self.past.maxlen) if history else (self.closed, MAX_CLOSED)
        since = self.since if history else max(self.since, now - self.linger)
        if len(kept) < (most or 0):
            return since
        return max(since, (kept[0].ended if kept else None) or now)

    def watch_no_longer(self) -> None:
        """Nobody listens to events, or the kernel sends none."""
        self.watched_since = None

    def watched(self, now: float) -> float | None:
        """For how many seconds births have been heard of; None: nobody hears of any."""
        return None if self.watched_since is None else max(0.0, now - self.watched_since)

    # --- rows in ------------------------------------------------------------------------------------------------------

    def _group(self, head: bytes, state: bytes) -> Group:
        group = self._groups.get(head + state)
        if group is None:
            name = state[:-1].decode("ascii", "replace") or None
            group = Group(kind_of(head), name, head + state, self.node)
            self._groups[head + state] = group
        return group

    def find(self, row: Parts) -> Flow | None:
        """The live flow that a line is about."""
        return self.live.get(key_of(self._group(row[HEAD], row[STATE]).prefix, row[ORIGINAL], tail_of(row)))

    def event(self, row: Parts, now: float) -> Flow:
        """Take in one event; returns the flow it is about, as it is afterwards."""
        _, tag, head, timeout, state, original, _, _, _, _, before, turned, after = row
        tail = before + turned + after
        group = self._groups.get(head + state) or self._group(head, state)
        key = key_of(group.prefix, original, tail) if b"zone" in tail else group.prefix + original
        self.events += 1
        if self.watched_since is None:
            self.watch(now)
        flow, name = self.live.get(key), EVENTS.get(tag, "update")
        self.heard[name] += 1
        if name == "destroy":
            flow = self._destroy(flow, key, group, timeout, state, tail, now)
            self.tape.append((now, name, flow, flow.group.state))
            return flow
        if flow is not None and self._is_another(flow, name, tail):
            self._close(flow, now, inferred=True)  # its NEW reports it already
            flow = None
        if flow is None:
            flow = self._open(key, group, now, name == "new")
        else:
            if name == "new":  # the listing came before the event
                if flow.progress.inbound is None and (moved := flow.moved()):  # no difference was counted so far
                    self._since(flow, (0, 0), moved)
                flow.progress = shared_progress(flow.progress._replace(exact=True))
            _keep_listed(flow)
        flow.tail = tail
        self._stamp(flow, group if state else flow.group, timeout, now)
        self.tape.append((now, name, flow, flow.group.state))
        if name == "new" and self._on_new is not None:
            self._on_new(flow)
        return flow

    def _is_another(self, flow: Flow, name: str, tail: bytes) -> bool:
        """Is the event about another flow, which has taken the place of the known one?"""
        if _differ(flow.tail, tail):
            return True
        return name == "new" and (flow.exact or flow.born < self._in_step_at)

    def _destroy(
        self, flow: Flow | None, key: bytes, group: Group, timeout: bytes, state: bytes, tail: bytes, now: float
    ) -> Flow:
        if self.listing:
            self._gone.setdefault(key, []).append(tail)
        if flow is not None and _differ(flow.tail, tail):
            # The end is of its predecessor, or of its successor. If it lives, the listing that runs names it.
            flow = None
        if flow is None:
            return self._bury_unknown(key, group, timeout, tail, now)
        if self._totals and (after := moved_in(tail)):
            self._add_rest(flow, after, now)
        _keep_listed(flow)
        flow.tail = tail
        if flow.progress.listed is None and b"delta-time=" in tail:
            flow.sampled = now  # its delta-time is of now
        self._stamp(flow, group if state else flow.group, timeout, now)
        self._close(flow, now, inferred=False)
        return flow

    def _add_rest(self, flow: Flow, after: BytesMoved, now: float) -> None:
        """A flow ends with so many bytes. What its rate has told of is not told again: no bump is left behind."""
        before = flow.moved() or ((0, 0) if flow.exact else None)
        if before is None:
            return
        (original, reply), rates, spent = self._since(flow, before, after), flow.rates or IDLE, now - flow.sampled
        rest = max(0.0, original - rates[0] * spent), max(0.0, reply - rates[1] * spent)
        self.traffic.add(flow.progress.inbound, *rest)

    def begin_listing(self, now: float, in_step: bool = True) -> None:
        """A listing starts: what it and events name from now on belongs to it.

        ``in_step``: all events from before had been read, so that no NEW to come is of a flow that was listed before.
        """
        self._order, self._new_order, self._at = Order() if self.listing else self._order, Order(), 0
        self.generation += 1
        self.listing = True
        self._began = now
        self._in_step_at = now if in_step else self._in_step_at
        self._pause = math.inf if self.listed_at is None else now - self.listed_at
        self.since = now if self.since is None else self.since
        self._gone.clear()
        self._counters_seen = False

    def listed(self, row: Parts, now: float) -> Flow | None:
        """Take in one line of a listing; returns the flow if only this listing knew of it."""
        state, tail = row[STATE], tail_of(row)
        group = self._group(row[HEAD], state)
        key = key_of(group.prefix, row[ORIGINAL], tail)
        if key in self._gone and not all(_differ(ended, tail) for ended in self._gone[key]):
            return None  # the line may be older than the flow's DESTROY
        counted = has_counters(row)
        self._counters_seen = self._counters_seen or counted
        flow = self.live.get(key)
        found = None
        if flow is not None and flow.tail != tail:
            if _differ(flow.tail, tail):
                self._close_unseen(flow, now)
                flow = None
            else:
                self._sample(flow, tail, now)
        elif flow is not None:
            self._set_idle(flow, now, counted)
        if flow is None:
            found = flow = self._open(key, group, now, False)
            flow.tail = tail
        self._stamp(flow, group if state else flow.group, row[TIMEOUT], now)
        return found

    def listed_all(self, rows: Iterable[Parts], now: float, news: list[Found] | None = None) -> None:
        """What ``listed`` does, for all lines of a block and three times as fast; the block may hold events, too.

        Almost all lines take a short way: the flow was never seen before, only its timeout is new, or it has moved
        something.
        """
        live, gone, last_seen = self.live, self._gone, self._seen(now)
        group_of, flow_of, counters_seen = self._groups.get, self.live.get, self._counters_seen
        for row in rows:
            _stamp, tag, head, timeout, state, original, _, _, _, _, before, turned, after = row
            group = group_of(head + state)
            tail = before + turned + after
            if group is not None and timeout and not tag and b"zone" not in tail:
                key = group.prefix + original
                flow = flow_of(key)
                if flow is None:
                    if key not in gone and len(live) < self.limit:
                        flow = live[key] = Flow(key, group, now, FIRST_LISTED, last_seen, tail, int(timeout))
                        group.number += 1
                        counters_seen = counters_seen or has_counters(row)
                        if news is not None:
                            news.append(("list", flow, row))
                        continue
                elif flow.group is group and key not in gone:
                    counted = has_counters(row)
                    if self._goes_on(flow, tail, now, counted):
                        flow.timeout = int(timeout)
                        flow.last_seen = last_seen
                        counters_seen = counters_seen or counted
                        continue
            found = self.event(row, now) if tag else self.listed(row, now)
            if news is not None and found is not None:
                news.append((EVENTS[tag] if tag else "list", found, row))
        self._counters_seen = self._counters_seen or counters_seen

    def _goes_on(self, flow: Flow, tail: bytes, now: float, counted: bool) -> bool:
        """Take in the text of a line about a known flow, if it says nothing but what the flow has moved."""
        if flow.tail != tail:
            if _differ(flow.tail, tail):
                return False
            self._sample(flow, tail, now)
            return True
        rates = flow.progress.rates
        if rates is None and counted and flow.progress is FIRST_LISTED and now - flow.sampled >= self._shortest:
            flow.progress, rates = AT_REST, IDLE
        if rates is IDLE or (rates is None and not counted):
            flow.sampled = now
            return True
        return False

    def listed_again(self, cuts: Sequence[Cut], now: float) -> list[int]:
        """Take in the lines of a listing that say what the listing before it said, but for the timeout.

        Returns where the other lines are. They go to ``listed_all``, then to ``remember``. conntrack lists buckets of
        flows in their order, so a line stands where it stood before, but for flows that have come or gone.
        """
        order, new, at, last_seen = self._order, self._new_order, self._at, self._seen(now)
        marks, flows, others, known = order.marks, order.flows, [], b""
        for number, (head, timeout, after, _) in enumerate(cuts):
            mark, flow = hash((head, after)), None
            if head and at < len(flows):
                try:
                    at = marks.index(mark, at, at + REORDERED) + 1
                    flow = flows[at - 1]
                    flow = flow if flow is not None and self._rests(flow, after, now) else None
                except ValueError:
                    flow = flows[at]
                    flow = flow if flow is not None and self._moves(flow, head + after, now) else None
                    at += flow is not None
            if flow is not None:
                flow.timeout, flow.last_seen, flow.sampled = int(timeout), last_seen, now
                known = after
            else:
                others.append(number)
            new.marks.append(mark)
            new.flows.append(flow)
        self._at = at
        self._counters_seen = self._counters_seen or b" packets=" in known
        return others

    def _rests(self, flow: Flow, text: bytes, now: float) -> bool:
        """Was this the newest text of the flow, so that nothing moved? Then its rates are 0 from now on."""
        its = flow.progress
        if its.listed is not None or its.ended is not None:
            return False
        if its.rates is IDLE or (its.rates is None and b" packets=" not in text):
            return True
        if its is FIRST_LISTED and now - flow.sampled >= self._shortest:
            flow.progress = AT_REST
            return True
        return False

    def _moves(self, flow: Flow, line: bytes, now: float) -> bool:
        """Does a line say of a flow what is known of it, but for the counters? Then they are taken in.

        ``line``: without its timeout. It takes a third of the time of ``listed_all``; 40,000 of 200,000 flows move.
        """
        its, tail, begin, plain = flow.progress, flow.tail, flow.group.begin + flow.original, flow.plain
        if its.listed is not None or its.ended is not None or not line.startswith(begin) or b"delta-time=" in tail:
            return False
        there = _COUNTERS.split(line[len(begin) :])
        known = _COUNTERS.split(with_reply(flow.original, tail) if plain else tail)
        if len(there) != len(known) or len(known) != _PIECES or there[::3] != known[::3]:
            return False
        self._count(flow, (int(known[2]), int(known[5])), (int(there[2]), int(there[5])), now)
        kept = _COUNTERS.split(tail) if plain else known
        kept[1:3], kept[4:6] = there[1:3], there[4:6]
        flow.tail = _COUNTED_TEXT % tuple(kept)
        return True

    def remember(self, others: Sequence[int], rows: Sequence[Parts], number: int, news: Sequence[Found]) -> None:
        """The flows of the lines that ``listed_again`` left over, of ``number`` lines in all, for the next listing.

        ``news``: as ``listed_all`` filled it. Of a first listing it has all flows, and none is looked for.
        """
        flows = self._new_order.flows
        found: Iterable[Flow | None] = map(_FLOW_OF, news) if len(news) == len(rows) else map(self.find, rows)
        for at, row, flow in zip(others, rows, found, strict=True):
            tail = tail_of(row)
            # With use= an event's text, which lacks it, is told from the listing's (see ``_keep_listed``).
            if flow is not None and flow.tail == tail and b" use=" in tail:
                flows[at - number] = flow

    def life(self, flow: Flow) -> list[tuple[float, str, str | None]]:
        """The flow's events as far as the tape goes back: time, event, state then."""
        return life_on(self.tape, flow)

    def gone(self, row: Parts, now: float) -> None:
        """A listing that somebody else read has shown that a flow is gone; ``row``: all that was known of it."""
        state, tail = row[STATE], tail_of(row)
        group = self._group(row[HEAD], state)
        key = key_of(group.prefix, row[ORIGINAL], tail)
        flow = self.live.get(key)
        if flow is not None and not _differ(flow.tail, tail):
            flow.tail = tail
            self._set(flow, listed=None)
            self._stamp(flow, group if state else flow.group, row[TIMEOUT], now)
            self._close_unseen(flow, now)
            return
        flow = self._bury_unknown(key, group, row[TIMEOUT], tail, now, inferred=True)
        if self._on_inferred:
            self._on_inferred(flow)

    def end_listing(self, complete: bool, now: float) -> None:
        """A listing ended. A complete one sweeps: what it did not name is gone."""
        self.listing = False
        self._gone.clear()
        if not complete:
            self._new_order.go_on(self._order, self._at, self.generation, self.limit)
        self._order, self._new_order = self._new_order, Order()
        if not complete:
            return
        gone = [flow for flow in self.live.values() if flow.last_seen.generation != self.generation]
        for flow in gone:
            self._close_unseen(flow, now)
        new = takewhile(lambda flow: flow.born >= self._began, reversed(self.live.values()))
        self.unannounced = sum(not flow.progress.exact for flow in new) if self.listings else 0
        self.listings += 1
        self.counted = self._counters_seen
        self.traffic.end_interval(
            None if self.listed_at is None else now - self.listed_at, self.counted, bool(self.live)
        )
        self.listed_at = now

    def tick(self, now: float) -> None:
        """The time is ``now``: closed flows leave after ``linger`` seconds, and the history of events moves on."""
        while self.closed and now - (self.closed[0].progress.ended or 0.0) >= self.linger:
            self.closed.popleft()
        if self._ticked is None or now < self._ticked:
            self._ticked, self._ticked_events = now, self.events
            return
        seconds = math.floor(now - self._ticked)
        if seconds >= 1:
            rate = (self.events - self._ticked_events) / seconds
            self.history.extend([rate] * min(seconds, HISTORY))
            self._ticked += seconds
            self._ticked_events = self.events

    # --- inside -------------------------------------------------------------------------------------------------------

    def _seen(self, now: float) -> LastSeen:
        seen = self._last_seen
        if seen.at != now or seen.generation != self.generation:
            seen = self._last_seen = LastSeen(now, self.generation)
        return seen

    def _open(self, key: bytes, group: Group, now: float, exact: bool) -> Flow:
        if len(self.live) >= self.limit:
            # An eighth at once: each search for the first entry of a dict walks over the holes of all removed ones.
            for old in list(islice(self.live.values(), max(1, self.limit // 8))):
                self.overflow += 1
                self._close(old, now, inferred=True)
        flow = self.live[key] = Flow(key, group, now, SEEN_NEW if exact else FIRST_LISTED, self._seen(now))
        group.number += 1
        return flow

    def _stamp(self, flow: Flow, group: Group, timeout: bytes, now: float) -> None:
        """Note the state and the timeout of a line, and that the flow (a live one) was seen now."""
        if timeout:
            flow.timeout = int(timeout)
        elif b"OFFLOAD]" in flow.tail:
            flow.timeout = None  # a flow in a flowtable does not expire (dumps leave the timeout out)
        flow.last_seen = self._seen(now)
        if flow.group is not group:
            flow.group.number -= 1
            group.number += 1
            flow.group = group

    def _close(self, flow: Flow, now: float, inferred: bool) -> None:
        del self.live[flow.key]
        flow.group.number -= 1
        its = flow.progress
        flow.progress = Progress(None, its.inbound, its.exact, its.listed, its.resting, its.begun, now, inferred)
        if its.rates is not None:
            self.traffic.change(its.inbound, its.rates, None)
        self._bury(flow)

    def _close_unseen(self, flow: Flow, now: float) -> None:
        """Only a listing showed that the flow is gone."""
        self._close(flow, now, inferred=True)
        if self._on_inferred:
            self._on_inferred(flow)

    def _bury_unknown(
        self, key: bytes, group: Group, timeout: bytes, tail: bytes, now: float, inferred: bool = False
    ) -> Flow:
        """Of a flow only the end was heard."""
        its, left = FIRST_LISTED._replace(ended=now, inferred=inferred), int(timeout) if timeout else None
        flow = Flow(key, group, now, its, self._seen(now), tail, left)
        self._bury(flow)
        return flow

    def _bury(self, flow: Flow) -> None:
        self.past.append(flow)
        if self._on_closed is not None:
            self._on_closed(flow)
        if self.linger <= 0:
            return
        if len(self.closed) >= MAX_CLOSED:
            self.closed.popleft()
        self.closed.append(flow)

    def _set_idle(self, flow: Flow, now: float, counted: bool) -> None:
        """A listing brought the same text again: nothing moved."""
        if flow.rates is not IDLE and counted:
            self._rate(flow, 0, 0, now)
        flow.sampled = now

    def _sample(self, flow: Flow, tail: bytes, now: float) -> None:
        """A listing brought other text: new counters, a new rate."""
        if b"delta-time=" in tail:
            flow.born = flow.birth()
        after, before = moved_in(tail), flow.moved()
        if after is not None and before is not None:
            self._count(flow, before, after, now)
        elif after is not None and flow.exact:
            self._rate_newborn(flow, *self._since(flow, (0, 0), after), now)
        flow.tail = tail
        if flow.progress.listed is not None:
            self._set(flow, listed=None)
        flow.sampled = now

    def _count(self, flow: Flow, before: BytesMoved, after: BytesMoved, now: float) -> None:
        """A listing brought these counters where those were known."""
        self._rate(flow, *self._since(flow, before, after), now)

    def _rate(self, flow: Flow, original: int, reply: int, now: float) -> None:
        """So many bytes have moved since the listing before: set the flow's rates."""
        progress, spent = flow.progress, now - flow.sampled
        if spent <= 0:
            self.traffic.add(progress.inbound, original, reply)
            return
        moved = original or reply
        if progress.rates is IDLE and not moved:
            return
        if progress.rates is not None:
            # A flow that has finished sends nothing more. One that rested between three listings has stopped, too:
            # the curve alone still showed 1/50 after 12 s.
            stops = flow.state in FINISHED or (progress.resting and spent >= self._shortest)
            rates = _smoothed(progress.rates, original / spent, reply / spent, spent) if moved or not stops else IDLE
            self._set_rates(flow, rates, resting=not moved and rates is not IDLE)
            return
        begun, before, before_back = progress.begun or (flow.sampled, 0, 0)
        if now - begun >= self._shortest:
            spent = now - begun
            self._set_rates(flow, _smoothed(None, (before + original) / spent, (before_back + reply) / spent, spent))
        else:
            self.traffic.add(progress.inbound, original, reply)
            self._set(flow, begun=(begun, before + original, before_back + reply))

    def _rate_newborn(self, flow: Flow, original: int, reply: int, now: float) -> None:
        """Its first counters. One packet listed 1 ms after its NEW is no 1.4 MB/s: less than a pause is no interval."""
        spent = now - flow.sampled
        if spent >= max(self._pause, self._shortest):
            self._set_rates(flow, _smoothed(None, original / spent, reply / spent, spent))
        else:
            self.traffic.add(flow.progress.inbound, original, reply)

    def _set_rates(self, flow: Flow, rates: tuple[float, float], resting: bool = False) -> None:
        """What ``_set`` does, for a live flow: a listing may change 40,000 rates, and this takes 2 us less for each."""
        before = flow.progress
        after = Progress(rates, before.inbound, before.exact, before.listed, resting)
        flow.progress = shared_progress(after) if rates is IDLE else after
        self.traffic.change(before.inbound, before.rates, rates)

    def _set(self, flow: Flow, **changes: Any) -> None:
        """Change a flow's progress; the sums of all rates go with it."""
        before = flow.progress
        after = flow.progress = shared_progress(before._replace(**changes))
        if after.rates is not before.rates:
            self.traffic.change(after.inbound, before.rates, after.rates)

    def _since(self, flow: Flow, before: BytesMoved, after: BytesMoved) -> BytesMoved:
        """The bytes of both directions between two samples; which of them come in is known from the first on."""
        if flow.progress.inbound is None:
            self._set(flow, inbound=self._is_inbound(flow))
        # `conntrack -L -z` resets them
        original, reply = max(0, after[0] - before[0]), max(0, after[1] - before[1])
        self.traffic.count(flow.progress.inbound, original, reply)
        return original, reply

    def _is_inbound(self, flow: Flow) -> bool:
        """Was it opened from the far side? Most flows are told without all of their ends."""
        src, dst = flow.addresses()
        reply = None if is_turned(flow.tail) else _REPLY.search(flow.tail)
        comes_in = self._addresses.inbound(src, reply.group(1) if reply else dst)
        if comes_in is not None or reply is None:
            return bool(comes_in)
        if reply.group(1) == dst and reply.group(2) in (None, flow.ports()[1]):
            return False  # no DNAT
        return inbound_by_nat(flow.ends())

    # --- out ----------------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Flow]:
        """Live flows, then closed ones that still linger."""
        yield from self.live.values()
        yield from self.closed

    def live_flows(self) -> list[Flow]:
        return list(self.live.values())

    def living(self, flow: Flow) -> Flow | None:
        """The live flow that has the key of this one, which may be the flow itself."""
        return self.live.get(flow.key)

    def advance(self, context: Context, now: float) -> None:
        """Tell a context the time, and what is known of this machine by now."""
        context.advance(now, self.own, self.timeouts)

    def __len__(self) -> int:
        return len(self.live)

    @property
    def rate_in(self) -> float | None:
        """Bytes a second that come in: the live flows' rates, and what came with flows too short to have one.

        None before the second complete listing, and where nothing is counted.
        """
        return self.traffic.rate(IN)

    @property
    def rate_out(self) -> float | None:
        return self.traffic.rate(OUT)

    @property
    def counts(self) -> dict[tuple[str, str], int]:
        """Live flows by (protocol, state); state "" where it has none."""
        totals: Counter[tuple[str, str]] = Counter()
        for group in self._groups.values():
            if group.number:
                totals[group.kind.protocol, group.state or ""] += group.number
        return dict(totals)

    def by_protocol(self) -> list[tuple[str, int]]:
        """Live flows by protocol, most first."""
        return most_common_of(self.counts, 0)

    def by_state(self) -> list[tuple[str, int]]:
        return most_common_of(self.counts, 1)


def life_on(tape: Iterable[TapeLine], flow: Flow) -> list[tuple[float, str, str | None]]:
    """What a tape has of a flow: time, event, state then."""
    return [(at, name, state) for at, name, other, state in tape if other is flow]


def most_common_of(counts: Mapping[tuple[str, str], int], part: int) -> list[tuple[str, int]]:
    """Flows by protocol (``part`` 0) or by state (1), most first. ``counts``: see ``FlowTable.counts``."""
    totals: Counter[str] = Counter()
    for key, number in counts.items():
        if key[part]:
            totals[key[part]] += number
    return totals.most_common()


# --- several tables as one --------------------------------------------------------------------------------------------


LIVE, GONE, BEGINS, LATE_NODE, REPLAYED = "live", "stale", "reading", "behind", "replay"  # how a node is doing


class NodeFacts(NamedTuple):
    """How a node is doing, beside its flows."""

    state: str = ""  # one of the words above; "" of several together
    reason: str = ""  # why it is stale, safe to show
    entries: int | None = None  # in the kernel's table, and how many it may have
    limit: int | None = None
    events: float | None = None  # a second
    lost: int | None = None  # how often events were lost
    behind: float | None = None  # seconds by which its events are late

    @property
    def fill(self) -> float | None:
        """The share of the table that is taken."""
        return None if self.entries is None or not self.limit else self.entries / self.limit

    def and_of(self, other: NodeFacts) -> NodeFacts:
        """Both together: sums of what is known, and the longest delay."""
        events = [each.events for each in (self, other) if each.events is not None]
        lost = [each.lost for each in (self, other) if each.lost is not None]
        behind = [each.behind for each in (self, other) if each.behind is not None]
        known = [each for each in (self, other) if each.fill is not None]
        entries, limit = sum(each.entries or 0 for each in known), sum(each.limit or 0 for each in known)
        return NodeFacts(
            entries=entries if known else None,
            limit=limit if known else None,
            events=sum(events) if events else None,
            lost=sum(lost) if lost else None,
            behind=max(behind, default=None),
        )


NO_FACTS = NodeFacts()


class FlowTables:
    """The tables of several nodes, read as one. Each is fed by itself; all of them write on one tape."""

    def __init__(self, by_node: Mapping[str, FlowTable], tape: deque[TapeLine]) -> None:
        """``by_node``: more may come later; each was made with this tape."""
        self.by_node, self.tape = by_node, tape
        self.facts: Mapping[str, NodeFacts] = {}

    def know_facts(self, facts: Mapping[str, NodeFacts]) -> None:
        """How the nodes are doing now."""
        self.facts = facts

    def advance(self, context: Context, now: float) -> None:
        """What ``FlowTable.advance`` does; each node's own context knows that node's addresses."""
        own = frozenset[str]().union(*(table.own for table in self._tables))
        context.advance(now, context.own if own == context.own else own)  # another set would empty what is remembered
        for node, table in self.by_node.items():
            table.advance(context.nodes[node], now)

    def living(self, flow: Flow) -> Flow | None:
        """What ``FlowTable.living`` says."""
        table = self.by_node.get(flow.node)
        return None if table is None else table.living(flow)

    def live_flows(self) -> list[Flow]:
        return list(chain.from_iterable(table.live.values() for table in self._tables))

    def __iter__(self) -> Iterator[Flow]:
        return chain(self.live_flows(), self.closed)

    def __len__(self) -> int:
        return sum(map(len, self._tables))

    @property
    def _tables(self) -> Iterable[FlowTable]:
        return self.by_node.values()

    @property
    def closed(self) -> list[Flow]:
        return list(chain.from_iterable(table.closed for table in self._tables))

    @property
    def past(self) -> list[Flow]:
        return list(chain.from_iterable(table.past for table in self._tables))

    @property
    def events(self) -> int:
        return sum(table.events for table in self._tables)

    @property
    def listings(self) -> int:
        return sum(table.listings for table in self._tables)

    @property
    def linger(self) -> float:
        return max((table.linger for table in self._tables), default=0.0)

    @property
    def listed_at(self) -> float | None:
        """When the newest complete listing of any node ended."""
        return max((table.listed_at for table in self._tables if table.listed_at is not None), default=None)

    @property
    def since(self) -> float | None:
        """Since when all of them are watched."""
        return self._latest([table.since for table in self._tables])

    @property
    def watched_since(self) -> float | None:
        """Since when births are heard of wherever they are; None where that is nowhere."""
        return self._latest([table.watched_since for table in self._tables])

    @staticmethod
    def _latest(moments: Iterable[float | None]) -> float | None:
        return max((moment for moment in moments if moment is not None), default=None)

    def watched(self, now: float) -> float | None:
        """What ``FlowTable.watched`` says."""
        since = self.watched_since
        return None if since is None else max(0.0, now - since)

    def keeps_since(self, now: float, history: bool) -> float | None:
        """What ``FlowTable.keeps_since`` says."""
        return self._latest([table.keeps_since(now, history) for table in self._tables])

    @property
    def history(self) -> list[float]:
        """Events a second of all, the newest last."""
        rows = [list(table.history)[::-1] for table in self._tables]
        return [sum(values) for values in zip_longest(*rows, fillvalue=0.0)][::-1]

    @property
    def rate_in(self) -> float | None:
        """The sum of those that are known now: the rates of a stale node are those of then."""
        return self._sum_of([table.rate_in for table in self._fresh])

    @property
    def rate_out(self) -> float | None:
        return self._sum_of([table.rate_out for table in self._fresh])

    @property
    def _fresh(self) -> list[FlowTable]:
        return [table for node, table in self.by_node.items() if self.facts.get(node, NO_FACTS).state != GONE]

    @staticmethod
    def _sum_of(rates: Iterable[float | None]) -> float | None:
        known = [rate for rate in rates if rate is not None]
        return sum(known) if known else None

    @property
    def counts(self) -> dict[tuple[str, str], int]:
        """What ``FlowTable.counts`` says."""
        totals: Counter[tuple[str, str]] = Counter()
        for table in self._tables:
            totals.update(table.counts)
        return totals

    def by_protocol(self) -> list[tuple[str, int]]:
        return most_common_of(self.counts, 0)

    def by_state(self) -> list[tuple[str, int]]:
        return most_common_of(self.counts, 1)

    def life(self, flow: Flow) -> list[tuple[float, str, str | None]]:
        """What ``FlowTable.life`` says."""
        return life_on(self.tape, flow)


AnyTable = FlowTable | FlowTables


def key_of(prefix: bytes, original: bytes, tail: bytes) -> bytes:
    """The key of a flow, which no other live flow has: protocol (``Group.prefix``), original tuple, zones."""
    if b"zone" in tail and (zones := _ZONES.findall(without_userspace(tail))):
        return prefix + original + b"|" + b"|".join(zones)
    return prefix + original


def id_in(tail: bytes) -> int | None:
    """The id in a flow's text behind the original tuple; None without `-o id`."""
    found = _ID.search(without_userspace(tail))
    return int(found.group(1)) if found else None


def _keep_listed(flow: Flow) -> None:
    """Keep the listing's text before an event's takes its place: an event has no counters, use, helper, delta-time."""
    if flow.progress.listed is None and (b" use=" in flow.tail or b"packets=" in flow.tail):
        flow.progress = flow.progress._replace(listed=flow.tail)


def _differ(one: bytes, other: bytes) -> bool:
    """Do two texts name different ids? The same id, or none (without `-o id`), proves nothing."""
    if one[-14:] == other[-14:]:  # " id=4294967295": the id stands last in a listing
        return False
    first, second = id_in(one), id_in(other)
    return first is not None and second is not None and first != second


def _smoothed(old: tuple[float, float] | None, original: float, reply: float, spent: float) -> tuple[float, float]:
    if old is None:
        return (original, reply) if original or reply else IDLE
    if original == reply == 0.0 and old[0] + old[1] < 1.0:  # below a byte a second the curve can't be seen
        return IDLE
    share = 1.0 - math.exp(-spent / SMOOTHING)
    return old[0] + share * (original - old[0]), old[1] + share * (reply - old[1])


# --- many flows at once -----------------------------------------------------------------------------------------------

MATCHED_AT_ONCE = 20_000  # flows whose text is joined: 2 MB

# The counters of both directions where they mostly are, at the beginning of a flow's text; else two empty groups. What
# stands between them is named: to try each of its letters for the end took as long again.
_REPLY_TUPLE = rb"src=\S+ dst=\S+ (?:sport=\d+ dport=\d+|[^\n]*?)"
BYTES, PACKETS = (
    re.compile(
        rb"^(?:(?:zone-orig=\d+ |)%b (?:\[UNREPLIED\] |)(?:=|%b) %b(?= |$)|)" % (counter, _REPLY_TUPLE, counter), re.M
    )
    for counter in (rb"packets=\d+ bytes=(\d+)", rb"packets=(\d+) bytes=\d+")
)


# What may stand before a reply tuple that is no mirror of the original one.
BEFORE_REPLY = rb"(?:zone-orig=\d+ |)(?:packets=\d+ bytes=\d+ |)(?:\[UNREPLIED\] |)"


def matched(pattern: re.Pattern[bytes], texts: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """The groups of a pattern that matches at the beginning of each text, and nowhere else in it."""
    for at in range(0, len(texts), MATCHED_AT_ONCE):
        yield from pattern.findall(b"\n".join(texts[at : at + MATCHED_AT_ONCE]))


def newest_texts(flows: Sequence[Flow]) -> list[bytes]:
    """The newest text of each flow that has its counters."""
    return [flow.tail if flow.progress.listed is None else _counted(flow) for flow in flows]


def _counted(flow: Flow) -> bytes:
    """The newest text that has counters."""
    return flow.tail if b"packets=" in flow.tail else flow.progress.listed or b""
