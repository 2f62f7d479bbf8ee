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
    """The forward pass alone, without a graph for gradients."""

    def call(arguments: Tensors) -> torch.Tensor:
        with torch.no_grad():
            return contender.call(workload, arguments)

    def single(arguments: Tensors) -> tuple[int, Any]:
        y = call(arguments)
        _finite(contender, {"y": y})
        return _bytes(arguments) + _bytes({"y": y}), y

    return _measured(contender, workload, device, clock, single, call)


def both(contender: Contender, workload: Workload, device: str, clock: Clock = clock) -> Measured:
    """Forward and backward: y, then from ȳ the gradients of every argument. Its bytes are arguments, y, ȳ and gradients, each once."""
    with torch.no_grad():
        y_bar = torch.randn_like(contender.call(workload, contender.draw(workload, device)))

    def call(arguments: Tensors) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        y = contender.call(workload, arguments)
        return y, gradients(y, arguments, y_bar)

    def single(arguments: Tensors) -> tuple[int, Any]:
        for x in arguments.values():
            x.requires_grad_()
        y, found = call(arguments)
        _finite(contender, found)
        return 2 * (_bytes(arguments) + _bytes({"y": y})), (y, found)

    return _measured(contender, workload, device, clock, single, call, held=_bytes({"y": y_bar}))


def _measured(
    contender: Contender,
    workload: Workload,
    device: str,
    clock: Clock,
    single: Callable[[Tensors], tuple[int, Any]],
    call: Callable[[Tensors], Any],
    held: int = 0,
) -> Measured:
    """``single`` is a call whose numbers are looked at, and which says how many bytes it must move."""
    first = contender.draw(workload, device)
    floor, _ = single(first)  # compiles, too, so that what compiling needs is not counted
    peak = None if device == "cpu" else _peak(lambda: call(first), held + _bytes(first))
    more = max(SETS, 1 + math.ceil(_cache(device) / floor)) - 1
    sets = [first, *(contender.draw(workload, device) for _ in range(more))]
    for arguments in sets:
        for x in arguments.values():
            x.requires_grad_(first[next(iter(first))].requires_grad)
    turn = itertools.cycle(sets)
    return Measured(summary(clock(lambda: call(next(turn)))), floor, peak)


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


def _finite(contender: Contender, tensors: Tensors) -> None:
    """``WrongAnswer`` for numbers that are none."""
    for name, x in tensors.items():
        if not torch.isfinite(x).all():
            got = f"{name} of {contender.name}, at full size: got numbers that are not finite; expected finite ones"
            raise WrongAnswer(f"{got}. Fix: time a version of it that is right.")
