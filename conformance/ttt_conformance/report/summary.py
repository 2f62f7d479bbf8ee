"""What results come to, in words: of a box of the matrix, of a backend, of a failure. Every view of a report says it in these."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..laws import LAWS
from .results import BROKEN, HOLDS, NOT_CLAIMED, Report, Result

UNCHECKED = "unchecked"
_UNPRINTABLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Summary:
    """Some results as one: broken if any is, held if any is, and the largest share of an allowance among them."""

    status: str
    words: str
    worst: float
    seconds: float
    partly: bool
    """Whether a part of what holds is not claimed."""


@dataclass(frozen=True)
class Verdict:
    """Of one backend, the laws that hold, are broken or not claimed at all."""

    backend: str
    held: list[str]
    broken: list[str]
    unclaimed: list[str]

    @property
    def status(self) -> str:
        """BROKEN, HOLDS or UNCHECKED."""
        return BROKEN if self.broken else HOLDS if self.held else UNCHECKED

    @property
    def words(self) -> str:
        """The verdict in a few words."""
        total = len(self.held) + len(self.broken) + len(self.unclaimed)
        if self.broken:
            return f"{len(self.broken)} of {total} laws broken"
        if not self.held:
            return "nothing compared"
        return f"{len(self.held)}/{total} laws" + (f", {len(self.unclaimed)} not claimed" if self.unclaimed else "")


def summary(results: Iterable[Result]) -> Summary:
    """The results as one; of none, UNCHECKED."""
    results = list(results)
    broken = [result for result in results if result.status == BROKEN]
    held = [result for result in results if result.status == HOLDS]
    worst = max((result.worst for result in broken or held), default=0.0)
    partly = bool(held) and any(result.status == NOT_CLAIMED for result in results)
    if broken:
        status, words = BROKEN, f"BROKEN {len(broken)}/{len(results)}"
    elif held:
        status, words = HOLDS, "exact" if worst == 0 else "< 0.01" if worst < 0.01 else f"{worst:.2f}"
    else:
        status, words = (NOT_CLAIMED, "not claimed") if results else (UNCHECKED, "—")
    return Summary(status, words, worst, sum(result.seconds for result in results), partly)


def verdicts(report: Report) -> list[Verdict]:
    """A verdict a backend, in the order of the run."""
    return [_verdict(report, backend) for backend in report.backends]


def _verdict(report: Report, backend: str) -> Verdict:
    found = {law: summary(result for result in report.results if (result.backend, result.law) == (backend, law)).status for law in laws(report)}
    of_status = {status: [law for law in found if found[law] == status] for status in (HOLDS, BROKEN, NOT_CLAIMED)}
    return Verdict(backend, [] if backend in report.unchecked else of_status[HOLDS], of_status[BROKEN], of_status[NOT_CLAIMED])


def laws(report: Report) -> list[str]:
    """The laws of a report in the suite's order, then those that the suite no longer has."""
    found = dict.fromkeys(result.law for result in report.results)
    return [law for law in LAWS if law in found] + [law for law in found if law not in LAWS]


def statement(law: str) -> str:
    """What a law says."""
    return LAWS[law].statement if law in LAWS else "a law of another version of the suite"


def headline(report: Report) -> str:
    """The verdict of a report in one line."""
    broken = list(dict.fromkeys(result.backend for result in report.broken))
    if broken:
        return f"Broken: {', '.join(broken)}"
    return f"Nothing was compared on {', '.join(report.unchecked) or 'any backend'}" if report.unchecked or not report.results else "All laws hold"


def amounts(report: Report) -> str:
    """How much was done: cells, comparisons, draws, seconds."""
    comparisons, examples = (sum(getattr(result, name) for result in report.results) for name in ("comparisons", "examples"))
    broken = f" ({len(report.broken):,} broken)" if report.broken else ""
    return f"{len(report.results):,} cells{broken}, {comparisons:,} comparisons, {examples:,} draws, {report.seconds:,.0f} s"


def failures(report: Report) -> list[Result]:
    """What is broken, backend by backend, law by law."""
    backends, order = report.backends, laws(report)
    return sorted(report.broken, key=lambda result: (backends.index(result.backend), order.index(result.law)))


def first_broken(report: Report) -> list[Result]:
    """The first broken result of every backend and law."""
    first: dict[tuple[str, str], Result] = {}
    for result in failures(report):
        first.setdefault((result.backend, result.law), result)
    return list(first.values())


def facts(result: Result) -> list[tuple[str, str]]:
    """All that is known of a broken result, name by name: the message where there are no numbers to show."""
    found = [("law", statement(result.law))]
    if (failure := result.failure) is None:
        return [*found, ("message", result.message)]
    spec = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in failure.spec.items())
    place = f"{failure.what} at {failure.index}" if failure.index else failure.what
    found += [("spec", spec), ("smallest input", failure.case), ("what", place)]
    if failure.expected is not None:
        found += [("expected", _number(failure.expected)), ("got", _number(failure.got)), ("error", _against(failure.error, failure.allowed))]
    elif result.message != failure.what:
        found += [("message", result.message)]
    return [(name, value) for name, value in [*found, ("likely cause", failure.cause)] if value]


def printable(text: str) -> str:
    """The text with every character that XML forbids (control characters, lone surrogates) written as its escape."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def _number(number: float | None) -> str:
    return "no finite number" if number is None or not math.isfinite(number) else repr(number)


def _against(error: float | None, allowed: float) -> str:
    size = "not finite" if error is None or not math.isfinite(error) else f"{error:.3g}"
    limit = f"where {allowed:.3g} is allowed" if allowed else "where none is allowed: the law is bit for bit"
    return f"{size} {limit}"
