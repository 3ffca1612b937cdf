"""What came from outside, made safe to show: no control or format character of it ever reaches a terminal."""

from __future__ import annotations

import unicodedata


def clean(text: str, limit: int = 256) -> str:
    """``text`` in one line: no control, format, surrogate or private characters, blanks collapsed, cut to ``limit``.

    Format characters (category Cf) are dropped too: U+202E turns the rest of a line around, U+00AD has no fixed width.

    >>> clean("conn\\x1b[31mtrack\\n"), clean("a\\u202eb  c")
    ('conn[31mtrack', 'ab c')
    """
    text = text[: limit * 4]
    if not (text.isascii() and text.isprintable()):
        kept = []
        for char in text:
            category = unicodedata.category(char)
            if category[0] == "Z" or char in "\t\n\r":
                kept.append(" ")
            elif category[0] != "C":
                kept.append(char)
        text = "".join(kept)
    return " ".join(text.split())[:limit]
