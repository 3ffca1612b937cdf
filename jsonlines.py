"""Our own JSON lines, and inputs of several nodes, as the texts of recordings, each of one node.

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
from typing import Any, NamedTuple, NoReturn

from addresses import BROADCAST, LONGEST_NODE, scope
from parse import ADDRESS, EVENTS, FAMILIES, FLAGS

MOST_NODES = 1000  # that are read, and whose lines are counted each by itself
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


_LINE_TIME = re.compile(rb"(?:# |\[)(\d{1,12}\.\d{1,6})")
_item_in = JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_number).decode
_NODE_NAMED = re.compile(rb"# \d{1,12}\.\d{1,6} node(?: ([^\n]*))?")
_NO_FLOWS = ("alert",)  # our own lines that are about flows, and are none


class NodeText(NamedTuple):
    """Whole lines of one node, as its recording has them."""

    node: str
    data: bytes


class _Sorted:
    """Lines by their nodes: of all that is read at once, or of a tenth of a second of it, which is then played."""

    def __init__(self, by_time: bool) -> None:
        self._by_time = by_time
        self._tenth = -1
        self._texts: dict[str, list[bytes]] = {}
        self._over: list[tuple[str, list[bytes]]] = []

    def of(self, node: str, moment: bytes = b"") -> list[bytes]:
        """Where a line of that node and moment goes; b"": of the same moment as the one before."""
        if self._by_time and moment and (tenth := int(float(moment) * 10)) > self._tenth:
            self._tenth = tenth
            if len(self._texts) > 1:
                self._over += self._texts.items()
                self._texts = {}
        if (found := self._texts.get(node)) is None:
            found = self._texts[node] = []
        return found

    def all(self) -> list[tuple[str, list[bytes]]]:
        return [*self._over, *self._texts.items()]


class JsonLines:
    """What an input says, as the text of a recording of one node, or as one of each node.

    ``node``: whose lines these are; "" until one is named. Lines of other nodes are left out and counted. A line that
    names no node is of the one that is read. ``every``: all nodes are read, and such a line is of the node "".
    """

    def __init__(self, node: str = "", every: bool = False) -> None:
        self.node = node
        self.left_out: dict[str, int] = {}  # lines by their nodes
        self._every = every
        self._own: dict[str, OwnFromFlows] = {}  # by node, of which there is none but "" where one is read
        self._whole: set[str] = set()  # nodes whose lines that were written last are whole
        self._known: set[str] = set()  # all nodes that were met
        self._named = ""  # the node whose lines follow in a recording,
        self._named_text: str | None = ""  # and the text that they go into
        self._newest = ""  # the text that got the newest object

    def recordings_in(self, block: bytes, by_time: bool = False) -> list[NodeText]:
        """``block``: whole lines; the last one of an input may lack its newline.

        Each node's lines keep their order; those of different nodes do only where it is sorted ``by_time``, to a tenth
        of a second. Changes of node for each line would cost more than the lines.
        """
        if not self._concern(block):
            return [NodeText(self._named if self._every else self.node, block)]
        texts = _Sorted(by_time)
        lines = block.split(b"\n")
        for line in lines:
            if line.lstrip()[:1] == b"{":
                self._take_object(line, texts)
            elif line:
                self._take_text(line, texts)
        cut_off = lines[-1]  # it must not look whole
        return [
            NodeText(
                node if self._every else self.node,
                b"\n".join(out) + (b"" if cut_off and out[-1] is cut_off else b"\n"),
            )
            for node, out in texts.all()
        ]

    def _concern(self, block: bytes) -> bool:
        """Has a block anything that a recording of one node has not? Asked of each block: 10 us for 256 KiB."""
        its = self._named_text
        return b"{" in block or b" node" in block or its is None or its in self._whole

    def _take_object(self, line: bytes, texts: _Sorted) -> None:
        try:
            item = _item_in(line.decode())
            if item.get("event") in _NO_FLOWS:
                return
            node, text = _node_in(item), line_of(item)
        except (ValueError, RecursionError, AttributeError):
            texts.of(self._near(line)).append(line)  # it is counted where all lines are that nobody understands
            return
        if (its := self._text_of(node or self._named)) is None:
            self._leave_out(node or self._named)
            return
        moment = text[1 : text.index(b"]")] if text[:1] == b"[" and b"]\t" in text[:24] else UNTIMED
        self._newest, out = its, texts.of(its, moment)
        if (learnt := self._own.get(its)) is None:
            learnt = self._own[its] = OwnFromFlows()
        own = learnt.learn(item)
        if own is not None:
            out.append(b"# %b own %b" % (moment, own))
        if item.get("inferred") is True and item["event"] == "destroy":
            out.append(b"# %b gone %b" % (moment, text))
            return
        if its not in self._whole:
            self._whole.add(its)
            out.append(WHOLE)
        out.append(text)

    def _take_text(self, line: bytes, texts: _Sorted) -> None:
        if line[:1] == b"#" and (match := _NODE_NAMED.fullmatch(line)):
            self._named = (match[1] or b"").decode("utf-8", "replace")[:LONGEST_NODE]
            self._named_text = self._text_of(self._named)
        elif (its := self._named_text) is None:
            if line[:2] != b"# ":
                self._leave_out(self._named)
        else:
            if not self._named:
                its = self._near(line)
            stamp = _LINE_TIME.match(line)
            out = texts.of(its, stamp[1] if stamp else b"")
            if its in self._whole:
                self._whole.discard(its)
                out.append(NOT_WHOLE)
            out.append(line)

    def _near(self, line: bytes) -> str:
        """The text that a line without a node goes into: what is no flow, and no directive, is of the one before."""
        return self._named_text or ("" if b"src=" in line or line[:2] == b"# " else self._newest)

    def _text_of(self, node: str) -> str | None:
        """The key of the text that its lines go into; None where they are left out."""
        if not self._every:
            self.node = self.node or node
            return "" if not node or node == self.node else None
        if node and node not in self._known:
            if len(self._known) >= MOST_NODES:
                return None
            self._known.add(node)
        return node

    def _leave_out(self, node: str) -> None:
        key = node if node in self.left_out or len(self.left_out) < MOST_NODES else OTHER_NODES
        self.left_out[key] = self.left_out.get(key, 0) + 1


def _node_in(item: Mapping[str, Any]) -> str:
    node = item.get("node", "")
    if not isinstance(node, str) or len(node) > LONGEST_NODE or "\n" in node:
        raise ValueError("not a node")
    return node
