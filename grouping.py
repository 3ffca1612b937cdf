"""Groups: one row for all flows of a host, a country, a network or a service, with their sums, and what is new.

A flow has a near end (a host of ours, or of a network behind us) and a far one (``remote`` in the JSON). *In* is what
the far end sends, *out* what the near end does, whoever opened the flow.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from addresses import UNNAMED, Context, Fan, Named
from flows import BYTES, GONE, IDLE, Flow, NodeFacts, matched, newest_texts
from parse import Kind
from text import clean, service

NEW_SPAN = 10.0  # seconds over which new flows are counted
LEAST_SPAN = 1.0  # seconds: births counted over less are no number a second
GROUP_LABELS = {"country": "country_name", "network": "org"}  # what JSON calls the name of such a row
WHO_KEYS = {"near": ("name", "mac", "container"), "far": ("name",)}  # what JSON says of who has an address
FEW = 3  # hosts of a service, countries of a host, that are named
_ADDRESSES_AND_PORT = re.compile(rb"^\d+ src=(\S+) dst=(\S+)(?: sport=\d+ dport=(\d+))?", re.M)
GroupObject = dict[str, object]


class GroupRow:
    """The sums of all flows with one key. Rows with equal keys are equal, so a selection survives a new count."""

    __slots__ = (
        "_most",
        "counted",
        "fan",
        "flows",
        "fresh",
        "key",
        "label",
        "node",
        "others",
        "rate_in",
        "rate_out",
        "rated",
        "share",
        "size_in",
        "size_out",
        "span",
        "unreplied",
    )

    def __init__(self, key: str, span: float | None = NEW_SPAN) -> None:
        """``span``: seconds over which new flows are counted; None where nobody hears of births."""
        self.key = key
        self.span = span
        self.label = ""  # its name: of a country or a network
        self.flows = 0
        self.fresh = 0  # flows whose birth was seen within ``span`` seconds
        self.unreplied = 0
        self.rated = 0  # flows whose rates are known; without one the rates are unknown, not 0
        self.counted = 0  # flows whose bytes are known
        self.rate_in = 0.0  # bytes a second
        self.rate_out = 0.0
        self.size_in = 0  # bytes
        self.size_out = 0
        self.fan: Fan | None = None  # of a near host: the other ends and the ports of its flows
        self.share = 0.0  # of all flows, bytes or rates, by what is sorted
        self.node: NodeFacts | None = None  # of a node's row, or of all nodes together
        self._most: list[str] | None = None
        self.others: dict[str, int] = {}  # what is on the other side, each with its flows: countries of a host, ...

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GroupRow) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def most(self) -> list[str]:
        """The first few of the others, those with the most flows first. Asked only of a finished row, and kept."""
        if self._most is None:
            named = {other: flows for other, flows in self.others.items() if other}
            least = min(heapq.nlargest(FEW, named.values()), default=0)  # a fourth of the time of sorting
            self._most = sorted((o for o in named if named[o] >= least), key=lambda o: (-named[o], o))[:FEW]
        return self._most

    @property
    def rate(self) -> float:
        return self.rate_in + self.rate_out

    @property
    def size(self) -> int:
        return self.size_in + self.size_out

    def sure_rate(self, rate: float) -> float | None:
        """A sum of rates of this row; None where it is 0 and not all of its flows' rates are known."""
        return rate if rate or self.rated == self.flows else None

    def sure_size(self, size: int) -> int | None:
        """The same for a sum of bytes."""
        return size if size or self.counted == self.flows else None

    def take_in(self, other: GroupRow) -> None:
        """Add another row to this one, which stands for all."""
        self.flows += other.flows
        self.fresh += other.fresh
        self.unreplied += other.unreplied
        self.rated += other.rated
        self.counted += other.counted
        self.rate_in += other.rate_in
        self.rate_out += other.rate_out
        self.size_in += other.size_in
        self.size_out += other.size_out
        if other.node is not None:
            self.node = other.node if self.node is None else self.node.and_of(other.node)

    def births(self) -> float | None:
        """New flows a second; None where nobody has heard of births for long enough."""
        return None if self.span is None else self.fresh / self.span


class GroupKey(NamedTuple):
    """What rows may be grouped by: a filter field that has one value for each flow; addresses may be cut."""

    name: str
    cut: int | None = None  # the length of the networks' prefix

    @property
    def text(self) -> str:
        return self.name if self.cut is None else f"{self.name}/{self.cut}"


def term_of(field: str, value: object) -> str:
    """The term of a filter that selects what has this value."""
    text = max(clean(str(value)).split('"'), key=len)  # of a name with quotation marks a part
    return f"{field}:{text}" if re.fullmatch(r"[\w.:/+-]+", text) else f'{field}:"{text}"'


@dataclass(frozen=True)
class Grouping:
    """A way to group flows: by one of the things that ``part_of`` names, or by keys."""

    name: str  # of a row, in JSON
    by: str
    other: str  # what is counted apart within a row
    others: str  # its name, in JSON
    field: str  # the filter field that selects exactly the flows of a key
    keys: tuple[GroupKey, ...] = ()  # where rows are combinations of these

    def term(self, key: str) -> str:
        """What selects exactly the flows of a row, or of a row within one (see ``inside``)."""
        fields = [*([key.name for key in self.keys] or [self.field]), self.other]
        return " ".join(term_of(field, value or "none") for field, value in zip(fields, key.split(BETWEEN)))

    @property
    def is_named(self) -> bool:
        """Do the settings name its keys? They are marks, or zones."""
        return len(self.keys) == 1 and self.keys[0].name in NAMED_KEYS

    def is_part(self, key: str) -> bool:
        """Is a row with this key one within another, which was opened?"""
        return key.count(BETWEEN) >= max(1, len(self.keys))

    def of(self, key: str) -> Grouping:
        """What a row with this key is of: of these, or of those within one."""
        return self.inside if self.is_part(key) else self

    @property
    def is_of_nodes(self) -> bool:
        """Is a row a node?"""
        return [key.name for key in self.keys] == ["node"]

    @property
    def asks_fans(self) -> bool:
        """Must all flows be counted first?"""
        return any(key.name in FAN_FIELDS for key in self.keys)

    @property
    def inside(self) -> Grouping:
        """The rows within a row: of a host its countries, of a country its hosts."""
        outer = self.keys or (GroupKey(self.field),)
        return by_keys((*outer, GroupKey(self.other)))


NEAR = Grouping("host", "near", "country", "countries", "near")
FAR = Grouping("remote", "far", "near", "hosts", "far")
COUNTRY = Grouping("country", "country", "near", "hosts", "country")
NETWORK = Grouping("asn", "network", "near", "hosts", "asn")
SERVICE = Grouping("service", "service", "near", "hosts", "service")
Part = Callable[[str, str, str], str]  # of a near end, a far end and a service


def part_of(name: str, context: Context) -> Part:
    """The function that gives the key of a flow; "" if its country or network is not known."""
    where, device = context.where, context.device
    parts: dict[str, Part] = {
        "near": lambda near, _far, _what: device(near),
        "far": lambda _near, far, _what: far,
        "service": lambda _near, _far, what: what,
        "country": lambda _near, far, _what: where(far).country or "",
        "network": lambda _near, far, _what: "" if (asn := where(far).asn) is None else str(asn),
    }
    return parts[name]


# --- keys -------------------------------------------------------------------------------------------------------------

BETWEEN = "\0"  # the values of a combination: no text of conntrack's has it
COMBINED = "keys"  # ``Grouping.by`` of combinations
MOST_KEYS = 8
CUT_IPV6 = 64  # the prefix of IPv6 networks where the length that is asked for is one of IPv4
ValueOf = Callable[[Flow, Context], object]  # None and "": unknown, or the flow has none


def _nat_of(flow: Flow, _context: Context) -> str:
    kinds = [] if flow.plain else flow.ends().nat
    return "both" if len(kinds) == 2 else "".join(kinds) or "none"


def _process_of(flow: Flow, context: Context) -> str:
    found = context.process(flow.kind.protocol, flow.ends()) if context.knows_processes() else None
    return found.name if found is not None else ""


def _shown_address(flow: Flow, _context: Context) -> str:
    e = flow.ends()
    return e.reply_dst if e.snat else e.dst if e.dnat else ""


def _port_of(which: int) -> ValueOf:
    return lambda flow, _context: flow.ports()[which].decode() if flow.kind.has_ports else ""


# By the fields of vocabulary.FIELDS; a value is what the field takes in a filter.
KEYS: dict[str, ValueOf] = {
    "proto": lambda flow, _context: flow.kind.protocol if flow.kind.protocol != "unknown" else flow.kind.number,
    "state": lambda flow, _context: flow.state,
    "family": lambda flow, _context: flow.family,
    "src": lambda flow, _context: flow.addresses()[0].decode(),
    "dst": lambda flow, _context: flow.addresses()[1].decode(),
    "sport": _port_of(0),
    "dport": _port_of(1),
    "country": lambda flow, context: context.remote(flow).country,
    "cc": lambda flow, context: context.remote(flow).country,
    "asn": lambda flow, context: context.remote(flow).asn,
    "org": lambda flow, context: context.remote(flow).org,
    "city": lambda flow, context: context.remote(flow).city,
    "dir": lambda flow, context: context.direction(flow.ends()),
    "nat": _nat_of,
    "mark": lambda flow, _context: f"{flow.mark():#x}",
    "zone": lambda flow, _context: ",".join(map(str, dict.fromkeys(flow.zones() or [0]))),
    "flag": lambda flow, _context: flow.flag(),
    "bytes": lambda flow, _context: flow.total(),
    "packets": lambda flow, _context: flow.packets(),
    "rate": lambda flow, _context: None if (rate := flow.rate()) is None else round(rate),
    "age": lambda flow, context: round(flow.age(context.now)) if flow.knows_age() else None,
    "timeout": lambda flow, context: flow.remaining(context.now),
    "idle": lambda flow, context: _rounded(flow.idle(context.now, context.timeouts)),
    "fanout": lambda flow, context: context.fan(flow).remotes,
    "ports": lambda flow, context: context.fan(flow).ports,
    "id": lambda flow, _context: flow.record().id,
    "helper": lambda flow, _context: flow.record().helper,
    "label": lambda flow, _context: ",".join(flow.record().labels or []),
    "near": lambda flow, context: context.device(context.sides(flow)[0]),
    "far": lambda flow, context: context.sides(flow)[1],
    "name": lambda flow, context: context.who(context.sides(flow)[0]).name,
    "container": lambda flow, context: context.who(context.sides(flow)[0]).container,
    "process": _process_of,
    "service": lambda flow, _context: service_key(flow),
    "wan": _shown_address,
    "node": lambda flow, _context: flow.node,
}
NUMBERS = {
    *("sport", "dport", "asn", "mark", "zone", "bytes", "packets", "rate", "age", "timeout", "idle", "fanout", "ports"),
    "id",
}
FAN_FIELDS = ("fanout", "ports")  # all flows must be counted before one of them is asked
NAMED_KEYS = ("mark", "zone")  # that the settings name
ADDRESSES = {"src", "dst", "near", "far", "wan"}
NO_KEYS = {  # fields that have no single value for a flow
    "host": "names either end; write near, far, src or dst",
    "port": "names either port; write dport, sport or service",
    "at": "is a time; write age",
    "new": "is a question",
}


def _rounded(number: float | None) -> int | None:
    return None if number is None else round(number)


def group_keys(text: str) -> tuple[GroupKey, ...]:
    """The keys of a text such as "near/24,service,state". Raises ValueError."""
    found: list[GroupKey] = []
    for word in text.lower().split(","):
        name, slash, length = word.strip().partition("/")
        if name in NO_KEYS:
            raise ValueError(f"'{name}' {NO_KEYS[name]}")
        if name not in KEYS:
            raise ValueError(f"'{clean(name, 40)}' is not a key; valid: {' '.join(KEYS)}")
        if slash and (name not in ADDRESSES or not re.fullmatch(r"\d{1,3}", length) or int(length) > 128):
            raise ValueError(
                f"'{clean(word, 40)}': near/24 cuts near, far, src, dst and wan to networks, from /0 to /128"
            )
        if any(key.name == name for key in found):
            raise ValueError(f"'{name}' is there twice")
        found.append(GroupKey(name, int(length) if slash else None))
    if len(found) > MOST_KEYS:
        raise ValueError(f"{len(found)} keys are too many: {MOST_KEYS} at most")
    return tuple(found)


def by_keys(keys: tuple[GroupKey, ...]) -> Grouping:
    """A row for each combination of keys."""
    return Grouping(",".join(key.name for key in keys), COMBINED, "near", "hosts", "", keys)


def _cutter(length: int) -> Callable[[str], str]:
    """Addresses -> their networks."""
    from ipaddress import ip_address, ip_network  # 4 ms, for who asks for it

    @lru_cache(maxsize=65_536)
    def network(address: str) -> str:
        try:
            version = ip_address(address).version
        except ValueError:  # what a recording has in place of an address
            return address
        most = (min(length, 32), CUT_IPV6 if length <= 32 else length)[version == 6]
        return str(ip_network(f"{address}/{most}", strict=False))

    return network


def _near_address(flow: Flow, context: Context) -> str:
    """The near end itself, not the address that stands for its device: a network has addresses."""
    return context.sides(flow)[0]


def key_function(keys: tuple[GroupKey, ...], context: Context) -> Callable[[Flow], str]:
    """The function that gives the combination that a flow belongs to."""
    values: list[tuple[ValueOf, Callable[[str], str]]] = [
        (KEYS[key.name], str)
        if key.cut is None
        else (_near_address if key.name == "near" else KEYS[key.name], _cutter(key.cut))
        for key in keys
    ]

    def combination(flow: Flow) -> str:
        its = context.of(flow)
        found = [(value_of(flow, its), cut) for value_of, cut in values]
        return BETWEEN.join("" if value in (None, "") else cut(str(value)) for value, cut in found)

    return combination


def key_values(row: GroupRow) -> list[str]:
    """The values of a row's keys; "" where unknown."""
    return row.key.split(BETWEEN)


def _typed(name: str, value: str) -> object:
    """A value as JSON has it: numbers as numbers."""
    if name in NUMBERS:
        with suppress(ValueError):  # zones of both directions: "3,4"
            return int(value, 0)
    return value


# --- rows -------------------------------------------------------------------------------------------------------------


def service_key(flow: Flow) -> str:
    """Protocol and port: "tcp/443"; the protocol alone where it has no ports."""
    port = flow.ports()[1].decode() if flow.kind.has_ports else ""
    return service_of(flow.kind, port)


def service_of(kind: Kind, port: str) -> str:
    """``service_key`` of flows of a kind; ``port``: "" where the protocol has none."""
    name = protocol_name(kind)
    return f"{name}/{port}" if port else name


def protocol_name(kind: Kind) -> str:
    """The protocol; ip253 where it has no name."""
    return kind.protocol if kind.protocol != "unknown" else f"ip{kind.number}"


def service_name(key: str) -> str:
    """The service's name; "" where it has none."""
    protocol, _, port = key.partition("/")
    return service(protocol, int(port)) or "" if port else ""


def group_key(flow: Flow, grouping: Grouping, context: Context) -> str:
    """The key of the row that a flow belongs to."""
    return row_of(grouping, context)(flow)


def row_of(grouping: Grouping, context: Context) -> Callable[[Flow], str]:
    """What ``group_key`` says, for many flows."""
    if grouping.keys:
        return key_function(grouping.keys, context)
    part = part_of(grouping.by, context)

    def key(flow: Flow) -> str:
        near, far, _ = context.sides(flow)
        return part(near, far, service_key(flow))

    return key


class FanCount:
    """The distinct far ends and destination ports of each device at the near end; 0.3 us a flow."""

    def __init__(self) -> None:
        self._ends: dict[str, set[str]] = {}
        self._ports: dict[str, set[bytes]] = {}

    def add(self, device: str, far: str, port: bytes) -> None:
        """``device``: the address that stands for it; ``port``: as text; b"" where the protocol has none."""
        try:
            self._ends[device].add(far)
        except KeyError:
            self._ends[device], self._ports[device] = {far}, set()
        if port:
            self._ports[device].add(port)

    def add_flows(self, flows: Sequence[Flow], context: Context) -> None:
        found = matched(_ADDRESSES_AND_PORT, [flow.key for flow in flows])
        for flow, (src, dst, port) in zip(flows, found):
            near, far, _ = context.sides_of(src, dst) if flow.plain else context.sides(flow)
            self.add(context.device(near), far, port)

    def of(self, device: str) -> Fan:
        return Fan(len(self._ends.get(device, ())), len(self._ports.get(device, ())))

    def forget(self, device: str) -> None:
        self._ends.pop(device, None)
        self._ports.pop(device, None)

    def counted(self) -> Mapping[str, Fan]:
        return {device: Fan(len(ends), len(self._ports[device])) for device, ends in self._ends.items()}


class Grouper:
    """Adds flows up, as many at a time as there is time for."""

    def __init__(self, grouping: Grouping, context: Context, watched: float | None = NEW_SPAN) -> None:
        """``watched``: for how many seconds births have been heard of; None: nobody hears of any."""
        self._span = None if watched is None or watched < LEAST_SPAN else min(watched, NEW_SPAN)
        self.sums: dict[str, GroupRow] = {}
        self.flows = 0
        self._grouping, self._context = grouping, context
        self._other_of = part_of(grouping.other, context)
        self._key_of = part_of("near" if grouping.keys else grouping.by, context)
        self._key_of_flow = key_function(grouping.keys, context) if grouping.keys else None
        self._fans = FanCount() if grouping is NEAR else None

    def finish(self) -> None:
        """All have been added."""
        if self._fans is not None:
            fans = self._fans.counted()
            for key, row in self.sums.items():
                row.fan = fans.get(key)

    def join_nodes(self, facts: Mapping[str, NodeFacts], with_empty: bool) -> None:
        """Each row has what is known of its node; ``with_empty``: a node without flows has a row, too."""
        for node, its in facts.items():
            if with_empty and node not in self.sums:
                self.sums[node] = GroupRow(node, self._span)
            if (row := self.sums.get(node)) is None:
                continue
            row.node = its
            if its.state == GONE:  # its rates are those of then
                row.rate_in = row.rate_out = 0.0
                row.rated, row.counted = -1, row.counted if row.flows else -1

    def finish_row(self, row: GroupRow) -> GroupRow:
        """All have been added: one row, where finishing 50,000 at once would take too long (40 ms)."""
        if self._fans is not None:
            row.fan = self._fans.of(row.key)
        return row

    def let_go(self, number: int) -> bool:
        """Forget so many rows; False once none is left. 50,000 that go at once take 30 ms."""
        for _ in range(min(number, len(self.sums))):
            key, _row = self.sums.popitem()
            if self._fans is not None:
                self._fans.forget(key)
        return bool(self.sums)

    def add(self, flows: Sequence[Flow]) -> None:
        """Add live flows. Of 200,000 NATed ones with databases open each takes 9 us, in the view of hosts 13 us."""
        for context, some in self._context.parts(flows):
            self._add(some, context)

    def _add(self, flows: Sequence[Flow], context: Context) -> None:
        """Add flows of one node."""
        newborn = context.now - (self._span or 0.0)
        sums, key_of, other_of, fans = self.sums, self._key_of, self._other_of, self._fans
        services, key_of_flow = self._grouping is SERVICE, self._key_of_flow
        texts = newest_texts(flows)
        self.flows += len(flows)
        for flow, (src, dst, port), (there, back) in zip(
            flows, matched(_ADDRESSES_AND_PORT, [flow.key for flow in flows]), matched(BYTES, texts)
        ):
            near, far, inward = context.sides_of(src, dst) if flow.plain else context.sides(flow)
            what = service_of(flow.group.kind, port.decode()) if services else ""
            key = key_of(near, far, what) if key_of_flow is None else key_of_flow(flow)
            row = sums.get(key)
            if row is None:
                row = sums[key] = self._begun(key, far)
            if fans is not None:
                fans.add(key, far, port)
            row.flows += 1
            others, other = row.others, other_of(near, far, what)
            others[other] = others.get(other, 0) + 1
            progress = flow.progress
            if progress.exact and flow.born >= newborn:
                row.fresh += 1
            tail = flow.tail
            if b"[UNREPLIED]" in tail and (b"[USERSPACE]" not in tail or "UNREPLIED" in flow.flags()):
                row.unreplied += 1
            if there:
                self._count(row, inward, int(there), int(back))
            elif (counts := flow.counts()) is not None:
                self._count(row, inward, counts.original_bytes, counts.reply_bytes)
            if (rates := progress.rates) is not None and (rates is not IDLE or b"OFFLOAD]" not in tail):
                row.rated += 1
                if rates is not IDLE:
                    row.rate_in += rates[not inward]
                    row.rate_out += rates[inward]

    @staticmethod
    def _count(row: GroupRow, inward: bool, sent: int, answered: int) -> None:
        row.counted += 1
        if inward:
            row.size_in += sent
            row.size_out += answered
        else:
            row.size_out += sent
            row.size_in += answered

    def _begun(self, key: str, far: str) -> GroupRow:
        """A new row, with a name where its key is only a code."""
        begun = GroupRow(key, self._span)
        if self._grouping.by in ("country", "network"):
            place = self._context.where(far)
            begun.label = (place.country_name if self._grouping.by == "country" else place.org) or ""
        elif self._grouping.keys and self._grouping.keys[-1].name == "country":
            begun.label = self._context.where(far).country_name or ""
        elif len(self._grouping.keys) == 1:
            name, number = self._grouping.keys[0].name, key.partition(",")[0]
            names = {"mark": self._context.mark_name, "zone": self._context.zone_name}
            begun.label = (names[name](int(number, 0)) if name in names else "") or ""
        return begun


REMEMBERED_RATES, REMEMBERED_ROWS = 60, 2000  # listings, and rows that moved most: 3 MB


class RateHistory:
    """The rates of groups at the newest listings, as far as they were added up then."""

    def __init__(self) -> None:
        self._rates: dict[str, list[tuple[int, float]]] = {}  # of each key: number of a listing, bytes a second
        self._listing = -1  # the newest

    def take(self, rows: Sequence[GroupRow], listing: int) -> None:
        """Take the rates that a listing has brought. A row that has gone is forgotten."""
        if listing == self._listing:
            return
        self._listing = listing
        if len(rows) > REMEMBERED_ROWS:
            moving = [row for row in rows if row.rate_in or row.rate_out]
            rows = heapq.nlargest(REMEMBERED_ROWS, moving, key=lambda row: row.rate_in + row.rate_out)
        oldest = listing - REMEMBERED_RATES
        rates: dict[str, list[tuple[int, float]]] = {}
        for row in rows:
            past = [slot for slot in self._rates.get(row.key, ()) if slot[0] > oldest]
            rate = row.sure_rate(row.rate)
            rates[row.key] = past if rate is None else [*past, (listing, rate)]
        self._rates = rates

    def of(self, key: str) -> list[float | None]:
        """Bytes a second at each listing since the first that is known, the newest last; None where nobody looked."""
        known = dict(self._rates.get(key, ()))
        return [known.get(listing) for listing in range(min(known), self._listing + 1)] if known else []


def shares_of(sums: Iterable[GroupRow], by: str) -> Callable[[Iterable[GroupRow]], None]:
    """What sets shares of the total of these rows: of flows, rates, or (by all other columns) bytes.

    It is told the rows, and those within them, some at a time. Where nothing moved, the total is that of flows.
    """
    rows = list(sums)
    value: Callable[[GroupRow], float] = {
        "flows": lambda s: float(s.flows),
        "rate": lambda s: s.rate,
    }.get(by, lambda s: float(s.size))
    total = sum(map(value, rows))
    if not total:
        value = lambda s: float(s.flows)  # noqa: E731
        total = sum(map(value, rows))

    def set_shares(some: Iterable[GroupRow]) -> None:
        for row in some:
            row.share = value(row) / total if total else 0.0

    return set_shares


def group_object(row: GroupRow, grouping: Grouping, who: Named = UNNAMED) -> GroupObject:
    """The JSON object of a row; ``unreplied`` is a number of flows, rates are bytes a second.

    What is not known has no key: rates before the second listing, bytes without accounting, births without events.
    Of the others those with the most flows come first, as on the screen. ``who``: has the address of a host's row.
    """
    if grouping.keys:
        found = zip(grouping.keys, key_values(row))
        item: GroupObject = {key.name: _typed(key.name, value) for key, value in found if value}
    else:
        item = {grouping.name: int(row.key) if grouping is NETWORK and row.key else row.key or None}
    label = service_name(row.key) if grouping is SERVICE else row.label
    if label:
        item[GROUP_LABELS.get(grouping.by, "name")] = label
    item |= {key: text for key, text in zip(WHO_KEYS.get(grouping.by, ()), who) if text}
    births, rates = row.births(), [row.sure_rate(rate) for rate in (row.rate_in, row.rate_out)]
    numbers = {
        "flows": row.flows,
        "new_per_second": None if births is None else round(births, 3),
        "rate_in": None if rates[0] is None else round(rates[0], 1),
        "rate_out": None if rates[1] is None else round(rates[1], 1),
        "bytes_in": row.sure_size(row.size_in),
        "bytes_out": row.sure_size(row.size_out),
        "unreplied": row.unreplied,
        "share": round(row.share, 6),
    }
    item |= {key: value for key, value in numbers.items() if value is not None}
    if row.node is not None:
        item |= node_object(row.node)
    if row.fan is not None:
        item |= {"remotes": row.fan.remotes, "ports": row.fan.ports}
    if grouping.keys:  # their hosts may be thousands, in each of thousands of rows
        return item
    return {**item, grouping.others: sorted(filter(None, row.others), key=lambda other: (-row.others[other], other))}


NODE_KEYS = ("status", "reason", "entries", "limit", "events_per_second", "lost", "behind")


def node_object(its: NodeFacts) -> GroupObject:
    """The keys that say how a node is doing; ``behind`` is in seconds."""
    behind = None if its.behind is None else round(its.behind, 1)
    values = its.state, its.reason or None, its.entries, its.limit, its.events, its.lost, behind
    return {key: value for key, value in zip(NODE_KEYS, values) if value is not None}


def group_columns(grouping: Grouping) -> list[str]:
    """All keys that objects of this grouping may have, in their order: the columns of CSV."""
    numbers = ["flows", "new_per_second", "rate_in", "rate_out", "bytes_in", "bytes_out", "unreplied", "share"]
    if grouping.keys:
        more = ["name"] if grouping.is_named else list(NODE_KEYS) if grouping.is_of_nodes else []
        return [*(key.name for key in grouping.keys), *more, *numbers]
    label = WHO_KEYS.get(grouping.by) or (GROUP_LABELS.get(grouping.by, "name"),)
    return [grouping.name, *label, *numbers, *(("remotes", "ports") if grouping is NEAR else ()), grouping.others]


# --- what the flow log knows ------------------------------------------------------------------------------------------

InAndOut = tuple[int | None, int | None]  # bytes; None where nothing counted them


@dataclass(frozen=True)
class UsageRow:
    """What a near host, a country, a network or a service moved, by the flow log."""

    key: str
    label: str  # its name; "" where none is known
    flows: int  # that began in the span
    span: InAndOut
    today: InAndOut
    week: InAndOut  # the 7 days before today
    month: InAndOut  # the 30 days before today
    slots: tuple[int | None, ...]  # bytes of each hour or day of the span, both ways
    node: str = ""  # whose host it is, where the log has several nodes

    @property
    def size(self) -> int | None:
        """Bytes of the span, both ways."""
        came, went = self.span
        return came if went is None else went if came is None else came + went


def usage_total(rows: Sequence[UsageRow]) -> UsageRow:
    """What all of these moved, as far as it is known."""
    windows = [[row.span for row in rows], [row.today for row in rows]]
    windows += [[row.week for row in rows], [row.month for row in rows]]
    sums = [(_sum_of(came for came, _ in moved), _sum_of(went for _, went in moved)) for moved in windows]
    span, today, week, month = sums
    return UsageRow("", "", sum(row.flows for row in rows), span, today, week, month, slots=())


def _sum_of(sizes: Iterable[int | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return sum(known) if known else None


USAGE_NAMES = {"host": "host", "country": "country", "network": "asn", "service": "service"}  # of a key, in JSON
_WINDOWS_OF_USAGE = ("bytes", "today", "week", "month")
USAGE_SLOTS = "hours", "days"


def usage_object(row: UsageRow, sort: str, per_day: bool) -> GroupObject:
    """The JSON object of a row of usage; what nothing counted has no key, and is null among ``hours`` or ``days``."""
    key: object = int(row.key) if sort == "network" and row.key else row.key or None
    item: GroupObject = {"node": row.node} if row.node else {}
    item[USAGE_NAMES[sort]] = key
    if row.label:
        item["name"] = row.label
    item["flows"] = row.flows
    for name, moved in zip(_WINDOWS_OF_USAGE, (row.span, row.today, row.week, row.month)):
        item |= {f"{name}_{way}": size for way, size in zip(("in", "out"), moved) if size is not None}
    return {**item, USAGE_SLOTS[per_day]: list(row.slots)}


def usage_row(item: GroupObject, sort: str) -> UsageRow:
    """The row that such an object is of. Raises KeyError, TypeError and ValueError for what is none."""
    key = item[USAGE_NAMES[sort]]
    span, today, week, month = (
        (_bytes_in(item.get(f"{name}_in")), _bytes_in(item.get(f"{name}_out"))) for name in _WINDOWS_OF_USAGE
    )
    slots = next(item[name] for name in USAGE_SLOTS if name in item)
    flows, label, node = item["flows"], item.get("name", ""), str(item.get("node", ""))
    if not isinstance(flows, int) or not isinstance(slots, list):
        raise ValueError(item)
    bars = tuple(_bytes_in(value) for value in slots)
    return UsageRow("" if key is None else str(key), str(label), flows, span, today, week, month, bars, node)


def _bytes_in(value: object) -> int | None:
    if value is None or isinstance(value, int):
        return value
    raise ValueError(value)


def usage_columns(sort: str) -> list[str]:
    """All keys that objects of usage may have, in their order: the columns of CSV."""
    sizes = [f"{name}_{way}" for name in _WINDOWS_OF_USAGE for way in ("in", "out")]
    return [USAGE_NAMES[sort], "name", "flows", *sizes, *USAGE_SLOTS, "node"]


# --- what is new ------------------------------------------------------------------------------------------------------

GROUPINGS = {"host": NEAR, "remote": FAR, "country": COUNTRY, "network": NETWORK, "service": SERVICE}


def logged_keys(items: Iterable[Mapping[str, object]]) -> Iterator[tuple[str, str]]:
    """What the flow log had seen, by its answer: sort and key of each host, country, network and service."""
    for item in items:
        key = item.get("key")
        if isinstance(key, list) and len(key) == 2:
            yield str(key[0]), str(key[1])


class Baseline:
    """What was known when ``m`` was pressed, or what the flow log had seen a day ago: the keys of every grouping."""

    def __init__(
        self,
        at: float,
        context: Context,
        logged: Iterable[tuple[str, str]] | None = None,
        of: Sequence[Grouping] = tuple(GROUPINGS.values()),
        most: int | None = None,
    ) -> None:
        """``logged``: what the flow log had seen by ``at``, keys with "host", "country", "network" or "service" before.

        The log does not remember hosts of the far side. ``most``: the keys of each grouping that are remembered.
        """
        self.at = at
        self.complete = logged is not None  # all flows that were there have been looked at
        self._context, self._most = context, most
        groupings = [grouping for grouping in of if logged is None or grouping is not FAR]
        self._parts = {grouping.by: part_of(grouping.by, context) for grouping in groupings}
        self._known: dict[str, set[str]] = {by: set() for by in self._parts}
        self.know(logged or ())

    def know(self, logged: Iterable[tuple[str, str]]) -> None:
        """What the flow log had seen was there, too."""
        for sort, key in logged:
            if (known := self._known.get("near" if sort == "host" else sort)) is not None:
                known.add(key)

    def learn(self, flow: Flow) -> None:
        near, far, _ = self._context.sides(flow)
        what = service_key(flow) if SERVICE.by in self._parts else ""
        for by, part in self._parts.items():
            if not self._is_full(by):
                self._known[by].add(part(near, far, what))

    def _is_full(self, by: str) -> bool:
        return self._most is not None and len(self._known[by]) >= self._most

    def full(self) -> list[str]:
        """Of what so much has been seen that nothing is called new any more."""
        return [
            grouping.name
            for grouping in GROUPINGS.values()
            if grouping.by in self._known and self._is_full(grouping.by)
        ]

    def finish(self) -> None:
        """All have been looked at."""
        self.complete = True

    def is_new(self, flow: Flow, groupings: Sequence[Grouping] = tuple(GROUPINGS.values())) -> bool:
        """Does the flow belong to a host, country, network or service that was not there yet?"""
        if flow.born <= self.at:
            return False
        near, far, _ = self._context.sides(flow)
        what = service_key(flow) if SERVICE in groupings else ""
        return any(self.is_new_key(g, self._parts[g.by](near, far, what)) for g in groupings if g.by in self._parts)

    def new_of(self, flow: Flow) -> list[str]:
        """Which of a flow's host, country, network and service were not there yet."""
        return [name for name, grouping in GROUPINGS.items() if self.is_new(flow, (grouping,))]

    def is_new_key(self, grouping: Grouping, key: str) -> bool:
        """Flows without a known country or network do not count as new."""
        by = grouping.by
        return key != "" and by in self._known and key not in self._known[by] and not self._is_full(by)
