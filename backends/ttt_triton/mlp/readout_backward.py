"""The parallel part of the backward pass that goes through the read-outs, down to what ``reverse_scan`` needs of them."""

# pyright: reportGeneralTypeIssues=false
# Calls of jitted functions are typed as if they never returned.
from __future__ import annotations

import triton
import triton.language as tl

from ..linear.tiles import centre, dot, earlier, readers, rstd
from .tiles import begun, block_at, gelu, rows


@triton.jit(do_not_specialize=("top", "longest", "begin", "blocks"))
def readout_backward(
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
    start_ptr,
    length_ptr,
    first_ptr,
    row_ptr,
    dy_ptr,
    dq_ptr,
    dk_ptr,
    dlr_ptr,
    dX2_ptr,
    dG1_ptr,
    dG2_ptr,
    dWs_ptr,
    dbs_ptr,
    dscale_ptr,
    dgamma_ptr,
    dbeta_ptr,
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
    K_PAD: tl.constexpr,
    D_PAD: tl.constexpr,
    E_PAD: tl.constexpr,
    C: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Of one head (axis 0) of a block (axis 1) of a piece, what its read-outs ask of everything they read.

    With A_l = M diag(ℓ) ⊙ (X̄_lX_lᵀ + 1), the letters of ``readout``, and ΔZ̄₂ the cotangent of Z̄₂ through LN:

        P_l = ΔZ̄_lG_lᵀ        ΔX̄_l = ΔZ̄_lW_lᵀ − (M diag(ℓ) ⊙ P_l) X_l        ΔZ̄₁ = ΔX̄₂ ⊙ σ′(Z̄₁)        ΔQ = ΔY + ΔX̄₁
        ΔG_l = −A_lᵀΔZ̄_l        ΔX_l = −(M diag(ℓ) ⊙ P_l)ᵀ X̄_l        ΔW_l = X̄_lᵀΔZ̄_l        Δb_l = 1ᵀΔZ̄_l

    ΔX₁ goes to ΔK, which the training rows add to, and likewise this block's part of Δℓ (float32, ``[blocks, H, n]``), Δs ``[blocks, H, K]``, Δγ
    and Δβ ``[blocks, H, D]``. Shapes of cotangents are those of ``scan``.
    """
    head, place = tl.program_id(0), tl.program_id(1)
    n, start, length = block_at(place, top, longest, begin, blocks, start_ptr, length_ptr, first_ptr, row_ptr, K, R)
    if n >= tl.cdiv(length, R // K * K):
        return
    d, i, s = tl.arange(0, D_PAD)[None, :], tl.arange(0, R), tl.arange(0, K_PAD)
    real, inside, there = d < D, (i < R // K * K) & (n * (R // K * K) + i < length), begun(n, length, K, R)
    token = start.to(tl.int64) * H + head
    at = place.to(tl.int64) * H + head
    tile, line = i[:, None] * (H * D) + d, at * (R // K * K) * D + i[:, None] * D + d
    q = tl.load(q_ptr + token * D + tile, inside[:, None] & real, 0.0)
    k = tl.load(k_ptr + token * D + tile, inside[:, None] & real, 0.0)
    lr = tl.load(lr_ptr + token + i * H, inside, 0.0).to(tl.float32)
    last = tl.load(scale_ptr + K - 1)
    A1 = (readers(scale_ptr, last, K, R) * lr[None, :] * (dot(q, tl.trans(k), DOT, PRECISION) + 1)).to(DOT)

    # What the forward pass had.
    z = tl.zeros((R, D_PAD), tl.float32)
    similar = tl.zeros((R, R), tl.float32)
    for c in tl.range(0, E_PAD, C, num_stages=1):
        e = c + tl.arange(0, C)
        W1, W2, b1 = rows(Ws_ptr, bs_ptr, at, e, d, D, E)
        lying, written = (at * E + e[:, None]) * (R // K * K) + i[None, :], (e < E)[:, None] & there[None, :]
        G1 = tl.load(G1_ptr + lying, written, 0.0)
        h = gelu(dot(q, tl.trans(W1), DOT, PRECISION) + b1[None, :] - dot(A1, tl.trans(G1), DOT, PRECISION))[0].to(DOT)
        X2 = tl.load(X2_ptr + lying, written, 0.0)
        z = tl.dot(h, W2.to(DOT), z, input_precision=PRECISION)
        similar = tl.dot(h, X2.to(DOT), similar, input_precision=PRECISION)
    G2 = tl.load(G2_ptr + line, there[:, None] & real, 0.0)
    b2 = tl.load(bs_ptr + at * (E + D) + E + d, real, 0.0)
    factors = readers(scale_ptr, last, K, R) * lr[None, :]
    A2 = (factors * (similar + 1)).to(DOT)
    z, _ = centre(z + b2 - dot(A2, G2, DOT, PRECISION), real, D)
    r = rstd(z, D, eps)
    z *= r
    dy = tl.load(dy_ptr + token * D + tile, inside[:, None] & real, 0.0).to(tl.float32)
    gamma = tl.load(gamma_ptr + head * D + d, real, 0.0)
    tl.store(dgamma_ptr + at * D + d, tl.sum(dy * z, 0)[None, :], real)
    tl.store(dbeta_ptr + at * D + d, tl.sum(dy, 0)[None, :], real)
    dz2, _ = centre(dy * gamma, real, D)
    dz2 = r * (dz2 - z * (tl.sum(dz2 * z, 1)[:, None] / D))
    tl.store(dbs_ptr + at * (E + D) + E + d, tl.sum(dz2, 0)[None, :], real)
    dz2 = dz2.to(DOT)
    dG2, _ = centre(-dot(tl.trans(A2), dz2, DOT, PRECISION), real, D)
    tl.store(dG2_ptr + line, dG2, there[:, None] & real)
    pairs2 = dot(dz2, tl.trans(G2), DOT, PRECISION)
    along2 = (factors * pairs2).to(DOT)
    pairs2 *= similar + 1

    dq = tl.zeros((D_PAD, R), tl.float32)
    pairs1 = tl.zeros((R, R), tl.float32)
    for c in tl.range(0, E_PAD, C, num_stages=1):
        e = c + tl.arange(0, C)
        W1, W2, b1 = rows(Ws_ptr, bs_ptr, at, e, d, D, E)
        upright, both = at * 2 * D * E + e[:, None] * D + d, (e < E)[:, None] & real
        lying, written = (at * E + e[:, None]) * (R // K * K) + i[None, :], (e < E)[:, None] & there[None, :]
        G1 = tl.load(G1_ptr + lying, written, 0.0)
        X2 = tl.load(X2_ptr + lying, written, 0.0)
        h, slope = gelu(dot(W1, tl.trans(q), DOT, PRECISION) + b1[:, None] - dot(G1, tl.trans(A1), DOT, PRECISION))
        h = h.to(DOT)
        tl.store(dWs_ptr + D * E + upright, dot(h, dz2, DOT, PRECISION), both)
        tl.store(dX2_ptr + lying, -dot(h, along2, DOT, PRECISION), written)
        dz1 = slope * (dot(W2, tl.trans(dz2), DOT, PRECISION) - dot(X2, tl.trans(along2), DOT, PRECISION))
        tl.store(dbs_ptr + at * (E + D) + e, tl.sum(dz1, 1), e < E)
        dz1 = dz1.to(DOT)
        tl.store(dWs_ptr + upright, dot(dz1, q, DOT, PRECISION), both)
        tl.store(dG1_ptr + lying, -dot(dz1, A1, DOT, PRECISION), written)
        dq = tl.dot(tl.trans(W1).to(DOT), dz1, dq, input_precision=PRECISION)
        pairs1 = tl.dot(tl.trans(G1).to(DOT), dz1, pairs1, input_precision=PRECISION)

    pairs1 = tl.trans(pairs1)
    factors = readers(scale_ptr, last, K, R)
    along1 = factors * lr[None, :] * pairs1
    dq = tl.trans(dq) + tl.load(dy_ptr + token * D + tile, inside[:, None] & real, 0.0).to(tl.float32) - dot(along1, k, DOT, PRECISION)
    tl.store(dq_ptr + token * D + tile, dq, inside[:, None] & real)
    tl.store(dk_ptr + token * D + tile, -dot(tl.trans(along1), q, DOT, PRECISION), inside[:, None] & real)
    pairs = pairs2 + pairs1 * (dot(q, tl.trans(k), DOT, PRECISION) + 1)
    tl.store(dlr_ptr + at * (R // K * K) + i, -tl.sum(factors * pairs, 0), i < R // K * K)
    dM = -lr[None, :] * pairs
    dscale = tl.sum(tl.where(earlier(K, R), dM, 0.0))
    own = tl.sum(tl.where((i[None, :] // K == i[:, None] // K) & (i[None, :] <= i[:, None]), dM, 0.0), 1)
    own = tl.sum(tl.where((i % K)[:, None] == s[None, :], own[:, None], 0.0), 0)
    tl.store(dscale_ptr + at * K + s, own + tl.where(s == K - 1, dscale, 0.0), s < K)
