"""How often a right backend fails and a wrong one passes: the measurements behind docs/allowances.md.

``python benchmarks/allowances.py false-alarms --draws 40000``, ``… constants`` and ``… power`` write a JSON file and a plot each to docs/figures.
"""

from __future__ import annotations

import itertools
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import plots
import typer
from draws import DEFAULT, breaks, grouped, quantiles, sample
from rich.progress import track

from ttt_conformance.allowance import BAND, distance, disturbed
from ttt_conformance.laws import LAWS, Trial
from ttt_conformance.laws.expected import resumed
from ttt_conformance.matrix import cells
from ttt_conformance.mutants import MUTANTS, OF_BACKENDS, Mutant
from ttt_conformance.problem import Outcome, Problem, reference
from tttcore import Backend, get_backend
from tttcore.tree import leaves

FIGURES = Path(__file__).parents[1] / "docs/figures"
LADDER = (0, 0.25, 0.5, 1, 2, 4, 8, 16, 32)
"""Values of SAFETY."""
Seed = Annotated[int, typer.Option(help="another seed, other draws")]
app = typer.Typer(add_completion=False)


@app.command()
def false_alarms(draws: int = 40000, seed: Seed = 0, backend: list[str] = ["numpy", "torch"]) -> None:  # noqa: B006 (typer copies it)
    """Random draws of every law in every cell, on right backends: failures, and how much of the allowance the worst comparison of a draw used."""
    started, names = time.perf_counter(), [name for name, law in LAWS.items() if law.cost < 8]
    groups = grouped([get_backend(name) for name in backend], names)
    weight = sum(len(group) / group[0].law.cost for group in groups)
    shares: dict[str, list[float]] = defaultdict(list)
    failures: list[str] = []
    comparisons = 0
    for group in track(groups, "false alarms"):
        law = group[0].law
        for drawn in sample(law, group[0].setting(DEFAULT), max(1, round(draws / weight / law.cost)), seed):
            for cell in group:
                trial = Trial(cell.backend, cell.form)
                if (failure := breaks(law, trial, drawn)) is not None:
                    failures.append(f"{cell.name}, {drawn}: {failure}")
                comparisons += trial.comparisons
                shares[law.name].append(trial.worst)
    count = sum(map(len, shares.values()))
    found: dict[str, Any] = {
        "draws": count,
        "comparisons": comparisons,
        "seconds": round(time.perf_counter() - started),
        "seed": seed,
        "backends": backend,
    }
    found |= {"failures": failures, "bound": 3 / count, "laws": {name: quantiles(values) for name, values in shares.items()}}
    write("false-alarms", found)
    plots.shares(found["laws"], FIGURES / "false-alarms.png")
    typer.echo(f"{len(failures)} of {count} draws failed ({comparisons} comparisons)")


@app.command()
def constants(draws: int = 60, seed: Seed = 0) -> None:
    """Errors of right backends in units of the reference's own, which 1, 2, 4 and 8 samples measure: the SAFETY that each array would need."""
    needed: dict[str, list[float]] = defaultdict(list)
    for group in track(grouped([get_backend("numpy"), get_backend("torch")], ["split"]), "constants"):
        for dtype, drawn in itertools.product(("float64", "float32"), sample(group[0].law, group[0].setting(DEFAULT), draws, seed)):
            problem, truth, _ = resumed(replace(drawn, dtype=dtype))
            errors, step = list(own_errors(problem, truth, 8)), float(np.finfo(dtype).eps)
            for cell in group:
                got = Trial(cell.backend, cell.form).answer(problem)
                for x, y, own in zip(leaves(got), leaves(truth), errors, strict=True):
                    error, floor = distance(x, y), step * float(np.max(np.abs(y), initial=0.0))
                    for samples in (1, 2, 4, 8):
                        needed[f"{samples}, {dtype}"].append(ratio(error - BAND * floor, own[samples - 1]))
                    needed[f"4 and no band, {dtype}"].append(ratio(error, own[3]))
    rows = {name: {str(safety): float(np.mean(np.asarray(values) > safety)) for safety in LADDER} for name, values in needed.items()}
    write("constants", {"draws": draws, "seed": seed, "arrays": len(needed["4, float64"]), "share that needs more than": rows})
    plots.safety(rows, FIGURES / "constants.png")


def own_errors(problem: Problem, truth: Outcome, samples: int) -> Iterator[np.ndarray]:
    """Of each array the worst error that the reference itself makes, after one sample, two, and so on."""
    rng, step = np.random.default_rng(0), float(np.finfo(problem.dtype).eps)
    whole = problem.dtype == np.float64
    runs = [reference(problem.map(lambda x: disturbed(x, step, rng)) if n or whole else problem) for n in range(samples)]
    for *column, exact in zip(*map(leaves, runs), leaves(truth), strict=True):
        yield np.maximum.accumulate([distance(x, exact) for x in column])


def ratio(error: float, own: float) -> float:
    """How many times its own error; infinitely many where it makes none."""
    return 0.0 if error <= 0 else error / own if own else np.inf


@app.command()
def power(draws: int = 24, seed: Seed = 0) -> None:
    """Of every mutant, the probability that one draw of its law finds it, in the best of the law's cells, and that all draws there miss it."""
    rows: dict[str, dict[str, Any]] = {}
    drawn: dict[tuple[str, ...], list[Any]] = {}
    mutants = sorted(
        {**MUTANTS, **{name: mutant for name, mutant in OF_BACKENDS.items() if mutant.base == "torch"}}.items(), key=lambda item: item[1].law
    )
    for name, mutant in track(mutants, "power"):
        rows[name] = detection(mutant, mutant.backend(name), draws, seed, drawn)
    write("power", {"draws": draws, "seed": seed, "mutants": rows})
    plots.power(rows, FIGURES / "power.png")
    worst = sorted(rows, key=lambda name: rows[name]["missed"])[-5:]
    typer.echo("most easily missed: " + ", ".join(f"{name} {rows[name]['missed']:.1e}" for name in worst))


def detection(mutant: Mutant, backend: Backend, draws: int, seed: int, kept: dict[tuple[str, ...], list[Any]]) -> dict[str, Any]:
    """p of one draw in the best cell of the law, the draws that a default run makes there, and the probability that all of these miss."""
    law, best = LAWS[mutant.law], 0.0
    for cell in cells([backend], DEFAULT):
        if cell.law is not law:
            continue
        key = (law.name, cell.subject, cell.inner, cell.dtype)
        if key not in kept:
            kept[key] = sample(law, cell.setting(DEFAULT), max(4, draws // law.cost), seed)
        best = max(best, float(np.mean([breaks(law, Trial(backend, cell.form), drawn) is not None for drawn in kept[key]])))
    made = max(1, DEFAULT.examples // law.cost)
    return {"law": law.name, "one draw": best, "draws": made, "missed": (1 - best) ** made}


@app.command()
def redraw() -> None:
    """The plots again, from the JSON files."""
    parts = {"false-alarms": (plots.shares, "laws"), "constants": (plots.safety, "share that needs more than"), "power": (plots.power, "mutants")}
    for name, (draw, part) in parts.items():
        draw(json.loads((FIGURES / f"{name}.json").read_text(encoding="utf-8"))[part], FIGURES / f"{name}.png")


def write(name: str, found: dict[str, Any]) -> None:
    """One JSON file."""
    FIGURES.mkdir(exist_ok=True)
    (FIGURES / f"{name}.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app()
