"""How pieces take turns in rooms: one after another in one room, and in several the kernels of a piece beside those of the next."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from .layout import INTERPRETED

Piece = TypeVar("Piece")
Room = TypeVar("Room")

PROGRAMS = 4 if INTERPRETED else 128
"""Of a scan, so many keep a GPU busy: one of TTT-MLP takes all registers of a multiprocessor."""


def leaves_room(programs: int) -> bool:
    """Whether scans of as many programs leave at least half of a GPU to other kernels."""
    return 2 * programs <= PROGRAMS


def take_turns(order: Sequence[Piece], rooms: Sequence[Room], *stages: Callable[[Piece, Room], None], scan: int = 0) -> None:
    """Launch the stages of every piece, in one of the rooms. Stages are by turns sequential and parallel kernels; number ``scan`` is sequential.

    With several rooms stages run beside each other, each in a stream of its own; the interpreter has none.
    """
    if len(rooms) > 1 and not INTERPRETED:
        side_by_side(order, rooms, stages, scan)
        return
    for piece, room in zip(order, itertools.cycle(rooms), strict=False):
        for stage in stages:
            stage(piece, room)


def side_by_side(order: Sequence[Piece], rooms: Sequence[Room], stages: Sequence[Callable[[Piece, Room], None]], scan: int) -> None:
    """``take_turns`` in streams: a stage waits for the one before, and the first for the last of the piece that had the room.

    All of it begins after what the current stream was given before, and ends before what it is given next, which may have the rooms' memory.
    """
    main = torch.cuda.current_stream()
    lanes = [lane(main.device, number, number % 2 == scan % 2) for number in range(len(stages))]
    begun = main.record_event()
    for stream in lanes:
        stream.wait_event(begun)
    # Waiting for an event that was never recorded is no wait, and recording it anew leaves waits before as they were: a room has one for each stage.
    turns = [(room, [torch.cuda.Event() for _ in stages]) for room in rooms]
    try:
        for piece, (room, done) in zip(order, itertools.cycle(turns), strict=False):
            for number, (stage, stream) in enumerate(zip(stages, lanes, strict=True)):
                stream.wait_event(done[number - 1])
                with torch.cuda.stream(stream):
                    stage(piece, room)
                done[number].record(stream)
    finally:
        # Also where a kernel was refused, since those before it are running.
        for stream in lanes:
            main.wait_stream(stream)


@functools.cache
def lane(device: torch.device, number: int, sequential: bool) -> torch.cuda.Stream:
    """The stream of stage ``number``, one for all threads of a process. Sequential kernels come first.

    A program of theirs may need a whole multiprocessor, and would else find none before the last programs of a parallel kernel have begun.
    """
    return torch.cuda.Stream(device, priority=-1 if sequential else 0)
