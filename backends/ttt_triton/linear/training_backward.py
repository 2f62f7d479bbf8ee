"""The parallel part of the backward pass that comes last: from the training rows to k, v and the norm's parameters."""

# pyright: reportGeneralTypeIssues=false
# Calls of jitted functions are typed as if they never returned.
from __future__ import annotations

import triton
import triton.language as tl

from .tiles import added, among_all, block_of, centre, dot, earlier, sequence, slots, writers


@triton.jit(do_not_specialize=("begin", "part"))
def training_backward(
    k_ptr,
    v_ptr,
    lr_ptr,
    G_ptr,
    Ws_ptr,
    scale_ptr,
    gamma_ptr,
    beta_ptr,
    start_ptr,
    length_ptr,
    phase_ptr,
    first_ptr,
    row_ptr,
    normed_ptr,
    rstd_ptr,
    w_ptr,
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
    K: tl.constexpr,
    D: tl.constexpr,
    R: tl.constexpr,
    D_PAD: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Of one head (axis 0) of a block (axis 1) of a piece, what its training rows ask of k, v and the norm's parameters.

    With w = diag(ℓ) ΔG, Ẑ and r from the kernels before, Λ, λ the cotangents of W, b at the block's end, N as in ``earlier``:

        ΔZ = ∂²L/∂z² w        p = r (w − ẑ mean(ẑw)), that of the scaled error e        P = N diag(ℓ) ⊙ ΔZGᵀ
        ΔV = −γp        ΔK += γp + ΔZ Wᵀ − s_{K−1} (PK + PᵀK + diag(ℓ) GΛᵀ)
        Δγ += 1ᵀ(p ⊙ (2γẐ + β − V + K))        Δβ += 1ᵀ(γp)        Δs_{K−1} −= Σ ℓ ⊙ (KΛ + λ) ⊙ G + Σ P ⊙ (KKᵀ + 1)

    where diag(ℓ) is 0 before Λ, λ for rows of mini-batches that are not whole. Δs ``[blocks, H, K]``, Δγ and Δβ ``[blocks, H, D]`` hold this block's
    parts, those of the read-outs already. w, Λ and λ are of this piece, as ``readout_backward`` left ΔG, ΔW and Δb.
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
    at, spot = place.to(tl.int64) * H + head, tl.program_id(1).to(tl.int64)
    here, there = spot * (R // K * K) * H + head, spot * H + head
    k = tl.load(k_ptr + token * D + tile, inside, 0.0)
    G = tl.load(G_ptr + token * D + tile, inside, 0.0)
    W = tl.load(Ws_ptr + at * D * D + matrix, square, 0.0)
    dW = tl.load(dWs_ptr + there * D * D + matrix, square, 0.0)
    db = tl.load(dbs_ptr + there * D + vector, real & (n < count), 0.0)
    lr = tl.load(lr_ptr + token + i * H, valid, 0.0).to(tl.float32)
    rates = tl.where(writers(n, length, phase, i, K, R), lr, 0.0)
    dscale = rates * tl.sum(G.to(tl.float32) * (dot(k, dW, DOT, PRECISION) + db), 1)

    bent = k.to(tl.float32) - tl.load(v_ptr + token * D + tile, inside, 0.0).to(tl.float32)
    normed = tl.load(normed_ptr + token * D + tile, inside, 0.0).to(tl.float32)
    w = tl.load(w_ptr + here * D + tile, inside, 0.0).to(tl.float32)
    r = tl.load(rstd_ptr + token + i[:, None] * H, valid[:, None], 1.0)
    gamma = tl.load(gamma_ptr + head * D + vector, real, 0.0)
    bent += 2 * gamma * normed + tl.load(beta_ptr + head * D + vector, real, 0.0)

    # As ``second_derivative`` in ``reverse_scan``, but the mean of a row of ΔZ is left in: neither W nor G, centred as they are, sees it.
    curved, _ = centre(gamma * bent, real, D)
    a, f = tl.sum(normed * w, 1)[:, None] / D, tl.sum(curved * w, 1)[:, None] / D
    m, s2 = tl.sum(curved * normed, 1)[:, None] / D, tl.sum((curved - gamma * gamma * normed) * normed, 1)[:, None] / D
    dz = r * r * ((gamma * gamma - s2) * w - a * curved + ((2 * s2 + m) * a - f) * normed)
    p = r * (w - a * normed)
    dgamma = tl.load(dgamma_ptr + at * D + vector, real, 0.0) + tl.sum(p * bent, 0)[None, :]
    tl.store(dgamma_ptr + at * D + vector, dgamma, real)
    p *= gamma
    tl.store(dbeta_ptr + at * D + vector, tl.load(dbeta_ptr + at * D + vector, real, 0.0) + tl.sum(p, 0)[None, :], real)
    tl.store(dv_ptr + token * D + tile, -p, inside)
    p = p.to(DOT)
    through = dz
    if dopening_ptr is not None:
        slot = row.to(tl.int64) * K * H * D + head * D
        opening = inside & (i < K)[:, None] & (n == 0)
        tl.store(dopening_ptr + slot + tile, dz, opening)
        through = tl.where(opening, 0.0, dz)
    through, dz = through.to(DOT), dz.to(DOT)

    dk = rates[:, None] * dot(G, tl.trans(dW), DOT, PRECISION)
    if R // K > 1:
        pairs = tl.where(earlier(K, R), lr[None, :], 0.0) * dot(dz, tl.trans(G), DOT, PRECISION)
        dscale += tl.sum(pairs * (dot(k, tl.trans(k), DOT, PRECISION) + 1), 1)
        dk = added(pairs, k, dk, DOT, PRECISION)
        # Its transpose is a product, too: to turn it round would take shared memory and two barriers.
        pairs = tl.where(tl.trans(earlier(K, R)), lr[:, None], 0.0) * dot(G, tl.trans(dz), DOT, PRECISION)
        dk = added(pairs, k, dk, DOT, PRECISION)
    last = tl.load(scale_ptr + K - 1)
    tl.store(dscale_ptr + at * K + K - 1, tl.load(dscale_ptr + at * K + K - 1) - tl.sum(dscale))
    dk = added(through, tl.trans(W), -last * dk, DOT, PRECISION)
    tl.store(dk_ptr + token * D + tile, dk + p.to(tl.float32) + tl.load(dk_ptr + token * D + tile, inside, 0.0).to(tl.float32), inside)
