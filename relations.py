"""More fields of the filter language: what a flow belongs to (its ends, its service), who was behind a translated
address, what is new.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import fields
from addresses import Context
from fields import Predicate, network
from flows import Flow
from grouping import GROUPINGS, service_key


def _new(value: str, context: Context) -> Predicate:
    wanted = value.lower() or "any"
    if wanted != "any" and wanted not in GROUPINGS:
        raise ValueError(f"'{value}' can't be new; there are: any {' '.join(GROUPINGS)}")
    groupings = tuple(GROUPINGS.values()) if wanted == "any" else (GROUPINGS[wanted],)

    def fits(flow: Flow) -> bool:
        mark = context.since
        return mark is not None and mark.is_new(flow, groupings)

    return fits


def _near(value: str, context: Context) -> Predicate:
    inside = network(value)
    return lambda flow: inside(context.sides(flow)[0].encode())


def _far(value: str, context: Context) -> Predicate:
    inside = network(value)
    return lambda flow: inside(context.sides(flow)[1].encode())


def _service(value: str, _context: Context) -> Predicate:
    wanted = value.lower()
    if not re.fullmatch(r"[a-z0-9-]{1,16}(/[0-9]{1,5})?", wanted):
        raise ValueError(f"'{value}' is no service: tcp/443, or icmp")
    return lambda flow: service_key(flow) == wanted


_WAN = re.compile(r"\[([0-9a-fA-F:.]+)\](?::(\d{1,5}))?|([0-9.]+)(?::(\d{1,5}))?|([0-9a-fA-F:.]+)")


def _wan(value: str, _context: Context) -> Predicate:
    """Flows that NAT has shown to the other side as this address (and port)."""
    match = _WAN.fullmatch(value)
    if match is None:
        raise ValueError(f"'{value}' is no address: 203.0.113.1, 203.0.113.1:38768 or [2001:db8::1]:443")
    inside = network(match.group(1) or match.group(3) or match.group(5))
    text = match.group(2) or match.group(4)
    port = int(text) if text else None

    def fits(flow: Flow) -> bool:
        if flow.plain:
            return False
        e = flow.ends()
        shown = [(e.reply_dst, e.reply_dport)] * e.snat + [(e.dst, e.dport)] * e.dnat
        return any(inside(address.encode()) and port in (None, its) for address, its in shown)

    return fits


_CLOCK = re.compile(r"(?:(\d{4}-\d\d-\d\d)[T_])?(\d{1,2}):(\d\d)(?::(\d\d))?")


def _at(value: str, context: Context) -> Predicate:
    """Flows that were there at a time of day (the last time that it was so late) or at a date and time, local time."""
    from datetime import datetime, timedelta

    match = _CLOCK.fullmatch(value)
    try:
        if match is None:
            raise ValueError
        hour, minute, second = int(match.group(2)), int(match.group(3)), int(match.group(4) or 0)
        day = datetime.fromisoformat(match.group(1)) if match.group(1) else None
        datetime(2000, 1, 1, hour, minute, second)
    except ValueError:
        raise ValueError(f"'{value}' is no time: 14:02, 14:02:30 or 2026-11-24T14:02") from None
    whole_minute = 0 if match.group(4) else 60

    def fits(flow: Flow) -> bool:
        now = context.now + context.epoch
        moment = (day or datetime.fromtimestamp(now)).replace(hour=hour, minute=minute, second=second, microsecond=0)
        if day is None and moment.timestamp() > now:
            moment -= timedelta(days=1)
        start = moment.timestamp() - context.epoch
        ended = flow.ended
        return flow.born < start + max(whole_minute, 1) and (ended is None or ended >= start)

    return fits


FIELDS: dict[str, Callable[[str, Context], Predicate]] = {
    **fields.FIELDS,
    "near": _near,
    "far": _far,
    "service": _service,
    "wan": _wan,
    "at": _at,
    "new": _new,
}
