"""Who is behind an address, from what a machine knows itself: leases, neighbours, containers and VPN peers, parsed."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from addresses import MAX_REMEMBERED, PLAIN_SITE, UNNAMED, Ends, Named, Process, Site, scope
from text import clean

# A key and who that is. The key is an address as conntrack prints it, a network (10.8.0.0/24, 2001:db8::/56), or a MAC
# address in small letters.
Entry = tuple[str, Named]
Files = Sequence[tuple[str, str]]  # paths and what is in them

LONGEST_LABEL = 63  # characters of a name: a label of DNS; longer ones are cut
MOST_ENTRIES = 65_536  # of one book
UNTOLD = frozenset({"", "multicast", "broadcast", "unspecified", "loopback", "reserved"})  # scopes without devices

_DOTTED = re.compile(r"(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?!$)|$)){4}", re.ASCII)
_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")


# --- words ------------------------------------------------------------------------------------------------------------


def label_of(text: object) -> str:
    """A device's name that is safe to show; "" for what is none, or what a reader would take for an address.

    >>> label_of("tv.lan."), label_of("10.0.0.1"), label_of("*"), label_of("a\\x1b[31mb\\u202ec")
    ('tv.lan', '', '', 'a[31mbc')
    """
    name = clean(text, LONGEST_LABEL).rstrip(".") if isinstance(text, str) else ""
    return "" if name in ("*", "-", "?") or re.fullmatch(r"[\d.]*|[\dA-Fa-f:]*:[\dA-Fa-f:]*", name) else name


def address_of(text: str, untold: frozenset[str] = UNTOLD) -> str:
    """An address as conntrack prints it; "" for what is none, and for one that no device has: its scope is untold."""
    if _DOTTED.fullmatch(text):
        return "" if scope(text) in untold else text
    if ":" not in text:
        return ""
    with suppress(ValueError):
        found = str(ipaddress.IPv6Address(text.partition("%")[0]))
        return "" if scope(found) in untold else found
    return ""


def network_of(text: str) -> str:
    """A network in its usual form, an address where it has only one; "" for what is none."""
    with suppress(ValueError):
        net = ipaddress.ip_network(text, strict=False)
        return address_of(str(net.network_address)) if net.prefixlen == net.max_prefixlen else str(net)
    return ""


def mac_of(text: str) -> str:
    """A MAC address of one device; "" for what is none: of a group (broadcast, multicast), or zero.

    >>> mac_of("02-00-5E-10-00-01"), mac_of("ff:ff:ff:ff:ff:ff"), mac_of("00:00:00:00:00:00"), mac_of("2:0:5e:10:0:1")
    ('02:00:5e:10:00:01', '', '', '02:00:5e:10:00:01')
    """
    parts = text.lower().replace("-", ":").split(":")
    mac = ":".join(part.zfill(2) for part in parts)
    if not _MAC.fullmatch(mac) or int(mac[:2], 16) & 1 or not mac.strip("0:"):
        return ""
    return mac


def _entry(address: str, name: object, mac: str = "") -> Iterator[Entry]:
    """A lease, where its address is one."""
    if found := address_of(address):
        yield found, Named(label_of(name), mac_of(mac))


# --- leases -----------------------------------------------------------------------------------------------------------

# Where DHCP servers keep their leases, and hosts files that they write. A name with a * is looked for on this machine
# only: through --via no shell spells it out.
LEASE_FILES = (
    *("/var/lib/misc/dnsmasq.leases", "/tmp/dhcp.leases", "/var/lib/dnsmasq/dnsmasq.leases"),
    *("/etc/pihole/dhcp.leases", "/var/lib/misc/dnsmasq.lxcbr0.leases", "/run/dnsmasq/dnsmasq.leases"),
    *("/var/lib/libvirt/dnsmasq/*.status", "/var/lib/NetworkManager/dnsmasq-*.leases"),
    *("/var/lib/lxd/networks/*/dnsmasq.leases", "/var/lib/incus/networks/*/dnsmasq.leases"),
    *("/var/lib/dhcp/dhcpd.leases", "/var/lib/dhcp/dhcpd6.leases", "/var/lib/dhcpd/dhcpd.leases"),
    *("/var/lib/kea/kea-leases4.csv", "/var/lib/kea/kea-leases6.csv", "/var/db/dhcpd.leases"),
)
LEASE_FOLDERS = ("/tmp/hosts", "/run/systemd/netif/dhcp-server-lease", "/var/lib/systemd/network/dhcp-server-lease")
HOSTS_FILE = "/etc/hosts"


def read_leases(files: Files) -> list[Entry]:
    """What is in the files of DHCP servers, whatever server wrote them. Of two leases the later one holds."""
    found: dict[str, Named] = {}
    for _path, text in files:
        for address, who in _leases_in(text):
            if who == UNNAMED:
                found.pop(address, None)  # it was given back
            elif len(found) < MOST_ENTRIES or address in found:
                found[address] = who
    return list(found.items())


def _leases_in(text: str) -> Iterator[Entry]:
    head = text.lstrip()[:4096]
    if head[:1] in ("{", "["):
        return _from_json(text)
    if head.startswith("address,"):
        return _from_kea(text)
    if re.search(r"(?m)^(?:lease |ia-|server-duid |authoring-byte-order )", head):
        return _from_isc(text)
    if re.match(r"(?:\d+ \S+ \S+ \S+|duid )", head):
        return _from_dnsmasq(text)
    return iter(read_hosts(text))


def _from_dnsmasq(text: str) -> Iterator[Entry]:
    """dnsmasq and OpenWrt: when it ends, MAC or IAID, address, name or *, client id."""
    for line in text.splitlines():
        words = line.split(" ")
        if len(words) >= 4 and words[0].isdigit():
            kind = words[1].rpartition("-")  # 06-00:11:22:33:44:55: not of Ethernet
            yield from _entry(words[2], words[3], kind[2] if "-" not in words[1] else "")


_ISC_WORDS = ("binding state ", "client-hostname ", "hardware ethernet ", "set ddns-fwd-name = ")


def _from_isc(text: str) -> Iterator[Entry]:
    """ISC dhcpd: blocks of lines, of which the last one for an address holds."""
    address, said = "", dict[str, str]()
    for line in map(str.strip, text.splitlines()):
        if line.endswith("{") and line.startswith(("lease ", "iaaddr ")):
            address, said = address_of(line.split(" ")[1]), {}
        elif line == "}" and address:
            if said.get("binding state ", "active") == "active":
                name = said.get("client-hostname ") or said.get("set ddns-fwd-name = ")
                yield address, Named(label_of(name), mac_of(said.get("hardware ethernet ", "")))
            else:
                yield address, UNNAMED
            address = ""
        elif address and line.endswith(";"):
            said |= {word: line[len(word) : -1].strip('"') for word in _ISC_WORDS if line.startswith(word)}


def _from_kea(text: str) -> Iterator[Entry]:
    """Kea's CSV; the first line names the columns. State 0 is a lease; a lifetime of 0 ends it."""
    lines = text.splitlines()
    columns = lines[0].split(",")
    for line in lines[1:]:
        said = dict(zip(columns, line.split(",")))
        address, length = said.get("address", ""), said.get("prefix_len", "")
        # Of IPv6: 2 is the type of a delegated prefix.
        key = network_of(f"{address}/{length}") if said.get("lease_type") == "2" else address_of(address)
        if not key or key == "address":
            continue
        ended = said.get("state", "0") != "0" or said.get("valid_lifetime") == "0"
        name = re.sub(r"&#x([0-9a-fA-F]{2})", lambda code: chr(int(code[1], 16)), said.get("hostname", ""))
        yield key, UNNAMED if ended else Named(label_of(name), mac_of(said.get("hwaddr", "")))


def _from_json(text: str) -> Iterator[Entry]:
    """systemd-networkd's server ({"Leases": [...]}), and libvirt's list of leases."""
    with suppress(ValueError, RecursionError):
        found = json.loads(text)
        leases = found.get("Leases") if isinstance(found, dict) else found
        for lease in leases if isinstance(leases, list) else ():
            if not isinstance(lease, dict):
                continue
            if "ip-address" in lease:
                mac = str(lease.get("mac-address", ""))
                yield from _entry(str(lease["ip-address"]), lease.get("hostname"), mac)
                continue
            mac = _octets(lease.get("HardwareAddress"), ":", 6) or _octets(lease.get("ClientId"), ":", 7)
            name = lease.get("Hostname")
            yield from _entry(_octets(lease.get("Address"), ".", 4), name, mac)


def _octets(found: object, separator: str, number: int) -> str:
    """Bytes that JSON has as numbers: an address; a MAC address, before which a client id has its type, 1."""
    if not isinstance(found, list) or len(found) < number or not all(type(n) is int and 0 <= n < 256 for n in found):
        return ""
    if separator == ".":
        return ".".join(map(str, found)) if len(found) == number else ""
    if number == 7:
        found = found[1:] if found[0] == 1 and len(found) == 7 else []
    return ":".join(f"{n:02x}" for n in found[:6])


# --- hosts files and neighbours ---------------------------------------------------------------------------------------


def read_hosts(text: str) -> list[Entry]:
    """hosts(5): an address and its names, of which the first one counts; the first line of an address, too."""
    found: dict[str, Named] = {}
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if len(words) < 2 or len(found) >= MOST_ENTRIES:
            continue
        address, name = address_of(words[0], UNTOLD - {"loopback"}), label_of(words[1])
        if address and name:
            found.setdefault(address, Named(name))
    return list(found.items())


_NEIGHBOUR = re.compile(r"^(\S+) dev \S+ (?:.*)lladdr (\S+)(.*)$", re.M)


def read_neighbours(text: str) -> list[Entry]:
    """What `ip neigh` printed: MAC addresses.

    >>> read_neighbours("10.0.0.5 dev lan lladdr 02:00:5e:10:00:01 STALE \\n10.0.0.6 dev lan FAILED\\n")
    [('10.0.0.5', Named(name='', mac='02:00:5e:10:00:01', container='', service=''))]
    """
    return entries_of_neighbours((address, mac) for address, mac, state in _NEIGHBOUR.findall(text))


def entries_of_neighbours(found: Iterable[tuple[str, str]]) -> list[Entry]:
    """Neighbours' addresses, each with its MAC address, as `ip neigh` prints them."""
    known = ((address_of(address), mac_of(mac)) for address, mac in found)
    return [(address, Named(mac=mac)) for address, mac in known if address and mac][:MOST_ENTRIES]


# --- containers, pods -------------------------------------------------------------------------------------------------


def _documents(text: str) -> Iterator[Any]:
    """JSON documents, one behind the other; what is none ends them."""
    decoder, at = json.JSONDecoder(), 0
    with suppress(ValueError, RecursionError):
        while at < len(text):
            document, at = decoder.raw_decode(text, at)
            yield from document if isinstance(document, list) else (document,)
            while at < len(text) and text[at] in " \t\r\n":
                at += 1


def within_json(found: object, *path: str) -> Any:
    """What is at the end of a path of keys; None where anything on the way is missing or something else."""
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def ids_of(text: str) -> list[str]:
    """The ids that `docker ps -q` and its kin printed."""
    return re.findall(r"^[0-9a-f]{12,64}$", text, re.M)[:MOST_CONTAINERS]


MOST_CONTAINERS = 300  # asked about at once: 3 MB, which take 25 ms to parse


def read_containers(text: str) -> list[Entry]:
    """What `docker inspect` or `podman inspect` printed: each address of each container."""
    entries = []
    for item in _documents(text):
        labels = within_json(item, "Config", "Labels")
        project, service = (
            label_of(within_json(labels, f"com.docker.compose.{key}")) for key in ("project", "service")
        )
        name = within_json(item, "Name")
        who = Named(
            container=label_of(name.lstrip("/") if isinstance(name, str) else None),
            service="/".join(filter(None, (project, service))) if service else "",
        )
        networks = within_json(item, "NetworkSettings", "Networks")
        places = [within_json(item, "NetworkSettings"), *(networks.values() if isinstance(networks, dict) else ())]
        texts = [within_json(place, key) for place in places for key in ("IPAddress", "GlobalIPv6Address")]
        found = dict.fromkeys(address_of(text) for text in texts if isinstance(text, str))
        entries += [(address, who) for address in found if address and who.container]
    return entries[:MOST_ENTRIES]


def read_pods(text: str) -> list[Entry]:
    """What `kubectl get pods -A -o json` printed, or `crictl inspectp`.

    A pod on the host's network has no address of its own.
    """
    entries: list[Entry] = []
    for item in _documents(text):
        items = within_json(item, "items")
        for pod in items if isinstance(items, list) else (item,):
            entries += _addresses_of_pod(pod)
    return entries[:MOST_ENTRIES]


def _addresses_of_pod(pod: object) -> Iterator[Entry]:
    if within_json(pod, "spec", "hostNetwork") is True:
        return
    about = within_json(pod, "metadata") or within_json(pod, "status", "metadata")
    name, space = (label_of(within_json(about, key)) for key in ("name", "namespace"))
    status = within_json(pod, "status")
    places = [within_json(status, "podIPs"), within_json(status, "network", "additionalIps")]
    several = [within_json(item, "ip") for place in places if isinstance(place, list) for item in place]
    for text in dict.fromkeys((within_json(status, "podIP"), within_json(status, "network", "ip"), *several)):
        if isinstance(text, str) and name and (address := address_of(text)):
            yield address, Named(container=name, service=space)


# --- VPN peers --------------------------------------------------------------------------------------------------------

PUBLIC_KEY = re.compile(r"[A-Za-z0-9+/]{43}=")


def read_peers(text: str, names: Mapping[str, str]) -> list[Entry]:
    """What `wg show all allowed-ips` printed; ``names``: of public keys. A peer without a name has no entry.

    The default route is no user's address: 0.0.0.0/0 is the way out.
    """
    entries = []
    for line in text.splitlines():
        _device, key, allowed, *_ = [*line.split("\t"), "", "", ""]
        if name := label_of(names.get(key.strip())):
            for word in allowed.split():
                net = network_of(word)
                if net and not net.endswith("/0"):
                    entries.append((net, Named(name)))
    return entries[:MOST_ENTRIES]


# --- processes --------------------------------------------------------------------------------------------------------

SOCKETS_COMMAND = ("ss", "-Htunap")
# Protocol, address, port, and those of the other end; "" and "" where it is not connected, "" for any address.
SocketKey = tuple[str, str, str, str, str]
_SOCKET = re.compile(
    r"^(tcp|udp) +\S+ +\d+ +\d+ +(\S{1,80}):(\d+) +(\S{1,80}):(\d+|\*) +users:\(\(\"(.{1,64}?)\",pid=(\d{1,9}),", re.M
)


def read_sockets(text: str) -> dict[SocketKey, Process]:
    """What SOCKETS_COMMAND printed: whose socket each is. Of several processes that share one it is the first.

    >>> read_sockets('tcp ESTAB 0 0 10.0.0.1:22 10.0.0.5:50000 users:(("sshd",pid=7,fd=4))\\n')
    {('tcp', '10.0.0.1', '22', '10.0.0.5', '50000'): Process(name='sshd', pid=7)}
    """
    found: dict[SocketKey, Process] = {}
    for protocol, here, port, there, its_port, name, pid in _SOCKET.findall(text):
        peer = ("", "") if its_port == "*" else (_socket_address(there), its_port)
        if (shown := clean(name, LONGEST_LABEL)) and len(found) < MOST_ENTRIES:
            found.setdefault((protocol, _socket_address(here), port, *peer), Process(shown, int(pid)))
    return found


def _socket_address(text: str) -> str:
    """An address of ss as conntrack prints it: [::ffff:10.0.0.1], 10.0.0.1%eth0; "" for any address."""
    text = text.strip("[]").partition("%")[0].removeprefix("::ffff:")
    return "" if text in ("*", "0.0.0.0", "::") else text


class Sockets:
    """The processes of this host's sockets, by the flows that these are."""

    def __init__(self) -> None:
        self._found: dict[SocketKey, Process] = {}

    def take(self, found: dict[SocketKey, Process]) -> bool:
        """All that there are now; False where they were the same before."""
        before, self._found = self._found, found
        return before != found

    def known(self) -> bool:
        return bool(self._found)

    @property
    def number(self) -> int:
        return len(self._found)

    def process(self, protocol: str, its: Ends, way: str | None) -> Process | None:
        """Whose a flow is. A socket that is not connected has all flows of its port that no other one has.

        NAT happens between the socket and the network: who opens a connection sees the original tuple, who answers sees
        itself in the reply's source.
        """
        if protocol not in ("tcp", "udp") or way not in ("in", "out", "local"):
            return None
        here, there = (its.src, str(its.sport)), (its.dst, str(its.dport))
        answers = (its.reply_src, str(its.reply_sport))
        ends = [(here, there)] if way != "in" else []
        ends += [(answers, here)] if way != "out" else []
        for (address, port), peer in ends:
            for key in ((address, port, *peer), (address, port, "", ""), ("", port, "", "")):
                if (found := self._found.get((protocol, *key))) is not None:
                    return found
        return None


# --- what is asked ----------------------------------------------------------------------------------------------------


class Book(NamedTuple):
    """A source of names: the command that prints it, what is asked about what that printed, and who reads it."""

    words: tuple[str, ...]
    read: Callable[[str, Site], list[Entry]]
    follow: tuple[str, ...] = ()  # before the ids that the first command printed
    asked: bool = False  # only where somebody asks for it, who then hears that it is not there


# By the words of --names, and one more where two programs give the same. What grep prints is taken apart by path.
COMMANDS: dict[str, tuple[Book, ...]] = {
    "neighbours": (Book(("ip", "-o", "neigh"), lambda text, _site: read_neighbours(text)),),
    "containers": tuple(
        Book((program, "ps", "-q", "--no-trunc"), lambda text, _site: read_containers(text), (program, "inspect"))
        for program in ("docker", "podman")
    ),
    "wireguard": (Book(("wg", "show", "all", "allowed-ips"), lambda text, site: read_peers(text, site.hosts)),),
    "kubectl": (Book(("kubectl", "get", "pods", "-A", "-o", "json"), lambda text, _site: read_pods(text), asked=True),),
    "crictl": (
        Book(("crictl", "pods", "-q"), lambda text, _site: read_pods(text), ("crictl", "inspectp"), asked=True),
    ),
}
RANK = ("hosts", "leases", "containers", "wireguard", "crictl", "kubectl", "neighbours")  # whose word counts first


def of_files(text: str) -> list[tuple[str, str]]:
    """What `grep -Hrs . FILES` printed, by file."""
    found: dict[str, list[str]] = {}
    for line in text.split("\n"):
        path, colon, rest = line.partition(":")
        if colon and path.startswith("/"):
            found.setdefault(path, []).append(rest)
    return [(path, "\n".join(lines)) for path, lines in found.items()]


# --- all of them together ---------------------------------------------------------------------------------------------


class _Remembered(dict[str, Any]):
    """Answers about addresses: each is looked for once, and then it is a dictionary's."""

    def __init__(self, look: Callable[[str], Any]) -> None:
        super().__init__()
        self._look = look

    def __missing__(self, address: str) -> Any:
        if len(self) > MAX_REMEMBERED:
            self.clear()
        found = self[address] = self._look(address)
        return found


def _both(first: Named, then: Named) -> Named:
    """What either says of the same host; of two words the first one's."""
    return Named(*(one or other for one, other in zip(first, then)))


def _else(first: Named, then: Named) -> Named:
    """What is known of the same device or of its network, where nobody has a name for the address itself."""
    return (first if first.label else then)._replace(mac=first.mac or then.mac)


class Directory:
    """All that is known of addresses, as one book: who has one, and which of them are one device's."""

    def __init__(self, site: Site = PLAIN_SITE) -> None:
        self._said: dict[str, list[Entry]] = {}
        self._settings = {key: Named(name) for key, name in site.hosts.items()}
        self._by_key: dict[str, Named] = {}
        self._networks: list[tuple[int, int, dict[int, Named]]] = []  # family, bits below the prefix; the longest first
        self._firsts: dict[str, str] = {}  # the address that stands for a device, by each of its others
        self._who, self._device = _Remembered(self._look), _Remembered(lambda text: self._firsts.get(text, text))
        # Bound once, as they are asked for each of 200,000 flows.
        self.who: Callable[[str], Named] = self._who.__getitem__
        self.device: Callable[[str], str] = self._device.__getitem__
        self.named = False  # somebody has a name, or is a container; localhost is nobody
        self.version = 0  # counts on with each change
        self._put_together()

    def take(self, book: str, entries: list[Entry]) -> bool:
        """All that a book says now; False where it said so before."""
        if self._said.get(book, []) == entries:
            return False
        self._said[book] = entries
        self._put_together()
        return True

    def label(self, address: str) -> str | None:
        """What is shown of who has an address."""
        return self.who(address).label or None

    def sizes(self) -> dict[str, int]:
        """The entries of each book."""
        return {book: len(entries) for book, entries in self._said.items() if entries}

    def labels(self) -> list[tuple[str, str]]:
        """Every address and network with what is shown of it."""
        return [(key, label) for key in self._by_key if (label := self._of_key(key).label)]

    def _put_together(self) -> None:
        by_key: dict[str, Named] = {}
        for book in sorted(self._said, key=lambda book: RANK.index(book.partition(" ")[0])):
            for key, who in self._said[book]:
                by_key[key] = _both(by_key.get(key, UNNAMED), who)
                if book == "leases" and who.mac and who.name:  # a device's other addresses have its name, too
                    by_key.setdefault(who.mac, Named(who.name, who.mac))
        for key, who in self._settings.items():
            by_key[key] = _both(who, by_key.get(key, UNNAMED))
        self._by_key = by_key
        self._networks = _by_length(by_key)
        self._firsts = _firsts(by_key)
        self.named = any(who.label and scope(key) != "loopback" for key, who in by_key.items())
        self.version += 1
        self._who.clear()
        self._device.clear()

    def _of_key(self, key: str) -> Named:
        """Settings first, of the address and then of its MAC address; then the books, in the same order."""
        found = self._by_key.get(key, UNNAMED)
        if not found.mac:
            return found
        own = self._settings.get(key) or self._settings.get(found.mac) or UNNAMED
        return _else(_both(own, found), self._by_key.get(found.mac, UNNAMED))

    def _look(self, address: str) -> Named:
        found = self._of_key(address)
        if found.label or not self._networks:
            return found
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return found
        for family, below, networks in self._networks:
            if family == ip.version and (who := networks.get(int(ip) >> below)) is not None and who.label:
                return _else(found, who)
        return found


def _by_length(by_key: Mapping[str, Named]) -> list[tuple[int, int, dict[int, Named]]]:
    found: dict[tuple[int, int], dict[int, Named]] = {}
    for key, who in by_key.items():
        if "/" in key:
            with suppress(ValueError):
                net = ipaddress.ip_network(key)
                below = net.max_prefixlen - net.prefixlen
                found.setdefault((net.version, below), {})[int(net.network_address) >> below] = who
    return [(*length, networks) for length, networks in sorted(found.items(), key=lambda item: item[0][1])]


def _firsts(by_key: Mapping[str, Named]) -> dict[str, str]:
    """Of the devices with more than one address: the one that stands for them, by each of the others.

    A MAC address with two IPv4 addresses may be many devices' (proxy ARP, a router, ipvlan): these are left apart.
    """
    devices: dict[str, list[str]] = {}
    for key, who in by_key.items():
        if who.mac and "/" not in key and not _MAC.fullmatch(key):
            devices.setdefault(who.mac, []).append(key)
    firsts: dict[str, str] = {}
    for found in devices.values():
        if len(found) > 1 and sum(":" not in address for address in found) <= 1:
            first, *others = sorted(found, key=lambda text: (":" in text, scope(text) == "link-local", len(text), text))
            firsts |= dict.fromkeys(others, first)
    return firsts
