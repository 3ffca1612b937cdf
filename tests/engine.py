"""A Docker engine of the tests' own: private daemon, private network namespace, nothing of the machine's touched.

In the namespace ``network_mode: host`` means a connection table that the test owns. No network leads out of it: a
small proxy listens inside and connects from outside, so that ``docker build`` fetches what it does anywhere. The base
image is a fresh debootstrap, imported under the name that the Dockerfile's ``ARG BASE`` takes; it alone gets this
machine's settings of apt and pip. TEST_BASE=FILE keeps it as a tar file, for the next run.

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
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import final

from lab import Namespace, missing, wait_for

ROOT = Path(__file__).parent.parent
GATEWAY = "172.31.99.1"
NAME = "conntrack-monitor"
PROGRAMS = ("dockerd", "docker", "docker-compose", "debootstrap", "nsenter")
SLIM = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "var/lib/apt/lists", "var/cache/apt")


def missing_engine() -> str:
    """What an engine lacks here, as a sentence; "" when there can be one."""
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    return missing() or (f"not installed: {', '.join(absent)}" if absent else "")


def run(*argv: str, env: dict[str, str] | None = None, check: bool = True, timeout: float = 240) -> str:
    """What a command printed, both ways; AssertionError with it if it fails."""
    done = subprocess.run(
        argv,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
        text=True,
        errors="replace",
    )
    assert not check or done.returncode == 0, f"{' '.join(argv)}: exit status {done.returncode}\n{done.stdout}"
    return done.stdout


def memory_free() -> int:
    """Bytes that could be had."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.M)
    return int(found.group(1)) << 10 if found else 0


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


# --- the base image -------------------------------------------------------------------------------


def mirror() -> tuple[str, str]:
    """Where this machine's apt gets its main packages from, and the suite."""
    printed = run("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages")
    release = run("sh", "-c", ". /etc/os-release && echo $VERSION_CODENAME").strip()
    for line in printed.splitlines():
        uri, suite, component = line.split()
        if component == "main" and suite == release:
            return uri, suite
    raise AssertionError(f"apt knows no {release} main here:\n{printed}")


def make_base(tar: Path, folder: Path, proxy: str) -> None:
    """A slim Debian as a tar file, with this machine's settings of apt and pip."""
    tree = folder / "base"
    kept = os.environ.get("TEST_BASE")
    if kept and Path(kept).exists():
        tree.mkdir()
        run("tar", "-C", str(tree), "-xf", kept)
    else:
        uri, suite = mirror()
        run("debootstrap", "--variant=minbase", suite, str(tree), uri)
        for name in SLIM:
            for path in (tree / name).glob("*"):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        if kept:
            run("tar", "-C", str(tree), "-cf", kept, ".")
    (tree / "etc/dpkg/dpkg.cfg.d/slim").write_text("".join(f"path-exclude /{name}/*\n" for name in SLIM[:4]))
    (tree / "etc/dpkg/dpkg.cfg.d/fast").write_text("force-unsafe-io\n")  # as the official images have it
    _apt_settings(tree / "etc/apt", proxy)
    _pip_settings(tree / "etc", proxy)
    run("tar", "-C", str(tree), "-cf", str(tar), ".")
    shutil.rmtree(tree)


def _apt_settings(apt: Path, proxy: str) -> None:
    here = Path("/etc/apt")
    (apt / "sources.list").unlink(missing_ok=True)
    for name in ("sources.list", "sources.list.d", "trusted.gpg.d", "auth.conf.d", "keyrings"):
        if (here / name).is_dir():
            shutil.copytree(here / name, apt / name, dirs_exist_ok=True)
        elif (here / name).exists():
            shutil.copy(here / name, apt / name)
    settings = [f'Acquire::{scheme}::Proxy "{proxy}";\n' for scheme in ("http", "https")]
    for file in sorted((here / "apt.conf.d").iterdir()):
        settings += [
            line + "\n" for line in file.read_text().splitlines() if re.match(r"Acquire::(?!https?::Proxy)", line)
        ]
    (apt / "apt.conf.d/99machine").write_text("".join(settings) + 'Acquire::http::Pipeline-Depth "0";\n')


def _pip_settings(etc: Path, proxy: str) -> None:
    lines = ["[global]", f"proxy = {proxy}", "timeout = 60"]
    settings: dict[str, str] = {}
    for line in run(sys.executable, "-m", "pip", "config", "list").splitlines():
        key, _, value = line.partition("=")
        settings[key.rpartition(".")[2]] = value.strip("'\"")
    for key in ("index-url", "extra-index-url", "trusted-host"):
        places = [word for word in settings.get(key, "").replace("\\n", " ").split() if not word.startswith("file:")]
        lines += [f"{key} = {' '.join(places)}"] if places else []
    authority = settings.get("cert", "/etc/ssl/certs/ca-certificates.crt")
    if Path(authority).exists():  # not at the usual place: a package would write over it
        shutil.copy(authority, etc / "machine-authorities.pem")
        lines.append("cert = /etc/machine-authorities.pem")
    (etc / "pip.conf").write_text("\n".join(lines) + "\n")


# --- the daemon -----------------------------------------------------------------------------------


@final
class Engine:
    """The daemon, from start to end of the block; ``env`` makes every docker command talk to it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cm-engine-"))
        self.namespace = Namespace("dk")
        self.env = {"DOCKER_HOST": f"unix://{self.folder}/d.sock", "DOCKER_CONFIG": str(self.folder / "config")}
        self.env |= {"COMPOSE_PROJECT_NAME": NAME, "HOME": str(self.folder)}
        self.composer = ["docker-compose", "-f", str(ROOT / "docker-compose.yml")]
        self._daemon: subprocess.Popen[bytes] | None = None
        self._proxy: Proxy | None = None

    def __enter__(self) -> Engine:
        try:
            if memory_free() > 8 << 30:  # a third of the time on a busy disk; it takes 1.2 GB
                run("mount", "-t", "tmpfs", "-o", "size=4g", "cm-engine", str(self.folder))
            self.namespace.create()
            self._proxy = Proxy(self.namespace.name)
            self._start()
            tar = self.folder / "base.tar"
            make_base(tar, self.folder, f"http://{GATEWAY}:{self._proxy.port}")
            self.docker("import", str(tar), base_name())
            tar.unlink()
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
            wait_for(lambda: self._daemon_ended() or ((at / "d.sock").exists() and self._answers()), 60, "dockerd")
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
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((mount for mount in mounts if f"{mount}/".startswith(f"{self.folder}/")), reverse=True):
            subprocess.run(["umount", "-l", mount], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

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
        self.docker("volume", "rm", "-f", "geoip-data", check=False)

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

    def compose(self, *words: str, env: dict[str, str] | None = None, check: bool = True) -> str:
        """Compose on the checkout's own file; the plugin's where that is installed."""
        return run(*self.composer, *words, env={**self.env, **(env or {})}, check=check)


def main() -> None:
    """An engine to play with, until SIGTERM: prints what to put into the environment."""

    def end(*_: object) -> None:
        raise SystemExit

    signal.signal(signal.SIGTERM, end)
    with Engine() as engine:
        for name, value in engine.env.items():
            print(f"export {name}={value}")
        print(f"# ip netns exec {engine.namespace.name} ...", flush=True)
        started = time.monotonic()
        print(engine.docker("build", "-t", "ghcr.io/0xf00f00/conntrack-monitor:latest", str(ROOT)))
        print(f"# built in {time.monotonic() - started:.1f} s", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
