"""Databases of places: found, opened without danger, looked up.

Without any database everything is NOWHERE. A broken one is skipped with a notice, and the next one answers.

Truncating a mapped file in place kills the process that reads it with SIGBUS, which cannot be caught, and ``docker cp``
and ``curl -o`` write in place. So a file is mapped from disk only where nobody but download.py writes, by
``os.replace``: in our own cache folder, owned by this user, with no second name. Every other file is copied into
anonymous memory, and that copy is mapped. A City file of 125 MB then opens in 65 to 340 ms (mapped from disk: 13 ms)
and takes its size in memory. The C reader answers in 4 to 10 us. MODE_MEMORY, which only the pure reader has, takes
the same memory and 26 to 79 us.

The database type is a hint for the order of trying. What a file offers is decided by its records. The reader takes all
schemas in use: DB-IP Lite and GeoLite2 nest ({"country": {"iso_code": ...}}), the flat files of ip-location-db have
country_code, state1 and city, and IPinfo writes country and asn as text.
"""

from __future__ import annotations

import errno
import math
import os
import re
import stat
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from time import gmtime, strftime
from typing import TYPE_CHECKING, Any, NamedTuple

from addresses import NOWHERE, Detail, Place
from text import clean

if TYPE_CHECKING:
    from maxminddb import Reader  # 42 ms

# --- records ----------------------------------------------------------------------------------------------------------

MAX_TEXT = 128  # characters; the longest AS names of real files have about 100


@lru_cache(maxsize=16_384)
def text_of(text: str) -> str | None:
    """Make a text from a file safe to show; None where nothing is left of it."""
    return clean(text, MAX_TEXT) or None


def as_text(value: object) -> str | None:
    """Read a text; None for anything else."""
    return text_of(value) if isinstance(value, str) else None


def name_of(value: object) -> str | None:
    """Read ``{"names": {"en": …}}`` (any language where there is no English), or plain text."""
    if isinstance(value, dict):
        names = value.get("names")
        if not isinstance(names, dict):
            return None
        value = names.get("en") or next(iter(names.values()), None)
    return as_text(value)


def iso_code(value: object) -> str | None:
    """Read an ISO 3166 code of two letters."""
    if isinstance(value, str) and len(value) == 2 and value.isascii() and value.isalpha():
        return value.upper()
    return None


def country_of(record: Mapping[str, object]) -> tuple[str | None, str | None]:
    """Read code and name: nested (DB-IP, GeoLite2), or flat (IPinfo's ``country`` is either)."""
    country = record.get("country") or record.get("registered_country")
    if isinstance(country, dict):
        return iso_code(country.get("iso_code")), name_of(country)
    code, name = iso_code(record.get("country_code")), as_text(record.get("country_name"))
    if iso_code(country):
        return code or iso_code(country), name
    return code, name or as_text(country)


def asn_of(record: Mapping[str, object]) -> tuple[int | None, str | None]:
    """Read AS number (15169, "15169" or "AS15169") and its holder's name."""
    number = record.get("autonomous_system_number", record.get("asn"))
    if isinstance(number, str):
        digits = number[2:] if number[:2].upper() == "AS" else number
        number = int(digits) if re.fullmatch("[0-9]{1,10}", digits) else None
    if isinstance(number, bool) or not isinstance(number, int) or not 0 < number < 1 << 32:
        number = None
    name = record.get("autonomous_system_organization") or record.get("as_name")
    if name is None and "asn" in record:
        name = record.get("name")
    return number, as_text(name)


def degrees_of(record: Mapping[str, object], keys: Sequence[str], limit: float) -> float | None:
    """Read a coordinate in degrees, nested or flat, number or text; None if it is beyond the limit."""
    location = record.get("location")
    for source in (location if isinstance(location, dict) else {}, record):
        for key in keys:
            value = source.get(key)
            if isinstance(value, (int, float, str)) and not isinstance(value, bool):
                try:
                    number = float(value)
                except (ValueError, OverflowError):
                    continue
                if math.isfinite(number) and abs(number) <= limit:
                    return number
    return None


def subdivision_of(record: Mapping[str, object]) -> str | None:
    """Read the largest part of the country."""
    parts = record.get("subdivisions")
    if isinstance(parts, list) and parts:
        return name_of(parts[0])
    return as_text(record.get("state1")) or as_text(record.get("region"))


def place_of(record: Mapping[str, Any], network: Mapping[str, Any]) -> Place:
    """The place that a record of a city or country and a record of a network describe; {} stands for no record."""
    try:  # as DB-IP and GeoLite2 City have it: a third of the time, and every far host is asked for once
        country, city = record["country"], record["city"]["names"]["en"]
        number, org = network["autonomous_system_number"], network["autonomous_system_organization"]
        if city and org and type(city) is type(org) is str and type(number) is int and 0 < number < 1 << 32:
            code, name = _nested_country(country["iso_code"], country["names"]["en"])
            return Place(code, name, text_of(city), number, text_of(org))
    except (LookupError, TypeError):
        pass
    return Place(*country_of(record), name_of(record.get("city")), *asn_of(network))


@lru_cache(maxsize=1024, typed=True)
def _nested_country(code: object, name: object) -> tuple[str | None, str | None]:
    """What ``country_of`` says of a nested record with these two; LookupError where it looks further for a name."""
    if not name:
        raise LookupError
    return iso_code(code), as_text(name)


# --- files ------------------------------------------------------------------------------------------------------------

MAX_SIZE = 512 << 20  # bytes of one file; DB-IP City Lite has 125 MB
MARKER = b"\xab\xcd\xefMaxMind.com"  # begins the metadata, in the last 128 KiB of the file
RECORD_KINDS = ("city", "country", "asn")
ATTRIBUTIONS = {
    "dbip": "IP Geolocation by DB-IP (https://db-ip.com), CC BY 4.0",
    "geolite2": "This product includes GeoLite2 data created by MaxMind, available from https://www.maxmind.com",
    "ipinfo": "IP address data powered by IPinfo (https://ipinfo.io), CC BY-SA 4.0",
}

# What both readers raise on damage: InvalidDatabaseError is a RuntimeError, bad UTF-8 a ValueError.
DAMAGED = (OSError, ValueError, TypeError, RuntimeError, LookupError, ArithmeticError, MemoryError)


@dataclass(frozen=True)
class Database:
    """One database file: what it is and what it was found to hold."""

    path: str
    type: str  # as the file calls itself
    built: int  # seconds since 1970
    kinds: tuple[str, ...]  # of RECORD_KINDS: "city" or "country", and "asn"
    families: tuple[int, ...]  # 4, 6
    provider: str  # dbip, geolite2, geoip2, ipinfo or ""

    @property
    def month(self) -> str:
        """The month (UTC) it was built in, as 2026-11."""
        return month(self.built)

    @property
    def attribution(self) -> str:
        """The line its licence asks for, or ""."""
        return ATTRIBUTIONS.get(self.provider, "")


class BadDatabase(Exception):
    """A file that cannot be used; says why, without naming the file."""


def month(seconds: float) -> str:
    """Return the month (UTC) of a time in seconds since 1970; "unknown" where there is none.

    >>> month(1793577600)
    '2026-11'
    """
    try:
        return strftime("%Y-%m", gmtime(seconds))
    except (OverflowError, OSError, ValueError):
        return "unknown"


# Files ------------------------------------------------------------------------------------------


class File(NamedTuple):
    """One file that was found: its position in the given paths, and an identity that changes with its content."""

    order: int
    path: str
    identity: tuple[int, ...]  # device, inode, size, mtime, ctime (docker cp restores the mtime)
    trouble: str = ""


class Candidate(NamedTuple):
    """A file to try, sortable: by path given, City before Country, GeoLite2 before DB-IP, the newer before the older.

    Without the last, a fetched file would not answer beside an old one whose name has its month in it.
    """

    order: int
    kind_rank: int
    provider_rank: int
    age: int  # minus the seconds since 1970 when it was built
    file: File
    hint: str  # what its type says it is: city, country, asn or ""


class OpenDatabase(NamedTuple):
    database: Database
    reader: Reader
    identity: tuple[int, ...]


def scan(paths: Sequence[str]) -> list[File]:
    """List the candidates: the ``.mmdb`` files of folders, and single files whatever their name."""
    files = []
    for order, path in enumerate(paths):
        try:
            names = sorted(name for name in os.listdir(path) if name.lower().endswith(".mmdb"))
            files += [_stat(order, os.path.join(path, name)) for name in names]
        except NotADirectoryError:
            files.append(_stat(order, path))
        except OSError as error:
            files.append(File(order, path, (), error.strerror or str(error)))
    return files


def _stat(order: int, path: str) -> File:
    try:
        info = os.stat(path)
    except OSError as error:
        return File(order, path, (), error.strerror or str(error))
    identity = (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
    return File(order, path, identity)


def _open_file(path: str) -> tuple[int, int]:
    """Open a regular file (a FIFO would block, a device never ends); return descriptor and size."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    info = os.fstat(fd)
    trouble = None
    if not stat.S_ISREG(info.st_mode):
        trouble = "not a regular file"
    elif info.st_size == 0:
        trouble = "the file is empty"
    elif info.st_size > MAX_SIZE:
        trouble = f"larger than {MAX_SIZE >> 20} MiB"
    if trouble:
        os.close(fd)
        raise BadDatabase(trouble)
    return fd, info.st_size


def _find_reader() -> None:
    """Import all that reading takes; :class:`BadDatabase` where a small Python has not all of it.

    maxminddb wants email, for its version. Without mmap it fails later, and not as a module that is missing.
    """
    try:
        import mmap  # noqa: F401
        import random  # noqa: F401

        import maxminddb  # noqa: F401
    except ModuleNotFoundError as error:
        raise BadDatabase(f"reading it needs the Python module {error.name}, which is missing") from error


def peek(path: str) -> tuple[str, int]:
    """Read only the database type, and when it was built, from the metadata at the end of the file.

    The time is in seconds since 1970, and 0 where it is none.
    """
    _find_reader()
    from maxminddb.decoder import Decoder

    fd, size = _open_file(path)
    try:
        tail = os.pread(fd, 128 << 10, max(0, size - (128 << 10)))
        packed = os.pread(fd, 2, 0) == b"\x1f\x8b"
    finally:
        os.close(fd)
    if packed:
        raise BadDatabase("it is compressed: gunzip it")
    start = tail.rfind(MARKER) + len(MARKER)
    if start < len(MARKER):
        raise BadDatabase("no MaxMind DB metadata at its end: truncated, or another format")
    metadata, _ = Decoder(tail, start).decode(start)
    if not isinstance(metadata, dict):
        return "", 0
    built = metadata.get("build_epoch")
    return str(metadata.get("database_type")), built if isinstance(built, int) else 0


def _copy_to_memory(fd: int, size: int) -> int:
    """Copy a file into anonymous memory; one that shrinks meanwhile gives a short copy."""
    try:
        copy = os.memfd_create("geoip")
    except (AttributeError, OSError):  # an old libc, or forbidden: a file without a name does too
        import tempfile

        with tempfile.TemporaryFile() as file:
            copy = os.dup(file.fileno())
    try:
        done = 0
        while done < size and (count := os.sendfile(copy, fd, done, size - done)):
            done += count
    except BaseException:
        os.close(copy)
        raise
    return copy


@contextmanager
def _content(path: str, mapped: bool) -> Iterator[int]:
    """Give a descriptor of content that nobody can truncate: the file itself or a copy."""
    fd, size = _open_file(path)
    try:
        if mapped:
            yield fd
            return
        copy = _copy_to_memory(fd, size)
        try:
            yield copy
        finally:
            os.close(copy)
    finally:
        os.close(fd)


def _pure(fd: int) -> Reader:
    """Open with the pure reader."""
    import maxminddb
    from maxminddb.const import MODE_FD, MODE_MMAP

    try:
        return maxminddb.open_database(f"/proc/self/fd/{fd}", MODE_MMAP)
    except FileNotFoundError:  # /proc is not mounted
        os.lseek(fd, 0, os.SEEK_SET)
        with open(fd, "rb", closefd=False) as file:
            return maxminddb.open_database(file, MODE_FD)


def _fast(fd: int) -> Reader | None:
    """Open with the C reader; None where it can't."""
    import maxminddb
    from maxminddb.const import MODE_MMAP_EXT

    try:
        import maxminddb.extension

        return maxminddb.open_database(f"/proc/self/fd/{fd}", MODE_MMAP_EXT)
    except (ImportError, OSError):
        return None


# Probing -----------------------------------------------------------------------------------------


def _walk(reader: Reader, family: int, start: int, steps: int) -> Iterator[object]:
    """Yield the records of up to ``steps`` networks in a row; bounded even in a damaged tree."""
    import ipaddress

    make: Callable[[int], ipaddress.IPv4Address | ipaddress.IPv6Address] = (
        ipaddress.IPv4Address if family == 4 else ipaddress.IPv6Address
    )
    bits, end = (32, 1 << 32) if family == 4 else (128, 1 << 126)
    for _ in range(steps):
        if start >= end:
            return
        record, length = reader.get_with_prefix_len(make(start))
        if record is not None:
            yield record
        start = (start | ((1 << max(0, bits - length)) - 1)) + 1


def _families(reader: Reader) -> tuple[int, ...]:
    """Tell which families have networks: the flat files hold one, but may well say "version 6"."""
    found = []
    record, length = reader.get_with_prefix_len("0.0.0.0")
    if record is not None or length > 0:
        found.append(4)
    if reader.metadata().ip_version == 6:
        record, length = reader.get_with_prefix_len("2000::")
        if record is not None or length > 3:  # 3: nothing in 2000::/3, where all public ones are
            found.append(6)
    return tuple(found)


def _sample(reader: Reader, families: Sequence[int]) -> Iterator[object]:
    """Yield records to judge a file by: the first ones, then some from everywhere."""
    for family in families:
        base, shift = (0, 24) if family == 4 else (1 << 125, 116)
        for count, record in enumerate(_walk(reader, family, base, 4096)):
            yield record
            if count == 31:
                break
        for block in range(1, 224, 7):
            yield from _walk(reader, family, base + (block << shift), 2)


def _kinds(reader: Reader, families: Sequence[int], type_: str) -> tuple[str, ...]:
    """Tell what the records hold: city or country, and asn."""
    city = country = asn = False
    for record in _sample(reader, families):
        if isinstance(record, dict):
            city = city or name_of(record.get("city")) is not None
            country = country or country_of(record) != (None, None)
            asn = asn or asn_of(record) != (None, None)
    city = city or (country and "city" in type_.lower())
    found = {"city": city, "country": country and not city, "asn": asn}
    return tuple(kind for kind in RECORD_KINDS if found[kind])


def provider_of(type_: str, path: str) -> str:
    """Tell who made it. DB-IP first: its ASN file says "DBIP-ASN-Lite (compat=GeoLite2-ASN)"."""
    for text in (type_, os.path.basename(path)):
        for word in ("dbip", "db-ip", "geolite2", "geoip2", "ipinfo"):
            if word in text.lower():
                return word.replace("-", "")
    return ""


def load_database(path: str, mapped: bool, lookups: int = 0) -> tuple[Database, Reader]:
    """Open and probe one file; raise :class:`BadDatabase` with the reason.

    The C reader 3.2.0 ends the process with a segmentation fault in 1 of 50 files with a few wrong bytes, where the
    pure one raises. So it reads only files that download.py has checked and nobody else writes (``mapped``). The pure
    one reads the files that users put there, and probes all; a lookup takes it 7 to 19 times as long.
    """
    try:
        with _content(path, mapped) as fd:
            reader = _pure(fd)
            try:
                database = _probe(path, reader)
                _look_up_random(reader, database.families, lookups)
                fast = _fast(fd) if mapped else None
            except BaseException:
                reader.close()
                raise
    except DAMAGED as error:
        raise BadDatabase(reason(error)) from error
    if fast:
        reader.close()
    return database, fast or reader


def _probe(path: str, reader: Reader) -> Database:
    meta = reader.metadata()
    families = _families(reader)
    type_ = text_of(str(meta.database_type)) or ""
    kinds = _kinds(reader, families, type_)
    if not kinds:
        raise BadDatabase(f"contains no countries, cities or AS numbers (its type is {type_!r})")
    return Database(path, type_, int(meta.build_epoch), kinds, families, provider_of(type_, path))


def _look_up_random(reader: Reader, families: Sequence[int], count: int) -> None:
    import random

    pick = random.Random(0)
    for family in families:
        base, span = (0, 1 << 32) if family == 4 else (1 << 125, 1 << 125)
        for _ in range(count):
            for _record in _walk(reader, family, base + pick.randrange(span), 1):
                pass


def reason(error: BaseException) -> str:
    if isinstance(error, BadDatabase):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, MemoryError):
        return "not enough memory to load it"
    return f"damaged, or not a MaxMind DB file ({text_of(str(error))})"


def check(path: str, mapped: bool = False, lookups: int = 2000) -> Database:
    """Open, probe and look up random addresses; raise :class:`BadDatabase` if anything fails.

    ``mapped`` is for a file that nobody else writes. ``lookups`` is for each family.
    """
    database, reader = load_database(path, mapped, lookups)
    reader.close()
    return database


# --- lookups ----------------------------------------------------------------------------------------------------------

DEFAULT_FOLDER = "/usr/share/GeoIP"
OWN_NAME = "conntrack-monitor"
MAX_CACHED = 65_536  # addresses; full, the cache takes about 10 MB
STALE_DAYS = {"dbip": 45, "geolite2": 30}


def own_folder(environ: Mapping[str, str]) -> str:
    """Return our folder in the user's cache; by the XDG rules a relative path does not count."""
    home = environ.get("HOME") or os.path.expanduser("~")
    cache = environ.get("XDG_CACHE_HOME") or ""
    for base in (cache, os.path.join(home, ".cache")):
        if os.path.isabs(base):
            return os.path.join(base, OWN_NAME)
    return os.path.join("/var/cache", OWN_NAME)


def search_paths(given: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """Return the folders and files to look in, best first; our own cache folder is always the last.

    ``given`` (--geoip-db) wins over GEOIP_DB_PATHS, and that over :data:`DEFAULT_FOLDER`.
    """
    paths = [path for path in given if path]
    paths = paths or [path for path in environ.get("GEOIP_DB_PATHS", "").split(":") if path]
    return list(dict.fromkeys([*(paths or [DEFAULT_FOLDER]), own_folder(environ)]))


@dataclass(eq=False)
class _State:
    """One generation of readers with the answers they gave; swapped as a whole."""

    files: list[File] = field(default_factory=list)
    opened: dict[str, OpenDatabase] = field(default_factory=dict)
    places: dict[int, OpenDatabase] = field(default_factory=dict)  # by family: city or country
    networks: dict[int, OpenDatabase] = field(default_factory=dict)  # by family: asn
    notices: list[str] = field(default_factory=list)
    denied: dict[str, str] = field(default_factory=dict)  # notice -> path of the file that we may not read
    cache: OrderedDict[str, Place] = field(default_factory=OrderedDict)
    known: dict[Place, Place] = field(default_factory=dict)  # one tuple a place, not an address

    def __post_init__(self) -> None:
        self.known[NOWHERE] = NOWHERE


class GeoIP:
    """The databases in use. Without any, everything is :data:`NOWHERE`; nothing here raises.

    ``paths`` as from :func:`search_paths`; files in the folder ``own`` (default: our cache folder)
    may be mapped. One thread may call :meth:`open` while another one looks up:
    the readers are swapped by one assignment, with an empty cache, and the old ones close when
    the last lookup lets go of them.
    """

    def __init__(self, paths: Sequence[str], own: str | None = None) -> None:
        self._paths = list(paths)
        self._own = own_folder(os.environ) if own is None else own
        self._state = _State()

    @property
    def notices(self) -> list[str]:
        """What is wrong with which file, one line each."""
        return self._state.notices

    @property
    def denied(self) -> dict[str, str]:
        """The files that this user may not read, by what ``notices`` says of them."""
        return self._state.denied

    @property
    def databases(self) -> list[Database]:
        """The databases that answer, those of places first."""
        used = [entry.database for entry in self._state.opened.values()]
        return sorted(used, key=lambda database: database.kinds == ("asn",))

    def attributions(self) -> list[str]:
        """Return the lines that the licences of the databases in use ask for."""
        return list(dict.fromkeys(db.attribution for db in self.databases if db.attribution))

    def stale(self, now: float) -> list[Database]:
        """Return the databases in use that are older than their publishers' newest must be.

        ``now`` in seconds since 1970; compared with the time of the build, not of the file.
        """
        return [db for db in self.databases if now - db.built > STALE_DAYS.get(db.provider, math.inf) * 86_400]

    def open(self) -> None:
        """Find and open the best ones; unchanged ones stay open. Troubles go to :attr:`notices`."""
        old, state = self._state, _State(scan(self._paths))
        for candidate in sorted(self._candidates(state, old)):
            entry = None
            if _wanted(state, candidate.hint):
                entry = self._entry(candidate.file, state, old)
            if entry:
                _take(state, entry)
        self._state = state

    def changed(self) -> bool:
        """Tell whether a file appeared, changed or vanished since the last opening (0.01 ms)."""
        return scan(self._paths) != self._state.files

    def close(self) -> None:
        """Let go of all databases; lookups answer :data:`NOWHERE` from now on."""
        self._state = _State()

    def known(self, address: str) -> Place | None:
        """Return what an earlier lookup found, for the cost of a dict access; None: none yet."""
        return self._state.cache.get(address)

    def lookup(self, address: str) -> Place:
        """Return where an address is. It is taken as printed, also with a zone id or as ::ffff:. Never raises."""
        state = self._state
        place = state.cache.get(address)
        if place is None:
            place = _find(state, address)
            place = state.known.setdefault(place, place)
            state.cache[address] = place
            if len(state.cache) > MAX_CACHED:
                state.cache.popitem(last=False)
                if len(state.known) > MAX_CACHED:
                    state.known.clear()
        return place

    def detail(self, address: str) -> Detail:
        """Return everything the databases say about one address."""
        state, plain = self._state, _plain(address)
        where, record, place_length = _record(state, state.places, plain)
        who, network, asn_length = _record(state, state.networks, plain)
        used = [entry.database for entry in (where, who) if entry]
        return Detail(
            place_of(record, network),
            subdivision_of(record),
            degrees_of(record, ("latitude", "lat"), 90),
            degrees_of(record, ("longitude", "lng"), 180),
            _network(plain, place_length) if record else None,
            _network(plain, asn_length) if network else None,
            tuple(dict.fromkeys(f"{database.type} {database.month}" for database in used)),
        )

    def _candidates(self, state: _State, old: _State) -> Iterator[Candidate]:
        """Yield the files that look usable, and note down the others."""
        for file in state.files:
            try:
                if file.trouble:
                    raise BadDatabase(file.trouble)
                type_, built = peek(file.path)
            except (BadDatabase, *DAMAGED) as error:
                if file.path in old.opened and file.identity:
                    type_, built = old.opened[file.path].database.type, old.opened[file.path].database.built
                else:
                    if file.path not in (DEFAULT_FOLDER, self._own):  # these two need not exist
                        notice = f"{text_of(file.path)} skipped: {reason(error)}"
                        state.notices.append(notice)
                        if isinstance(error, PermissionError) or file.trouble == os.strerror(errno.EACCES):
                            state.denied[notice] = file.path
                    continue
            hint = next((kind for kind in RECORD_KINDS if kind in type_.lower()), "")
            provider = provider_of(type_, file.path)
            kind_rank = {"country": 2, "": 1}.get(hint, 0)
            provider_rank = 0 if provider.startswith("geo") else 1 if provider == "dbip" else 2
            yield Candidate(file.order, kind_rank, provider_rank, -built, file, hint)

    def _entry(self, file: File, state: _State, old: _State) -> OpenDatabase | None:
        """Open one file; keep what is open if it is unchanged, or now something unusable."""
        before = old.opened.get(file.path)
        if before and before.identity == file.identity:
            return before
        try:
            database, reader = load_database(file.path, self._is_own(file.path))
        except BadDatabase as error:
            what = "could not be reloaded; the previous version stays in use" if before else "skipped"
            state.notices.append(f"{text_of(file.path)} {what}: {error}")
            return before
        return OpenDatabase(database, reader, file.identity)

    def _is_own(self, path: str) -> bool:
        """Tell whether only we write this file. A link does not count: its other name may be in other hands."""
        try:
            info = os.lstat(path)
            folder = os.path.samefile(os.path.dirname(path) or ".", self._own)
        except OSError:
            return False
        single = stat.S_ISREG(info.st_mode) and info.st_nlink == 1
        ours = os.path.basename(path).startswith("dbip-")  # people copy their own files into that folder
        return ours and folder and single and info.st_uid == os.geteuid()


def _wanted(state: _State, hint: str) -> bool:
    """Tell whether a file of this kind could still fill a gap."""
    slots = {"asn": [state.networks], "": [state.networks, state.places]}.get(hint, [state.places])
    return any(len(slot) < 2 for slot in slots)


def _take(state: _State, entry: OpenDatabase) -> None:
    """Put a file where nothing better answers yet, for each family that it holds."""
    for family in entry.database.families:
        for kind in entry.database.kinds:
            slot = state.networks if kind == "asn" else state.places
            if slot.setdefault(family, entry) is entry:
                state.opened[entry.database.path] = entry


def _plain(address: str) -> str:
    """Strip the zone id and unmap ::ffff:192.0.2.1, in any spelling."""
    address = address.partition("%")[0]
    if ":" not in address:
        return address if address.count(".") == 3 else ""  # the C reader takes 8.8 for 8.0.0.8
    if "ffff" in address.lower():
        import ipaddress

        try:
            return str(ipaddress.IPv6Address(address).ipv4_mapped or address)
        except ValueError:
            pass
    return address


def _record(
    state: _State, slot: dict[int, OpenDatabase], plain: str
) -> tuple[OpenDatabase | None, dict[str, object], int]:
    """Return who answered, the record ({}: none) and the prefix length of its network."""
    entry = slot.get(6 if ":" in plain else 4)
    if entry is None:
        return None, {}, 0
    try:
        record, length = entry.reader.get_with_prefix_len(plain)
    except Exception as error:  # the C reader of a damaged record: SystemError, too
        # A ValueError means that the text is no address, not that the file is damaged.
        if not isinstance(error, ValueError) or isinstance(error, UnicodeDecodeError):
            if _read_carefully(slot, entry):
                return _record(state, slot, plain)
            notice = f"{text_of(entry.database.path)} is damaged: some addresses can't be looked up"
            if notice not in state.notices:
                state.notices.append(notice)
        return entry, {}, 0
    return entry, record if isinstance(record, dict) else {}, length


def _read_carefully(slot: dict[int, OpenDatabase], entry: OpenDatabase) -> bool:
    """From now on the reader in pure Python reads a file that was found to be damaged; returns whether it does.

    A record whose map has a key that is no string makes the C reader 3.2.0 read memory that was never written.
    """
    if type(entry.reader).__module__ == "maxminddb.reader":
        return False
    with suppress(Exception):
        with _content(entry.database.path, mapped=False) as fd:
            careful = entry._replace(reader=_pure(fd))
        for family in [family for family, known in slot.items() if known is entry]:
            slot[family] = careful
        return True
    return False


def _find(state: _State, address: str) -> Place:
    plain = _plain(address)
    where, record, _ = _record(state, state.places, plain)
    if where and where is state.networks.get(6 if ":" in plain else 4):
        return place_of(record, record)
    return place_of(record, _record(state, state.networks, plain)[1])


def _network(plain: str, length: int) -> str | None:
    import ipaddress

    try:
        return str(ipaddress.ip_network((plain, length), strict=False))
    except ValueError:
        return None


def attributions_of_files(paths: Sequence[str]) -> list[str]:
    """The lines that licences ask for, from the types of the files found, without opening the databases."""
    found = []
    for file in scan(paths):
        try:
            provider = provider_of(peek(file.path)[0], file.path) if not file.trouble else ""
        except (BadDatabase, *DAMAGED):
            continue
        found.append(ATTRIBUTIONS.get(provider, ""))
    return list(dict.fromkeys(line for line in found if line))
