"""The interface's state: every key, the order of the rows, the selection, the filter prompt, the pause."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import World, event, feed, keys, line, listing, worlds

from columns import LEAST_COLUMNS, SORTS, VIEWS, ViewSpec, fit
from filters import FilterError, from_flags
from keys import BINDINGS, press
from render import FIXED, _wanted_columns
from view import View


@pytest.fixture
def world() -> World:
    """Twenty flows; the number is the id; by bytes the highest is the largest."""
    made = World([line(n, size=n * 1000) for n in range(1, 21)], sort="bytes")
    made.view.page = 5
    return made


def test_no_key_means_two_things() -> None:
    used = Counter(key for binding in BINDINGS for key in binding.keys)
    assert [key for key, times in used.items() if times > 1] == []


def test_every_function_and_control_key_has_a_plain_twin() -> None:
    """`docker attach` swallows Ctrl+P, phones have no function keys."""
    for binding in BINDINGS:
        if any(key.startswith("f") and key[1:].isdigit() for key in binding.keys):
            assert any(len(key) == 1 or key == "space" for key in binding.keys), binding


@pytest.mark.parametrize("width", [40, 80, 100, 140, 200])
@pytest.mark.parametrize("kind", VIEWS, ids=lambda kind: kind.name)
def test_each_key_to_the_right_shows_others_until_all_were_seen(kind: ViewSpec, width: int) -> None:
    world = World([line(n) for n in range(3)])
    world.view.show(kind.name)
    rows = [[column.key for column, _ in fit(width, _wanted_columns(world.view, width))]]
    for _ in range(40):
        world.keys("right")
        rows.append([column.key for column, _ in fit(width, _wanted_columns(world.view, width))])
    steps = world.view.shift
    assert all(one != other for one, other in pairwise(rows[: steps + 1]))
    assert all(row == rows[steps] for row in rows[steps:])
    fixed = {column.key for column in kind.columns if column.key in FIXED or column.rank == LEAST_COLUMNS}
    assert all(set(rows[0]) & fixed <= set(row) for row in rows)  # whose row it is stays
    fits = {column.key for column in kind.columns if column.least < width - 30 and column.key != "natkind"}
    assert {key for row in rows for key in row} >= fits - fixed
    world.keys(*["left"] * 40)
    assert world.view.shift == 0


def test_a_wrong_filter_lets_what_was_before_hold() -> None:
    world = World([line(n) for n in range(3)])
    for key in "/state:foo":
        world.keys(key)
    assert world.view.prompt is not None
    assert world.view.prompt.error.startswith("at 7: 'foo' is no state")
    world.refresh(5)
    assert len(world.view.order) == 3


# --- every key does what the help says --------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["q", "f10", "ctrl-c"])
def test_quit(world: World, key: str) -> None:
    assert world.keys(key) == "quit"


@pytest.mark.parametrize("overlay", ["?", "enter"])
def test_quit_works_from_every_overlay(world: World, overlay: str) -> None:
    assert world.keys(overlay, "q") == "quit"


@pytest.mark.parametrize("key", ["?", "h", "f1"])
def test_help_opens_and_any_key_closes_it(world: World, key: str) -> None:
    world.keys(key)
    assert world.view.overlay == "help"
    world.keys("x")
    assert world.view.overlay == ""


def test_the_key_that_closes_the_help_does_nothing_else(world: World) -> None:
    world.keys("?", "s")
    assert (world.view.overlay, world.view.sort) == ("", "bytes")


def test_the_help_scrolls(world: World) -> None:
    world.keys("?", "j", "j", "k")
    assert (world.view.overlay, world.view.scroll, world.view.selected) == ("help", 1, None)


def test_details_are_of_the_selected_flow_and_enter_closes_them(world: World) -> None:
    world.keys("j", "j", "enter")
    assert (world.view.overlay, world.selected()) == ("details", 19)
    world.keys("enter")
    assert world.view.overlay == ""


def test_details_without_a_selection_are_of_the_first_row(world: World) -> None:
    world.keys("enter")
    assert (world.view.overlay, world.selected()) == ("details", 20)


def test_there_are_no_details_where_there_is_no_row(world: World) -> None:
    world.keys("j", "/", *"port:1", "enter", "enter")
    assert world.view.order == []
    assert world.view.overlay == ""


def test_details_of_a_flow_that_vanishes_stay(world: World) -> None:
    world.keys("j", "enter")
    listing(world.table, [line(n, size=n * 1000) for n in range(1, 20)], 101.0)
    world.refresh(10)
    assert (world.view.overlay, world.selected()) == ("details", 20)


def test_sort_goes_through_all_columns_and_back(world: World) -> None:
    seen = []
    for _ in SORTS:
        world.keys("s")
        seen.append(world.view.sort)
    assert sorted(seen) == sorted(SORTS)
    assert world.view.sort == "bytes"
    world.keys(">", "f6", "S", "<")
    assert world.view.sort == "bytes"


def test_sort_by_bytes_shows_the_largest_first_and_r_the_smallest(world: World) -> None:
    assert world.ids() == list(range(20, 0, -1))
    world.keys("r")
    assert world.ids() == list(range(1, 21))
    world.keys("I")
    assert world.ids() == list(range(20, 0, -1))


@pytest.mark.parametrize(
    ("sort", "first"),
    [
        ("source", [5, 3, 1, 4, 2]),
        ("destination", [1, 2, 3, 4, 5]),
        ("nat", [4, 1, 2, 3, 5]),
        ("state", [1, 3, 5, 4, 2]),
        ("timeout", [2, 1, 3, 4, 5]),
        ("bytes", [3, 1, 4, 5, 2]),
    ],
)
def test_sort_orders(sort: str, first: list[int]) -> None:
    """Addresses by number, IPv4 before IPv6; translated flows, large ones and those that end soon come first."""
    world = World(
        [
            line(1, src="10.0.0.9", dst="192.0.2.1", size=300),
            line(2, src="2001:db8::1", dst="2001:db8::2", state="TIME_WAIT", timeout=10),
            line(3, src="9.9.9.9", dst="2001:db8::3", size=900),
            line(4, src="100.0.0.1", dst="2001:db8::10", state="SYN_SENT", size=200, reply_dst="203.0.113.1"),
            line(5, src="9.9.9.8", dst="fe80::1", size=100),
        ],
        sort=sort,
    )
    assert world.ids() == first


def test_closed_flows_do_not_come_first_in_the_order_of_timeouts() -> None:
    world = World([line(1, timeout=100), line(2, timeout=50)], sort="timeout")
    feed(world.table, event("DESTROY", 2), 101.0)
    world.refresh(1.5)
    assert world.ids() == [1, 2]


@pytest.mark.parametrize(("key", "at"), [("j", 6), ("down", 6), ("k", 4), ("up", 4), ("pgdn", 10), ("ctrl-f", 10)])
def test_moves(world: World, key: str, at: int) -> None:
    world.keys(*["j"] * 6)
    assert world.view.at == 5
    world.keys(key)
    assert world.view.at == at
    assert world.view.order[at] is world.view.selected


@pytest.mark.parametrize(
    ("key", "at"),
    [("pgup", 5), ("ctrl-b", 5), ("ctrl-d", 12), ("ctrl-u", 8), ("g", 0), ("home", 0), ("G", 19), ("end", 19)],
)
def test_long_moves(world: World, key: str, at: int) -> None:
    world.keys(*["j"] * 11)
    assert world.view.at == 10
    world.keys(key)
    assert world.view.at == at
    assert world.view.top <= at < world.view.top + world.view.page


def test_moves_end_at_the_ends(world: World) -> None:
    world.keys("j", "k", "k", "pgup")
    assert world.view.at == 0
    world.keys("G", "j", "pgdn")
    assert world.view.at == 19


def test_names_toggle(world: World) -> None:
    before = world.view.names
    world.keys("n")
    assert world.view.names is not before
    world.keys("n")
    assert world.view.names is before


def test_geography_goes_round(world: World) -> None:
    seen = []
    for _ in range(5):
        seen.append(world.view.geo)
        world.keys("c")
    assert sorted(seen) == ["auto", "city", "country", "network", "off"]
    assert world.view.geo == "auto"


def test_columns_shift_and_stop_at_the_left_edge(world: World) -> None:
    world.keys("right", "right", "left")
    assert world.view.shift == 1
    world.keys("left", "left")
    assert world.view.shift == 0


def test_closed_flows_are_shown_and_hidden(world: World) -> None:
    feed(world.table, event("DESTROY", 7), 100.5)
    world.refresh(1)
    assert 7 in world.ids()
    world.keys("z")
    assert 7 not in world.ids()
    world.keys("z")
    assert 7 in world.ids()


def test_redraw_asks_for_it(world: World) -> None:
    assert world.keys("ctrl-l") == "redraw"


def test_unknown_keys_mean_nothing(world: World) -> None:
    before = world.ids()
    assert [world.keys(key) for key in ("w", "f99", "", "漢")] == [""] * 4
    assert world.ids() == before


# --- the order of the rows --------------------------------------------------------------------------------------------


def test_equal_rows_do_not_jump(world: World) -> None:
    """All have the same state: their order is that in which they came, time after time, either way round."""
    world.view.sort = "state"
    for reverse in (False, True):
        world.view.reverse = reverse
        world.refresh(1)
        before = world.ids()
        for _ in range(3):
            listing(world.table, [line(n, size=n * 1000 + 7) for n in range(20, 0, -1)], world.now)
            world.refresh(1)
            assert world.ids() == before


def test_numbers_that_change_do_not_reorder_before_it_is_due(world: World) -> None:
    before = world.ids()
    listing(world.table, [line(n, size=(30 - n) * 10_000) for n in range(1, 21)], 100.1)
    world.refresh(0.2)
    assert world.ids() == before
    world.refresh(1.0)
    assert world.ids() == list(range(1, 21))


def test_selection_follows_its_flow(world: World) -> None:
    world.keys("j", "j", "j")
    assert world.selected() == 18
    listing(world.table, [line(n, size=(30 - n) * 10_000) for n in range(1, 21)], 100.5)
    world.refresh(2)
    assert (world.selected(), world.view.at) == (18, 17)
    assert world.view.top <= 17 < world.view.top + world.view.page


def test_selection_takes_the_row_that_took_the_place(world: World) -> None:
    world.keys("j", "j", "j")
    listing(world.table, [line(n, size=n * 1000) for n in range(1, 21) if n != 18], 100.5)
    world.refresh(10)  # longer than closed flows linger
    assert (world.selected(), world.view.at) == (17, 2)


def test_selection_survives_a_filter_that_wants_nothing(world: World) -> None:
    world.keys("G", "/")
    world.type("port:1 ")
    assert world.view.order == []
    world.keys("esc")
    assert (world.selected(), world.view.at) == (1, 19)


def test_order_can_be_held(world: World) -> None:
    world.keys("o")
    listing(world.table, [line(n, size=(30 - n) * 10_000) for n in range(2, 23)], 100.5)
    world.refresh(10)
    assert world.ids() == [*range(20, 1, -1), 21, 22]  # what is new comes below, what is gone leaves
    world.keys("o")
    assert world.ids() == list(range(2, 23))


def test_a_filter_works_while_the_order_is_held(world: World) -> None:
    world.keys("o", "/")
    world.type("bytes:>30k")
    assert world.ids() == [20, 19, 18, 17, 16]
    world.keys("esc")
    assert set(world.ids()) == set(range(1, 21))


# --- pause ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["space", "p"])
def test_pause_holds_the_rows_and_counts_what_it_held(world: World, key: str) -> None:
    before = world.ids()
    world.keys(key)
    feed(world.table, "".join(event("NEW", n, state="SYN_SENT") for n in range(50, 53)), 101.0)
    feed(world.table, event("DESTROY", 20), 101.0)
    world.refresh(20)
    assert world.ids() == before
    assert (world.view.paused, world.view.held) == (True, 4)
    world.keys(key)
    assert (world.view.paused, world.view.held) == (False, 0)
    assert set(world.ids()) == {*range(1, 20), 50, 51, 52}


def test_pause_can_be_sorted_and_searched_as_it_was(world: World) -> None:
    world.keys("p")
    feed(world.table, event("DESTROY", 20) + event("NEW", 50, state="SYN_SENT"), 101.0)
    world.refresh(60)
    world.keys("r")
    assert world.ids() == list(range(1, 21))
    world.keys("/", *"sport:10020", "enter")
    assert world.ids() == [20]


def test_a_new_size_does_not_let_the_pause_go(world: World) -> None:
    world.keys("p")
    listing(world.table, [line(n, size=(30 - n) * 10_000) for n in range(5, 25)], 101.0)
    world.view.due = 0.0  # what the loop does for SIGWINCH
    world.refresh(10)
    assert world.ids() == list(range(20, 0, -1))


# --- the filter prompt ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["/", "f4", "\\"])
def test_filter_has_effect_while_it_is_typed(world: World, key: str) -> None:
    world.keys(key)
    world.type("bytes:>36k")
    assert world.view.prompt is not None
    assert (world.ids(), world.view.fitting, world.view.total) == ([20, 19], 2, 20)


def test_a_wrong_filter_says_so_and_leaves_the_last_right_one(world: World) -> None:
    world.keys("/")
    world.type("bytes:>36k")
    world.type(" nosuch:1")
    assert world.view.prompt is not None
    assert "nosuch" in world.view.prompt.error
    world.keys("enter")
    assert world.view.prompt is not None  # a wrong one is not kept
    world.keys("ctrl-w")
    assert world.view.prompt.error == ""
    assert world.ids() == [20, 19]


def test_enter_keeps_esc_restores(world: World) -> None:
    world.keys("/", *"sport:10003", "enter")
    assert (world.view.prompt, world.view.filter, world.ids()) == (None, "sport:10003", [3])
    world.keys("/", "backspace", "4")
    assert world.ids() == [4]
    world.keys("esc")
    assert (world.view.prompt, world.view.filter, world.ids()) == (None, "sport:10003", [3])


def test_history_by_up_and_down(world: World) -> None:
    for text in ("port:443", "port:80", "port:443"):
        world.keys("/", "ctrl-u", *text, "enter")
    world.keys("/", "up", "up")
    prompt = world.view.prompt
    assert prompt is not None
    assert prompt.text == "port:80"
    world.keys("down")
    assert prompt.text == "port:443"
    world.keys("down")
    assert prompt.text == ""
    assert world.view.history == ["port:80", "port:443"]


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
def test_editing(world: World, typed: list[str], text: str, cursor: int) -> None:
    world.keys("/", *typed)
    assert world.view.prompt is not None
    assert (world.view.prompt.text, world.view.prompt.cursor) == (text, cursor)


def test_ctrl_c_quits_from_the_prompt(world: World) -> None:
    assert world.keys("/", "a", "ctrl-c") == "quit"


def test_esc_closes_one_thing_at_a_time(world: World) -> None:
    world.keys("/", *"port:443", "enter", "j", "j", "enter", "/", "x")
    assert world.view.prompt is not None
    world.keys("esc")
    assert world.view.filter == "port:443"
    world.keys("enter", "esc")
    assert (world.view.overlay, world.view.filter) == ("", "port:443")
    world.keys("esc")
    assert (world.view.filter, world.selected()) == ("", 19)
    world.keys("esc")
    assert (world.selected(), world.view.top) == (None, 0)


def test_a_wrong_filter_changes_nothing(world: World) -> None:
    world.view.set_filter("port:443")
    with pytest.raises(FilterError):
        world.view.set_filter("nosuch:1")
    assert world.view.filter == "port:443"
    world.refresh(1)
    assert len(world.ids()) == 20


def test_flags_of_the_command_line_and_the_filter_are_combined() -> None:
    world = World([line(1), line(2, state="CLOSE"), line(3, state="CLOSE", dport=80)])
    world.view.base = from_flags((), ["close"], (), world.view.context)
    world.keys("/", *"port:443", "enter")
    assert world.ids() == [2]
    world.keys("esc")
    assert world.ids() == [2, 3]


# --- anything at all --------------------------------------------------------------------------------------------------


def within_bounds(view: View) -> None:
    rows = len(view.order)
    assert 0 <= view.at <= max(0, rows - 1)
    assert 0 <= view.top <= max(0, rows - 1)
    assert view.scroll >= 0
    assert view.shift >= 0
    if view.selected is not None and rows and view.overlay != "details":
        assert view.order[view.at] is view.selected
        assert view.top <= view.at < view.top + view.page
    if view.prompt is not None:
        assert 0 <= view.prompt.cursor <= len(view.prompt.text)


@given(worlds(), st.lists(st.tuples(keys, st.sampled_from([0.0, 0.0, 0.5, 2.0])), max_size=60))
@settings(max_examples=60, deadline=None)
def test_any_keys_on_any_table(world: World, pressed: list[tuple[str, float]]) -> None:
    for key, seconds in pressed:
        press(world.view, world.table, key)
        world.refresh(seconds)
        within_bounds(world.view)


@given(st.lists(keys, min_size=1, max_size=40))
@settings(max_examples=20, deadline=None)
def test_ten_thousand_keys_pasted_at_once(some: list[str]) -> None:
    """All of them come before the next frame does."""
    world = World([line(n, size=n) for n in range(1, 8)])
    for key in (some * 10_000)[:10_000]:
        press(world.view, world.table, key)
    world.refresh()
    within_bounds(world.view)
