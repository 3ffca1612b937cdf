"""Recordings: what is written is read again, at its own pace, whatever stands between the lines."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intake import (
    Block,
    Ended,
    Facts,
    Item,
    ListingBegan,
    ListingEnded,
    Lost,
    OfNode,
    OwnAddresses,
    Problem,
    Statistics,
    Trouble,
)
from recording import FIRST_LINE, LONGEST_WAIT, SPEEDS, Recorder, Replay
from source import parse_statistics
from support.terminal import Terminal

CAPTURES = Path(__file__).parent.parent / "fixtures" / "captures"
EVENT = "[{:.6f}]\t    [NEW] ipv4     2 udp      17 60 src=192.0.2.1 dst=192.0.2.2 sport={} dport=2 [UNREPLIED] src=192.0.2.2 dst=192.0.2.1 sport=2 dport={} id={}\n"


def event(at: float, port: int) -> str:
    return EVENT.format(at, port, port, port)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Set time.monotonic by hand."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def advance(seconds: float) -> None:
        now[0] += seconds

    return advance


def replay(tmp_path: Path, text: str | bytes, speed: float = 1.0) -> Replay:
    path = tmp_path / "some.rec"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return Replay(str(path), speed)


def everything(source: Replay) -> list[Item]:
    found: list[Item] = []
    for _ in range(10_000):
        found += source.poll()
        if any(isinstance(item, Ended) for item in found):
            source.close()
            return found
    raise AssertionError("it never ends")


def lines(found: list[Item]) -> bytes:
    return b"".join(item.data for item in found if isinstance(item, Block))


def test_what_is_recorded_is_replayed(tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    recorder = Recorder(str(path))
    written: list[Item] = [
        OwnAddresses(1.0, frozenset({"192.0.2.1", "2001:db8::1", "198.51.100.0/24", "broadcast=192.0.2.255"})),
        Facts(1.0, {"count": 12, "max": 262144}),
        ListingBegan(1.0),
        Block(b"listing line\n", 1.0),
        ListingEnded(2.0, True),
        Block(event(1795386413.7, 1).encode(), 2.0),
        Lost(2.0, "events (ENOBUFS)"),
        ListingBegan(3.0),
        ListingEnded(3.0, False),
        Trouble(3.0, "events", Problem("x")),
    ]
    for item in written:
        recorder.write(item)
    recorder.close()
    found = everything(Replay(str(path), 0.0))
    kinds = [type(item) for item in found]
    assert kinds == [*(type(item) for item in written if not isinstance(item, Trouble)), Ended]
    assert lines(found) == lines(written)
    assert found[0].addresses == written[0].addresses  # type: ignore[union-attr]
    assert found[1].values == written[1].values  # type: ignore[union-attr]
    assert [item.complete for item in found if isinstance(item, ListingEnded)] == [True, False]
    assert [item.what for item in found if isinstance(item, Lost)] == ["events (ENOBUFS)"]


def test_events_come_at_their_own_pace(tmp_path: Path, clock: Callable[[float], None]) -> None:
    source = replay(tmp_path, event(100, 1) + event(103, 2) + event(103.5, 3))
    assert lines(list(source.poll())).count(b"\n") == 1
    assert source.deadline() == 1003.0
    assert source.clock() == 100.0
    clock(2.9)
    assert list(source.poll()) == []
    clock(0.2)
    assert lines(list(source.poll())).count(b"\n") == 1
    clock(0.4)
    rest = list(source.poll())
    assert lines(rest).count(b"\n") == 1
    assert isinstance(rest[-1], Ended)
    source.close()


def test_ten_times_as_fast(tmp_path: Path, clock: Callable[[float], None]) -> None:
    source = replay(tmp_path, event(100, 1) + event(120, 2), speed=10)
    list(source.poll())
    assert source.deadline() == 1002.0
    clock(2)
    assert lines(list(source.poll())).count(b"\n") == 1
    source.close()


@pytest.mark.usefixtures("clock")
def test_a_night_of_nothing_is_jumped_over(tmp_path: Path) -> None:
    source = replay(tmp_path, event(100, 1) + event(100 + LONGEST_WAIT + 10, 2))
    found = list(source.poll())
    assert lines(found).count(b"\n") == 2
    source.close()


@pytest.mark.usefixtures("clock")
def test_times_that_go_back_are_taken_as_the_newest(tmp_path: Path) -> None:
    source = replay(tmp_path, event(100, 1) + event(50, 2) + event(100, 3))
    found = list(source.poll())
    assert lines(found).count(b"\n") == 3
    source.close()


@pytest.mark.parametrize("name", ["L.ext-id.txt", "L.plain.txt", "E.plain.txt", "E.extended.txt", "proc.txt"])
def test_what_has_no_times_comes_at_once(tmp_path: Path, name: str) -> None:
    data = (CAPTURES / "mixed-table" / name).read_bytes()
    assert lines(everything(replay(tmp_path, data))) == data


@pytest.mark.parametrize("name", ["L.ext-id.txt", "E.plain.txt", "E.ext-id-ts.txt", "proc.txt"])
def test_it_is_shown_on_a_screen(name: str) -> None:
    path = CAPTURES / "mixed-table" / name
    with Terminal("--replay", str(path), "--no-download", "--linger", "3600") as terminal:
        terminal.wait("10.99.1.2")
        terminal.type("q")
        assert terminal.end() == 0


def test_a_directive_inside_a_line_is_none(tmp_path: Path) -> None:
    data = event(100, 1).replace("id=1", "id=1 [USERSPACE] portid=1 progname=# 1.5 list").encode()
    found = everything(replay(tmp_path, FIRST_LINE + data, 0.0))
    assert [type(item) for item in found] == [Block, Ended]
    assert lines(found) == data


@given(
    st.lists(
        st.sampled_from(
            [
                b"# 1.5 list\n",
                b"# 2.5 end 1\n",
                b"# 3.0 lost x\n",
                b"# nonsense\n",
                b"\x00\xff\n",
                event(9, 1).encode(),
                b"#\n",
            ]
        )
    ),
    st.booleans(),
    st.booleans(),
)
def test_any_order_of_anything_is_read_whole(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], paced: bool, cut_off: bool
) -> None:
    path = tmp_path_factory.mktemp("any") / "any.rec"
    path.write_bytes(b"".join(parts) + b"# 9.9 li" * cut_off)
    found = everything(Replay(str(path), 1e6 if paced else 0.0))
    directives = [part for part in parts if part[:4] in (b"# 1.", b"# 2.", b"# 3.")]
    assert lines(found).count(b"\n") == b"".join(parts).count(b"\n") - len(directives)


def test_a_pipe_that_is_slow_does_not_block(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDWR)
    try:
        source = Replay(str(fifo), 0.0)
        assert list(source.poll()) == []
        os.write(reader, event(1, 1).encode()[:40])
        assert list(source.poll()) == []
        os.write(reader, event(1, 1).encode()[40:])
        assert lines(list(source.poll())) == event(1, 1).encode()
        source.close()
    finally:
        os.close(reader)


def test_statistics_are_recorded_and_replayed(tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    recorder = Recorder(str(path))
    values = parse_statistics((CAPTURES / "stats-count" / "S.txt").read_text())
    recorder.write(Statistics(1.0, values))
    recorder.write(Facts(1.0, {"count": 3, "max": 7}))
    recorder.close()
    replay = Replay(str(path), 0.0)
    found: list[Item] = []
    for _ in range(10_000):
        found += replay.poll()
    replay.close()
    assert isinstance(found[-1], Ended)
    assert [(type(item), item.values) for item in found if isinstance(item, (Facts, Statistics))] == [
        (Statistics, values),
        (Facts, {"count": 3, "max": 7}),
    ]


def test_the_last_second_of_a_recording_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written when the recording is closed, and an error then is an error, too."""
    recorder = Recorder("/dev/full")
    monkeypatch.setattr(time, "monotonic", lambda: 0.5)
    recorder.take(Lost(0.5, "events"))
    assert recorder.stopped == ""
    recorder.close()
    assert recorder.stopped == "recording stopped: No space left on device"
    assert (recorder.complaint(), recorder.complaint()) == (recorder.stopped, "")  # it is said once
    recorder.close()


# --- moving in it -----------------------------------------------------------------------------------------------------

SECONDS = "".join(event(100.0 + number, 1000 + number) for number in range(60))


def ports(items: list[Item]) -> list[int]:
    """The source ports of the events, in their order."""
    data = b"".join(item.data for item in items if isinstance(item, Block))
    return [int(port) for port in re.findall(rb"sport=(1\d{3}) dport=2 \[", data)]


def test_going_on_and_back(tmp_path: Path, clock: Callable[[float], None]) -> None:
    with closing(replay(tmp_path, SECONDS)) as source:
        list(source.poll())
        clock(5.5)
        assert ports(list(source.poll())) == [1001, 1002, 1003, 1004, 1005]
        assert not source.seek(10.0)
        assert ports(list(source.poll())) == list(range(1006, 1016))
        assert source.seek(-10.0)  # the table begins anew, and is as it was then
        assert ports(list(source.poll())) == list(range(1000, 1006))
        assert source.clock() == 105.5
        clock(1.0)
        assert ports(list(source.poll())) == [1006]
        assert source.seek(-1000.0)
        assert (ports(list(source.poll())), source.clock()) == ([1000], 100.0)
        assert not source.seek(1000.0)
        assert type(list(source.poll())[-1]) is Ended
        played = source.playback()
        assert played
        assert (played.at, played.begins, played.ends) == (159.0, 100.0, 159.0)
        assert source.seek(-10.0)  # from the end, too
        assert ports(list(source.poll())) == list(range(1000, 1050))


@given(moves=st.lists(st.floats(-30, 30), min_size=1, max_size=6))
def test_wherever_it_is_all_that_came_before_has_been_played_once(moves: list[float]) -> None:
    source = Replay("some.rec", 1.0, SECONDS.encode())
    try:
        source.hold(True)
        found = ports(list(source.poll()))
        for seconds in moves:
            found = [] if source.seek(seconds) else found
            found += ports(list(source.poll()))
            assert found == [1000 + number for number in range(60) if 100.0 + number <= source.clock()]
    finally:
        source.close()


def of_nodes(*nodes: str) -> str:
    """The recording above, whose seconds are of these nodes in turn, and so are directives of each."""
    texts = [f"# 99.0 node {node}\n# 99.5 facts count={number}\n" for number, node in enumerate(nodes)]
    for number, line in enumerate(SECONDS.splitlines(keepends=True)):
        texts.append(f"# {100 + number}.0 node {nodes[number % len(nodes)]}\n{line}")
    return "".join(texts)


def by_node(found: list[Item], told: dict[str, list[int]], node: str) -> str:
    """Add the ports of each node to those that were told; ``node``: whose items come first. Returns whose are next."""
    for item in found:
        node = item.node if isinstance(item, OfNode) else node
        told.setdefault(node, [])
        told[node] += ports([item])
    return node


@given(moves=st.lists(st.floats(-30, 30), min_size=1, max_size=6))
def test_wherever_it_is_all_of_each_node_has_been_played_once(moves: list[float]) -> None:
    source = Replay("some.rec", 1.0, of_nodes("r7", "", "r9").encode(), every=True)
    try:
        source.hold(True)
        told: dict[str, list[int]] = {}
        node = by_node(list(source.poll()), told, "none was told")
        for seconds in moves:
            if source.seek(seconds):
                told, node = {}, "none was told"
            node = by_node(list(source.poll()), told, node)
            played = [number for number in range(60) if 100.0 + number <= source.clock()]
            assert {of: its for of, its in told.items() if its} == {
                of: its
                for at, of in enumerate(("r7", "", "r9"))
                if (its := [1000 + number for number in played if number % 3 == at])
            }
    finally:
        source.close()


def test_a_step_among_nodes_shows_something_each_time(tmp_path: Path, clock: Callable[[float], None]) -> None:
    path = tmp_path / "some.rec"
    path.write_text(of_nodes("r7", "r9"))
    with closing(Replay(str(path), 1.0, every=True)) as source:
        list(source.poll())
        clock(1.6)  # those of the first two seconds
        list(source.poll())
        found: list[Item] = []
        for number in range(2, 6):
            source.step()
            items = list(source.poll())
            assert ports(items) == [1000 + number]
            found += items
        assert [item.node for item in found if isinstance(item, OfNode)] == ["r7", "r9", "r7", "r9"]


def test_steps_and_standing_still(tmp_path: Path, clock: Callable[[float], None]) -> None:
    with closing(replay(tmp_path, SECONDS)) as source:
        list(source.poll())
        clock(0.5)
        source.hold(True)
        clock(100.0)
        assert (list(source.poll()), source.clock(), source.deadline()) == ([], 100.5, None)
        source.step()
        assert (ports(list(source.poll())), source.clock()) == ([1001], 101.0)
        source.step()
        assert ports(list(source.poll())) == [1002]
        source.hold(False)
        clock(1.5)
        assert ports(list(source.poll())) == [1003]


def test_its_speed_may_change_on_the_way(tmp_path: Path, clock: Callable[[float], None]) -> None:
    with closing(replay(tmp_path, SECONDS)) as source:
        list(source.poll())
        clock(1.5)
        assert source.set_speed(4.0) == 4.0
        assert source.clock() == 101.5
        clock(1.0)
        assert (source.clock(), ports(list(source.poll()))) == (105.5, [1001, 1002, 1003, 1004, 1005])
        assert source.set_speed(1e9) == SPEEDS[1]
        assert source.set_speed(1e-9) == SPEEDS[0]


@pytest.mark.parametrize("text", ["", "nonsense\n", event(1.0, 1), SECONDS.replace("[1", "[x")])
def test_what_has_no_times_can_not_be_moved_in(tmp_path: Path, text: str) -> None:
    with closing(replay(tmp_path, text)) as source:
        assert source.playback() is None
        assert not source.seek(-10.0)


def test_the_demo_is_moved_in_on_the_screen() -> None:
    """Its bar in the header, going on, the end, going back from there, standing still, a step."""
    with Terminal("--demo", "--no-config", "--no-download", size=(100, 24)) as terminal:
        terminal.wait("/2:59")
        terminal.type("}" * 18)
        terminal.wait("The recording has ended; { goes back 10 s")
        terminal.wait("replay ended")
        terminal.wait("2:59/2:59")
        terminal.type("{{p")
        terminal.wait("replay held")
        terminal.wait(lambda: re.search(r"2:39/2:59|2:40/2:59", terminal.text) is not None)
        terminal.wait(lambda: "192.168.1." in terminal.text)
        terminal.type("|p++")
        terminal.wait("4x")
        terminal.type("q")
        assert terminal.end() == 0
