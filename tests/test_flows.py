"""The flow table: every invariant of the design, and a model that is fed any order of events and listings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import flows
from flows import Flow, FlowTable
from parse import split_lines
from support.strategies import histories
from support.tables import OWN_ADDRESSES, event, feed


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
) -> bytes:
    """A line about the flow 10.0.0.1:port -> 192.0.2.1:80."""
    tag = {"": "", "new": "    [NEW] ", "update": " [UPDATE] ", "destroy": "[DESTROY] "}[event]
    there = "" if sent is None else f"packets=1 bytes={sent} "
    back = "" if sent is None else f"packets=1 bytes={got} "
    time = "" if timeout is None else f"{timeout} "
    number = "" if ident is None else f" id={ident}"
    return (
        f"{tag}ipv4     2 tcp      6 {time}{state + ' ' if state else ''}src=10.0.0.1 dst=192.0.2.1 sport={port} dport=80 "
        f"{there}src=192.0.2.1 dst=10.0.0.1 sport=80 dport={port} {back}{flags}mark=0{zone}{tail}{number}"
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
    feed.listed(1, tail=" delta-time=5000 helper=ftp use=1")
    flow = feed.event("update", 1, state="FIN_WAIT")
    assert flow.knows_age()
    assert flow.age(feed.now) == 5000
    assert flow.record().helper == "ftp"


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
    feed.listed(1, sent=1000, got=500, flags="[ASSURED] ", tail=" use=2")
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
    tail = " [USERSPACE] portid=1 progname=zone=5 packets=9 bytes=9 packets=9 bytes=9 [ASSURED] mark=7 id=99"
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
        feed(table, event("NEW", number) + event("DESTROY", number), 100.0 + number)
    assert [flow.record().id for flow in table.past] == [7, 8, 9]
