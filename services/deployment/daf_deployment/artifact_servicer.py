"""`ArtifactService` on the wire."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

from daf_common.artifacts import ArtifactStore, check_artifact
from daf_common.errors import DataLoss
from daf_deployment.uploads import receive
from daf_protos.deployment.v1 import artifact_service_pb2 as pb
from daf_protos.deployment.v1.artifact_service_pb2_grpc import ArtifactServiceServicer

type Call = grpc.aio.ServicerContext[Any, Any]


class ArtifactServicer(ArtifactServiceServicer):
    """Takes in what users bring, under this service's prefix, and gives out what any service has stored."""

    def __init__(self, artifacts: ArtifactStore, scratch: Path, max_upload_bytes: int) -> None:
        self._artifacts, self._scratch, self._max_upload_bytes = artifacts, scratch, max_upload_bytes

    async def UploadArtifact(
        self, request_iterator: AsyncIterator[pb.UploadArtifactRequest], context: Call
    ) -> pb.UploadArtifactResponse:
        artifact = await receive(request_iterator, self._artifacts, self._scratch, self._max_upload_bytes)
        return pb.UploadArtifactResponse(artifact=artifact)

    async def DownloadArtifact(
        self, request: pb.DownloadArtifactRequest, context: Call
    ) -> AsyncIterator[pb.DownloadArtifactResponse]:
        check_artifact(request.artifact, "artifact")
        digest = hashlib.sha256()
        async for chunk in self._artifacts.stream(request.artifact):
            digest.update(chunk)
            yield pb.DownloadArtifactResponse(chunk=chunk)
        if digest.hexdigest() != request.artifact.sha256:
            raise DataLoss(f"the artifact {request.artifact.sha256[:12]} is broken: its content has another digest")
