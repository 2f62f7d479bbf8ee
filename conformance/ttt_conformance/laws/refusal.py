"""The law of calls that make no sense: each is refused before anything is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from tttcore import InvalidInput, Unsupported
from tttcore.tree import tree_map

from ..cases import Case
from ..problem import Options, Problem, arguments, call_native
from .calls import unchanged
from .expected import begun
from .law import Law, Scope, Trial


class Nonsense(NamedTuple):
    """A wrong call, in the trial's form unless ``options`` have another."""

    problem: Problem
    options: Mapping[str, Any] = {}


Make = Callable[[Problem], Nonsense]
"""A right call → a wrong one."""


def check_refusal(trial: Trial, case: Case) -> None:
    """The right call is answered; every kind of nonsense made of it raises ``InvalidInput`` and leaves its arguments as they were."""
    problem = begun(case, trial.carries).problem
    trial.answer(problem)  # who refuses everything has not told nonsense from sense
    kinds = (WRONG_INNER if case.subject == "inner" else WRONG_LAYER) | (WRONG_STATE if trial.carries else {})
    for kind, make in kinds.items():
        if kind in OF_VALUES and not trial.backend.concrete(trial.backend.asarray(problem.inputs[0])):
            continue
        wrong = make(problem)
        given, kept = arguments(wrong.problem), arguments(wrong.problem)
        native = given | {"inputs": tree_map(trial.backend.asarray, given["inputs"])}
        trial.call = None
        try:
            call_native(trial.backend, wrong.problem.spec, native, Options(trial.form)._replace(**wrong.options))
        except (InvalidInput, Unsupported):  # what is not claimed may be refused for that
            trial.demand(kind, True, "", "")
        except Exception as error:
            trial.demand(kind, False, f"{type(error).__name__}: {error}", "tttcore.InvalidInput")
        else:
            trial.demand(kind, False, "an answer", "tttcore.InvalidInput")
        unchanged(trial, kept, given)
        unchanged(trial, kept["inputs"], tree_map(trial.backend.to_numpy, native["inputs"]))


def _input(index: int, change: Callable[[np.ndarray], np.ndarray]) -> Make:
    return lambda problem: Nonsense(replace(problem, inputs=tuple(change(x) if i == index else x for i, x in enumerate(problem.inputs))))


def _param(name: str, change: Callable[[np.ndarray], np.ndarray] | None, source: str = "") -> Make:
    """A parameter changed, or left out where there is no change; made from another one where there is a ``source``."""

    def wrong(problem: Problem) -> Nonsense:
        others = {key: x for key, x in problem.params.items() if key != name}
        return Nonsense(replace(problem, params=others if change is None else {**others, name: change(problem.params[source or name])}))

    return wrong


def _option(name: str, make: Callable[[Problem], Any]) -> Make:
    return lambda problem: Nonsense(problem, {name: make(problem)})


def _borders(make: Callable[[int], list[int]]) -> Make:
    """Borders of sequences in the first row alone."""

    def wrong(problem: Problem) -> Nonsense:
        row = replace(problem, inputs=tuple(x[:1] for x in problem.inputs), state=None)
        return Nonsense(row, {"cu_seqlens": np.asarray(make(row.length))})

    return wrong


def _state(change: Callable[[Any, int], Any]) -> Make:
    return lambda problem: Nonsense(replace(problem, state=change(problem.state, problem.spec.mini_batch_size)))


def _with(number: float) -> Callable[[np.ndarray], np.ndarray]:
    """The last entry replaced."""
    return lambda x: np.concatenate([x.ravel()[:-1], np.asarray([number], x.dtype)]).reshape(x.shape)


WRONG_INNER: dict[str, Make] = {
    "k one token short": _input(1, lambda x: x[:, 1:]),
    "v of another width": _input(2, lambda x: x[..., 1:]),
    "k of another dtype": _input(1, lambda x: x.astype(np.float16)),
    "q of integers": _input(0, lambda x: x.astype(np.int32)),
    "q without rows": _input(0, lambda x: x[0]),
    "a learning rate that is NaN": _input(3, _with(np.nan)),
    "an infinite learning rate": _input(3, _with(np.inf)),
    "learning rates that are integers": _input(3, lambda x: x.astype(np.int32)),
    "learning rates without heads": _input(3, lambda x: x[..., 0]),
    "no W1": _param("W1", None),
    "W1 cut": _param("W1", lambda x: x[..., 1:]),
    "b1 of integers": _param("b1", lambda x: x.astype(np.int32)),
    "an unknown parameter": _param("W0", lambda x: x, "W1"),
    "an unknown form": _option("form", lambda problem: "tertial"),
    "a mask of another length": _option("mask", lambda problem: np.ones((problem.batch, problem.length + 1), np.bool)),
    "a mask of integers": _option("mask", lambda problem: np.ones((problem.batch, problem.length), np.int32)),
    "sequences that overlap": _borders(lambda length: [0, length, length - 1, length]),
    "sequences that end early": _borders(lambda length: [0, length - 1]),
    "sequences that begin late": _borders(lambda length: [1, length]),
    "sequences of several rows": _option("cu_seqlens", lambda problem: np.asarray([0, problem.length])),
}
WRONG_LAYER: dict[str, Make] = {
    "x of another width": _input(0, lambda x: x[..., 1:]),
    "x of integers": WRONG_INNER["q of integers"],
    "no q_proj": _param("q_proj", None),
    "o_proj cut": _param("o_proj", lambda x: x[1:]),
    "a mask of integers": WRONG_INNER["a mask of integers"],
    "positions that are no integers": _option("positions", lambda problem: np.zeros((1, problem.length))),
    "positions of another length": _option("positions", lambda problem: np.zeros((problem.batch, problem.length + 1), np.int32)),
}
WRONG_STATE: dict[str, Make] = {
    "a phase of K": _state(lambda state, size: state._replace(phase=np.full_like(state.phase, size))),
    "a phase below 0": _state(lambda state, size: state._replace(phase=state.phase - size)),
    "phases that are no integers": _state(lambda state, size: state._replace(phase=state.phase.astype(np.float64))),
    "a state of other rows": _state(lambda state, size: tree_map(lambda x: np.concatenate([x, x]), state)),
    "a state without W1": _state(lambda state, size: state._replace(weights={name: x for name, x in state.weights.items() if name != "W1"})),
    "S cut": _state(lambda state, size: state._replace(grads={**state.grads, "W1": state.grads["W1"][..., 1:]})),
}
OF_VALUES = {
    *("a learning rate that is NaN", "an infinite learning rate", "a phase of K", "a phase below 0"),
    *("sequences that overlap", "sequences that end early", "sequences that begin late"),
}
"""What is told from values alone: not asked of backends that read none, because they would have to wait for a device."""
REFUSAL = Law(
    "refusal",
    "shapes, dtypes, parameters, states, masks and borders that make no sense raise InvalidInput, and nothing is changed",
    check_refusal,
    (Scope("inner", ("linear",), ("dual",)), Scope("layer", ("linear",), ("dual",))),
    allowed="nothing",
    cost=4,
)
