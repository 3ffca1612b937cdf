"""What a flow belongs to: sums are those of the flows' JSON, terms select exactly, and what is new since the mark."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

import export
from addresses import Context
from columns import VIEWS, GroupFacts
from filters import FilterError, compile_filter
from grouping import COUNTRY, FAR, NEAR, NETWORK, SERVICE, Grouper, Grouping, GroupRow, group_object
from parse import WITH_PORTS
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
