"""City and ASN databases of the size of DB-IP Lite's, with invented places, made in ten seconds.

A tree whose nodes are numbered level by level points to 1, 2, 3, 4, ... in their order: it need not be built, only
written. All networks of a family are of one size.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmdb_writer import METADATA_MAGIC, Encoder

CITY_DEPTH = 23  # bits of IPv4 networks: 8.4 million /23. The file has 82 MB; DB-IP City Lite has 125
ASN_DEPTH = 20  # The file has 15 MB; DB-IP ASN Lite has 9
IPV6_DEPTH = 17  # bits behind 2000::/3
DIFFERENT = 65_536  # records of each; a power of two: they repeat along the tree
COUNTRIES = [f"{first}{second}" for first in "ABCDEFGHIJ" for second in "KLMNOPQRSTUVWXYZ"]
BUILT = 1_793_577_600  # 2026-11-02


def make(folder: Path) -> None:
    """Write both files into a folder, under the names that DB-IP's have there."""
    places, holders = map(_place, range(DIFFERENT)), map(_holder, range(DIFFERENT))
    _write(folder / "dbip-city-lite.mmdb", "DBIP-City-Lite", CITY_DEPTH, places)
    _write(folder / "dbip-asn-lite.mmdb", "DBIP-ASN-Lite", ASN_DEPTH, holders)


def _place(number: int) -> dict[str, Any]:
    code = COUNTRIES[number * 7919 % len(COUNTRIES)]
    return {
        "city": {"names": {"en": f"City {number}"}},
        "continent": {"code": "EU", "names": {"en": "Europe"}},
        "country": {"iso_code": code, "is_in_european_union": False, "names": {"en": f"Country {code}"}},
        "location": {"latitude": number % 170 - 85.0, "longitude": number % 360 - 180.0},
        "subdivisions": [{"names": {"en": f"Region {number // 10}"}}],
    }


def _holder(number: int) -> dict[str, Any]:
    return {
        "autonomous_system_number": 1000 + number,
        "autonomous_system_organization": f"Network operator {number} of {COUNTRIES[number % len(COUNTRIES)]}",
    }


def _write(path: Path, kind: str, depth: int, records: Iterable[dict[str, Any]]) -> None:
    """One database: 96 zero bits lead to the IPv4 tree, the bits 001 to the IPv6 tree; all else is not found."""
    encoder = Encoder(cache=False, int_type="u32")
    data, places = bytearray(), []
    for record in records:
        places.append(len(data))
        data += encoder.encode(record)
    sizes = 2**depth - 1, 2**IPV6_DEPTH - 1
    count = 96 + sum(sizes)
    chain = array("I", [count] * 192)
    chain[0::2] = array("I", range(1, 97))
    chain[5] = 96 + sizes[0]
    leaves = array("I", [count + 16 + places[at * 40_503 % len(places)] for at in range(len(places))])
    words = chain + _tree(96, depth, leaves) + _tree(96 + sizes[0], IPV6_DEPTH, leaves)
    if sys.byteorder == "little":
        words.byteswap()
    about = {
        "binary_format_major_version": 2,
        "binary_format_minor_version": 0,
        "build_epoch": BUILT,
        "database_type": kind,
        "description": {"en": "invented places"},
        "ip_version": 6,
        "languages": ["en"],
        "node_count": count,
        "record_size": 32,
    }
    with path.open("wb") as file:
        words.tofile(file)
        file.write(bytes(16) + data + METADATA_MAGIC + encoder.encode_meta(about))


def _tree(base: int, depth: int, leaves: array[int]) -> array[int]:
    """Records of a whole binary tree whose root is the node ``base``; ``leaves`` repeat along its end."""
    whole = 2**depth
    tree = array("I", range(base + 1, base + whole - 1))
    tree.extend(leaves * (whole // len(leaves)))
    return tree
