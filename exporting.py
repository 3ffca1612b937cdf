"""What is on show, or selected, taken out of the screen: into a file, onto the clipboard, as flows to be deleted."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator

from deletion import Refusal, selection
from export import json_line, view_texts
from flows import Flow, FlowTable
from grouping import GroupRow, group_key, group_object
from source import Command
from text import clean, printable
from view import View, flow_of

COPIED = 4000  # characters; terminals take at least so many
PIECE = 200  # rows between two looks at the clock: 6 ms


def export(view: View, name: str, moment: str | None) -> Iterator[str]:
    """Write the rows on show into a new file; it may be left off at each yield. Yields words for people.

    CSV where the name ends so, else JSON lines. A file that is there already is never written over.
    """
    path = os.path.expanduser(name)
    shown = clean(path, 200)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        yield f"not exported: {shown} exists"
        return
    except (OSError, ValueError) as error:  # a name with a NUL
        yield f"not exported: {getattr(error, 'strerror', None) or error}: {shown}"
        return
    rows, written = list(view.order), 0
    try:
        with open(fd, "w", encoding="utf-8", errors="replace") as file:
            format = "csv" if path.lower().endswith(".csv") else "json"
            for text in view_texts(view.kind.grouping, rows, format, view.context, moment):
                file.write(text)
                written += 1
                if written % PIECE == 0:
                    yield f"exporting: {written} of {len(rows)}"
    except OSError as error:
        yield f"not exported: {error.strerror}: {shown}"
        return
    rows_word = "row" if len(rows) == 1 else "rows"
    yield f"{len(rows)} {rows_word} exported to {shown}"


def copied(view: View) -> str:
    """The selected row as text: a flow as conntrack prints it, of a sum its JSON; "" where nothing is selected."""
    row = view.selected
    if isinstance(row, GroupRow):
        return printable(json_line(group_object(row, view.kind.grouping))).strip() if view.kind.grouping else ""
    flow = flow_of(row)
    return "" if flow is None else printable(flow.line())[:COPIED]


def command_for(view: View, command: Command | None) -> str:
    """The `conntrack -D` that would delete exactly the selected flow; "" where none is selected or none does."""
    flow = flow_of(view.selected)
    if flow is None or isinstance(found := selection(flow), Refusal):
        return ""
    via, program = (command.via, command.conntrack) if command else ((), "conntrack")
    return printable(shlex.join([*via, program, "-D", *found.deleting()]))[:COPIED]


def meant(view: View, table: FlowTable, everything: bool) -> list[Flow]:
    """The live flows that a key means: those of the selected row, or all that the filter wants (if there is one)."""
    row, wanted = view.selected, view.predicate
    if everything:
        return [flow for flow in table.live.values() if wanted(flow)] if wanted is not None else []
    if isinstance(row, GroupRow):
        grouping = view.kind.grouping
        if grouping is None:
            return []
        flows = (flow for flow in table.live.values() if wanted is None or wanted(flow))
        return [flow for flow in flows if group_key(flow, grouping, view.context) == row.key]
    flow = flow_of(row)
    return [] if flow is None or table.live.get(flow.key) is not flow else [flow]
