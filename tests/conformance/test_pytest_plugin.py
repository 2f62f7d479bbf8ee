"""The suite under pytest, run as its users run it: in a folder of their own, in every way of importing, and in several processes."""

import dataclasses
import os
import re
import subprocess
import sys

import pytest
from wrong import NARROW as CLAIMS

from ttt_conformance.matrix import EFFORTS, cells
from ttt_conformance.pytest_plugin import _deviations
from tttcore import get_backend

NARROW = dataclasses.replace(CLAIMS, dtypes=("float64",))

BACKENDS = """
import dataclasses, tttcore

NUMPY = tttcore.get_backend("numpy")
NARROW = tttcore.Supports(forms=("dual",), inner=("linear",), dtypes=("float64",), mask=False, cu_seqlens=False)
RIGHT = dataclasses.replace(NUMPY, name="right", supports=NARROW)


def inner(*given, **options):
    y, state = NUMPY.inner_function(*given, **options)
    return 1.5 * y, state


def crash(*given, **options):
    raise ZeroDivisionError("a bug")


WRONG = dataclasses.replace(NUMPY, name="wrong", inner_function=inner, supports=NARROW)
CRASHING = dataclasses.replace(NUMPY, name="crashing", inner_function=crash, supports=NARROW)
IDLE = dataclasses.replace(NUMPY, name="idle", inner_function=crash, supports=tttcore.Supports(inner=("none",)))
"""
REST = "wrong-rest-dual-inner-linear-float64"
OK, FAILED, USAGE, NO_TESTS = 0, 1, 4, 5


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "theirs.py").write_text(BACKENDS, encoding="utf-8")
    return tmp_path


def python(folder, *arguments):
    # CI and BUILD_NUMBER make pytest print whole messages twice: in the failure, and in the short summary.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV", "CI", "BUILD_NUMBER"))}
    path = os.pathsep.join(filter(None, [str(folder), environment.get("PYTHONPATH")]))
    environment |= {"PYTHONPATH": path, "COLUMNS": "200"}
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=folder, env=environment, capture_output=True, text=True, check=False)


def conform(folder, backend, *options, laws="rest", effort="quick"):
    """Exit status and output."""
    several = ("-k", laws) if laws else ()
    suite = ("-m", "pytest", "-p", "no:cacheprovider", "--pyargs", "ttt_conformance", "--ttt-backend", backend, "--ttt-effort", effort)
    done = python(folder, *suite, *several, *options)
    return done.returncode, done.stdout + done.stderr


def counts(output):
    """How many passed, failed and so on."""
    summary = next(line for line in reversed(output.splitlines()) if re.search(r" in [\d.]+s", line))
    return {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", summary)}


@pytest.mark.parametrize("mode", ["prepend", "append", "importlib"])
def test_a_right_backend_passes_however_tests_are_imported(mode, folder):
    status, output = conform(folder, "numpy", "--import-mode", mode, "-v", laws="reference and linear")
    assert status == OK, output
    found = counts(output)
    assert found["passed"] >= 4
    assert "failed" not in found
    assert re.search(r"test_law\[numpy-reference-dual-inner-linear-float64\] PASSED", output)
    assert not (folder / "ttt-reproducers").exists()


@pytest.mark.parametrize("distribution", ["load", "loadgroup"])
def test_it_runs_in_several_processes(distribution, folder):
    status, output = conform(folder, "theirs:RIGHT", "-n", "2", "--dist", distribution, laws="rest or mask")
    assert status == OK, output
    narrow = dataclasses.replace(get_backend("numpy"), name="right", supports=NARROW)
    chosen = [cell for cell in cells([narrow], EFFORTS["quick"]) if cell.law.name in ("rest", "mask")]
    found = counts(output)
    assert found["passed"] == 1
    assert found["passed"] + found["skipped"] == len(chosen)


def test_several_backends_in_one_run(folder):
    status, output = conform(folder, "theirs:RIGHT", "--ttt-backend", "theirs:WRONG", "-v")
    assert status == FAILED
    assert "right-rest-dual-inner-linear-float64] PASSED" in output
    assert f"{REST}] FAILED" in output


def test_what_is_broken_is_told(folder):
    status, output = conform(folder, "theirs:WRONG", "--ttt-reproducers", "a/b", laws="rest or reference")
    assert status == FAILED, output
    section = output[output.index(f"test_law[{REST}]") :]
    section = section[: section.index("\n__") if "\n__" in section else section.index("\n==")]
    lines = dict(line.split(": ", 1) for line in section.splitlines()[1:] if ": " in line)
    assert lines["law"].startswith("ℓ = 0: ")
    assert 'inner="linear"' in lines["spec"]
    assert lines["smallest input"].startswith("B = 1, T = 1, H = 1, D = 4, K = 1, normal input, seed 0")
    assert lines["what"].startswith("at rest: y at [0, 0, 0, ")
    assert float(lines["got"]) == pytest.approx(1.5 * float(lines["expected"]))
    assert " is allowed" in lines["error"]
    assert lines["reproducer"] == f"a/b/{REST}.py"
    done = python(folder, "-I", lines["reproducer"])
    assert done.returncode == 1, done.stderr
    assert "WRONG, most at" in done.stdout
    assert "runner.py" not in section, "no traceback of the suite's own"


def test_a_known_mistake_is_named(folder):
    status, output = conform(folder, "ttt_conformance.mutants:eta_transposed", laws="reference and dual and inner and linear")
    assert status == FAILED
    assert "likely cause: η indexed by the reading token instead of the writing one (see docs/" in output


def test_a_crash_is_told_by_its_name(folder):
    status, output = conform(folder, "theirs:CRASHING")
    assert status == FAILED
    assert "what: ZeroDivisionError: a bug" in output
    assert "reproducer: " not in output


def test_the_first_failure_of_a_law_is_explained_and_the_others_told(folder):
    status, output = conform(folder, "theirs:WRONG", laws="frozen or rest or reference", effort="default")
    assert status == FAILED
    failed = counts(output)["failed"]
    assert failed > len(re.findall(r"^smallest input: ", output, re.MULTILINE)) == 3
    assert len(re.findall(r"^message: .*: got an error of ", output, re.MULTILINE)) == failed - 3


# What proves nothing.


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "workers"])
def test_a_backend_that_claims_nothing_fails(options, folder):
    status, output = conform(folder, "theirs:IDLE", *options, laws="rest or causality")
    assert status == FAILED, output
    assert counts(output).keys() <= {"skipped", "deselected"}
    assert "ERROR: of backend 'idle' nothing was compared: every law is outside its claims" in output


def test_that_one_backend_is_right_does_not_help_another(folder):
    status, output = conform(folder, "theirs:IDLE", "--ttt-backend", "theirs:RIGHT")
    assert status == FAILED
    assert "of backend 'idle' nothing was compared" in output
    assert "backend 'right'" not in output


def test_the_reason_of_a_skip_is_the_claim(folder):
    status, output = conform(folder, "theirs:RIGHT", "-rs", laws="rest or mask")
    assert status == OK
    assert "not claimed: backend 'right' does not support mask: got a mask; expected None." in output


# Wrong usage.


@pytest.mark.parametrize(
    ("backend", "options", "message"),
    [
        ("pytorch", ["-n", "2"], "ERROR: backend: got 'pytorch'; expected one of ["),
        ("nowhere:BACKEND", [], "ERROR: backend 'nowhere:BACKEND' is unavailable: got ModuleNotFoundError: "),
        ("theirs:RIGHT", ["--ttt-effort", "slow"], "ERROR: effort: got 'slow'; expected one of ['quick', 'default', 'deep']. Fix: use one of these."),
        ("numpy", ["--ttt-backend", "theirs:NUMPY"], "ERROR: backends: got two of the name 'numpy'; expected different names. "),
    ],
)
def test_wrong_usage_is_told(backend, options, message, folder):
    status, output = conform(folder, backend, *options)
    assert status == USAGE, output
    assert message in output
    assert "Traceback" not in output


# Deviations.


def deviating(folder, text, *options, backend="theirs:WRONG", **others):
    path = folder / "deviations.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return conform(folder, backend, "--ttt-deviations", path.name, *options, **others)


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "workers"])
def test_a_known_deviation_is_expected(options, folder):
    status, output = deviating(folder, f'{REST} = "y is scaled on purpose"\n', "-rx", *options)
    assert status == OK, output
    assert counts(output)["xfailed"] == 1
    assert "y is scaled on purpose" in output
    assert not (folder / "ttt-reproducers").exists()


def test_only_the_cell_of_that_id_may_deviate(folder):
    status, output = deviating(folder, f'{REST} = "y is scaled on purpose"\n', laws="rest or reference")
    assert status == FAILED
    assert counts(output)["xfailed"] == 1
    assert counts(output)["failed"] >= 1


@pytest.mark.parametrize(
    ("name", "status"), [("right-rest-dual-inner-linear-float64", "holds"), ("right-mask-dual-inner-linear-float64", "not claimed")]
)
def test_a_deviation_that_is_none_fails(name, status, folder):
    code, output = deviating(folder, f'{name} = "once wrong"\n', backend="theirs:RIGHT", laws="rest or mask")
    assert code == FAILED
    assert f"stale deviation: {name} {status}. Fix: remove it from the file of deviations." in output


def test_a_deviation_of_a_greater_effort_stands_in_the_same_file(folder):
    status, output = deviating(folder, f'{REST} = "scaled"\nwrong-drift-dual-inner-linear-float32 = "scaled, too"\n')
    assert status == OK, output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('wrong-rest = "a law"\n', "--ttt-deviations: got 'wrong-rest'; expected the exact id of a cell of these backends. Fix: remove it from "),
        (
            'right-rest-dual-inner-linear-float64 = "x"\n',
            "--ttt-deviations: got 'right-rest-dual-inner-linear-float64'; expected the exact id of a cell",
        ),
        (f'{REST} = ""\n', f"--ttt-deviations: got '' for '{REST}'; expected a reason. Fix: say in a string why it deviates."),
        (f'{REST} = "  "\n', f"--ttt-deviations: got '  ' for '{REST}'; expected a reason. "),
        (f"{REST} = true\n", f"--ttt-deviations: got True for '{REST}'; expected a reason. "),
        (f"{REST}: y is scaled\n", "expected a TOML file. Fix: see docs/conformance.md."),
        (f'{REST} = "x"\n{REST} = "y"\n', "expected a TOML file. Fix: see docs/conformance.md."),
        (b"\xff\xfe\x00", "expected a TOML file. Fix: see docs/conformance.md."),
    ],
)
def test_a_file_of_deviations_that_makes_no_sense_is_told(text, message, tmp_path):
    path = tmp_path / "deviations.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(pytest.UsageError) as caught:
        _deviations(path, {REST})
    assert str(caught.value).startswith("--ttt-deviations: got ")
    assert message in str(caught.value)


@pytest.mark.parametrize(("text", "message"), [('wrong-rest = "a law"', "got 'wrong-rest'; expected the exact id"), ("wrong-rest: a law", "got dev")])
def test_a_usage_error_is_no_traceback(text, message, folder):
    status, output = deviating(folder, text)
    assert status == USAGE, output
    assert f"ERROR: --ttt-deviations: {message}" in output
    assert "Traceback" not in output


def test_a_file_of_deviations_that_is_missing_is_told(folder):
    with pytest.raises(
        pytest.UsageError, match=r"^--ttt-deviations: got .*missing\.toml: .*; expected a TOML file\. Fix: see docs/conformance\.md\.$"
    ):
        _deviations(folder / "missing.toml", {REST})
    assert _deviations(None, {REST}) == {}


# In everyone's environment.


def test_the_plugin_imports_nothing_until_it_is_used(folder):
    heavy = ("hypothesis", "numpy", "typer", "rich", "torch", "jax", "tttcore", "ttt_conformance.matrix", "ttt_conformance.laws")
    code = f"import sys, ttt_conformance.pytest_plugin; print(*[name for name in {heavy} if name in sys.modules])"
    done = python(folder, "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_a_run_without_it_is_as_it_was(folder):
    test = """import sys

def test_nothing(record_property):
    record_property('a', 1)
    assert not {'tttcore', 'hypothesis', 'ttt_conformance.matrix'} & set(sys.modules)
"""
    (folder / "test_theirs.py").write_text(test)
    done = python(folder, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", "test_theirs.py")
    assert done.returncode == OK, done.stdout
    assert "1 passed" in done.stdout
    assert "nothing was compared" not in done.stdout


def test_the_options_are_told(folder):
    done = python(folder, "-m", "pytest", "--help")
    for option in ("--ttt-backend", "--ttt-effort", "--ttt-reproducers", "--ttt-deviations"):
        assert option in done.stdout
