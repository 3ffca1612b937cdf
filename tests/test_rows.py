"""The rows: sifted piece by piece they are those that sifting at once gives; what is found first is right at once."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import flow_lines

from addresses import Context
from columns import SORTS, VIEW_BY_NAME
from filters import compile_filter
from flows import FlowTable
from keys import press
from parse import split_lines
from view import MANY_ROWS, ROWS_AT_ONCE, Snapshot, View, refresh

lines = st.lists(flow_lines(), max_size=8).map(b"".join)


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


def ports(view: View) -> list[int | None]:
    return [flow.ends().sport for flow in view.order]


@given(block=lines, sort=st.sampled_from(SORTS), word=st.sampled_from(["proto:tcp", "1", "flag:assured", "!port:53"]))
def test_pieces_come_to_the_same(block: bytes, sort: str, word: str) -> None:
    table = table_of(block)
    whole, pieces = View(Context(), sort=sort), View(Context(), sort=sort)
    for view in (whole, pieces):
        view.set_filter(word)
    refresh(whole, table, 1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(view, "ROWS_AT_ONCE", 1)
        patch.setattr(view, "KEYED", 1)
        while refresh(pieces, table, 1.0, lambda: True) and pieces.work:
            assert pieces.order == whole.order[: len(pieces.order)]
    assert (pieces.order, pieces.fitting, pieces.total) == (whole.order, whole.fitting, whole.total)


def test_what_a_new_filter_has_found_is_shown_at_once() -> None:
    table, view = numbered(5000), View(Context(), sort="source")
    refresh(view, table, 1.0)
    view.set_filter("proto:tcp")
    assert refresh(view, table, 1.1, after(2 + 2))  # a table as small as this is put in order first, in two pieces
    assert view.sifting
    assert ports(view) == list(range(0, 2 * ROWS_AT_ONCE, 2))
    assert view.due == math.inf  # it is not begun anew while it goes on
    assert refresh(view, table, 9.0)
    assert not view.work
    assert (len(view.order), view.fitting, view.total) == (2500, 2500, 5000)
    assert not refresh(view, table, 9.5)


def test_rows_on_show_stay_until_all_new_ones_are_found() -> None:
    table, view = numbered(5000), View(Context(), sort="source")
    view.set_filter("proto:tcp")
    refresh(view, table, 1.0)
    press(view, table, "j")
    press(view, table, "G")
    chosen = view.selected
    refresh(view, table, 3.0, after(1))
    assert view.work
    assert len(view.order) == 2500
    refresh(view, table, 3.1)
    assert view.selected is chosen
    assert view.order[view.at] is chosen


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
    assert view.order[view.at] is chosen


def test_a_new_filter_takes_the_order_of_a_large_table_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    table, view = numbered(MANY_ROWS + 1), View(Context(), sort="source")
    refresh(view, table, 1.0)
    monkeypatch.setattr(view, "_ranked", None)
    view.set_filter("proto:udp")
    refresh(view, table, 1.1)
    assert ports(view) == list(range(1, MANY_ROWS + 1, 2))
    monkeypatch.undo()
    view.reverse = True
    view.due = 0.0
    refresh(view, table, 1.2)
    assert ports(view)[0] == MANY_ROWS - 1


def test_the_old_order_stays_until_the_new_one_is_there() -> None:
    table, view = numbered(5000), View(Context(), sort="source")
    refresh(view, table, 1.0)
    press(view, table, "r")
    assert refresh(view, table, 1.1, after(1))
    assert view.reordering
    assert ports(view)[0] == 0
    press(view, table, "S")  # a key meanwhile: what was begun is given up
    assert view.sort == "state"
    refresh(view, table, 1.2, after(1))
    assert view.reordering
    refresh(view, table, 1.3)
    assert not view.reordering
    assert ports(view)[:2] == [0, 1]
    press(view, table, "s")
    press(view, table, "r")
    refresh(view, table, 1.4)
    assert ports(view)[0] == 4999


@given(block=lines, later=lines, sort=st.sampled_from(SORTS), word=st.sampled_from(["", "proto:tcp"]))
def test_keys_made_ahead_change_nothing(block: bytes, later: bytes, sort: str, word: str) -> None:
    """Also where flows that have keys already end, or others take their place."""
    spec = VIEW_BY_NAME["connections"]

    def snapshot(table: FlowTable) -> Snapshot:
        return Snapshot(table, Context(), spec, sort, wanted=compile_filter(word, Context()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("view.AHEAD", 1)
        table = FlowTable(linger=0.0)
        ahead = snapshot(table)
        for part in (block, later):
            table.begin_listing(0.0)
            table.listed_all(split_lines(part)[0], 0.0)
            ahead.look_ahead()
            table.end_listing(True, 0.0)
    rows = ahead.rows()
    assert rows == snapshot(table).rows()
    plain = View(Context(), sort=sort)
    plain.set_filter(word)
    refresh(plain, table, 1.0)
    assert [flow.record().id for flow in rows] == [flow.record().id for flow in plain.order]
