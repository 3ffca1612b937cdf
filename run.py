"""The loop that all ways to run share, and the ways without a screen."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

import export
from addresses import Context
from filters import Predicate, all_of, compile_filter
from flows import PAST, Flow, FlowTable
from geography import Plan
from intake import (
    ACCOUNTING_CURE,
    ACCOUNTING_OFF,
    NOT_FOUND,
    NOT_PERMITTED,
    SUCCESS,
    SUDO,
    TRACKING_CURE,
    TRACKING_OFF,
    Block,
    Ended,
    Intake,
    Item,
    ListingEnded,
    Lost,
    Problem,
    Trouble,
)
from parse import Parts, record
from recording import Recorder
from source import Source
from text import PROGRAM

if TYPE_CHECKING:
    from view import Snapshot

# --- signals ----------------------------------------------------------------------------------------------------------


class Signals:
    """While the block runs, signals are noted and nothing else; ``waiting`` tells of them."""

    CAUGHT = ("SIGINT", "SIGTERM", "SIGHUP", "SIGWINCH", "SIGTSTP", "SIGCONT", "SIGQUIT")
    ENDING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})

    def __enter__(self) -> Signals:
        self.read_fd, self._write_fd = os.pipe()
        os.set_blocking(self.read_fd, False)
        os.set_blocking(self._write_fd, False)
        self._wakeup = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        self._before = {number: signal.getsignal(number) for number in map(self._number, self.CAUGHT)}
        for number, handler in self._before.items():
            if handler is not signal.SIG_IGN or number == signal.SIGWINCH:  # nohup ignores SIGHUP: so do we
                signal.signal(number, _noted)
        unblock()
        return self

    @staticmethod
    def _number(name: str) -> signal.Signals:
        return signal.Signals[name]

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self.read_fd)
        os.close(self._write_fd)

    def waiting(self) -> list[int]:
        """The signals that came since the last call, in their order."""
        try:
            return list(os.read(self.read_fd, 4096))
        except BlockingIOError:
            return []

    def stop_here(self) -> None:
        """Be stopped, as Ctrl+Z asks; returns when continued."""
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, _noted)


def unblock() -> None:
    """Let in what asks us to end: a container's entry point holds it back till somebody listens.

    The kernel drops a SIGTERM that process 1 neither handles nor blocks, and `docker stop` then takes 10 s.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, Signals.ENDING)


def _noted(_number: int, _frame: object) -> None:
    """The wakeup fd tells the loop; Python wants a handler beside it."""


# --- the loop ---------------------------------------------------------------------------------------------------------

BEAT = 2.0  # seconds between two heartbeats; the container's health check allows 15
FRAME = 1.0  # seconds between frames when only numbers change
FLOOD, DEAF_SHARE = 1000, 3.0  # lines not understood in one read, and the pause after it: 3 times what they took


@dataclass
class Options:
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
    view: str = "connections"
    past: int = PAST  # closed flows that are kept
    allow_delete: bool = False
    heartbeat: str = ""  # a file that is touched while the loop goes round
    settings_problem: str = ""  # why the settings file is not used

    def base(self) -> Predicate | None:
        """What the flags want, without the expression."""
        return all_of((self.flags, self.states))

    def wanted(self) -> Predicate | None:
        return all_of((self.base(), compile_filter(self.expression, self.context)))


def say(text: str) -> None:
    with contextlib.suppress(OSError):  # a full disk or a reader that has gone: the data must not suffer for it
        click.echo(f"{PROGRAM}: {text}", err=True)


class Runner:
    """What all three ways have in common: waiting, taking items in, recording, noticing failures at the start."""

    def __init__(self, wishes: Options, source: Source, signals: Signals, recorder: Recorder | None) -> None:
        self.wishes = wishes
        self.source = source
        self.signals = signals
        self.recorder = recorder
        self.table = FlowTable(linger=wishes.linger, past=wishes.past)
        self.intake = Intake(self.table)
        self.intake.status.settings = wishes.settings_problem
        self.problem: Problem | None = None  # why nothing could ever be read
        self.deaf_until = 0.0  # nobody listens to the source till then
        self.next_beat = 0.0 if wishes.heartbeat else None
        self.said: set[str] = set()
        wishes.context.epoch = time.time() - source.clock() if source.live else 0.0

    def run(self) -> int:
        """Until there is nothing more to do; returns the exit code."""
        raise NotImplementedError

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
        problem = self.problem
        instead = os.environ.get("CONNTRACK_MONITOR_PERMIT")  # an image has no sudo; it says what its container lacks
        if instead and problem.cure == SUDO:
            problem = replace(problem, cure=instead)
        say(str(problem))
        return problem.code

    def say_leftovers(self) -> None:
        """What the reader of a pipe must know and the data can't say."""
        for text in self.intake.status.unread():
            self.say_once(text)

    def open_databases(self) -> None:
        """For a pipe: what is there, opened before the first line is written; how to get the rest is said once."""
        from geography import MISSING, open_now

        geoip = open_now(self.wishes.plan)
        self.wishes.context.where = geoip.lookup
        for notice in geoip.notices:
            say(notice)
        if not geoip.databases:
            say(f"{MISSING}; try: {self.wishes.plan.command}")

    def recorded_time(self) -> str | None:
        """Seconds since 1970 for what has no stamp of its own: now, or in a recording the newest time it named."""
        if not self.source.live:
            return f"{self.intake.newest:.6f}" if self.intake.newest else None
        return f"{time.time():.6f}"


# --- --once -----------------------------------------------------------------------------------------------------------

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
                snapshot = self._snapshot()
            elif self.source.live and not complete:
                snapshot.look_ahead()
        if self.problem is not None:
            return self.fail()
        assert snapshot
        self.open_databases()
        self.wishes.context.now = self.intake.newest or 0.0
        self.write_out(self._texts(snapshot))
        self._say_state()
        return SUCCESS

    def _snapshot(self) -> Snapshot:
        from columns import VIEW_BY_NAME
        from view import Snapshot

        wishes = self.wishes
        spec = VIEW_BY_NAME[wishes.view]
        return Snapshot(
            self.table,
            wishes.context,
            spec,
            wishes.sort,
            reverse=wishes.reverse,
            wanted=wishes.wanted(),
            limit=wishes.limit,
        )

    def _texts(self, snapshot: Snapshot) -> Iterable[str]:
        from columns import table_text

        spec, context, format = snapshot.spec, self.wishes.context, self.wishes.format
        if format == "text":
            return [table_text(spec, snapshot.rows(), context)]
        return export.view_texts(spec.grouping, snapshot.rows(), format, context, self.recorded_time())

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


# --- --json and --csv -------------------------------------------------------------------------------------------------

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
