"""Keeping the flow log: what the loop tells of flows and of gaps, and the process that writes it into the day files.

sqlite3 lets other threads run at each of its steps: a thread beside the loop would wait 5 ms, Python's switch interval,
for each of 5,000 rows a second. So another process writes, and a disk that stands still stops that process only.
"""

from __future__ import annotations

import contextlib
import errno
import json
import marshal
import math
import os
import re
import select
import shlex
import signal
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import compress, repeat
from typing import Any, NamedTuple, TypedDict

from addresses import Context, Ends, Lookups, Site
from child import Child, this_program
from devices import Directory
from flows import Counts, Flow, FlowTable, Group, LastSeen, Progress, id_in
from grouping import protocol_name, service_key, service_of
from intake import Problem, Status
from parse import WITH_PORTS, Kind, usual
from past import (
    CUT_OFF,
    DAY_SECONDS,
    DEAF,
    HOUR_SECONDS,
    LOSING,
    NO_SQLITE,
    NOT_RUNNING,
    UNCOUNTED,
    UNHEARD,
    UNKNOWN,
    YOUNG,
    DayFile,
    FirstSeen,
    FlowValues,
    Mark,
    Refused,
    Unfinished,
    covered,
    day_file,
    day_files,
    day_name,
    day_of,
    hold,
    host_label,
    hour_of,
    make_folder,
    prune,
    set_aside,
    sizes,
    still_holds,
)
from text import clean, size_text

# --- writing ----------------------------------------------------------------------------------------------------------

# Seconds; with the one in which the loop gathers, a crash loses 3 s of closed flows, and 10 s are promised.
COMMIT_EVERY = 2.0
MOST_UNWRITTEN = 200_000  # rows kept while the disk takes nothing: 100 MiB; those beyond are a gap
STARTING = 10.0  # seconds for which a log that is new waits for the first tables of several nodes, and begins then
LATE_DESTROY = 10.0  # seconds for which, at least, the flows that were swept are remembered
SAME_BIRTH = 2.0  # seconds: delta-time is in whole ones
PRUNE_EVERY = 60.0  # seconds between two looks at what is too old or too much
NO_NAME = 0

# Text of a flow with ports, from its original tuple on, as almost all are; the last group has any other text.
_USUAL_END = re.compile(
    (
        rb"^(?:src=@ dst=@ sport=# dport=# (?:packets=# bytes=# )?(?:\[UNREPLIED\] )?"
        rb"(?:=|src=@ dst=@ sport=# dport=#)(?: packets=# bytes=#)?(?: \[(?:ASSURED|OFFLOAD|HW_OFFLOAD)\])?"
        rb"(?: mark=#)?(?: delta-time=\d+)?(?: use=\d+)?(?: id=\d+)?|(.*))$"
    )
    .replace(b"@", rb"([0-9a-f.:]+)")
    .replace(b"#", rb"(\d{1,18})"),  # more digits are more than SQLite holds: see MOST_COUNTED
    re.M,
)
ORIGINAL_PORTS = re.compile(rb"src=\S+ dst=\S+ sport=\d+ dport=\d+ ")


class EndedFlows(NamedTuple):
    """Flows that are over, column by column, so that one expression takes the texts of all of them apart."""

    text: bytes  # of each flow a line, from its original tuple on
    groups: bytes  # numbers, array("L")
    starts: bytes  # array("d")
    ends: bytes

    def columns(self) -> list[Sequence[Any]]:
        """The groups of _USUAL_END, then groups, starts and ends."""
        others = array("L", self.groups), array("d", self.starts), array("d", self.ends)
        return [*zip(*_USUAL_END.findall(self.text)), *others]


# What the loop tells the writer: a tuple that begins with one of these.
# PASSED: all flows that were born before a time have been told, and were there at another one.
# UNSEEN: from now on flows may end and nobody tells.
# OF_NODE: whose messages follow; of the first node, if nothing says it.
GROUP, ENDED, OPEN, OWN, GAP_BEGAN, GAP_OVER, PASSED, UNSEEN, CLOCK_SET, ALL_ENDED, TOLD_NAMES, OF_NODE = range(12)
Message = tuple[Any, ...]
NumberColumn = list[int] | None  # see past.Columns
OF_FLOWS = ENDED, OPEN, ALL_ENDED
UNUSUAL = -4  # the column of EndedFlows for texts of any other kind; groups, starts and ends follow


def ends_in(message: Message) -> int:
    """The flows that have ended, by what a message tells."""
    if message[0] == ALL_ENDED:
        return len(message[2]) // array("L").itemsize
    return int(message[0] == ENDED and not message[-1])  # whose end was not told before, by a listing


class Setup(TypedDict):
    """What the writer is told first, and nothing else about the command line."""

    folder: str
    keep: float  # days
    size: int  # bytes
    nodes: list[str]
    databases: list[str]
    networks: list[str]


class OpenGap(NamedTuple):
    """A gap that goes on; its number is 0 until it is in a file."""

    since: float
    day: int
    number: int = 0


class Note(NamedTuple):
    """A gap that is over and is to be written."""

    since: float
    until: float
    reason: str
    day: int
    number: int = 0


class Told(NamedTuple):
    """When a flow was told: its end, or when it was there; and since when that is not certain."""

    at: float
    seen: float | None  # when it was seen last; None: the kernel told its end
    counted: float  # when its counters were read


class Damaged(Exception):
    """A day's file can't be read or written, whatever room there is."""

    def __init__(self, day: int, why: str) -> None:
        super().__init__(why)
        self.day, self.why = day, why


@contextlib.contextmanager
def _told_apart(day: int) -> Iterator[None]:
    """A full disk is one thing, a damaged file another. Raises sqlite3.OperationalError or Damaged."""
    import sqlite3

    try:
        yield
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        raise Damaged(day, str(error)) from None


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


class _Numbers:
    """Numbers that a day's file has for what flows say. Those of near ends' names are asked for anew: names change."""

    def __init__(self, file: DayFile, writer: NodeRows) -> None:
        self.file, self.node = file, file.name(writer.node)
        self.ints: dict[bytes, int] = _Asking(lambda digits: int(digits or 0))  # a third of what int() takes
        self.hosts: dict[bytes, int] = _Asking(lambda address: file.host(address.decode()))
        self.names: dict[bytes, int] = _Asking(lambda address: writer.near_end(file, address.decode()))
        self.places: dict[bytes, int] = _Asking(lambda address: writer.far_end(file, address.decode()))
        self.kinds: dict[tuple[int, bool, bool, int, bool], int] = _Asking(lambda its: writer.usual_kind(file, *its))
        self.services: dict[tuple[int, bytes], int] = _Asking(lambda its: writer.service(file, *its))


class Writer:
    """The flow log as the process sees it that writes it, for all nodes. ``take`` gathers, ``commit`` writes."""

    def __init__(self, folder: str, nodes: Mapping[str, Context]) -> None:
        self.folder = folder
        self._nodes = {node: NodeRows(node, context, self) for node, context in nodes.items()}
        self._current = next(iter(self._nodes.values()))  # whose messages come
        self._files: dict[int, DayFile] = {}
        self._first_seen: FirstSeen | None = None
        self._met: set[tuple[str, str]] = set()  # hosts, countries, networks and services that may be new
        self._swept_until = 0.0
        self._lost: tuple[float, int] | None = None  # since when flows were given up, and how many
        self.now = 0.0  # the newest time that the loop has told
        self._begins: dict[int, float] = {}  # of a day's file
        self.set_aside = ""  # what happened to a damaged file

    def take(self, message: Message) -> None:
        """Raises sqlite3.Error, Damaged and OSError where a day's file can't be opened; it can be taken again then."""
        if message[0] == OF_NODE:
            self._current = self._nodes[message[1]]
        else:
            self._current.take(message)

    # --- files ---

    def begin(self, now: float) -> None:
        """Take up what an earlier run has left. Raises sqlite3.Error and OSError; it can be called again then."""
        self.now, newest = now, None
        today = day_of(now)
        for day in [day for day in day_files(self.folder) if day <= today][-2:]:
            file = self.file(day)
            try:
                self._take_up(file)
            except Damaged as damage:
                self.set_aside_damaged(damage)
                file = self.file(day)
            file.end_gaps()
            if not file.fresh:
                newest = file
        for node in self._nodes.values():
            node.begin(now, newest, is_alone=len(self._nodes) == 1)
        self.file(today)

    def _take_up(self, file: DayFile) -> None:
        """The flows that are unfinished in a file may be seen again; until then they ended when it was written last."""
        with _told_apart(file.day):
            found = file.earlier()
        for name, key, flow in found:
            if (node := self._nodes.get(name)) is not None:
                node.take_up(key, flow)
            else:  # nobody looks at its machine any more
                file.finish(flow.id)
        file.end_open()

    def file(self, day: int) -> DayFile:
        if (file := self._files.get(day)) is not None:
            return file
        now = max(self.now, day * DAY_SECONDS)
        try:
            with _told_apart(day):
                file = DayFile(self.folder, day, now, self._told_by_all(NodeRows.whole_up_to))
        except Damaged as damage:
            self._put_aside(day, damage.why)
            file = DayFile(self.folder, day, now, self._told_by_all(NodeRows.whole_up_to))
        self._files[day] = file
        return file

    def end_open(self) -> None:
        """From now on nobody tells when flows end that are open in the files."""
        for file in self._files.values():
            file.end_open()

    def begin_at(self, moment: float) -> None:
        """What was there before that is not known."""
        file = self.file(day_of(self.now))
        file.begin_at(moment if len(self._nodes) == 1 else max(moment, file.began))

    def began_before(self, day: int, at: float) -> bool:
        """Is there a file of that day, which began before that time?"""
        file = self._files.get(day)
        return file is not None and file.began < at

    def _put_aside(self, day: int, why: str) -> None:
        name = day_file(day)
        other = set_aside(os.path.join(self.folder, name))
        self.set_aside = f"{name} is damaged ({clean(why, 60)}): set aside as {other}"
        begins = float(day * DAY_SECONDS)
        until = min(max(self.now, begins), begins + DAY_SECONDS)
        self._note(Note(begins, until, f"the file of {day_name(day)} was damaged and is set aside", day))

    def _note(self, note: Note) -> None:
        """A gap of all nodes."""
        for node in self._nodes.values():
            node.note(note)

    def _told_by_all(self, of: Callable[[NodeRows], float | None]) -> float | None:
        """The earliest of all nodes' times; None where none has told one."""
        return min((at for node in self._nodes.values() if (at := of(node)) is not None), default=None)

    def drop(self, day: int, number: int) -> None:
        """A row moves to another file, where its own is not deleted already."""
        if number and (file := self.kept(day)) is not None:
            file.drop(number)

    def kept(self, day: int) -> DayFile | None:
        """The file of a day, where it is not deleted."""
        return self.file(day) if day in self._files or day in day_files(self.folder) else None

    # --- writing ---

    def commit(self, now: float) -> None:
        """Write what was gathered, and that it is all up to ``now``. Raises sqlite3.Error, Damaged and OSError."""
        self.now, today = now, day_of(now)
        self._look_for_files()
        self.file(today)
        if self._lost is not None:
            since, number = self._lost
            whose = "" if len(self._nodes) == 1 else " of all machines"
            self._note(Note(since, now, f"{number} flows{whose} could not be written", today))
            self._lost = None
        if late := now > self._swept_until:
            self._swept_until = now + LATE_DESTROY
        for node in self._nodes.values():
            node.settle(today, late)
        told = self._told_by_all(NodeRows.whole_up_to), self._told_by_all(NodeRows.seen_at)
        # Today's first: a flow that moves is in both files for a moment, and not in none.
        for file in sorted(self._files.values(), key=lambda file: file.day, reverse=True):
            with _told_apart(file.day):
                file.commit(*((now, *told) if file.day == today else (None,)))
            if file.day < today - 1 or (file.day < today and now - today * DAY_SECONDS > LATE_ENDS):
                self._files.pop(file.day).close()
        self._learn(now)

    def _learn(self, now: float) -> None:
        """Note what was not there before: hosts, countries, networks, services. Raises sqlite3.Error and OSError."""
        if self._first_seen is not None and not self._first_seen.is_there():
            self._close_first_seen()
            self.forget_places()  # who asks for numbers meets all of them again
        if self._first_seen is None:
            self._first_seen = FirstSeen(self.folder)
        self._first_seen.learn(self._met, now)
        self._met.clear()

    def _close_first_seen(self) -> None:
        if self._first_seen is not None:
            self._first_seen.close()
            self._first_seen = None

    def let_go(self) -> None:
        """Close all files but today's: they may be deleted. Raises what ``commit`` raises."""
        self.commit(self.now)
        for day in [day for day in self._files if day != day_of(self.now)]:
            self._files.pop(day).close()

    def give_up(self, more: int = 0) -> None:
        """Too much waits to be written: forget it, and note the gap when there is room again. Raises sqlite3.Error.

        ``more``: flows that were not even taken. What is on disk of flows that are still there is taken up from there.
        """
        number = more + sum(file.give_up() for file in self._files.values())
        first = min((file.certain for file in self._files.values()), default=self.now)
        since, before = self._lost or (first, 0)
        self._lost = since, before + number
        for node in self._nodes.values():
            node.forget_flows()
        for file in sorted(self._files.values(), key=lambda file: file.day):
            self._take_up(file)

    def since(self) -> float:
        """When the log begins: with the oldest file, which may have begun in the middle of its day."""
        oldest = next(iter(day_files(self.folder)), None)
        if oldest is None:
            return self.now
        if oldest not in self._begins:
            self._begins[oldest] = covered(self.folder, oldest).began
        file = self._files.get(oldest)
        return file.began if file else self._begins[oldest]

    @property
    def waiting(self) -> int:
        return sum(file.waiting for file in self._files.values())

    def written_before(self, at: float) -> float:
        """Up to when the log was written by then."""
        for day in sorted((day for day in day_files(self.folder) if day <= day_of(at)), reverse=True):
            file = self._files.get(day)
            alive = file.alive if file else covered(self.folder, day).alive
            if alive < at:
                return alive
        return -math.inf

    def _look_for_files(self) -> None:
        """What was removed is begun anew. Raises FileNotFoundError once, so that all flows are told again."""
        gone = [file for file in self._files.values() if not file.is_there()]
        for file in gone:
            self._lose(file.day)
            until = min(self.now, file.begins + DAY_SECONDS)
            reason = f"the file of {day_name(file.day)} was removed"
            self._note(Note(min(file.began, until), until, reason, day_of(self.now)))
        if gone:
            self.set_aside = f"{gone[0].path} was removed while in use: a new file is started"
            raise FileNotFoundError(errno.ENOENT, "removed", gone[0].path)

    def _lose(self, day: int) -> None:
        """The rows of a day's file are lost, and what was gathered for it. Gaps that go on are written again."""
        self._files.pop(day).close()
        for node in self._nodes.values():
            node.lose(day)

    def forget_places(self) -> None:
        """The databases are others now."""
        for node in self._nodes.values():
            node.forget_numbers()

    def meet(self, *found: tuple[str, str]) -> None:
        """Hosts, countries, networks and services that may be new."""
        self._met.update(found)

    def drop_files(self) -> None:
        self.forget_places()
        self._close_first_seen()
        for file in self._files.values():
            file.close()
        self._files.clear()

    def set_aside_damaged(self, damage: Damaged) -> None:
        """A file that was open turned out to be damaged. Raises OSError."""
        self._put_aside(damage.day, damage.why)
        self._lose(damage.day)


class NodeRows:
    """What the loop tells of a node, as rows of the days' files."""

    def __init__(self, node: str, context: Context, log: Writer) -> None:
        self.node, self._context, self._log = node, context, log
        self._names = Directory()  # of near ends, as the loop has told it
        self._groups: dict[int, Group] = {}
        self._numbers: _Numbers | None = None
        self._unfinished: dict[bytes, Unfinished] = {}
        self._earlier: dict[bytes, Unfinished] = {}  # flows that may be seen again
        self._swept: dict[bytes, Unfinished] = {}  # of late: a DESTROY may be on its way
        self._swept_before: dict[bytes, Unfinished] = {}  # those of the LATE_DESTROY seconds before
        self._gaps: dict[str, OpenGap] = {}
        self._notes: list[Note] = []
        self._first = True  # nothing was written there before
        self._began, self._unknown_until = (
            0.0,
            math.inf,
        )  # it is a gap from then on, if it lasts so long till it is read
        self._whole: float | None = None  # the flows that were born before have been told
        self._seen: float | None = None  # all that are open were there then

    def whole_up_to(self) -> float | None:
        return self._whole

    def seen_at(self) -> float | None:
        return self._seen

    # --- an earlier run ---

    def begin(self, now: float, newest: DayFile | None, is_alone: bool) -> None:
        """``newest``: the file that an earlier run has written last. ``is_alone``: there is no other node."""
        self._first, self._began = newest is None, now
        self._unknown_until = math.inf if is_alone else now + STARTING
        today = day_of(now)
        if newest is not None:
            self._whole = min(now, newest.alive)  # what may be missing before that is a gap
            if newest.alive > now:
                reason = "the clock was set back while the log was not written"
                self._notes.append(Note(now, newest.alive, reason, today))
            self._gaps[NOT_RUNNING] = OpenGap(min(now, newest.alive), today)
            if newest.whole < newest.alive:
                self._notes.append(Note(newest.certain, newest.alive, CUT_OFF, today))

    def take_up(self, key: bytes, flow: Unfinished) -> None:
        """A flow that an earlier run has left unfinished."""
        before = self._earlier.get(key)
        if before is not None and before.day < flow.day and before.kernel_id == flow.kernel_id:
            self._log.drop(before.day, before.id)  # it was being moved
        self._earlier[key] = flow

    # --- taking in ---

    def take(self, message: Message) -> None:
        """Raises sqlite3.Error, Damaged and OSError where a day's file can't be opened; it can be taken again then."""
        what = message[0]
        if what == ENDED:
            _, group, key, tail, listed, start, exact, end, seen, _ = message
            self._end(self._flow(group, key, tail, listed, start, exact), Told(end, seen, end))
        elif what == OPEN:
            _, group, key, tail, listed, start, exact, at, seen, counted = message
            self._go_on(self._flow(group, key, tail, listed, start, exact), Told(at, seen, min(at, counted)))
        elif what == GROUP:
            _, number, family, protocol, protocol_number, state = message
            self._groups[number] = Group(Kind(family, protocol, protocol_number), state)
        elif what == OWN:
            self._context.advance(self._log.now, frozenset(message[1]))
        elif what == TOLD_NAMES:
            self._names = Directory(Site(hosts=dict(message[1])))
        elif what == GAP_BEGAN:
            self._begin_gap(*message[1:])
        elif what == GAP_OVER:
            self._end_gap(*message[1:])
        elif what == PASSED:
            self._passed(*message[1:])
        elif what == UNSEEN:
            self._lose_sight()
        elif what == CLOCK_SET:
            self._clock_was_set(*message[1:])
        elif what == ALL_ENDED:
            self._take_ended(EndedFlows(*message[1:]))

    def _take_ended(self, ended: EndedFlows) -> None:
        """Take in flows that are over and have no row yet: 8 to 14 us each, where the others take 35."""
        columns = ended.columns()
        days = set(map(day_of, (min(columns[-1]), max(columns[-1]))))
        if len(days) > 1:
            days = set(map(day_of, columns[-1]))
        for day in days:  # what can't be opened is found now, before any of them is taken
            self._log.file(day)
        if any(unusual := columns[UNUSUAL]):
            for flow in zip(*columns[UNUSUAL:]):
                if flow[0]:
                    self._take_unusual(*flow)
            columns = _rows_of(columns, [not text for text in unusual])
        for day in sorted(days):
            of_day = _rows_of(columns, [day_of(end) == day for end in columns[-1]]) if len(days) > 1 else columns
            if of_day[-1]:
                self._put_usual(self._numbers_of(day), *of_day[:UNUSUAL], *of_day[UNUSUAL + 1 :])

    def _numbers_of(self, day: int) -> _Numbers:
        file = self._log.file(day)
        if self._numbers is None or self._numbers.file is not file:
            self._numbers = _Numbers(file, self)
        return self._numbers

    def _put_usual(self, numbers: _Numbers, *usual: Sequence[Any]) -> None:
        """Each expression here is one for all flows of a second: taken one by one, they cost twice as much."""
        src, dst, sport, dport, packets, size, reply_src, reply_dst, reply_sport, reply_dport, *others = usual
        back_packets, back_size, marks, groups, starts, ends = others
        if b"" in reply_src:
            reply_src, reply_dst, reply_sport, reply_dport = (
                [its or mirrored for its, mirrored in zip(column, other)]
                for column, other in zip(usual[6:10], (dst, src, dport, sport))
            )
        sides, inward, near, far = self._sides(src, dst, reply_src, reply_dst)
        hosts, numbered, begins = numbers.hosts.__getitem__, numbers.ints.__getitem__, numbers.file.begins
        places, names = list(map(numbers.places.__getitem__, far)), list(map(numbers.names.__getitem__, near))
        from_, to, back_to = (list(map(hosts, addresses)) for addresses in (src, dst, reply_dst))
        answers = [host if a == b else hosts(b) for host, a, b in zip(to, dst, reply_src)]
        snat = [a != b or c != d for a, b, c, d in zip(from_, back_to, sport, reply_dport)]
        dnat = [a != b or c != d for a, b, c, d in zip(to, answers, dport, reply_sport)]
        start_ms, end_ms = ([round((at - begins) * 1000) for at in times] for times in (starts, ends))
        first, last = hour_of(min(end_ms)), hour_of(max(end_ms))
        hours = repeat(first) if first == last else map(hour_of, end_ms)
        services = list(map(numbers.services.__getitem__, zip(groups, dport)))
        there, back = _counters_of(packets, size, back_packets, back_size)
        numbers.file.put_ended(
            [
                list(map(numbers.kinds.__getitem__, zip(groups, snat, dnat, sides, inward))),
                *(start_ms, end_ms, from_, list(map(int, sport)), to, list(map(numbered, dport))),
                *_if_translated(dnat, answers, reply_sport),
                *_if_translated(snat, back_to, reply_dport),
                *(*there, *back, list(map(numbered, marks)), names if any(names) else None, services),
            ],
            list(zip(map(hosts, near), hours, places, services, names, repeat(numbers.node))),
            *_in_and_out(inward, there[1], back[1]),
        )

    def _sides(self, *addresses: Sequence[bytes]) -> tuple[list[int], list[bool], list[bytes], list[bytes]]:
        """Which address of each flow is the remote end, whether that one opened it, the near and the far ends."""
        known, remote_side = self._context.known, self._context.known.remote_side
        src, dst, reply_src, reply_dst = addresses
        sides = [2 if known[c].far else remote_side(a, b, c, d) for a, b, c, d in zip(src, dst, reply_src, reply_dst)]
        far = [its[side] for side, its in zip(sides, zip(*addresses))]
        inward = [end in both for end, both in zip(far, zip(src, reply_dst))]
        near = [answers if inside else opener for inside, answers, opener in zip(inward, reply_src, src)]
        return sides, inward, near, far

    def _take_unusual(self, text: bytes, group: int, start: float, end: float) -> None:
        """A flow whose text has words that routers rarely print."""
        original = ORIGINAL_PORTS.match(text)
        if original is not None:
            key, tail = self._groups[group].prefix + original.group(), text[original.end() :]
            self._end(self._flow(group, key, tail, None, start, True), Told(end, None, end))

    def _flow(self, group: int, key: bytes, tail: bytes, listed: bytes | None, start: float, exact: bool) -> Flow:
        flow = Flow(key, self._groups[group], start, Progress(exact=exact, listed=listed), LastSeen(start, 0))
        flow.tail = tail
        return flow

    def _known(self, flow: Flow, kernel_id: int | None) -> Unfinished | None:
        """The row that the flow has already: of this run, or left by an earlier one."""
        known = self._unfinished.get(flow.key)
        if known is not None:
            # The end may be told of a flow that had this key before.
            return None if None not in (known.kernel_id, kernel_id) and known.kernel_id != kernel_id else known
        if (old := self._earlier.get(flow.key)) is None:
            return None
        counts = _storable(flow)
        goes_on = counts is None or old.counts is None or counts.original_packets >= old.counts.original_packets
        is_younger = flow.exact and flow.born > old.start + SAME_BIRTH
        return None if kernel_id != old.kernel_id or not goes_on or is_younger else old

    def _forget(self, key: bytes, known: Unfinished | None) -> None:
        if known is not None and self._unfinished.pop(key, None) is None:
            self._earlier.pop(key, None)

    def _end(self, flow: Flow, told: Told) -> None:
        kernel_id = id_in(flow.progress.listed or flow.tail)
        known = self._known(flow, kernel_id)
        swept = self._swept.get(flow.key) or self._swept_before.get(flow.key)
        if known is None and swept is not None and not flow.exact and swept.kernel_id == kernel_id:
            known = swept  # its DESTROY was read after a listing that no longer had it
        file = self._log.file(day_of(told.at))
        number = self._put(file, flow, known, told, None)
        self._forget(flow.key, known)
        for some in (self._swept, self._swept_before):
            some.pop(flow.key, None)
        if told.seen is not None:
            start, exact = (known.start, known.exact) if known else (flow.born, flow.exact)
            self._swept[flow.key] = Unfinished(number, file.day, kernel_id, start, exact, _storable(flow))

    def _go_on(self, flow: Flow, told: Told) -> None:
        kernel_id = id_in(flow.progress.listed or flow.tail)
        known = self._known(flow, kernel_id)
        file = self._log.file(day_of(told.at))
        number = self._put(file, flow, known, told, (flow.key, kernel_id))
        self._forget(flow.key, known)
        start, exact, counts = flow.born, flow.exact, _storable(flow)
        if known:
            start, exact, counts = known.start, known.exact, counts or known.counts
        self._unfinished[flow.key] = Unfinished(number, file.day, kernel_id, start, exact, counts)

    def _forget_swept(self) -> None:
        self._swept.clear()
        self._swept_before.clear()

    def _passed(self, whole: float, seen: float) -> None:
        """What an earlier run left and has not been seen by now will not be seen again."""
        self._whole = whole if self._whole is None else max(self._whole, whole)
        self._seen = seen
        for flow in self._earlier.values():
            if (file := self._log.kept(flow.day)) is not None:
                file.finish(flow.id)
        self._earlier.clear()

    def _lose_sight(self) -> None:
        """From now on flows may end, and nobody tells: those that are told again were there all the time."""
        self._earlier |= {key: known for key, known in self._unfinished.items() if known.id}
        self._unfinished.clear()
        self._log.end_open()

    def _put(self, file: DayFile, flow: Flow, known: Unfinished | None, told: Told, unfinished: Mark | None) -> int:
        """Write a flow's row as it is, and add what it moved since the row was written last."""
        sums = self._log.kept(day_of(told.counted)) or file  # of a day that is deleted, they count from midnight on
        number = known.id if known and known.day == file.day else 0
        if known and known.day != file.day:  # a flow is in the file of the day of its end
            self._log.drop(known.day, known.id)
        number = number or file.next_flow()
        start, exact = (known.start, known.exact) if known else (flow.born, flow.exact)
        ends, counts, mark, zone = told_by(flow)
        near_end, far_end, inward = self._context.sides_of_ends(ends)
        name, place = self.near_end(file, near_end), self.far_end(file, far_end)
        reason = "open" if unfinished else "destroy" if told.seen is None else "swept"
        kind = protocol_name(flow.kind), flow.state, NAT_WORDS[ends.snat + 2 * ends.dnat], int(exact)
        values = (
            file.kind(file.name(self.node), reason, *kind, ends.addresses.index(far_end), None),
            *(_ms(start, file), None if unfinished else _ms(told.at, file)),
            *_end_values(file, ends),
            *(counts or NO_COUNTS),
            *(mark or None, zone, name or None, None if told.seen is None else _ms(told.seen, file)),
        )
        file.put(number, values, unfinished, is_new=known is None)
        moved = _moved_since(known.counts if known else None, counts, inward)
        if known is None or any(moved):
            if sums is not file:  # which has numbers of its own
                name, place = self.near_end(sums, near_end), self.far_end(sums, far_end)
            hour, service = hour_of(_ms(told.counted, sums)), self._service(sums, service_key(flow))
            by = sums.host(near_end), hour, place, service, name, sums.name(self.node)
            sums.add(by, (0 if known else 1, *moved))
        return number

    def near_end(self, file: DayFile, address: str) -> int:
        """The number of its name."""
        self._log.meet(("host", address))
        if not (name := self._names.label(address)):
            return NO_NAME
        file.label_host(host_label(address, self.node), name)
        return file.name(name)

    def far_end(self, file: DayFile, address: str) -> int:
        """The number of its place; the address gets its own with it."""
        place = self._context.where(address)
        self._log.meet(("country", place.country or ""), ("network", str(place.asn or "")))
        return file.place(address, place)

    def usual_kind(self, file: DayFile, group: int, snat: bool, dnat: bool, far: int, inward: bool) -> int:
        its = self._groups[group]
        values = protocol_name(its.kind), its.state, NAT_WORDS[snat + 2 * dnat], 1, far, 2 if inward else 0
        return file.kind(file.name(self.node), "destroy", *values)

    def service(self, file: DayFile, group: int, port: bytes) -> int:
        return self._service(file, service_of(self._groups[group].kind, port.decode()))

    def _service(self, file: DayFile, key: str) -> int:
        self._log.meet(("service", key))
        return file.name(key)

    # --- gaps ---

    def _begin_gap(self, reason: str, since: float) -> None:
        if reason not in self._gaps:
            self._gaps[reason] = OpenGap(since, day_of(since))

    def _end_gap(self, reason: str, until: float, said: str = "") -> None:
        """``said``: the reason in its last words."""
        if (gap := self._gaps.pop(reason, None)) is not None:
            self._notes.append(Note(gap.since, max(gap.since, until), said or reason, gap.day, gap.number))
            if reason == NOT_RUNNING:
                self._first = False
        elif reason == NOT_RUNNING and self._first:  # what was there before is known from now on
            self._first = False
            self._log.begin_at(until)

    def _split_gaps(self, day: int) -> None:
        """A gap that goes on beyond midnight is one in the file of each day."""
        for reason, gap in list(self._gaps.items()):
            if gap.day < day:
                midnight = float(day * DAY_SECONDS)
                self._end_gap(reason, midnight)
                self._gaps[reason] = OpenGap(midnight, day)

    def _clock_was_set(self, reason: str, before: float, after: float, since: float) -> None:
        """``since``: from when on the clock had gone as it did before it was set."""
        if after > before:  # nobody looked at the times between; a router without a battery starts in 1970
            if (written := self._log.written_before(after)) > before:
                before = self._whole = written
            self._notes.append(Note(before, after, reason, day_of(after)))
        else:  # these times come twice
            since = after if self._log.began_before(day_of(since), since - 1.0) else since
            self._whole = None if self._whole is None else min(self._whole, after)
            self._notes.append(Note(max(after, since), before, reason, day_of(before)))

    def _note_gaps(self) -> None:
        for note in self._notes:
            file = self._log.file(note.day)
            file.gap(self.node, *note[:3], note.number)
        self._notes.clear()
        for reason, gap in list(self._gaps.items()):
            if not gap.number:
                number = self._log.file(gap.day).gap(self.node, gap.since, None, reason)
                self._gaps[reason] = gap._replace(number=number)

    def note(self, note: Note) -> None:
        self._notes.append(note)

    # --- the files ---

    def settle(self, today: int, late: bool) -> None:
        """Before all is written: note the gaps. ``late``: what was swept some seconds ago has ended."""
        if self._first and self._log.now > self._unknown_until:  # the log has begun with others
            self._first = False
            self._begin_gap(NOT_RUNNING, self._began)
        self._split_gaps(today)
        if self._numbers is not None:
            self._numbers.names.clear()
        if late:
            self._swept_before, self._swept = self._swept, {}
        self._note_gaps()

    def forget_numbers(self) -> None:
        self._numbers = None

    def forget_flows(self) -> None:
        self._unfinished.clear()
        self._earlier.clear()
        self._forget_swept()

    def lose(self, day: int) -> None:
        """The rows of a day's file are lost."""
        begins = day * DAY_SECONDS
        # What a flow moved in hours of days before is in their files; what it moved on that day counts anew.
        self._unfinished = {
            key: known._replace(id=0) if known.day == day else known
            for key, known in self._unfinished.items()
            if known.day != day or known.start < begins
        }
        self._earlier = {key: flow for key, flow in self._earlier.items() if flow.day != day}
        self._forget_swept()
        self._notes = [note._replace(number=0) if note.day == day else note for note in self._notes]
        self._gaps = {reason: gap._replace(number=0) if gap.day == day else gap for reason, gap in self._gaps.items()}


MOST_COUNTED = 1 << 62  # SQLite ends at twice that; the kernel counts further, and no flow ever got there
LATE_ENDS = 120.0  # seconds after midnight for which the file of the day before stays open
NAT_WORDS = None, "snat", "dnat", "both"
NO_COUNTS = None, None, None, None
MOST_CACHED = 200_000  # numbers of addresses: 30 MB


def told_by(flow: Flow) -> tuple[Ends, Counts | None, int, int | None]:
    """Ends, counters, mark and zone of a flow; a usual text is taken apart at once."""
    words = usual(flow.text) if flow.progress.listed is None else None
    if words is None or words[2] is None:  # without ports
        return flow.ends(), _storable(flow), flow.mark(), next(iter(flow.zones()), None)
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
        counts = _bounded(Counts(int(packets), int(words[9] or 0), int(back), int(words[21] or 0)))
    zone = words[24] or words[7] or words[19]
    return ends, counts, int(words[23] or 0), int(zone) if zone else None


def _storable(flow: Flow) -> Counts | None:
    counts = flow.counts()
    return None if counts is None else _bounded(counts)


def _bounded(counts: Counts) -> Counts:
    return counts if max(counts) < MOST_COUNTED else Counts(*(min(count, MOST_COUNTED) for count in counts))


def _rows_of(columns: Sequence[Sequence[Any]], wanted: Sequence[bool]) -> list[Sequence[Any]]:
    return [list(compress(column, wanted)) for column in columns]


def _if_translated(
    translated: Sequence[bool], hosts: Sequence[int], ports: Sequence[bytes]
) -> tuple[NumberColumn, NumberColumn]:
    """Numbers of hosts and ports where they do not mirror the original's."""
    if not any(translated):
        return None, None
    return (
        [host if its else UNKNOWN for its, host in zip(translated, hosts)],
        [int(port) if its else UNKNOWN for its, port in zip(translated, ports)],
    )


def _counters_of(
    *counters: Sequence[bytes],
) -> tuple[tuple[NumberColumn, NumberColumn], tuple[NumberColumn, NumberColumn]]:
    """Packets and bytes there and back, unknown where nothing counted both."""
    _, size, _, back_size = counters
    both = [bool(there and back) for there, back in zip(size, back_size)]
    if not any(both):
        return (None, None), (None, None)
    one, two, three, four = (
        list(map(int, counter)) if all(both) else [int(text) if its else UNKNOWN for its, text in zip(both, counter)]
        for counter in counters
    )
    return (one, two), (three, four)


def _in_and_out(inward: Sequence[bool], there: NumberColumn, back: NumberColumn) -> tuple[NumberColumn, NumberColumn]:
    """What the remote end sent, and what went there."""
    if there is None or back is None or not any(inward):
        return back, there
    came = [opened if its else answered for its, opened, answered in zip(inward, there, back)]
    went = [answered if its else opened for its, opened, answered in zip(inward, there, back)]
    return came, went


def _ms(moment: float, file: DayFile) -> int:
    return round((moment - file.begins) * 1000)


def _end_values(file: DayFile, ends: Ends) -> FlowValues:
    """Addresses and ports; those of the reply are None where they mirror the original's."""
    src, dst, reply_src, reply_dst = map(file.host, ends.addresses)
    return (
        *(src, ends.sport, dst, ends.dport),
        *(reply_src if reply_src != dst else None, ends.reply_sport if ends.reply_sport != ends.dport else None),
        *(reply_dst if reply_dst != src else None, ends.reply_dport if ends.reply_dport != ends.sport else None),
    )


def _moved_since(before: Counts | None, now: Counts | None, inward: bool) -> tuple[int | None, int | None]:
    """Bytes in and out that are not in the sums yet. Counters that fell were reset (conntrack -L -z): all is new."""
    if now is None:
        return None, None
    if before is None or any(after < then for after, then in zip(now, before, strict=True)):
        before = Counts(0, 0, 0, 0)
    there, back = now.original_bytes - before.original_bytes, now.reply_bytes - before.reply_bytes
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
        service = _Service(folder, setup, lock)
        service.run(frames)
        lock = service.lock
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

    def __init__(self, folder: str, setup: Setup, lock: int) -> None:
        from ipaddress import ip_network

        from geoip import GeoIP

        self._folder, self._keep, self._size = folder, setup["keep"], setup["size"]
        self._geoip = GeoIP(setup["databases"])
        self._geoip.open()
        networks = tuple(map(ip_network, setup["networks"]))
        where, site = Lookups(where=self._geoip.lookup), Site(networks=networks)
        self._several = len(setup["nodes"]) > 1
        self._writer = Writer(folder, {node: Context(where, site) for node in setup["nodes"]})
        self.lock = lock
        self._untaken: deque[Message] = deque()  # what the loop told and the writer could not take yet
        self._began = False
        self._now = 0.0  # the newest time that the loop has told
        self._due = self._prune_due = 0.0
        self._bytes = 0
        self._failing = False
        self._problem: tuple[str, str] | None = None

    def run(self, frames: Iterable[tuple[float, Any]]) -> None:
        for now, messages in frames:
            if messages is not None:
                self._now = now
                self._untaken.extend(messages)
                self._guarded(self._take)
            if self._now and time.monotonic() >= self._due:
                self._due = time.monotonic() + COMMIT_EVERY
                self._commit()
        self._commit()
        self._writer.drop_files()

    def _take(self) -> None:
        """What fails is tried again: a message that is lost may say what the next ones mean."""
        if not self._began:
            self._writer.begin(self._now)
            self._began = True
        while self._untaken:
            self._writer.take(self._untaken[0])
            if self._untaken.popleft()[0] == UNSEEN and self._several:  # open rows of the others have ended with it
                _tell({"again": True})

    def _commit(self) -> None:
        if not self._now or not self._keeps_lock():
            return
        if time.monotonic() >= self._prune_due:
            self._prune_due = time.monotonic() + PRUNE_EVERY
            if self._began:
                self._guarded(self._writer.let_go)
            self._bytes = prune(self._folder, self._keep, self._size, self._now)
            if self._geoip.changed():
                self._geoip.open()
                self._writer.forget_places()
        if self._bytes > self._size:
            self._fail("today's flows alone exceed --log-size", f"--log-size {2 * self._size >> 20}M")
        else:
            self._guarded(self._write)
        if self._failing and self._writer.waiting + len(self._untaken) > MOST_UNWRITTEN:
            self._give_up()
        self._report()

    def _write(self) -> None:
        self._take()
        self._writer.commit(self._now)

    def _give_up(self) -> None:
        import sqlite3

        ended = sum(map(ends_in, self._untaken))
        self._untaken = deque(message for message in self._untaken if message[0] not in OF_FLOWS)
        # Where its files can't even be read, the next start will tell.
        with contextlib.suppress(OSError, Damaged, sqlite3.Error):
            self._writer.give_up(ended)
        _tell({"again": True})

    def _keeps_lock(self) -> bool:
        """Hold the lock anew where it was removed: else another process could hold one of the same name."""
        if still_holds(self._folder, self.lock):
            return True
        try:
            make_folder(self._folder)
            lock = hold(self._folder)
        except Refused as refusal:
            self._fail(refusal.what, refusal.cure)
            self._report()
            return False
        os.close(self.lock)
        self.lock = lock
        return True

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do what may find the disk full, the folder gone or a file damaged."""
        import sqlite3

        try:
            work()
            self._problem = None
            self._failing = False
        except Damaged as damage:
            self._again(partial(self._writer.set_aside_damaged, damage))
        except FileNotFoundError:
            self._again(lambda: None)
        except sqlite3.Error as error:
            self._fail(
                f"the flow log is not being written: {clean(str(error), 80)}", f"df -h {shlex.quote(self._folder)}"
            )
        except OSError as error:
            self._fail(f"the flow log is not being written: {error.strerror}", f"df -h {shlex.quote(self._folder)}")

    def _again(self, work: Callable[[], None]) -> None:
        """Begin a file anew, then ask for all flows: those without an end have lost their rows."""
        import sqlite3

        try:
            work()
            make_folder(self._folder)
            self._writer.commit(self._now)
            _tell({"again": True})
        except Refused as refusal:
            self._fail(refusal.what, refusal.cure)
        except (OSError, Damaged, sqlite3.Error) as error:
            self._fail(
                f"the flow log is not being written: {clean(str(error), 80)}", f"ls -ld {shlex.quote(self._folder)}"
            )

    def _fail(self, what: str, cure: str) -> None:
        self._failing = True
        self._problem = what, cure

    def _report(self) -> None:
        found = sizes(self._folder)
        since = self._now
        with contextlib.suppress(OSError):  # the folder has gone
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
TOO_FAST = "flows come faster than the log is written"
MOST_EPOCHS = 100
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

    def setup(self, nodes: Sequence[str], databases: Sequence[str], site: Site) -> Setup:
        return Setup(
            folder=self.folder,
            keep=self.keep,
            size=self.size,
            nodes=list(nodes),
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
        if self.holder:
            return f"{shown}: process {self.holder} writes it, and this screen reads it"
        if self.alive is None or self.since is None:
            return f"{shown}: nothing is written yet"
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.since))
        reach = min(plan.keep, plan.size / self.pace) if self.pace > 0 else plan.keep
        why = "--log-keep" if reach >= plan.keep else "--log-size"
        return (
            f"{shown}, since {since}: {size_text(self.bytes)} of {size_text(plan.size)};"
            f" at the present pace it keeps {reach:.0f} days ({why})"
        )


class LogWire:
    """The process that writes, for all nodes: it is started, fed and heard, and never waited for but at the end."""

    def __init__(self, plan: LogPlan, setup: Setup) -> None:
        self.state = LogState(plan)
        self.run = 0  # which process it is that writes
        self.asked = 0  # how often it has asked for all flows
        self._setup = setup
        self._child: Child | None = None
        self._failures = 0
        self._start_due = 0.0
        self._out: deque[memoryview] = deque()
        self._out_size = 0
        self._open = len(setup["nodes"])  # nodes that have something to tell

    def fds(self) -> list[int]:
        return self._child.fds() if self._child else []

    @property
    def waits(self) -> bool:
        """Is there something that it has not taken yet?"""
        return bool(self._out)

    @property
    def is_behind(self) -> bool:
        """Does too much wait already?"""
        return self._out_size > MOST_BEHIND

    def runs(self, moment: float, wall: float) -> bool:
        """Does it run? It is started where that is due, and heard. ``wall``: seconds since 1970."""
        if self._child is None:
            if self.state.holder or moment < self._start_due:
                return False
            self._start(wall)
        if self._child is not None:
            self._hear(self._child)
        return True

    def _start(self, wall: float) -> None:
        try:
            self._child = Child(this_program("--no-config", "--log-writer", self.state.plan.folder), fed=True)
        except OSError as error:
            self._fail(Problem(f"the flow log's writer could not be started: {error.strerror}"))
            return
        self.run += 1
        self._out.clear()
        self._out_size = 0
        self._put((wall, self._setup))

    def _fail(self, problem: Problem) -> None:
        """Try again later. A writer that never wrote anything and ends each time never will."""
        never = self.state.alive is None and self._failures >= len(AGAIN)
        self.state = replace(self.state, problem=problem, refused=problem if never else self.state.refused)
        self._start_due = time.monotonic() + AGAIN[min(self._failures, len(AGAIN) - 1)]
        self._failures += 1

    def send(self, wall: float, node: str, batch: list[Message]) -> None:
        """Hand over what a node tells."""
        if self._child is not None:
            self._put((wall, batch if len(self._setup["nodes"]) == 1 else [(OF_NODE, node), *batch]))

    def _put(self, frame: tuple[float, Any]) -> None:
        data = marshal.dumps(frame)
        self._out.append(memoryview(len(data).to_bytes(4, "big") + data))
        self._out_size += len(data) + 4

    def flush(self) -> None:
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
            self.asked += 1
        else:
            self._failures = 0
            problem = Problem(*said["problem"]) if said["problem"] else None
            found = {name: said[name] for name in ("alive", "since", "bytes", "pace", "aside")}
            self.state = replace(self.state, refused=None, problem=problem, **found)

    @property
    def is_running(self) -> bool:
        return self._child is not None

    def leave(self) -> None:
        """A node has told all. After the last one, wait a while for the writer to write it."""
        self._open -= 1
        child = self._child
        if child is None or self._open > 0:
            return
        until = time.monotonic() + LAST_WORDS
        while self._out and time.monotonic() < until and child.feed_soon(until):
            self.flush()
        child.end_feed()
        while not child.is_over() and time.monotonic() < until:
            child.read()
            time.sleep(0.005)
        child.stop()


class FlowLog:
    """What the loop holds of the log for a node. It never waits for the writer."""

    def __init__(self, wire: LogWire, node: str, epoch: Callable[[], float], names: Directory | None = None) -> None:
        """``epoch``: what to add to the source's clock for seconds since 1970. ``names``: of near ends."""
        self.wire, self._node, self._epoch_of = wire, node, epoch
        self._epoch = epoch()
        self._run = self._asked = 0  # of the writer: which one it is, and how often it has asked for all flows
        self._batch: list[Message] = []
        self._texts: list[bytes] = []  # of flows that are over, and beside it what else is known of each
        self._ended_groups, self._starts, self._ends = array("L"), array("d"), array("d")
        self._due = self._pass_due = 0.0
        self._passed_hour = -1.0
        self._left: list[Flow] = []  # still to be looked at in this pass
        self._left_since: float | None = None  # when this pass was begun, seconds since 1970
        self._left_seen = 0.0  # all flows of the pass that are there were seen then or later
        self._told: dict[bytes, int] = {}  # what was told of a flow that has a row
        self._swept: set[bytes] = set()  # keys of flows whose end a listing has told since the last pass
        self._epochs: list[tuple[float, float]] = []  # before the clock was set: until when, and the epoch then
        self._looked: float | None = None  # when the clock was looked at last
        self._set_at = -math.inf  # what the clock said when it had been set last, or at the start
        self._groups: dict[Group, int] = {}
        self._own: object = None
        self._names = names if names is not None else Directory()
        self._told_names: list[tuple[str, str]] = []
        self._names_version = 0  # of the names that were told
        self._gaps: dict[str, float] = {}
        self._dropped: int | None = None  # the flows that were not told because the writer was too far behind
        self._losses = 0  # of events
        self._listings = 0
        self._listed: float | None = None  # when the first listing was complete
        self._started = 0.0  # when the writer was started, by the source's clock

    # --- what the table tells ---

    def ended(self, flow: Flow) -> None:
        """A flow has ended."""
        its, epoch = flow.progress, self._epoch
        told = self._told.pop(flow.key, None)
        plain = not its.inferred and its.exact and (its.listed is None or b"packets=" in flow.tail)
        if told is None and plain and flow.kind.number in WITH_PORTS and b"|" not in flow.key:
            self._texts.append(flow.text)
            self._ended_groups.append(self._group(flow.group))
            self._starts.append(self._born(flow) if self._epochs else flow.born + epoch)
            self._ends.append((its.ended or 0.0) + epoch)
            return
        again = flow.key in self._swept and not its.inferred
        if its.inferred:
            self._swept.add(flow.key)
        seen = flow.last_seen.at + epoch if its.inferred else None
        self._batch.append(
            (
                *(ENDED, self._group(flow.group), flow.key, flow.tail, its.listed, self._born(flow)),
                *(flow.knows_age(), (its.ended or 0.0) + epoch, seen, again),
            )
        )

    def _open(self, flow: Flow, now: float) -> None:
        its, epoch = flow.progress, self._epoch
        number = self._group(flow.group)
        said = hash((number, flow.tail, its.listed))
        if self._told.get(flow.key) != said:
            self._told[flow.key] = said
            exact, times = flow.knows_age(), (now + epoch, flow.last_seen.at + epoch, flow.sampled + epoch)
            self._batch.append((OPEN, number, flow.key, flow.tail, its.listed, self._born(flow), exact, *times))

    def _born(self, flow: Flow) -> float:
        """What the clock said when the flow was born."""
        birth = flow.birth()
        return birth + next((epoch for until, epoch in self._epochs if birth < until), self._epoch)

    def _group(self, group: Group) -> int:
        if (number := self._groups.get(group)) is None:
            number = self._groups[group] = len(self._groups)
            self._batch.append((GROUP, number, *group.kind, group.state))
        return number

    # --- the loop ---

    def fds(self) -> list[int]:
        return self.wire.fds()

    def deadline(self) -> float:
        """When ``poll`` must be called, on the scale of time.monotonic()."""
        soon = self._left or self.wire.waits
        return min(self._due, time.monotonic() + 0.05) if soon else self._due

    def poll(self, table: FlowTable, status: Status, now: float) -> None:
        """Do what is due; ``now`` by the source's clock."""
        moment = time.monotonic()
        if not self.wire.runs(moment, now + self._epoch):
            self._batch.clear()
            self._take_texts()
            self._due = moment + GATHER
            return
        if self.wire.run != self._run:
            self._begin_anew(now)
        if self.wire.asked != self._asked:
            self._asked = self.wire.asked
            self._tell_all()
        self._pass(now)
        if moment >= self._due:
            self._due = moment + GATHER
            self._look(table, status, now)
            self._send(now)
        self.wire.flush()

    def _begin_anew(self, now: float) -> None:
        """Another writer knows nothing of what was told before."""
        self._run, self._started = self.wire.run, now
        for kept in (self._told, self._groups, self._gaps):
            kept.clear()
        self._own, self._listings = None, 0
        self._names_version, self._told_names = 0, []
        self._batch, self._left, self._left_since, self._dropped = [], [], None, None
        self._take_texts()

    def _look(self, table: FlowTable, status: Status, now: float) -> None:
        """Once a second: clock, gaps, own addresses, and whether a pass is due."""
        self._look_at_clock(now)
        epoch = self._epoch
        if table.own is not self._own:
            self._own = table.own
            self._batch.append((OWN, sorted(table.own)))
        self._look_at_names()
        if self._listed is None and table.listings:
            self._listed = table.listed_at
        self._look_at_gaps(table, status, now)
        hour, before = (now + epoch) // HOUR_SECONDS, self._passed_hour
        if day_of(hour * HOUR_SECONDS) != day_of(before * HOUR_SECONDS):  # a flow that is there is in the file of today
            self._told.clear()
        first = table.listings > 0 and self._listings == 0
        # At each full hour, too: what a flow moved belongs to the hour in which it was counted.
        if hour != before or first or time.monotonic() >= self._pass_due:
            self._passed_hour, self._listings = hour, table.listings
            self._pass_due = time.monotonic() + PASS_EVERY
            self._left = [flow for flow in table.live.values() if not flow.exact or now - flow.born >= YOUNG]
            self._swept.clear()
            self._left_since, self._left_seen = now + epoch if table.listings else None, now

    def _look_at_names(self) -> None:
        if self._names.version != self._names_version:
            self._names_version, before = self._names.version, self._told_names
            self._told_names = self._names.labels()
            if self._told_names != before:
                self._batch.insert(0, (TOLD_NAMES, self._told_names))  # also for what has ended in this second

    def _look_at_clock(self, now: float) -> None:
        epoch, before = self._epoch_of(), self._epoch
        looked = now if self._looked is None else self._looked
        if self._looked is None:
            self._set_at = now + epoch
        elif abs(epoch - before) > STEPPED_BY:
            reason = f"the clock was set {'forward' if epoch > before else 'back'} by {abs(epoch - before):.0f} s"
            # It was set after it was looked at last, and before now.
            times = (looked + before, now + epoch) if epoch > before else (now + before, looked + epoch)
            self._batch.append((CLOCK_SET, reason, *times, self._set_at))
            self._epochs = [*self._epochs[-MOST_EPOCHS:], (looked, before)]
            self._set_at = looked + epoch
        self._looked, self._epoch = now, epoch

    def _look_at_gaps(self, table: FlowTable, status: Status, now: float) -> None:
        losing = status.losses > status.healed
        lost_at = (now if status.lost_at is None else status.lost_at) - status.behind
        if status.losses != self._losses and not losing:  # lost and made good between two looks
            self._gap(LOSING, True, lost_at)
        self._losses = status.losses
        self._gap(LOSING, losing, lost_at if losing else now)
        self._gap(DEAF, status.facts.get("events") == 0, now)
        self._gap(UNCOUNTED, status.facts.get("acct") == 0, now)
        self._gap(UNHEARD, "events" in status.troubles, now)
        watched = table.watched_since if DEAF not in self._gaps else now  # nobody hears of births: that is its own gap
        if watched is not None and self._listed is not None and NOT_RUNNING not in self._gaps:
            self._gaps[NOT_RUNNING] = watched  # said once for each start of the writer
            known = max(watched, self._listed, self._started)
            self._batch.append((GAP_OVER, NOT_RUNNING, known + self._epoch))

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
                self._left_seen = min(self._left_seen, flow.last_seen.at)
        if self._left_since is not None and not self._left:
            self._batch.append((PASSED, self._left_since - YOUNG, self._left_seen + self._epoch))
            self._left_since = None

    # --- the writer ---

    @property
    def state(self) -> LogState:
        """How the log is doing."""
        return self.wire.state

    def _send(self, now: float) -> None:
        """Hand the batch over; where too much waits already, it is dropped and counted."""
        if not self.wire.is_running:
            return
        batch, self._batch = self._batch, []
        if self._texts:
            batch.append((ALL_ENDED, *self._take_texts()))
        if self.wire.is_behind:
            # What says how things are must not be lost: only flows are.
            kept = [message for message in batch if message[0] not in (*OF_FLOWS, PASSED)]
            if self._dropped is None:
                self._dropped, seen = 0, now + self._epoch - 2 * GATHER
                kept += [(UNSEEN,), (GAP_BEGAN, TOO_FAST, seen - 2 * YOUNG)]  # the youngest have no row yet
            self._dropped += sum(map(ends_in, batch))
            batch = kept
        elif self._dropped is not None:
            said = f"{self._dropped} flows came faster than the log could be written"
            batch.append((GAP_OVER, TOO_FAST, now + self._epoch, said))
            self._dropped = None
            self._tell_all()
        self.wire.send(now + self._epoch, self._node, batch)

    def _take_texts(self) -> EndedFlows:
        """What was gathered of flows that are over; from now on others are."""
        columns = self._ended_groups.tobytes(), self._starts.tobytes(), self._ends.tobytes()
        ended = EndedFlows(b"\n".join(self._texts), *columns)
        self._texts.clear()
        for column in (self._ended_groups, self._starts, self._ends):
            del column[:]
        return ended

    def _tell_all(self) -> None:
        """The rows of flows that are there may be lost: tell of all of them again."""
        self._told.clear()
        self._pass_due = 0.0

    def close(self, table: FlowTable, now: float) -> None:
        """Tell of all flows that are there, and wait a while for the writer to write it."""
        if self.wire.is_running:
            for flow in table.live.values():
                self._open(flow, now)
            if table.listings:
                seen = min((flow.last_seen.at for flow in table.live.values()), default=now)
                self._batch.append((PASSED, now + self._epoch, seen + self._epoch))
            self._send(now)
        self.wire.leave()
