"""The ways to run without a screen: what is made ahead changes nothing, and every view goes into a pipe."""

from __future__ import annotations

import json
import subprocess
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
from support.strategies import blocks
from support.terminal import DEMO, PROGRAM
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


@pytest.mark.parametrize("kind", [kind for kind in VIEWS if not kind.on_map], ids=lambda kind: kind.name)
def test_every_view_of_the_recording_in_a_pipe(kind: Any) -> None:
    lines: dict[str, list[str]] = {}
    for form in ("--json", "--csv", "--no-color"):
        args = [*PROGRAM, "--replay", str(DEMO), "--no-download", "--once", "--view", kind.name, form]
        lines[form] = subprocess.run(args, capture_output=True, check=True, text=True).stdout.splitlines()
    items = [json.loads(line) for line in lines["--json"]]
    assert len(items) > 0
    assert len(lines["--csv"]) == len(lines["--no-color"]) == len(items) + 1
    assert lines["--no-color"][0].split()[0] == kind.columns[0].title
