"""How healthy the table is, at the borders: from which number on something is said, how loud, and what mends it."""

from __future__ import annotations

import pytest

import health
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
from intake import Problem, Statistics, Status
from support.tables import Monitor, line, listing

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
        (5, None, "0 flows; the kernel's own count and maximum are not known", "plain", "", None),
        (5, 0, "0 flows; the kernel's own count and maximum are not known", "plain", "", None),
        (None, 1000, "0 flows; the kernel's own count and maximum are not known", "plain", "", None),
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
    assert row.value == f"holds {number / 10:.0f} %, {number} flows"
    assert (row.role, row.share) == ("warn" if hogs else "plain", number / flows)
    cure = "iptables -I PREROUTING -t mangle -s 10.0.0.1 -m connlimit --connlimit-above 100 -j DROP"
    assert row.cure == (cure if hogs else "")
    assert brief(status, shares, 100.0) == ([(f"10.0.0.1 holds {number / 10:.0f} %", "warn")] if hogs else [])
    assert rows["fd00::1"] == HealthRow("fd00::1", "holds <1 %, 1 flows", "plain", 0.001)


def test_how_much_a_source_may_have_then() -> None:
    status = status_of(9000, 10_000)
    row = rows_of(status, Shares(100, 0, 0, (("fd00::1", 50),)))["fd00::1"]
    assert row.cure == "ip6tables -I PREROUTING -t mangle -s fd00::1 -m connlimit --connlimit-above 500 -j DROP"


@pytest.mark.parametrize(
    ("assured", "count", "warns"), [(900, 800, True), (899, 800, False), (900, 799, False), (1000, 1000, True)]
)
def test_assured_flows_stay(assured: int, count: int, warns: bool) -> None:
    row = rows_of(status_of(count), Shares(1000, assured, 0))["assured"]
    text = f"{assured / 10:.0f} %, {assured} flows: they stay until they time out"
    cure = "sysctl -w net.netfilter.nf_conntrack_tcp_timeout_established=86400"
    assert row == HealthRow("assured", text, "warn" if warns else "plain", assured / 1000, cure if warns else "")


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
    assert row.value.endswith(f", {unreplied} flows: the first to go when the table is full")


def test_before_anything_was_counted_there_are_no_shares() -> None:
    assert list(rows_of(status_of(5))) == list(rows_of(status_of(5), Shares()))
    assert "assured" not in rows_of(status_of(5))


def test_who_fills_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = Monitor(
        [
            *(line(n, src="10.0.0.1") for n in range(1, 6)),
            *(line(n, src=f"10.0.0.{n}", flags="[UNREPLIED] ") for n in range(11, 18)),
            line(21, src="10.0.0.11"),
            line(22, flags="", more="mark=0 [USERSPACE] portid=1 progname=[ASSURED] "),
        ]
    )
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
    assert rows["drop"].value == "3 in 20 s, +9/min, 5 ever: packets dropped: no room for their flow, or it clashed"
    assert rows["early_drop"] == HealthRow(
        "early_drop", "0 in 20 s, 2 ever: flows deleted early, for want of room", "good"
    )
    assert rows["invalid"] == HealthRow("invalid", "7 in 20 s, +21/min, 9 ever: packets that fit no flow")
    status = status_of(0)
    status.take(Statistics(80.0, {"drop": 5, "invalid": 0, "error": 1}))
    rows = rows_of(status)
    assert rows["drop"] == HealthRow("drop", "5 ever: packets dropped: no room for their flow, or it clashed", "good")
    assert "invalid" not in rows  # of what every network has some, none is nothing to say
    assert rows["error"].value == "1 ever: ICMP packets that fit no flow"
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
    assert rows["counters"] == HealthRow("counters", "no whole listing yet")
    assert rows_of(status, live=False)["events lost"].value == "none that the recording tells of"
    listing(table, [line(1)], 70.0)
    assert rows_of(status, table=table)["counters"] == HealthRow("counters", "30 s ago, by listing 1", "good")
    assert rows_of(status, table=table, now=100.1)["counters"].role == "warn"
    assert rows_of(status, table=table, now=200.0, live=False)["counters"] == HealthRow(
        "counters", "2 min ago, by listing 1", "good"
    )
    cure = "sysctl -w net.core.rmem_default=8388608, then start this anew"
    status.losses, status.narrow = 1, True
    assert rows_of(status)["events lost"] == HealthRow(
        "events lost", "once, table read anew 0 times", "warn", cure=cure
    )
    status.lost_at, status.last_loss, status.healed, status.resyncs = 11.0, "events (ENOBUFS)", 1, 1
    text = "once, table read anew once; the last 89 s ago: events (ENOBUFS)"
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
        ({"events": 2}, "kernel events", ("on, for flows that begin while somebody listens", "good", "")),
        (
            {"events": 0},
            "kernel events",
            ("off: only listings tell what happens", "warn", "sysctl -w net.netfilter.nf_conntrack_events=2"),
        ),
        ({"timestamp": 1}, "timestamps", ("on", "good", "")),
        (
            {"timestamp": 0},
            "timestamps",
            (
                "off: flows older than this program have no age",
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
        HealthRow("database", "City of 2026-11, 13 days old"),
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
        (40.1, 2, True, ("events lost 2x, table read anew since", True, False)),
        (40.1, 1, True, ("events lost 2x, reading it anew", True, True)),
        (40.1, 2, False, ("events lost 2x, table read anew since", False, False)),
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
    text = f"the listing that began {100 - since:.0f} s ago has not ended: the table is older than that"
    assert noticed(Status(listing_since=since), live=live) == ([Notice(text)] if said else [])


@pytest.mark.parametrize(("behind", "said"), [(1.9, []), (2.0, ["2 s behind: events come faster than they are read"])])
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
        == "off for new flows: only old ones have bytes"
    )


def test_parts_that_stopped() -> None:
    table = FlowTable()
    status = Status(troubles={"events": Problem("gone", "ssh"), "listing": Problem("no")})
    assert noticed(status, table=table) == [
        Notice("listing stopped: no, trying again", bad=True),
        Notice("events stopped: gone, trying again", "ssh", bad=True),
    ]
    listing(table, [], 87.0)
    assert noticed(status, table=table)[0].text == "listing stopped: no, table is 13 s old, trying again"
    assert noticed(status, table=table, now=80.0)[0].text == "listing stopped: no, table is 0 s old, trying again"
