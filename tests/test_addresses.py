"""What an address is: its scope, near or far, which end is remote, which end is translated."""

from __future__ import annotations

import ipaddress
from ipaddress import ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import addresses
from addresses import (
    Context,
    Ends,
    Network,
    Site,
    _scope,
    hears_broadcast,
    own_addresses_of,
    scope,
    within,
)
from flows import FlowTable
from support.program import CAPTURES
from support.strategies import any_blocks
from support.tables import MARKS, OWN_ADDRESSES, direction, feed, flows_of, inbound, remote

OWN = frozenset({"192.168.1.1", "203.0.113.1"})
LAN, LAN2, PUBLIC, PUBLIC2, WAN, ROUTER = (
    "192.168.1.9",
    "192.168.1.8",
    "8.8.8.8",
    "1.1.1.1",
    "203.0.113.1",
    "192.168.1.1",
)


def ends(src: str, dst: str, reply_src: str = "", reply_dst: str = "") -> Ends:
    return Ends(src, dst, 1000, 80, reply_src or dst, reply_dst or src, 80, 1000)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        *(("8.8.8.8", "public"), ("10.1.2.3", "private"), ("172.31.0.1", "private"), ("172.32.0.1", "public")),
        *(
            ("192.168.0.1", "private"),
            ("100.64.0.1", "cgnat"),
            ("100.128.0.1", "public"),
            ("169.254.1.1", "link-local"),
        ),
        *(
            ("127.9.9.9", "loopback"),
            ("224.0.0.1", "multicast"),
            ("255.255.255.255", "broadcast"),
            ("0.0.0.0", "unspecified"),
        ),
        *(("192.0.2.1", "documentation"), ("198.51.100.1", "documentation"), ("203.0.113.1", "documentation")),
        *(("198.18.0.1", "benchmark"), ("198.20.0.1", "public"), ("240.0.0.1", "reserved")),
        *(("2606:4700::1111", "public"), ("2001:db8::1", "documentation"), ("3fff::1", "documentation")),
        *(
            ("fd00::1", "private"),
            ("fe80::1", "link-local"),
            ("ff02::1", "multicast"),
            ("::1", "loopback"),
            ("::", "unspecified"),
        ),
        *(
            ("::ffff:8.8.8.8", "public"),
            ("::ffff:10.0.0.1", "private"),
            ("64:ff9b::808:808", "public"),
            ("4000::1", "reserved"),
        ),
        ("2001:0db8:0000:0000:0000:0000:0000:0001", "documentation"),
        *(("", ""), ("8", ""), ("1.2.3", ""), ("999.1.1.1", ""), ("fe80::1%eth0", ""), ("x", "")),
    ],
)
def test_scopes(address: str, expected: str) -> None:
    assert scope(address) == expected


SCOPES = {"public", "private", "cgnat", "link-local", "multicast", "loopback", "documentation", "benchmark"}


@given(st.ip_addresses())
@example(ipaddress.ip_address("::ffff:224.0.0.1"))
def test_every_address_has_a_scope(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    ours = scope(str(address))
    assert ours in SCOPES | {"broadcast", "unspecified", "reserved"}
    really = getattr(address, "ipv4_mapped", None) or address
    assert (ours == "multicast") == really.is_multicast
    if address.version == 4:
        assert scope(f"::ffff:{address}") == ours
    else:
        assert scope(address.exploded) == ours


@pytest.mark.parametrize(
    ("flow", "way", "far", "comes_in"),
    [
        (ends(ROUTER, PUBLIC), "out", PUBLIC, False),
        (ends(PUBLIC, WAN), "in", PUBLIC, True),
        (ends(LAN, ROUTER), "in", LAN, True),
        (ends(ROUTER, LAN), "out", LAN, False),
        (ends(LAN, PUBLIC, reply_dst=WAN), "fwd", PUBLIC, False),  # masquerade
        (ends(PUBLIC, WAN, reply_src=LAN), "fwd", PUBLIC, True),  # port forwarding
        (ends(LAN, LAN2), "fwd", LAN2, False),
        (ends(PUBLIC2, PUBLIC), "fwd", PUBLIC, False),
        (ends("198.51.100.7", WAN, reply_src=LAN), "fwd", "198.51.100.7", True),
        (ends("127.0.0.1", "127.0.0.53"), "local", "127.0.0.53", False),
        (ends(ROUTER, WAN), "local", WAN, False),
        (ends(LAN, "224.0.0.251"), "in", "224.0.0.251", True),
        (ends(LAN, PUBLIC, reply_src=ROUTER), "in", PUBLIC, True),  # DNS sent to the router's own resolver
    ],
)
def test_direction_and_remote(flow: Ends, way: str, far: str, comes_in: bool) -> None:
    assert direction(flow, OWN) == way
    assert remote(flow, OWN) == far
    assert inbound(flow, OWN) == comes_in


def test_without_own_addresses_there_is_no_direction() -> None:
    assert direction(ends(LAN, PUBLIC), frozenset()) is None
    assert remote(ends(LAN, PUBLIC, reply_dst="9.9.9.9"), frozenset()) == PUBLIC
    assert inbound(ends(PUBLIC, LAN), frozenset())


@given(
    st.lists(
        st.sampled_from([0, 10, 16, 18, 51, 64, 99, 100, 113, 127, 168, 169, 172, 192, 198, 203, 255]),
        min_size=4,
        max_size=4,
    )
    | st.lists(st.integers(0, 255), min_size=4, max_size=4)
)
def test_a_remembered_scope_is_that_of_the_address(octets: list[int]) -> None:
    address = ".".join(map(str, octets))
    for neighbour in (address, ".".join(map(str, [*octets[:3], 255])), address):
        assert scope(neighbour) == _scope(neighbour)


networks = st.builds(
    lambda address, length: ipaddress.ip_network(f"{address}/{min(length, address.max_prefixlen)}", strict=False),
    st.ip_addresses(),
    st.integers(0, 128),
)


@given(nets=st.lists(networks, max_size=4), strangers=st.lists(st.ip_addresses(), max_size=4), data=st.data())
def test_within_networks(nets: list[Network], strangers: list[ipaddress.IPv4Address], data: st.DataObject) -> None:
    inside = within(nets)
    for address in [*strangers, *(data.draw(st.sampled_from([net[0], net[-1]])) for net in nets)]:
        assert inside(str(address)) == any(address.version == net.version and address in net for net in nets)


@pytest.mark.parametrize("text", ["", "x", "10.1", "10.0.0.256", "10.0.0.0.1", "8.8.8.x", "::x"])
def test_what_is_no_address_is_within_nothing(text: str) -> None:
    assert not within([ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")])(text)


@given(block=any_blocks, own=st.sampled_from([OWN_ADDRESSES, frozenset[str]()]))
def test_the_remote_end_is_the_same_for_one_and_for_all(block: bytes, own: frozenset[str]) -> None:
    flows, context = flows_of(block, own)
    assert [context.remote_address(flow) for flow in flows] == [remote(flow.ends(), context.own) for flow in flows]


def test_what_is_local() -> None:
    from ipaddress import ip_network

    plain = Context(own=frozenset({"203.0.113.1"}))
    for address in ("203.0.113.1", "10.0.0.1", "fd00::1", "127.0.0.1", "169.254.1.1", "fe80::1", "100.64.0.1"):
        assert plain.is_local(address), address
    for address in ("8.8.8.8", "203.0.113.2", "224.0.0.251", "2606:4700::1111", "no address"):
        assert not plain.is_local(address), address
    more = Context(site=Site(networks=[ip_network("8.8.0.0/16"), ip_network("2606:4700::/32")]), own=plain.own)
    assert more.is_local("8.8.8.8")
    assert more.is_local("2606:4700::1111")
    assert not more.is_local("8.9.8.8")
    assert not more.is_local("no address")
    assert more.is_local("203.0.113.1")
    assert not more.is_local("1.1.1.1")
    more.advance(0.0, frozenset({"1.1.1.1"}))  # as the host's addresses become known
    assert more.is_local("1.1.1.1")
    assert not more.is_local("203.0.113.1")


# --- NAT --------------------------------------------------------------------------------------------------------------


def nat_of(data: bytes) -> list[list[str]]:
    table = FlowTable()
    feed(table, data)
    return [flow.ends().nat for flow in [*table.live.values(), *table.closed]]


def test_an_icmp_id_that_a_masquerade_changed_is_snat_alone() -> None:
    (nat,) = nat_of(
        b"ipv4     2 icmp     1 28 src=192.168.1.11 dst=8.8.8.8 type=8 code=0 id=1 src=8.8.8.8 dst=203.0.113.5 "
        b"type=0 code=0 id=40123 mark=0 use=1 id=77\n"
    )
    assert nat == ["snat"]


@pytest.mark.parametrize("name", ["snat-masquerade-tcp", "dnat-tcp-udp", "tcp-lifecycle"])
def test_nat_of_captures(name: str) -> None:
    wanted = {"snat-masquerade-tcp": ["snat"], "dnat-tcp-udp": ["dnat"], "tcp-lifecycle": []}[name]
    found = nat_of((CAPTURES / name / "E.ext-id-ts.txt").read_bytes())
    assert found
    assert all(nat == wanted for nat in found)


def test_a_mark_s_own_name_comes_before_those_of_its_parts() -> None:
    context = Context(site=Site(marks=MARKS))
    assert [context.mark_name(mark) for mark in (7, 0x17, 0x12, 0x13, 3, 8)] == [
        *("vpn", "both", "voice", "voice", "odd", None)
    ]
    assert Context().mark_name(7) is None


def test_what_was_found_out_about_addresses_ends_with_the_addresses_of_the_host() -> None:
    context = Context(own=frozenset({"8.8.8.8"}))
    ends = b"8.8.8.8", b"10.0.0.1"
    assert (context.remote_of(*ends), context.sides_of(*ends)) == ("10.0.0.1", ("8.8.8.8", "10.0.0.1", False))
    context.advance(5.0, frozenset({"10.0.0.1"}))
    assert (context.now, context.own) == (5.0, {"10.0.0.1"})
    assert (context.remote_of(*ends), context.sides_of(*ends)) == ("8.8.8.8", ("10.0.0.1", "8.8.8.8", True))


def test_a_broadcast_comes_in_and_is_not_this_host() -> None:
    own = own_addresses_of(frozenset({"192.0.2.1", "broadcast=192.0.2.255", "198.51.100.0/24", "300.1.2.3/24"}))
    assert ("192.0.2.255" in own, "198.51.100.77" in own, "198.51.101.1" in own) == (True, True, False)
    for src, dst, way in (
        ("192.0.2.7", "192.0.2.255", "in"),
        ("192.0.2.1", "192.0.2.255", "out"),
        ("192.0.2.7", "198.51.100.9", "in"),
        ("198.51.100.9", "192.0.2.7", "out"),
        ("192.0.2.1", "198.51.100.9", "local"),
        ("192.0.2.7", "192.0.2.8", "fwd"),
    ):
        assert direction(Ends(src, dst, 1, 2, dst, src, 2, 1), own) == way, (src, dst)
    assert hears_broadcast("192.0.2.255", own)
    assert not hears_broadcast("192.0.2.1", own)
    assert not hears_broadcast("192.0.2.255", frozenset({"192.0.2.255"}))


def test_plain_addresses_stay_what_they_are() -> None:
    plain = frozenset({"192.0.2.1", "2001:db8::1"})
    assert own_addresses_of(plain) is plain


# --- what an address is, which way a flow goes, how NAT changed it, who is remote: said for each case by name ---------


LAN, LAN2, LAN6 = "192.168.1.9", "192.168.1.8", "fd00::9"
FAR, FAR2, FAR6 = "8.8.8.8", "1.1.1.1", "2606:4700::1111"
WAN, ROUTER, DOCS = "203.0.113.1", "192.168.1.1", "198.51.100.7"
OWN_ADDRESSES = frozenset({WAN, ROUTER})


def of(src: str, dst: str, reply_src: str = "", reply_dst: str = "") -> Ends:
    return Ends(src, dst, 1000, 80, reply_src or dst, reply_dst or src, 80, 1000)


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        ("0.0.0.0", "0.255.255.255", "unspecified"),
        ("1.0.0.0", "9.255.255.255", "public"),
        ("10.0.0.0", "10.255.255.255", "private"),
        ("11.0.0.0", "100.63.255.255", "public"),
        ("100.64.0.0", "100.127.255.255", "cgnat"),
        ("100.128.0.0", "126.255.255.255", "public"),
        ("127.0.0.0", "127.255.255.255", "loopback"),
        ("128.0.0.0", "169.253.255.255", "public"),
        ("169.254.0.0", "169.254.255.255", "link-local"),
        ("169.255.0.0", "172.15.255.255", "public"),
        ("172.16.0.0", "172.31.255.255", "private"),
        ("172.32.0.0", "191.255.255.255", "public"),
        ("192.0.2.0", "192.0.2.255", "documentation"),
        ("192.0.3.0", "192.88.98.255", "public"),
        ("192.168.0.0", "192.168.255.255", "private"),
        ("192.169.0.0", "198.17.255.255", "public"),
        ("198.18.0.0", "198.19.255.255", "benchmark"),
        ("198.20.0.0", "198.51.99.255", "public"),
        ("198.51.100.0", "198.51.100.255", "documentation"),
        ("198.51.101.0", "203.0.112.255", "public"),
        ("203.0.113.0", "203.0.113.255", "documentation"),
        ("203.0.114.0", "223.255.255.255", "public"),
        ("224.0.0.0", "239.255.255.255", "multicast"),
        ("240.0.0.0", "255.255.255.254", "reserved"),
        ("255.255.255.255", "255.255.255.255", "broadcast"),
        ("::", "::", "unspecified"),
        ("::1", "::1", "loopback"),
        ("::2", "::2", "reserved"),
        ("64:ff9b::", "64:ff9b::ffff:ffff", "public"),
        ("64:ff9b::1:0:0", "64:ff9b::1:0:0", "reserved"),
        ("1fff:ffff::", "1fff:ffff::", "reserved"),
        ("2000::", "2001:1:ffff::", "public"),
        ("2001:2::", "2001:2:0:ffff::", "benchmark"),
        ("2001:2:1::", "2001:db7:ffff::", "public"),
        ("2001:db8::", "2001:db8:ffff::", "documentation"),
        ("2001:db9::", "3ffe:ffff::", "public"),
        ("3fff::", "3fff:fff:ffff::", "documentation"),
        ("3fff:1000::", "3fff:ffff::", "public"),
        ("4000::", "fbff::", "reserved"),
        ("fc00::", "fdff:ffff::", "private"),
        ("fe00::", "fe7f::", "reserved"),
        ("fe80::", "febf:ffff::", "link-local"),
        ("fec0::", "fec0::", "reserved"),
        ("ff00::", "ffff::", "multicast"),
        ("200::", "200::1", "reserved"),
    ],
)
def test_where_a_scope_begins_and_ends(first: str, last: str, expected: str) -> None:
    for _ in range(2):  # what is remembered of one says nothing of its neighbours
        assert (scope(first), scope(last)) == (expected, expected)
    addresses._BY_HEAD.clear()
    assert (scope(last), scope(first)) == (expected, expected)
    assert scope(last.upper()) == expected


def test_what_is_asked_first_changes_no_answer() -> None:
    addresses._BY_HEAD.clear()
    assert scope("255.255.255.255") == "broadcast"
    assert scope("255.255.255.254") == "reserved"
    assert scope("8.8") == ""
    assert scope("8.8.8.999") == ""
    assert scope("8.8.8.8") == "public"
    assert scope("2606::x") == ""
    assert scope("2606::1") == "public"
    assert (scope("2001:0002:1::"), scope("2001:0002::"), scope("2001:0DB8::")) == (
        "public",
        "benchmark",
        "documentation",
    )


def test_scopes_that_are_remembered_are_bounded() -> None:
    addresses._BY_HEAD.clear()
    addresses._BY_HEAD.update({f"of {number}": "public" for number in range(65_536)})
    assert scope("9.9.9.9") == "public"
    assert len(addresses._BY_HEAD) == 65_537
    assert scope("11.9.9.9") == "public"
    assert addresses._BY_HEAD == {"11": "public"}


# --- NAT --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "snat", "dnat"),
    [
        ({}, False, False),
        ({"reply_dst": WAN}, True, False),
        ({"reply_dport": 40_000}, True, False),  # of the port alone
        ({"reply_dst": WAN, "reply_dport": 40_000}, True, False),
        ({"reply_src": LAN2}, False, True),
        ({"reply_sport": 8080}, False, True),
        ({"reply_src": LAN2, "reply_sport": 8080}, False, True),
        ({"reply_dport": 40_000, "reply_sport": 8080}, True, True),
        ({"reply_dst": WAN, "reply_src": LAN2}, True, True),
    ],
)
def test_which_end_is_translated(changed: dict[str, object], snat: bool, dnat: bool) -> None:
    flow = of(LAN, FAR)._replace(**changed)  # type: ignore[arg-type]
    assert (flow.snat, flow.dnat) == (snat, dnat)
    assert flow.nat == ["snat"] * snat + ["dnat"] * dnat


# --- direction, remote ------------------------------------------------------------------------------------------------

CASES = [  # what it is, the flow, its way, who is remote, whether its original direction comes in
    ("this host asks", of(WAN, FAR), "out", FAR, False),
    ("this host is asked", of(FAR, WAN), "in", FAR, True),
    ("a LAN host asks this one", of(LAN, ROUTER), "in", LAN, True),
    ("this host asks one on the LAN", of(ROUTER, LAN), "out", LAN, False),
    ("masquerade", of(LAN, FAR, reply_dst=WAN), "fwd", FAR, False),
    ("masquerade to a place in no database", of(LAN, DOCS, reply_dst=WAN), "fwd", DOCS, False),
    ("a port is forwarded", of(FAR, WAN, reply_src=LAN), "fwd", FAR, True),
    ("... for one in no database", of(DOCS, WAN, reply_src=LAN), "fwd", DOCS, True),
    ("hairpin: the LAN's own server by its public name", of(LAN, WAN, LAN2, ROUTER), "fwd", LAN, False),
    ("between two hosts of the LAN", of(LAN, LAN2), "fwd", LAN2, False),
    ("routed through, both far", of(FAR2, FAR), "fwd", FAR, False),
    ("routed in without NAT", of(FAR, LAN), "fwd", FAR, True),
    ("routed in, IPv6", of(FAR6, LAN6), "fwd", FAR6, True),
    ("routed out, IPv6", of(LAN6, FAR6), "fwd", FAR6, False),
    ("loopback", of("127.0.0.1", "127.0.0.53"), "local", "127.0.0.53", False),
    ("this host to itself", of(WAN, ROUTER), "local", ROUTER, False),
    ("from loopback to this host", of("127.0.0.1", WAN), "local", "127.0.0.1", False),
    ("this host to loopback", of(ROUTER, "127.0.0.1"), "local", "127.0.0.1", False),
    ("from loopback out", of("127.0.0.1", LAN), "out", LAN, False),
    ("somebody to loopback, by DNAT", of(LAN, ROUTER, "127.0.0.1"), "in", LAN, True),
    ("multicast", of(LAN, "224.0.0.251"), "in", "224.0.0.251", True),
    ("this host's multicast", of(ROUTER, "224.0.0.251"), "out", "224.0.0.251", False),
    ("broadcast", of(LAN, "255.255.255.255"), "in", "255.255.255.255", True),
    ("a DNS question sent to the router's resolver", of(LAN, FAR, ROUTER), "in", FAR, True),
]


@pytest.mark.parametrize(
    ("flow", "way", "far", "comes_in"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_which_way_who_is_remote_and_what_comes_in(flow: Ends, way: str, far: str, comes_in: bool) -> None:
    assert direction(flow, OWN_ADDRESSES) == way
    assert remote(flow, OWN_ADDRESSES) == far
    assert inbound(flow, OWN_ADDRESSES) == comes_in


RECORDED = [  # without knowing whose addresses are this host's: what it is, the flow, who is remote, what comes in
    ("one asks far", of(LAN, FAR), FAR, False),
    ("far asks one", of(FAR, LAN), FAR, True),
    ("masquerade behind a public address", of(LAN, FAR, reply_dst=FAR2), FAR, False),
    ("a forwarded port", of(FAR, FAR2, reply_src=LAN), FAR, True),
    ("a forwarded port, from no database", of(DOCS, WAN, reply_src=LAN), WAN, True),
    ("masquerade, to no database", of(LAN, DOCS, reply_dst=WAN), DOCS, False),
    ("both far", of(FAR2, FAR), FAR, False),
    ("both near", of(LAN, LAN2), LAN2, False),
    ("both kinds of NAT", of(LAN, LAN2, ROUTER, WAN), LAN2, False),
    ("the answer is far, the question was not", of(LAN, ROUTER, FAR), FAR, True),
    ("only the translated source is public", of(LAN, LAN2, reply_dst=FAR), FAR, False),
]


@pytest.mark.parametrize(
    ("flow", "far", "comes_in"), [case[1:] for case in RECORDED], ids=[case[0] for case in RECORDED]
)
def test_in_a_recording_that_does_not_say_whose_it_is(flow: Ends, far: str, comes_in: bool) -> None:
    assert direction(flow, frozenset()) is None
    assert remote(flow, frozenset()) == far
    assert inbound(flow, frozenset()) == comes_in


def test_public_addresses_may_be_near_all_the_same() -> None:
    ours = within([ip_network("8.8.8.0/24")])
    assert remote(of(FAR, FAR2), OWN_ADDRESSES, ours) == FAR2
    assert remote(of(FAR2, FAR), OWN_ADDRESSES, ours) == FAR2
    assert remote(of(FAR, "8.8.8.9"), OWN_ADDRESSES, ours) == "8.8.8.9"
    assert remote(of(FAR, WAN), OWN_ADDRESSES, ours) == FAR  # of none the end that is not this host's
    assert remote(of(FAR, WAN), OWN_ADDRESSES) == FAR


ADDRESSES = [LAN, FAR, WAN, ROUTER, DOCS, FAR6]


@given(st.tuples(*[st.sampled_from(ADDRESSES)] * 4))
def test_the_remote_end_is_one_of_the_four_and_this_host_only_where_all_are(four: tuple[str, str, str, str]) -> None:
    flow = of(*four)
    far = remote(flow, OWN_ADDRESSES)
    assert far in four
    public = [address for address in four if scope(address) == "public" and address not in OWN_ADDRESSES]
    assert (far in public) == bool(public)
    if not public and flow.src not in OWN_ADDRESSES:
        assert far not in OWN_ADDRESSES or flow.dst not in OWN_ADDRESSES or flow.src in OWN_ADDRESSES
    assert (direction(flow, OWN_ADDRESSES) == "out") == (
        flow.src in OWN_ADDRESSES and flow.reply_src not in OWN_ADDRESSES
    )


def test_within_no_network_is_nobody() -> None:
    assert not within([])("10.0.0.1")
    assert not within([])("no address")
    assert within([ip_network("10.0.0.0/8"), ip_network("fd00::/8")])("fd00::1")
    assert not within([ip_network("10.0.0.0/8")])("no address")
