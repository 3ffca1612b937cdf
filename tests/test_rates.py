"""Rates of real traffic: paced packets through a router, against what the table makes of its listings."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from flows import SHORTEST_INTERVAL, Flow, FlowTable
from intake import Intake
from source import Command, LiveSource
from support.kernel import Lab, _turn, kernel_mark
from support.waiting import PATIENCE, GaveUp

pytestmark = kernel_mark()

PACKET = 1000  # bytes, with its headers


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


class Watch:
    """The router's table, as the program takes it in."""

    def __init__(self, lab: Lab, interval: float = 1.0) -> None:
        self.source = LiveSource(Command(lab.router.prefix), interval)
        self.table = FlowTable(linger=0.0)
        self._intake = Intake(self.table)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.source.close()

    def until(self, wanted: Callable[[], bool], what: str) -> None:
        """Take in what comes until that holds after a complete listing."""
        deadline = time.monotonic() + 2 * PATIENCE
        while True:
            before = self.table.listings
            for item in _turn(self.source):
                self._intake.take(item)
            if self.table.listings > before and wanted():
                return
            if time.monotonic() > deadline:
                rates = {flow.ports(): flow.rates for flow in self.table.live.values()}
                raise GaveUp(f"{what}: rows {rates}, header {self.table.rate_in} {self.table.rate_out}")

    def listings(self, number: int) -> None:
        last = self.table.listings + number
        self.until(lambda: self.table.listings >= last, f"{number} listings")

    def flow(self, sport: int) -> Flow | None:
        return next((flow for flow in self.table.live.values() if flow.ports()[0] == b"%d" % sport), None)

    def rate(self, sport: int) -> float | None:
        flow = self.flow(sport)
        return None if flow is None else flow.rate()

    def rows(self) -> float:
        return sum(flow.rate() or 0.0 for flow in self.table.live.values())

    def header(self) -> float | None:
        table = self.table
        return None if table.rate_in is None or table.rate_out is None else table.rate_in + table.rate_out


def test_settled_rates_are_right_and_the_header_is_their_sum_and_falls_with_the_traffic(lab: Lab) -> None:
    paces = {400: 100_000, 100: 25_000}  # packets a second: more than the test needs, it stops them
    agents = {rate: lab.client.agent("pace", Lab.BLACK_HOLE, 9000, rate, number) for rate, number in paces.items()}
    ports = {rate: agent.expect("begun")[0] for rate, agent in agents.items()}
    with Watch(lab) as watch:

        def settled() -> bool:
            return all(watch.rate(port) == pytest.approx(rate * PACKET, rel=0.003) for rate, port in ports.items())

        watch.until(settled, "rates within 0.3 %")
        assert watch.header() == pytest.approx(watch.rows(), rel=0.001)
        assert watch.table.rate_out == pytest.approx(500 * PACKET, rel=0.003)
        for agent in agents.values():
            agent.stop()
        watch.listings(3)  # the one that ran, and two without traffic between them
        assert watch.rows() == 0.0
        assert watch.header() == 0.0


def test_a_single_packet_never_has_a_rate(lab: Lab) -> None:
    """1,400 bytes listed 1 ms after the NEW were 1.4 MB/s, above all that really talked."""
    with Watch(lab) as watch:
        watch.listings(2)
        young = 0
        while young < 4:
            (port,) = lab.udp_unanswered(9001)
            watch.source.list_now()  # the packet is as young as can be
            watch.until(lambda port=port: watch.flow(port) is not None, "the flow")  # type: ignore[misc]
            flow = watch.flow(port)
            assert flow is not None
            if flow.sampled - flow.born < SHORTEST_INTERVAL:  # a busy machine took 1.25 s for it, and then it has one
                assert flow.rate() is None
                young += 1
        watch.listings(2)
        assert watch.rows() == 0.0


def test_short_flows_are_in_the_header_though_no_row_can_tell(lab: Lab) -> None:
    lab.router.sysctl("net.netfilter.nf_conntrack_udp_timeout", 1)
    with Watch(lab) as watch:
        watch.listings(2)
        assert watch.header() in (0.0, None)
        for _ in range(10):
            lab.udp_unanswered(9002, flows=50)
            watch.until(lambda: (watch.table.rate_out or 0.0) > 0.0, "what went out")
            only_in_header = watch.rows() == 0.0
            watch.until(lambda: watch.header() == 0.0, "calm")
            if only_in_header:
                break  # on a busy machine a listing may come a second after a NEW: then that flow has a rate
        assert only_in_header
