"""The map: the world is where it is, spots are where they belong, whatever the window; the script that makes the land."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

import make_land

import land
import worldmap
from text import ROLES, Line, cells, clean, length
from worldmap import CHOSEN, HEAVY, LIGHT, MIDDLE, Spot, cell_of, shore, world

ROOT = Path(__file__).parent.parent
BERLIN = (52.52, 13.40)
SIZES = [(40, 10), (80, 20), (80, 24), (200, 46), (300, 20), (60, 60)]
BRAILLE = {chr(0x2800 + bits) for bits in range(1, 256)}


def text_of(line: Line) -> str:
    return "".join(text for text, _ in line)


def texts(lines: list[Line]) -> list[str]:
    return [text_of(line) for line in lines]


def spans_with(lines: list[Line], *roles: str) -> list[tuple[int, int, str, str]]:
    """Row, first cell, text and role of all spans with these roles."""
    found = []
    for row, line in enumerate(lines):
        at = 0
        for text, role in line:
            if role in roles:
                found.append((row, at, text, role))
            at += cells(text)
    return found


def land_at(latitude: float, longitude: float, columns: int, rows: int, ascii_only: bool = False) -> str:
    at = cell_of(latitude, longitude, columns, rows)
    assert at is not None
    return shore(columns, rows, ascii_only)[at[0]][at[1]]


# --- the land ---------------------------------------------------------------------------------------------------------

# Pairs on both sides of coasts: a map that is mirrored, moved or upside down fails.
ASHORE = {
    "Sahara": (23, 10),
    "Siberia": (62, 100),
    "Kansas": (38, -98),
    "Amazon": (-5, -60),
    "Outback": (-25, 134),
    "Greenland": (72, -40),
    "Madrid": (40.4, -3.7),
    "Chukotka, beyond 180": (66.7, -178),
    "Cape Town": (-33.3, 19.5),
    "Ireland": (53, -8),
}
AFLOAT = {
    "mid-Pacific": (0, -150),
    "mid-Atlantic": (30, -45),
    "Indian Ocean": (-30, 80),
    "Caspian Sea": (42, 50.7),
    "Gulf of Mexico": (25, -90),
    "Bay of Biscay": (45.5, -6),
    "Hudson Bay": (60, -86),
    "south of Australia": (-38, 130),
    "south of Africa": (-38, 20),
    "Drake Passage": (-56.8, -65),
}


@pytest.mark.parametrize("name", ASHORE)
def test_land_is_land(name: str) -> None:
    assert land_at(*ASHORE[name], 360, 71) != " "
    assert land_at(*ASHORE[name], 360, 71, ascii_only=True) == "."


@pytest.mark.parametrize("name", AFLOAT)
def test_sea_is_sea(name: str) -> None:
    assert land_at(*AFLOAT[name], 360, 71) == " "
    assert land_at(*AFLOAT[name], 360, 71, ascii_only=True) == " "


@pytest.mark.parametrize(("columns", "rows"), [(40, 10), (80, 20), (200, 46)])
def test_small_maps_look_like_the_world(columns: int, rows: int) -> None:
    for name in ("Sahara", "Siberia", "Kansas", "Amazon", "Outback", "Greenland"):
        assert land_at(*ASHORE[name], columns, rows) == "⣿", name
        assert land_at(*ASHORE[name], columns, rows, ascii_only=True) == ".", name
    for name in ("mid-Pacific", "mid-Atlantic", "Indian Ocean"):
        assert land_at(*AFLOAT[name], columns, rows) == " ", name
    if columns >= 80:  # 5 degrees wide, it has no dot of its own at 40
        assert land_at(*AFLOAT["Caspian Sea"], columns, rows) != "⣿"


def test_islands_do_not_vanish() -> None:
    for name, at in {"Hawaii": (20, -156), "Canaries": (28.3, -15.6), "Fiji": (-17.8, 178)}.items():
        assert land_at(*at, 80, 20) != " ", name
    assert land_at(20, -156, 40, 10) != " "
    for name, at in {"Azores": (37.8, -25.4), "Mauritius": (-20.3, 57.6), "Tahiti": (-17.6, -149.4)}.items():
        assert land_at(*at, 360, 71) != " ", name


# --- spots ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "height", "row", "column"),
    # By hand: 193.4 of 360 degrees from the west, 31.48 of 141 from the north, of a map of
    [
        (80, 20, 4, 42),  # 80x20, all of the window
        (80, 24, 2 + 4, 42),  # 80x20 in the middle
        (200, 46, 10, 107),  # all of it
        (40, 30, 10 + 2, 21),  # 40x10
        (100, 10, 2, 22 + 30),  # 56x10
    ],
)
def test_a_city_is_in_its_cell(width: int, height: int, row: int, column: int) -> None:
    assert spans_with(world([Spot(*BERLIN, 1.0)], width, height, False), "accent") == [(row, column, "●", "accent")]
    assert spans_with(world([Spot(*BERLIN, 1.0)], width, height, True), "accent") == [(row, column, "@", "accent")]


def test_edges_of_the_world() -> None:
    corners = [(90.0, -180.0), (90.0, 180.0), (-90.0, -180.0), (-90.0, 180.0)]
    found = spans_with(world([Spot(*corner, 1.0) for corner in corners], 80, 20, False), "accent")
    assert [(row, at) for row, at, _, _ in found] == [(0, 0), (0, 79), (19, 0), (19, 79)]
    found = spans_with(world([Spot(*corner, 1.0) for corner in corners], 400, 100, False), "accent")
    assert [(row, at) for row, at, _, _ in found] == [(0, 0), (0, 399), (99, 0), (99, 399)]


def test_weights_of_a_cell_add_up_and_show_in_three_steps() -> None:
    tokyo, lagos, lima = (35.7, 139.7), (6.5, 3.4), (-12.0, -77.0)
    spots = [Spot(*tokyo, 30.0), Spot(*tokyo, 30.0), Spot(*lagos, 6.1), Spot(*lima, 5.9), Spot(*BERLIN, 30.0)]
    for ascii_only in (False, True):
        glyphs = {(g[ascii_only], g[2]) for g in (HEAVY, MIDDLE, LIGHT)}
        assert len({g for g, _ in glyphs}) == 3
        assert {role for _, role in glyphs} == {"accent"}  # one meaning a colour: how much
        found = spans_with(world(spots, 80, 20, ascii_only), "accent")
        shown = [(text, role) for _, _, text, role in found]
        steps = [HEAVY, HEAVY, MIDDLE, LIGHT]  # Berlin, Tokyo, Lagos, Lima, from the north
        assert shown == [(g[ascii_only], g[2]) for g in steps]


def test_what_has_no_weight_is_light_and_still_there() -> None:
    for weight in (0.0, -1.0, float("nan"), float("inf"), float("-inf")):
        assert [found[2] for found in spans_with(world([Spot(*BERLIN, weight)], 80, 20, False), "accent")] == ["•"]
    heavy = [Spot(*BERLIN, 1.7e308), Spot(*BERLIN, 1.7e308), Spot(0, 0, 1.0)]  # their sum is infinite
    assert [found[2] for found in spans_with(world(heavy, 80, 20, False), "accent")] == ["●", "•"]


def test_what_is_no_place_is_left_out() -> None:
    nan, inf = float("nan"), float("inf")
    places = [(nan, 0), (0, nan), (inf, 0), (0, -inf), (90.1, 0), (0, 180.1), (-91, 0), (0, -1e300)]
    assert world([Spot(*at, 1.0, True, "x") for at in places], 80, 20, False) == world([], 80, 20, False)


@pytest.mark.parametrize(("width", "height"), [(0, 0), (0, 5), (5, 0), (-1, 3), (3, -1)])
def test_no_window(width: int, height: int) -> None:
    assert world([Spot(*BERLIN, 1.0)], width, height, False) == [[] for _ in range(height)]


# --- the label --------------------------------------------------------------------------------------------------------


def label_of(at: tuple[float, float], label: str, width: int = 80, ascii_only: bool = False) -> tuple[int, str]:
    (_, column, text, _), *more = spans_with(world([Spot(*at, 1.0, True, label)], width, 20, ascii_only), "selected")
    assert not more
    return column, text


def test_the_label_is_beside_its_spot() -> None:
    assert label_of(BERLIN, "Berlin") == (42, "◆ Berlin")
    assert label_of(BERLIN, "Berlin", ascii_only=True) == (42, "X Berlin")
    assert label_of(BERLIN, "") == (42, "◆")


def test_the_label_goes_to_the_left_at_the_right_edge() -> None:
    auckland = (-36.8, 174.8)  # column 78
    assert label_of(auckland, "Auckland") == (78 - 9, "Auckland ◆")
    assert label_of(auckland, "東京") == (78 - 5, "東京 ◆")


def test_a_label_without_room_is_cut_and_says_so() -> None:
    column, text = label_of(BERLIN, "x" * 100)
    assert (column, cells(text)) == (0, 43)
    assert text.endswith("x… ◆")
    column, text = label_of((6.5, 3.4), "x" * 100, ascii_only=True)  # column 40: as much room on the left
    assert text.endswith("~ X")
    assert label_of(BERLIN, "Berlin", width=2) == (1, "◆")


def test_a_label_is_made_safe() -> None:
    assert label_of(BERLIN, "Ber\x1b[31m\u202elin\n") == (42, "◆ Ber[31mlin")


def test_the_selected_spot_is_seen_among_others_and_over_heavier_ones() -> None:
    spots = [Spot(*BERLIN, 99.0), Spot(50.1, 14.4, 9.0), Spot(*BERLIN, 1.0, True, "Berlin"), Spot(50.5, 21.0, 9.0)]
    assert [text for _, _, text, _ in spans_with(world(spots, 80, 20, False), "selected")] == ["◆ Berlin"]
    assert spans_with(world(spots, 80, 20, False), "good", "accent", "warn") == []  # below it, Warsaw below the label


# --- any window, any spots --------------------------------------------------------------------------------------------

degrees = st.one_of(st.floats(), st.floats(-200, 200), st.integers(-(10**400), 10**400))
spot = st.builds(Spot, degrees, degrees, st.floats(), st.booleans(), st.text(max_size=30))


@given(
    spots=st.lists(spot, max_size=12),
    width=st.integers(-2, 130),
    height=st.integers(-2, 40),
    ascii_only=st.booleans(),
)
def test_any_frame_fits(spots: list[Spot], width: int, height: int, ascii_only: bool) -> None:
    lines = world(spots, width, height, ascii_only)
    assert len(lines) == max(0, height)
    assert all(length(line) <= max(0, width) for line in lines)
    assert {role for line in lines for _, role in line} <= set(ROLES)
    glyphs = {g[ascii_only] for g in (HEAVY, MIDDLE, LIGHT)}
    labels = {clean(spot.label) for spot in spots}
    for line in lines:
        for text, role in line:
            if role == "dim":
                assert set(text) <= ({" ", "."} if ascii_only else {" "} | BRAILLE)
            elif role == "selected":
                assert set(text) <= {CHOSEN[ascii_only], " ", "~" if ascii_only else "…"}.union(*labels)
                assert clean(text) == text
            else:
                assert text in glyphs


@given(
    spots=st.lists(
        st.builds(Spot, st.floats(-90, 90), st.floats(-180, 180), st.floats(0, 9), st.just(False)), max_size=12
    ),
    size=st.sampled_from(SIZES),
    ascii_only=st.booleans(),
)
def test_spots_change_nothing_but_their_cells(spots: list[Spot], size: tuple[int, int], ascii_only: bool) -> None:
    bare, shown = texts(world([], *size, ascii_only)), texts(world(spots, *size, ascii_only))
    glyphs = {g[ascii_only] for g in (HEAVY, MIDDLE, LIGHT)}
    marked = 0
    for before, after in zip(bare, shown):
        for old, new in zip(before.ljust(size[0]), after.ljust(size[0])):
            marked += new in glyphs
            assert new == old or new in glyphs
    columns, rows = worldmap.size(*size)
    assert marked == len({cell_of(s.latitude, s.longitude, columns, rows) for s in spots})


@given(width=st.integers(1, 400), height=st.integers(1, 120))
def test_the_map_keeps_its_shape(width: int, height: int) -> None:
    columns, rows = worldmap.size(width, height)
    assert 1 <= columns <= width
    assert 1 <= rows <= height
    assert columns == width or rows == height
    if rows > 1:
        assert 4.0 <= columns / rows <= 6.0 or rows < 10  # whole cells: small ones can't be exact


# --- the script that makes land.py ------------------------------------------------------------------------------------

RING = [(-35, 25), (35, 25), (35, -25), (-35, -25), (-35, 25)]
HOLE = [(-15, 5), (15, 5), (15, -15), (-15, -15), (-15, 5)]


def geojson(*polygons: list[list[tuple[int, int]]]) -> dict[str, Any]:
    geometry = {"type": "MultiPolygon", "coordinates": polygons}
    return {"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {}, "geometry": geometry}]}


def picture(data: dict[str, Any]) -> list[str]:
    """Cells of ten degrees, 30 N to 30 S."""
    rows = make_land.rows_of(make_land.rings(data), 36, 30, -30)
    return [f"{row:036b}".replace("0", ".").replace("1", "#") for row in rows]


def test_a_polygon_with_a_hole() -> None:
    # Half of a cell is land all around: more than ENOUGH. Of the hole the whole cells are sea, the halves at its edge land.
    assert picture(geojson([RING, HOLE])) == [
        "..............########..............",
        "..............########..............",
        "..............########..............",
        "..............###..###..............",
        "..............########..............",
        "..............########..............",
    ]


@pytest.mark.parametrize("west", [170, -190])
def test_over_the_date_line(west: int) -> None:
    """Natural Earth's are cut there, but who stitches them has steps from 180 to -180."""
    ring = [(west, 20), (-170, 20), (-170, -20), (west, -20), (west, 20)]
    assert picture(geojson([ring])) == ["." * 36, *["#" + "." * 34 + "#"] * 4, "." * 36]


def test_topojson_is_the_same() -> None:
    """Arcs in steps of 5 degrees from 180 W, 90 S; one of the two that make the shell is walked backwards."""
    data = {
        "type": "Topology",
        "transform": {"scale": [5, 5], "translate": [-180, -90]},
        "objects": {
            "land": {"type": "GeometryCollection", "geometries": [{"type": "Polygon", "arcs": [[0, ~1], [2]]}]}
        },
        "arcs": [
            [[29, 23], [14, 0], [0, -10]],
            [[29, 23], [0, -10], [14, 0]],
            [[33, 19], [6, 0], [0, -4], [-6, 0], [0, 4]],
        ],
    }
    assert picture(data) == picture(geojson([RING, HOLE]))


@pytest.fixture
def fresh() -> Iterator[None]:
    """No land of another test is remembered, nor this one's afterwards."""

    def forget() -> None:
        shore.cache_clear()
        worldmap._world.cache_clear()

    forget()
    yield
    forget()


@pytest.mark.usefixtures("fresh")
def test_what_the_script_writes_is_what_the_map_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "made_up.geojson", tmp_path / "land.py"
    east = [(0, 84), (180, 84), (180, -57), (0, -57), (0, 84)]
    sea = [(90, 60), (135, 60), (135, 0), (90, 0), (90, 60)]
    source.write_text(json.dumps(geojson([east, sea])))
    script = [sys.executable, str(ROOT / "scripts" / "make_land.py"), str(source), str(target)]
    subprocess.run(script, check=True, capture_output=True, timeout=60)
    made = runpy.run_path(str(target))
    assert {name for name in made if name.isupper()} == {"COLUMNS", "ROWS", "NORTH", "SOUTH", "PACKED"}
    monkeypatch.setattr(land, "PACKED", made["PACKED"])
    rows = shore(80, 20, True)
    assert rows[0] == rows[19] == " " * 40 + "." * 40
    assert rows[8] == " " * 40 + "." * 20 + " " * 10 + "." * 10


def test_land_is_as_the_script_writes_it() -> None:
    """Nobody has changed it by hand."""
    assert (ROOT / "land.py").read_text() == make_land.module(land.PACKED)
    assert len(worldmap._world()) == land.ROWS


def test_the_legend_says_what_each_glyph_stands_for() -> None:
    spots = [Spot(*BERLIN, 200.0), Spot(0.0, 0.0, 30.0), Spot(-30.0, 20.0, 1.0)]
    lines = world(spots, 80, 20, False, lambda weight: f"{weight:.0f} flows")
    assert len(lines) == 20
    assert text_of(lines[-1]) == "  ● from 100 flows  ◉ from 20 flows  • less  ◆ selected"
    assert spans_with(lines[:-1], "accent")  # the same glyphs in the same colour on the map
    assert text_of(world(spots, 80, 20, True, str)[-1]).startswith("  @ from 100.0  O from 20.0  o less  X sel")
    assert text_of(world(spots, 30, 20, False, lambda _w: "7 flows")[-1]) == "  ● from 7 flows"
    small = world(spots, 80, 9, False, str)
    assert small == world(spots, 80, 9, False)
