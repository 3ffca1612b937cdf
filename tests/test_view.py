"""What is on show: which rows, in which order, the selection, the pause; rows are found piece by piece."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import view
import view as view_module
from addresses import Context, Lookups
from columns import SORTS, VIEW_BY_NAME
from filters import FilterError
from flows import Flow, FlowTable, TapeEvent
from grouping import Grouper, Grouping, service_key
from intake import Status
from keys import NOTHING, press
from parse import split_lines
from render import frame
from support.strategies import blocks
from support.tables import WAN, Monitor, event, feed, lan_monitor, line, listing, twenty
from support.tables import shown as shown_at
from text import Line
from view import MANY_ROWS, ROWS_AT_ONCE, Scene, View, flow_of, refresh


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
    assert any("10.0.0.9:38768" in text and f"{WAN}:38768" in text and "9.9.9.9" in text for text in shown(monitor))
    assert "NAT · 1 of 2 · " in shown(monitor)[2]
    assert any(" 120.000" in text for text in shown_at(monitor, (80, 24)))  # when it ended; "-" while it lives
    monitor.keys("z")
    assert monitor.view.rows.order == []
    assert "NAT · 0 of 1 · " in shown(monitor)[2]


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
    assert any("adding up ..." in text for text in shown(monitor))
    monitor.refresh()
    assert not any("adding up ..." in text for text in shown(monitor))


def test_another_order_while_flows_are_added_up_does_not_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []

    def grouper(grouping: Grouping, context: Context, watched: float | None) -> Grouper:
        begun.append(grouping.by)
        return Grouper(grouping, context, watched)

    monkeypatch.setattr(view, "Grouper", grouper)
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
    assert monitor.view.prompt.error.startswith("at 7: 'foo' is no state")
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
        f"{('tcp 6', 'udp 17')[i % 2]} 100 src=10.0.0.1 dst=192.0.2.1 sport={i} dport=80 "
        f"src=192.0.2.1 dst=10.0.0.1 sport=80 dport={i}\n"
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


@given(block=blocks, sort=st.sampled_from(SORTS), word=st.sampled_from(["proto:tcp", "1", "flag:assured", "!port:53"]))
def test_pieces_come_to_the_same(block: bytes, sort: str, word: str) -> None:
    table = table_of(block)
    whole, pieces = View(Context(), sort=sort), View(Context(), sort=sort)
    for each in (whole, pieces):
        each.set_filter(word)
    refresh(whole, table, 1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(view, "ROWS_AT_ONCE", 1)
        patch.setattr(view, "KEYED", 1)
        while refresh(pieces, table, 1.0, lambda: True) and pieces.rows.working:
            assert pieces.rows.order == whole.rows.order[: len(pieces.rows.order)]
    ours, theirs = pieces.rows, whole.rows
    assert (ours.order, ours.fitting, ours.total) == (theirs.order, theirs.fitting, theirs.total)


def test_what_a_new_filter_has_found_is_shown_at_once() -> None:
    table, view = numbered(5000), View(Context(), sort="source")
    refresh(view, table, 1.0)
    view.set_filter("proto:tcp")
    assert refresh(view, table, 1.1, after(2 + 2))  # a table as small as this is put in order first, in two pieces
    assert view.rows.sifting
    assert ports(view) == list(range(0, 2 * ROWS_AT_ONCE, 2))
    assert refresh(view, table, 9.0)  # it is not begun anew while it goes on, however late it is
    assert not view.rows.working
    assert (len(view.rows.order), view.rows.fitting, view.rows.total) == (2500, 2500, 5000)
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
    press(view, table, "S")  # a key meanwhile: what was begun is given up
    assert view.sort == "state"
    refresh(view, table, 1.2, after(1))
    assert view.rows.reordering
    refresh(view, table, 1.3)
    assert not view.rows.reordering
    assert ports(view)[:2] == [0, 1]
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
