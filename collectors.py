"""Where flow records go: what the loop tells of flows becomes IPFIX, and sockets that never block carry it away.

Whatever a collector does, reading goes on: what it does not take waits in a queue that has an end, and what is lost is
counted and said.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct
import termios
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from addresses import Context, KnownAddresses, Site
from flows import FINISHED, TCP, Counts, Flow, FlowTable, counts_in, newest_texts
from ipfix import (
    ACTIVE_TIMEOUT,
    CREATED,
    DELETED,
    END_DETECTED,
    FORCED_END,
    IDLE_TIMEOUT,
    LEGACY,
    FlowReport,
    IpfixMessage,
    MessageStream,
    Records,
    RecordSet,
    TuplePair,
    domain_of,
)
from parse import usual
from text import clean

# --- what is told -----------------------------------------------------------------------------------------------------

REPORT_EVERY = 60.0  # seconds between two reports of a flow that goes on
ROUND_EVERY = 10.0  # seconds between two looks at all flows, so that a report is 10 s late at most
ROUND_STEP, ROUND_SLICE = 200, 0.004  # flows between two looks at the time; seconds of a round in a turn of the loop
MOST_AT_ONCE = 400  # flows that are encoded in a turn of the loop: 5 ms; an eighth of what waits, where that is more

# What was told of a flow last: the text that its counters stand in, and when they were read, by the source's clock. Of
# 200,000 flows that rest each has one. It is a plain tuple, which the garbage collector looks at once and no more.
SentCounts = tuple[bytes, float]


class _Packed(dict[bytes, bytes]):
    """Addresses as they are sent, by their text; each is packed once."""

    MOST = 200_000  # addresses that are remembered: 30 MB

    def __missing__(self, address: bytes) -> bytes:
        if len(self) >= self.MOST:
            self.clear()
        family = socket.AF_INET6 if b":" in address else socket.AF_INET
        found = self[address] = socket.inet_pton(family, address.decode())
        return found


class Translator:
    """Flows as the table has them -> the values that are sent."""

    def __init__(self, site: Site) -> None:
        self._context = Context(site=site)
        self._packed = _Packed()

    def know(self, table: FlowTable) -> None:
        """This host's addresses, as they are now."""
        self._context.advance(0.0, table.own)

    def pair(self, flow: Flow) -> tuple[TuplePair, Counts | None]:
        """Both tuples, and the counters of the newest text where it has any. Raises ValueError and OSError."""
        words = usual(flow.text)
        if words is None:
            return self._unusual(flow)
        packed = self._packed
        src, dst, sport, dport, kind, code, _, zone_orig, packets, size, _, turned, *back = words
        reply_src, reply_dst, reply_sport, reply_dport, reply_kind, reply_code, _, _, back_packets, back_size, *rest = (
            back
        )
        here, there = packed[src or b""], packed[dst or b""]
        if turned is None:
            answers, to = packed[reply_src or b""], packed[reply_dst or b""]
        else:
            answers, to, reply_sport, reply_dport = there, here, dport, sport
        values = (
            flow.group.kind.number,
            *(here, there, int(sport) if sport else None, int(dport) if dport else None),
            *(answers, to, int(reply_sport) if reply_sport else None, int(reply_dport) if reply_dport else None),
            *(None if kind is None else _icmp(kind, code), None if kind is None else _icmp(reply_kind, reply_code)),
            *(int(rest[2] or zone_orig or 0), int(rest[5]) if rest[5] else None),
        )
        its = tuple.__new__(TuplePair, values)  # half of the time of TuplePair(*values)
        if packets is None or size is None or back_packets is None or back_size is None:
            return its, None
        return its, Counts(int(packets), int(size), int(back_packets), int(back_size))

    def _unusual(self, flow: Flow) -> tuple[TuplePair, Counts | None]:
        """The same of a text with words that routers rarely print."""
        record, packed = flow.record(), self._packed
        its, back = record.original, record.reply
        icmp, reply_icmp = (None if side.type is None else side.type << 8 | (side.code or 0) for side in (its, back))
        here, there, answers, to = (packed[text.encode()] for text in (its.src, its.dst, back.src, back.dst))
        pair = TuplePair(
            *(record.kind.number, here, there, its.sport, its.dport),
            *(answers, to, back.sport, back.dport),
            *(icmp, reply_icmp, record.zone or its.zone or 0, record.id),
        )
        return pair, flow.counts()

    def outward(self, flow: Flow, its: TuplePair) -> bool | None:
        """Does its original direction leave this site? None where it goes through, and nothing tells.

        NAT tells it first: masquerading leaves, a forwarded port comes in. Then the flow's ends tell it.
        """
        snat = its.src != its.reply_dst or its.sport != its.reply_dport
        if snat != (its.dst != its.reply_src or its.dport != its.reply_sport):
            return snat
        src, dst = flow.addresses()
        answers = dst if its.reply_src == its.dst else self._text_of(its.reply_src)
        return _outward(self._context.known, src, answers)

    @staticmethod
    def _text_of(address: bytes) -> bytes:
        family = socket.AF_INET6 if len(address) == 16 else socket.AF_INET
        return socket.inet_ntop(family, address).encode()


def _icmp(kind: bytes | None, code: bytes | None) -> int | None:
    return None if kind is None else int(kind) << 8 | int(code or 0)


def _outward(known: KnownAddresses, src: bytes, answers: bytes) -> bool | None:
    way = known.direction(src, answers)
    if way in ("in", "out"):
        return way == "out"
    return known[answers].far if known[src].far != known[answers].far else None


def reason_of(flow: Flow) -> int:
    """Why a flow has ended: its flowEndReason.

    The kernel does not say it. A TCP connection that was closed before has ended; what somebody deleted (conntrack
    then prints [USERSPACE]) and what a listing no longer had was ended by others; all else ran into its timeout.
    """
    if flow.inferred or b"[USERSPACE]" in flow.tail:
        return FORCED_END
    return END_DETECTED if flow.kind.number == TCP and flow.state in FINISHED else IDLE_TIMEOUT


def moved_between(before: Counts | None, after: Counts) -> Counts:
    """What was counted between two looks. Counters that fell were reset (conntrack -L -z): all is new then."""
    if before is None or any(now < then for now, then in zip(after, before)):
        return after
    return Counts(*(now - then for now, then in zip(after, before)))


# --- collectors -------------------------------------------------------------------------------------------------------

PORT = 4739  # IANA's for IPFIX
MOST_QUEUED = 200_000  # records that wait for one collector: 14 MB
MOST_MESSAGES = 200  # messages that are sent in a turn of the loop: 2 ms
FILL_FOR, FULL = 1.0, 500  # seconds that records wait for others to fill messages with them; records that do not wait
TRY_AGAIN = (1.0, 2.0, 5.0, 10.0, 30.0)  # seconds until a collector is tried again, after so many failures
LISTENS_AFTER = 0.2  # seconds in which the answer comes that nobody listens to a UDP port
ANSWERS_WITHIN, CONFIRMS_WITHIN = 10.0, 60.0  # seconds in which TCP is connected, and what was sent is confirmed
UNCONFIRMED = 10_000  # messages whose lengths are remembered: more than any buffer of a socket holds
RECENTLY = 60.0  # seconds for which a loss is in the header
LAST_SECOND, LAST_REST = 1.0, 0.005  # seconds for what waits at the end; between two groups of messages then

IP_MTU_DISCOVER, IPV6_MTU_DISCOVER = 10, 23  # Linux, include/uapi/linux/in.h and in6.h
OF_AN_EARLIER = (errno.ECONNREFUSED, errno.EHOSTUNREACH)  # errors that UDP tells of what was sent before

SocketAddress = tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int]]


class Destination(NamedTuple):
    """Where a collector listens."""

    name: str  # as it was typed, safe to show
    tcp: bool
    addresses: Sequence[SocketAddress]

    @property
    def port(self) -> int:
        return self.addresses[0][1][1]


def destination(text: str) -> Destination:
    """What HOST:PORT, with /tcp or /udp behind it, stands for. Raises ValueError, in words for people.

    A name is looked up once, at the start: a name server that does not answer must not stop the loop.
    """
    place, _, protocol = text.strip().partition("/")
    host, colon, port = place.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    is_named = bool(colon and bare) and (":" not in bare or host.startswith("["))
    if not is_named or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
        like = f"192.0.2.7:{PORT} or [2001:db8::7]:{PORT}/tcp"
        raise ValueError(f"{clean(text, 60)!r} is not HOST:PORT; write it like {like}")
    if protocol.lower() not in ("", "udp", "tcp"):
        raise ValueError(f"{clean(protocol, 20)!r} is not tcp or udp")
    tcp = protocol.lower() == "tcp"
    kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    try:
        found = socket.getaddrinfo(bare, int(port), type=kind)
    except (OSError, UnicodeError) as error:
        raise ValueError(
            f"{clean(bare, 60)!r} can't be resolved: {getattr(error, 'strerror', None) or error}"
        ) from None
    return Destination(clean(text.strip(), 80), tcp, [(its[0], its[4]) for its in found])  # type: ignore[misc]


class Collector:
    """One collector: its queue, its socket, and what it has not got."""

    def __init__(self, to: Destination, domain: int) -> None:
        self.to, self._domain = to, domain
        self._waiting: deque[RecordSet] = deque()
        self._number = 0  # records in it
        self._stream = MessageStream(domain, not to.tcp)
        self._out: deque[IpfixMessage] = deque()  # made, and not yet taken by the kernel
        self._left = memoryview(b"")  # the rest of a message that TCP has taken in part
        self._socket: socket.socket | None = None
        self._connecting = False
        self._listens_at: float | None = None  # it is known to listen, unless a refusal comes before
        self._next_try, self._failures = 0.0, 0
        self._newest = 0  # records in the message that was sent last
        self._written = 0  # bytes of this connection
        self._unconfirmed: deque[tuple[int, int]] = deque(maxlen=UNCONFIRMED)  # bytes to a message's end, records
        self.sent, self.lost, self._lost_at = 0, 0, -RECENTLY
        self._problem = ""  # why nothing can be sent now

    # --- in ---

    def take(self, sets: Sequence[RecordSet], number: int) -> None:
        """Queue records; where too many wait already, they are lost."""
        if self._number + number > MOST_QUEUED:
            self._lose(number)
            self._stream.skip(number)
            return
        self._waiting.extend(sets)
        self._number += number

    def _lose(self, records: int) -> None:
        if records:
            self.lost += records
            self._lost_at = time.monotonic()

    # --- out ---

    def fds(self) -> list[int]:
        """What tells that a connection was closed."""
        return [self._socket.fileno()] if self._socket is not None and self.to.tcp and not self._connecting else []

    def writing(self) -> list[int]:
        return [self._socket.fileno()] if self._socket is not None and (self._connecting or self._is_stuck()) else []

    def _is_stuck(self) -> bool:
        """Does the kernel take no more for now?"""
        return bool(self._left or self._out) and self._listens_at is None

    def deadline(self) -> float | None:
        """When ``poll`` must be called, on the scale of time.monotonic()."""
        if self._listens_at is not None:
            return self._listens_at
        if self._connecting or (self._socket is None and (self._number or self._out)):
            return self._next_try
        return time.monotonic() if self._socket and self._number and not self._is_stuck() else None

    @property
    def behind(self) -> bool:
        """Does so much wait that a recording should not be read on?"""
        return self._number > MOST_QUEUED // 2

    def poll(self, wall: float) -> None:
        """Send what waits, as far as the kernel takes it. ``wall``: seconds since 1970."""
        moment = time.monotonic()
        if self._socket is None:
            if moment < self._next_try or not (self._number or self._out or self.to.tcp):
                return
            self._open(wall)
        if self._socket is None or not self._is_ready(self._socket, moment):
            return
        try:
            self._flush(self._socket, wall)
        except OSError as error:
            self._fail(error)

    def _open(self, wall: float) -> None:
        family, address = self.to.addresses[self._failures % len(self.to.addresses)]
        try:
            made = socket.socket(family, socket.SOCK_STREAM if self.to.tcp else socket.SOCK_DGRAM)
            self._socket = made
            made.setblocking(False)
            _prepare(made, self.to.tcp)
            made.connect(address)
        except BlockingIOError:
            self._connecting, self._next_try = True, time.monotonic() + ANSWERS_WITHIN
            return
        except OSError as error:
            self._fail(error)
            return
        self._begin(wall)

    def _begin(self, wall: float) -> None:
        """A connection is there. What was told on another one is unknown to who listens now."""
        if self.to.tcp:
            self._stream = MessageStream(self._domain, again=False)
            self._problem, self._failures = "", 0
            return
        # Templates go first: where nobody listens, nothing is lost with them.
        needed = [waiting.number for waiting in self._waiting]
        left = [message for message in self._out if message.records]
        self._out = deque([*self._stream.template_messages(needed, wall), *left])
        self._listens_at = time.monotonic() + LISTENS_AFTER
        self._send_templates()

    def _send_templates(self) -> None:
        try:
            while self._socket is not None and self._out and not self._out[0].records:
                self._socket.send(self._out[0].data)
                self._out.popleft()
        except BlockingIOError:
            pass
        except OSError as error:
            self._fail(error)

    def _is_ready(self, its: socket.socket, moment: float) -> bool:
        """Is there a collector, as far as anybody knows?"""
        if self._connecting and not _is_writable(its):
            if moment >= self._next_try:
                self._fail(OSError(errno.ETIMEDOUT, "no answer"))
            return False
        code = its.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._fail(OSError(code, os.strerror(code)))
            return False
        if self._connecting:
            self._connecting = False
            self._begin(0.0)
        if self.to.tcp and _is_closed(its):
            self._fail(OSError(0, "it has closed the connection"))
            return False
        if self._listens_at is not None:
            if moment < self._listens_at:
                return False
            self._listens_at, self._problem, self._failures = None, "", 0
        return True

    def _flush(self, its: socket.socket, wall: float) -> None:
        """Raises OSError."""
        for _ in range(MOST_MESSAGES):
            if not self._left and not self._out:
                if not self._number:
                    return
                self._out.extend(self._stream.next_messages(self._waiting, wall))
                self._number -= sum(message.records for message in self._out)
            try:
                self._send(its)
            except BlockingIOError:
                return

    def _send(self, its: socket.socket) -> None:
        """Give the kernel a message, or the rest of one. Raises OSError; then it was not taken."""
        data = self._left or memoryview(self._out[0].data)
        taken = its.send(data)
        self._left = data[taken:] if self.to.tcp else memoryview(b"")
        if self._left:
            return
        message = self._out.popleft()
        self._written += len(message.data)
        self._unconfirmed.append((self._written, message.records))
        self.sent += message.records
        self._newest = message.records or self._newest

    def _fail(self, error: OSError) -> None:
        """Nothing can be sent now. Count what has not arrived, and try again later."""
        its, self._socket = self._socket, None
        lost = self._newest if error.errno in OF_AN_EARLIER else 0
        if self.to.tcp and its is not None:
            lost = self._unarrived(its)
        self._lose(lost)
        self.sent -= lost
        self._newest = self._written = 0
        self._unconfirmed.clear()
        if self.to.tcp:  # a message of the old connection has the old one's numbers
            self._lose(sum(message.records for message in self._out))
            self._out.clear()
            self._left = memoryview(b"")
        self._connecting, self._listens_at = False, None
        self._problem = error.strerror or str(error)
        self._next_try = time.monotonic() + TRY_AGAIN[min(self._failures, len(TRY_AGAIN) - 1)]
        self._failures += 1
        if its is not None:
            its.close()

    def _unarrived(self, its: socket.socket) -> int:
        """Records that the other side has not confirmed."""
        try:
            rest = struct.unpack("i", fcntl.ioctl(its.fileno(), termios.TIOCOUTQ, bytes(4)))[0]
        except OSError:
            return 0
        return sum(records for end, records in self._unconfirmed if end > self._written - rest)

    def close(self, wall: float, until: float) -> None:
        """Send what waits, until then at the latest; the rest is lost."""
        while (self._number or self._out) and time.monotonic() < until:
            self.poll(wall)
            if self._socket is None and self._next_try > until:
                break
            if self._number or self._out:
                time.sleep(LAST_REST)
        self._lose(self._number + sum(message.records for message in self._out))
        self._number = 0
        self._out.clear()
        if self._socket is not None:
            if not self.to.tcp and self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._lose(self._newest)
            self._socket.close()
            self._socket = None

    # --- what people are told ---

    def state(self) -> str:
        """How it is doing."""
        said = f"{self.to.name}: {self.sent} records sent, {self.lost or 'none'} lost"
        waits = self._number and (self._problem or self._is_stuck())
        return f"{said}, {self._number} waiting" if waits else said

    def notice(self) -> tuple[str, str] | None:
        """What is wrong, and the command that helps."""
        lost = f"{self.lost} records lost" if self.lost else "none lost"
        if self._problem:
            about = "t" if self.to.tcp else "u"
            cure = f"ss -ln{about} 'sport = :{self.to.port}' on the collector"
            return f"IPFIX to {self.to.name}: {self._problem}, retrying; {lost}", cure
        if self.lost and time.monotonic() - self._lost_at < RECENTLY:
            return f"IPFIX to {self.to.name}: {self.lost} records lost", ""
        return None


def _prepare(its: socket.socket, tcp: bool) -> None:
    """UDP: let the kernel send in two fragments what a tunnel on the way is too narrow for. TCP: give up in time."""
    if tcp:  # by itself the kernel waits for a quarter of an hour
        its.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * CONFIRMS_WITHIN))
        return
    for level, option in ((socket.IPPROTO_IP, IP_MTU_DISCOVER), (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER)):
        with suppress(OSError):  # of the other family
            its.setsockopt(level, option, 0)


def _is_writable(its: socket.socket) -> bool:
    poll = select.poll()
    poll.register(its.fileno(), select.POLLOUT)
    return bool(poll.poll(0))


def _is_closed(its: socket.socket) -> bool:
    """Has the other side closed it? What it says otherwise does not matter."""
    try:
        return its.recv(4096) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


# --- the loop's side --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ExportPlan:
    """What the command line says of IPFIX."""

    to: Sequence[Destination]
    nat: bool = True  # events of translations
    flows: bool = True
    legacy: bool = False  # events have the numbers from before RFC 8158


class Exporter:
    """Hears of flows, and tells the collectors."""

    def __init__(self, plan: ExportPlan, node: str, live: bool, site: Site, epoch: Callable[[], float]) -> None:
        """``epoch``: tells what to add to the source's clock for seconds since 1970. ``live``: it is monotonic."""
        self._plan, self._live, self._epoch = plan, live, epoch
        self._collectors = [Collector(to, domain_of(node)) for to in plan.to]
        self._translator = Translator(site)
        self._created, self._deleted = (LEGACY[CREATED], LEGACY[DELETED]) if plan.legacy else (CREATED, DELETED)
        self._begun: deque[Flow] = deque()
        self._ended: deque[tuple[Flow, SentCounts | None]] = deque()
        self._told: dict[bytes, SentCounts] = {}  # by key, of flows that go on
        # Flows whose end a listing has told of late: a DESTROY may be on its way.
        self._swept: dict[bytes, tuple[int | None, SentCounts]] = {}
        self._swept_before: dict[bytes, tuple[int | None, SentCounts]] = {}
        self._records, self._held_since = Records(), 0.0
        self._left: Iterator[Flow] = iter(())  # of the round that goes on
        self._in_round = False
        self._next_round = 0.0
        self._began_at: float | None = None  # when the first listing was complete
        self._odd = 0  # flows that could not be encoded

    # --- what the table tells ---

    def began(self, flow: Flow) -> None:
        """The kernel said that a flow has begun."""
        self._told.pop(flow.key, None)  # the first listing named it before its NEW was read
        if self._plan.nat and b"src=" in flow.tail:
            self._begun.append(flow)

    def ended(self, flow: Flow) -> None:
        """A flow has ended."""
        self._ended.append((flow, self._told.pop(flow.key, None)))

    def listed(self, table: FlowTable, now: float) -> None:
        """A listing was complete. The first one tells what flows had moved before anybody looked."""
        if self._began_at is None and table.listings:
            self._began_at, self._next_round = table.listed_at, now
            if not self._live:  # what comes next in a recording is read at once
                for flow in table.live.values():
                    self._look(flow, now, self._epoch_of(now))

    # --- the loop ---

    def fds(self) -> list[int]:
        return [fd for collector in self._collectors for fd in collector.fds()]

    def writing(self) -> list[int]:
        return [fd for collector in self._collectors for fd in collector.writing()]

    def deadline(self) -> float | None:
        """When ``poll`` must be called, on the scale of time.monotonic()."""
        if self._begun or self._ended or self._in_round:
            return time.monotonic()
        due = [at for collector in self._collectors if (at := collector.deadline()) is not None]
        if self._records.number:
            due.append(self._held_since + FILL_FOR)
        if self._plan.flows and self._live:
            due.append(self._next_round)
        return min(due, default=None)

    @property
    def behind(self) -> bool:
        """Should a recording wait?"""
        return any(collector.behind for collector in self._collectors)

    def poll(self, table: FlowTable, now: float) -> None:
        """Do what is due; ``now`` by the source's clock."""
        self._translator.know(table)
        self._encode(now, max(MOST_AT_ONCE, (len(self._begun) + len(self._ended)) // 8))
        self._round(table, now)
        moment = time.monotonic()
        if not self._records.number:
            self._held_since = moment
        elif self._records.number >= FULL or moment >= self._held_since + FILL_FOR:
            self._hand_over()
        wall = time.time()
        for collector in self._collectors:
            collector.poll(wall)

    def _hand_over(self) -> None:
        number = self._records.number
        sets = self._records.take()
        for collector in self._collectors:
            collector.take(sets, number)

    def _epoch_of(self, now: float) -> float:
        """What to add to the source's clock. Lines of a recording that have no times were told when they are read."""
        return self._epoch() if self._live or now else time.time()

    def _encode(self, now: float, most: int) -> None:
        """Make records of flows that have begun or ended, in this order."""
        epoch = self._epoch_of(now)
        begun, ended = self._begun, self._ended
        for _ in range(min(most, len(begun))):
            self._guarded(self._tell_begin, begun.popleft(), epoch)
        if begun:
            return
        for _ in range(min(most, len(ended))):
            flow, told = ended.popleft()
            self._guarded(self._tell_end, flow, epoch, told)

    def _guarded(self, tell: Callable[..., None], *of: object) -> None:
        """A damaged line may have an address or a number that is none."""
        try:
            tell(*of)
        except (ValueError, OSError, struct.error):
            self._odd += 1

    def _tell_begin(self, flow: Flow, epoch: float) -> None:
        its, _ = self._translator.pair(flow)
        if its.translated:
            self._records.add_nat_event(its, int((flow.born + epoch) * 1000), self._created)

    def _tell_end(self, flow: Flow, epoch: float, told: SentCounts | None) -> None:
        its, counts = self._translator.pair(flow)
        progress = flow.progress
        at, again = progress.ended or 0.0, None
        if not (progress.inferred or progress.exact):
            again = self._swept_of(flow, its.kernel_id)
        if self._plan.nat and again is None and its.translated:
            self._records.add_nat_event(its, int((at + epoch) * 1000), self._deleted)
        if self._plan.flows:
            if told is None and not progress.exact:
                told = again if again is not None else self._before_us(flow)
            start = told[1] if told is not None else flow.born if progress.exact else self._start(flow)
            seen = flow.last_seen.at if progress.inferred else at
            self._report(flow, its, (start, seen, epoch), reason_of(flow), told, counts or flow.counts())
        if progress.inferred:
            self._swept[flow.key] = its.kernel_id, (newest_texts([flow])[0], flow.last_seen.at)

    def _swept_of(self, flow: Flow, kernel_id: int | None) -> SentCounts | None:
        """What was told when a listing no longer had the flow whose DESTROY is read now."""
        found = self._swept.pop(flow.key, None) or self._swept_before.pop(flow.key, None)
        return found[1] if found is not None and found[0] == kernel_id else None

    def _before_us(self, flow: Flow) -> SentCounts | None:
        """What a flow had moved before anybody looked, where no round has noted that yet."""
        listed = flow.tail if flow.inferred and flow.progress.listed is None else flow.progress.listed
        return (listed, flow.born) if listed is not None and self._is_older(flow) else None

    def _is_older(self, flow: Flow) -> bool:
        """Did the flow begin before anybody looked?"""
        return not flow.exact and (self._began_at is None or flow.born <= self._began_at)

    @staticmethod
    def _start(flow: Flow) -> float | None:
        """When it began, or was seen first; None where it was seen only at its end, and nothing tells."""
        return flow.birth() if flow.knows_age() or flow.born != flow.ended else None

    def _report(
        self,
        flow: Flow,
        its: TuplePair,
        times: tuple[float | None, float, float],
        reason: int,
        told: SentCounts | None,
        counts: Counts | None,
    ) -> None:
        """``times``: from when to when, by the source's clock, and the epoch."""
        start, end, epoch = times
        if counts is not None and told is not None:
            counts = moved_between(counts_in(told[0]), counts)
        began = None if start is None else int((min(start, end) + epoch) * 1000)
        report = FlowReport(began, int((end + epoch) * 1000), reason, counts, self._translator.outward(flow, its))
        self._records.add_flow(its, report)

    # --- flows that go on ---

    def _round(self, table: FlowTable, now: float) -> None:
        """Look at some of all flows; a round begins every ROUND_EVERY seconds."""
        if not self._in_round:
            if now < self._next_round:
                return
            self._in_round, self._next_round = True, now + ROUND_EVERY
            self._left = iter(list(table.live.values()) if self._plan.flows else ())  # 2 ms for 262,144
            self._swept_before, self._swept = self._swept, {}
        epoch, until = self._epoch_of(now), time.monotonic() + ROUND_SLICE
        while time.monotonic() < until:
            some = list(islice(self._left, ROUND_STEP))
            if not some:
                self._in_round, self._left = False, iter(())
                return
            for flow in some:
                if flow.progress.ended is None:
                    self._look(flow, now, epoch)

    def _look(self, flow: Flow, now: float, epoch: float, reason: int = ACTIVE_TIMEOUT) -> None:
        """Report what a flow has moved, where it is due."""
        told = self._told.get(flow.key)
        if told is None:
            if self._is_older(flow):
                if self._began_at is not None:
                    self._told[flow.key] = (newest_texts([flow])[0], flow.sampled)
                return
            if reason == ACTIVE_TIMEOUT and now - flow.born < REPORT_EVERY:
                return
        elif reason == ACTIVE_TIMEOUT and now - told[1] < REPORT_EVERY:
            return
        text = newest_texts([flow])[0]
        if not text or b"packets=" not in text:
            return
        if told is None or text != told[0]:
            start = told[1] if told is not None else self._start(flow)
            self._guarded(self._tell_more, flow, (start, flow.sampled, epoch), reason, told, text)
        self._told[flow.key] = (text, flow.sampled)

    def _tell_more(
        self, flow: Flow, times: tuple[float | None, float, float], reason: int, told: SentCounts | None, text: bytes
    ) -> None:
        before, after = counts_in(told[0]) if told is not None else None, counts_in(text)
        if after is not None and any(moved_between(before, after)):
            its, _ = self._translator.pair(flow)
            self._report(flow, its, times, reason, told, after)

    # --- what people are told ---

    def notices(self) -> list[tuple[str, str]]:
        """What is wrong, and the commands that help."""
        found = [notice for collector in self._collectors if (notice := collector.notice()) is not None]
        if self._odd:
            found.append((f"flows not sent by IPFIX, for their lines are damaged: {self._odd}", ""))
        return found

    def states(self) -> list[str]:
        """How each collector is doing."""
        return [collector.state() for collector in self._collectors]

    def close(self, table: FlowTable, now: float) -> list[str]:
        """Tell the rest, for a second at most; returns what is to be said of losses."""
        self._translator.know(table)
        self._encode(now, len(self._begun))
        self._encode(now, len(self._ended))
        if self._plan.flows:
            epoch = self._epoch_of(now)
            for flow in table.live.values():
                self._look(flow, now, epoch, FORCED_END)
        if self._records.number:
            self._hand_over()
        until = time.monotonic() + LAST_SECOND
        for collector in self._collectors:
            collector.close(time.time(), until)
        return [f"IPFIX to {collector.state()}" for collector in self._collectors if collector.lost]
