"""Causal depthwise convolution over time, with its state."""

from __future__ import annotations

from ..arrays import Array


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
