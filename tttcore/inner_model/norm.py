"""LayerNorm over the last axis and its pull-back, in the form that every backend must match."""

from __future__ import annotations

from ..arrays import Array, namespace


def _standardise(z: Array, eps: float) -> tuple[Array, Array]:
    """(z − mean z) r and r = 1/√(var z + ε), with the population variance in two passes."""
    xp = namespace(z)
    width = z.shape[-1]
    centred = z - xp.sum(z, axis=-1, keepdims=True) / width
    r = 1 / xp.sqrt(xp.sum(centred * centred, axis=-1, keepdims=True) / width + eps)
    return centred * r, r


def layer_norm(z: Array, weight: Array, bias: Array, eps: float) -> Array:
    """LN(z) = γ ⊙ (z − mean z) / √(var z + ε) + β.

    z ``[…, D]``; weight γ and bias β broadcast against z. ε is inside the root.
    """
    standard, _ = _standardise(z, eps)
    return weight * standard + bias


def layer_norm_vjp(z: Array, weight: Array, eps: float, g: Array) -> Array:
    """The cotangent of z for a cotangent g of LN(z).

    With ẑ the standardised rows and r = 1/√(var z + ε): z̄ = r (γg − mean(γg) − ẑ mean(γg ⊙ ẑ)), so every row of z̄ sums to zero.
    """
    xp = namespace(z)
    width = z.shape[-1]
    standard, r = _standardise(z, eps)
    scaled = weight * g
    along = xp.sum(scaled * standard, axis=-1, keepdims=True) / width
    return r * (scaled - xp.sum(scaled, axis=-1, keepdims=True) / width - standard * along)
