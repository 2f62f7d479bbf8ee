"""The language model: a head on the model, generation with a state of constant size, and the authors' checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils.generic import can_return_tuple

from tttcore import InvalidInput
from tttcore.language_model import JAX, PYTORCH, LoadingReport, Naming, from_jax_config
from tttcore.language_model.loading import dtype_of, read, without_prefix
from tttcore.language_model.spec import EMBEDDING, HEAD

from ..backend import from_numpy
from .cache import TTTCache
from .config import TTTConfig
from .inputs import check_labels
from .modeling import TTTModel, TTTPreTrainedModel


class TTTForCausalLM(TTTPreTrainedModel, GenerationMixin):
    """``TTTModel`` and a linear head onto the vocabulary, which is the embedding if ``tie_word_embeddings``."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012 (as transformers has it)
    accepts_loss_kwargs = True

    def __init__(self, config: TTTConfig) -> None:
        super().__init__(config)
        self.model = TTTModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @classmethod
    def from_ttt_lm_pytorch(
        cls, state_dict: Mapping[str, Any], config: Any, *, dtype: torch.dtype | None = None, output_loading_info: bool = False
    ) -> TTTForCausalLM | tuple[TTTForCausalLM, LoadingReport]:
        """The model of a state dict of the authors' ``TTTForCausalLM`` (ttt-lm-pytorch), in evaluation mode; with its report if asked for.

        ``config`` is theirs, as an object or a dict, or a ``TTTConfig``; ``dtype`` that of the embedding unless given. Raises ``InvalidInput``, which
        lists all names, when a tensor is unused, missing, of another shape, or differs from the one it is tied to: a model is whole or not made.
        """
        return cls._of_authors(state_dict, TTTConfig.of_authors(config), PYTORCH, "state_dict", dtype, output_loading_info)

    @classmethod
    def from_ttt_lm_jax(
        cls, params: Mapping[Any, Any], config: Any, *, dtype: torch.dtype | None = None, output_loading_info: bool = False
    ) -> TTTForCausalLM | tuple[TTTForCausalLM, LoadingReport]:
        """The model of the parameters of the authors' ``CausalLM`` (ttt-lm-jax), in evaluation mode; all else as ``from_ttt_lm_pytorch``.

        ``params``: nested dicts, or flat ones whose keys are paths joined by "/" or tuples, with "params" in front or without.
        """
        config = TTTConfig.of_authors(config if isinstance(config, TTTConfig) else from_jax_config(config))
        return cls._of_authors(without_prefix(params), config, JAX, "params", dtype, output_loading_info)

    @classmethod
    def _of_authors(
        cls, given: Mapping[str, Any], config: TTTConfig, naming: Naming, what: str, dtype: torch.dtype | None, output_loading_info: bool
    ) -> TTTForCausalLM | tuple[TTTForCausalLM, LoadingReport]:
        arrays, report = read(given, config.model_spec, naming, what)
        if config.tie_word_embeddings:
            arrays[HEAD] = arrays[EMBEDDING]
        dtype = getattr(torch, dtype_of(given, naming)) if dtype is None else dtype
        with torch.device("meta"):
            model = cls(config)
        model.load_state_dict({name: from_numpy(x, None).to(dtype) for name, x in arrays.items()}, assign=True)
        model.tie_weights()
        # Theirs is False by default and about calls outside of generate.
        model.generation_config.use_cache = True
        return (model.eval(), report) if output_loading_info else model.eval()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        past_key_values: TTTCache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> CausalLMOutputWithPast:
        """Logits ``[B, T, vocab_size]``, of the last ``logits_to_keep`` tokens or at these places only (0: of all), and with labels the loss.

        labels ``[B, T]`` are the tokens themselves (they are shifted here), −100 where none counts; all else as in ``TTTModel``.
        """
        given = input_ids if inputs_embeds is None else inputs_embeds
        if labels is not None and given is not None:
            check_labels(labels, tuple(given.shape[:2]), self.config.vocab_size, logits_to_keep)
        outputs = self.model(input_ids, attention_mask, past_key_values, inputs_embeds, use_cache, output_hidden_states, return_dict=True)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, vocab_size=self.config.vocab_size, num_items_in_batch=num_items_in_batch)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=outputs.past_key_values, hidden_states=outputs.hidden_states)

    # Below, what pyright ignores: transformers declares both methods for a type of its own, and with arguments that do not matter here.
    def prepare_inputs_for_generation(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, input_ids: torch.Tensor, is_first_iteration: bool = False, inputs_embeds: torch.Tensor | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """As transformers' own, which looks for ``inputs_embeds`` among the arguments; behind the prompt no token is padding."""
        prepare: Any = super().prepare_inputs_for_generation  # pyright: ignore[reportAttributeAccessIssue]
        inputs = prepare(input_ids, is_first_iteration=is_first_iteration, inputs_embeds=inputs_embeds, **kwargs)
        # transformers hands the tokenizer of stop_strings on to the model, which has no use for it.
        inputs.pop("tokenizer", None)
        if inputs.get("past_key_values") is not None and not is_first_iteration:
            inputs["attention_mask"] = None
        return inputs

    def _prepare_cache_for_generation(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, generation_config: Any, model_kwargs: dict[str, Any], *others: Any
    ) -> None:
        """A ``TTTCache`` where none is given; the only kind there is."""
        if generation_config.cache_implementation is not None:
            got = repr(generation_config.cache_implementation)
            raise InvalidInput("cache_implementation", got=got, expected="None: a TTTCache", fix="leave it out")
        if model_kwargs.get("past_key_values") is None and generation_config.use_cache:
            model_kwargs["past_key_values"] = TTTCache()
