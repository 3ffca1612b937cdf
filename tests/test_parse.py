"""The parser: whole captures, every kind of line field by field, any bytes, any cut between two reads."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import parse
from parse import Kind, Splitter, join_parts, record, split_lines, tail_of, with_reply

CAPTURES = Path(__file__).parent.parent / "fixtures" / "captures"
FLOW_FILES = sorted(
    path
    for path in CAPTURES.glob("*/*.txt")
    if not any(part in path.name for part in ("expect", "xml", "save", "strace"))
    and path.parent.name not in ("failures", "stats-count")
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
    list(itertools.product(range(3), ("soon", "new=5", "[SHINY]", "[x=a b]", "Ünknown=\xff", "mark"))),
)
def test_unknown_words_are_skipped(where: int, word: str) -> None:
    parts = LINES["both absent"].split(" src=")
    parts[where] += f" {word}"
    found = one(" src=".join(parts))
    plain = one(LINES["both absent"])
    assert (found.original, found.reply, found.kind, found.timeout) == (plain.original, plain.reply, plain.kind, None)
    assert (found.mark, found.use) == (0, 3)


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
    fast = parse._LINE.findall(line)
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
