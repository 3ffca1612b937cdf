"""Real flows in network namespaces, the kernel's table as XML, and the conntrack processes that read it.

::

    client ── lan ── router ── wan ── server ── 198.51.100.0/24, a black hole
    10.99.1.2        tracks, masquerades        203.0.113.2
    fd99:1::2        and forwards port 8080     2001:db8:2::2

Only the router tracks. Everything stays between the three namespaces; nothing here can reach a real
network, because none of them has a link to it. :mod:`support.traffic` makes the traffic inside a
namespace.

Needs root, ``ip``, ``nft`` and ``conntrack``; see :func:`needs_kernel`.

The last part is about the conntrack processes of a program under test: what Linux tells of them, and what
can be done to them from outside. All of it goes by process ids: it works on the children of this process
and on those of a child program alike.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import itertools
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from shutil import which
from typing import IO, TYPE_CHECKING, Any, TypeVar, final

from child import CONNTRACK_GROUPS, PIDFD_GETFD, SO_RCVBUFFORCE
from intake import Item
from source import LiveSource
from support.waiting import PATIENCE, wait_for

if TYPE_CHECKING:
    import pytest

T = TypeVar("T")
JsonFlow = dict[str, Any]  # a flow in the shape of the JSON contract

PROGRAMS = ("ip", "nft", "conntrack")
TRAFFIC = Path(__file__).resolve().with_name("traffic.py")

SO_MEMINFO = 55  # asm-generic/socket.h: Linux 4.12
NETFILTER = 12  # the netlink protocol


class LabError(RuntimeError):
    """The laboratory could not do what was asked; the text says what the command printed."""


# --- is there a kernel to play with? --------------------------------------------------------------


def missing() -> str:
    """What the laboratory lacks here, as a sentence; "" when it can work.

    >>> isinstance(missing(), str)
    True
    """
    if os.geteuid() != 0:
        return "network namespaces need root"
    absent = [program for program in PROGRAMS if which(program) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


def kernel_mark() -> pytest.MarkDecorator:
    """The mark behind :func:`needs_kernel`, for ``pytestmark = kernel_mark()``.

    With CI=true nothing is skipped: the test runs, and the first namespace it wants fails with the
    reason.
    """
    import pytest  # here, because fixtures/make_demo.py has no use for it

    reason = missing()
    return pytest.mark.skipif(bool(reason) and os.environ.get("CI") != "true", reason=reason or "no reason")


def needs_kernel(test: T) -> T:
    """Decorate a test that uses the laboratory: it skips where that can't work, but fails in CI."""
    # pytest's types know only functions and classes here; a cast would have to name them.
    marked: T = kernel_mark()(test)  # type: ignore[assignment]
    return marked


# --- namespaces -----------------------------------------------------------------------------------


def _command(argv: Sequence[str], input: str | None, check: bool) -> subprocess.CompletedProcess[str]:
    # surrogateescape: conntrack prints the names of foreign programs as they are.
    done = subprocess.run(
        argv,
        check=False,
        input=input,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        env={**os.environ, "LC_ALL": "C"},
        timeout=2 * PATIENCE,
    )
    if check and done.returncode:
        raise LabError(f"{' '.join(argv)}: exit status {done.returncode}\n{done.stderr}{done.stdout}")
    return done


def stop_process(process: subprocess.Popen[bytes], signum: int = signal.SIGTERM) -> int:
    """Stop a child (SIGKILL after 5 seconds), close its pipes and return its status."""
    if process.poll() is None:
        process.send_signal(signum)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(OSError):  # what was still buffered for a program that is gone
                pipe.close()
    return process.returncode


@final
class Namespace:
    """A network namespace with ``lo`` up; a context manager, or call ``create`` and ``delete``."""

    _numbers = itertools.count()

    def __init__(self, role: str = "ns") -> None:
        self.name = f"cm-{os.getpid()}-{next(self._numbers)}{role}"
        self._children: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Namespace:
        return self.create()

    def __exit__(self, *_: object) -> None:
        self.delete()

    @property
    def prefix(self) -> list[str]:
        """The words that put a command into the namespace."""
        return ["ip", "netns", "exec", self.name]

    @property
    def via(self) -> str:
        """The same as one text, for ``--via``."""
        return " ".join(self.prefix)

    def create(self) -> Namespace:
        """Create it; LabError where there is no root or a program is missing."""
        if reason := missing():
            raise LabError(reason)
        _command(["ip", "netns", "add", self.name], None, True)
        try:
            self.ip("link set lo up")
        except BaseException:
            self.delete()
            raise
        return self

    def delete(self) -> None:
        """Stop what runs in it and remove it; harmless when it is gone."""
        for child in self._children:
            stop_process(child)
        self._children.clear()
        # A process left inside would keep the nameless namespace, and its table, alive.
        for pid in _command(["ip", "netns", "pids", self.name], None, False).stdout.split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        _command(["ip", "netns", "del", self.name], None, False)

    def run(
        self, argv: Sequence[str], input: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; LabError with what it printed if it fails and ``check``."""
        return _command([*self.prefix, *argv], input, check)

    def popen(self, argv: Sequence[str], stderr: int | IO[bytes] | None = subprocess.PIPE) -> subprocess.Popen[bytes]:
        """Start a command with pipes; it is stopped with the namespace at the latest."""
        child = subprocess.Popen(
            [*self.prefix, *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            bufsize=0,
            env={**os.environ, "LC_ALL": "C"},
        )
        self._children.append(child)
        return child

    def ip(self, *lines: str) -> None:
        """Run ``ip`` commands, one a line."""
        _command(["ip", "-n", self.name, "-batch", "-"], "\n".join(lines) + "\n", True)

    def nft(self, rules: str) -> None:
        """Load nftables rules."""
        self.run(["nft", "-f", "-"], rules)

    def sysctl(self, name: str, value: int | str) -> None:
        """Set a sysctl, as in ``sysctl("net.netfilter.nf_conntrack_udp_timeout", 5)``."""
        self.run(["tee", "/proc/sys/" + name.replace(".", "/")], f"{value}\n")

    def agent(self, *arguments: object) -> Agent:
        """Start a traffic program; see the functions of :mod:`support.traffic` called ``_agent_…``."""
        return Agent(self, [str(argument) for argument in arguments])


@final
class Agent:
    """A traffic program in a namespace: commands on standard input, answers on standard output."""

    def __init__(self, namespace: Namespace, arguments: Sequence[str]) -> None:
        # Without site packages, which cost time.
        command = [sys.executable, "-I", "-S", str(TRAFFIC), *arguments]
        self.process = namespace.popen(command, stderr=subprocess.STDOUT)
        self._read = b""

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def line(self) -> str:
        """The next line; LabError with what it said so far if it ends or stays silent."""
        assert self.process.stdout is not None
        stdout = self.process.stdout.fileno()
        deadline = time.monotonic() + PATIENCE
        while b"\n" not in self._read:
            ready, _, _ = select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(stdout, 65536) if ready else b""
            if not data:
                why = "ended" if ready else "was silent"
                raise LabError(f"agent {self.process.args!r} {why}:\n{self._read.decode(errors='replace')}")
            self._read += data
        line, _, self._read = self._read.partition(b"\n")
        return line.decode()

    def expect(self, word: str) -> list[int]:
        """The numbers after ``word`` in the next line; LabError if it begins with anything else."""
        first, *numbers = self.line().split() or [""]
        if first != word:
            rest = b""
            if self.process.stdout is not None and first == "Traceback":
                rest = self._read + self.process.stdout.read()
            raise LabError(f"expected {word!r} from the agent, got {first!r}\n{rest.decode(errors='replace')}")
        return [int(number) for number in numbers]

    def tell(self, *words: object) -> None:
        """Give it a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, words)).encode() + b"\n")

    def stop(self) -> None:
        """End it: its sockets are closed by the kernel, a TCP connection with FIN."""
        stop_process(self.process)


@final
class TcpConnection:
    """An open TCP connection of an agent to an echo server."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        (self.port,) = agent.expect("connected")

    def __enter__(self) -> TcpConnection:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the program that has it: the kernel closes it, and nobody waits for that."""
        self._agent.stop()

    def exchange(self, size: int) -> None:
        """Send ``size`` bytes and get them all back."""
        self._agent.tell("send", size)
        self._agent.expect("echoed")

    def close(self) -> None:
        """Close it in good order, FIN from both sides: TIME_WAIT."""
        self._agent.tell("close")
        self._agent.expect("closed")

    def reset(self) -> None:
        """Break it off with RST: CLOSE."""
        self._agent.tell("reset")
        self._agent.expect("closed")


# --- the laboratory -------------------------------------------------------------------------------

RULES = """
table inet lab {
    chain zones { type filter hook prerouting priority raw; }
    chain marks { type filter hook prerouting priority mangle; ct state invalid counter; }
    chain port_forward {
        type nat hook prerouting priority dstnat;
        iifname wan ip daddr 203.0.113.1 meta l4proto { tcp, udp } th dport 8080 \\
            dnat ip to 10.99.1.2:80;
    }
    chain way_out {
        type nat hook postrouting priority srcnat;
        oifname wan ip saddr 10.99.1.0/24 masquerade;
    }
}
"""


@final
class Lab:
    """Client, NAT router and server; the router's table is the one to look at.

    ``accounting`` and ``timestamps`` hold for the flows created afterwards, as in every kernel.
    """

    CLIENT, CLIENT6 = "10.99.1.2", "fd99:1::2"
    ROUTER, ROUTER6 = "10.99.1.1", "fd99:1::1"
    WAN, WAN6 = "203.0.113.1", "2001:db8:2::1"
    SERVER, SERVER6 = "203.0.113.2", "2001:db8:2::2"
    BLACK_HOLE = "198.51.100.9"
    FORWARDED_PORT, FORWARDED_TO = 8080, 80

    def __init__(self, accounting: bool = True, timestamps: bool = False) -> None:
        self.client, self.router, self.server = Namespace("c"), Namespace("r"), Namespace("s")
        self._accounting, self._timestamps = accounting, timestamps
        self._stack = ExitStack()

    def __enter__(self) -> Lab:
        with ExitStack() as stack:
            for namespace in (self.client, self.router, self.server):
                stack.enter_context(namespace)
                self._prepare(namespace)
            self._wire()
            self.accounting(self._accounting)
            self.timestamps(self._timestamps)
            self.router.nft(RULES)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @staticmethod
    def _prepare(namespace: Namespace) -> None:
        # "default" before there are links, so that each link is born with it. Without duplicate
        # address detection an IPv6 address can be used at once.
        for conf in ("all", "default"):
            namespace.sysctl(f"net.ipv4.conf.{conf}.rp_filter", 0)
            namespace.sysctl(f"net.ipv6.conf.{conf}.accept_dad", 0)
            namespace.sysctl(f"net.ipv6.conf.{conf}.accept_ra", 0)

    def _wire(self) -> None:
        self.router.sysctl("net.ipv4.ip_forward", 1)
        self.router.sysctl("net.ipv6.conf.all.forwarding", 1)
        self.router.ip(
            f"link add lan type veth peer name eth0 netns {self.client.name}",
            f"link add wan type veth peer name eth0 netns {self.server.name}",
            f"address add {self.ROUTER}/24 dev lan",
            f"address add {self.ROUTER6}/64 dev lan nodad",
            f"address add {self.WAN}/24 dev wan",
            f"address add {self.WAN6}/64 dev wan nodad",
            "link set lan up",
            "link set wan up",
            f"route add 198.51.100.0/24 via {self.SERVER}",
        )
        self._host(self.client, f"{self.CLIENT}/24", f"{self.CLIENT6}/64")
        self._host(self.server, f"{self.SERVER}/24", f"{self.SERVER6}/64")
        self.client.ip(f"route add default via {self.ROUTER}", f"route add ::/0 via {self.ROUTER6}")
        # No IPv4 default for the server: it must only ever see the masqueraded address.
        self.server.ip(f"route add ::/0 via {self.WAN6}", "route add blackhole 198.51.100.0/24")

    @staticmethod
    def _host(namespace: Namespace, address: str, address6: str) -> None:
        namespace.ip(
            f"address add {address} dev eth0",
            f"address add {address6} dev eth0 nodad",
            "link set eth0 up",
        )

    def accounting(self, on: bool) -> None:
        """Counters for the flows created from now on."""
        self.router.sysctl("net.netfilter.nf_conntrack_acct", int(on))

    def timestamps(self, on: bool) -> None:
        """Start times for the flows created from now on."""
        self.router.sysctl("net.netfilter.nf_conntrack_timestamp", int(on))

    def add_mark(self, protocol: str, port: int, mark: int) -> None:
        """Mark the flows to a port (``protocol`` tcp, udp or sctp)."""
        self.router.nft(f"add rule inet lab marks {protocol} dport {port} ct mark set {mark}")

    def add_zone(self, protocol: str, port: int, zone: int, direction: str = "") -> None:
        """Put the flows to a port into a zone, with ``direction`` original or reply for that tuple.

        Meant for IPv6 and for what isn't masqueraded too: answers carry the port as their source,
        and get the zone.
        """
        for side in ("dport", "sport"):
            self.router.nft(f"add rule inet lab zones {protocol} {side} {port} ct {direction} zone set {zone}")

    # traffic

    def echo_server(self, port: int, address: str = SERVER, namespace: Namespace | None = None) -> Agent:
        """A TCP and UDP echo server, ready when this returns; on the server by default."""
        agent = (namespace or self.server).agent("echo", address, port)
        agent.expect("ready")
        return agent

    def tcp_connect(self, port: int, address: str = SERVER, namespace: Namespace | None = None) -> TcpConnection:
        """An established TCP connection, from the client unless told otherwise."""
        return TcpConnection((namespace or self.client).agent("connect", address, port))

    def udp_exchange(self, port: int, address: str = SERVER, flows: int = 1, rounds: int = 1) -> list[int]:
        """``flows`` UDP flows, ``rounds`` datagrams each, all answered: their source ports."""
        return self._once("udp", address, port, flows, rounds)

    def udp_unanswered(self, port: int, address: str = BLACK_HOLE, flows: int = 1) -> list[int]:
        """``flows`` UDP flows of one datagram that nobody answers: their source ports."""
        return self._once("udp", address, port, flows, 0)

    def half_open(self, port: int, address: str = BLACK_HOLE, flows: int = 1) -> list[int]:
        """``flows`` TCP SYNs into the black hole, SYN_SENT for 120 seconds: their source ports."""
        return self._once("syn", address, port, flows)

    def refused(self, port: int, address: str = SERVER) -> list[int]:
        """A TCP connection answered with RST, gone from the table at once: its source port."""
        return self._once("refused", address, port)

    def ping(self, address: str = SERVER, identifier: int = 77, count: int = 1) -> None:
        """``count`` answered ICMP or ICMPv6 echo requests, which are one flow."""
        self._once("ping", address, identifier, count)

    def _once(self, *arguments: object) -> list[int]:
        with self.client.agent(*arguments) as agent:
            return agent.expect("done")

    # looking

    def table(self) -> list[JsonFlow]:
        """The router's table, see :func:`conntrack_xml`."""
        return conntrack_xml(self.router)

    def wait_flow(self, **wanted: Any) -> JsonFlow:
        """Wait until the router has a flow with these fields and return it; see :func:`matches`."""

        def look() -> JsonFlow | None:
            return next((flow for flow in self.table() if matches(flow, wanted)), None)

        found = wait_for(look, what=f"a flow with {wanted}")
        assert found is not None
        return found


# --- the kernel's table ---------------------------------------------------------------------------


def matches(flow: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a flow has all that is wanted; of a dictionary inside, again the part that is wanted.

    >>> matches({"mark": 1, "original": {"dport": 80, "sport": 9}}, {"original": {"dport": 80}})
    True
    >>> matches({"protocol": "tcp"}, {"mark": 1})
    False
    """

    def same(have: Any, want: Any) -> bool:
        return matches(have, want) if isinstance(have, Mapping) and isinstance(want, Mapping) else bool(have == want)

    return all(key in flow and same(flow[key], want) for key, want in wanted.items())


def conntrack_xml(namespace: Namespace, *, start: bool = False, labels: bool = False) -> list[JsonFlow]:
    """``conntrack -L -o xml`` in the shape of the JSON contract; keys without value are left out.

    ``start`` asks for the start time as well (-o ktimestamp), ``labels`` for the labels; the id is
    always there.

    What this XML can't say (libnetfilter_conntrack 1.0.9; the same holds in the sources up to
    1.1.1):

    * ICMP type, code and id: such tuples have addresses only;
    * the state of anything but TCP: it prints the state's number with the names of TCP (an
      ESTABLISHED SCTP association is "FIN_WAIT"), so it is left out here;
    * OFFLOAD and HW_OFFLOAD; UNREPLIED and ASSURED can both be there, as in the text;
    * TCP's SYN_SENT2 is printed LISTEN;
    * an empty table: it prints nothing at all, not even the root element.

    ``comparable`` takes the same away from a record of the text, for a comparison.
    """
    options = ["xml", "id", *(["ktimestamp"] if start else []), *(["labels"] if labels else [])]
    return flows_of_xml(namespace.run(["conntrack", "-L", "-o", ",".join(options)]).stdout)


def flows_of_xml(text: str) -> list[JsonFlow]:
    """What ``conntrack -L -o xml`` printed, in the shape of the JSON contract."""
    return [_flow(element) for element in ET.fromstring(text).iter("flow")] if text.strip() else []


def comparable(record: Mapping[str, Any]) -> JsonFlow:
    """A record of the text without what XML can't say and what moves (timeout, use, delta_time).

    >>> comparable({"protocol": "icmp", "timeout": 9, "original": {"src": "a", "type": 8}})
    {'protocol': 'icmp', 'original': {'src': 'a'}}
    """
    unsaid = {
        "node",
        "time",
        "event",
        "userspace",
        "nat",
        "direction",
        "remote",
        "inferred",
        "timeout",
        "use",
        "delta_time",
    }
    if record.get("protocol") != "tcp":
        unsaid.add("state")
    flow = {key: value for key, value in record.items() if key not in unsaid}
    for side in ("original", "reply"):
        if side in flow:
            flow[side] = {key: flow[side][key] for key in flow[side] if key not in {"type", "code", "icmp_id"}}
    if "flags" in flow:
        flow["flags"] = [flag for flag in flow["flags"] if not flag.endswith("OFFLOAD")]
    return flow


def _number(element: ET.Element, path: str, into: JsonFlow, key: str) -> None:
    if text := element.findtext(path):
        into[key] = int(text)


def _flow(element: ET.Element) -> JsonFlow:
    meta = {part.get("direction"): part for part in element.iter("meta")}
    original, rest = meta["original"], meta["independent"]
    layer3, layer4 = original.find("layer3"), original.find("layer4")
    assert layer3 is not None
    assert layer4 is not None
    flow: JsonFlow = {
        "family": layer3.get("protoname"),
        "protocol": layer4.get("protoname"),
        "protocol_number": int(layer4.get("protonum", "")),
        "flags": [name.upper() for name in ("unreplied", "assured") if rest.find(name) is not None],
        "original": _direction(original, "zone_orig"),
        "reply": _direction(meta["reply"], "zone_reply"),
    }
    if flow["protocol"] == "tcp" and (state := rest.findtext("state")):
        flow["state"] = "SYN_SENT2" if state == "LISTEN" else state
    _independent(rest, flow)
    return flow


def _direction(element: ET.Element, zone: str) -> JsonFlow:
    side: JsonFlow = {key: element.findtext(f"layer3/{key}") for key in ("src", "dst")}
    for key in ("sport", "dport"):
        _number(element, f"layer4/{key}", side, key)
    for key in ("srckey", "dstkey"):
        if (text := element.findtext(f"layer4/{key}")) is not None:
            side[key] = text
    for key in ("packets", "bytes"):
        _number(element, f"counters/{key}", side, key)
    _number(element, "zone", side, zone)
    return side


def _independent(element: ET.Element, flow: JsonFlow) -> None:
    for key in ("timeout", "mark", "zone", "use", "id"):
        _number(element, key, flow, key)
    _number(element, "deltatime", flow, "delta_time")
    for key in ("secctx", "helper"):
        if text := element.findtext(key):
            flow[key] = text
    if labels := [label.text for label in element.iter("label")]:
        flow["labels"] = labels
    for key in ("start", "stop"):
        if nanoseconds := element.findtext(f"timestamp/{key}"):
            flow[key] = time.ctime(int(nanoseconds) // 10**9)


def listeners(namespace: Namespace) -> int:
    """How many sockets there listen to conntrack events: wait for one before making flows.

    With nf_conntrack_events=2, the default, a flow created before that never sends an event.
    """
    rows = namespace.run(["cat", "/proc/net/netlink"]).stdout.splitlines()[1:]
    # sk Eth Pid Groups …: protocol 12 is netfilter; groups 1 to 3 are NEW, UPDATE and DESTROY.
    return sum(row.split()[1] == "12" and int(row.split()[3], 16) & 7 != 0 for row in rows)


# --- entries by hand ------------------------------------------------------------------------------

# The order counts: conntrack knows --sport only after -p.
_OPTIONS = {
    "protocol": "-p",
    "src": "-s",
    "dst": "-d",
    "timeout": "-t",
    "state": "--state",
    "sport": "--sport",
    "dport": "--dport",
    "srckey": "--srckey",
    "dstkey": "--dstkey",
    "type": "--{icmp}-type",
    "code": "--{icmp}-code",
    "icmp_id": "--{icmp}-id",
    "flags": "-u",
    "mark": "-m",
    "zone": "-w",
    "zone_orig": "--orig-zone",
    "zone_reply": "--reply-zone",
    "src_nat": "-n",
    "dst_nat": "-g",
}


def insert_arguments(**fields: object) -> list[str]:
    """The words after ``conntrack -I``, from fields named as in the JSON contract.

    ``protocol`` is a name or a number (50 and 253 are "unknown" to conntrack), default tcp;
    ``timeout`` 60 seconds; a TCP or SCTP flow is ESTABLISHED. ``flags`` are SEEN_REPLY and ASSURED:
    what lacks SEEN_REPLY is UNREPLIED. ``src_nat`` and ``dst_nat`` are ADDRESS or ADDRESS:PORT,
    IPv6 as [ADDRESS]:PORT. ICMP needs type, code, icmp_id; GRE takes srckey and dstkey; zone, or
    zone_orig and zone_reply.

    >>> insert_arguments(protocol="udp", src="192.0.2.1", dst="192.0.2.2", sport=1, dport=2)
    ['-p', 'udp', '-s', '192.0.2.1', '-d', '192.0.2.2', '-t', '60', '--sport', '1', '--dport', '2']
    """
    if unknown := fields.keys() - _OPTIONS.keys():
        raise LabError(f"conntrack -I has no {', '.join(sorted(unknown))}")
    protocol = str(fields.get("protocol", "tcp"))
    fields = {"protocol": protocol, "timeout": 60, **fields}
    if protocol in ("tcp", "sctp"):
        fields.setdefault("state", "ESTABLISHED")
    words = []
    for field, option in _OPTIONS.items():
        value = fields.get(field)
        if value is not None and value != ():
            text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
            words += [option.format(icmp=protocol), text]
    # The kernel refuses an SCTP entry without verification tags.
    return [*words, "--orig-vtag", "1", "--reply-vtag", "2"] if protocol == "sctp" else words


def insert(namespace: Namespace, **fields: object) -> None:
    """Put an entry into the table, which sends nothing; fields as for :func:`insert_arguments`."""
    namespace.run(["conntrack", "-I", *insert_arguments(**fields)])


def load(namespace: Namespace, lines: Iterable[str]) -> None:
    """Give many commands to ``conntrack -R``: 100,000 in half a second.

    A line is such as ``"-I " + " ".join(insert_arguments(…))``.
    For -I, -A and -D only; -U changes nothing that way in 1.4.7.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".conntrack") as file:
        file.writelines(line.rstrip("\n") + "\n" for line in lines)
        file.flush()
        namespace.run(["conntrack", "-R", file.name])


# --- the conntrack processes of a program ----------------------------------------------------------------------------


def conntrack_children(pid: int, option: str) -> list[int]:
    """The process's running children that are ``conntrack`` with that option (or are about to become it)."""
    found = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            for child in (thread / "children").read_text().split():
                words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
                if b"conntrack" in words and option.encode() in words:
                    found.append(int(child))
    return found


def process_state(pid: int) -> str:
    """The letter of /proc/PID/stat (R, S, T stopped, Z ended and not reaped), "" when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return ""


def is_in_state(pid: int, letter: str) -> bool:
    return process_state(pid) == letter


def has_written(pid: int) -> bool:
    """Has it written anything yet?"""
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    except OSError:
        return False
    return any(line.startswith("wchar:") and int(line.split()[1]) > 0 for line in lines)


def _event_socket(pid: int) -> socket.socket | None:
    """A copy of its socket for events, to be closed; None where it has none (yet). OSError where that is not allowed.

    Not by /proc/net/netlink: that file now and then leaves out a row while others come and go.
    """
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    try:
        fds = sorted(int(fd) for fd in os.listdir(f"/proc/{pid}/fd"))
        copies = (ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, handle, fd, 0) for fd in fds)
        for copy in copies:
            if copy < 0:
                if ctypes.get_errno() == errno.EPERM:
                    raise PermissionError(errno.EPERM, "pidfd_getfd")
                continue  # closed meanwhile
            try:
                found = socket.socket(fileno=copy)
            except OSError:  # a file
                os.close(copy)
                continue
            if (found.family, found.proto) == (socket.AF_NETLINK, NETFILTER) and found.getsockname()[
                1
            ] & CONNTRACK_GROUPS:
                return found
            found.close()
    except (FileNotFoundError, ProcessLookupError):
        pass  # it has ended
    finally:
        os.close(handle)
    return None


def _memory(pid: int) -> tuple[int, ...]:
    """What the kernel says of its socket for events: SK_MEMINFO_* of linux/sock_diag.h; zeros where it has none."""
    found = _event_socket(pid)
    if found is None:
        return (0,) * 9
    with found:
        return struct.unpack("9I", found.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36))


def listens_to_events(pid: int) -> bool:
    found = _event_socket(pid)
    if found is not None:
        found.close()
    return found is not None


def waiting_event_bytes(pid: int) -> int:
    """What the kernel holds for it in its socket for events, in bytes of memory."""
    return _memory(pid)[0]


def unread_output(pid: int) -> int:
    """Bytes that it has written into its standard output and error, pipes, and that nobody has read yet."""
    total = 0
    for fd in (1, 2):
        try:
            pipe = os.open(f"/proc/{pid}/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return 0  # it is gone
        try:
            total += struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))[0]
        finally:
            os.close(pipe)
    return total


def dropped_events(pid: int) -> int:
    """Events that the kernel could not give it."""
    return _memory(pid)[8]


def receive_buffer(pid: int) -> int:
    """What its socket for events may hold, in bytes of memory; 0 before it listens."""
    return _memory(pid)[1]


def set_receive_buffer(pid: int, size: int) -> None:
    """Give its socket for events another buffer.

    net.core.rmem_default would do, too, but it is one number for the whole machine, and other tests run there.
    """
    found = _event_socket(pid)
    if found is None:
        raise ProcessLookupError(pid, "does not listen to events")
    with found:
        found.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, size)


def send_signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _turn(live: LiveSource) -> list[Item]:
    """What has come after a moment's wait."""
    poll = select.poll()
    for fd in live.fds():
        poll.register(fd, select.POLLIN)
    due = live.deadline()
    poll.poll(200 if due is None else max(0.0, min(0.2, due - time.monotonic())) * 1000)
    return list(live.poll())


def items_until(live: LiveSource, wanted: Callable[[list[Item]], bool]) -> list[Item]:
    """What a source brought until that is enough."""
    found: list[Item] = []
    deadline = time.monotonic() + PATIENCE
    while not wanted(found):
        assert time.monotonic() < deadline, found
        found += _turn(live)
    return found
