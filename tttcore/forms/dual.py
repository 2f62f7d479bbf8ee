"""The dual form: the same outputs by matrix products of a mini-batch's rows; no per-token weights (paper, section 2.5 and appendix A)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..arrays import Array, namespace
from .gradients import apply, gated_sums, maps, token_gradients

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
    """Layer by layer: X̄W + b − scale_i ((X̄ S_W + S_b)_i + Σ_{j≤i} ℓ_j (X̄_i·X_j + 1) G_j); returns y and S after the last token.

    X, G are inputs and output gradients of the training rows at W, X̄ the read-out rows: q for layer 1, then the activations of the *updated*
    layer below. Shapes as in ``primal.mini_batch``. Law: equal to it up to rounding, whatever the stack.

    In a whole read-out all tokens of a row read the same weights, so that these are formed, once: no attention, and time linear in K.
    """
    xp = namespace(q)
    model = spec.inner_model
    rows = token_gradients(spec, params, maps(spec, weights), k, v)
    after = {name: grads[name] + total for name, total in gated_sums(spec, rows, lr).items()}
    if spec.read_out == "whole":
        return apply(spec, params, {name: weight - scale[..., None] * after[name] for name, weight in weights.items()}, q), after
    layers, sums = model.layers(weights), model.layers(grads)
    ones = 1.0 if model.bias else 0.0  # a bias is a weight of an input 1

    def affine(index: int, x_bar: Array) -> Array:
        (weight, bias), (weight_sum, bias_sum), (x, g) = layers[index], sums[index], rows[index]
        attention = xp.tril((x_bar @ xp.matrix_transpose(x) + ones) * lr[..., None, :])
        return x_bar @ weight + bias - scale[:, None] * (x_bar @ weight_sum + bias_sum + attention @ g)

    return model.output(params, q, model.forward(q, affine).outputs[-1], spec.eps), after
