#!/usr/bin/env python3
"""What a release is made of, from one place: VERSION in conntrack_monitor.py.

`check`: tag, CHANGELOG.md's newest section, the image's label and recipes agree with it. `notes`: that section.
`labels`: what `docker build` is told. `set X.Y.Z`: writes the version to all of them.
"""

from __future__ import annotations

import argparse
import re
import sys
from datetime import date, datetime, timezone

from build_pyz import ROOT, git

IN_PROGRAM = re.compile(r'^VERSION = "([^"]*)"$', re.M)
# Copies of it, each by a file and what stands before it there.
COPIES = {
    "Dockerfile": "ARG VERSION=",
    "contrib/arch/PKGBUILD": "pkgver=",
    "contrib/openwrt/Makefile": "PKG_VERSION:=",
    "contrib/kubernetes/daemonset.yaml": "          image: ghcr.io/0xf00f00/conntrack-monitor:",
}
SECTION = re.compile(r"^## (.+)\n((?:(?!## ).*\n?)*)", re.M)
TITLE = re.compile(r"(\d+\.\d+\.\d+), (\d{4}-\d\d-\d\d)")
NEXT = "Unreleased"


def found(pattern: re.Pattern[str], name: str) -> str:
    """What a file of the checkout says for the pattern's group."""
    match = pattern.search((ROOT / name).read_text(encoding="utf-8"))
    if match is None:
        sys.exit(f"{name} has no line like {pattern.pattern}")
    return match[1]


def copy_of(name: str) -> re.Pattern[str]:
    return re.compile(rf"^{re.escape(COPIES[name])}(.*)$", re.M)


def version() -> str:
    return found(IN_PROGRAM, "conntrack_monitor.py")


def newest() -> tuple[str, str]:
    """Title and text of the changelog's newest section; an empty one for what comes next is none."""
    for title, text in SECTION.findall((ROOT / "CHANGELOG.md").read_text(encoding="utf-8")):
        if title != NEXT or text.strip():
            return title, text.strip()
    sys.exit("CHANGELOG.md has no section with text")


def problems(tag: str) -> list[str]:
    """What does not agree with the version, each with what helps."""
    said = version()
    other = [name for name in COPIES if found(copy_of(name), name) != said]
    said_by = [f"{name} has not version {said}; try: make release-set VERSION={said}" for name in other]
    title, text = newest()
    match = TITLE.fullmatch(title)
    if match is None or match[1] != said:
        said_by.append(
            f'CHANGELOG.md begins with "{title}", not with "{said}, YYYY-MM-DD"; try: make release-set VERSION={said}'
        )
    elif not text:
        said_by.append(f'CHANGELOG.md says nothing under "{title}"')
    if not tag:
        said_by.append(f'this commit has no tag; try: git tag -a v{said} -m "Version {said}"')
    elif tag != f"v{said}":
        said_by.append(f"the tag is {tag}, not v{said}: a tag that was published is not moved, take the next version")
    return said_by


def tag_here() -> str:
    """The version's tag on this commit if it is there, else any other of its kind, else none."""
    tags = [tag for tag in git("tag", "--points-at", "HEAD").split() if re.fullmatch(r"v\d.*", tag)]
    wanted = f"v{version()}"
    return wanted if wanted in tags else (tags or [""])[0]


def labels() -> str:
    """Arguments of docker build. The commit's time, not the clock's: the same commit, the same labels."""
    changed = "-dirty" if git("status", "--porcelain", "--untracked-files=no") else ""
    seconds = int(git("show", "-s", "--format=%ct", "HEAD"))
    created = datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    values = {"VERSION": version(), "REVISION": git("rev-parse", "HEAD") + changed, "CREATED": created}
    return " ".join(f"--build-arg {name}={value}" for name, value in values.items())


def put(new: str, day: str) -> None:
    """Write the version to all its places; "Unreleased" becomes its section, under a new and empty one."""
    if not re.fullmatch(r"\d+\.\d+\.\d+", new):
        sys.exit(f'"{new}" is no version; try: make release-set VERSION=1.2.3')
    lines = {name: (copy_of(name), f"{before}{new}") for name, before in COPIES.items()}
    lines["conntrack_monitor.py"] = (IN_PROGRAM, f'VERSION = "{new}"')
    for name, (pattern, line) in lines.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        (ROOT / name).write_text(pattern.sub(line, text, count=1), encoding="utf-8")
    if newest()[0] == NEXT:
        changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
        section = f"## {NEXT}\n\n## {new}, {day}\n"
        (ROOT / "CHANGELOG.md").write_text(changes.replace(f"## {NEXT}\n", section, 1), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=["check", "notes", "labels", "version", "set"])
    parser.add_argument("version", nargs="?", default="", help="of set")
    options = parser.parse_args()
    if options.what == "check":
        wrong = problems(tag_here())
        if wrong:
            sys.exit("\n".join(wrong))
        print(f"version, tag, changelog, image and recipes agree: {version()}")
    elif options.what == "set":
        put(options.version, date.today().isoformat())
    else:
        print({"notes": lambda: newest()[1], "labels": labels, "version": version}[options.what]())


if __name__ == "__main__":
    main()
