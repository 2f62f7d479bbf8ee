"""The parallel part of the backward pass that goes through the read-outs, down to what ``reverse_scan`` needs of them."""

# pyright: reportGeneralTypeIssues=false
# Calls of jitted functions are typed as if they never returned.
from __future__ import annotations

import triton
import triton.language as tl

from ..linear.tiles import added, dot
from .tiles import begun, block_at, gelu, place_of, rows


@triton.jit(do_not_specialize=("top", "blocks"))
def readout_backward(
    q_ptr,
    k_ptr,
    lr_ptr,
    X2_ptr,
    G1_ptr,
    Ws_ptr,
    bs_ptr,
    scale_ptr,
    start_ptr,
    length_ptr,
    first_ptr,
    row_ptr,
    dy_ptr,
    dz2_ptr,
    along_ptr,
    sums_ptr,
    dq_ptr,
    dk_ptr,
    dlr_ptr,
    dX2_ptr,
    dG1_ptr,
    dWs_ptr,
    dbs_ptr,
    dscale_ptr,
    top,
    longest,
    begin,
    blocks,
    H,
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
    """Of one head (axis 0) of a block (axis 1) of a piece, what its read-outs ask of everything else they read, after ``readout_norm``.

    With the letters there:

        P₁ = ΔZ̄₁G₁ᵀ        ΔX̄_l = ΔZ̄_lW_lᵀ − (M diag(ℓ) ⊙ P_l) X_l        ΔZ̄₁ = ΔX̄₂ ⊙ σ′(Z̄₁)        ΔQ = ΔY + ΔX̄₁
        ΔG₁ = −A₁ᵀΔZ̄₁        ΔX_l = −(M diag(ℓ) ⊙ P_l)ᵀ X̄_l        ΔW_l = X̄_lᵀΔZ̄_l        Δb₁ = 1ᵀΔZ̄₁

    ΔX₁ goes to ΔK, which the training rows add to, and likewise this block's part of Δℓ (float32, ``[blocks, H, n]``) and Δs
    ``[blocks, H, K]``. Shapes of cotangents are those of ``scan``.
    """
    head, place = tl.program_id(0), place_of(tl.program_id(1), blocks, first_ptr, False)
    n, start, length = block_at(place, top, longest, begin, blocks, start_ptr, length_ptr, first_ptr, row_ptr, K, R)
    if n >= tl.cdiv(length, R // K * K):
        return
    d, i, s = tl.arange(0, D_PAD)[None, :], tl.arange(0, R), tl.arange(0, K_PAD)
    real, inside, there = d < D, (i < R // K * K) & (n * (R // K * K) + i < length), begun(n, length, K, R)
    token = start.to(tl.int64) * H + head
    at = place.to(tl.int64) * H + head
    tile, square = i[:, None] * (H * D) + d, at * 2 * R * R + i[:, None] * R + i[None, :]
    q = tl.load(q_ptr + token * D + tile, inside[:, None] & real, 0.0)
    A1, along2 = tl.load(along_ptr + square), tl.load(along_ptr + R * R + square)
    dz2 = tl.load(dz2_ptr + at * R * D_PAD + i[:, None] * D_PAD + d)

    # [D, R] and [j, i].
    dq = tl.zeros((D_PAD, R), tl.float32)
    pairs = tl.zeros((R, R), tl.float32)
    for c in tl.range(0, E_PAD, C, num_stages=STAGES):
        e = c + tl.arange(0, C)
        W1, W2, b1 = rows(Ws_ptr, bs_ptr, at, e, d, D, E)
        upright, both = at * 2 * D * E + e[:, None] * D + d, (e < E)[:, None] & real
        lying, written = (at * E + e[:, None]) * (R // K * K) + i[None, :], (e < E)[:, None] & there[None, :]
        G1 = tl.load(G1_ptr + lying, written, 0.0)
        X2 = tl.load(X2_ptr + lying, written, 0.0)
        dz1 = added(X2, tl.trans(along2), dot(W2, tl.trans(dz2), DOT, PRECISION), DOT, PRECISION)
        z1 = added(G1, tl.trans(A1), dot(W1, tl.trans(q), DOT, PRECISION) + b1[:, None], DOT, PRECISION)
        h, slope = gelu(z1)
        dz1 *= slope
        h = h.to(DOT)
        tl.store(dbs_ptr + at * (E + D) + e, tl.sum(dz1, 1), e < E)
        dz1 = dz1.to(DOT)
        tl.store(dWs_ptr + D * E + upright, dot(h, dz2, DOT, PRECISION), both)
        tl.store(dX2_ptr + lying, dot(h, along2, DOT, PRECISION), written)
        tl.store(dWs_ptr + upright, dot(dz1, q, DOT, PRECISION), both)
        tl.store(dG1_ptr + lying, dot(dz1, A1, DOT, PRECISION), written)
        dq = added(tl.trans(W1), dz1, dq, DOT, PRECISION)
        pairs = added(tl.trans(G1), dz1, pairs, DOT, PRECISION)

    k = tl.load(k_ptr + token * D + tile, inside[:, None] & real, 0.0)
    lr = tl.load(lr_ptr + token + i * H, inside, 0.0).to(tl.float32)
    ahead, mine = (i[:, None] // K) < (i[None, :] // K), (i[:, None] // K == i[None, :] // K) & (i[:, None] <= i[None, :])
    factors = tl.where(ahead, tl.load(scale_ptr + K - 1), tl.where(mine, tl.load(scale_ptr + i % K)[None, :], 0.0))
    along1 = (factors * -lr[:, None] * pairs).to(DOT)
    dk = dot(along1, q, DOT, PRECISION)
    tl.store(dk_ptr + token * D + tile, dk, inside[:, None] & real)
    dq = tl.trans(added(tl.trans(k), along1, dq, DOT, PRECISION))
    dq += tl.load(dy_ptr + token * D + tile, inside[:, None] & real, 0.0).to(tl.float32)
    tl.store(dq_ptr + token * D + tile, dq, inside[:, None] & real)
    pairs *= dot(k, tl.trans(q), DOT, PRECISION) + 1
    sums = sums_ptr + at * (R + K_PAD)
    tl.store(dlr_ptr + at * (R // K * K) + i, tl.load(sums + i) - tl.sum(factors * pairs, 1), i < R // K * K)
    pairs *= -lr[:, None]
    before = tl.sum(tl.where(ahead, pairs, 0.0), 0)
    own = tl.sum(tl.where(mine, pairs, 0.0), 0)
    own = tl.sum(tl.where((i % K)[:, None] == s[None, :], own[:, None], 0.0), 0)
    own += tl.load(sums + R + s)
    tl.store(dscale_ptr + at * K + s, own + tl.where(s == K - 1, tl.sum(before, 0), 0.0), s < K)
