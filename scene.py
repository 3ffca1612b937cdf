"""All that a frame is made of, the roles of its texts, and the characters beyond ASCII."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flows import FlowTable
from health import Base, Shares
from intake import Status
from view import View

# What a role means is the palette's: screen.py makes one for the terminal at hand.
ROLES = (
    *("plain", "dim", "accent", "good", "warn", "bad", "head", "title", "selected", "key", "new", "closed", "nat"),
    "cursor",
)


@dataclass(frozen=True)
class Glyphs:
    """The characters beyond ASCII, and what stands for them where the terminal has none."""

    dot: str = "●"
    full: str = "█"
    empty: str = "░"
    cut: str = "…"
    falling: str = "↓"
    rising: str = "↑"
    rule: str = "─"
    middle: str = "·"
    bar: str = "▏"
    spark: str = "▁▂▃▄▅▆▇█"
    ascii: bool = False


ASCII = Glyphs("*", "#", ".", "~", "v", "^", "-", "|", "|", "_.-=+*%#", ascii=True)


@dataclass(frozen=True)
class Scene:
    """All that a frame is made of."""

    view: View
    table: FlowTable
    status: Status
    source: str
    live: bool
    glyphs: Glyphs = Glyphs()
    shares: Shares | None = None  # who fills the table, as counted last
    databases: Sequence[Base] = ()  # those in use

    @property
    def now(self) -> float:
        return self.view.context.now
