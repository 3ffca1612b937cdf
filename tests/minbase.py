"""A bare Debian in a folder: debootstrap's minbase with Python and conntrack, and nothing else.

What runs in it does so with ``chroot`` in a network namespace: no network, the namespace's connection table. Making
it takes 40 s; TEST_MINBASE=FILE keeps it as a tar file for the next run. Needs root and debootstrap.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from lab import Namespace, missing

PACKAGES = ("python3", "conntrack")
# /proc is mounted in the private mount namespace that "ip netns exec" makes: it goes with the command.
ENTER = 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'


def missing_minbase() -> str:
    """What is lacking here, as a sentence; "" when there can be one."""
    return missing() or ("" if shutil.which("debootstrap") else "not installed: debootstrap")


def _run(*argv: str) -> str:
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600
    )
    assert done.returncode == 0, f"{' '.join(argv)}: exit status {done.returncode}\n{done.stdout[-2000:]}"
    return done.stdout


def mirror() -> tuple[str, str]:
    """Where this machine's apt gets its main packages from, and the suite."""
    printed = _run("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages")
    release = _run("sh", "-c", ". /etc/os-release && echo $VERSION_CODENAME").strip()
    for line in printed.splitlines():
        uri, suite, component = line.split()
        if component == "main" and suite == release:
            return uri, suite
    raise AssertionError(f"apt knows no {release} main here:\n{printed}")


def make(tree: Path) -> None:
    """Fill a folder."""
    kept = os.environ.get("TEST_MINBASE", "")
    if kept and Path(kept).exists():
        _run("tar", "-C", str(tree), "-xf", kept)
        return
    uri, suite = mirror()
    _run("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", suite, str(tree), uri)
    if kept:
        _run("tar", "-C", str(tree), "-cf", kept, ".")


def inside(namespace: Namespace, tree: Path) -> list[str]:
    """The words that put a command into the folder and the namespace; the first is an absolute path."""
    ip, *words = namespace.prefix
    return [shutil.which(ip) or ip, *words, "sh", "-c", ENTER, str(tree)]
