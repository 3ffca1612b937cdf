"""The columns of the connections view, as data: what a cell says, how wide it is, what it sorts by, when it is shown.

Used by the screen and by ``--once``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import ends
from clean import clean
from export import endpoint, size_text, span_text
from filters import Context, Where
from flows import Flow
from names import service

ESSENTIAL = 60  # the rank up to which columns are squeezed to have all of them at 80 cells
SortKey = Callable[[Flow, Context], "float | int | str | tuple[object, ...]"]


@dataclass(frozen=True)
class Shown:
    """What the cells of one row are made of, worked out once a row."""

    flow: Flow
    ends: ends.Ends
    where: Where
    remote: str
    now: float
    names: bool  # services by name

    @property
    def live(self) -> bool:
        return self.flow.ended is None


@dataclass(frozen=True)
class Column:
    """One column. Widths are cells; ``most`` above ``least`` lets it grow; a low ``rank`` is shown on narrow screens."""

    key: str
    title: str
    least: int
    most: int
    rank: int
    cell: Callable[[Shown], str]
    sort: SortKey
    right: bool = False
    descending: bool = False  # what one wants to see first: the largest
    roomy: int = 0  # the width it likes; 0: ``least``
    middle: bool = False  # cut in the middle: an address cut at its end would be another address

    def __post_init__(self) -> None:
        object.__setattr__(self, "roomy", self.roomy or self.least)


def shown(flow: Flow, context: Context, names: bool) -> Shown:
    e = flow.ends()
    remote = ends.remote(e, context.own)
    return Shown(flow, e, context.where(remote), remote, context.now, names)


def state_text(flow: Flow) -> str:
    """The state; for protocols without one the flag that says most; UNREPLIED beside a state is worth knowing too."""
    if flow.state:
        return flow.state
    flags = flow.flags()
    for flag in ("HW_OFFLOAD", "OFFLOAD", "UNREPLIED", "ASSURED"):
        if flag in flags:
            return flag
    return ""


def _with_ports(flow: Flow) -> bool:
    return flow.kind.number in (6, 17, 33, 132, 136)


def end_text(s: Shown, source: bool) -> str:
    address, port = (s.ends.src, s.ends.sport) if source else (s.ends.dst, s.ends.dport)
    if not _with_ports(s.flow):
        return address
    return endpoint(address, port, service(s.flow.kind.protocol, port) if s.names and not source else None)


def nat_text(s: Shown, separator: str = " ") -> str:
    """What NAT put in place of an end: ``snat 203.0.113.1:40000``, ``dnat 10.0.0.5:80``, both, or nothing."""
    e, ports = s.ends, _with_ports(s.flow)
    parts = []
    if e.snat:
        parts.append("snat " + endpoint(e.reply_dst, e.reply_dport if ports else None))
    if e.dnat:
        parts.append("dnat " + endpoint(e.reply_src, e.reply_sport if ports else None))
    return separator.join(parts)


def _nat_kind(s: Shown) -> str:
    kinds = s.ends.nat
    return "both" if len(kinds) == 2 else "".join(kinds)


def _address_key(address: str) -> tuple[int, bytes]:
    """Addresses in numerical order, IPv4 before IPv6; what is no address comes last."""
    import ipaddress

    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return 9, address.encode()
    return ip.version, ip.packed


def _by_end(source: bool) -> SortKey:
    def key(flow: Flow, _context: Context) -> tuple[object, ...]:
        e = flow.ends()
        address, port = (e.src, e.sport) if source else (e.dst, e.dport)
        return *_address_key(address), port or 0

    return key


def _where_key(pick: Callable[[Where], str | int | None]) -> SortKey:
    """By a fact about the remote end; what has none comes last."""

    def key(flow: Flow, context: Context) -> tuple[object, ...]:
        value = pick(context.remote(flow))
        return (value is None, value if value is not None else "")

    return key


def country_text(s: Shown) -> str:
    return clean(s.where.country or "", 2) or {"private": "··", "": ""}.get(ends.scope(s.remote), "--")


COLUMNS: tuple[Column, ...] = (
    Column("proto", "PROTO", 5, 5, 0, lambda s: _protocol_text(s.flow), lambda f, _c: (f.kind.protocol, f.kind.number)),
    Column("state", "STATE", 11, 11, 40, lambda s: state_text(s.flow), lambda f, _c: state_text(f)),
    Column("source", "SOURCE", 15, 47, 30, lambda s: end_text(s, True), _by_end(True), roomy=21, middle=True),
    Column("destination", "DESTINATION", 21, 47, 10, lambda s: end_text(s, False), _by_end(False), middle=True),
    Column("natkind", "NAT", 4, 4, 90, _nat_kind, lambda f, _c: "".join(f.ends().nat)),
    Column("nat", "NAT", 26, 52, 120, nat_text, lambda f, _c: "".join(f.ends().nat), middle=True),
    Column("cc", "CC", 2, 2, 60, country_text, _where_key(lambda w: w.country)),
    Column("city", "CITY", 10, 18, 140, lambda s: clean(s.where.city or ""), _where_key(lambda w: w.city)),
    Column(
        *("asn", "ASN", 8, 8, 130),
        lambda s: f"AS{s.where.asn}" if s.where.asn is not None else "",
        _where_key(lambda w: w.asn),
    ),
    Column("org", "ORG", 12, 28, 110, lambda s: clean(s.where.org or ""), _where_key(lambda w: w.org)),
    Column(
        *("rate", "RATE", 6, 6, 20),
        lambda s: rate_text(s.flow),
        lambda f, _c: -1.0 if f.rates is None else f.rates[0] + f.rates[1],
        right=True,
        descending=True,
    ),
    Column(
        *("bytes", "BYTES", 5, 5, 70),
        lambda s: size_text(s.flow.total()),
        lambda f, _c: -1 if (total := f.total()) is None else total,
        right=True,
        descending=True,
    ),
    Column(
        *("packets", "PKTS", 5, 5, 100),
        lambda s: size_text(s.flow.packets()),
        lambda f, _c: -1 if (packets := f.packets()) is None else packets,
        right=True,
        descending=True,
    ),
    Column("age", "AGE", 5, 5, 50, lambda s: age_text(s), lambda f, c: f.age(c.now), right=True, descending=True),
    Column(
        *("timeout", "TIMEOUT", 7, 7, 80),
        lambda s: span_text(s.flow.remaining(s.now)) if s.live else "closed",
        lambda f, c: -1 if (left := f.remaining(c.now)) is None else left,
        right=True,
    ),
)
BY_KEY = {column.key: column for column in COLUMNS}
# What --sort takes: the keys, without the second, narrow form of NAT, and the words people may try.
SORTS = tuple(column.key for column in COLUMNS if column.key != "natkind")
ALIASES = {"src": "source", "dst": "destination", "country": "cc", "protocol": "proto", "pkts": "packets"}


def _protocol_text(flow: Flow) -> str:
    name = {"icmpv6": "icmp6", "udplite": "udpl"}.get(flow.kind.protocol, flow.kind.protocol)
    return f"ip{flow.kind.number}" if name == "unknown" else clean(name, 5)


def rate_text(flow: Flow) -> str:
    rate = flow.rate()
    return size_text(rate) + "/s" if rate and rate >= 0.5 else ("-" if rate is None else "0")


def age_text(s: Shown) -> str:
    """The age; with ">" where the flow is older than we know."""
    age = span_text(s.flow.age(s.now))
    return age if s.flow.knows_age() else ">" + age


def fit(width: int, wanted: Sequence[Column] = COLUMNS) -> list[tuple[Column, int]]:
    """The columns that fit into ``width`` cells (one blank between two), in their order, each with its width.

    Columns come by rank; what is left over lets those grow that can.
    """
    chosen: list[Column] = []
    for column in sorted(wanted, key=lambda c: c.rank):
        candidate = [*chosen, column]
        if column.key == "nat":
            candidate = [c for c in candidate if c.key != "natkind"]
        # The more important columns have the room they like before a less important one comes.
        needs = sum((c.roomy if column.rank > ESSENTIAL else c.least) + 1 for c in candidate) - 1
        if needs <= width:
            chosen = candidate
        elif column.rank > 40:
            break  # no hole for a less important, narrower column: columns would come and go while a window is dragged
    order = [column for column in wanted if column in chosen]
    if not order:
        return [(min(wanted, key=lambda c: c.rank), max(1, width))]
    return list(zip(order, _grown(order, width - sum(c.least + 1 for c in order) + 1)))


def _grown(columns: Sequence[Column], spare: int) -> list[int]:
    widths = [column.least for column in columns]
    while spare > 0:
        able = [i for i, column in enumerate(columns) if widths[i] < column.most]
        if not able:
            break
        # First what is below the width it likes, then the narrowest: both addresses grow alike.
        i = min(able, key=lambda i: (widths[i] >= columns[i].roomy, widths[i] + (0 if columns[i].middle else 6)))
        widths[i] += 1
        spare -= 1
    return widths
