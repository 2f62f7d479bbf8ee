"""The kernels of the backward pass as a PyTorch operator."""

from __future__ import annotations

import torch
from torch import Tensor

from ..layout import tile
from ..operators import operator
from .launch import constants, pieces, scanning
from .op import Results, room
from .readout_backward import readout_backward
from .reverse_scan import reverse_scan
from .slopes import slopes
from .sums import open_sums_backward
from .training_backward import training_backward


@operator("mlp_backward")
def backward(
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
    W_kept: Tensor,
    b_kept: Tensor,
    dy: Tensor,
    dW1_end: Tensor,
    db1_end: Tensor,
    dW2_end: Tensor,
    db2_end: Tensor,
    dS_W1: Tensor,
    dS_b1: Tensor,
    dS_W2: Tensor,
    dS_b2: Tensor,
    longest: int,
    total: int,
    eps: float,
) -> Results:
    """Cotangents of q, k, v, ℓ, the four weights, s, γ and β: pieces are scanned again, from the last to the first, and gone through backward."""
    dq, dk, dv, dlr, dW1, db1, dW2, db2 = (x.new_empty(x.shape) for x in (q, k, v, lr, dW1_end, db1_end, dW2_end, db2_end))
    if start is not None:
        # Not every token need belong to a sequence.
        for x in (dq, dk, dv, dlr):
            x.zero_()
    size, heads, (rows, _, width, hidden) = scale.shape[0], q.shape[1], W1.shape
    block, where = tile(size, width, q.dtype) // size * size, (start, length, first)
    order = pieces(rows, heads, longest, block, None if start is None else total)[::-1]
    most = max((piece.places for piece in order), default=0)
    X2, G1, G2, Ws, bs = room(most, q, W1, block)
    slope, curve, dX2, dG1 = (torch.empty_like(X2) for _ in range(4))
    normed, F, dG2 = (torch.empty_like(G2) for _ in range(3))
    dWs, dbs, W2s = torch.empty_like(Ws), torch.empty_like(bs), Ws.new_empty((most, heads, block // size, hidden, width))
    Ls, ls = Ws.new_empty((most, heads, hidden, width)), bs.new_empty((most, heads, hidden))
    norms, (dlr_read, gated) = bs.new_empty((most, heads, 2, block)), (bs.new_empty((most, heads, block)) for _ in range(2))
    every = sum(piece.places for piece in order)
    dscales, dgammas, dbetas = scale.new_zeros(every, heads, size), gamma.new_zeros(every, heads, width), beta.new_zeros(every, heads, width)
    done = 0
    scan, rates, options = scanning(size, hidden, k, v, lr)
    with torch.cuda.device_of(q):
        for top, count, begin, blocks, places, number, final in order:
            extent = top, longest, begin, blocks, heads
            given = [x[top:] for x in (W1, b1, W2, b2)]
            if number:
                W, b = (x.unflatten(0, (rows, -1))[top : top + count, number - 1] for x in (W_kept, b_kept))
                given = [x.contiguous() for x in (W[:, :, 0].mT, b[..., :hidden], W[:, :, 1], b[..., hidden:])]
            scan[heads, count](
                *(k, v, rates, given[0], given[1], given[2], given[3], scale, gamma, beta, *where, X2, G1, G2, Ws, bs, W2s, None, None, None, None),
                *(given[0].stride(0), given[1].stride(0), given[2].stride(0), given[3].stride(0), *extent, eps),
                **options,
            )
            parts = dscales[done : done + places], dgammas[done : done + places], dbetas[done : done + places]
            done += places
            if places:
                slopes[heads, places](
                    *(k, v, lr, X2, G1, G2, Ws, bs, scale, gamma, beta, *where, row, slope, curve, normed, F, norms, *extent, eps),
                    **constants(slopes, q, hidden, size),
                )
                readout_backward[heads, places](
                    *(q, k, lr, X2, G1, G2, Ws, bs, scale, gamma, *where, row, dy, dq, dk, dlr_read, dX2, dG1, dG2, dWs, dbs, *parts),
                    *(*extent, eps),
                    **constants(readout_backward, q, hidden, size),
                )
            if final:
                open_sums_backward[heads, count](
                    *(k, lr, X2, G1, G2, *where, dS_W1, dS_b1, dS_W2, dS_b2, dk, dlr_read, dX2, dG1, dG2, *extent),
                    **constants(open_sums_backward, q, hidden, size),
                )
            ends = (dW1_end, db1_end, dW2_end, db2_end) if final else (dW1, db1, dW2, db2)
            reverse_scan[heads, count](
                *(k, lr, scale, gamma, *where, X2, G2, W2s, slope, curve, normed, F, norms, dG1, dX2, dG2, dWs, dbs),
                *(*ends, Ls, ls, gated, dW1, db1, dW2, db2, *extent),
                **constants(reverse_scan, q, hidden, size),
            )
            if places:
                training_backward[heads, places](
                    *(k, v, lr, G1, Ws, scale, gamma, beta, *where, row, normed, dX2, dG2, gated, Ls, ls, dlr_read, dk, dv, dlr, *parts),
                    *extent,
                    **constants(training_backward, q, hidden, size),
                )
    return dq, dk, dv, dlr, dW1, db1, dW2, db2, dscales.sum((0, 1)), dgammas.sum(0), dbetas.sum(0)
