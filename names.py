"""Names for numbers: services by port, IP protocols, connection states.

A table of our own, because minimal hosts have no /etc/services or /etc/protocols. Source: the IANA registries, cut to
what is seen on routers; states: nf_conntrack_proto_{tcp,sctp,dccp}.c as libnetfilter_conntrack prints them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


_TCP_STATES = "NONE SYN_SENT SYN_RECV ESTABLISHED FIN_WAIT CLOSE_WAIT LAST_ACK TIME_WAIT CLOSE SYN_SENT2 LISTEN"


_SCTP_STATES = (
    "CLOSED COOKIE_WAIT COOKIE_ECHOED SHUTDOWN_SENT SHUTDOWN_RECD SHUTDOWN_ACK_SENT HEARTBEAT_SENT HEARTBEAT_ACKED"
)


_DCCP_STATES = "REQUEST RESPOND PARTOPEN OPEN CLOSEREQ CLOSING TIMEWAIT IGNORE INVALID"


STATES = frozenset(f"{_TCP_STATES} {_SCTP_STATES} {_DCCP_STATES}".split())


PROTOCOLS = {
    "icmp": 1,
    "igmp": 2,
    "ipip": 4,
    "tcp": 6,
    "egp": 8,
    "udp": 17,
    "dccp": 33,
    "ipv6": 41,
    "rsvp": 46,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "icmpv6": 58,
    "ipv6-icmp": 58,
    "eigrp": 88,
    "ospf": 89,
    "pim": 103,
    "vrrp": 112,
    "l2tp": 115,
    "sctp": 132,
    "udplite": 136,
}


WITH_PORTS = frozenset({6, 17, 33, 132, 136})  # tcp, udp, dccp, sctp, udplite


# The protocols whose name conntrack 1.4.5 and later take after -p without looking into /etc/protocols.
PUSHED_DOWN = ("tcp", "udp", "udplite", "icmp", "icmpv6", "sctp", "dccp", "gre")


def called(value: str, names: Mapping[T, str]) -> list[T]:
    """What has this name, in any case."""
    return [number for number, name in names.items() if name.casefold() == value.casefold()]


def or_names(names: Mapping[T, str]) -> str:
    return f", and no name; there are: {' '.join(dict.fromkeys(names.values()))}" if names else ""
