"""What the pages say of the suite is so."""

import re
from pathlib import Path

import pytest

from ttt_conformance import LAWS
from ttt_conformance.explain.minimise import LEAST_D, SECONDS, TRIES
from ttt_conformance.laws.page import page
from ttt_conformance.matrix import EFFORTS, cells
from ttt_conformance.mutants import MUTANTS, OF_BACKENDS
from ttt_conformance.report.results import SCHEMA_VERSION
from ttt_conformance.shapes import shapes_within
from tttcore import Supports, get_backend

ROOT = Path(__file__).parents[2]
DECISIONS = (ROOT / "docs/decisions.md").read_text(encoding="utf-8")


def decision(number: int) -> str:
    """The text of a decision, in one line."""
    (found,) = re.findall(rf"^### {number}\. .*?(?=^##|\Z)", DECISIONS, re.DOTALL | re.MULTILINE)
    return " ".join(found.split())


def test_the_page_of_laws_is_that_of_the_laws():
    assert (ROOT / "docs/laws.md").read_text(encoding="utf-8") == page(), "python -m ttt_conformance.laws > docs/laws.md"


def test_the_readme_has_a_row_for_every_law():
    rows = re.findall(r"^\| ([^|]+) \|(?: [^|]+ \|){5}$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert rows[2 if rows[1].startswith("---") else 1 :] == list(LAWS)


def test_the_page_about_the_suite_shows_the_adapter_as_it_is():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/conformance.md").read_text(encoding="utf-8"), re.DOTALL)
    assert blocks[0] == (ROOT / "docs/examples/outside/outside_layer.py").read_text(encoding="utf-8")


def test_sizes_follow_the_claims():
    """Decision 36."""
    some = shapes_within(Supports(head_dims=(4,), mini_batch_sizes=(1, 4)), "inner")
    assert {(shape.head_dim, shape.mini_batch) for shape in some} == {(4, 4), (4, 1)}
    (only,) = shapes_within(Supports(head_dims=(64, 128), mini_batch_sizes=range(16, 65)), "inner")
    assert (only.head_dim, only.mini_batch) == (64, 16)
    (only,) = shapes_within(Supports(head_dims=(4, 64), mini_batch_sizes=(16,)), "inner")
    assert (only.head_dim, only.mini_batch) == (4, 16)


def test_what_quick_leaves_out():
    """Decision 37."""
    quick, default = (cells([get_backend("numpy")], EFFORTS[name]) for name in ("quick", "default"))
    assert {cell.name for cell in quick} < {cell.name for cell in default} < {cell.name for cell in cells([get_backend("numpy")], EFFORTS["deep"])}
    assert not [cell for cell in quick if (cell.subject, cell.inner) == ("layer", "mlp") or cell.law.name == "drift"]
    assert {(cell.subject, cell.inner) for cell in quick if cell.form != "dual"} == {("inner", "linear")}
    for name in ("quick", "default", "deep"):
        assert f"*{name}*: {EFFORTS[name].examples} draws" in decision(37)


def test_numbers_in_decisions():
    for law, words in (("gradients", "four"), ("drift", "eight")):
        assert {4: "four", 8: "eight"}[LAWS[law].cost] == words
    assert f"{TRIES} tries or {SECONDS:.0f} seconds" in decision(38)
    assert f"$D$ stays at {LEAST_D} or more" in decision(38)
    assert f"`schema_version` ({SCHEMA_VERSION})" in decision(44)


@pytest.mark.parametrize("name", sorted({*re.findall(r"`(\w+)`", " ".join(re.findall(r"[Mm]utants? (?:`\w+`(?:,| and)?\s*)+", DECISIONS)))} - {"x"}))
def test_mutants_that_decisions_name(name):
    assert name in MUTANTS | OF_BACKENDS


def test_laws_that_decisions_name():
    named = {*re.findall(r"`([a-z ]+)`", " ".join(re.findall(r"[Ll]aws? (?:`[a-z ]+`(?:,| and)?\s*)+", DECISIONS)))} - {"x"}
    assert named
    assert named <= set(LAWS)
