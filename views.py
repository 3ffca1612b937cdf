"""The views, as data: what a row is, which columns it has, what it is sorted by, which key brings it on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import sumcolumns
from columns import BY_KEY as OF_FLOWS
from columns import COLUMNS, Column, Shown, end_text, nat_kind, rate_text
from grouping import COUNTRY, FAR, NEAR, NETWORK, SERVICE, Grouping
from parse import WITH_PORTS
from text import endpoint


@dataclass(frozen=True)
class Kind:
    """A view."""

    name: str  # as --view takes it
    key: str
    title: str
    rows: str  # "flows", "sums", "events" or "map"
    columns: tuple[Column[Any], ...]
    sort: str
    grouping: Grouping | None = None
    once: str = ""  # what --once sorts by, where that is another column

    @property
    def sorts(self) -> tuple[str, ...]:
        """The columns that one can sort by: all but the second, narrow form of NAT."""
        return tuple(column.key for column in self.columns if column.key != "natkind")

    def column(self, key: str) -> Column[Any]:
        return next(column for column in self.columns if column.key == key)

    def falling(self, sort: str, reverse: bool) -> bool:
        return self.column(sort).descending != reverse


def _inside_text(s: Shown) -> str:
    """The end that NAT hides: who opened the flow, or, where only DNAT is at work, who answers."""
    ports = s.flow.kind.number in WITH_PORTS
    if s.ends.snat or not s.ends.dnat:
        return end_text(s, True)
    return endpoint(s.ends.reply_src, s.ends.reply_sport if ports else None)


def _outside_text(s: Shown) -> str:
    """What the other side sees in its place."""
    ports = s.flow.kind.number in WITH_PORTS
    if s.ends.snat:
        return endpoint(s.ends.reply_dst, s.ends.reply_dport if ports else None)
    return endpoint(s.ends.dst, s.ends.dport if ports else None) if s.ends.dnat else ""


def _remote_text(s: Shown) -> str:
    ports = s.flow.kind.number in WITH_PORTS
    if s.ends.snat:
        return endpoint(s.ends.reply_src, s.ends.reply_sport if ports else None)
    return endpoint(s.ends.src, s.ends.sport if ports else None)


def _kind_text(s: Shown) -> str:
    """Masquerading is SNAT to an address of this host."""
    kind = nat_kind(s)
    return "masq" if kind == "snat" and s.masked else kind


_NAT = (
    OF_FLOWS["proto"],
    Column("inside", "INSIDE", 15, 47, 10, _inside_text, OF_FLOWS["source"].keys, roomy=21, middle=True),
    Column("translated", "TRANSLATED", 15, 47, 20, _outside_text, sumcolumns.by_translated, roomy=21, middle=True),
    Column("remote", "REMOTE", 15, 47, 30, _remote_text, OF_FLOWS["destination"].keys, roomy=21, middle=True),
    Column("kind", "KIND", 5, 5, 35, _kind_text, OF_FLOWS["nat"].keys),
    *(OF_FLOWS[key] for key in ("state", "cc")),
    # Without colours, and too narrow for the timeout, nothing else would say which flows have ended.
    replace(OF_FLOWS["rate"], cell=lambda s: rate_text(s.flow) if s.live else "closed"),
    *(OF_FLOWS[key] for key in ("bytes", "age", "timeout")),
)

VIEWS = (
    Kind("connections", "1", "Connections", "flows", COLUMNS, "rate", None, "bytes"),
    Kind("hosts", "2", "Hosts", "sums", sumcolumns.HOSTS, "rate", NEAR, "bytes"),
    Kind("countries", "3", "Countries", "sums", sumcolumns.COUNTRIES, "rate", COUNTRY, "bytes"),
    Kind("networks", "4", "Networks", "sums", sumcolumns.NETWORKS, "rate", NETWORK, "bytes"),
    Kind("services", "5", "Services", "sums", sumcolumns.SERVICES, "rate", SERVICE, "bytes"),
    Kind("nat", "6", "NAT", "flows", _NAT, "age"),
    Kind("events", "7", "Events", "events", sumcolumns.EVENTS, "time"),
    Kind("map", "8", "Map", "map", sumcolumns.FAR_HOSTS, "flows", FAR),
    Kind("remotes", "", "Remote hosts", "sums", sumcolumns.FAR_HOSTS, "rate", FAR, "bytes"),
)
BY_NAME = {kind.name: kind for kind in VIEWS}
