"""The sequential part of the backward pass, as ``linear.reverse_scan`` for bfloat16, a mini-batch a step."""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportOperatorIssue=false
# What is compiled has other types than what Python would run.
from __future__ import annotations

import triton.experimental.gluon.language as gl
from triton.experimental import gluon
from triton.experimental.gluon.language.nvidia.ampere import async_copy, mma_v2

from .copies import copied, copied_numbers, shared_numbers, swizzled
from .layouts import column, lying, maps, operands, pairs, right_operand, tokens, upright
from .sums import share_four, shared_four, sum_four


@gluon.jit
def room(R: gl.constexpr, D: gl.constexpr):
    """Shared memory for k, v, Ẑ, ΔG, ℓ and r of two mini-batches."""
    W: gl.constexpr = D // 16
    k, v = gl.allocate_shared_memory(gl.bfloat16, [2, R, D], swizzled(W)), gl.allocate_shared_memory(gl.bfloat16, [2, R, D], swizzled(W))
    z, g = gl.allocate_shared_memory(gl.bfloat16, [2, R, D], swizzled(W)), gl.allocate_shared_memory(gl.bfloat16, [2, R, D], swizzled(W))
    lr, r = gl.allocate_shared_memory(gl.float32, [2, R], shared_numbers()), gl.allocate_shared_memory(gl.float32, [2, R], shared_numbers())
    return k, v, z, g, lr, r


@gluon.jit
def fetch(back, n, room, given, where, K: gl.constexpr, D: gl.constexpr, R: gl.constexpr):
    """Begin to copy what is ``given`` of mini-batch n, the last but ``back``; 0 where there is no token, or before the ``earliest`` mini-batch.

    Its ΔG is ``shift`` tokens further on than n K.
    """
    W: gl.constexpr = D // 16
    k_ptr, v_ptr, normed_ptr, dG_ptr, lr_ptr, rstd_ptr = given
    start, length, phase, earliest, shift, head, H = where
    i, d = gl.arange(0, R, gl.SliceLayout(1, copied(W))), gl.arange(0, D, gl.SliceLayout(0, copied(W)))
    j = gl.arange(0, R, copied_numbers(W))
    place, token = n * K - phase, (start + n * K - phase).to(gl.int64) * H + head
    valid, one = ((i < K) & (place + i >= 0) & (place + i < length))[:, None], (j < K) & (place + j >= 0) & (place + j < length)
    valid, one = valid & (n >= earliest), one & (n >= earliest)
    tile = i[:, None] * (H * D) + d[None, :]
    at = token * D + tile
    async_copy.async_copy_global_to_shared(room[0].index(back // 2 % 2), k_ptr + at, valid)
    async_copy.async_copy_global_to_shared(room[1].index(back // 2 % 2), v_ptr + at, valid)
    async_copy.async_copy_global_to_shared(room[2].index(back // 2 % 2), normed_ptr + at, valid)
    async_copy.async_copy_global_to_shared(room[3].index(back // 2 % 2), dG_ptr + ((shift + n * K).to(gl.int64) * H + head) * D + tile, valid)
    async_copy.async_copy_global_to_shared(room[4].index(back // 2 % 2), lr_ptr + token + j * H, one)
    async_copy.async_copy_global_to_shared(room[5].index(back // 2 % 2), rstd_ptr + token + j * H, one)
    async_copy.commit_group()


@gluon.jit
def fetched(back, room, gamma, beta, W: gl.constexpr):
    """(X as left operand, X as right operand, u, Ẑ, ΔG, ℓ, r) of the mini-batch that is the last but ``back``."""
    rows = room[0].index(back // 2 % 2)
    u = gamma * (beta - room[1].index(back // 2 % 2).load(tokens(W)).to(gl.float32) + rows.load(tokens(W)).to(gl.float32))
    left, right = rows.load(gl.DotOperandLayout(0, tokens(W), 2)), rows.load(gl.DotOperandLayout(1, maps(W), 2))
    normed, given = room[2].index(back // 2 % 2).load(tokens(W)), room[3].index(back // 2 % 2).load(tokens(W))
    lr, r = room[4].index(back // 2 % 2).load(gl.SliceLayout(1, tokens(W))), room[5].index(back // 2 % 2).load(gl.SliceLayout(1, tokens(W)))
    return left, right, u, normed, given, lr, r


@gluon.jit
def step(
    back,
    n,
    dW,
    db,
    inputs,
    here,
    there,
    one,
    two,
    gamma,
    beta,
    last,
    given,
    w_ptr,
    dlr_ptr,
    where,
    K: gl.constexpr,
    D: gl.constexpr,
    R: gl.constexpr,
    OPENING: gl.constexpr,
):
    """Mini-batch n, the last but ``back``: store its w, Δℓ and return (Λ, λ, the next one's inputs).

    ``here`` and ``there`` as in ``scan.step``.
    """
    W: gl.constexpr = D // 16
    start, length, phase, _, shift, head, H = where
    i, d = gl.arange(0, R, gl.SliceLayout(1, tokens(W))), gl.arange(0, D, gl.SliceLayout(0, tokens(W)))
    tile = i[:, None] * (H * D) + d[None, :]
    token = (start + n * K - phase).to(gl.int64) * H + head
    place = n * K + i - phase
    inside = (i < K) & (place >= 0) & (place < length)
    square = gamma * gamma
    left, right, u, normed, asked, lr, r = inputs
    normed = normed.to(gl.float32)
    dG = mma_v2(left, right_operand(dW, W), db)
    dG = asked.to(gl.float32) - gl.where(inside & ((n + 1) * K <= phase + length), last, 0.0)[:, None] * dG
    bent = square * normed
    curved = 2 * bent + u
    share_four(one, curved, curved * normed, (bent + u) * normed, dG, W)
    share_four(two, square * dG, normed * dG, curved * dG, bent * dG, W)
    async_copy.wait_group(2)
    c_mean, m, s2, whole = sum_four(one, W)
    straight, along, steep, bend = sum_four(two, W)
    following = fetched(back + 1, there, gamma, beta, W)
    fetch(back + 4, n - 4, here, given, where, K, D, R)
    lr, r = lr[:, None], r[:, None]
    c_mean, m, s2, mean = c_mean / D, m / D, s2 / D, along / D
    tilt = s2 + m / 2
    F_sum = steep - c_mean * whole - tilt * along
    dz = (lr * r * r) * ((square - s2) * dG - (straight - s2 * whole) / D - (curved - c_mean - tilt * normed) * mean - normed * (F_sum / D))
    gl.store(w_ptr + ((shift + n * K).to(gl.int64) * H + head) * D + tile, (lr * dG).to(gl.bfloat16), inside[:, None])
    # Rowsum of G ⊙ ΔG, where G = r (c − γ²ẑ − s₂ẑ − …) is had from the sums.
    gl.store(dlr_ptr + token + i[:, None] * H, r * (F_sum + m / 2 * along - bend), inside[:, None])
    through = dz
    if OPENING:
        through = gl.where((n == 0) & (i < K)[:, None], 0.0, dz)
    across, turned = operands(through, W)
    ones = gl.full([R, R], 1.0, gl.bfloat16, gl.DotOperandLayout(0, tokens(W), 2))
    return mma_v2(turned, right, dW), mma_v2(ones, across, db), following


@gluon.jit
def exchanged(dW, db, block, dWs_ptr, dbs_ptr, ls_ptr, head, H, D: gl.constexpr, R: gl.constexpr):
    """Store Λ, λ of the block's end and return what its read-outs say of W and b.

    In words as they were loaded: to take them apart at once would be to wait for them at once.
    """
    W: gl.constexpr = D // 16
    i, d = gl.arange(0, R, gl.SliceLayout(1, tokens(W))), gl.arange(0, D, gl.SliceLayout(0, tokens(W)))
    at = block.to(gl.int64) * H + head
    vector = i[:, None] * 0 + d[None, :]
    flat = upright(dW, W)
    layout: gl.constexpr = flat.type.layout
    tile = gl.arange(0, D, gl.SliceLayout(1, layout))[:, None] * D + gl.arange(0, D, gl.SliceLayout(0, layout))[None, :]
    dW_block, db_block = gl.load(pairs(dWs_ptr + at * D * D, flat)), gl.load(dbs_ptr + at * D + vector)
    gl.store(dWs_ptr + at * D * D + tile, flat)
    gl.store(ls_ptr + at * D + vector, db, (i == 0)[:, None])
    return dW_block, db_block


@gluon.jit(do_not_specialize=("begin", "part"))
def reverse_scan(
    k_ptr,
    v_ptr,
    lr_ptr,
    scale_ptr,
    gamma_ptr,
    beta_ptr,
    start_ptr,
    length_ptr,
    phase_ptr,
    first_ptr,
    dG_ptr,
    normed_ptr,
    rstd_ptr,
    dWs_ptr,
    dbs_ptr,
    ls_ptr,
    dW_end_ptr,
    db_end_ptr,
    w_ptr,
    dlr_ptr,
    dW_ptr,
    db_ptr,
    longest,
    blocks,
    begin,
    part,
    H,
    K: gl.constexpr,
    D: gl.constexpr,
    R: gl.constexpr,
    BLOCK: gl.constexpr,
    OPENING: gl.constexpr,
):
    """Of one head (axis 0) of a sequence (axis 1), the cotangents of its training rows and of the weights, from the last mini-batch to the first.

    With Λ, λ the cotangents of W, b at a mini-batch's end:

        ΔG ← ΔG − s_{K−1} (XΛ + λ)        w = ℓΔG        ΔZ = ∂²L/∂z² w        Δℓ = rowsum(G ⊙ ΔG)
        Λ ← Λ + XᵀΔZ        λ ← λ + 1ᵀΔZ        and at the start of a block what its read-outs say of W and b

    Arguments are those of ``linear.reverse_scan``; D is 16, 32, 64 or 128, R is K but 16 at the least, BLOCK the mini-batches of a block, an even
    number; all tensors of tokens and ΔWs are bfloat16, but ℓ is float32. The second derivative is that of ``linear.reverse_scan.second_derivative``:
    with c = 2γ²ẑ + u all of it follows from the sums of c, cẑ, (γ²ẑ + u)ẑ over the inputs and of ΔG, γ²ΔG, ẑΔG, cΔG, γ²ẑΔG, taken all at once.
    """
    W: gl.constexpr = D // 16
    gl.static_assert(gl.num_warps() == W)
    head, row = gl.program_id(0), gl.program_id(1)
    start, length, phase, first = row * longest, longest, 0, row * part
    if start_ptr is not None:
        start, length, phase, first = gl.load(start_ptr + row), gl.load(length_ptr + row), gl.load(phase_ptr + row), gl.load(first_ptr + row)
    # An even number: past the last mini-batch comes one without tokens, which changes nothing.
    count = gl.minimum(gl.cdiv(phase + length, 2 * K) * 2, (begin + part) * BLOCK)
    first -= begin
    given, where = (k_ptr, v_ptr, normed_ptr, dG_ptr, lr_ptr, rstd_ptr), (start, length, phase, begin * BLOCK, first * (BLOCK * K), head, H)
    even, odd = room(R, D), room(R, D)
    even_one, odd_one, even_two, odd_two = shared_four(R, W), shared_four(R, W), shared_four(R, W), shared_four(R, W)
    fetch(0, count - 1, odd, given, where, K, D, R)
    fetch(1, count - 2, even, given, where, K, D, R)
    fetch(2, count - 3, odd, given, where, K, D, R)
    fetch(3, count - 4, even, given, where, K, D, R)

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
    last = gl.load(scale_ptr + K - 1)
    async_copy.wait_group(3)
    inputs = fetched(0, odd, gamma, beta, W)

    for behind in range(gl.cdiv(count, BLOCK) - begin):
        block = gl.cdiv(count, BLOCK) - 1 - behind
        dW_block, db_block = exchanged(dW, db, first + block, dWs_ptr, dbs_ptr, ls_ptr, head, H, D, R)
        for back in range(gl.maximum(count - (block + 1) * BLOCK, 0), count - block * BLOCK, 2):
            n = count - 1 - back
            dW, db, inputs = step(
                back, n, dW, db, inputs, odd, even, odd_one, odd_two, gamma, beta, last, given, w_ptr, dlr_ptr, where, K, D, R, False
            )
            dW, db, inputs = step(
                back + 1, n - 1, dW, db, inputs, even, odd, even_one, even_two, gamma, beta, last, given, w_ptr, dlr_ptr, where, K, D, R, OPENING
            )
        dW += lying(dW_block, W)
        db += db_block
    async_copy.wait_group(0)

    gl.store(dW_ptr + end * D * D + matrix, dW + dW_mean)
    gl.store(db_ptr + end * D + vector, db + db_mean, (i == 0)[:, None])
