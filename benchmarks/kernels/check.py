"""A contender's answer and gradients against its truth, on fresh random numbers, before anything is timed."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from ttt_conformance.bench.check import BACKWARD, TOLERANCE, relative_error, within
from ttt_conformance.bench.workload import Workload
from tttcore import Unsupported

from .contenders import Contender, Tensors, gradients

BLOCK = 64
"""Tokens that peers take at once."""
MANY = 4
"""Sequences that fill a GPU, with the usual 32 heads."""
FIX = "time a version of it that is right"


def check_forward(contender: Contender, workload: Workload, device: str) -> float:
    """The worst relative error of y at small T, with D, K and dtype of the workload.

    Raises ``WrongAnswer`` when it is too large, ``Unsupported`` where the contender does not claim the workload.
    """

    def error(small: Workload) -> float:
        arguments = contender.draw(small, device)
        with torch.no_grad():
            y = contender.call(small, arguments)
        expected, _ = contender.truth(small, _exact(arguments), None)
        return within(contender.name, {"y": relative_error(numbers(y), expected)}, TOLERANCE[small.dtype], FIX)

    return max(map(error, _small(contender, workload)))


def check_backward(contender: Contender, workload: Workload, device: str) -> float:
    """The relative error of the worst gradient, at the same sizes; raises as ``check_forward`` does."""

    def error(small: Workload) -> float:
        arguments = contender.draw(small, device)
        with torch.no_grad():
            y_bar = torch.randn_like(contender.call(small, arguments))
        _, expected = contender.truth(small, _exact(arguments), numbers(y_bar))
        found = slopes_of(contender, small, arguments, y_bar)
        errors = {f"the gradient of {name}": relative_error(numbers(x), expected[name]) for name, x in found.items()}
        return within(contender.name, errors, BACKWARD * TOLERANCE[small.dtype], FIX)

    return max(map(error, _small(contender, workload)))


def slopes_of(contender: Contender, workload: Workload, arguments: Tensors, y_bar: torch.Tensor) -> dict[str, torch.Tensor]:
    """The contender's own gradients, by autograd; ``Unsupported`` where its y has none."""
    live = {name: x.detach().requires_grad_() for name, x in arguments.items()}
    y = contender.call(workload, live)
    if not y.requires_grad:
        raise Unsupported(contender.name, field="gradients", got="a y without them", expected="a differentiable one", fix="time the forward pass")
    return gradients(y, live, y_bar)


def numbers(x: torch.Tensor) -> np.ndarray:
    """The tensor in float64, in NumPy."""
    return x.detach().double().cpu().numpy()


def _small(contender: Contender, workload: Workload) -> list[Workload]:
    """Two sequences of whole blocks; for ours with a ragged tail, which the sizes that are timed have not, and whole ones of as many as fill a GPU.

    Which kernels of ours run depends on that. What others make of a tail is not the question.
    """
    two = dataclasses.replace(workload, batch=2).small
    if not contender.ours:
        return [dataclasses.replace(two, tokens=max(1, two.tokens // BLOCK) * BLOCK)]
    return [two, dataclasses.replace(workload, batch=min(workload.batch, MANY), tokens=min(workload.tokens, BLOCK))]


def _exact(arguments: Tensors) -> dict[str, np.ndarray]:
    return {name: numbers(x) for name, x in arguments.items()}
