"""The backend object: its claims, how tensors come and go, and the launch of the kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import torch
import triton

from tttcore import Backend, LayerSpec, State, Supports, Unsupported
from tttcore.arrays import compute_dtype
from tttcore.sequence import Rows
from tttcore.state import initial_state
from tttcore.tree import leaves

from . import kernel

NAME = "triton"
INTERPRETED = not isinstance(kernel.scan, triton.JITFunction)
"""Whether Triton was imported under TRITON_INTERPRET=1, so that kernels run on the CPU, slowly."""


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
    """The inner loop in one launch, a program for each sequence and head; see ``tttcore.Backend.inner``.

    Raises ``Unsupported`` for float64 anywhere, for arguments that require gradients, for tensors on the CPU unless Triton interprets, and
    for D and K whose matrices do not fit the shared memory of this GPU.
    """
    arguments = (*params.values(), q, k, v, lr, *leaves(None if state is None else state[:2]))
    _claimed(arguments, q.device)
    params = {name: value.float() for name, value in params.items()}
    rows = None if mask is None else Rows.of_mask(mask)
    q, k, v, lr = ((x if rows is None else rows.gather(x)).contiguous() for x in (q, k, v, lr))
    if cu_seqlens is None:
        start = q.shape[1] * torch.arange(q.shape[0], dtype=torch.int32, device=q.device)
        length = torch.full_like(start, q.shape[1]) if rows is None else rows.length
    else:
        start, length = cu_seqlens[:-1].int(), cu_seqlens.diff().int()
    if state is None:
        state = initial_state(spec, params, start.shape[0], torch.float32)
    # Copies, because the kernel replaces them by the final state.
    W, b, S_W, S_b = (_copy(part[name]) for part in (state.weights, state.grads) for name in ("W1", "b1"))
    phase, y = state.phase.int(), torch.empty_like(q)
    scale, gamma, beta = spec.update_rule.scale(spec, params), params["norm_weight"].contiguous(), params["norm_bias"].contiguous()
    arrays = (q, k, v, lr, y, start, length, phase.contiguous(), scale, gamma, beta, W, b, S_W, S_b)
    try:
        with torch.cuda.device_of(q):
            kernel.scan[(start.shape[0], spec.heads)](*arrays, spec.heads, spec.eps, **options(spec))
    except triton.OutOfResources as error:
        got = f"D = {spec.head_dim} with K = {spec.mini_batch_size}, which take {error.required} of {error.name}"
        raise Unsupported(NAME, field="head_dim", got=got, expected=f"at most {error.limit}", fix="use another backend") from error
    end = State({"W1": W, "b1": b}, {"W1": S_W, "b1": S_b}, (phase + length) % spec.mini_batch_size)
    return y if rows is None else rows.scatter(y), end


def options(spec: LayerSpec) -> dict[str, Any]:
    """The kernel's constants, and warps enough to hold W in registers; more stages of loads would cost registers too."""
    size, width = spec.mini_batch_size, spec.head_dim
    padded_size, padded_width = (max(16, 1 << (n - 1).bit_length()) for n in (size, width))
    return {"K": size, "D": width, "K_PAD": padded_size, "D_PAD": padded_width, "num_warps": 4 if padded_width < 64 else 8, "num_stages": 1}


def _claimed(arguments: tuple[torch.Tensor, ...], device: torch.device) -> None:
    """Raise ``Unsupported`` for what no field of ``Supports`` can express."""
    if compute_dtype(*arguments) != torch.float32:
        fix = "cast parameters, state and tokens, or use another backend"
        raise Unsupported(NAME, field="dtype", got="float64 among the arguments", expected="float32 or narrower", fix=fix)
    if torch.is_grad_enabled() and any(x.requires_grad for x in arguments):
        fix = "call it under torch.no_grad(), or use the backend 'torch'"
        raise Unsupported(NAME, field="gradients", got="arguments that require them", expected="forward calls", fix=fix)
    if device.type != "cuda" and not INTERPRETED:
        fix = "move the tensors to a GPU, or set TRITON_INTERPRET=1 before Python starts (slow)"
        raise Unsupported(NAME, field="device", got=repr(device.type), expected="'cuda'", fix=fix)


def _copy(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.float32, copy=True, memory_format=torch.contiguous_format)


def from_numpy(array: np.ndarray, like: torch.Tensor | None) -> torch.Tensor:
    """A tensor of the array's dtype and values on the device of ``like``; without one, on the device that kernels run on here."""
    device = like.device if like is not None else "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
    if array.dtype == ml_dtypes.bfloat16:
        return torch.tensor(array.view(np.int16), device=device).view(torch.bfloat16)
    return torch.tensor(array, device=device)


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """The tensor's values, dtype kept (bfloat16 as ``ml_dtypes.bfloat16``)."""
    tensor = tensor.detach().cpu()
    return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16) if tensor.dtype == torch.bfloat16 else tensor.numpy()


def concrete(tensor: torch.Tensor) -> bool:
    """Whether values can be read now: not while ``torch.compile`` traces, nor while a CUDA graph is captured."""
    return not torch.compiler.is_compiling() and not (tensor.is_cuda and torch.cuda.is_current_stream_capturing())


SUPPORTS = Supports(
    forms=("dual",),
    inner=("linear",),
    loss=("squared_error",),
    dtypes=("bfloat16", "float16", "float32"),
    mini_batch_sizes=range(1, 65),
    head_dims=range(1, 129),
)
BACKEND = Backend(NAME, inner, SUPPORTS, array_type=torch.Tensor, from_numpy=from_numpy, to_numpy=to_numpy, concrete=concrete)
