"""What a source says is taken in: what was lost, what could not be read, what the host counted."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

import health
from flows import FlowTable
from health import panel
from intake import Statistics, Status
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
