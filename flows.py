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

import ends
from flow import Counts, Flow, counts_in, told
from parse import EVENTS, Cut, Kind, kind_of

# The kernel's default maximum is 262,144; four times that bounds a recording that only ever opens flows.
MAX_LIVE = 1_048_576
MAX_CLOSED = 50_000
HISTORY = 60  # seconds of the events sparkline
TAPE = 20_000  # events kept for a flow's "life so far"
SMOOTHING = 3.0  # time constant of the smoothed rates, seconds
FINISHED = {"TIME_WAIT", "CLOSE", "LAST_ACK"}
IDLE = (0.0, 0.0)  # one object for all flows that rest

_ZONES = re.compile(rb"(?:^| )(zone(?:-orig|-reply)?=[1-9]\d{0,4})(?= |$)")
_ID = re.compile(rb" id=(\d{1,10})(?= labels|$)")


class FlowTable:
    """All flows. Feed it rows; read ``live`` and ``closed``; call ``tick`` about once a second."""

    def __init__(self, linger: float = 5.0, own: Set[str] = frozenset(), limit: int = MAX_LIVE) -> None:
        self.live: dict[bytes, Flow] = {}
        self.closed: deque[Flow] = deque()
        self.linger = linger
        self.limit = limit
        self.own: Set[str] = own
        self.counts: dict[tuple[str, str], int] = {}  # live flows by (protocol, state); state "" where it has none
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
        self._kinds: dict[bytes, tuple[Kind, bytes]] = {}
        self._states: dict[bytes, str] = {}

    # --- rows in ------------------------------------------------------------------------------------------------------

    def _identify(self, head: bytes, original: bytes, rest: bytes) -> tuple[bytes, Kind]:
        known = self._kinds.get(head)
        if known is None:
            if len(self._kinds) > 4096:  # 3 families x 256 protocols in good input
                self._kinds.clear()
            kind = kind_of(head)
            known = self._kinds[head] = (kind, b"%d " % kind.number)
        kind, prefix = known
        key = prefix + original
        if b"zone" in rest:
            zones = _ZONES.findall(told(rest))
            if zones:
                key += b"|" + b"|".join(zones)
        return key, kind

    def _state(self, text: bytes) -> str | None:
        """One str object a state, not a flow."""
        known = self._states.get(text)
        if known is None and text:
            if len(self._states) > 1024:
                self._states.clear()
            known = self._states[text] = text[:-1].decode("ascii", "replace")
        return known

    def find(self, row: Cut) -> Flow | None:
        """The live flow that a line is about."""
        return self.live.get(self._identify(row[2], row[5], row[6])[0])

    def event(self, row: Cut, now: float) -> Flow:
        """Take in one event; returns the flow it is about, as it is afterwards."""
        _stamp, tag, head, timeout, state, original, rest = row
        key, kind = self._identify(head, original, rest)
        name = EVENTS.get(tag, "update")
        self.events += 1
        flow = self.live.get(key)
        if name == "destroy":
            return self._destroy(flow, key, kind, row, now)
        if flow is not None and self._is_another(flow, name, rest):
            self._close(flow, now, inferred=True)  # its NEW tells a reader who follows along: nothing to report
            flow = None
        if flow is None:
            flow = self._open(key, kind, now, name == "new", state)
            flow.rest = rest
        else:
            if name == "new":  # a listing was faster than the event
                flow.exact = True
            _keep_listed(flow)
            flow.rest = rest
        self._stamp(flow, timeout, state, now)
        self.tape.append((now, name, flow, flow.state))
        return flow

    def _is_another(self, flow: Flow, name: str, rest: bytes) -> bool:
        """Does the event speak of a flow that took the known one's place?"""
        if _differ(flow.rest, rest):
            return True
        return name == "new" and (flow.exact or flow.born < self._began)

    def _destroy(self, flow: Flow | None, key: bytes, kind: Kind, row: Cut, now: float) -> Flow:
        *_, timeout, state, _original, rest = row
        if self.listing:
            self._gone.add(key)
        if flow is not None and _differ(flow.rest, rest):
            flow.generation = self.generation  # the late end of a flow whose place it has taken: it is there
            flow = None
        if flow is None:
            flow = Flow(key, kind, now, exact=False)
            flow.rest = rest
            flow.state = self._state(state)
            flow.timeout = int(timeout) if timeout else None
            flow.ended = now
            self._bury(flow)
            self.tape.append((now, "destroy", flow, flow.state))
            return flow
        before = flow.counts() or (Counts(0, 0, 0, 0) if flow.exact else None)
        _keep_listed(flow)
        flow.rest = rest
        after = counts_in(rest)
        if before and after:
            self._move(flow, before, after)
        self._stamp(flow, timeout, state, now)
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

    def listed(self, row: Cut, now: float) -> Flow | None:
        """Take in one line of a listing; returns the flow if only this listing knew of it."""
        _stamp, _event, head, timeout, state, original, rest = row
        key, kind = self._identify(head, original, rest)
        if key in self._gone:
            return None  # of a flow that has ended since, or of one that took its place: nobody can tell which
        flow = self.live.get(key)
        found = None
        if flow is not None and flow.rest != rest:
            if _differ(flow.rest, rest):
                self._close_unseen(flow, now)
                flow = None
            else:
                self._sample(flow, rest, now)
        elif flow is not None:
            if flow.state in FINISHED:
                flow.rates = flow.rates and IDLE  # nothing is to come: no smooth way down
            elif flow.rates is not IDLE and b"packets=" in rest:
                flow.rates = _smoothed(flow.rates, 0.0, 0.0, now - flow.sampled)
            flow.sampled = now
        if flow is None:
            found = flow = self._open(key, kind, now, False, state)
            flow.rest = rest
        if not self._counters_seen and b"packets=" in rest:
            self._counters_seen = True
        self._stamp(flow, timeout, state, now)
        return found

    def life(self, flow: Flow) -> list[tuple[float, str, str | None]]:
        """The flow's events as far as the tape goes back: time, event, state then."""
        return [(at, name, state) for at, name, other, state in self.tape if other is flow]

    def end_listing(self, complete: bool, now: float) -> None:
        """A listing ended. A complete one sweeps: what it did not name is gone."""
        self.listing = False
        self._gone.clear()
        if not complete:
            return
        gone = [flow for flow in self.live.values() if flow.generation != self.generation]
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
        while self.closed and now - (self.closed[0].ended or 0.0) >= self.linger:
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

    def _open(self, key: bytes, kind: Kind, now: float, exact: bool, state: bytes) -> Flow:
        if len(self.live) >= self.limit:
            # An eighth at once: taking the first of a dict again and again walks over all the holes before it.
            for old in list(islice(self.live.values(), max(1, self.limit // 8))):
                self.overflow += 1
                self._close(old, now, inferred=True)
        flow = self.live[key] = Flow(key, kind, now, exact)
        if state:
            flow.state = self._state(state)
        self._count(flow, 1)
        return flow

    def _stamp(self, flow: Flow, timeout: bytes, state: bytes, now: float) -> None:
        """Note the timeout and the state of a line, and that it was seen now."""
        if timeout:
            flow.timeout = int(timeout)
        elif b"OFFLOAD]" in flow.rest:
            flow.timeout = None  # a flow in a flowtable does not expire (dumps leave the timeout out)
        flow.seen = now
        flow.generation = self.generation
        if state:
            new = self._state(state)
            if new != flow.state:
                if flow.ended is None:
                    self._count(flow, -1)
                    flow.state = new
                    self._count(flow, 1)
                else:
                    flow.state = new

    def _count(self, flow: Flow, step: int) -> None:
        place = flow.kind.protocol, flow.state or ""
        number = self.counts.get(place, 0) + step
        if number:
            self.counts[place] = number
        else:
            del self.counts[place]

    def _close(self, flow: Flow, now: float, inferred: bool) -> None:
        del self.live[flow.key]
        self._count(flow, -1)
        flow.ended = now
        flow.inferred = inferred
        flow.rates = None
        self._bury(flow)

    def _close_unseen(self, flow: Flow, now: float) -> None:
        """Only a listing showed that the flow is gone."""
        self._close(flow, now, inferred=True)
        if self.on_inferred:
            self.on_inferred(flow)

    def _bury(self, flow: Flow) -> None:
        if self.linger <= 0:
            return
        if len(self.closed) >= MAX_CLOSED:
            self.closed.popleft()
        self.closed.append(flow)

    def _sample(self, flow: Flow, rest: bytes, now: float) -> None:
        """A listing brought other text: new counters, a new rate."""
        after = counts_in(rest)
        before = flow.counts() or (Counts(0, 0, 0, 0) if flow.exact else None)
        if after is not None and before is not None:
            spent = now - flow.sampled
            moved = self._move(flow, before, after)
            if spent > 0:
                flow.rates = _smoothed(flow.rates, moved[0] / spent, moved[1] / spent, spent)
        flow.rest = rest
        flow.listed = None
        flow.sampled = now

    def _move(self, flow: Flow, before: Counts, after: Counts) -> tuple[int, int]:
        """Add what a flow moved to the totals; returns the bytes of both directions."""
        original = max(0, after.original_bytes - before.original_bytes)  # `conntrack -L -z` resets them
        reply = max(0, after.reply_bytes - before.reply_bytes)
        if flow.inbound is None:
            flow.inbound = ends.inbound(flow.ends(), self.own)
        self._moved[0] += original if flow.inbound else reply
        self._moved[1] += reply if flow.inbound else original
        return original, reply

    # --- out ----------------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Flow]:
        """Live flows, then closed ones that still linger."""
        yield from self.live.values()
        yield from self.closed

    def __len__(self) -> int:
        return len(self.live)

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


def _keep_listed(flow: Flow) -> None:
    """Before an event's text takes its place: a listing's has counters, use, helper and delta-time, an event's not."""
    if flow.listed is None and (b" use=" in flow.rest or b"packets=" in flow.rest):
        flow.listed = flow.rest


def _differ(one: bytes, other: bytes) -> bool:
    """Do two texts name different ids? Without `-o id`, or with the same one, nobody can tell."""
    if one[-14:] == other[-14:]:  # " id=4294967295": the id stands last in a listing
        return False
    first, second = _ID.search(told(one)), _ID.search(told(other))
    return first is not None and second is not None and first.group(1) != second.group(1)


def _smoothed(old: tuple[float, float] | None, original: float, reply: float, spent: float) -> tuple[float, float]:
    if old is None:
        return (original, reply) if original or reply else IDLE
    if original == reply == 0.0 and old[0] + old[1] < 1.0:  # below a byte a second nobody sees the tail of the curve
        return IDLE
    share = 1.0 - math.exp(-spent / SMOOTHING)
    return old[0] + share * (original - old[0]), old[1] + share * (reply - old[1])
