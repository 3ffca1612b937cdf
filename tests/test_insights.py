"""What tuples and timeouts tell beside themselves: old addresses, ports that run out, fan-out, idle and offloaded flows."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter, defaultdict

import pytest
from hypothesis import given

import health
import source
from addresses import Context, Fan, Site
from columns import FLOW_COLUMN, HOST_COLUMNS, facts_of, order_by_idle, order_by_rate
from filters import compile_filter
from flows import Flow, FlowTable
from grouping import NEAR, FanCount, Grouper, group_columns, group_object
from health import NAT_PORTS, Findings, PortUse, Surroundings, Survey, notices_of, panel
from intake import Facts, Item, ListingEnded, OwnAddresses, Status
from live import affected_flows
from parse import PROTOCOLS, STATES, TIMEOUTS
from support.kernel import Lab, Namespace, insert, items_until, kernel_mark
from support.strategies import blocks
from support.tables import LAN, WAN, Monitor, event, feed, flows_of, intake_of, line, listing
from text import span_text

OLD = "203.0.113.9"
WEEK = {"tcp_timeout_established": 432_000, "udp_timeout": 30, "udp_timeout_stream": 120}


def surveyed(table: FlowTable, context: Context, now: float = 100.0) -> Findings:
    survey = Survey(context)
    while not survey.step(table, now, wanted=3):
        pass
    assert survey.newest is not None
    return survey.newest


def fits(expression: str, flow: Flow, context: Context) -> bool:
    wanted = compile_filter(expression, context)
    assert wanted
    return wanted(flow)


def is_without(item: Item, address: str) -> bool:
    return isinstance(item, OwnAddresses) and address not in item.addresses


# --- old addresses ----------------------------------------------------------------------------------------------------


def through(number: int, wan: str, **more: object) -> str:
    """A flow of a host of the LAN that this host has given an address."""
    return line(number, src=LAN, dst="8.8.8.8", reply_dst=wan, **more)  # type: ignore[arg-type]


def forwarded(number: int, wan: str) -> str:
    """A flow from outside to a forwarded port."""
    return line(number, src="8.8.8.8", dst=wan, reply_src=LAN)


def test_flows_of_an_address_that_has_gone() -> None:
    monitor = Monitor(
        [through(1, OLD), forwarded(2, OLD), through(3, WAN), forwarded(4, "10.96.0.1"), line(5, src=LAN)]
    )
    for own in ({WAN, OLD}, {WAN}):
        monitor.table.know_own(frozenset(own))
        monitor.refresh(1)
    stale = {flow.record().id for flow in monitor.table if fits("nat:stale", flow, monitor.view.context)}
    assert stale == {1, 2}
    assert surveyed(monitor.table, monitor.view.context).old == ((OLD, 2),)
    assert {flow.record().id for flow in affected_flows(monitor.view, monitor.table, True, stale=True)} == {1, 2}
    assert affected_flows(monitor.view, monitor.table, True) == []  # nothing says what is meant
    monitor.table.know_own(frozenset({WAN, OLD}))
    monitor.refresh(1)  # it is back
    assert surveyed(monitor.table, monitor.view.context).old == ()


def test_of_a_host_whose_addresses_nobody_knows_nothing_is_old() -> None:
    monitor = Monitor([through(1, OLD)])
    (flow,) = monitor.table
    assert not fits("nat:stale", flow, monitor.view.context)
    monitor.table.know_own(frozenset({OLD}))
    monitor.refresh(1)
    monitor.table.know_own(frozenset())  # the kernel refuses to tell for a moment
    monitor.refresh(1)
    assert surveyed(monitor.table, monitor.view.context).old == ()


def test_an_address_that_was_old_before_the_start_is_told_from_a_pool_that_is_routed_here() -> None:
    """Nobody has seen the old one go. NAT gives new flows of a pool addresses that are on no interface."""
    table, context = FlowTable(), Context(own=frozenset({WAN}))
    listing(table, [through(1, OLD), through(2, "198.51.100.7")])
    table.watch(100.0)
    stale = [fits("nat:stale", flow, context) for flow in table]
    assert (surveyed(table, context, 140.0).old, stale) == ((), [True, True])  # nobody has seen a flow begin
    feed(table, event("NEW", 3, src=LAN, dst="8.8.4.4", reply_dst="198.51.100.8"), 110.0)
    feed(table, event("NEW", 4, src=LAN, dst="8.8.4.4", reply_dst=WAN), 110.0)
    assert surveyed(table, context, 111.0).old == ()  # too soon
    assert surveyed(table, context, 140.0).old == ((OLD, 1),)
    assert [fits("nat:stale", flow, context) for flow in table] == [True, False, False, False]
    settings = Context(site=Site(networks=[ipaddress.ip_network("203.0.113.0/24")]), own=frozenset({WAN}))
    assert next(fits("nat:stale", flow, settings) for flow in table) is False  # the settings say that it is ours


def test_what_the_header_and_the_panel_say_of_an_old_address() -> None:
    monitor = Monitor([through(1, OLD)])
    around = Surroundings(findings=Findings(9, old=((OLD, 1_037),)))
    (notice,) = [n for n in notices_of(Status(), monitor.table, True, 100.0, around) if OLD in n.text]
    assert str(notice).startswith(f"1,037 flows use the old address {OLD}; try: X deletes them")
    rows = panel(Status(), monitor.table, None, 100.0, True, around)
    assert [row.value for row in rows if row.label == "old address"] == [notice.text]
    again = notices_of(Status(), monitor.table, True, 100.0, Surroundings(findings=Findings(9, old=((OLD, 5),))))
    assert notice.key in [other.key for other in again]  # put aside, it stays so while the number changes


@kernel_mark()
def test_after_an_address_has_gone_the_kernel_keeps_the_flows_that_snat_gave_it() -> None:
    """The address that masquerading used takes its flows along; that of a rule for SNAT does not."""
    with Lab() as lab:
        rule = "add rule inet lab way_out oifname wan ip saddr 10.99.1.0/24 snat ip to"
        lab.router.nft(f"flush chain inet lab way_out\n{rule} {Lab.WAN}\n")
        lab.router.ip("address add 203.0.113.7/32 dev wan")
        lab.udp_unanswered(4000, flows=2)
        live = source.LiveSource(source.Command(via=lab.router.prefix), 60.0, events=False)
        try:
            intake = intake_of()
            context = Context(now=0.0)
            for item in items_until(live, lambda items: any(isinstance(item, ListingEnded) for item in items)):
                intake.take(item)
            context.advance(1.0, intake.table.own, intake.table.timeouts)
            assert surveyed(intake.table, context).old == ()
            lab.router.ip(f"address del {Lab.WAN}/24 dev wan")
            live._own_due = 0.0  # the routes are asked then, too
            for item in items_until(live, lambda items: any(is_without(item, Lab.WAN) for item in items)):
                intake.take(item)
            context.advance(2.0, intake.table.own, intake.table.timeouts)
        finally:
            live.close()
        assert surveyed(intake.table, context).old == ((Lab.WAN, 2),)


# --- ports of NAT -----------------------------------------------------------------------------------------------------


def test_the_fullest_ends_by_the_ports_that_nat_has_given_out() -> None:
    lines = [through(number, WAN, sport=2000 + number) for number in range(1, 8)]
    lines += [line(50 + number, src=LAN, dst="9.9.9.9", reply_dst=WAN, sport=2000 + number) for number in range(3)]
    lines += [line(60, src=WAN, dst="8.8.8.8", sport=4000), line(61, src=LAN, dst="8.8.8.8", sport=600, reply_dst=WAN)]
    lines += [line(70 + number, src=LAN, dst="10.0.0.9", sport=3000 + number) for number in range(9)]  # no NAT
    lines.append(forwarded(90, WAN))
    lines.append(
        f"ipv4     2 icmp     1 29 src={LAN} dst=8.8.8.8 type=8 code=0 id=5 "
        f"src=8.8.8.8 dst={WAN} type=0 code=0 id=6 mark=0 use=1 id=91\n"
    )
    monitor = Monitor(lines)
    found = surveyed(monitor.table, monitor.view.context).ports
    assert found[:2] == (
        PortUse(WAN, "tcp", "8.8.8.8:443", 7, NAT_PORTS),  # port 600 is of another range
        PortUse(WAN, "tcp", "9.9.9.9:443", 3, NAT_PORTS),
    )
    assert found[2] == PortUse(WAN, "icmp", "8.8.8.8", 1, 65_536)


@given(block=blocks)
def test_ports_are_counted_as_the_flows_say(block: bytes) -> None:
    flows, context = flows_of(block)
    table = FlowTable()
    table.live |= {flow.key: flow for flow in flows if flow.ended is None}
    ends: Counter[tuple[object, ...]] = Counter()
    given_out = set()
    for flow in table.live.values():
        e, record = flow.ends(), flow.record()
        if e.nat and flow.kind.number in (6, 17) and (e.reply_dport or 0) >= 1024:
            ends[flow.kind.protocol, e.reply_dst, e.reply_src, e.reply_sport] += 1
        if e.reply_dst != e.src:
            given_out.add((flow.kind.protocol, e.reply_dst))
        assert record.reply.dst == e.reply_dst
    most = max((used for key, used in ends.items() if key[:2] in given_out), default=0)
    found = [use.used for use in surveyed(table, context).ports if use.protocol in ("tcp", "udp")]
    assert max(found, default=0) >= most


def test_what_is_said_of_ports_that_run_out() -> None:
    monitor = Monitor([through(1, WAN)])
    full = PortUse(WAN, "tcp", "8.8.8.8:443", 63_000, NAT_PORTS)
    around = Surroundings(findings=Findings(9, ports=(full, full._replace(used=12))))
    (notice,) = [n for n in notices_of(Status(), monitor.table, True, 100.0, around) if "SNAT" in n.text]
    assert (notice.text, notice.bad) == (f"SNAT ports of {WAN} to 8.8.8.8:443 (tcp): 98 % used", True)
    first, second = (
        row for row in panel(Status(), monitor.table, None, 100.0, True, around) if row.label == "SNAT ports"
    )
    assert (first.value, first.role) == (f"98 %, 63000 of 64512 ports of {WAN} used by tcp to 8.8.8.8:443", "bad")
    assert "--to-source" in first.cure
    assert (second.role, second.cure, second.share) == ("plain", "", None)
    assert second.value == f"12 of 64512 ports of {WAN}, tcp to 8.8.8.8:443"


# --- fan-out ----------------------------------------------------------------------------------------------------------


def test_a_host_with_many_ends_and_ports() -> None:
    lines = [line(n, src="10.0.0.7", dst=f"8.8.{n}.8", dport=1 + n % 30) for n in range(1, 121)]
    lines += [line(200 + n, src="10.0.0.8", dst="8.8.8.8") for n in range(3)]
    monitor = Monitor(lines)
    monitor.keys("2")
    fans = {row.key: row.fan for row in monitor.view.rows.order}
    assert fans == {"10.0.0.7": Fan(120, 30), "10.0.0.8": Fan(1, 1)}
    for expression, keys in (("fanout:>100", {"10.0.0.7"}), ("ports:>20", {"10.0.0.7"}), ("fanout:1", {"10.0.0.8"})):
        monitor.view.set_filter(expression)
        monitor.refresh(2)
        assert {row.key for row in monitor.view.rows.order} == keys
    item = group_object(monitor.view.rows.order[0], NEAR)
    assert (item["remotes"], item["ports"]) == (1, 1)
    assert list(item) == [key for key in group_columns(NEAR) if key in item]


@given(block=blocks)
def test_fans_are_those_of_the_flows(block: bytes) -> None:
    flows, context = flows_of(block)
    ends: dict[str, set[str]] = defaultdict(set)
    ports: dict[str, set[bytes]] = defaultdict(set)
    for flow in flows:
        near, far, _ = context.sides(flow)
        ends[near].add(far)
        ports[near] |= {flow.ports()[1]} - {b""}
    count, grouper = FanCount(), Grouper(NEAR, context)
    count.add_flows(flows, context)
    grouper.add(flows)
    grouper.finish()
    wanted = {near: Fan(len(ends[near]), len(ports[near])) for near in ends}
    assert count.counted() == wanted == {key: row.fan for key, row in grouper.sums.items()}


# --- idle -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "timeouts", "idle"),
    [
        (line(1, timeout=431_990), WEEK, 10),
        (line(1, timeout=345_000), WEEK, 87_000),
        (line(1, timeout=290), WEEK, None),  # data may have been sent again
        (line(1, timeout=290), {**WEEK, "tcp_timeout_max_retrans": 100, "tcp_timeout_unacknowledged": 100}, 431_710),
        (line(1, timeout=500_000), WEEK, None),  # a timeout of its own
        (line(1, timeout=431_990), {}, None),
        (line(1, state="FIN_WAIT", timeout=100), {"tcp_timeout_fin_wait": 120}, 20),
        (line(1).replace("tcp      6 300 ESTABLISHED", "udp      17 100"), WEEK, 20),
        (line(1, flags="[UNREPLIED] ").replace("tcp      6 300 ESTABLISHED", "udp      17 25"), WEEK, 5),
        (line(1, flags="[OFFLOAD] ").replace("6 300 ESTABLISHED", "6"), WEEK, None),
    ],
)
def test_how_long_a_flow_has_been_idle(text: str, timeouts: dict[str, int], idle: float | None) -> None:
    table, context = FlowTable(), Context(now=100.0)
    listing(table, [text])
    context.advance(100.0, frozenset(), timeouts)
    (flow,) = table
    assert flow.idle(100.0, timeouts) == idle
    assert FLOW_COLUMN["idle"].cell(facts_of(flow, context, False)) == ("-" if idle is None else span_text(idle))
    assert order_by_idle([flow], context) == [-1.0 if idle is None else idle]
    assert fits("idle:>=0", flow, context) == (idle is not None)


def test_a_flow_whose_birth_was_seen_is_never_idle_for_longer() -> None:
    table = FlowTable()
    feed(table, event("NEW", 1, timeout=100))  # nf_conntrack_tcp_timeout_established was made longer since
    (flow,) = table
    assert flow.idle(103.0, {**WEEK, "tcp_timeout_max_retrans": 50, "tcp_timeout_unacknowledged": 50}) == 3.0


def test_idle_flows_and_what_closing_them_frees() -> None:
    monitor = Monitor([line(n, timeout=300_000 if n < 5 else 431_000) for n in range(1, 9)])
    monitor.table.know_timeouts(WEEK)
    findings = surveyed(monitor.table, monitor.view.context)
    assert findings.idle == 4
    rows = panel(Status(), monitor.table, None, 100.0, True, Surroundings(findings=findings))
    (row,) = [row for row in rows if row.label == "idle"]
    assert row.value == "closing idle ones after 1 day frees 4, 50 % (filter idle:>1d)"
    assert row.cure.endswith("tcp_timeout_established=86400")
    monitor.table.know_timeouts({"tcp_timeout_established": 86_400})  # it is so already
    assert surveyed(monitor.table, monitor.view.context).idle == 0


@kernel_mark()
def test_the_timeouts_are_the_kernels_own() -> None:
    """Through a prefix and without one, and the time since the last packet of a real flow."""
    with Namespace() as ns:
        ns.sysctl("net.netfilter.nf_conntrack_tcp_timeout_established", 1000)
        insert(ns, src="192.0.2.1", dst="192.0.2.2", sport=1, dport=80, timeout=600, flags=("SEEN_REPLY", "ASSURED"))
        live = source.LiveSource(source.Command(via=ns.prefix), 60.0, events=False)
        try:
            wanted = {Facts, ListingEnded}
            items = items_until(live, lambda items: wanted <= {type(item) for item in items})
        finally:
            live.close()
        intake = intake_of(*items)
        assert set(intake.table.timeouts) | {name for name in TIMEOUTS if name.startswith("dccp")} == set(TIMEOUTS)
        (flow,) = intake.table
        assert 400 <= (flow.idle(flow.last_seen.at, intake.table.timeouts) or 0) <= 402
    assert source.read_facts().keys() >= {"tcp_timeout_established", "generic_timeout"}


def test_every_state_has_its_timeout() -> None:
    """By the names of the states that conntrack prints; the kernel has none for the others."""
    from parse import TIMEOUT_OF_STATE

    of = {number for number, _ in TIMEOUT_OF_STATE}
    assert of == {PROTOCOLS[name] for name in ("tcp", "dccp", "sctp")}
    assert {state for _, state in TIMEOUT_OF_STATE} <= STATES
    assert all(re.fullmatch(r"[a-z0-9]+_timeout(_[a-z_]+)?", name) for name in TIMEOUTS)


# --- offloaded --------------------------------------------------------------------------------------------------------


def test_the_rate_of_an_offloaded_flow_is_unknown_and_not_zero() -> None:
    plain = line(1, size=1000)
    offloaded = line(2, src=LAN, size=1000, flags="[OFFLOAD] ").replace("6 300 ESTABLISHED", "6")
    monitor = Monitor([plain, offloaded])
    listing(monitor.table, [plain, offloaded], 110.0)
    monitor.refresh(10)
    rates = {flow.record().id: flow.rate() for flow in monitor.table}
    assert rates == {1: 0.0, 2: None}
    assert sorted(order_by_rate(list(monitor.table), monitor.view.context)) == [-1.0, 0.0]
    monitor.keys("2")
    cells = {row.key: row.sure_rate(row.rate) for row in monitor.view.rows.order}
    assert cells == {"10.0.0.1": 0.0, LAN: None}
    moved = offloaded.replace("bytes=1000", "bytes=900000")  # a flowtable with counters
    listing(monitor.table, [plain, moved], 120.0)
    assert (next(flow for flow in monitor.table if flow.record().id == 2).rate() or 0) > 0
    findings = surveyed(monitor.table, monitor.view.context)
    assert findings.offloaded == 1
    (notice,) = [
        n
        for n in notices_of(Status(), monitor.table, True, 100.0, Surroundings(findings=findings))
        if "offloaded" in n.text
    ]
    assert notice.text == "1 flow is offloaded to a flowtable: bytes and rates may not be counted"
    assert notice.cure == health.OFFLOAD_CURE
    assert [column.key for column in HOST_COLUMNS if column.key in ("remotes", "ports")] == ["remotes", "ports"]
