"""All that a frame is made of, the roles of its texts, and the characters beyond ASCII."""

from __future__ import annotations

# What a role means is the palette's: screen.py makes one for the terminal at hand.
ROLES = (
    *("plain", "dim", "accent", "good", "warn", "bad", "head", "title", "selected", "key", "new", "closed", "nat"),
    "cursor",
)
