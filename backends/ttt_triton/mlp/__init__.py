"""TTT-MLP, of one hidden layer: a program for each head of a sequence holds both maps, and goes from mini-batch to mini-batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..layout import Layout
from . import rules as rules
from .op import forward
from .op import segment as segment

Tensors = list[Tensor]


def mlp(
    tokens: Sequence[Tensor], weights: Sequence[Tensor], learned: Sequence[Tensor], sums: Sequence[Tensor] | None, layout: Layout, eps: float
) -> tuple[Tensor, Tensors, Tensors]:
    """(y, [W₁, b₁, W₂, b₂] after each sequence's last whole mini-batch, sums alike of the open one), differentiable in every floating-point argument.

    tokens: q, k, v ``[N, H, D]`` and ℓ ``[N, H]``; weights: W₁ ``[R, H, D, E]``, b₁ ``[R, H, 1, E]``, W₂ ``[R, H, E, D]``, b₂ ``[R, H, 1, D]``;
    learned: s ``[K]``, γ, β ``[H, D]``; sums, if any: those of the mini-batch that each sequence goes on with, shaped as weights; all float32 but
    the tokens. Blocks of the layout are segments, ``segment(K)`` tokens each.
    """
    S = (None,) * 4 if sums is None else sums
    differentiable = torch.is_grad_enabled() and any(x.requires_grad for x in (*tokens, *weights, *learned, *(sums or ())))
    where = (layout.start, layout.length, layout.phase, layout.first)
    kept = layout.total if differentiable else 0
    y, *ends = forward(*tokens, *weights, *S, *learned, *where, layout.longest, layout.blocks, kept, eps)
    return y, ends[:4], ends[4:8]
