"""Alerts: the settings' rules, judging flows, rows and numbers by them, and the commands that an alert runs.

A rule's ``when`` is a filter, which is about each new flow, or a number with a comparison: of the table
(``fill > 80%``) or of each row of a view (``hosts.flows > 2000``). Judging is pure: values and times go in, alerts come
out. ``Watch`` brings it what the loop hears, a few milliseconds at a time; ``Commands`` starts what the rules name.
"""

from __future__ import annotations

import json
import math
import operator
import os
import re
import signal
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice, pairwise, takewhile
from typing import NamedTuple

from addresses import Context, Site
from child import Child, this_program
from export import iso_time, json_object
from filters import MAKERS, SIZES, TIMES, FilterError, Predicate, asks, asks_fans, compile_filter, expanded, or_close
from flows import Flow, FlowTable
from grouping import (
    COUNTRY,
    FAR,
    GROUPINGS,
    LEAST_SPAN,
    NEAR,
    NETWORK,
    NEW_SPAN,
    SERVICE,
    Baseline,
    Grouper,
    Grouping,
    GroupRow,
    group_key,
    group_object,
    logged_keys,
)
from health import TRACKED, About, Census, Notice, Shares, a_minute
from intake import MINUTE, Ended, Item, ListingBegan, ListingEnded, Problem, Status
from text import clean, endpoint, size_text

# --- quantities -------------------------------------------------------------------------------------------------------


class Quantity(NamedTuple):
    """A number that a rule may name."""

    unit: str  # "%": a share, 0 to 1; "B", "B/s", "s", "/s", "/min"; "" for a plain number
    meaning: str


OF_TABLE = {
    "fill": Quantity("%", "entries, of the most that the kernel allows"),
    "flows": Quantity("", "entries in the table"),
    "unreplied": Quantity("%", "flows that nobody has answered, of all"),
    "assured": Quantity("%", "flows that are never evicted early, of all"),
    "new_per_second": Quantity("/s", "new flows a second, over 10 s"),
    "events_per_second": Quantity("/s", "events of the last second"),
    "lost": Quantity("", "how many times events were lost in the last minute"),
    "behind": Quantity("s", "how late events are read"),
    "stale": Quantity("s", "seconds since the newest complete listing"),
    "rate_in": Quantity("B/s", "bytes a second that come in"),
    "rate_out": Quantity("B/s", "bytes a second that go out"),
    **{name: Quantity("/min", meaning) for name, meaning in TRACKED},  # of `conntrack -S`
}
OF_ROWS = {
    "flows": Quantity("", "flows"),
    "unreplied": Quantity("", "flows that nobody has answered"),
    "new_per_second": Quantity("/s", "new flows a second, over 10 s"),
    "rate": Quantity("B/s", "bytes a second, both ways"),
    "rate_in": Quantity("B/s", "bytes a second from the remote ends"),
    "rate_out": Quantity("B/s", "bytes a second to the remote ends"),
    "bytes": Quantity("B", "bytes of the flows, both ways"),
    "bytes_in": Quantity("B", "bytes from the remote ends"),
    "bytes_out": Quantity("B", "bytes to the remote ends"),
    "remotes": Quantity("", "remote addresses; hosts only"),
    "ports": Quantity("", "destination ports; hosts only"),
}
OF_HOSTS = ("remotes", "ports")
ROWS_OF = {"hosts": NEAR, "remotes": FAR, "countries": COUNTRY, "networks": NETWORK, "services": SERVICE}
OF_ALL_FLOWS = ("unreplied", "assured")  # all flows must be looked at


def quantity_names() -> list[str]:
    """All that may stand before a comparison."""
    rows = [f"{view}.{name}" for view in ROWS_OF for name in OF_ROWS if view == "hosts" or name not in OF_HOSTS]
    return [*OF_TABLE, *rows]


def value_text(value: float, unit: str) -> str:
    """A value for people.

    >>> value_text(0.8125, "%"), value_text(2103, ""), value_text(1.5e6, "B/s"), value_text(12.25, "/s")
    ('81.2%', '2103', '1.5MB/s', '12.2/s')
    >>> value_text(0.00001, "%"), value_text(0.9999, "%"), value_text(1.0, "%")
    ('<0.1%', '>99.9%', '100%')
    """
    if unit == "%" and (0 < value < 0.001 or 0.999 < value < 1):  # a little is not nothing
        return "<0.1%" if value < 0.5 else ">99.9%"
    if unit.startswith("B"):
        return size_text(value) + unit
    number = 100 * value if unit == "%" else value
    text = str(int(number)) if number == int(number) else f"{number:.1f}"
    return text + (" s" if unit == "s" else unit)


# --- rules ------------------------------------------------------------------------------------------------------------

LONGEST_RULE_NAME = 64  # characters
MOST_RULES = 50  # each one's filter is asked of each new flow: 1 to 5 us
MOST_WORDS = 64  # of a command
LONGEST_SPAN = 366 * 86_400.0  # seconds
USUAL_EVERY = 600.0  # seconds: of a number. A filter's alerts are about other flows each time.
PLACEHOLDERS = (
    *("name", "text", "value", "time", "node", "row", "protocol", "src", "sport", "dst", "dport"),
    *("near", "far", "country"),
)
_PLACEHOLDER = re.compile(r"\{([A-Za-z_]+)\}")
_RUNS_TEXTS = re.compile(r"(?:a|ba|da|fi|k|mk|z)?sh|python[0-9.]*|perl|ruby|node")  # behind -c or -e
_NUMBER_RULE = re.compile(r"\s*([A-Za-z_][\w.]*)\s*(>=|<=|>|<|=)\s*(\S.*?)\s*")
_LIMIT = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*(%|[A-Za-z]*)")
_SHARES = {"%": 0.01, "": 1.0}
_SIGNS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
    "=": operator.eq,
}


class RuleError(ValueError):
    """A rule is wrong: why, and at which of its keys ("": as a whole)."""

    def __init__(self, why: str, key: str = "") -> None:
        super().__init__(why)
        self.key = key


class Comparison(NamedTuple):
    """A number rule: ``view`` "" for one of the table."""

    view: str
    quantity: str
    sign: str
    limit: float

    @property
    def unit(self) -> str:
        return (OF_ROWS if self.view else OF_TABLE)[self.quantity].unit

    def holds(self, value: float | None) -> bool | None:
        """None where the value is not known."""
        return None if value is None else _SIGNS[self.sign](value, self.limit)


@dataclass(frozen=True)
class Rule:
    """One ``[[alert]]`` of the settings, checked."""

    name: str
    when: str
    compares: Comparison | None = None  # None: ``when`` is a filter
    lasts: float = 0.0  # ``for``: seconds that a number must hold
    every: float = 0.0  # seconds in which it is not said again
    run: tuple[str, ...] = ()


@dataclass(frozen=True)
class AlertPlan:
    """What the settings say of alerts. ``refused``: why no command is run, though the rules name some."""

    rules: tuple[Rule, ...]
    refused: Problem | None = None

    def asks(self, *names: str) -> bool:
        """Is one of these quantities of the table asked for?"""
        return any(rule.compares and not rule.compares.view and rule.compares.quantity in names for rule in self.rules)

    def asks_counters(self) -> bool:
        """Must `conntrack -S` be asked?"""
        return self.asks(*(name for name, _ in TRACKED))

    def asks_events(self) -> bool:
        """Must the table keep its tape, and what comes in and goes out?"""
        return any(rule.compares is None for rule in self.rules) or self.asks("new_per_second", "rate_in", "rate_out")

    def asks_places(self) -> bool:
        """Are there alerts about flows or rows, which have a place?"""
        return any(rule.compares is None or rule.compares.view for rule in self.rules)

    def asks_field(self, name: str, site: Site) -> bool:
        """Has one of the filters a term of this field?"""
        return any(rule.compares is None and asks(rule.when, site, name) for rule in self.rules)


def rules_of(found: object, context: Context) -> Iterator[Rule]:
    """The rules of the settings' ``[[alert]]``. Raises RuleError: the one that should have come next is wrong."""
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise RuleError("write [[alert]], and below it name and when")
    if len(found) > MOST_RULES:
        raise RuleError(f"{len(found)} alerts are too many: {MOST_RULES} at most")
    names: set[str] = set()
    for entry in found:
        rule = rule_of(entry, context)
        if rule.name in names:
            raise RuleError(f"alert '{rule.name}' is there twice", "name")
        names.add(rule.name)
        yield rule


def rule_of(entry: Mapping[str, object], context: Context) -> Rule:
    """A table of the settings as a rule. Raises RuleError."""
    name = _checked_rule_name(entry)
    try:
        for key in entry:
            if key not in _RULE_KEYS:
                raise RuleError(f"unknown key '{clean(key, 40)}'{or_close(key, _RULE_KEYS)}", key)
        when = entry.get("when")
        if not isinstance(when, str) or not when.strip():
            raise RuleError('when: expected a filter or a comparison, such as "fill > 80%"', "when")
        compares = comparison_of(when, context)
        lasts = _seconds_of(entry, "for", 0.0)
        if lasts and compares is None:
            raise RuleError("for: works with numbers only; of flows, write age:>30s in the filter", "for")
        every = _seconds_of(entry, "every", USUAL_EVERY if compares else 0.0)
        return Rule(name, when.strip(), compares, lasts, every, _run_of(entry))
    except RuleError as error:
        raise RuleError(f"alert '{name}': {error}", error.key) from None


_RULE_KEYS = ("name", "when", "for", "every", "run")


def _checked_rule_name(entry: Mapping[str, object]) -> str:
    name = entry.get("name")
    if not isinstance(name, str) or not name.strip() or clean(name, LONGEST_RULE_NAME) != name:
        raise RuleError(f"an alert needs a name: at most {LONGEST_RULE_NAME} printable characters in quotes", "name")
    return name


def comparison_of(when: str, context: Context) -> Comparison | None:
    """What a number rule compares; None for a filter, which is checked. Raises RuleError."""
    match = _NUMBER_RULE.fullmatch(when)
    if match is not None and (match[1] not in MAKERS or match[1] in OF_TABLE):
        return _compared(*match.groups())
    if re.search(r"(?<!\S)(?:[<>]=?|=)(?!\S)", when):  # as bare words they would fit nothing
        raise RuleError("when: a comparison within a filter has no blanks: bytes:>1M", "when")
    try:
        if compile_filter(when, context) is None:
            raise RuleError("when: the filter is empty", "when")
    except FilterError as error:
        raise RuleError(f"when: {error.message}", "when") from None
    if asks_fans(when, context):
        why = "fanout: and ports: count all flows; write hosts.remotes > 100 or hosts.ports > 20"
        raise RuleError(f"when: {why}", "when")
    return None


def _compared(name: str, sign: str, text: str) -> Comparison:
    known = quantity_names()
    if name not in known:
        close = or_close(name, known, "; docs/alerts.md lists all")
        raise RuleError(f"when: '{clean(name, 40)}' is not a number that alerts know{close}", "when")
    view, _, quantity = name.rpartition(".")
    unit = (OF_ROWS if view else OF_TABLE)[quantity].unit
    match = _LIMIT.fullmatch(text)
    units: Mapping[str, float] = _SHARES if unit == "%" else TIMES if unit == "s" else SIZES
    if match is None or match[2].lower() not in units:
        example = {"%": "80%", "s": "30s", "B": "10G", "B/s": "10M"}.get(unit, "500")
        raise RuleError(f"when: '{clean(text, 40)}' is not a value of {name}; write {name} {sign} {example}", "when")
    limit = float(match[1]) * units[match[2].lower()]
    if unit == "%" and limit > 1:
        raise RuleError(f"when: {name} is a share, 100% at most: write {name} {sign} 80%", "when")
    return Comparison(view, quantity, sign, limit)


def _seconds_of(entry: Mapping[str, object], key: str, usual: float) -> float:
    found = entry.get(key, usual)
    seconds = math.nan
    if isinstance(found, str) and (match := re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([smhdw]?)", found)):
        seconds = float(match[1]) * TIMES[match[2]]
    elif type(found) in (int, float):
        seconds = float(str(found))
    if not 0 <= seconds <= LONGEST_SPAN:
        raise RuleError(f'{key}: expected a time, such as "30s", "10m" or "1h"', key)
    return seconds


def _run_of(entry: Mapping[str, object]) -> tuple[str, ...]:
    """The words of a command. A placeholder in the text of a shell would run whatever it stands for."""
    words = entry.get("run", [])
    if not isinstance(words, list) or not all(isinstance(word, str) and "\0" not in word for word in words):
        raise RuleError('run: expected a list of strings, such as ["notify-send", "{name}", "{text}"]', "run")
    if not words and "run" not in entry:
        return ()
    if not words or not words[0] or words[0].startswith("-") or _PLACEHOLDER.search(words[0]):
        raise RuleError("run: the first word must be a program", "run")
    if len(words) > MOST_WORDS:
        raise RuleError(f"run: {len(words)} words are too many: {MOST_WORDS} at most", "run")
    for word in words:
        for name in _PLACEHOLDER.findall(word):
            if name not in PLACEHOLDERS:
                raise RuleError(f"run: {{{name}}} is not a placeholder{or_close(name, PLACEHOLDERS)}", "run")
    if any(_RUNS_TEXTS.fullmatch(os.path.basename(word)) for word in words):
        texts = [word for option, word in pairwise(words) if re.fullmatch(r"-[a-z]*[ce]", option)]
        if any(map(_PLACEHOLDER.search, texts)):
            why = 'it would run what a placeholder stands for; write "$1" there, and the placeholder behind it'
            raise RuleError(f"run: {why}", "run")
    return tuple(words)


# --- alerts -----------------------------------------------------------------------------------------------------------

MOST_NAMED = 10  # countries or hosts of a row that an alert names


class Alert(NamedTuple):
    """What a rule has to say. ``value``: the number; of a filter what is new, or the remote end's address."""

    rule: Rule
    at: float  # on the source's clock
    value: float | str
    text: str
    held_back: int = 0  # alerts of this rule before this one that were not said
    flow: Flow | None = None
    row: GroupRow | None = None

    @property
    def line(self) -> str:
        """For people."""
        more = f" (and {self.held_back} more before it)" if self.held_back else ""
        return f"alert {self.rule.name}: {self.text}{more}"

    def item(self, context: Context) -> dict[str, object]:
        """The JSON object: the flow's keys, or the row's, behind its own."""
        moment = f"{self.at + context.epoch:.6f}"
        value = round(self.value, 6) if isinstance(self.value, float) else self.value
        item: dict[str, object] = {"time": iso_time(moment), "event": "alert", "alert": self.rule.name, "value": value}
        item |= {"text": self.text} | ({"held_back": self.held_back} if self.held_back else {})
        if self.flow is not None:
            about: Mapping[str, object] = json_object(self.flow.record(), self.flow, context, "alert", moment)
            item |= {key: value for key, value in about.items() if key not in item}
        if self.row is not None and self.rule.compares is not None:
            grouping = ROWS_OF[self.rule.compares.view]
            about = group_object(self.row, grouping, context.who(self.row.key))
            item |= {"view": self.rule.compares.view}
            # A service may have thousands of hosts.
            item |= {key: value[:MOST_NAMED] if isinstance(value, list) else value for key, value in about.items()}
            item.pop("share", None)  # of what is on a screen
        return item

    def words(self, context: Context, node: str) -> list[str]:
        """The command with what its placeholders stand for."""
        known = {
            "name": self.rule.name,
            "text": self.text,
            "value": self._value_text(),
            "time": iso_time(f"{self.at + context.epoch:.6f}"),
            "node": node,
            "row": self.row.key if self.row is not None else "",
            **_of_flow(self.flow, context),
        }
        shown = {name: clean(str(text), 400) for name, text in known.items() if text not in ("", None)}
        # What an option begins with can't come from outside: a value that does is not a host's, a name's or a number's.
        return [_PLACEHOLDER.sub(lambda match: shown.get(match[1], "-"), word) for word in self.rule.run]

    def _value_text(self) -> str:
        if isinstance(self.value, str) or self.rule.compares is None:
            return str(self.value)
        return value_text(self.value, self.rule.compares.unit)


def _of_flow(flow: Flow | None, context: Context) -> dict[str, object]:
    if flow is None:
        return {}
    ends = flow.ends()
    near, far, _ = context.sides(flow)
    known: dict[str, object] = {"protocol": flow.kind.protocol, "near": near, "far": far}
    known |= {"src": ends.src, "dst": ends.dst, "sport": ends.sport, "dport": ends.dport}
    return known | {"country": context.where(far).country}


def flow_text(flow: Flow, context: Context) -> str:
    """A flow in a line: ``tcp 10.0.0.5:53766 (laptop) to 203.0.113.2:443, Germany``."""
    ends = flow.ends()
    near, far, inward = context.sides(flow)
    names = {ends.src: near if not inward else far, ends.dst: far if not inward else near}
    src = endpoint(ends.src, ends.sport) + _who_in_words(names[ends.src], context)
    dst = endpoint(ends.dst, ends.dport) + (_who_in_words(names[ends.dst], context) if ends.dst != ends.src else "")
    place = context.where(far)
    where = harmless(place.country_name or place.country or "")
    return clean(f"{flow.kind.protocol} {src} to {dst}" + (f", {where}" if where else ""), 300)


def _who_in_words(address: str, context: Context) -> str:
    """Who has an address, in parentheses. Devices choose their names."""
    label = harmless(context.who(address).label)
    return f" ({label})" if label else ""


def harmless(text: str) -> str:
    """A text from outside without what means something to a shell: a command may bring it to one, as ssh does."""
    return clean(re.sub(r"[^\w .:/@-]", "", text), 60)


# --- judging ----------------------------------------------------------------------------------------------------------

MOST_A_SECOND = 20  # alerts of one rule; those beyond are counted
MOST_ROWS = 4096  # of a rule, that are remembered
MOST_FIRED = 32_768  # flows of a rule, that are remembered: 2 MiB, and 13 MiB where they are gone


class Spell:
    """How long a number has been holding, and whether that was said. One for each number or row of a rule."""

    __slots__ = ("said", "since", "told", "waits")

    def __init__(self) -> None:
        self.since: float | None = None  # since when it holds; None: it does not
        self.told = False  # this spell was said
        self.waits = False  # it would have been said, but for ``every``
        self.said: float | None = None  # when a spell was said last

    def step(self, holds: bool | None, now: float, lasts: float, every: float) -> bool:
        """True when it is to be said: once in each spell, ``every`` seconds apart at least.

        ``holds`` None: nobody knows. What has not been said by then must last anew.
        """
        if not holds:
            if holds is not None or not self.told:
                self.since = None
            if holds is not None:
                self.told = False
            return False
        if self.since is None or now < self.since:
            self.since = now
        if self.told or now - self.since < lasts:
            return False
        if self.said is not None and 0 <= now - self.said < every:
            self.waits = True
            return False
        self.told, self.said, self.waits = True, now, False
        return True

    def end(self, now: float) -> bool:
        """It does not hold. True where it would have been said, but for ``every``."""
        self.step(False, now, 0.0, 0.0)
        waited, self.waits = self.waits, False
        return waited

    def is_past(self, now: float, every: float) -> bool:
        """May it be forgotten?"""
        return self.since is None and (self.said is None or not 0 <= now - self.said < every)


class Verdicts:
    """What is remembered of one rule."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.fired = self.held_back = 0
        self.newest: Alert | None = None
        self._unsaid = 0  # held back since the newest one
        self._spells: dict[str, Spell] = {}  # by the row's key; "" for a number of the table
        self._known: dict[Flow, None] = {}  # flows that it was about, the newest last
        self._looked_through_at = MOST_FIRED // 32
        self.crowded = False  # more rows fit than are remembered
        self._said: float | None = None
        self._second, self._in_second = -math.inf, 0

    @property
    def holds(self) -> bool:
        """Is there a spell that was said and goes on?"""
        return any(spell.told for spell in self._spells.values())

    def judge(self, value: float | None, now: float, row: GroupRow | None, context: Context) -> Alert | None:
        """A number of the table, or of a row."""
        compares = self.rule.compares
        assert compares
        key, holds = "" if row is None else row.key, compares.holds(value)
        spell = self._spells.get(key)
        if spell is None:
            if not holds:
                return None
            if len(self._spells) >= MOST_ROWS:
                self.crowded = True
                return None
            spell = self._spells[key] = Spell()
        if holds is False:
            self._end(spell, now)
        elif spell.step(holds, now, self.rule.lasts, self.rule.every) and value is not None and self._may(now, 0.0):
            return self._fire(Alert(self.rule, now, value, self._text(value, row, context), row=row))
        return None

    def _end(self, spell: Spell, now: float) -> None:
        if spell.end(now):
            self._hold_back()

    def end_rows(self, there: Collection[str], now: float) -> None:
        """A round is over: rows that are no longer there do not hold."""
        for key, spell in list(self._spells.items()):
            if key not in there:
                self._end(spell, now)
            if spell.is_past(now, self.rule.every):
                del self._spells[key]

    def about(self, flow: Flow, now: float, value: str, context: Context) -> Alert | None:
        """A flow fits that was not known (``knows``)."""
        if len(self._known) >= self._looked_through_at:  # a listing may have shown that some are gone
            self._known = {known: None for known in self._known if known.progress.ended is None}
            self._looked_through_at = max(MOST_FIRED // 32, 2 * len(self._known))
        if len(self._known) >= MOST_FIRED:
            del self._known[next(iter(self._known))]
        self._known[flow] = None
        if not self._may(now, self.rule.every):
            return None
        return self._fire(Alert(self.rule, now, value, flow_text(flow, context), flow=flow))

    def knows(self, flow: Flow) -> bool:
        return flow in self._known

    def forget(self, flow: Flow) -> None:
        """It has ended: there is no more to come of it."""
        self._known.pop(flow, None)

    def _text(self, value: float, row: GroupRow | None, context: Context) -> str:
        compares = self.rule.compares
        assert compares
        lasts = f" for {self.rule.lasts:g} s" if self.rule.lasts else ""
        said = value_text(value, compares.unit)
        if row is None:
            return f"{self.rule.when}{lasts}: it is {said}"
        label = f" ({harmless(row.label)})" if row.label else _who_in_words(row.key, context)
        return f"{self.rule.when}{lasts}: {clean(row.key, 100) or 'unknown'}{label} has {said}"

    def _may(self, now: float, every: float) -> bool:
        """Is it time for another one?"""
        if not 0 <= now - self._second < 1:
            self._second, self._in_second = now, 0
        early = self._said is not None and 0 <= now - self._said < every
        if early or self._in_second >= MOST_A_SECOND:
            self._hold_back()
            return False
        self._in_second += 1
        self._said = now
        return True

    def _hold_back(self) -> None:
        self.held_back += 1
        self._unsaid += 1

    def _fire(self, alert: Alert) -> Alert:
        self.fired += 1
        self.newest, self._unsaid = alert._replace(held_back=self._unsaid), 0
        return self.newest


def row_value(row: GroupRow, quantity: str) -> float | None:
    """A row's number; None where it is not known."""
    if quantity in OF_HOSTS:
        return None if row.fan is None else getattr(row.fan, quantity)
    if quantity.startswith("rate"):
        return row.sure_rate(getattr(row, quantity))
    if quantity.startswith("bytes"):
        return row.sure_size(getattr(row, quantity.replace("bytes", "size")))
    return row.births() if quantity == "new_per_second" else getattr(row, quantity)


class RecentPast:
    """What happened in the last seconds, as far as rules ask for it: births, and how many losses there had been."""

    def __init__(self) -> None:
        self._births: deque[list[float]] = deque(maxlen=int(NEW_SPAN) + 2)  # second and number
        self._losses: deque[tuple[float, int]] = deque([(-math.inf, 0)], maxlen=int(MINUTE) + 2)

    def bear(self, at: float) -> None:
        second = math.floor(at)
        if not self._births or self._births[-1][0] < second:
            self._births.append([second, 0])
        self._births[-1][1] += 1

    def births(self, now: float, watched: float | None) -> float | None:
        """New flows a second. ``watched``: as ``FlowTable.watched`` says."""
        if watched is None or watched < LEAST_SPAN:
            return None
        since = max(math.floor(now) + 1.0 - NEW_SPAN, now - watched)  # whole seconds are counted
        return sum(number for second, number in self._births if math.floor(since) <= second <= now) / (now - since)

    def losses(self, now: float, losses: int) -> int:
        """Losses within a minute; to be asked once a second."""
        if now - self._losses[-1][0] >= 1.0:
            self._losses.append((now, losses))
        before = [number for at, number in self._losses if at <= now - MINUTE] or [self._losses[0][1]]
        return losses - before[-1]


def table_number(
    name: str, status: Status, table: FlowTable, now: float, past: RecentPast, shares: Shares | None
) -> float | None:
    """A quantity of the table; None where it is not known."""
    count, most = status.facts.get("count"), status.facts.get("max")
    if name == "fill":
        return count / most if count is not None and most else None
    if name == "flows":
        return count if count is not None else len(table) if table.listings else None
    if name in OF_ALL_FLOWS:
        return getattr(shares, name) / shares.flows if shares is not None and shares.flows else None
    if name == "new_per_second":
        return past.births(now, table.watched(now))
    if name == "events_per_second":
        return table.history[-1] if table.history and table.watched_since is not None else None
    if name == "lost":
        return past.losses(now, status.losses)
    if name == "behind":
        return status.behind
    if name == "stale":
        return None if table.listed_at is None else max(0.0, now - table.listed_at)
    if name in ("rate_in", "rate_out"):
        return table.rate_in if name == "rate_in" else table.rate_out
    return a_minute(status, name, now) if status.counted else None


# --- commands ---------------------------------------------------------------------------------------------------------

RUN_AT_ONCE, MOST_COMMANDS, MOST_STARTS = 4, 100, 10  # commands that run, that wait, that are started in a second
COMMAND_TIME, GRACE = 30.0, 2.0  # seconds that a command gets; after SIGTERM
CLOSING = 0.5  # seconds for commands to end when the program does
GATHERED = 0.25  # seconds between two reads of a command that prints no end of it


class Running(NamedTuple):
    """A command that was started."""

    rule: str
    child: Child
    until: float  # on the scale of time.monotonic()
    told: bool = False  # to end


class Commands:
    """The commands of alerts: few at once, each for a limited time, none waited for."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[str, list[str]]] = deque()
        self._running: list[Running] = []
        self._starts: deque[float] = deque(maxlen=MOST_STARTS)
        self.failures: dict[str, Notice] = {}  # by rule, the newest run's
        self.dropped = 0  # more waited than may

    def ask(self, rule: str, words: list[str]) -> None:
        """Run it when there is room."""
        if len(self._waiting) >= MOST_COMMANDS:
            self.dropped += 1
            return
        self._waiting.append((rule, words))

    def fds(self) -> list[int]:
        return [fd for running in self._running for fd in running.child.fds()]

    def deadline(self) -> float:
        """On the scale of time.monotonic()."""
        now, due = time.monotonic(), math.inf
        if self._waiting and len(self._running) < RUN_AT_ONCE:
            due = self._starts[0] + 1.0 if len(self._starts) == MOST_STARTS else now
        for running in self._running:  # one may end and leave its output to another process
            due = min(due, running.until, now + (0.1 if running.child.out is None else 0.5))
            due = min(due, running.child.gathers_until if running.child.gathers_until > now else due)
        return due

    def poll(self) -> None:
        """Go on, without waiting."""
        self._running = [running for running in map(self._go_on, self._running) if running is not None]
        while self._waiting and len(self._running) < RUN_AT_ONCE:
            now = time.monotonic()
            if len(self._starts) == MOST_STARTS and now - self._starts[0] < 1.0:
                return
            self._starts.append(now)
            self._start(*self._waiting.popleft())

    def _start(self, rule: str, words: list[str]) -> None:
        program = clean(words[0], 200)
        try:
            self._running.append(Running(rule, Child(words, GATHERED), time.monotonic() + COMMAND_TIME))
        except FileNotFoundError:
            self._fail(rule, Notice(f"alert {rule}: its command {program} is not found", about=About.ALERT))
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            self._fail(rule, Notice(f"alert {rule}: its command {program} can't be run: {why}", about=About.ALERT))

    def _go_on(self, running: Running) -> Running | None:
        rule, child, until, told = running
        child.read()
        child.read_errors()
        if child.is_over():
            status = child.process.poll()
            for _ in range(16):  # 64 KiB: another process may hold it, and write on
                if not child.read_errors():
                    break
            child.stop()  # it is reaped: its pipes are closed, and what it has left behind goes on
            self._take(rule, child, status or 0, told)
            return None
        if time.monotonic() < until:
            return running
        child.signal(signal.SIGKILL if told else signal.SIGTERM)
        return Running(rule, child, time.monotonic() + GRACE, told=True)

    def _take(self, rule: str, child: Child, status: int, told: bool) -> None:
        said = clean(child.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2], 120)
        program = clean(child.argv[0], 200)
        if told:
            text = f"alert {rule}: its command {program} was ended after {COMMAND_TIME:g} s"
        elif status:
            how = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
            text = f"alert {rule}: its command {program} {how}" + (f": {said}" if said else "")
        else:
            self.failures.pop(rule, None)
            return
        self._fail(rule, Notice(text, about=About.ALERT))

    def _fail(self, rule: str, notice: Notice) -> None:
        self.failures[rule] = replace(notice, state=notice.text)

    def close(self) -> int:
        """Those that run get a moment to end; returns how many did not, or were never started."""
        until = time.monotonic() + CLOSING
        while self._running and time.monotonic() < until:
            self.poll()
            time.sleep(0.01)
        for running in self._running:
            running.child.signal(signal.SIGTERM)
        for running in self._running:
            running.child.stop(0.05)
        left, self._running = len(self._running) + len(self._waiting), []
        self._waiting.clear()
        return left


# --- in the loop ------------------------------------------------------------------------------------------------------

NUMBERS_EVERY = 1.0  # seconds between two looks at the numbers of the table
JUDGED_AT_ONCE, REST = 0.004, 3.0  # seconds that judging goes on; its share of the time is 1 / (1 + REST) at most
# Seconds between two rounds over all flows. They take 1/20 of the time: 262,144 flows are added up in 3 s.
ROUND_REST, LONGEST_REST, ROUND_SHARE = 2.0, 600.0, 20.0
ROUND_OF_RECORDING, ROUND_OF_FLOW = 10.0, 0.001  # recorded seconds between two rounds, and for each flow
PIECE = 50  # flows added up, or rows judged, between two looks at the clock: 1 ms
MOST_PENDING = 65_536  # new flows that wait to be judged
MOST_KNOWN = 262_144  # hosts, or remote ends, that new: remembers
SHOWN, FLOWS_SHOWN = 60.0, 300.0  # seconds that an alert stays in the header: of a number at least, of a flow
MEASURES = ("bytes", "packets", "rate", "age", "timeout", "idle")  # no event tells of them
CHANGING = (*MEASURES, "name", "container", "process", "label", "helper", "mark")


def never_unsure() -> bool:
    return False


class Circumstances(NamedTuple):
    """How the program runs, as far as alerts must know."""

    live: bool = True  # the kernel is watched; in a recording no command is run
    at_once: bool = False  # nobody waits for a frame: a recording is judged by its own time
    node: str = ""  # the machine whose table it is
    log: str = ""  # the folder of a flow log, which knows what was seen before
    begin: Callable[[], None] = lambda: None  # a slice of work begins, in which places may be looked up
    unsure: Callable[[], bool] = never_unsure  # was a place asked in it that is not known yet?


def _log_child(folder: str) -> Child | None:
    """What asks the flow log for all that it had seen a day ago; None where there is no process to be had."""
    try:
        return Child(this_program("--no-config", "--log-first", "--log", folder))
    except OSError:
        return None


def _items_in(lines: Iterable[bytes]) -> Iterator[dict[str, object]]:
    """The objects in what ``run.tell_known`` prints."""
    for line in lines:
        with suppress(ValueError):
            if isinstance(said := json.loads(line), dict):
                yield said


class FlowRule(NamedTuple):
    """A rule about flows, ready to be asked."""

    verdicts: Verdicts
    fits: Predicate
    new: tuple[Grouping, ...]  # what its ``new:`` is about
    again: bool  # a flow may come to fit without an event


_NEVER = math.inf


class Watch:
    """Alerts in the loop: hears of each item that was taken in, and goes on for a few milliseconds at each turn."""

    def __init__(
        self,
        plan: AlertPlan,
        context: Context,
        table: FlowTable,
        status: Status,
        around: Circumstances = Circumstances(),  # noqa: B008  a tuple
    ) -> None:
        self.plan, self._context, self._table, self._status, self._around = plan, context, table, status, around
        self._at_once = around.at_once
        self.verdicts = [Verdicts(rule) for rule in plan.rules]
        numbers = [(v, v.rule.compares) for v in self.verdicts if v.rule.compares is not None]
        self._of_table = [(v, its) for v, its in numbers if not its.view and its.quantity not in OF_ALL_FLOWS]
        self._counted = [(v, its) for v, its in numbers if not its.view and its.quantity in OF_ALL_FLOWS]
        self._of_rows = [(v, its) for v, its in numbers if its.view]
        self._seen = self._first_seen()
        self._of_flows = [self._flow_rule(v) for v in self.verdicts if v.rule.compares is None]
        self._again = [rule for rule in self._of_flows if rule.again]
        self.commands = Commands()
        self._fired: list[Alert] = []
        self._past, self._heard = RecentPast(), table.events
        self._pending: OrderedDict[Flow, None] = OrderedDict()  # each once: one that has ended is not remembered
        self.unjudged = 0  # new flows that came faster than they could be judged
        self._began = _NEVER  # when the first listing was complete: what a later one finds is new
        self._listing_began = 0.0
        self._learning: Iterator[None] | None = None
        self._round: Iterator[None] | None = None
        self._learnt = self._seen is None
        self._log = _log_child(around.log) if around.log and self._seen is not None else None
        self._round_cost = self._next_work = 0.0  # seconds; on the scale of time.monotonic()
        self._next_round = self._next_numbers = -math.inf  # on the source's clock

    # --- what the ways ask ---

    def take_fired(self) -> list[Alert]:
        """The alerts since the last call."""
        fired, self._fired = self._fired, []
        return fired

    def counts(self) -> dict[str, int]:
        """How many alerts each rule has fired, by its name."""
        return {verdicts.rule.name: verdicts.fired for verdicts in self.verdicts}

    def problems(self) -> list[Notice]:
        """What is wrong with alerts themselves."""
        out = list(self.commands.failures.values())
        if (refused := self.plan.refused) is not None and self._around.live:
            out.append(Notice(refused.what, refused.cure, about=About.ALERT, state=refused.what))
        if number := self.commands.dropped:
            text = f"{number} commands of alerts were not run: more than {MOST_COMMANDS} waited"
            out.append(Notice(text, about=About.ALERT, state=("dropped", len(str(number)))))
        if number := self.unjudged:
            text = f"{number} new flows were not judged by alerts: they came too fast"
            out.append(Notice(text, about=About.ALERT, state=("unjudged", len(str(number)))))
        for verdicts in self.verdicts:
            if verdicts.crowded:
                text = f"alert {verdicts.rule.name}: more than {MOST_ROWS} rows fit, and no more are judged"
                out.append(Notice(text, about=About.ALERT, state=("crowded", verdicts.rule.name)))
        for name in self._seen.full() if self._seen is not None else ():
            text = f"alerts no longer tell a new {name}: more than {MOST_KNOWN} were seen"
            out.append(Notice(text, about=About.ALERT, state=("full", name)))
        return out

    def notices(self, now: float) -> list[Notice]:
        """For the header: the newest of each rule while it holds, or for a while. ``now``: on the source's clock."""
        out = []
        for verdicts in self.verdicts:
            alert = verdicts.newest
            if alert is None:
                continue
            shown = SHOWN if alert.rule.compares else FLOWS_SHOWN
            if verdicts.holds or 0 <= now - alert.at < shown:
                out.append(Notice(alert.line, about=About.ALERT, state=(alert.rule.name, verdicts.fired)))
        return out + self.problems()

    def unsaid(self) -> list[Notice]:
        """For the end: what was held back."""
        return [
            Notice(f"alert {verdicts.rule.name}: {verdicts.held_back} more were not said", about=About.ALERT)
            for verdicts in self.verdicts
            if verdicts.held_back
        ]

    def relearn(self) -> None:
        """Places are known that were not: what is there now is not new by that."""
        if self._seen is not None:
            self._learnt, self._learning = False, None

    # --- what the loop tells ---

    def hear(self, item: Item, now: float) -> None:
        """An item was taken in. ``now``: on the source's clock."""
        if isinstance(item, ListingBegan):
            self._listing_began = item.at
        elif isinstance(item, ListingEnded) and item.complete and self._table.listings:
            if self._began == _NEVER:
                self._began = item.at
            elif self._of_flows:
                found = takewhile(lambda flow: flow.born >= self._listing_began, reversed(self._table.live.values()))
                self._await([flow for flow in islice(found, MOST_PENDING) if not flow.exact][::-1])
        self._drain(now)
        if isinstance(item, Ended):  # its clock stands still from now on: a last look
            self._next_numbers = self._next_round = -math.inf
        if self._at_once:
            self._numbers(now)
            self._go_on_at_once(now)

    def _drain(self, now: float) -> None:
        """Take what the tape has that was not looked at."""
        table, came = self._table, self._table.events - self._heard
        self._heard = table.events
        number = min(came, len(table.tape))
        if number <= 0:
            return
        entries = list(islice(reversed(table.tape), number))[::-1]
        if self._of_flows:
            self.unjudged += came - number
            self._await([flow for flow in dict.fromkeys([entry[2] for entry in entries]) if self._is_new(flow)])
        for at, name, _flow, _state in entries if self._of_table else ():
            if name == "new":
                self._past.bear(at)
            if self._at_once and at >= self._next_numbers:
                self._numbers(min(at, now))

    def _is_new(self, flow: Flow) -> bool:
        """A flow of which only the end was heard is none: a listing may have shown before that it is gone."""
        its = flow.progress
        return its.exact or (flow.born > self._began and flow.born != its.ended)

    def _await(self, flows: Sequence[Flow]) -> None:
        room = MOST_PENDING - len(self._pending)
        self.unjudged += max(0, len(flows) - room)
        for flow in flows[:room]:
            self._pending[flow] = None

    # --- in the loop's turns ---

    def fds(self) -> list[int]:
        return [*self.commands.fds(), *(self._log.fds() if self._log is not None else ())]

    def deadline(self, now: float) -> float:
        """When to come again, on the scale of time.monotonic(). ``now``: on the source's clock."""
        here, due = time.monotonic(), self.commands.deadline()
        if self._log is not None and self._log.out is None:
            due = min(due, here + 0.02)
        if self._at_once:
            return due
        if self._has_work or self._is_round_due(now):
            due = min(due, max(self._next_work, here))
        if self._of_table:
            due = min(due, here + max(0.0, min(self._next_numbers - now, NUMBERS_EVERY)))
        if self._has_rounds and self._next_round > now:
            due = min(due, here + min(self._next_round - now, LONGEST_REST))
        return due

    def poll(self, now: float) -> None:
        """Go on for a moment. ``now``: on the source's clock."""
        self.commands.poll()
        self._read_log()
        if self._at_once:
            return
        self._numbers(now)
        began = time.monotonic()
        if began < self._next_work or not (self._has_work or self._is_round_due(now)):
            return

        def enough() -> bool:
            return time.monotonic() - began > JUDGED_AT_ONCE

        self._around.begin()
        self._context.advance(now, self._table.own, self._table.timeouts)
        self._learn_on(enough)
        self._judge_pending(now, enough)
        self._round_on(now, enough)
        spent = time.monotonic() - began
        if self._has_work:
            self._next_work = began + spent + REST * max(spent, JUDGED_AT_ONCE)

    @property
    def _has_work(self) -> bool:
        """Is there something that can go on?"""
        return bool(self._is_to_learn or (self._pending and self._learnt) or self._round is not None)

    def close(self) -> int:
        """Returns how many commands had not ended."""
        if self._log is not None:
            self._log.stop()
            self._log = None
        return self.commands.close()

    def _fire(self, alert: Alert | None) -> None:
        if alert is None:
            return
        self._fired.append(alert)
        if alert.rule.run and self._around.live and self.plan.refused is None:
            self.commands.ask(alert.rule.name, alert.words(self._context, clean(self._around.node, 100)))

    def _numbers(self, now: float) -> None:
        if now < self._next_numbers <= now + 2 * NUMBERS_EVERY or not self._of_table:
            return
        self._next_numbers = now + NUMBERS_EVERY
        for verdicts, compares in self._of_table:
            value = table_number(compares.quantity, self._status, self._table, now, self._past, None)
            self._fire(verdicts.judge(value, now, None, self._context))

    # --- what the flow log knows ---

    def _read_log(self) -> None:
        """Take what the log had seen a day ago; nothing is called new before all of it is known."""
        child = self._log
        if child is None:
            return
        if self._seen is not None and (lines := child.read()):  # 3,000 of them, in 6 ms
            self._seen.know(logged_keys(_items_in(lines.splitlines())))
            return
        child.read_errors()
        if child.ended() is not None or time.monotonic() - child.started > COMMAND_TIME:
            child.stop(0.0)
            self._log = None

    # --- flows ---

    def _first_seen(self) -> Baseline | None:
        """What ``new:`` of the rules counts from: all that was ever seen. None where no rule asks."""
        asked = [grouping for rule in self.plan.rules if not rule.compares for grouping in self._new_of(rule)]
        return Baseline(-math.inf, self._context, of=list(dict.fromkeys(asked)), most=MOST_KNOWN) if asked else None

    def _new_of(self, rule: Rule) -> tuple[Grouping, ...]:
        values = re.findall(r"(?i)(?<![a-z])new:([\w,]*)", expanded(rule.when, self._context))
        names = {name.lower() for value in values for name in value.split(",")}
        every = names & {"", "any"}
        return tuple(grouping for name, grouping in GROUPINGS.items() if every or name in names)

    def _flow_rule(self, verdicts: Verdicts) -> FlowRule:
        rule = verdicts.rule
        fits = compile_filter(rule.when, self._context, lambda: self._seen)
        assert fits
        return FlowRule(verdicts, fits, self._new_of(rule), asks(rule.when, self._context, *CHANGING))

    def _learn_on(self, enough: Callable[[], bool]) -> None:
        """Go on with learning what was there before anything is called new."""
        if self._seen is None or not self._is_to_learn:
            return
        if self._learning is None:
            self._learning = self._learn(self._seen)
        for _ in self._learning:
            if enough() or self._around.unsure():
                return
        self._learning, self._learnt = None, True

    @property
    def _is_to_learn(self) -> bool:
        """Is there a whole table to learn from, and has the log said what it knows?"""
        table = self._table
        there = table.listings > 0 or not (self._around.live or table.listing or table.since is None)
        return not self._learnt and there and self._log is None

    def _learn(self, seen: Baseline) -> Iterator[None]:
        """Flows that wait to be judged are not known yet."""
        waiting = set(self._pending)  # as they are now
        for at, flow in enumerate(list(self._table.live.values())):
            if flow in waiting:
                continue
            seen.learn(flow)
            while self._around.unsure():
                yield
                seen.learn(flow)
            if at % PIECE == 0:
                yield

    def _judge_pending(self, now: float, enough: Callable[[], bool]) -> None:
        if not self._learnt:
            return
        at = 0
        while self._pending:
            flow = next(iter(self._pending))
            if not self._judge(flow, now):  # a place was asked that is looked up in the next turn
                return
            del self._pending[flow]
            at += 1
            if at % 16 == 0 and enough():
                return

    def _judge(self, flow: Flow, now: float) -> bool:
        """Judge a flow by all filters; False where nobody knows yet where it goes."""
        fitting = [rule for rule in self._of_flows if not rule.verdicts.knows(flow) and rule.fits(flow)]
        if self._around.unsure is not never_unsure:
            if self._seen is not None:
                self._context.remote(flow)  # also where no filter came so far as to ask
            if self._around.unsure():
                return False
        for rule in fitting:
            self._fire(rule.verdicts.about(flow, now, self._value_of(flow, rule.new), self._context))
        if self._seen is not None:
            self._seen.learn(flow)
        if flow.progress.ended is not None:
            for rule in self._of_flows:
                rule.verdicts.forget(flow)
        return True

    def _value_of(self, flow: Flow, new: Sequence[Grouping]) -> str:
        """What is new of it; else its remote end."""
        if self._seen is not None and new:
            keys = [group_key(flow, g, self._context) for g in new if self._seen.is_new(flow, (g,))]
            if keys:
                return clean(", ".join(keys), 200)
        return self._context.remote_address(flow)

    # --- rounds over all flows ---

    @property
    def _has_rounds(self) -> bool:
        return bool(self._of_rows or self._counted or self._again)

    def _is_round_due(self, now: float) -> bool:
        table = self._table
        if not self._has_rounds or not self._learnt or self._round is not None:
            return False
        if not table.listings and (self._around.live or table.listing):
            return False  # a part of the table has no sums
        return not now < self._next_round <= now + LONGEST_REST  # a recording may have been gone back in

    def _round_on(self, now: float, enough: Callable[[], bool]) -> None:
        """Go on with adding up all flows, or begin when it is due."""
        if self._is_round_due(now):
            self._round, self._round_cost = self._add_up(now), 0.0
        if self._round is None:
            return
        began = time.monotonic()
        for _ in self._round:
            if enough():
                self._round_cost += time.monotonic() - began
                return
        self._round = None
        self._round_cost += time.monotonic() - began
        self._next_round = now + min(max(ROUND_REST, ROUND_SHARE * self._round_cost), LONGEST_REST)

    def _go_on_at_once(self, now: float) -> None:
        """A recording that nobody looks at: by its own time, whatever the machine takes for it."""
        self._context.advance(now, self._table.own, self._table.timeouts)
        self._learn_on(lambda: False)
        self._judge_pending(now, lambda: False)
        if self._has_rounds and now >= self._next_round and not self._table.listing and len(self._table):
            for _ in self._add_up(now):
                pass
            self._next_round = now + ROUND_OF_RECORDING + ROUND_OF_FLOW * len(self._table)

    def _add_up(self, now: float) -> Iterator[None]:
        """One round: sums of each view that rules are about, and the flows that may fit by now."""
        table, context = self._table, self._context
        flows = list(table.live.values())
        census = Census(flows)
        groupers = self._groupers(now)
        for at in range(0, len(flows), PIECE):
            piece = [flow for flow in flows[at : at + PIECE] if flow.progress.ended is None]
            if self._counted:
                census.step(table, PIECE, now)
            for grouper in groupers.values():
                grouper.add(piece)
            for flow in piece if self._again else ():
                self._look_again(flow, now)
            yield
        for verdicts, compares in self._counted:
            value = table_number(compares.quantity, self._status, table, now, self._past, census.newest)
            self._fire(verdicts.judge(value, now, None, context))
        for verdicts, compares in self._of_rows:
            yield from self._judge_rows(verdicts, compares.quantity, groupers[compares.view], now)
        for grouper in groupers.values():
            while grouper.let_go(PIECE):
                yield

    def _groupers(self, now: float) -> dict[str, Grouper]:
        """What adds up, for each view. Counting ends and ports of 50,000 hosts takes 75 MiB: only where it is asked."""
        fans = any(compares.quantity in OF_HOSTS for _, compares in self._of_rows)
        views = dict.fromkeys(compares.view for _, compares in self._of_rows)
        of = {view: ROWS_OF[view] if fans or view != "hosts" else replace(NEAR) for view in views}
        return {view: Grouper(grouping, self._context, self._table.watched(now)) for view, grouping in of.items()}

    def _judge_rows(self, verdicts: Verdicts, quantity: str, grouper: Grouper, now: float) -> Iterator[None]:
        for at, row in enumerate(grouper.sums.values()):
            self._fire(verdicts.judge(row_value(grouper.finish_row(row), quantity), now, row, self._context))
            if at % PIECE == 0:
                yield
        verdicts.end_rows(grouper.sums.keys(), now)

    def _look_again(self, flow: Flow, now: float) -> None:
        """A flow that is not an old one may fit by now: its bytes or its age have grown."""
        if not self._is_new(flow):
            return
        for rule in self._again:
            if not rule.verdicts.knows(flow) and rule.fits(flow) and not self._around.unsure():
                self._fire(rule.verdicts.about(flow, now, self._value_of(flow, rule.new), self._context))
