"""The sequential part of the forward pass: gradients of all tokens, and the weights at the start of every block."""

# pyright: reportGeneralTypeIssues=false
# Calls of jitted functions are typed as if they never returned.
from __future__ import annotations

import triton
import triton.language as tl

from .tiles import added, centre, dot, earlier, loss_gradient, sequence, slots, summed, writers


@triton.jit(do_not_specialize=("begin", "part"))
def scan(
    k_ptr,
    v_ptr,
    lr_ptr,
    opening_ptr,
    W_ptr,
    b_ptr,
    scale_ptr,
    gamma_ptr,
    beta_ptr,
    start_ptr,
    length_ptr,
    phase_ptr,
    first_ptr,
    G_ptr,
    Ws_ptr,
    bs_ptr,
    W_end_ptr,
    b_end_ptr,
    S_W_ptr,
    S_b_ptr,
    W_stride,
    b_stride,
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
    STAGES: tl.constexpr,
):
    """Of one head (axis 0) of a sequence (axis 1), G of its tokens, and W, b at its blocks' starts and after its last whole mini-batch.

    With X, V the rows of a block of R // K mini-batches, C_ij = s_{K−1} ℓ_j where j is of an earlier mini-batch than i, else 0
    (docs/mathematics.md, equation 13, on the LN-centred state of section 8):

        Z = XW + b − (C ⊙ (XXᵀ + 1)) G            G = LN*(Z; X + LN(Z) − V)
        W ← W − s_{K−1} Xᵀ diag(ℓ) G              b ← b − s_{K−1} 1ᵀ diag(ℓ) G        over whole mini-batches

    C is strictly lower triangular by mini-batches, so iterating the first line from G = 0 is exact after as many steps as there are mini-batches,
    and needs no rows taken out of a tile. Where a state is resumed, the first mini-batch's rows of XW + b are given (``opening``), see ``inner``.

    k, v, G ``[N, H, D]``, ℓ ``[N, H]``, opening ``[R, K, H, D]``, W ``[R, H, D, D]``, b ``[R, H, D]``, s ``[K]``, γ, β ``[H, D]``; all but k, v, ℓ
    and G float32; at blocks' starts Ws ``[blocks, H, D, D]`` and bs ``[blocks, H, D]``, centred. This is for ``part`` blocks from ``begin`` on,
    given W and b there.
    """
    head, row = tl.program_id(0), tl.program_id(1)
    start, length, phase = sequence(row, longest, start_ptr, length_ptr, phase_ptr)
    first = row * blocks
    if first_ptr is not None:
        first = tl.load(first_ptr + row)
    d = tl.arange(0, D_PAD)
    real = (d < D)[None, :]
    square = (d < D)[:, None] & real
    matrix, vector = d[:, None] * D + d[None, :], d[None, :]
    last = tl.load(scale_ptr + K - 1)
    W, W_mean = centre(tl.load(W_ptr + row.to(tl.int64) * W_stride + head * D * D + matrix, square, 0.0), real, D)
    b, b_mean = centre(tl.load(b_ptr + row.to(tl.int64) * b_stride + head * D + vector, real, 0.0), real, D)
    # R equal rows, as ``summed`` returns.
    b = tl.broadcast_to(b, (R, D_PAD))
    across, top = tl.broadcast_to(vector, (R, D_PAD)), (tl.arange(0, R) == 0)[:, None] & real

    for n in tl.range(begin, tl.minimum(tl.cdiv(phase + length, R // K * K), begin + part), num_stages=STAGES):
        i, valid = slots(n, length, phase, K, R)
        inside = valid[:, None] & real
        token = (start + n * (R // K * K) - phase).to(tl.int64) * H + head
        tile = i[:, None] * (H * D) + vector
        x = tl.load(k_ptr + token * D + tile, inside, 0.0)
        target = tl.load(v_ptr + token * D + tile, inside, 0.0).to(tl.float32) - x.to(tl.float32)
        lr = tl.load(lr_ptr + token + i * H, valid, 0.0).to(tl.float32)
        place = (first + n).to(tl.int64) * H + head
        tl.store(Ws_ptr + place * D * D + matrix, W, square)
        tl.store(bs_ptr + place * D + across, b, top)

        z = dot(x, W, DOT, PRECISION) + b
        if opening_ptr is not None:
            slot = row.to(tl.int64) * K * H * D + head * D
            opening = inside & (i < K)[:, None] & (n == 0)
            z = tl.where(opening, tl.load(opening_ptr + slot + tile, opening, 0.0), z)
        gamma = tl.load(gamma_ptr + head * D + vector, real, 0.0)
        beta = tl.load(beta_ptr + head * D + vector, real, 0.0)
        u = gamma * (beta - target)
        G = loss_gradient(z, u, gamma, real, D, eps)
        if R // K > 1:
            C = tl.where(earlier(K, R), (-last * lr)[None, :], 0.0) * (dot(x, tl.trans(x), DOT, PRECISION) + 1)
            if R // K <= 4:
                for _ in tl.static_range(R // K - 1):
                    G = loss_gradient(added(C, G, z, DOT, PRECISION), u, gamma, real, D, eps)
            else:
                for _ in range(R // K - 1):
                    G = loss_gradient(added(C, G, z, DOT, PRECISION), u, gamma, real, D, eps)
        tl.store(G_ptr + token * D + tile, G, inside)

        written = tl.where(writers(n, length, phase, i, K, R), -last * lr, 0.0)[:, None] * G
        W = added(tl.trans(x), written, W, DOT, PRECISION)
        b += summed(written, DOT, PRECISION)

    end = row.to(tl.int64) * H + head
    tl.store(W_end_ptr + end * D * D + matrix, W + W_mean[:, None], square)
    tl.store(b_end_ptr + end * D + across, b + b_mean[:, None], top)
    # ``open_sums`` comes after this where a mini-batch may be left open.
    tl.store(S_W_ptr + end * D * D + matrix, tl.zeros_like(W), square)
    tl.store(S_b_ptr + end * D + across, tl.zeros_like(b), top)
