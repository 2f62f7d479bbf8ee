"""Checkpoints of a run: whole folders that appear at once, without pickle."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from tttcore import InvalidInput
from tttcore.files import atomic_folder

MODEL, OPTIMISER, STATE = "model.safetensors", "optimiser.safetensors", "state.json"


@dataclass(frozen=True)
class Progress:
    """How far a run is: steps taken and the seconds of training that they took."""

    step: int = 0
    seconds: float = 0.0


def save(run: Path, model: PreTrainedModel, optimiser: torch.optim.Optimizer, progress: Progress) -> Path:
    """``run/checkpoints/step-N``: the model as transformers saves it, the optimiser's tensors, the progress; then older ones go.

    Everything is written beside its place and then moved there, so that a kill or a full disk leaves the older checkpoint.
    """
    folder = run / "checkpoints" / f"step-{progress.step:07d}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as fresh:
        model.save_pretrained(fresh)
        save_file(_tensors(model, optimiser), fresh / OPTIMISER)
        (fresh / STATE).write_text(json.dumps(progress.__dict__) + "\n", encoding="utf-8")
    for older in _all(run):
        if older != folder:
            shutil.rmtree(older)
    return folder


def newest(run: Path) -> Path | None:
    """The checkpoint of most steps, None if there is none."""
    return max(_all(run), default=None)


def restore(folder: Path, model: PreTrainedModel, optimiser: torch.optim.Optimizer) -> Progress:
    """The model's and the optimiser's tensors as they were saved; raises ``InvalidInput`` for files that are not whole."""
    try:
        weights, moments = load_file(folder / MODEL), load_file(folder / OPTIMISER)
        progress = Progress(**json.loads((folder / STATE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        fix = f"remove {folder} and start anew, or bring a copy of it"
        raise InvalidInput(str(folder), got=f"{type(error).__name__}: {error}", expected="a whole checkpoint", fix=fix) from error
    named = dict(model.named_parameters())
    keys = {name.rpartition(".")[2] for name in moments}
    if set(weights) != set(named) or set(moments) != {f"{name}.{key}" for name in named for key in keys}:
        raise InvalidInput(str(folder), got="tensors of another model", expected="those of this recipe", fix="use the recipe of that run")
    with torch.no_grad():
        for name, x in named.items():
            x.copy_(weights[name])
            optimiser.state[x] = {key: moments[f"{name}.{key}"].to("cpu" if key == "step" else x.device) for key in keys}
    return progress


def _tensors(model: PreTrainedModel, optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """``parameter.moment``: of AdamW, ``step``, ``exp_avg`` and ``exp_avg_sq`` of each parameter."""
    return {f"{name}.{key}": value.contiguous() for name, x in model.named_parameters() for key, value in optimiser.state[x].items()}


def _all(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("step-???????"))
