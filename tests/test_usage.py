"""What the flow log is asked beside --who: usage, what the NAT view searches, what was seen first; and its quick way."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import flowlog
import past
from addresses import Context, Lookups, Named
from filters import asked_moment, compile_filter, shown_as
from flows import Flow, FlowTable
from grouping import COUNTRY, FAR, NEAR, SERVICE, Baseline, UsageRow, usage_columns, usage_object, usage_row
from live import logged_flow
from parse import split_lines
from past import DAY_SECONDS, FirstSeen, Search, known_before, near_of, search, since_of
from support.kernel import Namespace, insert, needs_kernel
from support.logs import INSIDE, MIDNIGHT, NOON, SERVER, WAN, Conn, Logged, nat, quick_folder, rows, usage, where_of
from support.program import OnScreen, inside
from support.terminal import PROGRAM

HOUR = 3600.0


@pytest.fixture
def logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Logged]:
    made = Logged(tmp_path / "log", monkeypatch)
    made.list()
    made.seconds(3)  # the writer has been started
    yield made
    made.kill()


def passes(logged: Logged, conn: Conn, moved: tuple[int, int]) -> None:
    """A connection begins and ends within a second, and is written."""
    logged.tell("new", conn)
    logged.tell("destroy", conn, moved)
    logged.seconds(8)


# --- the quick way ----------------------------------------------------------------------------------------------------

CONNS = st.builds(
    Conn,
    src=st.sampled_from([INSIDE, "10.0.0.6", SERVER, WAN, "2001:db8::1"]),
    sport=st.sampled_from([1, 1000, 65535]),
    dst=st.sampled_from([SERVER, INSIDE, "9.9.9.9", "2001:db8::2", WAN]),
    dport=st.sampled_from([53, 443, 1000]),
    wan=st.sampled_from([None, (WAN, 40000), (WAN, 1000), (SERVER, 1)]),
    to=st.sampled_from([None, ("10.0.0.9", 80), (SERVER, 443)]),
    id=st.sampled_from([None, 7]),
    protocol=st.sampled_from(["tcp", "udp"]),
    more=st.sampled_from(["mark=0", "mark=4294967295", "mark=7 zone=3", "mark=0 [USERSPACE] portid=7 progname=a b"]),
).filter(lambda conn: all(split_lines(conn.line(event) + b"\n")[0] for event in ("", "new", "destroy")))
MOVED = st.sampled_from([None, (0, 0), (500, 70), (1 << 63, 10)])


Steps = list[tuple[Conn, tuple[int, int] | None, int]]


def told(folder: Path, steps: Steps, patch: pytest.MonkeyPatch, *, killed: bool = False) -> list[Any]:
    """What the log says of connections that begin and end; between the two some are listed.

    ``killed``: and what it says after the writer was killed, and another one took up what was not in the sums yet.
    """
    logged = Logged(folder, patch)
    logged.list()
    logged.seconds(3)
    for conn, moved, waits in steps:
        logged.tell("new", conn)
        if waits:
            logged.seconds(waits)
            logged.list((conn, moved) if moved else conn)
        logged.tell("destroy", conn, moved)
    logged.seconds(8)
    if killed:
        logged.kill()
        logged.begin()
        logged.list()
        logged.seconds(3)
        assert rows(folder, "SELECT * FROM unsummed") == []
    logged.close()
    views = ("SELECT * FROM flow_log", "SELECT * FROM usage_log", "SELECT * FROM label")
    found = [sorted(map(str, rows(folder, view))) for view in views]
    return found + [by_sort(folder, sort, near) for sort in SORTS for near in ("", INSIDE)]


SORTS = ("host", "country", "network", "service")


def by_sort(folder: Path, sort: str, near: str = "") -> list[UsageRow]:
    """What is found out of the sums that are kept for each way to ask."""
    return sorted(past.usage(str(folder), sort, NOON - HOUR, NOON + 12 * HOUR, near).rows, key=str)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(CONNS, MOVED, st.sampled_from([0, 0, 0, 3])), min_size=1, max_size=6))
@example([(nat(), (500, 70), 0), (nat(6, port=40001), None, 3)])
@example([(Conn(SERVER, 443, WAN, 8080, to=(INSIDE, 80)), (1, 2), 0)])
def test_the_quick_way_of_flows_that_are_over_says_what_the_other_says(steps: Steps) -> None:
    """Before their bytes are in the sums, when they are, and when a new writer has put them there."""
    import tempfile

    with tempfile.TemporaryDirectory(dir=quick_folder()) as folder, pytest.MonkeyPatch.context() as patch:
        quick = told(Path(folder) / "quick", steps, patch)
        taken_up = told(Path(folder) / "taken-up", steps, patch, killed=True)
        patch.setattr(past, "SUM_EVERY", 0.0)
        summed = told(Path(folder) / "summed", steps, patch)
        patch.setattr(flowlog, "WITH_PORTS", frozenset())
        slow = told(Path(folder) / "slow", steps, patch)
    assert quick == slow
    assert summed == slow
    assert taken_up == slow


def test_an_end_that_a_listing_told_before_the_kernel_is_told_once(logged: Logged) -> None:
    """Its DESTROY waits to be read while a listing shows that it is gone: one row, and the bytes of the DESTROY once."""
    for counted in (nat(5, port=40_001, id=1), nat(6, port=40_002, id=None)):
        logged.tell("new", counted)
        logged.seconds(3)
        logged.list((counted, (10, 20)))
        logged.seconds(3)
        logged.list()
        logged.seconds(3)
        logged.tell("destroy", counted, (100, 2_000))
        logged.seconds(3)
    logged.tell("destroy", nat(5, port=40_001, id=2), (1, 1))  # of another flow of that tuple
    logged.seconds(3)
    logged.close()
    found = [
        (row["src"], row["reason"], row["bytes_original"], row["bytes_reply"])
        for row in rows(logged.folder, "SELECT * FROM flow_log")
    ]
    assert sorted(found) == [
        (INSIDE, "destroy", 1, 1),
        (INSIDE, "destroy", 100, 2_000),
        ("10.0.0.6", "destroy", 100, 2_000),
    ]
    assert usage(logged.folder) == (3, 4_001, 201)


def test_most_flows_take_the_quick_way(logged: Logged, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    real = flowlog.Writer.take
    monkeypatch.setattr(
        flowlog.Writer,
        "take",
        lambda self, message: taken.append(message[0]) or real(self, message),  # type: ignore[func-returns-value]
    )
    for number in range(5):
        passes(logged, nat(number + 1, port=40_000 + number), (100, 200))
    assert taken.count(flowlog.ALL_ENDED) == 5
    assert flowlog.ENDED not in taken


# --- sums that come later than their rows -----------------------------------------------------------------------------


def unsummed(logged: Logged) -> int:
    """Flows whose bytes are not in the sums yet."""
    return sum(row["flows"] for row in rows(logged.folder, "SELECT flows FROM unsummed"))


def test_rows_go_into_the_sums_once_a_minute_and_are_in_the_answers_at_once(logged: Logged) -> None:
    passes(logged, nat(), (100, 200))
    assert (unsummed(logged), usage(logged.folder)) == (1, (1, 200, 100))
    before = [by_sort(logged.folder, sort, near) for sort in SORTS for near in ("", INSIDE)]
    assert all(row.span == (200, 100) for found in before for row in found)
    logged.seconds(61)
    assert (unsummed(logged), usage(logged.folder)) == (0, (1, 200, 100))
    assert [by_sort(logged.folder, sort, near) for sort in SORTS for near in ("", INSIDE)] == before
    passes(logged, nat(), (1, 2))
    assert (unsummed(logged), usage(logged.folder)) == (1, (2, 202, 101))
    assert len(rows(logged.folder, "SELECT * FROM usage_log")) == 1


def test_many_rows_and_those_of_a_day_that_is_over_go_into_the_sums_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past, "MOST_UNSUMMED", 3)
    logged = Logged(tmp_path / "log", monkeypatch, MIDNIGHT - 30)
    logged.list()
    logged.seconds(3)
    for number, waiting in enumerate((1, 2, 0, 1)):
        passes(logged, nat(5, 1000 + number), (1, 1))
        assert unsummed(logged) == waiting
        logged.clock -= 7
    logged.seconds(45)
    assert unsummed(logged) == 0
    assert usage(logged.folder) == (4, 4, 4)
    logged.kill()


@pytest.mark.parametrize("at", ["before", "behind"])
def test_a_commit_that_fails_takes_its_sums_back(logged: Logged, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    passes(logged, nat(), (100, 200))
    real = past.DayFile._sum_up

    def full(self: past.DayFile, *rest: Any) -> None:
        if at == "behind":
            real(self, *rest)
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(past.DayFile, "_sum_up", full)
    logged.tell("new", nat(6))
    logged.tell("destroy", nat(6), (1, 2))
    logged.clock += 61
    for _ in range(2):
        logged.clock += 1
        logged.poll()
        with pytest.raises(sqlite3.OperationalError):
            logged.write()
    assert usage(logged.folder) == (1, 200, 100)
    monkeypatch.setattr(past.DayFile, "_sum_up", real)
    logged.seconds(2)
    assert (unsummed(logged), usage(logged.folder)) == (0, (2, 202, 101))


def test_rows_that_were_given_up_are_in_no_sum_and_those_in_the_file_are(logged: Logged) -> None:
    passes(logged, nat(), (100, 200))
    logged.tell("new", nat(6))
    logged.tell("destroy", nat(6), (1, 2))
    logged.clock += 2
    logged.poll()
    writer = logged.writer
    assert writer is not None
    for _, messages in logged.wires[-1].frames():
        for message in messages:
            writer.take(message)
    writer.give_up()
    for _ in range(2):
        logged.seconds(61)
        assert (unsummed(logged), usage(logged.folder)) == (0, (1, 200, 100))


def test_who_asks_while_rows_go_into_the_sums_gets_each_once(logged: Logged, monkeypatch: pytest.MonkeyPatch) -> None:
    passes(logged, nat(), (100, 200))
    real = past._moved_in

    def slowly(*asked: Any) -> Iterator[tuple[Any, ...]]:
        for row in real(*asked):
            logged.seconds(61)
            assert unsummed(logged) == 0
            yield row

    monkeypatch.setattr(past, "_moved_in", slowly)
    assert [row.span for row in by_sort(logged.folder, "host")] == [(200, 100)]


def test_a_row_is_in_the_sums_where_the_one_before_it_was_deleted(logged: Logged) -> None:
    """The last row moves to another day's file, and the writer is killed: the next row has not been in any sum."""
    passes(logged, nat(), (1, 2))
    logged.tell("new", nat(6))
    logged.seconds(200)  # it is open, and in the last row
    (last,) = rows(logged.folder, "SELECT max(id) AS id, (SELECT summed FROM about) AS summed FROM flow")
    assert last["id"] == last["summed"] == 2
    assert logged.writer is not None
    logged.writer.file(past.day_of(logged.now)).drop(2)
    logged.seconds(1)
    logged.kill()
    logged.begin()
    logged.list()
    logged.seconds(3)
    passes(logged, nat(7), (100, 200))
    assert unsummed(logged) == 1


# --- usage ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_utc")
def test_usage_by_host_country_network_and_service(logged: Logged) -> None:
    logged.names.take("leases", [(INSIDE, Named("laptop"))])
    passes(logged, nat(5, port=40_001), (100, 2_000))
    passes(logged, nat(6, port=40_002, dport=80), (10, 30))
    passes(logged, Conn("10.0.0.6", 7, "192.0.2.9", 53, protocol="udp"), (1, 2))
    logged.close()
    now, folder = logged.now, str(logged.folder)

    def of(sort: str, near: str = "") -> dict[str, tuple[int, tuple[int | None, int | None]]]:
        return {row.key: (row.flows, row.span) for row in past.usage(folder, sort, now - HOUR, now, near).rows}

    assert of("host") == {INSIDE: (1, (2_000, 100)), "10.0.0.6": (2, (32, 11))}
    assert of("country") == {"DE": (2, (2_030, 110)), "": (1, (2, 1))}
    assert of("network") == {"64500": (2, (2_030, 110)), "": (1, (2, 1))}
    assert of("service") == {"tcp/443": (1, (2_000, 100)), "tcp/80": (1, (30, 10)), "udp/53": (1, (2, 1))}
    assert of("country", "10.0.0.6") == {"DE": (1, (30, 10)), "": (1, (2, 1))}
    assert of("network", "10.0.0.6") == {"64500": (1, (30, 10)), "": (1, (2, 1))}
    assert of("service", INSIDE) == {"tcp/443": (1, (2_000, 100))}
    assert of("service", "10.9.9.9") == {}
    found = past.usage(folder, "country", now - HOUR, now)
    assert {row.key: row.label for row in found.rows} == {"DE": "Germany", "": ""}
    assert (found.total.flows, found.total.span) == (3, (2_032, 111))


@pytest.mark.usefixtures("_utc")
def test_days_weeks_and_bars(logged: Logged) -> None:
    """A connection at noon every day, of as many bytes as days have passed; the last one today."""
    for day in range(41):
        passes(logged, nat(5, port=40_000 + day), (0, 10 * (41 - day)))
        logged.clock += DAY_SECONDS - 11.0
        logged.kill()
        logged.begin()
        logged.list()
        logged.seconds(3)
    logged.close()
    now = NOON + 40 * DAY_SECONDS + HOUR
    found = past.usage(str(logged.folder), "host", now - 7 * DAY_SECONDS, now)
    (row,) = found.rows
    assert found.per_day
    assert row.today == (10, 0)
    assert row.week == (10 * sum(range(2, 9)), 0)
    assert row.month == (10 * sum(range(2, 32)), 0)
    assert row.span == (10 * sum(range(1, 8)), 0)  # the flow of seven days ago was an hour before that
    assert row.slots == (None, *(10 * days for days in range(7, 0, -1)))
    by_hour = past.usage(str(logged.folder), "host", now - 48 * HOUR, now)
    assert not by_hour.per_day
    (row,) = by_hour.rows
    assert [at for at, value in enumerate(row.slots) if value is not None] == [23, 47]
    assert len(row.slots) == 49


def test_what_the_log_lacks_is_said_with_usage(logged: Logged) -> None:
    passes(logged, nat(), (1, 2))
    logged.kill()
    logged.clock += 7200.0
    logged.begin()
    logged.list()
    logged.seconds(3)
    logged.close()
    since = logged.now - 30 * DAY_SECONDS
    remarks = past.usage(str(logged.folder), "host", since, logged.now).remarks
    assert [remark.partition(",")[0].partition(" in all")[0] for remark in remarks][1:2] == ["2 gaps of 2.0h"]
    assert remarks[0].startswith("the log begins later, on ")
    assert remarks[-1].startswith("nothing writes to it now; it was last written on ")


def test_bytes_that_nothing_counted_are_unknown(logged: Logged) -> None:
    logged.tell("new", nat())
    logged.tell("destroy", nat())
    logged.seconds(8)
    logged.close()
    (row,) = past.usage(str(logged.folder), "host", logged.now - HOUR, logged.now).rows
    assert (row.flows, row.span, row.size, set(row.slots)) == (1, (None, None), None, {None})
    assert usage_object(row, "host", per_day=False) == {"host": INSIDE, "flows": 1, "hours": [None, None]}


@pytest.mark.parametrize("sort", ["host", "country", "network", "service"])
def test_an_object_of_usage_is_the_row_again(sort: str) -> None:
    key = "64500" if sort == "network" else "x"
    row = UsageRow(key, "name", 7, (1, None), (None, 2), (3, 4), (None, None), (1, None, 3))
    item = json.loads(json.dumps(usage_object(row, sort, per_day=True)))
    assert usage_row(item, sort) == row
    assert set(item) <= set(usage_columns(sort))
    nobody = UsageRow("", "", 0, (0, 0), (0, 0), (0, 0), (0, 0), ())
    assert usage_row(usage_object(nobody, sort, per_day=False), sort) == nobody
    for broken in ({}, {**item, "flows": "7"}, {**item, "days": 7}, {**item, "days": ["x"]}, {**item, "bytes_in": "x"}):
        with pytest.raises((KeyError, ValueError, TypeError)):
            usage_row(broken, sort)


def test_spans_and_hosts_that_people_type() -> None:
    now = 1_000_000_000.0
    assert [now - since_of(text, now) for text in ("12h", "7d", "2W")] == [43_200, 604_800, 1_209_600]
    assert since_of("2001-09-09T01:46:40Z", now) == 1_000_000_000
    assert near_of("") == ""
    assert near_of(" near:10.0.0.5 ") == "10.0.0.5"
    assert near_of("near:[2001:DB8::0:1]") == near_of("near:2001:db8::1") == "2001:db8::1"
    for wrong in ("7", "d", "7x", "-1d", "yesterday", ""):
        with pytest.raises(ValueError, match="is not a span"):
            since_of(wrong, now)
    for wrong in ("near:10.0.0.0/8", "port:443", "near:10.0.0.5 port:443", "near:1.2.3", "!near:10.0.0.5"):
        with pytest.raises(ValueError, match="usage can only be filtered by"):
            near_of(wrong)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "TZ": "UTC", "COLUMNS": "200"}
    argv = [*PROGRAM, "--no-config", *words]
    return subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False, env=env
    )


def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Logged:
    """A log that was written until now."""
    logged = Logged(tmp_path / "log", monkeypatch, time.time() - 60.0)
    logged.names.take("leases", [(INSIDE, Named("laptop"))])
    logged.list()
    logged.seconds(3)
    passes(logged, nat(5, port=40_001), (100, 2_000))
    passes(logged, nat(6, port=40_002), (10, 30))
    logged.close()
    return logged


def test_the_command_that_prints_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(fresh(tmp_path, monkeypatch).folder)
    words = ("--once", "--view", "usage", "--log", folder)
    text = run(*words)
    assert text.returncode == 0
    lines = text.stdout.splitlines()
    assert [line.split()[:4] for line in lines] == [
        *(["HOST", "BYTES", "RX", "TX"], ["laptop", "2.1k", "2.0k", "100"], ["10.0.0.6", "40", "30", "10"]),
        ["all", "2.1k", "2.0k", "110"],
    ]
    assert "the log begins later" in text.stderr
    objects = [json.loads(line) for line in run(*words, "--json", "--since", "7d", "--reverse").stdout.splitlines()]
    assert [(item["host"], item["bytes_in"], item["flows"]) for item in objects] == [
        ("10.0.0.6", 30, 1),
        (INSIDE, 2_000, 1),
    ]
    assert all(len(item["days"]) == 8 for item in objects)
    head, *table = run(*words, "--csv", "--limit", "1", "--sort", "out").stdout.splitlines()
    assert head.split(",")[:5] == ["host", "name", "flows", "bytes_in", "bytes_out"]
    assert [line.split(",")[:5] for line in table] == [[INSIDE, "laptop", "1", "2000", "100"]]
    one = run("--once", "--view", "usage-countries", "--log", folder, "-f", "near:10.0.0.6", "--json")
    assert [json.loads(line)["country"] for line in one.stdout.splitlines()] == ["DE"]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--once", "--view", "usage"], 2, "use --log DIR"),
        (["--once", "--view", "usage", "--log", "/nowhere"], 1, "there is no flow log to read: /nowhere"),
        (["--once", "--view", "usage", "--log", "/nowhere", "--since", "x"], 2, "'x' is not a span"),
        (
            ["--once", "--view", "usage", "--log", "/nowhere", "-f", "port:1"],
            2,
            "usage can only be filtered by one host",
        ),
        (["--once", "--view", "hosts", "--since", "7d"], 2, "--since requires --view usage"),
        (["--json", "--log", "/nowhere", "--replay", "/dev/null"], 2, "--log records live traffic"),
        (["--headless"], 2, "requires --log DIR"),
        (["--at", "14:02"], 2, "--at requires --who"),
    ],
)
def test_what_is_asked_wrongly_is_told(words: list[str], status: int, said: str) -> None:
    done = run(*words)
    assert (done.returncode, done.stdout) == (status, "")
    assert said in " ".join(done.stderr.split())


# --- what the NAT view searches ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("wan:203.0.113.1", ("203.0.113.1", None)),
        ("wan:203.0.113.1:80", ("203.0.113.1", 80)),
        ("proto:tcp wan:[2001:db8::1]:443 at:14:02", ("2001:db8::1", 443)),
        ("WAN:203.0.113.1 (port:80)", ("203.0.113.1", None)),
        *[(text, None) for text in ("", "port:80", "!wan:203.0.113.1", "not wan:203.0.113.1", "wan:203.0.113.0/24")],
        *[
            (text, None)
            for text in ("wan:203.0.113.1 or port:80", "wan:1.1.1.1 wan:2.2.2.2", "wan:1.1.1.1,2.2.2.2", "wan:")
        ],
    ],
)
def test_the_address_that_each_flow_must_have_been_shown_as(text: str, wanted: object) -> None:
    assert shown_as(text) == wanted


def test_the_time_at_which_each_flow_must_have_been_there() -> None:
    now = time.time()
    begins, length = asked_moment("wan:1.1.1.1 at:2026-11-24T14:02", now) or (0.0, 0)
    assert (time.strftime("%F %T", time.localtime(begins)), length) == ("2026-11-24 14:02:00", 60)
    assert (asked_moment("at:2026-11-24T14:02:30", now) or (0, 0))[1] == 1
    for text in ("", "at:x", "!at:14:02", "at:14:02 or at:15:00", "at:14:02 at:15:00", "at:9999999-11-11T14:02"):
        assert asked_moment(text, now) is None


def test_the_search_finds_translated_flows_the_newest_first(logged: Logged) -> None:
    ends = []
    for number, conn in enumerate(
        [nat(5), nat(6), nat(7, port=40_001), Conn(), Conn(SERVER, 443, WAN, 8080, to=(INSIDE, 80))]
    ):
        passes(logged, conn._replace(id=number), (100, 200))
        ends.append(logged.now - 8.0)
    logged.close()

    def found(*asked: Any) -> list[tuple[str, int | None]]:
        return [(flow.src, flow.reply_dport) for flow in search(str(logged.folder), Search(*asked)).flows]

    first, second, third, _, forwarded = (
        (INSIDE, 40_000),
        ("10.0.0.6", 40_000),
        ("10.0.0.7", 40_001),
        None,
        (SERVER, 443),
    )
    assert found(WAN, 40_000, None) == [second, first]
    assert found(WAN, None, None) == [forwarded, third, second, first]
    assert found(WAN, 8080, None) == [forwarded]
    assert found(None, None, ends[0] - 0.5, 1.0) == [first]
    assert found(WAN, 40_000, ends[1] - 0.5, 1.0) == [second]
    assert found("192.0.2.77", None, None) == found(WAN, 40_000, ends[4] + 1.0, 1.0) == []
    assert past.extent_text(search(str(logged.folder), Search(WAN, None, None)).extent).startswith("log since ")


@pytest.mark.parametrize(
    "conn",
    [
        *(nat(), nat(more="mark=7"), Conn(SERVER, 443, WAN, 8080, to=(INSIDE, 80)), nat(protocol="udp")),
        Conn("2001:db8:1::5", 1, "2001:db8:2::7", 443, wan=("2001:db8::9", 2)),
    ],
)
def test_a_flow_of_the_log_is_what_it_was(logged: Logged, conn: Conn) -> None:
    logged.tell("new", conn)
    born = logged.now
    logged.seconds(3)
    logged.tell("destroy", conn, (500, 700))
    ended = logged.now
    was = logged.table.past[-1]
    logged.seconds(8)
    logged.close()
    (found,) = search(str(logged.folder), Search(None, None, None)).flows
    flow = logged_flow(json.loads(json.dumps(found._asdict())), logged.epoch)
    assert flow.ends() == was.ends()
    assert (flow.kind.number, flow.kind.protocol, flow.state, flow.family) == (
        was.kind.number,
        was.kind.protocol,
        was.state,
        was.family,
    )
    assert (flow.counts(), flow.mark(), flow.key) == (was.counts(), was.mark(), was.key)
    assert flow.exact
    assert flow.born + logged.epoch == pytest.approx(born)
    assert (flow.ended or 0) + logged.epoch == pytest.approx(ended)
    wanted = compile_filter(f"wan:[{found.reply_dst}]:{found.reply_dport}", Context(Lookups(where=where_of)))
    assert wanted is not None
    assert wanted(flow) == ("snat" in (found.nat or ""))


# --- what is new ------------------------------------------------------------------------------------------------------


def test_what_is_seen_first_is_kept(tmp_path: Path) -> None:
    seen = FirstSeen(str(tmp_path))
    seen.learn([("host", "10.0.0.5"), ("country", "DE"), ("country", "")], 100.0)
    seen.learn([("host", "10.0.0.5"), ("host", "10.0.0.6")], 200.0)
    seen.close()
    again = FirstSeen(str(tmp_path))
    again.learn([("host", "10.0.0.6"), ("service", "tcp/443")], 300.0)
    again.close()
    assert known_before(str(tmp_path), 199.0) == (100.0, [("country", "DE"), ("host", "10.0.0.5")])
    assert len(known_before(str(tmp_path), 300.0)[1]) == 4
    assert known_before(str(tmp_path / "nowhere"), 300.0) == (None, [])
    Path(again.path).write_bytes(b"no database at all, and longer than a header of SQLite is" * 40)
    anew = FirstSeen(str(tmp_path))
    anew.learn([("host", "10.0.0.5")], 400.0)
    anew.close()
    assert known_before(str(tmp_path), 400.0) == (400.0, [("host", "10.0.0.5")])
    assert [path.name.partition(".damaged-")[0] for path in tmp_path.glob("*damaged*")] == ["first-seen.db"]


def test_the_writer_notes_what_was_not_there_before(logged: Logged) -> None:
    passes(logged, nat(5), (1, 2))
    first = logged.now
    passes(logged, nat(6, port=40_001, dport=80), (1, 2))
    since, keys = known_before(str(logged.folder), first)
    assert since is not None
    assert set(keys) == {("host", INSIDE), ("country", "DE"), ("network", "64500"), ("service", "tcp/443")}
    os.unlink(logged.folder / past.FIRST_FILE)
    passes(logged, nat(7, port=40_002), (1, 2))
    assert ("host", "10.0.0.7") in known_before(str(logged.folder), logged.now)[1]


def flow_of(conn: Conn, born: float = 100.0) -> Flow:
    table = FlowTable()
    (row,) = split_lines(conn.line("new") + b"\n")[0]
    return table.event(row, born)


def test_new_without_a_mark_is_what_the_log_had_not_seen() -> None:
    context = Context(Lookups(where=where_of))
    mark = Baseline(50.0, context, [("host", INSIDE), ("service", "tcp/443"), ("country", "DE")])
    assert mark.complete
    assert mark.new_of(flow_of(nat(5))) == ["network"]
    assert mark.new_of(flow_of(nat(6))) == ["host", "network"]
    assert mark.new_of(flow_of(nat(6), born=10.0)) == []
    assert not mark.is_new_key(FAR, "192.0.2.1")  # hosts of the far side are not remembered
    assert [mark.is_new_key(grouping, key) for grouping, key in ((NEAR, INSIDE), (COUNTRY, "US"), (SERVICE, "x"))] == [
        *(False, True, True)
    ]
    for text, wanted in (("new:", True), ("new:host", True), ("new:service", False), ("new:remote", False)):
        fits = compile_filter(text, context, lambda: mark)
        assert fits is not None
        assert fits(flow_of(nat(6))) == wanted


# --- the screen -------------------------------------------------------------------------------------------------------


@needs_kernel
def test_the_screen_asks_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Usage, a host's countries, back; a flow of before the start in the NAT view; what is new in the events."""
    folder = fresh(tmp_path, monkeypatch).folder
    with Namespace() as ns:
        insert(ns, src="10.0.0.8", dst="192.0.2.9", sport=1, dport=80, timeout=3600)
        with OnScreen(tmp_path, "--log", str(folder), size=(140, 30), program=inside(ns)) as screen:
            screen.wait("Connections · 1")
            screen.type("0")
            screen.wait("laptop")
            assert "Usage · 2 · last 24h: in 2.0k out 110" in screen.text
            screen.type("+")
            screen.wait("last 48h")
            screen.type("j\r")
            screen.wait("Usage by country · 1")
            screen.wait("Germany")
            screen.type("t")
            screen.wait("Usage by network · 1")
            screen.type("\x1b")
            screen.wait("laptop")
            screen.type("6/wan:203.0.113.1:40001\r")
            screen.wait("log since")
            screen.wait("10.0.0.5:1000")
            assert "NAT · 1 of 1" in screen.text
            screen.type("H")
            screen.wait("flow log")


@needs_kernel
def test_a_screen_beside_a_recorder_reads_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fresh(tmp_path, monkeypatch).folder
    lock = past.hold(str(folder))
    try:
        with Namespace() as ns, OnScreen(tmp_path, "--log", str(folder), size=(140, 30), program=inside(ns)) as screen:
            screen.wait("Connections")
            screen.type("0")
            screen.wait("laptop")
            screen.type("H")
            screen.wait(f"process {os.getpid()} writes")
            assert "try: ps" not in screen.text
    finally:
        os.close(lock)


def test_nothing_of_an_answer_that_is_damaged_raises() -> None:
    item: dict[str, Any] = dict.fromkeys(past.LOG_COLUMNS)
    for broken in ({}, item, {**item, "protocol": "tcp", "src": "x"}, {**item, "protocol": "ipx", "src": ""}):
        with pytest.raises((KeyError, TypeError, ValueError)):
            logged_flow(broken, 0.0)
