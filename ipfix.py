"""IPFIX: what is told of flows and of translations -> templates, records and messages, as bytes.

Two kinds of records: events of NAT (RFC 8158) and flows, one for each direction. A record holds what is known and
nothing else: which elements it has is in the number of its template (see ``template``), so that no zero ever stands
for what nobody knows. Messages are those of RFC 7011, for one observation domain.
"""

from __future__ import annotations

import struct
import zlib
from collections import deque
from collections.abc import Iterable, Mapping
from functools import cache
from typing import NamedTuple

# --- elements ---------------------------------------------------------------------------------------------------------

# Elements by their numbers: IANA's name, and how a value is packed. flowId has 64 bits, and the kernel's ids have 32:
# RFC 7011, 6.2, lets a number be sent in as many bytes as it needs.
ELEMENTS: Mapping[int, tuple[str, str]] = {
    1: ("octetDeltaCount", "Q"),
    2: ("packetDeltaCount", "Q"),
    4: ("protocolIdentifier", "B"),
    7: ("sourceTransportPort", "H"),
    8: ("sourceIPv4Address", "4s"),
    11: ("destinationTransportPort", "H"),
    12: ("destinationIPv4Address", "4s"),
    27: ("sourceIPv6Address", "16s"),
    28: ("destinationIPv6Address", "16s"),
    32: ("icmpTypeCodeIPv4", "H"),
    61: ("flowDirection", "B"),
    136: ("flowEndReason", "B"),
    139: ("icmpTypeCodeIPv6", "H"),
    148: ("flowId", "I"),
    152: ("flowStartMilliseconds", "Q"),
    153: ("flowEndMilliseconds", "Q"),
    225: ("postNATSourceIPv4Address", "4s"),
    226: ("postNATDestinationIPv4Address", "4s"),
    227: ("postNAPTSourceTransportPort", "H"),
    228: ("postNAPTDestinationTransportPort", "H"),
    230: ("natEvent", "B"),
    234: ("ingressVRFID", "I"),
    281: ("postNATSourceIPv6Address", "16s"),
    282: ("postNATDestinationIPv6Address", "16s"),
    323: ("observationTimeMilliseconds", "Q"),
}
# natEvent: RFC 8158, table 2. 1 and 2 are the numbers from before it, by which nfdump up to 1.7.2 names events.
CREATED, DELETED = 4, 5
LEGACY = {CREATED: 1, DELETED: 2}
# flowEndReason: RFC 5102, 5.11.3.
IDLE_TIMEOUT, ACTIVE_TIMEOUT, END_DETECTED, FORCED_END = 1, 2, 3, 4
INGRESS, EGRESS = 0, 1  # flowDirection

# --- templates --------------------------------------------------------------------------------------------------------

FIRST = 256  # the least number of a template
# What a record has beside what all have; a template's number is FIRST and these together.
V6, PORTS, ICMP_TYPE, COUNTED, DIRECTED, IDENTIFIED, STARTED, TRANSLATED, OF_FLOW = (1 << bit for bit in range(9))


class RecordTemplate(NamedTuple):
    """What records of one number are made of."""

    elements: tuple[int, ...]
    packed: struct.Struct

    @property
    def size(self) -> int:
        """Bytes of a record."""
        return self.packed.size


@cache  # there are 512 numbers
def template(number: int) -> RecordTemplate:
    """The template of a number, which says by its bits which elements it has.

    >>> template(FIRST + PORTS).elements
    (323, 152, 153, 230, 4, 8, 12, 7, 11, 225, 226, 227, 228, 234)
    """
    bits = number - FIRST
    src, dst, icmp, post_src, post_dst = (27, 28, 139, 281, 282) if bits & V6 else (8, 12, 32, 225, 226)
    ports = (7, 11) if bits & PORTS else ()
    ends = (src, dst, *ports, *((icmp,) if bits & ICMP_TYPE else ()))
    post = (post_src, post_dst, *((227, 228) if ports else ()))
    elements: tuple[int, ...] = (323, 152, 153, 230, 4, *ends, *post, 234)
    if bits & OF_FLOW:
        elements = (152, 153) if bits & STARTED else (153,)
        elements += (1, 2) if bits & COUNTED else ()
        elements += (4, 136, *ends, *(post if bits & TRANSLATED else ()))
        elements += ((148,) if bits & IDENTIFIED else ()) + ((61,) if bits & DIRECTED else ())
    return RecordTemplate(elements, struct.Struct("!" + "".join(ELEMENTS[element][1] for element in elements)))


def _template_text(number: int) -> bytes:
    """A template record: RFC 7011, 3.4.1."""
    elements = template(number).elements
    sizes = [struct.calcsize("!" + ELEMENTS[element][1]) for element in elements]
    fields = b"".join(struct.pack("!HH", element, size) for element, size in zip(elements, sizes))
    return struct.pack("!HH", number, len(elements)) + fields


# --- records ----------------------------------------------------------------------------------------------------------


class TuplePair(NamedTuple):
    """Both tuples of a flow as they are sent; None where its protocol has no such thing, or nobody said it."""

    protocol: int
    src: bytes  # 4 or 16 bytes, as all addresses here
    dst: bytes
    sport: int | None
    dport: int | None
    reply_src: bytes
    reply_dst: bytes
    reply_sport: int | None
    reply_dport: int | None
    icmp: int | None = None  # type * 256 + code
    reply_icmp: int | None = None
    zone: int = 0  # of the original tuple; 0 is the kernel's default zone
    kernel_id: int | None = None

    @property
    def translated(self) -> bool:
        return (
            self.src != self.reply_dst
            or self.dst != self.reply_src
            or self.sport != self.reply_dport
            or self.dport != self.reply_sport
        )


class FlowReport(NamedTuple):
    """What a flow has moved between two times, milliseconds since 1970, and why it is told now."""

    start: int | None
    end: int
    reason: int  # flowEndReason
    counts: tuple[int, int, int, int] | None  # packets and bytes of the original direction, then of the reply
    outward: bool | None = None  # does the original direction leave this site? None: nobody knows


Values = tuple[bytes | int | None, ...]


class Records:
    """Records that wait for their messages, by the numbers of their templates.

    Adding one raises struct.error where a number is larger than its element; then nothing has been added.
    """

    def __init__(self) -> None:
        self._packed: dict[int, bytearray] = {}
        self.number = 0

    def add_nat_event(self, its: TuplePair, at: int, event: int) -> None:
        """``at``: milliseconds since 1970. It is the event's time and both ends of its "flow", for old collectors."""
        protocol, src, dst, sport, dport, reply_src, reply_dst, reply_sport, reply_dport, icmp, _, zone, _ = its
        number = FIRST + V6 if len(src) == 16 else FIRST
        values: Values
        if sport is not None:
            number += PORTS
            values = (src, dst, sport, dport, reply_dst, reply_src, reply_dport, reply_sport)
        elif icmp is not None:
            number += ICMP_TYPE
            values = (src, dst, icmp, reply_dst, reply_src)
        else:
            values = (src, dst, reply_dst, reply_src)
        self._add(number, template(number).packed.pack(at, at, at, event, protocol, *values, zone), 1)

    def add_flow(self, its: TuplePair, report: FlowReport) -> None:
        """Two records: one for each direction."""
        start, end, reason, counts, outward = report
        protocol, src, dst, sport, dport, reply_src, reply_dst, reply_sport, reply_dport, *others = its
        icmp, reply_icmp, _, kernel_id = others
        bits = OF_FLOW | V6 if len(src) == 16 else OF_FLOW
        there: Values = (src, dst)
        back: Values = (reply_src, reply_dst)
        if sport is not None:
            bits |= PORTS
            there, back = (src, dst, sport, dport), (reply_src, reply_dst, reply_sport, reply_dport)
            post: tuple[Values, Values] = (reply_dst, reply_src, reply_dport, reply_sport), (dst, src, dport, sport)
        else:
            post = (reply_dst, reply_src), (dst, src)
            if icmp is not None and reply_icmp is not None:
                bits |= ICMP_TYPE
                there, back = (src, dst, icmp), (reply_src, reply_dst, reply_icmp)
        if its.translated:
            bits |= TRANSLATED
            there, back = there + post[0], back + post[1]
        times: Values = (end,) if start is None else (start, end)
        bits |= 0 if start is None else STARTED
        if counts is not None:
            bits |= COUNTED
            packets, size, back_packets, back_size = counts
            there = (*times, size, packets, protocol, reason, *there)
            back = (*times, back_size, back_packets, protocol, reason, *back)
        else:
            there, back = (*times, protocol, reason, *there), (*times, protocol, reason, *back)
        self._add_both(bits, kernel_id, outward, there, back)

    def _add_both(self, bits: int, kernel_id: int | None, outward: bool | None, there: Values, back: Values) -> None:
        if kernel_id is not None:
            bits, there, back = bits | IDENTIFIED, (*there, kernel_id), (*back, kernel_id)
        if outward is not None:
            bits, there, back = bits | DIRECTED, (*there, outward), (*back, not outward)
        pack = template(FIRST + bits).packed.pack
        self._add(FIRST + bits, pack(*there) + pack(*back), 2)

    def _add(self, number: int, record: bytes, records: int) -> None:
        kept = self._packed.get(number)
        if kept is None:
            kept = self._packed[number] = bytearray()
        kept += record
        self.number += records

    def take(self) -> list[RecordSet]:
        """All of them; from now on there are none."""
        packed, self._packed, self.number = self._packed, {}, 0
        return [RecordSet(number, memoryview(bytes(records))) for number, records in packed.items()]


class RecordSet(NamedTuple):
    """Records of one template."""

    number: int
    records: memoryview


# --- messages ---------------------------------------------------------------------------------------------------------

MOST_MESSAGE = 1400  # bytes: with the headers of UDP and IPv6 less than the 1,500 of Ethernet
AGAIN_AFTER, AGAIN_SECONDS = 20, 60.0  # messages and seconds after which templates are sent again, where that is needed
_HEADER = struct.Struct("!HHIII")
_SET = struct.Struct("!HH")
_TEMPLATES = 2  # the number of a set of templates
_VERSION = 10


class IpfixMessage(NamedTuple):
    """A message, and how many data records it holds."""

    data: bytes
    records: int


class MessageStream:
    """All that one collector is told in a row: numbers its records, and tells templates before they are needed."""

    def __init__(self, domain: int, again: bool) -> None:
        """``again``: templates are told again and again: UDP may lose the first ones, and collectors restart."""
        self._domain, self._again = domain, again
        self._sequence = 0
        self._told: dict[int, float] = {}  # templates, and when they were told
        self._since = 0  # data messages since the templates were told again

    def next_messages(self, waiting: deque[RecordSet], now: float) -> list[IpfixMessage]:
        """A message with as many of the records that wait as fit into it, and before it the templates that are due.

        ``now``: seconds since 1970. The records are taken from ``waiting``.
        """
        body, room, records, needed = bytearray(), MOST_MESSAGE - _HEADER.size, 0, []
        while waiting:
            number, packed = waiting[0]
            size = template(number).size
            taken = packed[: (room - _SET.size) // size * size] if room > _SET.size else packed[:0]
            if not taken:
                break
            if len(taken) < len(packed):
                waiting[0] = RecordSet(number, packed[len(taken) :])
            else:
                waiting.popleft()
            padding = -len(taken) % 4
            body += _SET.pack(number, _SET.size + len(taken) + padding)
            body += taken
            body += b"\0" * padding
            room = MOST_MESSAGE - _HEADER.size - len(body)
            records += len(taken) // size
            needed.append(number)
        if not records:
            return []
        messages = self._due_templates(needed, now)
        messages.append(IpfixMessage(self._message(body, now), records))
        self._sequence = (self._sequence + records) & 0xFFFFFFFF
        self._since += 1
        return messages

    def template_messages(self, numbers: Iterable[int], now: float) -> list[IpfixMessage]:
        """All templates that were told before, once more, and these."""
        return self._tell(list({**self._told, **dict.fromkeys(numbers)}), now)

    def skip(self, records: int) -> None:
        """So many records were lost before they had a message: who counts the numbers notices."""
        self._sequence = (self._sequence + records) & 0xFFFFFFFF

    def _due_templates(self, needed: list[int], now: float) -> list[IpfixMessage]:
        if self._again and (
            self._since >= AGAIN_AFTER or any(abs(now - at) >= AGAIN_SECONDS for at in self._told.values())
        ):
            return self._tell(list({**self._told, **dict.fromkeys(needed)}), now)
        return self._tell([number for number in dict.fromkeys(needed) if number not in self._told], now)

    def _tell(self, numbers: list[int], now: float) -> list[IpfixMessage]:
        if not numbers:
            return []
        messages, body = [], b""
        for number in numbers:
            text = _template_text(number)
            if len(body) + len(text) + _SET.size + _HEADER.size > MOST_MESSAGE:
                messages.append(self._templates(body, now))
                body = b""
            body += text
        messages.append(self._templates(body, now))
        if len(numbers) >= len(self._told):
            self._since = 0
        self._told |= dict.fromkeys(numbers, now)
        return messages

    def _templates(self, body: bytes, now: float) -> IpfixMessage:
        return IpfixMessage(self._message(_SET.pack(_TEMPLATES, _SET.size + len(body)) + body, now), 0)

    def _message(self, body: bytes | bytearray, now: float) -> bytes:
        size, seconds = _HEADER.size + len(body), int(now) & 0xFFFFFFFF
        return _HEADER.pack(_VERSION, size, seconds, self._sequence, self._domain) + body


def domain_of(node: str) -> int:
    """The observation domain that stands for a node: the CRC-32 of its name in UTF-8. 0 means no certain one.

    >>> domain_of("r7")
    3832392836
    """
    return zlib.crc32(node.encode("utf-8", "surrogateescape")) or 1
