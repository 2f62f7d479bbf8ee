"""The training loop: the same numbers whether it ran at once or was killed and went on."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch

from . import checkpoint
from .checkpoint import Progress
from .corpus import Corpus
from .measure import losses_by_position, token_losses
from .metrics import Metrics
from .mixers import model_of
from .recipe import Every, Machine, Recipe


class Training:
    """A model of a recipe, its optimiser and how far they are: fresh, or from the run's newest checkpoint if there is one.

    Windows of a step depend on the seed and the step alone, and the model draws nothing after its parameters.
    """

    def __init__(self, run: Path, recipe: Recipe, corpus: Corpus, machine: Machine, every: Every) -> None:
        self.run, self.recipe, self.machine, self.every = run, recipe, machine, every
        self._train = corpus.windows(recipe.context + 1)
        self._held_out = corpus.held_out_windows(recipe.context + 1, every.windows)
        torch.manual_seed(recipe.seed)
        self.model = model_of(recipe, machine.kernel)
        torch.nn.Module.to(self.model, machine.device)
        matrices = [x for x in self.model.parameters() if x.ndim >= 2]
        rest = [x for x in self.model.parameters() if x.ndim < 2]
        groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.95), fused=machine.device == "cuda")
        newest = checkpoint.newest(run)
        self.progress = Progress() if newest is None else checkpoint.restore(newest, self.model, self.optimiser)
        self._losses = torch.compile(self._token_losses, dynamic=False) if machine.compiled else self._token_losses

    def train(self, show: Callable[[int, dict[str, float]], None]) -> None:
        """The remaining steps; ``show(step, what was measured)`` after each stretch of ``every.log``. Ends with a checkpoint."""
        metrics = Metrics(self.run, self.progress.step)
        seconds, since, began = self.progress.seconds, self.progress.step, time.perf_counter()
        running = torch.zeros((), device=self.machine.device)
        try:
            for step in range(self.progress.step + 1, self.recipe.steps + 1):
                running += self._step(step - 1)
                last = step == self.recipe.steps
                if not (last or any(step % n == 0 for n in (self.every.log, self.every.evaluate, self.every.checkpoint))):
                    continue
                if self.machine.device == "cuda":
                    torch.cuda.synchronize()
                spent = time.perf_counter() - began
                seconds += spent
                tokens = (step - since) * self.recipe.batch * self.recipe.context
                values = {"loss": running.item() / (step - since), "lr": self.recipe.lr_at(step - 1), "tokens_per_second": tokens / spent}
                if last or step % self.every.evaluate == 0:
                    values["held_out_loss"] = float(self.by_position().mean())
                metrics.write(step, **values, seconds=seconds)
                self.progress = Progress(step, seconds)
                if last or step % self.every.checkpoint == 0:
                    checkpoint.save(self.run, self.model, self.optimiser, self.progress)
                show(step, values)
                running.zero_()
                since, began = step, time.perf_counter()
        finally:
            metrics.close()

    def by_position(self) -> np.ndarray:
        """Held-out loss of the token at each position ``[T]``."""
        self.model.eval()
        rows = max(1, self.recipe.batch // 2)
        with self.autocast():
            batches = (self._tensor(self._held_out[n : n + rows]) for n in range(0, len(self._held_out), rows))
            found = losses_by_position(self._token_losses, batches)
        self.model.train()
        return found

    def held_out(self, rows: int) -> torch.Tensor:
        """The first held-out windows."""
        return self._tensor(self._held_out[:rows])

    def autocast(self) -> AbstractContextManager[object]:
        """Matrix products in the recipe's dtype."""
        return torch.autocast(self.machine.device, torch.bfloat16, enabled=self.recipe.dtype == "bfloat16")

    def _step(self, step: int) -> torch.Tensor:
        """One step of AdamW; the mean loss, on the device."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.lr_at(step)
        windows = self._tensor(self._train.batch(self.recipe.seed, step, self.recipe.batch))
        with self.autocast():
            loss = self._losses(windows).mean()
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        return loss.detach()

    def _token_losses(self, windows: torch.Tensor) -> torch.Tensor:
        return token_losses(self.model, windows)

    def _tensor(self, windows: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(windows).to(self.machine.device, non_blocking=True).long()
