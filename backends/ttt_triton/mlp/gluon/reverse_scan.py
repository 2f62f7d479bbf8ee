"""The sequential part of the backward pass, as ``mlp.reverse_scan`` for bfloat16, with the cotangents of both maps in registers."""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportOperatorIssue=false
# What is compiled has other types than what Python would run.
from __future__ import annotations

import triton.experimental.gluon.language as gl
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon.language.nvidia.ampere import async_copy, mma_v2
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from ...linear.gluon.layouts import copied_numbers, maps, shared_numbers, tokens, turned
from .layouts import (
    by_column,
    copied,
    first_operand,
    gathered,
    half,
    hidden,
    left_by_warp,
    left_operand,
    lying,
    of_warps,
    right_by_warp,
    right_operand,
    rows,
    shares,
    sums_by_warp,
    swizzled,
    synchronize,
    turned_from_float,
    whole,
)

AHEAD = gl.constexpr(2)


def described(hiddens: Tensor, lines: Tensor, X2: Tensor, W2s: Tensor) -> tuple[TensorDescriptor, ...]:
    """``reverse_scan``'s tiles: of a mini-batch four ``[E, K]``, four ``[K, D]``, one ``[E, K]`` and one ``[E, D]`` are copied at once."""
    E, D = W2s.shape[-2:]
    boxes = (hiddens.flatten(1, -2), [4, E, 16]), (lines.flatten(1, -2), [4, 16, D]), (X2.flatten(0, -2), [E, 16]), (W2s.flatten(0, -2), [E, D])
    return tuple(TensorDescriptor.from_tensor(x, box, gl.NVMMASharedLayout.get_default_for(box, gl.bfloat16)) for x, box in boxes)


@gluon.jit
def four(a0, a1, a2, a3, b0, b1, b2, b3):
    """Four sums in one reduction."""
    return a0 + b0, a1 + b1, a2 + b2, a3 + b3


@gluon.jit
def one_of(tiles, n: gl.constexpr):
    """Tile n of several in shared memory."""
    R: gl.constexpr = tiles.shape[1]
    return tiles.reshape([tiles.shape[0] * R, tiles.shape[2]]).slice(n * R, R)


@gluon.jit
def fetch_tiles(back, c, first, head, H, given, room, done, K: gl.constexpr, D: gl.constexpr, BLOCK: gl.constexpr):
    """Begin to copy the tiles of mini-batch c, the last but ``back``, if there is one."""
    E: gl.constexpr = 4 * D
    place, at, slot, there = (first + c // BLOCK) * H + head, c % BLOCK, back % 2, c >= 0
    mbarrier.expect(done[0], 2 * 4 * E * K, there)
    mbarrier.expect(done[1], 2 * 4 * K * D, there)
    mbarrier.expect(done[2], 2 * E * K, there)
    mbarrier.expect(done[3], 2 * E * D, there)
    tma.async_copy_global_to_shared(given[0], [0, place * E, at * K], done[0], room[0].index(slot), there)
    tma.async_copy_global_to_shared(given[1], [0, (place * BLOCK + at) * K, 0], done[1], room[1].index(slot), there)
    tma.async_copy_global_to_shared(given[2], [place * E, at * K], done[2], room[2].index(slot), there)
    tma.async_copy_global_to_shared(given[3], [(place * BLOCK + at) * E, 0], done[3], room[3].index(slot), there)


@gluon.jit
def fetch_rows(back, c, start, length, first, head, H, room, k_ptr, lr_ptr, norms_ptr, K: gl.constexpr, D: gl.constexpr, BLOCK: gl.constexpr):
    """The same of its k, ℓ, r and s₂: 0 where there is no token."""
    W: gl.constexpr = D // 8
    i, d = gl.arange(0, K, gl.SliceLayout(1, copied(W))), gl.arange(0, D, gl.SliceLayout(0, copied(W)))
    j, slot, left = gl.arange(0, K, copied_numbers(W)), back % (2 * AHEAD), gl.where(c >= 0, length - c * K, 0)
    token, place = (start + c * K).to(gl.int64) * H + head, ((first + c // BLOCK) * H + head).to(gl.int64)
    norms = norms_ptr + place * 2 * (BLOCK * K) + c % BLOCK * K + j
    async_copy.async_copy_global_to_shared(room[0].index(slot), k_ptr + token * D + i[:, None] * (H * D) + d[None, :], (i < left)[:, None])
    async_copy.async_copy_global_to_shared(room[1].index(slot), lr_ptr + token + j * H, j < left)
    async_copy.async_copy_global_to_shared(room[2].index(slot), norms, j < left)
    async_copy.async_copy_global_to_shared(room[3].index(slot), norms + BLOCK * K, j < left)
    async_copy.commit_group()


@gluon.jit(do_not_specialize=("top", "blocks"))
def reverse_scan(
    k_ptr,
    lr_ptr,
    scale_ptr,
    gamma_ptr,
    start_ptr,
    length_ptr,
    first_ptr,
    hiddens,
    lines,
    X2,
    W2s,
    norms_ptr,
    dWs_ptr,
    dbs_ptr,
    dW1_end_ptr,
    db1_end_ptr,
    dW2_end_ptr,
    db2_end_ptr,
    dz_ptr,
    p_ptr,
    Ls_ptr,
    ls_ptr,
    gated_ptr,
    dW1_ptr,
    db1_ptr,
    dW2_ptr,
    db2_ptr,
    top,
    longest,
    begin,
    blocks,
    H,
    K: gl.constexpr,
    D: gl.constexpr,
    BLOCK: gl.constexpr,
):
    """Of one head (axis 0) of a piece of a sequence (axis 1), the cotangents of its training rows and of the weights, from the last mini-batch on.

    Arguments and equations are those of ``mlp.reverse_scan``, but tiles are described (``described``); D is 16, 32 or 64, E = 4D, K = 16, BLOCK the
    mini-batches of a block; all is bfloat16 but ℓ, biases, norms and the weights' cotangents at the ends. rowsum(G₂ ⊙ X₂Λ₂) is had as
    rowsum(X₂ ⊙ G₂Λ₂ᵀ), which is needed anyway. A mini-batch passes two barriers: after the shares of ΔG₂, and after ΔZ₂.
    """
    W: gl.constexpr = D // 8
    E: gl.constexpr = 4 * D
    gl.static_assert(gl.num_warps() == W)
    gl.static_assert(K == 16)
    head, row = gl.program_id(0), top + gl.program_id(1)
    start, length, first = row * longest, longest, (row - top) * blocks
    if start_ptr is not None:
        start, length, first = gl.load(start_ptr + row), gl.load(length_ptr + row), gl.load(first_ptr + row)
    start, length = start + begin, gl.maximum(gl.minimum(length - begin, blocks * BLOCK * K), 0)
    tiles = hiddens, lines, X2, W2s
    # σ′, ΔG₁, ΔX₂, H̄ ⊙ σ″; G₂, ΔG₂, Ẑ, F; X₂; W₂; and of rows k, ℓ, r, s₂.
    copies = (
        gl.allocate_shared_memory(gl.bfloat16, [2, 4, E, K], hiddens.layout),
        gl.allocate_shared_memory(gl.bfloat16, [2, 4, K, D], lines.layout),
        gl.allocate_shared_memory(gl.bfloat16, [2, E, K], X2.layout),
        gl.allocate_shared_memory(gl.bfloat16, [2, E, D], W2s.layout),
    )
    done = (
        gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout()),
        gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout()),
        gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout()),
        gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout()),
    )
    of_rows = (
        gl.allocate_shared_memory(gl.bfloat16, [2 * AHEAD, K, D], swizzled(W)),
        gl.allocate_shared_memory(gl.float32, [2 * AHEAD, K], shared_numbers()),
        gl.allocate_shared_memory(gl.float32, [2 * AHEAD, K], shared_numbers()),
        gl.allocate_shared_memory(gl.float32, [2 * AHEAD, K], shared_numbers()),
    )
    parts = gl.allocate_shared_memory(gl.float32, [W, K, D], gl.SwizzledSharedLayout(4, 1, min(8, 2 * W), [2, 1, 0]))
    offset = gl.allocate_shared_memory(gl.float32, [K, D], gl.SwizzledSharedLayout(4, 1, min(8, 2 * W), [1, 0]))
    gate = gl.allocate_shared_memory(gl.float32, [K, W], gl.SwizzledSharedLayout(1, 1, 1, [1, 0]))
    plain = gl.allocate_shared_memory(gl.bfloat16, [K, D], swizzled(W))
    # As large as the shares, and never there at the same time.
    flat = parts._reinterpret(gl.bfloat16, [E, D], swizzled(W))

    count = gl.cdiv(length, K)
    for one in gl.static_range(4):
        mbarrier.init(done[one], count=1)
    fetch_tiles(0, count - 1, first, head, H, tiles, copies, done, K, D, BLOCK)
    for early in gl.static_range(AHEAD):
        fetch_rows(early, count - 1 - early, start, length, first, head, H, of_rows, k_ptr, lr_ptr, norms_ptr, K, D, BLOCK)

    e, d1 = hidden(gl.arange(0, E, gl.SliceLayout(1, maps(W))), E)[:, None], gl.arange(0, D, gl.SliceLayout(0, maps(W)))[None, :]
    d2, h2 = gl.arange(0, D, gl.SliceLayout(1, tokens(W)))[:, None], gl.arange(0, E, gl.SliceLayout(0, tokens(W)))[None, :]
    end = row.to(gl.int64) * H + head
    L1 = gl.load(dW1_end_ptr + end * D * E + d1 * E + e)
    L2 = gl.load(dW2_end_ptr + end * D * E + h2 * D + d2)
    L2_mean = (gl.sum(L2, 0) / D)[None, :]
    L2 -= L2_mean
    # K equal rows: they are updated by products.
    i = gl.arange(0, K, gl.SliceLayout(1, tokens(W)))[:, None]
    wide, narrow = i * 0 + h2, i * 0 + gl.arange(0, D, gl.SliceLayout(0, tokens(W)))[None, :]
    l1 = half(gl.load(db1_end_ptr + end * E + wide))
    l2 = gl.load(db2_end_ptr + end * D + narrow)
    l2_mean = (gl.sum(l2, 1) / D)[:, None]
    l2 -= l2_mean
    ones = gl.full([K, K], 1.0, gl.bfloat16, gl.DotOperandLayout(0, tokens(W), 2))
    j, d = gl.arange(0, K, gl.SliceLayout(1, rows(W))), gl.arange(0, D, gl.SliceLayout(0, rows(W)))
    gamma = gl.load(gamma_ptr + head * D + d)[None, :]
    square = gamma * gamma
    last = gl.load(scale_ptr + K - 1)
    at_rest = gl.arange(0, E, gl.SliceLayout(1, copied(W)))[:, None] * D + gl.arange(0, D, gl.SliceLayout(0, copied(W)))[None, :]
    async_copy.wait_group(AHEAD - 1)

    for behind in range(gl.cdiv(count, BLOCK)):
        n = gl.cdiv(count, BLOCK) - 1 - behind
        place = (first + n).to(gl.int64) * H + head
        flat.store(by_column(L1.to(gl.bfloat16), W))
        gl.store(Ls_ptr + place * D * E + at_rest, flat.load(copied(W)))
        synchronize()
        gl.store(ls_ptr + place * E + wide, whole(l1, W), i == 0)
        for back in range(gl.maximum(count - (n + 1) * BLOCK, 0), count - n * BLOCK):
            c, slot, near = count - 1 - back, back % 2, back % (2 * AHEAD)
            at = c - n * BLOCK
            step = gl.where(length >= (c + 1) * K, -last, 0.0)
            x, G2_here, W2 = of_rows[0].index(near), one_of(copies[1].index(slot), 0), copies[3].index(slot).permute([1, 0])
            weight = step * of_rows[1].index(near).load(gl.SliceLayout(1, tokens(W)))[:, None]
            by_warp = step * of_rows[1].index(near).load(gl.SliceLayout(0, gl.SliceLayout(2, shares(W))))[None, :, None]
            asked = mma_v2(x.load(gl.DotOperandLayout(0, tokens(W), 2)), first_operand(L1, W), whole(l1, W)) * weight
            mbarrier.wait(done[0], slot)
            rise, bend = one_of(copies[0].index(slot), 0).permute([1, 0]), one_of(copies[0].index(slot), 3).permute([1, 0])
            asked += one_of(copies[0].index(slot), 1).permute([1, 0]).load(tokens(W)).to(gl.float32)
            dH = (asked * rise.load(tokens(W)).to(gl.float32)).to(gl.bfloat16)
            mbarrier.wait(done[2], slot)
            hid = copies[2].index(slot).permute([1, 0])
            hid_here = hid.load(tokens(W))
            share = mma_v2(left_by_warp(hid_here, W), right_by_warp(L2.to(gl.bfloat16), W), gl.zeros([W, K, D], gl.float32, shares(W))) * by_warp
            mbarrier.wait(done[3], slot)
            parts.store(mma_v2(left_by_warp(dH, W), right_by_warp(W2.load(tokens(W)), W), share))
            offset.store(l2)
            mbarrier.wait(done[1], slot)
            left = G2_here.load(gl.DotOperandLayout(0, tokens(W), 2))
            written = mma_v2(left, right_operand(turned_from_float(L2), W), gl.zeros([K, E], gl.float32, tokens(W)))
            gate.store(sums_by_warp(hid_here.to(gl.float32) * written, W))
            written = written * weight + one_of(copies[0].index(slot), 2).permute([1, 0]).load(tokens(W)).to(gl.float32)
            error, dz = G2_here.load(rows(W)).to(gl.float32), one_of(copies[1].index(slot), 1).load(rows(W)).to(gl.float32)
            z, f = one_of(copies[1].index(slot), 2).load(rows(W)).to(gl.float32), one_of(copies[1].index(slot), 3).load(rows(W)).to(gl.float32)
            lr = step * of_rows[1].index(near).load(gl.SliceLayout(1, rows(W)))[:, None]
            r = of_rows[2].index(near).load(gl.SliceLayout(1, rows(W)))[:, None]
            s2 = of_rows[3].index(near).load(gl.SliceLayout(1, rows(W)))[:, None]

            bias = offset.load(rows(W))
            dz += gl.sum(parts.load(gathered(W)), 0) + lr * bias
            fetch_tiles(back + 1, c - 1, first, head, H, tiles, copies, done, K, D, BLOCK)
            fetch_rows(back + AHEAD, c - AHEAD, start, length, first, head, H, of_rows, k_ptr, lr_ptr, norms_ptr, K, D, BLOCK)
            straight = r * r * (square - s2) * dz
            mean, along, across, gated = gl.reduce((straight, z * dz, f * dz, error * bias), 1, four)
            mean, along, across = mean[:, None] / D, along[:, None] / D, across[:, None] / D
            plain.store((straight - mean - f * along - z * across).to(gl.bfloat16))
            gl.store(p_ptr + (place * (BLOCK * K) + at * K) * D + j[:, None] * D + d[None, :], (r * (dz - z * along)).to(gl.bfloat16))
            gl.store(gated_ptr + place * (BLOCK * K) + at * K + j, gated + of_warps(gate, W))
            async_copy.wait_group(AHEAD - 1)

            dX2 = mma_v2(plain.load(gl.DotOperandLayout(0, tokens(W), 2)), W2.load(gl.DotOperandLayout(1, tokens(W), 2)), written)
            rises = rise.load(tokens(W)).to(gl.float32)
            over = turned((dX2 * rises + asked * bend.load(tokens(W)).to(gl.float32)).to(gl.bfloat16))
            h, t = gl.arange(0, E, gl.SliceLayout(1, over.type.layout)), gl.arange(0, K, gl.SliceLayout(0, over.type.layout))
            gl.store(dz_ptr + place * (BLOCK * K) * E + at * K + h[:, None] * (BLOCK * K) + t[None, :], over)
            L1 = mma_v2(left_operand(over, W), x.load(gl.DotOperandLayout(1, maps(W), 2)), L1)
            l1 = half(mma_v2(ones, right_operand(over, W), whole(l1, W)))
            L2 = mma_v2(plain.permute([1, 0]).load(gl.DotOperandLayout(0, tokens(W), 2)), hid.load(gl.DotOperandLayout(1, tokens(W), 2)), L2)
            L2 = mma_v2(
                G2_here.permute([1, 0]).load(gl.DotOperandLayout(0, tokens(W), 2)), right_operand(turned((asked * rises).to(gl.bfloat16)), W), L2
            )
            l2 = mma_v2(ones, plain.load(gl.DotOperandLayout(1, tokens(W), 2)), l2)
        L1 += gl.load(dWs_ptr + place * 2 * D * E + e * D + d1).to(gl.float32)
        L2 += lying(dWs_ptr + place * 2 * D * E + D * E, L2, W)
        l1 += half(gl.load(dbs_ptr + place * (E + D) + wide))
        l2 += gl.load(dbs_ptr + place * (E + D) + E + narrow)
    async_copy.wait_group(0)

    gl.store(dW1_ptr + end * D * E + d1 * E + e, L1)
    gl.store(db1_ptr + end * E + wide, whole(l1, W), i == 0)
    gl.store(dW2_ptr + end * D * E + h2 * D + d2, L2 + L2_mean)
    gl.store(db2_ptr + end * D + narrow, l2 + l2_mean, i == 0)
