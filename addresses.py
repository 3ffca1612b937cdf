"""What an address is: its scope, near or far, the direction of a flow, NAT, its place, and who has it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar, Union

from IPy import IP

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

Network = Union["IPv4Network", "IPv6Network"]


class Ends(NamedTuple):
    """Addresses and ports of both tuples, as printed; a port (or ICMP id) is None where the protocol has none."""

    src: str
    dst: str
    sport: int | None
    dport: int | None
    reply_src: str
    reply_dst: str
    reply_sport: int | None
    reply_dport: int | None

    @property
    def addresses(self) -> tuple[str, str, str, str]:
        return self.src, self.dst, self.reply_src, self.reply_dst

    @property
    def snat(self) -> bool:
        return self.reply_dst != self.src or self.reply_dport != self.sport

    @property
    def dnat(self) -> bool:
        return self.reply_src != self.dst or self.reply_sport != self.dport

    @property
    def nat(self) -> list[str]:
        """Which ends are translated: ["snat"], ["dnat"], both or none."""
        return ["snat"] * self.snat + ["dnat"] * self.dnat


# IPy 1.2 is wrong about some ranges: it calls the documentation and benchmark ranges and the neighbours of 100.64/10
# PUBLIC, and calls no IPv6 address PUBLIC. So these ranges (RFC 6890, 5737, 2544, 3849, 9637) come first.
_SPECIAL = [
    (IP(net), scope)
    for net, scope in (
        ("127.0.0.0/8", "loopback"),
        ("::1/128", "loopback"),
        ("100.64.0.0/10", "cgnat"),
        ("169.254.0.0/16", "link-local"),
        ("fe80::/10", "link-local"),
        ("224.0.0.0/4", "multicast"),
        ("ff00::/8", "multicast"),
        ("192.0.2.0/24", "documentation"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("2001:db8::/32", "documentation"),
        ("3fff::/20", "documentation"),
        ("198.18.0.0/15", "benchmark"),
        ("2001:2::/48", "benchmark"),
        ("255.255.255.255/32", "broadcast"),
        ("fc00::/7", "private"),
        ("0.0.0.0/8", "unspecified"),
        ("::/128", "unspecified"),
        ("240.0.0.0/4", "reserved"),
    )
]

# The first octets of IPv4 and the first words of IPv6 that hold more than one scope. For all others the first one tells
# the scope. For these octets the first three tell it, for these words the first two (but for 2001:2::/48); the
# broadcast address is asked by itself.
_MIXED = {"100", "169", "172", "192", "198", "203", "2001", "3fff"}
_BY_HEAD: dict[str, str] = {}


def scope(address: str) -> str:
    """What kind of address this is.

    One of public, private, cgnat, link-local, multicast, loopback, documentation, benchmark, broadcast, unspecified,
    reserved; "" for what is no address.

    >>> scope("8.8.8.8"), scope("10.1.2.3"), scope("::ffff:192.168.1.1"), scope("2606:4700::1111"), scope("x")
    ('public', 'private', 'private', 'public', '')
    """
    head, _, rest = address.partition(".")
    if ":" in head:
        head, _, rest = head.partition(":")
        head = head.lower()
        if len(head) != 4 or head[0] not in "23":  # only within 2000::/3
            return _scope(address)
        if head in _MIXED:
            second = rest.partition(":")[0]
            if len(second.lstrip("0")) < 2:  # 2001:2::/48, also as 2001:0002:
                return _scope(address)
            head = f"{head}:{second}"
    elif rest.count(".") != 2:
        return ""  # IPy reads "8" as 8.0.0.0
    elif head == "255":
        return _scope(address)
    elif head in _MIXED:
        head = address.rpartition(".")[0]
    known = _BY_HEAD.get(head)
    if known is None:
        known = _scope(address)
        if known:  # a text that is no address says nothing about its neighbours
            if len(_BY_HEAD) > 65_536:
                _BY_HEAD.clear()
            _BY_HEAD[head] = known
    return known


@lru_cache(maxsize=65_536)  # IPy takes 8 us for an IPv4 address and 22 us for an IPv6 one
def _scope(address: str) -> str:
    try:
        ip = IP(address)
        if ip.version() == 6 and ip.iptype() == "IPV4MAP":
            ip = IP(ip.int() & 0xFFFFFFFF, ipversion=4)
    except (ValueError, TypeError):
        return ""
    for net, name in _SPECIAL:
        if net.version() == ip.version() and ip in net:
            return name
    if ip.version() == 4:
        return {"PUBLIC": "public", "PRIVATE": "private"}.get(ip.iptype(), "reserved")
    return "public" if ip in _GLOBAL_UNICAST or ip in _NAT64 else "reserved"


LOCAL = frozenset({"private", "loopback", "link-local", "cgnat", "unspecified"})  # scopes of hosts that are near
_GLOBAL_UNICAST = IP("2000::/3")  # the only part of IPv6 that IANA gives out
_NAT64 = IP("64:ff9b::/96")  # RFC 6052: the IPv4 Internet seen from IPv6


def within(networks: Iterable[Network]) -> Callable[[str], bool]:
    """Is an address in one of the networks?"""
    from ipaddress import ip_address  # 4 ms; databases need only what a place is

    nets = list(networks)

    def inside(address: str) -> bool:
        try:
            ip = ip_address(address) if nets else None
        except ValueError:
            return False
        return ip is not None and any(ip in net for net in nets)

    return inside


BROADCAST = "broadcast="  # before an address that this host hears, and many others do


class OwnNetworks(frozenset[str]):
    """This host's own addresses where some are whole networks (`ip route add local`), or broadcast addresses.

    >>> "198.51.100.7" in OwnNetworks({"10.0.0.1", "198.51.100.0/24"})
    True
    """

    broadcasts: Set[str]

    def __init__(self, addresses: Iterable[str], broadcasts: Iterable[str] = ()) -> None:
        self.broadcasts = frozenset(broadcasts)
        self._known = dict.fromkeys((*addresses, *self.broadcasts), True)
        self._inside: Callable[[str], bool] | None = None
        if networks := [text for text in self if "/" in text]:
            from ipaddress import ip_network  # 4 ms that a host with broadcast addresses only need not wait for

            self._inside = within(map(ip_network, networks))

    def __new__(cls, addresses: Iterable[str], broadcasts: Iterable[str] = ()) -> OwnNetworks:  # noqa: ARG004
        return super().__new__(cls, addresses)

    def __contains__(self, address: object) -> bool:
        known = self._known.get(address)  # type: ignore[call-overload]
        if known is None:
            if self._inside is None:
                return False
            if len(self._known) > MAX_REMEMBERED:
                self._known = dict.fromkeys((*self, *self.broadcasts), True)
            known = self._known[str(address)] = self._inside(str(address))
        return bool(known)


def own_addresses_of(texts: Set[str]) -> Set[str]:
    """What this host takes in: addresses, networks as "198.51.100.0/24", and "broadcast=192.0.2.255".

    What is none of these is left out.
    """
    broadcasts = {text.removeprefix(BROADCAST) for text in texts if text.startswith(BROADCAST)}
    plain = {text for text in texts if not text.startswith(BROADCAST)}
    if any("/" in text for text in plain):
        from ipaddress import ip_network

        for text in [text for text in plain if "/" in text]:
            plain.discard(text)
            with suppress(ValueError):
                plain.add(str(ip_network(text)))
    elif not broadcasts:
        return texts
    return OwnNetworks(plain, broadcasts)


def hears_broadcast(address: str, own: Set[str]) -> bool:
    """Is it a broadcast address of a network that this host is in?"""
    return isinstance(own, OwnNetworks) and address in own.broadcasts


class Known(NamedTuple):
    """What is asked of the same addresses again and again. Addresses of which the same is known share one."""

    public: bool
    far: bool  # public, not this host's, and not local
    own: bool  # this host's
    here: bool  # this host's, or loopback
    taken: bool  # what goes to it comes in: it is here, or a multicast or broadcast address
    broadcast: bool  # of a network that this host is in


class KnownAddresses(dict[bytes | str, Known]):
    """Each address is looked at once, and what follows from it is told of flows: 200,000 have far fewer addresses.

    An address is asked for as a flow's text has it (bytes), or as ``Ends`` has it (str).
    """

    def __init__(self, own: Set[str], local: Callable[[str], bool] | None = None) -> None:
        """``own``: this host's addresses. ``local``: which public addresses count as near."""
        super().__init__()
        self._own, self._local = own, local
        self._shared: dict[Known, Known] = {}

    def __missing__(self, address: bytes | str) -> Known:
        if len(self) > MAX_REMEMBERED:
            self.clear()
        text = address if isinstance(address, str) else address.decode()
        its, own = scope(text), text in self._own
        public, here = its == "public", own or its == "loopback"
        far = public and not own and not (self._local and self._local(text))
        taken = here or its in ("multicast", "broadcast")
        known = Known(public, far, own, here, taken, hears_broadcast(text, self._own))
        known = self[address] = self._shared.setdefault(known, known)
        return known

    def direction(self, src: bytes | str, reply_src: bytes | str) -> str | None:
        """Which of the kernel's chains INPUT, OUTPUT, FORWARD it takes: "in", "out", "fwd"; "local" within this host.

        None where this host's own addresses are not known.

        The responder is the source of the reply tuple. So a connection to this host's address is forwarded if DNAT
        sends it on, and a connection that is masqueraded as this host is forwarded, too.
        """
        return self._way(self[src], self[reply_src]) if self._own else None

    @staticmethod
    def _way(initiator: Known, responder: Known) -> str:
        if initiator.here:
            return "local" if responder.here and not responder.broadcast else "out"
        return "in" if responder.taken else "fwd"

    def way_and_sides(
        self, src: bytes, dst: bytes, reply_src: bytes, reply_dst: bytes
    ) -> tuple[str | None, bytes, bytes]:
        """Of a flow with these addresses ``direction``, the near end and ``remote``: half of the time of all three."""
        initiator, responder = self[src], self[reply_src]
        way = self._way(initiator, responder) if self._own else None
        if responder.far:
            return way, reply_src if reply_src == reply_dst else src, reply_src
        remote = (src, dst, reply_src, reply_dst)[self.remote_side(src, dst, reply_src, reply_dst)]
        return way, reply_src if remote in (src, reply_dst) else src, remote

    def remote(self, src: bytes | str, dst: bytes | str, reply_src: bytes | str, reply_dst: bytes | str) -> str:
        """The remote end, see ``remote_side``."""
        far = (src, dst, reply_src, reply_dst)[self.remote_side(src, dst, reply_src, reply_dst)]
        return far if isinstance(far, str) else far.decode()

    def remote_side(self, src: bytes | str, dst: bytes | str, reply_src: bytes | str, reply_dst: bytes | str) -> int:
        """Which of a flow's addresses, in this order, is the public end that is not this host.

        Of two such ends it is the destination; without one it is the end of another host. The real ends come first:
        the responder is the source of the reply tuple, the initiator that of the original tuple. Then come the
        addresses that NAT put in their place.
        """
        if self[reply_src].far:
            return 2
        initiator, target = self[src], self[dst]
        if initiator.far:
            return 0
        if target.far:
            return 1
        if self[reply_dst].far:
            return 3
        return 0 if target.own and not initiator.own else 1

    def inbound(self, src: bytes | str, reply_src: bytes | str) -> bool | None:
        """Was the flow opened from the far side? Then its original direction is what comes in, else what goes out.

        None where only NAT tells: see ``inbound_by_nat``.
        """
        way = self.direction(src, reply_src)
        if way in ("in", "out", "local"):
            return way == "in"
        return True if self[src].public and not self[reply_src].public else None


def inbound_by_nat(ends: Ends) -> bool:
    """What ``KnownAddresses.inbound`` asks for: a port that is forwarded is opened from the far side."""
    return ends.dnat and not ends.snat


# --- places -----------------------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """Where an address is and whose network it is in; None where the databases do not say."""

    country: str | None = None  # ISO 3166 code, upper case
    country_name: str | None = None
    city: str | None = None
    asn: int | None = None
    org: str | None = None


NOWHERE = Place()


@dataclass(frozen=True)
class Detail:
    """Everything known about one address; degrees north and east, networks as 192.0.2.0/24."""

    place: Place = NOWHERE
    subdivision: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    place_network: str | None = None
    asn_network: str | None = None
    sources: tuple[str, ...] = ()  # names with their month: "DBIP-City-Lite 2026-11"


# --- names ------------------------------------------------------------------------------------------------------------


class Named(NamedTuple):
    """Who has an address, as far as the site itself says it, "" where it does not; all of it is safe to show."""

    name: str = ""
    mac: str = ""  # as 02:00:5e:10:00:01
    container: str = ""
    service: str = ""  # of compose, with its project: web/db; of a pod its namespace

    @property
    def label(self) -> str:
        """What is shown of it."""
        return self.name or self.container


UNNAMED = Named()
LONGEST_NODE = 255  # characters of a machine's name: a host's has at most so many


class Process(NamedTuple):
    """Who has a socket of this host."""

    name: str  # safe to show
    pid: int


# --- near and far -----------------------------------------------------------------------------------------------------

MAX_REMEMBERED = 262_144  # answers about addresses and ports
MAX_FORMER = 4096  # addresses that this host has had
WHOLE_MARK = 0xFFFFFFFF  # the mask that takes nothing away


class Fan(NamedTuple):
    """How many ends a device is connected with, and to how many ports these connections go."""

    remotes: int
    ports: int


NO_FAN = Fan(0, 0)


def pool_of(address: str) -> str:
    """The pool of addresses for NAT that an address may be of: its /24; of IPv6 the address itself."""
    return address if ":" in address else address.rpartition(".")[0]


class HasTuples(Protocol):
    """A flow, as far as its addresses are concerned (flows.Flow)."""

    @property
    def plain(self) -> bool: ...

    def addresses(self) -> tuple[bytes, bytes]: ...

    @property
    def node(self) -> str: ...

    def ends(self) -> Ends: ...


FlowT = TypeVar("FlowT", bound=HasTuples)


def _no_place(_address: str) -> Place:
    return NOWHERE


def _no_detail(_address: str) -> Detail:
    return Detail()


def _no_answer(_address: str) -> None:
    return None


def _nobody(_address: str) -> Named:
    return UNNAMED


def _no_process(_protocol: str, _ends: Ends, _way: str | None) -> None:
    return None


def _itself(address: str) -> str:
    return address


@dataclass(frozen=True)
class Lookups:
    """The functions that know about an address; by default nothing is known."""

    where: Callable[[str], Place] = _no_place
    detail: Callable[[str], Detail] = _no_detail
    coordinates: Callable[[str], tuple[float, float] | None] = _no_answer  # degrees north and east
    name: Callable[[str], str | None] = _no_answer  # of a host, where names are wanted in place of addresses
    who: Callable[[str], Named] = _nobody
    device: Callable[[str], str] = _itself  # the one of a device's addresses that stands for all of them
    knows_names: Callable[[], bool] = lambda: False  # does ``who`` know anybody by name?
    process: Callable[[str, Ends, str | None], Process | None] = _no_process  # of a protocol, ends and a direction
    knows_processes: Callable[[], bool] = lambda: False


NO_LOOKUPS = Lookups()


@dataclass(frozen=True)
class Site:
    """What the settings say of this site: names of marks, zones and hosts; networks that are local, too; filters."""

    marks: Mapping[tuple[int, int], str] = field(default_factory=dict)
    zones: Mapping[int, str] = field(default_factory=dict)
    networks: Sequence[Network] = ()
    filters: Mapping[str, str] = field(default_factory=dict)  # expressions by name: @name in a filter
    hosts: Mapping[str, str] = field(default_factory=dict)  # by address, network, MAC address or WireGuard's public key


PLAIN_SITE = Site()


class Context:
    """What predicates need beside the flow: the time, this host's addresses, where an address is.

    It is made once, with all that it asks. Only ``advance`` and the two ``know_`` change it; everybody else reads.
    """

    def __init__(
        self,
        lookups: Lookups = NO_LOOKUPS,
        site: Site = PLAIN_SITE,
        *,
        now: float = 0.0,
        own: Set[str] = frozenset(),
        epoch: Callable[[], float] = lambda: 0.0,
        among: Callable[[], bool] = lambda: False,
    ) -> None:
        """``epoch``: tells what to add to ``now`` for seconds since 1970. It is asked each time: clocks are stepped.

        ``among``: is it one of several nodes, so that rows show whose they are?
        """
        self.is_among_others = among
        # Bound once: these are asked for each of 200,000 flows.
        self.where, self.detail = lookups.where, lookups.detail
        self.coordinates, self.name = lookups.coordinates, lookups.name
        self.who, self.device, self.knows_names = lookups.who, lookups.device, lookups.knows_names
        self.knows_processes, self._process = lookups.knows_processes, lookups.process
        self.marks, self.zones, self.networks, self.filters = site.marks, site.zones, site.networks, site.filters
        self.now = now
        self.own = own
        self._epoch = epoch
        self.timeouts: Mapping[str, int] = {}  # seconds, by the kernel's names: see parse.TIMEOUTS
        self._fans: Mapping[str, Fan] = {}  # by device, as they were counted last
        self.former: frozenset[str] = frozenset()  # addresses that this host has had since we began to look
        self._local: dict[str, bool] = {}
        self._old: dict[str, bool] = {}
        self._pools: frozenset[str] = frozenset()
        self._in_networks = within(site.networks)
        self._known = KnownAddresses(own, self.is_local if site.networks else None)

    @property
    def nodes(self) -> Mapping[str, Context]:
        """The context of each node, where there are several; else none."""
        return {}

    def of(self, _flow: HasTuples) -> Context:
        """The context of a flow's node: what is near and far there follows from that machine's own addresses."""
        return self

    def parts(self, flows: Sequence[FlowT]) -> Iterable[tuple[Context, Sequence[FlowT]]]:
        """Flows that stand together and are of one node, with the context of that."""
        return ((self, flows),)

    def advance(self, now: float, own: Set[str], timeouts: Mapping[str, int] | None = None) -> None:
        """The time, and this host's addresses and the kernel's timeouts as they are known by now."""
        self.now = now
        self.timeouts = self.timeouts if timeouts is None else timeouts
        if own is not self.own:
            if own:  # else nobody knows them for now
                had = [address for address in (*self.former, *self.own) if address not in own and "/" not in address]
                self.former = frozenset(had[-MAX_FORMER:])
            self.own, self._local, self._old = own, {}, {}
            self._known = KnownAddresses(own, self.is_local if self.networks else None)

    def know_fans(self, fans: Mapping[str, Fan]) -> None:
        """How many remote ends and ports each device has, counted anew (grouping.FanCount)."""
        self._fans = fans

    def fan(self, flow: HasTuples) -> Fan:
        """How many remote ends and ports the device at a flow's near end has, as they were counted last."""
        return self._fans.get(self.device(self.sides(flow)[0]), NO_FAN)

    def know_pools(self, addresses: Iterable[str]) -> None:
        """NAT gives these addresses to new flows though they are none of this host's: they are routed to it."""
        self._pools |= {pool_of(address) for address in addresses}
        self._old = {}

    def old_address(self, its: Ends) -> str | None:
        """The address by which the other side knows a flow, where this host no longer has it; else None.

        It is the one that SNAT put in; of a forwarded port (DNAT) it is the one that was asked for, where this host
        has had it: a service's address of Kubernetes never was on any host.
        """
        if not self.own:
            return None
        if its.reply_dst != its.src and self.is_old(its.reply_dst):
            return its.reply_dst
        return its.dst if its.reply_src != its.dst and its.dst in self.former else None

    def is_old(self, address: str) -> bool:
        """Has this host had an address that SNAT put in, and has it no longer?

        Where nobody has seen it go, what is in a pool or in the settings' local networks is in use.
        """
        if (known := self._old.get(address)) is None:
            if len(self._old) > MAX_REMEMBERED:
                self._old = {}
            routed = pool_of(address) in self._pools or self._in_networks(address)
            known = address in self.former or not (self._known[address].taken or routed)
            self._old[address] = known
        return known

    @property
    def epoch(self) -> float:
        """What to add to a time of the source for seconds since 1970, by the clock as it is set now."""
        return self._epoch()

    def remote(self, flow: HasTuples) -> Place:
        return self.where(self.remote_address(flow))

    def remote_address(self, flow: HasTuples) -> str:
        """What ``remote`` says."""
        if flow.plain:
            return self.remote_of(*flow.addresses())
        return self.remote_end(flow.ends())

    def remote_end(self, its: Ends) -> str:
        return self._known.remote(its.src, its.dst, its.reply_src, its.reply_dst)

    def direction(self, its: Ends) -> str | None:
        return self._known.direction(its.src, its.reply_src)

    def process(self, protocol: str, its: Ends) -> Process | None:
        """Whose socket on this host it is; None where it is forwarded, or where nobody knows."""
        return self._process(protocol, its, self.direction(its)) if self.knows_processes() else None

    def remote_of(self, src: bytes, dst: bytes) -> str:
        """What ``remote`` says of a flow without NAT."""
        there = self._known[dst]
        if there.far:
            return dst.decode()
        here = self._known[src]
        return (src if here.far or (there.own and not here.own) else dst).decode()

    def sides(self, flow: HasTuples) -> tuple[str, str, bool]:
        """The near end, the far end (``remote_address``), and whether the far one has opened the flow."""
        if flow.plain:
            return self.sides_of(*flow.addresses())
        return self.sides_of_ends(flow.ends())

    def sides_of_ends(self, its: Ends) -> tuple[str, str, bool]:
        """What ``sides`` says of a flow with these ends."""
        far = self.remote_end(its)
        return (its.reply_src, far, True) if far in (its.src, its.reply_dst) else (its.src, far, False)

    @property
    def known(self) -> KnownAddresses:
        """What is known of each address: for who asks it of 5,000 flows a second."""
        return self._known

    def sides_of(self, src: bytes, dst: bytes) -> tuple[str, str, bool]:
        """What ``sides`` says of a flow without NAT."""
        far = self.remote_of(src, dst)
        here, there = src.decode(), dst.decode()
        return (there, here, True) if far == here else (here, there, False)

    def is_local(self, address: str) -> bool:
        """Is it this host or a host of the local network: a private address or the like, or one in ``networks``?"""
        if len(self._local) > MAX_REMEMBERED:
            self._local = {}
        if (known := self._local.get(address)) is None:
            known = address in self.own or scope(address) in LOCAL or self._in_networks(address)
            self._local[address] = known
        return known

    def mark_name(self, mark: int) -> str | None:
        """The name of a connection mark; if the whole mark has no name, that of the first mask that matches."""
        whole = self.marks.get((mark, WHOLE_MARK))
        return whole or next((name for (part, mask), name in self.marks.items() if mark & mask == part), None)

    def zone_name(self, zone: int) -> str | None:
        return self.zones.get(zone)


class Contexts(Context):
    """The contexts of several nodes. What is asked of a flow is asked of its own node's; names are looked for in all.

    ``own`` has all of their addresses: one set for all would make a flow from one node to another a local one.
    """

    def __init__(
        self,
        nodes: Mapping[str, Context],
        lookups: Lookups = NO_LOOKUPS,
        site: Site = PLAIN_SITE,
        *,
        epoch: Callable[[], float],
    ) -> None:
        """``nodes``: by name; more may come later."""
        self._nodes = nodes
        lookups = replace(
            lookups,
            who=self._who_anywhere,
            device=self._device_anywhere,
            knows_names=lambda: any(node.knows_names() for node in nodes.values()),
            knows_processes=lambda: any(node.knows_processes() for node in nodes.values()),
        )
        super().__init__(lookups, site, epoch=epoch, among=lambda: len(nodes) > 1)

    @property
    def nodes(self) -> Mapping[str, Context]:
        return self._nodes

    def of(self, flow: HasTuples) -> Context:
        return self._nodes.get(flow.node, self)  # the log has flows of nodes that are not watched now

    def parts(self, flows: Sequence[FlowT]) -> Iterable[tuple[Context, Sequence[FlowT]]]:
        if len(self._nodes) == 1:
            return ((next(iter(self._nodes.values())), flows),)
        return ((self._nodes.get(node, self), list(some)) for node, some in groupby(flows, attrgetter("node")))

    def fan(self, flow: HasTuples) -> Fan:
        its = self._nodes.get(flow.node)
        return its.fan(flow) if its else super().fan(flow)

    def remote(self, flow: HasTuples) -> Place:
        its = self._nodes.get(flow.node)
        return its.remote(flow) if its else super().remote(flow)

    def remote_address(self, flow: HasTuples) -> str:
        its = self._nodes.get(flow.node)
        return its.remote_address(flow) if its else super().remote_address(flow)

    def sides(self, flow: HasTuples) -> tuple[str, str, bool]:
        its = self._nodes.get(flow.node)
        return its.sides(flow) if its else super().sides(flow)

    def _who_anywhere(self, address: str) -> Named:
        found = (node.who(address) for node in self._nodes.values())
        return next((named for named in found if named != UNNAMED), UNNAMED)

    def _device_anywhere(self, address: str) -> str:
        found = (node.device(address) for node in self._nodes.values())
        return next((device for device in found if device != address), address)
