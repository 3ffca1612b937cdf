"""Several tables read as one: every answer is that of the nodes one by one, with few addresses on all of them."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addresses import Context, Contexts, Lookups, Named
from columns import FLOW_COLUMNS, VIEW_BY_NAME, VIEWS, ViewSpec, facts_of, tab_of, table_text, tabs
from export import view_texts
from filters import compile_filter
from flows import GONE, LIVE, TAPE, Flow, FlowTable, FlowTables, NodeFacts, TapeLine
from grouping import BETWEEN, GROUPINGS, GroupRow, UsageRow, by_keys, group_keys, group_object, row_of
from health import About, Notice, by_weight
from intake import Problem, Status, together
from support.tables import Monitor, event, feed, is_well_formed, line, listing, place_of, shown
from view import LoggedUsage, NodeScene, Rows, RowsWanted, Scene, View, refresh

ENDS = ["10.0.0.1", "10.0.0.2", "203.0.113.1", "8.8.8.8", "9.9.9.9"]
FILTERS = [
    *("dir:in", "dir:fwd", "dir:out", "near:10.0.0.1", "far:8.8.8.8", "country:DE", "10.0.0.1", "nat:snat", "nat:masq"),
    *("node:r1", "!node:R2", "node:r1 or dir:in", "name:home", "r1", "fanout:>1"),
]


def _name_of(names: dict[str, Named], address: str) -> Named:
    return names.get(address, Named())


class Fleet:
    """Nodes with tables, addresses and names of their own, and what is read of all of them."""

    def __init__(self, flows: dict[str, list[tuple[str, str, str]]], own: dict[str, str]) -> None:
        """``flows``: by node source, destination and the address that SNAT puts in; ``own``: a node's address."""
        self.tape = deque[TapeLine](maxlen=TAPE)
        self.tables: dict[str, FlowTable] = {}
        self.contexts: dict[str, Context] = {}
        for node, its in flows.items():
            table = self.tables[node] = FlowTable(own=frozenset({own[node]}), tape=self.tape)
            table.know_node(node)
            lines = [line(at, src=src, dst=dst, reply_dst=wan, size=at * 100) for at, (src, dst, wan) in enumerate(its)]
            listing(table, lines, 0.0)
            names = {own[node]: Named(name=f"home-of-{node}")}
            lookups = Lookups(place_of, who=partial(_name_of, names), knows_names=lambda: True)
            self.contexts[node] = Context(lookups, among=lambda: len(flows) > 1)
        self.table = FlowTables(self.tables, self.tape)
        self.context = Contexts(self.contexts, Lookups(place_of), epoch=lambda: 0.0)
        self.table.advance(self.context, 5.0)

    def each(self, ask: Callable[[FlowTable, Context], list[Flow]]) -> list[Flow]:
        return [flow for node, table in self.tables.items() for flow in ask(table, self.contexts[node])]


_flow = st.tuples(*[st.sampled_from(ENDS)] * 3)
fleets = st.builds(
    Fleet,
    st.fixed_dictionaries({name: st.lists(_flow, max_size=5, unique=True) for name in ("r1", "r2", "a b")}),
    st.fixed_dictionaries({name: st.sampled_from(ENDS) for name in ("r1", "r2", "a b")}),
)


@given(fleets, st.sampled_from(FILTERS))
@settings(max_examples=200, deadline=None)
def test_a_filter_wants_of_all_nodes_what_it_wants_of_each(fleet: Fleet, text: str) -> None:
    def ask(table: FlowTable, context: Context) -> list[Flow]:
        rows = Rows(context)
        return list(rows.all(wanted(context, text), table))

    found = Rows(fleet.context).all(wanted(fleet.context, text), fleet.table)
    assert set(found) == set(fleet.each(ask))
    assert len(found) == len(set(found))


def wanted(context: Context, text: str = "", view: str = "connections", sort: str = "source") -> RowsWanted:
    spec = VIEW_BY_NAME[view]
    predicate = compile_filter(text, context)
    return RowsWanted(spec, text, sort, False, closed=True, predicate=predicate, at_once=True)


@given(fleets, st.sampled_from([column for column in FLOW_COLUMNS if not column.narrow_form_of]))
@settings(max_examples=200, deadline=None)
def test_what_a_row_says_and_is_sorted_by_is_what_its_own_node_says(fleet: Fleet, column: object) -> None:
    flows = fleet.table.live_flows()
    keys = column.keys(flows, fleet.context)  # type: ignore[attr-defined]
    alone = [column.keys([flow], fleet.contexts[flow.node])[0] for flow in flows]  # type: ignore[attr-defined]
    assert keys == alone
    cell = column.cell  # type: ignore[attr-defined]
    assert [cell(facts_of(flow, fleet.context, True)) for flow in flows] == [
        cell(facts_of(flow, fleet.contexts[flow.node], True)) for flow in flows
    ]


@given(fleets, st.sampled_from([*GROUPINGS.values(), by_keys(group_keys("node")), by_keys(group_keys("dir,near"))]))
@settings(max_examples=200, deadline=None)
def test_a_sum_of_all_nodes_is_the_sum_of_theirs(fleet: Fleet, grouping: object) -> None:
    spec = next(
        (spec for spec in VIEW_BY_NAME.values() if spec.grouping == grouping and not spec.on_map),
        VIEW_BY_NAME["nodes"],
    )
    asked = RowsWanted(spec, "", spec.sort, False, closed=True, at_once=True)
    found = Rows(fleet.context).all(asked, fleet.table)
    number, size = Counter[str](), Counter[str]()
    for node, table in fleet.tables.items():
        for row in Rows(fleet.contexts[node]).all(asked, table):
            number[row.key] += row.flows
            size[row.key] += row.size
    assert {row.key: row.flows for row in found} == dict(number)
    assert {row.key: row.size for row in found} == {key: size[key] for key in number}
    assert sum(row.flows for row in found) == len(fleet.table)


@given(fleets)
def test_the_row_of_a_flow_has_a_term_that_finds_it(fleet: Fleet) -> None:
    """Also of a node whose name has a blank."""
    grouping = by_keys(group_keys("node,dir"))
    key_of = row_of(grouping, fleet.context)
    for flow in fleet.table.live_flows():
        fits = compile_filter(grouping.term(key_of(flow) + BETWEEN + "10.0.0.1").partition(" near")[0], fleet.context)
        assert fits is not None
        assert fits(flow)


def two() -> Fleet:
    """A flow from one node to the other."""
    way = ("10.0.0.1", "203.0.113.1", "10.0.0.1")
    return Fleet({"r1": [way], "r2": [way]}, {"r1": "10.0.0.1", "r2": "203.0.113.1"})


def test_a_flow_between_two_nodes_goes_out_of_one_and_into_the_other() -> None:
    fleet = two()
    going = {flow.node: fleet.context.of(flow).direction(flow.ends()) for flow in fleet.table.live_flows()}
    assert going == {"r1": "out", "r2": "in"}
    assert {flow.node: fleet.context.sides(flow) for flow in fleet.table.live_flows()} == {
        "r1": ("10.0.0.1", "203.0.113.1", False),
        "r2": ("203.0.113.1", "10.0.0.1", True),
    }


def test_each_line_of_json_and_csv_says_whose_it_is_and_how_it_goes_there() -> None:
    fleet = two()
    flows = fleet.table.live_flows()
    lines = list(view_texts(None, flows, "json", fleet.context, "1.0"))
    assert [re.findall(r'^\{"node":"(\w+)"|"direction":"(\w+)"', line) for line in lines] == [
        [("r1", ""), ("", "out")],
        [("r2", ""), ("", "in")],
    ]
    header, *rows = view_texts(None, flows, "csv", fleet.context, "1.0")
    assert header.startswith("node,")
    assert [row.partition(",")[0] for row in rows] == ["r1", "r2"]


def test_events_of_all_nodes_are_on_one_tape_and_each_flow_has_its_own_life() -> None:
    fleet = two()
    for at, node in ((1.0, "r1"), (2.0, "r2"), (3.0, "r1")):
        feed(fleet.tables[node], event("UPDATE", 0, src="10.0.0.1", dst="203.0.113.1"), at)
    assert [(at, flow.node) for at, _, flow, _ in fleet.table.tape] == [(1.0, "r1"), (2.0, "r2"), (3.0, "r1")]
    one, other = fleet.table.live_flows()
    assert ([at for at, *_ in fleet.table.life(one)], [at for at, *_ in fleet.table.life(other)]) == ([1.0, 3.0], [2.0])
    assert fleet.table.events == 3
    assert fleet.table.living(one) is one


def test_the_flow_of_a_node_that_is_not_watched_is_asked_for_without_an_error() -> None:
    """The log has such flows."""
    fleet = two()
    (foreign,) = Fleet({"r9": [("10.0.0.1", "8.8.8.8", "10.0.0.1")]}, {"r9": "10.0.0.1"}).table.live_flows()
    assert fleet.context.of(foreign) is fleet.context
    assert fleet.context.remote_address(foreign) == "8.8.8.8"
    assert fleet.table.living(foreign) is None
    fits = compile_filter("node:r9 far:8.8.8.8", fleet.context)
    assert fits is not None
    assert fits(foreign)


# --- how the nodes are doing ------------------------------------------------------------------------------------------

FACTS = {
    "r1": NodeFacts(LIVE, "", 80, 100, 5.0, 1, 0.5),
    "r2": NodeFacts(GONE, "ssh: timed out, table is 7 s old", 10, 100, None, 2, 0.0),
    "r3": NodeFacts(LIVE, "", None, None, None, 0, 3.0),
}


def fleet_of_three() -> Fleet:
    way = ("10.0.0.1", "8.8.8.8", "203.0.113.1")
    fleet = Fleet({"r1": [way], "r2": [way], "r3": []}, {"r1": "10.0.0.1", "r2": "10.0.0.2", "r3": "10.0.0.3"})
    for table in fleet.tables.values():
        listing(table, [line(0, size=9_000, reply_dst="203.0.113.1", dst="8.8.8.8")] if len(table) else [], 10.0)
        listing(table, [line(0, size=99_000, reply_dst="203.0.113.1", dst="8.8.8.8")] if len(table) else [], 20.0)
    fleet.table.know_facts(FACTS)
    fleet.table.advance(fleet.context, 20.0)
    return fleet


def test_a_row_for_each_node_also_for_one_without_flows() -> None:
    fleet = fleet_of_three()
    found = Rows(fleet.context).all(wanted(fleet.context, view="nodes", sort="node"), fleet.table)
    text = table_text(VIEW_BY_NAME["nodes"], found, fleet.context).splitlines()
    assert [row.split()[:6] for row in text[1:]] == [
        ["r1", "*", "live", "1", "80%", "5"],
        ["r2", "*", "stale", "1", "10%", "-"],
        ["r3", "*", "live", "0", "-", "-"],
    ]
    assert text[2].endswith("ssh: timed out, table is 7 s old")
    items = {row.key: group_object(row, by_keys(group_keys("node"))) for row in found}
    assert {key: items["r2"].get(key) for key in ("status", "reason", "entries", "limit", "lost", "rate_in")} == {
        **{"status": "stale", "reason": "ssh: timed out, table is 7 s old", "entries": 10, "limit": 100, "lost": 2},
        "rate_in": None,
    }
    assert {key: items["r1"].get(key) for key in ("events_per_second", "behind")} == {
        "events_per_second": 5.0,
        "behind": 0.5,
    }
    only = Rows(fleet.context).all(wanted(fleet.context, "node:r1", "nodes", "node"), fleet.table)
    assert [row.key for row in only] == ["r1"]


def test_the_rates_of_a_stale_node_are_in_no_sum() -> None:
    fleet = fleet_of_three()
    rates = {node: (table.rate_in or 0) + (table.rate_out or 0) for node, table in fleet.tables.items()}
    assert rates["r1"] == rates["r2"] > 0
    assert (fleet.table.rate_in or 0) + (fleet.table.rate_out or 0) == rates["r1"]
    found = Rows(fleet.context).all(wanted(fleet.context, view="nodes", sort="node"), fleet.table)
    assert [row.rate > 0 for row in found] == [True, False, False]


def test_the_total_of_nodes_adds_up_what_is_known() -> None:
    total = GroupRow("")
    for its in FACTS.values():
        row = GroupRow("x")
        row.node = its
        total.take_in(row)
    assert total.node == NodeFacts("", "", 90, 200, 5.0, 3, 3.0)
    assert total.node.fill == pytest.approx(0.45)


def test_what_a_header_says_of_several_nodes() -> None:
    one, other = Status(behind=3.0, rejects=2), Status(ended=True, rejects=1, understood=True)
    one.facts, other.facts = {"count": 5, "max": 10, "acct": 1}, {"count": 7, "max": 10}
    one.troubles["listing"] = Problem("gone")
    both = together([one, other])
    assert (both.facts, both.behind, both.rejects) == ({"count": 12, "max": 20}, 3.0, 3)
    assert (both.troubles, both.ended, both.understood) == ({}, False, True)
    other.troubles["events"] = Problem("gone, too")
    assert together([one, other]).troubles == {"listing": Problem("gone")}
    assert together([]).facts == {}


def test_a_notice_says_whose_it_is_and_the_heaviest_comes_first() -> None:
    full, off = Notice("table 90 % full", bad=False, about=About.TABLE), Notice("off", about=About.ACCOUNTING)
    told = by_weight([off.of("r1"), full.of("r2"), full.of("r1"), Notice("table 96 % full", "", True, About.TABLE)])
    assert [notice.text for notice in told] == [
        *("table 96 % full", "r2: table 90 % full", "r1: table 90 % full", "r1: off"),
    ]
    assert len({notice.key for notice in told}) == 4
    assert Notice("x").of("\x1b[31mred").text == "[31mred: x"


# --- the screen -------------------------------------------------------------------------------------------------------


class FleetMonitor(Monitor):
    """What ``Monitor`` is of one table."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__()
        self.fleet, self.table, self.now = fleet, fleet.table, 20.0  # type: ignore[assignment]
        self.view = View(fleet.context)
        self.told = [Notice("accounting is off").of("r1")]
        self.refresh()

    def refresh(self, seconds: float = 0.0) -> None:
        self.now += seconds
        refresh(self.view, self.table, self.now)

    @property
    def scene(self) -> Scene:
        node, table = next(iter(self.fleet.tables.items()))
        focus = NodeScene(node, f"node:{node}", self.status, table, None, self.around)
        return replace(super().scene, told=self.told, focus=focus)


@given(fleets, st.sampled_from(VIEWS), st.tuples(st.integers(1, 180), st.integers(1, 50)))
@settings(max_examples=100, deadline=None)
def test_several_nodes_in_every_view_at_any_size(fleet: Fleet, spec: ViewSpec, size: tuple[int, int]) -> None:
    fleet.table.know_facts(FACTS)
    monitor = FleetMonitor(fleet)
    monitor.view.show(spec.name)
    monitor.refresh(1.0)
    for key in ("", "j", "enter", "H"):
        monitor.keys(*[key] * bool(key))
        is_well_formed(monitor, *size)


def test_whose_flow_it_is_stands_first_at_80_columns() -> None:
    monitor = FleetMonitor(fleet_of_three())
    lines = shown(monitor, (80, 24))
    assert lines[0].startswith("\u25cf 2 of 3 nodes live")
    assert "! r1: accounting is off" in lines[2]
    assert [row.split()[:2] for row in lines[4:7]] == [["NODE", "PROTO"], ["r1", "tcp"], ["r2", "tcp"]]
    monitor.keys("9")
    lines = shown(monitor, (80, 24))
    assert [row.split()[:4] for row in lines[4:8]] == [
        ["NODE\u2191", "STATUS", "FLOWS", "FILL"],
        *(["r1", "\u25cf", "live", "1"], ["r2", "\u25cf", "stale", "1"], ["r3", "\u25cf", "live", "0"]),
    ]
    monitor.keys("H")
    assert shown(monitor, (80, 24))[2].startswith("Health of r1")


def test_the_ninth_view_is_of_nodes_and_t_leads_to_the_states() -> None:
    assert [spec.name for spec in tabs(several=True)][7:] == ["map", "nodes", "usage"]
    assert [spec.name for spec in tabs(several=False)][7:] == ["map", "states", "usage"]
    for name in ("states", "zones", "marks", "nodes"):
        assert tab_of(VIEW_BY_NAME[name], several=True).name == "nodes"
    assert tab_of(VIEW_BY_NAME["marks"], several=False).name == "states"


def test_the_selected_host_of_usage_stays_that_of_its_node() -> None:
    """Two nodes may have a host of the same address."""
    rows = [
        UsageRow("10.0.0.5", "", 1, (size, 0), (0, 0), (0, 0), (0, 0), (), node)
        for node, size in (("r1", 9), ("r2", 5))
    ]
    monitor = Monitor()
    monitor.view.show("usage")
    for of_log in (rows, [replace(rows[0], span=(1, 0)), rows[1]]):  # their order by bytes turns round
        monitor.view.usage = LoggedUsage(VIEW_BY_NAME["usage"], of_log, False, [])
        monitor.refresh(60.0)
        if monitor.view.selected is None:
            monitor.view.select(0)
    assert [row.node for row in monitor.view.rows.order] == ["r2", "r1"]
    assert (monitor.view.selected, monitor.view.at) == (replace(rows[0], span=(1, 0)), 1)
