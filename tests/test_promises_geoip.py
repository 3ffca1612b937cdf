"""Where an address is, out of records of all schemas in use; what a database calls itself."""

from __future__ import annotations

from typing import Any

import pytest

from addresses import Place
from geoip import (
    ATTRIBUTIONS,
    BadDatabase,
    Database,
    as_text,
    asn_of,
    country_of,
    degrees_of,
    iso_code,
    month,
    name_of,
    place_of,
    provider_of,
    reason,
    subdivision_of,
)


@pytest.mark.parametrize(
    ("record", "country"),
    [
        ({}, (None, None)),
        ({"country": {"iso_code": "de", "names": {"en": "Germany", "de": "Deutschland"}}}, ("DE", "Germany")),
        ({"country": {"iso_code": "DE", "names": {"fr": "Allemagne"}}}, ("DE", "Allemagne")),
        ({"country": {"iso_code": "DEU"}}, (None, None)),
        ({"country": {"names": "Germany"}}, (None, None)),
        ({"registered_country": {"iso_code": "FR"}}, ("FR", None)),
        ({"country": {"iso_code": "DE"}, "registered_country": {"iso_code": "FR"}}, ("DE", None)),
        ({"country": {}, "registered_country": {"iso_code": "FR"}}, ("FR", None)),
        ({"country_code": "DE"}, ("DE", None)),
        ({"country_code": "DE", "country_name": "Germany"}, ("DE", "Germany")),
        ({"country": "DE"}, ("DE", None)),
        ({"country": "Germany"}, (None, "Germany")),
        ({"country": "Germany", "country_code": "DE"}, ("DE", "Germany")),
        ({"country": "Germany", "country_code": "DE", "country_name": "Deutschland"}, ("DE", "Deutschland")),
        ({"country": "FR", "country_code": "DE"}, ("DE", None)),
        ({"country": "FR", "country_name": "France"}, ("FR", "France")),
        ({"country": 5, "country_code": 6, "country_name": 7}, (None, None)),
    ],
)
def test_countries_of_all_schemas(record: dict[str, Any], country: tuple[str | None, str | None]) -> None:
    assert country_of(record) == country


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("de", "DE"),
        ("DE", "DE"),
        ("D", None),
        ("DEU", None),
        ("D1", None),
        ("Dé", None),
        ("", None),
        (5, None),
        (None, None),
    ],
)
def test_codes(code: object, wanted: str | None) -> None:
    assert iso_code(code) == wanted


@pytest.mark.parametrize(
    ("record", "network"),
    [
        ({}, (None, None)),
        ({"autonomous_system_number": 15169, "autonomous_system_organization": "Google"}, (15169, "Google")),
        ({"autonomous_system_number": 1, "asn": 2}, (1, None)),
        ({"asn": 15169, "as_name": "Google", "name": "other"}, (15169, "Google")),
        ({"asn": "AS15169", "name": "Google"}, (15169, "Google")),
        ({"asn": "as15169"}, (15169, None)),
        ({"asn": "15169"}, (15169, None)),
        ({"asn": "AS"}, (None, None)),
        ({"asn": "12345678901"}, (None, None)),
        ({"asn": "4294967295"}, (4_294_967_295, None)),
        ({"asn": "4294967296"}, (None, None)),
        ({"asn": 0}, (None, None)),
        ({"asn": 1}, (1, None)),
        ({"asn": -1}, (None, None)),
        ({"asn": 4_294_967_295}, (4_294_967_295, None)),
        ({"asn": 4_294_967_296}, (None, None)),
        ({"asn": True}, (None, None)),
        ({"asn": 1.5}, (None, None)),
        ({"name": "a city"}, (None, None)),
        ({"asn": None, "name": "Google"}, (None, "Google")),
    ],
)
def test_numbers_of_networks(record: dict[str, Any], network: tuple[int | None, str | None]) -> None:
    assert asn_of(record) == network


@pytest.mark.parametrize(
    ("record", "degrees"),
    [
        ({"location": {"latitude": 52.5}}, 52.5),
        ({"location": {"latitude": 52.5}, "latitude": 1.0}, 52.5),
        ({"location": {"latitude": 91.0}, "latitude": 1.0}, 1.0),
        ({"location": "Berlin", "lat": "52.5"}, 52.5),
        ({"latitude": "x", "lat": 3}, 3.0),
        ({"latitude": 90}, 90.0),
        ({"latitude": -90}, -90.0),
        ({"latitude": -90.1}, None),
        ({"latitude": 90.1}, None),
        ({"latitude": float("nan")}, None),
        ({"latitude": True}, None),
        ({"latitude": None}, None),
        ({}, None),
    ],
)
def test_degrees(record: dict[str, Any], degrees: float | None) -> None:
    assert degrees_of(record, ("latitude", "lat"), 90.0) == degrees


@pytest.mark.parametrize(
    ("record", "part"),
    [
        ({"subdivisions": [{"names": {"en": "Bavaria"}}, {"names": {"en": "Upper Bavaria"}}]}, "Bavaria"),
        ({"subdivisions": [], "state1": "Texas", "region": "x"}, "Texas"),
        ({"region": "Bavaria"}, "Bavaria"),
        ({"subdivisions": "Bavaria"}, None),
        ({}, None),
    ],
)
def test_parts_of_a_country(record: dict[str, Any], part: str | None) -> None:
    assert subdivision_of(record) == part


def test_names_are_made_safe_and_short() -> None:
    assert name_of({"names": {"en": "Ber\x1blin", "de": "x"}}) == "Berlin"
    assert name_of({"names": {"de": "Köln"}}) == "Köln"
    assert name_of({"names": {}}) is None
    assert name_of("Berlin") == "Berlin"
    assert name_of(["Berlin"]) is None
    assert as_text(" \x1b ") is None
    assert as_text("x" * 999) == "x" * 128
    assert as_text(b"x") is None


def test_a_place_is_what_both_records_say() -> None:
    city = {"country": {"iso_code": "DE", "names": {"en": "Germany"}}, "city": {"names": {"en": "Berlin"}}, "asn": 5}
    network = {"asn": 9, "name": "Net", "country": "FR"}
    assert place_of(city, network) == Place("DE", "Germany", "Berlin", 9, "Net")
    assert place_of({}, {}) == Place()


@pytest.mark.parametrize(
    ("kind", "path", "provider"),
    [
        ("DBIP-ASN-Lite (compat=GeoLite2-ASN)", "/x/ipinfo.mmdb", "dbip"),
        ("GeoLite2-City", "/x/dbip.mmdb", "geolite2"),
        ("GeoIP2-City", "/x/y", "geoip2"),
        ("ipinfo generic_country.mmdb", "/x", "ipinfo"),
        ("City", "/dbip/db-ip-city.mmdb", "dbip"),
        ("City", "/dbip/x.mmdb", ""),
        ("", "GeoLite2-Country.mmdb", "geolite2"),
    ],
)
def test_who_made_a_database(kind: str, path: str, provider: str) -> None:
    assert provider_of(kind, path) == provider
    assert Database(path, kind, 0, (), (), provider).attribution == ATTRIBUTIONS.get(provider, "")


def test_when_a_database_was_built() -> None:
    assert Database("", "", 1_793_577_600, (), (), "").month == "2026-11"
    assert month(0) == "1970-01"
    assert month(1e30) == "unknown"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (BadDatabase("the file is empty"), "the file is empty"),
        (OSError(13, "Permission denied"), "Permission denied"),
        (OSError("odd"), "damaged, or not a MaxMind DB file (odd)"),
        (ValueError("b\x1bad"), "damaged, or not a MaxMind DB file (bad)"),
    ],
)
def test_why_a_database_can_not_be_used(error: Exception, words: str) -> None:
    assert reason(error) == words
