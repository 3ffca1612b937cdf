"""Geography in the running program: found, fetched, swapped, shown, exported, without ever being in the way."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import maxminddb
import pytest

import download
import geography
import geoip
from geoip import attributions_of_files
from support.http import Handler, Server, serving
from support.kernel import Namespace, insert_arguments, kernel_mark, load
from support.terminal import PROGRAM, Terminal

make_mmdb = pytest.importorskip("support.mmdb", reason="needs mmdb-writer and netaddr")

DBIP = "IP Geolocation by DB-IP (https://db-ip.com), CC BY 4.0"
LINES = "".join(
    f"ipv4     2 tcp      6 431999 ESTABLISHED src=10.0.0.5 dst={address} sport={port} dport=443 "
    f"src={address} dst=10.0.0.5 sport=443 dport={port} [ASSURED] mark=0 use=1 id={port}\n"
    for port, address in enumerate(
        ["8.8.8.8", "8.1.2.3", "192.168.7.7", "224.0.0.251", "100.64.3.4", "169.254.9.9"], 1000
    )
)


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = make_mmdb.make(tmp_path_factory.mktemp("shelf"))
    return folder


@pytest.fixture
def recording(tmp_path: Path) -> str:
    path = tmp_path / "some.rec"
    path.write_text(LINES)
    return str(path)


@pytest.fixture
def server(shelf: Path) -> Iterator[Server]:
    with serving() as made:
        month = time.strftime("%Y-%m", time.gmtime())
        for kind in ("city", "asn"):
            made.serve(kind, month, gzip.compress((shelf / f"dbip-{kind}-lite.mmdb").read_bytes()))
        yield made


def environment(tmp_path: Path, server: Server | None = None) -> dict[str, str]:
    """Nothing of this machine's: an empty folder, an empty cache, the server on this host."""
    env = {"GEOIP_DB_PATHS": str(tmp_path / "geo"), "XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    env |= dict.fromkeys(("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "")
    if server:
        env["CONNTRACK_MONITOR_GEOIP_URL"] = server.url
    (tmp_path / "geo").mkdir(exist_ok=True)
    return env


def run(tmp_path: Path, *args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    whole = {**os.environ, **environment(tmp_path), **(env or {})}
    return subprocess.run([*PROGRAM, *args], capture_output=True, text=True, timeout=60, env=whole, check=False)


def remotes(result: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    items = [json.loads(line) for line in result.stdout.splitlines()]
    return {item["remote"]["ip"]: item["remote"] for item in items}


# --- pipes: what is there is used, nothing is fetched ---------------------------------------------------------------------


def test_json_says_where_the_remote_end_is(tmp_path: Path, shelf: Path, recording: str) -> None:
    result = run(tmp_path, "--replay", recording, "--once", "--json", "--geoip-db", str(shelf / "dbip-city-lite.mmdb"))
    found = remotes(result)
    assert found["8.8.8.8"] == {
        "ip": "8.8.8.8",
        "country": "US",
        "country_name": "United States",
        "city": "Mountain View",
    }
    both = run(tmp_path, "--replay", recording, "--json", env={"GEOIP_DB_PATHS": str(shelf)})
    assert remotes(both)["8.8.8.8"]["asn"] == 15169
    assert found["192.168.7.7"] == {"ip": "192.168.7.7"}


def test_without_a_database_it_says_once_how_to_get_one(tmp_path: Path, recording: str) -> None:
    for mode in (["--once"], ["--json"], ["--csv"], ["--once", "--json"]):
        result = run(tmp_path, "--replay", recording, *mode, env={"CONNTRACK_MONITOR_GEOIP_URL": "http://127.0.0.1:1"})
        assert result.returncode == 0
        assert result.stderr.count("--update-geoip") == 1
        assert "no GeoIP database" in result.stderr
    assert list((tmp_path / "geo").iterdir()) == []
    # The one file keeps its bytecode there, and nothing else.
    assert {path.name for path in (tmp_path / "cache").glob("conntrack-monitor/*")} <= {"code"}


def test_a_broken_database_is_named_and_the_next_one_answers(tmp_path: Path, shelf: Path, recording: str) -> None:
    env = environment(tmp_path)
    (tmp_path / "geo" / "GeoLite2-City.mmdb").write_bytes(b"no database")
    shutil.copy(shelf / "dbip-city-lite.mmdb", tmp_path / "geo")
    result = run(tmp_path, "--replay", recording, "--once", "--json", env=env)
    assert "GeoLite2-City.mmdb skipped" in result.stderr
    assert remotes(result)["8.8.8.8"]["city"] == "Mountain View"


def test_filters_and_sorting_know_places(tmp_path: Path, shelf: Path, recording: str) -> None:
    env = {"GEOIP_DB_PATHS": f"{shelf}/dbip-city-lite.mmdb:{shelf}/dbip-asn-lite.mmdb"}
    for expression, addresses in (
        ("country:us", {"8.8.8.8", "8.1.2.3"}),
        ("asn:15169", {"8.8.8.8"}),
        ("org:google", {"8.8.8.8"}),
        ("city:monroe", {"8.1.2.3"}),
        ("mountain", {"8.8.8.8"}),
        ("!country:us", {"192.168.7.7", "224.0.0.251", "100.64.3.4", "169.254.9.9"}),
    ):
        result = run(tmp_path, "--replay", recording, "--once", "--json", "-f", expression, env=env)
        assert remotes(result).keys() == addresses, expression
    result = run(tmp_path, "--replay", recording, "--once", "--json", "--sort", "cc", env=env)
    assert list(remotes(result))[:2] == ["8.8.8.8", "8.1.2.3"] or list(remotes(result))[:2] == ["8.1.2.3", "8.8.8.8"]


def test_version_and_help_name_the_publishers(tmp_path: Path, shelf: Path) -> None:
    assert run(tmp_path, "--version").stdout.count("\n") == 1
    shutil.copy(shelf / "dbip-city-lite.mmdb", tmp_path / "geo")
    assert DBIP in run(tmp_path, "--version").stdout
    assert "DB-IP" in run(tmp_path, "--help").stdout
    assert attributions_of_files([str(shelf)])[0]


# --- --update-geoip -----------------------------------------------------------------------------------------------------


def test_update_geoip_fetches_and_says_so(tmp_path: Path, server: Server) -> None:
    result = run(tmp_path, "--update-geoip", env=environment(tmp_path, server))
    assert (result.returncode, result.stdout) == (0, "")
    assert "DB-IP City Lite" in result.stderr
    for kind in ("city", "asn"):
        assert geoip.check(download.target(str(tmp_path / "geo"), kind)).kinds
    asked = len(server.requests)
    assert run(tmp_path, "--update-geoip", env=environment(tmp_path, server)).returncode == 0
    assert len(server.requests) == asked
    assert server.requests[0][1]["User-Agent"].startswith("conntrack-monitor/")


def test_update_geoip_that_fails_is_1_and_says_why(tmp_path: Path, server: Server) -> None:
    server.answers.clear()
    result = run(tmp_path, "--update-geoip", env=environment(tmp_path, server))
    assert result.returncode == 1
    assert "has no file for" in result.stderr
    assert "Traceback" not in result.stderr
    result = run(
        tmp_path, "--update-geoip", env=environment(tmp_path) | {"CONNTRACK_MONITOR_GEOIP_URL": "http://192.0.2.1/x"}
    )
    assert result.returncode == 1
    assert "only https is allowed" in result.stderr


def test_a_folder_that_can_t_be_written_falls_back_to_the_cache(tmp_path: Path, server: Server) -> None:
    env = environment(tmp_path, server) | {"GEOIP_DB_PATHS": "/proc/self"}
    result = run(tmp_path, "--update-geoip", env=env)
    assert result.returncode == 0
    assert str(tmp_path / "cache" / "conntrack-monitor") in result.stderr
    assert (tmp_path / "cache" / "conntrack-monitor" / "dbip-city-lite.mmdb").exists()


# --- the screen -----------------------------------------------------------------------------------------------------------


def test_from_an_empty_folder_to_filled_columns_without_a_key(tmp_path: Path, server: Server, recording: str) -> None:
    env = environment(tmp_path, server)
    with Terminal("--replay", recording, "--speed", "0", size=(200, 40), env=env) as terminal:
        terminal.wait("8.8.8.8:")
        terminal.wait("Mountain View")
        terminal.wait("Google LLC")
        for scope in ("private", "multicast", "cgnat", "link-local"):
            assert scope in terminal.text
        terminal.type("q")
        assert terminal.end() == 0
    assert sorted(server.asked) == sorted(set(server.asked))
    asked = len(server.requests)
    with Terminal("--replay", recording, "--speed", "0", size=(200, 40), env=env) as terminal:
        terminal.wait("Mountain View")
        terminal.type("q")
        assert terminal.end() == 0
    assert len(server.requests) == asked


def test_no_download_contacts_nobody_and_says_what_is_missing(tmp_path: Path, server: Server, recording: str) -> None:
    env = environment(tmp_path, server)
    with Terminal("--replay", recording, "--speed", "0", "--no-download", env=env) as terminal:
        terminal.wait("no GeoIP database")
        assert terminal.text.count("no GeoIP database") == 1
        terminal.type("q")
        assert terminal.end() == 0
    assert server.requests == []


def test_the_screen_works_while_the_server_stalls_and_q_leaves_no_half_file(
    tmp_path: Path, server: Server, recording: str
) -> None:
    def stall(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        handler.wfile.write(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03")
        handler.server.go_on.wait(60)

    for name in list(server.answers):
        server.answers[name] = stall
    env = environment(tmp_path, server)
    with Terminal("--replay", recording, "--speed", "0", env=env) as terminal:
        terminal.wait("fetching DB-IP City Lite")
        terminal.wait("from 127.0.0.1")
        terminal.type("?")
        terminal.wait("this help")
        terminal.type("qq")
        assert terminal.end() == 0
    left = [path.name for path in (tmp_path / "geo").iterdir()]
    assert [name for name in left if not name.endswith(".json")] == []
    env["GEOIP_DB_PATHS"] = "/proc/self"
    with Terminal("--replay", recording, "--speed", "0", size=(300, 30), env=env) as terminal:
        terminal.wait(f"into {tmp_path / 'cache' / 'conntrack-monitor'}")


def test_a_download_that_fails_is_said_and_the_old_file_stays(tmp_path: Path, server: Server, recording: str) -> None:
    env = environment(tmp_path, server)
    make_mmdb.make(tmp_path / "geo", "dbip-city-lite.mmdb", built=make_mmdb.BUILT - 180 * 86_400)
    before = (tmp_path / "geo" / "dbip-city-lite.mmdb").read_bytes()
    for name in list(server.answers):
        server.answers[name] = b"<html>log in first</html>"
    with Terminal("--replay", recording, "--speed", "0", size=(200, 40), env=env) as terminal:
        terminal.wait("is not gzip")
        terminal.wait("Mountain View")
        terminal.type("q")
        assert terminal.end() == 0
    assert (tmp_path / "geo" / "dbip-city-lite.mmdb").read_bytes() == before


def test_a_file_that_the_user_copies_in_is_noticed_and_preferred(
    tmp_path: Path, server: Server, recording: str
) -> None:
    env = environment(tmp_path, server)
    make_mmdb.write(
        tmp_path / "GeoLite2-City.mmdb",
        "GeoLite2-City",
        {"8.8.8.0/24": make_mmdb.place("US", "United States", "Elsewhere")},
    )
    with Terminal("--replay", recording, "--speed", "0", size=(200, 40), env=env) as terminal:
        terminal.wait("Mountain View")
        shutil.copy(tmp_path / "GeoLite2-City.mmdb", tmp_path / "geo")
        terminal.wait("Elsewhere")
        terminal.type("?")
        terminal.wait("DB-IP (https://db-ip.com), CC BY 4.0")
        terminal.wait("This product includes GeoLite2 data")
        terminal.type("q")
        terminal.end()


def test_details_say_it_of_both_ends(tmp_path: Path, shelf: Path) -> None:
    path = tmp_path / "one.rec"
    path.write_text(LINES.splitlines()[0].replace("10.0.0.5", "203.0.113.9") + "\n")
    env = environment(tmp_path) | {
        "GEOIP_DB_PATHS": str(shelf / "dbip-city-lite.mmdb") + ":" + str(shelf / "dbip-asn-lite.mmdb")
    }
    with Terminal("--replay", str(path), "--speed", "0", "--no-download", size=(120, 40), env=env) as terminal:
        terminal.wait("8.8.8.8")
        terminal.type("\r")
        for words in (
            "Berlin",
            "Land Berlin",
            "52.52",
            "203.0.113.0/24",
            "DBIP-City-Lite 2026-11",
            "Mountain View",
            "AS15169",
        ):
            terminal.wait(words)


# --- what is proposed helps -----------------------------------------------------------------------------------------------


def proposed(text: str, reason: str) -> str:
    """The command in the line of a reason, or in the one below."""
    lines = text.split("\n")
    at = next(at for at, line in enumerate(lines) if reason in line)
    return next(line for line in lines[at : at + 2] if "try: " in line).partition("try: ")[2].rstrip()


def type_it(command: str, env: dict[str, str]) -> None:
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, timeout=60, env={**os.environ, **env}, check=False
    )
    assert done.returncode == 0, (command, done.stderr)


@pytest.mark.parametrize("switched_off", ["--no-download", "by the environment"])
def test_after_the_command_that_is_proposed_there_are_databases(
    tmp_path: Path, server: Server, recording: str, switched_off: str
) -> None:
    """It writes where this run looks first, and not into the folder that it would take without --geoip-db."""
    env = environment(tmp_path, server)
    (folder := tmp_path / "my own").mkdir()
    words = ["--replay", recording, "--speed", "0", "--geoip-db", str(folder)]
    if switched_off == "--no-download":
        words.append(switched_off)
    else:
        env["CONNTRACK_MONITOR_NO_DOWNLOAD"] = "1"
    with Terminal(*words, size=(240, 40), env=env) as terminal:
        terminal.wait("! no GeoIP database")
        type_it(proposed(terminal.text, "! no GeoIP database"), env)
        terminal.wait("Mountain View")
        terminal.wait(lambda: "no GeoIP database" not in terminal.text)
        terminal.type("q")
        assert terminal.end() == 0
    assert (folder / "dbip-city-lite.mmdb").exists()
    assert list((tmp_path / "geo").iterdir()) == []
    piped = run(tmp_path, *words, "--json", env=env)
    assert "no GeoIP database" not in piped.stderr


def test_an_old_database_is_a_dim_mark_and_a_line_in_health(tmp_path: Path, server: Server, recording: str) -> None:
    """It is no notice. The command fetches a new one, which answers although the old one stays beside it."""
    env = environment(tmp_path, server)
    folder, year = tmp_path / "my own", 366 * 86_400
    make_mmdb.make(folder, "dbip-city-lite.mmdb", "dbip-asn-lite.mmdb", built=int(time.time()) - year)
    (folder / "dbip-city-lite.mmdb").rename(folder / "dbip-city-lite-2025.mmdb")
    (folder / "dbip-asn-lite.mmdb").rename(folder / "dbip-asn-lite-2025.mmdb")
    month = time.strftime("%Y-%m", time.gmtime(time.time() - year))
    words = ("--replay", recording, "--speed", "0", "--no-download", "--geoip-db", str(folder))
    with Terminal(*words, size=(360, 40), env=env) as terminal:
        terminal.wait("Mountain View")
        terminal.wait(f"GeoIP {month}")
        assert "! " not in terminal.text
        terminal.type("H")
        terminal.wait(f"dbip-city-lite-2025.mmdb {month}, 366 days old: outdated")
        type_it(proposed(terminal.text, "days old: outdated"), env)
        terminal.wait("dbip-city-lite.mmdb 20")
        terminal.wait("dbip-asn-lite.mmdb 20")
        terminal.wait(lambda: "outdated" not in terminal.text and "GeoIP 20" not in terminal.text)
        terminal.type("q")
        terminal.type("q")
        assert terminal.end() == 0


@pytest.mark.parametrize("name", ["GeoLite2-City.mmdb", "dbip-city-lite.mmdb"])
def test_nothing_is_proposed_that_does_not_help(tmp_path: Path, name: str) -> None:
    """MaxMind's files are not fetched by this program; a file named by --geoip-db comes before all that is."""
    make_mmdb.make(tmp_path, name, built=make_mmdb.BUILT - 400 * 86_400)
    (tmp_path / "cache").mkdir()
    plan = geography.Plan((str(tmp_path / name), str(tmp_path / "cache")), False, "http://127.0.0.1:1", "test", "fetch")
    geo = geography.Geography(plan)
    try:
        geo._geoip.open()
        (base,) = geo.databases(make_mmdb.BUILT)
        assert (base.old, base.cure) == (True, "")
        assert geo.notices() == []
    finally:
        geo.close()


def test_a_file_that_may_not_be_read_is_the_reason_and_comes_first(shelf: Path) -> None:
    """Permission denied, then that there is no database; after the command there is one."""
    if os.geteuid() != 0:
        assert os.environ.get("CI") != "true"
        pytest.skip("only root can become another user")
    nobody = 65_534
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        path = os.path.join(folder, "dbip-city-lite.mmdb")
        shutil.copy(shelf / "dbip-city-lite.mmdb", path)
        os.chmod(folder, 0o755)
        os.chmod(path, 0)
        os.chown(path, nobody, nobody)
        geo = geography.Geography(geography.Plan((folder,), False, "http://127.0.0.1:1", "test", "fetch"))
        os.seteuid(nobody)
        try:
            geo._geoip.open()
            geo._opened = True
            assert geo.notices() == [
                (f"{path} skipped: Permission denied", f"chmod a+r {path}"),
                ("no GeoIP database", "fetch"),
            ]
            subprocess.run(geo.notices()[0][1].split(), check=True)
            geo._geoip.open()
            assert geo.notices() == []
        finally:
            os.seteuid(0)
            geo.close()
        os.chown(path, 0, 0)
        os.chmod(path, 0)
        os.seteuid(nobody)
        try:
            assert geography.denied_cure(path) == f"sudo chmod a+r {path}"
        finally:
            os.seteuid(0)


# --- the budget -----------------------------------------------------------------------------------------------------------


def test_lookups_are_put_off_when_a_frame_s_budget_is_spent(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = geography.Plan((str(shelf / "dbip-city-lite.mmdb"),), False, "http://127.0.0.1:1", "test")
    geo = geography.Geography(plan)
    try:
        geo._geoip.open()
        ticks = iter(range(100))
        monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))  # a lookup takes a second
        geo.begin_frame()
        assert geo.where("8.8.8.8").country == "US"
        assert geo.where("8.8.8.8").country == "US"  # known ones cost nothing
        assert not geo.short
        assert geo.where("8.1.2.3").country is None
        assert geo.short
        geo.begin_frame()
        assert geo.where("8.1.2.3").country == "US"
        assert not geo.short
    finally:
        geo.close()


# --- the real kernel ------------------------------------------------------------------------------------------------------


@kernel_mark()
def test_public_addresses_in_the_kernel_s_table_are_looked_up_as_maxminddb_does(tmp_path: Path, shelf: Path) -> None:
    env = environment(tmp_path) | {"GEOIP_DB_PATHS": str(shelf)}
    addresses = [f"8.{i % 200}.{i // 200}.{i % 250 + 1}" for i in range(300)] + [f"8.8.8.{i}" for i in range(1, 50)]
    with Namespace() as ns:
        load(
            ns,
            (
                "-I " + " ".join(insert_arguments(src="192.168.1.2", dst=address, sport=1024 + i, dport=443))
                for i, address in enumerate(addresses)
            ),
        )
        argv = ["env", *(f"{name}={value}" for name, value in env.items()), *PROGRAM, "--once", "--json"]
        found = [json.loads(line)["remote"] for line in ns.run(argv).stdout.splitlines()]
    assert len(found) == len(addresses)
    with (
        maxminddb.open_database(str(shelf / "GeoLite2-City.mmdb")) as city,
        maxminddb.open_database(str(shelf / "GeoLite2-ASN.mmdb")) as asn,
    ):
        for remote in found:
            place: Any = city.get(remote["ip"]) or {}
            holder: Any = asn.get(remote["ip"]) or {}
            expected = {
                "ip": remote["ip"],
                "country": place.get("country", {}).get("iso_code"),
                "country_name": place.get("country", {}).get("names", {}).get("en"),
                "city": place.get("city", {}).get("names", {}).get("en"),
                "asn": holder.get("autonomous_system_number"),
                "org": holder.get("autonomous_system_organization"),
            }
            assert remote == {key: value for key, value in expected.items() if value is not None}


def test_the_worker_is_this_very_program() -> None:
    argv = geography.worker_argv(geography.Plan(("/a", "/b"), True, "", ""), ["asn"], start=True)
    assert argv[0] == sys.executable
    assert argv[2:6] == ["--geoip-db", "/a", "--geoip-db", "/b"]
    assert argv[-2:] == ["--geoip-worker", "start:asn"]
