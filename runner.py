"""What all ways to run share: one poll over children, keyboard and signals; items taken in; what is to be said."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from addresses import Context
from filters import Predicate, all_of, compile_filter
from flows import PAST, FlowTable
from intake import NOT_FOUND, NOT_PERMITTED, SUDO, Intake, Item, Problem, Trouble
from recording import Recorder
from signals import Signals
from source import Source

if TYPE_CHECKING:
    from geography import Plan

PROGRAM = "conntrack-monitor"
BEAT = 2.0  # seconds between two heartbeats; the container's health check allows 15
FRAME = 1.0  # seconds between frames when only numbers change
FLOOD, DEAF_SHARE = 1000, 3.0  # lines not understood in one read, and the pause after it: 3 times what they took


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

    def __init__(self, wishes: Wishes, source: Source, signals: Signals, recorder: Recorder | None) -> None:
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
