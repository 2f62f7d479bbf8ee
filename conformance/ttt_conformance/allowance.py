"""How far a right answer may be from the truth: one rule for every law, derived, never tuned per test.

The truth is the float64 reference. An allowance is SAFETY × the error that the *reference itself* makes in the precision under test, plus BAND
rounding steps of the largest value. The reference's error is measured, on the very problem, as its worst deviation when it runs in that
precision and when its inputs are disturbed by one rounding step. So an ill-conditioned problem (a row with little variance, whose
gradient LayerNorm amplifies a thousandfold) is allowed what it must be allowed, and a benign one a few roundings. Only the primal form, the
definition, is run: an error in any other form cannot widen what is allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from tttcore.tree import Tree, leaves, rebuild

from .problem import Problem

SAFETY = 16.0
"""Another order of summation is another sample of rounding errors: this many times the worst of ours."""
BAND = 8.0
"""Rounding steps of the largest value that are always allowed."""
SAMPLES = 4
"""Runs that measure the reference's error. One that happens to be exact where the problem is not must not be the only one: docs/allowances.md."""

Run = Callable[[Problem], Tree]
"""A problem → a tree of arrays, computed by the reference's primal form in the problem's precision."""


def allowance(problem: Problem, truth: Tree, run: Run, step: float | None = None) -> Tree:
    """For each array of ``truth``, how far an answer in the problem's precision may be from it: one number an array, the largest over it.

    ``step``: one rounding step, relative, of tokens narrower than the precision that ``run`` computes in; else that precision's own.
    """
    step = float(np.finfo(problem.dtype).eps) if step is None else step
    rng = np.random.default_rng(0)
    worst = [0.0 for _ in leaves(truth)]
    for sample in range(SAMPLES):
        # In float64 a run on the problem as it is gives the truth itself, and measures nothing.
        moved = problem if sample == 0 and problem.dtype != np.float64 else problem.map(lambda x: disturbed(x, step, rng))
        errors = map(distance, leaves(run(moved)), leaves(truth))
        worst = [max(old, new) for old, new in zip(worst, errors, strict=True)]
    return rebuild(truth, _numbers(worst, truth, step))


def disturbed(x: np.ndarray, step: float, rng: np.random.Generator) -> np.ndarray:
    """Moved by a rounding step or not at all; a denormal number may count as zero."""
    moved = x * (1 + step * rng.choice([-1, 0, 1], x.shape))
    return np.where(np.abs(x) < np.finfo(x.dtype).tiny, 0, moved).astype(x.dtype)


def distance(x: np.ndarray, truth: np.ndarray) -> float:
    """The largest difference."""
    return float(np.max(np.abs(x.astype(np.float64) - truth), initial=0.0))


def _numbers(worst: list[float], truth: Tree, step: float) -> Iterator[np.float64]:
    for error, exact in zip(worst, leaves(truth), strict=True):
        yield np.float64(SAFETY * error + BAND * step * np.max(np.abs(exact), initial=0.0))
