"""The parallel part of the backward pass that comes last: from the training rows to k, v and the norm's parameters."""

# pyright: reportGeneralTypeIssues=false
# Calls of jitted functions are typed as if they never returned.
from __future__ import annotations

import triton
import triton.language as tl

from .tiles import added, among_all, block_of, corrections, dot, earlier, sequence, slots, training_rows, writers


@triton.jit(do_not_specialize=("begin", "part"))
def training_backward(
    k_ptr,
    v_ptr,
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
    dz_ptr,
    p_ptr,
    dWs_ptr,
    dbs_ptr,
    dk_ptr,
    dv_ptr,
    dopening_ptr,
    dscale_ptr,
    dgamma_ptr,
    dbeta_ptr,
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
    """Of one head (axis 0) of a block (axis 1) of a piece, what its training rows ask of k, v and the norm's parameters.

    With Λ, λ the cotangents of W, b at the block's end, p that of the scaled error e, C as in ``scan``, A as in ``corrections``, Ẑ as in
    ``training_rows``:

        ΔV = −γp        ΔK += γp + ΔZ Wᵀ − s_{K−1} (P K + Pᵀ K + diag(ℓ) GΛᵀ)        P = C / s_{K−1} ⊙ ΔZGᵀ
        Δγ += 1ᵀ(p ⊙ (2γẐ + β − V + K))        Δβ += 1ᵀ(γp)        Δs_{K−1} −= Σ ℓ ⊙ (KΛ + λ) ⊙ G + Σ ΔZ ⊙ A

    where diag(ℓ) is 0 for rows of mini-batches that are not whole. Ẑ is computed once more: p is where it was. Loads and products are in an order in
    which few of them are in registers at once. Δs ``[blocks, H, K]``, Δγ and Δβ ``[blocks, H, D]`` hold this block's parts, those of the read-outs
    already.
    """
    head = tl.program_id(0)
    place = among_all(tl.program_id(1), blocks, begin, part, first_ptr)
    row, n = block_of(place, blocks, first_ptr, row_ptr)
    start, length, phase = sequence(row, longest, start_ptr, length_ptr, phase_ptr)
    count = tl.cdiv(phase + length, R // K * K)
    d = tl.arange(0, D_PAD)
    real = (d < D)[None, :]
    square = (d < D)[:, None] & real & (n < count)
    matrix, vector = d[:, None] * D + d[None, :], d[None, :]
    i, valid = slots(n, length, phase, K, R)
    inside = valid[:, None] & real
    token = (start + n * (R // K * K) - phase).to(tl.int64) * H + head
    tile = i[:, None] * (H * D) + vector
    at = place.to(tl.int64) * H + head
    k = tl.load(k_ptr + token * D + tile, inside, 0.0)
    G = tl.load(G_ptr + token * D + tile, inside, 0.0)
    dz = tl.load(dz_ptr + token * D + tile, inside, 0.0)
    W = tl.load(Ws_ptr + at * D * D + matrix, square, 0.0)
    dW = tl.load(dWs_ptr + at * D * D + matrix, square, 0.0)
    lr = tl.load(lr_ptr + token + i * H, valid, 0.0).to(tl.float32)
    last = tl.load(scale_ptr + K - 1)
    rates = tl.where(writers(n, length, phase, i, K, R), lr, 0.0)
    db = tl.load(dbs_ptr + at * D + vector, real & (n < count), 0.0)
    dscale = rates * tl.sum(G.to(tl.float32) * (dot(k, dW, DOT, PRECISION) + db), 1)
    A = corrections(k, G, lr[None, :], K, R, DOT, PRECISION)
    dscale += tl.sum(dz.to(tl.float32) * A, 1)
    tl.store(dscale_ptr + at * K + K - 1, tl.load(dscale_ptr + at * K + K - 1) - tl.sum(dscale))
    b = tl.load(bs_ptr + at * D + vector, real & (n < count), 0.0)
    slot = row.to(tl.int64) * K * H * D + head * D
    opening = inside & (i < K)[:, None] & (n == 0)
    normed, _ = training_rows(k, W, b - last * A, opening_ptr, slot + tile, opening, real, D, eps, DOT, PRECISION)
    gamma = tl.load(gamma_ptr + head * D + vector, real, 0.0)
    beta = tl.load(beta_ptr + head * D + vector, real, 0.0)
    p = tl.load(p_ptr + token * D + tile, inside, 0.0)
    target = tl.load(v_ptr + token * D + tile, inside, 0.0).to(tl.float32) - k.to(tl.float32)
    tl.store(dv_ptr + token * D + tile, -gamma * p.to(tl.float32), inside)
    dgamma = tl.load(dgamma_ptr + at * D + vector, real, 0.0) + tl.sum(p.to(tl.float32) * (beta - target), 0)[None, :]
    tl.store(dbeta_ptr + at * D + vector, tl.load(dbeta_ptr + at * D + vector, real, 0.0) + gamma * tl.sum(p.to(tl.float32), 0)[None, :], real)
    dgamma += 2 * gamma * tl.sum(p.to(tl.float32) * normed, 0)[None, :]
    tl.store(dgamma_ptr + at * D + vector, dgamma, real)

    dk = rates[:, None] * dot(G, tl.trans(dW), DOT, PRECISION)
    if R // K > 1:
        pairs = (tl.where(earlier(K, R), lr[None, :], 0.0) * dot(dz, tl.trans(G), DOT, PRECISION)).to(DOT)
        dk = added(pairs, k, dk, DOT, PRECISION)
        dk = added(tl.trans(pairs), k, dk, DOT, PRECISION)
    through = dz
    if dopening_ptr is not None:
        tl.store(dopening_ptr + slot + tile, dz, opening)
        through = tl.where(opening, 0.0, dz.to(tl.float32)).to(dz.dtype)
    dk = added(through, tl.trans(W), -last * dk, DOT, PRECISION)
    dk += tl.load(dk_ptr + token * D + tile, inside, 0.0).to(tl.float32) + gamma * p.to(tl.float32)
    tl.store(dk_ptr + token * D + tile, dk, inside)
