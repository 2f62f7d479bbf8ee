"""How much each change does, and how much of a peer's answer all of them together leave unexplained."""

from __future__ import annotations

from typing import Any

import numpy as np

from tttcore import LayerSpec, init

from ..allowance import allowance
from ..cases import FLAVOURS, Case
from ..problem import Problem
from ..shapes import Shape
from .changed import CHANGES, Answer, linear

SEEDS = 4
LENGTH, SHAPE = 37, Shape(batch=2, heads=2, head_dim=16, mini_batch=16)
"""Two mini-batches and a ragged tail."""


def draws(flavour: str) -> list[Problem]:
    """The problems of a flavour."""
    return [Case("inner", "linear", "float32", SHAPE, LENGTH, flavour, seed).problem() for seed in range(SEEDS)]


def layers() -> list[Problem]:
    """Problems of the same size as of a layer in training: normal q, k, v, gates between 0 and 1, parameters away from their start."""
    spec, problems = LayerSpec(SHAPE.heads * SHAPE.head_dim, SHAPE.heads, mini_batch_size=SHAPE.mini_batch), list[Problem]()
    for seed in range(SEEDS):
        rng, shape = np.random.default_rng(seed), (SHAPE.batch, LENGTH, SHAPE.heads, SHAPE.head_dim)
        start = init(spec, seed, np.float64)
        params = {name: start[name] + 0.4 * rng.normal(size=size) for name, size in spec.inner_shapes().items()}
        problems.append(Problem(spec, params, (*rng.normal(size=(3, *shape)), rng.random(shape[:3]))))
    return problems


def sizes() -> dict[str, np.ndarray]:
    """What each change adds to those before it: the most of y, W and b, as a share of the largest value, on ``layers``."""
    chains = [[linear(problem, CHANGES[:count]) for count in range(len(CHANGES) + 1)] for problem in layers()]
    return {change: np.max([_shares(chain[i + 1], chain[i]) for chain in chains], axis=0) for i, change in enumerate(CHANGES)}


def left(peer: Any) -> np.ndarray:
    """How far the peer's y, W and b are from those of all changes together, as shares of their allowances, the most on draws of every flavour."""
    return np.max([_unexplained(peer, problem) for flavour in FLAVOURS for problem in draws(flavour)], axis=0)


def native(peer: Any, problem: Problem) -> Answer:
    """The peer's own answer; ``peer`` is an adapter's module."""
    backend = peer.BACKEND
    params = {name: backend.asarray(value) for name, value in problem.params.items()}
    return Answer(*map(backend.to_numpy, peer.run(problem.spec, params, *map(backend.asarray, problem.inputs))))


def exact(problem: Problem) -> Problem:
    """The problem in float64."""
    return problem.map(lambda x: x.astype(np.float64))


def _unexplained(peer: Any, problem: Problem) -> list[float]:
    def run(problem: Problem) -> Answer:
        return linear(problem, CHANGES)

    truth = run(exact(problem))
    errors = map(_distance, native(peer, problem), truth)
    return [error / limit for error, limit in zip(errors, allowance(problem, truth, run), strict=True)]


def _shares(after: Answer, before: Answer) -> list[float]:
    return [_distance(x, y) / float(np.max(np.abs(x))) for x, y in zip(after, before, strict=True)]


def _distance(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.max(np.abs(x - y)))
