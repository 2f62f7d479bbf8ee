"""Room for what one kernel writes of a piece and others read: a later piece has it then."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..layout import padded, saved_dtype, tile


class Scanned(NamedTuple):
    """What ``scan`` writes in both passes, or its cotangents."""

    X2: Tensor
    G1: Tensor
    G2: Tensor
    Ws: Tensor
    bs: Tensor

    @classmethod
    def of(cls, places: int, q: Tensor, W1: Tensor, block: int, G2: Tensor | None = None) -> Scanned:
        """Of ``places`` blocks of ``block`` tokens, with room for G₂ or without."""
        _, heads, width, hidden = W1.shape
        X2, G1 = (q.new_empty((places, heads, hidden, block), dtype=saved_dtype(q.dtype)) for _ in range(2))
        G2 = X2.new_empty((places, heads, block, width)) if G2 is None else G2
        Ws = X2.new_empty((places, heads, 2, hidden, width))
        return cls(X2, G1, G2, Ws, W1.new_empty((places, heads, hidden + width)))


class Reversed(NamedTuple):
    """What the kernels of the backward pass write for those after them."""

    scanned: Scanned
    asked: Scanned
    hiddens: Tensor
    lines: Tensor
    slope: Tensor
    curve: Tensor
    normed: Tensor
    F: Tensor
    keys: Tensor
    W2s: Tensor
    numbers: Tensor
    dlr: Tensor
    Ls: Tensor
    ls: Tensor
    gated: Tensor
    between: tuple[Tensor, Tensor, Tensor]
    written: tuple[Any, ...] = ()
    tiles: tuple[Any, ...] = ()

    @classmethod
    def of(cls, places: int, q: Tensor, W1: Tensor, block: int, size: int) -> Reversed:
        """Of ``places`` blocks of ``block`` tokens, in mini-batches of K = ``size``.

        σ′, ΔG₁, ΔX₂ and H̄ ⊙ σ″ are one tensor, and G₂, ΔG₂, Ẑ and F: ``reverse_scan`` copies them at once, described by ``tiles``. ``scan`` writes to
        ``written``.
        """
        _, heads, width, hidden = W1.shape
        lines = q.new_empty((4, places, heads, block, width), dtype=saved_dtype(q.dtype))
        scanned = Scanned.of(places, q, W1, block, lines[0])
        X2, _, _, Ws, bs = scanned
        hiddens = X2.new_empty((4, *X2.shape))
        asked = Scanned(hiddens[2], hiddens[1], lines[1], torch.empty_like(Ws), torch.empty_like(bs))
        height = tile(size, width, q.dtype)
        # What ``readout_norm`` leaves to ``readout_backward``, in whole tiles.
        dz2, along = (X2.new_empty((places, heads, *shape)) for shape in ((height, padded(width)), (2, height, height)))
        between = dz2, along, bs.new_empty((places, heads, height + padded(size)))
        W2s, Ls = (Ws.new_empty((places, heads, *more, hidden, width)) for more in ((block // size,), ()))
        numbers, dlr, ls, gated = (bs.new_empty((places, heads, *shape)) for shape in ((block, 4), (block,), (hidden,), (block,)))
        slope, curve, normed, F, keys = hiddens[0], hiddens[3], lines[2], lines[3], torch.empty_like(lines[0])
        return cls(scanned, asked, hiddens, lines, slope, curve, normed, F, keys, W2s, numbers, dlr, Ls, ls, gated, between)
