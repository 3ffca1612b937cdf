"""``--json`` and ``--csv``: the flows that exist, then every event, a line each, in order."""

from __future__ import annotations

import select
import time
from collections.abc import Iterable

import export
from flows import Flow
from intake import SUCCESS, Block, Item, ListingEnded, Lost, Trouble
from parse import Parts, record
from runner import FRAME, Runner, say

HELD = 64 << 20  # bytes of events kept back while the first listing runs


class Stream(Runner):
    """``--json`` and ``--csv``: the flows that exist, then every event, a line each."""

    def run(self) -> int:
        self.intake.report = self._report
        self.table.on_inferred = self._gone
        self._wanted = self.wishes.wanted()
        self._line = export.json_line if self.wishes.format == "json" else export.csv_line
        self._out: list[str] = [export.csv_header()] if self.wishes.format == "csv" else []
        self.open_databases()
        self._held: list[Block] | None = [] if self.source.live else None
        self._held_size = 0
        told = False
        while not self.intake.status.ended:
            ready = self.wait((), ())
            if self.ended_by_signal():
                break
            if 1 in ready:
                raise BrokenPipeError
            for item in self.source.poll():
                self._take_in_order(item)
                if self.problem is not None:
                    return self.fail()
            self.table.tick(self.source.clock())
            self._flush()
            if self.source.live and not told:  # once, not again with every line; the end tells how many
                self.say_leftovers()
                told = bool(self.intake.status.rejects)
        self._flush()
        self.say_leftovers()
        return SUCCESS

    def wait(self, fds: Iterable[int], writing: Iterable[int] = (), until: float | None = None) -> set[int]:
        """Also notices that the reader has gone, on a quiet table, too."""
        poll = select.poll()
        poll.register(1, 0)
        if any(event & select.POLLERR for _, event in poll.poll(0)):
            return {1}
        return super().wait(fds, writing, min(until or 1e18, time.monotonic() + FRAME))

    def _take_in_order(self, item: Item) -> None:
        """The flows that exist come first: events wait until the first listing is through."""
        if self._held is not None:
            if isinstance(item, Block) and item.events:
                self._held.append(item)
                self._held_size += len(item.data)
                if self._held_size > HELD:  # better out of order than out of memory
                    self._release()
                return
            if isinstance(item, ListingEnded) or (isinstance(item, Trouble) and item.part == "listing"):
                self.take(item)
                self._release()
                return
        if isinstance(item, Lost):
            status = self.intake.status  # a storm of losses is one loss until the table has been read anew
            if status.healed >= status.losses:
                say(f"lost: {item.what}; the table is being read anew")
        elif isinstance(item, Trouble):
            known = self.intake.status.troubles.get(item.part)
            if item.problem is None and known is not None:
                say(f"{item.part} are back" if item.part == "events" else f"{item.part} is back")
            self.take(item)
            if item.problem is not None and item.problem != known and self.problem is None:
                say(f"{item.part} stopped: {item.problem}; trying again")
            return
        self.take(item)

    def _release(self) -> None:
        """Take in the events that were held back, and hold no more."""
        held, self._held = self._held or [], None
        for block in held:
            self.take(block)

    def _report(self, event: str, flow: Flow, row: Parts, now: float) -> None:
        context = self.wishes.context
        context.now = now
        if self._wanted is None or self._wanted(flow):
            self._out.append(self._line_of(row, flow, event, self.recorded_time()))
            if len(self._out) >= 500:
                self._flush()

    def _line_of(self, row: Parts, flow: Flow, event: str, time: str | None) -> str:
        if self.wishes.format == "json":
            return export.json_event(row, flow, self.wishes.context, event, time)
        return self._line(export.json_object(record(row), flow, self.wishes.context, event, time))

    def _gone(self, flow: Flow) -> None:
        """A flow that is gone without a DESTROY: the reader must hear of it, too."""
        if self._wanted is None or self._wanted(flow):
            item = export.json_object(flow.record(), flow, self.wishes.context, "destroy", self.recorded_time())
            self._out.append(self._line({**item, "inferred": True}))

    def _flush(self) -> None:
        out, self._out = self._out, []
        self.write_out(out)
