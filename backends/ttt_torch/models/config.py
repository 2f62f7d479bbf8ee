"""What a TTT language model is: the authors' configuration keys, and one of ours for the kernels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from transformers import GenerationConfig, PreTrainedConfig

from tttcore import InvalidInput, LayerSpec
from tttcore.inner_model import INNER_MODELS
from tttcore.keywords import refuse_unknown
from tttcore.upstream.pytorch import layer_spec

SIZES: dict[str, dict[str, int]] = {
    "125m": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12},
    "350m": {"hidden_size": 1024, "intermediate_size": 2736, "num_hidden_layers": 24, "num_attention_heads": 16},
    "760m": {"hidden_size": 1536, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16},
    "1.3b": {"hidden_size": 2048, "intermediate_size": 5504, "num_hidden_layers": 24, "num_attention_heads": 32},
}
"""The paper's four sizes, as the authors' code has them (where the last is called "1b")."""

BACKBONES = {name: dict.fromkeys(("share_qk", "use_gate", "pre_conv"), name == "mamba") for name in ("transformer", "mamba")}
"""What surrounds the inner loop: one projection for q and k with convolutions, an output gate, and a convolution ahead of the layer, or none."""

BOOKKEEPING = {
    *("max_position_embeddings", "pretraining_tp", "scan_checkpoint_group_size"),  # of the authors: they change no number
    *("model_type", "torch_dtype", "name_or_path", "attn_implementation", "experts_implementation", "output_attentions", "num_labels"),
    *("add_cross_attention", "cross_attention_hidden_size", "decoder_start_token_id", "finetuning_task", "is_decoder", "prefix", "pruned_heads"),
    *("sep_token_id", "task_specific_params", "tf_legacy_loss", "tie_encoder_decoder", "tokenizer_class", "torchscript", "use_bfloat16"),
    *GenerationConfig._get_default_generation_params(),
}
"""Keys of a saved configuration, the authors' and other versions' of transformers among them, that say nothing about the model."""


class TTTConfig(PreTrainedConfig):
    """The configuration of ``TTTModel`` and ``TTTForCausalLM``, with the authors' keys and defaults (but ``use_cache``, which is True here).

    - the layer: ``hidden_size``, ``num_attention_heads``, ``ttt_layer_type`` ("linear", "mlp" or another of tttcore's inner models), ``ttt_base_lr``,
      ``mini_batch_size``, ``share_qk``, ``use_gate``, ``conv_kernel``, ``rope_theta``: a ``LayerSpec``, see ``layer_spec``;
    - around it: ``num_hidden_layers``, ``intermediate_size``, ``hidden_act``, ``rms_norm_eps``, ``pre_conv``;
    - the language: ``vocab_size``, ``tie_word_embeddings`` and special tokens;
    - ``kernel``: the backend that computes the layers, "torch" or "triton".

    Raises ``UnknownKeyword`` for a key that is not here, ``InvalidInput`` for values of which no layer can be made.
    """

    model_type = "tttcore"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012 (as transformers has it)

    vocab_size: int = 32000
    hidden_size: int = 2048
    intermediate_size: int = 5504
    num_hidden_layers: int = 24
    num_attention_heads: int = 32
    hidden_act: str = "silu"
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-6
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    tie_word_embeddings: bool = True
    rope_theta: float = 10000.0
    use_gate: bool = False
    share_qk: bool = False
    ttt_layer_type: str = "linear"
    ttt_base_lr: float = 1.0
    mini_batch_size: int = 16
    pre_conv: bool = False
    conv_kernel: int = 4
    kernel: str = "torch"

    def __post_init__(self, **kwargs: Any) -> None:
        """Refuse unknown keys and impossible layers."""
        known = {field.name for field in dataclasses.fields(self)} | BOOKKEEPING
        refuse_unknown("TTTConfig", (name for name in kwargs if not name.startswith("_")), known)
        kwargs.pop("model_type", None)
        super().__post_init__(**kwargs)
        for name in ("vocab_size", "intermediate_size", "num_hidden_layers"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise InvalidInput(name, got=repr(getattr(self, name)), expected="an integer ≥ 1", fix=f"pass {name}=1 or more")
        _ = self.layer_spec

    @property
    def layer_spec(self) -> LayerSpec:
        """The TTT layer in every block."""
        return layer_spec(self)

    @classmethod
    def named(cls, size: str, *, backbone: str = "transformer", inner: str = "linear", **changes: Any) -> TTTConfig:
        """The paper's model of a ``size`` in ``SIZES``, "125m" to "1.3b", with a ``backbone`` in ``BACKBONES`` and η₀ as in the paper (1 or 0.1)."""
        for what, got, known in (("size", size, SIZES), ("backbone", backbone, BACKBONES), ("inner", inner, INNER_MODELS)):
            if got not in known:
                raise InvalidInput(what, got=repr(got), expected=f"one of {sorted(known)}", fix="use one of these names")
        lr = INNER_MODELS[inner].default_base_lr
        return cls(**{**SIZES[size], **BACKBONES[backbone], "ttt_layer_type": inner, "ttt_base_lr": lr, **changes})

    @classmethod
    def of_authors(cls, config: Any) -> TTTConfig:
        """The same model as ttt-lm-pytorch's ``TTTConfig``, given as an object with its attributes, as a dict, or as ours already."""
        if isinstance(config, cls):
            return config
        if not isinstance(config, Mapping):
            config = config.to_dict() if hasattr(config, "to_dict") else vars(config)
        return cls(**config)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As transformers' own; a configuration of another ``model_type`` is refused: its checkpoint has other names."""
        if config_dict.get("model_type", cls.model_type) != cls.model_type:
            fix = "read an authors' checkpoint with TTTForCausalLM.from_ttt_lm_pytorch(state_dict, config)"
            raise InvalidInput("model_type", got=repr(config_dict["model_type"]), expected=repr(cls.model_type), fix=fix)
        return super().from_dict(config_dict, **kwargs)
