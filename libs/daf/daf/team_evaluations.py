"""Evaluations of teams that several policies share: played, and scored by the statistics service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from daf.client import Client
from daf.comparisons import ComparisonFailed
from daf.config import DAFEvaluationConfig
from daf.evaluations import create_evaluation, read_evaluation
from daf.follow_runs import follow_evaluation
from daf.missions import given_mission
from daf.policy_arguments import given_policy
from daf.run_ids import new_id
from daf.trained_maps import trained_maps_problems
from daf_protos.evaluation.v1 import evaluation_pb2
from daf_protos.evaluation.v1.evaluation_pb2 import Evaluation

SCORING_SECONDS = 300.0


def team_config(
    name: str,
    policies: Sequence[Any],
    missions: Sequence[Any],
    *,
    episodes: int,
    seed: int,
    metric: str,
    code: Sequence[str | Path],
) -> DAFEvaluationConfig:
    """The evaluation that a Python call asks for, whichever its teams.

    Raises:
        InvalidArgument: an argument cannot be used; names it.
        ValueError: an argument cannot be used.
    """
    return DAFEvaluationConfig.model_validate(
        {
            "name": name,
            "policies": [given_policy(policy, index) for index, policy in enumerate(policies)],
            "missions": [given_mission(mission, index) for index, mission in enumerate(missions)],
            "episodes": episodes,
            "seed": seed,
            "objective_metric": metric,
            "code": [str(Path(path).absolute()) for path in code] or None,
        }
    )


def start_teams(client: Client, config: DAFEvaluationConfig, id: str = "") -> Evaluation:
    """Creates the evaluation.

    Args:
        client: where.
        config: what to play.
        id: of the evaluation; otherwise the config's name with something random behind it.

    Raises:
        InvalidArgument: no mission of CoGames has the metric; names those that are near.
        DafError: it is refused.
    """
    return create_evaluation(client, config, id or new_id(config.name))


def play_teams(client: Client, config: DAFEvaluationConfig, on_change: Callable[[Evaluation], None]) -> Evaluation:
    """Plays an evaluation to its end.

    Args:
        client: where.
        config: what to play.
        on_change: told twice a second how far the episodes are.

    Raises:
        ComparisonFailed: the episodes could not be played.
        DafError: it is refused.
    """
    created = start_teams(client, config)
    for evaluation in follow_evaluation(client, created.name):
        on_change(evaluation)
    return succeeded(evaluation)


def succeeded(evaluation: Evaluation) -> Evaluation:
    """An evaluation that has ended.

    Raises:
        ComparisonFailed: it failed or was cancelled.
    """
    if evaluation.state != evaluation_pb2.EVALUATION_STATE_SUCCEEDED:
        raise ComparisonFailed(evaluation)
    return evaluation


def find_evaluation(client: Client, name: str) -> Evaluation:
    """An evaluation by its resource name or its id.

    Raises:
        NotFound: there is none.
    """
    return read_evaluation(client, name if "/" in name else f"evaluations/{name}")


def evaluation_warnings(client: Client, evaluation: Evaluation) -> list[str]:
    """What a reader of scores must know of the evaluation: episodes that are not played, maps that were trained on."""
    done, total = evaluation.done_episodes, evaluation.total_episodes
    unplayed = [f"{done} of {total} episodes of {evaluation.name} have been played."] if done < total else []
    return unplayed + trained_maps_problems(client, evaluation.spec)


def labels_of(evaluation: Evaluation) -> list[str]:
    """What the policies of an evaluation are called."""
    return [policy.label for policy in evaluation.spec.policies]
