"""Numbers in filters: ``>1M``, ``<=10s``, ``1k-2k``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

SIZES = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
TIMES = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_COMPARED = re.compile(
    r"(>=|<=|>|<|=)?([0-9]{1,20}(?:\.[0-9]{1,9})?)([A-Za-z]*)(?:-([0-9]{1,20}(?:\.[0-9]{1,9})?)([A-Za-z]*))?"
)


def compared(value: str, units: Mapping[str, float], example: str) -> Callable[[float | None], bool]:
    """``>1M``, ``<=10s``, ``5k``, ``1k-2k``: a comparison. What is unknown fits none."""
    match = _COMPARED.fullmatch(value)
    if match is None:
        raise ValueError(f"'{value}' can't be compared with; write {example}")
    sign, text, unit, upper, upper_unit = match.groups()
    for name in (unit, upper_unit or ""):
        if name.lower() not in units:
            raise ValueError(f"'{name}' is no unit; there are: {' '.join(u for u in units if u)}")
    low = float(text) * units[unit.lower()]
    if upper is not None:
        if sign:
            raise ValueError(f"'{value}' is a range and a comparison at once")
        high = float(upper) * units[upper_unit.lower()]
        return lambda number: number is not None and low <= number <= high
    return {
        ">": lambda number: number is not None and number > low,
        "<": lambda number: number is not None and number < low,
        ">=": lambda number: number is not None and number >= low,
        "<=": lambda number: number is not None and number <= low,
        "=": lambda number: number is not None and number == low,
    }[sign or "="]
