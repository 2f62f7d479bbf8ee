"""The page: one HTML file that holds everything of a run and loads nothing."""

from __future__ import annotations

import base64
import re
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from ..laws import LAWS
from .results import BROKEN, SHARE_EDGES, Report, Result
from .summary import amounts, facts, failures, first_broken, headline, laws, statement, summary, verdicts
from .templating import filled

if TYPE_CHECKING:
    from markupsafe import Markup


class Plots(NamedTuple):
    """Drawings of one kind, each with its caption, a few to a backend."""

    title: str
    about: str
    drawings: list[tuple[str, Markup]]


def page(report: Report) -> str:
    """The report as one HTML page: the verdict, the matrix, what is broken, plots, every cell, the laws and the environment."""
    boxes: dict[tuple[str, str, str], list[Result]] = defaultdict(list)
    for result in report.results:
        boxes[result.backend, result.law, result.dtype].append(result)
    return filled(
        "page.html.jinja",
        report=report,
        headline=headline(report),
        verdicts=verdicts(report),
        amounts=amounts(report),
        laws=laws(report),
        statements={law: statement(law) for law in dict.fromkeys([*LAWS, *laws(report)])},
        boxes=dict(boxes),
        dtypes={backend: _widest_first({dtype for name, _, dtype in boxes if name == backend}) for backend in report.backends},
        failures=failures(report),
        first_broken=first_broken(report),
        plots=[plots for plots in _plots(report) if plots.drawings],
        summary=summary,
        facts=facts,
        anchor=anchor,
        data_uri=data_uri,
        BROKEN=BROKEN,
    )


def anchor(*names: str) -> str:
    """The names as the id of a place in the page, which may hold no spaces."""
    return re.sub(r"[^\w.-]+", "_", "-".join(names))


def data_uri(script: str) -> str:
    """The script as a link to itself."""
    return f"data:text/x-python;base64,{base64.b64encode(script.encode(errors='replace')).decode()}"


def _plots(report: Report) -> list[Plots]:
    from . import plots  # which takes its time, and only pages need it

    spread, drift, seconds = list[tuple[str, "Markup"]](), list[tuple[str, "Markup"]](), list[tuple[str, "Markup"]]()
    spent = {backend: {law: sum(result.seconds for result in _of(report, backend, law)) for law in laws(report)} for backend in report.backends}
    longest = max((value for of_law in spent.values() for value in of_law.values()), default=0.0)
    for backend in report.backends:
        results = _of(report, backend)
        if any(map(sum, (result.shares for result in results))):
            compared, beyond = (sum(sum(result.shares[start:]) for result in results) for start in (0, SHARE_EDGES.index(1.0) + 1))
            caption = f"{backend}: {compared:,} comparisons, {beyond or 'none'} beyond the allowance"
            spread.append((caption, plots.distribution(results, caption)))
        for dtype in _widest_first({result.dtype for result in results if result.curve}):
            curves = [result for result in results if result.curve and result.dtype == dtype]
            caption = f"{backend}, {dtype}: errors up to token {max(point.token for result in curves for point in result.curve):,}"
            drift.append((caption, plots.drift(curves, caption)))
        if sum(spent[backend].values()):
            caption = f"{backend}: {sum(spent[backend].values()):,.1f} seconds in all"
            seconds.append((caption, plots.seconds(spent[backend], longest, caption)))
    return [
        Plots(
            "Errors against their allowance",
            "How many comparisons used which share of what they are allowed; beyond the line, a law is broken.",
            spread,
        ),
        Plots("Errors along a sequence", "The largest error up to each token (lines) and what is allowed there (dashes).", drift),
        Plots("Seconds", "Time spent on each law, compilation included; the axis is the same for all backends.", seconds),
    ]


def _widest_first(dtypes: set[str]) -> list[str]:
    known = ("float64", "float32", "bfloat16", "float16")
    return [dtype for dtype in known if dtype in dtypes] + sorted(dtypes.difference(known))


def _of(report: Report, backend: str, law: str | None = None) -> list[Result]:
    return [result for result in report.results if result.backend == backend and law in (None, result.law)]
