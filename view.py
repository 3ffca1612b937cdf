"""What is on show: choices and selection, and the job that puts rows into order."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import compress, islice
from operator import is_
from typing import Any

from addresses import Context
from columns import VIEW_BY_NAME, VIEWS, FlowFacts, ViewSpec, facts_of
from filters import Predicate, all_of, compile_filter
from flows import Flow, FlowTable, TapeEvent, tape_events
from grouping import Baseline, Grouper, GroupRow, group_key, shares
from health import NOTHING_AROUND, Shares, Surroundings
from intake import Status
from text import UNICODE, Glyphs

# --- choices ----------------------------------------------------------------------------------------------------------

GEO_MODES = ("auto", "country", "network", "city", "off")
Row = Flow | GroupRow | TapeEvent


@dataclass
class Prompt:
    """The one-line prompt: its text, where the cursor is, what was there before; ``purpose`` says what it is for."""

    text: str
    cursor: int
    before: str
    error: str = ""
    purpose: str = "filter"  # or "export", "delete"


@dataclass(frozen=True)
class Return:
    """Where Enter has led away from: Esc goes back there."""

    kind: ViewSpec
    filter: str
    selected: Row | None


@dataclass
class View:
    """The state of the interface."""

    context: Context
    base: Predicate | None = None  # from the command line's flags: always applied
    sort: str = ""  # "": the view's own
    reverse: bool = False
    kind: ViewSpec = VIEWS[0]
    filter: str = ""
    wanted: Predicate | None = None
    baseline: Baseline | None = None  # what was known when somebody asked what comes new
    prompt: Prompt | None = None
    history: list[str] = field(default_factory=list)  # filters that were kept, newest last
    sorts: dict[str, tuple[str, bool]] = field(default_factory=dict)  # how views that were left were sorted
    trail: list[Return] = field(default_factory=list)
    paused: bool = False
    held: int = 0  # events since the pause began
    frozen: bool = False
    closed: bool = True  # closed flows are shown while they linger
    names: bool = True
    geo: str = "auto"
    overlay: str = ""  # "", "help", "health", "details" or "delete"
    scroll: int = 0  # of the overlay
    shift: int = 0  # columns scrolled away to the left
    selected: Row | None = None
    flow: Flow | None = None  # the flow that was selected last, or that of the event selected last
    at: int = 0  # where the selected row stands in ``order``
    top: int = 0  # the first row on screen
    order: list[Any] = field(default_factory=list)  # the rows: flows, sums or events, as ``kind`` has it
    page: int = 10  # rows on screen, told by the renderer
    message: str = ""
    question: list[str] = field(default_factory=list)  # what is about to be deleted
    total: int = 0  # live flows, and of these
    fitting: int = 0  # those that the filter wants
    due: float = 0.0  # when the next new order is due
    arranged: float = 0.0  # when the present one was made: a clock that went back is no reason to wait
    events_at_pause: int = 0
    stock: list[Flow] = field(default_factory=list)  # while paused: the flows that were there when it began
    tape: list[TapeEvent] = field(default_factory=list)  # ... and the events
    cells: dict[Flow, FlowFacts] = field(default_factory=dict)  # ... and the flows' rows as they were
    made: tuple[object, ...] = ()  # what ``order`` was made for: sort, filter and the like
    work: Iterator[None] | None = None  # the ordering that goes on
    ranked: list[Flow] = field(default_factory=list)  # all flows in their order, wanted or not
    ranked_for: tuple[object, ...] = ()  # the part of ``made`` that it was made for
    ranking: bool = False  # ``work`` has not come to the filter yet
    sums: list[GroupRow] = field(default_factory=list)  # as they were added up last
    summing: bool = False  # ``work`` adds flows up
    summed_for: tuple[object, ...] = ()  # what for
    found: list[Any] = field(default_factory=list)  # what the filter has found so far
    partial: bool = False  # ... and that is on show: it is not yet what was on show before

    def __post_init__(self) -> None:
        self.sort = self.sort or self.kind.sort

    @property
    def predicate(self) -> Predicate | None:
        return all_of((self.base, self.wanted))

    @property
    def wishes(self) -> tuple[object, ...]:
        """All that the order of the rows depends on, beside the flows themselves."""
        return self.filter, self.sort, self.reverse, self.closed, self.kind.name, self.frozen

    @property
    def falling(self) -> bool:
        return self.kind.falling(self.sort, self.reverse)

    @property
    def sifting(self) -> bool:
        """Is what is on show only what a new filter has found so far?"""
        return self.work is not None and self.partial and not self.ranking

    @property
    def reordering(self) -> bool:
        """Is what is on show still in an order that nobody wants any more?"""
        return self.work is not None and self.partial and self.ranking

    def set_filter(self, text: str) -> None:
        """Raises FilterError, and changes nothing then."""
        self.wanted = compile_filter(text, self.context, lambda: self.baseline)
        self.filter = text.strip()
        self.due = 0.0

    def show(self, name: str) -> None:
        """Change to another view; the selected flow, or the row that it belongs to, stays selected."""
        kind = VIEW_BY_NAME[name]
        if kind is self.kind:
            return
        self.sorts[self.kind.name] = self.sort, self.reverse
        self.kind = kind
        self.sort, self.reverse = self.sorts.get(name, (kind.sort, False))
        self.frozen = False
        self.overlay = ""
        self.order, self.found, self.top, self.at, self.shift = [], [], 0, 0, 0
        self.selected = None
        if self.flow is not None and kind.rows == "flows":
            self.selected = self.flow
        elif self.flow is not None and kind.grouping is not None:
            self.selected = GroupRow(group_key(self.flow, kind.grouping, self.context))
        self.due = 0.0

    def select(self, at: int) -> None:
        if self.order:
            self.at = max(0, min(at, len(self.order) - 1))
            self.selected = self.order[self.at]
            self.remember()
            keep_in_sight(self)

    def remember(self) -> None:
        """Which flow is meant, also for the other views."""
        self.flow = flow_of(self.selected) or self.flow


def flow_of(row: Row | None) -> Flow | None:
    """The flow that a row is or tells of; None for one that stands for many."""
    return None if isinstance(row, GroupRow) else row.flow if isinstance(row, TapeEvent) else row


def keep_in_sight(view: View) -> None:
    """Scroll so that the selected row is on screen, and no line below the last row is wasted."""
    if view.selected is not None:
        view.top = min(view.top, view.at)
        view.top = max(view.top, view.at - view.page + 1)
    view.top = max(0, min(view.top, len(view.order) - view.page))


# --- what a frame is made of ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """All that a frame is made of."""

    view: View
    table: FlowTable
    status: Status
    source: str
    live: bool
    glyphs: Glyphs = UNICODE
    shares: Shares | None = None  # who fills the table, as counted last
    around: Surroundings = NOTHING_AROUND

    @property
    def now(self) -> float:
        return self.view.context.now


# --- putting rows into order ------------------------------------------------------------------------------------------

REFRESH = 1.0  # seconds between two new orders of the rows: numbers that move faster can't be read
ROWS_AT_ONCE = 500  # flows between two looks at the clock: 1 ms of the slowest filters
KEYED = 4000  # ... of the slowest sort keys: 7 ms
MAPPED = 5000  # remote ends on the map at most, those with the most: 10 ms a frame
MANY_ROWS = 20_000  # flows whose order takes longer than a frame: a new filter takes the order that is there


def refresh(view: View, table: FlowTable, now: float, enough: Callable[[], bool] = lambda: False) -> bool:
    """Put the rows into order if that is due, or go on with it until it is done or ``enough``.

    Returns whether there was anything to do; ``view.work`` tells whether there still is.
    """
    view.context.advance(now, table.own)
    if view.paused:
        view.held = table.events - view.events_at_pause
    if not (view.made == view.wishes if view.paused else view.arranged <= now < view.due):
        view.partial = view.made[:-1] != view.wishes[:-1]
        takes = view.made[:1] != view.wishes[:1] and view.ranked_for == view.wishes[1:] and len(view.ranked) > MANY_ROWS
        # While flows are added up, another order is no reason to begin anew: it comes afterwards.
        goes_on = view.summing and view.made[:1] + view.made[3:] == view.wishes[:1] + view.wishes[3:]
        view.due, view.arranged, view.made = math.inf, now, view.wishes
        if not goes_on:
            view.work = _work(view, table, takes)
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


def _work(view: View, table: FlowTable, takes: bool) -> Iterator[None]:
    """Make the rows; it may be left off, or given up, at each yield. ``takes``: the order of flows that is there."""
    view.ranking, view.found, view.summing = not takes, [], False
    mark = view.baseline
    if mark is not None and not mark.complete:
        yield from _learn(table, mark)
    if view.kind.rows in ("sums", "map"):
        yield from _sum_up(view, table)
    elif view.kind.rows == "events":
        yield from _play_tape(view, table)
    else:
        if not takes:
            view.ranked = yield from _ranked(view, table)
            view.ranked_for = view.made[1:]
        view.ranking = False
        yield from _sift(view)


def _pieces(rows: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """The rows, as many at once as may pass before keys have their turn."""
    for at in range(0, len(rows), size):
        yield rows[at : at + size]


def _learn(table: FlowTable, mark: Baseline) -> Iterator[None]:
    for piece in _pieces([*table.live.values(), *table.past], ROWS_AT_ONCE):
        for flow in piece:
            if flow.born <= mark.at:
                mark.learn(flow)
        yield
    mark.finish()


def _live(view: View, table: FlowTable) -> list[Flow]:
    """The flows that are there, or were when the pause began."""
    flows = [flow for flow in view.stock if flow.ended is None] if view.paused else list(table.live.values())
    if view.kind.name != "nat":  # which counts its rows
        view.total = len(flows)
    return flows


# --- views of flows ---------------------------------------------------------------------------------------------------


def _ranked(view: View, table: FlowTable) -> Generator[None, None, list[Flow]]:
    """All flows of the view, in the order that is wished for."""
    if view.paused:
        flows = view.stock if view.closed else [flow for flow in view.stock if flow.ended is None]
    else:
        flows = _live(view, table)
        if view.closed:
            flows += table.closed
    if view.kind.name == "nat":  # the question who it was is mostly asked of what is gone
        there = dict.fromkeys([*flows, *table.past] if view.closed else flows)
        flows = [flow for flow in there if not flow.plain]  # quick; the few that NAT leaves alone go later
    if view.frozen and view.ranked:
        there = dict.fromkeys(flows)
        kept = [flow for flow in view.ranked if flow in there]
        for flow in kept:
            del there[flow]
        return [*kept, *there]
    return (yield from _ordered(view, flows))


def _sift(view: View) -> Iterator[None]:
    wanted, nat, translated = view.predicate, view.kind.name == "nat", 0
    if wanted is None and not nat:
        view.found = view.ranked
    else:
        for piece in _pieces(view.ranked, ROWS_AT_ONCE):
            if nat:
                piece = [flow for flow in piece if flow.ends().nat]
                translated += len(piece)
            view.found += filter(wanted, piece)
            yield
    view.total = translated if nat else view.total  # not before it is the whole: a frame may come in between
    _show_found(view, whole=True)


# --- views of what flows come to --------------------------------------------------------------------------------------


def _sum_up(view: View, table: FlowTable) -> Iterator[None]:
    assert view.kind.grouping is not None
    summed_for = view.filter, view.kind.name, view.paused
    if not (view.partial and view.summed_for == summed_for):  # only the order is new: the sums are not
        tally, wanted, view.summing = Grouper(view.kind.grouping, view.context), view.predicate, True
        for piece in _pieces(_live(view, table), ROWS_AT_ONCE):
            tally.add(piece if wanted is None else list(filter(wanted, piece)))
            yield
        view.sums, view.summed_for, view.fitting = list(tally.sums.values()), summed_for, tally.flows
    view.summing = False
    shares(view.sums, view.sort)
    yield
    view.found = yield from _ordered(view, view.sums)
    if view.kind.rows == "map":
        view.found = [row for row in view.found[:MAPPED] if view.context.coordinates(row.key) is not None]
    view.ranking = False
    _show_found(view, whole=True)


def _play_tape(view: View, table: FlowTable) -> Iterator[None]:
    """Events, the newest first."""
    tape = view.tape if view.paused else tape_events(table)
    view.total, wanted = len(tape), view.predicate
    found: list[TapeEvent] = []
    for piece in _pieces(tape[::-1], ROWS_AT_ONCE):
        found += [happening for happening in piece if wanted is None or wanted(happening.flow)]
        yield
    view.fitting = len(found)
    view.found = in_order(found, view.kind.column(view.sort).keys(found, view.context), view.falling)
    view.ranking = False
    _show_found(view, whole=True)


# --- what all have in common ------------------------------------------------------------------------------------------


def _show_found(view: View, whole: bool) -> None:
    """What was found (so far, if it is not the ``whole``) is on show."""
    view.order = view.found
    if view.kind.name == "nat":  # whether they go on or not
        view.fitting = len(view.found)
    elif view.kind.rows == "flows":
        all_of_them = view.predicate is None and not view.paused
        view.fitting = view.total if all_of_them else sum(1 for flow in view.found if flow.course.ended is None)
    _follow(view, whole)


def _ordered(view: View, rows: Sequence[Any]) -> Generator[None, None, list[Any]]:
    """The rows in the order that is wished for. Its last step takes 15 to 50 ms; with pieces sorted before it more."""
    keys: list[Any] = []
    column = view.kind.column(view.sort)
    for piece in _pieces(rows, KEYED):
        keys += column.keys(piece, view.context)
        yield
    return in_order(rows, keys, view.falling)


def in_order(flows: Sequence[Any], keys: Sequence[Any], falling: bool, limit: int | None = None) -> list[Any]:
    """Sorted by keys that are there already; ``limit``: only so many, without sorting all the others."""
    if limit is not None and limit < len(flows) // 10:
        places = (heapq.nlargest if falling else heapq.nsmallest)(limit, range(len(flows)), key=keys.__getitem__)
        return [flows[place] for place in places]
    of_next = partial(next, iter(keys))  # sort asks for each flow's key once, in their order; what it gives is unused
    return sorted(flows, key=of_next, reverse=falling)


def _follow(view: View, whole: bool = True) -> None:
    """Keep the selection on its row; if that is gone (from the ``whole``), on the one that took its place."""
    try:
        view.at = 0 if view.selected is None else _position(view.order, view.selected)
        if view.selected is not None:
            view.selected = view.order[view.at]  # of a sum that was counted anew the new one
    except ValueError:
        view.at = min(view.at, max(0, len(view.order) - 1))
        if view.order and view.overlay != "details" and whole:
            view.selected = view.order[view.at]
            view.remember()
    keep_in_sight(view)


def _position(order: list[Any], selected: Row) -> int:
    """Raises ValueError if it is not there. Of sums the keys are looked through: 200,000 in 5 ms instead of 30."""
    return [row.key for row in order].index(selected.key) if isinstance(selected, GroupRow) else order.index(selected)


def facts_of_row(view: View, flow: Flow) -> FlowFacts:
    """What a row is made of; while paused, as it was when it was first shown in the pause."""
    if not view.paused:
        return facts_of(flow, view.context, view.names)
    kept = view.cells.get(flow)
    if kept is None:  # a copy: the flow itself lives on
        kept = view.cells[flow] = facts_of(copy(flow), view.context, view.names)
    return kept if kept.names == view.names else replace(kept, names=view.names)


# --- for --once -------------------------------------------------------------------------------------------------------

AHEAD = 5000  # flows whose sort keys are made at once: 4 ms
KEYED_EARLY = ("bytes", "packets", "source", "destination")  # columns whose keys need the flow's line only


class Snapshot:
    """The rows of one moment in order, part of the work done while the table grows."""

    def __init__(
        self,
        table: FlowTable,
        context: Context,
        spec: ViewSpec,
        sort: str | None = None,
        reverse: bool = False,
        wanted: Predicate | None = None,
        limit: int | None = None,
    ) -> None:
        self.spec = spec
        self._table, self._context, self._wanted, self._limit = table, context, wanted, limit
        self._sort = sort or spec.once or spec.sort
        self._falling = spec.falling(self._sort, reverse)
        self._keys: list[Any] = []  # of the first flows of the table, which are these
        self._flows: list[Flow] = []

    def look_ahead(self) -> None:
        """Make sort keys while conntrack goes on: 0.15 s of 200,000 flows are not to come after its last line."""
        missing = len(self._table) - len(self._flows)
        if self.spec.name == "connections" and self._sort in KEYED_EARLY and missing >= AHEAD:
            new = list(islice(reversed(self._table.live.values()), missing))[::-1]
            self._flows += new
            self._keys += self.spec.column(self._sort).keys(new, self._context)

    def rows(self) -> list[Any]:
        """The rows that are wanted, in order, at the moment that the context has."""
        rows, keys = self._keyed()
        return in_order(rows, keys, self._falling, self._limit)[: self._limit]

    def _keyed(self) -> tuple[list[Any], list[Any]]:
        """The rows that are wanted and their sort keys."""
        context, column, wanted = self._context, self.spec.column(self._sort), self._wanted
        flows: list[Flow] = list(self._table.live.values())
        rows: list[Any] = flows
        keys = self._keys
        if self.spec.rows == "events":
            rows = [event for event in tape_events(self._table) if wanted is None or wanted(event.flow)][::-1]
        elif self.spec.grouping is not None:
            grouper = Grouper(self.spec.grouping, context)
            grouper.add(flows if wanted is None else list(filter(wanted, flows)))
            rows = list(grouper.sums.values())
            shares(rows, self._sort)
        else:
            if self.spec.name == "nat":
                flows = rows = [flow for flow in [*flows, *self._table.past] if flow.ends().nat]
            if not all(map(is_, self._flows, flows)) or len(flows) < len(keys):
                keys = []  # some of the first are there no longer
            keys = keys + column.keys(flows[len(keys) :], context)
            if wanted is not None:
                fitting = [wanted(flow) for flow in flows]
                rows, keys = list(compress(flows, fitting)), list(compress(keys, fitting))
            return rows, keys
        return rows, column.keys(rows, context)
