"""A backend in one form on a workload: is it right, and how fast is it."""

from __future__ import annotations

import dataclasses
import multiprocessing
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tttcore import Backend, BackendUnavailable, InvalidInput, Unsupported, backends, get_backend
from tttcore.tree import leaves

from ..problem import Options, Outcome, Problem, answer, argument_paths, arguments, gradient, random_like
from .check import BACKWARD, CONFORM, TOLERANCE, Truth, WrongAnswer, errors, truth, within
from .memory import peak
from .timing import Timing, measure, waiting
from .workload import Workload

TIMED, WRONG, FAILED, NOT_CLAIMED = "timed", "wrong", "failed", "not claimed"


@dataclass(frozen=True)
class Entry:
    """A backend, as it is named, in one form."""

    backend: str
    form: str

    def __str__(self) -> str:
        """Both."""
        return f"{self.backend} ({self.form})"


@dataclass(frozen=True)
class Row:
    """What came of an entry: a status and why; errors relative to the truth, milliseconds, bytes."""

    backend: str
    form: str
    status: str
    message: str = ""
    error: float | None = None
    gradient_error: float | None = None
    forward: Timing | None = None
    both: Timing | None = None
    peak_bytes: int | None = None
    """Of the last of the calls that was timed, beyond its arguments."""

    @property
    def name(self) -> str:
        """The entry's name."""
        return str(Entry(self.backend, self.form))


def entries(names: Iterable[str], forms: Collection[str]) -> list[Entry]:
    """Each backend in the forms named; without any, in dual form, or in the first that it claims. A form that is not claimed is entered, too."""
    found: list[Entry] = []
    for name in names:
        claimed = get_backend(name).supports.forms
        found += [Entry(name, form) for form in forms or (("dual",) if "dual" in claimed else claimed[:1])]
    return found


def oracle(names: Iterable[str]) -> Backend:
    """A backend of float64 gradients among those named and those installed, for the truth; ``InvalidInput`` when there is none."""
    here = [name for name, info in backends().items() if info.available]
    for name in dict.fromkeys([*here, *names]):
        try:
            backend = get_backend(name)
        except BackendUnavailable:
            continue
        dtypes = backend.supports.dtypes
        if backend.vjp_function is not None and (dtypes is None or "float64" in dtypes) and "dual" in backend.supports.forms:
            return backend
    fix = "pip install 'tttcore[torch]' or 'tttcore[jax]', or pass --no-grad"
    raise InvalidInput("gradients", got="no backend that has them in float64", expected="one, to check the others", fix=fix)


def exam(workload: Workload, names: Iterable[str], grad: bool) -> Truth:
    """The small problem that every entry has to answer first, and its truth."""
    return truth(workload.small.problem(seed=0), oracle(names) if grad else None)


def alone(entry: Entry, workload: Workload, known: Truth, seconds: float) -> Row:
    """``contest`` in a process of its own: threads and memory of one library would slow another down."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        try:
            return pool.submit(contest, entry, workload, known, seconds).result()
        except BrokenProcessPool:
            return Row(entry.backend, entry.form, FAILED, "Its process died: native code that crashes, or too little memory.")


def contest(entry: Entry, workload: Workload, known: Truth, seconds: float) -> Row:
    """Check the entry, then time it; whatever it throws is a finding about it. Claims come first: a dtype may be none to its library."""
    backend, blank = get_backend(entry.backend), Row(entry.backend, entry.form, TIMED)
    x = known.problem.inputs[0]
    try:
        backend.supports.check(entry.backend, workload.spec, x, form=entry.form, state=None, mask=None, cu_seqlens=None)
        blank = checked(backend, blank, known)
        return timed(backend, blank, workload, seconds)
    except WrongAnswer as error:
        return dataclasses.replace(blank, status=WRONG, message=str(error))
    except Unsupported as error:
        return dataclasses.replace(blank, status=NOT_CLAIMED, message=str(error))
    except Exception as error:  # whatever a backend throws is said of it, and the others are timed
        return dataclasses.replace(blank, status=FAILED, message=f"{type(error).__name__}: {error}")


def checked(backend: Backend, row: Row, known: Truth) -> Row:
    """The row with its errors; ``WrongAnswer`` when one is too large."""
    allowed, options, problem, fix = TOLERANCE[known.problem.dtype.name], Options(row.form), known.problem, CONFORM.format(row.backend)
    error = within(row.name, errors("y", answer(backend, problem, options).y, [known.y]), allowed, fix)
    if known.gradients is None or known.y_bar is None or backend.vjp_function is None:
        return dataclasses.replace(row, error=error)
    found = gradient(backend, problem, options, Outcome(known.y_bar, None))
    gradient_errors = errors(gradient_names(problem), found, known.gradients.values())
    return dataclasses.replace(row, error=error, gradient_error=within(row.name, gradient_errors, BACKWARD * allowed, fix))


def gradient_names(problem: Problem) -> list[str]:
    """What errors call the gradients."""
    return [f"the gradient of {name}" for name in argument_paths(problem)]


def timed(backend: Backend, row: Row, workload: Workload, seconds: float) -> Row:
    """The row with its times and memory, at full size; with gradients where these have been checked."""
    problem = workload.problem(seed=1)
    given = arguments(problem)
    params = {name: backend.asarray(x) for name, x in given["params"].items()}
    inputs = [backend.asarray(x) for x in given["inputs"]]
    wait = waiting(backend)
    call = partial(backend.inner, problem.spec, params, *inputs, form=row.form)
    forward, both = measure(call, wait, seconds), None
    results = list(_finite(backend, row, ("y",), call()[:1]))
    if row.gradient_error is not None:
        y_bar = backend.asarray(random_like(np.random.default_rng(3), problem.inputs[0]))
        call = partial(backend.inner_vjp, problem.spec, params, *inputs, y_bar, form=row.form)
        both = measure(call, wait, seconds)
        results += _finite(backend, row, gradient_names(problem), call())
    device = str(getattr(results[0], "device", "unknown"))
    results.clear()

    def complete() -> Any:
        result = call()
        wait(result)
        return result

    return dataclasses.replace(row, forward=forward, both=both, peak_bytes=peak(complete, device))


def _finite(backend: Backend, row: Row, names: Iterable[str], result: Any) -> Iterator[Any]:
    """The arrays of a result at full size; ``WrongAnswer`` for one that is not finite."""
    for name, x in zip(names, leaves(result), strict=True):
        if not np.isfinite(np.asarray(backend.to_numpy(x), np.float64)).all():
            got = f"{name} of {row.name}, at full size: got numbers that are not finite; expected finite ones"
            raise WrongAnswer(f"{got}. Fix: {CONFORM.format(row.backend)}.")
        yield x
