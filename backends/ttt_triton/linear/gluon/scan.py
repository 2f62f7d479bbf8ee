"""The sequential part of the forward pass, as ``linear.scan`` for bfloat16, a mini-batch a step."""

# pyright: reportGeneralTypeIssues=false
# Calls of jitted functions are typed as if they never returned.
from __future__ import annotations

import triton.experimental.gluon.language as gl
from triton.experimental import gluon
from triton.experimental.gluon.language.nvidia.ampere import async_copy, mma_v2

from .layouts import (
    column,
    copied,
    maps,
    operands,
    right_operand,
    share_four,
    share_two,
    shared_sums,
    sum_four,
    sum_two,
    swizzled,
    tokens,
    upright,
)

@gluon.jit
def fetch(n, k_ptr, v_ptr, ks, vs, start, length, phase, head, H, K: gl.constexpr, D: gl.constexpr, R: gl.constexpr):
    """Begin to copy k and v of mini-batch n, 0 where there is no token."""
    layout: gl.constexpr = copied(D // 16)
    i, d = gl.arange(0, R, gl.SliceLayout(1, layout)), gl.arange(0, D, gl.SliceLayout(0, layout))
    place = n * K + i - phase
    valid = ((i < K) & (place >= 0) & (place < length))[:, None]
    at = ((start + n * K - phase).to(gl.int64) * H + head) * D + i[:, None] * (H * D) + d[None, :]
    async_copy.async_copy_global_to_shared(ks.index(n // 2 % 2), k_ptr + at, valid)
    async_copy.async_copy_global_to_shared(vs.index(n // 2 % 2), v_ptr + at, valid)
    async_copy.commit_group()


@gluon.jit
def fetched(n, ks, vs, gamma, beta, W: gl.constexpr):
    """(X as left operand, X as right operand, u) of mini-batch n."""
    rows = ks.index(n // 2 % 2)
    u = gamma * (beta - vs.index(n // 2 % 2).load(tokens(W)).to(gl.float32) + rows.load(tokens(W)).to(gl.float32))
    return rows.load(gl.DotOperandLayout(0, tokens(W), 2)), rows.load(gl.DotOperandLayout(1, maps(W), 2)), u


@gluon.jit
def rates(n, lr_ptr, i, start, length, phase, head, H, K: gl.constexpr):
    """ℓ of mini-batch n, 0 where there is no token. In float32: narrower ones would be packed, and waited for, where they are loaded."""
    place = n * K + i - phase
    return gl.load(lr_ptr + (start + n * K - phase).to(gl.int64) * H + head + i * H, (i < K) & (place >= 0) & (place < length), 0.0)


@gluon.jit
def step(
    n,
    weights,
    b,
    left,
    right,
    u,
    lr,
    here,
    there,
    four,
    two,
    gamma,
    beta,
    last,
    squares,
    k_ptr,
    v_ptr,
    lr_ptr,
    opening_ptr,
    G_ptr,
    start,
    length,
    phase,
    row,
    head,
    H,
    eps,
    K: gl.constexpr,
    D: gl.constexpr,
    R: gl.constexpr,
):
    """Mini-batch n: store its G and return (W, b, the next one's operands and u, ℓ of the one after it).

    ``here`` is where every second mini-batch waits, this one's kind, and ``there`` where the others do: so that one barrier, between the shares of
    the sums and their sums, is enough for everything that warps tell each other.
    """
    W: gl.constexpr = D // 16
    i, d = gl.arange(0, R, gl.SliceLayout(1, tokens(W))), gl.arange(0, D, gl.SliceLayout(0, tokens(W)))
    tile = i[:, None] * (H * D) + d[None, :]
    place = n * K + i - phase
    inside = (i < K) & (place >= 0) & (place < length)
    square = gamma * gamma
    z = mma_v2(left, right_operand(weights, W), b)
    if opening_ptr is not None:
        opening = (inside & (n == 0))[:, None]
        z = gl.where(opening, gl.load(opening_ptr + row.to(gl.int64) * K * H * D + head * D + tile, opening, 0.0), z)
    share_four(four, z, square * z, z * z, square * z * z, W)
    share_two(two, u * z, u, W)
    async_copy.wait_group(2)
    m, bent, r, curved = sum_four(four, W)
    along, offset = sum_two(two, W)
    next_left, next_right, next_u = fetched(n + 1, there[0], there[1], gamma, beta, W)
    fetch(n + 4, k_ptr, v_ptr, here[0], here[1], start, length, phase, head, H, K, D, R)
    next_lr = rates(n + 2, lr_ptr, i, start, length, phase, head, H, K)
    m = m / D
    r = gl.rsqrt(r / D - m * m + eps)
    s1 = (r * (bent - m * squares) + offset) / D
    s2 = r * (r * (curved - m * (2 * bent - m * squares)) + along - m * offset) / D
    G = (z - m) * (square * (r * r) - r * r * s2) + (u * r - r * s1)
    gl.store(G_ptr + (start + n * K - phase).to(gl.int64) * H * D + head * D + tile, G.to(gl.bfloat16), inside[:, None])
    across, turned = operands(gl.where(inside & ((n + 1) * K <= phase + length), -last * lr, 0.0)[:, None] * G, W)
    ones = gl.full([R, R], 1.0, gl.bfloat16, gl.DotOperandLayout(0, tokens(W), 2))
    return mma_v2(turned, right, weights), mma_v2(ones, across, b), next_left, next_right, next_u, next_lr


@gluon.jit
def keep(weights, b, block, Ws_ptr, bs_ptr, head, H, D: gl.constexpr, R: gl.constexpr):
    """Store W and b at a block's start."""
    W: gl.constexpr = D // 16
    at = block.to(gl.int64) * H + head
    i, d = gl.arange(0, R, gl.SliceLayout(1, tokens(W))), gl.arange(0, D, gl.SliceLayout(0, tokens(W)))
    flat = upright(weights, W)
    source, target = gl.arange(0, D, gl.SliceLayout(1, flat.type.layout)), gl.arange(0, D, gl.SliceLayout(0, flat.type.layout))
    gl.store(Ws_ptr + at * D * D + source[:, None] * D + target[None, :], flat)
    gl.store(bs_ptr + at * D + i[:, None] * 0 + d[None, :], b, (i == 0)[:, None])


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
    bfloat16, ℓ is float32. See ``linear.tiles.loss_gradient`` for G and for why the mean of a centred row is summed.
    """
    W: gl.constexpr = D // 16
    gl.static_assert(gl.num_warps() == W)
    head, row = gl.program_id(0), gl.program_id(1)
    start, length, phase, first = row * longest, longest, 0, row * blocks
    if start_ptr is not None:
        start, length, phase, first = gl.load(start_ptr + row), gl.load(length_ptr + row), gl.load(phase_ptr + row), gl.load(first_ptr + row)
    even_k, even_v = gl.allocate_shared_memory(gl.bfloat16, [2, R, D], swizzled(W)), gl.allocate_shared_memory(gl.bfloat16, [2, R, D], swizzled(W))
    odd_k, odd_v = gl.allocate_shared_memory(gl.bfloat16, [2, R, D], swizzled(W)), gl.allocate_shared_memory(gl.bfloat16, [2, R, D], swizzled(W))
    even_four, odd_four = gl.allocate_shared_memory(gl.float32, [R, W, 4], shared_sums()), gl.allocate_shared_memory(gl.float32, [R, W, 4], shared_sums())
    even_two, odd_two = gl.allocate_shared_memory(gl.float32, [R, W, 2], shared_sums()), gl.allocate_shared_memory(gl.float32, [R, W, 2], shared_sums())
    fetch(0, k_ptr, v_ptr, even_k, even_v, start, length, phase, head, H, K, D, R)
    fetch(1, k_ptr, v_ptr, odd_k, odd_v, start, length, phase, head, H, K, D, R)
    fetch(2, k_ptr, v_ptr, even_k, even_v, start, length, phase, head, H, K, D, R)
    fetch(3, k_ptr, v_ptr, odd_k, odd_v, start, length, phase, head, H, K, D, R)

    e, c = gl.arange(0, D, gl.SliceLayout(1, maps(W))), gl.arange(0, D, gl.SliceLayout(0, maps(W)))
    i, d = gl.arange(0, R, gl.SliceLayout(1, tokens(W))), gl.arange(0, D, gl.SliceLayout(0, tokens(W)))
    matrix, vector = c[None, :] * D + column(e, D)[:, None], i[:, None] * 0 + d[None, :]
    top = (i == 0)[:, None]
    weights = gl.load(W_ptr + row.to(gl.int64) * W_stride + head * D * D + matrix)
    W_mean = (gl.sum(weights, 0) / D)[None, :]
    weights -= W_mean
    # R equal rows: they are updated by a product, because a sum over rows takes longer.
    b = gl.load(b_ptr + row.to(gl.int64) * b_stride + head * D + vector)
    b_mean = (gl.sum(b, 1) / D)[:, None]
    b -= b_mean
    gamma, beta = gl.load(gamma_ptr + head * D + d)[None, :], gl.load(beta_ptr + head * D + d)[None, :]
    squares = gl.sum(gl.sum(gamma * gamma, 1), 0)
    last = gl.load(scale_ptr + K - 1)
    even_lr = rates(0, lr_ptr, i, start, length, phase, head, H, K)
    odd_lr = rates(1, lr_ptr, i, start, length, phase, head, H, K)
    async_copy.wait_group(3)
    left, right, u = fetched(0, even_k, even_v, gamma, beta, W)

    for n in range(0, gl.cdiv(phase + length, K), 2):
        if n % BLOCK == 0:
            keep(weights, b, first + n // BLOCK, Ws_ptr, bs_ptr, head, H, D, R)
        weights, b, left, right, u, even_lr = step(
            *(n, weights, b, left, right, u, even_lr, (even_k, even_v), (odd_k, odd_v), even_four, even_two, gamma, beta, last, squares),
            *(k_ptr, v_ptr, lr_ptr, opening_ptr, G_ptr, start, length, phase, row, head, H, eps, K, D, R),
        )
        # After an odd number of mini-batches comes one without tokens, which changes nothing.
        weights, b, left, right, u, odd_lr = step(
            *(n + 1, weights, b, left, right, u, odd_lr, (odd_k, odd_v), (even_k, even_v), odd_four, odd_two, gamma, beta, last, squares),
            *(k_ptr, v_ptr, lr_ptr, None, G_ptr, start, length, phase, row, head, H, eps, K, D, R),
        )
    async_copy.wait_group(0)

    end = row.to(gl.int64) * H + head
    gl.store(W_end_ptr + end * D * D + matrix, weights + W_mean)
    gl.store(b_end_ptr + end * D + vector, b + b_mean, top)
    # ``readout`` knows better where a mini-batch is left open.
    gl.store(S_W_ptr + end * D * D + matrix, gl.zeros_like(weights))
    gl.store(S_b_ptr + end * D + vector, gl.zeros_like(b), top)
