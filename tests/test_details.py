"""Details: beside the rows where there is room, from flow to flow, the rate since they were opened, whois."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from addresses import Lookups
from keyboard import Button, Mouse
from keys import Do, Request, point
from live import Whois
from support.program import OnScreen
from support.tables import Monitor, event, feed, is_well_formed, line, listing, shown, twenty
from support.waiting import wait_for
from view import Curve

BESIDE, BELOW, OVER = (120, 24), (80, 44), (80, 24)


def opened(size: tuple[int, int]) -> Monitor:
    """The third flow of twenty, with its details open."""
    monitor = twenty()
    monitor.frame(*size)
    monitor.keys("j", "j", "j", "enter")
    monitor.frame(*size)
    return monitor


def told(monitor: Monitor, size: tuple[int, int]) -> str:
    """The id that the details are of."""
    found = re.findall(r"tcp  id (\d+)", "\n".join(shown(monitor, size)))
    assert len(found) == 1
    return str(found[0])


# --- where they stand -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "rows"), [(BESIDE, 18), ((119, 43), 0), (BELOW, 17), (OVER, 0), ((200, 50), 20)])
def test_details_leave_the_rows_in_sight_where_there_is_room(size: tuple[int, int], rows: int) -> None:
    monitor = opened(size)
    lines = shown(monitor, size)
    assert told(monitor, size) == "18"
    seen = [text for text in lines if re.match(r" ?tcp +(ESTABLISHED +)?10\.0\.0\.1:100\d\d +192", text)]
    assert len(seen) >= rows if rows else not seen
    assert lines[2].startswith("Connections · 20" if rows else "Details ─")
    is_well_formed(monitor, *size)


def test_beside_rows_steps_move_from_flow_to_flow_and_pages_scroll() -> None:
    for size in (BESIDE, BELOW):
        monitor = opened(size)
        monitor.keys("j")
        assert (told(monitor, size), monitor.selected()) == ("17", 17)
        monitor.keys("k", "k")
        assert told(monitor, size) == "19"
        monitor.keys("G")
        assert told(monitor, size) == "1"
        before = monitor.view.top
        monitor.keys("pgdn")
        assert (monitor.view.scroll > 0, monitor.view.top, monitor.selected()) == (True, before, 1)


@pytest.mark.parametrize("size", [BESIDE, BELOW, OVER])
def test_next_and_previous_in_any_window(size: tuple[int, int]) -> None:
    monitor = opened(size)
    monitor.keys("right")
    assert told(monitor, size) == "17"
    monitor.keys("left", "left")
    assert (told(monitor, size), monitor.view.shift) == ("19", 0)
    monitor.keys("enter", "right")
    assert (monitor.view.overlay, monitor.view.shift) == ("", 1)


def test_where_they_cover_the_rows_steps_scroll() -> None:
    monitor = opened((80, 12))
    monitor.keys("j")
    assert (monitor.view.scroll, monitor.selected()) == (1, 18)


def test_the_mouse_beside_rows() -> None:
    monitor = opened(BESIDE)
    lines = shown(monitor, BESIDE)
    y = next(y for y, text in enumerate(lines) if ":10012" in text)
    point(monitor.view, monitor.table, Mouse(Button.PRESSED, 10, y))
    assert told(monitor, BESIDE) == "12"
    top, x = monitor.view.top, lines[4].index("▏")
    point(monitor.view, monitor.table, Mouse(Button.WHEEL_DOWN, x + 20, 10))
    shown(monitor, BESIDE)
    assert (monitor.view.top, told(monitor, BESIDE) if monitor.view.scroll == 0 else "12") == (top, "12")
    point(monitor.view, monitor.table, Mouse(Button.WHEEL_DOWN, 10, 10))
    assert monitor.view.top > top
    point(monitor.view, monitor.table, Mouse(Button.PRESSED, x + 20, 10))  # nothing is there to be clicked
    assert monitor.view.overlay == "details"


def test_rows_go_on_beside_details_of_a_flow_that_has_gone() -> None:
    monitor = opened(BESIDE)
    listing(monitor.table, [line(n, size=n * 1000) for n in range(1, 21) if n != 18], 101.0)
    monitor.refresh(20)
    assert (told(monitor, BESIDE), monitor.view.rows.total) == ("18", 19)
    monitor.keys("j")
    assert monitor.selected() in (16, 17)


# --- what they say ----------------------------------------------------------------------------------------------------


def test_the_rate_since_they_were_opened_is_a_curve() -> None:
    monitor = twenty()
    sizes = [20_000]
    for step in range(1, 9):
        if step == 3:
            monitor.keys("j", "enter")
        sizes.append(sizes[-1] + (4_000 if step == 6 else 1_000) * 2)
        listing(
            monitor.table, [line(20, size=sizes[-1]), *(line(n, size=n * 1000) for n in range(1, 20))], 100.0 + 2 * step
        )
        monitor.refresh(2)
    assert monitor.view.curve is not None
    assert len(monitor.view.curve.rates) == 7  # the one that it had, and one for each of six listings
    lines = "\n".join(shown(monitor, BESIDE))
    assert re.search(r"rate +[▁-█]{7} \d+(\.\d)?k/s", lines)
    most = max(monitor.view.curve.rates)
    assert f"at most {most / 1000:.1f}k/s in the last 12s" in lines
    monitor.refresh(1)  # no listing, no value
    assert len(monitor.view.curve.rates) == 7
    monitor.keys("j")
    assert monitor.view.curve.flow is monitor.view.flow
    monitor.keys("esc")
    assert monitor.view.curve is None


def test_a_curve_of_days_stays_small_and_keeps_its_peak() -> None:
    monitor = twenty()
    flow = monitor.view.rows.order[0]
    curve = Curve(flow, 0.0)
    for number in range(5 * Curve.MOST):
        flow.progress = flow.progress._replace(rates=(9e6 if number == 77 else 1000.0, 0.0))
        curve.take(number)
    assert len(curve.rates) <= Curve.MOST
    assert max(curve.rates) == 9e6


def test_both_ends_have_their_names() -> None:
    names = {"10.0.0.1": "anna's-phone", "192.0.2.1": "example\x1b[31m.net"}
    monitor = Monitor([line(1)], Lookups(name=lambda address: names.get(address)))
    monitor.keys("enter")
    text = "\n".join(shown(monitor, (80, 40)))
    assert "10.0.0.1 (private)  anna's-phone" in text
    assert "192.0.2.1 (documentation)  example[31m.net" in text


def test_a_flow_that_ends_says_when() -> None:
    monitor = opened(BESIDE)
    feed(monitor.table, event("DESTROY", 18), 103.0)
    monitor.refresh(3)
    text = "\n".join(shown(monitor, BESIDE))
    assert re.search(r"duration .*, began ", text)
    assert re.search(r"ended +103\.000", text)


def test_copy_and_filter_from_details() -> None:
    monitor = opened(BESIDE)
    assert monitor.keys("y") == Request(Do.COPY_ROW)
    assert monitor.view.overlay == "details"
    monitor.keys("=", "enter")
    assert monitor.view.filter.startswith("src:10.0.0.1")


# --- whois ------------------------------------------------------------------------------------------------------------


def test_whois_is_asked_of_the_remote_end() -> None:
    monitor = Monitor([line(1, src="10.0.0.5", dst="9.9.9.9", reply_dst="203.0.113.1"), line(2, dst="192.168.7.7")])
    monitor.keys("j", "k")
    requests = []
    for _ in range(2):
        requests.append(monitor.keys("w"))
        monitor.keys("j")
    assert sorted(request.text for request in requests) == ["192.168.7.7", "9.9.9.9"]
    monitor = Monitor([line(1, dst="9.9.9.9")])
    monitor.keys("2", "j")
    assert monitor.keys("w") == Request(Do.WHOIS, "10.0.0.1")
    monitor.keys("t", "j")
    assert monitor.keys("w") == Request(Do.WHOIS, "9.9.9.9")
    monitor.keys("3", "j")
    assert monitor.keys("w") == Request(Do.NOTHING)


def stub(folder: Path, script: str) -> str:
    path = folder / "whois"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def answer(whois: Whois) -> list[str]:
    known = None

    def ended() -> bool:
        nonlocal known
        known = whois.poll() or known
        return known is not None and not known.asks

    wait_for(ended)
    assert known is not None
    assert whois.poll() is None
    assert whois.fds() == []
    return list(known.lines)


def test_what_whois_says_is_safe_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = r"printf '%% terms\n# more\nOrgName: \033[31mACME \377\n\n\n\nCountry: %s\n' $1; echo oops >&2"
    lines = answer(Whois("9.9.9.9", stub(tmp_path, text)))
    assert lines == ["OrgName: [31mACME \N{REPLACEMENT CHARACTER}", "", "Country: 9.9.9.9", "", "oops"]
    flood = answer(Whois("9.9.9.9", stub(tmp_path, "exec yes Comment")))
    assert 1000 < len(flood) <= Whois.LONGEST
    assert answer(Whois("9.9.9.9", stub(tmp_path, "exit 1"))) == ["whois printed nothing"]
    monkeypatch.setattr(Whois, "PATIENCE", 0.05)
    began = time.monotonic()
    assert answer(Whois("9.9.9.9", stub(tmp_path, "exec sleep 60")))[-1] == "timed out"
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("installed", [True, False])
def test_whois_on_the_screen(tmp_path: Path, installed: bool) -> None:
    path = tmp_path / "flows.rec"
    path.write_text("[1795387256.0]\t" + event("NEW", 1, src="10.0.0.5", dst="9.9.9.9"))
    (tmp_path / "bin").mkdir()
    if installed:
        stub(tmp_path / "bin", "echo 'OrgName: Quad9 of' $1")
    words = ["--no-config", "--replay", str(path), "--speed", "0"]
    with OnScreen(tmp_path, *words, size=(120, 24), env={"PATH": str(tmp_path / "bin")}) as screen:
        screen.wait("replay ended")
        screen.type("\rw")
        screen.wait("OrgName: Quad9 of 9.9.9.9" if installed else "whois is not installed; try: apt install whois")
        if installed:
            screen.type("\x1b")
            screen.wait("initiator")
        screen.leave()
