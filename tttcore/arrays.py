"""What the mathematics asks of an array library, on top of the array-API standard."""

from __future__ import annotations

from typing import Any, TypeAlias

import array_api_compat

Array: TypeAlias = Any
"""An array of any namespace that follows the array-API standard."""

Namespace: TypeAlias = Any


NAMESPACES: dict[type, Namespace] = {}
"""Namespaces known by array type. A backend adds its own, so that tracing compilers meet a constant instead of a search."""


def namespace(*arrays: Array) -> Namespace:
    """The array-API namespace of the arrays."""
    known = NAMESPACES.get(arrays[0].__class__)
    return array_api_compat.array_namespace(*arrays) if known is None else known


def is_floating(x: Array) -> bool:
    """Whether x holds real or complex floating-point numbers that its namespace knows (NumPy does not know bfloat16)."""
    xp = namespace(x)
    try:
        return bool(xp.isdtype(x.dtype, "real floating") or xp.isdtype(x.dtype, "complex floating"))
    except TypeError:
        return False


def is_complex(x: Array) -> bool:
    """Whether x holds complex numbers."""
    return bool(namespace(x).isdtype(x.dtype, "complex floating"))


def real(x: Array) -> Array:
    """The real part; x itself when it is real already (the standard leaves that case open)."""
    return namespace(x).real(x) if is_complex(x) else x


def arange(count: int, like: Array, dtype: Any = None, start: int = 0) -> Array:
    """start, start + 1, …, ``count`` numbers on the device of ``like``; int32 unless told."""
    xp = namespace(like)
    # A JAX tracer has no device of its own; jax.numpy places the constant by itself.
    device = None if array_api_compat.is_jax_namespace(xp) else like.device
    return xp.arange(start, start + count, dtype=xp.int32 if dtype is None else dtype, device=device)


def widest_dtype(*arrays: Array) -> Any:
    """The widest of the arrays' dtypes. Libraries are asked about different ones alone: to some, the question is dear."""
    widest, *others = dict.fromkeys(x.dtype for x in arrays)
    for dtype in others:
        widest = namespace(*arrays).result_type(widest, dtype)
    return widest


def compute_dtype(*arrays: Array) -> Any:
    """The dtype to compute in: the widest of the inputs', float32 at the least."""
    xp, widest = namespace(*arrays), widest_dtype(*(x for x in arrays if is_floating(x)))
    return xp.float32 if xp.finfo(widest).bits < 32 else widest


def cast(x: Array, dtype: Any) -> Array:
    """x in that dtype; x itself when it has it already."""
    return x if x.dtype == dtype else namespace(x).astype(x, dtype)


def output_dtype(x: Array, computed: Any) -> Any:
    """The dtype that an output keeps: its input's, unless the computation went complex."""
    xp = namespace(x)
    return computed if xp.isdtype(computed, "complex floating") else x.dtype


def relu(x: Array) -> Array:
    """max(0, x) by the real part, so that a complex step passes through it."""
    xp = namespace(x)
    return xp.where(real(x) > 0, x, xp.zeros_like(x))


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(−x)) without overflow, for real and complex x."""
    xp = namespace(x)
    positive = real(x) > 0
    decay = xp.exp(xp.where(positive, -x, x))
    return xp.where(positive, xp.ones_like(x), decay) / (1 + decay)


def where_valid(valid: Array, x: Array) -> Array:
    """x where valid, else zero (chosen, not multiplied: NaN does not leak); valid has the leading axes of x."""
    xp = namespace(x)
    wide = xp.reshape(valid, (*valid.shape, *(1,) * (x.ndim - valid.ndim)))
    return xp.where(wide, x, xp.zeros_like(x))


def choose(condition: Array, x: Array, y: Array) -> Array:
    """x in the rows where the condition ``[B]`` holds, y in the others."""
    xp = namespace(x)
    return xp.where(xp.reshape(condition, (-1, *(1,) * (x.ndim - 1))), x, y)
