"""What a model has learned: the loss of text, token by token."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch.nn import functional
from transformers import PreTrainedModel


def token_losses(model: PreTrainedModel, windows: torch.Tensor) -> torch.Tensor:
    """−log p(token t + 1 | tokens 0 … t) in nats, ``[B, T]`` float32, of windows ``[B, T + 1]``."""
    logits = model(input_ids=windows[:, :-1], use_cache=False).logits
    labels = windows[:, 1:]
    return functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape)


@torch.no_grad()
def losses_by_position(losses: Callable[[torch.Tensor], torch.Tensor], batches: Iterable[torch.Tensor]) -> np.ndarray:
    """Mean over windows of ``losses(windows)``, position by position: ``[T]`` float64."""
    parts = [(losses(windows).double().sum(0), len(windows)) for windows in batches]
    return (torch.stack([part for part, _ in parts]).sum(0) / sum(rows for _, rows in parts)).cpu().numpy()
