"""The fields of the filter language: a value -> a predicate over flows. ValueError says what is wrong with a value."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field

import ends
from flow import Flow
from names import PROTOCOLS, STATES, WITH_PORTS, ports_of, service
from parse import FLAGS
from places import NOWHERE, Detail, Place

Predicate = Callable[[Flow], bool]


@dataclass
class Context:
    """What predicates need beside the flow: the time, this host's addresses, where an address is."""

    now: float = 0.0
    own: Set[str] = field(default_factory=frozenset)
    where: Callable[[str], Place] = lambda _address: NOWHERE
    detail: Callable[[str], Detail] = lambda _address: Detail()

    def remote(self, flow: Flow) -> Place:
        return self.where(ends.remote(flow.ends(), self.own))


def by_family(value: str, _context: Context) -> Predicate:
    """ "ipv4", "ipv6", "4" or "6"."""
    wanted = {"4": "ipv4", "6": "ipv6"}.get(value, value.lower())
    if wanted not in ("ipv4", "ipv6"):
        raise ValueError(f"'{value}' is no family; there are: ipv4 ipv6")
    return lambda flow: flow.family == wanted


def by_protocol(value: str, _context: Context) -> Predicate:
    """A name or a number."""
    name = value.lower()
    if name == "unknown":
        return lambda flow: flow.kind.protocol == "unknown"
    number = int(name) if name.isascii() and name.isdigit() and len(name) <= 3 else PROTOCOLS.get(name, -1)
    if not 0 <= number <= 255:
        raise ValueError(f"'{value}' is no protocol: a number up to 255, or one of {' '.join(PROTOCOLS)}")
    return lambda flow: flow.kind.number == number


def by_state(value: str, context: Context) -> Predicate:
    """A state in any case, or a flag."""
    wanted = value.upper()
    if wanted in FLAGS:
        return _flag(value, context)
    if wanted not in STATES:
        raise ValueError(f"'{value}' is no state; there are: {' '.join(sorted(STATES))} {' '.join(FLAGS)}")
    return lambda flow: flow.state == wanted


def _flag(value: str, _context: Context) -> Predicate:
    wanted = value.upper()
    if wanted not in FLAGS:
        raise ValueError(f"'{value}' is no flag; there are: {' '.join(flag.lower() for flag in FLAGS)}")
    return lambda flow: wanted in flow.flags()


def _network(value: str) -> Callable[[str], bool]:
    """Is an address (as text) in a network (an address, or one with /LENGTH)? Remembers what it was asked."""
    try:
        net = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError(f"'{value}' is no address or network (10.0.0.0/8, 2001:db8::/32)") from None
    known: dict[str, bool] = {}

    def inside(address: str) -> bool:
        if (answer := known.get(address)) is None:
            if len(known) > 65_536:
                known.clear()
            try:
                ip = ipaddress.ip_address(address)
                answer = ip.version == net.version and ip in net
            except ValueError:
                answer = False
            known[address] = answer
        return answer

    return inside


def _src(value: str, _context: Context) -> Predicate:
    inside = _network(value)
    return lambda flow: inside(flow.ends().src)


def _dst(value: str, _context: Context) -> Predicate:
    inside = _network(value)
    return lambda flow: inside(flow.ends().dst)


def _host(value: str, _context: Context) -> Predicate:
    inside = _network(value)

    def wanted(flow: Flow) -> bool:
        e = flow.ends()
        return inside(e.src) or inside(e.dst) or inside(e.reply_src) or inside(e.reply_dst)

    return wanted


def _ports(value: str) -> Callable[[int | None], bool]:
    low, dash, high = value.partition("-")
    if named := ports_of(value):
        return lambda port: port in named
    try:
        first, last = _port(low), _port(high if dash else low)
    except ValueError:
        raise ValueError(f"'{value}' is no port: 443, 8000-8999 or a name like https") from None
    if first > last:
        raise ValueError(f"'{value}' runs backwards")
    return lambda port: port is not None and first <= port <= last


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
        raise ValueError
    return int(text)


def _either_port(value: str, _context: Context) -> Predicate:
    fits = _ports(value)

    def wanted(flow: Flow) -> bool:
        if flow.kind.number not in WITH_PORTS:
            return False
        e = flow.ends()
        return fits(e.sport) or fits(e.dport) or fits(e.reply_sport) or fits(e.reply_dport)

    return wanted


def _sport(value: str, _context: Context) -> Predicate:
    fits = _ports(value)
    return lambda flow: flow.kind.number in WITH_PORTS and fits(flow.ends().sport)


def _dport(value: str, _context: Context) -> Predicate:
    fits = _ports(value)
    return lambda flow: flow.kind.number in WITH_PORTS and fits(flow.ends().dport)


def _country(value: str, context: Context) -> Predicate:
    wanted = value.lower()

    def fits(flow: Flow) -> bool:
        place = context.remote(flow)
        return (place.country or "").lower() == wanted or (place.country_name or "").lower() == wanted

    return fits


def _asn(value: str, context: Context) -> Predicate:
    digits = value[2:] if value[:2].lower() == "as" else value
    if not re.fullmatch(r"[0-9]{1,10}", digits):
        raise ValueError(f"'{value}' is no AS number (15169 or AS15169)")
    return lambda flow: context.remote(flow).asn == int(digits)


def _org(value: str, context: Context) -> Predicate:
    wanted = value.lower()
    return lambda flow: wanted in (context.remote(flow).org or "").lower()


def _city(value: str, context: Context) -> Predicate:
    wanted = value.lower()
    return lambda flow: wanted in (context.remote(flow).city or "").lower()


def _direction(value: str, context: Context) -> Predicate:
    wanted = value.lower()
    if wanted not in ("in", "out", "fwd", "local"):
        raise ValueError(f"'{value}' is no direction; there are: in out fwd local")
    return lambda flow: ends.direction(flow.ends(), context.own) == wanted


def _nat(value: str, _context: Context) -> Predicate:
    wanted = value.lower()
    if wanted == "any":
        return lambda flow: bool(flow.ends().nat)
    if wanted == "none":
        return lambda flow: not flow.ends().nat
    if wanted not in ("snat", "dnat"):
        raise ValueError(f"'{value}' is no kind of NAT; there are: snat dnat any none")
    return lambda flow: wanted in flow.ends().nat


def _number(text: str) -> int:
    if not re.fullmatch(r"0[xX][0-9a-fA-F]{1,8}|[0-9]{1,10}", text):
        raise ValueError(f"'{text}' is no number (16 or 0x10)")
    return int(text, 0) if text[:2].lower() == "0x" else int(text)


def _mark(value: str, _context: Context) -> Predicate:
    text, slash, mask_text = value.partition("/")
    wanted = _number(text)
    mask = _number(mask_text) if slash else 0xFFFFFFFF
    return lambda flow: flow.mark() & mask == wanted


def _zone(value: str, _context: Context) -> Predicate:
    wanted = _number(value)
    return lambda flow: wanted in (flow.zones() or [0])


def _id(value: str, _context: Context) -> Predicate:
    wanted = _number(value)
    return lambda flow: flow.record().id == wanted


def _helper(value: str, _context: Context) -> Predicate:
    return lambda flow: flow.record().helper == value


def _label(value: str, _context: Context) -> Predicate:
    return lambda flow: value in (flow.record().labels or [])


_SIZES = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_TIMES = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_COMPARED = re.compile(
    r"(>=|<=|>|<|=)?([0-9]{1,20}(?:\.[0-9]{1,9})?)([A-Za-z]*)(?:-([0-9]{1,20}(?:\.[0-9]{1,9})?)([A-Za-z]*))?"
)


def _compared(value: str, units: Mapping[str, float], example: str) -> Callable[[float | None], bool]:
    """``>1M``, ``<=10s``, ``5k``, ``1k-2k``: a comparison. What is unknown fits none."""
    match = _COMPARED.fullmatch(value)
    if match is None:
        raise ValueError(f"'{value}' can't be compared with; write {example}")
    sign, text, unit, upper, upper_unit = match.groups()
    for name in (unit, upper_unit or ""):
        if name.lower() not in units:
            raise ValueError(f"'{name}' is no unit; there are: {' '.join(u for u in units if u)}")
    low = float(text) * units[unit.lower()]
    if upper is not None:
        if sign:
            raise ValueError(f"'{value}' is a range and a comparison at once")
        high = float(upper) * units[upper_unit.lower()]
        return lambda number: number is not None and low <= number <= high
    return {
        ">": lambda number: number is not None and number > low,
        "<": lambda number: number is not None and number < low,
        ">=": lambda number: number is not None and number >= low,
        "<=": lambda number: number is not None and number <= low,
        "=": lambda number: number is not None and number == low,
    }[sign or "="]


def _bytes(value: str, _context: Context) -> Predicate:
    fits = _compared(value, _SIZES, "bytes:>1M")
    return lambda flow: fits(flow.total())


def _packets(value: str, _context: Context) -> Predicate:
    fits = _compared(value, _SIZES, "packets:>100")
    return lambda flow: fits(flow.packets())


def _rate(value: str, _context: Context) -> Predicate:
    fits = _compared(value, _SIZES, "rate:>100k (bytes a second)")
    return lambda flow: fits(flow.rate())


def _age(value: str, context: Context) -> Predicate:
    """Of a flow that is older than we know only "older than" can be said."""
    fits = _compared(value, _TIMES, "age:<10s")
    older = value.startswith(">")
    return lambda flow: (older or flow.knows_age()) and fits(flow.age(context.now))


def _timeout(value: str, context: Context) -> Predicate:
    fits = _compared(value, _TIMES, "timeout:<30s")
    return lambda flow: fits(flow.remaining(context.now))


def bare(word: str, context: Context) -> Predicate:
    """A bare word searches everything shown."""
    return lambda flow: word in shown_text(flow, context)


def shown_text(flow: Flow, context: Context) -> str:
    """Everything a row shows, in lower case: what a bare word searches."""
    e = flow.ends()
    texts: list[object] = [flow.family, flow.kind.protocol, flow.state or "", *flow.flags(), *e.nat]
    for address, port in (
        (e.src, e.sport),
        (e.dst, e.dport),
        (e.reply_src, e.reply_sport),
        (e.reply_dst, e.reply_dport),
    ):
        texts.append(address if port is None else f"{address}:{port}")
    texts.append(service(flow.kind.protocol, e.dport) or "")
    texts.append(ends.direction(e, context.own) or "")
    texts.extend(part for part in context.remote(flow) if part is not None)
    return " ".join(map(str, texts)).lower()


FIELDS: dict[str, Callable[[str, Context], Predicate]] = {
    "proto": by_protocol,
    "state": by_state,
    "family": by_family,
    "src": _src,
    "dst": _dst,
    "host": _host,
    "port": _either_port,
    "sport": _sport,
    "dport": _dport,
    "country": _country,
    "cc": _country,
    "asn": _asn,
    "org": _org,
    "city": _city,
    "dir": _direction,
    "nat": _nat,
    "mark": _mark,
    "zone": _zone,
    "flag": _flag,
    "bytes": _bytes,
    "packets": _packets,
    "rate": _rate,
    "age": _age,
    "timeout": _timeout,
    "id": _id,
    "helper": _helper,
    "label": _label,
}
