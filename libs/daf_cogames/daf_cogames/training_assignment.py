"""From an assignment to a plan: the files fetched, the user's code importable, a checkpoint found to go on from."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from daf_cogames.checkpoints import WeightsError
from daf_cogames.code import on_path, unpack_code
from daf_cogames.messages import mission_of, policy_of
from daf_cogames.mission_files import unpack_mission
from daf_cogames.reports import persist
from daf_cogames.resume import ResumePoint, read_resume_point
from daf_cogames.train import TrainingPlan
from daf_cogames.transfer import download
from daf_cogames.wheels import install_wheels, requirements_on_path
from daf_cogames.world import World
from daf_common.errors import DataLoss, NotFound
from daf_common.values import scalars
from daf_protos.common.v1.artifact_pb2 import Artifact, ArtifactLocation
from daf_protos.common.v1.mission_pb2 import Mission
from daf_protos.training.v1.training_job_pb2 import Checkpoint
from daf_protos.training.v1.worker_service_pb2 import GetAssignmentResponse

logger = logging.getLogger(__name__)

DOWNLOAD_PATIENCE_SECONDS = 600.0


class CheckpointsLost(RuntimeError):
    """A job has checkpoints to go on from, and none can be read. To start afresh is not for the worker to decide."""


@dataclass(frozen=True)
class Preparation:
    """A plan, and the checkpoint that it goes on from, if any."""

    plan: TrainingPlan
    resumed: Checkpoint | None


class Files:
    """The artifacts of an assignment, fetched into the machine's cache."""

    def __init__(self, assignment: GetAssignmentResponse, cache: Path) -> None:
        self._locations = {location.artifact.sha256: location for location in assignment.downloads}
        self._cache = cache

    def fetch(self, artifact: Artifact) -> Path:
        """The artifact as a file, which is not to be changed. Raises DataLoss, Superseded, GaveUp."""
        location = self._locations[artifact.sha256]
        return persist(lambda: self._download(location), "a download", patience_seconds=DOWNLOAD_PATIENCE_SECONDS)

    def code(self, archive: Artifact) -> Path:
        """The user's code, unpacked. Raises also ArchiveError."""
        return unpack_code(self.fetch(archive), archive.sha256, self._cache / "code")

    def mission(self, message: Mission) -> Path | None:
        """The file of a user's own mission, unpacked; None for CoGames' own. Raises also MissionError."""
        if not message.HasField("file"):
            return None
        return unpack_mission(self.fetch(message.file), message.file.sha256, self._cache / "missions")

    def requirements(self, archive: Artifact) -> Path:
        """The packages that the code needs, installed. Raises also ArchiveError."""
        return install_wheels(self.fetch(archive), archive.sha256, self._cache / "requirements")

    def _download(self, location: ArtifactLocation) -> Path:
        try:
            return download(location, self._cache / "artifacts")
        except NotFound as error:  # the artifact is gone, not this worker's attempt
            raise DataLoss(error.message) from error


@contextlib.contextmanager
def prepared(
    assignment: GetAssignmentResponse, files: Files, directory: Path, world: World, attempt: int
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


def _resume_point(assignment: GetAssignmentResponse, files: Files) -> tuple[Checkpoint | None, ResumePoint | None]:
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
