"""Every key does what the help says: moves, views, overlays, the prompts and their editing."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from columns import SORTS, tabs
from keys import BINDINGS, NOTHING, Do, Request, press
from support.strategies import keys, monitors
from support.tables import Monitor, event, feed, lan_monitor, line, listing, shown, twenty
from view import View


@pytest.fixture
def monitor() -> Monitor:
    return twenty()


def test_no_key_means_two_things() -> None:
    used = Counter(key for binding in BINDINGS for key in binding.keys)
    assert [key for key, times in used.items() if times > 1] == []


def test_every_function_and_control_key_has_a_plain_twin() -> None:
    """`docker attach` swallows Ctrl+P, phones have no function keys."""
    for binding in BINDINGS:
        if any(key.startswith("f") and key[1:].isdigit() for key in binding.keys):
            assert any(len(key) == 1 or key == "space" for key in binding.keys), binding


# --- every key does what the help says --------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["q", "f10", "ctrl-c"])
def test_quit(monitor: Monitor, key: str) -> None:
    assert monitor.keys(key) == Request(Do.QUIT)


@pytest.mark.parametrize("overlay", ["?", "enter"])
def test_quit_works_from_every_overlay(monitor: Monitor, overlay: str) -> None:
    assert monitor.keys(overlay, "q") == Request(Do.QUIT)


@pytest.mark.parametrize("key", ["?", "h", "f1"])
def test_help_opens_and_any_key_closes_it(monitor: Monitor, key: str) -> None:
    monitor.keys(key)
    assert monitor.view.overlay == "help"
    monitor.keys("x")
    assert monitor.view.overlay == ""


def test_the_key_that_closes_the_help_does_nothing_else(monitor: Monitor) -> None:
    monitor.keys("?", "s")
    assert (monitor.view.overlay, monitor.view.sort) == ("", "bytes")


def test_the_help_scrolls(monitor: Monitor) -> None:
    monitor.keys("?", "j", "j", "k")
    assert (monitor.view.overlay, monitor.view.scroll, monitor.view.selected) == ("help", 1, None)


def test_details_are_of_the_selected_flow_and_enter_closes_them(monitor: Monitor) -> None:
    monitor.keys("j", "j", "enter")
    assert (monitor.view.overlay, monitor.selected()) == ("details", 19)
    monitor.keys("enter")
    assert monitor.view.overlay == ""


@pytest.mark.parametrize(("key", "does"), [("enter", Do.NOTHING), ("y", Do.COPY_ROW), ("Y", Do.COPY_COMMAND)])
def test_without_a_selection_a_key_selects_the_first_row_first(monitor: Monitor, key: str, does: Do) -> None:
    """Rows move: what was on top when the key was pressed is another flow than the one that was seen there."""
    assert monitor.keys(key) == NOTHING
    assert (monitor.view.overlay, monitor.selected()) == ("", 20)
    assert "press again" in monitor.view.message
    listing(monitor.table, [line(n, size=(30 - n) * 10_000) for n in range(1, 21)], 100.5)
    monitor.refresh(2)
    assert monitor.keys(key) == Request(does)
    assert (monitor.view.overlay, monitor.selected()) == ("details" if key == "enter" else "", 20)


def test_without_a_selection_the_only_row_is_meant(monitor: Monitor) -> None:
    monitor.keys("/", *"sport:10003", "enter", "enter")
    assert (monitor.view.overlay, monitor.selected()) == ("details", 3)


def test_there_are_no_details_where_there_is_no_row(monitor: Monitor) -> None:
    monitor.keys("j", "/", *"port:1", "enter", "enter")
    assert monitor.view.rows.order == []
    assert monitor.view.overlay == ""


def test_details_of_a_flow_that_vanishes_stay(monitor: Monitor) -> None:
    monitor.keys("j", "enter")
    listing(monitor.table, [line(n, size=n * 1000) for n in range(1, 20)], 101.0)
    monitor.refresh(10)
    assert (monitor.view.overlay, monitor.selected()) == ("details", 20)


def test_sort_goes_through_all_columns_and_back(monitor: Monitor) -> None:
    seen, there = [], {*SORTS} - {"node"}  # a single machine has no column of nodes
    for _ in there:
        monitor.keys("s")
        seen.append(monitor.view.sort)
    assert sorted(seen) == sorted(there)
    assert monitor.view.sort == "bytes"
    monitor.keys(">", "s", "<", "<")
    assert monitor.view.sort == "bytes"


@pytest.mark.parametrize(("key", "at"), [("j", 6), ("down", 6), ("k", 4), ("up", 4), ("pgdn", 10), ("ctrl-f", 10)])
def test_moves(monitor: Monitor, key: str, at: int) -> None:
    monitor.keys(*["j"] * 6)
    assert monitor.view.at == 5
    monitor.keys(key)
    assert monitor.view.at == at
    assert monitor.view.rows.order[at] is monitor.view.selected


@pytest.mark.parametrize(
    ("key", "at"),
    [("pgup", 5), ("ctrl-b", 5), ("ctrl-d", 12), ("ctrl-u", 8), ("g", 0), ("home", 0), ("G", 19), ("end", 19)],
)
def test_long_moves(monitor: Monitor, key: str, at: int) -> None:
    monitor.keys(*["j"] * 11)
    assert monitor.view.at == 10
    monitor.keys(key)
    assert monitor.view.at == at
    assert monitor.view.top <= at < monitor.view.top + monitor.view.page


def test_moves_end_at_the_ends(monitor: Monitor) -> None:
    monitor.keys("j", "k", "k", "pgup")
    assert monitor.view.at == 0
    monitor.keys("G", "j", "pgdn")
    assert monitor.view.at == 19


def test_names_toggle(monitor: Monitor) -> None:
    before = monitor.view.names
    monitor.keys("n")
    assert monitor.view.names is not before
    monitor.keys("n")
    assert monitor.view.names is before


def test_geography_goes_round(monitor: Monitor) -> None:
    seen = []
    for _ in range(5):
        seen.append(monitor.view.geo)
        monitor.keys("c")
    assert sorted(seen) == ["auto", "city", "country", "network", "off"]
    assert monitor.view.geo == "auto"


def test_columns_shift_and_stop_at_the_left_edge(monitor: Monitor) -> None:
    monitor.keys("right", "right", "left")
    assert monitor.view.shift == 1
    monitor.keys("left", "left")
    assert monitor.view.shift == 0


def test_closed_flows_are_shown_and_hidden(monitor: Monitor) -> None:
    feed(monitor.table, event("DESTROY", 7), 100.5)
    monitor.refresh(1)
    assert 7 in monitor.ids()
    monitor.keys("z")
    assert 7 not in monitor.ids()
    monitor.keys("z")
    assert 7 in monitor.ids()


def test_redraw_asks_for_it(monitor: Monitor) -> None:
    assert monitor.keys("ctrl-l") == Request(Do.REDRAW)


def test_unknown_keys_mean_nothing(monitor: Monitor) -> None:
    before = monitor.ids()
    assert [monitor.keys(key) for key in ("w", "f99", "", "漢")] == [NOTHING] * 4
    assert monitor.ids() == before


# --- the filter prompt ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["/", "f4", "\\"])
def test_filter_has_effect_while_it_is_typed(monitor: Monitor, key: str) -> None:
    monitor.keys(key)
    monitor.type("bytes:>36k")
    assert monitor.view.prompt is not None
    assert (monitor.ids(), monitor.view.rows.fitting, monitor.view.rows.total) == ([20, 19], 2, 20)


def test_a_wrong_filter_says_so_and_leaves_the_last_right_one(monitor: Monitor) -> None:
    monitor.keys("/")
    monitor.type("bytes:>36k")
    monitor.type(" nosuch:1")
    assert monitor.view.prompt is not None
    assert "nosuch" in monitor.view.prompt.error
    monitor.keys("enter")
    assert monitor.view.prompt is not None  # a wrong one is not kept
    monitor.keys("ctrl-w")
    assert monitor.view.prompt.error == ""
    assert monitor.ids() == [20, 19]


def test_enter_keeps_esc_restores(monitor: Monitor) -> None:
    monitor.keys("/", *"sport:10003", "enter")
    assert (monitor.view.prompt, monitor.view.filter, monitor.ids()) == (None, "sport:10003", [3])
    monitor.keys("/", "backspace", "4")
    assert monitor.ids() == [4]
    monitor.keys("esc")
    assert (monitor.view.prompt, monitor.view.filter, monitor.ids()) == (None, "sport:10003", [3])


def test_history_by_up_and_down(monitor: Monitor) -> None:
    for text in ("port:443", "port:80", "port:443"):
        monitor.keys("/", "ctrl-u", *text, "enter")
    monitor.keys("/", "up", "up")
    prompt = monitor.view.prompt
    assert prompt is not None
    assert prompt.text == "port:80"
    monitor.keys("down")
    assert prompt.text == "port:443"
    monitor.keys("down")
    assert prompt.text == ""
    assert monitor.view.history == ["port:80", "port:443"]


@pytest.mark.parametrize(
    ("typed", "text", "cursor"),
    [
        (["a", "b", "left", "c"], "acb", 2),
        (["a", "b", "home", "c"], "cab", 1),
        (["a", "b", "ctrl-a", "delete"], "b", 0),
        (["a", "b", "left", "left", "left", "end", "c"], "abc", 3),
        (["a", "space", "b", "c", "ctrl-w"], "a ", 2),
        (["a", "space", "b", "ctrl-w", "ctrl-w"], "", 0),
        (["a", "b", "c", "left", "ctrl-u"], "c", 0),
        (["backspace", "delete", "left", "a"], "a", 1),
        (["q", "?", "G", "f1", "tab", "\x1b", "\u202e"], "q?G", 3),
    ],
)
def test_editing(monitor: Monitor, typed: list[str], text: str, cursor: int) -> None:
    monitor.keys("/", *typed)
    assert monitor.view.prompt is not None
    assert (monitor.view.prompt.text, monitor.view.prompt.cursor) == (text, cursor)


def test_ctrl_c_quits_from_the_prompt(monitor: Monitor) -> None:
    assert monitor.keys("/", "a", "ctrl-c") == Request(Do.QUIT)


def test_esc_closes_one_thing_at_a_time(monitor: Monitor) -> None:
    monitor.keys("/", *"port:443", "enter", "j", "j", "enter", "/", "x")
    assert monitor.view.prompt is not None
    monitor.keys("esc")
    assert monitor.view.filter == "port:443"
    monitor.keys("enter", "esc")
    assert (monitor.view.overlay, monitor.view.filter) == ("", "port:443")
    monitor.keys("esc")
    assert (monitor.view.filter, monitor.selected()) == ("", 19)
    monitor.keys("esc")
    assert (monitor.selected(), monitor.view.top) == (None, 0)


# --- anything at all --------------------------------------------------------------------------------------------------


def within_bounds(view: View) -> None:
    rows = len(view.rows.order)
    assert 0 <= view.at <= max(0, rows - 1)
    assert 0 <= view.top <= max(0, rows - 1)
    assert view.scroll >= 0
    assert view.shift >= 0
    if view.selected is not None and rows and view.overlay != "details":
        assert view.rows.order[view.at] is view.selected
        assert view.top <= view.at < view.top + view.page
    if view.prompt is not None:
        assert 0 <= view.prompt.cursor <= len(view.prompt.text)


@given(monitors(), st.lists(st.tuples(keys, st.sampled_from([0.0, 0.0, 0.5, 2.0])), max_size=60))
@settings(max_examples=60, deadline=None)
def test_any_keys_on_any_table(monitor: Monitor, pressed: list[tuple[str, float]]) -> None:
    for key, seconds in pressed:
        press(monitor.view, monitor.table, key)
        monitor.refresh(seconds)
        within_bounds(monitor.view)


@given(st.lists(keys, min_size=1, max_size=40))
@settings(max_examples=20, deadline=None)
def test_ten_thousand_keys_pasted_at_once(some: list[str]) -> None:
    """All of them come before the next frame does."""
    monitor = Monitor([line(n, size=n) for n in range(1, 8)])
    for key in (some * 10_000)[:10_000]:
        press(monitor.view, monitor.table, key)
    monitor.refresh()
    within_bounds(monitor.view)


# --- views ------------------------------------------------------------------------------------------------------------


def test_each_view_has_its_key_and_tab_goes_round() -> None:
    monitor = lan_monitor()
    for kind in tabs(several=False):
        monitor.keys(kind.key)
        assert monitor.view.spec is kind
        assert shown(monitor, (140, 30))[2].startswith(kind.title)
    names = []
    for _ in range(10):
        monitor.keys("tab")
        names.append(monitor.view.spec.name)
    assert names == [kind.name for kind in tabs(several=False)]
    monitor.keys("[")
    assert monitor.view.spec.name == "states"


def test_enter_narrows_and_esc_comes_back() -> None:
    monitor = lan_monitor()
    monitor.view.set_filter("port:80 or port:443")
    monitor.keys("2", "s", "G")
    chosen = monitor.view.selected
    assert chosen is not None
    sort = monitor.view.sort
    monitor.keys("enter")
    assert monitor.view.spec.name == "connections"
    assert len(monitor.view.rows.order) == chosen.flows  # type: ignore[union-attr]
    monitor.keys("esc")
    assert (monitor.view.spec.name, monitor.view.filter, monitor.view.sort) == ("hosts", "port:80 or port:443", sort)
    assert monitor.view.selected == chosen


def test_t_turns_to_the_far_side() -> None:
    monitor = lan_monitor()
    monitor.keys("2", "t")
    assert "Remote hosts" in shown(monitor, (140, 30))[2]
    assert {row.key for row in monitor.view.rows.order} >= {"8.8.1.8", "9.9.9.9"}
    monitor.keys("t")
    assert monitor.view.spec.name == "hosts"


def test_the_prompt_asks_for_the_file_s_name() -> None:
    monitor = lan_monitor()
    monitor.keys("e")
    assert monitor.view.prompt is not None
    assert "conntrack-connections.json" in shown(monitor, (140, 30))[-1]
    assert monitor.keys("x", "enter") == Request(Do.EXPORT, "conntrack-connections.jsonx")
    assert monitor.view.prompt is None
    monitor.keys("e")
    assert monitor.keys("esc") == NOTHING
