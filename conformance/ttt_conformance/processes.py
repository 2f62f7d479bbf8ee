"""The run spread over processes: most of its time goes into compilers, which work on one core each."""

from __future__ import annotations

import itertools
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from queue import Queue

from tttcore import InvalidInput, get_backend

from .matrix import Cell, Effort, cells
from .report.results import Report, Result
from .runner import checked, explained_result, first_broken, run

FEW = 4
"""Up to that many processes, the cells of a subject and inner model stay in one, for all backends: they share the truth, which takes long, too.
With few draws it does not, and smaller shares keep all processes busy."""


def conform_in_processes(names: list[str], effort: Effort, jobs: int, progress: Callable[[str, int, int], None]) -> Report:
    """``runner.conform`` on backends by name, in ``jobs`` processes; ``progress`` is told what is begun, how many cells that are, and of how many.

    Raises ``InvalidInput`` when a process dies.
    """
    try:
        return _conform(names, effort, jobs, progress)
    except BrokenProcessPool as error:
        got = "one that died while it checked a law: native code that crashes, or too little memory"
        fix = "see which backend it is, with --backend one by one and --jobs 1"
        raise InvalidInput("processes", got=got, expected="processes that live", fix=fix) from error


def _conform(names: list[str], effort: Effort, jobs: int, progress: Callable[[str, int, int], None]) -> Report:
    started = time.perf_counter()
    # Not forked: threads of a framework do not survive that.
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(jobs, context) as pool:
        for _ in range(jobs):
            pool.submit(_import, names)  # which takes seconds: all processes begin with it at once
        every, begun = _cells(names, effort), manager.Queue()
        futures = [pool.submit(_run_share, names, effort, share, begun) for share in _shares(every, together=jobs <= FEW and not effort.few)]
        pending = set(futures)
        while pending:
            _, pending = wait(pending, timeout=0.2)
            while not begun.empty():
                progress(begun.get(), 1, len(every))
        found = {result.name: result for future in futures for result in future.result()}
        results = [found[cell.name] for cell in every]
        explaining: dict[Future[Result], int] = {pool.submit(_explain, names, results[index], effort): index for index in first_broken(results)}
        for done in as_completed(explaining):
            results[explaining[done]] = done.result()
            progress(f"{results[explaining[done]].name}: explained", 0, len(every))
    return checked(Report(results, time.perf_counter() - started, effort.name))


def _import(names: list[str]) -> None:
    for name in names:
        get_backend(name)


def _cells(names: list[str], effort: Effort) -> list[Cell]:
    return cells([get_backend(name) for name in names], effort)


def _shares(every: list[Cell], together: bool) -> list[set[str]]:
    """The names of cells that belong together, because they share the truth or compiled programs; large shares first."""

    def key(cell: Cell) -> tuple[str, ...]:
        return (cell.subject, cell.inner) if together else (cell.subject, cell.inner, cell.backend.name, cell.form)

    shares = [{cell.name for cell in share} for _, share in itertools.groupby(sorted(every, key=key), key)]
    return sorted(shares, key=len, reverse=True)


def _run_share(names: list[str], effort: Effort, share: set[str], begun: Queue[str]) -> list[Result]:
    results: list[Result] = []
    for cell in _cells(names, effort):
        if cell.name in share:
            begun.put(cell.name)
            results.append(run(cell, effort))
    return results


def _explain(names: list[str], broken: Result, effort: Effort) -> Result:
    return next(explained_result(cell, effort, broken) for cell in _cells(names, effort) if cell.name == broken.name)
