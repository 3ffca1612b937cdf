"""The columns of rows that are no flows: sums over flows (hosts, countries, networks, services) and events."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from addresses import Context, Place
from columns import Column, end_text, protocol_text, shown
from flows import Flow, TapeEvent
from grouping import NEW_SPAN, GroupRow, service_name
from sortkeys import Keys, numbers
from text import clean, size_text, span_text

BAR = 10  # cells


@dataclass(frozen=True)
class SumShown:
    """What the cells of a sum's row are made of."""

    sum: GroupRow
    where: Callable[[str], Place]
    name: Callable[[str], str | None]
    full: str  # the characters of a bar
    empty: str


@dataclass(frozen=True)
class HappeningShown:
    happening: TapeEvent
    context: Context
    names: bool


def _by(value: Callable[[GroupRow], Any]) -> Keys:
    return lambda sums, _context: [value(row) for row in sums]


def _bar(s: SumShown) -> str:
    full = round(s.sum.share * BAR)
    return s.full * full + s.empty * (BAR - full) + f" {s.sum.share:4.0%}"


def _rate(number: float) -> str:
    return size_text(number) + "/s" if number >= 0.5 else "0"


def _some(s: SumShown) -> str:
    """The first few of the others, and how many more there are."""
    few = s.sum.most()
    more = _named(s) - len(few)
    return clean(" ".join(few)) + (f" +{more}" if more else "")


def _named(s: SumShown) -> int:
    """How many others are known by name."""
    return len(s.sum.others) - ("" in s.sum.others)


def _others_count(s: SumShown) -> str:
    return size_text(_named(s))


def _unreplied(s: SumShown) -> str:
    return f"{s.sum.unreplied / s.sum.flows:.0%}" if s.sum.flows else "-"


def by_translated(flows: Sequence[Flow], _context: Context) -> list[Any]:
    found = [flow.ends() for flow in flows]
    return [(e.reply_dst, e.reply_dport or 0) if e.snat else (e.dst, e.dport or 0) for e in found]


_FLOWS = Column[SumShown](
    "flows", "FLOWS", 7, 7, 20, lambda s: str(s.sum.flows), _by(lambda s: s.flows), right=True, descending=True
)


_NEW = Column[SumShown](
    *("new", "NEW/s", 6, 6, 70),
    lambda s: f"{s.sum.fresh / NEW_SPAN:.1f}",
    _by(lambda s: s.fresh),
    right=True,
    descending=True,
)


_IN, _OUT = (
    Column[SumShown](*(key, title, 6, 6, 40), cell, _by(value), right=True, descending=True)
    for key, title, cell, value in (
        ("in", "IN", lambda s: _rate(s.sum.rate_in), lambda s: s.rate_in),
        ("out", "OUT", lambda s: _rate(s.sum.rate_out), lambda s: s.rate_out),
    )
)


_RATE = Column[SumShown](
    "rate", "RATE", 6, 6, 30, lambda s: _rate(s.sum.rate), _by(lambda s: s.rate), right=True, descending=True
)


_BYTES_IN, _BYTES_OUT = (
    Column[SumShown](*(key, title, 6, 6, 50), cell, _by(value), right=True, descending=True)
    for key, title, cell, value in (
        ("bytes-in", "BYT-IN", lambda s: size_text(s.sum.size_in), lambda s: s.size_in),
        ("bytes-out", "BYTOUT", lambda s: size_text(s.sum.size_out), lambda s: s.size_out),
    )
)


_BYTES = Column[SumShown](
    "bytes", "BYTES", 5, 5, 35, lambda s: size_text(s.sum.size), _by(lambda s: s.size), right=True, descending=True
)


_UNREPLIED = Column[SumShown](
    *("unreplied", "UNREPL", 6, 6, 60),
    _unreplied,
    _by(lambda s: s.unreplied / s.flows if s.flows else 0.0),
    right=True,
    descending=True,
)


_SHARE = Column[SumShown]("share", "SHARE", 15, 15, 45, _bar, _by(lambda s: s.share), descending=True)


_HOSTS_COUNT = Column[SumShown](
    "hosts", "HOSTS", 5, 5, 65, _others_count, _by(lambda s: len(s.others)), right=True, descending=True
)


_USERS = Column[SumShown]("hosts", "USED BY", 12, 50, 55, _some, _by(lambda s: len(s.others)), descending=True)


def _name(key: str, title: str, least: int, most: int, cell: Callable[[SumShown], str]) -> Column[SumShown]:
    return Column(key, title, least, most, 10, cell, _by(lambda s: s.key or "~"), middle=True)


_HOST = Column[SumShown](
    *("host", "HOST", 15, 39, 10),
    lambda s: s.name(s.sum.key) or s.sum.key,
    lambda sums, _c: numbers([row.key.encode() for row in sums]),
    middle=True,
)


_MOVED = (_FLOWS, _NEW, _RATE, _IN, _OUT, _BYTES, _BYTES_IN, _BYTES_OUT)


HOSTS = (
    _HOST,
    *_MOVED,
    _UNREPLIED,
    _SHARE,
    Column[SumShown](
        *("countries", "COUNTRIES", 9, 30, 55),
        _some,
        _by(lambda s: len(s.others)),
        descending=True,
    ),
)


def _country_of(s: SumShown) -> str:
    return clean(s.where(s.sum.key).country or "")


FAR_HOSTS = (
    _HOST,
    Column[SumShown]("cc", "CC", 2, 2, 25, _country_of, lambda sums, c: [c.where(s.key).country or "~" for s in sums]),
    *_MOVED,
    _UNREPLIED,
    _SHARE,
    Column[SumShown](
        *("org", "ORG", 12, 28, 48),
        lambda s: clean(s.where(s.sum.key).org or ""),
        lambda sums, c: [c.where(s.key).org or "~" for s in sums],
    ),
    _HOSTS_COUNT,
)


def _country_name(s: SumShown) -> str:
    return clean(s.sum.label or "") or ("unknown" if not s.sum.key else "")


COUNTRIES = (
    _name("country", "CC", 4, 4, lambda s: clean(s.sum.key or "--", 4)),
    Column[SumShown]("name", "COUNTRY", 12, 30, 15, _country_name, lambda sums, _c: [s.label or "~" for s in sums]),
    *_MOVED,
    _SHARE,
    _UNREPLIED,
    _HOSTS_COUNT,
)


NETWORKS = (
    Column[SumShown](
        "asn",
        "ASN",
        10,
        10,
        10,
        lambda s: f"AS{s.sum.key}" if s.sum.key else "--",
        _by(lambda s: int(s.key) if s.key else math.inf),
    ),
    Column[SumShown]("name", "NETWORK", 16, 36, 15, _country_name, lambda sums, _c: [s.label or "~" for s in sums]),
    *_MOVED,
    _SHARE,
    _UNREPLIED,
    _HOSTS_COUNT,
)


SERVICES = (
    _name("service", "SERVICE", 10, 14, lambda s: clean(s.sum.key)),
    Column[SumShown](
        *("name", "NAME", 8, 16, 15),
        lambda s: service_name(s.sum.key),
        lambda sums, _c: [service_name(s.key) or "~" for s in sums],
    ),
    *_MOVED,
    _SHARE,
    _UNREPLIED,
    _USERS,
)


# --- events -----------------------------------------------------------------------------------------------------------


def clock_text(s: HappeningShown) -> str:
    """The time of day, local; without one (a recording that has no stamps) seconds since its start."""
    seconds = s.happening.at + s.context.epoch
    if seconds < 1e6:
        return f"{seconds:.3f}"
    return time.strftime("%H:%M:%S", time.localtime(seconds)) + f".{int(seconds % 1 * 1000):03}"


def _end(s: HappeningShown, source: bool) -> str:
    return end_text(shown(s.happening.flow, s.context, s.names), source)


def _total(s: HappeningShown) -> str:
    """Final totals: of a flow that goes on they are yet to come."""
    return size_text(s.happening.flow.total()) if s.happening.event == "destroy" else ""


def _lasted(s: HappeningShown) -> str:
    flow = s.happening.flow
    if s.happening.event != "destroy":
        return ""
    return ("" if flow.knows_age() else ">") + span_text(flow.age(s.context.now))


def _of(value: Callable[[TapeEvent], Any]) -> Keys:
    return lambda happenings, _context: [value(happening) for happening in happenings]


def _place(s: HappeningShown) -> str:
    return clean(s.context.remote(s.happening.flow).country or "")


_LABEL = {"new": "NEW", "update": "UPDATE", "destroy": "DESTROY"}


EVENTS = (
    Column[HappeningShown]("time", "TIME", 12, 12, 20, clock_text, _of(lambda h: h.at), descending=True),
    Column[HappeningShown](
        "event", "EVENT", 7, 7, 5, lambda s: _LABEL.get(s.happening.event, ""), _of(lambda h: h.event)
    ),
    Column[HappeningShown](
        "proto", "PROTO", 5, 5, 8, lambda s: protocol_text(s.happening.flow), _of(lambda h: h.flow.kind.protocol)
    ),
    Column[HappeningShown](
        "state", "STATE", 11, 11, 40, lambda s: clean(s.happening.state or "", 11), _of(lambda h: h.state or "")
    ),
    Column[HappeningShown](
        *("source", "SOURCE", 15, 47, 30), lambda s: _end(s, True), _of(lambda h: h.flow.key), roomy=21, middle=True
    ),
    Column[HappeningShown](
        *("destination", "DESTINATION", 21, 47, 10),
        lambda s: _end(s, False),
        _of(lambda h: h.flow.addresses()[1]),
        middle=True,
    ),
    Column[HappeningShown]("cc", "CC", 2, 2, 60, _place, lambda hs, c: [c.remote(h.flow).country or "~" for h in hs]),
    Column[HappeningShown](
        *("bytes", "BYTES", 5, 5, 45),
        _total,
        _of(lambda h: h.flow.total() or 0 if h.event == "destroy" else -1),
        right=True,
        descending=True,
    ),
    Column[HappeningShown](
        *("lasted", "LASTED", 6, 6, 50), _lasted, lambda hs, c: [h.flow.age(c.now) for h in hs], right=True
    ),
)
