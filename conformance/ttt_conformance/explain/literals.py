"""Arrays as Python expressions."""

from __future__ import annotations

import pprint
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np

WIDTH = 140


def literal(x: np.ndarray) -> str:
    """An expression whose value is x, bit for bit and of its dtype; float32 for a dtype that NumPy has not (bfloat16), which holds its values.

    It speaks of ``np``, ``nan`` and ``inf``.
    """
    x = x.astype(np.float32) if x.dtype.kind == "V" else x
    if not x.size:  # nested lists would lose the axes after an empty one
        return f'np.zeros({x.shape}, dtype="{x.dtype}")'
    nested: Any = x.tolist()  # wider or equal Python numbers, whose repr is exact
    text = pprint.pformat(nested, width=WIDTH, compact=True)
    if "\n" in text:
        text = "\n" + textwrap.indent(text, " " * 8) + ","
        return f'np.array({text}\n        dtype="{x.dtype}",\n    )'
    return f'np.array({text}, dtype="{x.dtype}")'


def arrays(values: Mapping[str, np.ndarray]) -> str:
    """A dict of arrays, exactly."""
    return entries({name: literal(np.asarray(x)) for name, x in values.items()})


def numbers(values: Mapping[str, float]) -> str:
    """A dict of numbers, exactly."""
    return entries({name: repr(float(x)) for name, x in values.items()})


def entries(values: Mapping[str, str]) -> str:
    """A dict of expressions, one below the other."""
    return "{\n" + "".join(f'    "{name}": {value},\n' for name, value in values.items()) + "}"
