"""One command: whether it gets on, and where it runs."""

from __future__ import annotations

import fcntl
import os
import signal
import termios
import time
from array import array

import pytest

import child
from child import SILENCE, Child, Patience, namespace_of
from support.kernel import (
    Namespace,
    dropped_events,
    insert_arguments,
    is_in_state,
    listens_to_events,
    load,
    needs_kernel,
    send_signal,
    waiting_event_bytes,
)
from support.waiting import wait_for


def every(patience: Patience, seconds: float, size: int, gap: float) -> str:
    """``size`` bytes come each ``gap`` seconds, and somebody looks twice a second; what is said at the end."""
    now, due = patience.looked, patience.looked + gap
    until = now + seconds
    while now < until and not patience.complaint():
        now += 0.5
        came = size if now >= due else 0
        due += gap if came else 0.0
        patience.take(came, now)
    return patience.complaint()


def test_silence_and_a_byte_now_and_then_are_no_progress() -> None:
    assert every(Patience(0.0), 100.0, 0, 1.0) == "no answer within 30 s"
    assert every(Patience(0.0), 100.0, 1, 29.0) == "too slow: 1 bytes in 30 s"
    assert every(Patience(0.0), 100.0, 250, 20.0) == "too slow: 250 bytes in 30 s"
    assert every(Patience(0.0), 600.0, 4000, 25.0) == ""
    assert every(Patience(0.0), 2000.0, 4000, 5.0) == "not finished after 900 s"


def test_while_nobody_listens_nothing_is_late() -> None:
    patience = Patience(0.0)
    patience.take(10, 1.0)
    patience.take(0, 500.0)  # our own reader stood still
    assert patience.complaint() == ""
    patience.take(0, 500.5)
    assert patience.complaint() == ""
    assert every(patience, 60.0, 0, 1.0) == "too slow: 10 bytes in 30 s"


@pytest.mark.parametrize("ahead", [0, 8 << 20])
def test_output_that_is_read_ahead_holds_nobody_up_and_comes_in_its_order(ahead: int) -> None:
    numbers = [b"%07d" % number for number in range(400_000)]  # 3 MiB: three times what the pipe holds
    writer = Child(["seq", "-f", "%07.0f", "0", "399999"], ahead=ahead)
    written = b""
    try:
        assert writer.out is not None
        while len(written) < 1 << 20:
            wait_for(lambda: writer.is_over() or waiting_bytes(writer.out) >= 1 << 19, what="half a pipe")
            written += writer.read()
        assert writer.is_over() == bool(ahead)
        assert writer.has_more == bool(ahead)
        before = time.monotonic()
        while writer.out is not None:
            more = writer.read()
            written += more
            assert not (more and writer.has_more and writer.drained > before)  # no sooner than all has been read
        assert written.split() == numbers
        assert wait_for(lambda: writer.ended() is not None, what="its end")
        assert writer.drained > writer.started
    finally:
        writer.stop()


def waiting_bytes(fd: int | None) -> int:
    """What a pipe holds."""
    number = array("i", [0])
    if fd is not None:
        fcntl.ioctl(fd, termios.FIONREAD, number)
    return number[0]


def test_what_a_command_costs_and_where_it_runs() -> None:
    busy = Child(["sh", "-c", "python3 -c 'sum(range(30_000_000))'; :"])
    try:
        worker = wait_for(lambda: busy.worker("/usr/bin/python3") or None, what="its worker")
        assert worker is not None
        assert worker != busy.process.pid
        assert namespace_of(worker) == os.stat("/proc/self/ns/net").st_ino
        assert busy.worker("conntrack") is None
        wait_for(lambda: busy.read() == b"" and busy.ended() is not None, what="its end")
        assert 0.02 < busy.cpu < 60
    finally:
        busy.stop()
    resting = Child(["sleep", "0.5"])
    began = time.monotonic()
    wait_for(lambda: resting.read() == b"" and resting.ended() is not None, what="its end")
    assert resting.cpu < 0.3 <= time.monotonic() - began + SILENCE
    resting.stop()


@pytest.mark.parametrize(
    "row", ["12  77         00000007 5120", "12  78         00000007 5120", "12  77 00000000 5120"]
)
def test_what_waits_in_a_socket_is_read_from_proc(row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    head = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n"
    monkeypatch.setattr(
        child, "file_text", lambda _path: f"{head}00000000aa {row}     0        0     2        3        1 \n"
    )
    found = child.EventSocket(waiting=5120, dropped=3) if row.startswith("12  77         00000007") else None
    assert child.event_socket(77) == found


@needs_kernel
def test_what_waits_for_conntrack_is_what_the_kernel_says() -> None:
    """From 1.4.7 on conntrack opens another socket first, and netlink gives that one the number of the process."""
    with Namespace() as ns:
        pid = ns.popen(["conntrack", "-E"]).pid
        wait_for(lambda: listens_to_events(pid), what="a listener")
        assert child.event_socket(pid) == child.EventSocket(waiting=0, dropped=0)
        send_signal(pid, signal.SIGSTOP)
        wait_for(lambda: is_in_state(pid, "T"), what="it to be stopped")
        ends = ((insert_arguments(src="10.0.0.7", dst="192.0.2.2", sport=port, dport=80)) for port in range(1, 1001))
        load(ns, ("-I " + " ".join(words) for words in ends))
        found = child.event_socket(pid)
        assert found == child.EventSocket(waiting_event_bytes(pid), dropped_events(pid))
        assert found.waiting > 0 < found.dropped
        send_signal(pid, signal.SIGCONT)
