"""``--update-geoip``, with progress for people, and the worker that fetches for the screen."""

from __future__ import annotations

import signal
import sys
from typing import Any

import click

import geography
from download import NAMES, Progress
from geography import Plan
from run import say, unblock


def fetch(plan: Plan, worker: str) -> int:
    """Fetch the databases; returns the exit code. ``worker``: which, with progress for the screen."""

    def stop(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt  # takes the unfinished file away

    signal.signal(signal.SIGTERM, stop)
    unblock()
    if worker:
        return geography.work(plan, worker)
    with _Bar() as bar:
        outcomes = geography.update_now(plan, bar.tell)
    for outcome in outcomes:
        say(f"{NAMES[outcome.kind]} not fetched: {outcome.why}" if outcome.why else outcome.message)
    return 0 if all(outcome.status in ("installed", "current") for outcome in outcomes) else 1


class _Bar:
    """click's progress bar on standard error, a new one for each file; nothing where that is no terminal."""

    def __init__(self) -> None:
        self._name = ""
        self._bar: Any = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.render_finish()

    def tell(self, progress: Progress) -> None:
        if not sys.stderr.isatty():
            return
        if progress.name != self._name:
            self.__exit__()
            self._name = progress.name
            self._bar = click.progressbar(length=progress.total or 0, label=progress.name, file=sys.stderr)
        self._bar.update(progress.received - self._bar.pos)
