"""What is on show: the user's choices and selection, and the job that puts the rows into order."""

from __future__ import annotations

import heapq
import math
import re
from bisect import bisect
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence, Set
from copy import copy
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from functools import partial
from itertools import groupby, islice
from operator import is_
from typing import Any, NamedTuple

from addresses import Context
from columns import CLOCKLESS, TIES, VIEW_BY_NAME, VIEWS, FlowFacts, FlowSum, Keys, ViewSpec, facts_of, moment_text
from filters import Predicate, all_of, asks, asks_fans, compile_filter, expanded, moments
from flows import TAPE, AnyTable, Flow, FlowTable, TapeEvent, tape_events
from grouping import (
    BETWEEN,
    Baseline,
    FanCount,
    Grouper,
    GroupRow,
    RateHistory,
    UsageRow,
    group_key,
    row_of,
    shares_of,
    usage_total,
)
from health import NOTHING_AROUND, Notice, Shares, Surroundings
from intake import LATE, Status
from text import UNICODE, Glyphs, Line, clean

Row = Flow | GroupRow | TapeEvent | UsageRow

# --- prompts and questions --------------------------------------------------------------------------------------------


PROMPT_MOST = 500  # characters of a prompt's text


class Purpose(Enum):
    """What a prompt asks for."""

    FILTER = auto()
    EXPORT = auto()  # the name of a file
    ANSWER = auto()  # to the question of a dialog


@dataclass
class Prompt:
    """The one-line prompt: what it is for, its text, where the cursor is, what was there before, what is wrong."""

    purpose: Purpose
    text: str = ""
    cursor: int = 0
    before: str = ""
    error: str = ""
    choices: list[str] = field(default_factory=list)  # what may stand in the place of the word before the cursor
    choice: int = 0  # the one that stands there
    start: int = 0  # where the word begins

    def offer(self, start: int, choices: Sequence[str], step: int) -> None:
        """Put the first of these words (the last if ``step`` is -1) in the place of the one that begins there."""
        self.start, self.choices, self.choice = start, list(choices), -1 if step > 0 else 0
        self.choose(step)
        if len(choices) == 1:
            self.choices = []

    def choose(self, step: int) -> None:
        """The next of the words that are offered."""
        self.choice = (self.choice + step) % len(self.choices)
        self._put(self.text[: self.start] + self.choices[self.choice], self.text[self.cursor :])

    def edit(self, key: str) -> bool:
        """Change the text, or move in it, as a key means. False for a key that does neither."""
        before, after = self.text[: self.cursor], self.text[self.cursor :]
        if len(char := " " if key == "space" else key) == 1 and char.isprintable():
            before += char
        elif key == "backspace":
            before = before[:-1]
        elif key == "delete":
            after = after[1:]
        elif key == "ctrl-u":
            before = ""
        elif key == "ctrl-w":
            before = before.rstrip().rpartition(" ")[0] + " " if " " in before.rstrip() else ""
        elif key in ("left", "right", "home", "end", "ctrl-a", "ctrl-e"):
            end = len(self.text)
            moves = {"left": self.cursor - 1, "right": self.cursor + 1, "home": 0, "ctrl-a": 0}
            self.cursor = max(0, min(moves.get(key, end), end))
            return True
        else:
            return False
        self._put(before, after)
        return True

    def paste(self, text: str) -> None:
        """Put a text in at the cursor, in one line and without what is not printable."""
        before, after = self.text[: self.cursor], self.text[self.cursor :]
        before += " " * text[:1].isspace() + clean(text, PROMPT_MOST)
        self._put(before, after)

    def _put(self, before: str, after: str) -> None:
        """The text is what stands before the cursor and behind it, as far as there is room."""
        self.text, self.cursor = (before + after)[:PROMPT_MOST], min(len(before), PROMPT_MOST)

    def replace(self, text: str) -> None:
        self.text, self.cursor = text, len(text)


class Picks(Enum):
    """What a list is for."""

    SORT = auto()  # the column to sort by
    COLUMNS = auto()  # those to show
    TERM = auto()  # what to filter by


@dataclass
class Picker:
    """A list beside the rows: its lines, each with the value that stands for it, and the one that is chosen."""

    picks: Picks
    choices: list[tuple[str, str]]  # text, value
    at: int = 0

    @property
    def value(self) -> str:
        return self.choices[self.at][1]

    def move(self, step: int) -> None:
        self.at = max(0, min(self.at + step, len(self.choices) - 1))


class Dialog:
    """A question that covers the rows: its lines, the prompt for the answer while one is waited for."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = list(lines)
        self.prompt: Prompt | None = None

    def tell(self, lines: Sequence[str], asks: bool) -> None:
        """Show other lines. ``asks``: an answer is waited for; one that is being typed stays."""
        self.lines = list(lines)
        self.prompt = (self.prompt or Prompt(Purpose.ANSWER)) if asks else None

    def answered(self) -> str:
        """The answer that was typed; the prompt is closed."""
        typed, self.prompt = self.prompt.text.strip() if self.prompt else "", None
        return typed


# --- choices ----------------------------------------------------------------------------------------------------------

GEO_MODES = ("auto", "country", "network", "city", "off")


@dataclass(frozen=True)
class Return:
    """Where Enter has led away from: Esc goes back there."""

    spec: ViewSpec
    filter: str
    selected: Row | None
    at_top: bool
    overlay: str = ""


@dataclass(frozen=True, eq=False)
class LoggedUsage:
    """What the flow log has answered to the question who moved how much."""

    spec: ViewSpec
    rows: Sequence[UsageRow]
    per_day: bool  # a bar is a day; else an hour
    remarks: Sequence[str]  # what the log does not know of that time, and why there is no answer

    @property
    def moved(self) -> tuple[int, int]:
        """Bytes in and out of all rows, as far as they are known."""
        return sum(row.span[0] or 0 for row in self.rows), sum(row.span[1] or 0 for row in self.rows)


@dataclass(frozen=True, eq=False)
class LoggedFlows:
    """The flows that the flow log has of those that a filter asks for."""

    filter: str
    flows: Sequence[Flow]
    reach: str  # how far back the log goes


SPANS = ("24h", "48h", "7d", "30d", "90d", "365d")


class Pause:
    """What was there when a pause began, and the rows of flows as they were first shown in it."""

    def __init__(self, table: AnyTable) -> None:
        self.flows = list(table)
        self.tape = tape_events(table)
        self._events = table.events
        self._facts: dict[Flow, FlowFacts] = {}

    def held(self, table: AnyTable) -> int:
        """Events since the pause began."""
        return table.events - self._events

    def keep(self, flow: Flow, context: Context) -> None:
        if flow not in self._facts:  # a copy: the flow itself lives on
            self._facts[flow] = facts_of(copy(flow), context, names=True)

    def facts(self, flow: Flow) -> FlowFacts | None:
        return self._facts.get(flow)


class Curve:
    """The rate of a flow since its details were opened, a value for each listing."""

    MOST = 2000  # values: more than an hour of them; then each two become one

    def __init__(self, flow: Flow, now: float) -> None:
        self.flow = flow
        self.since = now
        self.rates: list[float] = []  # bytes a second both ways, as far as they are known
        self._listings = -1  # of the table, when the last value was taken

    def take(self, listings: int) -> None:
        """Take the rate that the newest listing has brought."""
        if listings == self._listings or self.flow.ended is not None:
            return
        self._listings = listings
        if (rate := self.flow.rate()) is not None:
            self.rates.append(rate)
        if len(self.rates) > self.MOST:
            self.rates = [max(pair) for pair in zip(self.rates[::2], self.rates[1::2])]


class Registered(NamedTuple):
    """What whois says of an address: lines of text; ``asks``: more may come."""

    address: str
    lines: Sequence[str]
    asks: bool


@dataclass
class View:
    """What the user chose: view, filter, sort, what is selected and open. ``rows`` are what comes of it."""

    context: Context
    base: Predicate | None = None  # from the command line's flags: always applied
    sort: str = ""  # "": the view's own
    reverse: bool = False
    spec: ViewSpec = VIEWS[0]
    filter: str = ""
    wanted: Predicate | None = None
    baseline: Baseline | None = None  # what was known when somebody asked what comes new
    prompt: Prompt | None = None
    dialog: Dialog | None = None
    picker: Picker | None = None
    chosen: dict[str, dict[str, bool]] = field(default_factory=dict)  # by view: columns that are to be there, or not
    on_show: Set[str] = frozenset()  # the columns of the last frame
    cell: str = ""  # the column that was clicked on last
    beside: bool = False  # in the last frame details stood beside the rows, or below them
    curve: Curve | None = None  # of the flow whose details are open
    whois: Registered | None = None
    entry: str = ""  # what is selected in the health panel: the filter that shows its flows
    entries: Sequence[str] = ()  # all that can be
    history: list[str] = field(default_factory=list)  # filters that were kept, newest last
    sorts: dict[str, tuple[str, bool]] = field(default_factory=dict)  # how views that were left were sorted
    trail: list[Return] = field(default_factory=list)
    pause: Pause | None = None
    frozen: bool = False
    closed: bool = True  # closed flows are shown while they linger
    names: bool = True
    bits: bool = False  # rates are in bits a second, not bytes
    geo: str = "auto"
    overlay: str = ""  # "", "help", "health", "details" or "delete"
    scroll: int = 0  # of the overlay
    shift: int = 0  # columns scrolled away to the left
    opened: frozenset[str] = frozenset()  # keys of the sums whose parts stand below them
    selected: Row | None = None
    flow: Flow | None = None  # the flow that was selected last, or that of the event selected last
    at: int = 0  # where the selected row stands among the rows
    top: int = 0  # the first row on screen
    at_top: bool = True  # nobody has moved away from the top: the window stays there, wherever the selected row goes
    page: int = 10  # rows on screen in the last frame
    message: str = ""
    span: str = SPANS[0]  # of usage
    usage: LoggedUsage | None = None  # what the flow log has answered last
    logged: LoggedFlows | None = None  # ... to the filter of the NAT view
    first_seen: Baseline | None = None  # what the log had seen a day ago
    areas: Sequence[Area] = ()  # of the last frame: what a click means
    needs: Needs | None = None  # of the frames so far

    def __post_init__(self) -> None:
        self.sort = self.sort or self.spec.sort
        self.rows = Rows(self.context)

    @property
    def predicate(self) -> Predicate | None:
        return all_of((self.base, self.wanted))

    @property
    def falling(self) -> bool:
        return self.spec.falling(self.sort, self.reverse)

    @property
    def from_log(self) -> LoggedFlows | None:
        """What the flow log has of what is asked for now."""
        fits = self.logged is not None and self.spec.translated and self.logged.filter == self.filter
        return self.logged if fits else None

    @property
    def covered(self) -> str:
        """What covers the rows. A question that waits for its answer does, whatever else is open."""
        asks = self.dialog is not None and self.dialog.prompt is not None and self.prompt is None
        return "delete" if asks else self.overlay

    def rows_wanted(self) -> RowsWanted:
        choices = self.spec, self.filter, self.sort, self.reverse, self.closed, self.frozen
        usage = self.usage if self.usage is not None and self.usage.spec is self.spec else None
        rest = self.predicate, self.pause, self.baseline, usage, self.from_log
        return RowsWanted(*choices, *rest, opened=self.opened)

    def set_filter(self, text: str) -> None:
        """Raises FilterError, and changes nothing then."""
        self.wanted = compile_filter(text, self.context, lambda: self.baseline or self.first_seen)
        self.filter = text.strip()

    def asks(self, *fields: str) -> bool:
        """Does the filter have a term of one of these fields?"""
        return asks(self.filter, self.context, *fields)

    def narrow(self, term: str) -> None:
        """Filter by this, too. Raises FilterError."""
        either = re.search(r"(?i)\bor\b", self.filter)
        self.set_filter(f"({self.filter}) {term}" if either else f"{self.filter} {term}".strip())

    def show(self, name: str) -> None:
        """Change to another view; the selected flow, or the row that it belongs to, stays selected."""
        spec = VIEW_BY_NAME[name]
        if spec is self.spec:
            return
        self.sorts[self.spec.name] = self.sort, self.reverse
        self.spec = spec
        self.sort, self.reverse = self.sorts.get(name, (spec.sort, False))
        self.frozen = False
        self.overlay, self.picker, self.cell = "", None, ""
        self.opened = frozenset()
        self.top, self.at, self.shift = 0, 0, 0
        self.rows.clear()
        self.selected = None
        if self.flow is not None and spec.rows_are_flows:
            self.selected = self.flow
        elif self.flow is not None and spec.grouping is not None:
            self.selected = GroupRow(group_key(self.flow, spec.grouping, self.context))

    def select(self, at: int) -> None:
        if order := self.rows.order:
            self.at = max(0, min(at, len(order) - 1))
            self.selected = order[self.at]
            self.remember()
            self.at_top = False
            self._keep_in_sight()
            self.at_top = self.top == 0

    def select_row(self, row: Row) -> bool:
        """Select a row that was seen; False where it has gone since."""
        try:
            self.select(_position(self.rows.order, row))
        except ValueError:
            return False
        return True

    def roll(self, rows: int) -> None:
        """Move the window. The selection stays on its row while that is in sight, and then at the window's edge."""
        order = self.rows.order
        self.top = max(0, min(self.top + rows, len(order) - self.page))
        self.at_top = self.top == 0
        if self.selected is not None and order:
            at = max(self.top, min(self.at, self.top + self.page - 1, len(order) - 1))
            if at != self.at:
                self.at, self.selected = at, order[at]
                self.remember()

    def area_at(self, x: int, y: int) -> Area | None:
        """What the last frame has there."""
        return next((area for area in self.areas if area.y == y and area.left <= x < area.right), None)

    def is_part(self, row: Row) -> bool:
        """Does a row stand below one that was opened?"""
        grouping = self.spec.grouping
        return grouping is not None and isinstance(row, GroupRow) and grouping.is_part(row.key)

    def drop_selection(self) -> None:
        """No row is selected, and the window is at the top."""
        self.selected = self.flow = None
        self.at = self.top = 0
        self.at_top = True

    @property
    def out_of_sight(self) -> bool:
        """Has the selected row left the window? On the map every row is in sight."""
        is_here = self.top <= self.at < self.top + self.page
        return self.selected is not None and not is_here and not self.spec.on_map and bool(self.rows.order)

    def watch(self, table: AnyTable) -> None:
        """While details are open, go on with the curve of their flow."""
        if self.overlay not in ("details", "whois") or self.flow is None:
            self.curve = None
            return
        if self.curve is None or self.curve.flow is not self.flow:
            self.curve = Curve(self.flow, self.context.now)
        self.curve.take(table.listings)

    def remember(self) -> None:
        """Which flow is meant, also for the other views."""
        self.flow = flow_of(self.selected) or self.flow

    def follow(self, whole: bool = True) -> None:
        """Keep the selection on its row; if that is gone (from the ``whole``), on the one that took its place."""
        order = self.rows.order
        try:
            self.at = 0 if self.selected is None else _position(order, self.selected)
            if self.selected is not None:
                self.selected = order[self.at]  # of a group that was counted anew the new row
        except ValueError:
            lost = self.out_of_sight  # nobody has seen which row took its place
            self.at = min(self.at, max(0, len(order) - 1))
            if lost and self.overlay != "details" and whole:
                self.selected, self.at = None, 0
            elif order and self.overlay != "details" and whole:
                self.selected = order[self.at]
                self.remember()
        self._keep_in_sight()

    def drawn(self, frame: Frame) -> None:
        """Take over what only a frame of a certain size can tell."""
        self.page, self.scroll, self.shift = frame.page, frame.scroll, frame.shift
        self.areas, self.on_show, self.beside = frame.areas, frame.columns, frame.beside
        self.entries = frame.entries
        self.needs = frame.needs or self.needs
        self._keep_in_sight()

    def _keep_in_sight(self) -> None:
        self.top = first_row(self, self.page)


def first_row(view: View, page: int) -> int:
    """The first row on screen: at the top the first; else the selected row is in sight.

    No line below the last row is wasted.
    """
    if view.at_top and not view.spec.on_map:
        return 0
    top = view.top
    if view.selected is not None:
        top = max(min(top, view.at), view.at - page + 1)
    return max(0, min(top, len(view.rows.order) - page))


def flow_of(row: Row | None) -> Flow | None:
    """The flow that a row is or tells of; None for one that stands for many."""
    return None if isinstance(row, GroupRow | UsageRow) else row.flow if isinstance(row, TapeEvent) else row


def _position(order: list[Any], selected: Row) -> int:
    """Raises ValueError if it is not there. Of groups the keys are looked through: 200,000 in 5 ms instead of 30."""
    if isinstance(selected, UsageRow):  # two nodes may have a host of the same address
        return [(row.key, row.node) for row in order].index((selected.key, selected.node))
    if isinstance(selected, GroupRow):
        return [row.key for row in order].index(selected.key)
    return order.index(selected)


# --- what a frame is made of ------------------------------------------------------------------------------------------


class NodeScene(NamedTuple):
    """What the panel of a table's health is made of."""

    node: str
    term: str  # the filter that selects its flows; "" where there is no other node
    status: Status
    table: FlowTable
    shares: Shares | None
    around: Surroundings


@dataclass(frozen=True)
class Scene:
    """All that a frame is made of."""

    view: View
    table: AnyTable
    status: Status
    source: str
    live: bool
    glyphs: Glyphs = UNICODE
    shares: Shares | None = None  # who fills the table, as counted last
    around: Surroundings = NOTHING_AROUND
    late: float = 0.0  # seconds by which the frame comes later than it was due: the next one may, too
    beside: bool = False  # details stand beside the rows, or below them
    told: Sequence[Notice] | None = None  # what is wrong, of all nodes, the heaviest first; None: of the table itself
    focus: NodeScene | None = None  # the node whose health is on show; None: the table's

    @property
    def covered(self) -> str:
        """What covers the rows."""
        return "" if self.beside else self.view.covered

    @property
    def behind(self) -> float:
        """Seconds by which what is on show is older than now, or will be before the next frame."""
        return max(self.status.behind, self.late)

    @property
    def is_behind(self) -> bool:
        """Is that so much that it is to be said?"""
        return self.behind >= LATE

    @property
    def now(self) -> float:
        return self.view.context.now


class Target(Enum):
    """What a place on the screen is, for a click on it; and what stands for it in ``Area.what``."""

    ROW = auto()  # the row itself
    HEAD = auto()  # of a column: its key
    TAB = auto()  # the name of a view
    KEY = auto()  # a key that the footer names
    ENTRY = auto()  # of the health panel: the filter that shows its flows
    PANE = auto()  # what stands beside the rows
    CHOICE = auto()  # the number of a line of the list that is open


class Area(NamedTuple):
    """Cells of a line from ``left`` up to ``right``, and what they are."""

    y: int
    left: int
    right: int
    part: Target
    what: Any


class Needs(NamedTuple):
    """How wide columns have to be for all cells that were on show, by their keys.

    It only grows, until somebody asks for other rows (``of`` is another): columns that went to and fro with each order
    of the rows could not be read.
    """

    of: tuple[object, ...]
    cells: Mapping[str, int]


class Frame(NamedTuple):
    """The lines of a screen, and what they made of the view: rows on a page, the overlay's scroll, columns away.

    ``areas``: where a click means something.
    """

    lines: list[Line]
    page: int
    scroll: int
    shift: int
    areas: Sequence[Area] = ()
    columns: Set[str] = frozenset()  # the keys of those that have room
    beside: bool = False  # details stand beside the rows, or below them
    entries: Sequence[str] = ()  # of the health panel: the filters that show the flows of its lines
    needs: Needs | None = None


# --- putting rows into order ------------------------------------------------------------------------------------------

REFRESH = 1.0  # seconds between two new orders of the rows: numbers that move faster can't be read
# Rows that a filter wants: where there are fewer, new ones are put among them each time. 8 ms of the slowest filters.
MERGED = 2000
MERGE_EVERY = 0.25  # seconds from one time to the next
ROWS_AT_ONCE = 250  # flows between two looks at the clock: 0.5 ms of the slowest filters, 3 ms of adding up
KEYED = 1000  # ... for which sort keys are made: 6 ms of the slowest, names
MAPPED = 5000  # remote ends on the map at most, those with the most: 10 ms a frame
MANY_ROWS = 20_000  # flows whose order takes longer than a frame: a new filter takes the order that is there
SUMMED_EVERY = 60.0  # seconds between two sums of so many
AHEAD = 5000  # flows whose sort keys are made at once while conntrack lists: 4 ms
KEYED_EARLY = ("bytes", "packets", "source", "destination")  # columns whose keys need the flow's line only


RowsMade = Generator[None, None, list[Any]]


def refresh(view: View, table: AnyTable, now: float, enough: Callable[[], bool] = lambda: False) -> bool:
    """Put the rows into order if that is due, or go on with it until it is done or ``enough``.

    Returns whether there was anything to do; ``view.rows.working`` tells whether there still is.
    """
    table.advance(view.context, now)
    worked, shown = view.rows.go_on(view.rows_wanted(), table, now, enough)
    if shown:
        view.follow(whole=not view.rows.working)
    view.watch(table)
    if view.pause is not None:
        for row in view.rows.order[view.top : view.top + view.page]:
            if isinstance(row, Flow):
                view.pause.keep(row, view.context)
    return worked


def unwatched(expression: str, context: Context, table: AnyTable, history: bool) -> str:
    """Since when the table was watched, or what has ended is kept, where at: in a filter asks for a time before.

    Else "". ``history``: as in ``FlowTable.keeps_since``.
    """
    if not asks(expression, context, "at"):
        return ""
    kept = table.keeps_since(context.now, history)
    if table.since is None or kept is None:
        return ""
    epoch = context.epoch
    now = context.now + epoch
    asked = moments(expanded(expression, context), now)
    if now < CLOCKLESS:
        return "the recording has no times"
    if any(moment < table.since + epoch for moment in asked):
        return f"monitored only since {moment_text(table.since + epoch, now)}"
    if any(moment < kept + epoch for moment in asked):
        return f"ended flows are known only since {moment_text(kept + epoch, now)}"
    return ""


@dataclass(frozen=True)
class RowsWanted:
    """What rows are wanted. Two of them are equal if their rows and the order of these are made alike."""

    spec: ViewSpec
    filter: str
    sort: str
    reverse: bool
    closed: bool
    frozen: bool = False
    predicate: Predicate | None = field(default=None, compare=False)  # what the filter and the flags want
    pause: Pause | None = field(default=None, compare=False)
    baseline: Baseline | None = field(default=None, compare=False)
    usage: LoggedUsage | None = None  # where the rows are of the flow log
    logged: LoggedFlows | None = None  # where flows of the log stand beside those of the table
    opened: frozenset[str] = frozenset()  # keys of the sums whose parts are wanted, too
    at_once: bool = field(default=False, compare=False)  # all in one go: nobody waits at keys
    limit: int | None = field(default=None, compare=False)

    @property
    def falling(self) -> bool:
        return self.spec.falling(self.sort, self.reverse)

    def same_but(self, other: RowsWanted | None, *names: str) -> bool:
        """Are they the same, whatever the fields of these names say?"""
        return other is not None and replace(other, **{name: getattr(self, name) for name in names}) == self


class Rows:
    """The rows of a view in their order, and the job that puts them there."""

    def __init__(self, context: Context) -> None:
        self.order: list[Any] = []  # what is on show: flows, groups or events
        self.total = 0  # live flows (translated ones, events), and of these
        self.fitting = 0  # those that the filter wants
        self.groups: list[GroupRow] = []  # as they were added up last
        self._parts: list[GroupRow] = []  # ... and those within the opened ones
        self.sum: FlowSum | GroupRow | UsageRow | None = None  # of the rows on show
        self.rates = RateHistory()  # of the groups
        self._rates_for: tuple[object, ...] = ()
        self._summed_for: tuple[object, ...] = ()
        self._summed_at = 0.0
        self._context = context
        self._due = 0.0  # when the next new order is due
        self._began = 0.0  # when the present one was begun: a clock that went back is no reason to wait
        self._wanted: RowsWanted | None = None  # what ``order`` was made for, or is being
        self._job: Iterator[None] | None = None
        self._new = False  # what is on show is not what is wanted now
        self._found: list[Any] = []  # what the filter has found so far
        self._ranked: list[Flow] = []  # all flows in their order, wanted or not
        self._ranked_for: RowsWanted | None = None
        self._ranking = False  # the job has not come to the filter yet
        self._grouped_for: tuple[object, ...] = ()
        self._grouping = False  # the job adds flows up
        self._early: tuple[list[Flow], list[Any]] = [], []  # flows with sort keys made ahead
        self.made: float | None = None  # when what is on show was taken from the table; None before that
        self._heard = 0  # events of the table that were sifted
        self._arrived: list[Any] = []  # flows or events that came since the order was begun, and are wanted
        self._merged = 0  # so many of them are on show
        self._merged_at = 0.0
        self.ordered = False  # the last step has finished an order of all rows

    @property
    def working(self) -> bool:
        return self._job is not None

    @property
    def sifting(self) -> bool:
        """Is what is on show only what a new filter has found so far?"""
        return self.working and self._new and not self._ranking

    @property
    def reordering(self) -> bool:
        """Is what is on show still in an order that nobody wants any more?"""
        return self.working and self._new and self._ranking

    @property
    def unwanted(self) -> bool:
        """Is something else on show than what is wanted?"""
        return self._new

    @property
    def found(self) -> int:
        """Rows that the filter has found so far."""
        return len(self._found)

    def expire(self) -> None:
        """A new order is due at once."""
        self._due = 0.0

    def keep_until(self, moment: float) -> None:
        """No new order of the same rows before that, on the source's clock."""
        self._due = max(self._due, moment)

    def clear(self) -> None:
        """None of the rows is of the view that is wanted now."""
        self.order, self._found, self.sum = [], [], None
        self._due = 0.0

    def go_on(
        self, wanted: RowsWanted, table: AnyTable, now: float, enough: Callable[[], bool] = lambda: False
    ) -> tuple[bool, bool]:
        """Begin a new order if it is due, and go on until it is done or ``enough``.

        Returns whether there was anything to do, and whether other rows are on show now.
        """
        if wanted != self._wanted or (wanted.pause is None and not self._began <= now < self._due):
            self._begin(wanted, table, now)
        merged = not self._new and self._merge(wanted, table, now)
        self.ordered = False
        if self._job is None:
            return merged, merged
        for _ in self._job:
            if enough():
                if part := self._new and not self._ranking:
                    self._show()
                return True, part or merged
        self._job, self._new, self.ordered = None, False, True
        self._due, self.made, self._merged, self._merged_at = now + REFRESH, self._began, 0, -math.inf
        self._merge(wanted, table, now)
        self._merged_at = now
        return True, True

    def _begin(self, wanted: RowsWanted, table: AnyTable, now: float) -> None:
        before = self._wanted
        self._new = not wanted.same_but(before, "frozen")
        # While flows are added up, another order is no reason to begin anew: it comes afterwards.
        keeps_groups = self._grouping and wanted.same_but(before, "sort", "reverse")
        filter_is_new = before is None or before.filter != wanted.filter
        takes = filter_is_new and wanted.same_but(self._ranked_for, "filter") and len(self._ranked) > MANY_ROWS
        self._due, self._began, self._wanted = math.inf, now, wanted
        if wanted.spec.tape and not self._new:  # the tape may have lost what has arrived and is not on show yet
            self.order = [*reversed(self._arrived[self._merged :]), *self.order]
        self._begin_hearing(table)
        if not keeps_groups:
            self._job = self._make(wanted, table, takes)

    def all(self, wanted: RowsWanted, table: AnyTable) -> list[Any]:
        """The rows in order, at most ``wanted.limit``, at the moment that the context has."""
        self._wanted = wanted
        for _ in self._make(wanted, table, takes=False):
            pass
        return self.order[: wanted.limit]

    def look_ahead(self, wanted: RowsWanted, table: AnyTable) -> None:
        """Make sort keys while conntrack goes on: 0.15 s of 200,000 flows are not to come after its last line."""
        if not isinstance(table, FlowTable):
            return  # of several tables the newest flows do not stand last
        flows, keys = self._early
        missing = len(table) - len(flows)
        plain = wanted.spec.rows_are_flows and not wanted.spec.translated and wanted.predicate is None
        if plain and wanted.sort in KEYED_EARLY and missing >= AHEAD:
            new = list(islice(reversed(table.live.values()), missing))[::-1]
            flows += new
            keys += wanted.spec.column(wanted.sort).keys(new, self._context)

    # --- what arrives meanwhile ---

    def hear(self, table: AnyTable) -> bool:
        """Sift the events that have come since the last call; True if one of them is what a filter wants.

        The order of 60,000 flows is made anew every 10 s, by when the tape has lost what came between.
        """
        number, self._heard = min(table.events - self._heard, len(table.tape)), table.events
        wanted = self._wanted
        if number <= 0 or wanted is None or wanted.pause is not None or wanted.spec.adds_up:
            return False
        predicate, new = wanted.predicate, islice(reversed(table.tape), number)
        found: list[Any]
        if wanted.spec.tape:
            found = [TapeEvent(*event) for event in new if predicate is None or predicate(event[2])]
        elif predicate is None or len(self._arrived) > MERGED:
            return False
        else:
            found = [flow for flow in dict.fromkeys([event[2] for event in new]) if predicate(flow)]
        self._arrived += found[::-1]
        return bool(found) and predicate is not None

    def _begin_hearing(self, table: AnyTable) -> None:
        self._heard, self._arrived, self._merged = table.events, [], 0

    def _merge(self, wanted: RowsWanted, table: AnyTable, now: float) -> bool:
        """Put what has arrived on show, if that is due and no great work."""
        passed, new = now - self._merged_at, self._arrived[self._merged :]
        if wanted.spec.logged:
            return False
        if 0 <= passed < (MERGE_EVERY if new else REFRESH) or wanted.pause is not None:
            return False
        rows = self._merged_events(wanted, new) if wanted.spec.tape else self._merged_flows(wanted, new, table, now)
        if rows is None:
            return False
        self.order, self.made = rows, now
        if wanted.spec.rows_are_flows:  # 2,000 in 4 ms
            self.sum = self._sum_of(rows)
        self._merged, self._merged_at = len(self._arrived), now
        self.fitting = _fitting(wanted, rows)
        self.total = (
            max(self.total, self.fitting) if wanted.spec.translated else len(table.tape if wanted.spec.tape else table)
        )
        return True

    def _merged_events(self, wanted: RowsWanted, new: list[Any]) -> list[Any] | None:
        """The events on show and the new ones."""
        rows = [*reversed(new), *self.order][:TAPE]
        if wanted.sort == wanted.spec.sort and wanted.falling:
            return rows
        return self._sorted(wanted, rows) if len(rows) <= MERGED else None

    def _merged_flows(self, wanted: RowsWanted, new: list[Any], table: AnyTable, now: float) -> list[Any] | None:
        """The flows on show and the new ones, those that the filter still wants."""
        predicate = wanted.predicate
        if predicate is None or wanted.spec.grouping is not None or len(self.order) + len(new) > MERGED:
            return None
        rows = [flow for flow in dict.fromkeys([*self.order, *new]) if predicate(flow)]
        if wanted.spec.translated:
            rows = [flow for flow in rows if not flow.plain and flow.ends().nat]
        lingers = math.inf if wanted.spec.translated else table.linger
        rows = [flow for flow in rows if flow.ended is None or (wanted.closed and now - flow.ended < lingers)]
        return rows if wanted.frozen else self._sorted(wanted, rows)

    def _sorted(self, wanted: RowsWanted, rows: list[Any]) -> list[Any]:
        return in_order(rows, wanted.spec.column(wanted.sort).keys(rows, self._context), wanted.falling)

    # --- the job ---

    def _make(self, wanted: RowsWanted, table: AnyTable, takes: bool) -> Iterator[None]:
        """Make the rows. It may be left off, or given up, at each yield. ``takes``: the order that is there serves."""
        self._ranking, self._found, self._grouping = not takes, [], False
        if wanted.baseline is not None and not wanted.baseline.complete:
            yield from _learn(table, wanted.baseline)
        grouping = wanted.spec.grouping
        if asks_fans(wanted.filter, self._context) or (grouping is not None and grouping.asks_fans):
            yield from _count_fans(table, self._context)
        if grouping is not None:
            yield from self._add_up(table)
        elif wanted.spec.logged:
            yield from self._take_usage(wanted)
        elif wanted.spec.tape:
            yield from self._play_tape(wanted, table)
        else:
            if not takes:
                self._ranked = yield from self._rank(wanted, table)
                self._ranked_for = wanted
            self._ranking = False
            yield from self._sift(wanted)

    def _rank(self, wanted: RowsWanted, table: AnyTable) -> Generator[None, None, list[Flow]]:
        """All flows of the view in their order."""
        flows = yield from self._flows(wanted, table)
        if wanted.at_once and wanted.predicate is not None:  # keys for what is wanted only
            flows = list(filter(wanted.predicate, flows))
        if wanted.frozen and self._ranked:
            there = dict.fromkeys(flows)
            kept = [flow for flow in self._ranked if flow in there]
            for flow in kept:
                del there[flow]
            return [*kept, *there]
        return (yield from self._ordered(wanted, flows))

    def _flows(self, wanted: RowsWanted, table: AnyTable) -> Generator[None, None, list[Flow]]:
        """The flows that the view is about. The question who it was is mostly asked of what is gone."""
        if wanted.pause is not None and wanted.closed:
            flows = wanted.pause.flows
        else:
            flows = self._live(wanted, table)
            flows += table.closed if wanted.closed else ()
        if not wanted.spec.translated:
            return flows
        there = list(dict.fromkeys([*flows, *table.past, *_not_there(wanted, table)])) if wanted.closed else flows
        plainly: list[Flow] = []  # the few others that NAT leaves alone go later
        for piece in _pieces(there, KEYED):
            plainly += [flow for flow in piece if not flow.plain]
            yield
        return [flow for flow in plainly if flow.ends().nat] if wanted.at_once else plainly

    def _live(self, wanted: RowsWanted, table: AnyTable) -> list[Flow]:
        """The flows that are there, or were when the pause began."""
        if wanted.pause is not None:
            flows = [flow for flow in wanted.pause.flows if flow.ended is None]
        else:
            flows = table.live_flows()
        if not wanted.spec.translated:  # which counts its rows
            self.total = len(flows)
        return flows

    def _sift(self, wanted: RowsWanted) -> Iterator[None]:
        predicate, nat, translated = wanted.predicate, wanted.spec.translated, 0
        if wanted.at_once or (predicate is None and not nat):
            self._found = self._ranked
        else:
            for piece in _pieces(self._ranked, ROWS_AT_ONCE):
                if nat:
                    piece = [flow for flow in piece if flow.ends().nat]
                    translated += len(piece)
                self._found += filter(predicate, piece)
                yield
        self.total = translated if nat else self.total  # not before it is the whole: a frame may come in between
        self._show()
        if not wanted.at_once:
            self._new, self.ordered = False, True  # nobody has to wait for the sum
            yield from self._sum_flows(wanted)

    def _sum_flows(self, wanted: RowsWanted) -> Iterator[None]:
        """The sum of the flows on show. It takes 4 us a flow: that of more than MANY_ROWS is made once a minute."""
        flows, now, summed_for = self._found, self._context.now, (wanted.spec, wanted.filter, wanted.pause)
        recent = summed_for == self._summed_for and 0 <= now - self._summed_at < SUMMED_EVERY
        if recent and len(flows) > MANY_ROWS:
            return
        found = FlowSum()
        for piece in _pieces(flows, ROWS_AT_ONCE):
            found.add(piece, self._context)
            yield
        self.sum, self._summed_for, self._summed_at = found, summed_for, now

    def _sum_of(self, flows: Sequence[Flow]) -> FlowSum:
        found = FlowSum()
        found.add(flows, self._context)
        return found

    def _sum_up(self, table: AnyTable) -> Iterator[None]:
        """The sum of all groups, and what their rates were."""
        wanted = self._now_wanted()
        found = GroupRow("", self.groups[0].span if self.groups else None)
        for piece in _pieces(self.groups, ROWS_AT_ONCE):
            for row in piece:
                found.take_in(row)
            yield
        self.sum = found
        if self._rates_for != (wanted.spec, wanted.filter):
            self.rates, self._rates_for = RateHistory(), (wanted.spec, wanted.filter)
        if wanted.pause is None:
            self.rates.take(self.groups, table.listings)

    def _add_up(self, table: AnyTable) -> Iterator[None]:
        wanted = self._now_wanted()
        grouped_for = wanted.filter, wanted.spec, wanted.pause, wanted.opened
        if not (self._new and self._grouped_for == grouped_for):  # only the order is new: the sums are not
            yield from self._sum(wanted, table)
            self._grouped_for = grouped_for
            if not wanted.at_once:
                yield from self._sum_up(table)
        self._grouping = False
        wanted = self._now_wanted()  # another order may be wanted since
        set_shares = shares_of(self.groups, wanted.sort)
        for some in _pieces([*self.groups, *self._parts], SORTED_AT_ONCE):
            set_shares(some)
            yield
        self._found = yield from self._ordered(wanted, (yield from self._by_ties(wanted)))
        if self._parts:
            self._found = self._with_parts(wanted, self._found)
        if wanted.spec.on_map and not wanted.at_once:
            self._found = yield from self._placed(self._found[:MAPPED])
        self._ranking = False
        self._show()

    def _placed(self, rows: Sequence[GroupRow]) -> RowsMade:
        """Those whose place is known: databases answer in 10 us each."""
        placed: list[GroupRow] = []
        for piece in _pieces(rows, ROWS_AT_ONCE):
            placed += [row for row in piece if self._context.coordinates(row.key) is not None]
            yield
        return placed

    def _sum(self, wanted: RowsWanted, table: AnyTable) -> Iterator[None]:
        """Add the flows up, and those of the opened rows by what is within these."""
        grouping, context = wanted.spec.grouping, self._context
        assert grouping is not None
        watched = table.watched(context.now)
        grouper, opened = Grouper(grouping, context, watched), wanted.opened
        parts = Grouper(grouping.inside, context, watched) if opened else None
        predicate, self._grouping = wanted.predicate, True
        flows, row = self._live(wanted, table), row_of(grouping, context)
        for piece in _pieces(flows, max(1, len(flows)) if wanted.at_once else ROWS_AT_ONCE):
            found = piece if predicate is None else list(filter(predicate, piece))
            grouper.add(found)
            if parts is not None:
                parts.add([flow for flow in found if row(flow) in opened])
            yield
        grouper.finish()
        if grouping.is_of_nodes:
            grouper.join_nodes(table.facts, with_empty=predicate is None)
        self.groups, self.fitting = list(grouper.sums.values()), grouper.flows
        self._parts = [] if parts is None else list(parts.sums.values())

    def _with_parts(self, wanted: RowsWanted, rows: Sequence[GroupRow]) -> list[GroupRow]:
        """Below each opened row what is within it: by the sorted column if that is a number, else the most first."""
        column = wanted.spec.column(wanted.sort)
        orders = [(keys_of, True) for keys_of in TIES]
        orders += [(column.keys, wanted.falling)] if column.descending else []
        parts = self._parts
        for keys_of, falling in orders:
            parts = in_order(parts, keys_of(parts, self._context), falling)
        below: dict[str, list[GroupRow]] = {}
        for part in parts:
            below.setdefault(part.key.rpartition(BETWEEN)[0], []).append(part)
        return [found for row in rows for found in (row, *below.get(row.key, ()))]

    def _by_ties(self, wanted: RowsWanted) -> RowsMade:
        """The groups as those that are equal by the wanted column stand to each other, whichever way that is sorted.

        By rate, then bytes, then flows, then name: one after the other from the last to the first, as a sort keeps
        the order of what is equal. 200,000 hosts take 0.6 s.
        """
        name = wanted.spec.columns[0].keys
        rows = yield from in_order_by_steps(self.groups, (yield from self._keys(wanted, self.groups, name)), False)
        for keys_of in TIES:
            rows = yield from in_order_by_steps(rows, (yield from self._keys(wanted, rows, keys_of)), True)
        return rows

    def _now_wanted(self) -> RowsWanted:
        assert self._wanted is not None
        return self._wanted

    def _play_tape(self, wanted: RowsWanted, table: AnyTable) -> Iterator[None]:
        """Events, the newest first."""
        tape = wanted.pause.tape if wanted.pause else tape_events(table)
        self._begin_hearing(table)
        self.total, predicate = len(tape), wanted.predicate
        found: list[TapeEvent] = []
        for piece in _pieces(tape[::-1], ROWS_AT_ONCE):
            found += [event for event in piece if predicate is None or predicate(event.flow)]
            yield
        if predicate is not None and not self._new and tape:  # what the tape has lost since it was found
            there = set(found)
            found += [event for event in self.order if event.at <= tape[0].at and event not in there][
                : TAPE - len(found)
            ]
        self.fitting = len(found)
        self._found = yield from self._ordered(wanted, found)
        self._ranking = False
        self._show()

    def _take_usage(self, wanted: RowsWanted) -> Iterator[None]:
        """What the flow log has answered, in order."""
        rows = wanted.usage.rows if wanted.usage is not None else []
        self.total = self.fitting = len(rows)
        self.sum = usage_total(rows)
        self._found = yield from self._ordered(wanted, rows)
        self._ranking = False
        self._show()

    def _show(self) -> None:
        """What was found (so far, if the job goes on) is on show."""
        wanted = self._now_wanted()
        self.order = self._found
        if wanted.spec.rows_are_flows:
            everything = wanted.predicate is None and wanted.pause is None and not wanted.spec.translated
            self.fitting = self.total if everything else _fitting(wanted, self._found)

    def _ordered(self, wanted: RowsWanted, rows: Sequence[Any]) -> Generator[None, None, list[Any]]:
        """The rows in their order."""
        early, keys = self._early[0], self._early[1]
        if not all(map(is_, early, rows)):
            keys = []  # some of the first are there no longer
        column = wanted.spec.column(wanted.sort)
        keys = keys + (yield from self._keys(wanted, rows[len(keys) :], column.keys))
        if wanted.at_once:
            return in_order(rows, keys, wanted.falling, wanted.limit)
        return (yield from in_order_by_steps(rows, keys, wanted.falling))

    def _keys(self, wanted: RowsWanted, rows: Sequence[Any], keys_of: Keys[Any]) -> RowsMade:
        """What they are sorted by, of as many rows at a time as may be."""
        keys: list[Any] = []
        for piece in _pieces(rows, max(1, len(rows)) if wanted.at_once else KEYED):
            keys += keys_of(piece, self._context)
            yield
        return keys


SAME_TIME = 2.0  # seconds: two flows of one key whose ends are no further apart are one


def _not_there(wanted: RowsWanted, table: AnyTable) -> list[Flow]:
    """The flows of the log that are not in memory, too."""
    if wanted.logged is None:
        return []
    ends: dict[tuple[str, bytes], list[float]] = {}
    for flow in table.past:
        ends.setdefault((flow.node, flow.key), []).append(flow.ended or 0.0)
    return [
        flow
        for flow in wanted.logged.flows
        if not any(abs(end - (flow.ended or 0.0)) <= SAME_TIME for end in ends.get((flow.node, flow.key), ()))
        and not ((there := table.living(flow)) is not None and there.birth() <= flow.born + SAME_TIME)
    ]


def _fitting(wanted: RowsWanted, rows: Sequence[Any]) -> int:
    """Of these rows, those that count: flows that go on; translated ones and events whether they do or not."""
    if wanted.spec.translated or wanted.spec.tape:
        return len(rows)
    return sum(1 for flow in rows if flow.ended is None)


def _pieces(rows: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """The rows, as many at once as may pass before keys have their turn."""
    for at in range(0, len(rows), size):
        yield rows[at : at + size]


def _learn(table: AnyTable, baseline: Baseline) -> Iterator[None]:
    for piece in _pieces([*table.live_flows(), *table.past], ROWS_AT_ONCE):
        for flow in piece:
            if flow.born <= baseline.at:
                baseline.learn(flow)
        yield
    baseline.finish()


def _count_fans(table: AnyTable, context: Context) -> Iterator[None]:
    """How many ends and ports each host is connected with: what fanout: and ports: ask."""
    fans: dict[Context, FanCount] = {}
    for piece in _pieces(table.live_flows(), ROWS_AT_ONCE):
        for its, flows in context.parts(piece):
            fans.setdefault(its, FanCount()).add_flows(flows, its)
        yield
    for its in (context, *context.nodes.values()):
        its.know_fans(fans[its].counted() if its in fans else {})


def in_order(rows: Sequence[Any], keys: Sequence[Any], falling: bool, limit: int | None = None) -> list[Any]:
    """Sorted by keys that are there already; ``limit``: only so many, without sorting all the others."""
    if limit is not None and limit < len(rows) // 10:
        places = (heapq.nlargest if falling else heapq.nsmallest)(limit, range(len(rows)), key=keys.__getitem__)
        return [rows[place] for place in places]
    of_next = partial(next, iter(keys))  # sort asks for each row's key once, in their order; what it gives is unused
    return sorted(rows, key=of_next, reverse=falling)


SORTED_AT_ONCE = 4000  # rows: 1 to 3 ms
SAMPLED_KEYS = 8  # of so many rows one says where a part of the order ends: the largest part is then twice the mean


def in_order_by_steps(rows: Sequence[Any], keys: Sequence[Any], falling: bool) -> RowsMade:
    """What ``in_order`` gives, in steps of a few milliseconds: at once 200,000 rows take 15 to 50 ms.

    The rows are dealt out to parts, each of which comes before the next, and the parts are sorted. Rows with equal keys
    are in one part, so that they stay as they were.
    """
    if len(rows) <= SORTED_AT_ONCE:
        return in_order(rows, keys, falling)
    sample = sorted(keys[:: max(1, len(keys) // (SAMPLED_KEYS * (len(keys) // SORTED_AT_ONCE)))])
    ends = [key for key, _ in groupby(sample[SAMPLED_KEYS::SAMPLED_KEYS])]
    parts: list[tuple[list[Any], list[Any]]] = [([], []) for _ in range(len(ends) + 1)]
    for at in range(0, len(rows), SORTED_AT_ONCE):
        for row, key in zip(rows[at : at + SORTED_AT_ONCE], keys[at : at + SORTED_AT_ONCE]):
            its_rows, its_keys = parts[bisect(ends, key)]
            its_rows.append(row)
            its_keys.append(key)
        yield
    found: list[Any] = []
    for its_rows, its_keys in reversed(parts) if falling else parts:
        found += in_order(its_rows, its_keys, falling)
        yield
    return found


def facts_of_row(view: View, flow: Flow) -> FlowFacts:
    """What a row is made of; while paused, as it was when it was first shown in the pause."""
    kept = view.pause.facts(flow) if view.pause else None
    if kept is None:
        return facts_of(flow, view.context, view.names)
    return kept if kept.names == view.names else replace(kept, names=view.names)
