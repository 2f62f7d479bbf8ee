"""The parallel part of the backward pass that comes first: through the read-outs, down to what the reverse scan needs."""

# pyright: reportGeneralTypeIssues=false
# Calls of jitted functions are typed as if they never returned.
from __future__ import annotations

import triton
import triton.language as tl

from .tiles import (
    added,
    among_all,
    block_of,
    centre,
    corrections,
    dot,
    earlier,
    own,
    readers,
    readout_rows,
    sequence,
    slots,
    summed,
    through_norm,
    training_rows,
)


@triton.jit(do_not_specialize=("begin", "part"))
def readout_backward(
    q_ptr,
    k_ptr,
    lr_ptr,
    G_ptr,
    Ws_ptr,
    bs_ptr,
    opening_k_ptr,
    opening_q_ptr,
    scale_ptr,
    gamma_ptr,
    start_ptr,
    length_ptr,
    phase_ptr,
    first_ptr,
    row_ptr,
    dy_ptr,
    dS_W_ptr,
    dS_b_ptr,
    dq_ptr,
    dk_ptr,
    dG_ptr,
    normed_ptr,
    rstd_ptr,
    dW_ptr,
    db_ptr,
    dopening_ptr,
    dscale_ptr,
    dgamma_ptr,
    dbeta_ptr,
    longest,
    blocks,
    begin,
    part,
    H,
    eps,
    K: tl.constexpr,
    D: tl.constexpr,
    R: tl.constexpr,
    K_PAD: tl.constexpr,
    D_PAD: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Of one head (axis 0) of a block (axis 1) of a piece, what its read-outs ask of everything they read.

    With ΔZ̄ the cotangent of Z̄ through LN, and H = diag(ℓ) G (``written``), other matrices as in ``readout`` and ``scan``:

        ΔQ = ΔY + ΔZ̄ Wᵀ − (M ⊙ ΔZ̄Hᵀ) K      ΔK = −(M ⊙ ΔZ̄Hᵀ)ᵀ Q      ΔW = QᵀΔZ̄      Δb = 1ᵀΔZ̄
        ΔG = −(M ⊙ (QKᵀ + 1))ᵀ ΔZ̄, not yet times ℓ

    plus ΔG += KΔS_W + ΔS_b and ΔK += HΔS_Wᵀ over the mini-batch left open. Rows of an ``opening`` hand ΔZ̄ back instead of passing it on to
    W and b. ΔK and ΔG are parts: the training rows add theirs later. Also Ẑ ``[N, H, D]`` and r ``[N, H]`` of the training rows, recomputed, and
    this block's part of Δs ``[blocks, H, K]``, Δγ and Δβ ``[blocks, H, D]``. ΔG ``[places, R // K · K, H, D]``, ΔW ``[places, H, D, D]`` and
    Δb ``[places, H, D]`` are of this piece's blocks alone, in the order of programs.
    """
    head = tl.program_id(0)
    place = among_all(tl.program_id(1), blocks, begin, part, first_ptr)
    row, n = block_of(place, blocks, first_ptr, row_ptr)
    start, length, phase = sequence(row, longest, start_ptr, length_ptr, phase_ptr)
    count = tl.cdiv(phase + length, R // K * K)
    d, s = tl.arange(0, D_PAD), tl.arange(0, K_PAD)
    real = (d < D)[None, :]
    square = (d < D)[:, None] & real
    matrix, vector = d[:, None] * D + d[None, :], d[None, :]
    i, valid = slots(n, length, phase, K, R)
    across, top = tl.broadcast_to(vector, (R, D_PAD)), (i == 0)[:, None] & real
    inside = valid[:, None] & real
    token = (start + n * (R // K * K) - phase).to(tl.int64) * H + head
    tile = i[:, None] * (H * D) + vector
    at, spot = place.to(tl.int64) * H + head, tl.program_id(1).to(tl.int64)
    here, there = spot * (R // K * K) * H + head, spot * H + head
    slot = row.to(tl.int64) * K * H * D + head * D
    opening = inside & (i < K)[:, None] & (n == 0)
    k = tl.load(k_ptr + token * D + tile, inside, 0.0)
    G = tl.load(G_ptr + token * D + tile, inside, 0.0)
    W = tl.load(Ws_ptr + at * D * D + matrix, square & (n < count), 0.0)
    q = tl.load(q_ptr + token * D + tile, inside, 0.0)
    lr = tl.load(lr_ptr + token + i * H, valid, 0.0).to(tl.float32)
    written = (lr[:, None] * G.to(tl.float32)).to(DOT)
    b = tl.load(bs_ptr + at * D + vector, real & (n < count), 0.0)
    last = tl.load(scale_ptr + K - 1)

    z = b - last * corrections(k, written, 1.0, K, R, DOT, PRECISION)
    normed, r = training_rows(k, W, z, opening_k_ptr, slot + tile, opening, real, D, eps, DOT, PRECISION)
    tl.store(normed_ptr + token * D + tile, normed, inside)
    tl.store(rstd_ptr + token + i[:, None] * H, r, valid[:, None])

    dy = tl.load(dy_ptr + token * D + tile, inside, 0.0)
    # This b is had twice: what waits in registers in the meantime is spilled.
    b = tl.load(bs_ptr + at * D + vector, real & (n < count), 0.0)
    z, r = readout_rows(q, k, written, W, b, scale_ptr, last, opening_q_ptr, slot + tile, opening, real, K, D, eps, DOT, PRECISION)
    tl.store(dgamma_ptr + at * D + across, summed(dy.to(tl.float32) * z, DOT, PRECISION), top)
    dz = through_norm(dy, z, r, tl.load(gamma_ptr + head * D + vector, real, 0.0), real, D)
    through = dz
    if dopening_ptr is not None:
        tl.store(dopening_ptr + slot + tile, dz, opening)
        through = tl.where(opening, 0.0, dz)
    through, dz = through.to(DOT), dz.to(DOT)

    tl.store(dW_ptr + there * D * D + matrix, dot(tl.trans(q), through, DOT, PRECISION), square)
    tl.store(db_ptr + there * D + across, summed(through, DOT, PRECISION), top)
    pairs = dot(dz, tl.trans(written), DOT, PRECISION)
    dq = dot(through, tl.trans(W), DOT, PRECISION)
    dq = added(-readers(scale_ptr, last, K, R) * pairs, k, dq, DOT, PRECISION)
    # As b, ΔY is had twice, and so is QKᵀ.
    dy = tl.load(dy_ptr + token * D + tile, inside, 0.0)
    tl.store(dq_ptr + token * D + tile, dq + dy.to(tl.float32), inside)
    tl.store(dbeta_ptr + at * D + across, summed(dy, DOT, PRECISION), top)
    pairs *= dot(q, tl.trans(k), DOT, PRECISION) + 1
    dscale = tl.sum(tl.where(earlier(K, R), pairs, 0.0), 1)
    mine = tl.sum(tl.where(own(K, R), pairs, 0.0), 1)
    mine = tl.where((i % K)[:, None] == s[None, :], mine[:, None], 0.0) + tl.where(s[None, :] == K - 1, dscale[:, None], 0.0)
    tl.store(dscale_ptr + at * K + s, -tl.sum(mine, 0), s < K)
    # Transposed products are products, too: to turn one round would take shared memory and two barriers.
    turned = tl.trans(readers(scale_ptr, last, K, R))
    dk = -dot(turned * lr[:, None] * dot(G, tl.trans(dz), DOT, PRECISION), q, DOT, PRECISION)
    dG = -dot(turned * (dot(k, tl.trans(q), DOT, PRECISION) + 1), dz, DOT, PRECISION)

    # Triton 3.6 fails to compile a branch that K = 1 never takes.
    if K > 1:
        whole = (phase + length) // K * K
        if (n == count - 1) & (whole < phase + length):
            end = row.to(tl.int64) * H + head
            left = (n * (R // K * K) + i >= whole)[:, None]
            dS_W = tl.load(dS_W_ptr + end * D * D + matrix, square, 0.0)
            dS_b = tl.load(dS_b_ptr + end * D + vector, real, 0.0)
            dG += tl.where(left, dot(k, dS_W, DOT, PRECISION) + dS_b, 0.0)
            dk += tl.where(left, lr[:, None] * dot(G, tl.trans(dS_W), DOT, PRECISION), 0.0)
    dG, _ = centre(dG, real, D)
    tl.store(dG_ptr + here * D + tile, dG, inside)
    tl.store(dk_ptr + token * D + tile, dk, inside)
