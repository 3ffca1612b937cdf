"""The columns of the connections view, as data: what a cell says, how wide it is, what it sorts by, when it is shown.

Used by the screen and by ``--once``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import addresses
import sortkeys
from addresses import Context, Place
from flows import Flow
from parse import WITH_PORTS
from text import clean, endpoint, service, size_text, span_text

Row = TypeVar("Row")
TELLING = 10  # the rank of the destination: where there is room for one column, it is this one
DAY = 86_400
ESSENTIAL = 60  # the rank up to which columns are squeezed to have all of them at 80 cells


@dataclass(frozen=True)
class Shown:
    """What the cells of one row are made of, worked out once a row."""

    flow: Flow
    ends: addresses.Ends
    where: Place
    remote: str
    now: float
    names: bool  # services by name
    name: Callable[[str], str | None] = lambda _address: None  # of a host
    masked: bool = False  # SNAT has put an address of this host in the source's place

    @property
    def live(self) -> bool:
        return self.flow.ended is None


@dataclass(frozen=True)
class Column(Generic[Row]):
    """A column of rows of one kind.

    Widths are cells; ``most`` above ``least`` lets it grow; a low ``rank`` is shown on narrow screens.
    """

    key: str
    title: str
    least: int
    most: int
    rank: int
    cell: Callable[[Row], str]
    keys: sortkeys.Keys  # what it sorts by
    right: bool = False
    descending: bool = False  # what one wants to see first: the largest
    roomy: int = 0  # the width it likes; 0: ``least``
    middle: bool = False  # cut in the middle: an address cut at its end would be another address
    brief: Callable[[Row], str] | None = None  # what the cell says where ``cell`` is too long

    def __post_init__(self) -> None:
        object.__setattr__(self, "roomy", self.roomy or self.least)


def shown(flow: Flow, context: Context, names: bool) -> Shown:
    e = flow.ends()
    remote = context.remote_end(e)
    masked = e.snat and e.reply_dst in context.own
    return Shown(flow, e, context.where(remote), remote, context.now, names, context.name, masked)


def end_text(s: Shown, source: bool) -> str:
    address, port = (s.ends.src, s.ends.sport) if source else (s.ends.dst, s.ends.dport)
    name = s.name(address)
    if s.flow.kind.number not in WITH_PORTS:
        return name or address
    return endpoint(name or address, port, service(s.flow.kind.protocol, port) if s.names and not source else None)


def _destination_number(s: Shown) -> str:
    """The port's number is shorter than its name."""
    return end_text(replace(s, names=False), False)


def nat_text(s: Shown, separator: str = " ") -> str:
    """What NAT put in place of an end: ``snat 203.0.113.1:40000``, ``dnat 10.0.0.5:80``, both, or nothing."""
    e, ports = s.ends, s.flow.kind.number in WITH_PORTS
    parts = []
    if e.snat:
        parts.append("snat " + endpoint(e.reply_dst, e.reply_dport if ports else None))
    if e.dnat:
        parts.append("dnat " + endpoint(e.reply_src, e.reply_sport if ports else None))
    return separator.join(parts)


def _nat_brief(s: Shown) -> str:
    """One end for two: where DNAT sends it says more than the address SNAT lends it."""
    if len(s.ends.nat) < 2:
        return nat_text(s)
    return "both " + endpoint(s.ends.reply_src, s.ends.reply_sport if s.flow.kind.number in WITH_PORTS else None)


def nat_kind(s: Shown) -> str:
    kinds = s.ends.nat
    return "both" if len(kinds) == 2 else "".join(kinds)


def country_text(s: Shown) -> str:
    """The country's code; "--" for a public address nobody knows; of an address that is in no country its scope."""
    if s.where.country:
        return clean(s.where.country, 2)
    scope = addresses.scope(s.remote)
    return "--" if scope == "public" else scope


_BRIEF_SCOPES = {"link-local": "link", "multicast": "mcst", "loopback": "loop", "documentation": "docu"}


def _country_brief(s: Shown) -> str:
    """Two to four letters of a scope, small ones, so that they are no country's code."""
    text = country_text(s)
    return _BRIEF_SCOPES.get(text, text[:4])


COLUMNS: tuple[Column[Shown], ...] = (
    Column("proto", "PROTO", 5, 5, 0, lambda s: protocol_text(s.flow), sortkeys.by_protocol),
    Column("state", "STATE", 11, 11, 40, lambda s: s.flow.status(), sortkeys.by_state),
    Column("source", "SOURCE", 15, 47, 30, lambda s: end_text(s, True), sortkeys.by_source, roomy=21, middle=True),
    Column(
        *("destination", "DESTINATION", 21, 47, 10),
        lambda s: end_text(s, False),
        sortkeys.by_destination,
        middle=True,
        brief=_destination_number,
    ),
    Column("natkind", "NAT", 4, 4, 90, nat_kind, sortkeys.by_nat, descending=True),
    Column("nat", "NAT", 26, 52, 120, nat_text, sortkeys.by_nat, descending=True, middle=True, brief=_nat_brief),
    Column(*("cc", "CC", 4, 10, 60), country_text, sortkeys.by_place(lambda w: w.country), brief=_country_brief),
    Column("city", "CITY", 10, 18, 140, lambda s: clean(s.where.city or ""), sortkeys.by_place(lambda w: w.city)),
    Column(
        *("asn", "ASN", 8, 8, 130),
        lambda s: f"AS{s.where.asn}" if s.where.asn is not None else "",
        sortkeys.by_place(lambda w: w.asn, none=math.inf),
    ),
    Column("org", "ORG", 12, 28, 110, lambda s: clean(s.where.org or ""), sortkeys.by_place(lambda w: w.org)),
    Column(
        *("rate", "RATE", 6, 6, 20),
        lambda s: rate_text(s.flow),
        sortkeys.by_rate,
        right=True,
        descending=True,
    ),
    Column(
        *("bytes", "BYTES", 5, 5, 70),
        lambda s: size_text(s.flow.total()),
        sortkeys.by_bytes,
        right=True,
        descending=True,
    ),
    Column(
        *("packets", "PKTS", 5, 5, 100),
        lambda s: size_text(s.flow.packets()),
        sortkeys.by_packets,
        right=True,
        descending=True,
    ),
    Column("age", "AGE", 5, 5, 50, lambda s: age_text(s), sortkeys.by_age, right=True, descending=True),
    Column(
        *("timeout", "TIMEOUT", 7, 7, 80),
        lambda s: span_text(s.flow.remaining(s.now)) if s.live else "closed",
        sortkeys.by_timeout,
        right=True,
    ),
)
BY_KEY = {column.key: column for column in COLUMNS}
# What --sort takes: the keys, without the second, narrow form of NAT, and the words people may try.
SORTS = tuple(column.key for column in COLUMNS if column.key != "natkind")
ALIASES = {"src": "source", "dst": "destination", "country": "cc", "protocol": "proto", "pkts": "packets"}


def protocol_text(flow: Flow) -> str:
    name = {"icmpv6": "icmp6", "udplite": "udpl"}.get(flow.kind.protocol, flow.kind.protocol)
    if name == "unknown":
        return f"ip{flow.kind.number}" if flow.kind.number < 1000 else str(flow.kind.number)
    return clean(name, 5)


def rate_text(flow: Flow) -> str:
    rate = flow.rate()
    return size_text(rate) + "/s" if rate and rate >= 0.5 else ("-" if rate is None else "0")


def age_text(s: Shown) -> str:
    """The age; with ">" where the flow is older than we know."""
    seconds = s.flow.age(s.now)
    if seconds >= 1000 * DAY:  # a clock that was set: five cells are all there is, and no number is cut
        return f"{min(seconds / DAY / 365.25, 9999):.0f}y"
    if s.flow.knows_age():
        return span_text(seconds)
    return ">" + span_text(seconds - seconds % 10 if seconds < 60 else seconds)  # it need not tick to be true


def fit(width: int, wanted: Sequence[Column[Any]] = COLUMNS) -> list[tuple[Column[Any], int]]:
    """The columns that fit into ``width`` cells (one blank between two), in their order, each with its width.

    Columns come by rank; what is left over lets those grow that can.
    """
    chosen: list[Column[Any]] = []
    for column in sorted(wanted, key=lambda c: c.rank):
        candidate = [*chosen, column]
        if column.key == "nat":
            candidate = [c for c in candidate if c.key != "natkind"]
        # The more important columns have the room they like before a less important one comes.
        needs = sum((c.roomy if column.rank > ESSENTIAL else c.least) + 1 for c in candidate) - 1
        if needs > width:
            break  # no hole for a less important, narrower column: columns would come and go while a window is dragged
        chosen = candidate
    order = [column for column in wanted if column in chosen]
    most_telling = min(wanted, key=lambda c: (c.rank != TELLING, c.rank))
    if most_telling not in order:
        return [(most_telling, max(1, width))]
    return list(zip(order, _grown(order, width - sum(c.least + 1 for c in order) + 1)))


def _grown(columns: Sequence[Column[Any]], spare: int) -> list[int]:
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
