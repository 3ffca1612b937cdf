"""Every view on live traffic through a NAT router in namespaces, and on the bundled recording."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from faults import OnScreen
from lab import Lab, Namespace, kernel_mark
from terminal import PROGRAM, Terminal
from test_faults_kernel import inside

from columns import VIEWS

RECORDING = Path(__file__).parent.parent / "fixtures/demo.rec"
SIZES = ((80, 24), (140, 40), (200, 50), (40, 10))


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


def once(ns: Namespace, *args: str) -> list[dict[str, Any]]:
    result = ns.run([*PROGRAM, "--once", "--json", *args])
    return [json.loads(line) for line in result.stdout.splitlines()]


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


@kernel_mark()
def test_every_view_on_the_screen_over_live_traffic(lab: Lab, tmp_path: Path) -> None:
    with (
        lab.echo_server(5001),
        lab.echo_server(5300),
        OnScreen(tmp_path, "--interval", "0.5", size=(150, 40), program=inside(lab.router)) as screen,
    ):
        screen.wait("● live")
        with lab.tcp_connect(5001) as connection:
            connection.exchange(20_000)
            lab.udp_exchange(5300, flows=3)
            screen.type("2")
            screen.wait(lambda: Lab.CLIENT in screen.text and "Hosts ·" in screen.text)
            screen.type("5")
            screen.wait(lambda: "udp/5300" in screen.text and "tcp/5001" in screen.text)
            screen.type("6")
            screen.wait(lambda: f"{Lab.CLIENT}:{connection.port}" in screen.text and "masq" in screen.text)
            screen.type("7")
            screen.wait(lambda: "NEW" in screen.text and "ESTABLISHED" in screen.text)
            screen.type("3")
            screen.wait(lambda: "unknown" in screen.text and "Countries ·" in screen.text)
            screen.type("8")
            screen.wait("there is no city database")
            screen.type("H")
            screen.wait(lambda: Lab.CLIENT in screen.text and "assured" in screen.text)
            screen.type("\x1b")
            screen.wait("Map ·")  # Esc and the next key at once are Alt and that key
            port = connection.port
            connection.close()
        lab.router.run(["conntrack", "-D", "-p", "tcp", "--sport", str(port)])
        screen.type("6")
        screen.type(f"/wan:{Lab.WAN}:{port}\r")  # who was it?
        screen.wait(lambda: f"{Lab.CLIENT}:{port}" in screen.text and "closed" in screen.text)
        screen.leave()


def heads(screen: Terminal, title: str) -> bool:
    return any(line.startswith(f"{title} ·") for line in screen.screen.display)


@pytest.mark.parametrize("size", SIZES)
def test_every_view_of_the_recording_at_every_size(size: tuple[int, int]) -> None:
    with Terminal("--replay", str(RECORDING), "--speed", "0", "--no-download", size=size) as screen:
        screen.wait("Connections · ")
        for kind in VIEWS:
            if kind.key:
                screen.type(kind.key)
                screen.wait(partial(heads, screen, kind.title))
        screen.type("q")
        assert screen.end() == 0


@pytest.mark.parametrize("kind", [kind for kind in VIEWS if kind.rows != "map"], ids=lambda kind: kind.name)
def test_every_view_of_the_recording_in_a_pipe(kind: Any) -> None:
    lines: dict[str, list[str]] = {}
    for form in ("--json", "--csv", "--no-color"):
        args = [*PROGRAM, "--replay", str(RECORDING), "--no-download", "--once", "--view", kind.name, form]
        lines[form] = subprocess.run(args, capture_output=True, check=True, text=True).stdout.splitlines()
    items = [json.loads(line) for line in lines["--json"]]
    assert len(items) > 0
    assert len(lines["--csv"]) == len(lines["--no-color"]) == len(items) + 1
    assert lines["--no-color"][0].split()[0] == kind.columns[0].title


def test_a_view_goes_with_once_or_the_screen() -> None:
    args = [*PROGRAM, "--replay", str(RECORDING), "--view", "hosts", "--json"]
    result = subprocess.run(args, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "a view goes with --once or on the screen" in result.stderr
