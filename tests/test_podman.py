"""Podman: the setup script from nothing to a screen and back, as root; and what is said where nobody is root."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.debian import run
from support.docker import IMAGE, NAME, ROOT, base_name
from support.podman import Podman, missing_podman
from support.terminal import Terminal
from support.waiting import wait_for

REASON = missing_podman()
pytestmark = pytest.mark.skipif(bool(REASON) and os.environ.get("CI") != "true", reason=REASON or "no reason")
HOST = ("--network", "host", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN")


@pytest.fixture(scope="module")
def podman(debian: Path) -> Iterator[Podman]:
    with Podman(debian) as made:
        yield made


@pytest.fixture
def home(podman: Podman) -> Path:
    folder = podman.folder / "a home"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def install(podman: Podman, home: Path, *words: str) -> str:
    """The setup script on a machine that has podman, and Docker only by podman-docker's name or not at all."""
    names = podman.folder / "names"
    names.mkdir(exist_ok=True)
    if not (names / "docker").exists():  # as that package has it
        (names / "docker").write_text('#!/bin/sh\necho "Emulate Docker CLI using podman." >&2\nexec podman "$@"\n')
        (names / "docker").chmod(0o755)
    env = {"HOME": str(home), "SETUP_ROOT": str(podman.folder), "CONNTRACK_MONITOR_NO_DOWNLOAD": "1"}
    path = f"PATH={names}:{os.environ['PATH']}"
    script = str(ROOT / "setup-conntrack-monitor.sh")
    return run(*podman.inside("env", path, script, *words), env={**podman.env, **env})


def names_of(podman: Podman, *words: str) -> set[str]:
    return set(podman.podman(*words).split())


def leave(terminal: Terminal) -> None:
    """Ctrl+P Ctrl+Q. Podman takes them only where it reads one at a time, as from fingers."""

    def press_both() -> bool:
        for key in "\x10\x11":
            terminal.type(key)
            terminal.read(0.2)
        return "Detached; the monitor keeps running." in terminal.text

    wait_for(press_both, lambda: terminal.text)


def test_setup_from_nothing_to_nothing(podman: Podman, home: Path) -> None:
    printed = install(podman, home, "--build")
    assert printed.count(" ok") == 6, printed
    assert "[1] Podman ... ok: " in printed
    assert "Emulate" not in printed
    wrapper = podman.inside(str(home / NAME / NAME))
    podman.add_flow("10.1.2.3")
    with Terminal("attach", size=(100, 24), program=wrapper, env=podman.env) as terminal:
        terminal.wait("10.1.2.3")
        leave(terminal)
    assert re.search(r"running, since \S+", run(*wrapper, "status", env=podman.env))
    run(*wrapper, "stop", env=podman.env)
    said = run(*wrapper, "status", env=podman.env, check=False)
    assert re.fullmatch(rf"{NAME}: exited, since 20[^,\n]*, exit status 0\n", said), said
    run(*wrapper, "start", env=podman.env)
    assert "running" in run(*wrapper, "status", env=podman.env)
    facts = podman.podman("exec", NAME, "cat", "/proc/1/status")
    assert re.search(r"^CapEff:\s+0{12}1002$", facts, re.M)
    assert re.search(r"^NoNewPrivs:\s+1$", facts, re.M)
    install(podman, home, "--log")  # again: in place of the one that runs
    wait_for(lambda: "flows-" in podman.podman("exec", NAME, "ls", "/log", check=False), what="the flow log")
    run(*wrapper, "uninstall", "--purge", "--yes", env={**podman.env, "SETUP_ROOT": str(podman.folder)})
    assert names_of(podman, "ps", "-aq") == names_of(podman, "volume", "ls", "-q") == set()
    assert IMAGE not in names_of(podman, "images", "--format", "{{.Repository}}:{{.Tag}}")
    assert not (home / NAME).exists()


@pytest.fixture(scope="module")
def image(podman: Podman) -> str:
    podman.podman("build", "--format", "docker", "-t", IMAGE, str(ROOT))
    return IMAGE


def test_hints_are_podman_s_words(podman: Podman, image: str) -> None:
    said = podman.podman("run", "--rm", "--network", "none", "--cap-add", "NET_ADMIN", image, "--once")
    (cure,) = re.findall("0 entries: this container has a network of its own; try: podman (run .*)", said)
    podman.add_flow("10.4.4.4")
    assert "10.4.4.4" in podman.podman(*cure.split(), "--once")


def test_a_user_other_than_root_in_root_s_container_reads_it(podman: Podman, image: str) -> None:
    """Podman, unlike Docker, gives the right to a user, too."""
    podman.add_flow("10.5.5.5")
    assert "10.5.5.5" in podman.podman("run", "--rm", *HOST, "--user", "1000", image, "--once")


def test_without_root_what_it_does_not_see_is_said(podman: Podman, image: str) -> None:
    with podman.somebody(image) as words:
        for network, before in (
            ("host", "not permitted: "),
            ("none", "0 entries: this container was started without root"),
        ):
            asked = ["run", "--rm", "--network", network, "--cap-add", "NET_ADMIN", image, "--once"]
            said = run(*words, *asked, check=False)
            assert before in said
            assert f"; try: sudo podman run --network host --cap-add NET_ADMIN {image}" in said


def test_image_from_nothing_to_the_first_screen_and_back(podman: Podman, image: str) -> None:
    """By hand, and the last in this file: with the image go all that it was built from, but for the base."""
    podman.add_flow("10.6.6.6")
    program = podman.inside("podman", "run", "--rm", "-it", *HOST, image)
    with Terminal(size=(100, 24), program=program, env=podman.env) as terminal:
        terminal.wait("10.6.6.6")
        terminal.type("q")
        assert terminal.end() == 0
    # Without systemd podman 4.3 may leave a container of --rm that has ended: it finds no timer of a health check to remove.
    podman.podman("rm", "-fa")
    podman.podman("rmi", image)
    podman.podman("image", "prune", "-f")
    assert podman.podman("images", "-a", "--format", "{{.Repository}}").split() == [
        f"docker.io/library/{base_name().partition(':')[0]}"
    ]
    assert names_of(podman, "ps", "-aq") == names_of(podman, "volume", "ls", "-q") == set()
