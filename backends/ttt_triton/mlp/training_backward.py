"""The parallel part of the backward pass that comes last: from the training rows to k, v, ℓ, s and the norm's parameters."""

# pyright: reportGeneralTypeIssues=false
# Calls of jitted functions are typed as if they never returned.
from __future__ import annotations

import triton
import triton.language as tl

from ..linear.tiles import added, dot, earlier
from .tiles import begun, block_at, place_of


@triton.jit(do_not_specialize=("top", "blocks"))
def training_backward(
    k_ptr,
    v_ptr,
    lr_ptr,
    G1_ptr,
    Ws_ptr,
    scale_ptr,
    gamma_ptr,
    beta_ptr,
    start_ptr,
    length_ptr,
    first_ptr,
    row_ptr,
    normed_ptr,
    dz_ptr,
    p_ptr,
    gated_ptr,
    Ls_ptr,
    ls_ptr,
    dlr_read_ptr,
    dk_ptr,
    dv_ptr,
    dlr_ptr,
    dscale_ptr,
    dgamma_ptr,
    dbeta_ptr,
    top,
    longest,
    begin,
    blocks,
    H,
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
    """Of one head (axis 0) of a block (axis 1) of a piece, what its training rows ask of k, v, ℓ, s and the norm's parameters.

    With Λ₁, λ₁ the cotangents of W₁, b₁ at the block's end, P = G₁ΔZ₁ᵀ, N_ij = 1 where j is of a later mini-batch than i, f = −s_{K−1} in whole ones:

        ΔV = −γp        ΔK += γp + ΔZ₁W₁ᵀ + f diag(ℓ) (G₁Λ₁ᵀ + (N ⊙ P) X) + f (diag(ℓ) (N ⊙ P))ᵀ X
        g = rowsum(X ⊙ G₁Λ₁ᵀ) + G₁λ₁ + rowsum(N ⊙ P ⊙ (XXᵀ + 1)) + ``gated``        Δℓ += fg        Δs_{K−1} −= Σ ℓg over whole mini-batches
        Δγ += 1ᵀ(p ⊙ (2γẐ + β − V + K))        Δβ += 1ᵀ(γp)

    since W₁ at a mini-batch's start is that at the block's less s_{K−1} Xᵀ diag(ℓ) G₁ of earlier ones, and Λ₁ that at its end plus XᵀΔZ₁ of later.
    """
    head, place = tl.program_id(0), place_of(tl.program_id(1), blocks, first_ptr, False)
    n, start, length = block_at(place, top, longest, begin, blocks, start_ptr, length_ptr, first_ptr, row_ptr, K, R)
    if n >= tl.cdiv(length, R // K * K):
        return
    d, i = tl.arange(0, D_PAD)[None, :], tl.arange(0, R)
    real, inside, there = d < D, (i < R // K * K) & (n * (R // K * K) + i < length), begun(n, length, K, R)
    whole = inside & ((n * (R // K) + i // K + 1) * K <= length)
    token = start.to(tl.int64) * H + head
    at = place.to(tl.int64) * H + head
    tile, line = i[:, None] * (H * D) + d, at * (R // K * K) * D + i[:, None] * D + d

    # All but what the loop reads is loaded first, and so waited for once. What needs no products is done then, while registers are free.
    slot = at * (R // K * K) + i
    x = tl.load(k_ptr + token * D + tile, inside[:, None] & real, 0.0)
    v = tl.load(v_ptr + token * D + tile, inside[:, None] & real, 0.0)
    p = tl.load(p_ptr + line, inside[:, None] & real, 0.0)
    normed = tl.load(normed_ptr + line, inside[:, None] & real, 0.0)
    dk = tl.load(dk_ptr + token * D + tile, inside[:, None] & real, 0.0)
    lr = tl.load(lr_ptr + token + i * H, inside, 0.0).to(tl.float32)
    gated, dlr = tl.load(gated_ptr + slot, inside, 0.0), tl.load(dlr_read_ptr + slot, inside, 0.0)
    last, dscale = tl.load(scale_ptr + K - 1), tl.load(dscale_ptr + at * K + K - 1)
    dgamma, dbeta = tl.load(dgamma_ptr + at * D + d, real, 0.0), tl.load(dbeta_ptr + at * D + d, real, 0.0)
    gamma, beta = tl.load(gamma_ptr + head * D + d, real, 0.0), tl.load(beta_ptr + head * D + d, real, 0.0)
    p, dk = p.to(tl.float32), dk.to(tl.float32)
    error = 2 * gamma * normed.to(tl.float32) + beta - v.to(tl.float32) + x.to(tl.float32)
    tl.store(dv_ptr + token * D + tile, -gamma * p, inside[:, None] & real)
    tl.store(dgamma_ptr + at * D + d, dgamma + tl.sum(p * error, 0)[None, :], real)
    tl.store(dbeta_ptr + at * D + d, dbeta + tl.sum(gamma * p, 0)[None, :], real)
    dk += gamma * p

    pairs = tl.zeros((R, R), tl.float32)
    written = tl.zeros((R, D_PAD), tl.float32)
    for c in tl.range(0, E_PAD, C, num_stages=STAGES):
        e = c + tl.arange(0, C)
        both, upright = (e < E)[:, None] & real, e[:, None] * D + d
        lying, wide = (at * E + e[:, None]) * (R // K * K) + i[None, :], (e < E)[:, None] & there[None, :]
        G1 = tl.load(G1_ptr + lying, wide, 0.0)
        dz = tl.load(dz_ptr + lying, wide, 0.0)
        W1 = tl.load(Ws_ptr + at * 2 * D * E + upright, both, 0.0)
        L1 = tl.load(Ls_ptr + at * D * E + upright, both, 0.0)
        l1 = tl.load(ls_ptr + at * E + e, e < E, 0.0)
        pairs = added(tl.trans(G1), dz, pairs, DOT, PRECISION)
        dk = added(tl.trans(dz), W1, dk, DOT, PRECISION)
        written = added(tl.trans(G1), L1, written, DOT, PRECISION)
        gated += tl.sum(G1.to(tl.float32) * l1[:, None], 0)

    step = tl.where(whole, -last, 0.0)
    gated += tl.sum(x.to(tl.float32) * written, 1)
    if R // K > 1:
        pairs = tl.where(tl.trans(earlier(K, R)), pairs, 0.0)
        gated += tl.sum(pairs * (dot(x, tl.trans(x), DOT, PRECISION) + 1), 1)
        written += dot(pairs, x, DOT, PRECISION)
        dk += dot(tl.trans(pairs * (step * lr)[:, None]), x, DOT, PRECISION)
    tl.store(dlr_ptr + token + i * H, dlr + step * gated, inside)
    tl.store(dscale_ptr + at * K + K - 1, dscale - tl.sum(tl.where(whole, lr * gated, 0.0), 0))
    tl.store(dk_ptr + token * D + tile, dk + (step * lr)[:, None] * written, inside[:, None] & real)
