"""The truth of a case and what may differ from it, computed once for all backends and forms."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..allowance import allowance
from ..cases import Case
from ..problem import Outcome, Problem, reference

CACHED = 4096


class Expected(NamedTuple):
    """A problem, the float64 reference's answer, and how far each of its arrays may be from it."""

    problem: Problem
    truth: Outcome
    allowed: Outcome


def expect(problem: Problem) -> Expected:
    """The reference's answer to a problem and the allowance of its precision."""
    truth = reference(problem.map(lambda x: x.astype(np.float64)))
    return Expected(problem, truth, allowance(problem, truth, reference))


@functools.lru_cache(CACHED)
def fresh(case: Case) -> Expected:
    """The case's problem from its initial state."""
    return expect(case.problem())


@functools.lru_cache(CACHED)
def resumed(case: Case) -> Expected:
    """The case's problem continued from a state whose rows stand at different phases."""
    return expect(continued(case))


def starts(case: Case, form: str) -> tuple[Callable[[Case], Expected], ...]:
    """How a case is begun: resumed, and in the dual form fresh too, where a backend may know the phases. Each is another program to a compiler."""
    return (resumed, fresh) if case.usual and form == "dual" else (resumed,)


def continued(case: Case) -> Problem:
    """The case's problem with the state that the reference reaches on another draw of tokens, some of them masked."""
    past = Case(case.subject, case.inner, case.dtype, case.shape, case.shape[3] + 1, "normal", case.seed + 1).problem()
    problem = case.problem()
    past = Problem(problem.spec, problem.params, past.inputs)
    mask = case.rng(1).random((past.batch, past.length)) < 0.7
    return Problem(problem.spec, problem.params, problem.inputs, reference(past, mask=mask).state)
