"""The files that a run writes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from . import badge, html, junit
from .files import write_whole
from .results import Report, Result

MAKERS: dict[str, Callable[[Report], str]] = {"json": Report.to_json, "junit": junit.document, "html": html.page, "badge": badge.svg}


def write_files(report: Report, files: Mapping[str, Path | None]) -> Iterator[str]:
    """Write the report in the formats that have a file, and say so line by line; with a badge comes the line for a README."""
    for kind, path in files.items():
        if path is not None:
            write_whole(path, MAKERS[kind](report))
            yield f"wrote {path}"
            if kind == "badge":
                yield badge.line(report)


def write_reproducers(results: Iterable[Result], folder: Path) -> dict[str, Path]:
    """Write the script of each failure that has one into the folder, made if need be; the paths by ``Result.name``."""
    written: dict[str, Path] = {}
    for result in results:
        if result.failure is not None and result.failure.reproducer:
            folder.mkdir(parents=True, exist_ok=True)
            written[result.name] = folder / (re.sub(r"[^\w.-]+", "-", result.name) + ".py")
            write_whole(written[result.name], result.failure.reproducer)
    return written
