"""Who is behind an address: what real DHCP servers, `ip`, `docker`, `wg`, `kubectl` write, and anything else they may be made to."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import devices
from addresses import UNNAMED, Context, Ends, Fan, Lookups, Named, Site
from devices import (
    Directory,
    Entry,
    Sockets,
    address_of,
    label_of,
    mac_of,
    network_of,
    of_files,
    read_containers,
    read_hosts,
    read_leases,
    read_neighbours,
    read_peers,
    read_pods,
    read_sockets,
)
from filters import compile_filter
from flows import FlowTable
from grouping import NEAR, FanCount, Grouper, Grouping, GroupRow, by_keys, group_keys
from support.debian import run
from support.kernel import Lab, Namespace, needs_kernel, stop_process
from support.tables import listing
from support.terminal import PROGRAM
from support.waiting import wait_for

MAC, MAC2 = "02:00:5e:10:00:01", "02:00:5e:10:00:02"
ANNA = Named("anna", MAC)

DNSMASQ = f"""1795781100 {MAC} 10.0.0.5 anna 01:{MAC}
1795781100 {MAC2} 10.0.0.6 * *
duid 00:01:00:01:2f:4f:00:01:02:00:5e:10:00:01
1795781100 6160385 fd00::5 anna 00:01:00:01:2f:4f:00:01:02:00:5e:10:00:01
1795781100 06-{MAC} 10.0.0.7 token *
"""
ISC = f"""# The format of this file is documented in the dhcpd.leases(5) manual page.
authoring-byte-order little-endian;

lease 10.0.0.5 {{
  starts 5 2026/11/27 10:00:00;
  binding state free;
  hardware ethernet {MAC2};
  client-hostname "before";
}}
lease 10.0.0.5 {{
  binding state active;
  next binding state free;
  hardware ethernet {MAC};
  uid "\\001\\002^\\020{{lease 10.0.0.9 {{";
  client-hostname "anna";
}}
lease 10.0.0.6 {{
  binding state active;
  hardware ethernet {MAC2};
}}
lease 10.0.0.6 {{
  binding state released;
  hardware ethernet {MAC2};
}}
ia-na "\\001\\000" {{
  cltt 5 2026/11/27 10:00:00;
  iaaddr fd00::5 {{
    binding state active;
    set ddns-fwd-name = "anna.lan";
  }}
}}
"""
KEA = f"""address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,pool_id
10.0.0.5,{MAC2},,3600,1795781100,1,0,0,before,0,,0
10.0.0.5,{MAC},01:{MAC},3600,1795781100,1,0,0,an&#x2cna.lan.,0,,0
10.0.0.6,{MAC2},,3600,1795781100,1,0,0,gone,0,,0
10.0.0.6,{MAC2},,0,1795781100,1,0,0,gone,2,,0
"""
KEA6 = f"""address,duid,valid_lifetime,expire,subnet_id,pref_lifetime,lease_type,iaid,prefix_len,fqdn_fwd,fqdn_rev,hostname,hwaddr,state
fd00::5,00:01,3600,1795781100,1,3600,0,1,128,0,0,anna.lan,{MAC},0
fd00:5::,00:01,3600,1795781100,1,3600,2,1,48,0,0,anna-net,,0
"""
NETWORKD = json.dumps(
    {
        "BootID": "0f",
        "Address": [10, 0, 0, 1],
        "PrefixLength": 24,
        "Leases": [
            {"ClientId": [1, 2, 0, 94, 16, 0, 1], "Address": [10, 0, 0, 5], "Hostname": "anna"},
            {"ClientId": [255, 1], "Address": [10, 0, 0, 6], "HardwareAddress": [2, 0, 94, 16, 0, 2, *[0] * 10]},
        ],
    }
)
LIBVIRT = json.dumps([{"ip-address": "10.0.0.5", "mac-address": MAC, "hostname": "anna", "expiry-time": 1}])
ODHCPD = f"# br-lan 00010001 1 anna 1795781100 5 128 fd00::5/128\nfd00::5\tanna.lan anna\n10.0.0.6\t{'x' * 80}\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            DNSMASQ,
            {"10.0.0.5": ANNA, "10.0.0.6": Named(mac=MAC2), "fd00::5": Named("anna"), "10.0.0.7": Named("token")},
        ),
        (ISC, {"10.0.0.5": ANNA, "fd00::5": Named("anna.lan")}),
        (KEA, {"10.0.0.5": Named("an,na.lan", MAC)}),
        (KEA6, {"fd00::5": Named("anna.lan", MAC), "fd00:5::/48": Named("anna-net")}),
        (NETWORKD, {"10.0.0.5": ANNA, "10.0.0.6": Named(mac=MAC2)}),
        (LIBVIRT, {"10.0.0.5": ANNA}),
        (ODHCPD, {"fd00::5": Named("anna.lan"), "10.0.0.6": Named("x" * 63)}),
    ],
    ids=["dnsmasq", "isc", "kea4", "kea6", "networkd", "libvirt", "odhcpd"],
)
def test_leases_of_every_server(text: str, found: dict[str, Named]) -> None:
    assert dict(read_leases([("/leases", text)])) == found


def test_a_lease_that_ends_leaves_what_another_file_says() -> None:
    assert dict(read_leases([("a", DNSMASQ), ("b", KEA6)]))["fd00::5"] == Named("anna.lan", MAC)


def test_the_words_of_an_address_a_network_and_a_mac() -> None:
    assert [address_of(text) for text in ("10.0.0.5", "2001:DB8:0::1", "fe80::1%eth0")] == [
        *("10.0.0.5", "2001:db8::1", "fe80::1")
    ]
    odd = ("10.0.0.5.", "10.0.0.05", "10.0.0", "", "::ffff", "127.0.0.1", "::1", "224.0.0.1", "0.0.0.0", "10.0.0.256")
    assert [address_of(text) for text in odd] == [""] * len(odd)
    assert [network_of(text) for text in ("10.8.0.9/24", "10.8.0.2/32", "fd00::2/128", "fd00::/x")] == [
        *("10.8.0.0/24", "10.8.0.2", "fd00::2", "")
    ]
    assert [mac_of(text) for text in ("33:33:00:00:00:01", "2:0:5e:10:0:1", MAC.upper(), "1:2", "zz:0:0:0:0:0")] == [
        *("", MAC, MAC, "", "")
    ]
    assert [label_of(text) for text in ("2001:db8::1", "1.2", "a:b", None, 7, " a\tb\u202e ")] == [
        "",
        "",
        "",
        "",
        "",
        "a b",
    ]


def test_the_first_name_of_a_hosts_file() -> None:
    text = "127.0.0.1 localhost\n10.0.0.1\trouter.lan router # way out\n2001:DB8:0::7 six\n10.0.0.1 later\n10.0.0.3\nff02::1 all\n"
    assert dict(read_hosts(text)) == {
        **{"127.0.0.1": Named("localhost"), "10.0.0.1": Named("router.lan"), "2001:db8::7": Named("six")}
    }
    assert not directory(books={"hosts": read_hosts("127.0.0.1 localhost\n::1 ip6-localhost\n")}).named
    assert directory(books={"hosts": read_hosts(text)}).named


def test_what_grep_prints_is_taken_apart_by_file() -> None:
    assert of_files("/a:1 2\n/b:x:y\n/a:\nBinary file /c matches\n/a:3\n") == [("/a", "1 2\n\n3"), ("/b", "x:y")]


PEERS = """wg0\tAbCdEfGhIjKlMnOpQrStUvWxYz0123456789+/abcde=\t10.8.0.2/32 fd00:8::/64 0.0.0.0/0
wg0\tBbCdEfGhIjKlMnOpQrStUvWxYz0123456789+/abcde=\t10.8.0.0/24
wg1\tCbCdEfGhIjKlMnOpQrStUvWxYz0123456789+/abcde=\t(none)
"""


def test_vpn_peers_the_longest_prefix_first() -> None:
    names = {
        f"{first}bCdEfGhIjKlMnOpQrStUvWxYz0123456789+/abcde=": name for first, name in (("A", "ben"), ("B", "site"))
    }
    entries = read_peers(PEERS, names)
    assert entries == [("10.8.0.2", Named("ben")), ("fd00:8::/64", Named("ben")), ("10.8.0.0/24", Named("site"))]
    book = Directory(Site(hosts={"10.0.0.0/8": "lan"}))
    assert book.take("wireguard wg", entries)
    assert [book.label(text) for text in ("10.8.0.2", "10.8.0.3", "10.9.0.3", "fd00:8::9", "fd00:9::9")] == [
        *("ben", "site", "lan", "ben", None)
    ]


INSPECTED = [
    {
        "Name": "/web-db-1",
        "Config": {"Labels": {"com.docker.compose.project": "web", "com.docker.compose.service": "db"}},
        "NetworkSettings": {
            "IPAddress": "",
            "Networks": {
                "web_default": {"IPAddress": "172.18.0.2", "GlobalIPv6Address": "fd00:18::2"},
                "back": {"IPAddress": "172.19.0.2"},
            },
        },
    },
    {"Name": "plain", "Config": {"Labels": None}, "NetworkSettings": {"IPAddress": "172.17.0.2", "Networks": None}},
    {"Name": "hosted", "NetworkSettings": {"Networks": {"host": {"IPAddress": ""}}}},
]


def test_containers_with_all_their_addresses() -> None:
    web, plain = Named(container="web-db-1", service="web/db"), Named(container="plain")
    assert dict(read_containers(json.dumps(INSPECTED, indent=4))) == {
        **dict.fromkeys(("172.18.0.2", "fd00:18::2", "172.19.0.2"), web),
        "172.17.0.2": plain,
    }
    assert devices.ids_of("0123456789ab\nnot one\n" + "f" * 64 + "\n") == ["0123456789ab", "f" * 64]


def test_pods_of_kubectl_and_crictl() -> None:
    pod = {
        "metadata": {"name": "api-0", "namespace": "shop"},
        "status": {"podIP": "10.244.0.7", "podIPs": [{"ip": "10.244.0.7"}, {"ip": "fd00:244::7"}]},
    }
    hosted = {"metadata": {"name": "proxy"}, "spec": {"hostNetwork": True}, "status": {"podIP": "192.168.1.2"}}
    api = Named(container="api-0", service="shop")
    assert dict(read_pods(json.dumps({"items": [pod, hosted]}))) == dict.fromkeys(("10.244.0.7", "fd00:244::7"), api)
    status = {"metadata": pod["metadata"], "network": {"ip": "10.244.0.7", "additionalIps": [{"ip": "fd00:244::7"}]}}
    sandbox = json.dumps({"status": status, "info": {}})
    assert dict(read_pods(f"{sandbox}\n{sandbox}\n")) == dict.fromkeys(("10.244.0.7", "fd00:244::7"), api)


# --- processes --------------------------------------------------------------------------------------------------------

SS = """tcp   LISTEN 0      128             0.0.0.0:22         0.0.0.0:*     users:(("sshd",pid=7,fd=3))
tcp   ESTAB  0      0             10.0.0.1:22        10.0.0.5:50000 users:(("sshd",pid=9,fd=4),("sshd",pid=8,fd=4))
tcp   ESTAB  0      0    [::ffff:10.0.0.1]:80 [::ffff:10.0.0.5]:50001 users:(("ngi nx\x1b",pid=10,fd=4))
tcp   ESTAB  0      0             10.0.0.1:40000      192.0.2.9:443   users:(("curl",pid=11,fd=5))
udp   UNCONN 0      0        10.0.0.1%lan:53         0.0.0.0:*     users:(("dnsmasq",pid=12,fd=5))
udp   UNCONN 0      0                    *:123              *:*     users:(("chronyd",pid=13,fd=5))
tcp   ESTAB  0      0              [fd00::1]:22        [fd00::5]:50000
nonsense
"""


@pytest.mark.parametrize(
    ("protocol", "ends", "way", "pid"),
    [
        ("tcp", ("10.0.0.5", "10.0.0.1", 50000, 22, "10.0.0.1", "10.0.0.5", 22, 50000), "in", 9),
        ("tcp", ("10.0.0.5", "10.0.0.1", 50009, 22, "10.0.0.1", "10.0.0.5", 22, 50009), "in", 7),  # the listener's
        (
            "tcp",
            ("10.0.0.5", "203.0.113.1", 50001, 8080, "10.0.0.1", "10.0.0.5", 80, 50001),
            "in",
            10,
        ),  # DNAT to this host
        ("tcp", ("10.0.0.1", "192.0.2.9", 40000, 443, "192.0.2.9", "203.0.113.1", 443, 1), "out", 11),  # masqueraded
        ("tcp", ("10.0.0.1", "192.0.2.9", 40000, 443, "192.0.2.9", "10.0.0.1", 443, 40000), "fwd", None),
        ("udp", ("10.0.0.5", "10.0.0.1", 9, 53, "10.0.0.1", "10.0.0.5", 53, 9), "in", 12),
        ("udp", ("10.0.0.1", "192.0.2.9", 123, 123, "192.0.2.9", "10.0.0.1", 123, 123), "out", 13),
        ("udp", ("10.0.0.1", "192.0.2.9", 40000, 443, "192.0.2.9", "10.0.0.1", 443, 40000), "out", None),
        ("tcp", ("fd00::5", "fd00::1", 50000, 22, "fd00::1", "fd00::5", 22, 50000), "in", 7),
    ],
)
def test_whose_socket_a_flow_is(protocol: str, ends: Any, way: str, pid: int | None) -> None:
    sockets = Sockets()
    assert sockets.take(read_sockets(SS))
    assert not sockets.take(read_sockets(SS))
    found = sockets.process(protocol, Ends(*ends), way)
    assert (found.pid if found else None) == pid
    assert found is None or found.name.isprintable()


# --- what they may be made to write -----------------------------------------------------------------------------------

READERS: dict[str, Callable[[str], list[Entry]]] = {
    **{name: lambda text: read_leases([("f", text)]) for name in ("dnsmasq", "isc", "kea", "networkd", "hosts")},
    "neighbours": read_neighbours,
    "containers": read_containers,
    "pods": read_pods,
    "wireguard": lambda text: read_peers(text, {"k": "x"}),
}
WORDS = st.sampled_from(
    [
        DNSMASQ[:70],
        ISC[:400],
        KEA[:250],
        NETWORKD,
        json.dumps(INSPECTED),
        PEERS[:80],
        "\x1b[31m",
        "\u202e",
        "\x00",
        "{",
        "[",
        '"',
        "\n",
        " ",
        ",",
        ";",
        "}",
        "lease ",
        "10.0.0.5",
        "fd00::5/64",
        MAC,
        "address,",
        '{"Leases":[1,{}]}',
        "&#x1b",
        "�",
        "[[" * 900,
    ]
)


@given(st.lists(WORDS, max_size=12).map("".join))
def test_no_text_breaks_a_reader_and_all_that_comes_out_is_safe(text: str) -> None:
    for read in READERS.values():
        book = Directory()
        book.take("leases", read(text))
        for key, who in read(text):
            assert re.fullmatch(r"[0-9a-f:./]+", key)
            assert all(part.isprintable() and len(part) <= 200 for part in (*who, key))
            assert mac_of(who.mac) == who.mac
        book.who(text)
        book.labels()
    assert all(process.name.isprintable() for process in read_sockets(text).values())


@pytest.mark.parametrize(
    "text", ["lease 10.0.0.1 {\n", "lease 10.0.0.1 { ", 'a "', "[", '{"', "address,\n1,", "1 2 3 4\n", "{" * 9]
)
def test_a_large_file_of_nonsense_is_read_in_no_time(text: str) -> None:
    many = text * (1_000_000 // len(text))
    began = time.process_time()
    assert len(read_leases([("f", many)])) <= 1
    assert time.process_time() - began < 5  # a second where it is slow; what grows with the square takes minutes


# --- all of them together ---------------------------------------------------------------------------------------------


def directory(
    hosts: dict[str, str] | None = None, books: dict[str, list[Entry]] | None = None, **more: list[Entry]
) -> Directory:
    made = Directory(Site(hosts=hosts or {}))
    for book, entries in {**(books or {}), **more}.items():
        made.take(book, entries)
    return made


NEIGHBOURS: list[Entry] = [("10.0.0.5", Named(mac=MAC)), ("fd00::1234", Named(mac=MAC)), ("fe80::5", Named(mac=MAC))]


def test_a_device_is_known_by_any_of_its_addresses() -> None:
    book = directory(neighbours=NEIGHBOURS, leases=[("10.0.0.5", ANNA)])
    assert {book.who(address) for address in ("10.0.0.5", "fd00::1234", "fe80::5")} == {ANNA}
    assert {book.device(address) for address in ("10.0.0.5", "fd00::1234", "fe80::5")} == {"10.0.0.5"}
    assert (book.who("10.0.0.9"), book.device("10.0.0.9")) == (UNNAMED, "10.0.0.9")


def test_two_ipv4_addresses_of_a_mac_may_be_two_devices() -> None:
    book = directory(neighbours=[*NEIGHBOURS, ("10.0.0.7", Named(mac=MAC))])
    assert book.device("fd00::1234") == "fd00::1234"


def test_without_ipv4_a_link_local_address_does_not_stand_for_a_device() -> None:
    assert directory(neighbours=NEIGHBOURS[1:]).device("fe80::5") == "fd00::1234"


def test_the_settings_come_first_then_the_hosts_file_then_leases() -> None:
    leases, listed = [("10.0.0.5", ANNA), ("10.0.0.6", Named("tablet", MAC2))], [("10.0.0.5", Named("anna.example"))]
    assert directory(books={"leases": leases, "hosts": listed}).label("10.0.0.5") == "anna.example"
    for key in ("10.0.0.5", MAC):
        book = directory({key: "boss"}, leases=leases)
        assert book.who("10.0.0.5") == Named("boss", MAC)
    assert directory({"10.0.0.0/24": "office"}, leases=leases).label("10.0.0.6") == "tablet"
    assert directory({"10.0.0.0/24": "office"}, leases=leases).label("10.0.0.7") == "office"


def test_a_container_may_have_a_name_and_a_mac_too() -> None:
    book = directory(
        {"172.18.0.2": "database"},
        containers=[("172.18.0.2", Named(container="web-db-1", service="web/db"))],
        neighbours=[("172.18.0.2", Named(mac=MAC))],
    )
    assert book.who("172.18.0.2") == Named("database", MAC, "web-db-1", "web/db")


def test_what_is_remembered_is_forgotten_when_a_book_says_something_else() -> None:
    book = directory(leases=[("10.0.0.5", ANNA)])
    who = book.who  # bound once, as the loop's context has it
    assert who("10.0.0.5") == ANNA
    version = book.version
    assert not book.take("leases", [("10.0.0.5", ANNA)])
    assert book.version == version
    assert book.take("leases", [])
    assert (who("10.0.0.5"), book.named) == (UNNAMED, False)


def test_a_device_is_one_row_of_the_hosts() -> None:
    book = directory(neighbours=NEIGHBOURS)
    there = Context(Lookups(who=book.who, device=book.device))
    text = "ipv{0} {1} tcp 6 9 ESTABLISHED src={2} dst={3} sport=1 dport=443 src={3} dst={2} sport=443 dport=1 [ASSURED] mark=0 use=1"
    ends = [(4, 2, "10.0.0.5", "8.8.8.8"), (6, 10, "fd00::1234", "2001:4860:4860::8888"), (4, 2, "10.0.0.6", "8.8.8.8")]
    table = FlowTable()
    listing(table, [text.format(*its) + "\n" for its in ends])
    flows = list(table.live.values())
    sums = Grouper(NEAR, there)
    sums.add(flows)
    assert {key: row.flows for key, row in sums.sums.items()} == {"10.0.0.5": 2, "10.0.0.6": 1}
    wanted = compile_filter(NEAR.term("10.0.0.5"), there)
    exactly = compile_filter("near:fd00::1234/128", there)
    assert wanted
    assert exactly
    assert [wanted(flow) for flow in flows] == [True, True, False]
    assert [exactly(flow) for flow in flows] == [False, True, False]


def test_a_device_with_two_addresses_has_one_fan_and_one_set_of_parts() -> None:
    there = Context(Lookups(device=directory(neighbours=NEIGHBOURS).device))
    text = "ipv{0} {1} tcp 6 9 ESTABLISHED src={2} dst={3} sport=1 dport={4} src={3} dst={2} sport={4} dport=1 mark=0 use=1"
    ends = [
        *((4, 2, "10.0.0.5", "8.8.8.8", 443), (6, 10, "fd00::1234", "2001:4860:4860::8888", 80)),
        (4, 2, "10.0.0.6", "8.8.8.8", 443),
    ]
    table = FlowTable()
    listing(table, [text.format(*its) + "\n" for its in ends])
    flows = list(table.live.values())

    def rows(grouping: Grouping) -> dict[str, GroupRow]:
        grouper = Grouper(grouping, there)
        grouper.add(flows)
        grouper.finish()
        return grouper.sums

    fans = {"10.0.0.5": Fan(2, 2), "10.0.0.6": Fan(1, 1)}
    assert {key: row.fan for key, row in rows(NEAR).items()} == fans
    counted = FanCount()
    counted.add_flows(flows, there)
    assert counted.counted() == fans
    there.know_fans(counted.counted())
    two = compile_filter("fanout:2 ports:2", there)
    assert two
    assert [two(flow) for flow in flows] == [True, True, False]
    assert {key.split("\0")[0] for key in rows(NEAR.inside)} == {"10.0.0.5", "10.0.0.6"}  # what stands below a host
    by_service, networks = by_keys(group_keys("near,dport")), by_keys(group_keys("near/64"))
    assert {key: row.flows for key, row in rows(by_service).items()} == {
        "10.0.0.5\x00443": 1,
        "10.0.0.5\x0080": 1,
        "10.0.0.6\x00443": 1,
    }
    assert {key: row.flows for key, row in rows(networks).items()} == {
        "10.0.0.5/32": 1,
        "10.0.0.6/32": 1,
        "fd00::/64": 1,
    }


# --- real programs ------------------------------------------------------------------------------------------------------------


def needs_programs(*programs: str) -> pytest.MarkDecorator:
    """Skips where one of them is not installed; in CI it then fails."""
    absent = [program for program in programs if shutil.which(program) is None]
    why = f"not installed: {', '.join(absent)}"
    return pytest.mark.skipif(bool(absent) and os.environ.get("CI") != "true", reason=why)


@needs_kernel
@needs_programs("wg", "wireguard-go")
@pytest.mark.toml
@pytest.mark.skipif(sys.version_info < (3, 11), reason="settings need Python 3.11")
def test_a_user_of_wireguard_is_named_by_the_settings(tmp_path: Path) -> None:
    """The kernel's WireGuard, or where it has none the one in Go: `wg` prints the same of both."""
    with Namespace("wg") as namespace, ExitStack() as ends:
        link = f"cm{namespace.name[-8:]}".replace("-", "")
        if namespace.run(["ip", "link", "add", link, "type", "wireguard"], check=False).returncode:
            ends.callback(stop_process, namespace.popen(["wireguard-go", "-f", link]))
        wait_for(lambda: not namespace.run(["wg", "show", link], check=False).returncode, "the VPN")
        keys = [run("wg", "genkey").strip() for _ in range(2)]
        for key, allowed in zip(keys, ("10.8.0.2/32,fd00:8::2/128", "10.8.0.0/24")):
            namespace.run(["wg", "set", link, "peer", key, "allowed-ips", allowed])
        settings = tmp_path / "conntrack-monitor" / "config.toml"
        settings.parent.mkdir()
        settings.write_text("[hosts]\n" + "".join(f'"{key}" = "{name}"\n' for key, name in zip(keys, ("ben", "site"))))
        for source in ("10.8.0.2", "10.8.0.9", "10.9.0.9"):
            ends_of = ["-s", source, "-d", "192.0.2.9", "-p", "tcp", "--sport", "9", "--dport", "80"]
            namespace.run(["conntrack", "-I", *ends_of, "--state", "ESTABLISHED", "-t", "600"])
        words = [*namespace.prefix, *PROGRAM, "--no-download", "--once", "--json"]
        printed = run(*words, env={"XDG_CONFIG_HOME": str(tmp_path)})
        found = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
        named = {item["original"]["src"]: item.get("near", {}).get("name") for item in found}
        assert named == {"10.8.0.2": "ben", "10.8.0.9": "site", "10.9.0.9": None}


# --- real servers -----------------------------------------------------------------------------------------------------

KEA_SETTINGS = """{{"Dhcp4": {{"interfaces-config": {{"interfaces": ["lan"], "dhcp-socket-type": "raw"}},
"lease-database": {{"type": "memfile", "name": "{0}"}}, "subnet4": [{{"subnet": "10.99.1.0/24", "pools": [{{"pool": "10.99.1.100-10.99.1.110"}}]}}]}}}}
"""
ISC_SETTINGS = "authoritative;\nsubnet 10.99.1.0 netmask 255.255.255.0 { range 10.99.1.100 10.99.1.110; }\n"


def server(name: str, folder: Path) -> tuple[list[str], Path]:
    """The words that serve leases on the router's lan, and the file that they are written to."""
    settings = folder / "settings"
    if name == "dnsmasq":
        leases = folder / "dnsmasq.leases"
        words = ["dnsmasq", "-d", "-C", "/dev/null", "--port=0", "--interface=lan", "--bind-interfaces", "--no-ping"]
        words += ["--dhcp-range=10.99.1.100,10.99.1.110", "--user=root", "--dhcp-authoritative"]
        return [*words, f"--dhcp-leasefile={leases}"], leases
    if name == "dhcpd":
        leases = folder / "dhcpd.leases"
        leases.touch()
        settings.write_text(ISC_SETTINGS)
        return [
            "dhcpd",
            "-f",
            "-4",
            "-cf",
            str(settings),
            "-lf",
            str(leases),
            "-pf",
            str(folder / "pid"),
            "lan",
        ], leases
    leases = folder / "kea-leases4.csv"
    settings.write_text(KEA_SETTINGS.format(leases))
    places = [f"KEA_{what}_DIR={folder}" for what in ("LOCKFILE", "PIDFILE")]
    return ["env", *places, "kea-dhcp4", "-c", str(settings)], leases


def leased(lab: Lab, leases: Path) -> tuple[str, Named]:
    """Let the client ask for an address, and use it."""

    def ask() -> dict[str, Named]:
        words = ["-i", "eth0", "-x", "hostname:laptop-anna", "-n", "-q", "-f", "-t", "1", "-T", "1", "-s", "/bin/true"]
        lab.client.run(["busybox", "udhcpc", *words], check=False)
        text = leases.read_text() if leases.exists() else ""
        return {address: who for address, who in read_leases([(str(leases), text)]) if who.name}

    ((address, who), *_) = wait_for(ask, "a lease").items()
    lab.client.ip(f"address del {Lab.CLIENT}/24 dev eth0", f"address add {address}/24 dev eth0")
    lab.client.ip(f"route replace default via {Lab.ROUTER}")
    return address, who


def with_folder(namespace: Namespace, folder: Path) -> list[str]:
    """The words that run a command in a namespace where dnsmasq's leases are those in the folder."""
    return [*namespace.prefix, "unshare", "-m", "sh", "-c", f'mount --bind {folder} /var/lib/misc && exec "$0" "$@"']


@needs_kernel
@needs_programs("dhcpd", "kea-dhcp4", "busybox")
@pytest.mark.parametrize("name", ["dhcpd", "kea"])
def test_what_a_real_server_writes(name: str, tmp_path: Path) -> None:
    words, leases = server(name, tmp_path)
    with Lab() as lab:
        serving = lab.router.popen(words)
        try:
            address, who = leased(lab, leases)
        finally:
            stop_process(serving)
        mac = re.search(r"link/ether (\S+)", lab.client.run(["ip", "link", "show", "eth0"]).stdout)
        assert mac
        assert (address[:10], who) == ("10.99.1.10", Named("laptop-anna", mac.group(1)))


@needs_kernel
@needs_programs("dnsmasq", "busybox")
def test_a_laptop_with_a_lease_of_dnsmasq_is_named_here_and_through_a_prefix(tmp_path: Path) -> None:
    words, leases = server("dnsmasq", tmp_path)
    with Lab() as lab:
        serving = lab.router.popen(words)
        try:
            address, who = leased(lab, leases)
            with (
                lab.echo_server(80),
                lab.echo_server(80, lab.SERVER6),
                lab.tcp_connect(80),
                lab.tcp_connect(80, lab.SERVER6),
            ):
                inside = with_folder(lab.router, tmp_path)
                check_names([*inside, *PROGRAM], address, who)
                check_names([*PROGRAM, "--via", shlex.join(inside)], address, who, through=True)
        finally:
            stop_process(serving)


@needs_kernel
def test_the_process_of_a_flow_that_ends_on_this_host() -> None:
    """A pipe asks for processes where its filter needs them."""
    with Lab() as lab, lab.echo_server(80, lab.ROUTER, lab.router) as agent, lab.tcp_connect(80, lab.ROUTER):
        pid = agent.process.pid
        for words, number in ((f"process:{pid}", 1), ("process:nobody", 0)):
            program = [*lab.router.prefix, *PROGRAM, "--no-config", "--no-download", "--once", "--json"]
            printed = run(*program, "-f", f"proto:tcp {words}")
            assert len([line for line in printed.splitlines() if line.startswith("{")]) == number


def check_names(program: list[str], address: str, who: Named, through: bool = False) -> None:
    def lines(*words: str) -> list[dict[str, object]]:
        printed = run(*program, "--no-config", "--no-download", "--once", "--json", *words)
        return [json.loads(line) for line in printed.splitlines() if line.startswith("{")]

    named = [{"ip": ip, "name": "laptop-anna", "mac": who.mac} for ip in (address, Lab.CLIENT6)]
    assert sorted((line["near"] for line in lines("-f", "name:ANNA proto:tcp")), key=str) == sorted(named, key=str)
    if through:
        return
    (row,) = lines("--view", "hosts", "-f", "proto:tcp")
    assert (row["host"], row["name"], row["mac"], row["flows"]) == (address, "laptop-anna", who.mac, 2)
    assert not [line for line in lines("--names", "none") if "near" in line]
