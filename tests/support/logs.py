"""The flow log without a kernel: connections as conntrack prints them, and loop and writer on one clock of the test's."""

from __future__ import annotations

import marshal
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

import flowlog
import past
from addresses import Context, Lookups, Place, Site
from devices import Directory
from flowlog import FlowLog, LogPlan, LogWire, Writer
from flows import FlowTable
from intake import Problem, Status
from parse import split_lines

NOON = 1_795_737_600.0 + 43_200.0  # 2026-11-27 12:00:00 UTC
MIDNIGHT = NOON + 43_200.0
WAN, SERVER, INSIDE = "203.0.113.1", "198.51.100.7", "10.0.0.5"


class Conn(NamedTuple):
    """A connection; of a translated one ``wan`` is what the server sees, ``to`` where a forwarded one goes."""

    src: str = INSIDE
    sport: int = 1000
    dst: str = SERVER
    dport: int = 443
    wan: tuple[str, int] | None = None
    to: tuple[str, int] | None = None
    id: int | None = 1
    protocol: str = "tcp"
    more: str = "mark=0"

    @property
    def tuples(self) -> tuple[str, str]:
        """Both tuples, as conntrack prints them."""
        back, back_port = self.to or (self.dst, self.dport)
        front, front_port = self.wan or (self.src, self.sport)
        there = f"src={self.src} dst={self.dst} sport={self.sport} dport={self.dport}"
        return there, f"src={back} dst={front} sport={back_port} dport={front_port}"

    def line(self, event: str = "", moved: tuple[int, int] | None = None) -> bytes:
        """A line of conntrack about it; ``moved``: bytes there and back, ten to a packet."""
        tag = {"": "", "new": "    [NEW] ", "update": " [UPDATE] ", "destroy": "[DESTROY] "}[event]
        family = "ipv6     10" if ":" in self.src else "ipv4     2"
        number = {"tcp": "6 ", "udp": "17 "}[self.protocol] + ("" if event == "destroy" else "100 ")
        state = "ESTABLISHED " if self.protocol == "tcp" and event != "destroy" else ""
        there, back = self.tuples
        if moved is not None:
            there, back = (
                f"{text} packets={size // 10} bytes={size}" for text, size in zip((there, back), moved, strict=True)
            )
        ident = "" if self.id is None else f" id={self.id}"
        used = "" if event else " use=1"
        return f"{tag}{family} {self.protocol:<8} {number}{state}{there} {back} [ASSURED] {self.more}{used}{ident}".encode()


def nat(host: int = 5, sport: int = 1000, port: int = 40000, id: int | None = 1, **more: Any) -> Conn:
    """A connection of 10.0.0.HOST that the server sees from WAN:PORT."""
    return Conn(f"10.0.0.{host}", sport, wan=(WAN, port), id=id, **more)


def where_of(address: str) -> Place:
    return Place(country="DE", country_name="Germany", asn=64500, org="Example") if address == SERVER else Place()


def new_writer(folder: Path, own: frozenset[str] = frozenset(), nodes: Sequence[str] = ("r7",)) -> Writer:
    contexts = {node: Context(Lookups(where=where_of), Site()) for node in nodes}
    for context in contexts.values():
        context.advance(0.0, own)
    return Writer(str(folder), contexts)


class Wire:
    """What stands in for the process that writes: it keeps what it is fed, up to ``room`` bytes."""

    def __init__(self, *_: object, **__: object) -> None:
        self.data, self.room = b"", 1 << 40
        self.said: list[bytes] = []
        self.status: int | None = None

    def feed(self, data: memoryview) -> int:
        taken = min(len(data), max(0, self.room - len(self.data)))
        self.data += bytes(data[:taken])
        return taken

    def frames(self) -> Iterator[tuple[float, Any]]:
        while len(self.data) >= 4 and len(self.data) >= (end := 4 + int.from_bytes(self.data[:4], "big")):
            frame, self.data = self.data[4:end], self.data[end:]
            yield marshal.loads(frame)

    def fds(self) -> list[int]:
        return []

    def read(self) -> bytes:
        said, self.said = self.said, []
        return b"".join(said)

    def read_errors(self) -> bytes:
        return b""

    def ended(self) -> int | None:
        return self.status

    def problem(self, _status: int) -> Any:
        return Problem("it was killed")

    def feed_soon(self, _until: float) -> bool:
        return len(self.data) < self.room

    def end_feed(self) -> None:
        pass

    def is_over(self) -> bool:
        return True

    def stop(self) -> None:
        pass


class Logged:
    """A table, its log and the writer of it, second by second."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, start: float = NOON) -> None:
        self.folder, self.clock, self.epoch = folder, 1000.0, start - 1000.0
        self.status = Status()
        self.status.facts.update(events=1, acct=1)
        self.wires: list[Wire] = []
        self.names = Directory()
        self.writer: Writer | None = None
        folder.mkdir(mode=0o700, exist_ok=True)
        patch.setattr(flowlog, "Child", self._start)
        patch.setattr(flowlog, "time", SimpleNamespace(**{**vars(time), "monotonic": lambda: self.clock}))
        self.begin()

    def _start(self, *_: object, **__: object) -> Wire:
        self.wires.append(Wire())
        return self.wires[-1]

    def begin(self) -> None:
        """The program starts."""
        plan = LogPlan(str(self.folder))
        wire = LogWire(plan, plan.setup(["r7"], [], Site()))
        self.log = FlowLog(wire, "r7", lambda: self.epoch, self.names)
        self.table = FlowTable(linger=0.0, on_closed=self.log.ended)
        self.writer = None
        self.table.know_own({WAN})
        self.table.watch(self.clock)

    @property
    def now(self) -> float:
        """What the clock on the wall says."""
        return self.clock + self.epoch

    def tell(self, event: str, conn: Conn, moved: tuple[int, int] | None = None) -> None:
        (row,) = split_lines(conn.line(event, moved) + b"\n")[0]
        self.table.event(row, self.clock)

    def list(self, *conns: Conn | tuple[Conn, tuple[int, int]]) -> None:
        """A complete listing of the table."""
        self.table.begin_listing(self.clock)
        for item in conns:
            conn, moved = (item, None) if isinstance(item, Conn) else item
            (row,) = split_lines(conn.line("", moved) + b"\n")[0]
            self.table.listed(row, self.clock)
        self.table.end_listing(True, self.clock)

    def poll(self) -> None:
        self.log.poll(self.table, self.status, self.clock)

    def seconds(self, number: int = 1) -> None:
        """Time passes, and what the loop tells is written."""
        for _ in range(number):
            self.clock += 1.0
            self.poll()
            self.poll()
            self.write()

    def write(self) -> None:
        """The writer takes what was sent, and commits."""
        if not self.wires:
            return
        for now, messages in self.wires[-1].frames():
            if isinstance(messages, dict):
                self.writer = new_writer(self.folder, nodes=messages["nodes"])
                self.writer.begin(now)
                continue
            assert self.writer is not None
            for message in messages:
                self.writer.take(message)
            self.writer.commit(now)

    def kill(self) -> None:
        """All of it is killed: what was not written is lost."""
        if self.writer is not None:
            self.writer.drop_files()

    def close(self) -> None:
        """It ends in good order."""
        self.log.close(self.table, self.clock)
        self.write()
        self.kill()


# --- reading ----------------------------------------------------------------------------------------------------------


def rows(folder: Path, query: str) -> list[dict[str, Any]]:
    """What a query finds in all day files, the oldest first."""
    found = []
    for path in past.day_files(str(folder)).values():
        with closing(sqlite3.connect(path)) as db:
            db.row_factory = sqlite3.Row
            found += [dict(row) for row in db.execute(query)]
    return found


def flow_rows(folder: Path) -> list[dict[str, Any]]:
    return rows(folder, "SELECT * FROM flow_log ORDER BY start")


def gap_rows(folder: Path) -> list[tuple[float, float, str]]:
    return [(row["since"], row["until"], row["reason"]) for row in rows(folder, "SELECT * FROM gap_log ORDER BY since")]


def usage(folder: Path) -> tuple[int, int, int]:
    """Flows, bytes in and bytes out of all hours."""
    found = rows(folder, "SELECT sum(flows) AS f, sum(bytes_in) AS i, sum(bytes_out) AS o FROM usage_log")
    return sum(row["f"] or 0 for row in found), sum(row["i"] or 0 for row in found), sum(row["o"] or 0 for row in found)


def answer(folder: Path, asked: str, at: float, length: float = past.INSTANT) -> past.Answer:
    return past.who(str(folder), past.Question(*past.asked_of(asked), at, length))


def insiders(folder: Path, asked: str, at: float, length: float = past.INSTANT) -> list[str]:
    """Who had that address then: the ends behind NAT, without their ports."""
    return sorted(flow.src for flow in answer(folder, asked, at, length).flows)


def doubts_at(folder: Path, at: float, asked: str = WAN) -> Sequence[str]:
    question = past.Question(*past.asked_of(asked), at, past.INSTANT)
    return past.doubts(question, past.who(str(folder), question).extent)


def quick_folder() -> str | None:
    """Where files cost no disk."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
