"""The lines above the title: where the data comes from, how full the table is, what is wrong."""

from __future__ import annotations

from collections.abc import Sequence

from health import Notice, brief, notices_of
from text import Glyphs, Line, cells, clean, clip, length, shorten, size_text, spread
from view import Scene


def header(scene: Scene, width: int, height: int) -> list[Line]:
    lines: list[Line] = []
    if height >= 8:
        lines.append(_top_line(scene, width))
    if height >= 14:
        lines.append(_table_line(scene, width))
    notices = notices_of(scene.status, scene.table, scene.live, scene.now)
    return lines + _notice_lines(notices, width, 2 if height >= 20 else 1 if height >= 6 else 0, scene.glyphs.cut)


def _top_line(scene: Scene, width: int) -> Line:
    table, glyphs = scene.table, scene.glyphs
    stale = bool(scene.status.troubles)
    state, role = ("live", "good") if scene.live else ("replay", "accent")
    if scene.status.ended:
        state, role = "replay ended", "dim"
    if stale:
        state, role = "stale", "bad"
    left: Line = [("conntrack-monitor ", "title"), (f"{glyphs.dot} {state}", role)]
    right: Line = [
        (f"{table.history[-1]:.0f} events/s ", "plain"),
        (sparkline(list(table.history)[-20:] if width >= 100 else list(table.history)[-8:], glyphs), "accent"),
    ]
    if table.rate_in is not None and table.rate_out is not None:
        right += [
            ("  in ", "dim"),
            (f"{size_text(table.rate_in)}B/s".rjust(7), "plain"),
            ("  out ", "dim"),
            (f"{size_text(table.rate_out)}B/s".rjust(7), "plain"),
        ]
    room = width - length(left) - length(right) - 3
    if room >= 8:
        left.append((" " + shorten(clean(scene.source), room, glyphs.cut), "plain"))
    return spread(left, right, width)


def sparkline(values: Sequence[float], glyphs: Glyphs) -> str:
    """A value a character; the scale's top is the next 1, 2 or 5 times a power of ten, so that it does not flutter."""
    top, step = 1.0, 0
    while top < max(values, default=0.0):
        top *= (2.0, 2.5, 2.0)[step % 3]
        step += 1
    levels = len(glyphs.spark) - 1
    return "".join(glyphs.spark[min(levels, round(value / top * levels))] for value in values)


def _table_line(scene: Scene, width: int) -> Line:
    glyphs, facts = scene.glyphs, scene.status.facts
    count, most = facts.get("count"), facts.get("max")
    line: Line = [("table ", "dim")]
    if count is not None and most:
        share = count / most
        role = "bad" if share >= 0.9 else "warn" if share >= 0.7 else "good"
        size = 20 if width >= 120 else 10
        full = min(size, round(share * size))
        line += [(glyphs.full * full, role), (glyphs.empty * (size - full), "dim")]
        line += [(f" {share:.0%}" if share >= 0.01 or not count else " <1%", role), (f" {count}/{most}", "plain")]
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
    return line


def _notice_lines(notices: Sequence[Notice], width: int, most: int, mark: str) -> list[Line]:
    """The worst first, in at most ``most`` lines; a cure that does not fit behind its notice has a line of its own."""
    lines: list[Line] = []
    said = 0
    for notice in notices:
        role = "bad" if notice.bad else "warn"
        text: Line = [("! ", role), (notice.text, role)]
        cure: Line = [("  try: ", "dim"), (notice.cure, "plain")] if notice.cure else []
        if length(text) + length(cure) <= width:
            wanted = [text + cure]
        elif cure and len(lines) + 2 <= most:
            wanted = [text, cure]
        else:
            room = width - length(cure)
            wanted = [clip(text, room, mark) + cure if room >= 20 else text]
        if len(lines) + len(wanted) > most:
            break
        lines += wanted
        said += 1
    if lines and said < len(notices):
        more = f" (+{len(notices) - said}, see H)"
        lines[-1] = [*clip(lines[-1], width - len(more), mark), (more, "dim")]
    return lines
