"""The loop that all ways to run share, and the ways without a screen."""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import shlex
import signal
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import click

import export
from addresses import Context, Lookups, Site
from filters import Predicate, all_of, asks, asks_fans, compile_filter, from_flags
from flows import MAX_LIVE, PAST, SHORTEST_INTERVAL, Flow, FlowTable
from intake import (
    BEHIND,
    FAILED,
    LATE,
    NOT_FOUND,
    NOT_PERMITTED,
    SUCCESS,
    SUDO,
    TRACKING_CURE,
    TRACKING_OFF,
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
    Status,
    Trouble,
    cure_there,
)
from names import Names
from parse import STAMP, Parts
from recording import Recorder
from source import Source, node_of
from text import clean
from vocabulary import ViewName

if TYPE_CHECKING:
    from columns import ViewSpec
    from flowlog import FlowLog, LogPlan
    from geography import Plan
    from geoip import GeoIP
    from health import Notice
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
    via: str
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
    who: str | None
    at: str | None
    since: str | None
    by: str | None
    headless: bool
    names: tuple[str, ...]
    log_writer: str
    log_search: str
    log_first: bool
    geoip_worker: str
    heartbeat: str


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
    since: str = ""  # of usage, as it was typed
    by: str = ""  # the keys of --by
    demo: str = ""  # the words that play the bundled recording
    mouse: bool = True  # clicks and the wheel are ours
    headless: bool = False  # nothing on standard output: the log is what the run is for
    names: Sequence[str] = ()  # where names of hosts are read
    node: str = ""  # this machine's name; "": the one that it has
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


def give_up(problem: Problem) -> int:
    """Say why; returns the exit code."""
    instead = os.environ.get("CONNTRACK_MONITOR_PERMIT")  # an image has no sudo; it says what its container lacks
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
    ) -> None:
        self.source = source
        self._told_epoch = 0.0
        via = source.command.via if source.command else ()
        self.names = Names(options.sources_of_names() if source.live else (), via, options.site)
        self._node = options.node or node_of(via)
        self.log = self._log(options)
        # Two samples of a flow may be a little closer than the listings that they come from.
        shortest = min(SHORTEST_INTERVAL, (options.sample or math.inf) / 2)
        self.table = FlowTable(
            *(options.linger, frozenset(), MAX_LIVE, options.past, on_inferred, shortest),
            on_show=report is None and not options.headless,
            on_closed=self.log.ended if self.log else None,
        )
        lists_again = not options.once or options.sample is not None
        self.intake = Intake(self.table, report, time.time(), lists_again)
        self.problem: Problem | None = None  # why nothing could ever be read
        self._signals = signals
        self._recorder = recorder
        self._began = False  # it has been waited for
        self._heartbeat, self._headless = options.heartbeat, options.headless
        self._source_waits_until = 0.0  # nobody listens to the source till then
        self._next_beat = 0.0 if options.heartbeat else None
        if source.live:  # a recording says itself whose it is
            self.take(OfNode(source.clock(), self._node))

    def _log(self, options: Options) -> FlowLog | None:
        if options.log is None:
            return None
        from flowlog import FlowLog

        setup = options.log.setup(self._node, options.plan.paths, options.site)
        return FlowLog(options.log, setup, self._epoch, self.names.directory)

    def close(self) -> None:
        """Nothing more is to come: the log gets what is there, also of what the kernel has told and nobody has read."""
        self.names.close()
        if self.log is None:
            return
        began = calm = time.monotonic()
        while (now := time.monotonic()) - calm < QUIET and now - began < LAST_LOOK:
            self.wait(until=calm + QUIET)
            for item in self.source.poll():
                self.take(item)
                calm = time.monotonic() if isinstance(item, Block) else calm
        self.log.close(self.table, self.source.clock())

    def wait(self, fds: Iterable[int] = (), writing: Iterable[int] = (), until: float | None = None) -> set[int]:
        """Wait for any fd, a signal, or the time; returns the fds that are ready (or broken)."""
        self._beat()
        if self._began:  # conntrack is started first
            self.names.poll()
        self._began = True
        fds = [*fds, *self.names.fds()]
        if self.log is not None:
            self.log.poll(self.table, self.intake.status, self.source.clock())
            fds = [*fds, *self.log.fds()]
            until = min(self.log.deadline(), math.inf if until is None else until)
        poll = select.poll()
        waits = time.monotonic() < self._source_waits_until
        for fd in (*fds, *(() if waits else self.source.fds()), self._signals.read_fd):
            poll.register(fd, select.POLLIN)
        for fd in writing:
            poll.register(fd, select.POLLOUT)
        deadline = self.source.deadline()
        if waits:  # whatever it has, also what was read ahead
            deadline = max(self._source_waits_until, deadline or 0.0)
        ends = (until, deadline, self._next_beat)
        due = [at for at in (*ends, self.names.deadline()) if at is not None]
        timeout = None if not due else max(0.0, min(due) - time.monotonic()) * 1000
        return {fd for fd, _ in poll.poll(None if timeout is None else int(timeout) + (timeout % 1 > 0))}

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
            self._recorder.take(item)
        if isinstance(item, Trouble) and item.problem is not None and not self.intake.status.began:
            # Without events there are still listings; without a first listing there is nothing.
            fatal = item.part == "listing" or item.problem.code in (NOT_PERMITTED, NOT_FOUND)
            self.problem = item.problem if fatal else self.problem
        rejects, began = self.intake.status.rejects, time.monotonic()
        self.intake.take(item)
        if isinstance(item, ListingEnded) and item.complete and self.intake.status.facts.get("events") != 0:
            self.source.unannounced(self.table.unannounced)
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

    def context(self, lookups: Lookups, site: Site) -> Context:
        """What predicates are to know, on this source's clock; it is not told the time yet."""
        known = self.names.directory
        sockets = self.names.sockets
        lookups = replace(lookups, who=known.who, device=known.device, knows_names=lambda: known.named)
        lookups = replace(lookups, process=sockets.process, knows_processes=sockets.known)
        return Context(lookups, site, epoch=self._epoch)

    def _epoch(self) -> float:
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


# --- pipes ------------------------------------------------------------------------------------------------------------


SAID_AGAIN = 600.0  # seconds


class Pipe:
    """Standard output for a program, and standard error for the person beside it."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals
        self._said: set[str] = set()
        self._noticed: dict[Hashable, float] = {}  # notices that were said, by their keys: when last
        self._held: set[Hashable] = set()  # those that held when they were asked for last

    def write(self, texts: Iterable[str]) -> None:
        """Write to standard output, all of it; a full disk is an OSError that names it.

        A reader that stalls must not keep us from ending (Python goes on with a write after a signal): a pipe that
        poll calls writable takes PIPE_BUF bytes without blocking.
        """
        data = memoryview("".join(texts).encode("utf-8", "replace"))
        poll = select.poll()
        poll.register(1, select.POLLOUT)
        poll.register(self._signals.read_fd, select.POLLIN)
        while data:
            ready = {fd for fd, _ in poll.poll()}
            if self._signals.read_fd in ready and self._signals.ending():
                raise KeyboardInterrupt
            if 1 in ready:
                try:
                    data = data[os.write(1, data[: select.PIPE_BUF]) :]
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

    def say_once(self, texts: Iterable[str]) -> None:
        for text in texts:
            if text not in self._said:
                self._said.add(text)
                say(text)

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
                say(str(notice))
        self._held = held

    def is_news(self, notice: Notice, now: float) -> bool:
        last = self._noticed.get(notice.key)
        return notice.key not in self._held and (last is None or now - last >= SAID_AGAIN)


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


def pipe_notices(feed: Feed, options: Options, is_news: Callable[[Notice], bool] = lambda _: True) -> list[Notice]:
    """What a header would say. Who holds most of a table that is nearly full is looked for where that ``is_news``."""
    from health import Surroundings, fills, notices_of, sampled_shares

    status, table, source = feed.intake.status, feed.table, feed.source
    around = Surroundings(before=options.before, log=log_notices(feed.log))
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
MOST_JUNK = 10_000  # lines not understood before --once gives up


class Once:
    """``--once``: the table as it is now, as text, JSON or CSV."""

    def __init__(self, options: Options, source: Source, signals: Signals, recorder: Recorder | None = None) -> None:
        self._options = options
        self._signals = signals
        self._feed = Feed(options, source, signals, recorder)
        self._table, self._status = self._feed.table, self._feed.intake.status
        self._pipe = Pipe(signals)
        from geoip import GeoIP

        self._geoip = GeoIP(options.plan.paths)
        self._context = self._feed.context(Lookups(where=self._geoip.lookup), options.site)
        self._problem: Problem | None = None  # why there is nothing to print
        self._listings_left = 2 if options.sample else 1
        self._why_empty = ""  # ... though there are flows

    def run(self) -> int:
        """Until the table is printed; returns the exit code."""
        with contextlib.closing(self._feed):
            return self._run()

    def _run(self) -> int:
        job: tuple[Rows, RowsWanted] | None = None
        complete = False
        while not complete and self._problem is None:
            self._feed.wait()
            if self._signals.ending():
                return SUCCESS
            complete = self._read_on()
            if job is None:  # conntrack has been started: now there is time for what takes 20 ms to import
                job = self._job()
            elif self._feed.source.live and not complete and not self._options.sample:
                job[0].look_ahead(job[1], self._table)
        if self._problem is not None:
            return give_up(self._problem)
        assert job
        self._feed.await_names(time.monotonic() + NAMES_PATIENCE)
        open_databases(self._geoip, self._options.plan)
        self._context.advance(self._feed.intake.newest or 0.0, self._table.own, self._table.timeouts)
        self._pipe.write(self._texts(*job))
        self._say_state()
        return SUCCESS

    @property
    def table(self) -> FlowTable:
        return self._table

    @property
    def helps_memory(self) -> str:
        return "--limit N"  # most of it is text by the time it is printed

    def _read_on(self) -> bool:
        """Take in what is there; True when that is all, or there is a problem."""
        source = self._feed.source
        for item in source.poll():
            self._feed.take(item)
            if source.live:  # as soon as the table is whole
                self._listings_left -= isinstance(item, ListingEnded) and item.complete
                complete = self._listings_left == 0
            else:  # a recording: as it stands at its end
                complete = isinstance(item, Ended)
            self._problem = self._feed.problem
            if isinstance(item, Trouble) and item.part == "listing":
                self._problem = item.problem  # also of one that broke off: nobody waits here for a better one
            if self._is_junk(complete):
                self._problem = self._status.junk()
            if complete or self._problem is not None:
                return complete
        return False

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
        found = rows.all(wanted, self._table)
        if not found:
            self._why_empty = self._reason(spec)
        if format == "text":
            return [table_text(spec, found, context)]
        return export.view_texts(spec.grouping, found, format, context, self._feed.recorded_time(), self._status.node)

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
        return f"{words}; try: {cure}" if words and self._table.live and not self._options.expression else ""

    def _is_junk(self, complete: bool) -> bool:
        """There were lines, and not one of them was understood: an empty table would be a lie."""
        most = 0 if complete else MOST_JUNK  # some that write no end of it never end
        return not self._status.understood and self._status.rejects > most

    def _say_state(self) -> None:
        from view import unwatched

        self._pipe.say_unread(self._status)
        say_unanswered(self._options)
        if self._options.asks_names:
            self._pipe.say_once(self._feed.names.problems())
        history = self._options.view == "nat"
        if reach := unwatched(self._options.expression, self._context, self._table, history):
            say(f"{reach}: earlier flows are unknown")
        if not self._feed.source.live and self._status.losses > self._status.healed:
            say(f"lost: {self._status.last_loss}")
        if self._why_empty:
            say(self._why_empty)
        if not self._feed.source.live:
            return
        if not self._table.live and not (self._options.protocols or self._options.families):
            cure = cure_there(TRACKING_CURE, self._options.before)
            say(f"0 entries: {TRACKING_OFF}; try: {cure}")
            return
        from health import OF_A_TABLE

        notices = pipe_notices(self._feed, self._options)
        self._pipe.say_notices((notice for notice in notices if notice.about in OF_A_TABLE), 0.0)
        if not self._options.sample and self._asks_rates():
            say("a single listing has no rates; try: --sample 5")

    def _asks_rates(self) -> bool:
        return self._options.sort in ("rate", "in", "out") or self._options.asks("rate")


# --- --json and --csv -------------------------------------------------------------------------------------------------

HELD = 64 << 20  # bytes of events kept back while the first listing runs


class Stream:
    """``--json`` and ``--csv``: the flows that exist, then every event, a line each."""

    def __init__(self, options: Options, source: Source, signals: Signals, recorder: Recorder | None = None) -> None:
        self._options = options
        self._signals = signals
        self._recorder = recorder
        self._feed = Feed(options, source, signals, recorder, self._report, self._gone)
        self._table, self._status = self._feed.table, self._feed.intake.status
        self._pipe = Pipe(signals)
        from geoip import GeoIP

        self._geoip = GeoIP(options.plan.paths)
        self._context = self._feed.context(Lookups(where=self._geoip.lookup), options.site)
        self._wanted = options.wanted(self._context)
        self._writer = export.LineWriter(self._context, options.format)
        self._writer.know_node(self._status.node)
        self._only = options.only
        self._out: list[str] = [export.csv_header()] if options.format == "csv" else []
        self._held: list[Block] | None = [] if source.live else None  # events, till the first listing is through
        self._held_size = 0
        self._left_out = 0  # nodes whose lines are left out, as said last
        self._said_late = 0.0  # by how much events come late, as said last
        self._next_look = 0.0  # at what is to be said

    def run(self) -> int:
        """Until there is nothing more to tell; returns the exit code."""
        with contextlib.closing(self._feed):
            return self._run()

    def _run(self) -> int:
        say_unanswered(self._options)
        open_databases(self._geoip, self._options.plan)
        source, told, turns, began = self._feed.source, False, 0, time.monotonic()
        while not self._status.ended:
            if not self._pipe.has_reader():  # seen on a quiet table, too
                raise BrokenPipeError
            self._feed.wait(until=time.monotonic() + FRAME)
            if self._signals.ending():
                break
            if self._feed.refused is not None:
                return give_up(self._feed.refused)
            turns += 1
            if turns > 1:  # conntrack has been started
                self._feed.await_names(began + NAMES_PATIENCE)
            if self._feed.names.renewed():
                self._writer.forget_names()
            if self._options.asks_names:
                self._pipe.say_once(self._feed.names.problems())
            for item in source.poll():
                self._take_in_order(item)
                if self._feed.problem is not None:
                    return give_up(self._feed.problem)
                if isinstance(item, ListingEnded | Ended) and not self._status.understood and self._status.rejects:
                    return give_up(self._status.junk())
            self._table.tick(source.clock())
            self._flush()
            if source.live and not told:  # once, not again with every line; the end tells how many
                self._pipe.say_unread(self._status)
                told = bool(self._status.rejects)
            self._say_notices()
        self._flush()
        self._pipe.say_unread(self._status)
        return SUCCESS

    @property
    def table(self) -> FlowTable:
        return self._table

    @property
    def helps_memory(self) -> str:
        return self._feed.helps_memory

    def _take(self, item: Item) -> None:
        self._feed.take(item)
        if isinstance(item, OfNode):
            self._writer.know_node(item.node)
        if isinstance(item, LeftOut) and len(item.lines) > self._left_out:  # with each node, not with each line
            self._left_out = len(item.lines)
            self._pipe.say_unread(self._status)
        if self._recorder and (words := self._recorder.complaint()):
            say(words)

    def _say_notices(self) -> None:
        """Once a second, when the first listing is through: what a header would say, and no item said already."""
        now = time.monotonic()
        if self._held is not None or not self._feed.source.live or now < self._next_look:
            return
        self._next_look = now + FRAME
        from health import SAID_AS_IT_COMES

        notices = pipe_notices(self._feed, self._options, lambda notice: self._pipe.is_news(notice, now))
        self._pipe.say_notices((notice for notice in notices if notice.about not in SAID_AS_IT_COMES), now)

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
                self._take(item)
                self._release()
                return
        if isinstance(item, Behind):
            self._say_late(item.seconds)
        elif isinstance(item, Lost):
            # A storm of losses is one loss until the table has been read anew.
            if not self._feed.source.live:
                say(f"lost: {item.what}")
            elif self._status.healed >= self._status.losses:
                say(f"lost: {item.what}; the table is being reloaded")
        elif isinstance(item, Trouble):
            known = self._status.troubles.get(item.part)
            if item.problem is None and known is not None:
                say(f"{item.part} are back" if item.part == "events" else f"{item.part} is back")
            self._take(item)
            if item.problem is not None and item.problem != known and self._feed.problem is None:
                say(f"{item.part} stopped: {item.problem}; retrying")
            return
        self._take(item)

    def _say_late(self, seconds: float) -> None:
        """Say that events come late, again when it has become twice as late, and when that is over."""
        if seconds >= max(LATE, 2 * self._said_late):
            self._said_late = seconds
            say(f"{seconds:.0f} s behind: {BEHIND}")
        elif self._said_late and seconds < LATE / 2:
            self._said_late = 0.0
            say("no longer behind")

    def _release(self) -> None:
        """Take in the events that were held back, and hold no more."""
        held, self._held = self._held or [], None
        for block in held:
            self._take(block)

    def _report(self, event: str, flow: Flow, row: Parts, now: float) -> None:
        if self._only and event not in self._only:
            return
        wanted, stamp = self._wanted, row[STAMP]
        if wanted is not None or self._table.own is not self._context.own:
            self._context.advance(now, self._table.own, self._table.timeouts)
        if wanted is None or wanted(flow):
            self._out.append(self._writer.of_row(row, flow, event, None if stamp else self._feed.recorded_time()))
            if len(self._out) >= 500:
                self._flush()

    def _gone(self, flow: Flow) -> None:
        """A flow that is gone without a DESTROY: the reader must hear of it, too."""
        if self._only and "destroy" not in self._only:
            return
        self._context.advance(flow.ended or self._context.now, self._table.own, self._table.timeouts)
        if self._wanted is None or self._wanted(flow):
            self._out.append(self._writer.of_gone(flow, self._ended(flow)))
            if len(self._out) >= 500:
                self._flush()

    def _ended(self, flow: Flow) -> str | None:
        """When it was gone; a recording has said so."""
        return self._feed.recorded_time() if self._feed.source.live or not flow.ended else f"{flow.ended:.6f}"

    def _flush(self) -> None:
        out, self._out = self._out, []
        self._pipe.write(out)


# --- --headless -------------------------------------------------------------------------------------------------------


class Headless:
    """``--headless``: the flow log is written, and standard error hears what is wrong."""

    def __init__(self, options: Options, source: Source, signals: Signals, recorder: Recorder | None = None) -> None:
        self._options, self._signals = options, signals
        self._feed = Feed(options, source, signals, recorder)
        self._pipe = Pipe(signals)
        self._next_look = 0.0

    @property
    def table(self) -> FlowTable:
        return self._feed.table

    @property
    def helps_memory(self) -> str:
        return self._feed.helps_memory

    def run(self) -> int:
        """Until somebody asks it to end; returns the exit code."""
        with contextlib.closing(self._feed):
            return self._run()

    def _run(self) -> int:
        feed = self._feed
        while not self._signals.ending():
            feed.wait(until=time.monotonic() + FRAME)
            for item in feed.source.poll():
                feed.take(item)
            if (problem := feed.problem or feed.refused) is not None:
                return give_up(problem)
            feed.table.tick(feed.source.clock())
            self._say_notices()
        return SUCCESS

    def _say_notices(self) -> None:
        now = time.monotonic()
        if now >= self._next_look and self._feed.table.listings:
            self._next_look = now + FRAME
            self._pipe.say_unread(self._feed.intake.status)
            notices = pipe_notices(self._feed, self._options, lambda notice: self._pipe.is_news(notice, now))
            self._pipe.say_notices(notices, now)
