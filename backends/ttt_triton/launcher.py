"""Kernels that remember what Triton found out about their arguments."""

from __future__ import annotations

from typing import Any

from torch import Tensor


class Launcher:
    """A kernel and its compile-time arguments, the last ones it has, and options: ``launcher[grid](*arguments)`` as with Triton.

    Triton looks at every argument of every launch for what it may be compiled for, which takes as long as a kernel of 0.1 ms. Here arguments of
    kinds that were there before go to what was compiled for them.
    """

    def __init__(self, kernel: Any, options: dict[str, Any]):
        self.kernel, self.options = kernel, options
        self.constants = tuple(options[name] for name in kernel.arg_names if name in options)
        self.compiled: dict[tuple[Any, ...], Any] = {}

    def __getitem__(self, grid: tuple[int, int]) -> Any:
        def launch(*arguments: Any) -> None:
            kinds = (arguments[0].device, *map(kind, arguments))
            compiled = self.compiled.get(kinds)
            if compiled is None:
                # None in the interpreter, which so goes this way always.
                self.compiled[kinds] = self.kernel[grid](*arguments, **self.options)
            else:
                compiled[*grid, 1](*arguments, *self.constants)

        return launch


def kind(x: Any) -> Any:
    """What Triton compiles for, of an argument: a tensor's dtype and alignment, whether a number is 1, a multiple of 16 or long, else its type."""
    if isinstance(x, Tensor):
        return x.dtype, x.data_ptr() % 16 == 0
    if isinstance(x, int):
        return x == 1, x % 16 == 0, -(2**31) <= x < 2**31
    return type(x)
