#!/usr/bin/env python3
"""Makes land.py, the world's land as a small bitmap, from Natural Earth's polygons.

    npm pack world-atlas@2.0.2 && tar xzf world-atlas-2.0.2.tgz
    scripts/make_land.py package/land-50m.json

The input is Natural Earth 4.1.0, "Land", 1:50m, public domain, as TopoJSON (its sha256 begins with 619477ff690c0868);
GeoJSON is read, too. 50m, not 110m: that knows no Azores, Canaries, Mauritius or Tahiti, and packs to 4.9 KB in place
of 5.3. Another zlib may pack the same rows into other text.
"""

from __future__ import annotations

import argparse
import base64
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parent.parent / "land.py"

Point = tuple[float, float]  # degrees east, degrees north
Ring = Sequence[Point]

# Half a degree a cell: a window of 360 columns has as many dots. Antarctica would be a fifth of the rows, where nobody
# serves anything; Cape Horn is at 56 S, Greenland ends at 83.6 N.
COLUMNS, NORTH, SOUTH, ROWS = 720, 84, -57, 282
FINE = 4  # points a cell is looked at, across and down
ENOUGH = 3  # of its 16 points on land make a cell land: with 5 the Azores, Cape Verde and Oahu are gone


def rings(data: dict[str, Any]) -> Iterator[Ring]:
    """All rings, shells and holes, of a GeoJSON or TopoJSON object."""
    if data["type"] == "Topology":
        arcs = _arcs(data)
        for shape in data["objects"].values():
            for ring in _lists_of_rings(shape):
                yield [point for at in ring for point in (arcs[at] if at >= 0 else arcs[~at][::-1])]
    else:
        for ring in _lists_of_rings(data):
            yield [(point[0], point[1]) for point in ring]


def _lists_of_rings(shape: dict[str, Any]) -> Iterator[list[Any]]:
    for key in ("features", "geometries"):
        for part in shape.get(key, []):
            yield from _lists_of_rings(part)
    if shape["type"] == "Feature":
        yield from _lists_of_rings(shape["geometry"])
    elif shape["type"] in ("Polygon", "MultiPolygon"):
        parts = shape.get("arcs") or shape["coordinates"]
        for polygon in parts if shape["type"] == "MultiPolygon" else [parts]:
            yield from polygon


def _arcs(data: dict[str, Any]) -> list[list[Point]]:
    """TopoJSON's arcs in degrees: each point is a step from the one before, in units of the transform."""
    (scale_x, scale_y), (left, bottom) = data["transform"]["scale"], data["transform"]["translate"]
    arcs = []
    for steps in data["arcs"]:
        x = y = 0
        arc: list[Point] = []
        for step_x, step_y in steps:
            x, y = x + step_x, y + step_y
            arc.append((x * scale_x + left, y * scale_y + bottom))
        arcs.append(arc)
    return arcs


def rows_of(shapes: Iterable[Ring], columns: int = COLUMNS, north: float = NORTH, south: float = SOUTH) -> list[int]:
    """The land between two latitudes, a number a row from the north, its highest bit at 180 W.

    Cells are squares of 360/``columns`` degrees. Even-odd rule: what lies within two rings is a hole.
    """
    across = columns * FINE
    size = 360 / across
    lines = [0] * (round((north - south) * columns / 360) * FINE)
    for ring in shapes:
        for at, crossings in _crossings(ring, north, size, len(lines)).items():
            for start, end in zip(crossings[::2], crossings[1::2]):
                lines[at] ^= _run(start, end, across)
    return [_cells(lines[at : at + FINE], columns) for at in range(0, len(lines), FINE)]


def _crossings(ring: Ring, north: float, size: float, count: int) -> dict[int, list[int]]:
    """Where the ring crosses the lines: for each line, from west to east, the first point at or east of the edge.

    A step of more than half the world goes the other way round, over 180 E: columns may be beyond the last.
    """
    found: dict[int, list[float]] = {}
    points = [*ring, ring[0]]
    x = points[0][0]
    for (_, y), (next_x, next_y) in pairwise(points):
        to_x = x + (next_x - x + 180) % 360 - 180
        low, high = min(y, next_y), max(y, next_y)
        first = max(0, _ceil((north - high) / size - 0.5))
        for at in range(first, min(count, _ceil((north - low) / size - 0.5))):
            share = (north - (at + 0.5) * size - y) / (next_y - y)
            found.setdefault(at, []).append(x + share * (to_x - x))
        x = to_x
    return {at: [_ceil((x + 180) / size - 0.5) for x in sorted(crossings)] for at, crossings in found.items()}


def _ceil(value: float) -> int:
    return -int(-value // 1)


def _run(start: int, end: int, across: int) -> int:
    """Bits ``start`` to ``end`` (without it) of a line, the first one highest; what is beyond the last goes round."""
    bits = 0
    for at in range(start // across * across, end, across):
        first, last = max(start, at) - at, min(end, at + across) - at
        bits |= ((1 << (last - first)) - 1) << (across - last)
    return bits


def _cells(lines: Sequence[int], columns: int) -> int:
    texts = [f"{line:0{columns * FINE}b}" for line in lines]
    counts = (sum(text.count("1", at, at + FINE) for text in texts) for at in range(0, columns * FINE, FINE))
    return int("".join("1" if count >= ENOUGH else "0" for count in counts), 2)


def packed(rows: Sequence[int], columns: int = COLUMNS) -> str:
    """Rows as text: each as what changed from the row above (a third smaller), in bytes; deflated; in base 85."""
    changes = (row ^ above for row, above in zip(rows, [0, *rows]))
    plain = b"".join(change.to_bytes((columns + 7) // 8, "big") for change in changes)
    return base64.b85encode(zlib.compress(plain, 9)).decode()


def module(text: str) -> str:
    """The source of land.py."""
    lines = "".join(f'    "{text[at : at + 110]}"\n' for at in range(0, len(text), 110))
    return f'''"""The world's land, a bit for each half degree.

Made by scripts/make_land.py from Natural Earth 4.1.0, Land, 1:50m (public domain, naturalearthdata.com).
Rows from the north, cells from 180 W; each row as what changed from the one above, deflated, in base 85.
"""

COLUMNS, ROWS = {COLUMNS}, {ROWS}
NORTH, SOUTH = {NORTH}, {SOUTH}  # degrees: the edges of the first row and of the last
PACKED = (
{lines})
'''


def main() -> None:
    parser = argparse.ArgumentParser(description="Make land.py from Natural Earth's land (TopoJSON or GeoJSON).")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", nargs="?", type=Path, default=TARGET)
    options = parser.parse_args()
    text = packed(rows_of(rings(json.loads(options.source.read_text()))))
    options.target.write_text(module(text))
    print(f"{options.target}: {len(text)} characters")


if __name__ == "__main__":
    main()
