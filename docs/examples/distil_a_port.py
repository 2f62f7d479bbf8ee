"""How much of the gap does distillation close? A small Llama learns the text of Python's standard library, is ported, and teaches its port.

python docs/examples/distil_a_port.py        # a few minutes on a CPU
"""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from transformers import LlamaConfig, LlamaForCausalLM

from ttt_torch import port
from ttt_torch.porting import distill

LENGTH, ROWS = 128, 8


class Result(NamedTuple):
    """Losses in nats per byte of text that no model saw: of the teacher, and of its port at first, after the first stage and after the second."""

    teacher: float
    ported: float
    layers: float
    whole: float

    @property
    def closed(self) -> float:
        """The share of the gap between port and teacher that distillation closed."""
        return (self.ported - self.whole) / (self.ported - self.teacher)


def corpus() -> tuple[torch.Tensor, torch.Tensor]:
    """The bytes of the standard library's own modules, the last twentieth apart."""
    modules = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    data = torch.frombuffer(bytearray(b"".join(path.read_bytes() for path in modules)), dtype=torch.uint8).long()
    cut = len(data) * 19 // 20
    return data[:cut], data[cut:]


def batches(data: torch.Tensor, seed: int) -> Iterator[torch.Tensor]:
    """``[ROWS, LENGTH]`` bytes from random places, without end."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        starts = torch.randint(len(data) - LENGTH, (ROWS, 1), generator=generator)
        yield data[starts + torch.arange(LENGTH)]


@torch.no_grad()
def loss_of(model: LlamaForCausalLM, data: torch.Tensor) -> float:
    """The mean over four batches."""
    some = batches(data, seed=2)
    return sum(model.eval()(ids, labels=ids).loss.item() for _, ids in zip(range(4), some, strict=False)) / 4


def trained(data: torch.Tensor, steps: int, width: int) -> LlamaForCausalLM:
    """A Llama of two layers."""
    torch.manual_seed(0)
    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=256, bos_token_id=None, eos_token_id=None, **sizes))
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _, ids in zip(range(steps), batches(data, seed=0), strict=False):
        loss = model(ids, labels=ids).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model


def experiment(teacher: LlamaForCausalLM, layers: str, inner: str, steps: int, *, progress: bool = True) -> Result:
    """Port the teacher, and distil it for ``steps`` in each stage."""
    train, test = corpus()
    torch.manual_seed(1)
    student = port(teacher, layers, inner=inner)
    losses = [loss_of(teacher, test), loss_of(student, test)]
    for stage in ({"layer_steps": steps, "whole_steps": 0}, {"layer_steps": 0, "whole_steps": steps}):
        distill(student, teacher, batches(train, seed=3), learning_rate=1e-2, progress=progress, **stage)
        losses.append(loss_of(student, test))
    return Result(*losses)


if __name__ == "__main__":
    torch.set_num_threads(1)
    console = Console()
    with console.status("training the teacher"):
        teacher = trained(corpus()[0], steps=1000, width=64)
    table = Table("layers", "inner model", "teacher", "ported", "layers learned", "whole learned", "gap closed")
    for layers in ("alternate", "all"):
        for inner in ("linear", "mlp"):
            result = experiment(teacher, layers, inner, steps=200)
            table.add_row(layers, inner, *(f"{loss:.3f}" for loss in result), f"{result.closed:.0%}")
    console.print(table)
