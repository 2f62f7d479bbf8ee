"""The kernels of the backward pass as a PyTorch operator."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..layout import tile
from ..operators import operator
from ..overlap import leaves_room, take_turns
from .launch import Piece, launcher, pieces, scans
from .op import room as results
from .readout_backward import readout_backward
from .training_backward import training_backward

ROOMS = 2
"""So many pieces are in hand where kernels of one run beside those of another."""


class Room(NamedTuple):
    """What the kernels write of a piece for those after them: ΔG, which w replaces, ΔW, which Λ replaces, Δb and λ."""

    gradients: Tensor
    weights: Tensor
    biases: Tensor
    ends: Tensor

    @classmethod
    def of(cls, places: int, block: int, Ws: Tensor) -> Room:
        """Of ``places`` blocks of ``block`` tokens, for weights like Ws."""
        heads, width = Ws.shape[1], Ws.shape[-1]
        biases, ends = (Ws.new_empty((places, heads, width), dtype=torch.float32) for _ in range(2))
        return cls(Ws.new_empty((places, block, heads, width)), Ws.new_empty((places, *Ws.shape[1:])), biases, ends)


@operator("linear_backward")
def backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lr: Tensor,
    scale: Tensor,
    gamma: Tensor,
    beta: Tensor,
    opening_k: Tensor | None,
    opening_q: Tensor | None,
    start: Tensor | None,
    length: Tensor | None,
    phase: Tensor | None,
    first: Tensor | None,
    row: Tensor | None,
    G: Tensor,
    Ws: Tensor,
    bs: Tensor,
    dy: Tensor,
    dW_end: Tensor,
    db_end: Tensor,
    dS_W: Tensor,
    dS_b: Tensor,
    longest: int,
    blocks: int,
    total: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Cotangents of q, k, v, ℓ, W, b, s, γ, β, and of the opening's two parts, empty where there is none."""
    rows, (heads, width), size = dW_end.shape[0], q.shape[1:], scale.shape[0]
    dq, dk, dv, dlr, dW, db = map(results, (q, k, v, lr, dW_end, db_end))
    if start is not None:
        # Not every token need belong to a sequence.
        for x in (dq, dk, dv, dlr):
            x.zero_()
    dopening_k, dopening_q = (None if x is None else torch.zeros_like(x) for x in (opening_k, opening_q))
    # Each tile is read before it is written: Ẑ lies where the cotangent of V will, if of its dtype.
    normed = dv if dv.dtype == G.dtype else torch.empty_like(G)
    rstd = torch.empty_like(lr, dtype=torch.float32)
    dscales, dgammas, dbetas = scale.new_empty(total, heads, size), gamma.new_empty(total, heads, width), beta.new_empty(total, heads, width)
    where = start, length, phase, first
    _, reverse_scan, rates = scans(size, k, v, lr, opening_k is not None)
    read_back, train_back = (launcher(kernel, q.dtype, width, size) for kernel in (readout_backward, training_backward))
    order = pieces(rows, heads, blocks, None if start is None else total, True)[::-1]
    most, block = max(piece.places for piece in order), tile(size, width, q.dtype) // size * size
    abreast = min(ROOMS, len(order)) if leaves_room(rows * heads) else 1
    rooms = [Room.of(most, block, Ws) for _ in range(abreast)]

    def read(piece: Piece, room: Room) -> None:
        if piece.places:
            read_back[heads, piece.places](
                *(q, k, lr, G, Ws, bs, opening_k, opening_q, scale, gamma, *where, row, dy, dS_W, dS_b),
                *(dq, dk, room.gradients, normed, rstd, room.weights, room.biases, dopening_q, dscales, dgammas, dbetas),
                *(longest, blocks, piece.begin, piece.blocks, heads, eps),
            )

    def reverse(piece: Piece, room: Room) -> None:
        ends = (dW_end, db_end) if piece is order[0] else (dW, db)
        reverse_scan[heads, rows](
            *(k, v, rates, scale, gamma, beta, *where, room.gradients, normed, rstd, room.weights, room.biases, room.ends, *ends),
            *(room.gradients, dlr, dW, db, longest, blocks, piece.begin, piece.blocks, heads),
        )

    def close(piece: Piece, room: Room) -> None:
        if piece.places:
            train_back[heads, piece.places](
                *(k, v, lr, G, Ws, scale, gamma, beta, *where, row, normed, rstd, room.gradients, room.weights, room.ends),
                *(dk, dv, dopening_k, dscales, dgammas, dbetas),
                *(longest, blocks, piece.begin, piece.blocks, heads),
            )

    with torch.cuda.device_of(q):
        take_turns(order, rooms, read, reverse, close, scan=1)
    dopening_k, dopening_q = (q.new_empty(0) if dx is None else dx for dx in (dopening_k, dopening_q))
    return dq, dk, dv, dlr, dW, db, dscales.sum((0, 1)), dgammas.sum(0), dbetas.sum(0), dopening_k, dopening_q
