"""JSON, CSV and numbers for people."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import export
from addresses import Context, Place
from flows import Flow, FlowTable
from parse import EVENTS, record, split_lines
from text import size_text, span_text

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
    context = Context(0.0, frozenset({"10.1.0.2"}), lambda _: Place("US", "United States", None, 15169, "Google LLC"))
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


def test_an_icmp_id_that_a_masquerade_changed_is_snat_alone() -> None:
    (item,) = items(
        b"ipv4     2 icmp     1 28 src=192.168.1.11 dst=8.8.8.8 type=8 code=0 id=1 src=8.8.8.8 dst=203.0.113.5 "
        b"type=0 code=0 id=40123 mark=0 use=1 id=77\n"
    )
    assert item["nat"] == ["snat"]


@pytest.mark.parametrize("name", ["snat-masquerade-tcp", "dnat-tcp-udp", "tcp-lifecycle"])
def test_nat_of_captures(name: str) -> None:
    wanted = {"snat-masquerade-tcp": ["snat"], "dnat-tcp-udp": ["dnat"], "tcp-lifecycle": None}[name]
    for item in items((CAPTURES / name / "E.ext-id-ts.txt").read_bytes()):
        assert item.get("nat") == wanted


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


@given(st.integers(0, 2**64 - 1))
def test_sizes_fit_their_column_and_are_right(number: int) -> None:
    text = size_text(number)
    assert len(text) <= 4
    digits = text.rstrip("kMGTPEZ")
    factor = 1000 ** " kMGTPEZ".index(text[len(digits) :] or " ")
    assert abs(float(digits) * factor - number) <= 0.06 * number


@given(st.floats(0, 4e9))
def test_spans_fit_their_column_and_are_right(seconds: float) -> None:
    text = span_text(seconds)
    assert len(text) <= 6
    length = {"s": 1, "m": 60, "h": 3600, "d": 86400}[text[-1]]
    assert float(text[:-1]) * length <= seconds * 1.06 + 1
    assert float(text[:-1]) * length >= (seconds - 1) * 0.49
