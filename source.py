"""Where the bytes come from: the running `conntrack` children, with the same face as a recording.

A source gives file descriptors to wait for (``fds``), the time it wants to be called at the latest (``deadline``) and,
from ``poll``, items in the order they came: blocks of whole lines, where listings begin and end, losses, troubles,
facts about the host. Nothing here understands a line of conntrack; nothing here blocks.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import select
import signal
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from addresses import BROADCAST
from child import LISTENED, SILENCE, STOP_PATIENCE, Child, EventSocket, event_socket, file_text, namespace_of
from intake import (
    Behind,
    Block,
    Facts,
    Item,
    ListingBegan,
    ListingEnded,
    Lost,
    OwnAddresses,
    Problem,
    Statistics,
    Trouble,
    is_loss,
    not_started,
)
from parse import ADDRESS, PROTOCOLS, PUSHED_DOWN, TIMEOUTS

# --- the host ---------------------------------------------------------------------------------------------------------

_DIRECTORY = "/proc/sys/net/netfilter/nf_conntrack_"
FACTS = {
    **{name: _DIRECTORY + name for name in ("count", "max", "buckets", "acct", "events", "timestamp", *TIMEOUTS)},
    "rmem_default": "/proc/sys/net/core/rmem_default",  # bytes that a socket may hold which nobody could widen
}
_FACT_AT = {path: name for name, path in FACTS.items()}

# grep prints "path:value" and goes on where a file is missing; busybox has the same flags.
FACTS_COMMAND = ["grep", "-Hs", ".", *FACTS.values()]
OWN_COMMAND = ["ip", "-o", "addr", "show"]
ROUTES_COMMANDS = {
    "routes": ["ip", "route", "show", "table", "local"],
    "routes6": ["ip", "-6", "route", "show", "table", "local"],
}


def read_facts() -> dict[str, int]:
    """The sysctls of this network namespace, by name without "nf_conntrack_"; what can't be read is left out."""
    values = {}
    for name, path in FACTS.items():
        try:
            with open(path, encoding="ascii") as file:
                values[name] = int(file.read())
        except (OSError, ValueError):
            continue
    return values


# The files that docker and podman mount into a container, from a folder of its identity.
_MOUNTED = re.compile(r"/([0-9a-f]{64})/(?:userdata/)?(?:hostname|hosts|resolv\.conf) /etc/")


@dataclass(frozen=True)
class OwnContainer:
    """The container of our image that this program runs in, in words of its host: only there somebody can mend it."""

    engine: str  # docker, podman
    name: str  # as the engine takes it; "": unknown
    image: str
    rootless: bool  # started by a user: no right on the host's network
    alone: bool  # in a network of its own, whose table is another one

    def runs(self, *words: str) -> str:
        """The command that starts another one with these words."""
        before = f"sudo {self.engine}" if self.rootless else self.engine
        return " ".join([before, "run", *words, self.image])

    def permitted(self) -> str:
        """... with what reading the host's table takes. Docker gives a user other than root no capability."""
        user = ["--user", "0"] if os.geteuid() else []
        return self.runs("--network", "host", "--cap-add", "NET_ADMIN", *user)

    def untracked(self) -> Problem | None:
        """Why nothing is tracked, where that is not for want of a rule."""
        if self.rootless:
            return Problem("this container was started without root and has a network of its own", self.permitted())
        return Problem("this container has a network of its own", self.permitted()) if self.alone else None


def own_container() -> OwnContainer | None:
    """Ours; None outside of the image, and in Kubernetes, where an engine's words are no use."""
    image = os.environ.get("CONNTRACK_MONITOR_IMAGE")
    if not image or "KUBERNETES_SERVICE_HOST" in os.environ:
        return None
    found = _MOUNTED.search(file_text("/proc/self/mountinfo"))
    rootless = file_text("/proc/self/uid_map").split()[:3] not in ([], ["0", "0", "4294967295"])
    engine = "podman" if os.environ.get("container") == "podman" else "docker"  # noqa: SIM112  podman's own
    return OwnContainer(engine, found[1][:12] if found else "", image, rootless, rootless or _has_no_host_s_interface())


def _has_no_host_s_interface() -> bool:
    """Is there neither a device nor a bridge, as in a container's network? A host with an engine has one or the other.

    An interface's own number and that of its other end tell nothing: numbers of two namespaces may be the same.
    """
    place = "/sys/class/net"
    try:
        names = [name for name in os.listdir(place) if name != "lo"]
    except OSError:
        return False
    virtual = [name for name in names if os.path.realpath(f"{place}/{name}").startswith("/sys/devices/virtual/")]
    return virtual == names and not any(os.path.isdir(f"{place}/{name}/bridge") for name in names)


def parse_facts(text: str) -> dict[str, int]:
    """What FACTS_COMMAND printed.

    >>> parse_facts("/proc/sys/net/netfilter/nf_conntrack_count:12\\nnonsense\\n")
    {'count': 12}
    """
    found = re.findall(r"^(/proc/\S+):(\d{1,19})$", text, re.MULTILINE)
    return {_FACT_AT[path]: int(value) for path, value in found if path in _FACT_AT}


_COUNT = re.compile(r"(?<=\s)([a-z][a-z_0-9]*)=(\d{1,20})(?!\S)")

# Without the right to use netlink, `conntrack -S` prints the columns of /proc/net/stat/nf_conntrack. These three have
# other names there (the last one since Linux 5.15). "entries" is no counter but the size of the table, on each line.
_TODAYS = {"clashres": "clash_resolve", "icmp_error": "error", "chainlength": "chaintoolong"}


def parse_statistics(text: str) -> dict[str, int]:
    """What `conntrack -S` printed, a line a CPU: the sums, by the names of today. Empty where nothing is understood.

    >>> parse_statistics("cpu=0   \\tfound=1 drop=0 \\ncpu=1   \\tfound=2 drop=5 \\n")
    {'found': 3, 'drop': 5}
    """
    sums: dict[str, int] = {}
    for line in text.splitlines():
        for name, number in _COUNT.findall(line) if line.startswith("cpu=") else ():
            name = _TODAYS.get(name, name)
            sums[name] = sums.get(name, 0) + int(number)
    sums.pop("entries", None)
    return sums


def parse_addresses(text: str) -> frozenset[str]:
    """What OWN_COMMAND printed: this host's addresses, and the broadcast addresses of its networks.

    >>> sorted(parse_addresses("2: eth0    inet 192.0.2.1/24 brd 192.0.2.255 scope global eth0\\n"))
    ['192.0.2.1', 'broadcast=192.0.2.255']
    """
    own = {BROADCAST * (kind == "brd") + address for kind, address in re.findall(rf"\b(inet6?|brd) ({ADDRESS})", text)}
    return frozenset(own)


def parse_routes(text: str) -> frozenset[str]:
    """What ROUTES_COMMANDS printed: what else is delivered to this host.

    >>> sorted(parse_routes("local 198.51.100.0/24 dev lo\\nbroadcast 192.0.2.255 dev eth0\\nmulticast ff00::/8\\n"))
    ['198.51.100.0/24', 'broadcast=192.0.2.255']
    """
    found = re.findall(rf"^(local|broadcast|anycast) ({ADDRESS}(?:/\d{{1,3}})?)(?= |$)", text, re.MULTILINE)
    return frozenset(
        BROADCAST * (kind == "broadcast") + address for kind, address in found if not address.startswith("127.")
    )


_RTM_NEWADDR, _RTM_GETADDR, _RTM_NEWROUTE, _RTM_GETROUTE, _NLMSG_ERROR, _NLMSG_DONE = 20, 22, 24, 26, 2, 3
_RTM_NEWNEIGH, _RTM_GETNEIGH = 28, 30
_NDA_DST, _NDA_LLADDR = 1, 2
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _RTA_DST = 1, 2, 4, 1
_TABLE_LOCAL, _RTN_BROADCAST = 255, 3  # linux/rtnetlink.h: RT_TABLE_LOCAL
_DELIVERED = {2, _RTN_BROADCAST, 4}  # RTN_LOCAL, RTN_ANYCAST
_SOL_NETLINK, _STRICT = 270, 12  # NETLINK_GET_STRICT_CHK


def own_addresses() -> frozenset[str]:
    """All that this network namespace takes in for itself: addresses, and networks as "198.51.100.0/24".

    From rtnetlink(7), as a container has no `ip` command. The addresses come first; the routes of the table `local` say
    which others are delivered here (broadcast, anycast, `ip route add local`). Empty where the kernel refuses both.
    """
    found: set[str] = set()
    # struct ifaddrmsg (family 0: all); struct rtmsg (family, and the table as its fifth byte)
    for kind, message in _dump(_RTM_GETADDR, bytes(8)):
        _take_address(kind, message, found)
    for family in (socket.AF_INET, socket.AF_INET6):
        for kind, message in _dump(_RTM_GETROUTE, struct.pack("=8BI", family, 0, 0, 0, _TABLE_LOCAL, 0, 0, 0, 0)):
            _take_address(kind, message, found)
    return frozenset(found)


def neighbours() -> list[tuple[str, str]]:
    """Addresses of this network namespace's neighbours, each with its MAC address, as `ip neigh` prints them."""
    found: dict[str, str] = {}
    for kind, message in _dump(_RTM_GETNEIGH, bytes(12)):  # struct ndmsg (family 0: all)
        attributes = _attributes(message[28:]) if kind == _RTM_NEWNEIGH else {}
        raw, mac = attributes.get(_NDA_DST, b""), attributes.get(_NDA_LLADDR, b"")
        if len(mac) == 6 and len(raw) in (4, 16):
            found[socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)] = mac.hex(":")
    return list(found.items())


def _dump(kind: int, asked: bytes) -> Iterator[tuple[int, bytes]]:
    """What the kernel answers: the type of each message and all of it, up to the end of the dump or an error."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as link:
        link.settimeout(1.0)
        if kind == _RTM_GETROUTE:
            # Only then (Linux 4.20) does the kernel look at the table asked for. A router may have 1,000,000 routes.
            link.setsockopt(_SOL_NETLINK, _STRICT, 1)
        # struct nlmsghdr: length, type, flags, sequence, port
        link.send(struct.pack("=IHHII", 16 + len(asked), kind, _REQUEST_DUMP, 1, 0) + asked)
        while True:
            data = link.recv(1 << 16)
            while len(data) >= 16:
                length, answer = struct.unpack_from("=IH", data)
                if answer in (_NLMSG_DONE, _NLMSG_ERROR) or length < 16:
                    return
                yield answer, data[:length]
                data = data[(length + 3) & ~3 :]


def _take_address(kind: int, message: bytes, found: set[str]) -> None:
    """Take the addresses out of a message."""
    if kind == _RTM_NEWADDR and len(message) >= 24:
        attributes = _attributes(message[24:])
        # On point-to-point links ADDRESS is the peer.
        _add_address(message[16], attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS), None, found)
        _add_address(message[16], attributes.get(_IFA_BROADCAST), None, found, BROADCAST)
    elif kind == _RTM_NEWROUTE and len(message) >= 28 and message[20] == _TABLE_LOCAL and message[23] in _DELIVERED:
        mark = BROADCAST if message[23] == _RTN_BROADCAST else ""
        _add_address(message[16], _attributes(message[28:]).get(_RTA_DST), message[17], found, mark)


def _add_address(family: int, raw: bytes | None, length: int | None, found: set[str], mark: str = "") -> None:
    """``length``: of a network's prefix. 127.0.0.0/8 is not added: its addresses are known as loopback."""
    size = 4 if family == socket.AF_INET else 16
    if raw and len(raw) == size:
        text = socket.inet_ntop(family, raw)
        if length in (None, 8 * size):
            found.add(mark + text)
        elif not text.startswith("127."):
            found.add(f"{text}/{length}")


def _attributes(data: bytes) -> dict[int, bytes]:
    """Netlink attributes: struct rtattr (length, type) and a value, padded to 4 bytes."""
    out = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            break
        out[kind] = data[4:length]
        data = data[(length + 3) & ~3 :]
    return out


# --- the live source --------------------------------------------------------------------------------------------------

# Events are read at most so many times, and for so many seconds, before listings and keys have their turn. That is
# 10 ms of work, more only where lines are not understood. A listing is read once in a turn: 2 ms.
BURST, BURST_TIME = 4, 0.1

# Seconds to let output gather. conntrack writes a listing 4 KiB at a time and events line by line; waking up for each
# write would cost more than reading it. What gathers is at most half of the pipe: 0.5 MiB of a listing, or 1,500 events
# of 30,000 a second.
LISTING_GATHERS, EVENTS_GATHER = 0.01, 0.05

# Bytes of events that wait in our memory while we are behind: 160,000 events. The pipe has room for 5,000, the socket
# for 15,000; what comes when both are full is lost.
EVENTS_AHEAD = 32 << 20

# The pause after a listing that cost d seconds of processor time, conntrack's and ours. With 262,144 buckets the
# listing of an empty table takes 45 ms, which every 2 s would be 1/40 of a core: so the pause is SMALL_SHARE * d for
# each second of the interval. For large tables it is LARGE_PAUSE + LARGE_SHARE * d. A listing of 200,000 flows costs
# 1.2 s. No rate gets older than OLDEST_RATE seconds, unless listings would then take more than a third of a core. The
# time on the wall is no cost: a listing that starved for 9 s in a flood would put off the next one for 18 s.
SMALL_SHARE = 30.0
LARGE_SHARE, LARGE_PAUSE = 6.0, 3.0
OLDEST_RATE = 9.5

# Events that were lost are made good by a listing that begins when CALM seconds have passed without another loss and
# without events that wait, whatever the listing before it cost. Each further one within STORM seconds waits STORM_STEP
# seconds longer, twice its cost at most: with 200,000 flows and a loss every few seconds that comes to 0.4 of a core.
# While losses go on, listings take a third of a core at most: they then show what they can.
CALM, IN_STEP = 0.4, 0.3
STORM, STORM_STEP = 60.0, 0.5
VAIN_EVERY = 10.0  # seconds between two listings that are given up because they began too early for that
SOONEST = 0.2  # seconds between two listings for losses that go on
ANYWAY = 1.0  # seconds from a loss to a listing that does not wait for calm: one 0.2 s after it was mostly given up

EVENT_MEMORY = 1280  # bytes that an event takes in conntrack's socket (Linux 6.18, UDP and TCP)
FEW_EVENTS = 200 * EVENT_MEMORY  # less than that in the socket is on its way, not waiting
SOCKET_EVERY = 0.5  # seconds between two looks at that socket: a look takes 0.1 ms
LOSSES_EVERY = 0.02  # ... while events are known to be lost
RATE_OF = 3.0  # seconds: how many events are read in one is measured over so many
TOLD = 0.5  # seconds: being behind is said anew when it has changed by so much

SSH_FAILED = 255  # exit status of ssh if ssh itself failed, not the command on the other side
BACKOFF = (1.0, 2.0, 5.0, 10.0, 30.0)  # seconds before a child is started again
SETTLED = 30.0  # seconds: when a child ran so long, its next death begins the back-off anew
FACTS_EVERY = 5.0  # seconds
OWN_EVERY, OWN_EVERY_HERE = 60.0, 5.0  # seconds; here it costs 0.2 ms, and a link that fails over is seen soon
STATISTICS_EVERY = 10.0  # seconds
STATISTICS_FIRST = 1.0  # seconds after the start, so that the first listing and the first screen come before it
LEAST_INTERVAL, MOST_INTERVAL = 0.25, 64.0  # seconds between listings that keys can set
REMADE_EVERY = 1.0  # seconds between two looks whether the namespace is still the same
DEAF_AFTER = 1.0  # seconds that an event may need: longer than that, and nobody listens where it happens
DEAF_AGAIN = 60.0  # seconds until the same may be said of the next listener
NAMESPACES = "/run/netns"  # where ip-netns(8) keeps those that have a name
OPENING = 1.0  # seconds in which conntrack opens its socket
LOOK = 0.02  # seconds between looks for that socket
LONGEST_ANSWER = 1 << 20  # characters of a short command's answer; 1,000 addresses are 100 KiB
ASKED_EVERY = 1.0  # seconds between listings while the key that asks for them is held down
ROUTES_EVERY = 600.0  # seconds: few people ever add one, and each question is a login where --via is ssh
OWN_PATIENCE = 3.0  # seconds: an ssh login takes one, and a host without the ip command answers at once


class Source(Protocol):
    """The face of all sources."""

    name: str
    """What is shown as the place the data comes from."""
    live: bool

    @property
    def command(self) -> Command | None:
        """How conntrack is run; None for a recording."""

    def fds(self) -> list[int]: ...

    def deadline(self) -> float | None: ...

    def poll(self) -> Iterator[Item]: ...

    def clock(self) -> float:
        """Now, on the scale of the items' times."""

    def list_now(self) -> None:
        """Ask for a fresh listing, where there is anything to ask."""

    def pace(self, factor: float) -> float | None:
        """Multiply the pause between listings; the new one in seconds, None where nothing is listed."""

    def unannounced(self, flows: int) -> None:
        """A whole listing has shown so many flows that began since the one before, and no event has told of them."""

    def close(self) -> None: ...


# --- what is run ---------------------------------------------------------------------------------------------------


def _backoff(failures: int) -> float:
    """Seconds until the next try after so many failures before this one."""
    return BACKOFF[min(failures, len(BACKOFF) - 1)]


def _listing_pause(interval: float, cost: float, took: float, machines: int = 1) -> float:
    """Seconds between a listing that ``took`` so long, and cost so many seconds of processor time, and the next.

    ``machines``: the program lists the tables of so many, and all together cost the share that one would.
    """
    share = cost * machines
    pause = min(SMALL_SHARE * interval * share, LARGE_PAUSE + LARGE_SHARE * share, OLDEST_RATE - took)
    return max(interval, pause, 2 * cost)


@dataclass(frozen=True)
class Command:
    """How conntrack is called: prefix, program, and the filters it can apply exactly."""

    via: Sequence[str] = ()
    conntrack: str = "conntrack"
    filters: Sequence[str] = ()
    plain_events: bool = False  # -E does not take the filters

    def events(self) -> list[str]:
        filters = () if self.plain_events else self.filters
        return [*self.via, self.conntrack, "-E", "-o", "extended,id,timestamp", *filters]

    def listing(self) -> list[str]:
        return [*self.via, self.conntrack, "-L", "-o", "extended,id", *self.filters]

    def statistics(self) -> list[str]:
        return [*self.via, self.conntrack, "-S"]


def _named_namespace(via: Sequence[str]) -> str:
    """The file of the namespace that `ip netns exec` enters; "" where the command enters none by name.

    >>> _named_namespace(["sudo", "ip", "netns", "exec", "blue"])
    '/run/netns/blue'
    """
    words = list(via)
    for at in range(len(words) - 3):
        if words[at + 1 : at + 3] == ["netns", "exec"] and os.path.basename(words[at]) == "ip":
            return os.path.join(NAMESPACES, words[at + 3])
    return ""


SSH_TAKES = "BbcDEeFIiJLlmOopQRSWw"  # ssh(1): options with a value


def ssh_host(via: Sequence[str]) -> str:
    """The host in an ssh command; "" where there is none.

    >>> ssh_host(["ssh", "-p", "2222", "-o", "ServerAliveInterval=5", "root@router"])
    'router'
    """
    words = iter(via)
    for word in words:
        if word.rpartition("/")[2] != "ssh":
            continue
        for word in words:
            if not word.startswith("-"):
                host = word.removeprefix("ssh://").rpartition("@")[2]
                return host if host.count(":") > 1 else host.partition(":")[0]
            if word[-1] in SSH_TAKES and len(word) == 2:
                next(words, None)
    return ""


def node_of(via: Sequence[str]) -> str:
    """The name of the machine that commands reach this way, as far as nobody is asked: else it is this machine's."""
    return ssh_host(via) or os.uname().nodename


HOSTNAME_PATIENCE = 3.0  # seconds: more than a command needs to get into a container


def host_names(ways: Sequence[Sequence[str]]) -> list[str]:
    """What `hostname` says there, asked of all at once; "" where nothing is answered in time."""
    asked: list[Child | None] = []
    try:
        for via in ways:
            try:
                asked.append(Child([*via, "hostname"]))
            except OSError:  # no such program
                asked.append(None)
        until, waits = time.monotonic() + HOSTNAME_PATIENCE, [child for child in asked if child is not None]
        while waits and time.monotonic() < until:
            poll = select.poll()
            for fd in (fd for child in waits for fd in child.fds()):
                poll.register(fd, select.POLLIN)
            poll.poll(ANSWER_LOOKED_AT * 1000)
            waits = [child for child in waits if _goes_on(child)]
        return [_answer_of(child) for child in asked]
    finally:
        for child in asked:
            if child is not None:
                child.stop()


ANSWER_LOOKED_AT = 0.005  # seconds between two looks whether a child that has closed its output has ended


def _goes_on(child: Child) -> bool:
    """Read on; is there more to come?"""
    child.collect()
    child.read_errors()
    return child.ended() is None


def _answer_of(child: Child | None) -> str:
    """The line that a command has printed, if it was no failure; "" where it is anything else."""
    if child is None or child.ended() != 0:
        return ""
    lines = child.collect().decode("utf-8", "replace").split("\n")
    return lines[0].strip() if len(lines) == 2 else ""


def pushed_down(protocols: Sequence[str], families: Sequence[str]) -> list[str]:
    """The filters that conntrack can apply exactly as we would: one protocol it knows by name, one family.

    More than one of a sort it can't; a state it must not (``--state`` with -E hides the transition out of it).
    """
    by_number = {PROTOCOLS[name]: name for name in PUSHED_DOWN}
    names = {by_number.get(int(p), p) if p.isascii() and p.isdigit() else p.lower() for p in protocols}
    words: list[str] = []
    if len(names) == 1 and (name := next(iter(names))) in PUSHED_DOWN:
        words += ["-p", name]
    # "-f ipv6 -p icmp" is an error to conntrack and an empty table to us.
    if len(set(families)) == 1 and not any(name.startswith("icmp") for name in names):
        words += ["-f", families[0]]
    return words


class _Age:
    """How old the events are that are read, by the times that conntrack stamped on them and by what still waits.

    conntrack stamps an event when it takes it from its socket. So an event has waited in the pipe since its stamp, and
    before that in the socket for as long as it takes to read what is there now.

    The kernel tells conntrack once that a socket has no room, at once, and from then on drops all events until that
    socket has been read empty: 13,000 events later, of which nobody is told. So a loss lasts until then.
    """

    def __init__(self, now: float) -> None:
        self._newest = now  # all that had left the socket by then has been read
        self._oldest = 0.0  # seconds: age of the oldest events that were read since ``behind_since_asked``
        self._offset: float | None = None  # our clock less the stamps', at the least that was seen
        self._stamp = 0.0  # the newest
        self._read: deque[tuple[float, int]] = deque()  # when how many events were read, in the last seconds
        self._socket = EventSocket()  # as it was seen last
        self._empty = now  # when it had next to nothing last
        self._looked = 0.0
        self._congested = False  # it drops events until it is empty

    def read(self, data: bytes, now: float, drained: float, clock: float | None) -> None:
        """So much was read now, and at ``drained`` nothing was left in the pipe.

        ``clock``: seconds since 1970 on the clock that the stamps are of; None where that is another machine's.
        """
        self._read.append((now, data.count(b"\n")))
        while now - self._read[0][0] > RATE_OF:
            self._read.popleft()
        at = _last_stamp(data)
        if at is not None:
            if clock is None:
                clock = self._as_theirs(at, now)
            # A clock that was set makes no event older than what has waited here can be.
            age = min(max(0.0, clock - at), now - self._newest)
            self._newest = max(self._newest, now - age)
            self._oldest = max(self._oldest, now - self._newest)
        self.drained(drained)

    def drained(self, at: float) -> None:
        self._newest = max(self._newest, at)

    def look(self, pid: int | None, now: float, every: float = SOCKET_EVERY) -> bool:
        """See what waits in the socket, where that can be seen. True: events have been dropped, or may still be."""
        if pid is None or now - self._looked < every or (socket := event_socket(pid)) is None:
            return False
        self._looked, before, self._socket = now, self._socket, socket
        if socket.waiting <= FEW_EVENTS:
            self._empty = now
        dropped = socket.dropped > before.dropped
        # More of them wait than before: so it was empty in between, and takes events in.
        self._congested = socket.waiting > 0 and (dropped or (self._congested and socket.waiting <= before.waiting))
        return dropped or self._congested

    def behind(self, now: float) -> float:
        """Seconds by which what was read is older than now."""
        waits = 0.0
        if self._socket.waiting > FEW_EVENTS and self._read:
            spent = max(0.2, now - self._read[0][0])
            waits = self._socket.waiting / EVENT_MEMORY * spent / max(1, sum(number for _, number in self._read))
            waits = min(waits, now - self._empty)  # 400 events in the first 0.05 s of a flood are no rate
        return max(0.0, now - self._newest) + waits

    def behind_since_asked(self, now: float) -> float:
        """Seconds behind now, or by which events that were read since the last call were late, if that is more.

        What waited for 3 s may be read all at once: nothing is late any more then, but it was.
        """
        oldest, self._oldest = self._oldest, 0.0
        return max(self.behind(now), oldest)

    def _as_theirs(self, stamp: float, now: float) -> float:
        """Now on the clock of another machine: the events that came fastest took no time."""
        if self._offset is None or stamp < self._stamp - 0.5:  # its clock was set back
            self._offset = now - stamp
        self._stamp = stamp
        self._offset = min(self._offset, now - stamp)
        return now - self._offset


_STAMPED = re.compile(rb"\[(\d{1,12}\.\d{1,6})")


def _last_stamp(data: bytes) -> float | None:
    """The time on the last of whole lines."""
    found = _STAMPED.match(data, data.rfind(b"\n", 0, -1) + 1)
    return float(found.group(1)) if found else None


class LiveSource:
    """The running kernel's table: one `conntrack -E` for as long as it lives, a `conntrack -L` again and again."""

    live = True

    def __init__(
        self, command: Command, interval: float, events: bool = True, statistics: bool = False, machines: int = 1
    ) -> None:
        """``events``: listen to them; ``statistics``: ask `conntrack -S` now and then, where somebody looks at it.

        ``machines``: whose tables the program lists in all.
        """
        self.command = command
        self.interval, self._machines = interval, machines
        self.name = " ".join(command.via) or os.uname().nodename
        self._events = _Restarted(lambda: self.command.events()) if events else None
        self._listing: Child | None = None
        self._listing_due = self._listing_began = 0.0
        self._listing_failures = 0
        self._cut_at = 0.0  # when a listing last failed as it does where the way there is cut
        self._listing_ours = 0.0  # seconds of processor time that taking it in has cost us so far
        self._listing_here = False  # its conntrack runs on this machine
        self._listing_namespace: int | None = None  # that it runs in, where that could be seen
        self._listing_calm = False  # it began when all events had been read, so that it makes good what was lost
        self._again_at = math.inf  # when the next listing may begin that was asked for while one ran
        self._missing: float | None = None  # when events were lost last that no listing has made good yet
        self._missing_since = 0.0  # ... and first
        self._missing_due = self._calm_due = 0.0  # when a listing for that may begin: while losses go on, in calm
        self._mending: deque[float] = deque()  # when listings ended that began when it was calm after a loss
        self._lost_at = -math.inf  # when it was said last that events were lost
        self._vain_due = 0.0  # when a listing may be given up because it can make nothing good
        self._age, self._told_behind = _Age(self.clock()), 0.0
        self._events_pid: int | None = None  # the process that listens, on this machine
        self._events_heard = 0.0  # when an event came last
        self._before_began = math.inf  # when the whole listing before the newest one began
        self._whole_began = math.inf  # ... and the newest
        self._deaf_since: float | None = None  # when a listing showed flows that no event told of
        self._deaf_at = -math.inf  # when that was the reason for another listener last
        self._named = _named_namespace(command.via)
        self._moved_to: int | None = None  # the namespace for which the listener was renewed last
        self._room, self._is_narrow = 0, False  # net.core.rmem_default; lost events for want of it
        self._asked: dict[str, Child] = {}
        self._facts_due = self._own_due = self._routes_due = self._remade_due = 0.0
        self._own: dict[str, frozenset[str]] = {}  # what each command said of this host's addresses
        self._statistics_due = self.clock() + STATISTICS_FIRST if statistics else math.inf

    def clock(self) -> float:
        return time.monotonic()

    def fds(self) -> list[int]:
        children = [self._events.child if self._events else None, self._listing, *self._asked.values()]
        return [fd for child in children if child for fd in child.fds()]

    def deadline(self) -> float | None:
        now = self.clock()
        due = [self._facts_due, self._own_due, self._statistics_due]
        due += [self._routes_due] if self.command.via else []
        if self._events and self._events.child is None:
            due.append(self._events.due)
        if self._events and self._events.opening:
            due.append(now + LOOK)
        if self._deaf_since is not None:
            due.append(self._deaf_since + DEAF_AFTER)
        if self._told_behind:
            due.append(now + TOLD)
        if self._listing:
            due.append(self._listing.patience.looked + LISTENED)
        else:
            due.append(now + 0.1 if self._awaits_own(now) else self._next_listing(now))
            if self._missing is not None:
                due.append(now + 0.1)  # it may be calm by then
        for child in (self._listing, self._events and self._events.child):
            if child and child.out is None:
                due.append(now + 0.05)  # it closed its output and has not ended yet
            elif child and child.has_more:
                due.append(now)
            elif child and child.gathers_until > now:
                due.append(child.gathers_until)
        return min(due)

    def poll(self) -> Iterator[Item]:
        """Events first: a DESTROY must not wait behind the listing that still names its flow."""
        resting = self._listing is not None and self._listing.gathers_until > self.clock()
        if self._events and self._events.child and self._listing and not resting:
            self._events.child.gather_no_longer()
        if self._events:
            yield from self._poll_events(self._events)
            yield from self._look_for_losses(self._events, LOSSES_EVERY)
            yield from self._poll_namespace(self._events)
        yield from self._poll_host()
        if not resting:  # else the listing would come before events that still gather
            yield from self._poll_listing()
        yield from self._tell_behind()

    def close(self) -> None:
        children = [self._events.child if self._events else None, self._listing, *self._asked.values()]
        for child in filter(None, children):
            child.signal(signal.SIGTERM)  # all are told before any is waited for, and all share one patience
        until = self.clock() + STOP_PATIENCE
        for child in filter(None, children):
            child.stop(max(0.0, until - self.clock()))

    def pace(self, factor: float) -> float:
        fastest, slowest = min(LEAST_INTERVAL, self.interval), max(MOST_INTERVAL, self.interval)
        self.interval = max(fastest, min(self.interval * factor, slowest))
        self._listing_due = min(self._listing_due, self.clock() + self.interval)
        return self.interval

    def list_now(self) -> None:
        """A listing as soon as possible: what it will name begins after this moment."""
        earliest = self._listing_began + ASKED_EVERY
        if self._listing:
            self._again_at = min(self._again_at, earliest)
        else:
            self._listing_due = min(self._listing_due, max(self.clock(), earliest))

    # --- events ---

    def _poll_events(self, events: _Restarted) -> Iterator[Item]:
        now = self.clock()
        if events.child is None:
            if now < events.due:
                return
            problem = events.start(now)
            if problem:
                yield Trouble(now, "events", problem)
                return
            assert events.child
            self._age, self._listing_namespace = _Age(now), None
            self._events_pid = None if self.command.via else events.child.process.pid
            if events.failures:  # only a listing that begins now can tell what happened without a listener
                self._resync(now)
        child = events.child
        assert child
        events.enlarge_buffer(now)
        for _ in range(BURST):
            data = child.read() if self.clock() - now < BURST_TIME else b""
            if not data:
                break
            if events.becomes_well():
                yield Trouble(now, "events", None)
            self._hear(data, child)
            yield Block(data, now, events=True)
        self._age.drained(child.drained)
        said = child.read_errors()
        if said and is_loss(said.decode("utf-8", "replace")):
            yield self._lost(child, now)
        quiet = now - child.started > 1.0 and child.out is not None  # it runs, it just has nothing to say
        if quiet and events.becomes_well():
            yield Trouble(now, "events", None)
        status = child.ended()
        if status is not None:
            yield from self._events_ended(events, child, status, now)

    def _events_ended(self, events: _Restarted, child: Child, status: int, now: float) -> Iterator[Item]:
        if status == 2 and self.command.filters and not self.command.plain_events:
            # conntrack 1.4.6 and older refuse -f with -E. Without -f they send too much; our own filter drops it.
            self.command = replace(self.command, plain_events=True)
            events.gone(now)
            events.begin_anew(now)
            return
        if status == 0 and child.leftover:
            yield Block(child.leftover, now, events=True)
        yield Trouble(now, "events", child.problem(status))
        events.gone(now)
        self._resync(now)

    def _renew_events(self, now: float) -> None:
        """The way to the other machine was cut and is back: start the listener for events again.

        The old one may wait for ever on a connection that only this side still knows, because the router was started
        anew or a NAT on the way has forgotten it.
        """
        events = self._events
        if self.command.via and events and events.child and events.child.started < self._cut_at:
            events.gone(now)
            events.start_at_once(now)

    def _lost(self, child: Child, now: float) -> Lost:
        """Events were lost, and have to be made good."""
        self._lost_at = now
        self._resync(now)
        self._is_narrow = not child.widened
        return Lost(now, "events (ENOBUFS)", narrow=self._is_narrow)

    def _look_for_losses(self, events: _Restarted, every: float) -> Iterator[Item]:
        """A loss that is known goes on in silence. It is said anew where a listing that runs can't make it good."""
        now = self.clock()
        if events.child is None or self._missing is None or not self._age.look(self._events_pid, now, every):
            return
        if self._listing is not None and self._lost_at < self._listing_began:
            yield self._lost(events.child, now)
        self._resync(now)

    def _resync(self, now: float) -> None:
        """Events are missing: list again. Listings that fail keep their pauses."""
        if self._missing is None:
            self._missing_since = now
        self._missing = now

    def _hear(self, data: bytes, child: Child) -> None:
        """Events have come: how old are they?"""
        now = self.clock()
        self._events_heard, self._deaf_since = now, None
        ours = not self.command.via or self._events_pid is not None
        self._age.read(data, now, child.drained, time.time() if ours else None)

    def _tell_behind(self) -> Iterator[Item]:
        """Say how old what was read is, where that has changed."""
        now, listens = self.clock(), self._events is not None and self._events.child is not None
        if listens:
            self._age.look(self._events_pid, now)
        behind = self._age.behind_since_asked(now) if listens else 0.0
        behind = 0.0 if behind < TOLD else behind
        if abs(behind - self._told_behind) >= TOLD or (not behind and self._told_behind):
            self._told_behind = behind
            yield Behind(now, behind)

    # --- the namespace ---

    def unannounced(self, flows: int) -> None:
        """Began while somebody listened, and not a single event has come since: it may still be on its way."""
        events = self._events
        if not flows or not events or events.child is None or self._deaf_since is not None:
            return
        listened = self._before_began > events.child.started + OPENING > self._deaf_at + DEAF_AGAIN
        if listened and self._events_heard < self._before_began < math.inf:
            self._deaf_since = self.clock()

    def _poll_namespace(self, events: _Restarted) -> Iterator[Item]:
        """What listens must be what is listed: a namespace (a container) that is made anew has the old one's name only.

        The listener keeps the old one alive and would wait there for ever.
        """
        now = self.clock()
        if events.child is None:
            return
        if self._deaf_since is not None and now - self._deaf_since >= DEAF_AFTER:
            self._deaf_at = now
            yield from self._listen_anew(events, now, "a listing shows flows that no event told of")
        elif self.command.via and now >= self._remade_due:
            self._remade_due = now + REMADE_EVERY
            if self._events_pid is None:
                self._events_pid = events.child.worker(self.command.conntrack)
            if self._is_remade():
                yield from self._listen_anew(events, now, "the network namespace was made anew")

    def _is_remade(self) -> bool:
        """Is what the command leads to now another namespace than the one that is listened in?"""
        theirs = namespace_of(self._events_pid) if self._events_pid is not None else None
        now = self._listing_namespace
        if self._named:
            with contextlib.suppress(OSError):
                now = os.stat(self._named).st_ino
        if theirs is None or now is None or now in (theirs, self._moved_to):
            return False
        self._moved_to = now  # where that changes nothing, it is not tried again
        return True

    def _listen_anew(self, events: _Restarted, now: float, why: str) -> Iterator[Item]:
        self._deaf_since = None
        yield Lost(now, f"events ({why})")
        events.gone(now)
        events.begin_anew(now)
        self._resync(now)

    # --- listings ---

    def _poll_listing(self) -> Iterator[Item]:
        now = self.clock()
        if self._listing is None:
            if now < self._next_listing(now) or self._awaits_own(now):
                return
            argv = self.command.listing()
            self._listing_began, self._listing_calm = now, self._is_calm(now)
            self._listing_ours, self._listing_here = 0.0, False
            try:
                self._listing = Child(argv, LISTING_GATHERS)
            except OSError as error:
                yield from self._listing_failed(now, not_started(argv, error))
                return
            yield ListingBegan(now, in_step=self._listing_calm)
        child = self._listing
        if data := child.read():
            if self.command.via and not self._listing_here:
                self._find(child)
            spent = time.process_time()
            yield Block(data, now)
            self._listing_ours += time.process_time() - spent
        child.read_errors()
        status = child.ended()
        if status is None and not child.is_over() and self._is_in_vain(now):  # what has died says so first
            child.stop()
            self._listing = None
            yield ListingEnded(now, complete=False)
            return
        if status is None:
            if not (why := child.patience.complaint()):
                return
            child.stop()
            yield ListingEnded(now, complete=False)
            self._cut_at = now
            yield from self._listing_failed(now, Problem(f"{child.name()}: {why}"))
            return
        child.stop()
        yield from self._listing_ended(child, status, now)

    def _listing_ended(self, child: Child, status: int, now: float) -> Iterator[Item]:
        if status == 0 and self._lists_ipv4_only(child):
            problem = self._list_ipv6_too(child)
            if problem:
                yield ListingEnded(now, complete=False)
                yield from self._listing_failed(now, problem)
            return
        if status == 0 and child.leftover:  # after a failure the line may be cut off
            yield Block(child.leftover, now)
        complete = status == 0 and not child.leftover
        if self._events:
            yield from self._look_for_losses(self._events, 0.0)
        if complete:
            self._before_began, self._whole_began = self._whole_began, self._listing_began
        spent = time.process_time()
        yield ListingEnded(now, complete)
        self._listing_ours += time.process_time() - spent
        if complete:
            yield from self._listing_done(child, now)
        else:
            if status == SSH_FAILED:
                self._cut_at = now
            yield from self._listing_failed(now, child.problem(status))

    def _find(self, child: Child) -> None:
        """Where does the listing's conntrack run?"""
        pid = child.worker(self.command.conntrack)
        self._listing_here = pid is not None
        self._listing_namespace = namespace_of(pid) if pid is not None else None

    def _awaits_own(self, now: float) -> bool:
        """The first listing waits for this host's addresses, or its flows would have no direction."""
        asked = [child for what, child in self._asked.items() if what in ("own", *ROUTES_COMMANDS)]
        return self._listing_due == 0.0 and any(now - child.started < OWN_PATIENCE for child in asked)

    def _lists_ipv4_only(self, child: Child) -> bool:
        """Before 1.4.7 conntrack lists IPv4 only, unless asked for IPv6; half a table must not sweep the other half."""
        version = re.search(rb"^conntrack v(\d+)\.(\d+)\.(\d+)", child.stderr, re.MULTILINE)
        return (
            version is not None
            and tuple(map(int, version.groups())) < (1, 4, 7)
            and child.argv == self.command.listing()
            and "-f" not in self.command.filters
        )

    def _list_ipv6_too(self, child: Child) -> Problem | None:
        """Go on with the other family, as part of the same listing."""
        argv = [*child.argv, "-f", "ipv6"]
        try:
            self._listing = Child(argv, LISTING_GATHERS)
        except OSError as error:
            return not_started(argv, error)
        return None

    def _is_calm(self, now: float) -> bool:
        """Have all events been read, and has none been lost for a moment?"""
        lost = self._missing is not None and now - self._missing < CALM
        return not lost and (self._events is None or self._age.behind(now) < IN_STEP)

    def _is_in_vain(self, now: float) -> bool:
        """It is calm, and the listing that runs was begun too early to make good what was lost: begin anew.

        To wait for its end, and then for that of the next one, took 13 s with 200,000 flows.
        """
        missing = self._missing
        if missing is None or not self._is_calm(now) or now < max(self._vain_due, self._calm_due):
            return False
        if self._listing_calm and missing < self._listing_began:
            return False
        self._vain_due = now + VAIN_EVERY
        return True

    def _next_listing(self, now: float) -> float:
        """When the next listing is due. A loss that no listing has made good asks for one as soon as it is calm.

        A listing made in the middle of a flood does not: events from before it come after it.
        """
        due, missing = self._listing_due, self._missing
        if missing is None or self._listing_failures:
            return due
        if self._is_calm(now):
            return min(due, self._calm_due)
        soon = max(missing + CALM, now + LOOK)  # it may be calm by then
        return (
            min(due, soon, max(self._missing_since + ANYWAY, self._missing_due))
            if self._listing_began <= missing
            else min(due, soon)
        )

    def _listing_done(self, child: Child, now: float) -> Iterator[Item]:
        took = now - self._listing_began
        # Of a command that runs on another machine only the time on the wall can be known.
        here = not self.command.via or self._listing_here
        cost = child.cpu + self._listing_ours if here else took
        self._listing = None
        if self._events:
            self._listing_due = now + _listing_pause(self.interval, cost, took, self._machines)
        else:  # --sample: the second listing begins that long after the first
            self._listing_due = now + max(0.0, self.interval - took)
        self._missing_due = now + max(SOONEST, 2 * cost)
        if self._listing_calm and self._missing is not None:
            self._mended(now, cost)
        if self._again_at < math.inf:
            self._listing_due = min(self._listing_due, max(self._again_at, self._missing_due))
        self._again_at = math.inf
        self._listing_failures = 0
        self._renew_events(now)
        yield Trouble(now, "listing", None)

    def _mended(self, now: float, cost: float) -> None:
        """A listing that began when it was calm has made good what was lost before it."""
        assert self._missing is not None
        self._mending.append(now)
        while now - self._mending[0] > STORM:
            self._mending.popleft()
        self._calm_due = now + min(2 * cost, STORM_STEP * (len(self._mending) - 1))
        if self._missing <= self._listing_began:
            self._missing = None

    def _listing_failed(self, now: float, problem: Problem) -> Iterator[Item]:
        self._listing = None
        self._again_at = math.inf
        self._listing_due = now + _backoff(self._listing_failures)
        self._listing_failures += 1
        yield Trouble(now, "listing", problem)

    # --- the host ---

    def _poll_host(self) -> Iterator[Item]:
        now = self.clock()
        if now >= self._facts_due:
            self._facts_due = now + FACTS_EVERY
            if not self.command.via:
                yield from self._take_facts(read_facts(), now)
            else:
                self._ask("facts", [*self.command.via, *FACTS_COMMAND])
        if now >= self._own_due:
            self._own_due = now + (OWN_EVERY if self.command.via else OWN_EVERY_HERE)
            if not self.command.via:
                yield from self._take_own("here", own_addresses(), now)
            else:
                self._ask("own", [*self.command.via, *OWN_COMMAND])
        if self.command.via and now >= self._routes_due:
            self._routes_due = now + ROUTES_EVERY
            for what, words in ROUTES_COMMANDS.items():
                self._ask(what, [*self.command.via, *words])
        if now >= self._statistics_due:
            self._statistics_due = now + STATISTICS_EVERY
            self._ask("statistics", self.command.statistics())
        for what, child in list(self._asked.items()):
            yield from self._poll_answer(what, child, now)

    def _take_facts(self, values: dict[str, int], now: float) -> Iterator[Item]:
        """Pass them on. The socket of a listener that starts now may have the room that the one now lacked."""
        yield Facts(now, values)
        room, self._room = self._room, values.get("rmem_default", self._room)
        events = self._events
        if self._is_narrow and 0 < room < self._room and events and events.child:
            self._is_narrow = False
            yield from self._listen_anew(events, now, "begun anew, with more room")

    def _ask(self, what: str, argv: list[str]) -> None:
        if what not in self._asked:
            try:
                self._asked[what] = Child(argv)
            except OSError:
                pass  # conntrack has the same prefix, fails in the same way, and says so

    def _poll_answer(self, what: str, child: Child, now: float) -> Iterator[Item]:
        answer = child.collect()
        child.read_errors()
        if child.ended() is None:
            if now - child.started > SILENCE or len(answer) > LONGEST_ANSWER:
                child.stop()
                del self._asked[what]
            return
        child.stop()
        del self._asked[what]
        text = (answer + child.leftover).decode("utf-8", "replace")
        if what == "facts" and (values := parse_facts(text)):
            yield from self._take_facts(values, now)
        # Without the right to use netlink the numbers are true, too, and the exit status is 1.
        if what == "statistics" and (values := parse_statistics(text)):
            yield Statistics(now, values)
        own = parse_addresses(text) if what == "own" else parse_routes(text) if what in ROUTES_COMMANDS else None
        if own:
            yield from self._take_own(what, own, now)

    def _take_own(self, what: str, own: frozenset[str], now: float) -> Iterator[Item]:
        """Pass on what was said of this host's addresses, where it is new. Then the local routes have changed, too."""
        if own != self._own.get(what):
            self._routes_due = now if what == "own" and what in self._own else self._routes_due
            self._own[what] = own
            yield OwnAddresses(now, frozenset[str]().union(*self._own.values()))


class _Restarted:
    """A child that is started again, with growing pauses, whenever it ends."""

    def __init__(self, argv: Callable[[], list[str]]) -> None:
        self.argv = argv
        self.child: Child | None = None
        self.due = 0.0
        self._well = False
        self.opening = False  # its socket is still to be widened
        self.failures = 0

    def start(self, now: float) -> Problem | None:
        try:
            self.child = Child(self.argv(), EVENTS_GATHER, ahead=EVENTS_AHEAD)
            self.child.raise_priority()
            self.opening = True
        except OSError as error:
            self._later(now)
            return not_started(self.argv(), error)
        return None

    def enlarge_buffer(self, now: float) -> None:
        """Give its socket more room as soon as it has opened it."""
        if self.opening and self.child and (self.child.enlarge_buffer() or now - self.child.started > OPENING):
            self.opening = False

    def becomes_well(self) -> bool:
        """It runs: is that new?"""
        news, self._well = not self._well, True
        return news

    def start_at_once(self, now: float) -> None:
        """Start the next one at once."""
        self.due = now

    def begin_anew(self, now: float) -> None:
        """Start the next one at once, as if none had failed."""
        self.due, self.failures = now, 0

    def gone(self, now: float) -> None:
        assert self.child
        if now - self.child.started > SETTLED:
            self.failures = 0
        self.child.stop()
        self.child = None
        self._well = self.opening = False
        self._later(now)

    def _later(self, now: float) -> None:
        self.due = now + _backoff(self.failures)
        self.failures += 1
