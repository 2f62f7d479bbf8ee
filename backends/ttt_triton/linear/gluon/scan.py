"""The sequential part of the forward pass, as ``linear.scan`` for bfloat16, a mini-batch a step."""

# pyright: reportGeneralTypeIssues=false
# Calls of jitted functions are typed as if they never returned.
from __future__ import annotations

import triton.experimental.gluon.language as gl
from triton.experimental import gluon
from triton.experimental.gluon.language.nvidia.ampere import async_copy, mma_v2

from .layouts import column, copied, everyone, maps, operands, right_operand, share_four, share_two, sum_four, sum_two, swizzled, tokens, upright

AHEAD = gl.constexpr(3)


@gluon.jit
def fetch(n, k_ptr, v_ptr, ks, vs, start, length, phase, head, H, K: gl.constexpr, D: gl.constexpr, R: gl.constexpr):
    """Begin to copy k and v of mini-batch n, 0 where there is no token."""
    layout: gl.constexpr = copied(D // 16)
    i, d = gl.arange(0, R, gl.SliceLayout(1, layout)), gl.arange(0, D, gl.SliceLayout(0, layout))
    place = n * K + i - phase
    valid = ((i < K) & (place >= 0) & (place < length))[:, None]
    at = ((start + n * K - phase).to(gl.int64) * H + head) * D + i[:, None] * (H * D) + d[None, :]
    async_copy.async_copy_global_to_shared(ks.index(n % (AHEAD + 1)), k_ptr + at, valid)
    async_copy.async_copy_global_to_shared(vs.index(n % (AHEAD + 1)), v_ptr + at, valid)
    async_copy.commit_group()


@gluon.jit
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
    H,
    eps,
    K: gl.constexpr,
    D: gl.constexpr,
    R: gl.constexpr,
    BLOCK: gl.constexpr,
):
    """Of one head (axis 0) of a sequence (axis 1), G of its tokens, and W, b at its blocks' starts and after its last whole mini-batch.

    With X, V the rows of a mini-batch (docs/mathematics.md, equation 12, on the LN-centred state of section 8):

        Z = XW + b        G = LN*(Z; X + LN(Z) − V)        W ← W − s_{K−1} Xᵀ diag(ℓ) G        b ← b − s_{K−1} 1ᵀ diag(ℓ) G

    Arguments are those of ``linear.scan``; D is 16, 32, 64 or 128, R is K but 16 at the least, BLOCK the mini-batches of a block; tokens, G and Ws are
    bfloat16. See ``linear.tiles.loss_gradient`` for G and for why the mean of a centred row is summed.
    """
    W: gl.constexpr = D // 16
    gl.static_assert(gl.num_warps() == W)
    head, row = gl.program_id(0), gl.program_id(1)
    start, length, phase, first = row * longest, longest, 0, row * blocks
    if start_ptr is not None:
        start, length, phase, first = gl.load(start_ptr + row), gl.load(length_ptr + row), gl.load(phase_ptr + row), gl.load(first_ptr + row)
    ks = gl.allocate_shared_memory(gl.bfloat16, [AHEAD + 1, R, D], swizzled(W))
    vs = gl.allocate_shared_memory(gl.bfloat16, [AHEAD + 1, R, D], swizzled(W))
    four = gl.allocate_shared_memory(gl.float32, [R, W, 4], gl.SwizzledSharedLayout(1, 1, 1, [2, 1, 0]))
    two = gl.allocate_shared_memory(gl.float32, [R, W, 2], gl.SwizzledSharedLayout(1, 1, 1, [2, 1, 0]))
    for ahead in gl.static_range(AHEAD):
        fetch(ahead, k_ptr, v_ptr, ks, vs, start, length, phase, head, H, K, D, R)

    e, c = gl.arange(0, D, gl.SliceLayout(1, maps(W))), gl.arange(0, D, gl.SliceLayout(0, maps(W)))
    i, d = gl.arange(0, R, gl.SliceLayout(1, tokens(W))), gl.arange(0, D, gl.SliceLayout(0, tokens(W)))
    matrix, vector = c[None, :] * D + column(e, D)[:, None], i[:, None] * 0 + d[None, :]
    tile, top = i[:, None] * (H * D) + d[None, :], (i == 0)[:, None]
    weights = gl.load(W_ptr + row.to(gl.int64) * W_stride + head * D * D + matrix)
    W_mean = (gl.sum(weights, 0) / D)[None, :]
    weights -= W_mean
    # R equal rows: they are updated by a product, because a sum over rows takes longer.
    b = gl.load(b_ptr + row.to(gl.int64) * b_stride + head * D + vector)
    b_mean = (gl.sum(b, 1) / D)[:, None]
    b -= b_mean
    ones = gl.full([R, R], 1.0, gl.bfloat16, gl.DotOperandLayout(0, tokens(W), 2))
    gamma, beta = gl.load(gamma_ptr + head * D + d)[None, :], gl.load(beta_ptr + head * D + d)[None, :]
    square = gamma * gamma
    squares = gl.sum(gl.sum(square, 1), 0)
    last = gl.load(scale_ptr + K - 1)
    lr = gl.load(lr_ptr + (start - phase).to(gl.int64) * H + head + i * H, (i < K) & (i >= phase) & (i - phase < length), 0.0)

    for n in range(0, gl.cdiv(phase + length, K)):
        token = (start + n * K - phase).to(gl.int64) * H + head
        place = n * K + i - phase
        inside = (i < K) & (place >= 0) & (place < length)
        next_lr = gl.load(lr_ptr + token + (K + i) * H, (i < K) & (place + K >= 0) & (place + K < length), 0.0)
        if n % BLOCK == 0:
            at = (first + n // BLOCK).to(gl.int64) * H + head
            flat = upright(weights, W)
            from_, to = gl.arange(0, D, gl.SliceLayout(1, flat.type.layout)), gl.arange(0, D, gl.SliceLayout(0, flat.type.layout))
            gl.store(Ws_ptr + at * D * D + from_[:, None] * D + to[None, :], flat)
            gl.store(bs_ptr + at * D + vector, b, top)

        async_copy.wait_group(AHEAD - 1)
        rows = ks.index(n % (AHEAD + 1))
        u = gamma * (beta - vs.index(n % (AHEAD + 1)).load(tokens(W)).to(gl.float32) + rows.load(tokens(W)).to(gl.float32))
        z = mma_v2(rows.load(gl.DotOperandLayout(0, tokens(W), 2)), right_operand(weights, W), b)
        x = rows.load(gl.DotOperandLayout(1, maps(W), 2))
        if opening_ptr is not None:
            opening = (inside & (n == 0))[:, None]
            z = gl.where(opening, gl.load(opening_ptr + row.to(gl.int64) * K * H * D + head * D + tile, opening, 0.0), z)
        share_four(four, z, square * z, z * z, square * z * z, W)
        share_two(two, u * z, u, W)
        m, bent, r, curved = sum_four(four, W)
        along, offset = sum_two(two, W)
        fetch(n + AHEAD, k_ptr, v_ptr, ks, vs, start, length, phase, head, H, K, D, R)
        m = m / D
        r = gl.rsqrt(r / D - m * m + eps)
        s1 = (r * (bent - m * squares) + offset) / D
        s2 = r * (r * (curved - m * (2 * bent - m * squares)) + along - m * offset) / D
        G = (z - m) * (square * (r * r) - r * r * s2) + (u * r - r * s1)
        gl.store(G_ptr + token * D + tile, G.to(gl.bfloat16), inside[:, None])
        right, left = operands(gl.where(inside & ((n + 1) * K <= phase + length), -last * lr.to(gl.float32), 0.0)[:, None] * G, W)
        weights = mma_v2(left, x, weights)
        b = mma_v2(ones, right, b)
        lr = next_lr
    async_copy.wait_group(0)

    end = row.to(gl.int64) * H + head
    gl.store(W_end_ptr + end * D * D + matrix, weights + W_mean)
    gl.store(b_end_ptr + end * D + vector, b + b_mean, top)
    # ``readout`` knows better where a mini-batch is left open.
    gl.store(S_W_ptr + end * D * D + matrix, gl.zeros_like(weights))
    gl.store(S_b_ptr + end * D + vector, gl.zeros_like(b), top)
