"""Which backends there are, found by entry points (group ``tttcore.backends``) without importing any of them.

The group ``tttcore.peers`` is for layers of other projects, which need not compute what this one specifies: they are found by name, but are not
among ``backends()``, which everything that takes all backends goes by.

A distribution that registers a backend NAME and has an extra of the same name tells by that extra's requirements what the backend needs, so
that a listing can say what is missing from package metadata alone. What is no distribution (a driver, a device) is told by a function that it
registers under the same name in the group ``tttcore.requirements``.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import BackendUnavailable, InvalidInput
from .backend import Backend

GROUP = "tttcore.backends"
PEERS = "tttcore.peers"
REQUIREMENTS = "tttcore.requirements"
_BUILT_IN = {"numpy": "tttcore.backend.numpy_backend:BACKEND"}


@dataclass(frozen=True)
class BackendInfo:
    """A registered backend: its name, where it lives, and why it cannot be used here (empty when it can)."""

    name: str
    target: str
    reason: str = ""

    @property
    def available(self) -> bool:
        """Whether everything that the backend declares is here."""
        return not self.reason


def backends() -> dict[str, BackendInfo]:
    """Every registered backend by name, available or why not; imports no framework."""
    return _registered(GROUP, _BUILT_IN)


def peers() -> dict[str, BackendInfo]:
    """Every registered layer of another project, as ``backends()``."""
    return _registered(PEERS, {})


def _registered(group: str, built_in: dict[str, str], only: str | None = None) -> dict[str, BackendInfo]:
    found = {name: BackendInfo(name, target) for name, target in built_in.items()}
    entries = importlib.metadata.entry_points(group=group)
    for entry in sorted(entries if only is None else entries.select(name=only)):
        known = found.get(entry.name)
        if known is None:
            found[entry.name] = BackendInfo(entry.name, entry.value, _missing(entry) or _unmet(entry))
        elif known.target != entry.value:
            reason = f"registered twice, as {known.target} and as {entry.value}: uninstall one of the two distributions"
            found[entry.name] = BackendInfo(entry.name, entry.value, reason)
    return found


def get_backend(name: str) -> Backend:
    """The backend or peer of a registered name, or of "package.module:OBJECT".

    Raises ``InvalidInput`` for an unknown name, ``BackendUnavailable`` with the line that fixes it when it cannot be loaded.
    """
    if ":" in name:
        return _load(name, BackendInfo(name, name))
    # Of that name alone: whether others can be used is asked of their distributions' own code, and takes time.
    found = _registered(PEERS, {}, only=name) | _registered(GROUP, _BUILT_IN, only=name)
    if name not in found:
        known = sorted(peers() | backends())
        raise InvalidInput("backend", got=repr(name), expected=f"one of {known} or 'package.module:OBJECT'", fix="use one of these")
    info = found[name]
    if not info.available:
        got, _, fix = info.reason.rpartition(": ")
        raise BackendUnavailable(name, got=got, expected="everything it needs", fix=fix)
    return _load(name, info)


def _load(name: str, info: BackendInfo) -> Backend:
    module, _, attribute = info.target.partition(":")
    try:
        backend = getattr(importlib.import_module(module), attribute)
    except BackendUnavailable:
        raise
    except (Exception, SystemExit) as error:  # a script, too, may be named by mistake
        got = f"{type(error).__name__}: {error}"
        raise BackendUnavailable(name, got=got, expected=f"{info.target} to import", fix=f"make `import {module}` work") from error
    if not isinstance(backend, Backend):
        raise InvalidInput(info.target, got=type(backend).__name__, expected="a tttcore.Backend", fix="name the Backend object")
    return backend


def _missing(entry: importlib.metadata.EntryPoint) -> str:
    """What the entry point's extra requires and is not installed, as a reason; empty when nothing is missing."""
    absent = [requirement for requirement in _requirements(entry) if not _installed(requirement)]
    if not absent:
        return ""
    distribution = entry.dist.name if entry.dist else "tttcore"
    return f"{', '.join(absent)} not installed: pip install '{distribution}[{entry.name}]'"


def _unmet(entry: importlib.metadata.EntryPoint) -> str:
    """What the distribution's own check of that name says is missing; empty when nothing is, or when there is no check."""
    for check in entry.dist.entry_points.select(group=REQUIREMENTS, name=entry.name) if entry.dist else ():
        try:
            return check.load()()
        except Exception as error:  # one broken distribution must not hide the others from the list
            return f"{check.value} fails ({type(error).__name__}: {error}): install its distribution again"
    return ""


def _requirements(entry: importlib.metadata.EntryPoint) -> Iterator[str]:
    for line in (entry.dist.requires or []) if entry.dist else []:
        requirement, _, marker = line.partition(";")
        if re.search(rf"extra\s*==\s*['\"]{re.escape(entry.name)}['\"]", marker):
            yield re.split(r"[^A-Za-z0-9._-]", requirement.strip(), maxsplit=1)[0]


def _installed(requirement: str) -> bool:
    try:
        importlib.metadata.version(requirement)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
