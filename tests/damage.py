"""Looks up addresses in 200 databases with damage at random, and says how it went: ``python damage.py FOLDER``.

A process of its own, since damage may end the process that reads it.
"""

from __future__ import annotations

import random
import re
import sys
from pathlib import Path

from geoip import GeoIP
from support.mmdb import place, write

DATABASES, NETWORKS = 200, 300
KEY = re.compile(rb"\x47key\d{4}")  # a string behind its length; each record has its own


def whole_database(folder: Path) -> bytes:
    records = {
        f"8.{number // 250}.{number % 250}.0/24": place(
            "US", "United States", f"City {number}", **{f"key{number:04}": 1}
        )
        for number in range(NETWORKS)
    }
    write(folder / "whole", "DBIP-City-Lite", records, 4)
    return (folder / "whole").read_bytes()


def damaged(content: bytes, seed: int) -> bytes:
    pick = random.Random(seed)
    out = bytearray(content)
    data, end = content.index(b"\0" * 16), content.rindex(b"\xab\xcd\xefMaxMind.com")
    if seed % 2:  # a key that is an array: the C reader 3.2.0 raises SystemError
        at = pick.choice([found.start() for found in KEY.finditer(content)])
        out[at : at + 2] = b"\0\4"
    else:
        for _ in range(pick.choice((1, 4))):
            out[pick.randrange(data if seed % 4 else 0, end)] = pick.choice((0, 0xFF, 0x20, pick.randrange(256)))
    return bytes(out)


def main(folder: Path) -> None:
    content = whole_database(folder)
    opened = answers = told = 0
    for seed in range(DATABASES):
        (folder / "damaged.mmdb").unlink(missing_ok=True)
        (folder / "damaged.mmdb").write_bytes(damaged(content, seed))
        geo = GeoIP([str(folder)])
        geo.open()
        opened += bool(geo.databases)
        for number in range(NETWORKS):
            address = f"8.{number // 250}.{number % 250}.{seed}"
            found, _detail = geo.lookup(address), geo.detail(address)
            answers += found.country == "US"
        told += bool(geo.notices)
    print(opened, answers, told)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
