"""The scan of the inner loop as a backend brings it: stretches of steps, within which a loop goes from one step to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .arrays import Array, cast, is_floating, namespace, output_dtype
from .tree import tree_map

Body = Callable[[Any, Any], tuple[Any, Any]]
Loop = Callable[[Body, Any, tuple[Array, ...]], tuple[Any, Any]]
"""loop(body, carry, xs) → (carry, ys): body(carry, xs[n]) → (carry, ys[n]) for n = 0, 1, …, stacked along the first axis."""

Stretch = Callable[[Loop, Any, tuple[Array, ...]], tuple[Any, Array]]
"""stretch(loop, carry, xs[m:n]) → (carry, ys[m:n]): what waits for no other step is done for all of them at once, before or after ``loop``."""

Scan = Callable[[Stretch, Any, tuple[Array, ...]], tuple[Any, Array]]
"""scan(stretch, carry, xs) → (carry, ys), stretch after stretch, each as long as the scan likes."""


def python_loop(body: Body, carry: Any, xs: tuple[Array, ...]) -> tuple[Any, Any]:
    """The plain Python loop."""
    stack = namespace(xs[0]).stack
    ys: list[Any] = []
    for n in range(xs[0].shape[0]):
        carry, y = body(carry, tuple(x[n, ...] for x in xs))
        ys.append(y)

    def stacked(*parts: Array) -> Array:
        return stack(parts)

    return carry, tree_map(stacked, *ys)


def whole_scan(stretch: Stretch, carry: Any, xs: tuple[Array, ...]) -> tuple[Any, Array]:
    """One stretch, in a plain loop."""
    return stretch(python_loop, carry, xs)


def step_by_step(body: Body) -> Stretch:
    """The stretch that is its steps and nothing else."""

    def stretch(loop: Loop, carry: Any, xs: tuple[Array, ...]) -> tuple[Any, Array]:
        return loop(body, carry, xs)

    return stretch


def widening(scan: Scan, dtype: Any) -> Scan:
    """The scan whose stretches see numbers in ``dtype``, and whose y has that of xs[0]: so wide the tokens are nowhere all at once."""

    def wide_scan(stretch: Stretch, carry: Any, xs: tuple[Array, ...]) -> tuple[Any, Array]:
        def widened(loop: Loop, carry: Any, xs: tuple[Array, ...]) -> tuple[Any, Array]:
            carry, y = stretch(loop, carry, tuple(cast(x, dtype) if is_floating(x) else x for x in xs))
            return carry, cast(y, output_dtype(xs[0], dtype))

        return scan(widened, carry, xs)

    return wide_scan
