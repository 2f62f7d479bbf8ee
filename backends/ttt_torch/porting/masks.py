"""Which tokens count, read from the masks that Hugging Face models make for attention."""

from __future__ import annotations

from typing import Any

import torch

from tttcore import InvalidInput, Unsupported

from ..backend import concrete


def token_mask(attention_mask: Any, x: torch.Tensor) -> torch.Tensor | None:
    """``[B, T]`` bool of x ``[B, T, C]``; None where every token counts.

    attention_mask ``[B, ≥ T]`` says so in its last T columns. ``[B, 1, T, ≥ T]``, True or 0 where row i sees column j, says it on the diagonal that
    ends in the last column: a token sees itself if it counts, whatever the window, the cache and the direction.
    """
    if attention_mask is None:
        return None
    if not isinstance(attention_mask, torch.Tensor):
        kind = type(attention_mask).__name__
        fix = "load the model with attn_implementation='sdpa'"
        raise Unsupported("ttt_torch.porting", field="attention_mask", got=kind, expected="a tensor", fix=fix)
    rows, tokens = x.shape[:2]
    shape, four = tuple(attention_mask.shape), attention_mask.ndim == 4
    if len(shape) not in (2, 4) or shape[0] not in (1, rows) or shape[-1] < tokens or (four and shape[1:3] != (1, tokens)):
        expected = f"({rows}, ≥ {tokens}) or ({rows}, 1, {tokens}, ≥ {tokens})"
        raise InvalidInput("shape of attention_mask", got=shape, expected=expected, fix="pass the tokenizer's mask, one row each")
    last = shape[-1] - tokens
    seen = torch.diagonal(attention_mask[:, 0], last, 1, 2) if four else attention_mask[:, last:]
    mask = (seen == 0 if seen.is_floating_point() and four else seen != 0).expand(rows, -1)
    return None if concrete(mask) and bool(mask.all()) else mask


def refuse_packed(position_ids: torch.Tensor | None, mask: torch.Tensor | None) -> None:
    """Raise ``InvalidInput`` if positions ``[B, T]`` begin anew among tokens that count, as where a row holds several sequences."""
    if position_ids is None or position_ids.shape[1] < 2 or not concrete(position_ids):
        return
    anew = position_ids[:, 1:] <= position_ids[:, :-1]
    if mask is not None:
        anew = anew & mask[:, 1:] & mask[:, :-1]
    if bool(anew.any()):
        fix = "give each sequence a row of its own, padded, with an attention_mask"
        raise InvalidInput("position_ids", got="positions that begin anew within a row", expected="one sequence a row", fix=fix)
