"""What a terminal sends: its bytes -> keys by name, pasted texts, the mouse; any other sequence is swallowed whole.

The grammar is that of ECMA-48 and of xterm's control sequences. Not every sequence is a key: answers to questions of
a program before us, reports of the focus, and keys with Alt have no letter of theirs for us. Of the mouse's reports
those of mode 1006 are read; the older ones, three bytes of any value, are no text in UTF-8 beyond column 95.
"""

from __future__ import annotations

import codecs
import re
from enum import Enum, auto
from typing import NamedTuple

ESC_DELAY = 0.05  # seconds that a lone Esc waits for the rest of an arrow key; ssh sends a key's bytes in one packet
# Seconds that a longer beginning waits for its rest: what TCP takes to send a lost packet again. After Alt+], which
# begins an OSC, too, the keyboard is deaf until so much time has passed without a key.
REST_DELAY = 1.0
PASTE_MOST = 2000  # characters of a paste that are kept: a prompt holds 500
KEPT = 4096  # characters of an unfinished sequence that are kept: what is in it is of no use


class Pasted(NamedTuple):
    """A text that was pasted, as the terminal sent it: it may hold anything."""

    text: str


class Button(Enum):
    """What the mouse did."""

    PRESSED = auto()  # the left button
    WHEEL_UP = auto()
    WHEEL_DOWN = auto()


class Mouse(NamedTuple):
    """A report of the mouse. ``x`` and ``y`` are cells from the left and lines from the top, from 0."""

    button: Button
    x: int
    y: int


class Background(NamedTuple):
    """The colour behind the text, as the terminal has answered: shares of its full red, green and blue."""

    red: float
    green: float
    blue: float


Key = str | Pasted | Mouse  # a key by the name that keys.BINDINGS uses: "j", "enter", "ctrl-c", "f10"

# Of the C1 controls there is an 8-bit form, too: U+009B, or a byte that no UTF-8 character has at this place.
_CSI, _SS3, _OSC, _ST = r"(?:\x1b\[|[\x9b\udc9b])", r"(?:\x1bO|[\x8f\udc8f])", r"(?:\x1b\]|[\x9d\udc9d])", "\x9c\udc9c"
_STRING = r"(?:\x1b[PX^_]|[\x90\x98\x9e\x9f\udc90\udc98\udc9e\udc9f])"  # DCS, SOS, PM, APC
_END = r"\x18\x1a\x03"  # CAN and SUB break any sequence off; Ctrl+C always is a key
_SEQUENCE = re.compile(
    rf"(?P<mouse>\x1b?{_CSI}M)"  # X10: three bytes follow
    rf"|(?P<alt>\x1b?){_CSI}(?:(?P<linux>\[[A-E])|(?P<csi>[ -?]*[@-Z\\-~]|[ -?]+\[|\[(?=[^A-E])))"
    rf"|(?P<meta>\x1b?){_SS3}(?P<ss3>[0-9;]*[ -~])"
    rf"|{_OSC}(?P<osc>[^\x1b\x07{_ST}{_END}]*)(?:\x07|\x1b\\|[{_ST}])"
    rf"|{_STRING}[^\x1b{_ST}{_END}]*(?:\x1b\\|[{_ST}])"
    r"|(?:\x1bN|[\x8e\udc8e])[ -~]"  # SS2
    r"|\x1b[ -/]+[0-~]"  # a character set, ...
    r"|\x1b[^\x1b\x03\[\]ONPX^_ -/]"  # Alt and a key
)
_BEGUN = re.compile(
    rf"\x1b?{_CSI}(?:\[|[ -?]*)"
    rf"|\x1b?{_SS3}[0-9;]*"
    rf"|{_OSC}[^\x1b\x07{_ST}{_END}]*\x1b?"
    rf"|{_STRING}[^\x1b{_ST}{_END}]*\x1b?"
    r"|\x1bN|[\x8e\udc8e]"
    r"|\x1b[ -/]+"
    r"|\x1b\x1b?"
)
_SHORT = re.compile(r"\x1b\x1b?|\x1b[ -/]+")  # what one key of the keyboard begins and ends
_PASTE_ENDS = re.compile(rf"{_CSI}201~")
_PLAIN = re.compile(r"[!-~]+")

# --- keys by their sequences ------------------------------------------------------------------------------------------

_CURSOR = {"A": "up", "B": "down", "C": "right", "D": "left", "H": "home", "F": "end"}
_LETTERS = {**_CURSOR, "P": "f1", "Q": "f2", "S": "f4", "Z": "shift-tab"}
_TILDES = {
    **{1: "home", 3: "delete", 4: "end", 5: "pgup", 6: "pgdn", 7: "home", 8: "end"},
    **{11: "f1", 12: "f2", 14: "f4", 15: "f5", 17: "f6", 20: "f9", 21: "f10"},
}
_LINUX = {"[A": "f1", "[B": "f2", "[D": "f4", "[E": "f5"}
_SINGLE = {**_CURSOR, "P": "f1", "Q": "f2", "S": "f4", "M": "enter"}
_CODES = {27: "esc", 13: "enter", 9: "tab", 127: "backspace", 8: "backspace", 32: "space"}
_CSI_KEY = re.compile(
    r"(?P<number>\d*)(?::(?P<shifted>\d*))?[\d:]*(?:;(?P<mods>\d*)(?::(?P<event>\d+))?)?(?:;(?P<third>\d+))?"
    r"(?P<final>[A-Z~u])"
)
SHIFT, CTRL, LOCKS, RELEASED = 1, 4, 64 + 128, "3"


def _csi_key(text: str) -> str:
    """The key that the rest of a control sequence is; "" for none.

    >>> [_csi_key(text) for text in ("A", "1;5A", "21~", "I", "<0;1;1M", "99;5u", "27;5;99~")]
    ['up', '', 'f10', '', '', 'ctrl-c', 'ctrl-c']
    """
    found = _CSI_KEY.fullmatch(text)
    if found is None or found["event"] == RELEASED:
        return ""
    number, mods = _whole(found["number"], 1), _whole(found["mods"], 1) - 1 & ~LOCKS
    if found["final"] == "u":
        return _key_of_code(number, _whole(found["shifted"], 0), mods)
    if found["final"] == "~" and number == 27 and found["third"]:  # xterm's modifyOtherKeys
        return _key_of_code(int(found["third"][:8]), 0, mods)
    if mods or found["third"]:
        return ""
    return _TILDES.get(number, "") if found["final"] == "~" else _LETTERS.get(found["final"], "")


_MOUSE = re.compile(r"<(\d{1,3});(\d{1,5});(\d{1,5})M")  # m at its end: a button is released
# With Shift, Alt or Ctrl the number is another one: terminals keep Shift for marking text, and the rest means nothing.
_BUTTONS = {0: Button.PRESSED, 64: Button.WHEEL_UP, 65: Button.WHEEL_DOWN}


def _mouse_of(text: str) -> Mouse | None:
    """The report of the mouse (xterm's mode 1006) that the rest of a control sequence is.

    >>> _mouse_of("<0;5;1M"), _mouse_of("<0;5;1m"), _mouse_of("<4;5;1M")
    (Mouse(button=<Button.PRESSED: 1>, x=4, y=0), None, None)
    """
    found = _MOUSE.fullmatch(text)
    button = _BUTTONS.get(int(found[1])) if found else None
    return Mouse(button, int(found[2]) - 1, int(found[3]) - 1) if found and button else None


_COLOUR = re.compile(r"11;rgba?:([0-9a-f]{1,4})/([0-9a-f]{1,4})/([0-9a-f]{1,4})(?:/[0-9a-f]{1,4})?", re.IGNORECASE)


def _background_of(text: str) -> Background | None:
    """The answer to OSC 11 that the rest of an operating system command is (xterm; colours as XParseColor reads them).

    >>> _background_of("11;rgb:ffff/8080/00"), _background_of("10;rgb:0/0/0")
    (Background(red=1.0, green=0.5019607843137255, blue=0.0), None)
    """
    found = _COLOUR.fullmatch(text)
    return Background(*(int(part, 16) / (16 ** len(part) - 1) for part in found.groups())) if found else None


def _whole(digits: str | None, default: int) -> int:
    return int(digits[:8]) if digits else default


def _key_of_code(code: int, shifted: int, mods: int) -> str:
    """A key by its character's number, as terminals send it that a program before us has asked to."""
    if code in _CODES:
        return _CODES[code] if not mods else "shift-tab" if (code, mods) == (9, SHIFT) else ""
    if not 32 < code < 0xD800:
        return ""
    if mods == CTRL and chr(code).isalpha():
        return "ctrl-" + chr(code).lower()
    text = chr(code) if not mods else chr(shifted) if 32 < shifted < 0xD800 else chr(code).upper()
    return text if mods in (0, SHIFT) and text.isprintable() and len(text) == 1 else ""


def _key_of_char(char: str) -> str:
    """The name of a character's key; "" for what has none."""
    if char == " ":
        return "space"
    if char in "\r\n":
        return "enter"
    if char == "\t":
        return "tab"
    if char in "\x7f\x08":
        return "backspace"
    if ord(char) < 27:
        return "ctrl-" + chr(ord(char) + 96) if ord(char) else ""
    return char if char.isprintable() else ""


# --- the bytes --------------------------------------------------------------------------------------------------------


class Keyboard:
    """The bytes of a terminal, as they come, in pieces that may end anywhere."""

    def __init__(self, encoding: str = "utf-8") -> None:
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)("surrogateescape")
        self._part = ""  # the beginning of a sequence; in a paste that of its end
        self._paste: str | None = None  # what has come so far of a paste that goes on
        self._background: Background | None = None

    def feed(self, data: bytes) -> list[Key]:
        """The keys and pasted texts that end with these bytes."""
        text, self._part = self._part + self._decoder.decode(data), ""
        keys: list[Key] = []
        at = 0
        while at < len(text):
            if self._paste is not None:
                at = self._go_on_pasting(text, at, keys)
            elif run := _PLAIN.match(text, at):
                keys += run.group()
                at = run.end()
            elif text[at] == "\x1b" or not text[at].isprintable():
                at = self._take_sequence(text, at, keys)
            else:
                keys += filter(None, [_key_of_char(text[at])])
                at += 1
        return keys

    def background(self) -> Background | None:
        """What the terminal has answered about its background since this was asked last."""
        told, self._background = self._background, None
        return told

    @property
    def patience(self) -> float | None:
        """Seconds that what has begun waits for its rest; None: nothing has."""
        if not self._part and self._paste is None:
            return REST_DELAY if self._decoder.getstate()[0] else None
        return ESC_DELAY if self._paste is None and _SHORT.fullmatch(self._part) else REST_DELAY

    def give_up(self) -> list[Key]:
        """The rest has not come: an Esc was the key, of a paste the end was lost, all else is nothing."""
        part, paste = self._part, self._paste
        self._part, self._paste = "", None
        self._decoder.reset()  # half a character of another encoding would be a control behind the next half
        if paste is not None:
            return [Pasted((paste + part)[:PASTE_MOST])]
        return ["esc"] * len(part) if not part.strip("\x1b") else []

    def _take_sequence(self, text: str, at: int, keys: list[Key]) -> int:
        """A control character, or the sequence that it begins; returns where the next one starts."""
        if (found := _SEQUENCE.match(text, at)) is not None:
            if found["mouse"] is not None:
                return self._skip_mouse(text, found.end(), at)
            if found["csi"] == "200~":
                self._paste = ""
            if found["osc"] is not None:
                self._background = _background_of(found["osc"]) or self._background
            key = self._key_of(found)
            keys += [key] if key else []
            return found.end()
        begun = _BEGUN.match(text, at)
        if begun is None:  # a control character that begins nothing
            name = _key_of_char(text[at])
            keys += [name] if name else []
            return at + 1
        if begun.end() == len(text):
            part = begun.group()
            self._part = part if len(part) <= KEPT else part[:3] + part[-1]
            return len(text)
        if begun.group() == "\x1b\x1b":  # two presses of it, or one and a key with Alt
            keys.append("esc")
            return at + 1
        # Broken off: what is there is no part of it, and an Esc at its end begins another one.
        return begun.end() - begun.group()[1:].endswith("\x1b")

    def _key_of(self, found: re.Match[str]) -> str | Mouse:
        """The key that a whole sequence is; with Alt none is one, but Tab: the console of Linux means Shift."""
        if found[0] == "\x1b\t":
            return "shift-tab"
        if found["csi"] is not None:
            return "" if found["alt"] else _mouse_of(found["csi"]) or _csi_key(found["csi"])
        if found["ss3"] is not None:
            return _SINGLE.get(found["ss3"], "") if not found["meta"] else ""
        return _LINUX.get(found["linux"] or "", "") if not found["alt"] else ""

    def _skip_mouse(self, text: str, at: int, start: int) -> int:
        """The three bytes behind CSI M: what was pressed, column, line, each 32 or more."""
        size = 0
        while size < 3:
            if at == len(text):
                self._part = text[start:]
                break
            if ord(text[at]) < 32:
                break
            size += len(text[at].encode(self._encoding, "surrogateescape"))
            at += 1
        return at

    def _go_on_pasting(self, text: str, at: int, keys: list[Key]) -> int:
        """The text up to the paste's end, or all there is but for what its end may begin with."""
        assert self._paste is not None
        if (end := _PASTE_ENDS.search(text, at)) is not None:
            keys.append(Pasted((self._paste + text[at : end.start()])[:PASTE_MOST]))
            self._paste = None
            return end.end()
        split = max(at, len(text) - len("\x1b[201"))
        self._paste = (self._paste + text[at:split])[:PASTE_MOST]
        self._part = text[split:]
        return len(text)
