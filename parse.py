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
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from operator import itemgetter
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

# The kernel's timeouts by protocol number and state, as /proc/sys/net/netfilter/nf_conntrack_* names them. Of protocols
# without states the second is for flows that have been answered for some time (conntrack then says ASSURED).
_STATES_WITH_TIMEOUT = {
    (6, "tcp"): "syn_sent syn_recv established fin_wait close_wait last_ack time_wait close",
    (33, "dccp"): "request respond partopen open closereq closing timewait",
    (132, "sctp"): "closed cookie_wait cookie_echoed established shutdown_sent shutdown_recd shutdown_ack_sent "
    "heartbeat_sent",
}
TIMEOUT_OF_STATE = {
    (number, state.upper()): f"{name}_timeout_{state}"
    for (number, name), states in _STATES_WITH_TIMEOUT.items()
    for state in states.split()
} | {(6, "SYN_SENT2"): "tcp_timeout_syn_sent"}
TIMEOUTS_WITHOUT_STATE = {
    **dict.fromkeys((17, 136), ("udp_timeout", "udp_timeout_stream")),
    **{1: ("icmp_timeout",) * 2, 58: ("icmpv6_timeout",) * 2, 47: ("gre_timeout", "gre_timeout_stream")},
}
GENERIC_TIMEOUTS = ("generic_timeout",) * 2
# Data that is sent again, and data that nobody acknowledges, shorten the time of a TCP flow in any state to these.
RESENT_TIMEOUTS = ("tcp_timeout_max_retrans", "tcp_timeout_unacknowledged")
_OTHERS = (name for names in TIMEOUTS_WITHOUT_STATE.values() for name in names)
TIMEOUTS = tuple(dict.fromkeys([*TIMEOUT_OF_STATE.values(), *RESENT_TIMEOUTS, *_OTHERS, *GENERIC_TIMEOUTS]))

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
SRC, DST = 6, 7
BEFORE, TURNED, AFTER = 10, 11, 12


class Kind(NamedTuple):
    """Family and protocol of a flow, as printed. ``family`` is "" where only the address can tell (plain output)."""

    family: str
    protocol: str
    number: int

    @property
    def has_ports(self) -> bool:
        return self.number in WITH_PORTS


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
COUNTERS = rb"packets=(\d{1,20}) bytes=(\d{1,20})"  # of one direction
_ADDRESS = ADDRESS.encode()
_COUNTED = rb"packets=\d{1,20} bytes=\d{1,20}"
_ANY = rb"[0-9a-f:.]{2,45}"
_OCTETS = rb"\.".join([rb"[12]?\d{1,2}"] * 4)
_WHOLE = rb"(?:" + _OCTETS + rb"|[0-9a-f]{0,4}:[0-9a-f:]{1,38}(?:\." + rb"\.".join([rb"\d{1,3}"] * 3) + rb"|))"
_PORT = rb"[1-6]?\d{1,4}"
_FAMILY = rb"(?:ipv4     2 |ipv6     10 |)"
_BEFORE = rb"(?:zone-orig=\d{1,5} |)(?:%b |)(?:\[UNREPLIED\] |)" % _COUNTED
_DATE = rb"[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]?\d \d\d:\d\d:\d\d \d{4}\]"
_USER = rb" \[USERSPACE\](?: portid=\d{1,10}(?: progname=[^\n]{0,64}|)|)"

# What follows the reply tuple, in the order of the kernel and the library. A listing's line ends in its use or its id,
# which tells it from one that was cut off; an event's (group 2) may end in anything but for -o id.
# "(?:x|)" and not "(?:x)?": Python finds an alternative in half the time of a repetition, and 16 of them follow here.
_TAIL = b"".join(
    (
        rb"(?: zone-reply=\d{1,5}|)(?: %b|)(?: \[(?:ASSURED|OFFLOAD|HW_OFFLOAD)\]|)(?: mark=\d{1,10}|)" % _COUNTED,
        rb"(?:(?= [szdh\[])(?: secmark=\d{1,10}|)(?: zone=\d{1,5}|)(?: delta-time=\d{1,20}|)",
        rb"(?: \[start=%b|)(?: \[stop=%b|)(?: helper=[!-<>-~]{1,32}|)|)" % (_DATE, _DATE),
    )
)
_LINE_END = rb"(?(2)(?: use=\d{1,10}|)(?: id=\d{1,10}|)(?:%b|)| use=\d{1,10}(?: id=\d{1,10}|))" % _USER
_LINE_END_WITH_ID = rb"(?: use=\d{1,10}|(?(2)|(?!))) id=\d{1,10}(?:(?(2)%b)|)" % _USER
_WHOLE_LINE_END = rb"(?: use=\d{1,10}|)(?: id=\d{1,10}|)(?:%b|)" % _USER  # of lines that nobody can have cut off


def _grammar(heads: bytes, original: bytes, reply: bytes, end: bytes) -> re.Pattern[bytes]:
    """A line of the protocols ``heads``: every word of it, in its order, as conntrack prints it.

    ``original`` holds two groups for the ports. Most flows have no NAT. Their reply tuple is not kept, which saves 48
    of 450 bytes a flow; it proves both tuples, because damage would have to hit both in the same way.
    """
    return re.compile(
        rb"^(\[\d{1,12}\.\d{1,6}\]\t|)(?:( {4}\[NEW\] | \[UPDATE\] |\[DESTROY\] )|)"
        rb"(" + _FAMILY + rb"(?:" + heads + rb") )(\d{1,10} |)([A-Z][A-Z0-9_]{2,31} |)"
        rb"(src=(" + _ANY + rb") dst=(" + _ANY + rb")" + original + rb" )(" + _BEFORE + rb")"
        rb"(?:src(=)\8 dst=\7 sport=\10 dport=\9|)((?(12)|" + reply + rb")" + _TAIL + end + rb")$",
        re.MULTILINE,
    )


@lru_cache(maxsize=3)
def _with_ports(end: bytes) -> re.Pattern[bytes]:
    """The lines of the protocols that have ports, with one of the line ends above."""
    translated = rb"src=(?:\8 dst=%b sport=\10 dport=|%b dst=%b sport=%b dport=)%b"
    return _grammar(
        rb"tcp      6|udp      17|sctp     132|dccp     33|udplite  136",
        rb" sport=(\d{1,5}) dport=(\d{1,5})",
        translated % (_WHOLE, _WHOLE, _WHOLE, _PORT, _PORT),
        end,
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


_SUMMARY = re.compile(
    rb"conntrack v[\d.]{1,16} \(conntrack-tools\): (\d{1,12}) "
    rb"(flow entries|flow events|expectations|expectation events) ha(?:ve|s) been [a-z]{1,16}\.\r?\n?"
)


class Summary(NamedTuple):
    """conntrack's last line: so many of ``what`` has it printed."""

    number: int
    what: str  # "flow entries", "flow events", "expectations"


def summary_of(line: bytes) -> Summary | None:
    """What conntrack's own last line says, which stands among the others where its outputs are one (2>&1, ssh -t).

    >>> summary_of(b"conntrack v1.4.7 (conntrack-tools): 12 flow entries have been shown.")
    Summary(number=12, what='flow entries')
    """
    match = _SUMMARY.search(line)
    return Summary(int(match.group(1)), match.group(2).decode()) if match else None


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
        if b" (conntrack-tools): " in block:
            block = self._without_summary(block)
        if end < len(data):
            self._keep(data[end:])
        return block

    def _without_summary(self, block: bytes) -> bytes:
        """Put conntrack's last line before the line that it stands in.

        In `conntrack -L 2>&1 | cat` the lines come in pieces of 4 KiB, the last of them after that line.
        """
        match = _SUMMARY.search(block)
        if match is None or block[match.start() - 1 : match.start()] in (b"", b"\n"):
            return block
        begin = block.rfind(b"\n", 0, match.start()) + 1
        half, rest = block[begin : match.start()], block[match.end() :]
        if not rest:
            self._parts, self._size = [half], len(half)
            half = b""
        return block[:begin] + match.group() + half + rest

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


def split_lines(
    block: bytes, before: bytes = b"", now: float | None = None, with_ids: bool = False, whole: bool = False
) -> tuple[list[Parts], list[bytes]]:
    """Cut a block of lines into rows, and return the lines that are none (the rejects) beside them.

    Blank lines are neither. A line is a row if conntrack could have printed it, word by word; what people and other
    programs put around it is taken off first (see ``_split_odd``). A last line without its newline may have been cut
    off: it is taken only if it ends in the word in which the line before it ends. That is the line before it in this
    block, or else ``before`` is its tail.

    ``now``, seconds since 1970, tells the year of a syslog's time stamp. ``with_ids``: events end in their ids.
    ``whole``: no line can have been cut off, whatever its end is; a listing's may lack its use and, where only updates
    named a flow, its state, and say who changed it.
    """
    if b"\r\n" in block:  # ssh -t and Windows editors
        block = block.replace(b"\r\n", b"\n")
    strictly = with_ids or ends_in_id(block[: block.find(b"\n") + 1])
    end = _WHOLE_LINE_END if whole else _LINE_END_WITH_ID if strictly else _LINE_END
    found: list[Parts] = _with_ports(end).findall(block)
    complete = block.endswith(b"\n")
    if complete and len(found) == block.count(b"\n") and _are_whole(found, whole):
        return found, []
    lines = [line for line in block.split(b"\n") if line.strip()]
    if not _may_hold_flows(block):
        return [], [line[:MAX_REJECT] for line in lines]
    read = [_split_line(line, now, whole) for line in lines]
    if None in read and (words := _new_words(lines, read)):
        read = [row or _split_line(words.sub(b"", line), now, whole) for line, row in zip(lines, read, strict=True)]
    if not whole:
        _drop_without_id(read, with_ids)
    if read and read[-1] is not None and not (complete or whole) and not _is_last(lines[-1], read, before):
        read[-1] = None
    rejects = [line[:MAX_REJECT] for line, row in zip(lines, read, strict=True) if row is None]
    return [row for row in read if row is not None], rejects


Cut = tuple[bytes, bytes, bytes, bytes]  # head, timeout, all behind it; or three empty ones and the whole line
_TIMED = re.compile(
    rb"^(?:(" + _FAMILY + rb"[a-z][a-z0-9-]* +\d+ )(\d{1,10}) ((?:[A-Z][A-Z0-9_]* |)src=[^\n]*)|([^\n]+))$",
    re.MULTILINE,
)


def cut_timeouts(block: bytes) -> list[Cut]:
    """All lines of a listing's block, cut around their timeouts, in a fifth of the time of ``split_lines``.

    Nothing is checked: this serves to find the lines that were there before, word by word.
    """
    return _TIMED.findall(block)


def joined(cut: Cut) -> bytes:
    """The line again."""
    return b"%b%b %b" % cut[:3] if cut[0] else cut[3]


def _are_whole(rows: list[Parts], whole: bool) -> bool:
    """Is all well that the expression can't tell? Asked of all lines of a block at once: 5 % of its time.

    ``whole``: see ``_is_whole``.
    """
    if not all(_is_usual(head + state) for head, state in set(map(_HEAD_AND_STATE_OF, rows))):
        return False
    if not all(map(_TIMEOUT_OF, rows)) and any(row[EVENT] != _DESTROY for row in rows if not row[TIMEOUT]):
        return False
    if len(rows) <= _FEW_ROWS:
        return all(_is_whole(row, whole) for row in rows)
    if not (translated := [row for row in rows if not row[TURNED]]):
        return True
    ends = set(map(_SRC_OF, translated))
    ends.update(map(_DST_OF, translated))
    text = b"%b " % b" ".join(ends)
    if b":" in text:
        return all(map(_are_addresses, translated))
    return text.count(b".") == 3 * len(ends) and b".." not in text and b". " not in text


_TIMEOUT_OF, _SRC_OF, _DST_OF = itemgetter(TIMEOUT), itemgetter(SRC), itemgetter(DST)
_HEAD_AND_STATE_OF = itemgetter(HEAD, STATE)
_FEW_ROWS = 16  # rows of which all is looked at: events as they come where little happens, and lines by hand
_DESTROY = b"[DESTROY] "
_STATELESS = (_DESTROY, b" [UPDATE] ")  # events that may lack the state
_ID_AT_END = re.compile(rb" id=\d{1,10}(?: labels(?:=.*)?)?(?: \[USERSPACE\].*)?$")
_TUPLE_ID_AT_END = re.compile(rb" code=\d{1,3} id=\d{1,5}(?: labels(?:=.*)?)?(?: \[USERSPACE\].*)?$")
_LAST_NUMBER = re.compile(rb" (use|id)=\d+$")
MAX_REJECT = 200  # bytes of a reject that are kept
SYSTEMATIC = 3  # lines with the same new word: it is a newer conntrack's, no damage


def ends_in_id(text: bytes) -> bool:
    """Does a line (or its end) have the flow's id? The last id of an ICMP line may be its reply tuple's."""
    return _ID_AT_END.search(text) is not None and _TUPLE_ID_AT_END.search(text) is None


def _drop_without_id(read: list[Parts | None], with_ids: bool) -> None:
    """With -o id all lines of a kind have their id; where most have it, one without was cut off."""
    for is_event in (True, False) if any(read) else ():
        rows = [(at, row) for at, row in enumerate(read) if row is not None and bool(row[EVENT]) == is_event]
        without = [at for at, row in rows if not ends_in_id(row[AFTER])]
        if 2 * len(without) < len(rows) or (is_event and with_ids):
            for at in without:
                read[at] = None


def _last_of(read: list[Parts | None]) -> bytes | None:
    """The tail of the last row; None where there is none."""
    return next((tail_of(row) for row in reversed(read) if row is not None), None)


def _is_last(line: bytes, read: list[Parts | None], before: bytes) -> bool:
    """Does the last row, whose line had no newline, end in the word in which the row before it does?"""
    *others, row = read
    last = _last_of(others)
    usual = _LAST_NUMBER.search(before if last is None else last)
    here = _LAST_NUMBER.search(row[AFTER]) if row else None
    return line[-1:] != b" " and (usual is None or (here is not None and here.group(1) == usual.group(1)))


def _split_line(line: bytes, now: float | None, whole: bool) -> Parts | None:
    if not SHORTEST <= len(line) <= MAX_LINE or not _may_hold_flows(line):
        return None
    found: list[Parts] = _with_ports(_WHOLE_LINE_END if whole else _LINE_END).findall(line)
    if found:
        return found[0] if _is_whole(found[0], whole) else None
    return _split_odd(line, now, whole)


def _may_hold_flows(text: bytes) -> bool:
    """Garbage that never ends must cost little. Colours may stand within a word."""
    return b"src=" in text or b"\x1b" in text


def _new_words(lines: list[bytes], read: list[Parts | None]) -> re.Pattern[bytes] | None:
    """What finds the words of a newer conntrack in the lines that are no rows yet: they are skipped.

    A word that is like one of today's may be that one, damaged; it is new where half of the lines have it.
    """
    counts: Counter[bytes] = Counter()
    for line, row in zip(lines, read, strict=True):
        if row is None and len(line) <= MAX_LINE and b"src=" in line:
            counts.update({match.group(1) for match in _NEW_WORD.finditer(line, line.find(b"src=") + 1)})
    often = max(SYSTEMATIC, len(lines) / 2)
    words = [re.escape(word) for word, count in counts.items() if count >= often or not _is_like_a_known(word)]
    return re.compile(rb" (?:" + rb"|".join(words) + rb")(?:(?<==)[^\s=]+|(?<!=))(?= |$)") if words else None


_KNOWN_NAMES = (
    *("src", "dst", "sport", "dport", "type", "code", "id", "srckey", "dstkey", "zone", "zone-orig", "zone-reply"),
    *("packets", "bytes", "mark", "secmark", "secctx", "delta-time", "start", "stop", "helper", "use", "labels"),
    *("portid", "progname", *map(str.lower, FLAGS), "userspace"),
)
_NEW_WORD = re.compile(
    r" (?!(?:{})=|\[(?:{}|USERSPACE)\])(?=\S+(?: |$))([a-z][a-z0-9_-]{{1,31}}=|\[[A-Z][A-Z_]{{1,31}}\])".format(
        "|".join(_KNOWN_NAMES), "|".join(FLAGS)
    ).encode()
)


@lru_cache(maxsize=1024)
def _is_like_a_known(word: bytes) -> bool:
    """May a word be one of today's with a few letters lost, doubled or in the wrong place?

    >>> _is_like_a_known(b"makr="), _is_like_a_known(b"[UNREPLIEDD]"), _is_like_a_known(b"seqadj=")
    (True, True, False)
    """
    from difflib import get_close_matches  # 3 ms, which --help does not need

    name = word.decode("ascii").strip("[]=").lower()
    return bool(get_close_matches(name, _KNOWN_NAMES, 1, 0.6))


# --- what the expression can't tell ---

# What the library calls protocols; a kernel that can't track one calls it unknown.
PRINTED = {"icmp": 1, "tcp": 6, "udp": 17, "dccp": 33, "gre": 47, "icmpv6": 58, "sctp": 132, "udplite": 136}
_ALWAYS_TRACKED = frozenset({1, 6, 17, 58})
_STATES_OF = {6: frozenset(_TCP_STATES.split()), 132: STATES, 33: STATES}  # DCCP had SCTP's before library 1.0.9


@lru_cache(maxsize=1024)
def _is_usual(head_and_state: bytes) -> bool:
    """Do protocol and state belong together? TCP has one, UDP has none.

    >>> _is_usual(b"tcp      6 ESTABLISHED "), _is_usual(b"tcp      6 "), _is_usual(b"udp      17 ")
    (True, False, True)
    """
    last = head_and_state.decode().split()[-1]
    numbers = [int(word) for word in head_and_state.split() if word.isdigit()]
    states = _STATES_OF.get(numbers[-1])
    return last.isdigit() if states is None else last in states


def _is_whole(row: Parts, whole: bool) -> bool:
    """Does all that a row says belong together? ``whole``: a line may tell of a flow that only updates have named."""
    kind, state, event = kind_of(row[HEAD]), row[STATE], row[EVENT]
    offloaded = b" [OFFLOAD]" in row[AFTER] or b" [HW_OFFLOAD]" in row[AFTER]
    if not row[TIMEOUT] and not offloaded and event != _DESTROY:
        return False
    if state:
        if not _is_usual(row[HEAD] + state):
            return False
    elif kind.number in (6, 132) and b" mark=" in row[AFTER] and not (whole or offloaded or event in _STATELESS):
        return False  # a kernel prints state and mark, the library neither where an object has neither
    if not (row[TURNED] or _are_addresses(row)):
        return False
    return not kind.family or (kind.family == "ipv6") == (b":" in row[ORIGINAL])


def _are_addresses(row: Parts) -> bool:
    """Can the tuples of a row with its own reply tuple be true?

    The four addresses are whole and of one family, ports are ports. No NAT turns one end of both directions into the
    other, which is what two words look like that have changed their places.
    """
    words = row[AFTER].split(b" ", 4)
    src, dst, back, there = row[SRC], row[DST], words[0][4:], words[1][4:]
    family = _family_of(src)
    if not family or not family == _family_of(dst) == _family_of(back) == _family_of(there):
        return False
    if src == dst != back == there:
        return False
    ports = [*row[8:10], *(word[6:] for word in words[2:4] if word[1:6] == b"port=")]
    if not all(map(_IS_PORT.fullmatch, ports)):
        return False
    return len(ports) < 4 or not (ports[0] == ports[1] != ports[2] == ports[3])


_IS_PORT = re.compile(rb"(?!0\d)(?:[1-5]?\d{1,4}|6[0-4]\d{3}|65[0-4]\d\d|655[0-2]\d|6553[0-5])?")
_IPV4 = re.compile(rb"\.".join([rb"(?:1\d\d|[1-9]?\d|2[0-4]\d|25[0-5])"] * 4))


def _family_of(address: bytes) -> int:
    """4 or 6; 0 for what is no whole address."""
    if _IPV4.fullmatch(address):
        return 4
    return 6 if b":" in address and _is_ipv6(address) else 0


@lru_cache(maxsize=4096)
def _is_ipv6(address: bytes) -> bool:
    from ipaddress import IPv6Address  # 6 ms, which --help does not need

    try:
        IPv6Address(address.decode("ascii"))
    except ValueError:
        return False
    return True


# --- lines as people have them ---

_ESCAPE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][0-9A-B])")
_GREP = b"\x1b[K"  # grep --color puts it behind each of its colours
_BOM = b"\xef\xbb\xbf"
_BEGIN = re.compile(
    rb"(?:\[ *(\d{1,12}\.\d{1,6}) *\] +)?(?:\[(NEW|UPDATE|DESTROY)\] +)?(ipv4 +2 +|ipv6 +10 +)?"
    rb"([a-z0-9-]{1,16}) +(\d{1,3}) +"
    rb"(?=(?:\d{1,10} +)?(?:[A-Z][A-Z0-9_]+ +)?(?:timeout=\d+, stream_timeout=\d+ +)?src=)"
)
_TIME = rb"(\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))?"
_ISO_TIME = re.compile(rb"(\d{4})-(\d\d)-(\d\d)[T ]" + _TIME + rb" ?(Z|UTC|[+-]\d\d:?\d\d)? +")
_MONTHS = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_SYSLOG_TIME = re.compile(rb"(" + rb"|".join(_MONTHS) + rb") +(\d{1,2}) (?:(\d{4}) )?" + _TIME + rb" +")
_UNIX_TIME = re.compile(rb"(\d{9,11}\.\d{3,9}) +")
_AROUND = re.compile(
    rb"[>|] *|<\d{1,3}>(?:1 )?|\d{1,9}[:-] *"  # a mail's quote, a syslog's priority, grep -n
    rb"|[\w.@/+-]{1,64} +\| +"  # docker compose logs
    rb"|(?:[\w.:-]{1,64} +)?[\w./-]{1,64}(?:\[\d{1,10}\])?: +"  # a host and a program
    rb"|[\w.-]{1,64} +[\w./-]{1,64} +[\w-]{1,32} +[\w-]{1,32} +- +"  # RFC 5424
    rb"|[\w./-]{1,200}[:-](?:\d{1,9}[:-])? *"  # grep with the name of the file
)
_MOST_AROUND = 8
_BLANKS = re.compile(rb"(?<![A-Z][a-z]{2}) +")  # but those between a month and its day
_HEX_MARK = re.compile(rb"(?<= mark=)0x([0-9a-f]{1,8})(?= |$)")
_GRE_TIMEOUTS = re.compile(rb"timeout=\d+, stream_timeout=\d+ ")
_USER_WORD = b" [USERSPACE]"
_USER_PART = re.compile(rb" *(\[USERSPACE\](?: portid=\d{1,10}(?: progname=[^\n]{0,64})?)?)$")
_LABELS = re.compile(rb" labels(?:=[^\n]*)?$")
_CONTEXT = re.compile(rb" secctx=(.*?)(?= (?:zone=\d|delta-time=\d|\[start=|\[stop=|helper=|use=\d|id=\d)|$)")
_BEFORE_CONTEXT = re.compile(
    rb"(?:src=\S+ dst=\S+(?: (?:[sd]port|type|code|id|...key)=\S+)*)?(?: zone-reply=\d+)?(?: "
    + _COUNTED
    + rb")?(?: \[[A-Z_]+\])?(?: mark=\d+)?(?: secmark=\d+)?"
)


def _split_odd(line: bytes, now: float | None = None, whole: bool = False) -> Parts | None:
    """Cut a line that is not in its usual form: the slow way.

    Taken off: colours (of grep), a byte order mark, blanks, and what syslog, the journal, grep -n, mail and docker logs
    put before a line; where the line has no time, theirs is taken. Tabs may have become blanks, a mark may be 0x10.
    """
    text, user = line, b""
    if _GREP in line:
        text = line = _ESCAPE.sub(b"", line)
    if match := _USER_PART.search(line):  # a program may call itself anything, also with colours
        text, user = line[: match.start()], b" " + match.group(1)
    found = _begin(text, now)
    if found is None or _USER_WORD in text:
        return None
    begin, number, body = found
    label = context = b""
    if match := _LABELS.search(body):
        body, label = body[: match.start()], match.group()
    if match := _CONTEXT.search(body):
        body, context = body[: match.start()] + body[match.end() :], match.group()
    words = _BLANKS.sub(b" ", body).strip(b" ")
    words = _HEX_MARK.sub(lambda mark: b"%d" % int(mark.group(1), 16), words)
    words = _GRE_TIMEOUTS.sub(b"", words, count=1) if number == 47 else words
    match = _expression(number, _WHOLE_LINE_END if whole else _LINE_END).fullmatch(begin + words)
    if match is None or b"src=" in context + label:
        return None
    row: Parts = match.groups(b"")  # type: ignore[assignment]
    if row[EVENT] and text.endswith(b" "):
        return None  # conntrack writes no blank there: the line was cut off
    if not _is_whole(row, whole) or not _answers(row, number) or (user and not (row[EVENT] or whole)):
        return None
    return _with_texts(row, context, label + user)


def _begin(text: bytes, now: float | None) -> tuple[bytes, int, bytes] | None:
    """All before the timeout as conntrack prints it, the protocol's number, and the rest of a line."""
    text = _ESCAPE.sub(b"", text).replace(b"\t", b" ").replace(_BOM, b"").lstrip().rstrip(b"\r")
    at, moment = 0, b""
    for _ in range(_MOST_AROUND):
        if match := _BEGIN.match(text, at):
            break
        if match := _UNIX_TIME.match(text, at):
            moment = _moment(float(match.group(1)))
        elif match := _ISO_TIME.match(text, at):
            moment = _moment(_iso_seconds(match))
        elif match := _SYSLOG_TIME.match(text, at):
            moment = _moment(_syslog_seconds(match, now))
        elif (match := _AROUND.match(text, at)) is None:
            return None
        at = match.end()
    else:
        return None
    stamp, tag, family, protocol, digits = match.groups()
    name, number = protocol.decode(), int(digits)
    if PRINTED.get(name, PROTOCOLS.get(name)) != number and (name != "unknown" or number in _ALWAYS_TRACKED):
        return None
    stamp = b"[%b]\t" % stamp if stamp else moment
    kinds = [b"%-8s %s " % tuple(family.split())] if family else []
    kinds.append(b"%-8s %d " % (protocol, number))
    event = _EVENT_BY_TAG[tag] if tag else b""
    return b"".join((stamp, event, *kinds)), 0 if name == "unknown" else number, text[match.end() :]


_EVENT_BY_TAG = {tag.strip(b" []"): tag for tag in EVENTS}


def _moment(seconds: float | None) -> bytes:
    """A time as conntrack stamps it; b"" for none."""
    return b"" if seconds is None or not 0 <= seconds < 1e12 else b"[%.6f]\t" % seconds


def _iso_seconds(match: re.Match[bytes]) -> float | None:
    from datetime import datetime

    *numbers, fraction, zone = (part or b"" for part in match.groups())
    text = b"%b-%b-%bT%b:%b:%b" % tuple(numbers)
    offset = {b"": "", b"Z": "+00:00", b"UTC": "+00:00"}.get(zone, f"{zone[:3].decode()}:{zone[-2:].decode()}")
    try:
        return datetime.fromisoformat(text.decode() + offset).timestamp() + float(b"0." + (fraction or b"0"))
    except (ValueError, OverflowError, OSError):
        return None


def _syslog_seconds(match: re.Match[bytes], now: float | None) -> float | None:
    """Its local time; without a year it is the newest such day that is not to come."""
    from datetime import datetime

    month, day, year, hour, minute, second, fraction = match.groups()
    if year is None and now is None:
        return None
    try:
        newest = datetime.fromtimestamp(now or 0.0).year if year is None else int(year)
        for candidate in (newest, newest - 1):
            numbers = (candidate, _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second))
            seconds = datetime(*numbers).timestamp() + float(b"0." + (fraction or b"0"))
            if year is not None or now is None or seconds <= now + _DAY:
                return seconds
    except (ValueError, OverflowError, OSError):
        pass
    return None


_DAY = 86_400.0


@lru_cache(maxsize=8)
def _of_its_kind(number: int, end: bytes) -> re.Pattern[bytes]:
    heads = rb"[a-z0-9-]{1,16} {1,8}\d{1,3}"
    words = b""
    if number in (1, 58):
        words = rb" type=\d{1,3} code=\d{1,3} id=\d{1,5}"
    elif number == 47:
        words = rb" srckey=0x[0-9a-f]{1,8} dstkey=0x[0-9a-f]{1,8}"
    return _grammar(heads, words + rb"()()", rb"src=%b dst=%b%b" % (_WHOLE, _WHOLE, words), end)


def _expression(number: int, end: bytes) -> re.Pattern[bytes]:
    """The grammar of a protocol's lines; 0 is one that the kernel does not know."""
    if number in WITH_PORTS:
        return _with_ports(end)
    return _of_its_kind(number if number in (1, 47, 58) else 0, end)


_ICMP_ANSWERS = {8: 0, 13: 14, 15: 16, 17: 18, 128: 129, 139: 140}
_ANSWERS = {**_ICMP_ANSWERS, **{answer: ask for ask, answer in _ICMP_ANSWERS.items()}}
_ICMP_WORDS = re.compile(rb"type=(\d+) code=(\d+) id=(\d+)")


def _answers(row: Parts, number: int) -> bool:
    """Is an ICMP reply tuple the answer to the original?"""
    if number not in (1, 58):
        return True
    asked, answer = _ICMP_WORDS.search(row[ORIGINAL]), _ICMP_WORDS.search(row[AFTER])
    if asked is None or answer is None or max(int(asked.group(3)), int(answer.group(3))) > 65_535:
        return False
    if row[AFTER][answer.end() :].split()[:1] == [b"id=" + answer.group(3)]:
        return False  # the tuple's id twice, not the flow's
    kind = int(asked.group(1))
    return int(answer.group(1)) == _ANSWERS.get(kind, kind) and asked.group(2) == answer.group(2)


def _with_texts(row: Parts, context: bytes, last: bytes) -> Parts:
    """The row with its words that may hold blanks in their places again."""
    if not context and not last:
        return row
    stamp, event, head, timeout, state, original, src, dst, sport, dport, before, turned, after = row
    match = _BEFORE_CONTEXT.match(after)
    place = match.end() if match else 0
    after = after[:place] + context + after[place:] + last
    return stamp, event, head, timeout, state, original, src, dst, sport, dport, before, turned, after


def join_parts(
    stamp: bytes, event: bytes, head: bytes, timeout: bytes, state: bytes, original: bytes, tail: bytes
) -> Parts:
    """A row whose text behind the original tuple is as printed."""
    return stamp, event, head, timeout, state, original, b"", b"", b"", b"", b"", b"", tail


# --- the second level -------------------------------------------------------------------------------------------------

_TOKEN = re.compile(r"\[[a-z]+=[^\]]*\]|[^ ]+")
_KNOWN_WORD = re.compile(
    rf"(?:src|dst)={ADDRESS}|(?:sport|dport|type|code|id|zone-orig|zone-reply|packets|bytes|mark|secmark|zone|delta-time|use)=\d+"
    r"|(?:srckey|dstkey)=0x[0-9a-f]+|(?:secctx|helper)=.+|\[(?:" + "|".join(FLAGS) + r")\]|\[(?:start|stop)=[^\]]*\]"
)
_SECCTX = re.compile(r" secctx=(.*?)(?= (?:zone=\d|delta-time=\d|\[start=|\[stop=|helper=|use=\d|id=\d|labels)|$)")
_USERSPACE = re.compile(r" \[USERSPACE\](?: portid=(\d{1,10}))?(?: progname=(.*))?$", re.DOTALL)
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
        rb"src=(A) dst=(A) (?:sport=# dport=#|type=# code=# id=#) (?:zone-orig=# |)(?:packets=# bytes=# |)"
        rb"(?:\[(UNREPLIED)\] |)(?:(=)|src=(A) dst=(A) (?(3)sport=# dport=#|type=# code=# id=#))"
        rb"(?: zone-reply=#|)(?: packets=# bytes=#|)(?: \[(ASSURED|OFFLOAD|HW_OFFLOAD)\]|)"
        rb"(?: mark=#|)(?: zone=#|)(?: delta-time=#|)(?: use=#|)(?: id=#|)"
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


def cut_user(text: bytes) -> tuple[bytes, int | None, str | None]:
    """A line's text without its [USERSPACE] part, and who changed the flow: the netlink port and the program's name.

    >>> cut_user(b"mark=1 [USERSPACE] portid=7 progname=a b")
    (b'mark=1', 7, 'a b')
    """
    rest, word, said = text.partition(_USER_WORD)
    match = _USERSPACE.match((word + said).decode("utf-8", "replace"))
    return (rest, None, None) if match is None else (rest, _decimal(match.group(1)), match.group(2))


def usual_line(words: Usual) -> bytes:
    """The text that has these words: what ``usual`` takes apart.

    >>> usual_line(usual(b"src=::1 dst=::2 sport=1 dport=2 [UNREPLIED] = mark=0"))
    b'src=::1 dst=::2 sport=1 dport=2 [UNREPLIED] = mark=0'
    """
    return b" ".join([form % word for form, word in zip(_PRINTED_AS, words, strict=True) if word is not None])


def _printed_as(name: str) -> bytes:
    """How a word of USUAL_WORDS stands in a line."""
    if name == "turned":
        return b"%b"
    if name in ("unreplied", "flag"):
        return b"[%b]"
    printed = name.removeprefix("reply_").replace("icmp_id", "id").replace("_", "-")
    return f"{printed}=%b".encode()


_PRINTED_AS = tuple(map(_printed_as, USUAL_WORDS))
_ORIGINAL_OF = {"reply_src": "dst", "reply_dst": "src", "reply_sport": "dport", "reply_dport": "sport"}
# Lines that have the same words differ in these bytes only: digits, and what else addresses are made of.
_IN_VALUES = b"0123456789abcdef:."
_LEADING_ZERO = re.compile(rb"=0\d")


def shape_of(text: bytes) -> bytes:
    """What is the same in all usual lines that have the same words.

    >>> shape_of(b"src=10.0.0.1 dst=192.0.2.1 sport=1024 dport=80 = mark=0") == shape_of(
    ...     b"src=::1 dst=fe80::1 sport=1 dport=2 = mark=7"
    ... )
    True
    """
    return text.translate(None, _IN_VALUES)


def words_of(text: bytes) -> list[bytes]:
    """A line's names and values, one after the other. It takes a third of the time of ``usual``.

    >>> words_of(b"src=::1 dst=::2 [UNREPLIED] = mark=0")
    [b'src', b'::1', b'dst', b'::2', b'[UNREPLIED]', b'', b'', b'mark', b'0']
    """
    return text.replace(b"=", b" ").split(b" ")


def usual_places(text: bytes) -> tuple[dict[str, int], list[bytes]] | None:
    """Where ``words_of`` has the values of a usual line, by their names in USUAL_WORDS, and its flags; else None.

    All lines of the same shape have them there. A reply that is the original turned round has the original's values.

    >>> usual_places(b"src=::1 dst=::2 sport=1 dport=2 [UNREPLIED] = mark=0")[0]["reply_src"]
    3
    """
    found = _USUAL.fullmatch(text)
    if found is None:
        return None
    starts = {name: found.start(at) for at, name in enumerate(USUAL_WORDS, 1) if found.group(at) is not None}
    places = {name: len(words_of(text[:start])) - 1 for name, start in starts.items()}
    flags = [text[starts[name] :].partition(b"]")[0] for name in ("unreplied", "flag") if places.pop(name, None)]
    if places.pop("turned", None):
        places.update({name: places[its] for name, its in _ORIGINAL_OF.items()})
    return places, flags


def has_leading_zero(text: bytes) -> bool:
    """Has a usual line a number that is not as a kernel prints it, with a zero in front? JSON knows no such number."""
    return _LEADING_ZERO.search(text) is not None


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
        if match := _USERSPACE.match(text, at):
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
