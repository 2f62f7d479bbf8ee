"""TTT-Linear in the block dual form: a scan over blocks of mini-batches, and parallel kernels for all that does not wait for it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..layout import Layout
from . import rules as rules
from .op import forward

Tensors = list[Tensor]


def linear(
    tokens: Sequence[Tensor], weights: Sequence[Tensor], learned: Sequence[Tensor], opening: Sequence[Tensor] | None, layout: Layout, eps: float
) -> tuple[Tensor, Tensors, Tensors]:
    """(y, [W, b] after each sequence's last whole mini-batch, [S_W, S_b] of the open one), differentiable in every floating-point argument.

    tokens: q, k, v ``[N, H, D]`` and ℓ ``[N, H]``; weights: W ``[R, H, D, D]``, b ``[R, H, 1, D]``; learned: s ``[K]``, γ, β ``[H, D]``; opening,
    if any: what the training rows and the read-outs of the first mini-batch find in place of XW + b, ``[R, K, H, D]`` by its slots. All of them
    float32 but the tokens.
    """
    opening_k, opening_q = opening or (None, None)
    places = (layout.start, layout.length, layout.phase, layout.first, layout.row, layout.longest, layout.blocks, layout.total)
    y, W, b, S_W, S_b, *_ = forward(*tokens, *weights, *learned, opening_k, opening_q, *places, eps)
    return y, [W, b], [S_W, S_b]
