"""Laws about numbers: dtypes, hostile inputs, and what adds up over a long sequence."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, cast

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

from tttcore.tree import leaves, paths

from ..allowance import allowance, distance
from ..cases import Case, Setting, dtypes_of, hostile_cases
from ..problem import Outcome, Problem, reference
from ..report.results import Point
from ..shapes import nearest
from .expected import CACHED, Expected, begun, continued, exact
from .law import Law, Scope, Trial

LONG = 32768
"""T of the law of drift."""
MARKS = tuple(2**n for n in range(6, 16))
"""Tokens at which its errors are noted."""


def check_hostile(trial: Trial, case: Case) -> None:
    """Numbers at the ends of the dtype's range: finite answers, within the allowance of the same problem."""
    problem, truth, allowed = begun(case, trial.carries)
    got = trial.answer(problem)
    for path, x in zip(paths(got), leaves(got), strict=True):
        trial.demand(f"{path} is finite", np.all(np.isfinite(x)), "NaN or infinite", "finite values, as the reference's")
    trial.compare(f"{case.flavour} input", got, truth, allowed)


def check_dtype(trial: Trial, case: Case) -> None:
    """Narrow tokens: y in their dtype, the state in float32 or wider with more digits than theirs, both right to what rounded products allow."""
    problem, truth, allowed = narrow(case, trial.carries)
    got = trial.answer(problem)
    trial.demand("dtype of y", got.y.dtype == problem.dtype, got.y.dtype, problem.dtype)
    if got.state is not None:
        for path, x in zip(paths(got.state), leaves(got.state), strict=True):
            if path.startswith(("weights", "grads", "conv")):
                trial.demand(f"dtype of {path}", x.dtype in (np.float32, np.float64), x.dtype, "float32 or float64")
            if path.startswith(("weights", "grads")):
                short = _representable(x, problem.dtype)
                trial.demand(f"digits of {path}", short < 0.5, f"those of {problem.dtype} in {short:.0%} of it", "float32's")
    trial.compare("narrow tokens", got, truth, allowed)


@functools.lru_cache(CACHED)
def narrow(case: Case, carried: bool) -> Expected:
    """A problem of narrow tokens, its float64 truth, and the allowance of their rounding: operands of products may be rounded to their dtype."""
    problem = continued(case) if carried else case.problem()
    truth = reference(exact(problem))
    wide = problem.map(lambda x: x.astype(dtypes_of(case.dtype)[1]))
    return Expected(problem, truth, allowance(wide, truth, reference, step=rounding(problem.dtype)))


def _representable(x: np.ndarray, dtype: np.dtype[Any]) -> float:
    """The share of numbers, zeros apart, that the dtype holds exactly."""
    exact, there = x == x.astype(dtype).astype(x.dtype), x != 0
    return float(np.sum(exact & there) / max(1, np.sum(there)))


def rounding(dtype: np.dtype[Any]) -> float:
    """Half of the dtype's ε: a number rounded to it is off by at most that share of itself."""
    return float(cast("Any", ml_dtypes.finfo(dtype)).eps) / 2


class Long(NamedTuple):
    """A long problem, its truth, and by mark what is allowed of y up to there."""

    problem: Problem
    truth: Outcome
    allowed: Outcome
    along: list[np.float64]


def check_drift(trial: Trial, case: Case) -> None:
    """T = 32768 in float32: the error of y up to each mark and of the final state, within what the reference's own rounding adds up to."""
    problem, truth, allowed, along = long(case)
    got = trial.answer(problem)
    for mark, limit in zip(MARKS, along, strict=False):
        trial.curve.append(Point(mark, distance(got.y[:, :mark], truth.y[:, :mark]), float(limit)))
    for mark, limit in zip(MARKS, along, strict=False):
        trial.compare(f"y of the first {mark} tokens", got.y[:, :mark], truth.y[:, :mark], limit)
    trial.compare("final state", got, truth, allowed)


@functools.lru_cache(4)
def long(case: Case) -> Long:
    """The case's problem, with what is allowed by mark."""
    problem = case.problem()

    def run(problem: Problem) -> tuple[Outcome, tuple[np.ndarray, ...]]:
        outcome = reference(problem)
        return outcome, tuple(outcome.y[:, :mark] for mark in MARKS if mark <= case.length)

    truth, pieces = run(exact(problem))
    allowed, along = allowance(problem, (truth, pieces), run)
    return Long(problem, truth, allowed, list(along))


def long_cases(setting: Setting) -> st.SearchStrategy[Case]:
    """Cases of one row and one head, with mini-batches as near to 64 tokens as the claims have them."""
    shape = setting.shapes[0]._replace(batch=1, heads=1, mini_batch=nearest(64, setting.supports.mini_batch_sizes))

    def build(seed: int) -> Case:
        return Case(setting.subject, setting.inner, setting.dtype, shape, LONG, "normal", seed)

    return st.builds(build, st.integers(0, 2**31))


HOSTILE = Law(
    "hostile",
    "tokens of zeros, denormals, 1e-10 or the eighth root of the largest number, and steps a thousand times too long: finite, and right",
    check_hostile,
    (Scope("inner", dtypes=("float64", "float32")),),
    draws=hostile_cases,
)
DTYPE = Law(
    "dtype",
    "tokens in bfloat16 or float16: y in their dtype, the state in float32 or wider, both within what products of rounded operands allow",
    check_dtype,
    (
        Scope("inner", ("linear",), ("dual",), dtypes=("bfloat16", "float16")),
        Scope("inner", ("linear",), ("primal", "decode"), dtypes=("bfloat16",)),
        Scope("layer", ("linear",), ("dual",), dtypes=("bfloat16",)),
        Scope("whole", ("linear",), ("dual",), dtypes=("bfloat16",)),
    ),
    allowed="the rule, with the rounding step of the tokens",
    quick="dual",
)
DRIFT = Law(
    "drift",
    "T = 32768 in float32: error of y along the sequence, and of the final state, within the allowance of the same problem",
    check_drift,
    (Scope("inner", ("linear",), ("dual",), dtypes=("float32",)), Scope("inner", ("linear", "mlp"), dtypes=("float32",), deep=True)),
    draws=long_cases,
    allowed="the rule, up to each of ten places and for the final state",
    cost=8,
    quick="never",
)
