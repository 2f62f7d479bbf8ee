"""Other projects' token mixers with a state of constant size, where they are installed.

They compute other functions than a TTT layer, flash-linear-attention's TTT-Linear included (docs/peers.md). So each is held against its own
definition: TTT-Linear of that library against that library's reference, the others against their recurrences, written here in float64.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from ttt_conformance.bench.workload import Workload

from .contenders import Contender, Tensors, by_autograd, normal, torch_dtype


def peers() -> list[Contender]:
    """Those that can be imported here."""
    found: list[Contender] = []
    for make in (ttt_linear, gated_delta_rule, simple_gla, mamba2):
        try:
            found += make()
        except ImportError:
            continue
    return found


def ttt_linear() -> list[Contender]:
    """flash-linear-attention's two kernels of TTT-Linear."""
    module, reference = importlib.import_module("fla.ops.ttt"), importlib.import_module("fla.ops.ttt.naive").chunk_ttt_linear_ref
    truth = by_autograd(functools.partial(_ttt_linear, reference, "mini_batch_size"))
    return [
        Contender(f"TTT-Linear, fla {name}", "TTT-Linear of fla", draw_ttt, functools.partial(_ttt_linear, function, "chunk_size"), truth, by=THEIRS)
        for name, function in (("chunk", module.chunk_ttt_linear), ("fused chunk", module.fused_chunk_ttt_linear))
    ]


THEIRS = "its own reference in float32: another function than ours"


def draw_ttt(workload: Workload, device: str) -> Tensors:
    """q, k, v normal; the finished step sizes 1/D · gate/(i + 1) of tokens i of a mini-batch; the initial W, b in float32."""
    heads, width = workload.heads, workload.head_dim
    place = torch.arange(workload.tokens, device=device) % workload.mini_batch_size + 1
    gate = torch.rand((workload.batch, workload.tokens, heads), device=device)
    options: dict[str, Any] = {"device": device, "dtype": torch.float32}
    return normal(workload, device, "qkv") | {
        "w": (1 + 0.1 * torch.randn((heads, width), **options)).to(torch_dtype(workload)),
        "b": (0.1 * torch.randn((heads, width), **options)).to(torch_dtype(workload)),
        "eta": (gate / place[:, None] / width)[..., None].to(torch_dtype(workload)),
        "initial_state": 0.1 * torch.randn((workload.batch, heads, width, width), **options),
        "initial_state_bias": 0.1 * torch.randn((workload.batch, heads, 1, width), **options),
    }


def _ttt_linear(function: Callable[..., Any], size: str, workload: Workload, arguments: Tensors) -> torch.Tensor:
    if size == "mini_batch_size":  # the reference, which computes in float32 and scales q in place
        arguments = {name: x.to(torch.float32, copy=True) for name, x in arguments.items()}
    return function(**arguments, scale=1.0, eps=workload.spec.eps, **{size: workload.mini_batch_size})[0]


def gated_delta_rule() -> list[Contender]:
    """flash-linear-attention's gated delta rule."""
    function = importlib.import_module("fla.ops.gated_delta_rule").chunk_gated_delta_rule

    def draw(workload: Workload, device: str) -> Tensors:
        found = draw_gated(workload, device)
        beta = torch.rand((workload.batch, workload.tokens, workload.heads), device=device).to(torch_dtype(workload))
        return {**found, "k": functional.normalize(found["k"].float(), dim=-1).to(found["k"].dtype), "beta": beta}

    return [Contender("gated delta rule, fla", "gated delta rule", draw, functools.partial(_gated, function), by_autograd(recurrence))]


def simple_gla() -> list[Contender]:
    """flash-linear-attention's linear attention with a gate a head: Mamba-2's recurrence, here with keys of D channels for every head."""
    function = importlib.import_module("fla.ops.simple_gla").chunk_simple_gla
    name = "gated linear attention"
    return [Contender(f"{name}, fla", name, draw_gated, functools.partial(_gated, function), by_autograd(recurrence))]


def draw_gated(workload: Workload, device: str) -> Tensors:
    """q, k, v normal, the logarithms of gates near 1."""
    gate = functional.logsigmoid(3 + torch.randn((workload.batch, workload.tokens, workload.heads), device=device))
    return normal(workload, device, "qkv") | {"g": gate.to(torch_dtype(workload))}


def _gated(function: Callable[..., Any], workload: Workload, arguments: Tensors) -> torch.Tensor:
    return function(**arguments, scale=1.0)[0]


def recurrence(workload: Workload, arguments: Tensors) -> torch.Tensor:
    """S ← e^g S, S ← S + kᵀ u with u = v, or u = β (v − kS) where there is a β; y = qS."""
    q, k, v, g = (arguments[name] for name in "qkvg")
    beta = arguments.get("beta")
    S = q.new_zeros((q.shape[0], q.shape[2], k.shape[-1], v.shape[-1]))
    y: list[torch.Tensor] = []
    for t in range(q.shape[1]):
        S = g[:, t].exp()[..., None, None] * S
        row = k[:, t, :, None]
        written = v[:, t, :, None] if beta is None else beta[:, t, :, None, None] * (v[:, t, :, None] - row @ S)
        S = S + row.mT @ written
        y.append((q[:, t, :, None] @ S)[:, :, 0])
    return torch.stack(y, dim=1)


STATE = 128
"""Channels of a key in Mamba-2."""


def mamba2() -> list[Contender]:
    """Mamba-2's kernel as its layer of this width has it: twice the heads, one key and query of 128 channels for them all."""
    function = importlib.import_module("mamba_ssm.ops.triton.ssd_combined").mamba_chunk_scan_combined

    def call(workload: Workload, arguments: Tensors) -> torch.Tensor:
        return function(*(arguments[name] for name in ("x", "dt", "A", "B", "C")), 256)

    return [Contender("Mamba-2, mamba_ssm", "Mamba-2", draw_mamba2, call, by_autograd(state_space))]


def draw_mamba2(workload: Workload, device: str) -> Tensors:
    """x normal, dt between 0 and 0.1, A between −16 and −1, B and C normal."""
    shape, heads = (workload.batch, workload.tokens), 2 * workload.heads
    found = normal(workload, device, "x", *shape, heads, workload.head_dim) | normal(workload, device, "BC", *shape, 1, STATE)
    found["dt"] = (0.1 * torch.rand((*shape, heads), device=device)).to(torch_dtype(workload))
    return found | {"A": -1 - 15 * torch.rand(heads, device=device)}


def state_space(workload: Workload, arguments: Tensors) -> torch.Tensor:
    """S ← e^(dt·A) S + dt Bᵀ x, y = CS: ``recurrence`` with k = B, q = C, v = dt x, g = dt A."""
    x, dt, A, B, C = (arguments[name] for name in ("x", "dt", "A", "B", "C"))
    heads = x.shape[2]
    wide = {"q": C.expand(-1, -1, heads, -1), "k": B.expand(-1, -1, heads, -1), "v": dt[..., None] * x, "g": dt * A}
    return recurrence(workload, wide)
