"""Every cell of the matrix as a test; ``pytest_plugin`` parametrises it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .matrix import Cell, Effort
from .report.outputs import write_reproducers
from .report.results import BROKEN, NOT_CLAIMED
from .report.summary import facts
from .runner import explained_result, run

EXPLAINED: set[tuple[str, str]] = set()
"""Backends and laws whose first failure is explained already."""


def test_law(
    ttt_cell: Cell,
    ttt_effort: Effort,
    ttt_deviation: str,
    record_property: Callable[[str, object], None],
    pytestconfig: pytest.Config,
) -> None:
    """The law holds; or it is broken, and known to be."""
    record_property("ttt_backend", ttt_cell.backend.name)
    result = run(ttt_cell, ttt_effort)
    if ttt_deviation:
        if result.status != BROKEN:
            pytest.fail(f"stale deviation: {ttt_cell.name} {result.status}. Fix: remove it from the file of deviations.", pytrace=False)
        pytest.xfail(ttt_deviation)
    if result.status == NOT_CLAIMED:
        pytest.skip(f"not claimed: {result.message}")
    if result.status == BROKEN:
        if (ttt_cell.backend.name, ttt_cell.law.name) not in EXPLAINED:
            EXPLAINED.add((ttt_cell.backend.name, ttt_cell.law.name))
            result = explained_result(ttt_cell, ttt_effort, result)
        scripts = write_reproducers([result], Path(str(pytestconfig.getoption("--ttt-reproducers"))))
        found = [*facts(result), *(("reproducer", str(path)) for path in scripts.values())]
        pytest.fail("\n".join(f"{name}: {value}" for name, value in found), pytrace=False)
