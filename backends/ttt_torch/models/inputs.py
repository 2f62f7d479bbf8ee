"""What a call of a model is given, looked at before anything is computed.

Values are read on a CPU alone: on a GPU each call would wait for the one before. There an index outside the vocabulary is PyTorch's assertion.
"""

from __future__ import annotations

import torch

from tttcore import InvalidInput

from ..backend import concrete
from .cache import TTTCache


def readable(x: torch.Tensor) -> bool:
    """Whether values can be read now, at no cost."""
    return x.device.type == "cpu" and concrete(x)


def check_tokens(input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None, vocab_size: int, width: int) -> torch.Tensor:
    """The one that is given: ids ``[B, T]``, integers within the vocabulary, or embeddings ``[B, T, width]``."""
    if input_ids is None and inputs_embeds is not None:
        if inputs_embeds.ndim != 3 or inputs_embeds.shape[2] != width:
            shape, fix = tuple(inputs_embeds.shape), "pass model.get_input_embeddings()(ids)"
            raise InvalidInput("shape of inputs_embeds", got=shape, expected=f"[B, T, {width}]: hidden_size columns", fix=fix)
        return inputs_embeds
    if input_ids is not None and inputs_embeds is None:
        if input_ids.ndim != 2:
            raise InvalidInput("shape of input_ids", got=tuple(input_ids.shape), expected="[B, T]", fix="pass ids[None] for a single sequence")
        if input_ids.dtype not in (torch.int32, torch.int64):
            raise InvalidInput("dtype of input_ids", got=input_ids.dtype, expected="int64 or int32", fix="pass ids.long()")
        _check_range("input_ids", input_ids, vocab_size)
        return input_ids
    got = "neither" if input_ids is None else "both"
    raise InvalidInput("input_ids and inputs_embeds", got=got, expected="one of them", fix="pass input_ids or inputs_embeds")


def check_labels(labels: torch.Tensor, shape: tuple[int, ...], vocab_size: int, logits_to_keep: int | torch.Tensor) -> None:
    """``[B, T]`` as the tokens, of the vocabulary or −100, with logits for all of them."""
    if tuple(labels.shape) != shape:
        fix = "pass the ids themselves: they are shifted inside"
        raise InvalidInput("shape of labels", got=tuple(labels.shape), expected=f"{shape}, as the tokens", fix=fix)
    if not isinstance(logits_to_keep, int) or logits_to_keep:
        fix = "leave logits_to_keep out: the loss is of all tokens"
        raise InvalidInput("logits_to_keep with labels", got="both", expected="one of them", fix=fix)
    if readable(labels):
        _check_range("labels", labels[labels != -100], vocab_size, " or -100")


def check_cache(cache: object, rows: int, blocks: int, pre_conv: bool) -> None:
    """A ``TTTCache``, empty or of as many rows and blocks, with or without convolutions; states are checked by the layers."""
    if not isinstance(cache, TTTCache):
        fix = "pass what a call returned as past_key_values, or TTTCache()"
        raise InvalidInput("past_key_values", got=type(cache).__name__, expected="a TTTCache", fix=fix)
    if not len(cache):
        return
    if len(cache) != blocks or cache.pre_conv != pre_conv:
        expected = f"one of {blocks} blocks {'with' if pre_conv else 'without'} a convolution ahead of the layer, as this model has"
        raise InvalidInput("past_key_values", got=repr(cache), expected=expected, fix="pass what this model returned, or TTTCache()")
    if cache.rows != rows:
        fix = "pass as many rows as before, or choose rows with cache.batch_select_indices"
        raise InvalidInput("rows of past_key_values", got=cache.rows, expected=f"{rows}, as input_ids has", fix=fix)


def token_mask(attention_mask: torch.Tensor | None, rows: int, tokens: int) -> torch.Tensor | None:
    """``[B, T]`` bool; None where every token is known to count, which saves packing them."""
    if attention_mask is None:
        return None
    if attention_mask.ndim != 2 or attention_mask.shape[0] != rows or attention_mask.shape[1] < tokens:
        expected = f"({rows}, {tokens}) or more columns for what was read before"
        raise InvalidInput(
            "shape of attention_mask", got=tuple(attention_mask.shape), expected=expected, fix="pass the tokenizer's mask, one row each"
        )
    mask = attention_mask[:, attention_mask.shape[1] - tokens :] != 0
    return None if concrete(mask) and bool(mask.all()) else mask


def _check_range(what: str, ids: torch.Tensor, vocab_size: int, other: str = "") -> None:
    if not readable(ids) or not ids.numel():
        return
    least, most = (int(x) for x in torch.aminmax(ids))
    if least < 0 or most >= vocab_size:
        got, expected = (least if least < 0 else most), f"0 … {vocab_size - 1}, the model's vocabulary{other}"
        fix = "use the model's tokenizer, or model.resize_token_embeddings(len(tokenizer)) if it has tokens of its own"
        raise InvalidInput(what, got=f"token {got}", expected=expected, fix=fix)
