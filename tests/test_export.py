"""JSON, CSV and numbers for people."""

from __future__ import annotations

import csv
import io
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import export
from addresses import NOWHERE, UNNAMED, Context, Lookups, Named, Place
from flows import Flow, FlowTable
from parse import EVENTS, Parts, Record, record, split_lines
from support.printing import printed, records
from support.strategies import blocks, histories
from support.tables import OWN_ADDRESSES, place_of
from text import endpoint, size_text, span_text, text_table

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
    (item,) = items(b"unknown  50 9 src=192.0.2.1 dst=192.0.2.2 src=192.0.2.2 dst=192.0.2.1 use=1\n")
    assert item == {
        "event": "list",
        "family": "ipv4",
        "protocol": "unknown",
        "protocol_number": 50,
        "timeout": 9,
        "original": {"src": "192.0.2.1", "dst": "192.0.2.2"},
        "reply": {"src": "192.0.2.2", "dst": "192.0.2.1"},
        "use": 1,
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
    context = Context(Lookups(place_of), now=9.0, own=own)
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
    table, context = FlowTable(), Context(Lookups(place_of), now=9.0)
    as_json, as_csv = export.LineWriter(context, "json"), export.LineWriter(context, "csv")
    table.listed_all([row for block in story for row in split_lines(block)[0]], 1.0)
    for flow in table.live.values():
        item = {**export.json_object(flow.record(), flow, context, "destroy", "17.5"), "inferred": True}
        assert as_json.of_gone(flow, "17.5") == export.json_line(item)
        assert as_csv.of_gone(flow, "17.5") == export.csv_line(item)


@pytest.mark.parametrize("format", ["json", "csv"])
def test_what_a_writer_remembers_is_bounded(monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    monkeypatch.setattr(export, "MAX_ENDS", 3)
    monkeypatch.setattr(export, "MAX_HEADS", 3)
    context = Context(Lookups(lambda address: Place(None, None, address, None, None)))
    writer, table = export.LineWriter(context, format), FlowTable()
    words = (b"", b"mark=0 ", b"secctx=a ", b"zone=3 ", b"use=1 ")
    states = (b"SYN_SENT", b"SYN_RECV", b"ESTABLISHED", b"CLOSE_WAIT", b"LAST_ACK", b"TIME_WAIT", b"CLOSE")
    for number, (state, word) in enumerate(itertools.product(states, words)):
        head = b"    [NEW] ipv4     2 tcp      6 %d %b" % (number, state)
        ends = b" src=10.0.0.%d dst=9.9.9.%d sport=1 dport=2" % (number, number)
        back = b" src=9.9.9.%d dst=10.0.0.%d sport=2 dport=1" % (number, number)
        for row in split_lines(b"%b%b [UNREPLIED]%b %bid=%d\n" % (head, ends, back, word, number))[0]:
            flow = table.event(row, 0.0)
            for name in ("of_row", "of_flow"):
                rest = (row, flow, "new", None) if name == "of_row" else (flow, "new", None)
                assert getattr(writer, name)(*rest) == getattr(export.LineWriter(context, format), name)(*rest)
    sizes = {name: len(known) for name, known in vars(writer).items() if isinstance(known, dict)}
    assert max(sizes.values()) <= 4, sizes


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


# --- jSON, CSV and numbers for people, byte by byte -------------------------------------------------------------------


OWN = frozenset({"203.0.113.5"})
PLACES = {
    "8.8.8.8": Place("US", "United States", "Mountain View", 15169, "Google LLC"),
    "192.0.2.255": Place(country="DE", asn=0),
}
CONTEXT = Context(Lookups(lambda address: PLACES.get(address, NOWHERE)), own=OWN)


def told(line: str) -> tuple[Parts, Flow]:
    table = FlowTable(own=OWN)
    (row,), _ = split_lines(line.encode() + b"\n")
    flow = table.event(row, 5.0) if row[1] else table.listed(row, 5.0)
    assert flow is not None
    return row, flow


NAT = (
    "[1795386251.6]\t[DESTROY] ipv4     2 tcp      6 30 CLOSE src=10.1.0.2 dst=8.8.8.8 sport=53766 dport=443 zone-orig=5 packets=6 "
    "bytes=395 src=8.8.8.8 dst=203.0.113.5 sport=443 dport=40000 zone-reply=6 packets=7 bytes=697 [ASSURED] mark=9 secmark=8 "
    "secctx=a b zone=3 delta-time=12 [start=Thu Nov  5 00:00:00 2026] [stop=Thu Nov  5 00:00:12 2026] helper=ftp use=1 id=20 "
    "labels=web,voice call [USERSPACE] portid=7015 progname=tool"
)
NAT_JSON = (
    '{"time":"2026-11-22T22:24:11.600000Z","event":"destroy","family":"ipv4","protocol":"tcp","protocol_number":6,'
    '"state":"CLOSE","timeout":30,"flags":["ASSURED"],"original":{"src":"10.1.0.2","dst":"8.8.8.8","sport":53766,"dport":443,'
    '"zone_orig":5,"packets":6,"bytes":395},"reply":{"src":"8.8.8.8","dst":"203.0.113.5","sport":443,"dport":40000,'
    '"zone_reply":6,"packets":7,"bytes":697},"mark":9,"secmark":8,"zone":3,"secctx":"a b","helper":"ftp","use":1,"id":20,'
    '"delta_time":12,"labels":["web","voice call"],"start":"Thu Nov  5 00:00:00 2026","stop":"Thu Nov  5 00:00:12 2026",'
    '"userspace":{"portid":7015,"progname":"tool"},"nat":["snat"],"direction":"fwd","remote":{"ip":"8.8.8.8","country":"US",'
    '"country_name":"United States","city":"Mountain View","asn":15169,"org":"Google LLC"}}\n'
)
ICMP = (
    "    [NEW] ipv4     2 icmp     1 30 src=10.1.0.2 dst=8.8.8.8 type=8 code=0 id=7 [UNREPLIED] src=8.8.8.8 dst=10.1.0.2 type=0 "
    "code=0 id=7 id=12"
)
ICMP_JSON = (
    '{"event":"new","family":"ipv4","protocol":"icmp","protocol_number":1,"timeout":30,"flags":["UNREPLIED"],'
    '"original":{"src":"10.1.0.2","dst":"8.8.8.8","type":8,"code":0,"icmp_id":7},"reply":{"src":"8.8.8.8","dst":"10.1.0.2",'
    '"type":0,"code":0,"icmp_id":7},"id":12,"direction":"fwd","remote":{"ip":"8.8.8.8","country":"US",'
    '"country_name":"United States","city":"Mountain View","asn":15169,"org":"Google LLC"}}\n'
)
GRE = "ipv6     10 gre      47 9 src=fd00::1 dst=fd00::2 srckey=0x0 dstkey=0x9 src=fd00::2 dst=fd00::1 srckey=0x9 dstkey=0x0 mark=0 use=1"
GRE_JSON = (
    '{"time":"2026-11-22T22:24:11.000000Z","event":"list","family":"ipv6","protocol":"gre","protocol_number":47,"timeout":9,'
    '"original":{"src":"fd00::1","dst":"fd00::2","srckey":"0x0","dstkey":"0x9"},"reply":{"src":"fd00::2","dst":"fd00::1",'
    '"srckey":"0x9","dstkey":"0x0"},"mark":0,"use":1,"direction":"fwd","remote":{"ip":"fd00::2"}}\n'
)


@pytest.mark.parametrize(
    ("line", "event", "time", "text"),
    [(NAT, "destroy", "1.0", NAT_JSON), (ICMP, "new", None, ICMP_JSON), (GRE, "list", "1795386251", GRE_JSON)],
)
def test_a_line_of_json(line: str, event: str, time: str | None, text: str) -> None:
    row, flow = told(line)
    assert export.json_line(export.json_object(record(row), flow, CONTEXT, event, time)) == text
    assert export.LineWriter(CONTEXT, "json").of_row(row, flow, event, time) == text


def test_a_number_with_a_zero_in_front_is_json_all_the_same() -> None:
    text = "udp      17 {0}9 src=10.1.0.2 dst=8.8.8.8 sport={0}7 dport=53 src=8.8.8.8 dst=10.1.0.2 sport=53 dport={0}7 mark={0}4 use=1"
    writer = export.LineWriter(CONTEXT, "json")
    for zeros in ("", "0"):
        item = json.loads(writer.of_row(*told(text.format(zeros)), "list", None))
        assert (item["original"]["sport"], item["mark"], item["use"], item["timeout"]) == (7, 4, 1, 9)


def test_an_icmp_id_that_nat_changed_is_snat() -> None:
    row, flow = told(ICMP.replace("id=7 id=12", "id=8 id=12"))
    assert json.loads(export.LineWriter(CONTEXT, "json").of_row(row, flow, "new", None))["nat"] == ["snat"]
    assert export.json_object(record(row), flow, CONTEXT, "new", None)["nat"] == ["snat"]


def test_names_come_and_go_and_stand_in_one_line_with_both_ends() -> None:
    known: dict[str, Named] = {}
    context = Context(Lookups(who=lambda address: known.get(address, UNNAMED)), own=frozenset({"203.0.113.5"}))
    writer = export.LineWriter(context, "json")
    row, flow = told(NAT)
    assert "near" not in json.loads(writer.of_row(row, flow, "list", None))
    known.update({"10.1.0.2": Named("anna", "02:00:5e:10:00:01"), "8.8.8.8": Named("dns")})
    writer.forget_names()
    item = json.loads(writer.of_row(row, flow, "list", None))
    assert item["near"] == {"ip": "10.1.0.2", "name": "anna", "mac": "02:00:5e:10:00:01"}
    assert item["remote"] == {"ip": "8.8.8.8", "name": "dns"}
    assert list(item).index("near") == list(item).index("remote") - 1


@given(found=records(), time=st.sampled_from([None, "1795386413.786793"]), own=st.booleans())
def test_the_quick_way_tells_an_event_as_the_other_does(found: Record, time: str | None, own: bool) -> None:
    row, flow = told(printed(found))
    where = {"10.0.0.1": NOWHERE, "192.0.2.255": Place("DE", "Germany", None, 64_496, "Ä \x1b"), "::": Place(city="X")}
    who = {"10.0.0.1": Named('an"na, Ä'), "192.0.2.255": Named("", "02:00:5e:10:00:01", "web, 1"), "::": Named("six")}
    lookups = Lookups(lambda address: where.get(address, NOWHERE), who=lambda address: who.get(address, UNNAMED))
    context = Context(lookups, own=frozenset({"10.0.0.1"} if own else ()))
    item = export.json_object(record(row), flow, context, "update", time)
    assert export.LineWriter(context, "json").of_row(row, flow, "update", time) == export.json_line(item)
    assert export.LineWriter(context, "csv").of_row(row, flow, "update", time) == export.csv_line(item)
    if flow.ended is None:  # as the table tells it
        item = export.json_object(flow.record(), flow, context, "list", time)
        assert export.LineWriter(context, "json").of_flow(flow, "list", time) == export.json_line(item)
        assert export.LineWriter(context, "csv").of_flow(flow, "list", time) == export.csv_line(item)
    assert json.loads(export.json_line(item)) == item


@given(found=records())
def test_json_says_what_the_line_said_and_nothing_else(found: Record) -> None:
    row, flow = told(printed(found))
    item = export.json_object(record(row), flow, Context(), "update", None)
    assert ("time" in item) == (found.stamp is not None)
    for key in ("state", "timeout", "mark", "secmark", "zone", "secctx", "helper", "use", "id", "delta_time", "labels"):
        assert item.get(key) == getattr(found, key)
    for name, side, zone in (("original", found.original, "zone_orig"), ("reply", found.reply, "zone_reply")):
        keys = ("src", "dst", "sport", "dport", "type", "code", "icmp_id", "srckey", "dstkey", "packets", "bytes")
        wanted = {**{key: getattr(side, key) for key in keys}, zone: side.zone}
        assert item[name] == {key: value for key, value in wanted.items() if value is not None}
    assert item.get("flags", []) == found.flags
    assert ("userspace" in item) == (found.portid is not None)
    assert "direction" not in item
    assert item.get("nat", []) == flow.ends().nat


@pytest.mark.parametrize(
    ("portid", "progname", "user"),
    [
        (7, None, {"portid": 7}),
        (None, "x", {"progname": "x"}),
        (None, None, None),
        (0, "", {"portid": 0, "progname": ""}),
    ],
)
def test_who_changed_a_flow_as_far_as_it_is_known(portid: int | None, progname: str | None, user: object) -> None:
    row, flow = told(GRE)
    found = record(row)
    found.portid, found.progname = portid, progname
    assert export.json_object(found, flow, CONTEXT, "list", None).get("userspace") == user


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        ("0", "1970-01-01T00:00:00.000000Z"),
        ("1795386413.5", "2026-11-22T22:26:53.500000Z"),
        ("1795386413.786793", "2026-11-22T22:26:53.786793Z"),
        ("1795386413.1234567", "2026-11-22T22:26:53.123456Z"),
        ("999999999999.5", "999999999999.5"),  # beyond the year 9999
        ("253402300799.0", "9999-12-31T23:59:59.000000Z"),
    ],
)
def test_times(seconds: str, text: str) -> None:
    assert export.iso_time(seconds) == text


# --- CSV --------------------------------------------------------------------------------------------------------------


def test_csv_line_by_line() -> None:
    row, flow = told(NAT)
    item = export.json_object(record(row), flow, CONTEXT, "destroy", None)
    item["inferred"] = True
    assert export.csv_header() == (
        "node,time,event,family,protocol,protocol_number,state,timeout,flags,original.src,original.dst,original.sport,"
        "original.dport,original.type,original.code,original.icmp_id,original.srckey,original.dstkey,original.zone_orig,"
        "original.packets,original.bytes,reply.src,reply.dst,reply.sport,reply.dport,reply.type,reply.code,reply.icmp_id,"
        "reply.srckey,reply.dstkey,reply.zone_reply,reply.packets,reply.bytes,mark,secmark,zone,secctx,helper,use,id,"
        "delta_time,labels,start,stop,userspace.portid,userspace.progname,nat,direction,near.ip,near.name,near.mac,"
        "near.container,remote.ip,remote.name,remote.country,remote.country_name,remote.city,remote.asn,remote.org,inferred\n"
    )
    assert export.csv_line(item) == (
        ",2026-11-22T22:24:11.600000Z,destroy,ipv4,tcp,6,CLOSE,30,ASSURED,10.1.0.2,8.8.8.8,53766,443,,,,,,5,6,395,8.8.8.8,"
        '203.0.113.5,443,40000,,,,,,6,7,697,9,8,3,a b,ftp,1,20,12,"web,voice call",Thu Nov  5 00:00:00 2026,'
        "Thu Nov  5 00:00:12 2026,7015,tool,snat,fwd,,,,,8.8.8.8,,US,United States,Mountain View,15169,Google LLC,true\n"
    )
    row, flow = told(GRE)
    assert export.csv_line(export.json_object(record(row), flow, CONTEXT, "list", None)) == (
        ",,list,ipv6,gre,47,,9,,fd00::1,fd00::2,,,,,,0x0,0x9,,,,fd00::2,fd00::1,,,,,,0x9,0x0,,,,0,,,,,1,,,,,,,,,fwd,,,,,fd00::2,,,,,,,\n"
    )


def test_csv_of_other_objects() -> None:
    items = [{"host": "a,b", "n": 0, "ok": False}, {"host": 'x"\x1b\n', "more": [1, "y\t"], "n": 1.5, "at": {"b": 1}}]
    assert list(export.csv_of(items, ["host", "n", "ok", "more", "at", "never"])) == [
        "host,n,ok,more,at,never\n",
        '"a,b",0,false,,,\n',
        '"x"" ",1.5,,"1,y ",{\'b\': 1},\n',
    ]
    assert list(export.csv_of([], ["host", "n"])) == ["host,n\n"]


# --- numbers for people -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "text"),
    [
        *((None, "-"), (0, "0"), (0.4, "0"), (1, "1"), (999, "999"), (999.4, "999"), (999.5, "1.0k"), (1049, "1.0k")),
        *((1051, "1.1k"), (9949, "9.9k"), (9950, "10k"), (12_345, "12k"), (999_499, "999k"), (999_500, "1.0M")),
        *((34e6, "34M"), (1.8e9, "1.8G"), (5e12, "5.0T"), (7e15, "7.0P"), (2**64 - 1, "18E"), (4e21, "4Z")),
    ],
)
def test_sizes(number: float | None, text: str) -> None:
    assert size_text(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((None, "-"), (0, "0s"), (0.9, "0s"), (59.9, "59s"), (60, "1m"), (119.9, "1m"), (3599, "59m"), (3600, "1.0h")),
        *((11_520, "3.2h"), (35_819, "9.9h"), (35_820, "10h"), (47.4 * 3600, "47h"), (48 * 3600, "2.0d")),
        *((432_000, "5.0d"), (859_679, "9.9d"), (859_680, "10d"), (120 * 86_400, "120d")),
    ],
)
def test_spans(seconds: float | None, text: str) -> None:
    assert span_text(seconds) == text


@pytest.mark.parametrize(
    ("address", "port", "name", "text"),
    [
        ("192.0.2.1", 443, None, "192.0.2.1:443"),
        ("192.0.2.1", 443, "https", "192.0.2.1:https"),
        ("192.0.2.1", 0, None, "192.0.2.1:0"),
        ("192.0.2.1", None, "https", "192.0.2.1"),
        ("2001:db8::1", 443, None, "[2001:db8::1]:443"),
        ("2001:db8::1", 443, "https", "[2001:db8::1]:https"),
        ("2001:db8::1", None, None, "2001:db8::1"),
    ],
)
def test_endpoints(address: str, port: int | None, name: str | None, text: str) -> None:
    assert endpoint(address, port, name) == text


def test_a_table_of_text() -> None:
    text = text_table(["A", "NUMBER"], [["long cell", "1"], ["b", "22"]], lambda i: i == 1)
    assert text == "A          NUMBER\nlong cell       1\nb              22\n"
    assert text_table(["A", "B"], [["x", ""]], lambda _i: False) == "A  B\nx\n"


# --- the quick way is taken -------------------------------------------------------------------------------------------


def usual_lines() -> list[str]:
    """Lines as a router sees them all day: every protocol, family, kind of NAT, event and listing, and their words."""
    near, far, ours = {4: "10.0.0.1", 6: "fd00::1"}, {4: "8.8.8.8", 6: "2606:4700::1"}, {4: "203.0.113.5", 6: "3fff::5"}
    heads = {"tcp": "tcp      6 {} ESTABLISHED", "udp": "udp      17 {}", 4: "icmp     1 {}", 6: "icmpv6   58 {}"}
    ports, turned, asks = "sport=7 dport=53", "sport=53 dport={}", "type={} code=0 id=9"
    lines = []
    for family, name, nat, listed in itertools.product((4, 6), ("tcp", "udp", "icmp"), ("", "snat", "dnat"), (0, 1)):
        there, back = (asks.format(8), asks.format(0)) if family == 4 else (asks.format(128), asks.format(129))
        if name != "icmp":
            there, back = ports, turned.format(4000 if nat == "snat" else 7)
        source, target = (far, ours) if nat == "dnat" else (near, far)
        answers, to = (near, far) if nat == "dnat" else (far, ours if nat else near)
        before, after = (
            ("packets=6 bytes=395 ", " packets=7 bytes=697 mark=9 zone=3 use=1 id=5") if listed else ("", " id=5")
        )
        kind = (
            f"{'ipv4     2' if family == 4 else 'ipv6     10'} {heads[family if name == 'icmp' else name].format(30)}"
        )
        ends = (
            f"src={source[family]} dst={target[family]} {there} {before}src={answers[family]} dst={to[family]} {back}"
        )
        lines.append(f"{'' if listed else '    [NEW] '}{kind} {ends}{after}")
    return lines


@pytest.mark.parametrize("line", usual_lines())
def test_what_a_router_sees_all_day_takes_the_quick_way(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row, flow = told(line)
    items = [
        json.loads(export.json_line(export.json_object(its, flow, CONTEXT, "list", None)))
        for its in (record(row), flow.record())
    ]

    def never(*_: object) -> None:
        raise AssertionError("this line took the slow way")

    monkeypatch.setattr(export, "json_object", never)
    writer, rows = export.LineWriter(CONTEXT, "json"), export.LineWriter(CONTEXT, "csv")
    assert [
        json.loads(text) for text in (writer.of_row(row, flow, "list", None), writer.of_flow(flow, "list", None))
    ] == items
    assert rows.of_row(row, flow, "list", None).count("\n") == rows.of_flow(flow, "list", None).count("\n") == 1
