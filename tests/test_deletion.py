"""Deleting on the real kernel: exactly what was shown goes, and all that looks like it stays."""

from __future__ import annotations

import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import deletion as deleting
from deletion import MOST, Deletion, Phase, Refusal, Selection, _Target, selection
from flows import Flow, FlowTable, id_in
from intake import NOT_FOUND, NOT_PERMITTED
from parse import split_lines
from source import Command
from support.kernel import Lab, Namespace, insert, insert_arguments, load, needs_kernel
from support.strategies import any_flow_lines
from support.tables import Monitor, event, feed, line, listing
from support.waiting import PATIENCE, wait_for

V4 = {"src": "192.0.2.1", "dst": "192.0.2.2"}
V6 = {"src": "2001:db8::1", "dst": "2001:db8::2"}
NOBODY = ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"]


@pytest.fixture
def ns() -> Iterator[Namespace]:
    with Namespace() as made:
        yield made


def go(deletion: Deletion, phase: Phase = Phase.DONE) -> None:
    """As the loop does, until it has come so far (or is over)."""
    until = time.monotonic() + PATIENCE
    while deletion.phase not in (phase, Phase.DONE):
        assert time.monotonic() < until, deletion.words()
        ends = min(deletion.deadline() or until, until)
        select.select(deletion.fds(), [], [], max(0.0, ends - time.monotonic()))
        deletion.poll()


def entries(ns: Namespace) -> dict[int, str]:
    """The kernel's table: each entry's line without its timeout, by id."""
    lines = ns.run(["conntrack", "-L", "-o", "extended,id"]).stdout.splitlines()
    found = {int(text.rpartition("id=")[2]): re.sub(r"^((?:\S+ +){4})\d+ ", r"\1", text) for text in lines}
    assert len(found) == len(lines)
    return found


def flows(ns: Namespace) -> list[Flow]:
    """The program's table of it."""
    table = FlowTable()
    listing(table, [ns.run(["conntrack", "-L", "-o", "extended,id"]).stdout])
    return list(table.live.values())


def id_of(flow: Flow) -> int:
    number = id_in(flow.tail)
    assert number is not None
    return number


def deletes(ns: Namespace, wanted: list[Flow], answer: str = "") -> Deletion:
    """Delete them; exactly they go."""
    before = entries(ns)
    deletion = Deletion(Command(ns.prefix), wanted)
    go(deletion, Phase.ASKED)
    words = deletion.words()
    assert entries(ns) == before  # to ask changes nothing
    assert deletion.confirm(answer or words.answer), words
    go(deletion)
    gone = {id_of(flow) for flow in wanted}
    assert entries(ns) == {number: text for number, text in before.items() if number not in gone}
    assert deletion.words().text == f"{len(wanted)} deleted"
    return deletion


CROWD: list[dict[str, Any]] = [
    *({"protocol": name, "sport": 1, "dport": 80, **ends} for name in ("tcp", "udp", "sctp") for ends in (V4, V6)),
    {"protocol": "udplite", "sport": 1, "dport": 80, **V4},
    *({"sport": 1, "dport": 80, "zone": zone, **V4} for zone in (1, 3, 65535)),
    {"sport": 1, "dport": 80, "zone": 3, **V6},
    {"sport": 1, "dport": 81, **V4},
    {"sport": 80, "dport": 1, "src": V4["dst"], "dst": "192.0.2.9"},
    {"sport": 2, "dport": 80, "mark": 7, **V4},
    {"sport": 3, "dport": 80, "src_nat": "203.0.113.1:4000", **V4},
    {"sport": 3, "dport": 80, "src_nat": "203.0.113.1:4000", "zone": 3, **V4},
    {"sport": 4, "dport": 80, "src_nat": "203.0.113.1:4001", **V4},
    {"sport": 5, "dport": 80, "dst_nat": "198.51.100.7:8080", **V4},
    {"sport": 5, "dport": 81, "dst_nat": "198.51.100.7:8080", "src_nat": "203.0.113.1:4000", **V4},
    {"protocol": "udp", "sport": 5, "dport": 80, "dst_nat": "[2001:db8::7]:8080", **V6},
    *({"protocol": "icmp", "type": 8, "code": 0, "icmp_id": number, **V4} for number in (0, 7, 8)),
    {"protocol": "icmp", "type": 13, "code": 0, "icmp_id": 7, **V4},
    {"protocol": "icmp", "type": 8, "code": 0, "icmp_id": 7, "zone": 3, **V4},
    {"protocol": "icmpv6", "type": 128, "code": 0, "icmp_id": 7, **V6},
    *({"protocol": "gre", "srckey": key, "dstkey": key, **V4} for key in ("0x0", "0x1", "0xffff")),
    *({"protocol": number, **ends} for number in ("0", "50", "253", "255") for ends in (V4, V6)),
]


@needs_kernel
def test_each_of_a_crowd_goes_alone(ns: Namespace) -> None:
    """Everything that looks alike: one tuple in many zones, families, protocols, NAT, ICMP, GRE, nameless protocols."""
    load(ns, ("-I " + " ".join(insert_arguments(**{"timeout": 600, **fields})) for fields in CROWD))
    crowd = flows(ns)
    assert len(crowd) == len(CROWD)
    for flow in crowd:
        deletion = deletes(ns, [flow], "y")
        assert f"--id={id_of(flow)}" in deletion.words().command
    assert entries(ns) == {}


@needs_kernel
def test_one_tuple_in_the_default_zone_and_in_direction_zones() -> None:
    """The answers carry other tuples, or the kernel would not have them side by side."""
    with Lab() as lab:
        lab.add_zone("udp", 5400, 7, "original")
        lab.add_zone("udp", 5500, 8, "reply")
        with lab.echo_server(5400, Lab.SERVER6), lab.echo_server(5500, Lab.SERVER6):
            ports = {port: lab.udp_exchange(port, Lab.SERVER6)[0] for port in (5400, 5500)}
        same: dict[str, object] = {"protocol": "udp", "src": Lab.CLIENT6, "dst": Lab.SERVER6, "timeout": 600}
        nat = "[2001:db8:2::99]:9"
        insert(lab.router, **same, sport=ports[5400], dport=5400, src_nat=nat)
        insert(lab.router, **same, sport=ports[5400], dport=5400, zone=9, src_nat=nat)
        udp = [flow for flow in flows(lab.router) if flow.kind.protocol == "udp"]
        assert sorted(flow.key.partition(b"|")[2] for flow in udp) == [b"", b"zone-orig=7", b"zone-reply=8", b"zone=9"]
        for flow in udp:
            deletes(lab.router, [flow])


@needs_kernel
def test_flows_of_real_packets_with_nat() -> None:
    with Lab() as lab:
        server = lab.echo_server(Lab.FORWARDED_TO, Lab.CLIENT, lab.client)
        with (
            lab.echo_server(5001),
            lab.tcp_connect(5001),
            server,
            lab.tcp_connect(Lab.FORWARDED_PORT, Lab.WAN, lab.server),
        ):
            lab.ping(identifier=99)
            lab.ping(Lab.SERVER6, identifier=99)
            lab.udp_exchange(5001, flows=3)
            lab.udp_unanswered(9)
            mine = [flow for flow in flows(lab.router) if flow.kind.protocol != "icmpv6" or b"id=99" in flow.key]
            assert len(mine) == 8
            for flow in mine:  # single, because a neighbour discovery may come or go meanwhile
                deletion = Deletion(Command(lab.router.prefix), [flow])
                go(deletion, Phase.ASKED)
                before = entries(lab.router).keys() & {id_of(one) for one in mine}
                assert deletion.confirm("y")
                go(deletion)
                assert entries(lab.router).keys() & {id_of(one) for one in mine} == before - {id_of(flow)}


@needs_kernel
def test_several_are_deleted_after_their_number_was_typed(ns: Namespace) -> None:
    load(ns, ("-I " + " ".join(insert_arguments(sport=port, dport=80, **V4)) for port in range(1, 10)))
    load(ns, ("-I " + " ".join(insert_arguments(protocol="udp", sport=port, dport=80, **V6)) for port in range(1, 10)))
    before = entries(ns)
    wanted = [flow for flow in flows(ns) if flow.ports()[0] in (b"1", b"2", b"3")]
    for no in ("", "y", "yes", "n", "5", "66"):
        deletion = Deletion(Command(ns.prefix), wanted)
        go(deletion, Phase.ASKED)
        assert deletion.words().text == "they match 6 entries, one each"
        assert deletion.words().command.endswith(" and 5 more like it")
        assert not deletion.confirm(no)
        assert deletion.words().text == "nothing was deleted"
        assert deletion.phase is Phase.DONE
    assert entries(ns) == before
    deletes(ns, wanted, "6")


@needs_kernel
def test_the_shown_command_is_the_one_that_does_it(ns: Namespace) -> None:
    insert(ns, sport=1, dport=80, src_nat="203.0.113.1:4000", **V4)
    (flow,) = flows(ns)
    deletion = Deletion(Command(ns.prefix), [flow])
    go(deletion, Phase.ASKED)
    command, text, answer, problem = deletion.words()
    assert (text, answer, problem) == ("it matches 1 entry", "y", None)
    assert command == (
        f"{ns.via} conntrack -D -o id -f ipv4 -p tcp -s 192.0.2.1 -d 192.0.2.2 --sport 1 --dport 80 -r 192.0.2.2"
        f" -q 203.0.113.1 --reply-port-src 80 --reply-port-dst 4000 -w 0 --id={id_of(flow)}"
    )
    ns.run(command.removeprefix(ns.via).split())
    assert entries(ns) == {}


def another(ns: Namespace, old: int, **fields: object) -> int:
    """Put the same tuple in again until it has another id: the kernel makes it of where the entry lies in memory."""
    for port in range(1000, 1400):
        insert(ns, **fields)
        (number,) = entries(ns).keys() - other(ns)
        if number != old:
            return number
        ns.run(["conntrack", "-D", "-p", "tcp", "--dport", "80"])
        insert(ns, sport=port, dport=9, **V4)
    raise AssertionError("always the same id")


def other(ns: Namespace) -> set[int]:
    return {number for number, text in entries(ns).items() if "dport=80 " not in text.partition("[UNREPLIED]")[0]}


@needs_kernel
@pytest.mark.parametrize("when", ["before the question", "after the question"])
def test_another_flow_that_took_the_tuple_stays(ns: Namespace, when: str) -> None:
    insert(ns, sport=1, dport=80, **V4)
    (flow,) = flows(ns)
    deletion = Deletion(Command(ns.prefix), [flow]) if when == "after the question" else None
    if deletion:
        go(deletion, Phase.ASKED)
        assert deletion.words().answer == "y"
    ns.run(["conntrack", "-D", "-p", "tcp", "--dport", "80"])
    number = another(ns, id_of(flow), sport=1, dport=80, **V4)
    if deletion is None:
        deletion = Deletion(Command(ns.prefix), [flow])
        go(deletion)
    else:
        assert deletion.confirm("y")
        go(deletion)
    assert deletion.words().text == "nothing was deleted: it had already ended"
    assert number in entries(ns)


@needs_kernel
def test_what_got_its_destroy_before_its_turn_is_left_alone(ns: Namespace) -> None:
    """Its tuple may be taken again, even under the same id; only the events tell."""
    table = FlowTable()
    insert(ns, sport=1, dport=80, **V4)
    text = ns.run(["conntrack", "-L", "-o", "extended,id"]).stdout
    listing(table, [text])
    (flow,) = table.live.values()
    deletion = Deletion(Command(ns.prefix), [flow])
    go(deletion, Phase.ASKED)
    feed(table, "[DESTROY] " + text, 101.0)
    assert deletion.confirm("y")
    go(deletion)
    assert deletion.words().text == "nothing was deleted: it had already ended"
    assert len(entries(ns)) == 1
    assert Deletion(Command(ns.prefix), [flow]).phase is Phase.DONE


@needs_kernel
def test_some_end_meanwhile(ns: Namespace) -> None:
    load(ns, ("-I " + " ".join(insert_arguments(sport=port, dport=80, **V4)) for port in range(1, 6)))
    wanted = flows(ns)
    ns.run(["conntrack", "-D", "-p", "tcp", "--sport", "1"])
    deletion = Deletion(Command(ns.prefix), wanted)
    go(deletion, Phase.ASKED)
    assert deletion.words().text == "they match 4 entries, one each; 1 had already ended"
    ns.run(["conntrack", "-D", "-p", "tcp", "--sport", "2"])
    assert deletion.confirm("4")
    go(deletion)
    assert deletion.words().text == "3 of 5 deleted, 2 had already ended"
    assert entries(ns) == {}


@needs_kernel
def test_stopped_in_the_middle(ns: Namespace) -> None:
    load(ns, ("-I " + " ".join(insert_arguments(sport=port, dport=80, **V4)) for port in range(1, 10)))
    deletion = Deletion(Command(ns.prefix), flows(ns))
    go(deletion, Phase.ASKED)
    assert deletion.confirm("9")
    while not deletion.deleted:
        select.select(deletion.fds(), [], [], PATIENCE)
        deletion.poll()
    deletion.stop()
    go(deletion)
    left = len(entries(ns))
    assert left >= 9 - 2 * deleting.AT_ONCE  # as many done in one poll, as many begun by it
    assert deletion.words().text == f"{9 - left} of 9 deleted, {left} not deleted"


@needs_kernel
def test_many_do_not_stall_and_are_all_found(ns: Namespace) -> None:
    """More than are read at a time, more than one read of the listing, in three zones."""
    names = [{"sport": port, "dport": 80, "zone": zone, **V4} for port in range(1, 1001) for zone in (0, 1, 2)]
    load(ns, ("-I " + " ".join(insert_arguments(**fields)) for fields in names))
    wanted = [flow for flow in flows(ns) if flow.zones() != [1]]
    deletion = Deletion(Command(ns.prefix), wanted)
    assert deletion.words().command.endswith(f" and {len(wanted) - 1:,} more like it")
    go(deletion, Phase.ASKED)
    assert deletion.words().text.startswith("they match 2,000 entries, one each; takes up to ")
    assert deletion.words().answer == "2000"
    deletion.stop()


# --- what fails -------------------------------------------------------------------------------------------------------


def program(tmp_path: Path, on_delete: str) -> str:
    """A conntrack whose -D does something else."""
    path = tmp_path / "conntrack"
    path.write_text(f'#!/bin/sh\ncase "$1" in -D) {on_delete};; esac\nexec conntrack "$@"\n')
    path.chmod(0o755)
    return str(path)


def failing(ns: Namespace, command: Command, number: int = 3) -> Deletion:
    load(ns, ("-I " + " ".join(insert_arguments(sport=port, dport=80, **V4)) for port in range(number)))
    deletion = Deletion(command, flows(ns))
    go(deletion, Phase.ASKED)
    if deletion.phase is Phase.ASKED:
        assert deletion.confirm(str(number))
        go(deletion)
    assert deletion.fds() == []
    return deletion


@needs_kernel
def test_not_permitted(ns: Namespace, tmp_path: Path) -> None:
    nobody = " ".join(NOBODY)
    for command in (
        Command([*ns.prefix, *NOBODY]),
        Command(ns.prefix, program(tmp_path, f'exec {nobody} conntrack "$@"')),
    ):
        words = failing(ns, command).words()
        assert words.text == "nothing was deleted"
        assert words.problem is not None
        assert words.problem.code == NOT_PERMITTED
        assert len(entries(ns)) == 3
        ns.run(["conntrack", "-F"])


@needs_kernel
def test_no_conntrack_no_namespace(ns: Namespace) -> None:
    for command, code in (
        (Command(ns.prefix, "/nosuch/conntrack"), NOT_FOUND),
        (Command((), "/nosuch/conntrack"), NOT_FOUND),
    ):
        words = failing(ns, command).words()
        assert words.text == "nothing was deleted"
        assert words.problem is not None
        assert words.problem.code == code
        ns.run(["conntrack", "-F"])
    gone = failing(ns, Command(["ip", "netns", "exec", "cm-nosuch"])).words()
    assert "there is no network namespace 'cm-nosuch'" in str(gone.problem)


@needs_kernel
@pytest.mark.parametrize("fault", ["kill -9 $$", "echo ouch >&2; exit 1", "exit 255"])
def test_a_child_that_breaks_off_leaves_it_unknown(ns: Namespace, tmp_path: Path, fault: str) -> None:
    """It is said, and the others did what they could."""
    once = f"if mkdir {tmp_path}/ran 2>/dev/null; then {fault}; fi"
    deletion = failing(ns, Command(ns.prefix, program(tmp_path, once)), 9)
    words = deletion.words()
    assert words.problem is not None
    left = len(entries(ns))
    assert words.text == f"{9 - left} of 9 deleted, {left - 1} not deleted, 1 unknown"
    assert left >= 9 - deleting.AT_ONCE


@needs_kernel
def test_a_conntrack_that_deletes_more_is_found_out_and_stopped(ns: Namespace, tmp_path: Path) -> None:
    command = Command(ns.prefix, program(tmp_path, "exec conntrack -D -o id -p tcp"))
    deletion = failing(ns, command, 9)
    assert "other entries: it ignores --id=" in str(deletion.words().problem)
    assert deletion.deleted == 9
    assert entries(ns) == {}


@needs_kernel
def test_an_entry_that_ends_under_conntrack_s_hands_was_not_deleted(ns: Namespace, tmp_path: Path) -> None:
    """conntrack lists it, somebody else is faster, and conntrack 1.4.7 calls that a failure."""
    said = "conntrack v1.4.7 (conntrack-tools): Operation failed: such conntrack doesn't exist"
    deletion = failing(ns, Command(ns.prefix, program(tmp_path, f'echo "{said}" >&2; exit 1')))
    assert deletion.words() == (deletion.words().command, "nothing was deleted: all 3 had already ended", "", None)


@needs_kernel
def test_dccp_on_a_kernel_without_its_tracker(ns: Namespace) -> None:
    """conntrack prints ports of 0 and would find nothing by them."""
    ns.nft("table inet t {\n chain o {\n type filter hook output priority 0;\n ct state new counter;\n }\n}\n")
    send = "import socket as s; s.socket(s.AF_INET, s.SOCK_RAW, 33).sendto(bytes(24), ('127.0.0.1', 0))"
    ns.run([sys.executable, "-c", send])
    (flow,) = flows(ns)
    if flow.ports() != (b"0", b"0"):
        pytest.skip("this kernel tracks DCCP")
    deletes(ns, [flow])


@needs_kernel
def test_a_child_that_says_nothing(ns: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("child.SILENCE", 2.0)
    words = failing(ns, Command(ns.prefix, program(tmp_path, "exec sleep 60"))).words()
    assert words.text == "0 of 3 deleted, 1 not deleted, 2 unknown"
    assert words.problem is not None
    assert words.problem.what.endswith(": no answer within 2 s")


@needs_kernel
@pytest.mark.parametrize("phase", [Phase.ASKING, Phase.DELETING])
def test_close_leaves_nothing_behind(ns: Namespace, tmp_path: Path, phase: Phase) -> None:
    insert(ns, sport=1, dport=80, **V4)
    wanted = flows(ns)
    stub = tmp_path / "conntrack"
    option = "-L" if phase is Phase.ASKING else "-D"
    stub.write_text(f'#!/bin/sh\n[ "$1" != {option} ] || exec sleep 60\nexec conntrack "$@"\n')
    stub.chmod(0o755)
    deletion = Deletion(Command(ns.prefix, str(stub)), wanted)
    if phase is Phase.DELETING:
        go(deletion, Phase.ASKED)
        assert deletion.confirm("yes")
    assert deletion.phase is phase
    pids = ["ip", "netns", "pids", ns.name]
    wait_for(lambda: subprocess.check_output(pids), what="a child")
    deletion.close()
    assert deletion.fds() == []
    assert subprocess.check_output(pids) == b""


# --- without a kernel -------------------------------------------------------------------------------------------------


def live(texts: Iterable[str]) -> list[Flow]:
    return list(Monitor(texts).table.live.values())


def test_too_many_are_refused_and_none_is_nothing() -> None:
    deletion = Deletion(Command((), "/nosuch"), live(line(n) for n in range(MOST + 1)))
    assert deletion.phase is Phase.DONE
    assert deletion.words().text == "nothing was deleted"
    assert str(deletion.words().problem).startswith("more than 10,000 flows")
    none = Deletion(Command((), "/nosuch"), [])
    assert (none.phase, none.words()) == (Phase.DONE, ("", "nothing was deleted", "", None))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda text: text.replace(" id=1\n", "\n"), "conntrack printed no id for it"),
        (lambda text: text.replace("mark=0 ", "mark=0 zone=65536 "), "its addresses, ports"),
        (lambda text: text.replace("id=1\n", "id=4294967296\n"), "its addresses, ports"),
        (lambda text: text.replace("10.0.0.1 ", "10.0.0.256 "), "its addresses, ports"),
    ],
)  # fmt: skip
def test_what_can_not_be_singled_out_is_refused(change: Callable[[str], str], why: str) -> None:
    text = change(line(1))
    assert text != line(1)
    (flow,) = live([text])
    refusal = selection(flow)
    assert isinstance(refusal, Refusal)
    assert refusal.why.startswith(why)
    deletion = Deletion(Command((), "/nosuch"), [flow])
    assert deletion.phase is Phase.DONE
    assert deletion.words().text == f"nothing was deleted; 1 left out: {refusal.why}"


def test_an_event_s_flow_is_selected_like_a_listing_s() -> None:
    table = FlowTable()
    feed(table, event("NEW", 5, flags="[UNREPLIED] "))
    assert selection(next(iter(table.live.values()))) == selection(live([line(5)])[0])


OPTIONS = {
    "-o",
    *("-f", "-p", "-s", "-d", "-r", "-q", "-w", "--sport", "--dport", "--reply-port-src", "--reply-port-dst"),
    *("--orig-zone", "--reply-zone", "--srckey", "--dstkey"),
    *(f"--{name}-{what}" for name in ("icmp", "icmpv6") for what in ("type", "code", "id")),
}
PLAIN = re.compile(r"[0-9][0-9a-fx.:]*|[a-f:][0-9a-f.:]*|id|ipv[46]|tcp|udp|icmp|icmpv6|gre|sctp")


@given(st.lists(any_flow_lines(), max_size=8))
def test_no_word_of_a_line_becomes_an_option(lines: list[bytes]) -> None:
    table = FlowTable()
    feed(table, b"".join(lines))
    for flow in table.live.values():
        chosen = selection(flow)
        if isinstance(chosen, Selection):
            *words, ident = chosen.deleting()
            assert re.fullmatch(r"--id=\d{1,10}", ident)
            assert len(words) % 2 == 0
            assert set(words[::2]) <= OPTIONS
            assert [word for word in words[1::2] if not PLAIN.fullmatch(word)] == []
            assert {"-f", "-p", "-s", "-d"} < set(words)


# --- exactly one flow, in conntrack's own words, for every kind of flow; and what counts as yes -----------------------


def flow_of(text: str) -> Flow:
    (row,), rejects = split_lines(text.encode() + b"\n")
    assert not rejects
    flow = FlowTable().listed(row, 0.0)
    assert flow is not None
    return flow


TCP = "ipv4     2 tcp      6 9 CLOSE src=10.0.0.1 dst=10.0.0.2 sport=1 dport=65535 {}src={} dst={} sport={} dport={} {}mark=0 use=1 id={}"
PLAIN_FLOW = TCP.format("", "10.0.0.2", "10.0.0.1", 65_535, 1, "", 7)
ICMP = "ipv4     2 icmp     1 9 src=10.0.0.1 dst=10.0.0.2 type={} code={} id={} src={} dst=10.0.0.1 type=0 code=0 id=5 mark=0 use=1 id=7"
SIX = "ipv6     10 icmpv6   58 9 src=fd00::1 dst=fd00::2 type=128 code=0 id=5 src=fd00::2 dst=fd00::1 type=129 code=0 id=5 mark=0 use=1 id=7"
GRE = "ipv4     2 gre      47 9 src=10.0.0.1 dst=10.0.0.2 srckey=0x0 dstkey={} src=10.0.0.2 dst=10.0.0.1 srckey={} dstkey=0x0 mark=0 use=1 id=7"
ESP = "ipv4     2 unknown  {} 9 src=10.0.0.1 dst=10.0.0.2 src=10.0.0.2 dst=10.0.0.1 mark=0 use=1 id=7"
DCCP = "ipv4     2 dccp     33 9 OPEN src=10.0.0.1 dst=10.0.0.2 sport={0} dport={0} src=10.0.0.2 dst=10.0.0.1 sport={0} dport={0} mark=0 use=1 id=7"
ENDS = "-s 10.0.0.1 -d 10.0.0.2"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (PLAIN_FLOW, f"-f ipv4 -p tcp {ENDS} --sport 1 --dport 65535 -w 0"),
        (PLAIN_FLOW.replace("mark=0", "mark=0 zone=3"), f"-f ipv4 -p tcp {ENDS} --sport 1 --dport 65535 -w 3"),
        (PLAIN_FLOW.replace("mark=0", "mark=0 zone=65535"), f"-f ipv4 -p tcp {ENDS} --sport 1 --dport 65535 -w 65535"),
        (
            TCP.format("zone-orig=5 ", "10.0.0.2", "10.0.0.1", 65_535, 1, "zone-reply=6 ", 7),
            f"-f ipv4 -p tcp {ENDS} --sport 1 --dport 65535 --orig-zone 5 --reply-zone 6",
        ),
        (
            TCP.format("zone-orig=5 ", "10.0.0.2", "10.0.0.1", 65_535, 1, "", 7),
            f"-f ipv4 -p tcp {ENDS} --sport 1 --dport 65535 --orig-zone 5",
        ),
        (
            TCP.format("", "10.0.0.2", "10.0.0.1", 65_535, 1, "zone-reply=6 ", 7),
            f"-f ipv4 -p tcp {ENDS} --sport 1 --dport 65535 --reply-zone 6",
        ),
        (  # NAT, end by end
            TCP.format("", "10.0.0.9", "10.0.0.1", 65_535, 1, "", 7),
            f"-f ipv4 -p tcp {ENDS} --sport 1 --dport 65535 -r 10.0.0.9 -q 10.0.0.1 --reply-port-src 65535 --reply-port-dst 1 -w 0",
        ),
        (
            TCP.format("", "10.0.0.2", "10.0.0.8", 65_535, 1, "", 7),
            f"-f ipv4 -p tcp {ENDS} --sport 1 --dport 65535 -r 10.0.0.2 -q 10.0.0.8 --reply-port-src 65535 --reply-port-dst 1 -w 0",
        ),
        (
            TCP.format("", "10.0.0.2", "10.0.0.1", 80, 1, "", 7),
            f"-f ipv4 -p tcp {ENDS} --sport 1 --dport 65535 -r 10.0.0.2 -q 10.0.0.1 --reply-port-src 80 --reply-port-dst 1 -w 0",
        ),
        (
            TCP.format("", "10.0.0.2", "10.0.0.1", 65_535, 2, "", 7),
            f"-f ipv4 -p tcp {ENDS} --sport 1 --dport 65535 -r 10.0.0.2 -q 10.0.0.1 --reply-port-src 65535 --reply-port-dst 2 -w 0",
        ),
        (ICMP.format(8, 0, 5, "10.0.0.2"), f"-f ipv4 -p icmp {ENDS} --icmp-type 8 --icmp-code 0 --icmp-id 5 -w 0"),
        (ICMP.format(8, 0, 65_535, "10.0.0.2"), f"-f ipv4 -p icmp {ENDS} --icmp-type 8 --icmp-code 0 --icmp-id 65535 -w 0"),
        (
            ICMP.format(8, 0, 5, "10.0.0.3"),
            f"-f ipv4 -p icmp {ENDS} --icmp-type 8 --icmp-code 0 --icmp-id 5 -r 10.0.0.3 -q 10.0.0.1 -w 0",
        ),
        (SIX, "-f ipv6 -p icmpv6 -s fd00::1 -d fd00::2 --icmpv6-type 128 --icmpv6-code 0 --icmpv6-id 5 -w 0"),
        (GRE.format("0xffffffff", "0xffffffff"), f"-f ipv4 -p gre {ENDS} --srckey 0x0 --dstkey 0xffffffff -w 0"),
        (ESP.format(50), f"-f ipv4 -p 50 {ENDS} -w 0"),
        (ESP.format(255), f"-f ipv4 -p 255 {ENDS} -w 0"),
        (DCCP.format(1), f"-f ipv4 -p dccp {ENDS} --sport 1 --dport 1 -w 0"),
        (DCCP.format(0), f"-f ipv4 -p dccp {ENDS} -w 0"),  # what a kernel without its tracker prints
        (PLAIN_FLOW.replace("sport=1 dport=65535", "sport=0 dport=0", 1).replace("sport=65535 dport=1", "sport=0 dport=0"),
         f"-f ipv4 -p tcp {ENDS} --sport 0 --dport 0 -w 0"),
        (PLAIN_FLOW.replace("ipv4     2 ", ""), f"-f ipv4 -p tcp {ENDS} --sport 1 --dport 65535 -w 0"),
    ],
)  # fmt: skip
def test_the_words_that_single_a_flow_out(text: str, words: str) -> None:
    chosen = selection(flow_of(text))
    assert isinstance(chosen, Selection)
    assert " ".join(chosen.words) == words
    assert (chosen.family, chosen.protocol, chosen.id) == (words.split()[1], words.split()[3], 7)
    assert " ".join(chosen.deleting()) == f"-o id {words} --id=7"
    assert chosen.name() == "--id=7"


@pytest.mark.parametrize(
    "text",
    [
        PLAIN_FLOW.replace("id=7", "id=4294967296"),
        PLAIN_FLOW.replace("10.0.0.1", "10.0.0.256"),
        PLAIN_FLOW.replace("=65535", "=65536"),
        PLAIN_FLOW.replace("mark=0", "mark=0 zone=65536"),
    ],
)
def test_what_conntrack_would_read_as_something_else_is_no_option(text: str) -> None:
    assert selection(flow_of(text)) == Refusal("its addresses, ports or zones are not as conntrack prints them")


def test_the_largest_id_is_one() -> None:
    chosen = selection(flow_of(PLAIN_FLOW.replace("id=7", "id=4294967295")))
    assert isinstance(chosen, Selection)
    assert chosen.id == 4_294_967_295
    zero = selection(flow_of(PLAIN_FLOW.replace("id=7", "id=0")))
    assert isinstance(zero, Selection)
    assert selection(flow_of(PLAIN_FLOW.replace(" id=7", ""))) == Refusal("conntrack printed no id for it")


@pytest.mark.parametrize(
    "text",
    [
        "ipv6     10 icmp     1 9 src=fd00::1 dst=fd00::2 type=8 code=0 id=5 src=fd00::2 dst=fd00::1 type=0 code=0 id=5 mark=0 use=1 id=7",
        "ipv4     2 icmpv6   58 9 src=10.0.0.1 dst=10.0.0.2 type=128 code=0 id=5 src=10.0.0.2 dst=10.0.0.1 type=129 code=0 id=5 mark=0 use=1 id=7",
    ],
)
def test_one_family_s_icmp_in_the_other(text: str) -> None:
    assert selection(flow_of(text)) == Refusal("conntrack can't select one family's ICMP in the other")


# --- yes and no -------------------------------------------------------------------------------------------------------


def asked(number: int, gone: int = 0, spent: float = 0.0) -> Deletion:
    """A deletion that waits for the answer: so many flows were found."""
    flows = list(Monitor(line(n) for n in range(1, 4)).table.live.values())
    deletion = Deletion(Command((), "/nosuch"), [])
    deletion.phase, deletion.gone, deletion._spent = Phase.ASKED, gone, spent
    chosen = selection(flows[0])
    assert isinstance(chosen, Selection)
    deletion._found = [_Target(flows[0], chosen)] * number
    deletion._turn = number  # nothing is started
    return deletion


@pytest.mark.parametrize(
    ("number", "typed", "yes"),
    [
        *((1, "y", True), (1, " YES ", True), (1, "1", False), (1, "", False), (1, "n", False), (1, "no", False)),
        *(
            (1234, "1234", True),
            (1234, "1,234", True),
            (1234, " 1,234 ", True),
            (1234, "y", False),
            (1234, "234", False),
        ),
        *((2, "2", True), (2, "yes", False), (2, "", False)),
    ],
)
def test_what_is_yes_and_what_is_no(number: int, typed: str, yes: bool) -> None:
    deletion = asked(number)
    assert deletion.words().answer == ("y" if number == 1 else str(number))
    assert deletion.confirm(typed) is yes
    assert deletion.phase is Phase.DONE
    assert deletion._stopped is not yes
    assert deletion.confirm("y") is False  # nobody is asked any more


@pytest.mark.parametrize(
    ("number", "gone", "spent", "question"),
    [
        (1, 0, 0.0, "it matches 1 entry"),
        (2, 0, 0.0, "they match 2 entries, one each"),
        (1234, 2000, 0.0, "they match 1,234 entries, one each; 2,000 had already ended"),
        (99, 0, 0.1, "they match 99 entries, one each"),
        (100, 0, 0.1, "they match 100 entries, one each; takes up to 10 s"),
        (1199, 0, 0.1, "they match 1,199 entries, one each; takes up to 120 s"),
        (1200, 0, 0.1, "they match 1,200 entries, one each; takes up to 2 min"),
    ],
)
def test_the_question(number: int, gone: int, spent: float, question: str) -> None:
    deletion = asked(number, gone, spent)
    words = deletion.words()
    assert words.text == question
    more = f" and {number - 1:,} more like it" if number > 1 else ""
    command = "/nosuch -D -o id -f ipv4 -p tcp -s 10.0.0.1 -d 192.0.2.1 --sport 10001 --dport 443 -w 0 --id=1"
    assert words.command == command + more
    deletion.refused["too odd"] = 1500
    assert deletion.words().text == f"{question}; 1,500 left out: too odd"


@pytest.mark.parametrize(
    ("found", "deleted", "gone", "before", "unknown", "text"),
    [
        (1, 1, 0, 0, 0, "1 deleted"),
        (3, 3, 0, 0, 0, "3 deleted"),
        (3, 2, 1, 0, 0, "2 of 3 deleted, 1 had already ended"),
        (3, 1, 0, 0, 0, "1 of 3 deleted, 2 not deleted"),
        (3, 2, 2, 1, 0, "2 of 4 deleted, 2 had already ended"),
        (3, 1, 0, 0, 1, "1 of 3 deleted, 1 not deleted, 1 unknown"),
        (1, 0, 1, 0, 0, "nothing was deleted: it had already ended"),
        (2, 0, 2, 0, 0, "nothing was deleted: all 2 had already ended"),
        (1, 0, 0, 0, 1, "0 of 1 deleted, 1 unknown"),
        (1, 0, 0, 0, 0, "nothing was deleted"),
    ],
)
def test_the_result(found: int, deleted: int, gone: int, before: int, unknown: int, text: str) -> None:
    deletion = asked(found)
    deletion.phase = Phase.DONE
    deletion.deleted, deletion.gone, deletion._gone_before, deletion._unknown = deleted, gone, before, unknown
    assert deletion.words().text == text
