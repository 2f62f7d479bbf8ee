"""``ttt vectors export`` and ``ttt vectors verify``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tttcore import InvalidInput

from .export import INDEX, export
from .verify import MISSING, OK, WRONG, Verdict, verify

vectors_app = typer.Typer(help="Frozen vectors, for implementations in any language (docs/vectors.md).", no_args_is_help=True)
RIGHT, NOT_RIGHT, USAGE = 0, 1, 2
STYLES = {OK: "green", WRONG: "bold red", MISSING: "dim"}
Folder = Annotated[Path, typer.Argument(show_default=False)]
Found = TypeVar("Found")


@vectors_app.command("export")
def run_export(folder: Folder) -> None:
    """Copy the vectors to FOLDER, with an index of them in JSON."""
    written = _or_usage(lambda: export(folder))
    typer.echo(f"wrote {len(written) - 1} vectors and {INDEX} to {folder}")


@vectors_app.command("verify")
def run_verify(folder: Folder) -> None:
    """Compare the answers of another implementation, NAME.safetensors in FOLDER, with those of the vectors.

    Exit status: 0 all that is given is right, 1 something is wrong, 2 usage, or nothing is given.
    """
    verdicts = _or_usage(lambda: verify(folder))
    console = Console()
    grid = Table("vector", "verdict", "arrays", "error / allowed", "not given")
    for verdict in verdicts:
        worst = f"{verdict.worst:.2g}" if verdict.status == OK else ""
        absent = ", ".join(_groups(verdict))
        grid.add_row(Text(verdict.name, no_wrap=True), Text(verdict.status, STYLES[verdict.status]), str(len(verdict.compared) or ""), worst, absent)
    console.print(grid)
    for verdict in verdicts:
        if verdict.status == WRONG:
            console.print(Text(f"{verdict.name}: {verdict.message}"), soft_wrap=True)
    counts = {status: sum(verdict.status == status for verdict in verdicts) for status in STYLES}
    typer.echo(", ".join(f"{count} {status}" for status, count in counts.items()))
    raise typer.Exit(NOT_RIGHT if counts[WRONG] else RIGHT)


def _groups(verdict: Verdict) -> list[str]:
    """The arrays not given, a group by its name alone where nothing of it is."""
    given = {name.partition(".")[0] for name in verdict.compared}
    heads = [name.partition(".")[0] for name in verdict.not_given]
    return list(dict.fromkeys(name if head in given else head for name, head in zip(verdict.not_given, heads, strict=True)))


def _or_usage(run: Callable[[], Found]) -> Found:
    try:
        return run()
    except InvalidInput as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(USAGE) from error
