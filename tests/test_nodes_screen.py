"""Several machines on one screen: real routers in namespaces, and each count is its kernel's."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

from support.kernel import Lab, Namespace, insert, listeners, load, needs_kernel
from support.program import OnScreen, environment
from support.terminal import PROGRAM
from test_nodes import TRACKS, Streaming, flows, ids_of, listener_of

NODES = re.compile(r"^(\S+) +(?:●|\*) (\S+) +(\d+) ", re.M)


def rows(screen: OnScreen) -> dict[str, tuple[str, int]]:
    """What the view of nodes says: by node, how it is doing and its flows."""
    return {name: (state, int(number)) for name, state, number in NODES.findall(screen.text)}


def total(screen: OnScreen) -> int:
    """All flows, as the header counts them by protocol."""
    found = re.search(r" tcp (\d+)", screen.text)
    return int(found[1]) if found else 0


def sees(screen: OnScreen, node: str, what: str = "") -> bool:
    """Is a flow of this node among the rows?"""
    return re.search(rf"(?m)^.?{node} +tcp +\S+ +{what}", screen.text) is not None


class Watching(OnScreen):
    """The program on a terminal with several --via."""

    def __init__(self, folder: Path, nodes: dict[str, Namespace], *words: str, size: tuple[int, int] = (150, 30)):
        ways = [word for name, namespace in nodes.items() for word in ("--via", f"{name}={namespace.via}")]
        super().__init__(folder, "--no-config", "--interval", "1", *ways, *words, size=size)


@needs_kernel
def test_each_count_is_its_kernel_s_while_one_is_flushed_and_one_is_gone_for_a_moment(tmp_path: Path) -> None:
    with Namespace("a") as a, Namespace("b") as b, Namespace("c") as c:
        nodes = {"r1": a, "r2": b, "r3": c}
        for of, namespace in enumerate(nodes.values(), 1):
            load(namespace, flows(100 * of, of))

        def agrees() -> bool:
            wanted = {name: ("live", len(ids_of(namespace))) for name, namespace in nodes.items()}
            return rows(screen) == wanted and total(screen) == sum(number for _, number in wanted.values())

        with Watching(tmp_path, nodes) as screen:
            screen.wait("● 3 nodes live")
            screen.type("9")
            screen.wait(agrees)
            assert rows(screen) == {"r1": ("live", 100), "r2": ("live", 200), "r3": ("live", 300)}
            screen.wait(lambda: all(listeners(namespace) for namespace in nodes.values()))
            for namespace in nodes.values():  # the same flow on all of them is a flow on each
                insert(namespace, src="10.0.0.1", dst="192.0.2.9", sport=5, dport=80)
            b.run(["conntrack", "-F"])
            screen.wait(agrees)
            assert rows(screen)["r2"][1] < 200
            os.kill(listener_of(a), signal.SIGKILL)
            a.delete()
            screen.wait("2 of 3 nodes live")
            screen.wait(lambda: rows(screen)["r1"] == ("stale", 101))
            screen.wait("r1: ")  # the header says whose trouble it is
            screen.wait(f"there is no network namespace '{a.name}'")
            insert(c, src="10.0.0.2", dst="192.0.2.9", sport=6, dport=80)
            screen.wait(lambda: rows(screen)["r3"] == ("live", 302))
            a.create()
            load(a, flows(40, 1))
            screen.wait("● 3 nodes live")
            screen.wait(agrees)
            screen.leave()


@needs_kernel
def test_a_flow_through_two_machines_is_on_both_as_each_sees_it(tmp_path: Path) -> None:
    """The router forwards it and translates its source; the server answers the router's address."""
    with Lab() as lab:
        lab.server.nft(TRACKS)
        with Watching(tmp_path, {"router": lab.router, "server": lab.server}) as screen, lab.echo_server(5001):
            screen.wait(lambda: listeners(lab.router) > 0 and listeners(lab.server) > 0)
            with lab.tcp_connect(5001) as connection:
                connection.exchange(100)
                screen.wait(lambda: sees(screen, "router", rf"{lab.CLIENT}:\d+ +{lab.SERVER}:5001 .*snat"))
                screen.wait(lambda: sees(screen, "server", rf"{lab.WAN}:\d+ +{lab.SERVER}:5001"))
                for way, node, other in (("fwd", "router", "server"), ("in", "server", "router")):
                    screen.type(f"/\x15dir:{way}\r")
                    screen.wait(f"filter dir:{way}")
                    screen.wait(
                        lambda node=node, other=other: sees(screen, node) and not sees(screen, other)  # type: ignore[misc]
                    )
                screen.type("/\x15node:router\r")
                screen.wait(lambda: sees(screen, "router") and not sees(screen, "server"))
                screen.leave()


@needs_kernel
def test_a_machine_that_can_t_be_reached_from_the_start_keeps_none_of_the_others(tmp_path: Path) -> None:
    with Namespace("a") as a, Namespace("late") as late:
        load(a, flows(30, 1))
        late.delete()
        with Watching(tmp_path, {"r1": a, "r2": late}) as screen:
            screen.wait("1 of 2 nodes live")
            screen.wait(f"r2: listing stopped: there is no network namespace '{late.name}'")
            screen.wait(lambda: sees(screen, "r1"))
            late.create()
            load(late, flows(20, 2))
            screen.wait("\u25cf 2 nodes live")
            screen.leave()
        late.delete()
        with Watching(tmp_path, {"r2": late, "r3": late}) as screen:
            screen.has_left(1)
            assert f"there is no network namespace '{late.name}'; try: ip netns list" in screen.words()
        late.create()


@needs_kernel
def test_a_deletion_names_its_node_and_runs_there(tmp_path: Path) -> None:
    with Namespace("a") as a, Namespace("b") as b:
        for of, namespace in enumerate((a, b), 1):
            load(namespace, flows(30, of))
        with Watching(tmp_path, {"r1": a, "r2": b}, "--allow-delete") as screen:
            screen.wait("● 2 nodes live")
            screen.type("/dport:443\r")
            screen.wait("60 of 60")
            screen.type("X")
            screen.wait("These flows are on 2 nodes; delete on one at a time: / node:r1")
            screen.type("/\x15node:r2 sport:1-5\r")
            screen.wait("5 of 60")
            screen.type("X")
            screen.wait("On node r2: ")
            screen.wait(f"{b.via} conntrack -D")
            screen.wait("delete? [No]")
            screen.type("5\r")
            screen.wait("5 deleted")
            screen.leave()
        assert (len(ids_of(a)), len(ids_of(b))) == (30, 25)


@needs_kernel
def test_health_is_that_of_the_selected_node_and_leads_to_its_flows(tmp_path: Path) -> None:
    with Namespace("a") as a, Namespace("b") as b:
        for of, namespace in enumerate((a, b), 1):
            load(namespace, flows(30 * of, of))
        b.sysctl("net.netfilter.nf_conntrack_acct", 0)
        with Watching(tmp_path, {"r1": a, "r2": b}) as screen:
            screen.wait("● 2 nodes live")
            screen.wait("r2: accounting is off")
            screen.type("9")
            screen.wait(lambda: set(rows(screen)) == {"r1", "r2"})
            screen.type("jjH")
            screen.wait("Health of r2")
            screen.wait(f"{b.via} sysctl -w net.netfilter.nf_conntrack_acct=1")
            screen.wait("10.2.0.")
            screen.type("j\r")
            screen.wait("node:r2")
            screen.wait(lambda: sees(screen, "r2") and not sees(screen, "r1"))
            screen.leave()


@needs_kernel
def test_once_has_all_that_can_be_read_and_says_what_can_t(tmp_path: Path) -> None:
    with Namespace("a") as a, Namespace("b") as b:
        for of, namespace in enumerate((a, b), 1):
            load(namespace, flows(30 * of, of))
        ways = ["--via", f"r1={a.via}", "--via", f"r2={b.via}", "--via", "r3=ip netns exec cm-none"]
        argv = [*PROGRAM, "--no-config", "--once", *ways]
        settings = {**os.environ, **environment(tmp_path)}
        done = subprocess.run([*argv, "--view", "nodes", "--json"], env=settings, capture_output=True, text=True)
        each = {item["node"]: item for item in map(json.loads, done.stdout.splitlines())}
        assert {name: (item["flows"], item["status"]) for name, item in each.items()} == {
            "r1": (30, "live"),
            "r2": (60, "live"),
            "r3": (0, "stale"),
        }
        assert "conntrack-monitor: r3: there is no network namespace 'cm-none'; try: ip netns list" in done.stderr
        assert done.returncode == 1
        done = subprocess.run([*argv[:-2], "--json", "-f", "node:r2"], env=settings, capture_output=True, text=True)
        assert ({json.loads(line)["node"] for line in done.stdout.splitlines()}, done.returncode) == ({"r2"}, 0)
        assert {json.loads(line)["id"] for line in done.stdout.splitlines()} == ids_of(b)


@needs_kernel
def test_the_stream_of_several_machines_comes_back_as_the_table_of_all(tmp_path: Path) -> None:
    """`... --json | ... --replay - --once --json` is the identity on the flows of each node."""
    with Namespace("a") as a, Namespace("b") as b:
        for of, namespace in enumerate((a, b), 1):
            load(namespace, flows(500 * of, of))
        with Streaming(tmp_path, f"r1={a.via}", f"r2={b.via}") as stream:
            stream.wait(lambda: len(stream.items) == 1500)
            for namespace in (a, b):
                stream.wait(lambda namespace=namespace: listeners(namespace) > 0)  # type: ignore[misc]
                insert(namespace, src="10.0.0.1", dst="192.0.2.9", sport=5, dport=80)
                namespace.run(["conntrack", "-D", "-p", "tcp", "--orig-port-src", "7"])
            stream.wait(lambda: stream.live() == {"r1": ids_of(a), "r2": ids_of(b)})
            stream.leave()
        argv = [*PROGRAM, "--no-config", "--replay", str(stream.out), "--once", "--json"]
        done = subprocess.run(argv, env={**os.environ, **environment(tmp_path)}, capture_output=True, check=True)
        newest = {(item["node"], item["id"]): item for item in stream.items}
        there = {key: flow_of(item) for key, item in newest.items() if item["event"] != "destroy"}
        back = {(item["node"], item["id"]): flow_of(item) for item in map(json.loads, done.stdout.splitlines())}
        assert back == there
        assert len(back) == 1500


def flow_of(item: dict[str, Any]) -> dict[str, Any]:
    """A line without what is of the moment."""
    return {key: value for key, value in item.items() if key not in ("time", "event")}
