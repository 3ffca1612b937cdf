"""View -> frame: exactly ``height`` lines, each at most ``width`` cells, made of (text, role) spans.

Text is cut to its width while it is plain and styled afterwards: cutting styled text costs 32 ms for 60 rows, cutting
plain text 0.02 ms.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from typing import Any, NamedTuple

from addresses import Place
from columns import (
    MOST_IMPORTANT,
    AnyColumn,
    EventFacts,
    FlowFacts,
    FlowSum,
    GroupFacts,
    SumFacts,
    UsageFacts,
    ViewSpec,
    by_need,
    columns_there,
    common_wan,
    fit,
    part_text,
    tab_of,
    tabs,
    zone_text,
)
from flows import Flow, TapeEvent
from grouping import GroupRow, UsageRow
from intake import LATE, cure_there
from keys import BINDINGS
from panels import details, header, help_lines, panel_lines
from text import (
    Glyphs,
    Line,
    Span,
    cells,
    clean,
    clip,
    length,
    pad,
    shorten,
    shorten_middle,
    size_text,
    speed_text,
    wrap,
)
from view import (
    Area,
    Frame,
    Needs,
    Picker,
    Picks,
    Prompt,
    Purpose,
    Row,
    Scene,
    Target,
    View,
    facts_of_row,
    first_row,
    unwatched,
)
from worldmap import Spot, world

# --- the frame --------------------------------------------------------------------------------------------------------


def frame(scene: Scene, width: int, height: int) -> Frame:
    """The whole screen: exactly ``height`` lines, and what its size makes of the view (see View.drawn)."""
    view = scene.view
    if width <= 0 or height <= 0:
        return Frame([], view.page, view.scroll, view.shift)
    scene = replace(scene, beside=_details_beside(view, width, height))
    top = header(scene, width, height) if scene.covered != "help" else []
    bottom = _footer(scene, width, height)
    body = _body(scene, width, max(0, height - len(top) - 1 - len(bottom.lines)))
    title = _title_line(scene, width, body.place)
    above = [*top, *title.lines][: max(0, height - len(bottom.lines))]
    lines = [*above, *body.lines, *bottom.lines]
    areas = [] if len(above) <= len(top) else _moved(title.areas, len(top))
    areas += [*_moved(body.areas, len(above)), *_moved(bottom.areas, len(above) + len(body.lines))]
    lines = [clip(line, width, scene.glyphs.cut) for line in lines[:height]]
    return Frame(
        lines,
        body.page,
        body.scroll,
        body.shift,
        [area for area in areas if area.y < height],
        body.columns,
        scene.beside,
        body.entries,
        body.needs,
    )


class _Drawn(NamedTuple):
    """Lines, and where a click on them means something; both from the first of them."""

    lines: list[Line]
    areas: list[Area]


def _moved(areas: Sequence[Area], down: int) -> list[Area]:
    return [Area(y + down, left, right, part, what) for y, left, right, part, what in areas]


class _Line:
    """A line that is written from the left, and what its parts are."""

    def __init__(self, spans: Sequence[Span] = ()) -> None:
        self.spans: Line = list(spans)
        self.used = length(self.spans)  # cells so far
        self.areas: list[Area] = []

    def add(self, *spans: Span, part: Target | None = None, what: str = "") -> None:
        """Spans, and what a click on them means."""
        left = self.used
        self.spans += spans
        self.used += length(list(spans))
        if part is not None:
            self.areas.append(Area(0, left, self.used, part, what))


def _prompt_of(view: View) -> Prompt | None:
    """The prompt that is open: of a filter or a file, else that of a question."""
    return view.prompt or (view.dialog.prompt if view.dialog else None)


class _Body(NamedTuple):
    """The lines between title and footer; ``place``: which lines of all these are, where they do not all fit."""

    lines: list[Line]
    page: int
    scroll: int
    shift: int
    place: str = ""
    areas: Sequence[Area] = ()
    columns: Set[str] = frozenset()
    entries: Sequence[str] = ()
    needs: Needs | None = None


TABS_FROM = 60  # cells of a window in which the keys of the views stay in sight, whatever the title says


def _title_line(scene: Scene, width: int, place: str) -> _Drawn:
    """What is on show, then facts; ``place``: which lines of it, where they do not all fit.

    At the right end are the views with their keys: by their names, by short ones, or the keys alone. What the title
    says may lose its end for the keys.
    """
    glyphs = scene.glyphs
    name: Span = _title_word(scene), "title"
    facts, shown = _beside_tabs(scene, width - cells(name[0]), place)
    wanted = sum(length(tab) for _, tab in shown)
    room = width - (wanted + 3 if shown else 0)
    line = _Line([name])
    for text, role in facts:
        if (left := room - line.used - 3) >= min(8, cells(text)):
            line.add((f" {glyphs.middle} ", "dim"), (shorten(text, left, glyphs.cut), role))
    if shown:
        line.add((" " + glyphs.rule * (width - line.used - wanted - 2) + " ", "dim"))
        for name_of, tab in shown:
            line.add(*tab, part=Target.TAB, what=name_of)
    elif line.used + 2 < width:
        line.add((" " + glyphs.rule * (width - line.used - 1), "dim"))
    return _Drawn([line.spans], line.areas)


def _title_word(scene: Scene) -> str:
    """The name of what is on show, and of which node it is where there are several."""
    if scene.covered == "health" and scene.focus is not None and scene.focus.term:
        return f"Health of {clean(scene.focus.node, 40)}"
    return scene.covered.capitalize() or scene.view.spec.title


def _beside_tabs(scene: Scene, room: int, place: str) -> tuple[list[Span], _Tabs]:
    """The facts of the title, and the tabs that have room beside them.

    Short names of the views come before the sort, which the arrow in the heading says, too.
    """
    view = scene.view
    facts, brief = _title_facts(scene, place), _title_facts(scene, place, sort=False)
    if scene.covered:
        return facts, []
    names, short, keys = _tabs(view, lambda spec: spec.title), _tabs(view, lambda spec: spec.tab_name), _tabs(view)
    for said, shown in ((facts, names), (facts, short), (brief, short), (facts, keys), (brief, keys)):
        if sum(3 + cells(text) for text, _ in said) + sum(length(tab) for _, tab in shown) + 3 <= room:
            return said, shown
    return (brief, keys) if room + cells(view.spec.title) >= TABS_FROM else (facts, [])


def _title_facts(scene: Scene, place: str, sort: bool = True) -> list[Span]:
    """What the title says beside the name of the view, the most important first."""
    view, glyphs = scene.view, scene.glyphs
    facts: list[Span] = [(place, "plain")] * bool(place)
    if not scene.covered:
        facts = [(text, "plain") for text in _counts(view)]
    if view.pause is not None:
        facts.append((f"PAUSED {glyphs.middle} {view.pause.held(scene.table)} events waiting", "warn"))
    if sort and not scene.covered:
        arrow = glyphs.falling if view.falling else glyphs.rising
        facts.append((f"sort {view.sort} {glyphs.cut if view.rows.reordering else arrow}", "plain"))
    if view.frozen:
        facts.append(("order frozen", "warn"))
    elif (old := _rows_age(scene)) > LATE:
        facts.append((f"rows {old:.0f} s old", "warn"))
    return facts if scene.covered else [*facts, *_filter_facts(scene)]


def _filter_facts(scene: Scene) -> list[Span]:
    """The filter, and how far back goes what it is asked of."""
    view = scene.view
    if not view.filter:
        return []
    facts = [(f"filter {clean(view.filter)}", "key")]
    if view.from_log is not None:
        return [(view.from_log.reach, "plain"), *facts]
    reach = unwatched(view.filter, view.context, scene.table, view.spec.translated)
    return [*facts, (reach, "warn")] if reach else facts


def _rows_age(scene: Scene) -> float:
    """Seconds since the rows on show were taken from the table; 0 where nobody expects them to be of now."""
    view, made = scene.view, scene.view.rows.made
    still = not scene.live or scene.status.ended or view.pause is not None or scene.covered
    return 0.0 if still or made is None or view.rows.unwanted else scene.now - made


def _counts(view: View) -> list[str]:
    """How much is on show: rows, and of the flows behind them how many are wanted."""
    rows, spec = view.rows, view.spec
    more = "+" * rows.sifting
    flows = f"{rows.fitting}{more} of {rows.total}" if view.predicate is not None else f"{rows.total}"
    if spec.logged:
        return _usage_counts(view)
    if spec.grouping is None:
        return [flows]
    sums = len(rows.groups if view.opened else rows.order)  # what stands below an opened row is part of it
    number = f"{len(rows.order)} of {len(rows.groups)} hosts" if spec.on_map else f"{sums}"
    return [number, f"{flows} flows"]


def _usage_counts(view: View) -> list[str]:
    """How many rows there are, what all of them moved, and what the log does not know."""
    usage = view.usage
    if usage is None or usage.spec is not view.spec:
        return [f"last {view.span}"]
    if not usage.rows:  # below the title stands why
        return [f"last {view.span}"]
    came, went = usage.moved
    return [str(len(view.rows.order)), f"last {view.span}: in {size_text(came)} out {size_text(went)}", *usage.remarks]


_Tabs = list[tuple[str, Line]]  # the name of each view that has a key, and what stands for it


def _tabs(view: View, named: Callable[[ViewSpec], str] | None = None) -> _Tabs:
    """All views with their keys, as ``named``; None: the keys alone."""
    found: _Tabs = []
    several = view.context.is_among_others()
    lit = tab_of(view.spec, several)
    for spec in tabs(several):
        here = spec is lit
        if named is None:
            found.append((spec.name, [(spec.key, "selected" if here else "key")]))
        else:
            name = named(spec), "title" if here else "dim"
            found.append((spec.name, [(" " * bool(found) + spec.key, "key"), name]))
    return found


MESSAGE_LINES = 3  # of a message in a narrow window; in a low one it has a single line


def _footer(scene: Scene, width: int, height: int) -> _Drawn:
    """The prompt that is open; else what has just happened, and the keys of what is on show."""
    view, mark = scene.view, scene.glyphs.cut
    if (prompt := _prompt_of(view)) is not None:
        offered = [_offered_line(prompt, width, mark)] if prompt.choices and height >= 5 else []
        return _Drawn([*offered, _prompt_line(prompt, width, mark)], [])
    lines: list[Line] = []
    if view.message and height >= 2:  # till the next key
        texts = wrap(clean(view.message, 500), max(8, width), mark)
        most = MESSAGE_LINES if height >= 10 else 1
        texts = [*texts[: most - 1], " ".join(texts[most - 1 :])] if len(texts) > most else texts
        lines = [[(shorten(text, width, mark), "title")] for text in texts]
    elif height < 5:
        return _Drawn([], [])
    line = _Line([*lines.pop(), ("   ", "dim")] if lines else [])
    for key, brief in _hints(scene):
        if line.used + cells(key) + 1 + cells(brief) > width:
            break
        line.add((key, "key"), (f" {brief}", "dim"), part=Target.KEY, what=key)
        line.add(("  ", "dim"))
    return _Drawn([*lines, line.spans[:-1]], _moved(line.areas, len(lines)))


PICKER_HINTS = {
    Picks.SORT: [("enter", "sort")],
    Picks.COLUMNS: [("space", "show or hide")],
    Picks.TERM: [("enter", "only these"), ("!", "exclude these")],
}


def _hints(scene: Scene) -> list[tuple[str, str]]:
    """The keys that the footer names, each with a word: first those for help and the way out, then the view's own."""
    view = scene.view
    always = [(binding.keys[0], binding.brief) for binding in BINDINGS if binding.brief]
    items = [*always[:3], *view.spec.hints, *always[3:]]
    if view.picker is not None and not scene.covered:
        return [*PICKER_HINTS[view.picker.picks], ("esc", "close"), ("q", "quit"), ("j k", "move")]
    if scene.beside or scene.covered == "details":
        scroll = ("pgdn", "scroll") if scene.beside else ("j k", "scroll")
        items = [("esc", "close"), ("q", "quit"), scroll, ("right", "next"), ("left", "previous"), ("y", "copy")]
        items += [("=", "filter"), ("w", "whois")]
    elif scene.covered == "health" and view.entries:
        items = [("esc", "close"), ("q", "quit"), ("j k", "choose"), ("enter", "its flows"), ("pgdn", "scroll")]
    elif scene.covered:
        items = [("esc", "close"), ("q", "quit"), ("j k", "scroll")]
    if scene.around.attached:
        items.insert(2, ("ctrl-p ctrl-q", "detach"))
    if view.out_of_sight and not scene.covered:
        items.insert(2, (".", f"to selected row {view.at + 1}"))
    return items


def _offered_line(prompt: Prompt, width: int, mark: str) -> Line:
    """The words that Tab goes through, the one that stands in the prompt among them."""
    words, at = prompt.choices, prompt.choice
    start = at
    while start and sum(cells(word) + 2 for word in words[start - 1 : at + 1]) < width // 2:
        start -= 1
    line: Line = [(f"{mark} ", "dim")] if start else []
    for number, word in enumerate(words[start:], start):
        line += [(clean(word, 60), "selected" if number == at else "plain"), ("  ", "plain")]
    return clip(line, width, mark)


PROMPTS = {Purpose.FILTER: "/ ", Purpose.EXPORT: "file: ", Purpose.ANSWER: "delete? [No] "}


def _prompt_line(prompt: Prompt, width: int, mark: str) -> Line:
    """The end of what is before the cursor, the cursor, what fits of the rest, and what is wrong with it."""
    before, after = prompt.text[: prompt.cursor], prompt.text[prompt.cursor :]
    error = f"  {prompt.error}" if prompt.error else ""
    head = PROMPTS[prompt.purpose]
    room = width - cells(head) - 2  # a cursor of two cells
    room = max(min(16, room), room - cells(error))
    if cells(before) > room:
        while before and cells(before) > room - 1:
            before = before[1:]
        before = mark + before
    rest = shorten(after[1:], max(0, room - cells(before)), mark)
    return [
        (head, "key"),
        (before, "plain"),
        (after[:1] or " ", "cursor"),
        (rest, "plain"),
        (error, "bad"),
    ]


# --- the body ---------------------------------------------------------------------------------------------------------


def _body(scene: Scene, width: int, room: int) -> _Body:
    view = scene.view
    if room <= 0:
        return _Body([], view.page, view.scroll, view.shift)
    below = _rows_or_cover(scene, width, room)
    return below if view.picker is None or scene.covered else _with_list(scene, view.picker, below, width)


def _details_lines(scene: Scene, flow: Flow, width: int) -> list[Line]:
    pairs = details(flow, scene.table, scene.view.context, scene.view.curve, scene.glyphs, scene.view.bits)
    lines = [line for label, text in pairs for line in _labelled(label, text, width, scene.glyphs.cut)]
    lines[0] = [(text, "title") for text, _ in lines[0]]
    return lines


WIDE, TALL = 120, 44  # cells and lines of a window in which details have room beside the rows, or below them
PANE_MOST = 76  # cells of details: their longest usual line


def _details_beside(view: View, width: int, height: int) -> bool:
    """Are details open, and do they leave room for rows?"""
    return view.covered == "details" and view.flow is not None and (width >= WIDE or height >= TALL)


def _with_details(scene: Scene, width: int, room: int) -> _Body:
    """Rows, and beside them (in a narrow, tall window below them) the details of the selected one."""
    view, flow = scene.view, scene.view.flow
    assert flow is not None
    wide = min(PANE_MOST, max(50, width * 2 // 5)) if width >= WIDE else width
    left, high = (width - wide - 2, room) if width >= WIDE else (width, room // 2)
    below = _table(scene, left, room if width >= WIDE else room - high)
    lines = _details_lines(scene, flow, wide)
    pane = high - (width < WIDE)
    scroll = max(0, min(view.scroll, len(lines) - pane))
    shown: list[Line] = [*lines[scroll : scroll + pane], *[[] for _ in range(pane - len(lines))]]
    if width < WIDE:
        shown.insert(0, [("Details ", "title"), (scene.glyphs.rule * (width - 9), "dim")])
        areas = [Area(y, 0, width, Target.PANE, "") for y in range(room - high, room)]
        return below._replace(lines=[*below.lines, *shown], areas=[*below.areas, *areas], scroll=scroll)
    joined = []
    for line, beside in zip(below.lines, shown):
        joined.append([*line, (" " * (left - length(line)) + " ", "plain"), (scene.glyphs.bar, "dim"), *beside])
    areas = [Area(y, left + 1, width, Target.PANE, "") for y in range(room)]
    return below._replace(lines=joined, areas=[*below.areas, *areas], scroll=scroll)


LIST_CELLS, BESIDE = 34, 24  # of a list that covers the right end of the rows; of the rows that are left at least


def _with_list(scene: Scene, picker: Picker, below: _Body, width: int) -> _Body:
    """A list over the right end of the rows; where these would have no room beside it, over all of them."""
    left = width - LIST_CELLS if width >= LIST_CELLS + BESIDE else 0
    room, wide = len(below.lines), width - left
    top = max(0, min(picker.at - room // 2, len(picker.choices) - room))
    lines, areas = [], [area._replace(right=min(area.right, left)) for area in below.areas if area.left < left]
    for y, line in enumerate(below.lines):
        line = clip(line, max(0, left - 1), " ")
        line.append((" " * (left - length(line)), "plain"))
        if (at := top + y) < len(picker.choices):
            text = shorten(
                f"{_mark_of(scene, picker, at, below.columns)} {picker.choices[at][0]}", wide - 2, scene.glyphs.cut
            )
            line += [
                (scene.glyphs.bar, "dim"),
                (pad(text, wide - 1, False), "selected" if at == picker.at else "plain"),
            ]
            areas.append(Area(y, left, width, Target.CHOICE, at))
        elif left:
            line.append((scene.glyphs.bar, "dim"))
        lines.append(line)
    return below._replace(lines=lines, areas=areas)


def _mark_of(scene: Scene, picker: Picker, at: int, columns: Set[str]) -> str:
    """What a line of a list is now. ``columns``: those on show."""
    view, value = scene.view, picker.choices[at][1]
    if picker.picks is Picks.COLUMNS:
        return "[x]" if value in columns else "[ ]"
    if picker.picks is Picks.SORT and value == view.sort:
        return scene.glyphs.falling if view.falling else scene.glyphs.rising
    return " "


def _rows_or_cover(scene: Scene, width: int, room: int) -> _Body:
    view, covered = scene.view, scene.covered
    if scene.beside:
        return _with_details(scene, width, room)
    if covered == "help":
        return _scrolled(view, help_lines(scene, width), room)
    if covered == "delete" and view.dialog is not None:
        texts = [part for text in view.dialog.lines for part in [*wrap(text, max(8, width), scene.glyphs.cut), ""]]
        return _scrolled(view, [[(text, "plain")] for text in texts], room)
    if covered == "health":
        return _health_body(scene, width, room)
    if covered == "details" and view.flow is not None:
        return _scrolled(view, _details_lines(scene, view.flow, width), room)
    if covered == "whois" and view.whois is not None:
        texts = [*view.whois.lines, *["asking ..."] * view.whois.asks]
        return _scrolled(view, [[(text, "plain")] for part in texts for text in wrap(part, max(8, width))], room)
    if view.spec.on_map and (view.rows.order or len(scene.table)):
        lines, areas = _map(scene, width, room)
        return _Body(lines, room, view.scroll, view.shift, areas=areas)
    return _table(scene, width, room)


LISTED_FROM, PLACE_CELLS = 120, 36  # cells of a window in which a list of places stands beside the map; of the list


def _map(scene: Scene, width: int, room: int) -> tuple[list[Line], list[Area]]:
    """The world, with where the selected host is, or below it why no host is to be seen; beside it its places."""
    view, context = scene.view, scene.view.context
    listed = width >= LISTED_FROM and bool(view.rows.order)
    rates = view.sort == view.spec.turned_sort
    spots, places = [], _Places()
    for row in view.rows.order:
        if (at := context.coordinates(row.key)) is not None:
            chosen = row == view.selected
            label = _place_line(row.key, context.where(row.key)) if chosen else ""
            weight = row.rate if rates else row.flows
            spots.append(Spot(*at, weight, chosen, label))
            if listed:
                places.add(context.where(row.key), row, weight, chosen)

    def words(weight: float) -> str:
        return speed_text(weight, view.bits) if rates else f"{size_text(max(1, weight))} flow{'s' * (weight >= 1.5)}"

    left = width - PLACE_CELLS - 2 if listed else width
    lines = world(spots, left, room, scene.glyphs.ascii, words if view.rows.order else None)
    if not view.rows.order and not view.rows.working:
        reason, cure = _why_nowhere(scene)
        lines[-1:] = [[(reason, "warn"), (f"  try: {cure}" if cure else "", "plain")]]
    if not listed:
        return lines, []
    title = _title_of(view, view.spec.column("rate" if rates else "flows"))
    beside, areas = places.lines(title, view.bits if rates else None, room, scene.glyphs)
    bar: Span = scene.glyphs.bar, "dim"
    joined = [[*line, (" " * (left - length(line)), "plain"), bar, *text] for line, text in zip(lines, beside)]
    return joined, [area._replace(left=left + 1, right=width) for area in areas]


class _Places:
    """Cities, or countries where nobody knows more, with what is there."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], tuple[float, GroupRow, bool]] = {}

    def add(self, place: Place, row: GroupRow, weight: float, chosen: bool) -> None:
        """``row``: of a host there. That of the first, which is the one with the most, stands for the place."""
        at = (place.city, place.country or "") if place.city else (place.country_name or place.country or "?", "")
        before, first, was = self._found.get(at, (0.0, row, False))
        self._found[at] = before + weight, first, was or chosen

    def lines(self, title: str, bits: bool | None, room: int, glyphs: Glyphs) -> tuple[list[Line], list[Area]]:
        """The places with the most, and where a click on them means a host. ``bits``: of rates; None: of flows."""
        found = sorted(self._found.items(), key=lambda item: (-item[1][0], item[0]))
        wide = PLACE_CELLS - 10
        lines: list[Line] = [[(f" {'PLACE':<{wide}}{title:>8} ", "head")]]
        areas = []
        for (name, code), (weight, row, chosen) in found[: room - 1]:
            text = shorten(clean(name), wide - cells(code) - 2, glyphs.cut)
            said = size_text(weight) if bits is None else f"{size_text(weight * 8 if bits else weight)}/s"
            text = pad(f"{text} {code}", wide, False) + f"{said:>8}"
            areas.append(Area(len(lines), 0, 0, Target.ROW, row))
            lines.append([(f" {text} ", "selected" if chosen else "plain")])
        return lines + [[] for _ in range(room - len(lines))], areas


def _why_nowhere(scene: Scene) -> tuple[str, str]:
    """Why no host is on the map, and the command that helps."""
    if not scene.view.rows.fitting:
        return empty_reason(scene)[0]
    if scene.around.databases:
        return "no database in use has locations for these hosts", ""
    cure = next((cure for _, cure in scene.around.geography if cure), "")
    return "locations are unknown: there is no city database", cure


def _place_line(address: str, place: Place) -> str:
    return " ".join(clean(part) for part in (place.city or place.country_name, address) if part)


def _scrolled(view: View, lines: list[Line], room: int, seen: int | None = None) -> _Body:
    """As much of what covers the rows as there is room for. ``seen``: a line that is to be in sight."""
    scroll = view.scroll if seen is None else max(min(view.scroll, seen), seen - room + 1)
    scroll = max(0, min(scroll, len(lines) - room))
    shown = lines[scroll : scroll + room]
    place = f"lines {scroll + 1}-{scroll + len(shown)} of {len(lines)}" if len(lines) > room else ""
    return _Body(shown + [[] for _ in range(room - len(shown))], view.page, scroll, view.shift, place)


def _health_body(scene: Scene, width: int, room: int) -> _Body:
    """The panel of the table's health; the line that is selected in it is in sight."""
    lines, entries = panel_lines(scene, width)
    at = next((at for at, term in entries if term == scene.view.entry), None)
    body = _scrolled(scene.view, lines, room, at)
    shown = [(at - body.scroll, term) for at, term in entries]
    areas = [Area(y, 0, width, Target.ENTRY, term) for y, term in shown if 0 <= y < room]
    return body._replace(areas=areas, entries=[term for _, term in entries])


def _labelled(label: str, text: str, width: int, mark: str) -> list[Line]:
    """A label and its text, in as many lines as that takes: nothing is cut here."""
    indent = 12 if width >= 40 else 2
    head = f"{label:>10}  " if width >= 40 else (f"{label}: " if label else "  ")
    texts = wrap(text, max(8, width - max(indent, len(head))), mark)
    return [[(head if i == 0 else " " * indent, "dim"), (part, "plain")] for i, part in enumerate(texts)]


def _table(scene: Scene, width: int, room: int) -> _Body:
    view, order = scene.view, scene.view.rows.order
    head, foot = room >= 2, room >= SUMMED_FROM and view.rows.sum is not None and len(order) > 1
    page = max(1, room - head - foot)
    top = first_row(view, page)
    bar = width >= 20 and len(order) > page
    gutter = int(width >= GUTTER_FROM and (not view.spec.adds_up or view.baseline is not None))
    wide = width - bar - gutter
    wanted, shift = _wanted_columns(view, wide)
    columns = fit(wide, wanted)
    shown = frozenset(column.narrow_form_of or column.key for column, _ in columns)
    rows, wan = _facts_of_page(scene, order[top : top + page])
    texts = [_texts_of(view, facts, columns) for _, facts, _ in rows]
    total = _total_texts(scene, columns) if foot else []
    needs = _needs(view, columns, texts, wan)
    columns = by_need(columns, needs.cells, wide)
    left: Line = [(" " * gutter, "head")] * gutter
    lines: list[Line] = [[*left, _heading(view, columns, scene.glyphs, wan)]] if head else []
    spans = _spans(columns) if head else []
    areas = [Area(0, start + gutter, end + gutter, Target.HEAD, column.key) for column, start, end in spans]
    for at, (row, of_row) in enumerate(zip(rows, texts)):
        line = _row_line(scene, row, of_row, columns, wide, bool(gutter))
        areas.append(Area(len(lines), 0, width - bar, Target.ROW, row[0]))
        if bar:
            line.append(_bar_piece(page, top, len(order), at, scene.glyphs))
        lines.append(line)
    if total:
        lines.append([(" " * gutter, "key"), *_total_line(columns, total)])
    if not order:
        lines += _empty_lines(scene, width)[: room - head]
    return _Body(
        lines + [[] for _ in range(room - len(lines))], page, view.scroll, shift, "", areas, shown, needs=needs
    )


GUTTER_FROM = 48  # cells of a window in which a row has one for being new or closed
SUMMED_FROM = 12  # lines of a table that have room for its totals


def _total_texts(scene: Scene, columns: Sequence[tuple[AnyColumn, int]]) -> list[str]:
    """The cells of the line of totals: those of a row that stands for all."""
    total, bits = scene.view.rows.sum, scene.view.bits
    facts = SumFacts(total, bits) if isinstance(total, FlowSum) else _RowFacts(scene).of_total(total)
    return [column.cell(facts) if column.adds else "" for column, _ in columns]


def _total_line(columns: Sequence[tuple[AnyColumn, int]], texts: Sequence[str]) -> Line:
    """Each sum below its column, the word for them where there is none."""
    text = "total"
    for (column, start, end), cell in zip(_spans(columns), texts):
        if column.adds:
            text = text[:start].ljust(start) + cell.rjust(end - start)
    return [(text, "key")]


def _needs(view: View, columns: Sequence[tuple[AnyColumn, int]], texts: Sequence[Sequence[str]], wan: str) -> Needs:
    """How wide those columns have to be that can grow, for these cells and for those that were there before."""
    of = view.spec.name, view.filter, view.sort, view.names, view.geo
    before = view.needs.cells if view.needs is not None and view.needs.of == of else {}
    found = dict(before)
    for at, (column, _) in enumerate(columns):
        if column.most > column.least:
            head = len(wan if column.wan_title and wan else _title_of(view, column)) + (view.sort == column.key)
            found[column.key] = max(before.get(column.key, head), head, *[cells(row[at]) for row in texts])
    return Needs(of, found)


def _title_of(view: View, column: AnyColumn) -> str:
    return column.bits_title if view.bits and column.bits_title else column.title


def _wan_title(column: AnyColumn, wan: str, width: int, glyphs: Glyphs) -> str:
    """The address that SNAT puts into all rows, which none of them says; "" for other columns, and without one."""
    if not (column.wan_title and wan):
        return ""
    title = f"{column.wan_title} {wan}"
    return title if len(title) <= width else shorten_middle(wan, width, glyphs.cut)


def _empty_lines(scene: Scene, width: int) -> list[Line]:
    """Why there is no row, and below it the command that helps."""
    lines: list[Line] = []
    for text, cure in empty_reason(scene):
        lines += [[(part, "warn")] for part in wrap(text, max(8, width), scene.glyphs.cut)]
        if cure:
            lines += [[(f"  {part}", "plain")] for part in wrap(f"try: {cure}", max(8, width - 2), scene.glyphs.cut)]
    return lines


ASKED = 35  # the rank of columns that a key has asked for: after the two ends, before all others
FIXED = ("node", "proto", "source", "destination")  # whose row it is stays in sight while the others move


def _wanted_columns(view: View, width: int) -> tuple[list[AnyColumn], int]:
    """The columns in question, without those scrolled away, and how many these are.

    What a key asked for comes before others.
    """
    only = {
        "auto": {"cc", "city", "asn", "org"},
        "country": {"cc"},
        "network": {"cc", "asn", "org"},
        "city": {"cc", "city"},
        "off": set(),
    }[view.geo]
    geo = {"cc", "city", "asn", "org"}
    columns = columns_there(view.spec, view.context, logs=view.first_seen is not None)
    chosen = view.chosen.get(view.spec.name, {})
    if view.spec.chooses_places:
        columns = [
            column for column in columns if column.key not in geo or column.key in only or chosen.get(column.key)
        ]
    if kept := [column for column in columns if chosen.get(column.narrow_form_of or column.key, True)]:
        columns = kept
    asked = {view.sort, *filter(chosen.get, chosen)} | (only if view.geo != "auto" else set())
    columns = [replace(column, rank=min(column.rank, ASKED)) if column.key in asked else column for column in columns]
    return _scrolled_away(view, columns, width)


def _scrolled_away(view: View, columns: list[AnyColumn], width: int) -> tuple[list[AnyColumn], int]:
    """The columns without so many from the left as were scrolled away, and how many steps that took.

    Each step brings others into sight.
    """
    fixed = [c for c, _ in fit(width, columns) if c.key in FIXED or c.rank == MOST_IMPORTANT]
    for shift in range(view.shift):
        seen = [column for column, _ in fit(width, columns)]
        left = [column for column in columns if column not in fixed]
        left.remove(next((column for column in seen if column not in fixed), left[0]))
        # What does not fit beside the fixed ones keeps those behind it out of sight.
        while left and len(fit(width, [c for c in columns if c in fixed or c in left])) == len(fixed):
            left.remove(min(left, key=lambda column: column.rank))
        if not left or all(column in seen or column.narrow_form_of for column in columns):
            return columns, shift  # all that is left is in sight
        columns = [column for column in columns if column in fixed or column in left]
    return columns, view.shift


def _spans(columns: Sequence[tuple[AnyColumn, int]]) -> list[tuple[AnyColumn, int, int]]:
    """Columns of these widths, where each begins and where it ends: there is a blank between two."""
    found, end = [], 0
    for column, width in columns:
        start = end + bool(end)
        end = start + width
        found.append((column, start, end))
    return found


def _heading(view: View, columns: Sequence[tuple[AnyColumn, int]], glyphs: Glyphs, wan: str) -> Span:
    """The titles; the arrow of the sorted one may stand in the blank beside its column."""
    arrow = glyphs.falling if view.falling else glyphs.rising
    zone = zone_text(view.context.now + view.context.epoch)
    text, end = "", 0
    for column, start, end in _spans(columns):
        title, width = _title_of(view, column), end - start
        title = _wan_title(column, wan, width, glyphs) or (title if len(title) <= width else column.title)
        if column.zoned and width < column.roomy and len(zoned := f"{title} {zone}") <= width:
            title = zoned
        if view.sort in (column.key, column.narrow_form_of):
            title = arrow + title if column.right else title + arrow
        at = end - len(title) if column.right else start
        text = text[: max(0, at)].ljust(at) + title
    return text[:end].ljust(end), "head"


def _nothing_new(_flow: Flow) -> list[str]:
    return []


class _RowFacts:
    """What the cells of a row are made of, and the role of its calm parts."""

    def __init__(self, scene: Scene) -> None:
        self.view = scene.view
        self._scene, self._context = scene, scene.view.context

    def of(self, row: Row) -> tuple[Any, str]:
        if isinstance(row, Flow):
            return self._flow(row)
        if isinstance(row, TapeEvent):
            role = {"new": "new", "destroy": "closed"}.get(row.event, "plain")
            seen = self.view.first_seen
            return EventFacts(row, self._context, self.view.names, seen.new_of if seen else _nothing_new), role
        if isinstance(row, UsageRow):
            return self.of_total(row), "plain"
        grouping, mark = self.view.spec.grouping, self.view.baseline
        known = mark is None or grouping is None or not mark.is_new_key(grouping.of(row.key), row.key)
        return self.of_total(row, self.view.rows.rates.of(row.key)), "plain" if known else "new"

    def of_total(self, row: Row | None, curve: Sequence[float | None] = ()) -> Any:
        """The facts of a row that adds up, or stands for all that do."""
        glyphs, context = self._scene.glyphs, self._context
        if isinstance(row, UsageRow):
            return UsageFacts(row, glyphs, context.name)
        assert isinstance(row, GroupRow)
        return GroupFacts(
            *(row, context.where, context.name, glyphs.eighths, " ", context.who, curve, glyphs, self.view.bits)
        )

    def _flow(self, flow: Flow) -> tuple[FlowFacts, str]:
        cells, mark = facts_of_row(self.view, flow), self.view.baseline
        if not cells.live:
            return cells, "closed"
        if mark is not None:
            return cells, "new" if mark.is_new(flow) else "plain"
        fresh = flow.exact and cells.now - flow.born < 3.0 and not self._scene.status.ended
        return cells, "new" if fresh else "plain"


def _facts_of_page(scene: Scene, page: Sequence[Row]) -> tuple[list[tuple[Row, Any, str]], str]:
    """Rows with what their cells are made of and the role of their calm parts; and the address that all of them have.

    That is the one that SNAT puts in; without one, or where the rows differ in it, it is "".
    """
    facts = _RowFacts(scene)
    rows = [(row, *facts.of(row)) for row in page]
    wan = common_wan([its for _, its, _ in rows if isinstance(its, FlowFacts)])
    bits = scene.view.bits
    changed = (isinstance(its, FlowFacts) and (bits or bool(its.ends.nat)) for _, its, _ in rows)
    return [
        (row, replace(its, wan=wan, bits=bits) if other else its, role)
        for (row, its, role), other in zip(rows, changed)
    ], wan


def _row_line(
    scene: Scene,
    row: tuple[Row, Any, str],
    texts: Sequence[str],
    columns: Sequence[tuple[AnyColumn, int]],
    width: int,
    gutter: bool,
) -> Line:
    """``texts``: of its cells, where there is room for all of each."""
    what, shown, base = row
    line: Line = []
    if scene.view.is_part(what):
        label, covered = _part_label(scene, shown, columns)
        line, columns, texts = [label], columns[covered:], texts[covered:]
    calm = "plain" if gutter and base == "new" and scene.view.baseline is None else base  # m highlights the whole row
    for (column, size), text in zip(columns, texts):
        if (used := cells(text)) > size and column.newest_last:
            text, used = text[-size:], size
        elif used > size:
            text = text if column.brief is None else column.brief(shown)
            text = (shorten_middle if column.middle else shorten)(text, size, scene.glyphs.cut)
            used = cells(text)
        if line:
            line.append((" ", calm))
        room = " " * (size - used)
        line.append((room + text if column.right else text + room, _role(column.key, text, calm)))
    line.append((" " * (width - length(line)), calm))
    if gutter:
        line.insert(0, ({"new": scene.glyphs.new, "closed": scene.glyphs.closed}.get(base, " "), base))
    if what is scene.view.selected:
        return [("".join(text for text, _ in line), "selected")]
    return line


def _texts_of(view: View, shown: Any, columns: Sequence[tuple[AnyColumn, int]]) -> list[str]:
    """The texts of a row's cells. A part of an opened sum has another key than its sum: it has its numbers only."""
    if isinstance(shown, GroupFacts) and view.is_part(shown.row):
        return [column.cell(shown) if column.right or column.key == "share" else "" for column, _ in columns]
    return [column.cell(shown) for column, _ in columns]


def _part_label(scene: Scene, shown: GroupFacts, columns: Sequence[tuple[AnyColumn, int]]) -> tuple[Span, int]:
    """What a part of an opened sum is, in the room of the columns that say what a sum is, and how many these are."""
    number = next((at for at, (column, _) in enumerate(columns) if column.right), len(columns))
    room = sum(size for _, size in columns[:number]) + number - 1
    text = shorten_middle(f"  {part_text(shown)}", room, scene.glyphs.cut)
    return (text + " " * (room - cells(text)), "plain"), number


_BEGINNING = {"SYN_SENT", "SYN_RECV", "SYN_SENT2", "UNREPLIED", "COOKIE_WAIT", "COOKIE_ECHOED", "REQUEST", "RESPOND"}
_ESTABLISHED = {"ESTABLISHED", "ASSURED", "OPEN", "OFFLOAD", "HW_OFFLOAD"}


def _role(key: str, text: str, base: str) -> str:
    """State and change carry colour, all else is calm."""
    if base == "closed":
        return base
    if key == "status":  # of a node
        return "good" if text.rstrip().endswith("live") else "bad" if text.rstrip().endswith("stale") else "warn"
    if key == "state":
        return "warn" if text in _BEGINNING else "good" if text in _ESTABLISHED else "dim"
    if key in ("nat", "natkind", "translated", "kind"):
        return "nat"
    if key == "first":
        return "new"
    if key in ("share", "curve"):
        return "accent"
    if key in ("rate", "bytes", "packets", "in", "out", "bytes-in", "bytes-out", "new"):
        return "dim" if text in ("-", "0") else ("accent" if key == "rate" else base)
    if key in ("cc", "city", "asn", "org", "age", "timeout", "proto"):
        return "dim" if key in ("asn", "org", "city", "timeout") and base == "plain" else base
    return base


def _bar_piece(page: int, top: int, rows: int, line: int, glyphs: Glyphs) -> Span:
    """The scroll bar's cell on a line of the page."""
    size = max(1, page * page // max(1, rows))
    start = (page - size) * top // max(1, rows - page)
    return (glyphs.full if start <= line < start + size else glyphs.bar), "dim"


# --- why there is no row ----------------------------------------------------------------------------------------------


def empty_reason(scene: Scene) -> list[tuple[str, str]]:
    """Why no row is there: (words, command that helps)."""
    view, status, table = scene.view, scene.status, scene.table
    if view.spec.logged:
        return _no_usage(view)
    if len(table) and view.rows.working:
        return [("adding up flows ..." if view.spec.grouping else "searching flows ...", "")]
    if len(table) and view.baseline is None and view.first_seen is None and view.asks("new"):
        return [("No mark is set", "m")]
    if view.from_log is not None:
        return [(f"No flow matches the filter; {view.from_log.reach}", "Esc")]
    if reach := unwatched(view.filter, view.context, table, view.spec.translated):
        return [(f"Unknown: {reach}", "Esc")]
    if len(table) and view.predicate is not None:
        return [("No flow matches the filter" + (". Esc clears it" if view.filter else ""), "")]
    if len(table) and view.spec.empty[0]:
        return [view.spec.empty]
    if (problem := status.troubles.get("listing") or status.troubles.get("events")) is not None:
        return [(problem.what, problem.cure)]
    if status.rejects and not status.understood:
        return [("None of the input was understood", "")]
    if not scene.live:
        return [("the recording has no flow at this time", "")]
    if table.listed_at is None:
        return [("reading the connection table ...", "")]
    if status.facts.get("count", 0) > 0 and view.base is None:
        return [("the kernel counts entries but lists none", shlex.join([*scene.around.before, "conntrack", "-L"]))]
    shows = [("To see it with traffic, play the demo", scene.around.demo)] if scene.around.demo else []
    why = scene.around.tracking
    return [(f"No connections yet: {why.what}", cure_there(why.cure, scene.around.before)), *shows]


def _no_usage(view: View) -> list[tuple[str, str]]:
    """Why no row of usage is there."""
    if view.usage is None or view.usage.spec is not view.spec:
        return [("reading the flow log ...", "")]
    return [(remark, "") for remark in view.usage.remarks] or [view.spec.empty]
