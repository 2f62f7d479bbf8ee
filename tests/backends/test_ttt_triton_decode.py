"""The Triton decoder: in Triton's interpreter, on a GPU where there is one, compiled without one; each in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ttt_triton.requirements import missing

HERE = Path(__file__).parent


def python(*arguments, interpret=False):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    if interpret:
        environment["TRITON_INTERPRET"] = "1"
    return subprocess.run([sys.executable, *map(str, arguments)], env=environment, cwd=HERE.parents[1], capture_output=True, text=True)


def test_in_the_interpreter():
    run = python("-m", "pytest", "-p", "no:cacheprovider", HERE / "triton_decode_checks.py", interpret=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_on_the_gpu(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    if reason := missing():
        pytest.skip(reason.partition(":")[0])
    run = python("-m", "pytest", "-p", "no:cacheprovider", HERE / "triton_decode_checks.py")
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_kernels_keep_their_registers(record_property):
    run = python(HERE / "triton_decode_resources.py")
    assert run.returncode == 0, run.stderr
    for found in json.loads(run.stdout):
        record_property(f"{found['inner']} D = {found['width']} sm_{found['arch']} {found['dtype']}", found)
        assert found["stack"] == 0, f"registers spill: {found}"
