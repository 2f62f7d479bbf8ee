"""Wrong usage, and what is no backend: exit status 2 and a named error, never a traceback; the list of backends, and what is not installed."""

import re
import subprocess
import sys

import pytest
from command import CRASH, backend_module, said, ttt

# Named errors.


@pytest.mark.usefixtures("rest_only")
def test_that_nothing_is_compared_is_an_error(folder):
    source = f"{CRASH}BACKEND = dataclasses.replace(BASE, name='idle', inner_function=crash, supports=tttcore.Supports(forms=()))"
    result = ttt("conform", "--quick", "--backend", backend_module(folder, "idle_backend", source))
    assert result.exit_code == 2, result.output
    assert "claims: got nothing to compare on idle: every law is outside its claims (first: backend 'idle' does not support " in said(result)
    assert "Fix: claim what the backend can do, in Supports." in said(result)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise RuntimeError('no device')", "backend 'bad_backend:BACKEND' is unavailable: got RuntimeError: no device; "),
        ("BACKEND = BASE.inner", "bad_backend:BACKEND: got method; expected a tttcore.Backend. Fix: name the Backend object."),
        ("import sys; sys.exit(0)", "backend 'bad_backend:BACKEND' is unavailable: got SystemExit: 0; "),
    ],
)
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_module_that_is_wrong_is_told(source, message, jobs, folder):
    result = ttt("conform", "--quick", "--backend", backend_module(folder, "bad_backend", source), jobs=jobs)
    assert result.exit_code == 2, result.output
    assert message in said(result)
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["conform", "--backend", "pytorch"], "backend: got 'pytorch'; expected one of ["),
        (["conform", "--quick", "--deep"], "--quick and --deep: got both; expected one of them. Fix: leave one out."),
        *(
            (
                ["conform", f"--{kind}", "no/such/folder/report"],
                f"--{kind}: got no/such/folder/report, in a folder that does not exist; expected a file",
            )
            for kind in ("json", "junit", "html", "badge")
        ),
        (["conform", "--json", "."], "is a directory"),
        (["conform", "--reproducers", __file__], "a file; expected a folder, or a name for one. Fix: choose another."),
        (["conform", "--max-examples", "0"], "Invalid value for '--max-examples': "),
        (["conform", "--jobs", "0"], "Invalid value for '--jobs': "),
        (["conform", "--max-examples", "many"], "Invalid value for '--max-examples': "),
        (["conform", "--backends", "numpy"], "No such option: --backends"),
        (["conform", "numpy"], "Got unexpected extra argument"),
        (["confirm"], "No such command 'confirm'"),
    ],
)
def test_wrong_usage_exits_with_2_before_anything_runs(arguments, message, monkeypatch):
    for name in ("cli.conform", "processes._shares"):
        monkeypatch.setattr(f"ttt_conformance.{name}", lambda *_, **__: pytest.fail("the suite was run"))
    result = ttt(*arguments, jobs=None)
    assert result.exit_code == 2, result.output
    assert message in said(result)


# The other commands.


def test_the_list_of_backends(folder):
    info = folder / "lame_ttt-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        'Metadata-Version: 2.1\nName: lame_ttt\nVersion: 1.0\nProvides-Extra: lame\nRequires-Dist: no-such-framework; extra == "lame"\n'
    )
    (info / "entry_points.txt").write_text("[tttcore.backends]\nlame = lame_backend:BACKEND\n")
    result = ttt("backends")
    assert result.exit_code == 0
    cells = [[cell.strip() for cell in line.split("│")[1:4]] for line in result.output.splitlines() if line.startswith("│")]
    rows = {name: rest for name, *rest in cells}
    assert rows["numpy"] == ["tttcore.backend.numpy_backend:BACKEND", "yes"]
    assert rows["torch"] == ["ttt_torch:BACKEND", "yes"]
    assert rows["lame"] == ["lame_backend:BACKEND", "no-such-framework not installed: pip install 'lame_ttt[lame]'"]


def test_the_commands_of_vectors_are_there():
    result = ttt("vectors", "--help")
    assert result.exit_code == 0
    assert {"export", "verify"} <= set(said(result).split())


@pytest.mark.parametrize("name", ["hypothesis", "jinja2", "matplotlib", "ml_dtypes", "rich", "safetensors", "typer"])
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
    for command in ("backends +List every", "conform +Check every", "diff +Say what changed", "vectors +Frozen vectors"):
        assert re.search(rf"^\W*{command}", done.stdout, re.MULTILINE), command
