"""The terminal's view of a report: laws down, backends across."""

from __future__ import annotations

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from .laws import LAWS
from .results import BROKEN, HOLDS, NOT_CLAIMED, Report, Result


def table(report: Report) -> Group:
    """A row a law, a column a backend: the largest share of an allowance that an error used, and the seconds; then what is broken."""
    backends = list(dict.fromkeys(result.backend for result in report.results))
    grid = Table(title="worst error as a share of its allowance · seconds", title_justify="left", caption=_caption(report), caption_justify="left")
    grid.add_column("law")
    for backend in backends:
        grid.add_column(backend, justify="right")
    for law in LAWS:
        row = [[result for result in report.results if (result.backend, result.law) == (backend, law)] for backend in backends]
        grid.add_row(law, *map(_summary, row))
    return Group(grid, *map(_panel, _first_broken(report)))


def _summary(results: list[Result]) -> Text:
    seconds = sum(result.seconds for result in results)
    broken = [result for result in results if result.status == BROKEN]
    held = [result for result in results if result.status == HOLDS]
    if broken:
        return Text(f"BROKEN {len(broken)}/{len(results)} · {seconds:.1f} s", "bold red")
    if not held:
        return Text("not claimed", "dim")
    worst = max(result.worst for result in held)
    partly = " (partly claimed)" if any(result.status == NOT_CLAIMED for result in results) else ""
    return Text(f"{worst:.2f} · {seconds:.1f} s{partly}" if worst else f"exact · {seconds:.1f} s{partly}", "green")


def _first_broken(report: Report) -> list[Result]:
    """The first failure of every backend and law; the JSON has them all."""
    first: dict[tuple[str, str], Result] = {}
    for result in report.broken:
        first.setdefault((result.backend, result.law), result)
    return list(first.values())


def _panel(result: Result) -> Panel:
    """What is broken, as text: in markup, the [B, T] of a message could be a style."""
    return Panel(Text(result.message), title=Text(_place(result)), title_align="left", border_style="red")


def _place(result: Result) -> str:
    return f"{result.backend}: {result.law} broken ({result.form}, {result.subject}, {result.inner}, {result.dtype})"


def _caption(report: Report) -> str:
    comparisons = sum(result.comparisons for result in report.results)
    verdict = f"{len(report.broken)} cells broken" if report.broken else "all laws hold"
    return f"{verdict} · {len(report.results)} cells, {comparisons} comparisons, {report.seconds:.0f} s"
