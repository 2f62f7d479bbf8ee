"""The law of gradients: every backend's vector-Jacobian products against the complex-step oracle, which uses no autodiff."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple, cast

import numpy as np

from tttcore import inner_derivative, layer_derivative
from tttcore.tree import leaves, rebuild, tree_map

from ..allowance import allowance
from ..cases import Case
from ..problem import Differentiable, Outcome, Problem, argument_paths, differentiable, random_like, reference
from .expected import CACHED, begun, exact, fresh, resumed
from .law import INNER, WHOLE, Law, Scope, Trial
from .sequence import packed, padding, with_holes

Arrays = np.ndarray | None

LONG = 19
"""Mini-batches of the long question: more than a backend keeps without recomputing, and not a multiple of any group of them."""


class Question(NamedTuple):
    """A call to differentiate: how its row is to be named, the problem, mask and cu_seqlens."""

    name: str
    problem: Problem
    mask: Arrays = None
    cu_seqlens: Arrays = None


class Direction(NamedTuple):
    """One argument disturbed: its path in the call, its direction u, the oracle's ⟨ȳ, ∂f·u⟩ and how far it may be off."""

    path: str
    along: np.ndarray
    slope: np.ndarray
    allowed: np.float64


def check_gradients(trial: Trial, case: Case) -> None:
    """⟨x̄, u⟩ = ⟨ȳ, ∂f(x)·u⟩ for each argument x in turn, u random, with cotangents of y and of the final state."""
    for kind in kinds(trial, case):
        (name, problem, mask, cu_seqlens), bars, several = oracle(case, kind, trial.carries)
        found = trial.gradient(problem, bars, mask, cu_seqlens)
        for (path, along, slope, allowed), cotangent, argument in zip(several, leaves(found), leaves(differentiable(problem)), strict=True):
            trial.demand(f"dtype of x̄ for x = {path}, {name}", cotangent.dtype == argument.dtype, cotangent.dtype, argument.dtype)
            trial.demand(f"shape of x̄ for x = {path}, {name}", cotangent.shape == along.shape, cotangent.shape, along.shape)
            got = np.asarray(np.sum(cotangent.astype(np.float64) * along))
            trial.compare(f"⟨x̄, u⟩ for x = {path}, {name}", got, slope, allowed)


def kinds(trial: Trial, case: Case) -> Iterator[str]:
    """Which questions a case asks: resumed; in the dual form also masked; of the linear model fresh, and of its inner loop packed and long."""
    supports, dual, linear = trial.backend.supports, trial.form == "dual", case.inner == "linear"
    yield "resumed" if supports.state else "fresh"
    if trial.few:
        return
    if case.usual and supports.mask and (dual or (linear and trial.form == "decode")):
        yield "masked"
    if case.usual and dual and linear:
        if supports.state:
            yield "fresh"
        if case.subject != "layer":
            yield from (("packed", "long") if supports.cu_seqlens else ("long",))


def ask(case: Case, kind: str, carries: bool) -> Question:
    """The question of that kind."""
    if kind == "masked":
        mask = padding(case)
        return Question("masked", with_holes(begun(case, carries).problem, mask), mask)
    if kind == "packed":
        row, borders, _ = packed(case, False)
        return Question("packed", row, cu_seqlens=borders)
    if kind == "long":
        shape = case.shape._replace(mini_batch=1, variant="inner_product")
        return Question("of many mini-batches and the other loss", replace(case, shape=shape, length=LONG).problem())
    if kind == "fresh":
        return Question("from the initial state", fresh(case).problem)
    return Question("resumed", resumed(case).problem)


@functools.lru_cache(CACHED)
def oracle(case: Case, kind: str, carries: bool) -> tuple[Question, Outcome, list[Direction]]:
    """Cotangents for the case, from the initial state of y alone, and for each differentiable argument what the complex step says."""
    question, rng = ask(case, kind, carries), case.rng(5)
    problem, mask, cu_seqlens = question[1:]
    results = reference(problem, mask, cu_seqlens)
    results = results._replace(state=results.state._replace(phase=None) if carries and kind != "fresh" else None)
    bars: Outcome = tree_map(lambda x: random_like(rng, x).astype(problem.dtype), results)
    return question, bars, directions(problem, bars, mask, cu_seqlens)


def directions(problem: Problem, bars: Outcome, mask: Arrays = None, cu_seqlens: Arrays = None) -> list[Direction]:
    """A direction for each differentiable argument, in the order of the leaves; the same for the same question."""
    wide, rng = exact(problem), np.random.default_rng(0)
    arguments = differentiable(wide)
    zeros = tuple(np.zeros_like(x) for x in leaves(arguments))

    def run(tangents: Differentiable, problem: Problem) -> Outcome:
        slopes = derivative(tangents, problem, mask, cu_seqlens)
        return slopes._replace(state=None) if bars.state is None else slopes

    found: list[Direction] = []
    for index, (path, argument) in enumerate(zip(argument_paths(problem), leaves(arguments), strict=True)):
        along = random_like(rng, argument)
        run_along = functools.partial(run, rebuild(arguments, iter((*zeros[:index], along, *zeros[index + 1 :]))))
        slopes = run_along(wide)
        triples = list(zip(leaves(bars), leaves(slopes), leaves(allowance(problem, slopes, run_along)), strict=True))
        slope = np.asarray(sum(np.sum(bar * dot) for bar, dot, _ in triples))
        allowed = np.float64(sum(limit * np.linalg.norm(bar) for bar, _, limit in triples))
        found.append(Direction(path, along, slope, allowed))
    return found


def derivative(tangents: Differentiable, problem: Problem, mask: Arrays = None, cu_seqlens: Arrays = None) -> Outcome:
    """(ẏ, state̊) of the reference along the tangents, in the problem's precision; no phase."""
    params_dot, inputs_dot, state_dot = cast("Differentiable", tree_map(lambda x: x.astype(problem.dtype), tangents))
    if problem.state is not None and state_dot is not None:  # an integer has no tangent, but the trees must match
        state_dot = state_dot._replace(phase=np.zeros_like(problem.state.phase))
    options: Any = {"state": problem.state, "state_dot": state_dot, "form": "primal", "mask": mask}
    if problem.subject == "layer":
        y, state = layer_derivative(problem.spec, problem.params, problem.inputs[0], params_dot, inputs_dot[0], **options)
    else:
        primals: Any = (problem.params, *problem.inputs)
        y, state = inner_derivative(problem.spec, primals, (params_dot, *inputs_dot), **options, cu_seqlens=cu_seqlens)  # pyright: ignore[reportArgumentType]
    return Outcome(y, state._replace(phase=None))


GRADIENTS = Law(
    "gradients",
    "⟨x̄, u⟩ = ⟨ȳ, ∂f(x)·u⟩ for every parameter and input x and the initial state, ȳ of y and of the final state; ∂f·u by complex step",
    check_gradients,
    (INNER, Scope("layer", forms=("dual",)), WHOLE),
    allowed="the rule on ∂f·u, array by array, times the norm of its ȳ",
    gradients=True,
    quick="dual",
    cost=4,
)
