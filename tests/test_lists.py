"""Lists beside the rows, completion in the filter's prompt, filters saved in the settings."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addresses import UNNAMED, Context, Lookups, Named, Place, Site
from columns import VIEWS, row_terms
from filters import FilterError, asks, compile_filter, expanded
from flows import Flow
from keyboard import Button, Mouse
from keys import Do, Request, point
from support.strategies import keys, monitors, sizes
from support.tables import WAN, Monitor, is_well_formed, lan_monitor, line, many, shown, twenty

PLACES = Lookups(where=lambda _address: Place("DE", "Germany", "Bad Tölz", 64496, 'ACME "Net", GmbH'))
SIZE = (100, 24)


def column_titles(monitor: Monitor, size: tuple[int, int] = SIZE) -> list[str]:
    return re.findall(r"[A-Z]+", shown(monitor, size)[3])


# --- the column to sort by --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["S", "f6"])
def test_a_column_to_sort_by_is_picked_from_a_list(key: str) -> None:
    monitor = twenty()
    monitor.keys(key)
    lines = shown(monitor, SIZE)
    assert [text for text in lines if re.search(r"↓ BYTES +bytes", text)]
    monitor.keys("j", "j", "enter")
    assert (monitor.view.sort, monitor.view.picker) == ("age", None)
    assert "AGE" in shown(monitor, SIZE)[3]
    monitor.keys(key, "enter")
    assert (monitor.view.sort, monitor.view.reverse) == ("age", True)


def test_a_list_has_all_keys_for_itself() -> None:
    monitor = twenty()
    monitor.keys("S", "x")
    assert (monitor.view.picker, monitor.view.overlay) == (None, "")
    assert monitor.keys("S", "q") == Request(Do.QUIT)
    monitor = twenty()
    monitor.keys("S", "esc")
    assert (monitor.view.picker, monitor.view.sort) == (None, "bytes")
    monitor.keys("S", "G", "G", "g", "k", "enter")
    assert monitor.view.sort == "proto"


def test_a_list_of_every_view_at_every_size() -> None:
    monitor = many()
    for spec in VIEWS:
        monitor.view.show(spec.name)
        monitor.refresh(1)
        for key in ("S", ",", "="):
            monitor.keys(key, "G")
            for size in ((140, 40), (80, 24), (40, 10), (20, 5), (5, 3), (1, 1)):
                is_well_formed(monitor, *size)
            monitor.keys("esc")


@given(monitors(), st.lists(st.tuples(keys, sizes), min_size=1, max_size=8), st.sampled_from(["S", ",", "="]))
@settings(max_examples=40, deadline=None)
def test_lists_among_all_other_keys(monitor: Monitor, steps: list[tuple[str, tuple[int, int]]], key: str) -> None:
    monitor.keys("j", key)
    for pressed, size in steps:
        monitor.keys(pressed)
        is_well_formed(monitor, *size)


def test_a_click_takes_a_line_and_the_wheel_moves() -> None:
    monitor = twenty()
    monitor.keys("S")
    lines = shown(monitor, SIZE)
    y = next(y for y, text in enumerate(lines) if "destination" in text)
    point(monitor.view, monitor.table, Mouse(Button.WHEEL_UP, 80, y))
    assert [text for text in shown(monitor, SIZE) if "↓ BYTES" in text]
    point(monitor.view, monitor.table, Mouse(Button.PRESSED, 80, y))
    assert (monitor.view.sort, monitor.view.picker is None) == ("destination", True)
    monitor.keys("S")
    shown(monitor, SIZE)
    point(monitor.view, monitor.table, Mouse(Button.PRESSED, 5, y))  # a row beside it
    assert (monitor.view.picker is None, monitor.selected()) == (True, None)


# --- the columns to show ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [",", "f2"])
def test_columns_are_hidden_and_shown(key: str) -> None:
    monitor = twenty()
    before = column_titles(monitor)
    assert ("STATE" in before, "CITY" in before) == (True, False)
    monitor.keys(key, "j")
    assert [text for text in shown(monitor, SIZE) if "[x] STATE" in text]
    monitor.keys("space")
    assert [text for text in shown(monitor, SIZE) if "[ ] STATE" in text]
    monitor.keys("esc")
    assert "STATE" not in column_titles(monitor)
    there = [column.key for column in monitor.view.spec.columns if not column.narrow_form_of and column.key != "node"]
    at = there.index("city")
    monitor.keys(key, *["j"] * at, "space", "esc")
    assert "CITY" in column_titles(monitor)
    monitor.keys("2")
    assert "HOST" in column_titles(monitor)  # another view has its own
    monitor.keys("1", key, "j", "space", "esc")
    assert "STATE" in column_titles(monitor)


def test_one_column_is_always_left() -> None:
    monitor = twenty()
    monitor.keys(",")
    for _ in monitor.view.spec.columns:
        shown(monitor, (200, 24))
        monitor.keys("space", "j")
    monitor.keys("esc")
    assert column_titles(monitor, (200, 24))
    is_well_formed(monitor, 80, 24)


# --- what is in the row -----------------------------------------------------------------------------------------------


def test_every_term_of_a_row_selects_that_row() -> None:
    """Also names with blanks, quotation marks and commas; of NAT, ICMP and zones."""
    texts = [
        line(1, reply_dst=WAN, more="mark=16 zone=3 use=1 "),
        line(2, src="2001:db8::1", dst="2001:db8::2"),
        "icmp     1 29 src=10.0.0.1 dst=192.0.2.1 type=8 code=0 id=7 src=192.0.2.1 dst=10.0.0.1 type=0 code=0 id=7 mark=0 use=1\n",
        "unknown  253 599 src=10.0.0.1 dst=192.0.2.1 src=192.0.2.1 dst=10.0.0.1 mark=0 use=1\n",
        "unknown  33 59 src=10.0.0.1 dst=192.0.2.1 [UNREPLIED] src=192.0.2.1 dst=10.0.0.1 mark=0 use=1\n",  # no ports
    ]
    monitor = Monitor(texts, PLACES)
    context = monitor.view.context
    assert len(monitor.view.rows.order) == 5
    for flow in monitor.view.rows.order:
        terms = [term for _, term in row_terms(monitor.view.spec, flow, context)]
        assert len(terms) >= 9
        for term in terms:
            wanted = compile_filter(term, context)
            assert wanted is not None
            assert wanted(flow), term
    assert 'city:"Bad Tölz"' in terms


def test_a_row_s_value_becomes_the_filter() -> None:
    monitor = lan_monitor()
    monitor.keys("j", "=")
    assert [text for text in shown(monitor, SIZE) if "src:10.0.0." in text and "▏" in text]
    monitor.keys("enter")
    first = monitor.view.filter
    assert first.startswith("src:10.0.0.")
    assert monitor.view.history == [first]
    monitor.keys("=", *["j"] * 4, "!")
    assert re.fullmatch(first + r" !dport:\d+", monitor.view.filter)
    monitor.view.set_filter("port:80 or port:443")
    monitor.refresh(1)
    monitor.keys("j", "=", "enter")
    assert monitor.view.filter.startswith("(port:80 or port:443) src:")


def test_the_cell_that_was_clicked_on_comes_first() -> None:
    monitor = lan_monitor()
    lines = shown(monitor, SIZE)
    y, x = next((y, text.index("8.8.")) for y, text in enumerate(lines) if "8.8." in text)
    point(monitor.view, monitor.table, Mouse(Button.PRESSED, x, y))
    monitor.keys("=", "enter")
    assert monitor.view.filter.startswith("dst:8.8.")


def test_of_a_sum_the_term_is_that_of_its_flows() -> None:
    monitor = lan_monitor()
    monitor.keys("2", "j", "=", "!")
    assert re.fullmatch(r"!near:10\.0\.0\.\d", monitor.view.filter)


# --- completion -------------------------------------------------------------------------------------------------------


def completed(monitor: Monitor, text: str, *pressed: str) -> str:
    monitor.keys("/", "ctrl-u")
    monitor.type(text)
    monitor.keys("tab", *pressed)
    assert monitor.view.prompt is not None
    found = monitor.view.prompt.text
    monitor.keys("esc")
    return found


def test_tab_completes_fields_then_values_that_are_on_show() -> None:
    monitor = lan_monitor()
    assert completed(monitor, "ser") == "service:"
    assert completed(monitor, "service:") == "service:tcp/443"  # most rows have it
    assert completed(monitor, "service:", "tab") == "service:tcp/80"
    assert completed(monitor, "service:", "tab", "shift-tab") == "service:tcp/443"
    assert completed(monitor, "!(near:10.0.0.2 or dport:8") == "!(near:10.0.0.2 or dport:80"
    assert completed(monitor, "dport:443,") == "dport:443,443"
    assert completed(monitor, "sta", "tab") == "state:established"  # one field: its values at once
    assert completed(monitor, "s", "shift-tab", "shift-tab") in ("sport:", "src:", "service:")
    assert completed(monitor, "bytes:") == "bytes:>1M"  # nothing to choose from: an example


def test_a_value_that_is_still_to_come_is_no_error_until_enter() -> None:
    monitor = lan_monitor()
    monitor.keys("/", *"asn:")
    prompt = monitor.view.prompt
    assert prompt is not None
    assert prompt.error == ""
    monitor.keys("enter")
    assert prompt.error == "at 5: a value is missing after 'asn:'"
    monitor.keys("ctrl-u", *"port:80,")
    assert monitor.view.prompt is not None
    assert "a value is missing" in monitor.view.prompt.error  # only a colon begins a value


def test_a_chosen_field_is_taken_by_enter_and_its_values_follow() -> None:
    monitor = lan_monitor()
    monitor.keys("/", "d", "tab")
    assert monitor.view.prompt is not None
    first = monitor.view.prompt.text
    lines = shown(monitor, SIZE)
    assert [word in lines[-2] for word in ("dst:", "dport:", "dir:")] == [True] * 3
    assert lines[-1].startswith(f"/ {first}")
    monitor.keys("enter")
    assert monitor.view.prompt is not None
    assert monitor.view.prompt.text.startswith(first)
    assert len(monitor.view.prompt.text) > len(first)
    monitor.keys("enter")
    assert monitor.view.prompt is None
    assert monitor.view.filter.startswith(first)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("contry:DE", "country:DE"),
        ("prot", "proto:"),
        ("sate:new", "state:new"),
        ("state:establshed", "state:established"),
    ],
)
def test_tab_on_a_wrong_word_is_what_it_is_close_to(typed: str, meant: str) -> None:
    assert completed(lan_monitor(), typed) == meant


def test_tab_where_nothing_fits_changes_nothing() -> None:
    assert completed(lan_monitor(), "qqqqqqq", "tab") == "qqqqqqq"
    monitor = twenty()
    monitor.keys("e")
    assert monitor.view.prompt is not None
    name = monitor.view.prompt.text
    monitor.keys("tab")
    assert monitor.view.prompt.text == name  # the name of a file


def test_what_comes_from_outside_is_offered_safely() -> None:
    evil = Lookups(where=lambda _address: Place("DE", "Germany", 'a"b\x1b[31m, c', 64496, "ü" * 300))
    monitor = Monitor([line(1)], evil)
    for typed in ("city:", "org:"):
        monitor.keys("/", "ctrl-u")
        monitor.type(typed)
        monitor.keys("tab")
        is_well_formed(monitor, 80, 24)
        assert monitor.view.prompt is not None
        assert monitor.view.prompt.error == ""


# --- saved filters ----------------------------------------------------------------------------------------------------

SAVED = Context(
    site=Site(filters={"kids": "near:10.0.0.2 or near:10.0.0.3", "web": "port:80,443", "who": "wan:203.0.113.1"})
)


def fits(text: str, flow: Flow) -> bool:
    wanted = compile_filter(text, SAVED)
    assert wanted is not None
    return wanted(flow)


def test_a_saved_filter_is_a_word_of_filters() -> None:
    flows = lan_monitor().view.rows.order
    for flow in flows:
        kids = flow.addresses()[0] in (b"10.0.0.2", b"10.0.0.3")
        assert fits("@kids", flow) == kids
        assert fits("!@kids", flow) != kids
        assert fits("@kids dport:80", flow) == (kids and flow.ports()[1] == b"80")  # its "or" is its own
        assert fits("(@kids or src:10.0.0.1) @web", flow)
    assert (
        expanded("@kids !@web @nobody a@web", SAVED) == "(near:10.0.0.2 or near:10.0.0.3) !(port:80,443) @nobody a@web"
    )


@pytest.mark.parametrize(
    ("text", "fields", "wanted"),
    [
        ("proto:tcp Port:80", ("port",), True),
        ("proto:tcp (!port:80)", ("id", "port"), True),
        ("dport:80 ports:>20", ("port",), False),
        ("@web", ("port",), True),
        ("@kids", ("port",), False),
        ("port", ("port",), False),
        ("", ("port",), False),
    ],
)
def test_what_a_filter_asks_is_seen_in_its_saved_filters_too(text: str, fields: tuple[str, ...], wanted: bool) -> None:
    assert asks(text, SAVED, *fields) == wanted


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("@kidz", "there is no saved filter '@kidz'; did you mean kids?"),
        ("port:80 @", "there is no saved filter '@'"),
    ],
)
def test_a_name_that_is_not_there(text: str, why: str) -> None:
    with pytest.raises(FilterError, match=re.escape(why)) as caught:
        compile_filter(text, SAVED)
    assert caught.value.position == text.index("@")
    with pytest.raises(FilterError, match=r"\[filters\] in the settings"):
        compile_filter(text, Context())


def test_saved_filters_are_completed() -> None:
    monitor = lan_monitor()
    monitor.view.context.filters = SAVED.filters
    assert completed(monitor, "@k") == "@kids"


def test_tab_offers_the_names_that_there_are() -> None:
    """Not the example of the help, which no host here has."""
    who = {"10.0.0.1": Named("anna", "", "shop-db-1", "")}
    lookups = Lookups(who=lambda address: who.get(address, UNNAMED), knows_names=lambda: True)
    monitor = Monitor([line(1), line(2, src="10.0.0.2")], lookups)
    for view in ("1", "2"):
        for field, name in (("container", "shop-db-1"), ("name", "anna")):
            monitor.keys(view, "/", *f"{field}:", "tab")
            assert monitor.view.prompt is not None
            assert monitor.view.prompt.text == f"{field}:{name}"
            monitor.keys("esc")
