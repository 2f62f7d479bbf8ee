"""What is timed: a function of named tensors, how to draw these, and the truth about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ttt_conformance.bench.workload import Workload

Tensors = Mapping[str, torch.Tensor]
Arrays = Mapping[str, np.ndarray]
Truth = Callable[[Workload, Arrays, np.ndarray | None], tuple[np.ndarray, Arrays]]
"""truth(workload, arguments, ȳ) → (y, gradients by name; none where ȳ is None), all float64."""


@dataclass(frozen=True)
class Contender:
    """``call(workload, arguments)`` is y ``[B, T, H, …]``; ``draw(workload, device)`` are its arguments, and every one of them has a gradient.

    computes: its line in plots and its group in tables; ours: whether it is of this project; by: what its truth is.
    """

    name: str
    computes: str
    draw: Callable[[Workload, str], Tensors]
    call: Callable[[Workload, Tensors], torch.Tensor]
    truth: Truth
    ours: bool = False
    by: str = "its definition, float64"


def by_autograd(function: Callable[[Workload, Tensors], torch.Tensor]) -> Truth:
    """The truth from PyTorch code of plain definitions, in float64 on the CPU."""

    def truth(workload: Workload, arguments: Arrays, y_bar: np.ndarray | None) -> tuple[np.ndarray, Arrays]:
        tensors = {name: torch.tensor(value, requires_grad=y_bar is not None) for name, value in arguments.items()}
        y = function(workload, tensors)
        if y_bar is None:
            return y.numpy(), {}
        found = gradients(y, tensors, torch.tensor(y_bar))
        return y.detach().numpy(), {name: value.numpy() for name, value in found.items()}

    return truth


def gradients(y: torch.Tensor, arguments: Tensors, y_bar: torch.Tensor) -> dict[str, torch.Tensor]:
    """∂⟨y, ȳ⟩ by each argument, by name; nothing is accumulated."""
    found = torch.autograd.grad(y, list(arguments.values()), y_bar.to(y.dtype), materialize_grads=True)
    return dict(zip(arguments, found, strict=True))


def normal(workload: Workload, device: str, names: str, *size: int) -> dict[str, torch.Tensor]:
    """Normal numbers in the workload's dtype, a tensor a letter; without a size ``[B, T, H, D]``."""
    size = size or (workload.batch, workload.tokens, workload.heads, workload.head_dim)
    return {name: torch.randn(size, device=device, dtype=torch_dtype(workload)) for name in names}


def torch_dtype(workload: Workload) -> torch.dtype:
    """The dtype of the tokens."""
    return getattr(torch, workload.dtype)
