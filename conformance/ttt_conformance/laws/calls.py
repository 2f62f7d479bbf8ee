"""Laws about calls as such: the same again gives the same, arguments stay as they were, and nonsense is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from tttcore import InvalidInput, Unsupported
from tttcore.tree import leaves, paths, tree_map

from ..cases import Case, Setting, cases
from ..problem import Options, Problem, arguments, call_native
from .expected import begun
from .law import INNER, Law, Scope, Trial


def check_repeat(trial: Trial, case: Case) -> None:
    """Two calls on the same native arrays, which must be afterwards what they were before."""
    problem, backend = begun(trial)(case).problem, trial.backend
    kept, given = arguments(problem), arguments(problem)
    native = tree_map(backend.asarray, given)
    first = call_native(backend, problem.spec, native, Options(trial.form))
    noted = tree_map(lambda x: np.array(backend.to_numpy(x)), first)
    second = call_native(backend, problem.spec, native, Options(trial.form))
    unchanged(trial, kept, tree_map(backend.to_numpy, native))
    unchanged(trial, kept, given)
    for what, answer in (("second call", second), ("first answer after the second call", first)):
        for path, x, y in zip(paths(noted), leaves(tree_map(backend.to_numpy, answer)), leaves(noted), strict=True):
            trial.compare(f"{what}: {path}", x, y, np.float64(0.0))


class Nonsense(NamedTuple):
    """A case, and what is wrong with the call."""

    case: Case
    kind: str


def check_refusal(trial: Trial, drawn: Nonsense) -> None:
    """A call that makes no sense raises ``InvalidInput``, and leaves its arguments as they were."""
    problem = begun(trial)(drawn.case).problem
    wrong, options = NONSENSE[drawn.kind](problem), Options(trial.form)
    if drawn.kind == "mask of another length":
        options = options._replace(mask=np.ones((problem.batch, problem.length + 1), np.bool))
    native = tree_map(trial.backend.asarray, arguments(wrong))
    kept = tree_map(np.copy, tree_map(trial.backend.to_numpy, native))
    try:
        call_native(trial.backend, wrong.spec, native, options)
    except InvalidInput:
        trial.demand(drawn.kind, True, "", "")
    except Unsupported:
        raise
    except Exception as error:
        trial.demand(drawn.kind, False, f"{type(error).__name__}: {error}", "tttcore.InvalidInput")
    else:
        trial.demand(drawn.kind, False, "an answer", "tttcore.InvalidInput")
    unchanged(trial, kept, tree_map(trial.backend.to_numpy, native))


def unchanged(trial: Trial, before: Any, after: Any) -> None:
    """Raise ``LawBroken`` when an argument is not, bit for bit, what it was."""
    for path, x, y in zip(paths(before), leaves(before), leaves(after), strict=True):
        same = x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == np.ascontiguousarray(y).tobytes()
        trial.demand(f"{path} after the call", same, "another value", "the value from before")


def _without(problem: Problem, name: str) -> Problem:
    return replace(problem, params={key: value for key, value in problem.params.items() if key != name})


def _input(index: int, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Problem], Problem]:
    def wrong(problem: Problem) -> Problem:
        return replace(problem, inputs=tuple(change(x) if i == index else x for i, x in enumerate(problem.inputs)))

    return wrong


def _late(problem: Problem) -> Problem:
    """At a phase that there is not; without a state, one of another spec's making."""
    if problem.state is None:
        return _without(problem, "W1")
    return replace(problem, state=problem.state._replace(phase=problem.state.phase + problem.spec.mini_batch_size))


NONSENSE: dict[str, Callable[[Problem], Problem]] = {
    "k one token short": _input(1, lambda x: x[:, 1:]),
    "v of another width": _input(2, lambda x: x[..., 1:]),
    "q of integers": _input(0, lambda x: x.astype(np.int32)),
    "q without rows": _input(0, lambda x: x[0]),
    "learning rates with NaN": _input(3, lambda x: np.full_like(x, np.nan)),
    "no W1": lambda problem: _without(problem, "W1"),
    "W1 transposed and cut": lambda problem: replace(problem, params={**problem.params, "W1": problem.params["W1"][..., 1:]}),
    "an unknown parameter": lambda problem: replace(problem, params={**problem.params, "W0": problem.params["W1"]}),
    "a phase that there is not": _late,
    "mask of another length": lambda problem: problem,
}


def nonsense(setting: Setting) -> st.SearchStrategy[Nonsense]:
    """A case and a kind of nonsense."""
    return st.builds(Nonsense, cases(setting), st.sampled_from(list(NONSENSE)))


REPEAT = Law(
    "repeat",
    "the second call equals the first, bit for bit, and no argument is changed",
    check_repeat,
    (INNER, Scope("layer", forms=("dual",))),
    allowed="nothing",
)
REFUSAL = Law(
    "refusal",
    "shapes, dtypes, parameters, states and learning rates that make no sense raise InvalidInput, and nothing is changed",
    check_refusal,
    (Scope("inner", ("linear",), ("dual",)),),
    draws=nonsense,
    allowed="nothing",
)
