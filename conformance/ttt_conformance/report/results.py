"""What a run found, as values and as JSON (docs/report.md describes every field)."""

from __future__ import annotations

import dataclasses
import json
import math
import platform
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from tttcore import SPEC_VERSION, InvalidInput

from .files import write_whole

SCHEMA_VERSION = 2
HOLDS, BROKEN, NOT_CLAIMED = "holds", "broken", "not claimed"
LIBRARIES = ("tttcore", "numpy", "array-api-compat", "torch", "jax", "jaxlib", "flax", "triton", "hypothesis")

SHARE_EDGES = (0.0, 1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0, 10.0, 1e3, 1e6, math.inf)
"""Errors are counted by their share of the allowance: exactly 0, then up to each further edge; above 1 the law is broken."""


@dataclass(frozen=True)
class Failure:
    """The smallest failure that was found of a law.

    ``what`` was compared; ``index`` is where the error is largest, and ``got``, ``expected`` the numbers there (``None``: there is none, or it is not
    finite); ``error`` and ``allowed`` are in the same unit; ``case`` describes the input and ``spec`` the layer; ``cause`` is a known mistake that
    gives the same answer, or empty; ``reproducer`` is the text of a script that needs NumPy alone, or empty.
    """

    what: str
    index: list[int]
    got: float | None
    expected: float | None
    error: float | None
    allowed: float
    case: str
    spec: dict[str, Any]
    cause: str = ""
    reproducer: str = ""


@dataclass(frozen=True)
class Point:
    """One place of a long sequence: the largest error up to that token, and what was allowed there."""

    token: int
    error: float
    allowed: float


@dataclass(frozen=True)
class Result:
    """One law on one backend, form, subject, inner model and dtype.

    ``worst``: the largest share of its allowance that an error used (0 … 1 while the law holds); ``shares``: how many comparisons fell between
    the ``SHARE_EDGES``; ``curve``: errors along a long sequence, from the law of drift; ``message``: why it is broken or not claimed.
    """

    backend: str
    law: str
    form: str
    subject: str
    inner: str
    dtype: str
    status: str
    worst: float
    comparisons: int
    examples: int
    seconds: float
    message: str = ""
    shares: list[int] = field(default_factory=lambda: [0] * len(SHARE_EDGES))
    curve: list[Point] = field(default_factory=list[Point])
    failure: Failure | None = None

    @property
    def name(self) -> str:
        """The cell's exact id."""
        return "-".join((self.backend, self.law, self.form, self.subject, self.inner, self.dtype))


@dataclass(frozen=True)
class Report:
    """All results of a run, with what it ran on."""

    results: list[Result]
    seconds: float
    effort: str = "default"
    environment: dict[str, str] = field(default_factory=lambda: environment())
    spec_version: str = SPEC_VERSION

    @property
    def broken(self) -> list[Result]:
        """The results of laws that do not hold."""
        return [result for result in self.results if result.status == BROKEN]

    @property
    def backends(self) -> list[str]:
        """The backends, in the order of the run."""
        return list(dict.fromkeys(result.backend for result in self.results))

    @property
    def unchecked(self) -> list[str]:
        """The backends of which nothing at all was compared, and no law is broken: a run that proves nothing."""
        seen = {result.backend for result in self.results if result.comparisons or result.status == BROKEN}
        return [backend for backend in self.backends if backend not in seen]

    def to_json(self) -> str:
        """The report as strict JSON (a number that is not finite is null); ``schema_version`` tells how to read it."""
        content: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "spec_version": self.spec_version, **dataclasses.asdict(self)}
        return json.dumps(_finite(content), indent=1, allow_nan=False)

    def write(self, path: Path) -> None:
        """Write the JSON whole or not at all."""
        write_whole(path, self.to_json())

    @classmethod
    def read(cls, path: Path) -> Report:
        """The report in a file that ``write`` made, with infinity for an error that was not finite.

        ``InvalidInput`` when the file holds none, or one of another schema; ``OSError`` when it cannot be read.
        """
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if (version := content.pop("schema_version")) == SCHEMA_VERSION:
                return cls([_result(**fields) for fields in content.pop("results")], **content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            got = f"{type(error).__name__}: {error}"
            raise InvalidInput(str(path), got=got, expected="a report of ttt conform --json", fix="make one") from error
        raise InvalidInput(f"{path}: schema_version", got=version, expected=SCHEMA_VERSION, fix="make the report again with this version")


def bin_of(share: float) -> int:
    """The index of the bin of ``SHARE_EDGES`` that a share falls into; what is no number counts as infinite."""
    return next((index for index, edge in enumerate(SHARE_EDGES) if share <= edge), len(SHARE_EDGES) - 1)


def environment(libraries: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """Versions of everything that a result can depend on."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in libraries:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _result(worst: float | None, curve: list[dict[str, Any]], failure: dict[str, Any] | None, **fields: Any) -> Result:
    points = [Point(error=_or_infinite(point.pop("error")), **point) for point in curve]
    found = None if failure is None else Failure(error=_or_infinite(failure.pop("error")), **failure)
    return Result(worst=_or_infinite(worst), curve=points, failure=found, **fields)


def _or_infinite(number: float | None) -> float:
    return math.inf if number is None else number


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return None if isinstance(content, float) and not math.isfinite(content) else content
