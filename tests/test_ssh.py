"""Another machine by ssh, for real: sshd in the router's namespace, with nothing but conntrack behind it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.kernel import Lab, comparable, conntrack_xml, kernel_mark, send_signal, stop_process
from support.terminal import PROGRAM, Terminal
from support.waiting import wait_for

PROGRAMS = ("sshd", "ssh", "ssh-keygen")
ABSENT = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
pytestmark = [
    kernel_mark(),
    pytest.mark.skipif(bool(ABSENT) and os.environ.get("CI") != "true", reason=f"not installed: {', '.join(ABSENT)}"),
]

SERVER = """
ListenAddress {address}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
PasswordAuthentication yes
KbdInteractiveAuthentication no
SetEnv HOME={folder}
ForceCommand exec chroot {tree} sh -c "$SSH_ORIGINAL_COMMAND"
"""
CLIENT = """
Host router
  IdentityFile {folder}/user
  IdentitiesOnly yes
Host keyless
  IdentityFile {folder}/none
  IdentitiesOnly yes
Host stranger
  IdentityFile {folder}/user
  UserKnownHostsFile {folder}/none
Host shared
  IdentityFile {folder}/user
  IdentitiesOnly yes
  ControlMaster auto
  ControlPath /tmp/cm-ssh-{pid}
  ControlPersist 60
Host *
  HostName {address}
  User root
  UserKnownHostsFile {folder}/known
  StrictHostKeyChecking yes
  ConnectTimeout 2
"""

AWAY = """
table inet away { chain inwards { type filter hook input priority -300; tcp dport 22 drop; }; }
table inet mute { chain outwards { type filter hook output priority -300; tcp sport 22 tcp flags fin,rst drop; }; }
"""


class Sshd:
    """sshd on the router; what it runs finds itself in the bare Debian.

    HOME has no .bashrc: bash reads it for each command that sshd runs, and where it starts pyenv, seven logins wait for
    the lock of one, up to 60 s each.
    """

    def __init__(self, lab: Lab, folder: Path, tree: Path) -> None:
        self.lab, self.folder, self.tree = lab, folder, tree
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        (folder / "known").write_text(f"{lab.ROUTER} {(folder / 'host.pub').read_text()}")
        (folder / "sshd").write_text(SERVER.format(address=lab.ROUTER, folder=folder, tree=tree))
        (folder / "ssh").write_text(CLIENT.format(address=lab.ROUTER, folder=folder, pid=os.getpid()))
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd jails itself; a service makes it elsewhere
        self.start()

    def via(self, host: str = "router") -> str:
        return f"ssh -F {self.folder}/ssh {host}"

    def start(self) -> None:
        program = shutil.which("sshd", path="/usr/sbin:/usr/bin")
        command = f'mount -t proc proc {self.tree}/proc; exec {program} -D -e -f "$0"'
        self.process = self.lab.router.popen(
            ["sh", "-c", command, str(self.folder / "sshd")], stderr=subprocess.DEVNULL
        )
        wait_for(lambda: ":22 " in self.lab.router.run(["ss", "-Hltn"]).stdout, what="sshd")

    def stop(self) -> None:
        """End it and all its connections."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        stop_process(self.process)
        for pid in map(int, children):
            send_signal(pid, signal.SIGKILL)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


@pytest.fixture
def sshd(lab: Lab, tmp_path: Path, minbase: Path) -> Sshd:
    return Sshd(lab, tmp_path, minbase)


@pytest.fixture
def here(lab: Lab) -> list[str]:
    """The words that run the program on the client, which reaches the router by network only."""
    ip, *words = lab.client.prefix
    return [shutil.which(ip) or ip, *words, *PROGRAM]


def test_once_is_the_far_kernels_table(lab: Lab, sshd: Sshd, here: list[str]) -> None:
    lab.echo_server(80)
    with lab.tcp_connect(80):
        lab.udp_unanswered(53, flows=3)
        argv = [*here, "--once", "--json", "--via", sshd.via(), "-f", "!port:22"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        found = [comparable(json.loads(line)) for line in done.stdout.splitlines()]
        names = ("original", "reply", "protocol", "state")
        kernel = [flow for flow in conntrack_xml(lab.router) if flow["original"]["dport"] != 22]
        assert len(kernel) == 4
        shown, there = ([{name: flow.get(name) for name in names} for flow in flows] for flows in (found, kernel))
        assert sorted(map(str, shown)) == sorted(map(str, there))


def test_a_connection_that_drops_is_said_and_comes_back(lab: Lab, sshd: Sshd, here: list[str]) -> None:
    lab.echo_server(80)
    with lab.tcp_connect(80) as first, Terminal("--via", sshd.via(), "--interval", "1", program=here) as screen:
        screen.wait(lambda: f":{first.port}" in screen.text)
        sshd.stop()
        screen.wait("listing stopped: ssh: ")
        assert f":{first.port}" in screen.text  # the last table stays on show
        sshd.start()
        with lab.tcp_connect(80) as second:
            screen.wait(lambda: f":{second.port}" in screen.text and "stopped" not in screen.text)
        screen.type("q")
        assert screen.end() == 0


def test_events_come_back_after_a_connection_that_nobody_closed(
    lab: Lab, sshd: Sshd, here: list[str], tmp_path: Path
) -> None:
    """The router is gone and comes back as another: the old connection of the events would stay silent for ever."""
    lab.echo_server(80)
    out, err = tmp_path / "out", tmp_path / "err"
    with open(out, "wb") as stdout, open(err, "wb") as stderr:
        argv = [*here, "--json", "--via", sshd.via(), "--interval", "0.5", "-f", "dport:80"]
        program = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)

    def events(port: int) -> list[str]:
        items = [json.loads(line) for line in out.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return [item["event"] for item in items if item["original"]["sport"] == port]

    def is_told() -> bool:
        """A connection made now comes as an event, not out of a listing."""
        with lab.tcp_connect(80) as connection:
            wait_for(lambda: events(connection.port), what="the connection in the stream")
            return events(connection.port)[0] == "new"

    try:
        wait_for(is_told, what="events")
        # As after a reboot, nobody there knows of the connection or says farewell.
        lab.router.nft(AWAY)
        sshd.stop()
        wait_for(lambda: "ssh: connect to host" in err.read_text(), what="the failing listing")
        sshd.start()
        lab.router.nft("delete table inet away")
        wait_for(is_told, what="events again")
    finally:
        program.terminate()
        assert program.wait(20) == 0


def test_one_login_serves_all(lab: Lab, sshd: Sshd, here: list[str]) -> None:
    """The ssh that stays behind for the others holds their standard error open: nobody waits for its end."""

    def logins() -> int:
        return sum(flow["original"].get("dport") == 22 for flow in lab.table())

    lab.echo_server(80)
    with Terminal("--via", sshd.via("shared"), program=here) as screen:
        with lab.tcp_connect(80) as connection:
            screen.wait(lambda: f":{connection.port}" in screen.text)
        screen.type("q")
        assert screen.end() == 0
    before = logins()
    done = subprocess.run([*here, "--once", "--via", sshd.via("shared")], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert logins() == before > 0
    lab.client.run([*sshd.via("shared").split()[:-1], "-O", "exit", "shared"], check=False)


@pytest.mark.parametrize("host", ["keyless", "stranger"])
def test_a_question_of_ssh_ends_in_words(host: str, sshd: Sshd, here: list[str]) -> None:
    """A password, a host key: ssh has no terminal to ask at, though the program has one."""
    for mode in (["--once"], ["--json"]):
        with Terminal(*mode, "--via", sshd.via(host), program=here, size=(200, 24)) as screen:
            assert screen.end() == 3
            assert "ssh login failed: it can't ask for a password here; try: ssh-copy-id" in screen.text
    with Terminal("--via", sshd.via(host), program=here) as screen:
        screen.wait("ssh login failed")
        screen.type("q")  # the keys are ours
        assert screen.end() == 3


def test_docker_exec_gets_the_words_as_they_are(lab: Lab, tmp_path: Path) -> None:
    """A docker that goes where a container would be."""
    stand_in = tmp_path / "docker"
    stand_in.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/said\n[ "$1 $2" = "exec fw" ] && shift 2\nexec {lab.router.via} "$@"\n'
    )
    stand_in.chmod(0o755)
    lab.udp_unanswered(53)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    argv = [*PROGRAM, "--once", "--json", "--via", "docker exec fw"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=True)
    assert [json.loads(line)["original"]["dport"] for line in done.stdout.splitlines()] == [53]
    assert "exec fw conntrack -L -o extended,id" in (tmp_path / "said").read_text().splitlines()
