"""A map of the world in braille dots with spots on it, equirectangular, as large as the window allows.

Land is dim, and each weight of spot has its own glyph: colour alone is lost with NO_COLOR and in copied text.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate
from math import inf
from typing import NamedTuple

import land
from text import Line, cells, clean, length, shorten


class Spot(NamedTuple):
    """A place in degrees north and east, and its weight: flows, or bytes a second.

    A tuple is cheaper to make than a dataclass, and a frame makes thousands.
    """

    latitude: float
    longitude: float
    weight: float
    selected: bool = False
    label: str = ""


# Glyph, its replacement in ASCII, role. A heavier cell has a larger glyph. The steps are half and a tenth of the
# heaviest cell: traffic is so uneven that with equal steps nearly all cells would be light.
HEAVY, MIDDLE, LIGHT = ("●", "@", "accent"), ("◉", "O", "accent"), ("•", "o", "accent")
HEAVY_SHARE, MIDDLE_SHARE = 0.5, 0.1
CHOSEN = ("◆", "X", "selected")

# Columns for each row. Dots are square, so at 5.1 shapes are true at the equator, and at 4 they are true at 38 degrees
# north. 4 lets the map fill 80x20. Beyond 5.6 the north looks squashed.
NARROWEST, WIDEST = 4.0, 5.6

# The share of a dot that must be land for the dot to be drawn. COAST is below half, as coasts are ragged. A dot with
# no land beside it needs only ISLAND: with more, Hawaii and the Azores are missing at 80x20; with less, specks fill the
# Pacific at 40x10.
COAST, ISLAND = 0.45, 0.05

_NORTH, _HIGH = land.NORTH, land.NORTH - land.SOUTH


LEGEND_FROM = 10  # lines of a window in which the map leaves one to its legend


def world(
    spots: Sequence[Spot],
    width: int,
    height: int,
    ascii_only: bool,
    words: Callable[[float], str] | None = None,
) -> list[Line]:
    """The map in the middle of the window: exactly ``height`` lines of at most ``width`` cells.

    Weights in one cell add up. A weight that is not a finite number above 0 counts as 0, and its spot is still shown.
    Spots without a place on Earth are left out. Spots south of the map (Antarctica) are on its last row. The first
    selected spot has its label beside it, cut where it does not fit. ``words``: of a weight; with them the last line
    is a legend, where there is room for one.
    """
    if width <= 0 or height <= 0:
        return [[] for _ in range(height)]
    if words is not None and height >= LEGEND_FROM:
        lines, top = _world_of(spots, width, height - 1, ascii_only)
        return [*lines, _legend(top, words, width, ascii_only)]
    return _world_of(spots, width, height, ascii_only)[0]


def _legend(top: float, words: Callable[[float], str], width: int, ascii_only: bool) -> Line:
    """What each glyph means; whole words only. ``top``: the weight of the heaviest cell."""
    heavy, middle, light, chosen = ((glyph[ascii_only], glyph[2]) for glyph in (HEAVY, MIDDLE, LIGHT, CHOSEN))
    said = [(heavy, f"from {words(top * HEAVY_SHARE)}"), (middle, f"from {words(top * MIDDLE_SHARE)}")]
    line: Line = []
    for glyph, text in [*(said if top else []), (light, "less" if top else words(0)), (chosen, "selected")]:
        if length(line) + cells(text) + 4 > width:
            break
        line += [("  ", "plain"), glyph, (f" {text}", "dim")]
    return line


def _world_of(spots: Sequence[Spot], width: int, height: int, ascii_only: bool) -> tuple[list[Line], float]:
    """The map, and the weight of its heaviest cell; 0 where none has any."""
    columns, rows = size(width, height)
    left, above = (width - columns) // 2, (height - rows) // 2
    weights: dict[tuple[int, int], float] = {}
    chosen: tuple[int, int] | None = None
    label = ""
    for latitude, longitude, weight, selected, text in spots:  # thousands: unpacking is faster than five attributes
        at = cell_of(latitude, longitude, columns, rows)
        if at is None:
            continue
        weights[at] = weights.get(at, 0.0) + (weight if 0 < weight < inf else 0.0)
        if selected and chosen is None:
            chosen, label = at, clean(text)
    top = max(weights.values(), default=0.0) or 1.0  # where every weight is 0, all spots are light
    pieces: list[list[_Piece]] = [[] for _ in range(rows)]
    if chosen is not None:
        pieces[chosen[0]].append(_chosen(left + chosen[1], label, width, ascii_only))
        del weights[chosen]
    heavy, middle, light = ((glyphs[ascii_only], glyphs[2]) for glyphs in (HEAVY, MIDDLE, LIGHT))
    for (row, column), weight in weights.items():
        text, role = heavy if weight >= top * HEAVY_SHARE else middle if weight >= top * MIDDLE_SHARE else light
        pieces[row].append((left + column, 1, text, role))
    texts = ((" " * left + text).ljust(width) for text in shore(columns, rows, ascii_only))
    lines = [_line(text, found) for text, found in zip(texts, pieces)]
    heaviest = max(weights.values(), default=0.0)
    return [[] for _ in range(above)] + lines + [[] for _ in range(height - rows - above)], heaviest


def size(width: int, height: int) -> tuple[int, int]:
    """Columns and rows of the map in a window of at least one cell; it fills the window's width or its height."""
    columns = min(width, int(height * WIDEST))
    return columns, max(1, min(height, int(columns / NARROWEST)))


def cell_of(latitude: float, longitude: float, columns: int, rows: int) -> tuple[int, int] | None:
    """Row and column of a place on a map of that many columns and rows; None if the place is not on Earth."""
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        return None  # so is NaN
    row, column = int((_NORTH - latitude) / _HIGH * rows), int((longitude + 180) / 360 * columns)
    # min() and max() would be 10,000 calls for 5,000 spots.
    return (0 if row < 0 else row if row < rows else rows - 1), (column if column < columns else columns - 1)


# --- spots ------------------------------------------------------------------------------------------------------------

_Piece = tuple[int, int, str, str]  # first cell, number of cells, text, role


def _chosen(at: int, label: str, width: int, ascii_only: bool) -> _Piece:
    """The selected spot with its label: on the right, or on the left where only there is room, or more of it."""
    mark, role = CHOSEN[ascii_only], CHOSEN[2]
    after, before = max(0, width - at - 2), max(0, at - 1)
    rightward = cells(label) <= after or (cells(label) > before and after >= before)
    shown = shorten(label, after if rightward else before, "~" if ascii_only else "…")
    if not shown:
        return at, 1, mark, role
    used = cells(shown)
    if rightward:
        return at, used + 2, f"{mark} {shown}", role
    return at - used - 1, used + 2, f"{shown} {mark}", role


def _line(text: str, pieces: Sequence[_Piece]) -> Line:
    """Land with the pieces over it. A label takes more than one cell and hides the spots under it."""
    covered = next(((start, start + used) for start, used, _, _ in pieces if used > 1), (0, 0))
    line: Line = []
    done = 0
    for start, used, shown, role in sorted(pieces):
        if used == 1 and covered[0] <= start < covered[1]:
            continue
        if start > done:
            line.append((text[done:start], "dim"))
        line.append((shown, role))
        done = start + used
    rest = text[done:].rstrip()
    return [*line, (rest, "dim")] if rest else line


# --- land -------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def shore(columns: int, rows: int, ascii_only: bool) -> tuple[str, ...]:
    """The land alone: ``rows`` texts of ``columns`` characters. It is cached, because a frame is drawn each second."""
    dots = _dots(columns * 2, rows * 4)
    lines = []
    for y in range(0, rows * 4, 4):
        halves = [half for line in dots[y : y + 4] for half in (line[::2], line[1::2])]
        # The order of Braille's bits: three dots of the left column, three of the right one, then the fourth row.
        bits = [
            a | b << 3 | c << 1 | d << 4 | e << 2 | f << 5 | g << 6 | h << 7 for a, b, c, d, e, f, g, h in zip(*halves)
        ]
        if ascii_only:  # 3 of a cell's 8 dots: with fewer, all coasts are thick
            lines.append("".join("." if cell.bit_count() >= 3 else " " for cell in bits))
        else:
            lines.append("".join(chr(0x2800 + cell) if cell else " " for cell in bits))
    return tuple(lines)


def _dots(across: int, down: int) -> list[list[bool]]:
    """Land or sea for each dot, by how much of it is land."""
    world = _world()
    edges = _edges(across, land.COLUMNS)
    shares: list[list[float]] = []
    for top, bottom in _edges(down, land.ROWS):
        # Adding rows as whole numbers adds all columns at once. A byte holds a sum: no dot is more than 71 rows high.
        counts = sum(world[top:bottom]).to_bytes(land.COLUMNS, "big")
        before = [0, *accumulate(counts)]
        high = bottom - top
        shares.append([(before[b] - before[a]) / ((b - a) * high) for a, b in edges])
    dots = [[share >= COAST for share in line] for line in shares]
    alone = [
        (y, x)
        for y, line in enumerate(shares)
        for x, share in enumerate(line)
        if ISLAND <= share < COAST and not any(any(near[max(0, x - 1) : x + 2]) for near in dots[max(0, y - 1) : y + 2])
    ]
    for y, x in alone:
        dots[y][x] = True
    return dots


def _edges(parts: int, total: int) -> list[tuple[int, int]]:
    """``total`` cells in ``parts`` ranges of about the same size, each of at least one cell."""
    starts = [part * total // parts for part in range(parts)]
    return [(start, max(start + 1, (part + 1) * total // parts)) for part, start in enumerate(starts)]


@lru_cache(maxsize=1)
def _world() -> list[int]:
    """land.py's rows from north to south: a number each, one byte a cell (1: land), the highest byte at 180 W."""
    plain = zlib.decompress(base64.b85decode(land.PACKED))
    wide = land.COLUMNS // 8
    rows: list[int] = []
    row = 0
    for at in range(0, len(plain), wide):
        row ^= int.from_bytes(plain[at : at + wide], "big")
        rows.append(int.from_bytes(map(int, f"{row:0{land.COLUMNS}b}"), "big"))
    return rows
