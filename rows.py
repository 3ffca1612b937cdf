"""Which rows there are, in which order: all flows ranked by a column, then sifted by the filter.

To order 200,000 flows takes 0.03 to 0.4 s, and so does a filter. Both go piece by piece, so that no key waits for the
rest. A filter goes through the flows in the order in which they are shown: what it has found after a moment is the
first page.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Generator, Iterator
from copy import copy
from dataclasses import replace
from typing import Any

from columns import BY_KEY, Shown, shown
from fields import Context
from flow import Flow
from flows import FlowTable
from view import View, keep_in_sight

REFRESH = 1.0  # seconds between two new orders of the rows: numbers that move faster can't be read
PIECE = 500  # flows between two looks at the clock: 1 ms of the slowest filters
KEYED = 4000  # ... of the slowest sort keys: 7 ms
MANY = 20_000  # flows whose order takes longer than a frame: a new filter takes the order that is there


def refresh(view: View, table: FlowTable, now: float, enough: Callable[[], bool] = lambda: False) -> bool:
    """Put the rows into order if that is due, or go on with it until it is done or ``enough``.

    Returns whether there was anything to do; ``view.work`` tells whether there still is.
    """
    view.context.now = now
    view.context.own = table.own
    if view.paused:
        view.held = table.events - view.events_at_pause
    if not (view.made == view.wishes if view.paused else view.arranged <= now < view.due):
        view.partial = view.made[:4] != view.wishes[:4]
        takes = view.made[:1] != view.wishes[:1] and view.ranked_for == view.wishes[1:] and len(view.ranked) > MANY
        view.due, view.arranged, view.made = math.inf, now, view.wishes
        view.work = _order(view, table, takes)
    if view.work is None:
        return False
    for _ in view.work:
        if enough():
            if view.partial and not view.ranking:
                _show_found(view, whole=False)
            return True
    view.work = None
    view.due = now + REFRESH
    return True


def _order(view: View, table: FlowTable, takes: bool) -> Iterator[None]:
    """Put the rows into order, or take the one that is there; it may be left off, or given up, at each yield."""
    view.ranking, view.found = not takes, []
    if not takes:
        view.ranked = yield from _ranked(view, table)
        view.ranking, view.ranked_for = False, view.made[1:]
    if view.predicate is not None:
        yield from _sift(view)
        return
    view.order = view.ranked
    view.fitting = view.total if not view.paused else sum(1 for flow in view.order if flow.ended is None)
    _follow(view)


def _ranked(view: View, table: FlowTable) -> Generator[None, None, list[Flow]]:
    """All flows, in the order that is wished for."""
    flows = list(view.stock if view.paused else table.live.values())
    if view.paused and not view.closed:
        flows = [flow for flow in flows if flow.ended is None]
    if not view.paused:
        view.total = len(flows)
        if view.closed:
            flows += table.closed
    if view.frozen and view.ranked:
        there = dict.fromkeys(flows)
        kept = [flow for flow in view.ranked if flow in there]
        for flow in kept:
            del there[flow]
        return [*kept, *there]
    column = BY_KEY[view.sort]
    keys: list[Any] = []
    for at in range(0, len(flows), KEYED):
        keys += column.keys(flows[at : at + KEYED], view.context)
        yield
    return in_order(flows, keys, column.descending != view.reverse)


def _sift(view: View) -> Iterator[None]:
    wanted, ranked = view.predicate, view.ranked
    assert wanted is not None
    for at in range(0, len(ranked), PIECE):
        view.found += filter(wanted, ranked[at : at + PIECE])
        yield
    _show_found(view, whole=True)


def _show_found(view: View, whole: bool) -> None:
    """What the filter has found (so far, if it is not the ``whole``) is on show."""
    view.order = view.found
    view.fitting = sum(1 for flow in view.found if flow.course.ended is None)
    _follow(view, whole)


def arrange(flows: list[Flow], sort: str, reverse: bool, context: Context, limit: int | None = None) -> list[Flow]:
    """Sorted by a column, in its natural direction or the other; equal flows keep the order they came in."""
    column = BY_KEY[sort]
    return in_order(flows, column.keys(flows, context), column.descending != reverse, limit)


def in_order(flows: list[Flow], keys: list[Any], falling: bool, limit: int | None = None) -> list[Flow]:
    """Sorted by keys that are there already; ``limit``: only so many, without sorting all the others."""
    if limit is not None and limit < len(flows) // 10:
        places = (heapq.nlargest if falling else heapq.nsmallest)(limit, range(len(flows)), key=keys.__getitem__)
        return [flows[place] for place in places]
    of_next = iter(keys).__next__  # sort asks for each flow's key once, in their order
    return sorted(flows, key=lambda _flow: of_next(), reverse=falling)


def _follow(view: View, whole: bool = True) -> None:
    """Keep the selection on its flow; if that is gone (from the ``whole``), on the row that took its place."""
    try:
        view.at = 0 if view.selected is None else view.order.index(view.selected)
    except ValueError:
        view.at = min(view.at, max(0, len(view.order) - 1))
        if view.order and view.overlay != "details" and whole:
            view.selected = view.order[view.at]
    keep_in_sight(view)


def row(view: View, flow: Flow) -> Shown:
    """What a row is made of; while paused, as it was when it was first shown in the pause."""
    if not view.paused:
        return shown(flow, view.context, view.names)
    kept = view.cells.get(flow)
    if kept is None:  # a copy: the flow itself lives on
        kept = view.cells[flow] = shown(copy(flow), view.context, view.names)
    return kept if kept.names == view.names else replace(kept, names=view.names)
