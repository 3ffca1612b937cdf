"""What ``--once`` prints: the flows of one moment in order, as text, JSON or CSV."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import compress, islice
from operator import is_
from typing import Any

import text
from columns import VIEW_BY_NAME, EventFacts, GroupFacts, facts_of
from export import view_texts
from flows import Flow, FlowTable, TapeEvent, tape_events
from grouping import Grouper, shares
from runner import Wishes
from view import in_order

AHEAD = 5000  # flows whose sort keys are made at once: 4 ms


STEADY = ("bytes", "packets", "source", "destination")  # columns whose keys need the flow's line only


class Snapshot:
    """The table as it will be printed, part of the work done while it grows."""

    def __init__(self, table: FlowTable, wishes: Wishes) -> None:
        self.table, self.wishes = table, wishes
        self._kind = VIEW_BY_NAME[wishes.view]
        self._sort = wishes.sort or self._kind.once or self._kind.sort
        self._keys: list[Any] = []  # of the first flows of the table, which are these
        self._flows: list[Flow] = []

    def look_ahead(self) -> None:
        """Make sort keys while conntrack goes on: 0.15 s of 200,000 flows are not to come after its last line."""
        missing = len(self.table) - len(self._flows)
        if self._kind.name == "connections" and self._sort in STEADY and missing >= AHEAD:
            new = list(islice(reversed(self.table.live.values()), missing))[::-1]
            self._flows += new
            self._keys += self._kind.column(self._sort).keys(new, self.wishes.context)

    def texts(self, now: float, moment: str | None) -> Iterator[str]:
        """The lines; ``now`` on the flows' clock, ``moment`` in seconds since 1970."""
        self.wishes.context.now = now
        rows = self._first(*self._rows())
        if self.wishes.format == "text":
            yield self._text(rows)
        else:
            yield from view_texts(self._kind.grouping, rows, self.wishes.format, self.wishes.context, moment)

    def _rows(self) -> tuple[list[Any], list[Any]]:
        """The rows that are wanted and their sort keys."""
        context, column, wanted = self.wishes.context, self._kind.column(self._sort), self.wishes.wanted()
        flows: list[Flow] = list(self.table.live.values())
        rows: list[Any] = flows
        keys = self._keys
        if self._kind.rows == "events":
            tape = tape_events(self.table)
            rows = [happening for happening in tape if wanted is None or wanted(happening.flow)][::-1]
        elif self._kind.grouping is not None:
            tally = Grouper(self._kind.grouping, context)
            tally.add(flows if wanted is None else list(filter(wanted, flows)))
            rows = list(tally.sums.values())
            shares(rows, self._sort)
        else:
            if self._kind.name == "nat":
                flows = rows = [flow for flow in [*flows, *self.table.past] if flow.ends().nat]
            if not all(map(is_, self._flows, flows)) or len(flows) < len(keys):
                keys = []  # some of the first are there no longer
            keys = keys + column.keys(flows[len(keys) :], context)
            if wanted is not None:
                fitting = [wanted(flow) for flow in flows]
                rows, keys = list(compress(flows, fitting)), list(compress(keys, fitting))
            return rows, keys
        return rows, column.keys(rows, context)

    def _first(self, rows: list[Any], keys: list[Any]) -> list[Any]:
        limit = self.wishes.limit
        return in_order(rows, keys, self._kind.falling(self._sort, self.wishes.reverse), limit)[:limit]

    def _text(self, rows: list[Any]) -> str:
        columns = [column for column in self._kind.columns if column.key != "natkind"]
        context, lines = self.wishes.context, []
        for row in rows:
            cells: Any
            if isinstance(row, Flow):
                cells = facts_of(row, context, names=False)
            elif isinstance(row, TapeEvent):
                cells = EventFacts(row, context, names=False)
            else:
                cells = GroupFacts(row, context.where, context.name, "#", "")
            lines.append([column.cell(cells) for column in columns])
        return text.text_table([column.title for column in columns], lines, lambda i: columns[i].right)
