"""The file by which a container's health check sees that the loop goes round."""

from __future__ import annotations

import os
from pathlib import Path

from terminal import Terminal

DEMO = str(Path(__file__).parent.parent / "fixtures" / "demo.rec")


def test_is_touched_again_and_again(tmp_path: Path) -> None:
    file = tmp_path / "alive"
    with Terminal("--heartbeat", str(file), "--replay", DEMO) as terminal:
        terminal.wait(file.exists)
        os.utime(file, (1, 1))
        terminal.wait(lambda: file.stat().st_mtime > 1)


def test_a_file_that_can_not_be_written_stops_nothing() -> None:
    with Terminal("--heartbeat", "/nonexistent/alive", "--replay", DEMO) as terminal:
        terminal.wait("quit")
        terminal.type("q")
        assert terminal.end() == 0
