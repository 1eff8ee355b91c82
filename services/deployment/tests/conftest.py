"""A deployment service with its own database and artifacts, served on a unix socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daf_common.clock import ManualClock
from daf_common.server import create_server
from daf_common.service import Context
from daf_deployment.main import Deployment, build
from daf_deployment.settings import DeploymentSettings
from daf_protos.deployment.v1.artifact_service_pb2_grpc import ArtifactServiceStub
from daf_protos.deployment.v1.deployment_service_pb2_grpc import DeploymentServiceStub

if TYPE_CHECKING:
    from daf_protos.deployment.v1.artifact_service_pb2_grpc import ArtifactServiceAsyncStub
    from daf_protos.deployment.v1.deployment_service_pb2_grpc import DeploymentServiceAsyncStub


@pytest.fixture
def context(database_url: str, tmp_path: Path, clock: ManualClock) -> Context:
    address = f"unix:{tmp_path}/deployment.sock"
    settings = DeploymentSettings(
        home=tmp_path, database_url=database_url, deployment_address=address, max_upload_bytes=8 << 20
    )
    return Context(settings, clock)


@pytest.fixture
async def service(context: Context) -> AsyncIterator[Deployment]:
    deployment = build(context)
    server, _ = create_server(context.settings.deployment_address)
    deployment.register(server)
    await server.start()
    await deployment.start()
    yield deployment
    await server.stop(None)
    await deployment.stop()
    await deployment.close()
    await context.close()


@pytest.fixture
def artifacts(service: Deployment, context: Context) -> ArtifactServiceAsyncStub:
    return ArtifactServiceStub(context.peer("deployment"))


@pytest.fixture
def deployments(service: Deployment, context: Context) -> DeploymentServiceAsyncStub:
    return DeploymentServiceStub(context.peer("deployment"))
