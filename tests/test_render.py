"""Frames: their size, what may stand in them, what must not be cut."""

from __future__ import annotations

import re
from itertools import chain, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from columns import MOST_IMPORTANT, VIEWS, ViewSpec, fit
from keys import BINDINGS, press
from render import FIXED, _wanted_columns
from support.strategies import keys, monitors, sizes
from support.tables import LONG, Monitor, event, feed, is_well_formed, line, listing, many, shown, width_of
from text import ASCII

# --- any frame --------------------------------------------------------------------------------------------------------


@given(monitors(), sizes)
@settings(max_examples=120, deadline=None)
def test_any_table_in_any_view_at_any_size(monitor: Monitor, size: tuple[int, int]) -> None:
    is_well_formed(monitor, *size)


@given(monitors(), st.lists(st.tuples(keys, sizes), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_keys_and_sizes_that_change_together(monitor: Monitor, steps: list[tuple[str, tuple[int, int]]]) -> None:
    for key, size in steps:
        press(monitor.view, monitor.table, key)
        is_well_formed(monitor, *size)
        monitor.refresh(1)
        is_well_formed(monitor, *size)


def test_every_size_up_to_a_small_terminal() -> None:
    monitor = many()
    for overlay in ("", "help", "details"):
        monitor.view.overlay = overlay
        monitor.view.selected = monitor.view.rows.order[3]
        for width in range(1, 90, 3):
            for height in range(1, 30, 2):
                is_well_formed(monitor, width, height)


def test_no_size_no_lines() -> None:
    assert many().frame(0, 0) == []


def test_the_command_lines_filter_can_not_hold_the_terminal() -> None:
    monitor = many()
    monitor.view.set_filter('"a\x1b[31mb"')
    monitor.refresh(1)
    is_well_formed(monitor, 80, 24)
    monitor.keys("/")
    is_well_formed(monitor, 80, 24)


# --- what is cut, and what is not -------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 140, 160, 200, 300])
@pytest.mark.parametrize("sport", [1, 65_535])
def test_numbers_are_whole_at_every_width(width: int, sport: int) -> None:
    """The largest there are: whole, or not there at all; a number that lost a digit would be another one."""
    huge = 2**64 - 1
    monitor = Monitor(
        [
            line(1, src=LONG, dst=LONG[:-1] + "7", sport=sport, dport=64_999, size=huge, timeout=2**32 - 1),
            line(
                2, src="255.255.255.255", dst="254.254.254.254", sport=sport, dport=64_999, size=huge, timeout=2**32 - 1
            ),
            line(3, reply_src="10.20.30.40", reply_dst="203.0.113.255", sport=sport, dport=64_999, size=123_456_789),
        ]
    )
    monitor.keys("n")
    monitor.refresh(3_000 * 86_400.0)
    title, head, *rows = [text for text in shown(monitor, (width, 40)) if text][2:-1]
    assert title.startswith("Connections")
    for row in rows[:3]:
        ports = re.findall(r":(\d+)(?=\s|$)", row.rstrip("█▏"))
        assert ports
        assert set(ports) <= {str(sport), "64999"}
        if width >= 80:
            assert ports[:2] == [str(sport), "64999"]
        for cell, title_of in ((huge * 2, "BYTES"), (2**32 - 1, "TIMEOUT")):
            if title_of in head and "192.0.2.1" not in row:
                assert {"BYTES": "37E", "TIMEOUT": "46710d"}[title_of] in row, cell
        if "AGE" in head:
            assert re.search(r"\b8y\b", row)


def test_the_name_of_a_port_gives_way_to_its_number() -> None:
    monitor = Monitor([line(1, dst=LONG, dport=5432), line(2, dst="192.0.2.7", dport=5432)])
    first, second = shown(monitor)[4:6]
    assert "]:5432 " in first
    assert "192.0.2.7:postgres" in second


def test_two_translated_ends_in_a_narrow_column() -> None:
    monitor = Monitor([line(1, reply_src="10.200.30.40", reply_dst="203.0.113.255", sport=40_000, dport=8080)])
    assert "both 10.200.30.40:8080 " in shown(monitor, (140, 24))[4]
    assert "snat 203.0.113.255:40000 dnat 10.200.30.40:8080 " in shown(monitor, (400, 24))[4]


# --- what is where ----------------------------------------------------------------------------------------------------


def test_80x24_has_what_matters() -> None:
    lines = shown(many())
    assert re.findall(r"\w+", lines[3]) == ["PROTO", "STATE", "SOURCE", "DESTINATION", "CC", "RATE", "BYTES", "AGE"]
    assert re.match(r"tcp +ESTABLISHED +10\.0\.0\.1:10060 +203\.0\.113\.60:https ", lines[4])
    assert lines[-1].startswith("? help  q quit  / filter  enter details")
    assert len(lines[4:-1]) == 19


def test_40x10_says_who_is_talked_to() -> None:
    lines = shown(many(), (40, 10))
    assert lines[-1] == "? help  q quit  / filter  enter details"
    assert "203.0.113.60:https" in lines[3]
    assert len([text for text in lines if "203.0.113." in text]) == 6


def test_20x5_says_who_is_talked_to() -> None:
    lines = shown(many(), (20, 5))
    assert "203.0.113.60:https" in lines[2]
    assert lines[-1] == "? help  q quit"
    monitor = Monitor([line(1, src=LONG, dst=LONG[:-1] + "7")])
    assert shown(monitor, (20, 5))[2] == "[2001:d…55:6667]:443"


@pytest.mark.parametrize("width", [14, 30, 45, 80, 81, 100])
def test_the_footer_has_whole_words(width: int) -> None:
    words = {f"{binding.keys[0]} {binding.brief}" for binding in BINDINGS if binding.brief}
    items = re.split(r"  +", shown(many(), (width, 24))[-1])
    assert items[0] == "? help"
    assert set(items) <= words


def test_the_sort_is_named_and_marked() -> None:
    monitor = many()
    assert "↓BYTES" in shown(monitor)[3]  # no column of an 80 cells wide screen, but the one it is sorted by is shown
    assert "sort bytes ↓" in shown(monitor)[2]
    assert "↓BYTES" in shown(monitor, (140, 24))[3]
    monitor.keys("r")
    assert "↑BYTES" in shown(monitor, (140, 24))[3]


def test_the_selected_row_is_on_screen_when_the_window_shrinks() -> None:
    monitor = many()
    monitor.frame(80, 40)
    monitor.keys("G", *["k"] * 40)
    lines = monitor.frame(80, 10)
    assert [text for text, role in chain(*lines) if role == "selected" and "203.0.113.41" in text]


def test_the_scroll_bar_is_at_its_ends_where_the_rows_are() -> None:
    monitor = many()
    bar = [text[-1] for text in shown(monitor)[4:-1]]
    assert (bar[0], bar[-1]) == ("█", "▏")
    monitor.keys("G")
    bar = [text[-1] for text in shown(monitor)[4:-1]]
    assert (bar[0], bar[-1]) == ("▏", "█")
    assert "█" not in "".join(shown(Monitor([line(1)]))[4:])


def test_pause_stands_before_what_may_be_long() -> None:
    monitor = many()
    monitor.keys("/", *("port:443 or " * 9 + "port:80").replace(" ", "_").split("_")[0], "enter", "p")
    feed(monitor.table, event("NEW", 99))
    monitor.refresh(1)
    assert "PAUSED, 1 events held" in shown(monitor, (40, 10))[1] or "PAUSED" in shown(monitor, (40, 10))[1]
    assert "PAUSED, 1 events held" in shown(monitor)[2]


def test_rows_on_screen_do_not_change_in_a_pause() -> None:
    monitor = many(5)
    monitor.keys("p")
    before = monitor.frame(200, 24)[4:-1]
    feed(monitor.table, event("DESTROY", 5) + event("UPDATE", 4, state="TIME_WAIT"), 101.0)
    listing(monitor.table, [line(n, size=n * 7_000_000, state="CLOSE") for n in range(1, 4)], 102.0)
    monitor.refresh(30)
    assert monitor.frame(200, 24)[4:-1] == before
    monitor.keys("p")
    assert monitor.frame(200, 24)[4:-1] != before


def test_states_and_change_carry_colour() -> None:
    monitor = Monitor([line(1, dst="192.0.2.1", state="SYN_SENT"), line(2, dst="192.0.2.2")])
    feed(monitor.table, event("NEW", 3, dst="192.0.2.3") + event("DESTROY", 1, dst="192.0.2.1"), 100.5)
    monitor.refresh(1)
    roles = [{text.strip(): role for text, role in row} for row in monitor.frame(80, 24)[4:7]]
    of = {next(text[:9] for text in row if text.startswith("192.0.2.")): row for row in roles}
    assert (of["192.0.2.1"]["192.0.2.1:https"], of["192.0.2.1"]["ESTABLISHED"]) == ("closed", "closed")
    assert (of["192.0.2.2"]["192.0.2.2:https"], of["192.0.2.2"]["ESTABLISHED"]) == ("plain", "good")
    assert (of["192.0.2.3"]["192.0.2.3:https"], of["192.0.2.3"]["ESTABLISHED"]) == ("new", "good")


# --- overlays and the prompt ------------------------------------------------------------------------------------------


def test_the_prompt_shows_its_cursor_and_the_error() -> None:
    monitor = many()
    monitor.keys("/", *"protx:icmp")
    footer = monitor.frame(80, 24)[-1]
    assert ("protx:icmp", "plain") in footer
    assert (" ", "cursor") in footer
    assert [text for text, role in footer if role == "bad" and "protx" in text]


@pytest.mark.parametrize("width", [10, 20, 40, 80])
@pytest.mark.parametrize("letter", ["a", "漢"])
def test_the_cursor_of_a_long_filter_stays_on_screen(width: int, letter: str) -> None:
    monitor = many()
    monitor.keys("/", *[letter] * 120, *["left"] * 30)
    footer = monitor.frame(width, 24)[-1]
    assert [text for text, role in footer if role == "cursor"] == [letter]
    assert width_of(footer) <= width


# --- the rest ---------------------------------------------------------------------------------------------------------


def test_ascii_terminals_get_ascii() -> None:
    monitor = many()
    monitor.glyphs = ASCII
    monitor.status.facts = {"count": 5, "max": 10}
    for pressed in ([], ["j", "enter"], ["?"], ["/", *"nosuch:1"]):
        monitor.keys(*pressed)
        for size in ((80, 24), (40, 10), (20, 5), (200, 50)):
            assert "".join(shown(monitor, size)).isascii()
        monitor.keys("esc")


@pytest.mark.parametrize("width", [40, 80, 100, 140, 200])
@pytest.mark.parametrize("kind", [kind for kind in VIEWS if not kind.on_map], ids=lambda kind: kind.name)
def test_each_key_to_the_right_shows_others_until_all_were_seen(kind: ViewSpec, width: int) -> None:
    monitor = Monitor([line(n) for n in range(3)])
    monitor.view.show(kind.name)
    rows = [[column.key for column, _ in fit(width, _wanted_columns(monitor.view, width)[0])]]
    for _ in range(40):
        monitor.keys("right")
        monitor.frame(width, 24)
        rows.append([column.key for column, _ in fit(width, _wanted_columns(monitor.view, width)[0])])
    steps = monitor.view.shift
    assert all(one != other for one, other in pairwise(rows[: steps + 1]))
    assert all(row == rows[steps] for row in rows[steps:])
    fixed = {column.key for column in kind.columns if column.key in FIXED or column.rank == MOST_IMPORTANT}
    assert all(set(rows[0]) & fixed <= set(row) for row in rows)  # whose row it is stays
    fits = {column.key for column in kind.columns if column.least < width - 30 and column.key != "natkind"}
    assert {key for row in rows for key in row} >= fits - fixed
    monitor.keys(*["left"] * 40)
    assert monitor.view.shift == 0


@given(monitors(), st.sampled_from(VIEWS), st.tuples(st.integers(1, 220), st.integers(1, 60)))
@settings(max_examples=150, deadline=None)
def test_any_table_in_every_view_at_any_size(monitor: Monitor, kind: Any, size: tuple[int, int]) -> None:
    monitor.view.show(kind.name)
    monitor.refresh()
    is_well_formed(monitor, *size)
    for sort in kind.sorts:
        monitor.view.sort = sort
        monitor.refresh()
        is_well_formed(monitor, *size)
