"""Text for people: safe to show, measured in cells; numbers, spans of time, services by name, glyphs."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

DAY = 86_400  # seconds

# --- safe to show -----------------------------------------------------------------------------------------------------


def printable(text: str) -> str:
    """``text`` without control, format, surrogate or private characters; its blanks stay as they are.

    >>> printable("Thu Nov  5\\x1b[0m"), printable(" a\\u00a0b\\t")
    ('Thu Nov  5[0m', ' a b ')
    """
    if text.isascii() and text.isprintable():
        return text
    kept = []
    for char in text:
        category = unicodedata.category(char)
        if category[0] == "Z" or char in "\t\n\r":
            kept.append(" ")
        elif category[0] != "C":
            kept.append(char)
    return "".join(kept)


def clean(text: str, limit: int = 256) -> str:
    """``text`` in one line: no control, format, surrogate or private characters, blanks collapsed, cut to ``limit``.

    Format characters (category Cf) are dropped too: U+202E turns the rest of a line around, U+00AD has no fixed width.

    >>> clean("conn\\x1b[31mtrack\\n"), clean("a\\u202eb  c")
    ('conn[31mtrack', 'ab c')
    """
    return " ".join(printable(text[: limit * 4]).split())[:limit]


# --- cells and lines --------------------------------------------------------------------------------------------------

Span = tuple[str, str]  # text, role
Line = list[Span]
# The roles of spans. The screen's palette says how each role looks on the terminal.
ROLES = (
    *("plain", "dim", "accent", "good", "warn", "bad", "head", "title", "selected", "key", "new", "closed", "nat"),
    "cursor",
)


def cells(text: str) -> int:
    """Width on a terminal, in cells."""
    return len(text) if text.isascii() else _wide(text)


_NOT_PRINTABLE_ASCII = re.compile(r"[^ -~]")


@lru_cache(maxsize=4096)  # rules and bars come again in each frame, and a rule has 200 characters
def _wide(text: str) -> int:
    return len(text) + sum(_width(char) - 1 for char in _NOT_PRINTABLE_ASCII.findall(text))


def is_one_cell_each(text: str) -> bool:
    """Does each character take one cell, no more and no less?"""
    return text.isascii() or all(_width(char) == 1 for char in _NOT_PRINTABLE_ASCII.findall(text))


@lru_cache(maxsize=4096)
def _width(char: str) -> int:
    from wcwidth import wcwidth  # 40 ms to import; most of what is shown is ASCII

    return max(0, wcwidth(char))


def shorten(text: str, width: int, mark: str = "…") -> str:
    """``text`` in at most ``width`` cells; what is missing at the end is marked."""
    if cells(text) <= width:
        return text
    if width <= 1:
        return mark[:width]
    return _beginning(text, width - 1) + mark


def _beginning(text: str, width: int) -> str:
    used = 0
    for at, char in enumerate(text):
        used += _width(char)
        if used > width:
            return text[:at]
    return text


def shorten_middle(text: str, width: int, mark: str = "…") -> str:
    """An endpoint in at most ``width`` cells: the port stays whole, the address loses its middle.

    An address cut at its end would be another valid one.
    """
    if len(text) <= width:
        return text
    at = text.rfind("]:") if "[" in text else (text.rfind(":") if text.count(":") == 1 else -1)
    address, port = (text[:at], text[at:]) if at > 0 else (text, "")
    room = width - len(port) - 1
    if room < 4:
        return shorten(text, width, mark) if width > len(mark) else mark[:width]
    tail = room // 2
    return address[: room - tail] + mark + address[len(address) - tail :] + port


def wrap(text: str, width: int, mark: str = "…") -> list[str]:
    """``text`` in lines of at most ``width`` cells, broken at blanks; a longer word is marked at its breaks."""
    if cells(text) <= width:
        return [text]
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        if line and cells(line) + 1 + cells(word) > width:
            lines.append(line.rstrip())
            line = ""
            if not word:
                continue
        line = f"{line} {word}" if line else word
        while width > 2 and cells(line) > width:
            piece = _beginning(line, width - 1)
            lines.append(piece + mark)
            line = line[len(piece) :]
    return [*lines, line]


def pad(text: str, width: int, right: bool) -> str:
    width -= cells(text) - len(text)
    return text.rjust(width) if right else text.ljust(width)


def clip(line: Iterable[Span], width: int, mark: str = "…") -> Line:
    """The spans that fit into ``width`` cells; the last one cut if need be."""
    line = list(line)
    if cells("".join([text for text, _ in line])) <= width:  # almost all lines: one measurement and not one a span
        return line
    out: Line = []
    left = width
    for text, role in line:
        if left <= 0:
            break
        shown = shorten(text, left, mark)
        out.append((shown, role))
        left -= cells(shown)
    return out


def length(line: Line) -> int:
    return sum(cells(text) for text, _ in line)


def spread(left: Line, right: Line, width: int) -> Line:
    """Left and right on one line; the right side goes first when there is no room for both."""
    used, wanted = length(left), length(right)
    if used + wanted + 2 > width:
        return left
    return [*left, (" " * (width - used - wanted), "plain"), *right]


# --- numbers, spans of time, endpoints --------------------------------------------------------------------------------


def size_text(number: float | None) -> str:
    """At most five characters: 0, 999, 1.2k, 34M, 1.8G; "-" for unknown.

    >>> [size_text(n) for n in (None, 0, 999, 1000, 12_345, 999_500, 18446744073709551615)]
    ['-', '0', '999', '1.0k', '12k', '1.0M', '18E']
    """
    if number is None:
        return "-"
    if number < 999.5:
        return f"{number:.0f}"
    for unit in "kMGTPE":
        number /= 1000
        if number < 9.95:
            return f"{number:.1f}{unit}"
        if number < 999.5:
            return f"{number:.0f}{unit}"
    return f"{number / 1000:.0f}Z"


def speed_text(rate: float | None, bits: bool = False) -> str:
    """A rate, given in bytes a second, with its unit where that is bits.

    >>> speed_text(1500), speed_text(1500, bits=True), speed_text(None)
    ('1.5k/s', '12kbit/s', '-')
    """
    return "-" if rate is None else f"{size_text(rate * 8)}bit/s" if bits else f"{size_text(rate)}/s"


def span_text(seconds: float | None) -> str:
    """A duration in at most five characters: 5s, 59s, 12m, 3.2h, 5.0d, 120d.

    >>> [span_text(s) for s in (None, 0.4, 59.9, 60, 3599, 3600, 432000, 99999999)]
    ['-', '0s', '59s', '1m', '59m', '1.0h', '5.0d', '1157d']
    """
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{int(seconds)}s"
    if seconds < 3600:
        return f"{int(seconds / 60)}m"
    for length, unit in ((3600, "h"), (86400, "d")):
        value = seconds / length
        if value < 9.95:
            return f"{value:.1f}{unit}"
        if unit == "d" or value < 48:
            return f"{value:.0f}{unit}"
    raise AssertionError


def endpoint(address: str, port: int | None, name: str | None = None) -> str:
    """``192.0.2.1:443``, ``[2001:db8::1]:443``, ``192.0.2.1``; with a service's name for the port if given."""
    if port is None:
        return address
    return f"[{address}]:{name or port}" if ":" in address else f"{address}:{name or port}"


def bar(share: float, size: int, full: str, empty: str) -> tuple[str, str]:
    """The full and the empty part of a bar of ``size`` characters.

    >>> bar(0.5, 4, "#", ".")
    ('##', '..')
    """
    filled = round(max(0.0, min(share, 1.0)) * size)
    return full * filled, empty * (size - filled)


def fine_bar(share: float, size: int, parts: str) -> str:
    """A bar of at most ``size`` characters in steps of a part of one. ``parts``: those of a character, the whole last.

    >>> fine_bar(0.3, 4, "▏▎▍▌▋▊▉█"), fine_bar(0.3, 4, "#"), fine_bar(1.0, 4, "▏▎▍▌▋▊▉█")
    ('█▎', '#', '████')
    """
    whole, rest = divmod(round(max(0.0, min(share, 1.0)) * size * len(parts)), len(parts))
    return parts[-1] * whole + (parts[rest - 1] if rest else "")


def text_table(header: Sequence[str], rows: Iterable[Sequence[str]], right: Callable[[int], bool]) -> str:
    """Aligned columns, two blanks apart, nothing cut."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    out = []
    for line in lines:
        cells = [
            cell.rjust(width) if right(i) else cell.ljust(width) for i, (cell, width) in enumerate(zip(line, widths))
        ]
        out.append("  ".join(cells).rstrip())
    return "\n".join(out) + "\n"


# --- services by name -------------------------------------------------------------------------------------------------

_BOTH = {
    7: "echo",
    53: "dns",
    88: "kerberos",
    111: "sunrpc",
    123: "ntp",
    137: "netbios-ns",
    161: "snmp",
    162: "snmp-trap",
    389: "ldap",
    443: "https",
    464: "kpasswd",
    500: "isakmp",
    514: "syslog",
    853: "dns-tls",
    1194: "openvpn",
    1701: "l2tp",
    1812: "radius",
    1813: "radius-acct",
    2049: "nfs",
    3389: "rdp",
    3478: "stun",
    4500: "ipsec-nat-t",
    5060: "sip",
    5349: "turns",
    51820: "wireguard",
}
_TCP = {
    20: "ftp-data",
    21: "ftp",
    22: "ssh",
    23: "telnet",
    25: "smtp",
    43: "whois",
    49: "tacacs",
    80: "http",
    110: "pop3",
    119: "nntp",
    135: "msrpc",
    139: "netbios-ssn",
    143: "imap",
    179: "bgp",
    445: "smb",
    465: "smtps",
    515: "printer",
    554: "rtsp",
    587: "submission",
    631: "ipp",
    636: "ldaps",
    873: "rsync",
    989: "ftps-data",
    990: "ftps",
    993: "imaps",
    995: "pop3s",
    1080: "socks",
    1433: "mssql",
    1521: "oracle",
    1723: "pptp",
    1883: "mqtt",
    2375: "docker",
    2376: "docker-tls",
    2379: "etcd",
    3128: "squid",
    3306: "mysql",
    5222: "xmpp",
    5223: "xmpps",
    5228: "gcm",
    5432: "postgres",
    5900: "vnc",
    5985: "winrm",
    6379: "redis",
    6443: "kube-api",
    6667: "irc",
    8006: "proxmox",
    8080: "http-alt",
    8443: "https-alt",
    8883: "mqtts",
    9000: "cslistener",
    9090: "prometheus",
    9100: "node-exporter",
    9200: "elasticsearch",
    10250: "kubelet",
    11211: "memcached",
    25565: "minecraft",
    27017: "mongodb",
    32400: "plex",
}
_UDP = {
    67: "dhcp-server",
    68: "dhcp",
    69: "tftp",
    138: "netbios-dgm",
    546: "dhcpv6",
    547: "dhcpv6-server",
    1900: "ssdp",
    4789: "vxlan",
    5351: "nat-pmp",
    5353: "mdns",
    5355: "llmnr",
    6081: "geneve",
    8472: "flannel",
    41641: "tailscale",
}
SERVICES = {
    **{("tcp", port): name for port, name in {**_BOTH, **_TCP}.items()},
    **{("udp", port): name for port, name in {**_BOTH, **_UDP, 443: "quic"}.items()},
}


def service(protocol: str, port: int | None) -> str | None:
    """The service usually found at a port.

    >>> service("tcp", 443), service("udp", 443), service("tcp", 40000)
    ('https', 'quic', None)
    """
    return None if port is None else SERVICES.get((protocol, port))


def ports_of(name: str) -> set[int]:
    """All ports a service name stands for; none if it is unknown.

    >>> sorted(ports_of("HTTPS")), sorted(ports_of("nosuch"))
    ([443], [])
    """
    return {port for (_protocol, port), known in SERVICES.items() if known == name.lower()}


# --- glyphs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Glyphs:
    """The characters beyond ASCII, and what stands for them where the terminal has none."""

    dot: str = "●"
    full: str = "█"
    empty: str = "░"
    cut: str = "…"
    falling: str = "↓"
    rising: str = "↑"
    rule: str = "─"
    middle: str = "·"
    bar: str = "▏"
    new: str = "+"  # in the gutter of a row
    closed: str = "×"
    spark: str = "▁▂▃▄▅▆▇█"
    eighths: str = "▏▎▍▌▋▊▉█"  # of a cell, from the left
    ascii: bool = False


UNICODE = Glyphs()
ASCII = Glyphs("*", "#", ".", "~", "v", "^", "-", "|", "|", "+", "x", "_.-=+*%#", "#", ascii=True)


def sparkline(values: Sequence[float], glyphs: Glyphs) -> str:
    """A value a character; the scale's top is the next 1, 2 or 5 times a power of ten, so that it does not flutter."""
    top, step = 1.0, 0
    while top < max(values, default=0.0):
        top *= (2.0, 2.5, 2.0)[step % 3]
        step += 1
    levels = len(glyphs.spark) - 1
    return "".join(glyphs.spark[min(levels, round(value / top * levels))] for value in values)
