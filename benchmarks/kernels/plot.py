"""Time for a token against T: ``python -m benchmarks.kernels.plot JSON PNG``."""

from __future__ import annotations

import sys
from pathlib import Path

from tttcore import InvalidInput

from .record import PASSES, Record, read
from .table import fastest

TITLES = {"forward": "forward", "both": "forward and backward"}
OURS = ("#2b6cb0", "#1a365d")
THEIRS = ("#c53030", "#dd6b20", "#38a169", "#805ad5", "#718096")


def plot(record: Record, path: Path) -> None:
    """A panel a pass, a line for whatever is computed, by the fastest that computes it; ours thick."""
    from matplotlib import pyplot as plt

    from ..plots import finish

    passes = [name for name in PASSES if any(result.passes == name and result.timing for result in record.results)]
    if not passes:
        raise InvalidInput("results", got="none that is timed", expected="one at the least", fix="see in the table why none is")
    figure, panels = plt.subplots(1, len(passes), figsize=(4.8 * len(passes), 4), layout="constrained", sharey=True, squeeze=False)
    for axes, name in zip(panels[0], passes, strict=True):
        for label, ours, colour in _lines(record):
            points = sorted(_points(record, label, ours, name))
            if points:
                axes.plot(*zip(*points, strict=True), "o-", color=colour, label=label, linewidth=2.4 if ours else 1.4, markersize=5 if ours else 3.5)
        lengths = sorted({result.tokens for result in record.results})
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(lengths, [f"{length // 1024}k" if length % 1024 == 0 else str(length) for length in lengths])
        axes.set_title(TITLES[name], fontsize=10)
        axes.set_xlabel("T, tokens of a sequence")
        finish(axes)
    panels[0][0].set_ylabel("nanoseconds for a token")
    given = record.workload
    sizes = f"H = {given['heads']}, D = {given['head_dim']}, K = {given['mini_batch_size']}, {given['dtype']}"
    figure.suptitle(f"{record.device}, {sizes}", fontsize=10)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _lines(record: Record) -> list[tuple[str, bool, str]]:
    """What is computed, whether by us, and its colour."""
    found = dict.fromkeys((result.computes, result.ours) for result in record.results if result.timing)
    ours, theirs = iter(OURS), iter(THEIRS)
    return [(label, mine, next(ours if mine else theirs, "black")) for label, mine in found]


def _points(record: Record, computes: str, ours: bool, passes: str) -> list[tuple[int, float]]:
    """(T, nanoseconds for a token)."""
    shapes = dict.fromkeys(result.shape for result in record.results)
    times = {(batch, tokens): fastest(record, computes, ours, (batch, tokens), passes) for batch, tokens in shapes}
    return [(tokens, 1e6 * time / (batch * tokens)) for (batch, tokens), time in times.items() if time is not None]


def main(arguments: list[str]) -> int:
    """The exit status: 0, or 2 for wrong usage."""
    if len(arguments) != 2:
        got = f"got {len(arguments)} arguments; expected 2: a file of --json, and a picture to write"
        print(f"benchmarks.kernels.plot: {got}. Fix: python -m benchmarks.kernels.plot JSON PNG.", file=sys.stderr)
        return 2
    source, target = map(Path, arguments)
    try:
        plot(read(source), target)
    except InvalidInput as error:
        print(error, file=sys.stderr)
        return 2
    print(f"wrote {target}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
