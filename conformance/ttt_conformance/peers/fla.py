"""flash-linear-attention's TTT-Linear (``fla/ops/ttt`` of https://github.com/fla-org/flash-linear-attention) as a backend.

Called is ``fla.ops.ttt.naive.chunk_ttt_linear_ref``, which runs on any device and which the library's tests hold its GPU kernels against. The
library has neither a layer around it nor TTT-MLP. Translated, because it is mere convention:

- ``eta`` ``[B, T, H, 1]``, the finished step size of a token: s_i ℓ_i, i its place in the mini-batch (η₀, 1/D and a_i are left to the caller);
- ``scale``: 1. The default divides q by √D, which the paper does not do;
- ``w``, ``b`` ``[H, D]``: γ and β; ``initial_state`` ``[B, H, D, D]``, ``initial_state_bias`` ``[B, H, 1, D]``: W and b of each row, in float32;
- ``q``: a copy, as in the library's tests, because the function scales it in place.

The layout of tokens, ε, the loss and the order of update and read-out are the paper's already. ``DIFFERENCES`` is the rest.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import torch

from tttcore import Backend, LayerSpec, Supports

from .difference import DEFECT, DEFINITION, LIMIT, Difference

VERSION = importlib.metadata.version("flash-linear-attention")
function: Any = importlib.import_module("fla.ops.ttt.naive").chunk_ttt_linear_ref

DIFFERENCES: dict[str, Difference] = {
    "gate": Difference(
        DEFINITION,
        ("reference",),
        "One step size per token, used where that token reads: η_ij = s_i ℓ_i. In the paper the gate is the writing token's: η_ij = s_i ℓ_j.",
    ),
    "residual": Difference(DEFINITION, ("rest", "online"), "The output is z + LN(z), z = qW + b. In the paper it is q + LN(z)."),
    "tail": Difference(
        DEFINITION,
        ("split",),
        "The last T mod K tokens are a mini-batch of their own, after which the weights step. In the paper mini-batches have K tokens.",
    ),
    "padding": Difference(
        DEFECT,
        ("split",),
        "That mini-batch is filled up with zero tokens, and they train the bias: the final bias depends on K where the tokens do not.",
    ),
    "state": Difference(
        LIMIT, ("split",), "A state is (W, b), without gradient sum and phase: nothing inside a mini-batch can be carried. Not claimed."
    ),
    "precision": Difference(LIMIT, ("dtype",), "All is computed in float32, and y is float32, whatever the tokens are. float64 is not claimed."),
    "rows": Difference(LIMIT, ("mask", "packed"), "No masks, and packed sequences in the GPU kernels only. Not claimed."),
}
"""Why it is not the paper's layer. The first four, in this order, are the changes of ``changed.linear`` that lead from the paper to the peer."""


def run(
    spec: LayerSpec, params: Mapping[str, torch.Tensor], q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lr: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(y, W, b) as the library returns them."""
    place = torch.arange(q.shape[1], device=q.device) % spec.mini_batch_size
    eta = spec.update_rule.scale(spec, params)[place][:, None] * lr
    weights, bias = (params[name].to(torch.float32).expand(q.shape[0], *params[name].shape) for name in ("W1", "b1"))
    return function(
        q.clone(),
        k,
        v,
        params["norm_weight"],
        params["norm_bias"],
        eta[..., None],
        scale=1.0,
        eps=spec.eps,
        mini_batch_size=spec.mini_batch_size,
        initial_state=weights,
        initial_state_bias=bias,
        output_final_state=True,
    )


def inner(spec: LayerSpec, params: Mapping[str, torch.Tensor], q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lr: torch.Tensor) -> torch.Tensor:
    """y alone: (W, b) is no state of the specification."""
    return run(spec, params, q, k, v, lr)[0]


def from_numpy(array: np.ndarray, like: torch.Tensor | None) -> torch.Tensor:
    """A tensor with the array's dtype and a copy of its values, on the device of ``like``."""
    device = None if like is None else like.device
    if array.dtype == ml_dtypes.bfloat16:
        return torch.tensor(array.view(np.int16), device=device).view(torch.bfloat16)
    return torch.tensor(array, device=device)


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """The tensor's values, dtype kept."""
    if tensor.dtype == torch.bfloat16:
        return to_numpy(tensor.view(torch.int16)).view(ml_dtypes.bfloat16)
    return tensor.detach().cpu().numpy()


def vjp(function: Callable[..., list[Any]], primals: list[Any], cotangents: list[Any]) -> list[Any]:
    """PyTorch's gradients through the library's function: one cotangent per primal, zero for what y does not depend on."""
    given = [primal.detach().requires_grad_() for primal in primals]
    outputs = function(*given)
    bars = [y_bar.to(y.dtype) for y, y_bar in zip(outputs, cotangents, strict=True)]
    return list(torch.autograd.grad(outputs, given, bars, allow_unused=True, materialize_grads=True))


CLAIMS = Supports(
    forms=("dual",), inner=("linear",), loss=("squared_error",), dtypes=("float32", "bfloat16"), state=False, mask=False, cu_seqlens=False
)
BACKEND = Backend("fla", inner, CLAIMS, array_type=torch.Tensor, from_numpy=from_numpy, to_numpy=to_numpy, vjp_function=vjp)
