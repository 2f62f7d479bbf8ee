"""The scan of the inner loop on JAX: groups of mini-batches, recomputed in the backward pass."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from tttcore.scan import Body, Stretch


def remat_scan(stretch: Stretch, carry: Any, xs: tuple[jax.Array, ...]) -> tuple[Any, jax.Array]:
    """A scan in stretches of about √N of the N steps, of which the backward pass keeps the first carry and recomputes the rest.

    So memory grows with √N activations of a step plus √N carries, not with N; one more forward pass is the price.
    """
    steps = xs[0].shape[0]
    size = _group_size(steps)
    if size == 1:
        return stretch(_remat_loop, carry, xs)
    group = functools.partial(stretch, _remat_loop)
    full = steps - steps % size
    grouped = tuple(x[:full].reshape(full // size, size, *x.shape[1:]) for x in xs)
    carry, ys = jax.lax.scan(jax.checkpoint(group, prevent_cse=False), carry, grouped)
    ys = ys.reshape(full, *ys.shape[2:])
    if full == steps:
        return carry, ys
    # The rest is shorter than a group, whose activations the backward pass holds anyway.
    carry, rest = group(carry, tuple(x[full:] for x in xs))
    return carry, jnp.concatenate([ys, rest])


def _remat_loop(body: Body, carry: Any, xs: tuple[jax.Array, ...]) -> tuple[Any, Any]:
    """``lax.scan`` whose backward keeps the carries alone.

    Inside a scan the compiler cannot merge the second forward pass with the first, so the barriers against that (prevent_cse) are left out.
    """
    return jax.lax.scan(jax.checkpoint(body, prevent_cse=False), carry, xs)


def _group_size(steps: int) -> int:
    """About √N; a divisor of N where there is one in √N/2 … √N, because a rest is a second loop to compile. 1 for the few steps of a short N."""
    root = math.isqrt(steps) if steps >= 16 else 1
    return min(range(root, root // 2, -1), key=lambda size: steps % size > 0)
