"""A NAT router of the kernel, and collectors of other people: all hear the same, and it is what the kernel counted."""

from __future__ import annotations

import re
import shlex
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ipfix import domain_of
from support.ipfix import (
    Connected,
    Decoder,
    Listening,
    Record,
    Running,
    Said,
    by_sequence,
    flows_of_netflow,
    flows_of_nfdump,
    free_port,
    json_lines,
    needs_collectors,
    nfdump,
    records_of_nfdump,
)
from support.kernel import Lab, Namespace, insert, kernel_mark, listeners
from support.program import OnScreen, Piped, changed, cpu_used, stays_idle
from support.terminal import ROOT
from support.waiting import wait_for

pytestmark = [kernel_mark(), needs_collectors("nfcapd", "nfdump", "nfacctd")]
RECIPES = (ROOT / "contrib" / "ipfix" / "README.md").read_text(encoding="utf-8")


def recipe(program: str) -> list[str]:
    """The words of the command in contrib/ipfix that starts a program."""
    found = re.search(rf"^    ({program} .*)$", RECIPES, re.M)
    assert found
    return shlex.split(found[1])


def nfcapd(folder: Path, port: int) -> Running:
    folder.mkdir(exist_ok=True)
    changes = {"/var/cache/nfdump": str(folder), "4739": str(port)}
    return Running([changes.get(word, word) for word in recipe("nfcapd")], port, folder.with_suffix(".said"))


def nfacctd(folder: Path, port: int) -> Running:
    folder.mkdir()
    text = (ROOT / "contrib" / "ipfix" / "nfacctd.conf").read_text(encoding="utf-8")
    for before, after in (("4740", str(port)), ("/var/lib/pmacct", str(folder)), ("time: 60", "time: 1")):
        assert text.count(before) == 1
        text = text.replace(before, after)
    (folder / "nfacctd.conf").write_text(text)
    return Running([*recipe("nfacctd")[:2], str(folder / "nfacctd.conf")], port, folder / "said")


def of_program(records: list[Record]) -> list[Said]:
    """Flows as the decoder from the RFC has them."""
    return sorted(
        (
            *(str(record.get(8) or record.get(27)), str(record.get(12) or record.get(28))),
            *(int(record.get(7, 0)), int(record.get(11, 0)), int(record[4]), int(record[1])),
        )
        for record in records
        if 230 not in record
    )


def of_nfacctd(lines: list[dict[str, object]]) -> list[Said]:
    numbers = {"tcp": 6, "udp": 17, "icmp": 1, "ipv6-icmp": 58}
    return sorted(
        (
            *(str(its["ip_src"]), str(its["ip_dst"]), int(str(its["port_src"])), int(str(its["port_dst"]))),
            *(numbers[str(its["ip_proto"])], int(str(its["bytes"]))),
        )
        for its in lines
        if its["nat_event"] == 0
    )


def of_kernel(lab: Lab) -> list[Said]:
    """Both directions of all flows in the router's table, as they are counted now."""
    numbers = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58}
    return sorted(
        (
            *(side["src"], side["dst"], side.get("sport", 0), side.get("dport", 0)),
            *(numbers[flow["protocol"]], side["bytes"]),
        )
        for flow in lab.table()
        for side in (flow["original"], flow["reply"])
    )


@contextmanager
def traffic(lab: Lab) -> Iterator[int]:
    """Flows of many kinds; the source port of a masqueraded TCP connection that has been closed."""
    with (
        lab.echo_server(5001),
        lab.echo_server(5002, lab.SERVER6),
        lab.echo_server(Lab.FORWARDED_TO, lab.CLIENT, lab.client),
    ):
        with lab.tcp_connect(5001) as connection:
            port = connection.port
            connection.exchange(20_000)
            connection.close()
        lab.udp_exchange(5001, flows=3, rounds=4)
        lab.udp_exchange(5002, lab.SERVER6, flows=2, rounds=2)
        lab.udp_unanswered(9, flows=2)
        lab.half_open(9)
        with lab.tcp_connect(Lab.FORWARDED_PORT, lab.WAN, lab.server) as forwarded:
            forwarded.exchange(3000)
            lab.ping(count=2)
            lab.ping(lab.SERVER6)
            yield port


def exporting(tmp_path: Path, lab: Lab, *words: object, mode: tuple[str, ...] = ("--headless",)) -> Piped:
    """The program, which tries a collector again after 0.1 s."""
    program = changed("import collectors; collectors.TRY_AGAIN = (0.1,)")
    return Piped(tmp_path, "--no-config", "--via", lab.router.via, *words, mode=mode, program=program)


def wait_till_it_hears(running: Piped, lab: Lab) -> None:
    running.wait(lambda: listeners(lab.router))


def test_all_collectors_hear_the_same_and_the_kernel_counted_it(tmp_path: Path) -> None:
    ports = [free_port() for _ in range(2)]
    with (
        Lab() as lab,
        Listening() as own,
        nfcapd(tmp_path / "nfcapd", ports[0]) as one,
        nfacctd(tmp_path / "nfacctd", ports[1]),
        Connected() as connected,
    ):
        to = [f"127.0.0.1:{port}" for port in (own.port, *ports)] + [f"127.0.0.1:{connected.port}/tcp"]
        words = [word for name in to for word in ("--ipfix", name)]
        with exporting(tmp_path, lab, *words, "--ipfix-nat-event", "legacy") as running:
            wait_till_it_hears(running, lab)
            with traffic(lab) as port:
                kernel = of_kernel(lab)
                lab.router.run(["conntrack", "-F"])
            own.wait_for(len(kernel))
            wait_for(lambda: of_program(own.hear()) == kernel, lambda: (of_program(own.hear()), kernel))
            wait_for(lambda: of_program(connected.hear()) == kernel, lambda: connected.decoder.records)
            print_file = tmp_path / "nfacctd" / "flows.json"
            wait_for(lambda: of_nfacctd(json_lines(print_file)) == kernel)
            running.leave()
        one.finish()
        assert flows_of_nfdump(tmp_path / "nfcapd") == flows_of_netflow(own.messages) == kernel
        assert len(kernel) >= 20
        assert by_sequence(own.decoder) == by_sequence(connected.decoder) == 0
        assert own.longest() <= 1400
        events = Counter(record[230] for record in own.hear() if 230 in record)
        assert events[1] == events[2] == Counter(its["nat_event"] for its in json_lines(print_file))[1] > 5
        the_inside_host_is_named(tmp_path / "nfcapd", port)


class ByExporter(Listening):
    """A UDP collector that keeps apart who sends."""

    def __init__(self) -> None:
        super().__init__()
        self.decoders: dict[int, Decoder] = {}  # by port

    def __enter__(self) -> ByExporter:
        return self

    def hear(self) -> list[Record]:
        with suppress(BlockingIOError):
            while True:
                message, (_, port) = self.socket.recvfrom(65_536)
                self.decoders.setdefault(port, Decoder()).take(message)
        return [record for decoder in self.decoders.values() for record in decoder.records]


def test_three_routers_send_each_in_a_domain_of_its_own(tmp_path: Path) -> None:
    """The same flow on all of them is told by each; a collector that counts sequence numbers lacks nothing."""
    port = free_port()
    with (
        Namespace("a") as a,
        Namespace("b") as b,
        Namespace("c") as c,
        ByExporter() as own,
        nfcapd(tmp_path / "nfcapd", port) as one,
    ):
        nodes = {"r1": a, "r2": b, "r3": c}
        for namespace in nodes.values():
            namespace.sysctl("net.netfilter.nf_conntrack_acct", 1)
        ways = [word for name, its in nodes.items() for word in ("--via", f"{name}={its.via}")]
        to = [word for its in (own.port, port) for word in ("--ipfix", f"127.0.0.1:{its}")]
        with Piped(tmp_path, "--no-config", *ways, *to, mode=("--headless",)) as running:
            running.wait(lambda: all(map(listeners, nodes.values())))
            for number, namespace in enumerate(nodes.values(), 1):
                for sport in range(1, 2 + number):
                    insert(
                        namespace,
                        src="10.0.0.5",
                        dst="198.51.100.7",
                        sport=sport,
                        dport=443,
                        src_nat=f"203.0.113.1:{sport}",
                    )
            own.wait_for(2 + 3 + 4)
            for namespace in nodes.values():
                namespace.run(["conntrack", "-D", "-s", "10.0.0.5"])
            running.leave()  # what the kernel has told by then is sent
        one.finish()
        own.hear()
        told = {}
        for decoder in own.decoders.values():
            assert by_sequence(decoder) == 0
            (domain,) = decoder.domains
            told[domain] = Counter(record[230] for record in decoder.records if 230 in record)
    assert told == {domain_of(name): {4: count, 5: count} for count, name in enumerate(nodes, 2)}
    said = one.said.read_text()
    assert said.count("New ipfix exporter") == 3, said
    assert "Sequence Errors: 0," in said, said
    events = Counter(
        str(record["nat_event"]) for record in records_of_nfdump(tmp_path / "nfcapd") if "nat_event" in record
    )
    assert events.total() == 2 * (2 + 3 + 4)


def the_inside_host_is_named(folder: Path, port: int) -> None:
    """By the command of contrib/ipfix."""
    words = recipe("nfdump -R /var/cache/nfdump -o nel")[3:]
    assert words == ["-o", "nel", "src nport 40824"]
    lines = nfdump(folder, *words[:2], words[2].replace("40824", str(port))).splitlines()
    named = [re.split(r"\s+", line) for line in lines if f"{Lab.CLIENT}:{port}" in line]
    assert {line[2] for line in named} >= {"ADD", "DELETE"}
    assert all(f"{Lab.WAN}:{port}" in line for line in named)


def test_a_collector_that_is_ended_and_started_again(tmp_path: Path) -> None:
    """What was sent when it had just gone is lost, and said with its number; all else is there, and can be read."""
    port = free_port()

    def news(number: int) -> None:
        """So many flows begin, and their events are on their way."""
        before = len(own.hear())
        lab.udp_exchange(5001, flows=number)
        own.wait_for(before + number)

    with Lab() as lab, lab.echo_server(5001), Listening() as own:
        words = ("--ipfix", f"127.0.0.1:{port}", "--ipfix", f"127.0.0.1:{own.port}", "--ipfix-only", "nat")
        first = nfcapd(tmp_path / "one", port)
        with exporting(tmp_path, lab, *words, mode=("--json",)) as running:
            wait_till_it_hears(running, lab)
            news(5)
            first.finish()
            news(7)
            running.wait(f"IPFIX to 127.0.0.1:{port}: Connection refused, retrying; 7 records lost; try: ss -lnu")
            news(3)
            stays_idle(running)
            with nfcapd(tmp_path / "two", port) as second:
                news(4)
                running.leave()  # what waits is sent first
                second.finish()
        assert f"IPFIX to 127.0.0.1:{port}: 12 records sent, 7 lost" in running.words()
        assert len(records_of_nfdump(tmp_path / "one")) == 5
        found = records_of_nfdump(tmp_path / "two")
        assert len(found) == 7
        assert {its["src4_addr"] for its in found} == {Lab.CLIENT}
        assert {its["src4_xlt_ip"] for its in found} == {Lab.WAN}


def test_a_collector_that_stands_still(tmp_path: Path) -> None:
    """Reading goes on, and what its socket holds comes when it goes on, too."""
    port = free_port()
    with Lab() as lab, lab.echo_server(5001), Connected() as connected, nfcapd(tmp_path / "nfcapd", port) as udp:
        words = ("--ipfix", f"127.0.0.1:{port}", "--ipfix", f"127.0.0.1:{connected.port}/tcp")
        with exporting(tmp_path, lab, *words, mode=("--json",)) as running:
            wait_till_it_hears(running, lab)
            wait_for(connected.is_connected)
            udp.send(signal.SIGSTOP)
            try:
                told = running.lines()
                for _ in range(3):
                    lab.udp_exchange(5001, flows=100)
                wanted = told + len(lab.table())  # each flow begins, and is answered
                running.wait(lambda: running.lines() >= wanted)
                stays_idle(running)
            finally:
                udp.send(signal.SIGCONT)
            records = 4 * len(lab.table())  # a source port may come again
            lab.router.run(["conntrack", "-F"])
            wait_for(lambda: len(connected.hear()) == records, lambda: len(connected.decoder.records))
            running.leave()
        udp.finish()
        assert len(records_of_nfdump(tmp_path / "nfcapd")) == records > 1000
        assert "Sequence Errors: 0" in udp.said.read_text()
        assert "lost" not in running.words()


def test_what_a_collector_does_not_take_is_said_with_its_number(tmp_path: Path) -> None:
    """It reads nothing: its buffers fill, then the queue, and reading the kernel's events goes on all the time."""
    flows = 4000
    narrow = "collectors._prepare = lambda its, tcp: its.setsockopt(1, 7, 4096)"  # SO_SNDBUF: else it takes 4 MB
    program = changed(f"import collectors; collectors.MOST_QUEUED = 2000; {narrow}")
    with Lab() as lab, Connected(room=4096) as connected:
        lab.router.sysctl("net.netfilter.nf_conntrack_udp_timeout", 600)
        to = ("--ipfix", f"127.0.0.1:{connected.port}/tcp")
        words = ("--no-config", "--via", lab.router.via, *to)
        with Piped(tmp_path, *words, program=program) as running:
            wait_till_it_hears(running, lab)
            wait_for(connected.is_connected)
            with lab.client.agent("spray", 7777, flows) as agent:
                agent.expect("done")
            lab.router.run(["conntrack", "-F"])
            running.wait(lambda: running.out.read_bytes().count(b'"event":"destroy"') == flows)
            running.wait(f"IPFIX to 127.0.0.1:{connected.port}/tcp: ")
            wait_for(lambda: not connected.hear() or quiet(running, connected))
            lab.ping()  # by the numbers of what comes next the collector sees what it lacks
            wait_for(lambda: any(record[4] == 1 for record in connected.hear()))
            running.leave()
            connected.hear()
        number = re.search(r"/tcp: (\d+) records sent, (\d+) lost$", running.words(), re.M)
        assert number, running.words()
        sent, lost = map(int, number.groups())
        assert lost == by_sequence(connected.decoder) > 0
        assert sent == len(connected.decoder.records)


def quiet(running: Piped, connected: Connected) -> bool:
    """Does nothing come for a moment in which the program could send?"""
    before = len(connected.decoder.records)
    cpu_used(running, seconds=1.2)
    return len(connected.hear()) == before > 0


def test_the_screen_says_that_a_collector_is_gone(tmp_path: Path) -> None:
    port = free_port()
    with Lab() as lab, lab.echo_server(5001):
        words = ("--no-config", "--via", lab.router.via, "--ipfix", f"127.0.0.1:{port}")
        with OnScreen(tmp_path, *words, size=(140, 30)) as screen:
            wait_for(lambda: listeners(lab.router), "a listener", screen)
            lab.udp_exchange(5001)
            wait_for(
                lambda: f"IPFIX to 127.0.0.1:{port}: Connection refused" in screen.text, lambda: screen.text, screen
            )
            screen.type("H")
            wait_for(lambda: "records sent, none lost" in screen.text, lambda: screen.text, screen)
            screen.leave()
            # Its NAT event; and its two flow records, where a listing had counted it.
            assert re.search(rf"IPFIX to 127\.0\.0\.1:{port}: 0 records sent, [13] lost", screen.words())
