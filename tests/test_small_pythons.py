"""Machines with less: each standard module hidden in turn, no terminal worth the name, nowhere to write."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from support.mmdb import DBIP_CITY, write
from support.program import MIXED
from support.waiting import PATIENCE

ROOT = Path(__file__).parent.parent
CHECKOUT = [sys.executable, str(ROOT / "conntrack_monitor.py")]
ONCE = ["--once", "--json", "--replay", str(MIXED)]
RUNS = {
    "help": ["--help"],
    "once": ONCE,
    "update": ["--update-geoip"],
    "screen": ["--demo", "--speed", "0", "--no-download"],
}
# What Python's own start imports (site, codecs), and what every file of ours begins with: no Python is without.
ALWAYS = {
    *("site", "os", "stat", "_stat", "posixpath", "genericpath", "_collections_abc", "_sitebuiltins"),
    "__future__",
}
# Read by every Python that starts with this folder in PYTHONPATH: hides one module, or writes down what is imported.
HIDES = """\
import os, sys
hidden, record = os.environ.get("HIDDEN"), os.environ.get("RECORD")


class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if record:
            fd = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(fd, f"{name}\\n".encode())
            os.close(fd)


sys.meta_path.insert(0, Finder)
for name in list(sys.modules):
    if name.partition(".")[0] == hidden or (record and name.partition(".")[0] not in ALWAYS):
        del sys.modules[name]
"""


class Ended(NamedTuple):
    """How a run ended."""

    status: int
    out: bytes
    err: str


def ended(argv: Sequence[str], env: Mapping[str, str]) -> Ended:
    done = subprocess.run(
        argv, env=env, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, timeout=3 * PATIENCE, check=False
    )
    return Ended(done.returncode, done.stdout, done.stderr.decode())


def on_a_terminal(argv: Sequence[str], env: Mapping[str, str]) -> Ended:
    """It is told to quit when flows are seen; what it said is what stands outside of the alternate screen."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    before = termios.tcgetattr(its)
    seen, asked, until = b"", False, time.monotonic() + PATIENCE
    with subprocess.Popen(argv, env=env, cwd="/", stdin=its, stdout=its, stderr=its, start_new_session=True) as process:
        while process.poll() is None or select.select([ours], [], [], 0)[0]:
            if time.monotonic() > until:
                process.kill()
            if select.select([ours], [], [], 0.05)[0]:
                seen += os.read(ours, 65_536)
            if b"ESTAB" in seen and not asked:
                asked = bool(os.write(ours, b"q"))
    given_back = termios.tcgetattr(its) == before and seen.count(b"\x1b[?1049h") == seen.count(b"\x1b[?1049l")
    os.close(ours)
    os.close(its)
    said = seen.rpartition(b"\x1b[?1049l")[2].decode().replace("\r\n", "\n")
    return Ended(process.returncode if given_back else -1, seen, said)


def run(way: str, program: Sequence[str], env: Mapping[str, str]) -> Ended:
    return (on_a_terminal if way == "screen" else ended)([*program, *RUNS[way]], env)


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """A database, a publisher that can't be reached, settings, and a cache of the test's own."""
    hides, databases = tmp_path / "hides", tmp_path / "databases"
    hides.mkdir()
    (hides / "sitecustomize.py").write_text(HIDES.replace("ALWAYS", repr(ALWAYS | at_start(packed=False))))
    databases.mkdir()
    write(databases / "dbip-city-lite.mmdb", "DBIP-City-Lite", DBIP_CITY)
    return {
        **os.environ,
        "PYTHONPATH": str(hides),
        "GEOIP_DB_PATHS": str(databases),
        "CONNTRACK_MONITOR_GEOIP_URL": "http://127.0.0.1:1/",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
    }


@cache
def at_start(packed: bool) -> frozenset[str]:
    """The modules of a Python that has only started a script, or a packed one: for that it needs runpy and more."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "script")
        script.write_text(says := "import sys; print(*sys.modules)")
        if packed:
            with zipfile.ZipFile(script, "w") as archive:
                archive.writestr("__main__.py", says)
        command = [sys.executable, "-I", "-S", str(script)]
        return frozenset(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split())


def imports(way: str, program: Sequence[str], env: Mapping[str, str], record: Path) -> list[str]:
    """The standard modules that a run imports, by the first part of their names."""
    done = run(way, program, {**env, "RECORD": str(record)})
    assert complaint(way, "", done) == ""
    found = {name.partition(".")[0] for name in record.read_text().split()} & sys.stdlib_module_names
    return sorted(found - ALWAYS - at_start(program[-1].endswith(".pyz")) - set(sys.builtin_module_names))


def complaint(way: str, hidden: str, done: Ended) -> str:
    """What is wrong with a run without a module; "" where it does its work, or names module and packages in a line."""
    if "Traceback" in done.err or "internal error" in done.err or b"Traceback" in done.out or b"Warning" in done.out:
        return done.err[-300:]
    named = r"conntrack-monitor: the Python module (\w+) is missing; it is in the package python3-\w+ .*\n"
    if (said := re.fullmatch(named, done.err)) and done.status == 1:
        return "" if said[1].lstrip("_") == hidden.lstrip("_") else f"named another: {done.err}"
    if way == "update":
        return "" if done.status == 1 and "not fetched: " in done.err else done.err or "it said nothing"
    worked = {"help": b"--protocol", "once": b'"protocol":"tcp"', "screen": b"ESTAB"}[way] in done.out
    return (
        "" if worked and done.status == 0 and (not done.err or hidden in done.err) else f"{done.status}: {done.err!r}"
    )


@pytest.mark.parametrize("kind", ["checkout", "one file"])
def test_each_module_hidden_in_turn(
    kind: str, request: pytest.FixtureRequest, env: dict[str, str], tmp_path: Path
) -> None:
    """Every run works without it, or ends with a line that says what to install; a traceback never."""
    program = CHECKOUT if kind == "checkout" else [sys.executable, str(request.getfixturevalue("pyz"))]
    run("help", program, env)  # from now on the one file is compiled
    cases = [(way, name) for way in RUNS for name in imports(way, program, env, tmp_path / f"imports-{way}")]
    assert len(cases) > 200

    def tried(case: tuple[str, str]) -> str:
        way, hidden = case
        environ = {**env, "HIDDEN": hidden}
        if way == "update":  # one at a time fetches into a folder
            environ["GEOIP_DB_PATHS"] = str(tmp_path / f"no-databases-{hidden}")
            os.mkdir(environ["GEOIP_DB_PATHS"])
        return complaint(way, hidden, run(way, program, environ))

    with ThreadPoolExecutor(2) as pool:
        wrong = {f"{way} without {name}": said for (way, name), said in zip(cases, pool.map(tried, cases)) if said}
    assert not wrong, "\n".join(f"{case}: {said}" for case, said in wrong.items())
    if kind == "one file":  # what stands in for them, and what it saves on OpenWrt
        assert not {"asyncio", "logging", "unittest", "uuid"} & {name for _, name in cases}
