"""``ttt bench``: exit statuses, the file, and named errors instead of tracebacks."""

import json
import sys

import pytest
from command import CRASH, WRONG, backend_module, said, ttt

from ttt_conformance import main

TINY = ("--tokens", 24, "--heads", 2, "--head-dim", 4, "--mini-batch-size", 4, "--seconds", 0)
DEAD = """
import os
BACKEND = dataclasses.replace(BASE, name='dead', inner_function=lambda *given, **options: os._exit(3))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, empty and on the path of Python, for backends of a test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)


def test_a_run(folder):
    result = ttt("bench", *TINY, "--backend", "numpy", "--form", "dual", "--form", "primal", "--no-grad", "--json", "bench.json")
    assert result.exit_code == 0, result.output
    assert "TTT-Linear, B = 1, T = 24, H = 2, D = 4, K = 4, float32" in said(result)
    assert "forward, on this machine, for this shape: numpy (" in said(result)
    found = json.loads((folder / "bench.json").read_text(encoding="utf-8"))
    assert [(row["backend"], row["form"], row["status"]) for row in found["results"]] == [("numpy", "dual", "timed"), ("numpy", "primal", "timed")]


@pytest.mark.parametrize(
    ("source", "status", "dtype"),
    [(WRONG, "wrong. y of ", "float64"), (CRASH + "BACKEND = dataclasses.replace(BASE, inner_function=crash)", "failed. Zero", "float32")],
    ids=["wrong", "crash"],
)
def test_a_bad_backend_is_status_1(folder, source, status, dtype):
    name = backend_module(folder, "bad", source)
    result = ttt("bench", *TINY, "--backend", name, "--no-grad", "--dtype", dtype)
    assert result.exit_code == 1, result.output
    assert f"{name} (dual): {status}" in said(result)


def test_a_process_that_dies_is_a_finding(folder):
    name = backend_module(folder, "dead", DEAD)
    result = ttt("bench", *TINY, "--backend", name, "--backend", "numpy", "--no-grad")
    assert result.exit_code == 1
    assert "failed. Its process died" in said(result)
    assert "for this shape: numpy (dual)" in said(result)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--tokens", 0],
        ["--dtype", "int8"],
        ["--inner", "gru"],
        ["--form", "triple"],
        ["--backend", "nobody"],
        ["--backend", "no_module:BACKEND"],
        ["--json", "no/such/file"],
        ["--backend", "numpy", "--dtype", "bfloat16", "--no-grad"],
    ],
    ids=lambda arguments: " ".join(map(str, arguments)),
)
def test_usage(folder, arguments):
    result = ttt("bench", *TINY, *arguments)
    assert result.exit_code == 2
    assert all(word in result.output for word in ("got", "expected", "Fix"))
    assert "Traceback" not in result.output


@pytest.mark.parametrize(("command", "alone"), [("bench", True), ("conform", False)])
def test_what_is_timed_runs_as_users_run_it(monkeypatch, command, alone):
    for name in ("OMP_NUM_THREADS", "JAX_DISABLE_MOST_OPTIMIZATIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "argv", ["ttt", command, "--help"])
    with pytest.raises(SystemExit):
        main.main()
    assert ("OMP_NUM_THREADS" not in main.os.environ) == alone


@pytest.mark.parametrize(("command", "alone"), [("bench", True), ("train", False)])
def test_threads_that_wait_for_others_sleep(monkeypatch, command, alone):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setattr(sys, "argv", ["ttt", command, "--help"])
    with pytest.raises(SystemExit):
        main.main()
    assert ("GOMP_SPINCOUNT" not in main.os.environ) == alone
