"""One vector a file: its arrays by the names of the mathematics, and what it is about, its spec included, as texts in the header.

- ``params.W1`` …; ``q k v lr`` or, of a layer, ``x``; ``mask``, ``cu_seqlens``; ``state.weights.W1`` …: the problem;
- ``y``, ``end.weights.W1`` …: the answer;
- ``y_bar``, ``end_bar.weights.W1`` …: cotangents of it, and ``grad.params.W1``, ``grad.q`` …: those of the problem;
- ``allowed.y``, ``allowed.grad.q`` …: how far each array of an answer may be off in every one of ``PRECISIONS``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tttcore import InvalidInput, LayerSpec, State
from tttcore.tree import leaves, paths, tree_map

from ..problem import Differentiable, Outcome, Problem
from ..report.files import write_whole
from .container import Content, encode, nested, read

FOLDER = Path(__file__).parent / "data"
FORMAT = "1"
"""The version of what is described here, apart from the spec's."""
PRECISIONS = ("float64", "float32")
INPUTS = {"inner": ("q", "k", "v", "lr"), "layer": ("x",)}


class Question(NamedTuple):
    """A problem, and the tokens of it that count (``mask``) or belong together (``cu_seqlens``)."""

    problem: Problem
    mask: np.ndarray | None = None
    cu_seqlens: np.ndarray | None = None


class Answer(NamedTuple):
    """y and the final state, and how far each may be off: a number for every one of ``PRECISIONS``."""

    truth: Outcome
    allowed: Outcome


class Slopes(NamedTuple):
    """Cotangents of y and of the final state (``bars``), those of the problem's arguments for them, and how far each of these may be off."""

    bars: Outcome
    gradients: Differentiable
    allowed: Differentiable


class Vector(NamedTuple):
    """A question with its answer; its law or the field of the spec that it is ``about``."""

    name: str
    about: str
    description: str
    question: Question
    answer: Answer
    slopes: Slopes | None = None

    def content(self) -> Content:
        """The vector as texts and arrays by name."""
        problem, mask, cu_seqlens = self.question
        truth, allowed = (_results(outcome) for outcome in self.answer)
        tree: dict[str, Any] = {**_arguments(problem), "mask": mask, "cu_seqlens": cu_seqlens, **truth}
        if self.slopes is not None:
            tree |= {f"{name}_bar": x for name, x in _results(self.slopes.bars).items()} | {"grad": _arguments(self.slopes.gradients)}
            allowed |= {"grad": _arguments(self.slopes.allowed)}
        tree |= {"allowed": allowed}
        arrays = dict(zip(paths(tree), leaves(tree), strict=True))
        about = {"name": self.name, "about": self.about, "description": self.description}
        order = [*(name for group in tree for name in arrays if name.partition(".")[0] == group)]
        return Content({"format": FORMAT, **about, "spec": problem.spec.to_json()}, {name: arrays[name] for name in order})

    def allowances(self, precision: str) -> tuple[Outcome, Differentiable | None]:
        """How far the answer and the gradients may be off in that precision."""
        place = PRECISIONS.index(precision)
        return tree_map(lambda x: x[place], (self.answer.allowed, None if self.slopes is None else self.slopes.allowed))


def files() -> list[Path]:
    """The vectors that come with the suite."""
    return sorted(FOLDER.glob("*.safetensors"))


def save(vector: Vector, path: Path) -> None:
    """Write the file, whole or not at all."""
    write_whole(path, encode(vector.content()))


def load(path: Path) -> Vector:
    """Read the file; ``InvalidInput`` when its format or its spec is of another version."""
    metadata, arrays = read(path)
    if (version := metadata.get("format")) != FORMAT:
        raise InvalidInput(f"{path}: format", got=version, expected=FORMAT, fix="use the vectors that come with this version of the suite")
    spec, tree = LayerSpec.from_json(metadata["spec"]), nested(arrays)
    allowed, slopes = tree["allowed"], None
    if "grad" in tree:
        bars = Outcome(tree["y_bar"], _state(tree["end_bar"]))
        slopes = Slopes(bars, _differentiable(tree["grad"]), _differentiable(allowed["grad"]))
    question = Question(Problem(spec, *_differentiable(tree)), tree.get("mask"), tree.get("cu_seqlens"))
    answer = Answer(*(Outcome(results["y"], _state(results["end"])) for results in (tree, allowed)))
    return Vector(metadata["name"], metadata["about"], metadata["description"], question, answer, slopes)


def _arguments(given: Problem | Differentiable) -> dict[str, Any]:
    names = next(names for names in INPUTS.values() if len(names) == len(given.inputs))
    return {"params": given.params, **dict(zip(names, given.inputs, strict=True)), "state": given.state}


def _results(outcome: Outcome) -> dict[str, Any]:
    return {"y": outcome.y, "end": outcome.state}


def _differentiable(tree: dict[str, Any]) -> Differentiable:
    names = INPUTS["layer" if "x" in tree else "inner"]
    return Differentiable(tree["params"], tuple(tree[name] for name in names), _state(tree.get("state")))


def _state(branch: dict[str, Any] | None) -> State | None:
    return None if branch is None else State(branch["weights"], branch["grads"], branch.get("phase"), branch.get("conv"))
