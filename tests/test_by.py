"""Rows by any keys: --by, the views of states, zones and marks, and what is within a row."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addresses import Context, Lookups, Site
from columns import VIEW_BY_NAME, by_view, table_text
from export import view_texts
from filters import MAKERS, FilterError, compile_filter
from grouping import KEYS, NO_KEYS, Grouper, GroupKey, GroupRow, by_keys, group_keys, group_object
from live import affected_flows, copied
from support.strategies import blocks
from support.tables import MARKS, Monitor, flows_of, line, listing, marked_table, place_of, shown
from view import Rows, RowsWanted
from vocabulary import FIELDS

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "fixtures" / "demo.rec"


def by(*words: str) -> subprocess.CompletedProcess[str]:
    """The program over the bundled recording."""
    command = [sys.executable, "conntrack_monitor.py", "--no-config", "--no-download", "--replay", str(DEMO), *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


# --- keys -------------------------------------------------------------------------------------------------------------


def test_all_fields_with_one_value_are_keys() -> None:
    assert KEYS.keys() | NO_KEYS.keys() == {field.name for field in FIELDS} == MAKERS.keys()
    assert not KEYS.keys() & NO_KEYS.keys()


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("near/24,service,state", [("near", 24), ("service", None), ("state", None)]),
        ("FAR/0, proto", [("far", 0), ("proto", None)]),
    ],
)
def test_what_keys_are(text: str, keys: list[tuple[str, int | None]]) -> None:
    assert list(group_keys(text)) == [GroupKey(*key) for key in keys]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("foo", "'foo' is not a key; valid: proto state "),
        ("", "'' is not a key"),
        ("near,", "'' is not a key"),
        ("host", "'host' names either end; write near"),
        ("port", "'port' names either port; write dport"),
        ("near/24,near/16", "'near' is there twice"),
        ("state/24", "'state/24': near/24 cuts near, far, src, dst and wan"),
        ("near/129", "'near/129': near/24 cuts"),
        ("near/", "'near/': near/24 cuts"),
        (",".join(list(KEYS)[:9]), "9 keys are too many: 8 at most"),
    ],
)
def test_what_wrong_keys_get(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(why)}"):
        group_keys(text)


@given(block=blocks, names=st.lists(st.sampled_from(sorted(KEYS)), min_size=1, max_size=4, unique=True))
def test_a_row_has_exactly_the_flows_that_its_values_select(block: bytes, names: list[str]) -> None:
    """Each value is what the field takes in a filter, so that the sums can be held against the filters."""
    flows, context = flows_of(block)
    grouping = by_keys(group_keys(",".join(names)))
    grouper = Grouper(grouping, context)
    grouper.add(flows)
    assert sum(row.flows for row in grouper.sums.values()) == len(flows)
    for row in grouper.sums.values():
        item = group_object(row, grouping)
        exact = [name for name in names if name in item and name not in ("rate", "age", "idle")]
        # Sizes are compared as floats.
        terms = [
            f'{name}:"{item[name]}"' for name in exact if not str(item[name]).isdigit() or int(str(item[name])) < 2**53
        ]
        try:
            wanted = compile_filter(" ".join(terms), context)
        except FilterError:  # what a recording has in place of an address
            continue
        assert row.flows <= (sum(map(wanted, flows)) if wanted else len(flows)), terms


@given(block=blocks, view=st.sampled_from(["states", "zones", "marks"]))
def test_enter_on_a_state_a_zone_or_a_mark_shows_exactly_its_flows(block: bytes, view: str) -> None:
    flows, context = flows_of(block)
    grouping = VIEW_BY_NAME[view].grouping
    assert grouping
    grouper = Grouper(grouping, context)
    grouper.add(flows)
    for key, row in grouper.sums.items():
        wanted = compile_filter(grouping.term(key), context)
        assert wanted
        zones_of_both = "," in key  # a term with two zones selects either
        assert sum(map(wanted, flows)) == row.flows or zones_of_both, key


def test_networks_of_both_families() -> None:
    monitor = Monitor(
        [line(1, src="10.1.2.3"), line(2, src="10.1.2.77"), line(3, src="2001:db8:1:2:3::4", dst="2001:db8::1")]
    )
    flows = list(monitor.table)
    for text, wanted in (
        ("src/24", {"10.1.2.0/24": 2, "2001:db8:1:2::/64": 1}),
        ("src/48", {"10.1.2.3/32": 1, "10.1.2.77/32": 1, "2001:db8:1::/48": 1}),
    ):
        grouper = Grouper(by_keys(group_keys(text)), Context())
        grouper.add(flows)
        assert {key: row.flows for key, row in grouper.sums.items()} == wanted


# --- the command line -------------------------------------------------------------------------------------------------


def test_text_json_and_csv_say_the_same() -> None:
    words = ("--once", "--by", "near/24,service,state", "--sort", "flows")
    items = [json.loads(text) for text in by(*words, "--json").stdout.splitlines()]
    cells = list(csv.DictReader(io.StringIO(by(*words, "--csv").stdout)))
    lines = by(*words).stdout.splitlines()
    assert lines[0].split()[:4] == ["NEAR/24", "SERVICE", "STATE", "FLOWS"]
    assert len(items) == len(cells) == len(lines) - 1 > 20
    for item, row, text in zip(items, cells, lines[1:]):
        assert {key: str(value) for key, value in item.items()} == {key: value for key, value in row.items() if value}
        assert text.split()[:4] == [item["near"], item["service"], item.get("state", "-"), str(item["flows"])]
    assert [item["flows"] for item in items] == sorted((item["flows"] for item in items), reverse=True)
    single = by("--once", "--json").stdout.splitlines()
    assert sum(item["flows"] for item in items) == sum('"event":"destroy"' not in text for text in single)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--by", "state"), "--by requires --once."),
        (("--once", "--by", "state", "--view", "hosts"), "--by and --view can't be combined"),
        (("--once", "--by", "host"), "Invalid value for '--by': 'host' names either end"),
        (("--once", "--by", "near", "--sort", "city"), "'city' is not a column of the view near"),
    ],
)
def test_what_by_may_not_be_combined_with(words: tuple[str, ...], says: str) -> None:
    done = by(*words)
    assert (done.returncode, says in done.stderr) == (2, True), done.stderr


def test_unknown_values_have_no_key_and_come_last() -> None:
    udp = line(2).replace("tcp      6 300 ESTABLISHED", "udp      17 30")
    monitor = Monitor([line(1), udp])
    spec = by_view("state,proto")
    wanted = RowsWanted(spec, "", "state", False, closed=False, at_once=True)
    rows = Rows(monitor.view.context).all(wanted, monitor.table)
    assert [group_object(row, spec.grouping).get("state") for row in rows if spec.grouping] == ["ESTABLISHED", None]
    assert table_text(spec, rows, monitor.view.context).splitlines()[2].split()[:3] == ["-", "udp", "1"]
    (_, *lines) = "".join(view_texts(spec.grouping, rows, "csv", monitor.view.context, None)).splitlines()
    assert [text.split(",")[1:4] for text in lines] == [["ESTABLISHED", "tcp", "1"], ["", "udp", "1"]]


# --- the screen -------------------------------------------------------------------------------------------------------


def test_the_views_of_states_zones_and_marks() -> None:
    monitor = Monitor()
    monitor.view = type(monitor.view)(Context(site=Site(marks=MARKS, zones={3: "office"}), now=100.0))
    monitor.table = marked_table()
    monitor.now = 1.0
    monitor.refresh()
    monitor.keys("9")
    assert [row.key.split("\0") for row in monitor.view.rows.order] == [["udp", "", ""]]
    monitor.keys("t")
    assert {(row.key, row.label, row.flows) for row in monitor.view.rows.order} == {
        ("3", "office", 2),
        ("4", "", 1),
        ("0", "", 1),
    }
    monitor.keys("t")
    assert {(row.key, row.label) for row in monitor.view.rows.order} >= {("0x7", "vpn"), ("0x17", "both"), ("0x8", "")}
    at = [row.key for row in monitor.view.rows.order].index("0x7")
    monitor.view.select(at)
    monitor.keys("enter")
    assert (monitor.view.spec.name, monitor.view.filter, len(monitor.view.rows.order)) == ("connections", "mark:0x7", 1)
    monitor.keys("esc", "t")
    assert monitor.view.spec.name == "states"


PLACES = Lookups(place_of)
LAN_LINES = [
    *(line(n, src="10.0.0.1", dst=f"8.8.8.{n}", size=100 * n) for n in range(1, 7)),
    *(line(20 + n, src="10.0.0.2", dst=f"9.9.9.{n}", size=7) for n in range(1, 4)),
]


def test_a_host_is_opened_into_its_countries_and_closed_again() -> None:
    monitor = Monitor(LAN_LINES, PLACES)
    monitor.keys("2", "right")
    assert (monitor.view.opened, monitor.view.shift) == (frozenset(), 1)  # nothing is selected: columns move
    monitor.keys("left", "down", "right")
    monitor.refresh(2)
    host = monitor.view.selected
    assert isinstance(host, GroupRow)
    order = monitor.view.rows.order
    parts = [row for row in order if "\0" in row.key]
    by_country = Counter(
        place_of(flow.addresses()[1].decode()).country or ""
        for flow in monitor.table
        if flow.addresses()[0].decode() == host.key
    )
    assert {row.key.split("\0")[1]: row.flows for row in parts} == dict(by_country)
    assert [row.key.split("\0")[0] for row in order[1 : 1 + len(parts)]] == [host.key] * len(parts)
    assert sum(row.flows for row in parts) == host.flows == sum(by_country.values())
    assert abs(sum(row.share for row in parts) - host.share) < 1e-9
    assert any(text.startswith("  DE Germany") for text in shown(monitor))
    assert any(text.startswith("Hosts · 2 · 9 flows") for text in shown(monitor))
    monitor.keys("right")
    assert monitor.view.shift == 1  # it is open: columns move
    monitor.keys("left", "down")
    part = monitor.view.selected
    assert isinstance(part, GroupRow)
    flows = affected_flows(monitor.view, monitor.table, everything=False)
    assert len(flows) == part.flows
    assert json.loads(copied(monitor.view))["near"] == host.key
    monitor.keys("enter")
    monitor.refresh(2)
    assert {flow.key for flow in monitor.view.rows.order} == {flow.key for flow in flows}
    monitor.keys("esc")
    monitor.refresh(2)
    assert monitor.view.spec.name == "hosts"


def test_left_on_a_part_closes_the_row_that_it_stands_below() -> None:
    monitor = Monitor(LAN_LINES, PLACES)
    monitor.keys("2", "down", "right", "down")
    before = monitor.view.selected
    assert isinstance(before, GroupRow)
    monitor.keys("left")
    assert monitor.view.opened == frozenset()
    assert isinstance(monitor.view.selected, GroupRow)
    assert monitor.view.selected.key == before.key.partition("\0")[0]
    assert len(monitor.view.rows.order) == 2


@pytest.mark.parametrize("view", ["3", "4", "5", "9"])
def test_other_sums_are_opened_into_their_hosts(view: str) -> None:
    monitor = Monitor(LAN_LINES, PLACES)
    monitor.keys(view, "down", "right")
    parts = [row for row in monitor.view.rows.order if row.key.endswith(("\x0010.0.0.1", "\x0010.0.0.2"))]
    assert parts
    assert sum(row.flows for row in parts) == monitor.view.rows.order[0].flows
    assert any(text.startswith("  10.0.0.") for text in shown(monitor))
    monitor.keys("s", "s", "r")  # in any order of the rows the parts stand below their own
    at = {row.key: at for at, row in enumerate(monitor.view.rows.order)}
    for part in parts:
        assert at[part.key] > at[part.key.rpartition("\0")[0]]
    monitor.keys("enter", "esc")
    listing(monitor.table, [], 110.0)  # all have ended
    monitor.refresh(10)
    assert shown(monitor)
