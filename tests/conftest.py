"""The user's environment stays out of the tests; what many of them need is made once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from support.docker import Engine

ROOT = Path(__file__).parent.parent

for name in [name for name in os.environ if name.startswith(("CONNTRACK_MONITOR_", "GEOIP_"))]:
    del os.environ[name]
os.environ["XDG_CONFIG_HOME"] = "/nonexistent"  # nor the user's settings
os.environ["BLESSED_QUERY_TIMEOUT_SECONDS"] = "0"

# A shell's job in the background ignores these (nohup's a third), and so would every program that is started here.
for number, handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

# Shared machines stall for seconds at a time: what a test finds must not depend on that.
hypothesis.settings.register_profile("steady", deadline=None, max_examples=150)
hypothesis.settings.register_profile("quick", deadline=None, max_examples=25)  # for the second Python and the third
hypothesis.settings.register_profile("long", deadline=None, max_examples=3000)  # by hand, after a change to the table
hypothesis.settings.load_profile("steady")


@pytest.fixture(scope="session")
def debian() -> Iterator[Path]:
    """A bare Debian as a tar file. In CI it must be possible."""
    from support import debian as makes

    if (reason := makes.missing_debian()) and os.environ.get("CI") != "true":
        pytest.skip(reason)
    with makes.quick_folder("base") as folder:
        yield makes.base(folder)


@pytest.fixture(scope="session")
def minbase(debian: Path) -> Iterator[Path]:
    """A folder with a bare Debian: Python, conntrack, nothing else."""
    from support import debian as makes

    with makes.quick_folder("minbase") as folder:
        tree = folder / "tree"
        makes.make(tree, debian)
        yield tree


@pytest.fixture(scope="session")
def engine(debian: Path) -> Iterator[Engine]:
    """A Docker engine of the tests' own, with the image built from what is here. In CI it must be possible."""
    from support import docker as makes
    from support.debian import run

    if reason := makes.missing_engine():
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with makes.Engine(debian) as made:
        run("make", "-C", str(ROOT), "image", env=made.env)
        made.docker("tag", makes.IMAGE, makes.KEPT)
        yield made


@pytest.fixture(scope="session")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one-file program as ``make pyz`` builds it, from what is here."""
    target = tmp_path_factory.mktemp("pyz") / "conntrack-monitor.pyz"
    command = [sys.executable, str(ROOT / "scripts" / "build_pyz.py"), str(target)]
    built = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False)
    if built.returncode and os.environ.get("CI") != "true":
        pytest.skip(f"the packages for the one file can't be fetched: {built.stderr[-200:]}")
    assert built.returncode == 0, built.stderr
    return target


@pytest.fixture
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()
