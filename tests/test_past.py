"""The flow log on disk, with real files and no kernel: what is written, what goes wrong, and who had an address."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import past
from addresses import Named
from flowlog import LogPlan, LogState
from past import DAY_SECONDS, INSTANT, DayFile, Question, Refused, day_of
from support.kernel import needs_kernel
from support.logs import (
    INSIDE,
    MIDNIGHT,
    NOON,
    SERVER,
    WAN,
    Conn,
    Logged,
    answer,
    doubts_at,
    flow_rows,
    gap_rows,
    insiders,
    nat,
    quick_folder,
    rows,
    usage,
)

TODAY = day_of(NOON)
TODAYS = f"flows-{past.day_name(TODAY)}.db"
LISTED = 2  # seconds after which a log that was begun knows all flows


@pytest.fixture
def logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Logged]:
    made = Logged(tmp_path / "log", monkeypatch)
    yield made
    made.kill()


def watched(logged: Logged, *conns: Conn) -> Logged:
    """A log that has begun, with these connections in the table."""
    logged.list(*conns)
    logged.seconds(LISTED)
    return logged


# --- a row ------------------------------------------------------------------------------------------------------------

PLAIN = {"src": INSIDE, "sport": 1000, "dst": SERVER, "dport": 443}
MIRRORED = {"reply_src": SERVER, "reply_sport": 443, "reply_dst": INSIDE, "reply_dport": 1000}
V6 = Conn("2001:db8:1::5", 1000, "2001:db8:2::7", 443)


@pytest.mark.parametrize(
    ("conn", "wanted"),
    [
        (Conn(), {**PLAIN, **MIRRORED, "nat": None, "protocol": "tcp", "state": "ESTABLISHED"}),
        (nat(), {**PLAIN, **MIRRORED, "nat": "snat", "reply_dst": WAN, "reply_dport": 40000}),
        (nat(port=1000), {**PLAIN, **MIRRORED, "nat": "snat", "reply_dst": WAN, "reply_dport": 1000}),
        (
            Conn(SERVER, 443, WAN, 8080, to=(INSIDE, 80)),
            {"src": SERVER, "sport": 443, "dst": WAN, "dport": 8080, "nat": "dnat"}
            | {"reply_src": INSIDE, "reply_sport": 80, "reply_dst": SERVER, "reply_dport": 443},
        ),
        (
            Conn(INSIDE, 1000, WAN, 8080, to=("10.0.0.9", 80), wan=("10.0.0.1", 2000)),
            {"src": INSIDE, "dst": WAN, "dport": 8080, "nat": "both"}
            | {"reply_src": "10.0.0.9", "reply_sport": 80, "reply_dst": "10.0.0.1", "reply_dport": 2000},
        ),
        (Conn(protocol="udp"), {**PLAIN, **MIRRORED, "protocol": "udp", "state": None}),
        (V6, {"src": V6.src, "dst": V6.dst, "reply_src": V6.dst, "reply_dst": V6.src, "reply_sport": 443}),
        (Conn(more="mark=4294967295"), {"mark": 4294967295, "zone": 0}),
        (Conn(more="mark=7 zone=3"), {"mark": 7, "zone": 3}),
        (Conn(more="mark=0 zone=65535"), {"mark": 0, "zone": 65535}),
    ],
)
def test_a_row_says_what_the_kernel_said(logged: Logged, conn: Conn, wanted: dict[str, Any]) -> None:
    watched(logged)
    logged.tell("new", conn)
    born = logged.now
    logged.seconds(5)
    logged.tell("update", conn)
    logged.tell("destroy", conn, (500, 700))
    ended = logged.now
    logged.seconds(3)
    (row,) = flow_rows(logged.folder)
    wanted = {**wanted, "node": "r7", "reason": "destroy", "start": born, "end": ended, "start_exact": 1, "seen": None}
    wanted |= {"packets_original": 50, "bytes_original": 500, "packets_reply": 70, "bytes_reply": 700}
    assert {name: row[name] for name in wanted} == wanted
    assert list(row) == list(past.LOG_COLUMNS)


OTHERS: dict[str, tuple[bytes, dict[str, Any]]] = {
    "icmp": (
        b"[DESTROY] ipv4     2 icmp     1 src=10.0.0.5 dst=198.51.100.7 type=8 code=0 id=4711 packets=1 bytes=84"
        b" src=198.51.100.7 dst=203.0.113.1 type=0 code=0 id=4711 packets=1 bytes=84 id=9",
        {"protocol": "icmp", "sport": 4711, "dport": None, "nat": "snat", "reply_dst": WAN, "reply_dport": 4711},
    ),
    "gre": (
        b"[DESTROY] ipv4     2 gre      47 src=10.0.0.5 dst=198.51.100.7 srckey=0x0 dstkey=0x1234 packets=1 bytes=36"
        b" [UNREPLIED] src=198.51.100.7 dst=10.0.0.5 srckey=0x1234 dstkey=0x0 packets=0 bytes=0 id=9",
        {"protocol": "gre", "sport": 0, "dport": 0x1234, "reply_sport": 0x1234, "nat": None, "bytes_reply": 0},
    ),
    "unknown": (
        b"[DESTROY] ipv4     2 unknown  253 src=10.0.0.5 dst=198.51.100.7 [UNREPLIED] src=198.51.100.7 dst=10.0.0.5 id=9",
        {"protocol": "ip253", "sport": None, "dport": None, "bytes_original": None, "packets_reply": None},
    ),
    "more than SQLite can hold": (
        b"[DESTROY] ipv4     2 udp      17 src=10.0.0.5 dst=198.51.100.7 sport=1 dport=2 packets=1"
        b" bytes=18446744073709551615 src=198.51.100.7 dst=10.0.0.5 sport=2 dport=1 packets=0 bytes=0 id=9",
        {"bytes_original": 1 << 62, "bytes_reply": 0},
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_row_of_another_protocol(logged: Logged, name: str) -> None:
    line, wanted = OTHERS[name]
    watched(logged)
    logged.table.event(past_row(line), logged.clock)
    logged.seconds(3)
    (row,) = flow_rows(logged.folder)
    assert {name: row[name] for name in wanted} == wanted


def past_row(line: bytes) -> Any:
    from parse import split_lines

    (row,) = split_lines(line + b"\n")[0]
    return row


def test_what_nothing_counts_is_unknown_and_not_zero(logged: Logged) -> None:
    watched(logged)
    logged.tell("new", nat())
    logged.tell("destroy", nat())
    logged.seconds(3)
    (row,) = flow_rows(logged.folder)
    counted = [row[name] for name in ("packets_original", "bytes_original", "packets_reply", "bytes_reply")]
    assert counted == [None] * 4
    (hour,) = rows(logged.folder, "SELECT * FROM usage_log")
    assert (hour["flows"], hour["bytes_in"], hour["bytes_out"]) == (1, None, None)


def test_the_remote_place_and_the_names_are_those_of_then(logged: Logged) -> None:
    watched(logged)
    logged.names.take("leases", [(INSIDE, Named("laptop-anna"))])
    logged.tell("destroy", nat(id=1))
    logged.seconds(3)
    logged.names.take("leases", [(INSIDE, Named("printer"))])
    logged.tell("destroy", nat(id=2, port=40001))
    logged.seconds(3)
    found = [(row["near_name"], row["country"], row["asn"]) for row in flow_rows(logged.folder)]
    assert found == [("laptop-anna", "DE", 64500), ("printer", "DE", 64500)]
    text = past.answer_text(
        Question(WAN, 40000, None, logged.now - 3, 1.0), answer(logged.folder, f"{WAN}:40000", NOON + 2)
    )
    assert "laptop-anna" in text
    assert "printer" not in text


def test_a_start_that_nobody_saw_is_marked(logged: Logged) -> None:
    watched(logged, nat())
    logged.tell("destroy", nat(), (10, 10))
    logged.seconds(3)
    (row,) = flow_rows(logged.folder)
    assert row["start_exact"] == 0
    assert " <12:00:00" in past.answer_text(
        Question(WAN, None, None, NOON, 1.0), answer(logged.folder, WAN, NOON)
    ).replace(time.strftime("%H:%M:%S", time.localtime(NOON)), "12:00:00")


def test_the_end_of_a_flow_that_had_the_key_before_does_not_end_the_one_that_has_it(logged: Logged) -> None:
    watched(logged, nat(id=2))
    logged.seconds(70)
    logged.tell("destroy", nat(id=1), (10, 10))  # its predecessor's, read late
    logged.seconds(10)
    assert [row["reason"] for row in flow_rows(logged.folder)] == ["open", "destroy"]
    logged.tell("destroy", nat(id=2), (100, 100))
    logged.seconds(3)
    assert sorted((row["reason"], row["bytes_reply"]) for row in flow_rows(logged.folder)) == [
        ("destroy", 10),
        ("destroy", 100),
    ]
    assert usage(logged.folder) == (2, 110, 110)


# --- flows that are still there ---------------------------------------------------------------------------------------


def test_a_flow_is_written_while_it_is_open_and_again_when_it_ends(logged: Logged) -> None:
    watched(logged)
    logged.tell("new", nat())
    logged.seconds(50)
    assert flow_rows(logged.folder) == []
    logged.seconds(80)
    (row,) = flow_rows(logged.folder)
    assert (row["reason"], row["end"]) == ("open", logged.now)
    logged.seconds(20)
    logged.tell("destroy", nat(), (10, 20))
    logged.seconds(3)
    (row,) = flow_rows(logged.folder)
    assert (row["reason"], row["end"]) == ("destroy", logged.now - 3)
    assert rows(logged.folder, "SELECT * FROM unfinished") == []


def test_a_flow_that_a_listing_no_longer_had_was_swept(logged: Logged) -> None:
    watched(logged, nat())
    logged.seconds(10)
    logged.list()
    logged.seconds(3)
    (row,) = flow_rows(logged.folder)
    assert (row["reason"], row["end"], row["seen"]) == ("swept", NOON + 12, NOON)


def test_a_destroy_that_is_read_after_the_sweep_ends_the_same_flow(logged: Logged) -> None:
    logged.list((nat(), (100, 100)))
    logged.seconds(LISTED)
    logged.list()
    logged.seconds(1)
    logged.tell("destroy", nat(), (150, 170))
    logged.seconds(3)
    (row,) = flow_rows(logged.folder)
    assert (row["reason"], row["start"], row["seen"]) == ("destroy", NOON, None)
    assert usage(logged.folder) == (1, 170, 150)


def test_a_swept_flow_did_not_have_a_port_that_another_had_begun_to_use(logged: Logged) -> None:
    """It ended somewhere between two listings; the kernel gave its port to another one only after that."""
    watched(logged, nat(5, id=1), nat(6, 1001, 40001, id=2))
    logged.seconds(10)
    logged.tell("new", nat(7, 1002, id=3))
    began = logged.now
    logged.seconds(4)
    logged.list(nat(7, 1002, id=3))
    logged.seconds(2)
    logged.tell("destroy", nat(7, 1002, id=3), (1, 1))
    logged.seconds(3)
    # Nobody had it for certain, as long as one that is young might have no entry yet.
    assert insiders(logged.folder, f"{WAN}:40001", began + 1) == []
    logged.seconds(130)
    at = f"{WAN}:40000"
    assert insiders(logged.folder, at, began - 1) == ["10.0.0.5"]
    assert insiders(logged.folder, at, began + 1) == ["10.0.0.7"]
    assert insiders(logged.folder, INSIDE, began + 1) == []
    assert insiders(logged.folder, f"{WAN}:40001", began + 1) == ["10.0.0.6"]


def test_the_right_one_of_two_that_had_a_port_one_after_the_other(logged: Logged) -> None:
    watched(logged)
    for host in (5, 6):
        logged.tell("new", nat(host, id=host))
        logged.seconds(10)
        logged.tell("destroy", nat(host, id=host), (1, 1))
        logged.seconds(1)
    logged.seconds(3)
    begun = NOON + LISTED
    for second in range(10):
        assert insiders(logged.folder, f"{WAN}:40000", begun + second) == ["10.0.0.5"]
        assert insiders(logged.folder, f"{WAN}:40000", begun + 11 + second) == ["10.0.0.6"]
    assert insiders(logged.folder, f"{WAN}:40000", begun + 10.5) == []
    assert insiders(logged.folder, f"{WAN}:40000/udp", begun + 5) == []
    assert insiders(logged.folder, f"{SERVER}:443", begun + 10, 2.0) == ["10.0.0.5", "10.0.0.6"]


# --- hours, and the sums ----------------------------------------------------------------------------------------------


def hours(folder: Path) -> dict[float, int]:
    found: dict[float, int] = {}
    for row in rows(folder, "SELECT hour, coalesce(bytes_in, 0) + coalesce(bytes_out, 0) AS b FROM usage_log"):
        found[row["hour"]] = found.get(row["hour"], 0) + row["b"]
    return found


def test_bytes_count_in_the_hour_in_which_they_were_counted_and_the_sum_is_what_its_destroy_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged = Logged(tmp_path / "log", monkeypatch, NOON - 100)
    watched(logged)
    logged.tell("new", nat())
    logged.seconds(95)
    logged.list((nat(), (1000, 2000)))  # three seconds before the full hour
    logged.seconds(3700)
    logged.list((nat(), (1500, 2500)))
    logged.seconds(70)
    logged.tell("destroy", nat(), (1600, 2600))
    logged.seconds(3)
    assert hours(logged.folder) == {NOON - 3600: 3000, NOON + 3600: 1200}
    assert usage(logged.folder) == (1, 2600, 1600)
    logged.kill()


def test_a_flow_that_the_far_end_opened_sends_in_what_it_sends(logged: Logged) -> None:
    watched(logged)
    conn = Conn(SERVER, 5555, WAN, 8080, to=(INSIDE, 80))
    logged.tell("destroy", conn, (300, 40))
    logged.seconds(3)
    (row,) = rows(logged.folder, "SELECT * FROM usage_log")
    assert (row["near"], row["bytes_in"], row["bytes_out"], row["country"]) == (INSIDE, 300, 40, "DE")


def test_counters_that_were_reset_count_anew(logged: Logged) -> None:
    watched(logged)
    logged.tell("new", nat())
    for moved in ((1000, 1000), (30, 5000), (60, 5100)):  # conntrack -L -z between the first and the second
        logged.seconds(65)
        logged.list((nat(), moved))
    logged.seconds(65)
    logged.tell("destroy", nat(), (70, 5200))
    logged.seconds(3)
    assert usage(logged.folder) == (1, 1000 + 5200, 1000 + 70)


def test_a_flow_is_in_the_file_of_the_day_of_its_end_and_never_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged = Logged(tmp_path / "log", monkeypatch, MIDNIGHT - 100)
    watched(logged, nat(5, id=1), nat(6, 1001, 40001, id=2))
    logged.seconds(70)
    logged.list((nat(5, id=1), (100, 200)), (nat(6, 1001, 40001, id=2), (1, 1)))
    logged.seconds(20)
    assert sorted(day_rows(logged.folder, "flow_log").values()) == [2]
    logged.seconds(20)
    logged.tell("destroy", nat(6, 1001, 40001, id=2), (5, 5))
    logged.seconds(20)
    assert day_rows(logged.folder, "flow_log") == {TODAY: 0, TODAY + 1: 2}
    logged.tell("destroy", nat(5, id=1), (1000, 2000))
    logged.seconds(3)
    assert day_rows(logged.folder, "flow_log") == {TODAY: 0, TODAY + 1: 2}
    assert usage(logged.folder) == (2, 2005, 1005)
    for moment in (MIDNIGHT - 50, MIDNIGHT - 1, MIDNIGHT, MIDNIGHT + 5):
        assert insiders(logged.folder, f"{WAN}:40000", moment) == [INSIDE], moment
    assert insiders(logged.folder, f"{WAN}:40000", MIDNIGHT - 30, 60.0) == [INSIDE]
    logged.kill()


def test_a_span_over_midnight_finds_what_began_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged = Logged(tmp_path / "log", monkeypatch, MIDNIGHT - 20)
    watched(logged)
    logged.seconds(20)
    logged.tell("destroy", nat(), (1, 1))
    logged.seconds(3)
    assert insiders(logged.folder, WAN, MIDNIGHT - 5, 10.0) == [INSIDE]
    logged.kill()


def day_rows(folder: Path, view: str) -> dict[int, int]:
    found = {}
    for day, path in past.day_files(str(folder)).items():
        with closing(sqlite3.connect(path)) as db:
            (found[day],) = db.execute(f"SELECT count(*) FROM {view}").fetchone()
    return found


# --- starting again ---------------------------------------------------------------------------------------------------


def test_a_new_run_takes_up_the_flows_that_the_one_before_left(logged: Logged) -> None:
    conns = [(nat(5, id=1), (100, 100)), (nat(6, 1001, 40001, id=2), (10, 10)), (nat(7, 1002, 40002, id=3), (10, 10))]
    logged.list(*conns)
    logged.seconds(LISTED)
    logged.kill()
    logged.clock += 30
    logged.begin()
    # The first goes on, the second has another id, of the third the counters fell: another flow each.
    later = [(nat(5, id=1), (150, 150)), (nat(6, 1001, 40001, id=9), (70, 70)), (nat(7, 1002, 40002, id=3), (0, 0))]
    logged.list(*later)
    logged.seconds(70)
    found = [(row["src"], row["reason"], row["start"], row["bytes_reply"]) for row in flow_rows(logged.folder)]
    again = NOON + LISTED + 30
    assert found == [
        (INSIDE, "open", NOON, 150),
        ("10.0.0.6", "open", NOON, 10),
        ("10.0.0.7", "open", NOON, 10),
        ("10.0.0.6", "open", again, 70),
        ("10.0.0.7", "open", again, 0),
    ]
    logged.tell("destroy", nat(5, id=1), (500, 900))
    logged.seconds(3)
    assert usage(logged.folder) == (5, 900 + 80 + 10, 500 + 80 + 10)
    assert insiders(logged.folder, f"{WAN}:40000", NOON + 10) == [INSIDE]


def test_what_a_run_did_not_find_again_is_not_taken_up_by_the_next(logged: Logged) -> None:
    """The kernel gives the same id again to the same tuple: years later that would be the same flow."""
    watched(logged, nat(id=1))
    for found in ((), (nat(id=1),)):
        logged.kill()
        logged.clock += 100
        logged.begin()
        watched(logged, *found)
    assert [row["start"] for row in flow_rows(logged.folder)] == [NOON, NOON + 204]


def test_a_run_that_was_killed_before_it_looked_leaves_all_to_the_next(logged: Logged) -> None:
    logged.list((nat(id=1), (100, 100)))
    logged.seconds(LISTED)
    logged.kill()
    logged.clock += 10
    logged.begin()
    logged.seconds(3)  # no listing yet
    logged.kill()
    logged.clock += 10
    logged.begin()
    logged.list((nat(id=1), (300, 300)))
    logged.seconds(LISTED)
    assert [(row["start"], row["bytes_reply"]) for row in flow_rows(logged.folder)] == [(NOON, 300)]
    assert usage(logged.folder) == (1, 300, 300)


def test_a_flow_born_after_the_run_before_is_another_one(logged: Logged) -> None:
    watched(logged, nat(id=1))
    logged.kill()
    logged.clock += 100
    logged.begin()
    watched(logged, nat(id=1, more="mark=0 delta-time=20"))
    assert [round(row["start"] - NOON) for row in flow_rows(logged.folder)] == [0, 82]


def test_a_move_that_was_broken_off_leaves_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged = Logged(tmp_path / "log", monkeypatch, MIDNIGHT - 70)
    watched(logged, nat())
    logged.seconds(66)
    logged.kill()
    shutil.copytree(logged.folder, tmp_path / "before")
    logged.clock += 1
    logged.begin()
    watched(logged, nat())
    logged.seconds(10)
    logged.kill()
    shutil.copy(tmp_path / "before" / TODAYS, logged.folder)  # as if yesterday's had not been written
    assert len(flow_rows(logged.folder)) == 2
    logged.begin()
    watched(logged, nat())
    assert [(row["start"], row["reason"]) for row in flow_rows(logged.folder)] == [(MIDNIGHT - 70, "open")]
    logged.kill()


# --- gaps -------------------------------------------------------------------------------------------------------------


def test_a_log_without_a_break_has_no_gap_and_begins_when_all_was_known(logged: Logged) -> None:
    logged.seconds(5)
    logged.list(nat())
    listed = logged.now
    logged.seconds(5)
    assert gap_rows(logged.folder) == []
    assert rows(logged.folder, "SELECT began FROM about") == [{"began": listed}]
    assert any("begins later" in doubt for doubt in doubts_at(logged.folder, listed - 1))


def test_the_time_in_which_it_did_not_run_is_a_gap_up_to_the_first_listing(logged: Logged) -> None:
    watched(logged)
    logged.close()
    closed = logged.now
    logged.clock += 30
    logged.begin()
    logged.seconds(3)
    logged.list()
    logged.seconds(3)
    assert gap_rows(logged.folder) == [(closed, closed + 33, "not running")]
    assert doubts_at(logged.folder, closed - 0.5) == []
    assert "not running" in " ".join(doubts_at(logged.folder, closed + 32))


def test_a_kill_is_also_a_gap_for_flows_that_were_young(logged: Logged) -> None:
    """They had no row, and ended while nobody looked. In good order each of them is written."""
    watched(logged)
    logged.seconds(150)
    logged.tell("new", nat())
    logged.seconds(30)
    killed = logged.now
    logged.kill()
    logged.clock += 5
    logged.begin()
    watched(logged)
    (cut, down) = gap_rows(logged.folder)
    assert (cut[1], cut[2]) == (killed, past.CUT_OFF)
    assert killed - 122 <= cut[0] <= killed - 30
    assert (down[0], down[2]) == (killed, "not running")
    assert doubts_at(logged.folder, killed - 10)
    assert doubts_at(logged.folder, killed - 125) == []


def test_what_is_young_when_it_ends_in_good_order_has_a_row(logged: Logged) -> None:
    watched(logged)
    logged.tell("new", nat())
    logged.seconds(5)
    logged.close()
    assert insiders(logged.folder, WAN, logged.now - 2) == [INSIDE]
    assert doubts_at(logged.folder, logged.now - 2) == []


def test_a_gap_that_goes_on_over_midnight_is_in_the_file_of_each_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged = Logged(tmp_path / "log", monkeypatch, MIDNIGHT - 20)
    logged.status.facts["acct"] = 0
    watched(logged)
    logged.seconds(30)
    logged.status.facts["acct"] = 1
    logged.seconds(3)
    assert gap_rows(logged.folder) == [
        (MIDNIGHT - 19, MIDNIGHT, past.UNCOUNTED),
        (MIDNIGHT, MIDNIGHT + 13, past.UNCOUNTED),
    ]
    assert doubts_at(logged.folder, MIDNIGHT + 5) == [
        "flows that were new when the log was last written have no entry yet"
    ]
    logged.kill()


@pytest.mark.parametrize(
    ("facts", "reason"), [({"events": 0}, past.DEAF), ({"acct": 0}, past.UNCOUNTED)], ids=["events", "acct"]
)
def test_what_the_kernel_does_not_tell_is_a_gap(logged: Logged, facts: dict[str, int], reason: str) -> None:
    watched(logged)
    logged.status.facts.update(facts)
    logged.seconds(5)
    assert [gap[2] for gap in gap_rows(logged.folder)] == [reason]
    logged.status.facts.update(events=1, acct=1)
    logged.seconds(3)
    (gap,) = gap_rows(logged.folder)
    assert gap == (NOON + LISTED + 1, NOON + LISTED + 6, reason)


def test_a_log_without_kernel_events_runs_all_the_same(logged: Logged) -> None:
    logged.status.facts["events"] = 0
    watched(logged)
    logged.kill()
    logged.clock += 10
    logged.begin()
    logged.table.watch_no_longer()
    watched(logged)
    logged.seconds(5)
    ends = {reason: until for _, until, reason in gap_rows(logged.folder)}
    assert ends["not running"] < logged.now - 4
    assert ends[past.DEAF] == logged.now


def test_lost_events_are_a_gap_also_where_they_were_made_good_at_once(logged: Logged) -> None:
    watched(logged)
    logged.status.losses, logged.status.lost_at, logged.status.healed = 1, logged.clock + 0.5, 1
    logged.seconds(3)
    assert gap_rows(logged.folder) == [(NOON + 2.5, NOON + 3, past.LOSING)]
    logged.status.losses, logged.status.lost_at, logged.status.behind = 2, logged.clock, 2.0
    logged.seconds(4)
    assert gap_rows(logged.folder)[1] == (NOON + 3, logged.now, past.LOSING)
    logged.status.healed = 2
    logged.seconds(3)
    assert gap_rows(logged.folder)[1] == (NOON + 3, logged.now - 2, past.LOSING)


@pytest.mark.parametrize("step", [3600.0, -3600.0, DAY_SECONDS * 2.0, -DAY_SECONDS * 2.0])
def test_a_step_of_the_clock_is_a_gap_and_no_byte_is_lost(logged: Logged, step: float) -> None:
    logged.list((nat(), (100, 100)))
    logged.seconds(70)
    before = logged.now
    logged.epoch += step
    logged.list((nat(), (200, 200)))
    logged.seconds(70)
    first, last = sorted((before, before + step))
    gaps = [gap for gap in gap_rows(logged.folder) if "clock" in gap[2]]
    (gap,) = gaps
    assert f"set {'forward' if step > 0 else 'back'} by {abs(step):.0f} s" in gap[2]
    if step > 0:
        assert gap[0] == pytest.approx(first, abs=1.1)
        assert gap[1] == pytest.approx(last, abs=1.1)
    else:  # the times that come twice
        assert gap[0] == pytest.approx(max(first, NOON), abs=1.1)
        assert gap[1] == pytest.approx(last, abs=1.1)
    logged.tell("destroy", nat(), (900, 900))
    logged.seconds(3)
    assert usage(logged.folder) == (1, 900, 900)
    (row,) = flow_rows(logged.folder)
    assert row["reason"] == "destroy"


def test_a_router_that_starts_in_1970_says_since_when_nothing_was_written(logged: Logged) -> None:
    watched(logged)
    logged.close()
    closed = logged.now
    real, logged.epoch = logged.epoch, -logged.clock + 10.0
    logged.begin()
    watched(logged)
    logged.epoch = real
    logged.seconds(3)
    gaps = [gap for gap in gap_rows(logged.folder) if "clock" in gap[2]]
    (gap,) = gaps
    assert gap[0] == closed
    assert gap[1] == pytest.approx(logged.now, abs=3.1)
    assert doubts_at(logged.folder, closed - 1) == []


def test_a_log_that_starts_before_the_time_at_which_it_was_written_last_says_so(logged: Logged) -> None:
    watched(logged)
    logged.close()
    last = logged.now
    logged.epoch -= 600
    logged.begin()
    watched(logged)
    (gap,) = [gap for gap in gap_rows(logged.folder) if "clock" in gap[2]]
    assert gap[:2] == (last - 600 + 1, last)


def test_a_file_of_a_day_to_come_does_not_make_the_log_whole_until_then(logged: Logged) -> None:
    watched(logged)
    logged.close()
    ahead = day_of(time.time()) + 400
    DayFile(str(logged.folder), ahead, (ahead + 0.5) * DAY_SECONDS).close()
    assert any("last written" in doubt for doubt in doubts_at(logged.folder, logged.now + 60))
    logged.begin()
    logged.clock += 60
    watched(logged)
    assert ("not running") in [gap[2] for gap in gap_rows(logged.folder)]


# --- what is too much for the disk ------------------------------------------------------------------------------------


def test_what_could_not_be_written_is_a_gap_and_no_open_flow_is_lost_by_it(logged: Logged) -> None:
    logged.list((nat(5), (100, 100)), (nat(6, 1001, 40001, id=2), (10, 10)))
    logged.seconds(LISTED)
    writer = logged.writer
    assert writer is not None
    committed = logged.now
    logged.list((nat(5), (200, 200)), (nat(6, 1001, 40001, id=2), (20, 20)))
    logged.clock += 61
    logged.poll()
    logged.poll()
    logged.tell("destroy", nat(6, 1001, 40001, id=2), (30, 30))
    logged.tell("destroy", nat(7, 1002, 40002, id=3), (30, 30))
    logged.clock += 1
    logged.poll()
    for _, messages in logged.wires[-1].frames():
        for message in messages:
            writer.take(message)
    writer.give_up()
    assert writer.waiting == 0
    logged.log._tell_all()  # what the process asks for then
    logged.seconds(3)
    found = {row["src"]: (row["reason"], row["end"]) for row in flow_rows(logged.folder)}
    assert found == {INSIDE: ("open", logged.now), "10.0.0.6": ("open", NOON)}
    logged.tell("destroy", nat(5), (500, 500))
    logged.seconds(3)
    assert usage(logged.folder) == (2, 510, 510)
    (gap,) = gap_rows(logged.folder)
    assert gap[2] == "2 flows could not be written"
    assert gap[0] < committed


def test_a_writer_that_falls_behind_is_told_no_flows_and_nothing_stays_open(
    logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowlog.MOST_BEHIND", 2000)
    watched(logged, nat(5, id=1), nat(6, 1001, 40001, id=2))
    logged.seconds(70)
    stood = logged.now
    wire = logged.wires[-1]
    wire.room = 0
    for second in range(40):
        logged.tell("destroy", nat(20, 2000 + second, 50000 + second, id=90), (1, 1))
        logged.clock += 1
        logged.poll()
        if second == 30:
            logged.tell("destroy", nat(6, 1001, 40001, id=2), (5, 5))
    wire.room = 1 << 40
    logged.seconds(65)
    gaps = {reason: (since, until) for since, until, reason in gap_rows(logged.folder)}
    ((reason, gap),) = gaps.items()
    assert reason.endswith("flows came faster than the log could be written")
    number = int(reason.split()[0])
    assert 0 < number < 41
    assert len([row for row in flow_rows(logged.folder) if row["src"] == "10.0.0.20"]) in (40 - number, 41 - number)
    assert gap[0] <= stood
    ends = {row["src"]: (row["reason"], row["end"]) for row in flow_rows(logged.folder)}
    assert ends[INSIDE] == ("open", logged.now)
    assert ends["10.0.0.6"][1] < stood + 40


# --- keeping and deleting ---------------------------------------------------------------------------------------------


def days_of(folder: Path) -> list[int]:
    return list(past.day_files(str(folder)))


def test_days_that_are_too_old_go_then_the_oldest_while_all_are_too_large(tmp_path: Path) -> None:
    for day in range(TODAY - 5, TODAY + 1):
        (tmp_path / f"flows-{past.day_name(day)}.db").write_bytes(b"x" * 1000)
    (tmp_path / f"flows-{past.day_name(TODAY - 3)}.db-wal").write_bytes(b"x" * 500)
    (tmp_path / "notes.txt").write_bytes(b"x" * 10_000)
    assert past.prune(str(tmp_path), 3.4, 1 << 30, NOON) == 4500
    assert days_of(tmp_path) == [TODAY - 3, TODAY - 2, TODAY - 1, TODAY]
    assert past.prune(str(tmp_path), 3.4, 3000, NOON) == 3000
    assert days_of(tmp_path) == [TODAY - 2, TODAY - 1, TODAY]
    assert not list(tmp_path.glob("*-wal"))
    assert past.prune(str(tmp_path), 1.0, 10, NOON) == 1000
    assert days_of(tmp_path) == [TODAY]
    assert (tmp_path / "notes.txt").exists()


def test_a_day_that_is_deleted_while_flows_of_it_are_open_does_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged = Logged(tmp_path / "log", monkeypatch, MIDNIGHT - 100)
    watched(logged, nat())
    logged.seconds(96)
    logged.clock += 3
    for _ in range(2):
        logged.poll()
    logged.clock += 1
    logged.poll()
    (_, messages), *rest = logged.wires[-1].frames()
    writer = logged.writer
    assert writer is not None
    writer.commit(logged.now)
    writer.let_go()
    past.prune(str(logged.folder), 30, 10, logged.now)
    for batch in (messages, *(said for _, said in rest)):
        for message in batch:
            writer.take(message)
    writer.commit(logged.now)
    assert days_of(logged.folder) == [TODAY + 1]
    assert [row["start"] for row in flow_rows(logged.folder)] == [MIDNIGHT - 100]
    logged.kill()


def test_health_says_how_far_back_it_reaches_and_which_option_says_so() -> None:
    plan = LogPlan("/var/log/flows", keep=30.0, size=2 << 30)
    state = LogState(plan, alive=NOON, since=NOON - 10 * DAY_SECONDS, bytes=1 << 30, pace=(1 << 30) / 10)
    assert "1.1G of 2.1G; at the present pace it keeps 20 days (--log-size)" in state.text()
    assert "keeps 30 days (--log-keep)" in LogState(plan, alive=NOON, since=NOON, bytes=1, pace=1.0).text()
    assert "nothing is written yet" in LogState(plan).text()


# --- damaged files ----------------------------------------------------------------------------------------------------


def overwrite_header(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(b"no database at all..")


def truncate(path: Path) -> None:
    with open(path, "r+b") as file:
        file.truncate(10_000)


def another_layout(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 77")


def middle_page(path: Path, table: str = "flow") -> None:
    """That it shows is a matter of when it is read."""
    with closing(sqlite3.connect(path)) as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    with open(path, "r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)


def of_two_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Logged:
    """A log with a flow of yesterday and one of today, which nobody writes now."""
    logged = Logged(tmp_path / "log", monkeypatch, NOON - DAY_SECONDS)
    watched(logged, nat())
    logged.close()
    logged.epoch += DAY_SECONDS
    logged.begin()
    watched(logged, nat(6, id=2))
    logged.close()
    return logged


@pytest.mark.parametrize("damage", [overwrite_header, truncate, another_layout, middle_page])
def test_a_damaged_file_is_set_aside_when_the_log_begins_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Any
) -> None:
    logged = of_two_days(tmp_path, monkeypatch)
    damage(logged.folder / TODAYS)
    logged.clock += 60
    logged.begin()
    watched(logged, nat(7, id=3))
    assert logged.writer is not None
    assert "set aside as" in logged.writer.set_aside
    assert len(list(logged.folder.glob(f"{TODAYS}.damaged-*"))) == 1
    assert [row["src"] for row in flow_rows(logged.folder)] == [INSIDE, "10.0.0.7"]
    assert "damaged" in " ".join(doubts_at(logged.folder, NOON + 1))
    assert "damaged" not in " ".join(doubts_at(logged.folder, NOON - DAY_SECONDS + 1))
    logged.kill()


def test_an_empty_file_is_begun_and_what_it_had_is_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed while it makes a file leaves an empty one, too."""
    logged = Logged(tmp_path / "log", monkeypatch, MIDNIGHT - 20)
    watched(logged)
    logged.seconds(40)
    logged.close()
    (logged.folder / f"flows-{past.day_name(TODAY + 1)}.db").write_bytes(b"")
    logged.clock += 10
    logged.begin()
    watched(logged)
    assert "not running" in " ".join(doubts_at(logged.folder, MIDNIGHT + 10))
    assert past.CUT_OFF in " ".join(doubts_at(logged.folder, MIDNIGHT - 10))  # their rows were in it
    logged.kill()


def test_damage_that_shows_while_it_is_written_sets_aside_that_file_alone(logged: Logged) -> None:
    logged.status.facts["acct"] = 0
    watched(logged, nat())
    writer = logged.writer
    assert writer is not None
    from flowlog import Damaged

    logged.tell("destroy", nat(6, id=2), (1, 1))
    logged.clock += 1
    logged.poll()
    for _, messages in logged.wires[-1].frames():
        for message in messages:
            writer.take(message)
    writer.set_aside_damaged(Damaged(TODAY, "database disk image is malformed"))
    logged.log._tell_all()
    logged.seconds(3)
    assert "malformed" in writer.set_aside
    assert [(row["src"], row["reason"]) for row in flow_rows(logged.folder)] == [(INSIDE, "open")]
    reasons = [gap[2] for gap in gap_rows(logged.folder)]
    assert sorted(reasons) == sorted(
        [past.UNCOUNTED, f"the file of {past.day_name(TODAY)} was damaged and is set aside"]
    )
    logged.tell("destroy", nat(), (70, 70))
    logged.seconds(3)
    assert usage(logged.folder) == (1, 70, 70)


def test_a_damaged_page_shows_at_a_commit(logged: Logged) -> None:
    from flowlog import Damaged

    watched(logged, nat())
    logged.close()
    middle_page(logged.folder / TODAYS, "total")  # which nobody reads before something is added
    logged.begin()
    watched(logged, nat())
    logged.tell("destroy", nat(), (1, 1))
    with pytest.raises(Damaged, match="malformed") as raised:
        logged.seconds(3)
    assert raised.value.day == TODAY


def test_a_file_that_is_removed_is_begun_anew(logged: Logged) -> None:
    watched(logged, nat())
    writer = logged.writer
    assert writer is not None
    shutil.rmtree(logged.folder)
    with pytest.raises(FileNotFoundError):
        writer.commit(logged.now)
    logged.folder.mkdir(mode=0o700)
    logged.log._tell_all()
    logged.seconds(3)
    assert [row["reason"] for row in flow_rows(logged.folder)] == ["open"]
    (gap,) = gap_rows(logged.folder)
    assert gap[2].endswith("was removed")
    assert "removed" in writer.set_aside


# --- the folder -------------------------------------------------------------------------------------------------------


def refusal(folder: Path) -> Refused:
    with pytest.raises(Refused) as raised:
        past.make_folder(str(folder))
    return raised.value


def test_the_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    before = os.umask(0)
    try:
        past.make_folder(str(folder))
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    past.make_folder(str(folder))


def test_a_folder_that_others_can_look_into_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    for mode in (0o755, 0o710, 0o704):
        folder.chmod(mode)
        found = refusal(folder)
        assert "other users can read" in found.what
        assert found.cure == f"chmod 700 {folder}"


def test_a_symbolic_link_is_refused_and_the_folder_behind_it_named(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    found = refusal(tmp_path / "link")
    assert "symbolic link" in found.what
    assert found.cure == f"--log {tmp_path / 'real'}"


def test_a_file_and_a_missing_parent_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "is not a directory" in refusal(tmp_path / "file").what
    found = refusal(tmp_path / "a" / "b")
    assert "parent folder does not exist" in found.what
    assert found.cure == f"mkdir -p {tmp_path / 'a'}"


@needs_kernel  # root
def test_another_users_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, 65534)
    assert "belongs to nobody, and this is root" in refusal(folder).what


def test_the_second_that_wants_to_write_hears_who_holds_it(tmp_path: Path) -> None:
    lock = past.hold(str(tmp_path))
    with pytest.raises(Refused) as raised:
        past.hold(str(tmp_path))
    assert raised.value.holder == os.getpid()
    assert f"process {os.getpid()} is already writing {tmp_path}" in raised.value.what
    assert stat.S_IMODE((tmp_path / past.LOCK).stat().st_mode) == 0o600
    os.close(lock)
    os.close(past.hold(str(tmp_path)))


def test_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / past.LOCK).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refused):
        past.hold(str(tmp_path))
    assert not (tmp_path / "elsewhere").exists()


def test_a_lock_that_was_removed_or_replaced_holds_no_longer(tmp_path: Path) -> None:
    lock = past.hold(str(tmp_path))
    assert past.still_holds(str(tmp_path), lock)
    (tmp_path / past.LOCK).unlink()
    assert not past.still_holds(str(tmp_path), lock)
    (tmp_path / past.LOCK).touch()
    assert not past.still_holds(str(tmp_path), lock)
    os.close(lock)


# --- asking -----------------------------------------------------------------------------------------------------------


def test_a_file_that_cannot_be_read_is_named_and_the_others_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged = of_two_days(tmp_path, monkeypatch)
    overwrite_header(logged.folder / TODAYS)
    asked = answer(logged.folder, WAN, NOON - DAY_SECONDS + 1)
    assert [flow.src for flow in asked.flows] == [INSIDE]
    text = past.completeness(Question(WAN, None, None, NOON - DAY_SECONDS + 1, 1.0), asked.extent)
    assert f"{TODAYS} can't be read: file is not a database" in text
    another = logged.folder / "flows-2026-11-20.db"
    shutil.copy(logged.folder / f"flows-{past.day_name(TODAY - 1)}.db", another)
    another_layout(another)
    assert answer(logged.folder, WAN, NOON).extent.unreadable[TODAY - 7].endswith("another version of this program")


def test_a_folder_without_files_and_no_folder(tmp_path: Path) -> None:
    assert doubts_at(tmp_path, NOON) == ["the log has no readable file"]
    with pytest.raises(FileNotFoundError):
        answer(tmp_path / "none", WAN, NOON)


def test_an_answer_in_json_and_csv(logged: Logged) -> None:
    watched(logged)
    logged.tell("destroy", nat(), (10, 20))
    ended = logged.now
    logged.seconds(3)
    logged.close()
    question = Question(WAN, 40000, "tcp", ended, INSTANT)
    found = past.who(str(logged.folder), question)
    flow, last = list(past.answer_items(question, found))
    assert json.loads(json.dumps(flow))["src"] == INSIDE
    assert "state" not in flow  # unknown is a missing key
    assert (last["complete"], last["gaps"]) == (True, [])
    head, row = list(past.answer_rows(found))
    assert dict(zip(head, row, strict=True))["bytes_reply"] == 20


def test_an_answer_says_when_nobody_had_it(logged: Logged) -> None:
    watched(logged)
    logged.close()
    question = Question("203.0.113.99", None, None, logged.now - 1, 1.0)
    text = past.answer_text(question, past.who(str(logged.folder), question))
    assert "no flow had it" in text
    assert "The log is complete for that moment" in text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("203.0.113.1", ("203.0.113.1", None, None)),
        ("203.0.113.1:443", ("203.0.113.1", 443, None)),
        ("203.0.113.1:443/tcp", ("203.0.113.1", 443, "tcp")),
        ("203.0.113.1/udp", ("203.0.113.1", None, "udp")),
        ("2001:DB8:0::1", ("2001:db8::1", None, None)),
        ("[2001:db8::1]:65535/udp", ("2001:db8::1", 65535, "udp")),
        (" [2001:db8::1] ", ("2001:db8::1", None, None)),
    ],
)
def test_what_is_asked_about(text: str, wanted: tuple[str, int | None, str | None]) -> None:
    assert past.asked_of(text) == wanted


@pytest.mark.parametrize(
    "text", ["", "203.0.113.1:65536", "203.0.113", "203.0.113.1:", "[203.0.113.1", "example.org", "1:2"]
)
def test_what_is_no_address_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not an address: 203\.0\.113\.1"):
        past.asked_of(text)


@pytest.mark.usefixtures("_utc")
@pytest.mark.parametrize(
    ("text", "begins", "length"),
    [
        ("2026-11-27T12:00:30Z", NOON + 30, 1.0),
        ("2026-11-27 12:00", NOON, 60.0),
        ("2026-11-27_12:00:30.25", NOON + 30.25, INSTANT),
        ("2026-11-27T13:00:30+01:00", NOON + 30, 1.0),
        ("2026-11-27T06:30:30-0530", NOON + 30, 1.0),
        ("11:59", NOON - 60, 60.0),
        ("12:00:00", NOON, 1.0),
        ("12:01", NOON + 60 - DAY_SECONDS, 60.0),
    ],
)
def test_a_time_that_somebody_types(text: str, begins: float, length: float) -> None:
    assert past.time_of(text, NOON + 30) == (begins, length)


@pytest.mark.parametrize("text", ["", "noon", "25:00", "12:61", "2026-13-01T00:00", "2026-11-27", "99999-01-01T00:00"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time: 2026-11-24T14:02:30"):
        past.time_of(text, NOON)


# --- a history, second by second --------------------------------------------------------------------------------------

HOSTS, PORTS = (5, 6, 7), (40000, 40001)
STEPS = st.one_of(
    st.tuples(st.just("begin"), st.integers(0, 2), st.integers(0, 1)),
    st.tuples(st.just("begin"), st.integers(0, 2), st.integers(0, 1)),
    st.tuples(st.sampled_from(["end", "vanish"]), st.integers(0, 3), st.just(0)),
    st.tuples(st.just("wait"), st.sampled_from([1, 2, 5, 61, 130]), st.just(0)),
    st.tuples(st.sampled_from(["list", "kill", "close"]), st.integers(1, 20), st.just(0)),
)


class Truth:
    """What really happened: who had which port, and from when to when."""

    def __init__(self) -> None:
        self.live: dict[int, tuple[Conn, float]] = {}  # by its port
        self.over: list[tuple[Conn, float, float]] = []
        self.unheard: set[int] = set()  # ports of flows whose end the kernel does not tell

    def of(self, port: int, at: float) -> str | None:
        """The host that had it."""
        spans = [*self.over, *((conn, begun, float("inf")) for conn, begun in self.live.values())]
        return next((c.src for c, since, until in spans if c.wan == (WAN, port) and since < at < until), None)

    def moved(self, begun: float, at: float) -> tuple[int, int]:
        return 10 * round(at - begun + 1), 20 * round(at - begun + 1)


def act(logged: Logged, truth: Truth, step: tuple[str, int, int]) -> None:
    what, number, which = step
    if what == "begin" and PORTS[which] not in truth.live:
        conn = nat(HOSTS[number], 1000 + which, PORTS[which], id=round(logged.clock))
        truth.live[PORTS[which]] = conn, logged.now
        logged.tell("new", conn)
    elif what in ("end", "vanish") and truth.live:
        port = sorted(truth.live)[number % len(truth.live)]
        conn, begun = truth.live.pop(port)
        truth.over.append((conn, begun, logged.now))
        if what == "end" and port not in truth.unheard:
            logged.tell("destroy", conn, truth.moved(begun, logged.now))
        truth.unheard.discard(port)
    elif what == "list":
        logged.list(*((conn, truth.moved(begun, logged.now)) for conn, begun in truth.live.values()))
    elif what == "wait":
        logged.seconds(number)
    elif what in ("kill", "close"):
        logged.close() if what == "close" else logged.kill()
        logged.clock += number
        truth.unheard = set(truth.live)  # older than who listens
        logged.begin()
        act(logged, truth, ("list", 0, 0))


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEPS, min_size=5, max_size=25), st.integers(0, 300), st.data())
def test_who_is_right_at_every_second_or_says_that_the_log_lacks_it(
    steps: list[tuple[str, int, int]], before_midnight: int, data: st.DataObject
) -> None:
    """Never a wrong host. Where the log says that it is complete, the right one."""
    with tempfile.TemporaryDirectory(dir=quick_folder()) as folder, pytest.MonkeyPatch.context() as patch:
        logged, truth = Logged(Path(folder) / "log", patch, MIDNIGHT - before_midnight), Truth()
        begun = logged.now
        logged.list()
        for step in steps:
            act(logged, truth, step)
            logged.seconds(1)
        act(logged, truth, ("list", 0, 0))
        logged.seconds(2)
        logged.close()
        changes = [moment for _, since, until in truth.over for moment in (since, until)]
        moments = st.one_of(st.floats(begun, logged.now), *([st.sampled_from(changes)] if changes else []))
        for _ in range(8):
            at = data.draw(moments) + data.draw(st.sampled_from([-0.5, 0.25, 0.5, 1.5]))
            for port in PORTS:
                question = Question(WAN, port, None, at, INSTANT)
                found = past.who(str(logged.folder), question)
                named, right = {flow.src for flow in found.flows}, truth.of(port, at)
                why = past.doubts(question, found.extent)
                assert not (right and named - {right}), (at - begun, port, named, right)
                assert why or right is None or named == {right}, (at - begun, port, named, right)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEPS, min_size=3, max_size=20), st.integers(0, 300))
def test_the_sums_of_all_hours_are_what_the_flows_moved(
    steps: list[tuple[str, int, int]], before_midnight: int
) -> None:
    """At each moment, over restarts and midnights; of flows that ended while nobody looked, as much as was counted."""
    with tempfile.TemporaryDirectory(dir=quick_folder()) as folder, pytest.MonkeyPatch.context() as patch:
        logged, truth = Logged(Path(folder) / "log", patch, MIDNIGHT - before_midnight), Truth()
        logged.list()
        for step in steps:
            act(logged, truth, step)
            logged.seconds(1)
            assert usage(logged.folder) == sums_of_rows(logged.folder)
        logged.close()
        assert usage(logged.folder) == sums_of_rows(logged.folder)


def sums_of_rows(folder: Path) -> tuple[int, int, int]:
    found = flow_rows(folder)
    there, back = (sum(row[name] or 0 for row in found) for name in ("bytes_original", "bytes_reply"))
    return len(found), back, there
