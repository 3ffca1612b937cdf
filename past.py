"""The past on disk: a file for each day, with flows, bytes by the hour and gaps; and asking who had an address.

Times are seconds since 1970 (UTC). In a file they are whole milliseconds since the beginning of its day.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import itertools
import math
import os
import pwd
import re
import shlex
import stat
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, NamedTuple

from addresses import NOWHERE, Place
from flows import Counts
from grouping import InAndOut, UsageRow
from intake import Problem
from text import clean, endpoint, size_text, span_text, text_table

if TYPE_CHECKING:
    import sqlite3

# --- files ------------------------------------------------------------------------------------------------------------

LOSING, DEAF, UNCOUNTED = "events were lost", "kernel events are off", "accounting is off: bytes are unknown"
UNHEARD = "events stopped"
NOT_RUNNING = "not running"
CUT_OFF = "the log broke off: flows that were open and younger than two minutes may lack an entry"
DAY_SECONDS = 86_400
HOUR_SECONDS = 3600
LOCK = "lock"  # held by the process that writes; its text is the number of that process
_DAY_FILE = re.compile(r"flows-(\d{4}-\d\d-\d\d)\.db")
LOCK_PATIENCE = 0.2  # seconds until a lock is really held by somebody
LOCKED = 5.0  # seconds that a reader may hold a file; it is tried again after that
NOTHING_TO_READ = "the log has no readable file"
MOST_BYTES = (1 << 63) - 1  # of a sum: SQLite's integers end there
LAYOUT = 3  # PRAGMA user_version: of the tables below

# One flow: 50 to 60 bytes. Ends of the reply are NULL where they mirror the original's, counters where nothing counts,
# ``end_ms`` while the flow is there; ``seen_ms`` is when a flow was seen last whose end nobody told. The hosts of a day
# have numbers: as texts they took 40 bytes a flow more. ``whole``: the flows that were born before then have a row;
# ``seen``: those that are open were all there then.
#
# What moved how much is added up in ``moved``, and for each of the four ways to ask in ``total``. All bytes of a flow
# that was over before it got a row belong to the hour of its end, and its row says them: such rows are added up later,
# many at a time. ``summed`` is the last row that is in the sums, and the view ``unsummed`` adds up those after it, so
# that both together are whole at each moment. ``near`` of a kind says which address is the near end of such a flow (0:
# src, 2: reply_src); it is NULL where the bytes went into the sums when they were counted.
_TABLES = """
CREATE TABLE about (day REAL, began REAL, alive REAL, whole REAL, seen REAL, summed INTEGER);
CREATE TABLE name (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
CREATE TABLE place (id INTEGER PRIMARY KEY, country TEXT, asn INTEGER);
CREATE TABLE host (id INTEGER PRIMARY KEY, address TEXT NOT NULL UNIQUE, place INTEGER);
CREATE TABLE kind (id INTEGER PRIMARY KEY, node INTEGER, reason TEXT, protocol TEXT, state TEXT, nat TEXT,
    start_exact INTEGER, far INTEGER, near INTEGER);
CREATE TABLE flow (id INTEGER PRIMARY KEY, kind INTEGER, start_ms INTEGER, end_ms INTEGER,
    src INTEGER, sport INTEGER, dst INTEGER, dport INTEGER,
    reply_src INTEGER, reply_sport INTEGER, reply_dst INTEGER, reply_dport INTEGER,
    packets_original INTEGER, bytes_original INTEGER, packets_reply INTEGER, bytes_reply INTEGER,
    mark INTEGER, zone INTEGER, near_name INTEGER, seen_ms INTEGER, service INTEGER);
CREATE INDEX flow_early ON flow (start_ms) WHERE start_ms < 0;
CREATE TABLE unfinished (flow INTEGER PRIMARY KEY, key BLOB, kernel_id INTEGER);
CREATE TABLE moved (near INTEGER, hour INTEGER, place INTEGER, service INTEGER, near_name INTEGER, node INTEGER,
    flows INTEGER, bytes_in INTEGER, bytes_out INTEGER,
    PRIMARY KEY (near, hour, place, service, near_name, node)) WITHOUT ROWID;
CREATE TABLE total (sort TEXT, key TEXT, hour INTEGER, flows INTEGER, bytes_in INTEGER, bytes_out INTEGER,
    PRIMARY KEY (sort, key, hour)) WITHOUT ROWID;
CREATE TABLE label (sort TEXT, key TEXT, text TEXT, PRIMARY KEY (sort, key)) WITHOUT ROWID;
CREATE TABLE gap (id INTEGER PRIMARY KEY, node INTEGER, since REAL, until REAL, reason TEXT);
"""

# ``far`` of a kind says which of a flow's addresses is the remote end: src, dst, reply_src or reply_dst.
_FAR = """CASE kind.far WHEN 0 THEN flow.src WHEN 1 THEN flow.dst
    WHEN 2 THEN coalesce(flow.reply_src, flow.dst) WHEN 3 THEN coalesce(flow.reply_dst, flow.src) END"""
FLOW_ROWS = f"""
SELECT node.text AS node, about.day + flow.start_ms / 1000.0 AS start,
    CASE WHEN flow.end_ms IS NULL THEN about.alive ELSE about.day + flow.end_ms / 1000.0 END AS "end",
    kind.reason, kind.protocol, kind.state, src.address AS src, flow.sport, dst.address AS dst, flow.dport,
    coalesce(reply_src.address, dst.address) AS reply_src, coalesce(flow.reply_sport, flow.dport) AS reply_sport,
    coalesce(reply_dst.address, src.address) AS reply_dst, coalesce(flow.reply_dport, flow.sport) AS reply_dport,
    kind.nat, flow.packets_original, flow.bytes_original, flow.packets_reply, flow.bytes_reply,
    coalesce(flow.mark, 0) AS mark, coalesce(flow.zone, 0) AS zone, place.country, place.asn,
    near_name.text AS near_name, kind.start_exact,
    about.day + CASE WHEN flow.end_ms IS NULL THEN max(flow.seen_ms, (about.seen - about.day) * 1000)
        ELSE flow.seen_ms END / 1000.0 AS seen
FROM about, flow JOIN kind ON kind.id = flow.kind JOIN name AS node ON node.id = kind.node
    JOIN host AS src ON src.id = flow.src JOIN host AS dst ON dst.id = flow.dst
    LEFT JOIN host AS reply_src ON reply_src.id = flow.reply_src
    LEFT JOIN host AS reply_dst ON reply_dst.id = flow.reply_dst
    LEFT JOIN name AS near_name ON near_name.id = flow.near_name
    LEFT JOIN host AS far ON far.id = {_FAR} LEFT JOIN place ON place.id = far.place
"""


def _added(column: str) -> str:
    """The sum of a column. SQLite's own raises an error where it is too large: here it is then the largest number."""
    high, low = f"sum({column} >> 32)", f"sum({column} & 4294967295)"
    return f"CASE WHEN {high} + ({low} >> 32) >> 31 THEN {MOST_BYTES} ELSE ({high} << 32) + {low} END"


_MOVED_BY = "near, hour, place, service, near_name, node"
_MOVED_SUMS = f"flows, {_added('bytes_in')} AS bytes_in, {_added('bytes_out')} AS bytes_out"
# The joins are CROSS for their order: only the rows after the last that is in the sums are read.
_VIEWS = f"""
CREATE VIEW flow_log AS {FLOW_ROWS};
CREATE VIEW unsummed AS SELECT {_MOVED_BY}, count(*) AS {_MOVED_SUMS} FROM (
    SELECT CASE kind.near WHEN 0 THEN flow.src ELSE coalesce(flow.reply_src, flow.dst) END AS near, far.place,
        min(flow.end_ms / {HOUR_SECONDS * 1000}, 23) AS hour, flow.service, coalesce(flow.near_name, 0) AS near_name,
        kind.node, CASE kind.near WHEN 0 THEN flow.bytes_reply ELSE flow.bytes_original END AS bytes_in,
        CASE kind.near WHEN 0 THEN flow.bytes_original ELSE flow.bytes_reply END AS bytes_out
    FROM flow CROSS JOIN kind ON kind.id = flow.kind CROSS JOIN host AS far ON far.id = {_FAR}
    WHERE flow.id > (SELECT summed FROM about) AND kind.near IS NOT NULL
) GROUP BY {_MOVED_BY};
CREATE VIEW usage_log AS SELECT node.text AS node, about.day + moved.hour * {HOUR_SECONDS} AS hour,
    near.address AS near, near_name.text AS near_name, place.country, place.asn, service.text AS service,
    moved.flows, moved.bytes_in, moved.bytes_out
FROM about, (SELECT {_MOVED_BY}, sum(flows) AS {_MOVED_SUMS} FROM (SELECT * FROM moved UNION ALL SELECT * FROM unsummed)
        GROUP BY {_MOVED_BY}) AS moved
    JOIN name AS node ON node.id = moved.node JOIN host AS near ON near.id = moved.near
    JOIN place ON place.id = moved.place JOIN name AS service ON service.id = moved.service
    LEFT JOIN name AS near_name ON near_name.id = moved.near_name;
CREATE VIEW gap_log AS SELECT node.text AS node, gap.since, coalesce(gap.until, about.alive) AS until, gap.reason
FROM about, gap JOIN name AS node ON node.id = gap.node;
"""
_SUMS = """DO UPDATE SET flows = flows + excluded.flows,
bytes_in = coalesce(bytes_in + excluded.bytes_in, bytes_in, excluded.bytes_in),
bytes_out = coalesce(bytes_out + excluded.bytes_out, bytes_out, excluded.bytes_out)"""
_PUT_FLOW = f"INSERT OR REPLACE INTO flow VALUES ({', '.join('?' * 20)}, NULL)"
# Flows that are over, by columns. Python's sqlite3 takes 0.5 us for each None of a row, ten times what a number takes
# and five times what nullif() does: what is NULL in some rows is UNKNOWN, or 0; what is NULL in all of them is None.
UNKNOWN = -1
_ENDED = [*["?"] * 7, *["nullif(?, -1)"] * 8, "nullif(?, 0)", "NULL", "nullif(?, 0)", "NULL", "?"]
_END_OPEN = """UPDATE flow SET seen_ms = max(coalesce(seen_ms, :seen), :seen),
end_ms = coalesce(:end, max(coalesce(seen_ms, :seen), :seen)) WHERE end_ms IS NULL"""
# What is to be added to the sums; of this connection alone.
_NEWS = "CREATE TEMP TABLE news AS SELECT * FROM moved WHERE false"
_PUT_NEWS = "INSERT INTO news VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_PUT_UNSUMMED = "INSERT INTO news SELECT * FROM unsummed"
_ALL_SUMMED = "UPDATE about SET summed = max(summed, coalesce((SELECT max(id) FROM flow), 0))"
# In the order of the key: neighbours are in one page, which is then looked for and changed once.
_ADD_MOVED = f"INSERT INTO moved SELECT * FROM news WHERE true ORDER BY {_MOVED_BY} ON CONFLICT ({_MOVED_BY}) {_SUMS}"
_KEYS = {
    "host": "near.address",
    "country": "coalesce(place.country, '')",
    "network": "coalesce(place.asn, '') || ''",
    "service": "service.text",
}
# Each is there. LEFT: SQLite leaves out those that nothing asks for.
_WITH_TEXTS = """AS moved LEFT JOIN host AS near ON near.id = moved.near LEFT JOIN place ON place.id = moved.place
LEFT JOIN name AS service ON service.id = moved.service"""
_ADD_TOTAL = [
    f"INSERT INTO total SELECT '{sort}', {key} AS key, hour, sum(flows), {_added('bytes_in')}, {_added('bytes_out')}"
    f" FROM news {_WITH_TEXTS} WHERE true GROUP BY 2, 3 ON CONFLICT (sort, key, hour) {_SUMS}"
    for sort, key in _KEYS.items()
]
SUM_EVERY = 60.0  # seconds
MOST_UNSUMMED = 100_000  # rows: who asks for usage then waits 0.2 to 0.4 s for them


@functools.lru_cache
def _put_ended(*given: bool) -> str:
    """How to insert such rows; ``given``: for each column, whether it is there."""
    columns = iter(given)
    fields = (field if field == "NULL" or next(columns) else "NULL" for field in _ENDED)
    return f"INSERT INTO flow VALUES (?, {', '.join(fields)})"


def day_of(moment: float) -> int:
    """Days since 1970, UTC."""
    return math.floor(moment / DAY_SECONDS)


def hour_of(ms: int) -> int:
    """The hour of a day to which a time in its file belongs; of one that is rounded up to midnight, the last one."""
    return min(max(0, ms) // (HOUR_SECONDS * 1000), 23)


def day_name(day: int) -> str:
    try:
        return time.strftime("%Y-%m-%d", time.gmtime(day * DAY_SECONDS))
    except (OverflowError, ValueError, OSError):  # a clock that was set to nonsense
        return "1970-01-01"


def day_file(day: int) -> str:
    """The name of a day's file."""
    return f"flows-{day_name(day)}.db"


def day_files(folder: str) -> dict[int, str]:
    """The paths of all day files by their day, the oldest first."""
    found = {}
    for name in os.listdir(folder):
        if (match := _DAY_FILE.fullmatch(name)) is not None:
            with contextlib.suppress(ValueError):
                found[_day_number(match.group(1))] = os.path.join(folder, name)
    return dict(sorted(found.items()))


def _day_number(name: str) -> int:
    import calendar

    return calendar.timegm(time.strptime(name, "%Y-%m-%d")) // DAY_SECONDS


class Covered(NamedTuple):
    """What a day's file covers."""

    began: float
    alive: float


def covered(folder: str, day: int) -> Covered:
    """What the file of a day says that it covers; nothing but the beginning of its day where it does not say."""
    import sqlite3

    path = os.path.join(os.path.abspath(folder), day_file(day))
    try:
        with contextlib.closing(sqlite3.connect(read_only(path), uri=True)) as db:
            began, alive = db.execute("SELECT began, alive FROM about").fetchone()
            return Covered(float(began), float(alive))
    except (sqlite3.Error, TypeError, ValueError):
        return Covered(float(day * DAY_SECONDS), float(day * DAY_SECONDS))


def is_still(path: str, inode: int) -> bool:
    """Is the file that is written still the one that has the name? Raises OSError where nobody can tell."""
    try:
        return os.stat(path).st_ino == inode
    except FileNotFoundError:
        return False


def read_only(path: str) -> str:
    """The address by which sqlite3 opens a file to read it."""
    from urllib.parse import quote

    return f"file:{quote(path)}?mode=ro"


def set_aside(path: str) -> str:
    """Give a damaged file another name, so that nobody reads it and nobody writes over it; returns that name."""
    other = f"{path}.damaged-{time.strftime('%Y%m%d%H%M%S', time.gmtime())}"
    while os.path.exists(other):
        other += "-again"
    for end in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.rename(path + end, other + end)
    return other


# --- one file ---------------------------------------------------------------------------------------------------------

FlowValues = tuple[Any, ...]  # of a row of ``flow``, without its id
Mark = tuple[bytes, int | None]  # the key of a flow that is still there, and the kernel's id
Columns = Sequence[Sequence[int] | None]  # of rows of ``flow``, without ids, zone and seen_ms: see _ENDED
MovedBy = tuple[int, int, int, int, int, int]  # a key of ``moved``: near, hour, place, service, near_name, node
Moved = tuple[int, int | None, int | None]  # flows, bytes in, bytes out; None: nothing counted them


class Unfinished(NamedTuple):
    """A flow that has a row and has not ended. ``id`` is 0 where the row was lost with its file."""

    id: int
    day: int
    kernel_id: int | None
    start: float
    exact: bool
    counts: Counts | None  # as they are in the row


def host_label(address: str, node: str) -> str:
    """What a host's name is kept by: each node has its own 10.0.0.5."""
    return f"{address} {node}"


class DayFile:
    """The database of a day: what is to be written is gathered, and written by ``commit`` in one transaction."""

    def __init__(self, folder: str, day: int, now: float, whole: float | None = None) -> None:
        """``now``, ``whole``: what a new file says it is written from, and whole up to. Raises sqlite3.Error."""
        import sqlite3

        self.day, self.begins = day, day * DAY_SECONDS
        self.path = os.path.join(folder, day_file(day))
        self._db = sqlite3.connect(self.path, isolation_level=None, timeout=LOCKED)
        try:
            self._db.execute("PRAGMA journal_mode = WAL")  # who reads does not hold up who writes
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute("PRAGMA temp_store = MEMORY")  # what is added up needs no room on another disk
            self._begin(now, now if whole is None else whole)
            self._read_numbers()
            self.inode = os.stat(self.path).st_ino
        except BaseException:
            self._db.close()
            raise
        self._flows: dict[int, FlowValues | None] = {}  # to be written, by id; None: to be deleted
        self._ended: list[tuple[int, Columns]] = []  # flows that are over and have no row yet, and how many
        # What rows say that are in the file or in _ended, and not in the sums yet; _knows_rows: what all of them say.
        self._of_rows: dict[MovedBy, list[int]] = {}
        self._uncounted: Counter[MovedBy] = Counter()
        self._knows_rows = not self._unsummed
        self._unfinished: dict[int, Mark | None] = {}
        self._new_names: list[tuple[int, str]] = []
        self._new_places: list[tuple[int, str | None, int | None]] = []
        self._new_hosts: dict[int, tuple[int, str, int]] = {}
        self._new_kinds: list[tuple[Any, ...]] = []
        self._moved: dict[MovedBy, Moved] = {}
        self._new_labels: dict[tuple[str, str], str] = {}
        self._gaps: dict[int, tuple[int, int, float, float | None, str]] = {}
        self._gaps_end = False  # gaps that a run before this one left open end where it was written last
        self._open_end: dict[str, int | None] | None = None  # when the open flows were seen last, and when they ended

    def _begin(self, now: float, whole: float) -> None:
        import sqlite3

        (layout,) = self._db.execute("PRAGMA user_version").fetchone()
        self.fresh = layout == 0
        if self.fresh:
            self._db.executescript(f"BEGIN IMMEDIATE; {_TABLES} {_VIEWS} PRAGMA user_version = {LAYOUT}; COMMIT;")
            self._db.execute("INSERT INTO about VALUES (?, ?, ?, ?, 0, 0)", (self.begins, now, now, whole))
        elif layout != LAYOUT:
            raise sqlite3.DatabaseError(f"its layout is {layout}, and this program writes {LAYOUT}")
        found = self._db.execute("SELECT began, alive, whole, seen FROM about").fetchone()
        self.began, self.alive, self.whole, self.seen = map(float, found)
        self._db.execute(_NEWS)

    def _read_numbers(self) -> None:
        rows = self._db.execute("SELECT id, text FROM name").fetchall()
        self._names: dict[str, int] = {text: number for number, text in rows}
        places = self._db.execute("SELECT country, asn, id FROM place")
        self._places: dict[tuple[str | None, int | None], int] = {(row[0], row[1]): row[2] for row in places}
        hosts = self._db.execute(
            "SELECT address, host.id, country, asn FROM host JOIN place ON place.id = host.place"
        ).fetchall()
        self._hosts: dict[str, tuple[int, Place]] = {
            address: (number, Place(country=country, asn=asn)) for address, number, country, asn in hosts
        }
        self._labels: dict[tuple[str, str], str] = {
            (sort, key): text for sort, key, text in self._db.execute("SELECT sort, key, text FROM label")
        }
        self._kinds: dict[tuple[Any, ...], int] = {row[1:]: row[0] for row in self._db.execute("SELECT * FROM kind")}
        last, summed = self._db.execute("SELECT (SELECT max(id) FROM flow), summed FROM about").fetchone()
        # Rows that are summed may be deleted: no later one gets such a number.
        self._next_flow: int = max(last or 0, summed) + 1
        self._unsummed: int = self._next_flow - 1 - summed  # rows, at most
        self._summed_at = -math.inf
        (last,) = self._db.execute("SELECT max(id) FROM gap").fetchone()
        self._next_gap = (last or 0) + 1

    def earlier(self) -> list[tuple[str, bytes, Unfinished]]:
        """The flows that are unfinished in the file, as it is on disk, each with node and key. Raises sqlite3.Error."""
        rows = self._db.execute(
            "SELECT name.text, flow.id, key, kernel_id, start_ms, start_exact, packets_original, bytes_original,"
            " packets_reply, bytes_reply FROM unfinished JOIN flow ON flow.id = unfinished.flow"
            " JOIN kind ON kind.id = flow.kind JOIN name ON name.id = kind.node"
        )
        return [
            (
                node,
                key,
                Unfinished(
                    *(number, self.day, kernel_id, self.begins + start / 1000, bool(exact)),
                    None if counts[0] is None else Counts(*counts),
                ),
            )
            for node, number, key, kernel_id, start, exact, *counts in rows
        ]

    def begin_at(self, moment: float) -> None:
        """What was there before that is not known."""
        self.began = moment

    def end_gaps(self) -> None:
        """Nobody is left who could end the gaps that are open in the file."""
        self._gaps_end = True

    def end_open(self) -> None:
        """Nobody sees the open flows any more: until they are seen again, they ended when they were seen last.

        That is later where the log was ended in good order: then whoever took their ports is in it, too.
        """
        seen, alive = round((self.seen - self.begins) * 1000), round((self.alive - self.begins) * 1000)
        self._open_end = {"seen": seen, "end": alive if self.whole >= self.alive else None}
        for number, values in self._flows.items():
            if values is not None and values[2] is None:
                self._flows[number] = (*values[:2], max(values[-1] or seen, seen), *values[3:])

    @property
    def certain(self) -> float:
        """Up to when all is in the file, if nobody tells what happened after it was written last."""
        return min(self.whole, self.seen or self.whole)

    @property
    def waiting(self) -> int:
        """Rows that are to be written."""
        return len(self._flows) + self._number_ended() + len(self._moved)

    def _number_ended(self) -> int:
        return sum(number for number, _ in self._ended)

    # --- numbers for texts ---

    def name(self, text: str) -> int:
        if (number := self._names.get(text)) is None:
            number = self._names[text] = len(self._names) + 1
            self._new_names.append((number, text))
        return number

    def host(self, address: str) -> int:
        """The number of an address; its place is kept as it is."""
        if (known := self._hosts.get(address)) is not None:
            return known[0]
        return self._place(address, len(self._hosts) + 1, NOWHERE)

    def place(self, address: str, place: Place) -> int:
        """The number of where an address is; what was known of it before stays where nothing is known now."""
        known = self._hosts.get(address)
        if known is None or (known[1] is not place and known[1] != place and place != NOWHERE):
            self._place(address, known[0] if known else len(self._hosts) + 1, place)
        return self._number_of(self._hosts[address][1])

    def _number_of(self, place: Place) -> int:
        key = place.country, place.asn
        if (number := self._places.get(key)) is None:
            number = self._places[key] = len(self._places) + 1
            self._new_places.append((number, *key))
        return number

    def _place(self, address: str, number: int, place: Place) -> int:
        self._hosts[address] = number, place
        self._new_hosts[number] = number, address, self._number_of(place)
        for sort, key, label in (("country", place.country, place.country_name), ("network", place.asn, place.org)):
            if key is not None and label and self._labels.get((sort, str(key))) != label:
                self._labels[sort, str(key)] = self._new_labels[sort, str(key)] = label
        return number

    def label_host(self, host: str, name: str) -> None:
        """The name by which a host is shown; ``host``: see ``host_label``."""
        if self._labels.get(("host", host)) != name:
            self._labels["host", host] = self._new_labels["host", host] = name

    def kind(self, *values: Any) -> int:
        if (number := self._kinds.get(values)) is None:
            number = self._kinds[values] = len(self._kinds) + 1
            self._new_kinds.append((number, *values))
        return number

    # --- rows ---

    def next_flow(self) -> int:
        self._next_flow += 1
        return self._next_flow - 1

    def put(self, number: int, values: FlowValues, unfinished: Mark | None, is_new: bool) -> None:
        """A flow as it is now; ``unfinished``: where it is still there. ``is_new``: it has no row yet."""
        self._flows[number] = values
        if unfinished is not None or not is_new:
            self._unfinished[number] = unfinished

    def put_ended(
        self, columns: Columns, groups: Sequence[MovedBy], came: Sequence[int] | None, went: Sequence[int] | None
    ) -> None:
        """Flows that are over and have no row yet, and what each moved; it goes into the sums later."""
        self._ended.append((len(groups), columns))
        if came is None or went is None:
            self._uncounted.update(groups)
            return
        if UNKNOWN in came:
            self._uncounted.update(group for group, size in zip(groups, came) if size == UNKNOWN)
        sums = self._of_rows
        for group, there, here in zip(groups, came, went):
            if (its := sums.get(group)) is None:
                if there != UNKNOWN:
                    sums[group] = [1, there, here]
            elif there != UNKNOWN:
                its[0] += 1
                its[1] += there
                its[2] += here

    def drop(self, number: int) -> None:
        self._flows[number] = self._unfinished[number] = None

    def finish(self, number: int) -> None:
        """Its flow will not be seen again."""
        self._unfinished[number] = None

    def add(self, group: MovedBy, moved: Moved) -> None:
        """Add to the sums of an hour."""
        self._moved[group] = _sum(self._moved.get(group), moved)

    def gap(self, node: str, since: float, until: float | None, reason: str, number: int = 0) -> int:
        """Note a gap, or with its ``number`` how it is now; returns the number."""
        if not number:
            number, self._next_gap = self._next_gap, self._next_gap + 1
        self._gaps[number] = number, self.name(node), since, until, reason
        return number

    def commit(self, alive: float | None, whole: float | None = None, seen: float | None = None) -> None:
        """Write all; ``alive``: it is all there was up to that time. Raises sqlite3.Error, and writes nothing then."""
        import sqlite3

        waits = self.waiting or self._gaps or self._unfinished or self._unsummed
        if not (alive or waits or self._open_end is not None):
            return
        db, now, so_far = self._db, alive or self.alive, self.whole if whole is None else whole
        last, ended = self.seen if seen is None else seen, self._number_ended()
        rests = alive is not None and self._unsummed + ended < MOST_UNSUMMED  # else its day is over, or there are many
        sums = not rests or abs(now - self._summed_at) >= SUM_EVERY
        try:
            db.execute("BEGIN IMMEDIATE")
            self._write(db)
            self._sum_up(db, sums)
            if alive:
                db.execute(
                    "UPDATE about SET began = ?, alive = ?, whole = ?, seen = ?", (self.began, now, so_far, last)
                )
            db.execute("COMMIT")
        except sqlite3.Error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        if alive:
            self.alive, self.whole, self.seen = now, so_far, last
        self._next_flow += ended
        self._unsummed += ended
        if sums:
            self._unsummed, self._summed_at, self._knows_rows = 0, now, True
            self._forget_sums()
        self.forget()

    def _write(self, db: sqlite3.Connection) -> None:
        if self._open_end is not None:  # before the rows of flows that were seen again
            db.execute(_END_OPEN, self._open_end)
        if self._gaps_end:
            db.execute("UPDATE gap SET until = (SELECT alive FROM about) WHERE until IS NULL")
        gone = [(number,) for number, values in self._flows.items() if values is None]
        finished = [(number,) for number, what in self._unfinished.items() if what is None]
        flows = [(number, *values) for number, values in self._flows.items() if values is not None]
        db.executemany("INSERT INTO name VALUES (?, ?)", self._new_names)
        db.executemany("INSERT INTO place VALUES (?, ?, ?)", self._new_places)
        db.executemany("INSERT OR REPLACE INTO host VALUES (?, ?, ?)", self._new_hosts.values())
        db.executemany("INSERT INTO kind VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", self._new_kinds)
        db.executemany("DELETE FROM flow WHERE id = ?", gone)
        db.executemany(_PUT_FLOW, flows)
        number = self._next_flow
        for count, columns in self._ended:
            values = [column for column in columns if column is not None]
            text = _put_ended(*(column is not None for column in columns))
            db.executemany(text, zip(range(number, number + count), *values))
            number += count
        db.executemany("DELETE FROM unfinished WHERE flow = ?", finished)
        unfinished = [(number, *what) for number, what in self._unfinished.items() if what is not None]
        db.executemany("INSERT OR REPLACE INTO unfinished VALUES (?, ?, ?)", unfinished)
        labels = [(*key, text) for key, text in self._new_labels.items()]
        db.executemany("INSERT OR REPLACE INTO label VALUES (?, ?, ?)", labels)
        db.executemany("INSERT OR REPLACE INTO gap VALUES (?, ?, ?, ?, ?)", self._gaps.values())

    def _sum_up(self, db: sqlite3.Connection, rows: bool) -> None:
        """Add to the sums what was counted of flows that were there; with ``rows`` also what the new rows say."""
        news: list[tuple[Any, ...]] = [(*by, *moved) for by, moved in self._moved.items()]
        if rows and self._knows_rows:  # a third of what the view takes
            known = self._of_rows.items()
            news += [(*by, flows, min(came, MOST_BYTES), min(went, MOST_BYTES)) for by, (flows, came, went) in known]
            news += [(*by, flows, None, None) for by, flows in self._uncounted.items()]
        elif rows:
            db.execute(_PUT_UNSUMMED)
        db.executemany(_PUT_NEWS, news)
        if rows:
            db.execute(_ALL_SUMMED)
        if rows or news:
            for add in (_ADD_MOVED, *_ADD_TOTAL, "DELETE FROM news"):
                db.execute(add)

    def forget(self) -> None:
        """What was gathered is written, or all of it is given up."""
        self._forget_rows()
        for gathered in (self._new_hosts, self._gaps, self._new_labels):
            gathered.clear()
        for new in (self._new_names, self._new_places, self._new_kinds):
            new.clear()
        self._gaps_end, self._open_end = False, None

    def _forget_rows(self) -> None:
        self._flows.clear()
        self._ended.clear()
        self._unfinished.clear()
        self._moved.clear()

    def _forget_sums(self) -> None:
        self._of_rows.clear()
        self._uncounted.clear()

    def give_up(self) -> int:
        """Forget the flows that could not be written, but no number of a text; returns how many of them had ended."""
        number = sum(values is not None and values[2] is not None for values in self._flows.values())
        number += self._number_ended()
        self._forget_rows()
        self._forget_sums()
        self._knows_rows = not self._unsummed
        return number

    def is_there(self) -> bool:
        return is_still(self.path, self.inode)

    def close(self) -> None:
        import sqlite3

        with contextlib.suppress(sqlite3.Error):  # closing writes what WAL still holds into the file
            self._db.close()


def _sum(one: Moved | None, other: Moved) -> Moved:
    if one is None:
        return other
    return one[0] + other[0], _plus(one[1], other[1]), _plus(one[2], other[2])


def _plus(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else min(one + other, MOST_BYTES)


# OpenWrt's Python comes in pieces.
NO_SQLITE = Problem("there is no flow log: this Python lacks the module sqlite3", "opkg install python3-sqlite3")

# --- what was seen first ----------------------------------------------------------------------------------------------

FIRST_FILE = "first-seen.db"
MOST_FIRST = 500_000  # keys that are kept: all ports of two protocols, all networks, and 300,000 hosts


class FirstSeen:
    """When each host, country, network and service was seen first, for as long as the log is kept and longer."""

    def __init__(self, folder: str) -> None:
        """Raises sqlite3.Error."""
        import sqlite3

        self.path = os.path.join(folder, FIRST_FILE)
        try:
            self._db, keys = self._opened()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:  # damaged: what is seen from now on is new again
            set_aside(self.path)
            self._db, keys = self._opened()
        self._known: set[tuple[str, str]] = set(keys)
        self._inode = os.stat(self.path).st_ino

    def _opened(self) -> tuple[sqlite3.Connection, list[tuple[str, str]]]:
        import sqlite3

        db = sqlite3.connect(self.path, isolation_level=None, timeout=LOCKED)
        try:
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(
                "CREATE TABLE IF NOT EXISTS first_seen"
                " (sort TEXT, key TEXT, at REAL, PRIMARY KEY (sort, key)) WITHOUT ROWID"
            )
            return db, db.execute("SELECT sort, key FROM first_seen").fetchall()
        except BaseException:
            db.close()
            raise

    def is_there(self) -> bool:
        return is_still(self.path, self._inode)

    def learn(self, keys: Iterable[tuple[str, str]], at: float) -> None:
        """These were seen at that time. Raises sqlite3.Error, and nothing is learned then."""
        new = [key for key in keys if key[1] and key not in self._known]
        if not new or len(self._known) > MOST_FIRST:
            return
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany("INSERT OR IGNORE INTO first_seen VALUES (?, ?, ?)", [(*key, at) for key in new])
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._known.update(new)

    def close(self) -> None:
        self._db.close()


def known_before(folder: str, at: float) -> tuple[float | None, list[tuple[str, str]]]:
    """When the first thing was seen (None: nothing was), and the keys that had been seen by ``at``, by their sort."""
    import sqlite3

    path = os.path.join(os.path.abspath(folder), FIRST_FILE)
    try:
        with contextlib.closing(sqlite3.connect(read_only(path), uri=True, timeout=LOCKED)) as db:
            (since,) = db.execute("SELECT min(at) FROM first_seen").fetchone()
            return since, list(db.execute("SELECT sort, key FROM first_seen WHERE at <= ?", (at,)))
    except sqlite3.Error:
        return None, []


# --- the folder -------------------------------------------------------------------------------------------------------


class Refused(Exception):
    """The log can't be written there. ``holder``: the process that writes it already."""

    def __init__(self, what: str, cure: str = "", holder: int = 0) -> None:
        super().__init__(what)
        self.what, self.cure, self.holder = what, cure, holder


def make_folder(folder: str) -> None:
    """Make it where it is missing: for its owner alone, as it says who talks to whom. Raises Refused."""
    shown = clean(folder, 200)
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        found = os.lstat(folder)
    except FileNotFoundError:
        raise Refused(
            f"{shown} can't be made: its parent folder does not exist",
            shlex.join(["mkdir", "-p", os.path.dirname(os.path.abspath(folder))]),
        ) from None
    except OSError as error:
        raise Refused(f"{shown} can't be made: {error.strerror}", _place_of_its_own(folder)) from None
    if stat.S_ISLNK(found.st_mode):
        raise Refused(f"{shown} is a symbolic link, which others could redirect", f"--log {shlex.quote(_real(folder))}")
    if not stat.S_ISDIR(found.st_mode):
        raise Refused(f"{shown} is not a directory", _place_of_its_own(folder))
    if found.st_uid != os.geteuid():
        raise Refused(
            f"{shown} belongs to {_user(found.st_uid)}, and this is {_user(os.geteuid())}", _place_of_its_own(folder)
        )
    if found.st_mode & 0o077:
        raise Refused(
            f"other users can read {shown}, which says who talks to whom", shlex.join(["chmod", "700", folder])
        )


def _place_of_its_own(folder: str) -> str:
    return f"--log {shlex.quote(os.path.abspath(folder).rstrip('/') + '-of-' + _user(os.geteuid()))}"


def _real(folder: str) -> str:
    return clean(os.path.realpath(folder), 200)


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def hold(folder: str) -> int:
    """Be the one that writes there; returns the descriptor of the lock. Raises Refused."""
    path = os.path.join(folder, LOCK)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        cure = f"ls -ld {shlex.quote(folder)}; df -h {shlex.quote(folder)}"
        raise Refused(f"{clean(folder, 200)} can't be written: {error.strerror}", cure) from None
    if not _locked(fd):
        holder = os.read(fd, 32).decode("ascii", "replace").strip()
        os.close(fd)
        number = int(holder) if holder.isdigit() else 0
        by = f"process {number}" if number else "another process"
        raise Refused(
            f"{by} is already writing {clean(folder, 200)}", f"ps -fp {number}" if number else "", number or 1
        ) from None
    with contextlib.suppress(OSError):  # a full disk: the lock holds without its text, and there may be room soon
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
    return fd


def _locked(fd: int) -> bool:
    """Take the lock. Whoever asks the log looks at the lock for a moment: that is no writer."""
    until = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() >= until:
                return False
            time.sleep(0.02)
        else:
            return True


def still_holds(folder: str, lock: int) -> bool:
    """Is the lock still the file that has the name, so that nobody else can hold another one?"""
    try:
        return os.path.samestat(os.fstat(lock), os.lstat(os.path.join(folder, LOCK)))
    except OSError:
        return False


def sizes(folder: str) -> dict[str, int]:
    """Bytes of each day, by its file's name; with what belongs to it."""
    found: dict[str, int] = {}
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if match := _DAY_FILE.match(entry.name):
                with contextlib.suppress(OSError):
                    size = entry.stat(follow_symlinks=False).st_size
                    found[match.group()] = found.get(match.group(), 0) + size
    return dict(sorted(found.items()))


def prune(folder: str, keep: float, size: int, now: float) -> int:
    """Delete days that are too old, then the oldest while all are too large; returns the bytes that are left.

    Today's file is never deleted.
    """
    found, today = sizes(folder), day_file(day_of(now))
    for name in list(found):
        ends = (_day_number(name[6:16]) + 1) * DAY_SECONDS
        if name != today and (ends < now - keep * DAY_SECONDS or sum(found.values()) > size):
            _remove_day(folder, name)
            del found[name]
    return sum(found.values())


def _remove_day(folder: str, name: str) -> None:
    for entry in os.listdir(folder):
        if entry.startswith(name):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, entry))


# --- reading a file ---------------------------------------------------------------------------------------------------


class Unreadable(Exception):
    """A file of the log can't be read."""


@contextlib.contextmanager
def _opened(path: str) -> Iterator[sqlite3.Connection]:
    """A day file to read from, as it is now. Raises Unreadable, also for what goes wrong while it is read."""
    import sqlite3

    name = clean(os.path.basename(path))
    try:
        with contextlib.closing(_connected(path)) as db:
            db.execute("BEGIN")  # rows may go into the sums while they are read
            if db.execute("PRAGMA user_version").fetchone() != (LAYOUT,):
                raise Unreadable(f"{name} was written by another version of this program")
            yield db
    except sqlite3.Error as error:
        raise Unreadable(f"{name} can't be read: {clean(str(error), 80)}") from None


def _connected(path: str) -> sqlite3.Connection:
    """Where the folder can't be written to, sqlite can't share the file with who writes it: then nobody does."""
    import sqlite3

    db = sqlite3.connect(read_only(os.path.abspath(path)), uri=True, timeout=5.0)
    try:
        db.execute("SELECT * FROM about").fetchone()
    except sqlite3.Error as error:
        db.close()
        mine = os.access(os.path.dirname(os.path.abspath(path)), os.W_OK)
        if mine or not isinstance(error, sqlite3.OperationalError):
            raise
        db = sqlite3.connect(read_only(os.path.abspath(path)) + "&immutable=1", uri=True)
    return db


class LoggedGap(NamedTuple):
    """A time for which the log may lack flows of a node, or their bytes."""

    node: str
    since: float
    until: float
    reason: str


@dataclass
class Extent:
    """What the log covers, as far as its files can be read."""

    since: float | None = None
    alive: float | None = None  # it was written last then
    whole: float = math.inf  # what was born later and is still open may lack a row
    writer: bool = False  # a process writes it now
    gaps: list[LoggedGap] = field(default_factory=list)
    nodes: set[str] = field(default_factory=set)  # that it is about
    unreadable: dict[int, str] = field(default_factory=dict)  # by day, why

    def read(self, db: sqlite3.Connection, counts: bool = True) -> None:
        """Take in what a file covers. A wrong clock may have begun one for a day to come: that one does not count."""
        began, alive, whole = db.execute("SELECT began, alive, whole FROM about").fetchone()
        self.since = began if self.since is None else min(began, self.since)
        if counts and (self.alive is None or alive > self.alive):
            self.alive, self.whole = alive, whole
        gaps = db.execute("SELECT node, since, until, reason FROM gap_log ORDER BY since")
        self.gaps += [LoggedGap(*row) for row in gaps]
        self.nodes |= _nodes_in(db)

    def gaps_in(self, question: Question) -> list[LoggedGap]:
        """The gaps that reach into the time that is asked for."""
        ends = question.begins + question.length
        return [gap for gap in self.gaps if gap.since < ends and gap.until >= question.begins]


def _nodes_in(db: sqlite3.Connection) -> set[str]:
    """The nodes that a file is about."""
    rows = db.execute("SELECT text FROM name WHERE id IN (SELECT node FROM kind UNION SELECT node FROM gap)")
    return {text for (text,) in rows}


def _has_several(folder: str) -> bool:
    """Is the log of several nodes? Raises OSError."""
    return len(_read_each(folder, lambda _day, db, extent: extent.nodes.update(_nodes_in(db))).nodes) > 1


def _read_each(
    folder: str,
    take: Callable[[int, sqlite3.Connection, Extent], None],
    newest_first: bool = False,
) -> Extent:
    """Have ``take`` read each day's file; a file that can't be read is named in the extent. Raises OSError."""
    extent, files = Extent(writer=_is_written(folder)), list(day_files(folder).items())
    for day, path in reversed(files) if newest_first else files:
        try:
            with _opened(path) as db:
                take(day, db, extent)
        except Unreadable as why:
            extent.unreadable[day] = str(why)
    return extent


def _is_written(folder: str) -> bool:
    """Does a process write the log now?"""
    try:
        fd = os.open(os.path.join(folder, LOCK), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


# --- questions --------------------------------------------------------------------------------------------------------

_ASKED = re.compile(r"(?:\[([^\]]+)\](?::(\d{1,5}))?|([0-9.]+)(?::(\d{1,5}))?|([0-9A-Fa-f:.]+))(?:/([a-z0-9-]+))?")
_CLOCK_ONLY = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d))?")
_WITH_DATE = re.compile(r"\d{4}-\d\d-\d\d[T_ ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:?\d\d)?", re.I)
INSTANT = 0.001  # seconds: of a time with fractions


def asked_of(text: str) -> tuple[str, int | None, str | None]:
    """Address, port and protocol of ADDR, ADDR:PORT, [ADDR]:PORT, with /tcp or the like behind. Raises ValueError."""
    match = _ASKED.fullmatch(text.strip())
    try:
        if match is None:
            raise ValueError
        bracketed, port, plain, other, bare, protocol = match.groups()
        address = str(ip_address(bracketed or plain or bare))
        number = port or other
        if number is not None and int(number) > 65_535:
            raise ValueError
    except ValueError:
        raise ValueError(
            f"'{text}' is not an address: 203.0.113.1, 203.0.113.1:38768/tcp or [2001:db8::1]:443"
        ) from None
    return address, None if number is None else int(number), protocol


def time_of(text: str, now: float) -> tuple[float, float]:
    """When a time begins that somebody typed, and how long it is: a minute, a second, an instant. Raises ValueError.

    Local time, where it names no zone. A time of day is today's; yesterday's where today's is still to come.
    """
    text = text.strip()
    refusal = f"'{text}' is not a time: 2026-11-24T14:02:30, with or without +01:00, or 14:02 of today"
    try:
        if (match := _CLOCK_ONLY.fullmatch(text)) is not None:
            hour, minute, second = (int(group or 0) for group in match.groups())
            day = datetime.fromtimestamp(now).replace(hour=hour, minute=minute, second=second, microsecond=0)
            begins = day.timestamp()
            return (begins if begins <= now else (day - timedelta(days=1)).timestamp()), 1.0 if match[3] else 60.0
        if (match := _WITH_DATE.fullmatch(text)) is None:
            raise ValueError
        seconds, fraction, zone = match.groups()
        bare = text[: len(text) - len(zone or "")]
        written = {"": "", "z": "+00:00"}.get((zone or "").lower(), zone or "")
        if written and ":" not in written:
            written = f"{written[:3]}:{written[3:]}"
        if fraction:
            bare = bare[: -len(fraction)] + fraction.ljust(7, "0")
        found = datetime.fromisoformat(bare.replace("_", "T").replace("t", "T") + written).timestamp()
    except (ValueError, OverflowError, OSError):
        raise ValueError(refusal) from None
    return found, INSTANT if fraction else 1.0 if seconds else 60.0


# --- who had it? ------------------------------------------------------------------------------------------------------


class Question(NamedTuple):
    """Who had an address (and port) at a time?"""

    address: str
    port: int | None
    protocol: str | None
    begins: float  # seconds since 1970
    length: float  # seconds: of a second, or of a minute, that was named


class LoggedFlow(NamedTuple):
    """A row of ``flow_log``. ``seen``: where no DESTROY told of its end, it had been seen then for the last time."""

    node: str
    start: float
    end: float
    reason: str
    protocol: str
    state: str | None
    src: str
    sport: int | None
    dst: str
    dport: int | None
    reply_src: str
    reply_sport: int | None
    reply_dst: str
    reply_dport: int | None
    nat: str | None
    packets_original: int | None
    bytes_original: int | None
    packets_reply: int | None
    bytes_reply: int | None
    mark: int
    zone: int
    country: str | None
    asn: int | None
    near_name: str | None
    start_exact: int
    seen: float | None

    @property
    def size(self) -> int | None:
        if self.bytes_original is None or self.bytes_reply is None:
            return None
        return self.bytes_original + self.bytes_reply


LOG_COLUMNS = LoggedFlow._fields
_SIDES = (
    ("flow.src", "flow.sport"),
    ("flow.dst", "flow.dport"),
    ("coalesce(flow.reply_src, flow.dst)", "coalesce(flow.reply_sport, flow.dport)"),
    ("coalesce(flow.reply_dst, flow.src)", "coalesce(flow.reply_dport, flow.sport)"),
)


@dataclass
class Answer:
    """The flows that a question is about, and what the log covers."""

    flows: list[LoggedFlow]
    extent: Extent


def who(folder: str, question: Question) -> Answer:
    """Every flow that had the address at that time on any side of a translation. Raises OSError without a folder."""
    flows: list[LoggedFlow] = []
    last, today = day_of(question.begins + question.length - INSTANT / 2), day_of(time.time())

    def take(day: int, db: sqlite3.Connection, extent: Extent) -> None:
        extent.read(db, day <= max(today, last))
        # A flow is in the file of the day of its end. Those that begin on one day and end on another are few, and an
        # index has them.
        if day >= day_of(question.begins):
            flows.extend(_flows_of(db, question, day, day > last))

    extent = _read_each(folder, take)
    flows = _without_gone(folder, flows, question, extent)
    return Answer(sorted(flows, key=lambda flow: (flow.start, flow.end)), extent)


def _without_gone(folder: str, flows: list[LoggedFlow], question: Question, extent: Extent) -> list[LoggedFlow]:
    """The flows but those that had ended by then, though nobody told so at once: another one had its addresses.

    Where the log may lack that other one, a flow that is over counts for as long as it was seen.
    """
    at = question.begins
    unsure = [flow.seen for flow in flows if flow.seen is not None and flow.seen < at]
    if not unsure:
        return flows
    later = _successors(folder, min(unsure), at)
    flows = [flow for flow in flows if flow.seen is None or later.get(_reply_of(flow), 0.0) <= flow.seen]
    if not doubts(question, extent):
        return flows
    return [
        flow
        for flow in flows
        if flow.seen is None or flow.seen >= at or (flow.reason == "open" and flow.end >= (extent.alive or 0.0))
    ]


def _reply_of(flow: LoggedFlow) -> tuple[object, ...]:
    """What two flows never have in common at the same time."""
    reply = flow.reply_src, flow.reply_sport, flow.reply_dst, flow.reply_dport
    return (flow.node, flow.protocol, flow.zone, *reply)


def _successors(folder: str, since: float, until: float) -> dict[tuple[object, ...], float]:
    """When flows with this reply began, in that time. Whoever had it before them had ended, whoever saw that or not."""
    found: dict[tuple[object, ...], float] = {}
    for number, path in day_files(folder).items():
        if number >= day_of(since):
            with contextlib.suppress(Unreadable), _opened(path) as db:
                begins = number * DAY_SECONDS
                limits = ((since - begins) * 1000, (until - begins) * 1000)
                early = " AND flow.start_ms < 0" if number > day_of(until) else ""  # an index has those
                rows = db.execute(f"{FLOW_ROWS} WHERE flow.start_ms > ? AND flow.start_ms <= ?{early}", limits)
                for flow in itertools.starmap(LoggedFlow, rows):
                    found[_reply_of(flow)] = max(flow.start, found.get(_reply_of(flow), 0.0))
    return found


def _flows_of(db: sqlite3.Connection, question: Question, day: int, later: bool) -> list[LoggedFlow]:
    host = db.execute("SELECT id FROM host WHERE address = ?", (question.address,)).fetchone()
    if host is None:
        return []
    begins = (question.begins - day * DAY_SECONDS) * 1000
    with_port = "({} = :host AND {} = :port)" if question.port is not None else "{} = :host"
    sides = [with_port.format(*side) for side in _SIDES]
    where = [
        *(["flow.start_ms < 0"] if later else []),
        "flow.start_ms < :until",
        "(flow.end_ms >= :since OR (flow.end_ms IS NULL AND about.alive >= :moment))",
        f"({' OR '.join(sides)})",
        *(["kind.protocol = :protocol"] if question.protocol else []),
    ]
    values = {
        "host": host[0],
        "port": question.port,
        "protocol": question.protocol,
        "since": begins,
        "until": begins + question.length * 1000,
        "moment": question.begins,
    }
    return [LoggedFlow(*row) for row in db.execute(f"{FLOW_ROWS} WHERE {' AND '.join(where)}", values)]


MOST_FOUND = 1000  # flows that a question without an address or a time gets, the newest


class Search(NamedTuple):
    """What the NAT view asks: who was shown as an address, who was there at a time, or both; the newest first."""

    address: str | None
    port: int | None
    begins: float | None
    length: float = 0.0


def search(folder: str, asked: Search) -> Answer:
    """The translated flows that fit, MOST_FOUND at most. Raises OSError without a folder."""
    flows: list[LoggedFlow] = []

    def take(day: int, db: sqlite3.Connection, extent: Extent) -> None:
        extent.read(db)
        if (asked.begins is None or day >= day_of(asked.begins)) and len(flows) < MOST_FOUND:
            flows.extend(_found_in(db, asked, day))

    extent = _read_each(folder, take, newest_first=True)
    return Answer(sorted(flows, key=lambda flow: flow.end, reverse=True)[:MOST_FOUND], extent)


def _found_in(db: sqlite3.Connection, asked: Search, day: int) -> list[LoggedFlow]:
    where, values = ["kind.nat IS NOT NULL"], dict[str, object]()
    if asked.begins is not None:
        begins = (asked.begins - day * DAY_SECONDS) * 1000
        where += ["flow.start_ms < :until", "(flow.end_ms >= :since OR flow.end_ms IS NULL)"]
        values |= {"since": begins, "until": begins + asked.length * 1000}
    if asked.address is not None:
        host = db.execute("SELECT id FROM host WHERE address = ?", (asked.address,)).fetchone()
        if host is None:
            return []
        port = "({} = :host AND {} = :port)" if asked.port is not None else "{} = :host"
        where.append(f"({port.format(*_SIDES[1])} OR {port.format(*_SIDES[3])})")
        values |= {"host": host[0], "port": asked.port}
    text = f"{FLOW_ROWS} WHERE {' AND '.join(where)} ORDER BY flow.id DESC LIMIT {MOST_FOUND}"
    return [LoggedFlow(*row) for row in db.execute(text, values)]


def extent_text(extent: Extent) -> str:
    """How far back the log goes, and how many gaps it has."""
    if extent.since is None:
        return "; ".join(extent.unreadable.values()) or NOTHING_TO_READ
    gaps = sum(gap.reason != UNCOUNTED for gap in extent.gaps)
    words = "" if not gaps else ", a gap" if gaps == 1 else f", {gaps} gaps"
    return f"log since {time.strftime('%Y-%m-%d %H:%M', time.localtime(extent.since))}{words}"


# --- is that all? -----------------------------------------------------------------------------------------------------

YOUNG = 60.0  # seconds: a flow that is there for longer has a row before its end


def doubts(question: Question, extent: Extent) -> list[str]:
    """Why the answer may lack flows, a sentence each; none where the log is whole for that time."""
    begins, ends = question.begins, question.begins + question.length
    if extent.since is None or extent.alive is None:
        return [*extent.unreadable.values(), NOTHING_TO_READ]
    out = [text for day, text in extent.unreadable.items() if day >= day_of(begins)]
    if begins < extent.since:
        out.append(f"the log begins later, on {local_moment(extent.since)}")
    if begins > extent.alive:
        running = "" if extent.writer else ", and nothing writes to it now"
        out.append(f"the log was last written on {local_moment(extent.alive)}{running}")
    elif ends > extent.whole:
        out.append("flows that were new when the log was last written have no entry yet")
    for gap in extent.gaps_in(question):
        if gap.reason != UNCOUNTED:
            whose = f"{clean(gap.node)}: " if len(extent.nodes) > 1 else ""
            out.append(f"from {local_moment(gap.since)} to {local_moment(gap.until)}: {whose}{gap.reason}")
    return out


def completeness(question: Question, extent: Extent) -> str:
    """The sentence on whether that is all."""
    why = doubts(question, extent)
    if why:
        return f"The log is not complete for that moment: {'; '.join(why)}."
    return (
        f"The log is complete for that moment: it begins at {local_moment(extent.since or 0.0)}, and has no gap then."
    )


def local_moment(at: float) -> str:
    """A local time with its zone."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(at))
    except (OverflowError, ValueError, OSError):
        return f"{at:.0f}"


# --- as text, JSON, CSV -----------------------------------------------------------------------------------------------


def _short(at: float, begins: float) -> str:
    """A time of day; with its date where that is another one than the question's."""
    here, there = time.localtime(at), time.localtime(begins)
    return time.strftime("%H:%M:%S" if here[:3] == there[:3] else "%Y-%m-%d %H:%M:%S", here)


def inside_of(flow: LoggedFlow) -> tuple[str, str, str]:
    """The end that NAT hides, what it shows in its place, and the other side."""
    snat = (flow.reply_dst, flow.reply_dport) != (flow.src, flow.sport)
    dnat = (flow.reply_src, flow.reply_sport) != (flow.dst, flow.dport)
    if dnat and not snat:
        return (
            endpoint(flow.reply_src, flow.reply_sport),
            endpoint(flow.dst, flow.dport),
            endpoint(flow.src, flow.sport),
        )
    shown = endpoint(flow.reply_dst, flow.reply_dport) if snat else ""
    return endpoint(flow.src, flow.sport), shown, endpoint(flow.reply_src, flow.reply_sport)


_TITLES = ("NODE", "LOCAL", "NAME", "TRANSLATED", "REMOTE", "PROTO", "START", "END", "BYTES", "CC", "ASN", "KNOWN BY")
_RIGHT = _TITLES.index("BYTES")
_KNOWN_BY = {"destroy": "the kernel", "swept": "a listing", "open": "still open"}


def answer_text(question: Question, answer: Answer) -> str:
    """A table for people, of several nodes with theirs, and the sentence."""
    lines, first = [], int(len(answer.extent.nodes) < 2)
    for flow in answer.flows:
        inside, shown, remote = inside_of(flow)
        open_now = flow.reason == "open"
        lines.append(
            [
                *(clean(flow.node), inside, clean(flow.near_name or ""), shown or "-", remote, flow.protocol),
                ("" if flow.start_exact else "<") + _short(flow.start, question.begins),
                ">" * open_now + _short(flow.end, question.begins),
                *(size_text(flow.size), flow.country or "-", f"AS{flow.asn}" if flow.asn else "-"),
                _KNOWN_BY.get(flow.reason, flow.reason),
            ]
        )
    asked = endpoint(question.address, question.port)
    head = f"{asked} at {local_moment(question.begins)}: "
    number = len(lines)
    head += "no flow had it\n" if not number else f"{number} flow{'s' * (number > 1)}\n"
    rows = [line[first:] for line in lines]
    table = text_table(list(_TITLES[first:]), rows, lambda i: i + first == _RIGHT) if lines else ""
    return f"{head}{table}{completeness(question, answer.extent)}\n"


def answer_items(question: Question, answer: Answer) -> Iterator[dict[str, object]]:
    """An object for each flow, with the columns of ``flow_log``; then one that says whether that is all."""
    for flow in answer.flows:
        yield {name: value for name, value in flow._asdict().items() if value is not None}
    extent = answer.extent
    gaps = [gap._asdict() for gap in extent.gaps_in(question)]
    last = {
        "complete": not doubts(question, extent),
        "since": extent.since,
        "until": extent.alive,
        "gaps": gaps,
        "text": completeness(question, extent),
    }
    yield {name: value for name, value in last.items() if value is not None}


def answer_rows(answer: Answer) -> Iterator[Sequence[object]]:
    """The columns of ``flow_log``, then a row for each flow."""
    yield LOG_COLUMNS
    for flow in answer.flows:
        yield ["" if value is None else value for value in flow]


# --- who moved how much? ----------------------------------------------------------------------------------------------

WEEK, MONTH = 7, 30  # days before today
MOST_HOURS = 72  # a bar for each hour of so many; of more a bar for each day


class Usage(NamedTuple):
    """Who moved how much: a row for each, the sum of all, and what the log does not know of that time."""

    rows: list[UsageRow]
    total: UsageRow
    since: float
    per_day: bool  # a bar is a day; else an hour
    remarks: list[str]


_Place = tuple[tuple[int, ...], int]  # columns (span, today, week, month), and the bar; -1: none


class _Windows(NamedTuple):
    """When the times begin for which there are columns: the chosen span, today, and the days before today."""

    since: float
    today: float
    week: float
    month: float
    slots: list[float]  # where each bar begins

    @property
    def first(self) -> float:
        return min(self.since, self.month)

    def of(self, at: float) -> _Place:
        """What an hour that begins then belongs to."""
        wanted = at >= self.since, at >= self.today, self.week <= at < self.today, self.month <= at < self.today
        slot = bisect_right(self.slots, at) - 1 if wanted[0] else -1
        return tuple(number for number, inside in enumerate(wanted) if inside), slot

    def parts(self, begins: float) -> list[tuple[int, _Place]]:
        """The hours of a UTC day, those together that belong to the same: the first of each, and what that is.

        A day has one part in most time zones' months; SQLite adds its 7,200 rows of 300 hosts up in 3 ms.
        """
        parts: list[tuple[int, _Place]] = []
        for hour in range(24):
            place = self.of(begins + hour * HOUR_SECONDS)
            if not parts or parts[-1][1] != place:
                parts.append((hour, place))
        return parts


class _Sums:
    """What one key moved, while it is added up; None where nothing counted it."""

    def __init__(self, slots: int) -> None:
        self.flows = 0
        self.sums: list[InAndOut] = [(None, None)] * 4  # span, today, week, month
        self.slots: list[int | None] = [None] * slots

    def add(self, place: _Place, moved: Moved) -> None:
        flows, came, went = moved
        for number in place[0]:
            before = self.sums[number]
            self.sums[number] = _plus(before[0], came), _plus(before[1], went)
        if place[1] >= 0:
            self.flows += flows
            self.slots[place[1]] = _plus(self.slots[place[1]], _plus(came, went))

    def row(self, key: str, label: str, node: str = "") -> UsageRow:
        span, today, week, month = self.sums
        return UsageRow(key, label, self.flows, span, today, week, month, tuple(self.slots), node)


def usage(folder: str, sort: str, since: float, now: float, near: str = "") -> Usage:
    """What each host, country, network or service moved since then; ``near``: of the flows of that host only.

    A host of several nodes has a row for each. An hour belongs to the times in which it begins. Raises OSError without
    a folder.
    """
    windows, per_day = _windows(since, now), _is_per_day(since, now)
    by_node = sort == "host" and _has_several(folder)
    sums: dict[tuple[str, str], _Sums] = {}
    labels: dict[str, str] = {}
    whole = _Sums(len(windows.slots))

    def take(day: int, db: sqlite3.Connection, extent: Extent) -> None:
        extent.read(db)
        begins = float(day * DAY_SECONDS)
        if begins + DAY_SECONDS <= windows.first:
            return
        parts = windows.parts(begins)
        for *key, part, flows, came, went in _moved_in(db, sort, near, [hour for hour, _ in parts[1:]], by_node):
            if (of_key := sums.get((key[0], key[1]))) is None:
                of_key = sums[key[0], key[1]] = _Sums(len(windows.slots))
            for some in (of_key, whole):
                some.add(parts[part][1], (flows, came, went))
        for key, label in db.execute("SELECT key, text FROM label WHERE sort = ?", (sort,)):
            labels[key] = labels[key.partition(" ")[0] if sort == "host" and not by_node else key] = label

    extent = _read_each(folder, take)
    names = ((of_key, key, node, host_label(key, node) if by_node else key) for (key, node), of_key in sums.items())
    rows = [of_key.row(key, labels.get(name, ""), node) for of_key, key, node, name in names]
    return Usage(rows, whole.row("all", "all"), windows.since, per_day, _remarks(extent, windows.since, now))


def _is_per_day(since: float, now: float) -> bool:
    return now - since > MOST_HOURS * HOUR_SECONDS


def _windows(since: float, now: float) -> _Windows:
    midnight = datetime.fromtimestamp(now).replace(hour=0, minute=0, second=0, microsecond=0)
    week, month = ((midnight - timedelta(days=days)).timestamp() for days in (WEEK, MONTH))
    since = math.floor(since / HOUR_SECONDS) * float(HOUR_SECONDS)
    if not _is_per_day(since, now):
        slots = [since + hour * HOUR_SECONDS for hour in range(int((now - since) // HOUR_SECONDS) + 1)]
        return _Windows(since, midnight.timestamp(), week, month, slots)
    day, slots = datetime.fromtimestamp(since).replace(hour=0, minute=0, second=0, microsecond=0), []
    while day <= midnight:
        slots.append(day.timestamp())
        day += timedelta(days=1)
    return _Windows(since, midnight.timestamp(), week, month, slots)


_NO_NODE = "''"


def _moved_in(
    db: sqlite3.Connection, sort: str, near: str, begins: Sequence[int], by_node: bool
) -> Iterator[tuple[str, str, int, int, int | None, int | None]]:
    """Key, node, part of the day, flows, bytes in and out; ``begins``: the first hours of all parts but the first.

    A key may come twice: as it is in the sums, and of what is not in them yet.
    """
    cases = "".join(f" WHEN hour < {hour} THEN {part}" for part, hour in enumerate(begins))
    part = f"CASE{cases} ELSE {len(begins)} END" if begins else "0"
    sums = f"{part}, sum(flows), {_added('bytes_in')}, {_added('bytes_out')}"
    of_one = "WHERE moved.near = (SELECT id FROM host WHERE address = :near)" if near else ""
    tables = ["moved"] if near or by_node else []  # else what is added up already
    if db.execute("SELECT EXISTS (SELECT 1 FROM about, flow WHERE flow.id > about.summed)").fetchone() == (1,):
        tables.append("unsummed")
    keys = f"{_KEYS[sort]}, {'(SELECT text FROM name WHERE id = moved.node)' if by_node else _NO_NODE}"
    texts = [f"SELECT {keys}, {sums} FROM {table} {_WITH_TEXTS} {of_one} GROUP BY 1, 2, 3" for table in tables]
    if not (near or by_node):
        texts.append(f"SELECT key, {_NO_NODE}, {sums} FROM total WHERE sort = :sort GROUP BY 1, 2, 3")
    return itertools.chain.from_iterable(db.execute(text, {"near": near, "sort": sort}) for text in texts)


def _remarks(extent: Extent, since: float, now: float) -> list[str]:
    """What the log does not know of the time since then, a sentence each."""
    out = list(extent.unreadable.values())
    if extent.since is None or extent.alive is None:
        return [*out, NOTHING_TO_READ]
    if extent.since > since + HOUR_SECONDS:
        out.append(f"the log begins later, on {local_moment(extent.since)}")
    gaps = [gap for gap in extent.gaps if gap.until > since]
    if gaps:
        seconds = sum(min(gap.until, now) - max(gap.since, since) for gap in gaps)
        reasons = ", ".join(dict.fromkeys(gap.reason for gap in gaps))
        number = "a gap" if len(gaps) == 1 else f"{len(gaps)} gaps"
        out.append(f"{number} of {span_text(max(0.0, seconds))} in all: {reasons}")
    if not extent.writer:
        out.append(f"nothing writes to it now; it was last written on {local_moment(extent.alive)}")
    return out


def since_of(text: str, now: float) -> float:
    """When a span begins that somebody typed: 7d, 12h, or a time. Raises ValueError."""
    match = re.fullmatch(r"(\d{1,6})([hdw])", text.strip().lower())
    if match is None:
        try:
            return time_of(text, now)[0]
        except ValueError:
            raise ValueError(f"'{text}' is not a span: 12h, 7d, 30d, or a time like 2026-11-24T14:02") from None
    return now - int(match.group(1)) * {"h": HOUR_SECONDS, "d": DAY_SECONDS, "w": 7 * DAY_SECONDS}[match.group(2)]


def near_of(expression: str) -> str:
    """The host that a filter of usage names, near:10.0.0.5; "" where there is no filter. Raises ValueError."""
    match = re.fullmatch(r"near:\[?([0-9A-Fa-f:.]+)\]?", expression.strip())
    if not expression.strip():
        return ""
    try:
        if match is None:
            raise ValueError
        return str(ip_address(match.group(1)))
    except ValueError:
        raise ValueError(f"'{expression}': usage can only be filtered by one host, for example near:10.0.0.5") from None
