"""``ttt``: exit statuses, the table, the JSON."""

import dataclasses
import json
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from ttt_conformance.cli import app
from ttt_conformance.laws import LAWS
from ttt_conformance.results import BROKEN, HOLDS, NOT_CLAIMED, SCHEMA_VERSION, Report, Result
from ttt_conformance.runner import cells
from tttcore import SPEC_VERSION, get_backend


def ttt(command, *arguments, jobs=1):
    """The command's outcome, on a terminal wide enough that nothing is folded; in this process, where a test can change the suite."""
    options = ["--jobs", jobs] if command == "conform" else []
    return CliRunner().invoke(app, [command, *map(str, [*options, *arguments])], env={"COLUMNS": "400", "TERM": "dumb"})


@pytest.fixture
def frozen_only(monkeypatch):
    """The law of the frozen vectors alone: quick, and enough to be broken."""
    laws = {"frozen": LAWS["frozen"]}
    monkeypatch.setattr("ttt_conformance.runner.LAWS", laws)
    monkeypatch.setattr("ttt_conformance.report.LAWS", laws)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder on the path of Python, for backends of a test."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)


def backend_module(folder, name, change):
    source = f"import dataclasses, tttcore\ndef crash(*_, **__): raise ZeroDivisionError('a bug')\nBASE = tttcore.get_backend('numpy')\n{change}\n"
    (folder / f"{name}.py").write_text(source)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One whole run on the reference."""
    path = tmp_path_factory.mktemp("run") / "report.json"
    result = ttt("conform", "--backend", "numpy", "--max-examples", 1, "--json", path)
    return result, path


def test_a_right_backend_exits_with_0(run):
    result, path = run
    assert result.exit_code == 0, result.output
    assert "all laws hold" in result.output
    assert f"wrote {path}" in result.output
    for law in LAWS:
        assert law in result.output


def test_what_is_not_claimed_is_shown_as_such(run):
    result, _ = run
    lines = {line.split()[1]: line for line in result.output.splitlines() if line.startswith("│")}
    assert "not claimed" in lines["gradients"]
    assert all("not claimed" not in lines[law] for law in LAWS if law != "gradients")
    assert "exact" in lines["causality"]


def test_the_json(run):
    _, path = run
    content = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert set(content) == {"schema_version", "spec_version", "results", "seconds", "environment"}
    assert content["schema_version"] == SCHEMA_VERSION == 1
    assert content["spec_version"] == SPEC_VERSION
    assert {"python", "platform", "tttcore", "numpy", "torch", "jax"} <= set(content["environment"])
    assert content["environment"]["tttcore"] != "not installed"
    results = content["results"]
    assert len(results) == len(cells([get_backend("numpy")]))
    assert {tuple(result) for result in results} == {tuple(field.name for field in dataclasses.fields(Result))}
    for result in results:
        assert result["backend"] == "numpy"
        claimed = result["law"] != "gradients"
        assert result["status"] == (HOLDS if claimed else NOT_CLAIMED)
        assert (result["comparisons"] > 0) == claimed
        assert 0 <= result["worst"] <= 1
        assert result["seconds"] >= 0
        assert result["message"] == ("" if claimed else "backend 'numpy' has no gradients")
    assert {result["law"] for result in results} == set(LAWS)
    assert {result["dtype"] for result in results} == {"float64", "float32"}
    assert sum(result["seconds"] for result in results) <= content["seconds"]


def test_processes_find_the_same(folder):
    """Every number but the seconds, in two processes and in one."""
    claims = "supports=tttcore.Supports(forms=('dual',), inner=('linear',), mask=False)"
    backend_module(folder, "small_backend", f"BACKEND = dataclasses.replace(BASE, name='small', {claims})")
    found = []
    for jobs in (1, 2):
        path = folder / f"report-{jobs}.json"
        result = ttt("conform", "--backend", "small_backend:BACKEND", "--max-examples", 1, "--json", path, jobs=jobs)
        assert result.exit_code == 0, result.output
        rows = json.loads(path.read_text(encoding="utf-8"))["results"]
        found.append(sorted(tuple(value for name, value in row.items() if name != "seconds") for row in rows))
    assert found[0] == found[1]
    assert len(found[0]) == len(cells([get_backend("small_backend:BACKEND")]))


@pytest.mark.usefixtures("frozen_only")
@pytest.mark.parametrize("name", ["eta_transposed", "no_1_over_d", "torch_eta_transposed"])
def test_a_wrong_backend_exits_with_1(name, tmp_path):
    path = tmp_path / "report.json"
    result = ttt("conform", "--backend", "numpy", "--backend", f"mutants:{name}", "--json", path)
    assert result.exit_code == 1, result.output
    content = json.loads(path.read_text(encoding="utf-8"))
    broken = [row for row in content["results"] if row["status"] == BROKEN]
    assert {row["backend"] for row in broken} == {name}
    assert all("got an error of" in row["message"] for row in broken)
    assert f"{len(broken)} cells broken" in result.output
    assert f"BROKEN {len(broken)}/" in result.output
    assert f"{name}: frozen broken (" in result.output


@pytest.mark.usefixtures("frozen_only")
def test_a_backend_that_crashes_exits_with_1(folder):
    backend_module(folder, "crashing_backend", "BACKEND = dataclasses.replace(BASE, name='crashing', inner_function=crash)")
    result = ttt("conform", "--backend", "crashing_backend:BACKEND")
    assert result.exit_code == 1
    assert "ZeroDivisionError: a bug" in result.output


@pytest.mark.usefixtures("frozen_only")
def test_a_backend_named_twice_runs_once(tmp_path):
    path = tmp_path / "report.json"
    assert ttt("conform", "--backend", "numpy", "--backend", "numpy", "--json", path).exit_code == 0
    results = json.loads(path.read_text(encoding="utf-8"))["results"]
    assert len(results) == len({tuple(row[name] for name in ("law", "form", "subject", "inner", "dtype")) for row in results})


@pytest.mark.usefixtures("frozen_only")
@pytest.mark.parametrize("claims", ["forms=()", "inner=('none',)", "dtypes=()", "dtypes=('bfloat16',)"])
def test_that_nothing_is_compared_is_an_error(folder, claims):
    change = f"BACKEND = dataclasses.replace(BASE, name='idle', inner_function=crash, supports=tttcore.Supports({claims}))"
    backend_module(folder, "idle_backend", change)
    result = ttt("conform", "--backend", "idle_backend:BACKEND")
    assert result.exit_code == 2, result.output
    assert "nothing was compared" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["conform", "--backend", "pytorch"], "backend: got 'pytorch'; expected one of ["),
        (["conform", "--backend", "no_such_module:BACKEND"], "backend 'no_such_module:BACKEND' is unavailable: got ModuleNotFoundError"),
        (["conform", "--backend", "json:dumps"], "json:dumps: got function; expected a tttcore.Backend. Fix: "),
        (["conform", "--json", "no/such/folder/report.json"], "in a folder that does not exist; expected a file in an existing folder. Fix: create "),
        (["conform", "--json", "."], "is a directory"),
        (["conform", "--max-examples", "0"], "Invalid value for '--max-examples': "),
        (["conform", "--jobs", "0"], "Invalid value for '--jobs': "),
        (["conform", "--max-examples", "many"], "Invalid value for '--max-examples': "),
        (["conform", "--backends", "numpy"], "No such option: --backends"),
        (["conform", "numpy"], "Got unexpected extra argument"),
        (["confirm"], "No such command 'confirm'"),
    ],
)
def test_wrong_usage_exits_with_2_before_anything_runs(arguments, message, monkeypatch):
    monkeypatch.setattr("ttt_conformance.cli.conform", lambda *_: pytest.fail("the suite was run"))
    result = ttt(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.output


def test_the_list_of_backends(folder):
    info = folder / "lame_ttt-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text('Metadata-Version: 2.1\nName: lame-ttt\nVersion: 1.0\nRequires-Dist: no-such-framework; extra == "lame"\n')
    (info / "entry_points.txt").write_text("[tttcore.backends]\nlame = lame_backend:BACKEND\n")
    result = ttt("backends")
    assert result.exit_code == 0
    cells = [[cell.strip() for cell in line.split("│")[1:4]] for line in result.output.splitlines() if line.startswith("│")]
    rows = {name: rest for name, *rest in cells}
    assert rows["numpy"] == ["tttcore.backend.numpy_backend:BACKEND", "yes"]
    assert rows["torch"] == ["ttt_torch:BACKEND", "yes"]
    assert rows["lame"] == ["lame_backend:BACKEND", "no-such-framework not installed: pip install 'lame-ttt[lame]'"]


@pytest.mark.usefixtures("frozen_only")
@pytest.mark.parametrize("name", ["bracket[1]", "[/red]"])
def test_brackets_are_shown_as_they_are(folder, name):
    """Messages speak of shapes such as [B, T]; a terminal's markup must not take them for styles."""
    change = f"def crash(*_, **__): raise ValueError('shape [b, t] {name}')\n"
    backend_module(folder, "bracket_backend", f"{change}BACKEND = dataclasses.replace(BASE, name='mine', inner_function=crash)")
    result = ttt("conform", "--backend", "bracket_backend:BACKEND")
    assert result.exit_code == 1, result.output
    assert f"ValueError: shape [b, t] {name}" in result.output


def test_the_default_is_every_available_backend(monkeypatch):
    asked = []
    monkeypatch.setattr("ttt_conformance.cli.conform", lambda chosen, *_: asked.extend(chosen) or Report([], 0.0))
    monkeypatch.setattr("ttt_conformance.cli.get_backend", lambda name: dataclasses.replace(get_backend("numpy"), name=name))
    infos = {name: type("Info", (), {"available": name != "lame"}) for name in ("numpy", "lame", "mine")}
    monkeypatch.setattr("ttt_conformance.cli.backends", lambda: infos)
    assert ttt("conform").exit_code == 2
    assert [backend.name for backend in asked] == ["numpy", "mine"]


@pytest.mark.parametrize("name", ["hypothesis", "rich", "safetensors", "typer"])
def test_a_missing_requirement_says_what_to_install(name):
    hide = f"""
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda wanted, *rest: None if wanted == {name!r} else find(wanted, *rest)
sys.modules[{name!r}] = None
from ttt_conformance.main import main
main()
"""
    done = subprocess.run([sys.executable, "-c", hide], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr == f"ttt needs {name}: pip install 'tttcore[conformance]'\n"


def test_the_script_is_the_command():
    call = "import sys; sys.argv = ['ttt', '--help']; from ttt_conformance.main import main; main()"
    done = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\W*backends\s+List every", done.stdout, re.MULTILINE)
    assert re.search(r"^\W*conform\s+Check every", done.stdout, re.MULTILINE)
