"""The truth of a case and what may differ from it, computed once for all backends and forms."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..allowance import allowance
from ..cases import Case, dtypes_of
from ..problem import Outcome, Problem, reference
from .law import Trial

CACHED = 1024


class Expected(NamedTuple):
    """A problem, the float64 reference's answer, and how far each of its arrays may be from it."""

    problem: Problem
    truth: Outcome
    allowed: Outcome


def exact(problem: Problem) -> Problem:
    """The problem in float64."""
    return problem.map(lambda x: x.astype(np.float64))


def expect(problem: Problem, run: Callable[[Problem], Outcome] = reference) -> Expected:
    """The reference's answer to a problem and the allowance of its precision."""
    truth = run(exact(problem))
    return Expected(problem, truth, allowance(problem, truth, run))


@functools.lru_cache(CACHED)
def fresh(case: Case) -> Expected:
    """The case's problem from its initial state."""
    return expect(case.problem())


@functools.lru_cache(CACHED)
def resumed(case: Case) -> Expected:
    """The case's problem continued from a state whose rows stand at different phases."""
    return expect(continued(case))


def begun(case: Case, carried: bool) -> Expected:
    """``resumed`` where a state is carried, else ``fresh``."""
    return resumed(case) if carried else fresh(case)


def starts(trial: Trial, case: Case) -> tuple[bool, ...]:
    """With a state, and in the dual form without one too, where a backend may know the phases. Each is another program to a compiler."""
    if not trial.carries:
        return (False,)
    return (True, False) if case.usual and trial.form == "dual" else (True,)


def continued(case: Case) -> Problem:
    """The case's problem with the state that the reference reaches on another draw of tokens, after as many in each row as ``phases`` says."""
    shape = case.shape
    past = replace(case, length=shape.mini_batch + 1, flavour="normal", seed=case.seed + 1).problem()
    problem = case.problem()
    counts = phases(case)
    mask = np.arange(past.length) < counts[:, None]
    wide = dtypes_of(case.dtype)[1]
    past = replace(past.map(lambda x: x.astype(wide)), spec=problem.spec, params=problem.params)
    return replace(problem, state=reference(past, mask=mask).state)


def phases(case: Case) -> np.ndarray:
    """Tokens that each row has read, ``[B]``, 0 … K + 1; no two rows at the same phase where there is room for that.

    In a whole read-out 0 or K: its calls begin at borders.
    """
    size, batch = case.shape.mini_batch, case.shape.batch
    first = int(case.rng(1).integers(size + 2))
    counts = (first + np.arange(batch) * max(1, size // 2)) % (size + 2)
    return counts if case.read_out == "causal" else size * (counts % 2)
