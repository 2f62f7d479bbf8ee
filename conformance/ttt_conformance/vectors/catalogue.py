"""Which vectors there are, in an order in which an implementation can make them pass, each with what it adds to those before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..cases import Case
from ..shapes import Shape
from . import questions
from .store import Question

USUAL, CONSTANTS, ONE = Shape(2, 2, 4, 4), Shape(1, 1, 6, 3, "constants"), Shape(2, 1, 4, 1)
"""Those that the laws draw for the inner loop: a compiler has the programs already."""


@dataclass(frozen=True)
class Entry:
    """A vector to be made: of which case, which question of it, and whether with gradients."""

    name: str
    about: str
    description: str
    case: Case
    ask: Callable[[Case], Question]
    gradients: bool = False


def _inner(
    name: str,
    about: str,
    description: str,
    ask: Callable[[Case], Question] = questions.initial,
    *,
    inner: str = "linear",
    shape: Shape = USUAL,
    length: int | None = None,
    flavour: str = "normal",
    gradients: bool = False,
) -> Entry:
    case = Case("inner", inner, "float64", shape, shape.whole if length is None else length, flavour, 100)
    return Entry(f"inner-{inner}-{name}", about, description, case, ask, gradients)


def _layer(
    name: str, about: str, description: str, ask: Callable[[Case], Question], variant: str, *, inner: str = "linear", gradients: bool = False
) -> Entry:
    shape = Shape(2, 2, 4, 4, variant)
    return Entry(f"layer-{inner}-{name}", about, description, Case("layer", inner, "float64", shape, shape.whole, "normal", 100), ask, gradients)


FRESH, RESUMED = questions.initial, questions.resumed
CATALOGUE = (
    _inner("one-token", "definition", "a single token from the initial state", length=1),
    _inner("whole", "definition", "one whole mini-batch from the initial state, which ends at a border: S = 0, phase 0", length=USUAL.mini_batch),
    _inner("initial", "definition", "two mini-batches and three more tokens from the initial state", gradients=True),
    _inner("resumed", "state", "the same sizes from a state inside a mini-batch, the rows at different phases", RESUMED, gradients=True),
    _inner("empty", "state", "no token at all: the final state is the one given", RESUMED, length=0),
    _inner("cut-first", "split", "the first 6 tokens of inner-linear-initial", questions.first_part),
    _inner("cut-second", "split", "the other tokens, from the final state of inner-linear-cut-first", questions.second_part),
    _inner("mask", "mask", "left and inner padding in row 0, right padding in row 1; NaN in the padding, which nothing may read", questions.masked),
    _inner("packed", "packed", "sequences of 1, 0, 11 and 10 tokens in one row, each from a fresh state", questions.packed),
    _inner("k1", "mini_batch_size", "K = 1: a step for every token", RESUMED, shape=ONE),
    _inner("constants", "eps, base_lr", "ε = 1e-3, η₀ = 0.3, K = 3, one head", RESUMED, shape=CONSTANTS),
    _inner("loss", "loss", "the loss −⟨f(k), v⟩", RESUMED, shape=USUAL._replace(variant="inner_product")),
    _inner("rest", "rest", "learning rates of 0: W and S stay as they were", questions.at_rest),
    _inner("clamped", "token_lr_offset", "a reader's factor held at 0: a_1 = max(0, 1/2 − 2) = 0", questions.clamped),
    _inner("faint", "eps", "weights of size 1e-4, where ε counts", flavour="faint"),
    _inner("tied", "eps", "tokens whose entries are all equal", flavour="tied"),
    _inner("initial", "inner", "TTT-MLP: a hidden layer of 4D columns and GELU", inner="mlp", gradients=True),
    _inner("resumed", "inner", "TTT-MLP from rows at different phases", RESUMED, inner="mlp", gradients=True),
    _inner("resumed", "inner", "a hidden layer of 2D columns and SwiGLU", RESUMED, inner="swiglu", gradients=True),
    _inner("resumed", "inner", "two hidden layers, SiLU and GELU", RESUMED, inner="deep", gradients=True),
    _inner("resumed", "inner", "f(x) = xW: no bias, no residual, no LayerNorm", RESUMED, inner="bare", gradients=True),
    _layer("initial", "views", "the whole layer: projections, rotation with θ = 100, output; ε = 1e-3, η₀ = 0.3", FRESH, "plain", gradients=True),
    _layer("unrotated", "rope_theta", "no rotation", FRESH, "unrotated"),
    _layer("gated", "gate", "a GELU gate on the output", FRESH, "gated"),
    _layer("shared", "share_qk, conv_width", "one projection for q and k, convolutions of two taps, one input carried", RESUMED, "shared"),
    _layer("resumed", "share_qk, gate", "four taps and the gate, from rows at different phases", RESUMED, "rich", gradients=True),
    _layer("mask", "mask", "the same with padding, NaN in it, which the convolutions skip", questions.masked, "rich"),
    _layer("resumed", "inner", "the same around TTT-MLP", RESUMED, "rich", inner="mlp", gradients=True),
)
