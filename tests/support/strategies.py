"""What property tests draw: keys, sizes, lines of conntrack, tables with a view.

Lines are about few addresses, ports and ids, so that the same flow returns as new, listed, ended and listed late. Where
any text must be survived, or any number sorted, they are about anything: ``any_flow_lines``, ``any_blocks``.
"""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import strategies as st

from addresses import Lookups, Place
from intake import Problem
from keys import BINDINGS
from support.tables import Monitor, feed

KEYS = [key for binding in BINDINGS for key in binding.keys if key not in ("q", "f10", "ctrl-c")]
EDITING = ["backspace", "delete", "up", "down", "left", "right", "home", "end", "ctrl-w", "ctrl-u", "ctrl-a"]
keys = st.one_of(
    st.sampled_from(KEYS + EDITING),
    st.characters(codec="utf-8"),
    st.sampled_from(["x", "!", "(", ")", '"', ":", ",", "漢", "e\u0301", "", "f99", "ctrl-z"]),
)

# --- few flows, which return in every role ---


class FewFlow(NamedTuple):
    """A protocol and an original tuple."""

    protocol: str
    number: int
    src: str
    dst: str
    sport: int
    dport: int

    def side(self, src: str, dst: str, sport: int, dport: int, reply: bool) -> str:
        """One direction as conntrack prints it."""
        ports = {
            "icmp": f"type={0 if reply else 8} code=0 id={dport if reply else sport} ",
            "icmpv6": f"type={129 if reply else 128} code=0 id={dport if reply else sport} ",
            "gre": f"srckey=0x{sport:x} dstkey=0x{dport:x} ",
            "unknown": "",
        }
        return f"src={src} dst={dst} " + ports.get(self.protocol, f"sport={sport} dport={dport} ")


# Three addresses of each family: the text's order is not the numbers', one is public, one the router's own.
FEW_ADDRESSES = (("10.0.0.1", "9.9.9.9", "192.0.2.1"), ("2001:db8::1", "2606:4700::1111", "2001:db8::10"))
FEW_PORTS = ((1024, 443), (53, 53))
FEW_FLOWS = [
    FewFlow(protocol, number, src, dst, *ports)
    for near, far, own in FEW_ADDRESSES
    for src, dst in ((near, far), (far, own), (own, far))
    for ports in FEW_PORTS
    for protocol, number in (("tcp", 6), ("udp", 17))
] + [
    FewFlow("icmp", 1, "10.0.0.1", "9.9.9.9", 7, 7),
    FewFlow("icmpv6", 58, "2001:db8::1", "2606:4700::1111", 7, 7),
    FewFlow("gre", 47, "10.0.0.1", "9.9.9.9", 0, 0xABCD),
    FewFlow("sctp", 132, "10.0.0.1", "9.9.9.9", 1024, 443),
    FewFlow("unknown", 50, "10.0.0.1", "9.9.9.9", 0, 0),
]
TAGS = ["", "", "", "    [NEW] ", " [UPDATE] ", "[DESTROY] ", "[DESTROY] "]
STATES = ["ESTABLISHED ", "ESTABLISHED ", "SYN_SENT ", "TIME_WAIT ", ""]
TIMEOUTS = ["300 ", "299 ", "", "0 ", "4294967295 "]
FLAGS = ["[ASSURED] ", "[ASSURED] ", "", "[UNREPLIED] ", "[OFFLOAD] "]
COUNTS = [
    ("packets=5 bytes=700 ", "packets=4 bytes=9000 "),
    ("packets=5 bytes=700 ", "packets=4 bytes=9000 "),
    ("packets=1 bytes=60 ", "packets=0 bytes=0 "),
    ("", ""),
    ("packets=18446744073709551615 bytes=18446744073709551615 ",) * 2,
]
IDS = [1, 1, 2, 3, None]
MORE = [
    *["mark=0 "] * 3,
    "mark=1 secctx=a:b helper=packets=4 ",
    "mark=0 zone=3 ",
]
TAILS = [*[""] * 4, " labels=a b", " [USERSPACE] portid=7 progname=zone=1 id=9"]


def _answered(flow: FewFlow, nat: str) -> tuple[str, str, int, int]:
    """The reply tuple: turned round, or translated."""
    _near, _far, own = FEW_ADDRESSES[":" in flow.src]
    inner = "fd00::7" if ":" in flow.src else "192.168.1.7"
    src = inner if nat in ("dnat", "both") else flow.dst
    dst = own if nat in ("snat", "both") else flow.src
    return src, dst, flow.dport, flow.sport + 1 if nat == "port" else flow.sport


ANY_OF_FEW = st.sampled_from(FEW_FLOWS)


@st.composite
def flow_lines(draw: st.DrawFn, flows: st.SearchStrategy[FewFlow] = ANY_OF_FEW) -> bytes:
    """A line about one of few flows: listed, NEW, UPDATE or DESTROY, with few ids, states, counters, translations."""
    flow = draw(flows)
    tag, ident = draw(st.sampled_from(TAGS)), draw(st.sampled_from(IDS))
    there, back = draw(st.sampled_from(COUNTS))
    flags = draw(st.sampled_from(FLAGS))
    nat = draw(st.sampled_from(["", "", "", "snat", "dnat", "both", "port"]))
    state = draw(st.sampled_from(STATES)) if flow.protocol in ("tcp", "sctp") else ""
    timeout = draw(st.sampled_from(TIMEOUTS))
    more = draw(st.sampled_from(MORE)) + ("" if tag else "use=1 ")
    family = "ipv6     10" if ":" in flow.src else "ipv4     2"
    before, after = (flags, "") if "UNREPLIED" in flags else ("", flags)
    original = flow.side(*flow[2:], reply=False) + there
    reply = flow.side(*_answered(flow, nat), reply=True) + back
    text = f"{tag}{family} {flow.protocol:<8} {flow.number} {timeout}{state}{original}{before}{reply}{after}{more}"
    number = "" if ident is None else f"id={ident}"
    return (text + number).rstrip().encode() + draw(st.sampled_from(TAILS)).encode() + b"\n"


@st.composite
def histories(draw: st.DrawFn, blocks: int = 6, lines: int = 8) -> list[bytes]:
    """Blocks of lines about the same one, two or three flows."""
    flows = st.sampled_from(draw(st.lists(st.sampled_from(FEW_FLOWS), min_size=1, max_size=3, unique=True)))
    return draw(st.lists(st.lists(flow_lines(flows), max_size=lines).map(b"".join), max_size=blocks))


# A few flows that return; and where width counts: lines about anything.
blocks = histories(blocks=2, lines=6).map(b"".join)


# --- any flow ---

_v4 = st.ip_addresses(v=4).map(str)
_v6 = st.ip_addresses(v=6).map(str)
_pairs = st.one_of(st.tuples(_v4, _v4), st.tuples(_v6, _v6))
_ports = st.integers(0, 65_535)
_junk = st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=60).map(str.encode)
_bytes = st.one_of(_junk, st.binary(max_size=60).map(lambda b: b.replace(b"\n", b" ")))
_escapes = st.sampled_from(
    [
        b"\x1b[31m\x1b]0;title\x07",
        b"\x9b2J",
        b"\xff\xfe",
        b"\xe2\x80\xae",
        "漢字かな".encode(),
        b"e\xcc\x81",
        b"\r",
        b"",
    ]
)
_hostile = st.one_of(_bytes, _escapes)


@st.composite
def any_flow_lines(draw: st.DrawFn) -> bytes:
    """A line of a listing or an event with any address, port and id; words of other programs may hold anything."""
    src, dst = draw(_pairs)
    reply_src, reply_dst = draw(st.sampled_from([(dst, src), (dst, dst), (src, src), (src, dst)]))
    sport, dport = draw(_ports), draw(_ports)
    number, protocol = draw(
        st.sampled_from(
            [(6, "tcp"), (17, "udp"), (1, "icmp"), (47, "gre"), (132, "sctp"), (99, "unknown"), (50, "unknown")]
        )
    )
    state = draw(st.sampled_from(["ESTABLISHED ", "SHUTDOWN_ACK_SENT ", "A" * 32 + " ", "", "SYN_SENT "]))
    state = state if protocol in ("tcp", "sctp") else ""
    timeout = draw(st.sampled_from(["", "0 ", "431999 ", "4294967295 "]))
    counts = draw(
        st.sampled_from(["", "packets=0 bytes=0 ", "packets=18446744073709551615 bytes=18446744073709551615 "])
    )
    ends = {"icmp": "type=8 code=0 id={} ", "gre": "srckey=0x{:x} dstkey=0x{:x} ", "unknown": ""}.get(
        protocol, "sport={} dport={} "
    )
    flags = draw(st.sampled_from(["", "[ASSURED] ", "[OFFLOAD] ", "[UNREPLIED] "]))
    before, after = (flags, "") if "UNREPLIED" in flags else ("", flags)
    family = "ipv6     10" if ":" in src else "ipv4     2"
    tag = draw(st.sampled_from(["", "    [NEW] ", " [UPDATE] ", "[DESTROY] "]))
    text = (
        f"{tag}{family} {protocol:<8} {number} {timeout}{state}src={src} dst={dst} {ends.format(sport, dport)}{counts}"
        f"{before}src={reply_src} dst={reply_dst} {ends.format(dport, sport)}{counts}{after}mark=1 "
    ).encode()
    if draw(st.booleans()):
        text += b"secctx=" + draw(_hostile) + b" "
    if draw(st.booleans()):
        text += b"helper=" + draw(_hostile).replace(b" ", b"") + b" "
    text += b"use=1 id=%d" % draw(st.integers(0, 2**32 - 1))
    if draw(st.booleans()):
        text += b" labels=" + draw(_hostile)
    if draw(st.booleans()):
        text += b" [USERSPACE] portid=7 progname=" + draw(_hostile)
    return text + b"\n"


any_blocks = blocks | st.lists(any_flow_lines(), max_size=8).map(b"".join)

hostile_words = st.one_of(
    st.text(max_size=40), st.sampled_from(["\x1b[2J", "\u202e", "漢字" * 20, "\x9b", "a\nb", "\x7f"])
)
wheres = st.builds(
    Place,
    country=st.none() | hostile_words,
    country_name=st.none() | hostile_words,
    city=st.none() | hostile_words,
    asn=st.none() | st.integers(0, 2**32 - 1),
    org=st.none() | hostile_words,
)


@st.composite
def monitors(draw: st.DrawFn) -> Monitor:
    """Any table, seen after any keys."""

    where = draw(wheres)
    monitor = Monitor(lookups=Lookups(lambda _address: where))
    for block in draw(st.lists(st.lists(st.one_of(flow_lines(), any_flow_lines()), max_size=12), max_size=3)):
        if draw(st.booleans()):
            monitor.table.begin_listing(monitor.now)
        feed(monitor.table, b"".join(block), monitor.now)
        if monitor.table.listing:
            monitor.table.end_listing(draw(st.booleans()), monitor.now)
        monitor.refresh(draw(st.sampled_from([0.0, 0.5, 1.0, 7.0, 100_000.0])))
    status = monitor.status
    status.facts = draw(
        st.dictionaries(st.sampled_from(["count", "max", "acct", "events"]), st.sampled_from([0, 1, 2, 70, 10**18]))
    )
    status.rejects = draw(st.sampled_from([0, 1, 10**9]))
    status.ended = draw(st.booleans())
    if draw(st.booleans()):
        status.losses, status.lost_at, status.last_loss = 3, monitor.now, "events (ENOBUFS)"
    if draw(st.booleans()):
        status.troubles["listing"] = Problem("not permitted: reading the table needs root", "sudo, or --via sudo")
    monitor.live = draw(st.booleans())
    monitor.keys(*draw(st.lists(keys, max_size=12)))
    return monitor


sizes = st.one_of(
    st.tuples(st.integers(1, 30), st.integers(1, 12)),
    st.tuples(st.integers(1, 500), st.integers(1, 200)),
    st.sampled_from([(80, 24), (40, 10), (20, 5), (1, 1), (140, 40), (500, 200)]),
)
