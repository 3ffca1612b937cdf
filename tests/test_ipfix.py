"""The encoder of IPFIX: what goes in comes out of a decoder that was written from the RFC, and of other people's."""

from __future__ import annotations

import struct
import zlib
from collections import deque
from collections.abc import Sequence
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netflow.ipfix import IPFIXDataTypes, IPFIXExportPacket, IPFIXFieldTypes

import ipfix
from ipfix import FlowReport, IpfixMessage, MessageStream, Records, RecordSet, TuplePair
from support.ipfix import Decoder, Record, by_sequence
from support.terminal import ROOT

DOCUMENT = (ROOT / "docs" / "ipfix.md").read_text(encoding="utf-8")
NOW = 1_795_806_160.25  # seconds since 1970
PORT, BYTE, WORD, LONG = (st.integers(0, (1 << bits) - 1) for bits in (16, 8, 32, 64))
FEW = {4: [ip_address(text).packed for text in ("10.0.0.1", "192.0.2.1", "203.0.113.7")]}
FEW[6] = [ip_address(text).packed for text in ("fd00::1", "2001:db8::1", "2001:db8::2")]


@st.composite
def pairs(draw: st.DrawFn) -> TuplePair:
    address = st.sampled_from(FEW[draw(st.sampled_from([4, 6]))])
    kind = draw(st.sampled_from(["ports", "icmp", "neither"]))
    ports = [draw(PORT) for _ in range(4)] if kind == "ports" else [None] * 4
    icmp = [draw(PORT) for _ in range(2)] if kind == "icmp" else [None] * 2
    ends = [draw(address) for _ in range(4)]
    return TuplePair(
        *(draw(BYTE), ends[0], ends[1], ports[0], ports[1], ends[2], ends[3], ports[2], ports[3]),
        *(*icmp, draw(WORD), draw(st.none() | WORD)),
    )


TIME = st.integers(0, 1 << 44)
REPORTS = st.builds(
    FlowReport, st.none() | TIME, TIME, BYTE, st.none() | st.tuples(LONG, LONG, LONG, LONG), st.none() | st.booleans()
)
EVENTS = st.tuples(pairs(), TIME, st.sampled_from([1, 2, 4, 5]))
TOLD = st.lists(EVENTS | st.tuples(pairs(), REPORTS), max_size=60)


def add(records: Records, told: tuple[TuplePair, FlowReport] | tuple[TuplePair, int, int]) -> None:
    if len(told) == 2:
        records.add_flow(*told)
    else:
        records.add_nat_event(*told)


def messages_of(records: Records, stream: MessageStream, now: float = NOW) -> list[IpfixMessage]:
    waiting: deque[RecordSet] = deque(records.take())
    found: list[IpfixMessage] = []
    while some := stream.next_messages(waiting, now):
        found += some
    assert not waiting
    return found


# --- what a decoder should find, said once more and in another way ----------------------------------------------------


def text(address: bytes) -> str:
    return str(ip_address(address))


def of_event(its: TuplePair, at: int, event: int) -> Record:
    six = len(its.src) == 16
    record: Record = {323: at, 152: at, 153: at, 230: event, 4: its.protocol, 234: its.zone}
    record |= {27: text(its.src), 28: text(its.dst)} if six else {8: text(its.src), 12: text(its.dst)}
    after = {281: text(its.reply_dst), 282: text(its.reply_src)}
    record |= after if six else {225: after[281], 226: after[282]}
    if its.sport is not None:
        record |= {7: its.sport, 11: its.dport or 0, 227: its.reply_dport or 0, 228: its.reply_sport or 0}
    if its.icmp is not None:
        record |= {139 if six else 32: its.icmp}
    return record


def of_flow(its: TuplePair, report: FlowReport) -> list[Record]:
    there, back = of_event(its, 0, 0), of_event(turned(its), 0, 0)
    for record, moved, way in ((there, (1, 0), report.outward), (back, (3, 2), report.outward is False)):
        for element in (323, 152, 153, 230, 234):
            del record[element]
        if not its.translated:
            for element in (225, 226, 227, 228, 281, 282):
                record.pop(element, None)
        record |= {153: report.end, 136: report.reason}
        if report.start is not None:
            record[152] = report.start
        if report.counts is not None:
            record |= {1: report.counts[moved[0]], 2: report.counts[moved[1]]}
        if its.kernel_id is not None:
            record[148] = its.kernel_id
        if report.outward is not None:
            record[61] = int(bool(way))
    return [there, back]


def turned(its: TuplePair) -> TuplePair:
    """The same flow seen from its other end."""
    return its._replace(
        src=its.reply_src,
        dst=its.reply_dst,
        sport=its.reply_sport,
        dport=its.reply_dport,
        reply_src=its.src,
        reply_dst=its.dst,
        reply_sport=its.sport,
        reply_dport=its.dport,
        icmp=its.reply_icmp,
        reply_icmp=its.icmp,
    )


def expected(told: Sequence[tuple[TuplePair, FlowReport] | tuple[TuplePair, int, int]]) -> list[Record]:
    found: list[Record] = []
    for one in told:
        if len(one) == 2:
            found += of_flow(*one)
        else:
            found.append(of_event(*one))
    return found


def in_order(records: Sequence[Record]) -> list[str]:
    return sorted(str(sorted(record.items())) for record in records)


# --- round trips ------------------------------------------------------------------------------------------------------


@given(TOLD, st.booleans())
def test_what_was_told_is_decoded(
    told: list[tuple[TuplePair, FlowReport] | tuple[TuplePair, int, int]], again: bool
) -> None:
    records, stream, decoder = Records(), MessageStream(77, again), Decoder()
    for one in told:
        add(records, one)
    assert records.number == len(expected(told))
    messages = messages_of(records, stream)
    for message in messages:
        assert len(message.data) <= ipfix.MOST_MESSAGE
        assert len(message.data) % 4 == 0
        assert len(decoder.take(message.data)) == message.records
    assert in_order(decoder.records) == in_order(expected(told))
    assert by_sequence(decoder) == 0
    assert decoder.domains <= {77}
    assert set(decoder.exported) <= {int(NOW)}


@given(TOLD)
def test_the_decoder_of_other_people_says_the_same(
    told: list[tuple[TuplePair, FlowReport] | tuple[TuplePair, int, int]],
) -> None:
    """PyPI's netflow names elements by IANA's names, and knows addresses as numbers."""
    records = Records()
    for one in told:
        add(records, one)
    templates: dict[int, object] = {}
    found = []
    for message in messages_of(records, MessageStream(77, True)):
        packet = IPFIXExportPacket(message.data, templates)
        assert packet.header.obervation_domain_id == 77
        found += [flow.data for flow in packet.flows]
    names = {number: name for number, (name, _) in ipfix.ELEMENTS.items()}
    wanted = [
        {names[at]: int(ip_address(value)) if isinstance(value, str) else value for at, value in record.items()}
        for record in expected(told)
    ]
    assert sorted(str(sorted(its.items())) for its in found) == sorted(str(sorted(its.items())) for its in wanted)


def test_the_names_and_lengths_of_elements_are_ianas() -> None:
    for number, (name, form) in ipfix.ELEMENTS.items():
        known = IPFIXFieldTypes.by_id(number)
        assert known.name == name
        usual = IPFIXDataTypes.by_name(known.type).unpack_format
        assert form == usual or (number, form, usual) == (148, "I", "Q")  # reduced: RFC 7011, 6.2


# --- records ----------------------------------------------------------------------------------------------------------

HERE, THERE, WAN = FEW[4]
NATED = TuplePair(6, HERE, THERE, 40_824, 443, THERE, WAN, 443, 1025, kernel_id=7)


def test_a_translated_connection_takes_few_bytes() -> None:
    """The contract: 200 bytes for either kind, with its share of headers and templates."""
    for tell, number in (
        (lambda records: [records.add_nat_event(NATED, 1, 4), records.add_nat_event(NATED, 2, 5)], 2),
        (lambda records: records.add_flow(NATED, FlowReport(1, 2, 3, (1, 2, 3, 4), True)), 2),
    ):
        records, stream = Records(), MessageStream(1, True)
        for _ in range(1000):
            tell(records)
        assert records.number == 1000 * number
        size = sum(len(message.data) for message in messages_of(records, stream))
        assert size / 1000 <= 200


def test_a_number_that_is_too_large_adds_nothing() -> None:
    records = Records()
    with pytest.raises(struct.error):
        records.add_flow(NATED, FlowReport(1, 2, 3, (1, 1 << 64, 3, 4), True))
    with pytest.raises(struct.error):
        records.add_nat_event(NATED._replace(sport=65_536), 1, 4)
    assert records.number == 0
    assert records.take() == []


def test_what_is_unknown_is_left_out() -> None:
    """An ICMP flow without accounting, an id or a direction, seen only at its end."""
    ping = TuplePair(1, HERE, THERE, None, None, THERE, HERE, None, None, 8 << 8, 0)
    records, decoder = Records(), Decoder()
    records.add_flow(ping, FlowReport(None, 9, 1, None, None))
    for message in messages_of(records, MessageStream(1, True)):
        decoder.take(message.data)
    assert [list(record) for record in decoder.records] == [[153, 4, 136, 8, 12, 32]] * 2
    assert [record[32] for record in decoder.records] == [2048, 0]


def test_what_makes_a_flow_translated() -> None:
    plain = TuplePair(6, HERE, THERE, 1, 2, THERE, HERE, 2, 1)
    assert not plain.translated
    for changed in ({"reply_src": WAN}, {"reply_dst": WAN}, {"reply_sport": 9}, {"reply_dport": 9}):
        assert plain._replace(**changed).translated


# --- messages ---------------------------------------------------------------------------------------------------------


def told_at(again: bool, messages: int, seconds: float) -> list[int]:
    """How many templates each of so many messages had before it; all take ``seconds``."""
    stream, decoder = MessageStream(1, again), Decoder()
    templates = []
    for number in range(messages):
        records, before = Records(), len(decoder.told)
        records.add_nat_event(NATED, number, 4)
        for message in messages_of(records, stream, NOW + number * seconds / messages):
            decoder.take(message.data)
        templates.append(sum(decoder.told[before:]))
    assert by_sequence(decoder) == 0
    return templates


def test_templates_come_again_after_20_messages() -> None:
    assert [at for at, number in enumerate(told_at(True, 65, 1.0)) if number] == [0, 20, 40, 60]


def test_templates_come_again_after_a_minute() -> None:
    assert [at for at, number in enumerate(told_at(True, 13, 13 * 12.0)) if number] == [0, 5, 10]


def test_templates_come_again_after_the_clock_was_set_back() -> None:
    stream, decoder = MessageStream(1, True), Decoder()
    for now in (NOW, NOW + 1, NOW - 3600):
        records = Records()
        records.add_nat_event(NATED, 1, 4)
        for message in messages_of(records, stream, now):
            decoder.take(message.data)
    assert decoder.told == [1, 0, 0, 1, 0]


def test_over_tcp_templates_come_once() -> None:
    assert sum(told_at(False, 65, 600.0)) == 1


def test_all_templates_fit_into_messages() -> None:
    """Every template there is, told again in as few messages as they need."""
    stream, decoder = MessageStream(1, True), Decoder()
    for message in stream.template_messages(range(256, 768), NOW):
        assert len(message.data) <= ipfix.MOST_MESSAGE
        decoder.take(message.data)
    assert set(decoder.templates) == set(range(256, 768))
    for number, fields in decoder.templates.items():
        assert sum(size for _, size in fields) == ipfix.template(number).size
        assert len({element for element, _ in fields}) == len(fields)


def test_numbers_count_records_and_begin_anew_after_their_end() -> None:
    stream, decoder = MessageStream(1, True), Decoder()
    stream.skip((1 << 32) - 3)  # lost before they had a message
    records = Records()
    for at in range(100):
        records.add_nat_event(NATED, at, 4)
    for message in messages_of(records, stream):
        decoder.take(message.data)
    assert decoder.counted[0] == ((1 << 32) - 3, 0)
    assert by_sequence(decoder) == (1 << 32) - 3
    assert decoder.counted[-1][0] + decoder.counted[-1][1] == 97


def test_a_message_takes_from_several_sets() -> None:
    """One record of each of two kinds: one message with the templates, one with both."""
    records, decoder = Records(), Decoder()
    records.add_nat_event(NATED, 1, 4)
    records.add_nat_event(NATED._replace(sport=None, dport=None), 1, 4)
    messages = messages_of(records, MessageStream(1, True))
    assert [message.records for message in messages] == [0, 2]
    for message in messages:
        decoder.take(message.data)
    assert sorted(decoder.numbers) == [ipfix.FIRST, ipfix.FIRST + ipfix.PORTS]


def test_a_stream_without_records_says_nothing() -> None:
    assert MessageStream(1, True).next_messages(deque(), NOW) == []
    assert MessageStream(1, True).template_messages([], NOW) == []


@given(st.text())
def test_a_node_has_its_number(name: str) -> None:
    number = ipfix.domain_of(name)
    assert 0 < number < 1 << 32
    assert (
        number == ipfix.domain_of(name) == (zlib.crc32(name.encode("utf-8", "surrogateescape")) or 1)
        if name.isascii()
        else True
    )


def test_no_node_has_the_number_of_nobody() -> None:
    assert ipfix.domain_of("") == 1  # RFC 7011: 0 is for what is not of one observation domain


# --- the document -----------------------------------------------------------------------------------------------------


def test_the_document_names_every_element() -> None:
    for number, (name, _) in ipfix.ELEMENTS.items():
        assert f"| {number} | `{name}` |" in DOCUMENT
