"""The kernels of the forward pass as a PyTorch operator, which ``rules`` makes differentiable."""

from __future__ import annotations

import torch
from torch import Tensor

from ..layout import saved_dtype, tile
from ..operators import operator
from .launch import borders, constants, pieces, scanning
from .readout import readout
from .sums import open_sums

Results = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
JOINED = 4
"""Pieces of the backward pass that are one piece forward, where a token needs less room."""


@operator("mlp")
def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lr: Tensor,
    W1: Tensor,
    b1: Tensor,
    W2: Tensor,
    b2: Tensor,
    scale: Tensor,
    gamma: Tensor,
    beta: Tensor,
    start: Tensor | None,
    length: Tensor | None,
    first: Tensor | None,
    row: Tensor | None,
    longest: int,
    total: int,
    keep: bool,
    eps: float,
) -> Results:
    """y, the four weights and four sums as ``mlp`` says, and what the backward pass needs if ``keep``: W and b where pieces begin, but the first."""
    results = empty(q, W1, b1, W2, b2, scale, longest if start is None else 0, keep)
    y, W1_end, b1_end, W2_end, b2_end, S_W1, S_b1, S_W2, S_b2, W_kept, b_kept = results
    size, heads, (rows, _, width, hidden) = scale.shape[0], q.shape[1], W1.shape
    block, where, ends = tile(size, width, q.dtype) // size * size, (start, length, first), (W1_end, b1_end, W2_end, b2_end)
    order = pieces(rows, heads, longest, block, None if start is None else total, JOINED)
    apart = borders(longest, block)[:2][-1] // block
    X2, G1, G2, Ws, bs = room(max((piece.places for piece in order), default=0), q, W1, block)
    scan, rates, options = scanning(size, hidden, k, v, lr)
    with torch.cuda.device_of(q):
        for top, count, begin, blocks, places, number, last in order:
            extent = top, longest, begin, blocks, heads
            given = [x[top:] for x in (ends if number else (W1, b1, W2, b2))]
            scan[heads, count](
                *(k, v, rates, given[0], given[1], given[2], given[3], scale, gamma, beta, *where, X2, G1, G2, Ws, bs, None, *ends),
                *(given[0].stride(0), given[1].stride(0), given[2].stride(0), given[3].stride(0), *extent, eps),
                **options,
            )
            if places:
                readout[heads, places](
                    *(q, k, lr, X2, G1, G2, Ws, bs, scale, gamma, beta, *where, row, y, *extent, eps), **constants(readout, q, hidden, size)
                )
            if keep and apart and places:
                skipped = 0 if number else 1
                for kept, found in ((W_kept, Ws), (b_kept, bs)):
                    starts = found[:places].unflatten(0, (count, -1))[:, skipped * apart :: apart]
                    at = number * JOINED + skipped - 1
                    kept.unflatten(0, (rows, -1))[top : top + count, at : at + starts.shape[1]] = starts
            if last:
                open_sums[heads, count](*(k, lr, X2, G1, G2, *where, S_W1, S_b1, S_W2, S_b2, *extent), **constants(open_sums, q, hidden, size))
    return results


def empty(q: Tensor, W1: Tensor, b1: Tensor, W2: Tensor, b2: Tensor, scale: Tensor, longest: int, keep: bool) -> Results:
    """Room for the operator's results."""
    size, (rows, _, width, _) = scale.shape[0], W1.shape
    kept = rows * (len(borders(longest, tile(size, width, q.dtype) // size * size)) - 1) if keep else 0
    *_, W_kept, b_kept = room(kept, q, W1, 0)
    W1_end, b1_end, W2_end, b2_end, S_W1, S_b1, S_W2, S_b2 = (
        torch.empty_like(x, memory_format=torch.contiguous_format) for x in 2 * (W1, b1, W2, b2)
    )
    return torch.empty_like(q), W1_end, b1_end, W2_end, b2_end, S_W1, S_b1, S_W2, S_b2, W_kept, b_kept


def room(places: int, q: Tensor, W1: Tensor, block: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """For what ``scan`` writes of as many blocks: X₂, G₁, G₂, W and b."""
    _, heads, width, hidden = W1.shape
    X2, G1 = (q.new_empty((places, heads, hidden, block), dtype=saved_dtype(q.dtype)) for _ in range(2))
    G2, Ws = X2.new_empty((places, heads, block, width)), X2.new_empty((places, heads, 2, hidden, width))
    return X2, G1, G2, Ws, W1.new_empty((places, heads, hidden + width))
