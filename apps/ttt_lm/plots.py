"""Figures of runs: loss by step, perplexity by position, the inner loss by position."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .results import Results

SETTINGS: dict[Any, Any] = {
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    "axes.grid": True,
    "grid.alpha": 0.3,
    "font.size": 9,
}
COLOURS = {"ttt-linear": "#0072b2", "ttt-mlp": "#d55e00", "attention": "#000000", "mamba2": "#009e73"}
"""Told apart also by those who see few colours; a second line of a mixer is dashed."""
WEIGHTS = (("ℓ(W₀)", "#999999"), ("ℓ before the step", "#0072b2"), ("ℓ(Wₜ), after the step", "#d55e00"))


def loss_figure(runs: Sequence[Results], path: Path) -> None:
    """Training loss (thin) and held-out loss (dots) over the tokens read, with the unigram entropy."""

    def draw(axes: Axes) -> None:
        for run, style in _styles(runs):
            per_step = run.recipe.batch * run.recipe.context / 1e6
            axes.plot([row["step"] * per_step for row in run.steps], [row["loss"] for row in run.steps], linewidth=0.8, alpha=0.6, **style)
            rows = [row for row in run.steps if "held_out_loss" in row]
            axes.plot([row["step"] * per_step for row in rows], [row["held_out_loss"] for row in rows], "o", markersize=3, color=style["color"])
        axes.axhline(runs[0].numbers["unigram_entropy"], color="#999999", linestyle=":", label="unigram entropy")
        axes.set(xlabel="million tokens read", ylabel="loss, nats a byte")

    _save(path, draw)


def perplexity_figure(runs: Sequence[Results], path: Path) -> None:
    """Held-out perplexity of a byte by how many were read before it, in logarithmic bins."""

    def draw(axes: Axes) -> None:
        for run, style in _styles(runs):
            places, losses = _binned(run.by_position)
            axes.plot(places, np.exp(losses), marker="o", markersize=3, **style)
        axes.set_xscale("log", base=2)
        axes.set(xlabel="bytes read before", ylabel="perplexity of a byte", yscale="log")
        for formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            formatter("{x:g}")

    _save(path, draw)


def inner_loss_figure(run: Results, path: Path) -> None:
    """ℓ of a few TTT layers by position: the weights before the text, before and after a token's own step."""
    assert run.inner is not None
    layers = sorted({0, len(run.inner) // 2, len(run.inner) - 1})
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(3.3 * len(layers), 3.0), layout="constrained")
        places = list(np.atleast_1d(figure.subplots(1, len(layers))))
        for axes, layer in zip(places, layers, strict=True):
            for (label, colour), losses in zip(WEIGHTS, run.inner[layer], strict=True):
                axes.plot(*_binned(losses), "o-", markersize=2, color=colour, label=label)
            axes.set_xscale("log", base=2)
            axes.set(title=f"layer {layer + 1} of {len(run.inner)}", xlabel="tokens read", ylabel="inner loss ℓ" if layer == 0 else None)
        figure.legend(*places[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(WEIGHTS))
        figure.suptitle(f"{run.name}: the inner model learns while it reads")
        figure.savefig(path, dpi=150)


def _styles(runs: Sequence[Results]) -> list[tuple[Results, dict[str, Any]]]:
    seen: list[str] = []
    styles = []
    for run in runs:
        mixer = run.recipe.mixer
        styles.append((run, {"color": COLOURS[mixer], "linestyle": ("-", "--", ":")[min(seen.count(mixer), 2)], "label": run.name}))
        seen.append(mixer)
    return styles


def _binned(losses: np.ndarray, per_octave: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Means over positions whose number t + 1 lies between neighbouring powers of 2^(1/per_octave), the upper one with it; and their middles."""
    number = np.arange(1, len(losses) + 1)
    bins = np.ceil(per_octave * np.log2(number)).astype(int)
    counts = np.bincount(bins)
    there = counts > 0
    return np.bincount(bins, number)[there] / counts[there], np.bincount(bins, losses)[there] / counts[there]


def _save(path: Path, draw: Callable[[Axes], None]) -> None:
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        axes.legend()
        figure.savefig(path, dpi=150)
