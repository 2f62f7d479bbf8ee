"""The model of a recipe: blocks of RMSNorm, mixer, RMSNorm and SwiGLU with one sequence mixer or another, as transformers has them."""

from __future__ import annotations

import math

import torch
from torch import nn
from transformers import BambaConfig, BambaForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from ttt_torch.models import TTTConfig, TTTForCausalLM
from tttcore import InvalidInput

from .recipe import VOCABULARY, Recipe

MAMBA_HEAD, MAMBA_STATE = 64, 128
"""Channels of a head and of its state, the defaults of Mamba-2."""


def model_of(recipe: Recipe, kernel: str) -> PreTrainedModel:
    """Fresh parameters from PyTorch's generator; ``kernel`` is the backend of TTT layers.

    "attention" is Llama (SDPA with RoPE), "mamba2" Bamba with none of its attention layers: all have the blocks of the Transformer backbone.
    """
    sizes = {"hidden_size": recipe.width, "intermediate_size": recipe.intermediate, "num_hidden_layers": recipe.layers}
    tokens = {"vocab_size": VOCABULARY, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None, "tie_word_embeddings": True}
    common = {**sizes, **tokens, "num_attention_heads": recipe.heads, "rms_norm_eps": 1e-6, "initializer_range": 0.02}
    if recipe.mixer == "attention":
        return LlamaForCausalLM(LlamaConfig(**common, max_position_embeddings=recipe.context))
    if recipe.mixer == "mamba2":
        heads, rest = divmod(2 * recipe.width, MAMBA_HEAD)
        if rest:
            raise InvalidInput("--width", got=recipe.width, expected=f"a multiple of {MAMBA_HEAD // 2} for mamba2", fix="change --width")
        model = BambaForCausalLM(BambaConfig(**common, attn_layer_indices=[], mamba_n_heads=heads, mamba_d_state=MAMBA_STATE))
        _start_as_mamba2(model)
        return model
    inner = recipe.mixer.removeprefix("ttt-")
    return TTTForCausalLM(TTTConfig.named("125m", backbone=recipe.backbone, inner=inner, kernel=kernel, **common))


@torch.no_grad()
def _start_as_mamba2(model: PreTrainedModel) -> None:
    """Time steps softplus(dt_bias) log-uniform between 0.001 and 0.1, and convolutions as PyTorch draws them, as in Mamba-2's own code.

    transformers' Bamba, made for checkpoints, leaves the steps at 1.3 and the taps at 0.02, with which a fresh model learns slowly.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv1d):
            module.reset_parameters()
    for name, bias in model.named_parameters():
        if name.endswith("dt_bias"):
            step = torch.empty_like(bias).uniform_(math.log(1e-3), math.log(0.1)).exp()
            bias.copy_(step.expm1().log())


def parameters(model: PreTrainedModel) -> int:
    """How many numbers it learns."""
    return sum(x.numel() for x in model.parameters())
