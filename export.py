"""Records, flows and groups as JSON lines and CSV rows.

The JSON is the contract of the documentation's "JSON" chapter: one object a line, keys whose value conntrack did not
give are left out, addresses as printed.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

from addresses import Context, Ends, Place
from flows import LISTED_ONLY, Flow, TapeEvent
from grouping import WHO_KEYS, Grouping, UsageRow, group_columns, group_object, usage_columns, usage_object
from parse import (
    USUAL_WORDS,
    Kind,
    Parts,
    Record,
    Tuple,
    cut_user,
    has_leading_zero,
    kind_of,
    record,
    shape_of,
    usual,
    usual_line,
    usual_places,
    words_of,
)
from text import printable

JsonObject = dict[str, Any]


def iso_time(seconds: str) -> str:
    """Seconds since 1970 (as text: a float would lose the microseconds) -> "2026-11-22T22:24:11.601847Z".

    >>> iso_time("1795386413.786793")
    '2026-11-22T22:26:53.786793Z'
    """
    second, _, fraction = seconds.partition(".")
    moment = _second(second)
    return f"{moment}.{fraction[:6]:0<6}Z" if moment else seconds


@lru_cache(maxsize=64)  # 20,000 events share a second
def _second(second: str) -> str:
    try:
        return f"{datetime.fromtimestamp(int(second), timezone.utc):%Y-%m-%dT%H:%M:%S}"
    except (ValueError, OverflowError, OSError):  # year 10000 and later
        return ""


def tuple_item(side: Tuple, zone_key: str) -> JsonObject:
    """One direction, without what was not printed."""
    item: JsonObject = {"src": side.src, "dst": side.dst}
    for key in ("sport", "dport", "type", "code", "icmp_id", "srckey", "dstkey"):
        if (value := getattr(side, key)) is not None:
            item[key] = value
    if side.zone is not None:
        item[zone_key] = side.zone
    if side.packets is not None:
        item["packets"] = side.packets
    if side.bytes is not None:
        item["bytes"] = side.bytes
    return item


def json_object(record: Record, flow: Flow, context: Context, event: str, time: str | None) -> JsonObject:
    """The JSON object of a record. ``time``: seconds since 1970, used where the record has no stamp of its own."""
    item: JsonObject = {}
    moment = record.stamp or time
    if moment is not None:
        item["time"] = iso_time(moment)
    item["event"] = event
    item["family"] = record.family
    item["protocol"] = record.kind.protocol
    item["protocol_number"] = record.kind.number
    if record.state is not None:
        item["state"] = record.state
    if record.timeout is not None:
        item["timeout"] = record.timeout
    if record.flags:
        item["flags"] = record.flags
    item["original"] = tuple_item(record.original, "zone_orig")
    item["reply"] = tuple_item(record.reply, "zone_reply")
    for key in ("mark", "secmark", "zone", "secctx", "helper", "use", "id", "delta_time", "labels", "start", "stop"):
        if (value := getattr(record, key)) is not None:
            item[key] = value
    if record.portid is not None or record.progname is not None:
        item["userspace"] = user_item(record.portid, record.progname)
    item.update(derived(flow.ends(), context))
    return item


def node_item(node: str) -> JsonObject:
    """The key that says whose flow it is; none where nobody knows."""
    return {"node": node} if node else {}


def user_item(portid: int | None, progname: str | None) -> JsonObject:
    """Who changed a flow, as far as it is known."""
    return {key: value for key, value in (("portid", portid), ("progname", progname)) if value is not None}


def derived(ends: Ends, context: Context) -> JsonObject:
    """What conntrack does not print, but follows from both tuples, this host's addresses and the databases."""
    way = context.direction(ends)
    near, remote, _ = context.sides_of_ends(ends)
    return way_item(ends.nat, way) | near_item(near, context) | remote_item(remote, context)


def way_item(nat: list[str], way: str | None) -> JsonObject:
    """The keys that say what this host does with a flow."""
    return ({"nat": nat} if nat else {}) | ({"direction": way} if way is not None else {})


def near_item(address: str, context: Context) -> JsonObject:
    """The key that says who has the near end; none where nobody knows."""
    found = context.who(address)
    known = {key: value for key, value in zip(WHO_KEYS["near"], found) if value}
    return {"near": {"ip": address, **known}} if known else {}


def remote_item(address: str, context: Context) -> JsonObject:
    """The key that says where the remote end is, and its name where the site has one for it."""
    known = {key: value for key, value in context.where(address)._asdict().items() if value is not None}
    return {"remote": {"ip": address} | ({"name": name} if (name := context.who(address).label) else {}) | known}


_encode = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps would make an encoder for every line


def json_line(item: JsonObject) -> str:
    """ASCII only, so that control characters of a program's name are escaped, C1 ones too."""
    return _encode(item) + "\n"


# --- CSV --------------------------------------------------------------------------------------------------------------

_TUPLE_COLUMNS = ("src", "dst", "sport", "dport", "type", "code", "icmp_id", "srckey", "dstkey")
CSV_COLUMNS = (
    *("node", "time", "event", "family", "protocol", "protocol_number", "state", "timeout", "flags"),
    *(f"original.{name}" for name in (*_TUPLE_COLUMNS, "zone_orig", "packets", "bytes")),
    *(f"reply.{name}" for name in (*_TUPLE_COLUMNS, "zone_reply", "packets", "bytes")),
    *("mark", "secmark", "zone", "secctx", "helper", "use", "id", "delta_time", "labels", "start", "stop"),
    *("userspace.portid", "userspace.progname", "nat", "direction"),
    *(f"near.{name}" for name in ("ip", *WHO_KEYS["near"])),
    *(f"remote.{name}" for name in ("ip", "name", "country", "country_name", "city", "asn", "org")),
    "inferred",
)


def csv_header() -> str:
    return csv_row(CSV_COLUMNS)


def csv_line(item: JsonObject) -> str:
    return csv_row([_csv_cell(item, column) for column in CSV_COLUMNS])


def csv_of(items: Sequence[JsonObject], columns: Sequence[str]) -> Iterator[str]:
    """CSV of objects with these columns, whether any has them or not: what is unknown is an empty cell."""
    yield csv_row(columns)
    for item in items:
        yield csv_row([_csv_cell(item, column) for column in columns])


def csv_row(cells: Sequence[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue()


def _csv_cell(item: JsonObject, column: str) -> str:
    outer, _, inner = column.partition(".")
    value = item.get(outer)
    if inner:
        value = value.get(inner) if isinstance(value, dict) else None
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return printable(",".join(map(str, value)))
    return printable(value) if isinstance(value, str) else str(value)


# --- usual lines ------------------------------------------------------------------------------------------------------

MAX_ENDS = 65_536  # addresses and places whose text is remembered
MAX_HEADS = 4096  # kinds and states: real input has some dozens
# What a line of a listing says and an event does not.
_LISTED_WORDS = {*LISTED_ONLY, "packets", "bytes", "reply_packets", "reply_bytes"}
_COPIED = CSV_COLUMNS[CSV_COLUMNS.index("original.src") : CSV_COLUMNS.index("userspace.portid")]
_USER_COLUMNS = ("userspace.portid", "userspace.progname")
_WAY = CSV_COLUMNS[CSV_COLUMNS.index("nat") : CSV_COLUMNS.index("near.ip")]
_NEAR = CSV_COLUMNS[CSV_COLUMNS.index("near.ip") : CSV_COLUMNS.index("remote.ip")]
_PLACE = CSV_COLUMNS[CSV_COLUMNS.index("remote.country") : CSV_COLUMNS.index("inferred")]


class Template(NamedTuple):
    """What lines that have the same words become.

    ``text`` has a %b for each of ``values``, which are taken out of (time, timeout, user, the line's words as
    ``parse.words_of`` gives them). ``ends``: out of the same, addresses and ports of the original tuple, then of the
    reply; an ICMP id is a port of each.
    """

    text: bytes
    values: Callable[[Sequence[bytes]], tuple[bytes, ...]]
    ends: Callable[[Sequence[bytes]], tuple[bytes, ...]]


_UNKNOWN = Template(b"", tuple, tuple)  # no line like it has been seen yet


class LineWriter:
    """Writes flows as JSON lines or as CSV rows.

    Usual lines take a fast way: the digits and addresses of conntrack's text go into a template as they are. What
    addresses add (NAT, direction, place) is remembered. All other lines take the slow way through ``json_object``.
    """

    def __init__(self, context: Context, format: str) -> None:
        """``format``: json or csv."""
        self._context = context
        self._json = format == "json"
        self._node, self._node_text = "", b"" if self._json else b","
        self._ways: dict[tuple[bool, bool, str | None], bytes] = {}
        self._remotes: dict[bytes, bytes] = {}  # by the remote address
        self._nears: dict[bytes, bytes] = {}  # by the near one
        self._places: dict[Place, str] = {}
        self._timeouts: dict[bytes, bytes] = {b"": b""}
        self._seconds: dict[bytes, bytes] = {}
        self._last_time = "", b""
        self._templates: dict[Hashable, Template | None] = {}  # None: the line is not usual
        self._no_user = b"" if self._json else b","  # CSV has two empty cells

    def know_node(self, node: str) -> None:
        """Whose flows these are: it comes first in each line; "" where nobody knows."""
        text = csv_row([printable(node)])[:-1] + "," if node else ","
        self._node, self._node_text = node, text.encode("utf-8", "replace")
        if self._json:
            self._node_text = f"{_inside(node_item(node))},".encode() if node else b""
        self._last_time, self._seconds = ("", b""), {}

    def forget_names(self) -> None:
        """Other names are known now: what was written of addresses is made anew."""
        self._remotes.clear()
        self._nears.clear()

    def of_row(self, row: Parts, flow: Flow, event: str, time: str | None) -> str:
        """A line of conntrack as a line of ours. ``flow``: what it is about; ``time``: as in ``json_object``."""
        stamp, _, head, digits, state, original, _, _, _, _, before, turned, after = row
        text, user = original + before + turned + after, self._no_user
        if b" [USERSPACE]" in text:
            text, user = self._cut_user(text)
        key = event, b":" in original, head + state + shape_of(text)
        template = self._templates.get(key, _UNKNOWN)
        if template is _UNKNOWN:
            template = self._learn(key, text, event, kind_of(head), state[:-1].decode() or None)
        if template is None or has_leading_zero(text):
            return self.of_item(json_object(record(row), flow, self._context, event, time))
        moment = self._moment(stamp) if stamp else self._time(time)
        timeout = self._timeouts.get(digits)
        if timeout is None:
            timeout = self._timeout(int(digits), digits)
        return self._filled(template, (moment, timeout, user, *words_of(text)))

    def of_gone(self, flow: Flow, time: str | None) -> str:
        """A flow that is gone, as only a listing has shown."""
        text = self.of_flow(flow, "destroy", time)
        return f'{text[:-2]},"inferred":true}}\n' if self._json else f"{text[:-1]}true\n"

    def of_flow(self, flow: Flow, event: str, time: str | None) -> str:
        """A flow of the table, as it is known now."""
        text, user = flow.text, self._no_user
        if b" [USERSPACE]" in text:
            text, user = self._cut_user(text)
        if flow.progress.listed is not None:
            text = _with_listed(text, flow.original + flow.progress.listed)
        key = event, flow.group, b":" in flow.key, shape_of(text)
        template = self._templates.get(key, _UNKNOWN)
        if template is _UNKNOWN:
            template = self._learn(key, text, event, flow.kind, flow.state)
        if template is None or has_leading_zero(text):
            return self.of_item(json_object(flow.record(), flow, self._context, event, time))
        timeout = b"" if flow.timeout is None else self._timeout(flow.timeout)
        return self._filled(template, (self._time(time), timeout, user, *words_of(text)))

    def of_item(self, item: JsonObject) -> str:
        item = node_item(self._node) | item
        return json_line(item) if self._json else csv_line(item)

    def _cut_user(self, text: bytes) -> tuple[bytes, bytes]:
        """A line's text without who changed the flow, and what is written of that."""
        text, portid, progname = cut_user(text)
        item = {"userspace": user_item(portid, progname)}
        if not self._json:
            cells = [_csv_cell(item, column) for column in _USER_COLUMNS]
            return text, csv_row(cells).rstrip("\n").encode("utf-8", "replace")
        return text, f",{_inside(item)}".encode() if item["userspace"] else b""

    def _learn(self, key: Hashable, text: bytes, event: str, kind: Kind, state: str | None) -> Template | None:
        """Remember what lines like this one become."""
        if len(self._templates) > MAX_HEADS:
            self._templates.clear()
        found = usual_places(text)
        if found is None:
            self._templates[key] = None
            return None
        places, flags = found
        head = self._head(event, kind.family or ("ipv6" if b":" in text else "ipv4"), kind, state)
        template = self._templates[key] = _template(head, places, [flag.decode() for flag in flags], self._json)
        return template

    def _filled(self, template: Template, words: Sequence[bytes]) -> str:
        """The template with these words, and behind them NAT, direction, both ends, and the newline."""
        src, dst, sport, dport, reply_src, reply_dst, reply_sport, reply_dport = template.ends(words)
        way, near, remote = self._context.known.way_and_sides(src, dst, reply_src, reply_dst)
        key = reply_dst != src or reply_dport != sport, reply_src != dst or reply_sport != dport, way
        before = self._ways.get(key)
        if before is None:
            nat = ["snat"] * key[0] + ["dnat"] * key[1]
            text = self._text_of(way_item(nat, way), _WAY)
            before = self._ways[key] = f",{text}".encode() if text else b""
        if (who := self._nears.get(near)) is None:
            who = self._near(near)
        after = self._remotes.get(remote) or self._remote(remote)
        return (template.text % template.values(words) + before + who + after).decode()

    def _timeout(self, seconds: int, digits: bytes | None = None) -> bytes:
        text = b',"timeout":%d' % seconds if self._json else b"%d" % seconds
        if digits is not None and len(self._timeouts) < MAX_HEADS:
            self._timeouts[digits] = text
        return text

    def _time(self, time: str | None) -> bytes:
        """The node and the time, with which each line begins."""
        if not time:
            return self._node_text
        last, text = self._last_time  # all rows of a table share one
        if last != time:
            text = self._node_text + self._time_text(time)
            self._last_time = time, text
        return text

    def _time_text(self, time: str) -> bytes:
        return (f'"time":"{iso_time(time)}",' if self._json else iso_time(time)).encode()

    def _moment(self, stamp: bytes) -> bytes:
        """A line's stamp as ``_time`` gives it: thousands of lines share a second."""
        second, fraction = stamp[1:-9], stamp[-8:-2]
        known = self._seconds.get(second)
        if known and stamp[-9:-8] == b".":
            return known % fraction
        text = self._time_text(stamp[1:-2].decode())
        if stamp[-9:-8] == b"." and fraction + b"Z" in text:
            before = self._node_text.replace(b"%", b"%%")
            self._seconds = {second: before + text.replace(fraction + b"Z", b"%bZ")}
        return self._node_text + text

    def _head(self, event: str, family: str, kind: Kind, state: str | None) -> bytes:
        """What stands before the timeout, for a template."""
        item = {"event": event, "family": family, "protocol": kind.protocol, "protocol_number": kind.number}
        if self._json:
            text = _inside({**item, "state": state} if state else item)
        else:
            text = csv_row(list(map(str, (*item.values(), state or "")))).rstrip("\n")
        return text.replace("%", "%%").encode("utf-8", "replace")

    def _near(self, end: bytes) -> bytes:
        """What ``near_item`` says."""
        if len(self._nears) > MAX_ENDS:
            self._nears.clear()
        text = self._text_of(near_item(end.decode(), self._context), _NEAR)
        who = self._nears[end] = f",{text}".encode("utf-8", "replace") if text else b""
        return who

    def _remote(self, end: bytes) -> bytes:
        """What ``remote_item`` says, and the line's end. There are fewer places than addresses."""
        address = end.decode()
        place = self._context.where(address)
        known = self._places.get(place)
        if known is None:
            if len(self._places) > MAX_ENDS:
                self._places.clear()
            item = remote_item(address, self._context)
            for key in ("ip", "name"):
                item["remote"].pop(key, None)
            text = _inside(item["remote"]) if self._json else self._text_of(item, _PLACE)
            known = self._places[place] = f",{text}" if text else ""
        if len(self._remotes) > MAX_ENDS:
            self._remotes.clear()
        name = self._context.who(address).label
        if self._json:
            named = f",{_inside({'name': name})}" if name else ""
            text = f',"remote":{{"ip":"{address}"{named}{known}}}}}\n'
        else:
            text = f",{address},{csv_row([printable(name)])[:-1] if name else ''}{known},\n"
        line_end = self._remotes[end] = text.encode("utf-8", "replace")
        return line_end

    def _text_of(self, item: JsonObject, columns: Sequence[str]) -> str:
        return _inside(item) if self._json else csv_row([_csv_cell(item, column) for column in columns]).rstrip("\n")


# What a template takes its values from: these three, and then the line's own words.
_MOMENT, _TIMEOUT, _USER_TEXT, _FIRST_WORD = range(4)


def _template(head: bytes, places: Mapping[str, int], flags: Sequence[str], as_json: bool) -> Template:
    """``head``: what stands before the timeout. ``places``: as ``parse.usual_places`` gives them."""
    by_column = {column: _FIRST_WORD + places[name] for column, name in _WORD_OF.items() if name in places}
    text = (_json_text if as_json else _csv_text)(head, list(by_column), flags)
    ports = ["sport", "dport"] if "sport" in places else ["icmp_id", "icmp_id"]
    ends = [by_column[f"{side}.{name}"] for side in ("original", "reply") for name in ("src", "dst", *ports)]
    if "icmp_id" in ports:
        ends[6] = ends[3]  # NAT changes the id as it changes a source port
    return Template(text, itemgetter(_MOMENT, _TIMEOUT, *by_column.values(), _USER_TEXT), itemgetter(*ends))


def _word_of(column: str) -> str:
    """The name in USUAL_WORDS of what a column copies."""
    side, _, key = column.rpartition(".")
    return key if side != "reply" or key.startswith("zone") else f"reply_{key}"


_WORD_OF = {column: _word_of(column) for column in _COPIED}


def _json_text(head: bytes, columns: Sequence[str], flags: Sequence[str]) -> bytes:
    text = f',"flags":{_encode(flags)}' if flags else ""
    for side in ("original", "reply"):
        keys = [column.partition(".")[2] for column in columns if column.startswith(f"{side}.")]
        members = ",".join(f'"{key}":"%b"' if key in ("src", "dst") else f'"{key}":%b' for key in keys)
        text += f',"{side}":{{{members}}}'
    text += "".join(f',"{column}":%b' for column in columns if "." not in column)
    return b"{%b" + head + b"%b" + text.encode() + b"%b"


def _csv_text(head: bytes, columns: Sequence[str], flags: Sequence[str]) -> bytes:
    cells = [",".join(flags), *("%b" if column in columns else "" for column in _COPIED)]
    return b"%b," + head + b",%b," + csv_row(cells).rstrip("\n").encode() + b",%b"


def _with_listed(newest: bytes, listed: bytes) -> bytes:
    """The newest text with what only the listing said, as ``Flow.record`` gives them; b"" where one is not usual."""
    words, others = usual(newest), usual(listed)
    if words is None or others is None:
        return b""
    pairs = zip(USUAL_WORDS, words, others, strict=True)
    return usual_line(tuple(other if word is None and name in _LISTED_WORDS else word for name, word, other in pairs))


def _inside(item: JsonObject) -> str:
    return _encode(item)[1:-1]


# --- rows of a view ---------------------------------------------------------------------------------------------------


def view_texts(
    grouping: Grouping | None, rows: Sequence[Any], format: str, context: Context, moment: str | None, node: str = ""
) -> Iterator[str]:
    """Rows of a view as JSON lines or CSV. Flows and events are lines as in a stream, ended flows are `destroy`.

    ``node``: whose flows are added up; "" of several.
    """
    if grouping is not None:
        items = [node_item(node) | group_object(row, grouping, context.who(row.key)) for row in rows]
        columns = group_columns(grouping)
        columns = columns if grouping.is_of_nodes else ["node", *columns]
        yield from map(json_line, items) if format == "json" else csv_of(items, columns)
        return
    if format == "csv":
        yield csv_header()
    writers: dict[str, LineWriter] = {}
    for row in rows:
        flow = row.flow if isinstance(row, TapeEvent) else row
        writer, its = writers.get(flow.node), context.of(flow)
        if writer is None:
            writer = writers[flow.node] = LineWriter(its, format)
            writer.know_node(flow.node)
        if isinstance(row, TapeEvent):
            then = replace(flow.record(), state=row.state)
            yield writer.of_item(json_object(then, flow, its, row.event, f"{row.at + its.epoch:.6f}"))
        elif row.ended is None:
            yield writer.of_flow(row, "list", moment)
        elif row.inferred:
            yield writer.of_gone(row, f"{row.ended + its.epoch:.6f}")
        else:
            yield writer.of_flow(row, "destroy", f"{row.ended + its.epoch:.6f}")


def usage_texts(sort: str, rows: Sequence[UsageRow], per_day: bool, format: str) -> Iterator[str]:
    """Rows of usage as JSON lines or CSV."""
    items = [usage_object(row, sort, per_day) for row in rows]
    yield from map(json_line, items) if format == "json" else csv_of(items, usage_columns(sort))
