"""The programs that make traffic inside a namespace: ``python traffic.py echo 203.0.113.2 5001``.

:meth:`support.kernel.Namespace.agent` starts them. They take commands on standard input and say on standard output what
has happened. They need the standard library alone, so that they start fast.
"""

from __future__ import annotations

import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable

LIFETIME = 300  # seconds after which a program ends that nobody stopped, should the test process be killed
PATIENCE = 10.0  # seconds to wait for an answer


def _say(*words: object) -> None:
    print(*words, flush=True)


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _socket(address: str, kind: socket.SocketKind) -> socket.socket:
    connection = socket.socket(_family(address), kind)
    connection.settimeout(PATIENCE)
    return connection


def _agent_echo(address: str, port: str) -> None:
    """TCP and UDP echo server until standard input ends; "ready"."""
    selector = selectors.DefaultSelector()
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        server = socket.socket(_family(address), kind)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, int(port)))
        if kind == socket.SOCK_STREAM:
            server.listen(512)
        selector.register(server, selectors.EVENT_READ, _accept if kind == socket.SOCK_STREAM else _echo_datagram)
    selector.register(sys.stdin, selectors.EVENT_READ, None)
    _say("ready")
    while True:
        for key, _ in selector.select():
            if key.data is None:
                return
            key.data(selector, key.fileobj)


def _accept(selector: selectors.BaseSelector, server: socket.socket) -> None:
    selector.register(server.accept()[0], selectors.EVENT_READ, _echo)


def _echo(selector: selectors.BaseSelector, connection: socket.socket) -> None:
    try:
        data = connection.recv(65536)
        connection.sendall(data)
    except OSError:  # reset
        data = b""
    if not data:
        selector.unregister(connection)
        connection.close()


def _echo_datagram(_: selectors.BaseSelector, server: socket.socket) -> None:
    data, peer = server.recvfrom(65536)
    server.sendto(data, peer)


def _agent_connect(address: str, port: str) -> None:
    """TCP client: "connected PORT"; then "send N", "close" and "reset" as told."""
    connection = _socket(address, socket.SOCK_STREAM)
    connection.connect((address, int(port)))
    _say("connected", connection.getsockname()[1])
    for line in sys.stdin:
        command, *numbers = line.split()
        if command == "send":
            _exchange(connection, int(numbers[0]))
            _say("echoed", *numbers)
            continue
        if command == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
        connection.close()
        _say("closed")
        return


def _exchange(connection: socket.socket, size: int) -> None:
    # In pieces that fit the buffers: who sends all before reading could wait for ever for an echo
    # server.
    while size:
        piece = min(size, 4096)
        connection.sendall(b"x" * piece)
        size -= piece
        while piece:
            piece -= len(connection.recv(piece)) or sys.exit("the server closed the connection")


def _agent_udp(address: str, port: str, flows: str, rounds: str) -> None:
    """UDP flows with that many answered datagrams each, or one unanswered: "done PORT…"."""
    sockets = [_socket(address, socket.SOCK_DGRAM) for _ in range(int(flows))]
    for connection in sockets:
        connection.connect((address, int(port)))
        for _ in range(int(rounds)):
            connection.send(b"x" * 32)
            connection.recv(65536)
        if rounds == "0":
            connection.send(b"x" * 32)
    _say("done", *(connection.getsockname()[1] for connection in sockets))


def _agent_spray(sport: str, flows: str) -> None:
    """One datagram each to that many places in the black hole, always from the same port: "done".

    Who sprays again from the same port uses the same tuples again.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("", int(sport)))
        for i in range(int(flows)):
            sender.sendto(b"x" * 32, (f"198.51.100.{i % 250 + 1}", 10_000 + i // 250))
    _say("done")


def _agent_pace(address: str, port: str, rate: str, number: str) -> None:
    """So many packets of 1,000 bytes (with their headers), ``rate`` of them a second by the clock: "begun", "done"."""
    with _socket(address, socket.SOCK_DGRAM) as sender:
        sender.connect((address, int(port)))
        _say("begun", sender.getsockname()[1])
        began = time.monotonic()
        for packet in range(int(number)):
            time.sleep(max(0.0, began + packet / float(rate) - time.monotonic()))
            sender.send(b"x" * (1000 - 8 - (40 if _family(address) == socket.AF_INET6 else 20)))
    _say("done")


def _agent_syn(address: str, port: str, flows: str) -> None:
    """TCP SYNs without an answer: "done PORT…"."""
    sockets = [_socket(address, socket.SOCK_STREAM) for _ in range(int(flows))]
    for connection in sockets:
        connection.setblocking(False)
        connection.connect_ex((address, int(port)))
    _say("done", *(connection.getsockname()[1] for connection in sockets))


def _agent_refused(address: str, port: str) -> None:
    """A TCP connection to a closed port: "done PORT"."""
    connection = _socket(address, socket.SOCK_STREAM)
    connection.bind(("", 0))
    try:
        connection.connect((address, int(port)))
    except ConnectionRefusedError:
        _say("done", connection.getsockname()[1])


def _agent_ping(address: str, identifier: str, count: str) -> None:
    """ICMP echo requests, each answered: "done"."""
    version6 = _family(address) == socket.AF_INET6
    protocol = socket.IPPROTO_ICMPV6 if version6 else socket.IPPROTO_ICMP
    raw = socket.socket(_family(address), socket.SOCK_RAW, protocol)
    raw.settimeout(PATIENCE)
    for sequence in range(int(count)):
        raw.sendto(echo_request(128 if version6 else 8, int(identifier), sequence), (address, 0))
        # Raw sockets hear every ICMP message of the host; IPv4 gives them with the IP header of 20
        # bytes.
        wanted = struct.pack("!HH", int(identifier), sequence)
        start = 0 if version6 else 20
        while (got := raw.recv(2048)[start:])[:1] != (b"\x81" if version6 else b"\0") or got[4:8] != wanted:
            pass
    _say("done")


def echo_request(kind: int, identifier: int, sequence: int) -> bytes:
    """An ICMP echo request with its checksum (for ICMPv6 the kernel puts in its own).

    >>> echo_request(8, 1, 1).hex()
    '0800f7fd00010001'
    """
    message = struct.pack("!BBHHH", kind, 0, 0, identifier, sequence)
    total = sum(struct.unpack("!4H", message))
    total = (total & 0xFFFF) + (total >> 16)
    return message[:2] + struct.pack("!H", ~total & 0xFFFF) + message[4:]


_AGENTS: dict[str, Callable[..., None]] = {
    "echo": _agent_echo,
    "connect": _agent_connect,
    "udp": _agent_udp,
    "spray": _agent_spray,
    "pace": _agent_pace,
    "syn": _agent_syn,
    "refused": _agent_refused,
    "ping": _agent_ping,
}


if __name__ == "__main__":
    signal.alarm(LIFETIME)
    _AGENTS[sys.argv[1]](*sys.argv[2:])
