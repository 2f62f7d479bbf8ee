"""The self-supervised gradients of a mini-batch, all taken at the weights it starts from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..arrays import Array

if TYPE_CHECKING:
    from ..spec import LayerSpec

Rows = list[tuple[Array, Array]]
"""Per affine layer: inputs X ``[B, H, K, d_in]`` and output gradients G ``[B, H, K, d_out]``, a row a token."""


def token_gradients(spec: LayerSpec, params: Mapping[str, Array], weights: Mapping[str, Array], k: Array, v: Array) -> Rows:
    """X and G of every affine layer and token, so that ∂L_j/∂W = X_jᵀ G_j and ∂L_j/∂b = G_j.

    L_j = loss(f(k_j; W), v_j); k, v ``[B, H, K, D]`` (paper, equation 4 and section 2.4).
    """
    model = spec.inner_model
    layers = model.layers(weights)
    trace = model.forward(k, lambda index, x: x @ layers[index][0] + layers[index][1])
    prediction = model.output(params, k, trace.outputs[-1], spec.eps)
    f_bar = spec.loss_function.gradient(prediction, v)
    gradients = model.backward(weights, trace, model.output_vjp(params, trace.outputs[-1], spec.eps, f_bar))
    return list(zip(trace.inputs, gradients, strict=True))
