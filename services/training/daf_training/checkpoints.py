"""Which checkpoints of a job are kept. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DEFAULT_KEPT = 5


@dataclass(frozen=True)
class CheckpointRow:
    """A checkpoint as it is stored. `message` is the serialized `Checkpoint`; `artifacts` are the digests it names."""

    update: int
    attempt: int
    reward: float | None
    artifacts: tuple[str, ...]
    message: bytes = field(repr=False)


def superfluous(rewards: Mapping[int, float | None], kept: int) -> list[int]:
    """The updates of checkpoints that are to go: all but the newest ones and the best.

    Args:
        rewards: of each checkpoint, by its update; None where no episode had ended.
        kept: how many of the newest stay.
    """
    newest = set(sorted(rewards)[-kept:])
    scored = [(reward, update) for update, reward in rewards.items() if reward is not None]
    best = {max(scored)[1]} if scored else set()
    return sorted(rewards.keys() - newest - best)
