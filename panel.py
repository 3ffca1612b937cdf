"""The health panel: how full the table is, who fills it, what the kernel had to drop, and what mends that."""

from __future__ import annotations

from health import HealthRow, notices_of, panel
from text import Line, cells, clean, pad, shorten, wrap
from view import Scene

BAR = 20  # cells


def panel_lines(scene: Scene, width: int) -> list[Line]:
    """A line for each row, the command that mends it below; narrow screens have no bars."""
    rows = panel(scene.status, scene.table, scene.shares, scene.databases, scene.now, scene.live)
    room = min(24, max(cells(row.label) for row in rows)) if rows and width >= 60 else 0
    return notice_lines(scene, width) + [line for row in rows for line in _row_lines(scene, row, room, width)]


def notice_lines(scene: Scene, width: int) -> list[Line]:
    """All that is wrong, also what the header has no room for."""
    lines: list[Line] = []
    for notice in notices_of(scene.status, scene.table, scene.live, scene.now):
        cure = f"  try: {notice.cure}" if notice.cure else ""
        role = "bad" if notice.bad else "warn"
        lines += [[(text, role)] for text in wrap(f"! {notice.text}{cure}", max(8, width), scene.glyphs.cut)]
    return lines


def _row_lines(scene: Scene, row: HealthRow, room: int, width: int) -> list[Line]:
    mark, label = scene.glyphs.cut, clean(row.label)
    start: Line = [(pad(shorten(label, room, mark), room, False) + "  " if room else f"{label}: ", "dim")]
    if row.share is not None and width >= 80:
        full = round(max(0.0, min(row.share, 1.0)) * BAR)
        start += [(scene.glyphs.full * full, row.role), (scene.glyphs.empty * (BAR - full), "dim"), (" ", "plain")]
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
