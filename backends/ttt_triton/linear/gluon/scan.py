"""The sequential part of the forward pass, as ``linear.scan`` for bfloat16, a mini-batch a step, and read-outs on the way if asked for."""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportOperatorIssue=false
# What is compiled has other types than what Python would run.
from __future__ import annotations

import triton.experimental.gluon.language as gl
from triton.experimental import gluon
from triton.experimental.gluon.language.nvidia.ampere import async_copy, mma_v2

from .gradient import gradient_from
from .layouts import (
    column,
    copied,
    copied_numbers,
    maps,
    operands,
    right_operand,
    share_four,
    share_two,
    shared_four,
    shared_numbers,
    shared_two,
    sum_four,
    sum_two,
    swizzled,
    tokens,
    upright,
)
from .readout import answered, asked, factors, put


@gluon.jit
def room(q_ptr, R: gl.constexpr, D: gl.constexpr):
    """Shared memory for k, v, ℓ and, if asked for, q of two mini-batches."""
    W: gl.constexpr = D // 16
    k, v = gl.allocate_shared_memory(gl.bfloat16, [2, R, D], swizzled(W)), gl.allocate_shared_memory(gl.bfloat16, [2, R, D], swizzled(W))
    rates = gl.allocate_shared_memory(gl.float32, [2, R], shared_numbers())
    rooms = k, v, rates
    if q_ptr is not None:
        rooms = k, v, rates, gl.allocate_shared_memory(gl.bfloat16, [2, R, D], swizzled(W))
    return rooms


@gluon.jit
def fetch(n, room, q_ptr, k_ptr, v_ptr, lr_ptr, start, length, phase, head, H, K: gl.constexpr, D: gl.constexpr, R: gl.constexpr):
    """Begin to copy k, v, ℓ and q of mini-batch n, 0 where there is no token."""
    W: gl.constexpr = D // 16
    i, d = gl.arange(0, R, gl.SliceLayout(1, copied(W))), gl.arange(0, D, gl.SliceLayout(0, copied(W)))
    j = gl.arange(0, R, copied_numbers(W))
    place, token = n * K - phase, (start + n * K - phase).to(gl.int64) * H + head
    valid = ((i < K) & (place + i >= 0) & (place + i < length))[:, None]
    at = token * D + i[:, None] * (H * D) + d[None, :]
    async_copy.async_copy_global_to_shared(room[0].index(n // 2 % 2), k_ptr + at, valid)
    async_copy.async_copy_global_to_shared(room[1].index(n // 2 % 2), v_ptr + at, valid)
    async_copy.async_copy_global_to_shared(room[2].index(n // 2 % 2), lr_ptr + token + j * H, (j < K) & (place + j >= 0) & (place + j < length))
    if q_ptr is not None:
        async_copy.async_copy_global_to_shared(room[3].index(n // 2 % 2), q_ptr + at, valid)
    async_copy.commit_group()


@gluon.jit
def fetched(n, room, gamma, beta, W: gl.constexpr):
    """(X as left operand, X as right operand, u, ℓ) of mini-batch n."""
    rows = room[0].index(n // 2 % 2)
    u = gamma * (beta - room[1].index(n // 2 % 2).load(tokens(W)).to(gl.float32) + rows.load(tokens(W)).to(gl.float32))
    left, right = rows.load(gl.DotOperandLayout(0, tokens(W), 2)), rows.load(gl.DotOperandLayout(1, maps(W), 2))
    return left, right, u, room[2].index(n // 2 % 2).load(gl.SliceLayout(1, tokens(W)))


@gluon.jit
def step(
    n,
    weights,
    b,
    inputs,
    answer,
    here,
    there,
    four,
    two,
    out,
    out_before,
    gamma,
    beta,
    last,
    squares,
    factor,
    q_ptr,
    opening_q_ptr,
    y_ptr,
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
    """Mini-batch n: store its G, and y of the one before, and return (W, b, the next one's inputs, what y waits for).

    ``here`` is where every second mini-batch waits, this one's kind, and ``there`` where the others do: so that one barrier, between the shares of
    the sums and their sums, is enough for everything that warps tell each other. ``out`` has the shares of y's sums, ``out_before`` those of the one
    before.
    """
    W: gl.constexpr = D // 16
    i, d = gl.arange(0, R, gl.SliceLayout(1, tokens(W))), gl.arange(0, D, gl.SliceLayout(0, tokens(W)))
    tile = i[:, None] * (H * D) + d[None, :]
    place = n * K + i - phase
    inside = (i < K) & (place >= 0) & (place < length)
    token = (start + n * K - phase).to(gl.int64) * H * D + head * D
    square = gamma * gamma
    left, right, u, lr = inputs
    z = mma_v2(left, right_operand(weights, W), b)
    opening, slot = (inside & (n == 0))[:, None], row.to(gl.int64) * K * H * D + head * D
    if opening_ptr is not None:
        z = gl.where(opening, gl.load(opening_ptr + slot + tile, opening, 0.0), z)
    share_four(four, z, square * z, z * z, square * z * z, W)
    share_two(two, u * z, u, W)
    waiting = ()
    if q_ptr is not None:
        at = n // 2 % 2
        q, read, seen = asked(here[3].index(at), here[0].index(at), here[2].index(at), weights, b, factor, W)
        if opening_q_ptr is not None:
            read = gl.where(opening, gl.load(opening_q_ptr + slot + tile, opening, 0.0), read)
        waiting = q, read, seen
    async_copy.wait_group(2)
    whole, bent, power, curved = sum_four(four, W)
    along, offset = sum_two(two, W)
    following = fetched(n + 1, there, gamma, beta, W)
    fetch(n + 4, here, q_ptr, k_ptr, v_ptr, lr_ptr, start, length, phase, head, H, K, D, R)
    G = gradient_from(whole, bent, power, curved, along, offset, z, u, square, squares, D, eps)
    gl.store(G_ptr + token + tile, G.to(gl.bfloat16), inside[:, None])
    if q_ptr is not None:
        before = (i < K) & (place >= K) & (place < length + K)
        put(answer, out_before, y_ptr + token - K * H * D + tile, before[:, None], gamma, beta, D, eps)
        answer = answered(waiting, G, out, W)
    across, turned = operands(gl.where(inside & ((n + 1) * K <= phase + length), -last * lr, 0.0)[:, None] * G, W)
    ones = gl.full([R, R], 1.0, gl.bfloat16, gl.DotOperandLayout(0, tokens(W), 2))
    return mma_v2(turned, right, weights), mma_v2(ones, across, b), following, answer


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


@gluon.jit(do_not_specialize=("begin", "part"))
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
    q_ptr,
    opening_q_ptr,
    y_ptr,
    longest,
    blocks,
    begin,
    part,
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

    Where q is given, y of the tokens, too, as ``linear.readout`` says (``begin`` is 0 then and K at most 16). A mini-batch's read-outs have the
    weights that its training rows have; the sums of their LayerNorm pass the barrier of the next mini-batch.

    Other arguments are those of ``linear.scan``; D is 16, 32, 64 or 128, R is K but 16 at the least, BLOCK the mini-batches of a block, an even
    number; tokens, G and Ws are bfloat16, ℓ is float32. See ``linear.tiles.loss_gradient`` for G and for why the mean of a centred row is summed.
    """
    W: gl.constexpr = D // 16
    gl.static_assert(gl.num_warps() == W)
    head, row = gl.program_id(0), gl.program_id(1)
    start, length, phase, first = row * longest, longest, 0, row * blocks
    if start_ptr is not None:
        start, length, phase, first = gl.load(start_ptr + row), gl.load(length_ptr + row), gl.load(phase_ptr + row), gl.load(first_ptr + row)
    even, odd = room(q_ptr, R, D), room(q_ptr, R, D)
    even_four, odd_four, even_two, odd_two = shared_four(R, W), shared_four(R, W), shared_two(R, W), shared_two(R, W)
    even_out, odd_out = shared_two(R, W), shared_two(R, W)
    fetch(begin * BLOCK + 0, even, q_ptr, k_ptr, v_ptr, lr_ptr, start, length, phase, head, H, K, D, R)
    fetch(begin * BLOCK + 1, odd, q_ptr, k_ptr, v_ptr, lr_ptr, start, length, phase, head, H, K, D, R)
    fetch(begin * BLOCK + 2, even, q_ptr, k_ptr, v_ptr, lr_ptr, start, length, phase, head, H, K, D, R)
    fetch(begin * BLOCK + 3, odd, q_ptr, k_ptr, v_ptr, lr_ptr, start, length, phase, head, H, K, D, R)

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
    async_copy.wait_group(3)
    inputs = fetched(begin * BLOCK, even, gamma, beta, W)
    factor, answer = (), ()
    if q_ptr is not None:
        # Before the first mini-batch there is none to answer.
        factor, answer = factors(scale_ptr, K, R, W), (gl.zeros([R, D], gl.bfloat16, tokens(W)), gl.zeros([R, D], gl.float32, tokens(W)))

    for n in range(begin * BLOCK, gl.minimum(gl.cdiv(phase + length, K), (begin + part) * BLOCK), 2):
        if n % BLOCK == 0:
            keep(weights, b, first + n // BLOCK, Ws_ptr, bs_ptr, head, H, D, R)
        weights, b, inputs, answer = step(
            *(n, weights, b, inputs, answer, even, odd, even_four, even_two, even_out, odd_out, gamma, beta, last, squares, factor),
            *(q_ptr, opening_q_ptr, y_ptr, k_ptr, v_ptr, lr_ptr, opening_ptr, G_ptr, start, length, phase, row, head, H, eps, K, D, R),
        )
        # After an odd number of mini-batches comes one without tokens, which changes nothing.
        weights, b, inputs, answer = step(
            *(n + 1, weights, b, inputs, answer, odd, even, odd_four, odd_two, odd_out, even_out, gamma, beta, last, squares, factor),
            *(q_ptr, None, y_ptr, k_ptr, v_ptr, lr_ptr, None, G_ptr, start, length, phase, row, head, H, eps, K, D, R),
        )
    async_copy.wait_group(0)
    if q_ptr is not None:
        place = (gl.cdiv(phase + length, K) - 1) // 2 * 2 * K + K + i - phase
        at = (start + place).to(gl.int64)[:, None] * H * D + head * D + d[None, :]
        put(answer, odd_out, y_ptr + at, ((i < K) & (place >= 0) & (place < length))[:, None], gamma, beta, D, eps)

    end = row.to(gl.int64) * H + head
    gl.store(W_end_ptr + end * D * D + matrix, weights + W_mean)
    gl.store(b_end_ptr + end * D + vector, b + b_mean, top)
    # As in ``linear.scan``.
    gl.store(S_W_ptr + end * D * D + matrix, gl.zeros_like(weights))
    gl.store(S_b_ptr + end * D + vector, gl.zeros_like(b), top)
