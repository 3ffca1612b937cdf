"""All that a frame is made of, the roles of its texts, and the characters beyond ASCII."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flows import FlowTable
from health import Base, Shares
from intake import Status
from text import UNICODE, Glyphs
from view import View

# What a role means is the palette's: screen.py makes one for the terminal at hand.
ROLES = (
    *("plain", "dim", "accent", "good", "warn", "bad", "head", "title", "selected", "key", "new", "closed", "nat"),
    "cursor",
)


@dataclass(frozen=True)
class Scene:
    """All that a frame is made of."""

    view: View
    table: FlowTable
    status: Status
    source: str
    live: bool
    glyphs: Glyphs = UNICODE
    shares: Shares | None = None  # who fills the table, as counted last
    databases: Sequence[Base] = ()  # those in use

    @property
    def now(self) -> float:
        return self.view.context.now
