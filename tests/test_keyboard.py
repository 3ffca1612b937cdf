"""What a terminal sends: keys by name, pastes whole, and nothing of any other sequence, wherever it is cut."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from keyboard import ESC_DELAY, PASTE_MOST, REST_DELAY, Button, Key, Keyboard, Mouse, Pasted
from support.program import OnScreen, environment
from support.tables import event, many, twenty
from support.terminal import Tmux
from support.waiting import wait_for

CI = os.environ.get("CI", "").lower() == "true"
DOWN = b"\x1b[B"


def keys_of(*pieces: bytes) -> list[Key]:
    """What pieces that come one after the other are, and what is left when no more comes."""
    keyboard = Keyboard()
    return [*(key for piece in pieces for key in keyboard.feed(piece)), *keyboard.give_up()]


# --- the grammar ------------------------------------------------------------------------------------------------------

chars = st.sampled_from([*"aqjx/\\?;:rgb0159", "ö", "字", "\r", "\t", " "])  # letters that would be keys
text = st.lists(chars, max_size=8).map("".join)
either = st.sampled_from  # the 7-bit form, or the 8-bit one


def joined(*parts: st.SearchStrategy[str] | str) -> st.SearchStrategy[bytes]:
    strategies = [st.just(part) if isinstance(part, str) else part for part in parts]
    return st.tuples(*strategies).map(lambda found: "".join(found).encode("utf-8", "surrogateescape"))


CSI, SS3, OSC = (
    either(pair) for pair in (["\x1b[", "\x9b", "\udc9b"], ["\x1bO", "\x8f", "\udc8f"], ["\x1b]", "\x9d", "\udc9d"])
)
ENDS = either(["\x1b\\", "\x9c", "\udc9c"])
STRINGS = either([f"\x1b{char}" for char in "PX^_"] + ["\x90", "\x98", "\x9e", "\udc9f"])
parameters = st.lists(either("019;:"), max_size=5).map("".join)
control = joined(
    *(CSI, either(["", "?", ">", "<", "="]), parameters, either(["", " ", "!", "'", "$"])),
    # Finals that no key of ours has; M without parameters is the old report of the mouse.
    either("GIJKLNORSTVWXYabcdfghijklmnopqrstvwxyz{|}^`@"),
).filter(lambda data: not re.fullmatch(rb"(\x1b\[|\xc2?\x9b)[\d;:]*(S|\$)", data))
mouse = st.one_of(
    joined(CSI, "<", parameters, either("Mm")).filter(lambda data: not re.search(rb"<0+;\d+;\d+M$", data)),
    joined(CSI, either(["0;1;1", "35;120;9"]), "M"),
    st.tuples(*[st.integers(32, 255)] * 3).map(lambda found: b"\x1b[M" + bytes(found)),
)
sequences = st.one_of(
    control,
    mouse,
    joined(SS3, either("jklmnopqrstuvwxyX EGR0")).filter(lambda data: data[-1:] != b"0"),
    joined(OSC, text, st.one_of(ENDS, st.just("\x07"))),
    joined(STRINGS, text, ENDS),
    joined("\x1b", either("()*+#% "), either("0ABGq@8~")),
    joined("\x1b", either("acjkq789=>\\|~")),
)


@given(sequences)
@settings(max_examples=300, deadline=None)
@example(b"\x1b]11;rgb:ffff/ffff/ffff\x1b\\")
@example(b"\x1b]11;rgb:ffff/ffff/ffff\x07")
@example(b"\x1bP>|XTerm(390)\x1b\\")
@example(b"\x1b[M\xffjx")
@example(b"\x1b[I")
@example(b"\x1b[O")
def test_a_sequence_that_nobody_knows_is_no_key_wherever_it_is_cut(data: bytes) -> None:
    for cut in range(len(data)):
        pieces = [data[:cut], data[cut:]]
        assert keys_of(*pieces) == []
        assert keys_of(b"j", *pieces, b"k", DOWN) == ["j", "k", "down"]
    assert keys_of(*(data[at : at + 1] for at in range(len(data)))) == []
    assert keys_of(data + data + DOWN + b"q") == ["down", "q"]


@given(
    st.lists(st.one_of(sequences, st.sampled_from([b"j", b"\x1b[A", b"\x1b[21~", b"\r", "ö".encode()])), max_size=6),
    st.data(),
)
@settings(max_examples=200, deadline=None)
def test_the_pieces_make_no_difference(parts: list[bytes], draw: st.DataObject) -> None:
    data = b"".join(parts)
    cuts = sorted(draw.draw(st.sets(st.integers(0, len(data)), max_size=4)))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)])]
    assert keys_of(*pieces) == keys_of(data)


@given(st.lists(st.binary(max_size=8), max_size=4))
@settings(max_examples=400, deadline=None)
def test_no_bytes_do_harm(pieces: list[bytes]) -> None:
    """Whatever comes, and however much of it is waited for: after that a key is one again."""
    keyboard = Keyboard()
    for piece in pieces:
        assert all(key for key in keyboard.feed(piece))
    keyboard.give_up()
    assert keyboard.patience is None
    assert keyboard.feed(DOWN)[-1:] == ["down"]


@pytest.mark.parametrize("encoding", ["utf-8", "iso-8859-1", "ascii", "cp1252", "gb18030"])
def test_every_encoding_has_the_same_keys(encoding: str) -> None:
    keyboard = Keyboard(encoding)
    assert keyboard.feed(b"j\x1b[A\x1b[M !!\x1b]11;rgb:0/0/0\x07\x1b[Ik") == ["j", "up", "k"]


@pytest.mark.parametrize("key", ["\r", "\x03", "j"])
def test_a_sequence_that_is_broken_off_takes_no_key_with_it(key: str) -> None:
    """Alt+[ begins a sequence; a control character ends it and counts."""
    name = {"\r": "enter", "\x03": "ctrl-c", "j": ""}[key]
    assert keys_of(b"\x1b[", key.encode(), b"k") == [*filter(None, [name]), "k"]
    assert keys_of(b"\x1b]0;left over", b"\x03") == ["ctrl-c"]
    assert keys_of(b"\x1b]0;left over", DOWN, b"k") == ["down", "k"]


def test_what_never_ends_is_not_kept() -> None:
    keyboard = Keyboard()
    for _ in range(100):
        assert keyboard.feed(b"\x1b]52;c;" + b"QUJD" * 1000) == []
    assert len(keyboard._part) < 10_000
    assert keyboard.feed(b"\x1b") == []
    assert keyboard.feed(b"\\j") == ["j"]


# --- the mouse --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("csi", [b"\x1b[", b"\xc2\x9b", b"\x9b"])
def test_the_mouse_is_read_wherever_its_report_is_cut(csi: bytes) -> None:
    data = csi + b"<0;140;41M"
    for cut in range(len(data) + 1):
        assert keys_of(b"j", data[:cut], data[cut:], b"k") == ["j", Mouse(Button.PRESSED, 139, 40), "k"]


@pytest.mark.parametrize(
    ("sent", "done"),
    [
        ("<0;1;1M", [Mouse(Button.PRESSED, 0, 0)]),
        ("<64;300;90M", [Mouse(Button.WHEEL_UP, 299, 89)]),
        ("<65;2;3M", [Mouse(Button.WHEEL_DOWN, 1, 2)]),
        ("<0;1;1m", []),  # released
        ("<4;1;1M", []),  # with Shift: the terminal marks text
        ("<2;1;1M", []),  # the right button
        ("<32;1;1M", []),  # moved
        ("<66;1;1M", []),  # the wheel to the left
        ("<0;123456;1M", []),
        ("<0;1M", []),
        ("<1000;1;1M", []),
        ("0;1;1M", []),  # of another mode
    ],
)
def test_what_the_mouse_does(sent: str, done: list[Mouse]) -> None:
    assert keys_of(b"\x1b[" + sent.encode()) == done


# --- keys -------------------------------------------------------------------------------------------------------------


def test_a_lone_esc_is_a_key_after_a_moment() -> None:
    keyboard = Keyboard()
    assert keyboard.feed(b"\x1b") == []
    assert keyboard.patience == ESC_DELAY
    assert keyboard.give_up() == ["esc"]
    assert keyboard.patience is None
    assert keyboard.feed(b"\x1b") == []
    assert keyboard.feed(b"[A") == ["up"]  # an arrow key that was cut behind its first byte
    assert keys_of(b"\x1b", b"\x1b") == ["esc", "esc"]
    assert keys_of(b"\x1b\x1bj") == ["esc"]  # and Alt+j
    assert keys_of(b"\x1b[") == []
    assert keyboard.feed(b"\x1b]11;rgb:0/0/0\x1b") == []  # its end is cut in the middle: no Esc
    assert keyboard.patience == REST_DELAY
    assert keyboard.give_up() == []


@pytest.mark.parametrize(
    ("sent", "names"),
    [
        ("\x1bj\x1bq\x1b/", []),  # Alt
        ("\x1b\x1b[A\x1b\x1bOB", []),  # Alt and an arrow key, of rxvt and PuTTY
        ("\x1b[1;5A\x1b[1;2B\x1b[3;5~\x1bO5P\x1b[15;2~", []),
        ("\x1b[1;129A\x1b[1;1B", ["up", "down"]),  # kitty: number lock is on
        ("\x1b[97;1:3u\x1b[1;1:3A", []),  # a key is released
        (
            "\x1b[27u\x1b[13u\x1b[9;2u\x1b[99;5u\x1b[106u\x1b[47:63;2u",
            ["esc", "enter", "shift-tab", "ctrl-c", "j", "?"],
        ),
        ("\x1b[27;5;117~\x1b[27;2;71~", ["ctrl-u", "G"]),
        ("\x1b[[A\x1b[[E\x1b[[B\x1b[[C", ["f1", "f5", "f2"]),  # the console of Linux
        ("\x1b[11~\x1b[12~\x1b[14~\x1b[15~\x1b[17~\x1b[20~\x1b[21~", ["f1", "f2", "f4", "f5", "f6", "f9", "f10"]),
        ("\x1b[1~\x1b[4~\x1b[7~\x1b[8~\x1bOH\x1bOF", ["home", "end"] * 3),
        ("\x1b[Z\x1bOM", ["shift-tab", "enter"]),
        ("\udce9j", ["j"]),  # of a Latin-1 terminal
    ],
)
def test_keys_of_many_terminals(sent: str, names: list[str]) -> None:
    assert keys_of(sent.encode("utf-8", "surrogateescape")) == names


CAPABILITIES = {
    **{"kcuu1": "up", "kcud1": "down", "kcuf1": "right", "kcub1": "left", "kpp": "pgup", "knp": "pgdn"},
    **{"khome": "home", "kend": "end", "kdch1": "delete", "kcbt": "shift-tab", "kbs": "backspace"},
    **{"kf1": "f1", "kf2": "f2", "kf4": "f4", "kf5": "f5", "kf6": "f6", "kf9": "f9", "kf10": "f10"},
}


@pytest.mark.parametrize("kind", ["xterm", "xterm-256color", "linux", "rxvt-unicode", "screen", "tmux", "vt220"])
def test_keys_are_those_of_the_system_s_own_list(kind: str) -> None:
    """What terminfo says that a terminal sends is a key, or no key; never another one."""
    if shutil.which("infocmp") is None and not CI:
        pytest.skip("infocmp is not installed")
    listed = subprocess.run(["infocmp", "-1", "-x", kind], capture_output=True, text=True, check=False).stdout
    found = re.findall(r"^\t(\w+)=(.*),$", listed, re.M)
    assert found or kind not in ("xterm", "linux")
    for name, sent in found:
        if name in CAPABILITIES:
            data = (
                sent.replace("\\E", "\x1b")
                .replace("^H", "\x08")
                .replace("^I", "\t")
                .replace("^?", "\x7f")
                .replace("\\177", "\x7f")
            )
            assert keys_of(data.encode()) == [CAPABILITIES[name]], (name, sent)


# --- pastes -----------------------------------------------------------------------------------------------------------


@given(st.text(st.sampled_from("jq/\x1b[201~ \r\n\x00漢"), max_size=30), st.data())
@settings(max_examples=200, deadline=None)
def test_a_paste_comes_whole_wherever_it_is_cut(pasted: str, draw: st.DataObject) -> None:
    if "\x1b[201~" in pasted:
        return
    data = b"j\x1b[200~" + pasted.encode() + b"\x1b[201~k"
    cuts = sorted(draw.draw(st.sets(st.integers(0, len(data)), max_size=4)))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)])]
    # A beginning of the end just before the end is text, too.
    assert keys_of(*pieces) == ["j", Pasted(pasted), "k"]


def test_a_paste_that_never_ends_ends_after_a_while_and_is_not_kept_for_ever() -> None:
    keyboard = Keyboard()
    assert keyboard.feed(b"\x1b[200~port:443") == []
    assert keyboard.patience == REST_DELAY
    assert keyboard.give_up() == [Pasted("port:443")]
    assert keyboard.feed(b"\x1b[200~" + b"x" * 100_000) == []
    assert keyboard.feed(b"x" * 100_000) == []
    assert len(keyboard._paste or "") == PASTE_MOST
    assert keyboard.feed(b"\x1b[201~q") == [Pasted("x" * PASTE_MOST), "q"]


def test_a_paste_goes_into_the_prompt_as_text() -> None:
    from keys import paste

    monitor = many()
    monitor.keys("/")
    monitor.type("dst:")
    paste(monitor.view, "203.0.113.7\r\n")
    monitor.refresh()
    assert monitor.view.prompt is not None
    assert monitor.view.prompt.text == "dst:203.0.113.7"
    assert monitor.ids() == [7]  # at once, as if it had been typed
    paste(monitor.view, "\x1b[31m  proto:tcp\n\u202e")
    assert monitor.view.prompt.text == "dst:203.0.113.7[31m proto:tcp"
    assert monitor.view.prompt.cursor == len(monitor.view.prompt.text)
    monitor.keys("ctrl-u", "home")
    paste(monitor.view, "x" * 9999)
    assert monitor.view.prompt.text == "x" * 500
    monitor.keys("esc", "e")
    paste(monitor.view, "a/")
    assert monitor.view.prompt.text == "conntrack-connections.jsona/"


def test_a_paste_without_a_prompt_is_dropped() -> None:
    from keys import paste

    monitor = twenty()
    before = monitor.ids(), monitor.view.spec, monitor.view.sort, monitor.view.overlay
    paste(monitor.view, "2 q x all\rr")
    monitor.refresh()
    assert (monitor.ids(), monitor.view.spec, monitor.view.sort, monitor.view.overlay) == before
    assert monitor.view.prompt is None
    assert "paste" in monitor.view.message


# --- the program ------------------------------------------------------------------------------------------------------

LEFT_OVER = {
    "a paste's start and end": "\x1b[200~2q\x1b[201~",
    "focus reports": "\x1b[I\x1b[O",  # I alone reversed the order
    "a late answer": "\x1b]11;rgb:1e1e/1e1e/2e2e\x1b\\",
    "reports of the mouse": "\x1b[<35;10;10m\x1b[<0;12;9M\x1b[M mr\x1b[M#!!",
    "what the terminal is": "\x1b[?64;1;2;6;9;15;22c\x1bP>|XTerm(390)\x1b\\\x1b[?2026;2$y",
}


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "flows.rec"
    path.write_text("".join(f"[1795387256.{n:06}]\t{event('NEW', n, dst=f'203.0.113.{n}')}" for n in range(1, 31)))
    return path


@pytest.mark.parametrize("what", LEFT_OVER)
def test_what_is_left_over_on_a_terminal_presses_no_key(tmp_path: Path, recording: Path, what: str) -> None:
    """On the real program, which is alive and in its first view afterwards."""
    words = ["--no-config", "--replay", str(recording), "--speed", "0"]
    with OnScreen(tmp_path, *words, size=(100, 20), env=environment(tmp_path)) as screen:
        screen.wait("Connections · 30 · sort rate ↓")
        screen.type(LEFT_OVER[what])
        screen.type("?")  # what is drawn from here on is drawn after what was left over
        screen.wait("this help")
        screen.type("\x1b")
        screen.wait(lambda: "this help" not in screen.text)
        assert "Connections · 30 · sort rate ↓" in screen.text
        screen.type("j")
        screen.type("s")
        screen.wait("sort bytes ↓")
        assert "Connections · 30" in screen.text
        assert "/ " not in screen.text.rsplit("\n", 1)[-1][:2]
        screen.type("q")
        assert screen.end() == 0


def test_esc_alone_still_closes(tmp_path: Path, recording: Path) -> None:
    words = ["--no-config", "--replay", str(recording), "--speed", "0"]
    with OnScreen(tmp_path, *words, size=(100, 20), env=environment(tmp_path)) as screen:
        screen.wait("Connections · 30")
        screen.type("?")
        screen.wait("this help")
        screen.type("\x1b")
        screen.wait(lambda: "this help" not in screen.text)
        screen.type("q")
        assert screen.end() == 0


@pytest.mark.skipif(shutil.which("tmux") is None and not CI, reason="tmux is not installed")
def test_a_paste_in_tmux(tmp_path: Path, recording: Path) -> None:
    """A real terminal brackets what is pasted because it is asked to, and no longer when the program has gone."""
    import shlex

    from support.terminal import PROGRAM

    tmux = Tmux(tmp_path)
    try:
        tmux.start(100, 24)
        command = [*PROGRAM, "--no-config", "--no-download", "--replay", str(recording), "--speed", "0"]
        tmux.run(shlex.join(command) + "; echo status=$?")
        tmux.wait("Connections · 30", "q quit")
        tmux("set-buffer", "2\nq\nx")
        tmux("paste-buffer", "-p")
        tmux.wait("Connections · 30", "Nothing to paste into")
        tmux.type("/")
        tmux.wait("\n/")
        tmux("set-buffer", "dst:203.0.113.7\n")
        tmux("paste-buffer", "-p")
        tmux.wait("/ dst:203.0.113.7", "1 of 30")
        tmux.press("Enter")
        tmux.wait("filter dst:203.0.113.7", "q quit")
        tmux.type("q")
        tmux.wait("status=0")
        tmux("paste-buffer", "-p")
        wait_for(lambda: "dst:203.0.113.7" in tmux.screen(), "the shell's line")
        assert "200~" not in tmux.screen()
    finally:
        tmux.close()
