"""A Docker engine of the tests' own: private daemon, private network namespace, nothing of the machine's touched.

In the namespace ``network_mode: host`` means a connection table that the test owns. No network leads out of it: a
small proxy listens inside and connects from outside, so that ``docker build`` fetches what it does anywhere. The base
image is a fresh debootstrap (:mod:`support.debian`), imported under the name that the Dockerfile's ``ARG BASE`` takes; it alone
gets this machine's settings of apt and pip.

Needs root, dockerd, docker, debootstrap; see :func:`missing_engine`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import final

from support.debian import base, base_behind, quick_folder, run
from support.kernel import Namespace, missing
from support.waiting import wait_for

ROOT = Path(__file__).parents[2]
GATEWAY = "172.31.99.1"
NAME = "conntrack-monitor"
VOLUMES = ("conntrack-monitor_flow-log", "conntrack-monitor_geoip-data")
IMAGE = "ghcr.io/0xf00f00/conntrack-monitor:latest"
KEPT = "cm-kept:1"  # what uninstalling does not take: with the image would go what the next is built from
# Compose 2, a plugin that Debian 12 has no package of; CI fetches Debian 13's.
PLUGIN = os.environ.get("TEST_COMPOSE_PLUGIN", "")
PROGRAMS = ("dockerd", "docker", "docker-compose", "debootstrap", "nsenter")


def missing_engine() -> str:
    """What an engine lacks here, as a sentence; "" when there can be one."""
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    return missing() or (f"not installed: {', '.join(absent)}" if absent else "")


def base_name() -> str:
    """The default of the Dockerfile's ARG BASE."""
    found = re.search(r"^ARG BASE=(\S+)$", (ROOT / "Dockerfile").read_text(), re.M)
    assert found
    return found.group(1)


# --- the way out ----------------------------------------------------------------------------------


@final
class Proxy:
    """An HTTP proxy that listens in a namespace and connects from this one."""

    def __init__(self, namespace: str) -> None:
        self._listener = listen_in(namespace)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError, ValueError):
            head = b""
            while b"\r\n\r\n" not in head:
                data = client.recv(65_536)
                if not data:
                    return
                head += data
            line, _, rest = head.partition(b"\r\n")
            method, url, version = line.decode().split()
            upstream = os.environ.get("https_proxy" if method == "CONNECT" else "http_proxy", "")
            if upstream:  # this machine's own
                host, _, port = upstream.partition("://")[2].rstrip("/").rpartition("@")[2].partition(":")
                first = head
            elif method == "CONNECT":
                host, _, port = url.rpartition(":")
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                first = head.partition(b"\r\n\r\n")[2]
            else:
                place, _, path = url.partition("://")[2].partition("/")
                host, _, port = place.partition(":")
                rest = re.sub(rb"(?im)^(proxy-)?connection:.*\r\n", b"", rest)
                first = f"{method} /{path} {version}\r\nConnection: close\r\n".encode() + rest
            with socket.create_connection((host, int(port or 80)), 60) as server:
                server.sendall(first)
                self._relay(client, server)

    @staticmethod
    def _relay(client: socket.socket, server: socket.socket) -> None:
        other = {client: server, server: client}
        while True:
            for side in select.select(list(other), [], [], 120)[0] or [client]:
                data = side.recv(262_144)
                if not data:
                    return
                other[side].sendall(data)


def listen_in(namespace: str, port: int = 0) -> socket.socket:
    """A listening socket in another network namespace: only the thread that makes it goes there."""
    made: list[socket.socket] = []

    def make() -> None:
        with open(f"/run/netns/{namespace}") as there:
            assert ctypes.CDLL(None, use_errno=True).setns(there.fileno(), 0x40000000) == 0  # CLONE_NEWNET
        made.append(socket.create_server(("", port), backlog=64))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return made[0]


# --- the daemon -----------------------------------------------------------------------------------


@final
class Engine:
    """The daemon, from start to end of the block; ``env`` makes every docker command talk to it.

    ``debian`` is what :func:`support.debian.base` made.
    """

    def __init__(self, debian: Path) -> None:
        self._debian, self._ends = debian, contextlib.ExitStack()
        self.folder = self._ends.enter_context(quick_folder("engine"))
        self.namespace = Namespace("dk")
        self.env = {"DOCKER_HOST": f"unix://{self.folder}/d.sock", "DOCKER_CONFIG": str(self.folder / "config")}
        self.env |= {"COMPOSE_PROJECT_NAME": NAME, "HOME": str(self.folder)}
        self.composer = ["docker-compose", "-f", str(ROOT / "docker-compose.yml")]
        self._daemon: subprocess.Popen[bytes] | None = None
        self._proxy: Proxy | None = None

    def __enter__(self) -> Engine:
        try:
            self.namespace.create()
            self._proxy = Proxy(self.namespace.name)
            self._start()
            with base_behind(f"http://{GATEWAY}:{self._proxy.port}", self._debian, self.folder) as tar:
                self.docker("import", str(tar), base_name())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        at = self.folder
        words = [
            "nsenter",
            f"--net=/run/netns/{self.namespace.name}",
            "dockerd",
            "--config-file",
            str(at / "none.json"),
        ]
        words += ["--data-root", str(at / "data"), "--exec-root", str(at / "exec"), "-p", str(at / "d.pid")]
        words += ["-H", self.env["DOCKER_HOST"], "--iptables=false", "--ip6tables=false", "--bip", f"{GATEWAY}/24"]
        (at / "none.json").write_text("{}")
        with open(at / "dockerd.log", "wb") as log:
            self._daemon = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            wait_for(
                lambda: self._daemon_ended() or ((at / "d.sock").exists() and self._answers()), "dockerd", timeout=60
            )
            assert not self._daemon_ended()
        except Exception as error:
            raise AssertionError(f"{error}\n{(at / 'dockerd.log').read_text()[-3000:]}") from None

    def _daemon_ended(self) -> bool:
        return self._daemon is None or self._daemon.poll() is not None

    def _answers(self) -> bool:
        asked = subprocess.run(["docker", "version"], env={**os.environ, **self.env}, capture_output=True)
        return asked.returncode == 0

    def restart(self) -> None:
        """End the daemon in good order and start it again, as a reboot does."""
        assert self._daemon
        self._daemon.terminate()
        self._daemon.wait(60)
        self._start()

    def close(self) -> None:
        """End the daemon and what it started, unmount, remove; harmless at any time."""
        if self._daemon is not None:
            self._daemon.terminate()
            try:
                self._daemon.wait(40)
            except subprocess.TimeoutExpired:
                self._daemon.kill()
                self._daemon.wait()
        with contextlib.suppress(OSError, ValueError):  # left behind by a daemon that was killed
            os.kill(int((self.folder / "exec/containerd/containerd.pid").read_text()), signal.SIGKILL)
        if self._proxy:
            self._proxy.close()
        self.namespace.delete()
        self._ends.close()

    # --- what tests ask ---

    def docker(self, *words: str, check: bool = True) -> str:
        return run("docker", *words, env=self.env, check=check)

    def inspect(self, template: str, name: str = NAME) -> str:
        return self.docker("inspect", "-f", template, name, check=False).strip()

    def status(self) -> str:
        """running, exited, ...; "" when there is none."""
        text = self.inspect("{{.State.Status}}")
        return text if " " not in text else ""

    def inside(self, *words: str, check: bool = True) -> str:
        """What a command in the container printed."""
        return self.docker("exec", NAME, *words, check=check)

    def remove(self) -> None:
        """No container and no volume; the image stays."""
        self.docker("rm", "-f", "-v", NAME, check=False)
        self.docker("volume", "rm", "-f", *VOLUMES, "geoip-data", check=False)

    def log_size(self) -> int:
        """Bytes of the container's log on disk."""
        folder = self.folder / "data/containers" / self.inspect("{{.Id}}") / "local-logs"
        return sum(path.stat().st_size for path in folder.glob("*")) if folder.exists() else 0

    def add_flow(self, source: str, destination: str = "192.0.2.7") -> None:
        """An entry in the table that the container looks at; nothing is sent."""
        words = ["conntrack", "-I", "-s", source, "-d", destination, "-p", "tcp", "--sport", "4000", "--dport", "443"]
        self.namespace.run([*words, "-t", "6000", "--state", "ESTABLISHED", "-u", "ASSURED"])

    def delete_flow(self, source: str) -> None:
        self.namespace.run(["conntrack", "-D", "-s", source])

    @contextlib.contextmanager
    def plugin(self) -> Iterator[None]:
        """Compose 2 in place of 1, for the length of the block."""
        link = self.folder / "config/cli-plugins/docker-compose"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(PLUGIN)
        first, self.composer = self.composer, ["docker", "compose", *self.composer[1:]]
        try:
            yield
        finally:
            self.composer = first
            link.unlink()

    def compose(self, *words: str, env: dict[str, str] | None = None, check: bool = True) -> str:
        """Compose on the checkout's own file."""
        return run(*self.composer, *words, env={**self.env, **(env or {})}, check=check)


def main() -> None:
    """An engine to play with, until SIGTERM: prints what to put into the environment."""

    def end(*_: object) -> None:
        raise SystemExit

    signal.signal(signal.SIGTERM, end)
    with quick_folder("base") as folder, Engine(base(folder)) as engine:
        for name, value in engine.env.items():
            print(f"export {name}={value}")
        print(f"# ip netns exec {engine.namespace.name} ...", flush=True)
        started = time.monotonic()
        print(engine.docker("build", "-t", "ghcr.io/0xf00f00/conntrack-monitor:latest", str(ROOT)))
        print(f"# built in {time.monotonic() - started:.1f} s", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
