"""The law of gradients: every backend's vector-Jacobian products against the complex-step oracle, which uses no autodiff."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, cast

import numpy as np

from tttcore import inner_derivative, layer_derivative
from tttcore.tree import leaves, paths, rebuild, tree_map

from ..allowance import allowance
from ..cases import Case
from ..problem import Differentiable, Options, Outcome, Problem, differentiable, gradient, random_like
from .expected import CACHED, fresh, resumed, starts
from .law import INNER, Law, Scope, Trial


class Direction(NamedTuple):
    """One argument disturbed: its index among the leaves, its direction u, the oracle's ⟨ȳ, ∂f·u⟩ and how far it may be off."""

    place: int
    along: np.ndarray
    slope: np.ndarray
    allowed: np.float64


def check_gradients(trial: Trial, case: Case) -> None:
    """⟨x̄, u⟩ = ⟨ȳ, ∂f(x)·u⟩ for each argument x in turn, u random, with cotangents of y and of the final state."""
    for start in starts(case, trial.form):
        problem = start(case).problem
        bars, directions = oracle(case, start is resumed)
        names = list(paths(differentiable(problem)))
        found = list(leaves(gradient(trial.backend, problem, Options(trial.form), bars)))
        for place, along, slope, allowed in directions:
            got = np.asarray(np.sum(found[place].astype(np.float64) * along))
            trial.compare(f"⟨x̄, u⟩ for x = {names[place]}", got, slope, allowed)


@functools.lru_cache(CACHED)
def oracle(case: Case, carried: bool) -> tuple[Outcome, list[Direction]]:
    """Cotangents for the case and, for each differentiable argument, what the complex step says."""
    expected = (resumed if carried else fresh)(case)
    problem, rng = expected.problem, case.rng(5)
    outputs = Outcome(expected.truth.y, expected.truth.state._replace(phase=None))
    bars: Outcome = tree_map(lambda x: random_like(rng, x).astype(problem.dtype), outputs)
    exact = problem.map(lambda x: x.astype(np.float64))
    arguments = differentiable(exact)
    directions: list[Direction] = []
    for index, argument in enumerate(leaves(arguments)):
        along = random_like(rng, argument)
        tangents = rebuild(arguments, (along if i == index else np.zeros_like(x) for i, x in enumerate(leaves(arguments))))
        run = functools.partial(derivative, tangents)
        slopes = run(exact)
        limits = leaves(allowance(problem, slopes, run))
        pairs = list(zip(leaves(bars), leaves(slopes), limits, strict=True))
        slope = np.asarray(sum(np.sum(bar * dot) for bar, dot, _ in pairs))
        allowed = np.float64(sum(limit * np.linalg.norm(bar) for bar, _, limit in pairs))
        directions.append(Direction(index, along, slope, allowed))
    return bars, directions


def derivative(tangents: Differentiable, problem: Problem) -> Outcome:
    """(ẏ, state̊) of the reference along the tangents, in the problem's precision; no phase."""
    params_dot, inputs_dot, state_dot = cast("Differentiable", tree_map(lambda x: x.astype(problem.dtype), tangents))
    if problem.state is not None and state_dot is not None:  # an integer has no tangent, but the trees must match
        state_dot = state_dot._replace(phase=np.zeros_like(problem.state.phase))
    options: Any = {"state": problem.state, "state_dot": state_dot, "form": "primal"}
    if problem.subject == "layer":
        y, state = layer_derivative(problem.spec, problem.params, problem.inputs[0], params_dot, inputs_dot[0], **options)
    else:
        primals: Any = (problem.params, *problem.inputs)
        y, state = inner_derivative(problem.spec, primals, (params_dot, *inputs_dot), **options)  # pyright: ignore[reportArgumentType]
    return Outcome(y, state._replace(phase=None))


GRADIENTS = Law(
    "gradients",
    "⟨x̄, u⟩ = ⟨ȳ, ∂f(x)·u⟩ for every parameter and input x and the initial state, ȳ of y and of the final state; ∂f·u by complex step",
    check_gradients,
    (INNER, Scope("layer", forms=("dual",))),
    gradients=True,
    cost=4,
)
