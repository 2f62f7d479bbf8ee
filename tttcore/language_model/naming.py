"""Where a code base keeps the parameters of a language model: our names, theirs, and the layout there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..upstream import jax, pytorch
from ..upstream.layouts import MIDDLE, SAME, TRANSPOSED, TRANSPOSED_MIDDLE, Layout, Names, as_numpy


@dataclass(frozen=True)
class Naming:
    """The name of block n's parameters begins with ``block`` (a format); a parameter that is in neither table has our name and layout."""

    block: str = "model.layers.{}."
    in_block: Names = field(default_factory=dict[str, "tuple[str, Layout]"])
    outside: Names = field(default_factory=dict[str, "tuple[str, Layout]"])

    def theirs(self, name: str) -> tuple[str, Layout]:
        """Their name of our parameter, and its layout there."""
        inside = re.fullmatch(r"model\.layers\.(\d+)\.(.*)", name)
        if inside is None:
            return self.outside.get(name, (name, SAME))
        number, own = inside.groups()
        their, layout = self.in_block.get(own, (own, SAME))
        return self.block.format(number) + their, layout

    def to_theirs(self, arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Our arrays, parameters or gradients, under their names and in their layouts; exact."""
        places = {name: self.theirs(name) for name in arrays}
        return {their: np.ascontiguousarray(layout.to_theirs(as_numpy(arrays[name]))) for name, (their, layout) in places.items()}


def _mixer(names: Names, separator: str) -> Names:
    """A layer's table, as a part of a block's."""
    return {f"seq_modeling_block.{ours}": (f"seq_modeling_block{separator}{their}", layout) for ours, (their, layout) in names.items()}


OURS = Naming()

PYTORCH = Naming(
    in_block={**_mixer(pytorch.NAMES, "."), "conv.weight": ("conv.conv.weight", TRANSPOSED_MIDDLE), "conv.bias": ("conv.conv.bias", SAME)}
)
"""ttt-lm-pytorch's ``TTTForCausalLM``, as its ``state_dict`` has it."""

JAX = Naming(
    "model/h/{}/",
    in_block={
        **_mixer(jax.NAMES, "/"),
        "conv.weight": ("conv/conv1/kernel", MIDDLE),
        "conv.bias": ("conv/conv1/bias", SAME),
        "conv.norm.weight": ("conv/conv_norm/kernel", SAME),
        "seq_norm.weight": ("seq_norm/kernel", SAME),
        "ffn_norm.weight": ("ffn_norm/kernel", SAME),
        "mlp.gate_proj.weight": ("feed_forward/w1/kernel", TRANSPOSED),
        "mlp.up_proj.weight": ("feed_forward/w3/kernel", TRANSPOSED),
        "mlp.down_proj.weight": ("feed_forward/w2/kernel", TRANSPOSED),
    },
    outside={
        "model.embed_tokens.weight": ("model/wte/embedding", SAME),
        "model.norm.weight": ("model/ln_f/kernel", SAME),
        "lm_head.weight": ("lm_head/kernel", TRANSPOSED),
    },
)
"""ttt-lm-jax's ``CausalLM``, paths of its parameters joined by "/". Blocks lie beside each other; that code stacks no layers for a scan."""
