"""The filter language: its fields, its grammar, and the predicates it compiles to."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from typing import NamedTuple, TypeVar

from addresses import MAX_REMEMBERED, UNNAMED, WHOLE_MARK, Context, Named, Place, Site
from flows import Flow, Group
from grouping import FAN_FIELDS, GROUPINGS, Baseline, service_key, service_name
from parse import ADDRESS, FLAGS, PROTOCOLS, STATES
from text import ports_of, service

# --- comparisons ------------------------------------------------------------------------------------------------------

SIZES = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
TIMES = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_COMPARED = re.compile(
    r"(>=|<=|>|<|=)?([0-9]{1,20}(?:\.[0-9]{1,9})?)([A-Za-z]*)(?:-([0-9]{1,20}(?:\.[0-9]{1,9})?)([A-Za-z]*))?"
)


def compared(value: str, units: Mapping[str, float], example: str) -> Callable[[float | None], bool]:
    """``>1M``, ``<=10s``, ``5k``, ``1k-2k``: a comparison. An unknown number matches none."""
    match = _COMPARED.fullmatch(value)
    if match is None:
        raise ValueError(f"'{value}' is not a comparison; write {example}")
    sign, text, unit, upper, upper_unit = match.groups()
    for name in (unit, upper_unit or ""):
        if name.lower() not in units:
            raise ValueError(f"'{name}' is not a unit; valid: {' '.join(u for u in units if u)}")
    low = float(text) * units[unit.lower()]
    if upper is not None:
        if sign:
            raise ValueError(f"'{value}' is both a range and a comparison")
        high = float(upper) * units[upper_unit.lower()]
        return lambda number: number is not None and low <= number <= high
    return {
        ">": lambda number: number is not None and number > low,
        "<": lambda number: number is not None and number < low,
        ">=": lambda number: number is not None and number >= low,
        "<=": lambda number: number is not None and number <= low,
        "=": lambda number: number is not None and number == low,
    }[sign or "="]


FEW_NAMES = 9  # names that an error lists: more are cut at the edge of a screen

# --- names from the settings ------------------------------------------------------------------------------------------

T = TypeVar("T")


def named(value: str, names: Mapping[T, str]) -> list[T]:
    """The keys with this name, in any case."""
    return [number for number, name in names.items() if name.casefold() == value.casefold()]


def or_close(value: str, names: Iterable[str], listed: str = "") -> str:
    """What may have been meant: the name most like it, else all names if they are few, else where they are listed."""
    from difflib import get_close_matches  # 5 ms, for errors only

    known = list(names)
    if near := get_close_matches(value.lower(), {name.lower(): name for name in known}, 1):
        return f"; did you mean {next(name for name in known if name.lower() == near[0])}?"
    if len(known) <= FEW_NAMES:
        return f"; valid: {' '.join(known)}"
    return listed or f"; for example {', '.join(known[:3])}"


def or_names(names: Mapping[T, str]) -> str:
    return f", nor a name; valid: {' '.join(dict.fromkeys(names.values()))}" if names else ""


# --- fields -----------------------------------------------------------------------------------------------------------

Predicate = Callable[[Flow], bool]


def by_family(value: str, _context: Context) -> Predicate:
    """ "ipv4", "ipv6", "4" or "6"."""
    wanted = {"4": "ipv4", "6": "ipv6"}.get(value, value.lower())
    if wanted not in ("ipv4", "ipv6"):
        raise ValueError(f"'{value}' is not a family; valid: ipv4 ipv6")
    return lambda flow: flow.family == wanted


def by_protocol(value: str, _context: Context) -> Predicate:
    """A name or a number."""
    name = value.lower()
    if name == "unknown":
        return lambda flow: flow.group.kind.protocol == "unknown"
    number = int(name) if name.isascii() and name.isdigit() and len(name) <= 3 else PROTOCOLS.get(name, -1)
    if not 0 <= number <= 255:
        instead = or_close(name, ["tcp", "udp", "icmp", *PROTOCOLS])
        raise ValueError(f"'{value}' is not a protocol: a number up to 255, or a name{instead}")
    return lambda flow: flow.group.kind.number == number


def by_state(value: str, context: Context) -> Predicate:
    """A state in any case, or a flag."""
    wanted = value.upper()
    if wanted == "NONE":  # of protocols without states
        return lambda flow: flow.group.state is None
    if wanted in FLAGS:
        return _flag(value, context)
    if wanted not in STATES:
        raise ValueError(
            f"'{value}' is not a state{or_close(value, ['ESTABLISHED', 'UNREPLIED', 'TIME_WAIT', *STATES, *FLAGS])}"
        )
    return lambda flow: flow.group.state == wanted


def _flag(value: str, _context: Context) -> Predicate:
    wanted = value.upper()
    if wanted == "NONE":
        return lambda flow: not flow.flags()
    if wanted not in FLAGS:
        raise ValueError(f"'{value}' is not a flag; valid: {' '.join(flag.lower() for flag in FLAGS)} none")
    text = f"[{wanted}]".encode()
    return lambda flow: text in flow.tail and wanted in flow.flags()


def _remembering(test: Callable[[str], bool]) -> Callable[[bytes], bool]:
    """The same test, with its answers remembered: 200,000 flows have far fewer addresses and ports."""
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
        raise ValueError(f"'{value}' is not an address or a network (10.0.0.0/8, 2001:db8::/32)") from None

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
        first, last = _port_number(low), _port_number(high if dash else low)
    except ValueError:
        raise ValueError(f"'{value}' is not a port: 443, 8000-8999 or a name like https") from None
    if first > last:
        raise ValueError(f"'{value}' is a range that ends before it begins")
    return _remembering(lambda port: port != "" and first <= int(port) <= last)


def _port_number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
        raise ValueError
    return int(text)


def _either_port(value: str, _context: Context) -> Predicate:
    fits = _ports(value)

    def wanted(flow: Flow) -> bool:
        if not flow.group.kind.has_ports:
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
    return lambda flow: flow.group.kind.has_ports and fits(flow.ports()[0])


def _dport(value: str, _context: Context) -> Predicate:
    fits = _ports(value)
    return lambda flow: flow.group.kind.has_ports and fits(flow.ports()[1])


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
        raise ValueError(f"'{value}' is not an AS number (15169 or AS15169)")
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
        raise ValueError(f"'{value}' is not a direction; valid: in out fwd local")
    return lambda flow: context.direction(flow.ends()) == wanted


def _nat(value: str, context: Context) -> Predicate:
    wanted = value.lower()
    if wanted == "any":
        return lambda flow: not flow.plain and bool(flow.ends().nat)
    if wanted == "none":
        return lambda flow: flow.plain or not flow.ends().nat
    if wanted == "both":
        return lambda flow: not flow.plain and len(flow.ends().nat) == 2
    if wanted == "stale":  # of an address that this host no longer has
        return lambda flow: not flow.plain and context.old_address(flow.ends()) is not None
    if wanted == "masq":
        return lambda flow: not flow.plain and (e := flow.ends()).nat == ["snat"] and e.reply_dst in context.own
    if wanted not in ("snat", "dnat"):
        raise ValueError(f"'{value}' is not a kind of NAT; valid: snat masq dnat both any none stale")
    return lambda flow: not flow.plain and wanted in flow.ends().nat


def _number(text: str) -> int:
    if not re.fullmatch(r"0[xX][0-9a-fA-F]{1,8}|[0-9]{1,10}", text):
        raise ValueError(f"'{text}' is not a number (16 or 0x10)")
    return int(text, 0) if text[:2].lower() == "0x" else int(text)


def mark_of(text: str) -> tuple[int, int]:
    """``0x10`` or ``0x10/0xf0``: the mark and the mask that is laid over a flow's mark before they are compared."""
    mark, slash, mask = text.partition("/")
    return _number(mark), _number(mask) if slash else WHOLE_MARK


def _by_mark(value: str, context: Context) -> Predicate:
    """A number, with a mask or without one, or a name from the settings."""
    pairs = named(value, context.marks)
    if not pairs:
        try:
            pairs = [mark_of(value)]
        except ValueError as error:
            raise ValueError(f"{error}{or_names(context.marks)}") from None
    return lambda flow: any(flow.mark() & mask == wanted for wanted, mask in pairs)


def _zone(value: str, context: Context) -> Predicate:
    """A number, or a name from the settings."""
    wanted = named(value, context.zones)
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


def _by_rate(value: str, _context: Context) -> Predicate:
    fits = compared(value, SIZES, "rate:>100k (bytes per second)")
    return lambda flow: fits(flow.rate())


def _age(value: str, context: Context) -> Predicate:
    """A flow whose birth was not seen only matches "older than"."""
    fits = compared(value, TIMES, "age:<10s")
    older = value.startswith(">")
    return lambda flow: (older or flow.knows_age()) and fits(flow.age(context.now))


def _timeout(value: str, context: Context) -> Predicate:
    fits = compared(value, TIMES, "timeout:<30s")
    return lambda flow: fits(flow.remaining(context.now))


def _idle(value: str, context: Context) -> Predicate:
    """Where nobody can tell how long a flow has been idle, no comparison fits."""
    fits = compared(value, TIMES, "idle:>1h")
    return lambda flow: fits(flow.idle(context.now, context.timeouts))


def _fanout(value: str, context: Context) -> Predicate:
    fits = compared(value, SIZES, "fanout:>100")
    return lambda flow: fits(context.fan(flow).remotes)


def _fan_of_ports(value: str, context: Context) -> Predicate:
    fits = compared(value, SIZES, "ports:>20")
    return lambda flow: fits(context.fan(flow).ports)


def bare(word: str, context: Context) -> Predicate:
    """A bare word searches everything shown: the same as ``word in shown_text(flow)``, in a tenth of its time.

    Most of what is shown is shared by many flows, and is asked once; the rest is looked at as it was printed.
    """
    if " " in word or not word:
        return lambda flow: word in shown_text(flow, context)
    groups: dict[Group, bool] = {}
    flags = [b"[%b]" % flag.encode() for flag in FLAGS if word in flag.lower()]
    in_direction = any(word in way for way in ("in", "out", "fwd", "local"))
    in_address = re.fullmatch(r"[0-9a-f.:]+", word) is not None
    in_ends, in_place = _in_ends(word), _in_place(word, context)
    in_names = _somebody(lambda who: any(word in part.lower() for part in _shown_of(who)), context)
    is_service = _remembering(lambda of: word in (service(*_protocol_port(of)) or ""))

    def wanted(flow: Flow) -> bool:
        group = flow.group
        if not flow.plain or not group.kind.family or not group.kind.has_ports:
            return word in shown_text(flow, context)
        if (known := groups.get(group)) is None:
            known = groups[group] = any(word in part for part in _shown_of_group(flow, context))
        if known or (any(flag in flow.tail for flag in flags) and any(word in flag.lower() for flag in flow.flags())):
            return True
        if in_address and in_ends(flow):
            return True
        if is_service(b"%b %b" % (group.kind.protocol.encode(), flow.ports()[1])):
            return True
        if in_names(flow) or (
            context.knows_processes()
            and (process := context.process(group.kind.protocol, flow.ends())) is not None
            and word in process.name.lower()
        ):
            return True
        if in_direction and word in (context.direction(flow.ends()) or ""):
            return True
        return in_place(flow)

    return wanted


def _in_place(word: str, context: Context) -> Predicate:
    """Is it in what is known of the place of the remote end?"""
    places: dict[Place, bool] = {}

    def wanted(flow: Flow) -> bool:
        place = context.remote(flow)
        if (known := places.get(place)) is None:
            if len(places) > MAX_REMEMBERED:
                places.clear()
            known = places[place] = any(word in str(part).lower() for part in place if part is not None)
        return known

    return wanted


def _in_ends(word: str) -> Predicate:
    """Is it in an address or a port of the original tuple, as they are printed?"""
    text, with_port = word.encode("utf-8", "surrogatepass"), ":" in word

    def wanted(flow: Flow) -> bool:
        (src, dst), (sport, dport) = flow.addresses(), flow.ports()
        src, dst = src.lower(), dst.lower()
        if with_port:
            return text in b"%b:%b" % (src, sport) or text in b"%b:%b" % (dst, dport)
        return text in src or text in dst or text in sport or text in dport

    return wanted


def _shown_of(who: Named) -> tuple[str, ...]:
    return (who.name, who.container)


def _protocol_port(text: str) -> tuple[str, int]:
    protocol, _, port = text.partition(" ")
    return protocol, int(port)


def _shown_of_group(flow: Flow, context: Context) -> list[str]:
    """What a row shows that many flows share."""
    shared = [flow.family, flow.kind.protocol, (flow.state or "").lower()]
    return [*shared, flow.node.lower()] if context.is_among_others() else shared


def shown_text(flow: Flow, context: Context) -> str:
    """Everything a row shows, in lower case: what a bare word searches."""
    e = flow.ends()
    texts: list[object] = [*_shown_of_group(flow, context), *flow.flags(), *e.nat]
    for address, port in (
        (e.src, e.sport),
        (e.dst, e.dport),
        (e.reply_src, e.reply_sport),
        (e.reply_dst, e.reply_dport),
    ):
        texts.append(address if port is None else f"{address}:{port}")
    texts.append(service(flow.kind.protocol, e.dport) or "")
    texts.append(context.direction(e) or "")
    texts.extend(part for address in context.sides_of_ends(e)[:2] for part in _shown_of(context.who(address)) if part)
    texts.extend([process.name] if (process := context.process(flow.kind.protocol, e)) else [])
    texts.extend(part for part in context.remote(flow) if part is not None)
    return " ".join(map(str, texts)).lower()


# --- fields of what a flow belongs to ---------------------------------------------------------------------------------


AskBaseline = Callable[[], Baseline | None]  # what was known when key m was pressed


def _no_baseline() -> None:
    return None


def _new(value: str, _context: Context, baseline: AskBaseline = _no_baseline) -> Predicate:
    wanted = value.lower() or "any"
    if wanted != "any" and wanted not in GROUPINGS:
        raise ValueError(f"'{value}' is not one of: any {' '.join(GROUPINGS)}")
    groupings = tuple(GROUPINGS.values()) if wanted == "any" else (GROUPINGS[wanted],)

    def fits(flow: Flow) -> bool:
        mark = baseline()
        return mark is not None and mark.is_new(flow, groupings)

    return fits


def _near(value: str, context: Context) -> Predicate:
    """A network; an address: of the device that has it, whichever of its addresses a flow has."""
    inside = network(value)
    if "/" in value:
        return lambda flow: inside(context.sides(flow)[0].encode())
    text = str(ipaddress.ip_address(value))
    return lambda flow: context.device(context.sides(flow)[0]) == context.device(text)


def _name(value: str, context: Context) -> Predicate:
    wanted = value.casefold()
    return _somebody(lambda who: wanted in who.label.casefold(), context)


def _container(value: str, context: Context) -> Predicate:
    wanted = value.casefold()
    return _somebody(lambda who: wanted in who.container.casefold() or wanted in who.service.casefold(), context)


def _somebody(fits: Callable[[Named], bool], context: Context) -> Predicate:
    """Flows of which either end is somebody that fits. Each is asked about once: of 200,000 flows few are different."""
    known: dict[Named, bool] = {UNNAMED: False}

    def is_wanted(address: str) -> bool:
        who = context.who(address)
        if (answer := known.get(who)) is None:
            if len(known) > MAX_REMEMBERED:
                known.clear()
            answer = known[who] = fits(who)
        return answer

    def wanted(flow: Flow) -> bool:
        near, far, _ = context.sides(flow)
        return is_wanted(near) or is_wanted(far)

    return wanted


def _by_process(value: str, context: Context) -> Predicate:
    wanted, pid = value.casefold(), int(value) if re.fullmatch(r"[0-9]{1,9}", value) else -1

    def fits(flow: Flow) -> bool:
        if not flow.kind.has_ports or (found := context.process(flow.kind.protocol, flow.ends())) is None:
            return False
        return wanted in found.name.casefold() or found.pid == pid

    return fits


def _far(value: str, context: Context) -> Predicate:
    inside = network(value)
    return lambda flow: inside(context.sides(flow)[1].encode())


def _service(value: str, _context: Context) -> Predicate:
    """A protocol with a port by number or name, in either order: tcp/443, 443/tcp, https; or one of the two alone."""
    words = value.lower().split("/")
    ends = (words[0], words[-1])
    protocol = next((word for word in ends if word in PROTOCOLS or re.fullmatch(r"ip\d{1,3}", word)), "")
    if protocol:
        words.remove(protocol)
    name = words[0] if words else ""
    if len(words) > 1 or (words and not (ports_of(name) or re.fullmatch(r"\d{1,5}", name))):
        raise ValueError(f"'{value}' is not a service: tcp/443, https or icmp")

    @lru_cache(maxsize=65_536)
    def fits(key: str) -> bool:
        of, _, port = key.partition("/")
        return protocol in ("", of) and (not name or name == port or name == service_name(key))

    return lambda flow: fits(service_key(flow))


_WAN = re.compile(rf"\[({ADDRESS})\](?::(\d{{1,5}}))?|([0-9.]+)(?::(\d{{1,5}}))?|({ADDRESS})")


def _wan(value: str, _context: Context) -> Predicate:
    """Flows that NAT has shown to the other side as this address (and port)."""
    match = _WAN.fullmatch(value)
    if match is None:
        raise ValueError(f"'{value}' is not an address: 203.0.113.1, 203.0.113.1:38768 or [2001:db8::1]:443")
    inside = network(match.group(1) or match.group(3) or match.group(5))
    text = match.group(2) or match.group(4)
    port = int(text) if text else None

    def fits(flow: Flow) -> bool:
        if flow.plain:
            return False
        e = flow.ends()
        shown = [(e.reply_dst, e.reply_dport)] * e.snat + [(e.dst, e.dport)] * e.dnat
        return any(inside(address.encode()) and port in (None, its) for address, its in shown)

    return fits


_CLOCK = re.compile(r"(?:(\d{4}-\d\d-\d\d)[T_])?(\d{1,2}):(\d\d)(?::(\d\d))?")


class Moment(NamedTuple):
    """A local time that somebody typed: a second or a whole minute, of a day or of the last day that had it."""

    day: str | None  # 2026-11-24
    hour: int
    minute: int
    second: int
    length: int  # seconds

    def begins(self, now: float) -> float | None:
        """Its beginning, in seconds since 1970 as ``now`` is; None where the calendar has no such time (year 10000)."""
        from datetime import datetime, timedelta

        try:
            day = datetime.fromisoformat(self.day) if self.day else datetime.fromtimestamp(now)
            moment = day.replace(hour=self.hour, minute=self.minute, second=self.second, microsecond=0)
            if self.day is None and moment.timestamp() > now:
                moment -= timedelta(days=1)
            return moment.timestamp()
        except (ValueError, OverflowError, OSError):
            return None


def moment_of(value: str) -> Moment:
    """Raises ValueError."""
    from datetime import datetime

    match = _CLOCK.fullmatch(value)
    try:
        if match is None:
            raise ValueError
        hour, minute, second = int(match.group(2)), int(match.group(3)), int(match.group(4) or 0)
        datetime.fromisoformat(match.group(1) or "2000-01-01").replace(hour=hour, minute=minute, second=second)
    except ValueError:
        raise ValueError(f"'{value}' is not a time: 14:02, 14:02:30 or 2026-11-24T14:02") from None
    return Moment(match.group(1), hour, minute, second, 1 if match.group(4) else 60)


def _at(value: str, context: Context) -> Predicate:
    """Flows that were there at a date and time, or at the most recent time of day like this; local time."""
    moment = moment_of(value)

    @lru_cache(maxsize=1)  # 200,000 flows are asked in one second
    def start_of(now: int, epoch: int) -> float | None:
        begins = moment.begins(now + epoch)
        return None if begins is None else begins - epoch

    def fits(flow: Flow) -> bool:
        epoch = context.epoch
        start = start_of(math.floor(context.now), math.floor(epoch))
        if start is None:
            return False
        start -= epoch % 1
        ended = flow.ended
        return flow.birth() < start + moment.length and (ended is None or ended >= start)

    return fits


def moments(text: str, now: float) -> list[float]:
    """When the times begin that an expression asks for with at:, in seconds since 1970, as ``now`` is."""
    found = []
    for word in re.findall(r"(?i)(?<![a-z])at:([\d:T_,-]+)", text):
        for value in word.split(","):
            with suppress(ValueError):
                found.append(moment_of(value).begins(now))
    return [begins for begins in found if begins is not None]


def _needed(term: str, text: str) -> str | None:
    """The value of the one such term of an expression, where no flow fits without it; else None."""
    values = re.findall(rf"(?i)(?<![^\s(]){term}(?=[\s)]|$)", text)
    return values[0] if len(values) == 1 and not re.search(r"(?i)\bor\b|\bnot\b|!", text) else None


def shown_as(text: str) -> tuple[str, int | None] | None:
    """Address and port of the one ``wan:`` of an expression, where no flow fits without it; else None."""
    asked = _needed(r"wan:(\S+?)", text)
    match = _WAN.fullmatch(asked) if asked is not None and not set(",/") & set(asked) else None
    if match is None:
        return None
    port = match.group(2) or match.group(4)
    return match.group(1) or match.group(3) or match.group(5), int(port) if port else None


def asked_moment(text: str, now: float) -> tuple[float, int] | None:
    """When the one ``at:`` of an expression begins and its length, where no flow fits without it; else None."""
    asked = _needed(r"at:([\d:T_-]+)", text)
    if asked is None:
        return None
    with suppress(ValueError):
        moment = moment_of(asked)
        if (begins := moment.begins(now)) is not None:
            return begins, moment.length
    return None


_SAVED = re.compile(r"(?<![^\s(!])@([A-Za-z][\w-]*)(?=[\s)]|$)")


def expanded(text: str, context: Context | Site) -> str:
    """The expression with the text of each saved filter in the place of its name: what ``_needed`` can look through."""

    def saved(match: re.Match[str]) -> str:
        return f"({context.filters[match[1]]})" if match[1] in context.filters else match[0]

    return _SAVED.sub(saved, text)


def asks(text: str, context: Context | Site, *fields: str) -> bool:
    """Does an expression have a term of one of these fields, itself or by a saved filter?"""
    return re.search(rf"(?i)(?<![a-z])(?:{'|'.join(fields)}):", expanded(text, context)) is not None


def asks_fans(text: str, context: Context | Site) -> bool:
    """Does it ask how many ends and ports a host is connected with? Then all flows are to be counted."""
    return asks(text, context, *FAN_FIELDS)


def _node(value: str, _context: Context) -> Predicate:
    wanted = "" if value.lower() == "none" else value.lower()
    return lambda flow: flow.group.node.lower() == wanted


Maker = Callable[[str, Context], Predicate]

# What makes the predicate of each field in vocabulary.FIELDS.
MAKERS: dict[str, Maker] = {
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
    "mark": _by_mark,
    "zone": _zone,
    "flag": _flag,
    "bytes": _bytes,
    "packets": _packets,
    "rate": _by_rate,
    "age": _age,
    "timeout": _timeout,
    "idle": _idle,
    "fanout": _fanout,
    "ports": _fan_of_ports,
    "id": _id,
    "helper": _helper,
    "label": _label,
    "near": _near,
    "name": _name,
    "container": _container,
    "process": _by_process,
    "far": _far,
    "service": _service,
    "node": _node,
    "wan": _wan,
    "at": _at,
    "new": _new,
}


# Values of fields that have a few fixed ones, beside those on show.
FIXED_VALUES: dict[str, Sequence[str]] = {
    "proto": ("tcp", "udp", "icmp", "icmpv6", "gre", "sctp"),
    "state": tuple(word.lower() for word in (*STATES, *FLAGS)),
    "flag": tuple(flag.lower() for flag in FLAGS),
    "dir": ("in", "out", "fwd", "local"),
    "nat": ("snat", "masq", "dnat", "both", "any", "none"),
    "family": ("4", "6"),
    "new": tuple(GROUPINGS),
}


# --- the language -----------------------------------------------------------------------------------------------------

MAX_DEPTH = 50  # parentheses and negations within each other; far below Python's recursion limit


class FilterError(ValueError):
    """A wrong expression: what is wrong and where (a character offset into the text)."""

    def __init__(self, message: str, text: str, position: int) -> None:
        super().__init__(message)
        self.message = message
        self.text = text
        self.position = position

    def pointed(self) -> str:
        """The message, then the expression with a caret under the place."""
        shown = "".join(c if c.isprintable() else "?" for c in self.text)
        return f"{self.message}\n  {shown}\n  {' ' * self.position}^"


class _Word(NamedTuple):
    text: str
    position: int


_LEX = re.compile(r'\s*(?:([()])|(!)(?=\S)|((?:"[^"]*"|[^\s()"])+)|(.))')


def compile_filter(text: str, context: Context, baseline: AskBaseline = _no_baseline) -> Predicate | None:
    """The predicate of an expression; None for an empty one, which matches everything.

    ``baseline``: since when ``new:`` counts, asked for each flow. Raises FilterError.
    """
    words = _lex(text)
    if not words:
        return None
    everywhere = _Parser(text, words, context, baseline).expression()
    if len(context.nodes) == 1:
        return _Parser(text, words, next(iter(context.nodes.values())), baseline).expression()
    if not context.nodes:
        return everywhere
    of_node = {node: _Parser(text, words, its, baseline).expression() for node, its in context.nodes.items()}
    return lambda flow: of_node.get(flow.group.node, everywhere)(flow)


def _lex(text: str) -> list[_Word]:
    words = []
    for match in _LEX.finditer(text.rstrip()):
        if match.group(4):
            raise FilterError("unmatched quotation mark", text, match.start(4))
        part = next(i for i in (1, 2, 3) if match.group(i))
        words.append(_Word(match.group(part), match.start(part)))
    return words


_INSTEAD_OF = {"&&": "'&&' is not needed: words are ANDed", "||": "write or instead of '||'"}


class _Parser:
    """Recursive descent: or > and > not > word."""

    def __init__(
        self, text: str, words: list[_Word], context: Context, baseline: AskBaseline, saved: bool = False
    ) -> None:
        """``saved``: it is one of the settings."""
        self.text = text
        self.words = words
        self.context = context
        self.is_saved = saved
        self.baseline = baseline
        self.makers: dict[str, Maker] = {**MAKERS, "new": partial(_new, baseline=baseline)}
        self.at = 0
        self.depth = 0

    def expression(self) -> Predicate:
        result = self.any_of()
        if self.at < len(self.words):
            raise self.error("')' without '('", self.words[self.at].position)
        return result

    def error(self, message: str, position: int) -> FilterError:
        return FilterError(message, self.text, position)

    def peek(self) -> str | None:
        return self.words[self.at].text if self.at < len(self.words) else None

    def any_of(self) -> Predicate:
        parts = [self.all_of()]
        while (self.peek() or "").lower() == "or":
            self.at += 1
            parts.append(self.all_of())
        return parts[0] if len(parts) == 1 else lambda flow: any(part(flow) for part in parts)

    def all_of(self) -> Predicate:
        parts = [self.one()]
        while (word := self.peek()) is not None and word != ")" and word.lower() != "or":
            if word.lower() == "and":
                self.at += 1
            parts.append(self.one())
        return parts[0] if len(parts) == 1 else lambda flow: all(part(flow) for part in parts)

    def one(self) -> Predicate:
        word = self.peek()
        if word is None:
            raise self.error("the filter ends too early", len(self.text))
        position = self.words[self.at].position
        if word.lower() in ("or", "and", ")"):
            raise self.error(f"a term is missing before '{word}'", position)
        self.at += 1
        if word == "(" or word == "!" or word.lower() == "not":
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise self.error(f"more than {MAX_DEPTH} levels of parentheses", position)
            inner = self.group(position) if word == "(" else _negated(self.one())
            self.depth -= 1
            return inner
        return self.term(self.spoken(word), position)

    def spoken(self, word: str) -> str:
        """The term that is meant by words as tcpdump(8) takes them: `port 443`, `src host 10.0.0.5`, `dst port 53`."""
        field, kinds = word.lower(), ("host", "net", "port")
        if field in ("src", "dst") and (self.peek() or "").lower() in kinds:
            kind = self.words[self.at].text.lower()
            self.at += 1
            field = f"{field[0]}port" if kind == "port" else field
        elif field == "net":
            field = "host"
        value = self.peek()
        if field not in ("host", "port", "src", "dst", "sport", "dport", "proto") or value is None or ":" in word:
            return word
        if value.lower() in ("or", "and", "not", "!", "(", ")") or (":" in value and not _is_address(value)):
            return word
        self.at += 1
        return f"{field}:{value}"

    def group(self, position: int) -> Predicate:
        inner = self.any_of()
        if self.peek() != ")":
            raise self.error("'(' without ')'", position)
        self.at += 1
        return inner

    def saved(self, name: str, position: int) -> Predicate:
        """The filter that the settings have under this name. It uses no other one: none can be made of itself."""
        known = self.context.filters
        if self.is_saved:
            raise self.error(f"a saved filter can't use another one: @{name}", position)
        if (text := known.get(name)) is None:
            names = or_close(name, known) if known else "; define one under [filters] in the settings"
            raise self.error(f"there is no saved filter '@{name}'{names}", position)
        return _Parser(text, _lex(text), self.context, self.baseline, saved=True).expression()

    def term(self, word: str, position: int) -> Predicate:
        if word.startswith("@"):
            return self.saved(word[1:], position)
        name, colon, value = word.partition(":")
        if re.match(r"-[A-Za-z]", word):
            raise self.error(f"write !{word[1:]} for all but {word[1:]}", position)
        if (odd := re.match(r"&&|\|\||[a-z]+(?:=|<|>)", word.lower())) and not colon:
            if odd.group() in _INSTEAD_OF:
                raise self.error(_INSTEAD_OF[odd.group()], position)
            raise self.error(f"write {odd.group()[:-1]}:{word[len(odd.group()) - 1 :].lstrip('=')}", position)
        if not colon or not re.fullmatch(r"[A-Za-z]+", name) or _is_address(word):
            return bare(word.replace('"', "").lower(), self.context)
        make = self.makers.get(name.lower())
        if make is None:
            raise self.error(
                f"unknown field '{name}'{or_close(name, self.makers, '; ? on the screen and --help list them')}",
                position,
            )
        place = position + len(name) + 1
        parts = []
        for part in _split(value):
            plain = part.replace('"', "")
            try:
                if not plain and name.lower() != "new":
                    raise ValueError(f"a value is missing after '{name}:'")
                parts.append(make(plain, self.context))
            except ValueError as error:
                raise self.error(str(error), place) from None
            place += len(part) + 1
        return parts[0] if len(parts) == 1 else lambda flow: any(part(flow) for part in parts)


def _split(value: str) -> list[str]:
    """Cut at commas outside quotation marks."""
    return re.findall(r'(?:"[^"]*"|[^,"])+|(?<=,)(?=,|$)|^$', value) or [value]


def _negated(inner: Predicate) -> Predicate:
    return lambda flow: not inner(flow)


def _is_address(word: str) -> bool:
    try:
        ipaddress.ip_network(word, strict=False)
    except ValueError:
        return False
    return True


def all_of(parts: Iterable[Predicate | None]) -> Predicate | None:
    """All of the given predicates; None if all of them are None."""
    wanted = [part for part in parts if part is not None]
    if not wanted:
        return None
    return wanted[0] if len(wanted) == 1 else lambda flow: all(part(flow) for part in wanted)


def from_flags(
    protocols: Iterable[str], states: Iterable[str], families: Iterable[str], context: Context
) -> Predicate | None:
    """What ``-p``, ``-s``, ``-4`` and ``-6`` mean: any value of each option, and all options. Raises ValueError."""
    groups = (
        [by_protocol(value, context) for value in protocols],
        [by_state(value, context) for value in states],
        [by_family(value, context) for value in families],
    )
    return all_of(_any_of(group) for group in groups)


def _any_of(group: list[Predicate]) -> Predicate | None:
    return (lambda flow: any(part(flow) for part in group)) if group else None
