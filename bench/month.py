"""Thirty days of a flow log: one is written by the log's own writer, the others are copies with other dates.

Its flows are those of ``ground``: 300 hosts near, 50,000 far, masqueraded, with places from databases of real size.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import time
from array import array
from contextlib import closing
from pathlib import Path

from ground import PLACES, ROUTER, far, near

import past
from addresses import Context, Lookups
from flowlog import ALL_ENDED, GROUP, Writer
from geoip import GeoIP

DAYS = 30
BATCH = 10_000  # flows that are committed together: two seconds of 5,000


def text(number: int) -> bytes:
    """What conntrack says at the end of a flow; every tenth flow goes to a service of its own."""
    source, target, sport = near(number), far(number * 7 + 1), 1024 + number * 13 % 64_000
    dport = (443, 443, 443, 80, 53, 22, 8080, 993, 123, 1024 + number % 40_000)[number % 10]
    sent, answered = 100 + number * 37 % 20_000, 60 + number * number % 2_000_000
    return (
        f"src={source} dst={target} sport={sport} dport={dport} packets={sent // 500 + 1} bytes={sent} "
        f"src={target} dst={ROUTER} sport={dport} dport={1024 + number * 7 % 64_000} "
        f"packets={answered // 1400 + 1} bytes={answered} [ASSURED] mark=0 id={number + 1}"
    ).encode()


def write_day(folder: Path, flows: int, begins: float) -> float:
    """A day of so many flows; returns the seconds of CPU that it took."""
    geoip = GeoIP([str(PLACES / "conntrack-monitor")], own=str(PLACES / "conntrack-monitor"))
    geoip.open()
    writer = Writer(str(folder), {"router": Context(Lookups(where=geoip.lookup))})
    writer.begin(begins)
    writer.take((GROUP, 0, "ipv4", "tcp", 6, "TIME_WAIT"))
    spent = 0.0
    for first in range(0, flows, BATCH):
        numbers = range(first, min(first + BATCH, flows))
        ends = [begins + 300.0 + number * 86_000.0 / flows for number in numbers]
        starts = array("d", [end - 1.0 - number % 200 for number, end in zip(numbers, ends)])
        columns = array("L", [0] * len(ends)).tobytes(), starts.tobytes(), array("d", ends).tobytes()
        texts, began = b"\n".join(map(text, numbers)), time.process_time()
        writer.take((ALL_ENDED, texts, *columns))
        writer.commit(ends[-1])
        spent += time.process_time() - began
    writer.drop_files()
    return spent


def copy_day(folder: Path, from_day: int, to_day: int) -> None:
    """The same flows on another day: all times in a file are of its day."""
    source, target = (folder / f"flows-{past.day_name(day)}.db" for day in (from_day, to_day))
    shutil.copyfile(source, target)
    shift = (to_day - from_day) * past.DAY_SECONDS
    with closing(sqlite3.connect(target)) as db, db:
        db.execute(
            "UPDATE about SET day = day + :d, began = began + :d, alive = alive + :d, whole = whole + :d", {"d": shift}
        )


def forget_files() -> None:
    """What the kernel keeps of files in memory is given up, so that the next reader waits for the disk."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def seconds(*words: str) -> float:
    """How long the program takes with these options, on a cold cache."""
    import subprocess

    program = [sys.executable, str(Path(past.__file__).with_name("conntrack_monitor.py")), "--no-config", *words]
    subprocess.run(program, capture_output=True, check=True)  # its modules are compiled by now
    forget_files()
    began = time.perf_counter()
    subprocess.run(program, capture_output=True, check=True)
    return time.perf_counter() - began
