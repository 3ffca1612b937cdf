"""Our own JSON lines come back: each is the line of conntrack again, and what a stream told is told again."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import export
from addresses import Context
from flows import Flow, FlowTable
from intake import Block, Ended, Gone, Intake, Item, LeftOut, OfNode, OwnAddresses
from jsonlines import MOST_NODES, OTHER_NODES, JsonLines, OwnFromFlows, line_of, stamp_of
from parse import EVENTS, Parts, record, split_lines
from recording import PACKED_READ_SIZE, Recorder, Replay, Unpacker
from support.kernel import Lab, Namespace, insert, listeners, load, needs_kernel
from support.printing import printed, records
from support.program import CAPTURES, OnScreen, environment
from support.strategies import histories
from support.terminal import PROGRAM, ROOT
from support.waiting import wait_for

DEMO = ROOT / "fixtures" / "demo.rec"
SAVED = sorted({*CAPTURES.glob("*/[ELp]*.txt"), DEMO})
LINE = (
    b"[1795386413.786793]\t[DESTROY] ipv4     2 tcp      6 9 CLOSE src=10.0.0.1 dst=192.0.2.9 sport=1 dport=2 zone-orig=5 "
    b"packets=1 bytes=2 src=192.0.2.9 dst=203.0.113.1 sport=2 dport=1 zone-reply=6 packets=3 bytes=4 [ASSURED] mark=1 "
    b"secmark=2 secctx=a b zone=3 delta-time=4 [start=Thu Nov  5 00:00:00 2026] [stop=Thu Nov  5 00:00:04 2026] "
    b"helper=ftp use=1 id=7 labels=web,voice call [USERSPACE] portid=9 progname=a b"
)


def item_of(row: Parts) -> dict[str, Any]:
    """The object of a line."""
    table = FlowTable()
    flow: Flow | None = table.event(row, 0.0) if row[1] else table.listed(row, 0.0)
    assert flow is not None
    return export.json_object(record(row), flow, Context(), EVENTS.get(row[1], "list"), None)


class Retelling:
    """What a stream tells of a node, in process."""

    def __init__(self, way: str = "json") -> None:
        self.context = Context()
        self.writer = export.LineWriter(self.context, way)
        self.out = [export.csv_header()] if way == "csv" else []
        self.table = FlowTable(*(5.0, frozenset(), 100_000, 0), on_inferred=self.gone)
        self.intake = Intake(self.table, self.report)

    def gone(self, flow: Flow) -> None:
        self.out.append(self.writer.of_gone(flow, f"{flow.ended:.6f}" if flow.ended else None))

    def report(self, event: str, flow: Flow, row: Parts, now: float) -> None:
        self.context.advance(now, self.table.own)
        moment = f"{self.intake.newest:.6f}" if self.intake.newest else None
        self.out.append(self.writer.of_row(row, flow, event, None if row[0] else moment))

    def take(self, item: Item) -> None:
        self.intake.take(item)
        if isinstance(item, OfNode):
            self.writer.know_node(item.node)

    @property
    def text(self) -> bytes:
        return "".join(self.out).encode("utf-8", "replace")


def retold(data: bytes, node: str = "", way: str = "json") -> bytes:
    """What a stream tells of this input, in process."""
    source, told = Replay("saved", 0.0, data, node), Retelling(way)
    while not told.intake.status.ended:
        for item in source.poll():
            told.take(item)
    source.close()
    return told.text


def retold_by_node(data: bytes, speed: float = 0.0) -> dict[str, bytes]:
    """The same of an input of several nodes, and what is told of each."""
    source = Replay("saved", speed, data, every=True)
    told: dict[str, Retelling] = {}
    current: Retelling | None = None
    ended = False
    while not ended:
        for item in source.poll():
            ended = isinstance(item, Ended)
            if isinstance(item, OfNode):
                current = told.setdefault(item.node, Retelling())
            for its in told.values() if ended else [current]:
                assert its is not None
                its.take(item)
    source.close()
    return {node: its.text for node, its in told.items()}


def run(*words: str, stdin: bytes, folder: Path) -> subprocess.CompletedProcess[bytes]:
    settings = {**os.environ, **environment(folder)}
    return subprocess.run(
        [*PROGRAM, "--no-config", *words], input=stdin, env=settings, capture_output=True, timeout=60, check=False
    )


# --- one line ---------------------------------------------------------------------------------------------------------


def test_the_line_is_conntrack_s_own() -> None:
    (row,), _ = split_lines(LINE + b"\n")
    assert line_of(item_of(row)) == LINE


@given(records())
def test_a_line_comes_back(found: Any) -> None:
    (row,), _ = split_lines(printed(found).encode() + b"\n")
    item = item_of(row)
    rows, rejects = split_lines(line_of(json.loads(json.dumps(item))) + b"\n", whole=True)
    assert rejects == []
    assert [item_of(row) for row in rows] == [item]


@given(st.sampled_from([2**31 - 1, 0, 1795386413, 253_402_300_799, 253_402_300_800]), st.integers(0, 999_999))
def test_a_time_comes_back(second: int, micro: int) -> None:
    text = f"{second}.{micro:06}"
    assert stamp_of(export.iso_time(text)) == text.encode()


def test_times_as_stores_write_them() -> None:
    assert stamp_of("2026-11-22 22:26:53.7") == stamp_of("2026-11-22T22:26:53.700000000+00:00") == b"1795386413.700000"
    for wrong in ("", "2026-11-22", "1969-12-31T23:59:59Z", "2026-02-30T00:00:00Z", "2026-11-22T22:26:53+01:00"):
        with pytest.raises(ValueError, match=r"."):
            stamp_of(wrong)


GOOD: dict[str, Any] = json.loads(json.dumps(item_of(split_lines(LINE + b"\n")[0][0])))
FOREIGN: list[dict[str, Any]] = [
    {},
    {"event": "list"},
    {**GOOD, "event": "other"},
    {**GOOD, "event": ["new"]},
    {**GOOD, "family": "ipv5"},
    {**GOOD, "protocol": 6},
    {**GOOD, "protocol_number": "6"},
    {**GOOD, "timeout": 1.5},
    {**GOOD, "timeout": True},
    {**GOOD, "timeout": -1},
    {**GOOD, "mark": 2**64},
    {**GOOD, "state": "A B"},
    {**GOOD, "state": 5},
    {**GOOD, "flags": "ASSURED"},
    {**GOOD, "flags": ["NEW"]},
    {**GOOD, "flags": [[]]},
    {**GOOD, "labels": "web"},
    {**GOOD, "labels": [1]},
    {**GOOD, "secctx": "a\n# 1.0 end 1"},
    {**GOOD, "secctx": "\ud800"},
    {**GOOD, "time": 5},
    {**GOOD, "time": "now"},
    {**GOOD, "original": []},
    {**GOOD, "original": {**GOOD["original"], "src": "10.0.0.1 "}},
    {**GOOD, "original": {**GOOD["original"], "src": None}},
    {**GOOD, "reply": {"src": "192.0.2.9", "dst": "10.0.0.1", "sport": 1}},
    {**GOOD, "reply": {**GOOD["reply"], "packets": None}},
    {**GOOD, "userspace": 7},
    {**GOOD, "userspace": {"progname": 7}},
]


@pytest.mark.parametrize("item", FOREIGN)
def test_what_is_no_flow_is_refused(item: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        line_of(item)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from(["fwd", "10.0.0.1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted({*GOOD, "direction", "remote", "node", "inferred"})), json_values)
def test_any_value_is_a_flow_or_a_reject(key: str, value: Any) -> None:
    data = json.dumps({**GOOD, key: value}).encode() + b"\n"
    made = b"".join(text.data for text in JsonLines().recordings_in(data))
    assert made.endswith(b"\n")
    assert len([line for line in made.splitlines() if line[:2] != b"# "]) <= 1


HOSTILE = [
    json.dumps(GOOD)[:-30],
    json.dumps(GOOD).replace('"timeout": 9', '"timeout": NaN'),
    json.dumps(GOOD).replace('"timeout": 9', '"timeout": 9, "timeout": 9'),
    json.dumps(GOOD).replace('"timeout": 9', '"timeout": ' + "9" * 5000),
    '{"a":' * 12_000,
    '{"a":' + "[" * 60_000,
    '{"a": "' + "y" * 65_000 + '"}',
    '{"a": "' + "y" * 70_000 + '"}',
    json.dumps(GOOD).replace("10.0.0.1", "10.0.0.1\udc80"),
    *map(json.dumps, FOREIGN),
]


def test_hostile_lines_are_counted_and_the_others_read(tmp_path: Path) -> None:
    good = json.dumps({**GOOD, "event": "new"})
    data = "\n".join([good, *HOSTILE, good]).encode("utf-8", "surrogateescape") + b"\n"
    result = run("--replay", "-", "--json", stdin=data, folder=tmp_path)
    assert (result.returncode, result.stdout.count(b"\n")) == (0, 2)
    assert f"{len(HOSTILE)} lines not understood; first: " in result.stderr.decode()


@pytest.mark.parametrize("data", [json.dumps(GOOD, indent=1), '{"host": "10.0.0.1", "flows": 3}\n', json.dumps([GOOD])])
def test_json_that_has_no_flow_is_said_to_be_that(data: str, tmp_path: Path) -> None:
    result = run("--replay", "-", "--once", stdin=data.encode(), folder=tmp_path)
    assert result.returncode == 1
    assert b"this looks like JSON, but has no flow of --json on a line of its own; try: --json" in result.stderr


def test_a_last_line_without_its_newline_is_whole_if_it_is_json() -> None:
    assert retold(json.dumps(GOOD).encode()).count(b"\n") == 1
    assert retold(json.dumps(GOOD).encode()[:-1]) == b""


def test_a_flow_without_a_state_comes_back() -> None:
    """A TCP flow of which only updates told that leave the state out: --once prints it so."""
    stateless = json.dumps(
        {name: value for name, value in GOOD.items() if name != "state"} | {"event": "list", "mark": 0}
    )
    assert retold(stateless.encode() + b"\n").count(b"\n") == 1


def test_alerts_are_no_flows_and_no_damage(tmp_path: Path) -> None:
    data = json.dumps(GOOD) + "\n" + json.dumps({"event": "alert", "alert": "fill", "value": 0.9}) + "\n"
    result = run("--replay", "-", "--json", stdin=data.encode(), folder=tmp_path)
    assert result.stdout.count(b"\n") == 1
    assert b"not understood" not in result.stderr


# --- streams and tables -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SAVED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_stream_comes_back(path: Path) -> None:
    """Byte for byte: with its times, directions, remote ends and inferred ends."""
    told = retold(path.read_bytes())
    assert retold(told) == told
    assert retold(told, way="csv") == retold(path.read_bytes(), way="csv")


@given(histories().map(b"".join))
def test_any_stream_comes_back(data: bytes) -> None:
    told = retold(data)
    assert retold(told) == told


@given(histories())
def test_any_table_comes_back(blocks: Sequence[bytes]) -> None:
    """As --once prints it: what the newest event said, with what only a listing did."""
    table = FlowTable()
    for number, block in enumerate(blocks):
        for row in split_lines(block)[0]:
            _ = table.event(row, number) if row[1] else table.listed(row, number)
    writer = export.LineWriter(Context(), "json")
    once = "".join(writer.of_flow(flow, "list", "1795386413.5") for flow in table.live.values()).encode()
    assert retold(once) == once


def test_once_and_a_view_of_what_came_back(tmp_path: Path) -> None:
    once = run("--replay", str(DEMO), "--once", "--json", "--node", "r7", stdin=b"", folder=tmp_path).stdout
    assert once.count(b"\n") > 100
    assert run("--replay", "-", "--once", "--json", stdin=once, folder=tmp_path).stdout == once
    asked = (["--csv"], ["--csv", "-f", "dir:fwd nat:snat"])
    for words in (*asked, ["--by", "near,service", "--csv"]):
        told = run("--replay", "-", "--once", *words, stdin=once, folder=tmp_path).stdout.decode().splitlines()
        live = run("--replay", str(DEMO), "--once", "--node", "r7", *words, stdin=b"", folder=tmp_path).stdout.decode()
        cells = slice(0, 4 if "--by" in words else None)  # one listing knows no rates, and has heard of no event
        assert sorted(line.split(",")[cells] for line in told) == sorted(x.split(",")[cells] for x in live.splitlines())
        assert len(told) > 5


INFERRED = [
    {**GOOD, "event": "list", "time": "2026-11-22T22:26:53.000000Z", "node": "r7"},
    {**GOOD, "event": "destroy", "time": "2026-11-22T22:26:54.000000Z", "inferred": True, "node": "r7"},
    {**GOOD, "event": "destroy", "time": "2026-11-22T22:26:55.000000Z", "inferred": True, "node": "r7"},
]
for _item in INFERRED:
    _item.pop("userspace")
    _item.update(nat=_item.pop("nat"), remote=_item.pop("remote"))
    if _item.pop("inferred", False):
        _item["inferred"] = True


def test_a_flow_that_a_listing_showed_to_be_gone_is_gone(tmp_path: Path) -> None:
    """Also one that nobody knew of; and a recording of it says the same."""
    data = "".join(export.json_line({"node": item["node"], **item}) for item in INFERRED).encode()
    assert retold(data) == data
    assert run("--replay", "-", "--once", "--json", stdin=data, folder=tmp_path).stdout == b""
    again = tmp_path / "again.rec"
    assert run("--replay", "-", "--json", "--record", str(again), stdin=data, folder=tmp_path).stdout == data
    assert b" gone [1795386414.000000]\t[DESTROY] " in again.read_bytes()
    assert retold(again.read_bytes()) == data


def test_another_flow_of_the_same_tuple_stays() -> None:
    table = FlowTable()
    intake = Intake(table)
    line = LINE.partition(b" labels")[0]
    intake.take(Block(line.replace(b"[DESTROY] ", b"    [NEW] ").replace(b"id=7", b"id=8") + b"\n", None))
    intake.take(Gone(1795386414.0, line))
    assert len(table) == 1
    intake.take(Gone(1795386414.0, line.replace(b"id=7", b"id=8")))
    assert len(table) == 0
    intake.take(Gone(1795386414.0, b"junk"))
    assert intake.status.rejects == 1


def test_what_came_while_a_table_was_listed_is_no_step_of_a_clock(tmp_path: Path) -> None:
    listed = {**GOOD, "event": "list", "time": "2026-11-22T22:26:57.000000Z"}
    listed.pop("userspace")
    events = [{**GOOD, "event": "new", "time": f"2026-11-22T22:26:5{second}.000000Z"} for second in (3, 4, 8)]
    data = "".join(map(export.json_line, [listed, *events])).encode()
    result = run("--replay", "-", "--json", stdin=data, folder=tmp_path)
    assert (result.stdout, b"went backwards" in result.stderr) == (data, False)
    data += export.json_line(events[0]).encode()
    assert b"1 timestamps went backwards" in run("--replay", "-", "--json", stdin=data, folder=tmp_path).stderr


# --- own addresses ----------------------------------------------------------------------------------------------------


def told_own(*lines: tuple[str, str, str, str, str, str]) -> list[str | None]:
    """``lines``: direction; source, destination, the reply's source and destination; the remote end."""
    own = OwnFromFlows()
    found = []
    for way, src, dst, back, there, remote in lines:
        item: dict[str, Any] = {"original": {"src": src, "dst": dst}, "reply": {"src": back, "dst": there}}
        item |= {"direction": way} if way else {}
        text = own.learn({**item, "remote": {"ip": remote}})
        found.append(None if text is None else text.decode())
    return found


def test_own_addresses_follow_from_directions() -> None:
    a, b, wan, far = "10.0.0.1", "10.0.0.2", "203.0.113.1", "192.0.2.9"
    assert told_own(("fwd", a, b, b, a, b), ("fwd", a, b, b, a, b)) == ["127.0.0.1", None]
    assert told_own(("out", a, b, b, a, b)) == ["127.0.0.1 10.0.0.1"]
    assert told_own(("in", b, a, a, b, b), ("local", a, b, b, a, b)) == [
        "127.0.0.1 10.0.0.1",
        "127.0.0.1 10.0.0.1 10.0.0.2",
    ]
    assert told_own(("fwd", a, far, far, wan, far)) == [f"127.0.0.1 {wan}"]  # masqueraded
    assert told_own(("fwd", a, far, far, wan, wan)) == ["127.0.0.1"]  # ... as an address that is not this host's
    assert told_own(("fwd", far, wan, a, far, far)) == [f"127.0.0.1 {wan}"]  # a forwarded port
    assert told_own(("fwd", b, wan, a, b, wan)) == ["127.0.0.1"]  # a service of Kubernetes
    assert told_own(("in", b, "224.0.0.1", "224.0.0.1", b, b)) == ["127.0.0.1"]
    assert told_own(("in", b, "10.0.0.255", "10.0.0.255", b, b), ("out", a, "10.0.0.255", "10.0.0.255", a, b)) == [
        "127.0.0.1 10.0.0.255",
        "127.0.0.1 10.0.0.1 broadcast=10.0.0.255",
    ]
    assert told_own(("out", a, b, b, a, b), ("fwd", a, b, b, a, b)) == ["127.0.0.1 10.0.0.1", "127.0.0.1"]
    assert told_own(("out", a, b, b, a, b), ("", a, b, b, a, b)) == ["127.0.0.1 10.0.0.1", ""]
    assert told_own(("fwd", wan, b, b, wan, b), ("fwd", a, far, far, wan, far)) == ["127.0.0.1", None]  # learnt before


# --- gzip -------------------------------------------------------------------------------------------------------------

STREAM = retold(DEMO.read_bytes(), "r7")


def test_gzip_of_anything_that_is_replayed() -> None:
    for data in (STREAM, DEMO.read_bytes(), (CAPTURES / "gre" / "E.ext-id-ts.txt").read_bytes()):
        assert retold(gzip.compress(data)) == retold(data)
        half = data.index(b"\n", len(data) // 2) + 1
        assert retold(gzip.compress(data[:half]) + gzip.compress(data[half:]) + bytes(512)) == retold(data)


@given(st.lists(st.binary(max_size=50), max_size=4), st.integers(1, 9), st.booleans())
def test_gzip_comes_in_pieces(parts: list[bytes], size: int, packed: bool) -> None:
    data = b"".join(map(gzip.compress, parts)) if packed else b"".join(parts)
    unpacker = Unpacker()
    if not packed and data[:2] == b"\x1f\x8b":
        return
    found = b"".join(unpacker.feed(data[at : at + size]) for at in range(0, len(data), size)) + unpacker.feed(b"")
    assert found == b"".join(parts)


def test_a_byte_that_gzip_begins_with_is_kept() -> None:
    unpacker = Unpacker()
    assert [unpacker.feed(b"\x1f"), unpacker.feed(b"x\n"), unpacker.feed(b"")] == [b"", b"\x1fx\n", b""]
    unpacker = Unpacker()
    assert [unpacker.feed(b"\x1f"), unpacker.feed(b"")] == [b"", b"\x1f"]


def test_a_bomb_is_unpacked_in_pieces() -> None:
    packed = gzip.compress(bytes(100 << 20))
    unpacker = Unpacker()
    assert unpacker.read_size == PACKED_READ_SIZE
    assert (
        max(len(unpacker.feed(packed[at : at + PACKED_READ_SIZE])) for at in range(0, len(packed), PACKED_READ_SIZE))
        < 20 << 20
    )


@pytest.mark.parametrize(("damage", "why"), [(slice(0, -900), "cut off"), (slice(0, 0), "damaged")])
@pytest.mark.parametrize("way", [["--json"], ["--once"]])
def test_damaged_gzip_is_said(damage: slice, why: str, way: list[str], tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(STREAM))
    data = bytes(packed[damage]) if why == "cut off" else bytes(packed[:20_000]) + b"damage" + bytes(packed[20_006:])
    result = run("--replay", "-", *way, stdin=data, folder=tmp_path)
    assert result.returncode == 0
    assert result.stdout.count(b"\n") > 20
    assert f"lost: the rest of the recording can't be read: its gzip data is {why}\n" in result.stderr.decode()


# --- nodes ------------------------------------------------------------------------------------------------------------


def of_node(node: str, number: int, **more: Any) -> bytes:
    return b"".join(
        export.json_line({**({"node": node} if node else {}), **GOOD, **more}).encode() for _ in range(number)
    )


def test_lines_of_other_nodes_than_the_chosen_one_are_counted(tmp_path: Path) -> None:
    data = of_node("r7", 2) + of_node("r9", 3) + of_node("", 1) + of_node("r8", 1) + of_node("r7", 1)
    result = run("--replay", "-", "--once", "--view", "nodes", "--json", stdin=data, folder=tmp_path)
    assert "left out" not in result.stderr.decode()
    assert [json.loads(line).get("node") for line in result.stdout.splitlines()] == [None, "r7", "r8", "r9"]
    chosen = run("--replay", "-", "--json", "--node", "r9", stdin=data, folder=tmp_path)
    assert [json.loads(line)["node"] for line in chosen.stdout.splitlines()] == ["r9"] * 4
    assert b"4 lines of other nodes are left out (r7 3, r8 1)" in chosen.stderr


@pytest.mark.parametrize("way", ["--json", "--csv"])
def test_a_stream_tells_of_all_nodes(way: str, tmp_path: Path) -> None:
    """The same flow on two of them is two."""
    flow = {"event": "new", "time": "2026-11-22T22:26:53.000000Z"}
    over = {"event": "destroy", "time": "2026-11-22T22:26:54.000000Z", "inferred": True}
    lines = [of_node("r7", 1, **flow), of_node("r9", 1, **flow), of_node("", 1, **flow), of_node("r7", 1, **over)]
    data = b"".join([*lines, of_node("r9", 1, **over)])
    result = run("--replay", "-", way, stdin=data, folder=tmp_path)
    rows = [json.loads(line) for line in result.stdout.splitlines()] if way == "--json" else table_of(result.stdout)
    told = [(row.get("node") or "", row["event"]) for row in rows]
    assert sorted(told) == [("", "new"), ("r7", "destroy"), ("r7", "new"), ("r9", "destroy"), ("r9", "new")]
    assert b"left out" not in result.stderr


def table_of(data: bytes) -> list[dict[str, Any]]:
    return list(csv.DictReader(io.StringIO(data.decode())))


def test_a_stream_of_several_nodes_comes_back(tmp_path: Path) -> None:
    """`... --json | ... --replay - --json` keeps the nodes, also by way of a recording."""
    data = b"".join(retold(DEMO.read_bytes(), node) for node in ("r7", "r9", ""))
    lines = data.splitlines(keepends=True)
    third = len(lines) // 3
    mixed = b"".join(line for its in zip(lines[:third], lines[third : 2 * third], lines[2 * third :]) for line in its)
    saved = tmp_path / "mixed.rec"
    again = run("--replay", "-", "--json", "--record", str(saved), stdin=mixed, folder=tmp_path)
    assert sorted(again.stdout.splitlines(keepends=True)) == sorted(lines)
    read = run("--replay", str(saved), "--json", stdin=b"", folder=tmp_path)
    assert sorted(read.stdout.splitlines(keepends=True)) == sorted(lines)
    chosen = run("--replay", str(saved), "--json", "--node", "r9", stdin=b"", folder=tmp_path)
    assert set(chosen.stdout.splitlines(keepends=True)) >= set(lines[third : 2 * third])
    assert re.search(rb"\d+ lines of another node|\d+ lines of other nodes", chosen.stderr)


def test_what_is_wrong_with_a_node_is_said_with_its_name(tmp_path: Path) -> None:
    data = of_node("r7", 1) + of_node("r9", 1) + b'{"node": "r9", "even\n' + LINE + b"\n"
    result = run("--replay", "-", "--json", stdin=data, folder=tmp_path)
    assert (result.returncode, result.stdout.count(b"\n")) == (0, 3)
    assert "conntrack-monitor: r9: 1 line not understood; first: {" in result.stderr.decode()
    only = run("--replay", "-", "--json", stdin=of_node("r7", 1) + b"{junk\n", folder=tmp_path)
    assert "conntrack-monitor: 1 line not understood; first: {" in only.stderr.decode()


def test_recordings_of_two_nodes() -> None:
    one, other = (b"# 1.0 node %b\n# 1.0 facts count=%d\n" % pair + LINE + b"\n" for pair in ((b"r7", 1), (b"r9", 2)))
    for data in (one + other + of_node("r9", 1) + of_node("", 1), other + one):
        (named,) = {json.loads(line)["node"] for line in retold(data).splitlines()}
        assert retold(data).count(b"\n") == 1
        assert named == ("r7" if data.startswith(one) else "r9")
    source = Replay("saved", 0.0, one + other + of_node("r8", 2))
    found = [item for _ in range(3) for item in source.poll() if not isinstance(item, Block)]
    source.close()
    assert [item.node for item in found if isinstance(item, OfNode)] == ["r7"]
    assert [item.lines for item in found if isinstance(item, LeftOut)] == [{"r9": 1, "r8": 2}]
    assert isinstance(found[-1], Ended)


def test_text_has_the_node_that_is_given(tmp_path: Path) -> None:
    assert all("node" not in json.loads(line) for line in retold(LINE + b"\n").splitlines())
    result = run("--replay", "-", "--csv", "--node", "r%7,x", stdin=(LINE + b"\n") * 3, folder=tmp_path)
    assert [line[:8] for line in result.stdout.decode().splitlines()] == ["node,tim", *['"r%7,x",'] * 3]
    (item,) = map(json.loads, retold(LINE + b"\n", "r%7,x").splitlines())
    assert list(item)[:3] == ["node", "time", "event"]
    bare = run(
        "--replay", "-", "--once", "--csv", stdin=LINE.replace(b"[DESTROY]", b"    [NEW]") + b"\n", folder=tmp_path
    )
    assert bare.stdout.splitlines()[1].startswith(b",2026-")


def test_a_recording_says_whose_it_is(tmp_path: Path) -> None:
    again = tmp_path / "again.rec"
    run("--replay", "-", "--json", "--record", str(again), stdin=STREAM, folder=tmp_path)
    assert re_read(again) == STREAM


def re_read(path: Path) -> bytes:
    return retold(path.read_bytes())


def stamped(block: bytes, at: float) -> bytes:
    """Each line of it with a time, a little after the one before."""
    return b"".join(b"[%.6f]\t%b" % (at + n / 32, line) for n, line in enumerate(block.splitlines(keepends=True)))


FEW_NODES = ["r7", "r9", "kids' router", " ü", "node", ""]


@st.composite
def mixtures(draw: st.DrawFn) -> dict[str, list[bytes]]:
    """Of some of few nodes, pieces about few flows: JSON lines with that node, or text. All nodes' clocks agree."""
    found = {}
    for node in draw(st.lists(st.sampled_from(FEW_NODES), min_size=2, max_size=4, unique=True)):
        blocks = draw(histories(blocks=4, lines=4))
        found[node] = [stamped(block, 1e9 + at) if draw(st.booleans()) else block for at, block in enumerate(blocks)]
    return found


@given(mixtures(), st.randoms(use_true_random=False), st.sampled_from([0.0, 1e6]))
def test_lines_of_several_nodes_give_each_the_table_that_its_own_give(
    nodes: dict[str, list[bytes]], random: Random, speed: float
) -> None:
    """Whatever their order is, a line at a time."""
    lines = {node: retold(b"".join(blocks), node).splitlines(keepends=True) for node, blocks in nodes.items()}
    alone = {node: retold(b"".join(its), node) for node, its in lines.items() if its}
    order = [node for node, its in lines.items() for _ in its]
    random.shuffle(order)
    rest = {node: iter(its) for node, its in lines.items()}
    mixed = b"".join(next(rest[node]) for node in order)
    assert retold_by_node(mixed, speed) == alone


@given(mixtures(), st.randoms(use_true_random=False), st.sampled_from([0.0, 1e6]))
def test_a_recording_of_several_nodes_gives_them_back(
    nodes: dict[str, list[bytes]], random: Random, speed: float
) -> None:
    """Text and JSON, and what no line says; each by itself is what ``--node`` reads of it, too."""
    order = [node for node, its in nodes.items() for _ in its]
    random.shuffle(order)
    rest = {node: iter(enumerate(its)) for node, its in nodes.items()}
    single: dict[str, list[bytes]] = {}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "mixed.rec"
        recorder = Recorder(str(path))
        for node in order:
            at, block = next(rest[node])
            whole = bool(at % 2)
            for item in (OwnAddresses(1e9 + at, frozenset({f"192.0.2.{at}"})), Block(block, None, whole=whole)):
                recorder.write(item, node)
            directives = (b"1000000000.0 own 192.0.2.%d" % at, b"0.0 whole %d" % whole)
            single.setdefault(node, []).append(b"".join(b"# %b\n" % text for text in directives) + block)
        recorder.close()
        data = re.sub(rb"^# [\d.]+ own", b"# 1000000000.0 own", path.read_bytes(), flags=re.M)
    alone = {node: retold(b"".join(pieces), node) for node, pieces in single.items()}
    assert retold_by_node(data, speed) == alone
    for node in alone if "" not in alone else ():  # what names none goes with the chosen one
        assert retold(data, node) == alone[node]


@pytest.mark.parametrize("junk", [b'{"node": "r7", "ev\n', b'nt": "new", "family": "ip\n', b"conntrack v1.4.7\n"])
def test_junk_between_lines_of_nodes_makes_no_node(junk: bytes) -> None:
    data = of_node("r7", 1) + junk + of_node("r9", 1) + junk
    found = JsonLines(every=True).recordings_in(data)
    assert [(text.node, text.data.count(junk)) for text in found] == [("r7", 1), ("r9", 1)]
    assert [text.node for text in JsonLines(every=True).recordings_in(of_node("r7", 1) + LINE)] == ["r7", ""]


def test_the_number_of_nodes_is_bounded() -> None:
    lines = JsonLines("r7")
    lines.recordings_in(b"".join(of_node(f"n{number}", 1) for number in range(MOST_NODES + 5)))
    assert len(lines.left_out) == MOST_NODES + 1
    assert lines.left_out[OTHER_NODES] == 5
    every = JsonLines(every=True)
    data = b"".join(of_node(f"n{number}", 1) for number in [*range(MOST_NODES), *range(MOST_NODES + 5)])
    found = every.recordings_in(data)
    assert len(found) == MOST_NODES
    assert all(text.data.count(b"\n") == 3 for text in found)  # that lines are whole, and two of them
    assert every.left_out == {f"n{MOST_NODES + number}": 1 for number in range(5)}


@pytest.mark.parametrize("node", ["\x1b[2J", "x" * 256, "a\nb"])
def test_a_name_that_would_steer_a_terminal_is_refused(node: str, tmp_path: Path) -> None:
    result = run("--replay", "-", "--once", "--node", node, stdin=b"", folder=tmp_path)
    assert result.returncode == 2
    assert b"at most 255 printable characters" in result.stderr


# --- --only -----------------------------------------------------------------------------------------------------------


def test_only_these_events(tmp_path: Path) -> None:
    told = [json.loads(line) for line in STREAM.splitlines()]
    for words, wanted in (("new,destroy", {"new", "destroy"}), ("LIST update", {"list", "update"})):
        result = run("--replay", "-", "--json", "--only", words, stdin=STREAM, folder=tmp_path)
        assert [json.loads(line) for line in result.stdout.splitlines()] == [x for x in told if x["event"] in wanted]
    inferred = "".join(map(export.json_line, INFERRED)).encode()
    assert (
        run("--replay", "-", "--json", "--only", "new,list", stdin=inferred, folder=tmp_path).stdout.count(b"\n") == 1
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--json", "--only", "nwe"], "'nwe' is not an event; did you mean new?"),
        (["--json", "--only", "xyzzy"], "'xyzzy' is not an event; valid: new update destroy list"),
        (["--json", "--only", ","], "it names no event; valid: new, update, destroy, list."),
        (["--json", "--once", "--only", "new"], "--only selects events of a stream"),
        (["--once", "--only", "new"], "--only selects events of a stream"),
    ],
)
def test_wrong_events(words: list[str], said: str, tmp_path: Path) -> None:
    result = run(*words, "--replay", "-", stdin=b"", folder=tmp_path)
    assert result.returncode == 2
    assert said in result.stderr.decode()


# --- the real thing ---------------------------------------------------------------------------------------------------

CHANGING = ("time", "timeout", "node", "near")  # names of hosts are known where they are


def flows_of(lines: bytes) -> dict[tuple[str, int], dict[str, Any]]:
    items = [json.loads(line) for line in lines.splitlines()]
    found = {
        (item["protocol"], item["id"]): {key: value for key, value in item.items() if key not in CHANGING}
        for item in items
    }
    assert len(found) == len(items)
    return found


def many(count: int) -> list[str]:
    """A thousand of every kind, masqueraded and not."""
    lines = []
    for i in range(count // 4):
        near, far, near6 = f"10.9.{i // 200}.{i % 200 + 1}", f"198.51.100.{i % 250 + 1}", f"2001:db8:{i:x}::1"
        lines += [
            f"-A -t 9000 -u SEEN_REPLY,ASSURED -s {near} -d {far} -r {far} -q 203.0.113.1 -p tcp --sport {i + 1} --dport 443 "
            f"--reply-port-src 443 --reply-port-dst {i + 1} --state ESTABLISHED",
            f"-A -t 9000 -s {near} -d {far} -r {far} -q {near} -p udp --sport {i + 1} --dport 53 "
            f"--reply-port-src 53 --reply-port-dst {i + 1} -m {i}",
            f"-A -t 9000 -s {near6} -d 2001:db8:ffff::2 -r 2001:db8:ffff::2 -q {near6} -p tcp --sport {i + 1} --dport 22 "
            f"--reply-port-src 22 --reply-port-dst {i + 1} --state SYN_SENT",
            f"-A -t 9000 -s {near} -d 203.0.113.1 -r 10.99.1.2 -q {near} -p udp --sport {i + 1} --dport 8080 "
            f"--reply-port-src 80 --reply-port-dst {i + 1}",
        ]
    return lines


def in_environment(folder: Path) -> list[str]:
    return ["env", *(f"{name}={value}" for name, value in environment(folder).items())]


@needs_kernel
def test_a_live_stream_comes_back_as_the_table(tmp_path: Path) -> None:
    """A NAT router with a thousand flows: `--json | --replay - --once --json` is what --once --json says."""
    with Lab() as lab:
        lab.router.sysctl("net.netfilter.nf_conntrack_events", 1)  # the end of each flow is told, also of older ones
        load(lab.router, many(1000))
        pipe = [*lab.router.prefix, *PROGRAM, "--json", "--no-config"]
        settings = {**os.environ, **environment(tmp_path)}
        before = listeners(lab.router)
        told = subprocess.Popen(pipe, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=settings)
        back = subprocess.Popen(
            [*PROGRAM, "--no-config", "--replay", "-", "--once", "--json"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=settings,
        )
        assert told.stdout
        assert back.stdin
        wait_for(lambda: listeners(lab.router) > before, what="the listener")
        with lab.echo_server(5001), lab.tcp_connect(5001) as connection:
            connection.exchange(1000)
            insert(lab.router, src="192.0.2.1", dst="192.0.2.2", sport=7, dport=80)
            lab.router.run(["conntrack", "-D", "-p", "udp", "--dport", "53", "--sport", "7"])
            live = lab.router.run([*in_environment(tmp_path), *PROGRAM, "--no-config", "--once", "--json"])
            insert(lab.router, src="192.0.2.3", dst="192.0.2.2", sport=8, dport=80)
            lab.router.run(["conntrack", "-D", "-s", "192.0.2.3"])  # the last that is told
            for line in told.stdout:
                back.stdin.write(line)
                if b'"192.0.2.3"' in line and b'"event":"destroy"' in line:
                    break
            told.send_signal(signal.SIGTERM)
            back.stdin.write(told.stdout.read())
            told.stdout.close()
            out, err = back.communicate(timeout=60)
            assert told.wait(60) == 0
    assert (back.returncode, b"not understood" in err) == (0, False), err
    here, there = flows_of(live.stdout.encode()), flows_of(out)
    assert len(here) > 1000
    assert here.keys() == there.keys()
    counted = {ident for ident in here if here[ident] != there[ident]}
    assert len(counted) < 5  # the connection that goes on: no event tells what it moves
    assert {item["direction"] for item in there.values()} >= {"fwd"}
    assert {json.loads(line)["node"] for line in out.splitlines()} == {os.uname().nodename}


@needs_kernel
def test_a_table_is_the_same_after_the_way_back(tmp_path: Path) -> None:
    with Namespace() as ns:
        ns.ip("link set lo up", "addr add 203.0.113.1/32 dev lo")
        load(ns, many(1000))
        live = ns.run([*in_environment(tmp_path), *PROGRAM, "--no-config", "--once", "--json", "--node", "r7"])
    once = live.stdout.encode()
    assert once.count(b"\n") == 1000
    assert run("--replay", "-", "--once", "--json", stdin=once, folder=tmp_path).stdout == once


def test_the_screen_shows_a_pipe_that_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "stream.json"
    path.write_bytes(of_node("r7", 1, event="new"))
    argv = ["sh", "-c", f'tail -n +1 -f {shlex.quote(str(path))} | exec "$@"', "sh", *PROGRAM]
    with OnScreen(tmp_path, "--no-config", "--replay", "-", program=argv) as screen:
        screen.wait("10.0.0.1:1")
        with open(path, "ab") as file:
            file.write(of_node("r7", 1, event="new", original={**GOOD["original"], "src": "10.0.0.77"}))
            file.write(of_node("r9", 1, event="new", original={**GOOD["original"], "src": "10.0.0.78"}))
        screen.wait("10.0.0.77")
        screen.wait(lambda: re.search(r"r9 +tcp .*10\.0\.0\.78", screen.text) is not None)
        screen.type("/node:r7\r")
        screen.wait(lambda: "10.0.0.77" in screen.text and "10.0.0.78" not in screen.text)


def test_a_hundred_thousand_lines_take_seconds(tmp_path: Path) -> None:
    """Measured: 1.9 s a hundred thousand on top of what text takes. The aim is 10 s for all of it."""
    import resource

    path = tmp_path / "many.json"
    path.write_bytes(STREAM * (20_000 // STREAM.count(b"\n") + 1))
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    result = run("--replay", str(path), "--once", "--limit", "1", stdin=b"", folder=tmp_path)
    assert result.returncode == 0
    spent = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    assert spent < 10.0 * path.read_bytes().count(b"\n") / 100_000 * (2 if sys.gettrace() else 1) + 1.0
