"""The modules are flat, at the top level: put them on the path; keep the user's environment out of the tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hypothesis

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

for name in [name for name in os.environ if name.startswith(("CONNTRACK_MONITOR_", "GEOIP_"))]:
    del os.environ[name]
os.environ["BLESSED_QUERY_TIMEOUT_SECONDS"] = "0"

# Shared machines stall for seconds at a time: what a test finds must not depend on that.
hypothesis.settings.register_profile("steady", deadline=None, max_examples=150)
hypothesis.settings.load_profile("steady")
