"""Make the frozen vectors anew from the reference: ``python -m ttt_conformance.vectors.regenerate``.

A deliberate act, for a new version of the mathematics: the vectors are what keeps the reference itself from drifting.
"""

from __future__ import annotations

import functools

import numpy as np
from rich.progress import track

from tttcore.tree import leaves, rebuild, tree_map

from ..allowance import allowance
from ..cases import Case
from ..laws.expected import continued, expect
from ..laws.gradients import derivative
from ..problem import Differentiable, Outcome, Problem, differentiable, random_like
from ..shapes import SHAPES
from .store import FOLDER, Vector, save


def gradients(bars: Outcome, problem: Problem) -> Differentiable:
    """The cotangents of all arguments, one complex step an element."""
    arguments = differentiable(problem)
    zeros = list(map(np.zeros_like, leaves(arguments)))
    found = list(map(np.zeros_like, zeros))
    for index, zero in enumerate(zeros):
        for place in np.ndindex(zero.shape):
            unit = zero.copy()
            unit[place] = 1.0
            along = rebuild(arguments, iter([*zeros[:index], unit, *zeros[index + 1 :]]))
            slopes = derivative(along, problem)
            found[index][place] = sum(np.sum(bar * slope) for bar, slope in zip(leaves(bars), leaves(slopes), strict=True))
    return rebuild(arguments, iter(found))


def vector(case: Case) -> Vector:
    """The case, resumed from rows at different phases, with its answer and all its gradients."""
    expected = expect(continued(case))
    outputs = Outcome(expected.truth.y, expected.truth.state._replace(phase=None))
    rng = case.rng(6)
    bars: Outcome = tree_map(lambda x: random_like(rng, x), outputs)
    run = functools.partial(gradients, bars)
    found = run(expected.problem)
    return Vector(expected.problem, expected.truth, expected.allowed, bars, found, allowance(expected.problem, found, run))


def main() -> None:
    """Write every vector."""
    chosen = [*(("inner", inner, 0) for inner in ("linear", "mlp", "swiglu")), ("layer", "linear", 0), ("layer", "linear", 1), ("layer", "mlp", 0)]
    for subject, inner, number in track(chosen, "vectors"):
        shape = SHAPES[subject][number]
        case = Case(subject, inner, "float64", shape, shape.whole, "normal", 100 + number)
        save(vector(case), FOLDER / f"{subject}-{inner}-{number}.safetensors")


if __name__ == "__main__":
    main()
