"""The kernels as one differentiable PyTorch operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..layout import INTERPRETED, operands, padded, saved_dtype
from .forward import forward as forward_kernel
from .reverse import reverse

Tensors = list[Tensor]


def segment(size: int) -> int:
    """Tokens of a segment, of whose weights the first are kept and the others replayed: 256 in at most 32 mini-batches of K = ``size``."""
    return size * (3 if INTERPRETED else min(32, 256 // size))


def constants(q: Tensor, size: int, hidden: int, **more: Any) -> dict[str, Any]:
    """The kernels' compile-time arguments for tokens q, K = ``size`` and E = ``hidden`` columns, and those of one kernel alone."""
    width = q.shape[-1]
    shape = {"K": size, "D": width, "E": hidden, "K_PAD": padded(size), "D_PAD": padded(width), "E_PAD": padded(hidden)}
    return shape | operands(q.dtype) | {"num_warps": 4 if padded(width) * padded(hidden) <= 4096 else 8, "num_stages": 1} | more


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
    S_W1: Tensor | None,
    S_b1: Tensor | None,
    S_W2: Tensor | None,
    S_b2: Tensor | None,
    scale: Tensor,
    gamma: Tensor,
    beta: Tensor,
    start: Tensor | None,
    length: Tensor | None,
    phase: Tensor | None,
    first: Tensor | None,
    longest: int,
    segments: int,
    total: int,
    eps: float,
) -> Tensors:
    """y, the four weights and four sums as ``mlp`` says, and what the backward pass needs: W and b at the starts of all ``total`` segments."""
    results = empty(q, W1, b1, W2, b2, total)
    y, W1_end, b1_end, W2_end, b2_end, *ends, Ws, bs = results
    sums, where = (S_W1, S_b1, S_W2, S_b2), (start, length, phase, first)
    carried_over(sums, ends, where, longest)
    rows, heads, size = W1.shape[0], q.shape[1], scale.shape[0]
    strides = (W1.stride(0), b1.stride(0), W2.stride(0), b2.stride(0))
    with torch.cuda.device_of(q):
        forward_kernel[heads, rows](
            *(q, k, v, lr, W1, b1, W2, b2, *sums, scale, gamma, beta, *where, y, W1_end, b1_end, W2_end, b2_end),
            *(ends[0], ends[1], ends[2], ends[3], Ws if total else None, bs if total else None),
            *(*strides, longest, segments, segment(size) // size, heads, eps),
            **constants(q, size, W1.shape[-1]),
        )
    return results


def empty(q: Tensor, W1: Tensor, b1: Tensor, W2: Tensor, b2: Tensor, total: int) -> Tensors:
    """Room for the operator's results."""
    ends = [x.new_empty(x.shape) for x in 2 * (W1, b1, W2, b2)]
    heads, inner, outer = W2.shape[1:]
    Ws = q.new_empty((total, heads, 2, inner, outer), dtype=saved_dtype(q.dtype))
    return [q.new_empty(q.shape), *ends, Ws, W2.new_empty((total, heads, inner + outer))]


def carried_over(sums: Sequence[Tensor | None], ends: Sequence[Tensor], where: Sequence[Tensor | None], longest: int) -> None:
    """Make ``ends`` the given sums where a sequence has no token and begins at a border, and 0 in all others, for the kernels to overwrite."""
    _, length, phase, _ = where
    for old, end in zip(sums, ends, strict=True):
        if old is None or length is None or phase is None:
            end.zero_() if old is None or longest else end.copy_(old)
        else:
            end.copy_(torch.where((length + phase == 0)[:, None, None, None], old, 0.0))


@torch.library.custom_op("tttcore::mlp_backward", mutates_args=())
def backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lr: Tensor,
    S_W1: Tensor | None,
    S_b1: Tensor | None,
    S_W2: Tensor | None,
    S_b2: Tensor | None,
    scale: Tensor,
    gamma: Tensor,
    beta: Tensor,
    start: Tensor | None,
    length: Tensor | None,
    phase: Tensor | None,
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
    segments: int,
    eps: float,
) -> Tensors:
    """Cotangents of q, k, v, ℓ, the four weights, s, γ, β and, empty if not given, of the four sums."""
    ends = (dW1_end, db1_end, dW2_end, db2_end, dS_W1_end, dS_b1_end, dS_W2_end, dS_b2_end)
    sums, where = (S_W1, S_b1, S_W2, S_b2), (start, length, phase, first)
    results = empty_backward(q, k, v, lr, *ends[:4], scale, gamma, beta, *sums)
    dq, dk, dv, dlr, dW1, db1, dW2, db2, dscale, dgamma, dbeta, *dS = results
    given = [None if x is None else dx for x, dx in zip(sums, dS, strict=True)]
    if given[0] is not None:
        carried_over(ends[4:], dS, where, longest)
    rows, (heads, width), size = dW1_end.shape[0], q.shape[1:], scale.shape[0]
    dscales, dgammas, dbetas = scale.new_empty(rows, heads, size), gamma.new_empty(rows, heads, width), beta.new_empty(rows, heads, width)
    room = (rows, heads, segment(size) // size)
    Ws_replayed, bs_replayed = Ws.new_empty((*room, *Ws.shape[2:])), bs.new_empty((*room, *bs.shape[2:]))
    with torch.cuda.device_of(q):
        reverse[heads, rows](
            *(q, k, v, lr, *sums, scale, gamma, beta, *where, Ws, bs, dy, *ends, Ws_replayed, bs_replayed),
            *(dq, dk, dv, dlr, dW1, db1, dW2, db2, given[0], given[1], given[2], given[3], dscales, dgammas, dbetas),
            *(longest, segments, segment(size) // size, heads, eps),
            **constants(q, size, dW1_end.shape[-1], STAGES=1),
        )
    dscale.copy_(dscales.sum((0, 1)))
    dgamma.copy_(dgammas.sum(0))
    dbeta.copy_(dbetas.sum(0))
    return results


def empty_backward(*like: Tensor | None) -> Tensors:
    """Room for the cotangents of these, nothing for None."""
    given = next(x for x in like if x is not None)
    return [given.new_empty(0) if x is None else x.new_empty(x.shape) for x in like]
