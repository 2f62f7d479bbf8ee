"""The plots of the page, as SVG to stand in HTML: their colours are variables of the page's style, the same in light and dark."""

# The stubs of matplotlib leave keyword arguments without a type.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from .results import SHARE_EDGES, Result
from .summary import printable

INK, FAINT, HOLDS, BROKEN = "#010101", "#020202", "#030303", "#040404"
LINES = [f"#05050{line}" for line in range(6)]
VARIABLES = {INK: "--ink", FAINT: "--line", HOLDS: "--holds", BROKEN: "--broken"} | {color: f"--line-{line}" for line, color in enumerate(LINES)}
"""Colours that stand for the page's variables while matplotlib draws."""

SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}
WIDTH = 4.6  # inches: on a phone's width, the letters stay as large as they are


def distribution(results: Sequence[Result], title: str) -> Markup:
    """How many comparisons used which share of their allowance, both on logarithmic axes, with a line at the whole of it."""
    counts = [sum(column) for column in zip(*(result.shares for result in results), strict=True)]
    whole = SHARE_EDGES.index(1.0)

    def draw(axes: Axes) -> None:
        # The bins get equal widths, so that the decades that matter are seen: the axis is nearly logarithmic, and has room for 0 and ∞.
        axes.bar([place - 0.5 for place in range(len(counts))], counts, 0.92, color=[HOLDS] * (whole + 1) + [BROKEN] * (len(counts) - whole - 1))
        axes.axvline(whole, color=BROKEN, linewidth=1.5)
        axes.text(whole + 0.1, 0.98, "allowance", color=BROKEN, va="top", transform=axes.get_xaxis_transform())
        axes.set_yscale("log")
        axes.set_ylim(0.5, 4 * max(*counts, 1))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_xticks([-0.5, *range(1, len(counts))], ["exact", *map(_edge, SHARE_EDGES[1:])], rotation=40)
        axes.grid(visible=False, axis="x")
        axes.set_xlabel("error as a share of its allowance")
        axes.set_ylabel("comparisons")

    return _svg(draw, 2.7, title)


def drift(results: Sequence[Result], title: str) -> Markup:
    """Errors along a long sequence (lines) below what is allowed there (dashes), both axes logarithmic; a cross where an error is not finite."""

    def draw(axes: Axes) -> None:
        for result, color, marker in zip(results, LINES * len(results), "osD^vP" * len(results), strict=False):
            label, curve = _plain(f"{result.form}, {result.inner}"), result.curve
            # A line ends where the next draw begins. What is not finite, or zero, has no place on the axis.
            starts = [place for place in range(1, len(curve)) if curve[place].token <= curve[place - 1].token]
            tokens = np.insert([float(point.token) for point in curve], starts, np.nan)
            errors = np.insert([point.error if 0 < point.error < math.inf else math.nan for point in curve], starts, np.nan)
            axes.plot(tokens, errors, color=color, marker=marker, markersize=3.5, linewidth=1.4, label=label)
            axes.plot(tokens, np.insert([point.allowed for point in curve], starts, np.nan), color=color, linestyle=(0, (4, 2)), linewidth=1)
            lost = [point.token for point in curve if not math.isfinite(point.error)]
            axes.plot(lost, [0.97] * len(lost), "x", color=BROKEN, transform=axes.get_xaxis_transform())
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("tokens")
        axes.set_ylabel("largest error so far")
        axes.figure.legend(loc="outside lower center", ncols=1 if len(results) < 2 else 2, fontsize=8)

    return _svg(draw, 2.7 + 0.17 * math.ceil(len(results) / 2), title)


def seconds(of_law: Mapping[str, float], longest: float, title: str) -> Markup:
    """A bar a law; the axis ends at ``longest``, so that backends can be compared."""

    def draw(axes: Axes) -> None:
        bars = axes.barh(list(map(_plain, of_law)), list(of_law.values()), 0.7, color=LINES[0])
        axes.bar_label(bars, [f"{value:.1f}" for value in of_law.values()], padding=3, fontsize=8)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.15 * longest or 1)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("seconds")

    return _svg(draw, 0.7 + 0.2 * len(of_law), title)


def _edge(edge: float) -> str:
    return f"{edge:g}" if 0.01 <= edge <= 10 else "∞" if math.isinf(edge) else f"$10^{{{math.log10(edge):.0f}}}$"


def _plain(text: str) -> str:
    # Not longer than leaves room for the drawing; between two "$", matplotlib would read a formula.
    return printable(text)[:30].replace("$", r"\$")


def _svg(draw: Callable[[Axes], None], height: float, title: str) -> Markup:
    """The drawing as an SVG element: the same on every run, its text as text, and its title for those who cannot see it."""
    text = io.StringIO()
    # Names inside it are salted with its title: many drawings stand in one page.
    with mpl.rc_context({**SETTINGS, "svg.hashsalt": printable(title)}):
        figure = Figure((WIDTH, height), layout="constrained", facecolor="none")
        draw(figure.add_subplot(facecolor="none"))
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    drawing = text.getvalue()
    drawing = re.sub('<g id="[^"]*"', "<g", drawing[drawing.index("<svg") :])  # the same in every drawing, and nothing refers to them
    for color, variable in VARIABLES.items():
        drawing = drawing.replace(color, f"var({variable})")
    return Markup(drawing.replace("<svg", Markup('<svg role="img" aria-label="{}"').format(title), 1))
