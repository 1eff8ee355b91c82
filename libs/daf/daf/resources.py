"""What documents refer to: files on this machine, put into the artifact store, and results of other runs."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.requirements import Requirement

from daf import wheels
from daf.checkpoints import find_checkpoint
from daf.client import Client
from daf.home import home
from daf.missions import OwnMission
from daf.parameters import Parameters
from daf.requirements import Runner
from daf.user_code import MEDIA_TYPE, UserCode
from daf_common.bundles import check_bundle
from daf_common.errors import FailedPrecondition, NotFound, Unavailable, Unimplemented
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.common.v1.policy_pb2 import PolicyCheckpoint
from daf_protos.deployment.v1.artifact_service_pb2 import DownloadArtifactRequest, UploadArtifactRequest
from daf_protos.deployment.v1.deployment_service_pb2 import GetPolicyVersionRequest
from daf_protos.scheduler.v1.scheduler_service_pb2 import GetTrialRequest
from daf_protos.training.v1.catalog_service_pb2 import (
    GetRunnerRequest,
    ListHyperparametersRequest,
    ListMissionsRequest,
    ListPoliciesRequest,
    MissionInfo,
    PolicyInfo,
)
from daf_protos.training.v1.training_service_pb2 import GetTrainingJobRequest

_CHUNK_BYTES = 1 << 20
_PAUSES_SECONDS = (0.1, 0.5, 2.0)
"""Before an upload that did not get through is sent again."""
_OWNER = "deployment"  # the service that stores what users upload
_WEIGHTS_TYPE = "application/octet-stream"
_BUNDLE_TYPE = "application/zip"


class Resources:
    """Resolves references with the help of an installation's services."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def code(self, code: UserCode) -> Artifact:
        """The artifact of a user's code, uploaded if the store lacks it."""
        return self._stored(code.archive, MEDIA_TYPE)

    def wheels(self, requirements: Sequence[Requirement]) -> bytes | None:
        """The archive of wheels for what the runner lacks; None if it lacks nothing. Raises as
        `daf.wheels.build_wheels`."""
        return wheels.build_wheels(requirements, self._runner, home() / "cache" / "wheels")

    def requirements(self, archive: bytes) -> Artifact:
        """The artifact of an archive of wheels, uploaded if the store lacks it."""
        return self._stored(archive, wheels.MEDIA_TYPE)

    def runner_modules(self) -> frozenset[str]:
        """The top-level modules of the runner's packages; empty where the services do not say."""
        try:
            return self._runner.modules
        except Unimplemented:  # services that are older than this client
            return frozenset()

    def weights(self, path: Path) -> Artifact:
        """The artifact of a file of weights, uploaded if the store lacks it.

        Raises:
            FileNotFoundError: there is no such file.
        """
        return self._stored(path.read_bytes(), _WEIGHTS_TYPE)

    def mission(self, mission: OwnMission) -> Artifact:
        """The artifact of a mission of the user's own, uploaded if the store lacks it."""
        return self._stored(mission.archive, MEDIA_TYPE)

    def missions(self) -> Sequence[MissionInfo]:
        """The missions that the runner knows."""
        return self._missions

    def policy_warnings(self, policy: str) -> Sequence[str]:
        """What a user must know about a policy, by its short name or class path, before trusting its score."""
        return next((p.warnings for p in self._policies if policy in (p.name, p.class_path, *p.aliases)), ())

    def checkpoint(self, name: str) -> PolicyCheckpoint:
        """The policy that a training job saved or a trial trained.

        Args:
            name: `trainingJobs/{job}/checkpoints/{update, best or latest}` or `sweeps/{sweep}/trials/{number}`.

        Raises:
            NotFound: there is none.
            FailedPrecondition: nothing has been saved yet.
        """
        if name.startswith("sweeps/"):
            trial = self._client.scheduler.GetTrial(GetTrialRequest(name=name)).trial
            if not trial.HasField("checkpoint"):
                raise FailedPrecondition(f"{name} has trained no policy yet: see `daf sweep get {name.split('/')[1]}`")
            return trial.checkpoint
        job_name, _, update = name.rpartition("/checkpoints/")
        job = self._client.training.GetTrainingJob(GetTrainingJobRequest(name=job_name)).training_job
        found = find_checkpoint(self._client, job, update)
        return PolicyCheckpoint(policy_class=job.spec.policy_class, weights=found.weights, checkpoint=found.name)

    def bundle(self, path: Path) -> Artifact:
        """The artifact of a submission bundle, uploaded if the store lacks it.

        Raises:
            OSError: there is no such file, or it cannot be read.
            daf_common.bundles.BundleError: it cannot be used.
        """
        with TemporaryDirectory() as scratch:
            check_bundle(path, Path(scratch))
        return self._stored(path.read_bytes(), _BUNDLE_TYPE)

    def version(self, name: str) -> Artifact:
        """The bundle of a version, `policyPackages/{package}/versions/{version}`.

        Raises:
            NotFound: there is none.
        """
        request = GetPolicyVersionRequest(name=name)
        return self._client.deployment.GetPolicyVersion(request).policy_version.bundle

    def parameters(self, policy: str, code: UserCode | Artifact | None) -> Parameters:
        """The hyperparameters of a policy.

        Args:
            policy: its short name or class path.
            code: the user's code that comes along; where it is stored already, it is not looked into.

        Raises:
            DafError: the policy is not known.
        """
        if isinstance(code, UserCode) and code.has(policy):
            return self._parameters("", code.constructor_arguments(policy))
        try:
            return self._parameters(policy, ())
        except NotFound:
            if not isinstance(code, Artifact):
                raise
            return self._parameters("", None)

    @cached_property
    def _missions(self) -> Sequence[MissionInfo]:
        return self._client.catalog.ListMissions(ListMissionsRequest()).missions

    @cached_property
    def _policies(self) -> Sequence[PolicyInfo]:
        return self._client.catalog.ListPolicies(ListPoliciesRequest()).policies

    @cached_property
    def _runner(self) -> Runner:
        return Runner.of(self._client.catalog.GetRunner(GetRunnerRequest()))

    def _parameters(self, policy: str, arguments: Collection[str] | None) -> Parameters:
        answer = self._client.catalog.ListHyperparameters(ListHyperparametersRequest(policy=policy))
        return Parameters(answer.hyperparameters, arguments, answer.refused)

    def _stored(self, content: bytes, media_type: str) -> Artifact:
        digest = hashlib.sha256(content).hexdigest()
        artifact = Artifact(sha256=digest, size_bytes=len(content), media_type=media_type, owner=_OWNER)
        if not self._has(artifact):
            artifact = self._uploaded(artifact, content)
        return artifact

    def _uploaded(self, artifact: Artifact, content: bytes) -> Artifact:
        # The channel sends a stream again only while it fits into its buffer. To send this one twice does no harm.
        for seconds in _PAUSES_SECONDS:
            try:
                return self._upload(artifact, content)
            except Unavailable:
                time.sleep(seconds)
        return self._upload(artifact, content)

    def _upload(self, artifact: Artifact, content: bytes) -> Artifact:
        return self._client.artifacts.UploadArtifact(_parts(artifact, content)).artifact

    def _has(self, artifact: Artifact) -> bool:
        stream = self._client.artifacts.DownloadArtifact(DownloadArtifactRequest(artifact=artifact))
        try:
            next(iter(stream), None)
        except NotFound:
            return False
        finally:
            stream.cancel()
        return True


def _parts(artifact: Artifact, content: bytes) -> Iterator[UploadArtifactRequest]:
    yield UploadArtifactRequest(artifact=artifact)
    for start in range(0, len(content), _CHUNK_BYTES):
        yield UploadArtifactRequest(chunk=content[start : start + _CHUNK_BYTES])
