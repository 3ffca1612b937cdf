"""The command as a user types it: options, exit codes, messages. conntrack is played by small scripts here, with the
texts of the captures; the real one is tried in test_kernel.py."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import select
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.terminal import DEMO, PROGRAM
from support.waiting import wait_for

ROOT = Path(__file__).parent.parent
CAPTURES = ROOT / "fixtures" / "captures"
MIXED = CAPTURES / "mixed-table" / "L.ext-id.txt"
EVENTS = CAPTURES / "tcp-lifecycle" / "E.ext-id-ts.txt"


def run(*args: str, stdin: bytes = b"", env: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*PROGRAM, *args], input=stdin, capture_output=True, timeout=60, env={**os.environ, **(env or {})}, check=False
    )


def objects(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


@pytest.fixture
def fake(tmp_path: Path) -> Callable[[str], str]:
    """Write a conntrack of our own: a shell script that sees its arguments in "$*"."""

    def write(script: str) -> str:
        path = tmp_path / "conntrack"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return str(path)

    return write


# --- usage ------------------------------------------------------------------------------------------------------------


def test_help_and_version() -> None:
    for flag in ("-h", "--help"):
        result = run(flag)
        assert result.returncode == 0
        for option in (
            "--protocol",
            "--state",
            "--filter",
            "--once",
            "--json",
            "--csv",
            "--via",
            "--replay",
            "--record",
        ):
            assert option.encode() in result.stdout
    result = run("--version")
    assert (result.returncode, result.stderr) == (0, b"")
    assert re.fullmatch(rb"conntrack-monitor \d+\.\d+\.\d+[^\n]*\n", result.stdout)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--nosuch"], "No such option"),
        (["--once", "--sort", "colour"], "'colour' is not a column"),
        (["--once", "-p", "nosuch"], "'nosuch' is not a protocol"),
        (["--once", "-p", "--"], "not a protocol"),
        (["--once", "-s", "nosuch"], "'nosuch' is not a state"),
        (["--once", "-f", "foo:1"], "unknown field 'foo'"),
        (["--once", "--interval", "0"], "--interval"),
        (["--once", "--interval", "nan"], "not a number"),
        (["--once", "--limit", "-1"], "--limit"),
        (["--json", "--limit", "5"], "--limit requires --once"),
        (["--json", "--csv"], "can't be combined"),
        (["--once", "--via", "'"], "--via"),
        (["--once", "--via", " "], "--via"),
        (["--once", "--via", "ssh a", "--via", "ssh b"], "--via can be repeated only with --json, --csv or"),
        (["--json", "--via", "ssh a", "--via", "a="], "Two nodes are named 'a'; try: --via NAME=COMMAND"),
        (["--json", "--via", "a=ssh a", "--via", "b=", "--node", "c"], "--node names one machine"),
        (["--json", "--via", "a=ssh a", "--via", "b=-x"], "'-x' is not a program"),
        (["--once", "--via", "-x"], "'-x' is not a program"),
        (["--once", "--conntrack", "-x"], "'-x' is not a program"),
        (["--once", "--replay", "/nonexistent"], "No such file or directory"),
        (["--once", "--replay", "/"], "s a directory"),
        (["--once", "--replay", str(MIXED), "--via", "x"], "runs no command"),
        (["--once", "--replay", str(MIXED), "--record", "/nonexistent/x"], "can't be written"),
        ([], "stdout is not a terminal"),
        (["--replay", str(MIXED)], "Use --once for a table"),
        (["--names", "leases,foo"], "'foo' is not a source of names; valid: leases, neighbours,"),
        (["--once", "--names", "dns"], "works only on the screen"),
    ],
)
def test_wrong_usage_is_2_and_says_why(args: list[str], words: str) -> None:
    result = run(*args)
    assert result.returncode == 2
    assert words in result.stderr.decode()
    assert result.stdout == b""
    assert b"Traceback" not in result.stderr


def test_a_wrong_filter_has_a_caret_under_the_place() -> None:
    lines = run("--once", "-f", "port:443 foo:1").stderr.decode().splitlines()
    at = next(i for i, line in enumerate(lines) if line.strip() == "port:443 foo:1")
    assert lines[at + 1].index("^") == lines[at].index("foo")


def test_options_come_from_the_environment_too() -> None:
    env = {"CONNTRACK_MONITOR_REPLAY": str(MIXED), "CONNTRACK_MONITOR_ONCE": "1", "CONNTRACK_MONITOR_JSON": "1"}
    env |= {
        "CONNTRACK_MONITOR_PROTOCOL": "icmp",
        "CONNTRACK_MONITOR_LIMIT": "3",
        "CONNTRACK_MONITOR_FILTER": "nat:snat",
    }
    found = objects(run(env=env).stdout)
    assert len(found) == 3
    assert {item["protocol"] for item in found} == {"icmp"}
    assert run(env={"CONNTRACK_MONITOR_SORT": "x", "CONNTRACK_MONITOR_ONCE": "1"}).returncode == 2


# --- lines as people have them ----------------------------------------------------------------------------------------

ODD = Path(__file__).parent.parent / "fixtures" / "captures" / "odd"


@pytest.mark.parametrize(
    ("name", "ports"),
    [
        ("01-summary-line", [(40000, 443)]),
        ("02-summary-line-empty-table", []),
        ("03-stamp-then-blanks", [(42998, 53), (42998, 53)]),
        ("04-stamp-indented", [(51234, 443)]),
        ("05-coloured-ports", [(40001, 443), (40001, 8443)]),
        ("06-coloured-state", [(40000, 443)]),
        ("11-syslog-prefix", [(50140, 80)]),
        ("13-hex-mark", [(50000, 443)]),
        ("15-bom", [(40000, 443)]),
    ],
)
def test_lines_as_people_have_them_are_read(name: str, ports: list[tuple[int, int]]) -> None:
    result = run("--replay", str(ODD / f"{name}.txt"), "--json")
    assert result.returncode == 0
    assert b"not understood" not in result.stderr
    assert [(item["original"]["sport"], item["original"]["dport"]) for item in objects(result.stdout)] == ports


@pytest.mark.parametrize(
    ("name", "words"),
    [
        *((name, "cut or changed in transit") for name in ("07-cut-port", "08-cut-address", "09-split-number")),
        ("10-name-and-number-disagree", "cut or changed in transit"),
        ("12-ovs", "Open vSwitch"),
    ],
)
@pytest.mark.parametrize(
    "options", [["--once"], ["--once", "--json"], ["--json"], ["--csv"], ["--once", "--view", "hosts"]]
)
def test_where_nothing_is_understood_it_is_said_what_it_looks_like(name: str, words: str, options: list[str]) -> None:
    result = run("--replay", str(ODD / f"{name}.txt"), *options)
    assert result.returncode == 1
    assert words in result.stderr.decode()
    assert b"{" not in result.stdout


NEW = "[NEW] ipv4     2 udp      17 30 src=10.4.0.6 dst=198.51.100.6 sport=42998 dport=53 [UNREPLIED] src=198.51.100.6 dst=203.0.113.9 sport=53 dport=42998"
LISTED = "udp      17 29 src=10.4.0.6 dst=198.51.100.6 sport=42998 dport=53 [UNREPLIED] src=198.51.100.6 dst=203.0.113.9 sport=53 dport=42998 mark=0 use=1"


@pytest.mark.parametrize(
    ("line", "at"),
    [
        (f"[1387190207.172139]\t    {NEW}", "2013-12-16T10:36:47.172139Z"),
        (f"    [1387190207.172139]    {NEW}", "2013-12-16T10:36:47.172139Z"),
        (f"2013-12-16T10:36:47.172139+00:00 nat1 conntrack[77]: {NEW}", "2013-12-16T10:36:47.172139Z"),
        (f"<30>1 2013-12-16T10:36:47Z nat1 conntrack 77 - - {NEW}", "2013-12-16T10:36:47.000000Z"),
        (f"Dec 16 10:36:47 nat1 conntrack[77]: [1387190207.172139]     {NEW}", "2013-12-16T10:36:47.172139Z"),
        (f"Dec 16 2013 10:36:47 nat1 conntrack: {NEW}", "2013-12-16T10:36:47.000000Z"),
        (f"1387190207.172139 nat1 conntrack[77]: {NEW}", "2013-12-16T10:36:47.172139Z"),  # journalctl -o short-unix
        (f"2013-12-16T10:36:47.172139500Z     {NEW}", "2013-12-16T10:36:47.172139Z"),  # docker logs -t
        (f"router-1  | {NEW}", None),
        (f"12:{NEW}", None),
        (f"day.log:12:{NEW}", None),
        (f"> > {NEW}", None),
        (f"\ufeff{LISTED}\r", None),
        (f"12: {LISTED}", None),
        (LISTED.replace(" ", "\t"), None),
        (f"   {LISTED}   ", None),
        (LISTED.replace("sport=42998", "\x1b[31msport=42998\x1b[0m", 1), None),
        (LISTED.replace("dport=53 ", "\x1b[01;31m\x1b[Kdport=53\x1b[m\x1b[K ", 1), None),
    ],
)
def test_what_stands_around_a_line_is_taken_off_and_its_time_is_used(line: str, at: str | None) -> None:
    result = run("--replay", "-", "--json", stdin=line.encode() + b"\n", env={"TZ": "UTC"})
    assert result.stderr.count(b"not understood") == 0
    (item,) = objects(result.stdout)
    assert item.get("time") == at
    assert (item["original"]["sport"], item["reply"]["dst"], item["nat"]) == (42998, "203.0.113.9", ["snat"])


def test_a_mark_in_hexadecimal_is_a_mark() -> None:
    """It was left out, and nothing was said."""
    (item,) = objects(run("--replay", str(ODD / "13-hex-mark.txt"), "--json").stdout)
    assert item["mark"] == 0x10000


LISTED_LINE = (
    "ipv4     2 tcp      6 300 ESTABLISHED src=10.0.0.5 dst=8.8.8.8 sport=4000 dport=443 "
    "src=8.8.8.8 dst=203.0.113.9 sport=443 dport=4000 [ASSURED] mark=0 use=1 id=5\n"
)


def test_what_the_last_line_counts_and_is_not_there_is_said() -> None:
    last = "conntrack v1.4.7 (conntrack-tools): 3 flow entries have been shown.\n"
    result = run("--replay", "-", "--json", stdin=(LISTED_LINE + last).encode())
    assert len(objects(result.stdout)) == 1
    assert b"2 flow entries are missing: conntrack printed that many more than were read" in result.stderr
    assert b"not understood" not in result.stderr


def test_one_flow_has_one_word_for_its_nat_in_all_views() -> None:
    """A flow that is masqueraded as this host was "snat" in Connections and "masq" in NAT."""
    recording = f"# 1.0 own 203.0.113.9\n# 1.5 list\n{LISTED_LINE}# 2.0 end 1\n".encode()
    for words in ((), ("--view", "nat"), ("--json",), ("--json", "--view", "nat"), ("--csv",)):
        told = run("--replay", "-", "--once", *words, stdin=recording).stdout
        assert re.findall(rb"snat|masq", told) == [b"snat"], words


# --- moments ----------------------------------------------------------------------------------------------------------

EDGES = ("0001-01-01T00:00", "9999-12-31T23:59", "14:02")


@pytest.mark.parametrize("zone", ["UTC", "<+09>-9"])  # in the east the year 10000 begins early
@pytest.mark.parametrize("moment", EDGES)
@pytest.mark.parametrize("stamp", ["1795387256", "253402300800", "0"])  # the second one is the first of the year 10000
def test_no_moment_ends_the_program(moment: str, stamp: str, zone: str) -> None:
    """It was "internal error, ValueError: year 0 is out of range", or year 10000."""
    recording = f"# {stamp}.5 list\n{LISTED_LINE}# {stamp}.7 end 1\n".encode()
    for words in (("--once",), ("--json",)):
        result = run("--replay", "-", *words, "-f", f"at:{moment}", stdin=recording, env={"TZ": zone})
        assert (result.returncode, b"internal error" in result.stderr) == (0, False), (words, result.stderr)


# --- replay -----------------------------------------------------------------------------------------------------------


def test_once_as_text() -> None:
    result = run("--replay", str(MIXED), "--once", "--limit", "5", "--sort", "bytes")
    lines = result.stdout.decode().splitlines()
    assert result.returncode == 0
    assert len(lines) == 6
    assert lines[0].split()[:4] == ["PROTO", "STATE", "SOURCE", "DESTINATION"]
    assert not any("…" in line or "\x1b" in line for line in lines)


def test_once_as_json_is_a_line_a_flow() -> None:
    found = objects(run("--replay", str(MIXED), "--once", "--json").stdout)
    assert len(found) == MIXED.read_bytes().count(b"\n")
    assert {item["event"] for item in found} == {"list"}
    assert "direction" not in found[0]


def test_once_shows_a_recording_as_it_stood_at_its_end(tmp_path: Path) -> None:
    first, second = (line + b"\n" for line in MIXED.read_bytes().splitlines()[:2])
    path = tmp_path / "two.rec"
    path.write_bytes(b"# 10.5 list\n" + first + b"# 11.5 end 1\n# 20.5 list\n" + second + b"# 21.5 end 1\n")
    (item,) = objects(run("--replay", str(path), "--once", "--json").stdout)
    assert item["id"] == objects(run("--replay", "-", "--once", "--json", stdin=second).stdout)[0]["id"]
    assert item["time"] == "1970-01-01T00:00:21.500000Z"


def test_sorting_reversing_limiting() -> None:
    def sizes(*args: str) -> list[int]:
        found = objects(run("--replay", str(MIXED), "--once", "--json", "--sort", "bytes", *args).stdout)
        return [item["original"]["bytes"] + item["reply"]["bytes"] for item in found]

    down, up = sizes(), sizes("--reverse")
    assert down == sorted(down, reverse=True)
    assert up == sorted(up)
    assert sizes("--limit", "3") == down[:3]
    assert sizes("--limit", "0") == []


def test_events_stream_in_their_order() -> None:
    found = objects(run("--replay", str(EVENTS), "--json").stdout)
    assert [item["event"] for item in found[:2]] == ["new", "update"]
    assert len(found) == EVENTS.read_bytes().count(b"\n")
    assert found[0]["time"] < found[-1]["time"]


def test_every_saved_line_is_told_even_of_one_flow() -> None:
    """The library's own lines are all about the same tuple; saved lines are no listing that is repeated."""
    text = (CAPTURES / "library-rendered.txt").read_bytes()
    lines = [line for line in text.splitlines() if line and not line.startswith(b"#")]
    found = objects(run("--replay", "-", "--json", stdin=b"\n".join(lines) + b"\n").stdout)
    assert len(found) == len(lines)
    assert [item["protocol"] for item in found] == [
        line.decode().removeprefix("[DESTROY] ").removeprefix(" [UPDATE] ").split()[2 * line.count(b"ipv4     2")]
        for line in lines
    ]


def test_standard_input_is_a_recording_too() -> None:
    data = EVENTS.read_bytes()
    result = run("--replay", "-", "--json", stdin=data)
    assert result.stdout == run("--replay", str(EVENTS), "--json").stdout
    without_newline = run("--replay", "-", "--json", stdin=data.rstrip(b"\n"))
    assert without_newline.stdout == result.stdout


def test_filters_and_flags_select_what_is_printed() -> None:
    found = objects(run("--replay", str(MIXED), "--once", "--json", "-p", "tcp", "-s", "time_wait", "-4").stdout)
    assert found
    assert {(item["protocol"], item["state"], item["family"]) for item in found} == {("tcp", "TIME_WAIT", "ipv4")}
    none = run("--replay", str(MIXED), "--once", "--json", "-6", "-f", "proto:icmp")
    assert (none.returncode, none.stdout) == (0, b"")


def test_csv_has_a_header_and_a_line_each() -> None:
    text = run("--replay", str(MIXED), "--once", "--csv").stdout.decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == MIXED.read_bytes().count(b"\n")
    assert rows[0]["original.src"]


def test_bad_input_is_counted_and_takes_nothing_with_it() -> None:
    good = EVENTS.read_bytes()
    first = good.splitlines(keepends=True)[0]
    junk = [b"\x00\xff\xfe garbage\n", b"half a line src=1.2.3.4\n", b"x" * 10_000_000 + b"\n", b"\x1b]0;owned\x07\n"]
    result = run("--replay", "-", "--json", stdin=good + b"".join(junk) + good + first[: len(first) // 2])
    assert result.returncode == 0
    found = objects(result.stdout)
    assert [item["event"] for item in found] == ["new", *["update"] * 5] * 2
    assert good.count(b"\n") == 6
    said = result.stderr.decode()
    assert "not understood" in said
    assert "\x1b" not in said
    counted = int(re.search(r"(\d+) lines not understood", said)[1])  # type: ignore[index]
    assert counted == 5


def test_a_clock_that_was_set_back_is_said() -> None:
    lines = EVENTS.read_bytes().splitlines(keepends=True)
    result = run("--replay", "-", "--json", stdin=b"".join([*lines, lines[0]]))
    assert len(objects(result.stdout)) == len(lines) + 1
    assert b"1 timestamps went backwards" in result.stderr or b"1 time stamp went back" in result.stderr


def test_a_closed_pipe_ends_quietly() -> None:
    command = f"{' '.join(PROGRAM)} --replay {MIXED} --once --json | head -1"
    result = subprocess.run(
        ["bash", "-c", f"{command}; echo ${{PIPESTATUS[0]}}"], capture_output=True, timeout=60, check=True
    )
    assert b"Broken pipe" not in result.stderr
    assert b"Traceback" not in result.stderr
    assert result.stdout.splitlines()[-1] == b"0"


def test_a_full_disk_is_1_and_says_so() -> None:
    with open("/dev/full", "wb") as full:
        result = subprocess.run(
            [*PROGRAM, "--replay", str(MIXED), "--once"], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False
        )
    assert result.returncode == 1
    assert b"No space left on device: standard output" in result.stderr


# --- recording --------------------------------------------------------------------------------------------------------


def test_a_recording_replays_as_what_was_read(tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    os.umask(0o022)
    first = run("--replay", str(EVENTS), "--json", "--record", str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert run("--replay", str(path), "--json").stdout == first.stdout


def test_a_recording_over_a_readable_file_becomes_private(tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    path.write_text("old")
    path.chmod(0o644)
    run("--replay", str(EVENTS), "--once", "--record", str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_recording_on_a_full_disk_stops_and_the_rest_goes_on() -> None:
    result = run("--replay", str(EVENTS), "--json", "--record", "/dev/full")
    assert result.returncode == 0
    assert len(objects(result.stdout)) == EVENTS.read_bytes().count(b"\n")
    assert b"recording stopped: No space left on device" in result.stderr


# --- conntrack's own failures -----------------------------------------------------------------------------------------

FAILURES = CAPTURES / "failures"


def failing(name: str) -> str:
    """A script that fails as a capture did."""
    status = int((FAILURES / f"{name}.rc").read_text())
    text = (FAILURES / f"{name}.stderr").read_text()
    ending = f"kill -{-status} $$" if status < 0 else f"exit {status}"
    return f"cat >&2 <<'EOF'\n{text}EOF\n{ending}"


@pytest.mark.parametrize("mode", [["--once"], ["--json"], ["--once", "--json"], ["--csv"]])
@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        (f'case "$1" in -E) {failing("nobody-E")} ;; esac\n{failing("nobody-L")}', 3, "needs root or CAP_NET_ADMIN"),
        (failing("inject-no-nfnetlink-L"), 1, "no connection tracking"),
        ("echo 'sh: 1: conntrack: not found' >&2; exit 127", 4, "not installed"),
        ("exit 1", 1, "exited with status 1"),
        ("kill -9 $$", 1, "killed by signal 9"),
        (
            "echo 'Cannot open network namespace \"x\": No such file or directory' >&2; exit 1",
            1,
            "no network namespace 'x'",
        ),
        ("echo 'sudo: a password is required' >&2; exit 1", 3, "sudo needs a password"),
        ("echo 'root@r: Permission denied (publickey,password).' >&2; exit 255", 3, "ssh login failed"),
        ("printf 'bad \\033[31mthing\\n' >&2; exit 1", 1, "bad [31mthing"),
    ],
    ids=["not-root", "no-kernel", "via-missing", "silent", "killed", "no-netns", "sudo", "ssh", "escapes"],
)
def test_conntrack_failing_at_the_start(
    fake: Callable[[str], str], mode: list[str], script: str, code: int, words: str
) -> None:
    result = run(*mode, "--conntrack", fake(script))
    assert (result.returncode, result.stdout if "--csv" not in mode else b"") == (code, b"")
    assert words in result.stderr.decode()
    assert b"Traceback" not in result.stderr
    assert b"\x1b" not in result.stderr


@pytest.mark.parametrize("mode", [["--once"], ["--json"]])
def test_no_conntrack_at_all(mode: list[str], tmp_path: Path) -> None:
    result = run(*mode, env={"PATH": str(tmp_path)})
    assert result.returncode == 4
    assert b"conntrack is not installed here; try: apt install conntrack" in result.stderr
    result = run(*mode, "--via", "nosuchprogram x")
    assert result.returncode == 4
    assert b"nosuchprogram: no such program" in result.stderr
    not_executable = tmp_path / "conntrack"
    not_executable.write_text("")
    assert run(*mode, "--conntrack", str(not_executable)).returncode == 3


def listing_script(extra: str = "") -> str:
    return f'{extra}\ncase "$1" in -L) cat {MIXED} ;; -E) sleep 60 ;; esac'


def test_0_entries_say_how_tracking_is_switched_on(fake: Callable[[str], str]) -> None:
    result = run("--once", "--conntrack", fake("exit 0"))
    assert result.returncode == 0
    assert b"0 entries: either no traffic, or tracking is off" in result.stderr
    assert b"iptables -I INPUT -m conntrack" in result.stderr


@pytest.mark.parametrize("end", ["\\n", "\\r\\n"])  # the second one: docker exec -t and ssh -t
def test_an_empty_table_is_one_also_where_all_output_comes_as_one(fake: Callable[[str], str], end: str) -> None:
    """Its only line is then conntrack's last one. It was "not conntrack's", and the end was 1."""
    last = f"printf 'conntrack v1.4.7 (conntrack-tools): 0 flow entries have been shown.{end}'"
    for words in ((), ("--json",), ("--csv",)):
        result = run("--once", *words, "--conntrack", fake(last))
        assert (result.returncode, b"{" in result.stdout) == (0, False), result.stderr
        assert b"0 entries: either no traffic, or tracking is off" in result.stderr
        assert b"not understood" not in result.stderr


def test_filters_are_pushed_down_where_that_is_exact(fake: Callable[[str], str], tmp_path: Path) -> None:
    path = fake(f'echo "$*" >> {tmp_path}/calls')

    def called(*args: str) -> str:
        (tmp_path / "calls").write_text("")
        run("--once", "--conntrack", path, *args)
        return (tmp_path / "calls").read_text().strip()

    assert called() == "-L -o extended,id"
    assert called("-p", "tcp") == "-L -o extended,id -p tcp"
    assert called("-p", "6", "-4") == "-L -o extended,id -p tcp -f ipv4"
    assert called("-p", "tcp", "-p", "udp") == "-L -o extended,id"
    assert called("-6", "-s", "ESTABLISHED") == "-L -o extended,id -f ipv6"
    assert called("-4", "-6") == "-L -o extended,id"
    assert called("-p", "50") == "-L -o extended,id"
    assert called("-f", "proto:tcp") == "-L -o extended,id"


def test_arguments_reach_conntrack_without_a_shell(fake: Callable[[str], str], tmp_path: Path) -> None:
    path = fake('for word; do printf "%s\\n" "$word"; done >> "$(dirname "$0")/words"')
    run("--once", "--conntrack", path, "--via", f"env 'X=$(touch {tmp_path}/owned); `id`'")
    assert not (tmp_path / "owned").exists()
    assert (tmp_path / "words").read_text().split("\n")[0] == "-L"


class Running:
    """The program in the background, with its output in files that a test waits on."""

    def __init__(self, tmp_path: Path, *args: str) -> None:
        self.out, self.err = tmp_path / "out", tmp_path / "err"
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.process = subprocess.Popen([*PROGRAM, *args], stdout=out, stderr=err, stdin=subprocess.DEVNULL)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < until, (self.out.read_bytes()[-500:], self.err.read_bytes()[-500:])
            time.sleep(0.02)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(10)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(10)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stream_ends_well_on_signals_and_leaves_no_child(
    fake: Callable[[str], str], tmp_path: Path, number: int
) -> None:
    script = listing_script(f"echo $$ >> {tmp_path}/pids").replace("sleep 60", "exec sleep 60")
    with Running(tmp_path, "--json", "--conntrack", fake(script)) as program:
        program.wait_for(lambda: program.out.read_bytes().count(b"\n") >= 100)
        assert program.stop(number) == 0
    assert program.err.read_bytes().count(b"Traceback") == 0
    for pid in (tmp_path / "pids").read_text().split():
        assert not Path(f"/proc/{pid}").exists()


def stalled(tmp_path: Path, writer: int) -> subprocess.Popen[bytes]:
    """A stream into a pipe that nobody reads; it is full."""
    lines = tmp_path / "many.txt"
    lines.write_bytes(
        b"".join(
            line.replace(b"id=", b"id=%d" % i) + b"\n" for i in range(50) for line in MIXED.read_bytes().splitlines()
        )
    )
    process = subprocess.Popen([*PROGRAM, "--replay", str(lines), "--json"], stdout=writer, stderr=subprocess.DEVNULL)
    full = select.poll()
    full.register(writer, select.POLLOUT)
    wait_for(lambda: not full.poll(0), what="the pipe to be full")
    return process


def test_a_reader_that_stalls_does_not_keep_us_from_ending(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    try:
        process = stalled(tmp_path, writer)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        os.close(reader)
        os.close(writer)


def test_the_last_line_is_whole_where_the_reader_goes_on(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with open(reader, "rb") as pipe:
        process = stalled(tmp_path, writer)
        os.close(writer)
        process.send_signal(signal.SIGTERM)
        lines = pipe.read().splitlines(keepends=True)
        assert process.wait(10) == 0
    assert len(lines) > 50
    assert json.loads(lines[-1])["event"]
    assert lines[-1].endswith(b"}\n")


def test_standard_input_and_output_may_be_one_description() -> None:
    """As sshd without a terminal hands them out: making one non-blocking would make the other so, too."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [*PROGRAM, "--replay", "-", "--json"], stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=subprocess.PIPE
        )
        theirs.close()
        ours.sendall(MIXED.read_bytes() * 3)
        ours.shutdown(socket.SHUT_WR)
        out = b""
        while data := ours.recv(65_536):
            out += data
        assert process.wait(10) == 0
        assert process.stderr is not None
        process.stderr.close()
    assert out.count(b"\n") == 3 * MIXED.read_bytes().count(b"\n")


def test_a_child_that_ignores_sigterm_is_killed(fake: Callable[[str], str], tmp_path: Path) -> None:
    script = f'echo $$ >> {tmp_path}/pids\ntrap "" TERM\n' + listing_script().replace(
        "sleep 60", "while :; do sleep 1; done"
    )
    with Running(tmp_path, "--json", "--conntrack", fake(script)) as program:
        program.wait_for(lambda: program.out.read_bytes().count(b"\n") >= 100)
        assert program.stop() == 0
    for pid in (tmp_path / "pids").read_text().split():
        assert not Path(f"/proc/{pid}").exists()


def test_a_dead_listener_is_said_and_started_again(fake: Callable[[str], str], tmp_path: Path) -> None:
    line = EVENTS.read_bytes().splitlines()[0].decode()
    script = f"""
case "$1" in
-L) cat {MIXED} ;;
-E) if [ -e {tmp_path}/died ]; then printf '%s\\n' '{line}'; exec sleep 60
    else touch {tmp_path}/died; echo 'failed to received netlink event: Cannot allocate memory' >&2; exit 1; fi ;;
esac"""
    with Running(tmp_path, "--json", "--conntrack", fake(script)) as program:
        program.wait_for(lambda: b'"event":"new"' in program.out.read_bytes())
        assert program.stop() == 0
    said = program.err.read_text()
    assert "events stopped" in said
    assert "Cannot allocate memory" in said
    assert "events are back" in said


def test_losses_are_said_and_the_table_is_read_anew(fake: Callable[[str], str], tmp_path: Path) -> None:
    script = f"""
case "$1" in
-L) echo x >> {tmp_path}/listings; cat {MIXED} ;;
-E) while [ ! -e {tmp_path}/listings ]; do sleep 0.02; done
    echo 'WARNING: We have hit ENOBUFS! We are losing events.' >&2; exec sleep 60 ;;
esac"""
    with Running(tmp_path, "--json", "--interval", "600", "--conntrack", fake(script)) as program:
        program.wait_for(
            lambda: (tmp_path / "listings").exists() and (tmp_path / "listings").read_text().count("x") >= 2
        )
        assert program.stop() == 0
    assert "lost: events (ENOBUFS)" in program.err.read_text()


def test_of_a_listing_that_was_killed_half_a_line_is_not_taken(fake: Callable[[str], str], tmp_path: Path) -> None:
    """Cut within its last number a line looks whole, and would be a flow with another id, that nobody ever had."""
    lines = MIXED.read_bytes().splitlines(keepends=True)
    script = f"""
case "$1" in
-L) echo x >> {tmp_path}/listings
    if [ $(wc -l < {tmp_path}/listings) -eq 2 ]; then head -c {len(b"".join(lines[:5])) - 3} {MIXED}; kill -KILL $$; fi
    cat {MIXED} ;;
-E) exec sleep 60 ;;
esac"""
    with Running(tmp_path, "--json", "--interval", "0.2", "--conntrack", fake(script)) as program:
        program.wait_for(
            lambda: (tmp_path / "listings").exists() and (tmp_path / "listings").read_text().count("x") >= 4
        )
        assert program.stop() == 0
    assert [item["event"] for item in objects(program.out.read_bytes())] == ["list"] * len(lines)
    said = program.err.read_text()
    assert "listing stopped: killed by signal 9" in said
    assert "not understood" not in said


def test_a_flow_that_only_listings_know_comes_and_goes(fake: Callable[[str], str], tmp_path: Path) -> None:
    """nf_conntrack_events=2: what is older than the listener has no events; the reader hears of it all the same."""
    script = f"""
case "$1" in
-L) if [ -e {tmp_path}/gone ]; then head -4 {MIXED}; else cat {MIXED}; fi ;;
-E) exec sleep 60 ;;
esac"""
    with Running(tmp_path, "--json", "--interval", "0.2", "--conntrack", fake(script)) as program:
        lines = MIXED.read_bytes().count(b"\n")
        program.wait_for(lambda: program.out.read_bytes().count(b"\n") == lines)
        (tmp_path / "gone").touch()
        program.wait_for(lambda: program.out.read_bytes().count(b"\n") == 2 * lines - 4)
        assert program.stop() == 0
    found = objects(program.out.read_bytes())
    assert [item["event"] for item in found] == ["list"] * lines + ["destroy"] * (lines - 4)
    assert all(item["inferred"] is True for item in found[lines:])
    assert not any("inferred" in item for item in found[:lines])


def test_a_missing_package_is_said_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "IPy.py").write_text("raise ModuleNotFoundError(\"No module named 'IPy'\", name='IPy')")
    result = run("--replay", str(MIXED), "--once", env={"PYTHONPATH": str(tmp_path)})
    assert result.returncode == 1
    assert result.stderr == (
        b"conntrack-monitor: the Python package IPy is not installed; try: pip install -r requirements.txt\n"
    )


def test_conntrack_1_4_6_refuses_f_with_e(fake: Callable[[str], str], tmp_path: Path) -> None:
    line = EVENTS.read_bytes().splitlines()[0].decode()
    script = f"""
case "$*" in
-E*-f*) echo "conntrack v1.4.6 (conntrack-tools): Illegal option \\`-f' with this command" >&2; exit 2 ;;
-E*) printf '%s\\n' '{line}'; exec sleep 60 ;;
-L*) cat {MIXED} ;;
esac"""
    with Running(tmp_path, "--json", "-4", "--conntrack", fake(script)) as program:
        program.wait_for(lambda: b'"event":"new"' in program.out.read_bytes())
        assert program.stop() == 0


def test_conntrack_1_4_6_lists_one_family_at_a_time(fake: Callable[[str], str]) -> None:
    ipv4, ipv6 = (CAPTURES / name / "L.ext-id.txt" for name in ("udp-replied", "ipv6-udp"))
    script = f"""
case "$*" in
*"-f ipv6") cat {ipv6} ;;
-L*) cat {ipv4} ;;
esac
echo "conntrack v1.4.VERSION (conntrack-tools): 1 flow entries have been shown." >&2"""
    both = run("--once", "--json", "--conntrack", fake(script.replace("VERSION", "6"))).stdout
    assert {item["family"] for item in objects(both)} == {"ipv4", "ipv6"}
    one = run("--once", "--json", "--conntrack", fake(script.replace("VERSION", "7"))).stdout
    assert {item["family"] for item in objects(one)} == {"ipv4"}


# --- the screen, just enough to know that it starts and says why it can't ------------------------------------------------


def on_a_terminal(*args: str) -> tuple[int, str]:
    """Run on a pseudo-terminal until it ends; its exit status and all it wrote there."""
    pid, fd = pty.fork()
    if pid == 0:
        try:
            os.environ["TERM"] = "xterm-256color"
            os.execv(PROGRAM[0], [*PROGRAM, *args])
        finally:
            os._exit(127)
    out = b""
    while True:
        try:
            data = os.read(fd, 65536)
        except OSError:
            break
        if not data:
            break
        out += data
    _, status = os.waitpid(pid, 0)
    os.close(fd)
    return os.waitstatus_to_exitcode(status), out.decode("utf-8", "replace")


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [(failing("nobody-L"), 3, "needs root or CAP_NET_ADMIN"), ("exit 5", 1, "exited with status 5")],
)
def test_a_screen_that_can_t_start_gives_the_terminal_back_and_says_why(
    fake: Callable[[str], str], script: str, code: int, words: str
) -> None:
    status, text = on_a_terminal("--conntrack", fake(script))
    assert status == code
    after = text.rpartition("\x1b[?1049l")[2]
    assert words in after
    assert ("\x1b[?1049h" in text) == ("\x1b[?25h" in text) == ("\x1b[?1049l" in text)


def test_a_view_goes_with_once_or_the_screen() -> None:
    args = [*PROGRAM, "--replay", str(DEMO), "--view", "hosts", "--json"]
    result = subprocess.run(args, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "--view works with --once or on the screen" in result.stderr


# --- why there is no row, and what is given twice ---------------------------------------------------------------------


def test_once_says_why_there_are_no_events(fake: Callable[[str], str]) -> None:
    conntrack = fake(f"cat {MIXED}")
    for words in ((), ("--json",), ("--csv",)):
        result = run("--no-config", "--once", "--view", "events", "--conntrack", conntrack, *words)
        assert result.returncode == 0
        assert b"does not wait for events" in result.stderr
    result = run("--no-config", "--once", "--view", "events", "--replay", str(MIXED))
    assert (result.returncode, b"only listings" in result.stderr) == (0, True)
    result = run("--no-config", "--once", "--view", "events", "--replay", str(EVENTS))
    assert b"no event" not in result.stderr


def test_once_says_why_nothing_is_translated(fake: Callable[[str], str]) -> None:
    plain = "ipv4 2 udp 17 29 src=10.0.0.1 dst=10.9.0.1 sport=9 dport=9 src=10.9.0.1 dst=10.0.0.1 sport=9 dport=9 use=1 id=1"
    result = run("--no-config", "--once", "--view", "nat", "--conntrack", fake(f"echo '{plain}'"))
    assert b"no flow is translated" in result.stderr
    assert b"nft list ruleset" in result.stderr


ONE_VALUE = {
    "--filter": ("port:443", "port:80"),
    "-f": ("port:443", "port:80"),
    "--view": ("nat", "hosts"),
    "--sort": ("bytes", "rate"),
    "--replay": (str(MIXED), str(EVENTS)),
    "--record": ("/tmp/one", "/tmp/two"),
    "--conntrack": ("/bin/false", "/bin/true"),
    "--interval": ("1", "2"),
    "--linger": ("1", "2"),
    "--limit": ("1", "2"),
    "--history": ("1", "2"),
    "--speed": ("1", "2"),
}


@pytest.mark.parametrize("option", ONE_VALUE)
def test_an_option_of_one_value_can_t_be_given_twice(option: str) -> None:
    """The first one would be left out, and nobody told: `--via A --via B` watched B alone."""
    first, second = ONE_VALUE[option]
    replay = () if option in ("--via", "--conntrack", "--replay") else ("--replay", str(MIXED))
    result = run("--no-config", "--once", *replay, option, first, option, second)
    assert (result.returncode, result.stdout) == (2, b"")
    assert b"given twice" in result.stderr
    assert b"'-f' / '--filter'" in result.stderr if option in ("-f", "--filter") else option.encode() in result.stderr


def test_two_names_of_one_option_are_that_option_twice() -> None:
    result = run("--no-config", "--once", "--replay", str(MIXED), "-f", "proto:tcp", "--filter=proto:udp")
    assert (result.returncode, b"given twice" in result.stderr) == (2, True)


def test_what_may_be_repeated_may_be(tmp_path: Path) -> None:
    words = ["-p", "tcp", "-p", "udp", "-s", "ASSURED", "-s", "UNREPLIED", "--geoip-db", str(tmp_path)]
    result = run("--no-config", "--once", "--once", "--replay", str(MIXED), *words, "--geoip-db", str(tmp_path))
    assert result.returncode == 0
    result = run("--once", "--replay", str(MIXED), "-f", "proto:tcp", env={"CONNTRACK_MONITOR_FILTER": "proto:udp"})
    assert result.returncode == 0  # the command line comes before the environment
