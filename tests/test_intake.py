"""What a source says is taken in: what was lost, what could not be read, what the host counted."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import health
from flows import Flow, FlowTable
from health import panel
from intake import (
    Behind,
    Block,
    Ended,
    Facts,
    Intake,
    ListingBegan,
    ListingEnded,
    Lost,
    OwnAddresses,
    Problem,
    Statistics,
    Status,
    Trouble,
    explain,
    is_loss,
    not_started,
    reject_text,
    since,
)
from parse import HEAD, ORIGINAL, Cut, Parts, cut_timeouts, split_lines
from support.strategies import histories
from support.tables import counts, intake_of


def test_other_counters_begin_anew() -> None:
    """sudo's netlink says other names than /proc does: nothing of the one is taken from the other."""
    status = intake_of(Statistics(0, {"drop": 5, "expect_new": 1}), Statistics(10, {"drop": 9})).status
    assert health.a_minute(status, "drop", 10) == 0
    assert status.counted_first == status.counted[-1]


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 2**40)), max_size=200))
@example([(0.0, 0), (1e-305, 30)])
def test_a_bounded_minute_is_kept(steps: list[tuple[float, int]]) -> None:
    status, at = Status(), 0.0
    for wait, number in steps:
        at += wait
        status.take(Statistics(at, {"drop": number}))
        status.take(counts(at, count=number))
        assert len(status.counted) <= 30
        assert len(status.fill) <= 60
        assert at - status.counted[0].at <= 61
        assert health.a_minute(status, "drop", at) >= 0
        panel(status, FlowTable(), None, at)


# --- a listing that says again what the one before said ---------------------------------------------------------------


class Forgetful(Intake):
    """Reads every line of every listing anew."""

    def _take_again(self, block: Block, at: float) -> None:  # noqa: ARG002
        self._take_rows(block, [])


def state_of(intake: Intake) -> object:
    table = intake.table
    flows = [
        (flow.group.kind, flow.state, *(getattr(flow, name) for name in Flow.__slots__ if name != "group"))
        for some in (table.live.values(), table.closed, table.past)
        for flow in some
    ]
    told = table.counted, table.events, table.listings, table.unannounced, table.generation
    return flows, told, vars(intake.status), table.traffic.rate(0), table.traffic.rate(1)


def is_event(line: bytes) -> bool:
    return line.lstrip().startswith(b"[")


def flow_in(line: bytes) -> bytes:
    rows, _ = split_lines(line)
    return rows[0][HEAD] + rows[0][ORIGINAL] if rows else line


def tell(intake: Intake, lines: list[bytes], at: float) -> None:
    """A listing's lines as they stand together, each flow in one of them, and the events between them."""
    listed = {flow_in(line): line for line in lines if not is_event(line)}.values()
    lines = [line for line in lines if is_event(line) or any(line is one for one in listed)]
    for events, some in itertools.groupby(lines, is_event):
        intake.take(Block(b"".join(some), at, events))


TCP = b"ipv4     2 tcp      6 300 ESTABLISHED src=10.0.0.1 dst=9.9.9.9 sport=1 dport=2 "
BACK = b"src=9.9.9.9 dst=10.0.0.1 sport=2 dport=1 "
COUNTED = TCP + b"packets=1 bytes=60 " + BACK + b"packets=0 bytes=0 mark=0 use=1 id=1\n"
BARE = TCP + BACK + b"mark=0 use=1 id=1\n"
UPDATED = b" [UPDATE] " + TCP + BACK + b"id=1\n"
GONE = UPDATED.replace(b" [UPDATE] ", b"[DESTROY] ").replace(b" 300 ", b" ")
NEXT = UPDATED.replace(b" [UPDATE] ", b"    [NEW] ").replace(b"id=1", b"id=2")
MOVED = COUNTED.replace(b"packets=1 bytes=60", b"packets=9 bytes=90000")
NATED = COUNTED.replace(b"dst=10.0.0.1 sport=2 dport=1 ", b"dst=203.0.113.7 sport=2 dport=4000 ")
NATED_MOVED = NATED.replace(b"packets=0 bytes=0", b"packets=7 bytes=700")
OTHERS = [  # what moved, and more: another flow of the tuple, another reply, mark, state, flag, helper, no counters back
    NATED_MOVED.replace(old, new)
    for old, new in (
        (b"id=1", b"id=2"),
        (b"dport=4000", b"dport=4001"),
        (b"mark=0", b"mark=1"),
        (b"ESTABLISHED", b"CLOSE_WAIT"),
        (b"mark=0", b"[ASSURED] mark=0"),
        (b" use=1", b" helper=ftp use=1"),
        (b" use=1", b" delta-time=9 use=1"),
        (b"packets=7 bytes=700 ", b""),
    )
]
SUMMARY = b"conntrack v1.4.7 (conntrack-tools): 1 flow entries have been shown.\n"


@given(
    blocks=histories(blocks=3),
    steps=st.lists(
        st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=3), st.booleans(), st.sampled_from([0.0, 1.0, 4.0])),
        max_size=8,
    ),
    reports=st.booleans(),
)
@example(blocks=[COUNTED, UPDATED], steps=[([0], True, 4.0)] * 4 + [([1], False, 1.0), ([0], True, 4.0)], reports=True)
@example(blocks=[COUNTED, GONE], steps=[([0], True, 4.0)] * 4 + [([1, 0], True, 4.0), ([0], True, 4.0)], reports=True)
@example(blocks=[BARE, GONE], steps=[([0], True, 4.0)] * 4 + [([1, 0], True, 4.0), ([0], True, 4.0)], reports=False)
@example(blocks=[BARE, UPDATED], steps=[([0], True, 4.0)] * 4 + [([1], False, 1.0), ([0], True, 4.0)], reports=False)
@example(blocks=[COUNTED, NEXT], steps=[([0], True, 4.0)] * 4 + [([1, 0], True, 4.0)] * 2, reports=True)
@example(
    blocks=[BARE, GONE, NEXT], steps=[([0], True, 4.0)] * 2 + [([1, 2, 0], True, 4.0), ([0], True, 4.0)], reports=True
)
@example(blocks=[COUNTED], steps=[([0], True, 0.0)] * 3 + [([0], True, 4.0)], reports=False)
@example(blocks=[COUNTED, MOVED], steps=[([0], True, 4.0)] * 2 + [([1], True, 4.0)] * 5, reports=False)
@example(
    blocks=[NATED, NATED_MOVED, MOVED, COUNTED],
    steps=[([at], True, 4.0) for at in (0, 0, 1, 1, 0, 2, 3)],
    reports=False,
)
@example(blocks=[COUNTED, MOVED, UPDATED], steps=[([at], True, 4.0) for at in (0, 1, 0, 2, 1, 0)], reports=False)
@example(blocks=[NATED, *OTHERS[:4]], steps=[([at], True, 4.0) for at in (0, 1, 0, 2, 0, 3, 0, 4)], reports=True)
@example(blocks=[NATED, *OTHERS[4:]], steps=[([at], True, 4.0) for at in (0, 1, 0, 2, 0, 3, 0, 4)], reports=True)
@example(blocks=[COUNTED, SUMMARY], steps=[([0, 1], True, 4.0)] * 4, reports=False)
def test_a_line_that_comes_again_does_what_it_does_when_it_is_read(
    blocks: list[bytes], steps: list[tuple[list[int], bool, float]], reports: bool
) -> None:
    heard: tuple[list[object], list[object]] = [], []
    both = [
        kind(FlowTable(), (lambda *what, to=to: to.append((what[0], what[1].key, *what[2:]))) if reports else None)
        for kind, to in zip((Intake, Forgetful), heard, strict=True)
    ]
    now = 0.0
    for which, complete, wait in steps:
        now += wait
        lines = [line for number in which if number < len(blocks) for line in blocks[number].splitlines(True)]
        for intake in both:
            intake.take(ListingBegan(now))
            tell(intake, lines, now)
            intake.take(ListingEnded(now, complete))
        assert state_of(both[0]) == state_of(both[1])
    assert heard[0] == heard[1]


def test_a_listing_is_read_again_only_where_it_says_something_new() -> None:
    """2,000 flows that rest; then every second goes, then one comes among them."""
    lines = [COUNTED.replace(b"=1 ", b"=%d " % number).replace(b"id=1", b"id=%d" % number) for number in range(2000)]
    intake = intake_of()
    read: list[int] = []
    for turn, listed in enumerate((lines, lines, lines, lines[::2], [*lines[:100], BARE, *lines[100::2]])):
        intake.take(ListingBegan(4.0 * turn))
        cuts = cut_timeouts(b"".join(listed))
        if turn > 2:
            read.append(len(intake.table.listed_again(cuts, 4.0 * turn)))
            intake.table.begin_listing(4.0 * turn)
        intake.take(Block(b"".join(listed), 4.0 * turn))
        intake.take(ListingEnded(4.0 * turn, True))
    assert read == [0, 51]


def numbered(number: int, line: bytes = COUNTED) -> bytes:
    return line.replace(b"sport=1 ", b"sport=%d " % number).replace(b"id=1", b"id=%d" % number)


class CountingTable(FlowTable):
    """Remembers which lines of the newest listing it had to read."""

    def listed_again(self, cuts: Sequence[Cut], now: float) -> list[int]:
        self.read = super().listed_again(cuts, now)
        return self.read


def moved(line: bytes, turn: int) -> bytes:
    return line.replace(b"packets=1 bytes=60", b"packets=%d bytes=%d" % (turn, 1000 * turn))


def test_a_line_that_says_nothing_new_but_counters_is_not_read_anew() -> None:
    """Of 40 flows, half of them translated, half move; one has another mark, one is new, one is gone."""
    resting = [numbered(number, NATED if number % 2 else COUNTED) for number in range(40)]
    table, read = CountingTable(), []
    intake = Intake(table)
    for turn in range(5):
        listed = [moved(line, turn) if number % 4 < 2 else line for number, line in enumerate(resting)]
        if turn == 4:
            listed[8] = listed[8].replace(b"mark=0", b"mark=7")
            listed[20:21] = [numbered(99)]
        intake.take(ListingBegan(4.0 * turn))
        intake.take(Block(b"".join(listed), 4.0 * turn))
        intake.take(ListingEnded(4.0 * turn, True))
        read.append(table.read)
    assert read[0] == list(range(40))
    assert read[2:4] == [[], []]
    assert set(read[4]) >= {8, 20}
    assert len(read[4]) < 8


def test_what_a_listing_that_broke_off_did_not_reach_is_not_read_anew() -> None:
    """Read is what changed in the listing that broke off, and what then says again what it said before."""
    lines = [numbered(number, BARE) for number in range(100)]
    moved = [*lines[:9], lines[9].replace(b"mark=0", b"mark=7")]
    table = CountingTable()
    intake = Intake(table)
    read: list[list[int]] = []
    for turn, (listed, ends) in enumerate(
        [(lines, 100), (lines, 100), (lines, 100), (moved, 10), ([], 0), (lines, 100)]
    ):
        intake.take(ListingBegan(4.0 * turn))
        if ends:
            intake.take(Block(b"".join(listed[:ends]), 4.0 * turn))
            read.append(table.read)
        intake.take(ListingEnded(4.0 * turn, ends == 100))
    assert read[2:] == [[], [9], [9]]


def test_listings_that_always_break_off_are_not_kept_without_end() -> None:
    table = FlowTable(limit=150)
    intake = Intake(table)
    intake.take(ListingBegan(0.0))
    intake.take(Block(b"".join(numbered(number) for number in range(100)), 0.0))
    intake.take(ListingEnded(0.0, True))
    for turn in range(1, 9):
        intake.take(ListingBegan(4.0 * turn))
        intake.take(Block(b"".join(numbered(1000 * turn + number) for number in range(100)), 4.0 * turn))
        intake.take(ListingEnded(4.0 * turn, False))
        assert len(table._order.marks) == len(table._order.flows) == 150


# --- what a source says, taken in: losses, troubles, times, lines that are none; and failures of commands in words ----


LINE = "ipv4     2 tcp      6 9 CLOSE src=10.0.0.1 dst=10.0.0.2 sport={0} dport=2 src=10.0.0.2 dst=10.0.0.1 sport=2 dport={0}{1} id={0}\n"


def lines(*ports: int, before: str = "") -> bytes:
    return "".join(before + LINE.format(port, "" if "[" in before else " use=1") for port in ports).encode()


def ports(table: FlowTable) -> list[int]:
    return [flow.ends().sport or 0 for flow in table.live.values()]


class Reader:
    """An intake, and what it reported."""

    def __init__(self, reports: bool = True) -> None:
        self.said: list[tuple[str, int, float]] = []
        self.intake = Intake(FlowTable(), self._report if reports else None)
        self.status, self.table = self.intake.status, self.intake.table

    def _report(self, event: str, flow: Flow, row: Parts, at: float) -> None:
        assert b"sport=%d " % (flow.ends().sport or 0) in row[5]
        self.said.append((event, flow.ends().sport or 0, at))

    def listing(self, at: float, data: bytes, complete: bool = True) -> None:
        self.intake.take(ListingBegan(at))
        self.intake.take(Block(data, at))
        self.intake.take(ListingEnded(at + 0.5, complete))


# --- listings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reports", [True, False])
def test_a_listing_without_a_line_that_is_one_sweeps_nothing(reports: bool) -> None:
    reader = Reader(reports)
    reader.listing(1.0, lines(1, 2))
    reader.listing(2.0, b"sudo: a password is required\n")
    assert ports(reader.table) == [1, 2]
    reader.listing(3.0, b"what?\n" + lines(1))
    assert ports(reader.table) == [1]
    reader.listing(4.0, b"", complete=False)
    assert ports(reader.table) == [1]
    reader.intake.take(ListingBegan(4.0))
    reader.intake.take(Block(b"junk of the listener\n", 4.0, events=True))
    reader.intake.take(ListingEnded(4.5, True))
    assert ports(reader.table) == []  # an empty listing is a table with nothing in it


def test_lines_of_the_listener_do_not_make_a_listing_of_junk_one() -> None:
    reader = Reader()
    reader.listing(1.0, lines(1))
    reader.intake.take(ListingBegan(2.0))
    reader.intake.take(Block(lines(7, before="    [NEW] "), 2.0, events=True))
    reader.intake.take(Block(b"what is this\n", 2.0))
    reader.intake.take(ListingEnded(2.5, True))
    assert ports(reader.table) == [1, 7]


SHOWN = b"conntrack v1.4.7 (conntrack-tools): %d flow entries have been shown.\n"


@pytest.mark.parametrize(
    ("lines_read", "number", "unread"),
    [
        (lines(1, 2) + SHOWN % 2, 2, []),
        (SHOWN % 2 + lines(1, 2), 2, []),  # of two outputs in one the order is not sure
        (lines(1) + SHOWN % 1 + lines(2), 2, []),  # more than it says: nothing is missing
        (SHOWN % 0, 0, []),
        (lines(1, 2) + SHOWN % 5, 2, ["3 flow entries are missing: conntrack printed that many more than were read"]),
        (
            b"half a line\n" + lines(1) + SHOWN % 2,
            1,
            [
                "1 line not understood; first: half a line",
                "1 flow entry is missing: conntrack printed one more than was read",
            ],
        ),
    ],
)
def test_conntrack_s_last_line_is_held_against_what_was_read(lines_read: bytes, number: int, unread: list[str]) -> None:
    reader = Reader()
    reader.listing(1.0, lines_read)
    assert len(reader.table.live) == number
    assert reader.status.unread() == unread
    reader.listing(2.0, lines(1, 2) + SHOWN % 2)
    assert not any("missing" in line for line in reader.status.unread())  # the newest listing is what counts


def test_a_listing_that_lacks_what_conntrack_counted_sweeps_nothing() -> None:
    reader = Reader()
    reader.listing(1.0, lines(1, 2, 3) + SHOWN % 3)
    reader.listing(2.0, lines(1) + SHOWN % 3)
    assert ports(reader.table) == [1, 2, 3]
    reader.listing(3.0, lines(1) + SHOWN % 1)
    assert ports(reader.table) == [1]


def test_events_are_held_against_their_number_at_the_end() -> None:
    reader = Reader()
    reader.intake.take(Block(lines(1, 2, before="    [NEW] "), 1.0, events=True))
    reader.intake.take(Block(SHOWN.replace(b"entries", b"events") % 4, 2.0, events=True))
    assert reader.status.unread() == []
    reader.intake.take(Ended(3.0))
    assert reader.status.unread() == ["2 flow events are missing: conntrack printed that many more than were read"]


def test_what_conntrack_says_of_lost_events_among_its_lines_is_a_loss() -> None:
    reader = Reader()
    warning = (
        b"WARNING: We have hit ENOBUFS! We are losing events.\n"
        b"This message means that the current netlink socket buffer size is too small.\n"
        b"Please, check --buffer-size in conntrack(8) manpage.\n"
    )
    new = lines(1, before="    [NEW] ")
    reader.intake.take(Block(new + warning, 1.0, events=True))
    assert (reader.status.losses, reader.status.rejects) == (1, 0)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b'<?xml version="1.0" encoding="utf-8"?>', "conntrack's XML"),
        (b"<conntrack>", "conntrack's XML"),
        (b'<flow type="new"><meta direction="original">', "conntrack's XML"),
        (
            b"-A -t 9 -u SEEN_REPLY -s 10.0.0.1 -d 10.0.0.2 -r 10.0.0.2 -q 10.0.0.1 -p tcp --sport 1",
            "conntrack -o save",
        ),
        (b"cpu=0   \tfound=1 invalid=0 insert=0 ", "conntrack -S"),
        (
            b"300 proto=6 src=10.99.1.2 dst=10.99.2.2 sport=0 dport=5 mask-src=255.255.255.255 mask-dst=255.255.255.255",
            "expectations",
        ),
        (b"tcp,orig=(src=10.0.0.1,dst=10.0.0.2,sport=1,dport=2),reply=(src=10.0.0.2,dst=10.0.0.1)", "Open vSwitch"),
        (b'{"time": "2026-11-22T22:24:11Z", "event": "list", "family": "ipv4"}', "JSON"),
        (b"time,event,family,protocol", "CSV"),
        (b"node,time,event,family,protocol", "CSV"),
        (b'[{"flows": 1}]', "JSON"),
        (b"\x1f\x8b\x08\x00", "compressed"),
        (b"\xd4\xc3\xb2\xa1\x02\x00\x04\x00", "packet capture"),
    ],
)
def test_what_lines_look_like_that_are_none_of_conntrack_s_flows(line: bytes, what: str) -> None:
    reader = Reader()
    reader.intake.take(Block(b"# my router\n" + line + b"\n", 1.0))
    problem = reader.status.junk()
    assert what in problem.what
    assert problem.cure
    unknown = Reader()
    unknown.intake.take(Block(b"# my router\n", 1.0))
    assert "this is not output of conntrack: 1 line not understood; first: # my router" in unknown.status.junk().what


def test_how_long_a_listing_runs_is_known() -> None:
    reader = Reader()
    assert reader.status.listing_since is None
    assert not reader.status.began
    reader.intake.take(ListingBegan(3.0))
    assert reader.status.listing_since == 3.0
    reader.intake.take(ListingEnded(4.0, False))
    assert reader.status.listing_since is None
    assert not reader.status.began
    reader.intake.take(ListingEnded(5.0, True))
    assert reader.status.began
    assert not reader.status.understood
    reader.intake.take(ListingEnded(6.0, False))
    assert reader.status.began


# --- losses -----------------------------------------------------------------------------------------------------------


def test_a_whole_listing_heals_the_losses_before_it_began_and_only_those() -> None:
    reader = Reader()
    status, take = reader.status, reader.intake.take
    reader.listing(1.0, lines(1))
    assert (status.losses, status.healed, status.resyncs) == (0, 0, 0)
    take(Lost(2.0, "events"))
    take(Lost(3.0, "lines"))
    assert (status.losses, status.last_loss, status.lost_at) == (2, "lines", 3.0)
    take(ListingBegan(4.0))
    take(Lost(4.5, "events"))
    take(ListingEnded(5.0, True))
    assert (status.losses, status.healed, status.resyncs) == (3, 2, 1)
    reader.listing(6.0, lines(1), complete=False)
    assert (status.healed, status.resyncs) == (2, 1)
    reader.listing(7.0, lines(1))
    assert (status.healed, status.resyncs) == (3, 2)
    reader.listing(8.0, lines(1))
    assert (status.healed, status.resyncs) == (3, 2)


def test_a_listing_that_began_while_events_waited_heals_nothing() -> None:
    """Events from before it come after it, and some of what followed them was lost."""
    reader = Reader()
    status, take = reader.status, reader.intake.take
    take(Lost(2.0, "events"))
    take(ListingBegan(3.0, in_step=False))
    take(ListingEnded(4.0, True))
    assert (status.losses, status.healed, status.resyncs) == (1, 0, 0)
    take(ListingBegan(5.0))
    take(ListingEnded(6.0, True))
    assert (status.losses, status.healed, status.resyncs) == (1, 1, 1)


def test_how_late_events_come_is_known() -> None:
    intake = Intake(FlowTable())
    intake.take(Behind(1.0, 9.5))
    assert intake.status.behind == 9.5
    intake.take(Behind(2.0, 0.0))
    assert intake.status.behind == 0.0


def test_troubles_come_and_go_part_by_part() -> None:
    reader = Reader()
    one, other = Problem("one"), Problem("other")
    for part, problem in (("listing", one), ("events", other), ("listing", None), ("nothing", None)):
        reader.intake.take(Trouble(1.0, part, problem))
    assert reader.status.troubles == {"events": other}


def test_other_items_are_noted() -> None:
    reader = Reader()
    reader.intake.take(OwnAddresses(1.0, frozenset({"10.0.0.1"})))
    assert reader.table.own == {"10.0.0.1"}
    assert not reader.status.ended
    reader.intake.take(Ended(2.0))
    assert reader.status.ended


# --- what the host says -----------------------------------------------------------------------------------------------


def test_counts_of_the_table_are_kept_two_seconds_apart() -> None:
    status = Status()
    for at, count in ((0.0, 5), (1.9, 6), (2.0, 7), (3.9, 8), (4.5, 9)):
        status.take(Facts(at, {"count": count}))
    status.take(Facts(9.0, {"max": 100}))
    assert list(status.fill) == [(0.0, 5), (2.0, 7), (4.5, 9)]
    assert status.facts == {"max": 100}


def test_counters_of_the_last_minute_are_kept() -> None:
    status = Status()
    for at in range(0, 100, 10):
        status.take(Statistics(float(at), {"drop": at}))
    assert status.counted_first == Statistics(0.0, {"drop": 0})
    assert [item.at for item in status.counted] == [30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0]
    status.take(Statistics(91.0, {"drop": 99}))
    assert status.counted[0].at == 30.0  # an answer may come a little later than the one before
    status.take(Statistics(91.5, {"drop": 99}))
    assert status.counted[0].at == 40.0


@pytest.mark.parametrize(
    ("after", "values", "anew"),
    [
        (10.0, {"drop": 1001, "invalid": 5}, False),
        (10.0, {"drop": 999, "invalid": 5}, True),  # the kernel was started anew
        (10.0, {"drop": 1000}, True),  # other counters
        (10.0, {"drop": 1000, "invalid": 5, "found": 1}, True),
        (10.0, {"drop": 1000 + 200_000_000, "invalid": 5}, False),
        (10.0, {"drop": 1001 + 200_000_000, "invalid": 5}, True),
        (0.1, {"drop": 1000 + 20_000_000, "invalid": 5}, False),
        (0.1, {"drop": 1001 + 20_000_000, "invalid": 5}, True),
        (900.0, {"drop": 1000 + 2**31, "invalid": 5}, False),
        (900.0, {"drop": 1001 + 2**31, "invalid": 5}, True),
    ],
)
def test_when_counters_begin_anew_so_do_we(after: float, values: dict[str, int], anew: bool) -> None:
    status = Status()
    first, then = Statistics(0.0, {"drop": 1000, "invalid": 5}), Statistics(after, values)
    status.take(first)
    status.take(then)
    assert status.counted_first == (then if anew else first)
    assert status.counted[-1] == then
    if after < 60:
        assert len(status.counted) == (1 if anew else 2)


def test_a_counter_that_goes_round_counts_on() -> None:
    first, last = Statistics(0.0, {"drop": 2**32 - 5}), Statistics(1.0, {"drop": 10})
    assert since(first, last, "drop") == 15
    assert since(last, last, "drop") == 0
    assert since(first, last, "found") == 0


# --- lines ------------------------------------------------------------------------------------------------------------


def test_lines_that_are_none_are_counted_and_the_first_is_kept() -> None:
    reader = Reader()
    reader.intake.take(Block(b"what?\x1b[31m\n" + lines(1) + b"and this\n", 1.0))
    reader.intake.take(Block(b"third\n", 2.0))
    status = reader.status
    assert (status.rejects, status.first_reject) == (3, "what?[31m")
    assert (status.began, status.understood) == (True, True)
    assert status.unread() == ["3 lines not understood; first: what?[31m"]
    status.rejects, status.backwards = 1, 2
    assert status.unread() == ["1 line not understood; first: what?[31m", "2 timestamps went backwards"]
    status.rejects = 0
    assert status.unread() == ["2 timestamps went backwards"]
    assert Status().unread() == []
    only_junk = Reader()
    only_junk.intake.take(Block(b"junk\n", 1.0))
    assert (only_junk.status.began, only_junk.status.understood) == (False, False)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"\x1f\x8b\x08\x00", "it is compressed: zcat it first"),
        (b"\x1f x", "x"),
        (b"a\tb\xff", "a b\ufffd"),
        (b"x" * 99, "x" * 60),
    ],
)
def test_how_such_a_line_is_shown(line: bytes, text: str) -> None:
    assert reject_text(line) == text


def test_a_last_line_is_looked_at_beside_the_one_before_it_also_across_blocks() -> None:
    reader = Reader()
    reader.intake.take(Block(lines(1), 1.0))
    reader.intake.take(Block(lines(2).replace(b" id=2\n", b""), 2.0))
    assert ports(reader.table) == [1]
    assert reader.status.rejects == 1
    reader.intake.take(Block(lines(3)[:-1], 2.0))
    assert ports(reader.table) == [1, 3]


def test_who_reads_along_hears_of_events_and_of_flows_that_only_a_listing_found() -> None:
    reader = Reader()
    take = reader.intake.take
    take(Block(lines(1, before="    [NEW] ") + lines(1, before=" [UPDATE] "), 1.0, events=True))
    take(ListingBegan(2.0))
    take(Block(lines(1, 2), 2.5))
    take(ListingEnded(3.0, True))
    take(Block(lines(1, before="[DESTROY] "), 4.0, events=True))
    assert reader.said == [("new", 1, 1.0), ("update", 1, 1.0), ("list", 2, 2.5), ("destroy", 1, 4.0)]
    reader.said.clear()
    take(Block(lines(2), 5.0))  # lines that somebody saved: every one of them is told
    assert reader.said == [("list", 2, 5.0)]


def test_the_times_of_a_recording_without_times_of_its_own_are_its_stamps() -> None:
    reader = Reader()
    stamps = ("[10.5]\t", "[12.0]\t", "", "[11.8]\t", "[11.5]\t", "[11.4]\t", "[12.000001]\t")
    for number, stamp in enumerate(stamps):
        reader.intake.take(Block(lines(number, before=stamp + "    [NEW] "), None))
    assert [at for _, _, at in reader.said] == [10.5, 12.0, 12.0, 12.0, 12.0, 12.0, 12.000001]
    assert reader.status.backwards == 1
    assert reader.intake.newest == 12.000001
    reader.intake.take(ListingBegan(50.0))
    reader.intake.take(Facts(40.0, {}))
    reader.intake.take(Block(lines(99), None))
    assert reader.said[-1] == ("list", 99, 50.0)
    nothing = Reader()
    nothing.intake.take(Block(lines(1), None))
    assert nothing.said == [("list", 1, 0.0)]
    assert Reader(reports=False).intake.newest is None


def test_without_a_reader_a_block_without_times_has_its_stamps_all_the_same() -> None:
    reader = Reader(reports=False)
    reader.intake.take(Block(lines(1, before="[10.5]\t    [NEW] ") + lines(2, before="[12.5]\t    [NEW] "), None))
    assert [flow.born for flow in reader.table.live.values()] == [10.5, 12.5]
    reader.intake.take(Block(lines(3, before="[10.5]\t    [NEW] "), 90.0))
    assert [flow.born for flow in reader.table.live.values()] == [10.5, 12.5, 90.0]


# --- failures in words ------------------------------------------------------------------------------------------------

SSH = ["ssh", "router", "conntrack", "-L", "-o", "id"]


@pytest.mark.parametrize(
    ("argv", "stderr", "status", "words", "code"),
    [
        (
            ["conntrack", "-L"],
            "conntrack v1.4.7 (conntrack-tools): Operation failed: sorry, you must be root or get CAP_NET_ADMIN capability to do this\n",
            1,
            "not permitted: reading the connection table needs root or CAP_NET_ADMIN; try: sudo, or --via sudo",
            3,
        ),
        (["conntrack", "-E"], "mnl_socket_bind: Operation not permitted", 1, "not permitted: reading the connection table needs root or CAP_NET_ADMIN; try: sudo, or --via sudo", 3),
        (["sudo"], "sudo: a password is required", 1, "sudo needs a password and can't ask for it here; try: sudo -v first, or run all as root", 3),
        (["sudo"], "sudo: a terminal is required to read", 1, "sudo needs a password and can't ask for it here; try: sudo -v first, or run all as root", 3),
        (SSH, "u@router: Permission denied (publickey,password).", 255, "ssh login failed: it can't ask for a password here; try: ssh-copy-id, then ssh-add", 3),
        (SSH, "Host key verification failed.", 255, "ssh login failed: it can't ask for a password here; try: ssh-copy-id, then ssh-add", 3),
        (["conntrack"], "Protocol not supported", 1, "this kernel has no connection tracking (nf_conntrack_netlink); try: modprobe nf_conntrack_netlink", 1),
        (["ip"], "setting the network namespace \"x\" failed: Operation not permitted", 1, "not permitted: entering a network namespace needs root; try: sudo", 3),
        (["ip"], "mount of namespace: x\nOperation not permitted namespace", 1, "not permitted: entering a network namespace needs root; try: sudo", 3),
        (["ip"], 'Cannot open network namespace "no\x1bpe": No such file', 1, "there is no network namespace 'nope'; try: ip netns list", 1),
        (SSH, "bash: line 1: conntrack: command not found", 127, "conntrack is not installed there; try: apt install conntrack", 4),
        (["docker"], 'exec: "conntrack": executable file not found in $PATH', 126, "conntrack is not installed there; try: apt install conntrack", 4),
        (["ip"], 'exec of "conntrack" failed: No such file or directory', 1, "conntrack is not installed there; try: apt install conntrack", 4),
        (SSH, "ssh: Could not resolve hostname router: Name or service not known", 255, "ssh: Could not resolve hostname router: Name or service not known", 1),
        (SSH, "Connection closed by 192.0.2.1 port 22", 255, "ssh: Connection closed by 192.0.2.1 port 22", 1),
        (["docker"], "Error response from daemon: No such container: x", 1, "docker: No such container: x; try: docker ps", 1),
        (["docker"], "Error response from daemon: container x is not running", 1, "docker: container x is not running; try: docker ps", 1),
        (SSH, "something odd\n", 1, "something odd (conntrack -L -o id)", 1),
        (["a", "b", "c", "d"], "odd", 1, "odd (a b c d)", 1),
        (["a", "b", "c", "d", "e"], "odd", 1, "odd (b c d e)", 1),
        (["conntrack"], "odd\nTry `conntrack -h' or 'conntrack --help' for more information.\n", 2, "odd (conntrack)", 1),
        (["conntrack"], "conntrack v1.4.7 (conntrack-tools): odd\n12 flow entries have been shown.\n\n", 2, "odd (conntrack)", 1),
        (["conntrack"], "first\nlast\n", 2, "last (conntrack)", 1),
        (["conntrack"], "", -9, "killed by signal 9 (conntrack)", 1),
        (["conntrack"], "oops", -15, "killed by signal 15: oops (conntrack)", 1),
        (["x"], "", 127, "x: not found; try: apt install conntrack", 4),
        (["x"], "what", 127, "x: not found (what); try: apt install conntrack", 4),
        (["x"], "", 3, "x exited with status 3 and no message", 1),
        (["x"], "3 flow events have been shown.", 0, "x exited with status 0 and no message", 1),
        (["x"], "must be root or get CAP_NET_ADMIN\n" + "long ago\n" * 300 + "late", 1, "late (x)", 1),
    ],
)  # fmt: skip
def test_why_a_command_ended(argv: list[str], stderr: str, status: int, words: str, code: int) -> None:
    problem = explain(argv, stderr, status)
    assert (str(problem), problem.code) == (words, code)


@pytest.mark.parametrize(
    ("argv", "error", "words", "code"),
    [
        (["conntrack", "-L"], FileNotFoundError(2, "x"), "conntrack is not installed here; try: apt install conntrack", 4),
        (["/usr/sbin/conntrack"], FileNotFoundError(2, "x"), "/usr/sbin/conntrack is not installed here; try: apt install conntrack", 4),
        (["suddo"], FileNotFoundError(2, "x"), "suddo: no such program; try: check --via and --conntrack", 4),
        (["./x"], PermissionError(13, "x"), "./x can't be run: permission denied; try: ls -l ./x", 3),
        (["x"], PermissionError(13, "x"), "x can't be run: permission denied", 3),
        (["x\x1b"], OSError(8, "Exec format error"), "x could not be started: Exec format error", 1),
    ],
)  # fmt: skip
def test_why_a_command_did_not_start(argv: list[str], error: OSError, words: str, code: int) -> None:
    problem = not_started(argv, error)
    assert (str(problem), problem.code) == (words, code)


@pytest.mark.parametrize(
    ("stderr", "loss"),
    [("netlink: ENOBUFS", True), ("recv: No buffer space available", True), ("no buffers", False), ("", False)],
)
def test_what_tells_of_lost_events(stderr: str, loss: bool) -> None:
    assert is_loss(stderr) == loss


def test_births_are_heard_of_while_somebody_listens_and_the_kernel_sends() -> None:
    """Where nobody does, new flows a second and events a second are unknown, not 0."""
    intake = Intake(FlowTable())
    table = intake.table
    intake.take(Facts(1.0, {"events": 2}))
    assert table.watched(1.0) is None
    intake.take(Trouble(2.0, "listing", None))
    assert table.watched(2.0) is None
    intake.take(Trouble(3.0, "events", None))
    assert table.watched(5.0) == 2.0
    intake.take(Facts(6.0, {"events": 0}))
    assert table.watched(6.0) is None
    intake.take(Facts(7.0, {"events": 1}))
    assert table.watched(9.0) == 2.0
    intake.take(Trouble(10.0, "events", Problem("gone")))
    intake.take(Facts(11.0, {"events": 1}))
    assert table.watched(11.0) is None
    intake.take(Trouble(12.0, "events", None))
    assert (table.watched(12.0), table.since) == (0.0, 3.0)
