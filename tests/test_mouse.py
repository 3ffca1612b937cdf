"""The mouse: a click means what stands there on the screen, in every view at every size; in tmux, and where it is off."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from columns import VIEWS
from flows import Flow
from keyboard import Button, Mouse
from keys import NOTHING, Do, Request, point, press
from support.program import OnScreen, environment
from support.strategies import keys, monitors, sizes
from support.tables import Monitor, event, line, listing, many, shown, text_of, twenty
from support.terminal import PROGRAM, Terminal, Tmux
from text import cells
from view import Target

CI = os.environ.get("CI", "").lower() == "true"
WIDE = (140, 24)


def click(monitor: Monitor, text: str, size: tuple[int, int] = WIDE, after: int = 0) -> Request:
    """Draw the screen, and click where a text stands in a line below ``after``."""
    lines = text_of(monitor.frame(*size))
    y = next(y for y, shown in enumerate(lines) if y >= after and text in shown)
    x = cells(lines[y][: lines[y].index(text) + len(text) - len(text.lstrip())])
    request = point(monitor.view, monitor.table, Mouse(Button.PRESSED, x, y))
    monitor.refresh()
    return request


def wheel(monitor: Monitor, button: Button, times: int = 1, size: tuple[int, int] = WIDE) -> None:
    for _ in range(times):
        monitor.frame(*size)
        assert point(monitor.view, monitor.table, Mouse(button, 10, 10)) == NOTHING
        monitor.refresh()


# --- where things are -------------------------------------------------------------------------------------------------


@given(monitors(), st.lists(keys, max_size=6), sizes)
@settings(max_examples=80, deadline=None)
def test_what_a_click_means_stands_there(monitor: Monitor, pressed: list[str], size: tuple[int, int]) -> None:
    """Of every area of a frame: a row's own text, a column's title, a view's key, a key of the footer."""
    for key in pressed:
        press(monitor.view, monitor.table, key)
        monitor.refresh(1)
    width, height = size
    monitor.frame(width, height)
    lines = shown(monitor, size)
    taken: set[tuple[int, int]] = set()
    for area in monitor.view.areas:
        assert 0 <= area.y < height
        assert 0 <= area.left < area.right <= width
        places = {(area.y, x) for x in range(area.left, area.right)}
        assert not places & taken
        taken |= places
        text = lines[area.y] if lines[area.y].isascii() else ""
        if area.part is Target.HEAD and text:
            column = monitor.view.spec.column(area.what)
            title = column.bits_title if monitor.view.bits and column.bits_title else column.title
            assert title[: min(2, area.right - area.left)] in text[max(0, area.left - 1) : area.right + 1]
        elif area.part is Target.KEY and text:
            assert text[area.left : area.right].startswith(area.what)
    rows = [area.what for area in monitor.view.areas if area.part is Target.ROW]
    assert rows == monitor.view.rows.order[monitor.view.top : monitor.view.top + len(rows)]


def test_every_click_is_harmless() -> None:
    monitor = many()
    for spec in VIEWS:
        monitor.view.show(spec.name)
        monitor.refresh(1)
        for size in ((80, 14), (20, 5), (1, 1)):
            for x in range(0, size[0], 8):
                for y in range(size[1]):
                    monitor.frame(*size)
                    point(monitor.view, monitor.table, Mouse(Button.PRESSED, x, y))
                    monitor.refresh()
                    monitor.view.overlay, monitor.view.prompt = "", None


# --- what a click does ------------------------------------------------------------------------------------------------


def test_a_click_selects_a_row_and_again_opens_it() -> None:
    monitor = twenty()
    assert click(monitor, ":10007") == NOTHING
    assert (monitor.selected(), monitor.view.overlay, monitor.view.top) == (7, "", 0)
    click(monitor, ":10005")
    assert (monitor.selected(), monitor.view.overlay) == (5, "")
    click(monitor, ":10005")
    assert monitor.view.overlay == "details"
    click(monitor, "close")
    assert monitor.view.overlay == ""


def test_a_click_means_the_row_that_was_seen() -> None:
    """Between the frame and the click the order changed, or the row went."""
    monitor = twenty()
    lines = shown(monitor, WIDE)
    y = next(y for y, text in enumerate(lines) if ":10007" in text)
    listing(monitor.table, [line(n, size=(99 if n == 7 else n) * 1000) for n in range(1, 21)], 101.0)
    monitor.refresh(2)
    point(monitor.view, monitor.table, Mouse(Button.PRESSED, 20, y))
    assert (monitor.selected(), monitor.view.at) == (7, 0)
    monitor = twenty()
    shown(monitor, WIDE)
    listing(monitor.table, [line(n, size=n * 1000) for n in range(1, 21) if n != 7], 101.0)
    monitor.refresh(10)
    point(monitor.view, monitor.table, Mouse(Button.PRESSED, 20, y))
    assert (monitor.selected(), monitor.view.message) == (None, "This row is gone")


def test_a_click_on_a_sum_shows_its_flows() -> None:
    monitor = many()
    monitor.keys("2")
    click(monitor, "10.0.0.1 ")
    click(monitor, "10.0.0.1 ")
    assert (monitor.view.spec.name, monitor.view.filter) == ("connections", "near:10.0.0.1")


def test_a_head_sorts_and_again_turns_round() -> None:
    monitor = twenty()
    click(monitor, "AGE", after=2)
    assert (monitor.view.sort, monitor.view.reverse) == ("age", False)
    click(monitor, "AGE", after=3)
    assert (monitor.view.sort, monitor.view.reverse) == ("age", True)
    click(monitor, " NAT", after=3)  # at this width the column or its narrow form
    assert (monitor.view.sort, monitor.view.reverse) == ("nat", False)
    click(monitor, "NAT↓", (100, 24), after=3)
    assert (monitor.view.sort, monitor.view.reverse) == ("nat", True)


def test_a_tab_changes_the_view_and_the_footer_is_pressed() -> None:
    monitor = twenty()
    for text, title, size in (("4Net", "Networks", (80, 24)), ("7Events", "Events", WIDE), ("2", "Hosts", (60, 24))):
        click(monitor, text, size, after=2)
        assert monitor.view.spec.title == title
    assert click(monitor, "quit") == Request(Do.QUIT)
    click(monitor, "help")
    assert monitor.view.overlay == "help"
    click(monitor, "help", after=1)  # in its text nothing is pressed
    assert monitor.view.overlay == "help"


def test_a_click_answers_no_question() -> None:
    monitor = twenty()
    monitor.keys("/")
    click(monitor, ":10007")
    assert (monitor.selected(), monitor.view.prompt is not None) == (None, True)


# --- the wheel --------------------------------------------------------------------------------------------------------


def test_the_wheel_moves_the_window_and_what_it_must_of_the_selection() -> None:
    monitor = many()
    size = (80, 14)
    wheel(monitor, Button.WHEEL_DOWN, 2, size)
    assert (monitor.view.top, monitor.view.at_top, monitor.view.selected) == (6, False, None)
    wheel(monitor, Button.WHEEL_UP, 9, size)
    assert (monitor.view.top, monitor.view.at_top) == (0, True)
    monitor.keys("j", "j", "j", "j", "j")
    meant = monitor.selected()
    wheel(monitor, Button.WHEEL_DOWN, 1, size)
    assert (monitor.view.top, monitor.selected()) == (3, meant)
    wheel(monitor, Button.WHEEL_DOWN, 1, size)
    assert (monitor.view.top, monitor.view.at) == (6, 6)
    wheel(monitor, Button.WHEEL_DOWN, 50, size)
    assert monitor.view.top == 60 - monitor.view.page
    assert isinstance(monitor.view.selected, Flow)
    assert monitor.view.rows.order[monitor.view.at] is monitor.view.selected is monitor.view.flow


def test_the_wheel_scrolls_what_covers_the_rows() -> None:
    monitor = many()
    monitor.keys("?")
    wheel(monitor, Button.WHEEL_DOWN, 1, (80, 10))
    assert (monitor.view.overlay, monitor.view.scroll, monitor.view.top) == ("help", 3, 0)
    wheel(monitor, Button.WHEEL_UP, 3, (80, 10))
    assert monitor.view.scroll == 0


# --- the real thing ---------------------------------------------------------------------------------------------------


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    lines = [event("NEW", n, dst=f"203.0.113.{n}") for n in range(1, 31)]
    path = tmp_path / "flows.rec"
    path.write_text("".join(f"[{1795387256 + n / 10:.6f}]\t{text}" for n, text in enumerate(lines)))
    return ["--no-config", "--no-download", "--replay", str(path), "--speed", "0"]


def test_without_the_mouse_nothing_is_asked_of_it(words: list[str], tmp_path: Path) -> None:
    with OnScreen(tmp_path, *words, "--no-mouse", size=(100, 20)) as screen:
        screen.wait("replay ended")
        assert b"\x1b[?1000" not in screen.seen
        screen.leave()
        assert b"\x1b[?1000" not in screen.seen


def test_in_tmux_the_mouse_is_ours_and_then_the_shell_s_again(words: list[str], tmp_path: Path) -> None:
    """tmux reads what its client's terminal sends, and tells the program in the mode that the program asked for."""
    if shutil.which("tmux") is None and not CI:
        pytest.skip("tmux is not installed")
    tmux = Tmux(tmp_path)
    try:
        tmux.start(100, 24)
        tmux("set-option", "-g", "mouse", "on")
        tmux.run(shlex.join([*PROGRAM, *words]))
        tmux.wait("replay ended", "203.0.113.1:https")
        assert (tmux.fact("mouse_standard_flag"), tmux.fact("mouse_sgr_flag")) == ("1", "1")
        client = ["tmux", "-S", tmux.socket, "attach"]
        with Terminal(size=(100, 24), env=environment(tmp_path), program=client) as screen:
            screen.wait("203.0.113.1:https")
            screen.click("3Cty")
            screen.wait("Countries · ")
            screen.click("1Con")
            screen.wait("Connections · 30")
            screen.click("AGE")
            screen.wait("sort age ↓")
            for _ in range(2):
                screen.click("203.0.113.9:https")
            screen.wait("Details")
            screen.click("close")
            screen.wait(lambda: "Details" not in screen.text)
            screen.click("203.0.113.9:https", button=65)
            screen.wait(lambda: "203.0.113.30:https" not in screen.text or "203.0.113.1:https" not in screen.text)
            screen.click("q quit")
            screen.wait("$ ")
            assert (tmux.fact("mouse_any_flag"), tmux.fact("mouse_sgr_flag")) == ("0", "0")
    finally:
        tmux.close()
