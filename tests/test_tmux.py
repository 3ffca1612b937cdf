"""The real program in a real terminal: keys in, screen out, and the terminal as it was when the program has gone."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.tables import event
from support.terminal import ROOT, Tmux
from support.waiting import wait_for

CI = os.environ.get("CI", "").lower() == "true"
if shutil.which("tmux") is None and not CI:
    pytest.skip("tmux is not installed", allow_module_level=True)


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    made = Tmux(tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Thirty flows a tenth of a second apart, and one that an event ended."""
    lines = [event("NEW", n, dst=f"203.0.113.{n}", state="SYN_SENT", flags="[UNREPLIED] ") for n in range(1, 31)]
    lines += [event("UPDATE", n, dst=f"203.0.113.{n}") for n in range(1, 11)]
    lines += ["    [NEW] ipv4     2 udp      17 30 src=10.0.0.9 dst=192.0.2.53 sport=4000 dport=53 [UNREPLIED] "
              "src=192.0.2.53 dst=10.0.0.9 sport=53 dport=4000 id=99\n"]  # fmt: skip
    path = tmp_path / "flows.rec"
    path.write_text("".join(f"[{1795387256 + n / 10:.6f}]\t{text}" for n, text in enumerate(lines)))
    return path


@pytest.fixture
def command(recording: Path, tmp_path: Path) -> str:
    """The program on that recording; its process's number is left in a file, its exit status on the screen."""
    program = shlex.join(
        [
            sys.executable,
            str(ROOT / "conntrack_monitor.py"),
            "--replay",
            str(recording),
            "--speed",
            "0",
            "--no-download",
        ]
    )
    inner = f"echo $$ > {shlex.quote(str(tmp_path / 'pid'))}; exec {program}"
    script = tmp_path / "go"
    script.write_text(f"#!/bin/sh\n{inner}\n")
    script.chmod(0o755)
    return str(script)


def start(tmux: Tmux, command: str) -> None:
    tmux.run("echo before-it-began")
    tmux.wait("\nbefore-it-began")
    tmux.run(f"{command}; echo status=$?")
    tmux.wait("Connections · 31", "203.0.113.1:https", "q quit")
    assert tmux.fact("alternate_on") == "1"
    assert tmux.fact("cursor_flag") == "0"


def is_given_back(tmux: Tmux, status: str) -> None:
    """The shell's screen with its text, a visible cursor, echo, line editing by the terminal."""
    shown = tmux.wait("\nbefore-it-began", status, gone=("Connections ·",))
    assert "Traceback" not in shown
    assert tmux.fact("alternate_on") == "0"
    assert tmux.fact("cursor_flag") == "1"
    tmux.type("echo seen-$((40 + 2))")
    tmux.wait("$ echo seen-$((40 + 2))")  # it is echoed before Enter
    tmux.press("Enter")
    tmux.wait("\nseen-42")
    tmux.run("clear; stty -a")
    modes = tmux.wait("icanon", "echo")
    for mode in ("icanon", "echo", "isig", "ixon", "icrnl", "opost"):
        assert re.search(rf"(?<![-\w]){mode}\b", modes), mode


def pid_of(tmp_path: Path) -> int:
    return int((tmp_path / "pid").read_text())


# --- a session --------------------------------------------------------------------------------------------------------


def test_a_recording_that_ends_stays_on_screen(tmux: Tmux, command: str) -> None:
    start(tmux, command)
    tmux.wait("replay ended")


def test_filter_sort_details_help_pause(tmux: Tmux, command: str) -> None:
    start(tmux, command)
    tmux.type("/proto:udp")
    tmux.wait("1 of 31", "192.0.2.53:dns", "/ proto:udp", gone=("203.0.113",))
    tmux.press("Escape")
    tmux.wait("203.0.113.1:https", gone=("1 of 31", "/ proto"))
    tmux.type("/nosuch:1")
    tmux.wait("unknown field 'nosuch'")
    tmux.press("C-u")
    tmux.type("state:established")
    tmux.press("Enter")
    tmux.wait("10 of 31", "filter state:established", "? help")
    tmux.type("s")
    tmux.wait("sort bytes", gone=("sort rate",))
    tmux.type("r")
    tmux.wait("sort bytes ↑")
    tmux.press("Down", "Down", "Enter")
    tmux.wait("Details", "original", "-> 203.0.113.", "life")
    tmux.press("Escape")
    tmux.wait("10 of 31", gone=("original",))
    tmux.type("?")
    tmux.wait("Help", "this help", "quit", "first flow")
    tmux.press("Escape")
    tmux.wait("10 of 31", gone=("this help",))
    tmux.press("Escape")
    tmux.wait("Connections · 31", gone=("10 of 31",))
    tmux.press("Space")
    tmux.wait("PAUSED · 0 events waiting")
    tmux.type("p")
    tmux.wait("Connections · 31 ", gone=("PAUSED",))


def test_resize_to_anything_and_back(tmux: Tmux, command: str) -> None:
    start(tmux, command)
    for width, height, parts in [
        (140, 40, ("203.0.113.1:https", "TIMEOUT", "c places")),
        (40, 10, ("203.0.113.1:https", "Connections", "/ filter")),
        (20, 5, ("203.0.113.1:https", "Connections")),
        (1, 1, ()),
        (3, 2, ()),
        (200, 50, ("203.0.113.30:https", "ORG", "TIMEOUT")),
        (80, 24, ("203.0.113.1:https", "q quit")),
    ]:
        tmux.resize(width, height)
        wait_for(lambda: tmux.fact("pane_width") == str(width), "the size")  # noqa: B023
        shown = tmux.wait(*parts)
        assert "Traceback" not in shown
        if parts:
            wait_for(lambda: tmux.screen().count("Connections ·") == 1, "one title")
    tmux.type("q")
    is_given_back(tmux, "status=0")


def test_resize_while_help_and_prompt_are_open(tmux: Tmux, command: str) -> None:
    start(tmux, command)
    tmux.type("?")
    tmux.wait("this help")
    tmux.resize(40, 10)
    tmux.wait("lines 1-8 of", "this help")
    tmux.type("x")
    tmux.type("/dns")
    tmux.wait("/ dns", "192.0.2.53:dns")
    tmux.resize(90, 30)
    tmux.wait("/ dns", "1 of 31", "AGE")


# --- the ways out -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["q", "C-c", "F10"])
def test_keys_that_end_it_give_the_terminal_back(tmux: Tmux, command: str, key: str) -> None:
    start(tmux, command)
    tmux.press(key)
    is_given_back(tmux, "status=0")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
@pytest.mark.parametrize("before", ["", "?", "/po"])
def test_signals_that_end_it_give_the_terminal_back(
    tmux: Tmux, command: str, tmp_path: Path, number: signal.Signals, before: str
) -> None:
    start(tmux, command)
    if before:
        tmux.type(before)
        tmux.wait({"?": "this help", "/po": "/ po"}[before])
    os.kill(pid_of(tmp_path), number)
    is_given_back(tmux, "status=0")


def test_a_new_size_and_the_end_at_the_same_moment(tmux: Tmux, command: str, tmp_path: Path) -> None:
    start(tmux, command)
    number = pid_of(tmp_path)
    os.kill(number, signal.SIGWINCH)
    os.kill(number, signal.SIGTERM)
    is_given_back(tmux, "status=0")


def test_stopped_and_continued(tmux: Tmux, command: str) -> None:
    tmux.run("echo before-it-began")
    tmux.wait("\nbefore-it-began")
    tmux.run(command)
    tmux.wait("Connections · 31", "203.0.113.1:https")
    for _ in range(2):
        tmux.press("C-z")
        is_stopped = re.compile(r"Stopped|Suspended")
        wait_for(lambda: is_stopped.search(tmux.screen()), "the shell's word about the stopped job")  # noqa: B023
        is_given_back(tmux, "$")
        tmux.run("clear; echo before-it-began; fg")
        tmux.wait("Connections · 31", "203.0.113.1:https", "q quit")
        assert tmux.fact("cursor_flag") == "0"
    tmux.type("/dns")
    tmux.wait("/ dns", "1 of 31")  # keys come one by one again
    tmux.press("Escape")
    tmux.wait("Connections · 31", gone=("/ dns",))  # Esc and q in one packet would be Alt+q
    tmux.type("q")
    is_given_back(tmux, "$")
