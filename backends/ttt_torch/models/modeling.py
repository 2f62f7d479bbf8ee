"""The model without a head: embedding, blocks and norm."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils.generic import can_return_tuple

from tttcore import InvalidInput, init

from ..backend import concrete
from ..layer import TTTLayer
from .block import Block, PreConvolution
from .cache import Memory, TTTCache
from .config import TTTConfig


class TTTPreTrainedModel(PreTrainedModel):
    """What both models share."""

    config_class = TTTConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["Block"]  # noqa: RUF012 (as transformers has it)
    _is_stateful = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if not isinstance(module, (TTTLayer, PreConvolution)):
            return
        # A loaded parameter carries transformers' flag; one on the meta device has no values yet.
        empty = {name: x for name, x in module.named_parameters(recurse=False) if not (x.is_meta or getattr(x, "_is_hf_initialized", False))}
        if isinstance(module, PreConvolution):
            for name, x in empty.items():
                x.uniform_(-1, 1).div_(x.shape[0] ** 0.5) if name == "weight" else x.zero_()
        elif empty:
            drawn = init(module.spec, int(torch.randint(2**63 - 1, (), device="cpu").item()))
            for name, x in empty.items():
                x.copy_(torch.from_numpy(drawn[name] * (self.config.initializer_range / 0.02 if name.endswith("_proj") else 1)))


class TTTModel(TTTPreTrainedModel):
    """Token embedding, ``num_hidden_layers`` blocks, RMSNorm."""

    def __init__(self, config: TTTConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.layers = nn.ModuleList([Block(config) for _ in range(config.num_hidden_layers)])
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.gradient_checkpointing = False
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        past_key_values: TTTCache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> BaseModelOutputWithPast:
        """Hidden states ``[B, T, C]`` of ``input_ids [B, T]`` or ``inputs_embeds [B, T, C]``, and the cache after them.

        attention_mask ``[B, ≥ T]``: nonzero where a token counts; of a longer one the last T columns. With ``past_key_values`` the sequence goes on
        from there, at any token; the cache moves on unless ``use_cache`` is False. Without either, a cache is returned if the config says so, but not
        in training.
        """
        if (input_ids is None) == (inputs_embeds is None):
            got = "neither" if input_ids is None else "both"
            raise InvalidInput("input_ids and inputs_embeds", got=got, expected="one of them", fix="pass input_ids or inputs_embeds")
        if not isinstance(past_key_values, TTTCache | None):
            fix = "pass what a call returned as past_key_values, or TTTCache()"
            raise InvalidInput("past_key_values", got=type(past_key_values).__name__, expected="a TTTCache", fix=fix)
        x = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if use_cache is None:
            use_cache = past_key_values is not None or (self.config.use_cache and not self.training)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        cache = TTTCache() if past_key_values is None else past_key_values
        mask, tokens = _token_mask(attention_mask, x), x.shape[1]
        hidden_states, memories = [x], []
        for block, memory in zip(self.layers, cache.memories or [Memory()] * len(self.layers), strict=True):
            x, memory = block(x, mask, memory)
            hidden_states.append(x)
            memories.append(memory)
        x = self.norm(x)
        if use_cache:
            cache.advance(memories, tokens)
        return BaseModelOutputWithPast(
            last_hidden_state=x,
            past_key_values=cache if use_cache else None,
            hidden_states=(*hidden_states[:-1], x) if output_hidden_states else None,
        )


def _token_mask(attention_mask: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor | None:
    """``[B, T]`` bool; None where every token counts, which saves packing them."""
    if attention_mask is None:
        return None
    rows, tokens = x.shape[:2]
    if attention_mask.ndim != 2 or attention_mask.shape[0] != rows or attention_mask.shape[1] < tokens:
        expected = f"({rows}, {tokens}) or more columns for what was read before"
        raise InvalidInput(
            "shape of attention_mask", got=tuple(attention_mask.shape), expected=expected, fix="pass the tokenizer's mask, one row each"
        )
    mask = attention_mask[:, attention_mask.shape[1] - tokens :] != 0
    return None if concrete(mask) and bool(mask.all()) else mask
