"""The parser: whole captures, every kind of line field by field, any bytes, any cut between two reads."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import parse
from parse import (
    USUAL_WORDS,
    Kind,
    Record,
    Splitter,
    is_turned,
    join_parts,
    kind_of,
    record,
    split_lines,
    tail_of,
    usual,
    usual_line,
    usual_places,
    usual_text,
    with_reply,
    words_of,
)
from support.printing import TAGS, head_of, printed, records, rest_text, tuple_text

CAPTURES = Path(__file__).parent.parent / "fixtures" / "captures"
FLOW_FILES = sorted(
    path
    for path in CAPTURES.glob("*/*.txt")
    if not any(part in path.name for part in ("expect", "xml", "save", "strace"))
    and path.parent.name not in ("failures", "stats-count", "odd")
)


def one(line: str | bytes) -> parse.Record:
    data = line if isinstance(line, bytes) else line.encode()
    rows, rejects = split_lines(data + b"\n")
    assert rejects == []
    assert len(rows) == 1
    return record(rows[0])


def test_there_are_captures() -> None:
    assert len(FLOW_FILES) > 250
    assert sum(path.stat().st_size for path in FLOW_FILES) > 500_000


@pytest.mark.parametrize("path", FLOW_FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_line_of_every_capture_is_understood(path: Path) -> None:
    data = path.read_bytes()
    rows, rejects = split_lines(data)
    assert rejects == []
    assert len(rows) == data.count(b"\n")
    for row in rows:
        found = record(row)
        assert found.original.src
        assert found.reply.dst
        assert found.family == ("ipv6" if ":" in found.original.src else "ipv4")


@pytest.mark.parametrize("path", FLOW_FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_row_is_the_line_again(path: Path) -> None:
    """Nothing of a line is lost when it is cut (but the two words that only /proc prints for GRE)."""
    for line in path.read_bytes().splitlines():
        rows, _ = split_lines(line + b"\n")
        assert (b"".join(rows[0][:6]) + with_reply(rows[0][5], tail_of(rows[0]))).replace(
            b"timeout=3, stream_timeout=4 ", b""
        ) == line.replace(b"timeout=3, stream_timeout=4 ", b"") or b"timeout=0, stream_timeout=0" in line


def test_the_library_s_lines_say_what_they_were_made_of() -> None:
    text = (CAPTURES / "library-rendered.txt").read_bytes()
    lines = [line for line in text.split(b"\n") if line and not line.startswith(b"#")]
    rows, rejects = split_lines(b"\n".join(lines) + b"\n")
    assert (len(rows), rejects) == (len(lines), [])
    everything = record(next(row for row in rows if b"4294967295 secctx" in tail_of(row)))
    assert everything.timeout == 431999
    assert everything.state == "ESTABLISHED"
    assert (everything.original.zone, everything.reply.zone, everything.zone) == (5, 6, 7)
    assert (everything.original.packets, everything.reply.bytes) == (1000, 1200000)
    assert everything.flags == ["ASSURED"]
    assert everything.mark == everything.use == everything.id == 4294967295
    assert everything.secctx == "system_u:object_r:unlabeled_t:s0"
    assert everything.delta_time == 61
    assert everything.start == "Sun Nov 22 22:22:49 2026"
    assert everything.stop == "Sun Nov 22 22:23:50 2026"
    assert everything.helper == "ftp"
    assert everything.labels == ["web", "voice call", "dns-cache"]


LINES = {
    "both absent": "ipv4     2 tcp      6 src=192.0.2.10 dst=198.51.100.20 sport=40000 dport=443 src=198.51.100.20 "
    "dst=192.0.2.10 sport=443 dport=40000 [OFFLOAD] mark=0 use=3",
    "icmp": "[1795386749.707531]\t    [NEW] ipv4     2 icmp     1 30 src=192.0.2.1 dst=192.0.2.2 type=8 code=0 id=9 "
    "[UNREPLIED] src=192.0.2.2 dst=192.0.2.1 type=0 code=0 id=10 mark=0 id=1376943993",
    "icmp without id": "icmp     1 30 src=192.0.2.1 dst=192.0.2.2 type=8 code=0 id=9 src=192.0.2.2 dst=192.0.2.1 "
    "type=0 code=0 id=9 mark=0 use=1",
    "gre": "ipv4     2 gre      47 30 src=192.0.2.1 dst=192.0.2.2 srckey=0x1234 dstkey=0xabcd src=192.0.2.2 "
    "dst=192.0.2.1 srckey=0xabcd dstkey=0x1234 mark=0 use=1",
    "esp": "ipv4     2 unknown  50 599 src=192.0.2.1 dst=192.0.2.2 src=192.0.2.2 dst=192.0.2.1 mark=0 use=1 id=5",
    "esp, plain": "unknown  50 599 src=192.0.2.1 dst=192.0.2.2 src=192.0.2.2 dst=192.0.2.1 mark=0 use=1",
    "plain ipv6": "tcp      6 5 ESTABLISHED src=2001:db8::1 dst=2001:db8::2 sport=1 dport=2 src=2001:db8::2 "
    "dst=2001:db8::1 sport=2 dport=1 use=1",
    "userspace": "[1795386749.040951]\t[DESTROY] ipv4     2 tcp      6 58 SYN_SENT src=192.0.2.1 dst=192.0.2.2 sport=1 "
    "dport=80 packets=0 bytes=0 [UNREPLIED] src=192.0.2.2 dst=192.0.2.1 sport=80 dport=1 packets=0 bytes=0 id=7 "
    "[USERSPACE] portid=3404118659 progname=a [NEW] src=1 labels=x id=9",
}


def test_missing_timeout_and_state() -> None:
    found = one(LINES["both absent"])
    assert (found.timeout, found.state, found.flags) == (None, None, ["OFFLOAD"])
    found = one(LINES["both absent"].replace("6 src", "6 120 src", 1))
    assert (found.timeout, found.state) == (120, None)
    found = one(LINES["both absent"].replace("6 src", "6 TIME_WAIT src", 1))
    assert (found.timeout, found.state) == (None, "TIME_WAIT")


def test_icmp_ids_are_told_apart() -> None:
    found = one(LINES["icmp"])
    assert (found.original.icmp_id, found.reply.icmp_id, found.id) == (9, 10, 1376943993)
    assert (found.original.type, found.reply.type) == (8, 0)
    found = one(LINES["icmp without id"])
    assert (found.reply.icmp_id, found.id) == (9, None)


def test_gre_and_unknown_protocols() -> None:
    found = one(LINES["gre"])
    assert (found.original.srckey, found.original.dstkey) == ("0x1234", "0xabcd")
    assert one(LINES["esp"]).kind == Kind("ipv4", "unknown", 50)
    assert one(LINES["esp, plain"]).kind == Kind("", "unknown", 50)
    assert one(LINES["esp, plain"]).timeout == 599
    assert one(LINES["plain ipv6"]).family == "ipv6"


def test_a_program_s_name_is_only_a_name() -> None:
    found = one(LINES["userspace"])
    assert found.portid == 3404118659
    assert found.progname == "a [NEW] src=1 labels=x id=9"
    assert (found.id, found.labels, found.event) == (7, None, "destroy")
    raw = LINES["userspace"].encode().replace(b"progname=a", b"progname=\x1b[31m\xff\x00")
    assert one(raw).progname == "\x1b[31m\ufffd\x00 [NEW] src=1 labels=x id=9"


def test_free_texts_keep_their_blanks() -> None:
    base = "ipv4     2 udp      17 1 src=192.0.2.1 dst=192.0.2.2 sport=1 dport=2 src=192.0.2.2 dst=192.0.2.1 sport=2 dport=1"
    assert one(f"{base} mark=1 secctx=/usr/bin/my prog (enforce) use=2").secctx == "/usr/bin/my prog (enforce)"
    assert one(f"{base} secctx=a b zone=3 use=2").zone == 3
    assert one(f"{base} use=1 id=3 labels=web,voice call").labels == ["web", "voice call"]
    assert one(f"{base} use=1 labels").labels == []
    assert one(f"{base} use=1").labels is None
    assert one(f"{base} [start=Thu Nov  5 00:00:00 2026] use=1").start == "Thu Nov  5 00:00:00 2026"


@pytest.mark.parametrize(
    ("where", "word"),
    list(itertools.product((1, 2), ("new=5", "[SHINY]", "seqadj=1:0", "since=a.b,c"))),
)
def test_words_of_a_newer_conntrack_are_skipped(where: int, word: str) -> None:
    parts = LINES["both absent"].split(" src=")
    parts[where] += f" {word}"
    assert one(" src=".join(parts)) == one(LINES["both absent"])


@pytest.mark.parametrize(
    ("where", "word"),
    [
        *itertools.product(
            range(3), ("soon", "[x=a b]", "Ünknown=\xff", "mark", "=", "12x", "makr=0", "new=", "a=b=c")
        ),
        *((0, "new=5"), (0, "[SHINY]"), (1, "[UNREPLED]"), (2, "[ASURED]")),
    ],
)
def test_a_word_that_damage_may_have_made_makes_a_reject(where: int, word: str) -> None:
    parts = LINES["both absent"].split(" src=")
    parts[where] += f" {word}"
    line = " src=".join(parts).encode()
    assert split_lines(line + b"\n") == ([], [line[:200]])


@pytest.mark.parametrize("word", ["marks=5", "[OFFLOADED]", "zones=1,2"])
def test_a_new_word_that_is_like_an_old_one_is_new_where_most_lines_have_it(word: str) -> None:
    line = LINES["both absent"]
    odd = line.replace(" mark=0", f" {word} mark=0")
    rows, rejects = split_lines(f"{line}\n{odd}\n{odd}\n".encode())
    assert (len(rows), len(rejects)) == (1, 2)
    rows, rejects = split_lines(f"{line}\n{odd}\n{odd}\n{odd}\n".encode())
    assert (len(rows), rejects) == (4, [])
    assert {str(record(row)) for row in rows} == {str(one(line))}


@pytest.mark.parametrize(
    "junk",
    [
        b"conntrack v1.4.7 (conntrack-tools): 2 flow entries have been shown.",
        b"# a comment",
        b"ipv4     2 tcp      6 431999 ESTABLISHED src=192.0.2.10 dst=198.51.100.20 sport=1 dport=2",
        b"src=1.1.1.1 dst=2.2.2.2 src=2.2.2.2 dst=1.1.1.1",
        b"ipv4     2 tcp      6 1 src=1.1.1.1;rm dst=2.2.2.2 src=2.2.2.2 dst=1.1.1.1",
        b"[1795386660.144601]\t    [NEW] 300 proto=6 src=10.99.1.2 dst=10.99.2.2 sport=0 dport=51210 mask-src=255.255.255.255 "
        b"mask-dst=255.255.255.255 sport=0 dport=65535 master-src=10.99.1.2 master-dst=10.99.2.2 sport=1 dport=21 class=0",
        b"\x00\x01\x02",
        b"\xff" * 300,
        b"a" * 70_000,
        b"src=" * 50_000,
    ],
)
def test_junk_is_counted_and_takes_nothing_with_it(junk: bytes) -> None:
    good = LINES["icmp"].encode()
    rows, rejects = split_lines(good + b"\n" + junk + b"\n" + good + b"\n")
    assert len(rejects) == 1
    assert [record(row).id for row in rows] == [1376943993, 1376943993]


def test_a_line_that_was_cut_off_is_no_record() -> None:
    line = LINES["userspace"].split(" [USERSPACE]")[0].encode()
    whole = line + b"\n"
    assert len(split_lines(whole)[0]) == 1
    for end in range(1, len(line)):
        rows, rejects = split_lines(whole + line[:end])
        assert len(rows) + len(rejects) == 2
        # Only a number that was cut can't be told from a shorter one.
        assert (len(rows) == 2) == (end > line.rindex(b" id=") + 4)
    assert len(split_lines(whole + line)[0]) == 2  # the newline alone is missing


def test_carriage_returns_of_a_terminal_between() -> None:
    assert one(LINES["esp"] + "\r").id == 5


def test_of_a_line_over_64_kib_only_a_reject_is_kept() -> None:
    good = LINES["esp"].encode() + b"\n"
    splitter = Splitter()
    out = splitter.feed(good) + splitter.feed(b"x" * 100_000) + splitter.feed(b"y" * 10_000_000)
    out += splitter.feed(b"tail\n" + good) + splitter.feed(good) + splitter.feed(b"")
    rows, rejects = split_lines(out)
    assert len(out) < 1000
    assert (len(rows), len(rejects)) == (3, 1)
    splitter.feed(LINES["esp"].encode() + b" " * 70_000)
    assert len(split_lines(splitter.feed(b"\n"))[1]) == 1
    splitter.feed(b"z" * 70_000)
    assert len(split_lines(splitter.feed(b""))[1]) == 1


# --- properties -------------------------------------------------------------------------------------------------------

SAMPLE = [
    line
    for path in FLOW_FILES
    if path.name.endswith(("labels.txt", "proc.txt", "plain.txt"))
    for line in path.read_bytes().splitlines()[:4]
]
lines_of_captures = st.sampled_from(SAMPLE)


@given(st.binary(max_size=400))
@example(b"[1.1]\t    [NEW] ")
def test_any_bytes_become_rows_or_rejects(data: bytes) -> None:
    rows, rejects = split_lines(data)
    assert len(rows) + len(rejects) == sum(1 for line in data.replace(b"\r\n", b"\n").split(b"\n") if line.strip())
    for row in rows:
        record(row)


@given(lines_of_captures, st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=6)), max_size=4))
@example(line=SAMPLE[0], damage=[(len(SAMPLE[0]), b" src= dst=x")])
def test_damaged_lines_never_raise(line: bytes, damage: list[tuple[int, bytes]]) -> None:
    for at, junk in damage:
        line = line[:at] + junk + line[at + len(junk) :]
    rows, _ = split_lines(line + b"\n")
    for row in rows:
        found = record(row)
        assert found.original.src
        assert found.reply.src


@given(st.lists(lines_of_captures, min_size=1, max_size=8), st.lists(st.integers(0, 2000), max_size=12))
def test_cuts_between_reads_change_nothing(lines: list[bytes], cuts: list[int]) -> None:
    data = b"".join(line + b"\n" for line in lines)
    places = sorted({0, len(data), *(place for place in cuts if place < len(data))})
    splitter = Splitter()
    blocks = [splitter.feed(data[a:b]) for a, b in itertools.pairwise(places)]
    blocks.append(splitter.feed(b""))
    assert b"".join(blocks) == data
    assert all(block.endswith(b"\n") for block in blocks if block)


def test_byte_by_byte() -> None:
    data = b"".join(line + b"\n" for line in SAMPLE[:5]) + b"trailing junk"
    splitter = Splitter()
    blocks = [splitter.feed(bytes([byte])) for byte in data] + [splitter.feed(b"")]
    assert [block for block in blocks if block] == [line + b"\n" for line in SAMPLE[:5]] + [b"trailing junk"]


@given(lines_of_captures)
def test_the_slow_way_round_reads_the_same(line: bytes) -> None:
    """Lines that the one expression can't cut go through a tokeniser; on all others both must agree."""
    fast = parse._with_ports(parse._LINE_END).findall(line)
    slow = parse._split_odd(line)
    assert slow is not None
    if fast:
        assert record(slow) == record(fast[0])
        assert slow[:6] == fast[0][:6]


@pytest.mark.parametrize("path", FLOW_FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_usual_lines_say_the_same_read_the_slow_way(path: Path) -> None:
    rows, _ = split_lines(path.read_bytes())
    for row in rows:
        assert record(row) == record(join_parts(*row[:6], with_reply(row[5], tail_of(row))))


# --- damage -----------------------------------------------------------------------------------------------------------

INSERTED = [b" ", b"\t", b"x", b"Z", b"=", b"[", b"]", b"-", b"\0", b"\xff", b"mark=7", b" id=7 ", b"src=10.0.0.9 "]


@st.composite
def damages(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A line as conntrack printed it, and what became of it: cut, coloured, its words in another order, more in it."""
    line = draw(lines_of_captures)
    at, end = sorted((draw(st.integers(0, len(line) - 1)), draw(st.integers(1, len(line)))))
    words = line.split(b" ")
    number = draw(st.integers(0, len(words) - 2))
    how = draw(st.sampled_from(["cut", "colour", "swap", "insert", "double"]))
    if how == "cut":
        return line, line[:at]
    if how == "colour":  # as grep --color=always marks what it found
        return line, line[:at] + b"\x1b[01;31m\x1b[K" + line[at:end] + b"\x1b[m\x1b[K" + line[end:]
    if how == "insert":
        return line, line[:at] + draw(st.sampled_from(INSERTED)) + line[at:]
    if how == "swap":
        words[number : number + 2] = [words[number + 1], words[number]]
    else:
        words.insert(number, words[number])
    return line, b" ".join(words)


def is_another_whole_line(line: bytes, damaged: bytes) -> bool:
    """Could conntrack have printed what damage left?

    An event that is cut behind or in one of its last words; one with one such word more; and numbers of the head: one
    twice, of which the second is then the timeout, or two that have changed places.
    """
    if b"progname=" in line:  # it may hold anything
        return True
    if line.startswith(damaged):  # in its last number, or an event, which may end in many words
        return bool(WHOLE_EVENT.search(damaged)) and (b"[" in line[:25] or line.rfind(b"=") < len(damaged))
    words, before = damaged.split(), line.split()
    changed = [word for word, was in zip(words, before, strict=False) if word != was]
    if changed and WHOLE_EVENT.fullmatch(changed[0]) and [word for word in words if word != changed[0]] == before:
        return True
    if changed and all(word.isdigit() for word in changed):
        return True
    return any(one == other and one.isdigit() for one, other in itertools.pairwise(damaged.split()))


WHOLE_EVENT = re.compile(rb"(?:(?:[sd]port|bytes|id|mark|zone|delta-time|portid)=\d+|ASSURED\]| \d{4}\])$")


@settings(max_examples=1000)
@given(damages())
def test_damage_leaves_the_right_record_or_a_reject(pair: tuple[bytes, bytes]) -> None:
    line, damaged = pair
    rows, rejects = split_lines(b"\n".join((SAMPLE[0], damaged, SAMPLE[0])) + b"\n")
    assert len(rows) + len(rejects) == 2 + sum(1 for part in damaged.split(b"\n") if part.strip())
    if not is_another_whole_line(line, damaged):
        (whole,), _ = split_lines(line + b"\n")
        (first,), _ = split_lines(SAMPLE[0] + b"\n")
        assert all(record(row) in (record(whole), record(first)) for row in rows)


# --- the parser against a printer of its own: whatever conntrack can print is read as it was meant, to the last word ---


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
    assert (words is not None) == is_usual == (usual_places(usual_text(row)) is not None)
    if words is not None:
        assert usual_line(words) == usual_text(row)
        named = dict(zip(USUAL_WORDS, [None if word is None else word.decode() for word in words], strict=True))
        if named.pop("turned"):
            named |= {f"reply_{name}": named[other] for name, other in TURNED}
        assert named == dict(zip(named, map(as_text, told_words(found)), strict=True))
        places, flags = usual_places(usual_text(row)) or ({}, [])
        split = words_of(usual_text(row))
        known = {name: word for name, word in named.items() if word is not None}
        assert flags == [known.pop(name).encode() for name in ("unreplied", "flag") if name in known]
        assert {name: split[at].decode() for name, at in places.items()} == known


TURNED = (("src", "dst"), ("dst", "src"), ("sport", "dport"), ("dport", "sport"))


def told_words(found: Record) -> list[object]:
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

NEW_WORDS = ["new=5", "[SHINY]", "seqadj=1:0"]


@given(found=records(), at=st.integers(1, 40), word=st.sampled_from(NEW_WORDS))
def test_a_word_that_nobody_knows_changes_nothing_wherever_it_stands(found: Record, at: int, word: str) -> None:
    found.labels = found.portid = found.progname = found.secctx = None  # texts that may hold anything
    words = f"{tuple_text(found.original)} {rest_text(found)}".split(" ")
    at = 1 + at % len(words)
    if any(part.startswith(("[start", "[stop")) for part in words):  # a date's blanks are its own
        at = min(at, 2)
    assert read(f"{head_of(found)}{' '.join([*words[:at], word, *words[at:]])}") == found


@pytest.mark.parametrize(
    ("head", "kind", "timeout", "state"),
    [
        ("ipv4     2 tcp      6 120 SYN_SENT", Kind("ipv4", "tcp", 6), 120, "SYN_SENT"),
        ("ipv4     2 udp      17 30", Kind("ipv4", "udp", 17), 30, None),
        ("udp      17 0", Kind("", "udp", 17), 0, None),
        ("sctp     132 10 COOKIE_WAIT", Kind("", "sctp", 132), 10, "COOKIE_WAIT"),
        ("dccp     33 10 PARTOPEN", Kind("", "dccp", 33), 10, "PARTOPEN"),
        ("dccp     33 10", Kind("", "dccp", 33), 10, None),
        ("tcp\t6\t431999\tESTABLISHED", Kind("", "tcp", 6), 431_999, "ESTABLISHED"),
        ("tcp 6 431999 ESTABLISHED", Kind("", "tcp", 6), 431_999, "ESTABLISHED"),
    ],
)
def test_heads(head: str, kind: Kind, timeout: int, state: str | None) -> None:
    found = read(f"{head} {ENDS} mark=0 use=1")
    assert (found.kind, found.timeout, found.state) == (kind, timeout, state)
    assert (found.mark, found.use) == (0, 1)


@pytest.mark.parametrize(
    "damaged",
    [
        "tcp      6 9 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 src=10.0.0.2 dst=10.0.0.9 sport=2 dport=1",
        "udp      17 9 CLOSE src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 src=10.0.0.2 dst=10.0.0.9 sport=2 dport=1",
        "udp      17 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 src=10.0.0.2 dst=10.0.0.9 sport=2 dport=1",
        "udp      17 9 src=10.0.0 dst=10.0.0.2 sport=1 dport=2 src=10.0.0.2 dst=10.0.0.9 sport=2 dport=1",
        "udp      17 9 src=10.0.0.1 dst=10..0.2 sport=1 dport=2 src=10.0.0.2 dst=10.0.0.9 sport=2 dport=1",
        "udp      17 9 src=2001:::1 dst=2001:db8::2 sport=1 dport=2 src=2001:db8::2 dst=2001:db8::9 sport=2 dport=1",
    ],
)
def test_damage_is_found_among_many_lines_too(damaged: str) -> None:
    """A block of many lines is looked at as a whole."""
    good = "tcp      6 9 CLOSE src=10.0.0.1 dst=10.0.0.2 sport=%d dport=2 src=10.0.0.2 dst=203.0.113.9 sport=2 dport=%d mark=0 use=1"
    lines = [good % (number, number) for number in range(1, 40)]
    lines[20:20] = [damaged + " mark=0 use=1"]
    rows, rejects = split_lines(("\n".join(lines) + "\n").encode())
    assert (len(rows), rejects) == (39, [lines[20].encode()])


ENDS = "src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1"


@pytest.mark.parametrize(
    "head",
    [
        *("ipv4     2 tcp      6 120 soon SYN_SENT", "ipv6     10 udp      17 30", "udp      17 30 soon"),
        *(
            "tcp      6 CLOSE",
            "tcp      6",
            "tcp      6 9",
            "tcp      6 9 soon CLOSE",
            "tcp      120 CLOSE",
            "tcp 6 9 CLOSED",
        ),
        *(
            "udp      6 9 CLOSE",
            "udp      17 9 CLOSE",
            "icmp     1 9",
            "unknown  6 9",
            "unknown  253 9",
            "vrrp     6 9",
        ),
        *(
            "tcp      6 12345678901 CLOSE",
            "tcp      6 7 lower",
            "tcp      6 -7 CLOSE",
            "tcp      6 CLOSE 7",
            "tcp 6 1 2 CLOSE",
        ),
        *(
            "ipv4     10 tcp      6 9 CLOSE",
            "ipv6     2 tcp      6 9 CLOSE",
            "ipv4 tcp      6 9 CLOSE",
            "2 tcp      6 9 CLOSE",
        ),
    ],
)
def test_a_head_that_conntrack_would_not_print_makes_a_reject(head: str) -> None:
    line = f"{head} {ENDS} mark=0 use=1".encode()
    assert split_lines(line + b"\n") == ([], [line])


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
    ("head", "words"),
    [
        *(
            ("tcp      6 9 CLOSE", words)
            for words in ("", "sport=1", "sport=1 dport=", "sport=123456 dport=2", "sport=1 dport=65536")
        ),
        *(
            ("udp      17 9", words)
            for words in ("type=8 code=0 id=9", "dport=1 sport=2", "sport=1 x dport=2", "sport=0x1 dport=2")
        ),
        *(("icmp     1 9", words) for words in ("", "type=8 code=0", "type=8 code=0 id=70000", "sport=1 dport=2")),
        *(("gre      47 9", words) for words in ("", "srckey=0x1", "srckey=1 dstkey=0x2", "srckey=0x1 x dstkey=0x2")),
        ("unknown  50 9", "sport=1 dport=2"),
        ("esp      51 9", ""),  # 51 is ah
    ],
)
def test_tuples_without_what_the_protocol_has_make_a_reject(head: str, words: str) -> None:
    words = words and " " + words
    line = f"{head} src=10.0.0.1 dst=10.0.0.2{words} src=10.0.0.2 dst=10.0.0.1{words} mark=4 use=1 id=77".encode()
    assert split_lines(line + b"\n") == ([], [line])


# --- a last line without its newline ----------------------------------------------------------------------------------

DATE = "Thu Nov  5 00:00:00 2026"
LINE = (
    "ipv4     2 tcp      6 9 CLOSE src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1"
)


@pytest.mark.parametrize(
    ("before", "tail", "is_whole"),
    [
        ("", " mark=0 use=1", True),  # no line before it tells how a line ends
        ("", " [ASSURED] mark=0 use=1", True),
        ("", " mark=0 use=1 id=7 labels=web,voi", True),
        ("= mark=0 use=1", " mark=0 use=2", True),
        ("= mark=0 use=1", " mark=0 use=2 id=3", False),  # this source's lines end in their use
        ("= mark=0 use=1 id=9", " mark=0 use=1", False),
        ("= mark=0 use=1 id=9", " mark=0 use=1 id=3", True),
        ("= mark=0", " mark=0 use=1", True),
        ("= mark=0 use=1x", " mark=0 use=1", True),
    ],
)
def test_a_last_line_without_its_newline_is_taken_only_if_it_looks_whole(
    before: str, tail: str, is_whole: bool
) -> None:
    line = (LINE + tail).encode()
    rows, rejects = split_lines(line, before.encode())
    assert (len(rows), rejects) == ((1, []) if is_whole else (0, [line]))
    assert len(split_lines(line + b"\n", before.encode())[0]) == 1  # with its newline it is a line in any case


@pytest.mark.parametrize(
    ("before", "tail", "is_whole"),
    [
        ("", " mark=7", True),  # an event may end in anything
        ("", " mark=7 [USERSPACE] portid=1 progname=x y", True),
        ("", " helper=ftp", True),
        ("", " mark=7 [USERSPACE] porti", False),
        ("= mark=7 id=9", " mark=7", False),
        ("= mark=7 id=9", " mark=7 id=1", True),
    ],
)
def test_a_last_event_without_its_newline_ends_as_the_one_before_it(before: str, tail: str, is_whole: bool) -> None:
    line = (" [UPDATE] " + LINE + tail).encode()
    rows, rejects = split_lines(line, before.encode())
    assert (len(rows), rejects) == ((1, []) if is_whole else (0, [line]))


@pytest.mark.parametrize(
    "tail",
    [
        "",
        " mark=0",
        " mark=",
        " mark=0 ",
        " mark=0 us",
        " mark=0 use=",
        " mark=0 use=1 ",
        " mark=0 use=1 id=",
        " [ASSUR",
    ],
)
@pytest.mark.parametrize("end", ["", "\n"])
def test_a_listing_s_line_ends_in_its_use_or_its_id(tail: str, end: str) -> None:
    line = (LINE + tail).encode()
    rows, rejects = split_lines(line + end.encode())
    if tail == " mark=0 use=1 " and end:
        assert len(rows) == 1  # a copy has blanks at its ends; without a newline more may have followed
    else:
        assert (rows, rejects) == ([], [line])


def test_the_line_before_the_last_is_the_one_that_counts() -> None:
    block = f"{LINE} use=1 id=1\n{LINE} use=1\n{LINE} use=1".encode()
    assert len(split_lines(block, b"= use=1 id=1")[0]) == 3
    block = f"{LINE} use=1 id=1\n{LINE} use=1 id=2\n{LINE} use=1\n{LINE} use=1 id=1\n".encode()
    assert len(split_lines(block)[0]) == 3  # where most lines have their id, one without was cut
    assert len(split_lines(f"junk\n{LINE} use=1".encode(), b"= use=1 id=1")[0]) == 0


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_blank_lines_are_nothing_and_rejects_are_kept_short() -> None:
    rows, rejects = split_lines(b"\n  \n" + LINE.encode() + b" use=1\n\t\n" + b"z" * 300 + b"\nshort\n")
    assert len(rows) == 1
    assert rejects == [b"z" * 200, b"short"]
    assert split_lines(b"") == ([], [])


def test_a_shortest_line_and_one_that_is_shorter() -> None:
    assert len(split_lines(b"unknown  50 1 src=:: dst=:: src=:: dst=:: use=1\n")[0]) == 1
    assert split_lines(b"unknown  50 1 src=:: dst=:: src=:: dst=: use=1\n")[0] == []


def test_a_line_may_have_64_kib_and_no_more() -> None:
    base = LINE.encode() + b" mark=0 use=1 id=5 labels="
    longest = base + b"x" * (parse.MAX_LINE - len(base))
    for odd in (b"", b" "):  # also where it is read the slow way
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


@pytest.mark.parametrize(("word", "most"), [("mark", 10), ("zone", 5), ("delta-time", 20), ("use", 10)])
def test_numbers_have_as_many_digits_as_the_kernel_gives_them(word: str, most: int) -> None:
    for digits in range(1, 30):
        use = "" if word == "use" else " use=1"
        rows, rejects = split_lines(f"{LINE} {word}={'9' * digits}{use}\n".encode())
        assert (len(rows), len(rejects)) == ((1, 0) if digits <= most else (0, 1))


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("[ASSURED] use=1", "flags", ["ASSURED"]),
        ("secctx=a b use=1", "secctx", "a b"),
        ("secctx=a use=1 labels=b c", "secctx", "a"),
        (f"secctx=a [start={DATE}] [stop={DATE}] use=1", "secctx", "a"),
        ("secctx=a delta-time=5 use=1", "secctx", "a"),
        ("secctx=a helper=b use=1", "secctx", "a"),
        ("secctx=a zone=5 use=1", "zone", 5),
        ("secctx=a use=1 id=5", "id", 5),
        ("use=1 labels=a,b", "labels", ["a", "b"]),
        ("use=1 labels", "labels", []),
        (f"[stop={DATE}] use=1", "stop", DATE),
        ("mark=0xff use=1", "mark", 255),
    ],
)
def test_words_behind_the_tuples(word: str, key: str, value: object) -> None:
    assert getattr(read(f"{LINE} {word}"), key) == value


@pytest.mark.parametrize(
    ("word", "portid", "progname"),
    [
        ("", None, None),
        (" [USERSPACE]", None, None),  # conntrack 1.4.6
        (" [USERSPACE] portid=12", 12, None),
        (" [USERSPACE] portid=1 progname=a b", 1, "a b"),
        (" [USERSPACE] portid=1 progname=", 1, ""),
    ],
)
def test_who_changed_a_flow(word: str, portid: int | None, progname: str | None) -> None:
    found = read(f" [UPDATE] {LINE} mark=1{word}")
    assert (found.portid, found.progname, found.mark) == (portid, progname, 1)


@pytest.mark.parametrize(
    "words",
    [
        *("mark=x", "mark=", "mark=-1", "mark=٣", "mark=0x", "mark=0xfffffffff", "[ASSURED", "(ASSURED]", "helper="),
        *(
            "use=1 mark=0",
            "mark=0 mark=0",
            "[ASSURED] [ASSURED]",
            "id=1",
            "[stop=Thu Nov  5]",
            "mark=1 [USERSPACE] portid=1",
        ),
    ],
)
def test_words_that_conntrack_would_not_print_make_a_reject(words: str) -> None:
    line = f"{LINE} {words} use=1".encode()
    assert split_lines(line + b"\n") == ([], [line])


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
    for odd, helper in itertools.product(("", "[UNREPLIED] ", "odd=1 "), ("", "helper=ftp ")):
        found = read(f"icmp     1 9 {tuples.format(odd)}mark=0 {helper}use=1 id=77")
        assert (found.original.icmp_id, found.reply.icmp_id, found.id) == (5, 5, 77)
        assert (found.original.type, found.reply.type, found.reply.code) == (8, 0, 0)


@pytest.mark.parametrize(
    "reply",
    [
        "src=10.0.0.2 dst=203.0.113.9 sport=2 dport=1",
        "src=203.0.113.9 dst=10.0.0.1 sport=2 dport=1",
        "src=10.0.0.2 dst=10.0.0.1 sport=2 dport=9",
        "src=10.0.0.2 dst=10.0.0.1 sport=9 dport=1",
    ],
)
def test_one_end_that_nat_changed_is_kept(reply: str) -> None:
    line = f"tcp      6 9 CLOSE src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 {reply} use=1"
    assert f"{tuple_text(read(line).reply)}" == reply


def test_carriage_returns_are_a_terminal_s() -> None:
    rows, rejects = split_lines(f"{LINE} use=1\r\n{LINE} use=1 labels=a\rb\r\n".encode())
    assert rejects == []
    assert [record(row).labels for row in rows] == [None, ["a\rb"]]
