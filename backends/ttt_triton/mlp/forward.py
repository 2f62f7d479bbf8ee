"""The forward pass: outputs, final states, and the weights at the starts of segments."""

# pyright: reportGeneralTypeIssues=false
# Calls of jitted functions are typed as if they never returned.

from __future__ import annotations

import triton
import triton.language as tl

from ..linear.tiles import centre, dot, rstd, sequence
from .tiles import back_through, gelu, over, places, readers, through, training, written


@triton.jit
def mini_batch(
    n,
    W1,
    b1,
    W2,
    b2,
    V2,
    q_ptr,
    k_ptr,
    v_ptr,
    lr_ptr,
    S_W1_ptr,
    S_b1_ptr,
    S_W2_ptr,
    S_b2_ptr,
    scale_ptr,
    gamma_ptr,
    beta_ptr,
    y_ptr,
    start,
    length,
    phase,
    row,
    head,
    H,
    eps,
    K: tl.constexpr,
    D: tl.constexpr,
    E: tl.constexpr,
    K_PAD: tl.constexpr,
    D_PAD: tl.constexpr,
    E_PAD: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Store y of mini-batch n and return the weights after it, and W₂ in DOT. The sums S are read where there are pointers."""
    d, e = tl.arange(0, D_PAD)[None, :], tl.arange(0, E_PAD)[:, None]
    real, hidden = d < D, e < E
    both = real & hidden
    i, valid = places(n, length, phase, K, K_PAD)
    inside = valid[:, None] & real
    token = (start + n * K - phase).to(tl.int64) * H + head
    end = row.to(tl.int64) * H + head
    tile = i[:, None] * (H * D) + d
    gamma = tl.load(gamma_ptr + head * D + d, real, 0.0)
    beta = tl.load(beta_ptr + head * D + d, real, 0.0)
    scale, M = readers(scale_ptr, i, K)
    q = tl.load(q_ptr + token * D + tile, inside, 0.0)
    x = tl.load(k_ptr + token * D + tile, inside, 0.0)
    u = gamma * (beta - tl.load(v_ptr + token * D + tile, inside, 0.0).to(tl.float32) + x.to(tl.float32))
    lr = tl.load(lr_ptr + token + i * H, valid, 0.0).to(tl.float32)

    z = dot(W1, tl.trans(q), DOT, PRECISION) + b1
    X2, G2, G1 = training(x, u, W1, b1, V2, b2, gamma, real, D, eps, DOT, PRECISION)
    factors = M * lr[None, :]
    z -= dot(G1, tl.trans(factors * (dot(q, tl.trans(x), DOT, PRECISION) + 1)), DOT, PRECISION)
    if S_W1_ptr is not None:
        S_W1 = tl.load(S_W1_ptr + end * D * E + d * E + e, both, 0.0)
        S_b1 = tl.load(S_b1_ptr + end * E + e, hidden, 0.0)
        z -= scale[None, :] * (through(S_W1, q, i, K) + S_b1)
    h = gelu(z)[0]
    z = over(h, V2, DOT, PRECISION) + b2 - dot(factors * (dot(tl.trans(h), X2, DOT, PRECISION) + 1), G2, DOT, PRECISION)
    if S_W1_ptr is not None:
        S_W2 = tl.load(S_W2_ptr + end * D * E + e * D + d, both, 0.0)
        S_b2 = tl.load(S_b2_ptr + end * D + d, real, 0.0)
        z -= scale[:, None] * (back_through(h, S_W2, i, K) + S_b2)
    z = centre(z, real, D)[0]
    tl.store(y_ptr + token * D + tile, q.to(tl.float32) + gamma * (z * rstd(z, D, eps)) + beta, inside)

    step = tl.where((n + 1) * K <= phase + length, -tl.load(scale_ptr + K - 1), 0.0)
    W1, b1, W2, b2 = written(W1, b1, W2, b2, x, X2, G1, G2, step * lr, DOT, PRECISION)
    if S_W1_ptr is not None:
        # Loaded again, for the same reason as in ``through``.
        W1 += step * tl.load(S_W1_ptr + end * D * E + d * E + e, both, 0.0)
        b1 += step * tl.load(S_b1_ptr + end * E + e, hidden, 0.0)
        W2 += step * centre(tl.load(S_W2_ptr + end * D * E + e * D + d, both, 0.0), real, D)[0]
        b2 += step * centre(tl.load(S_b2_ptr + end * D + d, real, 0.0), real, D)[0]
    return W1, b1, W2, b2, W2.to(DOT)


@triton.jit
def keep(place, W1, b1, W2, b2, Ws_ptr, bs_ptr, mask, D: tl.constexpr, E: tl.constexpr, D_PAD: tl.constexpr, E_PAD: tl.constexpr):
    """Store weights ``[2, E, D]`` and biases ``[E + D]`` at ``place`` if ``mask``."""
    d, e = tl.arange(0, D_PAD)[None, :], tl.arange(0, E_PAD)[:, None]
    Ws_ptr += place.to(tl.int64) * 2 * D * E + e * D + d
    bs_ptr += place.to(tl.int64) * (E + D)
    tl.store(Ws_ptr, W1, (d < D) & (e < E) & mask)
    tl.store(Ws_ptr + D * E, W2, (d < D) & (e < E) & mask)
    tl.store(bs_ptr + e, b1, (e < E) & mask)
    tl.store(bs_ptr + E + d, b2, (d < D) & mask)


@triton.jit
def forward(
    q_ptr,
    k_ptr,
    v_ptr,
    lr_ptr,
    W1_ptr,
    b1_ptr,
    W2_ptr,
    b2_ptr,
    S_W1_ptr,
    S_b1_ptr,
    S_W2_ptr,
    S_b2_ptr,
    scale_ptr,
    gamma_ptr,
    beta_ptr,
    start_ptr,
    length_ptr,
    phase_ptr,
    first_ptr,
    y_ptr,
    W1_end_ptr,
    b1_end_ptr,
    W2_end_ptr,
    b2_end_ptr,
    S_W1_end_ptr,
    S_b1_end_ptr,
    S_W2_end_ptr,
    S_b2_end_ptr,
    Ws_ptr,
    bs_ptr,
    W1_stride,
    b1_stride,
    W2_stride,
    b2_stride,
    longest,
    segments,
    length_of_segment,
    H,
    eps,
    K: tl.constexpr,
    D: tl.constexpr,
    E: tl.constexpr,
    K_PAD: tl.constexpr,
    D_PAD: tl.constexpr,
    E_PAD: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program for a head (axis 0) of a sequence (axis 1): y of its tokens, the state that it leaves, and W, b at its segments' starts.

    With X, V, Q the rows of a mini-batch, M_ij = s_i where j ≤ i, else 0 (docs/mathematics.md, sections 4 and 6, on the LN-centred W₂, b₂ of 8):

        Z₁ = XW₁ + b₁           X₂ = σ(Z₁)      Z₂ = X₂W₂ + b₂      G₂ = LN*(Z₂; X + LN(Z₂) − V)      G₁ = G₂W₂ᵀ ⊙ σ′(Z₁)
        Z̄₁ = QW₁ + b₁ − (M diag(ℓ) ⊙ (QXᵀ + 1)) G₁                                                     X̄₂ = σ(Z̄₁)
        Z̄₂ = X̄₂W₂ + b₂ − (M diag(ℓ) ⊙ (X̄₂X₂ᵀ + 1)) G₂                                                 Y = Q + LN(Z̄₂)
        W_l ← W_l − s_{K−1} X_lᵀ diag(ℓ) G_l        b_l ← b_l − s_{K−1} 1ᵀ diag(ℓ) G_l                  after a whole mini-batch
        S_l = X_lᵀ diag(ℓ) G_l                      S_b = 1ᵀ diag(ℓ) G_l                                of the one left open, if any

    Sums S that a sequence comes with belong to its first mini-batch: read-outs less s_i (X̄_l S_l + S_b), and added to what it writes.

    q, k, v, y ``[N, H, D]``, ℓ ``[N, H]``, W₁ ``[R, H, D, E]``, b₁ ``[R, H, E]``, W₂ ``[R, H, E, D]``, b₂ ``[R, H, D]`` and sums alike,
    s ``[K]``, γ, β ``[H, D]``; all but the tokens float32; at segments' starts Ws ``[segments, H, 2, E, D]``, bs ``[segments, H, E + D]``.
    """
    head, row = tl.program_id(0), tl.program_id(1)
    start, length, phase = sequence(row, longest, start_ptr, length_ptr, phase_ptr)
    first = row * segments
    if first_ptr is not None:
        first = tl.load(first_ptr + row)
    d, e = tl.arange(0, D_PAD)[None, :], tl.arange(0, E_PAD)[:, None]
    real, hidden = d < D, e < E
    both = real & hidden
    lying, upright = d * E + e, e * D + d
    begin, end = row.to(tl.int64), row.to(tl.int64) * H + head
    W1 = tl.load(W1_ptr + begin * W1_stride + head * D * E + lying, both, 0.0)
    b1 = tl.load(b1_ptr + begin * b1_stride + head * E + e, hidden, 0.0)
    W2, W2_mean = centre(tl.load(W2_ptr + begin * W2_stride + head * D * E + upright, both, 0.0), real, D)
    b2, b2_mean = centre(tl.load(b2_ptr + begin * b2_stride + head * D + d, real, 0.0), real, D)
    W2_mean, b2_mean = W2_mean[:, None], b2_mean[:, None]

    count = tl.cdiv(phase + length, K)
    V2 = W2.to(DOT)
    done = 0
    if S_W1_ptr is not None:
        done = 1
    if Ws_ptr is not None:
        keep(first * H + head, W1, b1, W2, b2, Ws_ptr, bs_ptr, count > 0, D, E, D_PAD, E_PAD)
    if S_W1_ptr is not None:
        for n in tl.range(0, tl.minimum(count, done), num_stages=1, disable_licm=True):
            W1, b1, W2, b2, V2 = mini_batch(
                *(n, W1, b1, W2, b2, V2, q_ptr, k_ptr, v_ptr, lr_ptr, S_W1_ptr, S_b1_ptr, S_W2_ptr, S_b2_ptr, scale_ptr, gamma_ptr, beta_ptr, y_ptr),
                *(start, length, phase, row, head, H, eps, K, D, E, K_PAD, D_PAD, E_PAD, DOT, PRECISION),
            )
        step = tl.where(phase + length >= K, -tl.load(scale_ptr + K - 1), 0.0)
        W2_mean += step * (tl.sum(tl.load(S_W2_ptr + end * D * E + upright, both, 0.0), 1) / D)[:, None]
        b2_mean += step * (tl.sum(tl.load(S_b2_ptr + end * D + d, real, 0.0), 1) / D)[:, None]
    for segment in tl.range(0, tl.cdiv(count, length_of_segment), num_stages=1, disable_licm=True):
        begin_at, end_at = tl.maximum(segment * length_of_segment, done), tl.minimum((segment + 1) * length_of_segment, count)
        # Registers are short: what does not change in the loop is better computed again than held.
        for n in tl.range(begin_at, end_at, num_stages=1, disable_licm=True):
            W1, b1, W2, b2, V2 = mini_batch(
                *(n, W1, b1, W2, b2, V2, q_ptr, k_ptr, v_ptr, lr_ptr, None, None, None, None, scale_ptr, gamma_ptr, beta_ptr, y_ptr),
                *(start, length, phase, row, head, H, eps, K, D, E, K_PAD, D_PAD, E_PAD, DOT, PRECISION),
            )
        if Ws_ptr is not None:
            more = (segment + 1) * length_of_segment < count
            keep((first + segment + 1) * H + head, W1, b1, W2, b2, Ws_ptr, bs_ptr, more, D, E, D_PAD, E_PAD)
    tl.store(W1_end_ptr + end * D * E + lying, W1, both)
    tl.store(b1_end_ptr + end * E + e, b1, hidden)
    tl.store(W2_end_ptr + end * D * E + upright, W2 + W2_mean, both)
    tl.store(b2_end_ptr + end * D + d, b2 + b2_mean, real)

    # A loop of at most one turn: outside of any, Triton 3.6 makes the products with 256 rows in registers wrong (docs/kernels.md).
    for _ in tl.range(0, tl.where(count * K > phase + length, 1, 0), num_stages=1, disable_licm=True):
        i, valid = places(count - 1, length, phase, K, K_PAD)
        inside = valid[:, None] & real
        token = (start + (count - 1) * K - phase).to(tl.int64) * H + head
        tile = i[:, None] * (H * D) + d
        gamma = tl.load(gamma_ptr + head * D + d, real, 0.0)
        beta = tl.load(beta_ptr + head * D + d, real, 0.0)
        x = tl.load(k_ptr + token * D + tile, inside, 0.0)
        u = gamma * (beta - tl.load(v_ptr + token * D + tile, inside, 0.0).to(tl.float32) + x.to(tl.float32))
        lr = tl.load(lr_ptr + token + i * H, valid, 0.0).to(tl.float32)
        X2, G2, G1 = training(x, u, W1, b1, V2, b2, gamma, real, D, eps, DOT, PRECISION)
        S_W1, S_W2 = tl.zeros((E_PAD, D_PAD), tl.float32), tl.zeros((E_PAD, D_PAD), tl.float32)
        S_b1, S_b2 = tl.zeros((E_PAD, 1), tl.float32), tl.zeros((1, D_PAD), tl.float32)
        S_W1, S_b1, S_W2, S_b2 = written(S_W1, S_b1, S_W2, S_b2, x, X2, G1, G2, lr, DOT, PRECISION)
        if S_W1_ptr is not None:
            S_W1 += tl.load(S_W1_ptr + end * D * E + lying, both & (count == 1), 0.0)
            S_b1 += tl.load(S_b1_ptr + end * E + e, hidden & (count == 1), 0.0)
            S_W2 += tl.load(S_W2_ptr + end * D * E + upright, both & (count == 1), 0.0)
            S_b2 += tl.load(S_b2_ptr + end * D + d, real & (count == 1), 0.0)
        tl.store(S_W1_end_ptr + end * D * E + lying, S_W1, both)
        tl.store(S_b1_end_ptr + end * E + e, S_b1, hidden)
        tl.store(S_W2_end_ptr + end * D * E + upright, S_W2, both)
        tl.store(S_b2_end_ptr + end * D + d, S_b2, real)
