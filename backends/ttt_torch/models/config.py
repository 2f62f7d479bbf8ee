"""What a TTT language model is: ``tttcore.ModelSpec`` as a configuration of transformers, and a key for the kernels."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

from transformers import GenerationConfig, PreTrainedConfig

from tttcore import InvalidInput, LayerSpec, ModelSpec
from tttcore.keywords import refuse_unknown
from tttcore.language_model.configs import BOOKKEEPING, FIELDS, as_mapping
from tttcore.language_model.spec import named_fields


class TTTConfig(PreTrainedConfig):
    """The configuration of ``TTTModel`` and ``TTTForCausalLM``: the fields and defaults of ``tttcore.ModelSpec``, which are the authors'.

    - ``use_cache``: whether calls return a cache (True here; the authors' is False);
    - ``kernel``: the backend that computes the layers, "torch" or "triton".

    Raises ``UnknownKeyword`` for a key that is not here, ``InvalidInput`` for values of which no layer can be made.
    """

    model_type = "tttcore"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012 (as transformers has it)

    vocab_size: int = ModelSpec.vocab_size
    hidden_size: int = ModelSpec.hidden_size
    intermediate_size: int = ModelSpec.intermediate_size
    num_hidden_layers: int = ModelSpec.num_hidden_layers
    num_attention_heads: int = ModelSpec.num_attention_heads
    hidden_act: str = ModelSpec.hidden_act
    initializer_range: float = ModelSpec.initializer_range
    rms_norm_eps: float = ModelSpec.rms_norm_eps
    use_cache: bool = True
    pad_token_id: int | None = ModelSpec.pad_token_id
    bos_token_id: int | None = ModelSpec.bos_token_id
    eos_token_id: int | list[int] | None = cast("int", ModelSpec.eos_token_id)
    tie_word_embeddings: bool = ModelSpec.tie_word_embeddings
    rope_theta: float = ModelSpec.rope_theta
    use_gate: bool = ModelSpec.use_gate
    share_qk: bool = ModelSpec.share_qk
    ttt_layer_type: str = ModelSpec.ttt_layer_type
    ttt_base_lr: float = ModelSpec.ttt_base_lr
    mini_batch_size: int = ModelSpec.mini_batch_size
    pre_conv: bool = ModelSpec.pre_conv
    conv_kernel: int = ModelSpec.conv_kernel
    kernel: str = "torch"

    def __post_init__(self, **kwargs: Any) -> None:
        """Refuse unknown keys and impossible layers."""
        known = {field.name for field in dataclasses.fields(self)} | BOOKKEEPING | set(GenerationConfig._get_default_generation_params())
        refuse_unknown("TTTConfig", (name for name in kwargs if not name.startswith("_")), known)
        kwargs.pop("model_type", None)
        super().__post_init__(**kwargs)
        _ = self.model_spec

    @property
    def model_spec(self) -> ModelSpec:
        """The model, without what only transformers asks for."""
        return ModelSpec(**{name: getattr(self, name) for name in FIELDS})

    @property
    def layer_spec(self) -> LayerSpec:
        """The TTT layer in every block."""
        return self.model_spec.layer_spec

    @classmethod
    def named(cls, size: str, *, backbone: str = "transformer", inner: str = "linear", **changes: Any) -> TTTConfig:
        """The paper's model, as ``tttcore.ModelSpec.named``."""
        return cls(**{**named_fields(size, backbone, inner), **changes})

    @classmethod
    def of_authors(cls, config: Any) -> TTTConfig:
        """The same model as ttt-lm-pytorch's ``TTTConfig``, as an object or a dict, or as a ``ModelSpec``; ours is itself."""
        if isinstance(config, ModelSpec):
            config = config.to_dict()
        return config if isinstance(config, cls) else cls(**as_mapping(config))

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As transformers' own; a configuration of another ``model_type`` is refused: its checkpoint has other names."""
        if config_dict.get("model_type", cls.model_type) != cls.model_type:
            fix = "read an authors' checkpoint with TTTForCausalLM.from_ttt_lm_pytorch(state_dict, config)"
            raise InvalidInput("model_type", got=repr(config_dict["model_type"]), expected=repr(cls.model_type), fix=fix)
        return super().from_dict(config_dict, **kwargs)
