"""The views beside the connections: sums are those of the flows' JSON, terms select exactly, keys lead there and back."""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_render import is_well_formed
from test_render import shown as shown_at
from test_sortkeys import blocks, flows_of
from worlds import World, event, feed, line, listing, worlds

import export
from addresses import Context
from columns import VIEWS, GroupFacts
from filters import FilterError, compile_filter
from flows import Flow, TapeEvent
from grouping import COUNTRY, FAR, NEAR, NETWORK, SERVICE, Grouper, Grouping, GroupRow, group_object, service_key
from keys import press
from live import command_for, copied, export_rows
from parse import WITH_PORTS
from view import View

GROUPINGS = (NEAR, FAR, COUNTRY, NETWORK, SERVICE)
LAN, WAN = "10.0.0.5", "203.0.113.1"


def shown(world: World) -> list[str]:
    return shown_at(world, (140, 30))


# --- sums -------------------------------------------------------------------------------------------------------------


def of_json(item: dict[str, Any], grouping: Grouping) -> tuple[str, int, int]:
    """The key, and the bytes in and out, that a flow's JSON tells."""
    original, reply, remote = item["original"], item["reply"], item["remote"]
    inward = remote["ip"] in (original["src"], reply["dst"])
    sent, answered = original.get("bytes", 0), reply.get("bytes", 0)
    name, port = item["protocol"], original.get("dport")
    if name == "unknown":
        name = f"ip{item['protocol_number']}"
    key = {
        NEAR: reply["src"] if inward else original["src"],
        FAR: remote["ip"],
        COUNTRY: remote.get("country", ""),
        NETWORK: str(remote.get("asn", "")),
        SERVICE: name if port is None or item["protocol_number"] not in WITH_PORTS else f"{name}/{port}",
    }[grouping]
    return key, *((sent, answered) if inward else (answered, sent))


@given(block=blocks, grouping=st.sampled_from(GROUPINGS), pieces=st.integers(1, 4))
def test_sums_are_those_of_the_flows_json(block: bytes, grouping: Grouping, pieces: int) -> None:
    flows, context = flows_of(block)
    flows = [flow for flow in flows if flow.ended is None]
    tally = Grouper(grouping, context)
    for at in range(0, len(flows), pieces):
        tally.add(flows[at : at + pieces])
    count: Counter[str] = Counter()
    size_in: Counter[str] = Counter()
    size_out: Counter[str] = Counter()
    for flow in flows:
        item = export.json_object(flow.record(), flow, context, "list", None)
        if flow.counts() is None:  # only one direction was printed: that is no count
            item["original"].pop("bytes", 0)
            item["reply"].pop("bytes", 0)
        key, came_in, went_out = of_json(item, grouping)
        count[key] += 1
        size_in[key] += came_in
        size_out[key] += went_out
    assert {key: row.flows for key, row in tally.sums.items()} == dict(count)
    assert {key: row.size_in for key, row in tally.sums.items()} == dict(size_in)
    assert {key: row.size_out for key, row in tally.sums.items()} == dict(size_out)
    assert sum(row.unreplied for row in tally.sums.values()) == sum("UNREPLIED" in flow.flags() for flow in flows)


@given(others=st.dictionaries(st.sampled_from(["", *"abcdefgh"]), st.integers(1, 4)))
def test_those_with_the_most_flows_are_named(others: dict[str, int]) -> None:
    row = GroupRow("tcp/443")
    row.others = others
    by_flows = Counter({name: flows for name, flows in sorted(others.items()) if name})  # equal ones keep their order
    assert row.most() == [name for name, _ in by_flows.most_common(3)]
    cell = next(column.cell for column in VIEWS[4].columns if column.key == "hosts")
    text = cell(GroupFacts(row, Context().where, str, "", ""))
    assert text == " ".join(row.most()) + (f" +{len(by_flows) - 3}" if len(by_flows) > 3 else "")


@given(block=blocks, grouping=st.sampled_from(GROUPINGS))
def test_a_row_s_term_selects_exactly_its_flows(block: bytes, grouping: Grouping) -> None:
    flows, context = flows_of(block)
    tally = Grouper(grouping, context)
    tally.add(flows)
    for key, row in tally.sums.items():
        try:
            wanted = compile_filter(grouping.term(key), context)
        except FilterError:  # what a recording has in place of an address
            assert grouping in (NEAR, FAR)
            continue
        assert wanted
        assert sum(map(wanted, flows)) == row.flows, key


def test_in_is_what_the_far_end_sends_whoever_opened_the_flow() -> None:
    world = World()
    out = line(1, src=LAN, dst="8.8.8.8", size=None).replace("[ASSURED]", "[ASSURED]")
    out = out.replace("dport=443 src=", "dport=443 packets=1 bytes=100 src=").replace(
        " [ASSURED]", " packets=1 bytes=900 [ASSURED]"
    )
    inward = line(2, src="8.8.4.4", dst=WAN, reply_src=LAN, reply_dst="8.8.4.4")
    inward = inward.replace("dport=443 src=", "dport=443 packets=1 bytes=30 src=").replace(
        " [ASSURED]", " packets=1 bytes=5 [ASSURED]"
    )
    listing(world.table, [out, inward], 101.0)
    world.keys("2")
    (row,) = world.view.order
    assert (row.key, row.flows, row.size_in, row.size_out) == (LAN, 2, 930, 105)
    assert group_object(row, NEAR)["host"] == LAN


# --- keys -------------------------------------------------------------------------------------------------------------


def lan_world() -> World:
    return World(
        [
            *(
                line(i, src=f"10.0.0.{1 + i % 3}", dst=f"8.8.{i}.8", dport=(443, 80)[i % 2], size=1000 * i)
                for i in range(1, 13)
            ),
            line(20, src="10.0.0.1", dst="9.9.9.9", reply_dst=WAN, size=100),
        ]
    )


def test_each_view_has_its_key_and_tab_goes_round() -> None:
    world = lan_world()
    for kind in VIEWS:
        if kind.key:
            world.keys(kind.key)
            assert world.view.kind is kind
            assert shown(world)[2].startswith(kind.title)
    names = []
    for _ in range(8):
        world.keys("tab")
        names.append(world.view.kind.name)
    assert names == [kind.name for kind in VIEWS if kind.key]
    world.keys("[")
    assert world.view.kind.name == "events"


def test_the_filter_and_the_selection_carry_over() -> None:
    world = lan_world()
    world.view.set_filter("port:80")
    world.refresh(1)
    world.keys("j", "j")
    chosen = world.view.selected
    assert isinstance(chosen, Flow)
    world.keys("2")
    assert world.view.filter == "port:80"
    assert world.view.selected.key == chosen.addresses()[0].decode()  # type: ignore[union-attr]
    world.keys("5")
    assert world.view.selected.key == service_key(chosen)  # type: ignore[union-attr]
    world.keys("1")
    assert world.view.selected is chosen


def test_enter_narrows_and_esc_comes_back() -> None:
    world = lan_world()
    world.view.set_filter("port:80 or port:443")
    world.keys("2", "s", "G")
    chosen = world.view.selected
    assert chosen is not None
    sort = world.view.sort
    world.keys("enter")
    assert world.view.kind.name == "connections"
    assert len(world.view.order) == chosen.flows  # type: ignore[union-attr]
    world.keys("esc")
    assert (world.view.kind.name, world.view.filter, world.view.sort) == ("hosts", "port:80 or port:443", sort)
    assert world.view.selected == chosen


def test_t_turns_to_the_far_side() -> None:
    world = lan_world()
    world.keys("2", "t")
    assert "Remote hosts" in shown(world)[2]
    assert {row.key for row in world.view.order} >= {"8.8.1.8", "9.9.9.9"}
    world.keys("t")
    assert world.view.kind.name == "hosts"


def test_the_share_is_of_what_is_sorted_by() -> None:
    world = lan_world()
    world.view.show("hosts")
    world.view.sort = "flows"
    world.refresh()
    assert sum(row.share for row in world.view.order) == pytest.approx(1.0)
    assert world.view.order[0].share == pytest.approx(world.view.order[0].flows / 13)


# --- NAT: who was it? -------------------------------------------------------------------------------------------------


def test_who_was_behind_an_address_also_of_what_has_ended() -> None:
    world = lan_world()
    feed(world.table, event("NEW", 30, src="10.0.0.9", dst="9.9.9.9", reply_dst=WAN, sport=38768), 110.0)
    feed(world.table, event("DESTROY", 30, src="10.0.0.9", dst="9.9.9.9", reply_dst=WAN, sport=38768), 120.0)
    world.refresh(60)  # it does not linger any more
    world.keys("6")
    world.view.set_filter(f"wan:{WAN}:38768")
    world.refresh(1)
    assert [flow.ends().src for flow in world.view.order] == ["10.0.0.9"]
    assert any("10.0.0.9:38768" in text and f"{WAN}:38768" in text and "9.9.9.9" in text for text in shown(world))
    assert "NAT · 1 of 2 · " in shown(world)[2]
    assert any(" closed " in text for text in shown_at(world, (80, 24)))
    world.keys("z")
    assert world.view.order == []
    assert "NAT · 0 of 1 · " in shown(world)[2]


@given(block=blocks)
def test_nat_counts_its_rows(block: bytes) -> None:
    world = World()
    feed(world.table, block, 101.0)
    world.keys("6")
    assert (view := world.view).total == view.fitting == len(view.order)
    there = [*world.table.live.values(), *world.table.past]
    assert {id(flow) for flow in view.order} == {id(flow) for flow in there if flow.ends().nat}


@pytest.mark.parametrize(("clock", "found"), [("at:00:01:55", True), ("at:00:01", True), ("at:00:02:01", False)])
def test_when_it_was(clock: str, found: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    import time

    time.tzset()
    try:
        world = lan_world()
        feed(world.table, event("NEW", 30, src="10.0.0.9", dst="9.9.9.9", reply_dst=WAN, sport=38768), 110.0)
        feed(world.table, event("DESTROY", 30, src="10.0.0.9", dst="9.9.9.9", reply_dst=WAN, sport=38768), 120.0)
        world.refresh(60)
        world.keys("6")
        world.view.set_filter(f"wan:{WAN}:38768 {clock}")
        world.refresh(1)
        assert bool(world.view.order) is found
    finally:
        monkeypatch.undo()
        time.tzset()


def test_history_is_bounded() -> None:
    from flows import FlowTable

    table = FlowTable(past=3)
    for number in range(10):
        feed(table, event("NEW", number) + event("DESTROY", number), 100.0 + number)
    assert [flow.record().id for flow in table.past] == [7, 8, 9]


# --- events -----------------------------------------------------------------------------------------------------------


def test_nat_s_count_holds_while_it_is_counted_anew() -> None:
    from view import refresh

    world = lan_world()
    world.keys("6")
    assert "NAT · 1 · " in shown(world)[2]
    world.view.due = 0.0
    refresh(world.view, world.table, world.now, lambda: True)
    assert world.view.work is not None
    assert "NAT · 1 · " in shown(world)[2]


def test_the_tape_has_states_as_they_were_and_final_totals() -> None:
    world = World()
    feed(world.table, event("NEW", 1, state="SYN_SENT"), 101.0)
    feed(world.table, event("UPDATE", 1, state="ESTABLISHED"), 102.0)
    feed(world.table, event("DESTROY", 1, state="CLOSE", size=5000), 107.0)
    world.now = 107.0
    world.keys("7")
    assert [(row.event, row.state) for row in world.view.order] == [
        ("destroy", "CLOSE"),
        ("update", "ESTABLISHED"),
        ("new", "SYN_SENT"),
    ]
    lines = shown(world)
    assert "DESTROY" in lines[4]
    assert lines[4].split()[-2:] == ["10k", "6s"]
    world.keys("space")
    feed(world.table, event("NEW", 2), 108.0)
    world.refresh(2)
    assert len(world.view.order) == 3
    world.keys("space")
    assert len(world.view.order) == 4
    world.keys("j", "enter")
    assert world.view.overlay == "details"
    assert any("id 2" in text for text in shown(world))


# --- what is new ------------------------------------------------------------------------------------------------------


def test_what_is_new_since_the_mark() -> None:
    world = lan_world()
    world.keys("m")
    mark = world.view.context.since
    assert mark is not None
    assert mark.complete
    feed(world.table, event("NEW", 40, src="10.0.0.1", dst="8.8.1.8", dport=443, sport=999), 105.0)  # all of it known
    feed(world.table, event("NEW", 41, src="10.0.0.77", dst="8.8.1.8", dport=443, sport=999), 106.0)
    feed(world.table, event("NEW", 42, src="10.0.0.1", dst="8.8.1.8", dport=22, sport=998), 106.0)
    world.now = 107.0
    for text, ids in (
        ("new:", {41, 42}),
        ("new:host", {41}),
        ("new:service", {42}),
        ("new:remote,country", set()),
    ):
        world.view.set_filter(text)
        world.refresh()
        assert set(world.ids()) == ids, text
    world.view.set_filter("")
    world.keys("2")
    rows = {text for spans in [frame_of(world)] for text, role in spans if role == "new"}
    assert any("10.0.0.77" in text for text in rows)
    assert not any("10.0.0.1 " in text for text in rows)
    world.keys("m")
    assert world.view.context.since is None


def frame_of(world: World) -> list[tuple[str, str]]:
    from render import frame

    return [span for spans in frame(world.scene, 140, 30) for span in spans]


def test_new_of_what() -> None:
    with pytest.raises(FilterError, match="any host remote country network service"):
        compile_filter("new:moon", Context())


# --- anything ---------------------------------------------------------------------------------------------------------


@given(worlds(), st.sampled_from(VIEWS), st.tuples(st.integers(1, 220), st.integers(1, 60)))
@settings(max_examples=150, deadline=None)
def test_any_table_in_every_view_at_any_size(world: World, kind: Any, size: tuple[int, int]) -> None:
    world.view.show(kind.name)
    world.refresh()
    is_well_formed(world, *size)
    for sort in kind.sorts:
        world.view.sort = sort
        world.refresh()
        is_well_formed(world, *size)


# --- export and copy --------------------------------------------------------------------------------------------------


def words_of(view: View, name: Path) -> str:
    *_, last = export_rows(view, str(name), "5.0")
    return last


def test_export_writes_what_is_on_show_for_its_owner_only(tmp_path: Path) -> None:
    world = lan_world()
    world.view.set_filter("port:80")
    world.refresh(1)
    path = tmp_path / "a.json"
    assert words_of(world.view, path) == f"{len(world.view.order)} rows exported to {path}"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    items = [json.loads(text) for text in path.read_text().splitlines()]
    assert [item["id"] for item in items] == world.ids()
    assert words_of(world.view, path) == f"not exported: {path} exists"
    world.keys("2")
    words_of(world.view, tmp_path / "b.csv")
    head, *rows = (tmp_path / "b.csv").read_text().splitlines()
    assert head.startswith("host,flows,")
    assert len(rows) == len(world.view.order)
    assert words_of(world.view, tmp_path / "no" / "c.json").startswith("not exported: No such file or directory")
    (tmp_path / "link.json").symlink_to(tmp_path / "nowhere")
    assert words_of(world.view, tmp_path / "link.json").startswith("not exported: ")


def test_what_has_ended_is_exported_as_its_end(tmp_path: Path) -> None:
    world = lan_world()
    feed(world.table, event("NEW", 30, src="10.0.0.9") + event("DESTROY", 30, src="10.0.0.9"), 110.0)
    listing(world.table, [line(20, src="10.0.0.1", dst="9.9.9.9", reply_dst=WAN, size=100)], 111.0)
    world.refresh(1)
    path = tmp_path / "a.json"
    words_of(world.view, path)
    items = {item["id"]: item for item in map(json.loads, path.read_text().splitlines())}
    assert {item["event"] for item in items.values()} == {"list", "destroy"}
    assert (items[30]["event"], items[30]["time"][-10:], items[30].get("inferred")) == ("destroy", "50.000000Z", None)
    assert (items[1]["event"], items[1]["inferred"]) == ("destroy", True)
    assert (items[20]["event"], "inferred" in items[20]) == ("list", False)


def test_the_prompt_asks_for_the_file_s_name() -> None:
    world = lan_world()
    world.keys("e")
    assert world.view.prompt is not None
    assert "conntrack-connections.json" in shown(world)[-1]
    assert world.keys("x", "enter") == "export conntrack-connections.jsonx"
    assert world.view.prompt is None
    world.keys("e")
    assert world.keys("esc") == "cancel"


def test_copied_is_conntrack_s_own_line() -> None:
    text = line(1, size=500)
    world = World([text])
    assert copied(world.view) == ""
    assert world.keys("y") == "copy"
    assert copied(world.view) == text.strip()  # the first one, as Enter takes it
    world.keys("2")
    assert json.loads(copied(world.view))["flows"] == 1


def test_an_event_is_copied_as_its_flow() -> None:
    world = World()
    feed(world.table, event("NEW", 5), 101.0)
    world.keys("7", "j")
    assert isinstance(world.view.selected, TapeEvent)
    assert "sport=10005" in copied(world.view)


def test_the_command_is_that_of_exactly_this_flow() -> None:
    from source import Command

    world = lan_world()
    assert command_for(world.view, None) == ""
    world.keys("j")
    text = command_for(world.view, Command(["ip", "netns", "exec", "lan"]))
    flow = world.view.selected
    assert isinstance(flow, Flow)
    assert text.startswith("ip netns exec lan conntrack -D ")
    assert f"--id={flow.record().id}" in text.split()


def test_empty_views_say_why() -> None:
    world = World([line(1)])
    for key, words in (("6", "no flow here is translated"), ("7", "no event yet")):
        world.keys(key)
        assert any(words in text for text in shown(world)), key


def test_an_empty_map_says_why() -> None:
    world = lan_world()
    world.keys("8")
    assert "nobody knows where these hosts are" in shown(world)[-2]
    world.view.set_filter("src:10.99.0.1")
    world.refresh(1)
    assert "no flow fits the filter  try: Esc" in shown(world)[-2]
    assert "Map · 0 of 0 hosts · 0 of 13 flows" in shown(world)[2]


def test_new_of_nothing_says_what_is_missing() -> None:
    world = lan_world()
    world.view.set_filter("new:host")
    world.refresh(1)
    assert any("nothing is marked: what would be new?" in text for text in shown(world))
    world.keys("m")
    assert any("no flow fits the filter" in text for text in shown(world))


@pytest.mark.parametrize(("listed", "words"), [(False, "not counted yet"), (True, "accounting was off when it began")])
def test_details_know_why_nothing_was_counted(listed: bool, words: str) -> None:
    world = World()
    feed(world.table, event("NEW", 5), 101.0)
    if listed:
        listing(world.table, [line(5, size=None)], 102.0)
    world.refresh(1)
    world.keys("j", "enter")
    assert sum(words in text for text in shown(world)) == 2


def test_kinds_of_nat_are_filters() -> None:
    back = (("9.9.9.9", LAN), ("9.9.9.9", WAN), ("9.9.9.9", "203.0.113.9"), ("10.0.0.7", LAN), ("10.0.0.7", WAN))
    world = World([line(n, src=LAN, dst="9.9.9.9", reply_src=a, reply_dst=b) for n, (a, b) in enumerate(back)])
    context = Context(own=frozenset([WAN]))
    found = {}
    for kind in ("none", "snat", "masq", "dnat", "both"):
        wanted = compile_filter(f"nat:{kind}", context)
        found[kind] = [flow.record().id for flow in world.table.select(wanted)]
    assert found == {"none": [0], "snat": [1, 2, 4], "masq": [1], "dnat": [3, 4], "both": [4]}


def test_a_view_that_is_not_ready_says_so() -> None:
    from view import refresh

    world = lan_world()
    world.view.show("hosts")
    refresh(world.view, world.table, 100.0, lambda: True)
    assert world.view.work is not None
    assert any("adding up ..." in text for text in shown(world))
    world.refresh()
    assert not any("adding up ..." in text for text in shown(world))


def test_another_order_while_flows_are_added_up_does_not_begin_anew() -> None:
    from view import refresh

    world = lan_world()
    world.view.show("hosts")
    refresh(world.view, world.table, 100.0, lambda: True)
    work = world.view.work
    assert world.view.summing
    press(world.view, world.table, "s")
    refresh(world.view, world.table, 100.1, lambda: True)
    assert world.view.work is work
    world.refresh()
    assert world.view.sort == world.view.made[1]
    keys = world.view.kind.column(world.view.sort).keys(world.view.order, world.view.context)
    assert keys == sorted(keys, reverse=world.view.falling)
    press(world.view, world.table, "3")
    refresh(world.view, world.table, 100.2, lambda: True)
    assert world.view.work is not work
