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

import dataclasses
import importlib
import importlib.metadata
from collections.abc import Mapping
from typing import Any

import torch

from tttcore import LayerSpec, Supports, get_backend

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


CLAIMS = Supports(
    forms=("dual",), inner=("linear",), loss=("squared_error",), dtypes=("float32", "bfloat16"), state=False, mask=False, cu_seqlens=False
)
# Arrays come and go, and are differentiated, as in our backend of the same library.
BACKEND = dataclasses.replace(get_backend("torch"), name="fla", inner_function=inner, supports=CLAIMS)
