"""What ``torch.func.vmap`` over the operators needs: a mapped axis as more sequences."""

from __future__ import annotations

from torch import Tensor


def fold(x: Tensor | None, dim: int | None, count: int) -> Tensor | None:
    """x with its mapped axis ``dim``, of ``count`` entries, folded into the first; repeated where it is not mapped; None for None."""
    if x is None:
        return None
    return (x.movedim(dim, 0) if dim is not None else x.expand(count, *x.shape)).flatten(0, 1).contiguous()
