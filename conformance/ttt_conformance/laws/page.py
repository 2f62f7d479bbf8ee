"""The page about the laws, made from the laws themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from . import LAWS
from .law import Law, Scope

HEAD = """# The laws

Made from the law objects by `python -m ttt_conformance.laws > docs/laws.md`; a test compares. How a run uses them: [conformance.md](conformance.md);
the rule for what is allowed: [allowances.md](allowances.md); the letters: [glossary.md](glossary.md).

| law | statement |
| --- | --- |
"""


def page() -> str:
    """The page, in Markdown."""
    rows = "".join(f"| [{law.name}](#{law.name.replace(' ', '-')}) | {law.statement} |\n" for law in LAWS.values())
    return HEAD + rows + "".join(map(_section, LAWS.values()))


def _section(law: Law) -> str:
    lines = [
        f"- **Statement.** {law.statement}.",
        f"- **How.** {_words(law.check)}",
        f"- **Draws.** {_words(law.draws)}",
        f"- **Allowed.** {law.allowed.replace('the rule', '[the rule](allowances.md)')}.",
        f"- **Where.** {'; '.join(_places(law))}.",
    ]
    return "\n".join(["", f"## {law.name}", "", *lines, ""])


def _words(function: object) -> str:
    """The docstring, as one paragraph."""
    return " ".join((inspect.getdoc(function) or "").split()).replace("``", "`")


def _places(law: Law) -> Iterator[str]:
    for scope in law.scopes:
        yield f"{scope.subject}: {', '.join(scope.inner)}; {', '.join(scope.forms)}; {_dtypes(scope)}{' (effort deep)' if scope.deep else ''}"


def _dtypes(scope: Scope) -> str:
    return ", ".join(dtype or "the widest dtype claimed" for dtype in scope.dtypes)
