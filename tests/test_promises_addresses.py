"""What an address is, which way a flow goes, how NAT changed it, who is remote: said for each case by name."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

import addresses
from addresses import Ends, direction, inbound, remote, scope, within

LAN, LAN2, LAN6 = "192.168.1.9", "192.168.1.8", "fd00::9"
FAR, FAR2, FAR6 = "8.8.8.8", "1.1.1.1", "2606:4700::1111"
WAN, ROUTER, DOCS = "203.0.113.1", "192.168.1.1", "198.51.100.7"
OWN = frozenset({WAN, ROUTER})


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
    assert direction(flow, OWN) == way
    assert remote(flow, OWN) == far
    assert inbound(flow, OWN) == comes_in


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
    assert remote(of(FAR, FAR2), OWN, ours) == FAR2
    assert remote(of(FAR2, FAR), OWN, ours) == FAR2
    assert remote(of(FAR, "8.8.8.9"), OWN, ours) == "8.8.8.9"
    assert remote(of(FAR, WAN), OWN, ours) == FAR  # of none the end that is not this host's
    assert remote(of(FAR, WAN), OWN) == FAR


ADDRESSES = [LAN, FAR, WAN, ROUTER, DOCS, FAR6]


@given(st.tuples(*[st.sampled_from(ADDRESSES)] * 4))
def test_the_remote_end_is_one_of_the_four_and_this_host_only_where_all_are(four: tuple[str, str, str, str]) -> None:
    flow = of(*four)
    far = remote(flow, OWN)
    assert far in four
    public = [address for address in four if scope(address) == "public" and address not in OWN]
    assert (far in public) == bool(public)
    if not public and flow.src not in OWN:
        assert far not in OWN or flow.dst not in OWN or flow.src in OWN
    assert (direction(flow, OWN) == "out") == (flow.src in OWN and flow.reply_src not in OWN)


def test_within_no_network_is_nobody() -> None:
    assert not within([])("10.0.0.1")
    assert not within([])("no address")
    assert within([ip_network("10.0.0.0/8"), ip_network("fd00::/8")])("fd00::1")
    assert not within([ip_network("10.0.0.0/8")])("no address")
