"""Whole screens, cell by cell: what is on show of one small network, in every view, at every size, in every mood.

The pictures are in tests/screens: a line of the screen, and below it (``~``) the role of each cell by its letter; plain
cells have a blank. A change that is meant to change them: ACCEPT=1 pytest tests/test_promises_screens.py, and look at
what git shows.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from addresses import NOWHERE, Context, Detail, Lookups, Place, Site
from flows import Flow
from health import Shares, Surroundings, UsedDatabase
from intake import Problem, Statistics
from render import frame
from support.tables import Monitor, event, feed, line, listing
from text import ASCII, Line, cells
from view import Dialog, Scene, View

PICTURES = Path(__file__).parent / "screens"
LETTERS = {
    **{"plain": " ", "dim": "d", "accent": "a", "good": "g", "warn": "w", "bad": "b", "head": "h", "title": "t"},
    **{"selected": "S", "key": "k", "new": "n", "closed": "c", "nat": "N", "cursor": "C"},
}
GOOGLE, GERMAN, SIX = "8.8.8.8", "9.9.9.9", "2606:4700::1111"
LAN, LAN2, ROUTER, WAN = "192.168.1.9", "192.168.1.77", "192.168.1.1", "203.0.113.1"
PLACES = {
    GOOGLE: Place("US", "United States", "Mountain View", 15169, "Google LLC"),
    GERMAN: Place("DE", "Germany", "Berlin", 19281, "Quad9 with a long name of its own"),
    SIX: Place("US", "United States", None, 13335, "Cloudflare"),
}
SPOTS = {GOOGLE: (37.4, -122.1), GERMAN: (52.5, 13.4), SIX: (-33.9, 151.2)}

pytestmark = pytest.mark.usefixtures("_utc")


def picture(lines: list[Line]) -> str:
    out = []
    for spans in lines:
        out.append(("  " + "".join(text for text, _ in spans)).rstrip())
        roles = "".join(LETTERS[role] * cells(text) for text, role in spans).rstrip()
        out += ["~ " + roles] if roles else []
    return "\n".join(out) + "\n"


def detail(address: str) -> Detail:
    place = PLACES.get(address, NOWHERE)
    if place is NOWHERE:
        return Detail()
    north, east = SPOTS[address]
    city = place.city is not None
    return Detail(
        place,
        "California" if address == GOOGLE else None,
        north if city else None,
        east if city else None,
        "8.8.8.0/24" if address == GOOGLE else None,
        "9.9.9.0/24" if address == GERMAN else None,
        ("DBIP-City-Lite 2026-11", "DBIP-ASN-Lite 2026-11"),
    )


ICMP = (
    "ipv4     2 icmp     1 29 src=192.168.1.9 dst=8.8.8.8 type=8 code=0 id=7 packets=3 bytes=252 src=8.8.8.8 dst=203.0.113.1 "
    "type=0 code=0 id=7 packets=3 bytes=252 mark=0 use=1 id=31\n"
)
GRE = (
    "ipv4     2 gre      47 179 src=192.168.1.9 dst=9.9.9.9 srckey=0x0 dstkey=0x1234 src=9.9.9.9 dst=192.168.1.9 srckey=0x1234 "
    "dstkey=0x0 [ASSURED] mark=0 use=1 id=32\n"
)
UDP = (
    "ipv4     2 udp      17 25 src=192.168.1.77 dst=192.168.1.1 sport=53000 dport=53 packets=1 bytes=60 [UNREPLIED] "
    "src=192.168.1.1 dst=192.168.1.77 sport=53 dport=53000 packets=0 bytes=0 mark=0 use=1 id=33\n"
)
OFFLOADED = (
    "ipv4     2 tcp      6 src=192.168.1.9 dst=9.9.9.9 sport=40000 dport=8883 packets=10 bytes=99999 src=9.9.9.9 dst=192.168.1.9 "
    "sport=8883 dport=40000 packets=9 bytes=1234567 [OFFLOAD] mark=0 use=2 id=34\n"
)
ESP = "ipv6     10 unknown  50 599 src=fd00::9 dst=2606:4700::1111 src=2606:4700::1111 dst=fd00::9 mark=0 use=1 id=35\n"
FULL = (
    "ipv4     2 tcp      6 431999 ESTABLISHED src=192.168.1.9 dst=8.8.8.8 sport=50000 dport=443 zone-orig=5 packets=6 bytes={0} "
    "src=8.8.8.8 dst=203.0.113.1 sport=443 dport=40001 zone-reply=6 packets=7 bytes={1} [ASSURED] mark=17 secmark=8 secctx=a b "
    "zone=3 delta-time=3700 [start=Thu Nov  5 00:00:00 2026] helper=ftp use=1 id=36 labels=web,voice call\n"
)


def uneven(text: str) -> str:
    """The same flow with three times as many bytes on the way back."""
    before, _, after = text.rpartition(" bytes=")
    number, _, rest = after.partition(" ")
    return f"{before} bytes={3 * int(number)} {rest}"


def lines_of(step: int) -> list[str]:
    """A listing; the second one, 4 s later, has other counters."""
    masq = {"reply_dst": WAN}
    plain = [
        line(11, src=LAN, dst=GOOGLE, sport=40011, size=5000 + step * 4000, **masq),  # type: ignore[arg-type]
        line(12, src=LAN2, dst=GERMAN, sport=40012, size=900_000 + step * 8_000_000, flags="", **masq),  # type: ignore[arg-type]
        line(13, src=GERMAN, dst=WAN, sport=40013, dport=80, size=12_000, reply_src=LAN2, reply_dst=GERMAN),
        line(14, src=GERMAN, dst=WAN, sport=40014, dport=22, size=1, reply_src=LAN, reply_dst=ROUTER, state="SYN_RECV"),
        line(15, src="fd00::9", dst=SIX, sport=40015, size=77_000_000 + step * 400),
        line(16, src=LAN, dst="192.168.1.200", sport=40016, dport=445, state="TIME_WAIT", size=30, timeout=100),
        line(17, src=LAN2, dst="100.64.0.9", sport=40017, dport=25565, flags="[UNREPLIED] ", state="SYN_SENT", size=60),
    ]
    return [*map(uneven, plain), ICMP, GRE, UDP, OFFLOADED, ESP, FULL.format(395 + step * 4, 697)]


def network(**view: Any) -> Monitor:
    """A router's table, 20 s after the program's start: flows of every kind, three that ended, one that is new."""
    monitor = Monitor()
    context = Context(
        Lookups(
            lambda address: PLACES.get(address, NOWHERE),
            detail,
            SPOTS.get,
            {LAN: "laptop", GOOGLE: "dns.google"}.get,
        ),
        Site(marks={(17, 0xFF): "guests"}, zones={3: "office"}),
        now=100.0,
        own=frozenset({ROUTER, WAN}),
        epoch=lambda: 1_795_386_000.0,
    )
    monitor.view = View(context, **view)
    monitor.table.know_own(context.own)
    monitor.table.linger = 60.0
    listing(monitor.table, lines_of(0), 104.0)
    monitor.now = 108.0
    for number in range(2):
        feed(
            monitor.table,
            event("NEW", 41 + number, src=LAN, dst=GOOGLE, sport=41_041 + number, reply_dst=WAN, state="SYN_SENT"),
            106.0,
        )
    feed(monitor.table, event("UPDATE", 41, src=LAN, dst=GOOGLE, sport=41_041, reply_dst=WAN), 106.5)
    feed(
        monitor.table,
        event("DESTROY", 42, src=LAN, dst=GOOGLE, sport=41_042, reply_dst=WAN, size=2500, state="CLOSE"),
        107.0,
    )
    feed(
        monitor.table,
        event("NEW", 43, src=LAN2, dst=GERMAN, sport=41_043, flags="[UNREPLIED] ", state="SYN_SENT"),
        107.9,
    )
    monitor.table.tick(107.0)
    listing(
        monitor.table,
        [*lines_of(1)[:-3], *lines_of(1)[-2:], line(41, src=LAN, dst=GOOGLE, sport=41_041, size=700, reply_dst=WAN)],
        108.0,
    )
    monitor.status.facts = {"count": 14, "max": 1000, "acct": 1, "events": 2, "timestamp": 1}
    monitor.table.tick(108.0)
    monitor.refresh(1.0)
    return monitor


def trouble(monitor: Monitor) -> Monitor:
    """All that can be wrong."""
    status = monitor.status
    status.facts = {"count": 912, "max": 1000, "acct": 0, "events": 0, "timestamp": 0, "buckets": 512}
    status.losses, status.lost_at, status.last_loss, status.healed, status.resyncs = 3, 100.0, "events", 2, 1
    status.troubles = {
        "events": Problem("ssh: Connection closed", "ssh-add"),
        "listing": Problem(
            "not permitted: reading the connection table needs root or CAP_NET_ADMIN", "sudo, or --via sudo"
        ),
    }
    status.rejects, status.first_reject, status.backwards = 2, "what?", 1
    monitor.around = Surroundings(
        "settings ignored: line 3: unknown word 'x', in /root/.config/conntrack-monitor/config.toml",
        "recording ended: no space left on device",
        [("no database", "conntrack-monitor --update-geoip"), ("one is damaged", "")],
        ["IP Geolocation by DB-IP (https://db-ip.com), CC BY 4.0"],
    )
    status.listing_since = 101.0
    status.fill.extend([(49.0, 500), (79.0, 700), (109.0, 912)])
    values = {
        "drop": 5,
        "early_drop": 7,
        "insert_failed": 40,
        "chaintoolong": 50,
        "invalid": 9,
        "error": 0,
        "clash_resolve": 2,
    }
    status.counted_first = Statistics(9.0, dict.fromkeys(values, 1))
    status.counted.extend([Statistics(69.0, dict.fromkeys(values, 2)), Statistics(109.0, values)])
    monitor.table.overflow = 8
    return monitor


SHARES = Shares(2000, 1900, 1200, (("192.168.1.9", 800), ("fd00::9", 300)))
BASES = (UsedDatabase("DBIP-City-Lite", "2026-11", 12.4), UsedDatabase("DBIP-ASN-Lite", "2026-10", 40.0))


def shown(
    monitor: Monitor, width: int, height: int, shares: Shares | None = None, bases: tuple[UsedDatabase, ...] = ()
) -> str:
    view = monitor.view
    around = monitor.around._replace(databases=bases)
    scene = Scene(view, monitor.table, monitor.status, "router.example", monitor.live, monitor.glyphs, shares, around)
    view.drawn(frame(scene, width, height))
    drawn = frame(scene, width, height)
    view.drawn(drawn)
    return picture(drawn.lines)


def pressed(*keys: str, sized: tuple[int, int] = (80, 24), **view: object) -> str:
    monitor = network(**view)
    shown(monitor, *sized)
    monitor.keys(*keys)
    return shown(monitor, *sized)


def with_id(monitor: Monitor, number: int) -> Flow:
    flows: list[Flow] = [*monitor.table, *monitor.table.past]
    return next(flow for flow in flows if flow.record().id == number)


def details(number: int, width: int = 80, height: int = 40) -> str:
    monitor = network()
    monitor.view.flow = with_id(monitor, number)
    monitor.view.overlay = "details"
    return shown(monitor, width, height)


def typed(text: str, width: int = 80, keys: tuple[str, ...] = ("/",)) -> str:
    monitor = network()
    monitor.keys(*keys)
    monitor.type(text)
    return shown(monitor, width, 12)


def moods() -> str:
    """What the title line says."""
    out = []
    for width in (60, 120, 160):
        for keys in (("p",), ("o",), ("r",), ("c",), ("m", "p"), ("?",), ("H", "j"), ("s", "s"), ("t",)):
            monitor = network()
            monitor.keys(*keys)
            lines = shown(monitor, width, 8).split("\n")
            out += [text for text in lines if any(word in text for word in ("Connections", "Help", "Health", "Hosts"))][
                :1
            ]
    return "\n".join(out) + "\n"


def empty() -> str:
    """Why there is nothing to see."""
    out = []
    for name, change in EMPTY.items():
        monitor = Monitor()
        change(monitor)
        monitor.refresh(2.0)
        out.append(f"{name}:\n" + "\n".join(shown(monitor, 70, 9).split("\n")[2:-3]))
    return "\n".join(out) + "\n"


def _none(_world: Monitor) -> None:
    pass


def _unread(monitor: Monitor) -> None:
    monitor.table.listed_at = None


def _junk(monitor: Monitor) -> None:
    monitor.status.rejects, monitor.status.first_reject = 1, "x"


def _stopped(monitor: Monitor) -> None:
    monitor.status.troubles = {"events": Problem("gone"), "listing": Problem("no", "sudo")}


def _hidden(monitor: Monitor) -> None:
    monitor.status.facts = {"count": 3, "max": 9}


def _replay(monitor: Monitor) -> None:
    monitor.live = False


def _unfit(monitor: Monitor) -> None:
    listing(monitor.table, [line(1)], monitor.now)
    monitor.view.set_filter("port:1")


def _unmarked(monitor: Monitor) -> None:
    listing(monitor.table, [line(1)], monitor.now)
    monitor.view.set_filter("new:host")


def _no_nat(monitor: Monitor) -> None:
    listing(monitor.table, [line(1)], monitor.now)
    monitor.view.show("nat")


def _no_event(monitor: Monitor) -> None:
    listing(monitor.table, [line(1)], monitor.now)
    monitor.view.show("events")


EMPTY: dict[str, Callable[[Monitor], None]] = {
    **{"nobody has sent anything": _none, "not read yet": _unread, "only junk": _junk, "a command stopped": _stopped},
    **{"the kernel lists none": _hidden, "a recording": _replay, "a filter": _unfit, "nothing marked": _unmarked},
    **{"no NAT": _no_nat, "no event": _no_event},
}


def notices() -> str:
    """What is wrong, one thing at a time, at several widths."""
    out = []
    for width, height in ((60, 24), (80, 24), (80, 12), (140, 30)):
        monitor = trouble(network())
        out += shown(monitor, width, height, SHARES).split("\n")[: 8 if height > 12 else 4]
    monitor = network()
    monitor.status.losses, monitor.status.lost_at, monitor.status.last_loss, monitor.status.healed = (
        2,
        100.0,
        "events",
        2,
    )
    out += shown(monitor, 100, 24).split("\n")[4:8]
    monitor.status.lost_at = 40.0
    out += shown(monitor, 100, 24).split("\n")[4:8]
    monitor.status.facts["acct"] = 0
    out += shown(monitor, 100, 24).split("\n")[4:8]
    return "\n".join(out) + "\n"


def health(width: int, height: int, *, wrong: bool, live: bool = True) -> str:
    monitor = trouble(network()) if wrong else network()
    monitor.live = live
    monitor.keys("H")
    return shown(monitor, width, height, SHARES if wrong else Shares(14, 7, 2, ((LAN, 9),)), BASES)


def in_ascii() -> str:
    monitor = network()
    monitor.glyphs = ASCII
    monitor.view.set_filter("192.168.1.9")
    monitor.refresh(1.0)
    monitor.keys("j")
    return shown(monitor, 100, 16)


def ended() -> str:
    monitor = network()
    monitor.live, monitor.status.ended = False, True
    return shown(monitor, 110, 10)


def asked() -> str:
    monitor = network()
    monitor.view.overlay = "delete"
    monitor.view.dialog = Dialog([])
    monitor.view.dialog.tell(["Delete this flow? " + "word " * 20, "conntrack -D -o id -p tcp"], asks=True)
    monitor.type("yes, do")
    monitor.keys("left", "left", "left", "left")
    return shown(monitor, 60, 14)


SCREENS: dict[str, Callable[[], str]] = {
    "connections-80x24": lambda: pressed("down"),
    "connections-40x10": lambda: pressed("down", "down", sized=(40, 10)),
    "connections-20x5": lambda: pressed(sized=(20, 5)),
    "connections-140x30": lambda: pressed("G", sized=(140, 30)),
    "connections-240x20": lambda: pressed("n", "N", sized=(240, 20)),
    "connections-scrolled": lambda: pressed("pgdn", "pgdn", "right", "right", sized=(90, 12)),
    "connections-network": lambda: pressed("c", "c", "z", sized=(100, 24)),
    "connections-new": lambda: pressed("m", "o", sized=(110, 24), sort="age"),
    "hosts": lambda: pressed("2", "j", sized=(150, 16)),
    "hosts-narrow": lambda: pressed("2", "s", "s", sized=(60, 12)),
    "countries": lambda: pressed("3", "s", sized=(150, 12)),
    "networks": lambda: pressed("4", "S", sized=(150, 12)),
    "services": lambda: pressed("5", "j", "j", "r", sized=(150, 16)),
    "nat": lambda: pressed("6", "j", sized=(160, 16)),
    "nat-80x24": lambda: pressed("6", sized=(80, 24)),
    "events": lambda: pressed("7", "j", sized=(140, 16)),
    "map": lambda: pressed("8", "j", sized=(80, 22)),
    "map-rates": lambda: pressed("8", "t", sized=(100, 20)),
    "remotes": lambda: pressed("2", "t", sized=(170, 14)),
    "details-masquerade": lambda: details(11),
    "details-everything": lambda: details(36),
    "details-forwarded-and-masked": lambda: details(14),
    "details-icmp": lambda: details(31, 60),
    "details-gre": lambda: details(32, 39),
    "details-ipv6": lambda: details(15),
    "details-ended": lambda: details(42),
    "details-new": lambda: details(43, 100),
    "details-offloaded": lambda: details(34),
    "details-unknown": lambda: details(35),
    "details-silent": lambda: details(33),
    "help": lambda: pressed("?", sized=(80, 48)),
    "help-narrow": lambda: pressed("?", "pgdn", sized=(50, 20)),
    "health-well": lambda: health(100, 30, wrong=False),
    "health-trouble": lambda: health(120, 60, wrong=True),
    "health-narrow": lambda: health(50, 70, wrong=True),
    "health-recording": lambda: health(70, 60, wrong=True, live=False),
    "prompt": lambda: typed("proto:tcp"),
    "prompt-wrong": lambda: typed("proto:tcp port:x"),
    "prompt-long": lambda: typed("host:192.168.1.9 or " * 6, 50),
    "prompt-cursor": lambda: typed("abc", 50, ("/", "x", "y", "home")),
    "prompt-export": lambda: typed("", 50, ("e",)),
    "filtered": lambda: pressed("/", *"port:443", "enter", "j", sized=(100, 14)),
    "trouble": lambda: shown(trouble(network()), 120, 30, SHARES),
    "titles": moods,
    "empty": empty,
    "notices": notices,
    "ascii": in_ascii,
    "ended": ended,
    "delete": asked,
}


@pytest.mark.parametrize("name", SCREENS)
def test_a_screen_is_the_picture_of_it(name: str) -> None:
    drawn, path = SCREENS[name](), PICTURES / f"{name}.txt"
    if os.environ.get("ACCEPT") == "1":
        path.write_text(drawn)
    assert drawn.split("\n") == path.read_text().split("\n")


def test_there_is_no_other_picture() -> None:
    assert sorted(path.stem for path in PICTURES.iterdir()) == sorted(SCREENS)


def test_the_header_says_how_many_events_there_are_now() -> None:
    monitor = Monitor()
    monitor.refresh()
    for number in range(7):
        feed(monitor.table, event("NEW", number + 1), 100.5)
    monitor.refresh(1.0)
    assert " 7 events/s " in shown(monitor, 100, 10)
    monitor.refresh(1.0)
    assert " 0 events/s " in shown(monitor, 100, 10)
