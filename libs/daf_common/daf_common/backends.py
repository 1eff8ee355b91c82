"""Which backend runs a service's workloads: the one place where a laptop and a cluster differ."""

from __future__ import annotations

from collections.abc import Callable

from daf_common.kube.settings import BackendSettings
from daf_common.local_backend import WORKER_MAIN, LocalBackend
from daf_common.processes import LocalProcesses
from daf_common.settings import ServiceSettings
from daf_common.workloads import Backend


def backend_of(settings: ServiceSettings, verb: str, on_kubernetes: Callable[[BackendSettings], Backend]) -> Backend:
    """The backend that the environment asks for.

    Args:
        settings: of the service.
        verb: of its workloads.
        on_kubernetes: makes the backend for a cluster; called only if that is asked for, since it imports a lot.

    Raises:
        pydantic.ValidationError: the environment says too little, or nonsense; names the variables.
    """
    wanted = BackendSettings()
    if wanted.backend == "kubernetes":
        return on_kubernetes(wanted)
    return LocalBackend(LocalProcesses(settings.home / "workers", WORKER_MAIN), verb, settings.home / "cache")
