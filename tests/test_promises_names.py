"""Names of services, protocols and states, word by word; what reverse DNS asks and what its answers say, byte by byte."""

from __future__ import annotations

import struct

import pytest

import names
from filters import named, or_names
from parse import PROTOCOLS, PUSHED_DOWN, STATES, WITH_PORTS
from text import SERVICES, ports_of, service

TCP = """
7 echo, 20 ftp-data, 21 ftp, 22 ssh, 23 telnet, 25 smtp, 43 whois, 49 tacacs, 53 dns, 80 http, 88 kerberos,
110 pop3, 111 sunrpc, 119 nntp, 123 ntp, 135 msrpc, 137 netbios-ns, 139 netbios-ssn, 143 imap, 161 snmp,
162 snmp-trap, 179 bgp, 389 ldap, 443 https, 445 smb, 464 kpasswd, 465 smtps, 500 isakmp, 514 syslog,
515 printer, 554 rtsp, 587 submission, 631 ipp, 636 ldaps, 853 dns-tls, 873 rsync, 989 ftps-data, 990 ftps,
993 imaps, 995 pop3s, 1080 socks, 1194 openvpn, 1433 mssql, 1521 oracle, 1701 l2tp, 1723 pptp, 1812 radius,
1813 radius-acct, 1883 mqtt, 2049 nfs, 2375 docker, 2376 docker-tls, 2379 etcd, 3128 squid, 3306 mysql,
3389 rdp, 3478 stun, 4500 ipsec-nat-t, 5060 sip, 5222 xmpp, 5223 xmpps, 5228 gcm, 5349 turns, 5432 postgres,
5900 vnc, 5985 winrm, 6379 redis, 6443 kube-api, 6667 irc, 8006 proxmox, 8080 http-alt, 8443 https-alt,
8883 mqtts, 9000 cslistener, 9090 prometheus, 9100 node-exporter, 9200 elasticsearch, 10250 kubelet,
11211 memcached, 25565 minecraft, 27017 mongodb, 32400 plex, 51820 wireguard
"""
UDP = """
7 echo, 53 dns, 67 dhcp-server, 68 dhcp, 69 tftp, 88 kerberos, 111 sunrpc, 123 ntp, 137 netbios-ns,
138 netbios-dgm, 161 snmp, 162 snmp-trap, 389 ldap, 443 quic, 464 kpasswd, 500 isakmp, 514 syslog, 546 dhcpv6,
547 dhcpv6-server, 853 dns-tls, 1194 openvpn, 1701 l2tp, 1812 radius, 1813 radius-acct, 1900 ssdp, 2049 nfs,
3389 rdp, 3478 stun, 4500 ipsec-nat-t, 4789 vxlan, 5060 sip, 5349 turns, 5351 nat-pmp, 5353 mdns, 5355 llmnr,
6081 geneve, 8472 flannel, 41641 tailscale, 51820 wireguard
"""
NUMBERS = """
1 icmp, 2 igmp, 4 ipip, 6 tcp, 8 egp, 17 udp, 33 dccp, 41 ipv6, 46 rsvp, 47 gre, 50 esp, 51 ah, 58 icmpv6,
58 ipv6-icmp, 88 eigrp, 89 ospf, 103 pim, 112 vrrp, 115 l2tp, 132 sctp, 136 udplite
"""
NAMES_OF_STATES = """
NONE SYN_SENT SYN_RECV ESTABLISHED FIN_WAIT CLOSE_WAIT LAST_ACK TIME_WAIT CLOSE SYN_SENT2 LISTEN CLOSED
COOKIE_WAIT COOKIE_ECHOED SHUTDOWN_SENT SHUTDOWN_RECD SHUTDOWN_ACK_SENT HEARTBEAT_SENT HEARTBEAT_ACKED REQUEST
RESPOND PARTOPEN OPEN CLOSEREQ CLOSING TIMEWAIT IGNORE INVALID
"""


def table(text: str) -> dict[int, str]:
    return {int(number): name for number, name in (item.split() for item in text.split(","))}


def test_services_have_the_names_that_people_know_them_by() -> None:
    for protocol, text in (("tcp", TCP), ("udp", UDP)):
        assert {port: name for (of, port), name in SERVICES.items() if of == protocol} == table(text)
        for port, name in table(text).items():
            assert service(protocol, port) == name
            assert port in ports_of(name.upper())
    assert service("sctp", 80) is None
    assert service("tcp", 0) is None
    assert service("tcp", None) is None
    assert ports_of("dns") == {53}
    assert ports_of("") == set()


def test_protocols_have_iana_s_numbers() -> None:
    assert [f"{number} {name}" for name, number in PROTOCOLS.items()] == " ".join(NUMBERS.split()).split(", ")
    assert {PROTOCOLS[name] for name in ("tcp", "udp", "dccp", "sctp", "udplite")} == WITH_PORTS
    assert set(PUSHED_DOWN) == {"tcp", "udp", "udplite", "icmp", "icmpv6", "sctp", "dccp", "gre"}


def test_states_are_the_kernel_s() -> None:
    assert set(NAMES_OF_STATES.split()) == STATES
    assert len(STATES) == 28


def test_names_of_the_settings_are_found_in_any_case() -> None:
    names = {1: "Guests", 2: "guests", 3: "Straße"}
    assert named("GUESTS", names) == [1, 2]
    assert named("STRASSE", names) == [3]
    assert named("guest", names) == []
    assert or_names(names) == ", and no name; there are: Guests guests Straße"
    assert or_names({1: "a", 2: "a"}) == ", and no name; there are: a"
    assert or_names({}) == ""


# --- reverse DNS ------------------------------------------------------------------------------------------------------

ASKED = names.dns_question("192.0.2.7", 0x1234)


def wire(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def reply(
    *records: bytes, flags: int = 0x8180, questions: int = 1, answers: int | None = None, number: int = 0x1234
) -> bytes:
    count = len(records) if answers is None else answers
    return struct.pack("!6H", number, flags, questions, count, 0, 0) + ASKED[12:] + b"".join(records)


def of(data: bytes, kind: int = 12, net: int = 1, length: int | None = None, owner: bytes = b"\xc0\x0c") -> bytes:
    return owner + struct.pack("!HHIH", kind, net, 300, len(data) if length is None else length) + data


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("192.0.2.7", "7.2.0.192.in-addr.arpa"),
        ("fe80::1%eth0", "1." + "0." * 28 + "8.e.f.ip6.arpa"),
        ("2001:db8::5", "5." + "0." * 23 + "8.b.d.0.1.0.0.2.ip6.arpa"),
    ],
)
def test_a_question(address: str, name: str) -> None:
    header = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
    assert names.dns_question(address, 0x1234) == header + wire(name) + b"\x00\x0c\x00\x01"


NAME = of(wire("a.example"))
OTHER = of(wire("b.example"), kind=5)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (reply(NAME), "a.example"),
        (reply(NAME, of(wire("b.example"))), "a.example"),
        (reply(OTHER, NAME), "a.example"),
        (reply(of(wire("x.example"), net=3), NAME), "a.example"),
        (reply(of(wire("-bad.example")), NAME), "a.example"),
        (reply(of(wire("a.example"), owner=wire("7.0-63.example"))), "a.example"),
        (reply(of(b"\x01a\xc0\x12")), "a.192.in-addr.arpa"),  # into the question: behind 7, 2 and 0
        (reply(*[OTHER] * 63, NAME), "a.example"),
        (reply(*[OTHER] * 64, NAME), ""),  # far down it is looked for no longer
        (reply(), ""),
        (reply(NAME, answers=0), ""),
        (reply(OTHER), ""),
        (reply(OTHER, flags=0x8380), None),  # cut: the name may be in what is missing
        (reply(flags=0x8183), ""),
        (reply(flags=0x8182), None),
        (reply(flags=0x8185), None),
        (struct.pack("!6H", 0x1234, 0x8181, 0, 0, 0, 0), None),
        (reply(NAME).replace(b"in-addr", b"IN-Addr"), "a.example"),
    ],
)
def test_what_each_answer_says(data: bytes, name: str | None) -> None:
    assert names.dns_answer(data, ASKED) == name


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (reply(NAME, number=0x1235), "another question"),
        (reply(NAME, flags=0x0180), "another question"),  # somebody's question
        (reply(NAME, questions=2), "another question"),
        (reply(NAME, questions=0), "another question"),
        (reply(NAME).replace(b"in-addr", b"in-addx"), "another question"),
        (reply(OTHER, answers=2), "cut"),
        (reply(NAME)[:-1], "cut"),
        (reply(NAME)[:7], "cut"),
        (b"", "cut"),
        (reply(of(b"\xc0\x00" + bytes(2)))[:-3], "cut"),
        (reply(of(bytes([64]) + b"a" * 64 + b"\0")), "a name is too long"),
        (reply(of(b"\x01a" * 129 + b"\0")), "a name is too long"),
    ],
)
def test_what_is_no_answer(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        names.dns_answer(data, ASKED)


def test_pointers_go_back_only() -> None:
    start = len(reply()) + 12
    for pointer in (start, start + 2):
        with pytest.raises(ValueError, match="forwards"):
            names.dns_answer(reply(of(bytes([0xC0, pointer]) + b"\0" * 4)), ASKED)
    padding = of(b"\0" * 300, kind=16)
    far = len(reply(padding)) + 12
    (data,) = [reply(padding, of(wire("a.example")), of(bytes([0xC0 | far >> 8, far & 255])), answers=3)]
    assert names.dns_answer(data, ASKED) == "a.example"
    only = reply(padding, of(wire("-.x") + wire("deep.example")), of(bytes([0xC0 | (far + 5) >> 8, (far + 5) & 255])))
    assert names.dns_answer(only, ASKED) == "deep.example"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        *(("mail.example.", "mail.example"), ("a_b.example", "a_b.example"), ("_x", "_x"), ("x-", ""), ("-x", "")),
        *(("a..b", ""), ("", ""), (".", ""), ("a.b..", ""), ("1.2.3.4", ""), ("host.4", ""), ("4.host", "4.host")),
        *(("x" * 63 + ".a", "x" * 63 + ".a"), ("x" * 64 + ".a", ""), ("ä.example", ""), ("a b", ""), ("a\n", "")),
        (".".join(["x" * 63, "y" * 63, "z" * 63, "w" * 61]), ".".join(["x" * 63, "y" * 63, "z" * 63, "w" * 61])),
        (".".join(["x" * 63, "y" * 63, "z" * 63, "w" * 62]), ""),
    ],
)
def test_host_names(text: str, name: str) -> None:
    assert names.host_name(text) == name
