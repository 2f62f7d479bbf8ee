"""What a TTT layer remembers, as one layer of a Hugging Face cache beside those that hold keys and values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer

from tttcore import InvalidInput, State
from tttcore.tree import tree_map

from ..rows import StateRows


class TTTCacheLayer(StateRows, CacheLayerMixin):
    """The state after the last token (None before the first) and the columns read, padding included; its size does not grow with them.

    A call replaces ``state`` and writes into none of its tensors, so a copy of the cache is a place to come back to.
    """

    is_sliding = False

    def __init__(self) -> None:
        super().__init__()
        self.state: State | None = None
        self.columns = 0

    @classmethod
    def of(cls, cache: Cache, index: int) -> TTTCacheLayer:
        """Layer ``index`` of a cache; an empty layer for keys and values, which a model makes before it knows, gives its place to one of these."""
        while len(cache.layers) <= index and cache.layer_class_to_replicate is not None:
            cache.layers.append(cache.layer_class_to_replicate())
        layer = cache.layers[index]
        if isinstance(layer, cls):
            return layer
        if not isinstance(layer, DynamicLayer) or layer.get_seq_length():
            got = f"{type(layer).__name__} in layer {index}" + (", which holds tokens" if isinstance(layer, DynamicLayer) else "")
            raise InvalidInput("past_key_values", got=got, expected="a cache of this model, or an empty DynamicCache", fix="leave it out")
        made = cache.layers[index] = cls()
        return made

    def advance(self, state: State, columns: int) -> None:
        """The state after ``columns`` more."""
        self.state, self.columns = state, self.columns + columns

    def get_seq_length(self) -> int:
        """Columns read so far."""
        return self.columns

    def get_max_length(self) -> int:
        """−1: there is none."""
        return -1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """As a layer that holds all keys: the mask of a hybrid is one for all layers."""
        return self.columns + query_length, 0

    def reset(self) -> None:
        """Back to before the first token."""
        self.state, self.columns = None, 0

    def offload(self) -> None:
        """Nothing: a state stays on its device, it is small."""

    def prefetch(self) -> None:
        """Nothing, as it was never away."""

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing: the first call brings the state."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Refused: there are no keys and values here."""
        fix = "give every model a cache of its own"
        raise InvalidInput("past_key_values", got="a TTT layer's place for keys and values", expected="a cache that this model made", fix=fix)

    def _each(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.state = tree_map(function, self.state)
