"""Compile every kernel without a GPU and print what it takes, as JSON; ``test_ttt_triton`` runs this without TRITON_INTERPRET.

D = 64, K = 16, bfloat16 tokens of sequences that lie end to end.
"""

import json
import sys
from pathlib import Path

import torch
from triton.experimental.gluon.language import NVMMASharedLayout, bfloat16, float32

from ttt_triton import decode
from ttt_triton.linear import gluon
from ttt_triton.linear.launch import constants
from ttt_triton.linear.open_sums import open_sums
from ttt_triton.linear.readout import readout
from ttt_triton.linear.readout_backward import readout_backward
from ttt_triton.linear.reverse_scan import reverse_scan
from ttt_triton.linear.scan import scan
from ttt_triton.linear.training_backward import training_backward
from ttt_triton.mlp import launch, op_backward
from ttt_triton.mlp import op as mlp
from tttcore import LayerSpec

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from compiled import resources

SIZE, WIDTH = 16, 64
NARROW = ("q", "k", "v", "lr", "y", "dq", "dk", "dv", "dlr", "dy", "G", "Ws", "dG", "normed", "dWs", "dz", "p", "w", "G1", "G2", "X2")
SUMS = tuple(f"{part}_{name}" for part in ("S", "dS") for name in ("W1", "b1", "W2", "b2"))
ABSENT = (*SUMS, "opening", "opening_k", "opening_q", "dopening", "start", "length", "phase", "first", "row", "valid")


def pointers(*more):
    """Element types by argument."""
    return {f"{name}_ptr": "bf16" for name in (*NARROW, *more)} | {f"{name}_ptr": None for name in ABSENT}


def without(*names):
    """Types of pointers that are not given."""
    return {f"{name}_ptr": None for name in names}


def described(boxes, dtype=bfloat16):
    """Types of descriptors, from their boxes."""
    return {name: f"tensordesc<{dtype}{box},{NVMMASharedLayout.get_default_for(box, dtype)!r}>" for name, box in boxes.items()}


def linear(arch):
    """Those of TTT-Linear."""
    for kernel in (scan, readout, open_sums, readout_backward, reverse_scan, training_backward):
        types = pointers("dW") if kernel is readout_backward else pointers()
        yield resources(kernel, arch, types, constants(kernel, torch.bfloat16, WIDTH, SIZE))
    # ℓ of these is float32.
    types = pointers() | {"lr_ptr": "fp32"}
    in_pairs = (
        ("scan of pairs, for their backward pass", gluon.scan, {}),
        ("scan of pairs, without", gluon.scan, without("G", "Ws", "bs", "moments")),
        ("backward", gluon.backward, {}),
    )
    for name, kernel, more in (
        ("scan", gluon.scan, without("q", "y", "moments")),
        ("scan with read-outs", gluon.scan, without("moments")),
        ("reverse_scan", gluon.reverse_scan, {}),
        *(in_pairs if arch == 90 else ()),
    ):
        found = resources(kernel, arch, types | more, constants(kernel, torch.bfloat16, WIDTH, SIZE, pairs="pairs" in name))
        yield found | {"kernel": f"gluon {name}"}


def deep(arch):
    """Those of TTT-MLP; with K = 64 too, where the sequential ones have products of 64 rows."""
    narrow, sequential = torch.bfloat16, launch.SEQUENTIAL
    forward = (mlp.readout, mlp.open_sums)
    backward = (op_backward.rows_backward, op_backward.readout_backward, op_backward.open_sums_backward, op_backward.training_backward)
    types = pointers("W2s", "slope", "curve", "F", "keys", "dX2", "dG1", "dG2", "dz2", "along", "Ls") | dict.fromkeys(
        (f"{name}_ptr" for name in SUMS), "fp32"
    )
    for kernel in (*sequential, *forward, *backward):
        found = resources(kernel, arch, types, launch.constants(kernel, narrow, WIDTH, 4 * WIDTH, SIZE))
        yield found | {"kernel": f"mlp {found['kernel']}"}
    kernel = mlp.keep_weights
    yield resources(kernel, arch, types | {"W1_ptr": "bf16", "W2_ptr": "bf16"}, launch.constants(kernel, narrow, WIDTH, 4 * WIDTH, SIZE))
    for kernel in sequential:
        found = resources(kernel, arch, types, launch.constants(kernel, narrow, WIDTH, 4 * WIDTH, 64))
        yield found | {"kernel": f"mlp {found['kernel']}, K = 64"}
    for kernel in (*sequential, *forward, *backward):
        found = resources(kernel, arch, types, launch.constants(kernel, narrow, WIDTH // 2, 2 * WIDTH, SIZE))
        yield found | {"kernel": f"mlp {found['kernel']}, D = 32"}
    types |= {"lr_ptr": "fp32"}
    tile, line, weights = [4 * WIDTH, SIZE], [SIZE, WIDTH], [4 * WIDTH, WIDTH]
    for hopper in (False, True) if arch >= 90 else (False,):
        boxes = {"X2_to": tile, "G1_to": tile, "G2_to": line, "Ws_to": weights, "W2s_to": weights}
        results = described(boxes) if hopper else dict.fromkeys(boxes, "*bf16")
        for when, kept in (("forward", {"W2s_to": None}), ("backward", {})):
            kernel = launch.gluon.scan
            found = resources(kernel, arch, types | results | kept, launch.constants(kernel, narrow, WIDTH, 4 * WIDTH, SIZE))
            yield found | {"kernel": f"mlp gluon scan, {when}{', described' if hopper else ''}"}
    if arch >= 90:
        kernel = launch.gluon.reverse_scan
        boxes = {"hiddens": [4, 1, *tile], "lines": [4, 1, *line], "keys": [1, *line], "X2": [1, *tile], "W2s": [1, 1, *weights]}
        boxes |= {"dz": [1, *tile], "p": [1, *line], "Ls": [1, *weights], "dWs": [1, 1, *weights]}
        numbers = described({"numbers": [1, SIZE, 4]}, float32)
        found = resources(kernel, arch, types | described(boxes) | numbers, launch.constants(kernel, narrow, WIDTH, 4 * WIDTH, SIZE))
        yield found | {"kernel": "mlp gluon reverse_scan"}


def decoding(arch):
    """Those of a token."""
    tokens = {f"{name}_ptr": "bf16" for name in ("q", "k", "v", "lr", "y")} | {"phase_ptr": "i32", "base_ptr": "i32", "valid_ptr": None}
    for inner, module in (("linear", decode.linear), ("mlp", decode.mlp)):
        options = module.options(LayerSpec(width=WIDTH, heads=1, inner=inner, mini_batch_size=SIZE))
        yield resources(module.step, arch, tokens, options) | {"kernel": f"{inner} step"}


if __name__ == "__main__":
    everywhere = [found for arch in (80, 90, 100) for kernels in (linear, decoding) for found in kernels(arch)]
    json.dump([*everywhere, *deep(80), *deep(90)], sys.stdout)
