"""What came from outside, made safe to show: no control or format character of it ever reaches a terminal."""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    """``text`` without control, format, surrogate or private characters; its blanks stay as they are.

    >>> printable("Thu Nov  5\\x1b[0m"), printable(" a\\u00a0b\\t")
    ('Thu Nov  5[0m', ' a b ')
    """
    if text.isascii() and text.isprintable():
        return text
    kept = []
    for char in text:
        category = unicodedata.category(char)
        if category[0] == "Z" or char in "\t\n\r":
            kept.append(" ")
        elif category[0] != "C":
            kept.append(char)
    return "".join(kept)


def clean(text: str, limit: int = 256) -> str:
    """``text`` in one line: no control, format, surrogate or private characters, blanks collapsed, cut to ``limit``.

    Format characters (category Cf) are dropped too: U+202E turns the rest of a line around, U+00AD has no fixed width.

    >>> clean("conn\\x1b[31mtrack\\n"), clean("a\\u202eb  c")
    ('conn[31mtrack', 'ab c')
    """
    return " ".join(printable(text[: limit * 4]).split())[:limit]
