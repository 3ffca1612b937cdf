"""The loop: one thread, one poll over children, keyboard and signals. The only place that knows everyone.

Three ways to run share it: ``--once`` (until the first listing is complete), a stream of events as JSON or CSV, and
the screen.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

import export
from fields import Context, Predicate
from filters import all_of, compile_filter
from flow import Flow
from flows import FlowTable
from intake import Intake
from items import Block, Ended, Item, ListingEnded, Lost, Trouble
from parse import Cut, record
from problems import (
    ACCOUNTING_CURE,
    ACCOUNTING_OFF,
    NOT_FOUND,
    NOT_PERMITTED,
    TRACKING_CURE,
    TRACKING_OFF,
    WELL,
    Problem,
)
from recording import Recorder
from signals import Signals
from source import Source

if TYPE_CHECKING:
    from geography import Geography, Plan
    from screen import Screen
    from view import View

PROGRAM = "conntrack-monitor"
FRAME = 1.0  # seconds between frames when only numbers change
QUICK = 0.02  # seconds between frames while keys are pressed
ORDERING_SHARE = 24  # ordering the rows takes at most 1/25 of the time
FLOOD, DEAF_SHARE = 1000, 3.0  # lines not understood in one read, and the pause after it: 3 times what they took
MOST_JUNK = 10_000  # lines not understood before --once gives up
JUNK_CURE = "a look at --via and --conntrack"
BEAT = 2.0  # seconds between two heartbeats; the container's health check allows 15
HELD = 64 << 20  # bytes of events kept back while the first listing runs


@dataclass
class Wishes:
    """What the command line asks for."""

    context: Context
    flags: Predicate | None
    states: Predicate | None
    expression: str
    source: Callable[[], Source]
    sort: str | None
    reverse: bool
    linger: float
    colour: bool
    once: bool
    format: str  # text, json, csv
    limit: int | None
    record: str | None
    plan: Plan
    heartbeat: str = ""  # a file that is touched while the loop goes round

    def base(self) -> Predicate | None:
        """What the flags want, without the expression."""
        return all_of((self.flags, self.states))

    def wanted(self) -> Predicate | None:
        return all_of((self.base(), compile_filter(self.expression, self.context)))


_KEPT: list[FlowTable] = []  # until the process ends: to free 200,000 flows takes 0.1 s


def run(wishes: Wishes) -> int:
    """Run as wished; returns the exit code."""
    # 262,144 flows are no garbage: a collector that looks at them again and again takes longer than the parser.
    gc.freeze()
    gc.set_threshold(200_000, 20, 50)
    try:
        recorder = Recorder(wishes.record) if wishes.record else None
    except OSError as error:
        raise click.BadParameter(
            f"'{wishes.record}' can't be written: {error.strerror}", param_hint="'--record'"
        ) from None
    with Signals() as signals:
        source = wishes.source()
        kind = Once if wishes.once else Live if wishes.format == "text" else Stream
        runner: Once | Live | Stream = kind(wishes, source, signals, recorder)
        try:
            _KEPT.append(runner.table)
            return runner.run()
        finally:
            source.close()
            if recorder:
                recorder.close()
                runner.say_once(recorder.stopped)


def say(text: str) -> None:
    with contextlib.suppress(OSError):  # a full disk or a reader that has gone: the data must not suffer for it
        click.echo(f"{PROGRAM}: {text}", err=True)


class Runner:
    """What all three ways have in common: waiting, taking items in, recording, noticing failures at the start."""

    def __init__(self, wishes: Wishes, source: Source, signals: Signals, recorder: Recorder | None) -> None:
        self.wishes = wishes
        self.source = source
        self.signals = signals
        self.recorder = recorder
        self.table = FlowTable(linger=wishes.linger)
        self.intake = Intake(self.table)
        self.problem: Problem | None = None  # why nothing could ever be read
        self.deaf_until = 0.0  # nobody listens to the source till then
        self.next_beat = 0.0 if wishes.heartbeat else None
        self.said: set[str] = set()

    def wait(self, fds: Iterable[int], writing: Iterable[int] = (), until: float | None = None) -> set[int]:
        """Wait for any fd, a signal, or the time; returns the fds that are ready (or broken)."""
        self._beat()
        poll = select.poll()
        deaf = time.monotonic() < self.deaf_until
        for fd in (*fds, *(() if deaf else self.source.fds()), self.signals.read_fd):
            poll.register(fd, select.POLLIN)
        for fd in writing:
            poll.register(fd, select.POLLOUT)
        ends = (until, self.source.deadline(), self.deaf_until if deaf else None, self.next_beat)
        due = [at for at in ends if at is not None]
        timeout = None if not due else max(0.0, min(due) - time.monotonic()) * 1000
        return {fd for fd, _ in poll.poll(None if timeout is None else int(timeout) + (timeout % 1 > 0))}

    def _beat(self) -> None:
        """Touch the file that says that the loop goes round; one that can't be touched says that it does not."""
        if self.next_beat is not None and time.monotonic() >= self.next_beat:
            self.next_beat = time.monotonic() + BEAT
            with contextlib.suppress(OSError):
                open(self.wishes.heartbeat, "wb").close()

    def ended_by_signal(self) -> bool:
        return any(number in Signals.ENDING for number in self.signals.waiting())

    def take(self, item: Item) -> None:
        if self.recorder:
            self.recorder.take(item)
            if self.recorder.stopped:
                self.recording_stopped(self.recorder.stopped)
        if isinstance(item, Trouble) and item.problem is not None and not self.intake.status.began:
            # Without events there are still listings; without a first listing there is nothing.
            fatal = item.part == "listing" or item.problem.code in (NOT_PERMITTED, NOT_FOUND)
            self.problem = item.problem if fatal else self.problem
        rejects, began = self.intake.status.rejects, time.monotonic()
        self.intake.take(item)
        if self.source.live and self.intake.status.rejects - rejects > FLOOD:
            now = time.monotonic()
            self.deaf_until = max(self.deaf_until, now) + DEAF_SHARE * (now - began)
        self.wishes.context.own = self.table.own

    def write_out(self, texts: Iterable[str]) -> None:
        """Write to standard output, all of it; a full disk is an OSError that names it.

        A reader that stalls must not keep us from ending (Python goes on with a write after a signal): a pipe that
        poll calls writable takes PIPE_BUF bytes without blocking.
        """
        data = memoryview("".join(texts).encode("utf-8", "replace"))
        poll = select.poll()
        poll.register(1, select.POLLOUT)
        poll.register(self.signals.read_fd, select.POLLIN)
        while data:
            ready = {fd for fd, _ in poll.poll()}
            if self.signals.read_fd in ready and self.ended_by_signal():
                raise KeyboardInterrupt
            if 1 in ready:
                try:
                    data = data[os.write(1, data[: select.PIPE_BUF]) :]
                except BrokenPipeError:
                    raise
                except OSError as error:
                    raise OSError(error.errno, error.strerror, "standard output") from None

    def recording_stopped(self, words: str) -> None:
        self.say_once(words)

    def say_once(self, words: str) -> None:
        if words and words not in self.said:
            self.said.add(words)
            say(words)

    def fail(self) -> int:
        assert self.problem
        say(str(self.problem))
        return self.problem.code

    def say_leftovers(self) -> None:
        """What the reader of a pipe must know and the data can't say."""
        for text in self.intake.status.unread():
            self.say_once(text)

    def open_databases(self) -> None:
        """For a pipe: what is there, opened before the first line is written; how to get the rest is said once."""
        from geography import MISSING, MISSING_CURE, open_now

        geoip = open_now(self.wishes.plan)
        self.wishes.context.where = geoip.lookup
        for notice in geoip.notices:
            say(notice)
        if not geoip.databases:
            say(f"{MISSING}; try: {MISSING_CURE}")

    def recorded_time(self) -> str | None:
        """Seconds since 1970 for what has no stamp of its own: now, or in a recording the newest time it named."""
        if not self.source.live:
            return f"{self.intake.newest:.6f}" if self.intake.newest else None
        return f"{time.time():.6f}"


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
        return self.source.live and not self.table.live and self.intake.status.rejects > most

    def _print(self) -> None:
        from view import arrange

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
        from columns import COLUMNS, shown

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
        return WELL

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
            if status.lost_at is None or status.lost_at < (self.table.listed_at or 0.0):
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

    def _report(self, event: str, flow: Flow, row: Cut, now: float) -> None:
        context = self.wishes.context
        context.now = now
        if self._wanted is None or self._wanted(flow):
            self._out.append(self._line(export.item_of(record(row), flow, context, event, self.recorded_time())))
            if len(self._out) >= 500:
                self._flush()

    def _gone(self, flow: Flow) -> None:
        """A flow that is gone without a DESTROY: the reader must hear of it, too."""
        if self._wanted is None or self._wanted(flow):
            item = export.item_of(flow.record(), flow, self.wishes.context, "destroy", self.recorded_time())
            self._out.append(self._line({**item, "inferred": True}))

    def _flush(self) -> None:
        out, self._out = self._out, []
        self.write_out(out)


class Live(Runner):
    """The screen."""

    def run(self) -> int:
        from geography import Geography
        from screen import Screen, take_keyboard
        from view import View

        take_keyboard()
        wishes = self.wishes
        self.view: View = View(wishes.context, wishes.base(), sort=wishes.sort or "rate", reverse=wishes.reverse)
        self.view.set_filter(wishes.expression)
        self.screen: Screen = Screen(wishes.colour, os.environ)
        self.geography: Geography = Geography(wishes.plan)
        wishes.context.where = self.geography.where
        wishes.context.detail = self.geography.detail
        self.next_frame = 0.0
        self.last_frame = 0.0
        try:
            self.screen.enter()
            while not self._turn():
                pass
        finally:
            self.screen.close()
            self.geography.close()
        if self.problem is not None:
            return self.fail()
        return WELL

    def _turn(self) -> bool:
        """Once round the loop; True when it is time to go."""
        keyboard = self.screen.key_fd()
        writing = [self.screen.out_fd] if self.screen.pending else []
        reading = [*([] if keyboard is None else [keyboard]), *self.geography.fds()]
        until = self.geography.deadline() if writing else min(self.next_frame, self.geography.deadline())
        if self.screen.more_keys:
            until = time.monotonic()
        ready = self.wait(reading, writing, until)
        if self._heed_signals() or self.screen.hung_up:
            return True
        if (keyboard in ready or self.screen.more_keys) and self._heed_keys():
            return True
        for item in self.source.poll():
            self.take(item)
            if self.problem is not None:
                return True
            if isinstance(item, ListingEnded) and self.table.listings <= 1:
                self._soon()
        self.table.tick(self._now())
        if self.last_frame:  # the first screen comes first
            self.geography.poll()
            if self.geography.fresh:
                self.geography.fresh = False
                self._soon()
        if self.screen.pending:
            self.screen.flush()
        elif time.monotonic() >= self.next_frame:
            self._draw()
        return self.screen.hung_up

    def _now(self) -> float:
        return self.source.clock()

    def _soon(self) -> None:
        """A frame as soon as the last one has been on show for a moment."""
        self.view.due = 0.0
        self.next_frame = min(self.next_frame, max(time.monotonic(), self.last_frame + QUICK))

    def _draw(self) -> None:
        from render import Scene, frame
        from view import refresh

        self.last_frame = time.monotonic()
        self.next_frame = self.last_frame + FRAME
        self.geography.begin_frame()
        if refresh(self.view, self.table, self._now()):
            # To put 200,000 flows in order takes up to 0.4 s: then it is done more rarely, and keys still act at once.
            spent = time.monotonic() - self.last_frame
            self.view.due = max(self.view.due, self.view.context.now + ORDERING_SHARE * spent)
        width, height = self.screen.size()
        if width <= 0 or height <= 0:
            return
        self.intake.status.geography = self.geography.notices(time.time())
        self.intake.status.attributions = self.geography.attributions()
        scene = Scene(self.view, self.table, self.intake.status, self.source.name, self.source.live, self.screen.glyphs)
        self.screen.draw(frame(scene, width, height), width, height)
        if self.geography.short:
            self._soon()

    def _heed_signals(self) -> bool:
        for number in self.signals.waiting():
            if number in Signals.ENDING:
                return True
            if number == signal.SIGTSTP:
                self.screen.leave()
                self.signals.stop_here()
                self.screen.enter()
            elif number in (signal.SIGWINCH, signal.SIGCONT):
                self.screen.repaint()
            self._soon()
        return False

    def _heed_keys(self) -> bool:
        from view import press

        for key in self.screen.read_keys():
            wish = press(self.view, self.table, key)
            if wish == "quit":
                return True
            if wish == "redraw":
                self.screen.repaint()
                self.source.list_now()
            if wish in ("faster", "slower"):
                seconds = self.source.pace(0.5 if wish == "faster" else 2.0)
                self.view.message = f"listing every {seconds:g} s" if seconds else "a recording lists when it did"
        self.next_frame = min(self.next_frame, max(time.monotonic(), self.last_frame + QUICK))
        return False

    def recording_stopped(self, words: str) -> None:
        self.intake.status.recording = words
