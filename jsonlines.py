"""Our own JSON lines, and inputs of several nodes, as the text of one node's recording.

A JSON object becomes the line of conntrack that says the same, and before it what no line says: the directives of a
recording (see ``recording``). So nobody behind knows anything of JSON.

What stands in JSON and in no line is this host's addresses. They follow from what JSON says of each flow: its direction
and its remote end. With them both are told anew as they were.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from json import JSONDecoder
from typing import Any, NoReturn

from addresses import BROADCAST, LONGEST_NODE, scope
from parse import ADDRESS, EVENTS, FAMILIES, FLAGS

MOST_NODES = 1000  # whose lines are counted each by itself
MOST_OWN = 1024  # own addresses: with each new one all are told again
MOST_OTHERS = 65_536  # addresses that are known to be of others
OTHER_NODES = "others"
ALWAYS_KNOWN = ("loopback", "multicast", "broadcast")  # scopes whose direction needs no list of own addresses
UNTIMED = b"0.0"  # of a directive that has no time of its own
WHOLE, NOT_WHOLE = b"# 0.0 whole 1", b"# 0.0 whole 0"

# --- one object -------------------------------------------------------------------------------------------------------

_TAG_OF = {name: tag for tag, name in EVENTS.items()} | {"list": b""}
_FAMILY_TEXTS = {name: f"{name:<8} {number} " for number, name in FAMILIES.items()}
_IS_ADDRESS = re.compile(ADDRESS)
_MOMENT_TEXT = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|\+00:00)?", re.ASCII)
_BARE_SECONDS = re.compile(r"\d{1,12}\.\d{1,6}", re.ASCII)  # of the year 10000 and later
_STATE_NAME = re.compile(r"[A-Z][A-Z0-9_]{2,31}")
# What follows the reply tuple, in conntrack's order. Numbers, and texts.
_MORE_WORDS = (
    *(("mark", "mark=%d"), ("secmark", "secmark=%d"), ("secctx", "secctx=%s"), ("zone", "zone=%d")),
    *(("delta_time", "delta-time=%d"), ("start", "[start=%s]"), ("stop", "[stop=%s]"), ("helper", "helper=%s")),
    *(("use", "use=%d"), ("id", "id=%d")),
)


def line_of(item: Mapping[str, Any]) -> bytes:
    """The line of conntrack that says what one of our JSON objects says, without a newline.

    ValueError for any other object, and for values that no line has. What a line's words mean together is the parser's
    business: it looks at this line as at any other.

    >>> ends = {"original": {"src": "::1", "dst": "::2"}, "reply": {"src": "::2", "dst": "::1"}}
    >>> line_of({"event": "list", "family": "ipv6", "protocol": "unknown", "protocol_number": 50, "timeout": 9, **ends})
    b'ipv6     10 unknown  50 9 src=::1 dst=::2 src=::2 dst=::1'
    """
    try:
        stamp = stamp_of(item["time"]) if "time" in item else b""
        tag = _TAG_OF[item["event"]]
        head = f"{_FAMILY_TEXTS[item['family']]}{_a_text(item['protocol']):<8} {_unsigned(item['protocol_number'])} "
        line = (head + " ".join(_words_in(item))).encode()
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError("not a flow") from error
    if b"\n" in line:
        raise ValueError("more than a line")
    return (b"[%b]\t%b%b" % (stamp, tag, line)) if stamp else tag + line


def _words_in(item: Mapping[str, Any]) -> list[str]:
    """All that follows the protocol."""
    flags, original, reply = item.get("flags", []), item["original"], item["reply"]
    if not isinstance(flags, list) or not set(flags) <= set(FLAGS):
        raise ValueError("unknown flags")
    words = [str(_unsigned(item["timeout"]))] if "timeout" in item else []
    if "state" in item:
        if not _STATE_NAME.fullmatch(item["state"]):
            raise ValueError("not a state")
        words.append(item["state"])
    words += [_side_text(original), *_beside(original, "zone_orig", "zone-orig")]
    words += ["[UNREPLIED]"] if "UNREPLIED" in flags else []
    words += [_side_text(reply), *_beside(reply, "zone_reply", "zone-reply")]
    words += [f"[{flag}]" for flag in flags if flag != "UNREPLIED"]
    words += [form % (_unsigned if "%d" in form else _a_text)(item[key]) for key, form in _MORE_WORDS if key in item]
    if "labels" in item:
        if not isinstance(item["labels"], list):
            raise ValueError("not a list")
        labels = ",".join(item["labels"])
        words.append(f"labels={labels}" if labels else "labels")
    if "userspace" in item:
        words += _user_words(item["userspace"])
    return words


def _side_text(side: Mapping[str, Any]) -> str:
    """One direction's addresses and ports, or what stands in their place."""
    src, dst = side["src"], side["dst"]
    if not _IS_ADDRESS.fullmatch(src) or not _IS_ADDRESS.fullmatch(dst):
        raise ValueError("not an address")
    text = f"src={src} dst={dst}"
    if "sport" in side:
        return f"{text} sport={_unsigned(side['sport'])} dport={_unsigned(side['dport'])}"
    if "type" in side:
        return f"{text} type={_unsigned(side['type'])} code={_unsigned(side['code'])} id={_unsigned(side['icmp_id'])}"
    if "srckey" in side:
        return f"{text} srckey={_a_text(side['srckey'])} dstkey={_a_text(side['dstkey'])}"
    return text


def _beside(side: Mapping[str, Any], key: str, word: str) -> list[str]:
    """One direction's zone and counters."""
    words = [f"{word}={_unsigned(side[key])}"] if key in side else []
    if "packets" in side or "bytes" in side:
        words.append(f"packets={_unsigned(side['packets'])} bytes={_unsigned(side['bytes'])}")
    return words


def _user_words(user: Mapping[str, Any]) -> list[str]:
    words = ["[USERSPACE]"]
    words += [f"portid={_unsigned(user['portid'])}"] if "portid" in user else []
    return words + ([f"progname={_a_text(user['progname'])}"] if "progname" in user else [])


def _unsigned(value: object) -> int:
    """An unsigned 64-bit number; True is none."""
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise ValueError("not a number")
    return value


def _a_text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def stamp_of(time: str) -> bytes:
    """A time as conntrack stamps it: seconds since 1970; ValueError for what is no time.

    >>> stamp_of("2026-11-22T22:26:53.786793Z")
    b'1795386413.786793'
    """
    match = _MOMENT_TEXT.fullmatch(time)
    if match is None:
        if not _BARE_SECONDS.fullmatch(time):
            raise ValueError("not a time")
        return time.encode()
    second = _second_of(f"{match[1]}T{match[2]}+00:00")
    if second < 0:
        raise ValueError("before 1970")
    return f"{second}.{(match[3] or '0')[:6]:0<6}".encode()


@lru_cache(maxsize=64)  # 20,000 events share a second
def _second_of(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


# --- own addresses ----------------------------------------------------------------------------------------------------


class OwnFromFlows:
    """This host's own addresses, as far as the lines' directions and remote ends tell them.

    The direction says of the initiator (the original source) and of the responder (the reply's source) whether they are
    this host's; see ``addresses.KnownAddresses``. What NAT put in their place mostly is this host's, unless it is the
    remote end. A later line that says otherwise counts more.
    """

    def __init__(self) -> None:
        self._own: set[str] = set()
        self._others: set[str] = set()
        self._broadcasts: set[str] = set()
        self._known = False
        self._changed = False

    def learn(self, item: Mapping[str, Any]) -> bytes | None:
        """Learn from a line. All own addresses, as a recording's ``own`` has them, if they are others than before."""
        way, told = item.get("direction"), item.get("remote")
        if way is None:
            known, self._known = self._known, False
            return b"" if known else None
        if way not in ("in", "out", "fwd", "local"):
            return None
        self._changed = not self._known
        self._known = True
        original, reply = item["original"], item["reply"]
        self._learn_real(way, original["src"], reply["src"])
        remote = told.get("ip") if isinstance(told, dict) else None
        if reply["dst"] != original["src"]:
            self._learn_translated(reply["dst"], remote)
        if reply["src"] != original["dst"] and way in ("in", "fwd"):
            self._learn_translated(original["dst"], remote)
        if not self._changed:
            return None
        # Every host has it; a set that is empty would say that nobody knows.
        return " ".join(
            ["127.0.0.1", *sorted(self._own), *(BROADCAST + at for at in sorted(self._broadcasts))]
        ).encode()

    def _learn_real(self, way: str, initiator: str, responder: str) -> None:
        if way in ("out", "local"):
            self._add(initiator)
        else:
            self._remove(initiator)
        if way == "fwd":
            self._remove(responder)
        elif way != "out":
            if responder != initiator and responder not in self._broadcasts:
                self._add(responder)
        elif responder in self._own and responder != initiator:
            # It takes in what comes for it, and still a flow to it goes out.
            self._own.discard(responder)
            self._broadcasts.add(responder)
            self._changed = True

    def _learn_translated(self, address: str, remote: object) -> None:
        if address == remote:
            self._remove(address)
        elif address not in self._others:
            self._add(address)

    def _add(self, address: str) -> None:
        if address in self._own or len(self._own) >= MOST_OWN or scope(address) in ALWAYS_KNOWN:
            return
        self._own.add(address)
        self._others.discard(address)
        self._changed = True

    def _remove(self, address: str) -> None:
        if address in self._own or address in self._broadcasts:
            self._own.discard(address)
            self._broadcasts.discard(address)
            self._changed = True
        if len(self._others) >= MOST_OTHERS:
            self._others.clear()
        self._others.add(address)


# --- an input ---------------------------------------------------------------------------------------------------------


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


_item_in = JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_number).decode
_NODE_NAMED = re.compile(rb"# \d{1,12}\.\d{1,6} node +([^\n]+)")
_NO_FLOWS = ("alert",)  # our own lines that are about flows, and are none


class JsonLines:
    """What an input says, as the text of a recording of one node.

    ``node``: whose lines these are; "" until one is named. Lines of other nodes are left out and counted. A line that
    names no node is of the one that is read.
    """

    def __init__(self, node: str = "") -> None:
        self.node = node
        self.left_out: dict[str, int] = {}  # lines by their nodes
        self._own = OwnFromFlows()
        self._whole = False  # whether the lines that were written last are whole
        self._elsewhere = ""  # the other node whose lines follow in a recording

    def concern(self, block: bytes) -> bool:
        """Has a block anything that a recording of one node has not? Asked of each block: 10 us for 256 KiB."""
        return b"{" in block or b" node " in block or self._whole or bool(self._elsewhere)

    def as_recording(self, block: bytes) -> bytes:
        """``block``: whole lines; the last one of an input may lack its newline."""
        out: list[bytes] = []
        lines = block.split(b"\n")
        for line in lines:
            if line.lstrip()[:1] == b"{":
                self._take_object(line, out)
            elif line:
                self._take_text(line, out)
        if not out or (lines[-1] and out[-1] is lines[-1]):  # what was cut off must not look whole
            return b"\n".join(out)
        return b"\n".join(out) + b"\n"

    def _take_object(self, line: bytes, out: list[bytes]) -> None:
        try:
            item = _item_in(line.decode())
            if item.get("event") in _NO_FLOWS:
                return
            node, text = _node_in(item), line_of(item)
        except (ValueError, RecursionError, AttributeError):
            out.append(line)  # it is counted where all lines are that nobody understands
            return
        if self._is_left_out(node or self._elsewhere):
            return
        moment = text[1 : text.index(b"]")] if text[:1] == b"[" and b"]\t" in text[:24] else UNTIMED
        own = self._own.learn(item)
        if own is not None:
            out.append(b"# %b own %b" % (moment, own))
        if item.get("inferred") is True and item["event"] == "destroy":
            out.append(b"# %b gone %b" % (moment, text))
            return
        if not self._whole:
            self._whole = True
            out.append(WHOLE)
        out.append(text)

    def _take_text(self, line: bytes, out: list[bytes]) -> None:
        if match := _NODE_NAMED.fullmatch(line):
            name = match[1].decode("utf-8", "replace")[:LONGEST_NODE]
            self._elsewhere = "" if self._is_ours(name) else name
        elif self._elsewhere:
            if line[:2] != b"# ":
                self._is_left_out(self._elsewhere)
        else:
            if self._whole:
                self._whole = False
                out.append(NOT_WHOLE)
            out.append(line)

    def _is_ours(self, node: str) -> bool:
        self.node = self.node or node
        return not node or node == self.node

    def _is_left_out(self, node: str) -> bool:
        if self._is_ours(node):
            return False
        key = node if node in self.left_out or len(self.left_out) < MOST_NODES else OTHER_NODES
        self.left_out[key] = self.left_out.get(key, 0) + 1
        return True


def _node_in(item: Mapping[str, Any]) -> str:
    node = item.get("node", "")
    if not isinstance(node, str) or len(node) > LONGEST_NODE or "\n" in node:
        raise ValueError("not a node")
    return node
