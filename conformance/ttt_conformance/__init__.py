"""The conformance suite: laws that every TTT backend must satisfy, checked on draws and on real text."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .laws import LAWS
    from .report import table
    from .results import Report, Result
    from .runner import conform

__all__ = ("LAWS", "Report", "Result", "conform", "table")

_HOMES = {"LAWS": "laws", "Report": "results", "Result": "results", "conform": "runner", "table": "report"}


def __getattr__(name: str) -> object:
    """A public name, imported when it is asked for: ``ttt`` must get as far as to say which of the suite's requirements is missing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
