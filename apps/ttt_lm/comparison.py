"""Runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from . import plots
from .results import Results


def compare_runs(folders: Sequence[Path], out: Path) -> None:
    """Print a table of all runs, of most perplexity last, and write the figures to ``out``."""
    runs = sorted((Results.read(folder) for folder in folders), key=lambda run: run.numbers["perplexity"])
    out.mkdir(parents=True, exist_ok=True)
    console = Console()
    console.print(table(runs))
    paths = [out / "loss.png", out / "perplexity.png"]
    plots.loss_figure(runs, paths[0])
    plots.perplexity_figure(runs, paths[1])
    for path in paths:
        console.print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)


def table(runs: Sequence[Results]) -> Table:
    """A row each: perplexity over all positions, and over the last quarter of the window, where most was read before."""
    grid = Table("run", "parameters", "context", "tokens read", "perplexity", "last quarter", "ms/step", "tokens/s")
    for run in runs:
        numbers, recipe = run.numbers, run.recipe
        last = float(np.exp(run.by_position[-len(run.by_position) // 4 :].mean()))
        row = (
            f"{numbers['parameters'] / 1e6:.2f} M",
            f"{recipe.context:,}",
            f"{numbers['tokens'] / 1e6:.1f} M",
            f"{numbers['perplexity']:.3f}",
            f"{last:.3f}",
        )
        rates = (f"{1e3 * numbers['seconds_per_step']:.1f}", f"{numbers['tokens_per_second']:,.0f}")
        grid.add_row(f"{run.name}, seed {recipe.seed}", *row, *rates)
    return grid
