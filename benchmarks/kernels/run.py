"""A run: every contender checked once, then timed at every shape; whatever one of them throws is a finding about it."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from ttt_conformance.bench.check import WrongAnswer
from ttt_conformance.bench.workload import Workload
from tttcore import Unsupported

from . import measure
from .check import check_backward, check_forward
from .contenders import Contender
from .record import FAILED, NO_BACKWARD, NOT_CLAIMED, PASSES, WRONG, Result

Found = TypeVar("Found")
Measure = Callable[[Contender, Workload, str], measure.Measured]
MEASURES: dict[str, Measure] = {"forward": measure.forward, "both": measure.both}


def run(contender: Contender, workloads: Sequence[Workload], passes: Sequence[str], device: str) -> Iterator[Result]:
    """Its results, as they come, in the order of shapes and passes."""
    batch, tokens = (max(getattr(workload, name) for workload in workloads) for name in ("batch", "tokens"))
    first = dataclasses.replace(workloads[0], batch=batch, tokens=tokens)
    forward = _tried(lambda: check_forward(contender, first, device))
    found: dict[str, float | tuple[str, str]] = dict.fromkeys(PASSES, forward)
    if "both" in passes and not isinstance(forward, tuple):
        found["both"] = _tried(lambda: check_backward(contender, first, device), NO_BACKWARD)
    for workload in workloads:
        for name in (name for name in PASSES if name in passes):
            blank = Result(contender.name, contender.computes, contender.ours, contender.by, workload.batch, workload.tokens, name)
            checked = found[name]
            if isinstance(checked, tuple):
                yield dataclasses.replace(blank, status=checked[0], message=checked[1])
            else:
                yield _timed(dataclasses.replace(blank, error=checked), contender, workload, device)


def _timed(blank: Result, contender: Contender, workload: Workload, device: str) -> Result:
    got = _tried(lambda: MEASURES[blank.passes](contender, workload, device))
    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()
    if isinstance(got, measure.Measured):
        return dataclasses.replace(blank, timing=got.timing, floor_bytes=got.floor_bytes, peak_bytes=got.peak_bytes)
    status, message = got
    return dataclasses.replace(blank, status=status, message=message)


def _tried(call: Callable[[], Found], unsupported: str = NOT_CLAIMED) -> Found | tuple[str, str]:
    """What the call returns, or a status and why; ``unsupported`` is that of what is not claimed."""
    try:
        return call()
    except WrongAnswer as error:
        return WRONG, str(error)
    except Unsupported as error:
        return unsupported, str(error)
    except Exception as error:  # whatever a contender throws is said of it, and the others are timed
        lines = str(error).strip().splitlines() or [""]
        return FAILED, f"{type(error).__name__}: {lines[0][:200]}"
