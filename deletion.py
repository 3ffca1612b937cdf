"""Deleting exactly these flows: the options that single one out, and the deletion itself."""

from __future__ import annotations

import ipaddress
import re
import shlex
import signal
import time
from collections import Counter
from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

from child import LISTENED, STOP_PATIENCE, Child
from flows import Flow, id_in, key_of
from intake import NOT_FOUND, NOT_PERMITTED, Problem, not_started
from parse import (
    ADDRESS,
    HEAD,
    ORIGINAL,
    PROTOCOLS,
    PUSHED_DOWN,
    WITH_PORTS,
    Record,
    Tuple,
    kind_of,
    split_lines,
    tail_of,
)
from source import LISTING_GATHERS, Command
from text import clean

# --- options for one flow ---------------------------------------------------------------------------------------------

_NAMES = {PROTOCOLS[name]: name for name in PUSHED_DOWN}
_WHOLE_ADDRESS = re.compile(ADDRESS)  # no network, no scope, no dash in front
_KEY = re.compile(r"0x[0-9a-f]{1,8}")
_ICMP, _GRE, _DCCP, _ICMPV6 = 1, 47, 33, 58
_OTHER_FAMILY = {_ICMP: "ipv6", _ICMPV6: "ipv4"}
_NO_ID = "conntrack printed no id for it"
_ODD = "its addresses, ports or zones are not as conntrack prints them"
_ICMP_FAMILY = "conntrack can't select one family's ICMP in the other"


class Selection(NamedTuple):
    """What conntrack is told to find one flow."""

    family: str  # ipv4, ipv6
    protocol: str  # as -p takes it
    words: list[str]  # for -L and -D, family and protocol included
    id: int

    def deleting(self) -> list[str]:
        """The words for -D: no other flow has them all, and what went is printed with its id."""
        return ["-o", "id", *self.words, self.name()]

    def name(self) -> str:
        """The word that only this flow has."""
        return f"--id={self.id}"


class Refusal(NamedTuple):
    """No options single the flow out."""

    why: str


class _Odd(ValueError):
    """A value that conntrack would read as another one, or not at all."""


def selection(flow: Flow) -> Selection | Refusal:
    """How conntrack finds this flow and no other; what came from a recording never becomes an option."""
    record = flow.record()
    if record.id is None:
        return Refusal(_NO_ID)
    family, number = flow.family, record.kind.number
    if _OTHER_FAMILY.get(number) == family:
        return Refusal(_ICMP_FAMILY)
    try:
        protocol = _NAMES.get(number) or _plain_number(number, 255)
        words = ["-f", family, "-p", protocol, *_tuple(record, family), *_zone_options(record)]
        return Selection(family, protocol, words, int(_plain_number(record.id, 2**32 - 1)))
    except _Odd:
        return Refusal(_ODD)


def _tuple(record: Record, family: str) -> list[str]:
    number, original, reply = record.kind.number, record.original, record.reply
    words = ["-s", _address(original.src, family), "-d", _address(original.dst, family)]
    if number in WITH_PORTS and not _has_no_tracker(number, original):
        words += ["--sport", _plain_number(original.sport), "--dport", _plain_number(original.dport)]
    elif number in (_ICMP, _ICMPV6):
        name = _NAMES[number]
        words += [
            f"--{name}-type",
            _plain_number(original.type, 255),
            f"--{name}-code",
            _plain_number(original.code, 255),
        ]
        words += [f"--{name}-id", _plain_number(original.icmp_id)]
    elif number == _GRE:
        words += ["--srckey", _key(original.srckey), "--dstkey", _key(original.dstkey)]
    if (reply.src, reply.dst, reply.sport, reply.dport) != (original.dst, original.src, original.dport, original.sport):
        words += ["-r", _address(reply.src, family), "-q", _address(reply.dst, family)]
        if "--sport" in words:
            words += ["--reply-port-src", _plain_number(reply.sport), "--reply-port-dst", _plain_number(reply.dport)]
    return words


def _has_no_tracker(number: int, original: Tuple) -> bool:
    """DCCP on a kernel that has no tracker for it: conntrack prints ports of 0 and finds nothing by them."""
    return number == _DCCP and original.sport == original.dport == 0


def _zone_options(record: Record) -> list[str]:
    words = []
    if record.original.zone:
        words += ["--orig-zone", _plain_number(record.original.zone)]
    if record.reply.zone:
        words += ["--reply-zone", _plain_number(record.reply.zone)]
    return words or ["-w", _plain_number(record.zone or 0)]


def _plain_number(value: int | None, most: int = 65_535) -> str:
    """conntrack cuts larger numbers to their last bits: port 65616 would be 80."""
    if value is None or not 0 <= value <= most:
        raise _Odd
    return str(value)


def _key(value: str | None) -> str:
    if value is None or not _KEY.fullmatch(value):
        raise _Odd
    return value


def _address(text: str, family: str) -> str:
    if not _WHOLE_ADDRESS.fullmatch(text):
        raise _Odd
    try:
        version = ipaddress.ip_address(text).version
    except ValueError:
        raise _Odd from None
    if family != f"ipv{version}":
        raise _Odd
    return text


# --- the deletion -----------------------------------------------------------------------------------------------------

MOST = 10_000  # flows at once: 7 minutes where the table is small
AT_A_TIME = 200  # flows to read before keys have their turn: 10 ms
AT_ONCE = 2  # -D children: each takes a whole core, and the monitor needs one to read
LONG = 10.0  # seconds: a longer deletion is announced with its time

# conntrack 1.4.7 says the second if the entry ends just before it is deleted.
_DELETED = re.compile(
    r"^conntrack v\S+ \(conntrack-tools\): (\d+ flow entries have been deleted|.*such conntrack doesn't exist)",
    re.MULTILINE,
)


class Phase(Enum):
    """How far it is. Only ``ASKED`` waits for the user."""

    ASKING = "asking"
    ASKED = "asked"
    DELETING = "deleting"
    DONE = "done"


class DeletionText(NamedTuple):
    """What is shown; every text is safe to show and one line long."""

    command: str  # the exact command; of several the first, and how many more there are
    text: str  # the question, the progress or the result
    answer: str  # what must be typed for yes; "" where nothing is asked. The default is No.
    problem: Problem | None  # why it failed


class _Target(NamedTuple):
    flow: Flow
    selection: Selection


class Deletion:
    """The deletion of some flows: ``fds``, ``deadline``, ``poll`` and ``close`` as a source has them.

    It begins at once with the question. The flows are those of the live table. A flow that ends before its turn comes
    is left alone: its tuple, and even its id, may belong to another flow by then.
    """

    def __init__(self, command: Command, flows: Iterable[Flow]) -> None:
        self.command = command
        self.phase = Phase.ASKING
        self.deleted = 0
        self.gone = 0  # flows that had ended, or were replaced by another flow, before their turn
        self.refused: Counter[str] = Counter()  # by reason
        self.problem: Problem | None = None
        self._stopped = False
        self._unknown = 0  # -D children that broke off: it is not known whether they deleted
        self._gone_before = 0  # those of ``gone`` that had ended before the question
        self._unread: list[Flow] = []
        self._wanted: dict[bytes, _Target] = {}
        self._found: list[_Target] = []
        self._turn = 0  # index in _found of the next to be deleted
        self._questions: list[list[str]] = []
        self._children: list[Child] = []
        self._spent = 0.0  # seconds of one listing
        self._take(flows)

    # --- the face for the loop ---

    def fds(self) -> list[int]:
        return [fd for child in self._children for fd in child.fds()]

    def deadline(self) -> float | None:
        """When ``poll`` wants to be called at the latest, on time.monotonic's scale; None: no need."""
        return time.monotonic() if self._unread else min(map(_due, self._children), default=None)

    def poll(self) -> bool:
        """Go on without blocking; True when ``words`` may have changed."""
        before = (self.phase, self.deleted, self.gone)
        if self._unread:
            self._read_some()
        for child in list(self._children):
            if self.phase is Phase.ASKING:
                self._poll_question(child)
            else:
                self._poll_deletion(child)
        self._go_on()
        return (self.phase, self.deleted, self.gone) != before

    def confirm(self, typed: str) -> bool:
        """The user's answer. True: the deletion begins; all but the answer asked for means No, and it is over."""
        if self.phase is not Phase.ASKED:
            return False
        if typed.replace(",", "").strip().lower() not in self._answers():
            self.stop()
            return False
        self.phase = Phase.DELETING
        self._go_on()
        return True

    def stop(self) -> None:
        """Begin nothing more; a -D that runs comes to its end (goes on with ``poll``)."""
        self._stopped = self._stopped or self.phase is not Phase.DONE
        if self.phase is Phase.DELETING:
            self._go_on()
        else:
            self._end(self.problem)

    def close(self) -> None:
        """End all children at once."""
        for child in self._children:
            child.signal(signal.SIGTERM)
        until = time.monotonic() + STOP_PATIENCE
        for child in self._children:
            child.stop(max(0.0, until - time.monotonic()))
        self._children, self._unread = [], []

    # --- the question ---

    def _take(self, flows: Iterable[Flow]) -> None:
        """The living among them; too many are refused."""
        for flow in flows:
            if flow.ended is None:
                self._unread.append(flow)
            else:
                self.gone += 1
            if len(self._unread) > MOST:
                many = f"more than {MOST:,} flows: deleting them one by one would take too long"
                self._end(Problem(many, "a narrower filter"))
                return
        self._unread.reverse()  # they are taken from its end
        self._read_some()

    def _read_some(self) -> None:
        """Read what is wanted, and, when all is read, find what to ask."""
        for _ in range(min(AT_A_TIME, len(self._unread))):
            flow = self._unread.pop()
            chosen = selection(flow)
            if isinstance(chosen, Refusal):
                self.refused[chosen.why] += 1
            else:
                self._wanted[flow.key] = _Target(flow, chosen)
        if not self._unread:
            self._questions = _questions([target.selection for target in self._wanted.values()])
            self._go_on()

    def _poll_question(self, child: Child) -> None:
        if data := child.read():
            self._listed(data)
        status = self._ended(child)
        if status is None:
            return
        if status == 0 and not child.leftover:
            self._spent += time.monotonic() - child.started
        else:
            self._end(child.problem(status))

    def _listed(self, data: bytes) -> None:
        """Lines of -L: which of the wanted flows are there, under their own ids?"""
        for row in split_lines(data)[0]:
            tail = tail_of(row)
            target = self._wanted.get(key_of(b"%d " % kind_of(row[HEAD]).number, row[ORIGINAL], tail))
            if target and target.selection.id == id_in(tail):
                self._found.append(target)
                del self._wanted[target.flow.key]

    # --- the deletion ---

    def _poll_deletion(self, child: Child) -> None:
        answer = child.collect()
        status = self._ended(child)
        if status is None:
            return
        said = _DELETED.search(child.stderr.decode("utf-8", "replace"))
        if said is None:
            problem = child.problem(status)
            self._unknown += problem.code not in (NOT_PERMITTED, NOT_FOUND)  # those did nothing
            self._fail(problem)
            return
        names = [f"--id={id_in(tail_of(row))}" for row in split_lines(answer)[0]]
        mine = child.argv[-1]
        self.deleted += len(names)
        self.gone += mine not in names
        if others := len(names) - names.count(mine):
            self._fail(Problem(f"conntrack -D deleted {others:,} other entries: it ignores {mine}"))

    def _go_on(self) -> None:
        """Start what comes next; when nothing does and nothing runs, this phase is over."""
        if self.phase is Phase.ASKING and not self._unread:
            if not self._children and self._questions and self.problem is None:
                self._start(["-L", "-o", "extended,id", *self._questions.pop(0)], LISTING_GATHERS)
            elif not self._children:
                self.gone += len(self._wanted)
                self._gone_before = self.gone
                self.phase = Phase.ASKED if self._found and self.problem is None else Phase.DONE
        while self.phase is Phase.DELETING and len(self._children) < AT_ONCE:
            if self._stopped or self.problem or self._turn >= len(self._found):
                if not self._children:
                    self.phase = Phase.DONE
                return
            target = self._found[self._turn]
            self._turn += 1
            if target.flow.ended is None:
                self._start(["-D", *target.selection.deleting()])
            else:
                self.gone += 1

    def _start(self, words: list[str], gather: float = 0.0) -> None:
        argv = self._argv(words)
        try:
            # Messages name it by its last words.
            child = Child(argv, gather, shown_as=[self.command.conntrack, words[0], words[-1]])
        except OSError as error:
            self._fail(not_started(argv, error))  # the turn it had counts as none: see _left
            return
        self._children.append(child)

    def _ended(self, child: Child) -> int | None:
        """Its exit status, once it is over or has been silent too long; then it is out of the way."""
        child.read_errors()
        problem = None
        status = child.ended()
        if status is None:
            if not (why := child.patience.complaint()):
                return None
            self._unknown += self.phase is Phase.DELETING
            problem = Problem(f"{child.name()}: {why}")
        self._children.remove(child)
        child.stop()
        if problem:
            self._fail(problem)
        return status

    def _fail(self, problem: Problem) -> None:
        """The first failure ends all; in the deletion what runs comes to its end."""
        self.problem = self.problem or problem
        if self.phase is not Phase.DELETING:
            self._end(problem)

    def _end(self, problem: Problem | None) -> None:
        self.close()
        self.problem = problem
        self.phase = Phase.DONE

    # --- the words ---

    def _argv(self, words: list[str]) -> list[str]:
        return [*self.command.via, self.command.conntrack, *words]

    def _answers(self) -> tuple[str, ...]:
        """What counts as yes, the one to be shown first."""
        return ("y", "yes") if len(self._found) == 1 else (str(len(self._found)),)

    def _left(self) -> int:
        """Flows found that were not touched."""
        return max(0, len(self._found) - self.deleted - (self.gone - self._gone_before) - self._unknown)

    def words(self) -> DeletionText:
        if self.phase is Phase.ASKING:
            return DeletionText(self._command(), "asking the kernel ...", "", None)
        if self.phase is Phase.ASKED:
            return DeletionText(self._command(), self._question(), self._answers()[0], None)
        if self.phase is Phase.DELETING:
            return DeletionText(self._command(), f"{self.deleted + self.gone} of {len(self._found)} ...", "", None)
        return DeletionText(self._command(), self._result(), "", self.problem)

    def _command(self) -> str:
        first = next(iter(self._found or self._wanted.values()), None)
        if first is None:
            return ""
        number = len(self._found) or len(self._wanted)
        if self.phase is Phase.ASKING:
            number = len(self._found) + len(self._wanted) + len(self._unread)
        text = clean(shlex.join(self._argv(["-D", *first.selection.deleting()])), 1024)
        return text + (f" and {number - 1:,} more like it" if number > 1 else "")

    def _question(self) -> str:
        number = len(self._found)
        text = "it matches 1 entry" if number == 1 else f"they match {number:,} entries, one each"
        seconds = number * self._spent  # to print the table takes longer than to search it, two at a time help: at most
        if seconds >= LONG:
            text += f"; takes up to {seconds:.0f} s" if seconds < 120 else f"; takes up to {seconds / 60:.0f} min"
        ended = f"; {self.gone:,} had already ended" if self.gone else ""
        return text + ended + self._left_out()

    def _left_out(self) -> str:
        return "".join(f"; {number:,} left out: {why}" for why, number in self.refused.items())

    def _result(self) -> str:
        if self.deleted == self._unknown == 0:
            if self._stopped or self.problem or not self.gone:
                return "nothing was deleted" + self._left_out()
            whose = "it" if self.gone == 1 else f"all {self.gone:,}"
            return f"nothing was deleted: {whose} had already ended" + self._left_out()
        left = self._left()
        total = self.deleted + self.gone + self._unknown + left
        parts = [f"{self.deleted:,} deleted" if self.deleted == total else f"{self.deleted:,} of {total:,} deleted"]
        parts += [f"{self.gone:,} had already ended"] if self.gone else []
        parts += [f"{left:,} not deleted"] if left else []
        parts += [f"{self._unknown:,} unknown"] if self._unknown else []
        return ", ".join(parts) + self._left_out()


def _questions(wanted: list[Selection]) -> list[list[str]]:
    """What -L is to be asked: for one flow its own selection, for several what they have in common."""
    if len(wanted) == 1:
        return [wanted[0].words]
    protocols = {one.protocol for one in wanted}
    protocol = ["-p", *protocols] if len(protocols) == 1 else []
    return [["-f", family, *protocol] for family in sorted({one.family for one in wanted})]


def _due(child: Child) -> float:
    now = time.monotonic()
    if child.out is None:
        return now + 0.05  # it closed its output and has not ended yet
    return child.gathers_until if child.gathers_until > now else child.patience.looked + LISTENED
