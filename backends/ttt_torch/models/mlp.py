"""The feed-forward network of a block."""

from __future__ import annotations

import torch
from torch import nn
from transformers.activations import ACT2FN

from .config import TTTConfig


class SwiGLU(nn.Module):
    """down(act(gate x) ⊙ up x), x ``[B, T, C]``, with ``intermediate_size`` columns between and no biases; act is SiLU unless the config differs."""

    def __init__(self, config: TTTConfig) -> None:
        super().__init__()
        width, inside = config.hidden_size, config.intermediate_size
        self.gate_proj = nn.Linear(width, inside, bias=False)
        self.up_proj = nn.Linear(width, inside, bias=False)
        self.down_proj = nn.Linear(inside, width, bias=False)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[B, T, C]`` → ``[B, T, C]``."""
        return self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))
