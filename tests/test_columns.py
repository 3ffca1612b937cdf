"""The views' columns: rows are in the order of what their cells say, and columns fit their window."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import addresses
from addresses import Context, Lookups, Place
from columns import BRIEF_SCOPES, FLOW_COLUMN, FLOW_COLUMNS, HOST_COLUMNS, SHARE_CELLS, VIEWS, GroupFacts, fit
from flows import Flow
from grouping import NEAR, GroupRow, group_object
from support.strategies import any_blocks
from support.tables import Monitor, address_order, flows_of, line, listing, shown, where
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
    "cc": lambda f, c: last_if_none(where(addresses.remote(f.ends(), c.own)).country),
    "city": lambda f, c: last_if_none(where(addresses.remote(f.ends(), c.own)).city),
    "asn": lambda f, c: last_if_none(where(addresses.remote(f.ends(), c.own)).asn),
    "org": lambda f, c: last_if_none(where(addresses.remote(f.ends(), c.own)).org),
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
        ("destination", [1, 2, 3, 4, 5]),
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
            line(3, src="9.9.9.9", dst="2001:db8::3", size=900),
            line(4, src="100.0.0.1", dst="2001:db8::10", state="SYN_SENT", size=200, reply_dst="203.0.113.1"),
            line(5, src="9.9.9.8", dst="fe80::1", size=100),
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
