"""A mutant: a backend that answers with one small change in its source, or in the source of core under it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import inspect
import sys
import textwrap
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from types import CodeType, FunctionType
from typing import Any, cast

import numpy as np

from tttcore import Backend, State, get_backend
from tttcore.arrays import Array


@dataclass(frozen=True)
class Mutant:
    """In the source of ``target`` ("module:function" or "module:Class.method"), ``old`` becomes ``new``.

    ``law``: the law of the suite that finds it; ``cause``: the mistake, told to who made it; ``see``: where that is explained; ``base``: the backend
    that it is made of unless another is asked for.
    """

    target: str
    old: str
    new: str
    law: str
    cause: str
    see: str
    base: str = "numpy"

    @functools.cached_property
    def function(self) -> FunctionType:
        """The function to change, under what decorates it."""
        module, _, path = self.target.partition(":")
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = inspect.getattr_static(found, part)
        found = getattr(found, "fget", None) or getattr(found, "__func__", found)
        return cast("FunctionType", inspect.unwrap(found))

    @functools.cached_property
    def code(self) -> CodeType:
        """The changed function's code."""
        function = self.function
        source = textwrap.dedent(inspect.getsource(function))
        source = source[source.index("def ") :]
        if self.old not in source:
            raise LookupError(f"{self.target} no longer contains {self.old!r}")
        scope: dict[str, Any] = {}
        exec(compile("from __future__ import annotations\n" + source.replace(self.old, self.new), self.target, "exec"), function.__globals__, scope)
        return scope[function.__name__].__code__

    @contextlib.contextmanager
    def applied(self) -> Generator[None]:
        """The change is in the source, for everyone in this process."""
        function, original, code = self.function, self.function.__code__, self.code
        function.__code__ = code
        try:
            yield
        finally:
            function.__code__ = original

    def backend(self, name: str, base: str | None = None) -> Backend:
        """The backend ``base`` with this change in it while it answers."""
        right = _right(self.base if base is None else base)
        fields: dict[str, Any] = {part.name: getattr(right, part.name) for part in dataclasses.fields(Backend) if part.init}
        fields["name"] = name
        return Changed(**fields, mutant=self, programs=own_programs(right.name))


@dataclass(frozen=True)
class Changed(Backend):
    """A backend whose calls run under a mutant's change."""

    mutant: Mutant = field(kw_only=True)
    programs: Callable[[], contextlib.AbstractContextManager[None]] = field(kw_only=True)

    def asarray(self, array: np.ndarray) -> Array:
        """As the right backend's, under the change."""
        with self.mutant.applied():
            return super().asarray(array)

    def inner(self, *arguments: Any, **options: Any) -> tuple[Array, State]:
        """As the right backend's, under the change."""
        with self.mutant.applied(), self.programs():
            return super().inner(*arguments, **options)

    def layer(self, *arguments: Any, **options: Any) -> tuple[Array, State]:
        """As the right backend's, under the change."""
        with self.mutant.applied(), self.programs():
            return super().layer(*arguments, **options)

    def inner_vjp(self, *arguments: Any, **options: Any) -> Any:
        """As the right backend's, under the change."""
        with self.mutant.applied(), self.programs():
            return super().inner_vjp(*arguments, **options)

    def layer_vjp(self, *arguments: Any, **options: Any) -> Any:
        """As the right backend's, under the change."""
        with self.mutant.applied(), self.programs():
            return super().layer_vjp(*arguments, **options)


@functools.cache
def _right(base: str) -> Backend:
    return get_backend(base)


def own_programs(base: str) -> Callable[[], contextlib.AbstractContextManager[None]]:
    """A context in which the backend compiles anew and keeps what it compiled: programs made before do not see a change of source."""
    if base != "jax":
        return contextlib.nullcontext
    module: Any = sys.modules["ttt_jax.backend"]
    right = module.compiled
    mine = functools.lru_cache(module.PROGRAMS)(right.__wrapped__)

    @contextlib.contextmanager
    def swapped() -> Generator[None]:
        module.compiled = mine
        try:
            yield
        finally:
            module.compiled = right

    return swapped
