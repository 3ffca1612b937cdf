#!/usr/bin/env python3
"""Draw docs/*.svg, the README's pictures, from the bundled recording: `make pictures`.

The program runs on a pseudo-terminal and plays fixtures/demo.rec; what a terminal would show becomes an SVG. The places
are a small database of our own (public knowledge: which university or company an address belongs to), so that nothing
has to be downloaded.
"""

from __future__ import annotations

import sys
import tempfile
from html import escape
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.mmdb import holder, place, write  # noqa: E402
from support.terminal import Terminal  # noqa: E402

# address: country code, country, city, degrees north and east, AS number, its holder
PLACES = {
    "1.1.1.1": ("AU", "Australia", "Sydney", -33.9, 151.2, 13335, "Cloudflare"),
    "114.114.114.114": ("CN", "China", "Nanjing", 32.1, 118.8, 174, "114DNS"),
    "119.29.29.29": ("CN", "China", "Guangzhou", 23.1, 113.3, 45090, "Tencent"),
    "128.214.1.1": ("FI", "Finland", "Helsinki", 60.2, 24.9, 1741, "FUNET"),
    "128.232.132.8": ("GB", "United Kingdom", "Cambridge", 52.2, 0.1, 786, "Jisc"),
    "128.250.6.182": ("AU", "Australia", "Melbourne", -37.8, 145.0, 10148, "University of Melbourne"),
    "129.128.5.194": ("CA", "Canada", "Edmonton", 53.5, -113.5, 3359, "University of Alberta"),
    "129.132.19.216": ("CH", "Switzerland", "Zurich", 47.4, 8.5, 559, "SWITCH"),
    "129.67.242.154": ("GB", "United Kingdom", "Oxford", 51.8, -1.3, 786, "Jisc"),
    "13.107.42.14": ("US", "United States", "Redmond", 47.7, -122.1, 8068, "Microsoft"),
    "130.216.1.1": ("NZ", "New Zealand", "Auckland", -36.8, 174.8, 9431, "University of Auckland"),
    "130.237.28.40": ("SE", "Sweden", "Stockholm", 59.3, 18.1, 1653, "SUNET"),
    "130.59.31.248": ("CH", "Switzerland", "Zurich", 47.4, 8.5, 559, "SWITCH"),
    "130.89.148.14": ("NL", "Netherlands", "Enschede", 52.2, 6.9, 1133, "University of Twente"),
    "131.159.0.35": ("DE", "Germany", "Munich", 48.1, 11.6, 12816, "MWN"),
    "132.248.10.44": ("MX", "Mexico", "Mexico City", 19.4, -99.1, 278, "UNAM"),
    "133.11.0.1": ("JP", "Japan", "Tokyo", 35.7, 139.7, 2501, "University of Tokyo"),
    "137.132.21.27": ("SG", "Singapore", "Singapore", 1.3, 103.8, 7472, "NUS"),
    "137.158.154.230": ("ZA", "South Africa", "Cape Town", -33.9, 18.4, 36982, "University of Cape Town"),
    "140.82.121.4": ("DE", "Germany", "Frankfurt", 50.1, 8.7, 36459, "GitHub"),
    "142.250.74.110": ("SE", "Sweden", "Stockholm", 59.3, 18.1, 15169, "Google"),
    "143.107.254.11": ("BR", "Brazil", "Sao Paulo", -23.6, -46.6, 28571, "Universidade de Sao Paulo"),
    "144.122.145.146": ("TR", "Turkiye", "Ankara", 39.9, 32.9, 8517, "ULAKNET"),
    "146.155.4.1": ("CL", "Chile", "Santiago", -33.4, -70.6, 27678, "PUC Chile"),
    "147.8.2.58": ("HK", "Hong Kong", "Hong Kong", 22.3, 114.2, 4528, "University of Hong Kong"),
    "149.112.121.10": ("CA", "Canada", "Ottawa", 45.4, -75.7, 394713, "CIRA"),
    "151.101.1.69": ("US", "United States", "San Francisco", 37.8, -122.4, 54113, "Fastly"),
    "157.240.229.35": ("US", "United States", "Ashburn", 39.0, -77.5, 32934, "Meta"),
    "162.105.131.160": ("CN", "China", "Beijing", 39.9, 116.4, 4538, "CERNET"),
    "163.121.128.134": ("EG", "Egypt", "Cairo", 30.0, 31.2, 8452, "TE Data"),
    "166.111.4.100": ("CN", "China", "Beijing", 39.9, 116.4, 4538, "CERNET"),
    "168.126.63.1": ("KR", "South Korea", "Seoul", 37.6, 127.0, 4766, "Korea Telecom"),
    "168.95.1.1": ("TW", "Taiwan", "Taipei", 25.0, 121.6, 3462, "Chunghwa Telecom"),
    "17.253.144.10": ("US", "United States", "Cupertino", 37.3, -122.0, 714, "Apple"),
    "171.67.215.200": ("US", "United States", "Stanford", 37.4, -122.2, 32, "Stanford University"),
    "18.9.22.69": ("US", "United States", "Cambridge", 42.4, -71.1, 3, "MIT"),
    "192.36.148.17": ("SE", "Sweden", "Stockholm", 59.3, 18.1, 29216, "Netnod"),
    "193.0.14.129": ("NL", "Netherlands", "Amsterdam", 52.4, 4.9, 25152, "RIPE NCC"),
    "193.17.47.1": ("CZ", "Czechia", "Prague", 50.1, 14.4, 25192, "CZ.NIC"),
    "194.242.2.2": ("SE", "Sweden", "Malmo", 55.6, 13.0, 39351, "Mullvad"),
    "195.175.39.39": ("TR", "Turkiye", "Istanbul", 41.0, 29.0, 9121, "Turk Telekom"),
    "196.216.2.1": ("MU", "Mauritius", "Ebene", -20.2, 57.5, 33764, "AFRINIC"),
    "202.12.27.33": ("JP", "Japan", "Tokyo", 35.7, 139.7, 7500, "WIDE Project"),
    "203.50.2.71": ("AU", "Australia", "Melbourne", -37.8, 145.0, 1221, "Telstra"),
    "208.67.222.222": ("US", "United States", "San Francisco", 37.8, -122.4, 36692, "OpenDNS"),
    "213.42.20.20": ("AE", "United Arab Emirates", "Dubai", 25.2, 55.3, 5384, "Etisalat"),
    "223.5.5.5": ("CN", "China", "Hangzhou", 30.3, 120.2, 37963, "Alibaba"),
    "23.215.0.136": ("US", "United States", "Seattle", 47.6, -122.3, 20940, "Akamai"),
    "77.88.8.8": ("RU", "Russia", "Moscow", 55.8, 37.6, 13238, "Yandex"),
    "8.8.8.8": ("US", "United States", "Mountain View", 37.4, -122.1, 15169, "Google"),
    "84.200.69.80": ("DE", "Germany", "Frankfurt", 50.1, 8.7, 31400, "Accelerated IT"),
    "9.9.9.9": ("CH", "Switzerland", "Zurich", 47.4, 8.5, 19281, "Quad9"),
    "91.198.174.192": ("NL", "Netherlands", "Amsterdam", 52.4, 4.9, 14907, "Wikimedia"),
    "91.239.100.100": ("DK", "Denmark", "Copenhagen", 55.7, 12.6, 9167, "UncensoredDNS"),
    "94.140.14.14": ("CY", "Cyprus", "Limassol", 34.7, 33.0, 212772, "AdGuard"),
    "95.216.24.100": ("FI", "Finland", "Helsinki", 60.2, 24.9, 24940, "Hetzner"),
}

# The picture's name, the size, the keys pressed, and a text that is there when all is drawn.
PICTURES = (
    ("screen", (132, 32), "", "Connections"),
    ("hosts", (132, 26), "2", "Hosts"),
    ("map", (132, 38), "8jjjjjjjjjjj", "Map"),
)
CELL, LINE, SIZE = 8.4, 18, 14  # pixels: a character's width, a line's height, the font
INK, PAPER = "#d4d4d4", "#101214"
NAMED = {"black": "#000000", "red": "#cd3131", "green": "#0dbc79", "brown": "#e5e510", "blue": "#2472c8"}
NAMED |= {"magenta": "#bc3fbc", "cyan": "#11a8cd", "white": "#e5e5e5"}


def databases(folder: Path) -> None:
    write(
        folder / "dbip-city-lite.mmdb",
        "DBIP-City-Lite",
        {
            f"{address}/32": place(code, country, city, location={"latitude": north, "longitude": east})
            for address, (code, country, city, north, east, _, _) in PLACES.items()
        },
    )
    write(
        folder / "dbip-asn-lite.mmdb",
        "DBIP-ASN-Lite",
        {f"{address}/32": holder(number, name) for address, (*_, number, name) in PLACES.items()},
    )


def colour(name: str, default: str) -> str:
    if name == "default":
        return default
    return NAMED.get(name, f"#{name}")


def svg(terminal: Terminal) -> str:
    """The screen as it is now; text stays text."""
    screen = terminal.screen
    width, height = screen.columns * CELL + 16, screen.lines * LINE + 16
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="{SIZE}">',
        f'<rect width="100%" height="100%" rx="6" fill="{PAPER}"/>',
    ]
    for y in range(screen.lines):
        row = [screen.buffer[y][x] for x in range(screen.columns)]
        at = 0
        for (ink, paper, bold), group in groupby(row, key=_look):
            cells = list(group)
            text = "".join(cell.data for cell in cells)
            x, top, wide = 8 + at * CELL, 8 + y * LINE, len(cells) * CELL
            at += len(cells)
            if paper != PAPER:
                out.append(f'<rect x="{x:.1f}" y="{top}" width="{wide:.1f}" height="{LINE}" fill="{paper}"/>')
            if text.strip():
                weight = ' font-weight="bold"' if bold else ""
                out.append(
                    f'<text x="{x:.1f}" y="{top + SIZE}" fill="{ink}"{weight} xml:space="preserve" '
                    f'textLength="{wide:.1f}" lengthAdjust="spacingAndGlyphs">{escape(text)}</text>'
                )
    return "\n".join([*out, "</svg>", ""])


def _look(cell: object) -> tuple[str, str, bool]:
    ink = colour(getattr(cell, "fg", "default"), INK)
    paper = colour(getattr(cell, "bg", "default"), PAPER)
    if getattr(cell, "reverse", False):
        ink, paper = paper, ink
    return ink, paper, bool(getattr(cell, "bold", False))


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        databases(folder)
        options = ["--replay", str(ROOT / "fixtures/demo.rec"), "--speed", "0", "--no-download", "--geoip-db", name]
        for picture, size, keys, text in PICTURES:
            with Terminal(*options, size=size) as terminal:
                terminal.wait("replay ended")
                terminal.wait(lambda terminal=terminal: "no GeoIP" not in terminal.text)  # type: ignore[misc]
                for key in keys:
                    terminal.type(key)
                    terminal.read(0.3)
                terminal.wait(text)
                for _ in range(15):  # places are looked up a few thousand at a time
                    terminal.read(0.2)
                (ROOT / "docs" / f"{picture}.svg").write_text(svg(terminal), encoding="utf-8")
                terminal.type("q")
                terminal.end()


if __name__ == "__main__":
    main()
