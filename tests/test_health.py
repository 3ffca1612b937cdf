"""The health of the table: against the real kernel's counters, with a clock by hand, counted piece by piece."""

from __future__ import annotations

import math
import select
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from lab import Lab, Namespace, insert_arguments, kernel_mark, load
from worlds import World, event, feed, flow_lines, line, listing

import health
import source
from flows import FlowTable
from health import Base, Census, HealthRow, Shares, brief, full_in, growth, panel
from intake import (
    ACCOUNTING_CURE,
    EVENTS_CURE,
    Ended,
    Facts,
    Intake,
    Item,
    ListingBegan,
    ListingEnded,
    Lost,
    Problem,
    Statistics,
    Status,
    Trouble,
)
from recording import Recorder, Replay
from source import parse_statistics

CAPTURES = Path(__file__).parent.parent / "fixtures" / "captures"
MOST = 262_144
NAMES = ("insert_failed", "drop", "early_drop", "chaintoolong")


def intake_of(*items: Item) -> Intake:
    intake = Intake(FlowTable())
    for item in items:
        intake.take(item)
    return intake


def counts(at: float, **values: int) -> Facts:
    return Facts(at, {"max": MOST, **values})


def filling(seconds: float, count: Callable[[float], float], step: float = 5.0) -> Status:
    """What is known after so many seconds of facts, one each 5 s."""
    times = [step * number for number in range(int(seconds / step) + 1)]
    return intake_of(*(counts(at, count=int(count(at))) for at in times)).status


def row(rows: list[HealthRow], label: str) -> HealthRow:
    (found,) = [row for row in rows if row.label == label]
    return found


# --- conntrack -S -----------------------------------------------------------------------------------------------------


def test_netlink_s_counters_are_summed_over_the_cpus() -> None:
    values = parse_statistics((CAPTURES / "stats-count" / "S.txt").read_text())
    assert values["insert"] == 12259 + 6623
    assert values["found"] == 1
    assert values["invalid"] == values["error"] == 2
    assert {*NAMES, "search_restart", "clash_resolve"} <= values.keys()


@pytest.mark.parametrize("path", ["stats-count/nobody-S.txt", "failures/nobody-S.stdout"])
def test_proc_s_counters_have_the_same_names(path: str) -> None:
    values = parse_statistics((CAPTURES / path).read_text())
    assert {*NAMES, "clash_resolve", "error", "invalid"} <= values.keys()
    assert not {"entries", "clashres", "icmp_error", "chainlength"} & values.keys()
    if "stats" in path:
        netlink = parse_statistics((CAPTURES / "stats-count" / "S.txt").read_text())
        assert {name: values[name] for name in netlink} == netlink


@given(st.one_of(st.text(), st.text("cpu=0 \tfound=19_\n")))
def test_any_answer_is_taken(text: str) -> None:
    values = parse_statistics(text)
    assert all(name and number >= 0 for name, number in values.items())


@pytest.mark.parametrize("text", ["", "found=1 drop=2\n", "conntrack v1.4.7: 3 flow entries\n", "cpu=0 drop=-1 x==2\n"])
def test_what_is_no_answer_is_none(text: str) -> None:
    assert parse_statistics(text) == {}


# --- the real kernel --------------------------------------------------------------------------------------------------


def turn(live: source.LiveSource) -> list[Item]:
    """What has come after a moment's wait."""
    poll = select.poll()
    for fd in live.fds():
        poll.register(fd, select.POLLIN)
    due = live.deadline()
    poll.poll(200 if due is None else max(0.0, min(0.2, due - time.monotonic())) * 1000)
    return list(live.poll())


def until(live: source.LiveSource, wanted: Callable[[list[Item]], bool]) -> list[Item]:
    found: list[Item] = []
    deadline = time.monotonic() + 30
    while not wanted(found):
        assert time.monotonic() < deadline, found
        found += turn(live)
    return found


def asked(live: source.LiveSource) -> Statistics:
    """The next answer of `conntrack -S`, asked for now."""
    live._statistics_due = 0.0
    found = until(live, lambda items: any(isinstance(item, Statistics) for item in items))
    return next(item for item in found if isinstance(item, Statistics))


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


@kernel_mark()
def test_nat_without_a_free_port_is_seen_and_explained(lab: Lab) -> None:
    """Six flows to one place through one port: the kernel enters one, and drops the others' packets."""
    rule = "add rule inet lab way_out oifname wan ip saddr 10.99.1.0/24 meta l4proto udp masquerade to :5000"
    lab.router.nft(f"flush chain inet lab way_out\n{rule}\n")
    live = source.LiveSource(source.Command(via=lab.router.prefix), 60.0, events=False, statistics=True)
    try:
        intake = intake_of(asked(live))
        lab.udp_unanswered(4000, flows=6)
        intake.take(asked(live))
    finally:
        live.close()
    now = intake.status.counted[-1].at
    rows = panel(intake.status, intake.table, None, [], now)
    refused = row(rows, "insert_failed")
    assert refused.value.startswith("5 in ")
    assert refused.value.endswith("5 ever: new flows refused: two packets raced, or NAT ran out of ports")
    assert refused.role == "warn"
    assert "--random-fully" in refused.cure == row(rows, "drop").cure
    assert row(rows, "early_drop").role == row(rows, "chaintoolong").role == "good"
    assert [text.split()[0] for text, _ in brief(intake.status, None, now)] == ["drop", "insert_failed"]


@kernel_mark()
def test_facts_and_statistics_of_a_namespace_are_its_own() -> None:
    with Namespace() as ns:
        fields = {"src": "192.0.2.1", "dst": "192.0.2.2", "dport": 80}
        load(ns, ("-I " + " ".join(insert_arguments(**fields, sport=port)) for port in range(1, 101)))
        live = source.LiveSource(source.Command(via=ns.prefix), 60.0, statistics=True)
        try:
            found = until(live, lambda items: {Facts, Statistics, ListingEnded} <= {type(item) for item in items})
        finally:
            live.close()
    intake = intake_of(*found)
    assert intake.status.facts["count"] == 100
    assert intake.status.facts["buckets"] > 0
    assert intake.status.counted_first is not None
    assert intake.status.counted_first.values["insert"] == 100
    assert row(panel(intake.status, intake.table, None, [], live.clock()), "table").value.startswith("<1 %, 100 of ")


@kernel_mark()
def test_the_kernel_knows_the_cures() -> None:
    """Every sysctl that a cure names is there, and iptables takes the limit."""
    status = filling(60, lambda at: 260_000 + at)
    status.take_facts(counts(61, count=MOST, acct=0, events=0, timestamp=0))
    status.take_statistics(Statistics(1, dict.fromkeys(NAMES, 0)))
    status.take_statistics(Statistics(61, dict.fromkeys(NAMES, 60)))
    table = FlowTable()
    sources = (("2001:db8::1", 900_000), ("192.0.2.1", 600_000))
    rows = panel(status, table, Shares(1_000_000, 900_000, 900_000, sources), [], 61)
    listing(table, (line(number, state="SYN_SENT") for number in range(1500)))
    rows += panel(status, table, Shares(2000, 0, 1999, ()), [], 61)
    cures = {row.cure for row in rows if row.cure and row.cure != health.CLASH_CURE}
    assert len(cures) >= 8
    with Namespace() as ns:
        for cure in sorted(cures):
            program, *words = cure.split()
            if program == "sysctl":
                name, _, value = words[-1].partition("=")
                assert value.isdigit()
                assert ns.run(["cat", "/proc/sys/" + name.replace(".", "/")]).stdout.strip().isdigit()
            else:
                ns.run(cure.split())


FAKE = """#!/bin/sh
echo "$*" >>{log}
case "$*" in
-S) {answer} ;;
-L*) echo "conntrack v1.4.7 (conntrack-tools): 0 flow entries have been shown." >&2 ;;
*) exec sleep 60 ;;
esac
"""


@pytest.mark.parametrize(
    ("statistics", "answer", "wanted"),
    [
        (True, "printf 'cpu=0   \\tdrop=7 \\n'; exit 1", {"drop": 7}),
        (True, "echo must be root >&2; exit 1", None),
        (True, "echo 'cpu=0 is busy'", None),
        (False, "echo 'cpu=0 drop=7'", None),
    ],
)
def test_it_is_asked_where_somebody_looks_and_no_answer_is_no_trouble(
    statistics: bool, answer: str, wanted: dict[str, int] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, log = tmp_path / "conntrack", tmp_path / "log"
    program.write_text(FAKE.format(log=log, answer=answer))
    program.chmod(0o755)
    monkeypatch.setattr(source, "STATISTICS_FIRST", 0.0)
    monkeypatch.setattr(source, "STATISTICS_EVERY", 0.1)
    live = source.LiveSource(source.Command(conntrack=str(program)), 0.1, statistics=statistics)
    try:
        enough = 2 if statistics else 0
        ended = until(
            live,
            lambda items: (
                sum(isinstance(item, ListingEnded) for item in items) >= 4
                and log.read_text().split("\n").count("-S") >= enough
                and (wanted is None or any(isinstance(item, Statistics) for item in items))
            ),
        )
    finally:
        live.close()
    assert ("-S" in log.read_text().split("\n")) is statistics
    answers = [item.values for item in ended if isinstance(item, Statistics)]
    assert all(values == wanted for values in answers)
    assert [item for item in ended if isinstance(item, Trouble) and item.problem] == []


# --- recordings -------------------------------------------------------------------------------------------------------


def test_statistics_are_recorded_and_replayed(tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    recorder = Recorder(str(path))
    values = parse_statistics((CAPTURES / "stats-count" / "S.txt").read_text())
    recorder.write(Statistics(1.0, values))
    recorder.write(Facts(1.0, {"count": 3, "max": 7}))
    recorder.close()
    replay = Replay(str(path), 0.0)
    found: list[Item] = []
    for _ in range(10_000):
        found += replay.poll()
    replay.close()
    assert isinstance(found[-1], Ended)
    assert [(type(item), item.values) for item in found if isinstance(item, (Facts, Statistics))] == [
        (Statistics, values),
        (Facts, {"count": 3, "max": 7}),
    ]


# --- counters and their minute ----------------------------------------------------------------------------------------


def counted(*numbers: int, every: float = 10.0, name: str = "insert_failed") -> Status:
    items = (Statistics(every * index, {name: number, "drop": 5}) for index, number in enumerate(numbers))
    return intake_of(*items).status


@pytest.mark.parametrize(
    ("numbers", "total", "rate"),
    [
        ((100,), 0, 0),
        ((100, 102), 2, 12),
        ((100, 102, 102, 102, 102, 102, 102), 2, 2),
        ((100, 102, 102, 102, 102, 102, 102, 102), 2, 0),  # it was more than a minute ago
        ((2**32 - 1, 5), 6, 36),  # a CPU's counter began anew
        ((2**33 + 7, 2**32 + 9), 2, 12),  # one of many CPUs' did
        ((3_000_000_000, 3_000_000_010, 1, 2), 1, 6),  # the kernel did
    ],
)
def test_counters_since_the_start_and_a_minute(numbers: tuple[int, ...], total: int, rate: int) -> None:
    status = counted(*numbers)
    now = 10.0 * (len(numbers) - 1)
    assert health.a_minute(status, "insert_failed", now) == rate
    value = row(panel(status, FlowTable(), None, [], now), "insert_failed").value
    assert value.startswith(f"{total} in ") or len(numbers) == 1
    assert f"{numbers[-1]} ever" in value
    assert ("/min" in value) is bool(rate)
    assert brief(status, None, now) == ([(f"insert_failed +{rate}/min", "warn")] if rate else [])


@pytest.mark.parametrize(
    ("new", "count", "wanted"),
    [
        # a clash is a drop, too
        ({"drop": 3, "insert_failed": 3}, 9, {"drop": ("warn", "--random"), "insert_failed": ("warn", "--random")}),
        ({"drop": 4, "insert_failed": 3}, 9, {"drop": ("warn", "_max=524288"), "insert_failed": ("warn", "--random")}),
        ({"drop": 4, "early_drop": 1}, MOST, {"drop": ("bad", "_max=5"), "early_drop": ("bad", "_max=524288")}),
        (
            {"chaintoolong": 3, "insert_failed": 3},
            9,
            {"chaintoolong": ("warn", "_buckets=262144"), "insert_failed": ("warn", "_buckets=262144")},
        ),
        ({"invalid": 900, "clash_resolve": 4}, MOST - 1, {"invalid": ("plain", ""), "clash_resolve": ("plain", "")}),
    ],
)
def test_what_the_counters_mean(new: dict[str, int], count: int, wanted: dict[str, tuple[str, str]]) -> None:
    names = (*NAMES, "invalid", "clash_resolve")
    first, last = Statistics(0, dict.fromkeys(names, 7)), Statistics(10, {name: 7 + new.get(name, 0) for name in names})
    status = intake_of(counts(9, count=count, buckets=65_536), first, last).status
    rows = {row.label: row for row in panel(status, FlowTable(), None, [], 10)}
    for name, (role, cure) in wanted.items():
        assert rows[name].role == role
        assert cure in rows[name].cure
        assert bool(cure) is bool(rows[name].cure)
    quiet = set(NAMES) - new.keys()
    assert {(rows[name].role, rows[name].cure) for name in quiet} <= {("good", "")}
    assert [text.split()[0] for text, _ in brief(status, None, 10) if "/min" in text] == [
        name for name in ("early_drop", "drop", "insert_failed", "chaintoolong") if name in new
    ]


def test_other_counters_begin_anew() -> None:
    """sudo's netlink says other names than /proc does: nothing of the one is taken from the other."""
    status = intake_of(Statistics(0, {"drop": 5, "expect_new": 1}), Statistics(10, {"drop": 9})).status
    assert health.a_minute(status, "drop", 10) == 0
    assert status.counted_first == status.counted[-1]


def test_a_rate_that_nobody_asked_for_since_is_none() -> None:
    status = counted(100, 102)
    assert health.a_minute(status, "insert_failed", 40) == 12
    assert health.a_minute(status, "insert_failed", 50) == 0


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 2**40)), max_size=200))
@example([(0.0, 0), (1e-305, 30)])
def test_a_bounded_minute_is_kept(steps: list[tuple[float, int]]) -> None:
    status, at = Status(), 0.0
    for wait, number in steps:
        at += wait
        status.take_statistics(Statistics(at, {"drop": number}))
        status.take_facts(counts(at, count=number))
        assert len(status.counted) <= 30
        assert len(status.fill) <= 60
        assert at - status.counted[0].at <= 61
        assert health.a_minute(status, "drop", at) >= 0
        panel(status, FlowTable(), None, [], at)


# --- time to full -----------------------------------------------------------------------------------------------------


@given(st.integers(10, 4000), st.integers(30, 200), st.integers(0, 1000))
def test_steady_growth_tells_when_the_table_is_full(rate: int, seconds: int, first: int) -> None:
    seconds -= seconds % 5
    status = filling(seconds, lambda at: first + rate * at)
    grows = growth(status, seconds)
    assert grows is not None
    assert grows[0] == pytest.approx(rate)
    assert grows[1]
    left = max(0, MOST - first - rate * seconds)
    assert full_in(status, seconds) == (pytest.approx(left / rate) if left / rate <= 86_400 else None)


@pytest.mark.parametrize(
    ("seconds", "count", "asked"),
    [
        (25, lambda at: 1000 + 100 * at, 25),  # not known for long enough
        (60, lambda at: 1000 + (20_000 if at > 50 else 0), 60),  # a burst
        (60, lambda at: 1000 + (20_000 if at > 5 else 0), 60),  # a burst that is over
        (60, lambda at: 90_000 - 100 * at, 60),
        (60, lambda at: 1000 + 900 * min(at, 60 - at), 60),  # up and down
        (60, lambda at: 5000 + at % 3, 60),
        (60, lambda at: 1000 + at / 10, 60),  # a month
        (60, lambda at: 1000 + 100 * at, 100),  # nobody has counted since
    ],
)
def test_nothing_is_foretold_from(seconds: float, count: Callable[[float], float], asked: float) -> None:
    assert full_in(filling(seconds, count), asked) is None


def test_only_the_last_minute_counts() -> None:
    status = filling(600, lambda at: 10_000 + (at - 540) * 200 if at > 540 else 10_000)
    assert full_in(status, 600) == pytest.approx((MOST - 22_000) / 200)


def test_many_counts_a_second_do_not_shorten_the_minute() -> None:
    status = filling(60, lambda at: 1000 + 100 * at, step=0.1)
    assert full_in(status, 60) == pytest.approx((MOST - 7000) / 100, rel=0.01)


def test_a_table_that_fills_is_said_in_words() -> None:
    status = filling(60, lambda at: 120_000 + 500 * at)
    assert full_in(status, 60) == pytest.approx((MOST - 150_000) / 500)  # 224 s
    table = row(panel(status, FlowTable(), None, [], 60), "table")
    assert table.value == "57 %, 150000 of 262144, +500/s: full in about 4 min at the present growth"
    assert (table.role, table.cure) == ("bad", "sysctl -w net.netfilter.nf_conntrack_max=524288")
    assert table.share == pytest.approx(150_000 / MOST)
    assert brief(status, None, 60) == [("full in ~4 min", "bad")]


@pytest.mark.parametrize(
    ("count", "role", "said"),
    [
        (0, "good", "0 %, 0 of 262144"),
        (1, "good", "<1 %, 1 of 262144"),
        (MOST * 7 // 10 + 1, "warn", "70 %, "),
        (MOST * 9 // 10 + 1, "bad", "90 %, "),
        (MOST - 1, "bad", ">99 %, "),
        (MOST, "bad", "100 %, 262144 of 262144: full, new flows are dropped"),
        (MOST + 5, "bad", "100 %, 262149 of 262144: full, new flows are dropped"),
    ],
)
def test_how_full_it_is(count: int, role: str, said: str) -> None:
    status = intake_of(counts(1, count=count)).status
    table = row(panel(status, FlowTable(), None, [], 1), "table")
    assert table.role == role
    assert table.value.startswith(said)
    assert bool(table.cure) is (role != "good")
    assert brief(status, None, 1) == ([("table full", "bad")] if count >= MOST else [])


# --- who fills it -----------------------------------------------------------------------------------------------------


def full_count(table: FlowTable) -> tuple[int, int, int, Counter[str]]:
    records = [flow.record() for flow in table.live.values()]
    flags = Counter(flag for record in records for flag in set(record.flags))
    sources = Counter(record.original.src for record in records)
    return len(records), flags["ASSURED"], flags["UNREPLIED"], sources


def assert_counted(shares: Shares | None, table: FlowTable) -> None:
    flows, assured, unreplied, sources = full_count(table)
    assert shares is not None
    assert shares[:3] == (flows, assured, unreplied)
    assert [number for _, number in shares.sources] == [number for _, number in sources.most_common(health.TOP)]
    assert all(sources[address] == number for address, number in shares.sources)


@given(st.lists(st.tuples(st.lists(flow_lines(), max_size=8), st.integers(0, 3), st.booleans()), max_size=6))
def test_pieces_add_up_while_flows_come_and_go(blocks: list[tuple[list[bytes], int, bool]]) -> None:
    table, census = FlowTable(), Census()
    begun: set[int] = set()  # the flows at the beginning of the round
    for lines, steps, is_listing in blocks:
        if is_listing:
            table.begin_listing(1.0)
        feed(table, b"".join(lines), 1.0)
        if is_listing:
            table.end_listing(True, 1.0)
        for _ in range(steps):
            if not census._left:
                begun = {id(flow) for flow in table.live.values()}
            if census.step(table, 2):
                assert census.newest is not None
                there = {id(flow) for flow in table.live.values()}
                assert len(begun & there) <= census.newest.flows <= len(begun)
    while census._left:
        census.step(table, 2)
    while not census.step(table, 2):
        pass
    assert_counted(census.newest, table)


def test_what_ends_before_its_turn_is_not_counted() -> None:
    table, census = FlowTable(), Census()
    listing(table, (line(number, src=f"192.0.2.{number}") for number in range(1, 5)))
    assert not census.step(table, 2)  # the newest two
    feed(table, event("DESTROY", 1, src="192.0.2.1") + event("DESTROY", 4, src="192.0.2.4"))
    assert census.step(table, 2)
    assert census.newest is not None
    assert census.newest.flows == census.newest.assured == 3
    assert {address for address, _ in census.newest.sources} == {"192.0.2.2", "192.0.2.3", "192.0.2.4"}


def test_more_sources_than_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """300 flows of one address among 900 others: what is forgotten meanwhile is not the one that has many."""
    monkeypatch.setattr(health, "MOST_SOURCES", 20)
    table, census = FlowTable(), Census()
    sources = ["192.0.2.7" if number % 4 == 0 else f"10.0.{number // 200}.{number % 200}" for number in range(1200)]
    listing(table, (line(number, src=address) for number, address in enumerate(sources)))
    while not census.step(table, 50):
        assert len(census._sources) <= 20
    assert census.newest is not None
    assert census.newest.flows == 1200
    assert census.newest.sources[0] == ("192.0.2.7", 300)


def test_a_program_s_name_is_no_flag() -> None:
    table, census = FlowTable(), Census()
    feed(table, event("NEW", 1, flags="[UNREPLIED] ").rstrip("\n") + " [USERSPACE] portid=1 progname=[ASSURED]\n")
    assert census.step(table)
    assert census.newest == Shares(1, 0, 1, (("10.0.0.1", 1),))


def test_an_empty_table_is_counted_at_once() -> None:
    census = Census()
    assert census.step(FlowTable())
    assert census.newest == Shares()
    assert [row.label for row in panel(Status(), FlowTable(), census.newest, [], 1)][:2] == ["table", "events lost"]


@pytest.mark.parametrize(("count", "number", "said"), [(150_000, 41, True), (150_000, 29, False), (100_000, 41, False)])
def test_who_holds_much_of_a_table_that_fills(count: int, number: int, said: bool) -> None:
    status = intake_of(counts(1, count=count)).status
    shares = Shares(100, 50, 0, (("10.0.0.23", number), ("2001:db8::1", 9)))
    found = row(panel(status, FlowTable(), shares, [], 1), "10.0.0.23")
    assert found.value == f"holds {number} %, {number} flows"
    assert found.share == number / 100
    assert (found.role, bool(found.cure)) == (("warn", True) if said else ("plain", False))
    assert brief(status, shares, 1) == ([(f"10.0.0.23 holds {number} %", "warn")] if said else [])


# --- how well we see --------------------------------------------------------------------------------------------------


def test_losses_and_what_made_them_good() -> None:
    intake = intake_of(ListingBegan(1), Lost(2, "events (ENOBUFS)"), ListingEnded(3, True))
    lost = row(panel(intake.status, intake.table, None, [], 4), "events lost")
    assert lost.value == "once, table read anew 0 times; the last 2 s ago: events (ENOBUFS)"
    assert lost.role == "warn"  # that listing began before
    assert lost.cure == health.LOSS_CURE
    for item in (ListingBegan(5), ListingEnded(6, False), ListingBegan(7), Lost(8, "events (ENOBUFS)")):
        intake.take(item)
    intake.take(ListingEnded(9, True))
    assert (intake.status.healed, intake.status.resyncs, intake.status.losses) == (1, 1, 2)
    assert row(panel(intake.status, intake.table, None, [], 9), "events lost").role == "warn"
    for item in (ListingBegan(10), ListingEnded(11, True), ListingBegan(12), ListingEnded(13, True)):
        intake.take(item)
    assert (intake.status.healed, intake.status.resyncs) == (2, 2)
    assert row(panel(intake.status, intake.table, None, [], 14), "events lost").role == "plain"


def test_what_is_switched_off_comes_with_its_cure() -> None:
    world = World([line(1)])
    world.status.facts = {"acct": 0, "events": 0, "timestamp": 0}
    world.status.troubles["events"] = Problem("killed by signal 9", "look")
    world.status.geography = [("no GeoIP database", "fetch it")]
    rows = panel(world.status, world.table, None, [Base("DB-IP City Lite", "2026-10", 24.3)], 200.0)
    cures = {row.label: (row.role, row.cure) for row in rows}
    assert cures["accounting"] == ("warn", ACCOUNTING_CURE)
    assert cures["kernel events"] == ("warn", EVENTS_CURE)
    assert cures["events"] == ("warn", "look")
    assert [row.value for row in rows if row.label == "database"] == [
        "DB-IP City Lite of 2026-10, 24 days old",
        "no GeoIP database",
    ]
    assert row(rows, "events").value == "stopped: killed by signal 9"
    assert row(rows, "counters").value == "2 min ago, by listing 1"
    assert row(rows, "counters").role == "warn"
    replayed = panel(world.status, world.table, None, [], 200.0, live=False)
    assert {row.cure for row in replayed if row.label != "database"} == {""}
    assert row(replayed, "counters").role == "good"


@given(
    st.dictionaries(
        st.sampled_from(["count", "max", "buckets", "acct", "events", "timestamp"]),
        st.sampled_from([0, 1, 2, 70, 10**18]),
    ),
    st.sampled_from([None, Shares(), Shares(1, 1, 1, (("::", 1),))]),
    st.floats(-1e6, 1e6),
)
def test_any_facts_give_rows(facts: dict[str, int], shares: Shares | None, now: float) -> None:
    status = intake_of(Facts(0.0, facts), Facts(100.0, facts), Statistics(0.0, {}), Lost(5.0, "x")).status
    for found in panel(status, FlowTable(), shares, [], now):
        assert found.role in ("plain", "good", "warn", "bad")
        assert found.share is None or (0 <= found.share <= 1 and not math.isnan(found.share))
    brief(status, shares, now)
