"""`DeploymentService` on the wire."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Never

import grpc

from daf_common import names, pages
from daf_common.artifacts import ArtifactStore
from daf_common.auth import PRINCIPAL
from daf_common.bundles import BundleError, BundleSpec, check_bundle
from daf_common.clock import Clock
from daf_common.errors import DataLoss, InvalidArgument, NotFound, Unimplemented
from daf_common.store import Store
from daf_deployment import convert, store
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.deployment.v1 import deployment_service_pb2 as pb
from daf_protos.deployment.v1.deployment_service_pb2_grpc import DeploymentServiceServicer
from daf_protos.deployment.v1.package_pb2 import PolicyVersion

type Call = grpc.aio.ServicerContext[Any, Any]


class DeploymentServicer(DeploymentServiceServicer):
    """Packages and their versions. Deployments of them are not built yet."""

    def __init__(self, database: Store, artifacts: ArtifactStore, clock: Clock, scratch: Path) -> None:
        self._store, self._artifacts, self._clock, self._scratch = database, artifacts, clock, scratch

    async def CreatePolicyVersion(
        self, request: pb.CreatePolicyVersionRequest, context: Call
    ) -> pb.CreatePolicyVersionResponse:
        convert.check_create_version(request)
        spec = await self._check_bundle(request.bundle)
        now = self._clock.now()
        version = PolicyVersion(
            name=names.POLICY_VERSION.format(request.package_id, request.version),
            version=request.version,
            bundle=request.bundle,
            class_path=spec.class_path,
            lineage=request.lineage,
        )
        version.create_time.FromDatetime(now)
        package = {
            "id": request.package_id,
            "description": request.description,
            "creator": PRINCIPAL.get(),
            "create_time": now,
        }
        created = await self._store.run(
            store.create_version,
            request,
            request.request_id,
            package,
            request.version,
            version.SerializeToString(),
        )
        return pb.CreatePolicyVersionResponse(policy_version=PolicyVersion.FromString(created.message))

    async def GetPolicyVersion(self, request: pb.GetPolicyVersionRequest, context: Call) -> pb.GetPolicyVersionResponse:
        package, version = names.POLICY_VERSION.parse(request.name)
        found = await self._store.read(store.get_version, package, version)
        if found is None:
            raise NotFound(f"there is no {request.name}")
        return pb.GetPolicyVersionResponse(policy_version=PolicyVersion.FromString(found.message))

    async def ListPolicyVersions(
        self, request: pb.ListPolicyVersionsRequest, context: Call
    ) -> pb.ListPolicyVersionsResponse:
        (package,) = names.POLICY_PACKAGE.parse(request.parent, "parent")
        size, scope = pages.page_size(request.page_size), f"ListPolicyVersions/{package}"
        found = await self._store.read(store.page_of_versions, package, _position(scope, request.page_token), size + 1)
        if found is None:
            raise NotFound(f"there is no {request.parent}")
        return pb.ListPolicyVersionsResponse(
            policy_versions=[PolicyVersion.FromString(version.message) for version in found[:size]],
            next_page_token=pages.encode(scope, found[size - 1].number) if len(found) > size else "",
        )

    async def GetPolicyPackage(self, request: pb.GetPolicyPackageRequest, context: Call) -> pb.GetPolicyPackageResponse:
        (package,) = names.POLICY_PACKAGE.parse(request.name)
        found = await self._store.read(store.get_package, package)
        if found is None:
            raise NotFound(f"there is no {request.name}")
        return pb.GetPolicyPackageResponse(policy_package=convert.package_message(found))

    async def ListPolicyPackages(
        self, request: pb.ListPolicyPackagesRequest, context: Call
    ) -> pb.ListPolicyPackagesResponse:
        size, scope = pages.page_size(request.page_size), "ListPolicyPackages"
        found = await self._store.read(store.page_of_packages, _position(scope, request.page_token), size + 1)
        return pb.ListPolicyPackagesResponse(
            policy_packages=[convert.package_message(package) for package in found[:size]],
            next_page_token=pages.encode(scope, found[size - 1].number) if len(found) > size else "",
        )

    async def CreateDeployment(self, request: pb.CreateDeploymentRequest, context: Call) -> Never:
        raise _not_built()

    async def GetDeployment(self, request: pb.GetDeploymentRequest, context: Call) -> Never:
        raise _not_built()

    async def ListDeployments(self, request: pb.ListDeploymentsRequest, context: Call) -> Never:
        raise _not_built()

    async def WatchDeployments(
        self, request: pb.WatchDeploymentsRequest, context: Call
    ) -> AsyncIterator[pb.WatchDeploymentsResponse]:
        raise _not_built()
        yield  # makes this a stream

    async def UpdateDeployment(self, request: pb.UpdateDeploymentRequest, context: Call) -> Never:
        raise _not_built()

    async def RollbackDeployment(self, request: pb.RollbackDeploymentRequest, context: Call) -> Never:
        raise _not_built()

    async def RetireDeployment(self, request: pb.RetireDeploymentRequest, context: Call) -> Never:
        raise _not_built()

    async def _check_bundle(self, bundle: Artifact) -> BundleSpec:
        with TemporaryDirectory(prefix="check-", dir=self._scratch) as directory:
            path = Path(directory) / "bundle.zip"
            digest, size = hashlib.sha256(), 0
            with path.open("xb") as file:
                async for chunk in self._artifacts.stream(bundle):
                    digest.update(chunk)
                    size += file.write(chunk)
            if digest.hexdigest() != bundle.sha256:
                raise DataLoss(f"the bundle {bundle.sha256[:12]} is broken: its content has another digest")
            if size != bundle.size_bytes:
                raise InvalidArgument.field("bundle.size_bytes", f"is {bundle.size_bytes}, but the bundle has {size}")
            try:
                return await asyncio.to_thread(check_bundle, path, Path(directory))
            except BundleError as error:
                raise InvalidArgument.field("bundle", str(error)) from None


def _position(scope: str, token: str) -> int | None:
    keys = pages.decode(scope, token)
    return int(keys[0]) if keys else None


def _not_built() -> Unimplemented:
    return Unimplemented(
        "deployments are not built yet: versions can be created and listed, and their bundles downloaded"
    )
