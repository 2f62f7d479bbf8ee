"""How long a call takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tttcore import Backend
from tttcore.tree import leaves

LEAST, MOST = 3, 1000
"""Repeats of a call."""


class Timing(NamedTuple):
    """Milliseconds of a call: the median of its repeats, and the quantiles of 20 % and 80 %."""

    median: float
    low: float
    high: float
    repeats: int


def summary(milliseconds: Sequence[float]) -> Timing:
    """The timing of repeats."""
    low, high = (float(np.quantile(milliseconds, share)) for share in (0.2, 0.8))
    return Timing(statistics.median(milliseconds), low, high, len(milliseconds))


def measure(call: Callable[[], Any], wait: Callable[[Any], None], seconds: float, clock: Callable[[], float] = time.perf_counter) -> Timing:
    """Repeats of call for about ``seconds``, each from call to wait(what it returned); before them two that do not count.

    The first of those compiles; the second finds caches as they will be.
    """
    for _ in range(2):
        wait(call())
    found: list[float] = []
    start = clock()
    while len(found) < LEAST or (clock() - start < seconds and len(found) < MOST):
        begun = clock()
        wait(call())
        found.append(1e3 * (clock() - begun))
    return summary(found)


def waiting(backend: Backend) -> Callable[[Any], None]:
    """A function that returns when all arrays of a backend's result are there.

    A backend may hand out arrays that are still being computed. One number of each is read: that needs the array, and copies next to nothing.
    """

    def wait(result: Any) -> None:
        for x in leaves(result):
            backend.to_numpy(x[(slice(-1, None),) * x.ndim])

    return wait
