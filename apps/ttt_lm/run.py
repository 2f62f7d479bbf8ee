"""A run from its folder's start to its figures, with a progress bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers.utils import logging

from tttcore import InvalidInput
from tttcore.files import whole

from . import plots
from .corpus import Corpus
from .mixers import parameters
from .recipe import Every, Machine, Recipe
from .results import RECIPE, Results, results_of
from .training import Training


def run(out: Path, recipe: Recipe, text: Sequence[Path], machine: Machine, every: Every, *, resume: bool) -> Results:
    """Train, measure, draw; everything is in ``out``. Raises ``InvalidInput`` before anything is written or computed."""
    console = Console()
    logging.disable_progress_bar()
    if machine.device == "cuda" and not torch.cuda.is_available():
        raise InvalidInput("--device", got="cuda", expected="a GPU that PyTorch sees", fix="use --device cpu")
    corpus = Corpus.of(text)
    recipe = replace(recipe, text=corpus.name)
    _check(out, recipe, resume=resume)
    training = Training(out, recipe, corpus, machine, every)
    if not resume:
        out.mkdir(parents=True, exist_ok=True)
        with whole(out / RECIPE) as path:
            path.write_text(recipe.to_json(), encoding="utf-8")
    entropy = corpus.unigram_entropy()
    console.print(
        f"{recipe.mixer}: {parameters(training.model):,} parameters, {recipe.layers} blocks of {recipe.width} channels\n"
        f"{corpus.describe()}, unigram entropy {entropy:.3f} nats a byte",
        highlight=False,
    )
    if training.progress.step:
        console.print(f"resumed after step {training.progress.step}", highlight=False)
    _with_progress(console, training)
    found = results_of(training, entropy)
    found.write(out)
    for path in draw(found, out):
        console.print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)
    numbers = found.numbers
    console.print(
        f"held-out loss {numbers['held_out_loss']:.3f} nats a byte ({numbers['bits_per_byte']:.3f} bits, perplexity {numbers['perplexity']:.2f}), "
        f"{numbers['tokens_per_second']:,.0f} tokens/s, {numbers['seconds']:.0f} s of training",
        highlight=False,
    )
    return found


def draw(found: Results, out: Path) -> list[Path]:
    """The figures of one run."""
    paths = [out / "loss.png", out / "perplexity.png"]
    plots.loss_figure([found], paths[0])
    plots.perplexity_figure([found], paths[1])
    if found.inner is not None:
        paths.append(out / "inner_loss.png")
        plots.inner_loss_figure(found, paths[2])
    return paths


def _check(out: Path, recipe: Recipe, *, resume: bool) -> None:
    """The folder is new, or to be resumed with the recipe that it has."""
    path = out / RECIPE
    if path.exists() and not resume:
        raise InvalidInput("--out", got=f"{out}, which holds a run", expected="a new folder", fix="pass --resume, or another --out")
    if not path.exists() and resume:
        raise InvalidInput("--resume", got=f"no run in {out}", expected="the folder of a run", fix="leave --resume out, or check --out")
    if path.exists():
        differences = Recipe.read(path).differences(recipe)
        if differences:
            fix = "pass the options that the run was started with"
            raise InvalidInput("--resume", got=f"another recipe ({'; '.join(differences)})", expected="the run's own", fix=fix)


def _with_progress(console: Console, training: Training) -> None:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("starting", total=training.recipe.steps, completed=training.progress.step)
        held_out = ""

        def show(step: int, values: dict[str, float]) -> None:
            nonlocal held_out
            if "held_out_loss" in values:
                held_out = f", held out {values['held_out_loss']:.3f}"
            rate = f"{values['tokens_per_second']:,.0f} tokens/s"
            progress.update(task, completed=step, description=f"loss {values['loss']:.3f}{held_out}, {rate}")

        training.train(show)
