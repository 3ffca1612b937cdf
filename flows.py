"""The flow table: events and listings in; live flows, recently closed flows, rates and totals out.

What holds at all times (see the design, "the flow table"):

* A flow is its original tuple with protocol and zones. ``id`` tells a reused tuple apart: another id is another flow,
  the same id proves nothing (the kernel gives it out again at once).
* A *complete* listing sweeps: a flow that it did not name, and no event named since it began, is gone. That is
  the only way to hear of the end of flows older than the listener (nf_conntrack_events=2).
* A line of a listing never revives a flow whose DESTROY came after that listing began.
* Counters come from listings and DESTROY only, and rates are their differences over time.

The clock is an argument everywhere: seconds of any steady clock.
"""

from __future__ import annotations

import math
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Set
from itertools import islice

import addresses
from flow import BORN, FOUND, IDLE, RESTING, Counts, Flow, Group, Sight, counts_in, settled, told
from parse import EVENTS, Parts, kind_of, tail_of

# The kernel's default maximum is 262,144; four times that bounds a recording that only ever opens flows.
MAX_LIVE = 1_048_576
MAX_CLOSED = 50_000
PAST = 10_000
HISTORY = 60  # seconds of the events sparkline
TAPE = 20_000  # events kept for a flow's "life so far"
SMOOTHING = 3.0  # time constant of the smoothed rates, seconds
FINISHED = {"TIME_WAIT", "CLOSE", "LAST_ACK"}
GROUPS = 4096  # kinds and states in good input: 3 families x (10 protocols x 15 states + 246 without)

_ZONES = re.compile(rb"(?:^| )(zone(?:-orig|-reply)?=[1-9]\d{0,4})(?= |$)")
_ID = re.compile(rb" id=(\d{1,10})(?= labels|$)")


class FlowTable:
    """All flows. Feed it rows; read ``live`` and ``closed``; call ``tick`` about once a second."""

    def __init__(
        self, linger: float = 5.0, own: Set[str] = frozenset(), limit: int = MAX_LIVE, past: int = PAST
    ) -> None:
        self.live: dict[bytes, Flow] = {}
        self.closed: deque[Flow] = deque()
        self.past: deque[Flow] = deque(maxlen=past)  # closed flows, for the question who it was
        self.linger = linger
        self.limit = limit
        self.own: Set[str] = own
        self.generation = 0
        self.listing = False
        self.listings = 0  # complete ones
        self.listed_at: float | None = None  # when the newest complete listing ended
        self.counted = False  # the newest complete listing had counters
        self.rate_in: float | None = None  # bytes a second between the two newest complete listings
        self.rate_out: float | None = None
        self.events = 0  # all that were taken in
        self.overflow = 0  # flows dropped because the table was full
        self.history: deque[float] = deque([0.0] * HISTORY, maxlen=HISTORY)  # events a second, a value a second
        self.tape: deque[tuple[float, str, Flow, str | None]] = deque(maxlen=TAPE)  # time, event, flow, its state then
        self.on_inferred: Callable[[Flow], None] | None = None  # told of a flow that only a listing showed to be gone
        self._began = 0.0  # when the newest listing began
        self._gone: set[bytes] = set()  # keys whose DESTROY came while a listing ran
        self._moved = [0, 0]  # bytes in and out since the newest complete listing
        self._moved_since: float | None = None
        self._counters_seen = False
        self._ticked: float | None = None
        self._ticked_events = 0
        self._groups: dict[bytes, Group] = {}
        self._most_groups = GROUPS
        self._sight = Sight(0.0, 0)

    # --- rows in ------------------------------------------------------------------------------------------------------

    def _group(self, head: bytes, state: bytes) -> Group:
        group = self._groups.get(head + state)
        if group is None:
            if len(self._groups) >= self._most_groups:  # somebody makes up protocols and states
                self._groups = {name: group for name, group in self._groups.items() if group.number}
                self._most_groups = max(GROUPS, 2 * len(self._groups))
            group = Group(kind_of(head), state[:-1].decode("ascii", "replace") or None)
            self._groups[head + state] = group
        return group

    def find(self, row: Parts) -> Flow | None:
        """The live flow that a line is about."""
        return self.live.get(key_of(self._group(row[2], row[4]).prefix, row[5], tail_of(row)))

    def event(self, row: Parts, now: float) -> Flow:
        """Take in one event; returns the flow it is about, as it is afterwards."""
        tag, state, rest = row[1], row[4], tail_of(row)
        group = self._group(row[2], state)
        key = key_of(group.prefix, row[5], rest)
        name = EVENTS.get(tag, "update")
        self.events += 1
        flow = self.live.get(key)
        if name == "destroy":
            return self._destroy(flow, key, group, row, now)
        if flow is not None and self._is_another(flow, name, rest):
            self._close(flow, now, inferred=True)  # its NEW tells a reader who follows along: nothing to report
            flow = None
        if flow is None:
            flow = self._open(key, group, now, name == "new")
            flow.rest = rest
        else:
            if name == "new":  # a listing was faster than the event
                flow.course = settled(flow.course._replace(exact=True))
            _keep_listed(flow)
            flow.rest = rest
        self._stamp(flow, group if state else flow.group, row[3], now)
        self.tape.append((now, name, flow, flow.state))
        return flow

    def _is_another(self, flow: Flow, name: str, rest: bytes) -> bool:
        """Does the event speak of a flow that took the known one's place?"""
        if _differ(flow.rest, rest):
            return True
        return name == "new" and (flow.exact or flow.born < self._began)

    def _destroy(self, flow: Flow | None, key: bytes, group: Group, row: Parts, now: float) -> Flow:
        timeout, state, rest = row[3], row[4], tail_of(row)
        if self.listing:
            self._gone.add(key)
        if flow is not None and _differ(flow.rest, rest):
            flow.sight = self._seen(now)  # the late end of a flow whose place it has taken: it is there
            flow = None
        if flow is None:
            flow = Flow(key, group, now, FOUND._replace(ended=now), self._seen(now))
            flow.rest = rest
            flow.timeout = int(timeout) if timeout else None
            self._bury(flow)
            self.tape.append((now, "destroy", flow, flow.state))
            return flow
        before = flow.counts() or (Counts(0, 0, 0, 0) if flow.exact else None)
        _keep_listed(flow)
        flow.rest = rest
        after = counts_in(rest)
        if before and after:
            self._move(flow, before, after)
        self._stamp(flow, group if state else flow.group, timeout, now)
        self._close(flow, now, inferred=False)
        self.tape.append((now, "destroy", flow, flow.state))
        return flow

    def begin_listing(self, now: float) -> None:
        """A listing starts: what it and events name from now on belongs to it."""
        self.generation += 1
        self.listing = True
        self._began = now
        self._gone.clear()
        self._counters_seen = False

    def listed(self, row: Parts, now: float) -> Flow | None:
        """Take in one line of a listing; returns the flow if only this listing knew of it."""
        state, rest = row[4], tail_of(row)
        group = self._group(row[2], state)
        key = key_of(group.prefix, row[5], rest)
        if key in self._gone:
            return None  # of a flow that has ended since, or of one that took its place: nobody can tell which
        counted = b"packets=" in row[10] or row[12].startswith(b"packets=")
        self._counters_seen = self._counters_seen or counted
        flow = self.live.get(key)
        found = None
        if flow is not None and flow.rest != rest:
            if _differ(flow.rest, rest):
                self._close_unseen(flow, now)
                flow = None
            else:
                self._sample(flow, rest, now)
        elif flow is not None:
            self._rest(flow, now, counted)
        if flow is None:
            found = flow = self._open(key, group, now, False)
            flow.rest = rest
        self._stamp(flow, group if state else flow.group, row[3], now)
        return found

    def listed_all(self, rows: Iterable[Parts], now: float) -> None:
        """What ``listed`` does, for all lines of a block (events among them, too), three times as fast.

        The two short ways are those of almost all lines: a flow never seen before, and one of which nothing is new but
        the timeout.
        """
        live, gone, sight = self.live, self._gone, self._seen(now)
        group_of, flow_of, counters_seen = self._groups.get, self.live.get, self._counters_seen
        for row in rows:
            _stamp, tag, head, timeout, state, original, _, _, _, _, before, turned, after = row
            group = group_of(head + state)
            rest = before + turned + after
            # Beside the original tuple, also where a line with odd words was not cut; not in a helper's name.
            counted = b"packets=" in before or after[:8] == b"packets="
            if group is not None and timeout and not tag and b"zone" not in rest:
                key = group.prefix + original
                flow = flow_of(key)
                if flow is None:
                    if key not in gone and len(live) < self.limit:
                        flow = live[key] = Flow(key, group, now, FOUND, sight)
                        group.number += 1
                        flow.rest = rest
                        flow.timeout = int(timeout)
                        counters_seen = counters_seen or counted
                        continue
                elif flow.rest == rest and flow.group is group and key not in gone:
                    rates = flow.course.rates
                    if rates is None and counted and flow.course is FOUND:
                        flow.course, rates = RESTING, IDLE
                    if rates is IDLE or (rates is None and not counted):
                        flow.timeout = int(timeout)
                        flow.sight = sight
                        flow.sampled = now
                        counters_seen = counters_seen or rates is IDLE
                        continue
            if tag:
                self.event(row, now)
            else:
                self.listed(row, now)
            group_of = self._groups.get  # new groups may have taken the place of the old ones
        self._counters_seen = self._counters_seen or counters_seen

    def life(self, flow: Flow) -> list[tuple[float, str, str | None]]:
        """The flow's events as far as the tape goes back: time, event, state then."""
        return [(at, name, state) for at, name, other, state in self.tape if other is flow]

    def end_listing(self, complete: bool, now: float) -> None:
        """A listing ended. A complete one sweeps: what it did not name is gone."""
        self.listing = False
        self._gone.clear()
        if not complete:
            return
        gone = [flow for flow in self.live.values() if flow.sight.generation != self.generation]
        for flow in gone:
            self._close_unseen(flow, now)
        self.listings += 1
        self.counted = self._counters_seen
        if self._moved_since is not None and now > self._moved_since and (self.counted or any(self._moved)):
            spent = now - self._moved_since
            self.rate_in, self.rate_out = self._moved[0] / spent, self._moved[1] / spent
        elif not self.counted:
            self.rate_in = self.rate_out = None
        self._moved = [0, 0]
        self._moved_since = self.listed_at = now

    def tick(self, now: float) -> None:
        """Let the clock go on: closed flows leave after ``linger`` seconds, the events' history moves."""
        while self.closed and now - (self.closed[0].course.ended or 0.0) >= self.linger:
            self.closed.popleft()
        if self._ticked is None or now < self._ticked:
            self._ticked, self._ticked_events = now, self.events
            return
        seconds = math.floor(now - self._ticked)
        if seconds >= 1:
            rate = (self.events - self._ticked_events) / seconds
            self.history.extend([rate] * min(seconds, HISTORY))
            self._ticked += seconds
            self._ticked_events = self.events

    # --- inside -------------------------------------------------------------------------------------------------------

    def _seen(self, now: float) -> Sight:
        if self._sight.at != now or self._sight.generation != self.generation:
            self._sight = Sight(now, self.generation)
        return self._sight

    def _open(self, key: bytes, group: Group, now: float, exact: bool) -> Flow:
        if len(self.live) >= self.limit:
            # An eighth at once: taking the first of a dict again and again walks over all the holes before it.
            for old in list(islice(self.live.values(), max(1, self.limit // 8))):
                self.overflow += 1
                self._close(old, now, inferred=True)
        flow = self.live[key] = Flow(key, group, now, BORN if exact else FOUND, self._seen(now))
        group.number += 1
        return flow

    def _stamp(self, flow: Flow, group: Group, timeout: bytes, now: float) -> None:
        """Note the state and the timeout of a line, and that the flow (a live one) was seen now."""
        if timeout:
            flow.timeout = int(timeout)
        elif b"OFFLOAD]" in flow.rest:
            flow.timeout = None  # a flow in a flowtable does not expire (dumps leave the timeout out)
        flow.sight = self._seen(now)
        if flow.group is not group:
            flow.group.number -= 1
            group.number += 1
            flow.group = group

    def _close(self, flow: Flow, now: float, inferred: bool) -> None:
        del self.live[flow.key]
        flow.group.number -= 1
        flow.course = flow.course._replace(ended=now, inferred=inferred, rates=None)
        self._bury(flow)

    def _close_unseen(self, flow: Flow, now: float) -> None:
        """Only a listing showed that the flow is gone."""
        self._close(flow, now, inferred=True)
        if self.on_inferred:
            self.on_inferred(flow)

    def _bury(self, flow: Flow) -> None:
        self.past.append(flow)
        if self.linger <= 0:
            return
        if len(self.closed) >= MAX_CLOSED:
            self.closed.popleft()
        self.closed.append(flow)

    def _rest(self, flow: Flow, now: float, counted: bool) -> None:
        """A listing brought the same text again: nothing moved."""
        if flow.rates is not IDLE and counted:
            # Of a flow that is at its end nothing is to come: no smooth way down.
            rates = IDLE if flow.state in FINISHED else _smoothed(flow.rates, 0.0, 0.0, now - flow.sampled)
            flow.course = settled(flow.course._replace(rates=rates))
        flow.sampled = now

    def _sample(self, flow: Flow, rest: bytes, now: float) -> None:
        """A listing brought other text: new counters, a new rate."""
        after = counts_in(rest)
        before = flow.counts() or (Counts(0, 0, 0, 0) if flow.exact else None)
        rates = flow.rates
        if after is not None and before is not None:
            spent = now - flow.sampled
            moved = self._move(flow, before, after)
            if spent > 0:
                rates = _smoothed(rates, moved[0] / spent, moved[1] / spent, spent)
        flow.rest = rest
        flow.course = settled(flow.course._replace(rates=rates, listed=None))
        flow.sampled = now

    def _move(self, flow: Flow, before: Counts, after: Counts) -> tuple[int, int]:
        """Add what a flow moved to the totals; returns the bytes of both directions."""
        original = max(0, after.original_bytes - before.original_bytes)  # `conntrack -L -z` resets them
        reply = max(0, after.reply_bytes - before.reply_bytes)
        inbound = flow.course.inbound
        if inbound is None:
            inbound = addresses.inbound(flow.ends(), self.own)
            flow.course = flow.course._replace(inbound=inbound)
        self._moved[0] += original if inbound else reply
        self._moved[1] += reply if inbound else original
        return original, reply

    # --- out ----------------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Flow]:
        """Live flows, then closed ones that still linger."""
        yield from self.live.values()
        yield from self.closed

    def __len__(self) -> int:
        return len(self.live)

    @property
    def counts(self) -> dict[tuple[str, str], int]:
        """Live flows by (protocol, state); state "" where it has none."""
        totals: Counter[tuple[str, str]] = Counter()
        for group in self._groups.values():
            if group.number:
                totals[group.kind.protocol, group.state or ""] += group.number
        return dict(totals)

    def by_protocol(self) -> list[tuple[str, int]]:
        """Live flows by protocol, most first."""
        totals: Counter[str] = Counter()
        for (protocol, _state), number in self.counts.items():
            totals[protocol] += number
        return totals.most_common()

    def by_state(self) -> list[tuple[str, int]]:
        totals: Counter[str] = Counter()
        for (_protocol, state), number in self.counts.items():
            if state:
                totals[state] += number
        return totals.most_common()

    def select(self, wanted: Callable[[Flow], bool] | None) -> Iterable[Flow]:
        """The flows (live and lingering) that a filter wants."""
        return self if wanted is None else filter(wanted, self)


def key_of(prefix: bytes, original: bytes, rest: bytes) -> bytes:
    """What tells a flow from all others: protocol (``Group.prefix``), original tuple, zones."""
    if b"zone" in rest and (zones := _ZONES.findall(told(rest))):
        return prefix + original + b"|" + b"|".join(zones)
    return prefix + original


def id_in(rest: bytes) -> int | None:
    """The id in a flow's text behind the original tuple; None without `-o id`."""
    found = _ID.search(told(rest))
    return int(found.group(1)) if found else None


def _keep_listed(flow: Flow) -> None:
    """Before an event's text takes its place: a listing's has counters, use, helper and delta-time, an event's not."""
    if flow.course.listed is None and (b" use=" in flow.rest or b"packets=" in flow.rest):
        flow.course = flow.course._replace(listed=flow.rest)


def _differ(one: bytes, other: bytes) -> bool:
    """Do two texts name different ids? Without `-o id`, or with the same one, nobody can tell."""
    if one[-14:] == other[-14:]:  # " id=4294967295": the id stands last in a listing
        return False
    first, second = id_in(one), id_in(other)
    return first is not None and second is not None and first != second


def _smoothed(old: tuple[float, float] | None, original: float, reply: float, spent: float) -> tuple[float, float]:
    if old is None:
        return (original, reply) if original or reply else IDLE
    if original == reply == 0.0 and old[0] + old[1] < 1.0:  # below a byte a second nobody sees the tail of the curve
        return IDLE
    share = 1.0 - math.exp(-spent / SMOOTHING)
    return old[0] + share * (original - old[0]), old[1] + share * (reply - old[1])
