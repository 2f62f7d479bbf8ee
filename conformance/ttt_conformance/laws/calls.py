"""The law about calls as such: the same again gives the same, and arguments stay as they were."""

from __future__ import annotations

from typing import Any

import numpy as np

from tttcore.tree import leaves, paths, tree_map

from ..cases import Case
from ..problem import Options, Problem, arguments, call_native
from .expected import begun
from .law import INNER, WHOLE, Law, Scope, Trial
from .sequence import padding, with_holes


def check_repeat(trial: Trial, case: Case) -> None:
    """Two calls on the same native arrays, which must be afterwards what they were before; in the dual form with a mask, too."""
    problem = begun(case, trial.carries).problem
    _twice(trial, problem, Options(trial.form))
    if trial.form == "dual" and trial.backend.supports.mask:
        mask = padding(case)
        _twice(trial, with_holes(problem, mask), Options(trial.form, mask))


def _twice(trial: Trial, problem: Problem, options: Options) -> None:
    backend = trial.backend
    kept, given = arguments(problem), arguments(problem)
    native = tree_map(backend.asarray, given)
    first = call_native(backend, problem.spec, native, options)
    noted = tree_map(lambda x: np.array(backend.to_numpy(x)), first)
    second = call_native(backend, problem.spec, native, options)
    unchanged(trial, kept, tree_map(backend.to_numpy, native))
    unchanged(trial, kept, given)
    for what, answer in (("second call", second), ("first answer after the second call", first)):
        for path, x, y in zip(paths(noted), leaves(tree_map(backend.to_numpy, answer)), leaves(noted), strict=True):
            trial.compare(f"{what}: {path}", x, y, np.float64(0.0))


def unchanged(trial: Trial, before: Any, after: Any) -> None:
    """Raise ``LawBroken`` when an argument is not, bit for bit, what it was."""
    for path, x, y in zip(paths(before), leaves(before), leaves(after), strict=True):
        same = x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == np.ascontiguousarray(y).tobytes()
        trial.demand(f"{path} after the call", same, "another value", "the value from before")


REPEAT = Law(
    "repeat",
    "the second call equals the first, bit for bit, and no argument is changed",
    check_repeat,
    (INNER, Scope("layer", forms=("dual",)), WHOLE),
    allowed="nothing",
)
