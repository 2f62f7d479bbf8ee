"""Causal depthwise convolution over time, with its state."""

from __future__ import annotations

from collections.abc import Sequence

from ..arrays import Array, arange, cast, compute_dtype, namespace

Filter = tuple[Array, Array]
"""weight ``[width, C]`` and bias ``[C]``."""


def convolve(u: Array, filters: Sequence[Filter], conv: Array | None, length: Array | None) -> tuple[list[Array], Array]:
    """conv(u) ``[B, T, C]`` for each filter, in u's dtype, and the last width − 1 inputs that count, for what comes after.

    u ``[B, T, C]``; conv ``[B, width − 1, C]``: the inputs before it (None: zeros); of row b the first length[b] tokens count (None: all).
    """
    xp = namespace(u)
    (weight, bias), *_ = filters
    rows, total, width = u.shape
    before = weight.shape[0] - 1
    past = xp.zeros_like(xp.broadcast_to(bias, (rows, before, width)), dtype=u.dtype) if conv is None else conv
    dtype = compute_dtype(u, past, weight)
    padded = xp.concat([cast(past, dtype), cast(u, dtype)], axis=1)
    ys = [cast(causal_convolution(padded, cast(weight, dtype), cast(bias, dtype)), u.dtype) for weight, bias in filters]
    if length is None:
        return ys, padded[:, total:, :]
    last = arange(rows, u)[:, None] * (before + total) + length[:, None] + arange(before, u)[None, :]
    flat = xp.reshape(padded, (rows * (before + total), width))
    return ys, xp.reshape(xp.take(flat, xp.reshape(last, (-1,)), axis=0), (rows, before, width))


def causal_convolution(padded: Array, weight: Array, bias: Array) -> Array:
    """y_t = bias + Σ_j weight[j] ⊙ padded[t + j] = bias + Σ_j weight[j] ⊙ u_{t − (width − 1) + j}.

    padded ``[B, width − 1 + T, C]``: the inputs u before the sequence (zeros at its start), then the T of the sequence;
    weight ``[width, C]``, bias ``[C]``; returns ``[B, T, C]``. No activation.
    """
    width = weight.shape[0]
    length = padded.shape[1] - (width - 1)
    y = bias
    for tap in range(width):
        y = y + weight[tap, :] * padded[:, tap : tap + length, :]
    return y
