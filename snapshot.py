"""What ``--once`` prints: the flows of one moment in order, as text, JSON or CSV."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import compress, islice
from operator import is_
from typing import Any

import export
from columns import BY_KEY, COLUMNS, shown
from flow import Flow
from flows import FlowTable
from rows import in_order
from runner import Wishes

AHEAD = 5000  # flows whose sort keys are made at once: 4 ms
STEADY = ("bytes", "packets", "source", "destination")  # columns whose keys need the flow's line only


class Snapshot:
    """The table as it will be printed, part of the work done while it grows."""

    def __init__(self, table: FlowTable, wishes: Wishes) -> None:
        self.table, self.wishes = table, wishes
        self._sort = wishes.sort or "bytes"
        self._flows: list[Flow] = []  # the first of the table, and the keys to sort them by
        self._keys: list[Any] = []

    def look_ahead(self) -> None:
        """Make sort keys while conntrack goes on: 0.15 s of 200,000 flows are not to come after its last line."""
        missing = len(self.table) - len(self._flows)
        if self._sort in STEADY and missing >= AHEAD:
            new = list(islice(reversed(self.table.live.values()), missing))[::-1]
            self._flows += new
            self._keys += BY_KEY[self._sort].keys(new, self.wishes.context)

    def texts(self, now: float, moment: str | None) -> Iterator[str]:
        """The lines; ``now`` on the flows' clock, ``moment`` in seconds since 1970."""
        context = self.wishes.context
        context.now = now
        flows = self._chosen()
        if self.wishes.format == "text":
            yield self._text(flows)
            return
        if self.wishes.format == "csv":
            yield export.csv_header()
        line = export.json_line if self.wishes.format == "json" else export.csv_line
        for flow in flows:
            yield line(export.item_of(flow.record(), flow, context, "list", moment))

    def _chosen(self) -> list[Flow]:
        column, flows, keys = BY_KEY[self._sort], list(self.table.live.values()), self._keys
        if not all(map(is_, self._flows, flows)) or len(flows) < len(keys):
            keys = []  # some of the first are there no longer
        keys = keys + column.keys(flows[len(keys) :], self.wishes.context)
        wanted, limit = self.wishes.wanted(), self.wishes.limit
        if wanted is not None:
            fitting = [wanted(flow) for flow in flows]
            flows, keys = list(compress(flows, fitting)), list(compress(keys, fitting))
        return in_order(flows, keys, column.descending != self.wishes.reverse, limit)[:limit]

    def _text(self, flows: list[Flow]) -> str:
        columns = [column for column in COLUMNS if column.key != "natkind"]
        rows = []
        for flow in flows:
            row = shown(flow, self.wishes.context, names=False)
            rows.append([column.cell(row) for column in columns])
        return export.text_table([column.title for column in columns], rows, lambda i: columns[i].right)
