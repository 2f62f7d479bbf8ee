"""Random draws of the laws, outside of the suite's own runs."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import hypothesis
import numpy as np
from hypothesis import HealthCheck, Phase, given, settings

from ttt_conformance.cases import Setting
from ttt_conformance.laws import Law, Trial
from ttt_conformance.matrix import EFFORTS, Cell, cells
from tttcore import Backend

DEFAULT = EFFORTS["default"]


def grouped(backends: list[Backend], laws: list[str]) -> list[list[Cell]]:
    """The cells of a default run that share their draws, and so their truths."""
    groups: dict[tuple[str, ...], list[Cell]] = defaultdict(list)
    for cell in cells(backends, DEFAULT):
        if cell.law.name in laws and not (cell.law.gradients and cell.backend.vjp_function is None) and claims(cell):
            groups[cell.law.name, cell.subject, cell.inner, cell.dtype].append(cell)
    return list(groups.values())


def claims(cell: Cell) -> bool:
    """Whether the backend claims the cell's dtype."""
    return cell.backend.supports.dtypes is None or cell.dtype in cell.backend.supports.dtypes


def sample(law: Law, setting: Setting, count: int, seed: int) -> list[Any]:
    """What the law is checked on, drawn that many times."""
    found: list[Any] = []

    @hypothesis.seed(seed)
    @settings(max_examples=count, database=None, deadline=None, phases=(Phase.generate,), suppress_health_check=list(HealthCheck))
    @given(law.draws(setting))
    def keep(drawn: Any) -> None:
        found.append(drawn)

    keep()
    return found


def breaks(law: Law, trial: Trial, drawn: Any) -> Exception | None:
    """How the law breaks."""
    try:
        with np.errstate(all="ignore"):
            law.check(trial, drawn)
    except Exception as error:  # whatever a backend throws is a finding about that backend
        return error
    return None


def quantiles(values: list[float]) -> dict[str, float]:
    """Median, 99 %, 99.9 % and the largest."""
    return {name: float(np.quantile(values, q)) for name, q in (("median", 0.5), ("99 %", 0.99), ("99.9 %", 0.999), ("largest", 1.0))}
