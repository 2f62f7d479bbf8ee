"""A clock without a GPU, and a record made up."""

import dataclasses

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

from benchmarks.kernels.record import NO_BACKWARD, WRONG, Record, Result
from ttt_conformance.bench.timing import Timing

BANDWIDTH = 4e12


def result(name, computes, ours, batch, tokens, passes, milliseconds, **changes):
    """A result: 4 GB to move forward, 8 GB with a backward pass; twice that at the peak."""
    least = 8 * 10**9 if passes == "both" else 4 * 10**9
    timing = None if milliseconds is None else Timing(milliseconds, 0.9 * milliseconds, 1.1 * milliseconds, 100)
    made = Result(
        name, computes, ours, "its definition, float64", batch, tokens, passes, error=2e-3, timing=timing, floor_bytes=least, peak_bytes=2 * least
    )
    return dataclasses.replace(made, **changes)


@pytest.fixture
def record():
    """Two shapes; the second kernel of ours has no backward pass, one peer is wrong, one is as it should be."""
    results = []
    for batch, tokens in ((4, 1024), (1, 4096)):
        scale = tokens / 1024
        for passes, slower in (("forward", 1), ("both", 4)):
            results.append(result("TTT-Linear, triton", "TTT-Linear", True, batch, tokens, passes, 2.0 * slower))
            results.append(result("TTT-Linear, torch", "TTT-Linear", True, batch, tokens, passes, 200.0 * slower))
            results.append(result("attention, cuDNN", "attention", False, batch, tokens, passes, 4.0 * slower * scale))
            results.append(result("attention, flash", "attention", False, batch, tokens, passes, 5.0 * slower * scale))
            wrong = {"status": WRONG, "message": "y of Mamba-2: got a relative error of 0.3", "error": None}
            results.append(result("Mamba-2", "Mamba-2", False, batch, tokens, passes, None, **wrong))
        results.append(result("TTT-MLP, triton", "TTT-MLP", True, batch, tokens, "forward", 20.0))
        none = {"status": NO_BACKWARD, "message": "no gradients", "error": None}
        results.append(result("TTT-MLP, triton", "TTT-MLP", True, batch, tokens, "both", None, **none))
    workload = {"heads": 32, "head_dim": 64, "mini_batch_size": 16, "dtype": "bfloat16"}
    return Record("a device", "2026-01-01T00:00:00+00:00", {"torch": "2.11.0"}, workload, BANDWIDTH, results)
