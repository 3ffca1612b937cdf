"""Keeping the flow log: what the loop tells of flows and of gaps, and the process that writes it into the day files.

sqlite3 lets other threads run at each of its steps: a thread beside the loop would wait 5 ms, Python's switch interval,
for each of 5,000 rows a second. So another process writes, and a disk that stands still stops that process only.
"""

from __future__ import annotations

import contextlib
import errno
import json
import marshal
import os
import re
import select
import shlex
import signal
import sys
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from addresses import Context, Ends, Lookups, Site
from child import Child
from flows import Counts, Flow, FlowTable, Group, LastSeen, Progress, id_in
from grouping import service_key
from intake import Problem, Status
from parse import WITH_PORTS, Kind, usual
from past import (
    DAY_SECONDS,
    DEAF,
    HOUR_SECONDS,
    LOSING,
    NO_SQLITE,
    NOT_RUNNING,
    UNCOUNTED,
    UNHEARD,
    YOUNG,
    DayFile,
    FlowValues,
    Mark,
    OfEarlier,
    Refused,
    began_of,
    day_files,
    day_name,
    day_of,
    hold,
    make_folder,
    prune,
    set_aside,
    sizes,
)
from text import clean, size_text

if TYPE_CHECKING:
    pass

# --- writing ----------------------------------------------------------------------------------------------------------

# Seconds; with the one in which the loop gathers, a crash loses 6 s of closed flows, and 10 s are promised.
COMMIT_EVERY = 5.0
MOST_UNWRITTEN = 200_000  # rows kept while the disk takes nothing: 100 MiB; those beyond are a gap
ADOPTED_WITHIN = 600.0  # seconds after the start in which a flow may be one that an earlier run left unfinished
PRUNE_EVERY = 60.0  # seconds between two looks at what is too old or too much
NO_NAME = 0

# Text of a flow with ports, from its original tuple on, as almost all are; the last group has any other text.
_USUAL_END = re.compile(
    rb"^(?:src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+) (?:packets=(\d+) bytes=(\d+) )?(?:\[UNREPLIED\] )?"
    rb"(?:=|src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+))(?: packets=(\d+) bytes=(\d+))?"
    rb"(?: \[(?:ASSURED|OFFLOAD|HW_OFFLOAD)\])?(?: mark=(\d+))?(?: delta-time=\d+)?(?: use=\d+)?(?: id=\d+)?|(.*))$",
    re.M,
)
ORIGINAL_PORTS = re.compile(rb"src=\S+ dst=\S+ sport=\d+ dport=\d+ ")


class EndedFlows(NamedTuple):
    """Flows that are over, column by column: 5,000 tuples took three times as long to hand over."""

    text: bytes  # of each flow a line, from its original tuple on
    groups: bytes  # numbers, array("L")
    starts: bytes  # array("d")
    ends: bytes
    swept: bytes  # 1 where only a listing said so

    def rows(self) -> Iterator[tuple[Sequence[bytes], int, float, float, int]]:
        groups, starts, ends = array("L", self.groups), array("d", self.starts), array("d", self.ends)
        return zip(_USUAL_END.findall(self.text), groups, starts, ends, self.swept)


# What the loop tells the writer: a tuple that begins with one of these.
GROUP, ENDED, OPEN, OWN, GAP_BEGAN, GAP_OVER = range(6)
Message = tuple[Any, ...]


class Setup(TypedDict):
    """What the writer is told first, and nothing else about the command line."""

    folder: str
    keep: float  # days
    size: int  # bytes
    node: str
    databases: list[str]
    networks: list[str]


class Unfinished(NamedTuple):
    """A flow that has a row and has not ended."""

    id: int
    day: int
    kernel_id: int | None
    start: float
    exact: bool
    counts: Counts | None  # as they are in the row


@dataclass
class OpenGap:
    """A gap that goes on."""

    day: int
    number: int
    since: float


class _Near(NamedTuple):
    """The near end of a flow as the sums have it: numbers of node, host and name."""

    node: int
    host: int
    name: int


class _Asking(dict[Any, Any]):
    """A dictionary that asks for what it has not."""

    def __init__(self, ask: Callable[[Any], Any]) -> None:
        super().__init__()
        self._ask = ask

    def __missing__(self, key: Any) -> Any:
        if len(self) >= MOST_CACHED:
            self.clear()
        found = self[key] = self._ask(key)
        return found


class _Cache:
    """Numbers that a day's file has for what flows say. Those of near ends are asked for anew: names change."""

    def __init__(self, file: DayFile, writer: Writer) -> None:
        self.file, self.begins, self.until = file, file.begins, file.begins + DAY_SECONDS
        self.put, self._writer = file.put_ended, writer
        self.hosts: dict[bytes, int] = _Asking(lambda address: file.host(address.decode()))
        self.near: dict[bytes, _Near] = _Asking(lambda address: writer.near_end(file, address.decode()))
        self.far: dict[bytes, tuple[str, int]] = _Asking(lambda address: writer.far_end(file, address.decode()))
        self.kinds: dict[tuple[int, int, bool, bool, int], int] = _Asking(lambda what: writer.usual_kind(file, *what))
        self.services: dict[tuple[int, bytes], int] = _Asking(lambda what: file.name(writer.service(*what)))


class Writer:
    """The flow log as the process sees it that writes it. ``take`` gathers, ``commit`` writes."""

    def __init__(self, folder: str, node: str, context: Context, name_of: Callable[[str], str | None]) -> None:
        self.folder, self.node = folder, node
        self._context, self._name_of = context, name_of
        self._files: dict[int, DayFile] = {}
        self._groups: dict[int, Group] = {}
        self._kinds: dict[tuple[object, ...], int] = {}  # numbers of kinds, by what they say
        self._cache: _Cache | None = None
        self._unfinished: dict[bytes, Unfinished] = {}
        self._earlier: dict[bytes, OfEarlier] = {}
        self._gaps: dict[str, OpenGap] = {}
        self._lost: tuple[float, int] | None = None  # since when rows were given up, and how many
        self.now = 0.0  # the newest time that the loop has told
        self.began = 0.0
        self._begins: dict[int, float] = {}  # of a day's file
        self.set_aside = ""  # what happened to a damaged file

    # --- files ---

    def begin(self, now: float) -> None:
        """Take up what an earlier run has left. Raises sqlite3.Error."""
        self.now = self.began = now
        newest = None
        for day in list(day_files(self.folder))[-2:]:
            file = self._file(day)
            self._earlier |= {flow.key: flow for flow in file.earlier()}
            newest = file.alive
        if newest is not None and newest < now:
            file = self._file(day_of(now))
            self._gaps[NOT_RUNNING] = OpenGap(file.day, file.gap(self.node, newest, None, NOT_RUNNING), newest)
        self._file(day_of(now))

    def _file(self, day: int) -> DayFile:
        import sqlite3

        if (file := self._files.get(day)) is not None:
            return file
        try:
            file = DayFile(self.folder, day, max(self.now, day * DAY_SECONDS))
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            self._put_aside(day, str(error))
            file = DayFile(self.folder, day, max(self.now, day * DAY_SECONDS))
            file.gap(self.node, file.begins, self.now, f"the file of {day_name(day)} was damaged and is set aside")
        self._files[day] = file
        return file

    def _put_aside(self, day: int, why: str) -> None:
        other = set_aside(self.folder, day)
        self.set_aside = f"flows-{day_name(day)}.db is damaged ({clean(why, 60)}): set aside as {other}"

    # --- taking in ---

    def take(self, message: Message) -> None:
        what = message[0]
        if what == ENDED:
            _, group, key, tail, listed, start, exact, end, inferred = message
            self._end(self._flow(group, key, tail, listed, start, exact), end, "swept" if inferred else "destroy")
        elif what == OPEN:
            _, group, key, tail, listed, start, exact, at = message
            self._go_on(self._flow(group, key, tail, listed, start, exact), at)
        elif what == GROUP:
            _, number, family, protocol, protocol_number, state = message
            self._groups[number] = Group(Kind(family, protocol, protocol_number), state)
        elif what == OWN:
            self._context.advance(self.now, frozenset(message[1]))
        elif what == GAP_BEGAN:
            self._begin_gap(*message[1:])
        elif what == GAP_OVER:
            self._end_gap(*message[1:])

    def take_ended(self, ended: EndedFlows) -> None:
        """Take in flows that are over and have no row yet: in a fifth of the time that others take.

        At 5,000 flows a second, all that the log does is to take an eighth of a core at most.
        """
        cache, remote_side = self._cache, self._context.known.remote_side
        for words, group, start, end, swept in ended.rows():
            if cache is None or not cache.begins <= end < cache.until:
                cache = self._cache = _Cache(self._file(day_of(end)), self)
            src, dst, sport, dport, packets, size, reply_src, reply_dst, reply_sport, reply_dport, *back, other = words
            if other:
                self._take_unusual(other, group, start, end, bool(swept))
                continue
            if not reply_src:
                reply_src, reply_dst, reply_sport, reply_dport = dst, src, dport, sport
            side = remote_side(src, dst, reply_src, reply_dst)
            remote = (src, dst, reply_src, reply_dst)[side]
            inward = remote in (src, reply_dst)
            far = cache.far[remote]
            near = cache.near[reply_src if inward else src]
            snat, dnat = reply_dst != src or reply_dport != sport, reply_src != dst or reply_sport != dport
            there, here = (int(size), int(back[1])) if size and back[1] else (None, None)
            begins, hosts = cache.begins, cache.hosts
            reply_from = (hosts[reply_src], int(reply_sport)) if dnat else (None, None)
            reply_to = (hosts[reply_dst], int(reply_dport)) if snat else (None, None)
            counts = NO_COUNTS if there is None else (int(packets), there, int(back[0]), here)
            kind, mark = cache.kinds[group, swept, snat, dnat, side], int(back[2]) or None if back[2] else None
            times = round((start - begins) * 1000), round((end - begins) * 1000)
            ends = hosts[src], int(sport), hosts[dst], int(dport), *reply_from, *reply_to
            hour, service = int((end - begins) // HOUR_SECONDS), cache.services[group, dport]
            cache.put(
                (kind, *times, *ends, *counts, mark, None, near.name or None),
                (near.node, near.host, hour, near.name, *far, service),
                *((there, here) if inward else (here, there)),
            )

    def _take_unusual(self, text: bytes, group: int, start: float, end: float, swept: bool) -> None:
        """A flow whose text has words that routers rarely print."""
        original = ORIGINAL_PORTS.match(text)
        if original is not None:
            key, tail = self._groups[group].prefix + original.group(), text[original.end() :]
            self._end(self._flow(group, key, tail, None, start, True), end, "swept" if swept else "destroy")

    def _flow(self, group: int, key: bytes, tail: bytes, listed: bytes | None, start: float, exact: bool) -> Flow:
        flow = Flow(key, self._groups[group], start, Progress(exact=exact, listed=listed), LastSeen(start, 0))
        flow.tail = tail
        return flow

    def _known(self, flow: Flow) -> Unfinished | None:
        """The row that the flow has already: of this run, or left by an earlier one."""
        known = self._unfinished.pop(flow.key, None)
        if known is not None or (old := self._earlier.pop(flow.key, None)) is None:
            return known
        counts, ours = flow.counts(), id_in(flow.progress.listed or flow.tail)
        goes_on = counts is None or old.counts is None or counts.original_packets >= old.counts.original_packets
        if ours != old.kernel_id or not goes_on or (flow.exact and flow.born > self.began):
            return None
        return Unfinished(old.id, old.day, old.kernel_id, old.start, old.exact, old.counts)

    def _end(self, flow: Flow, end: float, reason: str) -> None:
        known = self._known(flow)
        file = self._file(day_of(end))
        self._put(file, flow, known, end, reason, None)

    def _go_on(self, flow: Flow, at: float) -> None:
        known = self._known(flow)
        file = self._file(day_of(at))
        kernel_id = id_in(flow.progress.listed or flow.tail)
        number = self._put(file, flow, known, at, "open", (flow.key, kernel_id))
        start, exact = (known.start, known.exact) if known else (flow.born, flow.exact)
        self._unfinished[flow.key] = Unfinished(number, file.day, kernel_id, start, exact, flow.counts())

    def _put(
        self, file: DayFile, flow: Flow, known: Unfinished | None, at: float, reason: str, unfinished: Mark | None
    ) -> int:
        """Write a flow's row as it is at ``at``, and add what it moved since the row was written last."""
        number = known.id if known and known.day == file.day else file.next_flow()
        if known and known.day != file.day:  # a flow is in the file of the day of its end
            self._file(known.day).drop(known.id)
        start, exact = (known.start, known.exact) if known else (flow.born, flow.exact)
        ends, counts, mark, zone = told_by(flow)
        near_end, far_end, inward = self._context.sides_of_ends(ends)
        near, far, begins = self.near_end(file, near_end), self.far_end(file, far_end), file.begins
        values = (
            self._kind(file, flow.group, reason, ends, exact, ends.addresses.index(far_end)),
            *(round((start - begins) * 1000), None if unfinished else round((at - begins) * 1000)),
            *_end_values(file, ends),
            *(counts or NO_COUNTS),
            *(mark or None, zone, near.name or None),
        )
        file.put(number, values, unfinished, is_new=known is None)
        came, went = _moved_since(known.counts if known else None, counts, inward)
        if known is None or came or went:
            hour, service = int((at - begins) // HOUR_SECONDS), file.name(service_key(flow))
            by = near.node, near.host, hour, near.name, *far, service
            file.add(by, (0 if known else 1, came, went))
        return number

    def near_end(self, file: DayFile, address: str) -> _Near:
        name = self._name_of(address)
        if name:
            file.label_host(address, name)
        return _Near(file.name(self.node), file.host(address), file.name(name) if name else NO_NAME)

    def far_end(self, file: DayFile, address: str) -> tuple[str, int]:
        """Country and ASN; the address gets its number with them."""
        place = self._context.where(address)
        file.place(address, place)
        return place.country or "", place.asn or 0

    def usual_kind(self, file: DayFile, group: int, swept: int, snat: bool, dnat: bool, far: int) -> int:
        its, reason = self._groups[group], "swept" if swept else "destroy"
        values = _protocol(its.kind), its.state, NAT_WORDS[snat + 2 * dnat], 1, far
        return file.kind(file.name(self.node), reason, *values)

    def service(self, group: int, port: bytes) -> str:
        return f"{_protocol(self._groups[group].kind)}/{port.decode()}"

    def _kind(self, file: DayFile, group: Group, reason: str, ends: Ends, exact: bool, far: int) -> int:
        nat = ends.snat + 2 * ends.dnat
        key = file.day, group, reason, nat, exact, far
        if (number := self._kinds.get(key)) is None:
            if len(self._kinds) > MOST_KINDS:
                self._kinds.clear()
            number = file.kind(
                *(file.name(self.node), reason, _protocol(group.kind), group.state, NAT_WORDS[nat], int(exact), far)
            )
            self._kinds[key] = number
        return number

    # --- gaps ---

    def _begin_gap(self, reason: str, since: float) -> None:
        if reason not in self._gaps:
            file = self._file(day_of(since))
            self._gaps[reason] = OpenGap(file.day, file.gap(self.node, since, None, reason), since)

    def _end_gap(self, reason: str, until: float) -> None:
        if (gap := self._gaps.pop(reason, None)) is not None:
            self._file(gap.day).gap(self.node, gap.since, max(gap.since, until), reason, gap.number)

    def _split_gaps(self, day: int) -> None:
        """A gap that goes on beyond midnight is one in the file of each day."""
        for reason, gap in list(self._gaps.items()):
            if gap.day < day:
                midnight = float(day * DAY_SECONDS)
                self._end_gap(reason, midnight)
                self._begin_gap(reason, midnight)

    # --- writing ---

    def commit(self, now: float) -> None:
        """Write what was gathered, and that the log is whole up to ``now``. Raises sqlite3.Error and OSError."""
        self.now = now
        if self._cache is not None:
            self._cache.near.clear()
        if now - self.began > ADOPTED_WITHIN:
            self._earlier.clear()
        today = day_of(now)
        if not all(file.is_there() for file in self._files.values()):
            raise FileNotFoundError(errno.ENOENT, "the folder or a file of it was removed", self.folder)
        self._file(today)
        self._split_gaps(today)
        for file in list(self._files.values()):
            file.commit(now if file.day == today else None)
            if file.day < today - 1 or (file.day < today and now - today * DAY_SECONDS > LATE_ENDS):
                self._files.pop(file.day).close()
                self._cache = None
        if self._lost is not None:
            since, number = self._lost
            self._lost = None
            self._file(today).gap(self.node, since, now, f"{number} flows could not be written")

    def give_up(self, since: float) -> None:
        """Too much waits to be written: forget it, and note the gap when there is room again."""
        number = sum(file.give_up() for file in self._files.values())
        first, before = self._lost or (since, 0)
        self._lost = first, before + number
        self._unfinished.clear()  # their rows may not be there

    def since(self) -> float:
        """When the log begins: with the oldest file, which may have begun in the middle of its day."""
        oldest = next(iter(day_files(self.folder)), None)
        if oldest is None:
            return self.now
        if oldest not in self._begins:
            file = self._files.get(oldest)
            self._begins[oldest] = file.began if file else began_of(self.folder, oldest)
        return self._begins[oldest]

    @property
    def waiting(self) -> int:
        return sum(file.waiting for file in self._files.values())

    def forget_places(self) -> None:
        """The databases are others now."""
        self._cache = None

    def begin_anew(self, now: float, why: str) -> None:
        """The files are gone or damaged. Raises sqlite3.Error and OSError."""
        since = min((file.began for file in self._files.values()), default=now)
        self.drop_files()
        make_folder(self.folder)
        self._unfinished.clear()
        self._gaps = {}
        self.now = now
        file = self._file(day_of(now))
        file.gap(self.node, since, now, why)

    def drop_files(self) -> None:
        self._kinds.clear()
        self._cache = None
        for file in self._files.values():
            file.close()
        self._files.clear()

    def set_aside_damaged(self, now: float, why: str) -> None:
        """A file that was open turned out to be damaged: today's is begun anew."""
        days = list(self._files)
        self.drop_files()
        for day in days:
            self._put_aside(day, why)
        self._unfinished.clear()
        self._gaps = {}
        self.now = now
        for day in days:
            file = self._file(day)
            until = min(now, file.begins + DAY_SECONDS)
            file.gap(self.node, file.begins, until, f"the file of {day_name(day)} was damaged and is set aside")


LATE_ENDS = 120.0  # seconds after midnight for which the file of the day before stays open


NAT_WORDS = None, "snat", "dnat", "both"
NO_COUNTS = None, None, None, None
MOST_CACHED = 200_000  # numbers of addresses: 30 MB
MOST_KINDS = 10_000  # remembered: protocols, states and reasons of a day make a few hundred


def told_by(flow: Flow) -> tuple[Ends, Counts | None, int, int | None]:
    """Ends, counters, mark and zone of a flow: of a usual text in a fifth of the time."""
    words = usual(flow.text) if flow.progress.listed is None else None
    if words is None or words[2] is None:  # without ports
        return flow.ends(), flow.counts(), flow.mark(), next(iter(flow.zones()), None)
    src, dst, sport, dport = words[0] or b"", words[1] or b"", int(words[2]), int(words[3] or 0)
    here, there = src.decode(), dst.decode()
    if words[11] is not None:  # turned
        ends = Ends(here, there, sport, dport, there, here, dport, sport)
    else:
        reply_src, reply_dst = (words[12] or b"").decode(), (words[13] or b"").decode()
        ends = Ends(here, there, sport, dport, reply_src, reply_dst, int(words[14] or 0), int(words[15] or 0))
    packets, back = words[8], words[20]
    counts = None
    if packets is not None and back is not None:
        counts = Counts(int(packets), int(words[9] or 0), int(back), int(words[21] or 0))
    zone = words[24] or words[7] or words[19]
    return ends, counts, int(words[23] or 0), int(zone) if zone else None


def _end_values(file: DayFile, ends: Ends) -> FlowValues:
    """Addresses and ports; those of the reply are None where they mirror the original's."""
    src, dst, reply_src, reply_dst = map(file.host, ends.addresses)
    return (
        *(src, ends.sport, dst, ends.dport),
        *(reply_src if reply_src != dst else None, ends.reply_sport if ends.reply_sport != ends.dport else None),
        *(reply_dst if reply_dst != src else None, ends.reply_dport if ends.reply_dport != ends.sport else None),
    )


def _protocol(kind: Kind) -> str:
    return kind.protocol if kind.protocol != "unknown" else f"ip{kind.number}"


def _moved_since(before: Counts | None, now: Counts | None, inward: bool) -> tuple[int | None, int | None]:
    """Bytes in and out that are not in the sums yet. Counters that fell were reset (conntrack -L -z): all is new."""
    if now is None:
        return None, None
    before = before or Counts(0, 0, 0, 0)
    there, back = now.original_bytes - before.original_bytes, now.reply_bytes - before.reply_bytes
    there, back = there if there >= 0 else now.original_bytes, back if back >= 0 else now.reply_bytes
    return (there, back) if inward else (back, there)


# --- the process that writes ------------------------------------------------------------------------------------------


def serve(folder: str) -> int:
    """Be the process that writes: take what comes on standard input, until it ends; returns the exit code.

    Tells on standard output how it goes, a JSON object a line. It ends with its input only: what has arrived is
    written, also where all processes of a service are asked to end.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.umask(0o077)
    try:
        import sqlite3  # noqa: F401  routers have a Python without it
    except ImportError:
        return _refuse(Refused(NO_SQLITE.what, NO_SQLITE.cure))
    try:
        make_folder(folder)
        lock = hold(folder)
    except Refused as refusal:
        return _refuse(refusal)
    frames = _frames()
    setup: Setup | None = next((said for _, said in frames if said is not None), None)
    if setup is not None:
        _Service(folder, setup).run(frames)
    os.close(lock)
    return 0


def _refuse(refusal: Refused) -> int:
    _tell({"refused": [refusal.what, refusal.cure], "holder": refusal.holder})
    return 1


def _tell(said: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # the loop has gone
        os.write(1, json.dumps(said).encode() + b"\n")


def _frames() -> Iterator[tuple[float, Any]]:
    """What comes on standard input; (0.0, None) after a second in which nothing came."""
    data, poll = b"", select.poll()
    poll.register(0, select.POLLIN)
    while True:
        if not poll.poll(1000):
            yield 0.0, None
            continue
        piece = os.read(0, 1 << 20)
        if not piece:
            return
        data += piece
        while len(data) >= 4 and len(data) >= (end := 4 + int.from_bytes(data[:4], "big")):
            yield marshal.loads(data[4:end])
            data = data[end:]


class _Service:
    """The writer, and what goes wrong with its disk."""

    def __init__(self, folder: str, setup: Setup) -> None:
        from ipaddress import ip_network

        from geoip import GeoIP
        from names import Resolver

        self._folder, self._keep, self._size = folder, setup["keep"], setup["size"]
        self._geoip = GeoIP(setup["databases"])
        self._geoip.open()
        networks = tuple(map(ip_network, setup["networks"]))
        context = Context(Lookups(where=self._geoip.lookup), Site(networks=networks))
        self._resolver = Resolver()
        self._writer = Writer(folder, setup["node"], context, self._resolver.listed_name)
        self._began = False
        self._now = 0.0  # the newest time that the loop has told
        self._due = self._prune_due = 0.0
        self._bytes = 0
        self._failing_since: float | None = None
        self._problem: tuple[str, str] | None = None

    def run(self, frames: Iterable[tuple[float, Any]]) -> None:
        for now, said in frames:
            if said is not None:
                self._now = now
                self._guarded(lambda: self._take(*said))  # noqa: B023  called at once
            if self._now and time.monotonic() >= self._due:
                self._due = time.monotonic() + COMMIT_EVERY
                self._commit()
        self._commit()
        self._writer.drop_files()

    def _take(self, messages: Sequence[Message], ended: Sequence[bytes]) -> None:
        if not self._began:
            self._writer.begin(self._now)
            self._began = True
        for message in messages:
            self._writer.take(message)
        self._writer.take_ended(EndedFlows(*ended))

    def _commit(self) -> None:
        if not self._began:
            return
        if time.monotonic() >= self._prune_due:
            self._prune_due = time.monotonic() + PRUNE_EVERY
            self._bytes = prune(self._folder, self._keep, self._size, self._now)
            if self._geoip.changed():
                self._geoip.open()
                self._writer.forget_places()
        if self._bytes > self._size:
            self._fail("today's flows alone take more than --log-size", f"--log-size {2 * self._size >> 20}M")
        else:
            self._guarded(lambda: self._writer.commit(self._now))
        if self._writer.waiting > MOST_UNWRITTEN and self._failing_since is not None:
            self._writer.give_up(self._failing_since)
        self._report()

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do what may find the disk full, the folder gone or a file damaged."""
        import sqlite3

        try:
            work()
            self._failing_since = self._problem = None
        except sqlite3.OperationalError as error:
            self._fail(f"the flow log is not written: {clean(str(error), 80)}", f"df -h {shlex.quote(self._folder)}")
        except sqlite3.DatabaseError as error:
            why = str(error)
            self._again(lambda: self._writer.set_aside_damaged(self._now, why))
        except FileNotFoundError:
            self._again(lambda: self._writer.begin_anew(self._now, "the log's folder was removed"))
        except OSError as error:
            self._fail(f"the flow log is not written: {error.strerror}", f"df -h {shlex.quote(self._folder)}")

    def _again(self, work: Callable[[], None]) -> None:
        """Begin a file anew, then ask for all flows: those without an end have lost their rows."""
        import sqlite3

        try:
            work()
            _tell({"again": True})
        except Refused as refusal:
            self._fail(refusal.what, refusal.cure)
        except (sqlite3.Error, OSError) as error:
            self._fail(f"the flow log is not written: {clean(str(error), 80)}", f"ls -ld {shlex.quote(self._folder)}")

    def _fail(self, what: str, cure: str) -> None:
        self._failing_since = self._failing_since or self._now
        self._problem = what, cure

    def _report(self) -> None:
        found = sizes(self._folder)
        since = self._writer.since()
        days = max((self._now - since) / DAY_SECONDS, 1 / 24)
        _tell(
            {
                **{"alive": self._now, "since": since, "bytes": sum(found.values())},
                **{"pace": sum(found.values()) / days, "problem": self._problem, "aside": self._writer.set_aside},
            }
        )


# --- the loop's side --------------------------------------------------------------------------------------------------

GATHER = 1.0  # seconds between two batches
PASS_EVERY = 60.0  # seconds between two looks at all flows
PASS_STEP = 5000  # flows that are looked at in a turn of the loop: 2 ms
MOST_BEHIND = 64 << 20  # bytes that wait for the writer: 200,000 flows
STEPPED_BY = 1.0  # seconds: a smaller step of the clock is no gap
AGAIN = (1.0, 5.0, 30.0)  # seconds until the writer is started again, after so many failures
REFUSED_AGAIN = 5.0  # seconds until a folder that was refused is looked at again
LAST_WORDS = 10.0  # seconds for the writer to end after us


@dataclass(frozen=True)
class LogPlan:
    """What the command line says of the log."""

    folder: str
    keep: float = 30.0  # days
    size: int = 2 << 30  # bytes
    called: str = ""  # the words that start this program

    def setup(self, node: str, databases: Sequence[str], site: Site) -> Setup:
        return Setup(
            folder=self.folder,
            keep=self.keep,
            size=self.size,
            node=node,
            databases=list(databases),
            networks=list(map(str, site.networks)),
        )


@dataclass(frozen=True)
class LogState:
    """How the log is doing, for people."""

    plan: LogPlan
    alive: float | None = None  # it is written up to then
    since: float | None = None  # ... and begins there
    bytes: int = 0
    pace: float = 0.0  # bytes a day
    problem: Problem | None = None
    refused: Problem | None = None
    holder: int = 0  # another process that writes it
    aside: str = ""  # what happened to a damaged file

    def text(self) -> str:
        """How far back it goes, how large it is, and how far back it will go at the present pace."""
        plan = self.plan
        shown = clean(plan.folder, 60)
        if self.alive is None or self.since is None:
            return f"{shown}: nothing is written yet"
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.since))
        reach = min(plan.keep, plan.size / self.pace) if self.pace > 0 else plan.keep
        why = "--log-keep" if reach >= plan.keep else "--log-size"
        return (
            f"{shown}, since {since}: {size_text(self.bytes)} of {size_text(plan.size)};"
            f" at the present pace it keeps {reach:.0f} days ({why})"
        )


NONE_ENDED = EndedFlows(b"", b"", b"", b"", b"")


class FlowLog:
    """What the loop holds of the log. It never waits for the writer."""

    def __init__(self, plan: LogPlan, setup: Setup, epoch: Callable[[], float]) -> None:
        """``epoch``: what to add to the source's clock for seconds since 1970."""
        self.state = LogState(plan)
        self._setup, self._epoch_of = setup, epoch
        self._epoch = epoch()
        self._child: Child | None = None
        self._failures = 0
        self._start_due = 0.0
        self._batch: list[Message] = []
        self._texts: list[bytes] = []  # of flows that are over, and beside it what else is known of each
        self._ended_groups, self._starts, self._ends, self._swept = array("L"), array("d"), array("d"), bytearray()
        self._out: deque[memoryview] = deque()
        self._out_size = 0
        self._due = self._pass_due = 0.0
        self._passed_day = -1
        self._left: list[Flow] = []  # still to be looked at in this pass
        self._told: dict[bytes, int] = {}  # what was told of a flow that has a row
        self._groups: dict[Group, int] = {}
        self._own: object = None
        self._gaps: dict[str, float] = {}
        self._dropped: tuple[float, int] | None = None  # since when the writer was too far behind, and the flows
        self._listings = 0
        self._started = 0.0  # when the writer was started, by the source's clock

    # --- what the table tells ---

    def ended(self, flow: Flow) -> None:
        """A flow has ended."""
        its, epoch = flow.progress, self._epoch
        told = self._told.pop(flow.key, None)
        counted = its.listed is None or b"packets=" in flow.tail
        if told is None and its.exact and counted and flow.kind.number in WITH_PORTS and b"|" not in flow.key:
            self._texts.append(flow.text)
            self._ended_groups.append(self._group(flow.group))
            self._starts.append(flow.born + epoch)
            self._ends.append((its.ended or 0.0) + epoch)
            self._swept.append(its.inferred)
            return
        self._batch.append(
            (
                *(ENDED, self._group(flow.group), flow.key, flow.tail, its.listed, flow.birth() + epoch),
                *(flow.knows_age(), (its.ended or 0.0) + epoch, its.inferred),
            )
        )

    def _open(self, flow: Flow, now: float) -> None:
        its, epoch = flow.progress, self._epoch
        number = self._group(flow.group)
        said = hash((number, flow.tail, its.listed))
        if self._told.get(flow.key) != said:
            self._told[flow.key] = said
            start = flow.birth() + epoch
            self._batch.append((OPEN, number, flow.key, flow.tail, its.listed, start, flow.knows_age(), now + epoch))

    def _group(self, group: Group) -> int:
        if (number := self._groups.get(group)) is None:
            number = self._groups[group] = len(self._groups)
            self._batch.append((GROUP, number, *group.kind, group.state))
        return number

    # --- the loop ---

    def fds(self) -> list[int]:
        return self._child.fds() if self._child else []

    def deadline(self) -> float:
        """When ``poll`` must be called, on the scale of time.monotonic()."""
        soon = self._left or self._out
        return min(self._due, time.monotonic() + 0.05) if soon else self._due

    def poll(self, table: FlowTable, status: Status, now: float) -> None:
        """Do what is due; ``now`` by the source's clock."""
        moment = time.monotonic()
        if self._child is None:
            if self.state.holder or moment < self._start_due:
                self._batch.clear()
                self._forget_ended()
                self._due = max(moment + GATHER, min(self._start_due, moment + GATHER))
                return
            self._start(now)
        if self._child is not None:
            self._hear(self._child)
        self._pass(now)
        if moment >= self._due:
            self._due = moment + GATHER
            self._look(table, status, now)
            self._send(now)
        self._flush()

    def _look(self, table: FlowTable, status: Status, now: float) -> None:
        """Once a second: clock, gaps, own addresses, and whether a pass is due."""
        epoch, before = self._epoch_of(), self._epoch
        if abs(epoch - before) > STEPPED_BY:
            reason = f"the clock was set {'forward' if epoch > before else 'back'} by {abs(epoch - before):.0f} s"
            first, last = sorted((now + before, now + epoch))
            self._batch += [(GAP_BEGAN, reason, first), (GAP_OVER, reason, last)]
        self._epoch = epoch
        if table.own is not self._own:
            self._own = table.own
            self._batch.append((OWN, sorted(table.own)))
        self._look_at_gaps(table, status, now)
        day = day_of(now + epoch)
        if day != self._passed_day:  # a flow that is there is in the file of today
            self._told.clear()
        first = table.listings > 0 and self._listings == 0
        if day != self._passed_day or first or time.monotonic() >= self._pass_due:
            self._passed_day, self._listings = day, table.listings
            self._pass_due = time.monotonic() + PASS_EVERY
            self._left = [flow for flow in table.live.values() if not flow.exact or now - flow.born >= YOUNG]

    def _look_at_gaps(self, table: FlowTable, status: Status, now: float) -> None:
        losing = status.losses > status.healed
        lost_at = (now if status.lost_at is None else status.lost_at) - status.behind
        self._gap(LOSING, losing, lost_at if losing else now)
        self._gap(DEAF, status.facts.get("events") == 0, now)
        self._gap(UNCOUNTED, status.facts.get("acct") == 0, now)
        self._gap(UNHEARD, "events" in status.troubles, now)
        if table.watched_since is not None and NOT_RUNNING not in self._gaps:
            self._gaps[NOT_RUNNING] = table.watched_since  # said once for each start of the writer
            self._batch.append((GAP_OVER, NOT_RUNNING, max(table.watched_since, self._started) + self._epoch))

    def _gap(self, reason: str, is_on: bool, at: float) -> None:
        if is_on and reason not in self._gaps:
            self._gaps[reason] = at
            self._batch.append((GAP_BEGAN, reason, at + self._epoch))
        elif not is_on and self._gaps.pop(reason, None) is not None:
            self._batch.append((GAP_OVER, reason, at + self._epoch))

    def _pass(self, now: float) -> None:
        """Tell of some of the flows that are there for longer."""
        piece = self._left[-PASS_STEP:]
        del self._left[-PASS_STEP:]
        for flow in piece:
            if flow.progress.ended is None:
                self._open(flow, now)

    # --- the writer ---

    def _start(self, now: float) -> None:
        argv = [sys.executable, os.path.abspath(sys.argv[0]), "--no-config", "--log-writer", self.state.plan.folder]
        try:
            self._child = Child(argv, fed=True)
        except OSError as error:
            self._fail(Problem(f"the flow log's writer could not be started: {error.strerror}"))
            return
        self._started = now
        for kept in (self._out, self._told, self._groups, self._gaps):
            kept.clear()
        self._out_size, self._own, self._listings = 0, None, 0
        self._batch = []
        self._forget_ended()
        self._put((now + self._epoch, self._setup))

    def _fail(self, problem: Problem) -> None:
        self.state = replace(self.state, problem=problem)
        self._start_due = time.monotonic() + AGAIN[min(self._failures, len(AGAIN) - 1)]
        self._failures += 1

    def _send(self, now: float) -> None:
        """Hand the batch over; where too much waits already, it is dropped and counted."""
        if self._child is None:
            return
        batch, self._batch = self._batch, []
        ended = self._take_ended()
        if self._out_size > MOST_BEHIND:
            since, number = self._dropped or (now, 0)
            self._dropped = since, number + len(ended.swept) + sum(message[0] == ENDED for message in batch)
            ended = NONE_ENDED
            # What says how things are must not be lost: only flows are.
            batch = [message for message in batch if message[0] not in (ENDED, OPEN)]
        elif self._dropped is not None:
            since, number = self._dropped
            self._dropped = None
            self._told.clear()
            reason = f"{number} flows came faster than the log could be written"
            batch += [(GAP_BEGAN, reason, since + self._epoch), (GAP_OVER, reason, now + self._epoch)]
        self._put((now + self._epoch, (batch, tuple(ended))))

    def _take_ended(self) -> EndedFlows:
        """What is to be handed over of flows that are over; from now on others are gathered."""
        text = b"\n".join(self._texts)
        columns = self._ended_groups.tobytes(), self._starts.tobytes(), self._ends.tobytes(), bytes(self._swept)
        self._forget_ended()
        return EndedFlows(text, *columns)

    def _forget_ended(self) -> None:
        self._texts.clear()
        for column in (self._ended_groups, self._starts, self._ends, self._swept):
            del column[:]

    def _put(self, frame: tuple[float, Any]) -> None:
        data = marshal.dumps(frame)
        self._out.append(memoryview(len(data).to_bytes(4, "big") + data))
        self._out_size += len(data) + 4

    def _flush(self) -> None:
        while self._child is not None and self._out:
            taken = self._child.feed(self._out[0])
            self._out_size -= taken
            if taken < len(self._out[0]):
                self._out[0] = self._out[0][taken:]
                return
            self._out.popleft()

    def _hear(self, child: Child) -> None:
        for line in child.read().decode("utf-8", "replace").splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a line that was cut when it was killed
                self._take_report(json.loads(line))
        child.read_errors()
        if (status := child.ended()) is not None:
            child.stop()
            self._child = None
            if self.state.refused is not None:
                self._start_due = time.monotonic() + REFUSED_AGAIN
            else:
                self._fail(child.problem(status))

    def _take_report(self, said: dict[str, Any]) -> None:
        if "refused" in said:
            self.state = replace(self.state, refused=Problem(*said["refused"]), holder=said["holder"])
        elif "again" in said:
            self._told.clear()
            self._pass_due = 0.0
        else:
            self._failures = 0
            problem = Problem(*said["problem"]) if said["problem"] else None
            found = {name: said[name] for name in ("alive", "since", "bytes", "pace", "aside")}
            self.state = replace(self.state, refused=None, problem=problem, **found)

    def close(self, table: FlowTable, now: float) -> None:
        """Tell of all flows that are there, and wait a while for the writer to write it."""
        child = self._child
        if child is None:
            return
        for flow in table.live.values():
            self._open(flow, now)
        self._send(now)
        until = time.monotonic() + LAST_WORDS
        while self._out and time.monotonic() < until and child.feed_soon(until):
            self._flush()
        child.end_feed()
        while not child.is_over() and time.monotonic() < until:
            child.read()
            time.sleep(0.005)
        child.stop()
