"""The sequential part of the forward pass, as ``mlp.scan`` for bfloat16, with both maps in registers."""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportOperatorIssue=false
# What is compiled has other types than what Python would run.
from __future__ import annotations

import triton.experimental.gluon.language as gl
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon.language.nvidia.ampere import async_copy, mma_v2
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, tma
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from ...linear.gluon.copies import copied_numbers, shared_numbers
from ...linear.gluon.gradient import gradient_from, moments
from ...linear.gluon.layouts import maps, tokens, turned
from .layouts import (
    NOWHERE,
    by_column,
    copied,
    first_operand,
    gathered,
    half,
    hidden,
    left_by_warp,
    left_operand,
    right_by_warp,
    right_operand,
    rows,
    shares,
    summands,
    swizzled,
    synchronize,
    turned_from_float,
    weights_by_warp,
    whole,
)

AHEAD = gl.constexpr(3)


def destinations(X2: Tensor, G1: Tensor, G2: Tensor, Ws: Tensor, W2s: Tensor | None) -> tuple[TensorDescriptor | None, ...]:
    """``scan``'s results: of a mini-batch two ``[E, K]``, one ``[K, D]`` and one ``[E, D]`` are stored at once, of a block two ``[E, D]``."""
    E, D = Ws.shape[-2:]
    boxes = (X2, [E, 16]), (G1, [E, 16]), (G2, [16, D]), (Ws, [E, D]), (W2s, [E, D])
    layouts = [gl.NVMMASharedLayout.get_default_for(box, gl.bfloat16) for _, box in boxes]
    return tuple(
        x if x is None else TensorDescriptor.from_tensor(x.flatten(0, -2), box, layout) for (x, box), layout in zip(boxes, layouts, strict=True)
    )


@gluon.jit
def approximately(instruction: gl.constexpr, x):
    """One of the multifunction unit's, whose last digits bfloat16 has not: where numbers are small beyond all use they become 0."""
    return gl.inline_asm_elementwise(instruction + ".approx.ftz.f32 $0, $1;", "=r,r", [x], dtype=gl.float32, is_pure=True, pack=1)


@gluon.jit
def gelu(z):
    """(σ, σ′) at z, as ``mlp.tiles.gelu``. Large z need no limit: t is 0 there, and no product with it overflows."""
    held = gl.maximum(z, -10.0)
    square = held * held
    t = approximately("ex2", held * (-2.302208198136768 - 0.1029432395796856 * square))
    s = approximately("rcp", 1 + t)
    return z * s, s + t * s * (s * held) * (1.5957691216057308 + 0.21406444881780073 * square)


@gluon.jit
def six(a0, a1, a2, a3, a4, a5, b0, b1, b2, b3, b4, b5):
    """Six sums in one reduction."""
    return a0 + b0, a1 + b1, a2 + b2, a3 + b3, a4 + b4, a5 + b5


@gluon.jit
def loss_gradient(z, u, gamma, squares, D: gl.constexpr, eps):
    """G = ∂L/∂z as ``linear.tiles.loss_gradient``, given the sum of γ²."""
    square = gamma * gamma
    bent = square * z
    whole, slant, power, curved, along, offset = gl.reduce((z, bent, z * z, bent * z, u * z, u), 1, six)
    whole, slant, power = whole[:, None], slant[:, None], power[:, None]
    curved, along, offset = curved[:, None], along[:, None], offset[:, None]
    return gradient_from(moments(whole, slant, power, curved, along, offset, squares, D, eps), z, u, square)


@gluon.jit
def fetch(c, room, k_ptr, v_ptr, lr_ptr, start, length, head, H, K: gl.constexpr, D: gl.constexpr):
    """Begin to copy k, v and ℓ of mini-batch c, 0 where there is no token."""
    W: gl.constexpr = D // 8
    i, d = gl.arange(0, 16, gl.SliceLayout(1, copied(W))), gl.arange(0, D, gl.SliceLayout(0, copied(W)))
    j = gl.arange(0, 16, copied_numbers(W))
    left, token = gl.minimum(length - c * K, K), (start + c * K).to(gl.int64) * H + head
    at = token * D + i[:, None] * (H * D) + d[None, :]
    async_copy.async_copy_global_to_shared(room[0].index(c % (AHEAD + 1)), k_ptr + at, (i < left)[:, None])
    async_copy.async_copy_global_to_shared(room[1].index(c % (AHEAD + 1)), v_ptr + at, (i < left)[:, None])
    async_copy.async_copy_global_to_shared(room[2].index(c % (AHEAD + 1)), lr_ptr + token + j * H, j < left)
    async_copy.commit_group()


@gluon.jit
def fetched(c, room, gamma, beta, W: gl.constexpr):
    """(X and u by rows, ℓ by rows, ℓ by columns of a left operand) of mini-batch c."""
    at = c % (AHEAD + 1)
    x = room[0].index(at).load(rows(W))
    u = gamma * (beta - room[1].index(at).load(rows(W)).to(gl.float32) + x.to(gl.float32))
    lr, across = room[2].index(at).load(gl.SliceLayout(1, rows(W))), room[2].index(at).load(gl.SliceLayout(0, gl.DotOperandLayout(0, tokens(W), 2)))
    return x, u, lr, across


@gluon.jit(do_not_specialize=("top", "blocks"))
def scan(
    k_ptr,
    v_ptr,
    lr_ptr,
    W1_ptr,
    b1_ptr,
    W2_ptr,
    b2_ptr,
    scale_ptr,
    gamma_ptr,
    beta_ptr,
    start_ptr,
    length_ptr,
    first_ptr,
    X2_to,
    G1_to,
    G2_to,
    Ws_to,
    bs_ptr,
    W2s_to,
    W1_end_ptr,
    b1_end_ptr,
    W2_end_ptr,
    b2_end_ptr,
    W1_stride,
    b1_stride,
    W2_stride,
    b2_stride,
    top,
    longest,
    begin,
    blocks,
    H,
    eps,
    K: gl.constexpr,
    D: gl.constexpr,
    BLOCK: gl.constexpr,
):
    """Of one head (axis 0) of a piece of a sequence (axis 1), X₂, G₁, G₂ of its tokens, and W, b at its blocks' starts and at its end.

    Arguments and equations are those of ``mlp.scan``; D is 16, 32 or 64, E = 4D, K at most 16, BLOCK the mini-batches of a block; tokens, X₂, G and
    Ws are bfloat16, ℓ is float32. A mini-batch passes two barriers: after its shares of X₂W₂, and after G₂.

    What ends in ``_to`` is a tensor, or with K = 16 on Hopper a descriptor (``destinations``). X₂, G₁, G₂ and W₂ then lie in shared memory, in rooms
    for even and for odd mini-batches, where products find them the right way round, and the GPU stores them from there: G₁ after the first barrier of
    the next mini-batch, the others after the second, before which those of the mini-batch before are waited for.
    """
    W: gl.constexpr = D // 8
    E: gl.constexpr = 4 * D
    R: gl.constexpr = 16
    gl.static_assert(gl.num_warps() == W)
    head, row = gl.program_id(0), top + gl.program_id(1)
    start, length, first = row * longest, longest, (row - top) * blocks
    if start_ptr is not None:
        start, length, first = gl.load(start_ptr + row), gl.load(length_ptr + row), gl.load(first_ptr + row)
    start, length = start + begin, gl.maximum(gl.minimum(length - begin, blocks * BLOCK * K), 0)
    ks = gl.allocate_shared_memory(gl.bfloat16, [AHEAD + 1, R, D], swizzled(W))
    vs = gl.allocate_shared_memory(gl.bfloat16, [AHEAD + 1, R, D], swizzled(W))
    rates = gl.allocate_shared_memory(gl.float32, [AHEAD + 1, R], shared_numbers())
    parts = gl.allocate_shared_memory(gl.float32, [W, R, D], summands(W, [2, 1, 0]))
    offset = gl.allocate_shared_memory(gl.float32, [R, D], summands(W, [1, 0]))
    described: gl.constexpr = isinstance(X2_to, tma.tensor_descriptor)
    gl.static_assert(K == R or not described)
    plain = gl.allocate_shared_memory(gl.bfloat16, [2, R, D], G2_to.layout if described else swizzled(W))
    if described:
        X2_room = gl.allocate_shared_memory(gl.bfloat16, [2, E, R], X2_to.layout)
        G1_room = gl.allocate_shared_memory(gl.bfloat16, [2, E, R], G1_to.layout)
        Ws_room = gl.allocate_shared_memory(gl.bfloat16, [2, E, D], Ws_to.layout)
        W2_room = gl.allocate_shared_memory(gl.bfloat16, [2, E, D], Ws_to.layout)
    gated = gl.allocate_shared_memory(gl.bfloat16, [R, D], swizzled(W))
    gated_x = gl.allocate_shared_memory(gl.bfloat16, [R, D], swizzled(W))
    room = ks, vs, rates
    for ahead in gl.static_range(AHEAD):
        fetch(ahead, room, k_ptr, v_ptr, lr_ptr, start, length, head, H, K, D)

    e, d1 = hidden(gl.arange(0, E, gl.SliceLayout(1, maps(W))), E)[:, None], gl.arange(0, D, gl.SliceLayout(0, maps(W)))[None, :]
    d2, h2 = gl.arange(0, D, gl.SliceLayout(1, tokens(W)))[:, None], gl.arange(0, E, gl.SliceLayout(0, tokens(W)))[None, :]
    given, end = gl.program_id(1).to(gl.int64), row.to(gl.int64) * H + head
    W1 = gl.load(W1_ptr + given * W1_stride + head * D * E + d1 * E + e).to(gl.float32)
    W2 = gl.load(W2_ptr + given * W2_stride + head * D * E + h2 * D + d2).to(gl.float32)
    W2_mean = (gl.sum(W2, 0) / D)[None, :]
    W2 -= W2_mean
    # R equal rows: they are updated by products.
    i = gl.arange(0, R, gl.SliceLayout(1, tokens(W)))[:, None]
    wide, narrow = i * 0 + h2, i * 0 + gl.arange(0, D, gl.SliceLayout(0, tokens(W)))[None, :]
    b1 = half(gl.load(b1_ptr + given * b1_stride + head * E + wide))
    b2 = gl.load(b2_ptr + given * b2_stride + head * D + narrow)
    b2_mean = (gl.sum(b2, 1) / D)[:, None]
    b2 -= b2_mean
    ones = gl.full([R, R], 1.0, gl.bfloat16, gl.DotOperandLayout(0, tokens(W), 2))
    j, d = gl.arange(0, R, gl.SliceLayout(1, rows(W))), gl.arange(0, D, gl.SliceLayout(0, rows(W)))
    gamma, beta = gl.load(gamma_ptr + head * D + d)[None, :], gl.load(beta_ptr + head * D + d)[None, :]
    squares = gl.sum(gl.sum(gamma * gamma, 1), 0)
    last = gl.load(scale_ptr + K - 1)
    async_copy.wait_group(AHEAD - 1)
    x, u, lr, lr_across = fetched(0, room, gamma, beta, W)

    # Where G₁ of the mini-batch before belongs: of the first one nowhere, and so nothing is stored.
    before, before_at = NOWHERE, 0
    flat = gl.arange(0, E, gl.SliceLayout(1, copied(W)))[:, None] * D + gl.arange(0, D, gl.SliceLayout(0, copied(W)))[None, :]

    count = gl.cdiv(length, K)
    for n in range(gl.cdiv(count, BLOCK)):
        spot = (first + n) * H + head
        place = (first + n).to(gl.int64) * H + head
        if described:
            Ws_room.index(0).store(by_column(W1.to(gl.bfloat16), W))
            Ws_room.index(1).store(weights_by_warp(right_by_warp(W2.to(gl.bfloat16), W), W))
            fence_async_shared()
            synchronize()
            tma.async_copy_shared_to_global(Ws_to, [spot * 2 * E, 0], Ws_room.index(0))
            tma.async_copy_shared_to_global(Ws_to, [spot * 2 * E + E, 0], Ws_room.index(1))
        else:
            gl.store(Ws_to + place * 2 * D * E + flat, gl.convert_layout(by_column(W1.to(gl.bfloat16), W), copied(W)))
            gl.store(Ws_to + place * 2 * D * E + D * E + flat, gl.convert_layout(turned_from_float(W2), copied(W)))
        gl.store(bs_ptr + place * (E + D) + wide, whole(b1, W), i == 0)
        gl.store(bs_ptr + place * (E + D) + E + narrow, b2, i == 0)
        for c in range(n * BLOCK, gl.minimum((n + 1) * BLOCK, count)):
            at, slot = (c - n * BLOCK) * K, c % 2
            step = gl.where(length >= (c + 1) * K, -last, 0.0)
            left = ks.index(c % (AHEAD + 1)).load(gl.DotOperandLayout(0, tokens(W), 2))
            X2, slope = gelu(mma_v2(left, first_operand(W1, W), whole(b1, W)))
            X2 = X2.to(gl.bfloat16)
            if described:
                # For G₁ of the mini-batch before: nothing is being written now that this would wait for.
                fence_async_shared()
            W2_by_warp = right_by_warp(W2.to(gl.bfloat16), W)
            parts.store(mma_v2(left_by_warp(X2, W), W2_by_warp, gl.zeros([W, R, D], gl.float32, shares(W))))
            offset.store(b2)
            if not described:
                across = turned(X2)
                hid = gl.arange(0, E, gl.SliceLayout(1, across.type.layout))[:, None]
                tok = gl.arange(0, R, gl.SliceLayout(0, across.type.layout))[None, :]
                written = place * (BLOCK * K) * E + at + hid * (BLOCK * K) + tok
                gl.store(X2_to + written, across, tok < K)
            async_copy.wait_group(AHEAD - 2)

            z = gl.sum(parts.load(gathered(W)), 0) + offset.load(rows(W))
            fetch(c + AHEAD, room, k_ptr, v_ptr, lr_ptr, start, length, head, H, K, D)
            if described:
                tma.async_copy_shared_to_global(G1_to, [before, before_at], G1_room.index(1 - slot))
                before, before_at = spot * E, at
                X2_room.index(slot).permute([1, 0]).store(X2)
                W2_room.index(slot).store(weights_by_warp(W2_by_warp, W))
            G2 = loss_gradient(z, u, gamma, squares, D, eps)
            plain.index(slot).store(G2.to(gl.bfloat16))
            gated.store((G2 * (step * lr)[:, None]).to(gl.bfloat16))
            gated_x.store((x.to(gl.float32) * (step * lr)[:, None]).to(gl.bfloat16))
            weight = (gl.full([R, R], 1.0, gl.float32, gl.DotOperandLayout(0, tokens(W), 2)) * (step * lr_across)[None, :]).to(gl.bfloat16)
            if described:
                fence_async_shared()
                tma.store_wait(1)
                tma.async_copy_shared_to_global(X2_to, [spot * E, at], X2_room.index(slot))
                tma.async_copy_shared_to_global(G2_to, [spot * (BLOCK * K) + at, 0], plain.index(slot))
                if W2s_to is not None:
                    tma.async_copy_shared_to_global(W2s_to, [(spot * BLOCK + c - n * BLOCK) * E, 0], W2_room.index(slot))
                W2_right = W2_room.index(slot).permute([1, 0]).load(gl.DotOperandLayout(1, tokens(W), 2))
            else:
                gl.store(G2_to + (place * (BLOCK * K) + at) * D + j[:, None] * D + d[None, :], G2.to(gl.bfloat16), (j < K)[:, None])
                upright = turned_from_float(W2)
                if W2s_to is not None:
                    gl.store(W2s_to + (place * BLOCK + c - n * BLOCK) * D * E + flat, gl.convert_layout(upright, copied(W)))
                W2_right = right_operand(upright, W)

            G1 = mma_v2(plain.index(slot).load(gl.DotOperandLayout(0, tokens(W), 2)), W2_right, gl.zeros([R, E], gl.float32, tokens(W)))
            G1 = (G1 * slope).to(gl.bfloat16)
            if described:
                G1_room.index(slot).permute([1, 0]).store(G1)
                X2_right = X2_room.index(slot).permute([1, 0]).load(gl.DotOperandLayout(1, tokens(W), 2))
                G1 = turned(G1)
            else:
                X2_right, G1 = right_operand(across, W), turned(G1)
                gl.store(G1_to + written, G1, tok < K)
            W1 = mma_v2(left_operand(G1, W), gated_x.load(gl.DotOperandLayout(1, maps(W), 2)), W1)
            b1 = half(mma_v2(weight, right_operand(G1, W), whole(b1, W)))
            W2 = mma_v2(gated.permute([1, 0]).load(gl.DotOperandLayout(0, tokens(W), 2)), X2_right, W2)
            b2 = mma_v2(ones, gated.load(gl.DotOperandLayout(1, tokens(W), 2)), b2)
            x, u, lr, lr_across = fetched(c + 1, room, gamma, beta, W)
    async_copy.wait_group(0)
    if described:
        fence_async_shared()
        synchronize()
        tma.async_copy_shared_to_global(G1_to, [before, before_at], G1_room.index((count + 1) % 2))

    if W1_end_ptr is not None:
        gl.store(W1_end_ptr + end * D * E + d1 * E + e, W1)
        gl.store(b1_end_ptr + end * E + wide, whole(b1, W), i == 0)
        gl.store(W2_end_ptr + end * D * E + h2 * D + d2, W2 + W2_mean)
        gl.store(b2_end_ptr + end * D + narrow, b2 + b2_mean, i == 0)
    if described:
        tma.store_wait(0)
