"""Operators for PyTorch: what ``torch.library.custom_op`` makes, with less to do at each call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from tttcore import Unsupported

from .claims import NAME

LIBRARY = torch.library.Library("tttcore", "FRAGMENT")


def operator(name: str) -> Callable[[Callable[..., Any]], OpOverload]:
    """Decorator of a function without defaults that returns a tuple of new tensors: the operator ``tttcore::name``, of its signature."""

    def define(function: Callable[..., Any]) -> OpOverload:
        LIBRARY.define(name + torch.library.infer_schema(function, mutates_args=()), tags=torch.Tag.pt2_compliant_tag)
        LIBRARY.impl(name, function, "CompositeExplicitAutograd")
        return getattr(torch.ops.tttcore, name).default

    return define


def underivable(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
    """Raise ``Unsupported``."""
    fix = "leave create_graph=True out, or use the backend 'torch'"
    raise Unsupported(NAME, field="gradients", got="gradients of gradients", expected="those of the first order", fix=fix)


def register_autograd(
    op: OpOverload,
    backward: Callable[..., tuple[Tensor | None, ...]] = underivable,
    setup_context: Callable[..., None] | None = None,
    kept: Callable[[tuple[Any, ...]], tuple[Any, ...]] = tuple,
) -> None:
    """As ``torch.library.register_autograd``, which has the schema written out anew for each argument of each call: 70 µs for twenty of them.

    Where there will be a backward pass, the operator is given what ``kept`` makes of its inputs.
    """

    class Differentiated(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, keyset: Any, *inputs: Any) -> Any:
            inputs = kept(inputs)
            output = below(keyset, *inputs)
            if setup_context is not None:
                setup_context(ctx, inputs, output)
            return output

        @staticmethod
        def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
            return None, *backward(ctx, *cotangents)

    def below(keyset: Any, *inputs: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return op.redispatch(keyset & torch._C._after_autograd_keyset, *inputs)

    def dispatched(keyset: Any, *inputs: Any) -> Any:
        differentiable = torch.is_grad_enabled() and torch._C._any_requires_grad(*inputs)
        return (Differentiated.apply if differentiable else below)(keyset, *inputs)

    LIBRARY.impl(op._opname, dispatched, "Autograd", with_keyset=True)
