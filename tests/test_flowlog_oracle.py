"""A router whose log is killed at random moments, and who made its connections: what --who says of each is true.

The maker writes down when a connection had begun, and when it was about to end it. In between nobody else can have its
port: two entries of the kernel's table never have the same reply.
"""

from __future__ import annotations

import math
import random
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

import past
from past import INSTANT, Question
from support.kernel import Namespace, insert_arguments, kernel_mark, load, send_signal
from support.logs import SERVER, WAN
from support.program import Piped, inside, no_orphans, processes
from support.terminal import PROGRAM
from support.waiting import wait_for

pytestmark = kernel_mark()

CONNECTIONS, PORTS, HOSTS = 2000, 320, 60
SECONDS = 14.0  # in which they come and go
LATE = 0.4  # seconds: an event is read a moment after it happened, on a busy machine
SHORTEST = 1.6  # seconds that a connection is there: three moments at least
GRID = 0.2  # seconds between two moments


@dataclass
class Connection:
    """What the maker knows of one: it was there from ``begun`` to ``ends`` at least."""

    host: int
    port: int  # that the server sees
    begun: float = 0.0
    ends: float = math.inf

    @property
    def inside(self) -> str:
        return f"10.0.{self.host // 200}.{self.host % 200 + 1}"

    def words(self) -> list[str]:
        """What conntrack must be told to make it; its own port is that of the server's side, its host makes it one."""
        words = {"src": self.inside, "sport": self.port, "dst": SERVER, "dport": 443, "timeout": 600}
        return insert_arguments(**words, src_nat=f"{WAN}:{self.port}", flags=("SEEN_REPLY", "ASSURED"))

    def moments(self) -> list[float]:
        """Those of its life, three at least."""
        first, last = math.ceil((self.begun + LATE) / GRID), math.floor((self.ends - LATE) / GRID)
        return [number * GRID for number in range(first, last + 1)]


class Maker:
    """Makes and ends connections, with ports that others have had before, and writes it down."""

    def __init__(self, router: Namespace, chance: random.Random) -> None:
        self._router, self._chance = router, chance
        self.live: dict[int, Connection] = {}
        self.all: list[Connection] = []

    def turn(self) -> None:
        """Some end, others begin: a port that is free goes to another host than had it last."""
        old = sorted(port for port, one in self.live.items() if time.time() - one.begun > SHORTEST)
        ending = self._chance.sample(old, min(len(old), self._chance.randrange(20, 70)))
        gone = [self.live.pop(port) for port in ending]
        before = time.time()
        load(self._router, [f"-D -p tcp -s {one.inside} -d {SERVER} --sport {one.port} --dport 443" for one in gone])
        for one in gone:
            one.ends = before
        free = [port for port in range(40000, 40000 + PORTS) if port not in self.live]
        free = self._chance.sample(free, min(len(free), 60))
        new = [Connection(self._chance.randrange(HOSTS), port) for port in free]
        new = new[: CONNECTIONS - len(self.all)]
        load(self._router, ["-I " + " ".join(one.words()) for one in new])
        after = time.time()
        for one in new:
            one.begun = after
            self.live[one.port] = one
        self.all += new


def kill(running: Piped) -> None:
    for pid in processes(running.folder):
        send_signal(pid, signal.SIGKILL)
    running.process.wait(20)
    no_orphans(running.folder)


def run(tmp_path: Path, router: Namespace, log: Path, chance: random.Random) -> list[Connection]:
    """The connections, made while the log is killed and started again and again."""
    maker = Maker(router, chance)
    began = time.monotonic()
    ends = began + SECONDS

    def start() -> Piped:
        return Piped(tmp_path, "--no-config", "--headless", "--log", log, program=inside(router), mode=())

    running = start()
    try:
        next_kill = began + chance.uniform(2.0, 5.0)
        while time.monotonic() < ends or len(maker.all) < CONNECTIONS:
            maker.turn()
            if time.monotonic() >= next_kill:
                kill(running)
                running = start()
                next_kill = time.monotonic() + chance.uniform(2.0, 8.0)
            pause = time.monotonic() + 0.2
            wait_for(lambda until=pause: time.monotonic() >= until, "the next turn")  # type: ignore[misc]
        old = time.monotonic() + 2 * SHORTEST
        running.wait(lambda: has_listed(log) and time.monotonic() > old)
        for one in maker.live.values():
            one.ends = time.time()
        running.leave()
    finally:
        running.__exit__()
    return maker.all


def has_listed(log: Path) -> bool:
    extent = past.who(str(log), Question(WAN, None, None, time.time(), INSTANT)).extent
    down = [gap for gap in extent.gaps if gap.reason == past.NOT_RUNNING]
    return bool(down) and extent.alive is not None and down[-1].until < extent.alive


class Asked:
    """All that had the server's side at a moment, by their ports, and whether that is all."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._found: dict[float, tuple[dict[int | None, set[str]], list[str]]] = {}

    def __call__(self, at: float) -> tuple[dict[int | None, set[str]], list[str]]:
        if at not in self._found:
            question = Question(WAN, None, "tcp", at, INSTANT)
            answer = past.who(str(self._log), question)
            hosts: dict[int | None, set[str]] = {}
            for flow in answer.flows:
                hosts.setdefault(flow.reply_dport, set()).add(flow.src)
            self._found[at] = hosts, past.doubts(question, answer.extent)
        return self._found[at]


@pytest.mark.parametrize("seed", [1])
def test_who_is_right_for_each_connection_at_three_moments_of_its_life(tmp_path: Path, seed: int) -> None:
    log, chance = tmp_path / "log", random.Random(seed)
    with Namespace("oracle") as router:
        made = run(tmp_path, router, log, chance)
    assert len(made) == CONNECTIONS
    ask = Asked(log)
    right, lacking, wrong = 0, 0, []
    for one in made:
        assert len(one.moments()) >= 3
        for at in one.moments():
            hosts, why = ask(at)
            who = hosts.get(one.port, set())
            right += who == {one.inside}
            lacking += not who and bool(why)
            if who != {one.inside} and (who or not why):
                wrong.append((one, at, who, why))
    assert not wrong, (len(wrong), wrong[:5])
    assert right > lacking / 5, (right, lacking)  # it is killed every few seconds
    print(f"seed {seed}: {right} right, {lacking} lacking, and that was said")
    for one in chance.sample(made, 5):
        at = one.moments()[1]
        answer = past.who(str(log), Question(WAN, one.port, "tcp", at, INSTANT))
        assert {flow.src for flow in answer.flows} == ask(at)[0].get(one.port, set())
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{round(at % 1 * 1000):03}Z"
        words = ["--no-config", "--who", f"{WAN}:{one.port}/tcp", "--at", stamp, "--log", str(log)]
        said = subprocess.run([*PROGRAM, *words], capture_output=True, text=True, check=True).stdout
        assert one.inside in said or "The log is not complete for that moment" in said
