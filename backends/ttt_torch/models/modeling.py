"""The model without a head: embedding, blocks and norm."""

from __future__ import annotations

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils.generic import can_return_tuple

from tttcore import init
from tttcore.language_model import Memory

from ..layer import TTTLayer
from .block import Block, PreConvolution
from .cache import TTTCache
from .checkpoint import Checkpoints
from .config import TTTConfig
from .inputs import check_cache, check_tokens, token_mask


class TTTPreTrainedModel(Checkpoints):
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
        given = check_tokens(input_ids, inputs_embeds, self.config.vocab_size, self.config.hidden_size)
        rows, tokens = given.shape[:2]
        mask = token_mask(attention_mask, rows, tokens)
        cache = TTTCache() if past_key_values is None else past_key_values
        check_cache(cache, rows, len(self.layers), self.config.pre_conv)
        x = self.embed_tokens(given) if inputs_embeds is None else given
        if use_cache is None:
            use_cache = past_key_values is not None or (self.config.use_cache and not self.training)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        hidden_states, memories = [x], []
        if len(cache) and tokens == 1 and mask is None and use_cache and not torch.is_grad_enabled() and not torch.compiler.is_compiling():
            before = cache.decoding(self.layers)
        else:
            before = cache.memories or [Memory()] * len(self.layers)
        for block, memory in zip(self.layers, before, strict=True):
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
