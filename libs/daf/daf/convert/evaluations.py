"""Evaluations as messages and back."""

from __future__ import annotations

from typing import Literal

from daf.config import DAFEvaluationConfig
from daf.convert.missions import mission_config, mission_messages
from daf.convert.policies import (
    OwnCode,
    Resolver,
    make_labels_unique,
    policy_config,
    policy_message,
)
from daf_protos.evaluation.v1 import evaluation_pb2
from daf_protos.evaluation.v1.evaluation_pb2 import EvaluationSpec

type _TeamName = Literal["mixed", "solo", "pickup", "pairs"]

_TEAMS: dict[_TeamName, evaluation_pb2.Team.ValueType] = {
    "mixed": evaluation_pb2.TEAM_MIXED,
    "solo": evaluation_pb2.TEAM_SOLO,
    "pickup": evaluation_pb2.TEAM_PICKUP,
    "pairs": evaluation_pb2.TEAM_PAIRS,
}


def evaluation_spec(config: DAFEvaluationConfig, resolver: Resolver) -> EvaluationSpec:
    """An evaluation document as a message.

    Raises:
        DafError: something in it is not known; names the field.
    """
    own = OwnCode(config.code, config.requirements, config.directory, resolver)
    spec = EvaluationSpec(
        policies=[policy_message(policy, f"policies[{i}]", own, resolver) for i, policy in enumerate(config.policies)],
        missions=mission_messages(config.missions, "missions", config.directory, resolver),
        episodes=config.episodes,
        seed=config.seed,
        team=_TEAMS[config.team],
        proportions=config.proportions,
        max_action_time_ms=config.max_action_time_ms or 0,
        profile=config.profile,
        workers=config.workers,
        save_replays=config.save_replays,
        fast=config.fast,
        isolated=config.isolated,
        time_limit_seconds=config.time_limit_seconds or 0.0,
    )
    make_labels_unique(spec.policies)
    return spec


def evaluation_config(spec: EvaluationSpec, name: str = "evaluation") -> DAFEvaluationConfig:
    """The document that says what an evaluation was asked to do."""
    return DAFEvaluationConfig(
        name=name,
        policies=[policy_config(policy) for policy in spec.policies],
        missions=[mission_config(mission) for mission in spec.missions],
        episodes=spec.episodes,
        seed=spec.seed,
        team=next((name for name, team in _TEAMS.items() if team == spec.team), "mixed"),
        proportions=list(spec.proportions),
        max_action_time_ms=spec.max_action_time_ms or None,
        profile=spec.profile,
        workers=spec.workers if spec.HasField("workers") else None,
        save_replays=spec.save_replays,
        fast=spec.fast,
        isolated=spec.isolated,
        time_limit_seconds=spec.time_limit_seconds or None,
    )
