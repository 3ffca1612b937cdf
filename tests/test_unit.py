"""The systemd unit in contrib: what it says, and what becomes of it as an unprivileged user and in a real systemd."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from support.debian import run
from support.kernel import (
    LabError,
    Namespace,
    conntrack_children,
    insert,
    listens_to_events,
    needs_kernel,
    receive_buffer,
    stop_process,
)
from support.systemd import Systemd, missing_systemd
from support.terminal import ROOT
from support.waiting import wait_for

UNIT = ROOT / "contrib" / "conntrack-monitor.service"
METRICS_TOO = ROOT / "contrib" / "prometheus" / "metrics.conf"
UID = 61_235  # nobody's
NET_ADMIN = f"{1 << 12:016x}"
ROOM = 8 << 20  # bytes: what its socket for events has at least
LOG = "/var/lib/conntrack-monitor/log"
ANALYZE = shutil.which("systemd-analyze")
with_systemd = pytest.mark.skipif(
    bool(missing_systemd()) and os.environ.get("CI") != "true", reason=missing_systemd() or "no reason"
)


def settings(text: str) -> dict[str, list[str]]:
    """Each setting of the unit with all that is said of it."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", text, re.M):
        found.setdefault(name, []).append(value)
    return found


SAID = settings(UNIT.read_text(encoding="utf-8"))


def asked(folder: Path, words: str) -> list[tuple[object, ...]]:
    """What a query finds in a log, of a file that says nothing yet nothing."""
    found: list[tuple[object, ...]] = []
    for file in folder.glob("flows-*.db"):
        with suppress(sqlite3.OperationalError), closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
            found += db.execute(words)
    return found


def closed_flow(namespace: Namespace, address: str) -> None:
    """A flow that begins and ends; nothing is sent."""
    insert(namespace, src="10.1.2.3", dst=address, protocol="udp", sport=4000, dport=53, timeout=300)
    namespace.run(["conntrack", "-D", "-d", address])


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user can look into, as pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="cm-unit-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


# --- what it says -----------------------------------------------------------------------------------------------------


def test_its_one_right_and_its_own_folder() -> None:
    for name in ("CapabilityBoundingSet", "AmbientCapabilities"):
        assert SAID[name] == ["CAP_NET_ADMIN"]
    assert SAID["DynamicUser"] == SAID["NoNewPrivileges"] == SAID["MemoryDenyWriteExecute"] == ["yes"]
    assert SAID["ProtectSystem"] == ["strict"]
    assert SAID["Restart"] == ["on-failure"]
    assert (SAID["StateDirectory"], SAID["StateDirectoryMode"]) == (["conntrack-monitor"], ["0700"])
    assert SAID["SystemCallFilter"][0].split() == ["@system-service", "pidfd_getfd"]


@pytest.mark.skipif(ANALYZE is None and os.environ.get("CI") != "true", reason="not installed: systemd")
def test_systemd_knows_every_setting_and_finds_little_exposed(place: Path) -> None:
    copy = place / UNIT.name
    copy.write_text(UNIT.read_text().replace("ExecStart=/usr/local/bin/conntrack-monitor", "ExecStart=/bin/true"))
    assert run("systemd-analyze", "verify", str(copy)).strip() == ""
    said = run("systemd-analyze", "security", "--offline=yes", "--threshold=15", "--no-pager", str(copy))  # of 100
    assert "Overall exposure level" in said


# --- as its user ------------------------------------------------------------------------------------------------------


def as_its_user(command: list[str]) -> list[str]:
    """The command with the user's rights that the unit gives, and no others."""
    only = "-all,+net_admin"
    rights = [f"--inh-caps={only}", f"--ambient-caps={only}", f"--bounding-set={only}"]
    return ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", *rights, "--no-new-privs", *command]


def started(place: Path, pyz: Path, namespace: Namespace) -> subprocess.Popen[bytes]:
    """What ExecStart says, with the one file from here and a state directory from here."""
    program, state = place / "conntrack-monitor", place / "state" / "conntrack-monitor"
    shutil.copy(pyz, program)
    program.chmod(0o755)
    state.mkdir(parents=True)
    os.chown(state, UID, UID)
    (line,) = SAID["ExecStart"]
    words = shlex.split(line.replace("%S", str(state.parent)))
    assert words[0] == "/usr/local/bin/conntrack-monitor"
    environ = dict(word.partition("=")[::2] for said in SAID["Environment"] for word in said.split())
    environ |= {"XDG_CONFIG_HOME": "/nonexistent", "XDG_CACHE_HOME": str(state)}
    with open(place / "said", "wb") as said:
        return subprocess.Popen(
            [*namespace.prefix, *as_its_user([str(program), *words[1:]])],
            env={"PATH": os.environ["PATH"], **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )


@needs_kernel
def test_events_come_and_the_log_is_whole_with_that_right_alone(place: Path, pyz: Path) -> None:
    folder = place / "state/conntrack-monitor/log"
    with Namespace("u") as namespace:
        process = started(place, pyz, namespace)
        try:
            wait_for(lambda: any(map(listens_to_events, conntrack_children(process.pid, "-E"))), "a listener")
            (listener,) = conntrack_children(process.pid, "-E")
            wait_for(lambda: receive_buffer(listener) > ROOM, "room for bursts")  # SO_RCVBUFFORCE, by pidfd_getfd
            for pid in (process.pid, listener):
                facts = Path(f"/proc/{pid}/status").read_text()
                assert set(re.findall(r"^Cap\w+:\s+(\w+)$", facts, re.M)) == {NET_ADMIN}
                assert re.search(rf"^Uid:\s+{UID}\s", facts, re.M)
            closed_flow(namespace, "192.0.2.7")
            insert(namespace, src="10.1.2.3", dst="192.0.2.8", protocol="udp", sport=4000, dport=53, timeout=300)
            flows = "SELECT dst, reason FROM flow_log"
            wait_for(lambda: asked(folder, flows) == [("192.0.2.7", "destroy")], (place / "said").read_text)
        finally:
            status = stop_process(process, signal.SIGTERM)
    assert status == 0, (place / "said").read_text()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert sorted(asked(folder, flows)) == [("192.0.2.7", "destroy"), ("192.0.2.8", "open")]
    assert asked(folder, "PRAGMA integrity_check") == [("ok",)]


@needs_kernel
def test_json_and_once_work_with_that_right_alone(place: Path, pyz: Path) -> None:
    program = place / "conntrack-monitor"
    shutil.copy(pyz, program)
    program.chmod(0o755)
    environ = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"}
    with Namespace("uj") as namespace:
        insert(namespace, src="10.1.2.3", dst="192.0.2.8", protocol="udp", sport=4000, dport=53, timeout=300)

        def command(*words: str) -> list[str]:
            return [*namespace.prefix, *as_its_user([str(program), "--no-config", "--no-download", *words])]

        once = subprocess.run(command("--once"), env=environ, capture_output=True, text=True, check=False)
        assert (once.returncode, "192.0.2.8" in once.stdout) == (0, True), once.stderr
        with open(place / "events", "wb") as events:
            stream = subprocess.Popen(command("--json"), env=environ, stdin=subprocess.DEVNULL, stdout=events)
        try:
            read = (place / "events").read_text
            wait_for(lambda: '"event": "list"' in read() or '"event":"list"' in read(), read)
            wait_for(lambda: any(map(listens_to_events, conntrack_children(stream.pid, "-E"))), "a listener")
            closed_flow(namespace, "192.0.2.7")
            wait_for(lambda: re.search(r'"event": ?"destroy".*192\.0\.2\.7', read()), read)
        finally:
            assert stop_process(stream, signal.SIGTERM) == 0


# --- in a real systemd ------------------------------------------------------------------------------------------------


class Service:
    """The unit in a systemd, installed as docs/log.md says."""

    def __init__(self, systemd: Systemd, namespace: Namespace, pyz: Path) -> None:
        self._systemd, self._namespace, self.type = systemd, namespace, systemd.type
        systemd.put("/usr/local/bin/conntrack-monitor", pyz, 0o755)
        systemd.put("/etc/systemd/system/conntrack-monitor.service", UNIT, 0o644)
        self.type("systemctl daemon-reload && systemctl start conntrack-monitor")

    def put(self, path: str, source: Path) -> None:
        self.type(f"mkdir -p {os.path.dirname(path)}")
        self._systemd.put(path, source, 0o644)

    def fact(self, name: str) -> str:
        return self.type(f"systemctl show -p {name} --value conntrack-monitor").strip()

    def logged(self, words: str) -> list[str]:
        """What a query finds, a row a line."""
        query = f'for f in {LOG}/flows-*.db; do sqlite3 -readonly "$f" "{words}"; done'
        return self.type(query, check=False).split("\n")

    def waits_for(self, flow: str) -> None:
        words = "SELECT dst || ' ' || reason FROM flow_log"
        wait_for(lambda: flow in self.logged(words), lambda: self.type("journalctl --no-pager -o cat"))

    def listener(self) -> str:
        """The status of its listener, once that has room for bursts: what the filter of calls must let through; else ""."""
        there = self._namespace.run(["ip", "netns", "pids", self._namespace.name]).stdout.split()
        return next(filter(None, map(with_room, there)), "")


def with_room(pid: str) -> str:
    """The status of a process that listens to events with a buffer that was widened; else ""."""
    with suppress(OSError, LabError):  # it has ended
        if "\0-E\0" in Path(f"/proc/{pid}/cmdline").read_text() and receive_buffer(int(pid)) > ROOM:
            return Path(f"/proc/{pid}/status").read_text()
    return ""


@pytest.fixture
def service(pyz: Path) -> Iterator[tuple[Service, Namespace]]:
    with Namespace("sd") as namespace, Systemd(namespace) as systemd:
        yield Service(systemd, namespace, pyz), namespace


@with_systemd
def test_it_runs_in_its_cage(service: tuple[Service, Namespace]) -> None:
    unit, namespace = service
    status = wait_for(unit.listener, lambda: unit.type("journalctl --no-pager -o cat"))
    assert set(re.findall(r"^Cap(?:Prm|Eff|Bnd|Amb):\s+(\w+)$", status, re.M)) == {NET_ADMIN}
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.M)
    assert re.search(r"^Seccomp:\s+2$", status, re.M)
    closed_flow(namespace, "192.0.2.7")
    unit.waits_for("192.0.2.7 destroy")
    assert "192.0.2.7:53" in unit.type(f"conntrack-monitor --who 10.1.2.3 --at $(date +%H:%M) --log {LOG}")
    assert unit.type(f"stat -c %a {LOG}").strip() == "700"
    assert unit.type("ls /var/cache/conntrack-monitor/conntrack-monitor/code").strip()  # the second start is quick


@with_systemd
def test_beside_its_log_it_writes_metrics_that_others_may_read(service: tuple[Service, Namespace]) -> None:
    """The file that is put beside the unit: everybody can read what it writes, while it runs."""
    unit, _namespace = service
    unit.put("/etc/systemd/system/conntrack-monitor.service.d/metrics.conf", METRICS_TOO)
    unit.type("systemctl daemon-reload && systemctl restart conntrack-monitor")
    look = "setpriv --reuid=65534 --regid=65534 --clear-groups cat /run/conntrack-monitor/conntrack.prom"
    up = re.compile(r'^conntrack_monitor_up\{node="[^"]+"\} 1$', re.M)
    wait_for(lambda: up.search(unit.type(look, check=False)), lambda: unit.type("journalctl --no-pager -o cat"))
    unit.type("systemctl stop conntrack-monitor")
    assert "conntrack_monitor" not in unit.type(look, check=False)


@with_systemd
def test_a_crash_is_a_gap_and_a_stop_is_none(service: tuple[Service, Namespace]) -> None:
    unit, namespace = service
    wait_for(unit.listener, lambda: unit.type("journalctl --no-pager -o cat"))
    closed_flow(namespace, "192.0.2.7")
    unit.waits_for("192.0.2.7 destroy")
    first = unit.fact("MainPID")
    unit.type(f"kill -KILL {first}")
    wait_for(lambda: unit.fact("MainPID") not in ("0", first) and unit.listener(), "the new start")
    closed_flow(namespace, "192.0.2.8")
    insert(namespace, src="10.1.2.3", dst="192.0.2.9", protocol="udp", sport=4000, dport=53, timeout=300)
    unit.waits_for("192.0.2.8 destroy")
    assert "not running" in unit.logged("SELECT reason FROM gap_log")
    unit.type("systemctl stop conntrack-monitor")
    facts = [unit.fact(name) for name in ("ActiveState", "Result", "ExecMainStatus")]
    assert facts == ["inactive", "success", "0"]
    unit.waits_for("192.0.2.9 open")
    assert "events stopped" not in unit.logged("SELECT reason FROM gap_log")  # though conntrack was told to end, too
