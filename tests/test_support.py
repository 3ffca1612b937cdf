"""The laboratory really makes the flows it promises, or all tests on top of it prove nothing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from support import kernel as kernel
from support.kernel import (
    JsonFlow,
    Lab,
    LabError,
    Namespace,
    comparable,
    conntrack_xml,
    insert,
    insert_arguments,
    kernel_mark,
    listeners,
    load,
    matches,
    needs_kernel,
)
from support.waiting import GaveUp, wait_for


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


@pytest.fixture
def ns() -> Iterator[Namespace]:
    with Namespace() as made:
        yield made


def only(ns: Namespace, **wanted: Any) -> JsonFlow:
    """The one flow with these fields."""
    (found,) = [flow for flow in conntrack_xml(ns) if matches(flow, wanted)]
    return found


# --- real traffic ---------------------------------------------------------------------------------


@needs_kernel
def test_tcp_through_the_router_is_masqueraded_and_counted(lab: Lab) -> None:
    with lab.echo_server(5001), lab.tcp_connect(5001) as connection:
        connection.exchange(100_000)
        flow = lab.wait_flow(original={"sport": connection.port}, state="ESTABLISHED")
    assert flow["original"]["src"] == Lab.CLIENT
    assert flow["original"]["dst"] == flow["reply"]["src"] == Lab.SERVER
    assert flow["reply"]["dst"] == Lab.WAN  # source NAT
    assert flow["flags"] == ["ASSURED"]
    assert flow["original"]["bytes"] > 100_000
    assert flow["reply"]["bytes"] > 100_000


@needs_kernel
def test_a_closed_connection_waits_and_a_reset_one_is_closed(lab: Lab) -> None:
    with (
        lab.echo_server(5002),
        lab.tcp_connect(5002) as first,
        lab.tcp_connect(5002) as second,
    ):
        first.close()
        second.reset()
        lab.wait_flow(original={"sport": first.port}, state="TIME_WAIT")
        lab.wait_flow(original={"sport": second.port}, state="CLOSE")


@needs_kernel
def test_dnat_leads_to_the_client(lab: Lab) -> None:
    server = lab.echo_server(Lab.FORWARDED_TO, Lab.CLIENT, lab.client)
    with server, lab.tcp_connect(Lab.FORWARDED_PORT, Lab.WAN, lab.server) as connection:
        connection.exchange(10)
        flow = lab.wait_flow(original={"sport": connection.port})
    assert (flow["original"]["dst"], flow["original"]["dport"]) == (Lab.WAN, Lab.FORWARDED_PORT)
    assert (flow["reply"]["src"], flow["reply"]["sport"]) == (Lab.CLIENT, Lab.FORWARDED_TO)


@needs_kernel
def test_ipv6_goes_without_nat(lab: Lab) -> None:
    with lab.echo_server(5003, Lab.SERVER6), lab.tcp_connect(5003, Lab.SERVER6) as connection:
        flow = lab.wait_flow(family="ipv6", original={"sport": connection.port})
    assert flow["original"]["src"] == flow["reply"]["dst"] == Lab.CLIENT6


@needs_kernel
def test_udp_flows_answered_and_not(lab: Lab) -> None:
    with lab.echo_server(5004):
        answered = lab.udp_exchange(5004, flows=3, rounds=2)
    silent = lab.udp_unanswered(5005, flows=2)
    table = lab.table()
    # The lab is that of all tests here: a flow of another one may have the same source port.
    ends = {(flow["protocol"], *(flow["original"].get(end) for end in ("sport", "dport"))): flow for flow in table}
    assert [ends["udp", port, 5004]["flags"] for port in answered] == [[], [], []]
    assert [ends["udp", port, 5005]["flags"] for port in silent] == [["UNREPLIED"]] * 2
    assert len({*answered, *silent}) == 5


@needs_kernel
@pytest.mark.parametrize(("address", "protocol"), [(Lab.SERVER, "icmp"), (Lab.SERVER6, "icmpv6")], ids=["4", "6"])
def test_ping_is_one_flow(lab: Lab, address: str, protocol: str) -> None:
    lab.ping(address, identifier=4242, count=3)
    flow = lab.wait_flow(protocol=protocol, original={"dst": address, "packets": 3})
    assert flow["reply"]["packets"] == 3
    # XML does not say the identifier; the text does.
    text = lab.router.run(["conntrack", "-L", "-p", protocol]).stdout
    assert " id=4242 " in text


@needs_kernel
def test_half_open_and_refused(lab: Lab) -> None:
    ports = lab.half_open(5006, flows=4)
    for port in ports:
        flow = lab.wait_flow(original={"sport": port})
        assert (flow["state"], flow["flags"]) == ("SYN_SENT", ["UNREPLIED"])
    assert len(lab.refused(5007)) == 1


@needs_kernel
def test_marks_and_zones(lab: Lab) -> None:
    lab.add_mark("udp", 5010, 0x10)
    lab.add_zone("udp", 5011, 3)
    lab.add_zone("udp", 5012, 4, "original")
    lab.add_zone("udp", 5013, 5, "reply")
    for port in (5010, 5011, 5012, 5013):
        with lab.echo_server(port):
            lab.udp_exchange(port, rounds=2)
    flows = {port: lab.wait_flow(original={"dport": port}) for port in (5010, 5011, 5012, 5013)}
    assert [flow["flags"] for flow in flows.values()] == [[]] * 4  # answered, all of them
    assert flows[5010]["mark"] == 0x10
    assert flows[5011]["zone"] == 3
    assert flows[5012]["original"]["zone_orig"] == 4
    assert flows[5013]["reply"]["zone_reply"] == 5


@needs_kernel
def test_accounting_and_timestamps_hold_for_new_flows_only() -> None:
    with Lab(accounting=False) as lab, lab.echo_server(5020):
        (old,) = lab.udp_exchange(5020)
        lab.accounting(True)
        lab.timestamps(True)
        (new,) = lab.udp_exchange(5020)
        before = lab.wait_flow(original={"sport": old})
        after = lab.wait_flow(original={"sport": new})
        (started,) = [
            flow.get("start") for flow in conntrack_xml(lab.router, start=True) if flow["original"]["sport"] == new
        ]
    assert "packets" not in before["original"]
    assert "delta_time" not in before
    assert after["original"]["packets"] == 1
    assert after["delta_time"] >= 0
    assert started


@needs_kernel
def test_a_listener_is_seen_and_hears(lab: Lab) -> None:
    events = lab.router.popen(["conntrack", "-E", "-o", "id"])
    assert events.stdout is not None
    wait_for(lambda: listeners(lab.router) == 1, what="the listener")
    with lab.echo_server(5021):
        (port,) = lab.udp_exchange(5021)
    line = events.stdout.readline()
    assert b"[NEW] udp" in line
    assert f"sport={port} dport=5021".encode() in line
    kernel.stop_process(events)
    wait_for(lambda: listeners(lab.router) == 0, what="the listener's end")


# --- entries by hand ------------------------------------------------------------------------------


@needs_kernel
def test_an_empty_table_is_an_empty_list(ns: Namespace) -> None:
    assert conntrack_xml(ns) == []


V4 = {"src": "192.168.1.5", "dst": "8.8.8.8"}
V6 = {"src": "2001:db8::5", "dst": "2001:4860:4860::8888"}
PORTS = {"sport": 40000, "dport": 443}
ENTRIES: dict[str, tuple[dict[str, object], dict[str, Any]]] = {
    "tcp": (
        {**V4, **PORTS, "flags": ("SEEN_REPLY", "ASSURED"), "mark": 16},
        {"state": "ESTABLISHED", "flags": ["ASSURED"], "mark": 16, "original": {**V4, **PORTS}},
    ),
    "tcp6": ({**V6, **PORTS, "state": "SYN_SENT"}, {"family": "ipv6", "state": "SYN_SENT"}),
    "udp": ({"protocol": "udp", **V4, **PORTS}, {"protocol": "udp", "flags": ["UNREPLIED"]}),
    "icmp": (
        {"protocol": "icmp", **V4, "type": 8, "code": 0, "icmp_id": 7},
        {"protocol": "icmp", "protocol_number": 1, "original": V4},
    ),
    "icmpv6": (
        {"protocol": "icmpv6", **V6, "type": 128, "code": 0, "icmp_id": 7},
        {"protocol": "icmpv6", "protocol_number": 58, "original": V6},
    ),
    "sctp": ({"protocol": "sctp", **V4, **PORTS}, {"protocol": "sctp", "protocol_number": 132}),
    "gre": (
        {"protocol": "gre", **V4, "srckey": "0x1", "dstkey": "0x2"},
        {"protocol": "gre", "reply": {"srckey": "0x2", "dstkey": "0x1"}},
    ),
    "esp": ({"protocol": 50, **V4}, {"protocol": "unknown", "protocol_number": 50}),
    "zone": ({**V4, **PORTS, "zone": 3}, {"zone": 3}),
    "zone-orig": ({**V4, **PORTS, "zone_orig": 4}, {"original": {"zone_orig": 4}}),
    "zone-reply": ({**V4, **PORTS, "zone_reply": 5}, {"reply": {"zone_reply": 5}}),
    "snat": (
        {**V4, **PORTS, "src_nat": "203.0.113.1:4000"},
        {"reply": {"dst": "203.0.113.1", "dport": 4000}},
    ),
    "dnat": (
        {"src": "9.9.9.9", "dst": "203.0.113.1", **PORTS, "dst_nat": "192.168.1.9:80"},
        {"reply": {"src": "192.168.1.9", "sport": 80}},
    ),
    "snat6": (
        {**V6, **PORTS, "src_nat": "[2001:db8:1::1]:99"},
        {"reply": {"dst": "2001:db8:1::1", "dport": 99}},
    ),
}


@needs_kernel
@pytest.mark.parametrize(("fields", "wanted"), ENTRIES.values(), ids=ENTRIES)
def test_insert(ns: Namespace, fields: dict[str, object], wanted: dict[str, Any]) -> None:
    insert(ns, **fields)
    (flow,) = conntrack_xml(ns)
    assert matches(flow, wanted), flow


@needs_kernel
def test_insert_says_why_not(ns: Namespace) -> None:
    insert(ns, **V4, **PORTS)
    with pytest.raises(LabError, match="Such conntrack exists"):
        insert(ns, **V4, **PORTS)
    with pytest.raises(LabError, match="conntrack -I has no colour"):
        insert(ns, colour="red")


@needs_kernel
def test_load_many(ns: Namespace) -> None:
    hosts = [f"198.18.{i // 250}.{i % 250 + 1}" for i in range(1000)]
    load(
        ns,
        ("-I " + " ".join(insert_arguments(src=host, dst="192.0.2.1", **PORTS)) for host in hosts),
    )
    assert sorted(flow["original"]["src"] for flow in conntrack_xml(ns)) == sorted(hosts)


# --- the house itself -----------------------------------------------------------------------------


def namespaces() -> set[str]:
    """The namespaces of this process: others may come and go meanwhile."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    names = {line.split()[0] for line in listed.stdout.splitlines()}
    return {name for name in names if name.startswith(f"cm-{os.getpid()}-")}


@needs_kernel
def test_nothing_is_left_behind_even_after_an_error() -> None:
    lab = Lab()
    names = {lab.client.name, lab.router.name, lab.server.name}
    processes: list[subprocess.Popen[bytes]] = []

    def break_off() -> None:
        with lab:
            assert names <= namespaces()
            processes.append(lab.echo_server(5030).process)
            processes.append(lab.router.popen(["sleep", "100"]))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_off()
    assert not names & namespaces()
    assert [process.poll() is not None for process in processes] == [True, True]


@needs_kernel
def test_a_lab_that_cannot_be_built_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "RULES", "nonsense")
    before = namespaces()
    with pytest.raises(LabError, match="nft -f"), Lab():
        pytest.fail("it was built")
    assert namespaces() == before


@needs_kernel
def test_a_dead_agent_tells_its_reason(lab: Lab) -> None:
    with pytest.raises(LabError, match="ConnectionRefusedError"):
        lab.tcp_connect(5031)


def test_without_root_tests_skip_but_not_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.delenv("CI", raising=False)
    mark = kernel_mark()
    assert mark.args == (True,)
    assert mark.kwargs == {"reason": "network namespaces need root"}
    monkeypatch.setenv("CI", "true")
    assert kernel_mark().args == (False,)
    with pytest.raises(LabError, match="need root"), Namespace():
        pytest.fail("it was made")


def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", "/nowhere")
    assert kernel.missing() == "not installed: ip, nft, conntrack"


def test_waiting_in_vain_says_for_what() -> None:
    with pytest.raises(GaveUp, match="for rain; last seen: 0"):
        wait_for(lambda: 0, timeout=0.0, what="rain")


def test_comparable_drops_what_xml_cannot_say() -> None:
    record = {
        "protocol": "sctp",
        "state": "ESTABLISHED",
        "timeout": 3,
        "flags": ["UNREPLIED", "OFFLOAD"],
        "original": {"src": "192.0.2.1", "icmp_id": 3},
    }
    assert comparable(record) == {
        "protocol": "sctp",
        "flags": ["UNREPLIED"],
        "original": {"src": "192.0.2.1"},
    }
