"""What an address is: its scope, near or far, which end is remote, which end is translated."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from addresses import (
    Context,
    Ends,
    Network,
    Site,
    _scope,
    direction,
    hears_broadcast,
    inbound,
    own_addresses_of,
    remote,
    scope,
    within,
)
from flows import FlowTable
from support.program import CAPTURES
from support.strategies import any_blocks
from support.tables import MARKS, OWN_ADDRESSES, feed, flows_of

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
