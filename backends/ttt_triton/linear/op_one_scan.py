"""The backward pass of sequences in pairs of mini-batches, one kernel, as a PyTorch operator."""

from __future__ import annotations

import torch
from torch import Tensor

from ..operators import operator
from . import gluon
from .launch import aligned, launcher
from .op import room


@operator("linear_one_scan_backward")
def backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lr: Tensor,
    scale: Tensor,
    gamma: Tensor,
    beta: Tensor,
    G: Tensor,
    Ws: Tensor,
    bs: Tensor,
    moments: Tensor,
    dy: Tensor,
    dW_end: Tensor | None,
    db_end: Tensor | None,
    rows: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Cotangents of q, k, v, ℓ, W, b, s, γ, β of R = ``rows`` sequences that lie end to end; no cotangent of final weights is one of zeros."""
    cotangents = dq, dk, dv, dlr, dW, db = empty(q, k, v, lr, Ws, bs, rows)
    tokens, heads = [aligned(x) for x in (q, k, v)], q.shape[1]
    dscales, dgammas, dbetas = (x.new_empty(rows, heads, x.shape[-1]) for x in (scale, gamma, beta))
    with torch.cuda.device_of(q):
        launcher(gluon.backward, q.dtype, q.shape[-1], scale.shape[0])[heads, rows](
            *(*tokens, lr.float(), G, Ws, bs, moments, scale, gamma, beta, aligned(dy), dW_end, db_end),
            *(*cotangents, dscales, dgammas, dbetas, q.shape[0] // rows, heads),
        )
    return dq, dk, dv, dlr, dW, db, dscales.sum((0, 1)), dgammas.sum(0), dbetas.sum(0)


def empty(q: Tensor, k: Tensor, v: Tensor, lr: Tensor, Ws: Tensor, bs: Tensor, rows: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Room for the cotangents of tokens and weights."""
    dq, dk, dv, dlr = map(room, (q, k, v, lr))
    return dq, dk, dv, dlr, bs.new_empty((rows, *Ws.shape[1:])), bs.new_empty((rows, *bs.shape[1:]))
