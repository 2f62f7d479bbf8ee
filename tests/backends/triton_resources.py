"""Compile the kernels of TTT-Linear without a GPU and print what they take, as JSON; ``test_ttt_triton`` runs this without TRITON_INTERPRET."""

import json
import sys
from pathlib import Path

import torch

from ttt_triton.layout import padded
from ttt_triton.linear.op import constants
from ttt_triton.linear.readout import readout
from ttt_triton.linear.readout_backward import readout_backward
from ttt_triton.linear.reverse_scan import reverse_scan
from ttt_triton.linear.scan import scan
from ttt_triton.linear.training_backward import training_backward

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from compiled import resources

TOKENS = ("q", "k", "v", "lr", "y", "dq", "dk", "dv", "dlr", "dy", "G", "Ws", "dG", "normed", "dWs", "dz", "p")
ABSENT = ("opening", "opening_k", "opening_q", "dopening", "start", "length", "phase", "first", "row")
SIZE, WIDTH = 16, 64


def linear(arch):
    """All kernels for bfloat16 tokens of sequences that lie end to end."""
    pointers = dict.fromkeys((f"{name}_ptr" for name in TOKENS), "bf16") | dict.fromkeys(f"{name}_ptr" for name in ABSENT)
    usual = constants(torch.empty(0, 1, WIDTH, dtype=torch.bfloat16), SIZE)
    for kernel, more in (
        (scan, {"STAGES": 2}),
        (readout, {}),
        (readout_backward, {"K_PAD": padded(SIZE)}),
        (reverse_scan, {"STAGES": 1, "OPENING": False}),
        (training_backward, {}),
    ):
        tokens = pointers | ({"dW_ptr": "bf16"} if kernel is readout_backward else {})
        yield resources(kernel, arch, tokens, usual | more)


if __name__ == "__main__":
    json.dump([found for arch in (80, 90, 100) for found in linear(arch)], sys.stdout)
