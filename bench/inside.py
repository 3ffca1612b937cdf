"""Benchmarks of parts of the program, in this process; and what is to be known of the program from outside."""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import deque
from itertools import count, pairwise
from pathlib import Path
from typing import IO, NamedTuple

from ground import best, cpu, resident

from addresses import Context, Lookups, Site
from collectors import Translator
from export import LineWriter
from flows import Counts, Flow, FlowTable
from geography import Geography, Plan
from geoip import GeoIP, search_paths
from intake import Status
from ipfix import CREATED, DELETED, IDLE_TIMEOUT, FlowReport, MessageStream, Records, TuplePair
from parse import EVENT, EVENTS, Splitter, split_lines
from render import frame
from screen import Screen
from support.kernel import Namespace, listeners
from support.waiting import wait_for
from view import Scene, View, refresh

READ = 1 << 17  # as child.py reads


def _garbage_waits() -> None:
    """As the program does."""
    gc.freeze()
    gc.set_threshold(200_000, 20, 50)


def listings(data: bytes, runs: int) -> tuple[float, float]:
    """Seconds to parse and apply a listing: to an empty table, and to one that knows all of it."""
    _garbage_waits()
    first, again = [], []
    for _ in range(runs):
        table = FlowTable()
        first.append(_apply(data, table, 0.0))
        _apply(data, table, 5.0)
        again.append(_apply(data, table, 10.0))
        assert len(table) == data.count(b"\n")
    return best(first), best(again)


def _apply(data: bytes, table: FlowTable, now: float) -> float:
    start = time.perf_counter()
    table.begin_listing(now)
    splitter = Splitter()
    for at in range(0, len(data), READ):
        rows, _rejects = split_lines(splitter.feed(data[at : at + READ]))
        table.listed_all(rows, now)
    table.end_listing(True, now)
    return time.perf_counter() - start


def made_public(lines: bytes) -> bytes:
    """The same flows, with public addresses where those for benchmarks were: no packet may go to such ones."""
    return lines.replace(b"=198.1", b"=93.1").replace(b"=2001:2::", b"=2a02:2::")


def dumping(lines: bytes) -> float:
    """Seconds of CPU of json.dumps of all objects that these lines hold."""
    items = [json.loads(line) for line in lines.splitlines()]
    start = time.process_time()
    for item in items:
        json.dumps(item)
    return time.process_time() - start


class Parts(NamedTuple):
    """Where the time of an event as JSON goes: microseconds of CPU each."""

    grammar: float
    table: float
    line: float
    places: float  # looking up each far host for the first time, and writing down what was found


def parts(lines: bytes) -> Parts:
    """Of events as ``--json`` takes them; the rest is the start, reading and writing."""
    geoip = GeoIP(search_paths((), os.environ))
    geoip.open()
    writer = LineWriter(Context(Lookups(where=geoip.lookup)), "json")
    table = FlowTable(0.0, on_show=False, totals=False)
    _garbage_waits()
    marks, (rows, _) = [time.process_time()], split_lines(lines)
    marks.append(time.process_time())
    told = [(row, table.event(row, 1.0), EVENTS[row[EVENT]]) for row in rows]
    for _ in range(2):
        marks.append(time.process_time())
        for row, flow, event in told:
            writer.of_row(row, flow, event, None)
    marks.append(time.process_time())
    grammar, events, first, again = (1e6 * (later - sooner) / len(rows) for sooner, later in pairwise(marks))
    return Parts(grammar, events, again, first - again)


def sizes(data: bytes) -> dict[str, float]:
    """Bytes of a flow's parts, of a listing whose flows are in a table."""
    table = FlowTable()
    _apply(data, table, 0.0)
    flows = list(table.live.values())
    named = {
        "object": lambda flow: sys.getsizeof(flow),
        "key": lambda flow: sys.getsizeof(flow.key),
        "text": lambda flow: sys.getsizeof(flow.tail),
        "timeout": lambda flow: sys.getsizeof(flow.timeout) if flow.timeout > SHARED_NUMBERS else 0,
    }
    found = {name: sum(map(size, flows)) / len(flows) for name, size in named.items()}
    return {**found, "dict": sys.getsizeof(table.live) / len(flows), "order": 16.0}  # a hash and a reference


SHARED_NUMBERS = 256  # CPython has numbers up to that once


class Exported(NamedTuple):
    """What IPFIX of the same flows takes."""

    records: int
    encoding: float  # seconds of CPU from values to messages
    all: float  # ... and from the table's flows, whose text is to be read
    bytes_of_nat: float  # of a NATed connection: its events
    bytes_of_flow: float  # ... its two records


def exporting(lines: bytes) -> Exported:
    """NAT events and flow records of flows that began and ended, as messages; headers and templates count."""
    begun: list[Flow] = []
    ended: list[Flow] = []
    table = FlowTable(0.0, on_show=False, on_closed=ended.append, on_new=begun.append)
    for row in split_lines(lines)[0]:
        table.event(row, 1.0)
    _garbage_waits()
    translator, start = Translator(Site()), time.process_time()
    created = [translator.pair(flow)[0] for flow in begun]
    pairs = [translator.pair(flow) for flow in ended]
    reading, start, records = time.process_time() - start, time.process_time(), Records()
    for its in created:
        if its.translated:
            records.add_nat_event(its, 1_795_000_000_000, CREATED)
    for its, counts in pairs:
        if its.translated:
            records.add_nat_event(its, 1_795_000_001_000, DELETED)
        records.add_flow(its, FlowReport(1_795_000_000_000, 1_795_000_001_000, IDLE_TIMEOUT, counts, True))
    number = records.number
    _messages(records)
    encoding = time.process_time() - start
    return Exported(number, encoding, reading + encoding, _bytes_of(pairs, nat=True), _bytes_of(pairs, nat=False))


def _messages(records: Records) -> int:
    """Bytes of all messages."""
    stream, waiting, size = MessageStream(1, again=True), deque(records.take()), 0
    while messages := stream.next_messages(waiting, 1.0):
        size += sum(len(message.data) for message in messages)
    return size


def _bytes_of(pairs: list[tuple[TuplePair, Counts | None]], nat: bool) -> float:
    records, number = Records(), 0
    for its, counts in pairs:
        if its.translated and len(its.src) == 4:
            number += 1
            if nat:
                records.add_nat_event(its, 1, CREATED)
                records.add_nat_event(its, 2, DELETED)
            else:
                records.add_flow(its, FlowReport(1, 2, IDLE_TIMEOUT, counts, True))
    return _messages(records) / number


def frames(data: bytes, size: tuple[int, int]) -> list[float]:
    """Seconds of each frame while all flows have other counters than before: lines made and put on a terminal."""
    table, context = FlowTable(), Context()
    screen, view = _nowhere(), View(context)
    measured = []
    for second in range(30):
        moved = b"packets=%d bytes=%d" % (second + 1, 999 * second**2 + 99)
        changed = re.sub(rb"packets=\d+ bytes=\d+", moved, data)
        _apply(changed, table, 5.0 * second)
        context.now = 5.0 * second
        view.rows.expire()
        refresh(view, table, 5.0 * second)
        start = time.process_time()
        lines = frame(Scene(view, table, Status(), "bench", True), *size).lines
        screen.draw(lines, *size)
        measured.append(time.process_time() - start)
    return measured[5:]


def _nowhere() -> Screen:
    """A screen whose bytes nobody reads."""
    with open(os.devnull, "wb") as nothing:
        mine = os.dup(1)
        os.dup2(nothing.fileno(), 1)
        try:
            return Screen(True, {"TERM": "xterm-256color"})
        finally:
            os.dup2(mine, 1)
            os.close(mine)


def new_addresses() -> tuple[float, int]:
    """Seconds of the longest frame when 10,000 addresses never seen before come at once, sorted by country."""
    from support.mmdb import place, write

    networks = {
        f"{a}.{b}.0.0/16": place("DE", "Germany", f"City {a} {b}") for a in range(20, 60) for b in range(0, 250, 5)
    }
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "dbip-city-lite.mmdb", "DBIP-City-Lite", networks)
        geo = Geography(Plan((folder,), False, "", ""))
        geo._geoip.open()
        try:
            return _frames(geo)
        finally:
            geo.close()


def _frames(geo: Geography) -> tuple[float, int]:
    table, view = FlowTable(), View(Context(Lookups(geo.where)), sort="cc")
    table.begin_listing(0.0)
    for i in range(10_000):
        address = f"{20 + i % 40}.{i // 40 % 250}.{i // 10_000}.{i % 250 + 1}"
        there, back = f"src=10.0.0.1 dst={address} sport=1 dport=443", f"src={address} dst=10.0.0.1 sport=443 dport=1"
        table.listed(split_lines(f"tcp      6 100 ESTABLISHED {there} {back}\n".encode())[0][0], 0.0)
    table.end_listing(True, 0.0)
    longest, frames = 0.0, 0
    while frames == 0 or geo.short:
        start = time.perf_counter()
        geo.begin_frame()
        view.rows.expire()
        refresh(view, table, float(frames))
        frame(Scene(view, table, Status(), "bench", True), *(160, 45))
        longest, frames = max(longest, time.perf_counter() - start), frames + 1
    return longest, frames


def churn(events: int) -> tuple[int, int]:
    """Bytes in memory after two million events and after all: 20,000 live flows come, change and go."""
    table, view = FlowTable(), View(Context())
    early = 0
    made = 0
    for second in count():
        now = float(second)
        numbers = range(second * 925, (second + 1) * 925)
        lines = [_line("    [NEW] ", n, 30, "[UNREPLIED] ", "") for n in numbers]
        lines += [_line(" [UPDATE] ", n, 180, "", "") for n in numbers]
        lines += [_line("[DESTROY] ", n - 18_500, None, "", "packets=2 bytes=99 ") for n in numbers if n >= 18_500]
        rows, rejects = split_lines("".join(lines).encode())
        assert not rejects
        table.listed_all(rows, now)
        made += len(rows)
        if second % 8 == 7:
            table.begin_listing(now)
            there = range(max(0, second - 19) * 925, (second + 1) * 925)
            rows, _ = split_lines("".join(_line("", n, 170, "", f"packets=1 bytes={second} ") for n in there).encode())
            table.listed_all(rows, now)
            table.end_listing(True, now)
        table.tick(now)
        refresh(view, table, now)
        frame(Scene(view, table, Status(), "bench", True), *(80, 24))
        if not early and made >= 2_000_000:
            early = resident(os.getpid())
        if made >= events:
            return early, resident(os.getpid())
    raise AssertionError


def _line(tag: str, n: int, timeout: int | None, flags: str, counts: str) -> str:
    src, dst, port = f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}", f"198.18.{n % 251}.{n % 241}", 1024 + n % 60_000
    time = "" if timeout is None else f"{timeout} "
    return (
        f"{tag}ipv4     2 udp      17 {time}src={src} dst={dst} sport={port} dport=53 {counts}{flags}"
        f"src={dst} dst={src} sport=53 dport={port} {counts}id={n * 2_654_435_761 % 2**32}\n"
    )


# --- from outside -----------------------------------------------------------------------------------------------------


def spent(argv: list[str], given: IO[bytes] | None = None) -> float:
    """Seconds of CPU of a command and its children, which read ``given``; what it writes goes nowhere."""
    child = subprocess.Popen(argv, stdin=given, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, argv
    return usage.ru_utime + usage.ru_stime


def listener(ns: Namespace) -> None:
    """Wait until somebody listens to events there."""
    wait_for(lambda: listeners(ns) > 0)


def quiet(pid: int) -> None:
    """Wait until a process and its children have nothing to do: for a second they use less than a tenth of it."""

    def rests() -> bool:
        before = cpu(pid)
        time.sleep(1.0)
        return cpu(pid) - before < 0.2

    wait_for(rests, timeout=120)
