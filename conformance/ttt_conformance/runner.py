"""Backends × laws × forms × subjects: the run itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from hypothesis import HealthCheck, Phase, given, settings

from tttcore import Backend, Unsupported

from .laws import LAWS, Law, LawBroken, Scope, Trial
from .results import BROKEN, HOLDS, NOT_CLAIMED, Report, Result

DTYPES = ("float64", "float32")
MAX_EXAMPLES = 8


@dataclass(frozen=True)
class Cell:
    """One box of the matrix."""

    backend: Backend
    law: Law
    form: str
    subject: str
    inner: str
    dtype: str


def cells(backends: Iterable[Backend]) -> list[Cell]:
    """Every box of the matrix, all laws of a spec and form together: a compiler that keeps few programs then compiles each once."""
    backends = list(backends)
    names = [backend.name for backend in backends]
    every = [
        Cell(backend, law, form, scope.subject, inner, dtype)
        for backend in backends
        for law in LAWS.values()
        for scope in law.scopes
        for dtype in _dtypes(backend, scope)
        for inner in scope.inner
        for form in scope.forms
    ]
    return sorted(every, key=lambda cell: (names.index(cell.backend.name), cell.subject, cell.inner, cell.form))


def _dtypes(backend: Backend, scope: Scope) -> tuple[str, ...]:
    """The dtypes to check a law in: those that the backend claims, for most laws the widest of them."""
    claimed = tuple(dtype for dtype in DTYPES if backend.supports.dtypes is None or dtype in backend.supports.dtypes)
    return claimed if scope.every_dtype else claimed[:1]


def conform(backends: Iterable[Backend], max_examples: int = MAX_EXAMPLES, progress: Callable[[Cell], None] | None = None) -> Report:
    """Check every law on every backend; ``progress`` is called with each cell before it runs.

    ``max_examples``: hypothesis draws of a plain law in a cell; dear laws get their share of it. The draws are the same on every run.
    """
    started = time.perf_counter()
    return Report(list(_results(cells(backends), max_examples, progress)), time.perf_counter() - started)


def _results(every: list[Cell], max_examples: int, progress: Callable[[Cell], None] | None) -> Iterator[Result]:
    for cell in every:
        if progress is not None:
            progress(cell)
        yield run(cell, max_examples)


def run(cell: Cell, max_examples: int) -> Result:
    """One box: the law on hypothesis draws, shrunk to its smallest failure."""
    trial = Trial(cell.backend, cell.form)
    refused: list[str] = []

    @settings(
        max_examples=max(1, max_examples // cell.law.cost),
        database=None,
        deadline=None,
        derandomize=True,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
        print_blob=False,
    )
    @given(cell.law.draws(cell.subject, cell.inner, cell.dtype))
    def holds(drawn: object) -> None:
        try:
            cell.law.check(trial, drawn)
        except Unsupported as error:
            refused.append(str(error))

    started = time.perf_counter()
    status, message = HOLDS, ""
    if cell.law.gradients and cell.backend.vjp_function is None:
        status, message = NOT_CLAIMED, f"backend {cell.backend.name!r} has no gradients"
    else:
        try:
            holds()
        except LawBroken as error:
            status, message = BROKEN, "\n".join([str(error), *getattr(error, "__notes__", [])])
        except Exception as error:  # whatever a backend throws is a finding about that backend
            status, message = BROKEN, "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])])
        if status == HOLDS and refused and not trial.comparisons:
            status, message = NOT_CLAIMED, refused[0]
    seconds = time.perf_counter() - started
    names = (cell.backend.name, cell.law.name, cell.form, cell.subject, cell.inner, cell.dtype)
    return Result(*names, status, trial.worst, trial.comparisons, seconds, message)
