"""Records, flows and groups as JSON lines and CSV rows.

The JSON is the contract of the documentation's "JSON" chapter: one object a line, keys whose value conntrack did not
give are left out, addresses as printed.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

from addresses import Context, Ends, Place
from flows import LISTED_ONLY, Flow, TapeEvent
from grouping import NAMED_KEYS, Grouping, UsageRow, group_columns, group_object, usage_columns, usage_object
from parse import (
    ORIGINAL,
    USUAL_WORDS,
    Kind,
    Parts,
    Record,
    Tuple,
    Usual,
    cut_user,
    kind_of,
    record,
    shape_of,
    usual,
    usual_text,
    values_of,
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
    known = {key: value for key, value in zip(NAMED_KEYS["near"], found) if value}
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
    *("time", "event", "family", "protocol", "protocol_number", "state", "timeout", "flags"),
    *(f"original.{name}" for name in (*_TUPLE_COLUMNS, "zone_orig", "packets", "bytes")),
    *(f"reply.{name}" for name in (*_TUPLE_COLUMNS, "zone_reply", "packets", "bytes")),
    *("mark", "secmark", "zone", "secctx", "helper", "use", "id", "delta_time", "labels", "start", "stop"),
    *("userspace.portid", "userspace.progname", "nat", "direction"),
    *(f"near.{name}" for name in ("ip", *NAMED_KEYS["near"])),
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
_WORD_AT = {name: index for index, name in enumerate(USUAL_WORDS)}
_WITHOUT_REPLY, _REPLY_TURNED, _FLAG_WORD = (_WORD_AT[name] for name in ("unreplied", "turned", "flag"))
_REPLY_ID = _WORD_AT["reply_icmp_id"]
_NO_VALUES = (_WITHOUT_REPLY, _REPLY_TURNED, _FLAG_WORD)
_LISTED_WORDS = [
    index
    for index, name in enumerate(USUAL_WORDS)
    if name in LISTED_ONLY or name.removeprefix("reply_") in ("packets", "bytes")
]
_COPIED = CSV_COLUMNS[CSV_COLUMNS.index("original.src") : CSV_COLUMNS.index("userspace.portid")]
_USER_COLUMNS = ("userspace.portid", "userspace.progname")
_WAY = CSV_COLUMNS[CSV_COLUMNS.index("nat") : CSV_COLUMNS.index("near.ip")]
_NEAR = CSV_COLUMNS[CSV_COLUMNS.index("near.ip") : CSV_COLUMNS.index("remote.ip")]
_PLACE = CSV_COLUMNS[CSV_COLUMNS.index("remote.country") : CSV_COLUMNS.index("inferred")]
# Of a reply that is the original turned round: where its words are.
_IN_REPLY = {"src": "dst", "dst": "src", "sport": "dport", "dport": "sport"}


class Template(NamedTuple):
    """What lines that have the same words become.

    ``text`` has %b for each word that is copied, ``values`` takes these out of the line's values, and ``ends`` the two
    tuples: addresses and ports of the original, then of the reply; an ICMP id is a port of each. ``number``: of values.
    """

    text: bytes
    values: Callable[[Sequence[bytes]], tuple[bytes, ...]]
    ends: Callable[[Sequence[bytes]], tuple[bytes, ...]]
    number: int


class LineWriter:
    """Writes flows as JSON lines or as CSV rows.

    Usual lines take a fast way: the digits and addresses of conntrack's text go into a template as they are. What
    addresses add (NAT, direction, place) is remembered. All other lines take the slow way through ``json_object``.
    """

    def __init__(self, context: Context, format: str) -> None:
        """``format``: json or csv."""
        self._context = context
        self._json = format == "json"
        self._ways: dict[tuple[bool, bool, str | None], str] = {}
        self._remotes: dict[bytes, str] = {}  # by the remote address
        self._nears: dict[bytes, str] = {}  # by the near one
        self._places: dict[Place, str] = {}
        self._heads: dict[tuple[object, ...], str] = {}
        self._timeouts: dict[bytes, str] = {b"": ""}
        self._seconds: dict[bytes, str] = {}
        self._templates: dict[bytes, Template | None] = {}  # by shape; None: the line is not usual

    def forget_names(self) -> None:
        """Other names are known now: what was written of addresses is made anew."""
        self._remotes.clear()
        self._nears.clear()

    def of_row(self, row: Parts, flow: Flow, event: str, time: str | None) -> str:
        """A line of conntrack as a line of ours. ``flow``: what it is about; ``time``: as in ``json_object``."""
        stamp, _, head, digits, state = row[:ORIGINAL]
        text = usual_text(row)
        copied = self._copied(*self._cut_user(text))
        if not copied:
            return self.of_item(json_object(record(row), flow, self._context, event, time))
        key = event, head, state, b":" in row[ORIGINAL]
        before = self._heads.get(key) or self._head(key, kind_of(head), state[:-1].decode() or None)
        timeout = self._timeouts.get(digits)
        if timeout is None:
            timeout = self._timeout(int(digits), digits)
        return self._line(self._moment(stamp) if stamp else iso_time(time) if time else "", before, timeout, copied)

    def of_gone(self, flow: Flow, time: str | None) -> str:
        """A flow that is gone, as only a listing has shown."""
        text = self.of_flow(flow, "destroy", time)
        return f'{text[:-2]},"inferred":true}}\n' if self._json else f"{text[:-1]}true\n"

    def of_flow(self, flow: Flow, event: str, time: str | None) -> str:
        """A flow of the table, as it is known now."""
        listed = flow.progress.listed
        text, user = self._cut_user(flow.text)
        copied = self._copied(text, user) if listed is None else self._completed(text, flow.original + listed, user)
        if not copied:
            return self.of_item(json_object(flow.record(), flow, self._context, event, time))
        key = event, flow.kind, flow.state, b":" in flow.key
        before = self._heads.get(key) or self._head(key, flow.kind, flow.state)
        timeout = "" if flow.timeout is None else self._timeout(flow.timeout)
        return self._line(iso_time(time) if time else "", before, timeout, copied)

    def of_item(self, item: JsonObject) -> str:
        return json_line(item) if self._json else csv_line(item)

    def _line(self, time: str, head: str, timeout: str, copied: str) -> str:
        if not self._json:
            return f"{time},{head},{timeout},{copied}"
        return f'{{"time":"{time}",{head}{timeout}{copied}' if time else f"{{{head}{timeout}{copied}"

    def _cut_user(self, text: bytes) -> tuple[bytes, str | None]:
        """A line's text without who changed the flow, and what is written of that; None where the line says nothing."""
        if b" [USERSPACE]" not in text:
            return text, None
        text, portid, progname = cut_user(text)
        item = {"userspace": user_item(portid, progname)}
        if not self._json:
            return text, csv_row([_csv_cell(item, column) for column in _USER_COLUMNS]).rstrip("\n")
        return text, f",{_inside(item)}" if item["userspace"] else ""

    def _copied(self, text: bytes, user: str | None) -> str:
        """All from the original tuple on to the newline; "" where the line is not usual."""
        shape = shape_of(text)
        template = self._templates.get(shape)
        if template is None:
            if shape in self._templates:
                return ""
            words = usual(text)
            template = self._learn(shape, None if words is None else _template(words, self._json))
        values = values_of(text)
        if template is None or len(values) != template.number:
            return ""
        return self._filled(template, values, user)

    def _filled(self, template: Template, values: list[bytes], user: str | None) -> str:
        copied = (template.text % template.values(values)).decode()
        if user is not None:  # in CSV in place of two empty cells: a comma between them
            copied = copied + user if self._json else copied[:-1] + user
        return f"{copied},{self._after(template.ends(values))}"

    def _completed(self, newest: bytes, listed: bytes, user: str | None) -> str:
        """The newest text with what only the listing said, as ``Flow.record`` gives them; "" where one is not usual."""
        words, others = usual(newest), usual(listed)
        if words is None or others is None:
            return ""
        listed_only = {at: others[at] for at in _LISTED_WORDS if words[at] is None}
        words = tuple(listed_only.get(at, word) for at, word in enumerate(words))
        shape = bytes(map(bool, words)) + (words[_FLAG_WORD] or b"")
        template = self._templates.get(shape)
        if template is None:
            self._learn(shape, template := _template(words, self._json))
        values = [word for at, word in enumerate(words) if word is not None and at not in _NO_VALUES]
        return self._filled(template, values, user)

    def _learn(self, shape: bytes, template: Template | None) -> Template | None:
        """Remember what lines of this shape become."""
        if len(self._templates) > MAX_HEADS:
            self._templates.clear()
        self._templates[shape] = template
        return template

    def _timeout(self, seconds: int, digits: bytes | None = None) -> str:
        text = f',"timeout":{seconds}' if self._json else str(seconds)
        if digits is not None and len(self._timeouts) < MAX_HEADS:
            self._timeouts[digits] = text
        return text

    def _moment(self, stamp: bytes) -> str:
        """A line's stamp as ``iso_time`` gives it: thousands of lines share a second."""
        second, point, fraction = stamp[1:-9], stamp[-9:-8], stamp[-8:-2]
        known = self._seconds.get(second)
        if known and point == b".":
            return f"{known}{fraction.decode()}Z"
        text = iso_time(stamp[1:-2].decode())
        if point == b"." and text.endswith("Z"):
            self._seconds = {second: text[:-7]}
        return text

    def _head(self, key: tuple[object, ...], kind: Kind, state: str | None) -> str:
        """What stands before the timeout. ``key``: event, kind and state, and whether the addresses are of IPv6."""
        family = kind.family or ("ipv6" if key[-1] else "ipv4")
        item = {"event": key[0], "family": family, "protocol": kind.protocol, "protocol_number": kind.number}
        cells = list(map(str, (*item.values(), state or "")))
        text = _inside({**item, "state": state} if state else item) if self._json else csv_row(cells).rstrip("\n")
        if len(self._heads) > MAX_HEADS:
            self._heads.clear()
        self._heads[key] = text
        return text

    def _after(self, ends: tuple[bytes, ...]) -> str:
        """What stands behind the words of the line: NAT, direction, ends, and the newline. ``ends``: see Template."""
        src, dst, sport, dport, reply_src, reply_dst, reply_sport, reply_dport = ends
        way, remote, near = self._context.way_and_sides(src, dst, reply_src, reply_dst)
        key = reply_dst != src or reply_dport != sport, reply_src != dst or reply_sport != dport, way
        before = self._ways.get(key)
        if before is None:
            nat = ["snat"] * key[0] + ["dnat"] * key[1]
            before = self._ways[key] = self._text_of(way_item(nat, way), _WAY)
        after = self._remotes.get(remote) or self._remote(remote)
        who = self._nears.get(near)
        if who is None:
            who = self._near(near)
        if not self._json:
            return f"{before},{who},{after},\n"
        return f"{before},{who}{after}}}\n" if before else f"{who}{after}}}\n"

    def _near(self, end: bytes) -> str:
        """What ``near_item`` says; in JSON with its comma."""
        if len(self._nears) > MAX_ENDS:
            self._nears.clear()
        text = self._text_of(near_item(end.decode(), self._context), _NEAR)
        text = self._nears[end] = f"{text}," if text and self._json else text
        return text

    def _remote(self, end: bytes) -> str:
        """What ``remote_item`` says. There are fewer places than addresses."""
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
            text = f'"remote":{{"ip":"{address}"{named}{known}}}'
        else:
            text = f"{address},{csv_row([printable(name)])[:-1] if name else ''}{known}"
        self._remotes[end] = text
        return text

    def _text_of(self, item: JsonObject, columns: Sequence[str]) -> str:
        return _inside(item) if self._json else csv_row([_csv_cell(item, column) for column in columns]).rstrip("\n")


def _copied_words(words: Usual) -> dict[str, int]:
    """By the name of the CSV column: the index of the word that is copied there."""
    places: dict[str, int] = {}
    for column in _COPIED:
        side, _, key = column.rpartition(".")
        name = key if side != "reply" or key.startswith("zone") else f"reply_{key}"
        if side == "reply" and words[_REPLY_TURNED]:
            name = _IN_REPLY.get(key, name)
        at = _WORD_AT.get(name)
        if at is not None and words[at] is not None:
            places[column] = at
    return places


def _flags_of(words: Usual) -> list[str]:
    return [flag.decode() for flag in (words[_WITHOUT_REPLY], words[_FLAG_WORD]) if flag]


def _template(words: Usual, as_json: bool) -> Template:
    places = _copied_words(words)
    text = _json_text(words, places) if as_json else _csv_text(words, places)
    given = [at for at, word in enumerate(words) if word is not None and at not in _NO_VALUES]
    rank = {at: number for number, at in enumerate(given)}
    has_ports = words[_WORD_AT["sport"]] is not None
    there = [rank[_WORD_AT[name]] for name in ("src", "dst", *(("sport", "dport") if has_ports else ("icmp_id",) * 2))]
    if words[_REPLY_TURNED]:
        back = [there[1], there[0], there[3], there[2]]
    elif has_ports:
        back = [rank[_WORD_AT[f"reply_{name}"]] for name in ("src", "dst", "sport", "dport")]
    else:  # NAT changes the id as it changes a source port
        back = [*(rank[_WORD_AT[f"reply_{name}"]] for name in ("src", "dst")), there[3], rank[_REPLY_ID]]
    values = itemgetter(*(rank[at] for at in places.values()))
    return Template(text, values, itemgetter(*there, *back), len(given))


def _json_text(words: Usual, places: dict[str, int]) -> bytes:
    text = "".join([f',"flags":{_encode(flags)}' for flags in [_flags_of(words)] if flags])
    for side in ("original", "reply"):
        keys = [column.partition(".")[2] for column in places if column.startswith(f"{side}.")]
        members = ",".join(f'"{key}":"%b"' if key in ("src", "dst") else f'"{key}":%b' for key in keys)
        text += f',"{side}":{{{members}}}'
    return (text + "".join(f',"{column}":%b' for column in places if "." not in column)).encode()


def _csv_text(words: Usual, places: dict[str, int]) -> bytes:
    cells = [",".join(_flags_of(words)), *("%b" if column in places else "" for column in _COPIED), "", ""]
    return csv_row(cells).rstrip("\n").encode()


def _inside(item: JsonObject) -> str:
    return _encode(item)[1:-1]


# --- rows of a view ---------------------------------------------------------------------------------------------------


def view_texts(
    grouping: Grouping | None, rows: Sequence[Any], format: str, context: Context, moment: str | None
) -> Iterator[str]:
    """Rows of a view as JSON lines or CSV. Flows and events are lines as in a stream, ended flows are `destroy`."""
    if grouping is not None:
        items = [group_object(row, grouping, context.who(row.key)) for row in rows]
        yield from map(json_line, items) if format == "json" else csv_of(items, group_columns(grouping))
        return
    if format == "csv":
        yield csv_header()
    writer = LineWriter(context, format)
    for row in rows:
        if isinstance(row, TapeEvent):
            then = replace(row.flow.record(), state=row.state)
            yield writer.of_item(json_object(then, row.flow, context, row.event, f"{row.at + context.epoch:.6f}"))
        elif row.ended is None:
            yield writer.of_flow(row, "list", moment)
        elif row.inferred:
            yield writer.of_gone(row, f"{row.ended + context.epoch:.6f}")
        else:
            yield writer.of_flow(row, "destroy", f"{row.ended + context.epoch:.6f}")


def usage_texts(sort: str, rows: Sequence[UsageRow], per_day: bool, format: str) -> Iterator[str]:
    """Rows of usage as JSON lines or CSV."""
    items = [usage_object(row, sort, per_day) for row in rows]
    yield from map(json_line, items) if format == "json" else csv_of(items, usage_columns(sort))
