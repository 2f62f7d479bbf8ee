"""Ported models: how one is made of a Hugging Face model, and the classes that load one from disk."""

from __future__ import annotations

import copy
import functools
import json
from typing import Any

import rich
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from tttcore import InvalidInput, LayerSpec
from tttcore.keywords import refuse_unknown

from .architectures import ARCHITECTURES, architecture_of
from .attention import TTTAttention
from .plan import Layers, plan_of

PREFIX = "ttt_"
"""Of the ``model_type`` of a ported model, so that nobody loads it as what it was."""

INITS = ("attention", "fresh")
AUTO_CLASSES: tuple[Any, ...] = (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)


def port(
    model: Any,
    layers: Layers = "all",
    *,
    inner: Any = "linear",
    init: str = "attention",
    causal: bool | None = None,
    kernel: str = "torch",
    dry_run: bool = False,
    **options: Any,
) -> Any:
    """A model like this one with TTT layers in place of self-attention, in the ``layers`` named; with ``dry_run`` its ``Plan``, which is printed.

    ``layers``: "all", "alternate" (every second; the first stays attention), a slice or indices. ``inner`` and ``options`` are fields of the
    ``LayerSpec`` (``loss``, ``mini_batch_size``, ``base_lr``, ``gate``, ``eps``, ``update``); heads and views are the model's. ``init``: "attention"
    keeps Θ_Q, Θ_K, Θ_V, Θ_O and all that belongs to them, "fresh" draws them anew. ``causal`` says what the model's attention is, and is checked if
    given; tokens of an encoder read their whole mini-batch, by default the whole sequence. ``kernel`` is the backend that computes.

    The model stays as it is. Ported layers have weights of their own; all other weights are shared with it, tensor by tensor: what trains or converts
    them (``.to``) changes both models, and ``copy.deepcopy`` parts them. Draws are governed by ``torch.manual_seed``. Raises ``InvalidInput`` or
    ``UnknownKeyword`` before anything is made.
    """
    if init not in INITS:
        raise InvalidInput("init", got=repr(init), expected=f"one of {list(INITS)}", fix="use one of these")
    plan = plan_of(model, layers, inner, causal, kernel, options)
    if dry_run:
        rich.print(plan)
        return plan
    ported = copy.deepcopy(model, {id(x): x for x in (*model.parameters(), *model.buffers())})
    ported.__class__, ported.config.__class__ = ported_class(type(model)), ported_config(type(model.config))
    ported.config.ttt = {"spec": json.loads(plan.spec.to_json()), "layers": list(plan.layers), "kernel": kernel}
    for layer in replace_attention(ported):
        layer.attention = copy.deepcopy(layer.attention)
        if init == "fresh":
            for module in layer.attention.modules():
                ported._init_weights(module)
        layer.reset_parameters()
    return ported


class Ported:
    """What the classes of ported models add to their model's: ``config.ttt`` names the layers that are TTT layers, and what these are."""

    config: Any

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)  # pyright: ignore[reportCallIssue] (behind it stands a PreTrainedModel)
        for layer in replace_attention(self):
            self._init_weights(layer)

    def _init_weights(self, module: nn.Module) -> None:
        """As the model's own; a TTT layer is drawn as one, unless its parameters were loaded or are on the meta device."""
        super()._init_weights(module)  # pyright: ignore[reportAttributeAccessIssue] (likewise)
        empty = not any(x.is_meta or getattr(x, "_is_hf_initialized", False) for x in module.parameters(recurse=False))
        if isinstance(module, TTTAttention) and empty:
            module.reset_parameters()


def replace_attention(model: Any) -> list[TTTAttention]:
    """Put a ``TTTAttention`` around the self-attention of each layer that ``config.ttt`` names, in place; they come back, not drawn yet."""
    ttt = model.config.ttt
    refuse_unknown("config.ttt", ttt, ("spec", "layers", "kernel"))
    spec = LayerSpec.from_json(json.dumps(ttt["spec"]))
    places = architecture_of(model.config.model_type.removeprefix(PREFIX)).modules(model)
    rotary, made = getattr(model.base_model, "rotary_emb", None), []
    for parent, name in (places[index] for index in ttt["layers"]):
        made.append(TTTAttention(getattr(parent, name), rotary, spec, kernel=ttt["kernel"]))
        setattr(parent, name, made[-1])
    return made


@functools.cache
def ported_config(config: Any) -> Any:
    """The configuration of a ported model: another ``model_type``, and ``ttt``."""
    return type(f"TTT{config.__name__}", (config,), {"model_type": PREFIX + config.model_type, "__module__": __name__})


@functools.cache
def ported_class(model: Any) -> Any:
    """The class of a ported model."""
    # Stateful: what was read cannot be taken back, so transformers refuses assisted generation.
    fields = {"config_class": ported_config(model.config_class), "_is_stateful": True, "__module__": __name__}
    return type(f"TTT{model.__name__}", (Ported, model), fields)


for _name in ARCHITECTURES:
    _config: Any = CONFIG_MAPPING[_name]
    AutoConfig.register(PREFIX + _name, ported_config(_config))
    for _auto in AUTO_CLASSES:
        if _config in _auto._model_mapping:
            _auto.register(ported_config(_config), ported_class(_auto._model_mapping[_config]))
