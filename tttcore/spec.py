"""The specification of one TTT layer: a frozen, hashable value that every backend understands."""

from __future__ import annotations

import dataclasses
import json
import math
import operator
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from .errors import InvalidInput
from .inner_model import ACTIVATIONS, INNER_MODELS, Hidden, Stack
from .keywords import explain_keywords
from .loss import LOSSES, Loss
from .update import READ_OUTS, UPDATES, Update
from .views import VIEWS, Views

SPEC_VERSION = "1.0"
"""The version of the mathematics, apart from the package's: a change of any output beyond rounding is a new one."""


@dataclass(frozen=True)
class LayerSpec:
    """A TTT layer of C = ``width`` channels in H = ``heads`` heads of D = C/H, on the four axes of the paper.

    - inner model: ``inner``, "linear", "mlp" or a ``Stack``; ``eps`` is ε of every LayerNorm;
    - loss: ``loss``, "squared_error", "inner_product" or a ``Loss``;
    - views: ``share_qk`` (with causal convolutions of ``conv_width`` taps), ``rope_theta`` (None: no RoPE), ``gate``; ``views`` replaces them all;
    - update: ``mini_batch_size`` K and ``base_lr`` η₀ (None: the inner model's default, 1.0 for linear and 0.1 for others); ``update`` replaces it;
      ``read_out``: "causal", a token reads what was written up to it, or "whole", all tokens of a mini-batch write before any of them reads.

    Raises ``InvalidInput`` for a value out of range, ``UnknownKeyword`` for a name that is not here.
    """

    width: int
    heads: int
    inner: str | Stack = "linear"
    loss: str | Loss = "squared_error"
    mini_batch_size: int = 16
    base_lr: float = cast("float", None)
    share_qk: bool = False
    conv_width: int = 4
    gate: bool = False
    rope_theta: float | None = 10000.0
    eps: float = 1e-6
    views: str | Views = "projections"
    update: str | Update = "mini_batch"
    read_out: str = "causal"

    def __post_init__(self) -> None:
        """Check every field and store it in its one canonical form, so that equal specs are equal values."""
        for name in ("width", "heads", "mini_batch_size", "conv_width"):
            self._store(name, _at_least_one(name, getattr(self, name)))
        for name, registry in _AXES.items():
            self._store(name, _canonical(name, getattr(self, name), registry))
        if self.read_out not in READ_OUTS:
            raise InvalidInput("read_out", got=repr(self.read_out), expected=f"one of {list(READ_OUTS)}", fix="use one of these")
        for name in ("share_qk", "gate"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidInput(name, got=repr(getattr(self, name)), expected="True or False", fix=f"pass {name}=bool(…)")
        if self.width % self.heads:
            raise InvalidInput(
                "width and heads", got=f"width={self.width}, heads={self.heads}", expected="width divisible by heads", fix="change one of them"
            )
        given = cast("float | None", self.base_lr)
        self._store("base_lr", _positive("base_lr", self.inner_model.default_base_lr if given is None else given))
        self._store("eps", _positive("eps", self.eps))
        if self.rope_theta is not None:
            self._store("rope_theta", _positive("rope_theta", self.rope_theta))
            if self.head_dim % 2:
                raise InvalidInput(
                    "head width with RoPE",
                    got=f"odd D = width/heads = {self.head_dim}",
                    expected="even D (RoPE turns pairs)",
                    fix="choose an even width/heads or rope_theta=None",
                )

    @property
    def head_dim(self) -> int:
        """D = C/H."""
        return self.width // self.heads

    @property
    def inner_model(self) -> Stack:
        """The inner model that ``inner`` names."""
        return INNER_MODELS[self.inner] if isinstance(self.inner, str) else self.inner

    @property
    def loss_function(self) -> Loss:
        """The loss that ``loss`` names."""
        return LOSSES[self.loss] if isinstance(self.loss, str) else self.loss

    @property
    def views_rule(self) -> Views:
        """The views that ``views`` names."""
        return VIEWS[self.views] if isinstance(self.views, str) else self.views

    @property
    def update_rule(self) -> Update:
        """The update that ``update`` names."""
        return UPDATES[self.update] if isinstance(self.update, str) else self.update

    def inner_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter of the inner loop."""
        return self.inner_model.param_shapes(self.heads, self.head_dim) | self.update_rule.inner_shapes(self)

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter of the layer, the inner loop's first."""
        return self.inner_shapes() | self.update_rule.layer_shapes(self) | self.views_rule.param_shapes(self)

    def to_json(self) -> str:
        """The spec as JSON, with ``spec_version``. An axis given as an object must stand in its registry (``INNER_MODELS`` excepted).

        A causal read-out is not written: of such a spec, JSON says what it said before there was another.
        """
        fields: dict[str, object] = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if self.read_out == "causal":
            del fields["read_out"]
        if isinstance(self.inner, Stack):
            fields["inner"] = dataclasses.asdict(self.inner)
        for axis in ("loss", "views", "update"):
            if not isinstance(fields[axis], str):
                raise InvalidInput(
                    f"{axis} in JSON", got=repr(fields[axis]), expected=f"a name in tttcore.{axis}'s registry", fix="add the object to the registry"
                )
        return json.dumps({"spec_version": SPEC_VERSION, **fields})

    @classmethod
    def from_json(cls, text: str) -> LayerSpec:
        """The spec that ``to_json`` wrote; law: ``from_json(spec.to_json()) == spec``."""
        fields: Any = json.loads(text)
        if not isinstance(fields, dict):
            raise InvalidInput("spec in JSON", got=type(cast("object", fields)).__name__, expected="an object", fix="pass what to_json wrote")
        values = cast("dict[str, Any]", fields)
        version = values.pop("spec_version", None)
        if version != SPEC_VERSION:
            raise InvalidInput("spec_version", got=version, expected=SPEC_VERSION, fix="write the spec again with this version of tttcore")
        if isinstance(values.get("inner"), dict):
            stack = cast("dict[str, Any]", values["inner"])
            hidden = tuple(explain_keywords(Hidden)(**layer) for layer in stack.pop("hidden", ()))
            values["inner"] = explain_keywords(Stack)(hidden, **stack)
        return cls(**values)

    def _store(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


LayerSpec.__init__ = explain_keywords(LayerSpec.__init__)

_AXES: dict[str, Mapping[str, object]] = {"inner": INNER_MODELS, "loss": LOSSES, "views": VIEWS, "update": UPDATES}
_METHODS = {
    "loss": ("__call__", "gradient"),
    "views": ("param_shapes", "project", "output"),
    "update": ("inner_shapes", "layer_shapes", "scale", "gate"),
}


def _canonical(axis: str, value: object, registry: Mapping[str, object]) -> object:
    """The registered name of a value where it has one, else the value itself."""
    if isinstance(value, str):
        if value not in registry:
            raise InvalidInput(axis, got=repr(value), expected=f"one of {sorted(registry)} or an object", fix="use one of these names")
        return value
    if axis == "inner":
        value = _canonical_stack(value)
    else:
        _check_object(axis, value, registry)
    return next((name for name, known in registry.items() if known == value), value)


def _check_object(axis: str, value: object, registry: Mapping[str, object]) -> None:
    lacking = [method for method in _METHODS[axis] if not callable(getattr(value, method, None))]
    if lacking or isinstance(value, type) or not isinstance(value, Hashable):
        expected = f"one of {sorted(registry)} or a hashable object with {', '.join(_METHODS[axis])}"
        raise InvalidInput(axis, got=repr(value), expected=expected, fix="pass an instance of a frozen dataclass with these methods")


def _canonical_stack(stack: object) -> Stack:
    if not isinstance(stack, Stack):
        raise InvalidInput("inner", got=type(stack).__name__, expected="a name or a tttcore.Stack", fix="pass Stack((Hidden(4, 'gelu'), …))")
    for name in ("bias", "residual_norm"):
        if not isinstance(getattr(stack, name), bool):
            raise InvalidInput(f"inner.{name}", got=repr(getattr(stack, name)), expected="True or False", fix=f"pass {name}=bool(…)")
    return dataclasses.replace(stack, hidden=tuple(map(_canonical_hidden, stack.hidden)))


def _canonical_hidden(layer: object) -> Hidden:
    if not isinstance(layer, Hidden):
        raise InvalidInput("hidden layer", got=repr(layer), expected="a tttcore.Hidden", fix="pass Stack((Hidden(4, 'gelu'), …))")
    if layer.activation not in ACTIVATIONS:
        raise InvalidInput("activation", got=repr(layer.activation), expected=f"one of {sorted(ACTIVATIONS)}", fix="register it in ACTIVATIONS")
    return Hidden(_at_least_one("expansion", layer.expansion), layer.activation)


def _at_least_one(name: str, value: Any) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1 or isinstance(value, bool):
        raise InvalidInput(name, got=repr(value), expected="an integer ≥ 1", fix=f"pass {name}=1 or more")
    return number


def _positive(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise InvalidInput(name, got=repr(value), expected="a positive finite number", fix=f"pass {name} as such a float")
    return float(value)
