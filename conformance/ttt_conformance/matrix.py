"""The matrix of a run: which laws are checked on which backend, form, subject, inner model and dtype, and with how much effort."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tttcore import Backend, InvalidInput, Supports

from .cases import Setting
from .laws import LAWS, Law, Scope
from .laws.law import WIDEST
from .shapes import widest

NOT_QUICK = (("layer", "mlp"), ("whole", "mlp"), ("inner", "deep"), ("inner", "swiglu"))
"""Subjects and inner models that the quick effort leaves out: each would be another program to a compiler."""


@dataclass(frozen=True)
class Effort:
    """How much a run does: hypothesis ``examples`` of a plain law in a cell (dear laws get their share of it), and of which cells."""

    name: str
    examples: int
    deep: bool = False
    few: bool = False

    def covers(self, law: Law, scope: Scope, inner: str, form: str, supports: Supports) -> bool:
        """Whether the law is checked there; with few cells, in the dual form of TTT-Linear or in what a backend claims instead."""
        if not self.few:
            return self.deep or not scope.deep
        if scope.deep or law.quick == "never" or (scope.subject, inner) in NOT_QUICK:
            return False
        first = (scope.subject, inner) == ("inner", "linear" if supports.inner is None or "linear" in supports.inner else "mlp")
        usual = form == ("dual" if "dual" in supports.forms else next(iter(supports.forms), "dual"))
        return (first or law.quick == "forms") and (usual or (first and law.quick == "forms"))


EFFORTS = {effort.name: effort for effort in (Effort("quick", 2, few=True), Effort("default", 8), Effort("deep", 200, deep=True))}
"""quick: seconds, for a first look; default: minutes; deep: for a night."""


@dataclass(frozen=True)
class Cell:
    """One box of the matrix."""

    backend: Backend
    law: Law
    form: str
    subject: str
    inner: str
    dtype: str

    @property
    def name(self) -> str:
        """Its exact id, as ``Result.name``."""
        return "-".join((self.backend.name, self.law.name, self.form, self.subject, self.inner, self.dtype))

    def setting(self, effort: Effort) -> Setting:
        """What its cases have in common."""
        return Setting(self.subject, self.inner, self.dtype, self.backend.supports, effort.few)


def cells(backends: Iterable[Backend], effort: Effort = EFFORTS["default"]) -> list[Cell]:
    """Every box of the matrix, all laws of a spec and form together: a compiler that keeps few programs then compiles each once.

    Raises ``InvalidInput`` for two backends of one name: their results could not be told apart.
    """
    backends = list(backends)
    names = [backend.name for backend in backends]
    if twice := [name for name in names if names.count(name) > 1]:
        fix = "leave one out, or rename it: dataclasses.replace(backend, name=…)"
        raise InvalidInput("backends", got=f"two of the name {twice[0]!r}", expected="different names", fix=fix)
    every = (
        Cell(backend, law, form, scope.subject, inner, dtype)
        for backend in backends
        for law in LAWS.values()
        for scope in law.scopes
        for dtype in (widest(backend.supports) if dtype == WIDEST else dtype for dtype in scope.dtypes)
        for inner in scope.inner
        for form in scope.forms
        if effort.covers(law, scope, inner, form, backend.supports)
    )
    apart = {cell.name: cell for cell in every}  # scopes of a law may overlap
    return sorted(apart.values(), key=lambda cell: (names.index(cell.backend.name), cell.subject, cell.inner, cell.form))
