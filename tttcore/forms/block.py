"""The block dual: the dual form of n mini-batches at once, which touches the weights once for all of them (docs/mathematics.md, section 7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..arrays import Array, arange, namespace, where_valid
from .gradients import Rows, gated_sums, maps, token_gradients

if TYPE_CHECKING:
    from ..spec import LayerSpec

Weights = dict[str, Array]


def mini_batches(
    spec: LayerSpec,
    params: Mapping[str, Array],
    factors: Array,
    weights: Weights,
    q: Array,
    k: Array,
    v: Array,
    lr: Array,
    done: Array,
) -> tuple[Weights, Array]:
    """n mini-batches from a border, S = 0: the weights after them, and y.

    q, k, v, y ``[B, H, n, K, D]``, ℓ (lr) ``[B, H, n, K]``; done ``[B, n]``: which mini-batches step the weights. After one that does not, no
    token of its row may come. factors as ``reading_factors`` returns them. Law: equal to ``dual.mini_batch`` n times up to rounding.
    """
    xp = namespace(q)
    model, ones = spec.inner_model, 1.0 if spec.inner_model.bias else 0.0
    size = k.shape[3]
    keys, labels = xp.unstack(k, axis=2), xp.unstack(v, axis=2)
    stepping = factors[-1, 0] * lr
    q, k, lr, gates = (_joined(x) for x in (q, k, lr, stepping))
    affine, transposed = maps(spec, weights)
    first = xp.unstack(_parted(affine(0, k), size), axis=2)
    pairs = xp.unstack(_parted((k @ xp.matrix_transpose(k) + ones) * gates[..., None, :], size), axis=2)

    def corrected(index: int, x: Array) -> Array:
        """xW_l + b_l at the start of mini-batch c, (13): of layer 1 all rows were multiplied before."""
        z = first[c] if index == 0 else affine(index, x)
        if c == 0:
            return z
        x_past, g_past = rows[index]
        written = gates[..., None, : c * size]
        seen = pairs[c][..., : c * size] if index == 0 else (x @ xp.matrix_transpose(x_past) + ones) * written
        return z - seen @ g_past

    def pulled(index: int, g: Array) -> Array:
        """gW_lᵀ at the start of mini-batch c, (14)."""
        h_bar = transposed(index, g)
        if c == 0:
            return h_bar
        x_past, g_past = rows[index]
        return h_bar - ((g @ xp.matrix_transpose(g_past)) * gates[..., None, : c * size]) @ x_past

    rows: Rows = []
    for c, (key, label) in enumerate(zip(keys, labels, strict=True)):
        new = token_gradients(spec, params, (corrected, pulled), key, label)
        rows = [tuple(xp.concat(pair, axis=2) for pair in zip(*both, strict=True)) for both in zip(rows, new, strict=True)] if c else new

    layers, reading = model.layers(weights), factors * lr[..., None, :]

    def read(index: int, x_bar: Array) -> Array:
        """(15): all rows of the block at the weights that each of them reads."""
        (weight, bias), (x, g) = layers[index], rows[index]
        return x_bar @ weight + bias - ((x_bar @ xp.matrix_transpose(x) + ones) * reading) @ g

    y = model.output(params, q, model.forward(q, read).outputs[-1], spec.eps)
    steps = gated_sums(spec, rows, _joined(xp.permute_dims(where_valid(done, xp.permute_dims(stepping, (0, 2, 1, 3))), (0, 2, 1, 3))))
    return {name: weight - steps[name] for name, weight in weights.items()}, _parted(y, size)


def reading_factors(scale: Array, count: int) -> Array:
    """``[nK, nK]``: s_* where token j is of an earlier mini-batch than i, s_(i mod K) where of the same and j ≤ i, else 0; n = ``count``."""
    xp = namespace(scale)
    size = scale.shape[0]
    token = arange(count * size, scale)
    i, j = token[:, None], token[None, :]
    factors = xp.where(i // size > j // size, scale[-1], xp.concat([scale] * count)[:, None])
    return xp.where(j <= i, factors, xp.zeros_like(factors))


def _joined(x: Array) -> Array:
    """``[B, H, n, K, …]`` → ``[B, H, nK, …]``."""
    return namespace(x).reshape(x, (*x.shape[:2], -1, *x.shape[4:]))


def _parted(x: Array, size: int) -> Array:
    """``[B, H, nK, D]`` → ``[B, H, n, K, D]``."""
    return namespace(x).reshape(x, (*x.shape[:2], -1, size, x.shape[3]))
