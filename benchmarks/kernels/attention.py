"""Causal softmax attention, as PyTorch has it."""

from __future__ import annotations

import functools
import math

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from ttt_conformance.bench.workload import Workload

from .contenders import Contender, Tensors, by_autograd, normal

BACKENDS = {"cuDNN": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}


def attention() -> list[Contender]:
    """One contender a backend of ``scaled_dot_product_attention``."""
    return [contender(name, backend) for name, backend in BACKENDS.items()]


def contender(name: str, backend: SDPBackend) -> Contender:
    """One backend of attention and no other: PyTorch raises where it cannot run."""
    return Contender(f"attention, {name}", "attention", draw, functools.partial(call, backend=backend), by_autograd(definition))


def draw(workload: Workload, device: str) -> Tensors:
    """q, k, v as attention likes them best, ``[B, H, T, D]`` without gaps."""
    return normal(workload, device, "qkv", workload.batch, workload.heads, workload.tokens, workload.head_dim)


def call(workload: Workload, arguments: Tensors, *, backend: SDPBackend) -> torch.Tensor:
    """y ``[B, H, T, D]``."""
    with sdpa_kernel(backend):
        return scaled_dot_product_attention(arguments["q"], arguments["k"], arguments["v"], is_causal=True)


def definition(workload: Workload, arguments: Tensors) -> torch.Tensor:
    """softmax(qkᵀ/√D + causal mask) v."""
    q, k, v = arguments.values()
    scores = q @ k.mT / math.sqrt(workload.head_dim)
    future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(future, -math.inf).softmax(-1) @ v
