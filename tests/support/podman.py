"""Podman with a store and a network namespace of the tests' own: what it runs with ``--network host`` sees that one.

As in :mod:`support.docker`, no network leads out of the namespace but by a small proxy, and the base image is a fresh
debootstrap. Needs root, podman, runc, debootstrap; see :func:`missing_podman`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import final

from support.debian import base_behind, quick_folder, run
from support.docker import Proxy, base_name
from support.kernel import Namespace, missing

PROGRAMS = ("podman", "runc", "debootstrap", "nsenter", "setpriv")
SOMEBODY = 65_534  # nobody: a user without rights, whom every machine has

# The limits: what a container inherits where nobody may raise them. runc: crun wants one kind of control groups only.
CONTAINERS = """\
[containers]
netns = "host"
default_ulimits = ["nofile=1024:4096", "nproc=1024:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "{at}/tmp"
"""
STORAGE = '[storage]\ndriver = "{driver}"\ngraphroot = "{at}/images"\nrunroot = "{at}/run"\n'


def missing_podman() -> str:
    """What it lacks here, as a sentence; "" when there can be one."""
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    return missing() or (f"not installed: {', '.join(absent)}" if absent else "")


@final
class Podman:
    """Root's, from start to end of the block, and a user's; ``env`` makes every podman command use root's store."""

    def __init__(self, debian: Path) -> None:
        self._debian, self._ends = debian, contextlib.ExitStack()
        self.folder = self._ends.enter_context(quick_folder("podman"))
        self.folder.chmod(0o755)
        self.namespace = Namespace("pm")
        self.env = self._settings(self.folder / "root", "overlay")
        self._proxy: Proxy | None = None

    def _settings(self, at: Path, driver: str) -> dict[str, str]:
        at.mkdir()
        (at / "containers.conf").write_text(CONTAINERS.format(at=at))
        (at / "storage.conf").write_text(STORAGE.format(at=at, driver=driver))
        return {
            "CONTAINERS_CONF": str(at / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(at / "storage.conf"),
            "HOME": str(at),
            "XDG_RUNTIME_DIR": str(at),
        }

    def __enter__(self) -> Podman:
        try:
            self.namespace.create()
            # A host has an interface that leads to no other namespace.
            self.namespace.run(["ip", "link", "add", "lan", "type", "bridge"])
            self._proxy = Proxy(self.namespace.name)
            with base_behind(f"http://127.0.0.1:{self._proxy.port}", self._debian, self.folder) as tar:
                self.podman("import", str(tar), f"docker.io/library/{base_name()}")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """No container, no image, no namespace; harmless at any time."""
        self.podman("rm", "-fa", "-t", "1", check=False)
        if self._proxy:
            self._proxy.close()
        self.namespace.delete()
        self._ends.close()

    def inside(self, *words: str) -> list[str]:
        """The words that run a command in the namespace; its files are this machine's."""
        return ["nsenter", f"--net=/run/netns/{self.namespace.name}", *words]

    def podman(self, *words: str, check: bool = True) -> str:
        return run(*self.inside("podman", *words), env=self.env, check=check)

    def add_flow(self, source: str) -> None:
        """An entry in the table that a container with the host's network looks at; nothing is sent."""
        words = ["conntrack", "-I", "-s", source, "-d", "192.0.2.7", "-p", "tcp", "--sport", "4000", "--dport", "443"]
        self.namespace.run([*words, "-t", "6000", "--state", "ESTABLISHED", "-u", "ASSURED"])

    @contextlib.contextmanager
    def somebody(self, image: str) -> Iterator[list[str]]:
        """The words that run podman as a user without rights, who has this image; it needs no subordinate users."""
        at = self.folder / "user"
        env = self._settings(at, "vfs")
        archive = self.folder / "image.tar"
        self.podman("save", "-q", "-o", str(archive), image)
        archive.chmod(0o644)
        for path in (at, *at.iterdir()):
            os.chown(path, SOMEBODY, SOMEBODY)
        person = ["setpriv", f"--reuid={SOMEBODY}", f"--regid={SOMEBODY}", "--clear-groups"]
        words = self.inside(*person, "env", "-C", str(at), "-i", f"PATH={os.environ['PATH']}")
        words += [f"{name}={value}" for name, value in env.items()]
        run(*words, "podman", "load", "-q", "-i", str(archive))
        archive.unlink()
        try:
            yield [*words, "podman"]
        finally:
            run(*words, "podman", "unshare", "rm", "-rf", str(at / "images"), check=False)
