"""The terminal: modes, size, keys, and frames as one write of what changed.

blessed knows the terminal's colours and keys; everything is plain ANSI. The terminal is written without blocking, on
a file description of its own (O_NONBLOCK on a shared one would follow the user's shell), and while a frame is still
unwritten no new one is made: a viewer that stalls costs frames, never events.
"""

from __future__ import annotations

import base64
import contextlib
import locale
import os
import select
import sys
import termios
import time
import tty  # noqa: F401  without it blessed goes on without keys
from collections.abc import Mapping, Sequence
from itertools import repeat
from operator import ne
from typing import IO

import blessed
from blessed._capabilities import TermcapResponse

from keyboard import Background, Key, Keyboard
from text import ASCII, Glyphs, Line, cells, is_one_cell_each

# blessed 1.52 asks the terminal about itself and waits up to 10 s for the answer of one that has none (a detached
# container's). It reads this when it is imported.
os.environ.setdefault("BLESSED_QUERY_TIMEOUT_SECONDS", "0")


# Bracketed paste (2004): what is pasted would else be keys, and delete, export or quit.
ENTER = "\x1b[?1049h\x1b[?2004h\x1b[?25l\x1b[0m\x1b[2J"
LEAVE = "\x1b[0m\x1b[?2004l\x1b[?25h\x1b[?1049l"
# Buttons and the wheel (1000) in reports of digits (1006); no motion (1002, 1003), which would be hundreds a second.
MOUSE_ON, MOUSE_OFF = "\x1b[?1000h\x1b[?1006h", "\x1b[?1006l\x1b[?1000l"
BEGIN, END = "\x1b[?2026h", "\x1b[?2026l"  # synchronized output: the terminal shows all of a frame or none of it
KEYS_MOST = 200  # keys in one turn of the loop: to press one in a long filter takes 0.1 ms
RESTORE_PATIENCE = 1.0

# The colours of roles on a dark background, on a light one, and where nobody knows which it is: at least 4.5:1 against
# black, against white, and against both (WCAG 2, level AA). Those of the first two are among the 256 of xterm.
_RGB = {
    False: {
        **{"accent": (95, 175, 255), "good": (95, 215, 95), "warn": (215, 175, 0), "bad": (255, 95, 95)},
        **{"nat": (175, 135, 255), "new": (95, 215, 215), "dim": (148, 148, 148), "closed": (128, 128, 128)},
    },
    True: {
        **{"accent": (0, 95, 175), "good": (0, 135, 0), "warn": (135, 95, 0), "bad": (175, 0, 0)},
        **{"nat": (135, 0, 175), "new": (0, 95, 95), "dim": (98, 98, 98), "closed": (108, 108, 108)},
    },
    None: {
        **{"accent": (0, 122, 194), "good": (0, 135, 56), "warn": (152, 109, 0), "bad": (224, 42, 42)},
        **{"nat": (144, 95, 184), "new": (0, 130, 130), "dim": (117, 117, 117), "closed": (117, 117, 117)},
    },
}
# Of 16 colours the terminal says how they look: on white, yellow, cyan, green and magenta have 1.4:1 to 3.7:1 in xterm.
_NAMED = {"accent": "cyan", "good": "green", "warn": "yellow", "bad": "red", "nat": "magenta"}
_NAMED_ON_LIGHT = {"accent": "blue", "bad": "red"}
ASK = "\x1b]11;?\x1b\\"  # which colour is behind the text? (OSC 11)
QUESTION_EVERY = 1.0  # seconds: while a window is dragged, each size would be a question
GREY = 0.179  # luminance that is as far from black as from white
Cell = tuple[str, str]  # what stands in one cell of the terminal, and its role


def glyphs_for(environ: Mapping[str, str]) -> Glyphs:
    """ASCII where the locale is not UTF-8.

    Python puts LC_CTYPE=C.UTF-8 into the environment of a program started in the C locale (PEP 538): that is its
    doing, not the user's word.
    """
    lang = environ.get("LANG", "")
    ctype = environ.get("LC_CTYPE", "")
    if lang in ("", "C", "POSIX") and ctype in ("C.UTF-8", "C.utf8", "UTF-8"):
        ctype = ""
    value = environ.get("LC_ALL") or ctype or lang
    return Glyphs() if "utf-8" in value.lower() or "utf8" in value.lower() else ASCII


def luminance(red: float, green: float, blue: float) -> float:
    """Relative luminance of a colour, its parts and itself from 0 to 1 (WCAG 2)."""
    parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in (red, green, blue)]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def light_by(environ: Mapping[str, str]) -> bool | None:
    """Is the background light, by COLORFGBG ("0;15", rxvt's, and konsole's)? None: it does not say."""
    number = environ.get("COLORFGBG", "").rpartition(";")[2]
    return int(number) in (7, 15) if number.isdecimal() and int(number) < 16 else None


def palette_for(term: blessed.Terminal, colour: bool, light: bool | None = None) -> dict[str, str]:
    """Role -> the sequence that starts it. ``light``: is the background? None: nobody knows."""
    palette = {"title": "\x1b[1m", "head": "\x1b[4m", "key": "\x1b[1m", "selected": "\x1b[7m", "cursor": "\x1b[7m"}
    palette |= {"dim": "\x1b[2m", "closed": "\x1b[2m", "new": "\x1b[1m"}  # faint and bold are no colours
    colours = term.number_of_colors if colour else 0
    if not colours:
        return {**palette, "bad": "\x1b[1m", "warn": "\x1b[1m"}
    if colours <= 16 and light:
        palette |= {role: str(getattr(term, name)) for role, name in _NAMED_ON_LIGHT.items()}
        palette |= {"good": "", "nat": "", "warn": "\x1b[1m"}
    elif colours <= 16:
        palette |= {role: str(getattr(term, name)) for role, name in _NAMED.items()}
        if colours == 16:
            palette |= {"dim": str(term.bright_black), "closed": str(term.bright_black)}
    else:
        palette |= {role: str(term.color_rgb(*rgb)) for role, rgb in _RGB[light].items()}
    return palette


class Silent(blessed.Terminal):
    """A terminal that is asked nothing: its answers come in as keys, or never, and stay in a container's log.

    blessed 1.52 asks for capabilities (XTGETTCAP) and for the terminal's version (XTVERSION) when it is made.
    """

    def __init__(self, stream: IO[str] | None) -> None:
        super().__init__(stream=stream, _xtgettcap_data=TermcapResponse(supported=False))

    def detect_term_program(self, timeout: float = 0.0, force: bool = False) -> bool | str:  # noqa: ARG002
        return True


class Screen:
    """The terminal on standard output. ``enter`` and ``leave`` may be called again and again (Ctrl+Z, attach)."""

    def __init__(self, colour: bool, environ: Mapping[str, str], mouse: bool = True) -> None:
        """``mouse``: its reports are asked for; without them the terminal itself uses it, to mark text."""
        self.term = Silent(stream=sys.__stdout__)
        kind = environ.get("TERM", "")
        self.glyphs = glyphs_for(environ)
        self._colour = colour and not environ.get("NO_COLOR")
        self._light = light_by(environ)
        self.palette = palette_for(self.term, self._colour, self._light)
        self.hung_up = False
        self.more_keys = False  # some wait that read_keys has not given yet, and no poll knows of
        self.keys_due: float | None = None  # when a sequence is waited for no longer (monotonic)
        self._keyboard = Keyboard(locale.getpreferredencoding(False))
        self._waiting: list[Key] = []
        self._out = _own_description()
        self._keys = sys.__stdin__ is not None and sys.__stdin__.isatty()
        self._mouse = mouse
        # Without a keyboard there is no answer; the console of Linux is dark, and has none.
        answers = self._keys and kind != "linux"
        self._asks = answers and self._colour and self._light is None
        self._asked = -QUESTION_EVERY  # when the background was asked for last (monotonic)
        self._lines: list[Line] = []
        self._rows: list[list[Cell]] = []
        self._entered = False  # the alternate screen is on, or will be when what is pending is written
        self._size = (0, 0)
        self._pending = b""
        self._stack = contextlib.ExitStack()

    # --- modes ---

    def enter(self) -> None:
        """Keys one by one and unechoed, no flow control by Ctrl+S, the alternate screen."""
        if self._keys:
            try:
                self._stack.enter_context(self.term.cbreak())
                modes = termios.tcgetattr(0)
                modes[0] &= ~termios.IXON
                termios.tcsetattr(0, termios.TCSANOW, modes)
            except (termios.error, OSError):
                self.hung_up = True
        self.repaint()

    def leave(self) -> None:
        """Give the terminal back as it was. Never raises: the terminal may be gone."""
        if self._entered:
            self._entered = False
            # The rest of a frame that is cut off in the middle would be seen on the user's own screen.
            last = (MOUSE_OFF if self._mouse else "") + LEAVE
            self._finish(b"\x18" + (END + last).encode() if self._pending else last.encode())
        self._pending = b""
        try:
            self._stack.close()
        except (termios.error, OSError, ValueError):
            self.hung_up = True
        self._stack = contextlib.ExitStack()

    def close(self) -> None:
        self.leave()
        os.close(self._out)

    def repaint(self) -> None:
        """The next frame is written whole: a new size, or a viewer that has seen nothing yet."""
        self._lines = []
        self._size = (0, 0)

    def size(self) -> tuple[int, int]:
        """Columns and lines now; (0, 0) in a container that nobody has attached to."""
        try:
            return os.get_terminal_size(self._out)
        except OSError:
            return 0, 0

    # --- keys ---

    def key_fd(self) -> int | None:
        return 0 if self._keys and not self.hung_up else None

    def read_keys(self) -> list[Key]:
        """The keys and pastes that wait; of many some in each turn, so that events and signals have theirs."""
        if self.key_fd() is None:
            return []
        if not self._waiting:
            self._waiting = self._read()
        keys, self._waiting = self._waiting[:KEYS_MOST], self._waiting[KEYS_MOST:]
        self.more_keys = bool(self._waiting)
        return keys

    def _read(self) -> list[Key]:
        """The keys that end with what can be read now, or with nothing more having come in time."""
        keyboard, now = self._keyboard, time.monotonic()
        try:
            if select.select([0], [], [], 0)[0]:
                data = os.read(0, 4096)
                self.hung_up = not data
                keys = keyboard.feed(data)
                if (told := keyboard.background()) is not None:
                    self._take_background(told)
                self.keys_due = None if keyboard.patience is None else now + keyboard.patience
                return keys
        except (OSError, ValueError):
            self.hung_up = True
            return []
        if self.keys_due is None or now < self.keys_due:
            return []
        self.keys_due = None
        return keyboard.give_up()

    def _take_background(self, told: Background) -> None:
        """The palette becomes that of the background, and the next frame is written whole where that is another."""
        light = luminance(*told) > GREY
        if self._asks and light != self._light:
            self._light = light
            self.palette = palette_for(self.term, self._colour, light)
            self._lines, self._rows = [[] for _ in self._lines], [[] for _ in self._rows]

    # --- frames ---

    @property
    def pending(self) -> bool:
        """A frame is not yet written."""
        return bool(self._pending)

    @property
    def out_fd(self) -> int:
        return self._out

    def draw(self, lines: list[Line], width: int, height: int) -> None:
        """Write what changed since the last frame, in one write; nothing if nothing did."""
        parts, asks = [], ""
        if (width, height) != self._size:
            asks = self._question()
            parts.append(ENTER + (MOUSE_ON if self._mouse else ""))
            self._entered = True
            self._lines = [[] for _ in range(height)]
            self._rows = [[] for _ in range(height)]
            self._size = (width, height)
        for y, (old, new) in enumerate(zip(self._lines, lines)):
            if old != new:
                row = _cells_of(new, self.glyphs.ascii)
                parts.append(self._change(y, self._rows[y], row))
                self._rows[y] = row
        self._lines = lines
        if parts:
            self._write((BEGIN + "".join(parts) + END + asks).encode("utf-8", "replace"))

    def _question(self) -> str:
        """What asks for the background, where there may be a new viewer. Nobody waits for the answer: it is a key.

        Frames are drawn only where there is a size: a container that nobody has attached to is not asked.
        """
        now = time.monotonic()
        if not self._asks or now - self._asked < QUESTION_EVERY:
            return ""
        self._asked = now
        return ASK

    def _change(self, y: int, before: list[Cell], after: list[Cell]) -> str:
        """The sequence that turns one row into another: only from the first cell that differs to the last."""
        differ = list(map(ne, before, after))  # as many as the shorter one has: 10 us of 200 cells
        start = differ.index(True) if True in differ else len(differ)
        end = len(after)
        if len(before) == len(after):
            while end > start and not differ[end - 1]:
                end -= 1
        clear = "\x1b[K" if len(before) > len(after) else ""
        text = self._styled(after[start:end]) + clear
        return f"\x1b[{y + 1};{start + 1}H{text}" if text else ""

    def _styled(self, row: Sequence[Cell]) -> str:
        parts = []
        current = ""
        for text, role in row:
            style = self.palette.get(role, "")
            if style != current:
                parts.append(("\x1b[0m" if current else "") + style)
                current = style
            parts.append(text)
        return "".join(parts) + ("\x1b[0m" if current else "")

    def copy(self, text: str) -> None:
        """Hand a text to the terminal's clipboard (OSC 52); terminals that don't know of it say nothing."""
        self._write(b"\x1b]52;c;" + base64.b64encode(text.encode("utf-8", "replace")) + b"\a")

    # --- writing ---

    def _write(self, data: bytes) -> None:
        self._pending += data
        self.flush()

    def flush(self) -> None:
        """Write what the terminal takes now."""
        while self._pending:
            try:
                written = os.write(self._out, self._pending)
            except BlockingIOError:
                return
            except OSError:  # EIO: the terminal is gone
                self.hung_up = True
                self._pending = b""
                return
            self._pending = self._pending[written:]

    def _finish(self, data: bytes) -> None:
        """The last words: with patience, but not for ever."""
        self._pending = data
        until = time.monotonic() + RESTORE_PATIENCE
        self.flush()
        while self._pending and (left := until - time.monotonic()) > 0:
            select.select([], [self._out], [], left)
            self.flush()


def _cells_of(line: Line, ascii_only: bool) -> list[Cell]:
    """A line cell by cell. A wide character's second cell is empty; what has no width belongs to the cell before it."""
    row: list[Cell] = []
    for text, role in line:
        if text.isascii() or (not ascii_only and is_one_cell_each(text)):
            row += zip(text, repeat(role))
            continue
        for char in _ascii(text) if ascii_only else text:
            width = cells(char)
            if width == 0 and row:
                at = len(row) - 1 if row[-1][0] else len(row) - 2
                row[at] = row[at][0] + char, row[at][1]
            elif width:
                row += [(char, role), *[("", role)] * (width - 1)]
    return row


def _ascii(text: str) -> str:
    """The same width without the characters that the terminal does not have."""
    return text if text.isascii() else "".join(char if char.isascii() else "?" * cells(char) for char in text)


def _own_description() -> int:
    """Standard output's terminal, opened anew and non-blocking; a plain copy where that is not allowed."""
    for path in (_name_of(1), "/dev/tty"):
        if path:
            with contextlib.suppress(OSError):
                return os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    return os.dup(1)


def _name_of(fd: int) -> str:
    try:
        return os.ttyname(fd)
    except OSError:
        return ""


def take_keyboard() -> None:
    """Make the terminal standard input where that is something else (a pipe that is replayed, /dev/null, closed)."""
    if sys.__stdin__ is not None and sys.__stdin__.isatty():
        return
    with contextlib.suppress(OSError):
        fd = os.open("/dev/tty", os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(fd, 0)
        os.close(fd)
        if sys.__stdin__ is None:
            sys.__stdin__ = os.fdopen(0, closefd=False)  # type: ignore[misc]  # blessed looks for its number there
