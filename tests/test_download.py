"""The downloader against a server on this host: the right file in place or the old one; words."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import download
import geoip
from download import FetchProgress, Outcome
from geoip import GeoIP
from support.http import Answer, Handler, Server, serving

make_mmdb = pytest.importorskip("support.mmdb", reason="needs mmdb-writer and netaddr")

ROOT = Path(__file__).resolve().parent.parent
DAY = 86_400
BUILT: int = make_mmdb.BUILT  # 2026-11-02
NOW = BUILT + 18 * DAY
WAIT = 30  # seconds after which a test that waits for an event fails


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """City and ASN databases: of the month, and old/ ones of half a year before."""
    folder: Path = make_mmdb.make(tmp_path_factory.mktemp("shelf"))
    make_mmdb.make(folder / "old", built=BUILT - 180 * DAY)
    make_mmdb.make(folder / "last", built=BUILT - 30 * DAY)
    make_mmdb.make(folder / "future", built=BUILT + 400 * DAY)
    return folder


@pytest.fixture
def city(shelf: Path) -> bytes:
    return gzip.compress((shelf / "dbip-city-lite.mmdb").read_bytes())


@pytest.fixture
def asn(shelf: Path) -> bytes:
    return gzip.compress((shelf / "dbip-asn-lite.mmdb").read_bytes())


@pytest.fixture
def big(shelf: Path) -> bytes:
    """A City database of 1 MiB more, which no packing makes small."""
    data = (shelf / "dbip-city-lite.mmdb").read_bytes()
    end = data.rfind(geoip.MARKER)
    return gzip.compress(data[:end] + random.Random(1).randbytes(1 << 20) + data[end:])


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def silent(_: FetchProgress) -> None:
    pass


def fetch(server: Server, folder: Path, now: float = NOW, **more: Any) -> list[Outcome]:
    arguments: dict[str, Any] = {"kinds": ["city"], "progress": silent, "timeout": WAIT, **more}
    return download.update([str(folder)], server.url + "/free", now=now, **arguments)


def install(shelf: Path, folder: Path, which: str = "last") -> bytes:
    data = (shelf / which / "dbip-city-lite.mmdb").read_bytes()
    (folder / "dbip-city-lite.mmdb").write_bytes(data)
    return data


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {download.FILE}


# What goes well


def test_both_are_fetched_and_valid(server: Server, tmp_path: Path, city: bytes, asn: bytes) -> None:
    server.serve("city", "2026-11", city)
    server.serve("asn", "2026-11", asn)
    seen: list[FetchProgress] = []
    before = os.umask(0o077)
    try:
        outcomes = fetch(server, tmp_path, kinds=["city", "asn"], progress=seen.append, agent="me/1")
    finally:
        os.umask(before)
    assert [(o.kind, o.status, o.again) for o in outcomes] == [
        ("city", "installed", None),
        ("asn", "installed", None),
    ]
    assert left(tmp_path) == {"dbip-city-lite.mmdb", "dbip-asn-lite.mmdb"}
    for outcome in outcomes:
        assert outcome.path is not None
        assert outcome.path in outcome.message
        assert stat.S_IMODE(os.stat(outcome.path).st_mode) == 0o644
    geo = GeoIP([str(tmp_path)])
    geo.open()
    assert geo.lookup("8.8.8.8")[2:] == ("Mountain View", 15169, "Google LLC")
    assert server.asked == ["dbip-city-lite-2026-11", "dbip-asn-lite-2026-11"]
    assert server.requests[0][0].startswith("/free/")
    assert {headers["User-Agent"] for _, headers in server.requests} == {"me/1"}
    assert [p.received for p in seen if p.kind == "city"] == [0, len(city)]
    assert {(p.name, p.total) for p in seen if p.kind == "asn"} == {("DB-IP ASN Lite 2026-11", len(asn))}
    assert seen[-1].rate > 0


def test_the_second_time_nothing_is_asked(server: Server, tmp_path: Path, city: bytes) -> None:
    server.serve("city", "2026-11", city)
    fetch(server, tmp_path)
    server.requests.clear()
    for more in ({}, {"start": True}, {"force": True}):
        assert [o.status for o in fetch(server, tmp_path, **more)] == ["current"]
    assert server.requests == []


def test_walks_back_on_404_only(server: Server, tmp_path: Path, city: bytes) -> None:
    server.serve("city", "2026-09", city)
    [outcome] = fetch(server, tmp_path)
    assert outcome.status == "installed"
    assert "2026-09" in outcome.message
    months = ["2026-11", "2026-10", "2026-09"]
    assert server.asked == [f"dbip-city-lite-{month}" for month in months]


def test_a_server_with_nothing_is_asked_four_times(server: Server, tmp_path: Path) -> None:
    outcomes = fetch(server, tmp_path, kinds=["city", "asn"])
    assert [o.status for o in outcomes] == ["failed", "failed"]
    assert "no file for 2026-08 to 2026-11" in outcomes[0].message
    assert len(server.asked) == 4
    assert outcomes[0].again == NOW + 3600


def test_a_new_month_replaces_the_old_one_and_a_missing_one_does_not(
    server: Server, tmp_path: Path, shelf: Path, city: bytes
) -> None:
    old = install(shelf, tmp_path)
    assert [o.status for o in fetch(server, tmp_path)] == ["current"]
    assert server.asked == ["dbip-city-lite-2026-11"]
    assert (tmp_path / "dbip-city-lite.mmdb").read_bytes() == old
    server.serve("city", "2026-11", city)
    assert [o.status for o in fetch(server, tmp_path)] == ["installed"]
    assert geoip.check(str(tmp_path / "dbip-city-lite.mmdb")).built == BUILT


def test_the_month_of_a_file_is_that_of_its_name(server: Server, tmp_path: Path, shelf: Path) -> None:
    """A file built on the last days of October may be November's."""
    data = (shelf / "last" / "dbip-city-lite.mmdb").read_bytes()
    server.serve("city", "2026-11", gzip.compress(data))
    assert [o.status for o in fetch(server, tmp_path)] == ["installed"]
    server.requests.clear()
    assert [o.status for o in fetch(server, tmp_path)] == ["current"]
    assert server.requests == []


def test_a_broken_installed_file_is_replaced(server: Server, tmp_path: Path, city: bytes) -> None:
    (tmp_path / "dbip-city-lite.mmdb").write_bytes(b"broken")
    server.serve("city", "2026-11", city)
    assert [o.status for o in fetch(server, tmp_path)] == ["installed"]
    assert geoip.check(str(tmp_path / "dbip-city-lite.mmdb")).built == BUILT


def test_months() -> None:
    assert download._months(1798675200) == ["2026-12", "2026-11", "2026-10", "2026-09"]  # the 31st
    assert download._months(1772236800) == ["2026-02", "2026-01", "2025-12", "2025-11"]


def test_the_order_that_survives_a_power_cut(
    server: Server, tmp_path: Path, city: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.serve("city", "2026-11", city)
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def log_fsync(fd: int) -> None:
        done.append(f"fsync {os.path.basename(os.readlink(f'/proc/self/fd/{fd}'))}")
        fsync(fd)

    def log_replace(source: str, target: str) -> None:
        done.append(f"replace {os.path.basename(target)}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", log_fsync)
    monkeypatch.setattr(os, "replace", log_replace)
    fetch(server, tmp_path)
    assert done == [
        "fsync .dbip-city-lite.mmdb.part",
        "replace dbip-city-lite.mmdb",
        f"fsync {tmp_path.name}",
    ]


# What goes wrong on the way


def truncated(handler: Handler) -> None:
    data = handler.server.answers["good"]
    assert isinstance(data, bytes)
    handler.body(data[:-100], Content_Length=None)


def announced_longer(handler: Handler) -> None:
    data = handler.server.answers["good"]
    assert isinstance(data, bytes)
    handler.body(data, Content_Length=str(len(data) + 50))


def announced_shorter(handler: Handler) -> None:
    data = handler.server.answers["good"]
    assert isinstance(data, bytes)
    handler.body(data, Content_Length=str(len(data) - 50))


def announced_huge(handler: Handler) -> None:
    handler.body(b"", Content_Length=str(download.MAX_PACKED + 1))


def html(handler: Handler) -> None:
    handler.body(b"<html>Please log in</html>", Content_Type="text/html; charset=utf-8")


def flipped(handler: Handler) -> None:
    data = handler.server.answers["good"]
    assert isinstance(data, bytes)
    middle = len(data) // 2
    handler.body(data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :])


def trailing(handler: Handler) -> None:
    data = handler.server.answers["good"]
    assert isinstance(data, bytes)
    handler.body(data + b"more")


def stalled(handler: Handler) -> None:
    data = handler.server.answers["good"]
    assert isinstance(data, bytes)
    handler.body(data[:200], Content_Length=str(len(data)))
    handler.wfile.flush()
    handler.server.go_on.wait(WAIT)


def silent_server(handler: Handler) -> None:
    handler.server.go_on.wait(WAIT)


def hangs_up(handler: Handler) -> None:
    handler.close_connection = True


def broken_chunks(handler: Handler) -> None:
    handler.body(b"ffff\r\nabc", Content_Length=None, Transfer_Encoding="chunked")


def to_http(handler: Handler) -> None:
    handler.send_response(302)
    handler.send_header("Location", "http://192.0.2.1/stolen.mmdb.gz")
    handler.end_headers()


def to_a_file(handler: Handler) -> None:
    handler.send_response(302)
    handler.send_header("Location", "file:///etc/passwd")
    handler.end_headers()


def round_and_round(handler: Handler) -> None:
    handler.send_response(302)
    handler.send_header("Location", handler.path)
    handler.end_headers()


def partial(handler: Handler) -> None:
    handler.send_response(204)
    handler.end_headers()


def status(code: int) -> Answer:
    return lambda handler: handler.send_error(code)


BAD: list[tuple[str, bytes | Answer, str]] = [
    ("truncated", truncated, "stopped after"),
    ("announced longer", announced_longer, "stopped after"),
    ("announced shorter", announced_shorter, "stopped after"),
    ("announced huge", announced_huge, "larger than 256 MiB"),
    ("html", html, "not gzip but text/html"),
    ("empty", b"", "sent nothing"),
    ("flipped bits", flipped, "damaged"),
    ("trailing", trailing, "has data after the end"),
    ("stalled", stalled, "no data for 0.2 s"),
    ("silent", silent_server, "no data for 0.2 s"),
    ("hangs up", hangs_up, "sent an invalid answer (RemoteDisconnected"),
    ("broken chunks", broken_chunks, "sent an invalid answer (IncompleteRead"),
    ("to http", to_http, "redirects to http://192.0.2.1; only https is allowed"),
    ("to a file", to_a_file, "the server answered 302"),
    ("round and round", round_and_round, "the server answered 302"),
    ("no content", partial, "the server answered 204"),
    ("forbidden", status(403), "the server answered 403 Forbidden"),
    ("unavailable", status(503), "the server answered 503 Service Unavailable"),
    ("empty gzip", gzip.compress(b""), "unusable: the file is empty"),
    ("not a database", gzip.compress(b"x" * 9999), "unusable: damaged, or not a MaxMind DB"),
]


@pytest.mark.parametrize("there", [True, False], ids=["old", "none"])
@pytest.mark.parametrize(("answer", "words"), [x[1:] for x in BAD], ids=[x[0] for x in BAD])
def test_what_goes_wrong_leaves_the_old_file_and_says_why(
    server: Server,
    tmp_path: Path,
    shelf: Path,
    city: bytes,
    answer: bytes | Answer,
    words: str,
    there: bool,
) -> None:
    old = install(shelf, tmp_path) if there else None
    server.answers["good"] = city
    server.serve("city", "2026-11", answer)
    server.serve("city", "2026-10", city)  # must not be asked for: only 404 walks back
    [outcome] = fetch(server, tmp_path, timeout=0.2 if "0.2 s" in words else WAIT)
    assert outcome.status == "failed"
    assert words in outcome.message
    assert "--update-geoip" in outcome.message
    assert outcome.again == NOW + 3600
    assert left(tmp_path) == ({"dbip-city-lite.mmdb"} if there else set())
    if there:
        assert (tmp_path / "dbip-city-lite.mmdb").read_bytes() == old
    assert set(server.asked) == {"dbip-city-lite-2026-11"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("old/dbip-city-lite.mmdb", "older than the installed one (built in 2026-05"),
        ("future/dbip-city-lite.mmdb", "is the clock right?"),
        ("dbip-asn-lite.mmdb", "of another type"),
        ("GeoLite2-Country.mmdb", "of another type"),
    ],
)
def test_a_wrong_database_is_not_installed(server: Server, tmp_path: Path, shelf: Path, name: str, words: str) -> None:
    old = install(shelf, tmp_path)
    server.serve("city", "2026-11", gzip.compress((shelf / name).read_bytes()))
    [outcome] = fetch(server, tmp_path)
    assert outcome.status == "failed"
    assert words in outcome.message
    assert (tmp_path / "dbip-city-lite.mmdb").read_bytes() == old
    assert left(tmp_path) == {"dbip-city-lite.mmdb"}


@pytest.mark.parametrize(
    ("type_", "records"),
    [("DBIP-City-Lite", make_mmdb.DBIP_ASN), ("DBIP-Country-Lite", make_mmdb.DBIP_CITY)],
    ids=["the records", "the type"],
)
def test_both_the_type_and_the_records_must_fit(server: Server, tmp_path: Path, type_: str, records: Any) -> None:
    made = tmp_path / "made"
    make_mmdb.write(made, type_, records)
    server.serve("city", "2026-11", gzip.compress(made.read_bytes()))
    made.unlink()
    [outcome] = fetch(server, tmp_path)
    assert "of another type" in outcome.message
    assert left(tmp_path) == set()


def test_a_server_in_trouble_is_left_alone(server: Server, tmp_path: Path, asn: bytes) -> None:
    server.serve("city", "2026-11", status(503))
    server.serve("asn", "2026-11", asn)
    outcomes = fetch(server, tmp_path, kinds=["city", "asn"])
    assert [o.status for o in outcomes] == ["failed", "failed"]
    assert server.asked == ["dbip-city-lite-2026-11"]


def test_a_bad_file_does_not_keep_the_other_one_away(server: Server, tmp_path: Path, asn: bytes) -> None:
    server.serve("city", "2026-11", asn)
    server.serve("asn", "2026-11", asn)
    outcomes = fetch(server, tmp_path, kinds=["city", "asn"])
    assert [o.status for o in outcomes] == ["failed", "installed"]


def test_caps(server: Server, tmp_path: Path, big: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    server.serve("city", "2026-11", lambda handler: handler.body(big, Content_Length=None))
    monkeypatch.setattr(download, "MAX_PACKED", 1 << 19)
    assert "larger than 0 MiB" in fetch(server, tmp_path)[0].message
    monkeypatch.undo()
    monkeypatch.setattr(download, "MAX_UNPACKED", 1 << 20)
    assert "unpacks to more than 1 MiB" in fetch(server, tmp_path, force=True)[0].message
    assert left(tmp_path) == set()


def test_nobody_there(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        [outcome] = download.update([str(tmp_path)], url, now=NOW, progress=silent, kinds=["city"])
    assert "127.0.0.1 can't be reached (Connection refused)" in outcome.message


# Addresses and proxies


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/free",
        "http://127.0.0.1.example.com/free",
        "http://localhost.example.com",
        "ftp://127.0.0.1/free",
        "file:///etc",
        "https://user:secret@example.com/free",
        "https://",
        "https://[::1",
        "https://host:99999999/",
        "example.com",
        "",
    ],
)
def test_refused_addresses(tmp_path: Path, url: str) -> None:
    [outcome] = download.update([str(tmp_path)], url, now=NOW, progress=silent, kinds=["asn"])
    assert outcome.status == "failed"
    assert "only https" in outcome.message or "is not an address" in outcome.message
    assert "secret" not in outcome.message
    assert list(tmp_path.iterdir()) == []


def test_allowed_addresses() -> None:
    for url in (
        "https://a.example/x",
        "http://127.0.0.1:1/x",
        "http://[::1]/",
        "http://localhost/",
    ):
        download._check_url(url)
    download._check_url("https://b.example/", "https://a.example/")
    download._check_url("https://b.example/", "http://127.0.0.1/")
    with pytest.raises(download._Failure, match="redirects to http://127"):
        download._check_url("http://127.0.0.1/", "https://a.example/")


def test_a_redirect_on_this_host_is_followed(server: Server, tmp_path: Path, city: bytes) -> None:
    def elsewhere(handler: Handler) -> None:
        handler.send_response(301)
        handler.send_header("Location", f"{server.url}/else/where.gz")
        handler.end_headers()

    server.serve("city", "2026-11", elsewhere)
    server.answers["where.gz"] = city
    assert [o.status for o in fetch(server, tmp_path)] == ["installed"]


def test_the_http_proxy_is_used(server: Server, tmp_path: Path, city: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    server.serve("city", "2026-11", city)
    monkeypatch.setenv("http_proxy", server.url)
    urls = "http://127.0.0.1:9/free"
    [outcome] = download.update([str(tmp_path)], urls, now=NOW, progress=silent, kinds=["city"])
    assert outcome.status == "installed"
    assert server.requests[0][0] == "http://127.0.0.1:9/free/dbip-city-lite-2026-11.mmdb.gz"


def test_no_proxy_is_honoured(server: Server, tmp_path: Path, city: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    server.serve("city", "2026-11", city)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert [o.status for o in fetch(server, tmp_path)] == ["installed"]
    assert server.requests[0][0].startswith("/free/")


@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY", "all_proxy"])
def test_the_https_proxy_is_used(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, server.url)
    url = "https://mirror.example/free"
    [outcome] = download.update([str(tmp_path)], url, now=NOW, progress=silent, kinds=["city"])
    assert [path for path, _ in server.requests] == ["CONNECT mirror.example:443"]
    assert outcome.status == "failed"
    assert "502" in outcome.message


# When to try again


def test_failures_back_off_across_restarts(server: Server, tmp_path: Path, city: bytes) -> None:
    server.serve("city", "2026-11", status(500))
    now = float(NOW)
    for pause in (3600, 6 * 3600, 24 * 3600, 24 * 3600):
        [outcome] = fetch(server, tmp_path, now)
        assert (outcome.status, outcome.again) == ("failed", now + pause)
        assert not download.due(str(tmp_path), now + pause - 1, ["city"])
        asked = len(server.asked)
        [outcome] = fetch(server, tmp_path, now + pause - 1)
        assert (outcome.status, outcome.again) == ("waiting", now + pause)
        assert "500" in outcome.message
        assert len(server.asked) == asked
        now += pause
        assert download.due(str(tmp_path), now, ["city"])
    server.serve("city", "2026-11", city)
    assert [o.status for o in fetch(server, tmp_path, now)] == ["installed"]
    (tmp_path / "dbip-city-lite.mmdb").unlink()
    assert download.due(str(tmp_path), now, ["city"]), "a success ends the back-off"


def test_a_start_looks_afresh_but_not_within_a_minute(server: Server, tmp_path: Path) -> None:
    server.serve("city", "2026-11", status(500))
    fetch(server, tmp_path)
    [outcome] = fetch(server, tmp_path, NOW + 59, start=True)
    assert (outcome.status, outcome.again) == ("waiting", NOW + 60)
    assert len(server.asked) == 1
    assert [o.status for o in fetch(server, tmp_path, NOW + 60, start=True)] == ["failed"]
    assert len(server.asked) == 2
    assert [o.status for o in fetch(server, tmp_path, NOW + 61, force=True)] == ["failed"]
    assert len(server.asked) == 3


def test_a_clock_that_was_wrong_does_not_block(server: Server, tmp_path: Path, city: bytes) -> None:
    server.serve("city", "2026-11", status(500))
    fetch(server, tmp_path, NOW + 300 * DAY)
    server.serve("city", "2026-11", city)
    assert download.due(str(tmp_path), NOW, ["city"])
    assert [o.status for o in fetch(server, tmp_path)] == ["installed"]


@pytest.mark.parametrize("text", ["", "x", "[1]", '{"city": 1}', '{"city": {"tried": "x", "open": 1}}', "[" * 60_000])
def test_a_damaged_memory_is_no_obstacle(server: Server, tmp_path: Path, city: bytes, text: str) -> None:
    (tmp_path / download.FILE).write_text(text)
    server.serve("city", "2026-11", city)
    assert download.due(str(tmp_path), NOW)
    assert [o.status for o in fetch(server, tmp_path)] == ["installed"]
    assert json.loads((tmp_path / download.FILE).read_text())["city"]["month"] == "2026-11"


def test_due(server: Server, tmp_path: Path, shelf: Path) -> None:
    folder, kinds = str(tmp_path), ["city"]
    assert download.due(folder, NOW, kinds)
    install(shelf, tmp_path)  # October's, put there by hand
    assert download.due(folder, NOW, kinds)
    assert [o.status for o in fetch(server, tmp_path)] == ["current"]
    assert not download.due(folder, NOW + DAY - 1, kinds), "looked today"
    assert download.due(folder, NOW + DAY, kinds)
    install(shelf, tmp_path, ".")
    assert [o.status for o in fetch(server, tmp_path)] == ["current"]
    assert not download.due(folder, NOW + 5 * DAY, kinds), "this month's is there"
    assert download.due(folder, NOW + 12 * DAY, kinds), "December"
    assert download.due("/nonexistent", NOW)


# Folders


def test_falls_back_to_the_last_folder_and_says_so(server: Server, tmp_path: Path, city: bytes) -> None:
    server.serve("city", "2026-11", city)
    single = tmp_path / "single.mmdb"
    single.write_bytes(b"")
    cache = tmp_path / "cache" / "conntrack-monitor"
    [outcome] = download.update(
        [str(single), str(tmp_path / "missing"), "/proc/self", str(cache)],
        server.url,
        now=NOW,
        progress=silent,
        kinds=["city"],
    )
    assert outcome.status == "installed"
    assert outcome.path == str(cache / "dbip-city-lite.mmdb")
    assert f"{tmp_path / 'missing'}: No such file or directory" in outcome.message
    assert "single" not in outcome.message
    assert not (tmp_path / "missing").exists()


def test_nowhere_to_write(server: Server) -> None:
    for folders in ([], ["/proc/self"], ["/dev/null/x"]):
        outcomes = download.update(folders, server.url, now=NOW, progress=silent)
        assert [o.status for o in outcomes] == ["failed", "failed"]
        assert "no writable folder" in outcomes[0].message
    assert server.requests == []


def test_a_link_is_not_written_through(server: Server, tmp_path: Path, city: bytes) -> None:
    """Somebody else's link in a shared folder must not make us write elsewhere."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    folder = tmp_path / "geo"
    folder.mkdir()
    (folder / ".dbip-city-lite.mmdb.part").symlink_to(victim)
    (folder / "dbip-city-lite.mmdb").symlink_to(victim)
    server.serve("city", "2026-11", city)
    assert [o.status for o in fetch(server, folder)] == ["installed"]
    assert victim.read_bytes() == b"precious"
    (folder / download.FILE).unlink()
    (folder / download.FILE).symlink_to(victim)
    assert "no writable folder" in fetch(server, folder)[0].message
    assert victim.read_bytes() == b"precious"


def test_a_hard_link_in_the_lock_s_place_is_not_overwritten(server: Server, tmp_path: Path, city: bytes) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    folder = tmp_path / "geo"
    folder.mkdir()
    (folder / download.FILE).hardlink_to(victim)
    server.serve("city", "2026-11", city)
    assert [o.status for o in fetch(server, folder)] == ["installed"]
    assert victim.read_bytes() == b"precious"
    assert victim.stat().st_nlink == 1
    assert [o.status for o in fetch(server, folder)] == ["current"]  # remembered, in a file of its own


def test_a_pipe_in_the_lock_s_place_is_not_waited_for(server: Server, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / download.FILE)
    assert not download.read_state(str(tmp_path)).number("city", "tried")
    assert f"{download.FILE} is not a regular file" in fetch(server, tmp_path)[0].message


def test_who_takes_the_lock_away_meanwhile_leaves_one_of_us(tmp_path: Path) -> None:
    """The file that we hold is no longer what is in its place: another process has replaced a link there."""
    before = download.open_state(str(tmp_path))
    (tmp_path / download.FILE).unlink()
    try:
        assert not download._is_only_name(before, str(tmp_path))
        with download.locked(str(tmp_path)), pytest.raises(BlockingIOError), download.locked(str(tmp_path)):
            pass
        assert not download._is_only_name(before, str(tmp_path))
    finally:
        os.close(before)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(argv, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_file_that_would_not_fit_is_not_begun(server: Server, small: Path, shelf: Path, big: bytes) -> None:
    old = install(shelf, small)
    server.serve("city", "2026-11", big)
    seen: list[FetchProgress] = []
    [outcome] = fetch(server, small, progress=seen.append)
    assert outcome.status == "failed"
    assert f"not enough space in {small}: needs about 4 MB, 2 MB are free" in outcome.message
    assert seen == []
    assert (small / "dbip-city-lite.mmdb").read_bytes() == old


def test_a_disk_that_fills_up_meanwhile(server: Server, small: Path, shelf: Path, big: bytes) -> None:
    old = install(shelf, small)
    padding = small / "padding"
    server.serve("city", "2026-11", lambda handler: handler.body(big, Content_Length=None))

    def fill(progress: FetchProgress) -> None:
        if progress.received == 0:
            padding.write_bytes(bytes(3 << 19))

    [outcome] = fetch(server, small, progress=fill)
    assert outcome.status == "failed"
    assert f"{small}: No space left on device" in outcome.message
    assert left(small) == {"padding", "dbip-city-lite.mmdb"}
    assert (small / "dbip-city-lite.mmdb").read_bytes() == old


# Neither silent nor done


def dribbling(head: bytes, data: bytes) -> Answer:
    """Send the data byte by byte, and then zeros for as long as anybody takes them."""

    def answer(handler: Handler) -> None:
        handler.wfile.write(head)
        number = 0
        while not handler.server.go_on.wait(0.005):
            handler.wfile.write(data[number : number + 1] or b"0")
            handler.wfile.flush()
            number += 1

    return answer


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "head",
    [b"", HEAD + b"X: ", HEAD + b"\r\n", HEAD + b"Content-Length: 100000\r\n\r\n"],
    ids=["status", "headers", "body", "body of a length"],
)
@pytest.mark.parametrize("bound", ["progress", "total"])
def test_a_transfer_has_bounds_and_then_lets_go(
    server: Server, tmp_path: Path, city: bytes, monkeypatch: pytest.MonkeyPatch, head: bytes, bound: str
) -> None:
    if bound == "progress":
        monkeypatch.setattr(download, "PACE_SPAN", 0.2)
        words = "bytes in 0.2 s"
    else:
        monkeypatch.setattr(download, "LONGEST_TRANSFER", 0.3)
        words = "not finished after 0.005 minutes"
    # A packed file has its time in its head: in 4 of 1,000 minutes that is a newline, which would end a status line.
    server.serve("city", "2026-11", dribbling(head, city if head.endswith(b"\r\n") else b""))
    [outcome] = fetch(server, tmp_path)
    assert (outcome.status, words in outcome.message) == ("failed", True), outcome.message
    assert left(tmp_path) == set()
    monkeypatch.undo()
    server.serve("city", "2026-11", city)
    assert [o.status for o in fetch(server, tmp_path, force=True)] == ["installed"]


def test_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("download.time.monotonic", lambda: now)
    pace = download._Pace(30)
    for second in range(0, 3600, 20):  # as slow as it may be
        now = 1000.0 + second
        assert pace.left() == min(30, 3600 - second)
        pace.took(download.PACE_BYTES // 3 + 1)
    now = 4599.5
    assert pace.left() == 0.5
    now = 4600.0
    with pytest.raises(download._Failure, match="not finished after 60 minutes"):
        pace.left()


# Processes and signals

CHILD = """
import signal, sys
sys.path.insert(0, sys.argv[1])
import download
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
def progress(p):
    if p.received:
        print(p.received, flush=True)
try:
    for outcome in download.update([sys.argv[2]], sys.argv[3], now=float(sys.argv[4]),
                                   progress=progress, kinds=["city"]):
        print(outcome.status, flush=True)
except KeyboardInterrupt:
    sys.exit(6)
"""


def child(server: Server, folder: Path) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", CHILD, str(ROOT), str(folder), server.url, str(NOW)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def half(data: bytes) -> Answer:
    """Send half, and the rest when the test says so."""

    def answer(handler: Handler) -> None:
        middle = len(data) // 2
        handler.body(data[:middle], Content_Length=str(len(data)))
        handler.wfile.flush()
        handler.server.go_on.wait(WAIT)
        handler.wfile.write(data[middle:])

    return answer


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 6), (signal.SIGTERM, 7)], ids=["ctrl-c", "term"])
def test_a_signal_in_mid_download_leaves_no_half_file(
    server: Server, tmp_path: Path, shelf: Path, big: bytes, number: int, code: int
) -> None:
    old = install(shelf, tmp_path)
    server.serve("city", "2026-11", half(big))
    with child(server, tmp_path) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) > 0
        assert left(tmp_path) == {"dbip-city-lite.mmdb", ".dbip-city-lite.mmdb.part"}
        process.send_signal(number)
        assert process.wait(WAIT) == code
    assert left(tmp_path) == {"dbip-city-lite.mmdb"}
    assert (tmp_path / "dbip-city-lite.mmdb").read_bytes() == old
    assert [o.status for o in fetch(server, tmp_path, NOW + 59)] == ["waiting"]


def test_what_a_killed_process_leaves_is_swept(server: Server, tmp_path: Path, big: bytes, city: bytes) -> None:
    server.serve("city", "2026-11", half(big))
    with child(server, tmp_path) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) > 0
        process.kill()
    assert left(tmp_path) == {".dbip-city-lite.mmdb.part"}
    server.serve("city", "2026-11", city)
    assert [o.status for o in fetch(server, tmp_path, force=True)] == ["installed"]
    assert left(tmp_path) == {"dbip-city-lite.mmdb"}


def test_of_two_processes_one_downloads(server: Server, tmp_path: Path, big: bytes) -> None:
    server.serve("city", "2026-11", half(big))
    with child(server, tmp_path) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) > 0
        [outcome] = fetch(server, tmp_path, force=True)
        assert (outcome.status, outcome.again) == ("busy", NOW + 60)
        assert "another process is fetching" in outcome.message
        server.go_on.set()
        assert process.stdout.read().split()[-1] == "installed"
    assert [o.status for o in fetch(server, tmp_path)] == ["current"]
    assert server.asked == ["dbip-city-lite-2026-11"]


def test_progress_may_end_it(server: Server, tmp_path: Path, big: bytes) -> None:
    server.serve("city", "2026-11", big)

    class Enough(Exception):
        pass

    def stop(progress: FetchProgress) -> None:
        if progress.received:
            raise Enough

    with pytest.raises(Enough):
        fetch(server, tmp_path, progress=stop)
    assert left(tmp_path) == set()
