"""JSON lines in ClickHouse's engine (PyPI's chdb-core), by the SQL of contrib/clickhouse: who had an address and a port?"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from support.engines import needs_engine, of_kernel, recipe, traffic
from support.kernel import Lab, kernel_mark, listeners
from support.program import Piped
from support.terminal import ROOT
from support.waiting import wait_for

INSTALL = ".venv/bin/pip install --no-deps -r tests/requirements-clickhouse.txt"
pytestmark = needs_engine(modules={"chdb": INSTALL})
SESSION = """
import sys
from chdb import session
its = session.Session(sys.argv[1])
for query in sys.argv[2:]:
    sys.stdout.write(its.query(query, "JSONEachRow").bytes().decode())
"""


def asked(folder: Path, *queries: str) -> list[dict[str, Any]]:
    """What the engine says, whose tables are in the folder."""
    argv = [sys.executable, "-c", SESSION, str(folder / "data"), *(query.rstrip().rstrip(";") for query in queries)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line]


def stored(folder: Path, path: Path) -> None:
    forever = {"INTERVAL 30 DAY": "INTERVAL 10000 DAY"}  # the demonstration is of November 2026
    asked(folder, recipe("clickhouse/schema.sql", forever), recipe("clickhouse/insert.sql", {"stream.json": str(path)}))


def who(folder: Path, address: str, port: int, moment: datetime) -> list[dict[str, Any]]:
    text = f"{moment.astimezone(timezone.utc):%Y-%m-%d %H:%M:%S.%f}"
    changes = {"'203.0.113.1' AS": f"'{address}' AS", "40824 AS": f"{port} AS", "2026-11-24 14:02:30'": f"{text}'"}
    return asked(folder, recipe("clickhouse/who.sql", changes))


def moments(line: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(line["time"].replace("Z", "+00:00"))


@kernel_mark()
def test_the_inside_host_of_a_port_at_a_time(tmp_path: Path) -> None:
    """Of a real router's stream: of a connection that it masqueraded, and of one that it forwarded inside."""
    with Lab() as lab:
        words = ("--no-config", "--via", lab.router.via, "--node", "r7", "--only", "new,destroy")
        with Piped(tmp_path, *words) as running, lab.echo_server(Lab.FORWARDED_TO, lab.CLIENT, lab.client):
            wait_for(lambda: listeners(lab.router))
            port = traffic(lab)
            with lab.tcp_connect(Lab.FORWARDED_PORT, lab.WAN, lab.server) as forwarded:
                forwarded.exchange(3000)
                kernel = of_kernel(lab)
                flows = lab.table()
                lab.router.run(["conntrack", "-F"])
                running.wait(lambda: running.out.read_bytes().count(b'"destroy"') >= len(flows))
            running.leave()
    stored(tmp_path, running.out)
    sums = "SELECT sum(original.bytes) AS there, sum(reply.bytes) AS back FROM conntrack "
    (found,) = asked(tmp_path, sums + "WHERE event = 'destroy' AND protocol IN ('tcp', 'udp')")
    assert int(found["there"]) == sum(flow[4] for flow in kernel) > 20_000
    assert int(found["back"]) == sum(flow[5] for flow in kernel) > 20_000
    lines = [json.loads(line) for line in running.out.read_bytes().splitlines()]
    its = [line for line in lines if line["protocol"] == "tcp" and line["reply"]["dport"] == port]
    began, ended = moments(its[0]), moments(its[-1])
    middle, moment = began + (ended - began) / 2, timedelta(microseconds=1)
    for at, there in ((began - moment, 0), (began, 1), (middle, 1), (ended, 1), (ended + moment, 0)):
        rows = who(tmp_path, Lab.WAN, port, at)
        assert len(rows) == there, (at, rows)
        assert all((row["node"], row["inside"], row["remote"]) == ("r7", Lab.CLIENT, Lab.SERVER) for row in rows)
    ended = max(moments(line) for line in lines if line["original"].get("dport") == Lab.FORWARDED_PORT)
    (row,) = who(tmp_path, Lab.WAN, Lab.FORWARDED_PORT, ended)
    assert (row["inside"], row["inside_port"], row["remote"]) == (Lab.CLIENT, Lab.FORWARDED_TO, Lab.SERVER)
    assert who(tmp_path, Lab.WAN, 9, middle) == []


def test_every_line_is_a_row_and_what_was_not_seen_is_null(tmp_path: Path) -> None:
    """Of the demonstration, packed by gzip; of two nodes, and of a flow whose beginning nobody saw."""
    from support.engines import spoken

    text = spoken("--replay", ROOT / "fixtures" / "demo.rec", "--json", "--node", "r1", folder=tmp_path)
    ended = next(
        line
        for line in text.splitlines()
        if b'"event":"destroy"' in line and b'"nat":["snat"]' in line and b'"tcp"' in line
    )
    alert = b'{"node":"r1","time":"2026-11-23T06:30:00.000000Z","event":"alert","alert":"a","value":0.5,"text":"t"}\n'
    (tmp_path / "lines.json.gz").write_bytes(gzip.compress(text + ended.replace(b'"r1"', b'"r2"') + b"\n" + alert))
    stored(tmp_path, tmp_path / "lines.json.gz")
    (found,) = asked(
        tmp_path, "SELECT count() AS rows, uniqExact(node) AS nodes, countIf(event = 'alert') AS alerts FROM conntrack"
    )
    assert {name: int(number) for name, number in found.items()} == {
        "rows": text.count(b"\n") + 2,
        "nodes": 2,
        "alerts": 1,
    }
    flow = json.loads(ended)
    rows = who(tmp_path, flow["reply"]["dst"], flow["reply"]["dport"], moments(flow))
    (other,) = [row for row in rows if row["node"] == "r2"]
    assert (other["inside"], other["began"]) == (flow["original"]["src"], None)
    assert other["ended"].replace(" ", "T") + "Z" == flow["time"]
