"""The screen: keys and signals in, a frame when it is due."""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import re
import shlex
import shutil
import signal
import time
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from addresses import Context, Lookups, scope
from child import Child, this_program
from columns import VIEW_BY_NAME, ViewSpec
from deletion import Deletion, Phase, Refusal, selection
from export import json_line, usage_texts, view_texts
from filters import asked_moment, compile_filter, expanded, shown_as
from flows import ICMP, TAPE, AnyTable, Flow, FlowTable, Group, LastSeen, Progress
from geography import Geography
from grouping import BETWEEN, Baseline, GroupRow, UsageRow, group_object, logged_keys, row_of, term_of, usage_row
from health import NOTHING_AROUND, SLOW, About, Census, Notice, Surroundings, Survey, by_weight, notices_of
from intake import SUCCESS, Ended, ListingEnded, Problem, Status, together
from keyboard import Mouse, Pasted
from keys import Do, Request, paste, point, press
from names import Resolver
from parse import PROTOCOLS, Kind
from recording import Recorder, Replay
from render import frame
from run import FRAME, Feed, Nodes, Options, Signals, give_up, log_notices, metrics_notices, say, wait_for_any
from screen import Screen, take_keyboard
from source import Command, Source
from text import clean, printable
from view import SPANS, Dialog, LoggedFlows, LoggedUsage, NodeScene, Registered, Scene, View, flow_of, refresh

# --- out of the screen ------------------------------------------------------------------------------------------------

COPIED = 4000  # characters; terminals take at least so many
EXPORTED_AT_ONCE = 200  # rows between two looks at the clock: 6 ms


def export_rows(view: View, name: str, moment: str | None, node: str = "") -> Iterator[str]:
    """Write the rows on show into a new file; it may be left off at each yield. Yields words for people.

    CSV where the name ends so, else JSON lines. A file that is there already is never written over.
    """
    path = os.path.expanduser(name)
    shown = clean(path, 200)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        yield f"not exported: {shown} exists"
        return
    except (OSError, ValueError) as error:  # a name with a NUL
        yield f"not exported: {getattr(error, 'strerror', None) or error}: {shown}"
        return
    spec, usage = view.spec, view.usage
    rows, written = [row for row in view.rows.order if not view.is_part(row)], 0
    try:
        with open(fd, "w", encoding="utf-8", errors="replace") as file:
            format = "csv" if path.lower().endswith(".csv") else "json"
            texts = (
                usage_texts(spec.logged, rows, usage is not None and usage.per_day, format)
                if spec.logged
                else view_texts(spec.grouping, rows, format, view.context, moment, node)
            )
            for text in texts:
                file.write(text)
                written += 1
                if written % EXPORTED_AT_ONCE == 0:
                    yield f"exporting: {written} of {len(rows)}"
    except OSError as error:
        yield f"not exported: {error.strerror}: {shown}"
        return
    rows_word = "row" if len(rows) == 1 else "rows"
    yield f"{len(rows)} {rows_word} exported to {shown}"


def copied(view: View) -> str:
    """The selected row as text: a flow as conntrack prints it, of a sum its JSON; "" where nothing is selected."""
    row = view.selected
    if isinstance(row, GroupRow):
        grouping, who = view.spec.grouping, view.context.who(row.key)
        return printable(json_line(group_object(row, grouping.of(row.key), who))).strip() if grouping else ""
    if isinstance(row, UsageRow):
        return printable("".join(usage_texts(view.spec.logged, [row], per_day=False, format="json"))).strip()
    flow = flow_of(row)
    return "" if flow is None else printable(flow.line())[:COPIED]


def command_for(view: View, command: Command | None) -> str:
    """The `conntrack -D` that would delete exactly the selected flow; "" where none is selected or none does."""
    flow = flow_of(view.selected)
    if flow is None or isinstance(found := selection(flow), Refusal):
        return ""
    via, program = (command.via, command.conntrack) if command else ((), "conntrack")
    return printable(shlex.join([*via, program, "-D", *found.deleting()]))[:COPIED]


def affected_flows(view: View, table: AnyTable, everything: bool, stale: bool = False) -> list[Flow]:
    """The live flows that a key means: those of the selected row, or all that the filter wants (if there is one).

    ``stale``: the header tells of flows that use an old address of this host's.
    """
    row, wanted = view.selected, view.predicate
    if everything:  # without a filter those that the header's notice tells of
        chosen = wanted or (compile_filter("nat:stale", view.context) if stale else None)
        return list(filter(chosen, table.live_flows())) if chosen is not None else []
    if isinstance(row, GroupRow):
        grouping = view.spec.grouping
        if grouping is None:
            return []
        flows = (flow for flow in table.live_flows() if wanted is None or wanted(flow))
        key_of = row_of(grouping.of(row.key), view.context)
        return [flow for flow in flows if key_of(flow) == row.key]
    flow = flow_of(row)
    return [] if flow is None or table.living(flow) is not flow else [flow]


# --- the flow log -----------------------------------------------------------------------------------------------------

NEWS_EVERY, NEWS_SPAN = 600.0, 86_400.0  # seconds
LOG_ASKED_EVERY = 60.0  # seconds between two questions to the log: usage grows by the minute
LONGEST_LOG_ANSWER = 64 << 20  # bytes


class Inquiry:
    """A question to the flow log. Another process looks for the answer: of 30 days it may take a second."""

    def __init__(self) -> None:
        self._child: Child | None = None
        self._answer: list[bytes] = []
        self._size = 0

    def ask(self, words: Sequence[str]) -> None:
        """Ask with these options; an answer that is waited for is given up."""
        self.close()
        self._answer, self._size = [], 0
        with contextlib.suppress(OSError):  # no process to be had: asked again later
            self._child = Child(this_program("--no-config", *words))

    def fds(self) -> list[int]:
        return self._child.fds() if self._child else []

    @property
    def ends(self) -> bool:
        """Has the other process said all, so that its end may be looked for at any time?"""
        return self._child is not None and self._child.out is None

    def poll(self) -> Answered | None:
        """The answer, once it is whole."""
        if (child := self._child) is None:
            return None
        while data := child.read():
            self._answer.append(data)
            self._size += len(data)
            if self._size > LONGEST_LOG_ANSWER:
                child.stop()
        child.read_errors()
        if child.ended() is None:
            return None
        child.stop()
        self._child = None
        items = []
        for line in b"".join(self._answer).splitlines():
            with contextlib.suppress(ValueError):  # a line that was cut when it was killed
                items.append(json.loads(line))
        said = child.stderr.decode("utf-8", "replace").splitlines()
        return Answered(items, [clean(line.partition(": ")[2] or line) for line in said if line.strip()])

    def close(self) -> None:
        if self._child is not None:
            self._child.stop()
            self._child = None


class Whois:
    """What whois(1) says of an address; a child, so that nothing waits for its server."""

    LONGEST, PATIENCE = 65_536, 20.0  # bytes; seconds that a server gets

    def __init__(self, address: str, command: str) -> None:
        """Raises OSError where there is no process to be had."""
        self.address = address
        self._child: Child | None = Child([command, address])
        self._text = b""
        self._until = time.monotonic() + self.PATIENCE

    def fds(self) -> list[int]:
        return self._child.fds() if self._child else []

    def deadline(self) -> float | None:
        """When to look again; None: it has ended. A process that has closed its output may still run for a moment."""
        if self._child is None:
            return None
        return time.monotonic() + 0.02 if self._child.out is None else self._until

    def poll(self) -> Registered | None:
        """What it has said, when that is more than before."""
        child = self._child
        if child is None:
            return None
        before = len(self._text)
        while len(self._text) < self.LONGEST and (data := child.read()):
            self._text += data
        child.read_errors()
        late = time.monotonic() >= self._until
        if late or len(self._text) >= self.LONGEST or child.ended() is not None:
            self._text += b"\n" + child.stderr[:2000] + (b"\ntimed out" if late else b"")
            self.close()
        elif len(self._text) == before:
            return None
        return Registered(self.address, _whois_lines(self._text), asks=self._child is not None)

    def close(self) -> None:
        if self._child is not None:
            self._child.stop()
            self._child = None


def _whois_lines(text: bytes) -> list[str]:
    """What matters of an answer, safe to show: its comments are the server's terms of use."""
    lines = [clean(line, 300) for line in text.decode("utf-8", "replace").splitlines()]
    told = [line for line in lines if not line.startswith(("%", "#"))]
    kept = [line for line, before in zip(told, ["", *told]) if line or before]
    return kept or ["whois printed nothing"]


class Answered(NamedTuple):
    """What the log has answered: objects, and remarks for people."""

    items: list[dict[str, object]]
    remarks: list[str]


def usage_answered(spec: ViewSpec, answered: Answered) -> LoggedUsage:
    """The rows of a view of usage."""
    rows = []
    for item in answered.items:
        with contextlib.suppress(KeyError, TypeError, ValueError, StopIteration):
            rows.append(usage_row(item, spec.logged))
    return LoggedUsage(spec, rows, any("days" in item for item in answered.items), answered.remarks)


def logged_flow(item: dict[str, Any], epoch: float) -> Flow:
    """A flow of the log as one of the table that has ended. Raises KeyError, TypeError and ValueError for what is none.

    ``epoch``: what is to be added to the source's clock for seconds since 1970.
    """
    protocol = str(item["protocol"])
    number = int(protocol[2:]) if re.fullmatch(r"ip\d{1,3}", protocol) else PROTOCOLS[protocol]
    kind = Kind("ipv6" if ":" in item["src"] else "ipv4", protocol, number)
    counters = [item[f"{what}_{way}"] for way in ("original", "reply") for what in ("packets", "bytes")]
    texts = ["", ""]
    if None not in counters:
        texts = [f"packets={counters[at]} bytes={counters[at + 1]} " for at in (0, 2)]
    original = _tuple_text(number, item["src"], item["sport"], item["dst"], item["dport"])
    reply = _tuple_text(number, item["reply_src"], item["reply_sport"], item["reply_dst"], item["reply_dport"])
    key = f"{number} {original}".encode()
    ended, inferred = item["end"] - epoch, item["reason"] != "destroy"
    progress = Progress(exact=bool(item["start_exact"]), ended=ended, inferred=inferred)
    flow = Flow(key, Group(kind, item["state"]), item["start"] - epoch, progress, LastSeen(ended, 0))
    flow.tail = f"{texts[0]}{reply}{texts[1]}mark={int(item['mark'])}".encode()
    return flow


def _tuple_text(number: int, src: str, sport: int | None, dst: str, dport: int | None) -> str:
    if number in ICMP:
        return f"src={src} dst={dst} type=8 code=0 id={sport or dport or 0} "
    if number == GRE_NUMBER:
        return f"src={src} dst={dst} srckey=0x{sport or 0:x} dstkey=0x{dport or 0:x} "
    ports = "" if sport is None else f"sport={sport} dport={dport or 0} "
    return f"src={src} dst={dst} {ports}"


GRE_NUMBER = 47


def flows_answered(filter: str, answered: Answered, epoch: float) -> LoggedFlows:
    """The flows that the NAT view asked for."""
    flows = []
    for item in answered.items:
        with contextlib.suppress(KeyError, TypeError, ValueError):
            flows.append(logged_flow(item, epoch))
    return LoggedFlows(filter, flows, "; ".join(answered.remarks) or "the log did not answer")


# --- the loop ---------------------------------------------------------------------------------------------------------

# A census counts 1,000 flows in 3 ms; 200,000 take 200 steps. It begins when the table is half full. A person who looks
# at the panel gets it four times as fast, for a quarter of a core.
CENSUS_STEP, CENSUS_STEP_WATCHED, CENSUS_REST, CROWDED = 0.035, 0.009, 30.0, 0.5
# It takes 1/100 of the time: who fills a small table is 2 s old at most, and of 262,144 flows 30 s.
CENSUS_SHARE, CENSUS_LEAST_REST = 100.0, 2.0
# What the tuples of all flows tell is looked for at 1/100 of the time, too; at once when this host's addresses change.
SURVEY_REST, SURVEY_STEP = 5.0, 0.025
QUICK = 0.02  # seconds between frames while keys are pressed

# Ordering the rows takes 1/100 of the processor's time: one key in a hundred at most has to wait for it. Counters
# change only with a listing, every 10 s, so that it need not be rarer. Time on the wall would put it off most where the
# machine is slow: with a tenth of a CPU the rows of a table that was empty stayed for 10 s.
ORDERING_SHARE, ORDERED_EVERY = 100, 10.0
ORDERING_REST = 4  # ... and a fifth of it at most: 600,000 flows of 30 machines take 5 s

# Seconds that ordering goes on before keys have their turn; before anything less than a page of what is wished for is
# on show (with the frame that is 60 ms after the key); between looks at how far it is.
SLICE, FIRST_SLICE, PROGRESS = 0.004, 0.038, 0.2
SEEK = 10.0  # seconds that { and } go in a recording
SPEED = {Do.LIST_MORE_OFTEN: 2.0, Do.LIST_LESS_OFTEN: 0.5}
NO_WAY_BACK = "Can't go back: this recording has no times or comes from a pipe"
SIFTED = 0.4  # seconds between frames when what a filter wants has arrived
# Python's own search for objects in cycles took 0.1 s among 200,000 sort keys, and 0.26 s among all flows. The program
# makes no cycles as it goes on, as far as anybody has seen: they are looked for once an hour, when no key has come.
TIDIED_EVERY, UNTOUCHED = 3600.0, 60.0


class Watched:
    """A node on the screen: its feed, and what is counted of its table beside the rows."""

    def __init__(self, name: str, feed: Feed, context: Context) -> None:
        """``context``: the node's own."""
        self.name, self.feed, self.context = name, feed, context
        self.table, self.status = feed.table, feed.intake.status
        self.census, self.next_census = Census(), 0.0
        self._census_cost = 0.0  # seconds that the present count has taken
        self._census_watched = False  # the panel of the table's health is on show
        self.survey, self.next_survey = Survey(context), 0.0
        self._survey_cost = 0.0  # seconds that the present survey has taken
        self._surveyed_own = context.own  # the machine's addresses when it began

    @property
    def is_listed(self) -> bool:
        """Is there a whole table to look at?"""
        return self.table.listings > 0 or not (self.feed.source.live or self.table.listing)

    def wants_census(self, watched: bool) -> bool:
        """Is it asked for who fills the table, or about to matter, and is there a whole table to count?"""
        facts = self.status.facts
        crowded = facts.get("count", 0) > facts.get("max", 0) * CROWDED
        return self.is_listed and (crowded or watched)

    def due(self, watched: bool) -> float:
        """When ``count`` or ``look`` have something to do. ``watched``: the panel of its health is on show."""
        now = time.monotonic()
        census = max(self.next_census, now) if self.wants_census(watched) else math.inf
        return min(census, max(self.next_survey, now)) if self.is_listed else census

    def count(self, watched: bool) -> bool:
        """Count on who fills the table; True when a count is through."""
        before, now = self._census_watched, time.monotonic()
        wanted = self.wants_census(watched)
        self._census_watched = watched
        if not wanted or (watched and not before):  # the last count may be of an hour ago
            self.census.begin_anew()
            self.next_census = 0.0
        if not wanted or now < self.next_census:
            return False
        done = self.census.step(self.table, now=self.feed.source.clock())
        self._census_cost += time.monotonic() - now
        rest = FRAME if watched else min(CENSUS_REST, max(CENSUS_LEAST_REST, CENSUS_SHARE * self._census_cost))
        self.next_census = now + (rest if done else CENSUS_STEP_WATCHED if watched else CENSUS_STEP)
        self._census_cost = 0.0 if done else self._census_cost
        return done

    def look(self, watched: bool) -> bool:
        """Go on with looking for what the tuples of all flows tell; True when a round is through."""
        now, own = time.monotonic(), self.context.own
        if own is not self._surveyed_own:
            self._surveyed_own, self.next_survey = own, 0.0
        if now < self.next_survey or not self.is_listed:
            return False
        done = self.survey.step(self.table, self.feed.source.clock())
        self._survey_cost += time.monotonic() - now
        rest = FRAME if watched else max(SURVEY_REST, CENSUS_SHARE * self._survey_cost)
        self.next_survey = now + (rest if done else SURVEY_STEP)
        self._survey_cost = 0.0 if done else self._survey_cost
        return done

    def around(self, around: Surroundings) -> Surroundings:
        """What is around all nodes, and around this one."""
        feed = self.feed
        return around._replace(
            export=feed.exporter.notices() if feed.exporter else (),
            exported=feed.exporter.states() if feed.exporter else (),
            names=feed.names.state(),
            before=feed.before,
            findings=self.survey.newest,
            alerts=feed.alerts.notices(feed.source.clock()) if feed.alerts is not None else (),
        )

    def notices(self, around: Surroundings) -> list[Notice]:
        source = self.feed.source
        return notices_of(self.status, self.table, source.live, source.clock(), around, self.census.so_far)


class Live:
    """The screen."""

    def __init__(self, options: Options, source: Source, signals: Signals, recorder: Recorder | None = None) -> None:
        take_keyboard()  # before the screen looks for it
        self.options = options
        self.source = source
        self.signals = signals
        self.recorder = recorder
        self.geography, self.resolver = Geography(options.plan), Resolver()
        lookups = Lookups(self.geography.where, self.geography.detail, self.geography.coordinates, self._name)
        self.nodes = Nodes(options, source, signals, recorder, lookups, self.geography.lookup)
        self.table = self.nodes.table
        self.watched: dict[str, Watched] = {}  # by node
        if "dns" in options.names:
            self.resolver.switch(True)
        self.view = self._first_view()
        self._watch_nodes()
        self.screen = Screen(options.colour, os.environ, options.mouse)
        self.next_frame = 0.0
        self.last_frame = 0.0
        self.next_tidying = time.monotonic() + TIDIED_EVERY
        self.last_key = 0.0
        self.ordering = 0.0  # seconds that the present order of the rows has taken so far
        self.ordering_cost = 0.0  # ... and of processor time
        self.ordered_resyncs = 0  # losses that had been made good when the rows on show were taken from the table
        self.aside: frozenset[Hashable] = frozenset()  # notices that were put aside, by their keys
        self.deletion: Deletion | None = None
        self.deletes_on = ""  # the node whose entries are deleted
        self.exporting: Iterator[str] | None = None
        self.put_off = False  # it needs places that were not looked up yet
        self.sifted = 0  # events that were looked at for what the filter wants
        self.quits = False  # somebody at the keyboard wants the end
        self.inquiry = Inquiry()
        self.asked: tuple[str, ...] = ()  # what the log was asked last
        self.asked_for = self.view.spec, ""  # ... for this view and this filter
        self.next_question = 0.0
        self.news, self.next_news = Inquiry(), 0.0
        self.whois: Whois | None = None

    def _first_view(self) -> View:
        options, context = self.options, self.nodes.context
        spec = VIEW_BY_NAME[options.view]
        view = View(context, options.base(context), sort=options.sort or "", reverse=options.reverse, spec=spec)
        view.set_filter(options.expression)
        view.span = options.since or view.span
        return view

    def _watch_nodes(self) -> None:
        """Watch the nodes that have come, each by the settings' rules, too.

        Places are looked up within a budget, and are not known before the databases are open.
        """
        geography, nodes = self.geography, self.nodes
        for name in [name for name in self.watched if name not in nodes.feeds]:
            del self.watched[name]
        for name, feed in nodes.feeds.items():
            if name not in self.watched:
                context = nodes.contexts[name]
                self.watched[name] = Watched(name, feed, context)
                feed.begin_alerts(
                    context, False, geography.begin_frame, lambda: geography.short or not geography.opened
                )
        self.view.set_filter(self.view.filter)  # it asks each node's own addresses

    def _name(self, address: str) -> str | None:
        """What stands in place of an address where key N has been pressed: who is known is not asked for."""
        if not self.resolver.on:
            return None
        labels = (feed.names.directory.label(address) for feed in self.nodes.feeds.values())
        return next(filter(None, labels), None) or self.resolver.name(address)

    @property
    def feeds(self) -> list[Feed]:
        return [*self.nodes.feeds.values()]

    @property
    def problem(self) -> Problem | None:
        """Why nothing could ever be read: of several nodes why none of them could be."""
        problems = [feed.problem for feed in self.feeds]
        return problems[0] if None not in problems else None

    @property
    def resyncs(self) -> int:
        """Losses that were made good."""
        return sum(each.status.resyncs for each in self.watched.values())

    @property
    def status(self) -> Status:
        """The status of the one node; of several what holds for all."""
        statuses = [each.status for each in self.watched.values()]
        return statuses[0] if len(statuses) == 1 else together(statuses)

    def run(self) -> int:
        """Until somebody quits; returns the exit code."""
        try:
            gc.disable()
            self.screen.enter()
            while not self._turn():
                self._tidy()
        finally:
            gc.freeze()  # the end would look for cycles among all flows: 0.25 s
            gc.enable()
            self.screen.close()
            self.nodes.close()
            self.inquiry.close()
            self.news.close()
            if self.whois:
                self.whois.close()
            if self.deletion:
                self.deletion.close()
            self.geography.close()
            self.resolver.close()
        if self.quits and self.options.starts_again:
            say(self.options.starts_again)
        return SUCCESS if self.problem is None else give_up(self.problem)

    @property
    def helps_memory(self) -> str:
        return self.feeds[0].helps_memory

    def _wait(self, keyboard: int | None) -> set[int]:
        """Wait until there is anything to do; the fds that are ready."""
        writing = [self.screen.out_fd] if self.screen.pending else []
        reading = [*([] if keyboard is None else [keyboard]), *self.geography.fds(), *self.resolver.fds()]
        reading += [*self.inquiry.fds(), *self.news.fds()]
        until = self.geography.deadline() if writing else min(self.next_frame, self.geography.deadline())
        until = min(until, self.resolver.deadline() or until, self.screen.keys_due or until)
        if self.deletion:
            reading += self.deletion.fds()
            until = min(until, self.deletion.deadline() or until)
        if self.whois:
            reading += self.whois.fds()
            until = min(until, self.whois.deadline() or until)
        if self.inquiry.ends or self.news.ends:
            until = min(until, time.monotonic() + 0.02)
        until = min(until, *(each.due(self._is_shown(each)) for each in self.watched.values()))
        if self.screen.more_keys or self.exporting is not None or (self.view.rows.working and not writing):
            until = time.monotonic()
        return wait_for_any(self.feeds, self.signals, reading, writing, until)

    def _turn(self) -> bool:
        """Once round the loop; True when it is time to go."""
        keyboard = self.screen.key_fd()
        ready = self._wait(keyboard)
        if self._take_signals() or self.screen.hung_up:
            return True
        if (keyboard in ready or self.screen.more_keys or self._key_is_due()) and self._take_keys():
            return True
        resyncs = self.resyncs
        for feed, item in self.nodes.poll():
            if self.watched.keys() != self.nodes.feeds.keys():
                self._watch_nodes()
            feed.take(item)
            if isinstance(item, Ended) and isinstance(self.source, Replay) and self.source.playback() is not None:
                self.view.message = "The recording has ended; { goes back 10 s, q quits"
            if feed.problem is not None and self.problem is not None:
                return True
            if self.table.events - self.sifted > TAPE // 4:  # the tape would lose what nobody has looked at
                self._sift()
            if isinstance(item, ListingEnded) and (feed.table.listings <= 1 or self.resyncs > resyncs):
                self._soon()
            elif isinstance(item, ListingEnded) and self.view.predicate is not None:
                self.view.rows.expire()  # counters, and what no event told of, may be what the filter wants
        for feed in self.feeds:
            feed.table.tick(self._now())
        self._sift()
        self._go_on_beside()
        if self.screen.pending:
            self.screen.flush()
            self.next_frame = max(self.next_frame, time.monotonic())  # the viewer is late, not we
        else:
            if self.view.rows.working or time.monotonic() >= self.next_frame:
                self._order()
            if time.monotonic() >= self.next_frame:
                self._draw()
        return self.screen.hung_up

    def _tidy(self) -> None:
        """Look for objects in cycles, if that is due and nobody waits."""
        now = time.monotonic()
        if now >= self.next_tidying and now - self.last_key >= UNTOUCHED and not self.view.rows.working:
            self.next_tidying = now + TIDIED_EVERY
            gc.collect()

    def _go_on_beside(self) -> None:
        """Do what is due of all that goes on beside the table."""
        if self.last_frame:  # the first screen comes first
            self.geography.poll()
            if self.geography.renewed():
                self._soon()
                for feed in self.feeds:
                    if feed.alerts is not None:
                        feed.alerts.relearn()
        if self.exporting is not None:
            self._export()
        self.resolver.poll()
        # Rows that are sorted by a name wait for their next turn: sorting 200,000 at each change would cost too much.
        if self.resolver.renewed() | (True in [feed.names.renewed() for feed in self.feeds]):
            self._frame_after(PROGRESS)
        if self.deletion and self.deletion.poll():
            self._tell_deletion(self.deletion)
        if self.whois and (known := self.whois.poll()) is not None:
            self.view.whois = known
            self._frame_after(QUICK)
        if [alert for feed in self.feeds for alert in feed.fired()]:  # the header has a place for them
            self._frame_after(QUICK)
        for each in self.watched.values():
            if each.count(self._is_shown(each)):
                self._frame_after(QUICK)
            if each.look(self._is_shown(each)):
                self._frame_after(FRAME)
        self._inquire()

    def _key_is_due(self) -> bool:
        """Has the rest of a sequence been waited for long enough?"""
        return self.screen.keys_due is not None and time.monotonic() >= self.screen.keys_due

    def _now(self) -> float:
        return self.source.clock()

    def _soon(self) -> None:
        """A frame as soon as the last one has been on show for a moment."""
        self.view.rows.expire()
        self._frame_after(QUICK)

    def _frame_after(self, seconds: float) -> None:
        """A frame when the last one has been on show for so long."""
        self.next_frame = min(self.next_frame, self.last_frame + seconds)

    def _draw(self) -> None:
        self.last_frame = time.monotonic()
        late = self.last_frame - self.next_frame if self.next_frame else 0.0  # there is no frame before the first
        self.next_frame = self.last_frame + FRAME
        width, height = self.screen.size()
        if width <= 0 or height <= 0:
            return
        around = self._surroundings(time.time())
        told = self._notices(around)
        self.aside &= {notice.key for notice in told}  # what has gone may come again
        focus = self._scene_of(self._focus(), around._replace(aside=self.aside))
        self.nodes.tell_facts()
        scene = Scene(
            *(self.view, self.table, self.status, self._called(), self.source.live, self.screen.glyphs),
            *(focus.shares, focus.around, late),
            told=told,
            focus=focus,
        )
        drawn = frame(scene, width, height)
        self.view.drawn(drawn)
        self.screen.draw(drawn.lines, width, height)
        if self.put_off and not self.view.rows.working:
            self.put_off = False
            self._soon()

    def _scene_of(self, its: Watched, around: Surroundings) -> NodeScene:
        term = term_of("node", its.name) if len(self.watched) > 1 else ""
        return NodeScene(its.name, term, its.status, its.table, its.census.so_far, its.around(around))

    def _called(self) -> str:
        """What is watched, for the header: of several machines their names."""
        return " ".join(self.watched) if len(self.watched) > 1 and self.source.live else self.source.name

    def _focus(self) -> Watched:
        """The node whose health is asked for: that of the selected row, else the first that is in trouble."""
        row, every = self.view.selected, self.watched
        grouping = self.view.spec.grouping
        if isinstance(row, GroupRow) and grouping is not None and grouping.is_of_nodes:
            node = row.key.partition(BETWEEN)[0]
        else:
            node = flow.node if (flow := flow_of(row)) is not None else ""
        stale = (each for each in every.values() if each.status.troubles)
        return every.get(node) or next(stale, next(iter(every.values())))

    def _is_shown(self, each: Watched) -> bool:
        """Is the panel of its table's health on show?"""
        return self.view.overlay == "health" and each is self._focus()

    def _surroundings(self, now: float) -> Surroundings:
        """What is around all nodes. ``now`` in seconds since 1970."""
        log, metrics = self.feeds[0].log, self.feeds[0].metrics  # that of all nodes
        return Surroundings(
            log=log_notices(log),
            logged=log.state.text() if log is not None else "",
            metrics=metrics_notices(metrics),
            measured="" if metrics is None else metrics.state(time.monotonic()),
            settings=self.options.settings_problem,
            recording=self.recorder.stopped if self.recorder else "",
            attached=bool(self.options.heartbeat),
            records=self.recorder is not None and not self.recorder.stopped,
            geography=self.geography.notices() + self.resolver.notices(),
            attributions=self.geography.attributions(),
            databases=self.geography.databases(now),
            playback=self.source.playback() if isinstance(self.source, Replay) else None,
            demo=self.options.demo,
            tracking=self.options.tracking,
        )

    def _notices(self, around: Surroundings) -> list[Notice]:
        """All that is wrong, the heaviest first; where there are several nodes, each says whose it is."""
        every = [*self.watched.values()]
        if len(every) == 1:
            return every[0].notices(every[0].around(around))
        of_all = notices_of(Status(), FlowTable(), self.source.live, self._now(), around)
        of_each = [notice.of(each.name) for each in every for notice in self._of_node(each)]
        return by_weight([*of_each, *of_all])

    def _of_node(self, its: Watched) -> list[Notice]:
        """Its notices. Listings of several machines share the time of one, so that each of them may take longer."""
        notices, since = its.notices(its.around(NOTHING_AROUND)), its.status.listing_since
        waits = since is not None and self._now() - since < SLOW * len(self.watched)
        return [notice for notice in notices if notice.about is not About.LATE_LISTING or not waits]

    def _put_aside(self) -> None:
        """The notice on show leaves the header until it changes; where none is left, all come back."""
        shown = [notice for notice in self._notices(self._surroundings(time.time())) if notice.key not in self.aside]
        if shown:
            self.aside |= {shown[0].key}
            self.view.message = f"Hidden until it changes: {shown[0].text}"
        else:
            self.view.message = "Notices are shown again" if self.aside else "There is no notice to hide"
            self.aside = frozenset()

    def _order(self) -> None:
        """Put the rows into order if that is due, or go on with it for a moment."""
        self.geography.begin_frame()
        view, rows, began, spent_before = self.view, self.view.rows, time.monotonic(), time.process_time()

        def enough() -> bool:
            spent = time.monotonic() - began
            page = rows.found >= view.page or not rows.unwanted
            return spent > SLICE and (page or self.ordering + spent > FIRST_SLICE)

        if not rows.working:
            self.ordered_resyncs = self.resyncs
        self.nodes.tell_facts()
        if not refresh(view, self.table, self._now(), enough):
            return
        self.ordering += time.monotonic() - began
        self.ordering_cost += time.process_time() - spent_before
        self.put_off = self.put_off or self.geography.short
        if rows.working:
            if rows.unwanted:
                self._frame_after(PROGRESS)
            return
        if not rows.ordered:
            return
        if self.ordered_resyncs == self.resyncs:
            rest = min(ORDERING_SHARE * self.ordering_cost, ORDERED_EVERY)
            rows.keep_until(view.context.now + max(rest, ORDERING_REST * self.ordering_cost))
        else:  # a loss was made good meanwhile: these rows are still those that were wrong
            self._soon()
        if self.ordering > SLICE:  # what was on show meanwhile is not what was wished for
            self._frame_after(QUICK)
        self.ordering = self.ordering_cost = 0.0

    def _sift(self) -> None:
        """What has arrived and is what the filter wants is on show soon, whatever the order of all rows costs."""
        self.geography.begin_frame()
        self.sifted = self.table.events
        if self.view.rows.hear(self.table):
            self._frame_after(SIFTED)
        self.put_off = self.put_off or self.geography.short

    def _take_signals(self) -> bool:
        for number in self.signals.waiting():
            if number in Signals.ENDING:
                self.quits = number == signal.SIGINT  # Ctrl+C; SIGTERM is docker stop's
                return True
            if number == signal.SIGTSTP:
                self.screen.leave()
                self.signals.stop_here()
                self.screen.enter()
            elif number in (signal.SIGWINCH, signal.SIGCONT):
                self.screen.repaint()
            self.next_frame = max(self.next_frame, time.monotonic())  # we may have been stopped for hours
            self._soon()
        return False

    def _take_keys(self) -> bool:
        """Press the keys that wait; True when one of them quits."""
        self.last_key = time.monotonic()
        for key in self.screen.read_keys():
            if isinstance(key, Pasted):
                paste(self.view, key.text)
                continue
            if isinstance(key, Mouse):
                request = point(self.view, self.table, key)
            else:
                request = press(self.view, self.table, key)
            if request.do is Do.QUIT:
                self.quits = True
                return True
            self._serve(request)
            self._hold_recording()
        self._frame_after(QUICK)
        return False

    def _serve(self, request: Request) -> None:
        """Do what a key asks for outside of the view."""
        view, do = self.view, request.do
        if do is Do.REDRAW:
            self.screen.repaint()
            self._list_now()
        elif do in (Do.DELETE, Do.DELETE_ALL):
            self._ask_to_delete(everything=do is Do.DELETE_ALL)
        elif do in (Do.ANSWER, Do.STOP):
            self._answer(request.text)
        elif do is Do.SWITCH_NAMES:
            view.message = self.resolver.switch(not self.resolver.on)
        elif do in (Do.COPY_ROW, Do.COPY_COMMAND):
            self._copy(copied(view) if do is Do.COPY_ROW else command_for(view, self._focus().feed.source.command))
        elif do is Do.WHOIS:
            self._ask_whois_of(request.text)
        elif do is Do.PUT_ASIDE:
            self._put_aside()
        elif do is Do.EXPORT:
            moment, node = self.feeds[0].recorded_time(), self.status.node
            self.exporting = export_rows(view, request.text, moment, node)
        elif do in (Do.LIST_MORE_OFTEN, Do.LIST_LESS_OFTEN) and view.spec.logged:
            at = SPANS.index(view.span) if view.span in SPANS else 0
            view.span = SPANS[max(0, min(at + (1 if do is Do.LIST_MORE_OFTEN else -1), len(SPANS) - 1))]
        elif do in (Do.SEEK_BACK, Do.SEEK_ON, Do.STEP) or (do in SPEED and not self.source.live):
            self._move_in_recording(do)
        elif do in (Do.LIST_MORE_OFTEN, Do.LIST_LESS_OFTEN):
            factor = 0.5 if do is Do.LIST_MORE_OFTEN else 2.0
            [seconds, *_] = [feed.source.pace(factor) for feed in self.feeds]
            view.message = f"Refreshing every {seconds:g} s"

    def _move_in_recording(self, do: Do) -> None:
        """Go back or on in it, by a step, or play it faster or slower."""
        view, source = self.view, self.source
        if not isinstance(source, Replay) or source.playback() is None:
            view.message = "These keys work only in a recording" if source.live else NO_WAY_BACK
            return
        if do is Do.STEP:
            source.step()
        elif do in SPEED:
            view.message = f"Playing at {source.set_speed(SPEED[do]):g} times the recorded speed"
        elif source.seek(SEEK if do is Do.SEEK_ON else -SEEK):
            self._begin_anew()
        self._soon()

    def _begin_anew(self) -> None:
        """The recording is read anew, up to a moment before this one: what is known of the table is forgotten."""
        view = self.view
        if self.options.ipfix is not None:
            lost = [text for feed in self.feeds for text in feed.stop_exporting()]
            self.options = replace(self.options, ipfix=None)
            view.message = "IPFIX has stopped: going back would send everything twice"
            view.message += "".join(f"; {text}" for text in lost)
        self.nodes.begin_anew(self.options)
        self.table, self.sifted = self.nodes.table, 0
        self.watched.clear()
        self._watch_nodes()
        view.drop_selection()
        view.overlay, view.pause = "", None
        view.rows.clear()

    def _hold_recording(self) -> None:
        """In a recording that can be moved in, a pause holds the recording itself: nothing piles up behind it."""
        source, view = self.source, self.view
        if view.pause is None or not isinstance(source, Replay) or self.status.ended:
            return
        if (played := source.playback()) is not None:
            source.hold(not played.held)
            view.pause = None

    def _ask_whois_of(self, address: str) -> None:
        view, command = self.view, shutil.which("whois")
        if (kind := scope(address)) != "public":
            view.message = f"{address} is {kind}: whois covers only public addresses"
            return
        if self.whois:
            self.whois.close()
            self.whois = None
        if command is None:
            view.message = "whois is not installed; try: apt install whois"
            return
        try:
            self.whois = Whois(address, command)
        except OSError as error:
            view.message = f"whois can't be run: {error.strerror}"
            return
        view.whois, view.overlay, view.scroll = Registered(address, [f"whois {address}"], asks=True), "whois", 0

    def _copy(self, text: str) -> None:
        """The selected row, or the command that deletes it, goes to the terminal's clipboard."""
        if text:
            self.screen.copy(text)
        missing = (
            "No row is selected" if self.view.selected is None else "Select a single flow first (Enter lists them)"
        )
        self.view.message = "Copied (if your terminal allows OSC 52)" if text else missing

    def _ask_to_delete(self, everything: bool) -> None:
        """Ask how many entries the command matches; nothing is deleted before that was answered."""
        view = self.view
        if not self.options.allow_delete or not self.source.live:
            off = "Deleting is disabled; restart with --allow-delete"
            view.message = off if self.source.live else "Nothing to delete: this is a recording"
            return
        found = [each.survey.newest for each in self.watched.values()]
        flows = affected_flows(view, self.table, everything, stale=any(its is not None and its.old for its in found))
        if self.deletion or not flows:
            nothing = "Nothing to delete: select a row, or set a filter and press X"
            view.message = "A deletion is still running" if self.deletion else nothing
            return
        nodes = sorted({flow.node for flow in flows})
        feed = self.nodes.feeds.get(nodes[0], self.feeds[0])
        if len(nodes) > 1 or (command := feed.source.command) is None:
            view.message = f"These flows are on {len(nodes)} nodes; delete on one at a time: / node:{nodes[0]}"
            return
        self.deletion, self.deletes_on = Deletion(command, flows), nodes[0]
        view.dialog, view.overlay, view.scroll = Dialog([]), "delete", 0
        self._tell_deletion(self.deletion)

    def _answer(self, typed: str) -> None:
        if self.deletion is None:
            return
        if self.deletion.phase is Phase.ASKED:
            self.deletion.confirm(typed)
        else:
            self.deletion.stop()
        self._tell_deletion(self.deletion)

    def _tell_deletion(self, deletion: Deletion) -> None:
        view, words = self.view, deletion.words()
        if deletion.phase is not Phase.DONE and view.dialog is not None:
            whose = f"On node {clean(self.deletes_on)}: " if len(self.watched) > 1 else ""
            lines = [words.command, whose + words.text, *([str(words.problem)] if words.problem else [])]
            view.dialog.tell(lines, asks=deletion.phase is Phase.ASKED)
        if deletion.phase is Phase.DONE:
            deletion.close()
            self.deletion, view.dialog = None, None
            view.overlay = "" if view.overlay == "delete" else view.overlay
            view.message = str(words.problem) if words.problem else words.text
            self._list_now()
        self._soon()

    def _list_now(self) -> None:
        for feed in self.feeds:
            feed.source.list_now()

    def _inquire(self) -> None:
        """Ask the flow log what the view is about, again once a minute, and take the answer."""
        view, now = self.view, time.monotonic()
        if view.spec.logged and self.options.log is None and view.usage is None:
            view.usage = LoggedUsage(view.spec, [], False, ["there is no flow log: start with --log DIR"])
        words = self._question()
        self._ask_what_is_new(now)
        if words and (words != self.asked or now >= self.next_question):
            self.asked, self.next_question = words, now + LOG_ASKED_EVERY
            self.inquiry.ask(words)
            self.asked_for = view.spec, view.filter
        if (answered := self.inquiry.poll()) is not None:
            spec, filter = self.asked_for
            if spec.logged:
                view.usage = usage_answered(spec, answered)
            else:
                view.logged = flows_answered(filter, answered, view.context.epoch)
            self._soon()

    def _ask_what_is_new(self, now: float) -> None:
        """Ask the log what it had seen a day ago, now and then: new: and the view of events tell what it had not."""
        if self.options.log is not None and now >= self.next_news and self.table.listings:
            self.next_news = now + NEWS_EVERY
            self.news.ask(("--log-first", "--log", self.options.log.folder))
        if (answered := self.news.poll()) is not None and answered.items:
            at = self._now() - NEWS_SPAN
            self.view.first_seen = Baseline(at, self.view.context, logged_keys(answered.items))
            self._soon()

    def _question(self) -> tuple[str, ...]:
        """The options that print what the view asks the log; none without a log, or where nothing is asked."""
        view, log = self.view, self.options.log
        if log is None:
            return ()
        if view.spec.logged:
            words = ("--once", "--json", "--view", view.spec.name, "--since", view.span, "--log", log.folder)
            return (*words, "-f", view.filter) if view.filter.startswith("near:") else words
        text = expanded(view.filter, view.context)
        shown = shown_as(text) if view.spec.translated else None
        moment = asked_moment(text, time.time()) if view.spec.translated else None
        if shown is None and moment is None:
            return ()
        return ("--log-search", json.dumps([*(shown or (None, None)), *(moment or (None, 0))]), "--log", log.folder)

    def _export(self) -> None:
        """Go on with an export for a moment."""
        began = time.monotonic()
        for words in self.exporting or ():
            self.view.message = words
            if time.monotonic() - began > SLICE:
                return
        self.exporting = None
        self._soon()
