"""What the kernels do not compute is refused by name, where no field of ``Supports`` says it."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from tttcore import InvalidInput, LayerSpec, Unsupported
from tttcore.tree import Tree, leaves, paths

from .layout import INTERPRETED, padded, saved_dtype

NAME = "triton"
SIZES, WIDTHS = range(1, 65), range(1, 129)
"""Mini-batch sizes K and head widths D."""


def check_spec(spec: LayerSpec) -> None:
    """Raise ``Unsupported`` for a spec that no kernel computes."""
    model = spec.inner_model
    usual = model.bias and model.residual_norm and (not model.hidden or [layer.activation for layer in model.hidden] == ["gelu"])
    asked = (
        ("inner", spec.inner, usual, "at most one hidden layer, of GELU, with biases, residual and LayerNorm"),
        ("loss", spec.loss, spec.loss == "squared_error", "'squared_error'"),
        ("mini_batch_size", spec.mini_batch_size, spec.mini_batch_size in SIZES, f"one of {SIZES}"),
        ("head_dim", spec.head_dim, spec.head_dim in WIDTHS, f"one of {WIDTHS}"),
        ("read_out", spec.read_out, spec.read_out == "causal", "'causal'"),
    )
    for field, got, claimed, expected in asked:
        if not claimed:
            raise Unsupported(NAME, field=field, got=repr(got), expected=expected, fix="change it or use another backend")


def check_dual(spec: LayerSpec, q: torch.Tensor) -> None:
    """Raise ``Unsupported`` for hidden layers whose matrices would not fit a multiprocessor, backward at the latest, or are not compiled right."""
    if not spec.inner_model.hidden:
        return
    size, width, expansion = spec.mini_batch_size, spec.head_dim, spec.inner_model.hidden[0].expansion
    large = saved_dtype(q.dtype) == torch.float32 and not INTERPRETED and padded(width) * padded(size) > 1024
    if expansion > 4 or width > 64 or large:
        got = f"hidden layers of {expansion}D columns with D = {width}, K = {size} and {q.dtype} tokens"
        expected = "4D columns and D ≤ 64 at most, and D·K ≤ 1024 (each a power of two, 16 or more) but for bfloat16"
        raise Unsupported(NAME, field="inner", got=got, expected=expected, fix="use form='decode' or another backend")
    # Triton 3.7.1 makes an empty kernel of the backward pass there, and says nothing.
    if q.is_cuda and torch.cuda.get_device_capability(q.device)[0] > 9:
        got = f"hidden layers on {torch.cuda.get_device_name(q.device)}"
        raise Unsupported(NAME, field="device", got=got, expected="compute capability 8.0 to 9.0", fix="use form='decode' or another backend")


def check_tensors(tensors: Iterable[torch.Tensor]) -> None:
    """Raise ``Unsupported`` for float64, and for tensors on the CPU unless Triton interprets."""
    tensors = tuple(tensors)
    if any(torch.promote_types(dtype, torch.float32) != torch.float32 for dtype in {x.dtype for x in tensors}):
        fix = "cast parameters, state and tokens, or use another backend"
        raise Unsupported(NAME, field="dtype", got="float64 among the arguments", expected="float32 or narrower", fix=fix)
    if not INTERPRETED and not all(x.is_cuda for x in tensors):
        fix = "move the tensors to a GPU, or set TRITON_INTERPRET=1 before Python starts (slow)"
        raise Unsupported(NAME, field="device", got="tensors on the CPU", expected="'cuda'", fix=fix)


def check_device(q: torch.Tensor, others: Tree) -> None:
    """Raise ``InvalidInput`` for tensors that are not where the tokens are: a kernel would take their addresses for its own."""
    home = q.device
    for place, x in enumerate(leaves(others)):
        if x.device != home:
            name = list(paths(others))[place]
            raise InvalidInput(f"device of {name}", got=x.device, expected=f"{home}, as the tokens", fix=f"pass {name}.to({str(home)!r})")


def check_constant(tensors: Iterable[torch.Tensor]) -> None:
    """Raise ``Unsupported`` for tensors that require gradients."""
    if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
        fix = "call it under torch.no_grad(), or use the backend 'torch'"
        raise Unsupported(NAME, field="gradients", got="arguments that require them", expected="forward calls", fix=fix)
