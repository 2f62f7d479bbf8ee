"""The run itself: the laws of a cell on hypothesis draws; of every broken law the smallest failure is looked for and explained."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable
from types import NoneType
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Flaky, FlakyFailure

from tttcore import Backend, InvalidInput, Unsupported, get_backend

from .explain.failure import explained
from .explain.minimise import smallest
from .laws import LawBroken, Trial
from .matrix import EFFORTS, Cell, Effort, cells
from .problem import REFERENCE
from .report.results import BROKEN, HOLDS, NOT_CLAIMED, Report, Result

UNSTEADY = "; but not when it was run again on the same numbers: the backend is not deterministic"


def conform(
    backends: Backend | str | Iterable[Backend | str],
    effort: str | Effort = "default",
    *,
    progress: Callable[[Cell], None] | None = None,
) -> Report:
    """Check every law on every backend, in this process; the draws are the same on every run.

    ``backends``: objects, registered names or "package.module:OBJECT"; ``effort``: "quick", "default", "deep" or an ``Effort``; ``progress`` is
    called with each cell before it runs. The first failure of each law is made as small as it can be and explained. Raises ``InvalidInput``
    when nothing at all can be compared on one of the backends, ``BackendUnavailable`` when a named one cannot be loaded.
    """
    started = time.perf_counter()
    size = effort_of(effort) if isinstance(effort, str) else effort
    several = [backends] if isinstance(backends, (Backend, str)) else backends
    chosen = [get_backend(backend) if isinstance(backend, str) else backend for backend in several]
    every = cells(chosen, size)
    results: list[Result] = []
    for cell in every:
        if progress is not None:
            progress(cell)
        results.append(run(cell, size))
    for index in first_broken(results):
        results[index] = explained_result(every[index], size, results[index])
    return checked(Report(results, time.perf_counter() - started, size.name))


def first_broken(results: list[Result]) -> list[int]:
    """Where the first failure of each backend and law stands."""
    first: dict[tuple[str, str], int] = {}
    for index, result in enumerate(results):
        if result.status == BROKEN:
            first.setdefault((result.backend, result.law), index)
    return list(first.values())


def effort_of(name: str, max_examples: int | None = None) -> Effort:
    """The effort of that name, with that many draws if told."""
    if name not in EFFORTS:
        raise InvalidInput("effort", got=repr(name), expected=f"one of {list(EFFORTS)}", fix="use one of these")
    effort = EFFORTS[name]
    if max_examples is None:
        return effort
    return dataclasses.replace(effort, name=f"{effort.name}, {max_examples} example{'s' * (max_examples > 1)}", examples=max_examples)


def checked(report: Report) -> Report:
    """The report, if it proves anything about each backend; else ``InvalidInput``."""
    if not report.results:
        raise InvalidInput("backends", got="none", expected="at least one", fix="install one, or name one with --backend")
    if report.unchecked:
        first = next(result for result in report.results if result.backend == report.unchecked[0])
        got = f"nothing to compare on {', '.join(report.unchecked)}: every law is outside its claims (first: {first.message})"
        raise InvalidInput("claims", got=got, expected="at least one law that can be checked", fix="claim what the backend can do, in Supports")
    return report


def _outside(cell: Cell) -> str:
    """Why the cell is outside the backend's claims, if that can be said before any call."""
    if cell.law.gradients and cell.backend.vjp_function is None:
        return f"backend {cell.backend.name!r} has no gradients"
    if cell.dtype == "bfloat16" and cell.backend.array_type is np.ndarray:
        return f"backend {cell.backend.name!r} is called with NumPy arrays, and NumPy has no bfloat16"
    if cell.subject == "whole" and "whole" not in cell.backend.supports.read_out:
        return f"backend {cell.backend.name!r} does not support read_out: got 'whole'; expected one of {list(cell.backend.supports.read_out)}"
    claimed = cell.backend.supports.dtypes
    if claimed is not None and cell.dtype not in claimed:
        return f"backend {cell.backend.name!r} does not support dtype: got {cell.dtype!r}; expected one of {list(claimed)}"
    return ""


def explained_result(cell: Cell, effort: Effort, broken: Result) -> Result:
    """The broken result of a cell with its smallest failure, from a second run; still broken should that one hold."""
    again = run(cell, effort, explain=True)
    if again.status != BROKEN:
        return dataclasses.replace(broken, message=broken.message.removesuffix(UNSTEADY) + UNSTEADY)
    return dataclasses.replace(broken, message=again.message, failure=again.failure, seconds=broken.seconds + again.seconds)


def run(cell: Cell, effort: Effort, explain: bool = False) -> Result:
    """One box: the law on hypothesis draws, up to its first failure; to ``explain`` it, shrunk to its smallest."""
    trial, refused, drawn_last = Trial(cell.backend, cell.form, effort.few), "", None
    examples = 0

    @settings(
        max_examples=max(1, effort.examples // cell.law.cost),
        database=None,
        deadline=None,
        derandomize=True,
        phases=(Phase.generate, Phase.shrink) if explain else (Phase.generate,),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
        print_blob=False,
        report_multiple_bugs=False,
    )
    @given(cell.law.draws(cell.setting(effort)))
    def holds(drawn: Any) -> None:
        nonlocal examples, refused, drawn_last
        examples, drawn_last = examples + 1, drawn
        try:
            cell.law.check(trial, drawn)
        except Unsupported as error:
            refused = refused or str(error)

    started = time.perf_counter()
    status, message, failure = HOLDS, "", None
    if reason := _outside(cell):
        status, message = NOT_CLAIMED, reason
    else:
        try:
            holds()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever a backend throws is a finding about that backend
            found = error.exceptions[0] if isinstance(error, FlakyFailure) else error
            if explain:
                drawn_last, found = smallest(drawn_last, found, lambda drawn: _breaks(cell, effort, drawn))
                failure = explained(cell, drawn_last, found)
            kind = "" if isinstance(found, LawBroken) else f"{type(found).__name__}: "
            status, message = BROKEN, f"{kind}{found}{UNSTEADY if isinstance(error, Flaky) else ''}"
        if status == HOLDS and refused and not trial.comparisons:
            status, message = NOT_CLAIMED, refused
    seconds = time.perf_counter() - started
    names = (cell.backend.name, cell.law.name, cell.form, cell.subject, cell.inner, cell.dtype)
    return Result(*names, status, trial.worst, trial.comparisons, examples, seconds, message, trial.shares, trial.curve, failure)


def _breaks(cell: Cell, effort: Effort, drawn: Any) -> BaseException | None:
    """How the law breaks on what was drawn, or None; also where it breaks on the reference, which tells nothing about the backend."""
    found = _raised(cell, cell.backend, effort, drawn)
    return found if found is None or isinstance(_raised(cell, REFERENCE, effort, drawn), (Unsupported, NoneType)) else None


def _raised(cell: Cell, backend: Backend, effort: Effort, drawn: Any) -> BaseException | None:
    try:
        cell.law.check(Trial(backend, cell.form, effort.few), drawn)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return error
    return None
