"""Names of hosts: what is asked of whom and when, and that no answer does harm. The name server is a socket here, which
the test answers by hand; a whole one stands behind a router in the last test."""

from __future__ import annotations

import json
import os
import select
import shlex
import socket
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import names
from addresses import Site
from filters import named, or_names
from names import (
    BOOK_PATIENCE,
    FAILED_AGAIN,
    GAP,
    LARGEST_FILE,
    LOOK_EVERY,
    MOST_LOGINS,
    MOST_OPEN,
    MOST_WAITING,
    NAMED,
    NAMELESS,
    PATIENCE,
    UNANSWERED,
    Names,
    Resolver,
    dns_question,
)
from parse import PROTOCOLS, PUSHED_DOWN, STATES, WITH_PORTS
from support.kernel import Lab, needs_kernel
from support.terminal import PROGRAM
from text import SERVICES, ports_of, service
from vocabulary import USUAL_NAMES

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
    (tmp_path / "resolv.conf").write_text("# nameserver 192.0.2.1\nsearch lan\nnameserver 127.0.0.1\n")
    out = Resolver(str(tmp_path / "resolv.conf"), server.port, clock)
    out.switch(True)
    yield out
    out.close()


def settle(resolver: Resolver) -> None:
    """Wait till something has come, and take it in."""
    assert select.select(resolver.fds(), [], [], 20)[0], "no answer came"
    resolver.poll()


# --- what the machine knows -------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which leases and the hosts file are looked for."""
    (tmp_path / "hosts.d").mkdir()
    monkeypatch.setattr(names, "HOSTS_FILE", str(tmp_path / "hosts"))
    monkeypatch.setattr(names, "LEASE_FILES", (str(tmp_path / "a.leases"), str(tmp_path / "*.status")))
    monkeypatch.setattr(names, "LEASE_FOLDERS", (str(tmp_path / "hosts.d"),))
    return tmp_path


def test_files_are_read_at_once_and_again_when_they_change(files: Path, clock: Clock) -> None:
    (files / "a.leases").write_text("1 02:00:5e:10:00:01 10.0.0.5 anna *\n")
    (files / "virbr0.status").write_text('[{"ip-address": "10.0.0.6", "hostname": "vm"}]')
    (files / "hosts.d" / "odhcpd.lan").write_text("10.0.0.7 tablet\n")
    (files / "hosts").write_text("10.0.0.8 printer\n")
    book = Names(("leases", "hosts"), clock=clock)
    book.poll()
    assert not book.waits()
    assert [book.directory.label(f"10.0.0.{number}") for number in (5, 6, 7, 8)] == ["anna", "vm", "tablet", "printer"]
    assert book.renewed()
    clock.now += LOOK_EVERY
    book.poll()
    assert not book.renewed()
    (files / "a.leases").write_text("1 02:00:5e:10:00:01 10.0.0.9 anna *\n")
    book.poll()
    assert not book.renewed()  # not yet
    assert book.deadline() == clock.now + LOOK_EVERY
    clock.now += LOOK_EVERY
    book.poll()
    assert book.renewed()
    assert [book.directory.label(f"10.0.0.{number}") for number in (5, 9)] == [None, "anna"]
    assert book.state() == "hosts 1, leases 3"


def test_files_with_anything_in_them(files: Path, clock: Clock) -> None:
    whole = b"\xff\x00\x1b[31m x\nnonsense name\n10.0.0.5 five\n"
    (files / "hosts").write_bytes(whole + b"#" * (LARGEST_FILE - len(whole) - 14) + b"\n10.0.0.6 abcdef")
    os.mkfifo(files / "a.leases")  # nobody will ever write to it
    (files / "x.status").mkdir()
    (files / "hosts.d" / "link").symlink_to("link")
    book = Names(("leases", "hosts"), clock=clock)
    book.poll()
    assert [book.directory.label(f"10.0.0.{number}") for number in (5, 6)] == ["five", None]  # the last one is cut: abc


def test_none_reads_nothing(files: Path) -> None:
    (files / "hosts").write_text("10.0.0.8 printer\n")
    book = Names((), site=Site(hosts={"10.0.0.9": "mine"}))
    book.poll()
    assert (book.fds(), book.deadline(), book.state()) == ([], None, "")
    assert [book.directory.label(f"10.0.0.{number}") for number in (8, 9)] == [None, "mine"]


THERE = """
    case "$1 $2" in
        "grep -Hrs") printf '/etc/hosts:10.0.0.8 printer\\n/tmp/dhcp.leases:1 02:00:5e:10:00:01 10.0.0.5 anna *\\n'; exit 2;;
        "ip -o") echo "10.0.0.5 dev lan lladdr 02:00:5e:10:00:01 STALE";;
        "docker ps") echo 0123456789ab;;
        "docker inspect") printf '[{"Name": "/web", "NetworkSettings": {"IPAddress": "172.17.0.2"}}]';;
        "wg show") echo "Unable to access interface wg0: Operation not permitted" >&2; exit 1;;
        "podman ps") exec sleep 600;;
        *) exit 127;;
    esac
"""


def wait_till(book: Names, done: Callable[[], bool]) -> int:
    """Poll till it is so; returns the most commands that ran at the same time."""
    most = 0
    until = time.monotonic() + 20
    while not done():
        assert time.monotonic() < until, book.state()
        select.select(book.fds(), [], [], 0.02)
        book.poll()
        most = max(most, sum(errand.child is not None for errand in book._errands))
    return most


@pytest.fixture
def there(tmp_path: Path) -> list[str]:
    """A prefix that leads to a machine with everything, where podman hangs and wg is not permitted."""
    (tmp_path / "there").write_text(THERE)
    return ["sh", str(tmp_path / "there")]


def test_through_a_prefix_everything_is_a_command_and_few_at_a_time(there: list[str], clock: Clock) -> None:
    book = Names((*USUAL_NAMES, "kubectl"), there, clock=clock)
    try:
        most = wait_till(book, lambda: sum(errand.answered for errand in book._errands) == 5)
        assert most == MOST_LOGINS
        assert book.waits()  # podman
        label = book.directory.label
        assert [label(text) for text in ("10.0.0.5", "10.0.0.8", "172.17.0.2")] == ["anna", "printer", "web"]
        found, *problems = book.state().split("; ")
        assert found == "hosts 1, leases 1, containers 1, neighbours 1"
        assert problems == [
            "unavailable: Unable to access interface wg0: Operation not permitted (wg show all allowed-ips)",
            "unavailable: kubectl get pods -A: not found",
        ]
        refused = next(errand for errand in book._errands if errand.program == "wg")
        assert refused.due == clock.now + FAILED_AGAIN
        clock.now += BOOK_PATIENCE * 2 + time.monotonic()  # its clock starts with the child
        wait_till(book, lambda: not book.waits())
        assert "podman: its answer did not end" in book.state()
        assert label("172.17.0.2") == "web"
    finally:
        book.close()
    assert book.fds() == []


def test_a_pipe_does_not_wait_for_a_command_that_hangs(there: list[str], tmp_path: Path) -> None:
    """What is there by then has names, and the rest of the program goes on."""
    line = "ipv4 2 tcp 6 9 ESTABLISHED src=10.0.0.5 dst=192.0.2.8 sport=1 dport=2 src=192.0.2.8 dst=10.0.0.5 sport=2 dport=1 [ASSURED] mark=0 use=1"
    script = (tmp_path / "there").read_text().replace("*) exit 127", f'"conntrack -L") echo "{line}";;\n*) exit 127')
    (tmp_path / "there").write_text(script)
    words = ["--no-config", "--via", shlex.join(there), "--once", "--json", "--names", "leases,containers,crictl"]
    done = subprocess.run([*PROGRAM, *words], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["near"] == {"ip": "10.0.0.5", "name": "anna", "mac": "02:00:5e:10:00:01"}


# --- asking -----------------------------------------------------------------------------------------------------------


def test_off_means_that_nobody_is_asked_and_nothing_named(resolver: Resolver, server: Server) -> None:
    assert "Resolving names through 127.0.0.1" in resolver.switch(True)
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
    assert resolver.notices() == [("Host names unavailable: 127.0.0.1: no answer", "cat /etc/resolv.conf")]
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
    resolver = Resolver(str(tmp_path / "resolv.conf"), port, clock)
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
        resolver = Resolver(str(tmp_path / "resolv.conf"), server.port, clock)
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
    resolver = Resolver(sys.argv[1])
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


# --- names of services, protocols and states, word by word; what reverse DNS asks and what its answers say, byte by byte ---


TCP = """
7 echo, 20 ftp-data, 21 ftp, 22 ssh, 23 telnet, 25 smtp, 43 whois, 49 tacacs, 53 dns, 80 http, 88 kerberos,
110 pop3, 111 sunrpc, 119 nntp, 123 ntp, 135 msrpc, 137 netbios-ns, 139 netbios-ssn, 143 imap, 161 snmp,
162 snmp-trap, 179 bgp, 389 ldap, 443 https, 445 smb, 464 kpasswd, 465 smtps, 500 isakmp, 514 syslog,
515 printer, 554 rtsp, 587 submission, 631 ipp, 636 ldaps, 853 dns-tls, 873 rsync, 989 ftps-data, 990 ftps,
993 imaps, 995 pop3s, 1080 socks, 1194 openvpn, 1433 mssql, 1521 oracle, 1701 l2tp, 1723 pptp, 1812 radius,
1813 radius-acct, 1883 mqtt, 2049 nfs, 2375 docker, 2376 docker-tls, 2379 etcd, 3128 squid, 3306 mysql,
3389 rdp, 3478 stun, 4500 ipsec-nat-t, 5060 sip, 5222 xmpp, 5223 xmpps, 5228 gcm, 5349 turns, 5432 postgres,
5900 vnc, 5985 winrm, 6379 redis, 6443 kube-api, 6667 irc, 8006 proxmox, 8080 http-alt, 8443 https-alt,
8883 mqtts, 9000 cslistener, 9090 prometheus, 9100 node-exporter, 9200 elasticsearch, 10250 kubelet,
11211 memcached, 25565 minecraft, 27017 mongodb, 32400 plex, 51820 wireguard
"""
UDP = """
7 echo, 53 dns, 67 dhcp-server, 68 dhcp, 69 tftp, 88 kerberos, 111 sunrpc, 123 ntp, 137 netbios-ns,
138 netbios-dgm, 161 snmp, 162 snmp-trap, 389 ldap, 443 quic, 464 kpasswd, 500 isakmp, 514 syslog, 546 dhcpv6,
547 dhcpv6-server, 853 dns-tls, 1194 openvpn, 1701 l2tp, 1812 radius, 1813 radius-acct, 1900 ssdp, 2049 nfs,
3389 rdp, 3478 stun, 4500 ipsec-nat-t, 4789 vxlan, 5060 sip, 5349 turns, 5351 nat-pmp, 5353 mdns, 5355 llmnr,
6081 geneve, 8472 flannel, 41641 tailscale, 51820 wireguard
"""
NUMBERS = """
1 icmp, 2 igmp, 4 ipip, 6 tcp, 8 egp, 17 udp, 33 dccp, 41 ipv6, 46 rsvp, 47 gre, 50 esp, 51 ah, 58 icmpv6,
58 ipv6-icmp, 88 eigrp, 89 ospf, 103 pim, 112 vrrp, 115 l2tp, 132 sctp, 136 udplite
"""
NAMES_OF_STATES = """
NONE SYN_SENT SYN_RECV ESTABLISHED FIN_WAIT CLOSE_WAIT LAST_ACK TIME_WAIT CLOSE SYN_SENT2 LISTEN CLOSED
COOKIE_WAIT COOKIE_ECHOED SHUTDOWN_SENT SHUTDOWN_RECD SHUTDOWN_ACK_SENT HEARTBEAT_SENT HEARTBEAT_ACKED REQUEST
RESPOND PARTOPEN OPEN CLOSEREQ CLOSING TIMEWAIT IGNORE INVALID
"""


def table(text: str) -> dict[int, str]:
    return {int(number): name for number, name in (item.split() for item in text.split(","))}


def test_services_have_the_names_that_people_know_them_by() -> None:
    for protocol, text in (("tcp", TCP), ("udp", UDP)):
        assert {port: name for (of, port), name in SERVICES.items() if of == protocol} == table(text)
        for port, name in table(text).items():
            assert service(protocol, port) == name
            assert port in ports_of(name.upper())
    assert service("sctp", 80) is None
    assert service("tcp", 0) is None
    assert service("tcp", None) is None
    assert ports_of("dns") == {53}
    assert ports_of("") == set()


def test_protocols_have_iana_s_numbers() -> None:
    assert [f"{number} {name}" for name, number in PROTOCOLS.items()] == " ".join(NUMBERS.split()).split(", ")
    assert {PROTOCOLS[name] for name in ("tcp", "udp", "dccp", "sctp", "udplite")} == WITH_PORTS
    assert set(PUSHED_DOWN) == {"tcp", "udp", "udplite", "icmp", "icmpv6", "sctp", "dccp", "gre"}


def test_states_are_the_kernel_s() -> None:
    assert set(NAMES_OF_STATES.split()) == STATES
    assert len(STATES) == 28


def test_names_of_the_settings_are_found_in_any_case() -> None:
    names = {1: "Guests", 2: "guests", 3: "Straße"}
    assert named("GUESTS", names) == [1, 2]
    assert named("STRASSE", names) == [3]
    assert named("guest", names) == []
    assert or_names(names) == ", nor a name; valid: Guests guests Straße"
    assert or_names({1: "a", 2: "a"}) == ", nor a name; valid: a"
    assert or_names({}) == ""


# --- reverse DNS ------------------------------------------------------------------------------------------------------

QUESTION = names.dns_question("192.0.2.7", 0x1234)


def wire_name(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def dns_reply(
    *records: bytes, flags: int = 0x8180, questions: int = 1, answers: int | None = None, number: int = 0x1234
) -> bytes:
    count = len(records) if answers is None else answers
    return struct.pack("!6H", number, flags, questions, count, 0, 0) + QUESTION[12:] + b"".join(records)


def of(data: bytes, kind: int = 12, net: int = 1, length: int | None = None, owner: bytes = b"\xc0\x0c") -> bytes:
    return owner + struct.pack("!HHIH", kind, net, 300, len(data) if length is None else length) + data


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("192.0.2.7", "7.2.0.192.in-addr.arpa"),
        ("fe80::1%eth0", "1." + "0." * 28 + "8.e.f.ip6.arpa"),
        ("2001:db8::5", "5." + "0." * 23 + "8.b.d.0.1.0.0.2.ip6.arpa"),
    ],
)
def test_a_question(address: str, name: str) -> None:
    header = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
    assert names.dns_question(address, 0x1234) == header + wire_name(name) + b"\x00\x0c\x00\x01"


NAME = of(wire_name("a.example"))
OTHER = of(wire_name("b.example"), kind=5)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (dns_reply(NAME), "a.example"),
        (dns_reply(NAME, of(wire_name("b.example"))), "a.example"),
        (dns_reply(OTHER, NAME), "a.example"),
        (dns_reply(of(wire_name("x.example"), net=3), NAME), "a.example"),
        (dns_reply(of(wire_name("-bad.example")), NAME), "a.example"),
        (dns_reply(of(wire_name("a.example"), owner=wire_name("7.0-63.example"))), "a.example"),
        (dns_reply(of(b"\x01a\xc0\x12")), "a.192.in-addr.arpa"),  # into the question: behind 7, 2 and 0
        (dns_reply(*[OTHER] * 63, NAME), "a.example"),
        (dns_reply(*[OTHER] * 64, NAME), ""),  # far down it is looked for no longer
        (dns_reply(), ""),
        (dns_reply(NAME, answers=0), ""),
        (dns_reply(OTHER), ""),
        (dns_reply(OTHER, flags=0x8380), None),  # cut: the name may be in what is missing
        (dns_reply(flags=0x8183), ""),
        (dns_reply(flags=0x8182), None),
        (dns_reply(flags=0x8185), None),
        (struct.pack("!6H", 0x1234, 0x8181, 0, 0, 0, 0), None),
        (dns_reply(NAME).replace(b"in-addr", b"IN-Addr"), "a.example"),
    ],
)
def test_what_each_answer_says(data: bytes, name: str | None) -> None:
    assert names.dns_answer(data, QUESTION) == name


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (dns_reply(NAME, number=0x1235), "another question"),
        (dns_reply(NAME, flags=0x0180), "another question"),  # somebody's question
        (dns_reply(NAME, questions=2), "another question"),
        (dns_reply(NAME, questions=0), "another question"),
        (dns_reply(NAME).replace(b"in-addr", b"in-addx"), "another question"),
        (dns_reply(OTHER, answers=2), "cut"),
        (dns_reply(NAME)[:-1], "cut"),
        (dns_reply(NAME)[:7], "cut"),
        (b"", "cut"),
        (dns_reply(of(b"\xc0\x00" + bytes(2)))[:-3], "cut"),
        (dns_reply(of(bytes([64]) + b"a" * 64 + b"\0")), "a name is too long"),
        (dns_reply(of(b"\x01a" * 129 + b"\0")), "a name is too long"),
    ],
)
def test_what_is_no_answer(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        names.dns_answer(data, QUESTION)


def test_pointers_go_back_only() -> None:
    start = len(dns_reply()) + 12
    for pointer in (start, start + 2):
        with pytest.raises(ValueError, match="forwards"):
            names.dns_answer(dns_reply(of(bytes([0xC0, pointer]) + b"\0" * 4)), QUESTION)
    padding = of(b"\0" * 300, kind=16)
    far = len(dns_reply(padding)) + 12
    (data,) = [dns_reply(padding, of(wire_name("a.example")), of(bytes([0xC0 | far >> 8, far & 255])), answers=3)]
    assert names.dns_answer(data, QUESTION) == "a.example"
    only = dns_reply(
        padding, of(wire_name("-.x") + wire_name("deep.example")), of(bytes([0xC0 | (far + 5) >> 8, (far + 5) & 255]))
    )
    assert names.dns_answer(only, QUESTION) == "deep.example"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        *(("mail.example.", "mail.example"), ("a_b.example", "a_b.example"), ("_x", "_x"), ("x-", ""), ("-x", "")),
        *(("a..b", ""), ("", ""), (".", ""), ("a.b..", ""), ("1.2.3.4", ""), ("host.4", ""), ("4.host", "4.host")),
        *(("x" * 63 + ".a", "x" * 63 + ".a"), ("x" * 64 + ".a", ""), ("ä.example", ""), ("a b", ""), ("a\n", "")),
        (".".join(["x" * 63, "y" * 63, "z" * 63, "w" * 61]), ".".join(["x" * 63, "y" * 63, "z" * 63, "w" * 61])),
        (".".join(["x" * 63, "y" * 63, "z" * 63, "w" * 62]), ""),
    ],
)
def test_host_names(text: str, name: str) -> None:
    assert names.host_name(text) == name
