"""What a broken comparison compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..problem import Options, Problem


@dataclass(frozen=True)
class Evidence:
    """A problem, a backend's answer to it that broke a law, and how far from the truth an answer may be.

    ``got`` and ``allowed`` go by the path of each array of an answer: "y", "state.weights.W1", "state.phase", …
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
    allowed: dict[str, float]


@dataclass(frozen=True)
class GradientEvidence(Evidence):
    """A problem and the cotangents that a backend found of its arguments, along one direction each.

    ``got``, ``along`` and ``allowed`` go by the path of each argument: "params.W1", "q", "state.weights.W1", …; ``allowed`` is of ⟨x̄, u⟩.
    """

    bars: dict[str, np.ndarray]
    """The cotangents of the results, by path as in an answer."""
    along: dict[str, np.ndarray]
    """The directions u."""
