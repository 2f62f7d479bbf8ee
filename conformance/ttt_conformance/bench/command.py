"""``ttt bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tttcore import BackendUnavailable, InvalidInput, backends
from tttcore.inner_loop import FORMS

from .check import WrongAnswer
from .contest import FAILED, TIMED, WRONG, Row, alone, entries, exam
from .table import record, table
from .workload import Workload

RIGHT, NOT_RIGHT, USAGE = 0, 1, 2
SIZES = Workload()


def run_bench(
    backend: Annotated[list[str] | None, typer.Option(help="NAME or package.module:OBJECT; repeatable. Default: all that are available.")] = None,
    form: Annotated[list[str] | None, typer.Option(help="dual, primal or decode; repeatable. Default: dual.")] = None,
    batch: Annotated[int, typer.Option(help="B, sequences at once.")] = SIZES.batch,
    tokens: Annotated[int, typer.Option(help="T, tokens of a sequence.")] = SIZES.tokens,
    heads: Annotated[int, typer.Option(help="H.")] = SIZES.heads,
    head_dim: Annotated[int, typer.Option(help="D, channels of a head.")] = SIZES.head_dim,
    mini_batch_size: Annotated[int, typer.Option(help="K, tokens of a mini-batch.")] = SIZES.mini_batch_size,
    inner: Annotated[str, typer.Option(help="The inner model: linear or mlp.")] = SIZES.inner,
    dtype: Annotated[str, typer.Option(help="Of the tokens: float16, bfloat16, float32 or float64.")] = SIZES.dtype,
    grad: Annotated[bool, typer.Option(help="Also forward and backward together.")] = True,
    seconds: Annotated[float, typer.Option(min=0, help="For how long a call is repeated; three times at least.")] = 2.0,
    json: Annotated[Path | None, typer.Option(help="Write everything to this file.", dir_okay=False)] = None,
) -> None:
    """Time the inner loop of every backend on this machine, for the shape that you need, once its answer is right.

    Exit status: 0 all that was timed is right, 1 a backend is wrong or fails, 2 usage, or nothing could be timed.
    """
    console = Console()
    if json is not None and not json.absolute().parent.is_dir():
        _usage(f"--json: got {json}, in a folder that does not exist; expected a file in an existing folder. Fix: create {json.parent}.")
    for name in form or ():
        if name not in FORMS:
            _usage(f"--form: got {name!r}; expected one of {list(FORMS)}. Fix: pass one of these.")
    names = list(dict.fromkeys(backend or [name for name, info in backends().items() if info.available]))
    try:
        workload = Workload(batch, tokens, heads, head_dim, mini_batch_size, inner, dtype)
        rows = _with_progress(console, names, list(dict.fromkeys(form or ())), workload, grad, seconds)
    except (BackendUnavailable, InvalidInput, WrongAnswer) as error:
        _usage(str(error))
    console.print(table(rows, workload, grad), highlight=False)
    if json is not None:
        json.write_text(record(rows, workload), encoding="utf-8")
        console.print(f"wrote {json}", markup=False, highlight=False, soft_wrap=True)
    if any(row.status in (WRONG, FAILED) for row in rows):
        raise typer.Exit(NOT_RIGHT)
    if not any(row.status == TIMED for row in rows):
        fix = "name another dtype, size or form, or install another backend (`ttt backends`)"
        _usage(f"backends: got {', '.join(names)}, of which none claims this; expected one that does. Fix: {fix}.")


def _with_progress(console: Console, names: list[str], forms: list[str], workload: Workload, grad: bool, seconds: float) -> list[Row]:
    columns = (SpinnerColumn(), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True) as progress:
        every = entries(names, forms)
        task = progress.add_task("the truth, in float64", total=len(every))
        known, rows = exam(workload, names, grad), list[Row]()
        for entry in every:
            progress.update(task, description=str(entry))
            rows.append(alone(entry, workload, known, seconds))
            progress.advance(task)
        return rows


def _usage(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(USAGE)
