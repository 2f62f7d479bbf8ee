"""The whole backward pass as one scan, for bfloat16: a mini-batch a step from the last to the first, two of them with the weights of the earlier."""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportOperatorIssue=false
# What is compiled has other types than what Python would run.
from __future__ import annotations

import triton.experimental.gluon.language as gl
from triton.experimental import gluon

from ..copies import shared_numbers, swizzled
from ..layouts import column, maps, tokens
from ..sums import gathered, halved
from .cotangents import tokens_back
from .meeting import meeting
from .readout import read_back
from .rooms import places, room
from .training import train_back


@gluon.jit
def handed_on(R: gl.constexpr, D: gl.constexpr):
    """Shared memory for ΔZ̄, what ΔG is of it, Ẑ and H of every other one of four mini-batches."""
    W: gl.constexpr = D // 16
    dzq, asking = gl.allocate_shared_memory(gl.bfloat16, [2, R, D], swizzled(W)), gl.allocate_shared_memory(gl.bfloat16, [2, R, R], swizzled(R // 16))
    normed, h = gl.allocate_shared_memory(gl.float32, [2, R, D], swizzled(W)), gl.allocate_shared_memory(gl.float32, [2, R, D], swizzled(W))
    return dzq, asking, normed, h


@gluon.jit
def passed_on(R: gl.constexpr, D: gl.constexpr):
    """Shared memory for Λ at the end of every other one of four mini-batches, ΔZ and v̄."""
    W: gl.constexpr = D // 16
    dz, dv = gl.allocate_shared_memory(gl.bfloat16, [2, R, D], swizzled(W)), gl.allocate_shared_memory(gl.bfloat16, [2, R, D], swizzled(W))
    return gl.allocate_shared_memory(gl.bfloat16, [2, D, D], swizzled(W)), dz, dv


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
    """Of one head (axis 0) of a sequence (axis 1), all cotangents; whole pairs of mini-batches of K = R = 16, D = 64.

    Mini-batch after mini-batch from the last, with Λ, λ the cotangents of W, b at its end, P = M diag(ℓ) ⊙ ΔZ̄Gᵀ, other letters as in
    ``linear.readout_backward`` and ``linear.training_backward``:

        ΔG = −(M ⊙ (QXᵀ + 1))ᵀ ΔZ̄ − s_{K−1} (XΛ + λ)      ΔZ = ∂²L/∂z² diag(ℓ) ΔG      v̄ = −γp
        q̄ = ȳ + ΔZ̄Wᵀ − PX                                 k̄ = γp + ΔZWᵀ − s_{K−1} diag(ℓ) GΛᵀ − PᵀQ
        Λ ← Λ + QᵀΔZ̄ + XᵀΔZ                               λ ← λ + 1ᵀ(ΔZ̄ + ΔZ)

    q, k, v, G, ȳ and their cotangents ``[N, H, D]`` bfloat16, ℓ ``[N, H]``, moments ``[N, H, 8]`` as ``linear.op.forward`` says, W and b of every
    second mini-batch's start ``[N / 2K, H, D, D]`` bfloat16 and ``[N / 2K, H, D]``; parts of Δs ``[R, H, K]``, Δγ and Δβ ``[R, H, D]``.

    Three groups of W = D / 16 warps go beside each other, four mini-batches apart at most: ``read_back`` finds what does not wait for Λ,
    ``train_back`` Λ itself, and ``tokens_back`` what nothing waits for. What limits one group is how long its instructions wait for each other, and
    meanwhile the others have theirs.
    """
    W: gl.constexpr = D // 16
    gl.static_assert(gl.num_warps() == W)
    head, row = gl.program_id(0), gl.program_id(1)
    count = longest // R
    where = row * longest, row * (count // 2), head, H
    given, kept, results = (q_ptr, k_ptr, v_ptr, G_ptr, dy_ptr, lr_ptr, moments_ptr), (Ws_ptr, bs_ptr), (dq_ptr, dk_ptr, dv_ptr)
    rooms, handed, passed = (room(R, D), room(R, D)), (handed_on(R, D), handed_on(R, D)), (passed_on(R, D), passed_on(R, D))
    weights = gl.allocate_shared_memory(gl.bfloat16, [4, D, D], swizzled(W)), gl.allocate_shared_memory(gl.float32, [4, D], shared_numbers())
    sum_gamma, sum_beta = gl.allocate_shared_memory(gl.float32, [D], shared_numbers()), gl.allocate_shared_memory(gl.float32, [D], shared_numbers())
    sums = sum_gamma, sum_beta, gl.allocate_shared_memory(gl.float32, [R], shared_numbers())
    meetings = meeting(), meeting(), meeting()

    e, c = gl.arange(0, D, gl.SliceLayout(1, maps(W))), gl.arange(0, D, gl.SliceLayout(0, maps(W)))
    i, d = places(D, R)
    matrix, vector = c[None, :] * D + column(e, D)[:, None], i[:, None] * 0 + d[None, :]
    end = row.to(gl.int64) * H + head
    dW, db = gl.zeros([D, D], gl.float32, maps(W)), gl.zeros([R, D], gl.float32, tokens(W))
    if dW_end_ptr is not None:
        dW = gl.load(dW_end_ptr + end * D * D + matrix)
    dW_mean = (gl.sum(dW, 0) / D)[None, :]
    dW -= dW_mean
    if db_end_ptr is not None:
        # R equal rows, as in ``scan``.
        db = gl.load(db_end_ptr + end * D + vector)
    db_mean = (gl.sum(db, 1) / D)[:, None]
    db -= db_mean
    zeros = gl.zeros([R, D], gl.float32, tokens(W))
    parts = halved(zeros), halved(zeros), gathered(zeros, W)
    state, sources = (dW, db, parts), (given, kept, where)
    dW, db, parts = gl.warp_specialize(
        [
            (train_back, (state, rooms, handed, passed, meetings, scale_ptr, gamma_ptr, dlr_ptr, where, count, D, R)),
            (read_back, (rooms, weights, handed, sums, meetings, sources, scale_ptr, gamma_ptr, beta_ptr, count, D, R)),
            (tokens_back, (rooms, weights, handed, passed, meetings, results, scale_ptr, where, count, D, R)),
        ],
        [W, W],
        [168, 112],
    )

    dgamma, dbeta, dlast = parts
    gl.store(dW_ptr + end * D * D + matrix, dW + dW_mean)
    gl.store(db_ptr + end * D + vector, db + db_mean, (i == 0)[:, None])
    dgamma, dbeta = gl.sum(dgamma, 0), gl.sum(dbeta, 0)
    d = gl.arange(0, D, dgamma.type.layout)
    gl.store(dgamma_ptr + end * D + d, dgamma + sums[0].load(dgamma.type.layout))
    gl.store(dbeta_ptr + end * D + d, dbeta + sums[1].load(dbeta.type.layout))
    dlast = gl.sum(gl.sum(gl.sum(dlast, 2), 1), 0)
    a = gl.arange(0, R, gl.SliceLayout(1, tokens(W)))
    gl.store(dscale_ptr + end * R + a, -sums[2].load(a.type.layout) - gl.where(a == R - 1, dlast, 0.0))
