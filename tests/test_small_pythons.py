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
from support.program import MIXED, FakeConntrack, Piped
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
# What Python's own start imports (site, codecs), what every file of ours begins with: no Python is without. Nor without
# _blake2, where hashlib itself prints a traceback.
ALWAYS = {
    "_blake2",
    *("site", "os", "stat", "_stat", "posixpath", "genericpath", "_collections_abc", "_sitebuiltins"),
    "__future__",
}
# Read by every Python that starts with this folder in PYTHONPATH: hides one module, or writes down what is imported.
HIDES = """\
import os, sys
hidden, record = os.environ.get("HIDDEN", "").split(), os.environ.get("RECORD")


class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if record:
            fd = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(fd, f"{name}\\n".encode())
            os.close(fd)


sys.meta_path.insert(0, Finder)
for name in list(sys.modules):
    if name.partition(".")[0] in hidden or (record and name.partition(".")[0] not in ALWAYS):
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
    """Every run works without it, or ends with a line that says what to install; a traceback never.

    In the checkout, which has the same modules and no stand-ins, each is hidden from one way that imports it.
    """
    program = CHECKOUT if kind == "checkout" else [sys.executable, str(request.getfixturevalue("pyz"))]
    run("help", program, env)  # from now on the one file is compiled
    cases = [(way, name) for way in RUNS for name in imports(way, program, env, tmp_path / f"imports-{way}")]
    assert len(cases) > 200
    if kind == "checkout":
        cases = [(way, name) for name, way in {name: way for way, name in cases}.items()]

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


@pytest.mark.parametrize(
    ("hidden", "package"),
    [("unicodedata", "codecs"), ("ssl", "openssl"), ("_ssl", "openssl"), ("urllib", "urllib"), ("shutil", "light")],
)
def test_what_is_needed_is_named_with_its_package(hidden: str, package: str, env: dict[str, str]) -> None:
    done = run("update", CHECKOUT, {**env, "HIDDEN": hidden})
    name = hidden.lstrip("_")
    said = f"the Python module {name} is missing; it is in the package python3-{package} (OpenWrt) or python3 (Debian)"
    assert (done.status, done.err) == (1, f"conntrack-monitor: {said}\n")


# What OpenWrt's python3-light lacks, and python3-codecs has not; but for asyncio, unittest and uuid, which the file holds.
APART = """_asyncio _ctypes ctypes dbm decimal _decimal email logging lzma _lzma multiprocessing _multiprocessing curses
    _curses _hashlib _ssl doctest pydoc readline sqlite3 _sqlite3 urllib _uuid venv xml pyexpat"""


def test_the_least_that_openwrt_can_have(pyz: Path, env: dict[str, str]) -> None:
    """As docs/install.md says: python3-light and python3-codecs; countries need two more."""
    environ = {**env, "HIDDEN": APART}
    program = [sys.executable, str(pyz)]
    for way in ("help", "once", "screen"):
        done = run(way, program, environ)
        assert (complaint(way, "email", done), done.status) == ("", 0)
        assert ("reading it needs the Python module email, which is missing" in done.err) is (way == "once")
    more = [word for word in APART.split() if word not in ("email", "urllib")]
    assert '"remote"' in run("once", program, {**env, "HIDDEN": " ".join(more)}).out.decode()


@pytest.mark.toml
def test_without_tomllib_only_the_settings_are_ignored(env: dict[str, str], tmp_path: Path) -> None:
    settings = tmp_path / "settings" / "conntrack-monitor"
    settings.mkdir(parents=True)
    (settings / "config.toml").write_text('sort = "bytes"\n')
    done = run("once", CHECKOUT, {**env, "HIDDEN": "tomllib", "XDG_CONFIG_HOME": str(settings.parent)})
    assert "settings ignored: reading it needs the Python module tomllib, which is missing, in" in done.err
    assert (done.status, done.err.count("\n"), done.out.count(b"\n")) == (0, 1, MIXED.read_bytes().count(b"\n"))


@pytest.mark.parametrize("way", ["once", "screen"])
def test_without_email_only_databases_are_not_read(way: str, env: dict[str, str]) -> None:
    """maxminddb wants it; on OpenWrt it is a package of its own. The screen says so among its notices."""
    done = run(way, CHECKOUT, {**env, "HIDDEN": "email"})
    assert ("reading it needs the Python module email, which is missing" in done.err) is (way == "once")
    assert (complaint(way, "email", done), done.status) == ("", 0)


def test_without_ctypes_only_the_socket_stays_small(env: dict[str, str], tmp_path: Path) -> None:
    """It enlarges conntrack's socket for events; a stream goes on without."""
    fake = FakeConntrack(tmp_path)
    with Piped(
        tmp_path, env={**fake.env, "PYTHONPATH": env["PYTHONPATH"], "HIDDEN": "ctypes"}, program=CHECKOUT
    ) as stream:
        stream.wait(lambda: stream.lines() >= fake.lines and fake.starts("-E"))
        stream.leave()
        assert "module ctypes" not in stream.words()


# --- no terminal worth the name ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "said"), [("dumb", "TERM is dumb"), ("", "TERM is not set"), (None, "TERM is not set")]
)
def test_a_terminal_without_a_cursor(kind: str | None, said: str, env: dict[str, str]) -> None:
    environ = {name: value for name, value in env.items() if name != "TERM"} | ({} if kind is None else {"TERM": kind})
    done = run("screen", CHECKOUT, environ)
    assert done.status == 2
    assert f"Error: {said}: the screen can't place the cursor. Try TERM=xterm in front, or use --once" in done.err
    assert "\x1b" not in done.err
    assert run("once", CHECKOUT, environ).status == 0


def test_without_terminfo(env: dict[str, str], tmp_path: Path) -> None:
    """Routers have none, or only that of a few terminals."""
    done = run(
        "screen", CHECKOUT, {**env, "TERMINFO": str(tmp_path), "TERMINFO_DIRS": str(tmp_path), "TERM": "alacritty"}
    )
    assert (done.status, done.err) == (0, "")


# --- nowhere to write -------------------------------------------------------------------------------------------------

# Its own mounts: all read-only, /tmp where no program may be started, no home, no terminfo.
BARREN = """
mount --make-rprivate /
mount -t tmpfs -o noexec,mode=1777 tmpfs "$1"
mount -o remount,bind,ro / 2>/dev/null || mount -o remount,ro /
for terms in /usr/share/terminfo /lib/terminfo /etc/terminfo; do
    [ ! -d $terms ] || mount -t tmpfs tmpfs $terms
done
touch /written 2>/dev/null && exit 99
shift
exec "$@"
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
@pytest.mark.parametrize("kind", ["checkout", "one file"])
def test_nowhere_to_write(kind: str, request: pytest.FixtureRequest, env: dict[str, str], tmp_path: Path) -> None:
    """No home, the root read-only, /tmp without programs and no terminfo: it runs, and says nothing of all that."""
    program = CHECKOUT if kind == "checkout" else [sys.executable, str(request.getfixturevalue("pyz"))]
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    whole = ["unshare", "-m", "sh", "-ec", BARREN, "sh", str(temporary), *program]
    environ = {**env, "HOME": "/nonexistent", "XDG_CACHE_HOME": "/nonexistent/cache", "TMPDIR": str(temporary)}
    for way in ("help", "once", "screen"):
        done = run(way, whole, environ)
        assert (complaint(way, "", done), done.err, done.status) == ("", "", 0)
    done = run("update", whole, environ)
    assert done.status == 1
    assert "no writable folder" in done.err
