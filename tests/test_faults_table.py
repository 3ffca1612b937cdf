"""The table at its worst moment, on the real kernel: nearly full, uncounted, unheard; and each command that mends it.

A command is taken from where the program proposes it, on the screen or on standard error, and typed as it stands.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.kernel import Lab, Namespace, insert_arguments, kernel_mark, load
from support.program import OnScreen, Piped, inside, run_once
from support.terminal import PROGRAM

pytestmark = kernel_mark()

SIZE = (170, 50)
MOST = 1000
SEND = "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('127.0.0.1', 4009))"
MAX = "/proc/sys/net/netfilter/nf_conntrack_max"


@pytest.fixture
def ns() -> Iterator[Namespace]:
    with Namespace() as made:
        made.sysctl("net.netfilter.nf_conntrack_acct", 1)
        yield made


def fill(ns: Namespace, first: int, last: int, src: str = "10.0.0.7") -> None:
    """Assured flows of one source, by their ports."""
    flags = ("SEEN_REPLY", "ASSURED")
    words = (
        insert_arguments(src=src, dst="192.0.2.2", sport=port, dport=80, timeout=3600, flags=flags)
        for port in range(first, last + 1)
    )
    load(ns, ("-I " + " ".join(entry) for entry in words))


def limited(ns: Namespace, folder: Path, most: int = MOST) -> list[str]:
    """The program in a namespace whose table has so much room. The kernel has one maximum for all namespaces, so a
    file takes the place of that one in the program's own view of the files."""
    file = folder / "max"
    file.write_text(f"{most}\n")
    script = f'mount --bind {shlex.quote(str(file))} {MAX} && exec "$@"'
    ip, *words = ns.prefix
    return [shutil.which(ip) or ip, *words, "unshare", "-m", "sh", "-c", script, "sh", *PROGRAM]


def cure_of(text: str, reason: str) -> str:
    """The command that the screen proposes in the line of a reason, or in the line below."""
    lines = text.split("\n")
    at = next(at for at, line in enumerate(lines) if reason in line)
    proposed = next(line for line in lines[at : at + 2] if "try: " in line)
    return re.sub(r" \(\+?\d*(, )?see H\)$", "", proposed.partition("try: ")[2].rstrip())


def type_it(command: str, ns: Namespace | None = None, pid: int | None = None) -> None:
    """Type a command: in the namespace, and where the process sees the files, if they are given."""
    before = ["nsenter", "-t", str(pid), "-m", "-n"] if pid else ns.prefix if ns else []
    done = subprocess.run([*before, "sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, (command, done.stderr)


# --- who fills it -----------------------------------------------------------------------------------------------------


def slow(folder: Path, lines: int) -> tuple[str, Path]:
    """A conntrack whose first listing stands still after some lines until a file is there."""
    gate, script = folder / "go-on", folder / "slow-conntrack"
    script.write_text(f"""#!/bin/sh
case " $* " in
*" -L "*)
    conntrack "$@" | {{
        read_so_far=0
        while IFS= read -r line; do
            printf '%s\\n' "$line"
            read_so_far=$((read_so_far + 1))
            [ $read_so_far != {lines} ] || until [ -e {shlex.quote(str(gate))} ]; do sleep 0.05; done
        done
    }} ;;
*) exec conntrack "$@" ;;
esac
""")
    script.chmod(0o755)
    return str(script), gate


def test_half_a_table_is_not_counted_and_a_whole_one_at_once(ns: Namespace, tmp_path: Path) -> None:
    """The first listing stands still after 51 of 600 flows: none is "assured", until all have come."""
    fill(ns, 1, 600)
    conntrack, gate = slow(tmp_path, 51)
    program = limited(ns, tmp_path)
    with OnScreen(tmp_path, "--conntrack", conntrack, "--interval", 60, size=SIZE, program=program) as screen:
        screen.wait("tcp 51")
        screen.type("H")
        screen.wait("60 %, 600 of 1000")
        before = screen.text
        assert "51 flows" not in before
        assert "assured" not in before
        gate.touch()
        screen.wait("600 flows (100 %): never evicted early")
        assert "no full listing yet" in before
        screen.wait("600 flows (100 %)")
        screen.leave()


def test_opening_health_counts_anew(ns: Namespace, tmp_path: Path) -> None:
    """What was counted when the table became crowded is not shown half a minute later."""
    fill(ns, 1, 400)
    with OnScreen(tmp_path, "--interval", 0.2, size=SIZE, program=limited(ns, tmp_path)) as screen:
        screen.wait("Connections · 400")
        fill(ns, 401, 600)
        screen.wait("holds 100 %")  # counted; the next count is 30 s away
        fill(ns, 601, 640, src="10.0.0.8")
        screen.wait("Connections · 640")
        screen.type("H")
        screen.wait("640 flows (100 %): never")
        screen.wait("40 flows (6 %)")
        screen.leave()


# --- nearly full ------------------------------------------------------------------------------------------------------


def test_a_table_that_is_nearly_full_comes_first_and_can_be_put_aside(ns: Namespace, tmp_path: Path) -> None:
    """From 80 % on with who holds most and the command, whatever else is wrong; put aside until it changes."""
    ns.sysctl("net.netfilter.nf_conntrack_acct", 0)
    fill(ns, 1, 500)
    fill(ns, 501, 820, src="10.0.0.8")
    with OnScreen(tmp_path, "--interval", 0.2, size=SIZE, program=limited(ns, tmp_path)) as screen:
        text = "! table 82 % full (820/1000); 10.0.0.7 holds most: 61 %"
        screen.wait(text)
        lines = screen.text.split("\n")
        assert lines[2].startswith(text)
        assert lines[3].startswith("! accounting is off")
        screen.type("!")
        screen.wait("Hidden until it changes: table 82 % full")
        screen.wait(lambda: screen.text.split("\n")[2].startswith("! accounting is off"))
        fill(ns, 821, 830)
        screen.wait("830/1000")
        assert "! table" not in screen.text  # 83 % is no other thing
        fill(ns, 831, 990)
        screen.wait(lambda: screen.text.split("\n")[2].startswith("! table 99 % full (990/1000); 10.0.0.7 holds most"))
        screen.type("!!!!")  # this one, accounting, databases; then all come back
        screen.wait("! table 99 % full (990/1000)")
        screen.type("!H")
        screen.wait("! table 99 % full (990/1000)")  # H says all
        screen.leave()


def test_the_command_makes_room(ns: Namespace, tmp_path: Path) -> None:
    fill(ns, 1, 960)
    with OnScreen(tmp_path, size=SIZE, program=limited(ns, tmp_path)) as screen:
        screen.wait("10.0.0.7 holds most: 100 %")
        type_it(cure_of(screen.text, "! table 96 % full"), pid=screen.pid)
        screen.wait("48% 960/1920" if "1920" in screen.text else "960/2000")
        assert "! table" not in screen.text
        screen.leave()


@pytest.mark.parametrize("size", [(80, 24), (100, 30), (140, 40), (40, 10)])
def test_at_every_size_the_table_comes_first(ns: Namespace, tmp_path: Path, size: tuple[int, int]) -> None:
    ns.sysctl("net.netfilter.nf_conntrack_events", 0)
    fill(ns, 1, 990)
    with OnScreen(tmp_path, size=size, program=limited(ns, tmp_path)) as screen:
        screen.wait("! table 99 % full (990/1000" if size[0] > 40 else "! table 99 % full")
        if size[0] >= 80:
            screen.wait("10.0.0.7 holds most: 100 %")
            screen.wait("sysctl -w net.netfilter.nf_conntrack_max=2000")  # a frame may come in two parts
            assert cure_of(screen.text, "! table 99 %") == "sysctl -w net.netfilter.nf_conntrack_max=2000"
        screen.leave()


def test_the_limit_for_a_source_limits_it(tmp_path: Path) -> None:
    """A client that fills the table gets a twentieth of it, and not less than 100 flows."""
    with Lab() as lab:
        lab.udp_unanswered(4000, flows=150)
        program = limited(lab.router, tmp_path, 200)
        with OnScreen(tmp_path, "--interval", 0.5, size=SIZE, program=program) as screen:
            screen.type("H")
            screen.wait("150 flows (100 %)")
            type_it(cure_of(screen.text, "-m connlimit"), pid=screen.pid)
            lab.router.run(["conntrack", "-F"])
            lab.udp_unanswered(4001, flows=150)
            screen.wait("100 flows (100 %)")
            screen.leave()
        assert len(lab.table()) == 100


# --- off --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reason"),
    [("acct", "accounting is off"), ("events", "the kernel sends no events")],
)
@pytest.mark.parametrize("by_via", [False, True])
def test_what_is_off_is_on_after_its_command(
    ns: Namespace, tmp_path: Path, name: str, reason: str, by_via: bool
) -> None:
    """With --via the command that is proposed goes the same way, or it would change this machine and not that one."""
    ns.sysctl(f"net.netfilter.nf_conntrack_{name}", 0)
    fill(ns, 1, 3)
    words = ["--via", ns.via] if by_via else []
    program = PROGRAM if by_via else inside(ns)
    with OnScreen(tmp_path, *words, size=SIZE, program=program) as screen:
        screen.wait(f"! {reason}")
        type_it(cure_of(screen.text, f"! {reason}"), None if by_via else ns)
        assert int(ns.run(["cat", f"/proc/sys/net/netfilter/nf_conntrack_{name}"]).stdout) > 0
        screen.wait(lambda: reason not in screen.text and "kernel events were off" not in screen.text)
        screen.leave()


def test_tracking_is_on_after_its_command(tmp_path: Path) -> None:
    with Namespace() as ns, OnScreen(tmp_path, "--via", ns.via, "--interval", 0.2, size=SIZE) as screen:
        ns.run([sys.executable, "-c", SEND])
        screen.wait("tracking is off")
        screen.wait("--demo")  # what there would be to see
        type_it(cure_of(screen.text, "tracking is off"))
        ns.run([sys.executable, "-c", SEND])
        screen.wait("127.0.0.1:4009")
        screen.leave()


def test_events_that_were_off_are_said_until_a_listing_has_swept(ns: Namespace, tmp_path: Path) -> None:
    """Flows born meanwhile have no DESTROY coming: only a whole listing that began since tells what is there."""
    ns.sysctl("net.netfilter.nf_conntrack_events", 0)
    fill(ns, 1, 3)
    with OnScreen(tmp_path, "--interval", 3600, size=SIZE, program=inside(ns)) as screen:
        screen.wait("! the kernel sends no events")
        screen.wait("Connections · 3")
        ns.run(["conntrack", "-F"])  # nobody hears of it
        type_it(cure_of(screen.text, "! the kernel sends no events"), ns)
        screen.wait("! kernel events were off")
        assert "Connections · 3" in screen.text
        screen.type("\x0c")  # Ctrl+L: list at once
        screen.wait("Connections · 0")
        screen.wait(lambda: "kernel events were off" not in screen.text)
        screen.leave()


def test_a_stream_says_that_events_were_off(ns: Namespace, tmp_path: Path) -> None:
    ns.sysctl("net.netfilter.nf_conntrack_events", 0)
    fill(ns, 1, 3)
    with Piped(tmp_path, "--interval", 3600, program=inside(ns)) as stream:
        stream.wait("the kernel sends no events; try: sysctl -w net.netfilter.nf_conntrack_events=2")
        ns.sysctl("net.netfilter.nf_conntrack_events", 2)
        stream.wait("kernel events were off")
        stream.leave()


# --- streams ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["--json", "--csv"])
def test_a_stream_says_what_the_header_says(ns: Namespace, tmp_path: Path, mode: str) -> None:
    for name in ("acct", "events"):
        ns.sysctl(f"net.netfilter.nf_conntrack_{name}", 0)
    fill(ns, 1, 600)
    fill(ns, 601, 850, src="10.0.0.8")
    with Piped(tmp_path, mode, "--interval", 0.2, program=limited(ns, tmp_path), mode=()) as stream:
        stream.wait(
            "table 85 % full (850/1000); 10.0.0.7 holds most: 71 %; try: sysctl -w net.netfilter.nf_conntrack_max"
        )
        stream.wait("accounting is off: no bytes, packets or rates; try: sysctl -w net.netfilter.nf_conntrack_acct=1")
        stream.wait("the kernel sends no events; try: sysctl -w net.netfilter.nf_conntrack_events=2")
        fill(ns, 851, 960)
        stream.wait("table 96 % full (960/1000)")
        stream.leave()
        for words in ("table 85 %", "accounting is off", "sends no events", "table 96 %"):
            assert stream.words().count(words) == 1


def test_a_table_printed_once_says_so(ns: Namespace, tmp_path: Path) -> None:
    ns.sysctl("net.netfilter.nf_conntrack_acct", 0)
    fill(ns, 1, 960)
    for mode in ([], ["--json"], ["--csv"]):
        status, words = run_once(tmp_path, *mode, program=limited(ns, tmp_path))
        assert status == 0
        assert "table 96 % full (960/1000); 10.0.0.7 holds most: 100 %; try: sysctl -w" in words
        assert "accounting is off" in words


# --- out of memory ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "helps"), [("--once", "--limit N"), ("--json", "a shorter recording")])
def test_without_memory_it_says_what_took_it(tmp_path: Path, mode: str, helps: str) -> None:
    """60,000 flows, and room for less; Python itself takes 30 MB, and newer ones more."""
    recording = tmp_path / "many.txt"
    ends = "src=10.{0}.{1}.1 dst=192.0.2.1 sport=9 dport=9", "src=192.0.2.1 dst=10.{0}.{1}.1 sport=9 dport=9"
    line = f"ipv4     2 udp      17 29 {ends[0]} [UNREPLIED] {ends[1]} mark=0 use=1 id={{2}}\n"
    recording.write_text("".join(line.format(*divmod(number, 256), number) for number in range(60_000)))
    for megabytes in (50, 65, 80):
        words = ["prlimit", f"--as={megabytes}000000", *PROGRAM, "--no-config", "--no-download", mode]
        done = subprocess.run(
            [*words, "--replay", str(recording)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 1
        if " flows (about" in done.stderr:
            break
    assert "internal error" not in done.stderr
    assert "Traceback" not in done.stderr
    allowed = f"{megabytes} MB are allowed"
    said = re.search(rf"out of memory with \d+ MB in use, {allowed} \(ulimit -v\): (\d+) flows", done.stderr)
    assert said, done.stderr
    assert int(said.group(1)) > 1000
    assert f"; try: ulimit -v unlimited; {helps}" in done.stderr
