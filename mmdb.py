"""MaxMind DB files: found, opened without danger, and probed for what they really hold.

A mapped file that somebody truncates in place kills the reading process with SIGBUS, and that
cannot be caught (``docker cp`` and ``curl -o`` write in place). So a file is mapped from disk only
where nobody but :mod:`download` writes, by ``os.replace``: in our own cache folder, owned by this
user, with no second name. Every other file is copied into anonymous memory, which has no name to
truncate it by, and that copy is mapped: a City file of 125 MB opens in 65 to 340 ms
(mapped from disk: 13 ms) and takes its size in memory, and the C reader then answers in 4 to 10 us,
where MODE_MEMORY, which only the pure reader has, takes the same memory and 26 to 79 us.

The database type is a hint for the order of trying; what a file offers is decided by its records.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import gmtime, strftime
from typing import TYPE_CHECKING, Any, NamedTuple

from places import asn_of, country_of, name_of, text_of

if TYPE_CHECKING:
    from maxminddb import Reader

MAX_SIZE = 512 << 20  # bytes of one file; DB-IP City Lite has 125 MB
MARKER = b"\xab\xcd\xefMaxMind.com"  # begins the metadata, in the last 128 KiB of the file
KINDS = ("city", "country", "asn")
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
    kinds: tuple[str, ...]  # of KINDS: "city" or "country", and "asn"
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
    """One file found: its place in the paths given, and what tells its content from another one."""

    order: int
    path: str
    identity: tuple[int, ...]  # device, inode, size, mtime, ctime (docker cp restores the mtime)
    trouble: str = ""


class Candidate(NamedTuple):
    """A file to try, sortable: by path given, City before Country, GeoLite2 before DB-IP."""

    order: int
    kind_rank: int
    provider_rank: int
    file: File
    hint: str  # what its type says it is: city, country, asn or ""


class Open(NamedTuple):
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


def peek(path: str) -> str:
    """Read only the database type, from the metadata at the end of the file."""
    from maxminddb.decoder import Decoder

    fd, size = _open_file(path)
    try:
        tail = os.pread(fd, 128 << 10, max(0, size - (128 << 10)))
        packed = os.pread(fd, 2, 0) == b"\x1f\x8b"
    finally:
        os.close(fd)
    if packed:
        raise BadDatabase("it is still packed: gunzip it")
    start = tail.rfind(MARKER) + len(MARKER)
    if start < len(MARKER):
        raise BadDatabase("no MaxMind DB metadata at its end: cut short, or another format")
    metadata, _ = Decoder(tail, start).decode(start)
    return str(metadata.get("database_type")) if isinstance(metadata, dict) else ""


def _copy(fd: int, size: int) -> int:
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
        copy = _copy(fd, size)
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


def _walk(reader: Reader, family: int, start: int, steps: int) -> Iterator[Any]:
    """Yield the records of up to ``steps`` networks in a row; bounded even in a damaged tree."""
    import ipaddress

    make: Callable[[int], Any] = ipaddress.IPv4Address if family == 4 else ipaddress.IPv6Address
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


def _sample(reader: Reader, families: Sequence[int]) -> Iterator[Any]:
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
    return tuple(kind for kind in KINDS if found[kind])


def provider_of(type_: str, path: str) -> str:
    """Tell who made it. DB-IP first: its ASN file says "DBIP-ASN-Lite (compat=GeoLite2-ASN)"."""
    for text in (type_, os.path.basename(path)):
        for word in ("dbip", "db-ip", "geolite2", "geoip2", "ipinfo"):
            if word in text.lower():
                return word.replace("-", "")
    return ""


def load(path: str, mapped: bool, lookups: int = 0) -> tuple[Database, Reader]:
    """Open and probe one file; raise :class:`BadDatabase` with the reason.

    The pure reader probes, because one wrong byte in a record (a map's key that is no string) makes
    the C reader 3.2.0 crash the process where the pure one raises.
    """
    try:
        with _content(path, mapped) as fd:
            reader = _pure(fd)
            try:
                database = _probe(path, reader)
                _look_up_random(reader, database.families, lookups)
                fast = _fast(fd)
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
        raise BadDatabase(f"holds no countries, cities or AS numbers (its type is {type_!r})")
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
    return f"damaged, or not a MaxMind DB file ({text_of(str(error))})"


def check(path: str, mapped: bool = False, lookups: int = 2000) -> Database:
    """Open, probe and look up random addresses; raise :class:`BadDatabase` if anything fails.

    ``mapped`` is for a file that nobody else writes. ``lookups`` is for each family.
    """
    database, reader = load(path, mapped, lookups)
    reader.close()
    return database
