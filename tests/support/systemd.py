"""A systemd of the tests' own: process 1 of namespaces, over a copy of this machine's files that goes with it.

It sees this machine's programs, starts none of its services, and has a network namespace of the test's. Needs root and systemd;
see :func:`missing_systemd`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import final

from support.debian import run
from support.kernel import Namespace, missing
from support.waiting import wait_for

SYSTEMD = Path("/lib/systemd/systemd")
NOTHING = "cm-nothing.target"

# $0 is a folder, $1 a target of nothing. The first shell makes the group of processes, the second what is seen inside.
ENTER = r"""
set -e
mkdir "$0/groups"
mount -t cgroup2 groups "$0/groups"
mkdir -p "$0/groups/$(basename "$0")"
echo $$ >"$0/groups/$(basename "$0")/cgroup.procs"
exec unshare --cgroup --mount --pid --uts --ipc --fork --propagation private bash -c "$BOOT" "$0" "$1"
"""
BOOT = r"""
set -e
top=$0/top
mkdir "$top"
mount -t tmpfs top "$top"
mkdir "$top"/{upper,work,root}
mount -t overlay -o "lowerdir=/,upperdir=$top/upper,workdir=$top/work" overlay "$top/root"
cd "$top/root"
mount -t tmpfs -o mode=0755 run run
mount -t tmpfs -o mode=1777 tmp tmp
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 groups sys/fs/cgroup
mount -t tmpfs -o mode=0755 dev dev
for name in null zero full random urandom tty; do touch dev/$name; mount --bind /dev/$name dev/$name; done
ln -s /proc/self/fd dev/fd
ln -s pts/ptmx dev/ptmx
rm -rf etc/systemd/system/*
printf '[Unit]\nDescription=Nothing\n' >"etc/systemd/system/$1"
: >etc/machine-id
hostname router
pivot_root . mnt
umount -l /mnt
exec env -i container=test PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd \
    --system "--unit=$1" --log-target=null --show-status=no
"""


def missing_systemd() -> str:
    """What is lacking here, as a sentence; "" when there can be one."""
    return missing() or ("" if SYSTEMD.exists() and shutil.which("unshare") else "not installed: systemd")


@final
class Systemd:
    """It runs until the end of the block; the namespace is whose connection table services see."""

    def __init__(self, namespace: Namespace) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="cm-systemd-"))
        words = ["unshare", "--mount", "--propagation", "private", "bash", "-c", ENTER, str(self._folder), NOTHING]
        self._log = open(self._folder / "said", "w+b")  # noqa: SIM115  closed with the rest
        self._holder = subprocess.Popen(
            [*namespace.prefix, *words],
            env={**os.environ, "BOOT": BOOT},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        self._groups = ""
        self.pid = 0

    def __enter__(self) -> Systemd:
        try:
            self.pid = wait_for(self._booted, lambda: (self._folder / "said").read_text())
            wait_for(lambda: NOTHING in self.type("systemctl list-units --state=active", check=False), what="systemd")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _booted(self) -> int:
        """The number that its process 1 has here."""
        assert self._holder.poll() is None, (self._folder / "said").read_text()
        text = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children").read_text()
        for pid in map(int, text.split()):
            if Path(f"/proc/{pid}/comm").read_text() == "systemd\n":
                return pid
        return 0

    def type(self, line: str, check: bool = True) -> str:
        """What a line of shell printed that root typed in there."""
        words = ["nsenter", f"--target={self.pid}", *(f"--{name}" for name in ("mount", "pid", "net", "uts", "ipc"))]
        return run(
            *words,
            "--cgroup",
            "env",
            "-i",
            "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "bash",
            "-c",
            line,
            check=check,
        )

    def put(self, path: str, source: Path, mode: int) -> None:
        """Copy a file of here to a path of there."""
        target = Path(f"/proc/{self.pid}/root{path}")
        target.write_bytes(source.read_bytes())
        target.chmod(mode)

    def close(self) -> None:
        """End it with all that it started; harmless at any time."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)  # with process 1 goes all that is in its namespace
        else:
            self._holder.kill()
        self._holder.wait(20)
        self._log.close()
        remove_group(self._folder.name)
        shutil.rmtree(self._folder)


def remove_group(name: str) -> None:
    """Remove a group of processes, and those in it: empty ones, as their processes have ended."""
    words = 'mount -t cgroup2 groups "$0" && find "$0/$1" -depth -type d -exec rmdir {} + 2>/dev/null; umount "$0"'
    with tempfile.TemporaryDirectory(prefix="cm-groups-") as folder:
        run("unshare", "--mount", "--propagation", "private", "sh", "-c", words, folder, name, check=False)
