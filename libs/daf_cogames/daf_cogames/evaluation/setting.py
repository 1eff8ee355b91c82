"""What an evaluation is played with: its artifacts, fetched and unpacked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from daf_cogames.artifact_files import ArtifactFiles
from daf_cogames.evaluation.table import Setting, Unplayable
from daf_cogames.messages import mission_of, policy_of
from daf_cogames.missions import MissionError
from daf_cogames.play.episodes import PATIENT_ACTION_TIME_MS
from daf_cogames.policies import PolicySource
from daf_common.archives import ArchiveError
from daf_common.bundles import BundleError
from daf_common.errors import DataLoss
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.common.v1.mission_pb2 import Mission as MissionMessage
from daf_protos.common.v1.policy_pb2 import Policy
from daf_protos.evaluation.v1.evaluation_pb2 import EvaluationSpec

TIME_LIMIT_SECONDS = 60.0
"""For each call of a policy, where the evaluation sets none."""


def fetch_setting(spec: EvaluationSpec, files: ArtifactFiles) -> Setting:
    """All that an evaluation names, on this machine.

    Args:
        spec: with names resolved.
        files: the artifacts that it names.

    Raises:
        Unplayable: an artifact is broken or gone.
    """
    return Setting(
        missions=[
            mission_of(mission, _mission_file(mission, f"missions[{number}]", files))
            for number, mission in enumerate(spec.missions)
        ],
        policies=[_source(policy, files) for policy in spec.policies],
        max_action_time_ms=spec.max_action_time_ms or PATIENT_ACTION_TIME_MS,
        time_limit_seconds=spec.time_limit_seconds or TIME_LIMIT_SECONDS,
        fast=spec.fast,
        isolated=spec.isolated,
        replays=Path.cwd() / "replays" if spec.save_replays else None,
    )


def _usable[T](make: Callable[[Artifact], T], artifact: Artifact, otherwise: str) -> T:
    try:
        return make(artifact)
    except DataLoss as error:
        raise Unplayable("ARTIFACT_LOST", error.message, artifact.sha256) from error
    except (ArchiveError, BundleError) as error:
        raise Unplayable("POLICY_INVALID", f"{otherwise}: {error}", artifact.sha256) from error


def _source(policy: Policy, files: ArtifactFiles) -> PolicySource:
    if policy.HasField("bundle"):
        return _usable(files.bundle, policy.bundle, "the bundle cannot be used")
    policy_class = policy.checkpoint.policy_class if policy.HasField("checkpoint") else policy.policy_class
    weights = code = requirements = None
    if policy.HasField("checkpoint"):
        weights = _usable(files.fetch, policy.checkpoint.weights, "the weights cannot be used")
    if policy_class.HasField("code"):
        code = _usable(files.code, policy_class.code, "the code archive cannot be used")
    if policy_class.HasField("requirements"):
        requirements = _usable(files.requirements, policy_class.requirements, "the requirements cannot be used")
    return policy_of(policy_class, weights, code, requirements)


def _mission_file(message: MissionMessage, path: str, files: ArtifactFiles) -> Path | None:
    try:
        return files.mission(message)
    except DataLoss as error:
        raise Unplayable("ARTIFACT_LOST", error.message, message.file.sha256) from error
    except MissionError as error:
        raise Unplayable("MISSION_INVALID", error.message, f"{path}.{error.field}") from error
