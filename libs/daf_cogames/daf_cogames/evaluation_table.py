"""Where the episodes of one evaluation are played: its missions and policies, kept from episode to episode."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from daf_cogames.artifact_files import ArtifactFiles
from daf_cogames.code import on_path
from daf_cogames.digests import digest
from daf_cogames.episodes import PATIENT_ACTION_TIME_MS, EpisodeOutcome, EpisodeRunner, mission_fields
from daf_cogames.failures import PolicyFailure
from daf_cogames.messages import mission_of, policy_of
from daf_cogames.missions import Mission, MissionError
from daf_cogames.policies import PolicySource, last_line
from daf_cogames.seating import EpisodePlan
from daf_cogames.wheels import requirements_on_path
from daf_common.archives import ArchiveError
from daf_common.errors import DataLoss
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.common.v1.failure_pb2 import Failure
from daf_protos.common.v1.mission_pb2 import Mission as MissionMessage
from daf_protos.common.v1.policy_pb2 import Policy, PolicyClass
from daf_protos.evaluation.v1.evaluation_pb2 import EvaluationSpec
from daf_protos.statistics.v1.episode_pb2 import Episode, Statistics

logger = logging.getLogger(__name__)

STAND_IN = PolicySource("mettagrid.policy.noop.NoopPolicy")
"""Sits where a policy should that could not play, so that the others can go on."""


class Unplayable(Exception):
    """An evaluation, or a mission of it, that no worker can play."""

    def __init__(self, reason: str, message: str, subject: str = "") -> None:
        super().__init__(message)
        self.failure = Failure(reason=reason, message=message, subject=subject)


@dataclass(frozen=True)
class Table:
    """What is needed to play. Runners are kept: to build a mission takes longer than many an episode."""

    missions: Sequence[Mission]
    policies: Sequence[PolicySource]
    max_action_time_ms: int
    _runners: dict[tuple[int, frozenset[int]], EpisodeRunner] = dataclasses.field(default_factory=dict)

    def seats(self, mission: int) -> int:
        """The number of seats of a mission. Raises Unplayable."""
        return self._runner(mission, frozenset()).agents

    def play(self, mission: int, plan: EpisodePlan) -> Episode:
        """Plays one episode of a mission, by number; a policy that cannot play forfeits it.

        The message lacks what the table does not know: the evaluation, the scenario, the worker.

        Raises:
            Unplayable: the mission does not build, or not for these seats.
        """
        forfeits: dict[int, Failure] = {}
        while True:
            runner = self._runner(mission, frozenset(forfeits))
            if runner.agents != len(plan.seats):
                message = f"has {runner.agents} seats, but was planned for {len(plan.seats)}"
                raise Unplayable("MISSION_INVALID", f"{self.missions[mission].name} {message}", f"missions[{mission}]")
            try:
                outcome = runner.run(plan)
            except PolicyFailure as failure:
                if failure.policy in forfeits:
                    raise
                logger.warning("%s in episode %s", failure, plan.index, exc_info=failure.__cause__)
                where = "" if failure.seat is None else f" in seat {failure.seat}"
                forfeits[failure.policy] = Failure(
                    reason="POLICY_FAILED",
                    message=f"failed to {failure.stage}{where}: {failure.message}",
                    subject=str(failure.policy),
                )
                continue
            return _to_message(self.missions[mission], outcome, [forfeits[policy] for policy in sorted(forfeits)])

    def _runner(self, mission: int, forfeited: frozenset[int]) -> EpisodeRunner:
        key = (mission, forfeited)
        if key not in self._runners:
            policies = [STAND_IN if number in forfeited else policy for number, policy in enumerate(self.policies)]
            try:
                self._runners[key] = EpisodeRunner(
                    self.missions[mission], policies, max_action_time_ms=self.max_action_time_ms
                )
            except MissionError as error:
                raise Unplayable("MISSION_INVALID", error.message, f"missions[{mission}].{error.field}") from error
        return self._runners[key]


@contextlib.contextmanager
def set_up(
    spec: EvaluationSpec,
    files: ArtifactFiles,
) -> Iterator[Table]:
    """The table of an evaluation; users' code, and the packages that it needs, are on the import path while it stands.

    Args:
        spec: with names resolved.
        files: the artifacts that it names.

    Raises:
        Unplayable: an artifact is broken or gone, or archives cannot be used together.
    """
    policies = [_source(policy, files) for policy in spec.policies]
    required = [
        _usable(files.requirements, policy_class.requirements, "the requirements cannot be used")
        for policy_class in map(_class_of, spec.policies)
        if policy_class.HasField("requirements")
    ]
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(on_path(*(policy.code for policy in policies if policy.code)))
            stack.enter_context(requirements_on_path(*required))
        except ImportError as error:
            raise Unplayable("POLICY_INVALID", last_line(error)) from error
        missions = [
            mission_of(mission, _mission_file(mission, f"missions[{number}]", files))
            for number, mission in enumerate(spec.missions)
        ]
        yield Table(missions, policies, spec.max_action_time_ms or PATIENT_ACTION_TIME_MS)


def _usable(make: Callable[[Artifact], Path], artifact: Artifact, otherwise: str) -> Path:
    try:
        return make(artifact)
    except DataLoss as error:
        raise Unplayable("ARTIFACT_LOST", error.message, artifact.sha256) from error
    except ArchiveError as error:
        raise Unplayable("POLICY_INVALID", f"{otherwise}: {error}", artifact.sha256) from error


def _source(policy: Policy, files: ArtifactFiles) -> PolicySource:
    policy_class = _class_of(policy)
    weights = code = None
    if policy.HasField("checkpoint"):
        weights = _usable(files.fetch, policy.checkpoint.weights, "the weights cannot be used")
    if policy_class.HasField("code"):
        code = _usable(files.code, policy_class.code, "the code archive cannot be used")
    return policy_of(policy_class, weights, code)


def _mission_file(message: MissionMessage, path: str, files: ArtifactFiles) -> Path | None:
    try:
        return files.mission(message)
    except DataLoss as error:
        raise Unplayable("ARTIFACT_LOST", error.message, message.file.sha256) from error
    except MissionError as error:
        raise Unplayable("MISSION_INVALID", error.message, f"{path}.{error.field}") from error


def _class_of(policy: Policy) -> PolicyClass:
    return policy.checkpoint.policy_class if policy.HasField("checkpoint") else policy.policy_class


def _to_message(mission: Mission, outcome: EpisodeOutcome, forfeits: Sequence[Failure]) -> Episode:
    forfeited = [forfeit.subject for forfeit in forfeits]
    return Episode(
        index=outcome.index,
        seed=outcome.seed,
        seats=outcome.seats,
        rewards=outcome.rewards,
        action_timeouts=outcome.action_timeouts,
        steps=outcome.steps,
        max_steps=outcome.max_steps,
        agent_statistics=[_statistics(stats) for stats in outcome.agent_stats],
        game_statistics=_statistics(outcome.game_stats),
        average_game_statistics=_statistics(outcome.time_averaged_game_stats),
        forfeits=forfeits,
        # With a stand-in it is another episode, even where it ends the same.
        digest=digest([outcome.digest, forfeited]) if forfeited else outcome.digest,
        wall_seconds=outcome.wall_seconds,
        versions=outcome.versions,
        map_digest=outcome.map_digest,
        mission=json.dumps(mission_fields(mission), sort_keys=True),
    )


def _statistics(values: Mapping[str, float]) -> Statistics:
    return Statistics(values={name: float(value) for name, value in values.items()})
