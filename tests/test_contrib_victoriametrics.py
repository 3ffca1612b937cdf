"""VictoriaMetrics in Prometheus's place, by the commands and files of contrib/prometheus."""

from __future__ import annotations

import json
import re
import shlex
import sys
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest

from support.engines import CONTRIB, needs_engine
from support.kernel import Lab, Namespace, kernel_mark
from support.program import Piped, changed
from support.waiting import wait_for

pytestmark = [kernel_mark(), needs_engine("victoria-metrics", "vmalert", "prometheus-node-exporter")]
README = (CONTRIB / "prometheus" / "README.md").read_text(encoding="utf-8")
GET = "import sys, urllib.request as r; print(r.build_opener(r.ProxyHandler({})).open(sys.argv[1], timeout=9).read().decode())"


def command(program: str, changes: dict[str, str]) -> list[str]:
    """The README's command that starts a program, with other words for some: each must stand in it."""
    found = re.search(rf"^    ({program} (?:.*\\\n)*.*)$", README, re.M)
    assert found
    text = found[1].replace("\\\n", " ")
    for before, after in changes.items():
        assert before in text
        text = text.replace(before, after)
    return shlex.split(text)


def fetched(namespace: Namespace, url: str) -> str:
    """What a server in the namespace answers; "" while there is none."""
    return namespace.run([sys.executable, "-I", "-S", "-c", GET, url], check=False).stdout


def numbers(namespace: Namespace, query: str) -> list[float]:
    """What VictoriaMetrics says to a query: the value of each series."""
    text = fetched(namespace, f"http://127.0.0.1:8428/api/v1/query?query={quote(query)}")
    return [float(its["value"][1]) for its in json.loads(text)["data"]["result"]] if text else []


def alerts(namespace: Namespace) -> set[str]:
    text = fetched(namespace, "http://127.0.0.1:8880/api/v1/alerts")
    return {its["name"] for its in json.loads(text)["data"]["alerts"] or ()} if text else set()


def counted(lab: Lab) -> float:
    return float(lab.router.run(["cat", "/proc/sys/net/netfilter/nf_conntrack_count"]).stdout)


def test_victoriametrics_has_what_the_kernel_has(tmp_path: Path) -> None:
    """The whole way: kernel, program, node_exporter, VictoriaMetrics, and vmalert with the same rules."""
    folder, shelf, path = (tmp_path / name for name in ("contrib", "shelf", "shelf/conntrack.prom"))
    for made in (folder, shelf):
        made.mkdir()
    for name in ("prometheus.yml", "conntrack-monitor.rules.yml"):
        text = (CONTRIB / "prometheus" / name).read_text(encoding="utf-8")
        (folder / name).write_text(text.replace("15s", "1s"))
    place = {"contrib/prometheus": str(folder)}
    argvs = (
        command("prometheus-node-exporter", {"/var/lib/prometheus/node-exporter": str(shelf)}),
        [
            *command("victoria-metrics", {"/var/lib/victoria-metrics": str(tmp_path / "data"), **place}),
            *("-loggerLevel=ERROR", "-search.latencyOffset=1s"),
        ],
        [*command("vmalert", {"15s": "1s", **place}), "-remoteWrite.flushInterval=1s", "-loggerLevel=ERROR"],
    )
    program = changed("import run; run.METRICS_EVERY = 0.5")
    with Lab() as lab, Namespace("vm") as loopback, lab.echo_server(7):
        words = ("--no-config", "--via", lab.router.via, "--node", "r7", "--interval", "0.2", "--metrics", path)
        with Piped(tmp_path, *words, program=program, mode=("--headless",)) as running:
            lab.udp_exchange(7, flows=30)
            running.wait(path.exists)
            with open(tmp_path / "said", "wb") as said:
                for argv, port in zip(argvs, (9100, 8428, 8880)):
                    loopback.popen(argv, stderr=said)
                    wait_for(partial(fetched, loopback, f"http://127.0.0.1:{port}/metrics"))
                wait_for(
                    lambda: numbers(loopback, "conntrack_monitor_entries") == [counted(lab)],
                    lambda: (numbers(loopback, "conntrack_monitor_entries"), (tmp_path / "said").read_text()),
                )
            assert counted(lab) >= 30
            assert numbers(loopback, 'conntrack_monitor_flows{protocol="udp",node="r7"}') == [30]
            ratio = "conntrack_monitor:fill:ratio"
            wait_for(lambda: numbers(loopback, ratio))
            assert numbers(loopback, f"{ratio} * conntrack_monitor_limit") == [pytest.approx(counted(lab))]
            assert alerts(loopback) == set()
            running.leave()
        wait_for(lambda: numbers(loopback, "conntrack_monitor_up") == [0])
        wait_for(lambda: alerts(loopback) == {"ConntrackMonitorDown"}, lambda: alerts(loopback))
