"""What the backward pass knows without Λ, ahead of it: Ẑ, and of the read-outs ΔZ̄ and their parts of Δγ, Δβ and Δs."""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportOperatorIssue=false
# What is compiled has other types than what Python would run.
from __future__ import annotations

import triton.experimental.gluon.language as gl
from triton.experimental import gluon
from triton.experimental.gluon.language.nvidia.ampere import async_copy, mma_v2

from ..copies import records
from ..layouts import maps, tokens
from ..readout import factors, up_to_itself
from ..sums import gathered_rows, halved, share_two, shared_two, sum_two
from .meeting import hear, tell
from .products import against, as_left, corrected
from .rooms import fetch, fetch_weights, inputs, places


@gluon.jit
def step(n, back, parts, here, there, weights, handed, two, fixed, meetings, sources, D: gl.constexpr, R: gl.constexpr, ODD: gl.constexpr):
    """Hand on ΔZ̄, what ΔG is of it and Ẑ of mini-batch n, the last but ``back``, and return parts of Δγ, Δβ and Δs."""
    W: gl.constexpr = D // 16
    dgamma, dbeta, dscale = parts
    gamma, beta, last, factor, negative = fixed
    read, _, done = meetings
    given, kept, where = sources
    shared_dzq, shared_asking, shared_normed, shared_h = handed
    place = back >> 1 & 1
    q, k, v, G, dy, lr, moments, _ = inputs(here, n)
    earlier = inputs(here, n)
    if ODD:
        earlier = inputs(there, n)
    hear(done, back - 4, back)
    x_left, q_left = k.load(gl.DotOperandLayout(0, tokens(W), 2)), q.load(gl.DotOperandLayout(0, tokens(W), 2))
    Wn, bn = weights[0].index((n >> 1) & 3), weights[1].index((n >> 1) & 3)
    right = Wn.load(gl.DotOperandLayout(1, tokens(W), 2))
    b = gl.zeros([R, D], gl.float32, tokens(W)) + bn.load(gl.SliceLayout(0, tokens(W)))[None, :]
    rates = lr.load(gl.SliceLayout(0, maps(W)))[None, :]
    seen = up_to_itself(against(q_left, k, gl.full([R, R], 1.0, gl.float32, maps(W)), W))
    zq, z = mma_v2(q_left, right, b), mma_v2(x_left, right, b)
    answers = mma_v2(as_left(seen * rates, W), G.load(gl.DotOperandLayout(1, tokens(W), 2)), gl.zeros([R, D], gl.float32, tokens(W)))
    if ODD:
        zq, z = corrected(zq, q_left, earlier, last, W), corrected(z, x_left, earlier, last, W)
    off, r, off_q, rq = records(moments, W)
    normed = z * r + off
    normed_q = (zq + negative * answers) * rq + off_q
    asked = dy.load(tokens(W)).to(gl.float32)
    g = gamma * asked
    share_two(two, g, g * normed_q, W)
    shared_normed.index(place).store(normed)
    shared_h.index(place).store((2 * gamma) * normed + (beta - v.load(tokens(W)).to(gl.float32) + k.load(tokens(W)).to(gl.float32)))
    shared_asking.index(place).store((seen * factor).to(gl.bfloat16))
    dgamma += halved(asked * normed_q)
    dbeta += halved(asked)
    if not ODD:
        async_copy.wait_group(1)

    whole, along = sum_two(two, W)
    dzq = g * rq + (normed_q * (-rq * along / D) - rq * whole / D)
    shared_dzq.index(place).store(dzq.to(gl.bfloat16))
    fetch(n - 4, here, given, where, D, R)
    if not ODD:
        fetch_weights((n >> 1) - 2, weights, kept, where, D)
    async_copy.commit_group()
    tell(read, back)
    dscale += gathered_rows(dzq * answers, W)
    return dgamma, dbeta, dscale


@gluon.jit
def read_back(rooms, weights, handed, sums, meetings, sources, scale_ptr, gamma_ptr, beta_ptr, count, D: gl.constexpr, R: gl.constexpr):
    """All mini-batches, from the last to the first; in the end the sums over all are in shared memory."""
    W: gl.constexpr = D // 16
    even, odd = rooms
    given, kept, where = sources
    fetch(count - 1, odd, given, where, D, R)
    fetch(count - 2, even, given, where, D, R)
    fetch_weights(count // 2 - 1, weights, kept, where, D)
    async_copy.commit_group()
    fetch(count - 3, odd, given, where, D, R)
    fetch_weights(count // 2 - 2, weights, kept, where, D)
    async_copy.commit_group()
    fetch(count - 4, even, given, where, D, R)
    async_copy.commit_group()
    i, d = places(D, R)
    gamma, beta = gl.load(gamma_ptr + where[2] * D + d)[None, :], gl.load(beta_ptr + where[2] * D + d)[None, :]
    fixed = gamma, beta, gl.load(scale_ptr + R - 1), factors(scale_ptr, R, R, W), -gl.load(scale_ptr + i)[:, None]
    zeros = gl.zeros([R, D], gl.float32, tokens(W))
    parts = halved(zeros), halved(zeros), gathered_rows(zeros, W)
    even_two, odd_two = shared_two(R, W), shared_two(R, W)
    async_copy.wait_group(2)
    for back in range(0, count, 2):
        n = count - 1 - back
        parts = step(n, back, parts, odd, even, weights, handed[1], odd_two, fixed, meetings, sources, D, R, True)
        n, back = n - 1, back + 1
        parts = step(n, back, parts, even, odd, weights, handed[0], even_two, fixed, meetings, sources, D, R, False)
    async_copy.wait_group(0)
    dgamma, dbeta, dscale = parts
    sums[0].store(gl.sum(dgamma, 0))
    sums[1].store(gl.sum(dbeta, 0))
    sums[2].store(gl.sum(gl.sum(dscale, 2), 1))
