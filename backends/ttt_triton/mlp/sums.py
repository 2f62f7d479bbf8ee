"""What a sequence leaves open at its end: the gated sums of gradients of a mini-batch that is not whole, and their cotangents."""

# pyright: reportGeneralTypeIssues=false
# Calls of jitted functions are typed as if they never returned.
from __future__ import annotations

import triton
import triton.language as tl

from ..linear.tiles import centre, dot
from .tiles import piece


@triton.jit(do_not_specialize=("top", "blocks"))
def open_sums(
    k_ptr,
    lr_ptr,
    X2_ptr,
    G1_ptr,
    G2_ptr,
    start_ptr,
    length_ptr,
    first_ptr,
    S_W1_ptr,
    S_b1_ptr,
    S_W2_ptr,
    S_b2_ptr,
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
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Of one head (axis 0) of a sequence's last piece (axis 1), what its open mini-batch has written; 0 where there is none.

        S_W₁ = Xᵀ diag(ℓ) G₁        S_b₁ = 1ᵀ diag(ℓ) G₁        S_W₂ = X₂ᵀ diag(ℓ) G₂        S_b₂ = 1ᵀ diag(ℓ) G₂

    Shapes as in ``scan``; sums float32, shaped as the weights.
    """
    head, row = tl.program_id(0), top + tl.program_id(1)
    start, length, first = piece(row, top, longest, begin, blocks, start_ptr, length_ptr, first_ptr, K, R)
    whole = length // K * K
    i, d = tl.arange(0, K_PAD), tl.arange(0, D_PAD)[None, :]
    real, inside = d < D, whole + i < length
    token = (start + whole).to(tl.int64) * H + head
    end = row.to(tl.int64) * H + head
    at, slot = (first + whole // (R // K * K)).to(tl.int64) * H + head, whole % (R // K * K)
    x = tl.load(k_ptr + token * D + i[:, None] * (H * D) + d, inside[:, None] & real, 0.0)
    lr = tl.load(lr_ptr + token + i * H, inside, 0.0).to(tl.float32)
    G2 = tl.load(G2_ptr + (at * (R // K * K) + slot) * D + i[:, None] * D + d, inside[:, None] & real, 0.0).to(tl.float32) * lr[:, None]
    tl.store(S_b2_ptr + end * D + d, tl.sum(G2, 0)[None, :], real)
    for c in tl.range(0, E_PAD, C, num_stages=1):
        e = c + tl.arange(0, C)
        lying, there = (at * E + e[:, None]) * (R // K * K) + slot + i[None, :], (e < E)[:, None] & inside[None, :]
        G1 = tl.load(G1_ptr + lying, there, 0.0).to(tl.float32) * lr[None, :]
        X2 = tl.load(X2_ptr + lying, there, 0.0)
        tl.store(S_b1_ptr + end * E + e, tl.sum(G1, 1), e < E)
        S_W1 = dot(G1, x, DOT, PRECISION)
        tl.store(S_W1_ptr + end * D * E + d * E + e[:, None], S_W1, (e < E)[:, None] & real)
        S_W2 = dot(X2, G2, DOT, PRECISION)
        tl.store(S_W2_ptr + end * D * E + e[:, None] * D + d, S_W2, (e < E)[:, None] & real)


@triton.jit(do_not_specialize=("top", "blocks"))
def open_sums_backward(
    k_ptr,
    lr_ptr,
    X2_ptr,
    G1_ptr,
    G2_ptr,
    start_ptr,
    length_ptr,
    first_ptr,
    dS_W1_ptr,
    dS_b1_ptr,
    dS_W2_ptr,
    dS_b2_ptr,
    dk_ptr,
    dlr_ptr,
    dX2_ptr,
    dG1_ptr,
    dG2_ptr,
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
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Add to what the read-outs ask of an open mini-batch what its sums do; grid as ``open_sums``, cotangents as in ``readout_backward``.

    ΔG_l += diag(ℓ) (X_lΔS_Wl + ΔS_bl)        ΔX_l += diag(ℓ) G_lΔS_Wlᵀ        Δℓ += Σ_l rowsum(G_l ⊙ (X_lΔS_Wl + ΔS_bl))
    """
    head, row = tl.program_id(0), top + tl.program_id(1)
    start, length, first = piece(row, top, longest, begin, blocks, start_ptr, length_ptr, first_ptr, K, R)
    whole = length // K * K
    if whole == length:
        return
    i, d = tl.arange(0, K_PAD), tl.arange(0, D_PAD)[None, :]
    real, inside = d < D, whole + i < length
    both = inside[:, None] & real
    token = (start + whole).to(tl.int64) * H + head
    tile = token * D + i[:, None] * (H * D) + d
    end = row.to(tl.int64) * H + head
    at, slot = (first + whole // (R // K * K)).to(tl.int64) * H + head, whole % (R // K * K)
    line = (at * (R // K * K) + slot) * D + i[:, None] * D + d
    x = tl.load(k_ptr + tile, both, 0.0)
    lr = tl.load(lr_ptr + token + i * H, inside, 0.0).to(tl.float32)
    G2 = tl.load(G2_ptr + line, both, 0.0).to(tl.float32)
    y2 = tl.zeros((K_PAD, D_PAD), tl.float32) + tl.load(dS_b2_ptr + end * D + d, real, 0.0)
    dk = tl.zeros((K_PAD, D_PAD), tl.float32)
    gated = tl.zeros((K_PAD,), tl.float32)
    for c in tl.range(0, E_PAD, C, num_stages=1):
        e = c + tl.arange(0, C)
        hidden, lying = (e < E)[:, None] & real, (at * E + e[:, None]) * (R // K * K) + slot + i[None, :]
        there = (e < E)[:, None] & inside[None, :]
        dS_W1 = tl.load(dS_W1_ptr + end * D * E + d * E + e[:, None], hidden, 0.0)
        dS_W2 = tl.load(dS_W2_ptr + end * D * E + e[:, None] * D + d, hidden, 0.0)
        G1 = tl.load(G1_ptr + lying, there, 0.0)
        X2 = tl.load(X2_ptr + lying, there, 0.0)
        y1 = dot(dS_W1, tl.trans(x), DOT, PRECISION) + tl.load(dS_b1_ptr + end * E + e, e < E, 0.0)[:, None]
        gated += tl.sum(G1.to(tl.float32) * y1, 0)
        tl.store(dG1_ptr + lying, tl.load(dG1_ptr + lying, there, 0.0).to(tl.float32) + lr[None, :] * y1, there)
        dX2 = dot(dS_W2, tl.trans(G2 * lr[:, None]), DOT, PRECISION)
        tl.store(dX2_ptr + lying, tl.load(dX2_ptr + lying, there, 0.0).to(tl.float32) + dX2, there)
        y2 += dot(tl.trans(X2), dS_W2, DOT, PRECISION)
        dk += dot(tl.trans(G1), dS_W1, DOT, PRECISION)
    gated += tl.sum(G2 * y2, 1)
    tl.store(dG2_ptr + line, tl.load(dG2_ptr + line, both, 0.0).to(tl.float32) + lr[:, None] * centre(y2, real, D)[0], both)
    tl.store(dk_ptr + tile, tl.load(dk_ptr + tile, both, 0.0).to(tl.float32) + lr[:, None] * dk, both)
    place = at * (R // K * K) + slot + i
    tl.store(dlr_ptr + place, tl.load(dlr_ptr + place, inside, 0.0) + gated, inside)
