"""What was tried when with the databases of a folder, and the lock that one of us holds while fetching into it.

Both are one small file in that folder, so that neither two processes nor a restart loop bother the publisher.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import geoip
from text import clean

FILE = ".conntrack-monitor-geoip.json"
KINDS = ("city", "asn")
BACK_OFF = (3_600, 6 * 3_600, 24 * 3_600)  # seconds after the 1st, 2nd, 3rd and later failure
RESTART_PAUSE = 60  # seconds; what a restart loop is held to


class Memory:
    """What was tried when and what is installed, for each kind; times in seconds since 1970.

    ``tried``, ``open`` (1: begun or failed), ``failures`` in a row, ``error``; ``looked``: the last
    success; ``month`` and ``built`` of what was fetched. Whatever the file holds, reading it raises
    nothing; on a full disk nothing is remembered.
    """

    def __init__(self, fd: int | None) -> None:
        self._fd = fd
        self._data: dict[str, dict[str, Any]] = {}
        if fd is None:
            return
        with suppress(OSError, ValueError, RecursionError):
            data = json.loads(os.pread(fd, 64 << 10, 0))
            for kind in KINDS:
                if isinstance(data, dict) and isinstance(data.get(kind), dict):
                    self._data[kind] = data[kind]

    def get(self, kind: str, key: str) -> str:
        value = self._data.get(kind, {}).get(key)
        return clean(value) if isinstance(value, str) else ""

    def number(self, kind: str, key: str) -> float:
        value = self._data.get(kind, {}).get(key)
        return value if isinstance(value, (int, float)) and not isinstance(value, bool) else 0.0

    def set(self, kind: str, **values: str | float) -> None:
        self._data.setdefault(kind, {}).update(values)
        if self._fd is not None:
            with suppress(OSError):
                text = json.dumps(self._data).encode()
                os.ftruncate(self._fd, os.pwrite(self._fd, text, 0))

    def begin(self, kind: str, now: float) -> None:
        """Note the try before it is made, so that one that kills the process counts too."""
        self.set(kind, tried=now, open=1, error="")

    def succeed(self, kind: str, now: float) -> None:
        self.set(kind, open=0, failures=0, looked=now, error="")

    def fail(self, kind: str, now: float, error: str) -> None:
        self.set(kind, open=1, failures=self.number(kind, "failures") + 1, tried=now, error=error)

    def again(self, kind: str, now: float, start: bool = False) -> float:
        """Return the time before which there should be no new try; 0 after a success."""
        tried = self.number(kind, "tried")
        if not self.number(kind, "open") or tried > now:  # in the future: the clock was wrong
            return 0.0
        failures = int(max(0, min(self.number(kind, "failures"), len(BACK_OFF))))
        pause = BACK_OFF[failures - 1] if failures and not start else RESTART_PAUSE
        return tried + pause

    def month(self, kind: str, installed: geoip.Database | None) -> str:
        """Return the month installed: as fetched, or of the build if it is not the file fetched."""
        if installed is None:
            return ""
        fetched = self.number(kind, "built") == installed.built
        return self.get(kind, "month") if fetched else installed.month


def open_memory(folder: str) -> int:
    """Open (and make) the file of a folder; OSError where that is not allowed."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(os.path.join(folder, FILE), flags, 0o644)


@contextmanager
def locked(folder: str) -> Iterator[Memory]:
    """Hold the lock; BlockingIOError if another process has it."""
    fd = open_memory(folder)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield Memory(fd)
    finally:
        os.close(fd)


def read_memory(folder: str) -> Memory:
    """What is remembered, for looking only."""
    try:
        fd = os.open(os.path.join(folder, FILE), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return Memory(None)
    try:
        return Memory(fd)
    finally:
        os.close(fd)
