"""What the laws are checked on: hypothesis draws a case, a case makes a problem; the same case always makes the same problem."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

from tttcore import Hidden, LayerSpec, Stack, Supports, init

from .corpus import excerpts
from .problem import Problem
from .shapes import SHAPES, VARIANTS, Shape, Sized, shapes_within, widest

INNER_MODELS: dict[str, str | Stack] = {
    "linear": "linear",
    "mlp": "mlp",
    "swiglu": Stack((Hidden(2, "swiglu"),)),
    "deep": Stack((Hidden(1, "silu"), Hidden(2, "gelu"))),
    "bare": Stack(bias=False, residual_norm=False),
}

FLAVOURS = ("normal", "faint", "tied", "loud", "offset")
"""normal; faint: pre-activations of size 1e-4, where ε counts; tied: rows of equal entries; loud: inputs of size 30; offset: LayerNorm's rows have
a mean of 1e3."""
HOSTILE = ("zero", "denormal", "tiny", "huge", "steep")
"""zero: all tokens 0; denormal, tiny (1e-10) and huge (an eighth of the dtype's exponents) tokens; steep: steps a thousand times too long."""


@dataclass(frozen=True)
class Case:
    """Everything that a problem is made from."""

    subject: str
    inner: str
    dtype: str
    shape: Shape
    length: int
    flavour: str
    seed: int
    others: tuple[Sized, ...] = ()
    """Sizes that it is also to be checked at, each in the next flavour, from the next seed."""

    @property
    def family(self) -> tuple[Case, ...]:
        """The case and, if it is of the usual size, its others, each standing alone."""
        turned = itertools.islice(itertools.cycle(FLAVOURS), FLAVOURS.index(self.flavour) + 1, None)
        others = zip(self.others if self.usual else (), turned, itertools.count(self.seed + 1), strict=False)
        alone = replace(self, others=())
        return (alone, *(replace(alone, shape=shape, length=length, flavour=flavour, seed=seed) for (shape, length), flavour, seed in others))

    @property
    def usual(self) -> bool:
        """Whether the case is of its subject's first shape, with two mini-batches and a ragged tail."""
        return self.shape == SHAPES[self.subject][0] and self.length == self.shape.whole

    @property
    def read_out(self) -> str:
        """The spec's."""
        return "whole" if self.subject == "whole" else "causal"

    @property
    def spec(self) -> LayerSpec:
        """The layer's spec."""
        shape = self.shape
        options: dict[str, Any] = {"base_lr": 1.0, "read_out": self.read_out} | VARIANTS[shape.variant]
        return LayerSpec(
            width=shape.heads * shape.head_dim, heads=shape.heads, inner=INNER_MODELS[self.inner], mini_batch_size=shape.mini_batch, **options
        )

    def __str__(self) -> str:
        """The case in the letters of the mathematics."""
        batch, heads, head_dim, size, _ = self.shape
        return f"B = {batch}, T = {self.length}, H = {heads}, D = {head_dim}, K = {size}, {self.flavour} input, seed {self.seed}"

    def rng(self, purpose: int = 0) -> np.random.Generator:
        """Random numbers of this case; another purpose, other numbers."""
        return np.random.default_rng([self.seed, purpose])

    def problem(self) -> Problem:
        """The problem, tokens in the case's dtype, parameters too if that has float32's width at least."""
        rng, spec, batch = self.rng(), self.spec, self.shape.batch
        params = {name: _lively(rng, name, value, self.flavour) for name, value in init(spec, self.seed, np.float64).items()}
        last = f"b{len(spec.inner_model.hidden) + 1}"
        if self.flavour == "offset" and last in params:
            params[last] = params[last] + 1e3
        dtype, wide = dtypes_of(self.dtype)
        if self.subject != "layer":
            shape = (batch, self.length, spec.heads, spec.head_dim)
            q, k, v = (_flavoured(rng.normal(size=shape), self.flavour, wide) for _ in range(3))
            inputs = (q, k, v, rng.uniform(-0.25, 1.5, shape[:3]))
            params = {name: params[name] for name in spec.inner_shapes()}
        else:
            embedding = rng.normal(size=(256, spec.width))
            inputs = (_flavoured(embedding[excerpts(rng, batch, self.length)], self.flavour, wide),)
        params = {name: value.astype(wide) for name, value in params.items()}
        return Problem(spec, params, tuple(x.astype(dtype) for x in inputs))


def dtypes_of(name: str) -> tuple[np.dtype[Any], np.dtype[Any]]:
    """The dtype of tokens by name, and the one of parameters and states that goes with it: float32 at the least."""
    dtype = np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)
    return dtype, dtype if dtype.itemsize >= 4 else np.dtype(np.float32)


@dataclass(frozen=True)
class Setting:
    """What a cell of the matrix fixes of its cases: also the claims, which bound the sizes, and whether ``few`` shapes are enough."""

    subject: str
    inner: str
    dtype: str
    supports: Supports
    few: bool = False

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The shapes to draw from; most laws use the first one."""
        within = shapes_within(self.supports, self.subject)
        return within[:1] if self.few else within


def cases(setting: Setting, shapes: tuple[Shape, ...] = ()) -> st.SearchStrategy[Case]:
    """Cases of two mini-batches and a ragged tail, of the first shape or of other ``shapes``."""
    return _cases(setting, list(map(_whole, shapes or setting.shapes[:1])), FLAVOURS)


def hostile_cases(setting: Setting) -> st.SearchStrategy[Case]:
    """As ``cases``, of hostile numbers."""
    return _cases(setting, [_whole(setting.shapes[0])], HOSTILE)


def families(setting: Setting) -> st.SearchStrategy[Case]:
    """As ``cases``, each in every flavour; those of TTT-Linear at all shapes, too, and in the inner loop at T = 0, 1, K − 1, K, K + 1.

    In the widest dtype: sizes of other dtypes and inner models are the same to whatever cuts sequences into mini-batches.
    """
    first, *further = setting.shapes
    if setting.few:
        return cases(setting)
    others = [_whole(first)] * (len(FLAVOURS) - 1)
    if setting.inner == "linear" and setting.dtype == widest(setting.supports):
        others += map(_whole, further)
        size = first.mini_batch
        others += [(first, length) for length in (0, 1, size - 1, size, size + 1)] if setting.subject != "layer" else []
    return cases(setting).map(lambda case: replace(case, others=tuple(others)))


def _whole(shape: Shape) -> Sized:
    return shape, shape.whole


def _cases(setting: Setting, sizes: list[Sized], flavours: tuple[str, ...]) -> st.SearchStrategy[Case]:
    def build(size: Sized, flavour: str, seed: int) -> Case:
        return Case(setting.subject, setting.inner, setting.dtype, *size, flavour, seed)

    return st.builds(build, st.sampled_from(sizes), st.sampled_from(flavours), st.integers(0, 2**31))


def _flavoured(x: np.ndarray, flavour: str, dtype: np.dtype[Any]) -> np.ndarray:
    if flavour == "tied":
        return np.broadcast_to(x[..., :1], x.shape)
    smallest, largest = (float(number) for number in (np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max))
    size = {"loud": 30.0, "zero": 0.0, "denormal": 8 * smallest, "tiny": 1e-10, "huge": largest**0.125}.get(flavour, 1.0)
    return size * x


def _lively(rng: np.random.Generator, name: str, value: np.ndarray, flavour: str) -> np.ndarray:
    """Parameters away from their start, so that every term of the mathematics shows in the outputs."""
    noise = rng.normal(size=value.shape)
    if flavour == "steep" and name == "token_lr_offset":
        return value + 1e3
    return 1e-4 * noise if flavour == "faint" and name[0] in "Wb" else value + 0.4 * noise
