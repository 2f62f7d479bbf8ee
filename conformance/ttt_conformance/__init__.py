"""The conformance suite: laws that every TTT backend must hold, checked on hypothesis draws and on real text.

``conform(backends)`` returns a ``Report``; ``LAWS`` are the laws by name; ``ttt`` is the command line; with pytest it is
``pytest --pyargs ttt_conformance --ttt-backend NAME``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .laws import LAWS, Law
    from .report import Failure, Report, Result
    from .runner import conform

__all__ = ("LAWS", "Failure", "Law", "Report", "Result", "conform")

_HOMES = {"LAWS": "laws", "Law": "laws", "Failure": "report", "Report": "report", "Result": "report", "conform": "runner"}


def __getattr__(name: str) -> object:
    """A public name, imported when it is asked for: ``ttt`` must get as far as to say which of the suite's requirements is missing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
