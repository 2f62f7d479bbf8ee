"""The scales s of the reading tokens, in one launch: as operations of arrays they would be seven, for K numbers."""

# pyright: reportGeneralTypeIssues=false
# Calls of jitted functions are typed as if they never returned.
from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from tttcore import LayerSpec
from tttcore.update import MiniBatch

from .launcher import Launcher
from .layout import padded
from .operators import operator, register_autograd


@triton.jit
def scale_kernel(offset_ptr, scale_ptr, factor, K: tl.constexpr, K_PAD: tl.constexpr):
    """s_i = factor · max(0, 1/(i + 1) + δ_i), ``[K]`` float32."""
    i = tl.arange(0, K_PAD)
    a = 1 / (i + 1).to(tl.float32) + tl.load(offset_ptr + i, i < K, 0.0)
    tl.store(scale_ptr + i, tl.where(a > 0, a, 0.0) * factor, i < K)


@operator("scale")
def scale(offset: Tensor, factor: float) -> Tensor:
    """s ``[K]`` from δ ``[K]``, float32, and η₀/D."""
    found = torch.empty_like(offset)
    with torch.cuda.device_of(offset):
        launcher(offset.shape[0])[1, 1](offset, found, factor)
    return found


@functools.cache
def launcher(size: int) -> Launcher:
    """The kernel for K = ``size``."""
    return Launcher(scale_kernel, {"K": size, "K_PAD": padded(size), "num_warps": 1})


@torch.library.register_fake("tttcore::scale")
def _(offset: Tensor, factor: float) -> Tensor:
    return torch.empty_like(offset)


def save(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
    """Keep s, which is 0 where δ does nothing."""
    ctx.save_for_backward(output)
    ctx.factor = inputs[1]


def derive(ctx: Any, ds: Tensor) -> tuple[Tensor, None]:
    """Δδ = Δs · factor where s > 0, else 0."""
    return torch.ops.aten.threshold_backward(ds, ctx.saved_tensors[0], 0) * ctx.factor, None


register_autograd(scale, derive, save)


def scales(spec: LayerSpec, params: Mapping[str, Tensor]) -> Tensor:
    """What ``spec.update_rule`` scales the steps by, ``[K]``."""
    if type(spec.update_rule) is MiniBatch:
        return scale(params["token_lr_offset"], spec.base_lr / spec.head_dim)
    return spec.update_rule.scale(spec, params)
