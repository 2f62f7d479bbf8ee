"""One vector a safetensors file: float64 arrays under dotted paths, and the spec as JSON in the header."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file  # pyright: ignore[reportUnknownVariableType] (its annotations are partial)

from tttcore import LayerSpec, State
from tttcore.tree import leaves, paths

from ..problem import Differentiable, Outcome, Problem

FOLDER = Path(__file__).parent


class Vector(NamedTuple):
    """A problem, its answer, and the cotangents of its arguments for given ones (``bars``) of its results; ``…allowed`` bounds errors."""

    problem: Problem
    truth: Outcome
    allowed: Outcome
    bars: Outcome
    gradients: Differentiable
    gradients_allowed: Differentiable


def files() -> list[Path]:
    """The vectors that come with the suite."""
    return sorted(FOLDER.glob("*.safetensors"))


def save(vector: Vector, path: Path) -> None:
    """Write the file."""
    problem = {"params": vector.problem.params, "inputs": vector.problem.inputs, "state": vector.problem.state}
    arrays = {"problem." + name: x for name, x in _named(problem)} | dict(_named(tuple(vector[1:]), vector._fields[1:]))
    save_file({name: np.array(x, order="C") for name, x in arrays.items()}, path, metadata={"spec": vector.problem.spec.to_json()})


def load(path: Path) -> Vector:
    """Read the file; ``InvalidInput`` when its spec is of another version."""
    with cast("Any", safe_open(path, "numpy")) as file:
        spec = LayerSpec.from_json(file.metadata()["spec"])
        nested: dict[str, Any] = {}
        for name in file.keys():  # noqa: SIM118 (a handle, not a dict)
            *folders, last = name.split(".")
            branch = nested
            for folder in folders:
                branch = branch.setdefault(folder, {})
            branch[last] = file.get_tensor(name)
    problem = _arguments(nested["problem"])
    truth, allowed, bars = (_results(nested[field]) for field in ("truth", "allowed", "bars"))
    gradients, gradients_allowed = (_arguments(nested[field]) for field in ("gradients", "gradients_allowed"))
    return Vector(Problem(spec, problem.params, problem.inputs, problem.state), truth, allowed, bars, gradients, gradients_allowed)


def _named(tree: Any, fields: tuple[str, ...] | None = None) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of a tree by path; ``fields`` names its first level."""
    if fields is not None:
        tree = dict(zip(fields, tree, strict=True))
    return zip(paths(tree), leaves(tree), strict=True)


def _arguments(branch: dict[str, Any]) -> Differentiable:
    inputs = branch["inputs"]
    return Differentiable(branch["params"], tuple(inputs[str(index)] for index in range(len(inputs))), _state(branch.get("state")))


def _results(branch: dict[str, Any]) -> Outcome:
    state = _state(branch["state"])
    assert state is not None, "every result has a state"
    return Outcome(branch["y"], state)


def _state(branch: dict[str, Any] | None) -> State | None:
    return None if branch is None else State(branch["weights"], branch["grads"], branch.get("phase"), branch.get("conv"))
