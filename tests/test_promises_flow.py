"""One flow out of its lines: what it says of itself, for every kind of protocol, before and after events and NAT."""

from __future__ import annotations

import pytest
from hypothesis import given

from addresses import Ends
from flows import Counts, Flow, FlowTable, counts_in
from parse import Record, split_lines
from test_promises_parse import printed as line_of
from test_promises_parse import records


def flow_of(*lines: str, now: float = 0.0) -> Flow:
    """The flow that the last line is about, after all of them."""
    table, flow = FlowTable(), None
    for line in lines:
        (row,), rejects = split_lines(line.encode() + b"\n")
        assert not rejects
        flow = table.event(row, now) if row[1] else table.listed(row, now) or table.find(row)
    assert flow is not None
    return flow


@given(records())
def test_a_flow_says_what_its_line_said(found: Record) -> None:
    found.event = found.stamp = None
    flow = flow_of(line_of(found))
    got = flow.record()
    if found.kind.family:
        assert got == found
    assert got.original == found.original
    assert got.reply == found.reply
    assert (flow.family, flow.kind, flow.state, flow.timeout) == (found.family, found.kind, found.state, found.timeout)
    assert flow.mark() == (found.mark or 0)
    assert flow.flags() == found.flags
    there, back = found.original, found.reply
    whole = None not in (there.packets, back.packets)
    counts = (there.packets or 0, there.bytes or 0, back.packets or 0, back.bytes or 0)
    assert flow.counts() == (Counts(*counts) if whole else None)
    assert flow.total() == (counts[1] + counts[3] if whole else None)
    assert flow.packets() == (counts[0] + counts[2] if whole else None)
    assert flow.knows_age() == (found.delta_time is not None and found.delta_time < 10**9)
    assert [text.decode() for text in flow.addresses()] == [there.src, there.dst]
    ports = [str(there.sport), str(there.dport)] if there.sport is not None else ["", ""]
    assert [text.decode() for text in flow.ports()] == ports
    zones = [there.zone, back.zone, found.zone]
    if found.secctx is None:
        assert flow.zones() == [zone for zone in zones if zone]


@given(records())
def test_a_flow_s_ends_are_those_of_its_two_tuples(found: Record) -> None:
    found.event = found.stamp = None
    there, back = found.original, found.reply
    numbers = [there.sport, there.dport, back.sport, back.dport]
    if there.icmp_id is not None:
        numbers = [there.icmp_id, there.icmp_id, there.icmp_id, back.icmp_id]
    if there.srckey is not None:
        keys = (there.srckey, there.dstkey, back.srckey, back.dstkey)
        numbers = [int(key or "0", 16) for key in keys]
    ends = flow_of(line_of(found)).ends()
    if there.icmp_id is None:
        assert ends[:2] + ends[4:6] == (there.src, there.dst, back.src, back.dst)
        assert [*ends[2:4], *ends[6:]] == numbers
        assert isinstance(ends, Ends)
    else:
        assert (ends.src, ends.dst, ends.sport, ends.reply_dport) == (there.src, there.dst, there.icmp_id, back.icmp_id)
        assert ends.dnat == (back.src != there.dst)
    assert ends.snat == (back.dst != there.src or numbers[3] != numbers[0])
    plain = flow_of(line_of(found)).plain
    assert not (plain and ends.nat)


TCP = "ipv4     2 tcp      6 {}src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 {}src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1 {}"


@pytest.mark.parametrize(
    ("state", "before", "after", "said"),
    [
        ("9 CLOSE ", "", "[ASSURED] mark=0", "CLOSE"),
        ("9 ", "", "mark=0", ""),
        ("9 ", "", "[ASSURED] mark=0", "ASSURED"),
        ("9 ", "[UNREPLIED] ", "mark=0", "UNREPLIED"),
        ("9 ", "[UNREPLIED] ", "[ASSURED] mark=0", "UNREPLIED"),
        ("", "", "[OFFLOAD] mark=0", "OFFLOAD"),
        ("", "", "[HW_OFFLOAD] mark=0", "HW_OFFLOAD"),
        ("", "[UNREPLIED] ", "[OFFLOAD] mark=0", "OFFLOAD"),
    ],
)
def test_the_status_is_the_state_or_the_flag_that_says_most(state: str, before: str, after: str, said: str) -> None:
    assert flow_of(TCP.format(state, before, after)).status() == said


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (
            "ipv4     2 tcp      6 9 CLOSE src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 src=2.2.2.2 dst=1.1.1.1 sport=2 dport=1 mark=0",
            "",
        ),
        (
            "ipv6     10 udp      17 9 src=2001:db8::1 dst=2001:db8::2 sport=1 dport=2 [UNREPLIED] src=2001:db8::2 "
            "dst=2001:db8::1 sport=2 dport=1 mark=0 use=1 id=4",
            "",
        ),
        ("unknown  50 9 src=1.1.1.1 dst=2.2.2.2 src=2.2.2.2 dst=9.9.9.9 mark=0", ""),
        (
            "    [NEW] ipv4     2 icmp     1 30 src=1.1.1.1 dst=2.2.2.2 type=8 code=0 id=1 [UNREPLIED] src=2.2.2.2 dst=1.1.1.1 "
            "type=0 code=0 id=1 id=7",
            "ipv4     2 icmp     1 30 src=1.1.1.1 dst=2.2.2.2 type=8 code=0 id=1 [UNREPLIED] src=2.2.2.2 dst=1.1.1.1 type=0 "
            "code=0 id=1 id=7",
        ),
    ],
)
def test_a_flow_s_line_is_the_one_that_was_printed(line: str, text: str) -> None:
    assert flow_of(line).line() == (text or line)


def test_an_event_adds_to_what_a_listing_said_and_the_newest_word_counts() -> None:
    listed = TCP.format(
        "9 CLOSE ", "packets=1 bytes=10 ", "packets=2 bytes=20 mark=5 secctx=a delta-time=7 helper=ftp use=2 id=3"
    )
    event = " [UPDATE] " + TCP.format("8 LAST_ACK ", "", "mark=6 id=3")
    found = flow_of(listed, event).record()
    assert (found.state, found.timeout, found.mark, found.id) == ("LAST_ACK", 8, 6, 3)
    assert (found.secctx, found.delta_time, found.helper, found.use) == ("a", 7, "ftp", 2)
    assert (found.original.packets, found.original.bytes, found.reply.packets, found.reply.bytes) == (1, 10, 2, 20)
    flow = flow_of(listed, event)
    assert (flow.counts(), flow.total(), flow.packets()) == (Counts(1, 10, 2, 20), 30, 3)
    last = "[DESTROY] " + TCP.format("", "packets=4 bytes=40 ", "packets=5 bytes=50 id=3")
    flow = flow_of(listed, event, last)
    assert (flow.counts(), flow.total(), flow.packets()) == (Counts(4, 40, 5, 50), 90, 9)
    assert flow.record().mark == 5
    assert flow.record().original.packets == 4


def test_ages() -> None:
    born = flow_of("    [NEW] " + TCP.format("9 CLOSE ", "", ""), now=50.0)
    assert (born.age(57.5), born.knows_age(), born.age(40.0)) == (7.5, True, 0.0)
    found = flow_of(TCP.format("9 CLOSE ", "", "mark=0"), now=50.0)
    assert (found.age(57.5), found.knows_age()) == (7.5, False)
    told = flow_of(TCP.format("9 CLOSE ", "", "mark=0 delta-time=100"), now=50.0)
    assert (told.age(57.5), told.knows_age(), told.birth()) == (107.5, True, -50.0)
    both = flow_of("    [NEW] " + TCP.format("9 CLOSE ", "", "delta-time=100"), now=50.0)
    assert (both.age(57.5), both.knows_age()) == (7.5, True)  # its birth was seen
    set_back = flow_of(TCP.format("9 CLOSE ", "", f"mark=0 delta-time={2**64 - 5}"), now=50.0)
    assert (set_back.age(57.5), set_back.knows_age()) == (7.5, False)


def test_remaining_seconds_are_rounded_and_never_below_zero() -> None:
    flow = flow_of(TCP.format("9 CLOSE ", "", "mark=0"), now=50.0)
    assert [flow.remaining(now) for now in (50.0, 50.4, 50.6, 58.9, 59.6, 99.0)] == [9, 9, 8, 0, 0, 0]
    assert flow_of(TCP.format("", "", "mark=0")).remaining(0.0) is None
    ended = flow_of("[DESTROY] " + TCP.format("9 CLOSE ", "", ""))
    assert (ended.timeout, ended.remaining(0.0)) == (9, None)


@pytest.mark.parametrize(
    ("rest", "counts"),
    [
        (b"packets=1 bytes=2 = packets=3 bytes=4", Counts(1, 2, 3, 4)),
        (b"packets=1 bytes=2 = ", None),
        (b"= mark=0", None),
        (b"= mark=0 [USERSPACE] portid=1 progname=packets=1 bytes=2 packets=3 bytes=4", None),
        (b"packets=1 bytes=2 = packets=3 bytes=4 packets=5 bytes=6", Counts(1, 2, 3, 4)),
    ],
)
def test_counters_are_those_of_both_directions_or_none(rest: bytes, counts: Counts | None) -> None:
    assert counts_in(rest) == counts


def test_a_rate_is_that_of_both_directions() -> None:
    flow = flow_of(TCP.format("9 CLOSE ", "", "mark=0"))
    assert flow.rate() is None
    flow.progress = flow.progress._replace(rates=(3.0, 4.5))
    assert flow.rate() == 7.5
