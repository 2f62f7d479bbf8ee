"""What a run found, as values and as JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import tempfile
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from tttcore import SPEC_VERSION

SCHEMA_VERSION = 1
HOLDS, BROKEN, NOT_CLAIMED = "holds", "broken", "not claimed"
LIBRARIES = ("tttcore", "numpy", "array-api-compat", "torch", "jax", "jaxlib", "flax", "triton", "hypothesis")


@dataclass(frozen=True)
class Result:
    """One law on one backend, form, subject, inner model and dtype.

    ``worst``: the largest share of its allowance that an error used (0 … 1 while the law holds); ``message``: why it is broken or not claimed.
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
    seconds: float
    message: str = ""


@dataclass(frozen=True)
class Report:
    """All results of a run, with what it ran on."""

    results: list[Result]
    seconds: float
    environment: dict[str, str] = field(default_factory=lambda: environment())

    @property
    def broken(self) -> list[Result]:
        """The results of laws that do not hold."""
        return [result for result in self.results if result.status == BROKEN]

    @property
    def checked(self) -> bool:
        """Whether anything was compared at all."""
        return any(result.comparisons for result in self.results)

    def to_json(self) -> str:
        """The report as JSON; ``schema_version`` and ``spec_version`` tell how to read it."""
        content: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "spec_version": SPEC_VERSION, **dataclasses.asdict(self)}
        return json.dumps(content, indent=1)

    def write(self, path: Path) -> None:
        """Write the JSON whole or not at all."""
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=path.name, delete=False, encoding="utf-8") as file:
            file.write(self.to_json())
        os.replace(file.name, path)


def environment() -> dict[str, str]:
    """Versions of everything that a result can depend on."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
