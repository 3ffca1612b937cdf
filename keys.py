"""The keys: one table, which also makes the help, and what each of them does to the view.

Pure: keys come in as names ("down", "f1", "/"); what has to happen outside (quit, list again) goes out as a word.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from columns import VIEWS
from filters import FilterError
from flows import FlowTable, tape_events
from grouping import Baseline, GroupRow
from text import clean
from view import GEO_MODES, Prompt, Return, View

# --- the prompt -------------------------------------------------------------------------------------------------------


def edit(view: View, prompt: Prompt, key: str) -> str:
    """Do what a key means in a prompt. Returns "", or on Enter what is to be done outside."""
    if key == "enter" and prompt.purpose != "filter":
        view.prompt = None
        return f"{prompt.purpose} {prompt.text.strip()}"
    if key == "enter":
        _keep_filter(view, prompt)
        return ""
    if key == "esc":
        view.prompt = None
        if prompt.purpose == "filter":
            view.set_filter(prompt.before)
        return "cancel"
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
    elif key in ("up", "down") and prompt.purpose == "filter":
        before, after = _remembered(view, prompt, key), ""
    elif key in ("left", "right", "home", "end", "ctrl-a", "ctrl-e"):
        whole = len(prompt.text)
        moves = {"left": prompt.cursor - 1, "right": prompt.cursor + 1, "home": 0, "ctrl-a": 0}
        prompt.cursor = max(0, min(moves.get(key, whole), whole))
        return ""
    else:
        return ""
    prompt.text, prompt.cursor = (before + after)[:500], min(len(before), 500)
    if prompt.purpose == "filter":
        _try_filter(view, prompt)
    return ""


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


# --- the keys ---------------------------------------------------------------------------------------------------------

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
    """Esc: the overlay, then the view that Enter has led away from, then the filter, then the selection."""
    if view.overlay == "delete":
        return "cancel"
    if view.overlay:
        view.overlay = ""
    elif view.trail:
        came = view.trail.pop()
        view.show(came.kind.name)
        view.set_filter(came.filter)
        view.selected = came.selected
    elif view.filter:
        view.set_filter("")
    else:
        view.selected = view.flow = None
        view.at = view.top = 0
    return ""


def _details(view: View, _table: FlowTable) -> str:
    """Everything about a flow; of a sum the flows that it is made of."""
    if view.selected is None:
        view.select(view.top)
    if isinstance(view.selected, GroupRow) and view.kind.grouping is not None:
        came = Return(view.kind, view.filter, view.selected)
        term = view.kind.grouping.term(view.selected.key)
        view.flow = None
        view.show("connections")
        view.set_filter(f"({view.filter}) {term}" if " or " in view.filter.lower() else f"{view.filter} {term}".strip())
        view.trail.append(came)
    elif view.order:
        view.overlay, view.scroll = "details", 0
    return ""


def _show(name: str) -> Action:
    def action(view: View, _table: FlowTable) -> str:
        view.trail = []
        view.show(name)
        return ""

    return action


def _next_view(step: int) -> Action:
    def action(view: View, _table: FlowTable) -> str:
        names = [kind.name for kind in VIEWS if kind.key]
        at = names.index("hosts" if view.kind.name == "remotes" else view.kind.name)
        view.trail = []
        view.show(names[(at + step) % len(names)])
        return ""

    return action


def _turn(view: View, _table: FlowTable) -> str:
    """The other end; on the map the other measure."""
    if view.kind.name == "map":
        view.sort = "rate" if view.sort == "flows" else "flows"
        view.due = 0.0
    elif view.kind.name in ("hosts", "remotes"):
        view.show("remotes" if view.kind.name == "hosts" else "hosts")
    else:
        view.message = "t turns hosts to the far side, and the map to rates"
    return ""


def _set_baseline(view: View, _table: FlowTable) -> str:
    """From now on what comes new is shown as new; a second time forgets it."""
    if view.baseline is not None:
        view.baseline = None
        view.message = "mark taken away"
    else:
        view.baseline = Baseline(view.context.now, view.context)
        view.message = "marked: what is new is highlighted; new: selects it"
    view.due = 0.0
    return ""


def _health(view: View, _table: FlowTable) -> str:
    view.overlay, view.scroll = ("" if view.overlay == "health" else "health"), 0
    return ""


def _export(view: View, _table: FlowTable) -> str:
    text = f"conntrack-{view.kind.name}.json"
    view.overlay = ""
    view.prompt = Prompt(text, len(text), "", purpose="export")
    return ""


def _copy_row(word: str) -> Action:
    """Of the selected row; where none is selected, of the first one on screen, as Enter does."""

    def action(view: View, _table: FlowTable) -> str:
        if view.selected is None:
            view.select(view.top)
        return word

    return action


def _wish(word: str) -> Action:
    return lambda _view, _table: word


def _move(step: Callable[[View], int]) -> Action:
    def action(view: View, _table: FlowTable) -> str:
        if view.overlay:
            view.scroll = max(0, view.scroll + step(view))
        elif view.selected is None and step(view) > 0:
            view.select(view.top + (step(view) if step(view) > 1 else 0))
        else:
            view.select(view.at + step(view))
        return ""

    return action


def _sort_by(step: int) -> Action:
    def action(view: View, _table: FlowTable) -> str:
        sorts = view.kind.sorts
        view.sort = sorts[(sorts.index(view.sort) + step) % len(sorts)]
        view.reverse = view.frozen = False
        view.due = 0.0
        return ""

    return action


def _reverse(view: View, _table: FlowTable) -> str:
    view.reverse = not view.reverse
    view.frozen = False
    view.due = 0.0
    return ""


def _open_filter(view: View, _table: FlowTable) -> str:
    view.overlay = ""
    text = clean(view.filter, 500)  # --filter may hold what no key types
    view.prompt = Prompt(text, len(text), view.filter)
    return ""


def _toggle_pause(view: View, table: FlowTable) -> str:
    view.paused = not view.paused
    view.held = 0
    view.events_at_pause = table.events
    view.cells = {}
    view.stock = list(table) if view.paused else []
    view.tape = tape_events(table) if view.paused else []
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
        view.shift = max(0, min(view.shift + step, len(view.kind.columns) - 1))
        return ""

    return action


def _redraw(view: View, _table: FlowTable) -> str:
    view.due = 0.0
    return "redraw"


BINDINGS: tuple[Binding, ...] = (
    Binding(("?", "h", "f1"), _help, "this help", "help"),
    Binding(("q", "ctrl-c", "f10"), _quit, "quit", "quit"),
    Binding(
        ("/", "f4", "\\"), _open_filter, "filter, live while you type: proto:tcp port:443 !src:10.0.0.0/8", "filter"
    ),
    Binding(("enter",), _details, "all about the flow; of a host, country, ... its flows", "details"),
    Binding(("tab", "]"), _next_view(1), "next view", "view"),
    Binding(("shift-tab", "["), _next_view(-1), "view before"),
    Binding(("s", ">", "f6"), _sort_by(1), "sort by the next column", "sort"),
    Binding(("S", "<"), _sort_by(-1), "sort by the column before"),
    Binding(("r", "I"), _reverse, "sort the other way round", "reverse"),
    Binding(("space", "p"), _toggle_pause, "pause: nothing is missed", "pause"),
    Binding(("esc",), _back, "back: close this, clear the filter, drop the selection"),
    Binding(("down", "j"), _move(lambda _v: 1), "next flow"),
    Binding(("up", "k"), _move(lambda _v: -1), "flow before"),
    Binding(("pgdn", "ctrl-f"), _move(lambda v: v.page), "a page down"),
    Binding(("pgup", "ctrl-b"), _move(lambda v: -v.page), "a page up"),
    Binding(("ctrl-d",), _move(lambda v: max(1, v.page // 2)), "half a page down"),
    Binding(("ctrl-u",), _move(lambda v: -max(1, v.page // 2)), "half a page up"),
    Binding(("g", "home"), _move(lambda v: -len(v.order) - 9999), "first flow"),
    Binding(("G", "end"), _move(lambda v: len(v.order) + 9999), "last flow"),
    Binding(("right",), _shift(1), "columns to the right"),
    Binding(("left",), _shift(-1), "columns to the left"),
    Binding(("n",), _names, "ports: name or number", "ports"),
    Binding(("c",), _geo, "geography: which columns", "geo"),
    Binding(("z",), _closed, "closed flows on or off"),
    Binding(("t", "f5"), _turn, "far side; map: rates"),
    Binding(("H",), _health, "health of the table", "health"),
    Binding(("m",), _set_baseline, "mark: what is new since?"),
    Binding(("N",), _wish("hosts"), "names of hosts: asks DNS"),
    Binding(("y",), _copy_row("copy"), "copy the row"),
    Binding(("Y",), _copy_row("copy command"), "copy the -D command"),
    Binding(("e", "ctrl-e"), _export, "export: .json or .csv"),
    Binding(("x", "f9", "delete"), _wish("delete"), "delete (--allow-delete)"),
    Binding(("X",), _wish("delete all"), "delete all that fit"),
    Binding(("o",), _freeze, "hold the order of the rows"),
    Binding(("+",), _wish("faster"), "list more often"),
    Binding(("-",), _wish("slower"), "list less often"),
    Binding(("ctrl-l",), _redraw, "draw anew, list at once"),
)
BINDINGS = (
    BINDINGS[:1]
    + tuple(Binding((kind.key,), _show(kind.name), f"view: {kind.title.lower()}") for kind in VIEWS if kind.key)
    + BINDINGS[1:]
)
BINDING_BY_KEY = {key: binding for binding in BINDINGS for key in binding.keys}


def press(view: View, table: FlowTable, key: str) -> str:
    """Do what a key means. Returns "", or what is to be done outside: "quit", "redraw", "copy", "export NAME", ..."""
    view.message = ""
    if view.prompt is not None:
        if key == "ctrl-c":
            return "quit"
        return edit(view, view.prompt, key)
    binding = BINDING_BY_KEY.get(key)
    if view.overlay in ("help", "health") and (binding is None or binding.action not in _SCROLLING):
        view.overlay = ""
        return "quit" if binding is not None and binding.action is _quit else ""
    if binding is None:
        return ""
    if view.overlay == "details" and key == "enter":
        view.overlay = ""
        return ""
    return binding.action(view, table)


_SCROLLING = [BINDING_BY_KEY[key].action for key in ("down", "up", "pgdn", "pgup", "ctrl-d", "ctrl-u", "g", "G")]
