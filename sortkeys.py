"""What rows are sorted by: functions that give the keys of all flows at once.

At once, because one regular expression over the text of many flows takes a fifth of the time of one call a flow. Keys
of flows that were asked for apart can be compared all the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from socket import AF_INET, AF_INET6, inet_aton, inet_pton
from typing import Any

from addresses import Context, Place
from flows import BYTES, IDLE, PACKETS, Flow, Group, matched, newest_texts

Keys = Callable[[Sequence[Any], Context], list[Any]]


NO_ADDRESS = 1 << 256  # beyond all addresses


NO_PLACE = "\U0010ffff"  # beyond all names


# What stands at the beginning of a flow's key: an address with the port, ICMP id or GRE key beside it.
_SOURCE = re.compile(rb"^\d+ src=(\S+) dst=\S+ (?:sport=(\d+)|type=\d+ code=\d+ id=(\d+)|srckey=0x([0-9a-f]+))?", re.M)


_DESTINATION = re.compile(
    rb"^\d+ src=\S+ dst=(\S+) (?:sport=\d+ dport=(\d+)|type=\d+ code=\d+ id=(\d+)|srckey=\S+ dstkey=0x([0-9a-f]+))?",
    re.M,
)


_ADDRESSES = re.compile(rb"^\d+ src=(\S+) dst=(\S+)", re.M)


def by_protocol(flows: Sequence[Flow], _context: Context) -> list[Any]:
    of = {group: f"{group.kind.protocol} {group.kind.number:5}" for group in _groups(flows)}
    return [of[flow.group] for flow in flows]


def by_state(flows: Sequence[Flow], _context: Context) -> list[Any]:
    states = {group: group.state for group in _groups(flows)}
    return [states[flow.group] or flow.status() for flow in flows]


def _groups(flows: Sequence[Flow]) -> set[Group]:
    return {flow.group for flow in flows}


def by_source(flows: Sequence[Flow], _context: Context) -> list[Any]:
    return _ends(flows, _SOURCE)


def by_destination(flows: Sequence[Flow], _context: Context) -> list[Any]:
    return _ends(flows, _DESTINATION)


def _ends(flows: Sequence[Flow], pattern: re.Pattern[bytes]) -> list[Any]:
    found = list(matched(pattern, [flow.key for flow in flows]))
    return [
        address + (int(port or icmp_id or 0) if not key else int(key, 16))
        for address, (_text, port, icmp_id, key) in zip(numbers([ends[0] for ends in found]), found)
    ]


def numbers(addresses: Sequence[bytes]) -> list[float]:
    """Addresses as numbers: IPv4 in numerical order, then IPv6, then what is no address; steps of 65,536 for a port.

    Floats (they hold 53 bits) are sorted in two thirds of the time of whole numbers as large.
    """
    try:
        return [
            _number(address) if b":" in address else 65536.0 * int.from_bytes(inet_aton(address.decode()), "big")
            for address in addresses
        ]
    except OSError:  # digits and dots that are none
        return [_number(address) for address in addresses]


def _number(address: bytes) -> float:
    text = address.decode()
    try:
        if ":" in text:
            return (1 << 48) + (int.from_bytes(inet_pton(AF_INET6, text), "big") << 16)
        return 65536.0 * int.from_bytes(inet_pton(AF_INET, text), "big")
    except OSError:
        return NO_ADDRESS + (int.from_bytes(address[:45].ljust(45, b"\0"), "big") << 16)


def by_nat(flows: Sequence[Flow], _context: Context) -> list[Any]:
    """Without a reply tuple of its own in its text, a flow has no NAT."""
    return ["".join(flow.ends().nat) if b"src=" in flow.rest else "" for flow in flows]


def by_place(pick: Callable[[Place], str | int | None], none: str | float = NO_PLACE) -> Keys:
    """By a fact about the remote end; what has none comes last."""

    def keys(flows: Sequence[Flow], context: Context) -> list[Any]:
        remotes = [
            context.remote_of(src, dst) if flow.plain else context.remote_address(flow)
            for flow, (src, dst) in zip(flows, matched(_ADDRESSES, [flow.key for flow in flows]))
        ]
        found = {address: pick(context.where(address)) for address in set(remotes)}
        facts = {address: none if fact is None else fact for address, fact in found.items()}
        return [facts[address] for address in remotes]

    return keys


def by_rate(flows: Sequence[Flow], _context: Context) -> list[Any]:
    return [
        0.0 if (rates := flow.course.rates) is IDLE else -1.0 if rates is None else rates[0] + rates[1]
        for flow in flows
    ]


def by_bytes(flows: Sequence[Flow], _context: Context) -> list[Any]:
    return _totals(flows, BYTES, Flow.total)


def by_packets(flows: Sequence[Flow], _context: Context) -> list[Any]:
    return _totals(flows, PACKETS, Flow.packets)


def _totals(flows: Sequence[Flow], pattern: re.Pattern[bytes], total: Callable[[Flow], int | None]) -> list[Any]:
    """Sums of two counters; ``total`` reads what the pattern does not fit. Without counters less than zero."""
    return [
        int(there) + int(back) if there else -1 if (number := total(flow)) is None else number
        for flow, (there, back) in zip(flows, matched(pattern, newest_texts(flows)))
    ]


def by_age(flows: Sequence[Flow], context: Context) -> list[Any]:
    now = context.now
    return [
        now - flow.born
        if (course := flow.course).ended is None and course.listed is None and b"delta-time=" not in flow.rest
        else flow.age(now)
        for flow in flows
    ]


def by_timeout(flows: Sequence[Flow], _context: Context) -> list[Any]:
    """By the moment at which the kernel forgets a flow."""
    return [
        math.inf if (left := flow.timeout) is None or flow.course.ended is not None else left + flow.sight.at
        for flow in flows
    ]
