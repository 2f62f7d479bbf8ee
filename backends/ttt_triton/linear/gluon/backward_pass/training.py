"""What is sequential in the backward pass: ΔG and ΔZ of the training rows, and Λ from mini-batch to mini-batch."""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportOperatorIssue=false
# What is compiled has other types than what Python would run.
from __future__ import annotations

import triton.experimental.gluon.language as gl
from triton.experimental import gluon
from triton.experimental.gluon.language.nvidia.ampere import mma_v2

from ..copies import records
from ..layouts import by_column, by_row, maps, operands, right_operand, tokens
from ..sums import gathered, halved, share_four, share_one, shared_four, shared_one, sum_four, sum_one
from .meeting import hear, tell
from .rooms import inputs, places


@gluon.jit
def asked(back, handed, rows, D: gl.constexpr, R: gl.constexpr):
    """(X as left operand, ΔZ̄ as right operand, what ΔG is of it, Ẑ, H) of the mini-batch that is the last but ``back``."""
    W: gl.constexpr = D // 16
    place = back >> 1 & 1
    across = handed[0].index(place).load(gl.DotOperandLayout(1, tokens(W), 2))
    asking = handed[1].index(place).permute([1, 0]).load(gl.DotOperandLayout(0, tokens(W), 2))
    dG = mma_v2(asking, across, gl.zeros([R, D], gl.float32, tokens(W)))
    left = rows.load(gl.DotOperandLayout(0, tokens(W), 2))
    return left, across, dG, handed[2].index(place).load(tokens(W)), handed[3].index(place).load(tokens(W))


@gluon.jit
def step(n, back, state, here, there, handed, passed, four, one, fixed, meetings, dlr_ptr, where, count, D: gl.constexpr, R: gl.constexpr):
    """Mini-batch n, the last but ``back``: store its Δℓ, pass on Λ, ΔZ and v̄, and return (Λ, λ, parts of Δγ, Δβ and Δs_{K−1}, what was ``asked``).

    ``here`` is the room of n, ``there`` that of the next one; so are ``handed`` and ``passed`` the places of what comes from ``read_back`` for the
    next one, and goes on to ``tokens_back`` of n.
    """
    W: gl.constexpr = D // 16
    start, _, head, H = where
    gamma, last = fixed
    read, trained, _ = meetings
    dW, db, parts, known = state
    dgamma, dbeta, dlast = parts
    left, across_q, dG, normed, h = known
    i, _ = places(D, R)
    place = back >> 1 & 1
    q, k, _, G, _, rates, first, second = inputs(here, n)
    units = gl.full([R, R], 1.0, gl.bfloat16, gl.DotOperandLayout(0, tokens(W), 2))
    away = mma_v2(left, right_operand(dW, W), db)
    dG -= last * away
    weighed = gamma * dG
    share_four(four, dG, gamma * weighed, normed * dG, h * weighed, W)
    share_one(one, gamma * (normed * weighed), W)
    passed[0].index(place).store(by_column(dW.to(gl.bfloat16), W))
    lr = rates.load(gl.SliceLayout(1, tokens(W)))[:, None]
    dlast += gathered(G.load(tokens(W)).to(gl.float32) * away * lr, W)
    turned_q = gl.convert_layout(by_row(across_q.permute(1, 0), W), gl.DotOperandLayout(0, maps(W), 2), assert_trivial=True)
    dW = mma_v2(turned_q, q.load(gl.DotOperandLayout(1, maps(W), 2)), dW)
    db = mma_v2(units, across_q, db)
    _, r, _, _ = records(first, W)
    s1, s2, c_mean, tilt = records(second, W)
    # The barrier that the sums need says as well that the step before is through.
    tell(trained, back - 1)
    hear(read, back + 1, count)

    whole, straight, along, steep = sum_four(four, W)
    bend = sum_one(one, W)
    following = asked(back + 1, handed, inputs(there, n - 1)[1], D, R)
    a, F_sum, c = along / D, (steep - c_mean * whole - tilt * along) / D, lr * r * r
    straight = (straight - s2 * whole) / D
    dz = (gamma * gamma * c - s2 * c) * dG + (gamma * (h * (-a * c)) + (normed * ((tilt * a - F_sum) * c) + (c_mean * a - straight) * c))
    across, turned = operands(dz, W)
    dW = mma_v2(turned, k.load(gl.DotOperandLayout(1, maps(W), 2)), dW)
    db = mma_v2(units, across, db)
    passed[1].index(place).store(dz.to(gl.bfloat16))
    c = lr * r
    p = dG * c + (normed * (-a * c) - whole / D * c)
    dgamma += halved(p * h)
    p *= gamma
    dbeta += halved(p)
    passed[2].index(place).store((-p).to(gl.bfloat16))
    token = (start + n * R).to(gl.int64) * H + head
    gl.store(dlr_ptr + token + i[:, None] * H, r * (steep - bend - s1 * whole - s2 * along))
    return dW, db, (dgamma, dbeta, dlast), following


@gluon.jit
def train_back(state, rooms, handed, passed, meetings, scale_ptr, gamma_ptr, dlr_ptr, where, count, D: gl.constexpr, R: gl.constexpr):
    """All mini-batches, from the last to the first: (Λ, λ, parts of Δγ, Δβ and Δs_{K−1})."""
    W: gl.constexpr = D // 16
    even, odd = rooms
    _, d = places(D, R)
    fixed = gl.load(gamma_ptr + where[2] * D + d)[None, :], gl.load(scale_ptr + R - 1)
    even_four, odd_four, even_one, odd_one = shared_four(R, W), shared_four(R, W), shared_one(R, W), shared_one(R, W)
    hear(meetings[0], 0, count)
    dW, db, parts = state
    state = dW, db, parts, asked(0, handed[1], inputs(odd, count - 1)[1], D, R)
    for back in range(0, count, 2):
        n = count - 1 - back
        state = step(n, back, state, odd, even, handed[0], passed[1], odd_four, odd_one, fixed, meetings, dlr_ptr, where, count, D, R)
        n, back = n - 1, back + 1
        state = step(n, back, state, even, odd, handed[1], passed[0], even_four, even_one, fixed, meetings, dlr_ptr, where, count, D, R)
    tell(meetings[1], count - 1)
    return state[0], state[1], state[2]
