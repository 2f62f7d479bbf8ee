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

CELLS = pytest.StashKey["list[Cell]"]()
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
    config.pluginmanager.register(Compared(), "ttt-compared")
    if config.getoption("--ttt-backend"):
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Where the suite is asked for by an option, refuse what is wrong with the options: while tests are collected, that would be no usage error."""
    if session.config.getoption("--ttt-backend") or session.config.getoption("--ttt-deviations"):
        _prepare(session.config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of every cell."""
    if "ttt_cell" not in metafunc.fixturenames:
        return
    if CELLS not in metafunc.config.stash:
        _prepare(metafunc.config)
    metafunc.parametrize(
        "ttt_cell",
        [
            pytest.param(cell, id=cell.name, marks=pytest.mark.xdist_group(f"{cell.backend.name} {cell.subject} {cell.inner}"))
            for cell in metafunc.config.stash[CELLS]
        ],
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


class Compared:
    """Of which backends anything was compared in a session, as the process sees it that reports: tests may run in others."""

    def __init__(self) -> None:
        self.seen: dict[str, bool] = {}

    @property
    def unchecked(self) -> list[str]:
        """The backends of which nothing was."""
        return [backend for backend, compared in self.seen.items() if not compared]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note it of one test."""
        for name, backend in report.user_properties:
            if name == BACKEND and report.when == "call":
                compared = report.outcome != "skipped" or hasattr(report, "wasxfail")
                self.seen[str(backend)] = self.seen.get(str(backend), False) or compared

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail a session in which nothing of a backend was compared: it would prove nothing."""
        if self.unchecked and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say why."""
        for backend in self.unchecked:
            terminalreporter.write_line(f"ERROR: of backend {backend!r} nothing was compared: every law is outside its claims", red=True)


def _prepare(config: pytest.Config) -> None:
    """Find the cells and the deviations of this run; a usage error where the options make no sense."""
    from tttcore import BackendUnavailable, InvalidInput, backends, get_backend

    from .matrix import EFFORTS, cells
    from .runner import effort_of

    names = config.getoption("--ttt-backend") or [name for name, info in backends().items() if info.available]
    try:
        chosen = [get_backend(name) for name in dict.fromkeys(names)]
        config.stash[CELLS] = cells(chosen, effort_of(str(config.getoption("--ttt-effort"))))
    except (BackendUnavailable, InvalidInput) as error:
        raise pytest.UsageError(str(error)) from error
    known = {cell.name for cell in cells(chosen, EFFORTS["deep"])}
    config.stash[DEVIATIONS] = _deviations(config.getoption("--ttt-deviations"), known)


def _deviations(path: Path | None, names: set[str]) -> dict[str, str]:
    """The reasons by id; a usage error for a file that is none, a reason that is empty, an id that no cell of any effort has."""
    import tomllib

    if path is None:
        return {}
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise pytest.UsageError(f"--ttt-deviations: got {path}: {error}; expected a TOML file. Fix: see docs/conformance.md.") from error
    for name, reason in found.items():
        if name not in names:
            raise pytest.UsageError(f"--ttt-deviations: got {name!r}; expected the exact id of a cell of these backends. Fix: remove it from {path}.")
        if not isinstance(reason, str) or not reason.strip():
            raise pytest.UsageError(f"--ttt-deviations: got {reason!r} for {name!r}; expected a reason. Fix: say in a string why it deviates.")
    return found
