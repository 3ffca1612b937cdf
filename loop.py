"""What is to be run: one of three ways that share a loop (runner.py) of one thread and one poll.

``--once`` ends with the first listing, a stream tells events as JSON or CSV, and the screen is the screen.
"""

from __future__ import annotations

import gc

import click

from flows import FlowTable
from recording import Recorder
from run import Options, Runner, Signals, say

_KEPT: list[FlowTable] = []  # until the process ends: to free 200,000 flows takes 0.1 s


def run(wishes: Options) -> int:
    """Run as wished; returns the exit code."""
    # 262,144 flows are no garbage: a collector that looks at them again and again takes longer than the parser.
    gc.freeze()
    gc.set_threshold(200_000, 20, 50)
    way = _way(wishes)
    try:
        recorder = Recorder(wishes.record) if wishes.record else None
    except OSError as error:
        raise click.BadParameter(
            f"'{wishes.record}' can't be written: {error.strerror}", param_hint="'--record'"
        ) from None
    if wishes.settings_problem and (wishes.once or wishes.format != "text"):  # the screen has a place for it
        say(wishes.settings_problem)
    with Signals() as signals:
        source = wishes.source()
        runner = way(wishes, source, signals, recorder)
        _KEPT.append(runner.table)
        try:
            return runner.run()
        finally:
            source.close()
            if recorder:
                recorder.close()
                runner.say_once(recorder.stopped)


def _way(wishes: Options) -> type[Runner]:
    """Only what is needed is imported: what the screen needs takes 70 ms."""
    if wishes.once:
        from run import Once

        return Once
    if wishes.format == "text":
        from live import Live

        return Live
    from run import Stream

    return Stream
