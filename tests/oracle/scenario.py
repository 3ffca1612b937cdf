"""What the oracle's router goes through: a scenario drawn from a seed, and how its steps are done.

The same seed draws the same steps with the same entries and packets; when the kernel gets to them is its own affair.
"""

from __future__ import annotations

import math
import random
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import source
from child import SOCKET_SIZE
from oracle.subject import Subject
from support import kernel
from support.kernel import Agent, Lab, LabError, TcpConnection, insert_arguments, stop_process
from support.waiting import PATIENCE, wait_for

HALFWAY = 6_000  # entries of which a listing is never done at once: 1.3 MB, over the 1 MiB of a pipe
# SO_RCVBUF of a listener, which the kernel doubles: Linux's default, and room for ten events.
DEFAULT_BUFFER, TINY_BUFFER = 106_496, 4_096
SPRAY_PORT = 40_000
ECHO_PORT = 5001
AGAIN = "198.18.255.1"  # whose flow is deleted and made anew so fast that nobody knows all its ids


@dataclass(frozen=True)
class Step:
    """Something that happens; ``inside`` is what happens while it lasts."""

    name: str
    size: int = 0
    inside: tuple[Step, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}({' '.join(map(str, self.inside)) or self.size})"


@dataclass(frozen=True)
class Scenario:
    seed: int
    mode: str  # "table" or "json"
    events: int  # nf_conntrack_events
    accounting: int
    brief: bool  # do flows of packets expire within seconds?
    older: int  # entries that are there before anybody listens, and never have events
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        facts = f"{self.mode}, events={self.events}, acct={self.accounting}, brief={self.brief:d}, older={self.older}"
        return f"seed {self.seed} ({facts}): {' '.join(map(str, self.steps))}"


FLOOD = (5_500, 7_500)  # more than a listener can hold: a pipe takes 4,500 events, a socket 375

# Name, how often, least and most.
CALM = (
    ("load", 4, 20, 400),
    ("expiring", 2, 20, 200),
    ("again", 2, 1, 2),
    ("delete", 4, 0, 99),
    ("flush", 1, 0, 0),
    ("update", 2, 1, 99),
    ("spray", 4, 50, 2_000),
    ("udp", 2, 1, 40),
    ("tcp", 3, 1, 3),
    ("talk", 2, 1, 50_000),
    ("close", 2, 0, 0),
    ("reset", 1, 0, 0),
    ("half_open", 1, 1, 50),
    ("refused", 1, 0, 0),
    ("ping", 1, 1, 9),
    ("forwarded", 1, 0, 0),
    ("accounting", 2, 0, 1),
    ("last_words", 2, 1, 90),
    ("look", 2, 0, 0),
)
HEAVY = (
    ("flood", 3, *FLOOD),
    ("spray", 2, 1_000, 4_000),
    ("flush", 2, 0, 0),
    ("delete", 2, 0, 99),
    ("load", 2, 20, 400),
    ("update", 1, 1, 99),
)
QUIET = (("load", 3, 20, 300), ("spray", 2, 50, 500), ("delete", 2, 0, 99), ("again", 1, 1, 2), ("update", 1, 1, 99))
TROUBLE = (
    ("kill_events", 3),
    ("kill_listing", 3),
    ("kill_both", 2),
    ("stall", 3),  # nobody reads what conntrack prints
    ("freeze_events", 2),  # conntrack does not read what the kernel sends
    ("freeze_listing", 2),
    ("tiny", 3),
)
FILTERS = (
    ["-p", "udp"],
    ["-p", "tcp", "--state", "TIME_WAIT"],
    ["-p", "icmp"],
    ["-s", "198.18.0.0/24"],
    ["-w", "3"],
    ["-m", "7"],
    ["-p", "tcp", "--dport", "443"],
    ["-d", "198.51.100.0/24"],
    ["-f", "ipv6"],
)


def _size(rng: random.Random, low: int, high: int) -> int:
    """Small ones as often as large ones."""
    return round(math.exp(rng.uniform(math.log(low + 1), math.log(high + 1)))) - 1


def _some(rng: random.Random, kinds: tuple[tuple[str, int, int, int], ...], count: int) -> list[Step]:
    chosen = rng.choices(kinds, [often for _name, often, _low, _high in kinds], k=count)
    return [Step(name, _size(rng, low, high)) for name, _often, low, high in chosen]


def _trouble(rng: random.Random, heavy: int) -> Step:
    (name,) = rng.choices([name for name, _ in TROUBLE], [weight for _, weight in TROUBLE])
    if name.startswith("kill"):
        return Step(name)
    inside = _some(rng, HEAVY, rng.randint(1, heavy))
    if name == "stall" or rng.random() < 0.5:
        inside.insert(0, Step("flood", FLOOD[0]))
    return Step(name, 0, tuple(inside))


def scenario(seed: int) -> Scenario:
    """The scenario of a seed: 8 to 17 steps, among them one or two troubles.

    The stream takes 0.1 ms an event and lists large tables every 8 s: it gets fewer floods, and no look at them. And few scenarios end with
    a large table, because to compare 20,000 flows takes 5 s.
    """
    rng = random.Random(seed)
    mode = "json" if seed % 7 == 6 else "table"
    steps = _some(rng, CALM, rng.randint(6, 10))
    quiet = [Step("silent", 0, tuple(_some(rng, QUIET, rng.randint(1, 2)))) for _ in range(rng.randint(0, 2))]
    trouble = [_trouble(rng, 1 if mode == "json" else 3) for _ in range(rng.randint(1, 2))]
    for step in (*quiet, *trouble):
        steps.insert(rng.randint(0, len(steps)), step)
    if mode == "json":
        steps = [step for step in steps if step.name != "look"]
    large = mode == "table" and rng.random() < 0.1
    if not large:
        steps += [Step("flush"), *_some(rng, CALM, 3)]
    older = rng.randint(*FLOOD) if large else rng.randint(0, 300)
    return Scenario(seed, mode, rng.choice((1, 2)), rng.choice((0, 1, 1)), rng.random() < 0.5, older, tuple(steps))


def entries(first: int, count: int, **fields: object) -> Iterator[str]:
    """Lines for ``conntrack -R``: entries of every kind, no two with the same tuple, for ``first`` up to 65,000."""
    for i in range(first, first + count):
        a, b = f"198.18.{i >> 8}.{i & 255}", f"198.19.0.{i // 2 % 250 + 1}"
        before = f"198.18.{(i - 1) >> 8}.{(i - 1) & 255}"  # so that two zones have the same tuple
        a6, b6 = f"2001:db8:{i:x}::1", "2001:db8:ffff::2"
        kinds: tuple[dict[str, object], ...] = (
            {"src": a, "dst": b, "sport": 1024, "dport": 443, "flags": ["SEEN_REPLY", "ASSURED"], "mark": i},
            {"src": a, "dst": b, "sport": 1024, "dport": 80, "state": "SYN_SENT"},
            {"src": before, "dst": b, "sport": 1024, "dport": 80, "state": "TIME_WAIT", "zone": i % 5 + 1},
            {"protocol": "udp", "src": a6, "dst": b6, "sport": 1024, "dport": 53},
            {"protocol": "udp", "src": a, "dst": b, "sport": 53, "dport": 53, "src_nat": f"198.19.9.9:{i}"},
            {"src": a, "dst": b, "sport": 1024, "dport": 8080, "dst_nat": "198.19.8.8:80", "mark": 7},
            {"protocol": "icmp", "src": a, "dst": b, "type": 8, "code": 0, "icmp_id": i},
            {"protocol": "icmpv6", "src": a6, "dst": b6, "type": 128, "code": 0, "icmp_id": i},
            {"protocol": "gre", "src": a, "dst": b, "srckey": hex(i), "dstkey": "0xabcd"},
            {"protocol": "sctp", "src": a, "dst": b, "sport": 1024, "dport": 2},
            {"protocol": "udplite", "src": a, "dst": b, "sport": 1024, "dport": 7},
            {"protocol": "50", "src": a, "dst": b},
            {"src": a6, "dst": b6, "sport": 1024, "dport": 443, "zone_orig": 3},
        )
        yield "-I " + " ".join(insert_arguments(**{"timeout": 900 + i % 900, **kinds[i % len(kinds)], **fields}))


class Network:
    """A router and its neighbours, a subject that looks on, and the steps that can be done to them."""

    def __init__(self, lab: Lab, plan: Scenario) -> None:
        self.lab, self.plan = lab, plan
        self.router = lab.router
        self.subject: Subject | None = None  # nobody looks on yet
        self.reading = True
        self.troubled_until = 0.0  # until then what the subject knew may have been old
        self.silent_until = 0.0  # until then flows may have come back, and gone again, without a word
        self.killed = {"events": 0, "listing": 0}
        self.narrowed: set[int] = set()  # listeners whose socket has Linux's default room again
        self.on_gone: Callable[[list[str], float], None] = lambda _lines, _at: None  # of flows that are gone
        self.on_born: Callable[[list[str]], None] = lambda _lines: None  # flows that are there and had no NEW
        self.on_done: Callable[[], None] = lambda: None  # after each step
        self.look: Callable[[], None] = lambda: None
        self.drained_at = 0.0  # all that happened before was heard, if nothing was lost
        self._fresh = 1
        self._open: list[TcpConnection] = []

    def prepare(self) -> None:
        """Servers, marks, zones, timeouts, and the entries that are older than any listener."""
        lab, sysctl = self.lab, self.router.sysctl
        lab.add_mark("udp", 10_001, 7)
        lab.add_zone("udp", 10_002, 3)
        lab.accounting(bool(self.plan.accounting))
        for name, seconds in (
            ("udp_timeout", 2),
            ("udp_timeout_stream", 2),
            ("icmp_timeout", 1),
            ("tcp_timeout_syn_sent", 2),
            ("tcp_timeout_close", 1),
            ("tcp_timeout_time_wait", 2),
        ):
            sysctl(f"net.netfilter.nf_conntrack_{name}", seconds if self.plan.brief else 900)
        self._servers = [
            lab.echo_server(ECHO_PORT),
            lab.echo_server(ECHO_PORT, Lab.SERVER6),
            lab.echo_server(Lab.FORWARDED_TO, Lab.CLIENT, lab.client),
        ]
        sysctl("net.netfilter.nf_conntrack_events", 0)
        self.do(Step("load", self.plan.older))
        sysctl("net.netfilter.nf_conntrack_events", self.plan.events)

    def close(self) -> None:
        for connection in self._open:
            connection.stop()

    def do(self, step: Step) -> None:
        getattr(self, "_" + step.name)(step)
        self.pump(0.0)
        self.on_done()

    # --- waiting while the subject goes on ---

    def pump(self, timeout: float) -> None:
        if self.subject and self.reading:
            self.subject.turn(timeout)
        elif timeout:
            select.select([], [], [], timeout)

    def until(self, condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
        """Go round until something is so; LabError after ``patience`` seconds."""
        deadline = time.monotonic() + patience
        while not condition():
            if time.monotonic() > deadline:
                raise LabError(f"waited {patience:.0f} s for {what}")
            self.pump(0.01)

    def conntrack(self, *words: str) -> list[str]:
        """Run conntrack in the router, the subject going on meanwhile; the lines it printed."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = subprocess.Popen([*self.router.prefix, "conntrack", *words], stdout=out, stderr=err)
            try:
                self.until(lambda: process.poll() is not None, " ".join(words))
            finally:
                stop_process(process)
            out.seek(0)
            err.seek(0)
            said = err.read()
            # -D and -U that match nothing exit with 1; both stop half-way where an entry expires under their hands,
            # and -U where it has thousands to change.
            if process.returncode and words[0] not in ("-D", "-U"):
                raise LabError(f"conntrack {' '.join(words)}: {process.returncode}, {said.decode()}")
            return out.read().decode("utf-8", "replace").splitlines()

    def _agent(self, *words: object) -> Agent:
        """Start a traffic program at the client, and go on until it has said something."""
        agent = self.lab.client.agent(*words)
        out = agent.process.stdout
        assert out
        self.until(lambda: bool(select.select([out], [], [], 0)[0]), f"the agent {words}")
        return agent

    def _traffic(self, *words: object) -> None:
        with self._agent(*words) as agent:
            agent.expect("done")

    # --- entries by hand ---

    def _restore(self, lines: Iterable[str]) -> None:
        with tempfile.NamedTemporaryFile("w", suffix=".conntrack") as file:
            file.writelines(line + "\n" for line in lines)
            file.flush()
            self.conntrack("-R", file.name)

    def _load(self, step: Step, **fields: object) -> None:
        first, self._fresh = self._fresh, self._fresh + step.size
        self._restore(entries(first, step.size, **fields))

    _flood = _load

    def _expiring(self, step: Step) -> None:
        self._load(step, timeout=1 + step.size % 2)

    def _again(self, step: Step) -> None:
        """The same tuple, deleted and inserted, with another mark and another way back each time."""
        same = {"protocol": "udp", "src": AGAIN, "dst": "198.19.255.1", "sport": 7, "dport": 7, "timeout": 900}
        find = ["-D", *insert_arguments(**{**same, "timeout": None})]
        lines = []
        for number in range(step.size):
            lines.append(" ".join(find))
            lines.append(
                "-I " + " ".join(insert_arguments(**same, mark=number + 1, dst_nat=f"198.19.7.7:{number + 1}"))
            )
        self._restore(lines)

    def _delete(self, step: Step) -> None:
        lines = self.conntrack("-D", "-o", "extended,id", *FILTERS[step.size % len(FILTERS)])
        self.on_gone(lines, time.monotonic())

    def _newest(self, _step: Step) -> None:
        """Delete up to 256 entries: so few that a listener hears of each."""
        net = f"198.18.{(self._fresh - 1) >> 8}.0/24"
        self.on_gone(self.conntrack("-D", "-o", "extended,id", "-s", net), time.monotonic())

    def _flush(self, _step: Step) -> None:
        lines = self.table()
        self.conntrack("-F")
        self.on_gone(lines, time.monotonic())

    def _update(self, step: Step) -> None:
        what = (["-m", str(step.size)], ["-u", "ASSURED,SEEN_REPLY"], ["-t", "1000"])[step.size % 3]
        self.conntrack("-U", "-f", "ipv4", "-p", "udp", *what)

    def table(self) -> list[str]:
        """The kernel's table, as text."""
        return self.conntrack("-L", "-o", "extended,id")

    # --- packets ---

    def _spray(self, step: Step) -> None:
        self._traffic("spray", SPRAY_PORT, step.size)

    def _udp(self, step: Step) -> None:
        server = (Lab.SERVER, Lab.SERVER6)[step.size % 2]
        self._traffic("udp", server, ECHO_PORT, step.size, 1 + step.size % 3)

    def _tcp(self, step: Step) -> None:
        for number in range(step.size):
            connection = TcpConnection(self._agent("connect", (Lab.SERVER, Lab.SERVER6)[number % 2], ECHO_PORT))
            connection.exchange(1000)
            self._open.append(connection)

    def _talk(self, step: Step) -> None:
        for connection in self._open:
            connection.exchange(step.size)

    def _close(self, _step: Step) -> None:
        if self._open:
            # Not in good order and waited for: after a flush the router lets no FIN through.
            self._open.pop().stop()

    def _reset(self, _step: Step) -> None:
        if self._open:
            self._open.pop().reset()

    def _last_words(self, step: Step) -> None:
        """Packets between the last listing and the end: only DESTROY can tell."""
        subject = self.subject
        assert subject
        self._spray(step)
        if self.plan.mode == "table":  # the stream lists too rarely to wait for
            mark = subject.mark()
            self.until(lambda: subject.listed_since(mark), "a listing")
        self._spray(step)
        self._talk(Step("talk", 999))
        self.on_gone(self.conntrack("-D", "-o", "extended,id", "-d", "198.51.100.0/24"), time.monotonic())
        self.on_gone(self.conntrack("-D", "-o", "extended,id", "-p", "tcp", "-d", Lab.SERVER), time.monotonic())

    def _half_open(self, step: Step) -> None:
        self._traffic("syn", Lab.BLACK_HOLE, 443, step.size)

    def _refused(self, _step: Step) -> None:
        self._traffic("refused", Lab.SERVER, 9)

    def _ping(self, step: Step) -> None:
        self._traffic("ping", (Lab.SERVER, Lab.SERVER6)[step.size % 2], 70 + step.size, step.size)

    def _forwarded(self, _step: Step) -> None:
        with TcpConnection(self.lab.server.agent("connect", Lab.WAN, Lab.FORWARDED_PORT)) as connection:
            connection.exchange(100)

    # --- the kernel's settings ---

    def _accounting(self, step: Step) -> None:
        self.lab.accounting(bool(step.size))

    def _silent(self, step: Step) -> None:
        """Flows that never have events, and the end of some of them."""
        self.silent_until = math.inf
        self.router.sysctl("net.netfilter.nf_conntrack_events", 0)
        for inner in step.inside:
            self.do(inner)
        self.router.sysctl("net.netfilter.nf_conntrack_events", self.plan.events)
        self.on_born(self.table())
        self.silent_until = time.monotonic()

    def _look(self, _step: Step) -> None:
        self.look()

    # --- trouble ---

    def listener(self) -> int:
        """The process that listens for the subject, as soon as it does."""
        found: list[int] = []

        def there() -> bool:
            assert self.subject
            pid = self.subject.child("-E")
            roomy = 2 * SOCKET_SIZE  # the program has seen to it, and does not come back to it
            found[:] = [pid] if pid and (pid in self.narrowed or kernel.receive_buffer(pid) >= roomy) else []
            return bool(found)

        self.until(there, "the listener")
        if found[0] not in self.narrowed:  # with the program's 16 MiB nothing would ever be lost here
            kernel.set_receive_buffer(found[0], DEFAULT_BUFFER)
            self.narrowed.add(found[0])
        return found[0]

    def _fill(self) -> None:
        missing = HALFWAY - int(self.conntrack("-C")[0])
        if missing > 0:
            self._load(Step("load", missing))

    def halfway(self) -> int:
        """A listing that has begun to print and has not ended, stopped."""
        self._fill()
        found: list[int] = []

        def there() -> bool:
            assert self.subject
            self.subject.list_now()
            pid = self.subject.child("-L")
            if not (pid and kernel.has_written(pid)):
                return False
            kernel.send_signal(pid, signal.SIGSTOP)
            wait_for(lambda: kernel.process_state(pid) in ("T", "Z", ""), what="a stopped listing")
            found[:] = [pid] if kernel.process_state(pid) == "T" else []
            return bool(found)

        self.until(there, "a listing half-way")
        return found[0]

    def _kill_events(self, _step: Step) -> None:
        self._kill(events=self.listener())

    def _kill_listing(self, _step: Step) -> None:
        self._kill(listing=self.halfway())

    def _kill_both(self, _step: Step) -> None:
        self._kill(events=self.listener(), listing=self.halfway())

    def _kill(self, **pids: int) -> None:
        """Kill them, and wait for their ends: what is dying must not be taken for what comes after it."""
        for part, pid in pids.items():
            kernel.send_signal(pid, signal.SIGKILL)
            self.killed[part] += 1
        self.until(lambda: all(kernel.process_state(pid) in ("Z", "") for pid in pids.values()), "the children's ends")

    @contextmanager
    def _trouble(self) -> Iterator[None]:
        self.troubled_until = math.inf
        yield
        self.drain()
        self.troubled_until = time.monotonic()

    def _stall(self, step: Step) -> None:
        self.listener()
        with self._trouble():
            self.reading = False
            for inner in step.inside:
                self.do(inner)
            self.reading = True

    def _freeze_events(self, step: Step) -> None:
        with self._trouble():
            pid = self.listener()
            kernel.send_signal(pid, signal.SIGSTOP)
            for inner in step.inside:
                self.do(inner)
            kernel.send_signal(pid, signal.SIGCONT)

    def _freeze_listing(self, step: Step) -> None:
        """What has ended meanwhile is still named by what the listing had read and not yet printed."""
        self._fill()
        self.drain()
        pid = self.halfway()
        self._newest(step)
        for inner in step.inside:
            self.do(inner)
        self.drain()
        kernel.send_signal(pid, signal.SIGCONT)

    def _tiny(self, step: Step) -> None:
        with self._trouble():
            pid = self.listener()
            kernel.set_receive_buffer(pid, TINY_BUFFER)
            for inner in step.inside:
                self.do(inner)
            kernel.set_receive_buffer(pid, DEFAULT_BUFFER)

    def caught_up(self) -> bool:
        """Has the subject taken in all that the kernel has sent? Asked along the way that events go."""
        assert self.subject
        pid = self.subject.child("-E")
        if pid and (
            kernel.waiting_event_bytes(pid) or kernel.process_state(pid) in ("R", "D") or kernel.unread_output(pid)
        ):
            return False
        return self.subject.idle()

    def drain(self) -> None:
        """Go on until all that the kernel has sent is read."""
        began = time.monotonic()
        self.until(self.caught_up, "the end of the events")
        # What a killed listener left in its pipe is read by then.
        gathered = time.monotonic() + 2 * source.EVENTS_GATHER
        self.until(lambda: time.monotonic() > gathered and self.caught_up(), "the end of the events")
        self.drained_at = began
        self.on_done()
