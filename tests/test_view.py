"""What is on show: which rows, in which order, the selection, the pause; rows are found piece by piece."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import view as view_module
from addresses import Context, Lookups, Place
from columns import FLOW_COLUMNS, SORTS, VIEW_BY_NAME, FlowSum, table_text
from export import view_texts
from filters import FilterError, compile_filter
from flows import TAPE, Flow, FlowTable, TapeEvent
from grouping import Grouper, Grouping, GroupRow, service_key
from intake import Status
from keys import BINDINGS, NOTHING, Do, Request, press
from parse import split_lines
from render import frame
from support.strategies import blocks
from support.tables import WAN, Monitor, event, feed, lan_monitor, line, listing, twenty
from support.tables import shown as shown_at
from text import Line
from view import (
    KEYED,
    MANY_ROWS,
    ROWS_AT_ONCE,
    SORTED_AT_ONCE,
    Dialog,
    Prompt,
    Purpose,
    Rows,
    RowsWanted,
    Scene,
    View,
    facts_of_row,
    first_row,
    flow_of,
    in_order,
    in_order_by_steps,
    refresh,
    unwatched,
)


@pytest.fixture
def monitor() -> Monitor:
    return twenty()


def shown(monitor: Monitor) -> list[str]:
    return shown_at(monitor, (140, 30))


# --- keys -------------------------------------------------------------------------------------------------------------


def test_the_filter_and_the_selection_carry_over() -> None:
    monitor = lan_monitor()
    monitor.view.set_filter("port:80")
    monitor.refresh(1)
    monitor.keys("j", "j")
    chosen = monitor.view.selected
    assert isinstance(chosen, Flow)
    monitor.keys("2")
    assert monitor.view.filter == "port:80"
    assert monitor.view.selected.key == chosen.addresses()[0].decode()  # type: ignore[union-attr]
    monitor.keys("5")
    assert monitor.view.selected.key == service_key(chosen)  # type: ignore[union-attr]
    monitor.keys("1")
    assert monitor.view.selected is chosen


def test_the_share_is_of_what_is_sorted_by() -> None:
    monitor = lan_monitor()
    monitor.view.show("hosts")
    monitor.view.sort = "flows"
    monitor.refresh()
    assert sum(row.share for row in monitor.view.rows.order) == pytest.approx(1.0)
    assert monitor.view.rows.order[0].share == pytest.approx(monitor.view.rows.order[0].flows / 13)


# --- NAT: who was it? -------------------------------------------------------------------------------------------------


def test_who_was_behind_an_address_also_of_what_has_ended() -> None:
    monitor = lan_monitor()
    feed(monitor.table, event("NEW", 30, src="10.0.0.9", dst="9.9.9.9", reply_dst=WAN, sport=38768), 110.0)
    feed(monitor.table, event("DESTROY", 30, src="10.0.0.9", dst="9.9.9.9", reply_dst=WAN, sport=38768), 120.0)
    monitor.refresh(60)  # it does not linger any more
    monitor.keys("6")
    monitor.view.set_filter(f"wan:{WAN}:38768")
    monitor.refresh(1)
    assert [flow.ends().src for flow in monitor.view.rows.order] == ["10.0.0.9"]
    assert f"WAN {WAN} " in shown(monitor)[3]
    assert any("10.0.0.9:38768  " in text and " :38768 " in text and "9.9.9.9" in text for text in shown(monitor))
    assert "NAT · 1 of 2 · " in shown(monitor)[2]
    assert any(" 120.000" in text for text in shown_at(monitor, (80, 24)))  # when it ended; "-" while it lives
    monitor.keys("z")
    assert monitor.view.rows.order == []
    assert "NAT · 0 of 1 · " in shown(monitor)[2]


def test_an_address_that_all_rows_share_is_said_once_in_any_width() -> None:
    wide = "2001:db8:1111:2222:3333:4444:5555:6666"
    monitor = Monitor([line(n, src="fd00::9", dst="2620:fe::fe", reply_dst=wide) for n in (1, 2)])
    monitor.keys("6")
    for width, said in ((200, f"WAN {wide}"), (80, "2001:db8:1…5555:6666"), (40, "2001:db8:…555:6666")):
        lines = shown_at(monitor, (width, 24))
        head = next(text for text in lines if "LOCAL" in text)
        assert said in head, lines


@given(block=blocks)
def test_nat_counts_its_rows(block: bytes) -> None:
    monitor = Monitor()
    feed(monitor.table, block, 101.0)
    monitor.keys("6")
    assert (view := monitor.view).rows.total == view.rows.fitting == len(view.rows.order)
    there = [*monitor.table.live.values(), *monitor.table.past]
    assert {id(flow) for flow in view.rows.order} == {id(flow) for flow in there if flow.ends().nat}


@pytest.mark.parametrize(("clock", "found"), [("at:00:01:55", True), ("at:00:01", True), ("at:00:02:01", False)])
def test_when_it_was(clock: str, found: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    import time

    time.tzset()
    try:
        monitor = lan_monitor()
        feed(monitor.table, event("NEW", 30, src="10.0.0.9", dst="9.9.9.9", reply_dst=WAN, sport=38768), 110.0)
        feed(monitor.table, event("DESTROY", 30, src="10.0.0.9", dst="9.9.9.9", reply_dst=WAN, sport=38768), 120.0)
        monitor.refresh(60)
        monitor.keys("6")
        monitor.view.set_filter(f"wan:{WAN}:38768 {clock}")
        monitor.refresh(1)
        assert bool(monitor.view.rows.order) is found
    finally:
        monkeypatch.undo()
        time.tzset()


# --- events -----------------------------------------------------------------------------------------------------------


def test_nat_s_count_holds_while_it_is_counted_anew() -> None:
    from view import refresh

    monitor = lan_monitor()
    monitor.keys("6")
    assert "NAT · 1 · " in shown(monitor)[2]
    monitor.view.rows.expire()
    refresh(monitor.view, monitor.table, monitor.now, lambda: True)
    assert monitor.view.rows.working
    assert "NAT · 1 · " in shown(monitor)[2]


def test_the_tape_has_states_as_they_were_and_final_totals() -> None:
    monitor = Monitor()
    feed(monitor.table, event("NEW", 1, state="SYN_SENT"), 101.0)
    feed(monitor.table, event("UPDATE", 1, state="ESTABLISHED"), 102.0)
    feed(monitor.table, event("DESTROY", 1, state="CLOSE", size=5000), 107.0)
    monitor.now = 107.0
    monitor.keys("7")
    assert [(row.event, row.state) for row in monitor.view.rows.order] == [
        ("destroy", "CLOSE"),
        ("update", "ESTABLISHED"),
        ("new", "SYN_SENT"),
    ]
    lines = shown(monitor)
    assert "DESTROY" in lines[4]
    assert lines[4].split()[-2:] == ["10k", "6s"]
    monitor.keys("space")
    feed(monitor.table, event("NEW", 2), 108.0)
    monitor.refresh(2)
    assert len(monitor.view.rows.order) == 3
    monitor.keys("space")
    assert len(monitor.view.rows.order) == 4
    monitor.keys("j", "enter")
    assert monitor.view.overlay == "details"
    assert any("id 2" in text for text in shown(monitor))


# --- export and copy --------------------------------------------------------------------------------------------------


def test_a_view_that_is_not_ready_says_so() -> None:
    from view import refresh

    monitor = lan_monitor()
    monitor.view.show("hosts")
    refresh(monitor.view, monitor.table, 100.0, lambda: True)
    assert monitor.view.rows.working
    assert any("adding up flows ..." in text for text in shown(monitor))
    monitor.refresh()
    assert not any("adding up flows ..." in text for text in shown(monitor))


def test_another_order_while_flows_are_added_up_does_not_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []

    def grouper(grouping: Grouping, context: Context, watched: float | None) -> Grouper:
        begun.append(grouping.by)
        return Grouper(grouping, context, watched)

    monkeypatch.setattr(view_module, "Grouper", grouper)
    monitor = lan_monitor()
    monitor.view.show("hosts")
    refresh(monitor.view, monitor.table, 100.0, lambda: True)
    press(monitor.view, monitor.table, "s")
    refresh(monitor.view, monitor.table, 100.1, lambda: True)
    assert begun == ["near"]
    monitor.refresh(0.2)
    keys = monitor.view.spec.column(monitor.view.sort).keys(monitor.view.rows.order, monitor.view.context)
    assert keys == sorted(keys, reverse=monitor.view.falling)
    press(monitor.view, monitor.table, "3")
    refresh(monitor.view, monitor.table, 100.3, lambda: True)
    assert begun == ["near", "country"]


# --- the order of the rows --------------------------------------------------------------------------------------------


def test_sort_by_bytes_shows_the_largest_first_and_r_the_smallest(monitor: Monitor) -> None:
    assert monitor.ids() == list(range(20, 0, -1))
    monitor.keys("r")
    assert monitor.ids() == list(range(1, 21))
    monitor.keys("I")
    assert monitor.ids() == list(range(20, 0, -1))


def test_closed_flows_do_not_come_first_in_the_order_of_timeouts() -> None:
    monitor = Monitor([line(1, timeout=100), line(2, timeout=50)], sort="timeout")
    feed(monitor.table, event("DESTROY", 2), 101.0)
    monitor.refresh(1.5)
    assert monitor.ids() == [1, 2]


def test_equal_rows_do_not_jump(monitor: Monitor) -> None:
    """All have the same state: their order is that in which they came, time after time, either way round."""
    monitor.view.sort = "state"
    for reverse in (False, True):
        monitor.view.reverse = reverse
        monitor.refresh(1)
        before = monitor.ids()
        for _ in range(3):
            listing(monitor.table, [line(n, size=n * 1000 + 7) for n in range(20, 0, -1)], monitor.now)
            monitor.refresh(1)
            assert monitor.ids() == before


def test_numbers_that_change_do_not_reorder_before_it_is_due(monitor: Monitor) -> None:
    before = monitor.ids()
    listing(monitor.table, [line(n, size=(30 - n) * 10_000) for n in range(1, 21)], 100.1)
    monitor.refresh(0.2)
    assert monitor.ids() == before
    monitor.refresh(1.0)
    assert monitor.ids() == list(range(1, 21))


def test_selection_follows_its_flow(monitor: Monitor) -> None:
    monitor.keys("j", "j", "j")
    assert monitor.selected() == 18
    listing(monitor.table, [line(n, size=(30 - n) * 10_000) for n in range(1, 21)], 100.5)
    monitor.refresh(2)
    assert (monitor.selected(), monitor.view.at) == (18, 17)


def turned(monitor: Monitor, at: float = 100.5) -> None:
    """The order of twenty flows by bytes is the other way round."""
    listing(monitor.table, [line(n, size=(30 - n) * 10_000) for n in range(1, 21)], at)
    monitor.refresh(2)


def test_the_top_stays_on_top_while_nobody_moves_away_from_it(monitor: Monitor) -> None:
    monitor.keys("j")
    turned(monitor)
    assert (monitor.selected(), monitor.view.at, monitor.view.top) == (20, 19, 0)
    text = shown_at(monitor, (80, 9))
    assert "10.0.0.1:10001" in text[3]  # the largest
    assert text[-1].startswith("? help  q quit  . to selected row 20")
    monitor.keys(".")
    shown_at(monitor, (80, 9))
    assert (monitor.selected(), monitor.view.top + monitor.view.page) == (20, 20)
    assert "to selected row" not in shown_at(monitor, (80, 9))[-1]


def test_who_has_moved_away_from_the_top_stays_with_the_selected_row(monitor: Monitor) -> None:
    monitor.keys(*"jjjjjjj")
    assert (monitor.selected(), monitor.view.top) == (14, 2)
    turned(monitor)
    assert (monitor.selected(), monitor.view.at, monitor.view.top) == (14, 13, 9)
    listing(monitor.table, [line(14, size=10**9), *(line(n, size=n) for n in range(1, 21) if n != 14)], 103.5)
    monitor.refresh(2)
    assert (monitor.view.at, monitor.view.top) == (0, 0)  # it has risen to the top
    turned(monitor, 106.5)
    assert (monitor.view.at, monitor.view.top) == (13, 9)  # ... and the window goes with it when it falls
    monitor.keys("g")
    turned(monitor, 109.5)
    assert monitor.view.top == 0


@pytest.mark.parametrize(("key", "at"), [("j", 0), ("k", 0), ("pgdn", 5), ("pgup", 0), ("G", 19), ("g", 0)])
def test_keys_move_from_what_is_seen(monitor: Monitor, key: str, at: int) -> None:
    monitor.keys("j")
    turned(monitor)
    assert monitor.view.out_of_sight
    monitor.keys(key)
    assert monitor.view.at == at
    assert not monitor.view.out_of_sight


def test_a_selected_row_that_goes_out_of_sight_hands_its_place_to_none(monitor: Monitor) -> None:
    """x would else delete a flow that nobody has seen selected."""
    monitor.keys("j")
    turned(monitor)
    listing(monitor.table, [line(n, size=(30 - n) * 10_000) for n in range(1, 20)], 103.0)
    monitor.refresh(10)
    assert (monitor.selected(), monitor.view.at, monitor.view.top) == (None, 0, 0)
    assert monitor.keys(".") == NOTHING
    assert monitor.view.message == "No row is selected"


def test_details_of_a_flow_out_of_sight_are_still_its_own(monitor: Monitor) -> None:
    monitor.keys("j")
    turned(monitor)
    monitor.keys("enter")
    assert "ipv4 tcp  id 20" in "\n".join(shown_at(monitor, (80, 24)))


def test_the_way_back_leads_to_the_row_that_was_entered() -> None:
    monitor = Monitor([line(n, src=f"10.0.0.{n}", size=n * 1000) for n in range(1, 31)])
    monitor.view.page = 5
    monitor.keys("2", *"jjjjjjjjj")
    chosen, top = monitor.view.selected, monitor.view.top
    assert top > 0
    monitor.keys("enter", "esc")
    assert monitor.view.selected == chosen
    assert not monitor.view.out_of_sight


def test_on_the_map_every_row_is_in_sight() -> None:
    monitor = Monitor(
        [line(n, dst=f"203.0.113.{n}") for n in range(1, 31)], lookups=Lookups(coordinates=lambda _a: (1.0, 2.0))
    )
    monitor.view.page = 5
    monitor.keys("8", "j", *["j"] * 20)
    assert monitor.view.at == 20
    assert not monitor.view.out_of_sight


def test_selection_takes_the_row_that_took_the_place(monitor: Monitor) -> None:
    monitor.keys("j", "j", "j")
    listing(monitor.table, [line(n, size=n * 1000) for n in range(1, 21) if n != 18], 100.5)
    monitor.refresh(10)  # longer than closed flows linger
    assert (monitor.selected(), monitor.view.at) == (17, 2)


def test_selection_survives_a_filter_that_wants_nothing(monitor: Monitor) -> None:
    monitor.keys("G", "/")
    monitor.type("port:1 ")
    assert monitor.view.rows.order == []
    monitor.keys("esc")
    assert (monitor.selected(), monitor.view.at) == (1, 19)


def test_order_can_be_held(monitor: Monitor) -> None:
    monitor.keys("o")
    listing(monitor.table, [line(n, size=(30 - n) * 10_000) for n in range(2, 23)], 100.5)
    monitor.refresh(10)
    assert monitor.ids() == [*range(20, 1, -1), 21, 22]  # what is new comes below, what is gone leaves
    monitor.keys("o")
    assert monitor.ids() == list(range(2, 23))


def test_a_filter_works_while_the_order_is_held(monitor: Monitor) -> None:
    monitor.keys("o", "/")
    monitor.type("bytes:>30k")
    assert monitor.ids() == [20, 19, 18, 17, 16]
    monitor.keys("esc")
    assert set(monitor.ids()) == set(range(1, 21))


# --- pause ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["space", "p"])
def test_pause_holds_the_rows_and_counts_what_it_held(monitor: Monitor, key: str) -> None:
    before = monitor.ids()
    monitor.keys(key)
    feed(monitor.table, "".join(event("NEW", n, state="SYN_SENT") for n in range(50, 53)), 101.0)
    feed(monitor.table, event("DESTROY", 20), 101.0)
    monitor.refresh(20)
    assert monitor.ids() == before
    assert monitor.view.pause is not None
    assert monitor.view.pause.held(monitor.table) == 4
    monitor.keys(key)
    assert monitor.view.pause is None
    assert set(monitor.ids()) == {*range(1, 20), 50, 51, 52}


def test_pause_can_be_sorted_and_searched_as_it_was(monitor: Monitor) -> None:
    monitor.keys("p")
    feed(monitor.table, event("DESTROY", 20) + event("NEW", 50, state="SYN_SENT"), 101.0)
    monitor.refresh(60)
    monitor.keys("r")
    assert monitor.ids() == list(range(1, 21))
    monitor.keys("/", *"sport:10020", "enter")
    assert monitor.ids() == [20]


def test_a_new_size_does_not_let_the_pause_go(monitor: Monitor) -> None:
    monitor.keys("p")
    listing(monitor.table, [line(n, size=(30 - n) * 10_000) for n in range(5, 25)], 101.0)
    monitor.view.rows.expire()  # what the loop does for SIGWINCH
    monitor.refresh(10)
    assert monitor.ids() == list(range(20, 0, -1))


def test_a_wrong_filter_lets_what_was_before_hold() -> None:
    monitor = Monitor([line(n) for n in range(3)])
    for key in "/state:foo":
        monitor.keys(key)
    assert monitor.view.prompt is not None
    assert monitor.view.prompt.error.startswith("at 7: 'foo' is not a state")
    monitor.refresh(5)
    assert len(monitor.view.rows.order) == 3


def test_a_wrong_filter_changes_nothing(monitor: Monitor) -> None:
    monitor.view.set_filter("port:443")
    with pytest.raises(FilterError):
        monitor.view.set_filter("nosuch:1")
    assert monitor.view.filter == "port:443"
    monitor.refresh(1)
    assert len(monitor.ids()) == 20


# --- rows found piece by piece ----------------------------------------------------------------------------------------


def table_of(block: bytes) -> FlowTable:
    table = FlowTable()
    table.begin_listing(0.0)
    table.listed_all(split_lines(block)[0], 0.0)
    table.end_listing(True, 0.0)
    return table


def numbered(count: int) -> FlowTable:
    """Flows with ports from 0, half of them tcp."""
    text = "".join(
        f"{('tcp      6 100 CLOSE', 'udp      17 100')[i % 2]} src=10.0.0.1 dst=192.0.2.1 sport={i} dport=80 "
        f"src=192.0.2.1 dst=10.0.0.1 sport=80 dport={i} use=1\n"
        for i in range(count)
    )
    return table_of(text.encode())


def after(pieces: int) -> Callable[[], bool]:
    """Enough after so many looks at the clock."""
    left = iter([False] * (pieces - 1))
    return lambda: next(left, True)


def text_of(line: Line) -> str:
    return "".join(text for text, _role in line)


def ports(view: View) -> list[int | None]:
    return [flow.ends().sport for flow in view.rows.order]


SOME_SORTS = [*(("connections", sort) for sort in SORTS), ("nat", VIEW_BY_NAME["nat"].sort)]


@given(
    block=blocks,
    sorted_view=st.sampled_from(SOME_SORTS),
    word=st.sampled_from(["proto:tcp", "1", "flag:assured", "!port:53"]),
)
def test_pieces_come_to_the_same(block: bytes, sorted_view: tuple[str, str], word: str) -> None:
    table, (name, sort) = table_of(block), sorted_view
    whole, pieces = (View(Context(), spec=VIEW_BY_NAME[name], sort=sort) for _ in range(2))
    for each in (whole, pieces):
        each.set_filter(word)
    refresh(whole, table, 1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(view_module, "ROWS_AT_ONCE", 1)
        patch.setattr(view_module, "KEYED", 1)
        while refresh(pieces, table, 1.0, lambda: True) and pieces.rows.working:
            assert pieces.rows.order == whole.rows.order[: len(pieces.rows.order)]
    ours, theirs = pieces.rows, whole.rows
    assert (ours.order, ours.fitting, ours.total) == (theirs.order, theirs.fitting, theirs.total)


def test_what_a_new_filter_has_found_is_shown_at_once() -> None:
    table, view = numbered(SORTED_AT_ONCE), View(Context(), sort="source")
    refresh(view, table, 1.0)
    view.set_filter("proto:tcp")
    # A table as small as this is put in order first.
    assert refresh(view, table, 1.1, after(-(-SORTED_AT_ONCE // KEYED) + 2))
    assert view.rows.sifting
    assert ports(view) == list(range(0, 2 * ROWS_AT_ONCE, 2))
    assert refresh(view, table, 9.0)  # it is not begun anew while it goes on, however late it is
    assert not view.rows.working
    assert (len(view.rows.order), view.rows.fitting, view.rows.total) == (
        SORTED_AT_ONCE // 2,
        SORTED_AT_ONCE // 2,
        SORTED_AT_ONCE,
    )
    assert not refresh(view, table, 9.5)


def test_rows_on_show_stay_until_all_new_ones_are_found() -> None:
    table, view = numbered(5000), View(Context(), sort="source")
    view.set_filter("proto:tcp")
    refresh(view, table, 1.0)
    press(view, table, "j")
    press(view, table, "G")
    chosen = view.selected
    refresh(view, table, 3.0, after(1))
    assert view.rows.working
    assert len(view.rows.order) == 2500
    refresh(view, table, 3.1)
    assert view.selected is chosen
    assert view.rows.order[view.at] is chosen


def test_a_selection_that_is_not_found_yet_is_not_lost() -> None:
    table, view = numbered(5000), View(Context(), sort="source")
    refresh(view, table, 1.0)
    press(view, table, "G")
    press(view, table, "k")
    chosen = view.selected
    view.set_filter("proto:tcp")
    refresh(view, table, 1.1, after(1))
    assert view.selected is chosen
    refresh(view, table, 1.2)
    assert view.rows.order[view.at] is chosen


def test_a_new_filter_takes_the_order_of_a_large_table_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    table, view = numbered(MANY_ROWS + 1), View(Context(), sort="source")
    refresh(view, table, 1.0)
    monkeypatch.setattr("view.in_order", None)
    view.set_filter("proto:udp")
    refresh(view, table, 1.1)
    assert ports(view) == list(range(1, MANY_ROWS + 1, 2))
    monkeypatch.undo()
    view.reverse = True
    view.rows.expire()
    refresh(view, table, 1.2)
    assert ports(view)[0] == MANY_ROWS - 1


def test_the_old_order_stays_until_the_new_one_is_there() -> None:
    table, view = numbered(5000), View(Context(), sort="source")
    refresh(view, table, 1.0)
    press(view, table, "r")
    assert refresh(view, table, 1.1, after(1))
    assert view.rows.reordering
    assert ports(view)[0] == 0
    press(view, table, "<")  # a key meanwhile: what was begun is given up
    assert view.sort == "state"
    refresh(view, table, 1.2, after(1))
    assert view.rows.reordering
    refresh(view, table, 1.3)
    assert not view.rows.reordering
    assert ports(view)[:2] == [1, 3]  # what has no state comes first
    press(view, table, "s")
    press(view, table, "r")
    refresh(view, table, 1.4)
    assert ports(view)[0] == 4999


# --- what arrives meanwhile -------------------------------------------------------------------------------------------


def opened(port: int, tag: str = "    [NEW] ", dport: int = 80) -> bytes:
    """An event of a flow of its own."""
    return (
        f"{tag}udp 17 100 src=10.0.0.9 dst=192.0.2.1 sport={port} dport={dport} "
        f"src=192.0.2.1 dst=10.0.0.9 sport={dport} dport={port}\n"
    ).encode()


def flood(table: FlowTable, begin: int, count: int, now: float) -> None:
    feed(table, b"".join(opened(port) for port in range(begin, begin + count)), now)


@pytest.mark.parametrize("name", ["connections", "events"])
def test_what_a_filter_wants_is_sifted_as_it_arrives(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tape keeps 20,000 events: 4 s of 5,000 a second; a new order of all rows comes after 10 s."""
    monkeypatch.setattr("flows.TAPE", 50)
    table = FlowTable()
    view = View(Context(), spec=VIEW_BY_NAME[name])
    view.set_filter("dport:7777")
    flood(table, 1, 40, 1.0)
    refresh(view, table, 1.0)
    view.rows.keep_until(99.0)
    for turn in range(6):  # six times the tape
        now = 2.0 + turn / 2
        flood(table, 1000 + turn * 50, 40, now)
        feed(table, opened(20_000 + turn, dport=7777), now)
        flood(table, 5000 + turn * 50, 9, now)
        assert view.rows.hear(table)
        assert not view.rows.hear(table)
        assert refresh(view, table, now)
        assert view.rows.made == now
        assert len(view.rows.order) == view.rows.fitting == turn + 1
    found = [flow_of(row).ends().sport or 0 for row in view.rows.order]  # type: ignore[union-attr]
    assert sorted(found) == [20_000 + turn for turn in range(6)]
    refresh(view, table, 100.0)  # a new order of all: of the events only the tape's newest are left to be found
    assert [flow_of(row).ends().sport for row in view.rows.order] == found  # type: ignore[union-attr]
    view.set_filter("dport:80")
    refresh(view, table, 100.1)
    assert not {flow_of(row).ends().sport for row in view.rows.order} & set(found)  # type: ignore[union-attr]


def test_what_the_filter_no_longer_wants_goes_without_a_new_order_of_all() -> None:
    table, view = FlowTable(linger=5.0), View(Context())
    view.set_filter("dport:7777")
    feed(table, opened(1, dport=7777) + opened(2, dport=7777), 1.0)
    refresh(view, table, 1.0)
    view.rows.keep_until(99.0)
    feed(table, opened(1, "[DESTROY] ", dport=7777), 2.0)
    assert view.rows.hear(table)
    refresh(view, table, 2.0)
    assert (len(view.rows.order), view.rows.fitting) == (2, 1)  # it lingers
    refresh(view, table, 7.5)
    assert ports(view) == [2]


def test_many_rows_wait_for_their_order_and_say_how_old_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_module, "MERGED", 3)
    table, view = FlowTable(), View(Context())
    view.set_filter("proto:udp")
    flood(table, 1, 4, 1.0)
    refresh(view, table, 1.0)
    view.rows.keep_until(99.0)
    flood(table, 10, 1, 2.0)
    view.rows.hear(table)
    assert not refresh(view, table, 8.0)
    assert view.rows.made == 1.0
    scene = Scene(view, table, Status(), "here", True)
    assert "rows 7 s old" in text_of(frame(scene, 120, 20).lines[2])
    assert "old" not in text_of(frame(replace(scene, live=False), 120, 20).lines[2])
    refresh(view, table, 99.0)
    assert len(view.rows.order) == 5
    assert "old" not in text_of(frame(scene, 120, 20).lines[2])


@given(
    steps=st.lists(st.tuples(st.sampled_from(["new", "end", "other", "hear", "refresh", "order"]), st.integers(1, 3))),
    name=st.sampled_from(["connections", "events", "nat"]),
)
def test_rows_with_what_arrived_are_those_of_a_new_order(steps: list[tuple[str, int]], name: str) -> None:
    table, now = FlowTable(), 1.0
    merged = View(Context(), spec=VIEW_BY_NAME[name])
    merged.set_filter("dport:7777")
    refresh(merged, table, now)
    for step, number in steps:
        now += 0.3
        if step == "new":
            feed(table, opened(number, dport=7777), now)
        elif step == "end":
            feed(table, opened(number, "[DESTROY] ", dport=7777), now)
        elif step == "other":
            feed(table, opened(number), now)
        elif step == "hear":
            merged.rows.hear(table)
        elif step == "order":
            merged.rows.expire()
            refresh(merged, table, now)
        else:
            refresh(merged, table, now)
            merged.rows.keep_until(now + 99)
    now += 2
    table.tick(now)
    merged.rows.hear(table)
    refresh(merged, table, now)
    whole = View(Context(), spec=VIEW_BY_NAME[name])
    whole.set_filter("dport:7777")
    refresh(whole, table, now)

    def rows(view: View) -> object:
        return sorted((str(row.at if isinstance(row, TapeEvent) else 0), id(flow_of(row))) for row in view.rows.order)

    assert rows(merged) == rows(whole)
    assert merged.rows.fitting == whole.rows.fitting


# --- keys, the prompt and the rows on show: what each key does to the view, said key by key ---------------------------


def world_of(count: int = 20, **view: Any) -> Monitor:
    """Flows whose id is their number; by bytes the highest is the largest."""
    view.setdefault("sort", "bytes")
    made = Monitor([line(n, src=f"10.0.0.{n % 3 + 1}", size=n * 1000) for n in range(1, count + 1)], **view)
    made.view.page = 5
    return made


# --- moving -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "at", "top"),
    [
        *((["down"], 0, 0), (["j", "j"], 1, 0), (["up"], 0, 0), (["j", "up"], 0, 0), (["j"] * 6, 5, 1)),
        *((["j"] * 6 + ["k"] * 3, 2, 1), (["pgdn"], 5, 1), (["j", "pgdn"], 5, 1), (["j", "ctrl-f", "ctrl-f"], 10, 6)),
        *((["G"], 19, 15), (["end", "pgup"], 14, 14), (["G", "ctrl-b", "k"], 13, 13), (["G", "g"], 0, 0)),
        *((["j", "ctrl-d"], 2, 0), (["G", "ctrl-u"], 17, 15), (["G", "home"], 0, 0), (["j"] * 40, 19, 15)),
    ],
)
def test_moves(keys: list[str], at: int, top: int) -> None:
    monitor = world_of()
    monitor.keys(*keys)
    assert (monitor.view.at, monitor.view.top) == (at, top)
    assert monitor.selected() == 20 - at


def test_half_of_a_page_of_one_is_one() -> None:
    monitor = world_of()
    monitor.view.page = 1
    monitor.keys("j", "ctrl-d")
    assert monitor.view.at == 1
    monitor.keys("ctrl-u")
    assert monitor.view.at == 0


@pytest.mark.parametrize(
    ("top", "at", "page", "rows", "selected", "seen"),
    [
        *((3, 1, 5, 20, True, 1), (3, 9, 5, 20, True, 5), (3, 5, 5, 20, True, 3), (18, 19, 5, 20, True, 15)),
        *((3, 9, 5, 20, False, 3), (18, 0, 5, 20, False, 15), (3, 0, 30, 20, False, 0), (-4, 0, 5, 20, False, 0)),
    ],
)
def test_the_selected_row_is_in_sight_and_no_line_is_wasted(
    top: int, at: int, page: int, rows: int, selected: bool, seen: int
) -> None:
    view = View(Context(), top=top, at=at, at_top=False, selected=GroupRow("x") if selected else None)
    view.rows.order = [None] * rows
    assert first_row(view, page) == seen
    assert first_row(replace(view, at_top=True), page) == 0


def test_overlays_scroll_and_lists_do_not_meanwhile() -> None:
    monitor = world_of()
    for overlay in ("?", "H"):
        monitor.keys(overlay, "j", "j", "pgdn", "k")
        assert (monitor.view.scroll, monitor.view.at) == (6, 0)
        monitor.keys("g")
        assert monitor.view.scroll == 0
        monitor.keys("x")
        assert monitor.view.overlay == ""
    monitor.keys("?", "j", "?")
    assert monitor.view.overlay == ""
    monitor.keys("?")
    assert (monitor.view.overlay, monitor.view.scroll) == ("help", 0)
    monitor.keys("x", "H", "j", "H", "H")
    assert (monitor.view.overlay, monitor.view.scroll) == ("health", 0)


# --- sorting, switches ------------------------------------------------------------------------------------------------


def test_sorting_goes_round_and_begins_with_the_column_s_own_direction() -> None:
    monitor = world_of(sort="proto", reverse=True)
    monitor.keys("o", "s")
    assert (monitor.view.sort, monitor.view.reverse, monitor.view.frozen) == ("state", False, False)
    monitor.keys("<", "<")
    assert monitor.view.sort == FLOW_COLUMNS[-1].key
    monitor.keys("s")
    assert monitor.view.sort == "proto"
    monitor.keys("o", "r")
    assert (monitor.view.reverse, monitor.view.frozen) == (True, False)
    monitor.keys("r")
    assert not monitor.view.reverse


def test_switches() -> None:
    monitor = world_of(3)
    view = monitor.view
    for key, name in (("n", "names"), ("z", "closed"), ("o", "frozen"), ("p", "pause")):
        before = getattr(view, name)
        monitor.keys(key)
        assert getattr(view, name) is not before
        monitor.keys(key)
        assert getattr(view, name) is before
    told = []
    for _ in range(5):
        monitor.keys("c")
        told.append((view.geo, view.message))
    modes = ("country", "network", "city", "off", "auto")
    assert told == [(mode, f"geography: {mode}") for mode in modes]
    monitor.keys("right", "right", "left")
    assert view.shift == 1
    monitor.keys(*["right"] * 40)
    assert view.shift == len(FLOW_COLUMNS) - 1
    monitor.keys(*["left"] * 40)
    assert view.shift == 0


@pytest.mark.parametrize(
    ("key", "asked"),
    [
        *(("q", Do.QUIT), ("f10", Do.QUIT), ("ctrl-c", Do.QUIT), ("N", Do.SWITCH_NAMES), ("y", Do.COPY_ROW)),
        *(("Y", Do.COPY_COMMAND), ("x", Do.DELETE), ("f9", Do.DELETE), ("delete", Do.DELETE), ("X", Do.DELETE_ALL)),
        *(("+", Do.LIST_MORE_OFTEN), ("-", Do.LIST_LESS_OFTEN), ("ctrl-l", Do.REDRAW), ("j", Do.NOTHING)),
        *(("nosuch", Do.NOTHING), ("e", Do.NOTHING), ("/", Do.NOTHING), ("esc", Do.NOTHING)),
    ],
)
def test_what_is_to_be_done_outside(key: str, asked: Do) -> None:
    monitor = world_of(3)
    monitor.keys("j")
    assert monitor.keys(key) == Request(asked)


@pytest.mark.parametrize("key", ["y", "Y"])
def test_what_is_copied_is_the_selected_row_or_the_first_on_screen(key: str) -> None:
    monitor = world_of()
    monitor.view.top = 3
    monitor.keys(key)
    assert monitor.selected() == 17
    monitor.keys("j", key)
    assert monitor.selected() == 16


def test_a_message_stays_till_the_next_key() -> None:
    monitor = world_of(3)
    monitor.keys("t")
    assert monitor.view.message == "t works in Hosts (local/remote) and Map (flows/rate)"
    monitor.keys("nosuch")
    assert monitor.view.message == ""


def test_the_mark_is_set_and_taken_away() -> None:
    monitor = world_of(3)
    monitor.keys("m")
    assert monitor.view.baseline is not None
    assert monitor.view.baseline.at == monitor.now
    assert monitor.view.message.startswith("Mark set ")
    assert monitor.view.message.endswith(": new rows are highlighted; the filter new: shows only them")
    monitor.keys("m")
    assert monitor.view.baseline is None
    assert monitor.view.message == "Mark cleared"


def test_every_key_of_the_help_has_its_own_words() -> None:
    assert [(binding.keys[0], binding.brief) for binding in BINDINGS if binding.brief] == [
        *(("?", "help"), ("q", "quit"), ("/", "filter"), ("s", "sort"), ("r", "reverse"), ("space", "pause")),
        ("H", "health"),
    ]
    assert len({binding.text for binding in BINDINGS}) == len(BINDINGS)


# --- views ------------------------------------------------------------------------------------------------------------


def named(monitor: Monitor) -> str:
    return monitor.view.spec.name


def test_the_keys_of_the_views() -> None:
    monitor = world_of(3)
    names = []
    for key in "23456708":
        monitor.keys(key)
        names.append(monitor.view.spec.name)
    assert names == ["hosts", "countries", "networks", "services", "nat", "events", "usage", "map"]
    names = []
    for key in ("tab", "tab", "tab", "[", "[", "["):
        monitor.keys(key)
        names.append(monitor.view.spec.name)
    assert names == ["states", "usage", "connections", "usage", "states", "map"]
    monitor.keys("t")
    assert monitor.view.sort == "rate"
    monitor.keys("t")
    assert monitor.view.sort == "flows"
    monitor.keys("2", "t")
    assert named(monitor) == "remotes"
    monitor.keys("tab")
    assert named(monitor) == "countries"
    monitor.keys("2", "t", "shift-tab")
    assert named(monitor) == "connections"
    monitor.keys("2", "t", "t")
    assert named(monitor) == "hosts"
    turned = []
    for key in "0tttt":
        monitor.keys(key)
        turned.append(named(monitor))
    assert turned == ["usage", "usage-countries", "usage-networks", "usage-services", "usage"]


def test_each_view_keeps_its_own_order() -> None:
    monitor = world_of(3, sort="")
    monitor.keys("s", "r", "2")
    assert (monitor.view.sort, monitor.view.reverse) == ("rate", False)
    monitor.keys("s", "1")
    assert (monitor.view.sort, monitor.view.reverse) == ("bytes", True)
    monitor.keys("2")
    assert (monitor.view.sort, monitor.view.reverse) == ("in", False)


def test_another_view_begins_at_its_top_and_keeps_what_is_selected() -> None:
    monitor = world_of()
    monitor.keys("G", "right", "o", "H")
    monitor.view.overlay = "details"
    monitor.keys("2")
    view = monitor.view
    assert (view.overlay, view.shift, view.frozen) == ("", 0, False)
    assert isinstance(view.selected, GroupRow)
    assert view.selected.key == "10.0.0.2"
    monitor.keys("1")
    assert monitor.selected() == 1
    assert view.at == 19
    monitor.keys("1")  # the same view once more changes nothing
    assert view.at == 19
    monitor.keys("7")
    assert view.selected is None


def test_enter_leads_to_the_flows_of_a_row_and_esc_back() -> None:
    monitor = world_of(6)
    monitor.keys("/", *"port:443", "enter", "2", "j", "enter")
    view = monitor.view
    host = "10.0.0.1"
    assert (view.spec.name, view.filter) == ("connections", f"port:443 near:{host}")
    assert sorted(monitor.ids()) == [3, 6]
    monitor.keys("esc")
    assert (view.spec.name, view.filter) == ("hosts", "port:443")
    assert view.selected == GroupRow(host)
    monitor.keys("esc")
    assert (view.filter, view.selected) == ("", GroupRow(host))
    monitor.keys("esc")
    assert view.selected is None
    assert view.flow is None
    assert (view.at, view.top) == (0, 0)
    monitor.keys("/", *"port:443", "space", *"or", "space", *"port:80", "enter", "enter")
    assert view.filter == "port:443 or port:80"  # the first one is selected first
    monitor.keys("enter")
    assert view.filter == f"(port:443 or port:80) near:{host}"
    monitor.keys("2", "esc")
    assert view.spec.name == "hosts"  # a key of a view forgets where Enter has led away from
    monitor.view.set_filter("")
    monitor.keys("j", "enter", "tab", "esc")
    assert view.spec.name == "hosts"


def test_esc_closes_one_thing_at_a_time_and_cancels_a_question() -> None:
    monitor = world_of(3)
    monitor.keys("/", *"port:443", "enter", "j", "?", "esc")
    assert (monitor.view.overlay, monitor.view.filter, monitor.selected()) == ("", "port:443", 3)
    monitor.view.overlay = "delete"
    assert monitor.keys("esc") == Request(Do.STOP)
    assert monitor.view.overlay == "delete"
    monitor.view.overlay = "details"
    monitor.keys("esc")
    assert monitor.view.overlay == ""


def test_details_toggle_and_what_they_are_of() -> None:
    monitor = world_of()
    monitor.view.top = 2
    monitor.keys("enter", "enter")
    assert (monitor.view.overlay, monitor.view.scroll, monitor.selected()) == ("details", 0, 18)
    monitor.keys("j", "enter")
    assert monitor.view.overlay == ""
    monitor.keys("2", "g")
    monitor.view.overlay = "details"
    assert monitor.keys("q") == Request(Do.QUIT)
    assert flow_of(None) is None
    assert flow_of(GroupRow("x")) is None
    nobody = Monitor([])
    nobody.keys("enter")
    assert nobody.view.overlay == ""


# --- the prompt -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "text", "cursor"),
    [
        ([*"ab", "space", "c"], "ab c", 4),
        ([*"abc", "left", "x"], "abxc", 3),
        ([*"abc", "home", "x"], "xabc", 1),
        ([*"abc", "ctrl-a", "right", "x"], "axbc", 2),
        ([*"abc", "home", "end", "x"], "abcx", 4),
        ([*"abc", "home", "ctrl-e", "x"], "abcx", 4),
        ([*"abc", "backspace"], "ab", 2),
        ([*"abc", "home", "backspace"], "abc", 0),
        ([*"abc", "home", "delete"], "bc", 0),
        ([*"abc", "delete"], "abc", 3),
        ([*"abc", "left", "ctrl-u"], "c", 0),
        (["a", "space", "b", "space", "c", "ctrl-w"], "a b ", 4),
        (["a", "space", "b", "space", "ctrl-w"], "a ", 2),
        ([*"abc", "ctrl-w"], "", 0),
        ([*"abc", "left", "left", "left", "left"], "abc", 0),
        ([*"abc", "right"], "abc", 3),
        ([*"abc", "f1", "tab", "\x01", ""], "abc", 3),
        (["x"] * 501, "x" * 500, 500),
    ],
)
def test_editing(keys: list[str], text: str, cursor: int) -> None:
    monitor = world_of(3)
    monitor.keys("/", *keys)
    prompt = monitor.view.prompt
    assert prompt is not None
    assert (prompt.text, prompt.cursor) == (text, cursor)


def test_a_filter_has_effect_while_it_is_typed_and_esc_takes_it_back() -> None:
    monitor = world_of(6)
    monitor.keys("/", *"port:443", "enter", "/", *" port:x")
    view = monitor.view
    assert view.prompt is not None
    assert (view.filter, view.prompt.error) == (
        "port:443",
        "at 15: 'x' is not a port: 443, 8000-8999 or a name like https",
    )
    monitor.keys("enter")
    assert view.prompt is not None  # a wrong one is not kept
    assert monitor.keys("esc") == NOTHING
    assert not monitor.view.prompt
    assert view.filter == "port:443"
    monitor.keys("/", "ctrl-u", *"sport:10002", "enter")
    assert monitor.ids() == [2]
    monitor.keys("/", "ctrl-u", "enter")
    assert (view.filter, len(monitor.ids())) == ("", 6)
    assert view.history == ["port:443", "sport:10002"]


def test_the_history_of_filters() -> None:
    monitor = world_of(3)
    for kept in ("tcp", "udp", "tcp", "sctp"):
        monitor.keys("/", "ctrl-u", *kept, "enter")
    view = monitor.view
    assert view.history == ["udp", "tcp", "sctp"]
    monitor.keys("/", "ctrl-u")

    def text() -> str:
        assert view.prompt is not None
        assert view.prompt.cursor == len(view.prompt.text)
        return view.prompt.text

    seen = []
    for key in ("up", "up", "up", "up", "down", "down", "down", "down"):
        monitor.keys(key)
        seen.append(text())
    assert seen == ["sctp", "tcp", "udp", "udp", "tcp", "sctp", "", ""]
    monitor.keys(*"what", "up")
    assert text() == "sctp"
    view.history = [str(number) for number in range(50)]
    monitor.keys("ctrl-u", *"new", "enter")
    assert (len(view.history), view.history[0], view.history[-1]) == (50, "1", "new")
    fresh = world_of(3)
    fresh.keys("/", *"abc", "up")
    assert fresh.view.prompt is not None
    assert fresh.view.prompt.text == "abc"


def test_other_prompts() -> None:
    monitor = world_of(3)
    monitor.keys("2", "j")
    monitor.view.overlay = "details"
    monitor.keys("e")
    assert monitor.view.prompt == Prompt(Purpose.EXPORT, "conntrack-hosts.json", 20)
    assert monitor.view.overlay == ""
    assert monitor.keys("up", "x", "enter") == Request(Do.EXPORT, "conntrack-hosts.jsonx")
    assert monitor.view.prompt is None
    monitor.view.dialog = Dialog([])
    monitor.view.dialog.tell(["Delete them?"], asks=True)
    assert monitor.keys("space", *"yes", "space", "enter") == Request(Do.ANSWER, "yes")
    monitor.view.dialog.tell(["Delete them?"], asks=True)
    assert monitor.keys("esc") == Request(Do.STOP)
    assert monitor.keys("ctrl-c") == Request(Do.QUIT)
    monitor.view.dialog = None
    monitor.keys("e")
    assert monitor.keys("esc") == NOTHING
    assert monitor.view.prompt is None
    monitor.keys("/")
    assert monitor.keys("ctrl-c") == Request(Do.QUIT)
    monitor.view.filter = "a\x1b b"
    monitor.keys("esc", "?", "x", "f4")
    assert monitor.view.overlay == ""


# --- the rows ---------------------------------------------------------------------------------------------------------


def test_rows_are_put_in_order_once_a_second() -> None:
    monitor = world_of(3)
    listing(monitor.table, [line(n, src=f"10.0.0.{n % 3 + 1}", size=9000 - n * 1000) for n in range(1, 4)], 100.5)
    monitor.refresh(0.9)
    assert monitor.ids() == [3, 2, 1]
    monitor.refresh(0.1)
    assert monitor.ids() == [1, 2, 3]
    monitor.refresh(-50.0)  # a clock that went back is no reason to wait
    listing(monitor.table, [line(n, src=f"10.0.0.{n % 3 + 1}", size=n * 1000) for n in range(1, 4)], 51.0)
    monitor.refresh(1.0)
    assert monitor.ids() == [3, 2, 1]


def test_held_rows_keep_their_order_and_new_ones_come_last() -> None:
    monitor = world_of(4)
    monitor.keys("o")
    feed(monitor.table, event("DESTROY", 3, src="10.0.0.1"), 101.0)
    feed(monitor.table, event("NEW", 9, src="10.0.0.7"), 101.0)
    monitor.view.closed = False
    monitor.refresh(2.0)
    assert monitor.ids() == [4, 2, 1, 9]


def test_closed_rows() -> None:
    monitor = world_of(4)
    feed(monitor.table, event("DESTROY", 3, src="10.0.0.1", size=9000), 101.0)
    monitor.refresh(1.0)
    assert monitor.ids() == [3, 4, 2, 1]
    assert (monitor.view.rows.total, monitor.view.rows.fitting) == (3, 3)
    monitor.keys("z")
    assert monitor.ids() == [4, 2, 1]
    monitor.keys("z", "/", *"sport:10003", "enter")
    assert monitor.ids() == [3]
    assert (monitor.view.rows.total, monitor.view.rows.fitting) == (3, 0)


def test_in_a_pause_all_stays_as_it_was() -> None:
    monitor = world_of(4)
    feed(monitor.table, event("DESTROY", 3, src="10.0.0.1", size=9000), 100.0)
    monitor.refresh(1.0)
    monitor.keys("p")
    feed(monitor.table, event("NEW", 9, src="10.0.0.7"), 101.0)
    feed(monitor.table, event("DESTROY", 4, src="10.0.0.2"), 101.0)
    monitor.refresh(3.0)
    view = monitor.view
    assert view.pause is not None
    assert (monitor.ids(), view.pause.held(monitor.table)) == ([3, 4, 2, 1], 2)
    first = [facts_of_row(view, flow).now for flow in view.rows.order]
    assert first == [101.0] * 4  # as they were when the pause began
    monitor.refresh(5.0)
    assert [facts_of_row(view, flow).now for flow in view.rows.order] == first
    assert facts_of_row(view, view.rows.order[0]).flow is not view.rows.order[0]
    assert facts_of_row(view, view.rows.order[0]).names
    monitor.keys("n")
    assert not facts_of_row(view, view.rows.order[0]).names
    assert [facts_of_row(view, flow).now for flow in view.rows.order] == first
    monitor.keys("z")
    assert monitor.ids() == [2, 1]
    monitor.keys("7")
    assert [happening.event for happening in view.rows.order] == ["destroy"]
    assert view.rows.total == 1
    monitor.keys("p")
    assert [happening.event for happening in view.rows.order] == ["destroy", "new", "destroy"]
    assert not monitor.view.pause
    monitor.keys("1")
    assert facts_of_row(view, view.rows.order[0]).flow is view.rows.order[0]


def test_the_row_that_took_the_place_of_the_selected_one_is_selected() -> None:
    monitor = world_of(5, closed=False)
    monitor.keys("j", "j")
    feed(monitor.table, event("DESTROY", 4, src="10.0.0.2"), 101.0)
    monitor.refresh(2.0)
    assert (monitor.selected(), monitor.view.at) == (3, 1)
    assert monitor.view.flow is monitor.view.selected
    for number, src in ((1, 2), (2, 3), (3, 1)):
        feed(monitor.table, event("DESTROY", number, src=f"10.0.0.{src}"), 103.0)
    monitor.refresh(2.0)
    assert (monitor.selected(), monitor.view.at) == (5, 0)


def test_the_nat_view_looks_back() -> None:
    monitor = Monitor([line(1, reply_dst="203.0.113.1"), line(2), line(3, reply_dst="203.0.113.1")], sort="source")
    feed(monitor.table, event("DESTROY", 3, reply_dst="203.0.113.1"), 101.0)
    monitor.table.linger = 0.0
    monitor.refresh(50.0)
    monitor.keys("6")
    assert sorted(monitor.ids()) == [1, 3]
    assert (monitor.view.rows.total, monitor.view.rows.fitting) == (2, 2)
    monitor.keys("z")
    assert monitor.ids() == [1]
    monitor.keys("z", "/", *"sport:10003", "enter")
    assert (monitor.ids(), monitor.view.rows.total, monitor.view.rows.fitting) == ([3], 2, 1)


def test_the_map_shows_hosts_that_have_a_place() -> None:
    somewhere = Lookups(coordinates={"9.9.9.2": (1.0, 2.0)}.get)
    monitor = Monitor([line(n, dst=f"9.9.9.{n}") for n in range(1, 4)], somewhere)
    monitor.keys("8")
    assert [row.key for row in monitor.view.rows.order] == ["9.9.9.2"]
    assert len(monitor.view.rows.groups) == 3


def test_sums_are_of_what_the_filter_wants() -> None:
    monitor = world_of(6)
    monitor.keys("/", *"sport:10002-10004", "enter", "2")
    view = monitor.view
    assert {row.key: row.flows for row in view.rows.order} == {"10.0.0.1": 1, "10.0.0.2": 1, "10.0.0.3": 1}
    assert (view.rows.total, view.rows.fitting) == (6, 3)
    monitor.keys("s")
    assert {row.key: row.share for row in view.rows.order}["10.0.0.1"] == pytest.approx(3 / 9)
    monitor.keys("7")
    assert (view.rows.order, view.rows.total, view.rows.fitting) == ([], 0, 0)


@pytest.mark.parametrize("limit", [None, 3, 1, 0, 99])
@pytest.mark.parametrize("falling", [False, True])
def test_the_first_few_are_those_of_the_whole_order(limit: int | None, falling: bool) -> None:
    keys = [number * 7 % 50 // 2 for number in range(50)]
    whole = in_order(range(50), keys, falling)
    assert whole == sorted(range(50), key=keys.__getitem__, reverse=falling)
    assert in_order(range(50), keys, falling, limit)[:limit] == whole[:limit]
    if limit is not None and limit < 5:
        assert len(in_order(range(50), keys, falling, limit)) == limit


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from("ab"))), st.booleans(), st.integers(1, 5))
def test_an_order_by_steps_is_the_same_order(keys: list[tuple[int, str]], falling: bool, at_once: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("view.SORTED_AT_ONCE", at_once)
        steps = in_order_by_steps(range(len(keys)), keys, falling)
        ordered = run_to_end(steps)
    assert ordered == in_order(range(len(keys)), keys, falling)


def test_no_step_of_an_order_takes_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, sizes = range(20_000), list[int]()

    def noted(rows: Sequence[int], keys: Sequence[int], falling: bool) -> list[int]:
        sizes.append(len(rows))
        return in_order(rows, keys, falling)

    monkeypatch.setattr("view.in_order", noted)
    assert run_to_end(in_order_by_steps(rows, [row * 7919 % 20_011 for row in rows], True))[0] == 18_980
    assert max(sizes) <= 2 * SORTED_AT_ONCE


def run_to_end(steps: Generator[None, None, list[Any]]) -> list[Any]:
    """What a generator returns."""
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return list(end.value)


def test_long_work_is_done_in_pieces_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("view.ROWS_AT_ONCE", 2)
    monitor = world_of(9)
    view = monitor.view
    view.set_filter("port:443")
    steps = iter([False, False, True])
    assert refresh(view, monitor.table, monitor.now, lambda: next(steps))
    assert view.rows.working
    assert view.rows.sifting
    assert not view.rows.reordering
    assert 0 < len(view.rows.order) < 9
    assert refresh(view, monitor.table, monitor.now)
    assert not view.rows.working
    assert len(view.rows.order) == 9
    assert not view.rows.sifting
    assert not refresh(view, monitor.table, monitor.now + 0.5)
    assert refresh(view, monitor.table, monitor.now + 1.0)


# --- --once -----------------------------------------------------------------------------------------------------------


def wanted_of(context: Context, view: str = "connections", expression: str = "", **more: Any) -> RowsWanted:
    """The rows that --once wants."""
    spec = VIEW_BY_NAME[view]
    sort, reverse = more.get("sort") or spec.once or spec.sort, more.get("reverse", False)
    return RowsWanted(
        *(spec, expression, sort, reverse, spec.translated),
        predicate=compile_filter(expression, context),
        at_once=True,
        limit=more.get("limit"),
    )


def once(table: FlowTable, format: str = "text", **asked: Any) -> str:
    own, epoch = frozenset({"10.0.0.1"}), 1_795_386_000.0
    context = Context(Lookups(lambda _address: Place("DE")), now=110.0, own=own, epoch=lambda: epoch)
    wanted = wanted_of(context, **asked)
    found = Rows(context).all(wanted, table)
    if format == "text":
        return table_text(wanted.spec, found, context)
    return "".join(view_texts(wanted.spec.grouping, found, format, context, "1795386413.5"))


def test_once() -> None:
    monitor = world_of(3)
    text = once(monitor.table)
    assert [row.split()[3] for row in text.splitlines()[1:]] == ["192.0.2.1:443"] * 3
    assert [row.split()[2] for row in text.splitlines()[1:]] == ["10.0.0.1:10003", "10.0.0.3:10002", "10.0.0.2:10001"]
    assert text.splitlines()[0].split() == [
        column.title for column in FLOW_COLUMNS if column.key not in ("natkind", "name", "process", "node")
    ]
    assert [row.split()[2] for row in once(monitor.table, reverse=True, limit=1).splitlines()[1:]] == ["10.0.0.2:10001"]
    assert once(monitor.table, sort="source").splitlines()[1].split()[2] == "10.0.0.1:10003"
    items = [json.loads(text) for text in once(monitor.table, format="json", expression="sport:10002").splitlines()]
    assert [(item["id"], item["event"], item["time"]) for item in items] == [(2, "list", "2026-11-22T22:26:53.500000Z")]
    csv = once(monitor.table, format="csv", limit=1).splitlines()
    assert len(csv) == 2
    assert csv[0].startswith("node,time,event,")


def test_once_in_other_views() -> None:
    monitor = world_of(3)
    feed(monitor.table, event("DESTROY", 1, src="10.0.0.2", state="CLOSE"), 105.0)
    feed(monitor.table, event("NEW", 5, src="10.0.0.9", reply_dst="203.0.113.1"), 106.0)
    events = [json.loads(text) for text in once(monitor.table, format="json", view="events").splitlines()]
    assert [(item["event"], item["state"], item["id"]) for item in events] == [
        ("new", "ESTABLISHED", 5),
        ("destroy", "CLOSE", 1),
    ]
    assert events[0]["time"] == "2026-11-22T22:21:46.000000Z"
    only = [
        json.loads(text)
        for text in once(monitor.table, format="json", view="events", expression="state:close").splitlines()
    ]
    assert [item["id"] for item in only] == [1]
    hosts = [json.loads(text) for text in once(monitor.table, format="json", view="hosts").splitlines()]
    assert [(item["host"], item.get("bytes_in")) for item in hosts] == [
        ("10.0.0.1", 3000),
        ("10.0.0.3", 2000),
        ("10.0.0.9", None),  # its NEW has no counters
    ]
    assert (
        once(monitor.table, format="csv", view="countries")
        .splitlines()[0]
        .startswith("node,country,country_name,flows,")
    )
    nat = [json.loads(text) for text in once(monitor.table, format="json", view="nat").splitlines()]
    assert [item["id"] for item in nat] == [5]
    feed(monitor.table, event("DESTROY", 5, src="10.0.0.9", reply_dst="203.0.113.1"), 107.0)
    (ended,) = [json.loads(text) for text in once(monitor.table, format="json", view="nat").splitlines()]
    assert (ended["event"], ended["time"], "inferred" in ended) == ("destroy", "2026-11-22T22:21:47.000000Z", False)
    assert "1s" in once(monitor.table, view="events")


def test_keys_made_ahead_are_those_of_the_first_flows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("view.AHEAD", 2)
    table, context = FlowTable(), Context(now=2.0)
    wanted, rows = wanted_of(context, sort="source"), Rows(context)
    for number in (3, 1, 2, 5, 4):
        for row in split_lines(line(number, src=f"10.0.0.{number}").encode())[0]:
            table.listed(row, 1.0)
        rows.look_ahead(wanted, table)
    assert len(rows._early[0]) == len(rows._early[1]) == 4
    found = rows.all(wanted, table)
    text = table_text(wanted.spec, found, context)
    assert [row.split()[2] for row in text.splitlines()[1:]] == [f"10.0.0.{n}:1000{n}" for n in range(1, 6)]
    assert VIEW_BY_NAME["connections"].sort == "rate"
    for gone, left in (((4, 5), [1, 2, 3]), ((3,), [1, 2])):  # of the flows with keys the last, then the first
        for number in gone:
            feed(table, event("DESTROY", number, src=f"10.0.0.{number}"), 3.0)
        after = Rows(context)
        after._early = rows._early
        assert [flow.record().id for flow in after.all(wanted, table)] == left


def test_a_clock_that_is_stepped_moves_all_that_is_told_of_the_clock() -> None:
    """A router without a clock battery was wrong by the step ever after."""
    clock = [0.0]  # of a router that has just been switched on
    context = Context(now=110.0, epoch=lambda: clock[0])
    monitor = world_of(1)
    feed(monitor.table, event("DESTROY", 1, src="10.0.0.2", state="CLOSE"), 105.0)
    for clock[0], told in ((1_000_000_000.0, "2001-09-09T01:48:25"), (1_795_386_000.0, "2026-11-22T22:21:45")):
        for name in ("nat", "events"):
            wanted = wanted_of(context, name)
            if name == "nat":
                rows = [flow for flow in monitor.table.closed if flow.ended]
            else:
                rows = Rows(context).all(wanted, monitor.table)[:1]
            (line,) = view_texts(None, rows, "json", context, None)
            assert json.loads(line)["time"].startswith(told)
        there = compile_filter(f"at:{told[:16]}", context)
        assert there is not None
        assert there(monitor.table.closed[0])


@pytest.mark.usefixtures("_utc")
def test_a_time_before_the_watch_began_is_not_answered() -> None:
    context = Context(now=110.0, epoch=lambda: 1_795_386_000.0)  # 22:21:50
    table = world_of(1).table
    assert table.since == 100.0  # 22:21:40
    for expression, early in (
        ("at:22:20", True),
        ("at:22:21:39", True),
        ("at:22:21:40", False),
        ("at:22:21:50", False),
    ):
        assert bool(unwatched(f"wan:192.0.2.1 {expression}", context, table, True)) == early, expression
    assert unwatched("at:22:20,22:21:45", context, table, True) == "monitored only since 22:21:40 UTC"
    assert unwatched("at:never", context, table, True) == unwatched("proto:tcp", context, table, True) == ""


@pytest.mark.usefixtures("_utc")
def test_what_has_ended_is_kept_for_a_while_and_that_is_said() -> None:
    """at: of a minute ago found nothing in Connections, where what has ended stays 5 s, and nobody said why."""
    context = Context(now=200.0, epoch=lambda: 1_795_386_000.0)  # 22:23:20
    table = FlowTable(linger=5.0, past=3)
    table.watch(100.0)
    assert unwatched("at:22:23:14", context, table, False) == "ended flows are known only since 22:23:15 UTC"
    assert unwatched("at:22:23:15", context, table, False) == ""
    assert unwatched("at:22:21:40", context, table, True) == ""
    for number, at in enumerate((120.0, 130.0, 140.0, 150.0)):
        feed(table, event("NEW", number), at - 5.0)
        feed(table, event("DESTROY", number), at)
    assert unwatched("at:22:22:09", context, table, True) == "ended flows are known only since 22:22:10 UTC"
    assert unwatched("at:22:22:10", context, table, True) == ""
    assert unwatched("at:07:00", context, table, True) == "monitored only since 22:21:40 UTC"


def test_a_recording_without_times_says_that_it_has_none() -> None:
    table = FlowTable()
    feed(table, event("NEW", 1), 0.0)
    assert unwatched("at:07:00", Context(now=0.0), table, True) == "the recording has no times"


def test_what_has_arrived_stays_though_the_tape_runs_over_before_it_is_on_show() -> None:
    """A new order of the rows is begun between the arrival and the next merge: a listing has ended."""
    monitor = Monitor()
    monitor.view.show("events")
    monitor.view.set_filter("port:7777")
    monitor.refresh(1.0)
    (wanted, *others) = split_lines((event("NEW", 0, dport=7777) + event("NEW", 1)).encode())[0]
    monitor.table.event(wanted, monitor.now)
    monitor.view.rows.hear(monitor.table)
    for _ in range(TAPE + 1):
        monitor.table.event(others[0], monitor.now)
    monitor.view.rows.hear(monitor.table)
    monitor.view.rows.expire()
    monitor.refresh(0.0)
    assert [shown.flow.ports()[1] for shown in monitor.view.rows.order] == [b"7777"]


def test_the_sum_of_many_rows_is_made_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_module, "MANY_ROWS", 1)
    monitor = Monitor([line(1, size=1000), line(2, size=1000)])
    first = monitor.view.rows.sum
    assert isinstance(first, FlowSum)
    assert first.total() == 4000
    monitor.refresh(30.0)
    assert monitor.view.rows.sum is first
    monitor.refresh(31.0)
    assert monitor.view.rows.sum is not first
