"""Metrics: what is counted, the sums over all flows, Prometheus's text, and the file that is renewed."""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import run
from addresses import Context, Lookups, Place
from flows import FlowTable
from grouping import KEYS
from intake import WRAP, Facts, Lost, Problem, Statistics, Status, Trouble
from metrics import (
    BUSIEST,
    METRICS,
    MOST_COUNTRIES,
    MOST_KERNEL_COUNTERS,
    MOST_STATES,
    NAT_KINDS,
    UNLOCATED,
    KernelCounters,
    Measured,
    NearHost,
    Stage,
    Sums,
    Tally,
    bounded,
    exposition,
    label_value,
)
from parse import PROTOCOLS, STATES, split_lines
from run import METRICS_EVERY, SUMMED_AT_ONCE, SUMS_SLICE, MetricsFile, MetricsPlan, NodeMetrics, replace_file
from support.exposition import samples, values
from support.kernel import kernel_mark
from support.logs import WAN, Conn, nat
from support.strategies import histories
from support.tables import NOW, event, feed, line, listing, place_of
from support.terminal import ROOT
from text import clean

# --- the text ---------------------------------------------------------------------------------------------------------


def measured(table: FlowTable, status: Status | None = None, **others: object) -> Measured:
    found: dict[str, object] = {
        **{"node": "r7", "version": "1.2", "stage": Stage.READING, "sums": None, "kernel": {}, "now": 100.0},
        **{"failures": 0, "alerts": {}, **others},
    }
    return Measured(table=table, status=status or Status(), **found)  # type: ignore[arg-type]


def test_a_family_has_its_help_and_type_and_the_file_ends_in_a_line_feed() -> None:
    status = Status()
    status.take(Facts(90.0, {"count": 7, "max": 262_144}))
    text = exposition(measured(FlowTable(), status))
    assert text.endswith("\n")
    assert (
        "# HELP conntrack_monitor_entries Entries in the kernel's connection table (nf_conntrack_count).\n"
        "# TYPE conntrack_monitor_entries gauge\n"
        'conntrack_monitor_entries{node="r7"} 7\n'
        "# HELP conntrack_monitor_limit Entries that the kernel's table holds at most (nf_conntrack_max).\n"
        "# TYPE conntrack_monitor_limit gauge\n"
        'conntrack_monitor_limit{node="r7"} 262144\n'
    ) in text
    described = re.findall(r"^# TYPE (\S+)", text, re.M)
    assert len(described) == len(set(described)) == text.count("# HELP ")


def test_what_is_not_known_is_left_out() -> None:
    """Nobody listens, nothing was summed, no setting can be read, and a single listing has no differences."""
    table = FlowTable()
    listing(table, [line(1, size=1000)])
    assert samples(exposition(measured(table))) == [
        'build_info{node="r7",version="1.2"} 1',
        'up{node="r7"} 1',
        'data_age_seconds{node="r7"} 0.0',
        'flows{node="r7",protocol="tcp",state="ESTABLISHED"} 1',
        *(f'{name}{{node="r7"}} 0' for name in ("losses_total", "resyncs_total", "rejected_lines_total")),
        *(f'{name}{{node="r7"}} 0' for name in ("dropped_flows_total", "write_failures_total")),
    ]


def test_everything_that_can_be_known_is_said() -> None:
    table, status = FlowTable(), Status()
    table.watch(80.0)
    listing(table, [line(1, size=1000)], 90.0)
    listing(table, [line(1, size=3000)], 95.0)
    feed(table, event("NEW", 2) + event("UPDATE", 2), 96.0)
    status.take(Facts(99.0, {"count": 2, "max": 10, "buckets": 16, "events": 2, "acct": 1}))
    status.take(Lost(99.0, "events"))
    status.take_lines(1, [b"what", b"is this"])
    sums = Sums(97.0, {"none": 1, "snat": 1}, {"DE": 2}, [NearHost("10.0.0.1", 2, 3.04, 0.5)])
    text = exposition(measured(table, status, sums=sums, kernel={"drop": 4}, failures=2, alerts={"table": 3}))
    assert samples(text) == [
        'build_info{node="r7",version="1.2"} 1',
        'up{node="r7"} 1',
        'data_age_seconds{node="r7"} 5.0',
        'sums_age_seconds{node="r7"} 3.0',
        'listening{node="r7"} 1',
        'behind_seconds{node="r7"} 0.0',
        'entries{node="r7"} 2',
        'limit{node="r7"} 10',
        'buckets{node="r7"} 16',
        'flows{node="r7",protocol="tcp",state="ESTABLISHED"} 2',
        'nat_flows{node="r7",nat="none"} 1',
        'nat_flows{node="r7",nat="snat"} 1',
        'country_flows{node="r7",country="DE"} 2',
        'host_flows{node="r7",near="10.0.0.1"} 2',
        'host_bytes_per_second{node="r7",near="10.0.0.1",direction="in"} 3.0',
        'host_bytes_per_second{node="r7",near="10.0.0.1",direction="out"} 0.5',
        'events_total{node="r7",event="new"} 1',
        'events_total{node="r7",event="update"} 1',
        'events_total{node="r7",event="destroy"} 0',
        'bytes_total{node="r7",direction="in"} 2000',
        'bytes_total{node="r7",direction="out"} 2000',
        'losses_total{node="r7"} 1',
        'resyncs_total{node="r7"} 0',
        'rejected_lines_total{node="r7"} 2',
        'dropped_flows_total{node="r7"} 0',
        'statistics_total{node="r7",counter="drop"} 4',
        'alerts_total{node="r7",alert="table"} 3',
        'write_failures_total{node="r7"} 2',
    ]
    assert {re.split(r"[{ ]", sample)[0] for sample in samples(text)} == {family.name for family in METRICS}


def test_of_a_table_that_cannot_be_read_only_counters_and_the_age_are_said() -> None:
    """What it holds now nobody knows; what was counted stays true."""
    table, status = FlowTable(), Status()
    table.watch(80.0)
    listing(table, [line(1)], 90.0)
    status.take(Facts(99.0, {"count": 2, "max": 10}))
    status.take(Trouble(99.0, "listing", Problem("gone")))
    found = values(exposition(measured(table, status, stage=Stage.LOST, now=190.0)))
    assert (found["up"], found["data_age_seconds"], found['events_total event="new"']) == (0, 100, 0)
    assert not found.keys() & {"entries", "limit", 'flows protocol="tcp",state="ESTABLISHED"'}
    ended = exposition(measured(table, status, stage=Stage.ENDED))
    assert samples(ended) == ['build_info{node="r7",version="1.2"} 1', 'up{node="r7"} 0']


@pytest.mark.parametrize(("events", "trouble", "said"), [(0, None, 0), (2, None, None), (2, Problem("dead"), 0)])
def test_whether_anybody_listens(events: int, trouble: Problem | None, said: int | None) -> None:
    status = Status()
    status.take(Facts(1.0, {"events": events}))
    status.take(Trouble(1.0, "events", trouble))
    assert values(exposition(measured(FlowTable(), status))).get("listening") == said


def test_bytes_are_known_where_the_kernel_counts_though_nothing_has_moved() -> None:
    status, table = Status(), FlowTable()
    table.watch(1.0)
    assert 'bytes_total direction="in"' not in values(exposition(measured(table, status)))
    status.take(Facts(1.0, {"acct": 1}))
    assert values(exposition(measured(table, status)))['bytes_total direction="in"'] == 0


@given(st.text())
def test_a_label_comes_back_as_it_was(text: str) -> None:
    """As the format's parsers take escapes back: one backslash and what stands behind it."""
    written = label_value(text)
    assert re.fullmatch(r'(?:[^"\\\n]|\\["\\n])*', written)
    unescaped = re.sub(r"\\(.)", lambda found: {"n": "\n"}.get(found[1], found[1]), written)
    assert unescaped == text.encode("utf-8", "replace").decode()


def test_names_and_types_are_as_prometheus_wants_them() -> None:
    for family in METRICS:
        assert re.fullmatch(r"[a-z_]+", family.name)
        assert (family.kind == "counter") == family.name.endswith("_total")
        assert set(family.labels) <= {
            "alert",
            *("version", "protocol", "state", "nat", "country", "near", "direction", "event", "counter"),
        }


# --- as many series as are promised -----------------------------------------------------------------------------------


@given(st.dictionaries(st.text(max_size=2), st.integers(0, 99)), st.integers(0, 5))
def test_a_bounded_sum_is_whole(counts: dict[str, int], most: int) -> None:
    found = bounded(counts, most, "other", "kept")
    assert sum(found.values()) == sum(counts.values())
    assert len(found) <= most + 2
    assert found.get("kept") == counts.get("kept")


def test_there_are_never_500_series(monkeypatch: pytest.MonkeyPatch) -> None:
    """With all that is bounded at its bound."""
    table, status = FlowTable(), Status()
    table.watch(1.0)
    listing(table, [line(1)], 1.0)
    listing(table, [line(1)], 5.0)
    everything = {(protocol, state): 1 for protocol in PROTOCOLS for state in STATES}
    assert len(everything) > MOST_STATES
    monkeypatch.setattr(FlowTable, "counts", everything)
    hosts = [NearHost(f"10.0.0.{number}", 1, 1.0, 1.0) for number in range(BUSIEST)]
    countries = bounded({f"{number}": number for number in range(300)}, MOST_COUNTRIES, "other", "7")
    status.take(Facts(1.0, {"count": 1, "max": 1, "buckets": 1, "acct": 1}))
    sums = Sums(1.0, dict.fromkeys(NAT_KINDS, 1), countries, hosts)
    kernel = {str(number): number for number in range(MOST_KERNEL_COUNTERS)}
    text = exposition(measured(table, status, sums=sums, kernel=kernel))
    assert MOST_COUNTRIES + MOST_KERNEL_COUNTERS + BUSIEST < len(samples(text)) < 200
    assert len([sample for sample in samples(text) if sample.startswith("flows{")]) <= MOST_STATES + 1


# --- sums over all flows ----------------------------------------------------------------------------------------------


def tallied(table: FlowTable, context: Context, wanted: int = 7, where: Callable[[str], Place] = place_of) -> Sums:
    tally = Tally(context, where)
    while not tally.step(table, NOW, wanted):
        pass
    assert tally.rests
    assert tally.newest is not None
    return tally.newest


def agrees(table: FlowTable, context: Context, sums: Sums) -> None:
    """With what each flow says when it is asked by itself."""
    flows = list(table.live.values())
    assert {kind: number for kind, number in sums.nat.items() if number} == Counter(
        KEYS["nat"](flow, context) for flow in flows
    )
    countries = Counter(context.where(context.sides(flow)[1]).country or UNLOCATED for flow in flows)
    assert sums.countries == (countries if countries.keys() - {UNLOCATED} else {})
    hosts: dict[str, list[float]] = {}
    for flow in flows:
        near, _far, inward = context.sides(flow)
        row = hosts.setdefault(near, [0, 0.0, 0.0])
        row[0] += 1
        for way, rate in enumerate(flow.rates or ()):
            row[1 + (way ^ (not inward))] += rate
    falling = sorted(((row[1] + row[2], row[0], host) for host, row in hosts.items()), reverse=True)[:BUSIEST]
    assert [(host.address, host.flows) for host in sums.busiest] == [(host, flows) for _, flows, host in falling]
    for host in sums.busiest:
        assert [host.rate_in, host.rate_out] == pytest.approx(hosts[host.address][1:])


@given(histories(), st.integers(1, 9))
def test_sums_are_those_of_all_flows(blocks: list[bytes], wanted: int) -> None:
    table = FlowTable(own=frozenset({"192.0.2.1"}))
    for now, block in enumerate(blocks):
        table.begin_listing(3.0 * now)
        table.listed_all(split_lines(block)[0], 3.0 * now)
        table.end_listing(now % 3 == 0, 3.0 * now + 1)
    context = Context(Lookups(place_of), now=NOW, own=table.own)
    agrees(table, context, tallied(table, context, wanted))


CAPTURES = sorted((ROOT / "fixtures" / "captures").glob("*/L.ext-id*.txt"))


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda path: path.parent.name)
def test_sums_of_what_conntrack_printed(capture: Path) -> None:
    table = FlowTable()
    listing(table, [row + "\n" for row in capture.read_text().splitlines() if " src=" in row], 1.0)
    context = Context(Lookups(place_of), now=NOW)
    agrees(table, context, tallied(table, context))


def test_there_are_captures() -> None:
    assert len(CAPTURES) >= 10


def test_what_a_host_gets_and_sends_whoever_has_opened_the_flow() -> None:
    """A host behind the router that others reach by a forwarded port, and that asks others itself."""
    table = FlowTable(own=frozenset({WAN}))
    forwarded = Conn("198.51.100.7", 1000, WAN, 8080, to=("10.0.0.5", 80), id=1)
    for now in (0, 10):
        texts = [forwarded.line("", (100 * now, 7000 * now)), nat(id=2).line("", (20 * now, 3000 * now))]
        listing(table, [text.decode() + "\n" for text in texts], float(now))
    sums = tallied(table, Context(own=table.own))
    assert sums.busiest == [NearHost("10.0.0.5", 2, 100 + 3000, 7000 + 20)]
    assert sums.nat == {"none": 0, "snat": 1, "dnat": 1, "both": 0}


def test_a_flow_that_ends_during_a_round_is_not_counted() -> None:
    table = FlowTable()
    listing(table, [line(number) for number in range(1, 9)])
    tally = Tally(Context(), lambda _: Place())
    tally.step(table, NOW, 3)
    feed(table, "".join(event("DESTROY", number) for number in range(1, 9)))
    while not tally.step(table, NOW, 3):
        pass
    assert tally.newest is not None
    assert sum(tally.newest.nat.values()) == 3
    assert tally.newest.countries == {}  # no country is known: none is said


def test_an_empty_table_has_no_flow_of_any_kind() -> None:
    assert tallied(FlowTable(), Context()) == Sums(NOW, dict.fromkeys(NAT_KINDS, 0), {}, [])


def test_of_very_many_hosts_those_with_few_flows_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metrics.MOST_NEAR_HOSTS", 20)
    table = FlowTable()
    texts = [line(number, src=f"10.1.{number // 250}.{number % 250}") for number in range(500)]
    texts += [line(1000 + number, src="10.9.9.9") for number in range(50)]
    listing(table, [text for pair in zip(texts, texts[::-1], strict=True) for text in pair][: len(texts)])
    sums = tallied(table, Context(), 10)
    assert sums.busiest[0].address == "10.9.9.9"
    assert sum(sums.nat.values()) == len(table)


# --- counters that only grow ------------------------------------------------------------------------------------------


def statistics(at: float, **counters: int) -> Statistics:
    return Statistics(at, counters)


@given(st.lists(st.integers(0, 20_000_000), min_size=1, max_size=20), st.integers(WRAP - 40_000_000, WRAP - 1))
def test_counters_of_the_kernel_grow_though_those_of_a_cpu_begin_anew(steps: list[int], first: int) -> None:
    """32 bits of each CPU; sums of two CPUs fall by 2^32 when one of them passes it."""
    status, counters, true = Status(), KernelCounters(), first
    for at, step in enumerate([0, *steps]):
        true += step
        status.take(statistics(10.0 * at, drop=true % WRAP))
        before = dict(counters.values)
        counters.take(status)
        counters.take(status)  # the same again changes nothing
        assert counters.values["drop"] >= before.get("drop", 0)
    assert counters.values["drop"] == true - first + first % WRAP


def test_counters_of_a_kernel_that_was_started_anew_are_said_as_they_are() -> None:
    status, counters = Status(), KernelCounters()
    for item in (statistics(0.0, drop=2_000_000_000), statistics(10.0, drop=5)):
        status.take(item)
        counters.take(status)
    assert counters.values == {"drop": 5}


@given(st.data())
def test_bytes_that_moved_are_counted_once_whatever_the_order(data: st.DataObject) -> None:
    """Flows begin, move, are listed and end; listings may come before the NEW; events are lost. Nothing counts twice."""
    table, now = FlowTable(linger=0.0), 100.0
    table.watch(now)
    kernel: dict[int, list[int]] = {}
    unheard: list[int] = []  # begun, but nobody has read their NEW yet
    moved, number, listed_unheard, late = [0, 0], 0, False, False
    for what in data.draw(
        st.lists(st.sampled_from(["new", "move", "move", "list", "hear", "end", "lose"]), max_size=30)
    ):
        now += 3.0
        if what == "new":
            number += 1
            kernel[number] = [60, 0]
            moved[1] += 60
            unheard.append(number)
        elif what == "move" and kernel:
            which = data.draw(st.sampled_from(sorted(kernel)))
            for way in (0, 1):
                size = data.draw(st.integers(0, 5000))
                kernel[which][way] += size
                moved[not way] += size
        elif what == "list":
            table.begin_listing(now, in_step=not unheard)
            feed(table, "".join(line_of(n, *sizes) for n, sizes in kernel.items()), now)
            table.end_listing(True, now)
            late = late or (listed_unheard and bool(unheard))
            listed_unheard = bool(unheard)
        elif what == "hear" or (what == "end" and unheard):
            for text in [nat(id=n, sport=n, port=n).line("new") for n in unheard]:
                feed(table, text + b"\n", now)
            unheard.clear()
            listed_unheard = False
        elif what == "lose":  # what nobody has read of what began, and an end
            unheard.clear()
            kernel = {n: sizes for n, sizes in kernel.items() if n % 2}
            listed_unheard, late = False, True
        elif what == "end" and kernel:
            which = data.draw(st.sampled_from(sorted(kernel)))
            sent, answered = kernel.pop(which)
            feed(table, nat(id=which, sport=which, port=which).line("destroy", (sent, answered)) + b"\n", now)
    for text in [nat(id=n, sport=n, port=n).line("new") for n in unheard]:
        feed(table, text + b"\n", now)
    listing(table, [line_of(n, *sizes) for n, sizes in kernel.items()], now + 3.0)
    late = late or (listed_unheard and bool(unheard))
    assert all(counted <= true for counted, true in zip(table.traffic.moved, moved, strict=True))
    assert late or table.traffic.moved == moved  # listed twice before its NEW: how it began nobody can tell


def line_of(number: int, sent: int, answered: int) -> str:
    return nat(id=number, sport=number, port=number).line("", (sent, answered)).decode() + "\n"


@pytest.mark.parametrize(("sizes", "counted"), [((60,), 60), ((60, 500), 440), ((60, 60), 60)])
def test_a_new_that_is_read_late_tells_of_no_byte_twice(sizes: Sequence[int], counted: int) -> None:
    """The program is behind, so that listings show a flow before its NEW is read."""
    table = FlowTable()
    table.watch(0.0)
    for now, size in enumerate(sizes, 1):
        table.begin_listing(3.0 * now, in_step=False)
        feed(table, line_of(1, size, 0), 3.0 * now)
        table.end_listing(True, 3.0 * now)
    feed(table, nat(id=1, sport=1, port=1).line("new") + b"\n", 9.0)
    feed(table, nat(id=1, sport=1, port=1).line("update") + b"\n", 9.0)
    assert table.traffic.moved == [0, counted]


def test_what_moved_before_anybody_looked_is_not_counted() -> None:
    table = FlowTable()
    listing(table, [line_of(1, 10_000, 90_000)], 1.0)
    assert table.traffic.moved == [0, 0]
    listing(table, [line_of(1, 10_100, 90_900)], 4.0)
    assert table.traffic.moved == [900, 100]
    feed(table, nat(id=1, sport=1, port=1).line("destroy", (10_101, 90_902)) + b"\n", 5.0)
    assert table.traffic.moved == [902, 101]


def test_counters_that_were_set_to_zero_take_nothing_away() -> None:
    """`conntrack -L -z`"""
    table = FlowTable()
    for now, size in ((1.0, 500), (4.0, 700), (7.0, 20), (10.0, 30)):
        listing(table, [line_of(1, size, 0)], now)
    assert table.traffic.moved == [0, 210]


def test_a_flow_that_was_dropped_for_want_of_room_and_comes_back_is_not_counted_anew() -> None:
    table = FlowTable(limit=1)
    for now in (1.0, 4.0, 7.0):
        listing(table, [line_of(1, 1_000_000, 0), line_of(2, 1_000_000, 0)], now)
    assert table.overflow > 0
    assert table.traffic.moved == [0, 0]


# --- the file ---------------------------------------------------------------------------------------------------------


class Kept:
    """A file of metrics, its table, and a clock that goes on when told; adding up 100 flows takes ``cost`` of it."""

    def __init__(self, path: Path, patch: pytest.MonkeyPatch, flows: int = 3, cost: float = 0.001) -> None:
        self.path, self.clock, self.steps = path, 1000.0, 0
        patch.setattr(run, "time", SimpleNamespace(**{**vars(time), "monotonic": lambda: self.clock}))
        real = Tally.step

        def step(tally: Tally, table: FlowTable, now: float, wanted: int) -> bool:
            self.clock += cost
            self.steps += 1
            return real(tally, table, now, wanted)

        patch.setattr(Tally, "step", step)
        self.table, self.status = FlowTable(), Status()
        self.table.watch(self.clock)
        self.flows = [
            line(number, sport=1 + number % 60_000, src=f"10.0.{number // 60_000}.1") for number in range(flows)
        ]
        self.file = MetricsFile(MetricsPlan(str(path), "1.2"))
        self.add("r7", self.table, self.status)

    def add(self, node: str, table: FlowTable, status: Status) -> None:
        self.file.add(NodeMetrics(node, table, status, lambda: self.clock, Context(), lambda _: Place("DE")))

    def list(self) -> None:
        listing(self.table, self.flows, self.clock)

    def seconds(self, seconds: float) -> None:
        """Time passes, and the loop comes round whenever it is due."""
        until = self.clock + seconds
        while self.clock < until:
            self.file.poll()
            self.clock = max(self.clock + 0.0001, min(until, self.file.deadline()))

    def written(self) -> int:
        """When, by its inode and time of change; a number that a new file changes."""
        return self.path.stat().st_ino if self.path.exists() else 0

    def found(self) -> dict[str, float]:
        return values(self.path.read_text())


def test_it_is_there_at_once_and_renewed_every_15_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(tmp_path / "c.prom", monkeypatch)
    kept.list()
    kept.seconds(0.2)
    assert kept.found() == {**kept.found(), 'nat_flows nat="none"': 3, 'country_flows country="DE"': 3, "up": 1}
    turns = []
    for _ in range(60):
        before = kept.path.stat()
        kept.seconds(1.0)
        turns.append(kept.path.stat().st_mtime_ns != before.st_mtime_ns)
    assert turns.count(True) == 4
    assert kept.steps <= 5 * 2


def test_all_flows_are_added_up_a_moment_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(tmp_path / "c.prom", monkeypatch, flows=20_000)
    kept.list()
    longest, turns = 0.0, 0
    while not kept.path.exists():
        before = kept.clock
        kept.file.poll()
        longest, turns = max(longest, kept.clock - before), turns + 1
        kept.clock = max(kept.clock, kept.file.deadline())
    assert longest <= SUMS_SLICE + 0.0011
    assert turns >= 20_000 / SUMMED_AT_ONCE / 6
    assert kept.found()['nat_flows nat="none"'] == 20_000


def test_a_file_does_not_wait_for_sums_that_take_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a million flows come later, and the file is renewed nevertheless."""
    kept = Kept(tmp_path / "c.prom", monkeypatch, flows=80_000, cost=0.006)
    kept.list()
    kept.seconds(10.5)
    assert 'nat_flows nat="none"' not in kept.found()
    assert kept.found()['flows protocol="tcp",state="ESTABLISHED"'] == 80_000
    kept.seconds(25.0)
    assert kept.found()['nat_flows nat="none"'] == 80_000
    assert kept.found()["sums_age_seconds"] > 15
    inodes, longest = [], 0
    for _ in range(60):
        kept.seconds(1.0)
        inodes.append(kept.path.stat().st_mtime_ns)
        longest = max(longest, inodes.count(inodes[-1]))
    assert longest <= METRICS_EVERY + 1


def test_a_table_that_cannot_be_read_is_said_to_be_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(tmp_path / "c.prom", monkeypatch)
    kept.seconds(12.0)  # nothing was ever listed
    assert kept.found()["up"] == 0
    kept.list()
    kept.seconds(15.0)
    assert kept.found()["up"] == 1
    kept.status.take(Trouble(kept.clock, "listing", Problem("gone")))
    kept.seconds(15.0)
    assert kept.found()["up"] == 0
    assert 'flows protocol="tcp",state="ESTABLISHED"' not in kept.found()


def test_a_file_of_several_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each family is there once. Sums are of all; who has no table yet keeps nobody waiting, and is down."""
    kept = Kept(tmp_path / "c.prom", monkeypatch, flows=300)
    other, down = FlowTable(), FlowTable()
    kept.add("r8", other, Status())
    kept.add("r9", down, Status())
    kept.list()
    listing(other, kept.flows[:5], kept.clock)
    kept.seconds(10.5)
    text = kept.path.read_text()
    assert [f'conntrack_monitor_up{{node="r{number}"}} {up}' in text for number, up in ((7, 1), (8, 1), (9, 0))]
    for node, number in (("r7", 300), ("r8", 5)):
        assert f'conntrack_monitor_nat_flows{{node="{node}",nat="none"}} {number}\n' in text
    assert re.findall(r'conntrack_monitor_(\w+)\{node="r9"', text) == [
        *("build_info", "up", "losses_total", "resyncs_total", "rejected_lines_total", "dropped_flows_total"),
        "write_failures_total",
    ]
    heads = re.findall(r"^# TYPE (\S+)", text, re.M)
    assert len(heads) == len(set(heads))
    in_order = [line.partition("{")[0] for line in samples(text)]
    assert in_order == sorted(in_order, key=in_order.index)  # each family's samples stand together
    kept.file.close()
    assert samples(kept.path.read_text())[3:] == [f'up{{node="r{number}"}} 0' for number in (7, 8, 9)]


def test_at_the_end_the_file_says_that_nobody_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(tmp_path / "c.prom", monkeypatch)
    kept.list()
    kept.seconds(1.0)
    kept.file.close()
    assert kept.found() == {'build_info version="1.2"': 1, "up": 0}
    assert os.listdir(tmp_path) == ["c.prom"]


def test_a_folder_that_is_missing_is_said_and_used_once_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept(tmp_path / "not yet" / "c.prom", monkeypatch)
    kept.list()
    kept.seconds(16.0)
    said = f"metrics are not being written: No such file or directory: {kept.path}"
    assert kept.file.problem == Problem(said, f"mkdir -p '{tmp_path}/not yet'")
    assert kept.file.state(kept.clock) == f"{clean(str(kept.path), 60)}: nothing is written yet"
    kept.path.parent.mkdir()
    kept.seconds(15.0)
    assert kept.file.problem is None
    assert kept.found()["write_failures_total"] == kept.file.failures == 2
    assert re.fullmatch(r".*: written \d+ s ago; it could not be written 2x", kept.file.state(kept.clock))


def test_nothing_is_left_or_made_by_a_file_that_never_could_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    kept = Kept(tmp_path / "file" / "c.prom", monkeypatch)
    kept.list()
    kept.seconds(1.0)
    assert kept.file.problem == Problem(
        f"metrics are not being written: Not a directory: {kept.path}", f"ls -ld {tmp_path}/file"
    )
    kept.file.close()
    assert os.listdir(tmp_path) == ["file"]


def test_another_process_that_writes_the_same_file_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their counters differ: Prometheus would see them jump up and down."""
    kept = Kept(tmp_path / "c.prom", monkeypatch)
    kept.list()
    kept.seconds(31.0)
    assert kept.file.problem is None
    replace_file(str(kept.path), "other\n")
    kept.file.close()
    assert kept.path.read_text() == "other\n"  # the other one goes on
    kept.seconds(15.0)
    assert kept.file.problem == Problem(f"another process also writes {kept.path}", "pgrep -af conntrack.monitor")
    kept.seconds(15.0)
    assert kept.file.problem is None
    kept.path.unlink()  # somebody cleans up: that is nobody who writes
    kept.seconds(15.0)
    assert kept.file.problem is None
    assert kept.path.exists()


def test_a_file_for_everybody_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "c.prom"
    before = os.umask(0o077)
    try:
        replace_file(str(path), "1\n")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    """/dev/null, as root."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path):
        with pytest.raises(OSError, match="not a regular file"):
            replace_file(str(path), "1\n")
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert os.listdir(tmp_path) == ["pipe"]


def test_links_are_not_followed(tmp_path: Path) -> None:
    """Where others may write into the folder, a link of theirs must not lead root's hand anywhere."""
    victim, path = tmp_path / "victim", tmp_path / "c.prom"
    victim.write_text("mine\n")
    path.symlink_to(victim)
    (tmp_path / f".c.prom.{os.getpid()}.part").symlink_to(victim)
    replace_file(str(path), "1\n")
    assert (victim.read_text(), path.read_text(), path.is_symlink()) == ("mine\n", "1\n", False)


def test_a_name_without_a_folder_is_in_the_one_that_the_program_was_started_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    replace_file("c.prom", "1\n")
    assert os.listdir(tmp_path) == ["c.prom"]


def refusing(number: int) -> Callable[..., None]:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def test_what_fails_in_the_middle_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.prom"
    replace_file(str(path), "old\n")
    monkeypatch.setattr(os, "replace", refusing(errno.EROFS))
    with pytest.raises(OSError, match="Read-only"):
        replace_file(str(path), "new\n")
    assert (os.listdir(tmp_path), path.read_text()) == (["c.prom"], "old\n")


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for next to nothing."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    assert os.system(f"mount -t tmpfs -o size=4k cm-metrics {folder}") == 0
    yield folder
    assert os.system(f"umount {folder}") == 0


@kernel_mark()
def test_a_full_disk_is_said_and_the_old_file_stays_whole(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(tiny / "c.prom", monkeypatch)
    kept.list()
    kept.seconds(1.0)
    shown = kept.path.read_text()
    (tiny / "more").write_bytes(b"")
    with open(tiny / "more", "wb", buffering=0) as file:
        try:
            file.write(bytes(4096))
        except OSError:
            pass
    kept.seconds(15.0)
    assert kept.file.problem == Problem(
        f"metrics are not being written: No space left on device: {kept.path}", f"df -h {tiny}"
    )
    assert kept.path.read_text() == shown
    assert sorted(os.listdir(tiny)) == ["c.prom", "more"]


# --- the documents ----------------------------------------------------------------------------------------------------


def test_the_document_has_every_family_with_its_type_and_labels() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    said = re.findall(r"^\| `conntrack_monitor_(\w+)` \| (\w+) \|([^|]*)\|", text, re.M)
    assert [(name, kind, re.findall(r"`(\w+)`", labels)) for name, kind, labels in said] == [
        (family.name, family.kind, list(family.labels)) for family in METRICS
    ]


def test_the_contract_names_what_others_rely_on() -> None:
    text = (ROOT / "docs" / "contracts.md").read_text(encoding="utf-8").partition("\n## Metrics\n")[2]
    named: Sequence[str] = re.findall(r"`conntrack_monitor_(\w+)", text.partition("\n## ")[0])
    assert set(named) == {family.name for family in METRICS}


def test_made_up_data_is_of_this_house() -> None:
    """What the tests above stand on: a translated flow is sent by a near host."""
    table = FlowTable(own=frozenset({WAN}))
    listing(table, [line_of(1, 1, 2)])
    (flow,) = table.live.values()
    assert Context(own=table.own).sides(flow)[0] == "10.0.0.5"
