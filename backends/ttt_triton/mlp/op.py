"""The kernels of the forward pass as a PyTorch operator, which ``rules`` makes differentiable."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..layout import saved_dtype, tile
from ..operators import operator
from ..overlap import take_turns
from .keep import keep_weights
from .launch import Piece, borders, launcher, pieces, scans, turns, written
from .readout import readout
from .room import Scanned
from .sums import open_sums

Results = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
JOINED = 4
"""Pieces of the backward pass that are one piece forward, where a token needs less room."""


class Room(NamedTuple):
    """Of one piece, and as ``scan`` writes there."""

    scanned: Scanned
    written: tuple[Any, ...]


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
    y, W1_end, b1_end, W2_end, b2_end, S_W1, S_b1, S_W2, S_b2, *kept = results
    size, heads, (rows, _, width, hidden) = scale.shape[0], q.shape[1], W1.shape
    block, where, ends = tile(size, width, q.dtype) // size * size, (start, length, first), (W1_end, b1_end, W2_end, b2_end)
    abreast = turns(rows, heads, longest)
    order = pieces(rows, heads, longest, block, None if start is None else total, abreast, JOINED)
    begins = borders(longest, block, abreast)
    apart = begins[:2][-1] // block
    most = max((piece.places for piece in order), default=0)
    scan, _, rates = scans(size, hidden, k, v, lr)
    read_out, sum_up, keep_starts = (launcher(kernel, q.dtype, width, hidden, size) for kernel in (readout, open_sums, keep_weights))

    def train(piece: Piece, room: Room) -> None:
        given = [x[piece.top :] for x in (ends if piece.number else (W1, b1, W2, b2))]
        scan[heads, piece.rows](
            *(k, v, rates, given[0], given[1], given[2], given[3], scale, gamma, beta, *where, *room.written, *ends),
            *(given[0].stride(0), given[1].stride(0), given[2].stride(0), given[3].stride(0), *piece.extent(longest, heads), eps),
        )

    def read(piece: Piece, room: Room) -> None:
        X2, G1, G2, Ws, bs = room.scanned
        top, count, _, _, places, _, number, last = piece
        extent = piece.extent(longest, heads)
        if places:
            read_out[heads, places](q, k, lr, X2, G1, G2, Ws, bs, scale, gamma, beta, *where, row, y, *extent, eps)
        if keep and apart and places:
            given = top, piece.blocks, apart, number * JOINED, len(begins) - 1, heads
            keep_starts[heads, count * -(-piece.blocks // apart)](Ws, bs, *kept, *given)
        if last:
            sum_up[heads, count](k, lr, X2, G1, G2, *where, S_W1, S_b1, S_W2, S_b2, *extent)

    rooms = [Scanned.of(max(most, 1), q, W1, block) for _ in range(abreast)]
    with torch.cuda.device_of(q):
        take_turns(order, [Room(room, written(scan, room)) for room in rooms], train, read)
    return results


def empty(q: Tensor, W1: Tensor, b1: Tensor, W2: Tensor, b2: Tensor, scale: Tensor, longest: int, keep: bool) -> Results:
    """Room for the operator's results."""
    size, (rows, heads, width, _) = scale.shape[0], W1.shape
    begins = borders(longest, tile(size, width, q.dtype) // size * size, turns(rows, heads, longest))
    kept = rows * (len(begins) - 1) if keep else 0
    W1_end, b1_end, W2_end, b2_end, S_W1, S_b1, S_W2, S_b2 = (
        torch.empty_like(x, memory_format=torch.contiguous_format) for x in 2 * (W1, b1, W2, b2)
    )
    W1_kept, W2_kept = (x.new_empty((kept, *x.shape[1:]), dtype=saved_dtype(q.dtype)) for x in (W1, W2))
    b1_kept, b2_kept = (x.new_empty((kept, *x.shape[1:])) for x in (b1, b2))
    return torch.empty_like(q), W1_end, b1_end, W2_end, b2_end, S_W1, S_b1, S_W2, S_b2, W1_kept, b1_kept, W2_kept, b2_kept
