"""What a model remembers between two calls, of a size that does not grow with the tokens read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from transformers.cache_utils import Cache

from tttcore import InvalidInput, State
from tttcore.tree import tree_map


class Memory(NamedTuple):
    """One block's: the layer's state, and the last inputs of the convolution ahead of it ``[B, conv_kernel − 1, C]``; None before the first token."""

    state: State | None = None
    conv: torch.Tensor | None = None


class TTTCache(Cache):
    """The memory of each block and the columns read so far, padding included, as ``past_key_values``.

    Calls replace ``memories`` and never write into their tensors, so ``copy.copy(cache)`` is a place to come back to.
    """

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.memories: Sequence[Memory] = ()
        self.tokens = 0

    def __len__(self) -> int:
        return len(self.memories)

    def __repr__(self) -> str:
        return f"TTTCache({len(self)} blocks, {self.tokens} tokens)"

    def advance(self, memories: Sequence[Memory], tokens: int) -> None:
        """The memories after ``tokens`` more columns."""
        self.memories, self.tokens = memories, self.tokens + tokens

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns read so far."""
        return self.tokens

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """−1: there is none."""
        return -1

    def reset(self) -> None:
        """Back to before the first token."""
        self.memories, self.tokens = (), 0

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Row b becomes row beam_idx[b]."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """The rows at ``indices``, in their order."""
        self._each(lambda x: x.index_select(0, indices.to(x.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row ``repeats`` times."""
        self._each(lambda x: x.repeat_interleave(repeats, 0))

    def crop(self, tokens_to_remove: int) -> None:
        """Nothing for 0; tokens that were read cannot be taken back."""
        if tokens_to_remove:
            fix = "keep copy.copy(cache) from before these tokens"
            raise InvalidInput("tokens_to_remove", got=tokens_to_remove, expected="0: a state forgets no single token", fix=fix)

    def _each(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.memories = tuple(tree_map(function, memory) for memory in self.memories)
