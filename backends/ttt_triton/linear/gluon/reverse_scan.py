"""The sequential part of the backward pass, as ``linear.reverse_scan`` for bfloat16, a mini-batch a step."""

# pyright: reportGeneralTypeIssues=false
# Calls of jitted functions are typed as if they never returned.
from __future__ import annotations

import triton.experimental.gluon.language as gl
from triton.experimental import gluon
from triton.experimental.gluon.language.nvidia.ampere import async_copy, mma_v2

from .layouts import column, copied, lying, maps, operands, right_operand, share_four, sum_four, swizzled, tokens, upright

AHEAD = gl.constexpr(3)


@gluon.jit
def fetch(n, ks, vs, zs, gs, k_ptr, v_ptr, normed_ptr, dG_ptr, start, length, phase, head, H, K: gl.constexpr, D: gl.constexpr, R: gl.constexpr):
    """Begin to copy k, v, Ẑ and ΔG of mini-batch n, 0 where there is no token."""
    layout: gl.constexpr = copied(D // 16)
    i, d = gl.arange(0, R, gl.SliceLayout(1, layout)), gl.arange(0, D, gl.SliceLayout(0, layout))
    place = n * K + i - phase
    valid = ((i < K) & (place >= 0) & (place < length))[:, None]
    at = ((start + n * K - phase).to(gl.int64) * H + head) * D + i[:, None] * (H * D) + d[None, :]
    slot = (n + AHEAD + 1) % (AHEAD + 1)
    async_copy.async_copy_global_to_shared(ks.index(slot), k_ptr + at, valid)
    async_copy.async_copy_global_to_shared(vs.index(slot), v_ptr + at, valid)
    async_copy.async_copy_global_to_shared(zs.index(slot), normed_ptr + at, valid)
    async_copy.async_copy_global_to_shared(gs.index(slot), dG_ptr + at, valid)
    async_copy.commit_group()


@gluon.jit
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
    dW_end_ptr,
    db_end_ptr,
    dz_ptr,
    p_ptr,
    dlr_ptr,
    dW_ptr,
    db_ptr,
    longest,
    blocks,
    H,
    K: gl.constexpr,
    D: gl.constexpr,
    R: gl.constexpr,
    BLOCK: gl.constexpr,
    OPENING: gl.constexpr,
):
    """Of one head (axis 0) of a sequence (axis 1), the cotangents of its training rows and of the weights, from the last mini-batch to the first.

    With Λ, λ the cotangents of W, b at a mini-batch's end:

        ΔG ← ΔG − s_{K−1} (XΛ + λ)        w = ℓΔG        ΔZ = ∂²L/∂z² w        ΔL/∂e = p = r (w − ẑ mean(ẑw))        Δℓ = rowsum(G ⊙ ΔG)
        Λ ← Λ + XᵀΔZ        λ ← λ + 1ᵀΔZ        and at the start of a block what its read-outs say of W and b

    Arguments are those of ``linear.reverse_scan``; D is 16, 32, 64 or 128, R is K but 16 at the least, BLOCK the mini-batches of a block; all tensors
    of tokens and ΔWs are bfloat16. The second derivative is that of ``linear.reverse_scan.second_derivative``: with c = 2γ²ẑ + u all of it follows from
    the sums of c, cẑ, (γ²ẑ + u)ẑ over the inputs and of ΔG, γ²ΔG, ẑΔG, cΔG, γ²ẑΔG, which are taken all at once.
    """
    W: gl.constexpr = D // 16
    gl.static_assert(gl.num_warps() == W)
    head, row = gl.program_id(0), gl.program_id(1)
    start, length, phase, first = row * longest, longest, 0, row * blocks
    if start_ptr is not None:
        start, length, phase, first = gl.load(start_ptr + row), gl.load(length_ptr + row), gl.load(phase_ptr + row), gl.load(first_ptr + row)
    count = gl.cdiv(phase + length, K)
    ks = gl.allocate_shared_memory(gl.bfloat16, [AHEAD + 1, R, D], swizzled(W))
    vs = gl.allocate_shared_memory(gl.bfloat16, [AHEAD + 1, R, D], swizzled(W))
    zs = gl.allocate_shared_memory(gl.bfloat16, [AHEAD + 1, R, D], swizzled(W))
    gs = gl.allocate_shared_memory(gl.bfloat16, [AHEAD + 1, R, D], swizzled(W))
    one = gl.allocate_shared_memory(gl.float32, [R, W, 4], gl.SwizzledSharedLayout(1, 1, 1, [2, 1, 0]))
    two = gl.allocate_shared_memory(gl.float32, [R, W, 4], gl.SwizzledSharedLayout(1, 1, 1, [2, 1, 0]))
    for ahead in gl.static_range(AHEAD):
        fetch(count - 1 - ahead, ks, vs, zs, gs, k_ptr, v_ptr, normed_ptr, dG_ptr, start, length, phase, head, H, K, D, R)

    e, c = gl.arange(0, D, gl.SliceLayout(1, maps(W))), gl.arange(0, D, gl.SliceLayout(0, maps(W)))
    i, d = gl.arange(0, R, gl.SliceLayout(1, tokens(W))), gl.arange(0, D, gl.SliceLayout(0, tokens(W)))
    matrix, vector = c[None, :] * D + column(e, D)[:, None], i[:, None] * 0 + d[None, :]
    tile, top = i[:, None] * (H * D) + d[None, :], (i == 0)[:, None]
    end = row.to(gl.int64) * H + head
    dW = gl.load(dW_end_ptr + end * D * D + matrix)
    dW_mean = (gl.sum(dW, 0) / D)[None, :]
    dW -= dW_mean
    # R equal rows, as in ``scan``.
    db = gl.load(db_end_ptr + end * D + vector)
    db_mean = (gl.sum(db, 1) / D)[:, None]
    db -= db_mean
    # What the read-outs of the block say of W and b waits for its start.
    dW_block, db_block = upright(dW, W), db
    inner, outer = gl.arange(0, D, gl.SliceLayout(1, dW_block.type.layout)), gl.arange(0, D, gl.SliceLayout(0, dW_block.type.layout))
    flat = inner[:, None] * D + outer[None, :]
    ones = gl.full([R, R], 1.0, gl.bfloat16, gl.DotOperandLayout(0, tokens(W), 2))
    gamma, beta = gl.load(gamma_ptr + head * D + d)[None, :], gl.load(beta_ptr + head * D + d)[None, :]
    square = gamma * gamma
    last = gl.load(scale_ptr + K - 1)

    token, place = (start + (count - 1) * K - phase).to(gl.int64) * H + head, (count - 1) * K + i - phase
    inside = (i < K) & (place >= 0) & (place < length)
    lr, r = gl.load(lr_ptr + token + i * H, inside, 0.0), gl.load(rstd_ptr + token + i * H, inside, 1.0)

    for back in range(0, count):
        n = count - 1 - back
        token = (start + n * K - phase).to(gl.int64) * H + head
        place = n * K + i - phase
        inside = (i < K) & (place >= 0) & (place < length)
        next_valid = (i < K) & (place >= K) & (place - K < length)
        next_lr, next_r = gl.load(lr_ptr + token + (i - K) * H, next_valid, 0.0), gl.load(rstd_ptr + token + (i - K) * H, next_valid, 1.0)
        if (back == 0) | (n % BLOCK == BLOCK - 1):
            at = (first + n // BLOCK).to(gl.int64) * H + head
            dW_block, db_block = gl.load(dWs_ptr + at * D * D + flat), gl.load(dbs_ptr + at * D + vector)
            gl.store(dWs_ptr + at * D * D + flat, upright(dW, W))
            gl.store(dbs_ptr + at * D + vector, db, top)

        async_copy.wait_group(AHEAD - 1)
        slot = n % (AHEAD + 1)
        rows = ks.index(slot)
        normed = zs.index(slot).load(tokens(W)).to(gl.float32)
        u = gamma * (beta - vs.index(slot).load(tokens(W)).to(gl.float32) + rows.load(tokens(W)).to(gl.float32))
        given = gs.index(slot).load(tokens(W)).to(gl.float32)
        dG = mma_v2(rows.load(gl.DotOperandLayout(0, tokens(W), 2)), right_operand(dW, W), db)
        dG = given - gl.where(inside & ((n + 1) * K <= phase + length), last, 0.0)[:, None] * dG
        x = rows.load(gl.DotOperandLayout(1, maps(W), 2))
        bent = square * normed
        curved = 2 * bent + u
        share_four(one, curved, curved * normed, (bent + u) * normed, dG, W)
        share_four(two, square * dG, normed * dG, curved * dG, bent * dG, W)
        c_mean, m, s2, whole = sum_four(one, W)
        straight, along, steep, bend = sum_four(two, W)
        fetch(n - AHEAD, ks, vs, zs, gs, k_ptr, v_ptr, normed_ptr, dG_ptr, start, length, phase, head, H, K, D, R)
        lr, r = lr.to(gl.float32)[:, None], r[:, None]
        c_mean, m, s2, mean = c_mean / D, m / D, s2 / D, along / D
        tilt = s2 + m / 2
        F_sum = steep - c_mean * whole - tilt * along
        rr = r * r
        dz = (lr * rr) * ((square - s2) * dG - (straight - s2 * whole) / D - (curved - c_mean - tilt * normed) * mean - normed * (F_sum / D))
        gl.store(dz_ptr + token * D + tile, dz.to(gl.bfloat16), inside[:, None])
        gl.store(p_ptr + token * D + tile, (lr * r * (dG - normed * mean)).to(gl.bfloat16), inside[:, None])
        # Rowsum of G ⊙ ΔG, where G = r (c − γ²ẑ − s₂ẑ − …) is had from the sums.
        dlr = r * (F_sum + m / 2 * along - bend)
        gl.store(dlr_ptr + token + i[:, None] * H, dlr, inside[:, None])

        through = dz
        if OPENING:
            through = gl.where((n == 0) & (i < K)[:, None], 0.0, dz)
        right, left = operands(through, W)
        dW = mma_v2(left, x, dW)
        db = mma_v2(ones, right, db)
        lr, r = next_lr, next_r
        if n % BLOCK == 0:
            dW += lying(dW_block, W)
            db += db_block
    async_copy.wait_group(0)

    gl.store(dW_ptr + end * D * D + matrix, dW + dW_mean)
    gl.store(db_ptr + end * D + vector, db + db_mean, top)
