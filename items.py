"""What a source gives, in the order it came: blocks of lines, listings' ends, losses, troubles, facts about the host.

Every item carries ``at``, seconds of its source's clock (``Source.clock``).
"""

from __future__ import annotations

from dataclasses import dataclass

from problems import Problem


@dataclass(frozen=True)
class Block:
    """Whole lines, of events, of a listing, or of both. ``at`` None: the lines' own stamps are the time."""

    data: bytes
    at: float | None
    events: bool = False  # from the listener; else from a listing, or from a recording, which mixes them


@dataclass(frozen=True)
class ListingBegan:
    at: float


@dataclass(frozen=True)
class ListingEnded:
    at: float
    complete: bool


@dataclass(frozen=True)
class Lost:
    """The kernel dropped events, or we dropped lines."""

    at: float
    what: str


@dataclass(frozen=True)
class Trouble:
    """A child died or could not start. ``problem`` None: it is well again."""

    at: float
    part: str  # "events" or "listing"
    problem: Problem | None


@dataclass(frozen=True)
class Facts:
    """Numbers out of /proc/sys/net/netfilter, by name without "nf_conntrack_"; what could not be read is missing."""

    at: float
    values: dict[str, int]


@dataclass(frozen=True)
class Statistics:
    """What `conntrack -S` counts since the kernel started, summed over all CPUs, by today's names."""

    at: float
    values: dict[str, int]


@dataclass(frozen=True)
class Own:
    """This host's own addresses."""

    at: float
    addresses: frozenset[str]


@dataclass(frozen=True)
class Ended:
    """The recording is over."""

    at: float


Item = Block | ListingBegan | ListingEnded | Lost | Trouble | Facts | Statistics | Own | Ended
