"""The sequential part of the backward pass, as ``mlp.reverse_scan`` for bfloat16, with the cotangents of both maps in registers."""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportOperatorIssue=false
# What is compiled has other types than what Python would run.
from __future__ import annotations

import triton
import triton.experimental.gluon.language as gl
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon.language.nvidia.ampere import mma_v2
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier, tma
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from ...linear.gluon.layouts import maps, tokens, turned
from .layouts import (
    NOWHERE,
    by_column,
    exchanged,
    first_operand,
    gathered,
    half,
    hidden,
    left_by_warp,
    left_operand,
    of_warps,
    right_by_warp,
    right_operand,
    rows,
    shares,
    sums_by_warp,
    turned_anew,
    whole,
)


def described(hiddens: Tensor, lines: Tensor, *others: Tensor) -> tuple[TensorDescriptor, ...]:
    """``reverse_scan``'s tiles, of a mini-batch and a block, with blocks and heads as one axis.

    It reads four ``[E, K]``, four ``[K, D]``, k ``[K, D]``, ``numbers`` ``[K, 4]``, X₂ ``[E, K]`` and W₂ ``[E, D]``, and writes ΔZ₁ ``[E, K]``,
    p ``[K, D]`` and at a block's end Λ₁ ``[E, D]``; at its start it reads what is asked of W₂ ``[E, D]``.
    """
    joined = hiddens.flatten(1, 2), lines.flatten(1, 2), *(x.flatten(0, 1) for x in others)
    E, D = joined[-1].shape[-2:]
    boxes = [4, 1, E, 16], [4, 1, 16, D], [1, 16, D], [1, 16, 4], [1, E, 16], [1, 1, E, D], [1, E, 16], [1, 16, D], [1, E, D], [1, 1, E, D]
    dtypes = [gl.float32 if box[-1] == 4 else gl.bfloat16 for box in boxes]
    layouts = [gl.NVMMASharedLayout.get_default_for(box, dtype) for box, dtype in zip(boxes, dtypes, strict=True)]
    return tuple(TensorDescriptor.from_tensor(*described) for described in zip(joined, boxes, layouts, strict=True))


@gluon.jit
def four(a0, a1, a2, a3, b0, b1, b2, b3):
    """Four sums in one reduction."""
    return a0 + b0, a1 + b1, a2 + b2, a3 + b3


@gluon.jit
def widened(x):
    """x in float32, of bfloat16 that lies two by two: one instruction each."""
    asm: gl.constexpr = "shl.b32 $0, $2, 16; and.b32 $1, $2, 0xffff0000;"
    return gl.inline_asm_elementwise(asm, "=r,=r,r", [x], dtype=gl.float32, is_pure=True, pack=2)


@gluon.jit
def one_by_one(room, R: gl.constexpr, C: gl.constexpr):
    """Tiles ``[R, C]`` in shared memory, without the axes that tell of which mini-batch and which tensor they are."""
    count: gl.constexpr = room.numel // (R * C)
    return room._reinterpret(gl.bfloat16, [count, R, C], gl.NVMMASharedLayout.get_default_for([R, C], gl.bfloat16))


@gluon.jit
def expect_tiles(c, given, done):
    """Say how much ``fetch_tiles`` will copy."""
    for n in gl.static_range(6):
        mbarrier.expect(done[n], given[n].block_type.nbytes, c >= 0)


@gluon.jit
def fetch_tiles(back, c, first, head, H, given, room, done, K: gl.constexpr, BLOCK: gl.constexpr):
    """Begin to copy the tiles of mini-batch c, the last but ``back``, if there is one."""
    place, at, slot, there = (first + c // BLOCK) * H + head, c % BLOCK, back % 2, c >= 0
    tma.async_copy_global_to_shared(given[2], [place, at * K, 0], done[2], room[2].index(slot), there)
    tma.async_copy_global_to_shared(given[3], [place, at * K, 0], done[3], room[3].index(slot), there)
    tma.async_copy_global_to_shared(given[0], [0, place, 0, at * K], done[0], room[0].index(slot), there)
    tma.async_copy_global_to_shared(given[4], [place, 0, at * K], done[4], room[4].index(slot), there)
    tma.async_copy_global_to_shared(given[5], [place, at, 0, 0], done[5], room[5].index(slot), there)
    tma.async_copy_global_to_shared(given[1], [0, place, at * K, 0], done[1], room[1].index(slot), there)


@gluon.jit
def send(back, c, first, head, H, results, taken, K: gl.constexpr, BLOCK: gl.constexpr):
    """Begin to copy ΔZ₁ and p of mini-batch c, the last but ``back``, to where they are taken; nowhere if that is negative."""
    place, at, slot = gl.where(back >= 0, (first + c // BLOCK) * H + head, NOWHERE), c % BLOCK, back & 1
    tma.async_copy_shared_to_global(taken[0], [place, 0, at * K], results[0].index(slot))
    tma.async_copy_shared_to_global(taken[1], [place, at * K, 0], results[1].index(slot))


@gluon.jit
def bring_nearer(ptr, N: gl.constexpr, W: gl.constexpr):
    """Begin to copy the N numbers at ptr, in whole lines of 128 bytes, to the second cache."""
    line: gl.constexpr = 1024 // ptr.dtype.element_ty.primitive_bitwidth
    at = gl.arange(0, triton.next_power_of_2(N // line), gl.BlockedLayout([1], [32], [W], [0]))
    asm: gl.constexpr = "prefetch.global.L2 [$1]; mov.b32 $0, 0;"
    gl.inline_asm_elementwise(asm, "=r,l", [(ptr + gl.minimum(at * line, N - 1)).to(gl.int64)], dtype=gl.int32, is_pure=False, pack=1)


@gluon.jit(do_not_specialize=("top", "blocks"))
def reverse_scan(
    gamma_ptr,
    start_ptr,
    length_ptr,
    first_ptr,
    hiddens,
    lines,
    keys,
    numbers,
    X2,
    W2s,
    dz,
    p,
    Ls,
    dWs,
    dWs_ptr,
    dbs_ptr,
    dW1_end_ptr,
    db1_end_ptr,
    dW2_end_ptr,
    db2_end_ptr,
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
    rowsum(X₂ ⊙ G₂Λ₂ᵀ), which is needed anyway. A mini-batch passes three barriers: after the shares of ΔG₂, before copies begin, and after ΔZ₂.
    """
    W: gl.constexpr = D // 8
    E: gl.constexpr = 4 * D
    gl.static_assert(gl.num_warps() == W)
    gl.static_assert(K == 16)
    head, row = gl.program_id(0), top + gl.program_id(1)
    length, first = longest, (row - top) * blocks
    if start_ptr is not None:
        length, first = gl.load(length_ptr + row), gl.load(first_ptr + row)
    length = gl.maximum(gl.minimum(length - begin, blocks * BLOCK * K), 0)
    tiles, taken = (hiddens, lines, keys, numbers, X2, W2s), (dz, p)
    # σ′, ΔG₁, ΔX₂, H̄ ⊙ σ″; G₂, ΔG₂, Ẑ, F; k; r, s₂, fℓ; X₂; W₂.
    copies = (
        gl.allocate_shared_memory(gl.bfloat16, [2, 4, 1, E, K], hiddens.layout),
        gl.allocate_shared_memory(gl.bfloat16, [2, 4, 1, K, D], lines.layout),
        gl.allocate_shared_memory(gl.bfloat16, [2, 1, K, D], keys.layout),
        gl.allocate_shared_memory(gl.float32, [2, 1, K, 4], numbers.layout),
        gl.allocate_shared_memory(gl.bfloat16, [2, 1, E, K], X2.layout),
        gl.allocate_shared_memory(gl.bfloat16, [2, 1, 1, E, D], W2s.layout),
    )
    done = (
        gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout()),
        gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout()),
        gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout()),
        gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout()),
        gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout()),
        gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout()),
    )
    ready = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    parts = gl.allocate_shared_memory(gl.float32, [W, K, D], gl.SwizzledSharedLayout(4, 1, min(8, 2 * W), [2, 1, 0]))
    offset = gl.allocate_shared_memory(gl.float32, [K, D], gl.SwizzledSharedLayout(4, 1, min(8, 2 * W), [1, 0]))
    gate = gl.allocate_shared_memory(gl.float32, [K, W], gl.SwizzledSharedLayout(1, 1, 1, [1, 0]))
    square = gl.allocate_shared_memory(gl.float32, [D], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    plain = gl.allocate_shared_memory(gl.bfloat16, [K, D], gl.NVMMASharedLayout.get_default_for([K, D], gl.bfloat16))
    results = (
        gl.allocate_shared_memory(gl.bfloat16, [2, 1, E, K], dz.layout),
        gl.allocate_shared_memory(gl.bfloat16, [2, 1, K, D], p.layout),
    )
    # At the end of a block as large as the shares of ΔG₂, which are not there then.
    dW2 = parts._reinterpret(gl.bfloat16, [1, 1, E, D], dWs.layout)
    hiddens_here, lines_here, keys_here = one_by_one(copies[0], E, K), one_by_one(copies[1], K, D), one_by_one(copies[2], K, D)
    X2_here, W2s_here = one_by_one(copies[4], E, K), one_by_one(copies[5], E, D)
    dz_here, p_here = one_by_one(results[0], E, K), one_by_one(results[1], K, D)
    numbers_here = copies[3]._reinterpret(gl.float32, [2, K, 4], gl.SwizzledSharedLayout(1, 1, 1, [1, 0]))

    count = gl.cdiv(length, K)
    for one in gl.static_range(6):
        mbarrier.init(done[one], count=1)
    mbarrier.init(ready, count=1)
    expect_tiles(count - 1, tiles, done)
    fetch_tiles(0, count - 1, first, head, H, tiles, copies, done, K, BLOCK)

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
    gamma = gl.load(gamma_ptr + head * D + d)
    square.store(gamma * gamma)

    for behind in range(gl.cdiv(count, BLOCK)):
        n = gl.cdiv(count, BLOCK) - 1 - behind
        place = (first + n).to(gl.int64) * H + head
        # Where W₂ of the mini-batch before was, and that of the one after will be.
        free = (gl.maximum(count - (n + 1) * BLOCK, 0) + 1) % 2
        W2s_here.index(free).store(by_column(L1.to(gl.bfloat16), W))
        fence_async_shared()
        tma.async_copy_shared_to_global(Ls, [(first + n) * H + head, 0, 0], copies[5].index(free).reshape([1, E, D]))
        gl.store(ls_ptr + place * E + wide, whole(l1, W), i == 0)
        for back in range(gl.maximum(count - (n + 1) * BLOCK, 0), count - n * BLOCK):
            c, slot = count - 1 - back, back % 2
            at, of_token = c - n * BLOCK, numbers_here.index(slot)
            x, G2_here, W2 = keys_here.index(slot), lines_here.index(4 * slot), W2s_here.index(slot).permute([1, 0])
            mbarrier.wait(done[3], slot)
            weight = of_token.slice(2, 1, 1).load(tokens(W))
            by_warp = of_token.reshape([1, K, 4]).slice(2, 1, 2).load(shares(W))
            mbarrier.wait(done[2], slot)
            asked = mma_v2(x.load(gl.DotOperandLayout(0, tokens(W), 2)), first_operand(L1, W), whole(l1, W)) * weight
            mbarrier.wait(done[0], slot)
            rise, bend = hiddens_here.index(4 * slot).permute([1, 0]), hiddens_here.index(4 * slot + 3).permute([1, 0])
            asked += widened(hiddens_here.index(4 * slot + 1).permute([1, 0]).load(tokens(W)))
            dH = (asked * widened(rise.load(tokens(W)))).to(gl.bfloat16)
            mbarrier.wait(done[4], slot)
            hid = X2_here.index(slot).permute([1, 0])
            # Tiles are read where they are needed, and again: there are no registers to keep them.
            share = mma_v2(left_by_warp(hid.load(tokens(W)), W), right_by_warp(L2.to(gl.bfloat16), W), gl.zeros([W, K, D], gl.float32, shares(W)))
            mbarrier.wait(done[5], slot)
            parts.store(mma_v2(left_by_warp(dH, W), right_by_warp(W2.load(tokens(W)), W), share * by_warp))
            offset.store(l2)
            mbarrier.wait(done[1], slot)

            bias = offset.load(rows(W))
            dG2 = gl.sum(parts.load(gathered(W)), 0)
            error, more = widened(G2_here.load(rows(W))), widened(lines_here.index(4 * slot + 1).load(rows(W)))
            z, f = widened(lines_here.index(4 * slot + 2).load(rows(W))), widened(lines_here.index(4 * slot + 3).load(rows(W)))
            r, s2, lr = of_token.slice(0, 1, 1).load(rows(W)), of_token.slice(1, 1, 1).load(rows(W)), of_token.slice(2, 1, 1).load(rows(W))
            dG2 += lr * bias + more
            left = G2_here.load(gl.DotOperandLayout(0, tokens(W), 2))
            written = exchanged(mma_v2(left, right_operand(turned_anew(L2), W), gl.zeros([K, E], gl.float32, tokens(W))), W)
            gate.store(sums_by_warp(widened(hid.load(tokens(W))) * written, W))
            written = written * weight + widened(hiddens_here.index(4 * slot + 2).permute([1, 0]).load(tokens(W)))
            L2 = mma_v2(G2_here.permute([1, 0]).load(gl.DotOperandLayout(0, tokens(W), 2)), right_operand(turned(dH), W), L2)
            fence_async_shared()
            expect_tiles(c - 1, tiles, done)
            if at == 0:
                mbarrier.expect(ready, dWs.block_type.nbytes)
            tma.store_wait(0)

            send(back - 1, c + 1, first, head, H, results, taken, K, BLOCK)
            if at == 0:
                tma.async_copy_global_to_shared(dWs, [(first + n) * H + head, 1, 0, 0], ready, dW2)
                bring_nearer(dWs_ptr + place * 2 * D * E, D * E, W)
                bring_nearer(dbs_ptr + place * (E + D), E + D, W)
            fetch_tiles(back + 1, c - 1, first, head, H, tiles, copies, done, K, BLOCK)
            straight = r * r * (square.load(gl.SliceLayout(0, rows(W)))[None, :] - s2) * dG2
            mean, along, across, gated = gl.reduce((straight, z * dG2, f * dG2, error * bias), 1, four)
            mean, along, across = mean[:, None] / D, along[:, None] / D, across[:, None] / D
            gl.store(gated_ptr + place * (BLOCK * K) + at * K + j, gated + of_warps(gate, W))
            plain.store((straight - mean - f * along - z * across).to(gl.bfloat16))

            p_here.index(slot).store((r * (dG2 - z * along)).to(gl.bfloat16))
            dX2 = mma_v2(plain.load(gl.DotOperandLayout(0, tokens(W), 2)), W2.load(gl.DotOperandLayout(1, tokens(W), 2)), written)
            rises = widened(rise.load(tokens(W)))
            over = turned((dX2 * rises + asked * widened(bend.load(tokens(W)))).to(gl.bfloat16))
            dz_here.index(slot).store(over)
            L1 = mma_v2(left_operand(over, W), x.load(gl.DotOperandLayout(1, maps(W), 2)), L1)
            l1 = half(mma_v2(ones, right_operand(over, W), whole(l1, W)))
            L2 = mma_v2(plain.permute([1, 0]).load(gl.DotOperandLayout(0, tokens(W), 2)), hid.load(gl.DotOperandLayout(1, tokens(W), 2)), L2)
            l2 = mma_v2(ones, plain.load(gl.DotOperandLayout(1, tokens(W), 2)), l2)
        L1 += widened(gl.load(dWs_ptr + place * 2 * D * E + e * D + d1))
        mbarrier.wait(ready, behind % 2)
        L2 += widened(one_by_one(dW2, E, D).index(0).permute([1, 0]).load(tokens(W)))
        l1 += half(gl.load(dbs_ptr + place * (E + D) + wide))
        l2 += gl.load(dbs_ptr + place * (E + D) + E + narrow)
    fence_async_shared()
    send(count - 1, 0, first, head, H, results, taken, K, BLOCK)
    tma.store_wait(0)

    gl.store(dW1_ptr + end * D * E + d1 * E + e, L1)
    gl.store(db1_ptr + end * E + wide, whole(l1, W), i == 0)
    gl.store(dW2_ptr + end * D * E + h2 * D + d2, L2 + L2_mean)
    gl.store(db2_ptr + end * D + narrow, l2 + l2_mean, i == 0)
