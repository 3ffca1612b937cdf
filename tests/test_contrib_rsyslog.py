"""JSON lines by rsyslog, as contrib/rsyslog has it: from a router's rsyslog to one that keeps a file a node."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from support.engines import (
    CONTRIB,
    Engine,
    answers,
    needs_engine,
    of_kernel,
    of_lines,
    recipe,
    spoken,
    traffic,
    whole_lines,
)
from support.ipfix import free_port
from support.kernel import Lab, kernel_mark, listeners, stop_process
from support.terminal import PROGRAM
from support.waiting import wait_for

pytestmark = needs_engine("rsyslogd")
README = (CONTRIB / "rsyslog" / "README.md").read_text(encoding="utf-8")
BY = pytest.mark.parametrize("way", ["tcp", "relp"])


class Road:
    """A router's rsyslog and the collector, by the files of contrib with other ports and folders."""

    def __init__(self, folder: Path, way: str, changes: dict[str, str]) -> None:
        self.kept = folder / "kept"
        self.kept.mkdir()
        self.port, self.relp, self.tcp = (free_port(socket.SOCK_STREAM) for _ in range(3))
        there = {"2514": self.relp} if way == "relp" else {"5141": self.tcp}
        ports = {f'port="{before}"': f'port="{now}"' for before, now in {"5140": self.port, **there}.items()}
        host = {"collector.example.net": "127.0.0.1", 'action.resumeInterval="5"': 'action.resumeInterval="1"'}
        self.router = self._rsyslog(folder / "router", f"router-{way}", ports | host | changes, [self.port])
        ports = {f'port="{before}"': f'port="{now}"' for before, now in {"2514": self.relp, "5141": self.tcp}.items()}
        kept = {"/var/log/conntrack/%": f"{self.kept}/%"}
        self.collector = self._rsyslog(folder / "collector", "collector", ports | kept, [self.relp, self.tcp])

    @staticmethod
    def _rsyslog(folder: Path, name: str, changes: dict[str, str], ports: list[int]) -> Engine:
        folder.mkdir()
        text = f'global(workDirectory="{folder}")\n' + recipe(f"rsyslog/{name}.conf", changes)
        (folder / "conf").write_text(text)
        argv = ("rsyslogd", "-n", "-f", folder / "conf", "-i", folder / "pid")
        return Engine(argv, lambda: all(map(answers, ports)), folder / "said")

    def lines(self) -> list[bytes]:
        return whole_lines(self.kept.glob("*.json"))

    def send(self, lines: list[bytes]) -> None:
        """As the program does, whose output the connection is."""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(b"".join(lines))

    def wait_lines(self, number: int) -> None:
        wait_for(lambda: len(self.lines()) >= number, lambda: f"{len(self.lines())} of {number} lines")

    @staticmethod
    def waiting(port: int) -> list[int]:
        """Bytes unread in each connection that came to a port and has not been closed there: proc_net(5), rx_queue."""
        rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        mine = [row for row in rows if row[1].endswith(f":{port:04X}") and row[3] in ("01", "08")]
        return [int(row[4].partition(":")[2], 16) for row in mine]


@contextmanager
def road(folder: Path, way: str, changes: dict[str, str] | None = None) -> Iterator[Road]:
    made = Road(folder, way, changes or {})
    with ExitStack() as ends:
        ends.enter_context(made.collector)
        ends.enter_context(made.router)
        yield made


def numbered(first: int, after: int, node: str = "r7") -> list[bytes]:
    """Lines of a flow's length that can be told apart."""
    return [b'{"node":"%b","time":"%d","event":"%b"}\n' % (node.encode(), n, b"x" * 380) for n in range(first, after)]


@kernel_mark()
@BY
def test_a_router_s_flows_arrive_as_they_were_printed(tmp_path: Path, way: str) -> None:
    """By the command of the recipe; and what was stored is a stream of the program again."""
    command = re.search(r"^    bash -c '(.*) >/dev/tcp/127\.0\.0\.1/5140'$", README, re.M)
    assert command
    words = command[1].split()
    assert words[:2] == ["exec", "conntrack-monitor"]
    with Lab() as lab, road(tmp_path, way) as its:
        argv = [*PROGRAM, *words[2:], "--no-config", "--via", lab.router.via]
        copy = tmp_path / "printed"
        script = f'exec "$@" > >(exec tee {copy} >/dev/tcp/127.0.0.1/{its.port})'
        with subprocess.Popen(["bash", "-c", script, "bash", *argv], stderr=subprocess.PIPE) as running:
            wait_for(lambda: listeners(lab.router))
            traffic(lab)
            kernel = of_kernel(lab)
            lab.router.run(["conntrack", "-F"])
            wait_for(lambda: of_lines(its.lines()) == kernel, lambda: (of_lines(its.lines()), kernel))
            stop_process(running)
        assert len(kernel) > 25
        wait_for(lambda: its.lines() == whole_lines([copy]))
        assert [path.name for path in its.kept.iterdir()] == ["r7.json"]
        stored = its.kept / "r7.json"
        assert spoken("--replay", stored, "--json", folder=tmp_path) == stored.read_bytes()


@BY
def test_the_longest_line_arrives_whole(tmp_path: Path, way: str) -> None:
    """conntrack's has at most 65,536 bytes. As JSON a byte of it takes up to 4, where it is a control character beside another."""
    flow = "[1795386413.786793]\t    [NEW] ipv4     2 tcp      6 120 SYN_SENT src=10.1.0.2 dst=203.0.113.2 sport=53766 dport=80"
    flow += " [UNREPLIED] src=203.0.113.2 dst=203.0.113.1 sport=80 dport=53766 mark=0 secctx={} use=1 id=208240208\n"
    room = 65_536 - len(flow)
    texts = (flow.format("x" * room), flow.format("é" * (room // 2)), flow.format('"\x07' * (room // 2)))
    node = "n" * 250  # with .json a file's name has 255
    printed = spoken("--replay", "-", "--json", "--node", node, given="".join(texts).encode(), folder=tmp_path)
    lines = printed.splitlines(keepends=True)
    assert [round(len(line) / 65_536) for line in lines] == [1, 3, 4]
    with road(tmp_path, way) as its:
        its.send(lines)
        its.wait_lines(3)
        assert its.lines() == lines
        assert [path.name for path in its.kept.iterdir()] == [f"{node}.json"]


@BY
def test_each_node_has_a_file_whatever_its_name_is(tmp_path: Path, way: str) -> None:
    names = ["r1", "r2", "../r3", "..", "a b", "r\\u00e9"]
    lines = [line for number in range(50) for name in names for line in numbered(number, number + 1, name)]
    foreign = b"<13>Nov  5 00:00:00 host su: no line of ours\n"
    with road(tmp_path, way) as its:
        its.send([foreign, *lines])
        its.wait_lines(len(lines))
        found = {path.name: whole_lines([path]) for path in its.kept.iterdir()}
    assert found.keys() == {"r1.json", "r2.json", ".._r3.json", "_..json", "a b.json", "r\\u00e9.json"}
    assert found["r2.json"] == [line for line in lines if line.startswith(b'{"node":"r2"')]
    assert sum(map(len, found.values())) == len(lines)


@BY
def test_a_collector_that_is_killed_with_lines_in_its_socket(tmp_path: Path, way: str) -> None:
    """They are lost by TCP, whose sender can't know; by RELP they are sent again. Nothing else is, and no line is cut."""
    first, second, third = numbered(0, 500), numbered(500, 1000), numbered(1000, 1500)
    with road(tmp_path, way) as its:
        its.send(first)
        its.wait_lines(500)
        its.collector.process.send_signal(signal.SIGSTOP)
        its.send(second)
        much, port = (len(b"".join(second)), its.tcp) if way == "tcp" else (1000, its.relp)
        wait_for(lambda: sum(its.waiting(port)) > much, lambda: its.waiting(port))
        its.collector.stop(signal.SIGKILL)
        its.collector.start()
        its.send(third)
        wait_for(lambda: third[-1] in its.lines())
        wait_for(lambda: way == "tcp" or set(second) <= set(its.lines()))
        stored = its.lines()
    assert set(first) | set(third) <= set(stored) <= {*first, *second, *third}
    assert (set(second) <= set(stored)) == (way == "relp")


@BY
def test_lines_wait_on_the_router_s_disk_for_a_collector(tmp_path: Path, way: str) -> None:
    """More than its memory takes, and over a restart of the router's rsyslog."""
    lines = numbered(0, 3000)
    small = {
        **{'queue.size="100000"': 'queue.size="1000"', 'highWatermark="50000"': 'highWatermark="500"'},
        **{'lowWatermark="20000"': 'lowWatermark="200"', 'dequeueBatchSize="1024"': 'dequeueBatchSize="32"'},
    }
    its = Road(tmp_path, way, small)
    with its.router:
        its.send(lines)
        wait_for(lambda: not its.waiting(its.port), lambda: its.waiting(its.port))
        its.router.stop()
        stored = b"".join(path.read_bytes() for path in (tmp_path / "router").glob("conntrack-monitor.0*"))
        assert stored.count(b'{"node":"r7"') >= len(lines)
        its.router.start()
        with its.collector:
            wait_for(lambda: set(its.lines()) == set(lines), lambda: len(its.lines()))
