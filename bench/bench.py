"""Benchmarks against conntrack itself and iptstate over the same kernel table, in the same run: `make bench`.

As root; makes network namespaces of its own and removes them. ARGS="NAME ..." chooses some, --flows another size than
200,000. Other work on the machine disturbs the figures, so only ratios and shares of a core mean anything.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import inside
from ground import (
    PROGRAM,
    ROOT,
    OnTerminal,
    best,
    cpu,
    home,
    kernel_count,
    listing_bytes,
    listing_time,
    resident,
    sender,
    table,
)

from support.engines import jetstream
from support.kernel import Namespace
from support.waiting import wait_for

RUNS = 5
SCREEN = (160, 45)
FRAME = b"\x1b[?2026l"  # the end of a frame
CALM = 3.0  # seconds after the first screen until all is as it will stay


@dataclass
class Row:
    """One line of the result: what was measured, the aim, and whether it was reached."""

    what: str
    measured: str
    aim: str
    reached: bool

    def __str__(self) -> str:
        return f"{self.what:<46} {self.measured:<34} {self.aim:<22} {'reached' if self.reached else 'missed'}"


def at_most(what: str, value: float, aim: float, unit: str) -> Row:
    return Row(what, f"{value:.3g} {unit}", f"<= {aim:g} {unit}", value <= aim)


# --- a table that rests -----------------------------------------------------------------------------------------------


def parse(flows: int) -> Iterator[Row]:
    """Lines parsed and applied a second against conntrack -L."""
    with table(flows) as ns:
        data = listing_bytes(ns)
        conntrack = best([listing_time(ns) for _ in range(RUNS)])
    lines = data.count(b"\n")
    yield Row("conntrack -L > /dev/null", f"{lines / conntrack:.0f} lines/s", "", True)
    first, again = inside.listings(data, RUNS)
    for name, seconds in (("parse and apply, a first listing", first), ("parse and apply, a known table", again)):
        ratio = conntrack / seconds
        yield Row(name, f"{lines / seconds:.0f} lines/s, {ratio:.2f}x conntrack", ">= 1x conntrack", ratio >= 1)


def once(flows: int) -> Iterator[Row]:
    """`--once` as a user runs it, against conntrack -L and iptstate -1."""
    kinds = {"--limit 50": ["--limit", "50"], "--json": ["--json"], "--csv": ["--csv"]}
    ours: dict[str, list[float]] = {kind: [] for kind in kinds}
    conntrack, other = [], []
    with table(flows) as ns:
        for _ in range(RUNS):
            conntrack.append(listing_time(ns))
            for kind, words in kinds.items():
                start = time.perf_counter()
                argv = [*ns.prefix, *PROGRAM, "--once", *words]
                subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
                ours[kind].append(time.perf_counter() - start)
            if shutil.which("iptstate"):
                other.append(iptstate_time(ns))
    for kind, aim in zip(kinds, (1.1, 2.0, 2.0), strict=True):
        yield at_most(f"{flows} flows, --once {kind}", best(ours[kind]) / best(conntrack), aim, "x conntrack -L")
    if other:
        yield at_most("... --limit 50", best(ours["--limit 50"]) / best(other), 0.5, "x iptstate -1")


def churned(folder: str) -> Path:
    """What conntrack -E says of 50,000 flows that begin and end, as a file."""
    with table(0, most=200_000) as ns:
        ns.sysctl("net.netfilter.nf_conntrack_udp_timeout", 5)
        with Path(folder, "all").open("wb") as file:
            argv = [*ns.prefix, "conntrack", "-E", "-b", str(1 << 25), "-o", "extended,id,timestamp"]
            recorder = subprocess.Popen(argv, stdout=file, stderr=subprocess.DEVNULL)
            inside.listener(ns)
            with sender(ns, 5000, 10.0) as child:
                child.wait()
            wait_for(lambda: not listing_bytes(ns), timeout=60)  # a listing has those that expired destroyed
            recorder.terminate()
            recorder.wait()
        recording = Path(folder, "events")
        recording.write_bytes(inside.made_public(Path(folder, "all").read_bytes()))
        return recording


def lines(_flows: int) -> Iterator[Row]:
    """CPU of the whole program for 50,000 flows that began and ended, against json.dumps of the same objects."""
    with tempfile.TemporaryDirectory() as folder:
        argv = [*PROGRAM, "--replay", str(churned(folder))]
        written = subprocess.run([*argv, "--json"], capture_output=True, check=True).stdout
        dumps, ours = [], {kind: list[float]() for kind in ("--json", "--csv")}
        its = inside.parts(Path(folder, "events").read_bytes())
        for _ in range(RUNS):
            dumps.append(inside.dumping(written))
            for kind, measured in ours.items():
                measured.append(inside.spent([*argv, kind]))
    for kind, measured in ours.items():
        yield at_most(
            f"{len(written.splitlines())} events, --replay {kind}", best(measured) / best(dumps), 2.0, "x json.dumps"
        )
    parts = ", ".join(f"{name} {value:.1f}" for name, value in its._asdict().items())
    whole = 1e6 * best(ours["--json"]) / len(written.splitlines())
    yield Row("... an event as JSON, us", f"{whole:.1f}, of that {parts}", "", True)


def ipfix(_flows: int) -> Iterator[Row]:
    """IPFIX records of 50,000 flows that began and ended, against json.dumps of their objects; and their bytes."""
    with tempfile.TemporaryDirectory() as folder:
        recording = churned(folder)
        written = subprocess.run(
            [*PROGRAM, "--replay", str(recording), "--json"], capture_output=True, check=True
        ).stdout
        data, objects = recording.read_bytes(), len(written.splitlines())
        dumps, exported = [], []
        for _ in range(RUNS):
            dumps.append(inside.dumping(written))
            exported.append(inside.exporting(data))
    rate, one = objects / best(dumps), exported[0]
    for name, measured, aim in (
        ("IPFIX records a second, encoded", best([its.encoding for its in exported]), 2.0),
        ("... and read from the table's flows", best([its.all for its in exported]), 0.0),
    ):
        ratio = one.records / measured / rate
        figures = f"{one.records / measured:.0f}, {ratio:.2f}x json.dumps"
        yield Row(name, figures, f">= {aim:g}x json.dumps" if aim else "", ratio >= aim)
    yield at_most("bytes of a NATed connection, its NAT events", one.bytes_of_nat, 200, "bytes")
    yield at_most("... its two flow records", one.bytes_of_flow, 200, "bytes")


def iptstate_time(ns: Namespace) -> float:
    """Seconds that `iptstate -1` takes; without a terminal it writes without end."""
    start = time.perf_counter()
    with OnTerminal(ns, ["iptstate", "-1"], SCREEN) as screen:
        while screen._read(60.0):
            pass
        return time.perf_counter() - start


def memory(flows: int) -> Iterator[Row]:
    """Memory of the live screen, a flow, above that of an empty table."""
    sizes = []
    for count in (0, flows):
        with table(count) as ns, sender(ns, 0, 1000.0, count), OnTerminal(ns, PROGRAM, SCREEN) as screen:
            screen.until(b"%d" % flows if count else FRAME)
            screen.watch(25.0 if count else CALM)  # three listings
            sizes.append(resident(screen.pid))
            data = listing_bytes(ns)
    yield at_most(f"memory of a flow, {flows} live", (sizes[1] - sizes[0]) / flows, 350, "B")
    yield Row("... of that", ", ".join(f"{name} {size:.0f}" for name, size in inside.sizes(data).items()), "", True)


def keys(flows: int) -> Iterator[Row]:
    """From a key to the end of its frame, in every view, while listings go on and counters change."""
    moves, sorts, filters, changes, ordered = [], [], [], [], []
    with table(flows) as ns, sender(ns, 0, 1000.0, flows), OnTerminal(ns, PROGRAM, SCREEN) as screen:
        screen.until(b"%d" % flows)
        screen.watch(CALM)
        for view in (b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"8"):
            if view != b"1":  # the first is there already
                changes.append(pressed(screen, view))
                ordered.append(changes[-1] + until_ordered(screen))
            if view in b"12":  # of the others some have one row: a key that changes nothing draws nothing
                moves += [pressed(screen, key) for _ in range(30) for key in (b"j", b"\x1b[6~", b"k", b"\x1b[5~")]
            for _ in range(12):
                sorts.append(pressed(screen, b"s"))
                ordered.append(sorts[-1] + until_ordered(screen))
            for word in WORDS:
                filters += [pressed(screen, key) for key in (b"/", *split(word), b"\x15", b"\x1b")]
                screen.watch(ESCAPED)
    yield at_most("a key that moves, 99th percentile", worst(moves), 16, "ms")
    yield at_most("... that sorts", worst(sorts), 80, "ms")
    yield at_most("... that filters", worst(filters), 80, "ms")
    yield at_most("... that changes the view", worst(changes), 80, "ms")
    medians = " ".join(f"{sorted(measured)[len(measured) // 2]:.0f}" for measured in (moves, sorts, filters, changes))
    yield Row("... and the medians", f"{medians} ms", "", True)
    figures = f"{sorted(ordered)[len(ordered) // 2]:.0f} ms, 99th percentile {worst(ordered):.0f} ms"
    yield Row("... and until all rows are in their new order", figures, "", True)


ESCAPED = 0.2  # seconds: a key that follows an escape at once is Alt and that key
WORDS = (b"proto:tcp ", b"port:443 ", b"src:10.3.0.0/16 ", b"state:established ", b"10.3.7")


def split(word: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in word]


def pressed(screen: OnTerminal, key: bytes) -> float:
    """Milliseconds from the key to the end of the next frame; two seconds between two keys need not be waited for."""
    screen.watch(0.03)
    start, began = len(screen.seen), time.monotonic()
    screen.type(key)
    return (screen.until(FRAME, start) - began) * 1000


def until_ordered(screen: OnTerminal) -> float:
    """Milliseconds until the title says no longer "sort …"."""
    began = ended = time.monotonic()
    while any(SORTING.search(line) for line in screen.shown()):
        ended = screen.until(FRAME, len(screen.seen))
    return (ended - began) * 1000


SORTING = re.compile(r" · sort \S+ …")


def worst(measured: list[float]) -> float:
    """The 99th percentile."""
    return sorted(measured)[int(len(measured) * 0.99)]


# --- a table that lives -----------------------------------------------------------------------------------------------


def live(flows: int) -> Iterator[Row]:
    """CPU with 1,000 new flows a second after the first minute, and how old rates get; iptstate on the same table."""
    first, seconds = 60.0, 40.0
    with table(flows, most=2 * flows) as ns:
        ns.sysctl("net.netfilter.nf_conntrack_udp_timeout", 10)
        with sender(ns, 1000, first + 3 * seconds + 60, flows):
            with OnTerminal(ns, PROGRAM, SCREEN) as screen:
                screen.until(FRAME)
                screen.watch(first)
                share, starts = watched(screen, seconds)
            if shutil.which("iptstate"):
                with OnTerminal(ns, ["iptstate"], SCREEN) as screen:
                    screen.watch(5.0)
                    other, _ = watched(screen, seconds)
                yield at_most(f"{flows} flows, 1,000 new ones a second", share / other, 0.3, "x iptstate")
    gaps = [later - sooner for sooner, later in pairwise(starts)]
    yield at_most("... CPU", share, 0.3, "of a core")
    yield at_most("... the oldest byte rate", max(gaps, default=seconds), 10, "s")


def log(_flows: int) -> Iterator[Row]:
    """What the flow log costs at 5,000 NATed flows a second that begin and end, beside the same run without it.

    It is measured when each of the 50,000 far hosts has been met once, which is after 16 s; in a day that comes once.
    """
    rate, first, seconds, runs = 5000, 20.0, 30.0, 2
    shares: dict[bool, list[float]] = {False: [], True: []}
    lost, late = 0, 0.0
    for logs in [False, True] * runs:
        with table(0, most=200_000) as ns, tempfile.TemporaryDirectory() as folder:
            ns.sysctl("net.netfilter.nf_conntrack_udp_timeout", 5)
            more = ["--log", folder] if logs else []
            with sender(ns, rate, first + seconds + 30), OnTerminal(ns, [*PROGRAM, *more], SCREEN) as screen:
                screen.until(FRAME)
                screen.watch(first)
                share, frames = spent_and_frames(screen, seconds)
                shares[logs].append(share)
                if logs:
                    lost += screen.seen.count(b"lost") - screen.seen.count(b"lost none")
                    late = max(late, frames)
    ratio = best(shares[True]) / best(shares[False])
    yield at_most(f"{rate} flows a second, with a log", ratio, 1.3, "x without it")
    yield Row("... CPU without and with it", f"{best(shares[False]):.2f}, {best(shares[True]):.2f} of a core", "", True)
    yield Row("... events lost", f"{lost}", "none", lost == 0)
    yield at_most("... the longest time between two frames", late, 2.0, "s")


def past_days(_flows: int) -> Iterator[Row]:
    """Thirty days of a million flows each: what they take on disk, and how long questions take on a cold cache."""
    import month

    from past import day_name, day_of, sizes

    flows, today = 1_000_000, day_of(time.time())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spent = month.write_day(folder, flows, (today - 1) * 86_400.0)
        yield at_most("bytes on disk a flow, index included", sum(sizes(name).values()) / flows, 120, "bytes")
        yield Row("... CPU of the writer a flow", f"{spent / flows * 1e6:.1f} us", "", True)
        for day in range(2, month.DAYS + 1):
            month.copy_day(folder, today - 1, today - day)
        at = f"{day_name(today - 15)}T12:00:00Z"
        asked = ("--log", name, "--at", at)
        yield at_most("--who ADDR:PORT in 30 days, cold", month.seconds("--who", "203.0.113.1:4711", *asked), 1, "s")
        yield at_most("--who ADDR in 30 days, cold", month.seconds("--who", "10.0.0.5", *asked), 1, "s")
        words = ("--once", "--view", "usage", "--since", "30d", "--log", name)
        yield at_most("usage of 30 days, 300 hosts, cold", month.seconds(*words), 1, "s")


def spent_and_frames(screen: OnTerminal, seconds: float) -> tuple[float, float]:
    """Share of a core over so many seconds, and the longest time between two frames."""
    began, used = time.monotonic(), cpu(screen.pid)
    at, seen, longest = began, len(screen.seen), 0.0
    while (now := time.monotonic()) - began < seconds:
        screen.watch(0.02)
        if FRAME in screen.seen[seen:]:
            longest, at, seen = max(longest, now - at), now, len(screen.seen)
    return (cpu(screen.pid) - used) / (time.monotonic() - began), max(longest, time.monotonic() - at)


def frames(flows: int) -> Iterator[Row]:
    """What a frame of 200x50 costs while all that it shows changes."""
    with table(min(flows, 20_000)) as ns:
        data = listing_bytes(ns)
    measured = sorted(inside.frames(data, (200, 50)))
    yield at_most("a frame of 200x50, the median", 1000 * measured[len(measured) // 2], 8, "ms")


def watched(screen: OnTerminal, seconds: float) -> tuple[float, list[float]]:
    """Share of a core over so many seconds, and when listings began."""
    starts: list[float] = []
    known: set[str] = set()
    began, used = time.monotonic(), cpu(screen.pid)
    while time.monotonic() - began < seconds:
        screen.watch(0.05)
        try:
            with open(f"/proc/{screen.pid}/task/{screen.pid}/children") as file:
                children = file.read().split()
        except FileNotFoundError:
            break
        for child in children:
            if child not in known:
                try:
                    with open(f"/proc/{child}/cmdline", "rb") as file:
                        words = file.read().split(b"\0")
                except (FileNotFoundError, ProcessLookupError):
                    continue
                if b"-L" in words:
                    known.add(child)
                    starts.append(time.monotonic())
    return (cpu(screen.pid) - used) / (time.monotonic() - began), starts


def small(_flows: int) -> Iterator[Row]:
    """1,000 flows and 50 events a second."""
    with table(1000) as ns:
        ns.sysctl("net.netfilter.nf_conntrack_udp_timeout", 10)
        with sender(ns, 25, 120), OnTerminal(ns, PROGRAM, (80, 24)) as screen:
            screen.until(FRAME)
            screen.watch(15.0)  # from now on as many end as begin
            share, _ = watched(screen, 30.0)
    yield at_most("1,000 flows, 50 events a second", share, 0.03, "of a core")


def calm(_flows: int) -> Iterator[Row]:
    """Bytes to the terminal when nothing happens."""
    with table(1000) as ns, OnTerminal(ns, PROGRAM, (80, 24)) as screen:
        screen.until(FRAME)
        screen.watch(10.0)
        before = len(screen.seen)
        screen.watch(60.0)
        rate = (len(screen.seen) - before) / 60
    yield at_most("a calm screen of 80x24", rate, 200, "B/s")


def burst(_flows: int) -> Iterator[Row]:
    """New flows a second for 5 s without one lost: the screen and --json, as a share of what conntrack -E takes."""
    most = {}
    for name in ("conntrack -E > /dev/null", "screen", "--json"):
        most[name] = 0.0
        for rate in range(10_000, 80_001, 10_000):
            took, lost = LISTENERS[name](rate)
            if lost:
                break
            most[name] = max(most[name], took)
    whole = most["conntrack -E > /dev/null"]
    yield Row("conntrack -E > /dev/null", f"{whole:.0f} new flows a second", "", True)
    for name in ("screen", "--json"):
        share = most[name] / whole if whole else 0.0
        yield Row(f"{name}, none lost", f"{most[name]:.0f} a second, {share:.2f}x conntrack", ">= 0.8x", share >= 0.8)


BURST = 5.0  # seconds


def conntrack_loses(rate: int) -> tuple[float, bool]:
    """New flows a second that were opened, and whether conntrack says that it lost events."""
    with table(0, most=int(2 * rate * BURST)) as ns:
        argv = [*ns.prefix, "conntrack", "-E", "-o", "extended,id,timestamp"]
        listener = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        inside.listener(ns)
        opened, took = burst_in(ns, rate)
        inside.quiet(listener.pid)
        listener.terminate()  # ip netns exec has become the command
        _, errors = listener.communicate()
    return opened / took, b"ENOBUFS" in errors


def screen_loses(rate: int) -> tuple[float, bool]:
    """The same of the screen."""
    with table(0, most=int(2 * rate * BURST)) as ns, OnTerminal(ns, PROGRAM, SCREEN) as screen:
        screen.until(FRAME)
        screen.watch(CALM)
        with sender(ns, rate, BURST) as child:
            while child.poll() is None:
                screen.watch(0.2)
            opened, took = said(child)
        screen.watch(CALM)
        return opened / took, b"lost" in screen.seen.replace(b"lost none", b"")


def json_loses(rate: int) -> tuple[float, bool]:
    """The same of --json: all that were opened must have been written."""
    with table(0, most=int(2 * rate * BURST)) as ns, tempfile.TemporaryFile(dir="/dev/shm") as file:
        program = subprocess.Popen([*ns.prefix, *PROGRAM, "--json"], stdout=file, stderr=subprocess.PIPE)
        inside.listener(ns)
        opened, took = burst_in(ns, rate)
        inside.quiet(program.pid)
        program.terminate()
        _, errors = program.communicate()
        file.seek(0)
        written = sum(b'"event":"new"' in line for line in file)
    return opened / took, written != opened or b"lost" in errors


NODES, NODE_FLOWS, NODE_RATE, WATCHED = 10, 20_000, 100, 40.0  # machines; flows and new ones a second of each; seconds


def nodes(_flows: int) -> Iterator[Row]:
    """Ten machines in one --json, against ten programs with one each: CPU of all processes, memory of the programs."""
    cost, size = {}, {}
    with ExitStack() as stack:
        spaces = [stack.enter_context(table(NODE_FLOWS)) for _ in range(NODES)]
        ways = [f"r{number}={ns.via}" for number, ns in enumerate(spaces)]
        for name, runs in (("ten", [[way] for way in ways]), ("one", [ways])):
            with ExitStack() as running:
                pids = [running.enter_context(streaming(words)) for words in runs]
                for ns in spaces:
                    inside.listener(ns)
                time.sleep(CALM)
                for ns in spaces:
                    running.enter_context(sender(ns, NODE_RATE, 2 * WATCHED, NODE_FLOWS))
                time.sleep(WATCHED / 2)
                before = sum(map(cpu, pids))
                time.sleep(WATCHED)
                cost[name], size[name] = sum(map(cpu, pids)) - before, sum(map(resident, pids))
    yield Row("ten --json, 20,000 flows and 100 new a second", f"{cost['ten'] / WATCHED:.2f} of a core", "", True)
    yield at_most("one --json of ten machines: CPU", cost["one"] / cost["ten"], 0.8, "x ten programs")
    yield at_most(f"... memory ({size['one'] >> 20} MB)", size["one"] / size["ten"], 0.6, "x ten programs")


def tcp_bytes() -> float:
    """Bytes of JSON of the masqueraded TCP connection in the captures, with a node and without databases."""
    capture = ROOT / "fixtures" / "captures" / "snat-masquerade-tcp" / "E.ext-id-ts.txt"
    argv = [*PROGRAM, "--replay", str(capture), "--node", "r7", "--json", "--only", "new,destroy"]
    with tempfile.TemporaryDirectory() as nowhere:
        away = {**os.environ, "GEOIP_DB_PATHS": nowhere, "XDG_CACHE_HOME": nowhere}
        told = subprocess.run(argv, capture_output=True, check=True, env=away).stdout.splitlines(keepends=True)
    return sum(map(len, told)) / sum(b'"event":"new"' in line for line in told)


ROUTERS = 10_000


def fleet(_flows: int) -> Iterator[Row]:
    """The lines of 10,000 routers in turns, by publish.py of contrib/nats into one JetStream: is all stored?"""
    with tempfile.TemporaryDirectory() as folder:
        argv = [*PROGRAM, "--replay", str(churned(folder)), "--node", "r", "--json", "--only", "new,destroy"]
        told = subprocess.run(argv, capture_output=True, check=True).stdout.splitlines(keepends=True)
        sent = [line.replace(b'"r"', b'"r%d"' % (at % ROUTERS), 1) for at, line in enumerate(told)]
        Path(folder, "sent").write_bytes(b"".join(sent))
        with jetstream(Path(folder)) as its, Path(folder, "sent").open("rb") as file:
            publisher = inside.spent(its.argv("publish.py"), file)
            server = cpu(its.server.process.pid)
            disk = sum(path.stat().st_size for path in Path(folder, "store").rglob("*") if path.is_file())
            stored = its.stored()
    yield at_most("bytes of a NATed TCP connection, --only new,destroy, no places", tcp_bytes(), 850, "bytes")
    bytes_of_one = sum(map(len, told)) / sum(b'"event":"new"' in line for line in told)
    yield Row("... of these, which have names of places", f"{bytes_of_one:.0f} bytes", "", True)
    what = f"{len({line.split(b',')[0] for line in sent})} routers into one JetStream"
    yield Row(what, f"{len(sent)} lines sent, {len(stored)} stored", "equal", sorted(stored) == sorted(sent))
    cost = f"{1e6 * publisher / len(sent):.0f} + {1e6 * server / len(sent):.0f} us of CPU"
    yield Row("... a line: publisher + server", f"{cost}, {disk / len(sent):.0f} B on disk", "", True)


@contextmanager
def streaming(ways: Sequence[str]) -> Iterator[int]:
    """The program with these machines, whose lines nobody keeps; its process id."""
    argv = [*PROGRAM, "--json", *(word for way in ways for word in ("--via", way))]
    program = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield program.pid
    finally:
        program.terminate()
        program.wait()


LISTENERS: dict[str, Callable[[int], tuple[float, bool]]] = {
    "conntrack -E > /dev/null": conntrack_loses,
    "screen": screen_loses,
    "--json": json_loses,
}


def burst_in(ns: Namespace, rate: int) -> tuple[int, float]:
    with sender(ns, rate, BURST) as child:
        child.wait()
        return said(child)


def said(child: subprocess.Popen[bytes]) -> tuple[int, float]:
    assert child.stdout
    opened, took = child.stdout.read().split()
    return int(opened), float(took)


def heal(flows: int) -> Iterator[Row]:
    """The program was stopped, and events were lost: from when it goes on until the screen counts what is there."""
    with table(flows, most=2 * flows + 100_000) as ns, OnTerminal(ns, PROGRAM, SCREEN) as screen:
        screen.until(b"%d" % flows)
        screen.watch(CALM)
        os.kill(screen.pid, signal.SIGSTOP)
        with sender(ns, 3000, 10.0) as child:  # the pipe and the socket hold 17,500 of them
            child.wait()
        there, listing, used = kernel_count(ns), listing_time(ns), cpu(screen.pid)
        os.kill(screen.pid, signal.SIGCONT)
        began = time.monotonic()
        while f"Connections · {there} " not in "\n".join(screen.shown()):
            screen.watch(0.1)
            if time.monotonic() - began > 120:
                raise SystemExit(f"bench: the screen never counted {there} flows: {screen.shown()}")
        seconds, spent = time.monotonic() - began, cpu(screen.pid) - used
    yield at_most(f"{there} flows, until a loss was made good", seconds, 3, "s")
    figures = f"{spent:.3g} s of CPU, {seconds / listing:.2g}x conntrack -L"
    yield Row("... and what it took", figures, "", True)


# --- the program alone ------------------------------------------------------------------------------------------------


def start(_flows: int) -> Iterator[Row]:
    for option in ("--help", "--version"):
        times = []
        for _ in range(10):
            began = time.perf_counter()
            subprocess.run([*PROGRAM[:2], option], capture_output=True, check=True)
            times.append((time.perf_counter() - began) * 1000)
        yield at_most(option, best(times), 120, "ms")


def places(_flows: int) -> Iterator[Row]:
    longest, frames = inside.new_addresses()
    yield at_most(f"10,000 new addresses, the longest of {frames} frames", longest * 1000, 100, "ms")


def churn(_flows: int) -> Iterator[Row]:
    """Memory over an hour of churn, with a fast clock: 10 million events."""
    early, late = inside.churn(10_000_000)
    yield at_most("10 million events: growth from the 2nd million", (late - early) / 1e6, 2.0, "MB")


BENCHES: dict[str, Callable[[int], Iterator[Row]]] = {
    bench.__name__: bench
    for bench in (
        start,
        parse,
        once,
        lines,
        ipfix,
        memory,
        keys,
        live,
        log,
        past_days,
        frames,
        small,
        calm,
        burst,
        nodes,
        fleet,
        heal,
        places,
        churn,
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {' '.join(BENCHES)}")
    parser.add_argument("--flows", type=int, default=200_000)
    parser.add_argument("--nameless", action="store_true", help="no near host has a name")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("bench: needs root for network namespaces with tables of their own; try: sudo make bench")
    if unknown := set(arguments.names) - set(BENCHES):
        parser.error(f"no benchmark called {' '.join(sorted(unknown))}; there are: {' '.join(BENCHES)}")
    with home(not arguments.nameless):
        for name in arguments.names or BENCHES:
            print(f"--- {name}, at {time.strftime('%H:%M')} with a load of {os.getloadavg()[0]:.1f} ---", flush=True)
            for row in BENCHES[name](arguments.flows):
                print(row, flush=True)


if __name__ == "__main__":
    main()
