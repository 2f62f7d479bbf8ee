"""The command line: ``ttt conform``, ``ttt diff``, ``ttt backends``, ``ttt bench``, ``ttt vectors``, and those that packages register."""

from __future__ import annotations

import os
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from tttcore import BackendUnavailable, InvalidInput, backends, get_backend
from tttcore.backend import peers

from .bench.command import run_bench
from .matrix import Cell, Effort, cells
from .peers.known import known_differences
from .processes import conform_in_processes
from .report import Report, diff, outputs, terminal
from .runner import conform, effort_of
from .vectors.commands import vectors_app

app = typer.Typer(help="Test-Time-Training layers: which backends are here, and whether they are right.", no_args_is_help=True)
app.add_typer(vectors_app, name="vectors")
app.command("bench")(run_bench)
for command in entry_points(group="tttcore.commands"):
    app.command(command.name)(command.load())
HELD, BROKEN, USAGE = 0, 1, 2


@app.command("backends")
def list_backends() -> None:
    """List every registered backend, and every peer, which is run when it is named; and why one is unavailable."""
    grid = Table("backend", Column("where", overflow="fold"), "available")
    for info in (backends() | peers()).values():
        # As text: in markup, the [torch] of a pip line would be a style.
        grid.add_row(*map(Text, (info.name, info.target, "yes" if info.available else info.reason)))
    Console().print(grid)


def _file(what: str) -> typer.models.OptionInfo:
    return typer.Option(help=what, dir_okay=False)


@app.command("conform")
def run_conform(
    backend: Annotated[list[str] | None, typer.Option(help="NAME or package.module:OBJECT; repeatable. Default: all that are available.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A first look, in seconds: fewer cells, fewer draws.")] = False,
    deep: Annotated[bool, typer.Option("--deep", help="For a night: every cell, many draws.")] = False,
    max_examples: Annotated[int | None, typer.Option(min=1, help="Hypothesis draws for each law in each cell of the matrix.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes to run in. Default: the machine's cores.")] = os.cpu_count() or 1,
    json: Annotated[Path | None, _file("Write every result to this file.")] = None,
    junit: Annotated[Path | None, _file("Write JUnit XML to this file.")] = None,
    html: Annotated[Path | None, _file("Write a page with plots to this file.")] = None,
    badge: Annotated[Path | None, _file("Write a badge (SVG) to this file, and print a line for a README.")] = None,
    reproducers: Annotated[Path, typer.Option(help="Folder for scripts that show what is broken, with NumPy alone.")] = Path("ttt-reproducers"),
) -> None:
    """Check every law on every backend, on draws and on the text of the Python standard library.

    Exit status: 0 all laws hold, 1 some law is broken, 2 usage, or a backend of which nothing can be compared.
    """
    console = Console()
    if quick and deep:
        _usage("--quick and --deep: got both; expected one of them. Fix: leave one out.")
    files = {"json": json, "junit": junit, "html": html, "badge": badge}
    for name, path in files.items():
        if path is not None and not path.absolute().parent.is_dir():
            _usage(f"--{name}: got {path}, in a folder that does not exist; expected a file in an existing folder. Fix: create {path.parent}.")
    if reproducers.exists() and not reproducers.is_dir():
        _usage(f"--reproducers: got {reproducers}, a file; expected a folder, or a name for one. Fix: choose another.")
    names = list(dict.fromkeys(backend or [name for name, info in backends().items() if info.available]))
    try:
        report = _with_progress(console, names, effort_of("quick" if quick else "deep" if deep else "default", max_examples), jobs)
    except (BackendUnavailable, InvalidInput) as error:
        _usage(str(error))
    scripts = outputs.write_reproducers(report.results, reproducers)
    console.print(terminal.table(report, scripts), *known_differences(names))
    for line in outputs.write_files(report, files):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(BROKEN if report.broken else HELD)


@app.command("diff")
def compare_reports(
    old: Annotated[Path, typer.Argument(help="A report that ttt conform --json wrote.", exists=True, dir_okay=False)],
    new: Annotated[Path, typer.Argument(help="A later one.", exists=True, dir_okay=False)],
) -> None:
    """Say what changed from one report to another.

    Exit status: 0 nothing is worse, 1 something is, 2 usage.
    """
    try:
        found = diff.difference(Report.read(old), Report.read(new))
    except InvalidInput as error:
        _usage(str(error))
    Console().print(diff.table(found))
    raise typer.Exit(BROKEN if found.worse else HELD)


def _with_progress(console: Console, names: list[str], effort: Effort, jobs: int) -> Report:
    columns = (SpinnerColumn(), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=None)

        def show(what: str, size: int, total: int) -> None:
            progress.update(task, advance=size, description=what, total=total)

        if jobs > 1:
            return conform_in_processes(names, effort, jobs, show)
        total = len(cells([get_backend(name) for name in names], effort))

        def before(cell: Cell) -> None:
            show(cell.name, 1, total)

        return conform(names, effort, progress=before)


def _usage(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(USAGE)
