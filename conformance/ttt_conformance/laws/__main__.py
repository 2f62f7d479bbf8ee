"""Print docs/laws.md: ``python -m ttt_conformance.laws > docs/laws.md``."""

from .page import page

print(page(), end="")
