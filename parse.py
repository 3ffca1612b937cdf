"""Text of conntrack(8) and /proc/net/nf_conntrack: bytes -> blocks of whole lines -> records.

Two levels, because a table of 262,144 lines is read again and again and almost all of it is never shown:

* :func:`split_lines` cuts a block of lines into rows of ``Parts`` with one regular expression (600,000 lines a second).
  That is enough to find the flow, its state and its timeout; the rest stays as text (see :func:`tail_of`).
* :func:`record` reads everything a row says. It costs about ten times as much, and only what is shown needs it.

Nothing here raises on any bytes: a line becomes a row, or it is counted as a reject.

Source of the grammar: conntrack.8, libnetfilter_conntrack's ``snprintf_default.c`` and captures of
conntrack 1.4.7 (see ``fixtures/captures``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

_TCP_STATES = "NONE SYN_SENT SYN_RECV ESTABLISHED FIN_WAIT CLOSE_WAIT LAST_ACK TIME_WAIT CLOSE SYN_SENT2 LISTEN"
_SCTP_STATES = (
    "CLOSED COOKIE_WAIT COOKIE_ECHOED SHUTDOWN_SENT SHUTDOWN_RECD SHUTDOWN_ACK_SENT HEARTBEAT_SENT HEARTBEAT_ACKED"
)
_DCCP_STATES = "REQUEST RESPOND PARTOPEN OPEN CLOSEREQ CLOSING TIMEWAIT IGNORE INVALID"
STATES = frozenset(f"{_TCP_STATES} {_SCTP_STATES} {_DCCP_STATES}".split())
PROTOCOLS = {
    "icmp": 1,
    "igmp": 2,
    "ipip": 4,
    "tcp": 6,
    "egp": 8,
    "udp": 17,
    "dccp": 33,
    "ipv6": 41,
    "rsvp": 46,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "icmpv6": 58,
    "ipv6-icmp": 58,
    "eigrp": 88,
    "ospf": 89,
    "pim": 103,
    "vrrp": 112,
    "l2tp": 115,
    "sctp": 132,
    "udplite": 136,
}
WITH_PORTS = frozenset({6, 17, 33, 132, 136})  # tcp, udp, dccp, sctp, udplite

# The protocols whose name conntrack 1.4.5 and later take after -p without looking into /etc/protocols.
PUSHED_DOWN = ("tcp", "udp", "udplite", "icmp", "icmpv6", "sctp", "dccp", "gre")

# libnetfilter_conntrack cuts a dump line at 4,095 bytes and an event at 1,023 plus the program's name. A longer "line"
# is not conntrack's. The limit keeps a stream without any newline from filling memory.
MAX_LINE = 65_536

# A line with two pairs of addresses is longer. This check refuses 1 MiB of "y" in 0.2 s; without it that takes 0.6 s.
SHORTEST = 30
FAMILIES = {"2": "ipv4", "10": "ipv6"}
FLAGS = ("UNREPLIED", "ASSURED", "OFFLOAD", "HW_OFFLOAD")
EVENTS = {b"    [NEW] ": "new", b" [UPDATE] ": "update", b"[DESTROY] ": "destroy"}

# One line, cut into the parts that the flow table needs; joined they are the line again:
#   stamp     b"[1795386413.786793]\t" or b""
#   event     b"    [NEW] ", b" [UPDATE] ", b"[DESTROY] ", or b"" for a listing's line
#   head      family (with -o extended) and protocol, each with its number, padded as printed
#   timeout   b"431999 " or b""
#   state     b"ESTABLISHED " or b""
#   original  b"src=10.0.0.1 dst=192.0.2.1 sport=1 dport=2 ", the original tuple with its last blank,
#             and once more its four values, which the expression needs for itself
#   before    what stands between the tuples: zone-orig, counters, [UNREPLIED]
#   turned    b"=" where the reply tuple is the original turned round (no NAT): then it stands for that tuple
#   after     the reply tuple, unless ``turned``, and all that follows
# A plain tuple, because making 262,144 named ones costs half as much again as cutting the lines. The names are indexes.
Parts = tuple[bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes]
STAMP, EVENT, HEAD, TIMEOUT, STATE, ORIGINAL = range(6)
BEFORE, TURNED, AFTER = 10, 11, 12


class Kind(NamedTuple):
    """Family and protocol of a flow, as printed. ``family`` is "" where only the address can tell (plain output)."""

    family: str
    protocol: str
    number: int


@dataclass(slots=True)
class Tuple:
    """One direction of a flow: addresses as printed, ports or their ICMP/GRE counterparts, counters, zone."""

    src: str = ""
    dst: str = ""
    sport: int | None = None
    dport: int | None = None
    type: int | None = None
    code: int | None = None
    icmp_id: int | None = None
    srckey: str | None = None
    dstkey: str | None = None
    zone: int | None = None  # zone-orig or zone-reply
    packets: int | None = None
    bytes: int | None = None  # layer-3 bytes, both counters need nf_conntrack_acct=1 at the flow's creation


@dataclass(slots=True)
class Record:
    """Everything one line says; None (or an empty list) is "not printed", never "zero"."""

    kind: Kind
    original: Tuple
    reply: Tuple
    stamp: str | None = None  # seconds.microseconds since 1970, as printed
    event: str | None = None  # new, update, destroy; None in a listing
    timeout: int | None = None  # seconds
    state: str | None = None
    flags: list[str] = field(default_factory=list)
    mark: int | None = None
    secmark: int | None = None
    secctx: str | None = None
    zone: int | None = None
    delta_time: int | None = None  # seconds; 2^64-n where the clock was stepped back
    start: str | None = None  # ctime(), local time of the machine that printed it
    stop: str | None = None
    helper: str | None = None
    use: int | None = None
    id: int | None = None
    labels: list[str] | None = None  # [] is "labels set, none of them has a name"
    portid: int | None = None
    progname: str | None = None  # raw: may hold anything a process can call itself

    @property
    def family(self) -> str:
        """The family printed, else the one that the address tells."""
        return self.kind.family or ("ipv6" if ":" in self.original.src else "ipv4")


# The lengths are bounded: no line, however hostile, costs more than a walk through it.
ADDRESS = r"[0-9a-fA-F:.]{2,45}"  # what may be an address, as text
_ADDRESS = ADDRESS.encode()
COUNTERS = rb"packets=(\d{1,20}) bytes=(\d{1,20})"  # of one direction
_WORD = rb"[a-z0-9-]{1,16} {1,8}\d{1,5} "
_ORIGINAL = (
    rb"(src=(" + _ADDRESS + rb") dst=(" + _ADDRESS + rb") (?:sport=(\d{1,5}) dport=(\d{1,5}) "
    rb"|type=\d{1,3} code=\d{1,3} id=\d{1,5} |srckey=0x[0-9a-f]{1,8} dstkey=0x[0-9a-f]{1,8} )?)"
)
_BEFORE = rb"(?:zone-orig=\d{1,5} )?(?:packets=\d{1,20} bytes=\d{1,20} )?(?:\[UNREPLIED\] )?"

# Most flows have no NAT. Their reply tuple is not kept, which saves 48 of 450 bytes a flow.
_REPLY = rb"(?:src(=)\8 dst=\7 sport=\10 dport=\9(?= |$)|(?=src=" + _ADDRESS + rb" dst=" + _ADDRESS + rb"(?: |$)))"
_LINE = re.compile(
    rb"^(\[\d{1,12}\.\d{1,6}\]\t)?( {4}\[NEW\] | \[UPDATE\] |\[DESTROY\] )?"
    rb"((?:" + _WORD + rb")?" + _WORD + rb")(\d{1,10} )?([A-Z][A-Z0-9_]{0,31} )?"
    rb"" + _ORIGINAL + rb"(" + _BEFORE + rb")" + _REPLY + rb"([^\n]*)$",
    re.MULTILINE,
)
_TURNED = re.compile(_BEFORE + rb"(=)(?= |$)")
_TURN = re.compile(rb"src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+) ")


def tail_of(row: Parts) -> bytes:
    """All that a row says behind the original tuple, b"=" standing for a reply that is the original turned round.

    >>> line = b"udp 17 src=10.0.0.1 dst=192.0.2.1 sport=1 dport=2 src=192.0.2.1 dst=10.0.0.1 sport=2 dport=1 use=1\\n"
    >>> (row,), _ = split_lines(line)
    >>> tail_of(row)
    b'= use=1'
    """
    return row[BEFORE] + row[TURNED] + row[AFTER]


def has_counters(row: Parts) -> bool:
    """Are there counters beside the original tuple? Also of a row with odd words; a helper's name may hold anything."""
    return b"packets=" in row[BEFORE] or row[AFTER].startswith(b"packets=")


def is_turned(tail: bytes) -> bool:
    """Is the reply the original turned round?"""
    return _TURNED.match(tail) is not None


def with_reply(original: bytes, tail: bytes) -> bytes:
    """``tail`` with the reply tuple as it was printed."""
    turned, ends = _TURNED.match(tail), _TURN.match(original)
    if turned is None or ends is None:
        return tail
    src, dst, sport, dport = ends.groups()
    return b"%bsrc=%b dst=%b sport=%b dport=%b%b" % (
        tail[: turned.start(1)],
        dst,
        src,
        dport,
        sport,
        tail[turned.end() :],
    )


class Splitter:
    """Joins what separate reads brought into blocks of whole lines.

    ``feed(data)`` returns a block that ends with a newline (or is empty); ``feed(b"")`` is the end of the input
    and returns what was left without a newline. Of a line that grows beyond MAX_LINE only the beginning is kept, behind
    a NUL: ``split_lines`` counts it among the rejects.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._skipping = False

    def feed(self, data: bytes) -> bytes:
        if not data:
            return self._finish()
        end = data.rfind(b"\n") + 1
        if not end:
            self._keep(data)
            return b""
        if self._skipping:
            self._skipping = False
            block = b"".join((*self._parts, data[data.find(b"\n") : end]))
        else:
            block = b"".join((*self._parts, data[:end]))
        self._parts, self._size = [], 0
        if end < len(data):
            self._keep(data[end:])
        return block

    def _keep(self, data: bytes) -> None:
        if self._skipping:
            return
        self._parts.append(data)
        self._size += len(data)
        if self._size > MAX_LINE:
            self._parts, self._size = [b"\0", self._parts[0][:100]], 101
            self._skipping = True

    def _finish(self) -> bytes:
        left = b"".join(self._parts)
        self._parts, self._size, self._skipping = [], 0, False
        return left


def split_lines(block: bytes, before: bytes = b"") -> tuple[list[Parts], list[bytes]]:
    """Cut a block of lines into rows, and return the lines that are none (the rejects) beside them.

    Blank lines are neither. A last line without its newline may have been cut off. It is taken only if it looks
    complete: the grammar names all its words, and it ends in a use or an id if the line before it does. That is the
    line before it in this block, or else ``before`` is its tail.
    """
    if b"\r\n" in block:  # ssh -t and Windows editors
        block = block.replace(b"\r\n", b"\n")
    found = _LINE.findall(block)
    complete = block.endswith(b"\n")
    if complete and len(found) == block.count(b"\n"):
        return found, []
    rows: list[Parts] = []
    rejects: list[bytes] = []
    lines = block.split(b"\n")
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        if len(line) < SHORTEST:
            row = None
        elif complete or number < len(lines) - 1:
            row = _split_line(line)
        else:
            row = _split_last(line, tail_of(rows[-1]) if rows else before)
        if row is None:
            rejects.append(line[:200])
        else:
            rows.append(row)
    return rows, rejects


def _split_line(line: bytes) -> Parts | None:
    if len(line) > MAX_LINE:
        return None
    found: list[Parts] = _LINE.findall(line)
    return found[0] if found else _split_odd(line)


_LAST_NUMBER = re.compile(rb" (use|id)=\d+$")


def _split_last(line: bytes, before: bytes) -> Parts | None:
    """Cut a line that has no newline, if it looks whole beside the line before it."""
    found: list[Parts] = _LINE.findall(line) if len(line) <= MAX_LINE else []
    if not found or line.endswith(b" ") or _unknown_words(found[0][AFTER]):
        return None
    usual, here = _LAST_NUMBER.search(before), _LAST_NUMBER.search(line)
    if usual and (here is None or here.group(1) != usual.group(1)):
        return None
    return found[0]


_PREFIX = re.compile(rb"(\[\d{1,12}\.[\d ]{1,6}\]\t)? *(\[(?:NEW|UPDATE|DESTROY)\])? *")
_EVENT_BY_TAG = {tag.strip(): tag for tag in EVENTS}


def _split_odd(line: bytes) -> Parts | None:
    """Cut a line with words that the grammar does not name: the slow way, which looks for its tuples."""
    match = _PREFIX.match(line)
    assert match  # every part of it may be empty
    stamp, tag = match.group(1) or b"", match.group(2)
    body = line[match.end() :]
    first = body.find(b"src=")
    user = body.find(b" [USERSPACE]")
    second = body.find(b" src=", first + 4, user if user >= 0 else len(body))
    if first < 0 or second < 0 or (first and body[first - 1 : first] != b" "):
        return None
    head = _read_head(body[:first].split())
    original = _tuple_words(body[first:second])
    reply = _tuple_words(body[second + 1 : user if user >= 0 else len(body)])
    if head is None or original is None or reply is None:
        return None
    kind, timeout, state = head
    middle = body[first:second]
    known = {b"=", *original.split()}  # a "=" in the input must not stand for a tuple
    between = b"".join(b" " + word for word in middle.split() if word not in known).strip()
    tail = (between + b" " if between else b"") + body[second + 1 :]
    return join_parts(stamp, _EVENT_BY_TAG.get(tag or b"", b""), kind, timeout, state, original, tail)


def join_parts(
    stamp: bytes, event: bytes, head: bytes, timeout: bytes, state: bytes, original: bytes, tail: bytes
) -> Parts:
    """A row whose text behind the original tuple is as printed."""
    return stamp, event, head, timeout, state, original, b"", b"", b"", b"", b"", b"", tail


def _read_head(words: list[bytes]) -> tuple[bytes, bytes, bytes] | None:
    """Family and protocol, timeout and state among the words before the first tuple."""
    if len(words) < 2 or not re.fullmatch(rb"\d{1,5}", words[1]):
        return None
    names = 2
    if (
        len(words) >= 4
        and not words[2].isdigit()
        and words[3].isdigit()
        and re.fullmatch(rb"[a-z0-9-]{1,16}", words[2])
    ):
        names = 4
    if not all(re.fullmatch(rb"[a-z0-9-]{1,16}", word) for word in words[0:names:2]) or len(words[names - 1]) > 5:
        return None
    timeout = next((w + b" " for w in words[names:] if re.fullmatch(rb"\d{1,10}", w)), b"")
    state = next((w + b" " for w in words[names:] if re.fullmatch(rb"[A-Z][A-Z0-9_]{0,31}", w)), b"")
    head = b"".join(b"%-8s %s " % (words[i], words[i + 1]) for i in range(0, names, 2))
    return head, timeout, state


_TUPLE_WORD = re.compile(
    rb"(?<!\S)(?:(?:src|dst)="
    + _ADDRESS
    + rb"|(?:sport|dport|type|code|id)=\d{1,5}|(?:srckey|dstkey)=0x[0-9a-f]{1,8})(?!\S)"
)
_TUPLE_NAMES = (
    (b"src", b"dst", b"sport", b"dport"),
    (b"src", b"dst", b"type", b"code", b"id"),
    (b"src", b"dst", b"srckey", b"dstkey"),
    (b"src", b"dst"),
)


def _tuple_words(text: bytes) -> bytes | None:
    """The words of a tuple out of a text that may hold others, as conntrack prints them, with a blank behind."""
    words: dict[bytes, bytes] = {}
    for match in _TUPLE_WORD.findall(text):
        words.setdefault(match.partition(b"=")[0], match)
    for names in _TUPLE_NAMES:
        if all(name in words for name in names):
            return b" ".join(words[name] for name in names) + b" "
    return None


def _unknown_words(tail: bytes) -> bool:
    """Does ``tail`` hold a word that the grammar does not name, or a name without its value?"""
    words = tail.partition(b" [USERSPACE] ")[0].partition(b" labels")[0]
    return any(not _KNOWN_WORD.fullmatch(word) for word in _TOKEN.findall(words.decode("utf-8", "replace")))


# --- the second level -------------------------------------------------------------------------------------------------

_TOKEN = re.compile(r"\[[a-z]+=[^\]]*\]|[^ ]+")
_KNOWN_WORD = re.compile(
    rf"(?:src|dst)={ADDRESS}|(?:sport|dport|type|code|id|zone-orig|zone-reply|packets|bytes|mark|secmark|zone|delta-time|use)=\d+"
    r"|(?:srckey|dstkey)=0x[0-9a-f]+|(?:secctx|helper)=.+|\[(?:" + "|".join(FLAGS) + r")\]|\[(?:start|stop)=[^\]]*\]"
)
_SECCTX = re.compile(r" secctx=(.*?)(?= (?:zone=\d|delta-time=\d|\[start=|\[stop=|helper=|use=\d|id=\d|labels)|$)")
_USER = re.compile(r" \[USERSPACE\](?: portid=(\d{1,10}))?(?: progname=(.*))?$", re.DOTALL)
_NUMBERS = {
    "mark": "mark",
    "secmark": "secmark",
    "zone": "zone",
    "delta-time": "delta_time",
    "use": "use",
}
_TUPLE_NUMBERS = {
    "sport": "sport",
    "dport": "dport",
    "type": "type",
    "code": "code",
    "packets": "packets",
    "bytes": "bytes",
    "zone-orig": "zone",
    "zone-reply": "zone",
}
_TUPLE_TEXTS = {"src", "dst", "srckey", "dstkey"}
_ADDRESS_OR_KEY = re.compile(r"[0-9a-fA-F:.x]{2,45}")  # no escape sequence that a recording has in its place


@lru_cache(maxsize=1024)
def kind_of(head: bytes) -> Kind:
    """The family and protocol that a row's ``head`` names.

    >>> kind_of(b"ipv4     2 tcp      6 ")
    Kind(family='ipv4', protocol='tcp', number=6)
    >>> kind_of(b"unknown  50 ")
    Kind(family='', protocol='unknown', number=50)
    """
    words = head.decode("ascii", "replace").split()
    if len(words) == 4:
        return Kind(FAMILIES.get(words[1], words[0]), words[2], int(words[3]))
    return Kind("", words[0], int(words[1]))


def record(row: Parts) -> Record:
    """Read everything a row says. Words that the grammar does not name are skipped."""
    return _usual(row) or _any(row)


# A number as the kernel prints it: no leading zero, so that its digits can be copied as they are.
_NUMBER = rb"(0|[1-9]\d{0,19})"
_USUAL = re.compile(
    (
        rb"src=(A) dst=(A) (?:sport=# dport=#|type=# code=# id=#) (?:zone-orig=# )?(?:packets=# bytes=# )?"
        rb"(?:\[(UNREPLIED)\] )?(?:(=)|src=(A) dst=(A) (?(3)sport=# dport=#|type=# code=# id=#))"
        rb"(?: zone-reply=#)?(?: packets=# bytes=#)?(?: \[(ASSURED|OFFLOAD|HW_OFFLOAD)\])?"
        rb"(?: mark=#)?(?: zone=#)?(?: delta-time=#)?(?: use=#)?(?: id=#)?"
    )
    .replace(b"#", _NUMBER)
    .replace(b"(A)", b"(" + _ADDRESS + b")")
)
# The words of a usual line in their order, None for what was not printed. ``turned`` is b"=" where the reply tuple is
# the original turned round; its own words are then None. ``flag``: ASSURED, OFFLOAD or HW_OFFLOAD.
USUAL_WORDS = (
    *("src", "dst", "sport", "dport", "type", "code", "icmp_id", "zone_orig", "packets", "bytes", "unreplied"),
    *("turned", "reply_src", "reply_dst", "reply_sport", "reply_dport", "reply_type", "reply_code", "reply_icmp_id"),
    *("zone_reply", "reply_packets", "reply_bytes", "flag", "mark", "zone", "delta_time", "use", "id"),
)
Usual = tuple[bytes | None, ...]


def usual_text(row: Parts) -> bytes:
    """A row's text from its original tuple on, b"=" standing for a reply that is the original turned round."""
    return row[ORIGINAL] + row[BEFORE] + row[TURNED] + row[AFTER]


def usual(text: bytes) -> Usual | None:
    """The words of a usual line from its original tuple on (``usual_text``), in the order of USUAL_WORDS; else None.

    Usual is what a router sees all day: TCP, UDP and ICMP over IPv4 and IPv6, with and without NAT, counters, mark,
    zones, age and id. Helpers, labels, GRE and unknown words take the slow way through ``record``.
    """
    found = _USUAL.fullmatch(text)
    return None if found is None else found.groups()


def _usual(row: Parts) -> Record | None:
    """Read a usual row, in a third of the time."""
    words = usual(usual_text(row))
    if words is None:
        return None
    stamp, event, head, timeout, state = row[:ORIGINAL]
    src, dst, sport, dport, kind, code, icmp_id, zone, packets, size, unreplied, turned, *back = words
    reply_src, reply_dst, reply_sport, reply_dport, reply_kind, reply_code, reply_id, reply_zone, *rest = back
    if turned:
        reply_src, reply_dst, reply_sport, reply_dport = dst, src, dport, sport
    reply_packets, reply_size, flag, mark, flow_zone, delta, use, ident = rest
    return Record(
        kind_of(head),
        _side(src, dst, sport, dport, kind, code, icmp_id, zone, packets, size),
        _side(
            *(reply_src, reply_dst, reply_sport, reply_dport, reply_kind, reply_code, reply_id, reply_zone),
            *(reply_packets, reply_size),
        ),
        stamp[1:-2].decode() or None,
        EVENTS.get(event),
        _optional(timeout),
        state[:-1].decode() or None,
        [word.decode() for word in (unreplied, flag) if word],
        mark=_optional(mark),
        zone=_optional(flow_zone),
        delta_time=_optional(delta),
        use=_optional(use),
        id=_optional(ident),
    )


def _side(src: bytes | None, dst: bytes | None, *numbers: bytes | None) -> Tuple:
    """One direction: addresses; ports, type, code, id, zone and counters as far as they were printed."""
    assert src is not None
    assert dst is not None
    sport, dport, kind, code, icmp_id, zone, packets, size = map(_optional, numbers)
    return Tuple(src.decode(), dst.decode(), sport, dport, kind, code, icmp_id, zone=zone, packets=packets, bytes=size)


def _optional(digits: bytes | None) -> int | None:
    return int(digits) if digits else None


def _any(row: Parts) -> Record:
    """Read any row, word by word."""
    stamp, event, head, timeout, state, original = row[: ORIGINAL + 1]
    tail = with_reply(original, tail_of(row))
    out = Record(
        kind_of(head),
        Tuple(),
        Tuple(),
        stamp[1:-2].decode("ascii", "replace").replace(" ", "") or None,
        EVENTS.get(event),
        int(timeout) if timeout else None,
        state[:-1].decode("ascii") or None,
    )
    text = original.decode("ascii") + _take_free_texts(out, tail.decode("utf-8", "replace"))
    _take_words(out, text)
    return out


def _take_free_texts(out: Record, text: str) -> str:
    """Read the parts that may hold blanks ([USERSPACE], labels, secctx) and return the text without them."""
    at = text.find(" [USERSPACE]")
    if at >= 0:
        if match := _USER.match(text, at):
            out.portid = _decimal(match.group(1))
            out.progname = match.group(2)
        text = text[:at]
    at = text.find(" labels")
    if at >= 0 and text[at + 7 : at + 8] in ("", "="):
        names = text[at + 8 :]
        out.labels = names.split(",") if names else []
        text = text[:at]
    if " secctx=" in text and (match := _SECCTX.search(text)):
        out.secctx = match.group(1)
        text = text[: match.start()] + text[match.end() :]
    return text


def _take_words(out: Record, text: str) -> None:
    side = out.original
    for word in _TOKEN.findall(text):
        name, equals, value = word.partition("=")
        if not equals:
            if word[:1] == "[" and word[1:-1] in FLAGS:
                out.flags.append(word[1:-1])
        elif name in _TUPLE_TEXTS:
            if name == "src" and side.src:
                side = out.reply
            # A second address changes no tuple, and junk behind an address is dropped.
            if not getattr(side, name) and (match := _ADDRESS_OR_KEY.match(value)):
                setattr(side, name, match.group())
        elif name in _TUPLE_NUMBERS:
            setattr(side, _TUPLE_NUMBERS[name], _decimal(value))
        elif name in _NUMBERS:
            setattr(out, _NUMBERS[name], _decimal(value))
        elif name == "id":
            # An ICMP tuple's id stands right behind its code; the flow's own comes after both tuples.
            if side.code is not None and side.icmp_id is None:
                side.icmp_id = _decimal(value)
            else:
                out.id = _decimal(value)
        elif name == "helper":
            out.helper = value
        elif name in ("[start", "[stop"):
            setattr(out, name[1:], value[:-1])


def _decimal(text: str | None) -> int | None:
    """A decimal of at most 20 digits (an u64), or None."""
    return int(text) if text and len(text) <= 20 and text.isdecimal() and text.isascii() else None
