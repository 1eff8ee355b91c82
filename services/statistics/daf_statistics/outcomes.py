"""Outcomes: what of an episode is needed for samples of the reward, and of any other metric but for its values.

They are made once, when the episode is recorded, since an episode with all its statistics takes fifty times as long to
read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from daf_protos.statistics.v1.episode_pb2 import Episode, PolicyLatency
from daf_statistics.episodes import copy_key, forfeited_by


class Outcome(NamedTuple):
    """What one episode came to. It is a plain tuple because there may be hundreds of thousands."""

    scenario: int
    episode: int
    """Its index in the scenario."""
    digest: str
    mission: str
    seed: int
    max_steps: int
    seats: tuple[int, ...]
    """For every seat the number of the policy that sits there."""
    rewards: tuple[float, ...]
    forfeits: tuple[int, ...]
    """The policies that could not play."""
    copy_key: bytes
    """See `daf_statistics.episodes.copy_key`."""
    approximate: bool
    latencies: bytes
    """Part of a message with the latencies of the episode; see `latencies_of`."""


def outcome(episode: Episode) -> Outcome:
    """The outcome of an episode."""
    return Outcome(
        episode.scenario,
        episode.index,
        episode.digest,
        episode.mission,
        episode.seed,
        episode.max_steps,
        tuple(episode.seats),
        tuple(episode.rewards),
        tuple(sorted(forfeited_by(episode))),
        copy_key(episode),
        episode.approximate,
        Episode(latencies=episode.latencies).SerializeToString(),
    )


def row(evaluation: str, outcome: Outcome) -> dict[str, Any]:
    """An outcome as it is stored."""
    return {
        "evaluation": evaluation,
        "scenario": outcome.scenario,
        "episode": outcome.episode,
        "digest": outcome.digest,
        "mission": outcome.mission,
        "seed": outcome.seed,
        "max_steps": outcome.max_steps,
        "seats": _packed("i", outcome.seats),
        "rewards": _packed("d", outcome.rewards),
        "forfeits": _packed("i", outcome.forfeits),
        "copy_key": outcome.copy_key,
        "approximate": outcome.approximate,
        "latencies": outcome.latencies,
    }


def from_row(
    scenario: int,
    episode: int,
    digest: str,
    mission: str,
    seed: int,
    max_steps: int,
    seats: bytes,
    rewards: bytes,
    forfeits: bytes,
    copy_key: bytes,
    approximate: bool,
    latencies: bytes,
) -> Outcome:
    """An outcome from the columns that are stored, but for the evaluation."""
    return Outcome(
        scenario,
        episode,
        digest,
        mission,
        seed,
        max_steps,
        _integers(seats),
        struct.unpack(_format(len(rewards) // 8, "d"), rewards),
        _integers(forfeits),
        copy_key,
        bool(approximate),
        latencies,
    )


def latencies_of(outcomes: Iterable[bytes]) -> Iterable[PolicyLatency]:
    """All latencies in the parts of messages of several outcomes: messages that follow on each other are one."""
    return Episode.FromString(b"".join(outcomes)).latencies


def _packed(kind: str, values: tuple[float, ...]) -> bytes:
    return struct.pack(_format(len(values), kind), *values)


@lru_cache(maxsize=1000)
def _integers(packed: bytes) -> tuple[int, ...]:
    return struct.unpack(_format(len(packed) // 4, "i"), packed)


@lru_cache(maxsize=1000)
def _format(count: int, kind: str) -> str:
    return f"<{count}{kind}"
