"""Geography for the running program: databases open beside the loop, downloads in a child, lookups within a budget.

Opening a City file takes up to 340 ms, so a thread does it; fetching one takes minutes, so a child of ours does that
(the same program with a hidden option), which can be ended at any moment and leaves no half file.
"""

from __future__ import annotations

import json
import os
import shlex
import stat
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import download
from addresses import NOWHERE, Detail, Place
from child import Child, this_program
from geoip import Database, GeoIP, text_of
from health import UsedDatabase
from text import clean

REFRESH_EVERY = 5.0  # seconds between two looks at the files: scanning a few folders takes 0.01 ms
DUE_EVERY = 600.0  # seconds between asking whether a new month could be out; the server is asked at most once a day
FRAME_BUDGET = 0.03  # seconds of lookups in one frame: 3,000 addresses with the C reader, 500 with the pure one
PLACED = 65_536  # addresses whose coordinates are kept
MISSING = "no GeoIP database"


@dataclass(frozen=True)
class Plan:
    """Where databases are looked for; whether they are fetched, from where, and under which User-Agent."""

    paths: tuple[str, ...]
    fetch: bool
    base_url: str
    agent: str
    command: str = "conntrack-monitor --update-geoip"  # what fetches them at once

    def folders(self) -> list[str]:
        """Where a fetched database may go, best first."""
        return [path for path in self.paths if not path.endswith(".mmdb") and not os.path.isfile(path)]


class Geography:
    """What the screen needs: ``where`` and ``detail`` for addresses, ``notices``, and a place in the loop."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.short = False  # lookups were put off in this frame: draw again soon
        self._fresh = False  # other databases are in use since somebody asked last
        self._geoip = GeoIP(plan.paths)
        self._opening: threading.Thread | None = None
        self._opened = False
        self._wake, self._woken = os.pipe()
        os.set_blocking(self._wake, False)
        self._worker: Child | None = None
        self._progress = ""
        self._into = ""
        self._outcomes: dict[str, download.Outcome] = {}
        self._refresh_due = 0.0
        self._look_due = 0.0
        self._looked = False
        self._coordinates: dict[str, tuple[float, float] | None] = {}
        self._left = 0.0  # seconds of lookups that this frame may still spend

    # --- looking up ---

    def begin_frame(self) -> None:
        """A new frame, a new budget."""
        self.short = False
        self._left = FRAME_BUDGET

    def where(self, address: str) -> Place:
        """Where an address is; NOWHERE too if that is not known yet and this frame's budget is spent."""
        known = self._geoip.known(address)
        if known is not None:
            return known
        if self._left <= 0:
            self.short = True
            return NOWHERE
        # Only lookups count, not what the frame does between them: sorting 200,000 flows would leave them nothing.
        began = time.perf_counter()
        place = self._geoip.lookup(address)
        self._left -= time.perf_counter() - began
        return place

    def lookup(self, address: str) -> Place:
        """Where an address is, whatever this frame's budget is: for who does not draw frames."""
        return self._geoip.lookup(address)

    def detail(self, address: str) -> Detail:
        return self._geoip.detail(address)

    def coordinates(self, address: str) -> tuple[float, float] | None:
        """Degrees north and east; None too if they are not known yet and this frame's budget is spent."""
        if address in self._coordinates:
            return self._coordinates[address]
        if self._left <= 0:
            self.short = True
            return None
        began = time.perf_counter()
        detail = self._geoip.detail(address)
        at = None if detail.latitude is None or detail.longitude is None else (detail.latitude, detail.longitude)
        self._left -= time.perf_counter() - began
        if len(self._coordinates) >= PLACED:
            self._coordinates.clear()
        self._coordinates[address] = at
        return at

    def databases(self, now: float) -> list[UsedDatabase]:
        """Those in use; ``now`` in seconds since 1970."""
        old = self._geoip.stale(now)
        return [
            UsedDatabase(
                *(text_of(db.path) or "?", db.month, (now - db.built) / 86400, db in old),
                cure=self.plan.command if db in old and self._is_renewed(db) else "",
            )
            for db in self._geoip.databases
        ]

    def _is_renewed(self, database: Database) -> bool:
        """Would a fetched database take this one's place? It goes into the first folder that can be written to.

        GeoLite2 is fetched by MaxMind's own program, with a key that only the user has.
        """
        if database.provider != "dbip":
            return False
        paths, folders = list(self.plan.paths), self.plan.folders()
        into = next((folder for folder in folders[:-1] if os.access(folder, os.W_OK)), folders[-1])
        places = (database.path, os.path.dirname(database.path))
        return any(path in places for path in paths[paths.index(into) :])

    def attributions(self) -> list[str]:
        return self._geoip.attributions()

    def notices(self) -> list[tuple[str, str]]:
        """What is to be said, with the command that helps."""
        out = [(self._progress, "")] if self._progress else []
        # What is wrong with the files is the reason why there is no database.
        denied = self._geoip.denied
        out += [(notice, denied_cure(denied[notice]) if notice in denied else "") for notice in self._geoip.notices]
        failures = list(dict.fromkeys(outcome.why for outcome in self._outcomes.values() if outcome.why))
        if self._opened and not self._geoip.databases and not self._progress:
            out.append((f"no GeoIP database: {failures[0]}" if failures else MISSING, self.plan.command))
        elif not self._progress:
            out += [(f"no newer GeoIP database: {why}", self.plan.command) for why in failures]
        return out

    # --- the loop's side ---

    def fds(self) -> list[int]:
        return [self._wake, *(self._worker.fds() if self._worker else ())]

    def deadline(self) -> float:
        """On the scale of time.monotonic()."""
        if self._worker and self._worker.out is None:
            return time.monotonic() + 0.05
        return self._refresh_due

    def poll(self) -> None:
        """Do what is due; never waits."""
        try:
            woken = bool(os.read(self._wake, 64))
        except BlockingIOError:
            woken = False
        if woken:
            self._opened = self._fresh = True
            self._coordinates.clear()
        now = time.monotonic()
        if now >= self._refresh_due:
            self._refresh_due = now + REFRESH_EVERY
            if not self._opened or self._geoip.changed():
                self._open()
        if self._opened and self.plan.fetch and self._worker is None and now >= self._look_due:
            self._look_due = now + DUE_EVERY
            self._fetch()
        if self._worker:
            self._poll_worker(self._worker)

    @property
    def opened(self) -> bool:
        """Have the databases that are there been looked for?"""
        return self._opened

    def renewed(self) -> bool:
        """Are other databases in use since somebody asked last?"""
        fresh, self._fresh = self._fresh, False
        return fresh

    def close(self) -> None:
        if self._worker:
            self._worker.stop(patience=1.0)
        if self._opening:
            self._opening.join(1.0)
        if not (self._opening and self._opening.is_alive()):
            os.close(self._woken)
        os.close(self._wake)

    def _open(self) -> None:
        if self._opening is None or not self._opening.is_alive():
            self._opening = threading.Thread(target=self._open_beside, daemon=True)
            self._opening.start()

    def _open_beside(self) -> None:
        self._geoip.open()
        os.write(self._woken, b".")

    # --- fetching ---

    def wanted(self) -> list[str]:
        """The kinds for which the user has no database: the program fetches these and keeps them new."""
        ours = {
            os.path.realpath(download.target(folder, kind))
            for folder in self.plan.folders()
            for kind in download.FETCHED_KINDS
        }
        foreign = {
            kind
            for database in self._geoip.databases
            if os.path.realpath(database.path) not in ours
            for kind in database.kinds
        }
        place = "city" in foreign or "country" in foreign
        return [kind for kind, there in (("city", place), ("asn", "asn" in foreign)) if not there]

    def _fetch(self) -> None:
        kinds = self.wanted()
        folder, passed = download.writable(self.plan.folders())
        self._into = f" into {clean(folder)}" if folder and passed else ""  # not the user's first choice: say where
        if not kinds or (self._looked and folder and not download.due(folder, time.time(), kinds)):
            return
        try:
            self._worker = Child(worker_argv(self.plan, kinds, start=not self._looked))
        except OSError as error:
            self._progress = ""
            text = f"the databases can't be fetched: {error.strerror}"
            self._outcomes["city"] = download.Outcome("city", "failed", text, why=text)
        self._looked = True

    def _poll_worker(self, worker: Child) -> None:
        for line in worker.read().decode("utf-8", "replace").splitlines():  # whole ones; a leftover was cut off
            self._take_line(line)
        worker.read_errors()
        if worker.ended() is not None:
            worker.stop()
            self._worker = None
            self._progress = ""
            self._refresh_due = 0.0

    def _take_line(self, line: str) -> None:
        try:
            said = json.loads(line)
            if "outcome" in said:
                outcome = download.Outcome(**said["outcome"])
                self._outcomes[outcome.kind] = outcome
                self._refresh_due = 0.0
            else:
                self._progress = progress_text(download.FetchProgress(**said)) + f", from {self._host()}{self._into}"
        except (ValueError, TypeError, KeyError):
            pass  # a line that was cut when the worker was killed

    def _host(self) -> str:
        from urllib.parse import urlsplit

        return clean(urlsplit(self.plan.base_url).hostname or "")


def denied_cure(path: str) -> str:
    """The command that lets everybody read a database; "" where root itself may not, in a container."""
    if os.geteuid() == 0:
        return ""
    try:
        info = os.stat(path)
    except OSError:  # its folder is what may not be entered
        return shlex.join(["sudo", "chmod", "a+rx", os.path.dirname(path)])
    change = "a+rx" if stat.S_ISDIR(info.st_mode) else "a+r"
    return shlex.join([*(["sudo"] if info.st_uid != os.geteuid() else []), "chmod", change, path])


def progress_text(progress: download.FetchProgress) -> str:
    """``fetching DB-IP City Lite 2026-11: 45% of 62.1 MB, 3.2 MB/s``."""
    size = f"{progress.received / 1e6:.1f} MB"
    if progress.total:
        size = f"{progress.received / progress.total:.0%} of {progress.total / 1e6:.1f} MB"
    return f"fetching {progress.name}: {size}, {progress.rate / 1e6:.1f} MB/s"


def worker_argv(plan: Plan, kinds: Sequence[str], start: bool) -> list[str]:
    """The command of the child that fetches: this program, with an option that --help does not show."""
    order = f"{'start' if start else 'look'}:{','.join(kinds)}"
    paths = [word for path in plan.paths for word in ("--geoip-db", path)]
    return this_program(*paths, "--no-config", "--geoip-worker", order)


def work(plan: Plan, order: str) -> int:
    """Be the worker: fetch, and print progress and outcomes on standard output, a JSON object a line."""
    when, _, kinds = order.partition(":")
    last_told = 0.0

    def tell(progress: download.FetchProgress) -> None:
        nonlocal last_told
        if time.monotonic() - last_told >= 0.25 or progress.received == progress.total:
            last_told = time.monotonic()
            print(json.dumps(progress._asdict()), flush=True)

    wanted = [kind for kind in kinds.split(",") if kind in download.FETCHED_KINDS]
    for outcome in _update(plan, tell, wanted, start=when == "start"):
        print(json.dumps({"outcome": asdict(outcome)}), flush=True)
    return 0


def update_now(plan: Plan, tell: Callable[[download.FetchProgress], None]) -> list[download.Outcome]:
    """``--update-geoip``: fetch now, whatever was tried before."""
    return _update(plan, tell, download.FETCHED_KINDS, force=True)


def _update(
    plan: Plan,
    tell: Callable[[download.FetchProgress], None],
    kinds: Sequence[str],
    start: bool = False,
    force: bool = False,
) -> list[download.Outcome]:
    return download.update(
        plan.folders(),
        plan.base_url,
        now=time.time(),
        progress=tell,
        kinds=kinds,
        start=start,
        force=force,
        agent=plan.agent,
        command=plan.command,
    )
