"""What other programs may rely on: docs/contracts.md says it, and the program does it."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import click
import pytest

import config
import intake
from addresses import Fan, Named
from columns import VIEW_BY_NAME, VIEWS, ViewSpec
from conntrack_monitor import VERSION, command
from download import FETCHED_KINDS, FILE
from export import CSV_COLUMNS
from flows import NodeFacts
from grouping import GroupRow, group_object
from past import (
    DAY_SECONDS,
    DEAF,
    LOCK,
    LOSING,
    NOT_RUNNING,
    UNCOUNTED,
    UNHEARD,
    Answer,
    DayFile,
    Extent,
    LoggedGap,
    Question,
    answer_items,
    day_name,
)
from recording import FIRST_LINE
from support.program import CAPTURES
from support.terminal import ROOT

DOCUMENT = (ROOT / "docs" / "contracts.md").read_text(encoding="utf-8")
OPTIONS = [option for option in command.params if isinstance(option, click.Option) and not option.hidden]


def chapter(head: str) -> str:
    return DOCUMENT.partition(f"\n## {head}\n")[2].partition("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The rows of a chapter's tables, cell by cell, without their heads."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[0].startswith("`") or row[0].isdigit()]


def words(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def block(text: str) -> str:
    return text.split("```")[1].strip()


# --- command line, environment, settings ------------------------------------------------------------------------------


def test_every_option_by_all_its_names() -> None:
    said = [[word.split()[0] for word in words(row[0])] for row in rows(chapter("Command line"))]
    assert said == [*(option.opts for option in OPTIONS), ["-h", "--help"]]


def test_the_variable_of_every_option() -> None:
    said = {words(row[0])[-1].split()[0]: words(row[1]) for row in rows(chapter("Command line"))}
    assert said.pop("--help") == []
    assert said == {name: [f"CONNTRACK_MONITOR_{name[2:].replace('-', '_').upper()}"] for name in said}
    others = {option.opts[-1]: option.envvar for option in OPTIONS if option.envvar}
    assert others == {name: said[name][0] for name in others}
    for option in OPTIONS:
        assert option.allow_from_autoenv


def test_what_the_settings_file_may_set() -> None:
    said = {words(row[0])[-1].split()[0][2:]: row[2] for row in rows(chapter("Command line"))}
    refused = config.ONLY_ON_THE_COMMAND_LINE | config.INSTEAD.keys()
    assert said == {name: "no" if name in refused else "yes" for name in said}
    assert set(config.TABLES) == {"alert", "filters", "hosts", "local-networks", "marks", "zones"}
    assert f"{config.LARGEST_SETTINGS >> 10} KiB" in chapter("Settings")


def test_every_view() -> None:
    listed = re.search(r"^Views: (.+)\.$", chapter("Command line"), re.M)
    choice = next(option.type for option in OPTIONS if option.name == "view")
    assert listed
    assert isinstance(choice, click.Choice)
    assert words(listed[1]) == list(choice.choices) == list(VIEW_BY_NAME)


def test_every_variable_that_is_read() -> None:
    source = "".join(path.read_text() for path in ROOT.glob("*.py"))
    read = set(re.findall(r"""environ(?:\.get\(|\[)"([A-Z_]+)""", source))
    assert len(read) > 8
    assert read <= set(words(chapter("Environment")))


def test_the_exit_status() -> None:
    said = [int(row[0]) for row in rows(chapter("Exit status"))]
    assert said == [intake.SUCCESS, intake.FAILED, intake.USAGE, intake.NOT_PERMITTED, intake.NOT_FOUND]


# --- JSON and CSV -----------------------------------------------------------------------------------------------------


def json_keys() -> tuple[list[str], dict[str, list[str]]]:
    return block(chapter("JSON")).split(), {words(row[0])[0]: words(row[1]) for row in rows(chapter("JSON"))}


def test_keys_are_those_of_the_document_and_in_its_order() -> None:
    """Of all captures: all protocols, NAT, helpers, zones, userspace."""
    files = sorted(path for path in CAPTURES.glob("*/*.ext*.txt") if path.name[0] in "EL")
    program = [sys.executable, str(ROOT / "conntrack_monitor.py"), "--no-config", "--geoip-db", "/nonexistent"]
    done = subprocess.run(
        [*program, "--replay", "-", "--json"],
        input=b"".join(path.read_bytes() for path in files),
        capture_output=True,
        timeout=120,
        check=True,
    )
    order, inner = json_keys()
    items = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(items) > 3000
    for item in items:
        assert [*item] == [key for key in order if key in item]
        for name in inner.keys() & item.keys() - {"nat"}:
            assert [*item[name]] == [key for key in inner[name] if key in item[name]]


def test_columns_are_those_of_the_document() -> None:
    assert block(chapter("CSV")).replace("\n", "") == ",".join(CSV_COLUMNS)


def test_json_and_csv_tell_the_same() -> None:
    order, inner = json_keys()
    columns = [f"{key}.{part}" if part else key for key in order for part in inner.get(key, [""])]
    assert columns == list(CSV_COLUMNS)


@pytest.mark.parametrize("kind", [kind for kind in VIEWS if kind.grouping is not None], ids=lambda kind: kind.name)
def test_the_keys_of_a_view_s_rows(kind: ViewSpec) -> None:
    said = {name: words(row[1]) for row in rows(chapter("JSON")) for name in words(row[0])}
    assert kind.grouping is not None
    row = GroupRow({"services": "tcp/443", "states": "tcp\0CLOSE\0ASSURED"}.get(kind.name, "64500"))
    row.label = "a name" if kind.name in ("countries", "networks", "zones", "marks") else ""
    row.flows = row.rated = row.counted = 1
    who = Named("laptop", "02:00:5e:10:00:01", "web-db-1", "web/db")
    row.node = NodeFacts("stale", "ssh: timed out", 1, 2, 3.0, 4, 5.0) if kind.name == "nodes" else None
    row.fan = Fan(1, 1) if kind.name == "hosts" else None
    assert said[kind.name] == [*group_object(row, kind.grouping, who)]


# --- the flow log -----------------------------------------------------------------------------------------------------


def columns_of_the_log(folder: Path) -> dict[str, list[str]]:
    """The columns of each view of a day's file that is for others; ``unsummed`` is a part of one."""
    file = DayFile(str(folder), 20_781, 20_781 * DAY_SECONDS)
    file.close()
    with closing(sqlite3.connect(file.path)) as db:
        views = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'view'")]
        return {
            view: [row[1] for row in db.execute(f"PRAGMA table_info({view})")]
            for view in views
            if view.endswith("_log")
        }


def test_the_columns_of_the_flow_log(tmp_path: Path) -> None:
    there = columns_of_the_log(tmp_path)
    assert {words(row[0])[0]: words(row[1]) for row in rows(chapter("Flow log"))} == there
    explained = (ROOT / "docs" / "log.md").read_text(encoding="utf-8").partition("\n## Views\n")[2]
    for view, columns in there.items():
        table = explained.partition(f"\n`{view}`, ")[2].partition("\n\n")[2].partition("\n\n")[0]
        assert [word for row in rows(table) for word in words(row[0])] == columns


def test_the_keys_of_an_answer() -> None:
    extent = Extent(1.0, 9.0, gaps=[LoggedGap("r7", 2.0, 7.0, LOSING)])
    (last,) = answer_items(Question("192.0.2.1", None, None, 5.0, 1.0), Answer([], extent))
    before, _, after = chapter("Flow log").partition("then one with ")[2].partition(" (objects with ")
    inner, _, rest = after.partition(")")
    assert [*last] == [*words(before), *words(rest.partition(";")[0])]
    assert isinstance(last["gaps"], list)
    assert [*last["gaps"][0]] == words(inner)


def test_every_reason_of_a_gap_is_explained() -> None:
    explained = (ROOT / "docs" / "log.md").read_text(encoding="utf-8")
    for reason in (LOSING, DEAF, UNCOUNTED, UNHEARD, NOT_RUNNING):
        assert f"| `{reason}` |" in explained


def test_what_the_log_writes(tmp_path: Path) -> None:
    said = words(chapter("Files that it writes"))
    assert LOCK in said
    file = DayFile(str(tmp_path), 20_781, 20_781 * DAY_SECONDS)
    file.close()
    assert Path(file.path).name.replace(day_name(20_781), "YYYY-MM-DD") in said


# --- files ------------------------------------------------------------------------------------------------------------


def test_the_recording_that_is_shown_is_one(tmp_path: Path) -> None:
    text = block(chapter("Recordings"))
    assert text.encode().startswith(FIRST_LINE)
    (tmp_path / "shown.rec").write_text(text + "\n")
    program = [sys.executable, str(ROOT / "conntrack_monitor.py"), "--no-config", "--geoip-db", "/nonexistent"]
    done = subprocess.run(
        [*program, "--replay", str(tmp_path / "shown.rec"), "--once", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert "not understood" not in done.stderr


def test_the_files_of_the_databases() -> None:
    said = words(chapter("Files that it writes"))
    assert {FILE, *(f"dbip-{kind}-lite.mmdb" for kind in FETCHED_KINDS)} <= set(said)


# --- the version ------------------------------------------------------------------------------------------------------


def test_the_image_has_the_program_s_version() -> None:
    in_image = re.search(r"^ARG VERSION=(.+)$", (ROOT / "Dockerfile").read_text(), re.M)
    assert in_image
    assert in_image[1] == VERSION
