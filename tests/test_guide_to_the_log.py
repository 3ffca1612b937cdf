"""The sqlite3 commands of README.md and docs/log.md, typed on a flow log that the program's own rooms write."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from addresses import Place
from past import _TITLES, DAY_SECONDS, LOSING, DayFile, FlowValues
from support.terminal import ROOT

DAY = 20_781  # 2026-11-24
MIDNIGHT = DAY * DAY_SECONDS
FAR = 1  # the remote end is dst
GUIDE = (ROOT / "docs" / "log.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    (sqlite3 .+)$", GUIDE, re.M)
README = (ROOT / "README.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.skipif(
    shutil.which("sqlite3") is None and os.environ.get("CI") != "true", reason="not installed: sqlite3"
)


def masqueraded(file: DayFile) -> FlowValues:
    """A flow of a second that a router sent on under its own address."""
    kind = file.kind(file.name("router"), "destroy", "tcp", "TIME_WAIT", "snat", 1, FAR, None)
    file.place("198.51.100.7", Place("DE", asn=64_501))
    ends = (file.host("10.0.0.5"), 38_768, file.host("198.51.100.7"), 443)
    reply = (None, None, file.host("203.0.113.1"), None)
    return (kind, 50_550_000, 50_551_000, *ends, *reply, 12, 1_500, 10, 52_000, None, None, file.name("laptop"), None)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    file = DayFile(str(tmp_path), DAY, MIDNIGHT)
    file.put(file.next_flow(), masqueraded(file), None, is_new=True)
    place, service = file.place("198.51.100.7", Place("DE", asn=64_501)), file.name("tcp/443")
    group = (file.host("10.0.0.5"), 14, place, service, file.name("laptop"), file.name("router"))
    file.add(group, (1, 52_000, 1_500))
    file.gap("router", MIDNIGHT + 60, MIDNIGHT + 61.5, LOSING)
    file.commit(MIDNIGHT + 60_000)
    file.close()
    return tmp_path


def typed(command: str, folder: Path) -> list[list[str]]:
    """The rows of the table that a command prints, cell by cell, its head first."""
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=folder,
        env={**os.environ, "TZ": "UTC", "HOME": str(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in done.stdout.splitlines() if "│" in line]


def test_there_is_one_for_each_view() -> None:
    assert [re.findall(r"FROM (\w+)", command) for command in COMMANDS] == [["flow_log"], ["usage_log"], ["gap_log"]]


def test_who_used_the_public_address(log: Path) -> None:
    _, row = typed(COMMANDS[0], log)
    assert row == ["2026-11-24 14:02:30", "laptop", "10.0.0.5", "198.51.100.7", "443", "52000"]


def test_the_one_of_the_readme(log: Path) -> None:
    (command,) = re.findall(r"^    (sqlite3 .+)$", README, re.M)
    assert "/var/lib/flows/" in command
    _, row = typed(command.replace("/var/lib/flows", str(log)), log)
    assert row == ["laptop", "10.0.0.5", "198.51.100.7", "443", "52000"]


def test_who_used_the_bandwidth(log: Path) -> None:
    _, row = typed(COMMANDS[1], log)
    assert row == ["10.0.0.5", "laptop", "52000", "1500"]


def test_what_is_missing(log: Path) -> None:
    _, row = typed(COMMANDS[2], log)
    assert row == ["2026-11-24 00:01:00", "2026-11-24 00:01:01", LOSING]


def test_a_day_is_copied_while_it_is_written(log: Path) -> None:
    (command,) = re.findall(r"`(sqlite3 \S+ \"\.backup day\.db\")`", GUIDE)
    typed(command, log)
    assert typed(COMMANDS[1].replace(command.split()[1], "day.db"), log) == typed(COMMANDS[1], log)


def test_the_answer_that_is_shown_has_the_program_s_columns() -> None:
    shown = next(line for line in GUIDE.splitlines() if "KNOWN BY" in line)
    assert re.split(r"\s{2,}", shown.strip()) == list(_TITLES[1:])  # of one machine
    explained = GUIDE.partition("\n## Who had an address\n")[2].partition("\n## ")[0]
    said = [
        name for row in re.findall(r"^\| (`[A-Z].*?) \|", explained, re.M) for name in re.findall(r"`([A-Z ]+)`", row)
    ]
    assert said == [title for title in _TITLES if title != "PROTO"]
