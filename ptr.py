"""Reverse DNS in bytes: the question for an address's name, and what is in an answer (RFC 1035, section 4)."""

from __future__ import annotations

import ipaddress
import re
import struct

_PTR, _IN = 12, 1
_RECURSE = 0x0100
_IS_ANSWER, _CUT, _STATUS = 0x8000, 0x0200, 0x000F
_NO_SUCH_NAME = 3
MOST_RECORDS = 64  # in one answer; the first that is a name ends the search
LONGEST = 253  # characters of a name
# Host names as RFC 1123 has them, and the underscores that are met with.
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


def question(address: str, number: int) -> bytes:
    """The datagram that asks for an address's name; ``number`` (16 bits) comes back with the answer. ValueError."""
    name = ipaddress.ip_address(address.partition("%")[0]).reverse_pointer
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!6H", number, _RECURSE, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", _PTR, _IN)


def answer(data: bytes, asked: bytes) -> str | None:
    """The name that a datagram answers a question with: "" if the address has none, None if the server can't tell.

    ValueError for what is broken, or answers another question: somebody may be guessing.
    """
    try:
        return _answer(data, asked)
    except (struct.error, IndexError):
        raise ValueError("the answer is cut") from None


def _answer(data: bytes, asked: bytes) -> str | None:
    number, flags, questions, answers = struct.unpack_from("!4H", data)
    status = flags & _STATUS
    if number != int.from_bytes(asked[:2], "big") or not flags & _IS_ANSWER:
        raise ValueError("it answers another question")
    if questions == 0 and status:
        return None  # a server that did not even understand what it was asked
    if questions != 1 or data[12 : len(asked)].lower() != asked[12:].lower():
        raise ValueError("it answers another question")
    if status:
        return "" if status == _NO_SUCH_NAME else None
    at = len(asked)
    for _ in range(min(answers, MOST_RECORDS)):
        at = _behind_name(data, at)
        kind, kind_of_net, _seconds, length = struct.unpack_from("!HHIH", data, at)
        at += 10
        if (kind, kind_of_net) == (_PTR, _IN) and (name := host_name(_name(data, at))):
            return name  # its owner is not looked at: it may be an alias (RFC 2317)
        at += length
    return None if flags & _CUT else ""


def _behind_name(data: bytes, at: int) -> int:
    while length := data[at]:
        if length >= 0xC0:
            return at + 2
        at += 1 + length
    return at + 1


def _name(data: bytes, at: int) -> str:
    """The name that begins here; pointers go back only, so that they have an end."""
    labels: list[bytes] = []
    first = at
    while length := data[at]:
        if length >= 0xC0:
            to = (length & 0x3F) << 8 | data[at + 1]
            if to >= first:
                raise ValueError("a name goes round in circles")
            first = at = to
        elif length > 63 or len(labels) > 127:
            raise ValueError("a name is none")
        else:
            labels.append(data[at + 1 : at + 1 + length])
            at += 1 + length
    return b".".join(labels).decode("latin-1")


def host_name(text: str) -> str:
    """``text`` if it is a host's name, else "": anybody can give his addresses any name.

    What looks like an address is none: it would be taken for one.

    >>> host_name("mail.example."), host_name("192.0.2.1"), host_name("a\\x1b[31m.example"), host_name("-x")
    ('mail.example', '', '', '')
    """
    text = text.removesuffix(".")
    labels = text.split(".")
    if len(text) > LONGEST or not all(map(_LABEL.fullmatch, labels)) or labels[-1].isdigit():
        return ""
    return text
