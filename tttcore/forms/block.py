"""The block dual: the dual form of n mini-batches at once, which touches layer 1's weights once for all of them (docs/mathematics.md, section 7).

Only ``train`` is sequential. What it needs of the tokens alone (``pairs``) and what needs its rows (``read``) is had for many blocks at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

from ..arrays import Array, arange, namespace
from .gradients import Rows, gated_sums, maps, token_gradients

if TYPE_CHECKING:
    from ..spec import LayerSpec

Weights = dict[str, Array]


def pairs(spec: LayerSpec, k: Array, gates: Array) -> tuple[Array, ...]:
    """(X_i·X_j + 1) s_* ℓ_j of (13) in layer 1: for each mini-batch of tokens j all later tokens i, one below the other ``[…, (n−1 + … + 1)K, K]``.

    k ``[…, nK, D]``; gates s_* ℓ ``[…, nK]``. One array; none for n = 1.
    """
    xp, ones = namespace(k), 1.0 if spec.inner_model.bias else 0.0
    borders = range(0, k.shape[-2], spec.mini_batch_size)
    past = [(k[..., start:end, :], k[..., end:, :], gates[..., None, start:end]) for start, end in pairwise(borders)]
    parts = [(later @ xp.matrix_transpose(own) + ones) * gate for own, later, gate in past]
    return (xp.concat(parts, axis=-2),) if parts else ()


def train(spec: LayerSpec, params: Mapping[str, Array], weights: Weights, k: Array, v: Array, gates: Array, *written: Array) -> tuple[Weights, Rows]:
    """n mini-batches from a border, S = 0: the weights after them, and the rows (X, G) of every layer, each at its mini-batch's start.

    k, v ``[B, H, nK, D]``; gates s_* ℓ ``[B, H, nK]``, 0 in a mini-batch that does not step the weights: after it no token of its row may come.
    written: ``pairs`` of k and gates. By them layer 1 sees the block's earlier mini-batches, (13); weights above it step from one to the next.
    """
    xp = namespace(k)
    size = spec.mini_batch_size
    after = dict(weights)
    z, taken = maps(spec, weights)[0](0, k), 0
    parts: list[Rows] = []
    for start in range(0, k.shape[-2], size):
        own = slice(start, start + size)
        new = _gradients(spec, params, after, z[..., :size, :], k[..., own, :], v[..., own, :])
        after |= {name: after[name] - step for name, step in gated_sums(spec, new[1:], gates[..., own], first=2).items()}
        parts.append(new)
        later = z.shape[-2] - size
        if later:
            z = z[..., size:, :] - written[0][..., taken : taken + later, :] @ new[0][1]
            taken += later
    joined = (zip(*layer, strict=True) for layer in zip(*parts, strict=True))
    rows = [(xp.concat(x, axis=-2) if index else k, xp.concat(g, axis=-2)) for index, (x, g) in enumerate(joined)]
    return after | {name: after[name] - step for name, step in gated_sums(spec, rows[:1], gates).items()}, rows


def read(spec: LayerSpec, params: Mapping[str, Array], factors: Array, weights: Weights, rows: Rows, q: Array, lr: Array) -> Array:
    """y of all rows of a block, each at the weights that it reads, (15); weights at the block's start, rows as ``train`` returns them.

    q, y ``[…, B, H, nK, D]``, ℓ (lr) ``[…, B, H, nK]``; factors as ``reading_factors`` returns them.
    """
    xp = namespace(q)
    model, ones = spec.inner_model, 1.0 if spec.inner_model.bias else 0.0
    layers, reading = model.layers(weights), factors * lr[..., None, :]

    def affine(index: int, x_bar: Array) -> Array:
        (weight, bias), (x, g) = layers[index], rows[index]
        return x_bar @ weight + bias - ((x_bar @ xp.matrix_transpose(x) + ones) * reading) @ g

    return model.output(params, q, model.forward(q, affine).outputs[-1], spec.eps)


def reading_factors(scale: Array, count: int) -> Array:
    """``[nK, nK]``: s_* where token j is of an earlier mini-batch than i, s_(i mod K) where of the same and j ≤ i, else 0; n = ``count``."""
    xp = namespace(scale)
    size = scale.shape[0]
    token = arange(count * size, scale)
    i, j = token[:, None], token[None, :]
    factors = xp.where(i // size > j // size, scale[-1], xp.concat([scale] * count)[:, None])
    return xp.where(j <= i, factors, xp.zeros_like(factors))


def _gradients(spec: LayerSpec, params: Mapping[str, Array], weights: Weights, z: Array, k: Array, v: Array) -> Rows:
    """``token_gradients`` where layer 1's output z is known."""
    affine, transposed = maps(spec, weights)
    return token_gradients(spec, params, (lambda index, x: affine(index, x) if index else z, transposed), k, v)
