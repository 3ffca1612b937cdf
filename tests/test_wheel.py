"""The wheel: what is in it, and the program as pip, pipx and uv install it, each from nothing to a screen and away again.

Everything runs from "/", so that nothing of the checkout is imported by chance.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from conntrack_monitor import VERSION
from support.http import serving
from support.program import FakeConntrack, OnScreen
from support.terminal import DEMO, Terminal
from support.waiting import wait_for
from test_pyz import timeless

ROOT = Path(__file__).parent.parent
CHECKOUT = [sys.executable, str(ROOT / "conntrack_monitor.py")]
NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--no-new-privs"]
MAN = "share/man/man8/conntrack-monitor.8"
COMPLETIONS = {
    "bash": "share/bash-completion/completions/conntrack-monitor",
    "zsh": "share/zsh/site-functions/_conntrack-monitor",
    "fish": "share/fish/vendor_completions.d/conntrack-monitor.fish",
}


class Installed(NamedTuple):
    """A program that was installed, and the environment that it lies in."""

    program: Path
    environment: Path

    @property
    def python(self) -> str:
        return str(self.environment / "bin" / "python")

    @property
    def packages(self) -> Path:
        (found,) = self.environment.glob("lib/python*/site-packages")
        return found


def system_python() -> str:
    """Debian's, if it can make environments: one that lies in somebody's home can't be started by another user."""
    usual = "/usr/bin/python3"
    check = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))"
    there = os.path.exists(usual) and subprocess.run([usual, "-c", check], capture_output=True, check=False)
    return usual if there and there.returncode == 0 else sys.executable


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Another user may look into it, unlike into pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="cm-wheel-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def env(folder: Path) -> dict[str, str]:
    """A home, a cache and settings of the tests' own; no database."""
    home = folder / "home"
    home.mkdir()
    return {
        **os.environ,
        "HOME": str(home),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "XDG_DATA_HOME": str(home / "share"),
        "GEOIP_DB_PATHS": str(folder / "none"),
        "PIPX_HOME": str(home / "pipx"),
        "PIPX_BIN_DIR": str(home / "bin"),
        "PIPX_MAN_DIR": str(home / "man"),
        "UV_TOOL_DIR": str(home / "uv"),
        "UV_TOOL_BIN_DIR": str(home / "bin"),
        "UV_CACHE_DIR": str(folder / "cache" / "uv"),
        **indexes(),
    }


def indexes() -> dict[str, str]:
    """Where this machine's pip looks for packages, for uv, which reads no pip.conf; what is set for uv itself stays."""
    names = {"index-url": "UV_DEFAULT_INDEX", "extra-index-url": "UV_INDEX", "cert": "SSL_CERT_FILE"}
    found = {}
    for line in ended(sys.executable, "-m", "pip", "config", "list", env=os.environ).stdout.splitlines():
        key, _, value = line.partition("=")
        words = [word for word in value.strip("'\"").replace("\\n", " ").split() if not word.startswith("file:")]
        name = names.get(key.rpartition(".")[2], "")
        if name and words and name not in os.environ:
            found[name] = " ".join(words)
    return found


def ended(*argv: object, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, argv)),
        env=env,
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def run(*argv: object, env: Mapping[str, str]) -> str:
    """What a command printed; it must do well."""
    done = ended(*argv, env=env)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def fetched(*argv: object, env: Mapping[str, str]) -> None:
    """A command that asks the package index; in CI there must be one."""
    done = ended(*argv, env=env)
    if done.returncode and os.environ.get("CI") != "true":
        pytest.skip(f"packages can't be fetched here: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(folder: Path, env: dict[str, str]) -> Path:
    """As `make wheel` builds it."""
    fetched(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder / "wheels", ROOT, env=env)
    (path,) = (folder / "wheels").iterdir()
    return path


@pytest.fixture(scope="module")
def tools(folder: Path, env: dict[str, str]) -> Path:
    """Where pipx and uv are: in an environment of their own."""
    run(system_python(), "-m", "venv", folder / "tools", env=env)
    fetched(folder / "tools/bin/pip", "install", "-q", "pipx", "uv", env=env)
    return folder / "tools" / "bin"


def uninstall(way: str, there: Installed, tools: Path, env: dict[str, str]) -> None:
    """Take it away; nothing of it stays but what pip was not asked to remove: the packages that it needed."""
    commands: dict[str, list[object]] = {
        "pip": [there.python, "-m", "pip", "uninstall", "-qy", "conntrack-monitor"],
        "pipx": [tools / "pipx", "uninstall", "conntrack-monitor"],
        "uv": [tools / "uv", "tool", "uninstall", "conntrack-monitor"],
    }
    run(*commands[way], env=env)
    left = [path for path in (*there.environment.rglob("*"), *Path(env["HOME"]).rglob("*")) if "conntrack" in path.name]
    assert [path for path in left if path.suffix != ".lock" and path.parent.name != "logs"] == []  # pipx's own
    assert not os.path.lexists(there.program)


@pytest.fixture(scope="module", params=["pip", "pipx", "uv"])
def installed(request: pytest.FixtureRequest, folder: Path, env: dict[str, str], tools: Path) -> Iterator[Installed]:
    """Each way, by the package's name where it lies: the checkout, or for pip the wheel."""
    home, way, python = Path(env["HOME"]), request.param, system_python()
    if way == "pip":
        there = Installed(folder / "venv/bin/conntrack-monitor", folder / "venv")
        run(python, "-m", "venv", there.environment, env=env)
        fetched(there.python, "-m", "pip", "install", "-q", request.getfixturevalue("wheel"), env=env)
    elif way == "pipx":
        there = Installed(home / "bin/conntrack-monitor", home / "pipx/venvs/conntrack-monitor")
        fetched(tools / "pipx", "install", "--python", python, ROOT, env=env)
    else:
        there = Installed(home / "bin/conntrack-monitor", home / "uv/conntrack-monitor")
        fetched(tools / "uv", "tool", "install", "--python", python, ROOT, env=env)
    yield there
    uninstall(way, there, tools, env)


# --- the wheel --------------------------------------------------------------------------------------------------------


def test_the_wheel_holds_one_folder(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(f"conntrack_monitor-{VERSION}.dist-info/METADATA").decode()
        inside = {name.partition("/")[2]: name for name in names if name.startswith("conntrack_monitor/")}
        for path in (*ROOT.glob("*.py"), DEMO):
            assert archive.read(inside.pop(path.name)) == path.read_bytes()
    assert inside.keys() == {"__init__.py", "__main__.py"}
    assert {name.partition("/")[0] for name in names} == {
        "conntrack_monitor",
        *(f"conntrack_monitor-{VERSION}.{kind}" for kind in ("data", "dist-info")),
    }
    assert f"\nVersion: {VERSION}\n" in metadata
    assert "\nRequires-Python: >=3.10\n" in metadata


def test_the_tested_versions_are_within_the_ranges(wheel: Path) -> None:
    from packaging.requirements import Requirement

    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"conntrack_monitor-{VERSION}.dist-info/METADATA").decode()
    ranges = {
        (one := Requirement(text)).name.lower(): one.specifier
        for text in re.findall(r"^Requires-Dist: (.*)", metadata, re.M)
    }
    tested = dict(re.findall(r"^(\w+)==(\S+)", (ROOT / "requirements.txt").read_text().lower(), re.M))
    assert ranges.keys() == tested.keys()
    for name, version in tested.items():
        assert ranges[name].contains(version), name
        assert not ranges[name].contains("99"), name
        assert not any(one.operator == "==" for one in ranges[name]), "exact pins are the lock file's"


def test_an_editable_installation_is_refused(env: dict[str, str], tools: Path) -> None:
    """It would put the flat modules onto the path of all that runs in that environment."""
    done = ended(tools / "uv", "pip", "install", "--python", tools / "python", "-e", ROOT, env=env)
    assert done.returncode != 0
    assert "in a checkout use: make run" in done.stderr


# --- as it was installed ----------------------------------------------------------------------------------------------


def test_it_says_what_the_checkout_says(installed: Installed, env: dict[str, str]) -> None:
    for words in (["--version"], ["--help"]):
        assert run(installed.program, *words, env=env) == run(*CHECKOUT, *words, env=env)
    words = ["--demo", "--once", "--json"]
    expected = timeless(run(*CHECKOUT, *words, env=env))
    assert len(expected) > 100
    for program in ([installed.program], [installed.python, "-m", "conntrack_monitor"]):
        assert timeless(run(*program, *words, env=env)) == expected


def test_a_screen(installed: Installed, env: dict[str, str]) -> None:
    words = ["--demo", "--speed", "0", "--no-download"]
    with Terminal(*words, program=[str(installed.program)], env=env, cwd=Path("/")) as screen:
        screen.wait("ESTAB")
        screen.type("q")
        assert screen.end() == 0


def test_nobody_gets_modules_of_these_names(installed: Installed, env: dict[str, str]) -> None:
    """Nor where somebody imports the package: only the program itself has its folder on the path."""
    names = [path.stem for path in ROOT.glob("*.py") if path.stem != "conntrack_monitor"]
    script = (
        "import importlib.util, sys; before = list(sys.path); import conntrack_monitor\n"
        f"print([name for name in {names} if importlib.util.find_spec(name)], sys.path == before)"
    )
    assert run(installed.python, "-I", "-c", script, env=env) == "[] True\n"  # -I: "/" has a folder run
    ours = [path.name for path in installed.packages.iterdir() if path.name.startswith("conntrack")]
    assert sorted(ours) == ["conntrack_monitor", f"conntrack_monitor-{VERSION}.dist-info"]
    assert [name for name in names if (installed.packages / f"{name}.py").exists()] == []


def test_manual_page_and_completions(installed: Installed, env: dict[str, str]) -> None:
    share = installed.environment
    assert (share / MAN).read_text() == run(installed.program, "--print-man", env=env)
    for shell, place in COMPLETIONS.items():
        assert (share / place).read_text() == run(installed.program, "--print-completion", shell, env=env)
        assert "_CONNTRACK_MONITOR_COMPLETE" in (share / place).read_text()


@pytest.mark.parametrize("way", ["command", "module"])
def test_its_children_start(way: str, installed: Installed, tmp_path: Path) -> None:
    """The one that fetches databases, and the one that writes the flow log."""
    words = [str(installed.program)] if way == "command" else [installed.python, "-m", "conntrack_monitor"]
    log = tmp_path / "log"
    with serving() as server:
        environ = {
            **FakeConntrack(tmp_path).env,
            "CONNTRACK_MONITOR_GEOIP_URL": f"http://127.0.0.1:{server.server_port}",
            "CONNTRACK_MONITOR_NO_DOWNLOAD": "0",
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
        }
        with OnScreen(tmp_path, "--log", log, size=(160, 30), program=words, env=environ, cwd=Path("/")) as screen:
            screen.wait("has no file for")
            wait_for(lambda: list(log.glob("flows-*.db")), lambda: screen.text, screen)
            screen.leave()


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_a_user_who_may_not_write(installed: Installed, env: dict[str, str]) -> None:
    """Root installed it; whoever runs it has no home, either."""
    if str(Path(installed.python).resolve()).startswith("/root/") and os.environ.get("CI") != "true":
        pytest.skip("this Python lies in root's home; install python3-venv")
    Path(env["HOME"]).chmod(0o755)
    environ = {**env, "HOME": "/nonexistent", "XDG_CACHE_HOME": "/nonexistent", "XDG_DATA_HOME": "/nonexistent"}
    done = run(*NOBODY, installed.program, "--demo", "--once", "--json", env=environ)
    assert timeless(done) == timeless(run(*CHECKOUT, "--demo", "--once", "--json", env=env))
    program = [*NOBODY, str(installed.program)]
    with Terminal("--demo", "--speed", "0", "--no-download", program=program, env=environ, cwd=Path("/")) as screen:
        screen.wait("ESTAB")
        screen.type("q")
        assert screen.end() == 0
