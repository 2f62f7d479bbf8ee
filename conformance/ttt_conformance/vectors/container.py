"""The safetensors format, written so that the same arrays always make the same bytes, with a header that is easy to read without a library.

A file is the header's length (8 bytes, little-endian), the header (JSON without spaces between its parts, padded with spaces to a multiple of 8), and
the arrays one after the other, little-endian, last axis fastest. The library's own writer orders metadata at random.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from safetensors import SafetensorError, safe_open

from tttcore import InvalidInput

DTYPES = {"float64": "F64", "int64": "I64", "int32": "I32", "bool": "BOOL"}
"""The dtypes that vectors hold, widest first, so that every array is aligned to its own."""


class Content(NamedTuple):
    """What a file holds: texts by name, and arrays by name."""

    metadata: dict[str, str]
    arrays: dict[str, np.ndarray]


def encode(content: Content) -> bytes:
    """The file's bytes: metadata and arrays in the order given, but wider dtypes before narrower ones."""
    header: dict[str, Any] = {"__metadata__": content.metadata}
    data: list[bytes] = []
    place = 0
    for name, x in sorted(content.arrays.items(), key=lambda item: list(DTYPES).index(item[1].dtype.name)):
        raw = x.astype(x.dtype.newbyteorder("<")).tobytes(order="C")
        header[name] = {"dtype": DTYPES[x.dtype.name], "shape": list(x.shape), "data_offsets": [place, place + len(raw)]}
        data.append(raw)
        place += len(raw)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(data)


def read(path: Path) -> Content:
    """What a safetensors file of whichever writer holds, arrays in the file's order; ``InvalidInput`` when it is none."""
    try:
        with cast("Any", safe_open(path, "numpy")) as file:
            return Content(file.metadata() or {}, {name: file.get_tensor(name) for name in file.offset_keys()})
    except (SafetensorError, OSError, TypeError) as error:  # a dtype that NumPy lacks is a TypeError
        raise InvalidInput(str(path), got=f"{type(error).__name__}: {error}", expected="a safetensors file", fix="see docs/vectors.md") from error


def nested(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Arrays by dotted name as dicts in dicts."""
    tree: dict[str, Any] = {}
    for name, x in arrays.items():
        *folders, last = name.split(".")
        branch = tree
        for folder in folders:
            branch = branch.setdefault(folder, {})
        branch[last] = x
    return tree
