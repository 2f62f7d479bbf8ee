"""Rows laid on the mini-batch grid: slot s of a row is token s mod K of mini-batch s // K.

A row that starts at phase p puts its first token in slot p, so rows of different phases share one scan. Slots without a token hold zeros and
write nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from ..arrays import Array, arange, namespace, where_valid


class Grid(NamedTuple):
    """N mini-batches of K slots for R rows of at most L tokens.

    ``length [R]`` tokens in each row and ``phase [R]`` at its start, int32; ``aligned``: every phase is known to be 0.
    """

    size: int
    steps: int
    length: Array
    phase: Array
    aligned: bool

    @classmethod
    def of(cls, size: int, longest: int, length: Array, phase: Array, aligned: bool) -> Grid:
        """The smallest grid that holds rows of ``longest`` tokens at any phase (at phase 0 when ``aligned``)."""
        slots = longest + (0 if aligned else size - 1)
        return cls(size, -(-slots // size), length, phase, aligned)

    def place(self, x: Array) -> Array:
        """x ``[R, L, H, …]`` → ``[N, R, H, K, …]``, zero in slots without a token."""
        xp = namespace(x)
        slots = self._move(x, self.steps * self.size, -self.phase)
        split = xp.reshape(slots, (x.shape[0], self.steps, self.size, *x.shape[2:]))
        return xp.permute_dims(split, (1, 0, 3, 2, *range(4, split.ndim)))

    def open(self, x: Array) -> Array:
        """x ``[R, L, H, …]`` → ``[R, H, K, …]``: what ``place`` puts into the mini-batch that each row leaves open."""
        begin = (self.phase + self.length) // self.size * self.size
        slots = self._replace(aligned=False)._move(x, self.size, begin - self.phase)
        return namespace(x).permute_dims(slots, (0, 2, 1, *range(3, slots.ndim)))

    def collect(self, y: Array, longest: int) -> Array:
        """y ``[N, R, H, K, D]`` → ``[R, L, H, D]`` with L = ``longest``; the inverse of ``place``."""
        xp = namespace(y)
        rows = xp.permute_dims(y, (1, 0, 3, 2, 4))
        slots = xp.reshape(rows, (rows.shape[0], self.steps * self.size, *rows.shape[3:]))
        return self._move(slots, longest, self.phase)

    @property
    def done(self) -> Array:
        """``[N, R]`` bool: whether the row reads the last token of mini-batch n, so that its weights step."""
        borders = self.size * (1 + arange(self.steps, self.length))
        return (self.phase + self.length)[None, :] >= borders[:, None]

    @property
    def last(self) -> Array:
        """``[N, R]`` int32: the place in mini-batch n of the last token that the row has there; 0 where it has none."""
        begun = self.size * arange(self.steps, self.length)
        place = (self.phase + self.length)[None, :] - 1 - begun[:, None]
        xp = namespace(place)
        return where_valid(place >= 0, xp.where(place < self.size, place, 0 * place + self.size - 1))

    @property
    def end_phase(self) -> Array:
        """``[R]`` int32: tokens read of the mini-batch that is left open."""
        return (self.phase + self.length) % self.size

    def _move(self, x: Array, slots: int, shift: Array) -> Array:
        """x ``[R, S, …]`` → ``[R, slots, …]``, slot s from slot s + shift[r], zeros where there is none."""
        xp = namespace(x)
        rows, have = x.shape[:2]
        if self.aligned and slots <= have:
            return x[:, :slots, ...]
        if self.aligned:
            return xp.concat([x, xp.zeros_like(xp.broadcast_to(x[:, :1, ...], (rows, slots - have, *x.shape[2:])))], axis=1)
        origin = arange(slots, x)[None, :] + shift[:, None]
        inside = (origin >= 0) & (origin < have)
        index = where_valid(inside, arange(rows, x)[:, None] * have + origin)
        moved = xp.take(xp.reshape(x, (rows * have, *x.shape[2:])), xp.reshape(index, (-1,)), axis=0)
        return where_valid(inside, xp.reshape(moved, (rows, slots, *x.shape[2:])))
