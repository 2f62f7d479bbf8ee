"""What every kernel of this package starts with: which tokens a block holds, how they are weighed, and LayerNorm on centred rows."""

# pyright: reportGeneralTypeIssues=false
# Calls of jitted functions are typed as if they never returned.
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def sequence(row, longest, start_ptr, length_ptr, phase_ptr):
    """(first token, tokens, place of the first one in its mini-batch) of sequence ``row``.

    Without pointers sequences lie end to end, ``longest`` tokens each, and begin at a border.
    """
    start, length, phase = row * longest, longest, 0
    if start_ptr is not None:
        start, length, phase = tl.load(start_ptr + row), tl.load(length_ptr + row), tl.load(phase_ptr + row)
    return start, length, phase


@triton.jit
def block_of(place, blocks, first_ptr, row_ptr):
    """(sequence, block within it) of the block at ``place`` among those of all sequences, ``blocks`` each where there are no pointers."""
    if first_ptr is None:
        row, n = place // blocks, place % blocks
    else:
        row = tl.load(row_ptr + place)
        n = place - tl.load(first_ptr + row)
    return row, n


@triton.jit
def among_all(place, blocks, begin, part, first_ptr):
    """The place among the blocks of all sequences of that at ``place`` in a piece: blocks ``begin`` to ``begin + part`` of each."""
    if first_ptr is None:
        place = place // part * blocks + begin + place % part
    return place


@triton.jit
def slots(n, length, phase, K: tl.constexpr, R: tl.constexpr):
    """(slot in the block, whether it holds a token) of the R rows of a tile: block n has R // K whole mini-batches, rows past them are empty."""
    i = tl.arange(0, R)
    place = n * (R // K * K) + i - phase
    return i, (i < R // K * K) & (place >= 0) & (place < length)


@triton.jit
def writers(n, length, phase, i, K: tl.constexpr, R: tl.constexpr):
    """Whether the mini-batch of each row is complete within this call, so that its gradients reach the weights."""
    return (n * (R // K) + i // K + 1) * K <= phase + length


@triton.jit
def earlier(K: tl.constexpr, R: tl.constexpr):
    """[i, j] Whether row j belongs to an earlier mini-batch of the block than row i."""
    i = tl.arange(0, R)
    return (i[None, :] // K) < (i[:, None] // K)


@triton.jit
def own(K: tl.constexpr, R: tl.constexpr):
    """[i, j] Whether row j belongs to the mini-batch of row i, up to itself."""
    i = tl.arange(0, R)
    return (i[None, :] // K == i[:, None] // K) & (i[None, :] <= i[:, None])


@triton.jit
def readers(scale_ptr, last, K: tl.constexpr, R: tl.constexpr):
    """[i, j] The factor with which row i reads what row j wrote, ℓ_j aside: s_{K−1} of earlier mini-batches, s_i of its own up to itself, else 0."""
    i = tl.arange(0, R)
    scale = tl.load(scale_ptr + i % K)
    return tl.where(i[None, :] <= i[:, None], tl.where(earlier(K, R), last, scale[:, None]), 0.0)


@triton.jit
def dot(a, b, DOT: tl.constexpr, PRECISION: tl.constexpr):
    """a b with operands in DOT, accumulated in float32."""
    return tl.dot(a.to(DOT), b.to(DOT), input_precision=PRECISION)


@triton.jit
def added(a, b, c, DOT: tl.constexpr, PRECISION: tl.constexpr):
    """a b + c with operands in DOT, accumulated in float32 on top of c."""
    return tl.dot(a.to(DOT), b.to(DOT), c, input_precision=PRECISION)


@triton.jit
def summed(x, DOT: tl.constexpr, PRECISION: tl.constexpr):
    """The sum over the rows of x, in each of as many rows: as a product, because a sum over rows would wait for all warps."""
    return dot(tl.full((x.shape[0], x.shape[0]), 1.0, DOT), x, DOT, PRECISION)


@triton.jit
def columns(x, real, D: tl.constexpr):
    """x with 0 in the columns past D, where there are any."""
    if x.shape[1] != D:
        x = tl.where(real, x, 0.0)
    return x


@triton.jit
def centre(x, real, D: tl.constexpr):
    """x less the mean of each row over its D real columns, and that mean; 0 in the other columns."""
    mean = tl.sum(x, 1) / D
    return columns(x - mean[:, None], real, D), mean


@triton.jit
def rstd(z, D: tl.constexpr, eps):
    """r = 1/√(mean z² + ε) of centred rows."""
    return tl.rsqrt(tl.sum(z * z, 1) / D + eps)[:, None]


@triton.jit
def loss_gradient(z, u, gamma, real, D: tl.constexpr, eps):
    """G = ∂L/∂z, where u = γ(β − t) for the target t: equation (16) of docs/mathematics.md, its sums taken all at once.

    Rows z are centred but for rounding: their means m are small, and sums are corrected for them without loss. Nor may m be left out: rows of G
    would sum to −r² s₂ D m, the mean of the weights would move by that and m with it, and so grow exponentially over a long sequence.
    """
    square = gamma * gamma
    bent = square * z
    sums = tl.sum(z, 1), tl.sum(bent, 1), tl.sum(z * z, 1), tl.sum(bent * z, 1), tl.sum(u * z, 1), tl.sum(u, 1)
    return columns(gradient_from(sums, z, u, square, tl.sum(square, 1), D, eps), real, D)


@triton.jit
def gradient_from(sums, z, u, square, squares, D: tl.constexpr, eps):
    """That of ``loss_gradient`` from the sums over z, γ²z, z², γ²z², uz, u of each row, and over γ² = ``square``."""
    m, bent, r, curved, along, offset = sums
    m, bent, offset, squares = m[:, None] / D, bent[:, None], offset[:, None], squares[:, None]
    r = tl.rsqrt(r[:, None] / D - m * m + eps)
    s1 = (r * (bent - m * squares) + offset) / D
    s2 = r * (r * (curved[:, None] - m * (2 * bent - m * squares)) + along[:, None] - m * offset) / D
    return (z - m) * (square * (r * r) - r * r * s2) + (u * r - r * s1)


@triton.jit
def corrections(k, G, lr, K: tl.constexpr, R: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr):
    """A = (N diag(ℓ) ⊙ (KKᵀ + 1)) G, N_ij = 1 where j is of an earlier mini-batch than i, else 0: −s_{K−1} A is what a block's rows add to its Z.

    ℓ ``[1, R]``, or 1 where rows of G come times ℓ.
    """
    return dot(tl.where(earlier(K, R), lr * (dot(k, tl.trans(k), DOT, PRECISION) + 1), 0.0), G, DOT, PRECISION)


@triton.jit
def training_rows(k, W, z, opening_ptr, slot, opening, real, D: tl.constexpr, eps, DOT: tl.constexpr, PRECISION: tl.constexpr):
    """(Ẑ, r) of a block's training rows: Z = KW + z, centred, r = 1/√(mean Z² + ε), Ẑ = rZ, with z = b − s_{K−1} A of ``corrections``.

    Rows of an ``opening``, if there is a pointer, are found at its ``slot``.
    """
    z = added(k, W, z, DOT, PRECISION)
    if opening_ptr is not None:
        z = tl.where(opening, tl.load(opening_ptr + slot, opening, 0.0), z)
    z, _ = centre(z, real, D)
    r = rstd(z, D, eps)
    return z * r, r


@triton.jit
def readout_rows(
    q,
    k,
    written,
    W,
    b,
    scale_ptr,
    last,
    opening_ptr,
    slot,
    opening,
    real,
    K: tl.constexpr,
    D: tl.constexpr,
    eps,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """(ẑ, r) of a block's read-outs, as ``training_rows``: Z̄ = QW + b − (M ⊙ (QKᵀ + 1)) H, M of ``readers``, H = diag(ℓ) G (``written``)."""
    z = dot(q, W, DOT, PRECISION) + b
    if opening_ptr is not None:
        z = tl.where(opening, tl.load(opening_ptr + slot, opening, 0.0), z)
    M = readers(scale_ptr, last, K, q.shape[0])
    # A product plus 1 would be taken for the one that ``readout_backward`` has of QKᵀ + 1 later, and kept until then.
    M = M * dot(q, tl.trans(k), DOT, PRECISION) + M
    z, _ = centre(added(-M, written, z, DOT, PRECISION), real, D)
    r = rstd(z, D, eps)
    return z * r, r


@triton.jit
def through_norm(dy, z, r, gamma, real, D: tl.constexpr):
    """ΔZ = r (γΔY − mean(γΔY) − ẑ mean(γΔY ⊙ ẑ)), the cotangent of rows that LayerNorm normalized to ẑ = ``z``."""
    dz = dy.to(tl.float32) * gamma
    dz, _ = centre(dz - z * (tl.sum(dz * z, 1)[:, None] / D), real, D)
    return r * dz
