"""The loop that all ways to run share, and the ways without a screen."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import select
import shlex
import signal
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Generic, NamedTuple, TypedDict, TypeVar

import click

import export
from addresses import NO_LOOKUPS, Context, Contexts, Lookups, Place, Site
from filters import Predicate, all_of, asks, asks_fans, compile_filter, from_flags
from flows import MAX_LIVE, PAST, SHORTEST_INTERVAL, TAPE, AnyTable, Flow, FlowTable, FlowTables, TapeLine
from intake import (
    BEHIND,
    FAILED,
    LATE,
    NOT_FOUND,
    NOT_PERMITTED,
    NOTHING_TRACKED,
    SUCCESS,
    SUDO,
    Behind,
    Block,
    Ended,
    Intake,
    Item,
    LeftOut,
    ListingEnded,
    Lost,
    OfNode,
    Problem,
    Report,
    Statistics,
    Status,
    Trouble,
    cure_there,
)
from names import Names
from parse import STAMP, Parts
from recording import Mixture, Recorder, Replay
from source import Source, node_of, own_container
from text import clean
from vocabulary import ViewName

if TYPE_CHECKING:
    from alerts import Alert, AlertPlan, Watch
    from collectors import Exporter, ExportPlan
    from columns import ViewSpec
    from flowlog import FlowLog, LogPlan
    from geography import Plan
    from geoip import GeoIP
    from health import Notice
    from metrics import Measured, Stage
    from past import Question
    from view import Rows, RowsWanted

# --- signals ----------------------------------------------------------------------------------------------------------


class Signals:
    """While the block runs, signals are noted and nothing else; ``waiting`` tells of them."""

    CAUGHT = ("SIGINT", "SIGTERM", "SIGHUP", "SIGWINCH", "SIGTSTP", "SIGCONT", "SIGQUIT")
    ENDING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})

    def __init__(self) -> None:
        self.read_fd, self._write_fd = os.pipe()
        os.set_blocking(self.read_fd, False)
        os.set_blocking(self._write_fd, False)
        self._wakeup = -1  # the wakeup fd before: none
        self._before = {number: signal.getsignal(number) for number in [signal.Signals[name] for name in self.CAUGHT]}

    def __enter__(self) -> Signals:
        self._wakeup = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for number, handler in self._before.items():
            if handler is not signal.SIG_IGN or number == signal.SIGWINCH:  # nohup ignores SIGHUP: so do we
                signal.signal(number, _noted)
        unblock()
        return self

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

    def ending(self) -> bool:
        """Did one come that asks us to end?"""
        return any(number in self.ENDING for number in self.waiting())

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

STEPPED = 0.02  # seconds: two clocks are read one after the other, and milliseconds on show must not flicker
LAST_LOOK, QUIET = 1.0, 0.1  # seconds for what is still to be read at the end; without any of it nothing is
BEAT = 2.0  # seconds between two heartbeats; the container's health check allows 15
FRAME = 1.0  # seconds between frames when only numbers change
FLOOD, SOURCE_WAITS_SHARE = (
    1000,
    3.0,
)  # lines not understood in one read, and the pause after it: 3 times what they took


SOURCE_WAITS = 0.05  # seconds for which a recording waits where collectors take less than it tells


class CommandLine(TypedDict):
    """The options as click gives them: the parameters of ``conntrack_monitor.command``, by name."""

    protocol: tuple[str, ...]
    state: tuple[str, ...]
    ipv4: bool
    ipv6: bool
    expression: str | None
    sort: str | None
    reverse: bool
    view: ViewName
    history: int
    interval: float
    linger: float
    no_color: bool
    no_mouse: bool
    once: bool
    as_json: bool
    as_csv: bool
    limit: int | None
    sample: float | None
    via: tuple[str, ...]
    conntrack: str
    replay: str | None
    node: str
    only: frozenset[str]
    demo: bool
    speed: float
    record: str | None
    geoip_db: tuple[str, ...]
    no_download: bool
    update_geoip: bool
    allow_delete: bool
    log: str | None
    log_keep: float
    log_size: int
    metrics: str | None
    who: str | None
    at: str | None
    since: str | None
    by: str | None
    headless: bool
    ipfix: tuple[str, ...]
    ipfix_only: str | None
    ipfix_nat_event: str
    names: tuple[str, ...]
    log_writer: str
    log_search: str
    log_first: bool
    geoip_worker: str
    heartbeat: str


@dataclass(frozen=True)
class MetricsPlan:
    """What the command line says of metrics."""

    path: str  # "-": standard output
    version: str


@dataclass(frozen=True)
class Options:
    """What the command line and the settings ask for."""

    site: Site
    protocols: Sequence[str]
    states: Sequence[str]
    families: Sequence[str]
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
    sample: float | None = None  # with once: seconds between two listings
    starts_again: str = ""  # what to say when somebody quits and something starts the program again
    before: Sequence[str] = ()  # the words that bring a command to the machine whose table is read
    log: LogPlan | None = None  # where the flow log is written
    metrics: MetricsPlan | None = None  # where metrics are written
    alerts: AlertPlan | None = None  # the rules of the settings
    since: str = ""  # of usage, as it was typed
    by: str = ""  # the keys of --by
    demo: str = ""  # the words that play the bundled recording
    tracking: Problem = NOTHING_TRACKED  # why there may be no flow
    mouse: bool = True  # clicks and the wheel are ours
    headless: bool = False  # nothing on standard output: the log, IPFIX or metrics are what the run is for
    ipfix: ExportPlan | None = None  # where flow records are sent
    names: Sequence[str] = ()  # where names of hosts are read
    node: str = ""  # this machine's name; "": the one that it has
    others: Sequence[Options] = ()  # what holds for further nodes, which differ in source, node and ``before``
    only: frozenset[str] = frozenset()  # the events that a stream tells; none: all of them
    asks_names: bool = False  # ... because somebody said so, who then hears what can't be read

    def base(self, context: Context) -> Predicate | None:
        """What the flags want, without the expression."""
        flags = from_flags(self.protocols, (), self.families, context)
        return all_of((flags, from_flags((), self.states, (), context)))

    def sources_of_names(self) -> Sequence[str]:
        """Those that are read: a pipe tells no processes, so that only its filter may need them."""
        screen = self.format == "text" and not (self.once or self.headless)
        needed = screen or self.asks("process") or "process" in self.by.lower().split(",")
        needed = needed or (self.alerts is not None and self.alerts.asks_field("process", self.site))
        return [source for source in self.names if needed or source != "processes"]

    def asks(self, *fields: str) -> bool:
        """Does the filter have a term of one of these fields?"""
        return asks(self.expression, self.site, *fields)

    def wanted(self, context: Context) -> Predicate | None:
        return all_of((self.base(context), compile_filter(self.expression, context)))


def say(text: str) -> None:
    """A line for people on standard error, with the program's name before it."""
    context = click.get_current_context(silent=True)
    name = context.find_root().info_name if context is not None else None
    with contextlib.suppress(OSError):  # a full disk or a reader that has gone: the data must not suffer for it
        click.echo(f"{name}: {text}" if name else text, err=True)


def say_unanswered(options: Options) -> None:
    """Say which of the filter's terms match nothing outside the screen: no row would look like an answer."""
    if options.asks("new"):
        say("new: matches nothing here: only the screen has marks; on the screen, m sets one")
    if not options.once and asks_fans(options.expression, options.site):
        say("fanout: and ports: match nothing here: a stream does not count all flows; try: --once --json")


def both(one: Callable[[Flow], None] | None, other: Callable[[Flow], None] | None) -> Callable[[Flow], None] | None:
    """What calls both, as far as they are there."""
    if one is None or other is None:
        return one or other

    def tell(flow: Flow) -> None:
        one(flow)
        other(flow)

    return tell


def give_up(problem: Problem) -> int:
    """Say why; returns the exit code."""
    instead = os.environ.get("CONNTRACK_MONITOR_PERMIT", "")
    if not instead and problem.cure == SUDO and (inside := own_container()):
        instead = inside.permitted()  # an image has no sudo
    if instead and problem.cure == SUDO:
        problem = replace(problem, cure=instead)
    say(str(problem))
    return problem.code


class Feed:
    """A source and the table that it fills: waiting for it, taking items in, recording them, failures at the start."""

    def __init__(
        self,
        options: Options,
        source: Source,
        signals: Signals,
        recorder: Recorder | None = None,
        report: Report | None = None,
        on_inferred: Callable[[Flow], None] | None = None,
        where: Callable[[str], Place] = NO_LOOKUPS.where,
        tape: deque[TapeLine] | None = None,
        first: Feed | None = None,
    ) -> None:
        """``where``: looks a place up at once, for metrics; a frame's budget is not theirs.

        ``tape``: see ``FlowTable``. ``first``: the feed of another node, which keeps the files that are of all nodes.
        """
        self.source, self.before, self.tracking = source, options.before, options.tracking
        self.is_first = first is None
        self._told_epoch = 0.0
        via = source.command.via if source.command else ()
        self.names = Names(options.sources_of_names() if source.live else (), via, options.site)
        self._node = options.node or node_of(via)
        self.log, self.exporter = self._log(options, first), self._exporter(options)
        self.alerts: Watch | None = None  # see ``begin_alerts``
        self._options = options
        self.table = self._table(options, report is None and not options.headless, on_inferred, tape)
        lists_again = not options.once or options.sample is not None
        self.intake = Intake(self.table, report, time.time(), lists_again)
        self.metrics = self._metrics(options, first, where)
        self.problem: Problem | None = None  # why nothing could ever be read
        self._signals = signals
        self._recorder = recorder
        self._began = False  # it has been waited for
        self._heartbeat, self._headless = options.heartbeat, options.headless
        self._source_waits_until = 0.0  # nobody listens to the source till then
        self._next_beat = 0.0 if options.heartbeat else None
        self.due = 0.0  # when source and names have something to do, as it was when they were waited for
        if source.live:  # a recording says itself whose it is
            self.take(OfNode(source.clock(), self._node))

    def _log(self, options: Options, first: Feed | None) -> FlowLog | None:
        """What is told of this node; one process writes it for all."""
        if options.log is None:
            return None
        from flowlog import FlowLog, LogWire

        if first is not None and first.log is not None:
            wire = first.log.wire
        else:
            nodes = [self._node, *(other.node for other in options.others)]
            wire = LogWire(options.log, options.log.setup(nodes, options.plan.paths, options.site))
        return FlowLog(wire, self._node, self.epoch, self.names.directory)

    def _table(
        self,
        options: Options,
        is_shown: bool,
        on_inferred: Callable[[Flow], None] | None,
        tape: deque[TapeLine] | None,
    ) -> FlowTable:
        """The table, which keeps what somebody asks for; ``is_shown``: a person looks at it."""
        # Two samples of a flow may be a little closer than the listings that they come from.
        shortest = min(SHORTEST_INTERVAL, (options.sample or math.inf) / 2)
        is_judged = options.alerts is not None and options.alerts.asks_events()
        return FlowTable(
            *(options.linger, frozenset(), MAX_LIVE, options.past, on_inferred, shortest),
            on_show=is_shown,
            taped=is_judged,
            totals=is_shown or is_judged or options.metrics is not None,
            on_closed=both(self.log.ended if self.log else None, self.exporter.ended if self.exporter else None),
            on_new=self.exporter.began if self.exporter else None,
            tape=tape,
        )

    def _metrics(self, options: Options, first: Feed | None, where: Callable[[str], Place]) -> MetricsFile | None:
        """The file, which the first node's feed renews for all."""
        if options.metrics is None or options.once:
            return None
        file = MetricsFile(options.metrics) if first is None else first.metrics
        if file is not None:
            file.add(self.measured(self.context(Lookups(), options.site), where))
        return file if first is None else None

    def measured(self, context: Context, where: Callable[[str], Place]) -> NodeMetrics:
        """Its part of metrics."""
        return NodeMetrics(
            *(self._node, self.table, self.intake.status, self.source.clock, context, where),
            lambda: self.alerts.counts() if self.alerts else {},
        )

    def _exporter(self, options: Options) -> Exporter | None:
        if options.ipfix is None:
            return None
        from collectors import Exporter

        return Exporter(options.ipfix, self._node, self.source.live, options.site, self.epoch)

    def begin_alerts(
        self,
        context: Context,
        at_once: bool = False,
        begin: Callable[[], None] = lambda: None,
        unsure: Callable[[], bool] | None = None,
    ) -> None:
        """From now on flows and numbers are judged by the settings' rules.

        ``at_once``, ``begin``, ``unsure``: see ``alerts.Circumstances``.
        """
        plan, log = self._options.alerts, self._options.log
        if plan is None:
            return
        from alerts import Circumstances, Watch, never_unsure

        source, folder = self.source, log.folder if log is not None else ""
        around = Circumstances(
            source.live, at_once, self._options.node or source.name, folder, begin, unsure or never_unsure
        )
        self.alerts = Watch(plan, context, self.table, self.intake.status, around)

    def fired(self) -> list[Alert]:
        """The alerts since the last call."""
        return [] if self.alerts is None else self.alerts.take_fired()

    def close(self) -> None:
        """Nothing more is to come: the log gets what is there, also of what the kernel has told and nobody has read."""
        self.names.close()
        if self.alerts is not None and (left := self.alerts.close()):
            say(f"{left} commands of alerts had not ended, and were stopped")
        if self.log is None and self.exporter is None and self.metrics is None:
            return
        began = calm = time.monotonic()
        while self.source.live and (now := time.monotonic()) - calm < QUIET and now - began < LAST_LOOK:
            self.wait(until=calm + QUIET)
            for item in self.source.poll():
                self.take(item)
                calm = time.monotonic() if isinstance(item, Block) else calm
        for text in self.stop_exporting():
            say(text)
        if self.log is not None:
            self.log.close(self.table, self.source.clock())
        if self.metrics is not None:
            self.metrics.close()

    def _go_on_beside(self, fds: list[int], until: float) -> tuple[list[int], float]:
        """Log, metrics and alerts do what is due; returns the fds and the time till then that are waited for."""
        now, status = self.source.clock(), self.intake.status
        if self.log is not None:
            self.log.poll(self.table, status, now)
            fds, until = [*fds, *self.log.fds()], min(self.log.deadline(), until)
        if self.metrics is not None:
            self.metrics.poll()
            until = min(self.metrics.deadline(), until)
        if self.alerts is not None:
            self.alerts.poll(now)
            fds, until = [*fds, *self.alerts.fds()], min(self.alerts.deadline(now), until)
        return fds, until

    def stop_exporting(self) -> list[str]:
        """The collectors get what is there; returns what these have not got, in words for people."""
        return [] if self.exporter is None else self.exporter.close(self.table, self.source.clock())

    def wait(self, fds: Iterable[int] = (), writing: Iterable[int] = (), until: float | None = None) -> set[int]:
        """Wait for any fd, a signal, or the time; returns the fds that are ready (or broken)."""
        return wait_for_any([self], self._signals, fds, writing, until)

    def waits_for(self, fds: Iterable[int], writing: Iterable[int], until: float) -> tuple[list[int], list[int], float]:
        """Do what is due; returns what is to be waited for, with what was given."""
        self._beat()
        if self._began:  # conntrack is started first
            self.names.poll()
        self._began = True
        fds, writing = [*fds, *self.names.fds()], [*writing]
        if self.exporter is not None:
            fds, writing, until = self._go_on_exporting(self.exporter, fds, writing, until)
        fds, until = self._go_on_beside(fds, until)
        waits = time.monotonic() < self._source_waits_until
        fds += () if waits else self.source.fds()
        deadline = self.source.deadline()
        if waits:  # whatever it has, also what was read ahead
            deadline = max(self._source_waits_until, deadline or 0.0)
        self.due = min(
            (at for at in (deadline, self._next_beat, self.names.deadline()) if at is not None), default=math.inf
        )
        return fds, writing, min(until, self.due)

    def _go_on_exporting(
        self, exporter: Exporter, fds: list[int], writing: list[int], until: float
    ) -> tuple[list[int], list[int], float]:
        """Send what is due of IPFIX; returns what is to be waited for with it. A recording waits for collectors."""
        exporter.poll(self.table, self.source.clock())
        now = time.monotonic()
        if exporter.behind and not self.source.live:
            self._source_waits_until = max(self._source_waits_until, now + SOURCE_WAITS)
        due = exporter.deadline()
        return [*fds, *exporter.fds()], [*writing, *exporter.writing()], until if due is None else min(until, due)

    @property
    def helps_memory(self) -> str:
        """What makes the table smaller, where memory is short."""
        live = self.source.live
        return "-p tcp or -4, so that conntrack sends fewer flows" if live else "a shorter recording"

    @property
    def refused(self) -> Problem | None:
        """Why the log can't be written where it is wanted: what is started for the log ends then.

        Where another process writes it, only what is for nothing else ends.
        """
        if self.log is None or (self.log.state.holder and not self._headless):
            return None
        return self.log.state.refused

    def _beat(self) -> None:
        """Touch the file that says that the loop goes round; one that can't be touched says that it does not."""
        if self._next_beat is not None and time.monotonic() >= self._next_beat:
            self._next_beat = time.monotonic() + BEAT
            with contextlib.suppress(OSError):
                open(self._heartbeat, "wb").close()

    def take(self, item: Item) -> None:
        if self._recorder:
            self._recorder.take(item, self.intake.status.node)
        if isinstance(item, Trouble) and item.problem is not None and not self.intake.status.began:
            # Without events there are still listings; without a first listing there is nothing.
            fatal = item.part == "listing" or item.problem.code in (NOT_PERMITTED, NOT_FOUND)
            self.problem = item.problem if fatal else self.problem
        rejects, began = self.intake.status.rejects, time.monotonic()
        self.intake.take(item)
        if self.intake.status.began:
            self.problem = None
        if self.alerts is not None:
            self.alerts.hear(item, self.source.clock())
        if isinstance(item, ListingEnded) and item.complete and self.intake.status.facts.get("events") != 0:
            self.source.unannounced(self.table.unannounced)
        if isinstance(item, ListingEnded) and item.complete and self.exporter is not None:
            self.exporter.listed(self.table, item.at)
        if self.source.live and self.intake.status.rejects - rejects > FLOOD:
            now = time.monotonic()
            self._source_waits_until = max(self._source_waits_until, now) + SOURCE_WAITS_SHARE * (now - began)

    def await_names(self, until: float) -> None:
        """Wait for what tells names and has not answered yet, at most until then; the source is not read meanwhile."""
        while self.names.waits() and time.monotonic() < until:
            poll = select.poll()
            for fd in (*self.names.fds(), self._signals.read_fd):
                poll.register(fd, select.POLLIN)
            due = min(until, self.names.deadline() or until)
            if any(fd == self._signals.read_fd for fd, _ in poll.poll(max(0.0, due - time.monotonic()) * 1000)):
                return
            self.names.poll()

    def context(self, lookups: Lookups, site: Site, among: Callable[[], bool] = lambda: False) -> Context:
        """What predicates are to know, on this source's clock; it is not told the time yet. ``among``: see Context."""
        known = self.names.directory
        sockets = self.names.sockets
        lookups = replace(lookups, who=known.who, device=known.device, knows_names=lambda: known.named)
        lookups = replace(lookups, process=sockets.process, knows_processes=sockets.known)
        return Context(lookups, site, epoch=self.epoch, among=among)

    def epoch(self) -> float:
        """What to add to the source's clock for seconds since 1970. A recording's clock says these already."""
        if not self.source.live:
            return 0.0
        epoch = time.time() - self.source.clock()
        if abs(epoch - self._told_epoch) > STEPPED:
            self._told_epoch = epoch
        return self._told_epoch

    def recorded_time(self) -> str | None:
        """Seconds since 1970 for what has no stamp of its own: now, or in a recording the newest time it named."""
        if not self.source.live:
            return f"{self.intake.newest:.6f}" if self.intake.newest else None
        return f"{time.time():.6f}"


def wait_for_any(
    feeds: Sequence[Feed],
    signals: Signals,
    fds: Iterable[int] = (),
    writing: Iterable[int] = (),
    until: float | None = None,
) -> set[int]:
    """Wait for any of the feeds, an fd, a signal, or the time; returns the fds that are ready (or broken)."""
    reading, due = [*fds], math.inf if until is None else until
    for feed in feeds:
        reading, writing, due = feed.waits_for(reading, writing, due)
    poll = select.poll()
    for fd in (*reading, signals.read_fd):
        poll.register(fd, select.POLLIN)
    for fd in writing:
        poll.register(fd, select.POLLOUT)
    timeout = None if due == math.inf else max(0.0, due - time.monotonic()) * 1000
    return {fd for fd, _ in poll.poll(None if timeout is None else int(timeout) + (timeout % 1 > 0))}


class Nodes:
    """What is watched as one table: a machine, several machines, or those that a recording tells of.

    Of a single machine ``table`` and ``context`` are its own.
    """

    def __init__(
        self,
        options: Options,
        source: Source,
        signals: Signals,
        recorder: Recorder | None,
        lookups: Lookups,
        where: Callable[[str], Place],
    ) -> None:
        """``lookups``: what is known of an address, whichever node has seen it. ``where``: see ``Feed``."""
        self.feeds: dict[str, Feed] = {}  # by node
        self.contexts: dict[str, Context] = {}
        self._tables: dict[str, FlowTable] = {}
        self._options, self._source, self._signals = options, source, signals
        self._recorder, self._lookups, self._where = recorder, lookups, where
        self.apart = bool(options.others) or not (source.live or options.node)  # each flow is asked whose it is
        self._tape = deque[TapeLine](maxlen=TAPE) if self.apart else None
        first = self._told = self._add(options, source)  # _told: a recording's next item is of this node
        for other in options.others:
            self._add(other, other.source())
        self.table: AnyTable = first.table
        self.context = self.contexts[options.node]
        if self._tape is not None:
            self.table = FlowTables(self._tables, self._tape)
            self.context = Contexts(self.contexts, lookups, options.site, epoch=first.epoch)

    def _add(self, options: Options, source: Source) -> Feed:
        first = next(iter(self.feeds.values()), None)
        feed = Feed(options, source, self._signals, self._recorder, where=self._where, tape=self._tape, first=first)
        return self._place(options.node, feed)

    def _place(self, name: str, feed: Feed) -> Feed:
        self.feeds[name], self._tables[name] = feed, feed.table
        feed.table.know_node(name)
        self.contexts[name] = feed.context(self._lookups, self._options.site, lambda: len(self.feeds) > 1)
        return feed

    def poll(self) -> Iterator[tuple[Feed, Item]]:
        """What has come, and whose it is. A recording says that, and its end is that of all."""
        if self._source.live:
            for feed in [*self.feeds.values()]:
                for item in feed.source.poll():
                    yield feed, item
            return
        for item in self._source.poll():
            if isinstance(item, OfNode) and self.apart:
                self._told = self._of(item.node)
            for feed in [*self.feeds.values()] if isinstance(item, Ended) else [self._told]:
                yield feed, item

    def _of(self, node: str) -> Feed:
        """The feed of a node; a node that is heard of for the first time gets one."""
        if node in self.feeds:
            return self.feeds[node]
        if list(self.feeds) == [""] and not self.feeds[""].intake.status.began:  # nobody had said whose it is
            for of_nobody in (self._tables, self.contexts):
                of_nobody.clear()
            return self._place(node, self.feeds.pop(""))
        return self._add(replace(self._options, node=node), self._source)

    def tell_facts(self) -> None:
        """How the nodes are doing now goes to the table that stands for all."""
        if isinstance(self.table, FlowTables):
            from health import node_facts

            each = {
                node: node_facts(feed.intake.status, feed.table, feed.source.live, feed.source.clock())
                for node, feed in self.feeds.items()
            }
            self.table.know_facts(each)

    def begin_anew(self, options: Options) -> None:
        """The recording is read anew, with these options: what is known of the tables is forgotten."""
        self._options = options
        if self._tape is not None:
            self._tape.clear()
        for name in [*self.feeds]:
            self._told = self._add(replace(options, node=name), self._source)
        self.table = self.table if self.apart else self._told.table

    def close(self) -> None:
        """Who started us closes the first source."""
        for feed in self.feeds.values():
            feed.close()
            if feed.source is not self._source:
                feed.source.close()


# --- metrics ----------------------------------------------------------------------------------------------------------

METRICS_EVERY = 15.0  # seconds: a fourth of what Prometheus waits between two scrapes by default
SUMS_PATIENCE = 10.0  # seconds that the first write waits for the sums over all flows; those of 262,144 take 10
LOOKS_FOR_TABLE = 0.2  # seconds between two looks whether there is one, until the first file is written
SUMS_SLICE, SUMS_PAUSE = 0.005, 0.02  # seconds at a time, and between: a fifth of the time
SUMMED_AT_ONCE = 100  # flows between two looks at the clock: 0.3 ms


class NodeMetrics:
    """What is measured of a node: its table, and the sums over all of its flows."""

    def __init__(
        self,
        node: str,
        table: FlowTable,
        status: Status,
        clock: Callable[[], float],
        context: Context,
        where: Callable[[str], Place],
        alerts: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        """``node``: its name, where nothing that is read has another one. ``alerts``: how many each rule has fired."""
        from metrics import KernelCounters, Tally

        self._node, self._table, self._status, self._clock = node, table, status, clock
        self._context, self._alerts = context, alerts
        self._tally, self._kernel = Tally(context, where), KernelCounters()

    @property
    def is_listed(self) -> bool:
        """Is there a table?"""
        return self._table.listings > 0

    @property
    def is_read(self) -> bool:
        """Can it be read now?"""
        return self.is_listed and "listing" not in self._status.troubles

    @property
    def has_sums(self) -> bool:
        return self._tally.newest is not None

    def add_up(self, until: float) -> bool:
        """Go on adding up all flows till then; True when that is done."""
        now = self._clock()
        self._context.advance(now, self._table.own, self._table.timeouts)
        while not self._tally.step(self._table, now, SUMMED_AT_ONCE):
            if time.monotonic() >= until:
                return False
        return True

    def measured(self, version: str, stage: Stage, failures: int) -> Measured:
        """What there is to say at that stage."""
        from metrics import Measured

        self._kernel.take(self._status)
        node, sums = self._status.node or self._node, self._tally.newest
        return Measured(
            *(node, version, stage, self._table, self._status, sums, self._kernel.values, self._clock(), failures),
            self._alerts(),
        )


class MetricsFile:
    """The file of ``--metrics``, renewed by the loop: it is never seen half written, and its folder need not be there.

    All flows are added up, a moment in each turn of the loop, so early that they are when the file is to be written.
    Those of several nodes are, one node after the other.
    """

    def __init__(self, plan: MetricsPlan) -> None:
        self.problem: Problem | None = None  # why it was not written last time
        self.failures = 0
        self.written: float | None = None  # when it was written last, on the scale of time.monotonic()
        self._plan = plan
        self._nodes: list[NodeMetrics] = []
        self._due = self._next_turn = 0.0
        self._is_first, self._summed = True, False  # the next write: nothing was tried before; there are sums for it
        self._to_sum: list[NodeMetrics] = []  # nodes whose flows are still to be added up in this round
        self._began = self._takes = 0.0  # when adding up began, and how long it took last time
        self._ours: tuple[int, int] | None = None  # the file as it was left: inode and time of change

    def add(self, node: NodeMetrics) -> None:
        """It is in the file, too."""
        self._nodes.append(node)

    def deadline(self) -> float:
        """When ``poll`` must be called, on the scale of time.monotonic()."""
        return self._next_turn

    def poll(self) -> None:
        """Do what is due."""
        moment = time.monotonic()
        if moment < self._next_turn:
            return
        self._due = self._due or moment  # the first time as soon as there is a table
        listed = [node for node in self._nodes if node.is_listed]
        if listed and not self._summed and (self._to_sum or moment >= self._due - self._takes):
            if not self._to_sum:
                self._began, self._to_sum = moment, listed
            self._summed = self.add_up(moment + SUMS_SLICE)
            self._takes = min(moment - self._began, METRICS_EVERY) if self._summed else self._takes
        patience = 0.0 if not self._is_first or all(node.has_sums for node in self._nodes) else SUMS_PATIENCE
        if moment >= self._due + patience:
            self.write()
            self._due, self._summed, self._is_first = max(self._due + METRICS_EVERY, moment), False, False
        begins = self._due if self._summed else 0.0 if self._to_sum else self._due - self._takes
        self._next_turn = max(begins, time.monotonic() + (SUMS_PAUSE if listed else LOOKS_FOR_TABLE))

    def add_up(self, until: float) -> bool:
        """Go on adding up all flows till then; True when that is done."""
        self._to_sum = self._to_sum or list(self._nodes)
        while self._to_sum[0].add_up(until):
            self._to_sum = self._to_sum[1:]
            if not self._to_sum:
                return True
        return False

    def _text(self, stage: Callable[[NodeMetrics], Stage]) -> str:
        """What is to be written now. ``stage``: what there is to say of a node."""
        from metrics import exposition

        return exposition(*(node.measured(self._plan.version, stage(node), self.failures) for node in self._nodes))

    def write(self) -> None:
        """Write it; what is in the way is kept for people."""
        from metrics import Stage

        self._replace(self._text(lambda node: Stage.READING if node.is_read else Stage.LOST))

    def tell(self, pipe: Pipe) -> None:
        """Write of tables that were read once, where "-" is standard output."""
        from metrics import Stage

        text = self._text(lambda _node: Stage.READING)
        if self._plan.path == "-":
            pipe.write([text])
        else:
            self._replace(text)

    def close(self) -> None:
        """The last word is that nobody looks any more, unless another process writes the file, or none could."""
        from metrics import Stage

        if self.written is not None and self._found() == self._ours:
            self._replace(self._text(lambda _node: Stage.ENDED))

    def state(self, moment: float) -> str:
        """How it is doing, for people; ``moment`` on the scale of time.monotonic()."""
        shown = clean(self._plan.path, 60)
        if self.written is None:
            return f"{shown}: nothing is written yet"
        failed = f"; it could not be written {self.failures}x" if self.failures else ""
        return f"{shown}: written {moment - self.written:.0f} s ago{failed}"

    def _replace(self, text: str) -> None:
        path = self._plan.path
        shown = clean(path, 200)
        found = self._found()
        try:
            replace_file(path, text)
        except OSError as error:
            self.failures += 1
            self.problem = Problem(
                f"metrics are not being written: {error.strerror}: {shown}", _cure_of_file(path, error)
            )
            return
        self.written = time.monotonic()
        self.problem = None
        if self._ours is not None and found not in (None, self._ours):
            self.problem = Problem(f"another process also writes {shown}", "pgrep -af conntrack.monitor")
        self._ours = self._found()

    def _found(self) -> tuple[int, int] | None:
        """The file as it is: inode and time of change; None where there is none."""
        try:
            info = os.stat(self._plan.path)
        except OSError:
            return None
        return info.st_ino, info.st_mtime_ns


def replace_file(path: str, text: str) -> None:
    """Put a new file of mode 0644 in a file's place, so that nobody ever reads a part of it. Raises OSError.

    What is no file (/dev/null, a pipe) is refused: the new file would take its place. The temporary name does not end
    in .prom, so that node_exporter leaves it alone.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(errno.EINVAL, "not a regular file", path)
    beside = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.{os.getpid()}.part")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(beside)  # of a process that was killed
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with open(fd, "w", encoding="utf-8") as file:
            os.fchmod(fd, 0o644)  # whatever the umask is: another user's node_exporter reads it
            file.write(text)
        os.replace(beside, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise


def _cure_of_file(path: str, error: OSError) -> str:
    """The command that helps where a file can't be written."""
    folder = shlex.quote(clean(os.path.dirname(os.path.abspath(path)), 200))
    if isinstance(error, FileNotFoundError):
        return f"mkdir -p {folder}"
    if error.errno == errno.EINVAL or isinstance(error, IsADirectoryError):
        return f"ls -ld {shlex.quote(clean(path, 200))}"
    return f"{'df -h' if error.errno in (errno.ENOSPC, errno.EDQUOT) else 'ls -ld'} {folder}"


# --- pipes ------------------------------------------------------------------------------------------------------------


SAID_AGAIN = 600.0  # seconds
WRITTEN_AT_ONCE = 500  # lines
LAST_LINE, LOOK_AGAIN = 1.0, 0.05  # seconds that a reader has for the rest of a line at the end; between two looks


class Pipe:
    """Standard output for a program, and standard error for the person beside it."""

    def __init__(self, signals: Signals, before: Callable[[], str] = str) -> None:
        """``before``: tells what stands before each message: the node, where there are several."""
        self._signals, self._before = signals, before
        self._said: set[str] = set()
        self._noticed: dict[Hashable, float] = {}  # notices that were said, by their keys: when last
        self._held: set[Hashable] = set()  # those that held when they were asked for last

    def write(self, texts: Iterable[str]) -> None:
        """Write to standard output, all of it, as it is made: 200,000 flows are 108 MB of JSON."""
        made = iter(texts)
        while some := [*islice(made, WRITTEN_AT_ONCE)]:
            self._write("".join(some).encode("utf-8", "replace"))

    def _write(self, text: bytes) -> None:
        """Write some of it; a full disk is an OSError that names it.

        A reader that stalls must not keep us from ending (Python goes on with a write after a signal): a pipe that
        poll calls writable takes PIPE_BUF bytes without blocking. Who reads on gets the line whole that was begun.
        """
        written, end, until = 0, len(text), math.inf
        poll = select.poll()
        poll.register(1, select.POLLOUT)
        poll.register(self._signals.read_fd, select.POLLIN)
        while written < end:
            ready = {fd for fd, _ in poll.poll(None if until == math.inf else LOOK_AGAIN * 1000)}
            ends = self._signals.read_fd in ready and self._signals.ending()
            if time.monotonic() >= until or (ends and until < math.inf):
                break
            if ends:
                begun = written > 0 and text[written - 1 : written] != b"\n"
                end, until = (text.find(b"\n", written) + 1 or end) if begun else written, time.monotonic() + LAST_LINE
            elif 1 in ready:
                written += self._write_some(text[written : min(end, written + select.PIPE_BUF)])
        if until < math.inf:
            raise KeyboardInterrupt

    @staticmethod
    def _write_some(data: bytes) -> int:
        try:
            return os.write(1, data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OSError(error.errno, error.strerror, "standard output") from None

    def has_reader(self) -> bool:
        poll = select.poll()
        poll.register(1, 0)
        return not any(event & select.POLLERR for _, event in poll.poll(0))

    def say_unread(self, status: Status) -> None:
        """What the reader must know and the data can't say, once."""
        self.say_once(status.unread())

    def say(self, text: str) -> None:
        """A line for people."""
        say(self._before() + text)

    def say_once(self, texts: Iterable[str]) -> None:
        for text in texts:
            if text not in self._said:
                self._said.add(text)
                self.say(text)

    def say_notices(self, notices: Iterable[Notice], now: float) -> None:
        """What the screen says in its header. ``now``: of any clock.

        A notice that goes and comes again is said again after SAID_AGAIN seconds at the earliest: a table may be 79
        and 80 % full all day.
        """
        held: set[Hashable] = set()
        for notice in notices:
            held.add(notice.key)
            if self.is_news(notice, now):
                self._noticed[notice.key] = now
                self.say(str(notice))
        self._held = held

    def is_news(self, notice: Notice, now: float) -> bool:
        last = self._noticed.get(notice.key)
        return notice.key not in self._held and (last is None or now - last >= SAID_AGAIN)


class Lateness:
    """Says that events come late, again when it has become twice as late, and when that is over."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe, self._said = pipe, 0.0  # by how much they come late, as said last

    def hear(self, seconds: float) -> None:
        """By so much the events are late that are read now."""
        if seconds >= max(LATE, 2 * self._said):
            self._said = seconds
            self._pipe.say(f"{seconds:.0f} s behind: {BEHIND}")
        elif self._said and seconds < LATE / 2:
            self._said = 0.0
            self._pipe.say("no longer behind")


def open_databases(geoip: GeoIP, plan: Plan) -> None:
    """For a pipe: what is there, opened before the first line is written; how to get the rest is said once."""
    from geography import MISSING, denied_cure

    geoip.open()
    for notice in geoip.notices:
        cure = denied_cure(geoip.denied[notice]) if notice in geoip.denied else ""
        say(f"{notice}; try: {cure}" if cure else notice)
    if not geoip.databases:
        say(f"{MISSING}; try: {plan.command}")


def log_notices(log: FlowLog | None) -> list[tuple[str, str]]:
    """What is wrong with the log, and the command that helps."""
    if log is None:
        return []
    state = log.state
    if state.holder:  # it is kept, and can be asked
        return []
    found = [(problem.what, problem.cure) for problem in (state.refused, state.problem) if problem is not None]
    return found + ([(state.aside, "")] if state.aside else [])


def metrics_notices(file: MetricsFile | None) -> list[tuple[str, str]]:
    """Why metrics are not written, and the command that helps."""
    return [] if file is None or file.problem is None else [(file.problem.what, file.problem.cure)]


def pipe_notices(feed: Feed, is_news: Callable[[Notice], bool] = lambda _: True) -> list[Notice]:
    """What a header would say. Who holds most of a table that is nearly full is looked for where that ``is_news``."""
    from health import Surroundings, fills, notices_of, sampled_shares

    status, table, source = feed.intake.status, feed.table, feed.source
    around = Surroundings(
        before=feed.before,
        log=log_notices(feed.log) if feed.is_first else (),
        export=feed.exporter.notices() if feed.exporter else (),
        metrics=metrics_notices(feed.metrics),
        alerts=feed.alerts.problems() if feed.alerts is not None else (),
    )
    notices = notices_of(status, table, source.live, source.clock(), around)
    if any(fills(notice) and is_news(notice) for notice in notices):
        notices = notices_of(status, table, source.live, source.clock(), around, sampled_shares(table))
    return notices


# --- --who ------------------------------------------------------------------------------------------------------------


def ask(folder: str, question: Question, format: str, called: str) -> int:
    """Say who had an address at a time; returns the exit code. ``called``: the words that start this program."""
    import past

    try:
        answer = past.who(folder, question)
    except (OSError, ImportError) as error:
        return give_up(_no_log(folder, error, called))
    if format == "json":
        for item in past.answer_items(question, answer):
            click.echo(json.dumps(item))
    elif format == "csv":
        for row in past.answer_rows(answer):
            click.echo(export.csv_row([str(cell) for cell in row]), nl=False)
        say(past.completeness(question, answer.extent))
    else:
        click.echo(past.answer_text(question, answer), nl=False)
    return SUCCESS


def answer_search(folder: str, text: str) -> int:
    """Answer what the NAT view asks the log, a ``past.Search`` as JSON; returns the exit code."""
    import past

    try:
        answer = past.search(folder, past.Search(*json.loads(text)))
    except (OSError, ImportError):
        return FAILED
    for flow in answer.flows:
        click.echo(json.dumps(flow._asdict()))
    say(past.extent_text(answer.extent))
    return SUCCESS


LEARNING = 3600.0  # seconds: what a log sees in its first hour was there before it


def tell_known(folder: str) -> int:
    """Print what the log had seen a day ago, for the screen: an object a line; returns the exit code."""
    import past

    now = time.time()
    since, _ = past.known_before(folder, 0.0)
    if since is None:
        return FAILED
    _, keys = past.known_before(folder, max(now - 86_400.0, since + LEARNING))
    click.echo(json.dumps({"since": since}))
    for key in keys:
        click.echo(json.dumps({"key": key}))
    return SUCCESS


# --- --view usage --once ----------------------------------------------------------------------------------------------


class UsageAsked(NamedTuple):
    """What of the log's usage is to be printed."""

    folder: str
    view: ViewName
    since: float  # seconds since 1970
    near: str  # only of this host's flows; "": of all
    sort: str
    reverse: bool
    limit: int | None
    format: str


def print_usage(asked: UsageAsked, called: str) -> int:
    """Say who moved how much; returns the exit code. ``called``: the words that start this program."""
    import past
    from addresses import Context
    from columns import VIEW_BY_NAME, table_text
    from view import in_order

    spec, context = VIEW_BY_NAME[asked.view], Context()
    try:
        found = past.usage(asked.folder, spec.logged, asked.since, time.time(), asked.near)
    except (OSError, ImportError) as error:
        return give_up(_no_log(asked.folder, error, called))
    keys = spec.column(asked.sort).keys(found.rows, context)
    rows = in_order(found.rows, keys, spec.falling(asked.sort, asked.reverse), asked.limit)[: asked.limit]
    if asked.format == "text":
        click.echo(table_text(spec, [*rows, found.total], context), nl=False)
    else:
        for text in export.usage_texts(spec.logged, rows, found.per_day, asked.format):
            click.echo(text, nl=False)
    for remark in found.remarks:
        say(remark)
    return SUCCESS


def _no_log(folder: str, error: OSError | ImportError, called: str) -> Problem:
    from past import NO_SQLITE

    if isinstance(error, ImportError):
        return NO_SQLITE
    cure = f"{called} --headless --log {shlex.quote(clean(folder, 200))}"
    return Problem(f"there is no flow log to read: {clean(folder, 200)}: {error.strerror}", cure)


# --- --once -----------------------------------------------------------------------------------------------------------

# Seconds that a pipe's first lines wait for commands that tell names: docker takes 0.05 s. Nothing on this machine that
# is a file is waited for, and what comes later is in the lines after that.
NAMES_PATIENCE = 0.3
STATISTICS_PATIENCE = 2.0  # seconds that metrics wait for `conntrack -S`, which is asked a second after the start
MOST_JUNK = 10_000  # lines not understood before --once gives up


class Once:
    """``--once``: the table as it is now, as text, JSON or CSV."""

    def __init__(self, options: Options, source: Source, signals: Signals, recorder: Recorder | None = None) -> None:
        self._options = options
        self._signals = signals
        from geoip import GeoIP

        self._geoip = GeoIP(options.plan.paths)
        lookups = Lookups(where=self._geoip.lookup)
        self._nodes = Nodes(options, source, signals, recorder, lookups, NO_LOOKUPS.where)
        self._context, self._pipe = self._nodes.context, Pipe(signals)
        self._feed = next(iter(self._nodes.feeds.values()))  # of the one machine, where there is one
        self._metrics: MetricsFile | None = None
        if options.metrics is not None:
            self._metrics = MetricsFile(options.metrics)
            for node, feed in self._nodes.feeds.items():
                self._metrics.add(feed.measured(self._nodes.contexts[node], self._geoip.lookup))
        self._problem: Problem | None = None  # why there is nothing to print
        self._problems: dict[str, Problem] = {}  # why nothing could be read, by node
        self._listed: dict[str, int] = {}  # complete listings, by node
        self._why_empty = ""  # why there is nothing though there are flows

    def run(self) -> int:
        """Until the table is printed; returns the exit code."""
        with contextlib.closing(self._nodes):
            return self._run()

    def _run(self) -> int:
        job: tuple[Rows, RowsWanted] | None = None
        complete = False
        while not complete and self._problem is None:
            wait_for_any([*self._nodes.feeds.values()], self._signals)
            if self._signals.ending():
                return SUCCESS
            complete = self._read_on()
            if job is None:  # conntrack has been started: now there is time for what takes 20 ms to import
                job = self._job()
            elif self._feed.source.live and not complete and not self._options.sample:
                job[0].look_ahead(job[1], self.table)
        if self._problem is not None:
            return give_up(self._problem)
        assert job
        until = time.monotonic() + NAMES_PATIENCE
        for feed in self._nodes.feeds.values():
            feed.await_names(until)
        open_databases(self._geoip, self._options.plan)
        self.table.advance(self._context, self._newest)
        self._nodes.tell_facts()
        if self._metrics is None:
            self._pipe.write(self._texts(*job))
        elif (problem := self._write_metrics(self._metrics)) is not None:
            return give_up(problem)
        self._say_state()
        return next((problem.code for problem in self._problems.values()), SUCCESS)

    @property
    def _newest(self) -> float:
        """The newest time that the source has named."""
        return max(feed.intake.newest or 0.0 for feed in self._nodes.feeds.values())

    def _write_metrics(self, file: MetricsFile) -> Problem | None:
        """In place of the table; returns why that was impossible."""
        until, feeds = time.monotonic() + STATISTICS_PATIENCE, [*self._nodes.feeds.values()]
        asked = [feed for feed in feeds if feed.source.live and feed.table.node not in self._problems]
        while any(not feed.intake.status.counted for feed in asked) and time.monotonic() < until:
            # its end comes a moment after its answer
            wait_for_any(feeds, self._signals, until=time.monotonic() + 0.02)
            if self._signals.ending():
                raise KeyboardInterrupt
            for feed, item in self._nodes.poll():
                if isinstance(item, Statistics):  # the table is told already
                    feed.take(item)
        while not file.add_up(time.monotonic() + FRAME):
            if self._signals.ending():
                raise KeyboardInterrupt
        file.tell(self._pipe)
        return file.problem

    @property
    def table(self) -> AnyTable:
        return self._nodes.table

    @property
    def helps_memory(self) -> str:
        return "--limit N"  # most of it is text by the time it is printed

    def _read_on(self) -> bool:
        """Take in what is there; True when that is all, or there is a problem."""
        wanted = 2 if self._options.sample else 1
        for feed, item in self._nodes.poll():
            node, status = feed.table.node, feed.intake.status
            if self._listed.get(node, 0) >= wanted:  # as soon as the table is whole
                continue
            feed.take(item)
            if feed.source.live:
                if isinstance(item, ListingEnded) and item.complete:
                    self._listed[node] = self._listed.get(node, 0) + 1
                complete = self._listed.get(node, 0) >= wanted
            else:  # a recording: as it stands at its end
                complete = isinstance(item, Ended)
            problem = feed.problem
            if isinstance(item, Trouble) and item.part == "listing":
                problem = item.problem  # also of one that broke off: nobody waits here for a better one
            if self._is_junk(status, complete):
                problem = status.junk()
            if problem is not None:
                self._problems[node], self._listed[node] = problem, wanted
            if self._is_through(complete or problem is not None, wanted):
                return True
        return False

    def _is_through(self, complete: bool, wanted: int) -> bool:
        """Have all nodes been read? Then what keeps all of them from being read is known, too."""
        feeds = self._nodes.feeds
        if self._feed.source.live:
            complete = sum(listed >= wanted for listed in self._listed.values()) == len(feeds)
        if complete and self._problems and len(self._problems) == len(feeds):
            self._problem = next(iter(self._problems.values()))
        return complete

    def _job(self) -> tuple[Rows, RowsWanted]:
        """What puts the rows into order, and which rows are wanted."""
        from columns import VIEW_BY_NAME, by_view
        from view import Rows, RowsWanted

        options, context = self._options, self._context
        spec = by_view(options.by) if options.by else VIEW_BY_NAME[options.view]
        sort = options.sort or (spec.once if not options.sample else "") or spec.sort
        wanted = RowsWanted(
            *(spec, options.expression, sort, options.reverse),
            closed=spec.translated,  # who it was is mostly asked of what is gone
            predicate=options.wanted(context),
            at_once=True,
            limit=options.limit,
        )
        return Rows(context), wanted

    def _texts(self, rows: Rows, wanted: RowsWanted) -> Iterable[str]:
        from columns import table_text

        spec, context, format = wanted.spec, self._context, self._options.format
        found = rows.all(wanted, self.table)
        if not found:
            self._why_empty = self._reason(spec)
        if format == "text":
            return [table_text(spec, found, context)]
        node = "" if len(self._nodes.feeds) > 1 else self._feed.intake.status.node
        return export.view_texts(spec.grouping, found, format, context, self._moment(), node)

    def _moment(self) -> str | None:
        """What ``Feed.recorded_time`` says of the newest of all."""
        if self._feed.source.live:
            return self._feed.recorded_time()
        return f"{self._newest:.6f}" if self._newest else None

    def _reason(self, spec: ViewSpec) -> str:
        """Why a view that is not of all flows has no row; "" where the table says it itself."""
        if spec.tape and self._feed.source.live:
            return (
                "no events: --once lists the table and does not wait for events; "
                "try: --json for a stream of them, or --view events without --once"
            )
        if spec.tape:
            return "no events: the recording has none, only listings"
        words, cure = spec.empty
        return f"{words}; try: {cure}" if words and len(self.table) and not self._options.expression else ""

    @staticmethod
    def _is_junk(status: Status, complete: bool) -> bool:
        """There were lines, and not one of them was understood: an empty table would be a lie."""
        most = 0 if complete else MOST_JUNK  # some that write no end of it never end
        return not status.understood and status.rejects > most

    def _say_state(self) -> None:
        from view import unwatched

        say_unanswered(self._options)
        history = self._options.view == "nat"
        if reach := unwatched(self._options.expression, self._context, self.table, history):
            say(f"{reach}: earlier flows are unknown")
        for node, feed in self._nodes.feeds.items():
            before = f"{clean(node)}: " if len(self._nodes.feeds) > 1 else ""
            self._say_of_node(feed, Pipe(self._signals, partial(str, before)))
        if self._why_empty:
            say(self._why_empty)
        if self._feed.source.live and not self._options.sample and self._asks_rates():
            say("a single listing has no rates; try: --sample 5")

    def _say_of_node(self, feed: Feed, pipe: Pipe) -> None:
        """What is wrong with a node, or with what was read of it."""
        status = feed.intake.status
        pipe.say_unread(status)
        if self._options.asks_names:
            pipe.say_once(feed.names.problems())
        if not feed.source.live:
            pipe.say_once([f"lost: {status.last_loss}"] if status.losses > status.healed else [])
            return
        if (problem := self._problems.get(feed.table.node)) is not None:
            pipe.say(str(problem))
            return
        if not feed.table.live and not (self._options.protocols or self._options.families):
            pipe.say(f"0 entries: {feed.tracking.what}; try: {cure_there(feed.tracking.cure, feed.before)}")
            return
        from health import OF_A_TABLE

        notices = pipe_notices(feed)
        pipe.say_notices((notice for notice in notices if notice.about in OF_A_TABLE), 0.0)

    def _asks_rates(self) -> bool:
        return self._options.sort in ("rate", "in", "out") or self._options.asks("rate")


# --- --json and --csv -------------------------------------------------------------------------------------------------

HELD = 64 << 20  # bytes of events kept back while the first listing runs


class NodeWatch:
    """A node of a run without a screen: its source, its table, and what is said of it."""

    def __init__(self, feed: Feed, pipe: Pipe) -> None:
        self.feed, self.pipe = feed, pipe
        self.table, self.status = feed.table, feed.intake.status
        self.problem: Problem | None = None  # why nothing could ever be read
        self._next_turn = 0.0  # when it is its turn at the latest

    def is_due(self, ready: Set[int]) -> bool:
        """Is there anything to do? Of ten programs' CPU ten machines take 0.54 to 0.61; without this 0.64."""
        now = time.monotonic()
        if now < min(self._next_turn, self.feed.due) and ready.isdisjoint(self.feed.source.fds()):
            return False
        self._next_turn = now + FRAME
        return True

    def read(self) -> None:
        """Take in what is there, up to what shows that nothing can be read."""
        for item in self.feed.source.poll():
            self.take(item)
            self.problem = self._why_nothing(item)
            if self.problem is not None:
                return

    def _why_nothing(self, _item: Item) -> Problem | None:
        """Why nothing can be read, as it is after an item."""
        return self.feed.problem

    def take(self, item: Item) -> None:
        self.feed.take(item)

    def complain(self) -> None:
        """Say why nothing can be read; others are, and it is tried again."""
        if self.problem is not None:
            self.pipe.say_once([f"{self.problem}; retrying"])

    def tell(self) -> None:
        """Tell what has come, and say what is wrong."""
        raise NotImplementedError

    def end(self) -> None:
        """Tell and say what is left."""
        raise NotImplementedError


class NodeStream(NodeWatch):
    """A node of a stream: also the lines that tell of it."""

    def __init__(
        self,
        options: Options,
        source: Source,
        signals: Signals,
        recorder: Recorder | None,
        where: Callable[[str], Place],
        out: list[str],
        before: Callable[[], str] = str,
        first: Feed | None = None,
    ) -> None:
        """``where``: looks a place up. ``out``: lines of all nodes that are to be written. ``before``: see ``Pipe``.

        ``first``: see ``Feed``.
        """
        feed = Feed(options, source, signals, recorder, self._report, self._gone, where, first=first)
        super().__init__(feed, Pipe(signals, before))
        self._options = options
        self._recorder = recorder
        self._context = self.feed.context(Lookups(where=where), options.site)
        self._wanted = options.wanted(self._context)
        self._writer = export.LineWriter(self._context, options.format)
        self._writer.know_node(self.status.node)
        self._only = options.only
        self._out = out
        self.feed.begin_alerts(self._context, at_once=not source.live)
        self._held: list[Block] | None = [] if source.live else None  # events, till the first listing is through
        self._held_size = 0
        self._left_out = 0  # nodes whose lines are left out, as said last
        self._lateness = Lateness(self.pipe)
        self._next_look = 0.0  # at what is to be said
        self._told_unread = False

    def hear_names(self) -> None:
        if self.feed.names.renewed():
            self._writer.forget_names()
        if self._options.asks_names:
            self.pipe.say_once(self.feed.names.problems())

    def _why_nothing(self, item: Item) -> Problem | None:
        if isinstance(item, ListingEnded | Ended) and not self.status.understood and self.status.rejects:
            return self.status.junk()
        return self.feed.problem

    def tell(self) -> None:
        """Write what has come, and say what is wrong."""
        source = self.feed.source
        self.table.tick(source.clock())
        self.tell_alerts()
        self.flush()
        if source.live and not self._told_unread:  # once, not again with every line; the end tells how many
            self.pipe.say_unread(self.status)
            self._told_unread = bool(self.status.rejects)
        self._say_notices()

    def end(self) -> None:
        """Write and say what is left."""
        self.tell_alerts()
        self.flush()
        self.pipe.say_unread(self.status)
        say_unsaid(self.feed, self.pipe)

    def _take(self, item: Item) -> None:
        self.feed.take(item)
        if isinstance(item, OfNode):
            self._writer.know_node(item.node)
        if isinstance(item, LeftOut) and len(item.lines) > self._left_out:  # with each node, not with each line
            self._left_out = len(item.lines)
            self.pipe.say_unread(self.status)
        if self._recorder and (words := self._recorder.complaint()):
            self.pipe.say(words)

    def tell_alerts(self) -> None:
        """As lines among the others; in CSV, whose columns are a flow's, for the person."""
        for alert in self.feed.fired():
            if self._options.format == "json":
                self._out.append(export.json_line(alert.item(self._context)))
            else:
                self.pipe.say(alert.line)

    def _say_notices(self) -> None:
        """Once a second, when the first listing is through: what a header would say, and no item said already."""
        now = time.monotonic()
        if self._held is not None or not self.feed.source.live or now < self._next_look:
            return
        self._next_look = now + FRAME
        from health import SAID_AS_IT_COMES

        notices = pipe_notices(self.feed, lambda notice: self.pipe.is_news(notice, now))
        self.pipe.say_notices((notice for notice in notices if notice.about not in SAID_AS_IT_COMES), now)

    def take(self, item: Item) -> None:
        """The flows that exist come first: events wait until the first listing is through."""
        if self._held is not None:
            if isinstance(item, Block) and item.events:
                self._held.append(item)
                self._held_size += len(item.data)
                if self._held_size > HELD:  # better out of order than out of memory
                    self._release()
                return
            if isinstance(item, ListingEnded) or (isinstance(item, Trouble) and item.part == "listing"):
                self._take(item)
                self._release()
                return
        if isinstance(item, Behind):
            self._lateness.hear(item.seconds)
        elif isinstance(item, Lost):
            # A storm of losses is one loss until the table has been read anew.
            if not self.feed.source.live:
                self.pipe.say(f"lost: {item.what}")
            elif self.status.healed >= self.status.losses:
                self.pipe.say(f"lost: {item.what}; the table is being reloaded")
        elif isinstance(item, Trouble):
            known = self.status.troubles.get(item.part)
            if item.problem is None and known is not None:
                self.pipe.say(f"{item.part} are back" if item.part == "events" else f"{item.part} is back")
            self._take(item)
            if item.problem is not None and item.problem != known and self.feed.problem is None:
                self.pipe.say(f"{item.part} stopped: {item.problem}; retrying")
            return
        self._take(item)

    def _release(self) -> None:
        """Take in the events that were held back, and hold no more."""
        held, self._held = self._held or [], None
        for block in held:
            self._take(block)

    def _report(self, event: str, flow: Flow, row: Parts, now: float) -> None:
        if self._only and event not in self._only:
            return
        wanted, stamp = self._wanted, row[STAMP]
        if wanted is not None or self.table.own is not self._context.own:
            self._context.advance(now, self.table.own, self.table.timeouts)
        if wanted is None or wanted(flow):
            self._out.append(self._writer.of_row(row, flow, event, None if stamp else self.feed.recorded_time()))
            if len(self._out) >= 500:
                self.flush()

    def _gone(self, flow: Flow) -> None:
        """A flow that is gone without a DESTROY: the reader must hear of it, too."""
        if self._only and "destroy" not in self._only:
            return
        self._context.advance(flow.ended or self._context.now, self.table.own, self.table.timeouts)
        if self._wanted is None or self._wanted(flow):
            self._out.append(self._writer.of_gone(flow, self._ended(flow)))
            if len(self._out) >= 500:
                self.flush()

    def _ended(self, flow: Flow) -> str | None:
        """When it was gone; a recording has said so."""
        return self.feed.recorded_time() if self.feed.source.live or not flow.ended else f"{flow.ended:.6f}"

    def flush(self) -> None:
        self.pipe.write(self._out)
        self._out.clear()


NodeT = TypeVar("NodeT", bound=NodeWatch)


class Several(Generic[NodeT]):
    """A way to run without a screen: with the machines of the command line, or a recording's nodes as they are met."""

    def __init__(self, options: Options, source: Source, signals: Signals, recorder: Recorder | None = None) -> None:
        self._options, self._signals, self._recorder = options, signals, recorder
        self._source = source
        self._mixture = Mixture(source) if isinstance(source, Replay) and source.every else None
        self._nodes: list[NodeT] = []

    def _made(self, node: Options, source: Source, first: Feed | None, before: Callable[[], str]) -> NodeT:
        """A node that is watched. ``first``: see ``Feed``. ``before``: see ``Pipe``."""
        raise NotImplementedError

    def _begin(self) -> None:
        """Begin with the nodes that are known now."""
        if self._mixture is None:
            self._add(self._options, self._source)
            for other in self._options.others:
                self._add(other, other.source())

    def _add(self, node: Options, source: Source) -> None:
        def before() -> str:
            return f"{clean(node.node)}: " if node.node and len(self._nodes) > 1 else ""

        self._nodes.append(self._made(node, source, self._nodes[0].feed if self._nodes else None, before))

    def run(self) -> int:
        """Until there is nothing more to tell, or somebody asks it to end; returns the exit code."""
        with contextlib.ExitStack() as opened:
            for node in self._nodes[1:]:  # who started us closes the first one's source
                opened.callback(node.feed.source.close)
            opened.callback(self._close)
            return self._run()

    def _close(self) -> None:
        with contextlib.ExitStack() as closing:
            for node in reversed(self._nodes):
                closing.callback(node.feed.close)

    def _run(self) -> int:
        turns, began = 0, time.monotonic()
        while not (self._nodes and all(node.status.ended for node in self._nodes)):
            ready = self._wait()
            if self._signals.ending():
                break
            turns += 1
            alone = self._mixture is None and len(self._nodes) == 1
            for node in [node for node in self._nodes if alone or node.is_due(ready)]:
                if node.feed.refused is not None:
                    return give_up(node.feed.refused)
                # Names wait until conntrack has been started.
                self._hear_names(node, began + NAMES_PATIENCE if turns > 1 else began)
                node.read()
                if node.problem is None:
                    node.tell()
                elif self._options.others:
                    node.complain()
            problems = [node.problem for node in self._nodes if node.problem is not None]
            if problems and len(problems) == len(self._nodes):
                return give_up(problems[0])
        for node in self._nodes:
            node.end()
        return SUCCESS

    def _hear_names(self, node: NodeT, until: float) -> None:
        """What tells names may have answered. ``until``: when it is waited for no longer."""

    def _wait(self) -> set[int]:
        """Wait for any node, or for what tells of several; nodes that it tells of for the first time are added."""
        until, fds = time.monotonic() + FRAME, []
        if self._mixture is not None:
            for part in self._mixture.read():
                self._add(replace(self._options, node=part.node), part)
            due = self._mixture.deadline()
            fds, until = self._mixture.fds(), until if due is None else min(until, due)
        return wait_for_any([node.feed for node in self._nodes], self._signals, fds, until=until)

    @property
    def table(self) -> FlowTable:
        """The largest one."""
        return max((node.table for node in self._nodes), key=lambda table: len(table.live), default=FlowTable())

    @property
    def helps_memory(self) -> str:
        return self._nodes[0].feed.helps_memory if self._nodes else "a shorter recording"


class Stream(Several[NodeStream]):
    """``--json`` and ``--csv``: the flows that exist, then every event, a line each; of one node, or of several."""

    def __init__(self, options: Options, source: Source, signals: Signals, recorder: Recorder | None = None) -> None:
        super().__init__(options, source, signals, recorder)
        from geoip import GeoIP

        self._geoip = GeoIP(options.plan.paths)
        self._pipe = Pipe(signals)
        self._out = [export.csv_header()] if options.format == "csv" else []
        self._begin()

    def _made(self, node: Options, source: Source, first: Feed | None, before: Callable[[], str]) -> NodeStream:
        return NodeStream(node, source, self._signals, self._recorder, self._geoip.lookup, self._out, before, first)

    def _run(self) -> int:
        say_unanswered(self._options)
        open_databases(self._geoip, self._options.plan)
        return super()._run()

    def _wait(self) -> set[int]:
        if not self._pipe.has_reader():  # seen on a quiet table, too
            raise BrokenPipeError
        return super()._wait()

    def _hear_names(self, node: NodeStream, until: float) -> None:
        node.feed.await_names(until)
        node.hear_names()


def say_unsaid(feed: Feed, pipe: Pipe) -> None:
    """At the end: what was held back of alerts, and in a recording what else there is to say of them."""
    if feed.alerts is not None:
        problems = [] if feed.source.live else feed.alerts.problems()
        for notice in [*problems, *feed.alerts.unsaid()]:
            pipe.say(str(notice))


# --- --headless -------------------------------------------------------------------------------------------------------

RENEWED_EVERY = 60.0  # seconds between two looks at the databases' files, of 0.01 ms each


def _geoip_of(options: Options) -> GeoIP | None:
    """Databases for metrics and for rules that ask for places; the log's writer has its own."""
    if options.metrics is None and not (options.alerts is not None and options.alerts.asks_places()):
        return None
    from geoip import GeoIP

    return GeoIP(options.plan.paths)


class NodeHeadless(NodeWatch):
    """A node of a run that writes nothing to standard output."""

    def __init__(self, feed: Feed, pipe: Pipe, options: Options, where: Callable[[str], Place]) -> None:
        super().__init__(feed, pipe)
        self._options, self._lateness = options, Lateness(pipe)
        self._next_look = 0.0
        feed.begin_alerts(feed.context(Lookups(where=where), options.site))

    def take(self, item: Item) -> None:
        super().take(item)
        if isinstance(item, Behind):
            self._lateness.hear(item.seconds)

    def tell(self) -> None:
        self.table.tick(self.feed.source.clock())
        self._say_alerts()
        self._say_notices()

    def end(self) -> None:
        self._say_alerts()
        say_unsaid(self.feed, self.pipe)

    def _say_alerts(self) -> None:
        for alert in self.feed.fired():
            self.pipe.say(alert.line)

    def _say_notices(self) -> None:
        now = time.monotonic()
        if now >= self._next_look and self.table.listings:
            self._next_look = now + FRAME
            self.pipe.say_unread(self.status)
            from health import About

            notices = pipe_notices(self.feed, lambda notice: self.pipe.is_news(notice, now))
            self.pipe.say_notices((notice for notice in notices if notice.about is not About.BEHIND), now)


class Headless(Several[NodeHeadless]):
    """``--headless``: log, metrics and IPFIX are written; standard error hears alerts and what is wrong."""

    def __init__(self, options: Options, source: Source, signals: Signals, recorder: Recorder | None = None) -> None:
        super().__init__(options, source, signals, recorder)
        self._geoip = _geoip_of(options)
        self._next_renewal = 0.0
        self._begin()

    def _made(self, node: Options, source: Source, first: Feed | None, before: Callable[[], str]) -> NodeHeadless:
        where = self._geoip.lookup if self._geoip is not None else NO_LOOKUPS.where
        feed = Feed(node, source, self._signals, self._recorder, where=where, first=first)
        return NodeHeadless(feed, Pipe(self._signals, before), node, where)

    def _run(self) -> int:
        if self._geoip is not None:
            open_databases(self._geoip, self._options.plan)
        return super()._run()

    def _wait(self) -> set[int]:
        self._renew_databases()
        return super()._wait()

    def _renew_databases(self) -> None:
        """Where others are there by now, open these: it runs for months, and one takes 0.3 s at most."""
        now = time.monotonic()
        if self._geoip is not None and now >= self._next_renewal:
            self._next_renewal = now + RENEWED_EVERY
            if self._geoip.changed():
                self._geoip.open()
