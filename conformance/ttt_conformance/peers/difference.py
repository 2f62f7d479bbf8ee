"""What a difference between a peer and the paper is."""

from __future__ import annotations

from typing import NamedTuple

DEFINITION = "definition"
"""The peer computes another function, the same one everywhere: a reading of the paper, or a choice."""
DEFECT = "defect"
"""The peer contradicts itself: the same tokens give other numbers by another route."""
LIMIT = "limit"
"""The peer's interface has no place for it."""


class Difference(NamedTuple):
    """One difference: its kind, which laws it breaks or leaves unclaimed, and what the peer does where the paper does what."""

    kind: str
    laws: tuple[str, ...]
    what: str
