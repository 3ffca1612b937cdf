"""What the oracle tries out: the table behind the screen, and the program's JSON stream with a reader behind it.

Both have one face: ``turn`` goes once round the loop, ``pid`` is whose children the conntrack processes are.
"""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import source
from addresses import Context
from export import json_object
from flows import FlowTable
from intake import Intake, Item, ListingBegan, ListingEnded, Lost, Trouble
from support.kernel import JsonFlow, comparable, conntrack_children, process_state, stop_process
from support.terminal import ROOT

PROGRAM = [sys.executable, str(ROOT / "conntrack_monitor.py")]
INTERVAL = 0.25
# The waits before a dead child is started again, a tenth of the real ones: a run is to take seconds.
QUICK_BACKOFF = tuple(seconds / 10 for seconds in source.BACKOFF)
RECOUNTED = 2_000  # flows that can be counted anew in each turn; larger tables at each listing


class Wrong(AssertionError):
    """The program did not say what the kernel has."""


class Subject:
    """What both have in common; ``reports`` counts what was said to be wrong: events, listing, lost."""

    pid: int

    def __init__(self) -> None:
        self.reports: Counter[str] = Counter()
        self.not_mine: set[int] = set()  # conntrack processes of the oracle's own

    def turn(self, timeout: float) -> None:
        """Wait for at most ``timeout`` seconds, take in what there is; Wrong where a promise is broken."""
        raise NotImplementedError

    def idle(self) -> bool:
        """Is there nothing to read?"""
        raise NotImplementedError

    def picture(self) -> list[JsonFlow]:
        """The table as far as the subject has it, as :func:`support.kernel.comparable` makes it."""
        raise NotImplementedError

    def list_now(self) -> None:
        """Ask for a listing where one can."""

    def mark(self) -> float:
        """A point in the order of listings, for ``listed_since``."""
        raise NotImplementedError

    def listed_since(self, mark: float) -> bool:
        """Has a complete listing that began after the mark been taken in?"""
        raise NotImplementedError

    def troubles(self) -> list[str]:
        """What it says is wrong now."""
        return []

    def close(self) -> None:
        raise NotImplementedError

    def child(self, option: str) -> int | None:
        """The process id of its listener ("-E") or its listing ("-L"), if one runs."""
        return next((pid for pid in conntrack_children(self.pid, option) if pid not in self.not_mine), None)


class TableSubject(Subject):
    """The pipeline that the screen sits on, without the screen: Live -> Intake -> FlowTable."""

    def __init__(self, via: Sequence[str], on_listed: Callable[[float], None]) -> None:
        super().__init__()
        self.pid = os.getpid()
        self.source = source.LiveSource(source.Command(via=via), INTERVAL)
        self.table = FlowTable(linger=1e9)  # what has closed stays, to be compared with what DESTROY said
        self.intake = Intake(self.table)
        self._listed = 0.0  # when the newest complete listing began
        self.listings = 0
        self._began = 0.0
        self._on_listed = on_listed

    def _poll(self) -> select.poll:
        poll = select.poll()
        for fd in self.source.fds():
            poll.register(fd, select.POLLIN)
        return poll

    def turn(self, timeout: float) -> None:
        due = self.source.deadline()
        if due is not None:
            timeout = max(0.0, min(timeout, due - time.monotonic()))
        self._poll().poll(timeout * 1000)
        ended = False
        for item in self.source.poll():
            self._take(item)
            ended = ended or isinstance(item, ListingEnded)
        self.table.tick(self.source.clock())
        self._check_counts(ended or len(self.table) <= RECOUNTED)

    def _take(self, item: Item) -> None:
        before = len(self.table)
        self.intake.take(item)
        if isinstance(item, ListingEnded) and not item.complete and len(self.table) != before:
            raise Wrong(f"a listing that was cut swept {before - len(self.table)} flows")
        if isinstance(item, Lost):
            self.reports["lost"] += 1
        elif isinstance(item, Trouble) and item.problem is not None:
            self.reports[item.part] += 1
        elif isinstance(item, ListingBegan):
            self._began = item.at
        elif isinstance(item, ListingEnded) and item.complete:
            self._listed = self._began
            self.listings += 1
            self._on_listed(self._began)

    def _check_counts(self, anew: bool) -> None:
        """What the header says, against the table."""
        table = self.table
        if not len(table) == len(table.live) == sum(table.counts.values()):
            raise Wrong(f"counts: {len(table)} flows, {len(table.live)} live, {sum(table.counts.values())} counted")
        if (
            sum(number for _name, number in table.by_protocol()) != len(table)
            or min(table.counts.values(), default=1) < 1
        ):
            raise Wrong(f"counts by protocol: {table.counts} of {len(table)}")
        if not anew:
            return
        states = Counter(flow.state for flow in table.live.values() if flow.state)
        if states != Counter(dict(table.by_state())):
            raise Wrong(f"counts by state: {table.by_state()} said, {states} counted")
        if any(flow.ended is not None for flow in table.live.values()):
            raise Wrong("a flow that has ended is among the live ones")
        status = self.intake.status
        if status.losses != self.reports["lost"]:
            raise Wrong(f"{status.losses} losses on show, {self.reports['lost']} reported")
        if unread := status.unread():
            raise Wrong(f"what conntrack printed could not be read: {unread}")

    def idle(self) -> bool:
        return not self._poll().poll(0)

    def picture(self) -> list[JsonFlow]:
        context = Context()
        return [
            comparable(json_object(flow.record(), flow, context, "list", None)) for flow in self.table.live.values()
        ]

    def list_now(self) -> None:
        self.source.list_now()

    def mark(self) -> float:
        return self.source.clock()

    def listed_since(self, mark: float) -> bool:
        return self._listed > mark

    def troubles(self) -> list[str]:
        return [f"{part}: {problem}" for part, problem in self.intake.status.troubles.items()]

    def close(self) -> None:
        self.source.close()


# What tells one flow from another, of an object of the stream.
SIDE = ("src", "dst", "sport", "dport", "type", "code", "icmp_id", "srckey", "dstkey")
_SAID = (
    ("lost", re.compile(r"^conntrack-monitor: lost: ", re.MULTILINE)),
    ("events", re.compile(r"^conntrack-monitor: events stopped: ", re.MULTILINE)),
    ("listing", re.compile(r"^conntrack-monitor: listing stopped: ", re.MULTILINE)),
)


def name_of(item: dict[str, Any]) -> tuple[object, ...]:
    """Family, protocol, original tuple and zones."""
    original, reply = item["original"], item["reply"]
    zones = (item.get("zone"), original.get("zone_orig"), reply.get("zone_reply"))
    return (item["family"], item["protocol_number"], *(original.get(key) for key in SIDE), *zones)


class JsonSubject(Subject):
    """The program itself with --json, and a reader that keeps a table of what it reads, by the rules of docs/json.md."""

    def __init__(self, via: Sequence[str]) -> None:
        super().__init__()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close
        argv = [*PROGRAM, "--json", "--via", " ".join(via), "--interval", str(INTERVAL)]
        self.process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._stderr, bufsize=0
        )
        assert self.process.stdout
        self.pipe = self.process.stdout.fileno()
        os.set_blocking(self.pipe, False)
        self.pid = self.process.pid
        self._half = b""
        self.known: dict[tuple[object, ...], dict[str, Any]] = {}
        self._listing: int | None = None
        self._listings = 0  # that were seen to run

    def turn(self, timeout: float) -> None:
        self._look()
        ready, _, _ = select.select([self.pipe], [], [], timeout)
        if not ready:
            return
        data = os.read(self.pipe, 1 << 20)
        if not data:
            raise Wrong(f"the stream ended with status {self.process.wait()}: {self.said()}")
        *lines, self._half = (self._half + data).split(b"\n")
        for line in lines:
            self._read(json.loads(line))

    def _look(self) -> None:
        """A listing takes 50 ms at least, for the kernel walks its 262,144 buckets: it is seen to run."""
        pid = self.child("-L")
        if pid not in (None, self._listing):
            self._listing = pid
            self._listings += 1

    def mark(self) -> float:
        self._look()
        return self._listings

    def listed_since(self, mark: float) -> bool:
        # When the one after it begins, all that it brought has been written.
        return self._listings >= mark + 2

    def _read(self, item: dict[str, Any]) -> None:
        name = name_of(item)
        if item["event"] != "destroy":
            self.known[name] = item
        elif name in self.known and self.known[name]["id"] == item["id"]:
            del self.known[name]  # with another id it would be the late end of the flow before

    def said(self) -> str:
        self._stderr.seek(0)
        return self._stderr.read().decode("utf-8", "replace")

    def idle(self) -> bool:
        text = self.said()
        self.reports = Counter({part: len(pattern.findall(text)) for part, pattern in _SAID})
        # Asleep it has written all that it has read, or waits for us to read.
        return process_state(self.pid) == "S" and not select.select([self.pipe], [], [], 0)[0]

    def picture(self) -> list[JsonFlow]:
        return [comparable(item) for item in self.known.values()]

    def close(self) -> None:
        stop_process(self.process)
        self._stderr.close()
