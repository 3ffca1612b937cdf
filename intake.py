"""What a source says, taking it into the table, and failures in words."""

from __future__ import annotations

import re
import shlex
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from flows import Flow, FlowTable, Found
from parse import (
    AFTER,
    EVENT,
    EVENTS,
    SHORTEST,
    STAMP,
    Parts,
    cut_timeouts,
    ends_in_id,
    joined,
    split_lines,
    summary_of,
    tail_of,
)
from text import clean

# --- failures in words ------------------------------------------------------------------------------------------------

# Exit codes of the program.
SUCCESS, FAILED, USAGE, NOT_PERMITTED, NOT_FOUND = 0, 1, 2, 3, 4
TRACKING_CURE = "iptables -I INPUT -m conntrack --ctstate NEW"
ACCOUNTING_OFF = "accounting is off: no bytes, packets or rates"
ACCOUNTING_CURE = "sysctl -w net.netfilter.nf_conntrack_acct=1"
BEHIND = "events arrive faster than they can be read"
SUDO = "sudo, or --via sudo"
EVENTS_CURE = "sysctl -w net.netfilter.nf_conntrack_events=2"
MENDS_THE_KERNEL = ("sysctl", "iptables", "ip6tables")  # programs of cures for the machine whose table is read
# What the kernel takes in the host's own network namespace only; and the programs that lead from there into another.
OF_THE_HOST = (".nf_conntrack_max=", ".nf_conntrack_buckets=", "net.core.")
LEADS_INSIDE = {"ip", "nsenter", "docker", "podman", "nerdctl", "kubectl", "lxc", "lxc-attach", "unshare", "chroot"}


def cure_there(cure: str, before: Sequence[str]) -> str:
    """A cure as it is typed here: with the words before it that bring it to the machine whose table is read.

    >>> cure_there("sysctl -w net.netfilter.nf_conntrack_acct=1", ["ssh", "router", "ip", "netns", "exec", "blue"])
    'ssh router ip netns exec blue sysctl -w net.netfilter.nf_conntrack_acct=1'
    >>> cure_there("sysctl -w net.netfilter.nf_conntrack_max=9", ["ssh", "router", "ip", "netns", "exec", "blue"])
    'ssh router sysctl -w net.netfilter.nf_conntrack_max=9'
    >>> cure_there("ls -l file", ["ssh", "router"])
    'ls -l file'
    """
    if cure.partition(" ")[0] not in MENDS_THE_KERNEL:
        return cure
    words = list(before)
    if any(name in cure for name in OF_THE_HOST):
        inside = [at for at, word in enumerate(words) if word.rpartition("/")[2] in LEADS_INSIDE]
        words = words[: inside[0]] if inside else words
    return f"{shlex.join(words)} {cure}" if words else cure


@dataclass(frozen=True)
class Problem:
    """What happened and why, the command that helps, and the exit code it means if it happens at the start."""

    what: str
    cure: str = ""
    code: int = FAILED

    def __str__(self) -> str:
        return f"{self.what}; try: {self.cure}" if self.cure else self.what


NOTHING_TRACKED = Problem("either no traffic, or tracking is off: no firewall rule uses it", TRACKING_CURE)


def not_started(argv: Sequence[str], error: OSError) -> Problem:
    """A program that could not be started at all."""
    name = clean(argv[0])
    if isinstance(error, FileNotFoundError):
        if name.rpartition("/")[2] == "conntrack":
            return Problem(f"{name} is not installed here", "apt install conntrack", NOT_FOUND)
        return Problem(f"{name}: no such program", "check --via and --conntrack", NOT_FOUND)
    if isinstance(error, PermissionError):
        return Problem(f"{name} can't be run: permission denied", f"ls -l {name}" if "/" in name else "", NOT_PERMITTED)
    return Problem(f"{name} could not be started: {error.strerror}")


def explain(argv: Sequence[str], stderr: str, status: int) -> Problem:
    """Why a command ended. ``status`` as subprocess gives it: an exit status, or minus a signal's number."""
    command = clean(" ".join(argv[-4:] if len(argv) > 4 else argv), 60)
    for pattern, make in _KNOWN:
        if match := re.search(pattern, stderr[-2048:], re.IGNORECASE):
            return make(match)
    said = clean(_last_line(stderr))
    if status < 0:
        return Problem(f"killed by signal {-status}" + (f": {said}" if said else "") + f" ({command})")
    if status == 127:
        return Problem(f"{command}: not found" + (f" ({said})" if said else ""), "apt install conntrack", NOT_FOUND)
    if said:
        return Problem(f"{said} ({command})")
    return Problem(f"{command} exited with status {status} and no message")


def _last_line(stderr: str) -> str:
    """The last line that is neither conntrack's summary nor its hint at --help."""
    lines = [re.sub(r"^conntrack v[\d.]+ \(conntrack-tools\): ", "", line) for line in stderr.splitlines()]
    said = [line for line in lines if line.strip() and not re.match(r"Try `conntrack|\d+ flow (entries|events)", line)]
    return said[-1] if said else ""


def is_loss(stderr: str) -> bool:
    """Does stderr tell of events that the kernel dropped (ENOBUFS)?"""
    return "ENOBUFS" in stderr or "No buffer space" in stderr


_KNOWN: tuple[tuple[str, Callable[[re.Match[str]], Problem]], ...] = (
    (
        r"must be root or get CAP_NET_ADMIN|mnl_socket_bind: Operation not permitted",
        lambda _m: Problem(
            "not permitted: reading the connection table needs root or CAP_NET_ADMIN",
            SUDO,
            NOT_PERMITTED,
        ),
    ),
    (
        r"sudo: .*(password is required|terminal is required|no tty present|not allowed)",
        lambda _m: Problem(
            "sudo needs a password and can't ask for it here", "sudo -v first, or run all as root", NOT_PERMITTED
        ),
    ),
    (
        r"Permission denied \(([a-z,-]+)\)|Host key verification failed",
        lambda _m: Problem(
            "ssh login failed: it can't ask for a password here", "ssh-copy-id, then ssh-add", NOT_PERMITTED
        ),
    ),
    (
        r"Protocol not supported|NFNETLINK|nfnetlink",
        lambda _m: Problem(
            "this kernel has no connection tracking (nf_conntrack_netlink)", "modprobe nf_conntrack_netlink"
        ),
    ),
    (
        r"setting the network namespace[^\n]*Operation not permitted|Operation not permitted[^\n]*namespace",
        lambda _m: Problem("not permitted: entering a network namespace needs root", "sudo", NOT_PERMITTED),
    ),
    (
        r'Cannot open network namespace "([^"]*)"',
        lambda m: Problem(f"there is no network namespace '{clean(m.group(1))}'", "ip netns list"),
    ),
    (
        r'(?:exec of "|exec: "|: )?(\S*conntrack)"?(?: failed)?: (?:[^\n]*: )?(?:command )?'
        r"(?:not found|No such file or directory|executable file not found)",
        lambda m: Problem(f"{clean(m.group(1))} is not installed there", "apt install conntrack", NOT_FOUND),
    ),
    (
        r"ssh: ([^\n]+)|(Connection (?:closed|reset|refused|timed out)[^\n]*)",
        lambda m: Problem(f"ssh: {clean(m.group(1) or m.group(2))}"),
    ),
    (
        r"Error[^\n]*: (No such container: \S+|container \S+ is not running)",
        lambda m: Problem(f"docker: {clean(m.group(1))}", "docker ps"),
    ),
)


# --- what a source says -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """Whole lines, of events, of a listing, or of both. ``at`` None: the lines' own stamps are the time."""

    data: bytes
    at: float | None
    events: bool = False  # from the listener; else from a listing, or from a recording, which mixes them
    whole: bool = False  # nobody can have cut a line off: they come from JSON


@dataclass(frozen=True)
class ListingBegan:
    at: float
    in_step: bool = True  # all events from before it had been read, so that it makes good what was lost before it


@dataclass(frozen=True)
class ListingEnded:
    at: float
    complete: bool


@dataclass(frozen=True)
class Lost:
    """The kernel dropped events, or we dropped lines."""

    at: float
    what: str
    narrow: bool = False  # by a socket that could not be given more room


@dataclass(frozen=True)
class Behind:
    """How old the events are that are read now: seconds, 0 where all that came has been read."""

    at: float
    seconds: float


@dataclass(frozen=True)
class Trouble:
    """A child died or could not start; with ``problem`` None it runs again."""

    at: float
    part: str  # "events" or "listing"
    problem: Problem | None


@dataclass(frozen=True)
class Facts:
    """Numbers from /proc/sys/net/netfilter, by name without "nf_conntrack_"; unreadable ones are missing."""

    at: float
    values: dict[str, int]


@dataclass(frozen=True)
class Statistics:
    """What `conntrack -S` counts since the kernel started, summed over all CPUs, by today's names."""

    at: float
    values: dict[str, int]


@dataclass(frozen=True)
class OwnAddresses:
    """This host's own addresses."""

    at: float
    addresses: frozenset[str]


@dataclass(frozen=True)
class OfNode:
    """Whose lines these are: the name of the machine."""

    at: float
    node: str


@dataclass(frozen=True)
class Gone:
    """Of a flow that a listing, read by somebody else, showed to be gone: a line with all that was known of it."""

    at: float
    data: bytes


@dataclass(frozen=True)
class LeftOut:
    """So many lines of each other node have been left out so far."""

    at: float
    lines: dict[str, int]


@dataclass(frozen=True)
class Ended:
    """The recording is over."""

    at: float


_LiveItem = Block | ListingBegan | ListingEnded | Lost | Behind | Trouble | Facts | Statistics | OwnAddresses
Item = _LiveItem | OfNode | Gone | LeftOut | Ended


class Playback(NamedTuple):
    """Where a recording is: times in seconds since 1970."""

    at: float
    begins: float
    ends: float
    speed: float
    held: bool


# --- taking it in -----------------------------------------------------------------------------------------------------

# What a line became: the event (or "list"), the flow as it is now, the line, the source's time.
Report = Callable[[str, Flow, Parts, float], None]
LATE = 2.0  # seconds: what is older than that is called late
MINUTE = 60.0  # seconds: what was counted within them counts as now
FILL_EVERY = 2.0  # seconds between two counts that are kept, so that 60 of them cover a minute in any recording
WRAP = 2**32  # the counters of `conntrack -S` are unsigned 32-bit numbers of each CPU
FASTEST_LINK = 20e6  # packets a second: a counter that seems faster has begun anew


@dataclass
class Status:
    """How complete the picture is: what could not be read, what was lost, what is in trouble, what the host said.

    It learns from what the intake takes; nobody else tells it anything.
    """

    rejects: int = 0
    first_reject: str = ""
    looks: Problem | None = None  # what input looks like of which nothing at all was understood
    node: str = ""  # whose lines these are
    left_out: dict[str, int] = field(default_factory=dict)  # lines of other nodes
    missing: dict[str, int] = field(default_factory=dict)  # so many more has conntrack printed than were read
    losses: int = 0
    last_loss: str = ""
    lost_at: float | None = None
    narrow: bool = False  # a socket that could not be given more room has lost events
    troubles: dict[str, Problem] = field(default_factory=dict)
    facts: dict[str, int] = field(default_factory=dict)
    backwards: int = 0
    ended: bool = False
    began: bool = False  # something was ever heard from the source
    understood: bool = False  # ... and a line of it was understood
    behind: float = 0.0  # how old the newest events are that were read, seconds; 0: nothing waits to be read
    listing_since: float | None = None  # when the listing that runs now began
    resyncs: int = 0  # complete listings that recovered what was lost
    healed: int = 0  # losses before the newest complete listing began
    deaf: bool = False  # kernel events were off after the newest complete listing began: it may show what has ended
    fill: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=60))  # time, entries: the last minutes
    counted_first: Statistics | None = None  # what `conntrack -S` counted when we began to look
    counted: deque[Statistics] = field(default_factory=lambda: deque(maxlen=30))  # in the last minute, the newest last
    _losses: int = 0  # those that the newest listing makes good
    _hears: bool = True  # kernel events were on when the newest listing began

    def unread(self) -> list[str]:
        """A sentence for each kind of input that could not be taken in as it is."""
        out = []
        if self.rejects:
            lines = "line" if self.rejects == 1 else "lines"
            out.append(f"{self.rejects} {lines} not understood; first: {self.first_reject}")
        if self.left_out:
            out.append(left_out_text(self.left_out))
        out += [missing_text(what, number) for what, number in self.missing.items()]
        if self.backwards:
            out.append(f"{self.backwards} timestamps went backwards")
        return out

    def take(self, item: Item) -> None:
        """Learn from anything but lines."""
        if isinstance(item, ListingBegan):
            self.listing_since = item.at
            self._losses = self.losses if item.in_step else self.healed
            self._hears = self.facts.get("events") != 0
        elif isinstance(item, ListingEnded):
            self._take_end(item)
        elif isinstance(item, Lost):
            self.losses += 1
            self.last_loss, self.lost_at, self.narrow = item.what, item.at, item.narrow
        elif isinstance(item, Behind):
            self.behind = item.seconds
        elif isinstance(item, Trouble):
            if item.problem is None:
                self.troubles.pop(item.part, None)
            else:
                self.troubles[item.part] = item.problem
        elif isinstance(item, Facts):
            self._take_facts(item)
        elif isinstance(item, Statistics):
            self._take_statistics(item)
        elif isinstance(item, OfNode):
            self.node = item.node
        elif isinstance(item, LeftOut):
            self.left_out = item.lines
        elif isinstance(item, Ended):
            self.ended = True

    def take_lines(self, number: int, rejects: Sequence[bytes]) -> None:
        """So many lines were understood, and these were not."""
        if rejects:
            self.rejects += len(rejects)
            self.first_reject = self.first_reject or reject_text(rejects[0])
            self.looks = self.looks or next(filter(None, map(looks_like, rejects[:MOST_LOOKED_AT])), None)
        if number:
            self.began = self.understood = True

    def take_missing(self, what: str, number: int) -> None:
        """So many more has conntrack printed than were read."""
        if number > 0:
            self.missing[what] = number
        else:
            self.missing.pop(what, None)

    def junk(self) -> Problem:
        """What to say where nothing at all was understood."""
        if self.looks is not None:
            return self.looks
        return Problem(f"this is not output of conntrack: {self.unread()[0]}", JUNK_CURE)

    def take_backward_stamp(self) -> None:
        self.backwards += 1

    def _take_end(self, item: ListingEnded) -> None:
        self.listing_since = None
        self.began = self.began or item.complete
        if item.complete and self._losses > self.healed:
            self.healed = self._losses
            self.resyncs += 1
        if item.complete and self._hears and self.facts.get("events") != 0:
            self.deaf = False

    def _take_facts(self, item: Facts) -> None:
        self.facts = item.values
        self.deaf = self.deaf or item.values.get("events") == 0
        count = item.values.get("count")
        if count is not None and (not self.fill or item.at - self.fill[-1][0] >= FILL_EVERY):
            self.fill.append((item.at, count))

    def _take_statistics(self, item: Statistics) -> None:
        """Keep the first, and those of the last minute. After a restart the kernel counts from zero, and so do we.

        So do we, too, where other counters are named: sudo may give netlink's names and then only /proc's.
        """
        if not self.counted or _began_anew(self.counted[-1], item):
            self.counted_first = item
            self.counted.clear()
        self.counted.append(item)
        while item.at - self.counted[0].at > MINUTE + 1.0:  # an answer may come a little later than the one before
            self.counted.popleft()


def together(statuses: Sequence[Status]) -> Status:
    """What a header says of several nodes: sums, and what holds for all of them."""
    facts = {
        name: sum(status.facts.get(name, 0) for status in statuses)
        for name in ("count", "max")
        if any(name in status.facts for status in statuses)
    }
    return Status(
        rejects=sum(status.rejects for status in statuses),
        troubles=statuses[0].troubles if statuses and all(status.troubles for status in statuses) else {},
        facts=facts,
        ended=bool(statuses) and all(status.ended for status in statuses),
        understood=any(status.understood for status in statuses),
        behind=max((status.behind for status in statuses), default=0.0),
    )


def since(first: Statistics, last: Statistics, name: str) -> int:
    """How many more there are; a CPU's counter may have passed 2^32 and begun anew between the two."""
    return (last.values.get(name, 0) - first.values.get(name, 0)) % WRAP


def _began_anew(before: Statistics, after: Statistics) -> bool:
    """Do the counters of ``after`` not go on from those of ``before``?"""
    most = min(WRAP / 2, FASTEST_LINK * max(1.0, after.at - before.at))
    return before.values.keys() != after.values.keys() or any(
        since(before, after, name) > most for name in after.values
    )


def reject_text(line: bytes) -> str:
    """A line that was not understood, as people may see it."""
    if line.startswith(b"\x1f\x8b"):
        return "it is compressed: zcat it first"
    return clean(line.decode("utf-8", "replace"), 60)


def left_out_text(lines: Mapping[str, int]) -> str:
    """Which nodes an input has beside the one that is read.

    >>> left_out_text({"r9": 12000, "r8": 1})
    '12001 lines of other nodes are left out (r9 12000, r8 1); try: --node r9 --replay FILE'
    """
    most = sorted(lines, key=lambda node: -lines[node])
    shown = ", ".join(f"{clean(node, 40)} {lines[node]}" for node in most[:MOST_NODES_SHOWN])
    more = ", ..." if len(most) > MOST_NODES_SHOWN else ""
    number = sum(lines.values())
    what = f"{number} lines of other nodes are" if number > 1 else "1 line of another node is"
    return f"{what} left out ({shown}{more}); try: --node {shlex.quote(clean(most[0], 40))} --replay FILE"


def missing_text(what: str, number: int) -> str:
    """``what``: "flow entries" or "flow events"."""
    if number == 1:
        one = {ENTRIES: "flow entry", EVENTS_SEEN: "flow event"}.get(what, what)
        return f"1 {one} is missing: conntrack printed one more than was read"
    return f"{number} {what} are missing: conntrack printed that many more than were read"


MOST_NODES_SHOWN = 3
MOST_LOOKED_AT = 20  # rejects of a block that are looked at for what they may be
JUNK_CURE = "check --via and --conntrack"
_AS_TEXT = "conntrack -L, without -o xml or -o save"
_OTHER_INPUT = tuple(
    (re.compile(pattern), Problem(f"this looks like {what}", cure))
    for pattern, what, cure in (
        (rb"<\?xml|\s*</?conntrack>|<flow[ >]", "conntrack's XML; only its plain text can be read", _AS_TEXT),
        (
            rb"-[AUDI] (?:-\w \S+ )*-s \S+ -d ",
            "the output of conntrack -o save; only its plain text can be read",
            _AS_TEXT,
        ),
        (rb"cpu=\d+ ", "the counters of conntrack -S, which has no flows", "conntrack -L"),
        (
            rb".*(?: mask-src=|l3proto = \d+ proto=)",
            "conntrack's expectations, which are not flows yet",
            "conntrack -L",
        ),
        (rb".*\borig=\(src=", "the table of Open vSwitch (dpctl/dump-conntrack)", "conntrack -L on that machine"),
        (
            rb"\s*\[?\s*\{",
            "JSON, but has no flow of --json on a line of its own",
            "--json, without a view that sums up",
        ),
        (rb"(?:node,)?time,event,family,", "CSV of this program; --replay reads recordings and JSON lines", "--json"),
        (rb"\x1f\x8b", "a compressed file", "zcat FILE | conntrack-monitor --replay -"),
        (rb"\xfd7zXZ|\x28\xb5\x2f\xfd|BZh\d", "a compressed file", "decompress it first"),
        (rb"[\xd4\xc3\xb2\xa1]{4}|\x0a\x0d\x0d\x0a", "a packet capture", "conntrack -L, or -E, saved to a file"),
        (rb".*\bsrc=\S+ +dst=", "lines of conntrack that were cut or changed in transit", "conntrack -L > FILE"),
    )
)


def looks_like(line: bytes) -> Problem | None:
    """What a line may be that is none of conntrack's flows; None where nobody can tell."""
    return next((problem for pattern, problem in _OTHER_INPUT if pattern.match(line)), None)


# What conntrack says beside its flows. It comes among them where both outputs are one (2>&1, ssh -t, docker exec -t).
_LOSING = b"WARNING: We have hit ENOBUFS"
_REMARKS = (
    b"This message means that the current netlink socket buffer",
    b"Please, check --buffer-size in conntrack(8)",
    b"NOTICE: Netlink socket buffer size has been set",
)


ENTRIES, EVENTS_SEEN = "flow entries", "flow events"


class Intake:
    """Applies items to a table. ``report`` is told of each event, and of each flow that only a listing found."""

    def __init__(
        self, table: FlowTable, report: Report | None = None, now: float | None = None, lists_again: bool = True
    ) -> None:
        """``now``, seconds since 1970: by it the year is told that a syslog leaves out. ``lists_again``: see below."""
        self.table = table
        self._lists_again = lists_again  # more listings will come, so that it pays to remember one: 1 us a line
        self.status = Status()
        self._report = report
        self._last = b""  # the newest line's text behind its original tuple
        self._now = now
        self._listens = False  # somebody listens to events
        self._rows = self._junk = 0  # lines of the newest listing: understood, not understood
        self._counted: dict[str, int] = {}  # flow entries and flow events, as conntrack counts them
        self._read: dict[str, int] = {}  # the same, as they were read
        self._with_ids = False  # the listener's lines end in ids
        self.newest: float | None = None  # the newest stamp of a recording
        self._newest_event: float | None = None  # ... of an event

    def take(self, item: Item) -> None:
        if isinstance(item, Block):
            self._take_block(item)
            return
        self.newest = max(item.at, self.newest or 0.0)
        self.status.take(item)
        if isinstance(item, ListingBegan):
            self.table.begin_listing(item.at, item.in_step)
            self._rows = self._junk = 0
            self._counted.pop(ENTRIES, None)
            self._read[ENTRIES] = 0
        elif isinstance(item, ListingEnded):
            # If no line of it was understood, or lines are missing, the listing is no table to sweep by.
            whole = self._hold_against_count(ENTRIES) and (self._rows > 0 or self._junk == 0)
            self.table.end_listing(item.complete and whole, item.at)
            self._counted.pop(ENTRIES, None)
        elif isinstance(item, Ended):
            self._hold_against_count(ENTRIES)
            self._hold_against_count(EVENTS_SEEN)
        elif isinstance(item, OwnAddresses):
            self.table.know_own(item.addresses)
        elif isinstance(item, OfNode):
            self.table.know_node(item.node)
        elif isinstance(item, Gone):
            self._take_gone(item)
        elif isinstance(item, (Trouble, Facts)):
            if isinstance(item, Facts):
                self.table.know_timeouts(item.values)
            self._hear(item)

    def _take_gone(self, item: Gone) -> None:
        rows, rejects = split_lines(item.data, whole=True)
        self.status.take_lines(len(rows), rejects)
        for row in rows:
            self.table.gone(row, item.at or self.newest or 0.0)

    def _hear(self, item: Trouble | Facts) -> None:
        """Are births heard of? Only while somebody listens and the kernel sends events."""
        if isinstance(item, Trouble):
            if item.part != "events":
                return
            self._listens = item.problem is None
        sends = self.status.facts.get("events") != 0
        if self._listens and sends:
            self.table.watch(item.at)
        elif isinstance(item, Trouble) or not sends:
            self.table.watch_no_longer()

    def _take_block(self, block: Block) -> None:
        if self._lists_again and block.at is not None and not block.events and self.table.listing:
            self._take_again(block, block.at)
        else:
            self._take_rows(block, None if self._report is None else [])

    def _take_again(self, block: Block, at: float) -> None:
        """Of a listing that is not the first, most lines say what they said before, and are not read again."""
        cuts = cut_timeouts(block.data)
        others = self.table.listed_again(cuts, at)
        known = len(cuts) - len(others)
        self._read[ENTRIES] = self._read.get(ENTRIES, 0) + known
        self._rows += known
        self.status.take_lines(known, [])
        if not others:
            return
        data = b"".join([joined(cuts[number]) + b"\n" for number in others]) if known else block.data
        news: list[Found] = []
        rows = self._take_rows(Block(data if block.data.endswith(b"\n") else data.rstrip(b"\n"), at), news)
        if len(rows) == len(others):  # else some are none, and nobody knows which
            self.table.remember(others, rows, len(cuts), news)

    def _take_rows(self, block: Block, news: list[Found] | None) -> list[Parts]:
        """``news`` gets what a listing tells that was not known; None: nobody asks for it."""
        rows, rejects = split_lines(block.data, self._last, self._now, block.events and self._with_ids, block.whole)
        if rejects:
            rejects = [line for line in rejects if len(line) < SHORTEST or not self._is_remark(line, block.at)]
        self._count(block, rows)
        if not block.events:
            self._rows += len(rows)
            self._junk += len(rejects)
        self.status.take_lines(len(rows), rejects)
        if rows:
            self._last = tail_of(rows[-1])
        if block.at is None or (self._report is not None and (block.events or not self.table.listing)):
            self._apply_each(rows, block.at)
            return rows
        self.table.listed_all(rows, block.at, news)
        if self._report is not None:  # almost all lines of a listing bring nothing to report
            for name, flow, row in news or ():
                self._report(name, flow, row, block.at)
        return rows

    def _count(self, block: Block, rows: list[Parts]) -> None:
        """Note how many entries and events were read."""
        events = len(rows) if block.events else sum(1 for row in rows if row[EVENT]) if block.at is None else 0
        self._read[EVENTS_SEEN] = self._read.get(EVENTS_SEEN, 0) + events
        self._read[ENTRIES] = self._read.get(ENTRIES, 0) + len(rows) - events
        if block.events and rows:
            self._with_ids = ends_in_id(rows[-1][AFTER])

    def _is_remark(self, line: bytes, at: float | None) -> bool:
        """Is it a line of conntrack's that is about its flows? Then it is taken in."""
        if b"(conntrack-tools)" in line and (summary := summary_of(line)):
            self._counted[summary.what] = self._counted.get(summary.what, 0) + summary.number
            return True
        if line.startswith(_LOSING):
            self.status.take(Lost(self.newest or 0.0 if at is None else at, "events (ENOBUFS)"))
            return True
        return line.startswith(_REMARKS)

    def _hold_against_count(self, what: str) -> bool:
        """Has all been read that conntrack says it has printed? True, too, where it says nothing."""
        missing = self._counted[what] - self._read.get(what, 0) if what in self._counted else 0
        self.status.take_missing(what, missing)
        return missing <= 0

    def _apply_each(self, rows: list[Parts], at: float | None) -> None:
        table, report = self.table, self._report
        for row in rows:
            now = self._time(row[STAMP], row[EVENT]) if at is None else at
            if row[EVENT]:
                flow: Flow | None = table.event(row, now)
                name = EVENTS[row[EVENT]]
            else:
                flow = table.listed(row, now)
                name = "list"
                if flow is None and not table.listing:
                    # A saved listing is read once, so each of its lines is reported.
                    flow = table.find(row)
            if flow is not None and report is not None:
                report(name, flow, row, now)

    def _time(self, stamp: bytes, event: bytes) -> float:
        """A row's own time; the newest so far where the row has no stamp or an older one.

        Only events can go backwards: what came while a table was listed stands behind it in JSON lines.
        """
        if stamp:
            at = float(stamp[1:-2])
            if self.newest is None or at >= self.newest:
                self.newest = at
            # A smaller step back comes from two pipes, a larger one from a clock that was set.
            elif event and self._newest_event is not None and at < self._newest_event - 0.5:
                self.status.take_backward_stamp()
            if event and at > (self._newest_event or 0.0):
                self._newest_event = at
        return self.newest or 0.0
