"""The command line: ``ttt conform`` and ``ttt backends``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from tttcore import Backend, BackendUnavailable, InvalidInput, backends, get_backend

from .processes import Share, conform_in_processes
from .report import table
from .results import Report
from .runner import MAX_EXAMPLES, Cell, cells, conform

app = typer.Typer(help="Test-Time-Training layers: which backends are here, and whether they are right.", no_args_is_help=True)
HELD, BROKEN, USAGE = 0, 1, 2


@app.command("backends")
def list_backends() -> None:
    """List every registered backend, and why one is unavailable."""
    grid = Table("backend", "where", "available")
    for info in backends().values():
        # As text: in markup, the [torch] of a pip line would be a style.
        grid.add_row(*map(Text, (info.name, info.target, "yes" if info.available else info.reason)))
    Console().print(grid)


@app.command("conform")
def run_conform(
    backend: Annotated[list[str] | None, typer.Option(help="NAME or package.module:OBJECT; repeatable. Default: all that are available.")] = None,
    max_examples: Annotated[int, typer.Option(min=1, help="Hypothesis draws for each law in each cell of the matrix.")] = MAX_EXAMPLES,
    jobs: Annotated[int, typer.Option(min=1, help="Processes to run in. Default: the machine's cores.")] = os.cpu_count() or 1,
    json: Annotated[Path | None, typer.Option(help="Write every result to this file.", dir_okay=False)] = None,
) -> None:
    """Check every law on every backend, on draws and on the text of the Python standard library.

    Exit status: 0 all laws hold, 1 some law is broken, 2 usage.
    """
    console = Console()
    if json is not None and not json.absolute().parent.is_dir():
        _usage(f"--json: got {json}, in a folder that does not exist; expected a file in an existing folder. Fix: create {json.parent}.")
    names = list(dict.fromkeys(backend or [name for name, info in backends().items() if info.available]))
    report = _with_progress(console, names, _chosen(names), max_examples, jobs)
    console.print(table(report))
    if json is not None:
        report.write(json)
        console.print(f"wrote {json}", markup=False)
    if not report.checked and not report.broken:
        _usage("nothing was compared: every law is outside what the chosen backends claim")
    raise typer.Exit(BROKEN if report.broken else HELD)


def _chosen(names: list[str]) -> list[Backend]:
    try:
        return [get_backend(name) for name in names]
    except (BackendUnavailable, InvalidInput) as error:
        _usage(str(error))
        raise


def _with_progress(console: Console, names: list[str], chosen: list[Backend], max_examples: int, jobs: int) -> Report:
    columns = (SpinnerColumn(), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=len(cells(chosen)))

        def before(cell: Cell) -> None:
            progress.update(task, advance=1, description=f"{cell.backend.name}: {cell.law.name} ({cell.form}, {cell.subject}, {cell.inner})")

        def after(share: Share, size: int) -> None:
            progress.update(task, advance=size, description=f"{share.backend}: {share.form}, {share.subject}, {share.inner}")

        if jobs == 1:
            return conform(chosen, max_examples, before)
        return conform_in_processes(names, max_examples, jobs, after)


def _usage(message: str) -> None:
    typer.echo(message, err=True)
    raise typer.Exit(USAGE)
