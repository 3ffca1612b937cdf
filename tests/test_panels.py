"""The parts around the table: the header, the help, the details."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addresses import Context, Detail, Lookups, Place, Site
from filters import compile_filter
from flows import FlowTable
from intake import ACCOUNTING_CURE, EVENTS_CURE, Problem, Status
from keys import BINDINGS
from panels import details, header
from support.tables import LONG, MARKS, Monitor, event, feed, line, listing, many, marked_table, shown
from view import Scene, View

# --- the header -------------------------------------------------------------------------------------------------------


def test_the_header_counts_what_the_table_holds() -> None:
    monitor = many(30)
    feed(
        monitor.table,
        "".join(event("NEW", n, state="SYN_SENT", src="2001:db8::5", dst="2001:db8::6") for n in range(90, 97)),
    )
    feed(
        monitor.table,
        b"udp      17 30 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=53 src=10.0.0.2 dst=10.0.0.1 sport=53 dport=1 use=1 id=5000\n",
    )
    feed(monitor.table, event("DESTROY", 3, dst="203.0.113.3"))
    monitor.status.facts = {"count": 131_072, "max": 262_144}
    monitor.refresh(1)
    lines = shown(monitor, (160, 40))
    states = monitor.table.by_state()
    assert len(monitor.table) == 37
    assert "50% 131072/262144" in lines[1]
    assert lines[1].count("█") == lines[1].count("░") == 10
    assert "tcp 36" in lines[1]
    assert "udp 1" in lines[1]
    assert dict(states) == {"ESTABLISHED": 29, "SYN_SENT": 7}
    assert "ESTABLISHED 29" in lines[1]
    assert "SYN_SENT 7" in lines[1]
    assert lines[2].startswith("Connections · 37 · ")
    monitor.keys("/", *"proto:udp", "enter")
    assert "Connections · 1 of 37 · sort bytes ↓ · filter proto:udp" in shown(monitor)[2]


@pytest.mark.parametrize(
    ("status", "late", "live", "wanted"),
    [
        (Status(), 0.0, True, ("live", "good")),
        (Status(behind=1.9), 1.9, True, ("live", "good")),
        (Status(behind=9.2), 0.0, True, ("9 s behind", "warn")),
        (Status(behind=2.0), 7.0, True, ("7 s behind", "warn")),  # frames come late: what is on show will be old
        (Status(losses=1), 0.0, True, ("live", "warn")),
        (Status(losses=1, healed=1), 0.0, True, ("live", "good")),
        (Status(listing_since=90.0), 0.0, True, ("live", "warn")),
        (Status(behind=9.0, troubles={"listing": Problem("gone")}), 0.0, True, ("stale", "bad")),
        (Status(), 9.0, False, ("replay", "title")),
        (Status(ended=True), 9.0, False, ("replay ended", "dim")),
    ],
)
def test_green_is_only_what_is_whole_and_of_now(
    status: Status, late: float, live: bool, wanted: tuple[str, str]
) -> None:
    scene = Scene(View(Context(now=100.0)), FlowTable(), status, "here", live, late=late)
    state, role = header(scene, 120, 30)[0][1]
    assert (state.removeprefix("● "), role) == wanted


@pytest.mark.parametrize("width", range(30, 200, 7))
def test_counts_in_the_header_are_whole(width: int) -> None:
    states = ["SYN_SENT", "SYN_RECV", "FIN_WAIT", "TIME_WAIT", "LAST_ACK", "CLOSE"]
    monitor = Monitor([line(n, state=states[n % 6]) for n in range(1, 1201)])
    known = {"1200", *(f"{name} 200" for name in states), "tcp 1200"}
    assert {re.sub("^table | flows$", "", chip) for chip in shown(monitor, (width, 24))[1].split(" · ")} <= known


@pytest.mark.parametrize(
    ("count", "role"), [(1, "good"), (200_000, "good"), (215_000, "warn"), (262_144, "bad"), (400_000, "bad")]
)
def test_the_gauge_warns_when_the_table_fills(count: int, role: str) -> None:
    monitor = many()
    monitor.status.facts = {"count": count, "max": 262_144}
    gauge = monitor.frame(80, 24)[1]
    assert [r for text, r in gauge if "%" in text] == [role]
    assert sum(text.count("█") + text.count("░") for text, _ in gauge) == 10


def test_rates_of_both_directions_are_in_the_header() -> None:
    monitor = Monitor([line(1, src="10.0.0.1", dst="8.8.8.8", size=0)])
    listing(monitor.table, [line(1, src="10.0.0.1", dst="8.8.8.8", size=5_000_000)], 110.0)
    monitor.refresh(10)
    assert "in 500kB/s  out 500kB/s" in shown(monitor, (100, 24))[0]


@given(st.lists(st.floats(0, 1e9), max_size=60))
def test_sparklines_have_a_character_a_value_and_keep_their_order(values: list[float]) -> None:
    from text import Glyphs, sparkline

    glyphs = Glyphs()
    line_ = sparkline(values, glyphs)
    assert len(line_) == len(values)
    heights = [glyphs.spark.index(char) for char in line_]
    for (one, low), (other, high) in zip(zip(values, heights), list(zip(values, heights))[1:]):
        assert (low <= high) if one <= other else (low >= high)


# --- the help ---------------------------------------------------------------------------------------------------------


def test_the_help_is_whole_at_80x42() -> None:
    monitor = many()
    monitor.keys("?")
    text = "\n".join(shown(monitor, (80, 42)))
    for binding in BINDINGS:
        if not binding.keys[0].isdigit():
            assert f"{' '.join(binding.keys)} " in text
            assert binding.text in text
    assert "1 to 9, 0 " in text
    assert "country:DE" in text
    assert "lines" not in shown(monitor, (80, 42))[0]


def test_the_help_can_be_scrolled_to_its_end_on_a_small_screen() -> None:
    monitor = many()
    monitor.keys("?")
    assert "Help · lines 1-8 of " in shown(monitor, (40, 10))[0]
    monitor.keys("G")
    lines = shown(monitor, (40, 10))
    assert "NAT view)" in lines[-2]
    monitor.keys("k", "j")
    assert shown(monitor, (40, 10)) == lines


def test_the_help_names_all_that_is_wrong() -> None:
    monitor = many()
    monitor.status.rejects, monitor.status.first_reject = 3, "what?"
    monitor.status.facts = {"events": 0, "acct": 0}
    monitor.table.counted = False
    monitor.keys("?")
    text = " ".join(shown(monitor, (120, 50)))
    for part in ("3 lines not understood", EVENTS_CURE, ACCOUNTING_CURE):
        assert part in text


# --- details ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(80, 60), (40, 120), (24, 200)])
def test_details_cut_nothing(size: tuple[int, int]) -> None:
    monitor = Monitor(
        [
            line(
                7,
                src=LONG,
                dst=LONG[:-1] + "7",
                sport=40_000,
                size=123_456_789,
                more="mark=255 secctx=a_u:b_r zone=9 use=1 ",
            )
        ]
    )
    monitor.keys("enter")
    lines = shown(monitor, size)
    at = next(at for at, text in enumerate(lines) if text.startswith("Details ─"))
    text = re.sub(r"[ …:]+", "", "".join(lines[at + 1 : -1]))
    for part in (
        f"[{LONG}]:40000",
        "123456789bytes(123M)",
        "255(0xff)",
        "a_u:b_r",
        "zone9",
        "ESTABLISHEDASSURED",
        "300s(5m)",
    ):
        assert part.replace(":", "") in text


def test_details_name_the_place_and_the_life() -> None:
    place = Place("DE", "Germany", "Ber\x1b[31mlin", 64_500, "Example Org")
    monitor = Monitor(lookups=Lookups(detail=lambda _address: Detail(place)))
    feed(monitor.table, event("NEW", 1, dst="8.8.8.8", state="SYN_SENT"), 101.0)
    feed(monitor.table, event("UPDATE", 1, dst="8.8.8.8"), 103.0)
    monitor.refresh(10)
    monitor.keys("enter")
    text = "\n".join(shown(monitor))
    assert "Germany, Ber[31mlin" in text
    assert "AS64500 Example Org" in text
    assert re.search(r"9s ago +new +SYN_SENT\n +7s ago +update +ESTABLISHED", text)


@pytest.mark.parametrize(
    ("listed", "words"), [(False, "not counted yet"), (True, "accounting was off when it started")]
)
def test_details_know_why_nothing_was_counted(listed: bool, words: str) -> None:
    monitor = Monitor()
    feed(monitor.table, event("NEW", 5), 101.0)
    if listed:
        listing(monitor.table, [line(5, size=None)], 102.0)
    monitor.refresh(1)
    monitor.keys("j", "enter")
    assert sum(words in text for text in shown(monitor, (160, 30))) == 2


def test_details_show_the_names() -> None:
    flows = marked_table()
    context = Context(site=Site(marks=MARKS, zones={3: "office"}))
    lines = {
        flow.record().id: dict(details(flow, flows, context)) for flow in filter(compile_filter("", context), flows)
    }
    assert (lines[1]["mark"], lines[1]["zone"]) == ("0x7 (vpn)", "3 (office)")
    assert (lines[4]["mark"], lines[2]["zone"]) == ("8 (0x8)", "4")
