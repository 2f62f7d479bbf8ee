"""The command line, as far as it goes without a GPU."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.kernels.__main__ import SHAPES, SWEEP, TOTAL, main, shapes

ROOT = Path(__file__).parents[3]


def test_shapes():
    found = shapes(SHAPES, 32, 64, 16, "bfloat16")
    assert [(workload.batch, workload.tokens) for workload in found] == [(16, 2048), (4, 8192), (1, 32768)]
    assert {(workload.heads, workload.head_dim, workload.mini_batch_size, workload.dtype) for workload in found} == {(32, 64, 16, "bfloat16")}


def test_the_sweep_is_of_as_many_tokens():
    found = shapes(SWEEP, 32, 64, 16, "bfloat16")
    assert {workload.positions for workload in found} == {TOTAL}
    assert [found[0].tokens, found[-1].tokens] == [1024, 65536]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--shapes", "16"],
        ["--shapes", "0x16"],
        ["--heads", "0"],
        ["--dtype", "int8"],
        ["--inner", "gru"],
        ["--pass", "back"],
        ["--json", "no/such/file"],
    ],
    ids=" ".join,
)
def test_usage(arguments, capsys):
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in ("got", "expected", "Fix"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(capsys):
    assert main([]) == 2
    assert "GPU: got torch" in capsys.readouterr().err


def test_measuring_needs_no_more_than_torch_triton_and_numpy():
    heavy = ("typer", "rich", "matplotlib", "jinja2", "hypothesis")
    modules = "attention, check, contenders, layers, measure, peers, record, run, table, plot"
    code = f"import sys; from benchmarks.kernels import __main__, {modules}; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
