"""Two reports side by side: what was broken, mended, claimed or withdrawn between them, and whose errors grew."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

from rich.console import Group
from rich.table import Table
from rich.text import Text

from .results import BROKEN, HOLDS, NOT_CLAIMED, Report, Result
from .summary import printable, summary

GROWTH, MATTERS = 2.0, 0.1
"""A share of the allowance that grew more than this many times, to more than this, is told."""

KINDS = {
    "broken": "newly broken",
    "unclaimed": "no longer claimed",
    "removed": "removed",
    "grown": "error grew",
    "added": "added",
    "claimed": "newly claimed",
    "mended": "mended",
}
"""The fields of ``Difference`` that hold changes, the worst first, in words."""


@dataclass(frozen=True)
class Change:
    """A cell then and now; ``None`` where it was not in the report."""

    old: Result | None
    new: Result | None

    @property
    def name(self) -> str:
        """The cell's exact id."""
        return next(result.name for result in (self.new, self.old) if result is not None)


@dataclass(frozen=True)
class Difference:
    """What changed from one report to another; ``ran_on`` holds what they ran on, where that changed: name, then, now."""

    broken: tuple[Change, ...]
    unclaimed: tuple[Change, ...]
    removed: tuple[Change, ...]
    grown: tuple[Change, ...]
    added: tuple[Change, ...]
    claimed: tuple[Change, ...]
    mended: tuple[Change, ...]
    ran_on: tuple[tuple[str, str, str], ...] = ()

    @property
    def worse(self) -> bool:
        """Whether something is broken that was not, no longer shown to hold that was, or an error grew that matters."""
        breaks = any(change.new is not None and change.new.status == BROKEN for change in chain(self.broken, self.added))
        loses = any(change.old is not None and change.old.status == HOLDS for change in chain(self.unclaimed, self.removed))
        return breaks or loses or bool(self.grown)


def difference(old: Report, new: Report) -> Difference:
    """What changed, cell by cell; cells are the same if their names are."""
    before, after = ({result.name: result for result in report.results} for report in (old, new))
    changes = [Change(before.get(name), after.get(name)) for name in {**before, **after}]
    kinds: dict[str, list[Change]] = {kind: [] for kind in KINDS}
    for change in changes:
        if kind := _kind(change):
            kinds[kind].append(change)
    then, now = ({"spec_version": report.spec_version, "effort": report.effort, **report.environment} for report in (old, new))
    ran_on = tuple((name, then.get(name, "—"), now.get(name, "—")) for name in {**then, **now} if then.get(name) != now.get(name))
    return Difference(**{kind: tuple(found) for kind, found in kinds.items()}, ran_on=ran_on)


def table(found: Difference) -> Group:
    """A row a change, the worst first; below them the verdict and what the runs do not have in common."""
    grid = Table("change", "cell", "then", "now")
    for kind, words in KINDS.items():
        for change in getattr(found, kind):
            grid.add_row(words, Text(printable(change.name)), _words(change.old), _words(change.new))
    verdict = "worse" if found.worse else "not worse" if grid.row_count else "no cell changed"
    notes = [Text(printable(f"{name}: {then} → {now}")) for name, then, now in found.ran_on]
    return Group(*[grid] * bool(grid.row_count), Text(verdict, "bold red" if found.worse else "green"), *notes)


def _kind(change: Change) -> str:
    """The field of ``Difference`` that a change belongs to, or none."""
    old, new = change.old, change.new
    if old is None or new is None:
        return "added" if old is None else "removed"
    if old.status != new.status:
        return {BROKEN: "broken", NOT_CLAIMED: "unclaimed", HOLDS: "mended" if old.status == BROKEN else "claimed"}[new.status]
    return "grown" if new.status == HOLDS and new.worst > max(GROWTH * old.worst, MATTERS) else ""


def _words(result: Result | None) -> Text:
    return Text("—" if result is None else summary([result]).words if result.status != BROKEN else "BROKEN")
