"""The parts of a frame around its table: header, details, health, help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import addresses
from addresses import UNNAMED, Context, Named
from columns import exact_moment, facts_of, nat_text, tabs
from flows import LIVE, AnyTable, Flow, FlowTable, NodeFacts
from health import SLOW, HealthRow, Notice, brief, fill_role, notices_of, panel, percent
from keys import BINDINGS, Binding
from parse import Record, Tuple
from text import (
    UNICODE,
    Glyphs,
    Line,
    bar,
    cells,
    clean,
    clip,
    endpoint,
    length,
    pad,
    service,
    shorten,
    size_text,
    span_text,
    sparkline,
    speed_text,
    spread,
    wrap,
)
from view import Curve, NodeScene, Scene
from vocabulary import FIELDS

# --- the header -------------------------------------------------------------------------------------------------------


def header(scene: Scene, width: int, height: int) -> list[Line]:
    lines: list[Line] = []
    if height >= 8:
        lines.append(_top_line(scene, width))
    if height >= 14:
        lines.append(_table_line(scene, width))
    if scene.view.covered == "health":  # it begins with all of them
        return lines
    notices = [notice for notice in _notices(scene) if notice.key not in scene.around.aside]
    most = 3 if height >= 30 else 2 if height >= 12 else 1 if height >= 6 else 0
    return lines + _notice_lines(notices, width, most, scene.glyphs.cut)


def _notices(scene: Scene) -> Sequence[Notice]:
    if scene.told is not None:
        return scene.told
    its = health_of(scene)
    return notices_of(its.status, its.table, scene.live, scene.now, its.around, its.shares)


def _top_line(scene: Scene, width: int) -> Line:
    table, glyphs = scene.table, scene.glyphs
    state, role = _state(scene)
    left: Line = [("conntrack-monitor ", "title"), (f"{glyphs.dot} {state}", role)]
    seconds, hears = 20 if width >= 100 else 8, table.watched_since is not None
    if scene.around.records:
        left.append((f" {glyphs.dot} rec", "title"))
    right: Line = [
        (f"{table.history[-1]:.0f} events/s " if hears and table.history else "- events/s ", "plain"),
        (sparkline(list(table.history)[-seconds:] if hears else [], glyphs).rjust(seconds), "accent"),
    ]
    if table.rate_in is not None and table.rate_out is not None:
        right += [
            ("  in ", "dim"),
            (_traffic(table.rate_in, scene.view.bits), "plain"),
            ("  out ", "dim"),
            (_traffic(table.rate_out, scene.view.bits), "plain"),
        ]
    played = _played_line(scene, 20 if width >= 120 else 8)
    if played and width < 100:
        del right[1]  # the sparkline: the bar takes its room
    if (played or table.facts) and length(left) + length(played) + length(right) + 2 > width:
        left = left[1:]  # what it is that is looked at says more than who shows it
    room = width - length(left) - length(played) - length(right) - 3
    if room >= 8:
        left.append((" " + shorten(clean(scene.source), room, glyphs.cut), "plain"))
    left += played
    return spread(left, right, width)


def _played_line(scene: Scene, size: int) -> Line:
    """Where a recording is, of all its time, and how fast it is played."""
    played = scene.around.playback
    if played is None:
        return []
    length_of_it = played.ends - played.begins
    full, empty = bar((played.at - played.begins) / length_of_it, size, scene.glyphs.full, scene.glyphs.empty)
    text = f" {_minutes(played.at - played.begins)}/{_minutes(length_of_it)}"
    speed = "" if played.speed == 1 or scene.status.ended else f" {played.speed:g}x"
    return [(" ", "plain"), (full, "accent"), (empty, "dim"), (text + speed, "plain")]


def _minutes(seconds: float) -> str:
    """A place in a recording.

    >>> _minutes(62), _minutes(3700)
    ('1:02', '1:01:40')
    """
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def _traffic(rate: float, bits: bool) -> str:
    return (speed_text(rate, bits) if bits else f"{size_text(rate)}B/s").rjust(9 if bits else 7)


def _state(scene: Scene) -> tuple[str, str]:
    """How true the picture is, in a word, and its role. Green is only what is whole and of now."""
    status, now = scene.status, scene.now
    if scene.live and (facts := scene.table.facts):
        return _state_of_nodes(facts)
    if status.troubles:
        return "stale", "bad"
    if status.ended:
        return "replay ended", "dim"
    if not scene.live:
        held = scene.around.playback is not None and scene.around.playback.held
        return ("replay held", "warn") if held else ("replay", "title")
    if scene.is_behind:
        return f"{scene.behind:.0f} s behind", "warn"
    hangs = status.listing_since is not None and now - status.listing_since > SLOW
    return "live", "warn" if hangs or status.healed < status.losses else "good"


def _state_of_nodes(facts: Mapping[str, NodeFacts]) -> tuple[str, str]:
    """How many nodes are live, of all."""
    live = sum(its.state == LIVE for its in facts.values())
    if live == len(facts):
        return f"{live} nodes live", "good"
    return f"{live} of {len(facts)} nodes live", "warn" if live else "bad"


def _table_line(scene: Scene, width: int) -> Line:
    glyphs, facts = scene.glyphs, scene.status.facts
    count, most = facts.get("count"), facts.get("max")
    line: Line = [("table ", "dim")]
    if count is not None and most:
        share = count / most
        role = fill_role(share)
        full, empty = bar(share, 20 if width >= 120 else 10, glyphs.full, glyphs.empty)
        line += [(full, role), (empty, "dim")]
        line += [(f" {percent(share)}", role), (f" {count}/{most}", "plain")]
    else:
        line.append((f"{len(scene.table)} flows", "plain"))
    for text, role in brief(scene.status, scene.shares, scene.now):
        if length(line) + 3 + cells(text) <= width:
            line += [(f" {glyphs.middle} ", "dim"), (text, role)]
    chips = scene.table.by_protocol()[:6] + (scene.table.by_state()[:5] if width >= 120 else [])
    for name, number in chips:
        if length(line) + 3 + cells(name) + 1 + len(str(number)) > width:
            break  # a number that lost a digit would be another one
        line += [(f" {glyphs.middle} ", "dim"), (f"{name} ", "dim"), (str(number), "plain")]
    months = [base.month for base in scene.around.databases if base.old]
    if months and length(line) + len(old := f" {glyphs.middle} GeoIP {min(months)}") <= width:
        line.append((old, "dim"))
    return line


def _notice_lines(notices: Sequence[Notice], width: int, most: int, mark: str) -> list[Line]:
    """The heaviest first, in at most ``most`` lines: the reason whole, as far as there is room, and then the cure."""
    lines: list[Line] = []
    said, whole = 0, True
    while len(lines) < most and said < len(notices) and whole:
        wanted, whole = _lines_of_notice(notices[said], width, most - len(lines), mark)
        lines += wanted
        said += 1
    if not lines or (whole and said == len(notices)):
        return lines
    more = " (see H)" if said == len(notices) else f" (+{len(notices) - said}, see H)"
    # A reason may lose its end, a command may not: it would mend nothing.
    at = next((at for at in reversed(range(len(lines))) if length(lines[at]) + len(more) <= width), 0)
    lines[at] = [*clip(lines[at], width - len(more), mark), (more, "dim")]
    return lines


def _remedy(notice: Notice, width: int, mark: str) -> list[Line]:
    """The cure in lines of its own: in one, if it fits, so that it can be copied."""
    if not notice.cure:
        return []
    if cells(notice.cure) + 7 <= width:
        return [[("  try: ", "dim"), (notice.cure, "plain")]]
    return [[(text, "plain")] for text in wrap(f"try: {notice.cure}", max(8, width), mark)]


def _lines_of_notice(notice: Notice, width: int, most: int, mark: str) -> tuple[list[Line], bool]:
    """A notice in at most ``most`` lines, and whether that is all of it.

    The cure has lines of its own where it does not fit behind the reason; where there is no room for these, the reason
    keeps its words and H shows the cure.
    """
    role = "bad" if notice.bad else "warn"
    cure: Line = [("  try: ", "dim"), (notice.cure, "plain")] if notice.cure else []
    text: Line = [("! ", role), (notice.text, role)]
    if length(text) + length(cure) <= width:
        return [text + cure], True
    reason = wrap(f"! {notice.text}", max(8, width), mark)
    remedy = _remedy(notice, width, mark)
    lines: list[Line] = [[(line, role)] for line in reason]
    if len(reason) + len(remedy) <= most:
        return lines + remedy, True
    if most >= 2 and len(remedy) == 1:
        return [*lines[: most - 2], [(" ".join(reason[most - 2 :]), role)], cure], True
    return [*lines[: most - 1], [(" ".join(reason[most - 1 :]), role)]], not cure and len(reason) <= most


# --- details of a flow ------------------------------------------------------------------------------------------------

LabelledLine = tuple[str, str]


def details(
    flow: Flow,
    table: AnyTable,
    context: Context,
    curve: Curve | None = None,
    glyphs: Glyphs = UNICODE,
    bits: bool = False,
) -> list[LabelledLine]:
    """All that conntrack said, what follows from it, and the flow's life as far as it was seen."""
    record, context = flow.record(), context.of(flow)
    lines: list[LabelledLine] = [("", _title(flow, record))]
    lines += _state_lines(flow, record, context)
    lines += [("", "")]
    lines += [("original", _tuple_line(record.original, record.kind.protocol, context))]
    there, back = flow.known_rates or (None, None)
    # An event names no counters but for the last, and no use: with that the flow has been in a listing.
    listed = record.use is not None or flow.ended is not None
    lines += [("", text) for text in _count_texts(record.original, there, listed, bits)]
    lines += [("reply", _tuple_line(record.reply, record.kind.protocol, context))]
    lines += [("", text) for text in _count_texts(record.reply, back, listed, bits)]
    lines += _curve_lines(curve, context.now, glyphs, bits)
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


def _state_lines(flow: Flow, record: Record, context: Context) -> list[LabelledLine]:
    lines: list[LabelledLine] = []
    state = " ".join(part for part in (record.state or "", *record.flags) if part)
    lines.append(("state", state or "n/a"))
    left = flow.remaining(context.now)
    if left is not None:
        lines.append(("timeout", f"{left} s" + (f" ({span_text(left)})" if left >= 60 else "")))
    age, began = span_text(flow.age(context.now)), exact_moment(flow.birth() + context.epoch)
    if not flow.knows_age():
        age = "unknown" if age == "0s" else f"older than {age}"
        began = f"before {began} (started before monitoring)"
    if flow.ended is None:
        lines.append(("age", f"{age}, began {began}"))
    else:
        lines.append(("duration", f"{age}, began {began}"))
        lines.append(("ended", exact_moment(flow.ended + context.epoch)))
    return lines


def _tuple_line(side: Tuple, protocol: str, context: Context) -> str:
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


def _count_texts(side: Tuple, rate: float | None, listed: bool, bits: bool) -> list[str]:
    if side.packets is None or side.bytes is None:
        return ["not counted: accounting was off when it started" if listed else "not counted yet"]
    text = f"{side.packets} packets, {side.bytes} bytes"
    if side.bytes >= 1000:
        text += f" ({size_text(side.bytes)})"
    return [text if rate is None else f"{text}, {speed_text(rate, bits)}"]


CURVE_CELLS = 28  # cells


def _curve_lines(curve: Curve | None, now: float, glyphs: Glyphs, bits: bool) -> list[LabelledLine]:
    """The rate since the details were opened: all of that time in so many cells, of each the most."""
    if curve is None or not curve.rates:
        return []
    values = curve.rates
    if len(values) > CURVE_CELLS:
        cuts = [len(values) * at // CURVE_CELLS for at in range(CURVE_CELLS + 1)]
        values = [max(values[a:b]) for a, b in pairwise(cuts)]
    most, span = speed_text(max(curve.rates), bits), span_text(now - curve.since)
    line = sparkline(values, glyphs)
    return [
        ("rate", f"{line} {speed_text(curve.rates[-1], bits)}"),
        ("", f"at most {most} in the last {span}"),
    ]


def _end_lines(flow: Flow, context: Context) -> list[LabelledLine]:
    e = flow.ends()
    s = facts_of(flow, context, names=False)
    lines: list[LabelledLine] = []
    lines.append(("NAT", nat_text(s, ", ") or "none"))
    way = context.direction(e)
    words = {"in": "in, to this host", "out": "out, from this host", "fwd": "forwarded", "local": "within this host"}
    lines.append(("direction", words[way] if way else "unknown: this host's addresses are unknown"))
    if s.process:
        lines.append(("process", f"{s.process.name} (pid {s.process.pid})"))
    lines += _place_lines("initiator", e.src, context)
    lines += _place_lines("responder", e.reply_src, context)
    if s.remote not in (e.src, e.reply_src):
        lines += _place_lines("remote", s.remote, context)
    return lines


def _place_lines(label: str, address: str, context: Context) -> list[LabelledLine]:
    """An end: its scope, and where it is and whose, by which database."""
    known = context.detail(address)
    place = known.place
    own = ", this host" if address in context.own else ""
    own = ", broadcast" if addresses.hears_broadcast(address, context.own) else own
    who, name = context.who(address), clean(context.name(address) or "")
    named = f"  {name}" if name and name != who.name else ""
    lines: list[LabelledLine] = [(label, f"{address} ({addresses.scope(address) or 'no address'}{own}){named}")]
    if who != UNNAMED:
        lines.append(("", _who_text(who)))
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
        lines.append(("", "source: " + clean(", ".join(known.sources))))
    return lines


def _who_text(who: Named) -> str:
    """Name, container with its service, and MAC address, as far as they are known."""
    container = f"container {who.container}" + (f" ({who.service})" if who.service else "") if who.container else ""
    return "  ".join(filter(None, (who.name, container, who.mac)))


def _zone_text(zone: int, context: Context) -> str:
    name = context.zone_name(zone)
    return f"{zone} ({name})" if name else str(zone)


def _other_lines(record: Record, context: Context) -> list[LabelledLine]:
    lines: list[LabelledLine] = []
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
        who = clean(record.progname or "a program that has exited")
        lines.append(("by", f"{who} (netlink port {record.portid})"))
    return lines


def _life_lines(flow: Flow, table: AnyTable, now: float) -> list[LabelledLine]:
    life = table.life(flow)
    lines: list[LabelledLine] = []
    for at, event, state in life[-12:]:
        lines.append(("life" if not lines else "", f"{span_text(now - at):>5} ago  {event:<7}  {state or ''}".rstrip()))
    if flow.inferred:
        lines.append(("life" if not lines else "", "gone from the kernel's table (no event received)"))
    if not lines:
        lines.append(("life", "no events yet (found in table dump)"))
    return lines


# --- health -----------------------------------------------------------------------------------------------------------

PANEL_CELLS = 20  # cells
EVERY_LINE = 99  # as many lines as a notice needs


def panel_lines(scene: Scene, width: int) -> tuple[list[Line], list[tuple[int, str]]]:
    """A line for each row, the command that mends it below; narrow screens have no bars.

    With them the lines that can be entered: where each begins, and the filter that shows its flows.
    """
    its = health_of(scene)
    rows = panel(its.status, its.table, its.shares, scene.now, scene.live, its.around)
    room = min(24, max(cells(row.label) for row in rows)) if rows and width >= 60 else 0
    lines, entries = notice_lines(scene, width), []
    for row in rows:
        found = _row_lines(scene, row, room, width)
        if row.term:
            term = f"{row.term} {its.term}".rstrip()
            entries.append((len(lines), term))
            if term == scene.view.entry:
                found[0] = [(pad("".join(text for text, _ in found[0]), width, False), "selected")]
        lines += found
    return lines, entries


def health_of(scene: Scene) -> NodeScene:
    """What the panel is about: of several nodes the one that was asked for."""
    if scene.focus is not None:
        return scene.focus
    assert isinstance(scene.table, FlowTable)
    return NodeScene("", "", scene.status, scene.table, scene.shares, scene.around)


def notice_lines(scene: Scene, width: int) -> list[Line]:
    """All that is wrong, also what the header has no room for."""
    lines: list[Line] = []
    for notice in _notices(scene):
        found, _ = _lines_of_notice(notice, width, EVERY_LINE, scene.glyphs.cut)
        aside = notice.key in scene.around.aside
        lines += [[(text, "dim") for text, _ in line] if aside else line for line in found]
    return lines


def _row_lines(scene: Scene, row: HealthRow, room: int, width: int) -> list[Line]:
    mark, label = scene.glyphs.cut, clean(row.label)
    start: Line = [(pad(shorten(label, room, mark), room, False) + "  " if room else f"{label}: ", "dim")]
    if row.share is not None and width >= 80:
        full, empty = bar(row.share, PANEL_CELLS, scene.glyphs.full, scene.glyphs.empty)
        start += [(full, row.role), (empty, "dim"), (" ", "plain")]
    used = sum(cells(text) for text, _ in start)
    texts = wrap(clean(row.value, 500), max(8, width - used), mark)
    lines = [[*start, (texts[0], row.role)]]
    lines += [[(" " * min(used, width - 8), "plain"), (text, row.role)] for text in texts[1:]]
    if row.cure:
        indent = room + 2 if room else 2
        lines += [
            [(" " * indent, "plain"), (text, "plain")]
            for text in wrap(f"try: {clean(row.cure, 500)}", max(8, width - indent), mark)
        ]
    return lines


# --- help -------------------------------------------------------------------------------------------------------------

KEYS_WIDTH, TEXT_WIDTH = 13, 26  # of a key in the help: two times both is 80 less the margins
_FILTER_HELP = (
    "Filters: words are ANDed; or, ( ) and ! or not work; a bare word searches everything shown.",
    " ".join(field.term for field in FIELDS) + " (to find who had an address: wan: and at: in the NAT view)",
)


def help_lines(scene: Scene, width: int) -> list[Line]:
    """All keys, two on a line where both are short and there is room; filters; all that is wrong."""
    mark = scene.glyphs.cut
    lines: list[Line] = []
    spec = scene.view.spec
    lines += [[(text, "plain")] for text in wrap(f" {spec.title}: {spec.about}", max(8, width), mark)]
    views = tabs(scene.view.context.is_among_others())
    names = " ".join(spec.name for spec in views)
    lines += _wrapped(f"{views[0].key} to {views[-2].key}, {views[-1].key}", f"views: {names}", width, mark)
    left: Binding | None = None
    for binding in BINDINGS:
        if binding.keys[0] in {spec.key for spec in views}:
            continue
        short = width >= 80 and len(binding.text) <= TEXT_WIDTH
        if left is not None and short:
            lines[-1][-1] = (pad(left.text, TEXT_WIDTH, False), "plain")
            lines[-1] += _key_line(binding)
            left = None
        else:
            lines += _wrapped(" ".join(binding.keys), binding.text, width, mark)
            left = binding if short else None
    for paragraph in _FILTER_HELP:
        lines += [[(f" {text}", "plain")] for text in wrap(paragraph, max(8, width - 2), mark)]
    for paragraph in scene.around.attributions:
        lines += [[(f" {text}", "dim")] for text in wrap(paragraph, max(8, width - 2), mark)]
    return lines + notice_lines(scene, width)


def _key_line(binding: Binding) -> Line:
    return [(f" {' '.join(binding.keys):<{KEYS_WIDTH}}", "key"), (binding.text, "plain")]


def _wrapped(keys: str, text: str, width: int, mark: str) -> list[Line]:
    texts = wrap(text, max(8, width - KEYS_WIDTH - 1), mark)
    first: Line = [(f" {keys:<{KEYS_WIDTH}}", "key"), (texts[0], "plain")]
    return [first, *([(" " * (KEYS_WIDTH + 1), "plain"), (text, "plain")] for text in texts[1:])]
