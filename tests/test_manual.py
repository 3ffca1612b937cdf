"""Shell completion in real shells, the manual page as groff and a person see it; both out of the one file."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import click
import pytest

import conntrack_monitor
from keys import BINDINGS
from support.terminal import Terminal
from vocabulary import FIELDS

NAME = "conntrack-monitor"
SHELLS = {  # what makes it complete in a fresh shell
    "bash": (["bash", "--norc", "--noprofile", "-i"], f". <({NAME} --print-completion bash)"),
    "zsh": (["zsh", "-f", "-i"], f"autoload -U compinit; compinit -D -u; . <({NAME} --print-completion zsh)"),
    "fish": (["fish", "--no-config", "-i"], f"{NAME} --print-completion fish | source"),
}


def wanted(program: str) -> str:
    path = shutil.which(program)
    if path is None and os.environ.get("CI") != "true":
        pytest.skip(f"not installed: {program}")
    assert path
    return path


@pytest.fixture
def env(pyz: Path, tmp_path: Path) -> dict[str, str]:
    """The one file on the PATH, a folder with a recording to be in."""
    folder = tmp_path / "bin"
    folder.mkdir()
    shutil.copy(pyz, folder / NAME)
    (tmp_path / "day of.rec").write_text("")
    homes = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"), str(tmp_path))
    return {"PATH": f"{folder}:{os.environ['PATH']}", "PS1": "> ", "GEOIP_DB_PATHS": "/none", **homes}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes(shell: str, env: dict[str, str], tmp_path: Path) -> None:
    (program, *words), prepare = SHELLS[shell]
    with Terminal(
        program=["/bin/sh", "-c", f'cd {tmp_path}; exec "$@"', "sh", wanted(program), *words], env=env
    ) as screen:
        screen.type(f"{prepare}; echo rea''dy\r")
        screen.wait("\nready")
        for typed, completed in (
            ("--repl", "--replay"),
            ("--sort dest", "--sort destination"),
            ("-p icmpv", "-p icmpv6"),
            ("-s time_w", "-s TIME_WAIT"),
            ("--view conn", "--view connections"),
            ("-f serv", "-f service:"),
            ("--replay day", "--replay day\\ of.rec"),
        ):
            screen.type(f"\x15{NAME} {typed}\t")
            screen.wait(f"{NAME} {completed}")
        screen.type("\x15exit\r")
        screen.end()


def test_the_page_has_every_option_and_every_key(env: dict[str, str]) -> None:
    page = subprocess.run([NAME, "--print-man"], env=env, capture_output=True, timeout=60, check=True).stdout
    command = [wanted("groff"), "-man", "-ww", "-Tascii", "-P-c", "-P-b", "-P-o", "-P-u", "-rLL=200n"]
    shown = subprocess.run(command, input=page, capture_output=True, timeout=60, check=True)
    assert shown.stderr == b""
    text = shown.stdout.decode()
    lines = [line.strip() for line in text.splitlines()]
    for param in conntrack_monitor.command.params:
        if isinstance(param, click.Option) and not param.hidden:
            assert any(line.startswith(", ".join(param.opts)) for line in lines), param.opts
            assert param.help
            assert param.help.replace("  ", " ") in " ".join(" ".join(lines).split())
    assert "--geoip-worker" not in text
    for binding in BINDINGS:
        assert any(line.startswith(", ".join(binding.keys)) for line in lines), binding.keys
    for field in FIELDS:
        assert any(line.startswith(field.term) for line in lines), field.name
    for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "KEYS", "FILTER", "EXIT STATUS", "EXAMPLES"):
        assert section in text.splitlines()


def test_the_image_has_the_version_of_the_program() -> None:
    dockerfile = (Path(__file__).parent.parent / "Dockerfile").read_text()
    assert f"ARG VERSION={conntrack_monitor.VERSION}\n" in dockerfile


def test_another_shell_is_wrong_usage(env: dict[str, str]) -> None:
    done = subprocess.run([NAME, "--print-completion", "csh"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "'csh' is not one of" in done.stderr
