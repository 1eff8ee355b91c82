"""Scores of teams that several policies share, of numbers at hand or of an evaluation.

Of numbers they are computed as CoGames computes them (`metta_alo.scoring`), by the same operations in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import overload

from daf.client import Client
from daf.connection import given_or_connected
from daf.team_evaluations import find_evaluation
from daf.vor import VorReport, compute_vor
from daf.weighted_scores import WeightedScoreResult, weighted_scores

__all__ = [
    "VorReport",
    "WeightedScoreResult",
    "daf_allocate_agents",
    "daf_compute_vor",
    "daf_compute_weighted_score",
    "daf_validate_proportions",
]

type Scores = float | Iterable[float | Iterable[float]]
"""A mean; or one score an episode, which may be the rewards of the seats in question."""


@overload
def daf_compute_vor(candidate_score: Scores | Mapping[int, Scores], replacement_score: Scores) -> float: ...


@overload
def daf_compute_vor(
    *,
    evaluation: str,
    candidate: int = 0,
    metric: str = "reward",
    confidence: float = 0.95,
    client: Client | None = None,
) -> VorReport: ...


def daf_compute_vor(
    candidate_score: Scores | Mapping[int, Scores] | None = None,
    replacement_score: Scores | None = None,
    *,
    evaluation: str = "",
    candidate: int = 0,
    metric: str = "reward",
    confidence: float = 0.95,
    client: Client | None = None,
) -> float | VorReport:
    """The value of a policy over its replacement: of numbers, or of an evaluation with pickup teams.

    Args:
        candidate_score: the candidate's mean, or its scores: one an episode, a number or the rewards of its seats. Or
            these by the number of its seats, for the overall value, weighted by seats and episodes.
        replacement_score: the same of the pool without the candidate.
        evaluation: instead of scores, the evaluation that they are taken from.
        candidate: number of the policy in the evaluation.
        metric: `reward`, or an agent's or the game's statistic.
        confidence: level of the intervals.
        client: where the evaluation is; otherwise where the context in use says.

    Returns:
        Of numbers the value, of an evaluation a report with intervals.

    Raises:
        ValueError: scores are missing, empty or not finite.
        NotFound: there is no such evaluation.
        InvalidArgument: there is no such metric or policy; lists those that there are.
    """
    if evaluation:
        if candidate_score is not None or replacement_score is not None:
            raise ValueError("give either scores or an evaluation")
        with given_or_connected(client) as connected:
            return compute_vor(connected, find_evaluation(connected, evaluation), candidate, metric, confidence)
    if candidate_score is None or replacement_score is None:
        raise ValueError("give candidate_score and replacement_score, or an evaluation")
    replacement, _ = _mean(replacement_score, "replacement_score")
    if not isinstance(candidate_score, Mapping):
        return _mean(candidate_score, "candidate_score")[0] - replacement
    total, agents = 0.0, 0
    for seats, scores in candidate_score.items():
        if seats < 1:
            raise ValueError(f"candidate_score[{seats}]: the candidate has at least one seat")
        mean, episodes = _mean(scores, f"candidate_score[{seats}]")
        total += mean * seats * episodes
        agents += seats * episodes
    if not agents:
        raise ValueError("candidate_score is empty")
    return total / agents - replacement


@overload
def daf_compute_weighted_score[P: Hashable](
    policy_scores: Sequence[Mapping[P, float]], agent_counts: Sequence[Mapping[P, int]]
) -> dict[P, float]: ...


@overload
def daf_compute_weighted_score(
    *, evaluation: str, metric: str = "reward", confidence: float = 0.95, client: Client | None = None
) -> dict[str, WeightedScoreResult]: ...


def daf_compute_weighted_score[P: Hashable](
    policy_scores: Sequence[Mapping[P, float]] | None = None,
    agent_counts: Sequence[Mapping[P, int]] | None = None,
    *,
    evaluation: str = "",
    metric: str = "reward",
    confidence: float = 0.95,
    client: Client | None = None,
) -> dict[P, float] | dict[str, WeightedScoreResult]:
    """Each policy's mean over episodes, weighted by its share of the seats: of numbers, or of an evaluation.

    Args:
        policy_scores: for each episode the score of every policy in it.
        agent_counts: for each episode the number of seats of every policy in it.
        evaluation: instead of numbers, the evaluation that they are taken from.
        metric: `reward`, or an agent's or the game's statistic.
        confidence: level of the intervals.
        client: where the evaluation is; otherwise where the context in use says.

    Returns:
        Of numbers the scores, without policies that never had a seat; of an evaluation the scores by label, with
        intervals.

    Raises:
        ValueError: numbers are missing, do not fit together or are not finite.
        NotFound: there is no such evaluation.
        InvalidArgument: there is no such metric; lists those that there are.
    """
    if evaluation:
        if policy_scores is not None or agent_counts is not None:
            raise ValueError("give either scores or an evaluation")
        with given_or_connected(client) as connected:
            return weighted_scores(connected, find_evaluation(connected, evaluation), metric, confidence)
    if policy_scores is None or agent_counts is None:
        raise ValueError("give policy_scores and agent_counts, or an evaluation")
    return _weighted(policy_scores, agent_counts)


def daf_allocate_agents(num_agents: int, proportions: Sequence[float]) -> list[int]:
    """How many agents each policy gets, by largest remainder; a policy with a small share may get none.

    Raises:
        ValueError: the number is negative, or the proportions are no shares.
    """
    if num_agents < 0:
        raise ValueError(f"num_agents is {num_agents}: it cannot be negative")
    daf_validate_proportions(proportions, len(proportions))
    total = sum(proportions)
    ideals = [num_agents * (proportion / total) for proportion in proportions]
    counts = [math.floor(ideal) for ideal in ideals]
    remainders = [ideal - count for ideal, count in zip(ideals, counts, strict=True)]
    by_remainder = sorted(range(len(remainders)), key=remainders.__getitem__, reverse=True)
    for policy in by_remainder[: num_agents - sum(counts)]:
        counts[policy] += 1
    return counts


def daf_validate_proportions(proportions: Sequence[float] | None, num_policies: int) -> None:
    """Checks shares of the seats, one for each policy; None means equal shares.

    Raises:
        ValueError: they are not; says what is wrong.
    """
    if proportions is None:
        return
    if not len(proportions):
        raise ValueError("proportions are empty: give one for each policy")
    if len(proportions) != num_policies:
        raise ValueError(f"{len(proportions)} proportions for {num_policies} policies: give one for each")
    for number, proportion in enumerate(proportions):
        if not (math.isfinite(proportion) and proportion >= 0):
            raise ValueError(f"proportions[{number}] is {proportion:g}: shares are finite and not negative")
    if not 0 < sum(proportions) < math.inf:
        raise ValueError("proportions must add up to a positive finite number")


def _mean(scores: Scores, name: str) -> tuple[float, int]:
    """The mean over the episodes, and how many there are; a number is that of one."""
    if isinstance(scores, str):
        raise ValueError(f"{name} is a text: an evaluation is named by `evaluation`")
    try:
        episodes = list(scores)  # type: ignore[arg-type]  # also arrays, which are known by trying
    except TypeError:
        return _finite(float(scores), name), 1  # type: ignore[arg-type]
    if not episodes:
        raise ValueError(f"{name} is empty")
    total = 0.0
    for number, episode in enumerate(episodes):
        try:
            seats = [float(reward) for reward in episode]  # type: ignore[union-attr]
        except TypeError:
            seats = [float(episode)]  # type: ignore[arg-type]
        if not seats:
            raise ValueError(f"{name}[{number}] is empty")
        total += _finite(sum(seats) / len(seats), f"{name}[{number}]")
    return total / len(episodes), len(episodes)


def _finite(value: float, name: str) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value:g}, not finite")
    return value


def _weighted[P: Hashable](
    policy_scores: Sequence[Mapping[P, float]], agent_counts: Sequence[Mapping[P, int]]
) -> dict[P, float]:
    if len(policy_scores) != len(agent_counts):
        raise ValueError(f"{len(policy_scores)} policy_scores for {len(agent_counts)} agent_counts: one an episode")
    sums: dict[P, float] = {}
    weights: dict[P, float] = {}
    for number, (scores, counts) in enumerate(zip(policy_scores, agent_counts, strict=True)):
        if any(count < 0 for count in counts.values()):
            raise ValueError(f"agent_counts[{number}] has a negative number")
        total = sum(counts.values())
        if total == 0:
            continue
        for policy, score in scores.items():
            weight = counts.get(policy, 0) / total
            sums[policy] = sums.get(policy, 0.0) + _finite(float(score), f"policy_scores[{number}]") * weight
            weights[policy] = weights.get(policy, 0.0) + weight
    return {policy: sums[policy] / weight for policy, weight in weights.items() if weight > 0}
