"""The terminal's view of a report: laws down, backends across, then what is broken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from .results import BROKEN, HOLDS, NOT_CLAIMED, Report, Result
from .summary import UNCHECKED, amounts, facts, first_broken, headline, laws, printable, summary

STYLES = {BROKEN: "bold red", HOLDS: "green", NOT_CLAIMED: "dim", UNCHECKED: "dim"}


def table(report: Report, paths: Mapping[str, Path] = MappingProxyType({})) -> Group:
    """A row a law, a column a backend: the largest share of an allowance that an error used, and the seconds; then what is broken.

    ``paths`` says where the reproducers of broken results were written, by ``Result.name``.
    """
    grid = Table("law")
    for backend in report.backends:
        grid.add_column(_text(backend), justify="right")
    for law in laws(report):
        rows = [[result for result in report.results if (result.backend, result.law) == (backend, law)] for backend in report.backends]
        grid.add_row(_text(law), *map(_box, rows))
    about = Text("worst error as a share of its allowance · seconds", "italic")
    return Group(about, grid, _text(f"{headline(report)} · {amounts(report)}"), *_broken(report, paths))


def _box(results: list[Result]) -> Text:
    found = summary(results)
    seconds = f" · {found.seconds:.1f} s" if found.status in (HOLDS, BROKEN) else ""
    return Text(f"{found.words}{seconds}{' (partly claimed)' if found.partly else ''}", STYLES[found.status])


def _broken(report: Report, paths: Mapping[str, Path]) -> Iterator[Panel | Text]:
    """The first failure of every backend and law, and how many there are besides."""
    first = first_broken(report)
    for result in first:
        rows = facts(result) + ([("reproducer", str(paths[result.name]))] if result.name in paths else [])
        grid = Table.grid(padding=(0, 2))
        grid.add_column()
        grid.add_column(overflow="fold")
        for name, value in rows:
            grid.add_row(Text(name, "dim"), _text(value))
        yield Panel(grid, title=_text(_place(result)), title_align="left", border_style="red")
    if more := len(report.broken) - len(first):
        yield Text(f"and {more} more broken {'cell' if more == 1 else 'cells'}, of these laws and backends; --json and --html have them all")


def _place(result: Result) -> str:
    return f"{result.backend}: {result.law} broken ({result.form}, {result.subject}, {result.inner}, {result.dtype})"


def _text(text: str) -> Text:
    """The text as it is: in markup, the [B, T] of a message could be a style, and its control characters would reach the terminal."""
    return Text(printable(text))
