"""The law that holds the reference itself in place: every backend reproduces the frozen vectors, gradients included."""

from __future__ import annotations

import functools

from hypothesis import strategies as st

from ..cases import Setting
from ..vectors import Vector, files, load
from .law import LAYER, Law, Scope, Trial


def check_frozen(trial: Trial, name: str) -> None:
    """One vector: y, the final state, and (where the backend has gradients, in dual form) every cotangent."""
    vector = read(name)
    got = trial.answer(vector.problem)
    trial.compare(f"{name}: y and state", got, vector.truth, vector.allowed)
    if trial.backend.vjp_function is not None and trial.form == "dual":  # of the other forms, the law of gradients checks them
        found = trial.gradient(vector.problem, vector.bars)
        trial.compare(f"{name}: gradients", found, vector.gradients, vector.gradients_allowed)


@functools.cache
def read(name: str) -> Vector:
    """The vector of that name."""
    return load(next(path for path in files() if path.stem == name))


def names(setting: Setting) -> st.SearchStrategy[str]:
    """The vectors of a subject and inner model."""
    return st.sampled_from([path.stem for path in files() if path.stem.startswith(f"{setting.subject}-{setting.inner}-")])


FROZEN = Law(
    "frozen",
    "y, the final state and all gradients of the vectors that come with the suite, from rows at different phases",
    check_frozen,
    (Scope("inner", ("linear", "mlp", "swiglu")), LAYER),
    draws=names,
    quick="dual",
)
