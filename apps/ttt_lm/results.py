"""What is left of a run: ``results.json`` for numbers, ``curves.npz`` for curves over the position."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ttt_torch import TTTLayer
from tttcore import InvalidInput
from tttcore.files import whole

from . import metrics
from .inner_loss import inner_losses
from .mixers import parameters
from .recipe import Recipe
from .training import Training

RESULTS, CURVES, RECIPE = "results.json", "curves.npz", "recipe.json"


@dataclass(frozen=True)
class Results:
    """A finished run: its recipe, what was measured, metrics by step, held-out loss by position, and ℓ by layer, weights and position."""

    recipe: Recipe
    numbers: dict[str, Any]
    steps: list[dict[str, float]]
    by_position: np.ndarray
    inner: np.ndarray | None

    @classmethod
    def read(cls, run: Path) -> Results:
        """Of a run's folder; raises ``InvalidInput`` where the run has not ended."""
        if not (run / RESULTS).is_file():
            fix = "name a run's folder, or let it end: the same ttt train with --resume"
            raise InvalidInput(str(run), got=f"no {RESULTS}", expected="a run that has ended", fix=fix)
        with np.load(run / CURVES) as curves:
            inner = curves.get("inner")
            return cls(Recipe.read(run / RECIPE), json.loads((run / RESULTS).read_text("utf-8")), metrics.read(run), curves["by_position"], inner)

    def write(self, run: Path) -> None:
        """Both files, the one that says that the run has ended last."""
        with whole(run / CURVES) as path, path.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, by_position=self.by_position, **({} if self.inner is None else {"inner": self.inner}))
        with whole(run / RESULTS) as path:
            path.write_text(json.dumps(self.numbers, indent=1) + "\n", encoding="utf-8")

    @property
    def name(self) -> str:
        """The mixer, and the backbone if it is not the usual one."""
        return self.recipe.mixer + (f" ({self.recipe.backbone})" if self.recipe.backbone != "transformer" else "")


def results_of(training: Training, unigram_entropy: float, windows: int = 4) -> Results:
    """Measure a trained model: held-out loss by position, and with TTT layers their inner losses on some held-out windows."""
    recipe, steps = training.recipe, metrics.read(training.run)
    by_position = training.by_position()
    loss = float(by_position.mean())
    numbers = {
        "mixer": recipe.mixer,
        "parameters": parameters(training.model),
        "held_out_loss": loss,
        "perplexity": math.exp(loss),
        "bits_per_byte": loss / math.log(2),
        "unigram_entropy": unigram_entropy,
        "tokens": recipe.steps * recipe.batch * recipe.context,
        "seconds": training.progress.seconds,
        "tokens_per_second": float(np.median([row["tokens_per_second"] for row in steps])),
        "machine": dataclasses.asdict(training.machine) | {"name": device_name(training.machine.device), "torch": torch.__version__},
    }
    numbers["seconds_per_step"] = recipe.batch * recipe.context / numbers["tokens_per_second"]
    return Results(recipe, numbers, steps, by_position, _inner(training, windows))


def device_name(device: str) -> str:
    """The GPU's name, or how many threads the CPU has."""
    return torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def _inner(training: Training, windows: int) -> np.ndarray | None:
    """``[layers, 3, T]`` float32: ℓ(W_0), ℓ before and ℓ after a token's step, of every TTT layer on what it reads."""
    found: list[np.ndarray] = []

    def measure(layer: TTTLayer, args: tuple[torch.Tensor, ...]) -> None:
        found.append(np.stack(inner_losses(layer, args[0])))

    hooks = [module.register_forward_pre_hook(measure) for module in training.model.modules() if isinstance(module, TTTLayer)]
    if not hooks:
        return None
    with torch.no_grad(), training.autocast():
        training.model(input_ids=training.held_out(windows)[:, :-1], use_cache=False)
    for hook in hooks:
        hook.remove()
    return np.stack(found)
