"""What is timed: one call of the inner loop, of a size that the user names."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import ml_dtypes
import numpy as np

from tttcore import InvalidInput, LayerSpec

from ..problem import Problem

DTYPES = ("float16", "bfloat16", "float32", "float64")
CHECKED = 192
"""Tokens of a check: several blocks of whatever a backend cuts sequences into, and then a ragged tail."""


@dataclass(frozen=True)
class Workload:
    """B rows of T tokens in H heads of D channels, mini-batches of K tokens, an inner model, and the dtype of the tokens.

    Raises ``InvalidInput`` for a size below 1 and for a dtype or an inner model that is none.
    """

    batch: int = 1
    tokens: int = 2048
    heads: int = 8
    head_dim: int = 64
    mini_batch_size: int = 16
    inner: str = "linear"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        """Check every field."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int) and value < 1:
                raise InvalidInput(field.name, got=value, expected="an integer ≥ 1", fix=f"pass {field.name.replace('_', ' ')} of 1 or more")
        if self.dtype not in DTYPES:
            raise InvalidInput("dtype", got=repr(self.dtype), expected=f"one of {list(DTYPES)}", fix="pass one of these")
        _ = self.spec

    @property
    def spec(self) -> LayerSpec:
        """The layer's spec."""
        return LayerSpec(self.heads * self.head_dim, self.heads, self.inner, mini_batch_size=self.mini_batch_size, rope_theta=None)

    @property
    def positions(self) -> int:
        """Tokens of all rows."""
        return self.batch * self.tokens

    @property
    def small(self) -> Workload:
        """The size at which answers are checked: at most two rows, two heads and some mini-batches, the last of them not full."""
        size = self.mini_batch_size
        tokens = -(-CHECKED // size) * size + size // 2 + 1
        return replace(self, batch=min(2, self.batch), heads=min(2, self.heads), tokens=min(tokens, self.tokens))

    def problem(self, seed: int) -> Problem:
        """Normal tokens and gates between 0 and 1 in the dtype, parameters away from their start in float32 or wider."""
        rng, spec, shape = np.random.default_rng(seed), self.spec, (self.batch, self.tokens, self.heads, self.head_dim)
        narrow = numpy_dtype(self.dtype)
        wide = narrow if narrow.itemsize == 8 else np.dtype(np.float32)
        params = {name: lively(name, rng.standard_normal(size)).astype(wide) for name, size in spec.inner_shapes().items()}
        tokens = (rng.standard_normal(shape, np.float64 if narrow.itemsize == 8 else np.float32).astype(narrow) for _ in range(3))
        return Problem(spec, params, (*tokens, rng.random(shape[:3]).astype(narrow)))

    def __str__(self) -> str:
        """The workload in the letters of the mathematics."""
        sizes = f"B = {self.batch}, T = {self.tokens}, H = {self.heads}, D = {self.head_dim}, K = {self.mini_batch_size}"
        return f"{layer_name(self.inner)}, {sizes}, {self.dtype}"


def lively(name: str, noise: np.ndarray) -> np.ndarray:
    """A parameter near its start, from normal noise of its shape: every term of the mathematics shows in the outputs."""
    return 0.1 * noise + (1 if name.endswith("norm_weight") else 0)


def layer_name(inner: str) -> str:
    """The paper's name of the layer."""
    return {"linear": "TTT-Linear", "mlp": "TTT-MLP"}.get(inner, f"TTT ({inner})")


def numpy_dtype(name: str) -> np.dtype[Any]:
    """A dtype by name, bfloat16 (which NumPy does not know) included."""
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
