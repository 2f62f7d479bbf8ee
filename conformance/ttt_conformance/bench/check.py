"""Whether an answer is right, before anybody asks how fast it came: against the reference in float64, on random numbers.

This is a gate in front of a clock, not a judgement: one number for a whole array, at one small size. The laws judge (``ttt conform``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from tttcore import Backend, inner_derivative
from tttcore.tree import Tree, leaves, tree_map

from ..problem import Options, Outcome, Problem, argument_paths, differentiable, gradient, random_like, reference

TOLERANCE: Mapping[str, float] = {"float64": 1e-10, "float32": 1e-4, "float16": 2e-3, "bfloat16": 1e-2}
"""Of y, by the dtype of the tokens: relative errors in the Frobenius norm. In the narrow dtypes about 1.3 and 2 rounding steps, since products of
matrices may be of narrow numbers there; in the wide ones what the gradient of the LayerNorm may amplify."""
BACKWARD = 2.0
"""The same for gradients, times this: a gradient goes through the products of both passes."""
CONFORM = "see what `ttt conform --backend {}` says"
ORACLE = 1e-9
"""How far float64 gradients may be from the complex step, relative."""


class WrongAnswer(RuntimeError):
    """An answer that is not the reference's; the message reads as those of ``tttcore.InvalidInput``."""


@dataclass(frozen=True)
class Truth:
    """A problem, its answer y in float64, and the gradients of all arguments by name for the cotangent ȳ (None: forward only)."""

    problem: Problem
    y: np.ndarray
    y_bar: np.ndarray | None = None
    gradients: Mapping[str, np.ndarray] | None = None


def truth(problem: Problem, oracle: Backend | None) -> Truth:
    """The truth about a problem: y by the NumPy reference, gradients by the ``oracle``, a backend of float64 gradients (None: no gradients).

    Raises ``WrongAnswer`` where these are not those of the complex step.
    """
    exact = problem.map(lambda x: x.astype(np.float64))
    y = reference(exact).y
    if oracle is None:
        return Truth(problem, y)
    y_bar = random_like(np.random.default_rng(1), y).astype(problem.dtype)
    return Truth(problem, y, y_bar, gradients_of(oracle, exact, y_bar.astype(np.float64)))


def gradients_of(oracle: Backend, exact: Problem, y_bar: np.ndarray) -> dict[str, np.ndarray]:
    """Float64 gradients by ``argument_paths``, whose products with two random directions are those of the complex step."""
    found, at = gradient(oracle, exact, Options(), Outcome(y_bar, None)), differentiable(exact)
    rng = np.random.default_rng(2)
    for _ in range(2):
        along = tree_map(lambda x: random_like(rng, x), at)
        primals, tangents = cast("Any", (at.params, *at.inputs)), cast("Any", (along.params, *along.inputs))
        slope, _ = inner_derivative(exact.spec, primals, tangents)
        products = [float(np.sum(x * u)) for x, u in zip(leaves(found), leaves(along), strict=True)]
        size = sum(_norm(x) * _norm(u) for x, u in zip(leaves(found), leaves(along), strict=True))
        share = abs(sum(products) - float(np.sum(y_bar * slope))) / size
        within(oracle.name, {"float64 gradients along a random direction": share}, ORACLE, CONFORM.format(oracle.name))
    return dict(zip(argument_paths(exact), leaves(found), strict=True))


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    """‖got − expected‖ / ‖expected‖ in the Frobenius norm; infinite for other shapes, and for anything that is not finite."""
    if got.shape != expected.shape:
        return np.inf
    got, expected = got.astype(np.float64), expected.astype(np.float64)
    error, size = _norm(got - expected), _norm(expected)
    return error / size if np.isfinite(error) and size else 0.0 if error == 0 else np.inf


def errors(names: Iterable[str], got: Tree, expected: Iterable[np.ndarray]) -> dict[str, float]:
    """The relative error of each array, by name."""
    return {name: relative_error(x, y) for name, x, y in zip(names, leaves(got), expected, strict=True)}


def within(name: str, found: Mapping[str, float], allowed: float, fix: str) -> float:
    """The largest of the errors; ``WrongAnswer`` when it is not within what is allowed."""
    worst = max(found, key=lambda key: found[key])
    if not found[worst] <= allowed:
        raise WrongAnswer(f"{worst} of {name}: got a relative error of {found[worst]:.2g}; expected at most {allowed:.2g}. Fix: {fix}.")
    return found[worst]


def _norm(x: Any) -> float:
    return float(np.linalg.norm(np.ravel(x)))
