"""Waiting for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")

# All that waits gives up after so many seconds: a busy CI machine needs less, and what works never needs it.
PATIENCE = 20.0


class GaveUp(AssertionError):
    """What was waited for did not come."""


class Readable(Protocol):
    """A terminal whose program must not wait for us."""

    def read(self, seconds: float) -> bool: ...


def wait_for(
    condition: Callable[[], T],
    what: str | Callable[[], object] = "the condition",
    *screens: Readable,
    timeout: float = PATIENCE,
) -> T:
    """Poll until ``condition()`` is true and return its value; the screens are read meanwhile, as a terminal reads.

    ``what`` says what is waited for, as a text or as a function that is asked at the end.
    """
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise GaveUp(f"waited {timeout} s for {what if isinstance(what, str) else what()}; last seen: {value!r}")
        for screen in screens:
            screen.read(0.0)
        time.sleep(0.01)
    return value
