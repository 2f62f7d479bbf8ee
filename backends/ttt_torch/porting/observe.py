"""What goes into modules of a model and comes out while it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn


@torch.no_grad()
def observed(model: Any, attentions: Sequence[nn.Module], batch: Mapping[str, torch.Tensor]) -> list[tuple[dict[str, Any], torch.Tensor]]:
    """Of each self-attention module its input, mask and positions by keyword, and its output ``[B, T, C]``, when the model gets that batch."""
    found: list[tuple[dict[str, Any], torch.Tensor]] = []

    def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        given = dict(zip(("hidden_states", "attention_mask"), args, strict=False)) | kwargs
        inputs = {name: given[name] for name in ("hidden_states", "attention_mask", "position_ids") if name in given}
        found.append((inputs, output[0]))

    handles = [attention.register_forward_hook(keep, with_kwargs=True) for attention in attentions]
    try:
        model(**batch)
    finally:
        for handle in handles:
            handle.remove()
    return found
