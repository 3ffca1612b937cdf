"""``--once``: the table as it is now, as text, JSON or CSV."""

from __future__ import annotations

import export
from columns import COLUMNS, shown
from flow import Flow
from items import Ended, ListingEnded, Trouble
from problems import ACCOUNTING_CURE, ACCOUNTING_OFF, TRACKING_CURE, TRACKING_OFF, WELL, Problem
from rows import arrange
from runner import Runner, say

MOST_JUNK = 10_000  # lines not understood before --once gives up
JUNK_CURE = "a look at --via and --conntrack"


class Once(Runner):
    """``--once``: the table as it is now, as text, JSON or CSV."""

    def run(self) -> int:
        complete = False
        while not complete and self.problem is None:
            self.wait(())
            if self.ended_by_signal():
                return WELL
            for item in self.source.poll():
                self.take(item)
                if self.source.live:  # as soon as the table is whole
                    complete = isinstance(item, ListingEnded) and item.complete
                else:  # a recording: as it stands at its end
                    complete = isinstance(item, Ended)
                if isinstance(item, Trouble) and item.part == "listing":
                    self.problem = item.problem  # also of one that broke off: nobody waits here for a better one
                if self._is_junk(complete):
                    self.problem = Problem(f"this is not conntrack's: {self.intake.status.unread()[0]}", JUNK_CURE)
                if complete or self.problem is not None:
                    break
        if self.problem is not None:
            return self.fail()
        self.open_databases()
        self._print()
        self._say_state()
        return WELL

    def _is_junk(self, complete: bool) -> bool:
        """There were lines, and not one of them was understood: an empty table would be a lie."""
        most = 0 if complete else MOST_JUNK  # some that write no end of it never end
        status = self.intake.status
        return self.source.live and not status.understood and status.rejects > most

    def _print(self) -> None:
        context = self.wishes.context
        context.now = self.intake.newest or 0.0
        wanted = self.wishes.wanted()
        flows = [flow for flow in self.table.live.values() if wanted is None or wanted(flow)]
        limit = self.wishes.limit
        flows = arrange(flows, self.wishes.sort or "bytes", self.wishes.reverse, context, limit)[:limit]
        moment = self.recorded_time()
        if self.wishes.format == "text":
            self.write_out([self._text(flows)])
            return
        line = export.json_line if self.wishes.format == "json" else export.csv_line
        head = [export.csv_header()] if self.wishes.format == "csv" else []
        items = (export.item_of(flow.record(), flow, context, "list", moment) for flow in flows)
        self.write_out([*head, *map(line, items)])

    def _text(self, flows: list[Flow]) -> str:
        columns = [column for column in COLUMNS if column.key != "natkind"]
        rows = []
        for flow in flows:
            row = shown(flow, self.wishes.context, names=False)
            rows.append([column.cell(row) for column in columns])
        return export.text_table([column.title for column in columns], rows, lambda i: columns[i].right)

    def _say_state(self) -> None:
        self.say_leftovers()
        if not self.source.live:
            return
        if not self.table.live and not self.wishes.flags:
            say(f"0 entries: {TRACKING_OFF}, or nobody has sent anything yet; try: {TRACKING_CURE}")
        elif self.intake.status.facts.get("acct") == 0 and not self.table.counted:
            say(f"{ACCOUNTING_OFF}; try: {ACCOUNTING_CURE}")
