"""Distillation: a ported model learns from the model that it was made of, first layer by layer, then as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch.nn.functional import kl_div, log_softmax
from torch.nn.utils import clip_grad_norm_

from tttcore import InvalidInput

from .architectures import architecture_of
from .attention import TTTAttention
from .observe import observed
from .ported import PREFIX, Ported

Batch = Mapping[str, torch.Tensor] | torch.Tensor
"""What a model is called with: keyword arguments, or the tokens (pixels) alone."""


@dataclass(frozen=True)
class Distillation:
    """The loss at each step: of the layers, the error of their outputs as a share of the teacher's, and of the whole model (see ``distill``)."""

    layers: tuple[float, ...]
    whole: tuple[float, ...]


def distill(
    student: Any,
    teacher: Any,
    batches: Iterable[Batch],
    *,
    layer_steps: int = 100,
    whole_steps: int = 100,
    learning_rate: float = 3e-3,
    progress: bool = True,
) -> Distillation:
    """Train the ported layers of ``student``, a port of ``teacher``, in two stages; all other weights stay as they are, and so does the teacher.

    1. ``layer_steps``: each layer gets the input x of the teacher's attention and learns its output, minimising ‖y − y′‖² / ‖y′‖²;
    2. ``whole_steps``: the whole model learns the teacher's next-token distribution, minimising KL(p′ ‖ p) for each token that counts; of a model
       without logits, its last hidden states, as in 1.

    AdamW without weight decay, the learning rate falling to 0 along a cosine in each stage, gradients clipped to norm 1. ``batches`` is gone through
    again when it ends. Raises ``InvalidInput`` before the first step, and when batches cannot be had again.
    """
    if not issubclass(type(student), Ported):
        raise InvalidInput("student", got=type(student).__name__, expected="a ported model", fix="pass ttt_torch.port(teacher)")
    model_type = student.config.model_type.removeprefix(PREFIX)
    if isinstance(teacher, Ported) or getattr(teacher.config, "model_type", None) != model_type:
        fix = "pass the model that the student was made of"
        raise InvalidInput("teacher", got=type(teacher).__name__, expected=f"a {model_type} model with attention", fix=fix)
    for what, steps in (("layer_steps", layer_steps), ("whole_steps", whole_steps)):
        if not isinstance(steps, int) or steps < 0:
            raise InvalidInput(what, got=repr(steps), expected="an integer ≥ 0", fix="pass 0 to leave that stage out")
    if not learning_rate > 0:
        raise InvalidInput("learning_rate", got=learning_rate, expected="a positive number", fix="pass 1e-3, or more for a small model")
    pairs = _pairs(student, teacher, model_type)
    source = _again(batches, teacher.main_input_name)

    def of_layers(batch: Mapping[str, torch.Tensor]) -> Iterator[torch.Tensor]:
        for (layer, _), (inputs, y) in zip(pairs, observed(teacher, [attention for _, attention in pairs], batch), strict=True):
            yield _relative(layer(**inputs)[0], y) / len(pairs)

    def of_whole(batch: Mapping[str, torch.Tensor]) -> Iterator[torch.Tensor]:
        with torch.no_grad():
            expected = teacher(**batch)
        yield _difference(student(**batch), expected, batch.get("attention_mask"))

    modes = {model: model.training for model in (student, teacher)}
    try:
        student.eval()
        teacher.eval()
        with Progress(console=Console(stderr=True), disable=not progress) as bar:
            layers = _train(pairs, source, of_layers, layer_steps, learning_rate, bar, "layers")
            whole = _train(pairs, source, of_whole, whole_steps, learning_rate, bar, "whole model")
    finally:
        for model, training in modes.items():
            model.train(training)
    return Distillation(layers, whole)


def _train(
    pairs: list[tuple[TTTAttention, Any]],
    batches: Iterator[Mapping[str, torch.Tensor]],
    losses: Callable[[Mapping[str, torch.Tensor]], Iterator[torch.Tensor]],
    steps: int,
    learning_rate: float,
    bar: Progress,
    name: str,
) -> tuple[float, ...]:
    """Minimise the sum of the losses; only the ported layers get gradients, since others share theirs with the teacher."""
    parameters = [x for layer, _ in pairs for x in layer.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(steps, 1))
    task, history = bar.add_task(name, total=steps), []
    for _ in range(steps):
        optimiser.zero_grad()
        total = 0.0
        for loss in losses(next(batches)):
            loss.backward(inputs=parameters)
            total += loss.item()
        clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        history.append(total)
        bar.update(task, advance=1, description=f"{name} {total:.3f}")
    return tuple(history)


def _pairs(student: Any, teacher: Any, model_type: str) -> list[tuple[TTTAttention, Any]]:
    """Each ported layer, and the teacher's attention in the same place."""
    ours, theirs = ([getattr(parent, name) for parent, name in architecture_of(model_type).modules(model)] for model in (student, teacher))
    if len(ours) != len(theirs):
        raise InvalidInput("teacher", got=f"{len(theirs)} layers", expected=f"{len(ours)}, as the student", fix="pass the model it was made of")
    return [(layer, attention) for layer, attention in zip(ours, theirs, strict=True) if isinstance(layer, TTTAttention)]


def _again(batches: Iterable[Batch], name: str) -> Iterator[Mapping[str, torch.Tensor]]:
    """The batches as keyword arguments, over and over."""
    while True:
        empty = True
        for batch in batches:
            empty = False
            yield {name: batch} if isinstance(batch, torch.Tensor) else batch
        if empty:
            raise InvalidInput("batches", got="no more of them", expected="one for each step", fix="pass a list or an endless iterator")


def _relative(y: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    return (y - expected).square().sum() / expected.square().sum()


def _difference(outputs: Any, expected: Any, mask: torch.Tensor | None) -> torch.Tensor:
    """How far the student's outputs are from the teacher's."""
    if getattr(expected, "logits", None) is None:
        return _relative(outputs.last_hidden_state, expected.last_hidden_state)
    ours, theirs = (log_softmax(x.logits.float(), -1) for x in (outputs, expected))
    divergence = kl_div(ours, theirs, reduction="none", log_target=True).sum(-1)
    if mask is None or divergence.shape != mask.shape:
        return divergence.mean()
    return (divergence * mask).sum() / mask.sum()
