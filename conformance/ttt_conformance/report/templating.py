"""Pages and badges are filled in from the templates beside this module; whatever a message holds is shown, never obeyed."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from .summary import printable

_TEMPLATES = Environment(
    loader=PackageLoader("ttt_conformance.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def filled(template: str, **values: object) -> str:
    """The template of that name with the values in it, escaped."""
    return printable(_TEMPLATES.get_template(template).render(values))
