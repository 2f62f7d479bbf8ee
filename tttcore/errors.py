"""The errors of the project: each says what it got, what it expected and how to fix it."""

from __future__ import annotations


class InvalidInput(ValueError):
    """An argument breaks the contract; raised before anything is computed.

    The message reads ``<what>: got <got>; expected <expected>. Fix: <fix>.``
    """

    def __init__(self, what: str, *, got: object, expected: object, fix: str) -> None:
        super().__init__(f"{what}: got {got}; expected {expected}. Fix: {fix}.")
        self.what = what


class UnknownKeyword(InvalidInput, TypeError):
    """A keyword that the callable does not have."""


class Unsupported(NotImplementedError):
    """A valid request that this backend does not implement; it never falls back by itself."""

    def __init__(self, backend: str, *, field: str, got: object, expected: object, fix: str) -> None:
        super().__init__(f"backend {backend!r} does not support {field}: got {got}; expected {expected}. Fix: {fix}.")
        self.backend = backend
        self.field = field


class InvalidAnswer(RuntimeError):
    """A backend returned something that is no answer: not an output or a state of the shapes that the spec asks for."""

    def __init__(self, backend: str, *, what: str, got: object, expected: object, fix: str) -> None:
        super().__init__(f"backend {backend!r} returned a wrong {what}: got {got}; expected {expected}. Fix: {fix}.")
        self.backend = backend


class BackendUnavailable(ImportError):
    """A registered backend cannot be loaded here; the message holds the line that mends it."""

    def __init__(self, backend: str, *, got: object, expected: object, fix: str) -> None:
        super().__init__(f"backend {backend!r} is unavailable: got {got}; expected {expected}. Fix: {fix}.")
        self.backend = backend
