"""Folders with a model: ``config.json`` and safetensors files, as transformers lays them out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from tttcore import InvalidInput, ModelSpec
from tttcore.files import atomic_folder
from tttcore.language_model import from_config
from tttcore.language_model.spec import EMBEDDING

MODEL_TYPE = "tttcore"
"""By this a configuration is ours, here and in ``ttt_torch.models``."""
CONFIG, TENSORS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"


def read_folder(folder: Path) -> tuple[ModelSpec, dict[str, np.ndarray]]:
    """The spec and all tensors, in their dtypes; raises ``InvalidInput`` for what is not there, cannot be read, or is of another kind of model."""
    config = _json(folder / CONFIG)
    if config.get("model_type") != MODEL_TYPE:
        fix = "read an authors' checkpoint with from_ttt_lm_pytorch or from_ttt_lm_jax"
        raise InvalidInput(f"model_type in {folder / CONFIG}", got=repr(config.get("model_type")), expected=repr(MODEL_TYPE), fix=fix)
    names = [TENSORS]
    if (folder / INDEX).exists():
        names = sorted(set(_json(folder / INDEX)["weight_map"].values()))
    tensors: dict[str, np.ndarray] = {}
    for name in names:
        tensors |= _tensors(folder / name)
    return from_config(config), tensors


def write_folder(folder: Path, spec: ModelSpec, arrays: Mapping[str, np.ndarray]) -> None:
    """Both files, together or not at all; the folder is made if it is not there."""
    kind = {"architectures": ["TTTForCausalLM"], "model_type": MODEL_TYPE, "dtype": str(arrays[EMBEDDING].dtype)}
    with atomic_folder(folder, needs=sum(x.nbytes for x in arrays.values()), owns=(TENSORS, INDEX, "model-*-of-*.safetensors")) as fresh:
        # "pt": names and layouts are PyTorch's, which transformers asks for.
        save_file({name: np.ascontiguousarray(x) for name, x in arrays.items()}, fresh / TENSORS, {"format": "pt"})
        (fresh / CONFIG).write_text(json.dumps(kind | spec.to_dict(), indent=2) + "\n", encoding="utf-8")


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(str(path), got=repr(error), expected="a file of JSON", fix="pass a folder that save_pretrained wrote") from error


def _tensors(path: Path) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InvalidInput(str(path), got=repr(error), expected="a file of safetensors", fix="copy it anew") from error
