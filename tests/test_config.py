"""The settings file as a user writes it: what it sets, what comes before it, what is wrong in it, whose it may be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

import config
import conntrack_monitor
from addresses import PLAIN_SITE, Context, Ends
from config import WrongSetting
from support.kernel import Lab, insert, needs_kernel
from support.tables import remote
from support.terminal import PROGRAM, Terminal

MIXED = str(Path(__file__).parent.parent / "fixtures" / "captures" / "mixed-table" / "L.ext-id.txt")
NOBODY = 65534
Write = Callable[[str], Path]


def needs_toml(test: Callable[..., None]) -> Callable[..., None]:
    """CI leaves these out on 3.10 by the mark, where nothing may be skipped."""
    skip = pytest.mark.skipif(sys.version_info < (3, 11), reason="reading settings needs Python 3.11")
    return pytest.mark.toml(skip(test))  # type: ignore[no-any-return]


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="giving files to another user needs root")


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    for name in ("SUDO_UID", "SUDO_USER", "SUDO_GID"):
        monkeypatch.delenv(name, raising=False)
    return {"XDG_CONFIG_HOME": "", "HOME": str(tmp_path), "GEOIP_DB_PATHS": "/none"}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / ".config" / config.NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o644)
        return path

    return write


def run(env: dict[str, str], *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *args], capture_output=True, text=True, timeout=60, env={**os.environ, **env}, check=False
    )


def protocols(env: dict[str, str], *args: str) -> list[str]:
    done = run(env, "--replay", MIXED, "--once", "--json", *args)
    assert done.returncode == 0, done.stderr
    assert "settings" not in done.stderr
    return [json.loads(line)["protocol"] for line in done.stdout.splitlines()]


def loaded(text: str, tmp_path: Path) -> config.Settings:
    """What the program makes of a file."""
    path = tmp_path / config.NAME
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)
    return config.load_settings(click.Context(conntrack_monitor.command), {"XDG_CONFIG_HOME": str(tmp_path)})


# --- what it sets, and what comes before it ---------------------------------------------------------------------------


@needs_toml
def test_flags_come_before_the_environment_and_that_before_the_file(env: dict[str, str], write: Write) -> None:
    everything = set(protocols(env))
    assert {"tcp", "udp", "icmp"} <= everything
    write('protocol = ["udp"]\n')
    assert set(protocols(env)) == {"udp"}
    from_environment = env | {"CONNTRACK_MONITOR_PROTOCOL": "icmp"}
    assert set(protocols(from_environment)) == {"icmp"}
    assert set(protocols(from_environment, "-p", "tcp")) == {"tcp"}
    assert set(protocols(env, "--no-config")) == everything
    assert set(protocols(env | {"CONNTRACK_MONITOR_NO_CONFIG": "1"})) == everything


@needs_toml
def test_a_switch_of_the_file_is_switched_off_by_the_environment(env: dict[str, str], write: Write) -> None:
    forth = protocols(env, "--sort", "proto")
    write('reverse = true\nsort = "proto"\n')
    assert protocols(env) == sorted(forth, reverse=True) != forth
    assert protocols(env | {"CONNTRACK_MONITOR_REVERSE": "0"}) == forth


@needs_toml
def test_every_option_that_a_file_may_set(tmp_path: Path) -> None:
    settings = loaded(
        """
        sort = "Bytes"
        protocol = ["tcp", 17]
        state = "established"
        filter = "port:443 mark:vpn zone:office"
        interval = 1
        linger = 2.5
        no-color = true
        no-download = true
        via = "ssh -p 22 root@router"
        geoip-db = ["/srv/geo"]
        local-networks = ["198.18.0.0/16", "2001:db8::1"]
        [marks]
        0x7 = "vpn"
        16 = "ü\\u001b[31m"
        "0x10/0xf0" = "voice"
        [zones]
        3 = "office"
        [filters]
        kids = "near:10.0.3.0/24 or mark:vpn"
        """,
        tmp_path,
    )
    assert settings.problem == ""
    assert settings.site.filters == {"kids": "near:10.0.3.0/24 or mark:vpn"}
    assert settings.options == {
        "sort": "Bytes",
        "protocol": ["tcp", "17"],
        "state": ["established"],
        "expression": "port:443 mark:vpn zone:office",
        "interval": 1,
        "linger": 2.5,
        "no_color": True,
        "no_download": True,
        "via": ["ssh -p 22 root@router"],
        "geoip_db": ["/srv/geo"],
    }
    assert settings.site.marks == {(7, 0xFFFFFFFF): "vpn", (16, 0xFFFFFFFF): "ü[31m", (0x10, 0xF0): "voice"}
    assert settings.site.zones == {3: "office"}
    assert [str(net) for net in settings.site.networks] == ["198.18.0.0/16", "2001:db8::1/128"]


@needs_toml
def test_an_update_is_meant_more_than_no_download_in_the_file(env: dict[str, str], write: Write) -> None:
    write("no-download = true\n")
    nowhere = env | {"CONNTRACK_MONITOR_GEOIP_URL": "http://192.0.2.1/x"}  # refused before anybody is asked
    done = run(nowhere, "--update-geoip")
    assert done.returncode == 1
    assert "only https is allowed" in done.stderr
    assert run(nowhere, "--update-geoip", "--no-download").returncode == 2


# --- what is wrong ----------------------------------------------------------------------------------------------------


@needs_toml
@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("sort = \n", 1, "not TOML"),
        ('sort = "bytes"\n\n[[[\n', 3, "not TOML"),
        ('sort = "bytes"\nsort = "rate"\n', 2, "not TOML"),
        ('sort = "bytes', 0, "end of document"),
        ('\nsrot = "bytes"\n', 2, "unknown key 'srot'; valid: conntrack filter"),
        ("# sort = 1\nsort = 'colour'\n", 2, "'colour' is not a column"),
        ("linger = 1\nsort = 1\n", 2, "expected a string in quotes"),
        ('interval = "2"\n', 1, "expected a number"),
        ("interval = true\n", 1, "expected a number"),
        ("interval = 0\n", 1, "range"),
        ("interval = nan\n", 1, "not a number"),
        ("no-color = 1\n", 1, "true or false"),
        ('protocol = ["tcp", "nosuch"]\n', 1, "'nosuch' is not a protocol"),
        ("protocol = [1.5]\n", 1, "expected a list of strings"),
        ('state = ["nosuch"]\n', 1, "'nosuch' is not a state"),
        ("filter = 'port:x'\n", 1, "is not a port"),
        ("filter = 'mark:office'\n", 1, "'office' is not a number"),
        ('via = "\'"\n', 1, "No closing quotation"),
        ('via = " "\n', 1, "the command is empty"),
        ('conntrack = "-x"\n', 1, "is not a program"),
        ('geoip-db = ["a\\u0000b"]\n', 1, "null character"),
        ("once = true\n", 1, "'once' works only on the command line"),
        ("json = true\n", 1, "only on the command line"),
        ("limit = 5\n", 1, "only on the command line"),
        ('record = "x"\n', 1, "only on the command line"),
        ("update-geoip = true\n", 1, "only on the command line"),
        ("allow-delete = true\n", 1, "only on the command line"),
        ("version = true\n", 1, "only on the command line"),
        ("ipv6 = true\n", 1, 'write filter = "family:6"'),
        ('heartbeat = "/etc/passwd"\n', 1, "unknown key"),
        ("geoip_db = []\n", 1, "unknown key"),
        ("sort.x = 1\n", 1, "expected a string in quotes"),
        ("[sort]\nx = 1\n", 1, "expected a string in quotes"),
        ("marks = 1\n", 1, "[marks] takes lines like"),
        ('[zones]\n7 = "a"\n[marks]\n6 = "x"\n7 = ""\n', 5, "a name must be a string"),
        ("[marks]\n7 = 7\n", 2, "a name must be a string"),
        ('[marks]\n7 = "0x10"\n', 2, "not a number"),
        ("[filters]\nkids = 7\n", 2, "a filter must be a string"),
        ('[filters]\n"7 x" = "tcp"\n', 2, "begins with a letter"),
        ('[filters]\na = "tcp"\nkids = "contry:DE"\n', 3, "did you mean country?"),
        ('[filters]\na = "tcp"\nkids = "udp or !@a"\n', 3, "can't use another one"),
        ('filter = "@kidz"\n[filters]\nkids = "tcp"\n', 1, "did you mean kids?"),
        (f'[marks]\n7 = "{"n" * 33}"\n', 2, "at most 32 characters"),
        ('[marks]\nvpn = "0x7"\n', 2, "'vpn' is not a number"),
        ('[marks]\n7 = "a"\n0x7 = "b"\n', 3, "named twice"),
        ('[marks]\n"0x11/0xf0" = "a"\n', 2, "can't match any mark"),
        ('[marks]\n4294967296 = "a"\n', 2, "32 bits"),
        ('[zones]\n65536 = "a"\n', 2, "not a zone"),
        ('[zones]\n0x3 = "a"\n', 2, "not a zone"),
        ('local-networks = "10.0.0.0/8"\n', 1, "a list of networks"),
        ('linger = 1\nlocal-networks = [\n"10.0.0.0/33"]\n', 2, "'10.0.0.0/33' is not an address or a network"),
        ("a = " + "[" * 60_000, 0, ""),
        ("a = " + "9" * 60_000, 0, "not TOML"),
        ("#" * 70_000, 0, "larger than 64 KiB"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_wrong_is_said_with_its_line_and_all_of_it_ignored(
    text: str, line: int, words: str, tmp_path: Path
) -> None:
    settings = loaded(text, tmp_path)
    assert settings.problem.startswith("settings ignored: ")
    assert words in settings.problem
    if line:
        assert f"line {line}" in settings.problem
    assert (settings.options, settings.site.marks, settings.site.zones, settings.site.networks) == ({}, {}, {}, ())


@needs_toml
def test_what_is_not_utf_8_is_said_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / config.NAME
    path.parent.mkdir()
    path.write_bytes(b'sort = "bytes"\n# \xff\n')
    path.chmod(0o644)
    problem = config.load_settings(click.Context(conntrack_monitor.command), {"XDG_CONFIG_HOME": str(tmp_path)}).problem
    assert "line 2 is not UTF-8" in problem


@needs_toml
@given(text=st.text(max_size=80) | st.from_regex(r'([a-z-]{1,8} = ["\[\]{}a-z0-9.,]*\n)+', fullmatch=True))
def test_no_text_is_fatal(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = loaded(text, tmp_path_factory.getbasetemp())
    assert settings.problem == "" or not settings.options
    assert settings.problem.isprintable()


@pytest.mark.parametrize("mode", [["--once"], ["--once", "--json"], ["--json"], ["--csv"]])
def test_a_pipe_hears_of_it_on_standard_error_and_goes_on(mode: list[str], env: dict[str, str], write: Write) -> None:
    write("srot = 1\n")
    without = run(env, "--replay", MIXED, *mode, "--no-config")
    done = run(env, "--replay", MIXED, *mode)
    assert (done.returncode, done.stdout) == (0, without.stdout)
    assert done.stderr.count("settings ignored: ") == 1
    if sys.version_info >= (3, 11):
        line = next(line for line in done.stderr.splitlines() if "settings ignored" in line)
        assert "settings ignored: line 1: unknown key 'srot'" in line
        assert line.endswith(f", in {env['HOME']}/.config/{config.NAME}")


def test_the_screen_shows_it_as_a_notice(env: dict[str, str], write: Write) -> None:
    write("srot = 1\n")
    with Terminal("--replay", MIXED, "--speed", "0", "--no-download", size=(160, 30), env=env) as screen:
        screen.wait("settings ignored: ")
        screen.wait("TIME_WAIT")
        screen.type("q")
        assert screen.end() == 0


def test_an_old_python_says_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("config.sys.version_info", (3, 10, 13))
    assert loaded("", tmp_path).problem.startswith(
        "settings ignored: reading it needs Python 3.11 or later; this is 3.10.13, in "
    )


@pytest.mark.parametrize("option", ["--help", "--version", "--print-man"])
def test_who_asks_for_help_does_not_wait_for_the_file(option: str, env: dict[str, str], write: Write) -> None:
    path = write("srot = 1\n")
    path.unlink()
    path.mkdir()  # reading it would be said
    done = run(env, option)
    assert (done.returncode, done.stderr) == (0, "")
    assert "settings ignored" in run(env, "--replay", MIXED, "--once").stderr


def test_nothing_is_imported_where_there_is_no_file(env: dict[str, str]) -> None:
    code = "import sys, runpy; sys.argv[1:] = ['--replay', '/nonexistent', '--once']; import conntrack_monitor as c\n"
    code += "try: c.command()\nexcept SystemExit: print('config' in sys.modules, 'tomllib' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(config.__file__).parent,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "True False\n"


# --- whose file it may be ---------------------------------------------------------------------------------------------


def test_where_it_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {1000: SimpleNamespace(pw_dir="/home/eve")}[uid])
    own, eve = f"/root/.config/{config.NAME}", f"/home/eve/.config/{config.NAME}"
    assert config.places({"HOME": "/root"}, 0) == [own]
    assert config.places({"HOME": "/root", "XDG_CONFIG_HOME": "/x"}, 0) == [f"/x/{config.NAME}"]
    assert config.places({"HOME": "/root", "XDG_CONFIG_HOME": "x"}, 0) == [own]
    assert config.places({"HOME": "/root", "SUDO_UID": "1000"}, 0) == [eve, own]
    assert config.places({"HOME": "/home/eve", "SUDO_UID": "1000"}, 0) == [eve]
    assert config.places({"HOME": "/root", "SUDO_UID": "1001"}, 0) == [own]  # nobody we know
    assert config.places({"HOME": "/root", "SUDO_UID": "../x"}, 0) == [own]
    assert config.places({"HOME": "/home/bob", "SUDO_UID": "1000"}, 1001) == [f"/home/bob/.config/{config.NAME}"]


@needs_toml
@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_what_others_may_write_is_not_read(mode: int, env: dict[str, str], write: Write) -> None:
    path = write('protocol = ["udp"]\n')
    path.chmod(mode)
    done = run(env, "--replay", MIXED, "--once", "--json")
    assert "other users can write to it; try: chmod go-w" in done.stderr
    assert '"tcp"' in done.stdout


def test_every_setting_that_names_a_place_or_a_program_is_refused_to_a_caller_of_sudo() -> None:
    """Whoever adds an option that takes a path, a command or an address has to think of root."""
    harmless = {
        "protocol",
        "state",
        "filter",
        "sort",
        "reverse",
        "view",
        "history",
        "interval",
        "linger",
        "no-color",
        "no-mouse",
    }
    harmless |= {"speed", "no-download", "log-keep", "log-size", "names", "ipfix-only", "ipfix-nat-event", "node"}
    options = {
        name[2:]
        for option in conntrack_monitor.command.params
        if isinstance(option, click.Option) and not option.hidden
        for name in option.opts
        if name.startswith("--")
    }
    allowed = options - config.ONLY_ON_THE_COMMAND_LINE - config.INSTEAD.keys()
    assert allowed - config.FROM_ONES_OWN_FILE.keys() == harmless
    assert config.FROM_ONES_OWN_FILE.keys() <= allowed


@needs_toml
@needs_root
def test_root_reads_the_callers_file_but_runs_nothing_it_names(env: dict[str, str], write: Write) -> None:
    path = write('protocol = ["udp"]\n')
    os.chown(path, NOBODY, -1)
    done = run(env, "--replay", MIXED, "--once", "--json")
    assert "it belongs to another user (uid 65534)" in done.stderr
    assert '"tcp"' in done.stdout
    sudo = env | {"SUDO_UID": str(NOBODY)}
    assert set(protocols(sudo)) == {"udp"}
    for line in ('conntrack = "/tmp/x"', 'via = "/tmp/x"'):
        path.write_text(line)
        done = run(sudo, "--replay", MIXED, "--once")
        assert "line 1: 'conntrack' names a program" in done.stderr.replace("'via'", "'conntrack'")
    path.write_text('geoip-db = ["/tmp/x"]')
    assert "line 1: 'geoip-db' names folders to write databases to" in run(sudo, "--replay", MIXED, "--once").stderr
    os.chown(path, 0, -1)
    path.write_text('conntrack = "/nonexistent/conntrack"')
    assert run(sudo, "--once").returncode == 4


@needs_root
def test_a_callers_link_to_a_file_of_root_tells_nothing_of_it(env: dict[str, str], write: Write) -> None:
    path = write("")
    path.unlink()
    path.symlink_to("/etc/shadow")
    os.chown(path, NOBODY, -1, follow_symlinks=False)
    done = run(env | {"SUDO_UID": str(NOBODY)}, "--replay", MIXED, "--once")
    assert "settings ignored" in done.stderr
    for word in Path("/etc/shadow").read_text().replace(":", " ").split():
        assert len(word) < 5 or word not in done.stderr


@needs_root
def test_a_pipe_in_its_place_is_no_reason_to_wait(env: dict[str, str], write: Write) -> None:
    path = write("")
    path.unlink()
    os.mkfifo(path)
    assert "it is not a regular file" in run(env, "--replay", MIXED, "--once").stderr


# --- names and local networks -----------------------------------------------------------------------------------------


@needs_toml
def test_a_local_network_is_not_the_remote_end(env: dict[str, str], write: Write, tmp_path: Path) -> None:
    lines = (
        "tcp      6 9 SYN_SENT src=1.1.1.1 dst=8.8.8.8 sport=1 dport=2 src=8.8.8.8 dst=1.1.1.1 sport=2 dport=1 use=1 id=1\n"
        "tcp      6 9 SYN_SENT src=1.1.1.1 dst=8.8.4.4 sport=1 dport=2 src=8.8.8.8 dst=1.1.1.1 sport=2 dport=1 use=1 id=2\n"
    )
    (tmp_path / "recording").write_text(lines)

    def remotes() -> list[str]:
        done = run(env, "--replay", str(tmp_path / "recording"), "--once", "--json", "--sort", "source")
        return [json.loads(line)["remote"]["ip"] for line in done.stdout.splitlines()]

    assert remotes() == ["8.8.8.8", "8.8.8.8"]
    write('local-networks = ["8.8.0.0/16"]\n')
    assert remotes() == ["1.1.1.1", "1.1.1.1"]
    assert remote(Ends("1.1.1.1", "8.8.8.8", 1, 2, "8.8.8.8", "1.1.1.1", 2, 1), frozenset()) == "8.8.8.8"


@needs_toml
@needs_kernel
def test_names_of_the_kernels_marks(env: dict[str, str], write: Write) -> None:
    write('filter = "mark:vpn"\n[marks]\n0x7 = "vpn"\n')
    with Lab() as lab:
        for port, mark in ((1001, 7), (1002, 8)):
            insert(lab.router, protocol="udp", src="10.99.1.2", dst="203.0.113.2", sport=port, dport=9, mark=mark)
        done = run(env, "--via", lab.router.via, "--once", "--json")
        assert [json.loads(line)["original"]["sport"] for line in done.stdout.splitlines()] == [1001]


# --- the settings file: whose it may be, where its lines are, what each wrong value gets, word by word ----------------


def wants_toml(test: Callable[..., None]) -> Callable[..., None]:
    skip = pytest.mark.skipif(sys.version_info < (3, 11), reason="reading settings needs Python 3.11")
    return pytest.mark.toml(skip(test))  # type: ignore[no-any-return]


def read(folder: Path) -> config.Settings:
    return config.load_settings(click.Context(conntrack_monitor.command), {"XDG_CONFIG_HOME": str(folder)})


def settings_from(text: str, tmp_path: Path) -> config.Settings:
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
    why = (
        "other users can write to it; try: chmod go-w" if mode & 0o022 else f"it belongs to another user .uid {owner}."
    )
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


@wants_toml
def test_how_large_a_file_may_be(tmp_path: Path) -> None:
    text = "linger = 3\n#".ljust(65_536, "x")
    assert settings_from(text, tmp_path).options == {"linger": 3}
    assert settings_from(text + "x", tmp_path).problem.startswith("settings ignored: it is larger than 64 KiB, in ")
    path = tmp_path / config.NAME
    path.unlink()
    assert read(tmp_path) == config.Settings()
    path.mkdir()
    assert read(tmp_path).problem == f"settings ignored: it can't be read: Is a directory, in {path}"
    path.rmdir()
    os.mkfifo(path)
    assert read(tmp_path).problem == f"settings ignored: it is not a regular file, in {path}"


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


@wants_toml
@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("x = 1", 1, "unknown key 'x'; valid: "),
        ("\nipv4 = true", 2, """'ipv4' works only on the command line; here, write filter = "family:4\""""),
        ("ipv6 = true", 1, """'ipv6' works only on the command line; here, write filter = "family:6\""""),
        ("linger = true", 1, "linger: expected a number"),
        ('linger = "3"', 1, "linger: expected a number"),
        ("sort = 3", 1, "sort: expected a string in quotes"),
        ('sort = "b\\u0000"', 1, "sort: it contains a null character"),
        ('protocol = ["tcp", "\\u0000"]', 1, "protocol: it contains a null character"),
        ("reverse = 1", 1, "reverse: expected true or false"),
        ("protocol = 6.5", 1, 'protocol: expected a list of strings, such as ["a", "b"]'),
        ("protocol = [true]", 1, 'protocol: expected a list of strings, such as ["a", "b"]'),
        ("state = [6]", 1, 'state: expected a list of strings, such as ["a", "b"]'),
        (
            'protocol = "nosuch"',
            1,
            "protocol: 'nosuch' is not a protocol: a number up to 255, or a name; for example tcp, ",
        ),
        ('state = "nosuch"', 1, "state: 'nosuch' is not a state; for example ESTABLISHED, "),
        ('filter = "port:x"', 1, "filter: 'x' is not a port: 443, 8000-8999 or a name like https"),
        ('via = "\'"', 1, "via: No closing quotation"),
        ('via = " "', 1, "via: the command is empty"),
        ('via = "-x"', 1, "via: '-x' is not a program"),
        ('conntrack = "-x"', 1, "conntrack: '-x' is not a program"),
        ("marks = 3", 1, '[marks] takes lines like 0x7 = "vpn"'),
        ("zones = 3", 1, '[zones] takes lines like 3 = "office"'),
        ('[marks]\n0xg = "x"', 2, "'0xg' is not a number (16 or 0x10)"),
        ('[marks]\n4294967296 = "x"', 2, "'4294967296' has more than 32 bits"),
        ('[marks]\n"1/4294967296" = "x"', 2, "'1/4294967296' has more than 32 bits"),
        ('[marks]\n"0x11/0x10" = "x"', 2, "'0x11/0x10' can't match any mark: the mask clears bits of the value"),
        ('[marks]\n1 = "x"\n0x1 = "y"', 3, "mark 0x1 is named twice"),
        ('[marks]\n1 = ""', 2, "a name must be a string in quotes, not a number"),
        ("[marks]\n1 = 5", 2, "a name must be a string in quotes, not a number"),
        ('[marks]\n1 = "5"', 2, "a name must be a string in quotes, not a number"),
        ('[marks]\n1 = "0x5F"', 2, "a name must be a string in quotes, not a number"),
        ("[marks]\n1 = 'a\"b'", 2, "a name must be a string in quotes, not a number"),
        (f'[marks]\n1 = "{"x" * 33}"', 2, "a name has at most 32 characters"),
        ('[zones]\n65536 = "x"', 2, "'65536' is not a zone: a number up to 65535"),
        ('[zones]\n03 = "x"', 2, "'03' is not a zone: a number up to 65535"),
        ('[zones]\n123456 = "x"', 2, "'123456' is not a zone: a number up to 65535"),
        ('[zones]\n3 = "7"', 2, "a name must be a string in quotes, not a number"),
        ('local-networks = "10.0.0.0/8"', 1, 'local-networks: expected a list of networks, such as ["10.9.0.0/16"]'),
        ("local-networks = [5]", 1, "local-networks: '5' is not an address or a network (10.0.0.0/8, 2001:db8::/32)"),
        ('local-networks = ["x"]', 1, "local-networks: 'x' is not an address or a network (10.0.0.0/8, 2001:db8::/32)"),
        ("a = " + "[" * 5000, 0, "it is nested too deeply"),
        ("a = ", 0, "not TOML: "),
    ],
)
def test_what_a_wrong_file_gets(text: str, line: int, why: str, tmp_path: Path) -> None:
    settings = settings_from(text, tmp_path)
    where = f"line {line}: " if line else ""
    assert settings.problem.startswith(f"settings ignored: {where}{why}")
    assert settings.problem.endswith(f", in {tmp_path / config.NAME}")
    assert (settings.options, settings.site) == ({}, PLAIN_SITE)


@wants_toml
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
    assert f"line 1: '{word}' works only on the command line, in" in settings_from(f"{word} = true", tmp_path).problem


@wants_toml
def test_the_words_that_there_are(tmp_path: Path) -> None:
    words = settings_from("x = 1", tmp_path).problem.partition("valid: ")[2].rpartition(", in")[0].split()
    assert {"sort", "filter", "via", "conntrack", "linger", "protocol"} < set(words)
    assert words[-6:] == ["marks", "zones", "filters", "hosts", "alert", "local-networks"]
    assert not {"ipv4", "ipv6", "json", "allow-delete", "help"} & set(words)
    assert words[:-6] == sorted(words[:-6])


@wants_toml
def test_what_is_not_utf_8(tmp_path: Path) -> None:
    settings_from("", tmp_path)
    (tmp_path / config.NAME).write_bytes(b"sort = 'bytes'\n\n# \xff\n")
    assert read(tmp_path).problem.startswith("settings ignored: line 3 is not UTF-8, in ")


# --- what it sets -----------------------------------------------------------------------------------------------------


@wants_toml
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
    settings = settings_from("\ufeff" + text, tmp_path)
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


@wants_toml
def test_a_filter_may_use_the_file_s_names(tmp_path: Path) -> None:
    names = '[marks]\n7 = "vpn"\n[zones]\n3 = "office"\n'
    settings = settings_from('filter = "mark:vpn zone:office"\n' + names, tmp_path)
    assert (settings.problem, list(settings.options.values())) == ("", ["mark:vpn zone:office"])
    assert "'vpn' is not a number" in settings_from('filter = "mark:vpn"', tmp_path).problem


@pytest.mark.parametrize(
    ("text", "words"),
    [("", []), ("ssh -p 22 'my host'", ["ssh", "-p", "22", "my host"]), ("sudo", ["sudo"])],
)
def test_the_words_of_via(text: str, words: list[str]) -> None:
    assert config.command_words(text) == words
    assert config.machines([text], "conntrack") == [("", words)]


def test_a_way_may_have_a_name() -> None:
    ways = ["r1=ssh root@r1", "here=", "ssh -o A=b r2", "x/y=z w", "r 3=ssh r3"]
    assert config.machines(ways, "conntrack") == [
        ("r1", ["ssh", "root@r1"]),
        ("here", []),
        ("", ["ssh", "-o", "A=b", "r2"]),
        ("", ["x/y=z", "w"]),
        ("", ["r", "3=ssh", "r3"]),
    ]
    with pytest.raises(click.BadParameter, match="is not a name for a node"):
        config.machines(["r\x1b1=ssh r1"], "conntrack")


@pytest.mark.parametrize(
    ("via", "conntrack", "message", "hint"),
    [("-x", "conntrack", "'-x' is not a program", "'--via'"), ("", "-x", "'-x' is not a program", "'--conntrack'"),
     ("  ", "c", "the command is empty", "'--via'"), ("", "a\0", "'a\\x00' is not a program", "'--conntrack'")],
)  # fmt: skip
def test_programs_that_are_none(via: str, conntrack: str, message: str, hint: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        config.machines([via], conntrack)
    assert (caught.value.message, caught.value.param_hint) == (message, hint)
