"""The views' columns: rows are in the order of what their cells say, and columns fit their window."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

import addresses
from addresses import NOWHERE, Context, Lookups, Place
from columns import (
    ALIASES,
    BRIEF_SCOPES,
    COUNTRY_COLUMNS,
    EVENT_COLUMNS,
    FLOW_COLUMN,
    FLOW_COLUMNS,
    HOST_COLUMNS,
    LOOSE,
    NETWORK_COLUMNS,
    REMOTE_COLUMNS,
    SERVICE_COLUMNS,
    SHARE_CELLS,
    SORTS,
    VIEW_BY_NAME,
    VIEWS,
    EventFacts,
    GroupColumn,
    GroupFacts,
    ViewSpec,
    age_text,
    by_need,
    clock_text,
    end_text,
    facts_of,
    fit,
    nat_text,
    order_by_place,
    protocol_text,
    rate_text,
)
from flows import IDLE, Flow, FlowTable, Progress, tape_events
from grouping import NEAR, GroupRow, group_object
from parse import Record, split_lines
from support.printing import printed, records
from support.strategies import any_blocks
from support.tables import Monitor, address_order, event, feed, flows_of, line, listing, place_of, remote, shown
from text import ASCII, UNICODE
from view import in_order
from vocabulary import VIEW_NAMES


def arrange(flows: list[Flow], sort: str, reverse: bool, context: Context, limit: int | None = None) -> list[Flow]:
    column = FLOW_COLUMN[sort]
    return in_order(flows, column.keys(flows, context), column.descending != reverse, limit)


def last_if_none(value: Any) -> tuple[bool, Any]:
    return value is None, "" if value is None else value


def port(value: int | None) -> int:
    return value or 0


SPECS: dict[str, Any] = {
    "proto": lambda f, _c: (f.kind.protocol, f.kind.number),
    "state": lambda f, _c: f.status(),
    "nat": lambda f, _c: "".join(f.ends().nat),
    "cc": lambda f, c: last_if_none(place_of(remote(f.ends(), c.own)).country),
    "city": lambda f, c: last_if_none(place_of(remote(f.ends(), c.own)).city),
    "asn": lambda f, c: last_if_none(place_of(remote(f.ends(), c.own)).asn),
    "org": lambda f, c: last_if_none(place_of(remote(f.ends(), c.own)).org),
    "rate": lambda f, _c: -1.0 if f.rate() is None else f.rate(),
    "bytes": lambda f, _c: -1 if f.total() is None else f.total(),
    "packets": lambda f, _c: -1 if f.packets() is None else f.packets(),
    "age": lambda f, c: f.age(c.now),
}


@given(
    column=st.sampled_from(sorted(SPECS)), block=any_blocks, reverse=st.booleans(), limit=st.none() | st.integers(0, 3)
)
def test_rows_are_in_the_order_of_what_their_cells_say(
    column: str, block: bytes, reverse: bool, limit: int | None
) -> None:
    flows, context = flows_of(block)
    falling = FLOW_COLUMN[column].descending != reverse
    expected = sorted(flows, key=lambda flow: SPECS[column](flow, context), reverse=falling)
    assert arrange(flows, column, reverse, context) == expected
    first = arrange(flows, column, reverse, context, limit)
    assert first[:limit] == expected[:limit]


@given(block=any_blocks)
def test_rows_by_source_are_in_numerical_order(block: bytes) -> None:
    flows, context = flows_of(block)
    found = [
        (address_order(e.src), port(e.sport)) for e in (f.ends() for f in arrange(flows, "source", False, context))
    ]
    # A GRE key or an ICMP id above 65,535 may count into the next address.
    assert [address for address, number in found if number < 65_536] == sorted(a for a, n in found if n < 65_536)


@given(block=any_blocks)
def test_rows_by_destination_are_in_numerical_order(block: bytes) -> None:
    flows, context = flows_of(block)
    found = [address_order(f.ends().dst) for f in arrange(flows, "destination", False, context) if f.kind.number != 47]
    assert found == sorted(found)


@given(block=any_blocks)
def test_the_next_to_be_forgotten_come_first(block: bytes) -> None:
    flows, context = flows_of(block)
    left = [f.remaining(context.now) for f in arrange(flows, "timeout", False, context)]
    known = [seconds for seconds in left if seconds is not None]
    assert left == sorted(known) + [None] * (len(left) - len(known))


@pytest.mark.parametrize(
    ("sort", "first"),
    [
        ("source", [5, 3, 1, 4, 2]),
        ("destination", [1, 3, 4, 5, 2]),
        ("nat", [4, 1, 2, 3, 5]),
        ("state", [1, 3, 5, 4, 2]),
        ("timeout", [2, 1, 3, 4, 5]),
        ("bytes", [3, 1, 4, 5, 2]),
    ],
)
def test_sort_orders(sort: str, first: list[int]) -> None:
    """Addresses by number, IPv4 before IPv6; translated flows, large ones and those that end soon come first."""
    monitor = Monitor(
        [
            line(1, src="10.0.0.9", dst="192.0.2.1", size=300),
            line(2, src="2001:db8::1", dst="2001:db8::2", state="TIME_WAIT", timeout=10),
            line(3, src="9.9.9.9", dst="198.51.100.3", size=900),
            line(4, src="100.0.0.1", dst="198.51.100.10", state="SYN_SENT", size=200, reply_dst="203.0.113.1"),
            line(5, src="9.9.9.8", dst="203.0.113.1", size=100),
        ],
        sort=sort,
    )
    assert monitor.ids() == first


@pytest.mark.parametrize("key", ["rate", "bytes", "packets", "age", "timeout"])
def test_number_columns_are_as_wide_as_their_widest_number(key: str) -> None:
    from columns import FLOW_COLUMN
    from columns import facts_of as cells_of

    for size in (0, 999, 1000, 9_999, 999_499, 999_999_999, 2**63, 2**64 - 1):
        for seconds in (0.0, 59.0, 3_599.0, 36_000.0, 999 * 86_400.0, 1e12):
            monitor = Monitor([line(1, size=0, timeout=2**32 - 1)])
            listing(monitor.table, [line(1, size=size, timeout=2**32 - 1)], 100.001)
            monitor.refresh(seconds)
            (flow,) = monitor.view.rows.order
            text = FLOW_COLUMN[key].cell(cells_of(flow, monitor.view.context, names=False))
            assert len(text) <= FLOW_COLUMN[key].least, (size, seconds)


@given(st.integers(1, 500), st.integers(0, 12))
def test_columns_fit(width: int, shift: int) -> None:
    columns = fit(width, FLOW_COLUMNS[shift:])
    assert columns
    assert sum(size + 1 for _, size in columns) - 1 <= width
    for column, size in columns:
        assert size <= column.most or len(columns) == 1
        assert size >= column.least or len(columns) == 1


@given(st.integers(1, 500), st.dictionaries(st.sampled_from([c.key for c in FLOW_COLUMNS]), st.integers(0, 90)))
def test_columns_are_as_wide_as_their_cells_need(width: int, needs: dict[str, int]) -> None:
    chosen = fit(width)
    columns = by_need(chosen, needs, width)
    assert [column for column, _ in columns] == [column for column, _ in chosen]
    assert sum(size + 1 for _, size in columns) - 1 <= width
    narrow = [
        column for column, size in columns if size < needs.get(column.key, 0) and (column.room or size < column.most)
    ]
    for column, size in columns:
        if len(columns) > 1:
            assert size >= min(column.least, needs.get(column.key, column.least))
            need = min(needs.get(column.key, 0), width if column.room else column.most)
            assert size <= max(column.least, need) + LOOSE
            if size > max(column.least, need):  # it has what nobody needs
                assert not [other for other in narrow if other.most > other.least]


def test_names_take_the_room_that_is_left() -> None:
    """Of 200 cells the long name of a network gets what short addresses leave: it is whole."""
    org = "A Network With a Name of Fifty-Two Cells, Incorporated"
    lookups = Lookups(lambda _address: Place("US", "United States", "Portland", 64500, org))
    monitor = Monitor([line(n, dst=f"9.9.9.{n}", size=n) for n in range(1, 60)], lookups)
    rows = [text for text in shown(monitor, (200, 50)) if "9.9.9." in text]
    assert len(rows) > 40
    for row in rows:
        assert org in row
        assert max(map(len, re.findall(" +", row[: row.index("Portland")]))) <= 20
    assert org not in shown(monitor, (140, 50))[6]


def test_columns_do_not_go_to_and_fro_with_the_rows() -> None:
    monitor = Monitor([line(n, dst=f"9.9.9.{n}") for n in range(1, 4)])
    before = shown(monitor, (160, 20))[3]
    feed(monitor.table, event("NEW", 9, src="2001:db8::1", dst="2001:db8:1111:2222:3333::9"))
    monitor.refresh(2.0)
    wider = shown(monitor, (160, 20))[3]
    assert wider != before
    feed(monitor.table, event("DESTROY", 9, src="2001:db8::1", dst="2001:db8:1111:2222:3333::9"), 103.0)
    monitor.refresh(60.0)
    assert shown(monitor, (160, 20))[3] == wider
    monitor.keys("r")
    monitor.keys("s")
    assert re.sub("[↑↓]", "", shown(monitor, (160, 20))[3]) != re.sub("[↑↓]", "", wider)


def test_wider_never_shows_fewer_columns() -> None:
    """While a window is dragged columns come one after the other and stay."""
    before: set[str] = set()
    for width in range(27, 400):
        now = {"nat" if column.key == "natkind" else column.key for column, _ in fit(width)}
        assert before <= now, width
        before = now
    assert before == {column.key for column in FLOW_COLUMNS} - {"natkind"}


def test_the_views_are_those_of_the_vocabulary() -> None:
    assert tuple(kind.name for kind in VIEWS) == VIEW_NAMES


# --- bars, words, ties ------------------------------------------------------------------------------------------------


def test_a_share_is_drawn_in_eighths_of_a_cell() -> None:
    row, bars = GroupRow("x"), []
    for share in (0.0, 0.01, 0.02, 0.04, 0.05, 0.5, 0.99, 1.0):
        row.share = share
        bars.append(_bar_of(row, UNICODE.eighths)[:SHARE_CELLS])
    assert bars == [
        *("          ", "▏         ", "▎         ", "▍         ", "▌         ", "█████     "),
        "█████████▉",
        "█" * 10,
    ]
    row.share = 0.04
    assert _bar_of(row, ASCII.eighths) == "             4%"
    row.share = 0.27
    assert _bar_of(row, ASCII.eighths) == "###         27%"


def _bar_of(row: GroupRow, parts: str) -> str:
    cell = next(column.cell for column in HOST_COLUMNS if column.key == "share")
    return cell(GroupFacts(row, Context().where, str, parts, " "))


def test_every_scope_has_a_short_word_of_its_own() -> None:
    scopes = {name for _, name in addresses._SPECIAL} | {"private", "reserved"}
    assert scopes == BRIEF_SCOPES.keys()
    words = list(BRIEF_SCOPES.values())
    assert len(set(words)) == len(words)
    assert all(3 <= len(word) <= 4 and word.islower() for word in words)
    assert (BRIEF_SCOPES["private"], BRIEF_SCOPES["documentation"], BRIEF_SCOPES["benchmark"]) == ("lan", "doc", "test")


@pytest.mark.parametrize("view", ["hosts", "countries", "services", "networks", "remotes"])
@pytest.mark.parametrize("reverse", [False, True])
def test_what_is_equal_has_one_order_whatever_the_table_s(view: str, reverse: bool) -> None:
    """By rate, bytes, flows, name: rows that nothing moves stand still."""
    sized = {1: 5, 2: 9, 3: 5, 4: 5, 5: 9}
    lines = [
        line(n, src=f"10.0.0.{n}", dst=f"8.8.{n}.8", dport=1000 + n, size=sized[n] * 1000, more="use=1 ")
        for n in range(1, 6)
    ]
    lines.append(line(9, src="10.0.0.3", dst="8.8.3.8", dport=1003, size=0))
    places = {f"8.8.{n}.8": Place("ABCDE"[n - 1] + "X", asn=n) for n in range(1, 6)}
    orders = []
    for shuffled in (lines, lines[::-1], lines[3:] + lines[:3]):
        monitor = Monitor(shuffled, lookups=Lookups(lambda address: places.get(address, Place())), reverse=reverse)
        monitor.view.show(view)
        monitor.view.reverse = reverse
        monitor.refresh(1)
        assert monitor.view.sort == "rate"
        orders.append([row.key for row in monitor.view.rows.order])
    names = {
        "hosts": [f"10.0.0.{n}" for n in (2, 5, 3, 1, 4)],
        "remotes": [f"8.8.{n}.8" for n in (2, 5, 3, 1, 4)],
        "countries": ["BX", "EX", "CX", "AX", "DX"],
        "networks": list("25314"),
        "services": [f"tcp/{1000 + n}" for n in (2, 5, 3, 1, 4)],
    }
    assert orders == [names[view]] * 3


def test_others_are_in_the_screen_s_order_in_json_and_csv() -> None:
    monitor = Monitor(
        [line(n, src="10.0.0.1", dst=f"8.8.{n % 3}.8") for n in range(1, 9)],
        lookups=Lookups(
            lambda address: {"8.8.0.8": Place("AA"), "8.8.1.8": Place("ZZ"), "8.8.2.8": Place("MM")}.get(
                address, Place()
            )
        ),
    )
    monitor.keys("2")
    (row,) = monitor.view.rows.order
    assert group_object(row, NEAR)["countries"] == ["MM", "ZZ", "AA"]  # 3, 3 and 2 flows
    assert "MM ZZ AA" in "\n".join(shown(monitor, (150, 16)))


# --- every column of every view: what it sorts by, first and last, and what its cells say at the borders --------------


LAN, WAN, FAR = "192.168.1.9", "203.0.113.1", "8.8.8.8"
PLACES = {
    FAR: Place("US", "United States", "Boston", 15169, "Google"),
    "9.9.9.9": Place("DE", "Germany", "Aachen", 64_500, "Quad9"),
    "1.1.1.1": Place("AU", "Australia", None, None, "APNIC"),
}


def context_of(own: frozenset[str] = frozenset({WAN}), names: dict[str, str] | None = None) -> Context:
    where = Lookups(lambda address: PLACES.get(address, NOWHERE), name=(names or {}).get)
    return Context(where, now=100.0, own=own)


CONTEXT = context_of()


def flow_line(number: int, src: str = LAN, dst: str = FAR, **what: Any) -> str:
    """A flow by its id; ``sizes`` of both directions."""
    family = "ipv6     10" if ":" in src else "ipv4     2"
    protocol, state, timeout = (
        what.get("protocol", "tcp      6"),
        what.get("state", "ESTABLISHED "),
        what.get("timeout", "60 "),
    )
    sizes = what.get("sizes")
    there, back = ("", "") if sizes is None else (f"packets={size // 10} bytes={size} " for size in sizes)
    ports = what.get("ports", (1000, 443))
    first, second = ("", "") if ports is None else (f"sport={a} dport={b} " for a, b in (ports, ports[::-1]))
    return (
        f"{family} {protocol} {timeout}{state}src={src} dst={dst} {first}{there}src={what.get('reply_src', dst)} "
        f"dst={what.get('reply_dst', src)} {second}{back}{what.get('flags', '')}mark=0{what.get('tail', '')} use=1 id={number}\n"
    )


def flows_in(*lines: str, now: float = 90.0) -> list[Flow]:
    table = FlowTable()
    for row in split_lines("".join(lines).encode())[0]:
        if row[1]:
            table.event(row, now)
        else:
            table.listed(row, now)
    return list(table)


def sorted_by(key: str, flows: list[Flow]) -> list[int]:
    """Ids in rising order."""
    return [flow.record().id or 0 for flow in in_order(flows, FLOW_COLUMN[key].keys(flows, CONTEXT), False)]


@pytest.mark.parametrize(
    ("key", "lines", "ids"),
    [
        (
            "proto",  # by name, then by number
            [
                flow_line(1, protocol="unknown  253", state="", ports=None),
                flow_line(2, protocol="tcp      6"),
                flow_line(3, protocol="unknown  50", state="", ports=None),
                flow_line(4, protocol="udp      17", state=""),
                flow_line(5, protocol="unknown  9", state="", ports=None),
            ],
            [2, 4, 5, 3, 1],
        ),
        (
            "state",  # what has no state by its flag
            [
                flow_line(1, state="TIME_WAIT "),
                flow_line(2, dst="1.0.0.2", state="CLOSE "),
                flow_line(3, dst="1.0.0.3", protocol="udp      17", state="", flags="[ASSURED] "),
                flow_line(4, dst="1.0.0.4", protocol="udp      17", state=""),
            ],
            [4, 3, 2, 1],
        ),
        (
            "source",
            [
                flow_line(1, src="10.0.0.10"),
                flow_line(2, src="9.0.0.1"),
                flow_line(3, src="10.0.0.9", ports=(2, 443)),
                flow_line(4, src="10.0.0.9", ports=(10, 443)),
                flow_line(5, src="2001:db8::1", dst="2001:db8::2"),
                flow_line(6, src="::1", dst="::2"),
                flow_line(7, src="1.2.3.999"),
                flow_line(8, src="255.255.255.255", ports=(65_535, 443)),
            ],
            [2, 3, 4, 1, 8, 6, 5, 7],
        ),
        (
            "destination",
            [
                flow_line(1, dst="10.0.0.10"),
                flow_line(2, dst="9.0.0.1"),
                flow_line(3, dst="10.0.0.9", ports=(10, 2)),
                flow_line(4, dst="10.0.0.9", ports=(2, 10)),
                flow_line(5, src="2001:db8::1", dst="2001:db8::2"),
            ],
            [2, 3, 4, 1, 5],
        ),
        (
            "nat",
            [
                flow_line(1),
                flow_line(2, ports=(2, 443), reply_dst=WAN),
                flow_line(3, ports=(3, 443), reply_src=LAN),
                flow_line(4, ports=(4, 443), reply_src=LAN, reply_dst=WAN),
            ],
            [1, 3, 2, 4],
        ),
        ("cc", [flow_line(1), flow_line(2, dst="9.9.9.9"), flow_line(3, dst="1.1.1.1"), flow_line(4, dst="192.168.1.1")], [3, 2, 1, 4]),
        ("city", [flow_line(1), flow_line(2, dst="9.9.9.9"), flow_line(3, dst="1.1.1.1")], [2, 1, 3]),
        ("asn", [flow_line(1), flow_line(2, dst="9.9.9.9"), flow_line(3, dst="1.1.1.1")], [1, 2, 3]),
        ("org", [flow_line(1), flow_line(2, dst="9.9.9.9"), flow_line(3, dst="1.1.1.1"), flow_line(4, dst="5.5.5.5")], [3, 1, 2, 4]),
        (
            "bytes",  # less than none at all is not to know
            [flow_line(1, sizes=(0, 900)), flow_line(2, dst="1.0.0.2"), flow_line(3, dst="1.0.0.3", sizes=(0, 0)), flow_line(4, dst="1.0.0.4", sizes=(500, 300))],
            [2, 3, 4, 1],
        ),
        (
            "packets",
            [flow_line(1, sizes=(0, 900)), flow_line(2, dst="1.0.0.2"), flow_line(3, dst="1.0.0.3", sizes=(0, 0)), flow_line(4, dst="1.0.0.4", sizes=(500, 300))],
            [2, 3, 4, 1],
        ),
        (
            "timeout",
            [flow_line(1, timeout="60 "), flow_line(2, dst="1.0.0.2", timeout="5 "), flow_line(3, dst="1.0.0.3", timeout="", state="", flags="[OFFLOAD] "), flow_line(4, dst="1.0.0.4", timeout="70 ")],
            [2, 1, 4, 3],
        ),
    ],
)  # fmt: skip
def test_what_comes_first(key: str, lines: list[str], ids: list[int]) -> None:
    assert sorted_by(key, flows_in(*lines)) == ids
    assert sorted_by(key, flows_in(*reversed(lines))) == ids


def test_icmp_ids_and_gre_keys_stand_where_ports_would() -> None:
    icmp = "ipv4     2 icmp     1 30 src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id={0} src=10.0.0.2 dst=10.0.0.1 type=0 code=0 id={0} mark=0 use=1 id={0}\n"
    gre = "ipv4     2 gre      47 30 src=10.0.0.1 dst=10.0.0.2 srckey=0x{0:x} dstkey=0x{1:x} src=10.0.0.2 dst=10.0.0.1 srckey=0x{1:x} dstkey=0x{0:x} mark=0 use=1 id={0}\n"
    flows = flows_in(icmp.format(30), icmp.format(4), gre.format(16, 5), gre.format(5, 16))
    assert sorted_by("source", flows) == [4, 5, 16, 30]
    assert sorted_by("destination", flows) == [4, 16, 5, 30]


def test_an_unknown_rate_comes_below_none() -> None:
    flows = flows_in(
        flow_line(1), flow_line(2, dst="1.0.0.2"), flow_line(3, dst="1.0.0.3"), flow_line(4, dst="1.0.0.4")
    )
    for flow, rates in zip(flows, (IDLE, None, (5.0, 1.0), (0.0, 5.5))):
        flow.progress = Progress(rates=rates)
    assert sorted_by("rate", flows) == [2, 1, 4, 3]
    assert [rate_text(flow) for flow in flows] == ["0", "-", "6/s", "6/s"]
    flows[0].progress = Progress(rates=(0.3, 0.19))
    assert rate_text(flows[0]) == "0"
    flows[0].progress = Progress(rates=(0.3, 0.2))
    assert rate_text(flows[0]) == "0/s"


def test_a_closed_flow_is_sorted_by_its_final_total() -> None:
    texts = [
        flow_line(1, sizes=(100, 100)),
        flow_line(2, dst="1.0.0.2", sizes=(300, 300)),
        "[DESTROY] " + flow_line(1, sizes=(500, 500)),
        "[DESTROY] " + flow_line(2, dst="1.0.0.2"),  # no totals in its end: those of the listing are the last known
    ]
    flows = flows_in(*texts)
    assert [flow.total() for flow in flows] == [1000, 600]
    assert FLOW_COLUMN["bytes"].keys(flows, CONTEXT) == [1000, 600]
    assert FLOW_COLUMN["packets"].keys(flows, CONTEXT) == [100, 60]
    assert FLOW_COLUMN["timeout"].keys(flows, CONTEXT) == [float("inf")] * 2


def test_ages_are_sorted_as_they_are_shown() -> None:
    flows = flows_in(
        flow_line(1, tail=" delta-time=500"),
        flow_line(2, dst="1.0.0.2"),
        flow_line(3, dst="1.0.0.3", tail=" delta-time=3"),
    )
    flows[1].born = 50.0
    flows += flows_in("[DESTROY] " + flow_line(4, dst="1.0.0.4"), now=70.0)
    assert FLOW_COLUMN["age"].keys(flows, CONTEXT) == [flow.age(100.0) for flow in flows] == [510.0, 50.0, 13.0, 0.0]
    flows = flows_in(flow_line(1, tail=" delta-time=500"), " [UPDATE] " + flow_line(1))
    assert FLOW_COLUMN["age"].keys(flows, CONTEXT) == [510.0]


@given(found=st.lists(records(), min_size=1, max_size=4), key=st.sampled_from(SORTS), chunk=st.sampled_from([1, 2, 50]))
def test_the_keys_of_many_are_those_of_each(found: list[Record], key: str, chunk: int) -> None:
    flows = flows_in(*(printed(record) + "\n" for record in found))
    where = {"10.0.0.1": NOWHERE, "192.0.2.255": Place("DE", city="Köln", asn=5)}
    context = Context(Lookups(lambda address: where.get(address, NOWHERE)), now=100.0, own=frozenset({"10.0.0.1"}))
    keys = FLOW_COLUMN[key].keys
    with patch("flows.MATCHED_AT_ONCE", chunk):
        at_once = keys(flows, context)
    assert at_once == [keys([flow], context)[0] for flow in flows]
    totals = {"bytes": Flow.total, "packets": Flow.packets}
    if key in totals:
        assert at_once == [-1 if (total := totals[key](flow)) is None else total for flow in flows]
    if key == "age":
        assert at_once == [flow.age(100.0) for flow in flows]
    if key == "nat":
        assert at_once == ["".join(flow.ends().nat) for flow in flows]
    if key == "cc":
        assert at_once == [context.remote(flow).country or "\U0010ffff" for flow in flows]


def test_a_place_that_nobody_knows_comes_last() -> None:
    flows = flows_in(flow_line(1), flow_line(2, dst="192.168.1.1"))
    assert order_by_place(lambda place: place.country)(flows, CONTEXT) == ["US", "\U0010ffff"]
    assert order_by_place(lambda place: place.asn, none=9e9)(flows, CONTEXT) == [15169, 9e9]


# --- sums and events --------------------------------------------------------------------------------------------------


def sums() -> list[GroupRow]:
    """Three rows, in the order of their names."""
    made = [GroupRow(key) for key in ("8.8.8.8", "9.9.9.9", "10.0.0.1")]
    for number, row in enumerate(made):
        row.label = ("b", "a", "")[number]
        row.flows, row.fresh, row.unreplied = (5, 3, 8)[number], (1, 3, 2)[number], (4, 3, 4)[number]
        row.rate_in, row.rate_out = (1.0, 5.0, 3.0)[number], (9.0, 0.0, 1.0)[number]
        row.size_in, row.size_out = (7, 6, 1)[number], (1, 3, 5)[number]
        row.share = (0.2, 0.5, 0.1)[number]
        row.others = {str(other): 1 for other in range((2, 1, 3)[number])}
    return made


@pytest.mark.parametrize(
    ("key", "order"),
    [
        *(("host", [0, 1, 2]), ("flows", [1, 0, 2]), ("new", [0, 2, 1]), ("rate", [2, 1, 0]), ("in", [0, 2, 1])),
        *(("out", [1, 2, 0]), ("bytes", [2, 0, 1]), ("bytes-in", [2, 1, 0]), ("bytes-out", [0, 1, 2])),
        *(("unreplied", [2, 0, 1]), ("share", [2, 0, 1]), ("countries", [1, 0, 2])),
    ],
)
def test_hosts_are_sorted(key: str, order: list[int]) -> None:
    rows = sums()
    column = next(column for column in HOST_COLUMNS if column.key == key)
    assert in_order(rows, column.keys(rows, CONTEXT), False) == [rows[place] for place in order]


@pytest.mark.parametrize(
    ("columns", "key", "keys", "order"),
    [
        (REMOTE_COLUMNS, "cc", [FAR, "9.9.9.9", "5.5.5.5"], [1, 0, 2]),
        (REMOTE_COLUMNS, "org", [FAR, "9.9.9.9", "5.5.5.5"], [0, 1, 2]),
        (REMOTE_COLUMNS, "hosts", ["a", "b", "c"], [1, 0, 2]),
        (COUNTRY_COLUMNS, "country", ["DE", "AU", ""], [1, 0, 2]),
        (COUNTRY_COLUMNS, "name", ["x", "y", "z"], [1, 0, 2]),
        (NETWORK_COLUMNS, "asn", ["64500", "9", ""], [1, 0, 2]),
        (NETWORK_COLUMNS, "name", ["x", "y", "z"], [1, 0, 2]),
        (SERVICE_COLUMNS, "service", ["udp/1", "tcp/9", ""], [1, 0, 2]),
        (SERVICE_COLUMNS, "name", ["tcp/22", "tcp/443", "tcp/9999"], [1, 0, 2]),
        (SERVICE_COLUMNS, "hosts", ["a", "b", "c"], [1, 0, 2]),
    ],
)
def test_other_sums_are_sorted_and_what_has_no_name_comes_last(
    columns: Sequence[GroupColumn], key: str, keys: list[str], order: list[int]
) -> None:
    rows = sums()
    for row, its in zip(rows, keys):
        row.key = its
    column = next(column for column in columns if column.key == key)
    assert in_order(rows, column.keys(rows, CONTEXT), False) == [rows[place] for place in order]


def test_events_are_sorted() -> None:
    table = FlowTable()
    texts = [
        (1.0, "    [NEW] " + flow_line(3, src="10.0.0.9", dst="9.9.9.9", state="SYN_SENT ")),
        (2.0, "[DESTROY] " + flow_line(1, src="10.0.0.3", sizes=(700, 1), state="")),
        (
            3.0,
            " [UPDATE] "
            + flow_line(2, src="10.0.0.5", dst="1.1.1.1", protocol="udp      17", sizes=(900, 1), state=""),
        ),
        (9.0, "[DESTROY] " + flow_line(3, src="10.0.0.9", dst="9.9.9.9", sizes=(5, 1), state="CLOSE ")),
    ]
    for at, text in texts:
        (row,) = split_lines(text.encode())[0]
        table.event(row, at)
    told = tape_events(table)
    wanted = {
        **{
            "time": [0, 1, 2, 3],
            "event": [1, 3, 0, 2],
            "proto": [0, 1, 3, 2],
            "state": [1, 2, 3, 0],
            "source": [2, 1, 0, 3],
        },
        **{"destination": [2, 1, 0, 3], "cc": [2, 0, 3, 1], "bytes": [0, 2, 3, 1], "lasted": [1, 0, 3, 2]},
        "first": [0, 3, 1, 2],
        "node": [0, 1, 2, 3],
    }
    for column in EVENT_COLUMNS:
        order = in_order(told, column.keys(told, CONTEXT), False)
        if column.key == "source":  # as text, behind the protocol's number
            assert [happening.flow.kind.number for happening in order][:1] == [17]
            continue
        assert [told.index(happening) for happening in order] == wanted[column.key], column.key
    cells = {
        column.key: [column.cell(EventFacts(happening, CONTEXT, False)) for happening in told]
        for column in EVENT_COLUMNS
    }
    assert cells["bytes"] == ["", "701", "", "6"]
    assert cells["lasted"] == ["", "old", "", "8s"]
    assert cells["event"] == ["NEW", "DESTROY", "UPDATE", "DESTROY"]
    assert cells["cc"] == ["DE", "US", "AU", "DE"]
    assert cells["state"] == ["SYN_SENT", "", "", "CLOSE"]


def test_times_of_events_that_have_no_date() -> None:
    (row,) = split_lines(b"[DESTROY] " + flow_line(1).encode())[0]
    table = FlowTable()
    table.event(row, 12.3456)
    (happening,) = tape_events(table)
    assert clock_text(EventFacts(happening, Context(), True)) == "12.346"
    assert clock_text(EventFacts(happening, Context(epoch=lambda: 999_000.0), True)) == "999012.346"
    assert clock_text(EventFacts(happening, Context(epoch=lambda: 1_795_386_000.0), True)).endswith(":12.345")


# --- cells ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age", "known", "text"),
    [
        *((7.9, True, "7s"), (7.9, False, "old"), (39.9, False, ">30s"), (60.0, False, ">1m"), (59.9, True, "59s")),
        *((999.0 * 86_400, True, "999d"), (1000.0 * 86_400, True, "3y"), (1e12, False, "9999y"), (1e9, True, "32y")),
    ],
)
def test_ages_in_cells(age: float, known: bool, text: str) -> None:
    (flow,) = flows_in(flow_line(1), now=0.0)
    flow.progress = Progress(exact=known)
    assert age_text(facts_of(flow, Context(now=age), False)) == text


@pytest.mark.parametrize(
    ("protocol", "text"),
    [
        *(("tcp      6", "tcp"), ("icmpv6   58", "icmp6"), ("udplite  136", "udpl"), ("unknown  50", "ip50")),
        *(("unknown  0", "ip0"), ("unknown  255", "ip255"), ("sctp     132", "sctp")),
    ],
)
def test_protocols_in_cells(protocol: str, text: str) -> None:
    state = "CLOSED " if protocol.startswith("sctp") else "ESTABLISHED " if protocol.startswith("tcp") else ""
    what: dict[str, Any] = {"ports": None} if protocol.startswith("unknown") else {}
    if protocol.startswith("icmp"):
        (flow,) = flows_in(
            "icmpv6   58 9 src=::1 dst=::2 type=128 code=0 id=1 src=::2 dst=::1 type=129 code=0 id=1 mark=0 use=1\n"
        )
    else:
        (flow,) = flows_in(flow_line(1, protocol=protocol, state=state, **what))
    assert protocol_text(flow) == text


def test_ends_and_nat_in_cells() -> None:
    def of(text: str, names: bool = True) -> list[str]:
        (flow,) = flows_in(text)
        its = facts_of(flow, context_of(names={LAN: "laptop", FAR: "dns"}), names)
        columns = [FLOW_COLUMN[key] for key in ("source", "destination", "nat", "natkind", "cc")]
        return [*(column.cell(its) for column in columns), *(column.brief(its) for column in columns if column.brief)]

    both = {"reply_src": "192.168.1.7", "reply_dst": WAN}
    assert of(flow_line(1)) == ["laptop:1000", "dns:https", "", "", "US", "dns:443", "", "US"]
    assert of(flow_line(1), False)[:2] == ["laptop:1000", "dns:443"]
    assert of(flow_line(1, src="10.0.0.5", ports=(443, 9)))[:2] == ["10.0.0.5:443", "dns:9"]
    assert of(flow_line(1, reply_dst=WAN))[2:4] == [f"snat {WAN}:1000", "snat"]
    assert of(flow_line(1, reply_src="192.168.1.7"))[2:4] == ["dnat 192.168.1.7:443", "dnat"]
    assert of(flow_line(1, **both))[2:4] == [f"snat {WAN}:1000 dnat 192.168.1.7:443", "both"]
    assert of(flow_line(1, **both))[-2] == "both 192.168.1.7:443"
    assert of(flow_line(1, reply_dst=WAN))[-2] == f"snat {WAN}:1000"
    no_ports = of(flow_line(1, protocol="unknown  50", state="", ports=None, **both))
    assert no_ports[:4] == ["laptop", "dns", f"snat {WAN} dnat 192.168.1.7", "both"]
    assert no_ports[-2] == "both 192.168.1.7"
    for dst, code, brief in (
        *(("5.5.5.5", "--", "--"), ("192.168.1.1", "private", "lan"), ("224.0.0.1", "multicast", "mcst")),
        *(
            ("169.254.0.1", "link-local", "link"),
            ("127.0.0.1", "loopback", "loop"),
            ("192.0.2.1", "documentation", "doc"),
        ),
    ):
        found = of(flow_line(1, dst=dst))
        assert (found[4], found[-1]) == (code, brief)


def test_nat_text_may_be_on_two_lines() -> None:
    (flow,) = flows_in(flow_line(1, reply_src="192.168.1.7", reply_dst=WAN))
    assert nat_text(facts_of(flow, CONTEXT, False), "\n") == f"snat {WAN}:1000\ndnat 192.168.1.7:443"
    assert end_text(facts_of(flow, CONTEXT, True), False) == "8.8.8.8:https"


@pytest.mark.parametrize(
    ("text", "kind", "inside", "outside", "remote"),
    [
        (flow_line(1, reply_dst=WAN), "snat", f"{LAN}:1000", f"{WAN}:1000", f"{FAR}:443"),
        (flow_line(1, reply_dst="5.5.5.5"), "snat", f"{LAN}:1000", "5.5.5.5:1000", f"{FAR}:443"),
        (flow_line(1, src=FAR, dst=WAN, reply_src=LAN), "dnat", f"{LAN}:443", f"{WAN}:443", f"{FAR}:1000"),
        (flow_line(1, reply_src="5.5.5.5", reply_dst=WAN), "both", f"{LAN}:1000", f"{WAN}:1000", "5.5.5.5:443"),
        (flow_line(1), "", f"{LAN}:1000", "", f"{LAN}:1000"),
        (flow_line(1, protocol="unknown  50", state="", ports=None, reply_dst=WAN), "snat", LAN, WAN, FAR),
        (
            flow_line(1, protocol="unknown  50", state="", ports=None, src=FAR, dst=WAN, reply_src=LAN),
            "dnat",
            LAN,
            WAN,
            FAR,
        ),
    ],
)
def test_the_nat_view_names_inside_translated_and_remote(
    text: str, kind: str, inside: str, outside: str, remote: str
) -> None:
    (flow,) = flows_in(text)
    its = facts_of(flow, CONTEXT, False)
    view = VIEW_BY_NAME["nat"]
    assert [view.column(key).cell(its) for key in ("kind", "inside", "translated", "remote")] == [
        kind,
        inside,
        outside,
        remote,
    ]
    address, _, port = (outside or f"{FAR}:443").partition(":")
    assert view.column("translated").keys([flow], CONTEXT) == [(address, int(port or 0))]


def test_the_views_and_what_each_is_sorted_by() -> None:
    def rows(kind: ViewSpec) -> str:
        """What a row is: exactly one of these."""
        if kind.grouping is not None:
            assert (kind.tape, kind.translated, kind.rows_are_flows) == (False, False, False)
            return "map" if kind.on_map else "sums"
        if kind.logged:
            assert (kind.tape, kind.translated, kind.rows_are_flows, kind.on_map) == (False,) * 4
            return kind.logged
        assert kind.rows_are_flows != kind.tape
        assert not kind.on_map
        return "events" if kind.tape else "translated" if kind.translated else "flows"

    assert [(kind.name, kind.key, kind.title, rows(kind), kind.sort, kind.once) for kind in VIEWS] == [
        ("connections", "1", "Connections", "flows", "rate", "bytes"),
        ("hosts", "2", "Hosts", "sums", "rate", "bytes"),
        ("countries", "3", "Countries", "sums", "rate", "bytes"),
        ("networks", "4", "Networks", "sums", "rate", "bytes"),
        ("services", "5", "Services", "sums", "rate", "bytes"),
        ("nat", "6", "NAT", "translated", "start", ""),
        ("events", "7", "Events", "events", "time", ""),
        ("map", "8", "Map", "map", "flows", ""),
        ("states", "9", "States", "sums", "rate", "bytes"),
        ("usage", "0", "Usage", "host", "bytes", ""),
        ("remotes", "", "Remote hosts", "sums", "rate", "bytes"),
        ("zones", "", "Zones", "sums", "rate", "bytes"),
        ("marks", "", "Marks", "sums", "rate", "bytes"),
        ("nodes", "9", "Nodes", "sums", "node", "node"),
        ("usage-countries", "", "Usage by country", "country", "bytes", ""),
        ("usage-networks", "", "Usage by network", "network", "bytes", ""),
        ("usage-services", "", "Usage by service", "service", "bytes", ""),
    ]
    falling = {kind.name: {key for key in kind.sorts if kind.falling(key, False)} for kind in VIEWS}
    assert falling["connections"] == {"nat", "rate", "bytes", "packets", "age", "idle"}
    numbers = {"flows", "new", "rate", "in", "out", "bytes", "bytes-in", "bytes-out", "unreplied", "share"}
    assert falling["hosts"] == numbers | {"countries", "remotes", "ports"}
    assert (
        falling["countries"] == falling["networks"] == falling["services"] == falling["remotes"] == numbers | {"hosts"}
    )
    assert falling["nat"] == {"rate", "bytes", "age", "start", "end"}
    assert falling["events"] == {"time", "bytes"}
    windows = {f"{window}-{way}" for window in ("today", "week", "month") for way in ("in", "out")}
    for name in ("usage", "usage-countries", "usage-networks", "usage-services"):
        assert falling[name] == windows | {"bytes", "in", "out", "bars", "flows"}
    for kind in VIEWS:
        assert {key for key in kind.sorts if kind.falling(key, True)} == set(kind.sorts) - falling[kind.name]
        assert "natkind" not in kind.sorts
    assert {ALIASES[alias] for alias in ALIASES} <= set(SORTS)


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (1, "destination:1"),
        (20, "destination:20"),
        (26, "destination:26"),
        (27, "proto:5 destination:21"),
        (34, "proto:5 destination:21 rate:6"),
        (50, "proto:5 source:15 destination:21 rate:6"),
        (62, "proto:5 state:11 source:15 destination:21 rate:6"),
        (80, "proto:5 state:11 source:21 destination:21 cc:5 rate:6 age:5"),
        (101, "proto:5 state:11 source:21 destination:21 natkind:4 cc:7 rate:6 bytes:5 age:5 timeout:7"),
    ],
)
def test_columns_that_fit(width: int, columns: str) -> None:
    usual = [column for column in FLOW_COLUMNS if not column.only_with]
    assert " ".join(f"{column.key}:{size}" for column, size in fit(width, usual)) == columns
