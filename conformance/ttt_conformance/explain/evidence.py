"""What a broken comparison compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..problem import Options, Problem


@dataclass(frozen=True)
class Evidence:
    """A problem, a backend's answer to it that broke a law, the truth, and how far from it an answer may be.

    ``got``, ``expected`` and ``allowed`` go by the dotted path of each array of an ``Outcome``: "y", "state.weights.W1", "state.phase", …
    """

    title: str
    """Which law is broken by which backend, and where: form, subject, dtype."""
    statement: str
    """The law, as mathematics."""
    what: str
    """What was compared when it broke, such as "y resumed: y"."""
    problem: Problem
    options: Options
    got: dict[str, np.ndarray]
    """What the backend returned."""
    expected: dict[str, np.ndarray]
    """The float64 truth."""
    allowed: dict[str, float]
