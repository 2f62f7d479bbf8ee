"""The sequential part of the forward pass: what all training rows write, and the weights at the start of every block."""

# pyright: reportGeneralTypeIssues=false
# Calls of jitted functions are typed as if they never returned.
from __future__ import annotations

import triton
import triton.language as tl

from ..linear.tiles import added, centre, dot
from .tiles import across, gelu, loss_gradient, piece


@triton.jit(do_not_specialize=("top", "blocks"))
def scan(
    k_ptr,
    v_ptr,
    lr_ptr,
    W1_ptr,
    b1_ptr,
    W2_ptr,
    b2_ptr,
    scale_ptr,
    gamma_ptr,
    beta_ptr,
    start_ptr,
    length_ptr,
    first_ptr,
    X2_ptr,
    G1_ptr,
    G2_ptr,
    Ws_ptr,
    bs_ptr,
    W2s_ptr,
    W1_end_ptr,
    b1_end_ptr,
    W2_end_ptr,
    b2_end_ptr,
    W1_stride,
    b1_stride,
    W2_stride,
    b2_stride,
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
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Of one head (axis 0) of a piece of a sequence (axis 1), X₂, G₁, G₂ of its tokens, and W, b at its blocks' starts and at its end.

    Mini-batch after mini-batch, with X, V its rows (docs/mathematics.md, section 4, on the LN-centred W₂, b₂ of section 8):

        Z₁ = XW₁ + b₁        X₂ = σ(Z₁)        Z₂ = X₂W₂ + b₂        G₂ = LN*(Z₂; X + LN(Z₂) − V)        G₁ = G₂W₂ᵀ ⊙ σ′(Z₁)
        W_l ← W_l − s_{K−1} X_lᵀ diag(ℓ) G_l        b_l ← b_l − s_{K−1} 1ᵀ diag(ℓ) G_l        after a whole mini-batch

    Tiles of hidden columns lie on their side, a token in each column, and so does W₁: ``[E, D]`` like W₂. Warps then divide the hidden columns among
    them, and all products but X₂W₂ find their left operands where the last product left them.

    k, v ``[N, H, D]``, ℓ ``[N, H]``, W₁ ``[R, H, D, E]``, b₁ ``[R, H, E]``, W₂ ``[R, H, E, D]``, b₂ ``[R, H, D]``, s ``[K]``, γ, β ``[H, D]``.
    For n tokens in a block X₂, G₁ ``[blocks, H, E, n]``, G₂ ``[blocks, H, n, D]``, Ws ``[blocks, H, 2, E, D]``, bs ``[blocks, H, E + D]``, and W₂ at
    the starts of all mini-batches in W2s ``[blocks, H, R // K, E, D]``, if asked for.
    """
    head, row = tl.program_id(0), top + tl.program_id(1)
    start, length, first = piece(row, top, longest, begin, blocks, start_ptr, length_ptr, first_ptr, K, R)
    i, columns_of_d, columns_of_e = tl.arange(0, K_PAD), tl.arange(0, D_PAD), tl.arange(0, E_PAD)
    d, e = columns_of_d[None, :], columns_of_e[:, None]
    real, both = d < D, (d < D) & (e < E)
    hidden = (e < E) & (i < K)[None, :]
    lying, upright = d * E + e, e * D + d
    given, end = tl.program_id(1).to(tl.int64), row.to(tl.int64) * H + head
    W1 = tl.load(W1_ptr + given * W1_stride + head * D * E + lying, both, 0.0).to(tl.float32)
    b1 = tl.load(b1_ptr + given * b1_stride + head * E + columns_of_e, columns_of_e < E, 0.0)
    W2, W2_mean = centre(tl.load(W2_ptr + given * W2_stride + head * D * E + upright, both, 0.0).to(tl.float32), real, D)
    b2 = tl.load(b2_ptr + given * b2_stride + head * D + columns_of_d, columns_of_d < D, 0.0)
    b2_mean = tl.sum(b2, 0) / D
    b2 = tl.where(columns_of_d < D, b2 - b2_mean, 0.0)
    last = tl.load(scale_ptr + K - 1)
    gamma = tl.load(gamma_ptr + head * D + d, real, 0.0)
    beta = tl.load(beta_ptr + head * D + d, real, 0.0)
    squares = tl.sum(gamma * gamma, 1)

    # Tokens are loaded a mini-batch ahead.
    token = start.to(tl.int64) * H + head
    tile = i[:, None] * (H * D) + d
    there = i < tl.minimum(length, K)
    x = tl.load(k_ptr + token * D + tile, there[:, None] & real, 0.0)
    v = tl.load(v_ptr + token * D + tile, there[:, None] & real, 0.0)
    lr = tl.load(lr_ptr + token + i * H, there, 0.0)
    count = tl.cdiv(length, K)
    for n in tl.range(0, tl.cdiv(count, R // K), num_stages=1):
        place = (first + n).to(tl.int64) * H + head
        tl.store(Ws_ptr + place * 2 * D * E + upright, W1, both)
        tl.store(Ws_ptr + place * 2 * D * E + D * E + upright, W2, both)
        tl.store(bs_ptr + place * (E + D) + columns_of_e, b1, columns_of_e < E)
        tl.store(bs_ptr + place * (E + D) + E + columns_of_d, b2, columns_of_d < D)
        for c in tl.range(n * (R // K), tl.minimum((n + 1) * (R // K), count), num_stages=1):
            left = length - (c + 1) * K
            token = (start + (c + 1) * K).to(tl.int64) * H + head
            there = i < tl.minimum(left, K)
            u = gamma * (beta - v.to(tl.float32) + x.to(tl.float32))
            x_next = tl.load(k_ptr + token * D + tile, there[:, None] & real, 0.0)
            v = tl.load(v_ptr + token * D + tile, there[:, None] & real, 0.0)
            lr_next = tl.load(lr_ptr + token + i * H, there, 0.0)

            at = (c - n * (R // K)) * K
            if W2s_ptr is not None:
                tl.store(W2s_ptr + (place * (R // K) + c - n * (R // K)) * D * E + upright, W2, both)
            X2, slope = gelu(dot(W1, tl.trans(x), DOT, PRECISION) + b1[:, None])
            X2, slope = X2.to(DOT), slope.to(DOT)
            G2 = loss_gradient(across(X2, W2, DOT, PRECISION) + b2[None, :], u, gamma, squares, real, D, eps, PRECISION)
            tl.store(X2_ptr + place * (R // K * K) * E + at + e * (R // K * K) + i[None, :], X2, hidden)
            tl.store(G2_ptr + (place * (R // K * K) + at) * D + i[:, None] * D + d, G2, (i < K)[:, None] & real)
            G1 = dot(W2, tl.trans(G2), DOT, PRECISION) * slope
            tl.store(G1_ptr + place * (R // K * K) * E + at + e * (R // K * K) + i[None, :], G1, hidden)

            step = tl.where(left >= 0, -last, 0.0) * lr.to(tl.float32)
            G1, G2 = G1 * step[None, :], G2 * step[:, None]
            W1 = added(G1, x, W1, DOT, PRECISION)
            b1 += tl.sum(G1, 1)
            W2 = added(X2, G2, W2, DOT, PRECISION)
            b2 += tl.sum(G2, 0)
            x, lr = x_next, lr_next
    if W1_end_ptr is not None:
        tl.store(W1_end_ptr + end * D * E + lying, W1, both)
        tl.store(b1_end_ptr + end * E + columns_of_e, b1, columns_of_e < E)
        tl.store(W2_end_ptr + end * D * E + upright, W2 + W2_mean[:, None], both)
        tl.store(b2_end_ptr + end * D + columns_of_d, b2 + b2_mean, columns_of_d < D)
