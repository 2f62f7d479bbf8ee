"""The primal form: the weights that each token reads are formed and applied. The definition (paper, section 2.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..arrays import Array, namespace
from .gradients import maps, token_gradients

if TYPE_CHECKING:
    from ..spec import LayerSpec

Weights = dict[str, Array]


def mini_batch(
    spec: LayerSpec,
    params: Mapping[str, Array],
    scale: Array,
    weights: Weights,
    grads: Weights,
    q: Array,
    k: Array,
    v: Array,
    lr: Array,
) -> tuple[Array, Weights]:
    """y_i = f(q_i; W_i), W_i = W − scale_i (S + Σ_{j≤i} ℓ_j ∂L_j/∂W(W)); returns y and S after the last token.

    q, k, v, y ``[B, H, K, D]``; ℓ (lr) ``[B, H, K]``, 0 for a token that does not write; scale ``[K]``; W (weights) and S (grads) as in
    ``State``. Inclusive: a token reads its own update. Takes K·D·E memory per head. In a whole read-out the sum is over all j, and scale
    ``[B, 1, 1]`` that of each row's last token.
    """
    xp = namespace(q)
    model = spec.inner_model
    per_token: Weights = {}
    after: Weights = {}
    for index, (x, g) in enumerate(token_gradients(spec, params, maps(spec, weights), k, v), start=1):
        written = lr[..., None] * g
        gradients = {f"W{index}": x[..., :, None] * written[..., None, :]} | ({f"b{index}": written[..., None, :]} if model.bias else {})
        for name, gradient in gradients.items():
            prefix = grads[name][:, :, None, ...] + xp.cumulative_sum(gradient, axis=2)
            after[name] = prefix[:, :, -1, ...]
            seen = prefix if spec.read_out == "causal" else after[name][:, :, None, ...]
            per_token[name] = weights[name][:, :, None, ...] - scale[..., None, None] * seen
    layers = model.layers(per_token)

    def affine(index: int, x: Array) -> Array:
        weight, bias = layers[index]
        return (x[..., None, :] @ weight + bias)[..., 0, :]

    return model.output(params, q, model.forward(q, affine).outputs[-1], spec.eps), after
