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

_BOTH = {
    7: "echo",
    53: "dns",
    88: "kerberos",
    111: "sunrpc",
    123: "ntp",
    137: "netbios-ns",
    161: "snmp",
    162: "snmp-trap",
    389: "ldap",
    443: "https",
    464: "kpasswd",
    500: "isakmp",
    514: "syslog",
    853: "dns-tls",
    1194: "openvpn",
    1701: "l2tp",
    1812: "radius",
    1813: "radius-acct",
    2049: "nfs",
    3389: "rdp",
    3478: "stun",
    4500: "ipsec-nat-t",
    5060: "sip",
    5349: "turns",
    51820: "wireguard",
}
_TCP = {
    20: "ftp-data",
    21: "ftp",
    22: "ssh",
    23: "telnet",
    25: "smtp",
    43: "whois",
    49: "tacacs",
    80: "http",
    110: "pop3",
    119: "nntp",
    135: "msrpc",
    139: "netbios-ssn",
    143: "imap",
    179: "bgp",
    445: "smb",
    465: "smtps",
    515: "printer",
    554: "rtsp",
    587: "submission",
    631: "ipp",
    636: "ldaps",
    873: "rsync",
    989: "ftps-data",
    990: "ftps",
    993: "imaps",
    995: "pop3s",
    1080: "socks",
    1433: "mssql",
    1521: "oracle",
    1723: "pptp",
    1883: "mqtt",
    2375: "docker",
    2376: "docker-tls",
    2379: "etcd",
    3128: "squid",
    3306: "mysql",
    5222: "xmpp",
    5223: "xmpps",
    5228: "gcm",
    5432: "postgres",
    5900: "vnc",
    5985: "winrm",
    6379: "redis",
    6443: "kube-api",
    6667: "irc",
    8006: "proxmox",
    8080: "http-alt",
    8443: "https-alt",
    8883: "mqtts",
    9000: "cslistener",
    9090: "prometheus",
    9100: "node-exporter",
    9200: "elasticsearch",
    10250: "kubelet",
    11211: "memcached",
    25565: "minecraft",
    27017: "mongodb",
    32400: "plex",
}
_UDP = {
    67: "dhcp-server",
    68: "dhcp",
    69: "tftp",
    138: "netbios-dgm",
    546: "dhcpv6",
    547: "dhcpv6-server",
    1900: "ssdp",
    4789: "vxlan",
    5351: "nat-pmp",
    5353: "mdns",
    5355: "llmnr",
    6081: "geneve",
    8472: "flannel",
    41641: "tailscale",
}
SERVICES = {
    **{("tcp", port): name for port, name in {**_BOTH, **_TCP}.items()},
    **{("udp", port): name for port, name in {**_BOTH, **_UDP, 443: "quic"}.items()},
}


def service(protocol: str, port: int | None) -> str | None:
    """The service usually found at a port.

    >>> service("tcp", 443), service("udp", 443), service("tcp", 40000)
    ('https', 'quic', None)
    """
    return None if port is None else SERVICES.get((protocol, port))


def ports_of(name: str) -> set[int]:
    """All ports a service name stands for; none if it is unknown.

    >>> sorted(ports_of("HTTPS")), sorted(ports_of("nosuch"))
    ([443], [])
    """
    return {port for (_protocol, port), known in SERVICES.items() if known == name.lower()}


def called(value: str, names: Mapping[T, str]) -> list[T]:
    """What has this name, in any case."""
    return [number for number, name in names.items() if name.casefold() == value.casefold()]


def or_names(names: Mapping[T, str]) -> str:
    return f", and no name; there are: {' '.join(dict.fromkeys(names.values()))}" if names else ""
