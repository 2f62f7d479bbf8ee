"""Rotary position embedding inside a mini-batch."""

from __future__ import annotations

from ..arrays import Array, arange, cast, compute_dtype, namespace


def rotate(x: Array, position: Array, period: int, theta: float) -> Array:
    """Rotate the pairs (x[2m], x[2m+1]) by the angle (position mod period) · θ^(−2m/D).

    x ``[B, T, H, D]`` with even D, position ``[B, T]`` int; the angle is computed in float32 at the least. The period is K: the views of a token
    depend on its place in the mini-batch only, so that every mini-batch sees the same positions (the paper's code; its text does not say).
    """
    xp = namespace(x)
    dtype = compute_dtype(x)
    half = x.shape[-1] // 2
    frequency = theta ** (-cast(arange(half, x), dtype) / half)
    angle = cast(position % period, dtype)[:, :, None, None] * frequency
    cos, sin = xp.cos(angle), xp.sin(angle)
    wide = cast(x, dtype)
    even, odd = wide[..., 0::2], wide[..., 1::2]
    rotated = xp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1)
    return cast(xp.reshape(rotated, x.shape), x.dtype)
