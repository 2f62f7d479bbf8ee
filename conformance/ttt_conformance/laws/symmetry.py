"""Laws of symmetry: rows and heads are computed apart from one another, and which is which does not matter.

In a whole read-out the order of a mini-batch's tokens does not matter either.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tttcore.tree import tree_map

from ..cases import Case
from ..problem import Outcome, Problem
from .expected import CACHED, Expected, begun, expect
from .law import INNER, LAYER, WHOLE, Law, Scope, Trial

WITHOUT_HEADS = ("token_lr_offset",)
"""Parameters that all heads share; every other one of the inner loop has the heads as its first axis."""


def check_equivariance(trial: Trial, case: Case) -> None:
    """Rows (and in the inner loop heads) in another order: the backend's own answers in that order."""
    problem, _, allowed = begun(case, trial.carries)
    rng = case.rng(7)
    rows = rng.permutation(problem.batch)
    heads = rng.permutation(problem.spec.heads) if problem.subject == "inner" else None
    before = trial.answer(problem)
    expected = Outcome(_take(before.y, rows, 2, heads), _ordered(before.state, rows, heads))
    got = trial.answer(reordered(problem, rows, heads))
    trial.compare("rows and heads in another order", got, expected, allowed)


def check_independence(trial: Trial, case: Case) -> None:
    """All rows and heads but one get other tokens: of that one the backend's own answer is as before."""
    problem, _, allowed = begun(case, trial.carries)
    rng = case.rng(8)
    row, head = int(rng.integers(problem.batch)), int(rng.integers(problem.spec.heads))
    other = replace(case, flavour="loud", seed=case.seed + 1).problem()
    inputs: list[np.ndarray] = []
    for x, z in zip(problem.inputs, other.inputs, strict=True):
        mixed = z.copy()
        place = (row, slice(None), head) if problem.subject == "inner" else (row,)
        mixed[place] = x[place]
        inputs.append(mixed)
    before = trial.answer(problem)
    got = trial.answer(replace(problem, inputs=tuple(inputs)))
    pick = _picked(row, head) if problem.subject == "inner" else _picked(row, None)
    trial.compare(f"row {row}, head {head} among other tokens", pick(got), pick(before), allowed)


def check_permutation(trial: Trial, case: Case) -> None:
    """Tokens of each mini-batch in another order, the ragged last one's too: the backend's own y in that order, and the same state.

    The last token of each mini-batch, whichever it is then, reads what it does in a causal read-out.
    """
    problem, _, allowed = begun(case, trial.carries)
    order, last, (causal, truth, limits) = shuffled(case, trial.carries)
    before = trial.answer(problem)
    got = trial.answer(replace(causal, spec=problem.spec))
    trial.compare("tokens in another order", got, Outcome(before.y[:, order], before.state), allowed)
    trial.compare("last tokens and state, against a causal read-out", got._replace(y=got.y[:, last]), truth._replace(y=truth.y[:, last]), limits)


@functools.lru_cache(CACHED)
def shuffled(case: Case, carried: bool) -> tuple[np.ndarray, np.ndarray, Expected]:
    """An order of the tokens, the places that are a mini-batch's last, and what is expected in that order of a causal read-out."""
    problem = begun(case, carried).problem
    rng, place, size = case.rng(13), np.arange(case.length), case.shape.mini_batch
    order = np.lexsort((rng.random(case.length), place // size))
    last = np.append(place[size - 1 : -1 : size], place[-1:])
    inputs = tuple(x[:, order] for x in problem.inputs)
    return order, last, expect(replace(problem, spec=replace(problem.spec, read_out="causal"), inputs=inputs))


def reordered(problem: Problem, rows: np.ndarray, heads: np.ndarray | None) -> Problem:
    """The problem with its rows and, unless None, its heads in another order."""
    params = {name: value if heads is None or name in WITHOUT_HEADS else value[heads] for name, value in problem.params.items()}
    inputs = tuple(_take(x, rows, 2, heads) for x in problem.inputs)
    return replace(problem, params=params, inputs=inputs, state=_ordered(problem.state, rows, heads))


def _ordered(state: object, rows: np.ndarray, heads: np.ndarray | None) -> object:
    """Weights and sums are ``[B, H, …]``; phases and the convolutions' inputs have no heads."""
    return tree_map(lambda x: _take(x, rows, 1, heads if x.ndim == 4 else None), state)


def _take(x: np.ndarray, rows: np.ndarray, axis: int, heads: np.ndarray | None) -> np.ndarray:
    return x[rows] if heads is None else np.take(x[rows], heads, axis=axis)


def _picked(row: int, head: int | None) -> Callable[[Outcome], Outcome]:
    def pick(outcome: Outcome) -> Outcome:
        y = outcome.y[row] if head is None else outcome.y[row, :, head]
        return Outcome(y, tree_map(lambda x: x[row, head] if head is not None and x.ndim == 4 else x[row], outcome.state))

    return pick


EQUIVARIANCE = Law(
    "equivariance",
    "run(π x, π s) ≡ π run(x, s) for every permutation π of the rows and, with their parameters, of the heads",
    check_equivariance,
    (INNER, LAYER, WHOLE),
)
INDEPENDENCE = Law("independence", "y and state of a row and head do not depend on tokens of others", check_independence, (INNER, LAYER, WHOLE))
PERMUTATION = Law(
    "permutation",
    "read_out = whole: run(x, s) → (y, s′) ⇒ run(π x, s) ≡ (π y, s′) for π of the tokens of each mini-batch, whose last ones read as if causal",
    check_permutation,
    (Scope("whole", forms=("primal", "dual")),),
)
