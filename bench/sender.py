"""Packets of a masquerading router, made in its namespace: `sender.py RATE SECONDS CHANGED`.

RATE new UDP flows a second, from hosts near to addresses for benchmarks, every fifth of IPv6; of the first CHANGED
flows of the table those that may move something (see ground.far) get a packet every 8 seconds. The packets are raw, so
that their source may be a host behind the router. The kernel masquerades them as it does what it forwards.
"""

from __future__ import annotations

import socket
import struct
import sys
import time

from ground import CHANGED, FAR, NEAR, far, far6, near

CYCLE = 8.0  # seconds
UDP = 17


def packet(source: str, target: str, sport: int, dport: int) -> bytes:
    """IPv4 with UDP and one byte; the kernel fills in length and checksum, and UDP may do without."""
    ends = socket.inet_aton(source) + socket.inet_aton(target)
    return struct.pack("!BBHHHBBH", 0x45, 0, 29, 0, 0, 64, UDP, 0) + ends + struct.pack("!4HB", sport, dport, 9, 0, 120)


def packet6(source: str, target: str, sport: int, dport: int) -> bytes:
    """The same for IPv6, where UDP needs its checksum (RFC 8200, section 8.1)."""
    ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target)
    parts = struct.unpack("!16H", ends)
    total = sum(parts) + 9 + UDP + sport + dport + 9 + (120 << 8)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    checksum = (~total & 0xFFFF) or 0xFFFF
    return struct.pack("!IHBB", 6 << 28, 9, UDP, 64) + ends + struct.pack("!4HB", sport, dport, 9, checksum, 120)


class Sender:
    """Two raw sockets."""

    def __init__(self) -> None:
        self._four = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._six = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
        for raw in (self._four, self._six):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)

    def open(self, number: int) -> None:
        """One new flow."""
        sport, host = 1024 + number // FAR, number % FAR
        if number % 5 == 0:
            source, target = f"2001:db8:1::{number % NEAR + 1:x}", f"2001:2::{host // 250 + 1000:x}:{host % 250 + 1:x}"
            self._six.sendto(packet6(source, target, sport, 53), (target, 0))
        else:
            target = f"198.{18 + host % 2}.{host // 250}.{host % 250 + 1}"
            self._four.sendto(packet(near(number), target, sport, 53), (target, 0))

    def move(self, number: int) -> None:
        """A packet of a flow of the table."""
        sport, dport = 1024 + number % 60_000, (443, 80, 22, 8080)[number % 4]
        if number % 25 < 5:
            self._six.sendto(
                packet6(f"2001:db8:1::{number % NEAR + 1:x}", far6(number), sport, dport), (far6(number), 0)
            )
        else:
            self._four.sendto(packet(near(number), far(number), sport, dport), (far(number), 0))


def main(rate: int, seconds: float, changed: int) -> None:
    """Send what is due until all flows are opened."""
    sender, start, opened, moved, total = Sender(), time.monotonic(), 0, 0, int(rate * seconds)
    while opened < total or time.monotonic() - start < seconds:
        spent = time.monotonic() - start
        due, moves = min(total, int(spent * rate)), int(spent * changed / CHANGED / CYCLE)
        if opened >= due and moved >= moves:
            time.sleep(0.001)
        while opened < due:
            sender.open(opened)
            opened += 1
        while moved < moves:
            sender.move(moved % (changed // CHANGED) * CHANGED)
            moved += 1
    print(opened, time.monotonic() - start, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
