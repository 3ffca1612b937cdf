"""Records, flows and groups as JSON lines and CSV rows.

The JSON is the contract of the documentation's "JSON" chapter: one object a line, keys whose value conntrack did not
give are left out, addresses as printed.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any

import addresses
from addresses import Context, Place
from flows import Flow, TapeEvent
from grouping import Grouping, group_object
from parse import Parts, Record, Tuple, kind_of, record, usual
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
    item.update(derived(flow, context))
    return item


def derived(flow: Flow, context: Context) -> JsonObject:
    """What conntrack does not print, but follows from both tuples, this host's addresses and the databases."""
    e = flow.ends()
    item: JsonObject = {}
    if e.nat:
        item["nat"] = e.nat
    if (way := addresses.direction(e, context.own)) is not None:
        item["direction"] = way
    address = context.remote_address(flow)
    where = context.where(address)
    known = {key: value for key, value in where._asdict().items() if value is not None}
    item["remote"] = {"ip": address, **known}
    return item


_encode = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps would make an encoder for every line


def json_line(item: JsonObject) -> str:
    """ASCII only, so that control characters of a program's name are escaped, C1 ones too."""
    return _encode(item) + "\n"


# --- usual lines ------------------------------------------------------------------------------------------------------


def json_event(row: Parts, flow: Flow, context: Context, event: str, time: str | None) -> str:
    """What json_line says of a row, with less CPU: 20,000 events a second share two cores with conntrack."""
    words = usual(row) if flow.plain else None
    if words is None:
        return json_line(json_object(record(row), flow, context, event, time))
    stamp, _, head, timeout, state, _, src, dst, sport, dport, _, _, _ = row
    packets, size, unreplied, reply_packets, reply_size, assured, mark, use, ident = words
    moment = stamp[1:-2].decode() or time
    source, target = f'"{src.decode()}"', f'"{dst.decode()}"'
    here, there = int(sport), int(dport)
    flags = '"UNREPLIED"' if unreplied else ""
    if assured:
        flags += ',"ASSURED"' if flags else '"ASSURED"'
    way = addresses.direction(flow.ends(), context.own) if context.own else None
    address = context.remote_address(flow)
    return "".join(
        (
            "{" if moment is None else f'{{"time":"{iso_time(moment)}",',
            f'"event":"{event}",{_kind_json(head, b":" in src)}',
            f',"state":"{state[:-1].decode()}"' if state else "",
            f',"timeout":{int(timeout)}' if timeout else "",
            f',"flags":[{flags}]' if flags else "",
            f',"original":{{"src":{source},"dst":{target},"sport":{here},"dport":{there}',
            f"{_counts_text(packets, size)}}}",
            f',"reply":{{"src":{target},"dst":{source},"sport":{there},"dport":{here}',
            f"{_counts_text(reply_packets, reply_size)}}}",
            f',"mark":{int(mark)}' if mark else "",
            f',"use":{int(use)}' if use else "",
            f',"id":{int(ident)}' if ident else "",
            f',"direction":"{way}"' if way else "",
            f',"remote":{{"ip":"{address}"{_place_json(context.where(address))}}}}}\n',
        )
    )


@lru_cache(maxsize=1024)
def _kind_json(head: bytes, is_ipv6: bool) -> str:
    kind = kind_of(head)
    family = kind.family or ("ipv6" if is_ipv6 else "ipv4")
    return _inside({"family": family, "protocol": kind.protocol, "protocol_number": kind.number})


def _counts_text(packets: bytes | None, size: bytes | None) -> str:
    return f',"packets":{int(packets)},"bytes":{int(size)}' if packets and size else ""


@lru_cache(maxsize=65_536)
def _place_json(place: Place) -> str:
    known = {key: value for key, value in place._asdict().items() if value is not None}
    return "," + _inside(known) if known else ""


def _inside(item: JsonObject) -> str:
    return _encode(item)[1:-1]


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


def csv_of(items: Sequence[JsonObject]) -> Iterator[str]:
    """CSV of objects without fixed columns: the keys of the first object, then those that later ones add."""
    columns = list(dict.fromkeys(key for item in items for key in item))
    if columns:
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


# --- rows of a view ---------------------------------------------------------------------------------------------------


def view_texts(
    grouping: Grouping | None, rows: Sequence[Any], format: str, context: Context, moment: str | None
) -> Iterator[str]:
    """Rows of a view as JSON lines or CSV. Flows and events are lines as in a stream, ended flows are `destroy`."""
    if grouping is not None:
        items = [group_object(row, grouping) for row in rows]
        yield from map(json_line, items) if format == "json" else csv_of(items)
        return
    if format == "csv":
        yield csv_header()
    line = json_line if format == "json" else csv_line
    for row in rows:
        if isinstance(row, TapeEvent):
            then = replace(row.flow.record(), state=row.state)
            yield line(json_object(then, row.flow, context, row.event, f"{row.at + context.epoch:.6f}"))
        elif row.ended is None:
            yield line(json_object(row.record(), row, context, "list", moment))
        else:
            ended = json_object(row.record(), row, context, "destroy", f"{row.ended + context.epoch:.6f}")
            yield line({**ended, "inferred": True} if row.inferred else ended)
