"""The cotangents of tokens in the backward pass, behind all else: q̄ and k̄, products with ΔZ̄, ΔZ and Λ."""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportOperatorIssue=false
# What is compiled has other types than what Python would run.
from __future__ import annotations

import triton.experimental.gluon.language as gl
from triton.experimental import gluon
from triton.experimental.gluon.language.nvidia.ampere import mma_v2

from ..copies import send, swizzled
from ..layouts import maps, tokens, turned
from ..readout import factors, up_to_itself
from .meeting import hear, tell
from .products import against, as_left, crossed
from .rooms import inputs


@gluon.jit
def step(n, back, here, there, weights, dzq, passed, out, fixed, meetings, results, where, D: gl.constexpr, R: gl.constexpr, ODD: gl.constexpr):
    """Store q̄, k̄ and v̄ of mini-batch n, the last but ``back``."""
    W: gl.constexpr = D // 16
    start, _, head, H = where
    dq_ptr, dk_ptr, dv_ptr = results
    last, factor = fixed
    _, trained, done = meetings
    place = back >> 1 & 1
    shared_dW, shared_dz, shared_dv = passed[0].index(place), passed[1].index(place), passed[2].index(place)
    q, k, _, G, dy, lr, _, _ = inputs(here, n)
    earlier = inputs(here, n)
    if ODD:
        earlier = inputs(there, n)
    at = (start + n * R).to(gl.int64) * H * D + head * D
    hear(trained, back, back + 1)
    rates = lr.load(gl.SliceLayout(0, maps(W)))[None, :]
    dzq, dz = dzq.index(place).load(gl.DotOperandLayout(0, tokens(W), 2)), shared_dz.load(gl.DotOperandLayout(0, tokens(W), 2))
    right = weights[0].index((n >> 1) & 3).permute([1, 0]).load(gl.DotOperandLayout(1, tokens(W), 2))
    pairs = against(dzq, G, gl.zeros([R, R], gl.float32, maps(W)), W) * factor * rates
    pairs = up_to_itself(pairs).to(gl.bfloat16)
    dq = mma_v2(dzq, right, dy.load(tokens(W)).to(gl.float32))
    left, dW = G.load(gl.DotOperandLayout(0, tokens(W), 2)), shared_dW.load(gl.DotOperandLayout(1, tokens(W), 2))
    dk = mma_v2(left, dW, gl.zeros([R, D], gl.float32, tokens(W)))
    dk = dk * (-last * lr.load(gl.SliceLayout(1, tokens(W)))[:, None]) - shared_dv.load(tokens(W)).to(gl.float32)
    dk = mma_v2(dz, right, dk)
    if ODD:
        dq = mma_v2(crossed(dzq, earlier, last, W), earlier[1].load(gl.DotOperandLayout(1, tokens(W), 2)), dq)
        dk = mma_v2(crossed(dz, earlier, last, W), earlier[1].load(gl.DotOperandLayout(1, tokens(W), 2)), dk)
    dq = mma_v2(as_left(pairs, W), k.load(gl.DotOperandLayout(1, tokens(W), 2)), dq)
    dk = mma_v2(as_left(turned(pairs), W), q.load(gl.DotOperandLayout(1, tokens(W), 2)), dk)
    send(shared_dv, dv_ptr + at, H * D, 0, R)
    out_q, out_k = out
    out_q.store(dq.to(gl.bfloat16))
    out_k.store(dk.to(gl.bfloat16))
    tell(done, back)
    send(out_q, dq_ptr + at, H * D, 0, R)
    send(out_k, dk_ptr + at, H * D, 0, R)


@gluon.jit
def room(R: gl.constexpr, D: gl.constexpr):
    """Shared memory for q̄ and k̄ of a mini-batch."""
    W: gl.constexpr = D // 16
    return gl.allocate_shared_memory(gl.bfloat16, [R, D], swizzled(W)), gl.allocate_shared_memory(gl.bfloat16, [R, D], swizzled(W))


@gluon.jit
def tokens_back(rooms, weights, handed, passed, meetings, results, scale_ptr, where, count, D: gl.constexpr, R: gl.constexpr):
    """All mini-batches, from the last to the first."""
    W: gl.constexpr = D // 16
    even, odd = rooms
    even_out, odd_out = room(R, D), room(R, D)
    fixed = gl.load(scale_ptr + R - 1), factors(scale_ptr, R, R, W)
    for back in range(0, count, 2):
        n = count - 1 - back
        step(n, back, odd, even, weights, handed[1][0], passed[1], odd_out, fixed, meetings, results, where, D, R, True)
        n, back = n - 1, back + 1
        step(n, back, even, odd, weights, handed[0][0], passed[0], even_out, fixed, meetings, results, where, D, R, False)
