"""What is on show: the interface's state. Changed by keys (keys.py) and by ``refresh`` (rows.py) only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from addresses import Context
from columns import VIEW_BY_NAME, VIEWS, FlowFacts, ViewSpec
from filters import Predicate, all_of, compile_filter
from flows import Flow, TapeEvent
from grouping import GroupRow, group_key

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
class Came:
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
    prompt: Prompt | None = None
    history: list[str] = field(default_factory=list)  # filters that were kept, newest last
    sorts: dict[str, tuple[str, bool]] = field(default_factory=dict)  # how views that were left were sorted
    trail: list[Came] = field(default_factory=list)
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
        self.wanted = compile_filter(text, self.context)
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
