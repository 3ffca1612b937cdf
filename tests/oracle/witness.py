"""What the kernel said meanwhile, heard by a second listener that loses nothing and read without the program's parser."""

from __future__ import annotations

import math
import re
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from oracle.subject import Subject
from parse import Record
from support import kernel
from support.kernel import LabError, Namespace, stop_process
from support.waiting import wait_for

ROOMY = 64 << 20  # bytes for the witness's socket: 80,000 events

Key = tuple[int, str, str]  # protocol number, original tuple, zones
Counts = tuple[int, int, int, int]


@dataclass(frozen=True)
class Said:
    """A line of conntrack: who it is about, and the counters of both directions."""

    at: float  # when it was printed; 0 where it has no stamp
    event: str
    key: Key
    ident: int
    counts: Counts | None


_COUNTERS = re.compile(r"packets=(\d+) bytes=(\d+)")


def read_line(line: str, offset: float = 0.0) -> Said:
    """One line of -E, -L or -D with ``-o extended,id``; ``offset`` is added to its stamp.

    >>> read_line("ipv4     2 udp      17 9 src=::1 dst=::2 sport=1 dport=2 src=::2 dst=::1 sport=2 dport=1 id=7").key
    (17, 'src=::1 dst=::2 sport=1 dport=2', '')
    """
    line = line.partition(" [USERSPACE]")[0]
    at, event = 0.0, ""
    if line.startswith("["):
        first, _, line = line.partition("\t")
        at = float(first[1:-1]) + offset
        event, _, line = line.strip(" [").partition("] ")
    words = line.split()
    start = next(i for i, word in enumerate(words) if word.startswith("src="))
    end = next(
        i for i, word in enumerate(words[start + 1 :], start + 1) if word.startswith(("src=", "packets=", "[", "zone"))
    )
    zones = sorted(word for word in words[end:] if word.startswith("zone"))
    counts = [int(number) for pair in _COUNTERS.findall(line) for number in pair]
    ident = int(words[-1].partition("=")[2])
    key = int(words[3]), " ".join(words[start:end]), " ".join(zones)
    return Said(at, event, key, ident, (counts[0], counts[1], counts[2], counts[3]) if counts else None)


_NAMES = ("src", "dst", "sport", "dport", "type", "code", "icmp_id", "srckey", "dstkey")


def key_of(record: Record) -> Key:
    """The same of what the program knows."""
    original = record.original
    words = [(name, getattr(original, name)) for name in _NAMES]
    text = " ".join(f"{'id' if name == 'icmp_id' else name}={value}" for name, value in words if value is not None)
    zones = [("zone", record.zone), ("zone-orig", original.zone), ("zone-reply", record.reply.zone)]
    return record.kind.number, text, " ".join(sorted(f"{name}={number}" for name, number in zones if number))


class Witness:
    """A second listener with so much room that it loses nothing; it writes to a file, which never makes it wait."""

    def __init__(self, namespace: Namespace) -> None:
        self._file = tempfile.NamedTemporaryFile("w+b")  # noqa: SIM115 - closed in close
        self._half = b""
        argv = [*namespace.prefix, "conntrack", "-E", "-o", "extended,id,timestamp"]
        self.process = subprocess.Popen(argv, stdout=self._file, stderr=subprocess.DEVNULL)
        self.destroyed: list[Said] = []
        self.events = 0
        # Stamps are seconds since 1970; times here are those of the steady clock.
        self._offset = time.monotonic() - time.time()
        wait_for(lambda: kernel.listens_to_events(self.process.pid), what="the witness")
        kernel.set_receive_buffer(self.process.pid, ROOMY)
        self._reader = open(self._file.name, "rb")  # noqa: SIM115 - closed in close

    def heard(self) -> list[Said]:
        """What it has written since the last call."""
        *lines, self._half = (self._half + self._reader.read()).split(b"\n")
        said = [read_line(line.decode("utf-8", "replace"), self._offset) for line in lines]
        self.destroyed += [one for one in said if one.event == "DESTROY"]
        self.events += len(said)
        return said

    def up_to_date(self) -> bool:
        """Has it written all that the kernel said?"""
        return not kernel.waiting_event_bytes(self.process.pid) and kernel.process_state(self.process.pid) == "S"

    def finish(self) -> None:
        """Wait until it has written all."""
        wait_for(self.up_to_date, what="the witness to finish")
        if lost := kernel.dropped_events(self.process.pid):
            raise LabError(f"the witness lost {lost} events")

    def close(self) -> None:
        stop_process(self.process)
        self._reader.close()
        self._file.close()


class Past:
    """What the kernel ever had, what of it is gone and since when, and what is surely there."""

    def __init__(self) -> None:
        self._since: dict[Key, tuple[float, int, bool]] = {}  # when, its id, and did a DESTROY say so?
        self.known: set[tuple[Key, int]] = set()  # all that the kernel ever had
        self._births: Counter[Key] = Counter()
        self._doubtful: set[Key] = set()  # what has ended, or had no NEW

    def heard(self, said: Iterable[Said]) -> None:
        for one in said:
            self.known.add((one.key, one.ident))
            if one.event == "DESTROY":
                self._since[one.key] = one.at, one.ident, True
                self._doubtful.add(one.key)
            elif one.event == "NEW":
                self._since.pop(one.key, None)
                self._births[one.key] += 1

    def deleted(self, lines: Iterable[str], at: float) -> None:
        for one in map(read_line, lines):
            self.known.add((one.key, one.ident))
            self._since[one.key] = at, one.ident, False
            self._doubtful.add(one.key)

    def born(self, lines: Iterable[str]) -> None:
        """Flows that are there, whether they had a NEW or not."""
        for one in map(read_line, lines):
            self.known.add((one.key, one.ident))
            self._since.pop(one.key, None)
            if not self._births[one.key]:
                self._doubtful.add(one.key)

    def never_ended(self, key: Key) -> bool:
        """It was born once, and nothing said that it ended (but it may have expired)."""
        return self._births[key] == 1 and key not in self._doubtful

    def due(self, began: float, heard: tuple[float, float]) -> dict[Key, int]:
        """Those that must not be on show any more, with their ids; they are not named again.

        That is what was gone when a listing ``began`` that is through, and what a DESTROY within ``heard`` told, a time
        of which the subject has heard all events.
        """
        first, last = heard
        out = {
            key: ident
            for key, (since, ident, said) in self._since.items()
            if since < began or (said and first < since < last)
        }
        for key in out:
            del self._since[key]
        return out


class Hearing:
    """The times in which the subject's listener lost nothing: one process, no drops, and nobody killed it."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness
        self._state: tuple[int, int] | None = None  # the listener, its drops
        self._checked = 0.0
        self.since = math.inf
        self.spans: list[tuple[float, float]] = []

    def check(self, subject: Subject) -> None:
        """Look at the listener now; to be called often."""
        pid = subject.child("-E")
        state = (pid, kernel.dropped_events(pid)) if pid and kernel.listens_to_events(pid) else None
        if state != self._state:
            self.spans.append((self.since, self._checked))
            self._state, self.since = state, math.inf
        self._checked = time.monotonic()
        if state and self.since == math.inf and self._witness.up_to_date():
            self.since = self._checked  # what the witness writes from now on happened from now on

    def whole(self, at: float) -> bool:
        """Was all heard that happened then?"""
        return any(first < at < last for first, last in (*self.spans, (self.since, self._checked)))
