"""The backend object: how tensors come and go, and the inner loop with checkpoints."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping

import array_api_compat.torch
import ml_dtypes
import numpy as np
import torch
from torch._C._functorch import is_functorch_wrapped_tensor  # pyright: ignore[reportMissingModuleSource]

from tttcore import Backend, LayerSpec, State, Supports
from tttcore.arrays import NAMESPACES
from tttcore.inner_loop import inner_loop, usual_block_size
from tttcore.sequence import longest_sequence
from tttcore.tree import leaves
from tttcore.update import READ_OUTS

from .decoder import Decoder
from .scan import checkpointed_scan, grouped_scan


def _cumulative_sum(x: torch.Tensor, /, *, axis: int, dtype: torch.dtype | None = None) -> torch.Tensor:
    """As the standard says. array-api-compat's looks for the namespace of x at each call, and ``torch.compile`` warns of how it does."""
    return torch.cumsum(x, axis, dtype=dtype)


NAMESPACE = types.ModuleType(array_api_compat.torch.__name__)
NAMESPACE.__dict__.update(vars(array_api_compat.torch) | {"cumulative_sum": _cumulative_sum})
NAMESPACES[torch.Tensor] = NAMESPACES[torch.nn.Parameter] = NAMESPACE


def inner(
    spec: LayerSpec,
    params: Mapping[str, torch.Tensor],
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    lr: torch.Tensor,
    *,
    state: State | None,
    form: str,
    mask: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
) -> tuple[torch.Tensor, State]:
    """The inner loop, differentiable in every floating-point argument; see ``tttcore.Backend.inner``."""
    longest = longest_sequence(cu_seqlens) if cu_seqlens is not None and concrete(cu_seqlens) else None
    differentiable = torch.is_grad_enabled() and any(x.requires_grad for x in leaves((dict(params), q, k, v, lr, state)))
    scan = checkpointed_scan if differentiable else grouped_scan
    options = {"state": state, "form": form, "mask": mask, "cu_seqlens": cu_seqlens, "longest": longest}
    return inner_loop(spec, params, q, k, v, lr, scan=scan, block_size=usual_block_size(spec), **options)


def from_numpy(array: np.ndarray, like: torch.Tensor | None) -> torch.Tensor:
    """A tensor with the array's dtype and a copy of its values, on the device of ``like``."""
    device = None if like is None else like.device
    if array.dtype == ml_dtypes.bfloat16:
        return torch.tensor(array.view(np.int16), device=device).view(torch.bfloat16)
    return torch.tensor(array, device=device)


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """The tensor's values, dtype kept (bfloat16 as ``ml_dtypes.bfloat16``)."""
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def concrete(tensor: torch.Tensor) -> bool:
    """false while ``torch.compile`` traces, under ``torch.func`` transforms, and while a CUDA graph is captured."""
    if torch.compiler.is_compiling() or is_functorch_wrapped_tensor(tensor):
        return False
    return not (tensor.is_cuda and torch.cuda.is_current_stream_capturing())


def vjp(function: Callable[..., list[torch.Tensor]], primals: list[torch.Tensor], cotangents: list[torch.Tensor]) -> list[torch.Tensor]:
    """One cotangent per primal, zero for what the outputs do not depend on."""
    leaves = [primal.detach().requires_grad_() for primal in primals]
    with torch.enable_grad():
        outputs = function(*leaves)
    pairs = [(y, y_bar.to(y.dtype)) for y, y_bar in zip(outputs, cotangents, strict=True) if y.requires_grad]
    found = torch.autograd.grad([y for y, _ in pairs], leaves, [y_bar for _, y_bar in pairs], allow_unused=True)
    return [torch.zeros_like(leaf) if grad is None else grad for leaf, grad in zip(leaves, found, strict=True)]


BACKEND = Backend(
    "torch",
    inner,
    Supports(read_out=READ_OUTS),
    array_type=torch.Tensor,
    from_numpy=from_numpy,
    to_numpy=to_numpy,
    concrete=concrete,
    vjp_function=vjp,
    decoder_function=Decoder,
)
