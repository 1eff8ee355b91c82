"""Artifacts brought to this machine."""

from __future__ import annotations

import hashlib
from pathlib import Path

from daf.client import Client
from daf_common.errors import DataLoss
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.deployment.v1.artifact_service_pb2 import DownloadArtifactRequest


def download(client: Client, artifact: Artifact, path: Path) -> None:
    """Writes an artifact to a file, in place of what is there.

    Raises:
        NotFound: the store has it no longer.
        DataLoss: what came has another digest; the file then holds it.
    """
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for part in client.artifacts.DownloadArtifact(DownloadArtifactRequest(artifact=artifact)):
            digest.update(part.chunk)
            file.write(part.chunk)
    if digest.hexdigest() != artifact.sha256:
        raise DataLoss(f"the artifact {artifact.sha256[:12]} came with the digest {digest.hexdigest()[:12]}")
