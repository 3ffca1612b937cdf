"""The filter language of ``--filter`` and the ``/`` prompt: text -> a predicate over flows.

Words joined by blanks mean "and"; ``or``; parentheses; ``!`` or ``not`` negates. A word is ``field:value``, several
values may be given with commas (any of them), or a bare word that searches everything shown.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import NamedTuple

import ends
from flows import Flow
from names import PROTOCOLS, STATES, ports_of, service
from parse import FLAGS
from places import NOWHERE, Detail, Place

Predicate = Callable[[Flow], bool]

MAX_DEPTH = 50  # parentheses and negations within each other; far below Python's recursion limit


@dataclass
class Context:
    """What predicates need beside the flow: the time, this host's addresses, where an address is."""

    now: float = 0.0
    own: Set[str] = field(default_factory=frozenset)
    where: Callable[[str], Place] = lambda _address: NOWHERE
    detail: Callable[[str], Detail] = lambda _address: Detail()

    def remote(self, flow: Flow) -> Place:
        return self.where(ends.remote(flow.ends(), self.own))


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


def compile_filter(text: str, context: Context) -> Predicate | None:
    """The predicate an expression stands for; None for an empty one (everything is wanted).

    Raises FilterError.
    """
    words = _lex(text)
    if not words:
        return None
    return _Parser(text, words, context).whole()


def _lex(text: str) -> list[_Word]:
    words = []
    for match in _LEX.finditer(text.rstrip()):
        if match.group(4):
            raise FilterError("quotation mark without its partner", text, match.start(4))
        part = next(i for i in (1, 2, 3) if match.group(i))
        words.append(_Word(match.group(part), match.start(part)))
    return words


class _Parser:
    """Recursive descent: or > and > not > word."""

    def __init__(self, text: str, words: list[_Word], context: Context) -> None:
        self.text = text
        self.words = words
        self.context = context
        self.at = 0
        self.depth = 0

    def whole(self) -> Predicate:
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
            raise self.error("a word is missing here", len(self.text))
        position = self.words[self.at].position
        if word.lower() in ("or", "and", ")"):
            raise self.error(f"a word is missing before '{word}'", position)
        self.at += 1
        if word == "(" or word == "!" or word.lower() == "not":
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise self.error(f"more than {MAX_DEPTH} levels", position)
            inner = self.group(position) if word == "(" else _negated(self.one())
            self.depth -= 1
            return inner
        return self.term(word, position)

    def group(self, position: int) -> Predicate:
        inner = self.any_of()
        if self.peek() != ")":
            raise self.error("'(' without ')'", position)
        self.at += 1
        return inner

    def term(self, word: str, position: int) -> Predicate:
        name, colon, value = word.partition(":")
        if (odd := re.match(r"&&|\|\||[a-z]+(?:=|<|>)", word.lower())) and not colon:
            if odd.group() in ("&&", "||"):
                raise self.error(f"'{odd.group()}' is no word of filters: a blank means and; write or", position)
            raise self.error(f"write {odd.group()[:-1]}:{word[len(odd.group()) - 1 :].lstrip('=')}", position)
        if not colon or not re.fullmatch(r"[A-Za-z]+", name) or _is_address(word):
            return _bare(word.replace('"', "").lower(), self.context)
        make = FIELDS.get(name.lower())
        if make is None:
            raise self.error(f"unknown field '{name}'; there are: {' '.join(FIELDS)}", position)
        place = position + len(name) + 1
        parts = []
        for part in _split(value):
            plain = part.replace('"', "")
            try:
                if not plain:
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


# --- fields: value, context -> predicate; ValueError says what is wrong with the value --------------------------------


def _family(value: str, _context: Context) -> Predicate:
    wanted = {"4": "ipv4", "6": "ipv6"}.get(value, value.lower())
    if wanted not in ("ipv4", "ipv6"):
        raise ValueError(f"'{value}' is no family; there are: ipv4 ipv6")
    return lambda flow: (flow.kind.family or ("ipv6" if b":" in flow.key else "ipv4")) == wanted


def _protocol(value: str, _context: Context) -> Predicate:
    name = value.lower()
    if name == "unknown":
        return lambda flow: flow.kind.protocol == "unknown"
    number = int(name) if name.isascii() and name.isdigit() and len(name) <= 3 else PROTOCOLS.get(name, -1)
    if not 0 <= number <= 255:
        raise ValueError(f"'{value}' is no protocol: a number up to 255, or one of {' '.join(PROTOCOLS)}")
    return lambda flow: flow.kind.number == number


def _state(value: str, context: Context) -> Predicate:
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


_WITH_PORTS = {6, 17, 33, 132, 136}


def _either_port(value: str, _context: Context) -> Predicate:
    fits = _ports(value)

    def wanted(flow: Flow) -> bool:
        if flow.kind.number not in _WITH_PORTS:
            return False
        e = flow.ends()
        return fits(e.sport) or fits(e.dport) or fits(e.reply_sport) or fits(e.reply_dport)

    return wanted


def _sport(value: str, _context: Context) -> Predicate:
    fits = _ports(value)
    return lambda flow: flow.kind.number in _WITH_PORTS and fits(flow.ends().sport)


def _dport(value: str, _context: Context) -> Predicate:
    fits = _ports(value)
    return lambda flow: flow.kind.number in _WITH_PORTS and fits(flow.ends().dport)


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
    r"(>=|<=|>|<|=)?([0-9]{1,18}(?:\.[0-9]{1,9})?)([A-Za-z]*)(?:-([0-9]{1,18}(?:\.[0-9]{1,9})?)([A-Za-z]*))?"
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
    fits = _compared(value, _TIMES, "age:<10s")
    return lambda flow: fits(flow.age(context.now))


def _timeout(value: str, context: Context) -> Predicate:
    fits = _compared(value, _TIMES, "timeout:<30s")
    return lambda flow: fits(flow.remaining(context.now))


def _bare(word: str, context: Context) -> Predicate:
    return lambda flow: word in shown_text(flow, context)


def shown_text(flow: Flow, context: Context) -> str:
    """Everything a row shows, in lower case: what a bare word searches."""
    e = flow.ends()
    family = flow.kind.family or ("ipv6" if ":" in e.src else "ipv4")
    texts: list[object] = [family, flow.kind.protocol, flow.state or "", *flow.flags(), *e.nat]
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
    "proto": _protocol,
    "state": _state,
    "family": _family,
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


def all_of(parts: Iterable[Predicate | None]) -> Predicate | None:
    """All of the given predicates; None where none of them wants anything."""
    wanted = [part for part in parts if part is not None]
    if not wanted:
        return None
    return wanted[0] if len(wanted) == 1 else lambda flow: all(part(flow) for part in wanted)


def from_flags(
    protocols: Iterable[str], states: Iterable[str], families: Iterable[str], context: Context
) -> Predicate | None:
    """What ``-p``, ``-s``, ``-4`` and ``-6`` mean: within one of them any, between them all. Raises ValueError."""
    groups = (
        [_protocol(value, context) for value in protocols],
        [_state(value, context) for value in states],
        [_family(value, context) for value in families],
    )
    return all_of(_any_of(group) for group in groups)


def _any_of(group: list[Predicate]) -> Predicate | None:
    return (lambda flow: any(part(flow) for part in group)) if group else None
