"""Who may start: a sweep has a number of slots, and waiting trials get free ones in order. Pure."""

from __future__ import annotations

LOOKAHEAD = 16
"""Waiting trials are kept in stock, so that they are created many at a time and a freed slot is taken at once."""


def free(slots: int, running: int) -> int:
    """How many more trials may start."""
    return max(0, slots - running)


def wanted(slots: int, running: int, waiting: int, *, learns: bool) -> int:
    """How many trials to ask the search for. One that learns is asked as late as can be, when it knows the most."""
    if learns:
        return max(0, free(slots, running) - waiting)
    stock = max(slots, LOOKAHEAD)
    return stock + free(slots, running) - waiting if waiting < max(1, stock // 2) else 0
