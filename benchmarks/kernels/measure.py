"""Time and memory on a GPU."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from triton.testing import do_bench

from ttt_conformance.bench.check import WrongAnswer
from ttt_conformance.bench.timing import Timing, summary
from ttt_conformance.bench.workload import Workload

from .contenders import Contender, Tensors, gradients

WARMUP, REPEAT = 50, 300
"""Milliseconds, of which the cheapest call gets hundreds of repeats and the dearest a few."""
SETS = 2
"""Sets of inputs at the least, taken in turn: no call finds its own inputs in a cache."""
Clock = Callable[[Callable[[], Any]], list[float]]


class Measured(NamedTuple):
    """A pass: its time, the bytes that it must read and write, and those that it holds at its peak (arguments, results and gradients included)."""

    timing: Timing
    floor_bytes: int
    peak_bytes: int | None


def clock(call: Callable[[], Any]) -> list[float]:
    """Milliseconds of each repeat, the L2 cache cleared in between."""
    found: Any = do_bench(call, warmup=WARMUP, rep=REPEAT, return_mode="all")
    return found


def forward(contender: Contender, workload: Workload, device: str, clock: Clock = clock) -> Measured:
    """The forward pass alone, without a graph for gradients. Its bytes are arguments and y."""

    def call(arguments: Tensors) -> Tensors:
        with torch.no_grad():
            return {"y": contender.call(workload, arguments)}

    def draw() -> Tensors:
        return contender.draw(workload, device)

    return _measured(contender, draw, call, device, clock)


def both(contender: Contender, workload: Workload, device: str, clock: Clock = clock) -> Measured:
    """Forward and backward: y, then from ȳ the gradients of every argument. Its bytes are arguments, y, ȳ and gradients, each once."""
    with torch.no_grad():
        y_bar = torch.randn_like(contender.call(workload, contender.draw(workload, device)))

    def call(arguments: Tensors) -> Tensors:
        y = contender.call(workload, arguments)
        return {f"the gradient of {name}": x for name, x in gradients(y, arguments, y_bar).items()} | {"y": y}

    def draw() -> Tensors:
        return {name: x.requires_grad_() for name, x in contender.draw(workload, device).items()}

    return _measured(contender, draw, call, device, clock, held=_bytes({"y_bar": y_bar}))


def _measured(
    contender: Contender, draw: Callable[[], Tensors], call: Callable[[Tensors], Tensors], device: str, clock: Clock, held: int = 0
) -> Measured:
    """``held``: bytes that a call reads besides its arguments."""
    sets = [draw()]
    held += _bytes(sets[0])
    floor = held + _moved(contender, call(sets[0]))  # compiles, too, so that what compiling needs does not count
    peak = None if device == "cpu" else _peak(lambda: call(sets[0]), held)
    sets += [draw() for _ in range(max(SETS - 1, math.ceil(_cache(device) / floor)))]
    turn = itertools.cycle(sets)
    return Measured(summary(clock(lambda: call(next(turn)))), floor, peak)


def _moved(contender: Contender, results: Tensors) -> int:
    """Bytes of results; ``WrongAnswer`` for numbers that are none."""
    for name, x in results.items():
        if not torch.isfinite(x).all():
            got = f"{name} of {contender.name}, at full size: got numbers that are not finite; expected finite ones"
            raise WrongAnswer(f"{got}. Fix: time a version of it that is right.")
    return _bytes(results)


def copy_bandwidth(device: str, clock: Clock = clock, count: int = 2**30) -> float:
    """Bytes a second, read and written, of a copy of ``count`` bytes: the ceiling."""
    source = torch.empty(count, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    return 2 * count / (1e-3 * summary(clock(lambda: target.copy_(source))).median)


def _peak(call: Callable[[], Any], held: int) -> int:
    """The most bytes allocated during a call, of which ``held`` are its arguments'; all else that is allocated is not counted."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = call()
    torch.cuda.synchronize()
    del result
    return torch.cuda.max_memory_allocated() - before + held


def _cache(device: str) -> int:
    return 0 if device == "cpu" else torch.cuda.get_device_properties(device).L2_cache_size


def _bytes(tensors: Tensors) -> int:
    return sum(x.numel() * x.element_size() for x in tensors.values())
