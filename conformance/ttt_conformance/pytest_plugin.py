"""The suite under pytest: ``pytest --pyargs ttt_conformance --ttt-backend NAME``, each cell of the matrix a test.

Loaded with every run of pytest in an environment that has ``tttcore``: so it imports nothing but pytest until its tests are collected.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .matrix import Cell, Effort

DEVIATIONS = pytest.StashKey[dict[str, str]]()
BACKEND = "ttt_backend"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("ttt", "conformance of Test-Time-Training layers")
    group.addoption("--ttt-backend", action="append", metavar="NAME", help="backend, NAME or package.module:OBJECT; repeatable (default: all)")
    group.addoption("--ttt-effort", default="default", metavar="EFFORT", help="quick, default or deep")
    group.addoption("--ttt-reproducers", type=Path, default=Path("ttt-reproducers"), metavar="FOLDER", help="for scripts that show what is broken")
    group.addoption("--ttt-deviations", type=Path, metavar="FILE", help="TOML: the exact id of a cell = the reason why it is known to be broken")


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known where pytest-xdist is not installed; several threads only wait for one another on problems this small."""
    config.addinivalue_line("markers", "xdist_group(name): what --dist loadgroup keeps in one worker")
    _seen.clear()
    if config.getoption("--ttt-backend"):
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of every cell."""
    if "ttt_cell" not in metafunc.fixturenames:
        return
    every = _cells(metafunc.config)
    metafunc.config.stash[DEVIATIONS] = _deviations(metafunc.config.getoption("--ttt-deviations"), {cell.name for cell in every})
    metafunc.parametrize(
        "ttt_cell",
        [pytest.param(cell, id=cell.name, marks=pytest.mark.xdist_group(f"{cell.backend.name} {cell.subject} {cell.inner}")) for cell in every],
    )


@pytest.fixture
def ttt_effort(request: pytest.FixtureRequest) -> Effort:
    """The effort of ``--ttt-effort``."""
    from .runner import effort_of

    return effort_of(str(request.config.getoption("--ttt-effort")))


@pytest.fixture
def ttt_deviation(request: pytest.FixtureRequest, ttt_cell: Cell) -> str:
    """Why the cell is known to be broken, or an empty string."""
    return request.config.stash[DEVIATIONS].get(ttt_cell.name, "")


_seen: dict[str, bool] = {}
"""By backend, whether anything of it was checked; the hook below is not told of the session."""


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note whether anything of a backend was checked: in the process that reports, as tests may run in others."""
    backend = dict(report.user_properties).get(BACKEND)
    if backend is not None and report.when == "call":
        _seen[str(backend)] = _seen.get(str(backend), False) or report.outcome != "skipped" or hasattr(report, "wasxfail")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a session in which nothing of a backend was compared: it would prove nothing."""
    if _unchecked() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say why."""
    for backend in _unchecked():
        terminalreporter.write_line(f"ERROR: of backend {backend!r} nothing was compared: every law is outside its claims", red=True)


def _unchecked() -> list[str]:
    return [backend for backend, checked in _seen.items() if not checked]


def _cells(config: pytest.Config) -> list[Cell]:
    from tttcore import BackendUnavailable, InvalidInput, backends, get_backend

    from .matrix import cells
    from .runner import effort_of

    names = config.getoption("--ttt-backend") or [name for name, info in backends().items() if info.available]
    try:
        return cells([get_backend(name) for name in dict.fromkeys(names)], effort_of(str(config.getoption("--ttt-effort"))))
    except (BackendUnavailable, InvalidInput) as error:
        raise pytest.UsageError(str(error)) from error


def _deviations(path: Path | None, names: set[str]) -> dict[str, str]:
    """The reasons by id; a usage error for a file that is none, a reason that is empty, an id that is no cell."""
    import tomllib

    if path is None:
        return {}
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise pytest.UsageError(f"--ttt-deviations: got {error}; expected a TOML file. Fix: see docs/conformance.md.") from error
    for name, reason in found.items():
        if name not in names:
            raise pytest.UsageError(f"--ttt-deviations: got {name!r}; expected the exact id of a cell of this run. Fix: remove it from {path}.")
        if not isinstance(reason, str) or not reason.strip():
            raise pytest.UsageError(f"--ttt-deviations: got {reason!r} for {name!r}; expected a reason. Fix: say in a string why it deviates.")
    return found
