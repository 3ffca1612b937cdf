"""The filter language, on real lines: what each field selects, how words combine, what a wrong expression gets."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addresses import Context, Lookups, Place, Site
from filters import MAKERS, FilterError, bare, compile_filter, from_flags, shown_text
from flows import Flow, FlowTable
from parse import split_lines
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
        ("proto:nosuch", 6, "'nosuch' is no protocol"),
        ("proto:256", 6, "no protocol"),
        ("state:estab", 6, "'estab' is no state"),
        ("src:10.0.0.256", 4, "no address or network"),
        ("src:1.2.3", 4, "no address or network"),
        ("src:10.0.0.0/33", 4, "no address or network"),
        ("port:65536", 5, "no port"),
        ("port:443,http2", 9, "no port"),
        ("port:90-80", 5, "runs backwards"),
        ("port:-1", 5, "no port"),
        ("dir:up", 4, "no direction"),
        ("nat:maskq", 4, "no kind of NAT"),
        ("mark:0xg", 5, "no number"),
        ("flag:x", 5, "no flag"),
        ("bytes:>1X", 6, "no unit"),
        ("bytes:many", 6, "can't be compared"),
        ("bytes:>1-2", 6, "a range and a comparison"),
        ("age:<10M5", 4, "can't be compared"),
        ("asn:google", 4, "no AS number"),
        ("proto:", 6, "a value is missing"),
        ("a or", 4, "a word is missing"),
        ("or a", 0, "a word is missing before 'or'"),
        ("a and", 5, "a word is missing"),
        ("not", 3, "a word is missing"),
        ("(a", 0, "'(' without ')'"),
        ("a)", 1, "')' without '('"),
        ("()", 1, "a word is missing before ')'"),
        ("a && b", 2, "a blank means and; write or"),
        ("bytes>1M", 0, "write bytes:>1M"),
        ("src=10.0.0.1", 0, "write src:10.0.0.1"),
        ('org:"x', 4, "quotation mark without its partner"),
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
    with pytest.raises(ValueError, match="no state"):
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


def test_the_readme_has_the_table_of_the_fields() -> None:
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    table = readme.partition("| word | selects |\n| --- | --- |\n")[2].partition("\n\n")[0]
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
    with pytest.raises(FilterError, match=r"'vnp' is no number .*, and no name; there are: vpn voice both odd"):
        compile_filter("mark:vnp", Context(site=Site(marks=MARKS)))
    with pytest.raises(FilterError, match=r"is no number \(16 or 0x10\)$"):
        compile_filter("mark:vpn", Context())


def test_flags_of_the_command_line_and_the_filter_are_combined() -> None:
    monitor = Monitor([line(1), line(2, state="CLOSE"), line(3, state="CLOSE", dport=80)])
    monitor.view.base = from_flags((), ["close"], (), monitor.view.context)
    monitor.keys("/", *"port:443", "enter")
    assert monitor.ids() == [2]
    monitor.keys("esc")
    assert monitor.ids() == [2, 3]
