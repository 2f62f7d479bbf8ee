"""``ttt conform``: exit statuses, the table, the files, efforts and names."""

import dataclasses
import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from command import CRASH, NARROW, WRONG, backend_module, read, said, ttt

from ttt_conformance.laws import LAWS
from ttt_conformance.matrix import EFFORTS, cells
from ttt_conformance.report import Report, Result
from ttt_conformance.report.results import BROKEN, HOLDS, NOT_CLAIMED, SCHEMA_VERSION
from tttcore import SPEC_VERSION, get_backend

# A whole run.


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One whole run on the reference, of two draws a cell."""
    path = tmp_path_factory.mktemp("run") / "report.json"
    result = ttt("conform", "--quick", "--backend", "numpy", "--json", path)
    return result, path


def test_a_right_backend_exits_with_0(run):
    result, path = run
    assert result.exit_code == 0, result.output
    assert "All laws hold" in result.output
    assert f"wrote {path}" in result.output
    quick = {cell.law.name for cell in cells([get_backend("numpy")], EFFORTS["quick"])}
    assert set(LAWS) - quick == {law.name for law in LAWS.values() if law.quick == "never"}
    for law in quick:
        assert f"│ {law} " in result.output


def test_what_is_not_claimed_is_shown_as_such(run):
    result, _ = run
    lines = {line.split("│")[1].strip(): line for line in result.output.splitlines() if line.startswith("│")}
    assert "not claimed" in lines["gradients"]
    assert all("not claimed" not in line for law, line in lines.items() if law != "gradients")
    assert "(partly claimed)" in lines["dtype"]
    assert "exact" in lines["causality"]


def test_the_json(run):
    _, path = run
    content = read(path)
    assert set(content) == {"schema_version", "spec_version", "results", "seconds", "effort", "environment"}
    assert content["schema_version"] == SCHEMA_VERSION
    assert content["spec_version"] == SPEC_VERSION
    assert content["effort"] == "quick"
    assert {"python", "platform", "tttcore", "numpy", "torch", "jax"} <= set(content["environment"])
    assert content["environment"]["tttcore"] != "not installed"
    results = content["results"]
    assert len(results) == len(cells([get_backend("numpy")], EFFORTS["quick"]))
    assert {tuple(result) for result in results} == {tuple(field.name for field in dataclasses.fields(Result))}
    for result in results:
        assert result["backend"] == "numpy"
        claimed = result["law"] != "gradients" and result["dtype"] != "bfloat16"
        assert result["status"] == (HOLDS if claimed else NOT_CLAIMED)
        assert (result["comparisons"] > 0) == (result["examples"] > 0) == claimed
        assert 0 <= result["worst"] <= 1
        assert result["seconds"] >= 0
        assert bool(result["message"]) == (not claimed)
        assert result["failure"] is None
    assert sum(result["seconds"] for result in results) <= content["seconds"]
    assert Report.read(path).effort == "quick"


def test_what_holds_leaves_no_reproducers(run, folder):
    assert (
        ttt("conform", "--quick", "--backend", backend_module(folder, "right", f"BACKEND = dataclasses.replace(BASE, supports={NARROW})")).exit_code
        == 0
    )
    assert [path.name for path in folder.iterdir() if path.name != "__pycache__"] == ["right.py"]


# Something is broken.


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A run on a wrong backend, with every file that there is."""
    folder = tmp_path_factory.mktemp("broken")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        name = backend_module(folder, "wrong_one", WRONG)
        files = [part for kind in ("json", "junit", "html", "badge") for part in (f"--{kind}", f"report.{kind}")]
        return ttt("conform", "--quick", "--backend", "numpy", "--backend", name, *files), folder


def test_a_wrong_backend_exits_with_1(broken):
    result, folder = broken
    assert result.exit_code == 1, result.output
    content = read(folder / "report.json")
    wrong = [row for row in content["results"] if row["status"] == BROKEN]
    assert {row["backend"] for row in wrong} == {"wrong"}
    assert {"reference", "rest", "split"} <= {row["law"] for row in wrong}
    assert all(row["worst"] is None or row["worst"] > 1 for row in wrong)
    assert f"Broken: wrong · {len(content['results'])} cells ({len(wrong)} broken)" in result.output


def test_the_terminal_says_what_is_broken(broken):
    result, folder = broken
    first = next(row for row in read(folder / "report.json")["results"] if row["law"] == "rest" and row["status"] == BROKEN)
    panel = result.output[result.output.index("╭─ wrong: rest broken (dual, inner, linear, float64)") :]
    for name in ("law", "spec", "smallest input", "what", "expected", "got", "error", "reproducer"):
        assert re.search(rf"^│ {name} +\S", panel, re.MULTILINE), name
    assert LAWS["rest"].statement in panel
    assert "B = 1, T = 1, H = 1, D = 4, K = 1, normal input, seed 0" in panel
    assert repr(first["failure"]["got"]) in panel


def test_reproducers_show_what_is_broken(broken):
    result, folder = broken
    scripts = sorted((folder / "ttt-reproducers").glob("*.py"))
    explained = [row for row in read(folder / "report.json")["results"] if row["failure"] and row["failure"]["reproducer"]]
    assert len(scripts) == len(explained) >= 4
    for row in explained:
        path = folder / "ttt-reproducers" / f"wrong-{row['law']}-dual-{row['subject']}-linear-float64.py"
        assert path.read_text(encoding="utf-8") == row["failure"]["reproducer"]
        assert str(path.relative_to(folder)) in result.output
    for path in scripts[:3]:
        done = subprocess.run([sys.executable, "-I", path], capture_output=True, text=True, check=False, cwd="/")
        assert done.returncode == 1, done.stderr
        assert "WRONG, most at" in done.stdout


def test_every_file_is_written(broken):
    result, folder = broken
    for kind in ("json", "junit", "html", "badge"):
        assert f"wrote report.{kind}\n" in result.output
    suites = ElementTree.fromstring((folder / "report.junit").read_text(encoding="utf-8"))
    assert {suite.get("name") for suite in suites.iter("testsuite")} == {"numpy", "wrong"}
    assert len(list(suites.iter("testcase"))) == len(read(folder / "report.json")["results"])
    assert "</html>" in (folder / "report.html").read_text(encoding="utf-8")
    assert (folder / "report.badge").read_text(encoding="utf-8").startswith("<svg")
    assert "wrong: 1" not in result.output
    assert re.search(r"^\*\*TTT conformance\*\* \| numpy: \d+/\d+ laws, .* · wrong: \d+ of \d+ laws broken, spec ", result.output, re.MULTILINE)
    assert sorted(path.name for path in folder.iterdir() if path.suffix == "" or path.name.startswith(".")) in (
        [],
        ["ttt-reproducers"],
        ["__pycache__", "ttt-reproducers"],
    )


@pytest.mark.usefixtures("rest_only")
def test_reproducers_go_where_they_are_told_to(folder):
    name = backend_module(folder, "wrong_one", WRONG)
    result = ttt("conform", "--quick", "--backend", name, "--reproducers", "a/b")
    assert result.exit_code == 1
    assert [path.name for path in (folder / "a/b").iterdir()] == ["wrong-rest-dual-inner-linear-float64.py"]
    assert "a/b/wrong-rest-dual-inner-linear-float64.py" in result.output


@pytest.mark.usefixtures("rest_only")
@pytest.mark.parametrize("name", ["eta_transposed", "torch_no_1_over_d"])
def test_a_mutant_is_a_backend(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ttt_conformance.matrix.LAWS", {"reference": LAWS["reference"]})
    result = ttt("conform", "--quick", "--backend", f"ttt_conformance.mutants:{name}")
    assert result.exit_code == 1, result.output
    assert f"{name}: reference broken (" in result.output
    assert re.search(r"likely cause +\S", result.output)


@pytest.mark.usefixtures("rest_only")
def test_a_backend_that_crashes_exits_with_1(folder):
    name = backend_module(folder, "crashing_backend", f"{CRASH}BACKEND = dataclasses.replace(BASE, name='crashing', inner_function=crash)")
    result = ttt("conform", "--quick", "--backend", name)
    assert result.exit_code == 1
    assert "ZeroDivisionError: a bug" in result.output
    assert "Traceback" not in result.output
    assert not (folder / "ttt-reproducers").exists()


@pytest.mark.usefixtures("rest_only")
def test_an_answer_of_another_shape_is_told(folder):
    source = """
def flat(spec, params, q, k, v, lr):
    return q.reshape(*q.shape[:2], -1)
BACKEND = tttcore.Backend('flat', flat, tttcore.Supports(forms=('dual',), state=False, mask=False, cu_seqlens=False))
"""
    result = ttt("conform", "--quick", "--backend", backend_module(folder, "flat_backend", source))
    assert result.exit_code == 1
    expected = "InvalidAnswer: backend 'flat' returned a wrong y: got shape (1, 1, 4); expected shape (1, 1, 1, 4), as the input. "
    assert f"{expected}Fix: return y in the layout of the input." in said(result)


@pytest.mark.usefixtures("rest_only")
@pytest.mark.parametrize("name", ["bracket[1]", "[/red]"])
def test_brackets_are_shown_as_they_are(folder, name):
    """Messages speak of shapes such as [B, T]; a terminal's markup must not take them for styles."""
    source = f"def crash(*_, **__): raise ValueError('shape [b, t] {name}')\n"
    name_of = backend_module(folder, "bracket_backend", f"{source}BACKEND = dataclasses.replace(BASE, name={name!r}, inner_function=crash)")
    result = ttt("conform", "--quick", "--backend", name_of)
    assert result.exit_code == 1, result.output
    assert f"ValueError: shape [b, t] {name}" in result.output
    assert f"{name}: rest broken (" in result.output


# Efforts and names.


@pytest.mark.usefixtures("rest_only")
@pytest.mark.parametrize(
    ("options", "effort", "examples"),
    [
        ([], "default", EFFORTS["default"].examples),
        (["--quick"], "quick", EFFORTS["quick"].examples),
        (["--deep", "--max-examples", "1"], "deep, 1 example", 1),
        (["--max-examples", "3"], "default, 3 examples", 3),
        (["--quick", "--max-examples", "5"], "quick, 5 examples", 5),
    ],
)
def test_efforts(options, effort, examples, folder):
    name = backend_module(folder, "narrow_backend", f"BACKEND = dataclasses.replace(BASE, name='mine', supports={NARROW})")
    assert ttt("conform", "--backend", name, "--json", "report.json", *options).exit_code == 0
    content = read(folder / "report.json")
    assert content["effort"] == effort
    assert {row["examples"] for row in content["results"] if row["status"] == HOLDS} == {examples}


@pytest.mark.usefixtures("rest_only")
def test_a_backend_named_twice_runs_once(tmp_path):
    path = tmp_path / "report.json"
    assert ttt("conform", "--quick", "--backend", "numpy", "--backend", "numpy", "--json", path).exit_code == 0
    names = [result.name for result in Report.read(path).results]
    assert len(names) == len(set(names)) > 0


@pytest.mark.usefixtures("rest_only")
@pytest.mark.parametrize("jobs", [1, 2])
def test_two_names_of_one_backend_are_refused(jobs):
    result = ttt("conform", "--quick", "--backend", "numpy", "--backend", "tttcore.backend.numpy_backend:BACKEND", jobs=jobs)
    assert result.exit_code == 2
    assert "backends: got two of the name 'numpy'; expected different names. Fix: leave one out, or rename it" in said(result)


def test_the_default_is_every_available_backend(monkeypatch):
    asked = []
    monkeypatch.setattr("ttt_conformance.cli.conform", lambda chosen, *_, **__: asked.extend(chosen) or Report([], 0.0))
    monkeypatch.setattr("ttt_conformance.cli.get_backend", lambda name: dataclasses.replace(get_backend("numpy"), name=name))
    infos = {name: type("Info", (), {"available": name != "lame"}) for name in ("numpy", "lame", "mine")}
    monkeypatch.setattr("ttt_conformance.cli.backends", lambda: infos)
    assert ttt("conform").exit_code == 0
    assert asked == ["numpy", "mine"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_no_backend_is_an_error(jobs, monkeypatch):
    monkeypatch.setattr("ttt_conformance.cli.backends", dict)
    result = ttt("conform", jobs=jobs)
    assert result.exit_code == 2
    assert said(result).endswith("backends: got none; expected at least one. Fix: install one, or name one with --backend.")
