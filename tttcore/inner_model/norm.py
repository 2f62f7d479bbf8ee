"""LayerNorm over the last axis and its pull-back, in the form that every backend must match."""

from __future__ import annotations

from collections.abc import Callable

from ..arrays import Array, namespace


def _standardise(z: Array, eps: float) -> tuple[Array, Array]:
    """(z − mean z) r and r = 1/√(var z + ε), with the population variance in two passes."""
    xp = namespace(z)
    centred = z - xp.mean(z, axis=-1, keepdims=True)
    r = (xp.mean(centred * centred, axis=-1, keepdims=True) + eps) ** -0.5
    return centred * r, r


def layer_norm(z: Array, weight: Array, bias: Array, eps: float) -> Array:
    """LN(z) = γ ⊙ (z − mean z) / √(var z + ε) + β.

    z ``[…, D]``; weight γ and bias β broadcast against z. ε is inside the root.
    """
    return layer_norm_and_vjp(z, weight, bias, eps)[0]


def layer_norm_and_vjp(z: Array, weight: Array, bias: Array, eps: float) -> tuple[Array, Callable[[Array], Array]]:
    """LN(z), and its pull-back from a cotangent of LN(z) to one of z; both use the same standardised rows."""
    standard, r = _standardise(z, eps)
    return weight * standard + bias, lambda g: layer_norm_vjp(standard, r, weight, g)


def layer_norm_vjp(standard: Array, r: Array, weight: Array, g: Array) -> Array:
    """The cotangent of z for a cotangent g of LN(z).

    With ẑ (standard) the standardised rows and r = 1/√(var z + ε): z̄ = r (γg − mean(γg) − ẑ mean(γg ⊙ ẑ)), so every row of z̄ sums to zero.
    """
    xp = namespace(g)
    scaled = weight * g
    along = xp.mean(scaled * standard, axis=-1, keepdims=True)
    return r * (scaled - xp.mean(scaled, axis=-1, keepdims=True) - standard * along)
