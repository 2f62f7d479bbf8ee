"""Laws about one sequence after another: what a form, a split, the future, a mask or a packing must not change."""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace
from typing import Any

import numpy as np

from tttcore import State
from tttcore.tree import leaves, paths, tree_map

from ..cases import Case, families
from ..problem import Outcome, Problem
from .expected import CACHED, Expected, begun, continued, expect, fresh, resumed, starts
from .law import INNER, LAYER, WHOLE, Law, Scope, Trial


def check_reference(trial: Trial, case: Case) -> None:
    """fresh and resumed, in every flavour and at every size, against the reference; the dtypes too."""
    for member in case.family:
        for carried in starts(trial, member):
            expected, name = begun(member, carried), "resumed" if carried else "from the initial state"
            got = trial.answer(expected.problem)
            trial.compare(f"y and state {name}", got, expected.truth, expected.allowed)
            _same_dtypes(trial, got, expected.problem.dtype)


def _same_dtypes(trial: Trial, got: Outcome, dtype: np.dtype[Any]) -> None:
    """y and the state in the dtype of the tokens, the phase int32."""
    for path, x in zip(paths(got), leaves(got), strict=True):
        expected = np.dtype(np.int32) if path == "state.phase" else dtype
        trial.demand(f"dtype of {path}", x.dtype == expected, x.dtype, expected)


def check_split(trial: Trial, case: Case) -> None:
    """Two calls with the state carried between them, cut anywhere, every other time within two tokens of an end; in a whole read-out at a border."""
    problem, truth, allowed = resumed(case)
    rng = case.rng(2)
    near = rng.choice([0, 1, 2, case.length - 2, case.length - 1, case.length])
    cut = int(np.clip(rng.choice([near, rng.integers(0, case.length + 1)]), 0, case.length))
    cut -= 0 if case.read_out == "causal" else cut % case.shape.mini_batch
    first = trial.answer(problem.tokens(0, cut))
    trial.compare(f"y before the cut at {cut}", first.y, truth.y[:, :cut], allowed.y)
    second = trial.answer(replace(problem.tokens(cut), state=first.state))
    trial.compare(f"after the cut at {cut}", second, truth._replace(y=truth.y[:, cut:]), allowed)


def check_causality(trial: Trial, case: Case) -> None:
    """Other tokens from a place on leave every output before it as it was, bit for bit."""
    problem = begun(case, trial.carries).problem
    cut = int(case.rng(2).integers(0, case.length + 1))
    other = replace(case, flavour="normal", seed=case.seed + 1).problem()
    inputs = tuple(np.concatenate([x[:, :cut], z[:, cut:]], axis=1) for x, z in zip(problem.inputs, other.inputs, strict=True))
    before = trial.answer(problem).y[:, :cut]
    after = trial.answer(replace(problem, inputs=inputs)).y[:, :cut]
    trial.compare(f"outputs before token {cut}", after, before, np.float64(0.0))


def padding(case: Case) -> np.ndarray:
    """A mask for the case: of each row left, right or inner padding, or all but two tokens or fewer."""
    rng, place = case.rng(3), np.arange(case.length)
    mask = rng.random((case.shape.batch, case.length)) < 0.6
    for row in range(case.shape.batch):
        kind, edge = rng.integers(4), rng.integers(case.length + 1)
        few = rng.permutation(case.length) < rng.integers(3)
        mask[row] = (mask[row], place >= edge, place < edge, few)[kind]
    return mask


@functools.lru_cache(CACHED)
def masked(case: Case, carried: bool) -> list[Expected]:
    """What is expected of each row's valid tokens alone."""
    problem, mask = begun(case, carried).problem, padding(case)
    return [expect(problem.row(row, mask[row])) for row in range(problem.batch)]


def with_holes(problem: Problem, mask: np.ndarray) -> Problem:
    """The problem with NaN where it is masked."""
    # The inner loop refuses NaN in learning rates, so those of padding tokens are merely absurd.
    holes = [np.nan] * 3 + [1e6] if problem.subject == "inner" else [np.nan]
    inputs = tuple(
        np.where(np.reshape(mask, (*mask.shape, *(1,) * (x.ndim - 2))), x, np.asarray(hole, x.dtype))
        for x, hole in zip(problem.inputs, holes, strict=True)
    )
    return replace(problem, inputs=inputs)


def check_mask(trial: Trial, case: Case) -> None:
    """A padded batch, NaN in its padding, against each row's valid tokens alone."""
    problem = begun(case, trial.carries).problem
    mask = padding(case)
    got = trial.answer(with_holes(problem, mask), mask)
    for row, (_, truth, allowed) in enumerate(masked(case, trial.carries)):
        alone = Outcome(got.y[row : row + 1, mask[row]], _row(got.state, row))
        trial.compare(f"row {row}", alone, truth, allowed)
    trial.compare("outputs of masked tokens", got.y[~mask], np.zeros_like(got.y[~mask]), np.float64(0.0))


@functools.lru_cache(CACHED)
def packed(case: Case, carried: bool) -> tuple[Problem, np.ndarray, list[Expected]]:
    """The tokens of the case in one row, cut into four sequences (one of them empty), and what is expected of each alone."""
    problem, rng = fresh(case).problem, case.rng(4)
    inputs = tuple(np.reshape(x, (1, -1, *x.shape[2:])) for x in problem.inputs)
    state = continued(replace(case, shape=case.shape._replace(batch=4))).state if carried else None
    row = Problem(problem.spec, problem.params, inputs)
    # The lengths stand fast, in any order: a compiler works per longest sequence.
    longest, rest = case.length, row.length - case.length
    borders = np.cumsum([0, *rng.permutation([longest, 0, 1, rest - 1])])
    pieces = [replace(row.tokens(*pair), state=_row(state, index)) for index, pair in enumerate(itertools.pairwise(borders))]
    return replace(row, state=state), borders, list(map(expect, pieces))


def check_packed(trial: Trial, case: Case) -> None:
    """Packed sequences, fresh and each from a state of its own, against each of them alone."""
    for carried in starts(trial, case):
        row, borders, sequences = packed(case, carried)
        got = trial.answer(row, cu_seqlens=borders)
        for index, (_, truth, allowed) in enumerate(sequences):
            alone = Outcome(got.y[:, borders[index] : borders[index + 1]], _row(got.state, index))
            trial.compare(f"sequence {index}", alone, truth, allowed)


def _row(state: State | None, row: int) -> State | None:
    return tree_map(lambda x: x[row : row + 1], state)


REFERENCE = Law(
    "reference",
    "primal ≡ dual ≡ decode ≡ reference: y and the final state, from the initial state and from rows at different phases",
    check_reference,
    (
        Scope("inner", dtypes=("float64", "float32")),
        Scope("inner", ("swiglu", "deep"), forms=("dual", "decode")),
        Scope("inner", ("bare",), forms=("dual",)),
        Scope("inner", ("swiglu", "deep", "bare"), deep=True),
        LAYER,
        Scope("whole", forms=("primal", "dual")),
    ),
    draws=families,
    cost=4,
)
SPLIT = Law(
    "split",
    "run(x₁ ⧺ x₂, s) ≡ run(x₂, s′) after run(x₁, s) → s′, cut anywhere, also inside a mini-batch",
    check_split,
    (INNER, Scope("layer", forms=("dual", "decode")), Scope("layer", forms=("primal",), deep=True), WHOLE),
)
CAUSALITY = Law(
    "causality",
    "y_t does not depend on x_{t+1}, x_{t+2}, …, bit for bit",
    check_causality,
    (INNER, LAYER),
    allowed="nothing",
)
MASK = Law(
    "mask",
    "a padded batch ≡ each row's valid tokens alone (left, right and inner padding, NaN in it); y = 0 in the padding",
    check_mask,
    (INNER, LAYER, WHOLE),
    allowed="the rule; nothing in the padding",
)
PACKED = Law(
    "packed",
    "cu_seqlens ≡ each sequence alone, from the initial or its own state; empty sequences too",
    check_packed,
    (INNER, WHOLE),
    quick="dual",
)
