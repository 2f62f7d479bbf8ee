"""Laws about sequences: what a split, a mask, a packing or the future must not change."""

from __future__ import annotations

import functools
import itertools

import numpy as np

from tttcore import State
from tttcore.tree import tree_map

from ..cases import Case, cases_of_all_shapes
from ..problem import Options, Outcome, Problem, answer
from .expected import CACHED, Expected, expect, fresh, resumed, starts
from .law import INNER, LAYER, Law, LawBroken, Scope, Trial


def check_reference(trial: Trial, case: Case) -> None:
    """fresh and resumed, against the reference."""
    for start in starts(case, trial.form):
        expected, name = start(case), "resumed" if start is resumed else "from the initial state"
        got = answer(trial.backend, expected.problem, Options(trial.form))
        trial.compare(f"y and state {name}", got, expected.truth, expected.allowed)
        if got.y.dtype != expected.problem.dtype:
            raise LawBroken("dtype of y", got.y.dtype, expected.problem.dtype, "the same dtype")


def check_split(trial: Trial, case: Case) -> None:
    """Two calls with the state carried between them, cut anywhere."""
    problem, truth, allowed = resumed(case)
    cut = int(case.rng(2).integers(0, case.length + 1))
    first = answer(trial.backend, problem.tokens(0, cut), Options(trial.form))
    rest = problem.tokens(cut)
    second = answer(trial.backend, Problem(rest.spec, rest.params, rest.inputs, first.state), Options(trial.form))
    joined = Outcome(np.concatenate([first.y, second.y], axis=1), second.state)
    trial.compare(f"cut at {cut}", joined, truth, allowed)


def check_causality(trial: Trial, case: Case) -> None:
    """Other tokens from a place on leave every output before it as it was, bit for bit."""
    problem = resumed(case).problem
    cut = int(case.rng(2).integers(0, case.length + 1))
    other = Case(case.subject, case.inner, case.dtype, case.shape, case.length, "normal", case.seed + 1).problem()
    inputs = tuple(np.concatenate([x[:, :cut], z[:, cut:]], axis=1) for x, z in zip(problem.inputs, other.inputs, strict=True))
    before = answer(trial.backend, problem, Options(trial.form)).y[:, :cut]
    after = answer(trial.backend, Problem(problem.spec, problem.params, inputs, problem.state), Options(trial.form)).y[:, :cut]
    trial.compare(f"outputs before token {cut}", after, before, np.float64(0.0))


@functools.lru_cache(CACHED)
def masked(case: Case) -> tuple[np.ndarray, list[Expected]]:
    """A mask for the case (left, right and inner padding) and what is expected of each row's valid tokens alone."""
    problem, rng = resumed(case).problem, case.rng(3)
    place = np.arange(case.length)
    mask = rng.random((problem.batch, case.length)) < 0.6
    for row in range(problem.batch):
        kind, edge = rng.integers(3), rng.integers(case.length + 1)
        mask[row] = (mask[row], place >= edge, place < edge)[kind]
    return mask, [expect(problem.row(row, mask[row])) for row in range(problem.batch)]


def check_mask(trial: Trial, case: Case) -> None:
    """A padded batch, NaN in its padding, against each row's valid tokens alone."""
    problem = resumed(case).problem
    mask, rows = masked(case)
    # The inner loop refuses NaN in learning rates, so those of padding tokens are merely absurd.
    padding = [np.nan] * 3 + [1e6] if problem.subject == "inner" else [np.nan]
    inputs = tuple(
        np.where(np.reshape(mask, (*mask.shape, *(1,) * (x.ndim - 2))), x, np.asarray(hole, x.dtype))
        for x, hole in zip(problem.inputs, padding, strict=True)
    )
    got = answer(trial.backend, Problem(problem.spec, problem.params, inputs, problem.state), Options(trial.form, mask))
    for row, (_, truth, allowed) in enumerate(rows):
        alone = Outcome(got.y[row : row + 1, mask[row]], _row(got.state, row))
        trial.compare(f"row {row}", alone, truth, allowed)
    trial.compare("outputs of masked tokens", got.y[~mask], np.zeros_like(got.y[~mask]), np.float64(0.0))


@functools.lru_cache(CACHED)
def packed(case: Case) -> tuple[Problem, np.ndarray, list[Expected]]:
    """The tokens of the case in one row, cut into sequences (one of them empty), and what is expected of each alone."""
    problem, rng = fresh(case).problem, case.rng(4)
    inputs = tuple(np.reshape(x, (1, -1, *x.shape[2:])) for x in problem.inputs)
    row = Problem(problem.spec, problem.params, inputs)
    # The lengths stand fast, in any order: a compiler works per longest sequence.
    longest, rest = case.length, row.length - case.length
    borders = np.cumsum([0, *rng.permutation([longest, 0, 1, rest - 1])])
    return row, borders, [expect(row.tokens(start, stop)) for start, stop in itertools.pairwise(borders)]


def check_packed(trial: Trial, case: Case) -> None:
    """Packed sequences against each of them alone."""
    row, borders, sequences = packed(case)
    got = answer(trial.backend, row, Options(trial.form, cu_seqlens=borders))
    for index, (_, truth, allowed) in enumerate(sequences):
        alone = Outcome(got.y[:, borders[index] : borders[index + 1]], _row(got.state, index))
        trial.compare(f"sequence {index}", alone, truth, allowed)


def _row(state: State, row: int) -> State:
    return tree_map(lambda x: x[row : row + 1], state)


REFERENCE = Law(
    "reference",
    "primal ≡ dual ≡ decode ≡ reference: y and the final state, from the initial state and from rows at different phases",
    check_reference,
    (Scope("inner", every_dtype=True), Scope("inner", ("swiglu",)), LAYER),
    draws=cases_of_all_shapes,
)
SPLIT = Law(
    "split",
    "run(x₁ ⧺ x₂, s) ≡ run(x₂, s′) after run(x₁, s) → s′, cut anywhere, also inside a mini-batch",
    check_split,
    (INNER, Scope("layer", forms=("dual", "decode"))),
)
CAUSALITY = Law("causality", "y_t does not depend on x_{t+1}, x_{t+2}, …, bit for bit", check_causality, (INNER, LAYER))
MASK = Law(
    "mask",
    "a padded batch ≡ each row's valid tokens alone (left, right and inner padding, NaN in it); y = 0 in the padding",
    check_mask,
    (INNER, LAYER),
)
PACKED = Law("packed", "cu_seqlens ≡ each sequence alone, from a fresh state; empty sequences too", check_packed, (INNER,))
