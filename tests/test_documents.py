"""The documents for users: what they say of messages, commands and each other is so."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from itertools import chain
from pathlib import Path

import click
import pytest

from addresses import Context
from conntrack_monitor import command
from filters import compile_filter
from support.messages import UNKNOWN, House, messages, plain, says_something
from support.program import environment
from support.terminal import PROGRAM, ROOT

README = ROOT / "README.md"
GUIDES = [README, *sorted((ROOT / "docs").glob("*.md"))]
TROUBLESHOOTING = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
# What stands before the program's name in a command; the wrapper's path ends in the same name and is another program.
BEFORE = r"(?:\S*echo '\. <\(|(?:CONN\w+=\S+ )?(?:sudo )?(?:docker exec (?:-it )?conntrack-monitor )?)"
COMMAND = re.compile(
    BEFORE + r"(?:(?:\./)?conntrack-monitor(?:\.pyz)?|\.venv/bin/python conntrack_monitor\.py)(?: (.*))?"
)


def cells(head: str) -> list[str]:
    """The first cells of all tables whose first column has that head."""
    tables = re.findall(rf"^\| {head} \|[^\n]*\n\|[- |]+\|\n((?:\|[^\n]*\n)+)", TROUBLESHOOTING, re.M)
    return [line[2:].partition(" | ")[0] for table in tables for line in table.splitlines()]


def spans(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


DOCUMENTED = [span for cell in cells("message") for span in spans(cell)]


def covers(documented: str, text: str) -> bool:
    """Is this the message? In the document an UNKNOWN may stand for anything; in the code for what nobody knows yet.

    >>> covers("… skipped: …", "… skipped: the file is empty")
    True
    >>> covers("the file is empty", "… skipped: the file is empty")
    False
    """
    pattern = ".*".join(map(re.escape, documented.split(UNKNOWN)))
    # What a text begins or ends with may be nothing.
    return any(re.fullmatch(pattern, said) for said in (text, text.removesuffix(UNKNOWN).rstrip(), f"{UNKNOWN} {text}"))


# --- messages ---------------------------------------------------------------------------------------------------------


def test_every_message_of_the_program_is_explained() -> None:
    missing = [str(said) for said in messages() if not any(covers(span, said.text) for span in DOCUMENTED)]
    assert missing == [], "add a row to docs/troubleshooting.md, or mend the one that was reworded"


def test_every_message_that_is_explained_is_one_of_the_program() -> None:
    texts = [said.text for said in messages()]
    assert [span for span in DOCUMENTED if not any(covers(plain(span), text) for text in texts)] == []


def test_a_message_is_explained_once_and_with_a_cure() -> None:
    assert len(DOCUMENTED) == len(set(DOCUMENTED)) > 100
    assert all(map(says_something, (span for span in DOCUMENTED if UNKNOWN not in span)))
    for line in TROUBLESHOOTING.splitlines():
        if line.startswith("| ") and not line.startswith("| ---"):
            row = line.strip("| ").split(" | ")
            assert len(row) == 3, line
            assert all(row), line


def test_what_the_setup_script_says() -> None:
    script = (ROOT / "setup-conntrack-monitor.sh").read_text(encoding="utf-8")
    said = [span for cell in cells("said by the setup script") for span in spans(cell)]
    assert len(said) >= 2
    assert [span for span in said if span not in script] == []


def test_messages_are_found_wherever_they_are_said(tmp_path: Path) -> None:
    """Through names, constants, functions, both ways of a condition, and rows that a loop goes over."""
    (tmp_path / "text.py").write_text("")
    (tmp_path / "room.py").write_text(
        'OFF = "the pump is off"\n'
        'ROWS = (("a", "one valve leaks"),)\n'
        "def why(n: int) -> str:\n"
        '    return f"only {n} litres came" if n else "no water came"\n'
        "def tell(n: int, path: str) -> None:\n"
        '    text = "not this text"\n'
        '    text = f"{path} is dry"\n'
        "    if n:\n"
        '        text += ", very"\n'
        "    say(text)\n"
        "    yield Problem(OFF)\n"
        '    raise click.UsageError(f"Sorry: {why(n)}")\n'
        "def rows() -> None:\n"
        "    for name, words in ROWS:\n"
        '        self.message = f"{name}: {words}"\n'
    )
    house = House(tmp_path)
    assert {text for _room, node in house.spoken() for text in house.texts(node)} == {
        *("the pump is off", "… is dry…", "Sorry: only … litres came", "Sorry: no water came", "a: one valve leaks"),
    }


# --- commands ---------------------------------------------------------------------------------------------------------


def commands(document: Path) -> list[str]:
    """The program's options in each command that a document prints: in its blocks, and in cells and sentences."""
    text = document.read_text(encoding="utf-8")
    lines = re.findall(r"^    (\S.*)$", text, re.M)
    quoted = [span for line in text.splitlines() if not line.startswith("    ") for span in spans(line)]
    parts = chain.from_iterable(re.split(r" \| | && |; ", re.sub(r"\s+# .*", "", line)) for line in [*lines, *quoted])
    found = (COMMAND.fullmatch(part) for part in parts)
    return [re.split(r" >{1,2} |\)' >>", match[1] or "")[0] for match in found if match]


PRINTED = [(path.name, words) for path in GUIDES if path.name != "contracts.md" for words in commands(path)]


@pytest.mark.parametrize("words", [pytest.param(words, id=f"{name}: {words}") for name, words in PRINTED])
def test_a_command_that_a_document_prints_is_understood(words: str) -> None:
    try:
        given = command.make_context("conntrack-monitor", shlex.split(words))
        assert compile_filter(given.params["expression"] or "proto:tcp", Context()) is not None
    except click.exceptions.Exit as end:  # it prints something and exits
        assert end.exit_code == 0


ON_THE_RECORDING = sorted(
    {words for _, words in PRINTED if words.startswith("--once") and "--log" not in words and "--sample" not in words}
)


@pytest.mark.parametrize("words", ON_THE_RECORDING)
def test_a_command_that_prints_a_table_prints_one(words: str, tmp_path: Path) -> None:
    """Of the bundled recording in place of the kernel."""
    argv = [*PROGRAM, *shlex.split(words), "--replay", "fixtures/demo.rec", "--no-config"]
    settings = {**os.environ, **environment(tmp_path)}
    done = subprocess.run(argv, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_documents_print_commands() -> None:
    assert len(PRINTED) >= 30
    assert len(ON_THE_RECORDING) >= 4


# --- each other -------------------------------------------------------------------------------------------------------


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("document", [*GUIDES, *ROOT.glob("[A-Z]*.md")], ids=lambda path: path.name)
def test_a_link_leads_to_a_heading(document: Path) -> None:
    for target, name in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", document.read_text(encoding="utf-8")):
        text = ((document.parent / target) if target else document).read_text(encoding="utf-8")
        assert name in map(anchor, re.findall(r"^#+ (.+)$", text, re.M)), f"{target}#{name}"


def test_the_readme_is_short_and_leads_to_every_document() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 160
    assert [path.name for path in (ROOT / "docs").glob("*.md") if f"(docs/{path.name})" not in text] == []
