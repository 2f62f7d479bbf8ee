"""Wrong layers, each with the mistake that it makes: what the suite must find, and what a failure is compared with.

``ttt conform --backend ttt_conformance.mutants:eta_transposed`` must be red, and ``ttt_conformance.mutants:torch_eta_transposed`` too, the same
mistake over another backend.
"""

from __future__ import annotations

from tttcore import Backend

from . import backends, blocks, calls, forward, gradients, model, sequence, state, views
from .mutant import Mutant as Mutant

_ALL = {
    name: mutant for topic in (forward, model, state, sequence, views, calls, gradients, backends, blocks) for name, mutant in topic.MUTANTS.items()
}

MUTANTS = {name: mutant for name, mutant in _ALL.items() if mutant.base == "numpy"}
"""Over the reference, by name: these need no library but NumPy."""
OF_BACKENDS = {name: mutant for name, mutant in _ALL.items() if mutant.base != "numpy"}
"""Over backends that have what the reference has not: gradients, bfloat16, compiled programs."""

BASES = ("numpy", "torch", "jax")


def __getattr__(name: str) -> Backend:
    """A mutant's backend by its name, over another base by ``base_name``."""
    if name in _ALL:
        return _ALL[name].backend(name)
    base, _, rest = name.partition("_")
    if base in BASES and rest in _ALL:
        return _ALL[rest].backend(name, base)
    raise AttributeError(f"module {__name__!r} has no mutant {name!r}")
