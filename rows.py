"""Which rows there are, in which order: all flows ranked by a column, then sifted by the filter.

A filter takes 0.02 to 0.4 s for 200,000 flows. It goes through them in the order in which they are shown, piece by
piece, so that what it has found after a moment is the first page, and no key waits for the rest.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from copy import copy
from dataclasses import replace

from columns import BY_KEY, Shown, shown
from fields import Context
from flow import Flow
from flows import FlowTable
from view import View, keep_in_sight

REFRESH = 1.0  # seconds between two new orders of the rows: numbers that move faster can't be read
PIECE = 500  # flows between two looks at the clock: 1 ms of the slowest filters
MANY = 20_000  # flows whose order takes longer than a frame: a new filter takes the order that is there


def refresh(view: View, table: FlowTable, now: float, enough: Callable[[], bool] = lambda: False) -> bool:
    """Put the rows into order if that is due, or go on with it until it is done or ``enough``.

    Returns whether there was anything to do; ``view.sifting`` tells whether there still is.
    """
    view.context.now = now
    view.context.own = table.own
    if view.paused:
        view.held = table.events - view.events_at_pause
    if not (view.made == view.wishes if view.paused else view.arranged <= now < view.due):
        view.partial = view.made[:-1] != view.wishes[:-1]
        if not (len(view.ranked) > MANY and _only_filter(view.made, view.wishes)):
            _rank(view, table)
        view.due, view.arranged, view.made = now + REFRESH, now, view.wishes
        _begin(view)
    elif not view.sifting:
        return False
    if view.sifting:
        _sift(view, now, enough)
    return True


def _only_filter(made: tuple[object, ...], wishes: tuple[object, ...]) -> bool:
    """Is the filter all that is new?"""
    return made[2:3] != wishes[2:3] and made[:2] + made[3:] == wishes[:2] + wishes[3:]


def _rank(view: View, table: FlowTable) -> None:
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
        view.ranked = [*kept, *there]
    else:
        view.ranked = arrange(flows, view.sort, view.reverse, view.context)


def _begin(view: View) -> None:
    """Begin to sift; without a filter there is nothing to do."""
    view.sifting = view.predicate is not None
    if view.sifting:
        view.due = math.inf
        view.found, view.sifted = [], 0
    else:
        view.order = view.ranked
        view.fitting = view.total if not view.paused else sum(1 for flow in view.order if flow.ended is None)
        _follow(view)


def _sift(view: View, now: float, enough: Callable[[], bool]) -> None:
    wanted, ranked = view.predicate, view.ranked
    assert wanted is not None
    while view.sifted < len(ranked):
        view.found += filter(wanted, ranked[view.sifted : view.sifted + PIECE])
        view.sifted += PIECE
        if enough():
            break
    view.sifting = view.sifted < len(ranked)
    if view.partial or not view.sifting:
        view.order = view.found
        view.fitting = sum(1 for flow in view.found if flow.course.ended is None)
        _follow(view)
    if not view.sifting:
        view.due = now + REFRESH


def arrange(flows: list[Flow], sort: str, reverse: bool, context: Context, limit: int | None = None) -> list[Flow]:
    """Sorted by a column, in its natural direction or the other; equal flows keep the order they came in.

    ``limit``: only so many, without sorting all the others.
    """
    column = BY_KEY[sort]
    keys = column.keys(flows, context)
    falling = column.descending != reverse
    if limit is not None and limit < len(flows) // 10:
        places = (heapq.nlargest if falling else heapq.nsmallest)(limit, range(len(flows)), key=keys.__getitem__)
        return [flows[place] for place in places]
    of_next = iter(keys).__next__  # sort asks for each flow's key once, in their order
    return sorted(flows, key=lambda _flow: of_next(), reverse=falling)


def _follow(view: View) -> None:
    """Keep the selection on its flow; if that is gone, on the row that took its place."""
    try:
        view.at = 0 if view.selected is None else view.order.index(view.selected)
    except ValueError:
        view.at = min(view.at, max(0, len(view.order) - 1))
        if view.order and view.overlay != "details" and not view.sifting:
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
