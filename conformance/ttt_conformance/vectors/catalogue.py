"""Which vectors there are, in an order in which an implementation can make them pass, each with what it adds to those before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tttcore import LayerSpec

from ..cases import INNER_MODELS
from .questions import Draw, at_rest, clamped, first_part, initial, masked, masked_short, packed, packed_resumed, resumed, second_part
from .store import Question

Ask = Callable[[Draw], Question]


@dataclass(frozen=True)
class Entry:
    """A vector to be made: what is asked of which draw, and whether with gradients."""

    name: str
    about: str
    description: str
    ask: Ask
    draw: Draw
    gradients: bool = False


def _draw(
    subject: str, inner: str = "linear", heads: int = 2, head_dim: int = 4, mini_batch: int = 4, length: int | None = None, **options: Any
) -> Draw:
    """Two rows of two mini-batches and three more tokens; η₀ is 1 unless told."""
    given: dict[str, Any] = {"base_lr": 1.0} | options
    spec = LayerSpec(width=heads * head_dim, heads=heads, inner=INNER_MODELS[inner], mini_batch_size=mini_batch, **given)
    return Draw(subject, spec, 2, 2 * mini_batch + 3 if length is None else length)


USUAL = _draw("inner")
"""Of the sizes that the laws draw, so that a compiler has the programs already."""
CONSTANTS: dict[str, Any] = {"base_lr": 0.3, "eps": 1e-3}
RICH: dict[str, Any] = {"share_qk": True, "gate": True}


def _linear(name: str, about: str, description: str, ask: Ask = initial, draw: Draw = USUAL, gradients: bool = False) -> Entry:
    return Entry(f"inner-linear-{name}", about, description, ask, draw, gradients)


def _model(inner: str, name: str, description: str, ask: Ask = resumed) -> Entry:
    return Entry(f"inner-{inner}-{name}", "inner", description, ask, _draw("inner", inner), gradients=True)


def _layer(name: str, about: str, description: str, ask: Ask, gradients: bool = False, inner: str = "linear", **options: Any) -> Entry:
    return Entry(f"layer-{inner}-{name}", about, description, ask, _draw("layer", inner, **options), gradients)


CATALOGUE = (
    _linear("one-token", "definition", "a single token from the initial state", draw=replace(USUAL, length=1)),
    _linear("whole", "definition", "a mini-batch from the initial state, which ends at a border: S = 0, phase 0", draw=replace(USUAL, length=4)),
    _linear("initial", "definition", "two mini-batches and three more tokens from the initial state", gradients=True),
    _linear("resumed", "state", "the same sizes from a state inside a mini-batch, the rows at different phases", resumed, gradients=True),
    _linear("empty", "state", "no token at all: the final state is the one given", resumed, replace(USUAL, length=0)),
    _linear("cut-first", "split", "the first 6 tokens of inner-linear-initial", first_part),
    _linear("cut-second", "split", "the other tokens, from the final state of inner-linear-cut-first", second_part),
    _linear("mask", "mask", "left and inner padding in row 0, right padding in row 1; NaN in the padding, which nothing may read", masked),
    _linear("mask-short", "mask", "row 0 masked everywhere, which leaves its state alone, row 1 but for one token", masked_short),
    _linear("packed", "packed", "sequences of 1, 0, 11 and 10 tokens in one row, each from a fresh state", packed),
    _linear("packed-states", "packed", "the same, each from a state of its own, which has a row a sequence", packed_resumed),
    _linear("k1", "mini_batch_size", "K = 1: a step for every token", resumed, _draw("inner", heads=1, mini_batch=1)),
    _linear("constants", "eps, base_lr", "ε = 1e-3, η₀ = 0.3, K = 3, D = 6", resumed, _draw("inner", head_dim=6, mini_batch=3, **CONSTANTS)),
    _linear("loss", "loss", "the loss −⟨f(k), v⟩", resumed, _draw("inner", loss="inner_product")),
    _linear("rest", "rest", "learning rates of 0: S stays as it was, and W but for the step at a border", at_rest),
    _linear("clamped", "token_lr_offset", "a reader's factor held at 0: a_1 = max(0, 1/2 − 2) = 0", clamped),
    _linear("faint", "eps", "weights of size 1e-4, where ε counts", draw=replace(USUAL, flavour="faint")),
    _linear("tied", "eps", "tokens whose entries are all equal", draw=replace(USUAL, flavour="tied")),
    _linear(
        "offset",
        "definition",
        "biases of 1e3: a variance that is not taken from centred rows loses its digits",
        draw=replace(USUAL, flavour="offset"),
    ),
    _model("mlp", "initial", "TTT-MLP: a hidden layer of 4D columns and GELU", initial),
    _model("mlp", "resumed", "TTT-MLP from rows at different phases"),
    _model("swiglu", "resumed", "a hidden layer of 2D columns and SwiGLU"),
    _model("deep", "resumed", "two hidden layers, SiLU and GELU"),
    _model("bare", "resumed", "f(x) = xW: no bias, no residual, no LayerNorm"),
    _layer("initial", "views", "the layer: projections, rotation, θ = 100, output; ε = 1e-3, η₀ = 0.3", initial, True, rope_theta=100.0, **CONSTANTS),
    _layer("unrotated", "rope_theta", "no rotation", initial, rope_theta=None),
    _layer("gated", "gate", "a GELU gate on the output", initial, gate=True),
    _layer(
        "shared",
        "share_qk, conv_width",
        "one projection for q and k, convolutions of two taps, one input carried",
        resumed,
        share_qk=True,
        conv_width=2,
    ),
    _layer("resumed", "share_qk, gate", "four taps and the gate, from rows at different phases", resumed, True, **RICH),
    _layer("short", "split", "two tokens, fewer than the convolutions carry: an older input stays", resumed, length=2, **RICH),
    _layer("mask", "mask", "padding, NaN in it, which the convolutions skip", masked, **RICH),
    _layer("mask-short", "mask", "row 0 masked everywhere, row 1 but for one token", masked_short, **RICH),
    _layer("resumed", "inner", "the same around TTT-MLP", resumed, True, inner="mlp", **RICH),
)
