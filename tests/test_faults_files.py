"""Clocks, recordings, and what the program must never do: start a shell, let a word become an option, leave a file.

Proven elsewhere:

======================================================================  ==============================================
a recording on /dev/full, in a stream; one over a readable file         test_cli
a recording that fills its disk, with the real conntrack                test_faults_kernel
standard output on a full disk                                          test_cli
no `shell=`, os.system, os.popen anywhere                               test_architecture, ruff's S602 and S605
words for --via and --conntrack that begin with a dash; filters that    test_cli
are pushed down; `$(…)` in --via stays a word
======================================================================  ==============================================
"""

from __future__ import annotations

import ast
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conntrack_monitor import command
from geography import Plan, worker_argv
from parse import PUSHED_DOWN
from source import Command, pushed_down
from support.program import EVENT, FakeConntrack, OnScreen, Piped, changed, run_once, stays_idle
from support.terminal import ROOT

STAMP = EVENT.partition("]")[0][1:]
HOUR = 3600


# --- the clock ----------------------------------------------------------------------------------------------------------


def test_the_clock_is_set_back_while_it_runs(tmp_path: Path) -> None:
    """By an hour: the kernel's clock can't be (it is everybody's), so Python's is. conntrack's stamps go back, too."""
    back = tmp_path / "broken"  # what makes the fake tell its events
    program = changed(
        f"import os, time; real = time.time; time.time = lambda: real() - {HOUR} * os.path.exists({str(back)!r})"
    )
    lines = [EVENT, EVENT.replace(STAMP, f"{float(STAMP) - HOUR:.6f}").replace("    [NEW]", " [UPDATE]")]
    fake = FakeConntrack(tmp_path, events="\n".join(f"echo '{line}'" for line in lines) + "\nexec sleep 60")
    recording = tmp_path / "back.rec"
    args = ("--interval", "0.2")
    with (
        OnScreen(tmp_path, *args, env=fake.env, program=program) as screen,
        Piped(tmp_path, *args, "--record", recording, env=fake.env, program=program) as stream,
    ):
        screen.wait("Connections · 308")
        stream.wait(lambda: stream.lines() >= fake.lines, screen)
        fake.breaks()
        stream.wait(lambda: b'"event":"update"' in stream.out.read_bytes(), screen)
        before = fake.starts("-L")
        stays_idle(screen, stream)
        assert fake.starts("-L") - before >= 2  # it goes on listing
        assert "stopped" not in screen.text
        screen.leave()
        stream.leave()
    is_replayed_although_it_goes_back(tmp_path, recording)


def is_replayed_although_it_goes_back(folder: Path, recording: Path) -> None:
    said = "timestamps went backwards"
    args = ("--replay", recording, "--speed", "1000")
    with OnScreen(folder, *args) as screen, Piped(folder, *args) as stream:
        screen.wait("replay ended")
        screen.wait(said)
        screen.leave()
        stream.has_left()
        assert said in stream.words()
    status, words = run_once(folder, "--replay", recording)
    assert status == 0
    assert said in words


# --- files --------------------------------------------------------------------------------------------------------------


def test_no_file_is_left_but_the_recording_and_that_is_private(tmp_path: Path) -> None:
    """As root, umask 0, in folders of others: nobody may read there who talks to whom."""
    folder = tmp_path / "of-others"
    folder.mkdir()
    fake = FakeConntrack(tmp_path)
    env = {**fake.env, "HOME": str(folder), "TMPDIR": str(folder), "XDG_CACHE_HOME": str(folder)}
    before, mask = os.getcwd(), os.umask(0)
    os.chdir(folder)
    try:
        with OnScreen(tmp_path, "--record", "one.rec", env=env, cwd=folder) as screen:
            screen.wait("Connections · 308")
            screen.leave()
        with Piped(tmp_path, "--record", "two.rec", env=env) as stream:
            stream.wait(lambda: stream.lines() >= fake.lines)
            stream.leave()
        assert run_once(tmp_path, "--record", "three.rec", env=env)[0] == 0
    finally:
        os.chdir(before)
        os.umask(mask)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"one.rec": 0o600, "two.rec": 0o600, "three.rec": 0o600}


# --- words stay words ---------------------------------------------------------------------------------------------------

words = st.lists(
    st.one_of(st.text(max_size=8), st.sampled_from(["-D", "--", "-F", "tcp", "6", "ipv6", "-p"])), max_size=3
)


@given(words, words)
def test_what_conntrack_is_given_is_ours(protocols: list[str], families: list[str]) -> None:
    """Whatever stands after -p: conntrack is told to list and to listen, in these words or none."""
    run = Command(
        ("ssh", "router"), "conntrack", pushed_down(protocols, [word for word in families if word.startswith("ipv")])
    )
    for argv, what in (
        (run.listing(), ["-L", "-o", "extended,id"]),
        (run.events(), ["-E", "-o", "extended,id,timestamp"]),
    ):
        assert argv[:6] == ["ssh", "router", "conntrack", *what]
        rest_of = argv[6:]
        while rest_of:
            option, value, *rest_of = rest_of
            assert (option, value) in {("-f", "ipv4"), ("-f", "ipv6"), *(("-p", name) for name in PUSHED_DOWN)}


@given(
    st.lists(st.one_of(st.text(min_size=1), st.sampled_from(["--once", "-h", "--", "-x", "--geoip-db"])), max_size=4)
)
def test_paths_of_databases_stay_paths(paths: list[str]) -> None:
    """They go to the worker, which is this program again."""
    argv = worker_argv(Plan(tuple(paths), True, "http://127.0.0.1:1", "test"), ["city"], start=True)
    with command.make_context("worker", argv[2:]) as context:
        assert list(context.params["geoip_db"]) == paths
        assert context.params["geoip_worker"] == "start:city"
        assert not any(context.params[name] for name in ("once", "update_geoip", "as_json"))


@pytest.mark.parametrize(
    "args",
    [["-f", "-D"], ["-f", "--"], ["-f", "src:-D"], ["-p", "-D"], ["-s", "--flush"], ["--sort", "-x"], ["--", "-D"]],
)
def test_no_word_of_the_user_becomes_an_option_of_conntrack(tmp_path: Path, args: list[str]) -> None:
    fake = FakeConntrack(tmp_path)
    said = tmp_path / "said"
    script = tmp_path / "conntrack"
    script.write_text(script.read_text().replace("#!/bin/sh\n", f'#!/bin/sh\necho "$*" >> {said}\n'))
    status, _ = run_once(tmp_path, *args, env=fake.env)
    assert status in (0, 2)
    assert not said.exists() or said.read_text() == "-L -o extended,id\n"


def test_only_one_place_starts_programs() -> None:
    """child.py, with a list of words; no exec, no spawn."""
    for path in ROOT.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert path.name == "child.py" or not names & {"subprocess", "pty", "multiprocessing", "asyncio"}, path
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
                assert not node.attr.startswith(("exec", "spawn", "posix_spawn", "fork")), f"{path}:{node.lineno}"
