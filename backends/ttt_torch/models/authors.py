"""State dicts of ttt-lm-pytorch's ``TTTForCausalLM``, by name: what goes where, and what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tttcore import InvalidInput
from tttcore.upstream.layouts import SAME, TRANSPOSED_MIDDLE, Layout, as_numpy
from tttcore.upstream.pytorch import NAMES

TABLES = {"seq_modeling_block": NAMES, "conv": {"weight": ("conv.weight", TRANSPOSED_MIDDLE), "bias": ("conv.bias", SAME)}}
"""Modules whose parameters are stored otherwise there: our name → (their name, layout). All else has the same name and layout."""
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


@dataclass(frozen=True)
class LoadingReport:
    """What became of the tensors, by the authors' names; of a model that was made, only ``reshaped`` can hold something.

    ``unused``: no parameter takes it; ``missing``: a parameter wants it; ``mismatched``: its shape and the expected one;
    ``reshaped``: kept in another layout here, with the name of our parameter.
    """

    unused: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    mismatched: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    reshaped: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Raise ``InvalidInput`` with all that did not fit."""
        wrong = [f"{len(names)} {what}: {_some(names)}" for what, names in (("unused", self.unused), ("missing", self.missing)) if names]
        shapes = [f"{name} {got} instead of {expected}" for name, (got, expected) in self.mismatched.items()]
        wrong += [f"{len(shapes)} of other shapes: {_some(shapes)}"] if shapes else []
        if wrong:
            fix = "check sizes, share_qk, use_gate, pre_conv, ttt_layer_type and tie_word_embeddings of the config against the checkpoint"
            raise InvalidInput("state_dict", got="; ".join(wrong), expected="exactly the tensors that the config asks for", fix=fix)


def theirs(name: str) -> tuple[str, Layout]:
    """Where one of our parameters is in the authors' state dict, and in which layout."""
    *path, module, own = name.split(".")
    their, layout = TABLES.get(module, {}).get(own, (own, SAME))
    return ".".join([*path, module, their]), layout


def read(state_dict: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], *, tied: bool) -> tuple[dict[str, np.ndarray], LoadingReport]:
    """The arrays of all parameters of ``shapes``, under our names, and the report; raises ``InvalidInput`` unless everything fits.

    ``tied``: the head is the embedding; it may be absent, but not different.
    """
    given = dict(state_dict)
    if tied and EMBEDDING in given:
        head = given.setdefault(HEAD, given[EMBEDDING])
        if not np.array_equal(as_numpy(head), as_numpy(given[EMBEDDING])):
            fix = "set tie_word_embeddings=False in the config"
            raise InvalidInput(f"state_dict[{HEAD!r}]", got="other values than the embedding's", expected="the same: they are tied", fix=fix)
    places = {name: theirs(name) for name in shapes}
    wanted = {their: layout.to_theirs(np.broadcast_to(0, shapes[name])).shape for name, (their, layout) in places.items()}
    report = LoadingReport(
        unused=tuple(sorted(set(given) - set(wanted))),
        missing=tuple(sorted(set(wanted) - set(given))),
        mismatched={name: (tuple(given[name].shape), shape) for name, shape in wanted.items() if name in given and given[name].shape != shape},
        reshaped={their: name for name, (their, layout) in places.items() if layout is not SAME},
    )
    report.check()
    return {name: np.ascontiguousarray(layout.to_ours(as_numpy(given[their]))) for name, (their, layout) in places.items()}, report


def _some(names: Any, most: int = 6) -> str:
    """The first few of many names."""
    return ", ".join(list(names)[:most]) + (", …" if len(names) > most else "")
