"""The kernels of the backward pass as a PyTorch operator."""

from __future__ import annotations

import torch
from torch import Tensor

from ..layout import tile
from ..operators import operator
from ..overlap import take_turns
from .launch import Piece, launcher, pieces, scans, tiles, turns, written
from .readout_backward import readout_backward
from .room import Reversed
from .rows_backward import rows_backward
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
    W1_kept: Tensor,
    b1_kept: Tensor,
    W2_kept: Tensor,
    b2_kept: Tensor,
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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Cotangents of q, k, v, ℓ, the four weights, s, γ and β: pieces are scanned again, from the last to the first, and gone through backward."""
    # Not every token or place need belong to a sequence, where sequences do not lie end to end.
    new = Tensor.new_empty if start is None else Tensor.new_zeros
    dq, dk, dv, dlr = (new(x, x.shape) for x in (q, k, v, lr))
    dW1, db1, dW2, db2 = (x.new_empty(x.shape) for x in (dW1_end, db1_end, dW2_end, db2_end))
    size, heads, (rows, _, width, hidden) = scale.shape[0], q.shape[1], W1.shape
    block, where = tile(size, width, q.dtype) // size * size, (start, length, first)
    abreast = turns(rows, heads, longest)
    order = pieces(rows, heads, longest, block, None if start is None else total, abreast)[::-1]
    most, every = max((piece.places for piece in order), default=0), sum(piece.places for piece in order)
    dscales, dgammas, dbetas = (new(x, (every, heads, x.shape[-1])) for x in (scale, gamma, beta))
    scan, reverse_scan, rates = scans(size, hidden, k, v, lr)
    others = rows_backward, readout_backward, open_sums_backward, training_backward
    rows_back, read_back, sum_back, train_back = (launcher(kernel, q.dtype, width, hidden, size) for kernel in others)
    rooms = [Reversed.of(max(most, 1), q, W1, block, size) for _ in range(abreast)]
    rooms = [room._replace(written=written(scan, room.scanned, room.W2s), tiles=tiles(reverse_scan, room)) for room in rooms]

    def parts(piece: Piece) -> tuple[Tensor, Tensor, Tensor]:
        places = slice(piece.before, piece.before + piece.places)
        return dscales[places], dgammas[places], dbetas[places]

    def train(piece: Piece, room: Reversed) -> None:
        given = [x[piece.top :] for x in (W1, b1, W2, b2)]
        if piece.number:
            given = [x.unflatten(0, (rows, -1))[piece.top :, piece.number - 1] for x in (W1_kept, b1_kept, W2_kept, b2_kept)]
        scan[heads, piece.rows](
            *(k, v, rates, given[0], given[1], given[2], given[3], scale, gamma, beta, *where, *room.written, None, None, None, None),
            *(given[0].stride(0), given[1].stride(0), given[2].stride(0), given[3].stride(0), *piece.extent(longest, heads), eps),
        )

    def read(piece: Piece, room: Reversed) -> None:
        extent, (X2, G1, G2, Ws, bs), (dX2, dG1, dG2, dWs, dbs) = piece.extent(longest, heads), room.scanned, room.asked
        if piece.places:
            dscale, *dlearned = parts(piece)
            rows_back[2 * heads, piece.places](
                *(q, k, v, lr, X2, G1, G2, Ws, bs, scale, gamma, beta, *where, row, dy, room.slope, room.curve, room.normed, room.F),
                *(room.keys, room.numbers, dG2, dbs, *dlearned, *room.between, *extent, eps),
            )
            read_back[heads, piece.places](
                *(q, k, lr, X2, G1, Ws, bs, scale, *where, row, dy, *room.between, dq, dk, room.dlr, dX2, dG1, dWs, dbs, dscale, *extent),
            )
        if piece.last:
            sum_back[heads, piece.rows](
                *(k, lr, X2, G1, G2, *where, dS_W1, dS_b1, dS_W2, dS_b2, dk, room.dlr, dX2, dG1, dG2, *extent),
            )

    def reverse(piece: Piece, room: Reversed) -> None:
        ends = (dW1_end, db1_end, dW2_end, db2_end) if piece.last else (dW1, db1, dW2, db2)
        reverse_scan[heads, piece.rows](
            *(gamma, *where, *room.tiles, room.asked.bs, *ends),
            *(room.ls, room.gated, dW1, db1, dW2, db2, *piece.extent(longest, heads)),
        )

    def close(piece: Piece, room: Reversed) -> None:
        (_, G1, _, Ws, _), (dz, _, p, _, _) = room.scanned, room.asked
        if piece.places:
            train_back[heads, piece.places](
                *(k, v, lr, G1, Ws, scale, gamma, beta, *where, row, room.normed, dz, p, room.gated, room.Ls, room.ls, room.dlr, dk, dv, dlr),
                *(*parts(piece), *piece.extent(longest, heads)),
            )

    with torch.cuda.device_of(q):
        take_turns(order, rooms, train, read, reverse, close)
    return dq, dk, dv, dlr, dW1, db1, dW2, db2, dscales.sum((0, 1)), dgammas.sum(0), dbetas.sum(0)
