"""The command line, as far as it goes without a GPU."""

import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.kernels import measure
from benchmarks.kernels import run as runs
from benchmarks.kernels.__main__ import SHAPES, SWEEP, TOTAL, main, measured, parser, shapes
from benchmarks.kernels.record import read

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


def test_a_whole_run(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")

    def clock(call):
        call()
        return [2.0]

    monkeypatch.setattr(measure, "copy_bandwidth", lambda device: 1e9)
    for name, pass_ in (("forward", measure.forward), ("both", measure.both)):
        monkeypatch.setitem(runs.MEASURES, name, functools.partial(pass_, clock=clock))
    path = tmp_path / "run.json"
    options = parser().parse_args(["--only", "flash", "--json", str(path), "--plot", str(tmp_path / "run.png")])
    assert measured(shapes("1x8,2x4", 2, 16, 4, "float32"), ["linear"], ["forward", "both"], options, "cpu") == 0
    said = capsys.readouterr()
    assert "attention, flash, 1×8 both: 2.000 ms" in said.err
    assert re.search(r"attention, flash +2\.00 +2\.00 +2\.00 +2\.00 ", said.out)
    assert {result.status for result in read(path).results} == {"timed"}
    assert (tmp_path / "run.png").exists()


def test_no_contender_of_that_name(capsys):
    options = parser().parse_args(["--only", "nobody"])
    assert measured(shapes("1x8", 2, 16, 4, "float32"), ["linear"], ["forward"], options, "cpu") == 2
    assert "--only: got 'nobody'" in capsys.readouterr().err


def test_measuring_needs_no_more_than_torch_triton_and_numpy():
    heavy = ("typer", "rich", "matplotlib", "jinja2", "hypothesis")
    modules = "attention, check, contenders, layers, measure, peers, record, run, table, plot"
    code = f"import sys; from benchmarks.kernels import __main__, {modules}; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
