"""What the benchmarks stand on: a masquerading router's table, senders of packets, the program on a terminal.

The table is one that the program is for: 300 hosts near and 50,000 far, IPv6 a fifth, of IPv4 nine tenths masqueraded
and a tenth forwarded to a host behind the router. Flows to public addresses are only written into the table; a fifth
of all go to addresses for benchmarks, and packets change their counters. Everything is in network namespaces of its
own, and packets go only into a wire there that ends in nothing.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import pyte  # noqa: E402
from databases import make  # noqa: E402

from support.kernel import Namespace, load  # noqa: E402

PLACES = Path(tempfile.gettempdir()) / f"conntrack-monitor-bench-{os.getpid()}"
PROGRAM = [sys.executable, str(ROOT / "conntrack_monitor.py"), "--no-download"]
SENDER = Path(__file__).with_name("sender.py")
TICK = os.sysconf("SC_CLK_TCK")
MAX = Path("/proc/sys/net/netfilter/nf_conntrack_max")  # of all namespaces, and to be set in the first one only
ROUTER = "203.0.113.1"
NEAR, FAR = 300, 50_000
CHANGED = 5  # of so many flows the counters of one change


@contextmanager
def home(named: bool = True) -> Iterator[None]:
    """A user's folders: databases of real size in the cache, and settings that name all near hosts (or none).

    The program puts databases that it downloads into that cache, and the C reader reads them there. Files in other
    folders take the pure reader, and 7 to 19 times as long. Compiled modules are kept, as wherever it is installed.
    """
    folders = {"XDG_CACHE_HOME": "cache", "XDG_CONFIG_HOME": "config", "PYTHONPYCACHEPREFIX": "code"}
    before = {name: os.environ.pop(name, None) for name in (*folders, "PYTHONDONTWRITEBYTECODE")}
    for name, folder in folders.items():
        os.environ[name] = str(PLACES / folder)
        (PLACES / folder / "conntrack-monitor").mkdir(parents=True)
    try:
        make(PLACES / "cache" / "conntrack-monitor")
        hosts = [f'"{address(number)}" = "host-{number}"' for number in range(NEAR) for address in (near, near6)]
        if named:
            settings = PLACES / "config" / "conntrack-monitor" / "config.toml"
            settings.write_text("[hosts]\n" + "\n".join(hosts))
        yield
    finally:
        shutil.rmtree(PLACES)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def near(number: int) -> str:
    number %= NEAR
    return f"10.0.{number // 250}.{number % 250 + 1}"


def near6(number: int) -> str:
    return f"2001:db8:1::{number % NEAR + 1:x}"


def far(number: int) -> str:
    """A public address, or for flows whose counters change one for benchmarks (RFC 2544)."""
    which = number % FAR
    if number % CHANGED == 0:
        return f"198.{18 + which % 2}.{which // 250 % 250}.{which % 250 + 1}"
    return f"{20 + which % 40}.{which // 40 % 250}.{which // 10_000}.{which % 250 + 1}"


def far6(number: int) -> str:
    """The same for IPv6 (RFC 5180)."""
    which = number % FAR
    if number % CHANGED == 0:
        return f"2001:2::{which // 250:x}:{which % 250 + 1:x}"
    return f"2a{which % 16:x}0:{which // 16 % 4096 + 4096:x}::{which // 250:x}:{which % 250 + 1:x}"


def entry(number: int) -> str:
    """One flow as ``conntrack -R`` takes it; those whose counters change are of UDP."""
    six, sport, dport = number % 25 < 5, 1024 + number % 60_000, (443, 80, 22, 8080)[number % 4]
    if number % CHANGED == 0 or number % 3 == 0:
        how = f"-p udp {{}} -u SEEN_REPLY -t {6000 + number % 600}"
    else:
        how = f"-p tcp {{}} --state ESTABLISHED -u ASSURED,SEEN_REPLY -t {100_000 + number}"
    if six:
        source, target, answers, to = near6(number), far6(number), "", ""
        answers, to, answer_port, to_port = target, source, dport, sport
    elif number % 10 == 1:  # forwarded
        source, target, sport = far(number), ROUTER, 1024 + number % 64_000
        answers, to, answer_port, to_port = near(number), source, dport + 8000, sport
    else:
        source, target = near(number), far(number)
        answers, to, answer_port, to_port = target, ROUTER, dport, 1024 + (number * 7) % 64_000
    ends = f"-s {source} -d {target} --sport {sport} --dport {dport} --reply-src {answers} --reply-dst {to}"
    return "-A " + how.format(f"{ends} --reply-port-src {answer_port} --reply-port-dst {to_port}")


@contextmanager
def table(count: int, most: int = 0) -> Iterator[Namespace]:
    """A router with so many flows and a wire that swallows packets; ``most``: the table must hold so many."""
    before = MAX.read_text()
    with Namespace("bench") as ns:
        try:
            if most > int(before):
                MAX.write_text(str(most))
            ns.sysctl("net.netfilter.nf_conntrack_acct", 1)
            ns.sysctl("net.netfilter.nf_conntrack_udp_timeout_stream", 6000)
            # Without ARP nothing is addressed to the other end of the wire: it drops all.
            ns.ip(
                *("link add sink type veth peer name drain", "link set sink arp off", "link set sink up"),
                *("link set drain arp off", "link set drain up", f"addr add {ROUTER}/32 dev sink"),
                *("route add 198.18.0.0/15 dev sink", "addr add 2001:db8::1/128 dev sink nodad"),
                "route add 2001:2::/48 dev sink",
            )
            ns.nft(
                "table ip bench { chain out { type nat hook postrouting priority srcnat; oifname sink masquerade; }; };"
                "table ip6 bench { chain out { type filter hook output priority 0; ct state new accept; }; }"
            )
            if count:
                load(ns, map(entry, range(count)))
            yield ns
        finally:
            MAX.write_text(before)


@contextmanager
def sender(ns: Namespace, rate: int, seconds: float, changed: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    """Open so many flows a second; of ``changed`` loaded flows a fifth moves something every 8 s.

    Its only line says how many flows it opened, and in how many seconds.
    """
    argv = [sys.executable, str(SENDER), str(rate), str(seconds), str(changed)]
    child = subprocess.Popen([*ns.prefix, *argv], stdout=subprocess.PIPE)
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
    """Bytes of its own that a process has in memory now: pages of mapped databases are the kernel's to take away."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("RssAnon:")]
    return int(line.split()[1]) * 1024


class OnTerminal:
    """A command in a namespace, on a pseudo-terminal whose output is read and counted."""

    def __init__(self, ns: Namespace, argv: Sequence[str], size: tuple[int, int]) -> None:
        self.seen = b""
        self._fed = 0
        self._screen = pyte.Screen(*size)
        self._stream = pyte.ByteStream(self._screen)
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

    def shown(self) -> list[str]:
        """The lines of the screen as it is now."""
        self._stream.feed(self.seen[self._fed :])
        self._fed = len(self.seen)
        return list(self._screen.display)
