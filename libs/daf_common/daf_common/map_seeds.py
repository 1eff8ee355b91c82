"""Which seeds the maps of training have, so that no map that was trained on is scored on.

Environment i of a worker plays its episode e on the map of its worker's seed + i + e; a pinned mission always on the
map of its own seed. Episode e of an evaluation has the map of the evaluation's seed + e.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

MAX_TRAINING_SEED = 2**31 - 1
FIRST_UNTRAINED_SEED = 2**31 + 2**24
"""From here on no run trains on any map, unless one environment plays 16 million episodes."""

# 67 ranks of a million maps each keep to themselves, in 32 attempts.
RANK_STRIDE = 1_000_003
ATTEMPT_STRIDE = 67_108_879


def rank_seed(seed: int, rank: int, attempt: int = 1) -> int:
    """The seed of a rank, from 0, in an attempt, from 1; that of rank 0 in the first is the run's own."""
    return (seed + rank * RANK_STRIDE + (attempt - 1) * ATTEMPT_STRIDE) % (MAX_TRAINING_SEED + 1)


def training_maps(
    seed: int,
    *,
    workers: int = 1,
    min_workers: int = 0,
    attempts: int = 1,
    environments: int = 1,
    agent_steps: int = 0,
    agents: int = 1,
) -> list[range]:
    """The seeds of all maps that a run may have trained on, but for pinned missions.

    How many episodes an environment plays is not known before, only that each takes a step. So these are more maps than
    it plays; without agent steps, only the first of each environment, which it surely plays.

    Args:
        seed: of the run.
        workers: data-parallel ones.
        min_workers: how few of them an attempt may have, each of whose environments then plays more; 0: no fewer.
        attempts: how many there were, or may be.
        environments: of each worker.
        agent_steps: of all workers.
        agents: of an environment.
    """
    steps = math.ceil(agent_steps / ((min_workers or workers) * environments * agents))
    starts = [rank_seed(seed, rank, attempt) for attempt in range(1, attempts + 1) for rank in range(workers)]
    return [range(start, start + environments + steps) for start in starts]


def with_pinned(map_seeds: Iterable[int | None], others: Sequence[range]) -> list[range]:
    """The seeds of the maps of some missions.

    Args:
        map_seeds: of each mission, if its map is pinned.
        others: seeds of the maps of those whose map is not.
    """
    seeds = list(map_seeds)
    pinned = [range(seed, seed + 1) for seed in seeds if seed is not None]
    return [*pinned, *(others if None in seeds else ())]


def overlap(some: Iterable[range], others: Sequence[range]) -> range | None:
    """The first seeds that are in both, if any are."""
    for one in some:
        for other in others:
            shared = range(max(one.start, other.start), min(one.stop, other.stop))
            if shared:
                return shared
    return None
