#!/usr/bin/env python3
"""Builds dist/conntrack-monitor_VERSION_all.deb: the one file as a Debian package, with what the program prints for it.

By dpkg-deb alone. The same commit gives the same bytes with the same dpkg: files have the commit's time and belong to
root.
The systemd unit comes along and is not enabled: a flow log is a record of who talked to whom.
"""

from __future__ import annotations

import argparse
import gzip
import os
import shutil
import subprocess
import sys
import tempfile
from email.utils import formatdate
from pathlib import Path

from build_pyz import ROOT, git

NAME = "conntrack-monitor"
MAINTAINER = "Conntrack Monitor <conntrack-monitor@users.noreply.github.com>"
CONTROL = """\
Package: {name}
Version: {version}
Section: net
Priority: optional
Architecture: all
Depends: python3 (>= 3.10), conntrack
Suggests: whois
Installed-Size: {size}
Maintainer: {maintainer}
Homepage: https://github.com/0xf00f00/conntrack-monitor
Description: who talks to whom through this machine, live
 Shows the kernel's connection table on a terminal: connections with NAT, rates
 and countries; hosts, networks and services with their sums; whether the table
 is healthy, and the command that mends it. Also as text, JSON and CSV, as IPFIX
 for collectors, as metrics for Prometheus, and as a log of flows.
"""
COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: {name}
Source: https://github.com/0xf00f00/conntrack-monitor
Comment: /usr/bin/{name} is a zip file that holds the Python packages blessed, click, IPy, jinxed, maxminddb and wcwidth
 with their licences.

Files: *
Copyright: {holder}
License: Expat
{licence}
"""
CHANGES = """\
{name} ({version}) unstable; urgency=medium

  * {subject}

 -- {maintainer}  {date}
"""

OVERRIDES = """\
# click, which is inside, knows sensible-editor; this program starts no editor.
{name}: missing-depends-on-sensible-utils *
"""


def program_says(program: Path, *words: str) -> bytes:
    """What the program prints for the name that it will have."""
    with tempfile.TemporaryDirectory() as folder:
        called = Path(folder) / NAME
        called.symlink_to(program)
        environ = {name: value for name, value in os.environ.items() if not name.startswith("CONNTRACK_MONITOR_")}
        command = [sys.executable, str(called), *words]
        return subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True).stdout


def files(program: Path, version: str, when: int) -> dict[str, bytes]:
    """What the package holds, by path."""
    licence = (ROOT / "LICENSE").read_text()
    holder = next(line for line in licence.splitlines() if line.startswith("Copyright")).removeprefix("Copyright (c) ")
    terms = "".join(f" {line or '.'}\n" for line in licence.partition(holder)[2].strip().splitlines())
    unit = (ROOT / "contrib" / f"{NAME}.service").read_text()
    unit = "\n".join(line for line in unit.splitlines() if not line.startswith("#   install"))
    unit = unit.replace("/usr/local/bin/", "/usr/bin/").replace("#   systemctl daemon-reload && ", "#   ")
    changes = CHANGES.format(
        name=NAME, version=version, maintainer=MAINTAINER, subject="See CHANGELOG.md.", date=formatdate(when)
    )
    documents = f"usr/share/doc/{NAME}"
    return {
        f"usr/bin/{NAME}": program.read_bytes(),
        f"usr/share/man/man8/{NAME}.8.gz": packed(program_says(program, "--print-man")),
        f"usr/share/bash-completion/completions/{NAME}": program_says(program, "--print-completion", "bash"),
        f"usr/share/zsh/vendor-completions/_{NAME}": program_says(program, "--print-completion", "zsh"),
        f"usr/share/fish/vendor_completions.d/{NAME}.fish": program_says(program, "--print-completion", "fish"),
        f"usr/lib/systemd/system/{NAME}.service": f"{unit}\n".encode(),
        f"usr/share/lintian/overrides/{NAME}": OVERRIDES.format(name=NAME).encode(),
        f"{documents}/changelog.gz": packed(changes.encode()),
        f"{documents}/copyright": COPYRIGHT.format(name=NAME, holder=holder, licence=terms.rstrip("\n")).encode(),
        f"{documents}/CHANGELOG.md.gz": packed((ROOT / "CHANGELOG.md").read_bytes()),
    }


def packed(data: bytes) -> bytes:
    return gzip.compress(data, 9, mtime=0)


def build(program: Path, target: Path, version: str, when: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        held = files(program, version, when)
        size = sum(map(len, held.values())) // 1024 + 1
        held["DEBIAN/control"] = CONTROL.format(name=NAME, version=version, size=size, maintainer=MAINTAINER).encode()
        for name, data in held.items():
            path = tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            path.chmod(0o755 if name.startswith("usr/bin/") else 0o644)
        for path in (tree, *tree.rglob("*")):
            if path.is_dir():
                path.chmod(0o755)
        target.parent.mkdir(parents=True, exist_ok=True)
        command = ["dpkg-deb", "--build", "--root-owner-group", "-Zxz", str(tree), str(target)]
        environ = {**os.environ, "SOURCE_DATE_EPOCH": str(when)}
        subprocess.run(command, env=environ, stdout=subprocess.DEVNULL, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the Debian package from the one file.")
    parser.add_argument("program", type=Path, help="the one file")
    parser.add_argument("--to", type=Path, default=ROOT / "dist", help="the folder that it is built into")
    parser.add_argument("--version", help="another one than the program's")
    options = parser.parse_args()
    if not shutil.which("dpkg-deb"):
        sys.exit("not built: dpkg-deb is missing, which comes with Debian and its kin (package dpkg)")
    program = options.program.resolve()
    version = options.version or program_says(program, "--version").decode().split()[1]
    target = options.to / f"{NAME}_{version}_all.deb"
    build(program, target, version, int(git("log", "-1", "--format=%ct")))
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
