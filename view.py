"""What is on show: the interface's state, and the keys (one table, which also makes the help).

Pure: keys come in as names ("down", "f1", "/"), the time and the size as arguments; what has to happen outside (quit,
list again) goes out as a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from clean import clean
from columns import BY_KEY, SORTS, Shown
from fields import Context, Predicate
from filters import FilterError, all_of, compile_filter
from flow import Flow
from flows import FlowTable

GEO_MODES = ("auto", "country", "network", "city", "off")


@dataclass
class Prompt:
    """The one-line filter prompt: its text, where the cursor is, what was there before."""

    text: str
    cursor: int
    before: str
    error: str = ""


@dataclass
class View:
    """The state of the interface. Changed by keys (``press``) and by ``refresh`` only."""

    context: Context
    base: Predicate | None = None  # from the command line's flags: always applied
    sort: str = "rate"
    reverse: bool = False
    filter: str = ""
    wanted: Predicate | None = None
    prompt: Prompt | None = None
    history: list[str] = field(default_factory=list)  # filters that were kept, newest last
    paused: bool = False
    held: int = 0  # events since the pause began
    frozen: bool = False
    closed: bool = True  # closed flows are shown while they linger
    names: bool = True
    geo: str = "auto"
    overlay: str = ""  # "", "help" or "details"
    scroll: int = 0  # of the overlay
    shift: int = 0  # columns scrolled away to the left
    selected: Flow | None = None
    at: int = 0  # where the selected flow stands in ``order``
    top: int = 0  # the first row on screen
    order: list[Flow] = field(default_factory=list)
    page: int = 10  # rows on screen, told by the renderer
    message: str = ""
    total: int = 0  # live flows, and of these
    fitting: int = 0  # those that the filter wants
    due: float = 0.0  # when the next new order is due
    arranged: float = 0.0  # when the present one was made: a clock that went back is no reason to wait
    events_at_pause: int = 0
    stock: list[Flow] = field(default_factory=list)  # while paused: the flows that were there when it began
    cells: dict[Flow, Shown] = field(default_factory=dict)  # while paused: rows as they were
    made: tuple[object, ...] = ()  # what ``order`` was made for: sort, filter and the like
    work: Iterator[None] | None = None  # the ordering that goes on
    ranked: list[Flow] = field(default_factory=list)  # all flows in their order, wanted or not
    ranked_for: tuple[object, ...] = ()  # the part of ``made`` that it was made for
    ranking: bool = False  # ``work`` has not come to the filter yet
    found: list[Flow] = field(default_factory=list)  # what the filter has found so far
    partial: bool = False  # ... and that is on show: it is not yet what was on show before

    @property
    def predicate(self) -> Predicate | None:
        return all_of((self.base, self.wanted))

    @property
    def wishes(self) -> tuple[object, ...]:
        """All that the order of the rows depends on, beside the flows themselves."""
        return self.filter, self.sort, self.reverse, self.closed, self.frozen

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


def keep_in_sight(view: View) -> None:
    """Scroll so that the selected row is on screen, and no line below the last row is wasted."""
    if view.selected is not None:
        view.top = min(view.top, view.at)
        view.top = max(view.top, view.at - view.page + 1)
    view.top = max(0, min(view.top, len(view.order) - view.page))


# --- keys -------------------------------------------------------------------------------------------------------------

Action = Callable[[View, FlowTable], str]


@dataclass(frozen=True)
class Binding:
    """Keys that do the same; the first is the one that help and footer show. ``brief``: its word in the footer."""

    keys: tuple[str, ...]
    action: Action
    text: str
    brief: str = ""


def _quit(_view: View, _table: FlowTable) -> str:
    return "quit"


def _help(view: View, _table: FlowTable) -> str:
    view.overlay, view.scroll = "help", 0
    return ""


def _back(view: View, _table: FlowTable) -> str:
    """Esc: overlay, then filter, then selection."""
    if view.overlay:
        view.overlay = ""
    elif view.filter:
        view.set_filter("")
    else:
        view.selected = None
        view.at = view.top = 0
    return ""


def _details(view: View, _table: FlowTable) -> str:
    if view.selected is None:
        _select(view, view.top)
    if view.order:
        view.overlay, view.scroll = "details", 0
    return ""


def _select(view: View, at: int) -> None:
    if view.order:
        view.at = max(0, min(at, len(view.order) - 1))
        view.selected = view.order[view.at]
        keep_in_sight(view)


def _move(step: Callable[[View], int]) -> Action:
    def action(view: View, _table: FlowTable) -> str:
        if view.overlay:
            view.scroll = max(0, view.scroll + step(view))
        elif view.selected is None and step(view) > 0:
            _select(view, view.top + (step(view) if step(view) > 1 else 0))
        else:
            _select(view, view.at + step(view))
        return ""

    return action


def _sort_by(step: int) -> Action:
    def action(view: View, _table: FlowTable) -> str:
        view.sort = SORTS[(SORTS.index(view.sort) + step) % len(SORTS)]
        view.reverse = view.frozen = False
        view.due = 0.0
        return ""

    return action


def _reverse(view: View, _table: FlowTable) -> str:
    view.reverse = not view.reverse
    view.frozen = False
    view.due = 0.0
    return ""


def _filter(view: View, _table: FlowTable) -> str:
    view.overlay = ""
    text = clean(view.filter, 500)  # --filter may hold what no key types
    view.prompt = Prompt(text, len(text), view.filter)
    return ""


def _pause(view: View, table: FlowTable) -> str:
    view.paused = not view.paused
    view.held = 0
    view.events_at_pause = table.events
    view.cells = {}
    view.stock = list(table) if view.paused else []
    view.due = 0.0
    return ""


def _freeze(view: View, _table: FlowTable) -> str:
    view.frozen = not view.frozen
    view.due = 0.0
    return ""


def _names(view: View, _table: FlowTable) -> str:
    view.names = not view.names
    return ""


def _closed(view: View, _table: FlowTable) -> str:
    view.closed = not view.closed
    view.due = 0.0
    return ""


def _geo(view: View, _table: FlowTable) -> str:
    view.geo = GEO_MODES[(GEO_MODES.index(view.geo) + 1) % len(GEO_MODES)]
    view.message = f"geography: {view.geo}"
    return ""


def _shift(step: int) -> Action:
    def action(view: View, _table: FlowTable) -> str:
        view.shift = max(0, min(view.shift + step, len(BY_KEY) - 1))
        return ""

    return action


def _pace(wish: str) -> Action:
    return lambda _view, _table: wish


def _redraw(view: View, _table: FlowTable) -> str:
    view.due = 0.0
    return "redraw"


BINDINGS: tuple[Binding, ...] = (
    Binding(("?", "h", "f1"), _help, "this help", "help"),
    Binding(("q", "ctrl-c", "f10"), _quit, "quit", "quit"),
    Binding(("/", "f4", "\\"), _filter, "filter, live while you type: proto:tcp port:443 !src:10.0.0.0/8", "filter"),
    Binding(("enter",), _details, "everything about the selected flow", "details"),
    Binding(("s", ">", "f6"), _sort_by(1), "sort by the next column", "sort"),
    Binding(("S", "<"), _sort_by(-1), "sort by the column before"),
    Binding(("r", "I"), _reverse, "sort the other way round", "reverse"),
    Binding(("space", "p"), _pause, "pause: the screen holds still, nothing is missed", "pause"),
    Binding(("esc",), _back, "back: close this, then clear the filter, then drop the selection"),
    Binding(("down", "j"), _move(lambda _v: 1), "next flow"),
    Binding(("up", "k"), _move(lambda _v: -1), "flow before"),
    Binding(("pgdn", "ctrl-f"), _move(lambda v: v.page), "a page down"),
    Binding(("pgup", "ctrl-b"), _move(lambda v: -v.page), "a page up"),
    Binding(("ctrl-d",), _move(lambda v: max(1, v.page // 2)), "half a page down"),
    Binding(("ctrl-u",), _move(lambda v: -max(1, v.page // 2)), "half a page up"),
    Binding(("g", "home"), _move(lambda v: -len(v.order) - 9999), "first flow"),
    Binding(("G", "end"), _move(lambda v: len(v.order) + 9999), "last flow"),
    Binding(("right",), _shift(1), "columns further right"),
    Binding(("left",), _shift(-1), "columns further left"),
    Binding(("n",), _names, "ports by name or by number", "names"),
    Binding(("c",), _geo, "geography columns: auto, country, network, city, off", "geo"),
    Binding(("z", "H"), _closed, "show or hide closed flows"),
    Binding(("o",), _freeze, "hold the order of the rows"),
    Binding(("+",), _pace("faster"), "list more often"),
    Binding(("-",), _pace("slower"), "list less often"),
    Binding(("ctrl-l",), _redraw, "draw the screen anew and list at once"),
)
BY_NAME = {key: binding for binding in BINDINGS for key in binding.keys}


def press(view: View, table: FlowTable, key: str) -> str:
    """Do what a key means. Returns "", "quit", "redraw", "faster" or "slower"."""
    view.message = ""
    if view.prompt is not None:
        if key == "ctrl-c":
            return "quit"
        _edit(view, view.prompt, key)
        return ""
    binding = BY_NAME.get(key)
    if view.overlay == "help" and (binding is None or binding.action not in _SCROLLING):
        view.overlay = ""
        return "quit" if binding is not None and binding.action is _quit else ""
    if binding is None:
        return ""
    if view.overlay == "details" and key == "enter":
        view.overlay = ""
        return ""
    return binding.action(view, table)


_SCROLLING = [BY_NAME[key].action for key in ("down", "up", "pgdn", "pgup", "ctrl-d", "ctrl-u", "g", "G")]

# --- the filter prompt ------------------------------------------------------------------------------------------------


def _edit(view: View, prompt: Prompt, key: str) -> None:
    if key == "enter":
        _keep_filter(view, prompt)
        return
    if key == "esc":
        view.prompt = None
        view.set_filter(prompt.before)
        return
    before, after = prompt.text[: prompt.cursor], prompt.text[prompt.cursor :]
    if key == "space":
        key = " "
    if len(key) == 1 and key.isprintable():
        before += key
    elif key == "backspace":
        before = before[:-1]
    elif key == "delete":
        after = after[1:]
    elif key == "ctrl-u":
        before = ""
    elif key == "ctrl-w":
        before = before.rstrip().rpartition(" ")[0] + " " if " " in before.rstrip() else ""
    elif key in ("up", "down"):
        before, after = _remembered(view, prompt, key), ""
    elif key in ("left", "right", "home", "end", "ctrl-a", "ctrl-e"):
        whole = len(prompt.text)
        moves = {"left": prompt.cursor - 1, "right": prompt.cursor + 1, "home": 0, "ctrl-a": 0}
        prompt.cursor = max(0, min(moves.get(key, whole), whole))
        return
    else:
        return
    prompt.text, prompt.cursor = (before + after)[:500], min(len(before), 500)
    _try_filter(view, prompt)


def _remembered(view: View, prompt: Prompt, key: str) -> str:
    """The kept filter before or after the one in the prompt."""
    if not view.history:
        return prompt.text
    at = view.history.index(prompt.text) if prompt.text in view.history else len(view.history)
    at = max(0, min(at + (-1 if key == "up" else 1), len(view.history)))
    return view.history[at] if at < len(view.history) else ""


def _try_filter(view: View, prompt: Prompt) -> None:
    """Live effect: a right expression filters at once; a wrong one says where and why, and what was before holds.

    Not the longest right beginning: of "state:foo" that is the bare word "state", which fits nothing.
    """
    try:
        view.set_filter(prompt.text)
        prompt.error = ""
    except FilterError as error:
        prompt.error = f"at {error.position + 1}: {error.message}"
        view.set_filter(prompt.before)


def _keep_filter(view: View, prompt: Prompt) -> None:
    _try_filter(view, prompt)
    if prompt.error:
        return
    view.prompt = None
    if prompt.text.strip():
        view.history = [*[text for text in view.history if text != prompt.text], prompt.text][-50:]
