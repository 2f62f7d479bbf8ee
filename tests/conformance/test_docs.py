"""The page about the suite says what the suite does."""

from pathlib import Path

from ttt_conformance import LAWS

PAGE = (Path(__file__).parents[2] / "docs/conformance.md").read_text(encoding="utf-8")


def test_every_law_is_on_the_page_as_it_is_stated():
    for law in LAWS.values():
        assert f"| {law.name} | {law.statement} |" in PAGE
