"""The real kernel and the real conntrack: what the program says against what was done and what conntrack's XML says."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.kernel import (
    Lab,
    Namespace,
    comparable,
    conntrack_xml,
    insert,
    insert_arguments,
    kernel_mark,
    listeners,
    load,
    matches,
)
from support.terminal import PROGRAM
from support.waiting import wait_for

pytestmark = kernel_mark()

Item = dict[str, Any]


def once(ns: Namespace, *args: str) -> list[Item]:
    result = ns.run([*PROGRAM, "--once", "--json", *args])
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def ns() -> Iterator[Namespace]:
    with Namespace() as made:
        made.sysctl("net.netfilter.nf_conntrack_acct", 1)
        yield made


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


class Streaming:
    """The program with --json in the background; ``items`` is what it has written so far."""

    def __init__(self, ns: Namespace, tmp_path: Path, *args: str) -> None:
        self.ns = ns
        self.out, self.err = tmp_path / "stream.out", tmp_path / "stream.err"
        before = listeners(ns)
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            argv = [*ns.prefix, *PROGRAM, "--json", *args]
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        wait_for(lambda: listeners(ns) > before, what="the listener")

    def __enter__(self) -> Streaming:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(10)

    def items(self) -> list[Item]:
        text = self.out.read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def events(self, **wanted: Any) -> list[str]:
        return [item["event"] for item in self.items() if matches(item, wanted)]

    def wait(self, condition: Callable[[], bool], what: str = "events") -> None:
        wait_for(condition, what=f"{what}; so far: {self.out.read_text()[-2000:]} {self.err.read_text()}")


# --- listings against conntrack's XML -----------------------------------------------------------------------------------


def varied(count: int) -> Iterator[str]:
    """-R lines of every kind of entry the kernel takes."""
    for i in range(count):
        a, b = f"10.{i % 200}.{i // 200 % 250}.{i % 250 + 1}", f"203.0.113.{i % 250 + 1}"
        a6, b6 = f"2001:db8:{i:x}::1", "2001:db8:ffff::2"
        kinds: list[dict[str, object]] = [
            {"src": a, "dst": b, "sport": 1024 + i, "dport": 443, "flags": ["SEEN_REPLY", "ASSURED"], "mark": i},
            {"src": a, "dst": b, "sport": 1024 + i, "dport": 80, "state": "SYN_SENT"},
            {"src": a, "dst": b, "sport": 1024 + i, "dport": 22, "state": "TIME_WAIT", "zone": i % 5 + 1},
            {"protocol": "udp", "src": a6, "dst": b6, "sport": 1024 + i, "dport": 53},
            {"protocol": "udp", "src": a, "dst": b, "sport": 5000 + i, "dport": 53, "src_nat": "198.51.100.7:999"},
            {"src": a, "dst": b, "sport": 9000 + i, "dport": 8080, "dst_nat": "10.255.0.1:80"},
            {"protocol": "icmp", "src": a, "dst": b, "type": 8, "code": 0, "icmp_id": i},
            {"protocol": "icmpv6", "src": a6, "dst": b6, "type": 128, "code": 0, "icmp_id": i},
            {"protocol": "gre", "src": a, "dst": b, "srckey": hex(i + 1), "dstkey": "0xabcd"},
            {"protocol": "sctp", "src": a, "dst": b, "sport": i + 1, "dport": 2},
            {"protocol": "udplite", "src": a, "dst": b, "sport": i + 1, "dport": 7},
            {"protocol": "50", "src": a, "dst": b},
            {"src": a6, "dst": b6, "sport": 1024 + i, "dport": 443, "zone_orig": 3},
        ]
        yield "-I " + " ".join(insert_arguments(timeout=3600 + i, **{**kinds[i % len(kinds)]}))


def test_once_agrees_with_conntrack_s_xml_on_every_field(ns: Namespace) -> None:
    load(ns, varied(1600))
    xml = {flow["id"]: flow for flow in conntrack_xml(ns)}
    ours = {item["id"]: comparable(item) for item in once(ns)}
    assert len(xml) >= 1400  # the kernel here has no DCCP tracker and takes some kinds only once
    assert len({flow["protocol"] for flow in xml.values()}) >= 8
    assert ours.keys() == xml.keys()
    different = [(ours[i], comparable(xml[i])) for i in xml if ours[i] != comparable(xml[i])]
    assert different == []


def test_pushed_down_filters_select_what_ours_do(ns: Namespace) -> None:
    load(ns, varied(300))
    everything = once(ns)
    for args, wanted in (
        (("-p", "tcp"), {"protocol": "tcp"}),
        (("-p", "50"), {"protocol_number": 50}),
        (("-6",), {"family": "ipv6"}),
        (("-4", "-p", "udp"), {"family": "ipv4", "protocol": "udp"}),
        (("-p", "icmpv6"), {"protocol": "icmpv6"}),
        (("-p", "icmp", "-6"), {"protocol": "icmp", "family": "ipv6"}),
        (("-p", "gre"), {"protocol": "gre"}),
        (("-p", "sctp"), {"protocol": "sctp"}),
        (("-p", "udplite"), {"protocol": "udplite"}),
    ):
        found = once(ns, *args)
        assert sorted(item["id"] for item in found) == sorted(i["id"] for i in everything if matches(i, wanted)), args


# --- events against what was done ---------------------------------------------------------------------------------------


def test_the_life_of_a_tcp_connection_through_a_nat_router(lab: Lab, tmp_path: Path) -> None:
    with lab.echo_server(5001), Streaming(lab.router, tmp_path) as stream:
        with lab.tcp_connect(5001) as connection:
            connection.exchange(50_000)
            tuple_ = {"original": {"src": Lab.CLIENT, "sport": connection.port}}
            stream.wait(lambda: "update" in stream.events(**tuple_))
            (now,) = [item for item in once(lab.router) if matches(item, tuple_)]
            connection.close()
        assert now["state"] == "ESTABLISHED"
        assert now["nat"] == ["snat"]
        assert now["direction"] == "fwd"
        assert now["reply"]["dst"] == Lab.WAN
        assert now["original"]["bytes"] > 50_000
        stream.wait(lambda: bool(stream.events(state="TIME_WAIT", **tuple_)))
        lab.router.run(["conntrack", "-D", "-p", "tcp", "--sport", str(connection.port)])
        stream.wait(lambda: "destroy" in stream.events(**tuple_))
        life = [item for item in stream.items() if matches(item, tuple_)]
    states = [item["state"] for item in life]
    assert [item["event"] for item in life] == ["new", *["update"] * (len(life) - 2), "destroy"]
    assert states[:3] == ["SYN_SENT", "SYN_RECV", "ESTABLISHED"]
    assert states[-1] == "TIME_WAIT"
    last = life[-1]
    assert last["original"]["bytes"] > 50_000
    assert last["reply"]["bytes"] > 50_000
    assert last["userspace"]["portid"] > 0
    assert all("inferred" not in item for item in life)


def test_dnat_udp_icmp_ipv6_marks_and_zones(lab: Lab, tmp_path: Path) -> None:
    lab.add_mark("udp", 5300, 0x2A)
    lab.add_zone("udp", 5400, 7)
    with Streaming(lab.router, tmp_path) as stream:
        dnat = {"original": {"dst": Lab.WAN, "dport": Lab.FORWARDED_PORT}, "event": "new"}
        server = lab.echo_server(Lab.FORWARDED_TO, Lab.CLIENT, lab.client)
        with server, lab.tcp_connect(Lab.FORWARDED_PORT, Lab.WAN, lab.server) as connection:
            connection.exchange(10)
            stream.wait(lambda: bool(stream.events(**dnat)))
        with lab.echo_server(5300), lab.echo_server(5400), lab.echo_server(5500, Lab.SERVER6):
            lab.udp_exchange(5300)
            lab.udp_exchange(5400)
            lab.udp_exchange(5500, Lab.SERVER6)
        lab.ping(identifier=99)
        for wanted in (
            {"protocol": "udp", "mark": 0x2A, "original": {"dport": 5300}},
            {"protocol": "udp", "zone": 7, "original": {"dport": 5400}},
            {"protocol": "udp", "family": "ipv6", "original": {"src": Lab.CLIENT6, "dport": 5500}},
            {"protocol": "icmp", "original": {"icmp_id": 99, "type": 8}, "reply": {"type": 0}},
        ):
            stream.wait(lambda wanted=wanted: bool(stream.events(**wanted)), str(wanted))  # type: ignore[misc]
        (found,) = [item for item in stream.items() if matches(item, dnat)]
    assert found["nat"] == ["dnat"]
    assert found["direction"] == "fwd"
    assert found["reply"]["src"] == Lab.CLIENT


def test_this_host_s_own_flows_have_directions(lab: Lab) -> None:
    with (
        lab.echo_server(5001),
        lab.echo_server(5002, Lab.ROUTER, lab.router),
        lab.tcp_connect(5001, namespace=lab.router) as out,
        lab.tcp_connect(5002, Lab.ROUTER) as into,
    ):
        flows = {item["original"]["sport"]: item for item in once(lab.router, "-p", "tcp")}
    assert flows[out.port]["direction"] == "out"
    assert flows[out.port]["remote"]["ip"] == Lab.SERVER
    assert flows[into.port]["direction"] == "in"
    assert flows[into.port]["remote"]["ip"] == Lab.CLIENT


def test_entries_made_and_deleted_by_hand_and_a_flush(ns: Namespace, tmp_path: Path) -> None:
    """Without any firewall rule nothing is tracked, but entries made by hand have their events all the same."""
    with Streaming(ns, tmp_path) as stream:
        for port in range(1, 21):
            insert(ns, src="192.0.2.1", dst="192.0.2.2", sport=port, dport=80)
        stream.wait(lambda: stream.events().count("new") == 20)
        ns.run(["conntrack", "-D", "-p", "tcp", "--sport", "7"])
        stream.wait(lambda: stream.events(original={"sport": 7})[-1] == "destroy")
        ns.run(["conntrack", "-F"])
        stream.wait(lambda: stream.events().count("destroy") == 20)
    assert {item["original"]["src"] for item in stream.items()} == {"192.0.2.1"}


def test_flows_older_than_the_listener_come_as_list_and_go_as_inferred(ns: Namespace, tmp_path: Path) -> None:
    """nf_conntrack_events=2, the kernel's default: they send neither UPDATE nor DESTROY.

    Newer kernels count a listener in any namespace, so somebody else's would give the flow events: 0 makes sure.
    """
    ns.sysctl("net.netfilter.nf_conntrack_events", 0)
    insert(ns, src="192.0.2.1", dst="192.0.2.2", sport=1, dport=80)
    ns.sysctl("net.netfilter.nf_conntrack_events", 2)
    with Streaming(ns, tmp_path, "--interval", "0.2") as stream:
        stream.wait(lambda: stream.events() == ["list"])
        ns.run(["conntrack", "-D", "-p", "tcp", "--sport", "1"])
        stream.wait(lambda: stream.events() == ["list", "destroy"])
        assert stream.items()[-1]["inferred"] is True


def test_the_reader_s_picture_ends_as_the_kernel_s(ns: Namespace, tmp_path: Path) -> None:
    """Who reads along and keeps a table of what it reads ends with the kernel's table."""
    load(ns, varied(200))
    with Streaming(ns, tmp_path, "--interval", "0.2") as stream:
        stream.wait(lambda: bool(stream.events()))
        for port in range(1, 101):
            insert(ns, protocol="udp", src="192.0.2.1", dst="192.0.2.2", sport=port, dport=9)
        ns.run(["conntrack", "-D", "-p", "udp", "-d", "192.0.2.2", "--sport", "50"])
        ns.run(["conntrack", "-D", "-p", "tcp", "--state", "TIME_WAIT"], check=False)

        def picture() -> set[int]:
            known: dict[int, bool] = {}
            for item in stream.items():
                known[item["id"]] = item["event"] != "destroy"
            return {ident for ident, there in known.items() if there}

        stream.wait(lambda: picture() == {flow["id"] for flow in conntrack_xml(ns)}, "the picture")


def test_via_runs_everything_inside(lab: Lab) -> None:
    with lab.echo_server(5001), lab.tcp_connect(5001) as connection:
        argv = [*PROGRAM, "--once", "--json", "--via", lab.router.via, "-f", f"sport:{connection.port}"]
        result = subprocess.run(argv, capture_output=True, check=True, timeout=60)
    (found,) = [json.loads(line) for line in result.stdout.splitlines()]
    assert found["original"]["src"] == Lab.CLIENT
    assert found["direction"] == "fwd"


def test_a_recording_of_live_traffic_replays_to_the_same_table(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "live.rec"
    with lab.echo_server(5001), Streaming(lab.router, tmp_path, "--record", str(path), "--interval", "0.2") as stream:
        lab.udp_unanswered(9, flows=20)
        stream.wait(lambda: stream.events(protocol="udp").count("new") == 20)
    replay = subprocess.run([*PROGRAM, "--replay", str(path), "--json"], capture_output=True, check=True, timeout=60)
    ours = [json.loads(line) for line in replay.stdout.splitlines()]
    key = [(item["event"], item["id"]) for item in stream.items() if item["event"] != "list"]
    assert [(item["event"], item["id"]) for item in ours if item["event"] != "list"] == key
    assert {item.get("direction") for item in ours} == {"fwd"}


def test_without_privileges(ns: Namespace) -> None:
    nobody = ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"]  # "nobody" may not enter /root
    for mode in ("--once", "--json"):
        result = ns.run([*nobody, *PROGRAM, mode], check=False)
        assert result.returncode == 3
        assert "needs root or CAP_NET_ADMIN" in result.stderr
        assert result.stdout == ""


def test_nothing_is_tracked_and_accounting_is_off(ns: Namespace) -> None:
    result = ns.run([*PROGRAM, "--once"])
    assert "0 entries: either no traffic, or tracking is off" in result.stderr
    ns.sysctl("net.netfilter.nf_conntrack_acct", 0)
    insert(ns, src="192.0.2.1", dst="192.0.2.2", sport=1, dport=80)
    result = ns.run([*PROGRAM, "--once"])
    assert "accounting is off" in result.stderr
    assert "sysctl -w net.netfilter.nf_conntrack_acct=1" in result.stderr


def test_a_namespace_that_does_not_exist() -> None:
    argv = [*PROGRAM, "--once", "--via", "ip netns exec cm-nosuch"]
    result = subprocess.run(argv, capture_output=True, check=False, timeout=60)
    assert result.returncode == 1
    assert b"there is no network namespace 'cm-nosuch'" in result.stderr


def sums(flows: list[dict[str, Any]], key: Any) -> dict[str, tuple[int, int]]:
    """Flows and bytes of each key."""
    count: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for flow in flows:
        count[key(flow)] += 1
        size[key(flow)] += flow["original"].get("bytes", 0) + flow["reply"].get("bytes", 0)
    return {name: (number, size[name]) for name, number in count.items()}


@kernel_mark()
def test_sums_of_a_live_table_are_those_of_its_flows(lab: Lab) -> None:
    with lab.echo_server(5001), lab.echo_server(5300), lab.tcp_connect(5001) as connection:
        connection.exchange(20_000)
        lab.udp_exchange(5300, flows=5)
        lab.ping()
        server = lab.echo_server(Lab.FORWARDED_TO, Lab.CLIENT, lab.client)
        with server, lab.tcp_connect(Lab.FORWARDED_PORT, Lab.WAN, lab.server) as inward:
            inward.exchange(1000)
            flows = once(lab.router)
            views = {name: once(lab.router, "--view", name) for name in ("hosts", "remotes", "services", "countries")}

    def near(flow: dict[str, Any]) -> str:
        inside_out = flow["remote"]["ip"] in (flow["original"]["src"], flow["reply"]["dst"])
        return str(flow["reply" if inside_out else "original"]["src"])

    def service(flow: dict[str, Any]) -> str:
        port = flow["original"].get("dport")
        return str(flow["protocol"]) + (f"/{port}" if port is not None else "")

    for name, first, key in (
        ("hosts", "host", near),
        ("remotes", "remote", lambda flow: flow["remote"]["ip"]),
        ("services", "service", service),
        ("countries", "country", lambda _flow: None),
    ):
        told = {row[first]: (row["flows"], row["bytes_in"] + row["bytes_out"]) for row in views[name]}
        assert told == sums(flows, key), name
    assert {row["host"] for row in views["hosts"]} >= {Lab.CLIENT}
    assert sum(row["share"] for row in views["hosts"]) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("through", ["inside", "via"])
def test_broadcasts_and_local_routes_come_in(ns: Namespace, through: str) -> None:
    """They were "fwd": only the addresses of the interfaces counted as this host's."""
    ns.ip(
        *("link add name lan0 type veth peer name lan1", "link set lan0 up", "link set lan1 up"),
        *("addr add 10.9.0.1/24 brd + dev lan0", "route add local 198.51.100.0/24 dev lo"),
        *("route add local 192.0.2.77 dev lo", "route add local 2001:db8:7::/64 dev lo"),
    )
    ends = ("10.9.0.255", "198.51.100.9", "192.0.2.77", "198.51.101.9", "2001:db8:7::9")
    for number, to in enumerate(ends):
        near = "2001:db8::5" if ":" in to else "10.9.0.5"
        insert(ns, protocol="udp", src=near, dst=to, sport=1000 + number, dport=9)
    insert(ns, protocol="udp", src="10.9.0.1", dst="10.9.0.255", sport=2000, dport=9)
    if through == "inside":
        found = once(ns)
    else:
        done = subprocess.run(
            [*PROGRAM, "--once", "--json", "--via", ns.via], capture_output=True, text=True, check=True, timeout=60
        )
        found = [json.loads(line) for line in done.stdout.splitlines()]
    ways = {(item["original"]["src"] == "10.9.0.1", item["original"]["dst"]): item["direction"] for item in found}
    assert ways == {
        **{(False, to): way for to, way in zip(ends, ("in", "in", "in", "fwd", "in"), strict=True)},
        (True, "10.9.0.255"): "out",  # others hear it, too: it is not "local"
    }


def test_one_listing_has_no_rates(ns: Namespace) -> None:
    """RATE, IN, OUT and NEW/s of a view were 0 there, and rate_in was 0.0."""
    ns.sysctl("net.netfilter.nf_conntrack_acct", 1)
    insert(ns, protocol="udp", src="10.9.0.5", dst="192.0.2.7", sport=1000, dport=9)
    (row,) = once(ns, "--view", "hosts")
    assert row["flows"] == 1
    assert not {"rate_in", "rate_out", "new_per_second"} & row.keys()
    text = ns.run([*PROGRAM, "--once", "--view", "hosts"]).stdout.splitlines()
    assert text[1].split()[2:6] == ["-"] * 4


def test_two_listings_have_rates(ns: Namespace) -> None:
    ns.sysctl("net.netfilter.nf_conntrack_acct", 1)
    insert(ns, protocol="udp", src="10.9.0.5", dst="192.0.2.7", sport=1000, dport=9)
    (row,) = once(ns, "--view", "hosts", "--sample", "0.3")
    assert ("rate_in" in row, "new_per_second" in row) == (True, False)
