"""Decoding: one token, one state to the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..arrays import Array, choose, namespace, where_valid
from ..state import State
from .gradients import apply, maps, token_gradients

if TYPE_CHECKING:
    from ..spec import LayerSpec


def read(
    spec: LayerSpec,
    params: Mapping[str, Array],
    step: Array,
    weights: Mapping[str, Array],
    grads: Mapping[str, Array],
    q: Array,
    k: Array,
    v: Array,
    lr: Array,
) -> tuple[Array, dict[str, Array], dict[str, Array]]:
    """y of one token, the weights that it reads, and S with the token in it.

    S' = S + ℓ ∂L/∂W(W), W' = W − s_phase S', y = f(q; W'); step is s_phase, one or ``[B, 1, 1, 1]``; q, k, v, y ``[B, H, D]``, ℓ (lr) ``[B, H]``.
    """
    xp = namespace(q)
    q, k, v = (x[:, :, None, :] for x in (q, k, v))
    summed: dict[str, Array] = {}
    for index, (x, g) in enumerate(token_gradients(spec, params, maps(spec, weights), k, v), start=1):
        written = lr[..., None, None] * g
        summed[f"W{index}"] = grads[f"W{index}"] + xp.matrix_transpose(x) @ written
        if spec.inner_model.bias:
            summed[f"b{index}"] = grads[f"b{index}"] + written
    stepped = {name: weight - step * summed[name] for name, weight in weights.items()}
    return apply(spec, params, stepped, q)[:, :, 0, :], stepped, summed


def token(
    spec: LayerSpec,
    params: Mapping[str, Array],
    scale: Array,
    state: State,
    q: Array,
    k: Array,
    v: Array,
    lr: Array,
    valid: Array,
) -> tuple[State, Array]:
    """Read one token per row; rows may be at different phases.

    S ← S + ℓ ∂L/∂W(W); the token reads W − scale_phase S; after the K-th token that is the new W, S is 0 and phase 0.
    q, k, v ``[B, H, D]``, ℓ (lr) ``[B, H]``, valid ``[B]`` bool: a row that is not valid keeps its state. Returns the state and y ``[B, H, D]``.
    """
    xp = namespace(q)
    step = xp.take(scale, state.phase, axis=0)[:, None, None, None]
    y, stepped, summed = read(spec, params, step, state.weights, state.grads, q, k, v, lr)
    count = state.phase + xp.astype(valid, xp.int32)
    done = count == spec.mini_batch_size
    weights = {name: choose(done, stepped[name], weight) for name, weight in state.weights.items()}
    grads = {name: where_valid(~done, choose(valid, total, state.grads[name])) for name, total in summed.items()}
    return State(weights, grads, count % spec.mini_batch_size), y
