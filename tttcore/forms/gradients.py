"""The self-supervised gradients of a mini-batch, all taken at the weights it starts from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ..arrays import Array, namespace

if TYPE_CHECKING:
    from ..spec import LayerSpec

Rows = list[tuple[Array, Array]]
"""Per affine layer: inputs X ``[B, H, K, d_in]`` and output gradients G ``[B, H, K, d_out]``, a row a token."""

Maps = tuple[Callable[[int, Array], Array], Callable[[int, Array], Array]]
"""Weights by what they do to rows at layer l: (l, x) → xW_l + b_l and (l, g) → gW_lᵀ."""


def maps(spec: LayerSpec, weights: Mapping[str, Array]) -> Maps:
    """The maps of given weights."""
    layers = spec.inner_model.layers(weights)

    def affine(index: int, x: Array) -> Array:
        return x @ layers[index][0] + layers[index][1]

    def transposed(index: int, g: Array) -> Array:
        return g @ namespace(g).matrix_transpose(layers[index][0])

    return affine, transposed


def token_gradients(spec: LayerSpec, params: Mapping[str, Array], start: Maps, k: Array, v: Array) -> Rows:
    """X and G of every affine layer and token, so that ∂L_j/∂W = X_jᵀ G_j and ∂L_j/∂b = G_j, with W the weights of ``start``.

    L_j = loss(f(k_j; W), v_j); k, v ``[B, H, K, D]`` (paper, equation 4 and section 2.4).
    """
    model = spec.inner_model
    affine, transposed = start
    trace = model.forward(k, affine)
    prediction, vjp = model.output_and_vjp(params, k, trace.outputs[-1], spec.eps)
    f_bar = spec.loss_function.gradient(prediction, v)
    gradients = model.backward(transposed, trace, vjp(f_bar))
    return list(zip(trace.inputs, gradients, strict=True))


def apply(spec: LayerSpec, params: Mapping[str, Array], weights: Mapping[str, Array], q: Array) -> Array:
    """f(q_i; W), the same weights for all tokens of a row; q and the result ``[B, H, K, D]``."""
    affine, _ = maps(spec, weights)
    return spec.inner_model.output(params, q, spec.inner_model.forward(q, affine).outputs[-1], spec.eps)


def gated_sums(spec: LayerSpec, rows: Rows, gates: Array, first: int = 1) -> dict[str, Array]:
    """Σ_j gate_j ∂L_j/∂W of every weight, by the names of the state; rows are those of layers ``first``, …, gates ``[B, H, K]``."""
    xp = namespace(gates)
    sums: dict[str, Array] = {}
    for index, (x, g) in enumerate(rows, start=first):
        written = gates[..., None] * g
        sums[f"W{index}"] = xp.matrix_transpose(x) @ written
        if spec.inner_model.bias:
            sums[f"b{index}"] = xp.sum(written, axis=-2, keepdims=True)
    return sums
