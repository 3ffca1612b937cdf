"""The oracle: whatever happens, the program's table ends as the kernel's, and what was lost was said.

A scenario is drawn from a seed and done to a NAT router in network namespaces (``scenario``), while a subject looks on:
the table behind the screen, or the program with --json and a reader (``subject``). Held against each other:

* after each calm and at the end: the subject's table and ``conntrack -L -o xml``, exactly, timeouts within seconds;
* at each turn: the counts in the header and the table;
* at each complete listing: what was gone before it began is gone from the table, what a DESTROY ended meanwhile it does
  not bring back, and what it made disappear the kernel has no more;
* at the end: the totals of closed flows and what DESTROY said to a second listener, which loses nothing;
* each child that was killed, and each event that the kernel could not deliver, was reported.

By hand, as root: ``make oracle SEEDS=200``; one again: ``make oracle ARGS="--seed 17"``.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import Any
from unittest import mock

import source
from flows import MAX_CLOSED
from oracle.scenario import AGAIN, Network, Scenario, scenario
from oracle.subject import QUICK_BACKOFF, SIDE, JsonSubject, Subject, TableSubject, Wrong, name_of
from oracle.witness import Hearing, Key, Past, Witness, key_of, read_line
from support import kernel
from support.kernel import JsonFlow, Lab, LabError, comparable, flows_of_xml
from support.waiting import PATIENCE, GaveUp, wait_for

SLACK = 2.5  # seconds by which timeouts may differ: two roundings, and a machine that is busy
ROUNDS = 40  # tries to find the kernel's table unchanged while a listing is taken in


# --- comparing --------------------------------------------------------------------------------------------------------


_MOVES = re.compile(r"<(timeout|use|deltatime)>\d+</\1>")
_TIMEOUT = re.compile(r"<timeout>(\d+)</timeout>(?:(?!<flow).)*?<id>(\d+)</id>")


def core(xml: str) -> list[str]:
    """What of conntrack's XML stays the same while nothing happens: flows without what the clock moves."""
    return sorted(_MOVES.sub("", xml).split("<flow")[1:])


def canonical(item: JsonFlow, whole: bool) -> str:
    """A flow as a text that can be compared; not ``whole``: only what the stream promises, which flows there are."""
    flow = {"flags": [], **comparable(item)}  # the contract leaves out what is empty
    if whole:
        return json.dumps(flow, sort_keys=True)
    reply = [flow["reply"].get(name) for name in SIDE]
    return json.dumps([*name_of(flow), flow.get("id"), *reply])


def differences(ours: Iterable[str], kernel: Iterable[str]) -> str:
    """What only one of them has, a few of each; "" where they are equal."""
    mine, theirs = Counter(ours), Counter(kernel)
    extra, missing = list((mine - theirs).elements()), list((theirs - mine).elements())
    if not extra and not missing:
        return ""
    shown = [
        *(f"  only ours:   {text}" for text in sorted(extra)[:5]),
        *(f"  only kernel: {text}" for text in sorted(missing)[:5]),
    ]
    return "\n".join([f"{len(extra)} flows too many or other, {len(missing)} missing", *shown])


class Oracle:
    """One scenario, done and judged."""

    def __init__(self, plan: Scenario, network: Network) -> None:
        self.plan, self.network = plan, network
        self.subject: Subject
        self.past = Past()
        self.looks = self.compared = 0
        self._names: dict[object, Key] = {}  # of the table's keys
        self._last_closed: object = None
        self._losses: tuple[int | None, int, int] = (None, 0, 0)  # listener, its drops, reports, when looked at last

    def run(self) -> str:
        """Do it all; Wrong with the reason where the program is; returns what happened, in short."""
        network = self.network
        network.prepare()
        self.witness = Witness(network.router)
        self.hearing = Hearing(self.witness)
        try:
            via = network.router.prefix
            self.subject = JsonSubject(via) if self.plan.mode == "json" else TableSubject(via, self._on_listed)
            self.subject.not_mine.add(self.witness.process.pid)
            network.subject = self.subject
            network.on_gone, network.on_born, network.look = self.past.deleted, self.past.born, self.settle
            network.on_done = lambda: self.hearing.check(self.subject)
            try:
                self.past.born(network.table())
                network.listener()
                self.settle()
                for step in self.plan.steps:
                    network.do(step)
                self.settle()
                self._check_closed()
                return self._summary()
            finally:
                self.subject.close()
        finally:
            self.witness.close()

    def _summary(self) -> str:
        reports = " ".join(f"{part}={count}" for part, count in sorted(self.subject.reports.items()) if count)
        return f"{self.witness.events} events, {self.compared} ends held against DESTROY, {self.flows} flows left; reported: {reports or 'nothing'}"

    # --- after each listing ---

    def _on_listed(self, began: float) -> None:
        """A complete listing ended: what was gone is not on show any more, and what is on show no more is gone."""
        self.hearing.check(self.subject)
        vague_until = max(self.network.troubled_until, self.network.silent_until)
        caught_up = began > vague_until and self.network.caught_up()
        self.past.heard(self.witness.heard())
        hidden = {key for key in self._newly_inferred(began) if self.past.never_ended(key)}
        stale = set()
        # Of what the listener has not passed on yet the next listing tells.
        if caught_up and (due := self.past.due(began, (self.hearing.since, self.network.drained_at))):
            stale = {key for key, flow in self._named_flows() if key in due and flow.record().id == due[key]}
        if hidden or stale:
            # An end may not have been said yet, and a packet may have brought a flow back: this very moment, too.
            there = {read_line(line).key for line in self._text()}
            if wrong := stale - there:
                raise Wrong(f"{len(wrong)} flows are gone and still on show: {list(wrong)[:3]}")
            wait_for(self.witness.up_to_date, what="the witness")
            self.past.heard(self.witness.heard())
            if wrong := {key for key in hidden & there if self.past.never_ended(key)}:
                raise Wrong(f"{len(wrong)} flows are there and were called gone: {list(wrong)[:3]}")

    def _named_flows(self) -> Iterator[tuple[Key, Any]]:
        for key, flow in self._table().live.items():
            if key not in self._names:
                self._names[key] = key_of(flow.record())
            yield self._names[key], flow

    def _newly_inferred(self, began: float) -> list[Key]:
        """Flows that this listing showed to be gone."""
        closed = self._table().closed
        fresh = list(takewhile(lambda flow: flow is not self._last_closed, reversed(closed)))
        if closed:
            self._last_closed = closed[-1]
        since = max(began, self.network.troubled_until)
        return [key_of(flow.record()) for flow in fresh if flow.inferred and flow.ended >= since]

    def _table(self) -> Any:
        assert isinstance(self.subject, TableSubject)
        return self.subject.table

    def _text(self) -> list[str]:
        return self.network.router.run(["conntrack", "-L", "-o", "extended,id"]).stdout.splitlines()

    # --- in a calm ---

    def _xml(self) -> str:
        return self.network.router.run(["conntrack", "-L", "-o", "xml,id"]).stdout

    def settle(self) -> None:
        """Nothing happens now: after one whole listing the tables are equal, and all losses are reported.

        Entries go on expiring meanwhile, so what counts is a listing during which the kernel's table stayed the same.
        """
        network, subject = self.network, self.subject
        for _ in range(ROUNDS):
            network.drain()
            asked, before = time.monotonic(), self._xml()
            self._wait_for_listing(before)
            network.drain()
            again, after = time.monotonic(), self._xml()
            if core(before) == core(after):
                break
        else:
            raise LabError(f"the kernel's table changed in each of {ROUNDS} rounds")
        kernel = flows_of_xml(after)
        self.looks += 1
        self.flows = len(kernel)
        if found := self._differences(subject.picture(), kernel):  # nobody has gone round since the rest was read
            raise Wrong(f"the tables differ in look {self.looks}: {found}")
        self._check_ends((asked, before), (again, after))
        self._check_reports()

    def _wait_for_listing(self, xml: str) -> None:
        """Until a listing is through; the stream, which may wait 8 s before it lists again, may be right at once."""
        subject = self.subject
        mark = subject.mark()
        kernel = flows_of_xml(xml) if isinstance(subject, JsonSubject) else []

        def through() -> bool:
            if subject.listed_since(mark):
                return True
            known = len(subject.known) if isinstance(subject, JsonSubject) else -1
            return known == len(kernel) and not self._differences(subject.picture(), kernel)

        self.network.until(through, "a complete listing", 3 * PATIENCE)

    def _differences(self, ours: Iterable[JsonFlow], kernel: Iterable[JsonFlow]) -> str:
        whole = self.plan.mode == "table"
        return differences((canonical(item, whole) for item in ours), (canonical(item, whole) for item in kernel))

    def _check_ends(self, *kernel: tuple[float, str]) -> None:
        """Times of expiry, against the ones before and after: an ACK that was late may have set another."""
        if self.plan.mode != "table":
            return
        theirs: dict[int | None, list[float]] = {}
        for asked, xml in kernel:
            for seconds, ident in _TIMEOUT.findall(xml):
                theirs.setdefault(int(ident), []).append(asked + int(seconds))
        now = kernel[-1][0]
        for flow in self._table().live.values():
            ident, left = flow.record().id, flow.remaining(now)
            if left is not None and min(abs(now + left - one) for one in theirs[ident]) > SLACK:
                raise Wrong(f"id {ident} has {left} s left, and for the kernel {theirs[ident][-1] - now:.0f} s")

    def _check_reports(self) -> None:
        network, subject = self.network, self.subject
        network.until(lambda: not subject.troubles(), f"the end of trouble: {subject.troubles()}")
        pid = network.listener()
        for _ in range(ROUNDS):  # flows go on expiring: what is dropped meanwhile must have been said, too
            drops = kernel.dropped_events(pid)
            network.drain()
            if kernel.dropped_events(pid) == drops:
                break
        else:
            raise LabError(f"events were dropped in each of {ROUNDS} rounds")
        lost = subject.reports["lost"]
        last_pid, last_drops, last_lost = self._losses
        last_drops = last_drops if pid == last_pid else 0
        if drops > last_drops and lost == last_lost:
            raise Wrong(f"{drops - last_drops} events were dropped, and nothing was said")
        if pid == last_pid and drops == last_drops and lost != last_lost:
            raise Wrong("a loss was reported that never was")
        self._losses = pid, drops, lost
        for part, killed in network.killed.items():
            said = subject.reports[part]
            # The stream does not say the same thing again before it was well in between.
            if said != killed if self.plan.mode == "table" else not min(killed, 1) <= said <= killed:
                raise Wrong(f"{part} killed {killed} times, reported {said} times")

    # --- at the end ---

    def _check_closed(self) -> None:
        """The totals of closed flows are what DESTROY said, and no flow was made up."""
        self.network.drain()
        self.witness.finish()
        self.past.heard(self.witness.heard())
        if self.plan.mode != "table":
            return
        flows = self._table().closed
        closed: Counter[Any] = Counter()
        for flow in flows:
            record, counts = flow.record(), flow.counts()
            key = key_of(record)
            if (key, record.id) not in self.past.known and AGAIN not in key[1]:
                raise Wrong(f"the kernel never had {key} with id {record.id}")
            if not flow.inferred:
                closed[key, record.id, counts and tuple(counts)] += 1
        said = self.witness.destroyed
        if other := closed - Counter((one.key, one.ident, one.counts) for one in said):
            raise Wrong(f"{other.total()} closed flows have totals that no DESTROY said: {list(other)[:3]}")
        # What expired is told of when the kernel finds it, and may be on its way to us.
        told = [one for one in said if one.at < self.network.drained_at and self.hearing.whole(one.at)]
        heard = Counter((one.key, one.ident, one.counts) for one in told)
        self.compared = heard.total()
        if (missed := heard - closed) and len(flows) < MAX_CLOSED:
            raise Wrong(f"{missed.total()} flows were destroyed, and their totals are not kept: {list(missed)[:3]}")


# --- by hand ----------------------------------------------------------------------------------------------------------


def run(plan: Scenario) -> str:
    """Do a scenario in a laboratory of its own; what happened, in short. Wrong or LabError with the scenario in it."""
    with mock.patch.object(source, "BACKOFF", QUICK_BACKOFF), Lab() as lab:
        network = Network(lab, plan)
        try:
            return Oracle(plan, network).run()
        except (Wrong, LabError, GaveUp) as error:
            raise type(error)(f"{error}\n{plan}") from (None if isinstance(error, Wrong) else error)
        finally:
            network.close()


def main() -> int:
    parser = argparse.ArgumentParser(description="Try the program against the kernel: random churn, then the truth.")
    parser.add_argument("--seeds", type=int, default=10, help="how many scenarios [10]")
    parser.add_argument("--first", type=int, default=0, help="the first seed [0]")
    parser.add_argument("--seed", type=int, help="only this one")
    wishes = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # leaves no namespace behind
    seeds = [wishes.seed] if wishes.seed is not None else range(wishes.first, wishes.first + wishes.seeds)
    failed = []
    for seed in seeds:
        began = time.monotonic()
        plan = scenario(seed)
        if wishes.seed is not None:
            print(plan, flush=True)
        try:
            outcome = run(plan)
        except Exception as error:  # the next seed may tell more
            failed.append(seed)
            text = str(error) if isinstance(error, Wrong) else traceback.format_exc()
            outcome = f"FAILED {type(error).__name__}: {text}\n"
        print(f"seed {seed} {plan.mode}: {outcome} ({time.monotonic() - began:.1f} s)", flush=True)
    print(f"{len(seeds) - len(failed)} of {len(seeds)} seeds well" + (f"; failed: {failed}" if failed else ""))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
