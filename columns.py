"""The views and their columns, as data: what a row is, how it is printed and sorted."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from socket import AF_INET, AF_INET6, inet_aton, inet_pton
from typing import Any, Generic, TypeVar

import addresses
from addresses import UNNAMED, Context, Fan, Named, Place, Process
from flows import BYTES, IDLE, PACKETS, Flow, Group, NodeFacts, TapeEvent, matched, newest_texts
from grouping import (
    ADDRESSES,
    COUNTRY,
    FAR,
    KEYS,
    NEAR,
    NETWORK,
    NUMBERS,
    SERVICE,
    Grouping,
    GroupKey,
    GroupRow,
    UsageRow,
    by_keys,
    group_keys,
    key_values,
    service_name,
    term_of,
)
from text import ASCII, DAY, Glyphs, clean, endpoint, fine_bar, service, size_text, span_text, sparkline, text_table
from vocabulary import ViewName

# --- sort keys of flows -----------------------------------------------------------------------------------------------

RowT = TypeVar("RowT")
FactsT = TypeVar("FactsT")
SortKeys = list[Any]  # one for each row; those of one column can be compared with each other
Keys = Callable[[Sequence[RowT], Context], SortKeys]
NO_ADDRESS = 1 << 256  # beyond all addresses
NO_PLACE = "\U0010ffff"  # beyond all names

# The beginning of a flow's key: an address, and the port, ICMP id or GRE key that belongs to it.
_SOURCE = re.compile(rb"^\d+ src=(\S+) dst=\S+ (?:sport=(\d+)|type=\d+ code=\d+ id=(\d+)|srckey=0x([0-9a-f]+))?", re.M)
_DESTINATION = re.compile(
    rb"^\d+ src=\S+ dst=(\S+) (?:sport=\d+ dport=(\d+)|type=\d+ code=\d+ id=(\d+)|srckey=\S+ dstkey=0x([0-9a-f]+))?",
    re.M,
)
_ADDRESSES = re.compile(rb"^\d+ src=(\S+) dst=(\S+)", re.M)


def order_by_protocol(flows: Sequence[Flow], _context: Context) -> SortKeys:
    of = {group: f"{group.kind.protocol} {group.kind.number:5}" for group in _groups(flows)}
    return [of[flow.group] for flow in flows]


def order_by_state(flows: Sequence[Flow], _context: Context) -> SortKeys:
    states = {group: group.state for group in _groups(flows)}
    return [states[flow.group] or flow.status() for flow in flows]


def _groups(flows: Sequence[Flow]) -> set[Group]:
    return {flow.group for flow in flows}


def order_by_source(flows: Sequence[Flow], _context: Context) -> SortKeys:
    return _end_keys(flows, _SOURCE)


def order_by_destination(flows: Sequence[Flow], _context: Context) -> SortKeys:
    return _end_keys(flows, _DESTINATION)


def _end_keys(flows: Sequence[Flow], pattern: re.Pattern[bytes]) -> SortKeys:
    found = list(matched(pattern, [flow.key for flow in flows]))
    return [
        address + (int(port or icmp_id or 0) if not key else int(key, 16))
        for address, (_text, port, icmp_id, key) in zip(address_numbers([ends[0] for ends in found]), found)
    ]


def address_numbers(addresses: Sequence[bytes]) -> list[float]:
    """Addresses as numbers: IPv4 first, then IPv6, then other texts; in steps of 65,536, which leaves room for a port.

    Floats (they hold 53 bits) are sorted in two thirds of the time of whole numbers as large.
    """
    try:
        return [
            _address_number(address)
            if b":" in address
            else 65536.0 * int.from_bytes(inet_aton(address.decode()), "big")
            for address in addresses
        ]
    except OSError:  # digits and dots that are none
        return [_address_number(address) for address in addresses]


def _address_number(address: bytes) -> float:
    text = address.decode()
    try:
        if ":" in text:
            return (1 << 48) + (int.from_bytes(inet_pton(AF_INET6, text), "big") << 16)
        return 65536.0 * int.from_bytes(inet_pton(AF_INET, text), "big")
    except OSError:
        return NO_ADDRESS + (int.from_bytes(address[:45].ljust(45, b"\0"), "big") << 16)


def order_by_nat(flows: Sequence[Flow], _context: Context) -> SortKeys:
    """Without a reply tuple of its own in its text, a flow has no NAT."""
    return ["".join(flow.ends().nat) if b"src=" in flow.tail else "" for flow in flows]


def _by_node(keys: Keys[Flow]) -> Keys[Flow]:
    """Of several nodes each has a context of its own."""
    return lambda flows, context: [key for its, some in context.parts(flows) for key in keys(some, its)]


def order_by_place(pick: Callable[[Place], str | int | None], none: str | float = NO_PLACE) -> Keys[Flow]:
    """By a fact about the remote end; what has none comes last."""

    def keys(flows: Sequence[Flow], context: Context) -> SortKeys:
        remotes = [
            context.remote_of(src, dst) if flow.plain else context.remote_address(flow)
            for flow, (src, dst) in zip(flows, matched(_ADDRESSES, [flow.key for flow in flows]))
        ]
        found = {address: pick(context.where(address)) for address in set(remotes)}
        facts = {address: none if fact is None else fact for address, fact in found.items()}
        return [facts[address] for address in remotes]

    return _by_node(keys)


def name_of_ends(near: str, far: str, context: Context) -> str:
    """Who has the near end; where nobody knows that (it is this host, mostly), who has the far one."""
    return context.who(near).label or context.who(far).label


@_by_node
def order_by_name(flows: Sequence[Flow], context: Context) -> SortKeys:
    """By who has an end; those without a name come last."""
    ends = [context.sides(flow) for flow in flows]
    return [name_of_ends(near, far, context).casefold() or NO_PLACE for near, far, _ in ends]


@_by_node
def order_by_process(flows: Sequence[Flow], context: Context) -> SortKeys:
    """By the process whose flow it is; those without one come last."""
    found = [context.process(flow.kind.protocol, flow.ends()) for flow in flows]
    return [process.name.casefold() if process else NO_PLACE for process in found]


def order_by_rate(flows: Sequence[Flow], _context: Context) -> SortKeys:
    return [
        (-1.0 if b"OFFLOAD]" in flow.tail else 0.0)
        if (rates := flow.progress.rates) is IDLE
        else -1.0
        if rates is None
        else rates[0] + rates[1]
        for flow in flows
    ]


def order_by_bytes(flows: Sequence[Flow], _context: Context) -> SortKeys:
    return _totals(flows, BYTES, Flow.total)


def order_by_packets(flows: Sequence[Flow], _context: Context) -> SortKeys:
    return _totals(flows, PACKETS, Flow.packets)


def _totals(flows: Sequence[Flow], pattern: re.Pattern[bytes], total: Callable[[Flow], int | None]) -> SortKeys:
    """Sums of two counters; -1 without counters. ``total`` reads the texts that the pattern does not match."""
    return [
        int(there) + int(back) if there else -1 if (number := total(flow)) is None else number
        for flow, (there, back) in zip(flows, matched(pattern, newest_texts(flows)))
    ]


def order_by_age(flows: Sequence[Flow], context: Context) -> SortKeys:
    now = context.now
    return [
        now - flow.born
        if (progress := flow.progress).ended is None and progress.listed is None and b"delta-time=" not in flow.tail
        else flow.age(now)
        for flow in flows
    ]


def order_by_timeout(flows: Sequence[Flow], _context: Context) -> SortKeys:
    """By the moment at which the kernel forgets a flow."""
    return [
        math.inf if (left := flow.timeout) is None or flow.progress.ended is not None else left + flow.last_seen.at
        for flow in flows
    ]


@_by_node
def order_by_idle(flows: Sequence[Flow], context: Context) -> SortKeys:
    now, timeouts = context.now, context.timeouts
    return [_unknown_last(flow.idle(now, timeouts)) for flow in flows]


class FlowSum:
    """What flows moved together: the line of totals asks it as the other lines ask a flow."""

    def __init__(self) -> None:
        self._flows = 0
        self._sums = [0.0, 0.0, 0.0]  # bytes a second, bytes, packets
        self._known = [0, 0, 0]  # of how many flows

    def add(self, flows: Sequence[Flow], context: Context) -> None:
        """Add flows: 4 us each."""
        self._flows += len(flows)
        for at, values in enumerate((order_by_rate, order_by_bytes, order_by_packets)):
            known = [value for value in values(flows, context) if value >= 0]
            self._sums[at] += sum(known)
            self._known[at] += len(known)

    def rate(self) -> float | None:
        return self._sum(0)

    def total(self) -> float | None:
        return self._sum(1)

    def packets(self) -> float | None:
        return self._sum(2)

    def _sum(self, at: int) -> float | None:
        """None where it is 0 and not all of its parts are known."""
        return self._sums[at] if self._sums[at] or self._known[at] == self._flows else None


@dataclass(frozen=True)
class SumFacts:
    """The facts that the total of flows is made of: of ``FlowFacts`` what columns ask that add up."""

    flow: FlowSum
    bits: bool
    live: bool = True


# --- columns of flows -------------------------------------------------------------------------------------------------

MOST_IMPORTANT = 10  # the rank of the destination: the column that is left where there is room for one
ESSENTIAL = 60  # columns up to this rank are squeezed, so that 80 cells hold them all


@dataclass(frozen=True)
class FlowFacts:
    """The facts that the cells of a flow's row are made of."""

    flow: Flow
    ends: addresses.Ends
    where: Place
    remote: str
    now: float
    names: bool  # services by name
    name: Callable[[str], str | None] = lambda _address: None  # of a host
    who: str = ""  # has the near end, or the far one where nobody knows that
    process: Process | None = None  # on this host, whose flow it is
    epoch: float = 0.0  # what to add to ``now`` for seconds since 1970
    timeouts: Mapping[str, int] = field(default_factory=dict)  # the kernel's, see parse.TIMEOUTS
    # The one address that SNAT puts into all rows on show, which the heading says; "" where they differ. None where
    # nobody sees the other rows: then each says all.
    wan: str | None = None
    bits: bool = False  # rates are in bits a second, not bytes

    @property
    def live(self) -> bool:
        return self.flow.ended is None

    def endpoint(self, address: str, port: int | None, name: str | None = None) -> str:
        """The address with its port, if the protocol has ports: an ICMP id stands in the same place."""
        return endpoint(address, port if self.flow.kind.has_ports else None, name)


@dataclass(frozen=True)
class Column(Generic[FactsT, RowT]):
    """A column of rows of one kind: its cells are made of facts about a row.

    Widths are cells; ``most`` above ``least`` lets it grow as far as its cells need it, and ``room`` beyond ``most``;
    a low ``rank`` is shown on narrow screens.
    """

    key: str
    title: str
    least: int
    most: int
    rank: int
    cell: Callable[[FactsT], str]
    keys: Keys[RowT]  # what it sorts by
    right: bool = False
    descending: bool = False  # the largest comes first
    roomy: int = 0  # the width it likes; 0: ``least``
    middle: bool = False  # cut in the middle: an address cut at its end would be another address
    brief: Callable[[FactsT], str] | None = None  # what the cell says where ``cell`` is too long
    adds: bool = False  # the line of totals has the sum of its cells
    bits_title: str = ""  # where rates are in bits a second
    of_screen: bool = False  # what was there before is in it: for who looks on, and not to sort by
    newest_last: bool = False  # cut at its beginning
    room: bool = False  # it takes the room that others leave: names, which have no longest form
    narrow_form_of: str = ""  # the column that takes its place where there is room
    only_with: str = ""  # where it is: with a flow log ("log"), several "nodes", "names", "processes"; "": everywhere
    zoned: bool = False  # a time: where its cells have no room for the zone, the title names it
    wan_title: str = ""  # what stands before the address that SNAT puts into all rows

    def __post_init__(self) -> None:
        object.__setattr__(self, "roomy", self.roomy or self.least)


AnyColumn = Column[Any, Any]  # of a view whose rows are not known here
FlowColumn = Column[FlowFacts, Flow]


def facts_of(flow: Flow, context: Context, names: bool) -> FlowFacts:
    e, context = flow.ends(), context.of(flow)
    near, remote, _ = context.sides_of_ends(e)
    who, process = name_of_ends(near, remote, context), context.process(flow.kind.protocol, e)
    return FlowFacts(
        *(flow, e, context.where(remote), remote, context.now, names, context.name),
        *(who, process, context.epoch, context.timeouts),
    )


def end_text(s: FlowFacts, source: bool) -> str:
    address, port = (s.ends.src, s.ends.sport) if source else (s.ends.dst, s.ends.dport)
    name = s.name(address)
    return s.endpoint(name or address, port, service(s.flow.kind.protocol, port) if s.names and not source else None)


def _destination_number(s: FlowFacts) -> str:
    """The port's number is shorter than its name."""
    return end_text(replace(s, names=False), False)


def nat_text(s: FlowFacts, separator: str = " ") -> str:
    """What NAT put in place of an end: ``snat 203.0.113.1:40000``, ``dnat 10.0.0.5:80``, both, or nothing.

    Among other rows a port is named only if NAT changed it, and the address of SNAT only if it is not that of all.
    """
    e = s.ends
    parts = []
    if e.snat:
        parts.append(f"snat {_put_in(s, e.reply_dst, e.reply_dport, e.sport)}".rstrip())
    if e.dnat:
        parts.append(f"dnat {_put_in(s, e.reply_src, e.reply_sport, e.dport)}")
    return separator.join(parts)


def _put_in(s: FlowFacts, address: str, port: int | None, before: int | None) -> str:
    """An end that NAT has put in the place of one with the port ``before``."""
    if s.wan is None:
        return s.endpoint(address, port)
    port = None if port == before else port
    return s.endpoint("" if address == s.wan else address, port)


def common_wan(rows: Sequence[FlowFacts]) -> str:
    """The one address that SNAT puts into all of these; "" where there are more, or none."""
    found = {s.ends.reply_dst for s in rows if s.ends.snat}
    return found.pop() if len(found) == 1 else ""


def _nat_brief(s: FlowFacts) -> str:
    """One end where both are translated: the target of DNAT says more than the address that SNAT puts in."""
    if len(s.ends.nat) < 2:
        return nat_text(s)
    return f"both {_put_in(s, s.ends.reply_src, s.ends.reply_sport, s.ends.dport)}"


def nat_kind(s: FlowFacts) -> str:
    kinds = s.ends.nat
    return "both" if len(kinds) == 2 else "".join(kinds)


def country_text(s: FlowFacts) -> str:
    """The country's code; "--" for a public address without a known country; the scope of any other address."""
    if s.where.country:
        return clean(s.where.country, 2)
    scope = addresses.scope(s.remote)
    return "--" if scope == "public" else scope


# Words of at most four letters, each of which says what it is; small ones, which can't be taken for a country's code.
BRIEF_SCOPES = {
    **{"private": "lan", "cgnat": "cgn", "link-local": "link", "loopback": "loop", "multicast": "mcst"},
    **{"broadcast": "all", "documentation": "doc", "benchmark": "test", "unspecified": "any", "reserved": "resv"},
}


def _country_brief(s: FlowFacts) -> str:
    """A scope in three or four small letters."""
    text = country_text(s)
    return BRIEF_SCOPES.get(text, text)


BITS = "BIT/s"  # of a column of rates, where these are in bits

FLOW_COLUMNS: tuple[FlowColumn, ...] = (
    FlowColumn(
        *("node", "NODE", 4, 16, 15, lambda s: s.flow.node),
        lambda flows, _context: [flow.node for flow in flows],
        only_with="nodes",
        roomy=8,
    ),
    FlowColumn("proto", "PROTO", 5, 5, 0, lambda s: protocol_text(s.flow), order_by_protocol),
    FlowColumn("state", "STATE", 11, 11, 40, lambda s: s.flow.status(), order_by_state),
    FlowColumn("source", "SOURCE", 14, 47, 30, lambda s: end_text(s, True), order_by_source, roomy=21, middle=True),
    FlowColumn(
        *("destination", "DESTINATION", 21, 47, 10),
        lambda s: end_text(s, False),
        order_by_destination,
        middle=True,
        brief=_destination_number,
    ),
    FlowColumn("name", "NAME", 12, 24, 65, lambda s: s.who, order_by_name, only_with="names"),
    FlowColumn(
        *("process", "PROCESS", 10, 15, 105, lambda s: s.process.name if s.process else ""),
        order_by_process,
        only_with="processes",
    ),
    FlowColumn("natkind", "NAT", 4, 4, 90, nat_kind, order_by_nat, descending=True, narrow_form_of="nat"),
    FlowColumn(
        *("nat", "NAT", 11, 52, 120, nat_text, order_by_nat),
        wan_title="NAT",
        descending=True,
        roomy=26,
        middle=True,
        brief=_nat_brief,
    ),
    FlowColumn(*("cc", "CC", 4, 10, 60), country_text, order_by_place(lambda w: w.country), brief=_country_brief),
    FlowColumn(
        *("city", "CITY", 10, 18, 140, lambda s: clean(s.where.city or "")),
        order_by_place(lambda w: w.city),
        room=True,
    ),
    FlowColumn(
        *("asn", "ASN", 8, 8, 130),
        lambda s: f"AS{s.where.asn}" if s.where.asn is not None else "",
        order_by_place(lambda w: w.asn, none=math.inf),
    ),
    FlowColumn(
        *("org", "ORG", 12, 28, 110, lambda s: clean(s.where.org or "")),
        order_by_place(lambda w: w.org),
        room=True,
    ),
    FlowColumn(
        *("rate", "RATE", 6, 6, 20),
        lambda s: rate_text(s.flow, s.bits),
        order_by_rate,
        right=True,
        descending=True,
        adds=True,
        bits_title=BITS,
    ),
    FlowColumn(
        *("bytes", "BYTES", 5, 5, 70),
        lambda s: size_text(s.flow.total()),
        order_by_bytes,
        right=True,
        descending=True,
        adds=True,
    ),
    FlowColumn(
        *("packets", "PKTS", 5, 5, 100),
        lambda s: size_text(s.flow.packets()),
        order_by_packets,
        right=True,
        descending=True,
        adds=True,
    ),
    FlowColumn("age", "AGE", 5, 5, 50, lambda s: age_text(s), order_by_age, right=True, descending=True),
    FlowColumn(
        *("timeout", "TIMEOUT", 7, 7, 80),
        lambda s: span_text(s.flow.remaining(s.now)) if s.live else "closed",
        order_by_timeout,
        right=True,
    ),
    FlowColumn("idle", "IDLE", 5, 5, 145, lambda s: idle_text(s), order_by_idle, right=True, descending=True),
)
FLOW_COLUMN = {column.key: column for column in FLOW_COLUMNS}

# What --sort takes: the keys, without the second, narrow form of NAT, and the words people may try.
SORTS = tuple(column.key for column in FLOW_COLUMNS if not column.narrow_form_of)
ALIASES = {"src": "source", "dst": "destination", "country": "cc", "protocol": "proto", "pkts": "packets"}


def protocol_text(flow: Flow) -> str:
    name = {"icmpv6": "icmp6", "udplite": "udpl"}.get(flow.kind.protocol, flow.kind.protocol)
    if name == "unknown":
        return f"ip{flow.kind.number}" if flow.kind.number < 1000 else str(flow.kind.number)
    return clean(name, 5)


def rate_text(flow: Flow | FlowSum, bits: bool = False) -> str:
    return _rate_words(flow.rate(), bits)


def _rate_words(rate: float | None, bits: bool) -> str:
    """Bytes a second, or bits; the heading says so. "-" is unknown."""
    if rate is None:
        return "-"
    rate *= 8 if bits else 1
    return f"{size_text(rate)}/s" if rate >= 0.5 else "0"


OLDER = "old"  # older than our first sight of it, which was a moment ago


def age_text(s: FlowFacts) -> str:
    """The age; with ">" where the flow is older than we know, and "old" where that is all we know."""
    seconds = s.flow.age(s.now)
    if seconds >= 1000 * DAY:  # a clock was set; years fit into the five cells, and no number is cut
        return f"{min(seconds / DAY / 365.25, 9999):.0f}y"
    if s.flow.knows_age():
        return span_text(seconds)
    if seconds < 10:
        return OLDER
    return ">" + span_text(seconds - seconds % 10 if seconds < 60 else seconds)  # in steps of 10 s: it is a lower bound


def idle_text(s: FlowFacts) -> str:
    """How long ago its last packet was; "-" where nobody can tell."""
    idle = s.flow.idle(s.now, s.timeouts) if s.live else None
    return "-" if idle is None else span_text(idle)


def fit(width: int, wanted: Sequence[AnyColumn] = FLOW_COLUMNS) -> list[tuple[AnyColumn, int]]:
    """The columns that fit into ``width`` cells (one blank between two), in their order, each with its width.

    Columns come by rank; what is left over lets those grow that can.
    """
    chosen: list[AnyColumn] = []
    for column in sorted(wanted, key=lambda c: c.rank):
        candidate = [*chosen, column]
        candidate = [c for c in candidate if c.narrow_form_of != column.key]
        # The more important columns have the room they like before a less important one comes.
        needs = sum((c.roomy if column.rank > ESSENTIAL else c.least) + 1 for c in candidate) - 1
        if needs > width:
            break  # a narrower, less important column would come and go while the window is resized
        chosen = candidate
    order = [column for column in wanted if column in chosen]
    most_important = min(wanted, key=lambda c: (c.rank != MOST_IMPORTANT, c.rank))
    if most_important not in order:
        return [(most_important, max(1, width))]
    least = [column.least for column in order]
    return list(zip(order, _grown(order, width - sum(least) - len(order) + 1, least, [c.most for c in order])))


LOOSE = 6  # cells that a column gets at most beyond what its cells need: more would be a hole in each row


def by_need(
    columns: Sequence[tuple[AnyColumn, int]], needs: Mapping[str, int], width: int
) -> list[tuple[AnyColumn, int]]:
    """The same columns in ``width`` cells, none much wider than its cells need. ``needs``: cells, by the column's key.

    Columns that take room get what others leave; what is left then is shared by them and by the addresses.
    """
    order = [column for column, _ in columns]
    texts = [column.room or (column.middle and column.most > column.least) for column in order]
    least = [min(c.least, needs.get(c.key, c.least)) if text else c.least for c, text in zip(order, texts)]
    spare = width - sum(least) - len(order) + 1
    if spare < 0 or len(order) == 1:
        return list(columns)
    most = [max(low, min(needs.get(c.key, 0), width if c.room else c.most)) for low, c in zip(least, order)]
    widths = _grown(order, spare, least, most)
    able = [i for i, text in enumerate(texts) if text]
    loose = min(LOOSE, (spare - sum(widths) + sum(least)) // max(1, len(able)))
    for i in able:
        widths[i] += loose
    return list(zip(order, widths))


def _grown(columns: Sequence[AnyColumn], spare: int, least: Sequence[int], most: Sequence[int]) -> list[int]:
    widths = list(least)
    while spare > 0:
        able = [i for i in range(len(columns)) if widths[i] < most[i]]
        if not able:
            break
        # First a column that is narrower than it likes, then the narrowest: both addresses grow alike.
        i = min(able, key=lambda i: (widths[i] >= columns[i].roomy, widths[i] + (0 if columns[i].middle else 6)))
        widths[i] += 1
        spare -= 1
    return widths


# --- what a row is as terms of a filter -------------------------------------------------------------------------------


# The columns of flows, each with a field that selects what is like a flow in it.
_TERMS = (
    *(("source", "src"), ("source", "sport"), ("source", "near")),
    *(("destination", "dst"), ("destination", "dport"), ("destination", "service"), ("destination", "far")),
    *(("name", "name"), ("name", "container"), ("process", "process")),
    *(("proto", "proto"), ("state", "state"), ("nat", "nat")),
    *(("cc", "country"), ("city", "city"), ("asn", "asn"), ("org", "org"), ("mark", "mark")),
    ("node", "node"),
)


def flow_terms(flow: Flow, context: Context) -> list[tuple[str, str]]:
    """The terms that select what is like a flow in some column: the column's key, and the term."""
    context = context.of(flow)
    where, e = context.remote(flow), flow.ends()
    other: dict[str, object] = {  # than what rows are grouped by
        "near": context.sides(flow)[0],
        "state": flow.status().lower(),
        "country": where.country or "none",
        "asn": "none" if where.asn is None else where.asn,
        "mark": f"{mark:#x}" if (mark := flow.mark()) else None,
    }
    values = [
        (column, field, other[field] if field in other else KEYS[field](flow, context)) for column, field in _TERMS
    ]
    values += [("zone", "zone", zone) for zone in sorted(flow.zones())]
    if e.snat:
        port = e.reply_dport if flow.kind.has_ports else None
        values.append(("translated", "wan", endpoint(e.reply_dst, port)))
    return [(column, term_of(field, value)) for column, field, value in values if value not in (None, "")]


def row_terms(spec: ViewSpec, row: Flow | GroupRow | TapeEvent | UsageRow, context: Context) -> list[tuple[str, str]]:
    """The same of any row; of a sum the term that selects its flows, and the names that a host has."""
    if isinstance(row, GroupRow):
        named = [("name", term_of(field, value)) for field, value in _names_of(spec, row, context) if value]
        return [(spec.columns[0].key, spec.grouping.term(row.key)), *named] if spec.grouping else []
    if isinstance(row, UsageRow):
        return [(spec.columns[0].key, term_of("near", row.key))] if spec.logged == "host" else []
    return flow_terms(row.flow if isinstance(row, TapeEvent) else row, context)


def _names_of(spec: ViewSpec, row: GroupRow, context: Context) -> list[tuple[str, str]]:
    if spec.grouping is None or spec.grouping.field not in ("near", "far"):
        return []
    who = context.who(row.key)
    return [("name", who.name), ("container", who.container)]


# --- columns of groups and events -------------------------------------------------------------------------------------

SHARE_CELLS = 10  # cells


@dataclass(frozen=True)
class GroupFacts:
    """The facts that the cells of a group's row are made of."""

    row: GroupRow
    where: Callable[[str], Place]
    name: Callable[[str], str | None]
    parts: str  # of a bar's character, the whole last
    empty: str
    who: Callable[[str], Named] = lambda _address: UNNAMED
    curve: Sequence[float | None] = ()  # bytes a second at the newest listings; None where nobody looked
    glyphs: Glyphs = ASCII
    bits: bool = False  # rates are in bits a second, not bytes


@dataclass(frozen=True)
class EventFacts:
    event: TapeEvent
    context: Context
    names: bool
    first: Callable[[Flow], Sequence[str]] = lambda _flow: ()  # what of a flow was seen first within a day


GroupColumn = Column[GroupFacts, GroupRow]
EventColumn = Column[EventFacts, TapeEvent]


def _by(value: Callable[[GroupRow], Any]) -> Keys[GroupRow]:
    return lambda sums, _context: [value(row) for row in sums]


def _bar(s: GroupFacts) -> str:
    filled = fine_bar(s.row.share, SHARE_CELLS, s.parts)
    return filled + s.empty * (SHARE_CELLS - len(filled)) + f" {s.row.share:4.0%}"


def _births(s: GroupFacts) -> str:
    births = s.row.births()
    return "-" if births is None else f"{births:.1f}"


def _unknown_last(value: float | None) -> float:
    return -1.0 if value is None else value


def _some(s: GroupFacts) -> str:
    """The first few of the others, and how many more there are."""
    few = s.row.most()
    more = _named(s) - len(few)
    return clean(" ".join(few)) + (f" +{more}" if more else "")


def _named(s: GroupFacts) -> int:
    """How many others are known by name."""
    return len(s.row.others) - ("" in s.row.others)


def _others_count(s: GroupFacts) -> str:
    return size_text(_named(s))


def _unreplied(s: GroupFacts) -> str:
    return f"{s.row.unreplied / s.row.flows:.0%}" if s.row.flows else "-"


def order_by_translated(flows: Sequence[Flow], _context: Context) -> SortKeys:
    found = [flow.ends() for flow in flows]
    return [(e.reply_dst, e.reply_dport or 0) if e.snat else (e.dst, e.dport or 0) for e in found]


_FLOWS = GroupColumn(
    *("flows", "FLOWS", 7, 7, 20, lambda s: str(s.row.flows), _by(lambda s: s.flows)),
    right=True,
    descending=True,
    adds=True,
)
_NEW = GroupColumn(
    *("new", "NEW/s", 6, 6, 70),
    _births,
    _by(lambda s: _unknown_last(s.births())),
    right=True,
    descending=True,
    adds=True,
)


def _rate_column(key: str, title: str, rank: int, value: Callable[[GroupRow], float], bits: str) -> GroupColumn:
    return GroupColumn(
        *(key, title, 6, 6, rank),
        lambda s: _rate_words(s.row.sure_rate(value(s.row)), s.bits),
        _by(lambda row: _unknown_last(row.sure_rate(value(row)))),
        right=True,
        descending=True,
        adds=True,
        bits_title=bits,
    )


def _curve_text(s: GroupFacts) -> str:
    return _bars_of(s.curve, s.glyphs)


def _bars_of(values: Sequence[float | None], glyphs: Glyphs) -> str:
    """A bar a value; a blank is unknown."""
    drawn = iter(sparkline([value for value in values if value is not None], glyphs))
    return "".join(" " if value is None else next(drawn) for value in values)


def _size_column(key: str, title: str, width: int, rank: int, value: Callable[[GroupRow], int]) -> GroupColumn:
    return GroupColumn(
        *(key, title, width, width, rank),
        lambda s: size_text(s.row.sure_size(value(s.row))),
        _by(lambda row: _unknown_last(row.sure_size(value(row)))),
        right=True,
        descending=True,
        adds=True,
    )


_IN_COLUMN = _rate_column("in", "IN", 40, lambda row: row.rate_in, "IN-BIT")
_OUT = _rate_column("out", "OUT", 40, lambda row: row.rate_out, "OUTBIT")
_RATE = _rate_column("rate", "RATE", 30, lambda row: row.rate, BITS)
_CURVE = GroupColumn(
    *("curve", "LAST RATES", 10, 60, 46, _curve_text, _RATE.keys),
    right=True,
    descending=True,
    of_screen=True,
    newest_last=True,
    room=True,
)
_BYTES_IN = _size_column("bytes-in", "RX", 6, 50, lambda row: row.size_in)
_BYTES_OUT = _size_column("bytes-out", "TX", 6, 50, lambda row: row.size_out)
_BYTES = _size_column("bytes", "BYTES", 5, 35, lambda row: row.size)
_UNREPLIED = GroupColumn(
    *("unreplied", "UNREPL%", 7, 7, 60),
    _unreplied,
    _by(lambda s: s.unreplied / s.flows if s.flows else 0.0),
    right=True,
    descending=True,
    adds=True,
)
_SHARE = GroupColumn("share", "SHARE", 15, 15, 45, _bar, _by(lambda s: s.share), descending=True)
_HOSTS_COUNT = GroupColumn(
    "hosts", "HOSTS", 5, 5, 65, _others_count, _by(lambda s: len(s.others)), right=True, descending=True
)
_USERS = GroupColumn("hosts", "USED BY", 12, 50, 55, _some, _by(lambda s: len(s.others)), descending=True, room=True)


def _fan_column(key: str, title: str, width: int, rank: int, value: Callable[[Fan], int]) -> GroupColumn:
    """To how many ends or ports a host is connected: to many where it scans or is infected."""
    return GroupColumn(
        *(key, title, width, width, rank, lambda s: "-" if s.row.fan is None else size_text(value(s.row.fan))),
        _by(lambda row: -1 if row.fan is None else value(row.fan)),
        right=True,
        descending=True,
    )


# What puts groups into order that are equal by the column that is sorted, the last first; the largest is the first row.
TIES = _FLOWS.keys, _BYTES.keys, _RATE.keys


def _name_column(key: str, title: str, least: int, most: int, cell: Callable[[GroupFacts], str]) -> GroupColumn:
    return GroupColumn(key, title, least, most, 10, cell, _by(lambda s: s.key or "~"), middle=True)


_HOST = GroupColumn(
    *("host", "HOST", 15, 39, 10),
    lambda s: s.name(s.row.key) or s.row.key,
    lambda sums, _c: address_numbers([row.key.encode() for row in sums]),
    middle=True,
)
_MOVED = (_FLOWS, _NEW, _RATE, _IN_COLUMN, _OUT, _BYTES, _BYTES_IN, _BYTES_OUT)
_HOST_NAME = GroupColumn(
    *("name", "NAME", 12, 24, 15, lambda s: s.who(s.row.key).label),
    lambda sums, c: [c.who(row.key).label.casefold() or NO_PLACE for row in sums],
    only_with="names",
)
HOST_COLUMNS = (
    _HOST,
    _HOST_NAME,
    *_MOVED,
    _UNREPLIED,
    _SHARE,
    _fan_column("remotes", "REMOTES", 7, 56, lambda fan: fan.remotes),
    _fan_column("ports", "PORTS", 5, 57, lambda fan: fan.ports),
    _CURVE,
    GroupColumn(
        *("countries", "COUNTRIES", 9, 30, 55),
        _some,
        _by(lambda s: len(s.others)),
        descending=True,
        room=True,
    ),
)


def _country_of(s: GroupFacts) -> str:
    return clean(s.where(s.row.key).country or "")


REMOTE_COLUMNS = (
    _HOST,
    _HOST_NAME,
    GroupColumn("cc", "CC", 2, 2, 25, _country_of, lambda sums, c: [c.where(s.key).country or "~" for s in sums]),
    *_MOVED,
    _UNREPLIED,
    _SHARE,
    _CURVE,
    GroupColumn(
        *("org", "ORG", 12, 28, 48),
        lambda s: clean(s.where(s.row.key).org or ""),
        lambda sums, c: [c.where(s.key).org or "~" for s in sums],
        room=True,
    ),
    _HOSTS_COUNT,
)


def _country_name(s: GroupFacts) -> str:
    return clean(s.row.label or "") or ("unknown" if not s.row.key else "")


COUNTRY_COLUMNS = (
    _name_column("country", "CC", 4, 4, lambda s: clean(s.row.key or "--", 4)),
    GroupColumn(
        *("name", "COUNTRY", 12, 30, 15, _country_name),
        lambda sums, _c: [s.label or "~" for s in sums],
        room=True,
    ),
    *_MOVED,
    _SHARE,
    _CURVE,
    _UNREPLIED,
    _HOSTS_COUNT,
)
NETWORK_COLUMNS = (
    GroupColumn(
        "asn",
        "ASN",
        10,
        10,
        10,
        lambda s: f"AS{s.row.key}" if s.row.key else "--",
        _by(lambda s: int(s.key) if s.key else math.inf),
    ),
    GroupColumn(
        *("name", "NETWORK", 16, 36, 15, _country_name),
        lambda sums, _c: [s.label or "~" for s in sums],
        room=True,
    ),
    *_MOVED,
    _SHARE,
    _CURVE,
    _UNREPLIED,
    _HOSTS_COUNT,
)
SERVICE_COLUMNS = (
    _name_column("service", "SERVICE", 10, 14, lambda s: clean(s.row.key)),
    GroupColumn(
        *("name", "NAME", 8, 16, 15),
        lambda s: service_name(s.row.key),
        lambda sums, _c: [service_name(s.key) or "~" for s in sums],
        room=True,
    ),
    *_MOVED,
    _SHARE,
    _CURVE,
    _UNREPLIED,
    _USERS,
)


# --- columns of keys --------------------------------------------------------------------------------------------------


def _key_cell(at: int) -> Callable[[GroupFacts], str]:
    return lambda s: clean(key_values(s.row)[at] or "-")


def _key_order(at: int, name: str) -> Keys[GroupRow]:
    """Addresses and numbers by what they are, texts by their letters; what is unknown comes last."""

    def keys(sums: Sequence[GroupRow], _context: Context) -> SortKeys:
        values = [key_values(row)[at] for row in sums]
        if name in ADDRESSES:
            return address_numbers([value.partition("/")[0].encode() for value in values])
        if name in NUMBERS:
            return [int(value.partition(",")[0], 0) if value else math.inf for value in values]
        return [value or NO_PLACE for value in values]

    return keys


_WIDTHS_OF_KEYS = {  # least and most
    **{"org": (12, 28), "city": (10, 18), "service": (10, 14), "label": (8, 20), "helper": (8, 12)},
    **{"state": (11, 11), "flag": (9, 10)},
}


def _key_columns(keys: Sequence[GroupKey]) -> tuple[GroupColumn, ...]:
    """The columns that say what a row is."""
    taken, made = {column.key for column in _MOVED}, []
    for at, key in enumerate(keys):
        title, is_address = key.text.upper(), key.name in ADDRESSES
        least, most = (15, 43) if is_address else _WIDTHS_OF_KEYS.get(key.name, (5, 10))
        least = max(least, len(title))
        column = f"by-{key.name}" if key.name in taken else key.name
        cell, order = _key_cell(at), _key_order(at, key.name)
        made.append(GroupColumn(column, title, least, max(least, most), MOST_IMPORTANT, cell, order, middle=is_address))
    return tuple(made)


def columns_of_keys(grouping: Grouping) -> tuple[GroupColumn, ...]:
    """The columns of rows that are combinations of keys."""
    name = GroupColumn(*("name", "NAME", 8, 20, 15), lambda s: clean(s.row.label), _by(lambda row: row.label or "~"))
    return (
        *_key_columns(grouping.keys),
        *([name] if grouping.is_named else []),
        *_MOVED,
        _SHARE,
        _UNREPLIED,
        _HOSTS_COUNT,
    )


def _node_column(
    key: str, title: str, width: int, rank: int, cell: Callable[[NodeFacts], str], value: Callable[[NodeFacts], Any]
) -> GroupColumn:
    """What is known of a node beside its flows."""
    return GroupColumn(
        *(key, title, width, width, rank, lambda s: cell(s.row.node) if s.row.node is not None else "-"),
        _by(lambda row: -1.0 if row.node is None else _unknown_last(value(row.node))),
        right=True,
        descending=True,
        adds=True,
    )


def _doing(s: GroupFacts) -> str:
    """How a node is doing: a dot and a word."""
    return f"{s.glyphs.dot} {s.row.node.state}" if s.row.node is not None else "-"


def _fill_text(its: NodeFacts) -> str:
    return "-" if its.fill is None else f"{its.fill:.1%}" if its.fill < 0.0995 else f"{its.fill:.0%}"


_MOVED_BY_KEY = {column.key: column for column in _MOVED}
NODE_COLUMNS = (
    GroupColumn("node", "NODE", 6, 30, 10, lambda s: clean(s.row.key), _by(lambda row: row.key), middle=True),
    GroupColumn(*("status", "STATUS", 9, 14, 12), _doing, _by(lambda row: row.node.state if row.node else "")),
    _FLOWS,
    _node_column("fill", "FILL", 5, 22, _fill_text, lambda its: its.fill),
    _node_column(
        *("events", "EV/s", 6, 24),
        lambda its: "-" if its.events is None else f"{its.events:.0f}",
        lambda its: its.events,
    ),
    *(_MOVED_BY_KEY[key] for key in ("new", "rate", "in", "out", "bytes")),
    _node_column("lost", "LOST", 5, 42, lambda its: "-" if its.lost is None else str(its.lost), lambda its: its.lost),
    _node_column("late", "LATE", 5, 44, lambda its: span_text(its.behind), lambda its: its.behind),
    _SHARE,
    _UNREPLIED,
    GroupColumn(
        *("reason", "REASON", 12, 60, 48, lambda s: s.row.node.reason if s.row.node is not None else ""),
        _by(lambda row: row.node.reason if row.node is not None else ""),
        room=True,
    ),
)


def part_text(s: GroupFacts) -> str:
    """What stands below an opened row: a country of a host with its name, a host by its name or address."""
    value = key_values(s.row)[-1]
    if s.row.label or not value:
        return clean(f"{value} {s.row.label}" if value else "-- unknown")
    return clean(s.name(value) or value)


KEY_SORTS = frozenset(KEYS) | {f"by-{name}" for name in KEYS}  # columns that rows of keys may have


# --- usage ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class UsageFacts:
    """The facts that the cells of a row of usage are made of."""

    row: UsageRow
    glyphs: Glyphs
    name: Callable[[str], str | None]


UsageColumn = Column[UsageFacts, UsageRow]
BARS = 31  # cells: the days of a month, and more than the hours of a day


def _by_usage(value: Callable[[UsageRow], Any]) -> Keys[UsageRow]:
    return lambda rows, _context: [value(row) for row in rows]


def _usage_size(key: str, title: str, rank: int, size: Callable[[UsageRow], int | None]) -> UsageColumn:
    return UsageColumn(
        *(key, title, max(6, len(title)), 9, rank, lambda s: size_text(size(s.row))),
        _by_usage(lambda row: _unknown_last(size(row))),
        right=True,
        descending=True,
        adds=True,
    )


def _bars_text(s: UsageFacts) -> str:
    """A bar for each hour or day, or for a few where there are many; the newest at the right; a blank is unknown."""
    slots, few = s.row.slots[::-1], max(1, -(-len(s.row.slots) // BARS))
    pieces = [[value for value in slots[at : at + few] if value is not None] for at in range(0, len(slots), few)][::-1]
    return _bars_of([sum(piece) if piece else None for piece in pieces], s.glyphs).rjust(BARS)


_USAGE_SIZES = (
    _usage_size("bytes", "BYTES", 20, lambda row: row.size),
    _usage_size("in", "RX", 25, lambda row: row.span[0]),
    _usage_size("out", "TX", 25, lambda row: row.span[1]),
    UsageColumn(
        *("bars", "BARS", BARS, BARS, 28, _bars_text),
        _by_usage(lambda row: _unknown_last(row.size)),
        descending=True,
    ),
    _usage_size("today-in", "TODAY-RX", 30, lambda row: row.today[0]),
    _usage_size("today-out", "TODAY-TX", 30, lambda row: row.today[1]),
    _usage_size("week-in", "7D-RX", 40, lambda row: row.week[0]),
    _usage_size("week-out", "7D-TX", 40, lambda row: row.week[1]),
    _usage_size("month-in", "30D-RX", 50, lambda row: row.month[0]),
    _usage_size("month-out", "30D-TX", 50, lambda row: row.month[1]),
    UsageColumn(
        *("flows", "FLOWS", 7, 7, 60, lambda s: str(s.row.flows)),
        _by_usage(lambda row: row.flows),
        right=True,
        descending=True,
        adds=True,
    ),
)
_USAGE_NAME = UsageColumn(
    *("name", "NAME", 12, 30, 15, lambda s: clean(s.row.label) or ("" if s.row.key else "unknown")),
    _by_usage(lambda row: row.label or "~"),
    room=True,
)


def _usage_host(s: UsageFacts) -> str:
    host = clean(s.row.label) or s.name(s.row.key) or clean(s.row.key)
    return f"{clean(s.row.node)} {host}" if s.row.node else host


def _order_by_key(rows: Sequence[UsageRow], _context: Context) -> SortKeys:
    return address_numbers([row.key.encode() for row in rows])


def _usage_service(s: UsageFacts) -> str:
    name = service_name(s.row.key) if re.fullmatch(r"[a-z0-9-]+(/\d{1,5})?", s.row.key) else ""
    return clean(f"{s.row.key} {name}".strip())


def _usage_key(
    key: str, title: str, least: int, cell: Callable[[UsageFacts], str], order: Keys[UsageRow]
) -> UsageColumn:
    """The column that says what a row is."""
    most = 30 if least > 10 else least  # addresses and services are longer than codes
    return UsageColumn(key, title, least, most, MOST_IMPORTANT, cell, order, middle=True)


USAGE_COLUMNS: dict[str, tuple[UsageColumn, ...]] = {
    "host": (
        _usage_key(
            *("host", "HOST", 15), _usage_host, lambda rows, _c: address_numbers([r.key.encode() for r in rows])
        ),
        *_USAGE_SIZES,
    ),
    "country": (
        _usage_key(*("country", "CC", 4), lambda s: clean(s.row.key or "--", 4), _by_usage(lambda row: row.key or "~")),
        _USAGE_NAME,
        *_USAGE_SIZES,
    ),
    "network": (
        _usage_key(
            *("asn", "ASN", 10, lambda s: f"AS{s.row.key}" if s.row.key.isdigit() else clean(s.row.key) or "--"),
            _by_usage(lambda row: int(row.key) if row.key.isdigit() else math.inf),
        ),
        _USAGE_NAME,
        *_USAGE_SIZES,
    ),
    "service": (_usage_key(*("service", "SERVICE", 14), _usage_service, _by_usage(lambda r: r.key)), *_USAGE_SIZES),
}


# --- events -----------------------------------------------------------------------------------------------------------


CLOCKLESS = 1e6  # seconds since 1970: times before are those of a recording without stamps


def moment_text(moment: float, now: float, brief: bool = False) -> str:
    """A local time, both in seconds since 1970: of today without the date, of other days with it and without seconds.

    ``brief``: without its zone, of other days the date only, of other years month and year. Where there is no clock
    (a recording without stamps) it is the seconds since the start.
    """
    if moment < CLOCKLESS:
        return f"{moment:.3f}"
    at, today = time.localtime(moment), time.localtime(now)
    if at[:3] == today[:3]:
        return time.strftime("%H:%M:%S" if brief else "%H:%M:%S %Z", at)
    if at[0] != today[0]:
        return time.strftime("%Y-%m" if brief else "%Y-%m-%d %Z", at)
    return time.strftime("%m-%d" if brief else "%m-%d %H:%M %Z", at)


def zone_text(moment: float) -> str:
    """The name of the local zone at that time; "" without a clock."""
    return "" if moment < CLOCKLESS else time.strftime("%Z", time.localtime(moment))


def exact_moment(moment: float) -> str:
    """A local time with its date and its zone; without a clock the seconds since the start."""
    return f"{moment:.3f}" if moment < CLOCKLESS else time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(moment))


def clock_text(s: EventFacts) -> str:
    """The time of day, local; without one (a recording that has no stamps) seconds since its start."""
    seconds = s.event.at + s.context.epoch
    if seconds < CLOCKLESS:
        return f"{seconds:.3f}"
    return time.strftime("%H:%M:%S", time.localtime(seconds)) + f".{int(seconds % 1 * 1000):03}"


def _end(s: EventFacts, source: bool) -> str:
    return end_text(facts_of(s.event.flow, s.context, s.names), source)


def _total(s: EventFacts) -> str:
    """The final total, which only a flow that has ended has."""
    return size_text(s.event.flow.total()) if s.event.event == "destroy" else ""


def _lasted(s: EventFacts) -> str:
    flow = s.event.flow
    if s.event.event != "destroy":
        return ""
    age = flow.age(s.context.now)
    return span_text(age) if flow.knows_age() else OLDER if age < 1 else ">" + span_text(age)


def _of(value: Callable[[TapeEvent], Any]) -> Keys[TapeEvent]:
    return lambda events, _context: [value(event) for event in events]


def _country_cell(s: EventFacts) -> str:
    return clean(s.context.remote(s.event.flow).country or "")


_EVENT_LABEL = {"new": "NEW", "update": "UPDATE", "destroy": "DESTROY"}
EVENT_COLUMNS = (
    EventColumn("time", "TIME", 12, 12, 20, clock_text, _of(lambda h: h.at), descending=True),
    EventColumn(
        *("node", "NODE", 4, 16, 15, lambda s: s.event.flow.node),
        _of(lambda h: h.flow.node),
        only_with="nodes",
        roomy=8,
    ),
    EventColumn("event", "EVENT", 7, 7, 5, lambda s: _EVENT_LABEL.get(s.event.event, ""), _of(lambda h: h.event)),
    EventColumn("proto", "PROTO", 5, 5, 8, lambda s: protocol_text(s.event.flow), _of(lambda h: h.flow.kind.protocol)),
    EventColumn("state", "STATE", 11, 11, 40, lambda s: clean(s.event.state or "", 11), _of(lambda h: h.state or "")),
    EventColumn(
        *("source", "SOURCE", 15, 47, 30), lambda s: _end(s, True), _of(lambda h: h.flow.key), roomy=21, middle=True
    ),
    EventColumn(
        *("destination", "DESTINATION", 21, 47, 10),
        lambda s: _end(s, False),
        _of(lambda h: h.flow.addresses()[1]),
        middle=True,
    ),
    EventColumn("cc", "CC", 2, 2, 60, _country_cell, lambda hs, c: [c.remote(h.flow).country or "~" for h in hs]),
    EventColumn(
        *("bytes", "BYTES", 5, 5, 45),
        _total,
        _of(lambda h: -1 if h.event != "destroy" or (total := h.flow.total()) is None else total),
        right=True,
        descending=True,
    ),
    EventColumn(*("lasted", "DURATION", 8, 8, 50), _lasted, lambda hs, c: [h.flow.age(c.now) for h in hs], right=True),
    EventColumn(
        *("first", "NEW", 7, 28, 15, lambda s: " ".join(s.first(s.event.flow)), _of(lambda h: h.flow.born)),
        only_with="log",
    ),
)


# --- views ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ViewSpec:
    """A view: what its rows are, how they are sorted and printed, and what keys do to them."""

    name: ViewName
    key: str
    title: str
    about: str  # what a row is, for the help
    columns: tuple[AnyColumn, ...]
    sort: str
    once: str = ""  # what --once sorts by, where that is another column
    grouping: Grouping | None = None  # a row is all flows of one key
    translated: bool = False  # rows are flows that NAT translates, also those that have ended
    tape: bool = False  # rows are events
    logged: str = ""  # rows are of the flow log: sums of hosts, countries, networks or services
    on_map: bool = False  # rows are drawn where they are
    chooses_places: bool = False  # key c says which columns of places there are
    enters: str = ""  # the view in which Enter shows the flows of a row; "": Enter shows details
    turns_to: str = ""  # the view that key t brings on
    turned_sort: str = ""  # or the other column that key t sorts by
    tab: str = ""  # the view whose tab is lit, where it has none itself
    empty: tuple[str, str] = ("", "")  # why there may be no row, and the command that helps
    with_nodes: bool = False  # only where several nodes are watched: there it takes its key from another view
    short: str = ""  # the name on its tab where there is little room; "": the first three letters of the title
    hints: tuple[tuple[str, str], ...] = ()  # keys that do something of its own here, each with its word in the footer

    @property
    def tab_name(self) -> str:
        return self.short or self.title[:3]

    @property
    def adds_up(self) -> bool:
        """Is a row a sum?"""
        return self.grouping is not None or bool(self.logged)

    @property
    def rows_are_flows(self) -> bool:
        return not self.adds_up and not self.tape

    @property
    def sorts(self) -> tuple[str, ...]:
        """The columns that one can sort by."""
        return tuple(
            column.key
            for column in self.columns
            if not (column.narrow_form_of or column.of_screen or column.only_with == "log")
        )

    def column(self, key: str) -> AnyColumn:
        return next(column for column in self.columns if column.key == key)

    def falling(self, sort: str, reverse: bool) -> bool:
        return self.column(sort).descending != reverse


def _inside_text(s: FlowFacts) -> str:
    """The end that NAT hides: who opened the flow, or, where only DNAT is at work, who answers."""
    if s.ends.snat or not s.ends.dnat:
        return end_text(s, True)
    return s.endpoint(s.ends.reply_src, s.ends.reply_sport)


def _outside_text(s: FlowFacts) -> str:
    """What the other side sees in its place. Among other rows the address of SNAT is named only if it is not of all."""
    if s.ends.snat:
        address = s.ends.reply_dst
        return s.endpoint("" if address == s.wan else address, s.ends.reply_dport) or address
    return s.endpoint(s.ends.dst, s.ends.dport) if s.ends.dnat else ""


def _start_text(s: FlowFacts, brief: bool = False) -> str:
    """When the flow began; with "<" where it is older than its first sight, and nobody knows by how much."""
    return ("" if s.flow.knows_age() else "<") + moment_text(s.flow.birth() + s.epoch, s.now + s.epoch, brief)


def _ended_text(s: FlowFacts, brief: bool = False) -> str:
    """When it ended; "-" while it lives."""
    return "-" if s.flow.ended is None else moment_text(s.flow.ended + s.epoch, s.now + s.epoch, brief)


def _order_by_start(flows: Sequence[Flow], _context: Context) -> SortKeys:
    return [flow.birth() for flow in flows]


def _order_by_end(flows: Sequence[Flow], _context: Context) -> SortKeys:
    return [math.inf if flow.ended is None else flow.ended for flow in flows]


def _remote_text(s: FlowFacts) -> str:
    if s.ends.snat:
        return s.endpoint(s.ends.reply_src, s.ends.reply_sport)
    return s.endpoint(s.ends.src, s.ends.sport)


_NAT_COLUMNS = (
    FLOW_COLUMN["node"],
    FLOW_COLUMN["proto"],
    FlowColumn("inside", "LOCAL", 15, 47, 10, _inside_text, FLOW_COLUMN["source"].keys, roomy=21, middle=True),
    FlowColumn(
        *("translated", "TRANSLATED", 15, 47, 20, _outside_text, order_by_translated),
        wan_title="WAN",
        roomy=21,
        middle=True,
    ),
    FlowColumn("remote", "REMOTE", 15, 47, 30, _remote_text, FLOW_COLUMN["destination"].keys, roomy=21, middle=True),
    replace(FLOW_COLUMN["name"], rank=38),
    FlowColumn("kind", "KIND", 5, 5, 61, nat_kind, FLOW_COLUMN["nat"].keys),
    *(
        FlowColumn(key, key.upper(), width, 17, 33, cell, order, descending=True, brief=brief, roomy=13, zoned=True)
        for key, width, cell, brief, order in (  # 80 cells have both: who it was is asked of a time
            ("start", 9, _start_text, partial(_start_text, brief=True), _order_by_start),
            ("end", 8, _ended_text, partial(_ended_text, brief=True), _order_by_end),
        )
    ),
    *(replace(FLOW_COLUMN[key], rank=rank) for key, rank in (("state", 62), ("cc", 63))),  # after whole addresses
    replace(FLOW_COLUMN["rate"], rank=64, cell=lambda s: rate_text(s.flow, s.bits) if s.live else "closed"),
    *(replace(FLOW_COLUMN[key], rank=rank) for key, rank in (("bytes", 70), ("age", 65), ("timeout", 80))),
)
NO_USAGE = "the flow log has no data for that time", ""


def _usage_by(name: ViewName, sort: str, turns_to: str, turned: str) -> ViewSpec:
    return ViewSpec(
        *(name, "", f"Usage by {sort}", f"traffic by {sort}, from the flow log", USAGE_COLUMNS[sort]),
        sort="bytes",
        logged=sort,
        turns_to=turns_to,
        tab="usage",
        empty=NO_USAGE,
        hints=(("t", turned), ("+", "longer"), ("-", "shorter")),
    )


FLOWS = "connections"  # the view that shows the flows of a row


def by_view(keys: str, name: ViewName = "connections", key: str = "", title: str = "", **more: Any) -> ViewSpec:
    """The view whose rows are combinations of keys, as --by takes them. Raises ValueError."""
    grouping = by_keys(group_keys(keys))
    texts = name, key, title or keys, f"one row per combination of {keys.replace(',', ', ')}"
    return ViewSpec(*texts, columns_of_keys(grouping), sort="rate", once="bytes", grouping=grouping, **more)


_ENTERS_FLOWS, _DETAILS = ("enter", "its flows"), ("enter", "details")
VIEWS = (
    ViewSpec(
        *("connections", "1", "Connections", "one row per flow", FLOW_COLUMNS),
        sort="rate",
        once="bytes",
        chooses_places=True,
        hints=(_DETAILS, ("c", "places"), ("n", "ports")),
    ),
    ViewSpec(
        *("hosts", "2", "Hosts", "one row per local host; IN is what it receives", HOST_COLUMNS),
        sort="rate",
        once="bytes",
        grouping=NEAR,
        enters=FLOWS,
        turns_to="remotes",
        hints=(_ENTERS_FLOWS, ("t", "remote")),
    ),
    ViewSpec(
        *("countries", "3", "Countries", "countries of the remote ends", COUNTRY_COLUMNS),
        sort="rate",
        once="bytes",
        grouping=COUNTRY,
        enters=FLOWS,
        short="Cty",
        hints=(_ENTERS_FLOWS,),
    ),
    ViewSpec(
        *("networks", "4", "Networks", "networks of the remote ends", NETWORK_COLUMNS),
        sort="rate",
        once="bytes",
        grouping=NETWORK,
        enters=FLOWS,
        hints=(_ENTERS_FLOWS,),
    ),
    ViewSpec(
        *("services", "5", "Services", "protocols and ports, and the hosts that use them", SERVICE_COLUMNS),
        sort="rate",
        once="bytes",
        grouping=SERVICE,
        enters=FLOWS,
        short="Svc",
        hints=(_ENTERS_FLOWS,),
    ),
    ViewSpec(
        *("nat", "6", "NAT", "local end, its address after NAT, remote end; includes ended flows", _NAT_COLUMNS),
        sort="start",
        translated=True,
        empty=("no flow is translated: this host does no NAT, or no flow needs it now", "nft list ruleset"),
        hints=(_DETAILS, ("z", "closed")),
    ),
    ViewSpec(
        *("events", "7", "Events", "events of conntrack -E, newest first; totals when a flow ends", EVENT_COLUMNS),
        sort="time",
        tape=True,
        empty=("no events yet: they appear when connections open, change or close", ""),
        short="Evt",
        hints=(_DETAILS,),
    ),
    ViewSpec(
        *("map", "8", "Map", "locations of remote hosts; larger marks = more flows", REMOTE_COLUMNS),
        sort="flows",
        grouping=FAR,
        on_map=True,
        enters=FLOWS,
        turned_sort="rate",
        hints=(_ENTERS_FLOWS, ("t", "rates")),
    ),
    by_view(
        *("proto,state,flag", "states", "9", "States"),
        enters=FLOWS,
        turns_to="zones",
        hints=(_ENTERS_FLOWS, ("t", "zones"), ("right", "expand")),
    ),
    ViewSpec(
        *("usage", "0", "Usage", "traffic per host by day and month, from the flow log", USAGE_COLUMNS["host"]),
        sort="bytes",
        logged="host",
        enters="usage-countries",
        turns_to="usage-countries",
        empty=NO_USAGE,
        short="Use",
        hints=(("enter", "countries"), ("t", "by country"), ("+", "longer"), ("-", "shorter")),
    ),
    ViewSpec(
        *("remotes", "", "Remote hosts", "one row per remote host; IN is what it sends", REMOTE_COLUMNS),
        sort="rate",
        once="bytes",
        grouping=FAR,
        enters=FLOWS,
        turns_to="hosts",
        tab="hosts",
        hints=(_ENTERS_FLOWS, ("t", "local")),
    ),
    by_view(
        *("zone", "zones"),
        title="Zones",
        enters=FLOWS,
        turns_to="marks",
        tab="states",
        hints=(_ENTERS_FLOWS, ("t", "marks"), ("right", "expand")),
    ),
    by_view(
        *("mark", "marks"),
        title="Marks",
        enters=FLOWS,
        turns_to="states",
        tab="states",
        hints=(_ENTERS_FLOWS, ("t", "states"), ("right", "expand")),
    ),
    replace(
        by_view(
            *("node", "nodes", "9", "Nodes"),
            enters=FLOWS,
            turns_to="states",
            with_nodes=True,
            hints=(_ENTERS_FLOWS, ("t", "states"), ("right", "expand")),
        ),
        about="one row per machine: is it live, how full is its table, what moves through it",
        columns=NODE_COLUMNS,
        sort="node",
        once="node",
    ),
    _usage_by("usage-countries", "country", "usage-networks", "by network"),
    _usage_by("usage-networks", "network", "usage-services", "by service"),
    _usage_by("usage-services", "service", "usage", "by host"),
)
VIEW_BY_NAME: dict[str, ViewSpec] = {spec.name: spec for spec in VIEWS}


def tabs(several: bool) -> list[ViewSpec]:
    """The views that have a key, in their order. ``several``: several nodes are watched."""
    return list({spec.key: spec for spec in VIEWS if spec.key and (several or not spec.with_nodes)}.values())


def tab_of(spec: ViewSpec, several: bool) -> ViewSpec:
    """The view whose tab is lit while this one is on show."""
    key = VIEW_BY_NAME[spec.tab or spec.name].key
    return next(tab for tab in tabs(several) if tab.key == key)


# --- rows as text -----------------------------------------------------------------------------------------------------


def columns_there(spec: ViewSpec, context: Context, logs: bool = False) -> list[AnyColumn]:
    """The columns of a view for which there is what they need. ``logs``: is there a flow log?"""
    there = {
        **{"": True, "log": logs, "nodes": context.is_among_others()},
        **{"names": context.knows_names(), "processes": context.knows_processes()},
    }
    return [column for column in spec.columns if there[column.only_with]]


def table_text(spec: ViewSpec, rows: Sequence[Flow | GroupRow | TapeEvent | UsageRow], context: Context) -> str:
    """Rows of a view as an aligned table with all its columns."""
    columns = [column for column in columns_there(spec, context) if not (column.narrow_form_of or column.of_screen)]
    lines = []
    for row in rows:
        cells: FlowFacts | GroupFacts | EventFacts | UsageFacts
        if isinstance(row, Flow):
            cells = facts_of(row, context, names=False)
        elif isinstance(row, TapeEvent):
            cells = EventFacts(row, context, names=False)
        elif isinstance(row, UsageRow):
            cells = UsageFacts(row, ASCII, context.name)
        else:
            cells = GroupFacts(row, context.where, context.name, ASCII.eighths, "", context.who)
        lines.append([column.cell(cells) for column in columns])
    return text_table([column.title for column in columns], lines, lambda i: columns[i].right)
