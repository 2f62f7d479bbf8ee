"""The kernels as one differentiable PyTorch operator."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from ..launcher import Launcher
from ..layout import INTERPRETED, operands, padded, parallel_warps, saved_dtype, tile
from ..operators import operator
from . import gluon
from .readout import readout
from .readout_backward import readout_backward
from .reverse_scan import reverse_scan
from .scan import scan
from .training_backward import training_backward


@functools.cache
def launcher(kernel: Any, dtype: torch.dtype, width: int, size: int, opening: bool = False) -> Launcher:
    """A kernel for tokens of ``dtype``, D = ``width`` and K = ``size``, and for sequences that go on at any phase or not."""
    return Launcher(kernel, constants(kernel, dtype, width, size, opening))


def constants(kernel: Any, dtype: torch.dtype, width: int, size: int, opening: bool = False) -> dict[str, Any]:
    """A kernel's compile-time arguments and options."""
    rows, shape = tile(size, width, dtype), {"K": size, "D": width, "OPENING": opening}
    if kernel in (gluon.scan, gluon.reverse_scan):
        shape, options = shape | {"R": padded(size), "BLOCK": rows // size}, {"num_warps": width // 16}
    else:
        shape |= {"R": rows, "K_PAD": padded(size), "D_PAD": padded(width), "STAGES": 2 if saved_dtype(dtype) == torch.bfloat16 else 1} | operands(
            dtype
        )
        # Eight warps would divide 128 rows among them also where there are 64, and read past the end of the operands.
        options = {"num_warps": parallel_warps(width, rows) if width <= 64 or rows == 64 else 8, "num_stages": 1}
    if kernel is training_backward and width <= 64:
        # Three programs on a multiprocessor: it waits for memory.
        options["maxnreg"] = 168
    return {name: value for name, value in shape.items() if name in kernel.arg_names} | options


def scans(size: int, k: Tensor, v: Tensor, lr: Tensor) -> tuple[Any, Any, Tensor]:
    """``scan``, ``reverse_scan`` and ℓ for them: laid out by hand where they can be, else those that anything can run."""
    width, aligned = k.shape[-1], all(x.dtype == torch.bfloat16 and x.data_ptr() % 16 == 0 for x in (k, v))
    if INTERPRETED or not (aligned and gluon.suits(size, width, tile(size, width, k.dtype) // size)):
        return scan, reverse_scan, lr
    return gluon.scan, gluon.reverse_scan, lr.float()


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
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(y, W, b, S_W, S_b) as ``linear`` says, and what the backward pass needs: G ``[N, H, D]``, and W, b at the starts of blocks."""
    outputs = y, W_end, b_end, S_W, S_b, G, Ws, bs = empty(q, W, b, total)
    size, extent = scale.shape[0], (longest, blocks, q.shape[1])
    shape = q.dtype, q.shape[2], size
    inputs, ends = (scale, gamma, beta, start, length, phase, first), (W_end, b_end, S_W, S_b, W.stride(0), b.stride(0))
    chosen, _, rates = scans(size, k, v, lr)
    with torch.cuda.device_of(q):
        launcher(chosen, *shape)[q.shape[1], W.shape[0]](k, v, rates, opening_k, W, b, *inputs, G, Ws, bs, *ends, *extent, eps)
        if total:
            given = (q, k, lr, G, Ws, bs, opening_q)
            launcher(readout, *shape)[q.shape[1], total](*given, *inputs, row, y, S_W, S_b, *extent, eps)
    return outputs


def empty(q: Tensor, W: Tensor, b: Tensor, total: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Room for the operator's results."""
    y, W_end, b_end, S_W, S_b = map(room, (q, W, b, W, b))
    G = torch.empty_like(q, dtype=saved_dtype(q.dtype))
    return y, W_end, b_end, S_W, S_b, G, W.new_empty((total, *W.shape[1:]), dtype=G.dtype), b.new_empty((total, *b.shape[1:]))


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
    dq, dk, dv, dlr, dW, db = map(room, (q, k, v, lr, dW_end, db_end))
    dopening_k, dopening_q = (None if x is None else torch.zeros_like(x) for x in (opening_k, opening_q))
    # Each tile is read before it is written: ΔZ takes the place of ΔG, p that of Ẑ; these two lie where the cotangent of V will, if of its dtype.
    dz = dG = torch.empty_like(G)
    p = normed = dv if dv.dtype == G.dtype else torch.empty_like(G)
    rstd = torch.empty_like(lr, dtype=torch.float32)
    dWs, dbs, ls = torch.empty_like(Ws), torch.empty_like(bs), torch.empty_like(bs)
    dscales, dgammas, dbetas = scale.new_empty(total, heads, size), gamma.new_empty(total, heads, width), beta.new_empty(total, heads, width)
    where, extent = (start, length, phase, first), (longest, blocks, heads)
    shape, (_, chosen, rates) = (q.dtype, width, size), scans(size, k, v, lr)
    with torch.cuda.device_of(q):
        if total:
            launcher(readout_backward, *shape)[heads, total](
                *(q, k, lr, G, Ws, bs, opening_k, opening_q, scale, gamma, *where, row, dy, dS_W, dS_b),
                *(dq, dk, dG, normed, rstd, dWs, dbs, dopening_q, dscales, dgammas, dbetas, *extent, eps),
            )
        launcher(chosen, *shape, opening_k is not None)[heads, rows](
            *(k, v, rates, scale, gamma, beta, *where, dG, normed, rstd, dWs, dbs, ls, dW_end, db_end, dz, p, dlr, dW, db, *extent),
        )
        if total:
            launcher(training_backward, *shape)[heads, total](
                *(k, v, lr, G, Ws, bs, opening_k, scale, gamma, beta, *where, row, dz, p, dWs, ls),
                *(dk, dv, dopening_k, dscales, dgammas, dbetas, *extent, eps),
            )
    dopening_k, dopening_q = (q.new_empty(0) if dx is None else dx for dx in (dopening_k, dopening_q))
    return dq, dk, dv, dlr, dW, db, dscales.sum((0, 1)), dgammas.sum(0), dbetas.sum(0), dopening_k, dopening_q


def room(x: Tensor) -> Tensor:
    """Room for a tensor of x's shape, without gaps."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)
