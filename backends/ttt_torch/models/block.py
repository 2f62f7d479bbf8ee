"""A residual block around the TTT layer: the Transformer backbone, and with a convolution ahead of the layer the Mamba backbone."""

from __future__ import annotations

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from tttcore.language_model import Memory
from tttcore.sequence import Rows
from tttcore.views.convolution import convolve

from ..decoder import LayerDecoder
from ..layer import TTTLayer
from .config import TTTConfig
from .mlp import SwiGLU


class PreConvolution(nn.Module):
    """conv(RMSNorm x), causal and depthwise with ``conv_kernel`` taps; weight ``[width, C]``, oldest tap first, bias ``[C]``."""

    def __init__(self, config: TTTConfig) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.weight = nn.Parameter(torch.empty(config.conv_kernel, config.hidden_size))
        self.bias = nn.Parameter(torch.empty(config.hidden_size))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None, past: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """y ``[B, T, C]`` and the last inputs that count; masked tokens are packed away first, as in the layer."""
        rows = None if mask is None else Rows.of_mask(mask)
        u = self.norm(x if rows is None else rows.gather(x))
        (y,), kept = convolve(u, [(self.weight, self.bias)], past, None if rows is None else rows.length)
        return y if rows is None else rows.scatter(y), kept


class Block(GradientCheckpointingLayer):
    """x + conv(RMSNorm x) with ``pre_conv``; x + layer(RMSNorm x); x + SwiGLU(RMSNorm x). Modules have the authors' names."""

    def __init__(self, config: TTTConfig) -> None:
        super().__init__()
        self.conv = PreConvolution(config) if config.pre_conv else None
        self.seq_norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        # Left empty: the model's _init_weights draws all parameters, or a checkpoint has them.
        layer = TTTLayer(config.layer_spec, kernel=config.kernel, device="meta")
        self.seq_modeling_block = layer.to_empty(device=torch.get_default_device())
        self.ffn_norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = SwiGLU(config)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None, memory: Memory) -> tuple[torch.Tensor, Memory]:
        """``[B, T, C]`` → ``[B, T, C]`` and the memory after it; mask ``[B, T]`` bool, True where a token counts (None: everywhere)."""
        past = memory.conv
        if self.conv is not None:
            y, past = self.conv(x, mask, past)
            x = x + y
        state = memory.state
        if isinstance(state, LayerDecoder):
            y = state.step(self.seq_norm(x))
        else:
            form = "decode" if x.shape[1] == 1 and not torch.is_grad_enabled() else "dual"
            y, state = self.seq_modeling_block(self.seq_norm(x), state, mask, form=form)
        x = x + y
        return x + self.mlp(self.ffn_norm(x)), Memory(state, past)
