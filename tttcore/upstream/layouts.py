"""Parameter names and layouts of the authors' code bases, as tables to read in either direction.

Every layout is a permutation of axes with axes of length 1 added or removed, so it serves gradients as well as parameters and is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from ..errors import InvalidInput
from ..keywords import refuse_unknown

Reshape = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Layout:
    """How one of our arrays is stored there, and back."""

    to_theirs: Reshape
    to_ours: Reshape


SAME = Layout(lambda x: x, lambda x: x)
TRANSPOSED = Layout(lambda x: x.T, lambda x: x.T)
COLUMN = Layout(lambda x: x[:, None], lambda x: np.squeeze(x, 1))
"""[H] ↔ [H, 1]."""
TRANSPOSED_MIDDLE = Layout(lambda x: x.T[:, None, :], lambda x: np.squeeze(x, 1).T)
"""[M, N] ↔ [N, 1, M]."""
MIDDLE = Layout(lambda x: x[:, None, :], lambda x: np.squeeze(x, 1))
"""[M, N] ↔ [M, 1, N]."""
TRANSPOSED_LAST = Layout(lambda x: x.T[:, :, None], lambda x: np.squeeze(x, 2).T)
"""[M, N] ↔ [N, M, 1]."""

Names = Mapping[str, tuple[str, Layout]]
"""Our name → (their name, layout)."""


def to_ours(names: Names, theirs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Their arrays under our names, in our order; a name that is not in the table is refused."""
    refuse_unknown("state_dict", theirs, [name for name, _ in names.values()])
    return {ours: _read(name, layout, as_numpy(theirs[name])) for ours, (name, layout) in names.items() if name in theirs}


def to_theirs(names: Names, ours: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Our arrays under their names."""
    refuse_unknown("params", ours, names)
    return {names[name][0]: np.ascontiguousarray(names[name][1].to_theirs(as_numpy(x))) for name, x in ours.items()}


def _read(name: str, layout: Layout, x: np.ndarray) -> np.ndarray:
    try:
        return np.ascontiguousarray(layout.to_ours(x))
    except ValueError as error:  # an axis that we leave out is not there, or longer than 1
        raise InvalidInput(f"state_dict[{name!r}]", got=x.shape, expected="the authors' layout", fix=f"mend its shape: {error}") from error


def complete(params: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], names: Names) -> None:
    """Every parameter of ``shapes`` is there in its shape; the error speaks their names."""
    for name, shape in shapes.items():
        theirs = names[name][0]
        if name not in params:
            raise InvalidInput(
                "state_dict", got=f"no {theirs!r}", expected=f"{theirs!r}, our {name!r}", fix="check the config against the state dict"
            )
        if params[name].shape != shape:
            fix = "check the config against the state dict"
            raise InvalidInput(f"state_dict[{theirs!r}]", got=params[name].shape, expected=f"{shape} in our layout", fix=fix)
    extra = [names[name][0] for name in params if name not in shapes]
    if extra:
        raise InvalidInput("state_dict", got=extra, expected="only what the config asks for", fix="check the config against the state dict")


def setting(config: Any, key: str, default: Any = None) -> Any:
    """A config's value, from a mapping or an object; raises when it has neither the key nor a default."""
    value = cast("Mapping[str, Any]", config).get(key, default) if isinstance(config, Mapping) else getattr(config, key, default)
    if value is None:
        raise InvalidInput("config", got=f"no {key!r}", expected=f"a value for {key!r}", fix="pass the model's whole config")
    return value


def as_numpy(x: Any) -> np.ndarray:
    """A NumPy, JAX or PyTorch array as NumPy; bfloat16 tensors, which NumPy lacks, become float32 exactly."""
    if hasattr(x, "detach"):
        x = x.detach().cpu()
        x = x.float() if str(x.dtype) == "torch.bfloat16" else x
    return np.asarray(x)
