"""The backward pass: segment by segment from the last to the first, each replayed and then walked backward."""

# pyright: reportGeneralTypeIssues=false
# Calls of jitted functions are typed as if they never returned.

from __future__ import annotations

import triton
import triton.language as tl

from ..linear.reverse_scan import bend, second_derivative
from ..linear.tiles import centre, dot, rstd, sequence
from .tiles import back_through, gelu, gelu_twice, over, places, readers, through, training, written


@triton.jit
def mini_batch_backward(
    n,
    dW1,
    db1,
    dW2,
    db2,
    V2,
    dscale,
    dlast,
    dgamma,
    dbeta,
    W_ptr,
    b_ptr,
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
    dq_ptr,
    dk_ptr,
    dv_ptr,
    dlr_ptr,
    dS_W1_ptr,
    dS_b1_ptr,
    dS_W2_ptr,
    dS_b2_ptr,
    start,
    length,
    phase,
    row,
    head,
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
):
    """Store the cotangents of mini-batch n, which starts from the weights at W_ptr, and return Λ_l, λ_l, Λ₂ in DOT, Δs, Δs_{K−1} apart, Δγ, Δβ.

    Sums S are read, and their cotangents stored, where there are pointers. Tiles of hidden columns are kept in DOT, of which registers hold more.
    """
    d, e = tl.arange(0, D_PAD)[None, :], tl.arange(0, E_PAD)[:, None]
    real, hidden = d < D, e < E
    both = real & hidden
    i, valid = places(n, length, phase, K, K_PAD)
    inside = valid[:, None] & real
    token = (start + n * K - phase).to(tl.int64) * H + head
    end = row.to(tl.int64) * H + head
    tile = i[:, None] * (H * D) + d
    gamma = tl.load(gamma_ptr + head * D + d, real, 0.0)
    beta = tl.load(beta_ptr + head * D + d, real, 0.0)
    square = gamma * gamma
    last = tl.load(scale_ptr + K - 1)
    scale, M = readers(scale_ptr, i, K)
    W1 = tl.load(W_ptr + e * D + d, both, 0.0)
    W2 = tl.load(W_ptr + D * E + e * D + d, both, 0.0)
    b1 = tl.load(b_ptr + e, hidden, 0.0)
    b2 = tl.load(b_ptr + E + d, real, 0.0)
    x = tl.load(k_ptr + token * D + tile, inside, 0.0)
    q = tl.load(q_ptr + token * D + tile, inside, 0.0)
    target = tl.load(v_ptr + token * D + tile, inside, 0.0).to(tl.float32) - x.to(tl.float32)
    dy = tl.load(dy_ptr + token * D + tile, inside, 0.0).to(tl.float32)
    lr = tl.load(lr_ptr + token + i * H, valid, 0.0).to(tl.float32)

    # What the forward pass had: the training rows, then the read-outs.
    z = dot(W1, tl.trans(q), DOT, PRECISION) + b1
    X2, slope, curve = gelu_twice(dot(W1, tl.trans(x), DOT, PRECISION) + b1)
    X2, slope = X2.to(DOT), slope.to(DOT)
    z2 = centre(dot(tl.trans(X2), W2, DOT, PRECISION) + b2, real, D)[0]
    # Of what is written, below; here, while X₂ is at hand.
    dG2 = over(X2, V2, DOT, PRECISION) + db2
    r = rstd(z2, D, eps)
    normed = z2 * r
    u = gamma * (beta - target)
    s2, F = bend(normed, u, square, r, real, D)[:2]
    bent = square * normed + u
    G2 = tl.where(real, r * (bent - tl.sum(bent, 1)[:, None] / D - normed * s2), 0.0)
    G1 = dot(W2, tl.trans(G2), DOT, PRECISION)
    curve = (G1 * curve).to(DOT)
    G1 = (G1 * slope).to(DOT)
    factors = M * lr[None, :]
    similar1 = dot(q, tl.trans(x), DOT, PRECISION) + 1
    read1 = factors * similar1
    z -= dot(G1, tl.trans(read1), DOT, PRECISION)
    if S_W1_ptr is not None:
        S_W1 = tl.load(S_W1_ptr + end * D * E + d * E + e, both, 0.0)
        S_b1 = tl.load(S_b1_ptr + end * E + e, hidden, 0.0)
        S_W2, S_W2_mean = centre(tl.load(S_W2_ptr + end * D * E + e * D + d, both, 0.0), real, D)
        S_b2, S_b2_mean = centre(tl.load(S_b2_ptr + end * D + d, real, 0.0), real, D)
        stale1 = through(S_W1, q, i, K) + S_b1
        z -= scale[None, :] * stale1
    h, h_slope = gelu(z)
    h, h_slope = h.to(DOT), h_slope.to(DOT)
    similar2 = dot(tl.trans(h), X2, DOT, PRECISION) + 1
    read2 = factors * similar2
    z2 = dot(tl.trans(h), W2, DOT, PRECISION) + b2 - dot(read2, G2, DOT, PRECISION)
    if S_W1_ptr is not None:
        stale2 = back_through(h, S_W2, i, K) + S_b2
        z2 -= scale[:, None] * stale2
    z2 = centre(z2, real, D)[0]
    dz2 = rstd(z2, D, eps)
    z2 *= dz2

    # Down the read-outs.
    dgamma += tl.sum(dy * z2, 0)[None, :]
    dbeta += tl.sum(dy, 0)[None, :]
    bent = centre(dy * gamma, real, D)[0]
    dz2 *= bent - z2 * (tl.sum(bent * z2, 1)[:, None] / D)
    pairs2 = dot(dz2, tl.trans(G2), DOT, PRECISION)
    along2 = factors * pairs2
    dh = dot(W2, tl.trans(dz2), DOT, PRECISION) - dot(X2, tl.trans(along2), DOT, PRECISION)
    if S_W1_ptr is not None:
        dh -= through(S_W2, scale[:, None] * dz2, i, K)
        dscale -= tl.sum(dz2 * stale2, 1)
    dz1 = dh * h_slope
    if S_W1_ptr is not None:
        dscale -= tl.sum(dz1 * stale1, 0)
    db1_next = db1 + tl.sum(dz1, 1)[:, None]
    dz1 = dz1.to(DOT)
    pairs1 = dot(tl.trans(dz1), G1, DOT, PRECISION)
    along1 = factors * pairs1
    dq = dy + dot(tl.trans(dz1), W1, DOT, PRECISION) - dot(along1, x, DOT, PRECISION)
    if S_W1_ptr is not None:
        dq -= back_through(dz1 * scale[None, :], S_W1, i, K)
    tl.store(dq_ptr + token * D + tile, dq, inside)
    dx = -dot(tl.trans(along1), q, DOT, PRECISION)
    pairs1 = similar1 * pairs1 + similar2 * pairs2
    dscale -= tl.sum(tl.where(i[None, :] <= i[:, None], pairs1 * lr[None, :], 0.0), 1)

    # What is written.
    whole = (n + 1) * K <= phase + length
    f = tl.where(whole, -last, 1.0)
    dG1 = dot(dW1, tl.trans(x), DOT, PRECISION) + db1
    gated = tl.sum(G1 * dG1, 0)
    dG1 = (f * lr)[None, :] * dG1 - dot(dz1, read1, DOT, PRECISION)
    dx += dot(tl.trans((f * lr)[None, :] * G1), dW1, DOT, PRECISION)
    gated += tl.sum(G2 * dG2, 1)
    dlast -= tl.where(whole, lr * gated, 0.0)
    tl.store(dlr_ptr + token + i * H, f * gated - tl.sum(M * pairs1, 0), valid)
    dG2 = (f * lr)[:, None] * dG2 - dot(tl.trans(read2), dz2, DOT, PRECISION)

    # The training rows. The weights are loaded again: kept, they would take registers all the while.
    W1 = tl.load(W_ptr + e * D + d, both, 0.0)
    W2 = tl.load(W_ptr + D * E + e * D + d, both, 0.0)
    curve = dG1 * curve
    dback = (dG1 * slope).to(DOT)
    dG2 = centre(dG2 + dot(tl.trans(dback), W2, DOT, PRECISION), real, D)[0]
    p = r * (dG2 - normed * (tl.sum(normed * dG2, 1)[:, None] / D))
    tl.store(dv_ptr + token * D + tile, -gamma * p, inside)
    dx += gamma * p
    dgamma += tl.sum(p * (2 * gamma * normed + beta - target), 0)[None, :]
    dbeta += tl.sum(gamma * p, 0)[None, :]
    dz = second_derivative(dG2, normed, F, s2, square, r, real, D)
    dfirst = dot(W2, tl.trans(dz), DOT, PRECISION) - dot(h, along2, DOT, PRECISION)
    dfirst += dot(V2, tl.trans((f * lr)[:, None] * G2), DOT, PRECISION)
    dfirst = curve + slope * dfirst
    db1_next += tl.sum(dfirst, 1)[:, None]
    dfirst = dfirst.to(DOT)
    tl.store(dk_ptr + token * D + tile, dx + dot(tl.trans(dfirst), W1, DOT, PRECISION), inside)

    if S_W1_ptr is not None:
        dW2_mean = tl.sum(tl.load(dW2_end_ptr + end * D * E + e * D + d, both & whole, 0.0), 1)[:, None] / D
        db2_mean = tl.sum(tl.load(db2_end_ptr + end * D + d, real & whole, 0.0), 1)[:, None] / D
        step = tl.sum(S_W1 * dW1) + tl.sum(S_b1 * db1)
        step += tl.sum(S_W2 * dW2) + tl.sum(S_b2 * db2)
        step += D * (tl.sum(S_W2_mean[:, None] * dW2_mean) + tl.sum(S_b2_mean[:, None] * db2_mean))
        dlast -= tl.where((i == 0) & whole, step, 0.0)
        read = dz1 * scale[None, :]
        tl.store(dS_W1_ptr + end * D * E + d * E + e, f * dW1 - dot(read, q, DOT, PRECISION), both)
        tl.store(dS_b1_ptr + end * E + e, f * db1 - tl.sum(read, 1)[:, None], hidden)
        read = scale[:, None] * dz2
        tl.store(dS_W2_ptr + end * D * E + e * D + d, f * (dW2 + dW2_mean) - dot(h, read, DOT, PRECISION), both)
        tl.store(dS_b2_ptr + end * D + d, f * (db2 + db2_mean) - tl.sum(read, 0)[None, :], real)
    dW1 = tl.dot(dz1, q.to(DOT), dW1, input_precision=PRECISION)
    dW1 = tl.dot(dfirst, x.to(DOT), dW1, input_precision=PRECISION)
    dW2 = tl.dot(h, dz2.to(DOT), dW2, input_precision=PRECISION)
    dW2 = tl.dot(dback, G2.to(DOT), dW2, input_precision=PRECISION)
    dW2 = tl.dot(X2, dz.to(DOT), dW2, input_precision=PRECISION)
    return dW1, db1_next, dW2, db2 + tl.sum(dz2 + dz, 0)[None, :], dW2.to(DOT), dscale, dlast, dgamma, dbeta


@triton.jit
def replay(
    k_ptr,
    v_ptr,
    lr_ptr,
    S_W1_ptr,
    S_b1_ptr,
    S_W2_ptr,
    S_b2_ptr,
    scale_ptr,
    gamma,
    beta,
    Ws_ptr,
    bs_ptr,
    W_ptr,
    b_ptr,
    start,
    length,
    phase,
    begin,
    size,
    row,
    head,
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
):
    """Store the weights at the starts of the ``size`` mini-batches from ``begin`` on, which all but the last are whole, as ``forward`` had them."""
    d, e = tl.arange(0, D_PAD)[None, :], tl.arange(0, E_PAD)[:, None]
    real, hidden = d < D, e < E
    both = real & hidden
    lying, upright = d * E + e, e * D + d
    end = row.to(tl.int64) * H + head
    last = tl.load(scale_ptr + K - 1)
    W1 = tl.load(Ws_ptr + upright, both, 0.0).to(tl.float32)
    W2 = tl.load(Ws_ptr + D * E + upright, both, 0.0).to(tl.float32)
    b1 = tl.load(bs_ptr + e, hidden, 0.0)
    b2 = tl.load(bs_ptr + E + d, real, 0.0)
    tl.store(W_ptr + upright, W1, both)
    tl.store(W_ptr + D * E + upright, W2, both)
    tl.store(b_ptr + e, b1, hidden)
    tl.store(b_ptr + E + d, b2, real)
    V2 = W2.to(DOT)
    for c in tl.range(1, size, num_stages=1, disable_licm=True):
        n = begin + c - 1
        i, valid = places(n, length, phase, K, K_PAD)
        inside = valid[:, None] & real
        token = (start + n * K - phase).to(tl.int64) * H + head
        tile = i[:, None] * (H * D) + d
        x = tl.load(k_ptr + token * D + tile, inside, 0.0)
        u = gamma * (beta - tl.load(v_ptr + token * D + tile, inside, 0.0).to(tl.float32) + x.to(tl.float32))
        lr = tl.load(lr_ptr + token + i * H, valid, 0.0).to(tl.float32)
        X2, G2, G1 = training(x, u, W1, b1, V2, b2, gamma, real, D, eps, DOT, PRECISION)
        W1, b1, W2, b2 = written(W1, b1, W2, b2, x, X2, G1, G2, -last * lr, DOT, PRECISION)
        if S_W1_ptr is not None:
            W1 -= last * tl.load(S_W1_ptr + end * D * E + lying, both & (n == 0), 0.0)
            b1 -= last * tl.load(S_b1_ptr + end * E + e, hidden & (n == 0), 0.0)
            W2 -= last * centre(tl.load(S_W2_ptr + end * D * E + upright, both & (n == 0), 0.0), real, D)[0]
            b2 -= last * centre(tl.load(S_b2_ptr + end * D + d, real & (n == 0), 0.0), real, D)[0]
        V2 = W2.to(DOT)
        tl.store(W_ptr + c * 2 * D * E + upright, W1, both)
        tl.store(W_ptr + c * 2 * D * E + D * E + upright, V2, both)
        tl.store(b_ptr + c * (E + D) + e, b1, hidden)
        tl.store(b_ptr + c * (E + D) + E + d, b2, real)


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
        if count > 0:
            alone = (count == 1) & (left == 1)
            dW1 = tl.load(dW1_ptr + W1_at, both & (not alone), 0.0) + tl.load(dS_W1_end_ptr + W1_at, both & alone, 0.0)
            db1 = tl.load(db1_ptr + b1_at, hidden & (not alone), 0.0) + tl.load(dS_b1_end_ptr + b1_at, hidden & alone, 0.0)
            dW2 = tl.load(dW2_ptr + W2_at, both & (not alone), 0.0) + tl.load(dS_W2_end_ptr + W2_at, both & alone, 0.0)
            db2 = tl.load(db2_ptr + b2_at, real & (not alone), 0.0) + tl.load(dS_b2_end_ptr + b2_at, real & alone, 0.0)
            V2 = dW2.to(DOT)
            dW1, db1, dW2, db2, V2, dscale, dlast, dgamma, dbeta = mini_batch_backward(
                *(0, dW1, db1, dW2, db2, V2, dscale, dlast, dgamma, dbeta, replayed_W_ptr + 0 * 2 * D * E, replayed_b_ptr + 0 * (E + D)),
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
