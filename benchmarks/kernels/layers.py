"""Our backends on PyTorch tensors, through the call that users make: ``Backend.inner`` and autograd."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import torch

from ttt_conformance.bench.check import gradients_of
from ttt_conformance.bench.workload import Workload, layer_name, lively
from ttt_conformance.problem import Problem, reference
from tttcore import Backend, BackendUnavailable, LayerSpec, get_backend

from .contenders import Arrays, Contender, Tensors, torch_dtype

BACKENDS = {"triton": "ttt_triton:BACKEND", "torch": "ttt_torch.cuda:BACKEND"}
"""By their places, so that nothing need be installed."""
ORACLE = "ttt_torch:BACKEND"
TOKENS = ("q", "k", "v", "lr")


def layers(inner: str) -> list[Contender]:
    """The backends that can be loaded here, with one inner model."""
    found: list[Contender] = []
    for name, place in BACKENDS.items():
        try:
            found.append(contender(name, get_backend(place), inner))
        except BackendUnavailable:
            continue
    return found


def contender(name: str, backend: Backend, inner: str) -> Contender:
    """A backend on PyTorch tensors, in dual form."""

    @functools.cache
    def spec(workload: Workload) -> LayerSpec:
        """Made once for all calls, as users do."""
        return dataclasses.replace(workload, inner=inner).spec

    def call(workload: Workload, arguments: Tensors) -> torch.Tensor:
        params = {name: value for name, value in arguments.items() if name not in TOKENS}
        q, k, v, lr = (arguments[name] for name in TOKENS)
        return backend.inner(spec(workload), params, q, k, v, lr)[0]

    layer = layer_name(inner)
    draws = functools.partial(draw, inner=inner)
    return Contender(f"{layer}, {name}", layer, draws, call, functools.partial(truth, inner=inner), ours=True, by="the NumPy reference, float64")


def draw(workload: Workload, device: str, *, inner: str) -> Tensors:
    """q, k, v normal, gates between 0 and 1, parameters in float32 and a little away from their start."""
    workload = dataclasses.replace(workload, inner=inner)
    dtype, shape = torch_dtype(workload), (workload.batch, workload.tokens, workload.heads, workload.head_dim)
    found = {name: torch.randn(shape, device=device, dtype=dtype) for name in "qkv"}
    found["lr"] = torch.rand(shape[:3], device=device).to(dtype)
    rng = np.random.default_rng(0)
    for name, size in workload.spec.inner_shapes().items():
        found[name] = torch.tensor(lively(name, rng.standard_normal(size)), dtype=torch.float32, device=device)
    return found


def truth(workload: Workload, arguments: Arrays, y_bar: np.ndarray | None, *, inner: str) -> tuple[np.ndarray, Arrays]:
    """y by the NumPy reference; gradients by PyTorch in float64, held against the complex step."""
    params = {name: value for name, value in arguments.items() if name not in TOKENS}
    problem = Problem(dataclasses.replace(workload, inner=inner).spec, params, tuple(arguments[name] for name in TOKENS))
    y = reference(problem).y
    if y_bar is None:
        return y, {}
    found = gradients_of(get_backend(ORACLE), problem, y_bar)
    return y, {name.removeprefix("params."): value for name, value in found.items()}
