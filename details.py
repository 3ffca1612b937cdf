"""Everything about one flow, in lines of (label, value): what Enter shows."""

from __future__ import annotations

import addresses
from addresses import Context
from columns import facts_of, nat_text
from flows import Flow, FlowTable
from parse import Record, Tuple
from text import clean, endpoint, service, size_text, span_text

Line = tuple[str, str]


def details(flow: Flow, table: FlowTable, context: Context) -> list[Line]:
    """All that conntrack said, what follows from it, and the flow's life as far as it was seen."""
    record = flow.record()
    lines: list[Line] = [("", _title(flow, record))]
    lines += _state_lines(flow, record, context)
    lines += [("", "")]
    lines += [("original", _tuple_text(record.original, record.kind.protocol, context))]
    there, back = flow.rates or (None, None)
    # An event names no counters but for the last, and no use: with that the flow has been in a listing.
    listed = record.use is not None or flow.ended is not None
    lines += [("", text) for text in _count_texts(record.original, there, listed)]
    lines += [("reply", _tuple_text(record.reply, record.kind.protocol, context))]
    lines += [("", text) for text in _count_texts(record.reply, back, listed)]
    lines += _end_lines(flow, context)
    lines += _other_lines(record, context)
    lines += [("", "")]
    lines += _life_lines(flow, table, context.now)
    return lines


def _title(flow: Flow, record: Record) -> str:
    kind = record.kind
    name = f"{kind.protocol} ({kind.number})" if kind.protocol == "unknown" else kind.protocol
    number = "" if record.id is None else f"  id {record.id}"
    return f"{record.family} {clean(name)}{number}" + ("  closed" if flow.ended is not None else "")


def _state_lines(flow: Flow, record: Record, context: Context) -> list[Line]:
    lines: list[Line] = []
    state = " ".join(part for part in (record.state or "", *record.flags) if part)
    lines.append(("state", state or "none (this protocol has no states)"))
    left = flow.remaining(context.now)
    if left is not None:
        lines.append(("timeout", f"{left} s" + (f" ({span_text(left)})" if left >= 60 else "")))
    age = span_text(flow.age(context.now))
    word = "lasted" if flow.ended is not None else "age"
    lines.append((word, age if flow.knows_age() else f"at least {age}: it is older than this program's start"))
    return lines


def _tuple_text(side: Tuple, protocol: str, context: Context) -> str:
    text = f"{endpoint(side.src, side.sport)} -> {endpoint(side.dst, side.dport)}"
    if name := service(protocol, side.dport):
        text += f" ({name})"
    for label, value in (("type", side.type), ("code", side.code), ("id", side.icmp_id)):
        if value is not None:
            text += f"  {label} {value}"
    if side.srckey is not None:
        text += f"  keys {side.srckey} {side.dstkey}"
    if side.zone is not None:
        text += f"  zone {_zone_text(side.zone, context)}"
    return text


def _count_texts(side: Tuple, rate: float | None, listed: bool) -> list[str]:
    if side.packets is None or side.bytes is None:
        return ["not counted: accounting was off when it began" if listed else "not counted yet: listings do that"]
    text = f"{side.packets} packets, {side.bytes} bytes"
    if side.bytes >= 1000:
        text += f" ({size_text(side.bytes)})"
    return [text if rate is None else f"{text}, {size_text(rate)}/s"]


def _end_lines(flow: Flow, context: Context) -> list[Line]:
    e = flow.ends()
    s = facts_of(flow, context, names=False)
    lines: list[Line] = []
    lines.append(("NAT", nat_text(s, ", ") or "none"))
    way = addresses.direction(e, context.own)
    words = {"in": "in, to this host", "out": "out, from this host", "fwd": "forwarded", "local": "within this host"}
    lines.append(("direction", words[way] if way else "unknown: this host's addresses are not known here"))
    lines += _place_lines("initiator", e.src, context)
    lines += _place_lines("responder", e.reply_src, context)
    if s.remote not in (e.src, e.reply_src):
        lines += _place_lines("remote", s.remote, context)
    return lines


def _place_lines(label: str, address: str, context: Context) -> list[Line]:
    """An end: its scope, and where it is and whose, by which database."""
    known = context.detail(address)
    place = known.place
    own = ", this host" if address in context.own else ""
    lines: list[Line] = [(label, f"{address} ({addresses.scope(address) or 'no address'}{own})")]
    parts = [place.country_name or place.country, known.subdivision, place.city]
    where = ", ".join(clean(part) for part in parts if part)
    if known.latitude is not None and known.longitude is not None:
        where += f"  {known.latitude:.4g} {known.longitude:.4g}"
    if where:
        lines.append(("", where.strip() + (f"  ({known.place_network})" if known.place_network else "")))
    if place.asn is not None or place.org:
        network = f"  ({known.asn_network})" if known.asn_network else ""
        lines.append(
            ("", " ".join(filter(None, (f"AS{place.asn}" if place.asn else "", clean(place.org or "")))) + network)
        )
    if known.sources and (where or place.asn is not None):
        lines.append(("", "says " + clean(", ".join(known.sources))))
    return lines


def _zone_text(zone: int, context: Context) -> str:
    name = context.zone_name(zone)
    return f"{zone} ({name})" if name else str(zone)


def _other_lines(record: Record, context: Context) -> list[Line]:
    lines: list[Line] = []
    if record.mark:
        name = context.mark_name(record.mark)
        lines.append(("mark", f"{record.mark:#x} ({name})" if name else f"{record.mark} ({record.mark:#x})"))
    if record.zone is not None:
        lines.append(("zone", _zone_text(record.zone, context)))
    numbers = (
        ("use", record.use),
        ("secmark", record.secmark),
        ("delta-time", record.delta_time),
    )
    for label, value in numbers:
        if value is not None:
            lines.append((label, str(value)))
    for label, text in (
        ("helper", record.helper),
        ("secctx", record.secctx),
        ("start", record.start),
        ("stop", record.stop),
    ):
        if text is not None:
            lines.append((label, clean(text)))
    if record.labels is not None:
        lines.append(("labels", clean(", ".join(record.labels)) or "set, but without names"))
    if record.portid is not None or record.progname is not None:
        who = clean(record.progname or "a program that is gone")
        lines.append(("by", f"{who} (netlink port {record.portid})"))
    return lines


def _life_lines(flow: Flow, table: FlowTable, now: float) -> list[Line]:
    life = table.life(flow)
    lines: list[Line] = []
    for at, event, state in life[-12:]:
        lines.append(("life" if not lines else "", f"{span_text(now - at):>5} ago  {event:<7}  {state or ''}".rstrip()))
    if flow.inferred:
        lines.append(("life" if not lines else "", "gone from the kernel's table; no event said so"))
    if not lines:
        lines.append(("life", "no event seen yet: known from the table's listing"))
    return lines
