"""The sizes of the cases, and which of them a backend's claims leave: few shapes, many values, because compilers work per shape."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from tttcore import Supports

SUBJECTS = ("inner", "layer", "whole")
"""The inner loop on random q, k, v, ℓ; the layer on real input, the text of the standard library as bytes, embedded; the inner loop with the whole
read-out."""


class Shape(NamedTuple):
    """B, H, D, K, and the variant of the spec's other fields."""

    batch: int
    heads: int
    head_dim: int
    mini_batch: int
    variant: str = "usual"

    @property
    def whole(self) -> int:
        """T of two mini-batches and a ragged tail."""
        return 2 * self.mini_batch + 3


Sized = tuple[Shape, int]
"""A shape and T."""

VARIANTS: dict[str, dict[str, Any]] = {
    "usual": {},
    "constants": {"base_lr": 0.3, "eps": 1e-3},
    "rich": {"share_qk": True, "gate": True},
    "plain": {"base_lr": 0.3, "eps": 1e-3, "rope_theta": 100.0},
    "inner_product": {"loss": "inner_product"},
    "odd": {"share_qk": True, "conv_width": 2, "rope_theta": None, "loss": "inner_product"},
}
"""Fields of the spec other than the sizes; η₀ is 1 and the rest the defaults unless told."""

_INNER = (Shape(2, 2, 4, 4), Shape(3, 3, 6, 3, "constants"), Shape(2, 1, 4, 1))
SHAPES = {
    "inner": _INNER,
    "whole": _INNER,
    "layer": (Shape(2, 2, 8, 16, "rich"), Shape(3, 2, 6, 3, "plain"), Shape(1, 3, 5, 4, "odd")),
}
"""By subject; most laws use the first."""


def widest(supports: Supports) -> str:
    """The widest dtype that is claimed of float64 and float32; float32 where none is, since every state is in it."""
    return "float64" if supports.dtypes is None or "float64" in supports.dtypes else "float32"


def shapes_within(supports: Supports, subject: str) -> tuple[Shape, ...]:
    """The shapes whose D and K are claimed; when none is, the first one with the smallest that are."""
    within = tuple(shape for shape in SHAPES[subject] if _claimed(supports, shape))
    if within:
        return within
    first = SHAPES[subject][0]
    head_dim = nearest(first.head_dim, supports.head_dims, even=True)
    return (first._replace(head_dim=head_dim, mini_batch=nearest(first.mini_batch, supports.mini_batch_sizes)),)


def _claimed(supports: Supports, shape: Shape) -> bool:
    pairs = ((shape.head_dim, supports.head_dims), (shape.mini_batch, supports.mini_batch_sizes))
    return all(claimed is None or size in claimed for size, claimed in pairs)


def nearest(size: int, claimed: Collection[int] | None, even: bool = False) -> int:
    """``size`` where it is claimed, else the smallest claimed one (RoPE wants an even D)."""
    if claimed is None or size in claimed:
        return size
    return min((other for other in claimed if not (even and other % 2)), default=size)
