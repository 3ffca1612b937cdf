"""What is told to collectors of flows, and sockets to collectors that are slow, gone, or come back."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import collectors
from addresses import Site
from collectors import Collector, Destination, Exporter, ExportPlan, destination, moved_between
from flows import Counts, FlowTable
from ipfix import Records, RecordSet, TuplePair, template
from run import both
from support.ipfix import Connected, Listening, Record, by_sequence, free_port
from support.program import Piped
from support.tables import event, feed, line, listing
from support.terminal import PROGRAM
from support.waiting import PATIENCE, wait_for

EPOCH = 1_700_000_000.0  # seconds since 1970 where the source's clock says 0
NATED = {"src": "10.0.0.5", "dst": "192.0.2.1", "reply_dst": "203.0.113.1"}


class Told:
    """A table, and what an exporter makes of it, decoded as a collector has it."""

    def __init__(self, port: int = 0, **plan: bool) -> None:
        self.listening = Listening()
        to = destination(f"127.0.0.1:{port or self.listening.port}")
        self.exporter = Exporter(ExportPlan([to], **plan), "r7", True, Site(), lambda: EPOCH)
        self.table = FlowTable(0.0, on_closed=self.exporter.ended, on_new=self.exporter.began)

    def __enter__(self) -> Told:
        return self

    def __exit__(self, *_: object) -> None:
        self.exporter.close(self.table, 0.0)
        self.listening.__exit__()

    def feed(self, text: str, now: float) -> None:
        feed(self.table, text, now)
        self.exporter.poll(self.table, now)

    def listing(self, lines: list[str], now: float) -> None:
        listing(self.table, lines, now)
        self.exporter.listed(self.table, now)
        while True:  # a round has ended when nothing is due at once
            self.exporter.poll(self.table, now)
            if not self.exporter._in_round:
                return

    def all(self, now: float = 0.0) -> list[Record]:
        """All that was ever told; nothing more comes after that."""
        assert self.exporter.close(self.table, now) == []
        return self.listening.hear()


def of_kind(records: list[Record], event: bool) -> list[Record]:
    return [record for record in records if (230 in record) == event]


# --- what is told -----------------------------------------------------------------------------------------------------


def test_a_translated_connection_from_its_begin_to_its_end() -> None:
    with Told() as told:
        told.feed(event("NEW", 7, sport=40_824, state="SYN_SENT", **NATED), 10.0)
        told.feed(event("UPDATE", 7, sport=40_824, state="TIME_WAIT", **NATED), 12.0)
        told.feed(event("DESTROY", 7, sport=40_824, state="TIME_WAIT", size=1000, **NATED), 14.5)
        found = told.all()
    ends = {4: 6, 8: "10.0.0.5", 12: "192.0.2.1", 7: 40_824, 11: 443}
    ends |= {225: "203.0.113.1", 226: "192.0.2.1", 227: 40_824, 228: 443}
    back = {4: 6, 8: "192.0.2.1", 12: "203.0.113.1", 7: 443, 11: 40_824}
    back |= {225: "192.0.2.1", 226: "10.0.0.5", 227: 443, 228: 40_824}
    began, ended = 1_700_000_010_000, 1_700_000_014_500
    flow = {152: began, 153: ended, 1: 1000, 2: 11, 136: 3, 148: 7}
    assert of_kind(found, True) == [
        {323: at, 152: at, 153: at, 230: number, 234: 0, **ends} for at, number in ((began, 4), (ended, 5))
    ]
    assert of_kind(found, False) == [{**flow, **ends, 61: 1}, {**flow, **back, 61: 0}]


def test_a_connection_without_translation_is_a_flow_only() -> None:
    with Told() as told:
        told.feed(event("NEW", 1), 1.0)
        told.feed(event("DESTROY", 1, size=5), 2.0)
        found = told.all()
    assert [230 in record for record in found] == [False, False]
    assert {225, 226, 227, 228} & found[0].keys() == set()
    assert 61 not in found[0]  # between documentation addresses and near ones, without NAT: nobody knows


@pytest.mark.parametrize(("plan", "events", "flows"), [({"flows": False}, 2, 0), ({"nat": False}, 0, 2)])
def test_only_one_kind(plan: dict[str, bool], events: int, flows: int) -> None:
    with Told(**plan) as told:
        told.feed(event("NEW", 1, **NATED), 1.0)
        told.feed(event("DESTROY", 1, size=5, **NATED), 2.0)
        found = told.all()
    assert (len(of_kind(found, True)), len(of_kind(found, False))) == (events, flows)


def test_the_numbers_from_before_the_standard() -> None:
    with Told(legacy=True) as told:
        told.feed(event("NEW", 1, **NATED), 1.0)
        told.feed(event("DESTROY", 1, **NATED), 2.0)
        assert [record[230] for record in of_kind(told.all(), True)] == [1, 2]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (event("DESTROY", 1, state="TIME_WAIT"), 3),
        (event("DESTROY", 1, state="ESTABLISHED"), 1),
        (event("DESTROY", 1, state="TIME_WAIT").rstrip() + " [USERSPACE] portid=7 progname=conntrack\n", 4),
        (event("DESTROY", 1).replace("tcp      6 300 ESTABLISHED", "udp      17 300"), 1),
    ],
)
def test_why_it_ended(text: str, reason: int) -> None:
    with Told() as told:
        told.feed(text, 1.0)
        assert [record[136] for record in told.all()] == [reason] * 2


def test_a_flow_that_was_seen_only_at_its_end_has_no_start() -> None:
    with Told() as told:
        told.feed(event("DESTROY", 1, size=900), 1.0)
        told.feed(event("DESTROY", 2, size=900, more="delta-time=5 "), 10.0)
        found = told.all()
    assert [(record.get(152), record[1]) for record in found] == [(None, 900)] * 2 + [(1_700_000_005_000, 900)] * 2


def test_without_accounting_nothing_is_counted() -> None:
    with Told() as told:
        told.feed(event("NEW", 1) + event("DESTROY", 1), 1.0)
        assert [{1, 2} & record.keys() for record in told.all()] == [set(), set()]


PING = "    [NEW] ipv4     2 icmp     1 30 src=10.0.0.5 dst=192.0.2.1 type=8 code=0 id=77 [UNREPLIED] "
PING += "src=192.0.2.1 dst=203.0.113.1 type=0 code=0 id=5 id=9\n"
PING6 = "[DESTROY] ipv6     10 icmpv6   58 src=fd00::5 dst=2001:db8::1 type=128 code=0 id=77 packets=1 bytes=64 "
PING6 += "src=2001:db8::1 dst=fd00::5 type=129 code=0 id=77 packets=1 bytes=64 id=9\n"
GRE = "[DESTROY] ipv4     2 gre      47 src=10.0.0.5 dst=192.0.2.1 srckey=0x1 dstkey=0x2 packets=1 bytes=64 "
GRE += "src=192.0.2.1 dst=203.0.113.1 srckey=0x2 dstkey=0x1 packets=1 bytes=64 id=9\n"
IPV6 = event("DESTROY", 9, src="fd00::5", dst="2001:db8::1", reply_dst="2001:db8:2::1", size=700)


def test_protocols_without_ports_and_ipv6() -> None:
    with Told() as told:
        told.feed(
            PING + PING.replace("    [NEW] ", "[DESTROY] ").replace(" 30 src", " src", 1) + PING6 + GRE + IPV6, 1.0
        )
        found = told.all()
    created, *_ = of_kind(found, True)
    assert (created[4], created[32], 7 in created) == (1, 8 << 8, False)
    by_protocol = {record[4]: record for record in of_kind(found, False)}
    assert [record[139] for record in found if record[4] == 58] == [128 << 8, 129 << 8]
    assert {7, 11, 32, 139} & by_protocol[47].keys() == set()
    assert (by_protocol[47][8], by_protocol[47][12]) == ("192.0.2.1", "203.0.113.1")
    assert [record[281] for record in of_kind(found, True) if 281 in record] == ["2001:db8:2::1"]
    assert Counter(record[230] for record in of_kind(found, True)) == {4: 1, 5: 3}


def test_zones() -> None:
    with Told() as told:
        told.feed(event("NEW", 1, more="zone=7 ", **NATED), 1.0)
        split = event("NEW", 2, **NATED).replace(
            "src=192.0.2.1 dst=203.0.113.1", "zone-orig=9 src=192.0.2.1 dst=203.0.113.1", 1
        )
        told.feed(split, 1.0)
        assert [record[234] for record in told.all()] == [7, 9]


OWN = frozenset({"203.0.113.1", "10.0.0.1"})


@pytest.mark.parametrize(
    ("what", "outward"),
    [
        (NATED, 1),
        ({"src": "198.51.100.9", "dst": "203.0.113.1", "reply_src": "10.0.0.5"}, 0),
        ({"src": "203.0.113.1", "dst": "192.0.2.1"}, 1),
        ({"src": "192.0.2.1", "dst": "203.0.113.1"}, 0),
        ({"src": "10.0.0.5", "dst": "8.8.8.8"}, 1),
        ({"src": "8.8.8.8", "dst": "10.0.0.5"}, 0),
        ({"src": "10.0.0.5", "dst": "10.9.0.5"}, None),
        ({"src": "10.0.0.5", "dst": "203.0.113.1", "reply_src": "10.0.0.6", "reply_dst": "10.0.0.1"}, None),
    ],
)
def test_which_direction_leaves(what: dict[str, str], outward: int | None) -> None:
    with Told() as told:
        told.table.know_own(OWN)
        told.feed(event("DESTROY", 1, **what), 1.0)
        there, back = of_kind(told.all(), False)
    assert there.get(61) == outward
    assert back.get(61) == (None if outward is None else 1 - outward)


def test_lines_that_are_damaged_are_counted() -> None:
    with Told() as told:
        told.feed(event("DESTROY", 1, sport=65_535), 1.0)
        flow = told.table.past[-1]
        flow.tail = flow.tail.replace(b"=", b"src=300.1.1.1 dst=10.0.0.1 sport=1 dport=2", 1)
        told.exporter.ended(flow)
        told.exporter.poll(told.table, 1.0)
        assert told.exporter.notices() == [("flows not sent by IPFIX, for their lines are damaged: 1", "")]
        assert len(told.all()) == 2


# --- flows that go on -------------------------------------------------------------------------------------------------


def test_a_long_flow_is_told_every_minute_by_what_it_moved() -> None:
    with Told() as told:
        told.listing([], 0.0)
        told.feed(event("NEW", 1), 10.0)
        for now, size in (
            (30.0, 100),
            (59.0, 300),
            (71.0, 300),
            (100.0, 900),
            (140.0, 900),
            (205.0, 900),
            (300.0, 1000),
        ):
            told.listing([line(1, size=size)], now)
        told.feed(event("DESTROY", 1, size=1100, state="TIME_WAIT"), 310.0)
        found = told.all()
    there = [
        (int(record[152]) - 1_700_000_000_000, int(record[153]) - 1_700_000_000_000, record[1], record[136])
        for record in found[::2]
    ]
    assert there == [
        (10_000, 71_000, 300, 2),
        (71_000, 140_000, 600, 2),
        (205_000, 300_000, 100, 2),
        (300_000, 310_000, 100, 3),
    ]
    assert [record[1] for record in found[::2]] == [record[1] for record in found[1::2]]


def test_what_moved_before_anybody_looked_is_not_told() -> None:
    with Told() as told:
        told.listing([line(1, size=5000), line(2, size=7000), line(3, size=50)], 100.0)
        told.listing([line(1, size=5000), line(2, size=7000), line(3, size=60)], 150.0)
        told.feed(event("DESTROY", 1, size=5100), 151.0)
        told.listing([line(2, size=7000), line(3, size=80)], 170.0)
        told.listing([line(3, size=80)], 180.0)  # 2 has gone without a word
        told.feed(event("DESTROY", 3, size=90), 190.0)
        found = told.all()[::2]
    assert [(record[148], record[1], record[136]) for record in found] == [
        (1, 100, 1),
        (3, 30, 2),
        (2, 0, 4),
        (3, 10, 1),
    ]
    assert [record[152] for record in found[:2]] == [1_700_000_100_000] * 2


def test_a_flow_that_ends_before_the_first_round_has_been_there_before() -> None:
    """Between the first listing and the round that notes it."""
    with Told() as told:
        listing(told.table, [line(1, size=5000)], 100.0)
        told.exporter.listed(told.table, 100.0)
        feed(told.table, event("DESTROY", 1, size=5100), 100.1)
        told.exporter.poll(told.table, 100.2)
        assert [record[1] for record in told.all()] == [100, 100]


def test_a_new_flow_that_a_listing_names_first_is_new() -> None:
    with Told() as told:
        told.listing([line(1, size=40)], 100.0)
        told.feed(event("NEW", 1), 100.0)
        told.feed(event("DESTROY", 1, size=140), 101.0)
        assert [record[1] for record in told.all()] == [140, 140]


def test_an_end_that_a_listing_told_is_not_told_twice() -> None:
    """The DESTROY is read after the listing that no longer has it: only what it adds is told, and no second event."""
    with Told() as told:
        told.listing([], 0.0)
        told.feed(event("UPDATE", 1, **NATED), 1.0)
        told.listing([line(1, size=100, **NATED)], 2.0)  # type: ignore[arg-type]
        told.listing([], 4.0)
        told.feed(event("DESTROY", 1, size=130, **NATED), 4.5)
        found = told.all()
    assert [record[230] for record in of_kind(found, True)] == [5]
    assert [(record[1], record[136], record[152], record[153]) for record in of_kind(found, False)[::2]] == [
        (100, 4, 1_700_000_001_000, 1_700_000_002_000),
        (30, 1, 1_700_000_002_000, 1_700_000_004_500),
    ]


def test_at_the_end_of_the_run_what_is_left_is_told() -> None:
    with Told() as told:
        told.listing([line(1, size=100)], 0.0)
        told.feed(event("NEW", 2), 1.0)
        told.listing([line(1, size=150), line(2, size=60)], 9.0)
        assert [(record[148], record[1], record[136]) for record in told.all(10.0)[::2]] == [(1, 50, 4), (2, 60, 4)]


def test_counters_that_were_reset() -> None:
    assert moved_between(Counts(5, 50, 5, 50), Counts(1, 10, 6, 60)) == Counts(1, 10, 6, 60)
    assert moved_between(Counts(5, 50, 5, 50), Counts(6, 60, 6, 60)) == Counts(1, 10, 1, 10)
    assert moved_between(None, Counts(1, 2, 3, 4)) == Counts(1, 2, 3, 4)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["list", "update", "destroy"]), st.integers(0, 3), st.integers(0, 90), st.integers(1, 45)
    ),
    max_size=30,
)


@given(STEPS)
def test_the_sum_of_all_reports_is_what_was_counted(steps: list[tuple[str, int, int, int]]) -> None:
    """Of few flows that come back in every role. Only what they had moved at the first listing is left out."""
    sizes = {number: 100 * number for number in range(4)}  # those that are there, and what they have moved
    expected: Counter[int] = Counter()
    now = 0.0
    with Told() as told:
        told.listing([line(number, size=size) for number, size in sizes.items()], now)
        known = dict(sizes)
        for what, number, more, seconds in steps:
            now += seconds
            if what == "list":
                told.listing([line(its, size=size) for its, size in sizes.items()], now)
            elif what == "update" and number in sizes:
                sizes[number] += more
                told.feed(event("UPDATE", number), now)
            elif what == "destroy" and number in sizes:
                told.feed(event("DESTROY", number, size=sizes[number] + more), now)
                expected[number] += sizes.pop(number) + more - known.pop(number, 0)
            elif number not in sizes:
                sizes[number] = 0
                told.feed(event("NEW", number), now)
        told.listing([line(its, size=size) for its, size in sizes.items()], now + 1)
        for number, size in sizes.items():
            expected[number] += size - known.get(number, 0)
        found = told.all(now + 2)
    summed: Counter[int] = Counter()
    for record in found[::2]:
        summed[int(record[148])] += int(record[1])
    assert +summed == +expected


# --- collectors -------------------------------------------------------------------------------------------------------


def some_records(number: int) -> tuple[list[RecordSet], int]:
    records = Records()
    here, there = bytes(4), bytes(4)
    for at in range(number):
        records.add_nat_event(TuplePair(6, here, there, 1, 2, there, here, 2, 3), at, 4)
    return records.take(), number


def give(collector: Collector, number: int) -> None:
    collector.take(*some_records(number))
    collector.poll(EPOCH)


@contextmanager
def going_on(collector: Collector) -> Iterator[Callable[[Callable[[], object]], None]]:
    """Polls it until something holds; it never takes long."""

    def until(condition: Callable[[], object]) -> None:
        def turn() -> object:
            began = time.monotonic()
            collector.poll(EPOCH)
            assert time.monotonic() - began < 1.0
            return condition()

        wait_for(turn, collector.state)

    yield until
    collector.close(EPOCH, 0.0)


def test_a_udp_collector_that_is_not_there_yet_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collectors, "TRY_AGAIN", (0.05,))
    port = free_port()
    collector = Collector(destination(f"127.0.0.1:{port}"), 1)
    with going_on(collector) as until:
        give(collector, 50)
        until(lambda: collector.notice() is not None)
        assert collector.notice() == (
            f"IPFIX to 127.0.0.1:{port}: Connection refused, retrying; none lost",
            f"ss -lnu 'sport = :{port}' on the collector",
        )
        with Listening(port=port) as listening:
            until(lambda: len(listening.hear()) == 50)
            until(lambda: collector.notice() is None)
            assert by_sequence(listening.decoder) == 0
    assert collector.state() == f"127.0.0.1:{port}: 50 records sent, none lost"


def test_a_udp_collector_that_goes_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was sent when it had just gone is lost, and counted; all else comes, with templates, when it is back."""
    monkeypatch.setattr(collectors, "TRY_AGAIN", (0.05,))
    with Listening() as listening:
        port = listening.port
        collector = Collector(destination(f"127.0.0.1:{port}"), 1)
        give(collector, 10)
        for _ in range(2):  # the second time when it is certain that somebody listens
            wait_for(lambda: (collector.deadline() or 0.0) <= time.monotonic())
            collector.poll(EPOCH)
        assert len(listening.hear()) == 10
    with going_on(collector) as until:
        give(collector, 12)
        until(lambda: collector.lost)
        assert collector.lost == 12
        give(collector, 500)
        assert collector.notice() == (
            f"IPFIX to 127.0.0.1:{port}: Connection refused, retrying; 12 records lost",
            f"ss -lnu 'sport = :{port}' on the collector",
        )
        with Listening(port=port) as listening:
            until(lambda: len(listening.hear()) == 500)
            assert listening.decoder.told[0] == 1
            assert by_sequence(listening.decoder) == 22
            assert collector.notice() == (f"IPFIX to 127.0.0.1:{port}: 12 records lost", "")
            assert collector.state() == f"127.0.0.1:{port}: 510 records sent, 12 lost"


def test_a_name_with_two_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """`localhost` is ::1 first, where nfcapd does not listen."""
    monkeypatch.setattr(collectors, "TRY_AGAIN", (0.05,))
    with Listening() as listening:
        addresses: list[collectors.SocketAddress] = [
            (socket.AF_INET6, ("::1", listening.port, 0, 0)),
            (socket.AF_INET, ("127.0.0.1", listening.port)),
        ]
        collector = Collector(Destination("localhost", False, addresses), 1)
        with going_on(collector) as until:
            give(collector, 5)
            until(lambda: len(listening.hear()) == 5)
            assert collector.lost == 0


def test_a_udp_collector_over_ipv6() -> None:
    with Listening("::1") as listening:
        collector = Collector(destination(f"[::1]:{listening.port}"), 1)
        with going_on(collector) as until:
            give(collector, 500)
            until(lambda: len(listening.hear()) == 500)
            assert listening.longest() <= 1400


def test_a_tcp_collector_that_reads_nothing_costs_records_and_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collectors, "MOST_QUEUED", 3000)
    with Connected() as connected:
        collector = Collector(destination(f"127.0.0.1:{connected.port}/tcp"), 1)
        given = 0
        with going_on(collector) as until:
            until(connected.is_connected)
            while not collector.lost:  # some MB fit into the kernel's buffers
                give(collector, 1000)
                given += 1000
            assert collector.behind
            give(collector, 1000)
            assert collector.lost == 2000
            assert collector._number <= 3000
            assert collector.writing()
            text = f"IPFIX to 127.0.0.1:{connected.port}/tcp: 2000 records lost"
            assert collector.notice() == (text, "")
            until(lambda: len(connected.hear()) == given - 1000)
            give(collector, 10)
            until(lambda: len(connected.hear()) == given - 1000 + 10)
            assert by_sequence(connected.decoder) == 2000
            assert not collector.writing()
    assert collector.state() == f"127.0.0.1:{connected.port}/tcp: {given - 990} records sent, 2000 lost"


def test_a_tcp_collector_that_hangs_up_and_takes_the_next_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it had not taken is lost and counted; another connection begins with templates, and counts from 0."""
    monkeypatch.setattr(collectors, "TRY_AGAIN", (0.05,))
    with Connected() as connected:
        collector = Collector(destination(f"127.0.0.1:{connected.port}/tcp"), 1)
        with going_on(collector) as until:
            give(collector, 100)
            until(lambda: len(connected.hear()) == 100)
            connected.hang_up()
            until(lambda: collector.notice() is not None)
            notice = collector.notice()
            assert notice is not None
            assert (
                notice[0]
                == f"IPFIX to 127.0.0.1:{connected.port}/tcp: it has closed the connection, retrying; none lost"
            )
            assert notice[1] == f"ss -lnt 'sport = :{connected.port}' on the collector"
            give(collector, 70)
            until(lambda: len(connected.hear()) == 70)
            assert connected.decoder.told[0] == 1
            assert by_sequence(connected.decoder) == 0
            assert collector.lost == 0


def test_what_a_tcp_collector_did_not_confirm_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collectors, "TRY_AGAIN", (30.0,))
    with Connected() as connected:
        collector = Collector(destination(f"127.0.0.1:{connected.port}/tcp"), 1)
        with going_on(collector) as until:
            until(connected.is_connected)
            for _ in range(200):
                give(collector, 1000)
            assert collector._number > 0  # the kernel's buffers are full
            waiting, out = collector._number, sum(message.records for message in collector._out)
            confirmed = 200_000 - waiting - out
            connected.hang_up()
            until(lambda: collector.notice() is not None and collector._problem)
            assert 0 < collector.lost <= confirmed + out
            assert collector.sent + collector.lost == 200_000 - waiting


def test_a_tcp_collector_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collectors, "TRY_AGAIN", (0.05,))
    port = free_port(socket.SOCK_STREAM)
    collector = Collector(destination(f"127.0.0.1:{port}/tcp"), 1)
    with going_on(collector) as until:
        give(collector, 5)
        until(lambda: collector.notice() is not None)
        with Connected(port) as connected:
            until(lambda: len(connected.hear()) == 5)
    assert (collector.sent, collector.lost) == (5, 0)


def test_a_tcp_collector_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full backlog: the kernel of the other side drops what would connect."""
    monkeypatch.setattr(collectors, "ANSWERS_WITHIN", 0.2)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, contextlib.ExitStack() as stack:
        address = server.getsockname()
        for _ in range(4):
            other = stack.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(address)
        collector = Collector(destination(f"127.0.0.1:{address[1]}/tcp"), 1)
        with going_on(collector) as until:
            give(collector, 5)
            assert collector.writing()
            assert (collector.deadline() or 0.0) > time.monotonic()
            until(lambda: collector.notice() is not None)
            assert "no answer, retrying; none lost" in str(collector.notice())


def test_retries_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Templates that could not be sent are made anew each time, and not kept beside the new ones."""
    monkeypatch.setattr(collectors, "TRY_AGAIN", (0.0,))
    monkeypatch.setattr(collectors, "LISTENS_AFTER", 0.0)
    collector = Collector(destination(f"127.0.0.1:{free_port()}"), 1)
    collector._stream.template_messages(range(256, 768), EPOCH)
    give(collector, 5)
    for _ in range(50):
        collector.poll(EPOCH)
    assert len(collector._out) < 50
    collector.close(EPOCH, 0.0)


def test_only_events_remember_no_ends_for_long() -> None:
    """What a listing showed to be gone is forgotten after a while, also where no flows are told."""
    with Told(flows=False) as told:
        told.listing([], 0.0)
        for now in range(1, 200, 15):
            told.feed(event("UPDATE", now, **NATED), float(now))
            told.listing([], now + 10.0)
        assert len(told.exporter._swept) + len(told.exporter._swept_before) <= 2
        assert len(told.all()) == 14


def test_what_waits_at_the_end_is_lost_and_said() -> None:
    told = Told(free_port())
    told.listening.__exit__()
    told.feed(event("NEW", 1, **NATED), 1.0)
    began = time.monotonic()
    said = told.exporter.close(told.table, 2.0)
    assert time.monotonic() - began < 2.0
    name = told.exporter.states()[0].partition(": ")[0]
    assert said == [f"IPFIX to {name}: 0 records sent, 1 lost"]


# --- where they listen ------------------------------------------------------------------------------------------------


def test_a_destination() -> None:
    assert destination("127.0.0.1:4739") == Destination(
        "127.0.0.1:4739", False, [(socket.AF_INET, ("127.0.0.1", 4739))]
    )
    assert destination(" 127.0.0.1:1/TCP") == Destination("127.0.0.1:1/TCP", True, [(socket.AF_INET, ("127.0.0.1", 1))])
    assert destination("[::1]:2/udp") == Destination("[::1]:2/udp", False, [(socket.AF_INET6, ("::1", 2, 0, 0))])


@pytest.mark.parametrize(
    "text", ["", "host", "host:", ":1", "::1:4739", "host:0", "host:65536", "host:x", "host:²", "[]:1"]
)
def test_what_is_no_destination(text: str) -> None:
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        destination(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no-such-host.invalid:4739", "'no-such-host.invalid' can't be resolved: "),
        ("127.0.0.1:4739/sctp", "'sctp' is not tcp or udp"),
        ("a..b:1", "'a..b' can't be resolved: "),
    ],
)
def test_what_is_wrong_with_a_destination(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"^'") as found:
        destination(text)
    assert str(found.value).startswith(said)


# --- the program ------------------------------------------------------------------------------------------------------

CAPTURE = Path(__file__).parent.parent / "fixtures" / "captures" / "snat-masquerade-tcp" / "E.ext-id-ts.txt"


@pytest.mark.parametrize("mode", [("--headless",), ("--json",), ("--csv",)])
def test_a_recording_is_sent(tmp_path: Path, mode: tuple[str, ...]) -> None:
    """A filter chooses what is printed, not what is sent."""
    more = [] if mode == ("--headless",) else ["-f", "port:1"]
    with Listening() as listening:
        words = ["--no-config", "--replay", CAPTURE, "--ipfix", f"127.0.0.1:{listening.port}", *more]
        with Piped(tmp_path, *words, mode=mode) as running:
            running.process.wait(PATIENCE)
            assert running.process.returncode == 0, running.words()
        found = listening.hear()
    assert [record.get(230) for record in found] == [4, 5, None, None]
    assert [record[1] for record in found[2:]] == [325, 1216]
    assert found[0][323] == 1_795_386_262_472
    assert "IPFIX" not in running.words()
    assert len(running.out.read_text().splitlines()) == (1 if mode == ("--csv",) else 0)


def test_a_recording_waits_for_a_slow_collector(tmp_path: Path) -> None:
    """Over TCP a recording arrives whole, however fast it could be read."""
    flows = 4000
    recording = tmp_path / "events"
    lines = [
        event("NEW", at, sport=at + 1, **NATED) + event("DESTROY", at, sport=at + 1, size=9, **NATED)
        for at in range(flows)
    ]
    recording.write_text("".join(lines))
    with Connected() as connected:
        words = ["--no-config", "--replay", recording, "--ipfix", f"127.0.0.1:{connected.port}/tcp"]
        with Piped(tmp_path, *words, mode=("--headless",)) as running:
            wait_for(
                lambda: len(connected.hear()) == 4 * flows,
                lambda: f"{len(connected.decoder.records)} {running.words()}",
            )
        assert running.words() == ""
        assert by_sequence(connected.decoder) == 0


def test_lines_without_times_have_the_time_at_which_they_are_read(tmp_path: Path) -> None:
    before = time.time()
    with Listening() as listening:
        capture = CAPTURE.with_name("E.extended.txt")
        words = ["--no-config", "--replay", capture, "--ipfix", f"127.0.0.1:{listening.port}"]
        with Piped(tmp_path, *words, mode=("--headless",)) as running:
            running.process.wait(PATIENCE)
        found = listening.hear()
    assert len(found) == 4
    assert all(1000 * before - 1 <= int(record[153]) <= 1000 * time.time() for record in found)


def test_templates_have_a_size() -> None:
    assert template(256).size == 54 - 8  # an event of NAT over IPv4 without ports


def test_the_log_and_collectors_both_hear_of_ends() -> None:
    heard: list[str] = []
    with Told() as told:
        told.feed(event("DESTROY", 1), 1.0)
        flow = told.table.past[-1]
    one, other = (lambda _: heard.append("log")), (lambda _: heard.append("collectors"))
    tell = both(one, other)
    assert tell is not None
    tell(flow)
    assert heard == ["log", "collectors"]
    assert (both(None, other), both(one, None), both(None, None)) == (other, one, None)


def run(*words: str) -> tuple[int, str]:
    """The exit status, and the last line on standard error."""
    command = [*PROGRAM, "--no-config", *words]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--json", "--ipfix", "collector"), "Invalid value for '--ipfix': 'collector' is not HOST:PORT"),
        (("--json", "--ipfix", "x.invalid:4739"), "Invalid value for '--ipfix': 'x.invalid' can't be resolved: "),
        (("--once", "--ipfix", "127.0.0.1:4739"), "--ipfix sends what happens: it can't be combined with --once."),
        (("--json", "--ipfix-only", "nat"), "--ipfix-only and --ipfix-nat-event require --ipfix."),
        (("--json", "--ipfix-nat-event", "legacy"), "--ipfix-only and --ipfix-nat-event require --ipfix."),
        (("--headless",), "--headless requires --log DIR, --metrics FILE, --record FILE, --ipfix HOST:PORT or alerts"),
        (
            ("--headless", "--replay", str(CAPTURE), "--record", "/dev/null"),
            "--headless with --replay requires --ipfix",
        ),
    ],
)
def test_what_is_refused(words: tuple[str, ...], said: str) -> None:
    status, error = run(*words)
    assert status == 2
    assert error.startswith(f"Error: {said}")


def test_collectors_of_the_environment_are_not_for_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--once` neither looks the name up nor sends anything."""
    monkeypatch.setenv("CONNTRACK_MONITOR_IPFIX", "x.invalid:4739 127.0.0.1:1")
    monkeypatch.setenv("CONNTRACK_MONITOR_NO_DOWNLOAD", "1")
    status, _ = run("--once", "--replay", str(CAPTURE))
    assert status == 0
    assert run("--json", "--replay", str(CAPTURE))[0] == 2
