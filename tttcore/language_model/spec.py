"""The specification of a language model of TTT layers: a frozen value that every framework's model is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from ..errors import InvalidInput
from ..inner_model import INNER_MODELS
from ..keywords import explain_keywords
from ..spec import LayerSpec
from ..upstream.pytorch import layer_spec

SIZES: dict[str, dict[str, int]] = {
    "125m": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12},
    "350m": {"hidden_size": 1024, "intermediate_size": 2736, "num_hidden_layers": 24, "num_attention_heads": 16},
    "760m": {"hidden_size": 1536, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16},
    "1.3b": {"hidden_size": 2048, "intermediate_size": 5504, "num_hidden_layers": 24, "num_attention_heads": 32},
}
"""The paper's four sizes, as the authors' code has them (where the last is called "1b")."""

BACKBONES = {name: dict.fromkeys(("share_qk", "use_gate", "pre_conv"), name == "mamba") for name in ("transformer", "mamba")}
"""What surrounds the inner loop: one projection for q and k with convolutions, an output gate, and a convolution ahead of the layer, or none."""


@dataclass(frozen=True)
class ModelSpec:
    """A language model, under the keys and with the defaults of ttt-lm-pytorch's ``TTTConfig``.

    - the layer: ``hidden_size`` C, ``num_attention_heads``, ``ttt_layer_type`` ("linear", "mlp" or another of ``INNER_MODELS``), ``ttt_base_lr``,
      ``mini_batch_size``, ``share_qk``, ``use_gate``, ``conv_kernel``, ``rope_theta``: a ``LayerSpec``, see ``layer_spec``;
    - around it: ``num_hidden_layers``, ``intermediate_size`` I, ``hidden_act``, ``rms_norm_eps``, ``pre_conv``, ``initializer_range``;
    - the language: ``vocab_size`` V, ``tie_word_embeddings`` and special tokens, of which ``eos_token_id`` may be several.

    Raises ``UnknownKeyword`` for a key that is not here, ``InvalidInput`` for values of which no model can be made.
    """

    vocab_size: int = 32000
    hidden_size: int = 2048
    intermediate_size: int = 5504
    num_hidden_layers: int = 24
    num_attention_heads: int = 32
    hidden_act: str = "silu"
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-6
    pad_token_id: int | None = None
    bos_token_id: int | None = 1
    eos_token_id: int | Sequence[int] | None = 2
    tie_word_embeddings: bool = True
    rope_theta: float = 10000.0
    use_gate: bool = False
    share_qk: bool = False
    ttt_layer_type: str = "linear"
    ttt_base_lr: float = 1.0
    mini_batch_size: int = 16
    pre_conv: bool = False
    conv_kernel: int = 4

    def __post_init__(self) -> None:
        """Refuse what no model can be made of; several end tokens become a tuple, so that the value is hashable."""
        if isinstance(self.eos_token_id, Sequence):
            object.__setattr__(self, "eos_token_id", tuple(self.eos_token_id))
        for name in ("vocab_size", "intermediate_size", "num_hidden_layers"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InvalidInput(name, got=repr(value), expected="an integer ≥ 1", fix=f"pass {name}=1 or more")
        _ = self.layer_spec

    @property
    def layer_spec(self) -> LayerSpec:
        """The TTT layer in every block."""
        return layer_spec(self)

    @classmethod
    def named(cls, size: str, *, backbone: str = "transformer", inner: str = "linear", **changes: Any) -> ModelSpec:
        """The paper's model of a ``size`` in ``SIZES``, "125m" to "1.3b", with a ``backbone`` in ``BACKBONES`` and η₀ as in the paper (1 or 0.1)."""
        return cls(**{**named_fields(size, backbone, inner), **changes})

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON has them; law: ``ModelSpec(**spec.to_dict()) == spec``."""
        fields = dataclasses.asdict(self)
        return {name: list(cast("tuple[int, ...]", value)) if isinstance(value, tuple) else value for name, value in fields.items()}

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter, in the order of the model; a tied head is the embedding and no parameter of its own.

        Weights of the layer as in ``LayerSpec.param_shapes``; all others as PyTorch has them: matrices [out, in], but the convolution ahead of the
        layer ``[conv_kernel, C]``, oldest tap first.
        """
        width, inside, row = self.hidden_size, self.intermediate_size, (self.hidden_size,)
        conv = {"conv.weight": (self.conv_kernel, width), "conv.bias": row, "conv.norm.weight": row} if self.pre_conv else {}
        mixer = {f"seq_modeling_block.{name}": shape for name, shape in self.layer_spec.param_shapes().items()}
        mlp = {"mlp.gate_proj.weight": (inside, width), "mlp.up_proj.weight": (inside, width), "mlp.down_proj.weight": (width, inside)}
        block = {**conv, "seq_norm.weight": row, **mixer, "ffn_norm.weight": row, **mlp}
        shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (self.vocab_size, width)}
        for number in range(self.num_hidden_layers):
            shapes |= {f"model.layers.{number}.{name}": shape for name, shape in block.items()}
        return shapes | {"model.norm.weight": row} | ({} if self.tie_word_embeddings else {HEAD: (self.vocab_size, width)})


EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"

ModelSpec.__init__ = explain_keywords(ModelSpec.__init__)


def named_fields(size: str, backbone: str, inner: str) -> dict[str, Any]:
    """The fields by which a model of the paper differs from the defaults."""
    for what, got, known in (("size", size, SIZES), ("backbone", backbone, BACKBONES), ("inner", inner, INNER_MODELS)):
        if got not in known:
            raise InvalidInput(what, got=repr(got), expected=f"one of {sorted(known)}", fix="use one of these names")
    return {**SIZES[size], **BACKBONES[backbone], "ttt_layer_type": inner, "ttt_base_lr": INNER_MODELS[inner].default_base_lr}
