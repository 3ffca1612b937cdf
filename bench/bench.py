"""Benchmarks against conntrack itself over the same kernel table, in the same run: only ratios mean anything here.

As root; makes a network namespace of its own with 200,000 entries (``--flows`` for another number) and removes it.
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from lab import Namespace, load  # noqa: E402

from fields import Context  # noqa: E402
from flows import FlowTable  # noqa: E402
from geography import Geography, Plan  # noqa: E402
from intake import Status  # noqa: E402
from parse import Splitter, cut  # noqa: E402
from render import Scene, frame  # noqa: E402
from view import View, refresh  # noqa: E402

RUNS = 5
READ = 1 << 17


def entries(count: int) -> Iterator[str]:
    """-R lines: two thirds TCP, one third UDP, all different."""
    for i in range(count):
        source = f"10.{i % 7}.{i // 250 % 250}.{i % 250 + 1}"
        target = f"198.{18 + i % 2}.{i // 65000}.{i % 253 + 1}"
        ports = f"--sport {1024 + i % 60000} --dport {(443, 80, 22, 8080)[i % 4]}"
        if i % 3:
            flags = "--state ESTABLISHED -u ASSURED,SEEN_REPLY"
            yield f"-A -p tcp -s {source} -d {target} {ports} {flags} -t {100_000 + i}"
        else:
            yield f"-A -p udp -s {source} -d {target} {ports} -t {6000 + i % 600}"


@contextmanager
def full_table(count: int) -> Iterator[Namespace]:
    with Namespace("bench") as ns:
        ns.sysctl("net.netfilter.nf_conntrack_acct", 1)
        load(ns, entries(count))
        yield ns


def best(measure: list[float]) -> float:
    """The least disturbed run: other work on the machine only ever adds."""
    return min(measure)


def listing_time(ns: Namespace) -> float:
    """Seconds that `conntrack -L -o extended,id > /dev/null` takes."""
    start = time.perf_counter()
    with open(os.devnull, "wb") as null:
        argv = [*ns.prefix, "conntrack", "-L", "-o", "extended,id"]
        subprocess.run(argv, stdout=null, stderr=null, check=True)
    return time.perf_counter() - start


def listing_bytes(ns: Namespace) -> bytes:
    argv = [*ns.prefix, "conntrack", "-L", "-o", "extended,id"]
    return subprocess.run(argv, capture_output=True, check=True).stdout


def apply_time(data: bytes, table: FlowTable, now: float) -> float:
    """Seconds to parse a listing and apply it to a table."""
    start = time.perf_counter()
    table.begin_listing(now)
    splitter = Splitter()
    for at in range(0, len(data), READ):
        rows, _rejects = cut(splitter.feed(data[at : at + READ]))
        table.listed_all(rows, now)
    table.end_listing(True, now)
    return time.perf_counter() - start


def parse_and_apply(ns: Namespace) -> None:
    """Lines parsed and applied a second, a table that is new and one that is known, against conntrack -L."""
    data = listing_bytes(ns)
    lines = data.count(b"\n")
    conntrack, first, again = [], [], []
    for _ in range(RUNS):
        conntrack.append(listing_time(ns))
        table = FlowTable()
        first.append(apply_time(data, table, 0.0))
        again.append(apply_time(data, table, 10.0))
        assert len(table) == lines
    print(f"conntrack -L > /dev/null       {lines / best(conntrack):9.0f} lines/s")
    for name, times in (("first listing", first), ("listing again", again)):
        ratio = best(conntrack) / best(times)
        verdict = "reached" if ratio >= 1 else "missed"
        print(f"parse and apply, {name} {lines / best(times):9.0f} lines/s, ratio {ratio:.2f} (aim 1.0: {verdict})")


def print_once(ns: Namespace) -> None:
    """`--once --limit 50` as a user runs it, against conntrack -L."""
    argv = [*ns.prefix, sys.executable, str(ROOT / "conntrack_monitor.py"), "--once", "--limit", "50"]
    conntrack, ours = [], []
    for _ in range(RUNS):
        conntrack.append(listing_time(ns))
        start = time.perf_counter()
        subprocess.run(argv, capture_output=True, check=True)
        ours.append(time.perf_counter() - start)
    ratio = best(ours) / best(conntrack)
    print(f"--once --limit 50              {best(ours):9.2f} s, {ratio:.2f} times conntrack -L")


def new_addresses() -> None:
    """The longest frame when 10,000 addresses never seen before arrive at once, sorted by country (aim: 100 ms)."""
    from make_mmdb import place, write

    networks = {
        f"{a}.{b}.0.0/16": place("DE", "Germany", f"City {a} {b}") for a in range(20, 60) for b in range(0, 250, 5)
    }
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "dbip-city-lite.mmdb", "DBIP-City-Lite", networks)
        geo = Geography(Plan((folder,), False, "", ""))
        geo._geoip.open()
        try:
            longest, frames = _frames(geo)
        finally:
            geo.close()
    verdict = "reached" if longest <= 0.1 else "missed"
    print(f"10,000 new addresses at once   longest frame {longest * 1000:5.1f} ms of {frames} (aim 100 ms: {verdict})")


def _frames(geo: Geography) -> tuple[float, int]:
    """Draw until all is known; the longest frame in seconds, and how many it took."""
    table, view = FlowTable(), View(Context(where=geo.where), sort="cc")
    table.begin_listing(0.0)
    for i in range(10_000):
        address = f"{20 + i % 40}.{i // 40 % 250}.{i // 10_000}.{i % 250 + 1}"
        there, back = f"src=10.0.0.1 dst={address} sport=1 dport=443", f"src={address} dst=10.0.0.1 sport=443 dport=1"
        line = f"tcp      6 100 ESTABLISHED {there} {back}\n"
        table.listed(cut(line.encode())[0][0], 0.0)
    table.end_listing(True, 0.0)
    longest, frames = 0.0, 0
    while frames == 0 or geo.short:
        start = time.perf_counter()
        geo.begin_frame()
        view.due = 0.0
        refresh(view, table, float(frames))
        frame(Scene(view, table, Status(), "bench", True), 160, 45)
        longest, frames = max(longest, time.perf_counter() - start), frames + 1
    return longest, frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flows", type=int, default=200_000)
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("bench: needs root for a network namespace with a table of its own; try: sudo make bench")
    gc.freeze()
    gc.set_threshold(200_000, 20, 50)  # as the program does
    with full_table(arguments.flows) as ns:
        parse_and_apply(ns)
        print_once(ns)
    new_addresses()


if __name__ == "__main__":
    main()
