"""The parallel part of the forward pass: all outputs, from the gradients and the weights at the blocks' starts."""

# pyright: reportGeneralTypeIssues=false
# Calls of jitted functions are typed as if they never returned.
from __future__ import annotations

import triton
import triton.language as tl

from .tiles import among_all, block_of, readout_rows, sequence, slots


@triton.jit(do_not_specialize=("begin", "part"))
def readout(
    q_ptr,
    k_ptr,
    lr_ptr,
    G_ptr,
    Ws_ptr,
    bs_ptr,
    opening_ptr,
    scale_ptr,
    gamma_ptr,
    beta_ptr,
    start_ptr,
    length_ptr,
    phase_ptr,
    first_ptr,
    row_ptr,
    y_ptr,
    longest,
    blocks,
    begin,
    part,
    H,
    eps,
    K: tl.constexpr,
    D: tl.constexpr,
    R: tl.constexpr,
    D_PAD: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program for a head (axis 0) of a block (axis 1) of a piece: y of its tokens.

    With M_ij the factor with which i reads j (docs/mathematics.md, equation 15):

        Z̄ = QW + b − (M diag(ℓ) ⊙ (QKᵀ + 1)) G        Y = Q + LN(Z̄)
    Shapes as in ``scan``; q, y ``[N, H, D]``.
    """
    head = tl.program_id(0)
    place = among_all(tl.program_id(1), blocks, begin, part, first_ptr)
    row, n = block_of(place, blocks, first_ptr, row_ptr)
    start, length, phase = sequence(row, longest, start_ptr, length_ptr, phase_ptr)
    if n >= tl.cdiv(phase + length, R // K * K):
        return
    d = tl.arange(0, D_PAD)
    real = (d < D)[None, :]
    square = (d < D)[:, None] & real
    matrix, vector = d[:, None] * D + d[None, :], d[None, :]
    i, valid = slots(n, length, phase, K, R)
    inside = valid[:, None] & real
    token = (start + n * (R // K * K) - phase).to(tl.int64) * H + head
    tile = i[:, None] * (H * D) + vector
    q = tl.load(q_ptr + token * D + tile, inside, 0.0)
    k = tl.load(k_ptr + token * D + tile, inside, 0.0)
    G = tl.load(G_ptr + token * D + tile, inside, 0.0)
    lr = tl.load(lr_ptr + token + i * H, valid, 0.0).to(tl.float32)
    written = (lr[:, None] * G.to(tl.float32)).to(DOT)
    at = place.to(tl.int64) * H + head
    W = tl.load(Ws_ptr + at * D * D + matrix, square, 0.0)
    b = tl.load(bs_ptr + at * D + vector, real, 0.0)

    last = tl.load(scale_ptr + K - 1)
    slot = row.to(tl.int64) * K * H * D + head * D
    opening = inside & (i < K)[:, None] & (n == 0)
    z, _ = readout_rows(q, k, written, W, b, scale_ptr, last, opening_ptr, slot + tile, opening, real, K, D, eps, DOT, PRECISION)
    gamma = tl.load(gamma_ptr + head * D + vector, real, 0.0)
    beta = tl.load(beta_ptr + head * D + vector, real, 0.0)
    y = q.to(tl.float32) + gamma * z + beta
    tl.store(y_ptr + token * D + tile, y, inside)
