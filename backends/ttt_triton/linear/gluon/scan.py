"""The sequential part of the forward pass, as ``linear.scan`` for bfloat16, a mini-batch a step, and read-outs on the way if asked for."""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportOperatorIssue=false
# What is compiled has other types than what Python would run.
from __future__ import annotations

import triton.experimental.gluon.language as gl
from triton.experimental import gluon
from triton.experimental.gluon.language.nvidia.ampere import async_copy, mma_v2

from .copies import copied, copied_numbers, of_tokens, put_numbers, send, shared_numbers, swizzled
from .gradient import gradient_from, moments
from .layouts import by_column, column, maps, operands, right_operand, tokens
from .readout import answered, asked, factors, put
from .sums import share_four, share_two, shared_four, shared_two, sum_four, sum_two


@gluon.jit
def room(given, R: gl.constexpr, D: gl.constexpr):
    """Shared memory for mini-batches of one kind, even or odd: two of k, v, ℓ and, if given, q; the shares of sums; G and y on their way out."""
    W: gl.constexpr = D // 16
    k, v = gl.allocate_shared_memory(gl.bfloat16, [2, R, D], swizzled(W)), gl.allocate_shared_memory(gl.bfloat16, [2, R, D], swizzled(W))
    rates = gl.allocate_shared_memory(gl.float32, [2, R], shared_numbers())
    inputs, sums, results = (k, v, rates), (shared_four(R, W), shared_two(R, W)), ()
    if given[3] is not None:
        inputs = k, v, rates, gl.allocate_shared_memory(gl.bfloat16, [2, R, D], swizzled(W))
        sums = sums[0], sums[1], shared_two(R, W)
        results = gl.allocate_shared_memory(gl.bfloat16, [R, D], swizzled(W)), gl.allocate_shared_memory(gl.bfloat16, [R, D], swizzled(W))
    else:
        results = (gl.allocate_shared_memory(gl.bfloat16, [R, D], swizzled(W)),)
    return inputs, sums, results


@gluon.jit
def token(n, where, K: gl.constexpr):
    """The place of mini-batch n among all heads of all tokens."""
    return (where[0] + n * K - where[2]).to(gl.int64) * where[6] + where[5]


@gluon.jit
def fetch(n, inputs, given, where, K: gl.constexpr, D: gl.constexpr, R: gl.constexpr):
    """Begin to copy what is ``given`` of mini-batch n, 0 where there is no token."""
    W: gl.constexpr = D // 16
    _, length, phase, _, _, _, H = where
    i, d = gl.arange(0, R, gl.SliceLayout(1, copied(W))), gl.arange(0, D, gl.SliceLayout(0, copied(W)))
    j = gl.arange(0, R, copied_numbers(W))
    place, at = n * K - phase, token(n, where, K)
    valid, one = ((i < K) & (place + i >= 0) & (place + i < length))[:, None], (j < K) & (place + j >= 0) & (place + j < length)
    tile = i[:, None] * (H * D) + d[None, :]
    async_copy.async_copy_global_to_shared(inputs[0].index(n // 2 % 2), given[0] + at * D + tile, valid)
    async_copy.async_copy_global_to_shared(inputs[1].index(n // 2 % 2), given[1] + at * D + tile, valid)
    async_copy.async_copy_global_to_shared(inputs[2].index(n // 2 % 2), given[2] + at + j * H, one)
    if given[3] is not None:
        async_copy.async_copy_global_to_shared(inputs[3].index(n // 2 % 2), given[3] + at * D + tile, valid)
    async_copy.commit_group()


@gluon.jit
def fetched(n, inputs, gamma, beta, W: gl.constexpr):
    """(X as left operand, X as right operand, u, ℓ) of mini-batch n."""
    rows = inputs[0].index(n // 2 % 2)
    u = gamma * (beta - inputs[1].index(n // 2 % 2).load(tokens(W)).to(gl.float32) + rows.load(tokens(W)).to(gl.float32))
    left, right = rows.load(gl.DotOperandLayout(0, tokens(W), 2)), rows.load(gl.DotOperandLayout(1, maps(W), 2))
    return left, right, u, inputs[2].index(n // 2 % 2).load(gl.SliceLayout(1, tokens(W)))


@gluon.jit
def step(n, weights, b, rows, answer, here, there, learned, given, openings, results, where, eps, K: gl.constexpr, D: gl.constexpr, R: gl.constexpr):
    """Mini-batch n: send away G of the one before it and y of the one before that, and return (W, b, the next one's rows, what y waits for).

    ``here`` is the room of every second mini-batch, this one's kind, and ``there`` that of the others: so that one barrier, between the shares of
    the sums and their sums, is enough for everything that warps tell each other.
    """
    W: gl.constexpr = D // 16
    _, length, phase, _, row, head, H = where
    gamma, beta, squares, last, factor = learned
    i, d = gl.arange(0, R, gl.SliceLayout(1, tokens(W))), gl.arange(0, D, gl.SliceLayout(0, tokens(W)))
    place = n * K + i - phase
    inside = (i < K) & (place >= 0) & (place < length)
    square = gamma * gamma
    left, right, u, lr = rows
    z = mma_v2(left, right_operand(weights, W), b)
    opening, slot = (inside & (n == 0))[:, None], row.to(gl.int64) * K * H * D + head * D + i[:, None] * (H * D) + d[None, :]
    if openings[0] is not None:
        z = gl.where(opening, gl.load(openings[0] + slot, opening, 0.0), z)
    share_four(here[1][0], z, square * z, z * z, square * z * z, W)
    share_two(here[1][1], u * z, u, W)
    waiting = ()
    if given[3] is not None:
        at = n // 2 % 2
        q, read, seen = asked(here[0][3].index(at), here[0][0].index(at), here[0][2].index(at), weights, b, factor, W)
        if openings[1] is not None:
            read = gl.where(opening, gl.load(openings[1] + slot, opening, 0.0), read)
        waiting = q, read, seen
    async_copy.wait_group(2)
    whole, bent, power, curved = sum_four(here[1][0], W)
    along, offset = sum_two(here[1][1], W)
    following = fetched(n + 1, there[0], gamma, beta, W)
    fetch(n + 4, here[0], given, where, K, D, R)
    found = moments(whole, bent, power, curved, along, offset, squares, D, eps)
    G = gradient_from(found, z, u, square)
    send_tokens(n - 1, there[2][0], results[0], where, K)
    here[2][0].store(G.to(gl.bfloat16))
    record(n, found, results[2], where, K)
    if given[3] is not None:
        send_tokens(n - 2, there[2][1], results[1], where, K)
        y, shift, r = put(answer, there[1][2], gamma, beta, D, eps)
        here[2][1].store(y)
        record_norm(n - 1, shift, r, results[2], where, K)
        answer = answered(waiting, G, here[1][2], W)
    across, turned = operands(gl.where(inside & ((n + 1) * K <= phase + length), -last * lr, 0.0)[:, None] * G, W)
    ones = gl.full([R, R], 1.0, gl.bfloat16, gl.DotOperandLayout(0, tokens(W), 2))
    return mma_v2(turned, right, weights), mma_v2(ones, across, b), following, answer


@gluon.jit
def send_tokens(n, room, ptr, where, K: gl.constexpr):
    """Store mini-batch n of a result, where there is one, its tokens and a pointer."""
    _, length, phase, earliest, _, _, H = where
    D: gl.constexpr = room.shape[1]
    if ptr is not None:
        send(room, ptr + token(n, where, K) * D, H * D, phase - n * K, gl.where(n >= earliest, gl.minimum(phase + length - n * K, K), 0))


@gluon.jit
def keep(weights, b, out, bs_ptr, at, W: gl.constexpr):
    """Put W into shared memory on its way out, and store b, at the start of the block at place ``at``, if there is a pointer."""
    if bs_ptr is not None:
        i, d = gl.arange(0, b.shape[0], gl.SliceLayout(1, tokens(W))), gl.arange(0, b.shape[1], gl.SliceLayout(0, tokens(W)))
        out.store(by_column(weights.to(gl.bfloat16), W).permute(1, 0))
        gl.store(bs_ptr + at * b.shape[1] + i[:, None] * 0 + d[None, :], b, (i == 0)[:, None])


@gluon.jit
def send_weights(out, Ws_ptr, at):
    """Store W that ``keep`` put into shared memory, after the next barrier."""
    D: gl.constexpr = out.shape[0]
    if Ws_ptr is not None:
        send(out, Ws_ptr + at * D * D, D, 0, D)


@gluon.jit
def record(n, found, ptr, where, K: gl.constexpr):
    """Store what ``backward`` needs of mini-batch n's moments, if there is a pointer."""
    H = where[6]
    if ptr is not None:
        m, r, s1, s2, straight, square = found
        at = ptr + token(n, where, K) * 8
        put_numbers(at, gl.join(of_tokens(-m * r), of_tokens(r)), H, True)
        first, second = gl.join(of_tokens(s1), of_tokens(s1 + straight)), gl.join(of_tokens(s2), of_tokens(s2 + (s2 + square) / 2))
        put_numbers(at + 4, gl.join(first, second).reshape(m.shape[0], 4), H, True)


@gluon.jit
def record_norm(n, shift, r, ptr, where, K: gl.constexpr):
    """The same of its read-outs, if there are any."""
    H = where[6]
    if ptr is not None:
        put_numbers(ptr + token(n, where, K) * 8 + 2, gl.join(of_tokens(shift), of_tokens(r)), H, n >= 0)


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
    moments_ptr,
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
    weights that its training rows have; the sums of their LayerNorm pass the barrier of the next mini-batch. ``moments``, where given,
    hold what ``linear.op.forward`` says of each token; G, Ws and bs are None where nothing is kept.

    Other arguments are those of ``linear.scan``; D is 16, 32, 64 or 128, R is K but 16 at the least, BLOCK the mini-batches of a block, an even
    number; tokens, G and Ws are bfloat16, ℓ is float32. See ``linear.tiles.loss_gradient`` for G and for why the mean of a centred row is summed.
    """
    W: gl.constexpr = D // 16
    gl.static_assert(gl.num_warps() == W)
    head, row = gl.program_id(0), gl.program_id(1)
    start, length, phase, first = row * longest, longest, 0, row * blocks
    if start_ptr is not None:
        start, length, phase, first = gl.load(start_ptr + row), gl.load(length_ptr + row), gl.load(phase_ptr + row), gl.load(first_ptr + row)
    given, openings, results = (k_ptr, v_ptr, lr_ptr, q_ptr), (opening_ptr, opening_q_ptr), (G_ptr, y_ptr, moments_ptr)
    where = start, length, phase, begin * BLOCK, row, head, H
    even, odd, out = room(given, R, D), room(given, R, D), gl.allocate_shared_memory(gl.bfloat16, [D, D], swizzled(W))
    fetch(begin * BLOCK + 0, even[0], given, where, K, D, R)
    fetch(begin * BLOCK + 1, odd[0], given, where, K, D, R)
    fetch(begin * BLOCK + 2, even[0], given, where, K, D, R)
    fetch(begin * BLOCK + 3, odd[0], given, where, K, D, R)

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
    rows, factor, answer = fetched(begin * BLOCK, even[0], gamma, beta, W), (), ()
    if q_ptr is not None:
        # Before the first mini-batch there is none to answer.
        factor, answer = factors(scale_ptr, K, R, W), (gl.zeros([R, D], gl.bfloat16, tokens(W)), gl.zeros([R, D], gl.float32, tokens(W)))
    learned = gamma, beta, squares, last, factor

    for n in range(begin * BLOCK, gl.minimum(gl.cdiv(phase + length, K), (begin + part) * BLOCK), 2):
        at = (first + n // BLOCK).to(gl.int64) * H + head
        if n % BLOCK == 0:
            keep(weights, b, out, bs_ptr, at, W)
        weights, b, rows, answer = step(n, weights, b, rows, answer, even, odd, learned, given, openings, results, where, eps, K, D, R)
        if n % BLOCK == 0:
            send_weights(out, Ws_ptr, at)
        # After an odd number of mini-batches comes one without tokens, which changes nothing.
        weights, b, rows, answer = step(n + 1, weights, b, rows, answer, odd, even, learned, given, (None, None), results, where, eps, K, D, R)
    async_copy.wait_group(0)
    past = gl.minimum(gl.cdiv(phase + length, 2 * K) * 2, (begin + part) * BLOCK)
    send_tokens(past - 1, odd[2][0], G_ptr, where, K)
    if q_ptr is not None:
        send_tokens(past - 2, odd[2][1], y_ptr, where, K)
        y, shift, r = put(answer, odd[1][2], gamma, beta, D, eps)
        even[2][1].store(y)
        record_norm(past - 1, shift, r, moments_ptr, where, K)
        send_tokens(past - 1, even[2][1], y_ptr, where, K)

    end = row.to(gl.int64) * H + head
    gl.store(W_end_ptr + end * D * D + matrix, weights + W_mean)
    gl.store(b_end_ptr + end * D + vector, b + b_mean, top)
    # As in ``linear.scan``.
    gl.store(S_W_ptr + end * D * D + matrix, gl.zeros_like(weights))
    gl.store(S_b_ptr + end * D + vector, gl.zeros_like(b), top)
