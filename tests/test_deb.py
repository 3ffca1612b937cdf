"""The Debian package: installed into a bare Debian, renewed, purged, and nothing of it is left; lintian finds no error."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conntrack_monitor import VERSION
from support import debian as bare
from support.kernel import Namespace, kernel_mark
from support.terminal import DEMO, Terminal
from test_pyz import BARE_ENV, run, timeless

ROOT = Path(__file__).parent.parent
NAME = "conntrack-monitor"
UNIT = f"/usr/lib/systemd/system/{NAME}.service"


def built(pyz: Path, folder: Path, *words: str) -> Path:
    if not shutil.which("dpkg-deb") and os.environ.get("CI") != "true":
        pytest.skip("not installed: dpkg")
    folder.mkdir()
    run(sys.executable, ROOT / "scripts" / "build_deb.py", pyz, "--to", folder, *words, env=os.environ)
    (path,) = folder.iterdir()
    return path


@pytest.fixture
def deb(pyz: Path, tmp_path: Path) -> Path:
    return built(pyz, tmp_path / "deb")


def test_the_same_commit_gives_the_same_package(deb: Path, pyz: Path, tmp_path: Path) -> None:
    assert deb.name == f"{NAME}_{VERSION}_all.deb"
    before = os.umask(0o077)
    try:
        assert built(pyz, tmp_path / "again").read_bytes() == deb.read_bytes()
    finally:
        os.umask(before)


def test_lintian_finds_no_error(deb: Path) -> None:
    if not shutil.which("lintian") and os.environ.get("CI") != "true":
        pytest.skip("not installed: lintian")
    command = ["lintian", "--fail-on", "error", "--allow-root", str(deb)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def found(tree: Path) -> set[str]:
    """All files, but for what dpkg itself writes, what Python compiles of its own, and what users' programs keep."""
    own = ("var/lib/dpkg/", "var/log/", "proc/", "root/.cache/")
    names = {str(path.relative_to(tree)) for path in tree.rglob("*") if not path.is_dir() or path.is_symlink()}
    return {name for name in names if not name.startswith(own) and "__pycache__" not in name}


@kernel_mark()
def test_a_bare_debian_from_nothing_to_a_screen_and_back(deb: Path, pyz: Path, minbase: Path, tmp_path: Path) -> None:
    """Without network: dpkg finds all that the package depends on. Renewed, it is the other version; purged, no trace."""
    newer = built(pyz, tmp_path / "newer", "--version", f"{VERSION}+next")
    before = found(minbase)
    with Namespace("deb") as namespace:
        inside = bare.inside(namespace, minbase)
        for path in (deb, newer):
            shutil.copy(path, minbase / "package.deb")
            run(*inside, "dpkg", "-i", "/package.deb", env=BARE_ENV)
            (minbase / "package.deb").unlink()
        query = run(*inside, "dpkg-query", "-W", "-f", "${Version} ${Status}", NAME, env=BARE_ENV)
        assert query == f"{VERSION}+next install ok installed"
        program = [*inside, NAME]
        assert run(*program, "--version", env=BARE_ENV).startswith(f"{NAME} {VERSION}")
        expected = run(
            sys.executable, ROOT / "conntrack_monitor.py", "--replay", DEMO, "--once", "--json", env=os.environ
        )
        assert len(timeless(run(*program, "--demo", "--once", "--json", env=BARE_ENV))) == len(timeless(expected))
        with Terminal("--demo", "--speed", "0", "--no-download", program=program, env=BARE_ENV) as screen:
            screen.wait("ESTAB")
            screen.type("q")
            assert screen.end() == 0
        unit = (minbase / UNIT[1:]).read_text()
        assert "ExecStart=/usr/bin/conntrack-monitor --headless" in unit
        assert "/usr/local" not in unit
        assert not list((minbase / "etc/systemd").rglob(f"{NAME}*")), "it is enabled by whoever wants a log"
        run(*inside, "dpkg", "--purge", NAME, env=BARE_ENV)
    assert found(minbase) == before
