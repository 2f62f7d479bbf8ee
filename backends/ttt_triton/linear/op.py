"""The kernels of the forward pass as a PyTorch operator, which ``rules`` makes differentiable."""

from __future__ import annotations

import torch
from torch import Tensor

from ..layout import saved_dtype
from ..operators import operator
from ..overlap import take_turns
from . import gluon
from .launch import Piece, aligned, launcher, pieces, reads_out, scans
from .open_sums import open_sums
from .readout import readout


@operator("linear")
def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lr: Tensor,
    W: Tensor,
    b: Tensor,
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
    longest: int,
    blocks: int,
    total: int,
    pairs: bool,
    kept: bool,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(y, W, b, S_W, S_b) as ``linear`` says, and what the backward pass needs: G ``[N, H, D]``, W and b at the starts of blocks, and moments.

    Where blocks are ``pairs`` of mini-batches, that is written if it is to be ``kept`` only. Moments ``[N, H, 8]``, of such blocks alone, are of each
    token −mr, r, −m̄r̄, r̄, mean e, mean eẑ, mean c and mean eẑ + ½ mean cẑ, by the letters of docs/kernels.md.
    """
    outputs = y, W_end, b_end, S_W, S_b, G, Ws, bs, moments = empty(q, W, b, total, pairs, kept)
    if pairs:
        q, k, v = map(aligned, (q, k, v))
    (_, heads, width), size, rows = q.shape, scale.shape[0], W.shape[0]
    where = start, length, phase
    inputs = scale, gamma, beta, *where, first
    scan, _, rates = scans(size, k, v, lr, opening_k is not None, pairs)
    read_out, sum_up = (launcher(kernel, q.dtype, width, size) for kernel in (readout, open_sums))
    at_once = reads_out(scan, q, size, rows * heads)
    # The scan that is laid out by hand takes four arguments more.
    asked = () if scan.kernel is not gluon.scan else (q, opening_q, y, moments if pairs and kept else None) if at_once else (None, None, None, None)
    written = (None, None, None) if pairs and not kept else (G, Ws, bs)

    def train(piece: Piece, _: None) -> None:
        given = (W_end, b_end) if piece.begin else (W, b)
        ends = W_end, b_end, S_W, S_b, given[0].stride(0), given[1].stride(0)
        extent = longest, blocks, piece.begin, piece.blocks, heads
        scan[heads, rows](k, v, rates, opening_k, *given, *inputs, *written, *ends, *asked, *extent, eps)

    def read(piece: Piece, _: None) -> None:
        extent = longest, blocks, piece.begin, piece.blocks, heads
        if piece.places and not at_once:
            read_out[heads, piece.places](q, k, lr, G, Ws, bs, opening_q, *inputs, row, y, *extent, eps)
        if (start is not None or longest % size) and piece.begin + piece.blocks >= blocks:
            sum_up[heads, rows](k, lr, G, *where, S_W, S_b, longest, heads)

    order = pieces(rows, heads, blocks, None if start is None else total, False)
    with torch.cuda.device_of(q):
        take_turns(order, [None] * len(order), train, read)
    return outputs


def empty(
    q: Tensor, W: Tensor, b: Tensor, total: int, pairs: bool, kept: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Room for the operator's results."""
    y, W_end, b_end, S_W, S_b = map(room, (q, W, b, W, b))
    width, moments = (0 if pairs and not kept else q.shape[-1]), (8 if pairs and kept else 0)
    G = q.new_empty((*q.shape[:-1], width), dtype=saved_dtype(q.dtype))
    Ws, bs = W.new_empty((total, *W.shape[1:-1], width), dtype=G.dtype), b.new_empty((total, *b.shape[1:-1], width))
    return y, W_end, b_end, S_W, S_b, G, Ws, bs, b.new_empty((*q.shape[:-1], moments))


def room(x: Tensor) -> Tensor:
    """Room for a tensor of x's shape, without gaps."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)
