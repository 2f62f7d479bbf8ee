"""The scan of the inner loop as one GPU kernel, by Pallas and Triton: a program a row, which goes from step to step with the carry in its registers.

What a step does the inner loop says, and going backward ``jax.vjp`` of it: there is no mathematics here.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import eval_jaxpr
from jax.experimental import pallas as pl

from tttcore.scan import Body, Stretch, whole_scan

Arrays = list[jax.Array]
Step = Callable[[Arrays, Arrays, Arrays], tuple[Arrays, Arrays]]
"""(constants, carry, x) → (carry, y) of one row."""

Wait = Callable[[], None]
"""Wait for all threads of the program."""


def kernel_scan(stretch: Stretch, carry: Any, xs: tuple[jax.Array, ...]) -> tuple[Any, jax.Array]:
    """A ``tttcore.scan.Scan`` in stretches of one step; carry ``[R, …]``, xs ``[N, R, …]``, and ``stretch`` closes over nothing that has rows.

    The backward pass has the carries at every about √N-th step, and from them those between again. One or two steps are no scan.
    """
    if xs[0].shape[0] <= 2:
        return whole_scan(stretch, carry, xs)
    leaves, tree = jax.tree.flatten(carry)

    def one(carry: Any, x: tuple[jax.Array, ...]) -> tuple[Any, jax.Array]:
        carry, y = stretch(_one_step, carry, tuple(a[None] for a in x))
        return carry, y[0]

    traced = jax.make_jaxpr(one)(jax.tree.map(lambda a: a[:1], carry), tuple(x[0, :1] for x in xs))

    def step(constants: Arrays, carry: Arrays, x: Arrays) -> tuple[Arrays, Arrays]:
        *carry, y = (a[0] for a in eval_jaxpr(traced.jaxpr, constants, *(a[None] for a in (*carry, *x))))
        return carry, [y]

    end, (y,) = jax.vmap(_scan_of_a_row(step), in_axes=(None, 0, 1), out_axes=(0, 1))(list(traced.consts), leaves, list(xs))
    return jax.tree.unflatten(tree, end), y


def _one_step(body: Body, carry: Any, xs: tuple[jax.Array, ...]) -> tuple[Any, Any]:
    """The loop of a stretch of one step."""
    carry, y = body(carry, tuple(x[0] for x in xs))
    return carry, jax.tree.map(lambda a: a[None], y)


def _scan_of_a_row(step: Step) -> Callable[[Arrays, Arrays, Arrays], tuple[Arrays, Arrays]]:
    """(constants, carry, xs) → (carry after all steps, ys), and the pull-back of that."""

    @jax.custom_vjp
    def scan(constants: Arrays, carry: Arrays, xs: Arrays) -> tuple[Arrays, Arrays]:
        end, ys, _ = _forward(step, xs[0].shape[0], constants, carry, xs)
        return end, ys

    def forward(constants: Arrays, carry: Arrays, xs: Arrays) -> tuple[tuple[Arrays, Arrays], tuple[Arrays, Arrays, Arrays]]:
        end, ys, starts = _forward(step, math.isqrt(xs[0].shape[0]), constants, carry, xs)
        return (end, ys), (constants, starts, xs)

    def backward(kept: tuple[Arrays, Arrays, Arrays], bars: tuple[Arrays, Arrays]) -> tuple[Arrays, Arrays, Arrays]:
        return _backward(step, math.isqrt(kept[2][0].shape[0]), *kept, *bars)

    scan.defvjp(forward, backward)
    return scan


def _forward(step: Step, size: int, constants: Arrays, carry: Arrays, xs: Arrays) -> tuple[Arrays, Arrays, Arrays]:
    """The carry after all steps, ys, and the carries at the start of every group of ``size`` steps."""
    steps = xs[0].shape[0]
    groups = -(-steps // size)

    def scan(_: Wait, constants: Any, carry: Any, xs: Any, end: Any, ys: Any, starts: Any) -> None:
        held = _read(constants, ...)

        def group(g: Any, carry: Arrays) -> Arrays:
            _write(starts, g, carry)
            return lax.fori_loop(g * size, jnp.minimum((g + 1) * size, steps), one, carry)

        def one(n: Any, carry: Arrays) -> Arrays:
            carry, y = step(held, carry, _read(xs, n))
            _write(ys, n, y)
            return carry

        _write(end, ..., lax.fori_loop(0, groups, group, _read(carry, ...)))

    _, y = jax.eval_shape(step, constants, carry, [x[0] for x in xs])
    return _call(scan, (_like(carry), _like(y, steps), _like(carry, groups)), (constants, carry, xs))


def _backward(step: Step, size: int, constants: Arrays, starts: Arrays, xs: Arrays, end_bar: Arrays, ys_bar: Arrays) -> tuple[Arrays, Arrays, Arrays]:
    """The cotangents of constants, of the carry before all steps and of xs: group by group from the last, whose carries are put aside first."""
    steps, groups = xs[0].shape[0], starts[0].shape[0]

    def reverse_scan(
        wait: Wait,
        constants: Any, starts: Any, xs: Any, end_bar: Any, ys_bar: Any,
        constants_bar: Any, carry_bar: Any, xs_bar: Any, aside: Any,
    ) -> None:  # fmt: skip
        held = _read(constants, ...)

        def group(i: Any, bars: tuple[Arrays, Arrays]) -> tuple[Arrays, Arrays]:
            g = groups - 1 - i
            last = jnp.minimum((g + 1) * size, steps) - 1

            def again(n: Any, carry: Arrays) -> Arrays:
                _write(aside, n - g * size, carry)
                return step(held, carry, _read(xs, n))[0]

            def back(i: Any, bars: tuple[Arrays, Arrays]) -> tuple[Arrays, Arrays]:
                n = last - i
                _, pull_back = jax.vjp(step, held, _read(aside, n - g * size), _read(xs, n))
                held_bar, carry_bar, x_bar = pull_back((bars[1], _read(ys_bar, n)))
                _write(xs_bar, n, x_bar)
                return [a + b for a, b in zip(bars[0], held_bar, strict=True)], carry_bar

            _write(aside, last - g * size, lax.fori_loop(g * size, last, again, _read(starts, g)))
            wait()  # until all threads have put aside what is theirs, and below until all have read it
            bars = lax.fori_loop(0, last + 1 - g * size, back, bars)
            wait()
            return bars

        held_bar, start_bar = lax.fori_loop(0, groups, group, ([jnp.zeros_like(c) for c in held], _read(end_bar, ...)))
        _write(constants_bar, ..., held_bar)
        _write(carry_bar, ..., start_bar)

    results = (_like(constants), _like(end_bar), _like(xs), _like(end_bar, size))
    return _call(reverse_scan, results, (constants, starts, xs, end_bar, ys_bar))[:3]


def _call(kernel: Callable[..., None], results: Any, arguments: tuple[Arrays, ...]) -> Any:
    """The kernel for one row: compiled, or on a CPU interpreted, where there are no threads to wait for."""

    def compiled(*arguments: Arrays) -> Any:
        from jax.experimental.pallas import triton

        parameters = triton.CompilerParams(num_warps=4, num_stages=2)
        return pl.pallas_call(functools.partial(kernel, triton.debug_barrier), out_shape=results, compiler_params=parameters)(*arguments)

    def interpreted(*arguments: Arrays) -> Any:
        return pl.pallas_call(functools.partial(kernel, lambda: None), out_shape=results, interpret=True)(*arguments)

    return lax.platform_dependent(*arguments, cpu=interpreted, default=compiled)


def _read(refs: Any, index: Any) -> Arrays:
    return [ref[index] for ref in refs]


def _write(refs: Any, index: Any, values: Arrays) -> None:
    for ref, value in zip(refs, values, strict=True):
        ref[index] = value


def _like(arrays: Arrays, *count: int) -> list[jax.ShapeDtypeStruct]:
    return [jax.ShapeDtypeStruct((*count, *a.shape), a.dtype) for a in arrays]
