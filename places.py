"""Records of geographical databases -> where an address is: a tolerant reader of all schemas in use.

DB-IP Lite and MaxMind's GeoLite2 nest ({"country": {"iso_code": ...}}), the flat files of ip-location-db have
country_code, state1, city, and IPinfo writes country and asn as text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from addresses import Place
from text import clean

MAX_TEXT = 128  # characters; the longest AS names of real files have about 100


@lru_cache(maxsize=16_384)
def text_of(text: str) -> str | None:
    """Make a text from a file safe to show; None where nothing is left of it."""
    return clean(text, MAX_TEXT) or None


def as_text(value: object) -> str | None:
    """Read a text; None for anything else."""
    return text_of(value) if isinstance(value, str) else None


def name_of(value: object) -> str | None:
    """Read ``{"names": {"en": …}}`` (any language where there is no English), or plain text."""
    if isinstance(value, dict):
        names = value.get("names")
        if not isinstance(names, dict):
            return None
        value = names.get("en") or next(iter(names.values()), None)
    return as_text(value)


def iso_code(value: object) -> str | None:
    """Read an ISO 3166 code of two letters."""
    if isinstance(value, str) and len(value) == 2 and value.isascii() and value.isalpha():
        return value.upper()
    return None


def country_of(record: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Read code and name: nested (DB-IP, GeoLite2), or flat (IPinfo's ``country`` is either)."""
    country = record.get("country") or record.get("registered_country")
    if isinstance(country, dict):
        return iso_code(country.get("iso_code")), name_of(country)
    code, name = iso_code(record.get("country_code")), as_text(record.get("country_name"))
    if iso_code(country):
        return code or iso_code(country), name
    return code, name or as_text(country)


def asn_of(record: Mapping[str, Any]) -> tuple[int | None, str | None]:
    """Read AS number (15169, "15169" or "AS15169") and its holder's name."""
    number = record.get("autonomous_system_number", record.get("asn"))
    if isinstance(number, str):
        digits = number[2:] if number[:2].upper() == "AS" else number
        number = int(digits) if re.fullmatch("[0-9]{1,10}", digits) else None
    if isinstance(number, bool) or not isinstance(number, int) or not 0 < number < 1 << 32:
        number = None
    name = record.get("autonomous_system_organization") or record.get("as_name")
    if name is None and "asn" in record:
        name = record.get("name")
    return number, as_text(name)


def degrees_of(record: Mapping[str, Any], keys: Sequence[str], limit: float) -> float | None:
    """Read a coordinate in degrees, nested or flat, number or text; None if it is beyond the limit."""
    location = record.get("location")
    for source in (location if isinstance(location, dict) else {}, record):
        for key in keys:
            value = source.get(key)
            if isinstance(value, (int, float, str)) and not isinstance(value, bool):
                try:
                    number = float(value)
                except (ValueError, OverflowError):
                    continue
                if math.isfinite(number) and abs(number) <= limit:
                    return number
    return None


def subdivision_of(record: Mapping[str, Any]) -> str | None:
    """Read the largest part of the country."""
    parts = record.get("subdivisions")
    if isinstance(parts, list) and parts:
        return name_of(parts[0])
    return as_text(record.get("state1")) or as_text(record.get("region"))


def place_of(record: Mapping[str, Any], network: Mapping[str, Any]) -> Place:
    """What a city or country record and a network's record say together; {} where there is none."""
    return Place(*country_of(record), name_of(record.get("city")), *asn_of(network))
