"""What was measured, as JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ttt_conformance.bench.timing import Timing
from tttcore import InvalidInput

SCHEMA_VERSION = 1
TIMED, WRONG, NO_BACKWARD, NOT_CLAIMED, FAILED = "timed", "wrong", "no backward", "not claimed", "failed"
PASSES = ("forward", "both")


@dataclass(frozen=True)
class Result:
    """One pass of one contender at one shape: a status and, where it is not "timed", why; milliseconds, bytes, the relative error of the check.

    floor_bytes: of arguments and y, with a backward pass of their cotangents too; peak_bytes: the most allocated during a call, these included.
    """

    name: str
    computes: str
    ours: bool
    by: str
    batch: int
    tokens: int
    passes: str
    status: str = TIMED
    message: str = ""
    error: float | None = None
    timing: Timing | None = None
    floor_bytes: int | None = None
    peak_bytes: int | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(B, T)."""
        return self.batch, self.tokens


@dataclass(frozen=True)
class Record:
    """A run: device, versions, date, the workload besides B and T, the bytes a second of a copy, and all results."""

    device: str
    date: str
    versions: dict[str, str]
    workload: dict[str, Any]
    copy_bandwidth: float
    results: list[Result] = field(default_factory=list)
    schema: int = SCHEMA_VERSION

    def write(self, path: Path) -> None:
        """As JSON."""
        path.write_text(
            json.dumps(dataclasses.asdict(self) | {"results": [_plain(result) for result in self.results]}, indent=1) + "\n", encoding="utf-8"
        )


def read(path: Path) -> Record:
    """The record that ``write`` wrote; ``InvalidInput`` for anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        results = [Result(**one | {"timing": one["timing"] and Timing(**one["timing"])}) for one in found["results"]]
        record = Record(**found | {"results": results})
    except (OSError, ValueError, KeyError, TypeError) as error:
        got = f"{type(error).__name__}: {error}"
        raise InvalidInput(str(path), got=got, expected="a file of --json", fix="pass one that `python -m benchmarks.kernels` wrote") from error
    if record.schema != SCHEMA_VERSION:
        raise InvalidInput(f"schema of {path}", got=record.schema, expected=SCHEMA_VERSION, fix="measure again with this version")
    return record


def _plain(result: Result) -> dict[str, Any]:
    return dataclasses.asdict(result) | {"timing": result.timing and result.timing._asdict()}
