"""The whole backward pass as one scan, for bfloat16: a mini-batch a step from the last to the first, two of them with the weights of the earlier."""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportOperatorIssue=false
# What is compiled has other types than what Python would run.
from __future__ import annotations

import triton.experimental.gluon.language as gl
from triton.experimental import gluon
from triton.experimental.gluon.language.nvidia.ampere import async_copy, mma_v2

from .copies import copied, copied_numbers, copied_records, records, send, shared_numbers, shared_records, swizzled
from .layouts import by_column, column, maps, operands, right_operand, tokens, turned
from .readout import factors, up_to_itself
from .sums import share_four, share_one, share_two, shared_four, shared_one, shared_two, sum_four, sum_one, sum_two


@gluon.jit
def room(R: gl.constexpr, D: gl.constexpr):
    """Shared memory for q, k, v, G, ȳ, ℓ and the moments of two mini-batches."""
    W: gl.constexpr = D // 16
    q, k = gl.allocate_shared_memory(gl.bfloat16, [2, R, D], swizzled(W)), gl.allocate_shared_memory(gl.bfloat16, [2, R, D], swizzled(W))
    v, G = gl.allocate_shared_memory(gl.bfloat16, [2, R, D], swizzled(W)), gl.allocate_shared_memory(gl.bfloat16, [2, R, D], swizzled(W))
    dy, lr = gl.allocate_shared_memory(gl.bfloat16, [2, R, D], swizzled(W)), gl.allocate_shared_memory(gl.float32, [2, R], shared_numbers())
    first, second = (
        gl.allocate_shared_memory(gl.float32, [2, R, 4], shared_records()),
        gl.allocate_shared_memory(gl.float32, [2, R, 4], shared_records()),
    )
    return q, k, v, G, dy, lr, first, second


@gluon.jit
def fetch(n, room, given, where, D: gl.constexpr, R: gl.constexpr):
    """Begin to copy what is ``given`` of mini-batch n, if there is such."""
    W: gl.constexpr = D // 16
    start, _, head, H = where
    i, d = gl.arange(0, R, gl.SliceLayout(1, copied(W))), gl.arange(0, D, gl.SliceLayout(0, copied(W)))
    token = (start + n * R).to(gl.int64) * H + head
    tile, valid = i[:, None] * (H * D) + d[None, :], ((i >= 0) & (n >= 0))[:, None]
    for x in gl.static_range(5):
        async_copy.async_copy_global_to_shared(room[x].index((n >> 1) & 1), given[x] + token * D + tile, valid)
    j = gl.arange(0, R, copied_numbers(W))
    async_copy.async_copy_global_to_shared(room[5].index((n >> 1) & 1), given[5] + token + j * H, (j >= 0) & (n >= 0))
    i, d = gl.arange(0, R, gl.SliceLayout(1, copied_records(W))), gl.arange(0, 4, gl.SliceLayout(0, copied_records(W)))
    tile, valid = i[:, None] * (H * 8) + d[None, :], ((i >= 0) & (n >= 0))[:, None]
    for x in gl.static_range(2):
        async_copy.async_copy_global_to_shared(room[6 + x].index((n >> 1) & 1), given[6] + token * 8 + 4 * x + tile, valid)


@gluon.jit
def fetch_weights(pair, weights, Ws_ptr, bs_ptr, where, D: gl.constexpr):
    """Begin to copy W, b at the start of a pair of mini-batches, if there is such."""
    W: gl.constexpr = D // 16
    _, first, head, H = where
    at = (first + pair).to(gl.int64) * H + head
    i, d = gl.arange(0, D, gl.SliceLayout(1, copied(W))), gl.arange(0, D, gl.SliceLayout(0, copied(W)))
    valid = ((i >= 0) & (pair >= 0))[:, None]
    async_copy.async_copy_global_to_shared(weights[0].index(pair & 1), Ws_ptr + at * D * D + i[:, None] * D + d[None, :], valid)
    j = gl.arange(0, D, copied_numbers(W))
    async_copy.async_copy_global_to_shared(weights[1].index(pair & 1), bs_ptr + at * D + j, (j >= 0) & (pair >= 0))


@gluon.jit
def against(left, rows, start, W: gl.constexpr):
    """left rowsᵀ + start ``[R, R]``, all of it in each warp, for the rows of a tile in shared memory."""
    return mma_v2(gl.convert_layout(left, gl.DotOperandLayout(0, maps(W), 2)), rows.permute([1, 0]).load(gl.DotOperandLayout(1, maps(W), 2)), start)


@gluon.jit
def as_left(square, W: gl.constexpr):
    """``[R, R]`` as left operand of a product whose result is a tile of tokens."""
    return gl.convert_layout(square.to(gl.bfloat16), gl.DotOperandLayout(0, tokens(W), 2), assert_trivial=True)


@gluon.jit
def crossed(left, earlier, last, W: gl.constexpr):
    """−s_{K−1} left Gᵀ diag(ℓ) as left operand, with G and ℓ of the ``earlier`` mini-batch: what times X takes its update off W on the right."""
    R: gl.constexpr = earlier[1].shape[0]
    rates = earlier[5].load(gl.SliceLayout(0, maps(W)))[None, :]
    return as_left(against(left, earlier[3], gl.zeros([R, R], gl.float32, maps(W)), W) * (-last * rates), W)


@gluon.jit
def corrected(z, left, earlier, last, W: gl.constexpr):
    """z − s_{K−1} (left Xᵀ + 1) diag(ℓ) G: from XW + b with W, b at the ``earlier`` mini-batch's start to that at its end."""
    R: gl.constexpr = earlier[1].shape[0]
    rates = earlier[5].load(gl.SliceLayout(0, maps(W)))[None, :]
    pairs = against(left, earlier[1], gl.full([R, R], 1.0, gl.float32, maps(W)), W) * (-last * rates)
    return mma_v2(as_left(pairs, W), earlier[3].load(gl.DotOperandLayout(1, tokens(W), 2)), z)


@gluon.jit
def step(
    n,
    dW,
    db,
    parts,
    here,
    there,
    weights,
    shared,
    gamma,
    beta,
    last,
    factor,
    negative,
    given,
    kept,
    results,
    where,
    count,
    D: gl.constexpr,
    R: gl.constexpr,
    ODD: gl.constexpr,
):
    """Mini-batch n: store its v̄ and Δℓ, q̄ and k̄ of the one after it, and return (Λ, λ, parts of Δγ, Δβ and Δs)."""
    W: gl.constexpr = D // 16
    start, first, head, H = where
    dq_ptr, dk_ptr, dv_ptr, dlr_ptr = results
    dgamma, dbeta, dscale, dlast = parts
    shared_dz, shared_dzq, shared_dW, out_q, out_k, out_v, two, four, one = shared
    slot = (n >> 1) & 1
    q, k, v, G, dy = here[0].index(slot), here[1].index(slot), here[2].index(slot), here[3].index(slot), here[4].index(slot)
    earlier = here
    if ODD:
        earlier = there
    earlier = (
        earlier[0].index(slot),
        earlier[1].index(slot),
        earlier[2].index(slot),
        earlier[3].index(slot),
        earlier[4].index(slot),
        earlier[5].index(slot),
    )
    Wn = weights[0].index(slot)
    i = gl.arange(0, R, gl.SliceLayout(1, tokens(W)))
    token = (start + n * R).to(gl.int64) * H + head
    square = gamma * gamma
    ones = gl.full([R, R], 1.0, gl.float32, maps(W))

    x_left, q_left = k.load(gl.DotOperandLayout(0, tokens(W), 2)), q.load(gl.DotOperandLayout(0, tokens(W), 2))
    right = Wn.load(gl.DotOperandLayout(1, tokens(W), 2))
    b = gl.zeros([R, D], gl.float32, tokens(W)) + weights[1].index(slot).load(gl.SliceLayout(0, tokens(W)))[None, :]
    lr = here[5].index(slot).load(gl.SliceLayout(1, tokens(W)))[:, None]
    rates = here[5].index(slot).load(gl.SliceLayout(0, maps(W)))[None, :]
    off, r, off_q, rq = records(here[6].index(slot), W)
    z, zq = mma_v2(x_left, right, b), mma_v2(q_left, right, b)
    if ODD:
        z, zq = corrected(z, x_left, earlier, last, W), corrected(zq, q_left, earlier, last, W)
    seen = up_to_itself(against(q_left, k, ones, W))
    answers = mma_v2(as_left(seen * rates, W), G.load(gl.DotOperandLayout(1, tokens(W), 2)), gl.zeros([R, D], gl.float32, tokens(W)))
    zq += negative * answers
    asking = as_left(turned((seen * factor).to(gl.bfloat16)), W)
    normed, normed_q = z * r + off, zq * rq + off_q
    asked = dy.load(tokens(W)).to(gl.float32)
    g = gamma * asked
    share_two(two, g, g * normed_q, W)
    dgamma += halved(asked * normed_q)
    dbeta += halved(asked)
    shared_dW.store(by_column(dW.to(gl.bfloat16), W))
    read = mma_v2(x_left, right_operand(dW, W), db)
    dlast += gathered(G.load(tokens(W)).to(gl.float32) * read * lr, W)
    h = (2 * gamma) * normed + (beta - v.load(tokens(W)).to(gl.float32) + k.load(tokens(W)).to(gl.float32))

    whole, along = sum_two(two, W)
    following = gl.where(n + 1 < count, R, 0)
    send(out_q, dq_ptr + (token + R * H) * D, H * D, 0, following)
    send(out_k, dk_ptr + (token + R * H) * D, H * D, 0, following)
    dzq = g * rq + (normed_q * (-rq * along / D) - rq * whole / D)
    across_q, turned_q = operands(dzq, W)
    shared_dzq.store(dzq.to(gl.bfloat16))
    dscale += gathered_rows(dzq * answers, W)
    dG = mma_v2(asking, across_q, -last * read)
    weighed = gamma * dG
    share_four(four, dG, gamma * weighed, normed * dG, h * weighed, W)
    share_one(one, gamma * (normed * weighed), W)
    dW = mma_v2(turned_q, q.load(gl.DotOperandLayout(1, maps(W), 2)), dW)
    units = gl.full([R, R], 1.0, gl.bfloat16, gl.DotOperandLayout(0, tokens(W), 2))
    db = mma_v2(units, across_q, db)
    fetch(n - 3, there, given, where, D, R)
    if ODD:
        fetch_weights((n - 3) >> 1, weights, kept[0], kept[1], where, D)
    async_copy.commit_group()
    dk = mma_v2(
        G.load(gl.DotOperandLayout(0, tokens(W), 2)), shared_dW.load(gl.DotOperandLayout(1, tokens(W), 2)), gl.zeros([R, D], gl.float32, tokens(W))
    )
    dk *= -last * lr
    if ODD:
        async_copy.wait_group(2)
    else:
        async_copy.wait_group(1)

    whole, straight, along, steep = sum_four(four, W)
    bend = sum_one(one, W)
    s1, s2, c_mean, tilt = records(here[7].index(slot), W)
    a, F_sum, c = along / D, (steep - c_mean * whole - tilt * along) / D, lr * r * r
    dz = (square * c - s2 * c) * dG + (gamma * (h * (-a * c)) + (normed * ((tilt * a - F_sum) * c) + (c_mean * a - (straight - s2 * whole) / D) * c))
    c = lr * r
    p = dG * c + (normed * (-a * c) - whole / D * c)
    across, turned_dz = operands(dz, W)
    shared_dz.store(dz.to(gl.bfloat16))
    dW = mma_v2(turned_dz, k.load(gl.DotOperandLayout(1, maps(W), 2)), dW)
    db = mma_v2(units, across, db)
    gl.store(dlr_ptr + token + i[:, None] * H, r * (steep - bend - s1 * whole - s2 * along))
    dgamma += halved(p * h)
    p *= gamma
    dbeta += halved(p)
    out_v.store((-p).to(gl.bfloat16))
    dk += p

    dzq_left = shared_dzq.load(gl.DotOperandLayout(0, tokens(W), 2))
    rates = here[5].index(slot).load(gl.SliceLayout(0, maps(W)))[None, :]
    pairs = against(dzq_left, G, gl.zeros([R, R], gl.float32, maps(W)), W) * factor * rates
    pairs = up_to_itself(pairs).to(gl.bfloat16)
    dk = mma_v2(as_left(turned(pairs), W), q.load(gl.DotOperandLayout(1, tokens(W), 2)), dk)
    asked = dy.load(tokens(W)).to(gl.float32)
    right = Wn.permute([1, 0]).load(gl.DotOperandLayout(1, tokens(W), 2))
    dq = mma_v2(dzq_left, right, asked)
    dq = mma_v2(as_left(pairs, W), k.load(gl.DotOperandLayout(1, tokens(W), 2)), dq)
    if ODD:
        dq = mma_v2(crossed(dzq_left, earlier, last, W), earlier[1].load(gl.DotOperandLayout(1, tokens(W), 2)), dq)
    out_q.store(dq.to(gl.bfloat16))
    dz_left = shared_dz.load(gl.DotOperandLayout(0, tokens(W), 2))
    dk = mma_v2(dz_left, right, dk)
    if ODD:
        dk = mma_v2(crossed(dz_left, earlier, last, W), earlier[1].load(gl.DotOperandLayout(1, tokens(W), 2)), dk)
    out_k.store(dk.to(gl.bfloat16))
    send(out_v, dv_ptr + token * D, H * D, 0, R)
    return dW, db, (dgamma, dbeta, dscale, dlast)


@gluon.jit
def halved(x):
    """x ``[R, D]`` with rows that the same threads hold added up."""
    return gl.sum(x.reshape(x.shape[0] // 8, 8, x.shape[1]), 0)


@gluon.jit
def gathered(x, W: gl.constexpr):
    """x ``[R, D]`` with all that the same thread holds added up."""
    return gl.sum(gl.sum(halved(x).reshape(8, 2, W, 4, 2), 4), 1)


@gluon.jit
def gathered_rows(x, W: gl.constexpr):
    """x ``[R, D]`` with what the same thread holds of a row added up."""
    return gl.sum(gl.sum(x.reshape(x.shape[0], 2, W, 4, 2), 4), 1)


@gluon.jit
def backward(
    q_ptr,
    k_ptr,
    v_ptr,
    lr_ptr,
    G_ptr,
    Ws_ptr,
    bs_ptr,
    moments_ptr,
    scale_ptr,
    gamma_ptr,
    beta_ptr,
    dy_ptr,
    dW_end_ptr,
    db_end_ptr,
    dq_ptr,
    dk_ptr,
    dv_ptr,
    dlr_ptr,
    dW_ptr,
    db_ptr,
    dscale_ptr,
    dgamma_ptr,
    dbeta_ptr,
    longest,
    H,
    D: gl.constexpr,
    R: gl.constexpr,
):
    W: gl.constexpr = D // 16
    gl.static_assert(gl.num_warps() == W)
    head, row = gl.program_id(0), gl.program_id(1)
    count = longest // R
    where = row * longest, row * (count // 2), head, H
    given = q_ptr, k_ptr, v_ptr, G_ptr, dy_ptr, lr_ptr, moments_ptr
    results, kept = (dq_ptr, dk_ptr, dv_ptr, dlr_ptr), (Ws_ptr, bs_ptr)
    even, odd = room(R, D), room(R, D)
    weights = gl.allocate_shared_memory(gl.bfloat16, [2, D, D], swizzled(W)), gl.allocate_shared_memory(gl.float32, [2, D], shared_numbers())
    shared_dz, shared_dzq = gl.allocate_shared_memory(gl.bfloat16, [R, D], swizzled(W)), gl.allocate_shared_memory(gl.bfloat16, [R, D], swizzled(W))
    shared_dW = gl.allocate_shared_memory(gl.bfloat16, [D, D], swizzled(W))
    out_q, out_k = gl.allocate_shared_memory(gl.bfloat16, [R, D], swizzled(W)), gl.allocate_shared_memory(gl.bfloat16, [R, D], swizzled(W))
    out_v = gl.allocate_shared_memory(gl.bfloat16, [R, D], swizzled(W))
    shared = shared_dz, shared_dzq, shared_dW, out_q, out_k, out_v, shared_two(R, W), shared_four(R, W), shared_one(R, W)
    fetch(count - 1, odd, given, where, D, R)
    fetch(count - 2, even, given, where, D, R)
    fetch_weights(count // 2 - 1, weights, Ws_ptr, bs_ptr, where, D)
    async_copy.commit_group()
    fetch(count - 3, odd, given, where, D, R)
    async_copy.commit_group()

    e, c = gl.arange(0, D, gl.SliceLayout(1, maps(W))), gl.arange(0, D, gl.SliceLayout(0, maps(W)))
    i, d = gl.arange(0, R, gl.SliceLayout(1, tokens(W))), gl.arange(0, D, gl.SliceLayout(0, tokens(W)))
    matrix, vector = c[None, :] * D + column(e, D)[:, None], i[:, None] * 0 + d[None, :]
    end = row.to(gl.int64) * H + head
    dW = gl.load(dW_end_ptr + end * D * D + matrix)
    dW_mean = (gl.sum(dW, 0) / D)[None, :]
    dW -= dW_mean
    # R equal rows, as in ``scan``.
    db = gl.load(db_end_ptr + end * D + vector)
    db_mean = (gl.sum(db, 1) / D)[:, None]
    db -= db_mean
    gamma, beta = gl.load(gamma_ptr + head * D + d)[None, :], gl.load(beta_ptr + head * D + d)[None, :]
    last = gl.load(scale_ptr + R - 1)
    factor, negative = factors(scale_ptr, R, R, W), -gl.load(scale_ptr + i)[:, None]
    zeros = gl.zeros([R, D], gl.float32, tokens(W))
    parts = halved(zeros), halved(zeros), gathered_rows(zeros, W), gathered(zeros, W)
    async_copy.wait_group(1)

    for behind in range(0, count, 2):
        n = count - 1 - behind
        dW, db, parts = step(
            n, dW, db, parts, odd, even, weights, shared, gamma, beta, last, factor, negative, given, kept, results, where, count, D, R, True
        )
        dW, db, parts = step(
            n - 1, dW, db, parts, even, odd, weights, shared, gamma, beta, last, factor, negative, given, kept, results, where, count, D, R, False
        )
    async_copy.wait_group(0)
    token = (row * longest).to(gl.int64) * H + head
    send(shared[3], dq_ptr + token * D, H * D, 0, R)
    send(shared[4], dk_ptr + token * D, H * D, 0, R)

    dgamma, dbeta, dscale, dlast = parts
    gl.store(dW_ptr + end * D * D + matrix, dW + dW_mean)
    gl.store(db_ptr + end * D + vector, db + db_mean, (i == 0)[:, None])
    dgamma, dbeta = gl.sum(dgamma, 0), gl.sum(dbeta, 0)
    d = gl.arange(0, D, dgamma.type.layout)
    gl.store(dgamma_ptr + end * D + d, dgamma)
    gl.store(dbeta_ptr + end * D + d, dbeta)
    dlast, dscale = gl.sum(gl.sum(gl.sum(dlast, 2), 1), 0), gl.sum(gl.sum(dscale, 2), 1)
    a = gl.arange(0, R, dscale.type.layout)
    gl.store(dscale_ptr + end * R + a, -dscale - gl.where(a == R - 1, dlast, 0.0))
