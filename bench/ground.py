"""What the benchmarks stand on: full tables, senders of packets, the program on a terminal, its processes measured.

Everything in network namespaces of its own, packets only into a wire there that ends in nothing.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.kernel import Namespace, load  # noqa: E402

PROGRAM = [sys.executable, str(ROOT / "conntrack_monitor.py"), "--no-download", "--geoip-db", "/nonexistent"]
TICK = os.sysconf("SC_CLK_TCK")
MAX = Path("/proc/sys/net/netfilter/nf_conntrack_max")  # of all namespaces, and to be set in the first one only


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
def table(count: int, most: int = 0) -> Iterator[Namespace]:
    """A namespace with so many entries and a wire that swallows packets; ``most``: the table must hold so many."""
    before = MAX.read_text()
    with Namespace("bench") as ns:
        try:
            if most > int(before):
                MAX.write_text(str(most))
            ns.sysctl("net.netfilter.nf_conntrack_acct", 1)
            # Without ARP nothing is addressed to the other end of the wire: it drops all.
            ns.ip(
                *("link add sink type veth peer name drain", "link set sink arp off", "link set sink up"),
                *("link set drain arp off", "link set drain up", "addr add 198.18.0.1/15 dev sink"),
            )
            ns.nft("table ip bench { chain out { type filter hook output priority 0; ct state new accept; }; }")
            if count:
                load(ns, entries(count))
            yield ns
        finally:
            MAX.write_text(before)


SENDER = """
import socket, sys, time
rate, seconds = int(sys.argv[1]), float(sys.argv[2])
sockets = []
for _ in range(64):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("198.18.0.1", 0))
    sockets.append(s)
start, sent, total = time.monotonic(), 0, int(rate * seconds)
while sent < total:
    due = min(total, int((time.monotonic() - start) * rate))
    if sent >= due:
        time.sleep(0.001)
    while sent < due:
        n, i = divmod(sent, 64)
        sockets[i].sendto(b"x", (f"198.19.{n >> 8 & 255}.{n & 255}", 1024 + (n >> 16)))
        sent += 1
print(sent, time.monotonic() - start, flush=True)
"""


@contextmanager
def sender(ns: Namespace, rate: int, seconds: float) -> Iterator[subprocess.Popen[bytes]]:
    """Open so many UDP flows a second. Its only line says how many it opened, and in how many seconds."""
    child = subprocess.Popen(
        [*ns.prefix, sys.executable, "-c", SENDER, str(rate), str(seconds)], stdout=subprocess.PIPE
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def best(measured: Sequence[float]) -> float:
    """The least disturbed run: other work on the machine only ever adds."""
    return min(measured)


def listing_time(ns: Namespace) -> float:
    """Seconds that `conntrack -L -o extended,id > /dev/null` takes."""
    start = time.perf_counter()
    argv = [*ns.prefix, "conntrack", "-L", "-o", "extended,id"]
    subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def listing_bytes(ns: Namespace) -> bytes:
    argv = [*ns.prefix, "conntrack", "-L", "-o", "extended,id"]
    return subprocess.run(argv, capture_output=True, check=True).stdout


def kernel_count(ns: Namespace) -> int:
    return int(ns.run(["cat", "/proc/sys/net/netfilter/nf_conntrack_count"]).stdout)


# --- processes --------------------------------------------------------------------------------------------------------


def cpu(pid: int) -> float:
    """Seconds of CPU of a process and all its children, ended ones too."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(map(int, fields[11:15])) / TICK + sum(cpu(int(child)) for child in children)


def resident(pid: int) -> int:
    """Bytes that a process has in memory now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


class OnTerminal:
    """A command in a namespace, on a pseudo-terminal whose output is read and counted."""

    def __init__(self, ns: Namespace, argv: Sequence[str], size: tuple[int, int]) -> None:
        self.seen = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update({"TERM": "xterm-256color", "LANG": "C.UTF-8"})
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
            words = [*ns.prefix, *argv]
            os.execvp(words[0], words)

    def __enter__(self) -> OnTerminal:
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self.pid, signal.SIGTERM)
        while self._read(1.0):
            pass
        os.waitpid(self.pid, 0)
        os.close(self.fd)

    def _read(self, seconds: float) -> bool:
        """False when nothing came in time, or the program has ended."""
        if not select.select([self.fd], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self.fd, 65_536)
        except OSError:
            return False
        self.seen += data
        return bool(data)

    def watch(self, seconds: float) -> None:
        """Take in what it writes for so long."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._read(left)

    def until(self, text: bytes, start: int = 0) -> float:
        """Read until a text has come; the time then."""
        while self.seen.find(text, start) < 0:
            if not self._read(60.0):
                raise SystemExit(f"bench: {text!r} never came; the last output: {self.seen[-2000:]!r}")
        return time.monotonic()

    def type(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def text(self, size: tuple[int, int]) -> str:
        """The screen as it is now."""
        import pyte

        screen = pyte.Screen(*size)
        pyte.ByteStream(screen).feed(self.seen)
        return "\n".join(line.rstrip() for line in screen.display)
