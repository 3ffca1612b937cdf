"""Commands that are proposed for databases, typed as they are said: after them the notice is gone."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows import FlowTable
from health import notices_of, panel
from intake import Lost
from support.http import Server, serving
from support.program import environment
from support.tables import intake_of
from support.terminal import PROGRAM

make_mmdb = pytest.importorskip("support.mmdb", reason="needs mmdb-writer and netaddr")
FLOW = (
    "ipv4     2 tcp      6 431999 ESTABLISHED src=10.0.0.5 dst=8.8.8.8 sport=1 dport=443 "
    "src=8.8.8.8 dst=10.0.0.5 sport=443 dport=1 [ASSURED] mark=0 use=1 id=1\n"
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    shelf = make_mmdb.make(tmp_path / "shelf", "dbip-city-lite.mmdb", "dbip-asn-lite.mmdb")
    with serving() as made:
        for kind in ("city", "asn"):
            packed = gzip.compress((shelf / f"dbip-{kind}-lite.mmdb").read_bytes())
            made.serve(kind, time.strftime("%Y-%m", time.gmtime()), packed)
        yield made


def shell_of(folder: Path, server: Server) -> dict[str, str]:
    """The environment of a shell that knows nothing of how the program was started."""
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "")
    env = {**os.environ, **environment(folder), **proxies, "CONNTRACK_MONITOR_GEOIP_URL": server.url}
    env.pop("GEOIP_DB_PATHS", None)
    env.pop("CONNTRACK_MONITOR_CALLED", None)
    return {**env, "HOME": str(folder / "home"), "XDG_CACHE_HOME": str(folder / "home"), "XDG_CONFIG_HOME": str(folder)}


READS_SETTINGS = [
    pytest.mark.toml,
    pytest.mark.skipif(sys.version_info < (3, 11), reason="reading settings needs tomllib, Python 3.11"),
]


@pytest.mark.parametrize(
    "where",
    [
        *("option", "GEOIP_DB_PATHS", "CONNTRACK_MONITOR_GEOIP_DB", "no settings", "no download"),
        pytest.param("settings", marks=READS_SETTINGS),
    ],
)
def test_databases_are_fetched_to_where_they_are_looked_for(tmp_path: Path, server: Server, where: str) -> None:
    # click takes blanks in that variable for ends of paths
    name = "databases" if where == "CONNTRACK_MONITOR_GEOIP_DB" else "my databases"
    folder, recording = tmp_path / name, tmp_path / "one.rec"
    folder.mkdir()
    recording.write_text(FLOW)
    shell, env, options = shell_of(tmp_path, server), {}, ["--geoip-db", str(folder)]
    if where in ("settings", "no settings"):
        (tmp_path / "conntrack-monitor").mkdir()
        other = folder if where == "settings" else tmp_path / "elsewhere"
        (tmp_path / "conntrack-monitor" / "config.toml").write_text(f'geoip-db = ["{other}"]\nno-download = true\n')
        options = [] if where == "settings" else [*options, "--no-config"]
    elif where == "no download":
        shell["CONNTRACK_MONITOR_NO_DOWNLOAD"] = "1"
    elif where != "option":
        env, options = {where: str(folder)}, []
    run = [*PROGRAM, "--replay", str(recording), "--once", "--json", *options]
    before = subprocess.run(run, env={**shell, **env}, capture_output=True, text=True, check=True)
    assert "no GeoIP database; try: " in before.stderr
    assert "Mountain View" not in before.stdout
    cure = before.stderr.partition("; try: ")[2].strip()
    subprocess.run(cure, shell=True, check=True, env=shell, capture_output=True, cwd=os.getcwd())
    assert (folder / "dbip-city-lite.mmdb").exists()
    after = subprocess.run(run, env={**shell, **env}, capture_output=True, text=True, check=True)
    assert "GeoIP" not in after.stderr
    assert "Mountain View" in after.stdout


@pytest.mark.parametrize(("narrow", "live"), [(True, True), (False, True), (True, False)])
def test_a_larger_buffer_is_proposed_where_ours_could_not_be_widened(narrow: bool, live: bool) -> None:
    """With 16 MiB in use, net.core.rmem_default=8388608 mends nothing."""
    status = intake_of(Lost(1.0, "events (ENOBUFS)", narrow)).status
    [notice] = notices_of(status, FlowTable(), live, 2.0)
    assert bool(notice.cure) == (narrow and live)
    [row] = [row for row in panel(status, FlowTable(), None, 2.0, live) if row.label == "events lost"]
    assert bool(row.cure) == (narrow and live)
