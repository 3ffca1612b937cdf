"""A flow log of several machines: one writer, and each machine's flows, gaps and hosts are its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import past
from addresses import Named, Site
from devices import Directory
from flowlog import FlowLog, LogPlan, LogWire
from flows import FlowTable
from intake import Problem, Status
from past import CUT_OFF, NOT_RUNNING, UNHEARD
from support.logs import INSIDE, NOON, SERVER, WAN, Conn, Logged, flow_rows, nat, rows

HTTPS = nat(5)  # the same flow on each machine: private addresses and a kernel's ids are


class Node:
    """A machine's table, and what the loop holds of the log for it."""

    def __init__(self, name: str, logged: Nodes) -> None:
        self.name, self.logged, self.status = name, logged, Status()
        self.status.facts.update(events=1, acct=1)
        self.known = Directory()
        self.log = FlowLog(logged.wire, name, lambda: logged.epoch, self.known)
        self.table = FlowTable(linger=0.0, on_closed=self.log.ended)
        self.table.know_own({WAN})

    def tell(self, event: str, conn: Conn, moved: tuple[int, int] | None = None) -> None:
        self.logged.table = self.table
        self.logged.tell(event, conn, moved)

    def list(self, *conns: Conn | tuple[Conn, tuple[int, int]]) -> None:
        self.table.watch(self.logged.clock)
        self.logged.table = self.table
        self.logged.list(*conns)

    def gaps(self) -> Sequence[str]:
        return [
            row["reason"]
            for row in rows(self.logged.folder, "SELECT * FROM gap_log ORDER BY since")
            if row["node"] == self.name
        ]


class Nodes(Logged):
    """Several machines, one writer."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, *names: str) -> None:
        self.names_of = names
        super().__init__(folder, patch)

    def begin(self, names: Sequence[str] = ()) -> None:
        self.kill()
        names = names or self.names_of
        plan = LogPlan(str(self.folder))
        self.wire = LogWire(plan, plan.setup(names, [], Site()))
        self.nodes = {name: Node(name, self) for name in names}
        self.writer = None

    def poll(self) -> None:
        for node in self.nodes.values():
            node.log.poll(node.table, node.status, self.clock)

    def close(self) -> None:
        for node in self.nodes.values():
            node.log.close(node.table, self.clock)
        self.write()
        self.kill()


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    made = Nodes(tmp_path / "log", monkeypatch, "r7", "r9")
    yield made
    made.kill()  # else Python 3.13 warns of its open files


def told(folder: Path) -> list[tuple[str, str, str, int | None]]:
    """Node, reason, source and what was sent, of each flow."""
    return [(row["node"], row["reason"], row["src"], row["bytes_original"]) for row in flow_rows(folder)]


def test_each_machine_s_flows_are_its_own(two: Nodes) -> None:
    one, other = two.nodes.values()
    for node in (one, other):
        node.list()
    two.seconds(1)
    for number, node in enumerate((one, other), 1):
        node.tell("new", HTTPS)
        node.tell("destroy", HTTPS, (1000 * number, 500))
        node.tell("new", nat(6, id=2))
    two.seconds(2)
    two.close()
    ended = [row for row in told(two.folder) if row[1] == "destroy"]
    assert ended == [("r7", "destroy", INSIDE, 1000), ("r9", "destroy", INSIDE, 2000)]
    assert sorted(row[:3] for row in told(two.folder) if row[1] != "destroy") == [
        ("r7", "open", "10.0.0.6"),
        ("r9", "open", "10.0.0.6"),
    ]
    found = past.usage(str(two.folder), "host", two.now - 3600, two.now)
    assert {(row.node, row.key): row.span for row in found.rows if row.key == INSIDE} == {
        ("r7", INSIDE): (500, 1000),
        ("r9", INSIDE): (500, 2000),
    }
    assert found.total.span == (1000, 3000)
    (country,) = past.usage(str(two.folder), "country", two.now - 3600, two.now).rows
    assert (country.node, country.span) == ("", (1000, 3000))


def test_a_host_has_the_name_that_its_own_machine_knows(two: Nodes) -> None:
    for name, node in zip(("laptop", "printer"), two.nodes.values()):
        node.known.take("leases", [(INSIDE, Named(name))])
        node.list(HTTPS)
    two.seconds(2)
    for node in two.nodes.values():
        node.tell("destroy", HTTPS, (1000, 500))
    two.seconds(2)
    two.close()
    assert {row["node"]: row["near_name"] for row in flow_rows(two.folder)} == {"r7": "laptop", "r9": "printer"}
    found = past.usage(str(two.folder), "host", two.now - 3600, two.now)
    assert {row.node: row.label for row in found.rows} == {"r7": "laptop", "r9": "printer"}


def test_a_gap_of_one_is_no_gap_of_the_other_and_who_says_whose(two: Nodes) -> None:
    one, other = two.nodes.values()
    for node in (one, other):
        node.list(HTTPS)
    two.seconds(2)
    other.status.troubles["events"] = Problem("gone")
    two.seconds(3)
    asked = past.Question(INSIDE, None, None, two.now - 1.0, past.INSTANT)
    del other.status.troubles["events"]
    two.seconds(2)
    assert (one.gaps(), other.gaps()) == ([], [UNHEARD])
    two.seconds(61)  # both are told
    answer = past.who(str(two.folder), asked)
    text = past.answer_text(asked, answer)
    assert f": r9: {UNHEARD}" in text
    assert "r7: " not in text
    assert text.splitlines()[1].split()[:2] == ["NODE", "LOCAL"]
    assert [line.split()[0] for line in text.splitlines()[2:4]] == ["r7", "r9"]
    assert json.loads(json.dumps(list(past.answer_items(asked, answer))[-1]))["gaps"][0]["node"] == "r9"


def test_one_machine_s_log_says_no_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = Nodes(tmp_path / "log", monkeypatch, "r7")
    alone.nodes["r7"].list(HTTPS)
    alone.seconds(3)
    asked = past.Question(INSIDE, None, None, alone.now - 1.0, past.INSTANT)
    text = past.answer_text(asked, past.who(str(alone.folder), asked))
    assert text.splitlines()[1].split()[0] == "LOCAL"
    assert "r7" not in text
    assert past.usage(str(alone.folder), "host", alone.now - 3600, alone.now).rows[0].node == ""
    alone.kill()


def test_a_new_log_begins_with_those_that_answer_and_the_other_has_a_gap(two: Nodes) -> None:
    one, other = two.nodes.values()
    two.seconds(1)
    one.list(HTTPS)
    two.seconds(30)
    assert one.gaps() == []
    assert other.gaps() == [NOT_RUNNING]
    other.list(HTTPS)
    two.seconds(2)
    two.close()
    (gap,) = rows(two.folder, "SELECT * FROM gap_log")
    assert (gap["node"], gap["since"]) == ("r9", NOON + 1.0)
    assert 30.0 <= gap["until"] - gap["since"] <= 32.0
    (began,) = rows(two.folder, "SELECT began FROM about")
    assert NOON <= began["began"] <= NOON + 2.0


def test_a_new_log_of_machines_that_answer_at_once_has_no_gap(two: Nodes) -> None:
    one, other = two.nodes.values()
    one.list(HTTPS)
    two.seconds(3)
    other.list(HTTPS)
    two.seconds(20)
    assert one.gaps() == other.gaps() == []
    (began,) = rows(two.folder, "SELECT began FROM about")
    assert began["began"] >= NOON + 3.0  # what was there before that is not known of both


def test_flows_that_a_run_left_open_are_taken_up_by_their_own_machine(two: Nodes) -> None:
    for node in two.nodes.values():
        node.list((HTTPS, (1000, 1000)))
    two.seconds(62)
    assert told(two.folder) == [("r7", "open", INSIDE, 1000), ("r9", "open", INSIDE, 1000)]
    two.kill()
    two.begin()
    two.nodes["r7"].list()
    two.nodes["r9"].list((HTTPS, (5000, 1000)))
    two.seconds(62)
    found = {row["node"]: row for row in flow_rows(two.folder)}
    assert found["r9"]["reason"] == "open"
    assert found["r9"]["bytes_original"] == 5000
    assert found["r9"]["end"] > found["r7"]["end"] + 30.0
    assert found["r7"]["bytes_original"] == 1000
    assert [node.gaps() for node in two.nodes.values()] == [[CUT_OFF, NOT_RUNNING]] * 2
    two.close()
    two.begin(["r9"])  # nobody looks at the other one any more
    two.nodes["r9"].list((HTTPS, (6000, 1000)))
    two.seconds(62)
    found = {row["node"]: row for row in flow_rows(two.folder)}
    assert (found["r9"]["bytes_original"], found["r7"]["bytes_original"]) == (6000, 1000)
    assert rows(two.folder, "SELECT count(*) AS n FROM unfinished") == [{"n": 1}]


def test_a_writer_that_was_killed_is_told_all_of_both_again(two: Nodes) -> None:
    for number, node in enumerate(two.nodes.values(), 1):
        node.list((HTTPS, (1000 * number, 1000)))
    two.seconds(62)
    two.kill()
    two.wires[-1].status = -9
    two.seconds(3)
    assert len(two.wires) == 2
    for number, node in enumerate(two.nodes.values(), 1):
        node.tell("destroy", HTTPS, (5000 * number, 2000))
        node.tell("new", nat(6, id=2))
    two.seconds(2)
    two.close()
    ended = [row for row in told(two.folder) if row[1] == "destroy"]
    assert ended == [("r7", "destroy", INSIDE, 5000), ("r9", "destroy", INSIDE, 10_000)]
    assert [row[:3] for row in told(two.folder) if row[1] == "open"] == [
        ("r7", "open", "10.0.0.6"),
        ("r9", "open", "10.0.0.6"),
    ]
    assert [node.gaps()[-1] for node in two.nodes.values()] == [NOT_RUNNING] * 2
    found = past.usage(str(two.folder), "host", two.now - 3600, two.now)
    assert {row.node: row.span for row in found.rows if row.key == INSIDE} == {"r7": (2000, 5000), "r9": (2000, 10_000)}


def test_what_a_slow_disk_costs_is_said_of_all(two: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where flows can't be told any more, each machine has that gap, and what is there is told again."""
    for node in two.nodes.values():
        node.list((HTTPS, (1000, 1000)))
    two.seconds(2)
    monkeypatch.setattr("flowlog.MOST_BEHIND", -1)
    for node in two.nodes.values():
        node.tell("destroy", HTTPS, (2000, 1000))
    two.seconds(2)
    monkeypatch.setattr("flowlog.MOST_BEHIND", 64 << 20)
    two.seconds(3)
    for node in two.nodes.values():
        assert [reason for reason in node.gaps() if reason != NOT_RUNNING] == [
            "1 flows came faster than the log could be written"
        ]
    assert SERVER in {row["dst"] for row in flow_rows(two.folder)}
