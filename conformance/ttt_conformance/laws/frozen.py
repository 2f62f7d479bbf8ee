"""The law that holds the reference itself in place: every backend reproduces the frozen vectors, gradients included.

It compares with stored numbers alone, allowances too: a mistake in the reference can neither move nor widen what is expected.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from hypothesis import strategies as st

from tttcore import Unsupported
from tttcore.tree import tree_map

from ..cases import Setting, dtypes_of
from ..problem import is_floating
from ..vectors import FOLDER, Vector, load
from ..vectors.catalogue import CATALOGUE
from .law import Law, Scope, Trial


class Frozen(NamedTuple):
    """The vectors of a cell, the dtype to answer them in, and whether the main one is enough."""

    names: tuple[str, ...]
    dtype: str
    few: bool = False

    def __str__(self) -> str:
        """Which they are."""
        return f"the frozen vectors {', '.join(self.names)} in {self.dtype}"

    def asked(self, trial: Trial) -> tuple[str, ...]:
        """All in dual form; in the others, which other laws compare with it, the main one: "-resumed", or "-initial" where there is no state."""
        ending = "-resumed" if trial.carries else "-initial"
        main = tuple(name for name in self.names if name.endswith(ending))
        return main if main and (self.few or trial.form != "dual") else self.names


def check_frozen(trial: Trial, frozen: Frozen) -> None:
    """In dual form y, the final state and, where the backend has gradients, all cotangents of every vector; in others y and state of the main one.

    ``Unsupported`` when the backend claims none of them.
    """
    refused: list[Unsupported] = []
    names = frozen.asked(trial)
    for name in names:
        try:
            check_vector(trial, read(name), frozen.dtype)
        except Unsupported as error:
            refused.append(error)
    if len(refused) == len(names):
        raise refused[0]


def check_vector(trial: Trial, vector: Vector, dtype: str) -> None:
    """y, the final state, and (where the backend has gradients, in dual form) every cotangent, computed in that dtype."""
    problem, mask, cu_seqlens = vector.question
    narrow = dtypes_of(dtype)[0]
    problem = problem.map(lambda x: x.astype(narrow))
    allowed, allowed_slopes = vector.allowances(dtype)
    got = trial.answer(problem, mask, cu_seqlens)
    trial.compare(f"{vector.name}: y and state", got, vector.answer.truth, allowed)
    if vector.slopes is not None and trial.backend.vjp_function is not None and trial.form == "dual" and trial.carries:
        bars = tree_map(lambda x: x.astype(narrow) if is_floating(x) else x, vector.slopes.bars)
        found = trial.gradient(problem, bars, mask, cu_seqlens)
        trial.compare(f"{vector.name}: gradients", found, vector.slopes.gradients, allowed_slopes)


@functools.cache
def read(name: str) -> Vector:
    """The vector of that name."""
    return load(FOLDER / f"{name}.safetensors")


def vectors(setting: Setting) -> st.SearchStrategy[Frozen]:
    """All vectors of a subject and inner model, the simplest first."""
    names = tuple(entry.name for entry in CATALOGUE if entry.name.startswith(f"{setting.subject}-{setting.inner}-"))
    return st.just(Frozen(names, setting.dtype, setting.few))


FROZEN = Law(
    "frozen",
    "y, the final state and the gradients of the vectors that come with the suite",
    check_frozen,
    (
        Scope("inner", ("linear", "mlp", "swiglu")),
        Scope("inner", ("deep", "bare"), ("dual",)),
        Scope("layer", forms=("dual",)),
        Scope("inner", ("deep", "bare"), ("primal", "decode"), deep=True),
        Scope("layer", forms=("primal", "decode"), deep=True),
    ),
    draws=vectors,
    allowed="what the vectors say, which the rule gave when they were made",
    quick="dual",
)
