"""A decoder of IPFIX messages, written from RFC 7011 alone, and what the collectors of other people say.

It knows only what this program's templates need: no options, no enterprise elements, no elements of variable length.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from child import SO_RCVBUFFORCE
from support.kernel import stop_process
from support.waiting import wait_for

ADDRESSES = {8, 12, 27, 28, 225, 226, 281, 282}
Record = dict[int, int | str]  # by the number of the element; addresses as text


@dataclass
class Decoder:
    """One stream of messages, as a collector hears it."""

    templates: dict[int, list[tuple[int, int]]] = field(default_factory=dict)  # element and length of each field
    records: list[Record] = field(default_factory=list)
    counted: list[tuple[int, int]] = field(default_factory=list)  # a message's sequence number, and its data records
    told: list[int] = field(default_factory=list)  # for each message, how many templates it had
    domains: set[int] = field(default_factory=set)
    exported: list[int] = field(default_factory=list)  # seconds since 1970
    numbers: list[int] = field(default_factory=list)  # for each record, the number of its template

    def take(self, message: bytes) -> list[Record]:
        """RFC 7011, 3.1: header, then sets, which fill the message."""
        version, length, seconds, sequence, domain = struct.unpack_from("!HHIII", message)
        assert (version, length) == (10, len(message))
        at, found, templates = 16, list[Record](), 0
        while at < length:
            number, size = struct.unpack_from("!HH", message, at)
            body = message[at + 4 : at + size]
            assert 4 < size <= length - at
            if number == 2:
                templates += self._take_templates(body)
            else:
                assert number >= 256
                found += self._records_of(number, body)
            at += size
        assert at == length
        self.records += found
        self.counted.append((sequence, len(found)))
        self.told.append(templates)
        self.domains.add(domain)
        self.exported.append(seconds)
        return found

    def _take_templates(self, body: bytes) -> int:
        at = number_of = 0
        while at < len(body):
            number, fields = struct.unpack_from("!HH", body, at)
            assert number >= 256
            assert fields
            pairs = [struct.unpack_from("!HH", body, at + 4 + 4 * place) for place in range(fields)]
            assert all(element < 0x8000 and 0 < size < 0xFFFF for element, size in pairs)
            self.templates[number] = [(element, size) for element, size in pairs]
            at, number_of = at + 4 + 4 * fields, number_of + 1
        return number_of

    def _records_of(self, number: int, body: bytes) -> Iterator[Record]:
        fields = self.templates[number]  # KeyError: it was not told
        size = sum(length for _, length in fields)
        while len(body) >= size:
            record: Record = {}
            for element, length in fields:
                value, body = body[:length], body[length:]
                record[element] = str(ip_address(value)) if element in ADDRESSES else int.from_bytes(value, "big")
            self.numbers.append(number)
            yield record
        assert body == bytes(len(body))  # padding
        assert len(body) < 4


def by_sequence(decoder: Decoder) -> int:
    """How many records are missing, by the numbers of the messages."""
    missing, expected = 0, 0
    for sequence, records in decoder.counted:
        missing += (sequence - expected) & 0xFFFFFFFF
        expected = (sequence + records) & 0xFFFFFFFF
    return missing


# --- collectors of our own --------------------------------------------------------------------------------------------


class Listening:
    """A UDP socket that takes messages."""

    def __init__(self, address: str = "127.0.0.1", port: int = 0) -> None:
        self.socket = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        option = SO_RCVBUFFORCE if os.geteuid() == 0 else socket.SO_RCVBUF
        self.socket.setsockopt(socket.SOL_SOCKET, option, 1 << 24)
        self.socket.bind((address, port))
        self.socket.setblocking(False)
        self.port = self.socket.getsockname()[1]
        self.decoder = Decoder()
        self.messages: list[bytes] = []

    def __enter__(self) -> Listening:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def hear(self) -> list[Record]:
        """All records so far."""
        while True:
            try:
                message = self.socket.recv(65_536)
            except BlockingIOError:
                return self.decoder.records
            self.messages.append(message)
            self.decoder.take(message)

    def longest(self) -> int:
        """Bytes of the longest message."""
        return max(map(len, self.messages))

    def wait_for(self, number: int) -> list[Record]:
        """Wait for so many records in all."""
        wait_for(lambda: len(self.hear()) >= number, lambda: f"{number} records; there are {self.decoder.records}")
        return self.decoder.records


class Connected:
    """A TCP collector that takes one connection after the other, and reads only when it is told to."""

    def __init__(self, port: int = 0, room: int = 0) -> None:
        """``room``: bytes of its buffer."""
        self.server = socket.create_server(("127.0.0.1", port))
        if room:
            self.server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        self.server.setblocking(False)
        self.port = self.server.getsockname()[1]
        self.connection: socket.socket | None = None
        self.decoder = Decoder()
        self._rest = b""

    def __enter__(self) -> Connected:
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()
        self.server.close()

    def hang_up(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def is_connected(self) -> bool:
        """Take the next connection, where there is none."""
        if self.connection is None:
            try:
                self.connection, _ = self.server.accept()
            except BlockingIOError:
                return False
            self.connection.setblocking(False)
            self.decoder, self._rest = Decoder(), b""
        return True

    def hear(self) -> list[Record]:
        """All records of this connection so far."""
        while self.is_connected() and self.connection is not None:
            try:
                data = self.connection.recv(1 << 16)
            except BlockingIOError:
                break
            if not data:
                break
            self._rest += data
            while len(self._rest) >= 16 and len(self._rest) >= (size := int.from_bytes(self._rest[2:4], "big")):
                self.decoder.take(self._rest[:size])
                self._rest = self._rest[size:]
        return self.decoder.records


# --- collectors of other people ---------------------------------------------------------------------------------------


def needs_collectors(*programs: str) -> pytest.MarkDecorator:
    """Skips where these are not installed; in CI they must be."""
    absent = [program for program in programs if which(program) is None]
    reason = f"not installed: {', '.join(absent)}" if absent else "no reason"
    return pytest.mark.skipif(bool(absent) and os.environ.get("CI") != "true", reason=reason)


def free_port(kind: socket.SocketKind = socket.SOCK_DGRAM) -> int:
    with socket.socket(socket.AF_INET, kind) as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def unread(port: int) -> int | None:
    """Bytes that wait at this UDP port; None where nobody listens to it. proc_net(5): rx_queue, in hex."""
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        words = line.split()
        if int(words[1].partition(":")[2], 16) == port:
            return int(words[4].partition(":")[2], 16)
    return None


class Running:
    """A collector of other people, which writes down what it says."""

    def __init__(self, command: Sequence[str], port: int, said: Path) -> None:
        self.said, self.port = said, port
        with open(said, "wb") as file:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        wait_for(lambda: unread(port) is not None, lambda: f"{command} does not listen: {said.read_text()}")

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self, how: int = signal.SIGTERM) -> None:
        stop_process(self.process, how)

    def finish(self) -> None:
        """End it when it has stored all that came: nfcapd leaves its socket unread, and what it read last, too."""
        state = Path(f"/proc/{self.process.pid}/stat")
        wait_for(lambda: unread(self.port) == 0 and state.read_text().rpartition(")")[2].split()[0] == "S")
        self.stop()

    def send(self, number: int) -> None:
        self.process.send_signal(number)


Said = tuple[str, str, int, int, int, int]  # src, dst, sport, dport, protocol, bytes


def nfdump(folder: Path, *words: str) -> str:
    """What nfdump prints of a folder of nfcapd."""
    done = subprocess.run(
        ["nfdump", "-R", str(folder), "-q", *words], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def records_of_nfdump(folder: Path) -> list[dict[str, Any]]:
    """All that nfcapd has stored. Without its last lines nfdump leaves out the brackets, too."""
    said = nfdump(folder, "-o", "json")
    found: list[dict[str, Any]] = [] if said.startswith("No matching") else json.loads(f"[{said}]")
    return found


def flows_of_nfdump(folder: Path) -> list[Said]:
    """The flows, without the events of NAT."""
    return sorted(
        (
            *(its.get("src4_addr") or its["src6_addr"], its.get("dst4_addr") or its["dst6_addr"]),
            *(int(its.get("src_port", 0)), int(its.get("dst_port", 0)), int(its["proto"]), int(its["in_bytes"])),
        )
        for its in records_of_nfdump(folder)
        if its.get("nat_event_id", "0") == "0"
    )


def flows_of_netflow(messages: Iterable[bytes]) -> list[Said]:
    """The same by PyPI's netflow."""
    from netflow.ipfix import IPFIXExportPacket  # only who asks for it waits for it

    templates: dict[int, object] = {}
    packets = [IPFIXExportPacket(message, templates) for message in messages]
    found = []
    for its in (flow.data for packet in packets for flow in packet.flows):
        six = "sourceIPv6Address" in its
        src, dst = (its[f"{side}IPv{6 if six else 4}Address"] for side in ("source", "destination"))
        if "natEvent" not in its:
            ports = (its.get(f"{side}TransportPort", 0) for side in ("source", "destination"))
            kind = IPv6Address if six else IPv4Address
            found.append((str(kind(src)), str(kind(dst)), *ports, its["protocolIdentifier"], its["octetDeltaCount"]))
    return sorted(found)


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file that is being written; none where there is no file yet."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.rpartition("\n")[0].splitlines() if line.strip()]
