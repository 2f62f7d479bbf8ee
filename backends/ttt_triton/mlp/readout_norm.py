"""The parallel part of the backward pass that goes through the read-outs' norm, down to what the hidden columns are asked for."""

# pyright: reportGeneralTypeIssues=false
# Calls of jitted functions are typed as if they never returned.
from __future__ import annotations

import triton
import triton.language as tl

from ..linear.tiles import added, centre, dot, earlier, own, readers, rstd, summed
from .tiles import begun, gelu, rows


@triton.jit
def readout_norm(
    head,
    place,
    n,
    start,
    length,
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
    dy_ptr,
    dG2_ptr,
    dbs_ptr,
    dgamma_ptr,
    dbeta_ptr,
    dz2_ptr,
    along_ptr,
    sums_ptr,
    H,
    eps,
    K: tl.constexpr,
    D: tl.constexpr,
    E: tl.constexpr,
    R: tl.constexpr,
    K_PAD: tl.constexpr,
    D_PAD: tl.constexpr,
    E_PAD: tl.constexpr,
    C: tl.constexpr,
    STAGES: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Of one head of block n of a piece, what its read-outs ask of everything past the hidden columns.

    With A_l = M diag(ℓ) ⊙ (X̄_lX_lᵀ + 1), the letters of ``readout``, and ΔZ̄₂ the cotangent of Z̄₂ through LN:

        P₂ = ΔZ̄₂G₂ᵀ        ΔG₂ = −A₂ᵀΔZ̄₂        Δb₂ = 1ᵀΔZ̄₂

    Δγ and Δβ ``[blocks, H, D]``. For ``readout_backward``, ΔZ̄₂ ``[blocks, H, R, D_PAD]``, −A₁ and −M diag(ℓ) ⊙ P₂ ``[blocks, H, 2, R, R]``, and what
    P₂ adds to Δℓ and Δs, ``[blocks, H, R + K_PAD]``.
    """
    d, i, s = tl.arange(0, D_PAD)[None, :], tl.arange(0, R), tl.arange(0, K_PAD)
    real, inside, there = d < D, (i < R // K * K) & (n * (R // K * K) + i < length), begun(n, length, K, R)
    token = start.to(tl.int64) * H + head
    at = place.to(tl.int64) * H + head
    tile, line = i[:, None] * (H * D) + d, at * (R // K * K) * D + i[:, None] * D + d
    q = tl.load(q_ptr + token * D + tile, inside[:, None] & real, 0.0)
    k = tl.load(k_ptr + token * D + tile, inside[:, None] & real, 0.0)
    lr = tl.load(lr_ptr + token + i * H, inside, 0.0).to(tl.float32)
    last = tl.load(scale_ptr + K - 1)
    # Signs go with what is multiplied by, so that products can be added up where they are made.
    square = at * 2 * R * R + i[:, None] * R + i[None, :]
    A1 = (readers(scale_ptr, last, K, R) * -lr[None, :] * (dot(q, tl.trans(k), DOT, PRECISION) + 1)).to(DOT)
    tl.store(along_ptr + square, A1)

    # What the forward pass had.
    z = tl.zeros((R, D_PAD), tl.float32) + tl.load(bs_ptr + at * (E + D) + E + d, real, 0.0)
    similar = tl.zeros((R, R), tl.float32)
    for c in tl.range(0, E_PAD, C, num_stages=STAGES):
        e = c + tl.arange(0, C)
        W1, W2, b1 = rows(Ws_ptr, bs_ptr, at, e, d, D, E)
        lying, written = (at * E + e[:, None]) * (R // K * K) + i[None, :], (e < E)[:, None] & there[None, :]
        G1 = tl.load(G1_ptr + lying, written, 0.0)
        X2 = tl.load(X2_ptr + lying, written, 0.0)
        z1 = added(A1, tl.trans(G1), dot(q, tl.trans(W1), DOT, PRECISION) + b1[None, :], DOT, PRECISION)
        h = gelu(z1)[0].to(DOT)
        z = added(h, W2, z, DOT, PRECISION)
        similar = added(h, X2, similar, DOT, PRECISION)
    G2 = tl.load(G2_ptr + line, there[:, None] & real, 0.0)
    dy = tl.load(dy_ptr + token * D + tile, inside[:, None] & real, 0.0)
    gamma = tl.load(gamma_ptr + head * D + d, real, 0.0)
    factors = readers(scale_ptr, last, K, R) * -lr[None, :]
    similar += 1
    A2 = (factors * similar).to(DOT)
    z, _ = centre(added(A2, G2, z, DOT, PRECISION), real, D)
    r = rstd(z, D, eps)
    z *= r
    dy = dy.to(tl.float32)
    dz2, _ = centre(dy * gamma, real, D)
    dz2 = r * (dz2 - z * (tl.sum(dz2 * z, 1)[:, None] / D))
    across, top_row = tl.broadcast_to(d, (R, D_PAD)), (i == 0)[:, None] & real
    tl.store(dgamma_ptr + at * D + across, summed(dy * z, DOT, PRECISION), top_row)
    tl.store(dbeta_ptr + at * D + across, summed(dy, DOT, PRECISION), top_row)
    tl.store(dbs_ptr + at * (E + D) + E + across, summed(dz2, DOT, PRECISION), top_row)
    dz2 = dz2.to(DOT)
    dG2, _ = centre(dot(tl.trans(A2), dz2, DOT, PRECISION), real, D)
    tl.store(dG2_ptr + line, dG2, there[:, None] & real)
    pairs = dot(dz2, tl.trans(G2), DOT, PRECISION)
    tl.store(dz2_ptr + at * R * D_PAD + i[:, None] * D_PAD + d, dz2)
    tl.store(along_ptr + R * R + square, factors * pairs)
    pairs *= similar
    tl.store(sums_ptr + at * (R + K_PAD) + i, -tl.sum(readers(scale_ptr, last, K, R) * pairs, 0))
    pairs *= -lr[None, :]
    before = tl.sum(tl.where(earlier(K, R), pairs, 0.0), 1)
    mine = tl.sum(tl.where(own(K, R), pairs, 0.0), 1)
    mine = tl.sum(tl.where((i % K)[:, None] == s[None, :], mine[:, None], 0.0), 0)
    tl.store(sums_ptr + at * (R + K_PAD) + R + s, mine + tl.where(s == K - 1, tl.sum(before, 0), 0.0))
