"""The kernels of the backward pass as a PyTorch operator."""

from __future__ import annotations

import torch
from torch import Tensor

from ..layout import tile
from ..operators import operator
from .launch import Piece, constants, pieces, scans, tiles, turns
from .op import Results
from .overlap import take_turns
from .readout_backward import readout_backward
from .room import Reversed
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
    rooms = turns(rows, heads, longest)
    order = pieces(rows, heads, longest, block, None if start is None else total, rooms)[::-1]
    most, every = max((piece.places for piece in order), default=0), sum(piece.places for piece in order)
    dscales, dgammas, dbetas = scale.new_zeros(every, heads, size), gamma.new_zeros(every, heads, width), beta.new_zeros(every, heads, width)
    (scan, options), (reverse_scan, reverse_options), rates = scans(size, hidden, k, v, lr)
    others = (slopes, readout_backward, open_sums_backward, training_backward)
    shape = {kernel: constants(kernel, q, hidden, size) for kernel in others}

    def parts(piece: Piece) -> tuple[Tensor, Tensor, Tensor]:
        places = slice(piece.before, piece.before + piece.places)
        return dscales[places], dgammas[places], dbetas[places]

    def train(piece: Piece, room: Reversed) -> None:
        given = [x[piece.top :] for x in (W1, b1, W2, b2)]
        if piece.number:
            W, b = (x.unflatten(0, (rows, -1))[piece.top : piece.top + piece.rows, piece.number - 1] for x in (W_kept, b_kept))
            given = [x.contiguous() for x in (W[:, :, 0].mT, b[..., :hidden], W[:, :, 1], b[..., hidden:])]
        scan[heads, piece.rows](
            *(k, v, rates, given[0], given[1], given[2], given[3], scale, gamma, beta, *where, *room.scanned, room.W2s, None, None, None, None),
            *(given[0].stride(0), given[1].stride(0), given[2].stride(0), given[3].stride(0), *piece.extent(longest, heads), eps),
            **options,
        )

    def read(piece: Piece, room: Reversed) -> None:
        extent, (X2, G1, G2, Ws, bs), (dX2, dG1, dG2, dWs, dbs) = piece.extent(longest, heads), room.scanned, room.asked
        slope, _, _, curve = room.hiddens
        _, _, normed, F = room.lines
        if piece.places:
            slopes[heads, piece.places](
                *(k, v, lr, X2, G1, G2, Ws, bs, scale, gamma, beta, *where, row),
                *(slope, curve, normed, F, room.norms, *extent, eps),
                **shape[slopes],
            )
            readout_backward[heads, piece.places](
                *(q, k, lr, X2, G1, G2, Ws, bs, scale, gamma, *where, row),
                *(dy, dq, dk, room.dlr, dX2, dG1, dG2, dWs, dbs, *parts(piece), *extent, eps),
                **shape[readout_backward],
            )
        if piece.last:
            open_sums_backward[heads, piece.rows](
                *(k, lr, X2, G1, G2, *where, dS_W1, dS_b1, dS_W2, dS_b2, dk, room.dlr, dX2, dG1, dG2, *extent),
                **shape[open_sums_backward],
            )

    def reverse(piece: Piece, room: Reversed) -> None:
        ends = (dW1_end, db1_end, dW2_end, db2_end) if piece.last else (dW1, db1, dW2, db2)
        # ΔZ₁ and p take the place of ΔX₂ and ΔG₂.
        reverse_scan[heads, piece.rows](
            *(k, rates, scale, gamma, *where, *tiles(reverse_scan, room), room.norms, room.asked.Ws, room.asked.bs, *ends),
            *(room.asked.X2, room.asked.G2, room.Ls, room.ls, room.gated, dW1, db1, dW2, db2, *piece.extent(longest, heads)),
            **reverse_options,
        )

    def close(piece: Piece, room: Reversed) -> None:
        (_, G1, _, Ws, _), (dz, _, p, _, _) = room.scanned, room.asked
        if piece.places:
            training_backward[heads, piece.places](
                *(k, v, lr, G1, Ws, scale, gamma, beta, *where, row, room.lines[2], dz, p, room.gated, room.Ls, room.ls, room.dlr, dk, dv, dlr),
                *(*parts(piece), *piece.extent(longest, heads)),
                **shape[training_backward],
            )

    with torch.cuda.device_of(q):
        take_turns(order, [Reversed.of(max(most, 1), q, W1, block, size) for _ in range(rooms)], train, read, reverse, close)
    return dq, dk, dv, dlr, dW1, db1, dW2, db2, dscales.sum((0, 1)), dgammas.sum(0), dbetas.sum(0)
