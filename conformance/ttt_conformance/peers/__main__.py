"""``python -m ttt_conformance.peers``: for each peer the way from the paper to what it computes, a change at a time, and what is left then."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tttcore.backend import BackendInfo, peers

from .account import left, sizes


def show(info: BackendInfo, console: Console) -> None:
    """One peer: what each change does, as a share of the largest value, and what is unexplained, as a share of its allowance."""
    if not info.available:
        console.print(f"{info.name}: {info.reason}", markup=False)
        return
    peer: Any = importlib.import_module(info.target.partition(":")[0])
    grid = Table("change", "kind", "y", "W", "b", "what the peer does", title=f"from the paper to {info.name} {peer.VERSION}", title_justify="left")
    for change, size in sizes().items():
        difference = peer.DIFFERENCES[change]
        grid.add_row(change, difference.kind, *map(_percent, size), difference.what)
    rest = left(peer)
    verdict = "of the allowance of rounding errors" if np.max(rest) <= 1 else "UNEXPLAINED, in allowances of rounding errors"
    grid.add_row("left", "", *map(_percent, rest), verdict)
    console.print(grid)


def _percent(share: float) -> str:
    return f"{share:.0%}" if share else ""


if __name__ == "__main__":
    for info in peers().values():
        show(info, Console())
