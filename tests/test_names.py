"""Names of hosts: what is asked of whom and when, and that no answer does harm. The name server is a socket here, which
the test answers by hand; a whole one stands behind a router in the last test."""

from __future__ import annotations

import select
import socket
import struct
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import names
from names import (
    GAP,
    LARGEST_FILE,
    LOOK_EVERY,
    MOST_OPEN,
    MOST_WAITING,
    NAMED,
    NAMELESS,
    PATIENCE,
    UNANSWERED,
    Resolver,
    dns_question,
)
from support.kernel import Lab, needs_kernel

PTR, CNAME, NO_SUCH_NAME, SERVER_FAILED, REFUSED = 12, 5, 3, 2, 5


def wire(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode("latin-1") for label in name.split(".")) + b"\0"


def reply(asked: bytes, *records: tuple[int, bytes], status: int = 0, flags: int = 0) -> bytes:
    """An answer as a server makes it: the question again, then records whose owner is a pointer to it."""
    out = struct.pack("!6H", *struct.unpack("!H", asked[:2]), 0x8180 | flags | status, 1, len(records), 0, 0)
    out += asked[12:]
    for kind, data in records:
        out += b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 300, len(data)) + data
    return out


class Server:
    """A name server that answers when told to."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.names: dict[str, str] = {}  # by the name that is asked for
        self.asked: list[str] = []

    def hear(self) -> tuple[bytes, str, tuple[str, int]]:
        """The next question: its bytes, the name in it, who asks."""
        assert select.select([self.socket], [], [], 20)[0], "nothing was asked"
        data, sender = self.socket.recvfrom(512)
        assert data[2:12] == struct.pack("!5H", 0x0100, 1, 0, 0, 0)
        assert data[-4:] == struct.pack("!2H", PTR, 1)
        labels, at = [], 12
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].decode())
            at += 1 + data[at]
        assert at == len(data) - 5
        self.asked.append(".".join(labels))
        return data, self.asked[-1], sender

    def silent(self) -> bool:
        return not select.select([self.socket], [], [], 0)[0]

    def serve(self) -> None:
        """Answer everything that was asked so far, one question at least."""
        while True:
            asked, name, sender = self.hear()
            known = self.names.get(name)
            answer = reply(asked, (PTR, wire(known))) if known else reply(asked, status=NO_SUCH_NAME)
            self.socket.sendto(answer, sender)
            if self.silent():
                return


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server() -> Iterator[Server]:
    out = Server()
    yield out
    out.socket.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def resolver(server: Server, clock: Clock, tmp_path: Path) -> Iterator[Resolver]:
    """Switched on, with the server as the only one."""
    (tmp_path / "hosts").write_text(
        "127.0.0.1 localhost\n10.0.0.1\trouter.lan router # the way out\n2001:DB8:0::7 six\n"
    )
    (tmp_path / "resolv.conf").write_text("# nameserver 192.0.2.1\nsearch lan\nnameserver 127.0.0.1\n")
    out = Resolver(str(tmp_path / "hosts"), str(tmp_path / "resolv.conf"), server.port, clock)
    out.switch(True)
    yield out
    out.close()


def settle(resolver: Resolver) -> None:
    """Wait till something has come, and take it in."""
    assert select.select(resolver.fds(), [], [], 20)[0], "no answer came"
    resolver.poll()


# --- /etc/hosts -------------------------------------------------------------------------------------------------------


def test_the_hosts_file_names_without_asking(resolver: Resolver, server: Server) -> None:
    assert [resolver.name(address) for address in ("10.0.0.1", "2001:db8::7", "127.0.0.1")] == [
        *("router.lan", "six", "localhost")
    ]
    resolver.poll()
    assert resolver.fds() == []
    assert server.silent()


def test_a_hosts_file_that_changes_is_read_again(resolver: Resolver, clock: Clock, tmp_path: Path) -> None:
    resolver.renewed()
    (tmp_path / "hosts").write_text("10.0.0.1 gate\n")
    clock.now += LOOK_EVERY
    assert resolver.deadline() == clock.now
    resolver.poll()
    assert resolver.renewed()
    assert resolver.name("10.0.0.1") == "gate"
    (tmp_path / "hosts").unlink()
    clock.now += LOOK_EVERY
    resolver.poll()
    assert resolver.name("10.0.0.1") is None


def test_a_hosts_file_with_anything_in_it(resolver: Resolver, clock: Clock, tmp_path: Path) -> None:
    lines = [
        b"\xff\x00\x1b[31m x",
        b"10.0.0.2 \x1b[31mred",
        b"nonsense name",
        b"10.0.0.3",
        b"10.0.0.0.4 a",
        b"10.0.0.5 five",
    ]
    whole = b"\n".join(lines) + b"\n"
    (tmp_path / "hosts").write_bytes(whole + b"#" * (LARGEST_FILE - len(whole) - 14) + b"\n10.0.0.6 abcdef")
    clock.now += LOOK_EVERY
    resolver.poll()
    assert resolver.name("10.0.0.5") == "five"
    assert [resolver.name(f"10.0.0.{number}") for number in (2, 3, 4, 6)] == [None] * 4  # the last one is cut: abc


# --- asking -----------------------------------------------------------------------------------------------------------


def test_off_means_that_nobody_is_asked_and_nothing_named(resolver: Resolver, server: Server) -> None:
    assert "127.0.0.1 is asked for every address on show" in resolver.switch(True)
    resolver.name("198.51.100.7")
    assert "off" in resolver.switch(False)
    assert resolver.name("10.0.0.1") is None
    assert resolver.name("198.51.100.7") is None
    resolver.poll()
    assert (resolver.fds(), resolver.deadline()) == ([], None)
    resolver.switch(True)
    resolver.poll()
    assert server.silent()  # what was wanted before is not remembered


def test_it_is_off_till_it_is_switched_on() -> None:
    assert not Resolver().on
    assert Resolver().name("127.0.0.1") is None


def test_a_name_comes_later_and_is_kept(resolver: Resolver, server: Server, clock: Clock) -> None:
    server.names["7.100.51.198.in-addr.arpa"] = "seven.example"
    assert resolver.name("198.51.100.7") is None
    resolver.poll()
    resolver.renewed()
    server.serve()
    settle(resolver)
    assert resolver.renewed()
    assert resolver.fds() == []
    assert resolver.name("198.51.100.7") == "seven.example"
    clock.now += NAMED - 1
    assert resolver.name("198.51.100.7") == "seven.example"
    resolver.poll()
    assert server.silent()
    clock.now += 2  # an old name stays on show while it is asked for again
    assert resolver.name("198.51.100.7") == "seven.example"
    resolver.poll()
    server.names["7.100.51.198.in-addr.arpa"] = "new.example"
    server.serve()
    settle(resolver)
    assert resolver.name("198.51.100.7") == "new.example"


def test_what_is_under_way_is_not_asked_for_again(resolver: Resolver, server: Server, clock: Clock) -> None:
    for _ in range(3):
        resolver.name("198.51.100.7")
        resolver.poll()
        clock.now += GAP
    server.hear()
    assert server.silent()


def test_ipv6_is_asked_for_by_its_digits(resolver: Resolver, server: Server) -> None:
    resolver.name("2001:db8::8")
    resolver.poll()
    server.serve()
    assert server.asked == ["8" + ".0" * 23 + ".8.b.d.0.1.0.0.2.ip6.arpa"]


def test_that_there_is_no_name_is_kept_too(resolver: Resolver, server: Server, clock: Clock) -> None:
    resolver.name("198.51.100.7")
    resolver.poll()
    resolver.renewed()
    server.serve()
    settle(resolver)
    assert not resolver.renewed()  # nothing to draw
    clock.now += NAMELESS - 1
    assert resolver.name("198.51.100.7") is None
    resolver.poll()
    assert server.silent()
    clock.now += 2
    resolver.name("198.51.100.7")
    resolver.poll()
    server.hear()


@pytest.mark.parametrize(
    "address", ["224.0.0.251", "255.255.255.255", "0.0.0.0", "127.0.0.2", "::1", "ff02::1", "", "x"]
)
def test_what_has_no_name_is_not_asked_for(address: str, resolver: Resolver, server: Server) -> None:
    assert resolver.name(address) is None
    resolver.poll()
    assert resolver.fds() == []
    assert server.silent()


def test_the_newest_is_asked_first_and_what_scrolled_away_is_forgotten(
    resolver: Resolver, server: Server, clock: Clock
) -> None:
    for number in range(MOST_WAITING + 10):
        resolver.name(f"198.51.{number >> 8}.{number & 255}")
    resolver.name("198.51.0.10")  # still on show
    order = ["198.51.0.10", "198.51.1.9", "198.51.1.8"]
    for address in order:
        resolver.poll()
        asked, name, sender = server.hear()
        assert name == ".".join(reversed(address.split("."))) + ".in-addr.arpa"
        server.socket.sendto(reply(asked), sender)
        settle(resolver)
        assert server.silent()  # one at a time
        assert resolver.deadline() == clock.now + GAP
        clock.now += GAP
    for _ in range(MOST_WAITING):
        resolver.poll()
        if not resolver.fds():
            break
        server.serve()
        settle(resolver)
        clock.now += GAP
    assert len(server.asked) == len(set(server.asked)) == MOST_WAITING


def test_not_many_are_under_way_at_once(resolver: Resolver, clock: Clock) -> None:
    for number in range(MOST_OPEN + 5):
        resolver.name(f"198.51.100.{number}")
    for _ in range(MOST_OPEN + 5):
        resolver.poll()
        clock.now += GAP
    assert len(resolver.fds()) == MOST_OPEN
    assert (resolver.deadline() or 0) > clock.now + 1  # nothing to do till one is settled


def test_a_server_that_is_silent_is_asked_twice_and_said(resolver: Resolver, server: Server, clock: Clock) -> None:
    resolver.name("198.51.100.7")
    for _ in range(2):
        resolver.poll()
        server.hear()
        assert resolver.notices() == []
        clock.now += PATIENCE
        resolver.poll()
    assert resolver.fds() == []
    assert resolver.notices() == [("no names of hosts: 127.0.0.1: no answer", "cat /etc/resolv.conf")]
    resolver.name("198.51.100.7")
    clock.now += GAP
    resolver.poll()
    assert server.silent()
    clock.now += UNANSWERED
    resolver.name("198.51.100.7")
    resolver.poll()
    server.serve()
    settle(resolver)
    assert resolver.notices() == []


def test_where_nobody_listens_it_is_said_at_once(tmp_path: Path, clock: Clock) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
    (tmp_path / "resolv.conf").write_text("")  # the one on this machine, then
    resolver = Resolver(str(tmp_path / "hosts"), str(tmp_path / "resolv.conf"), port, clock)
    resolver.switch(True)
    resolver.name("198.51.100.7")
    while not resolver.notices():
        resolver.poll()
        if resolver.fds():
            settle(resolver)
        clock.now += GAP
    assert "Connection refused" in resolver.notices()[0][0]


def test_the_second_server_is_asked_when_the_first_can_t_tell(server: Server, clock: Clock, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as second:
        second.bind(("127.0.0.2", server.port))
        second.settimeout(20)
        (tmp_path / "resolv.conf").write_text("nameserver nonsense\nnameserver 127.0.0.1\nnameserver 127.0.0.2\n")
        resolver = Resolver(str(tmp_path / "hosts"), str(tmp_path / "resolv.conf"), server.port, clock)
        resolver.switch(True)
        assert resolver.servers == ["127.0.0.1", "127.0.0.2"]
        resolver.name("198.51.100.7")
        resolver.poll()
        asked, _, sender = server.hear()
        server.socket.sendto(reply(asked, status=REFUSED), sender)
        settle(resolver)
        clock.now += GAP
        resolver.poll()
        asked, sender = second.recvfrom(512)
        second.sendto(reply(asked, (PTR, wire("second.example"))), sender)
        settle(resolver)
        assert resolver.name("198.51.100.7") == "second.example"
        assert resolver.notices() == []


def test_forged_answers_are_passed_over(resolver: Resolver, server: Server) -> None:
    resolver.name("198.51.100.7")
    resolver.poll()
    asked, _, sender = server.hear()
    number = int.from_bytes(asked[:2], "big")
    wrong_number = (number ^ 1).to_bytes(2, "big") + asked[2:]
    wrong_address = dns_question("198.51.100.8", number)
    record = (PTR, wire("evil.example"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.sendto(reply(asked, record), sender)
    for forged in (reply(wrong_number, record), reply(wrong_address, record), asked, b"", b"\0" * 40):
        server.socket.sendto(forged, sender)
    settle(resolver)
    assert resolver.name("198.51.100.7") is None
    server.socket.sendto(reply(asked, (PTR, wire("true.example"))), sender)
    settle(resolver)
    assert resolver.name("198.51.100.7") == "true.example"


def test_the_memory_for_names_is_bounded(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch, clock: Clock, server: Server
) -> None:
    monkeypatch.setattr(names, "MAX_ANSWERS", 2)
    for number in (1, 2, 3):
        server.names[f"{number}.100.51.198.in-addr.arpa"] = f"n{number}.example"
        resolver.name(f"198.51.100.{number}")
        resolver.poll()
        server.serve()
        settle(resolver)
        clock.now += GAP
        resolver.name("198.51.100.1")  # still on show
    assert [resolver.name(f"198.51.100.{number}") for number in (1, 2, 3)] == ["n1.example", None, "n3.example"]


# --- what an answer holds ---------------------------------------------------------------------------------------------

ASKED = names.dns_question("198.51.100.7", 77)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (reply(ASKED, (PTR, wire("a.example"))), "a.example"),
        (reply(ASKED, (CNAME, wire("7.0-63.example")), (PTR, wire("b.example"))), "b.example"),  # RFC 2317
        (reply(ASKED, (PTR, b"\x01a\xc0\x12")), "a.51.198.in-addr.arpa"),  # a pointer into the question
        (reply(ASKED, (PTR, wire("\x1b[31m.example")), (PTR, wire("c.example"))), "c.example"),
        (reply(ASKED, (PTR, wire("192.0.2.1"))), ""),
        (reply(ASKED, (PTR, wire(".".join(["x" * 63] * 4)))), ""),  # 255 characters
        (reply(ASKED, (PTR, b"\0")), ""),
        (reply(ASKED), ""),
        (reply(ASKED, status=NO_SUCH_NAME), ""),
        (reply(ASKED, flags=0x0200), None),  # cut: nothing of it came
        (reply(ASKED, status=SERVER_FAILED), None),
        (struct.pack("!6H", 77, 0x8181, 0, 0, 0, 0), None),
    ],
)
def test_what_an_answer_says(data: bytes, name: str | None) -> None:
    assert names.dns_answer(data, ASKED) == name


@pytest.mark.parametrize(
    "data",
    [
        reply(ASKED, (PTR, wire("a.example")))[:-1],
        reply(ASKED, (PTR, b"\xc0\x2c\xc0\x2c")),
        reply(ASKED, (PTR, b"\xc0" + bytes([len(reply(ASKED)) + 12]))),  # a pointer to itself
        reply(ASKED, (PTR, b"\x01a\xc0" + bytes([len(reply(ASKED)) + 12]))),
        reply(ASKED, (PTR, b"\x40" + b"a" * 64 + b"\0")),
    ],
)
def test_broken_answers(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"name|cut"):
        names.dns_answer(data, ASKED)


@given(st.binary(max_size=80), st.integers(0, 90), st.integers(0, 255))
@example(b"", 0, 0)
def test_any_bytes_are_an_answer_or_a_value_error(junk: bytes, at: int, byte: int) -> None:
    whole = bytearray(reply(ASKED, (CNAME, wire("x.example")), (PTR, b"\x03abc\xc0\x0c")))
    whole[at % len(whole)] = byte
    for data in (junk, reply(ASKED, (PTR, junk)), bytes(whole) + junk):
        try:
            name = names.dns_answer(data, ASKED)
        except ValueError:
            continue
        assert name is None or (name.isascii() and name.isprintable() and " " not in name and len(name) <= 253)


@given(st.text(max_size=300))
def test_a_host_name_is_safe_to_show(text: str) -> None:
    name = names.host_name(text)
    assert name in ("", text, text[:-1])
    assert name.isascii()
    assert name == "" or all(part and len(part) <= 63 for part in name.split("."))


# --- a name server behind a router ------------------------------------------------------------------------------------

SERVE = """
    import socket
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("203.0.113.2", 53))
        print("ready", flush=True)
        asked, sender = server.recvfrom(512)
        record = b"\\xc0\\x0c\\0\\x0c\\0\\1\\0\\0\\0\\x3c\\0\\x08\\5seven\\xc0\\x0e"
        server.sendto(asked[:2] + b"\\x81\\x80\\0\\1\\0\\1\\0\\0\\0\\0" + asked[12:] + record, sender)
"""
ASK = """
    import select, sys, time
    from names import Resolver
    resolver = Resolver("/nonexistent", sys.argv[1])
    resolver.switch(True)
    until = time.monotonic() + 20
    while not resolver.name("198.51.100.7") and time.monotonic() < until:
        select.select(resolver.fds(), [], [], max(0, (resolver.deadline() or 0) - time.monotonic()))
        resolver.poll()
    print(resolver.name("198.51.100.7"), resolver.notices())
"""


@needs_kernel
def test_a_name_server_behind_a_router(tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 203.0.113.2\n")

    def python(code: str) -> list[str]:
        return [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "resolv.conf")]

    with Lab() as lab:
        serving = lab.server.popen(python(SERVE), stderr=None)
        assert serving.stdout
        assert serving.stdout.readline() == b"ready\n"
        asking = subprocess.run(
            [*lab.client.prefix, *python(ASK)],
            cwd=Path(names.__file__).parent,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (asking.stdout, asking.stderr) == ("seven.100.51.198.in-addr.arpa []\n", "")
