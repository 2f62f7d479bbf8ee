"""The page for other languages: it lists what there is, and its example, which knows nothing but the page, is right."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ttt_conformance.vectors import FOLDER
from ttt_conformance.vectors.catalogue import CATALOGUE
from ttt_conformance.vectors.container import read
from ttt_conformance.vectors.verify import MISSING, OK, verify

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "vectors.md").read_text(encoding="utf-8")
PROGRAM = DOCS / "examples/vectors_in_c/ttt_linear.c"
COMPILER = shutil.which("cc")


def test_every_vector_is_on_the_page():
    rows = [f"| `{entry.name}`{' ∂' if entry.gradients else ''} | {entry.about} | {entry.description} |" for entry in CATALOGUE]
    assert "\n".join(rows) in PAGE
    assert f"{len(PROGRAM.read_text(encoding='utf-8').splitlines())} lines" in PAGE


def test_every_array_is_on_the_page():
    names = {name for entry in CATALOGUE for name in read(FOLDER / f"{entry.name}.safetensors").arrays}
    named = set(re.findall(r"`([a-z_]+)[`.]", PAGE))
    assert {name.partition(".")[0] for name in names} <= named


@pytest.mark.skipif(COMPILER is None, reason="no C compiler (cc) on the path")
def test_the_example_answers_every_vector_that_the_page_says(tmp_path):
    program, answers = tmp_path / "ttt_linear", tmp_path / "answers"
    answers.mkdir()
    subprocess.run([COMPILER, "-std=c99", "-Wall", "-Wextra", "-Werror", "-O2", "-o", program, PROGRAM, "-lm"], check=True)
    names = [f"inner-linear-{name}" for name in re.search(r"for name in (.*); do", PAGE)[1].split()]
    for name in names:
        subprocess.run([program, FOLDER / f"{name}.safetensors", answers / f"{name}.safetensors"], check=True)
    verdicts = verify(answers)
    assert {verdict.name for verdict in verdicts if verdict.status == OK} == set(names), verdicts
    assert {verdict.status for verdict in verdicts} == {OK, MISSING}
    assert all("y" in verdict.compared and "end.phase" in verdict.compared for verdict in verdicts if verdict.status == OK)


@pytest.mark.skipif(COMPILER is None, reason="no C compiler (cc) on the path")
def test_the_example_refuses_what_it_does_not_compute(tmp_path):
    subprocess.run([COMPILER, "-o", tmp_path / "ttt_linear", PROGRAM, "-lm"], check=True)
    for name in ("inner-linear-mask", "inner-linear-packed", "inner-linear-loss", "inner-mlp-initial", "layer-linear-initial"):
        done = subprocess.run([tmp_path / "ttt_linear", FOLDER / f"{name}.safetensors", tmp_path / "answer"], capture_output=True, check=False)
        assert done.returncode == 1, name
        assert not (tmp_path / "answer").exists()
