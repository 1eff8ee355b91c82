"""The deployment service, put together."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

import grpc

from daf_common import migrations
from daf_common.artifacts import ArtifactStore
from daf_common.service import Context, run
from daf_common.store import Store
from daf_deployment.artifact_servicer import ArtifactServicer
from daf_deployment.deployment_servicer import DeploymentServicer
from daf_deployment.settings import DeploymentSettings
from daf_deployment.store import MIGRATIONS
from daf_protos.deployment.v1 import artifact_service_pb2, deployment_service_pb2
from daf_protos.deployment.v1.artifact_service_pb2_grpc import add_ArtifactServiceServicer_to_server
from daf_protos.deployment.v1.deployment_service_pb2_grpc import add_DeploymentServiceServicer_to_server


class Deployment:
    """The service; see `daf_common.service.Service`."""

    def __init__(self, context: Context, settings: DeploymentSettings, store: Store) -> None:
        self.store = store
        scratch = settings.home / "scratch" / "deployment" / settings.replica  # another one may be receiving uploads
        shutil.rmtree(scratch, ignore_errors=True)  # what a killed process has left
        scratch.mkdir(parents=True, mode=0o700)
        artifacts = ArtifactStore(settings.artifacts(), "deployment")
        self._artifacts = ArtifactServicer(artifacts, scratch, settings.max_upload_bytes)
        self._deployments = DeploymentServicer(store, artifacts, context.clock, scratch)

    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        """See `Service.register`."""
        add_ArtifactServiceServicer_to_server(self._artifacts, server)
        add_DeploymentServiceServicer_to_server(self._deployments, server)
        return [
            artifact_service_pb2.DESCRIPTOR.services_by_name["ArtifactService"].full_name,
            deployment_service_pb2.DESCRIPTOR.services_by_name["DeploymentService"].full_name,
        ]

    async def start(self) -> None:
        """See `Service.start`. Nothing happens but on request."""

    async def stop(self) -> None:
        """See `Service.stop`."""

    async def close(self) -> None:
        """See `Service.close`."""
        self.store.close()


def build(context: Context) -> Deployment:
    """The service with its database brought up to date."""
    settings = DeploymentSettings(**context.settings.model_dump())
    store = Store(settings.database("deployment"), "deployment")
    migrations.bring_up(store, MIGRATIONS, settings)
    return Deployment(context, settings, store)


def main() -> None:
    """Runs the service in a process of its own, or brings its database up to date."""
    settings = DeploymentSettings()
    if migrations.is_asked_for():
        migrations.migrate(settings, "deployment", MIGRATIONS)
    else:
        run(settings, lambda context: [build(context)])


if __name__ == "__main__":
    main()
