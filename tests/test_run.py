"""The ways to run without a screen: what is made ahead changes nothing, and every view goes into a pipe."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import view
from addresses import Context
from columns import SORTS, VIEW_BY_NAME, VIEWS
from filters import compile_filter
from flows import FlowTable
from parse import split_lines
from support.program import FakeConntrack, OnScreen, changed
from support.strategies import blocks
from support.terminal import DEMO, PROGRAM, ROOT
from view import Rows, RowsWanted, View, refresh


@given(block=blocks, later=blocks, sort=st.sampled_from(SORTS), word=st.sampled_from(["", "proto:tcp"]))
def test_keys_made_ahead_change_nothing(block: bytes, later: bytes, sort: str, word: str) -> None:
    """Also where flows that have keys already end, or others take their place."""
    spec = VIEW_BY_NAME["connections"]

    predicate = compile_filter(word, Context())
    wanted = RowsWanted(spec, word, sort, reverse=False, closed=False, predicate=predicate, at_once=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(view, "AHEAD", 1)
        table = FlowTable(linger=0.0)
        ahead = Rows(Context())
        for part in (block, later):
            table.begin_listing(0.0)
            table.listed_all(split_lines(part)[0], 0.0)
            ahead.look_ahead(wanted, table)
            table.end_listing(True, 0.0)
    rows = ahead.all(wanted, table)
    assert rows == Rows(Context()).all(wanted, table)
    plain = View(Context(), sort=sort)
    plain.set_filter(word)
    refresh(plain, table, 1.0)
    assert [flow.record().id for flow in rows] == [flow.record().id for flow in plain.rows.order]


@pytest.mark.parametrize(
    "kind", [kind for kind in VIEWS if not kind.on_map and not kind.logged], ids=lambda kind: kind.name
)
def test_every_view_of_the_recording_in_a_pipe(kind: Any) -> None:
    lines: dict[str, list[str]] = {}
    for form in ("--json", "--csv", "--no-color"):
        args = [*PROGRAM, "--replay", str(DEMO), "--no-download", "--once", "--view", kind.name, form]
        lines[form] = subprocess.run(args, capture_output=True, check=True, text=True).stdout.splitlines()
    items = [json.loads(line) for line in lines["--json"]]
    assert len(items) > 0
    assert len(lines["--csv"]) == len(lines["--no-color"]) == len(items) + 1
    first = next(column for column in kind.columns if column.only_with != "nodes")
    assert lines["--no-color"][0].split()[0] == first.title


NEW_FLOW = (
    "[1795386413.786793]\\t    [NEW] udp      17 30 src=10.0.0.7 dst=192.0.2.77 sport=7777 dport=53 [UNREPLIED] "
    "src=192.0.2.77 dst=10.0.0.7 sport=53 dport=7777 id=77\\n"
)


def test_times_follow_a_clock_that_is_stepped(tmp_path: Path) -> None:
    """A router without a clock battery: minutes after the start the clock is set, by two hours here.

    The tape and at: were wrong by the step ever after.
    """
    step = tmp_path / "step"
    step.write_text("0")
    fake = FakeConntrack(tmp_path, events=f"printf '{NEW_FLOW}'; exec sleep 60")
    stepped = changed(f"import time; real = time.time; time.time = lambda: real() + float(open({str(step)!r}).read())")
    env = {**fake.env, "TZ": "UTC"}
    with OnScreen(tmp_path, "--no-config", "--view", "events", size=(120, 20), env=env, program=stepped) as screen:

        def told() -> int | None:
            """The row's time of day, in seconds."""
            found = re.search(r"(\d\d):(\d\d):(\d\d)\.\d{3} +NEW", screen.text)
            return None if found is None else (int(found[1]) * 60 + int(found[2])) * 60 + int(found[3])

        screen.wait("Events")
        fake.breaks()
        screen.wait(lambda: told() is not None)
        before = told()
        assert before is not None
        (tmp_path / "next").write_text("7200")
        (tmp_path / "next").replace(step)  # the program never reads a half of it
        after = (before + 7200) % 86_400
        screen.wait(lambda: told() == after)
        for minutes, found in ((after // 60, True), (before // 60, False)):
            screen.type(f"/\x15at:{minutes // 60:02}:{minutes % 60:02}\r")
            screen.wait("filter at:")
            screen.wait(lambda found=found: (told() is not None) == found)  # type: ignore[misc]
        screen.leave()


@pytest.mark.parametrize("words", [("--sort", "rate"), ("--view", "hosts", "--sort", "in"), ("-f", "rate:>1k")])
def test_who_asks_one_listing_for_rates_hears_what_gives_them(words: tuple[str, ...], tmp_path: Path) -> None:
    fake = FakeConntrack(tmp_path)
    command = [*PROGRAM, "--no-config", "--no-download", "--conntrack", str(tmp_path / "conntrack"), "--once", *words]
    for more, said in (((), True), (("--sample", "0.2"), False)):
        done = subprocess.run([*command, *more], capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path)
        assert ("a single listing has no rates; try: --sample 5" in done.stderr) is said, done.stderr
    assert fake.starts("-L") == 3


UNMARKED = "new: matches nothing here: only the screen has marks; on the screen, m sets one"
UNCOUNTED = "fanout: and ports: match nothing here: a stream does not count all flows; try: --once --json"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--json", "-f", "new:host"), [UNMARKED]),
        (("--once", "-f", "new:"), [UNMARKED]),
        (("--csv", "-f", "fanout:>1 or ports:>20"), [UNCOUNTED]),
        (("--json", "-f", "dport:443"), []),
        (("--once", "--json", "-f", "fanout:>1"), []),
    ],
)
def test_a_term_that_nobody_can_answer_here_is_said(words: tuple[str, ...], said: list[str]) -> None:
    command = [*PROGRAM, "--no-config", "--no-download", "--demo", "--speed", "0", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    found = [line for line in done.stderr.splitlines() if "match" in line]
    assert [line.partition(": ")[2] for line in found] == said
    assert bool(said) == (len(done.stdout.splitlines()) <= 1)  # a header at most


WRITES = """
import os, sys, run

def made():
    for number in range(2 * run.WRITTEN_AT_ONCE):
        if number == run.WRITTEN_AT_ONCE:
            sys.stderr.write(str(os.fstat(1).st_size))
        yield f"{number:4}\\n"

run.Pipe(run.Signals()).write(made())
"""


def test_lines_are_written_as_they_are_made(tmp_path: Path) -> None:
    """JSON of 200,000 flows has 108 MB: all of it at once took 360 MB more."""
    with (tmp_path / "lines").open("wb") as file:
        argv = [sys.executable, "-c", WRITES]
        ended = subprocess.run(argv, cwd=ROOT, stdout=file, stderr=subprocess.PIPE, check=True)
    assert (tmp_path / "lines").read_text().split() == [str(number) for number in range(1000)]
    assert int(ended.stderr) == 5 * 500
