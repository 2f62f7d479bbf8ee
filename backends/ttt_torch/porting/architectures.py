"""Where the self-attention of a Hugging Face model is, and what is asked of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from tttcore import InvalidInput


def _decoder(config: Any) -> bool:
    return getattr(config, "is_causal", True)


def _never(config: Any) -> bool:
    return False


def _positions(config: Any) -> int:
    return config.max_position_embeddings


def _patches(config: Any) -> int:
    """Those of the image, and the class token."""
    image, patch = (size if isinstance(size, (tuple, list)) else (size, size) for size in (config.image_size, config.patch_size))
    return (image[0] // patch[0]) * (image[1] // patch[1]) + 1


@dataclass(frozen=True)
class Architecture:
    """The self-attention of layer n of a model is the module ``attention`` in layer n of ``layers``, both as paths from its base model.

    Such a module finishes its views q, k, v (biases, norms and RoPE included) and hands them to the attention function that its configuration
    names. ``causal`` and ``tokens`` read a configuration: whether a token sees those before it only, and the longest sequence of an encoder.
    """

    layers: str
    attention: str
    causal: Callable[[Any], bool]
    tokens: Callable[[Any], int] = _positions

    def modules(self, model: PreTrainedModel) -> list[tuple[nn.Module, str]]:
        """The parent of each layer's self-attention, and its name there."""
        *path, name = self.attention.split(".")
        layers = model.base_model.get_submodule(self.layers)
        return [(layer.get_submodule(".".join(path)), name) for layer in layers.children()]


_LLAMA = Architecture("layers", "self_attn", _decoder)

ARCHITECTURES: dict[str, Architecture] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "olmo2": _LLAMA,
    "phi3": _LLAMA,
    "starcoder2": _LLAMA,
    "gpt2": Architecture("h", "attn", _decoder),
    "bert": Architecture("encoder.layer", "attention.self", lambda config: config.is_decoder),
    "vit": Architecture("layers", "attention", _never, _patches),
}
"""By ``config.model_type``."""


def architecture_of(model_type: str) -> Architecture:
    """The architecture of that name; ``InvalidInput`` for one that is not here."""
    if model_type not in ARCHITECTURES:
        fix = "port one of these, or add its place to ttt_torch.porting.ARCHITECTURES"
        raise InvalidInput("architecture", got=repr(model_type), expected=f"one of {sorted(ARCHITECTURES)}", fix=fix)
    return ARCHITECTURES[model_type]
