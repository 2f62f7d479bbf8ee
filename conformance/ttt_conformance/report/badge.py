"""A backend's verdict in a line of Markdown, and as a small picture."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .results import BROKEN, HOLDS, Report
from .summary import UNCHECKED, printable, verdicts
from .templating import filled

COLORS = {HOLDS: "#1a7f4b", BROKEN: "#c62828", UNCHECKED: "#5a636d"}
LABEL = "TTT conformance"


@dataclass(frozen=True)
class Badge:
    """A badge's words, its colour, and the widths of its two halves in pixels."""

    words: str
    color: str

    @property
    def widths(self) -> tuple[int, int]:
        """About as wide as the words are in a common font; the picture stretches them to fit exactly."""
        left, right = (sum(4 if letter in " .,:/ijlt" else 7 for letter in words) + 14 for words in (LABEL, self.words))
        return left, right


def badges(report: Report) -> list[Badge]:
    """A badge a backend."""
    return [Badge(f"{found.backend}: {found.words}, spec {report.spec_version}", COLORS[found.status]) for found in verdicts(report)]


def line(report: Report) -> str:
    """The badges as one line of Markdown."""
    found = " · ".join(_plain(badge.words) for badge in badges(report))
    return f"**{LABEL}** | {found or 'no backend'}"


def svg(report: Report) -> str:
    """The badges as one SVG, one below the other; it loads nothing."""
    return filled("badge.svg.jinja", label=LABEL, badges=badges(report))


def _plain(words: str) -> str:
    """The words with a backslash before what Markdown would read as its own."""
    return re.sub(r"([\\`*_\[\]<>&|])", r"\\\1", " ".join(printable(words).split()))
