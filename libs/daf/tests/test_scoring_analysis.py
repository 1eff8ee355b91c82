"""Scores of teams from numbers at hand; that they are CoGames' own is tested where CoGames is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from daf.scoring_analysis import (
    daf_allocate_agents,
    daf_compute_vor,
    daf_compute_weighted_score,
    daf_validate_proportions,
)


@pytest.mark.parametrize(
    ("candidate", "replacement", "value"),
    [
        (3.0, 1.0, 2.0),
        (3, [0.0, 2.0], 2.0),
        ([2.0, 4.0], 1.0, 2.0),
        ([[1.0, 3.0], [4.0]], [[1.0, 1.0], [1.0, 1.0]], 2.0),
        (np.array([2.0, 4.0]), np.float32(1.0), 2.0),
        (np.array([[1.0, 3.0], [5.0, 3.0]]), np.array(1.0), 2.0),
        ({2: [4.0, 6.0], 1: [1.0, 3.0]}, 1.0, (2 * 2 * 5.0 + 2 * 2.0) / 6 - 1.0),
        ({3: 4.0}, 1.0, 3.0),
    ],
)
def test_value_over_replacement_of_means_episodes_and_seats(
    candidate: object, replacement: object, value: float
) -> None:
    assert daf_compute_vor(candidate, replacement) == pytest.approx(value)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give candidate_score and replacement_score, or an evaluation"),
        ({"candidate_score": 1.0}, "give candidate_score and replacement_score"),
        ({"candidate_score": [], "replacement_score": 1.0}, "candidate_score is empty"),
        ({"candidate_score": {}, "replacement_score": 1.0}, "candidate_score is empty"),
        ({"candidate_score": [[1.0], []], "replacement_score": 1.0}, r"candidate_score\[1\] is empty"),
        ({"candidate_score": {0: 1.0}, "replacement_score": 1.0}, "at least one seat"),
        ({"candidate_score": 1.0, "replacement_score": math.nan}, "replacement_score is nan, not finite"),
        ({"candidate_score": [1.0, math.inf], "replacement_score": 0.0}, r"candidate_score\[1\] is inf"),
        ({"candidate_score": "evaluations/e", "replacement_score": 0.0}, "named by `evaluation`"),
        ({"candidate_score": 1.0, "evaluation": "evaluations/e"}, "either scores or an evaluation"),
    ],
)
def test_scores_that_have_no_value_are_refused_by_name(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        daf_compute_vor(**arguments)  # type: ignore[call-overload]


def test_weighted_scores_of_episodes() -> None:
    scores = daf_compute_weighted_score(
        [{"a": 2.0, "b": 8.0}, {"a": 6.0, "b": 2.0}], [{"a": 3, "b": 1}, {"a": 1, "b": 3}]
    )

    assert scores == {"a": 3.0, "b": 3.5}


def test_episodes_and_policies_without_seats_weigh_nothing() -> None:
    assert daf_compute_weighted_score([{1: 2.0, 2: 5.0}, {1: 9.0}], [{1: 4}, {}]) == {1: 2.0}


@pytest.mark.parametrize(
    ("scores", "counts", "message"),
    [
        ([{"a": 1.0}], [], "1 policy_scores for 0 agent_counts"),
        ([{"a": 1.0}], [{"a": -1}], r"agent_counts\[0\] has a negative number"),
        ([{"a": math.nan}], [{"a": 1}], r"policy_scores\[0\] is nan"),
        (None, [{"a": 1}], "give policy_scores and agent_counts, or an evaluation"),
    ],
)
def test_numbers_that_do_not_fit_together_are_refused(scores: object, counts: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        daf_compute_weighted_score(scores, counts)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("agents", "proportions", "counts"),
    [
        (4, [1.0, 1.0], [2, 2]),
        (5, [1, 1], [3, 2]),
        (4, [3, 1], [3, 1]),
        (3, [1, 1, 1, 1], [1, 1, 1, 0]),
        (0, [1.0, 2.0], [0, 0]),
        (7, [0, 1], [0, 7]),
        (10, [0.1] * 10, [1] * 10),
    ],
)
def test_agents_are_allocated_by_largest_remainder(agents: int, proportions: list[float], counts: list[int]) -> None:
    assert daf_allocate_agents(agents, proportions) == counts


@pytest.mark.parametrize(
    ("proportions", "policies", "message"),
    [
        ([], 0, "are empty"),
        ([1.0], 2, "1 proportions for 2 policies"),
        ([1.0, -1.0, 5.0], 3, r"proportions\[1\] is -1"),
        ([1.0, math.nan], 2, r"proportions\[1\] is nan"),
        ([math.inf, 1.0], 2, r"proportions\[0\] is inf"),
        ([0.0, 0.0], 2, "positive finite"),
        ([1e308, 1e308], 2, "positive finite"),
    ],
)
def test_proportions_that_are_no_shares_are_refused(proportions: list[float], policies: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        daf_validate_proportions(proportions, policies)
    if len(proportions) == policies:
        with pytest.raises(ValueError, match=message):
            daf_allocate_agents(4, proportions)


def test_no_proportions_mean_equal_shares() -> None:
    daf_validate_proportions(None, 3)


def test_a_negative_number_of_agents_is_refused() -> None:
    with pytest.raises(ValueError, match="num_agents is -1"):
        daf_allocate_agents(-1, [1.0])
