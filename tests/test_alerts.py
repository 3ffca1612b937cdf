"""Alerts: rules as they are judged, by values and times alone; and the settings that make them."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import alerts
from addresses import Context, Lookups, Named, Place
from alerts import (
    MOST_A_SECOND,
    OF_HOSTS,
    OF_ROWS,
    OF_TABLE,
    PLACEHOLDERS,
    ROWS_OF,
    Alert,
    AlertPlan,
    Circumstances,
    RecentPast,
    Rule,
    RuleError,
    Spell,
    Verdicts,
    Watch,
    harmless,
    quantity_names,
    rule_of,
    rules_of,
    table_number,
    value_text,
)
from export import json_line
from flows import FlowTable
from grouping import GroupRow
from health import About, notices_of
from intake import Block, Facts, Intake, ListingBegan, ListingEnded, Lost, Status, Trouble
from support.program import environment
from support.strategies import blocks
from support.tables import event, line
from support.terminal import PROGRAM, ROOT
from test_config import loaded, needs_toml

PLAIN = Context()


def made(when: str, **more: object) -> Rule:
    return rule_of({"name": "a", "when": when, **{key.rstrip("_"): value for key, value in more.items()}}, PLAIN)


# --- rules ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "compares"),
    [
        ("fill > 80%", ("", "fill", ">", 0.8)),
        ("fill>=0.5", ("", "fill", ">=", 0.5)),
        (" unreplied >60 % ", ("", "unreplied", ">", 0.6)),
        ("new_per_second > 500", ("", "new_per_second", ">", 500.0)),
        ("rate_in > 1.5M", ("", "rate_in", ">", 1.5e6)),
        ("stale > 2m", ("", "stale", ">", 120.0)),
        ("lost > 0", ("", "lost", ">", 0.0)),
        ("hosts.flows > 2k", ("hosts", "flows", ">", 2000.0)),
        ("services.bytes_out <= 1Gi", ("services", "bytes_out", "<=", float(2**30))),
        ("bytes:>1M", None),
        ("port:443 !src:10.0.0.0/8", None),
        ("new:country", None),
    ],
)
def test_what_a_rule_is_about(when: str, compares: tuple[str, str, str, float] | None) -> None:
    rule = made(when)
    assert (rule.compares and tuple(rule.compares)) == (compares and pytest.approx(compares))
    assert rule.every == (600.0 if compares else 0.0)  # said once per flow, and of a number not all the time


def test_times_and_commands_of_a_rule() -> None:
    rule = made("fill > 80%", for_="1.5m", every=30, run=["logger", "-t", "{name}", '{"text": "{text}"}'])
    assert (rule.lasts, rule.every) == (90.0, 30.0)
    assert rule.run == ("logger", "-t", "{name}", '{"text": "{text}"}')
    assert made("tcp", every="2h").every == 7200.0


SHELL = ["sh", "-c", "echo {text}"]
WRONG: list[tuple[dict[str, object], str, str]] = [
    ({}, "needs a name", "name"),
    ({"name": "a\x1b", "when": "tcp"}, "needs a name", "name"),
    ({"name": "n" * 65, "when": "tcp"}, "needs a name", "name"),
    ({"name": "a"}, "when: expected a filter or a comparison", "when"),
    ({"name": "a", "when": "tcp", "evry": 1}, "alert 'a': unknown key 'evry'; did you mean every?", "evry"),
    ({"name": "a", "when": "fil > 80%"}, "'fil' is not a number that alerts know; did you mean fill?", "when"),
    ({"name": "a", "when": "hosts.flow > 5"}, "did you mean hosts.flows?", "when"),
    ({"name": "a", "when": "remotes.ports > 5"}, "is not a number that alerts know", "when"),
    ({"name": "a", "when": "zzz > 5"}, "docs/alerts.md lists all", "when"),
    ({"name": "a", "when": "fill > 80"}, "fill is a share, 100% at most: write fill > 80%", "when"),
    ({"name": "a", "when": "fill > x"}, "'x' is not a value of fill; write fill > 80%", "when"),
    ({"name": "a", "when": "stale > 5k"}, "write stale > 30s", "when"),
    ({"name": "a", "when": "contry:DE"}, "when: unknown field 'contry'; did you mean country?", "when"),
    ({"name": "a", "when": "state=established"}, "write state:established", "when"),
    ({"name": "a", "when": "rate > 1M"}, "has no blanks: bytes:>1M", "when"),
    ({"name": "a", "when": "tcp bytes >1M or rate > 2M"}, "has no blanks: bytes:>1M", "when"),
    ({"name": "a", "when": "fanout:>100"}, "write hosts.remotes > 100", "when"),
    ({"name": "a", "when": "tcp", "for": "30s"}, "for: works with numbers only", "for"),
    ({"name": "a", "when": "fill > 1%", "for": "soon"}, "for: expected a time", "for"),
    ({"name": "a", "when": "fill > 1%", "every": -1}, "every: expected a time", "every"),
    ({"name": "a", "when": "fill > 1%", "every": True}, "every: expected a time", "every"),
    ({"name": "a", "when": "tcp", "run": "logger x"}, "run: expected a list of strings", "run"),
    ({"name": "a", "when": "tcp", "run": []}, "the first word must be a program", "run"),
    ({"name": "a", "when": "tcp", "run": ["{text}"]}, "the first word must be a program", "run"),
    ({"name": "a", "when": "tcp", "run": ["x", "{nam}"]}, "{nam} is not a placeholder; did you mean name?", "run"),
    ({"name": "a", "when": "tcp", "run": ["x"] * 65}, "65 words are too many", "run"),
    ({"name": "a", "when": "tcp", "run": SHELL}, "it would run what a placeholder stands for", "run"),
    ({"name": "a", "when": "tcp", "run": ["env", "/bin/bash", "-ec", "{src}"]}, "it would run what", "run"),
]


@pytest.mark.parametrize(("entry", "words", "key"), WRONG, ids=[words[:40] for _, words, _ in WRONG])
def test_what_is_wrong_in_a_rule_is_said_with_its_key(entry: dict[str, object], words: str, key: str) -> None:
    with pytest.raises(RuleError) as error:
        list(rules_of([entry], PLAIN))
    assert words in str(error.value)
    assert error.value.key == key


def test_a_placeholder_beside_a_shell_s_text_is_an_argument() -> None:
    assert made("tcp", run=["sh", "-c", 'echo "$1"', "sh", "{text}"]).run[-1] == "{text}"


@needs_toml
@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("alert = 1\n", 1, "write [[alert]]"),
        ('[[alert]]\nname = "a"\nwhen = "tcp"\n[[alert]]\nname = "a"\nwhen = "udp"\n', 5, "alert 'a' is there twice"),
        (
            '[[alert]]\nname = "a"\nwhen = "tcp"\n\n[[alert]]\nname = "b"\nwhen = "fil > 1%"\n',
            7,
            "alert 'b': when: 'fil'",
        ),
        ('[[alert]]\nwhen = "tcp"\n', 1, "needs a name"),
        ('[[alert]]\nname = "a"\nwhen = "tcp"\n[[alert]]\nname = "b"\n# when\n', 4, "alert 'b': when: expected"),
        ('[[alert]]\nname = "x"\nwhen = "@kids"\n', 3, "no saved filter"),
        ("[[alert]]\n" * 51, 1, "51 alerts are too many"),
    ],
)
def test_the_line_of_what_is_wrong(text: str, line: int, words: str, tmp_path: Path) -> None:
    settings = loaded(text, tmp_path)
    assert f"settings ignored: line {line}: " in settings.problem
    assert words in settings.problem
    assert settings.alerts is None


@needs_toml
def test_rules_may_use_the_files_own_filters(tmp_path: Path) -> None:
    text = '[[alert]]\nname = "kids"\nwhen = "@kids dport:25"\n[filters]\nkids = "near:10.0.3.0/24"\n'
    settings = loaded(text, tmp_path)
    assert settings.problem == ""
    assert settings.alerts == AlertPlan((Rule("kids", "@kids dport:25"),))


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=12), lambda c: st.lists(c, max_size=3))
)
def test_no_value_is_fatal(value: object) -> None:
    for key in ("name", "when", "for", "every", "run", "x"):
        try:
            list(rules_of([{"name": "a", "when": "fill > 1%", key: value}], PLAIN))
        except RuleError as error:
            assert str(error)


# --- judging: for, every, again and again -----------------------------------------------------------------------------

steps = st.lists(
    st.tuples(st.integers(0, 12).map(lambda n: n / 2), st.sampled_from([True, True, False, None])), max_size=30
)


def expected(seen: Sequence[tuple[float, bool | None]], lasts: float, every: float) -> list[int]:
    """The looks at which it is said, from the definition: it has held without a break for so long, was not said of this
    spell, and not in the last ``every`` seconds. A look that knows nothing breaks a spell that was not said."""
    fired: list[int] = []
    for at, (now, holds) in enumerate(seen):
        if not holds:
            continue
        begin = at
        while begin and seen[begin - 1][1] is not False:
            begin -= 1
        spell = range(begin, at)
        if any(look in fired for look in spell):
            continue
        unknown = [look for look in spell if seen[look][1] is None]
        since = seen[unknown[-1] + 1 if unknown else begin][0]
        if now - since >= lasts and (not fired or now - seen[fired[-1]][0] >= every):
            fired.append(at)
    return fired


@given(steps=steps, lasts=st.sampled_from([0.0, 1.0, 5.0]), every=st.sampled_from([0.0, 4.0, 20.0]))
def test_a_spell_is_said_when_its_definition_says_so(
    steps: list[tuple[float, bool | None]], lasts: float, every: float
) -> None:
    spell, now, seen, fired = Spell(), 100.0, [], []
    for passed, holds in steps:
        now += passed
        seen.append((now, holds))
        if spell.step(holds, now, lasts, every):
            fired.append(len(seen) - 1)
    assert fired == expected(seen, lasts, every)


def judged(rule: Rule, values: Sequence[tuple[float, float | None]]) -> list[tuple[float, int]]:
    """When it is said, and how many were held back before."""
    verdicts, out = Verdicts(rule), []
    for now, value in values:
        if alert := verdicts.judge(value, now, None, PLAIN):
            out.append((alert.at, alert.held_back))
    return out


def test_below_and_above_again_within_every() -> None:
    """Said at 0; what came and went at 60 is counted, what holds at 600 is said then."""
    rule = made("fill > 80%", every="10m")
    values = [(0.0, 0.9), (30.0, 0.7), (60.0, 0.9), (90.0, 0.7), (500.0, 0.9), (600.0, 0.95), (700.0, 0.95)]
    assert judged(rule, values) == [(0.0, 0), (600.0, 1)]


def test_a_clock_that_goes_back_stops_no_rule() -> None:
    rule = made("fill > 80%", for_="10s")
    assert judged(rule, [(1000.0, 0.9), (5.0, 0.9), (15.0, 0.9)]) == [(15.0, 0)]


def test_each_row_has_its_own_spell() -> None:
    rule = made("hosts.flows > 2", every="10m")
    verdicts = Verdicts(rule)

    def look(now: float, **flows: int) -> list[str]:
        out = []
        rows = {key: GroupRow(key) for key in flows}
        for key, row in rows.items():
            row.flows = flows[key]
            if alert := verdicts.judge(row.flows, now, row, PLAIN):
                out.append(alert.text)
        verdicts.end_rows(rows.keys(), now)
        return out

    assert look(0.0, a=3, b=2) == ["hosts.flows > 2: a has 3"]
    assert look(10.0, a=4, b=3) == ["hosts.flows > 2: b has 3"]
    assert look(20.0, b=3) == []  # a is gone
    assert look(30.0, a=9, b=3) == []  # within every
    assert look(600.0, a=9, b=3) == ["hosts.flows > 2: a has 9"]
    assert look(9999.0) == []
    assert not verdicts._spells, "what is over is forgotten"


def test_rows_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "MOST_ROWS", 5)
    verdicts = Verdicts(made("hosts.flows > 0"))
    for number in range(20):
        verdicts.judge(1.0, float(number), GroupRow(str(number)), PLAIN)
    assert (verdicts.fired, len(verdicts._spells), verdicts.crowded) == (5, 5, True)


# --- flows, rounds: a table that is fed by hand -----------------------------------------------------------------------


class Fed:
    """A watch over a table that hears items; time is what the test says."""

    def __init__(self, *rules: Rule, lookups: Lookups | None = None, around: Circumstances | None = None) -> None:
        self.table = FlowTable(linger=0.0)
        self.intake = Intake(self.table)
        self.context = Context(lookups or Lookups())
        around = around or Circumstances()
        self.watch = Watch(AlertPlan(rules), self.context, self.table, self.intake.status, around)
        self.now = 100.0

    def take(self, *items: Any) -> None:
        for item in items:
            self.intake.take(item)
            self.watch.hear(item, self.now)

    def listing(self, *lines: str) -> None:
        self.take(ListingBegan(self.now), Block("".join(lines).encode(), self.now), ListingEnded(self.now, True))

    def events(self, *lines: str) -> None:
        self.take(Block("".join(lines).encode(), self.now, True))

    def later(self, seconds: float = 0.0) -> list[str]:
        """What is said in the turns that follow."""
        self.now += seconds
        return [alert.text for alert in self.fired()]

    def fired(self) -> list[Alert]:
        """The same, as alerts."""
        for _ in range(200):
            self.watch._next_work = 0.0  # there is time
            self.watch.poll(self.now)
            if not self.watch._has_work:
                break
        return self.watch.take_fired()


def test_a_flow_is_said_once_whatever_comes_of_it() -> None:
    fed = Fed(made("dport:22"))
    fed.take(Trouble(99.0, "events", None))
    fed.listing(line(1, dport=22))
    fed.events(event("UPDATE", 1, dport=22))
    assert fed.later(1.0) == []  # it was there
    fed.events(event("NEW", 2, dport=22), event("UPDATE", 2, dport=22), event("NEW", 3, dport=80))
    assert fed.later() == ["tcp 10.0.0.1:10002 to 192.0.2.1:22"]
    fed.listing(line(1, dport=22), line(2, dport=22, more="mark=0 delta-time=1 use=1 "), line(3, dport=80))
    fed.events(event("UPDATE", 2, dport=22), event("DESTROY", 2, dport=22))
    assert fed.later(1.0) == []
    fed.events(event("NEW", 2, dport=22))  # the same tuple anew
    assert len(fed.later(1.0)) == 1
    assert fed.watch.counts() == {"a": 2}


def test_a_flow_that_comes_to_fit_is_said_then() -> None:
    fed = Fed(made("state:established bytes:>1k"))
    fed.listing()
    fed.events(event("NEW", 1, state="SYN_SENT"), event("NEW", 2))
    assert fed.later(1.0) == []
    fed.listing(line(1, size=5000), line(2, size=50))
    assert [text.partition(" to")[0] for text in fed.later(5.0)] == ["tcp 10.0.0.1:10001"]


def test_a_flow_that_only_a_listing_has_seen_is_new_too() -> None:
    fed = Fed(made("tcp"))
    fed.listing(line(1))
    fed.now += 10
    fed.listing(line(1), line(2))
    assert len(fed.later()) == 1


def only(block: bytes, events: bool) -> bytes:
    """The lines of a block that are events, or those of a listing."""
    tag = re.compile(rb"\[(?:NEW|UPDATE|DESTROY)\]")
    return b"".join(text for text in block.splitlines(keepends=True) if bool(tag.search(text)) == events)


@given(first=blocks, parts=st.lists(st.tuples(st.booleans(), st.booleans(), blocks), max_size=5))
def test_whatever_comes_each_new_flow_is_said_once(first: bytes, parts: list[tuple[bool, bool, bytes]]) -> None:
    """Of events and listings with few addresses and ids, so that the same flow comes in every role."""
    rules = [("all", "family:4,6"), ("rows", "hosts.flows > 0"), ("share", "unreplied >= 0%"), ("new", "new:")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alerts, "MOST_A_SECOND", 10**6)
        fed = Fed(*(rule_of({"name": name, "when": when}, PLAIN) for name, when in rules))
        fed.take(ListingBegan(fed.now), Block(only(first, False), fed.now), ListingEnded(fed.now, True))
        began, there, said = fed.now, set(fed.table.live.values()), []
        for is_listing, looks, part in parts:
            fed.now += 1
            if is_listing:
                fed.take(ListingBegan(fed.now), Block(only(part, False), fed.now), ListingEnded(fed.now, True))
            else:
                fed.take(Block(only(part, True), fed.now, True))
            there |= {*fed.table.live.values(), *(entry[2] for entry in fed.table.tape)}
            if looks:
                said += fed.fired()
        said += fed.fired()
    if fed.watch._began == began:  # else there was no table to begin with
        new = {flow for flow in there if flow.exact or (flow.born > began and flow.born != flow.ended)}
        told = [alert.flow for alert in said if alert.rule.name == "all"]
        assert set(told) == new
        assert len(told) == len(new)
    for alert in said:
        assert json.loads(json_line(alert.item(PLAIN)))["alert"] == alert.rule.name
        assert alert.line.isprintable()


def test_every_of_flows_is_the_rules() -> None:
    fed = Fed(made("tcp", every="1m"))
    fed.listing()
    fed.events(*[event("NEW", number) for number in range(1, 6)])
    assert len(fed.later()) == 1
    fed.now += 60
    fed.events(event("NEW", 9))
    fed.later()
    newest = fed.watch.verdicts[0].newest
    assert newest is not None
    assert newest.line == "alert a: tcp 10.0.0.1:10009 to 192.0.2.1:443 (and 4 more before it)"
    assert [str(notice) for notice in fed.watch.unsaid()] == ["alert a: 4 more were not said"]


def test_a_flood_is_bounded_and_counted() -> None:
    fed = Fed(made("tcp"))
    fed.listing()
    fed.events(*[event("NEW", number) for number in range(1, 501)])
    assert len(fed.later()) == MOST_A_SECOND
    assert fed.watch.verdicts[0].held_back == 500 - MOST_A_SECOND


def test_more_than_can_wait_is_counted_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "MOST_PENDING", 10)
    fed = Fed(made("tcp"))
    fed.listing()
    fed.events(*[event("NEW", number) for number in range(1, 51)])
    assert fed.watch.unjudged == 40
    assert [str(notice) for notice in fed.watch.problems()] == [
        "40 new flows were not judged by alerts: they came too fast"
    ]


def test_more_commands_than_may_wait_are_counted_and_said(tmp_path: Path) -> None:
    """A hundred wait, and 65,536 flows do: one is no bound of the other."""
    fed = Fed(made("tcp", run=[str(tmp_path / "none")]))
    for _ in range(103):
        fed.watch.commands.ask("a", [str(tmp_path / "none")])
    assert fed.watch.commands.dropped == 3
    assert [str(notice) for notice in fed.watch.problems()] == [
        "3 commands of alerts were not run: more than 100 waited"
    ]
    assert (alerts.MOST_COMMANDS, alerts.MOST_PENDING) == (100, 65_536)


COUNTRIES = {"192.0.2.1": "DE", "192.0.2.2": "FR", "192.0.2.3": "JP"}


def places(known: bool = True) -> Lookups:
    return Lookups(where=lambda address: Place(COUNTRIES.get(address), "A 'land'" if known else None))


def test_a_country_that_was_never_seen() -> None:
    """Not one of a flow that was there, nor one that was said: also after all of its flows have gone."""
    fed = Fed(made("new:country"), lookups=places())
    fed.events(event("NEW", 7, dst="192.0.2.3"))  # before the first listing has told what was there
    assert fed.later() == []
    fed.listing(line(1, dst="192.0.2.1"), line(7, dst="192.0.2.3"))
    assert fed.later() == ["tcp 10.0.0.1:10007 to 192.0.2.3:443, A land"]
    fed.events(event("NEW", 2, dst="192.0.2.1"), event("NEW", 3, dst="192.0.2.2"), event("NEW", 4, dst="192.0.2.2"))
    fed.later(1.0)
    newest = fed.watch.verdicts[0].newest
    assert newest is not None
    assert (newest.value, newest.flow and newest.flow.ports()[0]) == ("FR", b"10003")
    fed.events(event("DESTROY", 3, dst="192.0.2.2"), event("NEW", 5, dst="192.0.2.2"))
    assert fed.later(1.0) == []
    assert fed.watch.counts() == {"a": 2}


def test_what_is_not_known_yet_is_asked_again() -> None:
    """The screen looks places up within a budget, and opens databases beside the loop."""
    known: set[str] = set()
    asked: list[str] = []

    def where(address: str) -> Place:
        asked.append(address)
        return Place(COUNTRIES.get(address)) if address in known else Place()

    around = Circumstances(unsure=lambda: bool(set(asked) - known))
    fed = Fed(made("country:FR"), lookups=Lookups(where=where), around=around)
    fed.listing()
    fed.events(event("NEW", 2, dst="192.0.2.2"))
    assert fed.later() == []
    known |= set(COUNTRIES)
    assert fed.later(1.0) == ["tcp 10.0.0.1:10002 to 192.0.2.2:443, FR"]


def test_countries_that_a_database_tells_late_are_no_news() -> None:
    countries: dict[str, str] = {}
    fed = Fed(made("new:country"), lookups=Lookups(where=lambda address: Place(countries.get(address))))
    fed.listing(line(1, dst="192.0.2.1"))
    fed.events(event("NEW", 2, dst="192.0.2.2"))
    assert fed.later() == []
    countries |= COUNTRIES  # it has been fetched
    fed.watch.relearn()
    fed.events(event("NEW", 3, dst="192.0.2.1"), event("NEW", 4, dst="192.0.2.2"), event("NEW", 5, dst="192.0.2.3"))
    assert [text[-2:] for text in fed.later(1.0)] == ["JP"]


def test_what_is_remembered_as_seen_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "MOST_KNOWN", 3)
    fed = Fed(made("new:remote"))
    fed.listing()
    for number in range(1, 9):
        fed.events(event("NEW", number, dst=f"192.0.2.{number}"))
    assert len(fed.later()) == 3
    assert "no longer tell a new remote: more than 3" in str(fed.watch.problems()[0])


def test_numbers_of_rows_and_shares_come_from_rounds() -> None:
    rules = [
        rule_of({"name": name, "when": when}, PLAIN)
        for name, when in (("h", "hosts.flows > 2"), ("s", "services.flows > 3"), ("u", "unreplied > 60%"))
    ]
    rules.append(rule_of({"name": "r", "when": "hosts.remotes > 3"}, PLAIN))
    fed = Fed(*rules)
    silent = "[UNREPLIED] "
    fed.listing(
        *[line(n, src="10.0.0.5", dst=f"192.0.2.{n}", flags=silent) for n in range(1, 5)], line(9, src="10.0.0.6")
    )
    assert fed.later() == [
        *("unreplied > 60%: it is 80%", "hosts.flows > 2: 10.0.0.5 has 4", "services.flows > 3: tcp/443 has 5"),
        "hosts.remotes > 3: 10.0.0.5 has 4",
    ]


@given(flows=st.integers(0, 700), seconds=st.floats(1.0, 30.0))
def test_new_flows_a_second(flows: int, seconds: float) -> None:
    """Evenly over the time: what is counted is what came, within the flows of a second."""
    past = RecentPast()
    for number in range(flows):
        past.bear(1000.0 + seconds * number / flows)
    rate = past.births(1000.0 + seconds, seconds)
    assert rate is not None
    assert rate == pytest.approx(flows / seconds, rel=0.12, abs=1.5)


def test_numbers_of_the_table() -> None:
    status, table, past = Status(), FlowTable(), RecentPast()

    def number(name: str, now: float = 100.0) -> float | None:
        return table_number(name, status, table, now, past, None)

    unknown = {name for name in OF_TABLE if number(name) is None}
    assert unknown == OF_TABLE.keys() - {"lost", "behind"}  # unknown is never 0
    status.take(Facts(100.0, {"count": 50, "max": 200}))
    assert (number("fill"), number("flows")) == (0.25, 50)
    status.take(Lost(100.0, "events"))
    assert [number("lost", at) for at in (101.0, 130.0, 160.0, 162.0)] == [1, 1, 1, 0]


def test_values_for_people() -> None:
    assert [value_text(value, "%") for value in (0.8, 0.805, 0.0, 1e-5)] == ["80%", "80.5%", "0%", "<0.1%"]
    assert value_text(31.0, "s") == "31 s"
    assert {quantity.unit for quantity in (*OF_TABLE.values(), *OF_ROWS.values())} <= {
        "%",
        "",
        "B",
        "B/s",
        "s",
        "/s",
        "/min",
    }
    assert len(quantity_names()) == len(OF_TABLE) + len(ROWS_OF) * len(OF_ROWS) - len(OF_HOSTS) * (len(ROWS_OF) - 1)


# --- what leaves the program ------------------------------------------------------------------------------------------

HOSTILE = "\x1b]0;x\x07$(reboot) `id` \u202e;|&<>'\"\\ lap-top.lan"


@given(st.text(max_size=80))
def test_what_comes_from_outside_says_nothing_to_a_shell_or_a_terminal(text: str) -> None:
    assert not set(harmless(text)) & set("\x1b$`;|&<>'\"\\(){}*?!#~\n\x07")
    assert harmless(text).isprintable() or not harmless(text)


def test_the_words_of_a_command() -> None:
    who = Lookups(who=lambda address: Named(HOSTILE) if address == "10.0.0.1" else Named(), where=places().where)
    run = ["logger", *(f"{{{name}}}" for name in PLACEHOLDERS), "}{", '{"text": "{text}"}']
    rule = Rule("a", "dport:22", run=tuple(run))
    fed = Fed(rule, lookups=who)
    fed.listing()
    fed.events(event("NEW", 2, dport=22, dst="192.0.2.2"))
    text = "tcp 10.0.0.1:10002 (0xreboot id lap-top.lan) to 192.0.2.2:22, A land"
    [said] = fed.later()
    assert said == text
    alert = fed.watch.verdicts[0].newest
    assert alert is not None
    words = alert.words(Context(who), "r7")
    assert words[0] == "logger"
    assert dict(zip(PLACEHOLDERS, words[1:])) == {
        **{"name": "a", "text": text, "value": "192.0.2.2", "time": "1970-01-01T00:01:40.000000Z", "node": "r7"},
        **{"row": "-", "protocol": "tcp", "src": "10.0.0.1", "sport": "10002", "dst": "192.0.2.2", "dport": "22"},
        **{"near": "10.0.0.1", "far": "192.0.2.2", "country": "FR"},
    }
    assert words[-2:] == ["}{", f'{{"text": "{text}"}}']


def test_an_alert_is_a_notice_while_it_holds_and_for_a_while() -> None:
    fed = Fed(made("fill > 80%"))
    fed.take(Facts(100.0, {"count": 90, "max": 100}))
    fed.later()

    def shown() -> list[str]:
        around = alerts_around(fed)
        return [notice.text for notice in around if notice.about is About.ALERT]

    def alerts_around(fed: Fed) -> Any:
        from health import NOTHING_AROUND

        around = NOTHING_AROUND._replace(alerts=fed.watch.notices(fed.now))
        return notices_of(fed.intake.status, fed.table, True, fed.now, around)

    assert shown() == ["alert a: fill > 80%: it is 90%"]
    fed.later(1000.0)
    assert len(shown()) == 1
    fed.take(Facts(fed.now, {"count": 9, "max": 100}))
    fed.later(2.0)
    assert shown() == []


# --- recordings -------------------------------------------------------------------------------------------------------


def settings(folder: Path, text: str) -> dict[str, str]:
    """The environment of a program that has these settings."""
    path = folder / "conntrack-monitor" / "config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    for place in (path, path.parent):
        place.chmod(0o755)
    return {**os.environ, **environment(folder), "XDG_CONFIG_HOME": str(folder)}


def replayed(folder: Path, recording: str, rules: str, *args: str) -> subprocess.CompletedProcess[str]:
    (folder / "day.rec").write_text(recording)
    words = [*PROGRAM, "--replay", str(folder / "day.rec"), *args]
    return subprocess.run(words, env=settings(folder, rules), capture_output=True, text=True, timeout=60, check=True)


def recording() -> str:
    """Three hours: a table that fills up, drops and fills again; births at the end."""
    lines = ["# conntrack-monitor recording 1", "# 1000.0 list", line(1, dst="192.0.2.1").rstrip(), "# 1001.0 end 1"]
    for at in range(1002, 11_000, 2):
        count = 90 if 1100 <= at < 1300 or 1400 <= at < 5000 or at == 9000 else 10
        lines.append(f"# {at}.0 facts count={count} max=100")
    lines += [f"[{11_000 + number / 10:.6f}]\t{event('NEW', number + 10).rstrip()}" for number in range(200)]
    return "\n".join(lines) + "\n"


RULES = """
[[alert]]
name = "full"
when = "fill > 80%"
for = "30s"
every = "10m"
run = ["touch", "PLACE"]
[[alert]]
name = "rush"
when = "new_per_second > 5"
[[alert]]
name = "crowd"
when = "hosts.flows > 100"
"""


@needs_toml
def test_a_recording_is_judged_by_its_own_time_and_runs_nothing(tmp_path: Path) -> None:
    done = replayed(tmp_path, recording(), RULES.replace("PLACE", str(tmp_path / "ran")), "--json")
    items = [json.loads(text) for text in done.stdout.splitlines()]
    found = [item for item in items if item["event"] == "alert"]
    assert [(item["alert"], item["time"], item["value"]) for item in found[:2]] == [
        ("full", "1970-01-01T00:18:50.000000Z", 0.9),  # 30 s after 1100
        ("full", "1970-01-01T00:28:50.000000Z", 0.9),  # 10 minutes after that; what goes on after 1400 is not again
    ]
    assert [item["alert"] for item in found[2:]] == ["rush", "crowd"]
    assert 5 < found[2]["value"] <= 11
    crowd = found[3]
    assert [*crowd][:7] == ["time", "event", "alert", "value", "text", "view", "host"]
    assert (crowd["view"], crowd["host"], crowd["flows"]) == ("hosts", "10.0.0.1", crowd["value"])
    assert not (tmp_path / "ran").exists()
    assert ": alert" not in done.stderr


@needs_toml
def test_in_a_pipe_flows_that_have_ended_count_for_the_rate_that_comes_in(tmp_path: Path) -> None:
    """A flow that began and ended between two listings has no rate of its own."""
    there = line(1, dst="192.0.2.1", size=0).rstrip()
    lines = ["# conntrack-monitor recording 1", "# 1000.0 list", there, "# 1001.0 end 1"]
    lines += [f"[1002.000000]\t{event('NEW', 2).rstrip()}"]
    lines += [f"[1005.000000]\t{event('DESTROY', 2, size=1_000_000).rstrip()}"]
    lines += ["# 1010.0 list", there, "# 1011.0 end 1", *(f"# {at}.0 facts count=1 max=9" for at in range(1012, 1016))]
    rules = '[[alert]]\nname = "much"\nwhen = "rate_in > 50k"\n'
    done = replayed(tmp_path, "\n".join(lines) + "\n", rules, "--json")
    found = [item for item in map(json.loads, done.stdout.splitlines()) if item["event"] == "alert"]
    assert [(item["alert"], item["value"]) for item in found] == [("much", 100_000)]


@needs_toml
def test_csv_has_no_place_for_them_and_once_judges_nothing(tmp_path: Path) -> None:
    done = replayed(tmp_path, recording(), RULES, "--csv")
    assert "alert" not in done.stdout
    said = [text.partition(": ")[2] for text in done.stderr.splitlines() if ": alert" in text]
    assert said[0] == "alert full: fill > 80% for 30 s: it is 90%"
    assert len(said) == 4
    assert ": alert" not in replayed(tmp_path, recording(), RULES, "--once", "--json").stderr


@needs_toml
def test_a_wish_without_rules_is_refused(tmp_path: Path) -> None:
    wrong = '[[alert]]\nname = "a"\nwhen = "fil > 1%"\n'
    for rules, status in (("", 2), (wrong, 2), ('[[alert]]\nname = "a"\nwhen = "tcp"\n', 4)):
        words = [*PROGRAM, "--headless", "--conntrack", "/nonexistent/conntrack"]
        done = subprocess.run(
            words, env=settings(tmp_path, rules), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == status, done.stderr
        assert ("alerts in the settings" in done.stderr) == (status == 2)
        assert ("did you mean fill?" in done.stderr) == (rules == wrong)


def test_a_program_without_rules_does_not_read_this_room() -> None:
    words = [*PROGRAM[:-1], "-X", "importtime", PROGRAM[-1], "--no-config", "--demo", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert "| export" in done.stderr.replace("  ", " ").replace("|   ", "| ") or "export" in done.stderr
    assert not [text for text in done.stderr.splitlines() if text.split()[-1] == "alerts"]


# --- the document -----------------------------------------------------------------------------------------------------

GUIDE = ROOT / "docs" / "alerts.md"


def table_of(head: str) -> list[str]:
    text = GUIDE.read_text(encoding="utf-8")
    rows = text.partition(f"| {head} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [name for row in rows for name in row.split("|")[1].replace("`", "").split()]


def test_all_quantities_and_placeholders_are_in_the_document() -> None:
    assert table_of("number") == [*OF_TABLE]
    assert table_of("number of a row") == [*OF_ROWS]
    assert table_of("placeholder") == [f"{{{name}}}" for name in PLACEHOLDERS]


@needs_toml
def test_the_rules_of_the_document_are_rules(tmp_path: Path) -> None:
    blocks = [block for block in GUIDE.read_text(encoding="utf-8").split("\n\n") if block.startswith("    [[alert]]")]
    assert len(blocks) >= 5
    for block in blocks:
        found = loaded("\n".join(text[4:] for text in block.splitlines()), tmp_path)
        assert found.problem == ""
        assert found.alerts is not None
        assert found.alerts.rules
