"""The sequential part of the backward pass: cotangents of the weights from the last block to the first, and of every training row."""

# pyright: reportGeneralTypeIssues=false
# Calls of jitted functions are typed as if they never returned.
from __future__ import annotations

import triton
import triton.language as tl

from .tiles import added, centre, columns, dot, earlier, sequence, slots, summed, writers


@triton.jit
def bend(normed, u, square, r, real, D: tl.constexpr):
    """(s₂, F, m) of the loss's second derivative at rows ẑ, for ``second_derivative``.

    e = γ²ẑ + u, c = γ²ẑ + e, s₂ = mean(eẑ), m = mean(cẑ), F = r² (c − mean c − (s₂ + m/2) ẑ).
    """
    bent = square * normed
    s2 = tl.sum((bent + u) * normed, 1)[:, None] / D
    curved = 2 * bent + u
    m = tl.sum(curved * normed, 1)[:, None] / D
    F = r * r * (curved - tl.sum(curved, 1)[:, None] / D - (s2 + m / 2) * normed)
    return s2, columns(F, real, D), m


@triton.jit
def second_derivative(dG, normed, F, s2, square, r, real, D: tl.constexpr):
    """ΔZ = (∂²L/∂z²) ΔG for ΔG whose rows sum to zero: a diagonal, symmetric terms of rank two, and no mean (docs/kernels.md).

    ΔZ = qΔG − mean(qΔG) − F mean(ẑΔG) − ẑ mean(FΔG) with q = r² (γ² − s₂).
    """
    straight = r * r * (square - s2) * dG
    a, f = tl.sum(normed * dG, 1)[:, None] / D, tl.sum(F * dG, 1)[:, None] / D
    return columns(straight - tl.sum(straight, 1)[:, None] / D - F * a - normed * f, real, D)


@triton.jit(do_not_specialize=("begin", "part"))
def reverse_scan(
    k_ptr,
    v_ptr,
    lr_ptr,
    scale_ptr,
    gamma_ptr,
    beta_ptr,
    start_ptr,
    length_ptr,
    phase_ptr,
    first_ptr,
    dG_ptr,
    normed_ptr,
    rstd_ptr,
    dWs_ptr,
    dbs_ptr,
    ls_ptr,
    dW_end_ptr,
    db_end_ptr,
    w_ptr,
    dlr_ptr,
    dW_ptr,
    db_ptr,
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
    OPENING: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Of one head (axis 0) of a sequence (axis 1), the cotangents of its training rows and of the weights, from the last block to the first.

    With Λ, λ the cotangents of W, b at a block's end, and N_ij = 1 where j is of a later mini-batch than i, else 0:

        ΔG ← diag(ℓ) (ΔG − s_{K−1} (XΛ + λ + (N ⊙ (XXᵀ + 1)) ΔZ))       ΔZ = ∂²L/∂z² ΔG
        Λ ← Λ + ΔW + XᵀΔZ        λ ← λ + Δb + 1ᵀΔZ        Δℓ = rowsum(G ⊙ ΔG / ℓ)

    where ΔG, ΔW, Δb come from the read-outs; XΛ and λ only reach rows of whole mini-batches. N is strictly triangular, so that iterating the first
    line is exact, as in ``scan``. Λ of a block's end replaces its ΔW (``dWs``), λ goes to ``ls``, the new ΔG to ``w``. Rows of an ``opening`` pass
    nothing on to W and b. All this for the ``part`` blocks from ``begin`` on, given Λ, λ after them; ΔG, ΔW, Δb, w and λ are of these alone.
    """
    head, row = tl.program_id(0), tl.program_id(1)
    start, length, phase = sequence(row, longest, start_ptr, length_ptr, phase_ptr)
    first = row * part
    if first_ptr is not None:
        first = tl.load(first_ptr + row)
    d = tl.arange(0, D_PAD)
    real = (d < D)[None, :]
    matrix, vector = d[:, None] * D + d[None, :], d[None, :]
    both = (d < D)[:, None] & real
    last = tl.load(scale_ptr + K - 1)
    end = row.to(tl.int64) * H + head
    dW, dW_mean = centre(tl.load(dW_end_ptr + end * D * D + matrix, both, 0.0), real, D)
    db, db_mean = centre(tl.load(db_end_ptr + end * D + vector, real, 0.0), real, D)
    # R equal rows, as ``summed`` returns.
    db = tl.broadcast_to(db, (R, D_PAD))
    across, top = tl.broadcast_to(vector, (R, D_PAD)), (tl.arange(0, R) == 0)[:, None] & real

    count = tl.minimum(tl.cdiv(phase + length, R // K * K), begin + part)
    for m in tl.range(0, count - begin, num_stages=STAGES):
        n = count - 1 - m
        i, valid = slots(n, length, phase, K, R)
        inside = valid[:, None] & real
        token = (start + n * (R // K * K) - phase).to(tl.int64) * H + head
        tile = i[:, None] * (H * D) + vector
        spot = (first + n - begin).to(tl.int64)
        here, there = spot * (R // K * K) * H + head, spot * H + head
        x = tl.load(k_ptr + token * D + tile, inside, 0.0)
        gamma = tl.load(gamma_ptr + head * D + vector, real, 0.0)
        beta = tl.load(beta_ptr + head * D + vector, real, 0.0)
        u = gamma * (beta - tl.load(v_ptr + token * D + tile, inside, 0.0).to(tl.float32) + x.to(tl.float32))
        lr = tl.load(lr_ptr + token + i * H, valid, 0.0).to(tl.float32)[:, None]
        normed = tl.load(normed_ptr + token * D + tile, inside, 0.0).to(tl.float32)
        r = tl.load(rstd_ptr + token + i[:, None] * H, valid[:, None], 1.0)
        given = tl.load(dG_ptr + here * D + tile, inside, 0.0).to(tl.float32)
        dW_block = tl.load(dWs_ptr + there * D * D + matrix, both, 0.0).to(tl.float32)
        db_block = tl.load(dbs_ptr + there * D + vector, real, 0.0)
        tl.store(dWs_ptr + there * D * D + matrix, dW, both)
        tl.store(ls_ptr + there * D + across, db, top)

        base = given + last * tl.where(writers(n, length, phase, i, K, R)[:, None], -(dot(x, dW, DOT, PRECISION) + db), 0.0)
        square = gamma * gamma
        s2, F, m = bend(normed, u, square, r, real, D)
        dG = base
        dz = second_derivative(lr * dG, normed, F, s2, square, r, real, D)
        if R // K > 1:
            N = tl.where(tl.trans(earlier(K, R)), -last, 0.0) * (dot(x, tl.trans(x), DOT, PRECISION) + 1)
            if R // K <= 4:
                for _ in tl.static_range(R // K - 1):
                    dG = added(N, dz, base, DOT, PRECISION)
                    dz = second_derivative(lr * dG, normed, F, s2, square, r, real, D)
            else:
                for _ in range(R // K - 1):
                    dG = added(N, dz, base, DOT, PRECISION)
                    dz = second_derivative(lr * dG, normed, F, s2, square, r, real, D)
        tl.store(w_ptr + here * D + tile, lr * dG, inside)
        along = tl.sum(normed * dG, 1)[:, None]
        # Rowsum of G ⊙ ΔG, where G = r (c − γ²ẑ − s₂ẑ − …) is had from F.
        dlr = tl.sum(F * dG, 1)[:, None] / r + r * (m / 2 * along - tl.sum(square * normed * dG, 1)[:, None])
        tl.store(dlr_ptr + token + i[:, None] * H, dlr, valid[:, None])

        through = dz
        if OPENING:
            through = tl.where((n == 0) & (i < K)[:, None], 0.0, dz)
        dW = added(tl.trans(x), through, dW + dW_block, DOT, PRECISION)
        db += db_block + summed(through, DOT, PRECISION)

    tl.store(dW_ptr + end * D * D + matrix, dW + dW_mean[:, None], both)
    tl.store(db_ptr + end * D + across, db + db_mean[:, None], top)
