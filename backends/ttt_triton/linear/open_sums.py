"""What a sequence leaves open at its end: the gated sums of gradients of a mini-batch that is not whole."""

# pyright: reportGeneralTypeIssues=false
# Calls of jitted functions are typed as if they never returned.
from __future__ import annotations

import triton
import triton.language as tl

from .tiles import dot, sequence


@triton.jit
def open_sums(
    k_ptr,
    lr_ptr,
    G_ptr,
    start_ptr,
    length_ptr,
    phase_ptr,
    S_W_ptr,
    S_b_ptr,
    longest,
    H,
    K: tl.constexpr,
    D: tl.constexpr,
    K_PAD: tl.constexpr,
    D_PAD: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Of one head (axis 0) of a sequence (axis 1), what its open mini-batch has written; 0 where there is none.

        S_W = Xᵀ diag(ℓ) G        S_b = 1ᵀ diag(ℓ) G

    Shapes as in ``scan``; S_W ``[R, H, D, D]``, S_b ``[R, H, D]``.
    """
    head, row = tl.program_id(0), tl.program_id(1)
    start, length, phase = sequence(row, longest, start_ptr, length_ptr, phase_ptr)
    i, d = tl.arange(0, K_PAD), tl.arange(0, D_PAD)
    place = (phase + length) // K * K + i - phase
    valid, real = (i < K) & (place >= 0) & (place < length), d < D
    inside = valid[:, None] & real[None, :]
    token = (start + place).to(tl.int64) * H + head
    tile = token[:, None] * D + d[None, :]
    x = tl.load(k_ptr + tile, inside, 0.0)
    written = tl.load(lr_ptr + token, valid, 0.0).to(tl.float32)[:, None] * tl.load(G_ptr + tile, inside, 0.0).to(tl.float32)
    end = row.to(tl.int64) * H + head
    square = real[:, None] & real[None, :]
    tl.store(S_W_ptr + end * D * D + d[:, None] * D + d[None, :], dot(tl.trans(x), written, DOT, PRECISION), square)
    tl.store(S_b_ptr + end * D + d, tl.sum(written, 0), real)
