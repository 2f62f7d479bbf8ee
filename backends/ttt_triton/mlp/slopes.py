"""The parallel part of the backward pass that comes first: the derivatives of all training rows, which ``reverse_scan`` multiplies by."""

# pyright: reportGeneralTypeIssues=false
# Calls of jitted functions are typed as if they never returned.
from __future__ import annotations

import triton
import triton.language as tl

from ..linear.reverse_scan import bend
from ..linear.tiles import added, centre, dot, earlier, rstd
from .tiles import begun, gelu_twice, rows


@triton.jit
def slopes(
    head,
    place,
    n,
    start,
    length,
    k_ptr,
    v_ptr,
    lr_ptr,
    X2_ptr,
    G1_ptr,
    G2_ptr,
    Ws_ptr,
    bs_ptr,
    scale_ptr,
    gamma_ptr,
    beta_ptr,
    slope_ptr,
    curve_ptr,
    normed_ptr,
    F_ptr,
    keys_ptr,
    numbers_ptr,
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
    """Of one head of block n of a piece, the derivatives of its training rows at the weights that each mini-batch starts from.

    With C_ij = s_{K−1} ℓ_j where j is of an earlier mini-batch than i, else 0 (docs/mathematics.md, equations 13 and 14):

        Z₁ = XW₁ + b₁ − (C ⊙ (XXᵀ + 1)) G₁        H̄ = G₂W₂ᵀ − (C ⊙ G₂G₂ᵀ) X₂        σ′ = σ′(Z₁), curve = H̄ ⊙ σ″(Z₁)
        Z₂ = X₂W₂ + b₂ − (C ⊙ (X₂X₂ᵀ + 1)) G₂        Ẑ, r of its norm, s₂ and F of the loss's second derivative (``linear.reverse_scan.bend``)

    σ′, curve ``[blocks, H, E, n]``, Ẑ, F ``[blocks, H, n, D]``, for n tokens in a block. For ``reverse_scan`` also X, 0 where there is no token
    (``keys``), and ``numbers`` ``[blocks, H, n, 4]``: r, s₂ and −s_{K−1} ℓ, 0 where the mini-batch is not whole.
    """
    d, i = tl.arange(0, D_PAD)[None, :], tl.arange(0, R)
    real, inside, there = d < D, (i < R // K * K) & (n * (R // K * K) + i < length), begun(n, length, K, R)
    token = start.to(tl.int64) * H + head
    at = place.to(tl.int64) * H + head
    tile, line = i[:, None] * (H * D) + d, at * (R // K * K) * D + i[:, None] * D + d
    x = tl.load(k_ptr + token * D + tile, inside[:, None] & real, 0.0)
    lr = tl.load(lr_ptr + token + i * H, inside, 0.0).to(tl.float32)
    G2 = tl.load(G2_ptr + line, there[:, None] & real, 0.0)
    C_ = tl.where(earlier(K, R), (tl.load(scale_ptr + K - 1) * lr)[None, :], 0.0)
    # Signs go with what is multiplied by, so that products can be added up where they are made.
    along1 = (-C_ * (dot(x, tl.trans(x), DOT, PRECISION) + 1)).to(DOT)
    along2 = (-C_ * dot(G2, tl.trans(G2), DOT, PRECISION)).to(DOT)

    z = tl.zeros((R, D_PAD), tl.float32)
    similar = tl.zeros((R, R), tl.float32)
    for c in tl.range(0, E_PAD, C, num_stages=STAGES):
        e = c + tl.arange(0, C)
        W1, W2, b1 = rows(Ws_ptr, bs_ptr, at, e, d, D, E)
        lying, written = (at * E + e[:, None]) * (R // K * K) + i[None, :], (e < E)[:, None] & there[None, :]
        G1 = tl.load(G1_ptr + lying, written, 0.0)
        X2 = tl.load(X2_ptr + lying, written, 0.0)
        z1 = added(along1, tl.trans(G1), dot(x, tl.trans(W1), DOT, PRECISION) + b1[None, :], DOT, PRECISION)
        dh = added(along2, tl.trans(X2), dot(G2, tl.trans(W2), DOT, PRECISION), DOT, PRECISION)
        z = added(tl.trans(X2), W2, z, DOT, PRECISION)
        similar = added(tl.trans(X2), X2, similar, DOT, PRECISION)
        _, slope, curve = gelu_twice(z1)
        tl.store(slope_ptr + lying, tl.trans(slope.to(DOT)), written)
        tl.store(curve_ptr + lying, tl.trans((curve * dh).to(DOT)), written)

    b2 = tl.load(bs_ptr + at * (E + D) + E + d, real, 0.0)
    gamma = tl.load(gamma_ptr + head * D + d, real, 0.0)
    beta = tl.load(beta_ptr + head * D + d, real, 0.0)
    v = tl.load(v_ptr + token * D + tile, inside[:, None] & real, 0.0)
    C_ = tl.where(earlier(K, R), (tl.load(scale_ptr + K - 1) * lr)[None, :], 0.0)
    z, _ = centre(z + b2 - dot(C_ * (similar + 1), G2, DOT, PRECISION), real, D)
    r = rstd(z, D, eps)
    target = v.to(tl.float32) - x.to(tl.float32)
    s2, F, _ = bend(z * r, gamma * (beta - target), gamma * gamma, r, real, D)
    tl.store(normed_ptr + line, z * r, there[:, None] & real)
    tl.store(F_ptr + line, F, there[:, None] & real)
    tl.store(keys_ptr + line, x, there[:, None] & real)
    numbers = numbers_ptr + (at * (R // K * K) + i) * 4
    tl.store(numbers[:, None], r, there[:, None])
    tl.store(numbers[:, None] + 1, s2, there[:, None])
    whole = (n * (R // K) + i // K + 1) * K <= length
    tl.store(numbers + 2, tl.where(whole, -tl.load(scale_ptr + K - 1) * lr, 0.0), there)
