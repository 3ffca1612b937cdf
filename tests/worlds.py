"""Flow tables and keys for tests of the screen: made from text, as the program makes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hypothesis import strategies as st

from addresses import Context, Place
from flows import Flow, FlowTable
from intake import Status
from keys import BINDINGS, press
from parse import split_lines
from text import Glyphs, Line, cells
from view import Scene, View, refresh


def line(
    number: int,
    *,
    src: str = "10.0.0.1",
    dst: str = "192.0.2.1",
    sport: int | None = None,
    dport: int = 443,
    state: str = "ESTABLISHED",
    size: int | None = None,
    reply_src: str | None = None,
    reply_dst: str | None = None,
    flags: str = "[ASSURED] ",
    timeout: int = 300,
    more: str = "mark=0 use=1 ",
) -> str:
    """One TCP flow as `conntrack -L -o extended,id` prints it."""
    family = "ipv6     10" if ":" in src else "ipv4     2"
    sport = 10_000 + number if sport is None else sport
    counts = "" if size is None else f"packets={size // 100 + 1} bytes={size} "
    before, after = (flags, "") if "UNREPLIED" in flags else ("", flags)
    return (
        f"{family} tcp      6 {timeout} {state} src={src} dst={dst} sport={sport} dport={dport} {counts}{before}"
        f"src={reply_src or dst} dst={reply_dst or src} sport={dport} dport={sport} {counts}{after}{more}id={number}\n"
    )


def event(name: str, number: int, **what: str | int | None) -> str:
    """The same flow as an event's line; ``name``: NEW, UPDATE or DESTROY."""
    text = line(number, **what)  # type: ignore[arg-type]
    tag = {"NEW": "    [NEW] ", "UPDATE": " [UPDATE] ", "DESTROY": "[DESTROY] "}[name]
    return tag + text.replace("mark=0 use=1 ", "")


def feed(table: FlowTable, text: str | bytes, now: float = 100.0) -> None:
    """Apply lines, events or a listing's, at one time."""
    rows, rejects = split_lines(text if isinstance(text, bytes) else text.encode())
    assert not rejects or isinstance(text, bytes), rejects
    for row in rows:
        if row[1]:
            table.event(row, now)
        else:
            table.listed(row, now)


def listing(table: FlowTable, lines: Iterable[str], now: float = 100.0) -> None:
    """A complete listing."""
    table.begin_listing(now)
    feed(table, "".join(lines), now)
    table.end_listing(True, now)


class World:
    """A table, a view of it, and a clock that goes on when told."""

    def __init__(self, lines: Iterable[str] = (), **view: object) -> None:
        self.table = FlowTable()
        self.view = View(Context(now=100.0), **view)  # type: ignore[arg-type]
        self.status = Status(began=True)
        self.now = 100.0
        self.live = True
        self.glyphs = Glyphs()
        listing(self.table, lines, self.now)
        self.refresh()

    def refresh(self, seconds: float = 0.0) -> None:
        """``seconds`` later, as the loop does before every frame."""
        self.now += seconds
        self.table.tick(self.now)
        refresh(self.view, self.table, self.now)

    def keys(self, *keys: str) -> str:
        """Press keys one after the other, slowly enough for a frame between two; the last one's wish."""
        wish = ""
        for key in keys:
            wish = press(self.view, self.table, key)
            self.refresh()
        return wish

    def type(self, text: str) -> None:
        self.keys(*("space" if char == " " else char for char in text))

    def ids(self) -> list[int]:
        """The flows on show in their order, by their ids."""
        return [flow.record().id or 0 for flow in self.view.order if isinstance(flow, Flow)]

    def selected(self) -> int | None:
        return self.view.selected.record().id if isinstance(self.view.selected, Flow) else None

    @property
    def scene(self) -> Scene:
        return Scene(self.view, self.table, self.status, "router", self.live, self.glyphs)


def text_of(lines: Sequence[Line]) -> list[str]:
    return ["".join(text for text, _ in line) for line in lines]


def width_of(line: Line) -> int:
    return sum(cells(text) for text, _ in line)


# --- strategies -------------------------------------------------------------------------------------------------------

KEYS = [key for binding in BINDINGS for key in binding.keys if key not in ("q", "f10", "ctrl-c")]
EDITING = ["backspace", "delete", "up", "down", "left", "right", "home", "end", "ctrl-w", "ctrl-u", "ctrl-a"]
keys = st.one_of(
    st.sampled_from(KEYS + EDITING),
    st.characters(codec="utf-8"),
    st.sampled_from(["x", "!", "(", ")", '"', ":", ",", "漢", "e\u0301", "", "f99", "ctrl-z"]),
)

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
def flow_lines(draw: st.DrawFn) -> bytes:
    """A line of a listing or an event; where conntrack prints words of others, they may hold anything."""
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
def worlds(draw: st.DrawFn) -> World:
    """Any table, seen after any keys."""
    from intake import Problem

    world = World()
    where = draw(wheres)
    world.view.context.where = lambda _address: where
    for block in draw(st.lists(st.lists(flow_lines(), max_size=12), max_size=3)):
        if draw(st.booleans()):
            world.table.begin_listing(world.now)
        feed(world.table, b"".join(block), world.now)
        if world.table.listing:
            world.table.end_listing(draw(st.booleans()), world.now)
        world.refresh(draw(st.sampled_from([0.0, 0.5, 1.0, 7.0, 100_000.0])))
    status = world.status
    status.facts = draw(
        st.dictionaries(st.sampled_from(["count", "max", "acct", "events"]), st.sampled_from([0, 1, 2, 70, 10**18]))
    )
    status.rejects = draw(st.sampled_from([0, 1, 10**9]))
    status.ended = draw(st.booleans())
    if draw(st.booleans()):
        status.losses, status.lost_at, status.last_loss = 3, world.now, "events (ENOBUFS)"
    if draw(st.booleans()):
        status.troubles["listing"] = Problem("not permitted: reading the table needs root", "sudo, or --via sudo")
    world.live = draw(st.booleans())
    world.keys(*draw(st.lists(keys, max_size=12)))
    return world


sizes = st.one_of(
    st.tuples(st.integers(1, 30), st.integers(1, 12)),
    st.tuples(st.integers(1, 500), st.integers(1, 200)),
    st.sampled_from([(80, 24), (40, 10), (20, 5), (1, 1), (140, 40), (500, 200)]),
)
