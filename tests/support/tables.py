"""Flow tables and keys for tests of the screen: made from text, as the program makes them."""

from __future__ import annotations

import ipaddress
import unicodedata
from collections.abc import Callable, Iterable, Sequence, Set

from wcwidth import wcswidth

from addresses import NO_LOOKUPS, Context, Ends, KnownAddresses, Lookups, Place, inbound_by_nat
from flows import Flow, FlowTable
from health import NOTHING_AROUND
from intake import Facts, Intake, Item, Status
from keys import NOTHING, Request, press
from parse import EVENT, split_lines
from render import frame
from text import ROLES, Glyphs, Line, cells
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
        if row[EVENT]:
            table.event(row, now)
        else:
            table.listed(row, now)


def listing(table: FlowTable, lines: Iterable[str], now: float = 100.0) -> None:
    """A complete listing."""
    table.begin_listing(now)
    feed(table, "".join(lines), now)
    table.end_listing(True, now)


MOST = 262_144


def intake_of(*items: Item) -> Intake:
    intake = Intake(FlowTable())
    for item in items:
        intake.take(item)
    return intake


def counts(at: float, **values: int) -> Facts:
    return Facts(at, {"max": MOST, **values})


class Monitor:
    """A table, a view of it, and a clock that goes on when told."""

    def __init__(self, lines: Iterable[str] = (), lookups: Lookups = NO_LOOKUPS, **view: object) -> None:
        self.table = FlowTable()
        self.view = View(Context(lookups, now=100.0), **view)  # type: ignore[arg-type]
        self.status = Status(began=True)
        self.around = NOTHING_AROUND
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

    def keys(self, *keys: str) -> Request:
        """Press keys one after the other, slowly enough for a frame between two; what the last one asks for."""
        request = NOTHING
        for key in keys:
            request = press(self.view, self.table, key)
            self.refresh()
        return request

    def frame(self, width: int, height: int) -> list[Line]:
        """Draw the screen, as the loop does; its lines."""
        drawn = frame(self.scene, width, height)
        self.view.drawn(drawn)
        return drawn.lines

    def type(self, text: str) -> None:
        self.keys(*("space" if char == " " else char for char in text))

    def ids(self) -> list[int]:
        """The flows on show in their order, by their ids."""
        return [flow.record().id or 0 for flow in self.view.rows.order if isinstance(flow, Flow)]

    def selected(self) -> int | None:
        return self.view.selected.record().id if isinstance(self.view.selected, Flow) else None

    @property
    def scene(self) -> Scene:
        return Scene(*(self.view, self.table, self.status, "router", self.live, self.glyphs), around=self.around)


def text_of(lines: Sequence[Line]) -> list[str]:
    return ["".join(text for text, _ in line) for line in lines]


def width_of(line: Line) -> int:
    return sum(cells(text) for text, _ in line)


def shown(monitor: Monitor, size: tuple[int, int] = (80, 24)) -> list[str]:
    return text_of(monitor.frame(*size))


def many(number: int = 60) -> Monitor:
    return Monitor([line(n, size=n * 1000, dst=f"203.0.113.{n}") for n in range(1, number + 1)], sort="bytes")


MARKS = {(7, 0xFFFFFFFF): "vpn", (0x10, 0xF0): "voice", (0x17, 0xFFFFFFFF): "both", (0x1, 0x1): "odd"}


MARKED = b"".join(
    b"ipv4     2 udp      17 29 src=10.0.0.%d dst=10.9.0.1 sport=9 dport=9 src=10.9.0.1 dst=10.0.0.%d sport=9 dport=9 "
    b"mark=%d zone=%d use=1 id=%d\n" % (number, number, mark, zone, number)
    for number, (mark, zone) in enumerate([(7, 3), (0x17, 4), (0x12, 3), (8, 0)], 1)
)


def marked_table() -> FlowTable:
    """Four flows with marks and zones."""
    flows = FlowTable()
    flows.begin_listing(0.0)
    for row in split_lines(MARKED)[0]:
        flows.listed(row, 0.0)
    flows.end_listing(True, 0.0)
    return flows


LONG = "2001:db8:1111:2222:3333:4444:5555:6666"


LAN, WAN = "10.0.0.5", "203.0.113.1"


def twenty() -> Monitor:
    """Twenty flows; the number is the id; by bytes the highest is the largest; a page has five rows."""
    made = Monitor([line(n, size=n * 1000) for n in range(1, 21)], sort="bytes")
    made.view.page = 5
    return made


def lan_monitor() -> Monitor:
    return Monitor(
        [
            *(
                line(i, src=f"10.0.0.{1 + i % 3}", dst=f"8.8.{i}.8", dport=(443, 80)[i % 2], size=1000 * i)
                for i in range(1, 13)
            ),
            line(20, src="10.0.0.1", dst="9.9.9.9", reply_dst=WAN, size=100),
        ]
    )


def is_well_formed(monitor: Monitor, width: int, height: int) -> None:
    lines = monitor.frame(width, height)
    assert len(lines) == height
    for spans in lines:
        text = "".join(part for part, _ in spans)
        assert width_of(spans) <= width
        assert wcswidth(text) <= width or "Mc" in map(
            unicodedata.category, text
        )  # of these terminals think differently
        assert [char for char in text if unicodedata.category(char)[0] == "C"] == []
        assert {role for _, role in spans} <= set(ROLES)


# --- flows of a block of lines ------------------------------------------------------------------------------------------

NOW = 9.0
OWN_ADDRESSES = frozenset({"10.0.0.1", "2001:db8::1", "192.0.2.1"})
PLACES = [
    Place("DE", "Germany", "Köln", 64500, "Example Networks GmbH"),
    Place("US", "United States", None, 15169, "Google LLC"),
    Place(),
]


def direction(ends: Ends, own: Set[str]) -> str | None:
    return KnownAddresses(own).direction(ends.src, ends.reply_src)


def remote(ends: Ends, own: Set[str], local: Callable[[str], bool] | None = None) -> str:
    return KnownAddresses(own, local).remote(ends.src, ends.dst, ends.reply_src, ends.reply_dst)


def inbound(ends: Ends, own: Set[str]) -> bool:
    comes_in = KnownAddresses(own).inbound(ends.src, ends.reply_src)
    return inbound_by_nat(ends) if comes_in is None else comes_in


def place_of(address: str) -> Place:
    return PLACES[sum(address.encode()) % len(PLACES)]


def flows_of(block: bytes, own: frozenset[str] = OWN_ADDRESSES) -> tuple[list[Flow], Context]:
    """The flows that a block leaves: half of it read as a listing, then all of it."""
    rows, _ = split_lines(block)
    if own is OWN_ADDRESSES and rows:  # somebody is at home in it
        own = OWN_ADDRESSES | {rows[0][5].split()[0][4:].decode(), rows[-1][5].split()[1][4:].decode()}
    table = FlowTable(own=own)
    for now, part in ((0.0, rows[: len(rows) // 2]), (7.0, rows)):
        table.begin_listing(now)
        table.listed_all(part, now)
        table.end_listing(False, now)
    return list(table), Context(Lookups(place_of), now=NOW, own=own)


def address_order(text: str) -> tuple[int, int, str]:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return 9, 0, text
    return address.version, int(address), ""
