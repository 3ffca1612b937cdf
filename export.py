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

import addresses
from addresses import Context, Ends
from flows import LISTED_ONLY, Flow, TapeEvent
from grouping import Grouping, group_columns, group_object
from parse import ORIGINAL, USUAL_WORDS, Kind, Parts, Record, Tuple, Usual, kind_of, record, usual, usual_text
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
        user = {"portid": record.portid, "progname": record.progname}
        item["userspace"] = {key: value for key, value in user.items() if value is not None}
    item.update(derived(flow.ends(), context))
    return item


def derived(ends: Ends, context: Context) -> JsonObject:
    """What conntrack does not print, but follows from both tuples, this host's addresses and the databases."""
    item: JsonObject = {}
    if ends.nat:
        item["nat"] = ends.nat
    if (way := addresses.direction(ends, context.own)) is not None:
        item["direction"] = way
    address = context.remote_end(ends)
    where = context.where(address)
    known = {key: value for key, value in where._asdict().items() if value is not None}
    item["remote"] = {"ip": address, **known}
    return item


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
    *(f"remote.{name}" for name in ("ip", "country", "country_name", "city", "asn", "org")),
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

MAX_ENDS = 65_536  # pairs of addresses whose text is remembered
MAX_HEADS = 4096  # kinds and states: real input has some dozens
_WORD_AT = {name: index for index, name in enumerate(USUAL_WORDS)}
_WITHOUT_REPLY, _REPLY_TURNED, _FLAG_WORD = (_WORD_AT[name] for name in ("unreplied", "turned", "flag"))
_REPLY_SRC, _REPLY_ID = _WORD_AT["reply_src"], _WORD_AT["reply_icmp_id"]
_LISTED_WORDS = [
    index
    for index, name in enumerate(USUAL_WORDS)
    if name in LISTED_ONLY or name.removeprefix("reply_") in ("packets", "bytes")
]
_COPIED = CSV_COLUMNS[CSV_COLUMNS.index("original.src") : CSV_COLUMNS.index("userspace.portid")]
_DERIVED = CSV_COLUMNS[CSV_COLUMNS.index("nat") :]
# Of a reply that is the original turned round: where its words are.
_IN_REPLY = {"src": "dst", "dst": "src", "sport": "dport", "dport": "sport"}


class Template(NamedTuple):
    """The text of all lines that have the same words, with %b for each word, and what takes these out of the words."""

    text: bytes
    values: Callable[[Usual], tuple[bytes, ...]]


class LineWriter:
    """Writes flows as JSON lines or as CSV rows.

    Usual lines take a fast way: the digits and addresses of conntrack's text go into a template as they are. What
    addresses add (NAT, direction, place) is remembered. All other lines take the slow way through ``json_object``.
    """

    def __init__(self, context: Context, format: str) -> None:
        """``format``: json or csv."""
        self._context = context
        self._json = format == "json"
        self._own = context.own
        self._ends: dict[tuple[object, ...], str] = {}
        self._heads: dict[tuple[object, ...], str] = {}
        self._templates: dict[tuple[bytes, bytes | None], Template] = {}

    def of_row(self, row: Parts, flow: Flow, event: str, time: str | None) -> str:
        """A line of conntrack as a line of ours. ``flow``: what it is about; ``time``: as in ``json_object``."""
        words = usual(usual_text(row))
        if words is None:
            return self.of_item(json_object(record(row), flow, self._context, event, time))
        stamp, _, head, timeout, state = row[:ORIGINAL]
        key = event, head, state, b":" in row[ORIGINAL]
        before = self._heads.get(key) or self._head(key, kind_of(head), state[:-1].decode() or None)
        return self._line(words, stamp[1:-2].decode() or time, before, str(int(timeout)) if timeout else "")

    def of_gone(self, flow: Flow, time: str | None) -> str:
        """A flow that is gone, as only a listing has shown."""
        text = self.of_flow(flow, "destroy", time)
        return f'{text[:-2]},"inferred":true}}\n' if self._json else f"{text[:-1]}true\n"

    def of_flow(self, flow: Flow, event: str, time: str | None) -> str:
        """A flow of the table, as it is known now."""
        words = usual(flow.text)
        if words is not None and flow.progress.listed is not None:
            words = _completed_words(words, usual(flow.original + flow.progress.listed))
        if words is None:
            return self.of_item(json_object(flow.record(), flow, self._context, event, time))
        key = event, flow.kind, flow.state, b":" in flow.key
        before = self._heads.get(key) or self._head(key, flow.kind, flow.state)
        return self._line(words, time, before, "" if flow.timeout is None else str(flow.timeout))

    def of_item(self, item: JsonObject) -> str:
        return json_line(item) if self._json else csv_line(item)

    def _line(self, words: Usual, moment: str | None, head: str, timeout: str) -> str:
        shape = bytes(map(bool, words)), words[_FLAG_WORD]
        template = self._templates.get(shape)
        if template is None:
            template = self._templates[shape] = _json_template(words) if self._json else _csv_template(words)
        copied = (template.text % template.values(words)).decode()
        time = iso_time(moment) if moment else ""
        if not self._json:
            return f"{time},{head},{timeout},{copied},{self._after(words)}"
        time = f'"time":"{time}",' if time else ""
        if timeout:
            timeout = f',"timeout":{timeout}'
        return f"{{{time}{head}{timeout}{copied},{self._after(words)}"

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

    def _after(self, words: Usual) -> str:
        """What stands behind the words of the line: NAT, direction, place, and the newline."""
        if self._context.own is not self._own or len(self._ends) > MAX_ENDS:
            self._own = self._context.own
            self._ends.clear()
        src, dst, sport, dport, _, _, icmp_id = words[:7]
        key: tuple[object, ...]
        if words[_REPLY_TURNED]:
            key = src, dst
        else:
            reply_src, reply_dst, reply_sport, reply_dport = words[_REPLY_SRC : _REPLY_SRC + 4]
            key = (
                src,
                dst,
                reply_src,
                reply_dst,
                reply_dport != sport or words[_REPLY_ID] != icmp_id,
                reply_sport != dport,
            )
        known = self._ends.get(key)
        if known is None:
            known = self._ends[key] = self._after_of(_ends_of(words))
        return known

    def _after_of(self, ends: Ends) -> str:
        item = derived(ends, self._context)
        return f"{_inside(item)}}}\n" if self._json else csv_row([_csv_cell(item, column) for column in _DERIVED])


def _completed_words(newest: Usual, listed: Usual | None) -> Usual | None:
    """The newest words with what only the listing said, as ``Flow.record`` gives them."""
    if listed is None:
        return None
    words = list(newest)
    for at in _LISTED_WORDS:
        if words[at] is None:
            words[at] = listed[at]
    return tuple(words)


def _ends_of(words: Usual) -> Ends:
    """As ``Flow.ends`` gives them."""
    src, dst, sport, dport, _, _, icmp_id = (word.decode() if word else "" for word in words[:7])
    there, here, back, to, _, _, reply_id = (
        word.decode() if word else "" for word in words[_REPLY_SRC : _REPLY_ID + 1]
    )
    if words[_REPLY_TURNED]:
        there, here, back, to = dst, src, dport, sport
    if icmp_id:
        return Ends(src, dst, int(icmp_id), None, there, here, None, int(reply_id))
    return Ends(src, dst, int(sport), int(dport), there, here, int(back), int(to))


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


def _json_template(words: Usual) -> Template:
    places = _copied_words(words)
    text = "".join([f',"flags":{_encode(flags)}' for flags in [_flags_of(words)] if flags])
    for side in ("original", "reply"):
        keys = [column.partition(".")[2] for column in places if column.startswith(f"{side}.")]
        members = ",".join(f'"{key}":"%b"' if key in ("src", "dst") else f'"{key}":%b' for key in keys)
        text += f',"{side}":{{{members}}}'
    text += "".join(f',"{column}":%b' for column in places if "." not in column)
    return Template(text.encode(), itemgetter(*places.values()))


def _csv_template(words: Usual) -> Template:
    places = _copied_words(words)
    cells = [",".join(_flags_of(words)), *("%b" if column in places else "" for column in _COPIED), "", ""]
    return Template(csv_row(cells).rstrip("\n").encode(), itemgetter(*places.values()))


def _inside(item: JsonObject) -> str:
    return _encode(item)[1:-1]


# --- rows of a view ---------------------------------------------------------------------------------------------------


def view_texts(
    grouping: Grouping | None, rows: Sequence[Any], format: str, context: Context, moment: str | None
) -> Iterator[str]:
    """Rows of a view as JSON lines or CSV. Flows and events are lines as in a stream, ended flows are `destroy`."""
    if grouping is not None:
        items = [group_object(row, grouping) for row in rows]
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
