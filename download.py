"""Fetches the DB-IP Lite databases and puts them in place without ever breaking what is there.

A file is replaced only by a complete, checked one, by ``os.replace``; whatever happens before that
leaves the old one untouched and no ``.part`` behind. One small file in the folder is both the lock
(held while fetching) and the memory of what was tried when, so that neither two processes nor a
restart loop bother the publisher. The databases are under CC BY 4.0; the line that asks for is in
:mod:`geoip`.
"""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import re
import socket
import stat
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import geoip
from text import DAY, clean

if TYPE_CHECKING:
    from http.client import HTTPResponse
    from urllib.request import BaseHandler, OpenerDirector  # 30 ms

# --- what was tried when ----------------------------------------------------------------------------------------------

FILE = ".conntrack-monitor-geoip.json"
NAMES = {"city": "DB-IP City Lite", "asn": "DB-IP ASN Lite"}
FETCHED_KINDS = tuple(NAMES)
BACK_OFF = (3_600, 6 * 3_600, 24 * 3_600)  # seconds after the 1st, 2nd, 3rd and later failure
RESTART_PAUSE = 60  # seconds between two tries of a program that is started again and again


class FetchState:
    """What was tried when and what is installed, for each kind; times in seconds since 1970.

    ``tried``, ``open`` (1: begun or failed), ``failures`` in a row, ``error``; ``looked``: the last
    success; ``month`` and ``built`` of what was fetched. Whatever the file holds, reading it raises
    nothing; on a full disk nothing is remembered.
    """

    def __init__(self, fd: int | None) -> None:
        self._fd = fd
        self._data: dict[str, dict[str, object]] = {}
        if fd is None:
            return
        with suppress(OSError, ValueError, RecursionError):
            data = json.loads(os.pread(fd, 64 << 10, 0))
            for kind in FETCHED_KINDS:
                if isinstance(data, dict) and isinstance(data.get(kind), dict):
                    self._data[kind] = data[kind]

    def get(self, kind: str, key: str) -> str:
        value = self._data.get(kind, {}).get(key)
        return clean(value) if isinstance(value, str) else ""

    def number(self, kind: str, key: str) -> float:
        value = self._data.get(kind, {}).get(key)
        return value if isinstance(value, (int, float)) and not isinstance(value, bool) else 0.0

    def set(self, kind: str, **values: str | float) -> None:
        self._data.setdefault(kind, {}).update(values)
        if self._fd is not None:
            with suppress(OSError):
                text = json.dumps(self._data).encode()
                os.ftruncate(self._fd, os.pwrite(self._fd, text, 0))

    def begin(self, kind: str, now: float) -> None:
        """Note the try before it is made, so that one that kills the process counts too."""
        self.set(kind, tried=now, open=1, error="")

    def succeed(self, kind: str, now: float) -> None:
        self.set(kind, open=0, failures=0, looked=now, error="")

    def fail(self, kind: str, now: float, error: str) -> None:
        self.set(kind, open=1, failures=self.number(kind, "failures") + 1, tried=now, error=error)

    def again(self, kind: str, now: float, start: bool = False) -> float:
        """Return the time before which there should be no new try; 0 after a success."""
        tried = self.number(kind, "tried")
        if not self.number(kind, "open") or tried > now:  # in the future: the clock was wrong
            return 0.0
        failures = int(max(0, min(self.number(kind, "failures"), len(BACK_OFF))))
        pause = BACK_OFF[failures - 1] if failures and not start else RESTART_PAUSE
        return tried + pause

    def month(self, kind: str, installed: geoip.Database | None) -> str:
        """Return the month installed: as fetched, or of the build if it is not the file fetched."""
        if installed is None:
            return ""
        fetched = self.number(kind, "built") == installed.built
        return self.get(kind, "month") if fetched else installed.month


def open_state(folder: str, flags: int = os.O_RDWR | os.O_CREAT) -> int:
    """Open (and make) the file of a folder; OSError where that is not allowed, or something else is in its place."""
    path = os.path.join(folder, FILE)
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)  # a pipe would wait for ever
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, f"{FILE} is not a regular file", path)
    return fd


@contextmanager
def locked(folder: str) -> Iterator[FetchState]:
    """Hold the lock; BlockingIOError if another process has it.

    A file that has other names is not ours to write: it gives way to a new one, so that a hard link in its place
    costs nobody what it links to.
    """
    while True:
        fd = open_state(folder)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_only_name(fd, folder):
                continue
            yield FetchState(fd)
            return
        finally:
            os.close(fd)


def _is_only_name(fd: int, folder: str) -> bool:
    """Is the open file what is in its place, and has it no other name? A link that is in its place is taken away."""
    path = os.path.join(folder, FILE)
    state = os.fstat(fd)
    try:
        there = os.lstat(path)
    except FileNotFoundError:  # somebody else has just taken it away
        return False
    if (there.st_dev, there.st_ino) != (state.st_dev, state.st_ino):
        return False
    if state.st_nlink > 1:
        os.unlink(path)
    return state.st_nlink == 1


def read_state(folder: str) -> FetchState:
    """What is remembered, for looking only."""
    try:
        fd = open_state(folder, os.O_RDONLY)
    except OSError:
        return FetchState(None)
    try:
        return FetchState(fd)
    finally:
        os.close(fd)


# --- fetching ---------------------------------------------------------------------------------------------------------

DEFAULT_URL = "https://download.db-ip.com/free"
MAX_PACKED = 256 << 20  # bytes; City has about 62 MB
MAX_UNPACKED = 512 << 20  # bytes; City has about 125 MB
DOWNLOAD_CHUNK = 256 << 10
# Silence alone is no bound: a byte each 29 s would hold the lock for years. City's 62 MB in an hour are 17 kB a second.
LONGEST_TRANSFER = 3_600.0  # seconds for one file
PACE_SPAN, PACE_BYTES = 60.0, 64 << 10  # in each span of so many seconds so many bytes have to come
MONTHS_BACK = 3
OLDEST_BUILD = 1_388_534_400  # 2014, the year of the format's version 2


class FetchProgress(NamedTuple):
    """How far one file is: bytes received of ``total`` (None: not said), bytes a second so far."""

    kind: str
    name: str  # "DB-IP City Lite 2026-11"
    received: int
    total: int | None
    rate: float


@dataclass(frozen=True)
class Outcome:
    """What became of one database.

    ``status``: installed; current (there is nothing newer); busy (another process is at it);
    waiting (failed not long ago); failed. ``message`` says it in words, with the reason and what
    helps. ``path`` is where the file is or would be. ``again``: seconds since 1970 before which
    the next try is of no use, where there is such a time.
    """

    kind: str
    status: str
    message: str
    path: str | None = None
    again: float | None = None
    why: str = ""  # the reason alone, where something was in the way


class _Failure(Exception):
    """Why nothing is installed; ``contact``: because of the server, so that no other file is asked for now."""

    def __init__(self, message: str, contact: bool = False) -> None:
        super().__init__(message)
        self.contact = contact


class _Missing(Exception):
    """The server has no file of this month (404)."""


class _Pace:
    """The bounds of one transfer: in silence, in progress, in total time; asked before each read and told after it."""

    def __init__(self, timeout: float) -> None:
        self.silence = timeout
        self._began = self._span = time.monotonic()
        self._bytes = 0

    def left(self) -> float:
        """Seconds that the next read may take; _Failure where there are none."""
        now = time.monotonic()
        if now >= self._span + PACE_SPAN:
            if self._bytes < PACE_BYTES:
                raise _Failure(f"too slow: {self._bytes} bytes in {PACE_SPAN:g} s", contact=True)
            self._span, self._bytes = now, 0
        left = self._began + LONGEST_TRANSFER - now
        if left <= 0:
            raise self.too_long()
        return min(self.silence, left)

    def too_long(self) -> _Failure:
        return _Failure(f"not finished after {LONGEST_TRANSFER / 60:g} minutes", contact=True)

    def took(self, count: int) -> None:
        self._bytes += count


class _Paced(io.RawIOBase):
    """What a socket brings, within the bounds of a pace."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, pace: _Pace) -> None:
        self._raw, self._sock, self._pace = raw, sock, pace

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._pace.left()
        self._sock.settimeout(left)
        try:
            count = self._raw.readinto(buffer)
        except TimeoutError:
            if left < self._pace.silence:
                raise self._pace.too_long() from None
            raise
        self._pace.took(count or 0)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Job(NamedTuple):
    """What all steps of one update need."""

    folder: str
    base_url: str
    now: float
    progress: Callable[[FetchProgress], None]
    timeout: float
    opener: Callable[[_Pace], OpenerDirector]
    agent: str
    command: str


def update(
    target_dirs: Sequence[str],
    base_url: str,
    *,
    now: float,
    progress: Callable[[FetchProgress], None],
    kinds: Sequence[str] = FETCHED_KINDS,
    force: bool = False,
    start: bool = False,
    timeout: float = 30.0,
    agent: str = "conntrack-monitor",
    command: str = "conntrack-monitor --update-geoip",
) -> list[Outcome]:
    """Bring databases up to date in the first writable folder; return an outcome for each kind.

    After a failure the next try waits 1 h, 6 h, then 24 h, across restarts. With ``start`` (the
    program has just begun) only a try less than a minute ago that failed or was broken off makes
    it wait; with ``force`` (somebody asked) nothing does. ``now`` in seconds since 1970. A transfer
    ends after ``timeout`` seconds without a byte, at :data:`PACE_BYTES` in :data:`PACE_SPAN`, and after
    :data:`LONGEST_TRANSFER`. ``agent`` is the User-Agent header,
    ``command`` what fetches at once, for messages.

    Raises nothing of its own. What ``progress`` raises (it is called every 256 KiB) passes through
    as KeyboardInterrupt does, when the unfinished file is gone; an OSError becomes an outcome.
    """
    try:
        _check_url(base_url)
    except _Failure as failure:
        return [_failed(kind, str(failure), None, None, command) for kind in kinds]
    folder, passed = writable(target_dirs)
    if folder is None:
        why = "; ".join(passed) or "no folder was named"
        return [_failed(kind, f"no writable folder ({why})", None, None, command) for kind in kinds]
    job = _Job(folder, base_url.rstrip("/"), now, progress, timeout, _opener, agent, command)
    note = f"; not in {', '.join(passed)}" if passed else ""
    outcomes = _update_locked(job, kinds, force, start)
    return [replace(outcome, message=outcome.message + note) for outcome in outcomes]


def _update_locked(job: _Job, kinds: Sequence[str], force: bool, start: bool) -> list[Outcome]:
    """Take the folder's lock and update; an OSError becomes an outcome."""
    folder = job.folder
    try:
        with locked(folder) as memory:
            remove_parts(folder)
            return _update_all(job, kinds, memory, force, start)
    except BlockingIOError:
        text = f"another process is fetching into {folder}"
        again = job.now + 60
        return [Outcome(kind, "busy", f"{NAMES[kind]}: {text}", target(folder, kind), again) for kind in kinds]
    except OSError as error:
        return [_failed(kind, f"{folder}: {_error_words(error)}", None, None, job.command) for kind in kinds]


def due(target_dir: str, now: float, kinds: Sequence[str] = FETCHED_KINDS) -> bool:
    """Tell whether :func:`update` could find something new: never fetched, or of an earlier month.

    At most once a day for each kind, and not while a failure's back-off runs. It costs reading one
    small file.
    """
    memory = read_state(target_dir)
    return any(_may_look(memory, kind, target_dir, now) for kind in kinds)


def writable(target_dirs: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the first folder that can be written to, and why the ones before it can't.

    Single files are passed over. Only the last one, the user's cache folder, is made if missing.
    """
    passed = []
    for index, folder in enumerate(target_dirs):
        if folder.endswith(".mmdb") or os.path.isfile(folder):
            continue
        try:
            if index == len(target_dirs) - 1:
                os.makedirs(folder, exist_ok=True)
            os.close(open_state(folder))
        except OSError as error:
            passed.append(f"{folder}: {_error_words(error)}")
        else:
            return folder, passed
    return None, passed


def target(folder: str, kind: str) -> str:
    """Return the path of an installed database; without a month in it, a new file replaces the old one."""
    return os.path.join(folder, f"dbip-{kind}-lite.mmdb")


# One update --------------------------------------------------------------------------------------


def _update_all(job: _Job, kinds: Sequence[str], memory: FetchState, force: bool, start: bool) -> list[Outcome]:
    outcomes: list[Outcome] = []
    left_alone = ""
    for kind in kinds:
        path = target(job.folder, kind)
        again = 0.0 if force else memory.again(kind, job.now, start)
        if left_alone:
            outcomes.append(_failed(kind, left_alone, path, None, job.command))
        elif job.now < again:
            why = memory.get(kind, "error") or "broken off"
            text = f"{NAMES[kind]}: the last try failed ({why}); next one at {_clock(again)}"
            outcomes.append(Outcome(kind, "waiting", text, path, again, f"the last try failed: {why}"))
        else:
            memory.begin(kind, job.now)
            try:
                outcomes.append(_update_one(job, kind, memory))
                memory.succeed(kind, job.now)
            except _Failure as failure:
                memory.fail(kind, job.now, str(failure))
                outcomes.append(_failed(kind, str(failure), path, memory.again(kind, job.now), job.command))
                left_alone = str(failure) if failure.contact else ""
    return outcomes


def _update_one(job: _Job, kind: str, memory: FetchState) -> Outcome:
    """Fetch the newest month that is newer than what is installed."""
    path = target(job.folder, kind)
    try:
        installed = geoip.check(path) if os.path.exists(path) else None
    except geoip.BadDatabase:
        installed = None
    have = memory.month(kind, installed)
    months = [month for month in _months(job.now) if month > have]
    for month in months:
        with suppress(_Missing):
            database = _fetch(job, kind, month, installed)
            memory.set(kind, month=month, built=database.built)
            size = os.path.getsize(path) / 1e6
            text = f"{NAMES[kind]} {month} is in {path} ({size:.1f} MB)"
            return Outcome(kind, "installed", text, path)
    if installed:
        memory.set(kind, month=have, built=installed.built)
        return Outcome(kind, "current", f"{NAMES[kind]} {have} is the newest there is", path)
    raise _Failure(f"{job.base_url} has no file for {months[-1]} to {months[0]}", contact=True)


def _fetch(job: _Job, kind: str, month: str, installed: geoip.Database | None) -> geoip.Database:
    """Download, check and install one file; :class:`_Missing` if the server has no such month."""
    from ssl import SSLError

    url = f"{job.base_url}/dbip-{kind}-lite-{month}.mmdb.gz"
    path = target(job.folder, kind)
    part = os.path.join(job.folder, f".dbip-{kind}-lite.mmdb.part")
    try:
        with _request(job, url) as response:
            _check_space(job.folder, _length(response))
            with _create(part) as file:
                report = _reporter(job, kind, f"{NAMES[kind]} {month}", _length(response))
                _unpack(response, file, report, _length(response))
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
        database = _verify(part, kind, job.now, installed)
        os.replace(part, path)
        _sync_folder(job.folder)
        return database
    except OSError as error:
        if isinstance(error, (ConnectionError, SSLError)):
            raise _Failure(f"the transfer stopped ({_error_words(error)})", contact=True) from error
        raise _Failure(f"{job.folder}: {_error_words(error)}") from error
    finally:
        with suppress(OSError):
            os.unlink(part)


def _verify(part: str, kind: str, now: float, installed: geoip.Database | None) -> geoip.Database:
    try:
        database = geoip.check(part, mapped=True)
    except geoip.BadDatabase as error:
        raise _Failure(f"the downloaded file is unusable: {error}") from error
    if kind not in database.type.lower() or kind not in database.kinds:
        raise _Failure(f"the downloaded file is of another type: {database.type!r}")
    if not OLDEST_BUILD <= database.built <= now + 7 * DAY:
        raise _Failure(f"the downloaded file is dated {database.month}; is the clock right?")
    if installed and database.built < installed.built:
        months = f"{database.month}; installed: {installed.month}"
        raise _Failure(f"the downloaded file is older than the installed one (built in {months})")
    return database


def _months(now: float) -> list[str]:
    """Return this month (UTC) and the ones before it, as the file names have them.

    >>> _months(1769860800)
    ['2026-01', '2025-12', '2025-11', '2025-10']
    """
    today = time.gmtime(now)
    count = today.tm_year * 12 + today.tm_mon - 1
    return [f"{k // 12:04d}-{k % 12 + 1:02d}" for k in range(count, count - MONTHS_BACK - 1, -1)]


# The transfer ------------------------------------------------------------------------------------


def _check_url(url: str, before: str = "") -> None:
    """Refuse everything but https, and http to this very host; and never from https to http."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError as error:
        raise _Failure(f"{clean(url)} is not an address: {error}") from error
    loopback = host in ("localhost", "::1") or re.fullmatch(r"127(\.[0-9]{1,3}){3}", host)
    allowed = parts.scheme == "https" or (parts.scheme == "http" and loopback)
    if before.startswith("https:"):
        allowed = parts.scheme == "https"
    if not allowed or not host or parts.username is not None:
        shown = clean(f"{parts.scheme}://{host}")
        what = "the server redirects to" if before else "the address is"
        raise _Failure(f"{what} {shown}; only https is allowed (http only on this host)", contact=True)


def _opener(pace: _Pace) -> OpenerDirector:
    """Build an opener for http and https only, with the proxies of the environment; what it reads keeps the pace."""
    from urllib import request

    class Redirects(request.HTTPRedirectHandler):
        def redirect_request(self, req: request.Request, *args: Any) -> request.Request | None:
            try:
                _check_url(args[-1], req.full_url)
            except _Failure:
                args[0].close()
                raise
            return super().redirect_request(req, *args)

    proxies = request.getproxies()
    everything = proxies.pop("all", "")
    if everything:
        proxies = {"http": everything, "https": everything, **proxies}
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler(proxies),
        *_paced_handlers(pace),
        request.HTTPDefaultErrorHandler(),
        request.HTTPErrorProcessor(),
        request.UnknownHandler(),
        Redirects(),
    ):
        opener.add_handler(handler)
    return opener


def _paced_handlers(pace: _Pace) -> list[BaseHandler]:
    """http and https, bounded from the first byte on: a proxy's answer, the headers, the body.

    (A TLS handshake has one timeout for all of it.)
    """
    from http import client
    from urllib import request

    class Response(client.HTTPResponse):
        def __init__(self, sock: socket.socket, *args: Any, **more: Any) -> None:
            super().__init__(sock, *args, **more)
            self.fp = io.BufferedReader(_Paced(self.fp.detach(), sock, pace))

    class Plain(client.HTTPConnection):
        response_class = Response

    class Encrypted(client.HTTPSConnection):
        response_class = Response

    class PlainHandler(request.HTTPHandler):
        def http_open(self, req: request.Request) -> client.HTTPResponse:
            return self.do_open(Plain, req)

    class EncryptedHandler(request.HTTPSHandler):
        def https_open(self, req: request.Request) -> client.HTTPResponse:
            return self.do_open(Encrypted, req)

    return [PlainHandler(), EncryptedHandler()]


@contextmanager
def _request(job: _Job, url: str) -> Iterator[HTTPResponse]:
    """Ask for a file; translate what can go wrong until the last byte is read."""
    import stringprep  # noqa: F401  where it is missing, Python says of a host's name "unknown encoding: idna"
    from http.client import HTTPException
    from urllib.error import HTTPError, URLError
    from urllib.request import Request

    try:
        request = Request(url, headers={"User-Agent": job.agent, "Accept": "application/gzip, */*"})
        with job.opener(_Pace(job.timeout)).open(request, timeout=job.timeout) as response:
            if response.status != 200:
                raise _Failure(f"the server answered {response.status}", contact=True)
            yield response
    except HTTPError as error:
        error.close()
        if error.code == 404:
            raise _Missing from error
        text = clean(f"the server answered {error.code} {error.reason}")
        raise _Failure(text, contact=True) from error
    except URLError as error:
        raise _Failure(_unreachable(url, error.reason), contact=True) from error
    except TimeoutError as error:
        raise _Failure(f"no data for {job.timeout:g} s", contact=True) from error
    except (HTTPException, ValueError) as error:
        text = clean(f"{type(error).__name__} {error}", 100)
        raise _Failure(f"the server sent an invalid answer ({text})", contact=True) from error


def _unreachable(url: str, reason: str | BaseException) -> str:
    """Say why there is no connection, and what helps."""
    from ssl import SSLCertVerificationError
    from urllib.parse import urlsplit

    host = clean(urlsplit(url).hostname or url)
    if isinstance(reason, SSLCertVerificationError):
        hint = "is the clock right? Does apt install ca-certificates help?"
        return f"the certificate of {host} was rejected ({clean(reason.verify_message)}); {hint}"
    if isinstance(reason, socket.gaierror):
        why = clean(str(reason.strerror))
        return f"{host} can't be found ({why}); is there a name server, or a proxy to set?"
    if isinstance(reason, TimeoutError):
        return f"{host} does not answer; is there a proxy to set in https_proxy?"
    why = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
    return f"{host} can't be reached ({clean(why, 100)})"


def _length(response: HTTPResponse) -> int | None:
    """Return the Content-Length in bytes; None: not said."""
    text = response.headers.get("Content-Length", "")
    if not (text.isascii() and text.isdigit()):
        return None
    if int(text[:20]) > MAX_PACKED:
        raise _Failure(f"the file is larger than {MAX_PACKED >> 20} MiB")
    return int(text)


def _check_space(folder: str, length: int | None) -> None:
    """Refuse what won't fit: a City file unpacks to twice its size, so three times, and 1 MiB."""
    need = 3 * (length or 0) + (1 << 20)
    info = os.statvfs(folder)
    free = info.f_bavail * info.f_frsize
    if free < need:
        sizes = f"needs about {need / 1e6:.0f} MB, {free / 1e6:.0f} MB are free"
        raise _Failure(f"not enough space in {folder}: {sizes}")


def _reporter(job: _Job, kind: str, name: str, total: int | None) -> Callable[[int], None]:
    began = time.monotonic()

    def report(received: int) -> None:
        spent = max(time.monotonic() - began, 1e-3)
        job.progress(FetchProgress(kind, name, received, total, received / spent))

    report(0)
    return report


def _unpack(response: HTTPResponse, file: IO[bytes], report: Callable[[int], None], length: int | None) -> None:
    """Copy the body through gunzip; raise _Failure for a body that is too short, too long or no gzip."""
    unzip = zlib.decompressobj(31)
    received = written = 0
    head = b""
    try:
        while block := response.read(DOWNLOAD_CHUNK):
            head = head or block[:2]
            received += len(block)
            if received > MAX_PACKED:
                raise _Failure(f"the file is larger than {MAX_PACKED >> 20} MiB")
            while block and not unzip.eof:
                data = unzip.decompress(block, DOWNLOAD_CHUNK * 4)
                written += len(data)
                if written > MAX_UNPACKED:
                    raise _Failure(f"the file unpacks to more than {MAX_UNPACKED >> 20} MiB")
                file.write(data)
                block = unzip.unconsumed_tail
            report(received)
    except zlib.error as error:
        kind = clean(response.headers.get("Content-Type", "unknown"), 40)
        packed = head == b"\x1f\x8b"
        what = "damaged" if packed else f"not gzip but {kind} (a proxy's page?)"
        raise _Failure(f"the downloaded file is {what}", contact=not packed) from error
    if received == 0:
        raise _Failure("the server sent nothing", contact=True)
    if (length is not None and received != length) or not unzip.eof:
        of = f" of {length}" if length is not None else ""
        raise _Failure(f"the transfer stopped after {received}{of} bytes", contact=True)
    if unzip.unused_data:
        raise _Failure("the downloaded file has data after the end of the gzip stream")


# Files -------------------------------------------------------------------------------------------


def _create(part: str) -> IO[bytes]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return open(os.open(part, flags, 0o600), "wb")


def remove_parts(folder: str) -> None:
    """Remove unfinished files: what a killed process left, found when the lock is held.

    Also for a process that ends while a thread of its own is in :func:`update`.
    """
    for kind in NAMES:
        with suppress(OSError):
            os.unlink(os.path.join(folder, f".dbip-{kind}-lite.mmdb.part"))


def _sync_folder(folder: str) -> None:
    with suppress(OSError):  # some network file systems can't
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _may_look(memory: FetchState, kind: str, folder: str, now: float) -> bool:
    """Tell for one kind: no back-off, and no file, or an earlier month and no look today."""
    if now < memory.again(kind, now):
        return False
    if not os.path.exists(target(folder, kind)):
        return True
    looked = memory.number(kind, "looked")
    return memory.get(kind, "month") < _months(now)[0] and not looked <= now < looked + DAY


# Words -------------------------------------------------------------------------------------------


def _error_words(error: OSError) -> str:
    return clean(error.strerror or str(error) or type(error).__name__)


def _failed(kind: str, why: str, path: str | None, again: float | None, command: str) -> Outcome:
    when = f"next try at {_clock(again)}, or now" if again else "try again"
    text = f"{NAMES[kind]} not fetched: {why}; {when}: {command}"
    return Outcome(kind, "failed", text, path, again, why)


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M", time.localtime(seconds))
