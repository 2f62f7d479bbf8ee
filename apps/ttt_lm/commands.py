"""``ttt train``, ``ttt generate`` and ``ttt compare``. Frameworks are imported by a command that runs, not by ``ttt --help``."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from tttcore import BackendUnavailable, InvalidInput, Unsupported
from tttcore.files import FULL

from .recipe import Every, Machine, Recipe

DEFAULT, MACHINE, EVERY = Recipe(), Machine(), Every()
FAILED, USAGE = 1, 2
Runs = Annotated[list[Path], typer.Argument(help="Folders of runs that have ended.")]


def train(
    out: Annotated[Path, typer.Option(help="The run's folder: recipe, metrics, checkpoints, figures.", file_okay=False)] = Path("ttt-run"),
    mixer: Annotated[str, typer.Option(help="ttt-linear, ttt-mlp, attention or mamba2; all else stays the same.")] = DEFAULT.mixer,
    backbone: Annotated[str, typer.Option(help="Around a TTT mixer: transformer or mamba.")] = DEFAULT.backbone,
    text: Annotated[list[Path] | None, typer.Option(help="Files or folders; repeatable. Default: the Python standard library's sources.")] = None,
    width: Annotated[int, typer.Option(help="Channels.")] = DEFAULT.width,
    layers: Annotated[int, typer.Option(help="Blocks.")] = DEFAULT.layers,
    heads: Annotated[int, typer.Option(help="Heads of attention and of TTT.")] = DEFAULT.heads,
    context: Annotated[int, typer.Option(help="Bytes predicted in a window.")] = DEFAULT.context,
    batch: Annotated[int, typer.Option(help="Windows a step.")] = DEFAULT.batch,
    steps: Annotated[int, typer.Option(help="Steps of AdamW.")] = DEFAULT.steps,
    lr: Annotated[float, typer.Option(help="Learning rate after warmup.")] = DEFAULT.lr,
    weight_decay: Annotated[float, typer.Option(help="Of matrices.")] = DEFAULT.weight_decay,
    seed: Annotated[int, typer.Option(help="Of parameters and windows.")] = DEFAULT.seed,
    dtype: Annotated[str, typer.Option(help="Of matrix products: float32 or bfloat16.")] = DEFAULT.dtype,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = MACHINE.device,
    kernel: Annotated[str, typer.Option(help="Backend of TTT layers: torch, or triton on a GPU.")] = MACHINE.kernel,
    compiled: Annotated[bool, typer.Option("--compile", help="torch.compile the model.")] = False,
    log_every: Annotated[int, typer.Option(min=1, help="Steps between two lines of metrics.")] = EVERY.log,
    evaluate_every: Annotated[int, typer.Option(min=1, help="Steps between two evaluations.")] = EVERY.evaluate,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between two checkpoints.")] = EVERY.checkpoint,
    windows: Annotated[int, typer.Option(min=1, help="Held-out windows of an evaluation.")] = EVERY.windows,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's newest checkpoint.")] = False,
) -> None:
    """Train a language model of bytes, and show what its layers learn while they read.

    Exit status: 0 the run has ended, 1 the disk is full, 2 usage.
    """
    with _told():
        recipe = Recipe(mixer, backbone, width, layers, heads, context, batch, steps, lr, weight_decay, seed, dtype)
        from .run import run

        every = Every(log_every, evaluate_every, checkpoint_every, windows)
        run(out, recipe, text or [], Machine(device, kernel, compiled), every, resume=resume)


def generate(
    model: Annotated[Path, typer.Argument(help="A run's folder, or one that save_pretrained wrote.")],
    prompt: Annotated[str, typer.Option(help="The text to continue; - reads standard input.")] = "def ",
    tokens: Annotated[int, typer.Option(min=1, help="Bytes to add.")] = 200,
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest byte each time.")] = 0.8,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Continue a text, byte by byte."""
    with _told():
        from .generation import continue_text, load

        loaded = load(model, device)
        source = sys.stdin.buffer.read() if prompt == "-" else prompt.encode()

        def show(more: bytes) -> None:
            sys.stdout.buffer.write(more)
            sys.stdout.buffer.flush()

        continue_text(loaded, source, tokens, temperature, seed, show)
        show(b"\n")


def compare(
    runs: Runs,
    out: Annotated[Path, typer.Option(help="Folder for the figures.", file_okay=False)] = Path("ttt-comparison"),
) -> None:
    """Show runs side by side: a table, loss by step and perplexity by position."""
    with _told():
        from .comparison import compare_runs

        compare_runs(runs, out)


@contextmanager
def _told() -> Iterator[None]:
    """What the user can mend is a line on standard error and exit status 2; a full disk, a line and status 1."""
    missing = [name for name in ("torch", "transformers", "safetensors", "tensorboard", "matplotlib") if importlib.util.find_spec(name) is None]
    if missing:
        _usage(f"this command needs {', '.join(missing)}: pip install 'tttcore[train]'")
    try:
        yield
    except (InvalidInput, Unsupported, BackendUnavailable) as error:
        _usage(str(error))
    except OSError as error:
        if error.errno not in FULL:
            raise
        typer.echo(f"{error.strerror} A run keeps its newest checkpoint: go on from it with --resume.", err=True)
        raise typer.Exit(FAILED) from error


def _usage(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(USAGE)
