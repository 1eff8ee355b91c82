"""The artifacts that a worker is told of, as files of this machine: fetched once, and made into what they hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from daf_cogames.code import unpack_code
from daf_cogames.mission_files import unpack_mission
from daf_cogames.policies import PolicySource
from daf_cogames.reports import PATIENCE_SECONDS, persist
from daf_cogames.sandbox.bundle_files import unpack_policy
from daf_cogames.transfer import download
from daf_cogames.wheels import install_wheels
from daf_common.errors import DataLoss, NotFound
from daf_protos.common.v1.artifact_pb2 import Artifact, ArtifactLocation
from daf_protos.common.v1.mission_pb2 import Mission


class ArtifactFiles:
    """Fetches into the machine's cache; see `daf_cogames.reports.persist` for how long it tries."""

    def __init__(
        self,
        downloads: Sequence[ArtifactLocation],
        cache: Path,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self._locations = {location.artifact.sha256: location for location in downloads}
        self._cache, self._patience_seconds, self._wait = cache, patience_seconds, wait

    def fetch(self, artifact: Artifact) -> Path:
        """The artifact as a file, which is not to be changed. Raises DataLoss, Superseded, GaveUp."""
        location = self._locations[artifact.sha256]
        return persist(
            lambda: self._download(location), "a download", patience_seconds=self._patience_seconds, wait=self._wait
        )

    def code(self, archive: Artifact) -> Path:
        """The user's code, unpacked. Raises also ArchiveError."""
        return unpack_code(self.fetch(archive), archive.sha256, self._cache / "code")

    def bundle(self, archive: Artifact) -> PolicySource:
        """The policy of a bundle, unpacked. Raises also ArchiveError, BundleError."""
        return unpack_policy(self.fetch(archive), archive.sha256, self._cache / "bundles")

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
        except NotFound as error:  # the artifact is gone, not this worker's part of the work
            raise DataLoss(error.message) from error
