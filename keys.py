"""The keys: one table, which also makes the help, the prompt, and what each key does to the view.

Pure: keys come in as names ("down", "f1", "/"). What has to happen outside (quit, list again) goes out as a Request.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from columns import VIEWS
from filters import FilterError
from flows import FlowTable
from grouping import BETWEEN, Baseline, GroupRow, UsageRow
from text import clean
from view import GEO_MODES, Dialog, Pause, Prompt, Purpose, Return, View


class Do(Enum):
    """What a key may ask for outside of the view."""

    NOTHING = auto()
    QUIT = auto()
    REDRAW = auto()  # and list at once
    SWITCH_NAMES = auto()  # of hosts, on or off
    COPY_ROW = auto()
    COPY_COMMAND = auto()  # the one that deletes the selected flow
    EXPORT = auto()  # into the file that ``text`` names
    DELETE = auto()  # the flows of the selected row
    DELETE_ALL = auto()  # all that the filter wants
    ANSWER = auto()  # ``text`` is the answer to the question of the dialog
    STOP = auto()  # the answer is No; what goes on is stopped
    LIST_MORE_OFTEN = auto()
    LIST_LESS_OFTEN = auto()
    PUT_ASIDE = auto()  # the notice on show, until it changes


class Request(NamedTuple):
    """What a key asks for, and its argument."""

    do: Do
    text: str = ""


NOTHING = Request(Do.NOTHING)

# --- the prompt -------------------------------------------------------------------------------------------------------


def paste(view: View, text: str) -> None:
    """A pasted text goes into the prompt that is open; where none is, nothing is done: its letters are no keys."""
    view.message = ""
    asked = view.dialog.prompt if view.dialog is not None else None
    prompt = view.prompt or asked
    if prompt is None:
        view.message = "A paste goes into a prompt: / opens that of the filter"
        return
    prompt.paste(text)
    if prompt.purpose is Purpose.FILTER:
        _try_filter(view, prompt)


def _press_in_prompt(view: View, prompt: Prompt, key: str) -> Request:
    """Do what a key means in the prompt for a filter or a file."""
    is_filter = prompt.purpose is Purpose.FILTER
    if key == "enter":
        if is_filter:
            _keep_filter(view, prompt)
            return NOTHING
        view.prompt = None
        return Request(Do.EXPORT, prompt.text.strip())
    if key == "esc":
        view.prompt = None
        if is_filter:
            view.set_filter(prompt.before)
        return NOTHING
    before = prompt.text
    if is_filter and key in ("up", "down"):
        prompt.replace(_remembered(view, prompt, key))
    elif not prompt.edit(key):
        return NOTHING
    if is_filter and (prompt.text != before or prompt.error):
        _try_filter(view, prompt)
    return NOTHING


def _press_in_dialog(dialog: Dialog, prompt: Prompt, key: str) -> Request:
    """A question has all keys for itself until it is answered."""
    if key == "enter":
        return Request(Do.ANSWER, dialog.answered())
    if key == "esc":
        return Request(Do.STOP)
    prompt.edit(key)
    return NOTHING


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

Action = Callable[[View, FlowTable], Request]


@dataclass(frozen=True)
class Binding:
    """Keys that do the same; the first is the one that help and footer show. ``brief``: its word in the footer."""

    keys: tuple[str, ...]
    action: Action
    text: str
    brief: str = ""


def _quit(_view: View, _table: FlowTable) -> Request:
    return Request(Do.QUIT)


def _help(view: View, _table: FlowTable) -> Request:
    view.overlay, view.scroll = "help", 0
    return NOTHING


def _back(view: View, _table: FlowTable) -> Request:
    """Esc: the overlay, then the view that Enter has led away from, then the filter, then the selection."""
    if view.overlay:
        view.overlay = ""
    elif view.trail:
        came = view.trail.pop()
        view.show(came.spec.name)
        view.set_filter(came.filter)
        view.selected, view.at_top = came.selected, came.at_top
    elif view.filter:
        view.set_filter("")
    else:
        view.drop_selection()
    return NOTHING


def _is_chosen(view: View, again: str) -> bool:
    """Does whoever presses a key know which row it means? Where none is selected, the first one is from now on.

    Rows move: without a second press another row would be meant than the one that was seen. ``again``: what that does.
    """
    if view.selected is None:
        view.select(view.top)
        if len(view.rows.order) > 1:
            view.message = f"The first row is selected; press again to {again}"
            return False
    return True


def _details(view: View, _table: FlowTable) -> Request:
    """Everything about a flow; of a sum the flows that it is made of."""
    spec = view.spec
    if not _is_chosen(view, "see what it is made of" if spec.enters else "see all about it"):
        return NOTHING
    if isinstance(view.selected, GroupRow) and spec.grouping is not None and spec.enters:
        came = Return(spec, view.filter, view.selected, view.at_top)
        term = spec.grouping.term(view.selected.key)
        view.flow = None
        view.show(spec.enters)
        view.set_filter(f"({view.filter}) {term}" if " or " in view.filter.lower() else f"{view.filter} {term}".strip())
        view.trail.append(came)
    elif isinstance(view.selected, UsageRow):
        _enter_usage(view, view.selected)
    elif view.rows.order:
        view.overlay, view.scroll = "details", 0
    return NOTHING


def _enter_usage(view: View, row: UsageRow) -> None:
    """Of a host its countries; t then turns to its networks and services."""
    spec = view.spec
    if not spec.enters:
        view.message = "Enter on a host shows its countries; t turns to networks and services"
        return
    came = Return(spec, view.filter, row, view.at_top)
    view.show(spec.enters)
    view.set_filter(f"near:{row.key}")
    view.trail.append(came)


def _show(name: str) -> Action:
    def action(view: View, _table: FlowTable) -> Request:
        view.trail = []
        view.show(name)
        return NOTHING

    return action


def _next_view(step: int) -> Action:
    def action(view: View, _table: FlowTable) -> Request:
        names: list[str] = [spec.name for spec in VIEWS if spec.key]
        at = names.index(view.spec.tab or view.spec.name)
        view.trail = []
        view.show(names[(at + step) % len(names)])
        return NOTHING

    return action


def _turn(view: View, _table: FlowTable) -> Request:
    """The other end; on the map the other measure."""
    spec = view.spec
    if spec.turned_sort:
        view.sort = spec.turned_sort if view.sort == spec.sort else spec.sort
    elif spec.turns_to:
        view.show(spec.turns_to)
    else:
        view.message = "t turns hosts to the far side, and the map to rates"
    return NOTHING


def _set_baseline(view: View, _table: FlowTable) -> Request:
    """From now on what comes new is shown as new; a second time forgets it."""
    if view.baseline is not None:
        view.baseline = None
        view.message = "mark taken away"
    else:
        view.baseline = Baseline(view.context.now, view.context)
        view.message = "marked: what is new is highlighted; new: selects it"
    view.rows.expire()
    return NOTHING


def _health(view: View, _table: FlowTable) -> Request:
    view.overlay, view.scroll = ("" if view.overlay == "health" else "health"), 0
    return NOTHING


def _export(view: View, _table: FlowTable) -> Request:
    text = f"conntrack-{view.spec.name}.json"
    view.overlay = ""
    view.prompt = Prompt(Purpose.EXPORT, text, len(text))
    return NOTHING


def _copy_row(do: Do) -> Action:
    """Of the selected row."""

    def action(view: View, _table: FlowTable) -> Request:
        return Request(do) if _is_chosen(view, "copy it") else NOTHING

    return action


def _asks_for(do: Do) -> Action:
    return lambda _view, _table: Request(do)


def _move(step: Callable[[View], int]) -> Action:
    def action(view: View, _table: FlowTable) -> Request:
        if view.overlay:
            view.scroll = max(0, view.scroll + step(view))
        elif view.selected is None or view.out_of_sight:  # keys move from what is seen
            view.select(view.top + (step(view) if abs(step(view)) > 1 else 0))
        else:
            view.select(view.at + step(view))
        return NOTHING

    return action


def _go_to_selected(view: View, _table: FlowTable) -> Request:
    """Bring the selected row back into sight, and stay with it."""
    if view.selected is None:
        view.message = "No row is selected"
    else:
        view.select(view.at)
    return NOTHING


def _sort_by(step: int) -> Action:
    def action(view: View, _table: FlowTable) -> Request:
        sorts = view.spec.sorts
        view.sort = sorts[(sorts.index(view.sort) + step) % len(sorts)]
        view.reverse = view.frozen = False
        return NOTHING

    return action


def _reverse(view: View, _table: FlowTable) -> Request:
    view.reverse = not view.reverse
    view.frozen = False
    return NOTHING


def _open_filter(view: View, _table: FlowTable) -> Request:
    view.overlay = ""
    text = clean(view.filter, 500)  # --filter may hold what no key types
    view.prompt = Prompt(Purpose.FILTER, text, len(text), before=view.filter)
    return NOTHING


def _toggle_pause(view: View, table: FlowTable) -> Request:
    view.pause = None if view.pause else Pause(table)
    view.rows.expire()
    return NOTHING


def _freeze(view: View, _table: FlowTable) -> Request:
    view.frozen = not view.frozen
    return NOTHING


def _names(view: View, _table: FlowTable) -> Request:
    view.names = not view.names
    return NOTHING


def _closed(view: View, _table: FlowTable) -> Request:
    view.closed = not view.closed
    return NOTHING


def _geo(view: View, _table: FlowTable) -> Request:
    view.geo = GEO_MODES[(GEO_MODES.index(view.geo) + 1) % len(GEO_MODES)]
    view.message = f"geography: {view.geo}"
    return NOTHING


def _shift(step: int) -> Action:
    def action(view: View, _table: FlowTable) -> Request:
        view.shift = max(0, min(view.shift + step, len(view.spec.columns) - 1))
        return NOTHING

    return action


def _open_row(view: View, table: FlowTable) -> Request:
    """What the selected sum is made of stands below it: countries of a host, hosts of a country. Else columns move."""
    row, grouping = view.selected, view.spec.grouping
    can = isinstance(row, GroupRow) and grouping is not None and grouping.of(row.key) is grouping
    if isinstance(row, GroupRow) and can and not (view.spec.on_map or view.overlay or row.key in view.opened):
        view.opened |= {row.key}
        return NOTHING
    return _shift(1)(view, table)


def _close_row(view: View, table: FlowTable) -> Request:
    """The opposite: first the columns come back, then the row is closed."""
    row = view.selected
    if isinstance(row, GroupRow) and not view.shift and not view.overlay:
        key = row.key if row.key in view.opened else row.key.rpartition(BETWEEN)[0]
        if key in view.opened:
            view.opened -= {key}
            view.selected = GroupRow(key)
            return NOTHING
    return _shift(-1)(view, table)


def _redraw(view: View, _table: FlowTable) -> Request:
    view.rows.expire()
    return Request(Do.REDRAW)


BINDINGS: tuple[Binding, ...] = (
    Binding(("?", "h", "f1"), _help, "this help", "help"),
    *(Binding((spec.key,), _show(spec.name), f"view: {spec.title.lower()}") for spec in VIEWS if spec.key),
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
    Binding(("g", "home"), _move(lambda v: -len(v.rows.order) - 9999), "first flow"),
    Binding(("G", "end"), _move(lambda v: len(v.rows.order) + 9999), "last flow"),
    Binding(("right",), _open_row, "open a sum; columns right"),
    Binding(("left",), _close_row, "close it; columns left"),
    Binding(("n",), _names, "ports: name or number", "ports"),
    Binding(("c",), _geo, "geography: which columns", "geo"),
    Binding(("z",), _closed, "closed flows on or off"),
    Binding(("t", "f5"), _turn, "far side; map: rates"),
    Binding(("H",), _health, "health of the table", "health"),
    Binding(("!",), _asks_for(Do.PUT_ASIDE), "put the notice aside"),
    Binding(("m",), _set_baseline, "mark: what is new since?"),
    Binding(("N",), _asks_for(Do.SWITCH_NAMES), "names of hosts: asks DNS"),
    Binding(("y",), _copy_row(Do.COPY_ROW), "copy the row"),
    Binding(("Y",), _copy_row(Do.COPY_COMMAND), "copy the -D command"),
    Binding(("e", "ctrl-e"), _export, "export: .json or .csv"),
    Binding(("x", "f9", "delete"), _asks_for(Do.DELETE), "delete (--allow-delete)"),
    Binding(("X",), _asks_for(Do.DELETE_ALL), "delete all that fit"),
    Binding((".",), _go_to_selected, "go to the selected row"),
    Binding(("o",), _freeze, "hold the order of the rows"),
    Binding(("+",), _asks_for(Do.LIST_MORE_OFTEN), "list more often"),
    Binding(("-",), _asks_for(Do.LIST_LESS_OFTEN), "list less often"),
    Binding(("ctrl-l",), _redraw, "draw anew, list at once"),
)
BINDING_BY_KEY = {key: binding for binding in BINDINGS for key in binding.keys}


def press(view: View, table: FlowTable, key: str) -> Request:
    """Do what a key means to the view. Returns what is to be done outside."""
    view.message = ""
    dialog = view.dialog
    asked = dialog.prompt if dialog is not None else None
    if key == "ctrl-c" and (view.prompt is not None or asked is not None):
        return Request(Do.QUIT)
    if view.prompt is not None:
        return _press_in_prompt(view, view.prompt, key)
    if dialog is not None and asked is not None:
        return _press_in_dialog(dialog, asked, key)
    binding = BINDING_BY_KEY.get(key)
    if view.overlay in ("help", "health") and (binding is None or binding.action not in _SCROLLING):
        view.overlay = ""
        return Request(Do.QUIT) if binding is not None and binding.action is _quit else NOTHING
    if view.overlay == "delete":
        return _press_over_deletion(view, table, binding)
    if binding is None:
        return NOTHING
    if view.overlay == "details" and key == "enter":
        view.overlay = ""
        return NOTHING
    return binding.action(view, table)


def _press_over_deletion(view: View, table: FlowTable, binding: Binding | None) -> Request:
    """While a deletion goes on, keys do not act on the rows that it covers: they scroll, leave it or stop it."""
    if binding is None:
        return NOTHING
    if binding.action is _back:
        return Request(Do.STOP)
    leaves = binding.keys[0] in _LEAVING
    return binding.action(view, table) if leaves or binding.action in _SCROLLING else NOTHING


_SCROLLING = [BINDING_BY_KEY[key].action for key in ("down", "up", "pgdn", "pgup", "ctrl-d", "ctrl-u", "g", "G")]
# What opens something else; the deletion goes on behind it.
_LEAVING = {"?", "q", "/", "tab", "shift-tab", "H", "e", "ctrl-l", *(spec.key for spec in VIEWS if spec.key)}
