"""The law of the caller's positions, which RoPE alone may see."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..allowance import allowance
from ..cases import Case
from ..problem import REFERENCE, Options, Outcome, Problem, answer
from .expected import CACHED, begun, exact
from .law import Law, Scope, Trial
from .sequence import padding, with_holes


def check_positions(trial: Trial, case: Case) -> None:
    """Positions for each token of a padded batch go with the tokens; one row of zeros for all rows is a layer without RoPE."""
    problem = begun(case, trial.carries).problem
    if trial.backend.supports.mask:
        mask, positions, rows = placed(case, trial.carries)
        got = _answer(trial, with_holes(problem, mask), mask, positions)
        for row, (truth, allowed) in enumerate(rows):
            trial.compare(f"row {row} at positions of its own", got.y[row : row + 1, mask[row]], truth.y, allowed.y)
    unrotated = Problem(replace(problem.spec, rope_theta=None), problem.params, problem.inputs, problem.state)
    got = _answer(trial, problem, None, np.zeros((1, problem.length), np.int32))
    trial.compare("positions of 0 against a layer without RoPE", got, *_expected(unrotated, None))


class Judged(NamedTuple):
    """What is expected, and how far an answer may be from it."""

    truth: Outcome
    allowed: Outcome


@functools.lru_cache(CACHED)
def placed(case: Case, carried: bool) -> tuple[np.ndarray, np.ndarray, list[Judged]]:
    """A mask, positions ``[B, T]`` up to four mini-batches, and what is expected of each row's valid tokens at theirs."""
    problem, mask = begun(case, carried).problem, padding(case)
    positions = case.rng(12).integers(0, 4 * case.shape.mini_batch, mask.shape).astype(np.int32)
    return mask, positions, [_expected(problem.row(row, mask[row]), positions[row : row + 1, mask[row]]) for row in range(problem.batch)]


def _answer(trial: Trial, problem: Problem, mask: np.ndarray | None, positions: np.ndarray) -> Outcome:
    trial.call = None
    return answer(trial.backend, problem, Options(trial.form, mask, positions=positions))


def _expected(problem: Problem, positions: np.ndarray | None) -> Judged:
    def run(problem: Problem) -> Outcome:
        return answer(REFERENCE, problem, Options("primal", positions=positions))

    truth = run(exact(problem))
    return Judged(truth, allowance(problem, truth, run))


POSITIONS = Law(
    "positions",
    "positions of the caller turn q and k of their tokens, modulo K, and nothing else; positions of 0 turn nothing",
    check_positions,
    (Scope("layer", ("linear",), ("dual",)),),
    quick="never",
)
