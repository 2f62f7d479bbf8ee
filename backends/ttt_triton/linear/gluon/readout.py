"""Read-outs in the forward scan: y of a mini-batch while its weights and gradients are in registers."""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportOperatorIssue=false
# What is compiled has other types than what Python would run.
from __future__ import annotations

import triton.experimental.gluon.language as gl
from triton.experimental import gluon
from triton.experimental.gluon.language.nvidia.ampere import mma_v2

from .layouts import maps, operands, right_operand, tokens
from .sums import share_two, sum_two


@gluon.jit
def factors(scale_ptr, K: gl.constexpr, R: gl.constexpr, W: gl.constexpr):
    """−s_i ``[R, 1]`` with which token i reads tokens j ≤ i, all of it in each warp."""
    i = gl.arange(0, R, gl.SliceLayout(1, maps(W)))
    return -gl.load(scale_ptr + i, i < K, 0.0)[:, None]


@gluon.jit
def up_to_itself(x):
    """x ``[R, R]`` with 0 where row i does not read token j: j > i."""
    i, j = gl.arange(0, x.shape[0], gl.SliceLayout(1, x.type.layout)), gl.arange(0, x.shape[0], gl.SliceLayout(0, x.type.layout))
    return gl.where(i[:, None] >= j[None, :], x, 0.0)


@gluon.jit
def asked(queries, keys, rates, weights, b, factor, W: gl.constexpr):
    """(Q, QW + b, −M diag(ℓ) ⊙ (QKᵀ + 1) as left operand): what a mini-batch's read-outs need but its gradients."""
    R: gl.constexpr = queries.shape[0]
    z = mma_v2(queries.load(gl.DotOperandLayout(0, tokens(W), 2)), right_operand(weights, W), b)
    left, right = queries.load(gl.DotOperandLayout(0, maps(W), 2)), keys.permute([1, 0]).load(gl.DotOperandLayout(1, maps(W), 2))
    seen = mma_v2(left, right, gl.full([R, R], 1.0, gl.float32, maps(W)))
    seen = up_to_itself(seen * factor * rates.load(gl.SliceLayout(0, maps(W)))[None, :]).to(gl.bfloat16)
    return queries.load(tokens(W)), z, gl.convert_layout(seen, gl.DotOperandLayout(0, tokens(W), 2), assert_trivial=True)


@gluon.jit
def answered(asked, G, two, W: gl.constexpr):
    """(Q, Z̄) of a mini-batch, the warps' shares of the sums over rows of Z̄ in ``two``."""
    q, z, seen = asked
    z = mma_v2(seen, operands(G, W)[0], z)
    share_two(two, z, z * z, W)
    return q, z


@gluon.jit
def put(answer, two, gamma, beta, D: gl.constexpr, eps):
    """(y = Q + LN(Z̄), −mr, r) of a mini-batch, after the next barrier, where LN normalizes to rz − mr."""
    q, z = answer
    whole, power = sum_two(two, D // 16)
    m = whole / D
    r = gl.rsqrt(power / D - m * m + eps)
    return (q.to(gl.float32) + gamma * ((z - m) * r) + beta).to(gl.bfloat16), -m * r, r
