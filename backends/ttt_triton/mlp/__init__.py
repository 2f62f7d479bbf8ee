"""TTT-MLP, of one hidden layer: a scan over mini-batches piece by piece of each sequence, and parallel kernels for all that does not wait for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..layout import Layout, tile
from . import rules as rules
from .op import forward
from .opening import opened

Tensors = list[Tensor]


def mlp(
    tokens: Sequence[Tensor], weights: Sequence[Tensor], learned: Sequence[Tensor], sums: Sequence[Tensor] | None, layout: Layout, eps: float
) -> tuple[Tensor, Tensors, Tensors]:
    """(y, [W₁, b₁, W₂, b₂] after each sequence's last whole mini-batch, sums alike of the open one), differentiable in every floating-point argument.

    tokens: q, k, v ``[N, H, D]`` and ℓ ``[N, H]``; weights: W₁ ``[R, H, D, E]``, b₁ ``[R, H, 1, E]``, W₂ ``[R, H, E, D]``, b₂ ``[R, H, 1, D]``;
    learned: s ``[K]``, γ, β ``[H, D]``; sums, if any: those of the mini-batch that each sequence goes on with, shaped as weights; all float32 but
    the tokens.
    """
    size, width, dtype = learned[0].shape[0], tokens[0].shape[-1], tokens[0].dtype
    differentiable = torch.is_grad_enabled() and any(x.requires_grad for x in (*tokens, *weights, *learned, *(sums or ())))
    first = None if sums is None else opened(tokens, weights, sums, learned, layout, tile(size, width, dtype) // size * size, eps)
    if first is not None:
        weights, layout = first.weights, first.layout
    where = (layout.start, layout.length, layout.first, layout.row)
    y, *ends = forward(*tokens, *weights, *learned, *where, layout.longest, layout.total, differentiable, eps)
    ends = ends[:8]
    if first is not None and layout.length is not None:
        # A row more for the empty slots, whichever of them is written last.
        y = torch.cat((y, y[:1])).index_put((first.place,), first.y.to(y.dtype))[:-1] if len(y) else y
        ended = (layout.length == 0)[:, None, None, None]
        ends[4:] = [torch.where(ended, old, new) for old, new in zip(first.sums, ends[4:], strict=True)]
    return y, ends[:4], ends[4:]
