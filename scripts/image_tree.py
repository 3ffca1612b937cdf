#!/usr/bin/env python3
"""Gathers in one folder what the container's image holds: the program, and of a Debian only what it can ever need.

The Dockerfile runs it in its first stage. Of Python it takes the modules that the program and its packages can import,
of Debian the programs below, all with the libraries that they load. Packages that a file is of are noted as distroless
images do it (/var/lib/dpkg/status.d), so that who looks for known flaws in an image finds them.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from modulefinder import ModuleFinder
from pathlib import Path

# conntrack, and Python. sh, env, find: the Dockerfile's entry point and health check. cp, stty: the setup script and
# its wrapper. cat, grep: what --via "docker exec NAME" runs. ls, rm: for the volumes.
PROGRAMS = ("conntrack", "python3", "sh", "env", "find", "cp", "stty", "cat", "grep", "ls", "rm")
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"  # made of the package ca-certificates, and no file of it
# Text in UTF-8, terminals by name, time zones for TZ, authorities for the download; names of users, hosts, the system.
DATA = (
    *("/usr/lib/locale/C.utf8", "/lib/terminfo", "/usr/share/zoneinfo", CERTIFICATES),
    *("/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/services", "/etc/protocols"),
    *("/etc/os-release", "/etc/debian_version", "/etc/ld.so.conf", "/etc/ld.so.conf.d"),
)
# Never used, but named in Python's own modules: its tests, its documentation, what is for other systems.
UNUSED = ("test", "doctest", "pydoc", "pydoc_data", "tkinter", "distutils", "_testcapi", "_testinternalcapi")
# Imported by names that are put together: all encodings, terminals by their names. What wcwidth knows of emoji on some
# terminals, half of all packages, is left out: it can go without, and the program asks for single characters only.
BY_NAME = ("encodings", "jinxed/terminfo")
TWICE = (
    Path("/usr/share/zoneinfo/right"),
    Path("/usr/share/zoneinfo/posix"),
)  # the same zones, with leap seconds and without
BESIDE = ("demo.rec", "LICENSE", "*.dist-info/METADATA", "*.dist-info/licenses/**/*")  # maxminddb reads its own version


def needed(program: Path) -> Iterator[Path]:
    """The files of the program, of its packages and of Python that can ever be imported, and what lies beside them."""
    places = [str(program), *sys.path[1:]]
    finder = ModuleFinder(places, excludes=UNUSED)
    for path in sorted(program.glob("*.py")):
        finder.run_script(str(path))
        yield path
    files = (getattr(module, "__file__", None) for module in finder.modules.values())
    yield from (Path(file) for file in files if file)
    yield from (path for place in places for name in BY_NAME for path in Path(place, name).glob("*.py"))
    yield from (path for pattern in BESIDE for path in program.glob(pattern) if path.is_file())


def libraries(path: Path) -> list[Path]:
    """What the loader finds for a program or a library; nothing for a script."""
    done = subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=False)
    return [Path(found) for found in re.findall(r"^\t(?:\S+ => )?(/\S+) \(0x", done.stdout, re.M)]


class Tree:
    """What is taken, at the same places as it had."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.taken: set[Path] = set()
        for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):  # links to those in /usr
            if os.path.islink(f"/{name}"):
                self.take(Path("/", name))

    def take(self, path: Path) -> None:
        """A file, or a folder with all that it holds; a link with what it leads to."""
        if path in self.taken or path in TWICE or not os.path.lexists(path):
            return
        parent = path.parent.resolve()
        at, to = parent / path.name, self._folder / parent.relative_to("/") / path.name
        self.taken |= {path, at}
        if to.is_symlink() or to.is_file():
            return
        to.parent.mkdir(parents=True, exist_ok=True)
        if at.is_symlink():
            to.symlink_to(os.readlink(at))
            if at.resolve().is_dir() and at.parent == Path("/"):
                (self._folder / at.resolve().relative_to("/")).mkdir(parents=True, exist_ok=True)
            else:
                self.take(at.resolve())
        elif at.is_dir():
            to.mkdir(exist_ok=True)
            for child in sorted(at.iterdir()):
                self.take(child)
        else:
            shutil.copy2(at, to)
            to.chmod(0o755 if os.access(at, os.X_OK) else 0o644)  # nothing that makes who runs it another user
            for library in libraries(at) if _is_elf(at) else ():
                self.take(library)

    def note_packages(self) -> None:
        """Which of Debian's packages files are of, each with its licence where this Debian has it."""
        owners = {
            os.path.realpath(os.path.dirname(line)) + "/" + os.path.basename(line): listing.stem.partition(":")[0]
            for listing in Path("/var/lib/dpkg/info").glob("*.list")
            for line in listing.read_text().splitlines()
            if not os.path.isdir(line)
        }
        owners[CERTIFICATES] = "ca-certificates"
        wanted = {owners[str(path)] for path in self.taken if str(path) in owners}
        status = self._folder / "var/lib/dpkg/status.d"
        status.mkdir(parents=True)
        for text in Path("/var/lib/dpkg/status").read_text().split("\n\n"):
            name = text.partition("\n")[0].removeprefix("Package: ").strip()
            if name in wanted:
                (status / name).write_text(f"{text}\n")
                self.take(Path("/usr/share/doc", name, "copyright"))


def _is_elf(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"


def all_of(program: Path) -> Iterable[Path]:
    yield from needed(program)
    for name in PROGRAMS:
        found = shutil.which(name)
        if found is None:
            sys.exit(f"{name} is not installed here")
        yield Path(found)
    yield from map(Path, DATA)


def main() -> None:
    parser = argparse.ArgumentParser(description="Gather what the image holds.")
    parser.add_argument("program", type=Path, help="the folder with the program and its packages")
    parser.add_argument("folder", type=Path, help="what to make")
    options = parser.parse_args()
    tree = Tree(options.folder)
    for path in all_of(options.program):
        tree.take(path)
    tree.note_packages()


if __name__ == "__main__":
    main()
