"""What a law is, and the one comparator: it raises, and it remembers how close every comparison came."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tttcore import Backend
from tttcore.tree import Tree, leaves, paths

from ..cases import INNER_MODELS, cases


class LawBroken(AssertionError):
    """A comparison failed: what was compared, the error, and what was allowed."""

    def __init__(self, what: str, got: object, expected: object, allowed: object) -> None:
        super().__init__(f"{what}: got {got}; expected {expected}; allowed {allowed}")
        self.what = what


@dataclass
class Trial:
    """One backend and form under test, and the worst share of its allowance that any comparison used so far."""

    backend: Backend
    form: str
    worst: float = 0.0
    comparisons: int = 0

    def compare(self, what: str, got: Tree, expected: Tree, allowed: Tree) -> None:
        """Every array of ``got`` is within ``allowed`` (a number an array) of ``expected``, in shape, finite where that is."""
        for path, x, y, limit in zip(paths(expected), leaves(got), leaves(expected), leaves(allowed), strict=True):
            self.comparisons += 1
            place = f"{what}: {path}" if path else what
            if x.shape != y.shape:
                raise LawBroken(place, f"shape {x.shape}", f"shape {y.shape}", "the same shape")
            error = float(np.max(np.abs(x.astype(np.float64) - y.astype(np.float64)), initial=0.0))
            limit = float(limit)
            if not error <= limit:
                raise LawBroken(place, f"an error of {error:.3g}", "none", f"{limit:.3g}")
            self.worst = max(self.worst, error / limit if limit else 0.0)


Check = Callable[[Trial, Any], None]
Draws = Callable[[str, str, str], st.SearchStrategy[Any]]
"""(subject, inner model, dtype) → a strategy for what the check takes."""


@dataclass(frozen=True)
class Scope:
    """Where a law is checked: on a subject, for inner models and forms."""

    subject: str
    inner: tuple[str, ...] = ("linear", "mlp")
    forms: tuple[str, ...] = ("primal", "dual", "decode")
    every_dtype: bool = False
    """Whether in every dtype that a backend claims, or in the widest only."""


INNER, LAYER = Scope("inner"), Scope("layer")
EVERY_INNER = Scope("inner", tuple(INNER_MODELS))


@dataclass(frozen=True)
class Law:
    """A law: its name, its statement, and its check on what ``draws`` gives, which raises ``LawBroken``."""

    name: str
    statement: str
    check: Check
    scopes: tuple[Scope, ...]
    draws: Draws = cases
    gradients: bool = False
    """Whether it needs a backend with gradients."""
    cost: int = 1
    """One example of it costs as much as this many of a plain law: it gets that much fewer."""
