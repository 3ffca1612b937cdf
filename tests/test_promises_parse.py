"""The parser against a printer of its own: whatever conntrack can print is read as it was meant, to the last word."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import parse
from parse import (
    USUAL_WORDS,
    Kind,
    Record,
    Splitter,
    Tuple,
    is_turned,
    join_parts,
    kind_of,
    record,
    split_lines,
    tail_of,
    usual,
    usual_text,
    with_reply,
)

FAMILIES = {"ipv4": ("ipv4", 2), "ipv6": ("ipv6", 10)}
TAGS = {None: "", "new": "    [NEW] ", "update": " [UPDATE] ", "destroy": "[DESTROY] "}


def tuple_text(side: Tuple) -> str:
    """As libnetfilter_conntrack prints a tuple."""
    words = [f"src={side.src} dst={side.dst}"]
    words += [f"sport={side.sport} dport={side.dport}"] * (side.sport is not None)
    words += [f"type={side.type} code={side.code} id={side.icmp_id}"] * (side.type is not None)
    words += [f"srckey={side.srckey} dstkey={side.dstkey}"] * (side.srckey is not None)
    return " ".join(words)


def counts_text(side: Tuple) -> list[str]:
    return [f"packets={side.packets} bytes={side.bytes}"] * (side.packets is not None)


def head_of(found: Record) -> str:
    """All before the original tuple."""
    family = f"{found.kind.family:<8} {FAMILIES[found.kind.family][1]} " if found.kind.family else ""
    timeout = "" if found.timeout is None else f"{found.timeout} "
    state = "" if found.state is None else f"{found.state} "
    stamp = "" if found.stamp is None else f"[{found.stamp}]\t"
    return f"{stamp}{TAGS[found.event]}{family}{found.kind.protocol:<8} {found.kind.number} {timeout}{state}"


def rest_text(found: Record) -> str:
    """All behind the original tuple."""
    words = [f"zone-orig={found.original.zone}"] * (found.original.zone is not None) + counts_text(found.original)
    words += ["[UNREPLIED]"] * ("UNREPLIED" in found.flags) + [tuple_text(found.reply)]
    words += [f"zone-reply={found.reply.zone}"] * (found.reply.zone is not None) + counts_text(found.reply)
    words += [f"[{flag}]" for flag in found.flags if flag != "UNREPLIED"]
    for name in ("mark", "secmark", "secctx", "zone", "delta-time", "start", "stop", "helper", "use", "id"):
        value = getattr(found, name.replace("-", "_"))
        if value is not None:
            words.append(f"[{name}={value}]" if name in ("start", "stop") else f"{name}={value}")
    if found.labels is not None:
        words.append("labels=" + ",".join(found.labels) if found.labels else "labels")
    if found.portid is not None:
        words.append(f"[USERSPACE] portid={found.portid} progname={found.progname}")
    return " ".join(words)


def printed(found: Record) -> str:
    return f"{head_of(found)}{tuple_text(found.original)} {rest_text(found)}"


# --- strategies -------------------------------------------------------------------------------------------------------

numbers32 = st.sampled_from([0, 1, 9, 16, 4_294_967_295])
counts = st.sampled_from([None, (0, 0), (1, 60), (2**64 - 1, 2**64 - 1)])
ports = st.sampled_from([0, 1, 443, 65_535])
texts = st.sampled_from(["a", "system_u:object_r:unlabeled_t:s0", "two words", "use=7x", "zone", "id=x"])
dates = st.sampled_from(["Thu Nov  5 00:00:00 2026", "Sun Nov 22 22:22:49 2026"])


@st.composite
def tuples(draw: st.DrawFn, family: str, number: int) -> tuple[Tuple, Tuple]:
    hosts = ["10.0.0.1", "192.0.2.255"] if family == "ipv4" else ["::", "2001:db8:1111:2222:3333:4444:5555:6666"]
    one, other = Tuple(draw(st.sampled_from(hosts)), draw(st.sampled_from(hosts))), Tuple()
    if number in (6, 17, 33, 132, 136):
        one.sport, one.dport = draw(ports), draw(ports)
    elif number in (1, 58):
        one.type, one.code, one.icmp_id = draw(st.sampled_from([0, 8, 128])), 0, draw(ports)
    elif number == 47:
        one.srckey, one.dstkey = draw(st.sampled_from(["0x0", "0xffffffff"])), "0x1234"
    other = replace(
        one, src=one.dst, dst=one.src, sport=one.dport, dport=one.sport, srckey=one.dstkey, dstkey=one.srckey
    )
    if draw(st.booleans()):  # NAT
        other.dst = draw(st.sampled_from(hosts))
        other.dport = None if other.dport is None else draw(ports)
        other.icmp_id = None if other.icmp_id is None else draw(ports)
    for side in (one, other):
        side.zone = draw(st.sampled_from([None, None, 0, 65_535]))
    return one, other


@st.composite
def records(draw: st.DrawFn, rare: bool = True) -> Record:
    """Anything that conntrack can print of a flow; ``rare``: words that are not in every line, too."""
    family = draw(st.sampled_from(["ipv4", "ipv6"]))
    protocols = [(6, "tcp"), (17, "udp"), (47, "gre"), (50, "unknown"), (255, "unknown"), (132, "sctp")]
    number, name = draw(st.sampled_from([*protocols, (1, "icmp") if family == "ipv4" else (58, "icmpv6")]))
    one, other = draw(tuples(family, number))
    for side in (one, other):
        side.packets, side.bytes = draw(counts) or (None, None)
    found = Record(Kind(draw(st.sampled_from([family, ""])), name, number), one, other)
    found.stamp = draw(st.sampled_from([None, "1795386413.786793", "1.5"]))
    found.event = draw(st.sampled_from([None, "new", "update", "destroy"]))
    found.timeout = draw(st.sampled_from([None, 0, 431_999, 4_294_967_295]))
    if number in (6, 132):
        found.state = draw(st.sampled_from([None, "ESTABLISHED", "SYN_SENT2", "SHUTDOWN_ACK_SENT", "CLOSE"]))
    found.flags = draw(
        st.sampled_from([[], ["UNREPLIED"], ["ASSURED"], ["OFFLOAD"], ["HW_OFFLOAD"], ["UNREPLIED", "ASSURED"]])
    )
    found.flags = list(found.flags)
    for key in ("mark", "use", "id"):
        setattr(found, key, draw(st.none() | numbers32))
    if rare and draw(st.booleans()):
        for key, values in (
            *(("secmark", numbers32), ("zone", st.sampled_from([0, 65_535])), ("secctx", texts)),
            *(("delta_time", st.sampled_from([0, 61, 2**64 - 1])), ("start", dates), ("stop", dates)),
            *(("helper", st.sampled_from(["ftp", "sip-5060"])), ("labels", st.sampled_from([[], ["a"], ["a b", "c"]]))),
        ):
            setattr(found, key, draw(st.none() | values))
        if draw(st.booleans()):
            found.portid, found.progname = (
                draw(numbers32),
                draw(st.sampled_from(["conntrack", "a [NEW] labels=x id=9"])),
            )
    return found


def read(line: str) -> Record:
    (row,), rejects = split_lines(line.encode() + b"\n")
    assert rejects == []
    return record(row)


@given(records())
def test_what_conntrack_prints_is_read_as_it_was_meant(found: Record) -> None:
    (row,), rejects = split_lines(printed(found).encode() + b"\n")
    assert rejects == []
    assert record(row) == found
    assert found.family == ("ipv6" if ":" in found.original.src else "ipv4")


@given(records())
def test_a_row_s_parts_are_the_line_s(found: Record) -> None:
    (row,), _ = split_lines(printed(found).encode() + b"\n")
    stamp, event, head, timeout, state, original = (part.decode() for part in row[:6])
    assert stamp + event + head + timeout + state == head_of(found)
    assert original == tuple_text(found.original) + " "
    assert event == TAGS[found.event]
    assert timeout == ("" if found.timeout is None else f"{found.timeout} ")
    assert with_reply(row[5], tail_of(row)).decode() == rest_text(found)
    there, back = found.original, found.reply
    turned = (there.src, there.dst, there.sport, there.dport) == (back.dst, back.src, back.dport, back.sport)
    assert is_turned(tail_of(row)) == (turned and there.sport is not None and row[12][:1] != b"s")
    if found.secctx is None:
        assert is_turned(tail_of(row)) == (turned and there.sport is not None)
    assert record(join_parts(*row[:6], with_reply(row[5], tail_of(row)))) == found


@given(records(rare=False))
def test_the_quick_way_reads_usual_lines_and_only_those(found: Record) -> None:
    (row,), _ = split_lines(printed(found).encode() + b"\n")
    words = usual(usual_text(row))
    plain = [found.original.sport, found.original.type, found.reply.sport, found.reply.type]
    is_usual = plain.count(None) == 2 and (plain[0] is None) == (plain[2] is None)
    assert (words is not None) == is_usual
    if words is not None:
        named = dict(zip(USUAL_WORDS, [None if word is None else word.decode() for word in words], strict=True))
        if named.pop("turned"):
            named |= {f"reply_{name}": named[other] for name, other in TURNED}
        assert named == dict(zip(named, map(as_text, words_of(found)), strict=True))


TURNED = (("src", "dst"), ("dst", "src"), ("sport", "dport"), ("dport", "sport"))


def words_of(found: Record) -> list[object]:
    """The record's values in the order of USUAL_WORDS, without "turned"."""
    there, back = ([getattr(side, name) for name in SIDE] for side in (found.original, found.reply))
    unreplied = "UNREPLIED" if "UNREPLIED" in found.flags else None
    flag = next((flag for flag in found.flags if flag != "UNREPLIED"), None)
    more = [flag, found.mark, found.zone, found.delta_time, found.use, found.id]
    return [*there, unreplied, *back, *more]


SIDE = ("src", "dst", "sport", "dport", "type", "code", "icmp_id", "zone", "packets", "bytes")


def as_text(value: object) -> str | None:
    return None if value is None else str(value)


# --- words of others --------------------------------------------------------------------------------------------------

ODD = ["soon", "new=5", "[SHINY]", "[x=a b]", "Ünknown=\xff", "=", "TIMEOUT=1", "[SRC]", "12x"]


@given(found=records(), at=st.integers(0, 40), word=st.sampled_from(ODD))
def test_a_word_that_nobody_knows_changes_nothing_wherever_it_stands(found: Record, at: int, word: str) -> None:
    found.labels = found.portid = found.progname = found.secctx = None  # texts that may hold anything
    lead, words = head_of(found).rstrip(), [tuple_text(found.original), *rest_text(found).split(" ")]
    parts = [*words[0].split(" "), *words[1:]]
    at %= len(parts) + 1
    if any(part.startswith(("[start", "[stop")) for part in parts):  # a date's blanks are its own
        at = min(at, 2)
    assert read(f"{lead} {' '.join([*parts[:at], word, *parts[at:]])}") == found


@pytest.mark.parametrize(
    ("head", "kind", "timeout", "state"),
    [
        ("ipv4     2 tcp      6 120 soon SYN_SENT", Kind("ipv4", "tcp", 6), 120, "SYN_SENT"),
        ("ipv6     10 udp      17 soon 30", Kind("ipv6", "udp", 17), 30, None),
        ("udp      17 30 soon", Kind("", "udp", 17), 30, None),
        ("tcp      6 soon", Kind("", "tcp", 6), None, None),
        ("tcp      6 soon CLOSE", Kind("", "tcp", 6), None, "CLOSE"),
        ("unknown  253 600 soon", Kind("", "unknown", 253), 600, None),
        ("ipv4     2 unknown  253 soon 600", Kind("ipv4", "unknown", 253), 600, None),
        ("tcp      6 431999 ESTABLISHED timeout=3, stream_timeout=4", Kind("", "tcp", 6), 431_999, "ESTABLISHED"),
        ("tcp      6 12345678901 soon", Kind("", "tcp", 6), None, None),
        ("tcp      6 7 soon lower Mixed", Kind("", "tcp", 6), 7, None),
        ("ipv4     2 tcp      6 soon 7", Kind("ipv4", "tcp", 6), 7, None),
    ],
)
def test_heads_with_words_of_others(head: str, kind: Kind, timeout: int | None, state: str | None) -> None:
    found = read(f"{head} src=10.0.0.1 dst=10.0.0.2 src=10.0.0.2 dst=10.0.0.1 mark=0 use=1")
    assert (found.kind, found.timeout, found.state) == (kind, timeout, state)
    assert (found.mark, found.use) == (0, 1)


@pytest.mark.parametrize(
    "head",
    [
        *("soon src=1", "tcp soon", "tcp", "TCP 6 soon", "IPV4 2 tcp 6 soon", "tcp 123456 soon", "tcp six soon"),
        *("seventeen-letters 6 soon", "ipv4 2 tcp 123456 soon", "", "soon", "_ 6 soon"),
    ],
)
def test_what_has_no_protocol_is_no_flow(head: str) -> None:
    line = f"{head} src=10.0.0.1 dst=10.0.0.2 src=10.0.0.2 dst=10.0.0.1 mark=0 use=1\n".encode()
    assert split_lines(line) == ([], [line[:-1]])


@pytest.mark.parametrize(
    "line",
    [
        "tcp      6 9 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 mark=0 use=1 id=3",  # one tuple only
        "tcp      6 9 soon dst=10.0.0.2 src=10.0.0.1",
        "tcp      6 9 soon src=10.0.0.1 src=10.0.0.2 dst=10.0.0.1",  # half of one
        "tcp      6 9 soon src=10.0.0.1 dst=10.0.0.2 src=10.0.0.2",
        "tcp      6 9 soon src=10.0.0.1 dst=10.0.0.2 [USERSPACE] portid=1 progname=x src=10.0.0.2 dst=10.0.0.1",
        "tcp      6 9 soonsrc=10.0.0.1 dst=10.0.0.2 src=10.0.0.2 dst=10.0.0.1",
        "tcp      6 9 soon src=x dst=10.0.0.2 src=10.0.0.2 dst=10.0.0.1",
    ],
)
def test_a_line_without_two_tuples_is_no_flow(line: str) -> None:
    assert split_lines(line.encode() + b"\n") == ([], [line.encode()])


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("sport=1 dport=2 ", {"sport": 1, "dport": 2}),
        ("sport=65535 x dport=0 ", {"sport": 65_535, "dport": 0}),
        ("type=8 code=0 id=9 ", {"type": 8, "code": 0, "icmp_id": 9}),
        ("srckey=0x1 x dstkey=0xffffffff ", {"srckey": "0x1", "dstkey": "0xffffffff"}),
        ("sport=1 ", {}),  # half a pair is none
        ("sport=123456 dport=2 ", {}),
        ("srckey=1 dstkey=0x2 ", {}),
    ],
)
def test_tuples_between_words_of_others(words: str, wanted: dict[str, object]) -> None:
    line = f"tcp      6 9 src=10.0.0.1 odd dst=10.0.0.2 {words}src=10.0.0.2 dst=10.0.0.1 {words}mark=4 use=1 id=77\n"
    (row,), rejects = split_lines(line.encode())
    assert rejects == []
    kept = f"src=10.0.0.1 dst=10.0.0.2 {words.replace('x ', '') if wanted else ''}"
    assert row[5].decode() == kept
    found = record(row)
    assert {key: getattr(found.original, key) for key in wanted} == wanted
    assert (found.original.src, found.original.dst, found.reply.src) == ("10.0.0.1", "10.0.0.2", "10.0.0.2")
    assert found.mark == 4


def test_the_first_of_two_words_counts() -> None:
    found = read("tcp      6 9 odd src=10.0.0.1 dst=10.0.0.2 dst=10.0.0.9 src=10.0.0.2 dst=10.0.0.1 dst=10.0.0.8 use=1")
    assert found.original.dst == "10.0.0.2"
    assert (found.original.src, found.reply.dst) == ("10.0.0.1", "10.0.0.1")


# --- a last line without its newline ----------------------------------------------------------------------------------

LINE = (
    "ipv4     2 tcp      6 9 CLOSE src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1"
)


@pytest.mark.parametrize(
    ("before", "tail", "is_whole"),
    [
        ("", " mark=0 use=1", True),  # no line before it tells how a line ends
        ("", " mark=0", True),
        ("", " mark=", False),
        ("", " mark=0 ", False),
        ("", " mark=0 us", False),
        ("", " [ASSURED] mark=0 use=1", True),
        ("", " [ASSUR", False),
        ("", " [SHINY] mark=0 use=1", False),
        ("", " [start=Thu Nov  5 00:00:00 2026]", True),
        ("", " [start=Thu Nov  5", False),
        ("", " helper=ftp", True),
        ("", " mark=0 use=1 id=7 labels=web,voi", True),
        ("", " mark=0 [USERSPACE] portid=1 progname=x y", True),
        ("= mark=0 use=1", " mark=0", False),  # this source's lines end in their use: this one was cut
        ("= mark=0 use=1", " mark=0 use=2", True),
        ("= mark=0 use=1", " mark=0 use=2 id=3", False),
        ("= mark=0 use=1 id=9", " mark=0 use=1", False),
        ("= mark=0 use=1 id=9", " mark=0 use=1 id=3", True),
        ("= mark=0", " mark=0", True),
        ("= mark=0", " mark=0 use=1", True),
        ("= mark=0 use=1x", " mark=0", True),
    ],
)
def test_a_last_line_without_its_newline_is_taken_only_if_it_looks_whole(
    before: str, tail: str, is_whole: bool
) -> None:
    line = (LINE + tail).encode()
    rows, rejects = split_lines(line, before.encode())
    assert (len(rows), rejects) == ((1, []) if is_whole else (0, [line]))
    assert len(split_lines(line + b"\n", before.encode())[0]) == 1  # with its newline it is a line in any case
    if before.startswith("="):
        rows, rejects = split_lines(f"{LINE}{before[1:]}\n".encode() + line)
        assert (len(rows), len(rejects)) == ((2, 0) if is_whole else (1, 1))


def test_the_line_before_the_last_is_the_one_that_counts() -> None:
    block = f"{LINE} use=1 id=1\n{LINE} use=1\n{LINE} use=1".encode()
    assert len(split_lines(block, b"= use=1 id=1")[0]) == 3
    assert len(split_lines(f"junk\n{LINE} use=1".encode(), b"= use=1 id=1")[0]) == 0


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_blank_lines_are_nothing_and_rejects_are_kept_short() -> None:
    rows, rejects = split_lines(b"\n  \n" + LINE.encode() + b"\n\t\n" + b"z" * 300 + b"\nshort\n")
    assert len(rows) == 1
    assert rejects == [b"z" * 200, b"short"]
    assert split_lines(b"") == ([], [])


def test_a_shortest_line_and_one_that_is_shorter() -> None:
    assert len(split_lines(b"a 1 src=:: dst=:: src=:: dst=::\n")[0]) == 1
    assert split_lines(b"a 1 src=:: dst=:: src=:: dst=:\n")[0] == []


def test_a_line_may_have_64_kib_and_no_more() -> None:
    base = LINE.encode() + b" mark=0 use=1 id=5 labels="
    longest = base + b"x" * (parse.MAX_LINE - len(base))
    for odd in (b"", b"odd "):  # also where it is read the slow way
        line = longest.replace(b"CLOSE ", b"CLOSE " + odd).replace(b"x" * len(odd), b"", 1) if odd else longest
        assert len(line) == parse.MAX_LINE
        assert len(split_lines(b"#\n" + line + b"\n")[0]) == 1
        assert len(split_lines(b"#\n" + line + b"x\n")[0]) == 0
    assert len(split_lines(longest)[0]) == 1
    assert len(split_lines(longest + b"x")[0]) == 0


@pytest.mark.parametrize("size", [parse.MAX_LINE, parse.MAX_LINE + 1])
def test_what_the_splitter_keeps_of_a_line_that_never_ends(size: int) -> None:
    splitter = Splitter()
    line = (LINE + " labels=").encode().ljust(size, b"x")
    assert splitter.feed(line[:-9]) == splitter.feed(line[-9:]) == b""
    whole_line = splitter.feed(b"\n" + LINE.encode())
    assert whole_line == (line + b"\n" if size == parse.MAX_LINE else b"\0" + line[:100] + b"\n")
    assert splitter.feed(b" use=1\n") == LINE.encode() + b" use=1\n"


def test_while_a_line_is_skipped_nothing_is_kept_and_what_follows_is_whole() -> None:
    splitter = Splitter()
    for _ in range(5):
        assert splitter.feed(b"y" * 50_000) == b""
    assert splitter.feed(b"y\nnext\nha") == b"\0" + b"y" * 100 + b"\nnext\n"
    assert splitter.feed(b"lf\n") == b"half\n"
    for _ in range(3):
        splitter.feed(b"z" * 50_000)
    assert splitter.feed(b"") == b"\0" + b"z" * 100
    assert splitter.feed(b"") == b""
    assert splitter.feed(b"after\n") == b"after\n"


def test_a_block_is_what_came_up_to_the_last_newline() -> None:
    splitter = Splitter()
    assert splitter.feed(b"a\nb") == b"a\n"
    assert splitter.feed(b"c") == b""
    assert splitter.feed(b"d\ne\nf") == b"bcd\ne\n"
    assert splitter.feed(b"\n") == b"f\n"
    assert splitter.feed(b"g") == b""
    assert splitter.feed(b"") == b"g"


@example(digits=21)
@given(digits=st.integers(1, 30))
def test_numbers_have_at_most_20_digits(digits: int) -> None:
    (row,), _ = split_lines(f"{LINE} odd mark={'9' * digits} use=1\n".encode())
    assert record(row).mark == (int("9" * digits) if digits <= 20 else None)


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("mark=x", "mark", None),
        ("mark=", "mark", None),
        ("mark=-1", "mark", None),
        ("mark=٣", "mark", None),
        ("[ASSURED", "flags", []),
        ("[ASSURED]", "flags", ["ASSURED"]),
        ("(ASSURED]", "flags", []),
        ("helper=", "helper", ""),
        ("secctx=a b use=1", "secctx", "a b"),
        ("secctx=a labels=b c", "secctx", "a"),
        ("secctx=a [start=b] [stop=c]", "secctx", "a"),
        ("secctx=a delta-time=5", "secctx", "a"),
        ("secctx=a helper=b", "secctx", "a"),
        ("secctx=a zone=5", "zone", 5),
        ("secctx=a id=5", "id", 5),
        ("labelsx", "labels", None),
        ("labels=a,b", "labels", ["a", "b"]),
        ("labels", "labels", []),
        ("[USERSPACE]", "portid", None),
        ("[USERSPACE] portid=12", "portid", 12),
        ("[USERSPACE] portid=12", "progname", None),
        ("[USERSPACE] progname=a b", "progname", "a b"),
        ("[USERSPACE] portid=1 progname=", "progname", ""),
        ("[stop=Thu Nov  5]", "stop", "Thu Nov  5"),
    ],
)
def test_words_behind_the_tuples(word: str, key: str, value: object) -> None:
    assert getattr(read(f"{LINE} {word}"), key) == value


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"ipv4     2 tcp      6 ", Kind("ipv4", "tcp", 6)),
        (b"ipv6     10 udp      17 ", Kind("ipv6", "udp", 17)),
        (b"unknown  10 udp      17 ", Kind("ipv6", "udp", 17)),
        (b"unknown  7 udp      17 ", Kind("unknown", "udp", 17)),
        (b"unknown  50 ", Kind("", "unknown", 50)),
    ],
)
def test_families_by_number(head: bytes, kind: Kind) -> None:
    assert kind_of(head) == kind


def test_an_icmp_id_is_the_tuple_s_and_the_last_one_is_the_flow_s() -> None:
    tuples = "src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id=5 {}src=10.0.0.2 dst=10.0.0.1 type=0 code=0 id=5 "
    for odd in ("", "[UNREPLIED] ", "odd "):
        found = read(f"icmp     1 9 {tuples.format(odd)}mark=0 use=1 id=77")
        assert (found.original.icmp_id, found.reply.icmp_id, found.id) == (5, 5, 77)
        assert (found.original.type, found.reply.type, found.reply.code) == (8, 0, 0)


def test_carriage_returns_are_a_terminal_s() -> None:
    rows, rejects = split_lines(f"{LINE} use=1\r\n{LINE} labels=a\rb\r\n".encode())
    assert rejects == []
    assert [record(row).labels for row in rows] == [None, ["a\rb"]]
