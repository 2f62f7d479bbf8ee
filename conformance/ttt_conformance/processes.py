"""The run spread over processes: most of its time goes into compilers, which work on one core each."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import NamedTuple

from tttcore import get_backend

from .results import Report, Result
from .runner import Cell, cells, run


class Share(NamedTuple):
    """Cells that belong together: they run the same compiled programs."""

    backend: str
    subject: str
    inner: str
    form: str

    def holds(self, cell: Cell) -> bool:
        """Whether the cell is one of these."""
        return (cell.subject, cell.inner, cell.form) == self[1:]


def conform_in_processes(names: list[str], max_examples: int, jobs: int, progress: Callable[[Share, int], None]) -> Report:
    """``runner.conform`` on backends by name, in ``jobs`` processes; ``progress`` gets each share of the cells when it is done, and its size."""
    started = time.perf_counter()
    shares = list(dict.fromkeys(Share(name, cell.subject, cell.inner, cell.form) for name in names for cell in cells([get_backend(name)])))
    # Not forked: threads of a framework do not survive that.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(_run_share, share, max_examples): share for share in shares}
        for done in as_completed(futures):
            progress(futures[done], len(done.result()))
        results = [result for future in futures for result in future.result()]
    return Report(results, time.perf_counter() - started)


def _run_share(share: Share, max_examples: int) -> list[Result]:
    return [run(cell, max_examples) for cell in cells([get_backend(share.backend)]) if share.holds(cell)]
