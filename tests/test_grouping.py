"""What a flow belongs to: sums are those of the flows' JSON, terms select exactly, and what is new since the mark."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import export
from addresses import NOWHERE, Context, Lookups, Named, Place
from columns import (
    COUNTRY_COLUMNS,
    HOST_COLUMNS,
    NETWORK_COLUMNS,
    REMOTE_COLUMNS,
    SERVICE_COLUMNS,
    VIEWS,
    GroupColumn,
    GroupFacts,
)
from filters import FilterError, compile_filter
from flows import Flow, FlowTable, Progress
from grouping import (
    COUNTRY,
    FAR,
    NEAR,
    NETWORK,
    REMEMBERED_RATES,
    REMEMBERED_ROWS,
    SERVICE,
    Baseline,
    Grouper,
    Grouping,
    GroupRow,
    RateHistory,
    group_columns,
    group_key,
    group_object,
    service_key,
    service_name,
    shares_of,
)
from parse import WITH_PORTS, split_lines
from support.strategies import blocks
from support.tables import LAN, WAN, Monitor, event, feed, flows_of, lan_monitor, line, listing

GROUPINGS = (NEAR, FAR, COUNTRY, NETWORK, SERVICE)


def of_json(item: dict[str, Any], grouping: Grouping) -> tuple[str, int, int]:
    """The key, and the bytes in and out, that a flow's JSON tells."""
    original, reply, remote = item["original"], item["reply"], item["remote"]
    inward = remote["ip"] in (original["src"], reply["dst"])
    sent, answered = original.get("bytes", 0), reply.get("bytes", 0)
    name, port = item["protocol"], original.get("dport")
    if name == "unknown":
        name = f"ip{item['protocol_number']}"
    key = {
        NEAR: reply["src"] if inward else original["src"],
        FAR: remote["ip"],
        COUNTRY: remote.get("country", ""),
        NETWORK: str(remote.get("asn", "")),
        SERVICE: name if port is None or item["protocol_number"] not in WITH_PORTS else f"{name}/{port}",
    }[grouping]
    return key, *((sent, answered) if inward else (answered, sent))


@given(block=blocks, grouping=st.sampled_from(GROUPINGS), pieces=st.integers(1, 4))
def test_sums_are_those_of_the_flows_json(block: bytes, grouping: Grouping, pieces: int) -> None:
    flows, context = flows_of(block)
    flows = [flow for flow in flows if flow.ended is None]
    tally = Grouper(grouping, context)
    for at in range(0, len(flows), pieces):
        tally.add(flows[at : at + pieces])
    count: Counter[str] = Counter()
    size_in: Counter[str] = Counter()
    size_out: Counter[str] = Counter()
    for flow in flows:
        item = export.json_object(flow.record(), flow, context, "list", None)
        if flow.counts() is None:  # only one direction was printed: that is no count
            item["original"].pop("bytes", 0)
            item["reply"].pop("bytes", 0)
        key, came_in, went_out = of_json(item, grouping)
        count[key] += 1
        size_in[key] += came_in
        size_out[key] += went_out
    assert {key: row.flows for key, row in tally.sums.items()} == dict(count)
    assert {key: row.size_in for key, row in tally.sums.items()} == dict(size_in)
    assert {key: row.size_out for key, row in tally.sums.items()} == dict(size_out)
    assert sum(row.unreplied for row in tally.sums.values()) == sum("UNREPLIED" in flow.flags() for flow in flows)


@given(others=st.dictionaries(st.sampled_from(["", *"abcdefgh"]), st.integers(1, 4)))
def test_those_with_the_most_flows_are_named(others: dict[str, int]) -> None:
    row = GroupRow("tcp/443")
    row.others = others
    by_flows = Counter({name: flows for name, flows in sorted(others.items()) if name})  # equal ones keep their order
    assert row.most() == [name for name, _ in by_flows.most_common(3)]
    cell = next(column.cell for column in VIEWS[4].columns if column.key == "hosts")
    text = cell(GroupFacts(row, Context().where, str, "", ""))
    assert text == " ".join(row.most()) + (f" +{len(by_flows) - 3}" if len(by_flows) > 3 else "")


@given(block=blocks, grouping=st.sampled_from(GROUPINGS))
def test_a_row_s_term_selects_exactly_its_flows(block: bytes, grouping: Grouping) -> None:
    flows, context = flows_of(block)
    tally = Grouper(grouping, context)
    tally.add(flows)
    for key, row in tally.sums.items():
        try:
            wanted = compile_filter(grouping.term(key), context)
        except FilterError:  # what a recording has in place of an address
            assert grouping in (NEAR, FAR)
            continue
        assert wanted
        assert sum(map(wanted, flows)) == row.flows, key


def test_in_is_what_the_far_end_sends_whoever_opened_the_flow() -> None:
    monitor = Monitor()
    out = line(1, src=LAN, dst="8.8.8.8", size=None).replace("[ASSURED]", "[ASSURED]")
    out = out.replace("dport=443 src=", "dport=443 packets=1 bytes=100 src=").replace(
        " [ASSURED]", " packets=1 bytes=900 [ASSURED]"
    )
    inward = line(2, src="8.8.4.4", dst=WAN, reply_src=LAN, reply_dst="8.8.4.4")
    inward = inward.replace("dport=443 src=", "dport=443 packets=1 bytes=30 src=").replace(
        " [ASSURED]", " packets=1 bytes=5 [ASSURED]"
    )
    listing(monitor.table, [out, inward], 101.0)
    monitor.keys("2")
    (row,) = monitor.view.rows.order
    assert (row.key, row.flows, row.size_in, row.size_out) == (LAN, 2, 930, 105)
    assert group_object(row, NEAR)["host"] == LAN


def test_what_is_new_since_the_mark() -> None:
    monitor = lan_monitor()
    monitor.keys("m")
    mark = monitor.view.baseline
    assert mark is not None
    assert mark.complete
    feed(monitor.table, event("NEW", 40, src="10.0.0.1", dst="8.8.1.8", dport=443, sport=999), 105.0)  # all of it known
    feed(monitor.table, event("NEW", 41, src="10.0.0.77", dst="8.8.1.8", dport=443, sport=999), 106.0)
    feed(monitor.table, event("NEW", 42, src="10.0.0.1", dst="8.8.1.8", dport=22, sport=998), 106.0)
    monitor.now = 107.0
    for text, ids in (
        ("new:", {41, 42}),
        ("new:host", {41}),
        ("new:service", {42}),
        ("new:remote,country", set()),
    ):
        monitor.view.set_filter(text)
        monitor.refresh()
        assert set(monitor.ids()) == ids, text
    monitor.view.set_filter("")
    monitor.keys("2")
    rows = {text for spans in [frame_of(monitor)] for text, role in spans if role == "new"}
    assert any("10.0.0.77" in text for text in rows)
    assert not any("10.0.0.1 " in text for text in rows)
    monitor.keys("m")
    assert monitor.view.baseline is None


def frame_of(monitor: Monitor) -> list[tuple[str, str]]:

    return [span for spans in monitor.frame(140, 30) for span in spans]


# --- sums over flows: two flows, one opened by each side, with different numbers, and every number where it belongs ---


LAN_HOST, LAN2, GATEWAY, ROUTER = "192.168.1.9", "192.168.1.8", "203.0.113.1", "192.168.1.1"
FAR_US, FAR_US2, FAR_DE = "8.8.8.8", "8.8.4.4", "9.9.9.9"
PLACES = {
    FAR_US: Place("US", "United States", "Mountain View", 15169, "Google LLC"),
    FAR_US2: Place("US", "United States", None, 15169, "Google LLC"),
    FAR_DE: Place("DE", "Germany", None, 0),
}
NOW = 100.0


def flow_line(
    src: str,
    dst: str,
    *,
    reply_src: str = "",
    reply_dst: str = "",
    sport: int = 1000,
    dport: int = 443,
    sent: int = 0,
    got: int = 0,
    protocol: str = "tcp      6",
    before: str = "",
    tail: str = "",
) -> str:
    """A flow with counters; ``sent`` by who opened it."""
    there, back = f"sport={sport} dport={dport} ", f"sport={dport} dport={sport} "
    if protocol.startswith(("unknown", "gre")):
        there = back = "srckey=0x0 dstkey=0x1 " if protocol.startswith("gre") else ""
    state = "ESTABLISHED " if protocol.startswith(("tcp", "sctp")) else ""
    return (
        f"ipv4     2 {protocol} 300 {state}src={src} dst={dst} {there}packets=1 bytes={sent} {before}"
        f"src={reply_src or dst} dst={reply_dst or src} {back}packets=1 bytes={got} mark=0 use=1 id=1{tail}"
    )


def flow_of(text: str, rates: tuple[float, float] | None = None, born: float | None = None) -> Flow:
    """``rates`` of the original direction and of the reply; ``born``: its NEW was seen then."""
    table = FlowTable()
    (row,), rejects = split_lines(text.encode() + b"\n")
    assert not rejects
    flow = table.listed(row, NOW)
    assert flow is not None
    flow.progress = Progress(rates=rates, exact=born is not None)
    flow.born = flow.born if born is None else born
    return flow


def context(**more: Any) -> Context:
    where = Lookups(lambda address: PLACES.get(address, NOWHERE))
    return Context(where, now=NOW, own=frozenset({GATEWAY, ROUTER}), **more)


def summed(grouping: Grouping, *flows: Flow) -> dict[str, GroupRow]:
    tally = Grouper(grouping, context())
    for flow in flows:
        tally.add([flow])
    assert tally.flows == len(flows)
    at_once = Grouper(grouping, context())
    at_once.add(flows)
    tally.finish()
    at_once.finish()
    assert {key: vars_of(row) for key, row in tally.sums.items()} == {
        key: vars_of(row) for key, row in at_once.sums.items()
    }
    return at_once.sums


def vars_of(row: GroupRow) -> Any:
    names = ("key", "label", "flows", "fresh", "unreplied", "rate_in", "rate_out", "size_in", "size_out", "others")
    return [getattr(row, name) for name in names]


OUT = {"sent": 10, "got": 2000}  # of a flow that the near side opened
INWARD = {"sent": 300_000, "got": 40_000_000}  # ... the far side
PAIRS = {
    "routed": (flow_line(LAN_HOST, FAR_US, **OUT), flow_line(FAR_US, LAN_HOST, **INWARD)),  # type: ignore[arg-type]
    "NAT": (
        flow_line(LAN_HOST, FAR_US, reply_dst=GATEWAY, **OUT),  # type: ignore[arg-type]
        flow_line(FAR_US, GATEWAY, reply_src=LAN_HOST, **INWARD),  # type: ignore[arg-type]
    ),
}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize(
    ("grouping", "key"), [(NEAR, LAN_HOST), (FAR, FAR_US), (COUNTRY, "US"), (NETWORK, "15169"), (SERVICE, "tcp/443")]
)
def test_in_is_what_the_far_end_sends_and_out_what_the_near_end_does(pair: str, grouping: Grouping, key: str) -> None:
    out, inward = PAIRS[pair]
    sums = summed(grouping, flow_of(out, (1.0, 20.0), born=95.0), flow_of(inward, (300.0, 4000.0)))
    assert list(sums) == [key]
    row = sums[key]
    assert (row.rate_in, row.rate_out) == (20.0 + 300.0, 1.0 + 4000.0)
    assert (row.size_in, row.size_out) == (2000 + 300_000, 10 + 40_000_000)
    assert (row.rate, row.size) == (4321.0, 40_302_010)
    assert (row.flows, row.fresh, row.unreplied) == (2, 1, 0)


def test_in_and_out_of_each_alone() -> None:
    out, inward = PAIRS["NAT"]
    (row,) = summed(NEAR, flow_of(out, (1.0, 20.0))).values()
    assert (row.rate_in, row.rate_out, row.size_in, row.size_out) == (20.0, 1.0, 2000, 10)
    (row,) = summed(NEAR, flow_of(inward, (1.0, 20.0))).values()
    assert (row.rate_in, row.rate_out, row.size_in, row.size_out) == (1.0, 20.0, 300_000, 40_000_000)
    (row,) = summed(NEAR, flow_of(inward)).values()
    assert (row.rate_in, row.rate_out) == (0.0, 0.0)


def cells(columns: tuple[GroupColumn, ...], row: GroupRow, **names: str) -> dict[str, str]:
    there = context()
    return {column.key: column.cell(GroupFacts(row, there.where, names.get, "#", ".")) for column in columns}


def test_a_host_s_row() -> None:
    out, inward = PAIRS["NAT"]
    sums = summed(
        NEAR, flow_of(out, (1.0, 20.0), born=95.0), flow_of(inward, (300.0, 4000.0)), flow_of(flow_line(LAN2, FAR_DE))
    )
    shares_of(sums.values(), "flows")(sums.values())
    assert cells(HOST_COLUMNS, sums[LAN_HOST]) == {
        **{
            "host": LAN_HOST,
            "name": "",
            "flows": "2",
            "new": "0.1",
            "rate": "4.3k/s",
            "in": "320/s",
            "out": "4.0k/s",
            "bytes": "40M",
        },
        **{
            "bytes-in": "302k",
            "bytes-out": "40M",
            "unreplied": "0%",
            "share": "#######...  67%",
            "curve": "",
            "countries": "US",
        },
        **{"remotes": "1", "ports": "1"},
    }
    assert cells(HOST_COLUMNS, sums[LAN2])["in"] == "-"  # none of its flows has a rate yet
    assert cells(HOST_COLUMNS, summed(NEAR, flow_of(flow_line(LAN2, FAR_DE), (0.0, 0.0)))[LAN2])["in"] == "0"
    assert cells(HOST_COLUMNS, sums[LAN2], **{LAN2: "printer"})["host"] == "printer"


UNCOUNTED = "ipv4     2 tcp      6 300 ESTABLISHED src={0} dst={1} sport=1000 dport=443 src={1} dst={0} sport=443 dport=1000 mark=0 use=1"


@pytest.mark.parametrize("grouping", [NEAR, FAR, COUNTRY, NETWORK, SERVICE])
def test_what_one_listing_cannot_know_is_no_zero(grouping: Grouping) -> None:
    """RATE, IN, OUT and NEW/s were 0 in --once, and rate_in 0.0 in its JSON."""
    tally = Grouper(grouping, context(), watched=None)
    tally.add([flow_of(flow_line(LAN_HOST, FAR_US, **OUT)), flow_of(flow_line(LAN2, FAR_US, dport=444))])  # type: ignore[arg-type]
    for row in tally.sums.values():
        shown = cells(HOST_COLUMNS, row)
        assert [shown[key] for key in ("rate", "in", "out", "new")] == ["-"] * 4
        assert not {"rate_in", "rate_out", "new_per_second"} & group_object(row, grouping).keys()


def test_bytes_that_nobody_counts_are_no_zero() -> None:
    """Accounting is off, or was when the flow began."""
    (row,) = summed(NEAR, flow_of(UNCOUNTED.format(LAN_HOST, FAR_US))).values()
    shown = cells(HOST_COLUMNS, row)
    assert [shown[key] for key in ("bytes", "bytes-in", "bytes-out", "rate")] == ["-"] * 4
    assert not {"bytes_in", "bytes_out"} & group_object(row, NEAR).keys()
    shares_of([row], "bytes")([row])
    assert row.share == 1.0  # of flows: nothing else is known


def test_a_sum_of_some_is_shown_but_a_zero_only_where_all_are_known() -> None:
    known, unknown = (
        flow_of(flow_line(LAN_HOST, FAR_US, sent=10), (5.0, 0.0)),
        flow_of(UNCOUNTED.format(LAN_HOST, FAR_DE)),
    )
    (row,) = summed(NEAR, known, unknown).values()
    shown = cells(HOST_COLUMNS, row)
    assert {key: shown[key] for key in ("rate", "out", "in", "bytes-out", "bytes-in")} == {
        **{"rate": "5/s", "out": "5/s", "in": "-", "bytes-out": "10", "bytes-in": "-"}
    }
    (row,) = summed(NEAR, known).values()
    shown = cells(HOST_COLUMNS, row)
    assert (shown["in"], shown["bytes-in"]) == ("0", "0")
    item = group_object(row, NEAR)
    assert (item["rate_in"], item["rate_out"], item["bytes_in"], item["bytes_out"]) == (0.0, 5.0, 0, 10)


@pytest.mark.parametrize(
    ("watched", "shown", "number"),
    [(None, "-", None), (0.9, "-", None), (4.0, "0.2", 0.25), (10.0, "0.1", 0.1), (500.0, "0.1", 0.1)],
)
def test_new_flows_a_second_are_those_of_the_time_that_was_watched(
    watched: float | None, shown: str, number: float | None
) -> None:
    """4 s after the start they were divided by 10 s."""
    tally = Grouper(NEAR, context(), watched)
    tally.add(
        [
            flow_of(flow_line(LAN_HOST, FAR_US), born=NOW - 0.5),
            flow_of(flow_line(LAN_HOST, FAR_US, sport=2), born=NOW - 99),
        ]
    )
    (row,) = tally.sums.values()
    assert cells(HOST_COLUMNS, row)["new"] == shown
    assert group_object(row, NEAR).get("new_per_second") == number


@pytest.mark.parametrize("grouping", [NEAR, FAR, COUNTRY, NETWORK, SERVICE])
def test_the_columns_of_csv_are_the_keys_of_the_objects(grouping: Grouping) -> None:
    rows = list(summed(grouping, flow_of(flow_line(LAN_HOST, FAR_US, sent=10, got=5), (5.0, 1.0))).values())
    rows += summed(grouping, flow_of(UNCOUNTED.format(LAN2, LAN_HOST))).values()
    for row in rows:
        keys = list(group_object(row, grouping))
        assert keys == [key for key in group_columns(grouping) if key in keys]
    who = Named("laptop", "02:00:5e:10:00:01", "web-db-1", "web/db")
    assert list(group_object(rows[0], grouping, who)) == group_columns(grouping)


def test_unknown_sums_come_last() -> None:
    known = summed(NEAR, flow_of(flow_line(LAN_HOST, FAR_US, sent=0, got=0), (0.0, 0.0)))[LAN_HOST]
    unknown = summed(NEAR, flow_of(UNCOUNTED.format(LAN2, FAR_US)))[LAN2]
    for column in HOST_COLUMNS:
        if column.key in ("rate", "in", "out", "bytes", "bytes-in", "bytes-out"):
            first, second = column.keys([known, unknown], context())
            assert first > second, column.key


def test_rows_of_the_other_views() -> None:
    flows = [
        flow_of(flow_line(LAN_HOST, FAR_US, sent=5, before="[UNREPLIED] "), (0.6, 0.0)),
        flow_of(flow_line(LAN2, FAR_US2, dport=8080, got=7), (0.4, 0.0)),
        flow_of(flow_line(LAN_HOST, FAR_DE)),
        flow_of(flow_line(LAN_HOST, LAN2, protocol="unknown  253")),
    ]
    far = summed(FAR, *flows)
    shares_of(far.values(), "bytes")(far.values())
    row = cells(REMOTE_COLUMNS, far[FAR_US])
    assert {key: row[key] for key in ("host", "cc", "org", "hosts", "rate", "out", "unreplied", "bytes", "share")} == {
        **{
            "host": FAR_US,
            "cc": "US",
            "org": "Google LLC",
            "hosts": "1",
            "rate": "1/s",
            "out": "1/s",
            "unreplied": "100%",
        },
        **{"bytes": "5", "share": "####......  42%"},
    }
    assert cells(REMOTE_COLUMNS, far[FAR_US2])["rate"] == "0"
    assert (cells(REMOTE_COLUMNS, far[LAN2])["cc"], cells(REMOTE_COLUMNS, far[LAN2])["org"]) == ("", "")
    country = summed(COUNTRY, *flows)
    assert sorted(country) == ["", "DE", "US"]
    told = {key: cells(COUNTRY_COLUMNS, row) for key, row in country.items()}
    assert {key: (row["country"], row["name"], row["hosts"], row["flows"]) for key, row in told.items()} == {
        "US": ("US", "United States", "2", "2"),
        "DE": ("DE", "Germany", "1", "1"),
        "": ("--", "unknown", "1", "1"),
    }
    network = summed(NETWORK, *flows)
    told = {key: cells(NETWORK_COLUMNS, row) for key, row in network.items()}
    assert {key: (row["asn"], row["name"]) for key, row in told.items()} == {
        "15169": ("AS15169", "Google LLC"),
        "0": ("AS0", ""),
        "": ("--", "unknown"),
    }
    service = summed(SERVICE, *flows)
    told = {key: cells(SERVICE_COLUMNS, row) for key, row in service.items()}
    assert {key: (row["service"], row["name"], row["hosts"]) for key, row in told.items()} == {
        "tcp/443": ("tcp/443", "https", LAN_HOST),
        "tcp/8080": ("tcp/8080", "http-alt", LAN2),
        "ip253": ("ip253", "", LAN_HOST),
    }


def test_who_else_is_told_apart() -> None:
    """Countries of a host, hosts of a country: with how many flows each, those with the most named first."""
    flows = [flow_of(flow_line(LAN_HOST, far)) for far in (FAR_US, FAR_US2, FAR_DE, "1.1.1.1")]
    (host,) = summed(NEAR, *flows).values()
    assert host.others == {"US": 2, "DE": 1, "": 1}
    assert host.most() == ["US", "DE"]
    (service,) = summed(SERVICE, *flows, flow_of(flow_line(LAN2, FAR_DE))).values()
    assert service.others == {LAN_HOST: 4, LAN2: 1}
    (country, *_) = summed(COUNTRY, *flows).values()
    assert country.others == {LAN_HOST: 2}
    row = GroupRow("x")
    row.others = {"a": 1, "b": 5, "c": 1, "d": 2, "e": 1}
    assert row.most() == ["b", "d", "a"]
    assert cells(SERVICE_COLUMNS, row)["hosts"] == "b d a +2"
    assert cells(COUNTRY_COLUMNS, row)["hosts"] == "5"
    assert GroupRow("y").most() == []
    assert cells(SERVICE_COLUMNS, GroupRow("tcp/22"))["unreplied"] == "-"


@pytest.mark.parametrize(("born", "fresh"), [(None, 0), (89.9, 0), (90.0, 1), (90.1, 1), (100.0, 1)])
def test_new_flows_are_those_whose_birth_was_seen_in_the_last_ten_seconds(born: float | None, fresh: int) -> None:
    (row,) = summed(NEAR, flow_of(flow_line(LAN_HOST, FAR_US), born=born)).values()
    assert row.fresh == fresh
    assert cells(HOST_COLUMNS, row)["new"] == f"0.{fresh}"


@pytest.mark.parametrize(
    ("before", "tail", "unreplied"),
    [
        ("", "", 0),
        ("[UNREPLIED] ", "", 1),
        ("", " [USERSPACE] portid=1 progname=[UNREPLIED]", 0),
        ("[UNREPLIED] ", " [USERSPACE] portid=1 progname=x", 1),
    ],
)
def test_unreplied_flows(before: str, tail: str, unreplied: int) -> None:
    text = " [UPDATE] " + flow_line(LAN_HOST, FAR_US, before=before, tail=tail).replace(" use=1", "")
    (line,) = split_lines(text.encode() + b"\n")[0]
    (row,) = summed(NEAR, FlowTable().event(line, NOW)).values()
    assert row.unreplied == unreplied


def test_a_flow_s_counters_are_the_newest_ones() -> None:
    table = FlowTable()
    lines = [
        flow_line(LAN_HOST, FAR_US, sent=5, got=6, tail=""),
        " [UPDATE] " + flow_line(LAN_HOST, FAR_US).replace("packets=1 bytes=0 ", ""),
    ]
    for text in lines:
        (row,) = split_lines(text.encode() + b"\n")[0]
        if row[1]:
            table.event(row, NOW)
        else:
            table.listed(row, NOW)
    (flow,) = table.live.values()
    (total,) = summed(NEAR, flow).values()
    assert (total.size_in, total.size_out) == (6, 5)


@pytest.mark.parametrize(
    ("protocol", "dport", "key", "name"),
    [
        ("tcp      6", 443, "tcp/443", "https"),
        ("udp      17", 443, "udp/443", "quic"),
        ("udp      17", 40_000, "udp/40000", ""),
        ("sctp     132", 80, "sctp/80", ""),
        ("unknown  253", 443, "ip253", ""),
        ("gre      47", 443, "gre", ""),
    ],
)
def test_services(protocol: str, dport: int, key: str, name: str) -> None:
    flow = flow_of(flow_line(LAN_HOST, FAR_US, protocol=protocol, dport=dport))
    assert service_key(flow) == key
    assert service_name(key) == name
    assert list(summed(SERVICE, flow)) == [key]
    assert group_key(flow, SERVICE, context()) == key
    assert group_key(flow, NEAR, context()) == LAN_HOST
    assert group_key(flow, FAR, context()) == FAR_US
    assert group_key(flow, COUNTRY, context()) == "US"
    assert group_key(flow, NETWORK, context()) == "15169"


@pytest.mark.parametrize(
    ("by", "wanted"),
    [
        ("flows", [0.5, 0.5, 0.0]),
        ("rate", [0.75, 0.25, 0.0]),
        ("bytes", [0.2, 0.8, 0.0]),
        ("bytes-in", [0.2, 0.8, 0.0]),
        ("host", [0.2, 0.8, 0.0]),
    ],
)
def test_shares_are_of_what_is_sorted_by(by: str, wanted: list[float]) -> None:
    rows = [GroupRow("a"), GroupRow("b"), GroupRow("c")]
    rows[0].flows, rows[0].rate_in, rows[0].size_in = 3, 75.0, 20
    rows[1].flows, rows[1].rate_out, rows[1].size_out = 3, 25.0, 80
    shares_of(rows, by)(rows)
    assert [row.share for row in rows] == wanted


def test_where_nothing_moved_shares_are_of_the_flows() -> None:
    rows = [GroupRow("a"), GroupRow("b")]
    rows[0].flows, rows[1].flows = 1, 3
    shares_of(rows, "rate")(rows)
    assert [row.share for row in rows] == [0.25, 0.75]
    empty = [GroupRow("a")]
    empty[0].share = 9.0
    shares_of(empty, "bytes")(empty)
    assert empty[0].share == 0.0
    shares_of([], "bytes")([])


def test_a_sum_is_the_same_as_a_later_one_of_its_key() -> None:
    assert GroupRow("a") == GroupRow("a") != GroupRow("b")
    assert GroupRow("a") != "a"
    assert len({GroupRow("a"), GroupRow("a"), GroupRow("b")}) == 2


def test_the_json_of_rows() -> None:
    out, inward = PAIRS["NAT"]
    flows = [flow_of(out, (1.04, 20.0), born=95.0), flow_of(inward, (300.0, 4000.06))]
    numbers = {
        **{"flows": 2, "new_per_second": 0.1, "rate_in": 320.0, "rate_out": 4001.1, "bytes_in": 302_000},
        **{"bytes_out": 40_000_010, "unreplied": 0, "share": 0.333333},
    }

    def only(grouping: Grouping) -> dict[str, Any]:
        (row,) = summed(grouping, *flows).values()
        row.share = 1 / 3
        return group_object(row, grouping)

    assert only(NEAR) == {"host": LAN_HOST, **numbers, "remotes": 1, "ports": 1, "countries": ["US"]}
    assert only(FAR) == {"remote": FAR_US, **numbers, "hosts": [LAN_HOST]}
    assert only(COUNTRY) == {"country": "US", "country_name": "United States", **numbers, "hosts": [LAN_HOST]}
    assert only(NETWORK) == {"asn": 15169, "org": "Google LLC", **numbers, "hosts": [LAN_HOST]}
    assert only(SERVICE) == {"service": "tcp/443", "name": "https", **numbers, "hosts": [LAN_HOST]}
    nobody = flow_of(flow_line(LAN_HOST, LAN2))
    (row,) = summed(NETWORK, nobody).values()
    assert (group_object(row, NETWORK)["asn"], "org" in group_object(row, NETWORK)) == (None, False)
    (row,) = summed(NEAR, nobody).values()
    assert group_object(row, NEAR)["countries"] == []


@pytest.mark.parametrize(
    ("grouping", "key", "term"),
    [
        (NEAR, LAN_HOST, f"near:{LAN_HOST}"),
        (FAR, FAR_US, f"far:{FAR_US}"),
        (COUNTRY, "US", "country:US"),
        (COUNTRY, "", "country:none"),
        (NETWORK, "15169", "asn:15169"),
        (SERVICE, "tcp/443", "service:tcp/443"),
    ],
)
def test_the_filter_that_selects_a_row_s_flows(grouping: Grouping, key: str, term: str) -> None:
    assert grouping.term(key) == term


# --- what is new ------------------------------------------------------------------------------------------------------


def test_new_is_what_belongs_to_something_that_was_not_there_when_it_was_marked() -> None:
    mark = Baseline(NOW, context())
    mark.learn(flow_of(flow_line(LAN_HOST, FAR_US)))

    def is_new(text: str, born: float = NOW + 1, *groupings: Grouping) -> bool:
        flow = flow_of(text, born=born)
        return mark.is_new(flow, groupings) if groupings else mark.is_new(flow)

    assert not is_new(flow_line(LAN_HOST, FAR_US, sport=2))
    assert is_new(flow_line(LAN2, FAR_US))
    assert not is_new(flow_line(LAN2, FAR_US), NOW)  # it was there before
    assert is_new(flow_line(LAN2, FAR_US), NOW + 1, NEAR)
    assert not is_new(flow_line(LAN2, FAR_US), NOW + 1, FAR, COUNTRY, NETWORK, SERVICE)
    assert is_new(flow_line(LAN_HOST, FAR_US2), NOW + 1, FAR)
    assert not is_new(flow_line(LAN_HOST, FAR_US2), NOW + 1, COUNTRY, NETWORK)
    assert is_new(flow_line(LAN_HOST, FAR_DE), NOW + 1, COUNTRY)
    assert is_new(flow_line(LAN_HOST, FAR_DE), NOW + 1, NETWORK)
    assert is_new(flow_line(LAN_HOST, FAR_US, dport=22), NOW + 1, SERVICE)
    assert is_new(flow_line(LAN_HOST, "1.1.1.1"), NOW + 1, FAR)
    assert not is_new(flow_line(LAN_HOST, "1.1.1.1"), NOW + 1, COUNTRY, NETWORK)  # what has no country is not a new one
    assert mark.is_new_key(COUNTRY, "FR")
    assert not mark.is_new_key(COUNTRY, "")
    assert not mark.is_new_key(COUNTRY, "US")


def test_what_is_not_known_is_no_zero() -> None:
    """One listing knows no rates, a flow without accounting no bytes, and a table without events no births."""
    uncounted = re.sub(r"packets=\d+ bytes=\d+ ", "", flow_line(LAN_HOST, FAR_US))
    tally = Grouper(NEAR, context(), watched=None)
    tally.add([flow_of(uncounted)])
    row = tally.sums[LAN_HOST]
    assert [
        cells(HOST_COLUMNS, row)[key] for key in ("new", "rate", "in", "out", "bytes", "bytes-in", "bytes-out")
    ] == ["-"] * 7
    assert group_object(row, NEAR).keys() == {"host", "flows", "unreplied", "share", "countries"}
    tally.add([flow_of(flow_line(LAN_HOST, FAR_US, sent=7), (0.0, 0.0))])
    item = group_object(tally.sums[LAN_HOST], NEAR)
    assert item["bytes_out"] == 7
    assert not {"rate_in", "rate_out", "bytes_in", "new_per_second"} & item.keys()  # 0 of what is known is not 0 of all


def test_rates_of_the_past_are_bounded() -> None:
    history = RateHistory()
    rows = []
    for number in range(REMEMBERED_ROWS + 500):
        row = GroupRow(str(number))
        row.flows = row.rated = 1
        row.rate_in = float(number)
        rows.append(row)
    for listing_ in range(REMEMBERED_RATES * 2):
        history.take(rows, listing_)
        history.take(rows, listing_)
    assert history.of(str(len(rows) - 1)) == [float(len(rows) - 1)] * REMEMBERED_RATES
    assert history.of("3") == []
    history.take([], 10_000)
    assert history.of(str(len(rows) - 1)) == []
