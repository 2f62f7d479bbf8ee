"""Nested dicts and tuples of arrays, as the public calls take and return them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast, overload

from .arrays import Array

Tree = Any


def leaves(tree: Tree) -> Iterator[Array]:
    """The arrays of a tree, dicts in the order of their keys; None holds no array."""
    if tree is None:
        return
    if isinstance(tree, Mapping):
        for key in sorted(cast("Mapping[str, Tree]", tree)):
            yield from leaves(tree[key])
    elif isinstance(tree, tuple):
        for branch in cast("tuple[Tree, ...]", tree):
            yield from leaves(branch)
    else:
        yield tree


def paths(tree: Tree, prefix: str = "") -> Iterator[str]:
    """The dotted path of each array, in the order of ``leaves``: dict keys, field names, positions."""
    if isinstance(tree, Mapping):
        for key in sorted(cast("Mapping[str, Tree]", tree)):
            yield from paths(tree[key], f"{prefix}{key}.")
    elif isinstance(tree, tuple):
        branches = cast("tuple[Tree, ...]", tree)
        for key, branch in zip(getattr(branches, "_fields", range(len(branches))), branches, strict=True):
            yield from paths(branch, f"{prefix}{key}.")
    elif tree is not None:
        yield prefix.removesuffix(".")


def rebuild(tree: Tree, arrays: Iterator[Array]) -> Tree:
    """The tree with its arrays replaced, in the order of ``leaves``."""
    if isinstance(tree, Mapping):
        mapping = cast("Mapping[str, Tree]", tree)
        new = {key: rebuild(mapping[key], arrays) for key in sorted(mapping)}
        return {key: new[key] for key in mapping}
    if isinstance(tree, tuple):
        branches = [rebuild(branch, arrays) for branch in cast("tuple[Tree, ...]", tree)]
        kind: Any = type(cast("object", tree))
        return kind(*branches) if hasattr(kind, "_fields") else tuple(branches)
    return None if tree is None else next(arrays)


@overload
def tree_map(function: Callable[[Array], Array], tree: Tree) -> Tree: ...
@overload
def tree_map(function: Callable[[Array, Array], Array], tree: Tree, *others: Tree) -> Tree: ...
def tree_map(function: Callable[..., Array], tree: Tree, *others: Tree) -> Tree:
    """``function`` applied array by array to trees of the same structure."""
    return rebuild(tree, map(function, leaves(tree), *(leaves(other) for other in others)))
