"""Text for people: it fits its cells, what is cut says so, numbers and spans of time are right."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wcwidth import wcswidth

from text import ASCII, Glyphs, cells, shorten, shorten_middle, size_text, span_text, wrap

v6 = st.ip_addresses(v=6).map(str)


v4 = st.ip_addresses(v=4).map(str)


@given(st.one_of(v6, v4), st.integers(0, 65_535), st.integers(12, 50), st.sampled_from("…~"))
@example("2001:db8::1", 443, 12, "~")
def test_an_address_that_is_cut_is_no_address_and_its_port_is_whole(
    address: str, port: int, width: int, mark: str
) -> None:
    for text, tail in ((f"[{address}]:{port}" if ":" in address else f"{address}:{port}", f":{port}"), (address, "")):
        shorter = shorten_middle(text, width, mark)
        assert len(shorter) <= width
        if len(text) <= width:
            assert shorter == text
            continue
        assert shorter.endswith(tail)
        host = shorter.removesuffix(tail).strip("[]")
        assert mark in host
        with pytest.raises(ValueError, match="does not appear to be"):
            ipaddress.ip_address(host)


@given(st.text(st.sampled_from("ab漢字e\u0301 "), max_size=30), st.integers(0, 20))
def test_cut_text_fits_and_says_that_it_is_cut(text: str, width: int) -> None:
    shorter = shorten(text, width)
    assert wcswidth(shorter) <= width
    if shorter != text:
        assert shorter[-1:] == "…" or width == 0
        assert text.startswith(shorter[:-1])


@given(st.text(st.sampled_from("ab漢字 "), max_size=60), st.integers(8, 30))
def test_wrapped_text_loses_nothing(text: str, width: int) -> None:
    lines = wrap(text, width)
    assert all(wcswidth(part) <= width for part in lines)
    assert "".join(lines).replace("…", "").replace(" ", "") == text.replace(" ", "")


@given(st.integers(0, 2**64 - 1))
def test_sizes_fit_their_column_and_are_right(number: int) -> None:
    text = size_text(number)
    assert len(text) <= 4
    digits = text.rstrip("kMGTPEZ")
    factor = 1000 ** " kMGTPEZ".index(text[len(digits) :] or " ")
    assert abs(float(digits) * factor - number) <= 0.06 * number


@given(st.floats(0, 4e9))
def test_spans_fit_their_column_and_are_right(seconds: float) -> None:
    text = span_text(seconds)
    assert len(text) <= 6
    length = {"s": 1, "m": 60, "h": 3600, "d": 86400}[text[-1]]
    assert float(text[:-1]) * length <= seconds * 1.06 + 1
    assert float(text[:-1]) * length >= (seconds - 1) * 0.49


def test_ascii_glyphs_are_as_wide_as_the_others() -> None:
    for name, value in vars(Glyphs()).items():
        if isinstance(value, str):
            other = getattr(ASCII, name)
            assert other.isascii()
            same = cells(other) == cells(value)
            assert same if name != "eighths" else max(map(cells, value + other)) == 1, name  # each takes its place
