"""The parallel part of the forward pass: all outputs, from what the training rows wrote and the weights at the blocks' starts."""

# pyright: reportGeneralTypeIssues=false
# Calls of jitted functions are typed as if they never returned.
from __future__ import annotations

import triton
import triton.language as tl

from ..linear.tiles import added, centre, dot, readers, rstd
from .tiles import begun, block_at, gelu, place_of, rows


@triton.jit(do_not_specialize=("top", "blocks"))
def readout(
    q_ptr,
    k_ptr,
    lr_ptr,
    X2_ptr,
    G1_ptr,
    G2_ptr,
    Ws_ptr,
    bs_ptr,
    scale_ptr,
    gamma_ptr,
    beta_ptr,
    start_ptr,
    length_ptr,
    first_ptr,
    row_ptr,
    y_ptr,
    top,
    longest,
    begin,
    blocks,
    H,
    eps,
    K: tl.constexpr,
    D: tl.constexpr,
    E: tl.constexpr,
    R: tl.constexpr,
    D_PAD: tl.constexpr,
    E_PAD: tl.constexpr,
    C: tl.constexpr,
    STAGES: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program for a head (axis 0) of a block (axis 1) of a piece: y of its tokens.

    With M_ij the factor with which i reads j (docs/mathematics.md, equation 15), by C hidden columns at a time:

        Z̄₁ = QW₁ + b₁ − (M diag(ℓ) ⊙ (QXᵀ + 1)) G₁        X̄₂ = σ(Z̄₁)
        Z̄₂ = X̄₂W₂ + b₂ − (M diag(ℓ) ⊙ (X̄₂X₂ᵀ + 1)) G₂        Y = Q + LN(Z̄₂)

    Shapes as in ``scan``; q, y ``[N, H, D]``.
    """
    head, place = tl.program_id(0), place_of(tl.program_id(1), blocks, first_ptr, True)
    n, start, length = block_at(place, top, longest, begin, blocks, start_ptr, length_ptr, first_ptr, row_ptr, K, R)
    if n >= tl.cdiv(length, R // K * K):
        return
    d, i = tl.arange(0, D_PAD)[None, :], tl.arange(0, R)
    real, inside = d < D, (i < R // K * K) & (n * (R // K * K) + i < length)
    both = inside[:, None] & real
    token = start.to(tl.int64) * H + head
    at = place.to(tl.int64) * H + head
    tile = i[:, None] * (H * D) + d
    q = tl.load(q_ptr + token * D + tile, both, 0.0)
    k = tl.load(k_ptr + token * D + tile, both, 0.0)
    lr = tl.load(lr_ptr + token + i * H, inside, 0.0).to(tl.float32)
    # Signs go with what is multiplied by, so that products can be added up where they are made.
    factors = readers(scale_ptr, tl.load(scale_ptr + K - 1), K, R) * -lr[None, :]
    read = (factors * (dot(q, tl.trans(k), DOT, PRECISION) + 1)).to(DOT)

    z = tl.zeros((R, D_PAD), tl.float32)
    similar = tl.zeros((R, R), tl.float32)
    for c in tl.range(0, E_PAD, C, num_stages=STAGES):
        e = c + tl.arange(0, C)
        W1, W2, b1 = rows(Ws_ptr, bs_ptr, at, e, d, D, E)
        lying = (at * E + e[:, None]) * (R // K * K) + i[None, :]
        written = (e < E)[:, None] & begun(n, length, K, R)[None, :]
        G1 = tl.load(G1_ptr + lying, written, 0.0)
        X2 = tl.load(X2_ptr + lying, written, 0.0)
        h = gelu(added(read, tl.trans(G1), dot(q, tl.trans(W1), DOT, PRECISION) + b1[None, :], DOT, PRECISION))[0].to(DOT)
        z = added(h, W2, z, DOT, PRECISION)
        similar = added(h, X2, similar, DOT, PRECISION)
    G2 = tl.load(G2_ptr + at * (R // K * K) * D + i[:, None] * D + d, both, 0.0)
    b2 = tl.load(bs_ptr + at * (E + D) + E + d, real, 0.0)
    gamma = tl.load(gamma_ptr + head * D + d, real, 0.0)
    beta = tl.load(beta_ptr + head * D + d, real, 0.0)
    factors = readers(scale_ptr, tl.load(scale_ptr + K - 1), K, R) * -lr[None, :]
    z, _ = centre(added(factors * (similar + 1), G2, z + b2, DOT, PRECISION), real, D)
    tl.store(y_ptr + token * D + tile, q.to(tl.float32) + gamma * (z * rstd(z, D, eps)) + beta, both)
