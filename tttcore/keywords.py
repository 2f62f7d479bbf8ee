"""Unknown keywords are refused with the list of those that exist."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Collection, Iterable
from typing import ParamSpec, TypeVar

from .errors import UnknownKeyword

P = ParamSpec("P")
R = TypeVar("R")


def refuse_unknown(what: str, given: Iterable[str], known: Collection[str]) -> None:
    """Raise ``UnknownKeyword`` when a given name is not among the known ones; the fix names the nearest one."""
    unknown = [name for name in given if name not in known]
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        fix = f"use {near[0]!r}" if near else f"remove {unknown[0]!r}"
        raise UnknownKeyword(f"{what}: unknown keyword", got=unknown, expected=f"some of {sorted(known)}", fix=fix)


def explain_keywords(function: Callable[P, R]) -> Callable[P, R]:
    """The function, with ``UnknownKeyword`` in place of Python's bare TypeError for a keyword that it does not have."""
    known = tuple(name for name in inspect.signature(function).parameters if name != "self")
    what = function.__qualname__.removesuffix(".__init__")

    @functools.wraps(function)
    def explained(*args: P.args, **kwargs: P.kwargs) -> R:
        refuse_unknown(what, kwargs, known)
        return function(*args, **kwargs)

    return explained
