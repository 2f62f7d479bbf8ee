"""The backward pass: segment by segment from the last to the first, each replayed and then walked backward."""

# pyright: reportGeneralTypeIssues=false
# Calls of jitted functions are typed as if they never returned.

from __future__ import annotations

import triton
import triton.language as tl

from ..linear.tiles import centre, sequence
from .mini_batch_backward import mini_batch_backward
from .replay import replay


@triton.jit
def reverse(
    q_ptr,
    k_ptr,
    v_ptr,
    lr_ptr,
    S_W1_ptr,
    S_b1_ptr,
    S_W2_ptr,
    S_b2_ptr,
    scale_ptr,
    gamma_ptr,
    beta_ptr,
    start_ptr,
    length_ptr,
    phase_ptr,
    first_ptr,
    Ws_ptr,
    bs_ptr,
    dy_ptr,
    dW1_end_ptr,
    db1_end_ptr,
    dW2_end_ptr,
    db2_end_ptr,
    dS_W1_end_ptr,
    dS_b1_end_ptr,
    dS_W2_end_ptr,
    dS_b2_end_ptr,
    replayed_W_ptr,
    replayed_b_ptr,
    dq_ptr,
    dk_ptr,
    dv_ptr,
    dlr_ptr,
    dW1_ptr,
    db1_ptr,
    dW2_ptr,
    db2_ptr,
    dS_W1_ptr,
    dS_b1_ptr,
    dS_W2_ptr,
    dS_b2_ptr,
    dscale_ptr,
    dgamma_ptr,
    dbeta_ptr,
    longest,
    segments,
    length_of_segment,
    H,
    eps,
    K: tl.constexpr,
    D: tl.constexpr,
    E: tl.constexpr,
    K_PAD: tl.constexpr,
    D_PAD: tl.constexpr,
    E_PAD: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
    STAGES: tl.constexpr,
):
    """One program for a head (axis 0) of a sequence (axis 1): cotangents of its tokens and of the state it begins with.

    Notation of ``forward``, H̄ = G₂W₂ᵀ, A_l = M diag(ℓ) ⊙ (X̄_lX_lᵀ + 1) with X̄₁ = Q and X₁ = X. Λ_l, λ_l are the cotangents of W_l, b_l at the end of
    the mini-batch, ΔZ̄₂ that of Z̄₂ through LN. What is written has the cotangent fΛ_l with f = −s_{K−1}, in the mini-batch left open instead ΔS_l with
    f = 1. First down the read-outs, l = 2 and then 1, with ΔX̄₁ = ΔQ − ΔY:

        B_l = M diag(ℓ) ⊙ ΔZ̄_lG_lᵀ        ΔX̄_l = ΔZ̄_lW_lᵀ − B_lX_l        ΔZ̄₁ = ΔX̄₂ ⊙ σ′(Z̄₁)
        ΔX_l = −B_lᵀX̄_l + f diag(ℓ) G_lΛ_lᵀ                 ΔG_l = −A_lᵀΔZ̄_l + f diag(ℓ) (X_lΛ_l + λ_l)

    then up and down the training rows, where the second derivative of the loss takes ΔG₂ to ΔZ₂, and its pull-back to p, the cotangent of
    e = γ ⊙ (γẐ₂ + β − V + X), through which it reaches ΔX₁ and the rest:

        ΔH̄ = ΔG₁ ⊙ σ′(Z₁)      ΔG₂ += ΔH̄W₂      ΔX₂ += ΔZ₂W₂ᵀ      ΔZ₁ = ΔX₂ ⊙ σ′(Z₁) + ΔG₁ ⊙ H̄ ⊙ σ″(Z₁)      ΔX₁ += ΔZ₁W₁ᵀ + γp      ΔV = −γp
        Δγ = 1ᵀ(ΔY ⊙ LN⁰(Z̄₂) + p ⊙ (2γẐ₂ + β − V + X))      Δβ = 1ᵀ(ΔY + γp)        LN⁰ is LN at γ = 1, β = 0
        Λ₁ += QᵀΔZ̄₁ + XᵀΔZ₁        Λ₂ += X̄₂ᵀΔZ̄₂ + X₂ᵀΔZ₂ + ΔH̄ᵀG₂        λ_l += 1ᵀ(ΔZ̄_l + ΔZ_l)

    With Π = Σ_l (X̄_lX_lᵀ + 1) ⊙ ΔZ̄_lG_lᵀ and ρ = Σ_l rowsum(G_l ⊙ (X_lΛ_l + λ_l))

        Δℓ = −(M ⊙ Π)ᵀ1 + fρ        Δs = −rowsum((j ≤ i) ⊙ Π diag(ℓ))        Δs_{K−1} −= Σ ℓρ after a whole mini-batch

    Sums S that the sequence came with add −s_i ΔZ̄_lS_lᵀ to ΔX̄_l and −rowsum(ΔZ̄_l ⊙ (X̄_lS_l + S_b)) to Δs, and have the cotangents
    fΛ_l − X̄_lᵀ diag(s) ΔZ̄_l.

    Shapes as in ``forward``; Δs ``[R, H, K]``, Δγ, Δβ ``[R, H, D]``; replayed W ``[R, H, C, 2, E, D]`` and b ``[R, H, C, E + D]`` of one segment of C
    mini-batches are room to work in, ΔW, Δb keep Λ, λ between segments.
    """
    head, row = tl.program_id(0), tl.program_id(1)
    start, length, phase = sequence(row, longest, start_ptr, length_ptr, phase_ptr)
    first = row * segments
    if first_ptr is not None:
        first = tl.load(first_ptr + row)
    d, e = tl.arange(0, D_PAD)[None, :], tl.arange(0, E_PAD)[:, None]
    real, hidden = d < D, e < E
    both = real & hidden
    lying, upright = d * E + e, e * D + d
    i = tl.arange(0, K_PAD)
    gamma = tl.load(gamma_ptr + head * D + d, real, 0.0)
    beta = tl.load(beta_ptr + head * D + d, real, 0.0)
    end = row.to(tl.int64) * H + head
    W1_at, W2_at, b1_at, b2_at = end * D * E + lying, end * D * E + upright, end * E + e, end * D + d
    replayed_W_ptr += end * length_of_segment * 2 * D * E
    replayed_b_ptr += end * length_of_segment * (E + D)
    count = tl.cdiv(phase + length, K)
    left = tl.where(count * K > phase + length, 1, 0)

    # The columns' mean of Λ₂ is put aside: no read-out or gradient adds to it.
    dW2 = centre(tl.load(dW2_end_ptr + W2_at, both, 0.0), real, D)[0]
    db2 = centre(tl.load(db2_end_ptr + b2_at, real, 0.0), real, D)[0]
    tl.store(dW1_ptr + W1_at, tl.load(dW1_end_ptr + W1_at, both, 0.0), both)
    tl.store(db1_ptr + b1_at, tl.load(db1_end_ptr + b1_at, hidden, 0.0), hidden)
    tl.store(dW2_ptr + W2_at, dW2, both)
    tl.store(db2_ptr + b2_at, db2, real)
    dscale = tl.zeros((K_PAD,), tl.float32)
    dlast = tl.zeros((K_PAD,), tl.float32)
    dgamma = tl.zeros((1, D_PAD), tl.float32)
    dbeta = tl.zeros((1, D_PAD), tl.float32)

    # A mini-batch left open is walked by itself: Λ is not its weights' cotangent, but that of those after it.
    for walk in tl.range(0, tl.cdiv(count, length_of_segment) + left, num_stages=1, disable_licm=True):
        alone = (walk == 0) & (left == 1)
        segment = tl.cdiv(count, length_of_segment) - 1 - tl.maximum(walk - left, 0)
        begin = segment * length_of_segment
        size = tl.minimum(count - begin, length_of_segment)
        place = (first + segment).to(tl.int64) * H + head
        # Not before every thread has read what stands there.
        tl.debug_barrier()
        if (walk == 0) | (walk > left):
            replay(
                *(k_ptr, v_ptr, lr_ptr, S_W1_ptr, S_b1_ptr, S_W2_ptr, S_b2_ptr, scale_ptr, gamma, beta),
                *(Ws_ptr + place * 2 * D * E, bs_ptr + place * (E + D), replayed_W_ptr, replayed_b_ptr),
                *(start, length, phase, begin, size, row, head, H, eps, K, D, E, K_PAD, D_PAD, E_PAD, DOT, PRECISION),
            )
        # What other threads of this program have stored is loaded: the replayed weights, Λ and λ.
        tl.debug_barrier()
        dW1 = tl.load(dW1_ptr + W1_at, both & (not alone), 0.0) + tl.load(dS_W1_end_ptr + W1_at, both & alone, 0.0)
        db1 = tl.load(db1_ptr + b1_at, hidden & (not alone), 0.0) + tl.load(dS_b1_end_ptr + b1_at, hidden & alone, 0.0)
        dW2 = tl.load(dW2_ptr + W2_at, both & (not alone), 0.0) + tl.load(dS_W2_end_ptr + W2_at, both & alone, 0.0)
        db2 = tl.load(db2_ptr + b2_at, real & (not alone), 0.0) + tl.load(dS_b2_end_ptr + b2_at, real & alone, 0.0)
        top = size - tl.where(walk == left, left, 0)
        # The first mini-batch of a sequence that came with sums waits, to be walked apart.
        bottom = tl.where(alone, size - 1, 0)
        if S_W1_ptr is not None:
            bottom = tl.maximum(bottom, 1 - begin)
        V2 = dW2.to(DOT)
        for c in tl.range(top - 1, bottom - 1, -1, num_stages=STAGES, disable_licm=True):
            dW1, db1, dW2, db2, V2, dscale, dlast, dgamma, dbeta = mini_batch_backward(
                *(begin + c, dW1, db1, dW2, db2, V2, dscale, dlast, dgamma, dbeta, replayed_W_ptr + c * 2 * D * E, replayed_b_ptr + c * (E + D)),
                *(q_ptr, k_ptr, v_ptr, lr_ptr, None, None, None, None, scale_ptr, gamma_ptr, beta_ptr, dy_ptr, dW2_end_ptr, db2_end_ptr),
                *(dq_ptr, dk_ptr, dv_ptr, dlr_ptr, None, None, None, None),
                *(start, length, phase, row, head, H, eps, K, D, E, K_PAD, D_PAD, E_PAD, DOT, PRECISION),
            )
        dW1 += tl.load(dW1_ptr + W1_at, both & alone, 0.0) - tl.load(dS_W1_end_ptr + W1_at, both & alone, 0.0)
        db1 += tl.load(db1_ptr + b1_at, hidden & alone, 0.0) - tl.load(dS_b1_end_ptr + b1_at, hidden & alone, 0.0)
        dW2 += tl.load(dW2_ptr + W2_at, both & alone, 0.0) - tl.load(dS_W2_end_ptr + W2_at, both & alone, 0.0)
        db2 += tl.load(db2_ptr + b2_at, real & alone, 0.0) - tl.load(dS_b2_end_ptr + b2_at, real & alone, 0.0)
        tl.store(dW1_ptr + W1_at, dW1, both)
        tl.store(db1_ptr + b1_at, db1, hidden)
        tl.store(dW2_ptr + W2_at, dW2, both)
        tl.store(db2_ptr + b2_at, db2, real)

    tl.debug_barrier()
    if S_W1_ptr is not None:
        # A loop for the same reason as at the end of ``forward``.
        for _ in tl.range(0, tl.minimum(count, 1), num_stages=1, disable_licm=True):
            alone = (count == 1) & (left == 1)
            dW1 = tl.load(dW1_ptr + W1_at, both & (not alone), 0.0) + tl.load(dS_W1_end_ptr + W1_at, both & alone, 0.0)
            db1 = tl.load(db1_ptr + b1_at, hidden & (not alone), 0.0) + tl.load(dS_b1_end_ptr + b1_at, hidden & alone, 0.0)
            dW2 = tl.load(dW2_ptr + W2_at, both & (not alone), 0.0) + tl.load(dS_W2_end_ptr + W2_at, both & alone, 0.0)
            db2 = tl.load(db2_ptr + b2_at, real & (not alone), 0.0) + tl.load(dS_b2_end_ptr + b2_at, real & alone, 0.0)
            V2 = dW2.to(DOT)
            dW1, db1, dW2, db2, V2, dscale, dlast, dgamma, dbeta = mini_batch_backward(
                *(0, dW1, db1, dW2, db2, V2, dscale, dlast, dgamma, dbeta, replayed_W_ptr, replayed_b_ptr),
                *(
                    q_ptr,
                    k_ptr,
                    v_ptr,
                    lr_ptr,
                    S_W1_ptr,
                    S_b1_ptr,
                    S_W2_ptr,
                    S_b2_ptr,
                    scale_ptr,
                    gamma_ptr,
                    beta_ptr,
                    dy_ptr,
                    dW2_end_ptr,
                    db2_end_ptr,
                ),
                *(dq_ptr, dk_ptr, dv_ptr, dlr_ptr, dS_W1_ptr, dS_b1_ptr, dS_W2_ptr, dS_b2_ptr),
                *(start, length, phase, row, head, H, eps, K, D, E, K_PAD, D_PAD, E_PAD, DOT, PRECISION),
            )
            dW1 += tl.load(dW1_ptr + W1_at, both & alone, 0.0) - tl.load(dS_W1_end_ptr + W1_at, both & alone, 0.0)
            db1 += tl.load(db1_ptr + b1_at, hidden & alone, 0.0) - tl.load(dS_b1_end_ptr + b1_at, hidden & alone, 0.0)
            dW2 += tl.load(dW2_ptr + W2_at, both & alone, 0.0) - tl.load(dS_W2_end_ptr + W2_at, both & alone, 0.0)
            db2 += tl.load(db2_ptr + b2_at, real & alone, 0.0) - tl.load(dS_b2_end_ptr + b2_at, real & alone, 0.0)
            tl.store(dW1_ptr + W1_at, dW1, both)
            tl.store(db1_ptr + b1_at, db1, hidden)
            tl.store(dW2_ptr + W2_at, dW2, both)
            tl.store(db2_ptr + b2_at, db2, real)
        tl.debug_barrier()

    dW2 = tl.load(dW2_ptr + W2_at, both, 0.0)
    dW2_mean = tl.sum(tl.load(dW2_end_ptr + W2_at, both, 0.0), 1) / D
    tl.store(dW2_ptr + W2_at, dW2 + dW2_mean[:, None], both)
    db2 = tl.load(db2_ptr + b2_at, real, 0.0)
    db2_mean = tl.sum(tl.load(db2_end_ptr + b2_at, real, 0.0), 1) / D
    tl.store(db2_ptr + b2_at, db2 + db2_mean[:, None], real)
    tl.store(dscale_ptr + end * K + i, dscale + tl.where(i == K - 1, tl.sum(dlast, 0), 0.0), i < K)
    tl.store(dgamma_ptr + end * D + d, dgamma, real)
    tl.store(dbeta_ptr + end * D + d, dbeta, real)
