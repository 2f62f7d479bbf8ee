"""What a contest found, for a terminal and as JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Column, Table
from rich.text import Text

from .contest import NOT_CLAIMED, TIMED, Row
from .timing import Timing
from .workload import Workload

SCHEMA_VERSION = 1
STEADY = 1.5
"""Between the quantiles of 20 % and 80 % there is at most this factor, or the table says so."""
PACKAGES = ("tttcore", "numpy", "torch", "jax", "triton")
HEADS = ("forward", "f + b")
PASSES: dict[str, Callable[[Row], Timing | None]] = {"forward": lambda row: row.forward, "forward and backward": lambda row: row.both}


def table(rows: Sequence[Row], workload: Workload, grad: bool) -> Group:
    """A row an entry, the fastest first: of each pass milliseconds, the ratio to the fastest, tokens a second; then what was not timed, and why."""
    shown = {name: of for name, of in PASSES.items() if grad or name == "forward"}
    fastest = {name: min((found.median for row in rows if (found := of(row)) is not None), default=0.0) for name, of in shown.items()}
    grid = Table(Column("\nbackend (form)", no_wrap=True), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    heads = [f"{head}\n{unit}" for first in HEADS[: len(shown)] for head, unit in ((first, "ms"), ("", "×"), ("", "tok/s"))]
    for head in (*heads, "\nmemory"):
        grid.add_column(head, justify="right", no_wrap=True)
    ranked = sorted((row for row in rows if row.status == TIMED), key=lambda row: _order(row, list(shown.values())[-1]))
    for row in ranked:
        cells = [cell for name, of in shown.items() for cell in _cells(of(row), fastest[name], workload)]
        grid.add_row(Text(row.name), *cells, size(row.peak_bytes))
    parts: list[Any] = [
        Text(f"{workload} · {processor()}"),
        *([grid] if ranked else []),
        *map(Text, [*_legend(ranked, grad), *unsteady(ranked), *advice(rows, grad)]),
    ]
    return Group(*parts, *_rest(rows))


def _legend(rows: Sequence[Row], grad: bool) -> Iterator[str]:
    if rows:
        y, gradients = ([error for error in of if error is not None] for of in zip(*((row.error, row.gradient_error) for row in rows), strict=True))
        worst = f"{max(y):.0e} of y" + (f", {max(gradients):.0e} of gradients" if gradients else "")
        both = "f + b: forward and backward; " if grad else ""
        yield f"{both}×: of the fastest; memory: peak beyond the arguments; largest relative error, checked first: {worst}"


def unsteady(rows: Sequence[Row]) -> Iterator[str]:
    """A line for each time that is no property of the backend: much else went on, or too few repeats went in."""
    for row in rows:
        for name, of in PASSES.items():
            found = of(row)
            if found is not None and found.high > STEADY * found.low:
                span = f"{short(found.low)} to {short(found.high)} ms in the middle of {found.repeats} repeats"
                yield f"unsteady: {row.name}, {name}: {span}. Fix: stop what else runs on this machine, or pass more --seconds."


def advice(rows: Sequence[Row], grad: bool) -> Iterator[str]:
    """What to take, a line a pass: the fastest, and by how much it beats the best of every other backend."""
    for name, of in PASSES.items():
        ranking = sorted(((found.median, row) for row in rows if (found := of(row)) is not None), key=lambda pair: pair[0])
        if not ranking or (name != "forward" and not grad):
            continue
        (best, winner), *others = ranking
        beaten: dict[str, str] = {}
        for median, row in others:
            if row.backend != winner.backend:
                beaten.setdefault(row.backend, f"{short(median / best)}× {row.name}")
        reason = f", {', '.join(beaten.values())}" if beaten else ", which nothing else was timed against"
        yield f"{name}, on this machine, for this shape: {winner.name}{reason}"


def record(rows: Sequence[Row], workload: Workload) -> str:
    """Everything as JSON."""
    found: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"processor": processor(), "system": platform.platform(), "python": platform.python_version()},
        "versions": {name: number for name in PACKAGES if (number := _version(name))},
        "workload": dataclasses.asdict(workload),
        "results": [dataclasses.asdict(row) | {"forward": _timing(row.forward), "both": _timing(row.both)} for row in rows],
    }
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def processor() -> str:
    """The processor and how many cores of it there are to use, in words."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        model = ""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{model or platform.processor() or platform.machine()}, {usable} {'core' if usable == 1 else 'cores'}"


def size(count: int | None) -> str:
    """Bytes, in words."""
    if count is None:
        return "–"
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _order(row: Row, of: Callable[[Row], Timing | None]) -> tuple[bool, float]:
    """By the last pass shown, those without it behind."""
    found = of(row)
    return (found is None, (found or row.forward or Timing(0, 0, 0, 0)).median)


def _cells(found: Timing | None, fastest: float, workload: Workload) -> tuple[str, str, str]:
    """Milliseconds, the ratio to the fastest, tokens a second."""
    return ("none", "", "") if found is None else (short(found.median), short(found.median / fastest), rate(1e3 * workload.positions / found.median))


def short(number: float) -> str:
    """One digit after the point, none from 100 on."""
    return f"{number:.1f}" if number < 99.95 else f"{number:.0f}"


def rate(number: float) -> str:
    """A number a second, with three digits."""
    for scale, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= scale:
            return f"{number / scale:.3g}{unit}"
    return f"{number:.3g}"


def _rest(rows: Sequence[Row]) -> Iterator[Text]:
    """A line for each that was not timed."""
    for row in rows:
        if row.status != TIMED:
            yield Text(f"{row.name}: {row.status}. {row.message}", "dim" if row.status == NOT_CLAIMED else "bold red")


def _timing(found: Timing | None) -> dict[str, float] | None:
    return None if found is None else found._asdict()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
