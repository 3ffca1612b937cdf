"""Prometheus's text, read back."""

from __future__ import annotations

import re


def samples(text: str) -> list[str]:
    """The series with their values, without the beginning that all have."""
    return [line.removeprefix("conntrack_monitor_") for line in text.splitlines() if not line.startswith("#")]


def values(text: str) -> dict[str, float]:
    """By name and labels but for the node."""
    found = (re.fullmatch(r'(\w+)\{node="[^"]*",?(.*)\} (\S+)', line) for line in samples(text))
    return {f"{its[1]} {its[2]}".strip(): float(its[3]) for its in found if its}
