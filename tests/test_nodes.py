"""Several machines in one stream: real routers in namespaces, each with a table, addresses and troubles of its own."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from ipfix import domain_of
from source import HOSTNAME_PATIENCE, host_names
from support.ipfix import Listening
from support.kernel import Lab, Namespace, insert, listeners, load, needs_kernel
from support.logs import rows
from support.program import Piped, environment
from support.terminal import PROGRAM

TRACKS = "table ip tracks { chain c { type filter hook input priority 0; ct state new accept; }; }"


class Streaming(Piped):
    """The program with several --via, and what its stream has told so far."""

    def __init__(self, folder: Path, *ways: str, way: str = "--json", more: Sequence[object] = ()) -> None:
        words = [word for via in ways for word in ("--via", via)]
        super().__init__(folder, "--no-config", *words, *more, mode=(way,))

    def __enter__(self) -> Streaming:
        return self

    @property
    def items(self) -> list[dict[str, Any]]:
        whole = self.out.read_bytes().rpartition(b"\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def live(self) -> dict[str, set[int]]:
        return live_in(self.items)


def live_in(items: Iterable[dict[str, Any]]) -> dict[str, set[int]]:
    """By node, the ids of the flows that are there by what a stream has told."""
    found: dict[str, set[int]] = {}
    for item in items:
        ids = found.setdefault(item["node"], set())
        (ids.discard if item["event"] == "destroy" else ids.add)(item["id"])
    return found


def ids_of(namespace: Namespace) -> set[int]:
    """The ids that the kernel has there."""
    words = namespace.run(["conntrack", "-L", "-o", "extended,id"]).stdout.split()
    return {int(word[3:]) for word in words if word.startswith("id=") and word[3:].isdigit()}


def listener_of(namespace: Namespace) -> int:
    """The process id of conntrack -E there."""
    words = ["ip", "netns", "pids", namespace.name]
    for pid in subprocess.run(words, capture_output=True, text=True, check=True).stdout.split():
        with suppress(OSError):  # a listing that has ended
            if b"-E" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                return int(pid)
    raise AssertionError(f"nobody listens in {namespace.name}")


def flows(count: int, of: int) -> list[str]:
    """So many of a router with this number."""
    return [
        f"-A -t 9000 -u SEEN_REPLY,ASSURED -s 10.{of}.0.{i % 200 + 1} -d 198.51.100.{i % 250 + 1} "
        f"-r 198.51.100.{i % 250 + 1} -q 203.0.113.{of} -p tcp --sport {i + 1} --dport 443 "
        f"--reply-port-src 443 --reply-port-dst {i + 1} --state ESTABLISHED"
        for i in range(count)
    ]


@needs_kernel
def test_three_routers_in_one_stream(tmp_path: Path) -> None:
    """Each line says whose it is; one router is flushed, one loses its listener, and every count is the kernel's."""
    with Namespace("a") as a, Namespace("b") as b, Namespace("c") as c:
        nodes = {"r1": a, "r2": b, "r3": c}
        for of, namespace in enumerate(nodes.values(), 1):
            namespace.sysctl("net.netfilter.nf_conntrack_acct", 1)
            load(namespace, flows(100 * of, of))
        ways = [f"{name}={namespace.via}" for name, namespace in nodes.items()]
        with Streaming(tmp_path, *ways) as stream:

            def agrees() -> bool:
                return stream.live() == {name: ids_of(namespace) for name, namespace in nodes.items()}

            stream.wait(agrees)
            stream.wait(lambda: all(listeners(namespace) for namespace in nodes.values()))
            assert {name: len(ids) for name, ids in stream.live().items()} == {"r1": 100, "r2": 200, "r3": 300}
            for namespace in nodes.values():  # the same flow on all of them is a flow on each
                insert(namespace, src="10.0.0.1", dst="192.0.2.9", sport=5, dport=80)
            b.run(["conntrack", "-F"])
            stream.wait(agrees)
            news = Counter(item["node"] for item in stream.items if item["event"] == "new")
            assert news == {"r1": 1, "r2": 1, "r3": 1}
            os.kill(listener_of(a), signal.SIGKILL)
            stream.wait("r1: events stopped: ")
            insert(c, src="10.0.0.2", dst="192.0.2.9", sport=6, dport=80)
            stream.wait(lambda: len(stream.live()["r3"]) == 302)
            stream.wait("r1: events are back")
            stream.wait(lambda: listeners(a) > 0)
            insert(a, src="10.0.0.2", dst="192.0.2.9", sport=7, dport=80)
            stream.wait(agrees)
            stream.leave()
        assert [line for line in stream.words().splitlines() if "r2: " in line or "r3: " in line] == []


def test_ipfix_of_a_recording_has_a_domain_for_each_of_its_nodes(tmp_path: Path) -> None:
    line = (
        "[1795386413.700000]\t    [NEW] ipv4     2 tcp      6 120 SYN_SENT src=10.0.0.5 dst=198.51.100.7 sport=1000 dport=443 "
        "[UNREPLIED] src=198.51.100.7 dst=203.0.113.1 sport=443 dport=40000 id=7\n"
    )
    saved = tmp_path / "two.rec"
    saved.write_text("".join(f"# 1795386413.0 node {node}\n{line}" for node in ("r7", "r9", "r7")))
    with Listening() as own:
        words = ["--headless", "--replay", str(saved), "--ipfix", f"127.0.0.1:{own.port}", "--ipfix-only", "nat"]
        argv = [*PROGRAM, "--no-config", *words]
        subprocess.run(argv, env={**os.environ, **environment(tmp_path)}, capture_output=True, check=True)
        own.wait_for(3)
    assert own.decoder.domains == {domain_of("r7"), domain_of("r9")}


def told_again(folder: Path, *words: str, lines: bytes = b"") -> list[dict[str, Any]]:
    """What a stream of what was kept tells."""
    argv = [*PROGRAM, "--no-config", "--json", *words]
    settings = {**os.environ, **environment(folder)}
    done = subprocess.run(argv, env=settings, input=lines, capture_output=True, check=True)
    assert b"not understood" not in done.stderr
    assert b"left out" not in done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@needs_kernel
def test_a_recording_of_three_routers_gives_them_back(tmp_path: Path) -> None:
    """So do the lines of their stream; each router's flows are the kernel's, and its addresses its own."""
    with Namespace("a") as a, Namespace("b") as b, Namespace("c") as c:
        nodes, saved = {"r1": a, "r2": b, "r3": c}, tmp_path / "three.rec"
        for of, namespace in enumerate(nodes.values(), 1):
            namespace.ip("link set lo up", f"addr add 203.0.113.{of}/32 dev lo")
            load(namespace, flows(50 * of, of))
        ways = [f"{name}={namespace.via}" for name, namespace in nodes.items()]
        with Streaming(tmp_path, *ways, more=("--record", saved)) as stream:
            stream.wait(lambda: stream.live() == {name: ids_of(namespace) for name, namespace in nodes.items()})
            stream.wait(lambda: all(listeners(namespace) for namespace in nodes.values()))
            for namespace in nodes.values():  # the same flow on all of them is a flow on each
                insert(namespace, src="10.0.0.1", dst="192.0.2.9", sport=5, dport=80)
            b.run(["conntrack", "-F"])
            c.run(["conntrack", "-D", "-s", "10.0.0.1"])
            there = {name: ids_of(namespace) for name, namespace in nodes.items()}
            stream.wait(lambda: stream.live() == there)
            stream.leave()
        told = stream.items
    assert {name: len(ids) for name, ids in there.items()} == {"r1": 51, "r2": 0, "r3": 150}
    again = (
        told_again(tmp_path, "--replay", str(saved)),
        told_again(tmp_path, "--replay", "-", lines=stream.out.read_bytes()),
    )
    for items in again:
        assert live_in(items) == there
        facts = {(item["node"], item["direction"]) for item in items if item["reply"]["dst"].startswith("203.")}
        assert facts == {(name, "fwd") for name in nodes}
    assert Counter(map(str, told)) == Counter(map(str, again[1]))


@needs_kernel
@pytest.mark.parametrize("way", ["--headless", "--json"])
def test_a_log_of_three_routers(tmp_path: Path, way: str) -> None:
    """The same flow on all of them is one of each; who loses its listener has a gap, and no other."""
    log = tmp_path / "log"
    with Namespace("a") as a, Namespace("b") as b, Namespace("c") as c:
        nodes = {"r1": a, "r2": b, "r3": c}
        for of, namespace in enumerate(nodes.values(), 1):
            namespace.sysctl("net.netfilter.nf_conntrack_acct", 1)
            load(namespace, flows(20 * of, of))
        ways = [f"{name}={namespace.via}" for name, namespace in nodes.items()]
        with Streaming(tmp_path, *ways, way=way, more=("--log", log)) as running:
            running.wait(lambda: counted(log, "flow_log") == {"r1": 20, "r2": 40, "r3": 60})
            for namespace in nodes.values():
                insert(namespace, src="10.0.0.9", dst="192.0.2.9", sport=5, dport=80)
            for namespace in nodes.values():
                namespace.run(["conntrack", "-D", "-s", "10.0.0.9"])
            ended = "flow_log WHERE src = '10.0.0.9' AND reason = 'destroy'"
            running.wait(lambda: counted(log, ended) == {"r1": 1, "r2": 1, "r3": 1})
            os.kill(listener_of(b), signal.SIGKILL)
            running.wait(lambda: counted(log, "gap_log WHERE reason = 'events stopped'") == {"r2": 1})
            running.wait(lambda: rows(log, "SELECT * FROM gap WHERE until IS NULL") == [])
            moment = time.time()
            running.leave()
        assert set(counted(log, "gap_log")) == {"r2"}
        assert counted(log, "flow_log WHERE reason = 'open'") == {"r1": 20, "r2": 40, "r3": 60}
    asked = [
        *PROGRAM,
        "--no-config",
        "--log",
        str(log),
        "--who",
        "10.1.0.1",
        "--at",
        f"{datetime.fromtimestamp(moment):%FT%T.%f}",
    ]
    answer = subprocess.run(
        asked, env={**os.environ, **environment(tmp_path)}, capture_output=True, text=True, check=True
    )
    assert [line.split()[0] for line in answer.stdout.splitlines()[1:3]] == ["NODE", "r1"]
    printed = [*PROGRAM, "--no-config", "--log", str(log), "--view", "usage", "--once", "--json"]
    usage = subprocess.run(
        printed, env={**os.environ, **environment(tmp_path)}, capture_output=True, text=True, check=True
    )
    hosts = Counter(json.loads(line)["node"] for line in usage.stdout.splitlines())
    assert hosts == {"r1": 21, "r2": 41, "r3": 61}


def counted(log: Path, what: str) -> dict[str, int]:
    """Rows of each node."""
    with suppress(sqlite3.Error, OSError):  # being made
        return {row["node"]: row["n"] for row in rows(log, f"SELECT node, count(*) AS n FROM {what} GROUP BY node")}
    return {}


@needs_kernel
def test_a_flow_through_two_machines_is_seen_on_both_as_each_sees_it(tmp_path: Path) -> None:
    """The router forwards and masquerades it; for the server it comes in, from the router's address."""
    with Lab() as lab:
        lab.server.nft(TRACKS)
        ways = [f"router={lab.router.via}", f"server={lab.server.via}"]
        with Streaming(tmp_path, *ways) as stream, lab.echo_server(5001):
            stream.wait(lambda: listeners(lab.router) > 0 and listeners(lab.server) > 0)
            with lab.tcp_connect(5001) as connection:
                connection.exchange(100)
                stream.wait(lambda: set(stream.live()) == {"router", "server"})
        sides = {item["node"]: item for item in stream.items}
    assert {node: item["direction"] for node, item in sides.items()} == {"router": "fwd", "server": "in"}
    assert {node: item["original"]["src"] for node, item in sides.items()} == {"router": Lab.CLIENT, "server": Lab.WAN}
    assert sides["router"]["nat"] == ["snat"]
    assert "nat" not in sides["server"]
    assert {node: item["remote"]["ip"] for node, item in sides.items()} == {"router": Lab.SERVER, "server": Lab.WAN}


@needs_kernel
def test_a_machine_that_can_t_be_reached_keeps_none_of_the_others(tmp_path: Path) -> None:
    with Namespace("a") as a, Namespace("late") as late:
        load(a, flows(10, 1))
        late.delete()
        with Streaming(tmp_path, f"r1={a.via}", f"r2={late.via}") as stream:
            stream.wait(lambda: len(stream.live().get("r1", ())) == 10)
            stream.wait(f"r2: there is no network namespace '{late.name}'; try: ip netns list; retrying")
            late.create()
            load(late, flows(20, 2))
            stream.wait(lambda: len(stream.live().get("r2", ())) == 20)
            stream.leave()


@needs_kernel
def test_where_no_machine_can_be_reached_the_first_reason_ends_it(tmp_path: Path) -> None:
    with Streaming(tmp_path, "r1=ip netns exec cm-none-1", "r2=ip netns exec cm-none-2") as stream:
        stream.has_left(1)
    assert "there is no network namespace 'cm-none-1'; try: ip netns list" in stream.words().splitlines()[-1]
    assert stream.out.read_bytes() == b""


@needs_kernel
def test_csv_has_one_header_and_a_node_in_each_row(tmp_path: Path) -> None:
    with Namespace("a") as a, Namespace("b") as b:
        load(a, flows(600, 1))  # more than are written at once
        load(b, flows(700, 2))
        with Streaming(tmp_path, f"r1={a.via}", f"r2={b.via}", way="--csv") as stream:
            stream.wait(lambda: stream.out.read_bytes().count(b"\n") == 1301)
            stream.leave()
    rows = list(csv.DictReader(io.StringIO(stream.out.read_text())))
    assert Counter(row["node"] for row in rows) == {"r1": 600, "r2": 700}
    assert {row["reply.dst"] for row in rows if row["node"] == "r2"} == {"203.0.113.2"}


@needs_kernel
@pytest.mark.parametrize("name", ["r7", "kids' router", "ü"])
def test_a_single_machine_may_have_a_name_too(tmp_path: Path, name: str) -> None:
    """A name has no blank in --via; --node takes any."""
    with Namespace() as a:
        load(a, flows(3, 1))
        way, words = (f"{name}={a.via}", []) if " " not in name else (a.via, ["--node", name])
        argv = [*PROGRAM, "--no-config", "--once", "--json", "--via", way, *words]
        done = subprocess.run(argv, env={**os.environ, **environment(tmp_path)}, capture_output=True, check=True)
    assert {json.loads(line)["node"] for line in done.stdout.splitlines()} == {name}


def called(name: str) -> str:
    """The words that lead to where `hostname` says that."""
    return f"sh -c 'if test $0 = hostname; then printf %s\\\\n {shlex.quote(name)}; else exec $0 \"$@\"; fi'"


def test_the_name_of_a_machine_is_what_hostname_says_there() -> None:
    """All are asked at once; no name is what fails, says more than a line, or does not answer in time."""
    words = [
        "true",
        "false",
        "/nonexistent",
        "sh -c 'printf %s blue'",
        "sh -c 'echo a; echo b'",
        "sh -c 'exec sleep 60'",
    ]
    ways = [called("blue"), *words, called("ü")]
    began = time.monotonic()
    assert host_names([shlex.split(way) for way in ways]) == ["blue", "", "", "", "", "", "", "ü"]
    assert time.monotonic() - began >= HOSTNAME_PATIENCE
    assert host_names([]) == []


@needs_kernel
def test_machines_without_a_name_are_called_as_they_call_themselves(tmp_path: Path) -> None:
    with Namespace("a") as a, Namespace("b") as b:
        for namespace in (a, b):
            load(namespace, flows(3, 1))
        ways = [f"{its.via} {called(name)}" for its, name in ((a, "blue"), (b, "green"))]
        with Streaming(tmp_path, *ways) as stream:
            stream.wait(lambda: {node: len(ids) for node, ids in stream.live().items()} == {"blue": 3, "green": 3})
            stream.leave()
        argv = [*PROGRAM, "--no-config", "--once", "--json", "--via", ways[0]]
        done = subprocess.run(argv, env={**os.environ, **environment(tmp_path)}, capture_output=True, check=True)
    assert [json.loads(line)["node"] for line in done.stdout.splitlines()] == ["blue"] * 3


@needs_kernel
def test_a_single_machine_whose_name_is_none_has_this_machine_s(tmp_path: Path) -> None:
    with Namespace("a") as a:
        load(a, flows(3, 1))
        argv = [*PROGRAM, "--no-config", "--once", "--json", "--via", f"{a.via} {called(chr(27) + '[2J')}"]
        done = subprocess.run(argv, env={**os.environ, **environment(tmp_path)}, capture_output=True, check=True)
    assert [json.loads(line)["node"] for line in done.stdout.splitlines()] == [os.uname().nodename] * 3


@pytest.mark.parametrize(
    ("ways", "said"),
    [
        ((called("blue"), called("blue")), "Two nodes are named 'blue'; try: --via NAME=COMMAND"),
        ((called("blue"), "blue="), "Two nodes are named 'blue'; try: --via NAME=COMMAND"),
        ((called("blue"), "env false"), "hostname gives no name by 'env false'; try: --via NAME=COMMAND"),
        ((called("blue"), called("a\x1b[2J")), "hostname gives no name by "),
        ((called("blue"), called("x" * 256)), "hostname gives no name by "),
    ],
)
def test_without_a_name_for_each_machine_one_is_asked_for(ways: tuple[str, str], said: str, tmp_path: Path) -> None:
    with Streaming(tmp_path, *ways) as stream:
        stream.has_left(2)
    assert said in stream.words()


@needs_kernel
def test_the_way_may_stand_in_the_environment(tmp_path: Path) -> None:
    """Its blanks part the words of one command."""
    with Namespace() as a:
        load(a, flows(3, 1))
        settings = {**os.environ, **environment(tmp_path), "CONNTRACK_MONITOR_VIA": f"r1={a.via}"}
        argv = [*PROGRAM, "--no-config", "--once", "--json"]
        done = subprocess.run(argv, env=settings, capture_output=True, check=True)
    assert [json.loads(line)["node"] for line in done.stdout.splitlines()] == ["r1"] * 3
