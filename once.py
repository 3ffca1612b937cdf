"""``--once``: the table as it is now, as text, JSON or CSV."""

from __future__ import annotations

from typing import TYPE_CHECKING

from intake import (
    ACCOUNTING_CURE,
    ACCOUNTING_OFF,
    SUCCESS,
    TRACKING_CURE,
    TRACKING_OFF,
    Ended,
    ListingEnded,
    Problem,
    Trouble,
)
from runner import Runner, say

if TYPE_CHECKING:
    from snapshot import Snapshot

MOST_JUNK = 10_000  # lines not understood before --once gives up
JUNK_CURE = "a look at --via and --conntrack"


class Once(Runner):
    """``--once``: the table as it is now, as text, JSON or CSV."""

    def run(self) -> int:
        snapshot: Snapshot | None = None
        complete = False
        while not complete and self.problem is None:
            self.wait(())
            if self.ended_by_signal():
                return SUCCESS
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
            if snapshot is None:  # conntrack has been started: now there is time for what takes 20 ms to import
                from snapshot import Snapshot

                snapshot = Snapshot(self.table, self.wishes)
            elif self.source.live and not complete:
                snapshot.look_ahead()
        if self.problem is not None:
            return self.fail()
        assert snapshot
        self.open_databases()
        self.write_out(snapshot.texts(self.intake.newest or 0.0, self.recorded_time()))
        self._say_state()
        return SUCCESS

    def _is_junk(self, complete: bool) -> bool:
        """There were lines, and not one of them was understood: an empty table would be a lie."""
        most = 0 if complete else MOST_JUNK  # some that write no end of it never end
        status = self.intake.status
        return self.source.live and not status.understood and status.rejects > most

    def _say_state(self) -> None:
        self.say_leftovers()
        if not self.source.live:
            return
        if not self.table.live and not self.wishes.flags:
            say(f"0 entries: {TRACKING_OFF}, or nobody has sent anything yet; try: {TRACKING_CURE}")
        elif self.intake.status.facts.get("acct") == 0 and not self.table.counted:
            say(f"{ACCOUNTING_OFF}; try: {ACCOUNTING_CURE}")
