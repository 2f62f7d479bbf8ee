"""Valid tokens to the front of their row: how a mask and packed sequences become rows with a length each.

What is masked is never read, so NaN in padding stays there.
"""

from __future__ import annotations

from typing import NamedTuple

from ..arrays import Array, arange, namespace, where_valid


class Rows(NamedTuple):
    """R rows of at most L tokens, taken from B·T tokens; the index arrays are int32.

    ``source [R, L]``: index of a row's i-th token among the B·T; ``length [R]``: tokens in the row;
    ``row [B, T]``, ``rank [B, T]``: where a token went; ``valid [B, T]``: whether it went anywhere.
    """

    source: Array
    length: Array
    row: Array
    rank: Array
    valid: Array

    @classmethod
    def of_mask(cls, mask: Array) -> Rows:
        """One row per sequence, its valid tokens in order; mask ``[B, T]`` bool, True where a token counts."""
        xp = namespace(mask)
        batch, length = mask.shape
        ones = xp.astype(mask, xp.int32)
        row = xp.broadcast_to(arange(batch, mask)[:, None], (batch, length))
        rank = xp.cumulative_sum(ones, axis=1, dtype=xp.int32) - 1
        source = row * length + xp.astype(xp.argsort(1 - ones, axis=1), xp.int32)
        return cls(source, xp.sum(ones, axis=1, dtype=xp.int32), row, rank, mask)

    @classmethod
    def of_packed(cls, cu_seqlens: Array, total: int, longest: int) -> Rows:
        """One row per packed sequence: sequence r holds tokens cu_seqlens[r] … cu_seqlens[r + 1] − 1 of ``total``; none is over ``longest``."""
        xp = namespace(cu_seqlens)
        borders = xp.astype(cu_seqlens, xp.int32)
        token = arange(total, cu_seqlens)
        row = xp.sum(xp.astype(token[:, None] >= borders[None, 1:], xp.int32), axis=1, dtype=xp.int32)
        source = borders[:-1, None] + arange(longest, cu_seqlens)[None, :]
        source = where_valid(source < total, source)
        rank = token - xp.take(borders, row, axis=0)
        return cls(source, borders[1:] - borders[:-1], row[None, :], rank[None, :], token[None, :] >= 0)

    @property
    def mask(self) -> Array:
        """``[R, L]`` bool: the places of the rows that hold a token."""
        return arange(self.source.shape[1], self.source)[None, :] < self.length[:, None]

    def gather(self, x: Array) -> Array:
        """x ``[B, T, …]`` → ``[R, L, …]``, zero past a row's length."""
        return where_valid(self.mask, _take(x, self.source))

    def scatter(self, packed: Array) -> Array:
        """packed ``[R, L, …]`` → ``[B, T, …]``, zero for tokens that are not valid."""
        return where_valid(self.valid, _take(packed, where_valid(self.valid, self.row * packed.shape[1] + self.rank)))


def longest_sequence(cu_seqlens: Array) -> int:
    """The length of the longest packed sequence, read from the values of ``cu_seqlens``."""
    return int(namespace(cu_seqlens).max(cu_seqlens[1:] - cu_seqlens[:-1])) if cu_seqlens.shape[0] > 1 else 0


def _take(x: Array, index: Array) -> Array:
    """x ``[R, L, …]`` and index ``[P, S]`` into its R·L places → ``[P, S, …]``."""
    xp = namespace(x)
    places = xp.reshape(x, (x.shape[0] * x.shape[1], *x.shape[2:]))
    return xp.reshape(xp.take(places, xp.reshape(index, (-1,)), axis=0), (*index.shape, *x.shape[2:]))
