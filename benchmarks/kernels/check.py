"""A contender's answer and gradients against its truth, on fresh random numbers, before anything is timed."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import torch

from ttt_conformance.bench.check import BACKWARD, TOLERANCE, relative_error, within
from ttt_conformance.bench.workload import Workload
from tttcore import Unsupported

from .contenders import Contender, Tensors, gradients

BLOCK = 64
"""Tokens that peers take at once."""


class Checked(NamedTuple):
    """The relative errors of y and of the worst gradient; None and why where there are no gradients."""

    error: float
    gradient_error: float | None
    without: str = ""


def check(contender: Contender, workload: Workload, device: str, *, backward: bool) -> Checked:
    """The errors of a contender at a small T, with D, K and dtype of the workload.

    Raises ``WrongAnswer`` when one of them is too large, ``Unsupported`` where the contender does not claim the workload.
    """
    small = workload.small
    if not contender.ours:  # the sizes that are timed have no ragged tail; what others make of one is not the question
        small = dataclasses.replace(small, tokens=max(1, small.tokens // BLOCK) * BLOCK)
    allowed, fix = TOLERANCE[small.dtype], "time a version of it that is right"
    arguments = contender.draw(small, device)
    with torch.no_grad():
        y = contender.call(small, arguments)
    exact = {name: numbers(x) for name, x in arguments.items()}
    y_bar = torch.randn_like(y) if backward else None
    expected, slopes = contender.truth(small, exact, None if y_bar is None else numbers(y_bar))
    error = within(contender.name, {"y": relative_error(numbers(y), expected)}, allowed, fix)
    if y_bar is None:
        return Checked(error, None, "not asked for")
    try:
        found = slopes_of(contender, small, arguments, y_bar)
    except (Unsupported, NotImplementedError) as refusal:
        return Checked(error, None, str(refusal))
    errors = {f"the gradient of {name}": relative_error(numbers(x), slopes[name]) for name, x in found.items()}
    return Checked(error, within(contender.name, errors, BACKWARD * allowed, fix))


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
