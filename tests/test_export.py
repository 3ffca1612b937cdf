"""JSON, CSV and numbers for people."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

import export
from addresses import Context, Lookups, Place
from flows import Flow, FlowTable
from parse import EVENTS, record, split_lines
from support.strategies import blocks, histories
from support.tables import OWN_ADDRESSES, where

CAPTURES = Path(__file__).parent.parent / "fixtures" / "captures"


def items(data: bytes, context: Context | None = None) -> list[dict[str, Any]]:
    table = FlowTable()
    out = []
    for row in split_lines(data)[0]:
        flow: Flow | None = table.event(row, 0.0) if row[1] else table.listed(row, 0.0)
        assert flow is not None
        out.append(export.json_object(record(row), flow, context or Context(), EVENTS.get(row[1], "list"), None))
    return out


SNAT = (
    b"[1795386251.601847]\t[DESTROY] ipv4     2 tcp      6 432000 ESTABLISHED src=10.1.0.2 dst=203.0.113.2 sport=53766 dport=80 "
    b"zone-orig=5 packets=6 bytes=395 src=203.0.113.2 dst=203.0.113.1 sport=80 dport=53766 packets=6 bytes=697 [ASSURED] mark=0 "
    b"secctx=a b zone=3 delta-time=12 [start=Thu Nov  5 00:00:00 2026] [stop=Thu Nov  5 00:00:12 2026] helper=ftp use=1 "
    b"id=208240208 labels=web,voice call [USERSPACE] portid=7015 progname=conntrack\n"
)


def test_the_contract_field_by_field() -> None:
    context = Context(
        Lookups(lambda _: Place("US", "United States", None, 15169, "Google LLC")), own=frozenset({"10.1.0.2"})
    )
    assert items(SNAT, context) == [
        {
            "time": "2026-11-22T22:24:11.601847Z",
            "event": "destroy",
            "family": "ipv4",
            "protocol": "tcp",
            "protocol_number": 6,
            "state": "ESTABLISHED",
            "timeout": 432000,
            "flags": ["ASSURED"],
            "original": {
                **{"src": "10.1.0.2", "dst": "203.0.113.2", "sport": 53766, "dport": 80},
                **{"zone_orig": 5, "packets": 6, "bytes": 395},
            },
            "reply": {
                **{"src": "203.0.113.2", "dst": "203.0.113.1", "sport": 80, "dport": 53766},
                **{"packets": 6, "bytes": 697},
            },
            "mark": 0,
            "zone": 3,
            "secctx": "a b",
            "helper": "ftp",
            "use": 1,
            "id": 208240208,
            "delta_time": 12,
            "labels": ["web", "voice call"],
            "start": "Thu Nov  5 00:00:00 2026",
            "stop": "Thu Nov  5 00:00:12 2026",
            "userspace": {"portid": 7015, "progname": "conntrack"},
            "nat": ["snat"],
            "direction": "out",
            "remote": {
                "ip": "203.0.113.2",
                "country": "US",
                "country_name": "United States",
                "asn": 15169,
                "org": "Google LLC",
            },
        }
    ]


def test_what_was_not_printed_is_left_out() -> None:
    (item,) = items(b"unknown  50 src=192.0.2.1 dst=192.0.2.2 src=192.0.2.2 dst=192.0.2.1\n")
    assert item == {
        "event": "list",
        "family": "ipv4",
        "protocol": "unknown",
        "protocol_number": 50,
        "original": {"src": "192.0.2.1", "dst": "192.0.2.2"},
        "reply": {"src": "192.0.2.2", "dst": "192.0.2.1"},
        "remote": {"ip": "192.0.2.2"},
    }


def test_icmp_and_gre_tuples() -> None:
    (icmp,) = items((CAPTURES / "icmp-echo" / "L.ext-id.txt").read_bytes().splitlines()[0] + b"\n")
    assert set(icmp["original"]) == {"src", "dst", "type", "code", "icmp_id", "packets", "bytes"}
    (gre,) = items((CAPTURES / "gre" / "L.ext-id.txt").read_bytes().splitlines()[1] + b"\n")
    assert (gre["original"]["srckey"], gre["original"]["dstkey"]) == ("0x0", "0x1234")
    assert (gre["reply"]["srckey"], gre["reply"]["dstkey"]) == ("0x1234", "0x0")
    assert "nat" not in gre


def test_a_line_is_ascii_and_one_line_whatever_a_program_is_called() -> None:
    hostile = SNAT.replace(b"progname=conntrack", b"progname=\x1b]0;x\x07\xc2\x9b\xe2\x80\xa8\xff\r!")
    (item,) = items(hostile)
    line = export.json_line(item)
    assert line.isascii()
    assert line.count("\n") == 1
    assert "\x1b" not in line
    assert json.loads(line)["userspace"]["progname"] == "\x1b]0;x\x07\x9b\u2028\ufffd\r!"


def test_csv_is_the_same() -> None:
    text = export.csv_header() + "".join(map(export.csv_line, items(SNAT)))
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["original.src"] == "10.1.0.2"
    assert row["original.zone_orig"] == "5"
    assert row["labels"] == "web,voice call"
    assert row["userspace.progname"] == "conntrack"
    assert row["nat"] == "snat"
    assert row["remote.ip"] == "203.0.113.2"
    assert row["inferred"] == ""
    assert row["start"] == "Thu Nov  5 00:00:00 2026"


@given(st.text(max_size=30))
def test_csv_cells_carry_no_control_characters(name: str) -> None:
    (item,) = items(SNAT)
    item["userspace"]["progname"] = name
    line = export.csv_line(item)
    assert all(char.isprintable() for char in line[:-1])
    assert len(next(csv.reader([line]))) == len(export.CSV_COLUMNS)


@given(
    block=blocks,
    own=st.sampled_from([OWN_ADDRESSES, frozenset[str]()]),
    time=st.sampled_from([None, "1795386413.786793"]),
)
def test_usual_events_are_told_as_all_others_are(block: bytes, own: frozenset[str], time: str | None) -> None:
    table = FlowTable(own=own)
    context = Context(Lookups(where), now=9.0, own=own)
    as_json, as_csv = export.LineWriter(context, "json"), export.LineWriter(context, "csv")  # each remembers
    for row in split_lines(block)[0]:
        flow = table.event(row, 1.0)
        item = export.json_object(record(row), flow, context, "update", time)
        assert as_json.of_row(row, flow, "update", time) == export.json_line(item)
        assert as_csv.of_row(row, flow, "update", time) == export.csv_line(item)
        item = export.json_object(flow.record(), flow, context, "list", time)
        assert as_json.of_flow(flow, "list", time) == export.json_line(item)
        assert as_csv.of_flow(flow, "list", time) == export.csv_line(item)


@given(histories())
def test_what_is_gone_unheard_is_told_with_all_that_is_known(story: list[bytes]) -> None:
    """A listing says counters, use and age; the event after it says flags and the reply."""
    table, context = FlowTable(), Context(Lookups(where), now=9.0)
    as_json, as_csv = export.LineWriter(context, "json"), export.LineWriter(context, "csv")
    table.listed_all([row for block in story for row in split_lines(block)[0]], 1.0)
    for flow in table.live.values():
        item = {**export.json_object(flow.record(), flow, context, "destroy", "17.5"), "inferred": True}
        assert as_json.of_gone(flow, "17.5") == export.json_line(item)
        assert as_csv.of_gone(flow, "17.5") == export.csv_line(item)


def test_a_listing_s_counters_are_told_of_what_is_gone_unheard() -> None:
    ends = b"src=10.1.0.2 dst=8.8.8.8 sport=53766 dport=443", b"src=8.8.8.8 dst=10.1.0.2 sport=443 dport=53766"
    listed = b"udp      17 30 %b packets=6 bytes=395 %b packets=7 bytes=697 mark=9 use=1 id=7\n" % ends
    event = b" [UPDATE] udp      17 180 %b %b [ASSURED] id=7\n" % ends
    table = FlowTable()
    table.listed_all(split_lines(listed + event)[0], 1.0)
    (flow,) = table.live.values()
    item = {**export.json_object(flow.record(), flow, Context(), "destroy", "17.5"), "inferred": True}
    assert [item[side]["bytes"] for side in ("original", "reply")] == [395, 697]
    assert (item["flags"], item["mark"], item["use"], item["timeout"]) == (["ASSURED"], 9, 1, 180)
    assert export.LineWriter(Context(), "json").of_gone(flow, "17.5") == export.json_line(item)
    assert export.LineWriter(Context(), "csv").of_gone(flow, "17.5") == export.csv_line(item)
