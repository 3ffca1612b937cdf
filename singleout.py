"""The options with which conntrack takes exactly one flow, or why it has none.

Tried on conntrack 1.4.7, Linux 6.18 (tests/test_deletion.py):

* Without ``-w``, -D takes the tuple out of every zone. ``-w 0`` is the default zone, and flows with direction zones.
* ``--srckey`` and ``--dstkey`` of GRE are read and ignored: the addresses alone decide.
* ``--id=N`` (the "=" is needed: ``--id N`` is a segmentation fault) is compared for -D as all else is; -L refuses it.
  It tells flows apart that nothing else does: GRE calls, and one that took an ended one's tuple. So no flow without id.
* For each -D conntrack has the whole table listed and compares itself; what it then sends is that flow's tuple and
  zones, without the id. A flow that took the same tuple in the milliseconds between is beyond any option.
* The kernel makes the id of where the entry lies in memory and of its tuple: a tuple that is used again at once may get
  the same id. Only its events tell those two flows apart (``Flow.ended``).
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from flows import Flow
from parse import PROTOCOLS, PUSHED_DOWN, WITH_PORTS, Record, Tuple

_NAMES = {PROTOCOLS[name]: name for name in PUSHED_DOWN}
_ADDRESS = re.compile(r"[0-9a-fA-F:.]{2,45}")  # no network, no scope, no dash in front
_KEY = re.compile(r"0x[0-9a-f]{1,8}")
_ICMP, _GRE, _DCCP, _ICMPV6 = 1, 47, 33, 58
_OTHER_FAMILY = {_ICMP: "ipv6", _ICMPV6: "ipv4"}
_NO_ID = "conntrack gave no id for it"
_ODD = "its addresses, ports or zones are none that conntrack prints"
_ICMP_FAMILY = "conntrack can't select one family's ICMP in the other"


class Selection(NamedTuple):
    """What conntrack is told to find one flow."""

    family: str  # ipv4, ipv6
    protocol: str  # as -p takes it
    words: list[str]  # for -L and -D, family and protocol included
    id: int

    def deleting(self) -> list[str]:
        """The words for -D: no other flow has them all, and what went is printed with its id."""
        return ["-o", "id", *self.words, self.name()]

    def name(self) -> str:
        """The word that only this flow has."""
        return f"--id={self.id}"


class Refusal(NamedTuple):
    """No options single the flow out."""

    why: str


class _Odd(ValueError):
    """A value that conntrack would read as another one, or not at all."""


def selection(flow: Flow) -> Selection | Refusal:
    """How conntrack finds this flow and no other; what came from a recording never becomes an option."""
    record = flow.record()
    if record.id is None:
        return Refusal(_NO_ID)
    family, number = flow.family, record.kind.number
    if _OTHER_FAMILY.get(number) == family:
        return Refusal(_ICMP_FAMILY)
    try:
        protocol = _NAMES.get(number) or _number(number, 255)
        words = ["-f", family, "-p", protocol, *_tuple(record, family), *_zones(record)]
        return Selection(family, protocol, words, int(_number(record.id, 2**32 - 1)))
    except _Odd:
        return Refusal(_ODD)


def _tuple(record: Record, family: str) -> list[str]:
    number, original, reply = record.kind.number, record.original, record.reply
    words = ["-s", _address(original.src, family), "-d", _address(original.dst, family)]
    if number in WITH_PORTS and not _has_no_tracker(number, original):
        words += ["--sport", _number(original.sport), "--dport", _number(original.dport)]
    elif number in (_ICMP, _ICMPV6):
        name = _NAMES[number]
        words += [f"--{name}-type", _number(original.type, 255), f"--{name}-code", _number(original.code, 255)]
        words += [f"--{name}-id", _number(original.icmp_id)]
    elif number == _GRE:
        words += ["--srckey", _key(original.srckey), "--dstkey", _key(original.dstkey)]
    if (reply.src, reply.dst, reply.sport, reply.dport) != (original.dst, original.src, original.dport, original.sport):
        words += ["-r", _address(reply.src, family), "-q", _address(reply.dst, family)]
        if "--sport" in words:
            words += ["--reply-port-src", _number(reply.sport), "--reply-port-dst", _number(reply.dport)]
    return words


def _has_no_tracker(number: int, original: Tuple) -> bool:
    """DCCP on a kernel that has no tracker for it: conntrack prints ports of 0 and finds nothing by them."""
    return number == _DCCP and original.sport == original.dport == 0


def _zones(record: Record) -> list[str]:
    words = []
    if record.original.zone:
        words += ["--orig-zone", _number(record.original.zone)]
    if record.reply.zone:
        words += ["--reply-zone", _number(record.reply.zone)]
    return words or ["-w", _number(record.zone or 0)]


def _number(value: int | None, most: int = 65_535) -> str:
    """conntrack cuts larger numbers to their last bits: port 65616 would be 80."""
    if value is None or not 0 <= value <= most:
        raise _Odd
    return str(value)


def _key(value: str | None) -> str:
    if value is None or not _KEY.fullmatch(value):
        raise _Odd
    return value


def _address(text: str, family: str) -> str:
    if not _ADDRESS.fullmatch(text):
        raise _Odd
    try:
        version = ipaddress.ip_address(text).version
    except ValueError:
        raise _Odd from None
    if family != f"ipv{version}":
        raise _Odd
    return text
