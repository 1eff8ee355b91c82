"""What a workload's object has beside it, under its name: a secret with its token, and perhaps a network policy."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterable

from daf_common.errors import AlreadyExists, NotFound
from daf_common.kube.api import PODS, SECRETS, KubernetesApi, Object, reference
from daf_common.kube.isolation import NETWORK_POLICIES, needs_network, network_of
from daf_common.kube.pods import secret_content
from daf_common.workloads import Workload


class Belongings:
    """Makes what workloads' objects have beside them, and lets it be deleted when nobody needs it any longer."""

    def __init__(self, api: KubernetesApi, with_networks: bool) -> None:
        self._api, self._with_networks = api, with_networks

    async def make(self, workload: Workload, metadata: Object) -> None:
        """Makes what is not there yet, before there is an object that it could belong to.

        Raises:
            NotFound: there is no such namespace.
            FailedPrecondition: the cluster refuses it, as by a quota.
        """
        content = {key: base64.b64encode(value.encode()).decode() for key, value in secret_content(workload).items()}
        with contextlib.suppress(AlreadyExists):
            await self._api.create(SECRETS, {"metadata": metadata, "data": content})
        if self._has_network(workload):
            with contextlib.suppress(AlreadyExists):
                await self._api.create(NETWORK_POLICIES, network_of(metadata, metadata["labels"]))

    async def own(self, workload: Workload, name: str, owner: Object) -> None:
        """Lets them be deleted with the object that a reference names."""
        owned = {"metadata": {"ownerReferences": [owner]}}
        for kind in (SECRETS, NETWORK_POLICIES) if self._has_network(workload) else (SECRETS,):
            with contextlib.suppress(NotFound):
                await self._api.patch(kind, name, owned)

    async def leave_network(self, name: str, pods: Iterable[Object]) -> None:
        """Lets the network be deleted with the last of these pods, which need it to save what they have."""
        if self._with_networks:
            owned = {"metadata": {"ownerReferences": [reference(PODS, pod) for pod in pods]}}
            with contextlib.suppress(NotFound):  # one pod alone has none
                await self._api.patch(NETWORK_POLICIES, name, owned)

    async def delete(self, name: str, with_network: bool = True) -> None:
        """Deletes them, those that are there."""
        await self._api.delete(SECRETS, name)
        if with_network and self._with_networks:
            await self._api.delete(NETWORK_POLICIES, name)

    def _has_network(self, workload: Workload) -> bool:
        return self._with_networks and needs_network(workload)
