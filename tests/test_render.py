"""Frames: their size, what may stand in them, what must not be cut, what is said about what is wrong."""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from itertools import chain

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from wcwidth import wcswidth
from worlds import World, event, feed, keys, line, listing, sizes, text_of, width_of, worlds

from columns import FLOW_COLUMNS, fit
from intake import ACCOUNTING_CURE, EVENTS_CURE, TRACKING_CURE, Problem
from keys import BINDINGS, press
from panels import sparkline
from render import frame
from text import ASCII, ROLES, shorten, shorten_middle, wrap

LONG = "2001:db8:1111:2222:3333:4444:5555:6666"


def shown(world: World, size: tuple[int, int] = (80, 24)) -> list[str]:
    return text_of(frame(world.scene, *size))


def many(number: int = 60) -> World:
    return World([line(n, size=n * 1000, dst=f"203.0.113.{n}") for n in range(1, number + 1)], sort="bytes")


# --- any frame --------------------------------------------------------------------------------------------------------


def is_well_formed(world: World, width: int, height: int) -> None:
    lines = frame(world.scene, width, height)
    assert len(lines) == height
    for spans in lines:
        text = "".join(part for part, _ in spans)
        assert width_of(spans) <= width
        assert wcswidth(text) <= width or "Mc" in map(
            unicodedata.category, text
        )  # of these terminals think differently
        assert [char for char in text if unicodedata.category(char)[0] == "C"] == []
        assert {role for _, role in spans} <= set(ROLES)


@given(worlds(), sizes)
@settings(max_examples=120, deadline=None)
def test_any_table_in_any_view_at_any_size(world: World, size: tuple[int, int]) -> None:
    is_well_formed(world, *size)


@given(worlds(), st.lists(st.tuples(keys, sizes), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_keys_and_sizes_that_change_together(world: World, steps: list[tuple[str, tuple[int, int]]]) -> None:
    for key, size in steps:
        press(world.view, world.table, key)
        is_well_formed(world, *size)
        world.refresh(1)
        is_well_formed(world, *size)


def test_every_size_up_to_a_small_terminal() -> None:
    world = many()
    for overlay in ("", "help", "details"):
        world.view.overlay = overlay
        world.view.selected = world.view.order[3]
        for width in range(1, 90, 3):
            for height in range(1, 30, 2):
                is_well_formed(world, width, height)


def test_no_size_no_lines() -> None:
    assert frame(many().scene, 0, 0) == []


def test_the_command_lines_filter_can_not_hold_the_terminal() -> None:
    world = many()
    world.view.set_filter('"a\x1b[31mb"')
    world.refresh(1)
    is_well_formed(world, 80, 24)
    world.keys("/")
    is_well_formed(world, 80, 24)


# --- what is cut, and what is not -------------------------------------------------------------------------------------

v6 = st.ip_addresses(v=6).map(str)
v4 = st.ip_addresses(v=4).map(str)


@given(st.one_of(v6, v4), st.integers(0, 65_535), st.integers(12, 50), st.sampled_from("…~"))
@example("2001:db8::1", 443, 12, "~")
def test_an_address_that_is_cut_is_no_address_and_its_port_is_whole(
    address: str, port: int, width: int, mark: str
) -> None:
    for text, tail in ((f"[{address}]:{port}" if ":" in address else f"{address}:{port}", f":{port}"), (address, "")):
        shorter = shorten_middle(text, width, mark)
        assert len(shorter) <= width
        if len(text) <= width:
            assert shorter == text
            continue
        assert shorter.endswith(tail)
        host = shorter.removesuffix(tail).strip("[]")
        assert mark in host
        with pytest.raises(ValueError, match="does not appear to be"):
            ipaddress.ip_address(host)


@given(st.text(st.sampled_from("ab漢字e\u0301 "), max_size=30), st.integers(0, 20))
def test_cut_text_fits_and_says_that_it_is_cut(text: str, width: int) -> None:
    shorter = shorten(text, width)
    assert wcswidth(shorter) <= width
    if shorter != text:
        assert shorter[-1:] == "…" or width == 0
        assert text.startswith(shorter[:-1])


@given(st.text(st.sampled_from("ab漢字 "), max_size=60), st.integers(8, 30))
def test_wrapped_text_loses_nothing(text: str, width: int) -> None:
    lines = wrap(text, width)
    assert all(wcswidth(part) <= width for part in lines)
    assert "".join(lines).replace("…", "").replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 140, 160, 200, 300])
@pytest.mark.parametrize("sport", [1, 65_535])
def test_numbers_are_whole_at_every_width(width: int, sport: int) -> None:
    """The largest there are: whole, or not there at all; a number that lost a digit would be another one."""
    huge = 2**64 - 1
    world = World(
        [
            line(1, src=LONG, dst=LONG[:-1] + "7", sport=sport, dport=64_999, size=huge, timeout=2**32 - 1),
            line(
                2, src="255.255.255.255", dst="254.254.254.254", sport=sport, dport=64_999, size=huge, timeout=2**32 - 1
            ),
            line(3, reply_src="10.20.30.40", reply_dst="203.0.113.255", sport=sport, dport=64_999, size=123_456_789),
        ]
    )
    world.keys("n")
    world.refresh(3_000 * 86_400.0)
    title, head, *rows = [text for text in shown(world, (width, 40)) if text][2:-1]
    assert title.startswith("Connections")
    for row in rows[:3]:
        ports = re.findall(r":(\d+)(?=\s|$)", row.rstrip("█▏"))
        assert ports
        assert set(ports) <= {str(sport), "64999"}
        if width >= 80:
            assert ports[:2] == [str(sport), "64999"]
        for cell, title_of in ((huge * 2, "BYTES"), (2**32 - 1, "TIMEOUT")):
            if title_of in head and "192.0.2.1" not in row:
                assert {"BYTES": "37E", "TIMEOUT": "46710d"}[title_of] in row, cell
        if "AGE" in head:
            assert re.search(r"\b8y\b", row)


@pytest.mark.parametrize("key", ["rate", "bytes", "packets", "age", "timeout"])
def test_number_columns_are_as_wide_as_their_widest_number(key: str) -> None:
    from columns import FLOW_COLUMN
    from columns import facts_of as cells_of

    for size in (0, 999, 1000, 9_999, 999_499, 999_999_999, 2**63, 2**64 - 1):
        for seconds in (0.0, 59.0, 3_599.0, 36_000.0, 999 * 86_400.0, 1e12):
            world = World([line(1, size=0, timeout=2**32 - 1)])
            listing(world.table, [line(1, size=size, timeout=2**32 - 1)], 100.001)
            world.refresh(seconds)
            (flow,) = world.view.order
            text = FLOW_COLUMN[key].cell(cells_of(flow, world.view.context, names=False))
            assert len(text) <= FLOW_COLUMN[key].least, (size, seconds)


def test_the_name_of_a_port_gives_way_to_its_number() -> None:
    world = World([line(1, dst=LONG, dport=5432), line(2, dst="192.0.2.7", dport=5432)])
    first, second = shown(world)[4:6]
    assert "]:5432 " in first
    assert "192.0.2.7:postgres" in second


def test_two_translated_ends_in_a_narrow_column() -> None:
    world = World([line(1, reply_src="10.200.30.40", reply_dst="203.0.113.255", sport=40_000, dport=8080)])
    assert "both 10.200.30.40:8080 " in shown(world, (140, 24))[4]
    assert "snat 203.0.113.255:40000 dnat 10.200.30.40:8080 " in shown(world, (400, 24))[4]


@given(st.integers(1, 500), st.integers(0, 12))
def test_columns_fit(width: int, shift: int) -> None:
    columns = fit(width, FLOW_COLUMNS[shift:])
    assert columns
    assert sum(size + 1 for _, size in columns) - 1 <= width
    for column, size in columns:
        assert size <= column.most or len(columns) == 1
        assert size >= column.least or len(columns) == 1


def test_wider_never_shows_fewer_columns() -> None:
    """While a window is dragged columns come one after the other and stay."""
    before: set[str] = set()
    for width in range(27, 400):
        now = {"nat" if column.key == "natkind" else column.key for column, _ in fit(width)}
        assert before <= now, width
        before = now
    assert before == {column.key for column in FLOW_COLUMNS} - {"natkind"}


# --- what is where ----------------------------------------------------------------------------------------------------


def test_80x24_has_what_matters() -> None:
    lines = shown(many())
    assert re.findall(r"\w+", lines[3]) == ["PROTO", "STATE", "SOURCE", "DESTINATION", "CC", "RATE", "BYTES", "AGE"]
    assert re.match(r"tcp +ESTABLISHED +10\.0\.0\.1:10060 +203\.0\.113\.60:https ", lines[4])
    assert lines[-1].startswith("? help  q quit  / filter  enter details")
    assert len(lines[4:-1]) == 19


def test_40x10_says_who_is_talked_to() -> None:
    lines = shown(many(), (40, 10))
    assert lines[-1] == "? help  q quit  / filter  enter details"
    assert "203.0.113.60:https" in lines[3]
    assert len([text for text in lines if "203.0.113." in text]) == 6


def test_20x5_says_who_is_talked_to() -> None:
    lines = shown(many(), (20, 5))
    assert "203.0.113.60:https" in lines[2]
    assert lines[-1] == "? help  q quit"
    world = World([line(1, src=LONG, dst=LONG[:-1] + "7")])
    assert shown(world, (20, 5))[2] == "[2001:d…55:6667]:443"


@pytest.mark.parametrize("width", [14, 30, 45, 80, 81, 100])
def test_the_footer_has_whole_words(width: int) -> None:
    words = {f"{binding.keys[0]} {binding.brief}" for binding in BINDINGS if binding.brief}
    items = re.split(r"  +", shown(many(), (width, 24))[-1])
    assert items[0] == "? help"
    assert set(items) <= words


def test_the_header_counts_what_the_table_holds() -> None:
    world = many(30)
    feed(
        world.table,
        "".join(event("NEW", n, state="SYN_SENT", src="2001:db8::5", dst="2001:db8::6") for n in range(90, 97)),
    )
    feed(
        world.table,
        b"udp      17 30 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=53 src=10.0.0.2 dst=10.0.0.1 sport=53 dport=1 id=5000\n",
    )
    feed(world.table, event("DESTROY", 3, dst="203.0.113.3"))
    world.status.facts = {"count": 131_072, "max": 262_144}
    world.refresh(1)
    lines = shown(world, (160, 40))
    states = world.table.by_state()
    assert len(world.table) == 37
    assert "50% 131072/262144" in lines[1]
    assert lines[1].count("█") == lines[1].count("░") == 10
    assert "tcp 36" in lines[1]
    assert "udp 1" in lines[1]
    assert dict(states) == {"ESTABLISHED": 29, "SYN_SENT": 7}
    assert "ESTABLISHED 29" in lines[1]
    assert "SYN_SENT 7" in lines[1]
    assert lines[2].startswith("Connections · 37 · ")
    world.keys("/", *"proto:udp", "enter")
    assert "Connections · 1 of 37 · sort bytes ↓ · filter proto:udp" in shown(world)[2]


@pytest.mark.parametrize("width", range(30, 200, 7))
def test_counts_in_the_header_are_whole(width: int) -> None:
    states = ["SYN_SENT", "SYN_RECV", "FIN_WAIT", "TIME_WAIT", "LAST_ACK", "CLOSE"]
    world = World([line(n, state=states[n % 6]) for n in range(1, 1201)])
    known = {"1200", *(f"{name} 200" for name in states), "tcp 1200"}
    assert {re.sub("^table | flows$", "", chip) for chip in shown(world, (width, 24))[1].split(" · ")} <= known


@pytest.mark.parametrize(("count", "role"), [(1, "good"), (200_000, "warn"), (262_144, "bad"), (400_000, "bad")])
def test_the_gauge_warns_when_the_table_fills(count: int, role: str) -> None:
    world = many()
    world.status.facts = {"count": count, "max": 262_144}
    gauge = frame(world.scene, 80, 24)[1]
    assert [r for text, r in gauge if "%" in text] == [role]
    assert sum(text.count("█") + text.count("░") for text, _ in gauge) == 10


def test_rates_of_both_directions_are_in_the_header() -> None:
    world = World([line(1, src="10.0.0.1", dst="8.8.8.8", size=0)])
    listing(world.table, [line(1, src="10.0.0.1", dst="8.8.8.8", size=5_000_000)], 110.0)
    world.refresh(10)
    assert "in 500kB/s  out 500kB/s" in shown(world, (100, 24))[0]


def test_the_sort_is_named_and_marked() -> None:
    world = many()
    assert "↓BYTES" in shown(world)[3]  # no column of an 80 cells wide screen, but the one it is sorted by is shown
    assert "sort bytes ↓" in shown(world)[2]
    assert "↓BYTES" in shown(world, (140, 24))[3]
    world.keys("r")
    assert "↑BYTES" in shown(world, (140, 24))[3]


def test_the_selected_row_is_on_screen_when_the_window_shrinks() -> None:
    world = many()
    frame(world.scene, 80, 40)
    world.keys(*["j"] * 20)
    lines = frame(world.scene, 80, 10)
    assert [text for text, role in chain(*lines) if role == "selected" and "203.0.113.41" in text]


def test_the_scroll_bar_is_at_its_ends_where_the_rows_are() -> None:
    world = many()
    bar = [text[-1] for text in shown(world)[4:-1]]
    assert (bar[0], bar[-1]) == ("█", "▏")
    world.keys("G")
    bar = [text[-1] for text in shown(world)[4:-1]]
    assert (bar[0], bar[-1]) == ("▏", "█")
    assert "█" not in "".join(shown(World([line(1)]))[4:])


def test_pause_stands_before_what_may_be_long() -> None:
    world = many()
    world.keys("/", *("port:443 or " * 9 + "port:80").replace(" ", "_").split("_")[0], "enter", "p")
    feed(world.table, event("NEW", 99))
    world.refresh(1)
    assert "PAUSED, 1 events held" in shown(world, (40, 10))[1] or "PAUSED" in shown(world, (40, 10))[1]
    assert "PAUSED, 1 events held" in shown(world)[2]


def test_rows_on_screen_do_not_change_in_a_pause() -> None:
    world = many(5)
    world.keys("p")
    before = frame(world.scene, 200, 24)[4:-1]
    feed(world.table, event("DESTROY", 5) + event("UPDATE", 4, state="TIME_WAIT"), 101.0)
    listing(world.table, [line(n, size=n * 7_000_000, state="CLOSE") for n in range(1, 4)], 102.0)
    world.refresh(30)
    assert frame(world.scene, 200, 24)[4:-1] == before
    world.keys("p")
    assert frame(world.scene, 200, 24)[4:-1] != before


def test_states_and_change_carry_colour() -> None:
    world = World([line(1, dst="192.0.2.1", state="SYN_SENT"), line(2, dst="192.0.2.2")])
    feed(world.table, event("NEW", 3, dst="192.0.2.3") + event("DESTROY", 1, dst="192.0.2.1"), 100.5)
    world.refresh(1)
    roles = [{text.strip(): role for text, role in row} for row in frame(world.scene, 80, 24)[4:7]]
    of = {next(text[:9] for text in row if text.startswith("192.0.2.")): row for row in roles}
    assert (of["192.0.2.1"]["192.0.2.1:https"], of["192.0.2.1"]["ESTABLISHED"]) == ("closed", "closed")
    assert (of["192.0.2.2"]["192.0.2.2:https"], of["192.0.2.2"]["ESTABLISHED"]) == ("plain", "good")
    assert (of["192.0.2.3"]["192.0.2.3:https"], of["192.0.2.3"]["ESTABLISHED"]) == ("new", "good")


# --- overlays and the prompt ------------------------------------------------------------------------------------------


def test_the_help_is_whole_at_80x42() -> None:
    world = many()
    world.keys("?")
    text = "\n".join(shown(world, (80, 42)))
    for binding in BINDINGS:
        if not binding.keys[0].isdigit():
            assert f"{' '.join(binding.keys)} " in text
            assert binding.text in text
    assert "1 to 8 " in text
    assert "country:DE" in text
    assert "lines" not in shown(world, (80, 42))[0]


def test_the_help_can_be_scrolled_to_its_end_on_a_small_screen() -> None:
    world = many()
    world.keys("?")
    assert "Help · lines 1-8 of " in shown(world, (40, 10))[0]
    world.keys("G")
    lines = shown(world, (40, 10))
    assert "city:" in lines[-2]
    world.keys("k", "j")
    assert shown(world, (40, 10)) == lines


def test_the_help_names_all_that_is_wrong() -> None:
    world = many()
    world.status.rejects, world.status.first_reject = 3, "what?"
    world.status.facts = {"events": 0, "acct": 0}
    world.table.counted = False
    world.keys("?")
    text = " ".join(shown(world, (120, 50)))
    for part in ("3 lines not understood", EVENTS_CURE, ACCOUNTING_CURE):
        assert part in text


@pytest.mark.parametrize("size", [(80, 60), (40, 120), (24, 200)])
def test_details_cut_nothing(size: tuple[int, int]) -> None:
    world = World(
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
    world.keys("enter")
    lines = shown(world, size)
    assert lines[2].startswith("Details ─")
    text = re.sub(r"[ …:]+", "", "".join(lines[3:-1]))
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
    from addresses import Detail, Place

    world = World()
    place = Place("DE", "Germany", "Ber\x1b[31mlin", 64_500, "Example Org")
    world.view.context.detail = lambda _address: Detail(place)
    feed(world.table, event("NEW", 1, dst="8.8.8.8", state="SYN_SENT"), 101.0)
    feed(world.table, event("UPDATE", 1, dst="8.8.8.8"), 103.0)
    world.refresh(10)
    world.keys("enter")
    text = "\n".join(shown(world))
    assert "Germany, Ber[31mlin" in text
    assert "AS64500 Example Org" in text
    assert re.search(r"9s ago +new +SYN_SENT\n +7s ago +update +ESTABLISHED", text)


def test_the_prompt_shows_its_cursor_and_the_error() -> None:
    world = many()
    world.keys("/", *"protx:icmp")
    footer = frame(world.scene, 80, 24)[-1]
    assert ("protx:icmp", "plain") in footer
    assert (" ", "cursor") in footer
    assert [text for text, role in footer if role == "bad" and "protx" in text]


@pytest.mark.parametrize("width", [10, 20, 40, 80])
@pytest.mark.parametrize("letter", ["a", "漢"])
def test_the_cursor_of_a_long_filter_stays_on_screen(width: int, letter: str) -> None:
    world = many()
    world.keys("/", *[letter] * 120, *["left"] * 30)
    footer = frame(world.scene, width, 24)[-1]
    assert [text for text, role in footer if role == "cursor"] == [letter]
    assert width_of(footer) <= width


# --- what is wrong, and why nothing is there --------------------------------------------------------------------------


def test_accounting_off_is_said_with_its_cure() -> None:
    world = World([line(1)])
    world.status.facts = {"acct": 0}
    assert ACCOUNTING_CURE in "\n".join(shown(world))
    assert "accounting is off" in "\n".join(shown(world))
    listing(world.table, [line(1, size=5)], 101.0)  # switched on meanwhile: counted all the same
    assert "accounting" not in "\n".join(shown(world))


@pytest.mark.parametrize("width", [80, 100, 160])
def test_cures_are_whole(width: int) -> None:
    """A command that lost its end mends nothing."""
    world = World([line(1)])
    world.status.facts = {"acct": 0}
    assert ACCOUNTING_CURE in "\n".join(shown(world, (width, 24)))
    world.status.facts = {"events": 0}
    assert EVENTS_CURE in "\n".join(shown(world, (width, 24)))


def test_losses_are_bad_until_the_table_is_read_anew() -> None:
    world = World([line(1)])
    world.status.losses, world.status.last_loss, world.status.lost_at = 2, "events (ENOBUFS)", 101.0
    world.refresh(2)
    spans = [span for row in frame(world.scene, 120, 24) for span in row]
    assert [role for text, role in spans if "events (ENOBUFS) lost 2x, reading it anew" in text] == ["bad"]
    listing(world.table, [line(1)], 102.0)  # it may have begun before the loss
    assert "reading it anew" in "\n".join(shown(world, (120, 24)))
    world.status.healed = 2
    spans = [span for row in frame(world.scene, 120, 24) for span in row]
    assert [role for text, role in spans if "table read anew since" in text] == ["warn"]
    world.refresh(60)
    assert "lost" not in "\n".join(shown(world))


def test_a_dead_listing_is_said_with_age_reason_and_cure_and_the_table_stays() -> None:
    world = World([line(1)])
    world.status.troubles["listing"] = Problem("ssh: connection reset", "ping router")
    world.refresh(12)
    lines = shown(world, (120, 24))
    assert "stale" in lines[0]
    assert "listing stopped: ssh: connection reset, table is 12 s old, trying again" in "\n".join(lines)
    assert "ping router" in "\n".join(lines)
    assert "192.0.2.1:https" in "\n".join(lines)


def test_rejects_are_counted_and_the_first_is_shown() -> None:
    world = World([line(1)])
    world.status.rejects, world.status.first_reject = 1, "hello world"
    assert "1 line not understood, the first: hello world" in "\n".join(shown(world))
    world.status.rejects = 5
    assert "5 lines not understood" in "\n".join(shown(world))


def test_the_worst_comes_first_and_the_rest_is_counted() -> None:
    world = World([line(1)])
    world.status.troubles["events"] = Problem("conntrack -E: killed by signal 9", "")
    world.status.rejects = 5
    world.status.backwards = 2
    world.status.facts = {"acct": 0}
    first, second = shown(world, (100, 24))[2:4]
    assert first.startswith("! events stopped")
    assert "(+2, see H)" in second


@pytest.mark.parametrize(
    ("facts", "live", "words"),
    [
        ({}, True, TRACKING_CURE),
        ({"count": 5}, True, "the kernel counts entries but lists none"),
        ({}, False, "the recording has no flow at this time"),
    ],
)
def test_why_the_table_is_empty(facts: dict[str, int], live: bool, words: str) -> None:
    world = World()
    world.live = live
    world.status.facts = facts
    assert words in "\n".join(shown(world))


def test_an_empty_table_before_the_first_listing() -> None:
    world = World()
    world.table.listed_at = None
    assert "reading the connection table" in "\n".join(shown(world))
    world.status.troubles["listing"] = Problem("conntrack is not installed here", "apt install conntrack")
    text = "\n".join(shown(world)[4:])
    assert "conntrack is not installed here" in text
    assert "apt install conntrack" in text
    assert "reading" not in text


def test_a_filter_that_wants_nothing_is_the_reason() -> None:
    world = many()
    world.keys("/", *"port:1", "enter")
    lines = shown(world)
    assert "0 of 60" in lines[2]
    assert "no flow fits the filter" in "\n".join(lines)


# --- the rest ---------------------------------------------------------------------------------------------------------


def test_ascii_terminals_get_ascii() -> None:
    world = many()
    world.glyphs = ASCII
    world.status.facts = {"count": 5, "max": 10}
    for pressed in ([], ["j", "enter"], ["?"], ["/", *"nosuch:1"]):
        world.keys(*pressed)
        for size in ((80, 24), (40, 10), (20, 5), (200, 50)):
            assert "".join(shown(world, size)).isascii()
        world.keys("esc")


@given(st.lists(st.floats(0, 1e9), max_size=60))
def test_sparklines_have_a_character_a_value_and_keep_their_order(values: list[float]) -> None:
    from text import Glyphs

    glyphs = Glyphs()
    line_ = sparkline(values, glyphs)
    assert len(line_) == len(values)
    heights = [glyphs.spark.index(char) for char in line_]
    for (one, low), (other, high) in zip(zip(values, heights), list(zip(values, heights))[1:]):
        assert (low <= high) if one <= other else (low >= high)
