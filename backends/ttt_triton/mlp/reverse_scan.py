"""The sequential part of the backward pass: cotangents of the weights from the last mini-batch to the first, and of what training rows write."""

# pyright: reportGeneralTypeIssues=false
# Calls of jitted functions are typed as if they never returned.
from __future__ import annotations

import triton
import triton.language as tl

from ..linear.tiles import added, centre, columns, dot
from .tiles import across, four_sums, piece


@triton.jit(do_not_specialize=("top", "blocks"))
def reverse_scan(
    gamma_ptr,
    start_ptr,
    length_ptr,
    first_ptr,
    slope_ptr,
    dG1_ptr,
    dX2_ptr,
    curve_ptr,
    G2_ptr,
    dG2_ptr,
    normed_ptr,
    F_ptr,
    keys_ptr,
    numbers_ptr,
    X2_ptr,
    W2s_ptr,
    dz_ptr,
    p_ptr,
    Ls_ptr,
    dWs_ptr,
    dbs_ptr,
    dW1_end_ptr,
    db1_end_ptr,
    dW2_end_ptr,
    db2_end_ptr,
    ls_ptr,
    gated_ptr,
    dW1_ptr,
    db1_ptr,
    dW2_ptr,
    db2_ptr,
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
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Of one head (axis 0) of a piece of a sequence (axis 1), the cotangents of its training rows and of the weights, from the last mini-batch on.

    With Λ_l, λ_l the cotangents of W_l, b_l at a mini-batch's end, f = −s_{K−1} if it is whole, else 0, and what the read-outs ask in ΔG₁, ΔG₂, ΔX₂:

        ΔG₁ += f diag(ℓ) (XΛ₁ + λ₁)                        ΔH̄ = ΔG₁ ⊙ σ′
        ΔG₂ += f diag(ℓ) (X₂Λ₂ + λ₂) + ΔH̄W₂               ΔZ₂ = ∂²L/∂z² ΔG₂              ΔL/∂e = p
        ΔX₂ += f diag(ℓ) G₂Λ₂ᵀ + ΔZ₂W₂ᵀ                   ΔZ₁ = ΔX₂ ⊙ σ′ + ΔG₁ ⊙ H̄ ⊙ σ″
        Λ₁ += XᵀΔZ₁        λ₁ += 1ᵀΔZ₁        Λ₂ += X₂ᵀΔZ₂ + ΔH̄ᵀG₂        λ₂ += 1ᵀΔZ₂

    and at a block's start what its read-outs ask of the weights (``dWs``, ``dbs``). ΔZ₁ may replace ΔX₂, and p ΔG₂. Λ₁, λ₁ of blocks' ends go to Ls
    ``[blocks, H, E, D]`` and ls ``[blocks, H, E]``, rowsum(G₂ ⊙ (X₂Λ₂ + λ₂)) to ``gated`` ``[blocks, H, n]``. σ′, H̄ ⊙ σ″ (``slope``, ``curve``)
    and cotangents are shaped as in ``scan``, X and fℓ are those of ``slopes`` (``keys``, ``numbers``). The columns' means of Λ₂ and λ₂ are put aside:
    nothing adds to them.
    """
    head, row = tl.program_id(0), top + tl.program_id(1)
    _, length, first = piece(row, top, longest, begin, blocks, start_ptr, length_ptr, first_ptr, K, R)
    i, columns_of_d, columns_of_e = tl.arange(0, K_PAD), tl.arange(0, D_PAD), tl.arange(0, E_PAD)
    d, e = columns_of_d[None, :], columns_of_e[:, None]
    real, both = d < D, (d < D) & (e < E)
    hidden, rows = (e < E) & (i < K)[None, :], (i < K)[:, None] & (d < D)
    lying, upright = d * E + e, e * D + d
    end = row.to(tl.int64) * H + head
    L1 = tl.load(dW1_end_ptr + end * D * E + lying, both, 0.0)
    l1 = tl.load(db1_end_ptr + end * E + columns_of_e, columns_of_e < E, 0.0)
    L2, L2_mean = centre(tl.load(dW2_end_ptr + end * D * E + upright, both, 0.0), real, D)
    l2 = tl.load(db2_end_ptr + end * D + columns_of_d, columns_of_d < D, 0.0)
    l2_mean = tl.sum(l2, 0) / D
    l2 = tl.where(columns_of_d < D, l2 - l2_mean, 0.0)
    gamma = tl.load(gamma_ptr + head * D + d, real, 0.0)

    count = tl.cdiv(length, K)
    for m in tl.range(0, count, num_stages=STAGES):
        c = count - 1 - m
        n, at = c // (R // K), c % (R // K) * K
        place = (first + n).to(tl.int64) * H + head
        if (c % (R // K) == R // K - 1) | (m == 0):
            tl.store(Ls_ptr + place * D * E + upright, L1, both)
            tl.store(ls_ptr + place * E + columns_of_e, l1, columns_of_e < E)
        tile = place * (R // K * K) * E + at + e * (R // K * K) + i[None, :]
        line = (place * (R // K * K) + at) * D + i[:, None] * D + d
        numbers = numbers_ptr + (place * (R // K * K) + at + i) * 4
        x = tl.load(keys_ptr + line, rows, 0.0)
        X2 = tl.load(X2_ptr + tile, hidden, 0.0)
        G2 = tl.load(G2_ptr + line, rows, 0.0)
        W2 = tl.load(W2s_ptr + (place * (R // K) + c % (R // K)) * D * E + upright, both, 0.0)
        slope = tl.load(slope_ptr + tile, hidden, 0.0)
        normed = tl.load(normed_ptr + line, rows, 0.0).to(tl.float32)
        F = tl.load(F_ptr + line, rows, 0.0).to(tl.float32)
        r = tl.load(numbers[:, None], (i < K)[:, None], 0.0)
        s2 = tl.load(numbers[:, None] + 1, (i < K)[:, None], 0.0)
        weight = tl.load(numbers + 2, i < K, 0.0)

        y2 = across(X2, L2, DOT, PRECISION) + l2[None, :]
        dG1 = (dot(L1, tl.trans(x), DOT, PRECISION) + l1[:, None]) * weight[None, :] + tl.load(dG1_ptr + tile, hidden, 0.0).to(tl.float32)
        dH = (dG1 * slope).to(DOT)
        dG2 = y2 * weight[:, None] + tl.load(dG2_ptr + line, rows, 0.0).to(tl.float32) + across(dH, W2, DOT, PRECISION)
        straight = r * r * (gamma * gamma - s2) * dG2
        mean, a, f, gated = four_sums(straight, normed * dG2, F * dG2, G2.to(tl.float32) * y2, PRECISION)
        mean, a, f = mean[:, None] / D, a[:, None] / D, f[:, None] / D
        dz = columns(straight - mean - F * a - normed * f, real, D)
        tl.store(p_ptr + line, r * (dG2 - normed * a), rows)
        tl.store(gated_ptr + place * (R // K * K) + at + i, gated, i < K)
        dX2 = dot(W2, tl.trans(dz), DOT, PRECISION) + dot(L2, tl.trans(G2.to(tl.float32) * weight[:, None]), DOT, PRECISION)
        dX2 += tl.load(dX2_ptr + tile, hidden, 0.0).to(tl.float32)
        dz1 = dX2 * slope + dG1 * tl.load(curve_ptr + tile, hidden, 0.0).to(tl.float32)
        tl.store(dz_ptr + tile, dz1, hidden)
        L1 = added(dz1, x, L1, DOT, PRECISION)
        L2 = added(X2, dz, L2, DOT, PRECISION)
        L2 = added(dH, G2, L2, DOT, PRECISION)
        l1 += tl.sum(dz1, 1)
        l2 += tl.sum(dz, 0)
        if c % (R // K) == 0:
            L1 += tl.load(dWs_ptr + place * 2 * D * E + upright, both, 0.0).to(tl.float32)
            L2 += tl.load(dWs_ptr + place * 2 * D * E + D * E + upright, both, 0.0).to(tl.float32)
            l1 += tl.load(dbs_ptr + place * (E + D) + columns_of_e, columns_of_e < E, 0.0)
            l2 += tl.load(dbs_ptr + place * (E + D) + E + columns_of_d, columns_of_d < D, 0.0)
    tl.store(dW1_ptr + end * D * E + lying, L1, both)
    tl.store(db1_ptr + end * E + columns_of_e, l1, columns_of_e < E)
    tl.store(dW2_ptr + end * D * E + upright, L2 + L2_mean[:, None], both)
    tl.store(db2_ptr + end * D + columns_of_d, l2 + l2_mean, columns_of_d < D)
