"""What a model remembers between two calls, of a size that does not grow with the tokens read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache

from tttcore import InvalidInput
from tttcore.language_model import Memory
from tttcore.tree import tree_map

from ..decoder import LayerDecoder
from ..layer import TTTLayer
from ..rows import StateRows


class TTTCache(StateRows, Cache):
    """The memory of each block and the columns read so far, padding included, as ``past_key_values``.

    Calls replace ``memories`` and never write into their tensors, so ``copy.copy(cache)`` is a place to come back to. Token by token the cache holds
    decoders, one for each layer, which may move on in place; they are its own, and ``memories`` are their states.
    """

    def __init__(self) -> None:
        super().__init__(layers=[])
        self._held: Sequence[Memory] = ()
        self._within_a_token = False
        self.tokens = 0

    @property
    def memories(self) -> tuple[Memory, ...]:
        """What each block remembers."""
        self._check_whole()
        return tuple(memory._replace(state=memory.state.state()) if isinstance(memory.state, LayerDecoder) else memory for memory in self._held)

    def __getstate__(self) -> dict[str, Any]:
        """What copies get: states, since a decoder moves on for one only."""
        return self.__dict__ | {"_held": self.memories}

    def __len__(self) -> int:
        return len(self._held)

    def __repr__(self) -> str:
        return f"TTTCache({len(self)} blocks, {self.tokens} tokens)"

    @property
    def rows(self) -> int:
        """Sequences; of a cache that is not empty."""
        state = self._held[0].state
        return 0 if state is None else state.phase.shape[0]

    @property
    def pre_conv(self) -> bool:
        """Whether blocks have a convolution ahead of the layer; of a cache that is not empty."""
        return self._held[0].conv is not None

    def advance(self, memories: Sequence[Memory], tokens: int) -> None:
        """The memories after ``tokens`` more columns."""
        self._held, self._within_a_token, self.tokens = memories, False, self.tokens + tokens

    def decoding(self, blocks: Iterable[Any]) -> tuple[Memory, ...]:
        """The memories for one more token, with decoders of the blocks' layers instead of states; ``advance`` with what the blocks return."""
        self._check_whole()
        memories = tuple(_decoding(memory, block.seq_modeling_block) for memory, block in zip(self._held, blocks, strict=True))
        # Until it advances some decoders have moved on and some have not.
        self._held, self._within_a_token = memories, True
        return memories

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns read so far."""
        return self.tokens

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """−1: there is none."""
        return -1

    def reset(self) -> None:
        """Back to before the first token."""
        self._held, self._within_a_token, self.tokens = (), False, 0

    def _check_whole(self) -> None:
        if self._within_a_token:
            fix = "go on from a copy.copy(cache) of before, or reset() it"
            raise InvalidInput("past_key_values", got="a cache whose last call ended within a token", expected="one between two tokens", fix=fix)

    def _each(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._held = tuple(tree_map(function, memory) for memory in self.memories)


def _decoding(memory: Memory, layer: TTTLayer) -> Memory:
    state = memory.state
    if isinstance(state, LayerDecoder):
        if state.serves(layer):
            return memory
        state = state.state()
    decoder = None if state is None else layer.decoder(state)
    return memory._replace(state=state if decoder is None else decoder)
