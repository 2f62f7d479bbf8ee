"""The kernel: the dual form of TTT-Linear, all mini-batches of one sequence and head in one program."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def standardise(z, real, D: tl.constexpr, eps):
    """(z − mean z) r and r = 1/√(var z + ε) of each row, over its D real columns; 0 in the others."""
    centred = tl.where(real, z - tl.sum(z, 1)[:, None] / D, 0.0)
    r = 1 / tl.sqrt(tl.sum(centred * centred, 1)[:, None] / D + eps)
    return centred * r, r


@triton.jit
def scan(
    q_ptr,
    k_ptr,
    v_ptr,
    lr_ptr,
    y_ptr,
    start_ptr,
    length_ptr,
    phase_ptr,
    scale_ptr,
    gamma_ptr,
    beta_ptr,
    W_ptr,
    b_ptr,
    S_W_ptr,
    S_b_ptr,
    H,
    eps,
    K: tl.constexpr,
    D: tl.constexpr,
    K_PAD: tl.constexpr,
    D_PAD: tl.constexpr,
):
    """y of every token of sequence r (program axis 0) in head h (axis 1); W, b, S_W, S_b are replaced by those after its last token.

    With Q, K, V the rows of a mini-batch, LN* the pull-back of LN, s the readers' factors and ℓ the writers' (docs/mathematics.md, 2 and 6):

        G = LN*(KW + b; K + LN(KW + b) − V)
        Z̄ = QW + b − diag(s) (QS_W + S_b + tril(QKᵀ + 1) diag(ℓ) G)        Y = Q + LN(Z̄)
        S_W ← S_W + Kᵀ diag(ℓ) G        S_b ← S_b + 1ᵀ diag(ℓ) G
        and where the mini-batch is complete:  W ← W − s_{K−1} S_W,  b ← b − s_{K−1} S_b,  S_W ← 0,  S_b ← 0

    q, k, v, y ``[N, H, D]`` and ℓ (lr) ``[N, H]`` of any floating dtype, for the N tokens of all sequences; start, length, phase ``[R]`` int32:
    sequence r is tokens start … start + length − 1, the first of them token ``phase`` of its mini-batch. s (scale) ``[K]``, γ, β ``[H, D]``,
    W, S_W ``[R, H, D, D]``, b, S_b ``[R, H, D]`` are float32, as is all arithmetic. Rows past K, rows of a mini-batch that are no tokens of
    this call, and columns past D hold zeros: with ℓ = 0 they write nothing.
    """
    row, head = tl.program_id(0), tl.program_id(1)
    start, length, phase = tl.load(start_ptr + row), tl.load(length_ptr + row), tl.load(phase_ptr + row)
    i, d = tl.arange(0, K_PAD), tl.arange(0, D_PAD)
    real = (d < D)[None, :]
    scale = tl.load(scale_ptr + i, i < K, 0.0)[:, None]
    last = tl.load(scale_ptr + K - 1)
    gamma = tl.load(gamma_ptr + head * D + d[None, :], real, 0.0)
    beta = tl.load(beta_ptr + head * D + d[None, :], real, 0.0)

    bias = (row.to(tl.int64) * H + head) * D + d[None, :]
    weight = (row.to(tl.int64) * H + head) * D * D + d[:, None] * D + d[None, :]
    square = (d < D)[:, None] & real
    W = tl.load(W_ptr + weight, square, 0.0)
    b, S_b = tl.load(b_ptr + bias, real, 0.0), tl.load(S_b_ptr + bias, real, 0.0)

    batches = tl.cdiv(phase + length, K)
    # Not "for n in range(batches)", which needs NumPy below 2.4 in the interpreter of Triton 3.6.
    n = 0
    while n < batches:
        place = n * K + i - phase
        valid = (i < K) & (place >= 0) & (place < length)
        inside = valid[:, None] & real
        first = (start + n * K - phase).to(tl.int64) * H + head
        tokens = first * D + i[:, None] * (H * D) + d[None, :]
        q = tl.load(q_ptr + tokens, inside, 0.0).to(tl.float32)
        k = tl.load(k_ptr + tokens, inside, 0.0).to(tl.float32)
        v = tl.load(v_ptr + tokens, inside, 0.0).to(tl.float32)
        lr = tl.load(lr_ptr + first + i * H, valid, 0.0).to(tl.float32)

        # Only the first mini-batch finds sums, and only the last leaves some: between, S_W need not hold registers.
        S_W = tl.load(S_W_ptr + weight, square & (n == 0), 0.0)
        read = tl.dot(q, W, input_precision="ieee") + b - scale * (tl.dot(q, S_W, input_precision="ieee") + S_b)

        z, r = standardise(tl.dot(k, W, input_precision="ieee") + b, real, D, eps)
        e = gamma * (k + gamma * z + beta - v)
        G = r * (e - tl.sum(e, 1)[:, None] / D - z * (tl.sum(e * z, 1)[:, None] / D))
        written = lr[:, None] * tl.where(real, G, 0.0)

        attention = tl.where(i[:, None] >= i[None, :], tl.dot(q, tl.trans(k), input_precision="ieee") + 1, 0.0)
        z, r = standardise(read - scale * tl.dot(attention, written, input_precision="ieee"), real, D, eps)
        tl.store(y_ptr + tokens, (q + gamma * z + beta).to(y_ptr.dtype.element_ty), inside)

        S_W = tl.dot(tl.trans(k), written, S_W, input_precision="ieee")
        S_b += tl.sum(written, 0)[None, :]
        done = (n + 1) * K <= phase + length
        W, b = tl.where(done, W - last * S_W, W), tl.where(done, b - last * S_b, b)
        S_b = tl.where(done, 0.0, S_b)
        tl.store(S_W_ptr + weight, tl.where(done, 0.0, S_W), square & (n == batches - 1))
        n += 1

    tl.store(W_ptr + weight, W, square)
    tl.store(b_ptr + bias, b, real)
    tl.store(S_b_ptr + bias, S_b, real)
