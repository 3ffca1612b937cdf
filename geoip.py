"""Where an address is: the databases in use, and looking addresses up in them.

Without any database everything is NOWHERE; a broken one is skipped with a notice and the next one answers.
"""

from __future__ import annotations

import math
import os
import stat
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from addresses import NOWHERE, Detail, Place
from mmdb import (
    ATTRIBUTIONS,
    DAMAGED,
    KINDS,
    BadDatabase,
    Candidate,
    Database,
    File,
    Open,
    load,
    peek,
    provider_of,
    reason,
    scan,
)
from places import degrees_of, place_of, subdivision_of, text_of

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
    opened: dict[str, Open] = field(default_factory=dict)
    places: dict[int, Open] = field(default_factory=dict)  # by family: city or country
    networks: dict[int, Open] = field(default_factory=dict)  # by family: asn
    notices: list[str] = field(default_factory=list)
    cache: OrderedDict[str, Place] = field(default_factory=OrderedDict)
    known: dict[Place, Place] = field(default_factory=dict)  # one tuple a place, not an address

    def __post_init__(self) -> None:
        self.known[NOWHERE] = NOWHERE


class GeoIP:
    """The databases in use. Without any, everything is :data:`NOWHERE`; nothing here raises.

    ``paths`` as from :func:`search_paths`; files in the folder ``own`` (default: our cache folder)
    may be mapped. One thread may call :meth:`open` or :meth:`refresh` while another one looks up:
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
    def databases(self) -> list[Database]:
        """The databases that answer, those of places first."""
        used = [entry.database for entry in self._state.opened.values()]
        return sorted(used, key=lambda database: database.kinds == ("asn",))

    def attributions(self) -> list[str]:
        """Return the lines that the licences of the databases in use ask for."""
        return list(dict.fromkeys(db.attribution for db in self.databases if db.attribution))

    def stale(self, now: float) -> list[str]:
        """Return a line for each database that is older than its publisher's newest must be.

        ``now`` in seconds since 1970; compared with the time of the build, not of the file.
        """
        return [
            f"{text_of(db.path)} is of {db.month}, over {STALE_DAYS[db.provider]} days old"
            for db in self.databases
            if now - db.built > STALE_DAYS.get(db.provider, math.inf) * 86_400
        ]

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

    def refresh(self) -> bool:
        """Open again if something changed; return whether it did."""
        if not self.changed():
            return False
        self.open()
        return True

    def close(self) -> None:
        """Let go of all databases; lookups answer :data:`NOWHERE` from now on."""
        self._state = _State()

    def known(self, address: str) -> Place | None:
        """Return what an earlier lookup found, for the cost of a dict access; None: none yet."""
        return self._state.cache.get(address)

    def lookup(self, address: str) -> Place:
        """Return where an address is; as printed, so with zone id or ::ffff: too. Never raises."""
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
                type_ = peek(file.path)
            except (BadDatabase, *DAMAGED) as error:
                if file.path in old.opened and file.identity:
                    type_ = old.opened[file.path].database.type
                else:
                    if file.path not in (DEFAULT_FOLDER, self._own):  # these two need not exist
                        state.notices.append(f"{text_of(file.path)} skipped: {reason(error)}")
                    continue
            hint = next((kind for kind in KINDS if kind in type_.lower()), "")
            provider = provider_of(type_, file.path)
            kind_rank = {"country": 2, "": 1}.get(hint, 0)
            provider_rank = 0 if provider.startswith("geo") else 1 if provider == "dbip" else 2
            yield Candidate(file.order, kind_rank, provider_rank, file, hint)

    def _entry(self, file: File, state: _State, old: _State) -> Open | None:
        """Open one file; keep what is open if it is unchanged, or now something unusable."""
        before = old.opened.get(file.path)
        if before and before.identity == file.identity:
            return before
        try:
            database, reader = load(file.path, self._is_own(file.path))
        except BadDatabase as error:
            what = "what was read before stays in use" if before else "skipped"
            state.notices.append(f"{text_of(file.path)} {what}: {error}")
            return before
        return Open(database, reader, file.identity)

    def _is_own(self, path: str) -> bool:
        """Tell whether only we write this file; a link would lead to, or be, somebody else's."""
        try:
            info = os.lstat(path)
            folder = os.path.samefile(os.path.dirname(path) or ".", self._own)
        except OSError:
            return False
        single = stat.S_ISREG(info.st_mode) and info.st_nlink == 1
        return folder and single and info.st_uid == os.geteuid()


def _wanted(state: _State, hint: str) -> bool:
    """Tell whether a file of this kind could still fill a gap."""
    slots = {"asn": [state.networks], "": [state.networks, state.places]}.get(hint, [state.places])
    return any(len(slot) < 2 for slot in slots)


def _take(state: _State, entry: Open) -> None:
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


def _record(state: _State, slot: dict[int, Open], plain: str) -> tuple[Open | None, dict[str, Any], int]:
    """Return who answered, the record ({}: none) and the prefix length of its network."""
    entry = slot.get(6 if ":" in plain else 4)
    if entry is None:
        return None, {}, 0
    try:
        record, length = entry.reader.get_with_prefix_len(plain)
    except DAMAGED as error:
        # What is no address is a ValueError, and no fault of the file's.
        if isinstance(error, (RuntimeError, TypeError, UnicodeDecodeError)):
            notice = f"{text_of(entry.database.path)} is damaged: some addresses get no answer"
            if notice not in state.notices:
                state.notices.append(notice)
        return entry, {}, 0
    return entry, record if isinstance(record, dict) else {}, length


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
            provider = provider_of(peek(file.path), file.path) if not file.trouble else ""
        except (BadDatabase, *DAMAGED):
            continue
        found.append(ATTRIBUTIONS.get(provider, ""))
    return list(dict.fromkeys(line for line in found if line))
