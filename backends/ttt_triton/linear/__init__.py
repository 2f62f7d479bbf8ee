"""TTT-Linear in the block dual form: a scan over blocks of mini-batches, and parallel kernels for all that does not wait for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..layout import Layout
from . import rules as rules
from .launch import pairs
from .op import forward
from .opening import opened

Tensors = list[Tensor]


def linear(
    tokens: Sequence[Tensor], weights: Sequence[Tensor], learned: Sequence[Tensor], sums: Sequence[Tensor] | None, layout: Layout, eps: float
) -> tuple[Tensor, Tensors, Tensors]:
    """(y, [W, b] after each sequence's last whole mini-batch, [S_W, S_b] of the open one), differentiable in every floating-point argument.

    tokens: q, k, v ``[N, H, D]`` and ℓ ``[N, H]``; weights: W ``[R, H, D, D]``, b ``[R, H, 1, D]``; learned: s ``[K]``, γ, β ``[H, D]``; sums, if
    any: those of the mini-batch that each sequence goes on with, shaped as weights; all float32 but the tokens.
    """
    size, programs = learned[0].shape[0], layout.rows * tokens[0].shape[1]
    in_pairs = layout.start is None and pairs(tokens[0], size, programs, layout.longest)
    if in_pairs:
        layout = Layout.even(2 * size, layout.rows, layout.longest)
    places = (layout.start, layout.length, layout.phase, layout.first, layout.row, layout.longest, layout.blocks, layout.total, in_pairs, False)
    if sums is None or layout.start is None or layout.length is None or layout.phase is None:
        y, W, b, S_W, S_b, *_ = forward(*tokens, *weights, *learned, None, None, *places, eps)
        return y, [W, b], [S_W, S_b]
    found, opening = opened(weights, sums, tokens, learned[0], layout.start, layout.length, layout.phase)
    y, W, b, S_W, S_b, *_ = forward(*tokens, *found, *learned, *opening, *places, eps)
    # Where a sequence reaches no border, its weights are those it came with, and its sums are added to.
    crossed = (layout.phase + layout.length >= learned[0].shape[0])[:, None, None, None]
    W, b = (torch.where(crossed, new, old) for new, old in zip((W, b), weights, strict=True))
    S_W, S_b = (new + torch.where(crossed, 0.0, old) for new, old in zip((S_W, S_b), sums, strict=True))
    return y, [W, b], [S_W, S_b]
