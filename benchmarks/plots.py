"""The plots of docs/allowances.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

mpl.use("Agg")
BLUE, RED, GREY = "#2b6cb0", "#c53030", "#a0aec0"
LEAST = 1e-4
"""Shares below are drawn here."""


def shares(laws: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """A line for each law from the median to the largest share, with marks at 99 % and 99.9 %; 1 is the allowance."""
    names = sorted((name for name in laws if laws[name]["largest"] > 0), key=lambda name: laws[name]["largest"])
    _, axes = plt.subplots(figsize=(8, 0.34 * len(names) + 1.4), layout="constrained")
    places = range(len(names))
    found = {quantile: [max(LEAST, laws[name][quantile]) for name in names] for quantile in ("median", "99 %", "99.9 %", "largest")}
    axes.hlines(places, found["median"], found["largest"], color="#90cdf4", linewidth=4)
    for (quantile, values), mark in zip(found.items(), ("|", "^", "s", "o"), strict=True):
        axes.plot(values, places, mark, color=BLUE, markersize=11 if mark == "|" else 5, label=quantile)
    axes.axvline(1, color=RED, label="allowance")
    axes.set_xscale("log")
    axes.set_xlim(LEAST / 1.5, 2)
    axes.set_yticks(places, names)
    axes.set_xlabel("share of its allowance that the worst comparison of a draw used")
    finish(axes, path, columns=5)


def safety(rows: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """The share of arrays that need more than a given SAFETY, by the number of samples that measure the reference's own error, and by dtype."""
    figure, both = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained", sharey=True)
    colours = {"1": "#cbd5e0", "2": "#90cdf4", "4": BLUE, "8": "#1a365d", "4 and no band": "#dd6b20"}
    for axes, dtype in zip(both, ("float64", "float32"), strict=True):
        for samples, colour in colours.items():
            row = rows[f"{samples}, {dtype}"]
            steps = [(float(safety), share) for safety, share in row.items() if share]
            axes.plot(
                [max(0.125, x) for x, _ in steps],
                [share for _, share in steps],
                "o-",
                color=colour,
                markersize=4,
                label=f"samples: {samples}" if dtype == "float64" else None,
            )
        axes.axvline(16, color=RED, label="SAFETY" if dtype == "float64" else None)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlim(0.1, 40)
        axes.set_title(dtype, fontsize=10)
        axes.set_xlabel("SAFETY (leftmost: 0)")
        finish(axes)
    both[0].set_ylabel("share of arrays that need more")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def power(rows: Mapping[str, Mapping[str, Any]], path: Path, shown: int = 20) -> None:
    """The mutants that are hardest to find by one draw."""
    names = sorted(rows, key=lambda name: rows[name]["one draw"])[:shown][::-1]
    _, axes = plt.subplots(figsize=(8, 0.28 * shown + 0.8), layout="constrained")
    axes.barh(range(shown), [rows[name]["one draw"] for name in names], color="#90cdf4", edgecolor=BLUE)
    axes.set_yticks(range(shown), [f"{name} ({rows[name]['law']})" for name in names])
    axes.set_xlim(0, 1.02)
    axes.set_ylim(-0.7, shown - 0.3)
    axes.set_xlabel(f"found by one draw, in the best cell of its law: the {shown} hardest of {len(rows)} mutants")
    finish(axes, path)


def finish(axes: Axes, path: Path | None = None, columns: int = 0) -> None:
    """Grid and legend (above, in columns, if told), and the file."""
    axes.grid(visible=True, color="#e2e8f0", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_color(GREY)
    if columns:
        axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.4, 1.0), ncol=columns)
    elif axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8)
    if path is not None:
        plt.gcf().savefig(path, dpi=150)
        plt.close()
