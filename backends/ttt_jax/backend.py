"""The backend object: how arrays come and go, and the compiled inner loop and layer.

Outside of ``jax.jit`` one compilation serves a class of lengths: T is padded to a multiple of K, under a mask that leaves the padding out.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from tttcore import Backend, LayerSpec, State, Supports
from tttcore.arrays import compute_dtype
from tttcore.inner_loop import inner_loop, usual_block_size
from tttcore.layer import Inner, layer_around
from tttcore.sequence import longest_sequence
from tttcore.tree import leaves
from tttcore.update import READ_OUTS

from .heads import fits, loop_by_heads
from .scan import remat_scan

PROGRAMS = 16
"""How many compiled functions are kept: those used last. The kernels of one take hundreds of memory maps, which a process has 65530 of on Linux."""

_WIDE = {np.dtype(name) for name in ("float64", "complex128", "int64", "uint64")}


def widened(*trees: Any) -> contextlib.AbstractContextManager[Any]:
    """Enter ``jax.enable_x64(True)`` when an array of the trees has 64-bit numbers, so that they stay so whatever the global flag says."""
    wide = any(x.dtype in _WIDE for x in jax.tree.leaves(trees))
    return jax.enable_x64(True) if wide else contextlib.nullcontext()


def inner(
    spec: LayerSpec,
    params: Mapping[str, jax.Array],
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    lr: jax.Array,
    *,
    state: State | None,
    form: str,
    mask: jax.Array | None,
    cu_seqlens: jax.Array | None,
) -> tuple[jax.Array, State]:
    """Run the inner loop, differentiable in every floating-point argument; see ``tttcore.Backend.inner``."""
    size = 1 if cu_seqlens is not None else _step(spec, form, q)
    longest = None
    if cu_seqlens is not None and not isinstance(cu_seqlens, Tracer):
        longest = _round_up(longest_sequence(np.asarray(cu_seqlens)), spec.mini_batch_size)

    def run(q: jax.Array, k: jax.Array, v: jax.Array, lr: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, State]:
        narrow = _narrow((q, k, v), lr, *leaves((params, state)))
        program = compiled(loop(spec, form, narrow), spec, form=form, narrow=narrow)
        return program(dict(params), q, k, v, lr, state=state, mask=mask, cu_seqlens=cu_seqlens, longest=longest)

    with widened(params, q, k, v, lr, state, cu_seqlens):
        return _padded(run, size, (q, k, v, lr), mask)


def layer(
    inner: Inner,
    spec: LayerSpec,
    params: Mapping[str, jax.Array],
    x: jax.Array,
    *,
    state: State | None,
    form: str,
    mask: jax.Array | None,
    positions: jax.Array | None,
) -> tuple[jax.Array, State]:
    """Run the whole layer as one compiled function; see ``tttcore.layer_around``."""

    def run(x: jax.Array, positions: jax.Array | None, mask: jax.Array | None) -> tuple[jax.Array, State]:
        program = compiled(layer_around, inner, spec, form=form, narrow=_narrow((x,), *leaves((params, state))))
        return program(dict(params), x, state=state, mask=mask, positions=positions)

    with widened(params, x, state, positions):
        return _padded(run, _step(spec, form, x), (x, positions), mask)


def loop(spec: LayerSpec, form: str, narrow: bool) -> Callable[..., tuple[jax.Array, State]]:
    """The inner loop: on GPUs a kernel, on accelerators blocks of mini-batches; a CPU's time goes by arithmetic, of which blocks have more."""
    if form == "dual" and narrow and jax.default_backend() == "gpu" and fits(spec):
        return loop_by_heads
    return _loop_in_blocks(None if jax.default_backend() == "cpu" else usual_block_size(spec))


@functools.cache
def _loop_in_blocks(size: int | None) -> Callable[..., tuple[jax.Array, State]]:
    return functools.partial(inner_loop, scan=remat_scan, block_size=size)


def _narrow(tokens: tuple[jax.Array, ...], *others: jax.Array) -> bool:
    """Tell whether operands of products may be bfloat16: all tokens are, and nothing asks for more than float32."""
    return all(x.dtype == jnp.bfloat16 for x in tokens) and compute_dtype(*tokens, *others) == jnp.float32


@functools.lru_cache(PROGRAMS)
def compiled(function: Callable[..., tuple[jax.Array, State]], *fixed: Hashable, form: str, narrow: bool) -> Any:
    """Compile ``function(*fixed, …, form=form)``: operands of products are bfloat16 if narrow; else float32 must not become TF32 or less."""

    def program(*arrays: Any, **options: Any) -> tuple[jax.Array, State]:
        with jax.default_matmul_precision("BF16_BF16_F32" if narrow else "highest"):
            return function(*fixed, *arrays, form=form, **options)

    return jax.jit(program, static_argnames="longest")


def _padded(run: Callable[..., tuple[jax.Array, State]], size: int, tokens: tuple[Any, ...], mask: jax.Array | None) -> tuple[jax.Array, State]:
    """Call run(*tokens, mask) with the time axis (axis 1) of them all padded to a multiple of ``size``, and cut y to T again."""
    batch, length = tokens[0].shape[:2]
    extra = _round_up(length, size) - length
    if not extra or _staged():
        return run(*tokens, mask)
    mask = jnp.ones((batch, length), jnp.bool) if mask is None else mask
    padded = (None if x is None else jnp.pad(x, ((0, 0), (0, extra), *((0, 0),) * (x.ndim - 2))) for x in (*tokens, mask))
    y, end = run(*padded)
    return y[:, :length], end


def _step(spec: LayerSpec, form: str, tokens: jax.Array) -> int:
    """Lengths are padded to a multiple of this: K, but a single token to decode stays one."""
    return 1 if form == "decode" and tokens.shape[1] == 1 else spec.mini_batch_size


def _round_up(length: int, size: int) -> int:
    return -(-length // size) * size


def _staged() -> bool:
    """Tell whether an outer ``jax.jit`` records operations now; it compiles for its own shapes, so classes of them gain nothing."""
    return isinstance(jnp.zeros(()), Tracer)


def from_numpy(array: np.ndarray, like: jax.Array | None) -> jax.Array:
    """Copy the values, dtype kept, into an array that is committed to no device, so that JAX moves it to the other arguments'."""
    with jax.ensure_compile_time_eval(), widened(array):
        return jax.device_put(array.copy())  # of a copy, because JAX may take over the memory


def concrete(x: jax.Array) -> bool:
    """Tell whether operations on x have values now: not on a tracer, nor under ``jax.jit``, where those on constants are traced too."""
    return not isinstance(x, Tracer) and not _staged()


def vjp(function: Callable[..., list[jax.Array]], primals: list[jax.Array], cotangents: list[jax.Array]) -> list[jax.Array]:
    """Return one cotangent per primal, zero for what the outputs do not depend on."""
    with widened(primals, cotangents):
        outputs, pull_back = jax.vjp(function, *primals)
        return list(pull_back([jnp.asarray(y_bar, y.dtype) for y, y_bar in zip(outputs, cotangents, strict=True)]))


BACKEND = Backend(
    "jax",
    inner,
    Supports(read_out=READ_OUTS),
    array_type=jax.Array,
    from_numpy=from_numpy,
    concrete=concrete,
    vjp_function=vjp,
    layer_function=layer,
)
