"""The law that holds the reference itself in place: every backend reproduces the frozen vectors, gradients included."""

from __future__ import annotations

import functools

from hypothesis import strategies as st

from ..problem import Options, answer, gradient
from ..vectors import Vector, files, load
from .law import EVERY_INNER, LAYER, Law, Trial


def check_frozen(trial: Trial, name: str) -> None:
    """One vector: y, the final state, and (where the backend has gradients, in dual form) every cotangent."""
    vector = read(name)
    got = answer(trial.backend, vector.problem, Options(trial.form))
    trial.compare(f"{name}: y and state", got, vector.truth, vector.allowed)
    if trial.backend.vjp_function is not None and trial.form == "dual":  # of the other forms, the law of gradients checks them
        found = gradient(trial.backend, vector.problem, Options(trial.form), vector.bars)
        trial.compare(f"{name}: gradients", found, vector.gradients, vector.gradients_allowed)


@functools.cache
def read(name: str) -> Vector:
    """The vector of that name."""
    return load(next(path for path in files() if path.stem == name))


def names(subject: str, inner: str, dtype: str) -> st.SearchStrategy[str]:
    """The vectors of a subject and inner model."""
    return st.sampled_from([path.stem for path in files() if path.stem.startswith(f"{subject}-{inner}-")])


FROZEN = Law(
    "frozen",
    "y, the final state and all gradients of the vectors that come with the suite, from rows at different phases",
    check_frozen,
    (EVERY_INNER, LAYER),
    draws=names,
)
