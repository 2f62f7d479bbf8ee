"""A problem: the arguments of one call, in NumPy; and how a backend answers it, in NumPy again.

The same laws hold for the inner loop (inputs q, k, v, ℓ) and for the whole layer (input x), so they are stated once, on problems.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from tttcore import Backend, LayerSpec, State, get_backend
from tttcore.tree import paths, tree_map

REFERENCE = get_backend("numpy")
"""Looked up once: the registry reads the metadata of every installed distribution."""


@dataclass(frozen=True)
class Problem:
    """spec, parameters and per-token inputs ``[B, T, …]``: (x,) for a layer, (q, k, v, ℓ) for the inner loop; a state or None."""

    spec: LayerSpec
    params: Mapping[str, np.ndarray]
    inputs: tuple[np.ndarray, ...]
    state: State | None = None

    @property
    def subject(self) -> str:
        """What is called: "layer" or "inner"."""
        return "layer" if len(self.inputs) == 1 else "inner"

    @property
    def named_inputs(self) -> dict[str, np.ndarray]:
        """The inputs by the names that a call gives them."""
        return dict(zip(("x",) if self.subject == "layer" else ("q", "k", "v", "lr"), self.inputs, strict=True))

    @property
    def batch(self) -> int:
        """B."""
        return self.inputs[0].shape[0]

    @property
    def length(self) -> int:
        """T."""
        return self.inputs[0].shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the inputs."""
        return self.inputs[0].dtype

    def tokens(self, start: int, stop: int | None = None) -> Problem:
        """Tokens start … stop − 1 of every row."""
        return replace(self, inputs=tuple(x[:, start:stop] for x in self.inputs))

    def row(self, index: int, valid: np.ndarray) -> Problem:
        """The valid tokens of one row, alone; valid ``[T]`` bool."""
        state = None if self.state is None else tree_map(lambda x: x[index : index + 1], self.state)
        return replace(self, inputs=tuple(x[index : index + 1, valid] for x in self.inputs), state=state)

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> Problem:
        """``function`` on every floating-point array."""

        def on_floats(x: np.ndarray) -> np.ndarray:
            return function(x) if is_floating(x) else x

        return replace(
            self,
            params=tree_map(on_floats, self.params),
            inputs=tree_map(on_floats, self.inputs),
            state=tree_map(on_floats, self.state),
        )


def is_floating(x: np.ndarray) -> bool:
    """Whether x holds floating-point numbers, bfloat16 (which NumPy does not know) included."""
    return x.dtype == ml_dtypes.bfloat16 or np.issubdtype(x.dtype, np.floating)


class Outcome(NamedTuple):
    """What a call returned, in NumPy; the state is None from a backend that has none."""

    y: np.ndarray
    state: Any


class Differentiable(NamedTuple):
    """The arguments of a call that have a cotangent, or their cotangents; a state without its phase."""

    params: dict[str, np.ndarray]
    inputs: tuple[np.ndarray, ...]
    state: State | None


def differentiable(problem: Problem) -> Differentiable:
    """The differentiable part of a problem."""
    return Differentiable(dict(problem.params), problem.inputs, None if problem.state is None else problem.state._replace(phase=None))


def argument_paths(problem: Problem) -> list[str]:
    """Where each array of ``differentiable`` stands in a call, in the order of its leaves: "params.W1", "q", "state.weights.W1"."""
    arguments = differentiable(problem)
    return [*paths({"params": arguments.params}), *problem.named_inputs, *paths({"state": arguments.state})]


def random_like(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """Normal numbers in the shape and dtype of x."""
    shape: tuple[int, ...] = x.shape
    return rng.standard_normal(shape).astype(x.dtype)


class Options(NamedTuple):
    """The optional arguments of a call."""

    form: str = "dual"
    mask: np.ndarray | None = None
    cu_seqlens: np.ndarray | None = None
    positions: np.ndarray | None = None
    """Of a layer."""


def answer(backend: Backend, problem: Problem, options: Options) -> Outcome:
    """The backend's own y and final state."""
    given = arguments(problem)
    found = call_native(backend, problem.spec, given | {"inputs": tree_map(backend.asarray, given["inputs"])}, options)
    return tree_map(lambda x: np.array(backend.to_numpy(x)), found)


def arguments(problem: Problem) -> dict[str, Any]:
    """Copies of the arrays of a call: a backend that writes into them must not change the problem."""
    return tree_map(np.copy, {"params": dict(problem.params), "inputs": problem.inputs, "state": problem.state})


def call_native(backend: Backend, spec: LayerSpec, arguments: Mapping[str, Any], options: Options) -> Outcome:
    """(y, state) as the backend's own arrays; ``inputs`` among the arguments are its own too."""
    inputs, given = arguments["inputs"], {"state": arguments["state"], "form": options.form, "mask": options.mask}
    if len(inputs) == 1:
        return Outcome(*backend.layer(spec, arguments["params"], *inputs, **given, positions=options.positions))
    return Outcome(*backend.inner(spec, arguments["params"], *inputs, **given, cu_seqlens=options.cu_seqlens))


class Call(NamedTuple):
    """One call of a backend, and what it returned."""

    problem: Problem
    options: Options
    got: Outcome


class GradientCall(NamedTuple):
    """One call of a backend's vjp: the cotangents of the results (of y alone where the state is None), and those that it returned."""

    problem: Problem
    options: Options
    bars: Outcome
    got: Differentiable


def gradient(backend: Backend, problem: Problem, options: Options, bars: Outcome) -> Differentiable:
    """The backend's cotangents of the arguments for given ones of y and of the final state."""
    given = arguments(problem)
    call: Any = backend.inner_vjp if problem.subject == "inner" else backend.layer_vjp
    found = call(
        problem.spec,
        given["params"],
        *map(backend.asarray, given["inputs"]),
        backend.asarray(bars.y),
        state=given["state"],
        state_bar=bars.state,
        form=options.form,
        mask=options.mask,
        **({} if options.cu_seqlens is None else {"cu_seqlens": options.cu_seqlens}),
    )
    params, *cotangents, state = tree_map(backend.to_numpy, tuple(found))
    return Differentiable(params, tuple(cotangents), state)


def reference(problem: Problem, mask: np.ndarray | None = None, cu_seqlens: np.ndarray | None = None) -> Outcome:
    """The NumPy reference's answer by the primal form, the definition, in the problem's own precision."""
    return answer(REFERENCE, problem, Options("primal", mask, cu_seqlens))
