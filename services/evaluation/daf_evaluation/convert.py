"""Messages to rows and back."""

from __future__ import annotations

from collections.abc import Iterable

from daf_cogames.catalog import agent_count, resolve_mission, resolve_policy
from daf_common import names
from daf_common.failures import Failure
from daf_common.times import to_timestamp
from daf_evaluation import plan
from daf_evaluation.evaluations import Evaluation
from daf_evaluation.plan import Scenario, Team
from daf_evaluation.shards import Shard
from daf_protos.common.v1 import failure_pb2
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.common.v1.mission_pb2 import Mission
from daf_protos.common.v1.policy_pb2 import Policy, PolicyClass
from daf_protos.evaluation.v1 import evaluation_pb2
from daf_protos.evaluation.v1.evaluation_pb2 import EvaluationSpec
from daf_protos.evaluation.v1.worker_service_pb2 import PlannedEpisode, ShardLease

_TEAMS = {
    evaluation_pb2.TEAM_SOLO: Team.SOLO,
    evaluation_pb2.TEAM_PICKUP: Team.PICKUP,
    evaluation_pb2.TEAM_PAIRS: Team.PAIRS,
}


def to_message(evaluation: Evaluation) -> evaluation_pb2.Evaluation:
    """The resource that a user sees."""
    spec = read_spec(evaluation)
    message = evaluation_pb2.Evaluation(
        name=names.EVALUATION.format(evaluation.id),
        spec=spec,
        state=evaluation_pb2.EvaluationState.Value(f"EVALUATION_STATE_{evaluation.state.value}"),
        cancel_requested=evaluation.cancel_requested,
        total_episodes=evaluation.total,
        done_episodes=evaluation.done,
        scenarios=[
            evaluation_pb2.Scenario(mission=scenario.mission, policies=scenario.policies, seats=scenario.counts)
            for scenario in scenarios(spec, evaluation.agents)
        ],
        digest=evaluation.digest,
        creator=evaluation.creator,
        create_time=to_timestamp(evaluation.create_time),
        start_time=to_timestamp(evaluation.start_time),
        end_time=to_timestamp(evaluation.end_time),
        revision=evaluation.revision,
        waiting_for=evaluation.waiting_for,
    )
    if evaluation.failure is not None:
        message.failure.CopyFrom(failure_pb2.Failure(**vars(evaluation.failure)))
    return message


def to_failure(message: failure_pb2.Failure) -> Failure:
    """A failure as it is stored."""
    return Failure(message.reason[:60] or "UNKNOWN", message.message[:4000], message.subject[:200])


def read_spec(evaluation: Evaluation) -> EvaluationSpec:
    """The spec, as it was submitted."""
    return EvaluationSpec.FromString(evaluation.spec)


def agents(spec: EvaluationSpec) -> tuple[int, ...]:
    """The number of seats of each mission of a spec that was checked; 0 for a user's own, which only a worker opens."""
    return tuple(
        0
        if mission.HasField("file")
        else agent_count(
            resolve_mission(mission.name).name,
            tuple(mission.variants),
            mission.cogs if mission.HasField("cogs") else None,
        )
        for mission in spec.missions
    )


def scenarios(spec: EvaluationSpec, seats: tuple[int, ...]) -> tuple[Scenario, ...]:
    """The scenarios of a spec whose missions have so many seats."""
    return plan.scenarios(team_of(spec), len(spec.policies), seats, tuple(spec.proportions))


def team_of(spec: EvaluationSpec) -> Team:
    """Who plays with whom, in a spec that was checked."""
    return _TEAMS.get(spec.team, Team.MIXED)


def mission_of(evaluation: Evaluation, shard: Shard) -> int:
    """The number of the mission that a shard is played on."""
    return scenarios(read_spec(evaluation), evaluation.agents)[shard.scenario].mission


def to_lease(evaluation: Evaluation, shard: Shard, heartbeat_seconds: float) -> ShardLease:
    """What a worker needs to play the rest of a shard."""
    spec = read_spec(evaluation)
    found = scenarios(spec, evaluation.agents)
    first, last = shard.first + shard.recorded, shard.first + shard.count
    planned = plan.episodes(found, team_of(spec), shard.scenario, spec.episodes, spec.seed, first, last)
    return ShardLease(
        shard=shard.number,
        fence=shard.fence,
        scenario=shard.scenario,
        mission=found[shard.scenario].mission,
        episodes=[PlannedEpisode(index=episode.index, seed=episode.seed, seats=episode.seats) for episode in planned],
        heartbeat_seconds=heartbeat_seconds,
    )


def resolved(spec: EvaluationSpec) -> EvaluationSpec:
    """The spec with today's names of missions and the class paths of policies, which workers need not look up."""
    copy = EvaluationSpec()
    copy.CopyFrom(spec)
    for mission in copy.missions:
        if not mission.HasField("file"):
            mission.name = resolve_mission(mission.name).name
    for policy in copy.policies:
        if policy.HasField("bundle"):
            continue  # names its class itself
        policy_class = class_of(policy)
        policy_class.class_path = resolve_policy(policy_class.class_path).name
    return copy


def class_of(policy: Policy) -> PolicyClass:
    """The class of a policy that was checked; empty for a bundle."""
    return policy.checkpoint.policy_class if policy.HasField("checkpoint") else policy.policy_class


def artifacts(spec: EvaluationSpec) -> list[tuple[str, Artifact]]:
    """The artifacts that a spec names, each with its field; each artifact once."""
    found: dict[str, tuple[str, Artifact]] = {}
    for field, artifact in (*_artifacts(spec.policies), *_mission_files(spec.missions)):
        found.setdefault(artifact.sha256, (field, artifact))
    return list(found.values())


def _artifacts(policies: Iterable[Policy]) -> Iterable[tuple[str, Artifact]]:
    for number, policy in enumerate(policies):
        path = f"spec.policies[{number}]"
        if policy.HasField("bundle"):
            yield f"{path}.bundle", policy.bundle
        of_class = "checkpoint.policy_class" if policy.HasField("checkpoint") else "policy_class"
        if class_of(policy).HasField("code"):
            yield f"{path}.{of_class}.code", class_of(policy).code
        if class_of(policy).HasField("requirements"):
            yield f"{path}.{of_class}.requirements", class_of(policy).requirements
        if policy.HasField("checkpoint"):
            yield f"{path}.checkpoint.weights", policy.checkpoint.weights


def _mission_files(missions: Iterable[Mission]) -> Iterable[tuple[str, Artifact]]:
    for number, mission in enumerate(missions):
        if mission.HasField("file"):
            yield f"spec.missions[{number}].file", mission.file
