"""Digests of episodes: equal exactly when the episodes are, on whatever machine and in whatever order they ran.

Pure functions over plain values, so that a service can check a digest that a runner computed. Floats enter by their
hexadecimal form, hence to the bit. What differs between machines (wall time, timeouts of slow actions, the worker)
stays out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

Canonical = None | bool | int | float | str | Sequence["Canonical"] | Mapping[str, "Canonical"]


def episode_digest(
    *,
    mission: Mapping[str, Canonical],
    seed: int,
    seats: Sequence[int],
    steps: int,
    rewards: Sequence[float],
    agent_stats: Sequence[Mapping[str, float]],
    game_stats: Mapping[str, float],
    time_averaged_game_stats: Mapping[str, float],
    versions: Mapping[str, str],
) -> str:
    """SHA-256 (hex) of one episode.

    mission: the fields of `Mission`; rewards and agent_stats: one for each agent; versions: of cogames and what it
    runs on.
    """
    return digest(
        {
            "mission": mission,
            "seed": seed,
            "seats": seats,
            "steps": steps,
            "rewards": [float(reward) for reward in rewards],
            "agent_stats": [_floats(stats) for stats in agent_stats],
            "game_stats": _floats(game_stats),
            "time_averaged_game_stats": _floats(time_averaged_game_stats),
            "versions": versions,
        }
    )


def evaluation_digest(episodes: Iterable[tuple[int, str]]) -> str:
    """SHA-256 (hex) of an evaluation, from the (index, digest) of its episodes in any order."""
    return digest([[index, episode] for index, episode in sorted(episodes)])


def digest(value: Canonical) -> str:
    """SHA-256 (hex) of a value's canonical form: mappings by sorted key, every value with its type."""
    return hashlib.sha256(_canonical(value).encode()).hexdigest()


def _floats(stats: Mapping[str, float]) -> dict[str, float]:
    """Statistics are real numbers: 3 and 3.0, which a wire format may exchange, are the same statistic."""
    return {name: float(value) for name, value in stats.items()}


def _canonical(value: Canonical) -> str:
    # The commonest first, and cheaply: a map is a list of thousands.
    if type(value) is int:
        return f"i{value}"
    if type(value) is str:
        return f"s{len(value)}:{value}"
    if type(value) is list:
        return "[" + ",".join(map(_canonical, value)) + "]"
    text: str
    match value:
        case None:
            text = "n"
        case bool():
            text = f"b{int(value)}"
        case int():
            text = f"i{value}"
        case float():
            text = f"f{value.hex()}"
        case str():
            text = f"s{len(value)}:{value}"
        case Mapping():
            text = "{" + "".join(_canonical(key) + _canonical(value[key]) for key in sorted(value)) + "}"
        case Sequence():
            text = "[" + ",".join(_canonical(item) for item in value) + "]"
        case _:
            raise TypeError(f"a digest is of plain values, not of {type(value).__name__}")
    return text
