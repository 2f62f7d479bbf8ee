"""What vectors ask.

Numbers are float32's, so that an implementation in that precision is asked the very same; but for the state at a cut, which is the answer to the
first part. Tokens are random ones for a layer too, not the text that the laws use, which another Python changes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tttcore import State

from ..cases import Case
from ..laws.expected import phases
from ..laws.sequence import with_holes
from ..problem import Problem, reference
from .store import Question

CUT = 6
LENGTHS = (1, 0, 11, 10)
MASK = np.array([[0, 0, 1, 1, 0, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0]], bool)


def rounded(x: np.ndarray) -> np.ndarray:
    """The nearest numbers of float32, in float64."""
    return x.astype(np.float32).astype(np.float64)


def _problem(case: Case) -> Problem:
    problem = case.problem()
    if case.subject == "layer":
        problem = replace(problem, inputs=(case.rng(9).normal(size=problem.inputs[0].shape),))
    return problem.map(rounded)


def initial(case: Case) -> Question:
    """The case from its initial state."""
    return Question(_problem(case))


def resumed(case: Case) -> Question:
    """The case from the state after other tokens, as many in each row as ``phases`` says."""
    problem, past = _problem(case), _problem(replace(case, length=case.shape.mini_batch + 1, flavour="normal", seed=case.seed + 1))
    mask = np.arange(past.length) < phases(case)[:, None]
    return Question(replace(problem, state=_after(replace(past, params=problem.params), mask)))


def first_part(case: Case) -> Question:
    """The first tokens of ``initial``."""
    return Question(_problem(case).tokens(0, CUT))


def second_part(case: Case) -> Question:
    """The other tokens of ``initial``, from the state after the first ones."""
    problem = _problem(case)
    return Question(replace(problem.tokens(CUT), state=reference(problem.tokens(0, CUT)).state))


def masked(case: Case) -> Question:
    """``resumed`` with padding, NaN in it."""
    return Question(with_holes(resumed(case).problem, MASK), MASK)


def packed(case: Case) -> Question:
    """The tokens of ``initial`` in one row, as sequences of ``LENGTHS``."""
    problem = _problem(case)
    row = replace(problem, inputs=tuple(np.reshape(x, (1, -1, *x.shape[2:])) for x in problem.inputs))
    return Question(row, cu_seqlens=np.cumsum([0, *LENGTHS]).astype(np.int32))


def at_rest(case: Case) -> Question:
    """``resumed`` with ℓ = 0."""
    problem = resumed(case).problem
    return Question(replace(problem, inputs=(*problem.inputs[:3], np.zeros_like(problem.inputs[3]))))


def clamped(case: Case) -> Question:
    """``initial`` with an offset δ_1 below −1/2."""
    problem = _problem(case)
    offset = problem.params["token_lr_offset"].copy()
    offset[1] = -2.0
    return Question(replace(problem, params={**problem.params, "token_lr_offset": offset}))


def _after(past: Problem, mask: np.ndarray) -> State:
    """The state after the tokens that count."""
    state: Any = replace(past, state=reference(past, mask).state).map(rounded).state
    return state
