"""Slots: how many worker processes may live at once, over all evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """What an evaluation has or waits for."""

    id: str
    held: int
    """Slots that it holds."""
    wanted: int
    """Slots that it can use, if it holds none."""


def grant(slots: int, claims: Sequence[Claim]) -> dict[str, int]:
    """The slots of those that wait and now get some, in the order of the claims: nobody overtakes."""
    free = slots - sum(claim.held for claim in claims)
    granted = {}
    for claim in claims:
        if claim.held == 0 and claim.wanted > 0:
            if free <= 0:
                break
            granted[claim.id] = min(claim.wanted, free)
            free -= granted[claim.id]
    return granted
