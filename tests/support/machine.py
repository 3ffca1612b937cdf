"""A machine for somebody who types commands: this one, in a mount namespace where Docker, users and passwords are the test's.

Inside, the engine of the tests answers at the place where Docker always is, ``sudo`` is the real one, and there is a user
who has a password. Outside, nothing is changed. Needs root, sudo and an :class:`support.docker.Engine`.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import final

from support.debian import run
from support.docker import PLUGIN, Engine
from support.terminal import Terminal

USER, PASSWORD = "visitor", "MyPassword123"
UID = 61_234

# Mounts what the folder holds over what is here, then waits. Everything goes with the last process in the namespace.
ENTER = r"""
set -e
mount -t tmpfs -o mode=0755 run /run
touch /run/docker.sock
mount --bind "$SOCKET" /run/docker.sock
for name in passwd shadow group sudoers; do mount --bind "$0/$name" "/etc/$name"; done
if [ -e "$0/compose" ]; then
    mount --bind "$0/compose" /usr/bin/docker-compose
    mkdir -p "$0/upper/docker/cli-plugins" "$0/work"
    mount -t overlay -o "lowerdir=/usr/local/lib,upperdir=$0/upper,workdir=$0/work" overlay /usr/local/lib
    cp "$0/compose" /usr/local/lib/docker/cli-plugins/docker-compose
fi
echo ready
exec sleep infinity
"""


def missing_machine() -> str:
    """What it lacks here, as a sentence; "" when there can be one."""
    absent = [name for name in ("sudo", "nsenter", "unshare", "setpriv", "perl") if shutil.which(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


@final
class Machine:
    """One person on it. ``who``: root, sudo (may use sudo, with a password), or docker (in the group docker, no sudo)."""

    def __init__(self, engine: Engine, who: str, compose: str) -> None:
        self.who = who
        self.folder = Path(tempfile.mkdtemp(prefix="cm-machine-"))
        self.folder.chmod(0o755)
        self.home = self.folder / "home"
        self.home.mkdir()
        self._files(engine)
        if compose == "2":
            shutil.copy(PLUGIN, self.folder / "compose")
        words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, str(self.folder)]
        environ = {**os.environ, "SOCKET": engine.env["DOCKER_HOST"].removeprefix("unix://")}
        self._holder = subprocess.Popen(words, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"

    def _files(self, engine: Engine) -> None:
        for name in ("passwd", "shadow", "group"):
            shutil.copy(f"/etc/{name}", self.folder / name)
        (self.folder / "sudoers").write_text("Defaults timestamp_type=global\nroot ALL=(ALL) ALL\n")
        (self.folder / "sudoers").chmod(0o440)
        hashed = run("perl", "-e", "print crypt($ARGV[0], q($6$salt$))", PASSWORD)
        lines = {
            "passwd": f"{USER}:x:{UID}:{UID}::{self.home}:/bin/bash\n",
            "shadow": f"{USER}:{hashed}:20000::::::\n",
            "group": f"{USER}:x:{UID}:\n",
        }
        if self.who == "sudo":
            lines["sudoers"] = f"{USER} ALL=(ALL) ALL\n"
        for name, line in lines.items():
            with (self.folder / name).open("a") as file:
                file.write(line)
        socket = Path(engine.env["DOCKER_HOST"].removeprefix("unix://"))
        group = self.folder / "group"
        mine = USER if self.who == "docker" else ""
        others = re.sub(rf"(?m)^docker:.*\n|^.*:x:{socket.stat().st_gid}:.*\n", "", group.read_text())
        group.write_text(f"{others}docker:x:{socket.stat().st_gid or UID + 1}:{mine}\n")
        if self.who != "root":
            os.chown(self.home, UID, UID)

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self._holder.pid, signal.SIGKILL)
        self._holder.wait()
        assert self._holder.stdout is not None
        self._holder.stdout.close()
        shutil.rmtree(self.folder)

    def _words(self, line: str) -> list[str]:
        person = [] if self.who == "root" else ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--init-groups"]
        name = "root" if self.who == "root" else USER
        environ = [f"HOME={self.home}", f"USER={name}", f"LOGNAME={name}", f"PATH={os.environ['PATH']}"]
        environ += ["TERM=xterm-256color", "LANG=C.UTF-8"]
        enter = ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", *person, "env", "-i", *environ]
        return [*enter, "bash", "-c", f"cd; umask 077; {self._as_typed(line)}"]

    def _as_typed(self, line: str) -> str:
        """Who is not in the group docker puts sudo before it."""
        return re.sub(r"(?m)(^|&& )docker", r"\1sudo docker", line) if self.who == "sudo" else line

    def type(self, line: str) -> str:
        """Type a line, or several; what was printed. It must succeed."""
        return run(*self._words(line))

    def screen(self, line: str) -> Terminal:
        """Type a line that takes the terminal."""
        return Terminal(size=(160, 30), program=self._words(line))

    def unlock(self) -> None:
        """Let sudo ask nobody for a while, as it does after the first time."""
        if self.who == "sudo":
            self.type(f"echo {PASSWORD} | sudo -S -p '' -v")
