"""What a law is, and the one comparator: it raises, and it remembers how close every comparison came."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tttcore import Backend
from tttcore.tree import Tree, leaves, paths

from ..cases import Setting, cases
from ..problem import Call, Differentiable, GradientCall, Options, Outcome, Problem, answer, gradient
from ..report.results import SHARE_EDGES, Point, bin_of

WIDEST = ""
"""In place of a dtype: the widest that a backend claims of float64 and float32."""


class LawBroken(AssertionError):
    """A comparison failed: what was compared, the error, what was allowed; and the numbers where the error is largest, and the call, if known."""

    def __init__(
        self, what: str, got: object, expected: object, allowed: object, place: Place | None = None, call: Call | GradientCall | None = None
    ) -> None:
        super().__init__(f"{what}: got {got}; expected {expected}; allowed {allowed}")
        self.what, self.place, self.call = what, place, call


@dataclass(frozen=True)
class Place:
    """Where an error is largest."""

    index: list[int]
    got: float
    expected: float
    error: float
    allowed: float


@dataclass
class Trial:
    """One backend and form under test, and how much of their allowances the comparisons used so far."""

    backend: Backend
    form: str
    few: bool = False
    """Whether the first of several questions is enough."""
    worst: float = 0.0
    comparisons: int = 0
    shares: list[int] = field(default_factory=lambda: [0] * len(SHARE_EDGES))
    curve: list[Point] = field(default_factory=list[Point])
    call: Call | GradientCall | None = None
    """The last call."""

    @property
    def carries(self) -> bool:
        """Whether the backend takes a state."""
        return self.backend.supports.state

    def answer(self, problem: Problem, mask: np.ndarray | None = None, cu_seqlens: np.ndarray | None = None) -> Outcome:
        """The backend's answer in the trial's form."""
        options = Options(self.form, mask, cu_seqlens)
        got = answer(self.backend, problem, options)
        self.call = Call(problem, options, got)
        return got

    def gradient(self, problem: Problem, bars: Outcome, mask: np.ndarray | None = None, cu_seqlens: np.ndarray | None = None) -> Differentiable:
        """The backend's cotangents in the trial's form."""
        if not self.carries:
            bars = bars._replace(state=None)
        options = Options(self.form, mask, cu_seqlens)
        got = gradient(self.backend, problem, options, bars)
        self.call = GradientCall(problem, options, bars, got)
        return got

    def compare(self, what: str, got: Tree, expected: Tree, allowed: Tree) -> None:
        """Every array of ``got`` is within ``allowed`` (a number an array) of ``expected``, in shape, finite where that is."""
        if isinstance(got, Outcome) and got.state is None:
            expected, allowed = expected._replace(state=None), allowed._replace(state=None)
        for path, x, y, limit in zip(paths(expected), leaves(got), leaves(expected), leaves(allowed), strict=True):
            self.comparisons += 1
            place = f"{what}: {path}" if path else what
            if x.shape != y.shape:
                raise LawBroken(place, f"shape {x.shape}", f"shape {y.shape}", "the same shape", call=self.call)
            self._within(place, x.astype(np.float64), y.astype(np.float64), float(limit))

    def demand(self, what: str, fulfilled: object, got: object, expected: object) -> None:
        """Something that is so or not."""
        self.comparisons += 1
        if not fulfilled:
            raise LawBroken(what, got, expected, "nothing else", call=self.call)

    def _within(self, what: str, x: np.ndarray, y: np.ndarray, limit: float) -> None:
        with np.errstate(invalid="ignore"):
            errors = np.where(x == y, 0.0, np.abs(x - y))
        error = float(np.max(errors, initial=0.0))
        share = 0.0 if error == 0 else error / limit if limit else np.inf
        self.shares[bin_of(share)] += 1
        self.worst = max(self.worst, np.inf if np.isnan(share) else share)
        if not error <= limit:
            worst = np.unravel_index(int(np.argmax(np.nan_to_num(errors, nan=np.inf))), errors.shape)
            place = Place([int(i) for i in worst], float(x[worst]), float(y[worst]), error, limit)
            raise LawBroken(what, f"an error of {error:.3g}", "none", f"{limit:.3g}", place, self.call)


Check = Callable[[Trial, Any], None]
Draws = Callable[[Setting], st.SearchStrategy[Any]]


@dataclass(frozen=True)
class Scope:
    """Where a law is checked: on a subject, for inner models, forms and dtypes."""

    subject: str
    inner: tuple[str, ...] = ("linear", "mlp")
    forms: tuple[str, ...] = ("primal", "dual", "decode")
    dtypes: tuple[str, ...] = (WIDEST,)
    deep: bool = False
    """Whether it is left to the deep effort."""


INNER, LAYER = Scope("inner"), Scope("layer")
WHOLE = Scope("whole", forms=("dual",))


@dataclass(frozen=True)
class Law:
    """A law: its name, its statement, and its check on what ``draws`` gives, which raises ``LawBroken``."""

    name: str
    statement: str
    check: Check
    scopes: tuple[Scope, ...]
    draws: Draws = cases
    allowed: str = "the rule"
    """How far from the truth an answer may be; docs/allowances.md has the rule."""
    gradients: bool = False
    """Whether it needs a backend with gradients."""
    cost: int = 1
    """One example of it costs as much as this many of a plain law: it gets that much fewer."""
    quick: str = "forms"
    """Where the quick effort checks it: "forms" (all forms of TTT-Linear's inner loop, dual of the rest), "dual" (of that loop alone) or "never"."""
