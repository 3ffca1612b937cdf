"""The flow table: every invariant of the design, and a model that is fed any order of events and listings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import flows
from addresses import Ends
from flows import Counts, Flow, FlowTable, counts_in
from parse import Parts, Record, split_lines
from support.printing import printed as line_of
from support.printing import records
from support.strategies import blocks, histories
from support.tables import OWN_ADDRESSES, feed, inbound
from support.tables import event as event_line


def text(
    port: int,
    ident: int | None = 1,
    *,
    event: str = "",
    state: str = "ESTABLISHED",
    timeout: int | None = 100,
    sent: int | None = None,
    got: int = 0,
    flags: str = "",
    tail: str = "",
    zone: str = "",
    use: int = 1,
) -> bytes:
    """A line about the flow 10.0.0.1:port -> 192.0.2.1:80."""
    tag = {"": "", "new": "    [NEW] ", "update": " [UPDATE] ", "destroy": "[DESTROY] "}[event]
    there = "" if sent is None else f"packets=1 bytes={sent} "
    back = "" if sent is None else f"packets=1 bytes={got} "
    time = "" if timeout is None else f"{timeout} "
    used, number = "" if event else f" use={use}", "" if ident is None else f" id={ident}"
    return (
        f"{tag}ipv4     2 tcp      6 {time}{state + ' ' if state else ''}src=10.0.0.1 dst=192.0.2.1 sport={port} dport=80 "
        f"{there}src=192.0.2.1 dst=10.0.0.1 sport=80 dport={port} {back}{flags}mark=0{zone}{tail}{used}{number}"
    ).encode()


class Feed:
    """A table with its clock in the test's hand."""

    def __init__(self, linger: float = 5.0) -> None:
        self.inferred: list[Flow] = []
        self.table = FlowTable(linger=linger, on_inferred=self.inferred.append)
        self.now = 100.0

    def event(self, kind: str, port: int, ident: int | None = 1, **more: Any) -> Flow:
        (row,) = split_lines(text(port, ident, event=kind, **more) + b"\n")[0]
        return self.table.event(row, self.now)

    def listed(self, port: int, ident: int | None = 1, **more: Any) -> Flow | None:
        (row,) = split_lines(text(port, ident, **more) + b"\n")[0]
        return self.table.listed(row, self.now)

    def listing(self, *ports: int, complete: bool = True, **more: Any) -> None:
        self.table.begin_listing(self.now)
        for port in ports:
            self.listed(port, **more)
        self.table.end_listing(complete, self.now)

    @property
    def ports(self) -> list[int]:
        return sorted(flow.ends().sport or 0 for flow in self.table.live.values())


def test_a_listing_fills_the_table_and_events_change_it() -> None:
    feed = Feed()
    feed.listing(1, 2)
    assert feed.ports == [1, 2]
    flow = feed.event("update", 1, state="TIME_WAIT", timeout=120)
    assert flow.state == "TIME_WAIT"
    assert feed.table.counts == {("tcp", "ESTABLISHED"): 1, ("tcp", "TIME_WAIT"): 1}
    feed.event("destroy", 1)
    assert feed.ports == [2]
    assert [closed.ends().sport for closed in feed.table.closed] == [1]


def test_a_complete_listing_sweeps_what_it_did_not_name() -> None:
    feed = Feed()
    feed.listing(1, 2, 3)
    feed.listing(1)
    assert feed.ports == [1]
    assert sorted(flow.ends().sport or 0 for flow in feed.inferred) == [2, 3]
    assert all(flow.inferred for flow in feed.inferred)


def test_a_listing_that_failed_sweeps_nothing() -> None:
    feed = Feed()
    feed.listing(1, 2, 3)
    feed.listing(1, complete=False)
    assert feed.ports == [1, 2, 3]


def test_what_an_event_named_since_the_listing_began_is_not_swept() -> None:
    feed = Feed()
    feed.listing(1)
    feed.table.begin_listing(feed.now)
    feed.event("new", 2)
    feed.event("update", 1)
    feed.table.end_listing(True, feed.now)
    assert feed.ports == [1, 2]


def test_a_line_of_a_listing_never_revives() -> None:
    feed = Feed(linger=0)
    feed.listing(1)
    feed.table.begin_listing(feed.now)
    feed.event("destroy", 1)
    assert feed.listed(1) is None
    feed.table.end_listing(True, feed.now)
    assert feed.ports == []


def test_but_the_next_listing_does_and_a_new_flow_does_at_once() -> None:
    feed = Feed()
    feed.listing(1)
    feed.event("destroy", 1)
    feed.listing(1)
    assert feed.ports == [1]
    feed.table.begin_listing(feed.now)
    feed.event("destroy", 1)
    feed.event("new", 1)
    feed.listed(1)
    feed.table.end_listing(True, feed.now)
    assert feed.ports == [1]


@pytest.mark.parametrize("other", [7, 8])
def test_a_stale_line_of_a_listing_does_no_harm_to_the_flow_that_took_the_place(other: int) -> None:
    """The listing's pipe is read after the events': its line may be about the flow before."""
    feed = Feed()
    feed.event("new", 1, 7)
    feed.table.begin_listing(feed.now)
    feed.event("destroy", 1, 7, sent=5, got=5)
    fresh = feed.event("new", 1, other)
    assert feed.listed(1, 7, sent=2_000_000_000, got=0) is None
    feed.table.end_listing(True, feed.now + 1)
    assert list(feed.table.live.values()) == [fresh]
    assert fresh.total() is None
    assert feed.inferred == []
    feed.now += 2
    feed.listing(1, ident=other, sent=10, got=0)
    assert fresh.total() == 10


def test_without_accounting_an_update_keeps_what_a_listing_said() -> None:
    feed = Feed()
    feed.table.begin_listing(feed.now)
    feed.listed(1, tail=" delta-time=5000 helper=ftp")
    flow = feed.event("update", 1, state="FIN_WAIT")
    assert flow.knows_age()
    assert flow.age(feed.now) == 5000
    assert flow.record().helper == "ftp"


@pytest.mark.parametrize("in_step", [True, False])
def test_a_late_event_is_of_the_flow_that_was_listed(in_step: bool) -> None:
    """A NEW that waited while two listings began is no other flow's, where the second began before it was read."""
    feed = Feed()
    feed.listing(1)
    feed.now += 0.7
    feed.table.begin_listing(feed.now, in_step)
    (listed,) = feed.table.live.values()
    feed.event("new", 1)
    assert (next(iter(feed.table.live.values())) is listed) != in_step


def test_another_id_is_another_flow() -> None:
    feed = Feed()
    first = feed.event("new", 1, 7)
    second = feed.event("update", 1, 8)
    assert second is not first
    assert first.ended is not None
    assert feed.inferred == []  # the events tell who reads along
    third = feed.listed(1, 9)
    assert third is not None
    assert third is not second
    assert feed.inferred == [second]
    assert feed.ports == [1]


def test_the_late_end_of_a_former_flow_does_not_end_the_present_one() -> None:
    feed = Feed()
    feed.event("new", 1, 7)
    feed.event("new", 1, 8)
    ghost = feed.event("destroy", 1, 7)
    assert feed.ports == [1]
    assert ghost.ended is not None


def test_a_new_replaces_a_known_flow_with_the_same_id() -> None:
    """The kernel gives a reused tuple the same id again; its NEW tells."""
    feed = Feed()
    first = feed.event("new", 1, 7)
    feed.now += 10
    second = feed.event("new", 1, 7)
    assert second is not first
    assert first.ended is not None


def test_a_listing_may_be_faster_than_the_event() -> None:
    feed = Feed()
    feed.table.begin_listing(feed.now)
    found = feed.listed(1, sent=500, got=100)
    late = feed.event("new", 1, state="SYN_SENT")
    assert late is found
    assert late.exact
    assert late.total() == 600


def test_an_update_keeps_what_only_listings_say() -> None:
    feed = Feed()
    feed.table.begin_listing(feed.now)
    feed.listed(1, sent=1000, got=500, flags="[ASSURED] ", use=2)
    flow = feed.event("update", 1, state="FIN_WAIT", timeout=60)
    record = flow.record()
    assert (record.state, record.timeout, record.use) == ("FIN_WAIT", 60, 2)
    assert (record.original.bytes, record.reply.bytes) == (1000, 500)
    assert flow.total() == 1500
    assert record.flags == []


def test_an_event_without_state_changes_no_state() -> None:
    feed = Feed()
    feed.listing(1)
    flow = feed.event("update", 1, state="", tail=" helper=ftp")
    assert flow.state == "ESTABLISHED"
    assert flow.record().helper == "ftp"


def test_final_totals_and_duration_are_kept() -> None:
    feed = Feed()
    feed.event("new", 1)
    feed.now += 12
    flow = feed.event("destroy", 1, sent=123456, got=10, timeout=None)
    feed.now += 3
    assert flow.total() == 123466
    assert flow.age(feed.now) == 12
    assert flow.knows_age()
    assert flow.remaining(feed.now) is None


def test_closed_flows_go_after_the_linger() -> None:
    feed = Feed(linger=5)
    feed.event("new", 1)
    feed.event("destroy", 1)
    feed.now += 4.9
    feed.table.tick(feed.now)
    assert len(feed.table.closed) == 1
    feed.now += 0.1
    feed.table.tick(feed.now)
    assert len(feed.table.closed) == 0


def test_timeouts_count_down_between_lines() -> None:
    feed = Feed()
    feed.listing(1, timeout=100)
    flow = next(iter(feed.table.live.values()))
    assert flow.remaining(feed.now + 30) == 70
    assert flow.remaining(feed.now + 300) == 0


def test_age_is_a_lower_bound_unless_the_birth_was_seen_or_printed() -> None:
    feed = Feed()
    feed.listing(1)
    flow = next(iter(feed.table.live.values()))
    assert not flow.knows_age()
    assert flow.age(feed.now + 7) == 7
    feed.listing(2, tail=" delta-time=500")
    older = feed.table.live[next(key for key in feed.table.live if b"sport=2" in key)]
    assert older.knows_age()
    assert older.age(feed.now + 7) == 507


def test_rates_are_differences_between_listings() -> None:
    feed = Feed()
    feed.listing(1, sent=1000, got=0)
    flow = next(iter(feed.table.live.values()))
    assert flow.rate() is None
    feed.now += 2
    feed.listing(1, sent=3000, got=10_000)
    assert flow.rates == (1000, 5000)
    feed.now += 2
    feed.listing(1, sent=3000, got=10_000)
    assert flow.rate() is not None
    assert 0 < (flow.rate() or 0) < 6000
    for _ in range(20):
        feed.now += 2
        feed.listing(1, sent=3000, got=10_000)
    assert flow.rate() == 0


def test_a_flow_born_under_our_eyes_has_a_rate_from_its_second_listing_on() -> None:
    feed = Feed()
    flow = feed.event("new", 1)
    feed.now += 4
    feed.listing(1, sent=4000, got=0)
    assert flow.rate() is None
    feed.now += 2
    feed.listing(1, sent=8000, got=0)
    assert flow.rate() == 2000


def test_counters_that_were_reset_are_no_traffic() -> None:
    feed = Feed()
    feed.listing(1, sent=5000, got=5000)
    feed.now += 1
    feed.listing(1, sent=10, got=10)
    assert (feed.table.rate_in, feed.table.rate_out) == (0, 0)


def test_total_rates_count_what_short_flows_moved() -> None:
    """10.0.0.1 is private and 192.0.2.1 is not ours: what is sent goes out, what comes back comes in."""
    feed = Feed()
    feed.table.know_own(frozenset({"10.0.0.1"}))
    feed.listing()
    feed.now += 1
    feed.event("new", 1)
    feed.event("destroy", 1, sent=300, got=7000)
    feed.now += 1
    feed.listing(9, sent=0)
    assert (feed.table.rate_in, feed.table.rate_out) == (3500, 150)


def test_without_accounting_nothing_is_zero() -> None:
    feed = Feed()
    feed.listing(1)
    feed.now += 1
    feed.listing(1)
    flow = next(iter(feed.table.live.values()))
    assert flow.total() is None
    assert flow.rate() is None
    assert feed.table.rate_in is None
    assert not feed.table.counted


def test_offloaded_flows_have_no_timeout() -> None:
    feed = Feed()
    feed.listing(1)
    feed.listing(1, timeout=None, state="", flags="[OFFLOAD] ")
    flow = next(iter(feed.table.live.values()))
    assert flow.remaining(feed.now) is None
    assert flow.flags() == ["OFFLOAD"]


def test_zones_are_part_of_a_flow_s_name_and_zone_0_is_not() -> None:
    feed = Feed()
    feed.listed(1, zone="")
    feed.listed(1, zone=" zone=3")
    assert len(feed.table) == 2
    feed.listed(1, zone=" zone=0")
    assert len(feed.table) == 2
    assert sorted(flow.zones() for flow in feed.table.live.values()) == [[], [3]]


def test_a_program_s_name_is_no_zone_no_counter_no_id() -> None:
    feed = Feed()
    tail = " [USERSPACE] portid=1 progname=zone=5 packets=9 bytes=9 packets=9 bytes=9 [ASSURED] mark=7 id=9"
    (row,) = split_lines(text(1, 7, event="new") + tail.encode() + b"\n")[0]
    flow = feed.table.event(row, feed.now)
    assert (flow.zones(), flow.total(), flow.flags(), flow.mark()) == ([], None, [], 0)
    assert feed.event("update", 1, 7) is flow


@pytest.mark.parametrize(
    "tail",
    [
        b"xsrc=\xff dst=\xfe src=192.0.2.1 dst=10.0.0.1 sport=80 dport=1 mark=0",
        b"src=192.0.2.1 dst=10.0.0.1 sport=" + b"9" * 5000 + b" dport=1 mark=0",
        b"src=192.0.2.1 dst=10.0.0.1 type=0 code=0 id=" + b"9" * 5000 + b" mark=0",
        b"src=192.0.2.1 dst=10.0.0.1 srckey=0x" + b"f" * 5000 + b" dstkey=0x0 mark=" + b"9" * 5000,
        b"packets=" + b"9" * 5000 + b" bytes=1 src=192.0.2.1 dst=10.0.0.1 zone=99999999 delta-time=" + b"9" * 5000,
    ],
)
def test_odd_numbers_and_words_end_nothing(tail: bytes) -> None:
    table = FlowTable()
    head = b"ipv4     2 tcp      6 5 ESTABLISHED src=10.0.0.1 dst=192.0.2.1 sport=1 dport=80 "
    for _ in range(2):
        table.begin_listing(0.0)
        for row in split_lines(head + tail + b"\n")[0]:
            table.listed(row, 1.0)
        table.end_listing(True, 2.0)
    for flow in table.live.values():
        flow.record()
        assert flow.ends().src == "10.0.0.1"
        assert flow.total() is None
        assert flow.rate() in (None, 0.0)
        assert flow.zones() == []
        assert flow.age(3.0) >= 0


def test_a_table_that_nobody_looks_at_keeps_nothing_of_what_has_ended() -> None:
    ended: list[Flow] = []
    table = FlowTable(on_show=False, on_closed=ended.append)
    for kind in ("new", "destroy"):
        rows, _ = split_lines(text(1, event=kind, sent=1) + b"\n")
        table.event(rows[0], 1.0)
    assert [flow.ended for flow in ended] == [1.0]
    assert (table.events, len(table), len(table.closed), len(table.past), len(table.tape)) == (2, 0, 0, 0, 0)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "MAX_CLOSED", 50)
    table = FlowTable(linger=1e9, limit=100)
    for port in range(1000):
        (row,) = split_lines(text(port, event="new") + b"\n")[0]
        table.event(row, float(port))
        assert len(table.live) <= 100
        assert len(table.closed) <= 50
    assert table.overflow == 1000 - len(table.live)
    assert sum(table.counts.values()) == len(table.live)


def test_the_history_is_events_a_second() -> None:
    feed = Feed()
    feed.table.tick(feed.now)
    for port in range(30):
        feed.event("new", port)
    feed.now += 1
    feed.table.tick(feed.now)
    assert feed.table.history[-1] == 30
    feed.now += 2
    feed.table.tick(feed.now)
    assert list(feed.table.history)[-3:] == [30, 0, 0]


def test_the_life_of_a_flow() -> None:
    feed = Feed()
    flow = feed.event("new", 1, state="SYN_SENT")
    feed.event("new", 2)
    feed.now += 1
    feed.event("update", 1, state="ESTABLISHED")
    feed.event("destroy", 1, state="CLOSE")
    assert [(event, state) for _at, event, state in feed.table.life(flow)] == [
        ("new", "SYN_SENT"),
        ("update", "ESTABLISHED"),
        ("destroy", "CLOSE"),
    ]


class Machine(RuleBasedStateMachine):
    """The kernel's table as a dict, the listener's as ours: after any history a complete listing makes them equal.

    A listing says what the kernel had when it began, while events go on; an event may be lost, an end be told late.
    """

    ports = st.integers(1, 3)

    def __init__(self) -> None:
        super().__init__()
        self.feed = Feed(linger=3)
        self.kernel: dict[int, int] = {}
        self.fresh = 10
        self.listing: list[tuple[int, int]] | None = None  # what the listing that runs has not printed yet
        self.unsaid: list[tuple[int, int]] = []  # ends that are not told yet
        self.ended: set[int] = set()  # ids of flows whose end was told

    @rule(port=ports, told=st.booleans())
    def opens(self, port: int, told: bool) -> None:
        """A flow begins; where ``told`` is false, its event is lost."""
        if port not in self.kernel:
            self.fresh += 1
            self.kernel[port] = self.fresh
            if told:
                self.feed.event("new", port, self.fresh, state="SYN_SENT")

    @rule(port=ports, told=st.booleans(), state=st.sampled_from(["ESTABLISHED", "TIME_WAIT", ""]))
    def changes(self, port: int, told: bool, state: str) -> None:
        if port in self.kernel and told:
            self.feed.event("update", port, self.kernel[port], state=state)

    @rule(port=ports, told=st.sampled_from(["at once", "late", "never"]))
    def closes(self, port: int, told: str) -> None:
        ident = self.kernel.pop(port, None)
        if ident is not None and told != "never":
            self.unsaid.append((port, ident))
        if told == "at once":
            self.ends_are_told()

    @rule()
    def ends_are_told(self) -> None:
        for port, ident in self.unsaid:
            self.feed.event("destroy", port, ident, sent=5, got=5)
            self.ended.add(ident)
        self.unsaid.clear()

    @rule(seconds=st.floats(0, 10))
    def time_goes_on(self, seconds: float) -> None:
        self.feed.now += seconds
        self.feed.table.tick(self.feed.now)

    @rule()
    def a_listing_begins(self) -> None:
        if self.listing is None:
            self.feed.table.begin_listing(self.feed.now)
            self.listing = list(self.kernel.items())

    @rule(lines=st.integers(1, 3))
    def a_listing_goes_on(self, lines: int) -> None:
        for _ in range(min(lines, len(self.listing or ()))):
            assert self.listing
            self.feed.listed(*self.listing.pop(0))

    @rule(complete=st.booleans())
    def a_listing_ends(self, complete: bool) -> None:
        if self.listing is not None:
            if complete:
                self.a_listing_goes_on(len(self.listing))
            self.feed.table.end_listing(complete, self.feed.now)
            self.listing = None

    @rule()
    def a_calm_listing(self) -> None:
        """One while nothing happens: after it the tables are equal."""
        self.a_listing_ends(complete=False)
        self.ends_are_told()
        self.a_listing_begins()
        self.a_listing_ends(complete=True)
        ours = {flow.ends().sport: flow.record().id for flow in self.feed.table.live.values()}
        assert ours == self.kernel

    @invariant()
    def what_was_told_to_have_ended_is_not_live(self) -> None:
        ids = {flow.record().id for flow in self.feed.table.live.values()}
        assert not ids & self.ended

    @invariant()
    def counts_are_the_table_s(self) -> None:
        table = self.feed.table
        assert sum(table.counts.values()) == len(table.live)
        assert all(number > 0 for number in table.counts.values())
        assert all(flow.ended is None for flow in table.live.values())
        assert all(flow.ended is not None for flow in table.closed)


TestMachine = Machine.TestCase


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=20))
def test_smoothed_rates_stay_between_what_was_measured(values: list[float]) -> None:
    rates = None
    for value in values:
        rates = flows._smoothed(rates, value, 0.0, 2.0)
    assert rates is not None
    assert 0.0 <= rates[0] <= max(values) * (1 + 1e-9)


def state_of(table: FlowTable) -> Any:
    """All that a table knows."""
    live = [
        (f.key, f.kind, f.state, f.timeout, f.tail, f.born, f.progress, f.last_seen, f.sampled)
        for f in table.live.values()
    ]
    return live, len(table.closed), table.counts, table.counted, table.events, table.rate_in, table.rate_out


LINE = (
    b"ipv4     2 udp      17 29 src=10.0.0.1 dst=10.0.0.2 sport=%d dport=2 src=10.0.0.2 dst=10.0.0.1 sport=2 dport=%d "
)


NAMED = LINE % (1, 1) + b"mark=0 use=1\n" + LINE % (3, 3) + b"mark=0 helper=packets=4 use=1\n"  # a name is no counter


@example(parts=[(NAMED, True, 0.0)])
@example(parts=[(NAMED, True, 0.0), (b"", True, 4.0)])
@given(
    parts=histories().flatmap(
        lambda found: st.tuples(
            *(st.tuples(st.just(block), st.booleans(), st.sampled_from([0.0, 1.0, 4.0])) for block in found)
        )
    )
)
def test_a_block_is_taken_in_as_its_lines_would_be(parts: Sequence[tuple[bytes, bool, float]]) -> None:
    at_once, one_by_one = FlowTable(own=OWN_ADDRESSES), FlowTable(own=OWN_ADDRESSES)
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


def test_history_is_bounded() -> None:
    from flows import FlowTable

    table = FlowTable(past=3)
    for number in range(10):
        feed(table, event_line("NEW", number) + event_line("DESTROY", number), 100.0 + number)
    assert [flow.record().id for flow in table.past] == [7, 8, 9]


# --- one flow out of its lines: what it says of itself, for every kind of protocol, before and after events and NAT ---


def flow_of(*lines: str, now: float = 0.0) -> Flow:
    """The flow that the last line is about, after all of them."""
    table, flow = FlowTable(), None
    for line in lines:
        (row,), rejects = split_lines(line.encode() + b"\n")
        assert not rejects
        flow = table.event(row, now) if row[1] else table.listed(row, now) or table.find(row)
    assert flow is not None
    return flow


@given(records(listed=True))
def test_a_flow_says_what_its_line_said(found: Record) -> None:
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


@given(records(listed=True))
def test_a_flow_s_ends_are_those_of_its_two_tuples(found: Record) -> None:
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
        ("tcp      6 9 CLOSE ", "", "[ASSURED] mark=0", "CLOSE"),
        ("udp      17 9 ", "", "mark=0", ""),
        ("udp      17 9 ", "", "[ASSURED] mark=0", "ASSURED"),
        ("udp      17 9 ", "[UNREPLIED] ", "mark=0", "UNREPLIED"),
        ("udp      17 9 ", "[UNREPLIED] ", "[ASSURED] mark=0", "UNREPLIED"),
        ("tcp      6 ", "", "[OFFLOAD] mark=0", "OFFLOAD"),
        ("tcp      6 ", "", "[HW_OFFLOAD] mark=0", "HW_OFFLOAD"),
        ("tcp      6 ", "[UNREPLIED] ", "[OFFLOAD] mark=0", "OFFLOAD"),
    ],
)
def test_the_status_is_the_state_or_the_flag_that_says_most(state: str, before: str, after: str, said: str) -> None:
    assert flow_of(TCP.replace("tcp      6 {}", "{}").format(state, before, after + " use=1")).status() == said


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (
            "ipv4     2 tcp      6 9 CLOSE src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 src=2.2.2.2 dst=1.1.1.1 sport=2 dport=1 mark=0 use=1",
            "",
        ),
        (
            "ipv6     10 udp      17 9 src=2001:db8::1 dst=2001:db8::2 sport=1 dport=2 [UNREPLIED] src=2001:db8::2 "
            "dst=2001:db8::1 sport=2 dport=1 mark=0 use=1 id=4",
            "",
        ),
        ("unknown  50 9 src=1.1.1.1 dst=2.2.2.2 src=2.2.2.2 dst=9.9.9.9 mark=0 use=1", ""),
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
    born = flow_of("    [NEW] " + TCP.format("9 CLOSE ", "", "id=3"), now=50.0)
    assert (born.age(57.5), born.knows_age(), born.age(40.0)) == (7.5, True, 0.0)
    found = flow_of(TCP.format("9 CLOSE ", "", "mark=0 use=1"), now=50.0)
    assert (found.age(57.5), found.knows_age()) == (7.5, False)
    told = flow_of(TCP.format("9 CLOSE ", "", "mark=0 delta-time=100 use=1"), now=50.0)
    assert (told.age(57.5), told.knows_age(), told.birth()) == (107.5, True, -50.0)
    both = flow_of("    [NEW] " + TCP.format("9 CLOSE ", "", "delta-time=100"), now=50.0)
    assert (both.age(57.5), both.knows_age()) == (7.5, True)  # its birth was seen
    set_back = flow_of(TCP.format("9 CLOSE ", "", f"mark=0 delta-time={2**64 - 5} use=1"), now=50.0)
    assert (set_back.age(57.5), set_back.knows_age()) == (7.5, False)


def test_remaining_seconds_are_rounded_and_never_below_zero() -> None:
    flow = flow_of(TCP.format("9 CLOSE ", "", "mark=0 use=1"), now=50.0)
    assert [flow.remaining(now) for now in (50.0, 50.4, 50.6, 58.9, 59.6, 99.0)] == [9, 9, 8, 0, 0, 0]
    assert flow_of(TCP.format("", "", "[OFFLOAD] mark=0 use=1")).remaining(0.0) is None
    ended = flow_of("[DESTROY] " + TCP.format("9 CLOSE ", "", "id=3"))
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
    flow = flow_of(TCP.format("9 CLOSE ", "", "mark=0 use=1"))
    assert flow.rate() is None
    flow.progress = flow.progress._replace(rates=(3.0, 4.5))
    assert flow.rate() == 7.5


# --- the flow table where it matters: the same flow as new, listed, ended and listed late; sums, rates and bounds -----


# Few of everything, so that a line often speaks of a flow that another line has spoken of.
HOSTS = [
    ("10.0.0.1", "192.0.2.1", "192.0.2.1", "10.0.0.1"),
    ("10.0.0.1", "192.0.2.1", "192.0.2.1", "203.0.113.5"),
    ("192.0.2.1", "203.0.113.5", "10.0.0.1", "192.0.2.1"),
]
TAGS = {"": "", "new": "    [NEW] ", "update": " [UPDATE] ", "destroy": "[DESTROY] "}


FORWARDED = (  # DNAT to another port of the same host
    b"ipv4     2 tcp      6 300 ESTABLISHED src=10.0.0.1 dst=10.0.0.9 sport=1 dport=80 "
    b"src=10.0.0.9 dst=10.0.0.1 sport=8080 dport=1 [ASSURED] mark=0 use=1 id=1\n"
)


@given(blocks, st.sampled_from([OWN_ADDRESSES, frozenset[str]()]))
@example(FORWARDED, frozenset())
def test_what_comes_in_is_told_of_a_flow_as_of_its_ends(block: bytes, own: frozenset[str]) -> None:
    table = FlowTable(own=own)
    feed(table, block)
    for flow in (*table, *table.past):
        assert table._is_inbound(flow) == inbound(flow.ends(), own), flow.line()


OWN = frozenset({"203.0.113.5"})


def text_in(
    event: str = "",
    *,
    hosts: int = 0,
    port: int = 1,
    ident: int | None = 7,
    sent: int | None = None,
    got: int = 0,
    state: str = "ESTABLISHED ",
    timeout: str = "100 ",
    zone: str = "",
    flags: str = "",
    tail: str = "",
    use: int = 1,
) -> str:
    src, dst, reply_src, reply_dst = HOSTS[hosts]
    there, back = ("", "") if sent is None else (f"packets=1 bytes={sent} ", f"packets=1 bytes={got} ")
    used, number = "" if event else f" use={use}", "" if ident is None else f" id={ident}"
    return (
        f"{TAGS[event]}ipv4     2 tcp      6 {timeout}{state}src={src} dst={dst} sport={port} dport=80 {there}"
        f"src={reply_src} dst={reply_dst} sport=80 dport={port} {back}{flags}mark=0{zone}{tail}{used}{number}\n"
    )


def row_of(line: str) -> Parts:
    (row,), rejects = split_lines(line.encode())
    assert not rejects
    return row


class Told:
    """A table, its clock, and what it told of flows that only a listing showed to be gone."""

    def __init__(self, **options: Any) -> None:
        self.inferred: list[Flow] = []
        self.table = FlowTable(**options, on_inferred=self.inferred.append)
        self.now = 100.0

    def event(self, event: str, **what: Any) -> Flow:
        return self.table.event(row_of(text_in(event, **what)), self.now)

    def listed(self, **what: Any) -> Flow | None:
        return self.table.listed(row_of(text_in(**what)), self.now)

    def listing(self, *lines: dict[str, Any], after: float = 0.0, complete: bool = True) -> None:
        self.now += after
        self.table.begin_listing(self.now)
        for line in lines:
            self.listed(**line)
        self.table.end_listing(complete, self.now)

    def only(self) -> Flow:
        (flow,) = self.table.live.values()
        return flow


# --- a block at once and line by line ---------------------------------------------------------------------------------

lines = st.builds(
    text_in,
    st.sampled_from(["", "", "new", "update", "destroy"]),
    hosts=st.sampled_from([0, 1, 2]),
    port=st.sampled_from([1, 2]),
    ident=st.sampled_from([7, 8, None]),
    sent=st.sampled_from([None, 0, 0, 5000]),
    got=st.sampled_from([0, 900]),
    state=st.sampled_from(["ESTABLISHED ", "ESTABLISHED ", "TIME_WAIT ", ""]),
    timeout=st.sampled_from(["100 ", "99 ", ""]),
    zone=st.sampled_from(["", "", " zone=3"]),
    flags=st.sampled_from(["", "[OFFLOAD] "]),
    tail=st.sampled_from(["", " use=1"]),
)
LISTED = text_in(sent=0)
steps = st.one_of(
    st.sampled_from(["begin", "end", "break off", "wait"]),
    st.lists(st.one_of(lines, st.sampled_from([LISTED, text_in("destroy"), text_in("new", hosts=1)])), max_size=5),
)


def all_of(told: Told) -> Any:
    """All that a table knows."""
    table = told.table

    def of(flow: Flow) -> Any:
        return (
            flow.key,
            flow.kind,
            flow.state,
            flow.timeout,
            flow.tail,
            flow.born,
            flow.progress,
            flow.last_seen,
            flow.sampled,
        )

    return (
        [of(flow) for flow in table.live.values()],
        [of(flow) for flow in table.closed],
        [of(flow) for flow in table.past],
        [flow.key for flow in told.inferred],
        [(at, name, flow.key, state) for at, name, flow, state in table.tape],
        (table.counts, table.counted, table.events, table.overflow, table.rate_in, table.rate_out, table.listings),
    )


@example(steps=["begin", [LISTED], "end", "begin", [text_in("destroy")], [LISTED, LISTED], "end"], limit=99)
@example(steps=["begin", [LISTED], "end", "wait", "begin", [text_in(sent=0, ident=8)], "end"], limit=99)
@example(steps=["begin", [LISTED], "end", "wait", "begin", [text_in(sent=0, state="TIME_WAIT ")], "end"], limit=99)
@example(steps=["begin", [LISTED, text_in(hosts=1), text_in(hosts=2)], "end"], limit=2)
@example(
    steps=["begin", [text_in(sent=None)], "end", "wait", "begin", [text_in(sent=None, timeout="99 ")], "end"], limit=99
)
@given(steps=st.lists(steps, max_size=14), limit=st.sampled_from([99, 2]))
def test_a_block_changes_the_table_as_its_lines_one_by_one_do(steps: list[str | list[str]], limit: int) -> None:
    at_once, one_by_one = Told(own=OWN, limit=limit), Told(own=OWN, limit=limit)
    for step in steps:
        for told in (at_once, one_by_one):
            if step == "begin":
                told.table.begin_listing(told.now)
            elif step in ("end", "break off"):
                told.table.end_listing(step == "end", told.now)
            elif step == "wait":
                told.now += 2.5
                told.table.tick(told.now)
        if isinstance(step, list):
            rows = split_lines("".join(step).encode())[0]
            at_once.table.listed_all(rows, at_once.now)
            for row in rows:
                (one_by_one.table.event if row[1] else one_by_one.table.listed)(row, one_by_one.now)
        assert all_of(at_once) == all_of(one_by_one)


@pytest.mark.parametrize("in_a_block", [False, True])
def test_a_closed_flow_stays_closed_whatever_the_running_listing_says_of_it(in_a_block: bool) -> None:
    told = Told()
    told.listing({}, {"port": 2})
    told.table.begin_listing(told.now)
    told.event("destroy")
    rows = [row_of(text_in()), row_of(text_in(port=2))]
    if in_a_block:
        told.table.listed_all(rows, told.now)
    else:
        for row in rows:
            told.table.listed(row, told.now)
    told.table.end_listing(True, told.now)
    assert [flow.ends().sport for flow in told.table.live.values()] == [2]
    assert [flow.ends().sport for flow in told.table.closed] == [1]
    told.listing({}, {"port": 2})  # the next one tells of a flow that has begun since
    assert sorted(flow.ends().sport or 0 for flow in told.table.live.values()) == [1, 2]


class Kernel:
    """The truth: which tuples are there, each with its id. It tells of it in events and listings."""

    def __init__(self) -> None:
        self.there: dict[tuple[int, int], int] = {}
        self.next = 1

    def change(self, hosts: int, port: int) -> list[str]:
        """A tuple comes, or ends; what the kernel says of that."""
        ident = self.there.pop((hosts, port), None)
        if ident is not None:
            return [text_in("destroy", hosts=hosts, port=port, ident=ident, timeout="")]
        self.there[hosts, port] = self.next
        self.next += 1
        return [text_in("new", hosts=hosts, port=port, ident=self.there[hosts, port])]

    def lines(self) -> list[str]:
        return [text_in(hosts=hosts, port=port, ident=ident) for (hosts, port), ident in self.there.items()]


@given(
    before=st.lists(st.tuples(st.sampled_from([0, 2]), st.sampled_from([1, 2])), max_size=6),
    during=st.lists(st.tuples(st.sampled_from([0, 2]), st.sampled_from([1, 2])), max_size=6),
    lost=st.sets(st.integers(0, 5)),
    read_at=st.integers(0, 6),
    block=st.booleans(),
)
def test_after_a_whole_listing_the_table_is_the_kernel_s(
    before: list[tuple[int, int]], during: list[tuple[int, int]], lost: set[int], read_at: int, block: bool
) -> None:
    """Events before it may be lost; those while it runs come late or early, as its lines do."""
    kernel, told = Kernel(), Told()
    for number, former in enumerate(before):
        for line in kernel.change(*former):
            if number not in lost:
                told.table.event(row_of(line), told.now)
    told.now += 1
    told.table.begin_listing(told.now)
    snapshot = kernel.lines()
    for number, change in enumerate([*during, None]):
        if number == min(read_at, len(during)):
            rows = [row_of(line) for line in snapshot]
            if block:
                told.table.listed_all(rows, told.now)
            else:
                for row in rows:
                    told.table.listed(row, told.now)
        for line in kernel.change(*change) if change is not None else []:
            told.table.event(row_of(line), told.now)
    told.table.end_listing(True, told.now + 1)
    found = {flow.key: flow.record().id for flow in told.table.live.values()}
    wanted = {told.table.find(row_of(line)): None for line in kernel.lines()}
    assert None not in wanted
    assert len(found) == len(kernel.there)
    assert sorted(found.values(), key=str) == sorted(kernel.there.values(), key=str)


# --- the end of a flow ------------------------------------------------------------------------------------------------


def test_a_live_flow_is_not_swept_after_the_late_end_of_the_one_before_it() -> None:
    told = Told()
    told.listing({"ident": 8})
    told.now += 10
    told.table.begin_listing(told.now)
    ghost = told.event("destroy", ident=7)
    assert told.listed(ident=8) is None  # it was known
    told.table.end_listing(True, told.now)
    assert told.only().record().id == 8
    assert told.only().last_seen.at == told.now
    assert ghost.ended == told.now
    assert told.inferred == []


def test_flows_that_began_between_two_listings_and_no_event_said_so_are_counted() -> None:
    told = Told()
    told.listing({"port": 1}, {"port": 2})
    assert told.table.unannounced == 0  # they may be older than the listener
    told.event("new", port=3, ident=3)
    told.listing({"port": 1}, {"port": 2}, {"port": 3, "ident": 3}, {"port": 4}, {"port": 5}, after=5.0)
    assert told.table.unannounced == 2
    told.listing({"port": 4}, {"port": 6}, after=5.0, complete=False)
    assert told.table.unannounced == 2
    told.listing({"port": 4}, after=5.0)
    assert told.table.unannounced == 0


@pytest.mark.parametrize("in_a_block", [False, True])
def test_a_flow_that_a_listing_no_longer_names_goes_though_one_of_its_tuple_has_just_ended(in_a_block: bool) -> None:
    """Its end was lost, and the beginning of its successor, which ended while the listing ran."""
    told = Told()
    told.listing({"ident": 7}, {"port": 2})
    told.now += 10
    told.table.begin_listing(told.now)
    told.event("destroy", ident=8)
    rows = [
        row_of(text_in(port=2)),
        row_of(text_in(port=3)),
        row_of(text_in(ident=8)),
        row_of(text_in(port=3, ident=None)),
    ]
    if in_a_block:
        told.table.listed_all(rows, told.now)
    else:
        for row in rows:
            told.table.listed(row, told.now)
    told.table.end_listing(True, told.now)
    assert sorted(flow.ends().sport or 0 for flow in told.table.live.values()) == [2, 3]
    assert [flow.record().id for flow in told.inferred] == [7]


def test_a_flow_that_began_after_the_one_of_its_tuple_ended_is_taken_from_the_listing() -> None:
    told = Told()
    told.listing({"ident": 7})
    told.table.begin_listing(told.now)
    told.event("destroy", ident=7)
    assert told.listed(ident=7) is None  # older than that end
    new = told.listed(ident=8)
    told.table.end_listing(True, told.now)
    assert new is told.only()
    assert new.record().id == 8


def test_the_end_of_a_flow_that_nobody_knew_is_shown_and_remembered() -> None:
    told = Told()
    ghost = told.event("destroy", sent=300, got=7, timeout="30 ", state="CLOSE ")
    assert len(told.table) == 0
    assert list(told.table.closed) == list(told.table.past) == [ghost]
    assert (ghost.ended, ghost.timeout, ghost.state, ghost.total()) == (told.now, 30, "CLOSE", 307)
    assert not ghost.inferred
    assert not ghost.exact
    assert told.table.life(ghost) == [(told.now, "destroy", "CLOSE")]
    assert told.table.counts == {}
    assert told.table.events == 1
    assert told.event("destroy", timeout="").timeout is None


def test_an_end_outside_of_a_listing_is_no_reason_to_doubt_the_next_one() -> None:
    told = Told()
    told.listing({})
    told.event("destroy")
    told.table.begin_listing(told.now)
    assert told.listed() is not None
    told.event("destroy")
    told.table.begin_listing(told.now + 1)
    assert told.listed() is not None


@pytest.mark.parametrize("complete", [True, False])
def test_after_a_listing_lines_that_somebody_feeds_are_believed_again(complete: bool) -> None:
    told = Told()
    told.table.begin_listing(told.now)
    told.event("destroy")
    told.table.end_listing(complete, told.now)
    assert told.listed() is not None


def test_which_ends_are_inferred() -> None:
    """Those that no DESTROY told of; who follows the events is told of those that only a listing showed."""
    told = Told()
    told.listing({}, {"port": 2}, {"port": 3})
    by_event = told.event("destroy")
    told.event("new", port=2, ident=9)
    told.listing({"port": 2, "ident": 9})
    assert not by_event.inferred
    assert [(flow.ends().sport, flow.inferred) for flow in told.table.past] == [(1, False), (2, True), (3, True)]
    assert [flow.ends().sport for flow in told.inferred] == [3]
    told.listing({"port": 2, "ident": 10})
    assert [flow.ends().sport for flow in told.inferred] == [3, 2]
    assert [flow.record().id for flow in told.table.live.values()] == [10]


def test_a_flow_that_has_ended_has_no_rate_and_no_place_among_the_states() -> None:
    told = Told()
    told.listing({"sent": 0})
    told.listing({"sent": 1000}, after=1.0)
    flow = told.only()
    assert flow.rate() == 1000
    told.event("destroy", sent=1000)
    assert flow.rate() is None
    assert told.table.counts == {}


@pytest.mark.parametrize(
    ("event", "born", "listing", "same"),
    [
        ("update", 0.0, 0.0, True),
        ("new", 0.0, 0.0, True),  # known by a line of the listing that runs: it was faster than the event
        ("new", 0.0, 5.0, False),  # known from an older listing: the tuple is used again
    ],
)
def test_is_an_event_about_the_known_flow_or_about_its_successor(
    event: str, born: float, listing: float, same: bool
) -> None:
    told = Told()
    told.table.begin_listing(told.now)
    told.now += born
    known = told.listed()
    if listing:
        told.table.end_listing(True, told.now)
        told.now += listing
        told.table.begin_listing(told.now)
    flow = told.event(event)
    assert (flow is known) == same
    assert flow.exact == (event == "new")
    assert [old.inferred for old in told.table.closed] == [] if same else [True]
    assert told.inferred == []
    assert told.table.counts == {("tcp", "ESTABLISHED"): 1}


@pytest.mark.parametrize(("one", "other", "same"), [(7, 8, False), (7, 7, True), (7, None, True), (None, 8, True)])
def test_only_two_ids_tell_two_flows_apart(one: int | None, other: int | None, same: bool) -> None:
    told = Told()
    first = told.event("new", ident=one)
    assert (told.event("update", ident=other) is first) == same
    told = Told()
    told.listing({"ident": one, "sent": 5})
    first = told.only()
    told.listing({"ident": other, "sent": 6})
    assert (told.only() is first) == same
    told = Told()
    first = told.event("new", ident=one)
    assert (told.event("destroy", ident=other) is first) == same


# --- counters, rates, sums --------------------------------------------------------------------------------------------


def test_header_rates_go_when_accounting_is_switched_off() -> None:
    told = Told(own=frozenset({"10.0.0.1"}))
    told.listing({"sent": 1000, "got": 0})
    assert (told.table.rate_in, told.table.rate_out, told.table.counted) == (None, None, True)
    told.listing({"sent": 3000, "got": 500}, after=2.0)
    assert [told.table.rate_in, told.table.rate_out] == [250.0, 1000.0]
    told.listing({"ident": 8}, after=2.0)
    assert told.table.rate_out is None
    assert (told.table.rate_in, told.table.counted) == (None, False)


def test_header_rates_are_those_of_the_time_between_two_whole_listings() -> None:
    told = Told(own=frozenset({"10.0.0.1"}))
    told.listing({"sent": 1000})
    told.listing({"sent": 2000}, after=1.0, complete=False)
    assert told.table.rate_out is None
    assert (told.table.listings, told.table.listed_at) == (1, 100.0)
    told.listing({"sent": 5000}, after=3.0)
    assert [told.table.rate_in, told.table.rate_out] == [0.0, 1000.0]
    assert (told.table.listings, told.table.listed_at) == (2, 104.0)
    told.listing({"sent": 9000})  # no time has passed
    assert told.table.rate_out == 1000.0
    told.listing({"sent": 9000}, after=1.0)
    assert told.table.rate_out == pytest.approx(told.only().rate(), abs=0.01)
    told.listing({"sent": 9000}, after=1.0)
    assert told.table.rate_out == 0.0


def test_without_counters_in_the_listing_the_totals_of_ended_flows_still_make_a_rate() -> None:
    told = Told(own=frozenset({"10.0.0.1"}))
    told.listing()
    told.event("new")
    told.event("destroy", sent=600, got=60)
    told.listing(after=2.0)
    assert (told.table.rate_in, told.table.rate_out) == (30.0, 300.0)


@pytest.mark.parametrize(
    ("hosts", "own", "incoming"),
    [
        (0, {"10.0.0.1"}, False),
        (0, {"192.0.2.1"}, True),
        (1, {"203.0.113.5"}, False),
        (2, {"203.0.113.5"}, True),
    ],
)
def test_what_comes_in_and_what_goes_out(hosts: int, own: set[str], incoming: bool) -> None:
    """The original direction comes in where the far side has opened the flow."""
    told = Told(own=frozenset(own))
    told.listing({"hosts": hosts, "sent": 10, "got": 20})
    told.listing({"hosts": hosts, "sent": 1010, "got": 70}, after=1.0)
    both = told.table.rate_in, told.table.rate_out
    assert both == ((1000.0, 50.0) if incoming else (50.0, 1000.0))
    assert told.only().rates == (1000.0, 50.0)
    assert told.only().progress.inbound is incoming


def test_a_rate_follows_within_seconds_what_a_flow_moves() -> None:
    told = Told()
    told.listing({"sent": 0, "got": 0})
    told.listing({"sent": 3000, "got": 600}, after=3.0)
    assert told.only().rates == (1000.0, 200.0)  # the first sample is the rate
    told.listing({"sent": 3000 + 9000, "got": 600}, after=3.0)
    share = 1 - math.exp(-1)
    assert told.only().rates == pytest.approx((1000 + share * 2000, 200 - share * 200))
    before = told.only().rates
    assert before is not None
    told.listing({"sent": 12_000, "got": 600}, after=6.0)  # the same text_in: nothing moved
    share = 1 - math.exp(-2)
    assert told.only().rates == pytest.approx((before[0] * (1 - share), before[1] * (1 - share)))


def test_a_flow_at_its_end_has_no_slow_way_down() -> None:
    told = Told()
    for state in ("TIME_WAIT ", "CLOSE ", "LAST_ACK "):
        told.listing({"sent": 0}, after=1.0)
        told.listing({"sent": 5000, "state": state}, after=1.0)
        assert told.only().rate()
        told.listing({"sent": 5000, "state": state}, after=1.0)
        assert told.only().rates == (0.0, 0.0)


def test_a_rate_below_a_byte_a_second_is_none() -> None:
    told = Told()
    told.listing({"sent": 0})
    told.listing({"sent": 2}, after=1.0)
    told.listing({"sent": 2}, after=0.9)
    told.listing({"sent": 2}, after=0.9)
    assert 1.0 < (told.only().rate() or 0.0) < 2.0
    told.listing({"sent": 2}, after=0.9)
    assert 0.0 < (told.only().rate() or 0.0) < 1.0
    told.listing({"sent": 2}, after=0.9)
    assert told.only().rates == (0.0, 0.0)


def test_a_flow_that_rested_between_three_listings_has_stopped() -> None:
    """The curve alone showed 1/50 of the rate after 12 s, and the header with it."""
    told = Told()
    told.listing({"sent": 0})
    told.listing({"sent": 2_000_000}, after=2.0)
    told.listing({"sent": 2_000_000}, after=2.0)
    assert 0.0 < (told.only().rate() or 0.0) < 600_000
    told.listing({"sent": 2_000_000}, after=2.0)
    assert told.only().rates == (0.0, 0.0)
    assert (told.table.rate_in, told.table.rate_out) == (0.0, 0.0)
    told.listing({"sent": 2_000_000, "state": "TIME_WAIT "}, after=2.0)  # another text_in tells of no traffic, either
    assert told.only().rates == (0.0, 0.0)


def test_a_flow_that_rests_now_and_then_keeps_its_mean() -> None:
    told = Told()
    told.listing({"sent": 0})
    rates = []
    for number in range(1, 40):
        told.listing({"sent": number // 2 * 4000}, after=2.0)
        rates.append(told.only().rate() or 0.0)
    assert sum(rates[-10:]) / 10 == pytest.approx(1000.0, rel=0.01)


def test_the_first_interval_of_a_newborn_flow_is_no_interval() -> None:
    """One packet of 1,400 bytes, listed 1 ms after its NEW, showed 1.4 MB/s, and 189 kB/s 6 s later."""
    told = Told(own=frozenset({"10.0.0.1"}))
    told.listing()
    told.now += 2.0
    told.event("new")
    told.listing({"sent": 1400}, after=0.001)
    assert told.only().rate() is None
    assert told.table.rate_out == pytest.approx(1400 / 2.001)  # it did go out
    told.listing({"sent": 1400}, after=2.0)
    assert told.only().rate() == 0.0
    assert told.table.rate_out == 0.0


def test_a_newborn_flow_that_a_listing_missed_has_a_rate_at_its_first() -> None:
    told = Told()
    told.listing()
    told.event("new")
    told.listing({"sent": 4000}, after=4.0)
    assert told.only().rate() == 1000.0


@pytest.mark.parametrize("gap", [0.05, 0.4, 0.9])
def test_two_listings_that_are_close_make_no_first_rate(gap: float) -> None:
    """A loss brings a listing 0.2 s after the one before: a packet of 1,400 bytes was 7 kB/s there."""
    told = Told(own=frozenset({"10.0.0.1"}))
    told.listing({"sent": 0})
    told.listing({"sent": 1400}, after=gap)
    assert told.only().rate() is None
    told.listing({"sent": 1400}, after=2.0)
    assert told.only().rate() == pytest.approx(1400 / (2.0 + gap))


@pytest.mark.parametrize("gap", [0.0, 0.2])
def test_no_movement_in_no_time_is_unknown_not_zero(gap: float) -> None:
    told = Told()
    told.listing({"sent": 5})
    told.listing({"sent": 5}, after=gap)
    assert told.only().rate() is None
    told.listing({"sent": 5}, after=1.0)
    assert told.only().rate() == 0.0


def test_listings_that_are_always_close_have_rates_all_the_same() -> None:
    told = Told()
    for number in range(20):
        told.listing({"sent": 200 * number}, after=0.2)
    assert told.only().rate() == pytest.approx(1000.0)


def test_a_flow_that_ends_leaves_the_header_with_its_row_and_no_bump_behind() -> None:
    told = Told(own=frozenset({"10.0.0.1"}))
    told.listing({"sent": 0}, {"sent": 0, "port": 2})
    told.listing({"sent": 2000}, {"sent": 4000, "port": 2}, after=2.0)
    assert told.table.rate_out == 3000.0
    told.now += 1.0
    told.event("destroy", sent=3000, got=0)
    assert told.table.rate_out == 2000.0
    told.listing({"sent": 8000, "port": 2}, after=1.0)
    assert told.table.rate_out == 2000.0


def test_what_an_idle_flow_moves_before_it_ends_is_in_the_header() -> None:
    told = Told(own=frozenset({"10.0.0.1"}))
    told.listing({"sent": 5, "got": 0}, {"sent": 0, "port": 2})
    told.listing({"sent": 5, "got": 0}, {"sent": 0, "port": 2}, after=2.0)
    told.event("destroy", sent=5, got=10_000)
    told.listing({"sent": 0, "port": 2}, after=2.0)
    assert (told.table.rate_in, told.table.rate_out) == (5000.0, 0.0)
    told.listing({"sent": 0, "port": 2}, after=2.0)
    assert (told.table.rate_in, told.table.rate_out) == (0.0, 0.0)


def test_an_empty_table_moves_nothing_and_that_is_known() -> None:
    told = Told()
    told.listing({"sent": 0})
    told.listing({"sent": 2000}, after=2.0)
    told.event("destroy", sent=2000)
    told.listing(after=2.0)
    told.listing(after=2.0)
    assert (told.table.rate_in, told.table.rate_out) == (0.0, 0.0)


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from([0.2, 2.0, 9.5]),
            st.lists(st.sampled_from([0, 0, 3, 1_000_003]), min_size=3, max_size=3),
            st.sampled_from(["", "", "destroy", "new", "update"]),
        ),
        min_size=2,
        max_size=8,
    ),
    own=st.sampled_from([frozenset({"10.0.0.1"}), frozenset({"192.0.2.1"}), frozenset()]),
)
def test_the_header_is_the_sum_of_the_rows(steps: list[tuple[float, list[int], str]], own: frozenset[str]) -> None:
    """Exactly, whatever came before: once flows only live, the header says what the rows say."""
    told, sent = Told(own=own), [0, 0, 0]
    for after, moved, event in [*steps, (2.0, [0, 0, 0], ""), (2.0, [7, 0, 0], "")]:
        if event:
            told.event(event, port=1, sent=sent[0] if event == "destroy" else None)
            sent[0] = 0 if event == "destroy" else sent[0]
        sent = [before + number for before, number in zip(sent, moved)]
        told.listing(*({"sent": number, "port": port} for port, number in enumerate(sent, 1)), after=after)
    rates = [flow.rates or (0.0, 0.0) for flow in told.table.live.values()]
    inward = [bool(flow.progress.inbound) for flow in told.table.live.values()]
    table = told.table
    if all(flow.rates is not None for flow in told.table.live.values()):
        assert table.rate_in == pytest.approx(sum(r[not i] for r, i in zip(rates, inward)), rel=0.001, abs=0.1)
        assert table.rate_out == pytest.approx(sum(r[i] for r, i in zip(rates, inward)), rel=0.001, abs=0.1)
    told.listing(after=2.0)
    told.listing(after=2.0)
    assert (told.table.rate_in, told.table.rate_out) == (0.0, 0.0)


def test_two_listings_at_one_time_make_no_rate() -> None:
    told = Told()
    told.listing({"sent": 0})
    told.listing({"sent": 500})
    assert told.only().rate() is None
    told.listing({"sent": 700}, after=1.0)
    assert told.only().rate() == 200


def test_what_only_a_listing_says_stays_when_an_event_comes_and_goes_when_it_is_listed_anew() -> None:
    told = Told()
    told.listing({"sent": 100, "got": 50, "tail": " helper=ftp", "use": 2})
    flow = told.event("update", state="FIN_WAIT ")
    told.event("update", state="CLOSE_WAIT ")
    assert (flow.total(), flow.record().helper, flow.record().use) == (150, "ftp", 2)
    told.listing({"sent": 120, "got": 50}, after=1.0)
    assert (flow.total(), flow.record().helper, flow.record().use) == (170, None, 1)
    assert told.table.rate_in is not None


def test_a_last_total_counts_from_the_last_listing() -> None:
    told = Told(own=frozenset({"10.0.0.1"}))
    told.listing({"sent": 1000, "got": 100})
    told.event("update")
    told.event("destroy", sent=1500, got=400)
    told.listing(after=1.0)
    assert (told.table.rate_in, told.table.rate_out) == (300.0, 500.0)


def test_of_a_flow_that_was_there_before_us_a_first_total_is_no_traffic() -> None:
    told = Told(own=frozenset({"10.0.0.1"}))
    told.listing({})
    told.listing({"sent": 9_000_000, "got": 0}, after=1.0)
    assert told.table.rate_out == 0.0
    assert told.only().rate() is None
    told.listing({"port": 2}, after=1.0)
    told.event("destroy", port=2, sent=9_000_000, got=0)
    told.listing({"port": 3, "sent": 1}, after=1.0)
    assert told.table.rate_out == 0.0


# --- states, timeouts, events -----------------------------------------------------------------------------------------


def test_states_and_protocols_are_counted_most_first() -> None:
    told = Told()
    offloaded = {"port": 4, "state": "", "timeout": "", "flags": "[OFFLOAD] "}
    told.listing({}, {"port": 2}, {"port": 3, "state": "TIME_WAIT "}, offloaded)
    udp = "ipv4     2 udp      17 29 src=10.0.0.9 dst=10.0.0.8 sport=%d dport=2 src=10.0.0.8 dst=10.0.0.9 sport=2 dport=%d use=1 id=3\n"
    told.table.event(row_of(udp % (1, 1)), told.now)
    assert told.table.by_protocol() == [("tcp", 4), ("udp", 1)]
    assert told.table.by_state() == [("ESTABLISHED", 2), ("TIME_WAIT", 1)]
    assert told.table.counts == {
        ("tcp", "ESTABLISHED"): 2,
        ("tcp", "TIME_WAIT"): 1,
        ("tcp", ""): 1,
        ("udp", ""): 1,
    }
    assert len(told.table) == 5
    told.event("update", port=2, state="TIME_WAIT ")
    assert told.table.by_state() == [("TIME_WAIT", 2), ("ESTABLISHED", 1)]


def test_an_offloaded_flow_does_not_expire_and_a_timeout_that_an_event_left_out_stays() -> None:
    told = Told()
    flow = told.event("new")
    told.table.event(row_of(text_in("update", timeout="", state="").replace("mark=0", "[OFFLOAD] mark=0")), told.now)
    assert flow.timeout is None
    told.event("update", timeout="100 ")
    assert flow.timeout == 100
    told.event("update", timeout="", flags="[HW_OFFLOAD] ")
    assert flow.timeout is None
    told.event("update", timeout="50 ")
    assert flow.timeout == 50


def test_a_line_notes_when_its_flow_was_seen() -> None:
    told = Told()
    told.listing({"sent": 0, "timeout": "100 "})
    told.listing({"sent": 0, "timeout": "90 "}, after=30.0)
    flow = told.only()
    assert flow.remaining(told.now) == 90
    assert flow.remaining(told.now + 10) == 80
    told.now += 5
    told.event("update", timeout="300 ")
    assert flow.remaining(told.now) == 300


def test_every_event_is_on_the_tape_with_the_state_then() -> None:
    told = Told()
    flow = told.event("new", state="SYN_SENT ")
    told.now += 1
    told.event("update", state="ESTABLISHED ")
    told.now += 1
    told.event("new", port=2)
    told.event("destroy", state="")
    assert told.table.events == 4
    assert told.table.life(flow) == [
        (100.0, "new", "SYN_SENT"),
        (101.0, "update", "ESTABLISHED"),
        (102.0, "destroy", "ESTABLISHED"),
    ]
    assert [name for _at, name, _flow, _state in told.table.tape] == ["new", "update", "new", "destroy"]


def test_a_line_finds_its_flow() -> None:
    told = Told()
    flow = told.event("new", zone=" zone=3")
    assert told.table.find(row_of(text_in("update", zone=" zone=3", state="CLOSE "))) is flow
    assert told.table.find(row_of(text_in(zone=""))) is None
    assert told.table.find(row_of(text_in(zone=" zone=3", port=2))) is None


@pytest.mark.parametrize("zone", [" zone=3", " zone=65535"])
def test_zones_tell_flows_apart(zone: str) -> None:
    told = Told()
    told.listing({}, {"zone": zone}, {"zone": " zone=0"})
    assert sorted(flow.zones() for flow in told.table.live.values()) == [[], [int(zone.partition("=")[2])]]


def test_zones_of_one_direction() -> None:
    told = Told()
    of = "ipv4     2 tcp      6 9 CLOSE src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 zone-orig=%d src=10.0.0.2 dst=10.0.0.1 "
    of += "sport=2 dport=1 zone-reply=%d mark=0 use=1 id=5\n"
    for zones in ((1, 2), (1, 2), (2, 1), (1, 1)):
        told.table.listed(row_of(of % zones), told.now)
    assert [flow.zones() for flow in told.table.live.values()] == [[1, 2], [2, 1], [1, 1]]


# --- bounds, clock ----------------------------------------------------------------------------------------------------


def test_what_a_full_table_drops_is_counted_and_closed() -> None:
    told = Told(limit=16)
    for port in range(16):
        told.event("new", port=port)
    assert (len(told.table), told.table.overflow) == (16, 0)
    told.event("new", port=99)
    assert (len(told.table), told.table.overflow) == (15, 2)  # an eighth of it, the oldest
    assert [flow.ends().sport for flow in told.table.closed] == [0, 1]
    assert all(flow.inferred for flow in told.table.closed)
    assert told.inferred == []
    small = Told(limit=1)
    small.event("new", port=1)
    small.event("new", port=2)
    assert [flow.ends().sport for flow in small.table.live.values()] == [2]


def test_closed_flows_linger_and_are_remembered_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(linger=2.0, past=3)
    for port in (1, 2, 3, 4):
        told.event("new", port=port)
        told.event("destroy", port=port)
        told.now += 1
    told.table.tick(told.now - 0.5)  # 3.5, 2.5, 1.5 and 0.5 seconds after their ends
    assert [flow.ends().sport for flow in told.table.closed] == [3, 4]
    assert [flow.ends().sport for flow in told.table.past] == [2, 3, 4]
    assert [flow.ends().sport for flow in told.table] == [3, 4]
    at_once = Told(linger=0)
    at_once.event("new")
    at_once.event("destroy")
    assert (len(at_once.table.closed), len(at_once.table.past)) == (0, 1)
    monkeypatch.setattr(flows, "MAX_CLOSED", 2)
    told = Told(linger=9.0)
    for port in (1, 2, 3):
        told.event("new", port=port)
        told.event("destroy", port=port)
    assert [flow.ends().sport for flow in told.table.closed] == [2, 3]


def test_live_flows_come_before_closed_ones_and_a_filter_sees_both() -> None:
    told = Told()
    told.event("new", port=1)
    told.event("destroy", port=1)
    told.event("new", port=2)
    assert [flow.ends().sport for flow in told.table] == [2, 1]
    assert [flow.ends().sport for flow in filter(lambda flow: flow.ended is not None, told.table)] == [1]


def test_the_events_sparkline_has_a_value_for_each_second_whatever_the_clock_does() -> None:
    told = Told()
    told.table.tick(told.now)
    for port in range(12):
        told.event("new", port=port)
    told.table.tick(told.now + 0.9)
    assert list(told.table.history) == []  # no second was watched yet: that is not a second without events
    told.table.tick(told.now + 4.5)
    assert list(told.table.history) == [3.0, 3.0, 3.0, 3.0]
    told.event("update")
    told.table.tick(told.now + 5.0)
    assert list(told.table.history)[-2:] == [3.0, 1.0]
    told.event("update")
    told.table.tick(told.now - 50)  # the clock was set back: it begins anew
    told.event("update")
    told.table.tick(told.now - 49)
    assert list(told.table.history)[-3:] == [3.0, 1.0, 1.0]
    told.table.tick(told.now + 9999)
    assert list(told.table.history) == [0.0] * 60


def test_a_known_age_is_a_birth_that_does_not_move() -> None:
    """delta-time is in whole seconds: the birth that follows from it wandered by a second from listing to listing."""
    told = Told()
    births = []
    for after, delta in ((0.0, 100), (2.3, 102), (2.3, 105), (2.4, 107), (0.9, 108), (2.0, 110)):
        told.listing({"sent": 0, "tail": f" delta-time={delta}"}, after=after)
        births.append(told.only().birth())
    assert births[0] == 0.0  # listed at 100
    assert births == sorted(births, reverse=True)
    assert births[-1] == pytest.approx(-0.4)
    assert told.only().knows_age()
    assert told.only().age(told.now) == pytest.approx(told.now + 0.4)
