"""Make the frozen vectors anew from the reference: ``python -m ttt_conformance.vectors.regenerate``.

A deliberate act, for a new version of the mathematics: the vectors are what keeps the reference itself from drifting.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from rich.progress import track

from tttcore.tree import Tree, leaves, paths, rebuild, tree_map

from ..allowance import allowance
from ..laws.gradients import derivative
from ..problem import Differentiable, Outcome, Problem, differentiable, random_like, reference
from .catalogue import CATALOGUE, Entry
from .questions import rounded
from .store import FOLDER, PRECISIONS, Answer, Slopes, Vector, files, save


def vector(entry: Entry) -> Vector:
    """The entry's question with its answer and, if it is to have any, all its gradients."""
    question = entry.ask(entry.draw)

    def run(problem: Problem) -> Outcome:
        return reference(problem, question.mask, question.cu_seqlens)

    answer = Answer(*_with_allowances(question.problem, run))
    found = None
    if entry.gradients:
        rng = np.random.default_rng(102)
        outputs = Outcome(answer.truth.y, answer.truth.state._replace(phase=None))
        bars: Outcome = tree_map(lambda x: rounded(random_like(rng, x)), outputs)
        found = Slopes(bars, *_with_allowances(question.problem, functools.partial(gradients, bars)))
    return Vector(entry.name, entry.about, entry.description, question, answer, found)


def gradients(bars: Outcome, problem: Problem) -> Differentiable:
    """The cotangents of all arguments, one complex step an element.

    Rows do not meet: what has rows (tokens, states) is stepped in copies of its rows, all in one call. A parameter takes a call an element, but for
    initial weights beside a state, which nothing reads.
    """
    arguments, rows = differentiable(problem), problem.batch
    found: list[np.ndarray] = []
    for index, (path, x) in enumerate(zip(paths(arguments), leaves(arguments), strict=True)):
        name = path.rpartition(".")[2]
        if not path.startswith("params."):
            size = x[0].size
            steps = np.tile(np.eye(size), (rows, 1)).reshape(rows * size, *x.shape[1:])
            inputs, state, copied = tree_map(functools.partial(np.repeat, repeats=size, axis=0), (problem.inputs, problem.state, bars))
            found.append(_slope(replace(problem, inputs=inputs, state=state), copied, index, steps).reshape(x.shape))
        elif problem.state is not None and name in problem.state.weights:
            found.append(np.zeros_like(x))
        else:
            units = np.eye(x.size).reshape(x.size, *x.shape)
            found.append(np.array([np.sum(_slope(problem, bars, index, unit)) for unit in units]).reshape(x.shape))
    return rebuild(arguments, iter(found))


def _slope(problem: Problem, bars: Outcome, index: int, along: np.ndarray) -> np.ndarray:
    """⟨ȳ, ∂f·u⟩ of every row, u along the argument of that index."""
    arguments = differentiable(problem)
    zeros = [np.zeros_like(x) for x in leaves(arguments)]
    zeros[index] = along
    slopes = derivative(rebuild(arguments, iter(zeros)), problem)
    parts: Any = [np.sum(np.reshape(bar * slope, (len(bar), -1)), axis=1) for bar, slope in zip(leaves(bars), leaves(slopes), strict=True)]
    return np.sum(parts, axis=0)


def _with_allowances(problem: Problem, run: Callable[[Problem], Tree]) -> tuple[Any, Any]:
    """What ``run`` says, and how far each array may be off in every one of ``PRECISIONS``."""
    truth = run(problem)
    limits = [allowance(problem.map(functools.partial(_narrow, dtype)), truth, run) for dtype in PRECISIONS]
    return truth, rebuild(truth, map(np.array, zip(*map(leaves, limits), strict=True)))


def _narrow(dtype: str, x: np.ndarray) -> np.ndarray:
    return x.astype(dtype)


def main() -> None:
    """Write every vector, and leave none that is not in the catalogue."""
    for entry in track(CATALOGUE, "vectors"):
        save(vector(entry), FOLDER / f"{entry.name}.safetensors")
    for path in files():
        if path.stem not in {entry.name for entry in CATALOGUE}:
            path.unlink()


if __name__ == "__main__":
    main()
