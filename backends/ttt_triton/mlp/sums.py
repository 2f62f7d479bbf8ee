"""What a sequence leaves open at its end: the gated sums of gradients of a mini-batch that is not whole."""

# pyright: reportGeneralTypeIssues=false
# Calls of jitted functions are typed as if they never returned.
from __future__ import annotations

import triton
import triton.language as tl

from .tiles import piece


@triton.jit
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
    head, row = tl.program_id(0), tl.program_id(1)
    start, length, first = piece(row, longest, begin, blocks, start_ptr, length_ptr, first_ptr, K, R)
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
        S_W1 = tl.dot(G1.to(DOT), x.to(DOT), input_precision=PRECISION)
        tl.store(S_W1_ptr + end * D * E + d * E + e[:, None], S_W1, (e < E)[:, None] & real)
        S_W2 = tl.dot(X2.to(DOT), G2.to(DOT), input_precision=PRECISION)
        tl.store(S_W2_ptr + end * D * E + e[:, None] * D + d, S_W2, (e < E)[:, None] & real)
