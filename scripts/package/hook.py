"""What hatchling asks while it builds the wheel: what is in it.

The flat modules and the demonstration go into one folder, so that no environment gets a module called parse or text.
Manual page and completions go into the environment's share/, as the program itself prints them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = "conntrack_monitor"
# It prints them for the name that it was called by.
CALLED = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); sys.argv[0] = 'conntrack-monitor'"
    "; import conntrack_monitor; conntrack_monitor.main()"
)
PRINTED = {
    "share/man/man8/conntrack-monitor.8": ["--print-man"],
    "share/bash-completion/completions/conntrack-monitor": ["--print-completion", "bash"],
    "share/zsh/site-functions/_conntrack-monitor": ["--print-completion", "zsh"],
    "share/fish/vendor_completions.d/conntrack-monitor.fish": ["--print-completion", "fish"],
}


class Hook(BuildHookInterface):  # type: ignore[misc]
    """Names the files of the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            sys.exit(
                "an editable installation would put the flat modules (parse, text, run ...) onto everybody's path; "
                "in a checkout use: make run"
            )
        root = Path(self.root)
        files = [*root.glob("*.py"), *(root / "scripts" / "package").glob("__*__.py"), root / "fixtures" / "demo.rec"]
        build_data["force_include"] |= {str(path): f"{FOLDER}/{path.name}" for path in files}
        self.printed = Path(tempfile.mkdtemp(prefix="conntrack-monitor-"))
        environ = {name: value for name, value in os.environ.items() if not name.startswith("CONNTRACK_MONITOR_")}
        for place, words in PRINTED.items():
            command = [sys.executable, "-B", "-c", CALLED, self.root, *words]
            text = subprocess.run(
                command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True
            ).stdout
            path = self.printed / place
            path.parent.mkdir(parents=True)
            path.write_bytes(text)
            build_data["shared_data"][str(path)] = place

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        shutil.rmtree(self.printed)
