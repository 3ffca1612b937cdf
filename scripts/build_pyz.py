#!/usr/bin/env python3
"""Builds dist/conntrack-monitor.pyz: the program and its packages as one executable file of pure Python.

The same commit gives the same bytes on every machine and Python: packages by their hashes (requirements.lock), from the
same wheels everywhere; entries sorted, with the commit's time and fixed modes; stored, because zlib's output differs
from version to version.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "dist" / "conntrack-monitor.pyz"
PURE = ["--platform", "any", "--implementation", "py", "--abi", "none", "--python-version", "3.10"]
# maxminddb has wheels with its C reader only. All have the same modules beside it, so any will do, as long as it is
# the same everywhere.
ONE = ["--platform", "manylinux2014_x86_64", "--implementation", "cp", "--abi", "cp311", "--python-version", "3.11"]
COMPILED = ("maxminddb",)
# Standard modules that packages import and the program never uses: blessed has a function that waits for keys by
# asyncio, jinxed plays Windows by a mock, click has a type UUID of options. On OpenWrt they are packages of their own
# (python3-asyncio, -logging, -unittest, -uuid), and to import them is a third of importing blessed.
STAND_INS = {
    "asyncio.py": "",
    "unittest/__init__.py": "",
    "unittest/mock.py": "",
    "uuid.py": "\n\nclass UUID:\n    pass\n",
}


def git(*words: str) -> str:
    # safe.directory: root builds in a user's checkout, too.
    command = ["git", "-c", "safe.directory=*", "-C", str(ROOT), *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.rstrip("\n")


def locked() -> dict[str, str]:
    """The requirements of requirements.lock by name in lower case, hashes and all; they fit requirements.txt."""
    text = (ROOT / "requirements.lock").read_text()
    lines = re.sub(r"^#.*\n", "", text, flags=re.M).replace("\\\n", " ").splitlines()
    found = {line.partition("==")[0].lower(): line for line in lines}
    for name, version in re.findall(r"^(\w+)==(\S+)", (ROOT / "requirements.txt").read_text(), re.M):
        if found.get(name.lower(), "").split()[:1] != [f"{name}=={version}"]:
            sys.exit(f"requirements.txt has {name}=={version}, requirements.lock does not")
    return found


def download(folder: Path) -> None:
    """All packages as wheels, by the machine's pip and its settings."""
    packages = locked()
    for choice, names in ((PURE, packages.keys() - set(COMPILED)), (ONE, COMPILED)):
        wanted = folder / "wanted.txt"
        wanted.write_text("".join(packages[name] + "\n" for name in sorted(names)))
        command = [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check", "--no-deps"]
        command += ["--require-hashes", "--only-binary=:all:", *choice, "-d", str(folder), "-r", str(wanted)]
        subprocess.run(command, check=True)


def contents(wheels: Path) -> dict[str, bytes]:
    """What the file holds, by path: our modules, the packages' modules, their metadata and licences."""
    names = git("ls-files", "*.py").splitlines()
    found = {name: (ROOT / name).read_bytes() for name in names if "/" not in name}
    found |= {path.name: path.read_bytes() for path in (ROOT / "scripts" / "onefile").glob("*.py")}
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                # RECORD and WHEEL tell of the wheel, not of what is here.
                about = ".dist-info/" in name and not name.endswith(("/RECORD", "/WHEEL", "/top_level.txt", "/"))
                if about or name.endswith(".py"):
                    found[name] = archive.read(name)
    found |= {
        name: f'"""Stands in for Python\'s own, which nothing here uses."""\n{text}'.encode()
        for name, text in STAND_INS.items()
    }
    found["demo.rec"] = (ROOT / "fixtures" / "demo.rec").read_bytes()
    found["LICENSE"] = (ROOT / "LICENSE").read_bytes()
    digest = hashlib.sha256(b"".join(b"%s\0%d\0%s" % (n.encode(), len(found[n]), found[n]) for n in sorted(found)))
    changed = git("status", "--porcelain", "--", "*.py", "requirements.lock", "LICENSE", "fixtures/demo.rec")
    commit = git("rev-parse", "HEAD") + (" with changes" if changed else "")
    modules = sorted(name for name in (*found, "built_from.py") if name.endswith(".py"))
    found["built_from.py"] = (
        f'"""What this file was built from, and its modules."""\n\nCOMMIT = "{commit}"\n'
        f'DIGEST = "{digest.hexdigest()}"\nMODULES = {modules!r}\n'
    ).encode()
    return found


def packed(files: dict[str, bytes], when: int) -> bytes:
    """The zip file behind the line that makes it executable; ``when`` in seconds since 1970."""
    out = io.BytesIO(b"#!/usr/bin/env python3\n")
    out.seek(0, io.SEEK_END)
    with zipfile.ZipFile(out, "a", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, time.gmtime(when)[:6])
            entry.create_system = 3  # Unix
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, files[name])
    return out.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the one-file program.")
    parser.add_argument("target", nargs="?", type=Path, default=TARGET)
    parser.add_argument("--wheels", type=Path, help="take the packages' wheels from here; no download")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wheels = options.wheels or Path(folder)
        try:
            if not options.wheels:
                download(wheels)
            data = packed(contents(wheels), int(git("log", "-1", "--format=%ct")))
        except (subprocess.CalledProcessError, FileNotFoundError) as error:
            sys.exit(f"not built: {error}")
    options.target.parent.mkdir(parents=True, exist_ok=True)
    part = options.target.with_name(f"{options.target.name}.part")  # never half a program in its place
    part.write_bytes(data)
    part.chmod(0o755)
    part.replace(options.target)
    print(f"{options.target}: {len(data) / 1e6:.1f} MB, sha256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
