"""Ten scenarios of the oracle; by hand more: ``make oracle SEEDS=200``."""

from __future__ import annotations

import pytest
from churn import scenario
from lab import kernel_mark
from oracle import run

SEEDS = 10


@pytest.mark.parametrize("seed", range(SEEDS))
@kernel_mark()
def test_the_table_ends_as_the_kernel_s_and_losses_are_said(seed: int) -> None:
    print(run(scenario(seed)))
