"""The program that keeps a flow log, with a kernel under it: killed, refused, without room, without its writer."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import past
from support.kernel import (
    Lab,
    Namespace,
    insert,
    insert_arguments,
    kernel_mark,
    listeners,
    load,
    process_state,
    send_signal,
)
from support.logs import SERVER, WAN, flow_rows, gap_rows, insiders, rows, usage
from support.program import OnScreen, Piped, changed, inside, no_orphans, processes, wait_for_children
from support.terminal import PROGRAM, ROOT
from support.waiting import wait_for

pytestmark = kernel_mark()

CHILD = "--log-writer"


@pytest.fixture
def router() -> Iterator[Namespace]:
    with Namespace("log") as made:
        made.sysctl("net.netfilter.nf_conntrack_acct", 1)
        yield made


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def headless(tmp_path: Path, ns: Namespace, log: Path, *args: object, program: Sequence[str] = (), **env: str) -> Piped:
    words = [*inside(ns)[:4], *program] if program else inside(ns)
    return Piped(tmp_path, "--no-config", "--headless", "--log", log, *args, program=words, mode=(), env=env)


def with_statement(statement: str) -> list[str]:
    """The loop changed by a statement; its writer is the real one."""
    return changed(f"sys.argv[0] = {str(ROOT / 'conntrack_monitor.py')!r}; {statement}")


def found(log: Path, query: str) -> list[dict[str, Any]]:
    with suppress(sqlite3.Error, OSError):  # being made
        return rows(log, query)
    return []


def is_ready(log: Path, since: float) -> bool:
    """Is all that was there at the start in the log?"""
    about = found(log, "SELECT * FROM about")
    waits = found(log, f"SELECT * FROM gap WHERE until IS NULL AND reason = '{past.NOT_RUNNING}'")
    return bool(about) and about[-1]["alive"] > since and about[-1]["seen"] > since - 60 and not waits


@contextmanager
def logging(
    tmp_path: Path, ns: Namespace, log: Path, *args: object, program: Sequence[str] = (), **env: str
) -> Iterator[Piped]:
    """The program, from when all is in the log on."""
    began = time.time()
    with headless(tmp_path, ns, log, *args, program=program, **env) as running:
        running.wait(lambda: is_ready(log, began))
        yield running


def translated(host: int = 5, sport: int = 1000, port: int = 40000) -> dict[str, object]:
    return {
        **{"src": f"10.0.0.{host}", "sport": sport, "dst": SERVER, "dport": 443},
        **{"src_nat": f"{WAN}:{port}", "flags": ("SEEN_REPLY", "ASSURED"), "timeout": 600},
    }


def delete(ns: Namespace, host: int = 5) -> None:
    ns.run(["conntrack", "-D", "-s", f"10.0.0.{host}"])


def come_and_gone(ns: Namespace, log: Path, host: int = 5, port: int = 40000) -> float:
    """A connection that began and ended, and is in the log; returns a moment of its life."""
    insert(ns, **translated(host, 1000 + host, port))
    # Its NEW must be read before it ends, else nothing tells that it lived for a while.
    at = time.time() + 0.3
    wait_for(lambda: time.time() > at + 0.3, "the middle of its life")
    delete(ns, host)
    wait_for(lambda: has_ended(log, host), lambda: found(log, "SELECT * FROM flow_log"))
    return at


def has_ended(log: Path, host: int = 5) -> bool:
    return any(
        row["src"] == f"10.0.0.{host}" and row["reason"] == "destroy" for row in found(log, "SELECT * FROM flow_log")
    )


def asked(log: Path, *args: object, program: Sequence[str] = PROGRAM, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*program, "--no-config", "--log", str(log), *map(str, args)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, "TZ": "UTC", **env},
        timeout=60,
        check=False,
    )


def stamp(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def writer_of(running: Piped | OnScreen, *screens: OnScreen) -> int:
    return wait_for_children(running, CHILD, *screens)[0]


def reasons(log: Path) -> list[str]:
    return [row["reason"] for row in found(log, "SELECT * FROM gap_log ORDER BY since")]


# --- the plain way ----------------------------------------------------------------------------------------------------


def test_who_had_it_as_text_as_json_and_as_csv(tmp_path: Path, router: Namespace, log: Path) -> None:
    with logging(tmp_path, router, log) as running:
        at = come_and_gone(router, log)
        text = asked(log, "--who", f"{WAN}:40000", "--at", stamp(at))
        assert text.returncode == 0, text.stderr
        assert "10.0.0.5:1005" in text.stdout
        assert text.stdout.splitlines()[1].split()[0] == "LOCAL"
        assert text.stdout.splitlines()[-1].startswith("The log is ")
        running.leave()
        assert running.words() == ""
        assert running.out.read_bytes() == b""
    lines = asked(log, "--who", f"{WAN}:40000/tcp", "--at", stamp(at), "--json").stdout.splitlines()
    flow, last = map(json.loads, lines)
    assert (flow["src"], flow["sport"], flow["nat"], flow["reason"]) == ("10.0.0.5", 1005, "snat", "destroy")
    assert last["complete"]
    assert "The log is complete for that moment" in last["text"]
    table = asked(log, "--who", WAN, "--at", stamp(at), "--csv")
    (row,) = csv.DictReader(table.stdout.splitlines())
    assert (row["src"], row["reply_dport"]) == ("10.0.0.5", "40000")
    assert "complete for that moment" in table.stderr
    nobody = asked(log, "--who", f"{WAN}:9", "--at", stamp(at))
    assert (nobody.returncode, "no flow had it" in nobody.stdout) == (0, True)


def test_files_are_for_their_owner_alone(tmp_path: Path, router: Namespace, log: Path) -> None:
    before = os.umask(0)
    try:
        with logging(tmp_path, router, log) as running:
            modes = {path.name: path.stat().st_mode & 0o777 for path in log.iterdir()}
            assert set(modes.values()) == {0o600}
            assert len(modes) >= 3  # with what sqlite keeps beside a file
            assert log.stat().st_mode & 0o777 == 0o700
            running.leave()
    finally:
        os.umask(before)


def test_real_traffic_is_counted_to_the_byte(tmp_path: Path, log: Path) -> None:
    with Lab() as lab, logging(tmp_path, lab.router, log) as running, lab.echo_server(7):
        with lab.tcp_connect(7) as connection:
            connection.exchange(20_000)
            lab.udp_exchange(7, flows=3)
            lab.ping()
            counted = {
                (flow["protocol"], flow["original"].get("sport")): flow["original"]["bytes"] + flow["reply"]["bytes"]
                for flow in lab.table()
            }
            lab.router.run(["conntrack", "-F"])
            wait_for(lambda: len(found(log, "SELECT * FROM flow_log")) >= 5, lambda: flow_rows(log))
        running.leave()
    logged = [row for row in flow_rows(log) if row["dst"] == Lab.SERVER]
    assert {row["reply_dst"] for row in logged} == {Lab.WAN}
    tcp = next(row for row in logged if row["protocol"] == "tcp")
    assert tcp["bytes_original"] + tcp["bytes_reply"] == counted["tcp", tcp["sport"]]
    assert sum(usage(log)[1:]) == sum(row["bytes_original"] + row["bytes_reply"] for row in flow_rows(log))
    assert sorted(row["protocol"] for row in logged) == ["icmp", "tcp", "udp", "udp", "udp"]


def test_a_flow_that_is_young_when_the_program_ends_has_a_row(tmp_path: Path, router: Namespace, log: Path) -> None:
    with logging(tmp_path, router, log) as running:
        insert(router, **translated())
        at = time.time() + 0.2
        wait_for(lambda: time.time() > at + 0.2, "a moment of its life")
        running.leave()
    assert [row["reason"] for row in flow_rows(log)] == ["open"]
    assert insiders(log, f"{WAN}:40000", at) == ["10.0.0.5"]
    assert gap_rows(log) == []


# --- two of them, and refusals ----------------------------------------------------------------------------------------


def test_the_second_says_who_writes_and_ends(tmp_path: Path, router: Namespace, log: Path) -> None:
    with logging(tmp_path, router, log) as running:
        other = tmp_path / "other"
        other.mkdir()
        with headless(other, router, log) as second:
            second.wait(lambda: second.process.poll() is not None)
            second.has_left(1)
            assert f"process {writer_of(running)} is already writing {log}" in second.words()
            assert len(second.words().splitlines()) == 1
        come_and_gone(router, log)
        running.leave()


def test_the_second_on_a_screen_reads_the_log_of_the_first(tmp_path: Path, router: Namespace, log: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with (
        logging(tmp_path, router, log) as running,
        OnScreen(other, "--no-config", "--log", log, program=inside(router)) as screen,
    ):
        insert(router, **translated())
        screen.wait("10.0.0.5")
        screen.type("H")
        screen.wait("this screen reads it")
        screen.leave()
        running.leave()


def with_mode(log: Path) -> None:
    log.mkdir(mode=0o755)


def as_link(log: Path) -> None:
    (log.parent / "real").mkdir(mode=0o700)
    log.symlink_to("real")


def of_another(log: Path) -> None:
    log.mkdir(mode=0o700)
    os.chown(log, 65534, 65534)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (with_mode, "other users can read"),
        (as_link, "is a symbolic link"),
        (of_another, "belongs to nobody, and this is root"),
        (Path.touch, "is not a directory"),
    ],
)
def test_a_folder_that_will_not_do_is_refused_with_what_helps(
    tmp_path: Path, router: Namespace, make: Callable[[Path], None], words: str
) -> None:
    log = tmp_path / "log"
    make(log)
    with headless(tmp_path, router, log) as running:
        running.wait(lambda: running.process.poll() is not None)
        running.has_left(1)
        assert words in running.words()
        assert "; try: " in running.words()
        assert len(running.words().splitlines()) == 1


def test_a_missing_parent_and_a_log_that_is_not_there(tmp_path: Path, router: Namespace) -> None:
    with headless(tmp_path, router, tmp_path / "a" / "b") as running:
        running.wait(lambda: running.process.poll() is not None)
        running.has_left(1)
        assert f"try: mkdir -p {tmp_path / 'a'}" in running.words()
    answer = asked(tmp_path / "none", "--who", WAN)
    assert answer.returncode == 1
    assert "there is no flow log to read" in answer.stderr


def test_a_python_without_sqlite_says_so_in_one_line(tmp_path: Path, router: Namespace, log: Path) -> None:
    stub = tmp_path / "stub"
    stub.mkdir()
    (stub / "sqlite3.py").write_text("raise ImportError('No module named _sqlite3')\n")
    with headless(tmp_path, router, log, PYTHONPATH=str(stub)) as running:
        running.wait(lambda: running.process.poll() is not None)
        running.has_left(1)
        assert running.words().count("\n") == 1
        assert "lacks the module sqlite3; try: opkg install python3-sqlite3" in running.words()
    log.mkdir(mode=0o700)
    (log / "flows-2026-11-27.db").touch()
    answer = asked(log, "--who", WAN, PYTHONPATH=str(stub))
    assert (answer.returncode, answer.stderr.count("\n")) == (1, 1)
    assert "python3-sqlite3" in answer.stderr
    screen = OnScreen(tmp_path, "--no-config", "--log", log, program=inside(router), env={"PYTHONPATH": str(stub)})
    with screen:
        screen.wait("lacks the module sqlite3")
        insert(router, **translated())
        screen.wait("10.0.0.5")
        screen.leave()


# --- killed -----------------------------------------------------------------------------------------------------------


def kill_all(running: Piped) -> float:
    """SIGKILL for all of it at once; returns when."""
    for pid in processes(running.folder):
        send_signal(pid, signal.SIGSTOP)
    for pid in processes(running.folder):
        send_signal(pid, signal.SIGKILL)
    at = time.time()
    running.process.wait(20)
    no_orphans(running.folder)
    return at


def test_a_log_that_was_killed_opens_and_says_what_it_lacks(tmp_path: Path, router: Namespace, log: Path) -> None:
    with logging(tmp_path, router, log) as running:
        before = come_and_gone(router, log)
        insert(router, **translated(6, 1006, 40001))
        killed = kill_all(running)
    assert insiders(log, f"{WAN}:40000", before) == ["10.0.0.5"]
    delete(router, 6)
    with logging(tmp_path, router, log) as running:
        after = come_and_gone(router, log, 7, 40002)
        running.leave()
    assert insiders(log, f"{WAN}:40002", after) == ["10.0.0.7"]
    (down,) = [gap for gap in gap_rows(log) if gap[2] == past.NOT_RUNNING]
    assert down[0] <= killed <= down[1] < after
    assert killed - down[0] < 10
    (cut,) = [gap for gap in gap_rows(log) if gap[2] == past.CUT_OFF]
    assert cut[1] == down[0]


def test_a_writer_that_was_killed_is_started_again_and_the_gap_stated(
    tmp_path: Path, router: Namespace, log: Path
) -> None:
    with logging(tmp_path, router, log) as running:
        come_and_gone(router, log)
        insert(router, **translated(6, 1006, 40001))
        first = writer_of(running)
        send_signal(first, signal.SIGKILL)
        running.wait(lambda: any(pid != first for pid in wait_for_children(running, CHILD)))
        running.wait(lambda: past.NOT_RUNNING in reasons(log))
        come_and_gone(router, log, 7, 40002)
        delete(router, 6)
        wait_for(lambda: has_ended(log, 6))
        running.leave()
    row = next(row for row in flow_rows(log) if row["src"] == "10.0.0.6")
    (down,) = [gap for gap in gap_rows(log) if gap[2] == past.NOT_RUNNING]
    assert row["start"] < down[1]  # it was there all the time, and the loop knew
    assert row["start_exact"] == 1
    assert "flow log" not in running.words() or "was killed" in running.words()


def test_a_writer_whose_loop_was_killed_writes_what_it_got(tmp_path: Path, router: Namespace, log: Path) -> None:
    with logging(tmp_path, router, log) as running:
        writer = writer_of(running)
        insert(router, **translated())
        send_signal(writer, signal.SIGSTOP)
        wait_for(lambda: process_state(writer) == "T")
        delete(router)
        wait_for(lambda: b"10.0.0.5" in unread_input(writer), "the end of the flow in the pipe")
        send_signal(running.pid, signal.SIGKILL)
        running.process.wait(20)
        send_signal(writer, signal.SIGCONT)
        wait_for(lambda: not process_state(writer), "the end of the writer")
        assert has_ended(log)


def unread_input(writer: int) -> bytes:
    """What waits in the pipe to the writer: a copy, made with tee(2)."""
    fd = os.open(f"/proc/{writer}/fd/0", os.O_RDONLY | os.O_NONBLOCK)
    read, write = os.pipe()
    try:
        subprocess.run(
            [sys.executable, "-c", TEE, str(fd), str(write)], pass_fds=(fd, write), check=False, capture_output=True
        )
        os.set_blocking(read, False)
        with suppress(BlockingIOError):
            return os.read(read, 1 << 16)
        return b""
    finally:
        for opened in (fd, read, write):
            os.close(opened)


TEE = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.tee.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_size_t, ctypes.c_uint]
libc.tee(int(sys.argv[1]), int(sys.argv[2]), 65536, 2)
"""


# --- disks ------------------------------------------------------------------------------------------------------------


@contextmanager
def small_disk(log: Path, size: str = "1m") -> Iterator[Path]:
    log.mkdir(mode=0o700)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(log)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted: {done.stderr.decode()}")
    try:
        yield log
    finally:
        subprocess.run(["umount", "-l", str(log)], check=True)


def fill(log: Path) -> None:
    with suppress(OSError), open(log / "filler", "ab", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def test_a_full_disk_is_said_and_what_waits_is_written_when_there_is_room(
    tmp_path: Path, router: Namespace, log: Path
) -> None:
    with small_disk(log), logging(tmp_path, router, log) as running:
        fill(log)
        # One after another has the port: more of them than fit in what is left of the files' pages.
        for number in range(300):
            flow = translated(10 + number % 200, 2000 + number, 40000 + number)
            load(router, ["-I " + " ".join(insert_arguments(**flow))])
            if number % 100 == 99:
                router.run(["conntrack", "-F"])
        running.wait("the flow log is not being written: ")
        assert f"try: df -h {log}" in running.words()
        fill(log)
        (log / "filler").unlink()
        wait_for(lambda: len(found(log, "SELECT * FROM flow_log")) == 300, lambda: len(flow_rows(log)))
        come_and_gone(router, log, 5, 50000)
        assert gap_rows(log) == []
        running.leave()


def test_a_disk_that_is_full_or_read_only_at_the_start(tmp_path: Path, router: Namespace, log: Path) -> None:
    with small_disk(log):
        subprocess.run(["mount", "-o", "remount,ro", str(log)], check=True)
        with headless(tmp_path, router, log) as running:
            running.wait(lambda: running.process.poll() is not None)
            running.has_left(1)
            assert f"{log} can't be written: Read-only file system" in running.words()
            assert "; try: ls -ld" in running.words()
        subprocess.run(["mount", "-o", "remount,rw", str(log)], check=True)
        (log / past.LOCK).touch(mode=0o600)
        fill(log)
        with headless(tmp_path, router, log) as running:
            running.wait("the flow log is not being written: ")
            (log / "filler").unlink()
            wait_for(lambda: is_ready(log, 0.0), lambda: found(log, "SELECT * FROM about"))
            come_and_gone(router, log)
            running.leave()


def test_a_folder_that_is_removed_is_made_anew(tmp_path: Path, router: Namespace, log: Path) -> None:
    with logging(tmp_path, router, log) as running:
        come_and_gone(router, log)
        insert(router, **translated(6, 1006, 40001))
        shutil.rmtree(log)
        running.wait("was removed while in use: a new file is started")
        after = come_and_gone(router, log, 7, 40002)
        assert log.stat().st_mode & 0o777 == 0o700
        assert any("was removed" in reason for reason in reasons(log))
        assert insiders(log, f"{WAN}:40002", after) == ["10.0.0.7"]
        with pytest.raises(past.Refused):
            past.hold(str(log))
        running.leave()
    assert [row["reason"] for row in flow_rows(log) if row["src"] == "10.0.0.6"] == ["open"]


def test_a_folder_that_cannot_be_made_anew_is_said_and_taken_up_again(tmp_path: Path, router: Namespace) -> None:
    log = tmp_path / "place" / "log"
    log.parent.mkdir()
    with logging(tmp_path, router, log) as running:
        shutil.rmtree(log.parent)
        running.wait("its parent folder does not exist")
        log.parent.mkdir()
        wait_for(lambda: is_ready(log, 0.0))
        come_and_gone(router, log)
        running.leave()


def test_a_writer_that_stands_still_stops_no_frame(tmp_path: Path, router: Namespace, log: Path) -> None:
    with OnScreen(tmp_path, "--no-config", "--log", log, program=inside(router)) as screen:
        wait_for(lambda: is_ready(log, 0.0), "the log", screen)
        writer = writer_of(screen, screen)
        send_signal(writer, signal.SIGSTOP)
        insert(router, **translated())
        screen.wait("10.0.0.5")
        load(router, ["-I " + " ".join(insert_arguments(**translated(6, 1, port))) for port in range(50000, 50001)])
        screen.wait("10.0.0.6")
        delete(router)
        send_signal(writer, signal.SIGCONT)
        wait_for(lambda: has_ended(log), "the end in the log", screen)
        screen.leave()


def test_a_writer_that_is_too_slow_loses_flows_and_says_how_many(tmp_path: Path, router: Namespace, log: Path) -> None:
    program = with_statement("import child, flowlog; child.PIPE_SIZE = 1 << 16; flowlog.MOST_BEHIND = 10_000")
    with logging(tmp_path, router, log, program=program) as running:
        writer = writer_of(running)
        send_signal(writer, signal.SIGSTOP)
        insert(router, **translated())
        number = 0
        stopped = time.monotonic()
        while time.monotonic() < stopped + 4 or number < 1000:  # the pipe holds 64 KiB beside
            flows = [translated(10, 1024 + i, 20_000 + i) for i in range(100)]
            load(router, ["-I " + " ".join(insert_arguments(**flow)) for flow in flows])
            router.run(["conntrack", "-D", "-s", "10.0.0.10"])
            number += len(flows)
        send_signal(writer, signal.SIGCONT)
        running.wait(
            lambda: any(reason.endswith("came faster than the log could be written") for reason in reasons(log))
        )
        (lost,) = [int(reason.split()[0]) for reason in reasons(log) if "faster" in reason]
        assert past.LOSING not in reasons(log)
        come_and_gone(router, log, 7, 40002)
        # A flow that a listing swept before its DESTROY was read counts twice among the lost: it is never too few.
        assert number - lost <= len(of_ten(log)) < number
        assert lost < 1.1 * (number - len(of_ten(log)))
        running.leave()
    assert [row["reason"] for row in flow_rows(log) if row["src"] == "10.0.0.5"] == ["open"]


def of_ten(log: Path) -> list[dict[str, Any]]:
    return found(log, "SELECT src FROM flow_log WHERE src = '10.0.0.10'")


# --- the clock --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [100, -100])
def test_a_clock_that_is_set_while_it_runs_is_a_gap(tmp_path: Path, router: Namespace, log: Path, step: int) -> None:
    flag = tmp_path / "stepped"
    statement = (
        "import os, time; real = time.time; "
        f"time.time = lambda: real() + ({step} if os.path.exists({str(flag)!r}) else 0)"
    )
    with logging(tmp_path, router, log, program=with_statement(statement)) as running:
        insert(router, **translated())
        come_and_gone(router, log, 6, 40001)
        flag.touch()
        running.wait(lambda: any("the clock was set" in reason for reason in reasons(log)))
        delete(router)
        wait_for(lambda: has_ended(log))
        running.leave()
    (gap,) = [gap for gap in gap_rows(log) if "the clock was set" in gap[2]]
    assert gap[2] == f"the clock was set {'forward' if step > 0 else 'back'} by 100 s"
    row = next(row for row in flow_rows(log) if row["src"] == "10.0.0.5")
    assert gap[0] - 60 < row["start"]
    assert listeners(router) == 0
