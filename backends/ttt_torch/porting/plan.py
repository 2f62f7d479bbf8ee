"""What porting a model would change, checked before anything is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table
from torch import nn
from transformers import PreTrainedModel

from tttcore import InvalidInput, LayerSpec, get_backend
from tttcore.keywords import refuse_unknown

from .architectures import Architecture, architecture_of
from .attention import extra_shapes

OF_THE_MODEL = {"width", "heads", "share_qk", "conv_width", "rope_theta", "views", "read_out"}
OPTIONS = ("loss", "mini_batch_size", "base_lr", "gate", "eps", "update")
"""Fields of ``LayerSpec`` that a port can choose, beside ``inner``; widths, heads, views and the read-out are the model's."""

Layers = str | slice | Iterable[int]
"""Which layers: "all", "alternate" (every second, the first stays attention), a slice, or indices."""


@dataclass(frozen=True)
class Change:
    """One layer: its index, what its self-attention is and becomes, and how many numbers that module learns before and after."""

    index: int
    module: str
    becomes: str
    before: int
    after: int


@dataclass(frozen=True)
class Plan:
    """What ``port`` does to a model: all layers, ported or not, and the parameters of the whole model before and after."""

    architecture: str
    spec: LayerSpec
    layers: tuple[int, ...]
    changes: tuple[Change, ...]
    before: int

    @property
    def after(self) -> int:
        """Parameters of the ported model."""
        return self.before + sum(change.after - change.before for change in self.changes)

    def __rich__(self) -> Table:
        """A table for rich's ``print``."""
        title = f"{self.architecture}: {len(self.layers)} of {len(self.changes)} layers, read-out {self.spec.read_out}"
        table = Table(title=title, show_footer=True)
        table.add_column("layer", justify="right")
        table.add_column("self-attention", "whole model")
        table.add_column("becomes")
        table.add_column("parameters", f"{self.before:,}", justify="right")
        table.add_column("after", f"{self.after:,}", justify="right")
        for change in self.changes:
            table.add_row(str(change.index), change.module, change.becomes, f"{change.before:,}", f"{change.after:,}")
        return table


def plan_of(model: Any, layers: Layers, inner: Any, causal: bool | None, kernel: str, options: Mapping[str, Any]) -> Plan:
    """The plan; raises ``InvalidInput`` or ``UnknownKeyword`` for what cannot be ported so."""
    if not isinstance(model, PreTrainedModel):
        raise InvalidInput("model", got=type(model).__name__, expected="a transformers.PreTrainedModel", fix="pass a Hugging Face model")
    if getattr(model.config, "ttt", None) is not None:
        raise InvalidInput("model", got="a ported model", expected="one with attention in all layers", fix="port the model that this one was made of")
    architecture = architecture_of(model.config.model_type)
    for name in options.keys() & OF_THE_MODEL:
        raise InvalidInput(name, got="a choice", expected="the model's own: views and read-out are what a port keeps", fix=f"leave {name} out")
    refuse_unknown("port", options, OPTIONS)
    spec = _spec(model.config, architecture, inner, causal, options)
    backend = get_backend(kernel)
    if backend.array_type is not torch.Tensor:
        raise InvalidInput("kernel", got=repr(kernel), expected="a backend on PyTorch's tensors", fix="use 'torch' or 'triton'")
    if spec.read_out not in backend.supports.read_out:
        expected = f"one with read-out {spec.read_out!r}, as tokens of an encoder read"
        raise InvalidInput("kernel", got=repr(kernel), expected=expected, fix="leave kernel out")
    modules = [getattr(parent, name) for parent, name in architecture.modules(model)]
    indices = _indices(layers, len(modules))
    extra = sum(math.prod(shape) for shape in extra_shapes(spec, model.config.hidden_size).values())
    name = f"TTT {spec.inner}, {spec.heads} × {spec.head_dim}, K = {spec.mini_batch_size}"
    changes = [
        Change(i, type(module).__name__, name if i in indices else "–", _count(module), _count(module) + (extra if i in indices else 0))
        for i, module in enumerate(modules)
    ]
    return Plan(model.config.model_type, spec, indices, tuple(changes), _count(model))


def _spec(config: Any, architecture: Architecture, inner: Any, causal: bool | None, options: Mapping[str, Any]) -> LayerSpec:
    """The TTT layer with the model's heads."""
    heads, is_causal = config.num_attention_heads, architecture.causal(config)
    shared = getattr(config, "num_key_value_heads", None) or heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    if heads % shared:
        got = f"{heads} heads of queries, {shared} of keys and values"
        raise InvalidInput("heads", got=got, expected="a whole number of queries for each key", fix="mend the model's config")
    if causal is not None and causal != is_causal:
        kinds = {True: "a decoder, whose tokens see those before them", False: "an encoder, whose tokens see all others"}
        raise InvalidInput(f"causal={causal}", got=kinds[is_causal], expected=kinds[causal], fix=f"pass causal={is_causal}, or leave it out")
    default = {} if is_causal else {"mini_batch_size": architecture.tokens(config), "read_out": "whole"}
    return LayerSpec(width=heads * head_dim, heads=heads, inner=inner, rope_theta=None, **{**default, **options})


def _indices(layers: Layers, count: int) -> tuple[int, ...]:
    """The layers that are meant, in order."""
    named = {"all": range(count), "alternate": range(1, count, 2)}
    if isinstance(layers, str):
        if layers not in named:
            raise InvalidInput("layers", got=repr(layers), expected=f"one of {sorted(named)}, a slice or indices", fix="use one of these")
        found = list(named[layers])
    elif isinstance(layers, slice):
        found = list(range(count)[layers])
    else:
        given = list(layers)
        wrong = [i for i in given if not isinstance(i, int) or isinstance(i, bool) or not -count <= i < count]
        if wrong:
            raise InvalidInput("layers", got=wrong, expected=f"indices from {-count} to {count - 1}", fix=f"the model has {count} layers")
        found = sorted({i % count for i in given})
    if not found:
        raise InvalidInput("layers", got=repr(layers), expected="at least one layer", fix="pass 'all', 'alternate' or some indices")
    return tuple(found)


def _count(module: nn.Module) -> int:
    return sum(x.numel() for x in module.parameters())
