"""What is known of a peer, printed below what the laws say of it."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

from rich.table import Table

from tttcore.backend import peers

from .difference import Difference


def known_differences(names: Iterable[str]) -> list[Table]:
    """For each name that is a peer's, a row a difference from the paper: its kind, the laws that show it, and what it is."""
    registered = peers()
    return [_table(name, importlib.import_module(registered[name].target.partition(":")[0])) for name in names if name in registered]


def _table(name: str, peer: Any) -> Table:
    grid = Table("difference", "kind", "laws", "what the peer does", title=f"why {name} {peer.VERSION} is another layer", title_justify="left")
    differences: dict[str, Difference] = peer.DIFFERENCES
    for what, difference in differences.items():
        grid.add_row(what, difference.kind, ", ".join(difference.laws), difference.what)
    return grid
