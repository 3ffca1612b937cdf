"""The settings file: whose it may be, where its lines are, what each wrong value gets, word by word."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest

import config
import conntrack_monitor
from addresses import PLAIN_SITE, Context
from config import WrongSetting


def needs_toml(test: Callable[..., None]) -> Callable[..., None]:
    skip = pytest.mark.skipif(sys.version_info < (3, 11), reason="reading settings needs Python 3.11")
    return pytest.mark.toml(skip(test))  # type: ignore[no-any-return]


def read(folder: Path) -> config.Settings:
    return config.load_settings(click.Context(conntrack_monitor.command), {"XDG_CONFIG_HOME": str(folder)})


def loaded(text: str, tmp_path: Path) -> config.Settings:
    path = tmp_path / config.NAME
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)
    return read(tmp_path)


# --- whose it may be --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "mode", "uid", "caller", "foreign"),
    [
        *((0, 0o644, 0, None, False), (1000, 0o644, 1000, None, False), (0, 0o600, 1000, None, False)),
        *((1000, 0o644, 0, 1000, True), (1000, 0o755, 0, 1000, True), (0, 0o644, 0, 1000, False)),
        *((1001, 0o644, 0, 1000, None), (1000, 0o644, 0, None, None), (1000, 0o644, 1001, None, None)),
        *(
            (0, 0o664, 0, None, None),
            (0, 0o646, 0, None, None),
            (0, 0o622, 0, None, None),
            (1000, 0o664, 0, 1000, None),
        ),
    ],
)
def test_whose_file_is_believed(owner: int, mode: int, uid: int, caller: int | None, foreign: bool | None) -> None:
    state: Any = SimpleNamespace(st_uid=owner, st_mode=0o100000 | mode)
    if foreign is not None:
        assert config._foreign(state, uid, caller) is foreign
        return
    why = "others may write to it; try: chmod go-w" if mode & 0o022 else f"it belongs to another user .uid {owner}."
    with pytest.raises(WrongSetting, match=why):
        config._foreign(state, uid, caller)


@pytest.mark.parametrize(
    ("text", "uid", "caller"),
    [
        *(("1000", 0, 1000), ("1000", 1000, None), ("0", 0, None), ("", 0, None), ("x", 0, None), ("-1", 0, None)),
        *(("1234567890", 0, 1_234_567_890), ("12345678901", 0, None), ("1 ", 0, None)),
    ],
)
def test_who_became_root_by_sudo(text: str, uid: int, caller: int | None) -> None:
    assert config.sudo_user({"SUDO_UID": text}, uid) == caller
    assert config.sudo_user({}, uid) is None


@needs_toml
def test_how_large_a_file_may_be(tmp_path: Path) -> None:
    text = "linger = 3\n#".ljust(65_536, "x")
    assert loaded(text, tmp_path).options == {"linger": 3}
    assert loaded(text + "x", tmp_path).problem.startswith("settings ignored: it is larger than 64 KiB, in ")
    path = tmp_path / config.NAME
    path.unlink()
    assert read(tmp_path) == config.Settings()
    path.mkdir()
    assert read(tmp_path).problem == f"settings ignored: it can't be read: Is a directory, in {path}"
    path.rmdir()
    os.mkfifo(path)
    assert read(tmp_path).problem == f"settings ignored: it is no file, in {path}"


# --- where its lines are ----------------------------------------------------------------------------------------------

TEXT = """\
# sort is not set here
sort = "bytes"
  "linger" = 3
'view'="nat"
local-networks = [
  "10.0.0.0/8" ]
[marks] # names
0x7 = "vpn"
sort = "x"
[ "zones" ]
'3' = "office"
zones.linger = 1
[linger.x]
"""


@pytest.mark.parametrize(
    ("table", "key", "line"),
    [
        *(("", "sort", 2), ("", "linger", 3), ("", "view", 4), ("", "local-networks", 5), ("marks", "0x7", 8)),
        *(("marks", "sort", 9), ("zones", "3", 11), ("", "marks", 7), ("", "zones", 10), ("zones", "zones", 12)),
        *(("", "linger.x", 13), ("", "office", 11), ("marks", "10.0.0.0/8", 6), ("", "nosuch", 0), ("", "ort", 0)),
    ],
)
def test_the_line_that_sets_a_key(table: str, key: str, line: int) -> None:
    assert config._line_of(TEXT, table, key) == line


# --- what is wrong with it --------------------------------------------------------------------------------------------


@needs_toml
@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("x = 1", 1, "unknown word 'x'; there are: "),
        ("\nipv4 = true", 2, """'ipv4' goes on the command line only; here write filter = "family:4\""""),
        ("ipv6 = true", 1, """'ipv6' goes on the command line only; here write filter = "family:6\""""),
        ("linger = true", 1, "linger: a number is wanted"),
        ('linger = "3"', 1, "linger: a number is wanted"),
        ("sort = 3", 1, "sort: a text in quotation marks is wanted"),
        ('sort = "b\\u0000"', 1, "sort: there is a null character in it"),
        ('protocol = ["tcp", "\\u0000"]', 1, "protocol: there is a null character in it"),
        ("reverse = 1", 1, "reverse: true or false is wanted"),
        ("protocol = 6.5", 1, 'protocol: a list of texts is wanted, such as ["a", "b"]'),
        ("protocol = [true]", 1, 'protocol: a list of texts is wanted, such as ["a", "b"]'),
        ("state = [6]", 1, 'state: a list of texts is wanted, such as ["a", "b"]'),
        ('protocol = "nosuch"', 1, "protocol: 'nosuch' is no protocol: a number up to 255, or a name; some are tcp, "),
        ('state = "nosuch"', 1, "state: 'nosuch' is no state; some are ESTABLISHED, "),
        ('filter = "port:x"', 1, "filter: 'x' is no port: 443, 8000-8999 or a name like https"),
        ('via = "\'"', 1, "via: No closing quotation"),
        ('via = " "', 1, "via: the command is empty"),
        ('via = "-x"', 1, "via: '-x' is no program"),
        ('conntrack = "-x"', 1, "conntrack: '-x' is no program"),
        ("marks = 3", 1, '[marks] holds lines like 0x7 = "vpn"'),
        ("zones = 3", 1, '[zones] holds lines like 3 = "office"'),
        ('[marks]\n0xg = "x"', 2, "'0xg' is no number (16 or 0x10)"),
        ('[marks]\n4294967296 = "x"', 2, "'4294967296' has more than 32 bits"),
        ('[marks]\n"1/4294967296" = "x"', 2, "'1/4294967296' has more than 32 bits"),
        ('[marks]\n"0x11/0x10" = "x"', 2, "'0x11/0x10' fits no mark: its mask takes bits away that it wants"),
        ('[marks]\n1 = "x"\n0x1 = "y"', 3, "mark 0x1 is named twice"),
        ('[marks]\n1 = ""', 2, "a name is a text in quotation marks, and no number"),
        ("[marks]\n1 = 5", 2, "a name is a text in quotation marks, and no number"),
        ('[marks]\n1 = "5"', 2, "a name is a text in quotation marks, and no number"),
        ('[marks]\n1 = "0x5F"', 2, "a name is a text in quotation marks, and no number"),
        ("[marks]\n1 = 'a\"b'", 2, "a name is a text in quotation marks, and no number"),
        (f'[marks]\n1 = "{"x" * 33}"', 2, "a name has at most 32 characters"),
        ('[zones]\n65536 = "x"', 2, "'65536' is no zone: a number up to 65535"),
        ('[zones]\n03 = "x"', 2, "'03' is no zone: a number up to 65535"),
        ('[zones]\n123456 = "x"', 2, "'123456' is no zone: a number up to 65535"),
        ('[zones]\n3 = "7"', 2, "a name is a text in quotation marks, and no number"),
        ('local-networks = "10.0.0.0/8"', 1, 'local-networks: a list of networks is wanted, such as ["10.9.0.0/16"]'),
        ("local-networks = [5]", 1, "local-networks: '5' is no address or network (10.0.0.0/8, 2001:db8::/32)"),
        ('local-networks = ["x"]', 1, "local-networks: 'x' is no address or network (10.0.0.0/8, 2001:db8::/32)"),
        ("a = " + "[" * 5000, 0, "it is nested too deeply"),
        ("a = ", 0, "not TOML: "),
    ],
)
def test_what_a_wrong_file_gets(text: str, line: int, why: str, tmp_path: Path) -> None:
    settings = loaded(text, tmp_path)
    where = f"line {line}: " if line else ""
    assert settings.problem.startswith(f"settings ignored: {where}{why}")
    assert settings.problem.endswith(f", in {tmp_path / config.NAME}")
    assert (settings.options, settings.site) == ({}, PLAIN_SITE)


@needs_toml
@pytest.mark.parametrize(
    "word",
    [
        *(
            "once",
            "json",
            "csv",
            "limit",
            "replay",
            "record",
            "update-geoip",
            "allow-delete",
            "no-config",
            "help",
            "version",
        ),
        *("print-man", "print-completion"),
    ],
)
def test_what_goes_on_the_command_line_only(word: str, tmp_path: Path) -> None:
    assert f"line 1: '{word}' goes on the command line only, in" in loaded(f"{word} = true", tmp_path).problem


@needs_toml
def test_the_words_that_there_are(tmp_path: Path) -> None:
    words = loaded("x = 1", tmp_path).problem.partition("there are: ")[2].rpartition(", in")[0].split()
    assert {"sort", "filter", "via", "conntrack", "linger", "protocol"} < set(words)
    assert words[-3:] == ["marks", "zones", "local-networks"]
    assert not {"ipv4", "ipv6", "json", "allow-delete", "help"} & set(words)
    assert words[:-3] == sorted(words[:-3])


@needs_toml
def test_what_is_not_utf_8(tmp_path: Path) -> None:
    loaded("", tmp_path)
    (tmp_path / config.NAME).write_bytes(b"sort = 'bytes'\n\n# \xff\n")
    assert read(tmp_path).problem.startswith("settings ignored: line 3 is not UTF-8, in ")


# --- what it sets -----------------------------------------------------------------------------------------------------


@needs_toml
def test_names_of_marks_and_zones_in_the_file(tmp_path: Path) -> None:
    text = f"""\
local-networks = ["198.18.0.1/15", "2001:db8::/32"]
sort = "bytes"
protocol = ["tcp", 17]
[marks]
0x10 = "vpn"
"0x10/0xf0" = "{"x" * 32}"
0xffffffff = "all"
"0/1" = "even"
[zones]
0 = "none"
65535 = "l\u00e4st"
"""
    settings = loaded("\ufeff" + text, tmp_path)
    assert settings.problem == ""
    assert settings.site.marks == {
        **{(16, 0xFFFFFFFF): "vpn", (16, 0xF0): "x" * 32, (0xFFFFFFFF, 0xFFFFFFFF): "all", (0, 1): "even"},
    }
    assert settings.site.zones == {0: "none", 65_535: "läst"}
    assert [str(network) for network in settings.site.networks] == ["198.18.0.0/15", "2001:db8::/32"]
    assert settings.options == {"sort": "bytes", "protocol": ["tcp", "17"]}
    context = Context(site=settings.site)
    assert (context.mark_name(16), context.zone_name(0)) == ("vpn", "none")
    assert context.is_local("198.19.0.1")


@needs_toml
def test_a_filter_may_use_the_file_s_names(tmp_path: Path) -> None:
    names = '[marks]\n7 = "vpn"\n[zones]\n3 = "office"\n'
    settings = loaded('filter = "mark:vpn zone:office"\n' + names, tmp_path)
    assert (settings.problem, list(settings.options.values())) == ("", ["mark:vpn zone:office"])
    assert "'vpn' is no number" in loaded('filter = "mark:vpn"', tmp_path).problem


@pytest.mark.parametrize(
    ("text", "words"),
    [("", []), ("ssh -p 22 'my host'", ["ssh", "-p", "22", "my host"]), ("sudo", ["sudo"])],
)
def test_the_words_of_via(text: str, words: list[str]) -> None:
    assert config.command_words(text) == words
    assert config.programs(text, "conntrack") == words


@pytest.mark.parametrize(
    ("via", "conntrack", "message", "hint"),
    [("-x", "conntrack", "'-x' is no program", "'--via'"), ("", "-x", "'-x' is no program", "'--conntrack'"),
     ("  ", "c", "the command is empty", "'--via'"), ("", "a\0", "'a\\x00' is no program", "'--conntrack'")],
)  # fmt: skip
def test_programs_that_are_none(via: str, conntrack: str, message: str, hint: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        config.programs(via, conntrack)
    assert (caught.value.message, caught.value.param_hint) == (message, hint)
