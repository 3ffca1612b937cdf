"""What the host says beside conntrack: sysctls of the connection table, and its own addresses.

Read directly, or, where a prefix (``--via``) stands before every command, out of what two common commands print.
"""

from __future__ import annotations

import re
import socket
import struct

_DIRECTORY = "/proc/sys/net/netfilter/nf_conntrack_"
FACTS = ("count", "max", "buckets", "acct", "events", "timestamp")
# grep prints "path:value" and goes on where a file is missing; busybox has the same flags.
FACTS_COMMAND = ["grep", "-Hs", ".", *(_DIRECTORY + name for name in FACTS)]
OWN_COMMAND = ["ip", "-o", "addr", "show"]


def read_facts() -> dict[str, int]:
    """The sysctls of this network namespace, by name without "nf_conntrack_"; what can't be read is left out."""
    values = {}
    for name in FACTS:
        try:
            with open(_DIRECTORY + name, encoding="ascii") as file:
                values[name] = int(file.read())
        except (OSError, ValueError):
            continue
    return values


def parse_facts(text: str) -> dict[str, int]:
    """What FACTS_COMMAND printed.

    >>> parse_facts("/proc/sys/net/netfilter/nf_conntrack_count:12\\nnonsense\\n")
    {'count': 12}
    """
    found = re.findall(r"^" + _DIRECTORY + r"([a-z]+):(\d{1,19})$", text, re.MULTILINE)
    return {name: int(value) for name, value in found}


_COUNT = re.compile(r"(?<=\s)([a-z][a-z_0-9]*)=(\d{1,20})(?!\S)")
# Who may not use netlink gets the columns of /proc/net/stat/nf_conntrack; these have other names there (the last one
# since Linux 5.15). "entries" is the size of the table, the same on each line, and nothing that is counted.
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
    """What OWN_COMMAND printed.

    >>> sorted(parse_addresses("2: eth0    inet 192.0.2.1/24 brd 192.0.2.255 scope global eth0\\n"))
    ['192.0.2.1']
    """
    return frozenset(re.findall(r"\binet6? ([0-9a-fA-F:.]+)", text))


_RTM_GETADDR, _RTM_NEWADDR, _NLMSG_ERROR, _NLMSG_DONE = 22, 20, 2, 3
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_IFA_ADDRESS, _IFA_LOCAL = 1, 2


def own_addresses() -> frozenset[str]:
    """All addresses of this network namespace, from rtnetlink(7): a container has no `ip` command. Empty if refused."""
    found: set[str] = set()
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as link:
            link.settimeout(1.0)
            # struct nlmsghdr (length, type, flags, sequence, port), struct ifaddrmsg (family 0: all)
            link.send(struct.pack("=IHHII", 24, _RTM_GETADDR, _REQUEST_DUMP, 1, 0) + bytes(8))
            while _read_addresses(link.recv(1 << 16), found):
                pass
    except OSError:
        pass
    return frozenset(found)


def _read_addresses(data: bytes, found: set[str]) -> bool:
    """Take the addresses out of one netlink datagram; False at the end of the dump."""
    while len(data) >= 16:
        length, kind = struct.unpack_from("=IH", data)
        if kind in (_NLMSG_DONE, _NLMSG_ERROR) or length < 16:
            return False
        if kind == _RTM_NEWADDR:
            family = data[16]
            attributes = _attributes(data[24:length])
            raw = attributes.get(_IFA_LOCAL) or attributes.get(
                _IFA_ADDRESS
            )  # on point-to-point links ADDRESS is the peer
            if raw and len(raw) == (4 if family == socket.AF_INET else 16):
                found.add(socket.inet_ntop(family, raw))
        data = data[(length + 3) & ~3 :]
    return True


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
