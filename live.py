"""The screen: keys and signals in, a frame when it is due."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import shlex
import shutil
import signal
import time
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from addresses import Lookups, scope
from child import Child, this_program
from columns import VIEW_BY_NAME, ViewSpec
from deletion import Deletion, Phase, Refusal, selection
from export import json_line, usage_texts, view_texts
from filters import asked_moment, compile_filter, expanded, shown_as
from flows import ICMP, TAPE, Flow, FlowTable, Group, LastSeen, Progress
from geography import Geography
from grouping import Baseline, GroupRow, UsageRow, group_object, logged_keys, row_of, usage_row
from health import Census, Notice, Surroundings, Survey, notices_of
from intake import SUCCESS, Ended, ListingEnded
from keyboard import Mouse, Pasted
from keys import Do, Request, paste, point, press
from names import Resolver
from parse import PROTOCOLS, Kind
from recording import Recorder, Replay
from render import frame
from run import FRAME, Feed, Options, Signals, give_up, log_notices, metrics_notices, say
from screen import Screen, take_keyboard
from source import Command, Source
from text import clean, printable
from view import SPANS, Dialog, LoggedFlows, LoggedUsage, Registered, Scene, View, flow_of, refresh

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


def affected_flows(view: View, table: FlowTable, everything: bool, stale: bool = False) -> list[Flow]:
    """The live flows that a key means: those of the selected row, or all that the filter wants (if there is one).

    ``stale``: the header tells of flows that use an old address of this host's.
    """
    row, wanted = view.selected, view.predicate
    if everything:  # without a filter those that the header's notice tells of
        chosen = wanted or (compile_filter("nat:stale", view.context) if stale else None)
        return list(filter(chosen, table.live.values())) if chosen is not None else []
    if isinstance(row, GroupRow):
        grouping = view.spec.grouping
        if grouping is None:
            return []
        flows = (flow for flow in table.live.values() if wanted is None or wanted(flow))
        key_of = row_of(grouping.of(row.key), view.context)
        return [flow for flow in flows if key_of(flow) == row.key]
    flow = flow_of(row)
    return [] if flow is None or table.live.get(flow.key) is not flow else [flow]


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


class Live:
    """The screen."""

    def __init__(self, options: Options, source: Source, signals: Signals, recorder: Recorder | None = None) -> None:
        take_keyboard()  # before the screen looks for it
        self.options = options
        self.source = source
        self.signals = signals
        self.recorder = recorder
        self.geography, self.resolver = Geography(options.plan), Resolver()
        self.feed = Feed(options, source, signals, recorder, where=self.geography.lookup)
        self.table, self.status = self.feed.table, self.feed.intake.status
        if "dns" in options.names:
            self.resolver.switch(True)
        self.view = self._first_view()
        self._begin_alerts()
        self.screen = Screen(options.colour, os.environ, options.mouse)
        self.next_frame = 0.0
        self.last_frame = 0.0
        self.next_tidying = time.monotonic() + TIDIED_EVERY
        self.last_key = 0.0
        self.ordering = 0.0  # seconds that the present order of the rows has taken so far
        self.ordering_cost = 0.0  # ... and of processor time
        self.ordered_resyncs = 0  # losses that had been made good when the rows on show were taken from the table
        self.census, self.next_census = Census(), 0.0
        self.census_cost = 0.0  # seconds that the present count has taken
        self.census_watched = False  # the panel of the table's health is on show
        self.survey, self.next_survey = Survey(self.view.context), 0.0
        self.survey_cost = 0.0  # seconds that the present survey has taken
        self.surveyed_own = self.view.context.own  # this host's addresses when it began
        self.aside: frozenset[Hashable] = frozenset()  # notices that were put aside, by their keys
        self.deletion: Deletion | None = None
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
        options, geography = self.options, self.geography
        lookups = Lookups(geography.where, geography.detail, geography.coordinates, self._name)
        context = self.feed.context(lookups, options.site)
        spec = VIEW_BY_NAME[options.view]
        view = View(context, options.base(context), sort=options.sort or "", reverse=options.reverse, spec=spec)
        view.set_filter(options.expression)
        view.span = options.since or view.span
        return view

    def _begin_alerts(self) -> None:
        """Places are looked up within a budget, and are not known before the databases are open."""
        geography = self.geography
        self.feed.begin_alerts(
            self.view.context, False, geography.begin_frame, lambda: geography.short or not geography.opened
        )

    def _name(self, address: str) -> str | None:
        """What stands in place of an address where key N has been pressed: who is known is not asked for."""
        return (self.feed.names.directory.label(address) or self.resolver.name(address)) if self.resolver.on else None

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
            self.feed.close()
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
        return SUCCESS if self.feed.problem is None else give_up(self.feed.problem)

    @property
    def helps_memory(self) -> str:
        return self.feed.helps_memory

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
        if self._wants_census():
            until = min(until, max(self.next_census, time.monotonic()))
        until = min(until, max(self.next_survey, time.monotonic())) if self._is_listed else until
        if self.screen.more_keys or self.exporting is not None or (self.view.rows.working and not writing):
            until = time.monotonic()
        return self.feed.wait(reading, writing, until)

    def _turn(self) -> bool:
        """Once round the loop; True when it is time to go."""
        keyboard = self.screen.key_fd()
        ready = self._wait(keyboard)
        if self._take_signals() or self.screen.hung_up:
            return True
        if (keyboard in ready or self.screen.more_keys or self._key_is_due()) and self._take_keys():
            return True
        resyncs = self.status.resyncs
        for item in self.source.poll():
            self.feed.take(item)
            if isinstance(item, Ended) and isinstance(self.source, Replay) and self.source.playback() is not None:
                self.view.message = "The recording has ended; { goes back 10 s, q quits"
            if self.feed.problem is not None:
                return True
            if self.table.events - self.sifted > TAPE // 4:  # the tape would lose what nobody has looked at
                self._sift()
            if isinstance(item, ListingEnded) and (self.table.listings <= 1 or self.status.resyncs > resyncs):
                self._soon()
            elif isinstance(item, ListingEnded) and self.view.predicate is not None:
                self.view.rows.expire()  # counters, and what no event told of, may be what the filter wants
        self.table.tick(self._now())
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
                if self.feed.alerts is not None:
                    self.feed.alerts.relearn()
        if self.exporting is not None:
            self._export()
        self.resolver.poll()
        # Rows that are sorted by a name wait for their next turn: sorting 200,000 at each change would cost too much.
        if self.resolver.renewed() | self.feed.names.renewed():
            self._frame_after(PROGRESS)
        if self.deletion and self.deletion.poll():
            self._tell_deletion(self.deletion)
        if self.whois and (known := self.whois.poll()) is not None:
            self.view.whois = known
            self._frame_after(QUICK)
        if self.feed.fired():  # the header has a place for them
            self._frame_after(QUICK)
        self._take_census()
        self._take_survey()
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
        self.aside &= {notice.key for notice in self._notices(around)}  # what has gone may come again
        scene = Scene(
            *(self.view, self.table, self.status, self.source.name, self.source.live, self.screen.glyphs),
            *(self.census.so_far, around._replace(aside=self.aside), late),
        )
        drawn = frame(scene, width, height)
        self.view.drawn(drawn)
        self.screen.draw(drawn.lines, width, height)
        if self.put_off and not self.view.rows.working:
            self.put_off = False
            self._soon()

    def _surroundings(self, now: float) -> Surroundings:
        """``now`` in seconds since 1970."""
        return Surroundings(
            settings=self.options.settings_problem,
            recording=self.recorder.stopped if self.recorder else "",
            attached=bool(self.options.heartbeat),
            records=self.recorder is not None and not self.recorder.stopped,
            geography=self.geography.notices() + self.resolver.notices(),
            log=log_notices(self.feed.log),
            logged=self._logged(),
            export=self.feed.exporter.notices() if self.feed.exporter else (),
            exported=self.feed.exporter.states() if self.feed.exporter else (),
            metrics=metrics_notices(self.feed.metrics),
            measured=self._measured(),
            attributions=self.geography.attributions(),
            databases=self.geography.databases(now),
            names=self.feed.names.state(),
            before=self.options.before,
            findings=self.survey.newest,
            playback=self.source.playback() if isinstance(self.source, Replay) else None,
            demo=self.options.demo,
            tracking=self.options.tracking,
            alerts=self.feed.alerts.notices(self._now()) if self.feed.alerts is not None else (),
        )

    def _logged(self) -> str:
        """How the flow log is doing, for the panel of the table's health; "" without one."""
        if self.feed.log is None:
            return ""
        return self.feed.log.state.text()

    def _measured(self) -> str:
        """How the file of metrics is doing, for the same panel."""
        return "" if self.feed.metrics is None else self.feed.metrics.state(time.monotonic())

    def _notices(self, around: Surroundings) -> list[Notice]:
        status, shares = self.status, self.census.so_far
        return notices_of(status, self.table, self.source.live, self._now(), around, shares)

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
            self.ordered_resyncs = self.status.resyncs
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
        if self.ordered_resyncs == self.status.resyncs:
            rows.keep_until(view.context.now + min(ORDERING_SHARE * self.ordering_cost, ORDERED_EVERY))
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
            self.source.list_now()
        elif do in (Do.DELETE, Do.DELETE_ALL):
            self._ask_to_delete(everything=do is Do.DELETE_ALL)
        elif do in (Do.ANSWER, Do.STOP):
            self._answer(request.text)
        elif do is Do.SWITCH_NAMES:
            view.message = self.resolver.switch(not self.resolver.on)
        elif do in (Do.COPY_ROW, Do.COPY_COMMAND):
            self._copy(copied(view) if do is Do.COPY_ROW else command_for(view, self.source.command))
        elif do is Do.WHOIS:
            self._ask_whois_of(request.text)
        elif do is Do.PUT_ASIDE:
            self._put_aside()
        elif do is Do.EXPORT:
            moment, node = self.feed.recorded_time(), self.status.node
            self.exporting = export_rows(view, request.text, moment, node)
        elif do in (Do.LIST_MORE_OFTEN, Do.LIST_LESS_OFTEN) and view.spec.logged:
            at = SPANS.index(view.span) if view.span in SPANS else 0
            view.span = SPANS[max(0, min(at + (1 if do is Do.LIST_MORE_OFTEN else -1), len(SPANS) - 1))]
        elif do in (Do.SEEK_BACK, Do.SEEK_ON, Do.STEP) or (do in SPEED and not self.source.live):
            self._move_in_recording(do)
        elif do in (Do.LIST_MORE_OFTEN, Do.LIST_LESS_OFTEN):
            seconds = self.source.pace(0.5 if do is Do.LIST_MORE_OFTEN else 2.0)
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
        if self.feed.exporter is not None:
            lost = self.feed.stop_exporting()
            self.options = replace(self.options, ipfix=None)
            view.message = "IPFIX has stopped: going back would send everything twice"
            view.message += "".join(f"; {text}" for text in lost)
        self.feed = Feed(self.options, self.source, self.signals, self.recorder)
        self.table, self.status = self.feed.table, self.feed.intake.status
        self._begin_alerts()
        self.census, self.survey, self.sifted = Census(), Survey(view.context), 0
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
        view, command = self.view, self.source.command
        if not self.options.allow_delete or command is None:
            off = "Deleting is disabled; restart with --allow-delete"
            view.message = off if command else "Nothing to delete: this is a recording"
            return
        found = self.survey.newest
        flows = affected_flows(view, self.table, everything, stale=found is not None and bool(found.old))
        if self.deletion or not flows:
            nothing = "Nothing to delete: select a row, or set a filter and press X"
            view.message = "A deletion is still running" if self.deletion else nothing
            return
        self.deletion = Deletion(command, flows)
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
            lines = [words.command, words.text, *([str(words.problem)] if words.problem else [])]
            view.dialog.tell(lines, asks=deletion.phase is Phase.ASKED)
        if deletion.phase is Phase.DONE:
            deletion.close()
            self.deletion, view.dialog = None, None
            view.overlay = "" if view.overlay == "delete" else view.overlay
            view.message = str(words.problem) if words.problem else words.text
            self.source.list_now()
        self._soon()

    def _wants_census(self) -> bool:
        """Is it asked for who fills the table, or about to matter, and is there a whole table to count?"""
        facts, listed = self.status.facts, self._is_listed
        crowded = facts.get("count", 0) > facts.get("max", 0) * CROWDED
        return listed and (crowded or self.view.overlay == "health")

    def _take_census(self) -> None:
        """Count on who fills the table."""
        watched, before = self.view.overlay == "health", self.census_watched
        wanted, now = self._wants_census(), time.monotonic()
        self.census_watched = watched
        if not wanted or (watched and not before):  # the last count may be of an hour ago
            self.census.begin_anew()
            self.next_census = 0.0
        if not wanted or now < self.next_census:
            return
        done = self.census.step(self.table, now=self._now())
        self.census_cost += time.monotonic() - now
        rest = FRAME if watched else min(CENSUS_REST, max(CENSUS_LEAST_REST, CENSUS_SHARE * self.census_cost))
        self.next_census = now + (rest if done else CENSUS_STEP_WATCHED if watched else CENSUS_STEP)
        if done:
            self.census_cost = 0.0
            self._frame_after(QUICK)

    @property
    def _is_listed(self) -> bool:
        """Is there a whole table to look at?"""
        return self.table.listings > 0 or not (self.source.live or self.table.listing)

    def _take_survey(self) -> None:
        """Go on with looking for what the tuples of all flows tell."""
        now, own = time.monotonic(), self.view.context.own
        if own is not self.surveyed_own:
            self.surveyed_own, self.next_survey = own, 0.0
        if now < self.next_survey or not self._is_listed:
            return
        done = self.survey.step(self.table, self._now())
        self.survey_cost += time.monotonic() - now
        rest = FRAME if self.view.overlay == "health" else max(SURVEY_REST, CENSUS_SHARE * self.survey_cost)
        self.next_survey = now + (rest if done else SURVEY_STEP)
        if done:
            self.survey_cost = 0.0
            self._frame_after(FRAME)

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
