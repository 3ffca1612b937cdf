"""From any bytes to the bytes that a terminal gets: nothing from outside may steer it.

The whole way: a recording's bytes (lines of conntrack, real ones and hostile ones, directives), messages of children,
texts of databases, names of hosts -> items -> intake -> table -> view -> frame -> what screen.py writes. Each part has
its own tests (test_parse, test_render, test_geoip); this is about what falls between them.
"""

from __future__ import annotations

import os
import random
import re
import tempfile
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import export
from addresses import Context, Detail, Lookups, Place
from columns import VIEW_BY_NAME, table_text
from flows import FlowTable
from geoip import GeoIP
from intake import Intake, Item, Trouble, explain, not_started
from keys import press
from recording import Replay
from render import frame
from screen import BEGIN, END, ENTER, MOUSE_ON, Screen
from support.program import CAPTURES, FakeConntrack, OnScreen
from support.strategies import any_flow_lines, flow_lines, keys, sizes, wheres
from text import ASCII, ROLES, Glyphs
from view import Rows, RowsWanted, Scene, View, refresh

# Everything that a terminal obeys, and what looks like something else: control characters of both sets, escapes,
# directions, characters without width, private and unassigned ones, lines and paragraphs, half a pair.
BAD = [
    "\x1b[31m",
    "\x1b]0;owned\x07",
    "\x9b2J",
    "\x00",
    "\x07",
    "\x08",
    "\x0e",
    "\x7f",
    "\x85",
    "\u200b",
    "\u202e",
    "\u2066",
]
BAD += [
    "\ufeff",
    "\u00ad",
    "\u2028",
    "\ue000",
    "\U000e0041",
    "\u0378",
    "\udc9b",
    "\r",
    "\x1b(0",
    "\x1bP+q\x1b\\",
    "\x1b[?1049l",
]
bad_texts = st.lists(st.one_of(st.sampled_from(BAD), st.text(max_size=6)), max_size=6).map("".join)
bad_bytes = st.one_of(bad_texts.map(lambda text: text.encode("utf-8", "surrogatepass")), st.binary(max_size=30))


@lru_cache(maxsize=1)
def real_lines() -> list[bytes]:
    """A few lines of every capture."""
    found = []
    for path in sorted(CAPTURES.rglob("*.txt")):
        found += [line + b"\n" for line in path.read_bytes().splitlines()[:6] if b"src=" in line]
    return found


@st.composite
def mutated_lines(draw: st.DrawFn) -> bytes:
    """A real line in which a few places hold something else."""
    line = draw(st.sampled_from(real_lines()))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(line)))
        line = line[:at] + draw(bad_bytes) + line[at + draw(st.integers(0, 9)) :]
    word = draw(st.sampled_from([b"", b"helper=", b"secctx=", b"labels=", b"[USERSPACE] portid=7 progname=", b"mark="]))
    return line.rstrip(b"\n") + b" " + word + draw(bad_bytes).replace(b"\n", b"") + b"\n"


directives = st.one_of(
    st.sampled_from(
        [b"# 1.5 list\n", b"# 2.5 end 1\n", b"# 3.5 facts count=7 max=9 acct=0 events=0\n", b"# 4.5 own 10.0.0.1\n"]
    ),
    bad_bytes.map(lambda text: b"# 4.6 statistics drop=4294967295 x=" + text + b" insert_failed=1\n"),
    bad_bytes.map(lambda text: b"# 5.5 lost " + text + b"\n"),
)
recordings = st.lists(
    st.one_of(flow_lines(), any_flow_lines(), mutated_lines(), directives, bad_bytes), max_size=12
).map(b"".join)


@st.composite
def troubles(draw: st.DrawFn) -> Trouble:
    """A child's death with any words about it, or one that could not be started at all."""
    argv = [draw(bad_texts) or "x", "conntrack", "-L", draw(bad_texts)]
    if draw(st.booleans()):
        problem = not_started(
            argv,
            draw(st.sampled_from([FileNotFoundError(2, "No such file"), PermissionError(), OSError(8, "Exec format")])),
        )
    else:
        known = st.sampled_from(
            [
                "ssh: ",
                "Connection closed by ",
                'Cannot open network namespace "',
                "Error: No such container: ",
                "x conntrack: not found",
            ]
        )
        said = "".join(draw(st.lists(st.one_of(bad_texts, known, st.just("\n")), max_size=5)))
        problem = explain(argv, said, draw(st.sampled_from([1, 127, 255, -9, 0])))
    return Trouble(6.0, draw(st.sampled_from(["listing", "events"])), problem)


class Sheet:
    """A Screen that writes here; its colours are sequences that nobody else would think of."""

    def __init__(self, ascii_only: bool) -> None:
        self.screen = Screen.__new__(Screen)
        self.screen._asks = False
        self.screen._mouse = False
        self.screen.glyphs = ASCII if ascii_only else Glyphs()
        self.screen.palette = {role: f"\x1b[38;5;{77 + i}m" for i, role in enumerate(ROLES)}
        self.screen._entered = False
        self.screen._mouse = True
        self.screen.repaint()
        self.written: list[bytes] = []
        self.screen._write = self.written.append  # type: ignore[method-assign,assignment]
        own = [
            *map(re.escape, [ENTER, MOUSE_ON, BEGIN, END, "\x1b[0m", "\x1b[K", *self.screen.palette.values()]),
            r"\x1b\[\d+;\d+H",
        ]
        self._own = re.compile("|".join(own))

    def foreign(self) -> list[str]:
        """What it wrote that a terminal obeys, without the program's own sequences."""
        return obeyed(self._own.sub("", b"".join(self.written).decode()))


def obeyed(text: str) -> list[str]:
    """The characters of ``text`` that are no plain text."""
    return [char for char in text if unicodedata.category(char)[0] == "C" or unicodedata.category(char) in ("Zl", "Zp")]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bytes") / "some.rec"


def items_of(file: Path, data: bytes) -> Iterator[Item]:
    file.write_bytes(data)
    source = Replay(str(file), 0.0)
    while source.fds() or source.deadline() is not None:
        yield from source.poll()
    yield from source.poll()
    source.close()


@given(
    data=recordings,
    trouble=st.none() | troubles(),
    place=wheres,
    texts=st.tuples(bad_texts, bad_texts, bad_texts),
    steps=st.lists(st.tuples(keys, sizes), min_size=1, max_size=6),
    kind=st.tuples(st.booleans(), st.booleans()),
)
@settings(max_examples=100)
@example(
    data=b"gre      47 2 src=192.0.2.1 dst=192.0.2.2 srckey=0x0 dstkey=0x0 [UNREPLIED] src=192.0.2.2 dst=192.0.2.1 "
    b"srckey=\x1b[31m0x0 dstkey=0x0 mark=0 src=\x1b[2J dst=\xc2\x9b2J use=2 \n",
    trouble=None,
    place=Place(),
    texts=("", "", ""),
    steps=[("", (80, 24))],
    kind=(False, False),
)
def test_no_byte_from_outside_steers_the_terminal(
    file: Path,
    data: bytes,
    trouble: Trouble | None,
    place: Place,
    texts: tuple[str, str, str],
    steps: list[tuple[str, tuple[int, int]]],
    kind: tuple[bool, bool],
) -> None:
    name, typed, said = texts
    ascii_only, live = kind
    context = Context(
        Lookups(where=lambda _: place, detail=lambda _: Detail(place, subdivision=said, sources=(said, typed)))
    )
    table = FlowTable()
    intake = Intake(table)
    for item in items_of(file, data):
        intake.take(item)
    if trouble is not None:
        intake.take(trouble)
    view = View(context)
    sheet = Sheet(ascii_only)
    first, last = [(char, (100, 30)) for char in ("", "/", *typed, "esc")], [("?", (90, 200)), ("x", (90, 200))]
    last += [("esc", (90, 200))] * 3 + [
        ("j", (90, 200)),
        ("enter", (90, 200)),
    ]  # out of all that is open; then details, whole
    for key, size in first + steps + last:
        press(view, table, key)
        view.rows.expire()
        refresh(view, table, (intake.newest or 0.0) + 1.0)
        drawn = frame(Scene(view, table, intake.status, name, live, sheet.screen.glyphs), *size)
        view.drawn(drawn)
        lines = drawn.lines
        assert obeyed("".join(text for line in lines for text, _ in line)) == []
        sheet.screen.draw(lines, *size)
    assert sheet.foreign() == []
    assert obeyed("".join(intake.status.unread())) == []
    assert obeyed("".join(map(str, intake.status.troubles.values()))) == []
    is_clean_in_pipes(table, context)


def is_clean_in_pipes(table: FlowTable, context: Context) -> None:
    """What --once, --json and --csv print goes to terminals, too."""
    spec = VIEW_BY_NAME["connections"]
    wanted = RowsWanted(spec, "", "bytes", reverse=False, closed=False, at_once=True)
    text = table_text(spec, Rows(context).all(wanted, table), context)
    assert set(obeyed(text)) <= {"\n"}
    for flow in table:
        item = export.json_object(flow.record(), flow, context, "list", "1.5")
        for line in (export.json_line(item), export.csv_line(item)):
            assert obeyed(line) == ["\n"]


@given(st.lists(bad_texts.map(lambda text: text.replace("/", "").replace("\0", "")), min_size=1, max_size=2))
@settings(max_examples=40)
def test_names_of_database_files_do_not_steer_it_either(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name in names:
            path = os.path.join(os.fsencode(folder), name.encode("utf-8", "surrogatepass")[:100] + b".mmdb")
            Path(os.fsdecode(path)).write_bytes(b"no database \x1b[2J" + name.encode("utf-8", "surrogatepass"))
            paths.append(os.fsdecode(path))
        geoip = GeoIP((*paths, folder, f"{folder}/{names[0]}/nothing"))
        geoip.open()
        assert len(geoip.notices) >= len(set(paths))
        assert obeyed("".join([*geoip.notices, *geoip.attributions()])) == []


EVIL = "\x1b[2J\u202e\x9b"


@pytest.mark.parametrize(
    "args",
    [
        *([option, EVIL] for option in ("--replay", "--via", "-f", "-p", "-s", "--geoip-db")),
        ["-f", f"port:{EVIL}"],
        [f"--{EVIL}"],
        [EVIL],
    ],
    ids=lambda args: args[0].strip(EVIL),
)
def test_words_of_the_command_line_come_back_harmless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str]
) -> None:
    """On a terminal: in a pipe click takes some of it out."""
    fake = FakeConntrack(tmp_path)
    monkeypatch.chdir(tmp_path)
    with OnScreen(tmp_path, "--once", *args, env=fake.env) as terminal:
        terminal.end()
        assert set(obeyed(terminal.seen.decode())) <= {"\r", "\n"}


# --- hostile recordings -----------------------------------------------------------------------------------------------

RECORDINGS, AT_ONCE = 300, 20  # of them, so many one after the other on one screen
STAMPS = (b"0.0", b"0.000001", b"253402300800.5", b"999999999999.999999", b"-1.0", b"1e400", b"1795386413.5", b"1.5")
NUMBERS = (b"0", b"-1", b"4294967296", b"18446744073709551615", b"9" * 19, b"9" * 400, b"nan", b"1e9")


def hostile(seed: int) -> bytes:
    """A recording of which each part may be wrong: times, numbers, words, lines, newlines."""
    pick = random.Random(seed)
    parts = []
    for _ in range(pick.randrange(5, 60)):
        stamp, number = pick.choice(STAMPS), pick.choice(NUMBERS)
        line = bytearray(pick.choice(real_lines()))
        for _ in range(pick.choice((0, 0, 1, 4))):
            at = pick.randrange(len(line))
            line[at : at + pick.randrange(4)] = pick.choice(
                (b"", number, stamp, *(bad.encode("utf-8", "surrogatepass") for bad in BAD))
            )
        parts.append(
            pick.choice(
                (
                    *(bytes(line),) * 6,
                    b"[%b]\t    [NEW] %b" % (stamp, bytes(line).split(b"\t")[-1].lstrip()),
                    b"# %b %b %b\n" % (stamp, pick.choice((b"list", b"end", b"lost", b"own", b"what")), number),
                    b"# %b facts count=%b max=%b acct=%b x=%b\n" % (stamp, number, number, number, number),
                    b"# %b statistics cpu=%b drop=%b\n" % (stamp, number, number),
                    b"# %b own 10.0.0.1 ::1/%b broadcast=%b %b\n"
                    % (stamp, number, number, pick.choice(BAD[:9]).encode()),
                    pick.randbytes(pick.randrange(300)),
                    b"x" * 70_000,
                )
            )
        )
    return b"".join(parts)


MOMENTS = ("0001-01-01T00:00", "9999-12-31T23:59", "14:02")


@pytest.mark.parametrize("stamp", [1_795_387_256, 253_402_300_800])  # the second one is the first of the year 10000
@pytest.mark.parametrize("moment", MOMENTS)
def test_no_moment_ends_the_screen_while_it_is_typed(tmp_path: Path, moment: str, stamp: int) -> None:
    recording = tmp_path / "one.rec"
    recording.write_bytes(b"# %d.5 list\n%b# %d.7 end 1\n" % (stamp, real_lines()[0], stamp))
    words = ("--no-config", "--replay", str(recording), "--speed", "0")
    with OnScreen(tmp_path, *words, env={"TZ": "<+09>-9"}) as screen:  # in the east the year 10000 begins early
        screen.wait("replay ended")
        screen.type("/at:")
        for typed in range(1, len(moment) + 1):
            screen.type(moment[typed - 1])
            screen.wait("at:" + moment[:typed])
        screen.type("\r")
        screen.wait(f"filter at:{moment}")
        screen.leave()


@pytest.mark.parametrize("first", range(0, RECORDINGS, AT_ONCE))
def test_hostile_recordings_leave_the_screen_up(tmp_path: Path, first: int) -> None:
    recording = tmp_path / "hostile.rec"
    recording.write_bytes(b"\n".join(hostile(seed) for seed in range(first, first + AT_ONCE)))
    with OnScreen(tmp_path, "--replay", str(recording), "--speed", "1000000", "--allow-delete") as screen:
        screen.wait("replay ended")
        for key, title in zip(
            "23456781",
            ("Hosts", "Countries", "Networks", "Services", "NAT", "Events", "Map", "Connections"),
            strict=True,
        ):
            screen.type(key)
            screen.wait(f"\n{title} · ")
        screen.type("\r")  # selects the first one
        screen.wait(lambda: "again" in screen.text)
        for opened, word in (("\r", "original"), ("?", "Help"), ("H", "Health")):
            screen.type(opened)
            screen.wait(word)
            screen.type("\x1b")
            screen.wait(lambda word=word: word not in screen.text)  # type: ignore[misc]
        for moment in ("0001-01-01T00:00", "9999-12-31T23:59"):
            screen.type(f"/\x15at:{moment}")
            screen.wait(f"at:{moment}")
            screen.type("\r")
            screen.wait("q quit")
        screen.leave()
