"""The worked example of docs/backends.md conforms, and is what the page shows."""

import re
from pathlib import Path

import numpy as np
import pytest

from ttt_conformance.matrix import EFFORTS, cells
from ttt_conformance.report.results import HOLDS, NOT_CLAIMED
from ttt_conformance.runner import run
from tttcore import get_backend

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def mine(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS / "examples"))
    return get_backend("my_backend:BACKEND")


@pytest.mark.parametrize("form", ["primal", "decode"])
@pytest.mark.parametrize("law", ["frozen", "reference", "split", "causality", "equivariance", "independence", "rest", "repeat"])
def test_the_example_backend_conforms(law, form, mine):
    chosen = [cell for cell in cells([mine]) if (cell.law.name, cell.form, cell.inner) == (law, form, "linear") and cell.subject != "whole"]
    results = [run(cell, EFFORTS["quick"]) for cell in chosen]
    assert results
    assert [result.message for result in results if result.status != HOLDS] == []


def test_the_example_backend_claims_no_more_than_it_has(mine):
    others = [
        cell for cell in cells([mine]) if cell.law.name == "reference" and (cell.form == "dual" or cell.inner == "mlp" or cell.subject == "whole")
    ]
    assert {run(cell, EFFORTS["quick"]).status for cell in others} == {NOT_CLAIMED}


def test_the_page_about_backends_shows_the_example(mine, capsys):
    page = (DOCS / "backends.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert blocks[0] == (DOCS / "examples/my_backend.py").read_text(encoding="utf-8")
    exec(compile(blocks[1], "backends.md", "exec"), {})
    assert float(capsys.readouterr().out) < 1e3 * np.finfo(np.float64).eps, "rounding, the page says"
