"""The health of the table: against the real kernel's counters, with a clock by hand, counted piece by piece."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import health
import source
from flows import FlowTable
from health import (
    Census,
    HealthRow,
    Notice,
    Shares,
    Surroundings,
    UsedDatabase,
    brief,
    full_in,
    growth,
    notices_of,
    panel,
)
from intake import (
    ACCOUNTING_CURE,
    EVENTS_CURE,
    TRACKING_CURE,
    Facts,
    Item,
    ListingBegan,
    ListingEnded,
    Lost,
    Problem,
    Statistics,
    Status,
    Trouble,
)
from support.kernel import Lab, Namespace, insert_arguments, items_until, kernel_mark, load
from support.strategies import flow_lines
from support.tables import MOST, Monitor, counts, event, feed, intake_of, lan_monitor, line, listing, many, shown

CAPTURES = Path(__file__).parent.parent / "fixtures" / "captures"
NAMES = ("insert_failed", "drop", "early_drop", "chaintoolong")


def filling(seconds: float, count: Callable[[float], float], step: float = 5.0) -> Status:
    """What is known after so many seconds of facts, one each 5 s."""
    times = [step * number for number in range(int(seconds / step) + 1)]
    return intake_of(*(counts(at, count=int(count(at))) for at in times)).status


def row(rows: list[HealthRow], label: str) -> HealthRow:
    (found,) = [row for row in rows if row.label == label]
    return found


# --- the real kernel --------------------------------------------------------------------------------------------------


def asked(live: source.LiveSource) -> Statistics:
    """The next answer of `conntrack -S`, asked for now."""
    live._statistics_due = 0.0
    found = items_until(live, lambda items: any(isinstance(item, Statistics) for item in items))
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
    rows = panel(intake.status, intake.table, None, now)
    refused = row(rows, "insert_failed")
    assert refused.value.startswith("5 in ")
    assert refused.value.endswith("5 in total: new flows refused: insert race or NAT ports exhausted")
    assert refused.role == "warn"
    assert "--random-fully" in refused.cure == row(rows, "drop").cure
    assert {"early_drop", "chaintoolong"} <= set(row(rows, "never counted").value.split(", "))
    assert row(rows, "never counted").role == "good"
    assert [text.split()[0] for text, _ in brief(intake.status, None, now)] == ["drop", "insert_failed"]


@kernel_mark()
def test_facts_and_statistics_of_a_namespace_are_its_own() -> None:
    with Namespace() as ns:
        fields = {"src": "192.0.2.1", "dst": "192.0.2.2", "dport": 80}
        load(ns, ("-I " + " ".join(insert_arguments(**fields, sport=port)) for port in range(1, 101)))
        live = source.LiveSource(source.Command(via=ns.prefix), 60.0, statistics=True)
        try:
            found = items_until(live, lambda items: {Facts, Statistics, ListingEnded} <= {type(item) for item in items})
        finally:
            live.close()
    intake = intake_of(*found)
    assert intake.status.facts["count"] == 100
    assert intake.status.facts["buckets"] > 0
    assert intake.status.counted_first is not None
    assert intake.status.counted_first.values["insert"] == 100
    assert row(panel(intake.status, intake.table, None, live.clock()), "table").value.startswith("<1 %, 100 of ")


@kernel_mark()
def test_the_kernel_knows_the_cures() -> None:
    """Every sysctl that a cure names is there, and iptables takes the limit."""
    status = filling(60, lambda at: 260_000 + at)
    status.take(counts(61, count=MOST, acct=0, events=0, timestamp=0))
    status.take(Statistics(1, dict.fromkeys(NAMES, 0)))
    status.take(Statistics(61, dict.fromkeys(NAMES, 60)))
    table = FlowTable()
    sources = (("2001:db8::1", 900_000), ("192.0.2.1", 600_000))
    rows = panel(status, table, Shares(1_000_000, 900_000, 900_000, sources), 61)
    listing(table, (line(number, state="SYN_SENT") for number in range(1500)))
    rows += panel(status, table, Shares(2000, 0, 1999, ()), 61)
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
    value = row(panel(status, FlowTable(), None, now), "insert_failed").value
    assert value.startswith(f"{total} in ") or len(numbers) == 1
    assert f"{numbers[-1]} in total" in value
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
    rows = {row.label: row for row in panel(status, FlowTable(), None, 10)}
    for name, (role, cure) in wanted.items():
        assert rows[name].role == role
        assert cure in rows[name].cure
        assert bool(cure) is bool(rows[name].cure)
    quiet = set(NAMES) - new.keys()
    assert {(rows[name].role, rows[name].cure) for name in quiet} <= {("good", "")}
    assert [text.split()[0] for text, _ in brief(status, None, 10) if "/min" in text] == [
        name for name in ("early_drop", "drop", "insert_failed", "chaintoolong") if name in new
    ]


def test_a_rate_that_nobody_asked_for_since_is_none() -> None:
    status = counted(100, 102)
    assert health.a_minute(status, "insert_failed", 40) == 12
    assert health.a_minute(status, "insert_failed", 50) == 0


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
    table = row(panel(status, FlowTable(), None, 60), "table")
    assert table.value == "57 %, 150000 of 262144, +500/s: full in about 4 min at the present growth"
    assert (table.role, table.cure) == ("bad", "sysctl -w net.netfilter.nf_conntrack_max=524288")
    assert table.share == pytest.approx(150_000 / MOST)
    assert brief(status, None, 60) == [("full in ~4 min", "bad")]


@pytest.mark.parametrize(
    ("count", "role", "said"),
    [
        (0, "good", "0 %, 0 of 262144"),
        (1, "good", "<1 %, 1 of 262144"),
        (MOST * 8 // 10 + 1, "warn", "80 %, "),
        (MOST * 95 // 100 + 1, "bad", "95 %, "),
        (MOST - 1, "bad", ">99 %, "),
        (MOST, "bad", "100 %, 262144 of 262144: full, new flows are dropped"),
        (MOST + 5, "bad", "100 %, 262149 of 262144: full, new flows are dropped"),
    ],
)
def test_how_full_it_is(count: int, role: str, said: str) -> None:
    status = intake_of(counts(1, count=count)).status
    table = row(panel(status, FlowTable(), None, 1), "table")
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
    assert census.newest == Shares(1, 0, 1, (("10.0.0.1", 1),), (("tcp/443", 1),), (0, 1, 0, 0))


def test_an_empty_table_is_counted_at_once() -> None:
    census = Census()
    assert census.step(FlowTable())
    assert census.newest == Shares()
    assert [row.label for row in panel(Status(), FlowTable(), census.newest, 1)][:2] == ["table", "events lost"]


@pytest.mark.parametrize(("count", "number", "said"), [(150_000, 41, True), (150_000, 29, False), (100_000, 41, False)])
def test_who_holds_much_of_a_table_that_fills(count: int, number: int, said: bool) -> None:
    status = intake_of(counts(1, count=count)).status
    shares = Shares(100, 50, 0, (("10.0.0.23", number), ("2001:db8::1", 9)))
    found = row(panel(status, FlowTable(), shares, 1), "10.0.0.23")
    assert found.value == f"{number} flows ({number} %)"
    assert found.share == number / 100
    assert (found.role, bool(found.cure)) == (("warn", True) if said else ("plain", False))
    assert brief(status, shares, 1) == ([(f"10.0.0.23 holds {number} %", "warn")] if said else [])


# --- how well we see --------------------------------------------------------------------------------------------------


def test_losses_and_what_made_them_good() -> None:
    intake = intake_of(ListingBegan(1), Lost(2, "events (ENOBUFS)", narrow=True), ListingEnded(3, True))
    lost = row(panel(intake.status, intake.table, None, 4), "events lost")
    assert lost.value == "once, table reloaded 0 times; the last 2 s ago: events (ENOBUFS)"
    assert lost.role == "warn"  # that listing began before
    assert lost.cure == health.LOSS_CURE
    for item in (ListingBegan(5), ListingEnded(6, False), ListingBegan(7), Lost(8, "events (ENOBUFS)")):
        intake.take(item)
    intake.take(ListingEnded(9, True))
    assert (intake.status.healed, intake.status.resyncs, intake.status.losses) == (1, 1, 2)
    assert row(panel(intake.status, intake.table, None, 9), "events lost").role == "warn"
    for item in (ListingBegan(10), ListingEnded(11, True), ListingBegan(12), ListingEnded(13, True)):
        intake.take(item)
    assert (intake.status.healed, intake.status.resyncs) == (2, 2)
    assert row(panel(intake.status, intake.table, None, 14), "events lost").role == "plain"


def test_what_is_switched_off_comes_with_its_cure() -> None:
    monitor = Monitor([line(1)])
    monitor.status.facts = {"acct": 0, "events": 0, "timestamp": 0}
    monitor.status.troubles["events"] = Problem("killed by signal 9", "look")
    around = Surroundings(
        geography=[("no GeoIP database", "fetch it")], databases=[UsedDatabase("DB-IP City Lite", "2026-10", 24.3)]
    )
    rows = panel(monitor.status, monitor.table, None, 200.0, around=around)
    cures = {row.label: (row.role, row.cure) for row in rows}
    assert cures["accounting"] == ("warn", ACCOUNTING_CURE)
    assert cures["kernel events"] == ("warn", EVENTS_CURE)
    assert cures["events"] == ("warn", "look")
    assert [row.value for row in rows if row.label == "database"] == [
        "DB-IP City Lite 2026-10, 24 days old",
        "no GeoIP database",
    ]
    assert row(rows, "events").value == "stopped: killed by signal 9"
    assert row(rows, "counters").value == "refreshed 2 min ago"
    assert row(rows, "counters").role == "warn"
    replayed = panel(monitor.status, monitor.table, None, 200.0, live=False)
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
    for found in panel(status, FlowTable(), shares, now):
        assert found.role in ("plain", "good", "warn", "bad")
        assert found.share is None or (0 <= found.share <= 1 and not math.isnan(found.share))
    brief(status, shares, now)


# --- what is wrong, on the screen -------------------------------------------------------------------------------------


def test_accounting_off_is_said_with_its_cure() -> None:
    monitor = Monitor([line(1)])
    monitor.status.facts = {"acct": 0}
    assert ACCOUNTING_CURE in "\n".join(shown(monitor))
    assert "accounting is off" in "\n".join(shown(monitor))
    listing(monitor.table, [line(1, size=5)], 101.0)  # switched on meanwhile: counted all the same
    assert "accounting" not in "\n".join(shown(monitor))


@pytest.mark.parametrize("width", [80, 100, 160])
def test_cures_are_whole(width: int) -> None:
    """A command that lost its end mends nothing."""
    monitor = Monitor([line(1)])
    monitor.status.facts = {"acct": 0}
    assert ACCOUNTING_CURE in "\n".join(shown(monitor, (width, 24)))
    monitor.status.facts = {"events": 0}
    assert EVENTS_CURE in "\n".join(shown(monitor, (width, 24)))


def test_losses_are_bad_until_the_table_is_read_anew() -> None:
    monitor = Monitor([line(1)])
    monitor.status.losses, monitor.status.last_loss, monitor.status.lost_at = 2, "events (ENOBUFS)", 101.0
    monitor.refresh(2)
    spans = [span for row in monitor.frame(120, 24) for span in row]
    assert [role for text, role in spans if "events (ENOBUFS) lost 2x, reloading it" in text] == ["bad"]
    listing(monitor.table, [line(1)], 102.0)  # it may have begun before the loss
    assert "reloading it" in "\n".join(shown(monitor, (120, 24)))
    monitor.status.healed = 2
    spans = [span for row in monitor.frame(120, 24) for span in row]
    assert [role for text, role in spans if "table reloaded since" in text] == ["warn"]
    monitor.refresh(60)
    assert "lost" not in "\n".join(shown(monitor))


def test_a_dead_listing_is_said_with_age_reason_and_cure_and_the_table_stays() -> None:
    monitor = Monitor([line(1)])
    monitor.status.troubles["listing"] = Problem("ssh: connection reset", "ping router")
    monitor.refresh(12)
    lines = shown(monitor, (120, 24))
    assert "stale" in lines[0]
    assert "listing stopped: ssh: connection reset, table is 12 s old, retrying" in "\n".join(lines)
    assert "ping router" in "\n".join(lines)
    assert "192.0.2.1:https" in "\n".join(lines)


def test_rejects_are_counted_and_the_first_is_shown() -> None:
    monitor = Monitor([line(1)])
    monitor.status.rejects, monitor.status.first_reject = 1, "hello monitor"
    assert "1 line not understood; first: hello monitor" in "\n".join(shown(monitor))
    monitor.status.rejects = 5
    assert "5 lines not understood" in "\n".join(shown(monitor))


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140])
@pytest.mark.parametrize("height", [10, 12, 24, 30])
def test_a_reason_is_not_cut_for_its_command(width: int, height: int) -> None:
    """The command may be long, as that of a checkout or a container is; what is wrong is read first."""
    monitor = Monitor([line(1)])
    command = (
        "docker exec conntrack-monitor /opt/conntrack-monitor/conntrack_monitor.py --update-geoip --geoip-db /var/db"
    )
    monitor.around = Surroundings(geography=[("/data/City.mmdb skipped: Permission denied", command)])
    lines = shown(monitor, (width, height))
    said = " ".join(text.strip() for text in lines[: 6 if height >= 14 else 4])
    reason = "! /data/City.mmdb skipped: Permission denied"
    if height >= 12 or width >= 60:
        assert reason in said
    else:
        assert reason[:25] in said
    assert command in said or "see H" in said
    if width >= 140 and height >= 12:
        assert command in said


def test_notices_by_weight() -> None:
    """What runs out, what is lost or late, what is off, the rest."""
    monitor = Monitor([line(1)])
    status = monitor.status
    for item in (
        counts(1, count=MOST * 99 // 100, events=0, acct=0),
        Statistics(1, dict.fromkeys(NAMES, 0)),
        Statistics(61, {**dict.fromkeys(NAMES, 0), "drop": 9, "early_drop": 9, "insert_failed": 5}),
        Lost(61, "events"),
        Trouble(61, "listing", Problem("ssh: no", "ssh-add")),
    ):
        status.take(item)
    status.rejects, status.first_reject = 2, "what?"
    monitor.table.overflow = 3
    around = Surroundings("settings ignored", "recording stopped", [("no names of hosts", "")])
    shares = Shares(10, 9, 0, (("10.0.0.1", 6), ("10.0.0.2", 4)))
    found = [notice.text for notice in notices_of(status, monitor.table, True, 62, around, shares)]
    assert found[0] == "table 99 % full (259522/262144); 10.0.0.1 holds most: 60 %"
    weights: tuple[str, ...] = ("table", "3 flows not kept", "listing stopped", "events lost", "recording")
    weights += ("insert_failed +5", "the kernel sends no events", "accounting", "2 lines", "settings", "no names")
    assert [text[: len(wanted)] for text, wanted in zip(found, weights, strict=True)] == list(weights)
    # What the full table drops is said by the table's own notice; with room in it, it is a thing of its own.
    status.take(counts(62, count=5))
    found = [notice.text for notice in notices_of(status, monitor.table, True, 62, around)]
    assert any(text.startswith("early_drop +9/min") for text in found)


@pytest.mark.parametrize(
    ("count", "bad"), [(799, None), (800, False), (949, False), (950, True), (999, True), (1000, True), (1001, True)]
)
def test_from_when_on_a_table_is_nearly_full(count: int, bad: bool | None) -> None:
    status = intake_of(Facts(1, {"count": count, "max": 1000})).status
    found = notices_of(status, FlowTable(), True, 1)
    assert [notice.bad for notice in found] == ([] if bad is None else [bad])
    assert [notice.cure for notice in found] == [f"{health.SYSCTL}max=2000"] * len(found)
    replayed = notices_of(status, FlowTable(), False, 1)
    assert [notice.text for notice in replayed] == [notice.text for notice in found]
    assert {notice.cure for notice in replayed} <= {""}


def test_a_table_that_is_full_soon_is_a_notice_before_it_is_nearly_full() -> None:
    (found,) = notices_of(filling(60, lambda at: 120_000 + 500 * at), FlowTable(), True, 60)
    assert found.text == "table 57 % full (150000/262144); full in ~4 min"
    assert found.bad


def test_what_makes_a_notice_a_new_one() -> None:
    """A number that counts on does not bring it back; another reason does, and ten times as many."""

    def keys(status: Status, around: Surroundings = health.NOTHING_AROUND, now: float = 100.0) -> list[object]:
        return [notice.key for notice in notices_of(status, FlowTable(), True, now, around)]

    def full(count: int) -> Status:
        return intake_of(Facts(1, {"count": count, "max": 1000})).status

    assert keys(full(800)) == keys(full(949))
    assert len({*keys(full(800)), *keys(full(950)), *keys(full(1000))}) == 3
    assert keys(Status(rejects=11, first_reject="x")) == keys(Status(rejects=98, first_reject="x"))
    assert keys(Status(rejects=11, first_reject="x")) != keys(Status(rejects=110, first_reject="x"))
    assert keys(Status(listing_since=50)) == keys(Status(listing_since=20))
    assert keys(Status(troubles={"listing": Problem("a")})) != keys(Status(troubles={"listing": Problem("b")}))
    lost = Status(losses=1, lost_at=99.0, last_loss="events")
    assert keys(lost) != keys(Status(losses=2, lost_at=99.0, last_loss="events"))
    fetching = [Surroundings(geography=[(f"fetching City: {done}% of 62.1 MB", "")]) for done in (10, 11)]
    assert keys(Status(), fetching[0]) == keys(Status(), fetching[1])


def test_what_was_put_aside_is_dim_in_health_and_nowhere_else() -> None:
    monitor = Monitor([line(1)])
    monitor.status.facts = {"acct": 0, "events": 0}
    notices = notices_of(monitor.status, monitor.table, True, 100)
    monitor.around = Surroundings(aside=frozenset({notices[0].key}))
    text = "\n".join(shown(monitor))
    assert "! accounting is off" in text
    assert "the kernel sends no events" not in text
    monitor.keys("H")
    spans = [span for row in monitor.frame(80, 24) for span in row if "the kernel sends no events" in span[0]]
    assert [role for _, role in spans] == ["dim"]


def test_events_that_were_off_are_deaf_until_a_listing_that_began_since() -> None:
    def said(*items: Item) -> list[str]:
        return [notice.text for notice in notices_of(intake_of(*items).status, FlowTable(), True, 9)]

    off, on = Facts(1, {"events": 0}), Facts(3, {"events": 1})
    assert said(off) == ["the kernel sends no events"]
    assert said(off, on) == [health.AFTER_DEAF]
    assert said(off, ListingBegan(2), on, ListingEnded(4, True)) == [health.AFTER_DEAF]  # it began before
    assert said(off, on, ListingBegan(4), ListingEnded(5, False)) == [health.AFTER_DEAF]
    assert said(off, on, ListingBegan(4), ListingEnded(5, True)) == []
    assert said(on, ListingBegan(4), off, ListingEnded(5, True), on) == [health.AFTER_DEAF]


def test_a_count_that_goes_on_says_of_how_many() -> None:
    monitor = Monitor([line(1)])
    for number in range(2, 9):
        feed(monitor.table, line(number))
    census = Census()
    assert census.so_far is None
    census.step(monitor.table, 5)
    rows = panel(Status(), monitor.table, census.so_far, 1)
    assert row(rows, "assured").value.startswith("5 of 5 counted (100 %): ")
    assert row(rows, "10.0.0.1").value == "5 of 5 counted (100 %)"
    assert {found.cure for found in rows if found.label in ("assured", "unreplied", "10.0.0.1")} == {""}
    census.step(monitor.table, 5)
    assert row(panel(Status(), monitor.table, census.so_far, 1), "assured").value.startswith("8 flows (100 %): ")
    census.begin_anew()
    assert census.so_far is None


def test_a_sample_says_who_holds_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "SAMPLED", 100)
    table = FlowTable()
    listing(table, (line(number, src=f"10.0.0.{number % 5 % 2}") for number in range(1000)))
    found = health.sampled_shares(table)
    assert found is not None
    assert found.flows == 100
    assert health.sampled_shares(FlowTable()) == Shares()


def test_the_worst_comes_first_and_the_rest_is_counted() -> None:
    monitor = Monitor([line(1)])
    monitor.status.troubles["events"] = Problem("conntrack -E: killed by signal 9", "")
    monitor.status.rejects = 5
    monitor.status.backwards = 2
    monitor.status.facts = {"acct": 0}
    first, second = shown(monitor, (100, 24))[2:4]
    assert first.startswith("! events stopped")
    assert "(+2, see H)" in first  # the command in the second line needs its end
    assert second == f"! accounting is off: no bytes, packets or rates  try: {ACCOUNTING_CURE}"


# --- why nothing is there ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "live", "words"),
    [
        ({}, True, TRACKING_CURE),
        ({"count": 5}, True, "the kernel counts entries but lists none"),
        ({}, False, "the recording has no flow at this time"),
    ],
)
def test_why_the_table_is_empty(facts: dict[str, int], live: bool, words: str) -> None:
    monitor = Monitor()
    monitor.live = live
    monitor.status.facts = facts
    assert words in "\n".join(shown(monitor))


def test_an_empty_table_before_the_first_listing() -> None:
    monitor = Monitor()
    monitor.table.listed_at = None
    assert "reading the connection table" in "\n".join(shown(monitor))
    monitor.status.troubles["listing"] = Problem("conntrack is not installed here", "apt install conntrack")
    text = "\n".join(shown(monitor)[4:])
    assert "conntrack is not installed here" in text
    assert "apt install conntrack" in text
    assert "reading" not in text


def test_a_filter_that_wants_nothing_is_the_reason() -> None:
    monitor = many()
    monitor.keys("/", *"port:1", "enter")
    lines = shown(monitor)
    assert "0 of 60" in lines[2]
    assert "No flow matches the filter" in "\n".join(lines)


def test_empty_views_say_why() -> None:
    monitor = Monitor([line(1)])
    for key, words in (("6", "no flow is translated"), ("7", "no events yet")):
        monitor.keys(key)
        assert any(words in text for text in shown(monitor, (140, 30))), key


def test_an_empty_map_says_why() -> None:
    monitor = lan_monitor()
    monitor.keys("8")
    assert "locations are unknown" in shown(monitor, (140, 30))[-2]
    monitor.view.set_filter("src:10.99.0.1")
    monitor.refresh(1)
    assert "No flow matches the filter. Esc clears it" in shown(monitor, (140, 30))[-2]
    assert "Map · 0 of 0 hosts · 0 of 13 flows" in shown(monitor, (140, 30))[2]


def test_new_of_nothing_says_what_is_missing() -> None:
    monitor = lan_monitor()
    monitor.view.set_filter("new:host")
    monitor.refresh(1)
    assert any("No mark is set" in text for text in shown(monitor, (140, 30)))
    monitor.keys("m")
    assert any("No flow matches the filter" in text for text in shown(monitor, (140, 30)))


# --- how healthy the table is, at the borders: from which number on something is said, how loud, and what mends it ----


MAX = "sysctl -w net.netfilter.nf_conntrack_max=2000"


def status_of(count: int | None = None, most: int | None = 1000, fill: list[tuple[float, int]] | None = None) -> Status:
    status = Status()
    status.facts = {key: value for key, value in (("count", count), ("max", most)) if value is not None}
    status.fill.extend(fill or [])
    return status


def rows_of(
    status: Status, shares: Shares | None = None, now: float = 100.0, table: FlowTable | None = None, live: bool = True
) -> dict[str, HealthRow]:
    return {row.label: row for row in panel(status, FlowTable() if table is None else table, shares, now, live)}


# --- growth -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fill", "now", "wanted"),
    [
        ([(0, 0), (30, 30), (60, 60)], 60, (1.0, True)),
        ([(0, 0), (30, 15), (60, 60)], 60, (1.0, True)),  # the slower half is half as fast as the whole
        ([(0, 0), (30, 14), (60, 60)], 60, (1.0, False)),
        ([(0, 0), (30, 45), (60, 60)], 60, (1.0, True)),
        ([(0, 0), (30, 46), (60, 60)], 60, (1.0, False)),
        ([(0, 60), (30, 30), (60, 0)], 60, (-1.0, False)),
        ([(0, 5), (30, 5), (60, 5)], 60, (0.0, False)),
        ([(0, 0), (15, 15), (30, 30)], 30, (1.0, True)),
        ([(0, 0), (15, 15), (29.9, 30)], 30, None),  # not known for long enough
        ([(0, 0), (60, 60)], 60, None),
        ([(0, 0), (30, 30), (60, 60)], 95, (1.0, True)),
        ([(0, 0), (30, 30), (60, 60)], 95.1, None),  # nobody has counted since
        ([(0, 9999), (40, 0), (70, 30), (100, 60)], 100, (1.0, True)),  # of the last minute
        ([(40, 0), (40.1, 0), (71, 31), (72, 999), (100, 60)], 100, (1.0, True)),  # the one in the middle counts
        ([(0, 0), (20, 20), (45, 45), (60, 60)], 60, (1.0, True)),
    ],
)
def test_growth_is_steady_or_nothing_is_foretold(fill: list[tuple[float, int]], now: float, wanted: object) -> None:
    found = growth(status_of(fill=fill), now)
    assert found == wanted if not isinstance(wanted, tuple) else (found is not None and found[1] == wanted[1])
    if isinstance(wanted, tuple):
        assert found is not None
        assert found[0] == pytest.approx(wanted[0], rel=0.01)


def growing(rate: float, count: int, most: int = 100_000) -> Status:
    """A table that has ``count`` entries at 100 s."""
    fill = [(at, round(count - (100.0 - at) * rate)) for at in (40.0, 70.0, 100.0)]
    return status_of(count, most, fill)


@pytest.mark.parametrize(
    ("rate", "count", "seconds", "text", "role", "said"),
    [
        (10.0, 10_000, 9000.0, ": full in about 2 h at the present growth", "good", []),
        (10.0, 46_000, 5400.0, ": full in about 2 h at the present growth", "good", []),
        (10.0, 46_010, 5399.0, ": full in about 90 min at the present growth", "good", []),
        (10.0, 64_000, 3600.0, ": full in about 60 min at the present growth", "good", []),
        (10.0, 64_010, 3599.0, ": full in about 60 min at the present growth", "warn", [("full in ~60 min", "warn")]),
        (100.0, 10_000, 900.0, ": full in about 15 min at the present growth", "warn", [("full in ~15 min", "warn")]),
        (100.0, 10_100, 899.0, ": full in about 15 min at the present growth", "bad", [("full in ~15 min", "bad")]),
        (1000.0, 90_000, 10.0, ": full in about 1 min at the present growth", "bad", [("full in ~1 min", "bad")]),
        (1.0, 13_600, 86_400.0, ": full in about 24 h at the present growth", "good", []),
        (1.0, 13_599, None, "", "good", []),
        (-10.0, 10_000, None, "", "good", []),
    ],
)
def test_how_soon_it_is_full(
    rate: float, count: int, seconds: float | None, text: str, role: str, said: list[tuple[str, str]]
) -> None:
    status = growing(rate, count)
    assert full_in(status, 100.0) == (None if seconds is None else pytest.approx(seconds))
    row = rows_of(status)["table"]
    sign = "+" if rate > 0 else "-"
    number = f"{abs(rate):.1f}" if abs(rate) < 9.95 else f"{abs(rate):.0f}"
    assert row.value == f"{count * 100 / 100_000:.0f} %, {count} of 100000, {sign}{number}/s{text}"
    assert (row.role, bool(row.cure)) == (role, role != "good")
    assert brief(status, None, 100.0) == said


def test_a_table_that_is_full_grows_no_more() -> None:
    status = growing(10.0, 100_000)
    assert full_in(status, 100.0) == 0.0
    assert rows_of(status)["table"].value == "100 %, 100000 of 100000, +10/s: full, new flows are dropped"
    assert full_in(status_of(5, None, [(40, 1), (70, 3), (100, 5)]), 100.0) is None
    assert full_in(status_of(5, 0, [(40, 1), (70, 3), (100, 5)]), 100.0) is None


@pytest.mark.parametrize(
    ("fill", "text"), [([(40, 90), (70, 93), (100, 96)], ", +0.1/s"), ([(40, 91), (70, 93), (100, 96)], ""), ([], "")]
)
def test_a_growth_of_less_than_a_tenth_is_not_said(fill: list[tuple[float, int]], text: str) -> None:
    assert rows_of(status_of(96, 100_000, fill))["table"].value.split(": full")[0] == f"<1 %, 96 of 100000{text}"


@pytest.mark.parametrize(
    ("count", "most", "value", "role", "cure", "share"),
    [
        (0, 1000, "0 %, 0 of 1000", "good", "", 0.0),
        (9, 1000, "<1 %, 9 of 1000", "good", "", 0.009),
        (10, 1000, "1 %, 10 of 1000", "good", "", 0.01),
        (799, 1000, "80 %, 799 of 1000", "good", "", 0.799),
        (800, 1000, "80 %, 800 of 1000", "warn", MAX, 0.8),
        (949, 1000, "95 %, 949 of 1000", "warn", MAX, 0.949),
        (950, 1000, "95 %, 950 of 1000", "bad", MAX, 0.95),
        (994, 1000, "99 %, 994 of 1000", "bad", MAX, 0.994),
        (995, 1000, ">99 %, 995 of 1000", "bad", MAX, 0.995),
        (1000, 1000, "100 %, 1000 of 1000: full, new flows are dropped", "bad", MAX, 1.0),
        (1500, 1000, "150 %, 1500 of 1000: full, new flows are dropped", "bad", MAX, 1.0),
        (5, None, "0 flows; the kernel's count and limit are unknown", "plain", "", None),
        (5, 0, "0 flows; the kernel's count and limit are unknown", "plain", "", None),
        (None, 1000, "0 flows; the kernel's count and limit are unknown", "plain", "", None),
    ],
)
def test_how_full(count: int | None, most: int | None, value: str, role: str, cure: str, share: float | None) -> None:
    assert rows_of(status_of(count, most))["table"] == HealthRow("table", value, role, share, cure)


@pytest.mark.parametrize(
    ("count", "most", "said"),
    [
        (999, 1000, []),
        (1000, 1000, [("table full", "bad")]),
        (1001, 1000, [("table full", "bad")]),
        (5, None, []),
        (5, 0, []),
    ],
)
def test_the_header_says_what_runs_out_first(count: int, most: int | None, said: list[tuple[str, str]]) -> None:
    status = status_of(count, most)
    assert brief(status, None, 100.0) == said
    values = dict.fromkeys(("drop", "insert_failed"), 0)
    status.counted_first = Statistics(90.0, values)
    status.counted.extend([Statistics(90.0, values), Statistics(100.0, {"drop": 1, "insert_failed": 2})])
    full = count >= 950 and most
    drops = [("drop +6/min", "bad" if full else "warn"), ("insert_failed +12/min", "warn")]
    assert brief(status, None, 100.0) == said + drops


# --- who fills it -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "flows", "count", "hogs"),
    [(300, 1000, 500, True), (299, 1000, 500, False), (300, 1000, 499, False), (900, 1000, 0, False)],
)
def test_a_source_that_holds_much_of_a_table_that_is_half_full(number: int, flows: int, count: int, hogs: bool) -> None:
    shares = Shares(flows, 0, 0, (("10.0.0.1", number), ("fd00::1", 1)))
    status = status_of(count)
    rows = rows_of(status, shares)
    row = rows["10.0.0.1"]
    assert row.value == f"{number} flows ({number / 10:.0f} %)"
    assert (row.role, row.share) == ("warn" if hogs else "plain", number / flows)
    cure = "iptables -I PREROUTING -t mangle -s 10.0.0.1 -m connlimit --connlimit-above 100 -j DROP"
    assert row.cure == (cure if hogs else "")
    assert brief(status, shares, 100.0) == ([(f"10.0.0.1 holds {number / 10:.0f} %", "warn")] if hogs else [])
    assert rows["fd00::1"] == HealthRow("fd00::1", "1 flow (<1 %)", "plain", 0.001, "", "src:fd00::1")


def test_how_much_a_source_may_have_then() -> None:
    status = status_of(9000, 10_000)
    row = rows_of(status, Shares(100, 0, 0, (("fd00::1", 50),)))["fd00::1"]
    assert row.cure == "ip6tables -I PREROUTING -t mangle -s fd00::1 -m connlimit --connlimit-above 500 -j DROP"


@pytest.mark.parametrize(
    ("assured", "count", "warns"), [(900, 800, True), (899, 800, False), (900, 799, False), (1000, 1000, True)]
)
def test_assured_flows_stay(assured: int, count: int, warns: bool) -> None:
    row = rows_of(status_of(count), Shares(1000, assured, 0))["assured"]
    text = f"{assured} flows ({assured / 10:.0f} %): never evicted early"
    cure = "sysctl -w net.netfilter.nf_conntrack_tcp_timeout_established=86400"
    role, cure = ("warn", cure) if warns else ("plain", "")
    assert row == HealthRow("assured", text, role, assured / 1000, cure, "flag:assured")


@pytest.mark.parametrize(
    ("flows", "unreplied", "syn", "cure"),
    [
        (1000, 500, 0, "udp_timeout=10"),
        (1000, 499, 0, ""),
        (999, 999, 0, ""),
        (1000, 600, 2, "udp_timeout=10"),
        (1000, 500, 1000, "tcp_timeout_syn_sent=20"),
    ],
)
def test_a_flood_of_flows_without_an_answer(flows: int, unreplied: int, syn: int, cure: str) -> None:
    table = FlowTable()
    if syn:
        listing(table, (line(n, state="SYN_SENT") for n in range(syn)), 90.0)
    row = rows_of(status_of(5), Shares(flows, 0, unreplied), table=table)["unreplied"]
    assert (row.role, row.share) == ("warn" if cure else "plain", unreplied / flows)
    assert row.cure == (f"sysctl -w net.netfilter.nf_conntrack_{cure}" if cure else "")
    assert row.value.startswith(f"{unreplied} flows (")
    assert row.value.endswith("%): evicted first when full")


def test_before_anything_was_counted_there_are_no_shares() -> None:
    assert list(rows_of(status_of(5))) == list(rows_of(status_of(5), Shares()))
    assert "assured" not in rows_of(status_of(5))


def test_who_fills_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = Monitor(
        [
            *(line(n, src="10.0.0.1") for n in range(1, 6)),
            *(line(n, src=f"10.0.0.{n}", flags="[UNREPLIED] ") for n in range(11, 18)),
            line(21, src="10.0.0.11"),
        ]
    )
    feed(monitor.table, event("NEW", 22, flags="")[:-1] + " [USERSPACE] portid=1 progname=[ASSURED]\n")
    census = Census()
    assert census.newest is None
    assert not census.step(monitor.table, 5)
    assert not census.step(monitor.table, 5)
    assert census.step(monitor.table, 5)
    newest = census.newest
    assert newest is not None
    assert (newest.flows, newest.assured, newest.unreplied) == (14, 6, 7)
    assert newest.sources[:2] == (("10.0.0.1", 6), ("10.0.0.11", 2))
    assert len(newest.sources) == 5
    assert Census().step(monitor.table)
    assert not census.step(monitor.table, 1)
    for flow in list(monitor.table.live.values())[:4]:
        flow.progress = flow.progress._replace(ended=1.0)
    while not census.step(monitor.table, 3):
        assert census.newest is newest  # till the round is over
    assert census.newest is not None
    assert census.newest.flows == 10
    monkeypatch.setattr(health, "MOST_SOURCES", 4)
    few = Census()
    few.step(monitor.table)
    assert few.newest is not None
    assert few.newest.flows == 10
    assert few.newest.sources[0] in (("10.0.0.1", 2), ("10.0.0.11", 2), ("10.0.0.12", 1))
    assert len(few.newest.sources) == 2


# --- what the kernel counts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "values", "now", "rate"),
    [
        ((0.0, 60.0), (100, 130), 60.0, 30),
        ((0.0, 30.0), (100, 130), 30.0, 60),
        ((0.0, 60.0), (100, 130), 95.0, 30),
        ((0.0, 60.0), (100, 130), 95.1, 0),
        ((0.0, 0.001), (100, 130), 0.0, 0),
        ((0.0,), (100,), 0.0, 0),
        ((0.0, 60.0), (100, 100), 60.0, 0),
    ],
)
def test_how_often_a_minute(times: tuple[float, ...], values: tuple[int, ...], now: float, rate: int) -> None:
    status = Status()
    assert health.a_minute(status, "drop", now) == 0
    for at, value in zip(times, values):
        status.take(Statistics(at, {"drop": value}))
    assert health.a_minute(status, "drop", now) == rate
    assert health.a_minute(status, "found", now) == 0


def after(count: int, facts: dict[str, int] | None = None, **new: int) -> dict[str, HealthRow]:
    """The rows of the counters, of which so many are new in the last 20 s."""
    status = status_of(count)
    status.facts.update(facts or {})
    names = (
        "early_drop",
        "drop",
        "insert_failed",
        "chaintoolong",
        "invalid",
        "error",
        "clash_resolve",
        "search_restart",
    )
    status.take(Statistics(80.0, dict.fromkeys(names, 2)))
    status.take(Statistics(100.0, {name: 2 + new.get(name, 0) for name in names}))
    return rows_of(status)


CLASH = "iptables -t nat -S POSTROUTING, then --random-fully on its SNAT and MASQUERADE"
BUCKETS = "sysctl -w net.netfilter.nf_conntrack_buckets={}"


@pytest.mark.parametrize(
    ("count", "facts", "new", "roles", "cures"),
    [
        (
            0,
            {},
            {},
            {"drop": "good", "early_drop": "good", "insert_failed": "good", "chaintoolong": "good"},
            {"drop": ""},
        ),
        (950, {}, {"early_drop": 1}, {"early_drop": "bad"}, {"early_drop": MAX}),
        (949, {}, {"early_drop": 1}, {"early_drop": "warn"}, {"early_drop": MAX}),
        (
            950,
            {},
            {"drop": 3, "insert_failed": 2},
            {"drop": "bad", "insert_failed": "warn"},
            {"drop": MAX, "insert_failed": CLASH},
        ),
        (0, {}, {"drop": 3, "insert_failed": 3}, {"drop": "warn", "insert_failed": "warn"}, {"drop": CLASH}),
        (
            0,
            {},
            {"insert_failed": 3, "chaintoolong": 3},
            {"insert_failed": "warn"},
            {"insert_failed": BUCKETS.format(1000)},
        ),
        (0, {}, {"insert_failed": 4, "chaintoolong": 3}, {"insert_failed": "warn"}, {"insert_failed": CLASH}),
        (0, {"buckets": 700}, {"chaintoolong": 1}, {"chaintoolong": "warn"}, {"chaintoolong": BUCKETS.format(1400)}),
        (0, {"max": 9000}, {"chaintoolong": 1}, {"chaintoolong": "warn"}, {"chaintoolong": BUCKETS.format(9000)}),
    ],
)
def test_what_counters_mean_and_what_mends_that(
    count: int, facts: dict[str, int], new: dict[str, int], roles: dict[str, str], cures: dict[str, str]
) -> None:
    rows = after(count, facts, **new)
    assert {name: rows[name].role for name in roles} == roles
    assert {name: rows[name].cure for name in cures} == cures


def test_counters_in_words() -> None:
    rows = after(0, drop=3, invalid=7)
    assert rows["drop"].value == "3 in 20 s, +9/min, 5 in total: packets dropped: table full or clash"
    assert rows["early_drop"] == HealthRow(
        "early_drop", "0 in 20 s, 2 in total: flows evicted early: table full", "good"
    )
    assert rows["invalid"] == HealthRow("invalid", "7 in 20 s, +21/min, 9 in total: packets that match no flow")
    status = status_of(0)
    status.take(Statistics(80.0, {"drop": 5, "invalid": 0, "error": 1}))
    rows = rows_of(status)
    assert rows["drop"] == HealthRow("drop", "5 in total: packets dropped: table full or clash", "good")
    assert rows["never counted"] == HealthRow("never counted", "invalid", "good")  # all that is 0 in one line
    assert rows["error"].value == "1 in total: ICMP packets that match no flow"
    assert "early_drop" not in rows
    status.take(Statistics(90.0, {"drop": 6, "invalid": 0, "error": 1}))
    assert rows_of(status, now=200.0)["drop"].role == "warn"  # it does not happen now, but it has
    status.facts["count"] = 950
    assert rows_of(status, now=200.0)["drop"].role == "warn"
    assert rows_of(status, now=100.0)["drop"].role == "bad"


# --- how well we see --------------------------------------------------------------------------------------------------


def test_how_well_we_see() -> None:
    status, table = status_of(5), FlowTable()
    rows = rows_of(status, table=table)
    assert rows["events lost"] == HealthRow("events lost", "none", "good")
    assert rows["counters"] == HealthRow("counters", "no full listing yet")
    assert rows_of(status, live=False)["events lost"].value == "none recorded"
    listing(table, [line(1)], 70.0)
    assert rows_of(status, table=table)["counters"] == HealthRow("counters", "refreshed 30 s ago", "good")
    assert rows_of(status, table=table, now=100.1)["counters"].role == "warn"
    assert rows_of(status, table=table, now=200.0, live=False)["counters"] == HealthRow(
        "counters", "refreshed 2 min ago", "good"
    )
    cure = "sysctl -w net.core.rmem_default=8388608"
    status.losses, status.narrow = 1, True
    assert rows_of(status)["events lost"] == HealthRow("events lost", "once, table reloaded 0 times", "warn", cure=cure)
    status.lost_at, status.last_loss, status.healed, status.resyncs = 11.0, "events (ENOBUFS)", 1, 1
    text = "once, table reloaded once; the last 89 s ago: events (ENOBUFS)"
    assert rows_of(status)["events lost"] == HealthRow("events lost", text, "plain", cure=cure)
    status.lost_at = 10.0
    assert "the last 2 min ago" in rows_of(status)["events lost"].value
    assert rows_of(status, live=False)["events lost"].cure == ""


@pytest.mark.parametrize(
    ("facts", "label", "wanted"),
    [
        ({"acct": 1}, "accounting", ("on", "good", "")),
        (
            {"acct": 0},
            "accounting",
            ("accounting is off: no bytes, packets or rates", "warn", "sysctl -w net.netfilter.nf_conntrack_acct=1"),
        ),
        ({"events": 1}, "kernel events", ("on", "good", "")),
        ({"events": 2}, "kernel events", ("on (auto)", "good", "")),
        (
            {"events": 0},
            "kernel events",
            (
                "off: changes are found only by listing the table",
                "warn",
                "sysctl -w net.netfilter.nf_conntrack_events=2",
            ),
        ),
        ({"timestamp": 1}, "timestamps", ("on", "good", "")),
        (
            {"timestamp": 0},
            "timestamps",
            (
                "off: age unknown for flows that began before monitoring",
                "plain",
                "sysctl -w net.netfilter.nf_conntrack_timestamp=1",
            ),
        ),
    ],
)
def test_the_kernel_s_switches(facts: dict[str, int], label: str, wanted: tuple[str, str, str]) -> None:
    status = Status(facts=facts)
    row = rows_of(status)[label]
    assert (row.value, row.role, row.cure) == wanted
    assert rows_of(status, live=False)[label].cure == ""
    assert {"accounting", "kernel events", "timestamps"} & set(rows_of(status)) == {label}


def test_databases_and_what_is_wrong_with_them() -> None:
    around = Surroundings(
        geography=[("none", "download"), ("old", "")], databases=[UsedDatabase("City", "2026-11", 12.6)]
    )
    rows = panel(Status(), FlowTable(), None, 1.0, False, around)
    assert rows[-3:] == [
        HealthRow("database", "City 2026-11, 13 days old"),
        HealthRow("database", "none", "warn", cure="download"),
        HealthRow("database", "old", "warn"),
    ]


# --- notices ----------------------------------------------------------------------------------------------------------


def noticed(status: Status, *, live: bool = True, now: float = 100.0, table: FlowTable | None = None) -> list[Notice]:
    return notices_of(status, FlowTable() if table is None else table, live, now)


def test_nothing_wrong_nothing_said() -> None:
    assert noticed(Status()) == []
    assert noticed(Status(facts={"acct": 1, "events": 1})) == []
    assert noticed(Status(facts={"acct": 0, "events": 0}), live=False) == []


@pytest.mark.parametrize(
    ("lost_at", "healed", "live", "wanted"),
    [
        (40.1, 2, True, ("events lost 2x, table reloaded since", True, False)),
        (40.1, 1, True, ("events lost 2x, reloading it", True, True)),
        (40.1, 2, False, ("events lost 2x, table reloaded since", False, False)),
        (40.0, 1, True, None),
        (None, 0, True, None),
    ],
)
def test_a_loss_is_said_for_a_minute(lost_at: float | None, healed: int, live: bool, wanted: object) -> None:
    status = Status(losses=2, last_loss="events", lost_at=lost_at, healed=healed, narrow=True)
    found = [(notice.text, bool(notice.cure), notice.bad) for notice in noticed(status, live=live)]
    assert found == ([wanted] if wanted else [])


@pytest.mark.parametrize(("since", "live", "said"), [(95.0, True, False), (94.9, True, True), (94.0, False, False)])
def test_a_listing_that_does_not_end(since: float, live: bool, said: bool) -> None:
    text = f"the listing that began {100 - since:.0f} s ago has not finished: the table is older than that"
    assert noticed(Status(listing_since=since), live=live) == ([Notice(text)] if said else [])


@pytest.mark.parametrize(
    ("behind", "said"), [(1.9, []), (2.0, ["2 s behind: events arrive faster than they can be read"])]
)
def test_events_that_come_late(behind: float, said: list[str]) -> None:
    assert noticed(Status(behind=behind)) == [Notice(text, bad=True) for text in said]


def test_old_counters_are_no_accounting_that_is_off() -> None:
    table = FlowTable()
    off = Notice("accounting is off: no bytes, packets or rates", "sysctl -w net.netfilter.nf_conntrack_acct=1")
    assert noticed(Status(facts={"acct": 0}), table=table) == [off]
    listing(table, [line(1, size=5)], 1.0)
    assert noticed(Status(facts={"acct": 0}), table=table) == []
    assert (
        rows_of(Status(facts={"acct": 0}), table=table)["accounting"].value
        == "off for new flows: only older flows have byte counts"
    )


def test_parts_that_stopped() -> None:
    table = FlowTable()
    status = Status(troubles={"events": Problem("gone", "ssh"), "listing": Problem("no")})
    assert noticed(status, table=table) == [
        Notice("listing stopped: no, retrying", bad=True),
        Notice("events stopped: gone, retrying", "ssh", bad=True),
    ]
    listing(table, [], 87.0)
    assert noticed(status, table=table)[0].text == "listing stopped: no, table is 13 s old, retrying"
    assert noticed(status, table=table, now=80.0)[0].text == "listing stopped: no, table is 0 s old, retrying"
