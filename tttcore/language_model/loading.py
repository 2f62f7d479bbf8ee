"""Checkpoints by name: what goes where, and what does not fit. A model is whole or not made."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InvalidInput
from ..upstream.jax import flat
from ..upstream.layouts import SAME, as_numpy
from .naming import Naming
from .spec import EMBEDDING, HEAD, ModelSpec

Shapes = Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]


@dataclass(frozen=True)
class LoadingReport:
    """What became of the tensors, by the checkpoint's names; of a model that was made, only ``reshaped`` can hold something.

    ``unused``: no parameter takes it; ``missing``: a parameter wants it; ``mismatched``: its shape and the expected one;
    ``reshaped``: kept in another layout here, with the name of our parameter.
    """

    unused: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    mismatched: Shapes = field(default_factory=dict[str, "tuple[tuple[int, ...], tuple[int, ...]]"])
    reshaped: Mapping[str, str] = field(default_factory=dict[str, str])

    def check(self, what: str = "state_dict") -> None:
        """Raise ``InvalidInput`` with all that did not fit."""
        wrong = [f"{len(names)} {how}: {together(names)}" for how, names in (("unused", self.unused), ("missing", self.missing)) if names]
        shapes = [f"{name} {got} instead of {expected}" for name, (got, expected) in self.mismatched.items()]
        wrong += [f"{len(shapes)} of other shapes: {together(shapes)}"] if shapes else []
        if wrong:
            fix = "check sizes, share_qk, use_gate, pre_conv, ttt_layer_type and tie_word_embeddings of the config against the checkpoint"
            raise InvalidInput(what, got="; ".join(wrong), expected="exactly the tensors that the config asks for", fix=fix)


def read(given: Mapping[str, Any], spec: ModelSpec, naming: Naming, what: str = "state_dict") -> tuple[dict[str, np.ndarray], LoadingReport]:
    """The arrays of all parameters of ``spec``, under our names and in their dtype, and the report; raises ``InvalidInput`` unless everything fits.

    A tied head may be absent, but not different from the embedding.
    """
    shapes = spec.param_shapes()
    places = {name: naming.theirs(name) for name in shapes}
    wanted = {their: layout.to_theirs(np.broadcast_to(0, shapes[name])).shape for name, (their, layout) in places.items()}
    head = naming.theirs(HEAD)[0]
    tied = spec.tie_word_embeddings and head in given
    if tied:
        _check_tied(given, naming, what)
    report = LoadingReport(
        unused=tuple(sorted(set(given) - set(wanted) - ({head} if tied else set()))),
        missing=tuple(sorted(set(wanted) - set(given))),
        mismatched={name: (tuple(given[name].shape), shape) for name, shape in wanted.items() if name in given and given[name].shape != shape},
        reshaped={their: name for name, (their, layout) in places.items() if layout is not SAME},
    )
    report.check(what)
    return {name: np.ascontiguousarray(layout.to_ours(as_numpy(given[their]))) for name, (their, layout) in places.items()}, report


def dtype_of(given: Mapping[str, Any], naming: Naming) -> str:
    """The name of the embedding's dtype, by which a model goes; of tensors that ``read`` has found whole."""
    return str(given[naming.theirs(EMBEDDING)[0]].dtype).removeprefix("torch.")


def without_prefix(tree: Mapping[Any, Any]) -> dict[str, Any]:
    """ttt-lm-jax's arrays by their paths, of nested dicts or flat ones, without the "params" that Flax and a train state put in front of all."""
    found = flat(tree)
    while found and all(name.startswith("params/") for name in found):
        found = {name.removeprefix("params/"): x for name, x in found.items()}
    return found


def together(names: Iterable[str]) -> str:
    """All names; those that differ in the number of their block alone are written as one."""
    numbers: dict[tuple[str, str], list[str]] = {}
    for name in names:
        before, number, after = re.fullmatch(r"(?:(.*?[./])(\d+)(?=[./]))?(.*)", name, re.DOTALL).groups(default="")  # pyright: ignore
        numbers.setdefault((before, after), []).append(number)
    return ", ".join(before + (found[0] if len(found) == 1 else f"{{{','.join(found)}}}") + after for (before, after), found in numbers.items())


def _check_tied(given: Mapping[str, Any], naming: Naming, what: str) -> None:
    head, layout = naming.theirs(HEAD)
    embedding, _ = naming.theirs(EMBEDDING)
    if embedding in given and not np.array_equal(layout.to_ours(as_numpy(given[head])), as_numpy(given[embedding])):
        fix = "set tie_word_embeddings=False in the config"
        raise InvalidInput(f"{what}[{head!r}]", got="other values than the embedding's", expected="the same: they are tied", fix=fix)
