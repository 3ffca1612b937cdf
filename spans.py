"""Text in cells: its width on a terminal, cutting, wrapping and padding it, and lines of (text, role) spans."""

from __future__ import annotations

from collections.abc import Iterable

from wcwidth import wcwidth

Span = tuple[str, str]  # text, role
Line = list[Span]


def cells(text: str) -> int:
    """Width on a terminal, in cells."""
    return len(text) if text.isascii() else sum(max(0, wcwidth(char)) for char in text)


def cut(text: str, width: int, mark: str = "…") -> str:
    """``text`` in at most ``width`` cells; what is missing at the end is marked."""
    if cells(text) <= width:
        return text
    if width <= 1:
        return mark[:width]
    return _head(text, width - 1) + mark


def _head(text: str, width: int) -> str:
    used = 0
    for at, char in enumerate(text):
        used += max(0, wcwidth(char))
        if used > width:
            return text[:at]
    return text


def cut_middle(text: str, width: int, mark: str = "…") -> str:
    """An endpoint in at most ``width`` cells: the port stays whole, the address loses its middle.

    An address cut at its end would be another valid one.
    """
    if len(text) <= width:
        return text
    at = text.rfind("]:") if "[" in text else (text.rfind(":") if text.count(":") == 1 else -1)
    address, port = (text[:at], text[at:]) if at > 0 else (text, "")
    room = width - len(port) - 1
    if room < 4:
        return cut(text, width, mark) if width > len(mark) else mark[:width]
    tail = room // 2
    return address[: room - tail] + mark + address[len(address) - tail :] + port


def wrap(text: str, width: int, mark: str = "…") -> list[str]:
    """``text`` in lines of at most ``width`` cells, broken at blanks; a longer word is marked at its breaks."""
    if cells(text) <= width:
        return [text]
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        if line and cells(line) + 1 + cells(word) > width:
            lines.append(line.rstrip())
            line = ""
            if not word:
                continue
        line = f"{line} {word}" if line else word
        while width > 2 and cells(line) > width:
            piece = _head(line, width - 1)
            lines.append(piece + mark)
            line = line[len(piece) :]
    return [*lines, line]


def pad(text: str, width: int, right: bool) -> str:
    space = " " * max(0, width - cells(text))
    return space + text if right else text + space


def clip(line: Iterable[Span], width: int, mark: str = "…") -> Line:
    """The spans that fit into ``width`` cells; the last one cut if need be."""
    out: Line = []
    left = width
    for text, role in line:
        if left <= 0:
            break
        shown = cut(text, left, mark)
        out.append((shown, role))
        left -= cells(shown)
    return out


def length(line: Line) -> int:
    return sum(cells(text) for text, _ in line)


def spread(left: Line, right: Line, width: int) -> Line:
    """Left and right on one line; the right side goes first when there is no room for both."""
    used, wanted = length(left), length(right)
    if used + wanted + 2 > width:
        return left
    return [*left, (" " * (width - used - wanted), "plain"), *right]
