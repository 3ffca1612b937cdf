"""Text for people: it fits its cells, what is cut says so, numbers and spans of time are right."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wcwidth import wcswidth

from text import (
    ASCII,
    Glyphs,
    cells,
    clean,
    clip,
    length,
    pad,
    printable,
    shorten,
    shorten_middle,
    size_text,
    span_text,
    spread,
    wrap,
)

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


# --- text for people: made safe, measured in cells, cut, wrapped and padded, character by character -------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        *(("plain text", "plain text"), ("a\tb\nc\rd", "a b c d"), ("\x1b[31m", "[31m"), ("a\x00\x7f\x9bb", "ab")),
        *(
            ("a\u00a0\u2003\u2028b", "a   b"),
            ("a\u202e\u00ad\u200bb", "ab"),
            ("\ue000\ud800x", "x"),
            ("ä漢e\u0301", "ä漢e\u0301"),
        ),
        *(("", ""), (" a  b ", " a  b ")),
    ],
)
def test_what_is_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("text", "limit", "shown"),
    [
        *(("  a \n\n b ", 256, "a b"), ("x" * 300, 256, "x" * 256), ("abc", 2, "ab"), ("\x1b" * 4 + "abc", 2, "ab")),
        *(("\x1b" * 8 + "abc", 2, ""), ("a     b", 3, "a b"), ("ab cd", 3, "ab ")),
    ],
)
def test_text_in_one_line(text: str, limit: int, shown: str) -> None:
    assert clean(text, limit) == shown


def test_a_text_has_at_most_256_characters() -> None:
    assert clean("y" * 999) == "y" * 256


@pytest.mark.parametrize(
    ("text", "width"), [("", 0), ("abc", 3), ("漢字", 4), ("e\u0301", 1), ("a\u200bb", 2), ("ä", 1), ("a\x1bä", 2)]
)
def test_widths(text: str, width: int) -> None:
    assert cells(text) == width
    assert length([(text, "a"), ("xy", "b")]) == width + 2
    assert length([]) == 0


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        *(("abcd", 4, "abcd"), ("abcd", 3, "ab…"), ("abcd", 2, "a…"), ("abcd", 1, "…"), ("abcd", 0, ""), ("", 0, "")),
        *(
            ("漢字漢", 5, "漢字…"),
            ("漢字漢", 4, "漢…"),
            ("漢字", 2, "…"),
            ("漢字", 3, "漢…"),
            ("e\u0301e\u0301e\u0301", 2, "e\u0301…"),
        ),
    ],
)
def test_cut_at_the_end(text: str, width: int, shown: str) -> None:
    assert shorten(text, width) == shown
    assert shorten(text, width, "~") == shown.replace("…", "~")


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("192.168.100.200:54321", 21, "192.168.100.200:54321"),
        ("192.168.100.200:54321", 20, "192.168…00.200:54321"),
        ("192.168.100.200:54321", 15, "192.….200:54321"),
        ("192.168.100.200:54321", 11, "19…00:54321"),
        ("192.168.100.200:54321", 10, "192.168.1…"),
        ("192.168.100.200:54321", 2, "1…"),
        ("192.168.100.200:54321", 1, "…"),
        ("192.168.100.200:54321", 0, ""),
        ("[2001:db8::1234]:443", 20, "[2001:db8::1234]:443"),
        ("[2001:db8::1234]:443", 19, "[2001:d…::1234]:443"),
        ("[2001:db8::1234]:443", 12, "[20…234]:443"),
        ("[2001:db8::1234]:443", 10, "[2…34]:443"),
        ("[2001:db8::1234]:443", 9, "[2001:db…"),
        ("2001:db8::1:2:3:4", 12, "2001:d…2:3:4"),
        ("snat 203.0.113.1:40000", 15, "snat…13.1:40000"),
        (":abcdefghij", 7, ":ab…hij"),
    ],
)
def test_an_endpoint_loses_the_middle_of_its_address(text: str, width: int, shown: str) -> None:
    assert shorten_middle(text, width) == shown
    assert shorten_middle(text, width, "~") == shown.replace("…", "~")


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("one two three", 13, ["one two three"]),
        ("one two three", 12, ["one two", "three"]),
        ("one two three", 7, ["one two", "three"]),
        ("one two three", 6, ["one", "two", "three"]),
        ("one two three", 5, ["one", "two", "three"]),
        ("one two three", 4, ["one", "two", "thr…", "ee"]),
        ("abcdefgh", 4, ["abc…", "def…", "gh"]),
        ("abcdefgh", 3, ["ab…", "cd…", "ef…", "gh"]),
        ("abcdefgh", 2, ["abcdefgh"]),
        ("a  b", 3, ["a", "b"]),
        ("aa   bb cc", 4, ["aa", "bb", "cc"]),
        (" ab cd", 3, ["ab", "cd"]),
        ("ab ", 2, ["ab", ""]),
        ("", 5, [""]),
        ("漢字漢字 x", 5, ["漢字…", "漢字", "x"]),
    ],
)
def test_wrapped_text(text: str, width: int, lines: list[str]) -> None:
    assert wrap(text, width) == lines
    assert wrap(text, width, "~") == [line.replace("…", "~") for line in lines]


def test_padding() -> None:
    assert pad("ab", 4, False) == "ab  "
    assert pad("ab", 4, True) == "  ab"
    assert pad("漢", 3, True) == " 漢"
    assert pad("abc", 2, True) == "abc"


def test_a_line_is_clipped_at_its_width_and_its_last_span_is_cut() -> None:
    line = [("abc", "x"), ("def", "y"), ("", "z"), ("ghi", "x")]
    assert clip(line, 9) == line
    assert clip(line, 8) == [("abc", "x"), ("def", "y"), ("", "z"), ("g…", "x")]
    assert clip(line, 6) == [("abc", "x"), ("def", "y")]
    assert clip(line, 5, "~") == [("abc", "x"), ("d~", "y")]
    assert clip(line, 3) == [("abc", "x")]
    assert clip(line, 0) == []


def test_left_and_right_on_one_line() -> None:
    left, right = [("abc", "x")], [("de", "y")]
    assert spread(left, right, 10) == [("abc", "x"), ("     ", "plain"), ("de", "y")]
    assert spread(left, right, 7) == [("abc", "x"), ("  ", "plain"), ("de", "y")]
    assert spread(left, right, 6) == left


@given(st.text(st.sampled_from("ab 漢e\u0301\u200b"), max_size=30), st.integers(3, 12))
def test_wrapped_lines_fit(text: str, width: int) -> None:
    lines = wrap(text, width)
    assert all(cells(line) <= width for line in lines)
    assert "".join(lines).replace("…", "").replace(" ", "") == text.replace(" ", "")
