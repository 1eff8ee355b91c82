"""Which policy is at work in this process, in memory that the process which watches it can share.

A mark is set before each call of a policy's code and taken off after it: two stores, no system call. So whoever finds
the process hanging or dead can tell who did it.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

Stage = Literal["load", "start", "step"]

WHO, SINCE, EPISODE = range(3)
"""Cells: a call's code; when it began (nanoseconds, monotonic); see `playing`."""

NOBODY = 0

_STAGES: tuple[Stage, ...] = ("load", "start", "step")
_CELL_BYTES = 8

_cells = memoryview(bytearray(3 * _CELL_BYTES)).cast("q")


@dataclass(frozen=True)
class Mark:
    """A policy, by its number, at work; seat: the agent that it plays, None while loading or for several at once."""

    policy: int
    seat: int | None
    stage: Stage


def cells() -> memoryview[int]:
    """The marks of this process, as numbers."""
    return _cells


def share() -> memoryview[int]:
    """From now on, the marks of this process and of all that are forked from it are in memory that they share."""
    global _cells  # noqa: PLW0603 - one process has one set of marks
    _cells = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("q")
    return _cells


def encode(mark: Mark) -> int:
    """The code of a call for the cell WHO, never NOBODY."""
    seat = 0 if mark.seat is None else mark.seat + 1
    return mark.policy << 32 | seat << 4 | _STAGES.index(mark.stage) + 1


def decode(code: int) -> Mark | None:
    """The call of a code; None for NOBODY, and for what is no code."""
    seat, stage = code >> 4 & 0xFFFFFFF, code & 0xF
    if not 0 < stage <= len(_STAGES):
        return None
    return Mark(code >> 32, seat - 1 if seat else None, _STAGES[stage - 1])


@contextmanager
def at_work(policy: int, seat: int | None, stage: Stage) -> Iterator[None]:
    """Marks a call of a policy's code.

    What is no Exception leaves the mark on, as the process is about to end. For what happens in every step there is a
    cheaper way: see `daf_cogames.play.failures.SeatedAgent`.
    """
    marked = _cells
    marked[SINCE], marked[WHO] = time.perf_counter_ns(), encode(Mark(policy, seat, stage))
    try:
        yield
    except Exception:
        marked[WHO] = NOBODY
        raise
    marked[WHO] = NOBODY


def goes_on() -> None:
    """The call at work waits for something that has a limit of its own: who watches it is to wait anew."""
    _cells[SINCE] = time.perf_counter_ns()


@contextmanager
def playing(episode: int) -> Iterator[None]:
    """Says that this episode, and no other, is played. What happens outside concerns several episodes or none."""
    marked = _cells
    marked[EPISODE] = episode + 1
    try:
        yield
    except Exception:
        marked[EPISODE] = 0
        raise
    marked[EPISODE] = 0
