"""What the laws are checked on: hypothesis draws a case, a case makes a problem; the same case always makes the same problem."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from tttcore import Hidden, LayerSpec, Stack, init

from .corpus import excerpts
from .problem import Problem

SUBJECTS = ("inner", "layer")
"""The inner loop on random q, k, v, ℓ; the layer on real input, the text of the standard library as bytes, embedded."""

INNER_MODELS: dict[str, str | Stack] = {"linear": "linear", "mlp": "mlp", "swiglu": Stack((Hidden(2, "swiglu"),))}

FLAVOURS = ("normal", "faint", "tied", "loud")
"""normal; faint: pre-activations of size 1e-4, where ε counts; tied: rows of equal entries; loud: inputs of size 30."""

# Few shapes, many values: compilers work per shape.
SHAPES = {"inner": ((2, 2, 4, 4), (1, 1, 6, 3), (2, 1, 4, 1)), "layer": ((2, 2, 8, 16), (1, 2, 6, 3))}
"""(B, H, D, K) by subject; most laws use the first."""


@dataclass(frozen=True)
class Case:
    """Everything that a problem is made from."""

    subject: str
    inner: str
    dtype: str
    shape: tuple[int, int, int, int]
    length: int
    flavour: str
    seed: int

    @property
    def usual(self) -> bool:
        """Whether the case is of its subject's first shape, with two mini-batches and a ragged tail."""
        return (self.shape, self.length) == _whole(SHAPES[self.subject][0])

    @property
    def spec(self) -> LayerSpec:
        """The layer's spec: shared Q/K, convolutions and gate in layers of the first shape."""
        _, heads, head_dim, size = self.shape
        rich = self.subject == "layer" and self.shape == SHAPES["layer"][0]
        return LayerSpec(
            width=heads * head_dim, heads=heads, inner=INNER_MODELS[self.inner], mini_batch_size=size, base_lr=1.0, share_qk=rich, gate=rich
        )

    def rng(self, purpose: int = 0) -> np.random.Generator:
        """Random numbers of this case; another purpose, other numbers."""
        return np.random.default_rng([self.seed, purpose])

    def problem(self) -> Problem:
        """The problem, in the case's dtype."""
        rng, spec, batch = self.rng(), self.spec, self.shape[0]
        params = {name: _lively(rng, name, value, self.flavour) for name, value in init(spec, self.seed, np.float64).items()}
        if self.subject == "inner":
            shape = (batch, self.length, spec.heads, spec.head_dim)
            q, k, v = (_flavoured(rng.normal(size=shape), self.flavour) for _ in range(3))
            inputs = (q, k, v, rng.uniform(0.05, 0.95, shape[:3]))
            params = {name: params[name] for name in spec.inner_shapes()}
        else:
            embedding = rng.normal(size=(256, spec.width))
            inputs = (_flavoured(embedding[excerpts(rng, batch, self.length)], self.flavour),)
        return Problem(spec, params, inputs).map(lambda x: x.astype(self.dtype))


def cases(subject: str, inner: str, dtype: str) -> st.SearchStrategy[Case]:
    """Cases of two mini-batches and a ragged tail, of one shape."""
    return _cases(subject, inner, dtype, [_whole(SHAPES[subject][0])])


def cases_of_all_shapes(subject: str, inner: str, dtype: str) -> st.SearchStrategy[Case]:
    """As ``cases``, of all shapes, and for the inner loop of the lengths that matter to a mini-batch: 0, 1, K − 1, K, K + 1, 2K + 3.

    For TTT-Linear: the shapes of other inner models are the same to whatever cuts sequences into mini-batches.
    """
    first, *others = SHAPES[subject]
    if inner != "linear":
        return cases(subject, inner, dtype)
    lengths = (0, 1, first[3] - 1, first[3], first[3] + 1) if subject == "inner" else ()
    return _cases(subject, inner, dtype, [_whole(first), *map(_whole, others), *((first, length) for length in lengths)])


def _whole(shape: tuple[int, int, int, int]) -> tuple[tuple[int, int, int, int], int]:
    return shape, 2 * shape[3] + 3


def _cases(subject: str, inner: str, dtype: str, sizes: list[tuple[tuple[int, int, int, int], int]]) -> st.SearchStrategy[Case]:
    def build(size: tuple[tuple[int, int, int, int], int], flavour: str, seed: int) -> Case:
        return Case(subject, inner, dtype, *size, flavour, seed)

    return st.builds(build, st.sampled_from(sizes), st.sampled_from(FLAVOURS), st.integers(0, 2**31))


def _flavoured(x: np.ndarray, flavour: str) -> np.ndarray:
    if flavour == "tied":
        return np.broadcast_to(x[..., :1], x.shape)
    return 30 * x if flavour == "loud" else x


def _lively(rng: np.random.Generator, name: str, value: np.ndarray, flavour: str) -> np.ndarray:
    """Parameters away from their start, so that every term of the mathematics shows in the outputs."""
    noise = rng.normal(size=value.shape)
    return 1e-4 * noise if flavour == "faint" and name[0] in "Wb" else value + 0.4 * noise
