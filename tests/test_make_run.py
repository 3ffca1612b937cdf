"""`make run` on a fresh machine: what it says while it sets up, and what it plays where it can't watch the machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.terminal import ROOT

# In place of Python and pip, which would fetch packages: makes the environment that it is asked for, and repeats its words.
PYTHON = """\
#!/bin/sh
case "$*" in
*"-m venv "*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
conntrack_monitor.py*) echo "started: $*" ;;
esac
"""
REFUSED = "#!/bin/sh\necho 'Operation not permitted' >&2; exit 1\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that `make run` reads, and programs of which only Python is there."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    for name in ("Makefile", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "bin").mkdir()
    program(tmp_path, "python3", PYTHON)
    for name in ("sh", "dirname", "id", "mkdir", "cp", "touch", "make"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name) or pytest.skip(f"not installed: {name}"))
    return tmp_path


def program(checkout: Path, name: str, text: str) -> None:
    path = checkout / "bin" / name
    path.write_text(text)
    path.chmod(0o755)


def make_run(checkout: Path, words: str = "") -> tuple[str, list[str]]:
    """What it prints, and what it says on standard error."""
    # A PATH= in the scripts adds /usr/sbin and /sbin, where conntrack is; these come last.
    only = {"PATH": str(checkout / "bin"), "HOME": str(checkout)}
    done = subprocess.run(
        ["make", "run", f"ARGS={words}"],
        cwd=checkout,
        env=only,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr.splitlines()


def test_it_says_each_step_before_it_begins_and_none_that_is_done_already(checkout: Path) -> None:
    program(checkout, "conntrack", "#!/bin/sh\n")
    printed, said = make_run(checkout, "--once")
    assert printed == "started: conntrack_monitor.py --once\n"
    assert [line.split()[0] for line in said] == ["Creating", "Installing", "Setup"]
    assert f"{checkout}/.venv" in said[0]
    assert all("in about" in line for line in said[:2])
    assert make_run(checkout, "--once") == (printed, [])


def test_it_names_the_demo_that_it_plays_where_it_may_not_read_the_table(checkout: Path) -> None:
    program(checkout, "conntrack", REFUSED)
    make_run(checkout, "--version")
    printed, (why, instead) = make_run(checkout, "--once")
    assert printed == "started: conntrack_monitor.py --replay fixtures/demo.rec --once\n"
    assert why == "This machine cannot be watched: reading its connection table needs root (sudo make run)."
    assert "demo" in instead
    assert "fixtures/demo.rec" in instead


@pytest.mark.parametrize(
    "words", ["--replay day.rec", "--via sudo", "--who 192.0.2.1 --log DIR", "--update-geoip", "-h"]
)
def test_what_needs_no_table_of_this_machine_is_started_as_it_is(checkout: Path, words: str) -> None:
    program(checkout, "conntrack", REFUSED)
    make_run(checkout, "--version")
    assert make_run(checkout, words) == (f"started: conntrack_monitor.py {words}\n", [])


@pytest.mark.skipif(os.geteuid() != 0, reason="as root packages are installed, else they are only named")
def test_it_says_which_packages_are_installed(checkout: Path) -> None:
    program(checkout, "conntrack", "#!/bin/sh\n")
    program(checkout, "apt-get", "#!/bin/sh\n")
    program(
        checkout,
        "python3",
        PYTHON.replace("case", '[ "$1" = -c ] && [ ! -e installed ] && { touch installed; exit 1; }\ncase', 1),
    )
    _, said = make_run(checkout)
    assert said[0] == "Installing Debian packages with apt-get, in about a minute: python3 python3-venv"
