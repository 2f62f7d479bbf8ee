"""The run spread over processes: most of its time goes into compilers, which work on one core each."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

from tttcore import InvalidInput, get_backend

from .matrix import Cell, Effort, cells
from .report.results import Report, Result
from .runner import checked, explained_result, first_broken, run


class Share(NamedTuple):
    """Cells that belong together: they run the same compiled programs."""

    backend: str
    subject: str
    inner: str
    form: str

    def holds(self, cell: Cell) -> bool:
        """Whether the cell is one of these."""
        return (cell.subject, cell.inner, cell.form) == self[1:]


def conform_in_processes(names: list[str], effort: Effort, jobs: int, progress: Callable[[str, int], None]) -> Report:
    """``runner.conform`` on backends by name, in ``jobs`` processes; ``progress`` is told what is done, and how many cells that were.

    Raises ``InvalidInput`` when a process dies.
    """
    try:
        return _conform(names, effort, jobs, progress)
    except BrokenProcessPool as error:
        got = "one that died while it checked a law: native code that crashes, or too little memory"
        fix = "see which backend it is, with --backend one by one and --jobs 1"
        raise InvalidInput("processes", got=got, expected="processes that live", fix=fix) from error


def _conform(names: list[str], effort: Effort, jobs: int, progress: Callable[[str, int], None]) -> Report:
    started = time.perf_counter()
    by_name = {get_backend(name).name: name for name in names}
    every = cells([get_backend(name) for name in names], effort)
    shares = list(dict.fromkeys(Share(by_name[cell.backend.name], cell.subject, cell.inner, cell.form) for cell in every))
    # Not forked: threads of a framework do not survive that.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(_run_share, share, effort): share for share in shares}
        for done in as_completed(futures):
            share = futures[done]
            progress(f"{share.backend}: {share.form}, {share.subject}, {share.inner}", len(done.result()))
        found = [(share.backend, result) for future, share in futures.items() for result in future.result()]
        results = [result for _, result in found]
        explaining: dict[Future[Result], int] = {
            pool.submit(_explain, found[index][0], results[index], effort): index for index in first_broken(results)
        }
        for done in as_completed(explaining):
            results[explaining[done]] = done.result()
            progress(f"{results[explaining[done]].name}: explained", 0)
    return checked(Report(results, time.perf_counter() - started, effort.name))


def _run_share(share: Share, effort: Effort) -> list[Result]:
    return [run(cell, effort) for cell in cells([get_backend(share.backend)], effort) if share.holds(cell)]


def _explain(backend: str, broken: Result, effort: Effort) -> Result:
    return next(explained_result(cell, effort, broken) for cell in cells([get_backend(backend)], effort) if cell.name == broken.name)
