"""TTT-Linear by its definition, with the changes by which a peer differs from it: with all of them it has to give what the peer gives.

An explanation is complete when nothing but rounding is left. Without changes this is the reference (docs/mathematics.md, sections 1 and 6).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from tttcore.inner_model.norm import layer_norm, layer_norm_and_vjp

from ..problem import Problem

CHANGES = ("gate", "residual", "tail", "padding")
"""In this order, each on top of those before it.

gate: η_ij = s_i ℓ_i, the whole step by the token that reads, in place of s_i ℓ_j. residual: y = z + LN(z) in place of q + LN(z).
tail: the weights step at the end of the tokens given, even where the mini-batch is not full. padding: there, the K − n missing tokens are
zeros (k = v = 0) that train the bias.
"""


class Answer(NamedTuple):
    """y ``[B, T, H, D]``, and the weights W ``[B, H, D, D]`` and b ``[B, H, 1, D]`` after the last step."""

    y: np.ndarray
    W: np.ndarray
    b: np.ndarray


def linear(problem: Problem, changes: Collection[str] = ()) -> Answer:
    """TTT-Linear in dual form from its initial weights, in the precision of the problem, with the changes named.

    For a mini-batch of n ≤ K tokens: G = ∂L/∂z of z = kW + b, and z̄ = qW + b − (tril(η) ⊙ (qkᵀ + 1)) G is read out.
    """
    spec, params = problem.spec, problem.params
    gamma, beta = (params[name][:, None] for name in ("norm_weight", "norm_bias"))
    scale = spec.update_rule.scale(spec, params)
    by_head = [np.moveaxis(x, 2, 1) for x in problem.inputs]
    weight, bias = (np.stack([params[name]] * problem.batch) for name in ("W1", "b1"))
    outputs: list[np.ndarray] = [by_head[0][:, :, :0]]

    def pull_back(k: np.ndarray, v: np.ndarray) -> np.ndarray:
        z = k @ weight + bias
        value, vjp = layer_norm_and_vjp(z, gamma, beta, spec.eps)
        return vjp(k + value - v)

    for start in range(0, problem.length, spec.mini_batch_size):
        q, k, v, lr = (x[:, :, start : start + spec.mini_batch_size] for x in by_head)
        n, G = q.shape[2], pull_back(k, v)
        eta = scale[:n, None] * (lr[..., :, None] if "gate" in changes else lr[..., None, :])
        z = q @ weight + bias - np.tril(eta * (q @ np.swapaxes(k, -1, -2) + 1)) @ G
        outputs.append((z if "residual" in changes else q) + layer_norm(z, gamma, beta, spec.eps))
        missing = spec.mini_batch_size - n
        if not missing or "tail" in changes:
            steps = eta[..., -1, :, None] * G
            zeros = eta[..., -1:, -1:] * pull_back(0 * k[:, :, :1], 0 * v[:, :, :1]) * (missing if "padding" in changes else 0)
            weight, bias = weight - np.swapaxes(k, -1, -2) @ steps, bias - steps.sum(axis=-2, keepdims=True) - zeros
    return Answer(np.moveaxis(np.concatenate(outputs, axis=2), 1, 2), weight, bias)
