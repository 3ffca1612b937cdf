"""The fields of the filter language: a value -> a predicate over flows. ValueError says what is wrong with a value."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

import addresses
from addresses import MAX_REMEMBERED, WHOLE_MARK, Context, Place
from comparisons import SIZES, TIMES, compared
from flows import Flow, Group
from names import called, or_names
from parse import FLAGS, PROTOCOLS, STATES, WITH_PORTS
from text import ports_of, service

Predicate = Callable[[Flow], bool]


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
        return lambda flow: flow.group.kind.protocol == "unknown"
    number = int(name) if name.isascii() and name.isdigit() and len(name) <= 3 else PROTOCOLS.get(name, -1)
    if not 0 <= number <= 255:
        raise ValueError(f"'{value}' is no protocol: a number up to 255, or one of {' '.join(PROTOCOLS)}")
    return lambda flow: flow.group.kind.number == number


def by_state(value: str, context: Context) -> Predicate:
    """A state in any case, or a flag."""
    wanted = value.upper()
    if wanted in FLAGS:
        return _flag(value, context)
    if wanted not in STATES:
        raise ValueError(f"'{value}' is no state; there are: {' '.join(sorted(STATES))} {' '.join(FLAGS)}")
    return lambda flow: flow.group.state == wanted


def _flag(value: str, _context: Context) -> Predicate:
    wanted = value.upper()
    if wanted not in FLAGS:
        raise ValueError(f"'{value}' is no flag; there are: {' '.join(flag.lower() for flag in FLAGS)}")
    text = f"[{wanted}]".encode()
    return lambda flow: text in flow.rest and wanted in flow.flags()


def _remembering(test: Callable[[str], bool]) -> Callable[[bytes], bool]:
    """A test of a text that remembers what it was asked: 200,000 flows have far fewer addresses and ports."""
    known: dict[bytes, bool] = {}

    def answer(text: bytes) -> bool:
        if (answer := known.get(text)) is None:
            if len(known) > MAX_REMEMBERED:
                known.clear()
            answer = known[text] = test(text.decode())
        return answer

    return answer


def network(value: str) -> Callable[[bytes], bool]:
    """Is an address (as text) in a network (an address, or one with /LENGTH)?"""
    try:
        net = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError(f"'{value}' is no address or network (10.0.0.0/8, 2001:db8::/32)") from None

    def inside(address: str) -> bool:
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return ip.version == net.version and ip in net

    return _remembering(inside)


def _src(value: str, _context: Context) -> Predicate:
    inside = network(value)
    return lambda flow: inside(flow.addresses()[0])


def _dst(value: str, _context: Context) -> Predicate:
    inside = network(value)
    return lambda flow: inside(flow.addresses()[1])


def _host(value: str, _context: Context) -> Predicate:
    inside = network(value)

    def wanted(flow: Flow) -> bool:
        src, dst = flow.addresses()
        if inside(src) or inside(dst):
            return True
        if flow.plain:
            return False
        e = flow.ends()
        return inside(e.reply_src.encode()) or inside(e.reply_dst.encode())

    return wanted


def _ports(value: str) -> Callable[[bytes], bool]:
    low, dash, high = value.partition("-")
    if named := ports_of(value):
        return _remembering(lambda port: port != "" and int(port) in named)
    try:
        first, last = _port(low), _port(high if dash else low)
    except ValueError:
        raise ValueError(f"'{value}' is no port: 443, 8000-8999 or a name like https") from None
    if first > last:
        raise ValueError(f"'{value}' runs backwards")
    return _remembering(lambda port: port != "" and first <= int(port) <= last)


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
        raise ValueError
    return int(text)


def _either_port(value: str, _context: Context) -> Predicate:
    fits = _ports(value)

    def wanted(flow: Flow) -> bool:
        if flow.group.kind.number not in WITH_PORTS:
            return False
        sport, dport = flow.ports()
        if fits(dport) or fits(sport):
            return True
        if flow.plain:
            return False
        e = flow.ends()
        return any(port is not None and fits(b"%d" % port) for port in (e.reply_sport, e.reply_dport))

    return wanted


def _sport(value: str, _context: Context) -> Predicate:
    fits = _ports(value)
    return lambda flow: flow.group.kind.number in WITH_PORTS and fits(flow.ports()[0])


def _dport(value: str, _context: Context) -> Predicate:
    fits = _ports(value)
    return lambda flow: flow.group.kind.number in WITH_PORTS and fits(flow.ports()[1])


def _country(value: str, context: Context) -> Predicate:
    wanted = value.lower()

    def fits(flow: Flow) -> bool:
        place = context.remote(flow)
        return (place.country or "none").lower() == wanted or (place.country_name or "").lower() == wanted

    return fits


def _asn(value: str, context: Context) -> Predicate:
    if value.lower() == "none":
        return lambda flow: context.remote(flow).asn is None
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
    return lambda flow: addresses.direction(flow.ends(), context.own) == wanted


def _nat(value: str, context: Context) -> Predicate:
    wanted = value.lower()
    if wanted == "any":
        return lambda flow: not flow.plain and bool(flow.ends().nat)
    if wanted == "none":
        return lambda flow: flow.plain or not flow.ends().nat
    if wanted == "both":
        return lambda flow: not flow.plain and len(flow.ends().nat) == 2
    if wanted == "masq":
        return lambda flow: not flow.plain and (e := flow.ends()).nat == ["snat"] and e.reply_dst in context.own
    if wanted not in ("snat", "dnat"):
        raise ValueError(f"'{value}' is no kind of NAT; there are: snat masq dnat both any none")
    return lambda flow: not flow.plain and wanted in flow.ends().nat


def _number(text: str) -> int:
    if not re.fullmatch(r"0[xX][0-9a-fA-F]{1,8}|[0-9]{1,10}", text):
        raise ValueError(f"'{text}' is no number (16 or 0x10)")
    return int(text, 0) if text[:2].lower() == "0x" else int(text)


def mark_of(text: str) -> tuple[int, int]:
    """``0x10`` or ``0x10/0xf0``: the mark and the mask that is laid over a flow's mark before they are compared."""
    mark, slash, mask = text.partition("/")
    return _number(mark), _number(mask) if slash else WHOLE_MARK


def _mark(value: str, context: Context) -> Predicate:
    """A number, with a mask or without one, or a name from the settings."""
    pairs = called(value, context.marks)
    if not pairs:
        try:
            pairs = [mark_of(value)]
        except ValueError as error:
            raise ValueError(f"{error}{or_names(context.marks)}") from None
    return lambda flow: any(flow.mark() & mask == wanted for wanted, mask in pairs)


def _zone(value: str, context: Context) -> Predicate:
    """A number, or a name from the settings."""
    wanted = called(value, context.zones)
    if not wanted:
        try:
            wanted = [_number(value)]
        except ValueError as error:
            raise ValueError(f"{error}{or_names(context.zones)}") from None
    return lambda flow: not set(wanted).isdisjoint(flow.zones() or [0])


def _id(value: str, _context: Context) -> Predicate:
    wanted = _number(value)
    return lambda flow: flow.record().id == wanted


def _helper(value: str, _context: Context) -> Predicate:
    return lambda flow: flow.record().helper == value


def _label(value: str, _context: Context) -> Predicate:
    return lambda flow: value in (flow.record().labels or [])


def _bytes(value: str, _context: Context) -> Predicate:
    fits = compared(value, SIZES, "bytes:>1M")
    return lambda flow: fits(flow.total())


def _packets(value: str, _context: Context) -> Predicate:
    fits = compared(value, SIZES, "packets:>100")
    return lambda flow: fits(flow.packets())


def _rate(value: str, _context: Context) -> Predicate:
    fits = compared(value, SIZES, "rate:>100k (bytes a second)")
    return lambda flow: fits(flow.rate())


def _age(value: str, context: Context) -> Predicate:
    """Of a flow that is older than we know only "older than" can be said."""
    fits = compared(value, TIMES, "age:<10s")
    older = value.startswith(">")
    return lambda flow: (older or flow.knows_age()) and fits(flow.age(context.now))


def _timeout(value: str, context: Context) -> Predicate:
    fits = compared(value, TIMES, "timeout:<30s")
    return lambda flow: fits(flow.remaining(context.now))


def bare(word: str, context: Context) -> Predicate:
    """A bare word searches everything shown: ``word in shown_text(flow)``, in a tenth of its time.

    Most of what is shown is shared by many flows, and is asked once; the rest is looked at as it was printed.
    """
    if " " in word or not word:
        return lambda flow: word in shown_text(flow, context)
    text = word.encode("utf-8", "surrogatepass")
    groups: dict[Group, bool] = {}
    places: dict[Place, bool] = {}
    flags = [b"[%b]" % flag.encode() for flag in FLAGS if word in flag.lower()]
    in_direction = any(word in way for way in ("in", "out", "fwd", "local"))
    in_address = re.fullmatch(r"[0-9a-f.:]+", word) is not None
    with_port = ":" in word
    is_service = _remembering(lambda of: word in (service(*_protocol_port(of)) or ""))

    def in_ends(flow: Flow) -> bool:
        (src, dst), (sport, dport) = flow.addresses(), flow.ports()
        src, dst = src.lower(), dst.lower()
        if with_port:
            return text in b"%b:%b" % (src, sport) or text in b"%b:%b" % (dst, dport)
        return text in src or text in dst or text in sport or text in dport

    def wanted(flow: Flow) -> bool:
        group = flow.group
        if not flow.plain or not group.kind.family or group.kind.number not in WITH_PORTS:
            return word in shown_text(flow, context)
        if (known := groups.get(group)) is None:
            known = groups[group] = any(
                word in part for part in (flow.family, group.kind.protocol, (group.state or "").lower())
            )
        if known or (any(flag in flow.rest for flag in flags) and any(word in flag.lower() for flag in flow.flags())):
            return True
        if in_address and in_ends(flow):
            return True
        if is_service(b"%b %b" % (group.kind.protocol.encode(), flow.ports()[1])):
            return True
        if in_direction and word in (addresses.direction(flow.ends(), context.own) or ""):
            return True
        place = context.remote(flow)
        if (known := places.get(place)) is None:
            if len(places) > MAX_REMEMBERED:
                places.clear()
            known = places[place] = any(word in str(part).lower() for part in place if part is not None)
        return known

    return wanted


def _protocol_port(text: str) -> tuple[str, int]:
    protocol, _, port = text.partition(" ")
    return protocol, int(port)


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
    texts.append(addresses.direction(e, context.own) or "")
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
