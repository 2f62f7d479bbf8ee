"""Laws of single steps, whose truth is computed in another way than by the reference's loop."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tttcore import State
from tttcore.complex_step import STEP

from ..cases import Case, Setting, cases
from ..problem import Outcome, Problem
from .expected import CACHED, Expected, begun, exact, expect, fresh
from .law import INNER, Law, Scope, Trial


def check_rest(trial: Trial, case: Case) -> None:
    """Learning rates of 0: nothing is written, and every token is read with the weights that were there."""
    problem, truth, allowed = rest(case, trial.carries)
    trial.compare("at rest", trial.answer(problem), truth, allowed)


@functools.lru_cache(CACHED)
def rest(case: Case, carried: bool) -> Expected:
    """The case's problem with ℓ = 0 and, if carried, a state without gradients; f(q; W) for every token, and the state but for its phase."""
    problem = begun(case, carried).problem
    state = None if problem.state is None else problem.state._replace(grads={name: np.zeros_like(x) for name, x in problem.state.grads.items()})
    problem = replace(problem, inputs=(*problem.inputs[:3], np.zeros_like(problem.inputs[3])), state=state)
    wide = exact(problem)
    weights, phase = start(wide)
    y = read(wide, wide.params, weights, wide.inputs[0])
    end = State(weights, {name: np.zeros_like(x) for name, x in weights.items()}, (phase + wide.length) % wide.spec.mini_batch_size)
    return Expected(problem, Outcome(y, end), expect(problem).allowed)


def check_online(trial: Trial, case: Case) -> None:
    """K = 1: each token takes one step of gradient descent on its own loss, and is read with the weights after it."""
    problem, truth, allowed = online(case)
    trial.compare("online gradient descent", trial.answer(problem), truth, allowed)


@functools.lru_cache(CACHED)
def online(case: Case) -> Expected:
    """The case's problem; W_t = W_{t−1} − η ∇L_t(W_{t−1}), y_t = f(q_t; W_t), every derivative of L by a complex step."""
    problem, _, allowed = fresh(case)
    wide = exact(problem)
    weights, phase = start(wide)
    step = float(np.maximum(0.0, 1.0 + wide.params["token_lr_offset"][0])) * wide.spec.base_lr / wide.spec.head_dim
    y = np.zeros_like(wide.inputs[0])
    for t in range(wide.length):
        q, k, v, lr = (x[:, t : t + 1] for x in wide.inputs)
        rate = step * lr[:, 0, :, None, None]
        weights = {name: weights[name] - rate * slope for name, slope in slopes(wide, weights, k, v).items()}
        y[:, t : t + 1] = read(wide, wide.params, weights, q)
    return Expected(problem, Outcome(y, State(weights, {name: np.zeros_like(x) for name, x in weights.items()}, phase)), allowed)


def slopes(problem: Problem, weights: Mapping[str, np.ndarray], k: np.ndarray, v: np.ndarray) -> dict[str, np.ndarray]:
    """∂L/∂W of one token for every weight, L the spec's loss of f(k; W)."""
    found: dict[str, np.ndarray] = {}
    for name, weight in weights.items():
        found[name] = np.zeros_like(weight)
        for place in np.ndindex(weight.shape[2:]):
            moved = weight.astype(np.complex128)
            moved[(..., *place)] += 1j * STEP  # rows and heads do not meet in the loss
            loss = problem.spec.loss_function(read(problem, problem.params, {**weights, name: moved}, k), v)
            found[name][(..., *place)] = np.imag(loss[:, 0]) / STEP
    return found


def start(problem: Problem) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The weights ``[B, H, …]`` and phases ``[B]`` that a problem begins with."""
    if problem.state is not None:
        return dict(problem.state.weights), problem.state.phase
    names = problem.spec.inner_model.weight_shapes(problem.spec.heads, problem.spec.head_dim)
    return {name: np.stack([problem.params[name]] * problem.batch) for name in names}, np.zeros(problem.batch, np.int32)


def read(problem: Problem, params: Mapping[str, Any], weights: Mapping[str, Any], x: np.ndarray) -> np.ndarray:
    """f(x; W) for tokens x ``[B, T, H, D]`` and weights ``[B, H, …]``."""
    model = problem.spec.inner_model
    layers, rows = model.layers(weights), np.swapaxes(x, 1, 2)
    trace = model.forward(rows, lambda index, h: h @ layers[index][0] + layers[index][1])
    return np.swapaxes(model.output(params, rows, trace.outputs[-1], problem.spec.eps), 1, 2)


def online_cases(setting: Setting) -> st.SearchStrategy[Case]:
    """Cases of mini-batches of one token."""
    single = [shape for shape in setting.shapes if shape.mini_batch == 1]
    shape = single[0] if single else setting.shapes[0]._replace(mini_batch=1)
    return cases(setting, (shape,))


REST = Law("rest", "ℓ = 0: W and S stay as they were, and y_t = f(q_t; W)", check_rest, (INNER,))
ONLINE = Law(
    "online",
    "K = 1 is online gradient descent: W_t = W_{t−1} − η ∇L_t(W_{t−1}), y_t = f(q_t; W_t), ∇L by complex step",
    check_online,
    (Scope("inner", ("linear",)), Scope("inner", ("mlp", "swiglu"), deep=True)),
    draws=online_cases,
    cost=2,
)
