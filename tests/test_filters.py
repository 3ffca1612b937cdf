"""The filter language, on real lines: what each field selects, how words combine, what a wrong expression gets."""

from __future__ import annotations

import ipaddress
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import addresses
import filters
from addresses import NO_LOOKUPS, NOWHERE, Context, Lookups, Place, Site
from filters import MAKERS, SIZES, TIMES, FilterError, all_of, bare, compared, compile_filter, from_flags, shown_text
from flows import Flow, FlowTable, Progress
from grouping import Baseline, service_key
from parse import Record, split_lines
from support.printing import printed, records
from support.strategies import any_blocks
from support.tables import LAN, MARKS, WAN, Monitor, address_order, flows_of, line, marked_table
from vocabulary import FIELDS, FilterField

CAPTURES = Path(__file__).parent.parent / "fixtures" / "captures"

TEXT = b"""\
ipv4     2 tcp      6 431999 ESTABLISHED src=10.0.0.5 dst=192.0.2.1 sport=40000 dport=443 packets=10 bytes=5000 \
src=192.0.2.1 dst=203.0.113.1 sport=443 dport=50000 packets=9 bytes=2000000 [ASSURED] mark=16 use=1 id=1
ipv4     2 tcp      6 100 SYN_SENT src=10.0.0.6 dst=192.0.2.2 sport=40001 dport=8080 packets=1 bytes=60 [UNREPLIED] \
src=10.9.9.9 dst=10.0.0.6 sport=80 dport=40001 packets=0 bytes=0 mark=0 zone=3 use=1 id=2
ipv6     10 udp      17 20 src=2001:db8::5 dst=2001:db8::53 sport=5353 dport=53 [UNREPLIED] src=2001:db8::53 \
dst=2001:db8::5 sport=53 dport=5353 mark=0 use=1 id=3
ipv4     2 icmp     1 29 src=10.0.0.5 dst=198.51.100.7 type=8 code=0 id=443 src=198.51.100.7 dst=10.0.0.5 type=0 code=0 \
id=443 mark=0 helper=ftp use=1 id=4 labels=web,voice call
ipv4     2 unknown  50 599 src=198.51.100.1 dst=198.51.100.2 src=198.51.100.2 dst=198.51.100.1 mark=0 use=1 id=5
"""


BORN = (
    b"    [NEW] ipv6     10 sctp     132 10 CLOSED src=2001:db8:9::1 dst=2001:db8:9::2 sport=9 dport=9 "
    b"src=2001:db8:9::2 dst=2001:db8:9::1 sport=9 dport=9 mark=7 zone=9 id=6\n"
)


def table() -> FlowTable:
    out = FlowTable(own=frozenset({"10.0.0.5", "203.0.113.1"}))
    out.begin_listing(0.0)
    for row in split_lines(TEXT)[0]:
        out.listed(row, 0.0)
    out.end_listing(True, 0.0)
    return out


PLACES = {"192.0.2.1": Place("DE", "Germany", "Köln", 64500, "Example Networks GmbH")}


def chosen(expression: str, now: float = 5.0) -> set[int | None]:
    """The ids of the flows that an expression wants."""
    flows = table()
    context = Context(Lookups(lambda address: PLACES.get(address, Place())), now=now, own=flows.own)
    wanted = compile_filter(expression, context)
    return {flow.record().id for flow in filter(wanted, flows)}


@pytest.mark.parametrize(
    ("expression", "ids"),
    [
        ("", {1, 2, 3, 4, 5}),
        ("   ", {1, 2, 3, 4, 5}),
        ("proto:tcp", {1, 2}),
        ("proto:TCP", {1, 2}),
        ("proto:17", {3}),
        ("proto:esp", {5}),
        ("proto:unknown", {5}),
        ("proto:tcp,icmp", {1, 2, 4}),
        ("state:established", {1}),
        ("state:SYN_SENT", {2}),
        ("state:unreplied", {2, 3}),
        ("family:6", {3}),
        ("src:10.0.0.0/8", {1, 2, 4}),
        ("src:10.0.0.5", {1, 4}),
        ("dst:192.0.2.0/30", {1, 2}),
        ("dst:10.9.9.9", set()),
        ("host:10.9.9.9", {2}),
        ("host:203.0.113.1", {1}),
        ("host:2001:db8::/64", {3}),
        ("src:2001:db8::5", {3}),
        ("port:443", {1}),
        ("port:80", {2}),
        ("port:50000", {1}),
        ("sport:40000-40001", {1, 2}),
        ("dport:8000-8999", {2}),
        ("dport:https,53", {1, 3}),
        ("country:de", {1}),
        ("country:Germany", {1}),
        ("asn:64500", {1}),
        ("asn:AS64500", {1}),
        ("org:example", {1}),
        ('org:"networks gmbh"', {1}),
        ("city:köl", {1}),
        ("dir:out", {1, 4}),
        ("dir:fwd", {2, 3, 5}),
        ("nat:snat", {1}),
        ("nat:dnat", {2}),
        ("nat:any", {1, 2}),
        ("nat:none", {3, 4, 5}),
        ("mark:0x10", {1}),
        ("mark:16", {1}),
        ("mark:0", {2, 3, 4, 5}),
        ("mark:0x10/0x10", {1}),
        ("zone:3", {2}),
        ("zone:0", {1, 3, 4, 5}),
        ("flag:assured", {1}),
        ("flag:unreplied", {2, 3}),
        ("bytes:>1M", {1}),
        ("bytes:<100", {2}),
        ("bytes:60", {2}),
        ("bytes:50-1k", {2}),
        ("bytes:>=2005000", {1}),
        ("packets:>5", {1}),
        ("rate:>1", set()),
        ("age:<10s", set()),  # they are at least 5 s old: who knows?
        ("age:>2s", {1, 2, 3, 4, 5}),
        ("age:>1m", set()),
        ("bytes:<99999999999999999999", {1, 2}),
        ("timeout:>1d", {1}),
        ("timeout:<=15s", {3}),
        ("id:4", {4}),
        ("helper:ftp", {4}),
        ('label:"voice call"', {4}),
        ("192.0.2.1:443", {1}),
        ("2001:db8::53", {3}),
        ("estab", {1}),
        ("google", set()),
        ("snat", {1}),
        ("proto:tcp port:443", {1}),
        ("proto:tcp and port:443", {1}),
        ("proto:udp or proto:icmp", {3, 4}),
        ("proto:tcp port:443 or proto:udp", {1, 3}),
        ("proto:tcp (port:443 or port:8080)", {1, 2}),
        ("!proto:tcp", {3, 4, 5}),
        ("not proto:tcp not proto:udp", {4, 5}),
        ("!(proto:tcp or proto:udp)", {4, 5}),
        ("!!proto:tcp", {1, 2}),
        ("! proto:tcp", {3, 4, 5}),
        ("NOT proto:tcp OR proto:tcp", {1, 2, 3, 4, 5}),
    ],
)
def test_what_an_expression_selects(expression: str, ids: set[int]) -> None:
    assert chosen(expression) == ids


def test_the_age_of_a_flow_whose_birth_was_seen() -> None:
    flows = FlowTable()
    flow = flows.event(split_lines(BORN)[0][0], 1.0)
    for expression, fits in (("age:<10s", True), ("age:>10s", False), ("age:4s", True), ("age:3s-5s", True)):
        wanted = compile_filter(expression, Context(now=5.0))
        assert wanted is not None
        assert wanted(flow) is fits


@pytest.mark.parametrize(
    ("expression", "position", "words"),
    [
        ("prot:tcp", 0, "unknown field 'prot'"),
        ("port:443 foo:1", 9, "unknown field 'foo'"),
        ("proto:nosuch", 6, "'nosuch' is not a protocol"),
        ("proto:256", 6, "not a protocol"),
        ("state:estab", 6, "'estab' is not a state"),
        ("src:10.0.0.256", 4, "not an address or a network"),
        ("src:1.2.3", 4, "not an address or a network"),
        ("src:10.0.0.0/33", 4, "not an address or a network"),
        ("port:65536", 5, "not a port"),
        ("port:443,http2", 9, "not a port"),
        ("port:90-80", 5, "ends before it begins"),
        ("port:-1", 5, "not a port"),
        ("dir:up", 4, "not a direction"),
        ("nat:maskq", 4, "not a kind of NAT"),
        ("mark:0xg", 5, "not a number"),
        ("flag:x", 5, "not a flag"),
        ("bytes:>1X", 6, "not a unit"),
        ("bytes:many", 6, "is not a comparison"),
        ("bytes:>1-2", 6, "a range and a comparison"),
        ("age:<10M5", 4, "is not a comparison"),
        ("asn:google", 4, "not an AS number"),
        ("proto:", 6, "a value is missing"),
        ("a or", 4, "the filter ends too early"),
        ("or a", 0, "a term is missing before 'or'"),
        ("a and", 5, "the filter ends too early"),
        ("not", 3, "the filter ends too early"),
        ("(a", 0, "'(' without ')'"),
        ("a)", 1, "')' without '('"),
        ("()", 1, "a term is missing before ')'"),
        ("a && b", 2, "words are ANDed"),
        ("bytes>1M", 0, "write bytes:>1M"),
        ("src=10.0.0.1", 0, "write src:10.0.0.1"),
        ('org:"x', 4, "unmatched quotation mark"),
    ],
)
def test_a_wrong_expression_points_at_the_place(expression: str, position: int, words: str) -> None:
    with pytest.raises(FilterError) as caught:
        compile_filter(expression, Context())
    assert words in caught.value.message
    assert caught.value.position == position
    message, shown, caret = caught.value.pointed().split("\n")
    assert message == caught.value.message
    assert shown == "  " + expression
    assert caret == "  " + " " * position + "^"


def test_deep_nesting_is_refused_not_fatal() -> None:
    for expression in ("(" * 5000, "!" * 5000 + "a", "not " * 5000 + "a"):
        with pytest.raises(FilterError, match="levels"):
            compile_filter(expression, Context())


def test_flags_are_the_same_predicates() -> None:
    flows = table()
    context = Context(own=flows.own)

    def ids(protocols: list[str], states: list[str], families: list[str]) -> set[int | None]:
        wanted = from_flags(protocols, states, families, context)
        return {flow.record().id for flow in filter(wanted, flows)}

    assert ids([], [], []) == {1, 2, 3, 4, 5}
    assert ids(["tcp", "17"], [], []) == {1, 2, 3}
    assert ids(["tcp", "udp"], ["unreplied"], []) == {2, 3}
    assert ids(["tcp", "udp"], ["Unreplied"], ["ipv6"]) == {3}
    assert ids([], [], ["ipv4", "ipv6"]) == {1, 2, 3, 4, 5}
    with pytest.raises(ValueError, match="not a state"):
        ids([], ["nosuch"], [])


# --- properties -------------------------------------------------------------------------------------------------------

SOME = list(table().live.values())
words = st.sampled_from(
    ["proto:tcp", "port:443", "state:established", "!flag:unreplied", "host:10.0.0.0/8", "nat:any", "dns", "bytes:>1k"]
)


@given(st.text(max_size=60))
def test_any_text_is_a_filter_or_a_pointed_error(expression: str) -> None:
    try:
        wanted = compile_filter(expression, Context())
    except FilterError as error:
        assert 0 <= error.position <= len(expression)
        assert len(error.pointed().splitlines()) == 3
    else:
        for flow in SOME:
            assert wanted is None or isinstance(wanted(flow), bool)


@given(st.sampled_from(sorted(MAKERS)), st.text(st.characters(codec="ascii", exclude_characters='"() '), max_size=12))
def test_any_value_of_any_field(field: str, value: str) -> None:
    try:
        wanted = compile_filter(f"{field}:{value}", Context())
    except FilterError:
        return
    assert wanted is not None
    for flow in SOME:
        wanted(flow)


@given(words, words)
def test_the_laws_of_and_or_not(one: str, other: str) -> None:
    def fits(expression: str, flow: Flow) -> bool:
        wanted = compile_filter(expression, Context())
        assert wanted is not None
        return bool(wanted(flow))

    for flow in SOME:
        a, b = fits(one, flow), fits(other, flow)
        assert fits(f"{one} {other}", flow) == (a and b)
        assert fits(f"{one} or {other}", flow) == (a or b)
        assert fits(f"not ({one} or {other})", flow) == (not (a or b))
        assert fits(f"!({one})", flow) == (not a)


def test_every_field_is_in_the_vocabulary() -> None:
    assert list(MAKERS) == [field.name for field in FIELDS]


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_the_example_of_a_field_is_a_filter(field: FilterField) -> None:
    assert compile_filter(field.term, Context()) is not None


def test_the_document_has_the_table_of_the_fields() -> None:
    document = (Path(__file__).parent.parent / "docs" / "filters.md").read_text(encoding="utf-8")
    table = document.partition("| word | selects |\n| --- | --- |\n")[2].partition("\n\n")[0]
    assert table.split("\n") == [f"| `{field.term}` | {field.meaning} |" for field in FIELDS]


@settings(max_examples=300)
@given(block=any_blocks, data=st.data())
def test_a_bare_word_is_found_where_it_is_shown(block: bytes, data: st.DataObject) -> None:
    flows, context = flows_of(block)
    texts = [shown_text(flow, context) for flow in flows]
    if texts:
        pieces = data.draw(st.sampled_from(texts)).split()
        ends_of_addresses = [piece.rpartition(":")[2] for piece in pieces]
        word = data.draw(st.sampled_from(pieces + ends_of_addresses))
    else:
        word = data.draw(st.text(max_size=2).map(str.lower))
    wanted = bare(word, context)
    assert [wanted(flow) for flow in flows] == [word in text for text in texts]


@given(block=any_blocks, low=st.integers(0, 65_535), high=st.integers(0, 65_535))
def test_ports_are_found_on_every_side(block: bytes, low: int, high: int) -> None:
    flows, context = flows_of(block)
    low, high = min(low, high), max(low, high)
    wanted = {name: MAKERS[name](f"{low}-{high}", context) for name in ("port", "sport", "dport")}
    for flow in flows:
        e = flow.ends()
        ported = flow.kind.number in (6, 17, 132)
        fits = [ported and n is not None and low <= n <= high for n in (e.sport, e.dport, e.reply_sport, e.reply_dport)]
        assert [wanted[name](flow) for name in ("port", "sport", "dport")] == [any(fits), fits[0], fits[1]]


@given(block=any_blocks, network=st.sampled_from(["10.0.0.0/8", "2001:db8::/32", "0.0.0.0/0", "::/0", "192.0.2.1"]))
def test_networks_are_found_on_every_side(block: bytes, network: str) -> None:
    flows, context = flows_of(block)
    wanted = {name: MAKERS[name](network, context) for name in ("host", "src", "dst")}
    net = ipaddress.ip_network(network)

    def inside(text: str) -> bool:
        kind, _number, _text = address_order(text)
        return kind == net.version and ipaddress.ip_address(text) in net

    for flow in flows:
        e = flow.ends()
        fits = [inside(address) for address in (e.src, e.dst, e.reply_src, e.reply_dst)]
        assert [wanted[name](flow) for name in ("host", "src", "dst")] == [any(fits), fits[0], fits[1]]


def test_new_of_what() -> None:
    with pytest.raises(FilterError, match="any host remote country network service"):
        compile_filter("new:moon", Context())


def test_kinds_of_nat_are_filters() -> None:
    back = (("9.9.9.9", LAN), ("9.9.9.9", WAN), ("9.9.9.9", "203.0.113.9"), ("10.0.0.7", LAN), ("10.0.0.7", WAN))
    monitor = Monitor([line(n, src=LAN, dst="9.9.9.9", reply_src=a, reply_dst=b) for n, (a, b) in enumerate(back)])
    context = Context(own=frozenset([WAN]))
    found = {}
    for kind in ("none", "snat", "masq", "dnat", "both"):
        wanted = compile_filter(f"nat:{kind}", context)
        found[kind] = [flow.record().id for flow in filter(wanted, monitor.table)]
    assert found == {"none": [0], "snat": [1, 2, 4], "masq": [1], "dnat": [3, 4], "both": [4]}


@pytest.mark.parametrize(
    ("expression", "ids"),
    [
        ("mark:vpn", {1}),
        ("mark:VOICE", {2, 3}),  # also where the whole mark has a name of its own
        ("mark:0x17", {2}),
        ("mark:vpn,voice", {1, 2, 3}),
        ("zone:office", {1, 3}),
        ('zone:"second floor"', {2}),
        ("!zone:office", {2, 4}),
        ("zone:none", {4}),
    ],
)
def test_filters_know_the_names(expression: str, ids: set[int]) -> None:
    flows = marked_table()
    context = Context(site=Site(marks=MARKS, zones={3: "office", 4: "second floor", 0: "none"}))
    assert {flow.record().id for flow in filter(compile_filter(expression, context), flows)} == ids


def test_a_wrong_name_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(FilterError, match=r"'vnp' is not a number .*, nor a name; valid: vpn voice both odd"):
        compile_filter("mark:vnp", Context(site=Site(marks=MARKS)))
    with pytest.raises(FilterError, match=r"is not a number \(16 or 0x10\)$"):
        compile_filter("mark:vpn", Context())


def test_flags_of_the_command_line_and_the_filter_are_combined() -> None:
    monitor = Monitor([line(1), line(2, state="CLOSE"), line(3, state="CLOSE", dport=80)])
    monitor.view.base = from_flags((), ["close"], (), monitor.view.context)
    monitor.keys("/", *"port:443", "enter")
    assert monitor.ids() == [2]
    monitor.keys("esc")
    assert monitor.ids() == [2, 3]


# --- the filter language at its borders: where a number begins and ends to fit, what each field wants of the same flow ---


LAN_HOST, GATEWAY, FAR, FAR_DE = "192.168.1.9", "203.0.113.1", "8.8.8.8", "9.9.9.9"
PLACED = {
    FAR: Place("US", "United States", "Mountain View", 15169, "Google LLC"),
    FAR_DE: Place("DE", None, "Köln", 64_500, None),
}
HEAD = "ipv4     2 tcp      6 {} src={} dst={} sport={} dport={} "
LINES = [
    # 1: masqueraded; 2: a port that is forwarded; 3: both; 4: neither, and far all the same; 5 to 8 without ports or IPv4
    HEAD.format("100 ESTABLISHED", LAN_HOST, FAR, 40_000, 443)
    + f"packets=10 bytes=1000 src={FAR} dst={GATEWAY} sport=443 dport=40001 packets=5 bytes=1000 [ASSURED] mark=17 use=1 id=1",
    HEAD.format("20 SYN_SENT", FAR_DE, GATEWAY, 50_000, 8080)
    + f"packets=1 bytes=60 [UNREPLIED] src={LAN_HOST} dst={FAR_DE} sport=80 dport=50000 packets=0 bytes=0 mark=1 zone=3 use=1 id=2",
    HEAD.format("30 CLOSE", FAR, GATEWAY, 50_000, 22)
    + f"src={LAN_HOST} dst=192.168.1.1 sport=22 dport=50000 mark=0 use=1 id=3",
    HEAD.format("30 CLOSE", LAN_HOST, FAR_DE, 1, 65_535)
    + f"src={FAR_DE} dst={LAN_HOST} sport=65535 dport=1 [OFFLOAD] mark=0 use=1 id=4",
    f"ipv4     2 icmp     1 29 src={LAN_HOST} dst={FAR} type=8 code=0 id=443 src={FAR} dst={GATEWAY} type=0 code=0 id=443 mark=256 use=1 id=5",
    f"ipv4     2 unknown  50 599 src={LAN_HOST} dst=192.168.1.8 src=192.168.1.8 dst={LAN_HOST} mark=0 helper=ftp use=1 id=6 labels=web,voice call",
    "ipv6     10 udp      17 20 src=2001:db8::5 dst=2001:db8::53 sport=5353 dport=53 zone-orig=7 src=2001:db8::53 dst=2001:db8::5 "
    "sport=53 dport=5353 mark=0 use=1 id=7",
    "ipv6     10 udp      17 20 src=2001:db8::6 dst=ff02::fb sport=5353 dport=5353 [UNREPLIED] src=ff02::fb dst=2001:db8::6 "
    "sport=5353 dport=5353 mark=0 use=1 id=8 labels=zone=9 sport=9 dport=9",
]
ALL = {1, 2, 3, 4, 5, 6, 7, 8}


def small_table() -> FlowTable:
    made = FlowTable(own=frozenset({GATEWAY, "192.168.1.1"}))
    made.begin_listing(0.0)
    for row in split_lines(("\n".join(LINES) + "\n").encode())[0]:
        made.listed(row, 0.0)
    made.end_listing(True, 0.0)
    return made


def context(now: float = 5.0) -> Context:
    return Context(
        Lookups(lambda address: PLACED.get(address, NOWHERE)),
        Site(marks={(1, 0x0F): "guests", (256, addresses.WHOLE_MARK): "vpn"}, zones={3: "office"}),
        now=now,
        own=frozenset({GATEWAY, "192.168.1.1"}),
    )


def fitting(expression: str) -> set[int]:
    wanted = compile_filter(expression, context())
    return {flow.record().id or 0 for flow in filter(wanted, small_table())}


@pytest.mark.parametrize(
    ("expression", "ids"),
    [
        ("proto:0", set()),
        ("proto:255", set()),
        ("proto:icmp", {5}),
        ("proto:50,udp", {6, 7, 8}),
        ("proto:unknown", {6}),
        ("state:syn_sent", {2}),
        ("state:assured", {1}),
        ("flag:offload", {4}),
        ("flag:unreplied", {2, 8}),
        ("family:4", {1, 2, 3, 4, 5, 6}),
        ("family:IPV6", {7, 8}),
        (f"src:{LAN_HOST}", {1, 4, 5, 6}),
        (f"dst:{GATEWAY}", {2, 3}),
        (f"host:{GATEWAY}", {1, 2, 3, 5}),
        ("host:192.168.1.1", {3}),
        ("host:192.168.1.8/31", ALL - {7, 8}),
        ("host:10.0.0.0/8", set()),
        ("host:::/0", {7, 8}),
        ("host:0.0.0.0/0", ALL - {7, 8}),
        ("port:443", {1}),
        ("port:40001", {1}),
        ("port:80", {2}),
        ("port:50000", {2, 3}),
        ("port:9", set()),
        ("port:22-443", {1, 2, 3, 7}),
        ("port:0-65535", {1, 2, 3, 4, 7, 8}),
        ("port:65535", {4}),
        ("port:https", {1}),
        ("port:dns", {7}),
        ("sport:1", {4}),
        ("sport:443", set()),
        ("sport:mdns", {7, 8}),
        ("dport:443", {1}),
        ("dport:40000-65535", {4}),
        ("dport:444-8079", {8}),
        ("dport:444-8080", {2, 8}),
        ("country:us", {1, 3, 5}),
        ('country:"UNITED states"', {1, 3, 5}),
        ("country:united", set()),
        ("country:none", {6, 7, 8}),
        ("country:germany", set()),
        ("cc:DE", {2, 4}),
        ("asn:64500", {2, 4}),
        ("asn:as15169", {1, 3, 5}),
        ("asn:none", {6, 7, 8}),
        ("org:GOOGLE", {1, 3, 5}),
        ("org:oogle-l", set()),
        ("city:mountain", {1, 3, 5}),
        ("city:KÖLN", {2, 4}),
        ("dir:FWD", {1, 2, 3, 4, 5, 6, 7}),
        ("dir:in", {8}),
        ("dir:out", set()),
        ("nat:snat", {1, 3, 5}),
        ("nat:dnat", {2, 3}),
        ("nat:both", {3}),
        ("nat:masq", {1, 5}),
        ("nat:any", {1, 2, 3, 5}),
        ("nat:none", {4, 6, 7, 8}),
        ("mark:17", {1}),
        ("mark:0x11", {1}),
        ("mark:0X11", {1}),
        ("mark:1", {2}),
        ("mark:0x1/0xf", {1, 2}),
        ("mark:0/0xff", {3, 4, 5, 6, 7, 8}),
        ("mark:Guests", {1, 2}),
        ("mark:vpn", {5}),
        ("zone:3", {2}),
        ("zone:OFFICE", {2}),
        ("zone:7", {7}),
        ("zone:0", ALL - {2, 7}),
        ("id:0x5", {5}),
        ("helper:ftp", {6}),
        ("helper:f", set()),
        ("label:web", {6}),
        ("label:we", set()),
        ("bytes:2000", {1}),
        ("bytes:2k", {1}),
        ("bytes:60", {2}),
        ("bytes:>60", {1}),
        ("bytes:>=60", {1, 2}),
        ("bytes:<=60", {2}),
        ("bytes:<60", set()),
        ("bytes:60-2k", {1, 2}),
        ("bytes:61-1999", set()),
        ("bytes:1k-2k", {1}),
        ("bytes:1k-1.9k", set()),
        ("packets:15", {1}),
        ("packets:>1", {1}),
        ("age:>4s", ALL),
        ("age:>5s", set()),
        ("age:>=5s", ALL),
        ("age:5s", set()),  # of flows that are at least so old
        ("age:<1m", set()),
        ("timeout:>24s", {1, 3, 4, 6}),
        ("timeout:24s", {5}),
        ("timeout:<16s", {2, 7, 8}),
        ("timeout:10m", set()),
        ("timeout:9m-10m", {6}),
        (f"near:{LAN_HOST}", {1, 2, 3, 4, 5, 6}),
        ("near:2001:db8::/32", {7, 8}),
        ("far:8.8.8.0/24", {1, 3, 5}),
        (f"far:{LAN_HOST}", set()),
        ("service:TCP/443", {1}),
        ("service:icmp", {5}),
        ("service:ip50", {6}),
        ("service:udp/53", {7}),
        ("service:tcp", {1, 2, 3, 4}),
        (f"wan:{GATEWAY}", {1, 2, 3, 5}),
        (f"wan:{GATEWAY}:40001", {1}),
        (f"wan:{GATEWAY}:8080", {2}),
        (f"wan:{GATEWAY}:80", set()),
        (f"wan:[{GATEWAY}]:22", {3}),
        ("wan:192.168.1.1", {3}),
        ("wan:192.168.1.1:50000", {3}),
        (f"wan:{LAN_HOST}", set()),
        ("wan:2001:db8::53", set()),
        ("new:", set()),
        ("new:any", set()),
        ("proto:tcp,udp port:443,53", {1, 7}),
        ('label:"voice call","web"', {6}),
        ('org:"google llc"', {1, 3, 5}),
        ("FWD", {1, 2, 3, 4, 5, 6, 7}),
        ("unrepl", {2, 8}),
        ("https", {1}),
        ("203.0.113.1:443", {5}),  # an ICMP id
        ("203.0.113.1:444", set()),
        ("8.8.8.8:443", {1}),
        (":443", {1, 5}),
        ("ip", ALL),
        ("köln", {2, 4}),
        ("mountain", {1, 3, 5}),
        ("15169", {1, 3, 5}),
        ("dnat", {2, 3}),
        ("nosuchthing", set()),
        ("a(q)", set()),
        ("state:close or (proto:udp !port:53) and dir:in", {3, 4, 8}),
        ("not state:close and not family:6", {1, 2, 5, 6}),
        ("!(state:close or family:6) !proto:icmp", {1, 2, 6}),
        ("state:close OR proto:icmp OR proto:50", {3, 4, 5, 6}),
        ("(state:close)(port:22)", {3}),
        ("!!(state:close)", {3, 4}),
    ],
)
def test_what_an_expression_wants(expression: str, ids: set[int]) -> None:
    assert fitting(expression) == ids


@pytest.mark.parametrize(
    ("expression", "position", "message"),
    [
        ("family:5", 7, "'5' is not a family; valid: ipv4 ipv6"),
        ("proto:1000", 6, "'1000' is not a protocol: a number up to 255, or a name; for example tcp, udp, icmp"),
        ("proto:0006", 6, "'0006' is not a protocol: a number up to 255, or a name; for example tcp, udp, icmp"),
        ("proto:²", 6, "'²' is not a protocol: a number up to 255, or a name; for example tcp, udp, icmp"),
        ("flag:up", 5, "'up' is not a flag; valid: unreplied assured offload hw_offload none"),
        ("country:x1", 8, None),
        ("dir:both", 4, "'both' is not a direction; valid: in out fwd local"),
        ("nat:all", 4, "'all' is not a kind of NAT; valid: snat masq dnat both any none stale"),
        ("mark:0x", 5, "'0x' is not a number (16 or 0x10), nor a name; valid: guests vpn"),
        ("mark:1/x", 5, "'x' is not a number (16 or 0x10), nor a name; valid: guests vpn"),
        ("mark:0x123456789", 5, "'0x123456789' is not a number (16 or 0x10), nor a name; valid: guests vpn"),
        ("zone:home", 5, "'home' is not a number (16 or 0x10), nor a name; valid: office"),
        ("id:12345678901", 3, "'12345678901' is not a number (16 or 0x10)"),
        ("port:123456", 5, "'123456' is not a port: 443, 8000-8999 or a name like https"),
        ("port:80-", 5, "'80-' is not a port: 443, 8000-8999 or a name like https"),
        ("port:2-1", 5, "'2-1' is a range that ends before it begins"),
        ("asn:12345678901", 4, "'12345678901' is not an AS number (15169 or AS15169)"),
        ("asn:", 4, "a value is missing after 'asn:'"),
        ("port:80,,443", 8, "a value is missing after 'port:'"),
        ("port:80,", 8, "a value is missing after 'port:'"),
        ("bytes:5x", 6, "'x' is not a unit; valid: k m g t ki mi gi ti"),
        ("bytes:1-5x", 6, "'x' is not a unit; valid: k m g t ki mi gi ti"),
        ("bytes:>1-2", 6, "'>1-2' is both a range and a comparison"),
        ("bytes:lots", 6, "'lots' is not a comparison; write bytes:>1M"),
        ("packets:lots", 8, "'lots' is not a comparison; write packets:>100"),
        ("rate:lots", 5, "'lots' is not a comparison; write rate:>100k (bytes per second)"),
        ("age:5y", 4, "'y' is not a unit; valid: s m h d w"),
        ("age:old", 4, "'old' is not a comparison; write age:<10s"),
        ("timeout:old", 8, "'old' is not a comparison; write timeout:<30s"),
        ("near:x", 5, "'x' is not an address or a network (10.0.0.0/8, 2001:db8::/32)"),
        ("service:tcp/x", 8, "'tcp/x' is not a service: tcp/443, https or icmp"),
        ("service:tcp/123456", 8, "'tcp/123456' is not a service: tcp/443, https or icmp"),
        ("wan:x", 4, "'x' is not an address: 203.0.113.1, 203.0.113.1:38768 or [2001:db8::1]:443"),
        ("wan:1.1.1", 4, "'1.1.1' is not an address or a network (10.0.0.0/8, 2001:db8::/32)"),
        ("at:25:00", 3, "'25:00' is not a time: 14:02, 14:02:30 or 2026-11-24T14:02"),
        ("at:14:60", 3, "'14:60' is not a time: 14:02, 14:02:30 or 2026-11-24T14:02"),
        ("at:2026-13-01T14:00", 3, "'2026-13-01T14:00' is not a time: 14:02, 14:02:30 or 2026-11-24T14:02"),
        ("at:noon", 3, "'noon' is not a time: 14:02, 14:02:30 or 2026-11-24T14:02"),
        ("new:moon", 4, "'moon' is not one of: any host remote country network service"),
        ("a and and", 6, "a term is missing before 'and'"),
        ("(a b", 0, "'(' without ')'"),
        ("a (b))", 5, "')' without '('"),
        ("a ||", 2, "write or instead of '||'"),
        ("bytes>=1M", 0, "write bytes:>=1M"),
        ("proto==tcp", 0, "write proto:tcp"),
        ('  a "b', 4, "unmatched quotation mark"),
    ],
)  # fmt: skip
def test_what_a_wrong_expression_gets(expression: str, position: int, message: str | None) -> None:
    if message is None:
        assert fitting(expression) == set()
        return
    with pytest.raises(FilterError) as caught:
        compile_filter(expression, context())
    assert (caught.value.message, caught.value.position) == (message, position)
    assert caught.value.pointed() == f"{message}\n  {expression}\n  {' ' * position}^"


def test_a_pointed_error_shows_no_control_characters() -> None:
    with pytest.raises(FilterError) as caught:
        compile_filter("port:x\x1b", context())
    assert caught.value.pointed().split("\n")[1] == "  port:x?"


@pytest.mark.parametrize(("depth", "fits"), [(50, True), (51, False)])
@pytest.mark.parametrize("kind", ["!", "not ", "("])
def test_how_deep_an_expression_may_be(kind: str, depth: int, fits: bool) -> None:
    expression = kind * depth + "a" + ")" * (depth if kind == "(" else 0)
    if fits:
        assert compile_filter(expression, context())
    else:
        with pytest.raises(FilterError, match="more than 50 levels"):
            compile_filter(expression, context())
    assert compile_filter("(a) " * 60 + "!a " * 60, context())  # beside each other they are no depth


def test_addresses_are_bare_words_and_not_fields() -> None:
    assert fitting("2001:db8::5") == {7}
    assert fitting("fe80::/10") == set()
    assert compile_filter("  ", context()) is None


def test_one_of_several_flags_and_all_kinds_of_them() -> None:
    there = context()

    def ids(protocols: list[str], states: list[str], families: list[str]) -> set[int]:
        return {flow.record().id or 0 for flow in filter(from_flags(protocols, states, families, there), small_table())}

    assert ids([], [], []) == ALL
    assert ids(["tcp", "icmp"], [], []) == {1, 2, 3, 4, 5}
    assert ids([], ["close", "syn_sent"], []) == {2, 3, 4}
    assert ids(["tcp"], ["close"], ["4"]) == {3, 4}
    assert ids(["tcp"], ["close"], ["6"]) == set()
    assert all_of([None, None]) is None
    both = all_of([compile_filter("port:443", there), None, compile_filter("proto:udp", there)])
    assert both is not None
    assert not any(map(both, small_table().live.values()))


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "factor"),
    [
        *(("", 1), ("k", 1000), ("M", 1_000_000), ("g", 10**9), ("T", 10**12)),
        *(("Ki", 1024), ("mi", 2**20), ("GI", 2**30), ("ti", 2**40)),
    ],
)
def test_units_of_sizes(text: str, factor: int) -> None:
    fits = compared(f"2.5{text}", SIZES, "")
    assert fits(2.5 * factor)
    assert not fits(2.5 * factor + 1)
    assert compared(f"1{text}-3{text}", SIZES, "")(3 * factor)
    assert not compared(f"1{text}-3{text}", SIZES, "")(3 * factor + 1)
    assert compared(f"0-3{text}", SIZES, "")(3 * factor)


@pytest.mark.parametrize(("text", "factor"), [("", 1), ("s", 1), ("m", 60), ("H", 3600), ("d", 86_400), ("w", 604_800)])
def test_units_of_times(text: str, factor: int) -> None:
    assert compared(f"2{text}", TIMES, "")(2 * factor)


@pytest.mark.parametrize(
    ("text", "below", "at", "above"),
    [
        *(
            (">5", False, False, True),
            (">=5", False, True, True),
            ("<5", True, False, False),
            ("<=5", True, True, False),
        ),
        *(
            ("5", False, True, False),
            ("=5", False, True, False),
            ("5-6", False, True, True),
            ("4-5", True, True, False),
        ),
        *(("5-5", False, True, False), ("6-4", False, False, False)),
    ],
)
def test_comparisons(text: str, below: bool, at: bool, above: bool) -> None:
    fits = compared(text, SIZES, "")
    assert [fits(number) for number in (4, 5, 6)] == [below, at, above]
    assert not fits(None)  # what is unknown fits none


# --- flows whose rates and births are known ---------------------------------------------------------------------------


def test_rates_and_ages_that_are_known() -> None:
    made = small_table()
    flow = next(iter(made.live.values()))
    flow.progress = Progress(rates=(100.0, 50.0), exact=True)

    def wants(expression: str, now: float = 5.0) -> bool:
        wanted = compile_filter(expression, context(now))
        assert wanted is not None
        return wanted(flow)

    assert wants("rate:150")
    assert wants("rate:>149")
    assert not wants("rate:>150")
    assert wants("age:5s")
    assert wants("age:<6s")
    assert not wants("age:>5s")
    assert wants("age:1m-2m", 65.0)


@pytest.mark.usefixtures("_utc")
@pytest.mark.parametrize(
    ("clock", "there"),
    [  # it was there from 12:00:10 to 12:05:00, and now it is 13:00 on 2026-11-26
        *(
            ("11:59", False),
            ("12:00", True),
            ("12:00:09", False),
            ("12:00:10", True),
            ("12:04", True),
            ("12:04:59", True),
        ),
        *(("12:05", True), ("12:05:00", True), ("12:05:01", False), ("12:06", False), ("13:30", False)),
        *(("2026-11-26T12:01", True), ("2026-11-26_12:01", True), ("2026-11-25T12:01", False), ("9:00", False)),
    ],
)
def test_who_was_there_at_a_time(clock: str, there: bool) -> None:
    noon = 1_795_694_400.0
    made = FlowTable()
    lines = [LINES[0].encode() + b"\n", b"[DESTROY] " + LINES[0].encode() + b"\n"]
    for at, flow_line in zip((10.0, 300.0), lines):
        (row,) = split_lines(flow_line)[0]
        flow = made.event(row, at)
    wanted = compile_filter(f"at:{clock}", Context(now=3600.0, epoch=lambda: noon))
    assert wanted is not None
    assert wanted(flow) == there


@pytest.mark.usefixtures("_utc")
def test_the_last_time_that_it_was_so_late() -> None:
    """At one o'clock in the night 23:00 is yesterday's, and a flow that goes on was there at any time since."""
    made = FlowTable()
    (row,) = split_lines(LINES[0].encode() + b"\n")[0]
    flow = made.event(row, 0.0)  # at 22:00
    at_one = Context(now=3 * 3600.0, epoch=lambda: 1_795_730_400.0)
    for clock, there in (
        ("23:00", True),
        ("21:00", False),
        ("00:30", True),
        ("1:00", True),
        ("1:01", False),
        ("2:00", False),
    ):
        wanted = compile_filter(f"at:{clock}", at_one)
        assert wanted is not None
        assert wanted(flow) == there, clock


def test_what_is_new() -> None:
    there = context()
    made = small_table()
    one, *others = made.live.values()
    baseline = Baseline(10.0, there)
    baseline.learn(one)
    for flow in others:
        flow.born = 11.0

    def new(value: str) -> set[int]:
        wanted = compile_filter(f"new:{value}", there, lambda: baseline)
        return {flow.record().id or 0 for flow in filter(wanted, made)}

    assert new("host") == {7, 8}
    assert new("remote") == {2, 4, 6, 7, 8}
    assert new("COUNTRY") == {2, 4}
    assert new("network") == {2, 4}
    assert new("service") == {2, 3, 4, 5, 6, 7, 8}
    assert new("") == new("any") == {2, 3, 4, 5, 6, 7, 8}


# --- bare words -------------------------------------------------------------------------------------------------------

WORDS = ["10.0.0", "443", ":443", "tcp", "udp", "close", "assured", "fwd", "out", "in", "de", "64500", "köln", "http", "::", "6", "ipv4",
         "snat", "0x", "5555:6666", "two words", "unreplied", "hw_off", "offload", "65535", "1:0", "f"]  # fmt: skip


@given(found=records(listed=True), word=st.sampled_from(WORDS), own=st.booleans())
def test_a_bare_word_searches_all_that_is_shown(found: Record, word: str, own: bool) -> None:
    (row,), _ = split_lines(printed(found).encode() + b"\n")
    flow = FlowTable().listed(row, 0.0)
    assert flow is not None
    where = {"10.0.0.1": Place("DE", "Germany", "Köln", 64_500, None), "192.0.2.255": Place("FR")}
    there = Context(Lookups(lambda address: where.get(address, NOWHERE)), own=frozenset({"10.0.0.1"} if own else ()))
    assert bare(word, there)(flow) == (word in shown_text(flow, there))


def test_all_that_is_shown() -> None:
    flows = {flow.record().id: flow for flow in small_table().live.values()}
    there = context()
    assert shown_text(flows[1], there) == (
        f"ipv4 tcp established assured snat {LAN_HOST}:40000 {FAR}:443 {FAR}:443 {GATEWAY}:40001 https fwd us united states mountain view "
        "15169 google llc"
    )
    assert shown_text(flows[6], there) == f"ipv4 unknown  {LAN_HOST} 192.168.1.8 192.168.1.8 {LAN_HOST}  fwd"
    assert shown_text(flows[8], there).startswith("ipv6 udp  unreplied 2001:db8::6:5353 ff02::fb:5353")


def test_what_is_remembered_of_addresses_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "MAX_REMEMBERED", 3)
    there = Context(NO_LOOKUPS, Site(networks=(ip_network("198.18.0.0/15"),)), own=frozenset({GATEWAY}))
    inside = filters.network("10.0.0.0/8")
    for number in range(20):
        assert inside(b"10.0.0.%d" % number)
        assert there.remote_of(b"10.0.0.%d" % number, b"9.9.9.%d" % number) == f"9.9.9.{number}"
        assert there.is_local(f"10.1.0.{number}")
    assert len(there._known) <= 5
    assert len(there._local) <= 5


# --- near and far -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "near", "far", "inward"),
    [
        (1, LAN_HOST, FAR, False),
        (2, LAN_HOST, FAR_DE, True),
        (3, LAN_HOST, FAR, True),
        (4, LAN_HOST, FAR_DE, False),
        (5, LAN_HOST, FAR, False),
    ],
)
def test_the_two_sides_of_a_flow(number: int, near: str, far: str, inward: bool) -> None:
    flow = next(flow for flow in small_table().live.values() if flow.record().id == number)
    assert context().sides(flow) == (near, far, inward)
    assert context().remote_address(flow) == far
    assert context().remote(flow) == PLACED[far]


def plain(src: str, dst: str) -> Flow:
    (row,), _ = split_lines(
        (HEAD.format("9 CLOSE", src, dst, 1, 2) + f"src={dst} dst={src} sport=2 dport=1 mark=0 use=1\n").encode()
    )
    flow = FlowTable().listed(row, 0.0)
    assert flow is not None
    return flow


SIDES = [LAN_HOST, FAR, FAR_DE, GATEWAY, "192.168.1.1", "198.18.0.1", "10.0.0.1"]


@given(
    src=st.sampled_from(SIDES),
    dst=st.sampled_from(SIDES),
    networks=st.booleans(),
    others=st.lists(st.sampled_from(SIDES), max_size=3),
)
@example(src=FAR, dst=FAR_DE, networks=False, others=[])
def test_without_nat_the_quick_way_to_the_sides_says_the_same(
    src: str, dst: str, networks: bool, others: list[str]
) -> None:
    nets = (ip_network("8.8.8.0/24"),) if networks else ()
    there = Context(NO_LOOKUPS, Site(networks=nets), own=frozenset({GATEWAY, "192.168.1.1"}))
    for other in others:
        there.remote_of(other.encode(), dst.encode())
    flow = plain(src, dst)
    far = there.remote_end(flow.ends())
    assert there.remote_of(src.encode(), dst.encode()) == far
    assert there.sides_of(src.encode(), dst.encode()) == ((dst, far, True) if far == src else (src, far, False))
    assert there.sides(flow) == there.sides_of(src.encode(), dst.encode())


def test_when_this_host_s_addresses_change_so_do_the_sides() -> None:
    there = Context(own=frozenset({FAR}))
    assert there.remote_of(FAR.encode(), FAR_DE.encode()) == FAR_DE
    assert there.is_local(FAR)
    there.advance(1.0, frozenset({FAR_DE}))
    assert there.remote_of(FAR.encode(), FAR_DE.encode()) == FAR
    assert not there.is_local(FAR)
    assert there.is_local(FAR_DE)


def test_names_of_marks_and_zones() -> None:
    there = context()
    names = [there.mark_name(mark) for mark in (1, 17, 256, 257, 2, 0)]
    assert names == ["guests", "guests", "vpn", "guests", None, None]
    assert (there.zone_name(3), there.zone_name(4)) == ("office", None)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("port 443", "port:443"),
        ("host 10.0.0.5", "host:10.0.0.5"),
        ("tcp port 443", "tcp port:443"),
        ("src host 10.0.0.5 and dst port 53", "src:10.0.0.5 dport:53"),
        ("src 10.0.0.5", "src:10.0.0.5"),
        ("dst net 192.0.2.0/24", "dst:192.0.2.0/24"),
        ("net 10.0.0.0/8", "host:10.0.0.0/8"),
        ("!(port 443 or proto udp)", "!(port:443 or proto:udp)"),
        ("service:443/tcp", "service:tcp/443"),
    ],
)
def test_words_as_tcpdump_takes_them(typed: str, meant: str) -> None:
    found = [fitting(typed), fitting(meant)]
    assert found[0] == found[1]


@pytest.mark.parametrize("word", ["port", "host", "port or tcp", "port !udp"])
def test_a_word_without_a_value_is_searched_for(word: str) -> None:
    assert compile_filter(word, context()) is not None


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("contry:DE", "unknown field 'contry'; did you mean country?"),
        ("qqq:1", "unknown field 'qqq'; ? on the screen and --help list them"),
        ("state:estab", "'estab' is not a state; did you mean ESTABLISHED?"),
        ("proto:upd", "'upd' is not a protocol: a number up to 255, or a name; did you mean udp?"),
        ("-udp", "write !udp for all but udp"),
        ("host web", "'web' is not an address or a network (10.0.0.0/8, 2001:db8::/32)"),
        ("service:nosuch", "'nosuch' is not a service: tcp/443, https or icmp"),
        ("service:tcp/443/x", "'tcp/443/x' is not a service: tcp/443, https or icmp"),
    ],
)
def test_what_is_meant_is_said_and_no_list_is_cut(typed: str, told: str) -> None:
    with pytest.raises(FilterError) as caught:
        compile_filter(typed, context())
    assert caught.value.message == told
    assert len(told) < 80


def test_a_service_by_its_name_its_port_or_its_protocol() -> None:
    keys = {service_key(flow) for flow in small_table()}
    assert "tcp/443" in keys
    for value, wanted in (
        ("https", {"tcp/443"}),
        ("tcp", {k for k in keys if k.startswith("tcp/")}),
        ("icmp", {"icmp"} & keys),
    ):
        test = compile_filter(f"service:{value}", context())
        assert test is not None
        assert {service_key(flow) for flow in small_table() if test(flow)} == wanted


@pytest.mark.parametrize("now", [0.0, 1e9, 2.6e11, 1e15, -1e15])
@pytest.mark.parametrize("value", ["0001-01-01T00:00", "9999-12-31T23:59", "14:02", "00:00:00"])
def test_no_time_raises_out_of_a_predicate(value: str, now: float) -> None:
    wanted = compile_filter(f"at:{value}", Context(now=now))
    assert wanted is not None
    assert [wanted(flow) for flow in small_table()]
