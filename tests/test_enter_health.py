"""Health as a way to flows: each line that counts some shows these, and Esc comes back."""

from __future__ import annotations

import re

import pytest

from health import TIME_LEFT, Census, Shares, panel
from intake import Statistics, Status
from keyboard import Button, Mouse
from keys import Do, Request, point
from render import frame
from support.tables import WAN, Monitor, is_well_formed, line, text_of
from view import Scene

SIZE = (100, 50)


def mixed() -> Monitor:
    """Flows of three hosts in four states, with much and with little time left, to five ports."""
    lines = [line(n, src="10.0.0.23", dport=443, timeout=400_000, reply_dst=WAN) for n in range(1, 13)]
    lines += [line(n, src="10.0.0.7", dport=80, timeout=5000, state="TIME_WAIT") for n in range(20, 25)]
    lines += [
        line(n, src="10.0.0.8", dport=22, timeout=20, state="SYN_SENT", flags="[UNREPLIED] ") for n in range(30, 33)
    ]
    lines += [
        line(n, src="2001:db8::1", dst="2001:db8::2", dport=443, timeout=600, state="CLOSE") for n in range(40, 42)
    ]
    lines += [
        "ipv4     2 icmp     1 29 src=10.0.0.7 dst=192.0.2.1 type=8 code=0 id=7 src=192.0.2.1 dst=10.0.0.7 type=0 code=0 id=7 mark=0 use=1 id=99\n"
    ]
    return Monitor(lines)


def counted(monitor: Monitor) -> Shares:
    census = Census()
    while not census.step(monitor.table, 5, monitor.now):
        pass
    assert census.newest is not None
    return census.newest


def drawn(monitor: Monitor, size: tuple[int, int] = SIZE) -> list[str]:
    scene = monitor.scene
    made = frame(
        Scene(scene.view, scene.table, scene.status, "router", True, scene.glyphs, counted(monitor), scene.around),
        *size,
    )
    monitor.view.drawn(made)
    return text_of(made.lines)


def test_every_line_of_health_shows_as_many_flows_as_it_says() -> None:
    monitor = mixed()
    rows = [row for row in panel(Status(), monitor.table, counted(monitor), monitor.now) if row.term]
    labels = {row.label for row in rows}
    assert {"10.0.0.23", "assured", "ESTABLISHED", "over 1 day left", "tcp/443 https", "icmp"} <= labels
    monitor.keys("H")
    drawn(monitor)
    assert list(monitor.view.entries) == [row.term for row in rows]
    for number, row in enumerate(rows):
        said = re.search(r"(\d+) flows?", row.value)
        assert said is not None
        monitor.keys(*["j"] * (number + 1), "enter")
        assert (monitor.view.spec.name, monitor.view.overlay) == ("connections", "")
        assert monitor.view.filter == row.term
        assert monitor.view.rows.fitting == int(said[1]), row
        monitor.keys("esc")
        assert (monitor.view.overlay, monitor.view.filter, monitor.view.entry) == ("health", "", row.term)
        monitor.keys("H", "H")
        drawn(monitor)


def test_esc_comes_back_to_the_view_that_was_left() -> None:
    monitor = mixed()
    monitor.keys("/", *"port:443", "enter", "2", "j", "H")
    chosen = monitor.view.selected
    drawn(monitor)
    monitor.keys("j", "j", "j", "enter")
    assert (monitor.view.spec.name, monitor.view.filter) == ("connections", "src:10.0.0.23")
    monitor.keys("esc")
    assert (monitor.view.spec.name, monitor.view.filter, monitor.view.overlay) == ("hosts", "port:443", "health")
    monitor.keys("esc")
    assert (monitor.view.spec.name, monitor.view.selected, monitor.view.overlay) == ("hosts", chosen, "")
    monitor.keys("H")
    assert monitor.keys("q") == Request(Do.QUIT)


def test_the_chosen_line_is_marked_and_in_sight() -> None:
    monitor = mixed()
    monitor.keys("H")
    for size in ((100, 12), (40, 10), (80, 24)):
        drawn(monitor, size)
        for key in [*["j"] * 25, *["k"] * 25]:
            monitor.keys(key)
            scene = monitor.scene
            lines = frame(
                Scene(*(scene.view, scene.table, scene.status, "router", True, scene.glyphs), counted(monitor)), *size
            ).lines
            assert len([role for spans in lines for _, role in spans if role == "selected"]) == 1
        monitor.view.entry = ""
    monitor.keys("j", "pgdn")
    assert monitor.view.entry == ""  # it would hold the panel where it is
    is_well_formed(monitor, 80, 24)


def test_the_first_enter_chooses_and_a_click_does_both() -> None:
    monitor = mixed()
    monitor.keys("H")
    lines = drawn(monitor)
    monitor.keys("enter")
    assert (monitor.view.entry, monitor.view.overlay) == ("flag:assured", "health")
    y = next(y for y, text in enumerate(lines) if text.startswith("10.0.0.8 "))
    for wanted in ("health", ""):
        point(monitor.view, monitor.table, Mouse(Button.PRESSED, 40, y))
        assert (monitor.view.entry, monitor.view.overlay) == ("src:10.0.0.8", wanted)
    assert monitor.view.filter == "src:10.0.0.8"


def test_without_a_count_there_is_nothing_to_enter() -> None:
    monitor = mixed()
    monitor.keys("H")
    monitor.frame(80, 10)
    assert list(monitor.view.entries) == []
    monitor.keys("enter")
    assert monitor.view.overlay == "health"
    monitor.keys("j")
    assert monitor.view.scroll == 1


def test_a_state_without_a_name_is_said_and_not_entered() -> None:
    monitor = mixed()
    monitor.keys("H")
    drawn(monitor)
    monitor.view.entry, monitor.view.entries = "state:dancing", ["state:dancing"]
    monitor.keys("enter")
    assert "'dancing' is not a state" in monitor.view.message
    assert (monitor.view.overlay, monitor.view.filter, monitor.view.trail) == ("health", "", [])


def test_time_left_is_that_of_now() -> None:
    monitor = Monitor([line(1, timeout=70), line(2, timeout=86_500), line(3, timeout=3700)])
    assert counted(monitor).timeouts == (0, 1, 1, 1)
    monitor.now += 200
    assert counted(monitor).timeouts == (1, 1, 1, 0)
    census = Census()
    assert census.step(monitor.table)  # without a clock it is as listed
    assert census.newest is not None
    assert census.newest.timeouts == (0, 1, 1, 1)
    assert len(TIME_LEFT) == 4


@pytest.mark.parametrize(
    ("values", "none"), [({"drop": 0, "early_drop": 0, "invalid": 0}, "early_drop, drop, invalid"), ({"drop": 3}, "")]
)
def test_counters_that_are_0_are_in_one_line(values: dict[str, int], none: str) -> None:
    status = Status()
    status.take(Statistics(80.0, values))
    rows = {row.label: row.value for row in panel(status, mixed().table, None, 81.0)}
    assert rows.get("never counted", "") == none
    assert {"drop", "early_drop", "invalid"} & set(rows) == {name for name, number in values.items() if number}


def test_ports_of_a_scan_take_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("health.MOST_SOURCES", 20)
    monitor = Monitor(line(n, dport=443 if n % 4 == 0 else n) for n in range(1, 400))
    census = Census()
    while not census.step(monitor.table, 20):
        assert len(census._services) <= 20
    assert census.newest is not None
    assert census.newest.services[0] == ("tcp/443", 99)
