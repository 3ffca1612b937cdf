"""What is done for all flows at once says what is said of each flow: sort keys, filters, listings."""

from __future__ import annotations

import ipaddress
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from worlds import flow_lines

import addresses
import export
from addresses import Context, Place
from columns import FLOW_COLUMN
from filters import FIELDS, bare, shown_text
from flows import Flow, FlowTable
from parse import record, split_lines
from view import in_order

NOW = 9.0
OWN = frozenset({"10.0.0.1", "2001:db8::1", "192.0.2.1"})
PLACES = [
    Place("DE", "Germany", "Köln", 64500, "Example Networks GmbH"),
    Place("US", "United States", None, 15169, "Google LLC"),
    Place(),
]
blocks = st.lists(flow_lines(), max_size=10).map(b"".join)


def where(address: str) -> Place:
    return PLACES[sum(address.encode()) % len(PLACES)]


def flows_of(block: bytes, own: frozenset[str] = OWN) -> tuple[list[Flow], Context]:
    """The flows that a block leaves: half of it read as a listing, then all of it."""
    rows, _ = split_lines(block)
    if own is OWN and rows:  # somebody is at home in it
        own = OWN | {rows[0][5].split()[0][4:].decode(), rows[-1][5].split()[1][4:].decode()}
    table = FlowTable(own=own)
    for now, part in ((0.0, rows[: len(rows) // 2]), (7.0, rows)):
        table.begin_listing(now)
        table.listed_all(part, now)
        table.end_listing(False, now)
    return list(table), Context(NOW, own, where)


def arrange(flows: list[Flow], sort: str, reverse: bool, context: Context, limit: int | None = None) -> list[Flow]:
    column = FLOW_COLUMN[sort]
    return in_order(flows, column.keys(flows, context), column.descending != reverse, limit)


def address_order(text: str) -> tuple[int, int, str]:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return 9, 0, text
    return address.version, int(address), ""


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


@given(column=st.sampled_from(sorted(SPECS)), block=blocks, reverse=st.booleans(), limit=st.none() | st.integers(0, 3))
def test_rows_are_in_the_order_of_what_their_cells_say(
    column: str, block: bytes, reverse: bool, limit: int | None
) -> None:
    flows, context = flows_of(block)
    falling = FLOW_COLUMN[column].descending != reverse
    expected = sorted(flows, key=lambda flow: SPECS[column](flow, context), reverse=falling)
    assert arrange(flows, column, reverse, context) == expected
    first = arrange(flows, column, reverse, context, limit)
    assert first[:limit] == expected[:limit]


@given(block=blocks)
def test_rows_by_source_are_in_numerical_order(block: bytes) -> None:
    flows, context = flows_of(block)
    found = [
        (address_order(e.src), port(e.sport)) for e in (f.ends() for f in arrange(flows, "source", False, context))
    ]
    # A GRE key or an ICMP id above 65,535 may count into the next address.
    assert [address for address, number in found if number < 65_536] == sorted(a for a, n in found if n < 65_536)


@given(block=blocks)
def test_rows_by_destination_are_in_numerical_order(block: bytes) -> None:
    flows, context = flows_of(block)
    found = [address_order(f.ends().dst) for f in arrange(flows, "destination", False, context) if f.kind.number != 47]
    assert found == sorted(found)


@given(block=blocks)
def test_the_next_to_be_forgotten_come_first(block: bytes) -> None:
    flows, context = flows_of(block)
    left = [f.remaining(context.now) for f in arrange(flows, "timeout", False, context)]
    known = [seconds for seconds in left if seconds is not None]
    assert left == sorted(known) + [None] * (len(left) - len(known))


@given(block=blocks, own=st.sampled_from([OWN, frozenset[str]()]))
def test_the_remote_end_is_the_same_for_one_and_for_all(block: bytes, own: frozenset[str]) -> None:
    flows, context = flows_of(block, own)
    assert [context.remote_address(flow) for flow in flows] == [
        addresses.remote(flow.ends(), context.own) for flow in flows
    ]


@settings(max_examples=300)
@given(block=st.lists(flow_lines(), max_size=3).map(b"".join), data=st.data())
def test_a_bare_word_is_found_where_it_is_shown(block: bytes, data: st.DataObject) -> None:
    flows, context = flows_of(block)
    texts = [shown_text(flow, context) for flow in flows]
    if texts:
        pieces = data.draw(st.sampled_from(texts)).split()
        ends_of_addresses = [piece.rpartition(":")[2] for piece in pieces]
        word = data.draw(st.sampled_from(pieces + ends_of_addresses))
    else:
        word = data.draw(st.text(max_size=2).map(str.lower))
    wanted = bare(word, context)
    assert [wanted(flow) for flow in flows] == [word in text for text in texts]


@given(block=blocks, low=st.integers(0, 65_535), high=st.integers(0, 65_535))
def test_ports_are_found_on_every_side(block: bytes, low: int, high: int) -> None:
    flows, context = flows_of(block)
    low, high = min(low, high), max(low, high)
    wanted = {name: FIELDS[name](f"{low}-{high}", context) for name in ("port", "sport", "dport")}
    for flow in flows:
        e = flow.ends()
        ported = flow.kind.number in (6, 17, 132)
        fits = [ported and n is not None and low <= n <= high for n in (e.sport, e.dport, e.reply_sport, e.reply_dport)]
        assert [wanted[name](flow) for name in ("port", "sport", "dport")] == [any(fits), fits[0], fits[1]]


@given(block=blocks, network=st.sampled_from(["10.0.0.0/8", "2001:db8::/32", "0.0.0.0/0", "::/0", "192.0.2.1"]))
def test_networks_are_found_on_every_side(block: bytes, network: str) -> None:
    flows, context = flows_of(block)
    wanted = {name: FIELDS[name](network, context) for name in ("host", "src", "dst")}
    net = ipaddress.ip_network(network)

    def inside(text: str) -> bool:
        kind, _number, _text = address_order(text)
        return kind == net.version and ipaddress.ip_address(text) in net

    for flow in flows:
        e = flow.ends()
        fits = [inside(address) for address in (e.src, e.dst, e.reply_src, e.reply_dst)]
        assert [wanted[name](flow) for name in ("host", "src", "dst")] == [any(fits), fits[0], fits[1]]


@given(block=blocks, own=st.sampled_from([OWN, frozenset[str]()]), time=st.sampled_from([None, "1795386413.786793"]))
def test_usual_events_are_told_as_all_others_are(block: bytes, own: frozenset[str], time: str | None) -> None:
    table = FlowTable(own=own)
    context = Context(9.0, own, where)
    for row in split_lines(block)[0]:
        flow = table.event(row, 1.0)
        item = export.json_object(record(row), flow, context, "update", time)
        assert export.json_event(row, flow, context, "update", time) == export.json_line(item)


def state_of(table: FlowTable) -> Any:
    """All that a table knows."""
    live = [
        (f.key, f.kind, f.state, f.timeout, f.rest, f.born, f.course, f.sight, f.sampled) for f in table.live.values()
    ]
    return live, len(table.closed), table.counts, table.counted, table.events, table.rate_in, table.rate_out


LINE = (
    b"ipv4     2 udp      17 29 src=10.0.0.1 dst=10.0.0.2 sport=%d dport=2 src=10.0.0.2 dst=10.0.0.1 sport=2 dport=%d "
)
NAMED = LINE % (1, 1) + b"mark=0 use=1\n" + LINE % (3, 3) + b"mark=0 helper=packets=4 use=1\n"  # a name is no counter


@example(parts=[(NAMED, True, 0.0)])
@example(parts=[(NAMED, True, 0.0), (b"", True, 4.0)])
@given(parts=st.lists(st.tuples(blocks, st.booleans(), st.sampled_from([0.0, 1.0, 4.0])), max_size=6))
def test_a_block_is_taken_in_as_its_lines_would_be(parts: list[tuple[bytes, bool, float]]) -> None:
    at_once, one_by_one = FlowTable(own=OWN), FlowTable(own=OWN)
    now, again = 0.0, b""
    for block, complete, wait in parts:
        now += wait
        again += block
        rows, _ = split_lines(again)
        for table in (at_once, one_by_one):
            table.begin_listing(now)
        at_once.listed_all(rows, now)
        for row in rows:
            if row[1]:
                one_by_one.event(row, now)
            else:
                one_by_one.listed(row, now)
        for table in (at_once, one_by_one):
            table.end_listing(complete, now)
        assert state_of(at_once) == state_of(one_by_one)
