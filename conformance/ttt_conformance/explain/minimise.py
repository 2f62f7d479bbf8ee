"""The smallest case that still breaks a law: sizes first, which a compiler would pay for at every draw; hypothesis shrinks the rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from ..cases import Case
from ..laws.frozen import Frozen

TRIES = 40
SECONDS = 15.0
"""No more tries after that long: those on a compiling backend take seconds each."""

LEAST_D = 4
"""A LayerNorm over two entries gives ±1 whatever they are, and hides what is wrong."""

Break = Callable[[Any], BaseException | None]
"""What a law is checked on → how it breaks, or None where it holds."""


def smallest(drawn: Any, error: BaseException, breaks: Break) -> tuple[Any, BaseException]:
    """The smallest neighbour of ``drawn`` that breaks in the same way, and how."""
    started, tried, searching = time.perf_counter(), set[Any](), True
    while searching:
        searching = False
        for candidate in smaller(drawn):
            if candidate in tried:
                continue
            if len(tried) == TRIES or time.perf_counter() - started > SECONDS:
                return drawn, error
            tried.add(candidate)
            found = breaks(candidate)
            if found is not None and type(found) is type(error):
                drawn, error, searching = candidate, found, True
                break
    return drawn, error


def smaller(drawn: Any) -> Iterator[Any]:
    """The neighbours of a case that are smaller in one size, those that save most first; of a family, its members; of vectors, each."""
    if isinstance(drawn, Frozen) and len(drawn.names) > 1:
        yield from (drawn._replace(names=(name,)) for name in drawn.names)
    if not isinstance(drawn, Case):
        return
    if drawn.others:
        yield from drawn.family
    shape = drawn.shape
    for length in (0, 1, 2, drawn.length // 2, drawn.length - 1):
        if 0 <= length < drawn.length:
            yield replace(drawn, length=length)
    for name, least in (
        ("batch", 1),
        ("heads", 1),
        ("head_dim", LEAST_D),
        ("mini_batch", 1),
        ("mini_batch", 2),
        ("mini_batch", max(1, shape.mini_batch // 2)),
    ):
        if least < getattr(shape, name):
            yield replace(drawn, shape=shape._replace(**{name: least}))
    if drawn.flavour != "normal":
        yield replace(drawn, flavour="normal")
    if shape.variant != "usual" and shape.head_dim % 2 == 0:  # the usual one has RoPE, which turns pairs
        yield replace(drawn, shape=shape._replace(variant="usual"))
