"""How healthy the connection table is: how full, how soon full, who fills it, what the kernel dropped, how well we see.

Pure: what was heard goes in, rows of a panel and a few words for the header come out. A row is red ("bad") only where
something bounded runs out.

What `conntrack -S` counts, by net/netfilter/nf_conntrack_core.c (Linux 4.20 to 6.12; the names as today's):

* ``early_drop``: the table was full, and flows that are not assured were deleted to make room (``early_drop``).
* ``drop``: packets dropped because no entry could be had (``nf_conntrack_in``: the table is full and nothing could be
  deleted) or because of a clash that could not be resolved (``nf_ct_resolve_clash``, which counts ``insert_failed``,
  too); in newer kernels also what TCP's tracker wants dropped.
* ``insert_failed``: new flows whose first packet was dropped when they were to be entered (``__nf_conntrack_confirm``):
  another CPU had entered the same tuple meanwhile, NAT had given it out twice or found none that is free, or the hash
  chain was too long. Before 5.10 also the clashes that were resolved.
* ``chaintoolong`` (5.15): more than 50 to 80 entries in one bucket; larger ``nf_conntrack_buckets`` or a smaller
  ``nf_conntrack_max`` shorten the chains (commit d7e7747ac5c2). Both can be set in the host's own network namespace
  only (Documentation/networking/nf_conntrack-sysctl.rst, commit 2671fa4dc010).
* ``clash_resolve`` (5.10): a clash after which both packets went on their way.
* ``invalid``: packets without a flow that they fit into; ``error``: ICMP and ICMPv6 packets refused before that;
  ``search_restart``: lookups that had to begin anew because a chain changed under them.

That ``--random-fully`` makes NAT's own clashes rare: iptables-extensions(8), and tech.xing.com, "A reason for
unexplained connection timeouts on Kubernetes/Docker".
"""

from __future__ import annotations

import re
from bisect import bisect
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from heapq import nlargest
from itertools import islice
from operator import itemgetter
from typing import NamedTuple, TypeVar, cast

from addresses import Context
from flows import (
    BEFORE_REPLY,
    BEGINS,
    GONE,
    LATE_NODE,
    LIVE,
    REPLAYED,
    TCP,
    AnyTable,
    Flow,
    FlowTable,
    Group,
    NodeFacts,
    matched,
    without_userspace,
)
from grouping import service_name, service_of
from intake import (
    ACCOUNTING_CURE,
    ACCOUNTING_OFF,
    BEHIND,
    EVENTS_CURE,
    LATE,
    MINUTE,
    NOTHING_TRACKED,
    Playback,
    Problem,
    Status,
    cure_there,
    since,
)
from text import DAY, clean, endpoint

STEP = 1000  # flows counted at once: 3 ms
TOP = 5  # sources that are named
MOST_SOURCES = 20_000  # kept while counting, in 2 MiB; a flood of made-up addresses must not take 20 MiB
STEADY_GROWTH = 30.0  # seconds that must have been seen before anything is predicted
STALE = 35.0  # seconds: three missing answers of `conntrack -S`, or seven missing counts
# Seconds until the table is full: below SOON red, below FORESEEN in the header, beyond HORIZON not mentioned.
SOON, FORESEEN, HORIZON = 900.0, 3600.0, 86_400.0
NEARLY, MUCH, HALF = 0.95, 0.8, 0.5  # shares of the table: red, yellow and worth a notice, half
LITTLE = 0.01  # a share that needs no bar
MOSTLY = 0.9  # share of the flows that are assured: the rest is too little to be evicted
HOG = 0.3  # share of all flows: a source with more is named as a problem
FLOWS_FOR_SHARES = 1000  # with fewer flows, shares say nothing
SAMPLED = 20_000  # flows looked at where nobody can wait for a census: 20 ms, and shares within a percent
OLD = 30.0  # seconds after which counters are old: listings are 10 s apart at most
SYSCTL = "sysctl -w net.netfilter.nf_conntrack_"
# Of use where the socket could not be given 16 MiB, and for sockets that are opened afterwards.
LOSS_CURE = "sysctl -w net.core.rmem_default=8388608"  # source then begins to listen anew
CLASH_CURE = "iptables -t nat -S POSTROUTING, then --random-fully on its SNAT and MASQUERADE"
TRACKED = (  # what costs packets first; the meaning in a few words
    ("early_drop", "flows evicted early: table full"),
    ("drop", "packets dropped: table full or clash"),
    ("insert_failed", "new flows refused: insert race or NAT ports exhausted"),
    ("chaintoolong", "new flows refused: too many in a hash bucket"),
)
NORMAL = (  # every network has some
    ("invalid", "packets that match no flow"),
    ("error", "ICMP packets that match no flow"),
    ("clash_resolve", "insert races that were resolved"),
    ("search_restart", "lookups restarted"),
)


@dataclass(frozen=True)
class HealthRow:
    """A line of the panel. ``role``: plain, good, warn, bad; ``share``: 0..1 where a bar says it better.

    ``term``: the filter that shows the flows that it tells of.
    """

    label: str
    value: str
    role: str = "plain"
    share: float | None = None
    cure: str = ""
    term: str = ""


class UsedDatabase(NamedTuple):
    """A database in use: its name, the month it was built in, and how many days ago that was.

    ``old``: its publisher has a newer one; ``cure``: the command that brings that, where one does.
    """

    name: str
    month: str
    days: float
    old: bool = False
    cure: str = ""


class Surroundings(NamedTuple):
    """What people must know beside what the source says."""

    settings: str = ""  # why the settings file is not used
    recording: str = ""  # why nothing is recorded any more
    geography: Sequence[tuple[str, str]] = ()  # what is wrong with databases and names, and the command that helps
    attributions: Sequence[str] = ()  # the lines that the databases' licences ask for
    databases: Sequence[UsedDatabase] = ()  # those in use
    records: bool = False  # all that is read is written to a file
    attached: bool = False  # people look through docker attach: they can look away
    before: Sequence[str] = ()  # the words that bring a command to the machine whose table is read
    aside: frozenset[Hashable] = frozenset()  # notices that the user has put aside, by their keys
    log: Sequence[tuple[str, str]] = ()  # what is wrong with the flow log, and the command that helps
    logged: str = ""  # how the flow log is doing
    metrics: Sequence[tuple[str, str]] = ()  # why metrics are not written, and the command that helps
    measured: str = ""  # how the file of metrics is doing
    names: str = ""  # what names of hosts were found
    export: Sequence[tuple[str, str]] = ()  # what is wrong with IPFIX, and the command that helps
    exported: Sequence[str] = ()  # how each of its collectors is doing
    playback: Playback | None = None  # where a recording is that can be gone back in
    demo: str = ""  # the words that play the bundled recording
    tracking: Problem = NOTHING_TRACKED  # why there may be no flow
    findings: Findings | None = None  # what a round over all flows has found
    alerts: Sequence[Notice] = ()  # what the settings' rules have to say


NOTHING_AROUND = Surroundings()

# --- who fills the table ----------------------------------------------------------------------------------------------


class Shares(NamedTuple):
    """What one round of counting found. An offloaded flow shows neither flag."""

    flows: int = 0
    assured: int = 0
    unreplied: int = 0
    sources: tuple[tuple[str, int], ...] = ()  # of the original tuple: address and flows, most first, at most TOP
    services: tuple[tuple[str, int], ...] = ()  # protocol and port of the destination, the same way
    timeouts: tuple[int, ...] = ()  # flows with as much time left as each of TIME_LEFT says; others have no timeout
    whole: bool = True  # all were counted; else ``flows`` is how many were so far


# Time left, as a filter has it, and its end in seconds. What is never evicted and stays for days is what fills a table.
TIME_LEFT = (
    ("under 1 min left", "timeout:<1m", 60),
    ("1 min to 1 h left", "timeout:1m-1h", 3600),
    ("1 h to 1 day left", "timeout:1h-1d", 86_400),
    ("over 1 day left", "timeout:>1d", 1 << 40),
)
_ENDS = [end for _, _, end in TIME_LEFT[:-1]]
_TO_PORT = re.compile(rb"^(\d+) src=\S+ dst=\S+(?: sport=\d+ dport=(\d+))?", re.M)


class Census:
    """Counts the table a few thousand flows at a time: all 200,000 at once would hold up keys for 0.2 s.

    A round counts the flows that were live when it began and are still live when their turn comes. While nothing
    changes, ``newest`` is exact. With more than MOST_SOURCES sources, those with few flows so far are forgotten.
    """

    def __init__(self, flows: Iterable[Flow] = ()) -> None:
        """``flows``: those of the first round, where not all of the table's are to be counted."""
        self.newest: Shares | None = None
        self._left = list(flows)  # flows of this round that are still to be counted
        self._begin()

    def begin_anew(self) -> None:
        """Forget what was counted: it is old."""
        self.newest, self._left = None, []
        self._begin()

    @property
    def so_far(self) -> Shares | None:
        """The newest whole count; before there is one, what the first round has counted so far."""
        if self.newest is not None or not self._flows:
            return self.newest
        return self._shares(whole=False)

    def _begin(self) -> None:
        self._flows = self._assured = self._unreplied = 0
        self._sources: Counter[bytes] = Counter()
        self._services: Counter[tuple[bytes, bytes]] = Counter()  # protocol's number and port
        self._some: dict[bytes, Group] = {}  # a group of each protocol
        self._timeouts = [0] * len(TIME_LEFT)

    def step(self, table: FlowTable, wanted: int = STEP, now: float | None = None) -> bool:
        """Count the next ``wanted`` flows; True at the end of a round, when ``newest`` is a new one.

        ``now``: on the source's clock; without it timeouts are as they were listed.
        """
        if not self._left:
            self._begin()
            self._left = list(table.live.values())
        piece = self._left[-wanted:]
        del self._left[-wanted:]
        self._count([flow for flow in piece if flow.progress.ended is None], now)
        if self._left:
            return False
        self.newest = self._shares(whole=True)
        self._begin()
        return True

    def _shares(self, whole: bool) -> Shares:
        top = tuple((address.decode("ascii", "replace"), number) for address, number in self._sources.most_common(TOP))
        most = self._services.most_common(TOP)
        services = tuple((service_of(self._some[number].kind, port.decode()), count) for (number, port), count in most)
        timeouts = tuple(self._timeouts) if self._flows else ()
        return Shares(self._flows, self._assured, self._unreplied, top, services, timeouts, whole)

    def _count(self, flows: Sequence[Flow], now: float | None) -> None:
        tails = [without_userspace(flow.tail) for flow in flows]
        self._flows += len(flows)
        self._assured += sum([b"[ASSURED]" in tail for tail in tails])
        self._unreplied += sum([b"[UNREPLIED]" in tail for tail in tails])
        self._sources.update([flow.addresses()[0] for flow in flows])
        self._some.update({b"%d" % group.kind.number: group for group in {flow.group for flow in flows}})
        found = cast("Iterator[tuple[bytes, bytes]]", matched(_TO_PORT, [flow.key for flow in flows]))
        self._services.update(found)
        left = [
            timeout if now is None else timeout - now + flow.last_seen.at
            for flow in flows
            if (timeout := flow.timeout) is not None
        ]
        for at, number in Counter([bisect(_ENDS, seconds) for seconds in left]).items():
            self._timeouts[at] += number
        self._sources, self._services = _without_few(self._sources), _without_few(self._services)


_CountedT = TypeVar("_CountedT")


def _without_few(counts: Counter[_CountedT]) -> Counter[_CountedT]:
    """Where there are too many, those that have the most."""
    if len(counts) <= MOST_SOURCES:
        return counts
    most = sorted(counts.items(), key=itemgetter(1), reverse=True)  # most_common takes 0.08 s for that
    return Counter(dict(most[: MOST_SOURCES // 2]))


def sampled_shares(table: FlowTable) -> Shares | None:
    """What a sample of the table says, at once: one flow of every so many, SAMPLED at most."""
    step = max(1, -(-len(table) // SAMPLED))
    census = Census(islice(table.live.values(), 0, None, step))
    census.step(table, SAMPLED)
    return census.newest


# --- what the tuples of all flows say ---------------------------------------------------------------------------------

# The ports that NAT gives to a source whose own port is taken or may not stay, where no rule names others (--to-ports,
# --to-source :A-B): by get_unique_tuple and nf_nat_l4proto_unique_tuple (net/netfilter/nf_nat_core.c, Linux 2.6.24 to
# 6.12) 1024 to 65535 for a source port of 1024 and more; 1 to 511, or 600 to 1023, for one below. The identifier of
# ICMP takes any value. A port may serve once for each protocol and remote end, because the reply is told by these.
NAT_PORTS, ICMP_IDS, FIRST_NAT_PORT = 64_512, 65_536, 1024
OLD_SEEN = 30.0  # seconds of births before an address that nobody has seen go is called old
SURVEYED = 500  # flows surveyed at once: 3 ms where all are translated
FULLEST = 5  # of each kind
MOST_ENDS = 50_000  # counted apart: 8 MiB
_REPLY_END = re.compile(
    rb"^(?:" + BEFORE_REPLY + rb"src=(\S+) dst=(\S+)(?: sport=(\d+) dport=(\d+)| type=\d+ code=\d+ id=(\d+))?)?",
    re.M,
)
_ORIGINAL_SOURCE = re.compile(rb"^\d+ src=(\S+)", re.M)


class PortUse(NamedTuple):
    """The source ports that NAT has given out of an address towards one remote end."""

    wan: str
    protocol: str
    remote: str  # address, and port where the protocol has one
    used: int
    of: int

    @property
    def share(self) -> float:
        return self.used / self.of

    @property
    def what(self) -> str:
        """What is given out."""
        return "identifiers" if self.of == ICMP_IDS else "ports"


class Findings(NamedTuple):
    """What one round over all flows has found."""

    flows: int = 0
    old: tuple[tuple[str, int], ...] = ()  # addresses that this host no longer has, and flows that use them, most first
    ports: tuple[PortUse, ...] = ()  # the fullest, at most FULLEST
    offloaded: int = 0
    idle: int = 0  # established TCP flows without a packet for a day


class Survey:
    """Looks at all flows, a few thousand at a time, for what their tuples and timeouts tell: 1 us a flow."""

    def __init__(self, context: Context) -> None:
        self.newest: Findings | None = None
        self._context = context
        self._left: list[Flow] = []
        self._begin()

    def _begin(self) -> None:
        self._flows = self._offloaded = self._idle = 0
        self._shown: Counter[str] = Counter()  # flows by the address that SNAT gave them
        self._asked: Counter[str] = Counter()  # forwarded flows by the address that was asked for
        self._given: set[str] = set()  # addresses that SNAT has given to flows whose birth was seen
        self._ends: Counter[tuple[int, bytes, bytes, bytes]] = Counter()  # protocol, address of NAT, remote end
        self._few = 0  # ends that no more ports lead to have been forgotten
        self._translated: set[tuple[int, bytes]] = set()  # protocols and addresses that SNAT gives out

    def step(self, table: FlowTable, now: float, wanted: int = SURVEYED) -> bool:
        """Look at the next ``wanted`` flows; True at the end of a round, when ``newest`` is a new one."""
        if not self._left:
            self._begin()
            self._left = list(table.live.values())
        piece = self._left[-wanted:]
        del self._left[-wanted:]
        self._look([flow for flow in piece if flow.progress.ended is None], table, now)
        if self._left:
            return False
        self.newest = self._found(table.watched(now))
        self._begin()
        return True

    def _look(self, flows: Sequence[Flow], table: FlowTable, now: float) -> None:
        tails = [without_userspace(flow.tail) for flow in flows]
        self._flows += len(flows)
        self._offloaded += sum([b"OFFLOAD]" in tail for tail in tails])
        latest = table.timeouts.get("tcp_timeout_established", 0) - DAY + now  # Flow.idle takes 2 us: for the few
        for flow in flows if latest > now else ():
            if flow.timeout is not None and flow.timeout + flow.last_seen.at < latest:
                established = flow.group.state == "ESTABLISHED" and flow.group.kind.number == TCP
                self._idle += established and (flow.idle(now, table.timeouts) or 0) > DAY
        ends = matched(_REPLY_END, tails)
        for flow, src, end in zip(flows, matched(_ORIGINAL_SOURCE, [flow.key for flow in flows]), ends):
            if end[0]:
                self._add(flow, src, end)

    def _add(self, flow: Flow, src: bytes | Sequence[bytes], end: Sequence[bytes]) -> None:
        """A flow whose text has a reply tuple of its own."""
        far, wan, sport, port, icmp_id = end
        number = flow.group.kind.number
        if wan != src:
            self._shown[address := wan.decode()] += 1
            self._translated.add((number, wan))
            if flow.progress.exact:
                self._given.add(address)
        elif (asked := flow.addresses()[1]) != far:
            self._asked[asked.decode()] += 1
        if icmp_id or int(port or 0) >= FIRST_NAT_PORT:
            self._ends[number, wan, far, sport] += 1
            if len(self._ends) > MOST_ENDS:  # a flood of made-up ends: those that few ports lead to are forgotten
                self._few += 1
                self._ends = Counter({end: used for end, used in self._ends.items() if used > self._few})

    def _found(self, watched: float | None) -> Findings:
        context = self._context
        own = context.own
        if own:
            context.know_pools(
                [a for a in self._given if a not in own and a not in context.former and not context.known[a].taken]
            )
        # Where NAT gives this host's own addresses to new flows, and one to old flows only, it has had that one.
        sure = watched is not None and watched >= OLD_SEEN and any(address in own for address in self._given)
        old: Counter[str] = Counter()
        for address, number in self._shown.items() if own else ():
            if context.is_old(address) and (sure or address in context.former):
                old[address] += number
        for address, number in self._asked.items():
            if address in context.former:
                old[address] += number
        return Findings(self._flows, tuple(old.most_common(FULLEST)), self._fullest(), self._offloaded, self._idle)

    def _fullest(self) -> tuple[PortUse, ...]:
        """The ends towards which most of the ports are used that there are."""
        # Of 50,000 ends most are used once, and to find the fullest among all took 20 ms.
        given = self._most_used(2)
        if len(given) < FULLEST:
            given = self._most_used(1)
        found = []
        for (number, wan, far, sport), used in given:
            protocol = _NAT_PROTOCOLS.get(number, f"ip{number}")
            remote = endpoint(far.decode(), int(sport) if sport else None)
            found.append(PortUse(wan.decode(), protocol, remote, used, NAT_PORTS if sport else ICMP_IDS))
        return tuple(found)

    def _most_used(self, least: int) -> list[tuple[tuple[int, bytes, bytes, bytes], int]]:
        """The fullest ends of addresses that SNAT gives out, with ``least`` ports or more."""
        some = [end for end in self._ends.items() if end[1] >= least and end[0][:2] in self._translated]
        return nlargest(FULLEST, some, key=itemgetter(1))


_NAT_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 33: "dccp", 58: "icmpv6", 132: "sctp", 136: "udplite"}


def _port_rows(findings: Findings | None) -> list[HealthRow]:
    rows = []
    for use in findings.ports if findings is not None else ():
        what = f"{use.used} of {use.of} {use.what} of {use.wan}"
        if use.share < LITTLE:  # five of them in five lines of 80 cells
            rows.append(HealthRow("SNAT ports", f"{what}, {use.protocol} to {use.remote}"))
            continue
        text = f"{_percent(use.share)}, {what} used by {use.protocol} to {use.remote}"
        cure = _MORE_ADDRESSES if use.share >= MUCH else ""
        rows.append(HealthRow("SNAT ports", text, fill_role(use.share) if cure else "plain", min(1.0, use.share), cure))
    return rows


_MORE_ADDRESSES = "iptables -t nat -S POSTROUTING, then SNAT to more addresses (--to-source A-B)"
_DELETES_OLD = "X deletes them (with --allow-delete); / nat:stale shows them"


def _finding_rows(findings: Findings | None) -> list[HealthRow]:
    if findings is None:
        return []
    rows = [HealthRow("old address", _old_text(old), "warn", cure=_DELETES_OLD) for old in findings.old]
    rows += _port_rows(findings)
    if number := findings.idle:
        text = f"closing idle ones after 1 day frees {number:,}, {_percent(number / findings.flows)} (filter idle:>1d)"
        rows.append(HealthRow("idle", text, cure=f"{SYSCTL}tcp_timeout_established=86400"))
    if number := findings.offloaded:
        rows.append(HealthRow("offloaded", _offloaded_text(number), "warn", cure=OFFLOAD_CURE))
    return rows


OFFLOAD_CURE = "nft list flowtables, then add counter to them: nft(8)"


def _offloaded_text(number: int) -> str:
    flows = "1 flow is" if number == 1 else f"{number:,} flows are"
    return f"{flows} offloaded to a flowtable: bytes and rates may not be counted"


def _old_text(old: tuple[str, int]) -> str:
    address, number = old
    return (
        f"1 flow uses the old address {address}" if number == 1 else f"{number:,} flows use the old address {address}"
    )


# --- how full, how soon full ------------------------------------------------------------------------------------------


def growth(status: Status, now: float) -> tuple[float, bool] | None:
    """Entries a second over the last minute, and whether that is steady; None before STEADY_GROWTH seconds are known.

    Growth is steady if both halves of the time grew, the slower one at least half as fast as the whole time did.
    """
    fill = [sample for sample in status.fill if sample[0] >= status.fill[-1][0] - MINUTE]
    if len(fill) < 3 or now - fill[-1][0] > STALE or fill[-1][0] - fill[0][0] < STEADY_GROWTH:
        return None
    (began, first), (ended, last) = fill[0], fill[-1]
    middle, between = min(fill[1:-1], key=lambda sample: abs(sample[0] - (began + ended) / 2))
    whole = (last - first) / (ended - began)
    slower = min((between - first) / (middle - began), (last - between) / (ended - middle))
    return whole, whole > 0 and slower >= whole / 2


def full_in(status: Status, now: float) -> float | None:
    """Seconds until the table is full at the present growth; None if it does not grow steadily, or for days to come."""
    most, grows = status.facts.get("max"), growth(status, now)
    if not most or grows is None or not grows[1]:
        return None
    seconds = max(0, most - status.fill[-1][1]) / grows[0]
    return seconds if seconds <= HORIZON else None


def _filled(status: Status) -> float:
    """The filled share of the table; 0 if it is not known."""
    count, most = status.facts.get("count"), status.facts.get("max")
    return count / most if count and most else 0.0


def _about(seconds: float) -> str:
    """A time that is only estimated, in two words.

    >>> _about(42), _about(250), _about(9000)
    ('1 min', '4 min', '2 h')
    """
    return f"{max(1, round(seconds / 60))} min" if seconds < 5400 else f"{round(seconds / 3600)} h"


def percent(share: float) -> str:
    """As the header's gauge says it: a little is not called nothing."""
    return "<1%" if 0 < share < 0.01 else f"{share:.0%}"


def _percent(share: float) -> str:
    """As the panel says it: nor is what is almost full called full."""
    return ">99 %" if 0.995 <= share < 1 else percent(share).replace("%", " %")


def fill_role(share: float, seconds: float | None = None) -> str:
    """The role of a filled share; ``seconds``: how long until the table is full (None: not foreseen)."""
    if share >= NEARLY or (seconds is not None and seconds < SOON):
        return "bad"
    return "warn" if share >= MUCH or (seconds is not None and seconds < FORESEEN) else "good"


def _more_room(status: Status) -> str:
    return f"{SYSCTL}max={2 * status.facts.get('max', 131_072)}"


def _fill_row(status: Status, table: FlowTable, now: float) -> HealthRow:
    count, most = status.facts.get("count"), status.facts.get("max")
    if count is None or not most:
        return HealthRow("table", f"{len(table)} flows; the kernel's count and limit are unknown")
    share, grows, seconds = count / most, growth(status, now), full_in(status, now)
    text = f"{_percent(share)}, {count} of {most}"
    if grows is not None and abs(grows[0]) >= 0.1:
        text += f", {'+' if grows[0] > 0 else '-'}{_with_decimal(abs(grows[0]))}/s"
    if count >= most:
        text += ": full, new flows are dropped"
    elif seconds is not None:
        text += f": full in about {_about(seconds)} at the present growth"
    role = fill_role(share, seconds)
    cure = _more_room(status) if role != "good" else ""
    return HealthRow("table", text, role, min(1.0, share), cure)


def _with_decimal(number: float) -> str:
    return f"{number:.1f}" if number < 9.95 else f"{number:.0f}"


def _number_text(number: int, unit: str, share: float) -> str:
    """How many flows, and their share: ``33 flows (4 %)``, ``1 flow (<1 %)``, ``33 of 900 counted (4 %)``."""
    return f"{number} {'flow' if unit == 'flows' and number == 1 else unit} ({_percent(share)})"


def _share_rows(status: Status, table: FlowTable, shares: Shares | None) -> list[HealthRow]:
    if shares is None or not shares.flows:
        return []
    flows, filled = shares.flows, _filled(status)
    assured, unreplied = shares.assured / flows, shares.unreplied / flows
    unit = "flows" if shares.whole else f"of {flows} counted"
    rows = []
    hoards = assured >= MOSTLY and filled >= MUCH and shares.whole
    text = f"{_number_text(shares.assured, unit, assured)}: never evicted early"
    cure = f"{SYSCTL}tcp_timeout_established=86400" if hoards else ""
    rows.append(HealthRow("assured", text, "warn" if hoards else "plain", assured, cure, "flag:assured"))
    floods = unreplied >= HALF and flows >= FLOWS_FOR_SHARES and shares.whole
    text = f"{_number_text(shares.unreplied, unit, unreplied)}: evicted first when full"
    syn = dict(table.by_state()).get("SYN_SENT", 0) > shares.unreplied / 2
    cure = SYSCTL + ("tcp_timeout_syn_sent=20" if syn else "udp_timeout=10") if floods else ""
    rows.append(HealthRow("unreplied", text, "warn" if floods else "plain", unreplied, cure, "flag:unreplied"))
    for address, number in shares.sources:
        hogs = _hogs(number, shares, filled)
        text = _number_text(number, unit, number / flows)
        cure = _limit(address, status, address in table.own) if hogs else ""
        rows.append(HealthRow(address, text, "warn" if hogs else "plain", number / flows, cure, f"src:{address}"))
    return rows


def _kind_rows(table: FlowTable, shares: Shares | None) -> list[HealthRow]:
    """What the flows are: by state, time left, and protocol and port of the destination."""
    if shares is None or not shares.flows:
        return []
    flows, unit = shares.flows, "flows" if shares.whole else f"of {shares.flows} counted"
    found = [(state, f"state:{state.lower()}", number, len(table)) for state, number in table.by_state()[:TOP]]
    found += [(label, term, number, flows) for (label, term, _), number in zip(TIME_LEFT, shares.timeouts) if number]
    found += [
        (f"{key} {service_name(key)}".strip(), f"service:{key}", number, flows) for key, number in shares.services
    ]
    rows = []
    for label, term, number, of in found:
        share = min(1.0, number / max(1, of))
        text = _number_text(number, unit if of == flows else "flows", share)
        rows.append(HealthRow(label, text, share=share, term=term))
    return rows


def _hogs(number: int, shares: Shares, filled: float) -> bool:
    return shares.whole and number >= HOG * shares.flows and filled >= HALF


def _limit(address: str, status: Status, own: bool = False) -> str:
    """The command that lets a source have a twentieth of the table.

    What others send to this host and through it passes mangle's PREROUTING; what this host itself sends does not.
    """
    program = "ip6tables" if ":" in address else "iptables"
    chain = "OUTPUT" if own else "PREROUTING -t mangle"
    most = max(100, status.facts.get("max", 0) // 20)
    return f"{program} -I {chain} -s {address} -m connlimit --connlimit-above {most} -j DROP"


# --- what the kernel counts -------------------------------------------------------------------------------------------


def a_minute(status: Status, name: str, now: float) -> int:
    """How many times a minute the counter counts now; 0 if too little is known, or nothing new."""
    counted = status.counted
    seconds = counted[-1].at - counted[0].at if counted else 0.0
    if seconds < 0.01 or now - counted[-1].at > STALE:
        return 0
    return round(since(counted[0], counted[-1], name) * MINUTE / seconds)


def _happens(status: Status, name: str) -> str:
    """The role of a counter that has counted: red if the full table is the reason."""
    return "bad" if name in ("early_drop", "drop") and _filled(status) >= NEARLY else "warn"


def _counter_cure(status: Status, name: str) -> str:
    first, last = status.counted_first, status.counted[-1]
    assert first
    new = {name: since(first, last, name) for name, _meaning in TRACKED}
    if name == "chaintoolong" or (name == "insert_failed" and new["chaintoolong"] >= new[name]):
        return f"{SYSCTL}buckets={2 * max(status.facts.get('buckets', 0), status.facts.get('max', 131_072) // 2)}"
    full = name == "early_drop" or (name == "drop" and new[name] > new["insert_failed"])  # a clash counts as both
    return _more_room(status) if full else CLASH_CURE


def _counter_rows(status: Status, now: float) -> list[HealthRow]:
    first = status.counted_first
    if first is None:
        return []
    last, rows = status.counted[-1], []
    if none := [name for name, _ in (*TRACKED, *NORMAL) if last.values.get(name) == 0]:
        rows.append(HealthRow("never counted", ", ".join(none), "good"))
    for name, meaning in (*TRACKED, *NORMAL):
        if name not in last.values or name in none:
            continue
        number, rate = since(first, last, name), a_minute(status, name, now)
        text = f"{number} in {_span(last.at - first.at)}, " if last is not first else ""
        text += f"+{rate}/min, " if rate else ""
        text += f"{last.values[name]} in total: {meaning}"
        if (name, meaning) in NORMAL:
            rows.append(HealthRow(name, text))
        elif number:
            role = _happens(status, name) if rate else "warn"
            rows.append(HealthRow(name, text, role, cure=_counter_cure(status, name)))
        else:
            rows.append(HealthRow(name, text, "good"))
    return rows


# --- how well we see --------------------------------------------------------------------------------------------------


def _sight_rows(status: Status, table: FlowTable, around: Surroundings, now: float, live: bool) -> list[HealthRow]:
    rows = [
        HealthRow(part, f"stopped: {trouble.what}", "warn", cure=trouble.cure) for part, trouble in _troubles(status)
    ]
    text = "none" if live else "none recorded"
    if status.losses:
        text = f"{_times(status.losses)}, table reloaded {_times(status.resyncs)}"
        if status.lost_at is not None:
            text += f"; the last {_ago(now - status.lost_at)}: {status.last_loss}"
    healed = status.healed >= status.losses
    role = "good" if not status.losses else "plain" if healed else "warn"
    rows.append(HealthRow("events lost", text, role, cure=LOSS_CURE if status.narrow else ""))
    if table.listed_at is None:
        rows.append(HealthRow("counters", "no full listing yet"))
    else:
        age = now - table.listed_at
        text = f"refreshed {_ago(age)}"
        rows.append(HealthRow("counters", text, "warn" if live and age > OLD else "good"))
    if table.overflow:
        rows.append(HealthRow("memory", f"{_overflow(table)} here", "bad"))
    rows += [HealthRow("input", text, "warn") for text in status.unread()]
    return rows + ([HealthRow("recording", around.recording, "warn")] if around.recording else [])


def _overflow(table: FlowTable) -> str:
    return f"{table.overflow} flows not kept: the limit is {table.limit}"


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _troubles(status: Status) -> list[tuple[str, Problem]]:
    return [(part, status.troubles[part]) for part in ("listing", "events") if part in status.troubles]


def _ago(seconds: float) -> str:
    return f"{_span(seconds)} ago"


def _span(seconds: float) -> str:
    return f"{max(0, seconds):.0f} s" if seconds < 90 else _about(seconds)


def _setting_rows(status: Status, table: FlowTable) -> list[HealthRow]:
    facts, rows = status.facts, []
    if "acct" in facts:
        if facts["acct"]:
            rows.append(HealthRow("accounting", "on", "good"))
        elif table.counted:
            rows.append(
                HealthRow(
                    "accounting", "off for new flows: only older flows have byte counts", "warn", cure=ACCOUNTING_CURE
                )
            )
        else:
            rows.append(HealthRow("accounting", ACCOUNTING_OFF, "warn", cure=ACCOUNTING_CURE))
    if (events := facts.get("events")) is not None:
        if events == 0:
            rows.append(
                HealthRow("kernel events", "off: changes are found only by listing the table", "warn", cure=EVENTS_CURE)
            )
        else:
            rows.append(HealthRow("kernel events", "on" if events == 1 else "on (auto)", "good"))
    if "timestamp" in facts:
        off = "off: age unknown for flows that began before monitoring"
        cure = f"{SYSCTL}timestamp=1"
        rows.append(
            HealthRow("timestamps", "on", "good") if facts["timestamp"] else HealthRow("timestamps", off, cure=cure)
        )
    return rows


def _base_rows(around: Surroundings) -> list[HealthRow]:
    rows = []
    for base in around.databases:
        text = f"{base.name} {base.month}, {base.days:.0f} days old" + (": outdated" if base.old else "")
        rows.append(HealthRow("database", text, "warn" if base.old else "plain", cure=base.cure if base.old else ""))
    return rows + [HealthRow("database", text, "warn", cure=cure) for text, cure in around.geography]


def _log_rows(around: Surroundings) -> list[HealthRow]:
    rows = [HealthRow("names", around.names)] if around.names else []
    rows += [HealthRow("flow log", around.logged)] if around.logged else []
    rows += [HealthRow("flow log", text, "warn", cure=cure) for text, cure in around.log]
    rows += [HealthRow("IPFIX", text) for text in around.exported]
    rows += [HealthRow("IPFIX", text, "warn", cure=cure) for text, cure in around.export]
    rows += [HealthRow("metrics", around.measured)] if around.measured else []
    return rows + [HealthRow("metrics", text, "warn", cure=cure) for text, cure in around.metrics]


# --- out --------------------------------------------------------------------------------------------------------------


def panel(
    status: Status,
    table: FlowTable,
    shares: Shares | None,
    now: float,
    live: bool = True,
    around: Surroundings = NOTHING_AROUND,
) -> list[HealthRow]:
    """All that is known, the table first. ``now`` on the source's clock; a recording has nothing to mend."""
    rows = [_fill_row(status, table, now), *_share_rows(status, table, shares), *_finding_rows(around.findings)]
    rows += _counter_rows(status, now)
    rows += [*_sight_rows(status, table, around, now, live), *_setting_rows(status, table)]
    rows += _kind_rows(table, shares)
    rows = [replace(row, cure=cure_there(row.cure, around.before) if live else "") for row in rows]
    return rows + _log_rows(around) + _base_rows(around)


def brief(status: Status, shares: Shares | None, now: float) -> list[tuple[str, str]]:
    """For the header: what matters now and its role, what runs out first; mostly nothing."""
    out = []
    count, most, seconds = status.facts.get("count"), status.facts.get("max"), full_in(status, now)
    if count is not None and most and count >= most:
        out.append(("table full", "bad"))
    elif seconds is not None and seconds < FORESEEN:
        out.append((f"full in ~{_about(seconds)}", "bad" if seconds < SOON else "warn"))
    for name, _meaning in TRACKED:
        if rate := a_minute(status, name, now):
            out.append((f"{name} +{rate}/min", _happens(status, name)))
    out.sort(key=lambda item: item[1] != "bad")
    filled = _filled(status)
    if shares and shares.sources and filled < MUCH and _hogs(shares.sources[0][1], shares, filled):  # else a notice
        address, number = shares.sources[0]
        out.append((f"{address} holds {_percent(number / shares.flows)}", "warn"))
    return out


# --- out of memory ----------------------------------------------------------------------------------------------------

FLOW_SIZE = 400  # bytes that a live flow takes


def out_of_memory(table: AnyTable | None, taken: int, limit: int | None, helps: str = "") -> Problem:
    """What took the memory, and what helps. ``taken``: bytes in use at most; ``limit``: of address space, in bytes.

    ``helps``: what makes this way to run need less.
    """
    allowed = "" if limit is None else f", {limit / 1e6:.0f} MB are allowed (ulimit -v)"
    what = f"out of memory with {taken / 1e6:.0f} MB in use{allowed}"
    more = "more memory" if limit is None else "ulimit -v unlimited"
    if table is None:
        return Problem(f"{what}, before anything was read", more)
    ended = len(table.past)
    what += f": {len(table)} flows (about {len(table) * FLOW_SIZE / 1e6:.0f} MB), {ended} ended ones (--history)"
    what += f", {len(table.tape)} events"
    return Problem(what, "; ".join([more, "--history 0"] if ended > len(table) else filter(None, [more, helps])))


# --- several nodes ------------------------------------------------------------------------------------------------


def node_facts(status: Status, table: FlowTable, live: bool, now: float) -> NodeFacts:
    """How a node is doing. ``now`` on the source's clock; ``live``: it is no recording."""
    problem = status.troubles.get("listing") or status.troubles.get("events")
    reason, state = "", REPLAYED if not live else LIVE
    if problem is not None:
        age = "" if table.listed_at is None else f", table is {max(0, now - table.listed_at):.0f} s old"
        state, reason = GONE, f"{problem.what}{age}"
    elif live and table.listed_at is None:
        state = BEGINS
    elif status.behind >= LATE:
        state = LATE_NODE
    return NodeFacts(
        *(state, reason, status.facts.get("count"), status.facts.get("max")),
        table.history[-1] if table.watched_since is not None and table.history else None,
        None if table.listed_at is None else status.losses,
        status.behind if state in (LIVE, LATE_NODE) else None,
    )


# --- notices ----------------------------------------------------------------------------------------------------------

SLOW = 5.0  # seconds: 262,144 flows, the kernel's default maximum, are listed in two
AFTER_DEAF = "kernel events were off: flows that have ended since then stay until the next full listing"


class About(Enum):
    """What a notice is about."""

    TABLE = auto()
    MEMORY = auto()
    LISTING = auto()
    EVENTS = auto()
    LOSS = auto()
    BEHIND = auto()
    LATE_LISTING = auto()
    RECORDING = auto()
    LOG = auto()
    EXPORT = auto()
    METRICS = auto()
    ALERT = auto()
    DROPS = auto()
    PORTS = auto()
    OLD_ADDRESS = auto()
    OFFLOADED = auto()
    KERNEL_EVENTS = auto()
    ACCOUNTING = auto()
    INPUT = auto()
    SETTINGS = auto()
    PLACES = auto()


OF_A_TABLE = {About.TABLE, About.MEMORY, About.ACCOUNTING}  # what matters to who reads the table once
# What a stream says when it happens, and not when it looks at what is wrong.
SAID_AS_IT_COMES = {
    *(About.LISTING, About.EVENTS, About.LOSS, About.BEHIND, About.RECORDING, About.INPUT, About.SETTINGS),
}


@dataclass(frozen=True)
class Notice:
    """One line about what runs out, what is lost, stale, switched off or unknown.

    ``state``: what must change before a notice that was put aside, or was said already, is a new one. Numbers that
    change all the time are not in it.
    """

    text: str
    cure: str = ""
    bad: bool = False  # the picture may be untrue, not only poorer; or the table is about to be full
    about: About = field(default=About.INPUT, compare=False)
    state: Hashable = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.text}; try: {self.cure}" if self.cure else self.text

    @property
    def key(self) -> Hashable:
        return self.about, self.state

    def of(self, node: str) -> Notice:
        """The same, with the node that it is about."""
        return replace(self, text=f"{clean(node)}: {self.text}", state=(node, self.state))


def by_weight(notices: Iterable[Notice]) -> list[Notice]:
    """Notices of several nodes, the heaviest first, as ``notices_of`` has those of one."""
    places = {about: place for place, about in enumerate(About)}
    return sorted(notices, key=lambda notice: (places[notice.about], not notice.bad))


def notices_of(
    status: Status,
    table: FlowTable,
    live: bool,
    now: float,
    around: Surroundings = NOTHING_AROUND,
    shares: Shares | None = None,
) -> list[Notice]:
    """All that is wrong by weight: what runs out, what is lost or late, what is off, the rest."""
    out = [*_shortages(status, table, live, now, shares), *_losses(status, table, live, now, around)]
    out += around.alerts
    out += _found(around.findings, live)
    if live:
        out += _switched_off(status, table)
    out += [Notice(text, about=About.INPUT, state=_magnitude(text)) for text in status.unread()]
    if around.settings:
        out.append(Notice(around.settings, about=About.SETTINGS))
    out += [Notice(text, cure, about=About.METRICS, state=text) for text, cure in around.metrics]
    out += [Notice(text, cure, about=About.PLACES, state=_magnitude(text)) for text, cure in around.geography]
    return [replace(notice, cure=cure_there(notice.cure, around.before)) for notice in out]


def fills(notice: Notice) -> bool:
    """Is it about a table that is nearly full?"""
    return notice.about is About.TABLE


def _magnitude(text: str) -> str:
    """A text with the length of each number in the number's place: it changes when a number grows tenfold.

    >>> _magnitude("12 lines not understood") == _magnitude("98 lines not understood")
    True
    """
    return "".join("0" if char.isdigit() else char for char in text)


def _shortages(status: Status, table: FlowTable, live: bool, now: float, shares: Shares | None) -> Iterator[Notice]:
    """What runs out."""
    if fills := _fill_notice(status, now, shares):
        yield fills if live else replace(fills, cure="")
    if table.overflow:
        yield Notice(_overflow(table), bad=True, about=About.MEMORY, state=len(str(table.overflow)))


def _fill_notice(status: Status, now: float, shares: Shares | None) -> Notice | None:
    count, most, seconds = status.facts.get("count"), status.facts.get("max"), full_in(status, now)
    if count is None or not most:
        return None
    share, soon = count / most, seconds is not None and seconds < SOON
    if share < MUCH and not soon:
        return None
    text = f"table {_percent(share)} full ({count}/{most})" if share < 1 else f"table full ({count}/{most})"
    if shares and shares.whole and shares.sources:
        address, number = shares.sources[0]
        text += f"; {address} holds most: {_percent(number / shares.flows)}"
    if share < 1 and seconds is not None and seconds < FORESEEN:
        text += f"; full in ~{_about(seconds)}"
    state = (share >= MUCH) + (share >= NEARLY) + (share >= 1), soon
    return Notice(text, _more_room(status), share >= NEARLY or soon, About.TABLE, state)


def _losses(
    status: Status, table: FlowTable, live: bool, now: float, around: Surroundings = NOTHING_AROUND
) -> Iterator[Notice]:
    """What is lost or late."""
    for part, about in (("listing", About.LISTING), ("events", About.EVENTS)):
        if (problem := status.troubles.get(part)) is not None:
            since = "" if table.listed_at is None else f", table is {max(0, now - table.listed_at):.0f} s old"
            text = f"{part} stopped: {problem.what}{since if part == 'listing' else ''}, retrying"
            yield Notice(text, problem.cure, True, about, problem.what)
    if status.behind >= LATE:
        yield Notice(f"{status.behind:.0f} s behind: {BEHIND}", bad=True, about=About.BEHIND)
    if status.losses and status.lost_at is not None and now - status.lost_at < 60:
        again = status.healed >= status.losses
        text = f"{status.last_loss} lost {status.losses}x, " + ("table reloaded since" if again else "reloading it")
        yield Notice(text, LOSS_CURE if live and status.narrow else "", not again, About.LOSS, (status.losses, again))
    if around.recording:
        yield Notice(around.recording, bad=True, about=About.RECORDING, state=around.recording)
    for text, cure in around.log:
        yield Notice(text, cure, bad=True, about=About.LOG, state=_magnitude(text))
    for text, cure in around.export:
        yield Notice(text, cure, bad=True, about=About.EXPORT, state=_magnitude(text))
    if live and status.listing_since is not None and now - status.listing_since > SLOW:
        text = f"the listing that began {now - status.listing_since:.0f} s ago has not finished"
        yield Notice(f"{text}: the table is older than that", about=About.LATE_LISTING)
    if live:
        yield from _drop_notices(status, now)


def _found(findings: Findings | None, live: bool) -> Iterator[Notice]:
    """What the tuples of all flows tell: ports that run out, flows that nobody can answer, bytes that are missing."""
    if findings is None:
        return
    for use in findings.ports:
        if use.share >= MUCH:
            text = f"SNAT ports of {use.wan} to {use.remote} ({use.protocol}): {_percent(use.share)} used"
            yield Notice(
                text,
                _MORE_ADDRESSES if live else "",
                use.share >= NEARLY,
                About.PORTS,
                (use.wan, use.protocol, use.remote),
            )
    for old in findings.old:
        yield Notice(_old_text(old), _DELETES_OLD if live else "", about=About.OLD_ADDRESS, state=old[0])
    if number := findings.offloaded:
        state = _magnitude(str(number))
        yield Notice(_offloaded_text(number), OFFLOAD_CURE if live else "", about=About.OFFLOADED, state=state)


def _drop_notices(status: Status, now: float) -> Iterator[Notice]:
    """What the kernel drops now. A full table is the reason for two of the counters, and has a notice of its own."""
    for name, meaning in TRACKED:
        if not (rate := a_minute(status, name, now)):
            continue
        cure = _counter_cure(status, name)
        if cure == _more_room(status) and _filled(status) >= MUCH:
            continue
        yield Notice(f"{name} +{rate}/min: {meaning}", cure, about=About.DROPS, state=name)


def _switched_off(status: Status, table: FlowTable) -> Iterator[Notice]:
    """What is off in the kernel."""
    if status.facts.get("events") == 0:
        yield Notice("the kernel sends no events", EVENTS_CURE, bad=True, about=About.KERNEL_EVENTS)
    elif status.deaf:
        yield Notice(AFTER_DEAF, about=About.KERNEL_EVENTS, state="on again")
    if status.facts.get("acct") == 0 and not table.counted:
        yield Notice(ACCOUNTING_OFF, ACCOUNTING_CURE, about=About.ACCOUNTING)
