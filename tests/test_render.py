"""Frames: their size, what may stand in them, what must not be cut."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addresses import NOWHERE, UNNAMED, Context, Detail, Lookups, Named, Place, Site
from columns import MOST_IMPORTANT, VIEWS, ViewSpec, fit, table_text, tabs
from flows import Flow
from grouping import UsageRow
from health import Shares, Surroundings, UsedDatabase
from intake import Problem, Statistics
from keyboard import Button, Mouse
from keys import BINDINGS, point, press
from render import FIXED, _wanted_columns, frame
from support.strategies import keys, monitors, sizes
from support.tables import LONG, Monitor, event, feed, is_well_formed, line, listing, many, shown, width_of
from text import ASCII, Line, cells
from view import Dialog, LoggedUsage, Scene, View

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
    monitor = Monitor([line(1, src="2001:db8::1", dst=LONG, dport=5432), line(2, dst="192.0.2.7", dport=5432)])
    first, second = shown(monitor)[4:6]
    assert "]:5432 " in first
    assert "192.0.2.7:postgres" in second


def test_two_translated_ends_in_a_narrow_column() -> None:
    ends = {"sport": 40_000, "dport": 8080, "reply_src": "10.200.30.40"}
    other = line(9, src=LONG, dst=LONG[:-1] + "7")
    other += line(8, reply_dst="203.0.113.9")
    monitor = Monitor([line(1, reply_dst="203.0.113.255", **ends), other])  # type: ignore[arg-type]
    monitor.keys("c", "c", "c", "c")
    assert "both 10.200.30.40 " in shown(monitor, (130, 24))[4]
    monitor.view.needs = None
    assert "snat 203.0.113.255 dnat 10.200.30.40 " in shown(monitor, (400, 24))[4]


def translated(number: int, wan: str, port: int | None = None, **ends: str) -> str:
    """A flow that SNAT turns; ``port``: the one that it puts in."""
    text = line(number, dst=f"9.9.9.{number}", reply_dst=wan, **ends)  # type: ignore[arg-type]
    return text if port is None else re.sub(r"(dst=\S+ sport=443 )dport=\d+", rf"\1dport={port}", text)


def test_the_address_of_nat_stands_in_each_row_only_where_rows_differ_in_it() -> None:
    lines = [translated(1, "203.0.113.1"), translated(2, "203.0.113.1", 61_000), line(3), line(4, reply_src="10.9.0.9")]
    lines += [
        line(5, dst="203.0.113.1", dport=80)
        .replace("sport=80", "sport=8080")
        .replace("src=203.0.113.1 dst=10.0.0.1", "src=10.0.0.7 dst=10.0.0.1")
    ]
    monitor = Monitor(lines)

    def column(size: tuple[int, int] = (160, 24)) -> dict[str, str]:
        head, *rows = shown(monitor, size)[3:-1]
        start, end = head.index(" NAT") + 1, head.index("CC ")
        return {
            "": head[start:end].strip(),
            **{row[1:].split()[3]: row[start:end].strip() for row in rows if row[1:].startswith("tcp")},
        }

    assert column() == {
        "": "NAT 203.0.113.1",
        "9.9.9.1:https": "snat",
        "9.9.9.2:https": "snat :61000",
        "192.0.2.1:https": "dnat 10.9.0.9",
        "203.0.113.1:http": "dnat 10.0.0.7:8080",
    }
    feed(monitor.table, event("NEW", 6, dst="9.9.9.6", reply_dst="203.0.113.2"))
    monitor.refresh(2.0)
    assert column()[""] == "NAT"
    assert column()["9.9.9.1:https"] == "snat 203.0.113.1"
    assert column()["9.9.9.2:https"] == "snat 203.0.113.1:61000"
    assert column()["9.9.9.6:https"] == "snat 203.0.113.2"


def test_what_is_printed_and_the_details_have_the_whole_address() -> None:
    monitor = Monitor([translated(1, "203.0.113.1")])
    flow = monitor.view.rows.order[0]
    assert "snat 203.0.113.1:10001" in table_text(monitor.view.spec, [flow], monitor.view.context)
    monitor.keys("enter")
    assert any("snat 203.0.113.1:10001" in text for text in shown(monitor))


# --- totals, curves, units --------------------------------------------------------------------------------------------


def test_the_last_line_has_the_total_of_what_is_on_show() -> None:
    monitor = many()
    assert re.split(r" +", shown(monitor, (110, 24))[-2].strip()) == ["total", "-", "3.7M", "37k"]
    monitor.keys("/", *"dst:203.0.113.0/29", "enter")
    lines = shown(monitor, (110, 24))
    head, total = lines[3], next(text for text in lines if text.strip().startswith("total"))
    assert total[: head.index("BYTES") + len("BYTES")].endswith(" 56k")  # twice 1,000 to 7,000
    assert not any(text.strip().startswith("total") for text in shown(monitor, (80, 14)))
    monitor.keys("/", "ctrl-u", *"dst:203.0.113.7", "enter")
    assert not any(text.strip().startswith("total") for text in shown(monitor, (110, 24)))


def test_the_total_of_groups_and_of_usage_stands_below_their_columns() -> None:
    monitor = network()
    monitor.keys("2")
    monitor.refresh(2.0)
    head, *rows = shown(monitor, (150, 24))[3:-1]
    total = next(text for text in rows if text.strip().startswith("total"))
    end = head.index("FLOWS") + len("FLOWS")
    flows = [int(text[:end].split()[-1]) for text in rows if text.strip() and not text.strip().startswith("total")]
    assert int(total[:end].split()[-1]) == sum(flows) == 13
    monitor = network()
    monitor.view.show("usage")
    known = [usage_row_of("10.0.0.5", "", 700_000), usage_row_of("10.0.0.6", "", 70_000)]
    monitor.view.usage = LoggedUsage(monitor.view.spec, known, False, [])
    monitor.refresh(1.0)
    total = next(text for text in shown(monitor, (140, 24)) if text.strip().startswith("total"))
    assert total.split() == ["total", "856k", "770k", "86k", "385k", "-", "2.3M", "14", "-", "-", "110000"]


def test_hosts_have_a_bar_for_each_listing() -> None:
    monitor = Monitor([line(1, size=1000), line(2, src="10.0.0.2", size=1000)])
    monitor.keys("2")
    for second in range(1, 6):
        now = 100.0 + 5 * second
        monitor.table.begin_listing(now)
        feed(monitor.table, line(1, size=1000 + 100_000 * second) + line(2, src="10.0.0.2", size=1000), now)
        monitor.table.end_listing(True, now)
        if second == 3:  # nobody looks
            monitor.now += 5.0
            continue
        monitor.refresh(5.0)
    rows = [text for text in shown(monitor, (140, 24)) if text.startswith("10.0.0.")]
    assert rows[0].startswith("10.0.0.1 ")
    assert re.search(r"% [ \d]+ [▁-█]{2} [▁-█]{2} ", rows[0]), rows
    assert re.search(r"% [ \d]+ ▁{2} ▁{2} ", rows[1]), rows
    monitor.keys("/", *"near:10.0.0.1", "enter")
    assert not re.search(r"% [ \d]+ [▁-█]+ [▁-█]", shown(monitor, (140, 24))[4])
    assert "LAST RATES" not in table_text(monitor.view.spec, monitor.view.rows.order, monitor.view.context)


def test_b_turns_rates_to_bits_and_says_so() -> None:
    monitor = network()
    head, first = shown(monitor, (140, 30))[3:5]
    top = shown(monitor, (140, 30))[0]
    assert " RATE " in head.replace("↓", " ")
    assert " 8.0M/s " in first
    assert "in 6.0MB/s" in top
    monitor.keys("b")
    lines = shown(monitor, (140, 30))
    assert "↓BIT/s " in lines[3]
    assert " 64M/s " in lines[4]
    assert lines[4].split()[-4:] == first.split()[-4:]
    assert "in  48Mbit/s" in lines[0]
    assert lines[-1].startswith("Rates are in bits per second")
    monitor.keys("2")
    assert re.search("↓BIT/s IN-BIT OUTBIT", shown(monitor, (140, 30))[3])
    monitor.keys("1")
    monitor.view.select(0)
    monitor.keys("enter")
    assert any("bit/s" in text for text in shown(monitor, (80, 30))[3:])
    monitor.keys("b")
    assert not any("bit/s" in text for text in shown(monitor, (80, 30)))


def test_a_list_of_places_stands_beside_a_wide_map() -> None:
    monitor = network()
    monitor.keys("8")
    monitor.refresh(2.0)
    beside = [text.rpartition("▏")[2].strip() for text in shown(monitor, (120, 24))[3:-1]]
    assert [re.sub(" +", " ", text) for text in beside[:4]] == [
        *("PLACE FLOWS", "Berlin DE 4", "Mountain View US 4", "United States 2"),
    ]
    area = next(area for area in monitor.view.areas if area.y == 4)
    assert area.left > 120 - 40
    point(monitor.view, monitor.table, Mouse(Button.PRESSED, 110, 4))
    assert monitor.view.selected is not None
    assert monitor.view.selected == area.what
    monitor.keys("t", "b")
    beside = [text.rpartition("▏")[2].strip() for text in shown(monitor, (120, 24))[3:-1]]
    assert re.sub(" +", " ", beside[0]) == "PLACE BIT/s"
    assert re.sub(" +", " ", beside[1]) == "Berlin DE 64M/s"
    assert "PLACE" not in "".join(shown(monitor, (119, 24)))


GUTTER = {"9.9.9.1": " ", "9.9.9.2": "+", "9.9.9.3": "×"}


def test_a_gutter_says_what_is_new_and_what_is_closed() -> None:
    monitor = Monitor([line(1, dst="9.9.9.1"), line(3, dst="9.9.9.3")])
    feed(monitor.table, event("NEW", 2, dst="9.9.9.2", state="ESTABLISHED"), 100.0)
    feed(monitor.table, event("DESTROY", 3, dst="9.9.9.3"), 100.0)
    monitor.refresh(1.0)
    for width in (80, 48):
        rows = [spans for spans in monitor.frame(width, 24) if "9.9.9." in "".join(text for text, _ in spans)]
        found = {re.findall(r"9\.9\.9\.\d", "".join(text for text, _ in spans))[0]: spans for spans in rows}
        assert {address: spans[0][0] for address, spans in found.items()} == GUTTER
        assert found["9.9.9.2"][0][1] == "new"
        assert "new" not in {role for _, role in found["9.9.9.2"][1:]}  # that colour means nothing else
        assert {role for _, role in found["9.9.9.3"]} == {"closed"}
    monitor.glyphs = ASCII
    assert {text[0] for text in shown(monitor) if "9.9.9." in text} == {" ", "+", "x"}
    assert not any(text.startswith(("+", "x", " ")) for text in shown(monitor, (47, 24)) if "9.9.9." in text)


def test_a_click_on_a_head_meets_its_column_beside_the_gutter() -> None:
    monitor = many()
    head = shown(monitor, (120, 24))[3]
    point(monitor.view, monitor.table, Mouse(Button.PRESSED, head.index("PROTO"), 3))
    assert monitor.view.sort == "proto"
    point(monitor.view, monitor.table, Mouse(Button.PRESSED, head.index("DESTINATION") + 10, 3))
    assert monitor.view.sort == "destination"


# --- what is where ----------------------------------------------------------------------------------------------------


def test_80x24_has_what_matters() -> None:
    lines = shown(many())
    assert re.findall(r"\w+", lines[3]) == ["PROTO", "STATE", "SOURCE", "DESTINATION", "CC", "RATE", "BYTES", "AGE"]
    assert re.match(r" tcp +ESTABLISHED +10\.0\.0\.1:10060 +203\.0\.113\.60:https ", lines[4])
    assert lines[-1].startswith("? help  q quit  / filter  enter details")
    assert len(lines[4:-1]) == 19
    assert lines[-2].startswith(" total ")


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
    monitor = many()
    words = {f"{binding.keys[0]} {binding.brief}" for binding in BINDINGS if binding.brief}
    words |= {f"{key} {brief}" for key, brief in monitor.view.spec.hints}
    items = re.split(r"  +", shown(monitor, (width, 24))[-1])
    assert items[0] == "? help"
    assert set(items) <= words


TABS_OF = {
    60: r"(1234567890|9Sta 0Use)$",
    80: r"(1Con 2Hos 3Cty 4Net 5Svc 6NAT 7Evt 8Map 9Sta 0Use|^Map .* 1234567890)$",  # the map counts hosts and flows
    140: r"1Connections 2Hosts 3Countries .* 0Usage$",
}


@pytest.mark.parametrize("width", TABS_OF)
def test_the_views_and_their_keys_are_in_sight(width: int) -> None:
    monitor = many()
    for spec in tabs(several=False):
        monitor.keys(spec.key)
        title = shown(monitor, (width, 24))[2]
        assert title.startswith(spec.title)
        assert re.search(TABS_OF[width], title), title


@pytest.mark.parametrize("width", [60, 80, 140])
def test_neither_a_message_nor_a_filter_pushes_the_keys_of_the_views_away(width: int) -> None:
    monitor = many()
    monitor.keys("/", *"port:443,80,8080,8443,1-65535", "enter", "t")
    lines = shown(monitor, (width, 24))
    assert monitor.view.message
    assert lines[-1].startswith(monitor.view.message)
    assert monitor.view.message not in lines[2]
    assert re.search(r"1(234567890|Con .* 0Use)$", lines[2])
    assert "of 60" in lines[2]
    monitor.keys("j")
    assert shown(monitor, (width, 24))[-1].startswith("? help  q quit  / filter")


def test_a_message_is_seen_where_there_is_no_footer() -> None:
    monitor = many()
    assert len(shown(monitor, (40, 4))[-1]) > len("? help")
    monitor.keys("t")
    assert shown(monitor, (40, 4))[-1].startswith("t works in Hosts")
    assert "".join(shown(monitor, (40, 12))[-2:]).startswith("t works in Hosts (local/remote) and Map(flows/rate)")


def test_the_footer_names_what_keys_do_in_this_view() -> None:
    known = {key for binding in BINDINGS for key in binding.keys}
    monitor = many()
    for spec in VIEWS:
        monitor.view.show(spec.name)
        footer = shown(monitor, (200, 24))[-1]
        assert footer.startswith("? help  q quit  / filter")
        for key, brief in spec.hints:
            assert key in known
            assert f"  {key} {brief}" in footer, spec.name


def test_the_sort_is_named_and_marked() -> None:
    monitor = many()
    assert "↓BYTES" in shown(monitor)[3]  # no column of an 80 cells wide screen, but the one it is sorted by is shown
    assert "sort bytes ↓" in shown(monitor, (100, 24))[2]  # in 80 cells the names of the views come first
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
    bar = [text[-1] for text in shown(monitor)[4:-2]]
    assert (bar[0], bar[-1]) == ("█", "▏")
    monitor.keys("G")
    bar = [text[-1] for text in shown(monitor)[4:-2]]
    assert (bar[0], bar[-1]) == ("▏", "█")
    assert "█" not in "".join(shown(Monitor([line(1)]))[4:])


def test_pause_stands_before_what_may_be_long() -> None:
    monitor = many()
    monitor.keys("/", *("port:443 or " * 9 + "port:80").replace(" ", "_").split("_")[0], "enter", "p")
    feed(monitor.table, event("NEW", 99))
    monitor.refresh(1)
    assert "PAUSED · 1 events waiting" in shown(monitor, (40, 10))[1] or "PAUSED" in shown(monitor, (40, 10))[1]
    assert "PAUSED · 1 events waiting" in shown(monitor)[2]


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
    assert (of["192.0.2.3"]["192.0.2.3:https"], of["192.0.2.3"]["ESTABLISHED"]) == ("plain", "good")
    assert (of["192.0.2.1"]["×"], of["192.0.2.3"]["+"]) == ("closed", "new")


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
    fits = {
        column.key
        for column in kind.columns
        if column.least < width - 30 and column.key != "natkind" and not column.only_with
    }
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


# --- whole screens, cell by cell: what is on show of one small network, in every view, at every size, in every mood ---


PICTURES = Path(__file__).parent / "screens"
LETTERS = {
    **{"plain": " ", "dim": "d", "accent": "a", "good": "g", "warn": "w", "bad": "b", "head": "h", "title": "t"},
    **{"selected": "S", "key": "k", "new": "n", "closed": "c", "nat": "N", "cursor": "C"},
}
GOOGLE, GERMAN, SIX = "8.8.8.8", "9.9.9.9", "2606:4700::1111"
LAN, LAN2, ROUTER, WAN = "192.168.1.9", "192.168.1.77", "192.168.1.1", "203.0.113.1"
PLACES = {
    GOOGLE: Place("US", "United States", "Mountain View", 15169, "Google LLC"),
    GERMAN: Place("DE", "Germany", "Berlin", 19281, "Quad9 with a long name of its own"),
    SIX: Place("US", "United States", None, 13335, "Cloudflare"),
}
SPOTS = {GOOGLE: (37.4, -122.1), GERMAN: (52.5, 13.4), SIX: (-33.9, 151.2)}

pytestmark = pytest.mark.usefixtures("_utc")


def picture(lines: list[Line]) -> str:
    out = []
    for spans in lines:
        out.append(("  " + "".join(text for text, _ in spans)).rstrip())
        roles = "".join(LETTERS[role] * cells(text) for text, role in spans).rstrip()
        out += ["~ " + roles] if roles else []
    return "\n".join(out) + "\n"


def detail(address: str) -> Detail:
    place = PLACES.get(address, NOWHERE)
    if place is NOWHERE:
        return Detail()
    north, east = SPOTS[address]
    city = place.city is not None
    return Detail(
        place,
        "California" if address == GOOGLE else None,
        north if city else None,
        east if city else None,
        "8.8.8.0/24" if address == GOOGLE else None,
        "9.9.9.0/24" if address == GERMAN else None,
        ("DBIP-City-Lite 2026-11", "DBIP-ASN-Lite 2026-11"),
    )


ICMP = (
    "ipv4     2 icmp     1 29 src=192.168.1.9 dst=8.8.8.8 type=8 code=0 id=7 packets=3 bytes=252 src=8.8.8.8 dst=203.0.113.1 "
    "type=0 code=0 id=7 packets=3 bytes=252 mark=0 use=1 id=31\n"
)
GRE = (
    "ipv4     2 gre      47 179 src=192.168.1.9 dst=9.9.9.9 srckey=0x0 dstkey=0x1234 src=9.9.9.9 dst=192.168.1.9 srckey=0x1234 "
    "dstkey=0x0 [ASSURED] mark=0 use=1 id=32\n"
)
UDP = (
    "ipv4     2 udp      17 25 src=192.168.1.77 dst=192.168.1.1 sport=53000 dport=53 packets=1 bytes=60 [UNREPLIED] "
    "src=192.168.1.1 dst=192.168.1.77 sport=53 dport=53000 packets=0 bytes=0 mark=0 use=1 id=33\n"
)
OFFLOADED = (
    "ipv4     2 tcp      6 src=192.168.1.9 dst=9.9.9.9 sport=40000 dport=8883 packets=10 bytes=99999 src=9.9.9.9 dst=192.168.1.9 "
    "sport=8883 dport=40000 packets=9 bytes=1234567 [OFFLOAD] mark=0 use=2 id=34\n"
)
ESP = "ipv6     10 unknown  50 599 src=fd00::9 dst=2606:4700::1111 src=2606:4700::1111 dst=fd00::9 mark=0 use=1 id=35\n"
FULL = (
    "ipv4     2 tcp      6 431999 ESTABLISHED src=192.168.1.9 dst=8.8.8.8 sport=50000 dport=443 zone-orig=5 packets=6 bytes={0} "
    "src=8.8.8.8 dst=203.0.113.1 sport=443 dport=40001 zone-reply=6 packets=7 bytes={1} [ASSURED] mark=17 secmark=8 secctx=a b "
    "zone=3 delta-time=3700 [start=Thu Nov  5 00:00:00 2026] helper=ftp use=1 id=36 labels=web,voice call\n"
)


def uneven(text: str) -> str:
    """The same flow with three times as many bytes on the way back."""
    before, _, after = text.rpartition(" bytes=")
    number, _, rest = after.partition(" ")
    return f"{before} bytes={3 * int(number)} {rest}"


def lines_of(step: int) -> list[str]:
    """A listing; the second one, 4 s later, has other counters."""
    masq = {"reply_dst": WAN}
    plain = [
        line(11, src=LAN, dst=GOOGLE, sport=40011, size=5000 + step * 4000, **masq),  # type: ignore[arg-type]
        line(12, src=LAN2, dst=GERMAN, sport=40012, size=900_000 + step * 8_000_000, flags="", **masq),  # type: ignore[arg-type]
        line(13, src=GERMAN, dst=WAN, sport=40013, dport=80, size=12_000, reply_src=LAN2, reply_dst=GERMAN),
        line(14, src=GERMAN, dst=WAN, sport=40014, dport=22, size=1, reply_src=LAN, reply_dst=ROUTER, state="SYN_RECV"),
        line(15, src="fd00::9", dst=SIX, sport=40015, size=77_000_000 + step * 400),
        line(16, src=LAN, dst="192.168.1.200", sport=40016, dport=445, state="TIME_WAIT", size=30, timeout=100),
        line(17, src=LAN2, dst="100.64.0.9", sport=40017, dport=25565, flags="[UNREPLIED] ", state="SYN_SENT", size=60),
    ]
    return [*map(uneven, plain), ICMP, GRE, UDP, OFFLOADED, ESP, FULL.format(395 + step * 4, 697)]


KNOWN = {
    LAN: Named("laptop-anna", "02:00:5e:10:00:01"),
    LAN2: Named("", "02:00:5e:10:00:02", "web-db-1", "web/db"),
    SIX: Named("a-name-of-thirty-and-more-characters"),
}


def network(named: bool = False, **view: Any) -> Monitor:
    """A router's table, 20 s after the program's start: flows of every kind, three that ended, one that is new."""
    who = lambda address: KNOWN.get(address, UNNAMED) if named else UNNAMED  # noqa: E731
    monitor = Monitor()
    context = Context(
        Lookups(
            lambda address: PLACES.get(address, NOWHERE),
            detail,
            SPOTS.get,
            {LAN: "laptop", GOOGLE: "dns.google"}.get,
            who,
            knows_names=lambda: named,
        ),
        Site(marks={(17, 0xFF): "guests"}, zones={3: "office"}),
        now=100.0,
        own=frozenset({ROUTER, WAN}),
        epoch=lambda: 1_795_386_000.0,
    )
    monitor.view = View(context, **view)
    monitor.table.know_own(context.own)
    monitor.table.linger = 60.0
    listing(monitor.table, lines_of(0), 104.0)
    monitor.now = 108.0
    for number in range(2):
        feed(
            monitor.table,
            event("NEW", 41 + number, src=LAN, dst=GOOGLE, sport=41_041 + number, reply_dst=WAN, state="SYN_SENT"),
            106.0,
        )
    feed(monitor.table, event("UPDATE", 41, src=LAN, dst=GOOGLE, sport=41_041, reply_dst=WAN), 106.5)
    feed(
        monitor.table,
        event("DESTROY", 42, src=LAN, dst=GOOGLE, sport=41_042, reply_dst=WAN, size=2500, state="CLOSE"),
        107.0,
    )
    feed(
        monitor.table,
        event("NEW", 43, src=LAN2, dst=GERMAN, sport=41_043, flags="[UNREPLIED] ", state="SYN_SENT"),
        107.9,
    )
    monitor.table.tick(107.0)
    listing(
        monitor.table,
        [*lines_of(1)[:-3], *lines_of(1)[-2:], line(41, src=LAN, dst=GOOGLE, sport=41_041, size=700, reply_dst=WAN)],
        108.0,
    )
    monitor.status.facts = {"count": 14, "max": 1000, "acct": 1, "events": 2, "timestamp": 1}
    monitor.table.tick(108.0)
    monitor.refresh(1.0)
    return monitor


def trouble(monitor: Monitor) -> Monitor:
    """All that can be wrong."""
    status = monitor.status
    status.facts = {"count": 912, "max": 1000, "acct": 0, "events": 0, "timestamp": 0, "buckets": 512}
    status.losses, status.lost_at, status.last_loss, status.healed, status.resyncs = 3, 100.0, "events", 2, 1
    status.troubles = {
        "events": Problem("ssh: Connection closed", "ssh-add"),
        "listing": Problem(
            "not permitted: reading the connection table needs root or CAP_NET_ADMIN", "sudo, or --via sudo"
        ),
    }
    status.rejects, status.first_reject, status.backwards = 2, "what?", 1
    monitor.around = Surroundings(
        "settings ignored: line 3: unknown word 'x', in /root/.config/conntrack-monitor/config.toml",
        "recording ended: no space left on device",
        [("no database", "conntrack-monitor --update-geoip"), ("one is damaged", "")],
        ["IP Geolocation by DB-IP (https://db-ip.com), CC BY 4.0"],
    )
    status.listing_since = 101.0
    status.fill.extend([(49.0, 500), (79.0, 700), (109.0, 912)])
    values = {
        "drop": 5,
        "early_drop": 7,
        "insert_failed": 40,
        "chaintoolong": 50,
        "invalid": 9,
        "error": 0,
        "clash_resolve": 2,
    }
    status.counted_first = Statistics(9.0, dict.fromkeys(values, 1))
    status.counted.extend([Statistics(69.0, dict.fromkeys(values, 2)), Statistics(109.0, values)])
    monitor.table.overflow = 8
    return monitor


SHARES = Shares(2000, 1900, 1200, (("192.168.1.9", 800), ("fd00::9", 300)))
BASES = (UsedDatabase("DBIP-City-Lite", "2026-11", 12.4), UsedDatabase("DBIP-ASN-Lite", "2026-10", 40.0))


def screen_of(
    monitor: Monitor, width: int, height: int, shares: Shares | None = None, bases: tuple[UsedDatabase, ...] = ()
) -> str:
    view = monitor.view
    around = monitor.around._replace(databases=bases)
    scene = Scene(view, monitor.table, monitor.status, "router.example", monitor.live, monitor.glyphs, shares, around)
    view.drawn(frame(scene, width, height))
    drawn = frame(scene, width, height)
    view.drawn(drawn)
    return picture(drawn.lines)


def pressed(*presses: str, sized: tuple[int, int] = (80, 24), **view: Any) -> str:
    monitor = network(**view)
    screen_of(monitor, *sized)
    monitor.keys(*presses)
    return screen_of(monitor, *sized)


def with_id(monitor: Monitor, number: int) -> Flow:
    flows: list[Flow] = [*monitor.table, *monitor.table.past]
    return next(flow for flow in flows if flow.record().id == number)


def details(number: int, width: int = 80, height: int = 40) -> str:
    monitor = network()
    monitor.view.flow = with_id(monitor, number)
    monitor.view.overlay = "details"
    return screen_of(monitor, width, height)


def named() -> str:
    """Who has the near ends, where that is known."""
    out = [
        pressed("2", sized=(80, 10), named=True),
        pressed("2", sized=(44, 9), named=True),
        pressed(sized=(80, 9), named=True),
        pressed(sized=(104, 12), named=True),
        pressed("6", sized=(140, 9), named=True),
    ]
    monitor = network(named=True)
    monitor.view.flow = with_id(monitor, 11)
    monitor.view.overlay = "details"
    return "\n".join([*out, screen_of(monitor, 80, 26)])


def typed(text: str, width: int = 80, presses: tuple[str, ...] = ("/",)) -> str:
    monitor = network()
    monitor.keys(*presses)
    monitor.type(text)
    return screen_of(monitor, width, 12)


def moods() -> str:
    """What the title line says."""
    out = []
    for width in (60, 120, 160):
        for presses in (("p",), ("o",), ("r",), ("c",), ("m", "p"), ("?",), ("H", "j"), ("s", "s"), ("t",)):
            monitor = network()
            monitor.keys(*presses)
            lines = screen_of(monitor, width, 8).split("\n")
            out += [text for text in lines if any(word in text for word in ("Connections", "Help", "Health", "Hosts"))][
                :1
            ]
    return "\n".join(out) + "\n"


def empty() -> str:
    """Why there is nothing to see."""
    out = []
    for name, change in EMPTY.items():
        monitor = Monitor()
        change(monitor)
        monitor.refresh(2.0)
        out.append(f"{name}:\n" + "\n".join(screen_of(monitor, 70, 9).split("\n")[2:-3]))
    return "\n".join(out) + "\n"


def _none(_world: Monitor) -> None:
    pass


def _unread(monitor: Monitor) -> None:
    monitor.table.listed_at = None


def _junk(monitor: Monitor) -> None:
    monitor.status.rejects, monitor.status.first_reject = 1, "x"


def _stopped(monitor: Monitor) -> None:
    monitor.status.troubles = {"events": Problem("gone"), "listing": Problem("no", "sudo")}


def _hidden(monitor: Monitor) -> None:
    monitor.status.facts = {"count": 3, "max": 9}


def _replay(monitor: Monitor) -> None:
    monitor.live = False


def _unfit(monitor: Monitor) -> None:
    listing(monitor.table, [line(1)], monitor.now)
    monitor.view.set_filter("port:1")


def _unmarked(monitor: Monitor) -> None:
    listing(monitor.table, [line(1)], monitor.now)
    monitor.view.set_filter("new:host")


def _no_nat(monitor: Monitor) -> None:
    listing(monitor.table, [line(1)], monitor.now)
    monitor.view.show("nat")


def _no_event(monitor: Monitor) -> None:
    listing(monitor.table, [line(1)], monitor.now)
    monitor.view.show("events")


EMPTY: dict[str, Callable[[Monitor], None]] = {
    **{"nobody has sent anything": _none, "not read yet": _unread, "only junk": _junk, "a command stopped": _stopped},
    **{"the kernel lists none": _hidden, "a recording": _replay, "a filter": _unfit, "nothing marked": _unmarked},
    **{"no NAT": _no_nat, "no event": _no_event},
}


def notices() -> str:
    """What is wrong, one thing at a time, at several widths."""
    out = []
    for width, height in ((60, 24), (80, 24), (80, 12), (140, 30)):
        monitor = trouble(network())
        out += screen_of(monitor, width, height, SHARES).split("\n")[: 8 if height > 12 else 4]
    monitor = network()
    monitor.status.losses, monitor.status.lost_at, monitor.status.last_loss, monitor.status.healed = (
        2,
        100.0,
        "events",
        2,
    )
    out += screen_of(monitor, 100, 24).split("\n")[4:8]
    monitor.status.lost_at = 40.0
    out += screen_of(monitor, 100, 24).split("\n")[4:8]
    monitor.status.facts["acct"] = 0
    out += screen_of(monitor, 100, 24).split("\n")[4:8]
    return "\n".join(out) + "\n"


def health(width: int, height: int, *, wrong: bool, live: bool = True) -> str:
    monitor = trouble(network()) if wrong else network()
    monitor.live = live
    monitor.keys("H")
    return screen_of(monitor, width, height, SHARES if wrong else Shares(14, 7, 2, ((LAN, 9),)), BASES)


def in_ascii() -> str:
    monitor = network()
    monitor.glyphs = ASCII
    monitor.view.set_filter("192.168.1.9")
    monitor.refresh(1.0)
    monitor.keys("j")
    return screen_of(monitor, 100, 16)


def ended() -> str:
    monitor = network()
    monitor.live, monitor.status.ended = False, True
    return screen_of(monitor, 110, 10)


def asked() -> str:
    monitor = network()
    monitor.view.overlay = "delete"
    monitor.view.dialog = Dialog([])
    monitor.view.dialog.tell(["Delete this flow? " + "word " * 20, "conntrack -D -o id -p tcp"], asks=True)
    monitor.type("yes, do")
    monitor.keys("left", "left", "left", "left")
    return screen_of(monitor, 60, 14)


def usage_row_of(key: str, label: str, size: int) -> UsageRow:
    slots = tuple(None if hour < 3 else (hour * size) % 97 for hour in range(25))
    return UsageRow(key, label, size // 7, (size, size // 9), (size // 2, None), (3 * size, 7), (None, None), slots)


USED = {
    "usage": [(LAN, "laptop", 123_456_789), (LAN2, "", 9_876_543), (SIX, "", 12)],
    "usage-countries": [("US", "United States", 1_234_567), ("", "", 999), ("DE", "Germany", 55_555)],
    "usage-networks": [("15169", "Google LLC", 1_234_567), ("", "", 999)],
    "usage-services": [("tcp/443", "", 1_234_567), ("udp/53", "", 999), ("icmp", "", 84)],
}


def usage() -> str:
    """What the flow log says: each of its views, before the answer and without a row."""
    out = []
    for width in (40, 80, 140, 200):
        for name, rows in USED.items():
            monitor = network()
            monitor.view.show(name)
            known = [usage_row_of(*row) for row in rows]
            monitor.view.usage = LoggedUsage(monitor.view.spec, known, False, ["a gap of 2h in all: not running"])
            monitor.refresh(1.0)
            out.append(screen_of(monitor, width, 12))
    for answer in (None, [], ["there is no flow log: start with --log DIR"]):
        monitor = network()
        monitor.view.show("usage")
        monitor.view.usage = None if answer is None else LoggedUsage(monitor.view.spec, [], False, answer)
        monitor.refresh(1.0)
        out.append(screen_of(monitor, 80, 8))
    return "\n".join(out)


def columns_of_all_views() -> str:
    """Every view's columns: widths (least, roomy, most), rank, and what else is said of them."""
    out = []
    for spec in VIEWS:
        out.append(f"{spec.key} {spec.name}")
        for column in spec.columns:
            said = [name for name in ("right", "descending", "middle", "brief", "zoned") if getattr(column, name)]
            widths = f"{column.least:>3} {column.roomy:>3} {column.most:>3} {column.rank:>3}"
            out.append(
                f"  {column.key:<12} {column.title:<12} {widths}  {' '.join([*said, column.narrow_form_of])}".rstrip()
            )
    return "\n".join(out) + "\n"


SCREENS: dict[str, Callable[[], str]] = {
    "connections-80x24": lambda: pressed("down"),
    "connections-40x10": lambda: pressed("down", "down", sized=(40, 10)),
    "connections-20x5": lambda: pressed(sized=(20, 5)),
    "connections-140x30": lambda: pressed("G", sized=(140, 30)),
    "connections-240x20": lambda: pressed("n", "N", sized=(240, 20)),
    "connections-scrolled": lambda: pressed("pgdn", "pgdn", "right", "right", sized=(90, 12)),
    "connections-network": lambda: pressed("c", "c", "z", sized=(100, 24)),
    "connections-new": lambda: pressed("m", "o", sized=(110, 24), sort="age"),
    "hosts": lambda: pressed("2", "j", sized=(150, 16)),
    "hosts-narrow": lambda: pressed("2", "s", "s", sized=(60, 12)),
    "named": named,
    "countries": lambda: pressed("3", "s", sized=(150, 12)),
    "networks": lambda: pressed("4", "<", sized=(150, 12)),
    "list-to-sort": lambda: pressed("4", "S", sized=(150, 12)),
    "services": lambda: pressed("5", "j", "j", "r", sized=(150, 16)),
    "nat": lambda: pressed("6", "j", sized=(160, 16)),
    "nat-80x24": lambda: pressed("6", sized=(80, 24)),
    "events": lambda: pressed("7", "j", sized=(140, 16)),
    "map": lambda: pressed("8", "j", sized=(80, 22)),
    "map-rates": lambda: pressed("8", "t", sized=(100, 20)),
    "remotes": lambda: pressed("2", "t", sized=(170, 14)),
    "details-masquerade": lambda: details(11),
    "details-everything": lambda: details(36),
    "details-forwarded-and-masked": lambda: details(14),
    "details-icmp": lambda: details(31, 60),
    "details-gre": lambda: details(32, 39),
    "details-ipv6": lambda: details(15),
    "details-ended": lambda: details(42),
    "details-new": lambda: details(43, 100),
    "details-offloaded": lambda: details(34),
    "details-unknown": lambda: details(35),
    "details-silent": lambda: details(33),
    "help": lambda: pressed("?", sized=(80, 48)),
    "help-narrow": lambda: pressed("?", "pgdn", sized=(50, 20)),
    "health-well": lambda: health(100, 30, wrong=False),
    "health-trouble": lambda: health(120, 60, wrong=True),
    "health-narrow": lambda: health(50, 70, wrong=True),
    "health-recording": lambda: health(70, 60, wrong=True, live=False),
    "prompt": lambda: typed("proto:tcp"),
    "prompt-wrong": lambda: typed("proto:tcp port:x"),
    "prompt-long": lambda: typed("host:192.168.1.9 or " * 6, 50),
    "prompt-cursor": lambda: typed("abc", 50, ("/", "x", "y", "home")),
    "prompt-export": lambda: typed("", 50, ("e",)),
    "filtered": lambda: pressed("/", *"port:443", "enter", "j", sized=(100, 14)),
    "trouble": lambda: screen_of(trouble(network()), 120, 30, SHARES),
    "titles": moods,
    "empty": empty,
    "notices": notices,
    "ascii": in_ascii,
    "ended": ended,
    "delete": asked,
    "columns": columns_of_all_views,
    "usage": usage,
}


@pytest.mark.parametrize("name", SCREENS)
def test_a_screen_is_the_picture_of_it(name: str) -> None:
    drawn, path = SCREENS[name](), PICTURES / f"{name}.txt"
    if os.environ.get("ACCEPT") == "1":
        path.write_text(drawn)
    assert drawn.split("\n") == path.read_text().split("\n")


def test_there_is_no_other_picture() -> None:
    assert sorted(path.stem for path in PICTURES.iterdir()) == sorted(SCREENS)


def test_the_header_says_how_many_events_there_are_now() -> None:
    monitor = Monitor()
    monitor.refresh()
    for number in range(7):
        feed(monitor.table, event("NEW", number + 1), 100.5)
    monitor.refresh(1.0)
    assert " 7 events/s " in screen_of(monitor, 100, 10)
    monitor.refresh(1.0)
    assert " 0 events/s " in screen_of(monitor, 100, 10)
