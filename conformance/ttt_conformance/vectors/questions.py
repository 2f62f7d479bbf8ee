"""What vectors ask: small random problems, drawn here and not by ``cases``, so that they stay what they are when the laws draw otherwise.

Numbers are float32's, so that an implementation in that precision is asked the very same; but for the state at a cut, which is the answer to the
first part.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tttcore import LayerSpec

from ..problem import Problem, reference
from .store import Question

READ = (2, 5, 1, 3)
"""Tokens that each row has read before, where there is a state: another phase for each, one of them past a border."""
CUT = 6
LENGTHS = (1, 0, 11, 10)
MASK = np.array([[0, 0, 1, 1, 0, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0]], bool)
SHORT = np.array([[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]], bool)


@dataclass(frozen=True)
class Draw:
    """A problem to be drawn: "normal", "faint" (weights of size 1e-4), "tied" (all entries of a token equal) or "offset" (biases of 1e3)."""

    subject: str
    spec: LayerSpec
    batch: int
    length: int
    flavour: str = "normal"

    def problem(self) -> Problem:
        """The problem, from the initial state."""
        rng, spec = np.random.default_rng(100), self.spec
        shapes = spec.param_shapes() if self.subject == "layer" else spec.inner_shapes()
        params = {name: _parameter(rng, name, shapes[name], self.flavour) for name in sorted(shapes)}
        return Problem(spec, params, self.tokens(rng, self.length)).map(rounded)

    def tokens(self, rng: np.random.Generator, length: int) -> tuple[np.ndarray, ...]:
        """That many tokens: x, or q, k, v and ℓ."""
        if self.subject == "layer":
            return (rng.normal(size=(self.batch, length, self.spec.width)),)
        shape = (self.batch, length, self.spec.heads, self.spec.head_dim)
        views = [rng.normal(size=shape) for _ in range(3)]
        return (*(np.repeat(x[..., :1], shape[-1], axis=-1) if self.flavour == "tied" else x for x in views), rng.uniform(0.05, 1.5, shape[:3]))


def rounded(x: np.ndarray) -> np.ndarray:
    """The nearest numbers of float32, in float64."""
    return x.astype(np.float32).astype(np.float64)


def initial(draw: Draw) -> Question:
    """The problem from its initial state."""
    return Question(draw.problem())


def resumed(draw: Draw) -> Question:
    """The problem from the state after other tokens, as many in each row as ``READ`` says."""
    problem = draw.problem()
    past = replace(problem, inputs=draw.tokens(np.random.default_rng(101), max(READ))).map(rounded)
    read = np.arange(past.length) < np.array(READ[: draw.batch])[:, None]
    return Question(replace(problem, state=reference(past, read).state).map(rounded))


def first_part(draw: Draw) -> Question:
    """The first tokens of ``initial``."""
    return Question(draw.problem().tokens(0, CUT))


def second_part(draw: Draw) -> Question:
    """The other tokens of ``initial``, from the state after the first ones."""
    return Question(replace(draw.problem().tokens(CUT), state=reference(draw.problem().tokens(0, CUT)).state))


def masked(draw: Draw, mask: np.ndarray = MASK) -> Question:
    """``resumed`` with padding: NaN in it, and 1e6 for ℓ, which may not be NaN."""
    problem = resumed(draw).problem
    holes = (np.nan, np.nan, np.nan, 1e6)
    inputs = (np.where(mask.reshape(*mask.shape, *(1,) * (x.ndim - 2)), x, hole) for x, hole in zip(problem.inputs, holes, strict=False))
    return Question(replace(problem, inputs=tuple(inputs)), mask)


def masked_short(draw: Draw) -> Question:
    """``masked``, a row everywhere and the other but for one token."""
    return masked(draw, SHORT)


def packed(draw: Draw) -> Question:
    """The tokens of ``initial`` in one row, as sequences of ``LENGTHS``."""
    problem = draw.problem()
    row = replace(problem, inputs=tuple(np.reshape(x, (1, -1, *x.shape[2:])) for x in problem.inputs))
    return Question(row, cu_seqlens=np.cumsum([0, *LENGTHS]).astype(np.int32))


def packed_resumed(draw: Draw) -> Question:
    """``packed``, each sequence from a state of its own."""
    question, past = packed(draw), resumed(replace(draw, batch=len(LENGTHS))).problem
    return question._replace(problem=replace(question.problem, state=past.state))


def at_rest(draw: Draw) -> Question:
    """``resumed`` with ℓ = 0."""
    problem = resumed(draw).problem
    return Question(replace(problem, inputs=(*problem.inputs[:3], np.zeros_like(problem.inputs[3]))))


def clamped(draw: Draw) -> Question:
    """``initial`` with an offset δ_1 below −1/2."""
    problem = draw.problem()
    offset = problem.params["token_lr_offset"].copy()
    offset[1] = -2.0
    return Question(replace(problem, params={**problem.params, "token_lr_offset": offset}))


def _parameter(rng: np.random.Generator, name: str, shape: tuple[int, ...], flavour: str) -> np.ndarray:
    """Every term of the mathematics is to show in the outputs: no parameter is 0, no LayerNorm's weight 1."""
    noise = rng.normal(size=shape)
    if flavour == "offset" and name[0] == "b":
        return 1e3 + noise
    return 1e-4 * noise if flavour == "faint" and name[0] in "Wb" else ("norm_weight" in name) + 0.4 * noise
