"""The Triton backend: in Triton's interpreter, on a GPU where there is one, compiled without one, and listed without a driver.

Whether Triton interprets is settled when it is imported, so everything that imports it runs in a process of its own.
"""

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tttcore
from ttt_triton.requirements import missing

HERE = Path(__file__).parent
CHECKS = ("triton_checks.py", "triton_decode_checks.py", "triton_mlp_checks.py", "triton_model_checks.py", "triton_scale_checks.py")
SHARED_MEMORY = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
"""Bytes that one program may have, by architecture."""
SPILLED = {
    ("scan", 80): 360,
    ("readout_backward", 80): 2120,
    ("reverse_scan", 80): 968,
    ("training_backward", 80): 1856,
    ("gluon scan with read-outs", 80): 8,
    ("gluon reverse_scan", 80): 48,
    ("scan", 90): 104,
    ("readout_backward", 90): 40,
    ("training_backward", 90): 80,
    ("reverse_scan", 90): 656,
    ("gluon scan of pairs, for their backward pass", 90): 64,
    ("gluon reverse_scan", 90): 32,
    ("gluon backward", 90): 8,
    ("scan", 100): 256,
    ("open_sums", 100): 32,
    ("readout_backward", 100): 72,
    ("gluon reverse_scan", 100): 72,
    ("training_backward", 100): 144,
    ("reverse_scan", 100): 1008,
    ("mlp scan", 80): 688,
    ("mlp reverse_scan", 80): 1896,
    ("mlp readout", 80): 40,
    ("mlp rows_backward", 80): 472,
    ("mlp training_backward", 80): 344,
    ("mlp readout_backward", 80): 1472,
    ("mlp open_sums_backward", 80): 360,
    ("mlp scan, K = 64", 80): 1808,
    ("mlp reverse_scan, K = 64", 80): 3720,
    ("mlp scan, D = 32", 80): 80,
    ("mlp reverse_scan, D = 32", 80): 296,
    ("mlp gluon scan, forward", 80): 136,
    ("mlp gluon scan, backward", 80): 264,
    ("mlp scan", 90): 208,
    ("mlp reverse_scan", 90): 408,
    ("mlp rows_backward", 90): 56,
    ("mlp training_backward", 90): 80,
    ("mlp readout_backward", 90): 24,
    ("mlp open_sums_backward", 90): 40,
    ("mlp scan, K = 64", 90): 1320,
    ("mlp reverse_scan, K = 64", 90): 2752,
    ("mlp scan, D = 32", 90): 24,
    ("mlp gluon scan, forward", 90): 96,
    ("mlp gluon scan, backward", 90): 200,
    ("mlp gluon scan, forward, described", 90): 72,
    ("mlp gluon scan, backward, described", 90): 72,
    ("mlp gluon reverse_scan", 90): 88,
}
"""Bytes of registers that a thread is known to spill, at most (docs/kernels.md says what they cost); other kernels spill none."""


def python(*arguments, interpret=False):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    if interpret:
        environment["TRITON_INTERPRET"] = "1"
    return subprocess.run([sys.executable, *map(str, arguments)], env=environment, cwd=HERE.parents[1], capture_output=True, text=True)


@pytest.fixture
def without_driver(monkeypatch):
    def refuse(name):
        raise OSError(name)

    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(ctypes, "CDLL", refuse)


@pytest.mark.parametrize("checks", CHECKS)
def test_in_the_interpreter(checks):
    run = python("-m", "pytest", "-p", "no:cacheprovider", HERE / checks, interpret=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_all_laws_hold_in_the_interpreter():
    suite = ("--pyargs", "ttt_conformance", "--ttt-backend", "triton", "--ttt-effort", "quick")
    run = python("-m", "pytest", "-p", "no:cacheprovider", *suite, interpret=True)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("checks", [*CHECKS, "triton_gluon_checks.py"])
def test_on_the_gpu(checks, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    if reason := missing():
        pytest.skip(reason.partition(":")[0])
    # Most of the time goes into compiling.
    run = python("-m", "pytest", "-p", "no:cacheprovider", "-n", "auto", HERE / checks)
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_kernels_keep_their_registers(record_property):
    run = python(HERE / "triton_resources.py")
    assert run.returncode == 0, run.stderr
    for found in json.loads(run.stdout):
        record_property(f"sm_{found['arch']} {found['kernel']}", found)
        assert found["stack"] <= SPILLED.get((found["kernel"], found["arch"]), 0), f"registers spill: {found}"
        assert found["registers"] > 16, f"the compiler left nothing of it: {found}"
        assert found["shared"] <= SHARED_MEMORY[found["arch"]], found
        assert not found["overreaching"], found
        assert not found["unwritten"], found


@pytest.mark.usefixtures("without_driver")
def test_the_registry_says_that_there_is_no_driver():
    info = tttcore.backends()["triton"]
    assert not info.available
    assert info.reason.startswith("no NVIDIA driver: ")
    with pytest.raises(tttcore.BackendUnavailable, match=r"got no NVIDIA driver; .* Fix: .* set TRITON_INTERPRET=1"):
        tttcore.get_backend("triton")


@pytest.mark.usefixtures("without_driver")
def test_no_driver_is_needed_in_the_interpreter(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert tttcore.backends()["triton"].available


def test_a_listing_imports_no_framework():
    code = "import sys, tttcore; tttcore.backends(); assert not {'torch', 'triton', 'jax'} & set(sys.modules)"
    assert python("-c", code).returncode == 0


def test_tensors_on_the_cpu_are_refused_where_triton_compiles():
    code = """if True:
        import torch, tttcore
        spec = tttcore.LayerSpec(width=8, heads=2)
        tttcore.get_backend("ttt_triton:BACKEND").layer(spec, tttcore.init(spec, 0), torch.zeros(1, 3, 8))
    """
    assert "does not support device: got tensors on the CPU; expected 'cuda'. Fix: move the tensors to a GPU, or set" in python("-c", code).stderr
