"""From an assignment to a plan: the files fetched, the user's code importable, a checkpoint found to go on from."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from daf_cogames.artifact_files import ArtifactFiles
from daf_cogames.code import on_path
from daf_cogames.messages import mission_of, policy_of
from daf_cogames.training.checkpoints import WeightsError
from daf_cogames.training.resume import ResumePoint, read_resume_point
from daf_cogames.training.train import TrainingPlan
from daf_cogames.training.world import World
from daf_cogames.wheels import requirements_on_path
from daf_common.errors import DataLoss
from daf_common.values import scalars
from daf_protos.training.v1.training_job_pb2 import Checkpoint
from daf_protos.training.v1.worker_service_pb2 import GetAssignmentResponse

logger = logging.getLogger(__name__)


class CheckpointsLost(RuntimeError):
    """A job has checkpoints to go on from, and none can be read. To start afresh is not for the worker to decide."""


@dataclass(frozen=True)
class Preparation:
    """A plan, and the checkpoint that it goes on from, if any."""

    plan: TrainingPlan
    resumed: Checkpoint | None


@contextlib.contextmanager
def prepared(
    assignment: GetAssignmentResponse, files: ArtifactFiles, directory: Path, world: World, attempt: int
) -> Iterator[Preparation]:
    """What to train; the user's modules can be imported for as long as this lasts.

    Raises:
        CheckpointsLost, DataLoss, ArchiveError, ImportError, MissionError, WeightsError: something that is needed
            cannot be had.
    """
    spec = assignment.spec
    policy = spec.policy_class
    code = files.code(policy.code) if policy.HasField("code") else None
    requirements = [files.requirements(policy.requirements)] if policy.HasField("requirements") else []
    # What rank 0 goes on from, all go on from.
    resumed, resume = _resume_point(assignment, files) if world.rank == 0 else (None, None)
    start = files.fetch(spec.start.weights) if spec.HasField("start") and not assignment.resume else None
    with on_path(*([code] if code else [])), requirements_on_path(*requirements):
        plan = TrainingPlan(
            missions=tuple(mission_of(mission, files.mission(mission)) for mission in spec.missions),
            policy=policy_of(policy, start, code),
            agent_steps=spec.agent_steps,
            num_envs=spec.environments,
            seed=spec.seed,
            directory=directory,
            trainer=scalars(spec.trainer),
            checkpoint_agent_steps=spec.checkpoint_agent_steps if spec.HasField("checkpoint_agent_steps") else None,
            cpus=max(1, assignment.cpus),
            world=world,
            attempt=attempt,
            resume=resume,
            peer_timeout_s=2 * assignment.stall_seconds,  # a rank that hangs is found by its own watchdog first
        )
        yield Preparation(plan, resumed)


def _resume_point(
    assignment: GetAssignmentResponse, files: ArtifactFiles
) -> tuple[Checkpoint | None, ResumePoint | None]:
    """The newest checkpoint that can be read."""
    for checkpoint in assignment.resume:
        try:
            weights, state = files.fetch(checkpoint.weights), files.fetch(checkpoint.trainer_state)
            point = read_resume_point(weights, state)
        except (DataLoss, WeightsError) as error:
            logger.error("%s cannot be used, the one before it is tried: %s", checkpoint.name, error)
        else:
            logger.info("going on from %s, agent step %d", checkpoint.name, checkpoint.agent_steps)
            return checkpoint, point
    if assignment.resume:
        names = ", ".join(checkpoint.name for checkpoint in assignment.resume)
        raise CheckpointsLost(f"none of the checkpoints to go on from can be read: {names}")
    return None, None
