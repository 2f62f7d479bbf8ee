"""The run spread over processes: most of its time goes into compilers, which work on one core each."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from typing import NamedTuple

from tttcore import get_backend

from .matrix import Cell, Effort, cells
from .report.results import Report, Result
from .runner import checked, first_broken, run


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
    """``runner.conform`` on backends by name, in ``jobs`` processes; ``progress`` is told what is done, and how many cells that were."""
    started = time.perf_counter()
    shares = list(dict.fromkeys(Share(name, cell.subject, cell.inner, cell.form) for name in names for cell in cells([get_backend(name)], effort)))
    # Not forked: threads of a framework do not survive that.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(_run_share, share, effort): share for share in shares}
        for done in as_completed(futures):
            share = futures[done]
            progress(f"{share.backend}: {share.form}, {share.subject}, {share.inner}", len(done.result()))
        found = [(share.backend, result) for future, share in futures.items() for result in future.result()]
        results = [result for _, result in found]
        explaining: dict[Future[Result], int] = {
            pool.submit(_explain, found[index][0], results[index].name, effort): index for index in first_broken(results)
        }
        for done in as_completed(explaining):
            results[explaining[done]] = done.result()
            progress(f"{results[explaining[done]].name}: explained", 0)
    return checked(Report(results, time.perf_counter() - started, effort.name))


def _run_share(share: Share, effort: Effort) -> list[Result]:
    return [run(cell, effort) for cell in cells([get_backend(share.backend)], effort) if share.holds(cell)]


def _explain(backend: str, name: str, effort: Effort) -> Result:
    return next(run(cell, effort, explain=True) for cell in cells([get_backend(backend)], effort) if cell.name == name)
