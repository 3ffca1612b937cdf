"""Benchmarks against conntrack itself and iptstate over the same kernel table, in the same run: `make bench`.

As root; makes network namespaces of its own and removes them. ARGS="NAME ..." chooses some, --flows another size than
200,000. Other work on the machine disturbs the figures, so only ratios and shares of a core mean anything.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import inside
from ground import (
    PROGRAM,
    OnTerminal,
    best,
    cpu,
    kernel_count,
    listing_bytes,
    listing_time,
    resident,
    sender,
    table,
)

from support.kernel import Namespace

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
    """`--once --limit 50` as a user runs it, against conntrack -L and iptstate -1."""
    ours, conntrack, other = [], [], []
    with table(flows) as ns:
        for _ in range(RUNS):
            conntrack.append(listing_time(ns))
            start = time.perf_counter()
            subprocess.run([*ns.prefix, *PROGRAM, "--once", "--limit", "50"], capture_output=True, check=True)
            ours.append(time.perf_counter() - start)
            if shutil.which("iptstate"):
                other.append(iptstate_time(ns))
    name = f"{flows} flows, --once --limit 50"
    yield at_most(name, best(ours) / best(conntrack), 1.3, "x conntrack -L")
    if other:
        yield at_most(name, best(ours) / best(other), 0.6, "x iptstate -1")


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
        with table(count) as ns, OnTerminal(ns, PROGRAM, SCREEN) as screen:
            screen.until(b"%d" % flows if count else FRAME)
            screen.watch(25.0 if count else CALM)  # three listings
            sizes.append(resident(screen.pid))
    yield at_most(f"memory of a flow, {flows} live", (sizes[1] - sizes[0]) / flows, 450, "B")


def keys(flows: int) -> Iterator[Row]:
    """From a key to the end of its frame, while listings go on."""
    with table(flows) as ns, OnTerminal(ns, PROGRAM, SCREEN) as screen:
        screen.until(b"%d" % flows)
        screen.watch(CALM)
        moves = [pressed(screen, key) for _ in range(50) for key in (b"j", b"\x1b[6~", b"k", b"\x1b[5~")]
        ordered = []
        sorts = []
        for _ in range(42):
            sorts.append(pressed(screen, b"s"))
            ordered.append(sorts[-1] + until_ordered(screen))
        filters = [pressed(screen, key) for word in WORDS for key in (b"/", *split(word), b"\x15", b"\x1b")]
    yield at_most("a key that moves, 99th percentile", worst(moves), 20, "ms")
    yield at_most("a key that sorts, 99th percentile", worst(sorts), 150, "ms")
    yield at_most("a key that filters, 99th percentile", worst(filters), 150, "ms")
    medians = " ".join(f"{sorted(measured)[len(measured) // 2]:.0f}" for measured in (moves, sorts, filters))
    yield Row("... and the medians", f"{medians} ms", "", True)
    figures = f"{sorted(ordered)[len(ordered) // 2]:.0f} ms, 99th percentile {worst(ordered):.0f} ms"
    yield Row("... and until all rows are in their new order", figures, "", True)


WORDS = (b"proto:tcp ", b"port:443 ", b"src:10.3.0.0/16 ", b"state:established ", b"10.3.7")


def split(word: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in word]


def pressed(screen: OnTerminal, key: bytes) -> float:
    """Milliseconds from the key to the end of the next frame; two seconds between two keys need not be waited for."""
    screen.watch(0.03)
    start, began = len(screen.seen), time.monotonic()
    screen.type(key)
    return (screen.until(FRAME, start) - began) * 1000


def views(flows: int) -> Iterator[Row]:
    """The same in every view: its key, moving in it, sorting it."""
    changes, moves, sorts, whole = [], [], [], []
    with table(flows) as ns, OnTerminal(ns, PROGRAM, SCREEN) as screen:
        screen.until(b"%d" % flows)
        screen.watch(CALM)
        for key in (b"2", b"3", b"4", b"5", b"6", b"7", b"8") * 3:
            changes.append(pressed(screen, key))
            whole.append(changes[-1] + until_ordered(screen))
            if key == b"2":  # of the others some have one row: a key that changes nothing draws nothing
                moves += [pressed(screen, key) for _ in range(30) for key in (b"j", b"\x1b[6~", b"k", b"\x1b[5~")]
            sorts += [pressed(screen, b"s") for _ in range(4)]
    yield at_most("a key that changes the view, 99th percentile", worst(changes), 150, "ms")
    yield at_most("... that moves in it", worst(moves), 20, "ms")
    yield at_most("... that sorts it", worst(sorts), 150, "ms")
    figures = f"{sorted(whole)[len(whole) // 2]:.0f} ms, 99th percentile {worst(whole):.0f} ms"
    yield Row("... and until all of the view is there", figures, "", True)


def until_ordered(screen: OnTerminal) -> float:
    """Milliseconds from the end of a frame that says "sort …" until the frame that says in which direction."""
    began, last = time.monotonic(), screen.seen.rindex(FRAME)
    if "…".encode() not in screen.seen[screen.seen.rindex(FRAME, 0, last) : last]:
        return 0.0
    start = last + len(FRAME)
    while True:
        ended = screen.until(FRAME, start)
        end = screen.seen.index(FRAME, start)
        if any(arrow.encode() in screen.seen[start:end] for arrow in "↓↑"):
            return (ended - began) * 1000
        start = end + len(FRAME)


def worst(measured: list[float]) -> float:
    """The 99th percentile."""
    return sorted(measured)[int(len(measured) * 0.99)]


# --- a table that lives -----------------------------------------------------------------------------------------------


def live(flows: int) -> Iterator[Row]:
    """CPU with 1,000 new flows a second, and how old byte rates get; then iptstate on the same table."""
    seconds = 40.0
    with table(flows, most=2 * flows) as ns:
        ns.sysctl("net.netfilter.nf_conntrack_udp_timeout", 10)
        with sender(ns, 1000, 2 * seconds + 60), OnTerminal(ns, PROGRAM, SCREEN) as screen:
            screen.until(FRAME)
            screen.watch(5.0)
            share, starts = watched(screen, seconds)
        gaps = [later - sooner for sooner, later in pairwise(starts)]
        yield at_most(f"{flows} flows, 1,000 new ones a second", share, 0.25, "of a core")
        yield at_most("... the oldest byte rate", max(gaps, default=seconds), 10, "s")
        if shutil.which("iptstate"):
            with sender(ns, 1000, seconds + 60), OnTerminal(ns, ["iptstate"], SCREEN) as screen:
                screen.watch(5.0)
                other, _ = watched(screen, seconds / 2)
            yield Row("... and iptstate beside it", f"{other:.3g} of a core", "", True)


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
    """New flows, none of which may be missed: on the screen, and as JSON."""
    for rate, seconds in ((20_000, 30.0), (30_000, 5.0)):
        most = int(rate * seconds)
        with table(0, most=2 * most) as ns, OnTerminal(ns, PROGRAM, SCREEN) as screen:
            screen.until(FRAME)
            screen.watch(CALM)
            with sender(ns, rate, seconds) as child:
                while child.poll() is None:
                    screen.watch(0.2)
                opened, took = said(child)
            screen.watch(3.0)
            text, there = screen.text(SCREEN), kernel_count(ns)
        lost = "lost" in text
        name = f"screen, {opened / took:.0f} new flows a second, {took:.0f} s"
        shown = "lost" if lost else "none lost"
        yield Row(name, f"{opened} opened, {there} in the kernel, {shown}", "none lost", not lost)
    rate, seconds = 20_000, 30.0
    most = int(rate * seconds)
    with table(0, most=2 * most) as ns:
        program = subprocess.Popen(
            [*ns.prefix, "sh", "-c", '"$@" | grep -c "\\"event\\":\\"new\\""', "sh", *PROGRAM, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        inside.listener(ns)
        with sender(ns, rate, seconds) as child:
            child.wait()
            opened, took = said(child)
        inside.quiet(program.pid)
        for pid in inside.programs(program.pid):
            os.kill(pid, 15)
        written, errors = program.communicate()
    yield Row(
        f"--json, {opened / took:.0f} new flows a second, {took:.0f} s",
        f"{opened} opened, {int(written)} written",
        "every one written",
        int(written) == opened and b"lost" not in errors,
    )


def said(child: subprocess.Popen[bytes]) -> tuple[int, float]:
    assert child.stdout
    opened, took = child.stdout.read().split()
    return int(opened), float(took)


def heal(flows: int) -> Iterator[Row]:
    """The program was stopped, and events were lost: from when it goes on until the screen counts what is there."""
    import pyte

    with table(flows, most=2 * flows + 100_000) as ns, OnTerminal(ns, PROGRAM, SCREEN) as screen:
        screen.until(b"%d" % flows)
        screen.watch(CALM)
        os.kill(screen.pid, signal.SIGSTOP)
        with sender(ns, 3000, 10.0) as child:  # the pipe and the socket hold 17,500 of them
            child.wait()
        there, listing, used = kernel_count(ns), listing_time(ns), cpu(screen.pid)
        os.kill(screen.pid, signal.SIGCONT)
        began, shown = time.monotonic(), pyte.Screen(*SCREEN)
        stream, read = pyte.ByteStream(shown), 0
        while f"Connections · {there} " not in "\n".join(shown.display):
            screen.watch(0.1)
            stream.feed(screen.seen[read:])
            read = len(screen.seen)
            if time.monotonic() - began > 120:
                raise SystemExit(f"bench: the screen never counted {there} flows: {shown.display}")
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
    for bench in (start, parse, once, memory, keys, views, live, small, calm, burst, heal, places, churn)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {' '.join(BENCHES)}")
    parser.add_argument("--flows", type=int, default=200_000)
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("bench: needs root for network namespaces with tables of their own; try: sudo make bench")
    if unknown := set(arguments.names) - set(BENCHES):
        parser.error(f"no benchmark called {' '.join(sorted(unknown))}; there are: {' '.join(BENCHES)}")
    for name in arguments.names or BENCHES:
        for row in BENCHES[name](arguments.flows):
            print(row, flush=True)


if __name__ == "__main__":
    main()
