"""Metrics: what is counted of the table, as families in Prometheus's text format, and the sums over all flows for that.

The format: prometheus.io/docs/instrumenting/exposition_formats, "Text-based format"; the names: .../practices/naming.
No label's value is a flow, a port, or an address other than those of the few busiest near hosts, so that the number of
series does not grow with the traffic.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple, TypeVar

from addresses import Context, Place
from flows import BEFORE_REPLY, IDLE, IN, OUT, Flow, FlowTable, matched, without_userspace
from intake import Statistics, Status, since

PREFIX = "conntrack_monitor_"
# Together with the families of one series each fewer than 200; an aim of the project is 500.
BUSIEST, MOST_COUNTRIES, MOST_STATES, MOST_KERNEL_COUNTERS = 10, 50, 60, 30
OTHER, UNLOCATED, STATELESS = "other", "unknown", "none"
NAT_KINDS = ("none", "snat", "dnat", "both")  # by snat + 2 * dnat
MOST_NEAR_HOSTS = 65_536  # counted apart: 6 MB; a flood of made-up addresses must not take more

# --- sums over all flows ----------------------------------------------------------------------------------------------

_ORIGINAL_ENDS = re.compile(rb"^\d+ src=(\S+) dst=(\S+)(?: sport=(\d+) dport=(\d+))?", re.M)
_REPLY_ENDS = re.compile(rb"^(?:" + BEFORE_REPLY + rb"src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+))?", re.M)


class NearHost(NamedTuple):
    """A host of the near side: its flows, and the bytes a second that it gets and sends."""

    address: str
    flows: int
    rate_in: float
    rate_out: float


class Sums(NamedTuple):
    """What one round over all flows has found."""

    began: float  # on the source's clock
    nat: Mapping[str, int]  # flows by each of NAT_KINDS
    countries: Mapping[str, int]  # flows by the remote end's; empty where none is known
    busiest: Sequence[NearHost]  # at most BUSIEST, those that move most first


class Tally:
    """Adds up the live flows a few at a time: 3 to 5 us each where they are translated, 1.3 s for 262,144."""

    def __init__(self, context: Context, where: Callable[[str], Place]) -> None:
        """``where``: looks a place up at once; it is asked for each flow."""
        self.newest: Sums | None = None
        self._context, self._where = context, where
        self._left: list[Flow] = []  # still to be added
        self._hosts: list[tuple[str, int]] | None = None  # all have been: hosts that are still to be compared
        self._begin(0.0)

    def _begin(self, now: float) -> None:
        self._began = now
        self._nat = [0] * len(NAT_KINDS)
        self._countries: Counter[str] = Counter()
        self._flows: Counter[str] = Counter()  # of near hosts
        self._rates: dict[str, tuple[float, float]] = {}  # ... of those that move something
        self._few = 0  # hosts with no more flows have been forgotten
        self._busiest: list[NearHost] = []

    @property
    def rests(self) -> bool:
        """Is no round under way?"""
        return not self._left and self._hosts is None

    def step(self, table: FlowTable, now: float, wanted: int) -> bool:
        """Add ``wanted`` flows; True at the end of a round, when ``newest`` is a new one."""
        if self.rests:
            self._begin(now)
            self._left = list(table.live.values())
        if self._hosts is None:
            piece = self._left[-wanted:]
            del self._left[-wanted:]
            self._add([flow for flow in piece if flow.progress.ended is None])
            self._hosts = None if self._left else list(self._flows.items())
            return False
        hosts = self._hosts[-wanted:]
        del self._hosts[-wanted:]
        self._compare(hosts)
        if self._hosts:
            return False
        self._hosts = None
        known = self._countries.keys() - {UNLOCATED}
        countries = bounded(self._countries, MOST_COUNTRIES, OTHER, UNLOCATED) if known else {}
        self.newest = Sums(self._began, dict(zip(NAT_KINDS, self._nat)), countries, self._busiest)
        self._begin(now)
        return True

    def _add(self, flows: Sequence[Flow]) -> None:
        context, known, nat, rates = self._context, self._context.known, self._nat, self._rates
        hosts, remotes = [], []
        keys, tails = [flow.key for flow in flows], [without_userspace(flow.tail) for flow in flows]
        for flow, (src, dst, sport, dport), (back, front, back_port, front_port) in zip(
            flows, matched(_ORIGINAL_ENDS, keys), matched(_REPLY_ENDS, tails)
        ):
            kind = 0
            if back and sport:
                kind = (front != src or front_port != sport) + 2 * (back != dst or back_port != dport)
                _, here, there = known.way_and_sides(src, dst, back, front)
                near, far, inward = here.decode(), there.decode(), there in (src, front)
            elif flow.plain:
                near, far, inward = context.sides_of(src, dst)
            else:  # ICMP, GRE, and what has words that nobody expects
                ends = flow.ends()
                kind = ends.snat + 2 * ends.dnat
                near, far, inward = context.sides_of_ends(ends)
            nat[kind] += 1
            hosts.append(near := context.device(near))
            remotes.append(far)
            moved = flow.progress.rates
            if moved is not None and moved is not IDLE:
                came, went = rates.get(near, IDLE)
                rates[near] = came + moved[not inward], went + moved[inward]
        self._flows.update(hosts)
        where = self._where
        self._countries.update([where(far).country or UNLOCATED for far in remotes])
        if len(self._flows) > MOST_NEAR_HOSTS:
            self._few += 1
            few = self._few
            self._flows = Counter({host: n for host, n in self._flows.items() if n > few or host in rates})

    def _compare(self, hosts: Iterable[tuple[str, int]]) -> None:
        rows = [NearHost(host, flows, *self._rates.get(host, IDLE)) for host, flows in hosts]
        self._busiest = heapq.nlargest(BUSIEST, [*self._busiest, *rows], key=_weight)


def _weight(host: NearHost) -> tuple[float, int, str]:
    return host.rate_in + host.rate_out, host.flows, host.address


KeyT = TypeVar("KeyT")


def bounded(counts: Mapping[KeyT, int], most: int, other: KeyT, *kept: KeyT) -> dict[KeyT, int]:
    """Those with the most, ``most`` at most, and the sum of the rest as ``other``; those that are kept stay beside.

    >>> bounded({"DE": 3, "US": 5, "SE": 1, "unknown": 9, "FR": 2}, 2, "other", "unknown")
    {'US': 5, 'DE': 3, 'other': 3, 'unknown': 9}
    """
    falling = sorted((key for key in counts if key not in kept), key=lambda key: (-counts[key], str(key)))
    found = {key: counts[key] for key in falling[:most]}
    if rest := falling[most:]:
        found[other] = found.get(other, 0) + sum(counts[key] for key in rest)
    return found | {key: counts[key] for key in kept if key in counts}


# --- what the kernel counts -------------------------------------------------------------------------------------------


class KernelCounters:
    """What `conntrack -S` counts, as counters that only grow while the kernel runs.

    Each CPU counts in 32 bits: where one has begun anew their sum falls, and Prometheus would take the whole new sum
    for what has been counted since (a counter that falls was reset, see its function ``rate``).
    """

    def __init__(self) -> None:
        self.values: dict[str, int] = {}
        self._first: Statistics | None = None  # the kernel has counted on since then
        self._last: Statistics | None = None

    def take(self, status: Status) -> None:
        """Learn what was said last."""
        last = status.counted[-1] if status.counted else None
        if last is None or last is self._last:
            return
        if self._last is None or self._first is not status.counted_first:
            self.values = {name: last.values[name] for name in sorted(last.values)[:MOST_KERNEL_COUNTERS]}
        else:
            self.values = {name: value + since(self._last, last, name) for name, value in self.values.items()}
        self._first, self._last = status.counted_first, last


# --- families ---------------------------------------------------------------------------------------------------------


class Stage(IntEnum):
    """How much can be said."""

    ENDED = 0  # the program has ended
    LOST = 1  # the table can't be read now
    READING = 2


class Measured(NamedTuple):
    """All that metrics are made of. ``now``: on the source's clock."""

    node: str
    version: str
    stage: Stage
    table: FlowTable
    status: Status
    sums: Sums | None
    kernel: Mapping[str, int]  # see KernelCounters
    now: float
    failures: int  # times that the file could not be written
    alerts: Mapping[str, int]  # how many each rule has fired, by its name


Number = float | int | None  # None: unknown, so that it is left out
Samples = Iterable[tuple[tuple[str, ...], Number]]  # the values of the labels, and the number


class Family(NamedTuple):
    """A metric: the end of its name, its type, its labels beside ``node``, what it says, and its values."""

    name: str
    kind: str  # gauge, counter
    labels: tuple[str, ...]
    help: str
    values: Callable[[Measured], Samples]
    stage: Stage = Stage.READING  # it is said from this one on

    @property
    def whole_name(self) -> str:
        return PREFIX + self.name


def _one(number: Callable[[Measured], Number]) -> Callable[[Measured], Samples]:
    """The values of a family that has one series."""
    return lambda measured: [((), number(measured))]


def _events(measured: Measured) -> Samples:
    """Where nobody listens, 0 would be an answer."""
    table = measured.table
    heard = table.heard if table.watched_since is not None or table.events else {}
    return [((name,), number) for name, number in heard.items()]


def _bytes_moved(measured: Measured) -> Samples:
    """Of a single listing nothing is known; nor where neither it nor the kernel's setting tells of counters."""
    table = measured.table
    looks = table.listings > 1 or table.watched_since is not None
    counts = table.counted or any(table.traffic.moved) or measured.status.facts.get("acct") == 1
    return [(("in",), table.traffic.moved[IN]), (("out",), table.traffic.moved[OUT])] if looks and counts else []


def _flows(measured: Measured) -> Samples:
    counts = {(protocol, state or STATELESS): number for (protocol, state), number in measured.table.counts.items()}
    return bounded(counts, MOST_STATES, (OTHER, OTHER)).items()


def _of_sums(counts: Callable[[Sums], Mapping[str, int]]) -> Callable[[Measured], Samples]:
    return lambda measured: (
        ((key,), number) for key, number in (counts(measured.sums) if measured.sums else {}).items()
    )


def _host_flows(measured: Measured) -> Samples:
    return [((host.address,), host.flows) for host in (measured.sums.busiest if measured.sums else ())]


def _host_rates(measured: Measured) -> Samples:
    if measured.sums is None or measured.table.rate_in is None:
        return
    for host in measured.sums.busiest:
        yield (host.address, "in"), round(host.rate_in, 1)
        yield (host.address, "out"), round(host.rate_out, 1)


def _listens(measured: Measured) -> Number:
    """Unknown in the first second, and where a table is read once."""
    status = measured.status
    if measured.table.watched_since is not None:
        return 1
    return 0 if status.facts.get("events") == 0 or "events" in status.troubles else None


def _behind(measured: Measured) -> Number:
    return None if measured.table.watched_since is None else round(measured.status.behind, 3)


def _seconds_since(at: float | None, measured: Measured) -> Number:
    return None if at is None else round(max(0.0, measured.now - at), 3)


METRICS = (
    Family(
        *("build_info", "gauge", ("version",), "Always 1; the version of Conntrack Monitor."),
        lambda measured: [((measured.version,), 1)],
        Stage.ENDED,
    ),
    Family(
        *("up", "gauge", (), "1 if the node's connection table is being read, 0 if not or after the program's end."),
        _one(lambda measured: measured.stage is Stage.READING),
        Stage.ENDED,
    ),
    Family(
        *("data_age_seconds", "gauge", (), "Time since the newest complete listing ended, which brings the counters."),
        _one(lambda measured: _seconds_since(measured.table.listed_at, measured)),
        Stage.LOST,
    ),
    Family(
        *("sums_age_seconds", "gauge", (), "Time since adding up by NAT, country and host began."),
        _one(lambda measured: _seconds_since(measured.sums.began if measured.sums else None, measured)),
    ),
    Family(
        *("listening", "gauge", (), "1 if events of the kernel are heard, 0 if only listings tell of changes."),
        _one(_listens),
    ),
    Family(
        *("behind_seconds", "gauge", (), "How old the newest event is that was read; 0 if none waits."),
        _one(_behind),
    ),
    Family(
        *("entries", "gauge", (), "Entries in the kernel's connection table (nf_conntrack_count)."),
        _one(lambda measured: measured.status.facts.get("count")),
    ),
    Family(
        *("limit", "gauge", (), "Entries that the kernel's table holds at most (nf_conntrack_max)."),
        _one(lambda measured: measured.status.facts.get("max")),
    ),
    Family(
        *("buckets", "gauge", (), "Size of the kernel's hash table (nf_conntrack_buckets)."),
        _one(lambda measured: measured.status.facts.get("buckets")),
    ),
    Family("flows", "gauge", ("protocol", "state"), "Live flows by protocol and state.", _flows),
    Family("nat_flows", "gauge", ("nat",), "Live flows by kind of NAT.", _of_sums(lambda sums: sums.nat)),
    Family(
        *("country_flows", "gauge", ("country",), "Live flows by country of the remote end."),
        _of_sums(lambda sums: sums.countries),
    ),
    Family("host_flows", "gauge", ("near",), "Live flows of the busiest near hosts.", _host_flows),
    Family(
        *("host_bytes_per_second", "gauge", ("near", "direction"), "Traffic of the busiest near hosts."),
        _host_rates,
    ),
    Family("events_total", "counter", ("event",), "Events heard from the kernel.", _events, Stage.LOST),
    Family(
        *("bytes_total", "counter", ("direction",), "Layer-3 bytes by which the counters of all flows went up."),
        _bytes_moved,
        Stage.LOST,
    ),
    Family(
        *("losses_total", "counter", (), "Times that events were lost."),
        _one(lambda measured: measured.status.losses),
        Stage.LOST,
    ),
    Family(
        *("resyncs_total", "counter", (), "Listings that made good what was lost."),
        _one(lambda measured: measured.status.resyncs),
        Stage.LOST,
    ),
    Family(
        *("rejected_lines_total", "counter", (), "Lines of input that were not understood."),
        _one(lambda measured: measured.status.rejects),
        Stage.LOST,
    ),
    Family(
        *("dropped_flows_total", "counter", (), "Flows that were not kept because there were too many."),
        _one(lambda measured: measured.table.overflow),
        Stage.LOST,
    ),
    Family(
        *("statistics_total", "counter", ("counter",), "Counters of `conntrack -S`, summed over all CPUs."),
        lambda measured: (((name,), number) for name, number in measured.kernel.items()),
        Stage.LOST,
    ),
    Family(
        *("alerts_total", "counter", ("alert",), "Alerts that each rule of the settings has fired."),
        lambda measured: (((name,), number) for name, number in measured.alerts.items()),
        Stage.LOST,
    ),
    Family(
        *("write_failures_total", "counter", (), "Times that the file of metrics could not be written."),
        _one(lambda measured: measured.failures),
        Stage.LOST,
    ),
)


# --- text -------------------------------------------------------------------------------------------------------------


def exposition(*nodes: Measured) -> str:
    """All families that have a value now, each with its HELP and TYPE once, in the order of METRICS; of all nodes."""
    lines = []
    for family in METRICS:
        samples = [sample for its in nodes if its.stage >= family.stage for sample in _samples_of(family, its)]
        if samples:
            name = family.whole_name
            lines += [f"# HELP {name} {_escaped(family.help)}", f"# TYPE {name} {family.kind}", *samples]
    return "".join(f"{line}\n" for line in lines)


def _samples_of(family: Family, its: Measured) -> Iterator[str]:
    """The lines of a family that are a node's."""
    for labels, number in family.values(its):
        if number is not None:
            named = zip(("node", *family.labels), (its.node, *labels))
            inside = ",".join(f'{label}="{label_value(value)}"' for label, value in named)
            yield f"{family.whole_name}{{{inside}}} {+number}"  # + makes 1 of True


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def label_value(text: str) -> str:
    r"""What stands between the quotes of a label: any UTF-8, with backslash, quote and line feed escaped.

    >>> print(label_value('a "b"\nc\\d'))
    a \"b\"\nc\\d
    """
    return _escaped(text).replace('"', r"\"").encode("utf-8", "replace").decode()
