"""Configurations as the code bases and transformers write them, as a ``ModelSpec``. What changes numbers is honoured or refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

from ..errors import InvalidInput
from ..keywords import refuse_unknown
from ..upstream.layouts import setting
from .spec import ModelSpec

BOOKKEEPING = {
    *("kernel", "use_cache"),  # of ``ttt_torch.models``, and not about what is computed
    *("max_position_embeddings", "pretraining_tp", "scan_checkpoint_group_size"),  # of ttt-lm-pytorch: they change no number
    *("architectures", "chunk_size_feed_forward", "dtype", "id2label", "is_encoder_decoder", "label2id", "output_hidden_states", "problem_type"),
    *("model_type", "name_or_path", "num_labels", "output_attentions", "return_dict", "torch_dtype", "transformers_version", "use_return_dict"),
    *("add_cross_attention", "cross_attention_hidden_size", "decoder_start_token_id", "finetuning_task", "is_decoder", "prefix", "pruned_heads"),
    *("sep_token_id", "task_specific_params", "tf_legacy_loss", "tie_encoder_decoder", "tokenizer_class", "torchscript", "use_bfloat16"),
    *("attn_implementation", "auto_map", "experts_implementation"),
    # of generation, where older versions of transformers kept it
    *("bad_words_ids", "begin_suppress_tokens", "diversity_penalty", "do_sample", "early_stopping", "encoder_no_repeat_ngram_size"),
    *("exponential_decay_length_penalty", "forced_bos_token_id", "forced_eos_token_id", "length_penalty", "max_length", "min_length"),
    *("no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences", "output_scores", "remove_invalid_values"),
    *("repetition_penalty", "return_dict_in_generate", "suppress_tokens", "temperature", "top_k", "top_p", "typical_p"),
}
"""Keys of a saved configuration, ttt-lm-pytorch's and transformers' own, that say nothing about what the model computes."""

JAX_BOOKKEEPING = BOOKKEEPING | {
    *("max_sequence_length", "remat_block", "remat_attention", "remat_mlp", "remat_conv", "remat_mini_batch_group_size", "output_ttt_stats"),
    *("scan_attention", "scan_mlp", "scan_query_chunk_size", "scan_key_chunk_size", "scan_mlp_chunk_size"),
    *("attn_pdrop", "fcm_min_ratio", "fcm_max_ratio", "use_rotary_emb"),  # of self-attention, which is refused
    *("ttt_base_lr_init", "ttt_base_lr_warmup"),  # a schedule of η₀ while they train, which ends at ttt_base_lr
}
"""Those of ttt-lm-jax: memory, lengths and statistics."""

JAX_LAYERS = {f"ttt_{inner}{base}": (inner, not base) for inner in ("linear", "mlp") for base in ("", "_base")}
"""``seq_modeling_block`` → inner model, and whether q and k share a projection and the output has a gate."""

JAX_DEFAULTS = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "tie_word_embeddings": False}
"""Where ttt-lm-jax's defaults are not ttt-lm-pytorch's."""

FIELDS = {field.name for field in dataclasses.fields(ModelSpec)}


def from_config(config: Any) -> ModelSpec:
    """The model of ttt-lm-pytorch's ``TTTConfig`` or of a ``config.json`` of ours, as an object or a dict; a ``ModelSpec`` is itself.

    Raises ``UnknownKeyword`` for a key that is neither a field of ``ModelSpec`` nor in ``BOOKKEEPING``.
    """
    if isinstance(config, ModelSpec):
        return config
    keys = _keys(config, FIELDS | BOOKKEEPING)
    return ModelSpec(**{name: value for name, value in keys.items() if name in FIELDS})


def from_jax_config(config: Any) -> ModelSpec:
    """The model of ttt-lm-jax's ``ModelConfig``, as an object or a dict; a ``ModelSpec`` is itself.

    ``seq_modeling_block`` tells inner model, shared projection and gate; ``conv_width`` is our ``conv_kernel``. Raises ``InvalidInput`` for
    self-attention, for dropout and for a key without a default there, ``UnknownKeyword`` for a key that is not known.
    """
    if isinstance(config, ModelSpec):
        return config
    same = FIELDS - {"share_qk", "use_gate", "ttt_layer_type", "conv_kernel", "hidden_act"}
    keys = _keys(config, same | JAX_BOOKKEEPING | {"seq_modeling_block", "conv_width", "resid_pdrop", "embd_pdrop"})
    for name in ("resid_pdrop", "embd_pdrop"):
        if keys.get(name):
            raise InvalidInput(name, got=keys[name], expected="0: there is no dropout here", fix=f"set {name}=0.0, to go on without it")
    block = setting(keys, "seq_modeling_block")
    if block not in JAX_LAYERS:
        raise InvalidInput("seq_modeling_block", got=repr(block), expected=f"one of {sorted(JAX_LAYERS)}", fix="use a model of TTT layers")
    inner, rich = JAX_LAYERS[block]
    needed: dict[str, Any] = {name: setting(keys, name) for name in ("mini_batch_size", "ttt_base_lr", "rope_theta", "pre_conv")}
    if rich or needed["pre_conv"]:
        needed["conv_kernel"] = setting(keys, "conv_width")
    rest = {name: value for name, value in keys.items() if name in same}
    fields: dict[str, Any] = {**JAX_DEFAULTS, **rest, **needed}
    return ModelSpec(**fields, ttt_layer_type=inner, share_qk=rich, use_gate=rich)


def as_mapping(config: Any) -> Mapping[str, Any]:
    """A configuration, an object or a mapping, as a mapping."""
    if isinstance(config, Mapping):
        return cast("Mapping[str, Any]", config)
    return cast("Mapping[str, Any]", config.to_dict() if hasattr(config, "to_dict") else vars(config))


def _keys(config: Any, known: set[str]) -> dict[str, Any]:
    """A configuration as a dict, without transformers' private keys; unknown ones are refused."""
    keys = {name: value for name, value in as_mapping(config).items() if not name.startswith("_")}
    refuse_unknown("config", keys, known)
    return keys
