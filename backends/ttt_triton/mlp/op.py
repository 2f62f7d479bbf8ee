"""The kernels as one differentiable PyTorch operator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..layout import INTERPRETED, operands, padded, saved_dtype, tile
from .readout import readout
from .reverse import reverse
from .scan import scan
from .sums import open_sums

Tensors = list[Tensor]


def constants(kernel: Any, q: Tensor, hidden: int, size: int) -> dict[str, Any]:
    """A kernel's compile-time arguments for tokens q, E = ``hidden`` columns and K = ``size``."""
    width = q.shape[-1]
    shape = {"K": size, "D": width, "E": hidden, "R": tile(size, width, q.dtype), "C": min(64, padded(hidden)), "STAGES": 1}
    shape |= {"K_PAD": padded(size), "D_PAD": padded(width), "E_PAD": padded(hidden)} | operands(q.dtype)
    # Sequential kernels hold both maps; of a product for Hopper's units each warp takes 16 rows.
    warps = 8 if kernel in (scan, reverse) and padded(width) * padded(hidden) > 4096 else 4
    return {name: value for name, value in shape.items() if name in kernel.arg_names} | {"num_warps": warps, "num_stages": 1, "maxnreg": 255}


def pieces(longest: int, block: int) -> Iterator[tuple[int, int]]:
    """(first token, blocks) of the pieces that sequences of ``longest`` tokens are cut into: eighths, of no less than 256 tokens, in whole blocks."""
    blocks = max(-(-longest // (8 * block)), 1 if INTERPRETED else 256 // block)
    yield from ((begin, min(blocks, -(-(longest - begin) // block))) for begin in range(0, longest, blocks * block))


@torch.library.custom_op("tttcore::mlp", mutates_args=())
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
    blocks: int,
    total: int,
    keep: bool,
    eps: float,
) -> Tensors:
    """y, the four weights and four sums as ``mlp`` says, and what the backward pass needs if ``keep``: W and b at the starts of all blocks."""
    results = empty(q, W1, b1, W2, b2, total if keep else 0)
    y, W1_end, b1_end, W2_end, b2_end, S_W1, S_b1, S_W2, S_b2, *kept = results
    size, heads, (rows, _, width, hidden) = scale.shape[0], q.shape[1], W1.shape
    block, where, ends = tile(size, width, q.dtype) // size * size, (start, length, first), (W1_end, b1_end, W2_end, b2_end)
    cut = [(0, total)] if start is not None else [(0, max(blocks, 1))] if keep else list(pieces(max(longest, 1), block))
    room = cut[0][1] * (rows if start is None else 1)
    X2, G1 = (q.new_empty((room, heads, hidden, block), dtype=saved_dtype(q.dtype)) for _ in range(2))
    G2 = X2.new_empty((room, heads, block, width))
    Ws, bs = kept if keep else empty_at(q, W2, room)
    given = (W1, b1, W2, b2)
    with torch.cuda.device_of(q):
        for begin, count in cut:
            strides = given[0].stride(0), given[1].stride(0), given[2].stride(0), given[3].stride(0)
            scan[heads, rows](
                *(k, v, lr, *given, scale, gamma, beta, *where, X2, G1, G2, Ws, bs, *ends, *strides, longest, begin, count, heads, eps),
                **constants(scan, q, hidden, size),
            )
            if places := total if start is not None else rows * count:
                readout[heads, places](
                    *(q, k, lr, X2, G1, G2, Ws, bs, scale, gamma, beta, *where, row, y, longest, begin, count, heads, eps),
                    **constants(readout, q, hidden, size),
                )
            given = ends
        begin, count = cut[-1]
        open_sums[heads, rows](
            *(k, lr, X2, G1, G2, *where, S_W1, S_b1, S_W2, S_b2, longest, begin, count, heads), **constants(open_sums, q, hidden, size)
        )
    return results


def empty(q: Tensor, W1: Tensor, b1: Tensor, W2: Tensor, b2: Tensor, total: int) -> Tensors:
    """Room for the operator's results."""
    return [q.new_empty(q.shape), *(x.new_empty(x.shape) for x in 2 * (W1, b1, W2, b2)), *empty_at(q, W2, total)]


def empty_at(q: Tensor, W2: Tensor, places: int) -> tuple[Tensor, Tensor]:
    """Room for W and b at as many places."""
    heads, inner, outer = W2.shape[1:]
    Ws = q.new_empty((places, heads, 2, inner, outer), dtype=saved_dtype(q.dtype))
    return Ws, W2.new_empty((places, heads, inner + outer))


@torch.library.custom_op("tttcore::mlp_backward", mutates_args=())
def backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lr: Tensor,
    scale: Tensor,
    gamma: Tensor,
    beta: Tensor,
    start: Tensor | None,
    length: Tensor | None,
    first: Tensor | None,
    Ws: Tensor,
    bs: Tensor,
    dy: Tensor,
    dW1_end: Tensor,
    db1_end: Tensor,
    dW2_end: Tensor,
    db2_end: Tensor,
    dS_W1_end: Tensor,
    dS_b1_end: Tensor,
    dS_W2_end: Tensor,
    dS_b2_end: Tensor,
    longest: int,
    blocks: int,
    eps: float,
) -> Tensors:
    """Cotangents of q, k, v, ℓ, the four weights, s, γ and β."""
    ends = (dW1_end, db1_end, dW2_end, db2_end, dS_W1_end, dS_b1_end, dS_W2_end, dS_b2_end)
    results = empty_backward(q, k, v, lr, *ends[:4], scale, gamma, beta)
    dq, dk, dv, dlr, dW1, db1, dW2, db2, dscale, dgamma, dbeta = results
    if start is not None:
        # Not every token need belong to a sequence.
        for dx in results[:4]:
            dx.zero_()
    rows, (heads, width), size = dW1_end.shape[0], q.shape[1:], scale.shape[0]
    dscales, dgammas, dbetas = scale.new_empty(rows, heads, size), gamma.new_empty(rows, heads, width), beta.new_empty(rows, heads, width)
    per = tile(size, width, q.dtype) // size
    Ws_replayed, bs_replayed = Ws.new_empty((rows, heads, per, *Ws.shape[2:])), bs.new_empty((rows, heads, per, *bs.shape[2:]))
    sums, where = (None, None, None, None), (start, length, None if length is None else torch.zeros_like(length), first)
    with torch.cuda.device_of(q):
        reverse[heads, rows](
            *(q, k, v, lr, *sums, scale, gamma, beta, *where, Ws, bs, dy, *ends, Ws_replayed, bs_replayed),
            *(dq, dk, dv, dlr, dW1, db1, dW2, db2, *sums, dscales, dgammas, dbetas),
            *(longest, blocks, per, heads, eps),
            **constants(reverse, q, dW1_end.shape[-1], size),
        )
    dscale.copy_(dscales.sum((0, 1)))
    dgamma.copy_(dgammas.sum(0))
    dbeta.copy_(dbetas.sum(0))
    return results


def empty_backward(*like: Tensor) -> Tensors:
    """Room for the cotangents of these."""
    return [x.new_empty(x.shape) for x in like]
