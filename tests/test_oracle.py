"""Ten scenarios of the oracle (by hand more: ``make oracle SEEDS=200``), and that it would find what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import flows
import source
from intake import Item, Lost
from oracle.oracle import differences, run
from oracle.scenario import Scenario, Step, entries, scenario
from oracle.subject import Wrong
from oracle.witness import Past, read_line
from support.kernel import kernel_mark

SEEDS = 10


@pytest.mark.parametrize("seed", range(SEEDS))
@kernel_mark()
def test_the_table_ends_as_the_kernel_s_and_losses_are_said(seed: int) -> None:
    print(run(scenario(seed)))


# --- can it fail? -----------------------------------------------------------------------------------------------------


def plan(*steps: Step, mode: str = "table", older: int = 20) -> Scenario:
    return Scenario(0, mode, 2, 1, False, older, steps)


def no_sweep(patch: pytest.MonkeyPatch) -> None:
    """Flows that only listings could tell to be gone stay for ever."""
    real = flows.FlowTable.end_listing
    patch.setattr(flows.FlowTable, "end_listing", lambda self, _complete, now: real(self, False, now))


def silence(patch: pytest.MonkeyPatch) -> None:
    """Lost events are not spoken of."""
    real = source.LiveSource.poll

    def poll(self: source.LiveSource) -> Iterator[Item]:
        yield from (item for item in real(self) if not isinstance(item, Lost))

    patch.setattr(source.LiveSource, "poll", poll)


def no_final_totals(patch: pytest.MonkeyPatch) -> None:
    """A closed flow's totals are what the last listing said."""
    real = flows.Flow.counts

    def counts(self: flows.Flow) -> Any:
        found = real(self)
        return found._replace(original_bytes=0) if found and self.ended else found

    patch.setattr(flows.Flow, "counts", counts)


def miscounting(patch: pytest.MonkeyPatch) -> None:
    """The header's states are not the table's."""
    patch.setattr(flows.FlowTable, "by_state", lambda _self: [("ESTABLISHED", 1)])


@pytest.mark.parametrize(
    ("defect", "steps", "words"),
    [
        (no_sweep, [Step("silent", 0, (Step("delete", 0),))], "tables differ|still on show"),
        (silence, [Step("freeze_events", 0, (Step("spray", 2000),))], "dropped, and nothing was said"),
        (no_final_totals, [Step("udp", 1), Step("delete", 0)], "no DESTROY said"),
        (miscounting, [], "counts by state"),
    ],
)
@kernel_mark()
def test_it_finds(
    defect: Callable[[pytest.MonkeyPatch], None], steps: list[Step], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(plan(*steps))
    defect(monkeypatch)
    with pytest.raises(Wrong, match=words) as raised:
        run(plan(*steps))
    assert "seed 0 (table" in str(raised.value)


# --- its parts --------------------------------------------------------------------------------------------------------


def test_a_seed_is_a_scenario() -> None:
    assert scenario(17) == scenario(17)
    assert len({str(scenario(seed)) for seed in range(50)}) == 50
    assert {scenario(seed).mode for seed in range(SEEDS)} == {"table", "json"}
    text = " ".join(str(scenario(seed)) for seed in range(200))
    trouble = {"kill_events", "kill_listing", "kill_both", "stall", "freeze_events", "freeze_listing", "tiny", "silent"}
    assert trouble <= set(re.findall(r"\w+", text))


def test_entries_are_all_different() -> None:
    lines = list(entries(1, 30_000, timeout=5))
    assert len({re.sub(r"-t \d+", "", line) for line in lines}) == 30_000


LINE = (
    "[1795469917.294810]\t[DESTROY] ipv4     2 udp      17 43 src=198.18.0.1 dst=198.19.0.1 sport=6 dport=80 "
    "packets=1 bytes=60 [UNREPLIED] src=198.19.0.1 dst=198.18.0.1 sport=80 dport=6 packets=2 bytes=0 mark=7 zone=3 "
    "id=3222263527 [USERSPACE] portid=3379416443 progname=id=1 zone=9"
)


def test_what_is_gone_is_due_once_and_not_when_it_is_back() -> None:
    said = read_line(LINE)
    assert (said.event, said.ident, said.counts) == ("DESTROY", 3222263527, (1, 60, 2, 0))
    assert said.key == (17, "src=198.18.0.1 dst=198.19.0.1 sport=6 dport=80", "zone=3")
    nothing = (0.0, 0.0)
    past = Past()
    past.heard([read_line(LINE, -1795469900.0)])
    assert past.due(17.0, nothing) == {}
    assert past.due(18.0, nothing) == {said.key: said.ident}
    assert past.due(18.0, nothing) == {}
    past.heard([read_line(LINE, -1795469900.0)])
    assert past.due(0.0, (17.0, 18.0)) == {said.key: said.ident}
    born = read_line(LINE.replace("[DESTROY]", "    [NEW]"))
    past.heard([said, born])
    assert past.due(1e18, nothing) == {}
    assert not past.never_ended(said.key)
    fresh = Past()
    fresh.heard([born])
    assert fresh.never_ended(said.key)


def test_differences_are_told() -> None:
    assert differences(["a", "b"], ["b", "a"]) == ""
    assert differences(["a", "a"], ["a"]).startswith("1 flows too many or other, 0 missing")
    assert "only kernel: c" in differences(["a"], ["a", "c"])
