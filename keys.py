"""The keys: one table, which also makes the help, the prompt, the mouse, and what each key does to the view.

Pure: keys come in as names ("down", "f1", "/"), clicks as places. What has to happen outside (quit, list
again) goes out as a Request.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from columns import FLOWS, AnyColumn, moment_text, row_terms, tab_of, tabs
from filters import FIXED_VALUES, FilterError
from flows import AnyTable
from grouping import BETWEEN, Baseline, GroupRow, UsageRow
from keyboard import Button, Mouse
from text import clean
from view import GEO_MODES, Area, Dialog, Pause, Picker, Picks, Prompt, Purpose, Return, Target, View
from vocabulary import FIELDS


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
    LIST_MORE_OFTEN = auto()  # of a recording: play it faster
    LIST_LESS_OFTEN = auto()
    WHOIS = auto()  # ask whose the address is that ``text`` names
    SEEK_BACK = auto()  # in a recording
    SEEK_ON = auto()
    STEP = auto()  # play what comes next of a recording, and stand still
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
        view.message = "Nothing to paste into: press / to open the filter prompt"
        return
    prompt.paste(text)
    if prompt.purpose is Purpose.FILTER:
        _try_filter(view, prompt)


def _press_in_prompt(view: View, prompt: Prompt, key: str) -> Request:
    """Do what a key means in the prompt for a filter or a file."""
    is_filter = prompt.purpose is Purpose.FILTER
    if key not in ("tab", "shift-tab"):
        offered, prompt.choices = prompt.choices, []
        if key == "enter" and offered and prompt.text[: prompt.cursor].endswith(":"):
            _complete(view, prompt, 1)  # the field is chosen: now its values
            return NOTHING
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
    if is_filter and key in ("tab", "shift-tab"):
        _complete(view, prompt, 1 if key == "tab" else -1)
    elif is_filter and key in ("up", "down"):
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


LOOKED_THROUGH, OFFERED = 60, 40  # rows for their values, 0.2 ms each; words that are offered


def _complete(view: View, prompt: Prompt, step: int) -> None:
    """Tab: the word before the cursor becomes the first that it may be, and again the next."""
    if prompt.choices:
        prompt.choose(step)
        return
    before = prompt.text[: prompt.cursor]
    word = re.findall(r"[^\s(!]*$", before)[0]
    if found := _words_for(view, word):
        prompt.offer(len(before) - len(word), found[:OFFERED], step)


def _words_for(view: View, word: str) -> list[str]:
    """What a word may become: a field, a value that is on show, a saved filter; of a wrong word what it is close to."""
    name, colon, value = word.partition(":")
    fields = [field.name for field in FIELDS]
    if not colon:
        saved = [f"@{saved}" for saved in view.context.filters]
        return _beginning_so(word, [*(f"{field}:" for field in fields), *saved])
    if name.lower() not in fields:
        return [f"{close}:{value}" for close in _beginning_so(name, fields)]
    others, comma, last = value.rpartition(",")
    return [f"{name}:{others}{comma}{found}" for found in _beginning_so(last, _values_of(view, name.lower()))]


def _beginning_so(word: str, known: Sequence[str]) -> list[str]:
    if found := [name for name in known if name.lower().startswith(word.lower())]:
        return found
    from difflib import get_close_matches  # 5 ms

    return get_close_matches(word.lower(), known, 3)


def _values_of(view: View, field: str) -> list[str]:
    """The values that a field has in the rows on show, then those that it may have; else an example."""
    rows = view.rows.order[view.top : view.top + LOOKED_THROUGH]
    terms = (term for row in rows for _, term in row_terms(view.spec, row, view.context))
    seen = Counter(term.partition(":")[2] for term in terms if term.startswith(f"{field}:"))
    values = dict.fromkeys([*(value for value, _ in seen.most_common()), *FIXED_VALUES.get(field, ())])
    return list(values) or [known.example for known in FIELDS if known.name == field]


def _try_filter(view: View, prompt: Prompt, whole: bool = False) -> None:
    """Live effect: a right expression filters at once; a wrong one says where and why, and what was before holds.

    Not the longest right beginning: of "state:foo" that is the bare word "state", which fits nothing. ``whole``:
    nothing more is typed; else a field at the end of which the value is still to come is no error.
    """
    try:
        view.set_filter(prompt.text)
        prompt.error = ""
    except FilterError as error:
        waits = prompt.text.endswith(":") and error.position == len(prompt.text) and not whole
        prompt.error = "" if waits else f"at {error.position + 1}: {error.message}"
        view.set_filter(prompt.before)


def _keep_filter(view: View, prompt: Prompt) -> None:
    _try_filter(view, prompt, whole=True)
    if prompt.error:
        return
    view.prompt = None
    _remember_filter(view, prompt.text)


def _remember_filter(view: View, kept: str) -> None:
    if kept.strip():
        view.history = [*[text for text in view.history if text != kept], kept][-50:]


# --- the keys ---------------------------------------------------------------------------------------------------------

Action = Callable[[View, AnyTable], Request]


@dataclass(frozen=True)
class Binding:
    """Keys that do the same; the first is the one that help and footer show.

    ``brief``: its word in the footer of every view; what a key does in one view only is in columns.ViewSpec.hints.
    """

    keys: tuple[str, ...]
    action: Action
    text: str
    brief: str = ""


def _quit(_view: View, _table: AnyTable) -> Request:
    return Request(Do.QUIT)


def _help(view: View, _table: AnyTable) -> Request:
    view.overlay, view.scroll = "help", 0
    return NOTHING


def _back(view: View, _table: AnyTable) -> Request:
    """Esc: the overlay, then the view that Enter has led away from, then the filter, then the selection."""
    if view.overlay:
        view.overlay = "details" if view.overlay == "whois" and view.flow is not None else ""
    elif view.trail:
        came = view.trail.pop()
        view.show(came.spec.name)
        view.set_filter(came.filter)
        view.selected, view.at_top = came.selected, came.at_top
        view.overlay = came.overlay
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


def _details(view: View, _table: AnyTable) -> Request:
    """Everything about a flow; of a sum the flows that it is made of."""
    spec = view.spec
    if not _is_chosen(view, "show its flows" if spec.enters else "show its details"):
        return NOTHING
    if isinstance(view.selected, GroupRow) and spec.grouping is not None and spec.enters:
        came = Return(spec, view.filter, view.selected, view.at_top)
        term = spec.grouping.term(view.selected.key)
        view.flow = None
        view.show(spec.enters)
        view.narrow(term)
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
        view.message = "Enter works on hosts here; t switches to networks and services"
        return
    came = Return(spec, view.filter, row, view.at_top)
    view.show(spec.enters)
    view.set_filter(f"near:{row.key}")
    view.trail.append(came)


def _show(name: str) -> Action:
    def action(view: View, _table: AnyTable) -> Request:
        view.trail = []
        view.show(name)
        return NOTHING

    return action


def _show_tab(key: str) -> Action:
    def action(view: View, table: AnyTable) -> Request:
        spec = next(spec for spec in tabs(view.context.is_among_others()) if spec.key == key)
        return _show(spec.name)(view, table)

    return action


def _next_view(step: int) -> Action:
    def action(view: View, _table: AnyTable) -> Request:
        several = view.context.is_among_others()
        specs = tabs(several)
        at = specs.index(tab_of(view.spec, several))
        view.trail = []
        view.show(specs[(at + step) % len(specs)].name)
        return NOTHING

    return action


def _turn(view: View, _table: AnyTable) -> Request:
    """The other end; on the map the other measure."""
    spec = view.spec
    if spec.turned_sort:
        view.sort = spec.turned_sort if view.sort == spec.sort else spec.sort
    elif spec.turns_to:
        view.show(spec.turns_to)
    else:
        view.message = "t works in Hosts (local/remote) and Map (flows/rate)"
    return NOTHING


def _ask_whois(view: View, _table: AnyTable) -> Request:
    """Whose the remote end of the selected flow is, or the selected host: a server is asked, so only where this is."""
    if not _is_chosen(view, "ask whois about it"):
        return NOTHING
    row, address = view.selected, ""
    if isinstance(row, GroupRow):
        address = row.key if view.spec.grouping is not None and view.spec.grouping.field in ("near", "far") else ""
    elif view.flow is not None:
        address = view.context.remote_address(view.flow)
    if not address:
        view.message = "whois needs an address: select a host or a flow"
    return Request(Do.WHOIS, address) if address else NOTHING


def _set_baseline(view: View, _table: AnyTable) -> Request:
    """From now on what comes new is shown as new; a second time forgets it."""
    if view.baseline is not None:
        view.baseline = None
        view.message = "Mark cleared"
    else:
        now = view.context.now + view.context.epoch
        at = moment_text(now, now, brief=True)
        view.baseline = Baseline(view.context.now, view.context)
        view.message = f"Mark set {at}: new rows are highlighted; the filter new: shows only them"
    view.rows.expire()
    return NOTHING


def _health(view: View, _table: AnyTable) -> Request:
    view.overlay, view.scroll = ("" if view.overlay == "health" else "health"), 0
    view.entry, view.entries = "", ()
    return NOTHING


def _choose_entry(view: View, step: int) -> None:
    """The next line of the health panel that can be entered, or the one before."""
    entries = view.entries
    at = entries.index(view.entry) + step if view.entry in entries else 0 if step > 0 else len(entries) - 1
    view.entry = entries[max(0, min(at, len(entries) - 1))]


def _enter_health(view: View) -> None:
    """The flows that the selected line tells of; without one the first line is selected. Esc comes back."""
    if view.entry not in view.entries:
        if view.entries:
            _choose_entry(view, 1)
        return
    came = Return(view.spec, view.filter, view.selected, view.at_top, "health")
    try:
        view.set_filter(view.entry)
    except FilterError as error:  # a state that this program has no name for
        view.message = f"This filter is not valid: {error.message}"
        return
    view.show(FLOWS)
    view.overlay, view.scroll = "", 0
    view.drop_selection()  # also of the flow that was meant before
    view.trail.append(came)


def _export(view: View, _table: AnyTable) -> Request:
    text = f"conntrack-{view.spec.name}.json"
    view.overlay = ""
    view.prompt = Prompt(Purpose.EXPORT, text, len(text))
    return NOTHING


def _copy_row(do: Do) -> Action:
    """Of the selected row."""

    def action(view: View, _table: AnyTable) -> Request:
        return Request(do) if _is_chosen(view, "copy it") else NOTHING

    return action


def _asks_for(do: Do) -> Action:
    return lambda _view, _table: Request(do)


FAR_AWAY = 9999  # rows: to the first or the last one


def _move(step: Callable[[View], int]) -> Action:
    """Where details stand beside the rows, pages are theirs, and steps the rows'."""

    def action(view: View, _table: AnyTable) -> Request:
        if view.overlay == "health":
            if abs(step(view)) == 1 and view.entries:
                _choose_entry(view, step(view))
                return NOTHING
            view.entry = ""  # it would hold the panel where it is
        if view.overlay and not (view.beside and (abs(step(view)) == 1 or abs(step(view)) >= FAR_AWAY)):
            view.scroll = max(0, view.scroll + step(view))
        elif view.selected is None or view.out_of_sight:  # keys move from what is seen
            view.select(view.top + (step(view) if abs(step(view)) > 1 else 0))
        else:
            view.select(view.at + step(view))
        return NOTHING

    return action


def _go_to_selected(view: View, _table: AnyTable) -> Request:
    """Bring the selected row back into sight, and stay with it."""
    if view.selected is None:
        view.message = "No row is selected"
    else:
        view.select(view.at)
    return NOTHING


def _columns(view: View) -> list[AnyColumn]:
    """The columns of the view, also those that have nothing to show now; a single node needs no column of nodes."""
    several = view.context.is_among_others()
    return [column for column in view.spec.columns if several or column.only_with != "nodes"]


def _sorts(view: View) -> list[str]:
    """The columns that one can sort by."""
    there = {column.key for column in _columns(view)}
    return [key for key in view.spec.sorts if key in there]


def _sort_by(step: int) -> Action:
    def action(view: View, _table: AnyTable) -> Request:
        sorts = _sorts(view)
        view.sort = sorts[(sorts.index(view.sort) + step) % len(sorts)]
        view.reverse = view.frozen = False
        return NOTHING

    return action


def _pick_sort(view: View, _table: AnyTable) -> Request:
    """A list of the columns to sort by."""
    spec, sorts = view.spec, _sorts(view)
    choices = [(f"{spec.column(key).title:<12} {key}", key) for key in sorts]
    return _open_picker(view, Picker(Picks.SORT, choices, sorts.index(view.sort)))


def _pick_columns(view: View, _table: AnyTable) -> Request:
    """A list of the columns, to show them or not."""
    columns = [column for column in _columns(view) if not column.narrow_form_of]
    choices = [(f"{column.title:<12} {column.key}", column.key) for column in columns]
    return _open_picker(view, Picker(Picks.COLUMNS, choices))


def _pick_term(view: View, _table: AnyTable) -> Request:
    """A list of what is in the selected row, to filter by; that of the cell that was clicked on first."""
    if not _is_chosen(view, "filter by what is in it") or view.selected is None:
        return NOTHING
    terms = row_terms(view.spec, view.selected, view.context)
    if not terms:
        view.message = "This row has nothing to filter by"
        return NOTHING
    wanted = (view.cell, view.sort)
    at = next((at for at, (column, _) in enumerate(terms) if column in wanted), 0)
    return _open_picker(view, Picker(Picks.TERM, [(term, term) for _, term in terms], at))


def _open_picker(view: View, picker: Picker) -> Request:
    view.overlay, view.picker = "", picker
    return NOTHING


def _reverse(view: View, _table: AnyTable) -> Request:
    view.reverse = not view.reverse
    view.frozen = False
    return NOTHING


def _open_filter(view: View, _table: AnyTable) -> Request:
    view.overlay = ""
    text = clean(view.filter, 500)  # --filter may hold what no key types
    view.prompt = Prompt(Purpose.FILTER, text, len(text), before=view.filter)
    return NOTHING


def _toggle_pause(view: View, table: AnyTable) -> Request:
    view.pause = None if view.pause else Pause(table)
    view.rows.expire()
    return NOTHING


def _freeze(view: View, _table: AnyTable) -> Request:
    view.frozen = not view.frozen
    return NOTHING


def _names(view: View, _table: AnyTable) -> Request:
    view.names = not view.names
    return NOTHING


def _bits(view: View, _table: AnyTable) -> Request:
    view.bits = not view.bits
    view.message = f"Rates are in {'bits' if view.bits else 'bytes'} per second"
    return NOTHING


def _closed(view: View, _table: AnyTable) -> Request:
    view.closed = not view.closed
    return NOTHING


def _geo(view: View, _table: AnyTable) -> Request:
    view.geo = GEO_MODES[(GEO_MODES.index(view.geo) + 1) % len(GEO_MODES)]
    view.message = f"geography: {view.geo}"
    return NOTHING


def _shift(step: int) -> Action:
    def action(view: View, _table: AnyTable) -> Request:
        if view.overlay == "details":  # the next flow, or the one before
            view.select(view.at + step)
            view.scroll = 0
            return NOTHING
        view.shift = max(0, min(view.shift + step, len(view.spec.columns) - 1))
        return NOTHING

    return action


def _open_row(view: View, table: AnyTable) -> Request:
    """What the selected sum is made of stands below it: countries of a host, hosts of a country. Else columns move."""
    row, grouping = view.selected, view.spec.grouping
    can = isinstance(row, GroupRow) and grouping is not None and not grouping.is_part(row.key)
    if isinstance(row, GroupRow) and can and not (view.spec.on_map or view.overlay or row.key in view.opened):
        view.opened |= {row.key}
        return NOTHING
    return _shift(1)(view, table)


def _close_row(view: View, table: AnyTable) -> Request:
    """The opposite: first the columns come back, then the row is closed."""
    row = view.selected
    if isinstance(row, GroupRow) and not view.shift and not view.overlay:
        key = row.key if row.key in view.opened else row.key.rpartition(BETWEEN)[0]
        if key in view.opened:
            view.opened -= {key}
            view.selected = GroupRow(key)
            return NOTHING
    return _shift(-1)(view, table)


def _redraw(view: View, _table: AnyTable) -> Request:
    view.rows.expire()
    return Request(Do.REDRAW)


BINDINGS: tuple[Binding, ...] = (
    Binding(("?", "h", "f1"), _help, "this help", "help"),
    *(Binding((spec.key,), _show_tab(spec.key), f"view: {spec.title.lower()}") for spec in tabs(several=False)),
    Binding(("q", "ctrl-c", "f10"), _quit, "quit", "quit"),
    Binding(
        ("/", "f4", "\\"), _open_filter, "filter, live while you type: proto:tcp port:443 !src:10.0.0.0/8", "filter"
    ),
    Binding(("enter",), _details, "details; on a host or country: its flows"),
    Binding(("tab", "]"), _next_view(1), "next view"),
    Binding(("shift-tab", "["), _next_view(-1), "previous view"),
    Binding(("s", ">"), _sort_by(1), "sort by the next column", "sort"),
    Binding(("<",), _sort_by(-1), "sort by the previous column"),
    Binding(("S", "f6"), _pick_sort, "choose the sort column"),
    Binding((",", "f2"), _pick_columns, "choose columns to show"),
    Binding(("=",), _pick_term, "filter by a value of the row"),
    Binding(("r", "I"), _reverse, "reverse the sort order", "reverse"),
    Binding(("space", "p"), _toggle_pause, "pause; no event is lost", "pause"),
    Binding(("esc",), _back, "back: close, clear the filter, deselect"),
    Binding(("down", "j"), _move(lambda _v: 1), "next flow"),
    Binding(("up", "k"), _move(lambda _v: -1), "previous flow"),
    Binding(("pgdn", "ctrl-f"), _move(lambda v: v.page), "a page down"),
    Binding(("pgup", "ctrl-b"), _move(lambda v: -v.page), "a page up"),
    Binding(("ctrl-d",), _move(lambda v: max(1, v.page // 2)), "half a page down"),
    Binding(("ctrl-u",), _move(lambda v: -max(1, v.page // 2)), "half a page up"),
    Binding(("g", "home"), _move(lambda v: -len(v.rows.order) - FAR_AWAY), "first flow"),
    Binding(("G", "end"), _move(lambda v: len(v.rows.order) + FAR_AWAY), "last flow"),
    Binding(("right",), _open_row, "expand row; scroll right"),
    Binding(("left",), _close_row, "collapse row; scroll left"),
    Binding(("n",), _names, "port names or numbers"),
    Binding(("b",), _bits, "rates in bits or bytes"),
    Binding(("c",), _geo, "geography columns"),
    Binding(("z",), _closed, "show or hide closed flows"),
    Binding(("t", "f5"), _turn, "local/remote; map: rates"),
    Binding(("H",), _health, "table health", "health"),
    Binding(("!",), _asks_for(Do.PUT_ASIDE), "hide the notice"),
    Binding(("m",), _set_baseline, "mark: highlight new ones"),
    Binding(("w",), _ask_whois, "whois of the address"),
    Binding(("N",), _asks_for(Do.SWITCH_NAMES), "host names from DNS"),
    Binding(("y",), _copy_row(Do.COPY_ROW), "copy the row"),
    Binding(("Y",), _copy_row(Do.COPY_COMMAND), "copy its delete command"),
    Binding(("e", "ctrl-e"), _export, "export to .json or .csv"),
    Binding(("x", "f9", "delete"), _asks_for(Do.DELETE), "delete (--allow-delete)"),
    Binding(("X",), _asks_for(Do.DELETE_ALL), "delete all matching"),
    Binding((".",), _go_to_selected, "go to the selected row"),
    Binding(("o",), _freeze, "freeze the row order"),
    Binding(("+",), _asks_for(Do.LIST_MORE_OFTEN), "refresh or replay faster"),
    Binding(("-",), _asks_for(Do.LIST_LESS_OFTEN), "refresh or replay slower"),
    Binding(("{",), _asks_for(Do.SEEK_BACK), "recording: 10 s back"),
    Binding(("}",), _asks_for(Do.SEEK_ON), "recording: 10 s forward"),
    Binding(("|",), _asks_for(Do.STEP), "recording: one step"),
    Binding(("ctrl-l",), _redraw, "redraw and refresh now"),
)
BINDING_BY_KEY = {key: binding for binding in BINDINGS for key in binding.keys}


def press(view: View, table: AnyTable, key: str) -> Request:
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
    if view.picker is not None:
        return _press_in_picker(view, view.picker, key)
    binding = BINDING_BY_KEY.get(key)
    if view.overlay == "health" and key == "enter":
        _enter_health(view)
        return NOTHING
    if view.overlay in ("help", "health", "whois") and (binding is None or binding.action not in _SCROLLING):
        _back(view, table)
        return Request(Do.QUIT) if binding is not None and binding.action is _quit else NOTHING
    if view.overlay == "delete":
        return _press_over_deletion(view, table, binding)
    if binding is None:
        return NOTHING
    if view.overlay == "details" and key == "enter":
        view.overlay = ""
        return NOTHING
    return binding.action(view, table)


def _press_over_deletion(view: View, table: AnyTable, binding: Binding | None) -> Request:
    """While a deletion is running, keys do not act on the rows that it covers: they scroll, leave it or stop it."""
    if binding is None:
        return NOTHING
    if binding.action is _back:
        return Request(Do.STOP)
    leaves = binding.keys[0] in _LEAVING
    return binding.action(view, table) if leaves or binding.action in _SCROLLING else NOTHING


_SCROLLING = [BINDING_BY_KEY[key].action for key in ("down", "up", "pgdn", "pgup", "ctrl-d", "ctrl-u", "g", "G")]
# What opens something else; the deletion goes on behind it.
_LEAVING = {"?", "q", "/", "tab", "shift-tab", "H", "e", "ctrl-l", *(spec.key for spec in tabs(several=False))}


# --- lists ------------------------------------------------------------------------------------------------------------

_STEPS = {"down": 1, "j": 1, "up": -1, "k": -1, "pgdn": 10, "pgup": -10, "g": -99, "home": -99, "G": 99, "end": 99}


def _press_in_picker(view: View, picker: Picker, key: str) -> Request:
    """Move in the list, take what is chosen, or leave it."""
    if key in _STEPS:
        picker.move(_STEPS[key])
    elif key in ("enter", "space") or (key == "!" and picker.picks is Picks.TERM):
        _take_choice(view, picker, but=key == "!")
    elif BINDING_BY_KEY.get(key) is BINDING_BY_KEY["q"]:
        return Request(Do.QUIT)
    else:
        view.picker = None
    return NOTHING


def _take_choice(view: View, picker: Picker, but: bool = False) -> None:
    """Do what the chosen line means. ``but``: all but that."""
    value = picker.value
    if picker.picks is Picks.COLUMNS:
        view.chosen.setdefault(view.spec.name, {})[value] = value not in view.on_show
        return
    view.picker = None
    if picker.picks is Picks.SORT:
        view.reverse = not view.reverse if value == view.sort else False
        view.sort, view.frozen = value, False
        return
    try:
        view.narrow(f"!{value}" if but else value)
        _remember_filter(view, view.filter)
    except FilterError as error:
        view.message = f"This filter is not valid: {error.message}"


# --- the mouse --------------------------------------------------------------------------------------------------------

WHEEL = 3  # lines that a notch of the wheel moves, as in less(1)


def point(view: View, table: AnyTable, mouse: Mouse) -> Request:
    """Do what the mouse means: the wheel moves the rows, or what covers them; a click does what stands there.

    Where a question or a prompt waits for its answer, a click does nothing.
    """
    view.message = ""
    area = view.area_at(mouse.x, mouse.y)
    if mouse.button is not Button.PRESSED:
        beside = view.beside and (area is None or area.part is not Target.PANE)
        _turn_wheel(view, WHEEL if mouse.button is Button.WHEEL_DOWN else -WHEEL, on_rows=not view.covered or beside)
        return NOTHING
    waits = view.prompt is not None or (view.dialog is not None and view.dialog.prompt is not None)
    if waits or area is None:
        return NOTHING
    if area.part is Target.KEY:
        return press(view, table, area.what)
    if view.picker is not None:
        _click_list(view, view.picker, area)
        return NOTHING
    if area.part is Target.ROW:
        heads = (area for area in view.areas if area.part is Target.HEAD)
        view.cell = next((head.what for head in heads if head.left <= mouse.x < head.right), "")
        return _click_row(view, table, area)
    if area.part is Target.TAB:
        return _show(area.what)(view, table)
    if area.part is Target.HEAD:
        _click_head(view, area.what)
    elif area.part is Target.ENTRY:
        _click_entry(view, area.what)
    return NOTHING


def _click_list(view: View, picker: Picker, area: Area) -> None:
    """Take a line of the list; beside it, close it."""
    if area.part is not Target.CHOICE:
        view.picker = None
        return
    picker.move(area.what - picker.at)
    _take_choice(view, picker)


def _click_entry(view: View, term: str) -> None:
    """Select a line of the health panel; the selected one is entered."""
    if term == view.entry:
        _enter_health(view)
    view.entry = term


def _turn_wheel(view: View, lines: int, on_rows: bool) -> None:
    if view.picker is not None:
        view.picker.move(1 if lines > 0 else -1)
    elif not on_rows:
        view.entry = ""
        view.scroll = max(0, view.scroll + lines)
    elif view.spec.on_map:  # it has no window to move
        view.select(view.at + (1 if lines > 0 else -1) if view.selected is not None else 0)
    else:
        view.roll(lines)


def _click_row(view: View, table: AnyTable, area: Area) -> Request:
    """Select a row; a click on the selected one is Enter."""
    if area.what == view.selected:
        return _details(view, table)
    if not view.select_row(area.what):
        view.message = "This row is gone"
    return NOTHING


def _click_head(view: View, key: str) -> None:
    """Sort by a column; by the one it is sorted by already, the other way round."""
    column = view.spec.column(key)
    wanted = column.narrow_form_of or key
    if wanted not in view.spec.sorts:
        view.message = f"Rows can't be sorted by {column.title}"
        return
    view.reverse = not view.reverse if wanted == view.sort else False
    view.sort, view.frozen = wanted, False
