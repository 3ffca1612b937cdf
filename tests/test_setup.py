"""The bats tests, one a file: a shell's behaviour is best asked in a shell."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("file", sorted(HERE.glob("*.bats")), ids=lambda path: path.name)
@pytest.mark.skipif(shutil.which("bats") is None and os.environ.get("CI") != "true", reason="not installed: bats")
def test_bats(file: Path) -> None:
    # timeout: what hangs in a shell hangs for ever, and its children keep the pipe open
    words = ["timeout", "-k", "5", "240", "bats", "-T", str(file)]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "# skip" not in done.stdout, done.stdout
