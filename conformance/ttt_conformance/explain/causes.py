"""The likely cause of a wrong answer: a known mistake that gives the same one, else a pattern in the numbers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np

from tttcore.tree import leaves, paths

from ..laws import LawBroken
from ..mutants import MUTANTS
from ..problem import Call, Outcome, answer

NAMED = 2
"""How many mistakes are named when several give the same answer, or the same cotangents."""


def likely(error: LawBroken, call: Call, expected: Outcome, allowed: Outcome) -> str:
    """One or two sentences, or an empty string."""
    known = list(_known(call, expected, allowed))
    return "; or: ".join(known[:NAMED]) or pattern(error)


def _known(call: Call, expected: Outcome, allowed: Outcome) -> Iterator[str]:
    """The causes of those mutants of the reference that answer as the backend did, and not as the truth."""
    for name, mutant in MUTANTS.items():
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of wrong layers, not of the one under test
            try:
                outcome = answer(mutant.backend(name), call.problem, call.options)
            except Exception:  # a mistake that does not even run on this problem is not its cause
                continue
        if close(outcome, call.got, allowed) and not close(outcome, expected, allowed):
            yield f"{mutant.cause} (see {mutant.see})"


def close(x: Outcome, y: Outcome, allowed: Outcome) -> bool:
    """Whether two answers are alike within what is allowed, in y alone where one has no state."""
    if y.state is None or x.state is None:
        x, y, allowed = (outcome._replace(state=None) for outcome in (x, y, allowed))
    limits = dict(zip(paths(allowed), leaves(allowed), strict=True))
    return list(paths(x)) == list(paths(y)) and all(
        a.shape == b.shape and bool(np.all((np.abs(a.astype(np.float64) - b.astype(np.float64)) <= limits[path]) | (np.isnan(a) & np.isnan(b))))
        for path, a, b in zip(paths(x), leaves(x), leaves(y), strict=True)
    )


def pattern(error: LawBroken) -> str:
    """What the numbers where the error is largest have of a pattern, or an empty string."""
    place = error.place
    if place is None:
        return ""
    if np.isnan(place.got):
        return "not a number: an overflow, 0/0, or a masked value that was multiplied instead of left out"
    if place.got == 0:
        return "zero where it should not be: a term or a cotangent is dropped"
    ratio = place.got / place.expected if place.expected else np.inf
    for factor in (-1.0, 0.5, 2.0):
        if abs(ratio - factor) < 1e-4:
            return f"{factor:g} times what it should be"
    return ""
