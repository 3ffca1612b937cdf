"""Exactly one flow, in conntrack's own words, for every kind of flow; and what counts as yes."""

from __future__ import annotations

import pytest

from deletion import Deletion, Phase, Refusal, Selection, _Target, selection
from flows import Flow, FlowTable
from parse import split_lines
from source import Command
from support.tables import Monitor, line


def flow_of(text: str) -> Flow:
    (row,), rejects = split_lines(text.encode() + b"\n")
    assert not rejects
    flow = FlowTable().listed(row, 0.0)
    assert flow is not None
    return flow


TCP = "ipv4     2 tcp      6 9 CLOSE src=10.0.0.1 dst=10.0.0.2 sport=1 dport=65535 {}src={} dst={} sport={} dport={} {}mark=0 use=1 id={}"
PLAIN = TCP.format("", "10.0.0.2", "10.0.0.1", 65_535, 1, "", 7)
ICMP = "ipv4     2 icmp     1 9 src=10.0.0.1 dst=10.0.0.2 type={} code={} id={} src={} dst=10.0.0.1 type=0 code=0 id=5 mark=0 use=1 id=7"
SIX = "ipv6     10 icmpv6   58 9 src=fd00::1 dst=fd00::2 type=128 code=0 id=5 src=fd00::2 dst=fd00::1 type=129 code=0 id=5 mark=0 use=1 id=7"
GRE = "ipv4     2 gre      47 9 src=10.0.0.1 dst=10.0.0.2 srckey=0x0 dstkey={} src=10.0.0.2 dst=10.0.0.1 srckey={} dstkey=0x0 mark=0 use=1 id=7"
ESP = "ipv4     2 unknown  {} 9 src=10.0.0.1 dst=10.0.0.2 src=10.0.0.2 dst=10.0.0.1 mark=0 use=1 id=7"
DCCP = "ipv4     2 dccp     33 9 OPEN src=10.0.0.1 dst=10.0.0.2 sport={0} dport={0} src=10.0.0.2 dst=10.0.0.1 sport={0} dport={0} mark=0 use=1 id=7"
ENDS = "-s 10.0.0.1 -d 10.0.0.2"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (PLAIN, f"-f ipv4 -p tcp {ENDS} --sport 1 --dport 65535 -w 0"),
        (PLAIN.replace("mark=0", "mark=0 zone=3"), f"-f ipv4 -p tcp {ENDS} --sport 1 --dport 65535 -w 3"),
        (PLAIN.replace("mark=0", "mark=0 zone=65535"), f"-f ipv4 -p tcp {ENDS} --sport 1 --dport 65535 -w 65535"),
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
        (ICMP.format(255, 255, 65_535, "10.0.0.2"), f"-f ipv4 -p icmp {ENDS} --icmp-type 255 --icmp-code 255 --icmp-id 65535 -w 0"),
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
        (PLAIN.replace("sport=1 dport=65535", "sport=0 dport=0", 1).replace("sport=65535 dport=1", "sport=0 dport=0"),
         f"-f ipv4 -p tcp {ENDS} --sport 0 --dport 0 -w 0"),
        (PLAIN.replace("ipv4     2 ", ""), f"-f ipv4 -p tcp {ENDS} --sport 1 --dport 65535 -w 0"),
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
        ESP.format(256),
        ICMP.format(256, 0, 5, "10.0.0.2"),
        ICMP.format(8, 256, 5, "10.0.0.2"),
        PLAIN.replace("id=7", "id=4294967296"),
        PLAIN.replace("src=10.0.0.1", "src=10.0.0.256", 1),
        PLAIN.replace("dst=10.0.0.2", "dst=fd00::2", 1),
        TCP.format("", "10.0.0.2", "fd00::1", 65_535, 1, "", 7),
        TCP.format("", "10.0.0.2", "10.0.0.1", 65_536, 1, "", 7),
        PLAIN.replace("mark=0", "mark=0 zone=65536"),
        GRE.format("0x123456789", "0x0"),
    ],
)
def test_what_conntrack_would_read_as_something_else_is_no_option(text: str) -> None:
    assert selection(flow_of(text)) == Refusal("its addresses, ports or zones are none that conntrack prints")


def test_the_largest_id_is_one() -> None:
    chosen = selection(flow_of(PLAIN.replace("id=7", "id=4294967295")))
    assert isinstance(chosen, Selection)
    assert chosen.id == 4_294_967_295
    zero = selection(flow_of(PLAIN.replace("id=7", "id=0")))
    assert isinstance(zero, Selection)
    assert selection(flow_of(PLAIN.replace(" id=7", ""))) == Refusal("conntrack gave no id for it")


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
        (1234, 2000, 0.0, "they match 1,234 entries, one each; 2,000 had ended already"),
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
        (3, 2, 1, 0, 0, "2 of 3 deleted, 1 had ended already"),
        (3, 1, 0, 0, 0, "1 of 3 deleted, 2 left as they were"),
        (3, 2, 2, 1, 0, "2 of 4 deleted, 2 had ended already"),
        (3, 1, 0, 0, 1, "1 of 3 deleted, 1 left as they were, of 1 it is not known"),
        (1, 0, 1, 0, 0, "nothing was deleted: it had ended already"),
        (2, 0, 2, 0, 0, "nothing was deleted: all 2 had ended already"),
        (1, 0, 0, 0, 1, "0 of 1 deleted, of 1 it is not known"),
        (1, 0, 0, 0, 0, "nothing was deleted"),
    ],
)
def test_the_result(found: int, deleted: int, gone: int, before: int, unknown: int, text: str) -> None:
    deletion = asked(found)
    deletion.phase = Phase.DONE
    deletion.deleted, deletion.gone, deletion._gone_before, deletion._unknown = deleted, gone, before, unknown
    assert deletion.words().text == text
