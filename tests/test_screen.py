"""The terminal: frames by differences, one write each, never waiting; glyphs, palettes, keys; giving it back."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pyte
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import screen as module
from keyboard import Key
from screen import ASK, BEGIN, END, ENTER, LEAVE, MOUSE_OFF, Screen, glyphs_for, light_by, luminance, palette_for
from support.strategies import monitors
from support.tables import Monitor, line
from support.waiting import wait_for
from text import ASCII, ROLES, Glyphs, Line, cells, clip

UTF8 = {"TERM": "xterm-256color", "LANG": "C.UTF-8"}


class Pty:
    """A pseudo-terminal in place of this process's standard input and output, and a screen that reads it."""

    def __init__(self, width: int = 80, height: int = 24) -> None:
        self.master, self.slave = pty.openpty()
        os.set_blocking(self.master, False)
        self.terminal = pyte.Screen(width, height)
        self.stream = pyte.ByteStream(self.terminal)
        self.resize(width, height)
        self.saved: list[int] = []

    def take(self) -> None:
        """Become this process's terminal. Not in a fixture: pytest puts its own files there before the test runs."""
        if not self.saved:
            self.saved = [os.dup(0), os.dup(1)]
            os.dup2(self.slave, 0)
            os.dup2(self.slave, 1)

    def resize(self, width: int, height: int) -> None:
        self.terminal.resize(height, width)
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def read(self) -> bytes:
        """What was written since the last call."""
        data = b""
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self.master, 1 << 16):
                data += part
        self.stream.feed(data)
        return data

    def press(self, text: str | bytes) -> None:
        os.write(self.master, text.encode() if isinstance(text, str) else text)
        assert select.select([self.slave], [], [], 10)[0]

    def waiting(self) -> int:
        """Bytes that are there to be read."""
        return int(struct.unpack("i", fcntl.ioctl(self.slave, termios.FIONREAD, bytes(4)))[0])

    def close(self) -> None:
        for number, fd in enumerate(self.saved):
            os.dup2(fd, number)
            os.close(fd)
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def tty(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pty]:
    """This process's own terminal is a pseudo-terminal as long as the test lasts."""
    made = Pty()
    monkeypatch.setattr(sys, "__stdin__", SimpleNamespace(isatty=lambda: True, fileno=lambda: 0))
    monkeypatch.setattr(sys, "__stdout__", SimpleNamespace(isatty=lambda: True, fileno=lambda: 1, encoding="utf-8"))
    yield made
    made.close()


MakeScreen = Callable[..., Screen]


@pytest.fixture
def make(tty: Pty) -> Iterator[MakeScreen]:
    """Screens on that terminal; closed when the test ends."""
    made: list[Screen] = []

    def screen(colour: bool = True, enter: bool = True, mouse: bool = True, **environ: str) -> Screen:
        tty.take()
        new = Screen(colour, {**UTF8, **environ}, mouse)
        made.append(new)
        if enter:
            new.enter()
        return new

    yield screen
    with contextlib.suppress(OSError):
        tty.read()
    for screen_ in made:
        with contextlib.suppress(OSError):
            screen_.close()


# --- frames by differences --------------------------------------------------------------------------------------------

letters = st.sampled_from(["a", "b", " ", "漢", "字", "é", "e\u0301", "…", "█"])
spans = st.lists(st.tuples(st.lists(letters, max_size=6).map("".join), st.sampled_from(ROLES)), max_size=4)


@st.composite
def pictures(draw: st.DrawFn) -> tuple[list[Line], int, int]:
    width, height = draw(st.sampled_from([(12, 4), (7, 2), (3, 3), (1, 1)]))
    lines = [clip(draw(spans), width) for _ in range(height)]
    for at, spans_ in enumerate(lines):  # pyte scrolls for a mark behind the last column; xterm adds it to the letter
        if sum(cells(text) for text, _ in spans_) == width:
            lines[at] = [(text.replace("\u0301", ""), role) for text, role in spans_]
    if draw(st.booleans()):  # a full line: what is written in the last column must not wrap
        lines[0] = clip([("漢字" * width, "warn")], width)
    return lines, width, height


class Paper:
    """A Screen whose writes go straight to a terminal in memory."""

    def __init__(self, ascii_only: bool = False, colour: bool = True) -> None:
        self.screen = Screen.__new__(Screen)
        self.screen._asks = False
        self.screen.glyphs = ASCII if ascii_only else Glyphs()
        self.screen.palette = {role: f"\x1b[{30 + i % 8};{1 + i // 8 * 2}m" for i, role in enumerate(ROLES) if i}
        self.screen.palette = self.screen.palette if colour else {}
        self.screen._entered = False
        self.screen._mouse = True
        self.screen.repaint()
        self.written: list[bytes] = []
        self.screen._write = self.written.append  # type: ignore[method-assign,assignment]
        self.terminal = pyte.Screen(12, 4)
        self.stream = pyte.ByteStream(self.terminal)

    def draw(self, picture: tuple[list[Line], int, int]) -> bytes:
        lines, width, height = picture
        self.terminal.resize(height, width)
        self.written.clear()
        self.screen.draw(lines, width, height)
        data = b"".join(self.written)
        self.stream.feed(data)
        return data

    def picture(self) -> list[object]:
        """Every cell: what stands there and how it looks. pyte joins marks to letters; a blank's colour is not seen."""
        screen = self.terminal
        return [[screen.buffer[y][x] for x in range(screen.columns)] for y in range(screen.lines)]


@given(st.lists(pictures(), min_size=1, max_size=6), st.booleans())
@settings(max_examples=400, deadline=None)
@example([([[("漢字", "plain")]], 6, 1), ([[("x字", "plain")]], 6, 1)], False)
@example([([[("ex", "plain")]], 6, 1), ([[("e\u0301x", "plain")]], 6, 1), ([[("ex", "warn")]], 6, 1)], False)
@example([([[("abcdef", "warn")]], 6, 1), ([[("ab", "plain")]], 6, 1)], False)
def test_differences_leave_the_same_screen_as_the_whole(
    frames: list[tuple[list[Line], int, int]], ascii_only: bool
) -> None:
    by_differences, whole = Paper(ascii_only), Paper(ascii_only)
    for picture in frames:
        by_differences.draw(picture)
    whole.draw(frames[-1])
    assert by_differences.picture() == whole.picture()


@given(
    monitors(),
    st.lists(st.tuples(st.sampled_from("jksnrzop?/GTx"), st.sampled_from([(40, 10), (80, 24), (9, 3)])), max_size=5),
)
@settings(max_examples=40, deadline=None)
def test_differences_of_real_frames(monitor: Monitor, steps: list[tuple[str, tuple[int, int]]]) -> None:
    by_differences, whole = Paper(), Paper()
    size = (80, 24)
    for key, size in [("", (80, 24)), *steps]:
        monitor.keys(key)
        monitor.refresh(1)
        last = monitor.frame(*size)
        by_differences.draw((last, *size))
    whole.draw((last, *size))
    assert by_differences.picture() == whole.picture()


@given(pictures(), st.booleans())
@settings(deadline=None)
def test_the_same_frame_again_writes_nothing(picture: tuple[list[Line], int, int], ascii_only: bool) -> None:
    paper = Paper(ascii_only)
    assert paper.draw(picture)
    lines, width, height = picture
    assert paper.draw(([list(line) for line in lines], width, height)) == b""


@given(st.lists(pictures(), min_size=1, max_size=4))
@settings(deadline=None)
def test_a_frame_is_one_synchronized_write(frames: list[tuple[list[Line], int, int]]) -> None:
    paper = Paper()
    for picture in frames:
        data = paper.draw(picture)
        assert len(paper.written) <= 1
        if data:
            assert data.startswith(BEGIN.encode())
            assert data.endswith(END.encode())
            assert data.count(BEGIN.encode()) == data.count(END.encode()) == 1


def test_only_what_changed_is_written() -> None:
    paper = Paper()
    paper.draw(([[("one two three", "plain")], [("below", "plain")]], 20, 2))
    data = paper.draw(([[("one 222 three", "plain")], [("below", "plain")]], 20, 2))
    assert data == f"{BEGIN}\x1b[1;5H222{END}".encode()


def test_a_wide_character_without_a_glyph_keeps_its_width() -> None:
    paper = Paper(ascii_only=True)
    paper.draw(([[("漢字e\u0301|", "plain")]], 12, 1))
    assert paper.terminal.display[0].rstrip() == "????e|"


# --- a real terminal --------------------------------------------------------------------------------------------------


def test_what_is_drawn_is_on_the_terminal(tty: Pty, make: MakeScreen) -> None:
    screen = make()
    monitor = Monitor([line(n, dst=f"203.0.113.{n}") for n in range(1, 50)])
    for size in [(80, 24), (40, 10), (1, 1), (120, 30)]:
        tty.resize(*size)
        assert screen.size() == size
        lines = monitor.frame(*size)
        screen.draw(lines, *size)
        tty.read()
        assert tty.terminal.display == ["".join(text for text, _ in spans).ljust(size[0]) for spans in lines]


def test_the_terminal_is_given_back(tty: Pty, make: MakeScreen) -> None:
    before = termios.tcgetattr(tty.slave)
    screen = make()
    inside = termios.tcgetattr(tty.slave)
    assert not inside[3] & (termios.ECHO | termios.ICANON)
    assert not inside[0] & termios.IXON
    screen.draw([[("hello", "plain")]], 80, 24)
    screen.leave()
    assert termios.tcgetattr(tty.slave) == before
    data = tty.read()
    assert data.count(b"\x1b[?1049h") == data.count(b"\x1b[?1049l") == 1
    assert data.endswith(LEAVE.encode())


@pytest.mark.parametrize("mouse", [True, False])
def test_the_mouse_is_asked_for_and_given_back_each_time(tty: Pty, make: MakeScreen, mouse: bool) -> None:
    """Also by Ctrl+Z and fg; without it nothing is said of the mouse: a program around this one may have it."""
    screen = make(mouse=mouse)
    for _ in range(2):
        screen.draw([[("hello", "plain")]], 80, 24)
        screen.leave()
        data = tty.read()
        for on, off in ((b"\x1b[?1000h", b"\x1b[?1000l"), (b"\x1b[?1006h", b"\x1b[?1006l")):
            assert data.count(on) == data.count(off) == mouse
            assert data.rfind(on) <= data.rfind(off)
        screen.enter()


def test_the_terminal_is_given_back_when_it_is_to_be_drawn_anew(tty: Pty, make: MakeScreen) -> None:
    """A new size and the end in the same moment: the frame that a repaint asks for never comes."""
    screen = make()
    screen.draw([[("hello", "plain")]], 80, 24)
    screen.repaint()
    screen.leave()
    assert tty.read().endswith(LEAVE.encode())


def test_a_terminal_that_was_never_drawn_on_is_left_alone(tty: Pty, make: MakeScreen) -> None:
    screen = make()
    screen.leave()
    assert tty.read() == b""


def test_leaving_and_entering_again_draws_whole(tty: Pty, make: MakeScreen) -> None:
    screen = make()
    lines: list[Line] = [[("hello", "plain")]]
    screen.draw(lines, 80, 24)
    screen.leave()
    tty.read()
    screen.enter()
    screen.draw(lines, 80, 24)
    assert ENTER.encode() in (data := tty.read())
    assert b"hello" in data


def stall(tty: Pty) -> None:
    """Fill the terminal's buffer: nobody reads it."""
    fd = os.open(os.ttyname(tty.slave), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
    while select.select([], [fd], [], 0.1)[1]:  # the kernel moves what was written on, and there is room again
        with contextlib.suppress(BlockingIOError):
            os.write(fd, b"x" * 4096)
    os.close(fd)


def test_a_viewer_that_stalls_stops_no_one(tty: Pty, make: MakeScreen) -> None:
    screen = make()
    stall(tty)
    for number in range(3):
        screen.draw([[(f"frame {number} " * 8, "plain")]] * 24, 80, 24)
        assert screen.pending
        screen.flush()
    assert not screen.hung_up
    while screen.pending:
        tty.read()
        screen.flush()
    tty.read()
    assert tty.terminal.display[5].startswith("frame 2 frame 2")


def test_leaving_a_stalled_terminal_does_not_wait_for_ever(
    tty: Pty, make: MakeScreen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RESTORE_PATIENCE", 0.05)
    before = termios.tcgetattr(tty.slave)
    screen = make()
    stall(tty)
    screen.draw([[("x" * 80, "plain")]] * 24, 80, 24)
    screen.leave()
    assert termios.tcgetattr(tty.slave) == before


def test_what_was_cut_off_is_ended_before_the_terminal_is_given_back(tty: Pty, make: MakeScreen) -> None:
    """The rest of a half-written sequence would be seen on the user's own screen."""
    screen = make()
    screen.draw([[("first", "plain")]] * 24, 80, 24)
    screen._pending = b"\x1b[3"  # as a short write leaves it
    os.write(screen.out_fd, b"\x1b[3")
    screen.leave()
    data = tty.read()
    assert data.endswith(b"\x1b[3\x18" + (END + MOUSE_OFF + LEAVE).encode())


def test_a_terminal_that_is_gone_is_noticed(tty: Pty, make: MakeScreen) -> None:
    screen = make()
    os.close(tty.master)
    screen.draw([[("x", "plain")]], 80, 24)
    assert screen.hung_up
    assert not screen.pending
    assert screen.key_fd() is None
    assert screen.read_keys() == []
    screen.leave()
    tty.master = os.open(os.devnull, os.O_RDONLY)


def test_the_shells_own_description_stays_blocking(tty: Pty, make: MakeScreen) -> None:
    make()
    assert os.get_blocking(0)
    assert os.get_blocking(1)
    assert os.get_blocking(tty.slave)


# --- keys -------------------------------------------------------------------------------------------------------------


def keys_until(screen: Screen, number: int) -> list[Key]:
    """Read on, as the loop does, until there are so many keys."""
    got: list[Key] = []
    while len(got) < number:
        due = screen.keys_due
        wait = 10.0 if due is None else max(0.0, due - time.monotonic())
        assert screen.more_keys or select.select([0], [], [], wait)[0] or due is not None
        got += screen.read_keys()
    return got


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("jk", ["j", "k"]),
        ("\x1b[A\x1b[B\x1b[C\x1b[D", ["up", "down", "right", "left"]),
        ("\x1bOA", ["up"]),
        ("\x1b[5~\x1b[6~\x1b[H\x1b[F", ["pgup", "pgdn", "home", "end"]),
        ("\x1bOP\x1b[21~", ["f1", "f10"]),
        ("\r\n ", ["enter", "enter", "space"]),
        ("\x7f\x08\x1b[3~", ["backspace", "backspace", "delete"]),
        ("\x02\x04\x06\x15\x0c", ["ctrl-b", "ctrl-d", "ctrl-f", "ctrl-u", "ctrl-l"]),
        ("\x1b", ["esc"]),
        ("é漢", ["é", "漢"]),
        ("/?\\", ["/", "?", "\\"]),
    ],
)
def test_keys_have_the_names_that_the_view_knows(tty: Pty, make: MakeScreen, typed: str, names: list[str]) -> None:
    screen = make()
    tty.press(typed)
    assert keys_until(screen, len(names)) == names


def test_no_key_of_a_paste_is_lost_and_none_waits_for_another(tty: Pty, make: MakeScreen) -> None:
    """What has been read from the terminal no poll tells of any more: ``more_keys`` does."""
    screen = make()
    tty.press("j" * 3000)
    wait_for(lambda: tty.waiting() == 3000, what="all keys")  # the kernel may bring them in pieces of 2 KiB
    got = screen.read_keys()
    while screen.more_keys:
        got += screen.read_keys()
    assert got == ["j"] * 3000


@pytest.mark.parametrize(
    "junk", [b"\xff\xfe\x80", b"\x1b[999;999;999Z", b"\x1b[<35;10;10M", b"\x1b]11;rgb:0/0/0\x07", b"\0"]
)
def test_junk_from_the_keyboard_does_no_harm(tty: Pty, make: MakeScreen, junk: bytes) -> None:
    screen = make()
    tty.press(junk + b"\x1b[B")
    assert keys_until(screen, 1) == ["down"]
    assert not screen.hung_up


# --- what the terminal can --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"LANG": "C"}, ASCII),
        ({}, ASCII),
        ({"LANG": "de_DE.ISO-8859-1"}, ASCII),
        ({"LANG": "de_DE.UTF-8"}, Glyphs()),
        ({"LANG": "C.utf8"}, Glyphs()),
        ({"LANG": "de_DE.UTF-8", "LC_ALL": "C"}, ASCII),
        ({"LANG": "C", "LC_ALL": "en_US.UTF-8"}, Glyphs()),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, ASCII),  # Python's own doing (PEP 538)
        ({"LANG": "en_US.UTF-8", "LC_CTYPE": "C.UTF-8"}, Glyphs()),
    ],
)
def test_glyphs_follow_the_locale(environ: dict[str, str], expected: Glyphs) -> None:
    assert glyphs_for(environ) == expected


class Colours(SimpleNamespace):
    """As much of blessed's Terminal as a palette needs."""

    def __getattr__(self, name: str) -> str:
        return f"<{name}>"

    def color_rgb(self, *rgb: int) -> str:
        return f"<{self.number_of_colors}:{rgb}>"


@pytest.mark.parametrize("colours", [0, 8, 16, 256, 1 << 24])
def test_palettes(colours: int) -> None:
    palette = palette_for(Colours(number_of_colors=colours), colour=True)  # type: ignore[arg-type]
    assert set(palette) <= set(ROLES)
    signals = ("accent", "good", "warn", "bad", "nat", "new")
    if colours:
        assert len({palette[role] for role in signals}) == len(signals)
    assert palette["selected"] == palette["cursor"] == "\x1b[7m"
    assert palette["closed"] not in ("", palette.get("plain", ""))  # a closed flow is seen to be one everywhere
    if colours > 16:
        assert all(f"<{colours}:" in palette[role] for role in signals)


WHITE, BLACK = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)
XTERM = {"31": (205, 0, 0), "34": (0, 0, 238)}  # its own red and blue


def colour_of(sequence: str) -> tuple[float, float, float] | None:
    """The colour of a sequence, of a true one, of one of 256, or of xterm's first eight; None for none."""
    if found := re.search(r"38;2;(\d+);(\d+);(\d+)m", sequence):
        red, green, blue = map(int, found.groups())
    elif found := re.search(r"38;5;(\d+)m", sequence):
        number = int(found[1])
        assert number >= 16  # the first 16 are whatever the terminal says
        steps = [0, 95, 135, 175, 215, 255]
        grey = (8 + (number - 232) * 10,) * 3
        at = number - 16
        red, green, blue = grey if number >= 232 else (steps[at // 36], steps[at // 6 % 6], steps[at % 6])
    elif found := re.search(r"\x1b\[(3[0-7])m", sequence):
        red, green, blue = XTERM[found[1]]
    else:
        return None
    return red / 255, green / 255, blue / 255


def contrast(one: tuple[float, float, float], other: tuple[float, float, float]) -> float:
    low, high = sorted((luminance(*one), luminance(*other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(
    ("colours", "light", "grounds"),
    [
        *((1 << 24, True, [WHITE]), (256, True, [WHITE]), (8, True, [WHITE])),
        *((1 << 24, False, [BLACK]), (256, False, [BLACK]), (1 << 24, None, [WHITE, BLACK])),
    ],
)
def test_text_stands_out_from_the_background(
    make: MakeScreen,
    monkeypatch: pytest.MonkeyPatch,
    colours: int,
    light: bool | None,
    grounds: list[tuple[float, float, float]],
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    term = make(enter=False).term
    term.number_of_colors = colours
    palette = palette_for(term, colour=True, light=light)
    found = {role: colour for role, sequence in palette.items() if (colour := colour_of(sequence)) is not None}
    assert {"accent", "bad"} <= set(found)
    assert colours == 8 or {"good", "warn", "nat", "dim", "closed", "new"} <= set(found)
    for role, colour in found.items():
        for ground in grounds:
            assert contrast(colour, ground) >= 4.5, (role, ground)


def test_white_on_black_is_21_to_1() -> None:
    assert round(contrast(WHITE, BLACK), 2) == 21
    assert round(contrast((0x76 / 255,) * 3, WHITE), 2) == 4.54  # the example of WCAG's texts


@pytest.mark.parametrize(
    ("value", "light"),
    [("0;15", True), ("15;0", False), ("0;default;15", True), ("7;8", False), ("", None), ("x", None), ("0;99", None)],
)
def test_colorfgbg_says_how_light_it_is(value: str, light: bool | None) -> None:
    assert light_by({"COLORFGBG": value}) is light


def test_the_background_is_asked_for_with_the_first_frame_and_its_answer_is_no_key(tty: Pty, make: MakeScreen) -> None:
    screen = make()
    screen.term.number_of_colors = 1 << 24
    screen.draw([[("warn", "warn")]], 80, 24)
    assert tty.read().count(ASK.encode()) == 1
    before = screen.palette
    screen.repaint()
    screen.draw([[("warn", "warn")]], 80, 24)
    assert ASK.encode() not in tty.read()  # a moment later: that is the same viewer
    tty.press("\x1b]11;rgb:ffff/ffff/f0f0\x1b\\")
    assert screen.read_keys() == []
    assert screen.palette != before
    screen.draw([[("warn", "warn")]], 80, 24)
    assert screen.palette["warn"].encode() in tty.read()
    light = screen.palette
    tty.press("j\x1b]11;rgb:1e/1e/2e\ak")
    assert screen.read_keys() == ["j", "k"]
    assert screen.palette not in (before, light)
    tty.press("\x1b]11;rgb:zz/1e/2e\a\x1b]4;1;rgb:ff/ff/ff\a")
    assert screen.read_keys() == []
    assert screen.palette not in (before, light)


@pytest.mark.parametrize("how", [{"NO_COLOR": "1"}, {"colour": False}, {"COLORFGBG": "0;15"}, {"TERM": "linux"}])
def test_who_can_not_answer_or_has_said_it_is_not_asked(tty: Pty, make: MakeScreen, how: dict[str, str | bool]) -> None:
    screen = make(**how)
    screen.draw([[("warn", "warn")]], 80, 24)
    assert b"\x1b]11" not in tty.read()


@pytest.mark.parametrize("how", [{"NO_COLOR": "1"}, {"colour": False}])
def test_no_colour_means_none(tty: Pty, make: MakeScreen, how: dict[str, str | bool]) -> None:
    screen = make(**how)
    screen.draw([[(role, role) for role in ROLES]], 200, 24)
    data = tty.read()
    assert {int(n) for n in re.findall(rb"\x1b\[(\d+)m", data)} <= {0, 1, 2, 4, 7}
    assert not re.search(rb"\x1b\[[^hlHJKm]*;[^hlHJKm]*m", data)


@pytest.mark.parametrize(
    ("environ", "sequence"),
    [
        ({"TERM": "xterm"}, rb"\x1b\[3[1-7]m"),
        ({"TERM": "xterm-256color"}, rb"\x1b\[38;5;\d+m"),
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, rb"\x1b\[38;2;\d+;\d+;\d+m"),
    ],
)
def test_colours_are_those_that_the_terminal_has(
    tty: Pty, make: MakeScreen, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], sequence: bytes
) -> None:
    for name in ("TERM", "COLORTERM", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    # blessed asks curses, which knows one terminal a process: the palette is made as for a terminal of that kind.
    kinds = {"xterm": 8, "xterm-256color": 256}
    screen = make(enter=False, **environ)
    screen.term.number_of_colors = 1 << 24 if "COLORTERM" in environ else kinds[environ["TERM"]]
    screen.palette = palette_for(screen.term, colour=True)
    screen.enter()
    screen.draw([[("warn", "warn")]], 80, 24)
    assert re.search(sequence, tty.read())


def test_nothing_is_asked_of_the_terminal(tty: Pty, make: MakeScreen) -> None:
    """What it answers would come in as keys; one that does not answer would be waited for."""
    make()
    assert tty.read() == b""
