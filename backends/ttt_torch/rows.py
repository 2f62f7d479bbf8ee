"""What becomes of a cache's rows in ``generate``, for caches whose tensors all have the rows as their first axis."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch

from tttcore import InvalidInput


class StateRows(ABC):
    """Rows are chosen, repeated and reordered; tokens that were read cannot be taken back."""

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
        """Nothing for 0, else ``InvalidInput``."""
        if tokens_to_remove:
            fix = "keep a copy of the cache from before these tokens"
            raise InvalidInput("tokens_to_remove", got=tokens_to_remove, expected="0: a state forgets no single token", fix=fix)

    @abstractmethod
    def _each(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Replace each tensor by what the function makes of it."""
