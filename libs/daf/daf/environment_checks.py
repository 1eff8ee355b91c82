"""Checks before an experiment: all that is needed is looked at, whatever is missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from daf.checks.device import (
    daf_check_cuda,
    daf_check_cuda_availability,
    daf_check_nccl,
    daf_get_recommended_device,
)
from daf.checks.disk import daf_check_disk_space
from daf.checks.memory import daf_check_memory
from daf.checks.missions import daf_check_mission_configs
from daf.checks.packages import daf_check_dependencies
from daf.checks.planned_run import PlannedRun
from daf.checks.result import Check, EnvironmentCheckResult
from daf.checks.services import check_planned_run, check_services, services_in_use
from daf.checks.sign_in import daf_check_auth
from daf.client import Client
from daf.config import DAFSweepConfig, DAFTrainingConfig
from daf.home import home
from daf_common.errors import DafError

__all__ = [
    "Check",
    "EnvironmentCheckResult",
    "daf_check_auth",
    "daf_check_cuda",
    "daf_check_cuda_availability",
    "daf_check_dependencies",
    "daf_check_disk_space",
    "daf_check_environment",
    "daf_check_memory",
    "daf_check_mission_configs",
    "daf_check_nccl",
    "daf_get_recommended_device",
]


def daf_check_environment(
    missions: Sequence[str] = (),
    check_cuda: bool = True,
    check_disk: bool = True,
    check_memory: bool = True,
    check_auth: bool = True,
    *,
    run: str | Path | DAFTrainingConfig | DAFSweepConfig | None = None,
    client: Client | None = None,
) -> EnvironmentCheckResult:
    """Looks at everything that an experiment needs, without stopping at the first thing that is missing, and starts
    nothing. Where the services are on another machine, disk, memory and GPUs of this one are not looked at.

    Args:
        missions: missions that have to be there, by name or as files of the user's own.
        check_cuda: whether to look for GPUs, which imports torch in a process of its own.
        check_disk: whether to look at the free space.
        check_memory: whether to look at the memory.
        check_auth: whether to look for a login, without which nothing is missing but the tournament.
        run: a training run or a sweep, or the file that says it: disk and memory have to suffice for it, and the
            services to accept it. Its policy is built here, which takes seconds.
        client: the installation where it is to run; otherwise that of the context in use.

    Raises:
        FileNotFoundError: there is no file `run`.
        daf.documents.DocumentError: it is no document of a training run or a sweep.
    """
    planned = PlannedRun.of(run) if run is not None else None
    result = EnvironmentCheckResult()

    def look(name: str, check: Callable[[], EnvironmentCheckResult]) -> None:
        try:
            result.extend(check())
        except (DafError, OSError, RuntimeError, ValueError) as error:
            result.add_error(name, str(error))

    look("packages", daf_check_dependencies)
    look("services", partial(check_services, client))
    with ExitStack() as stack:
        endpoint = client.endpoint if client is not None else services_in_use()
        services = client
        if services is None and endpoint:
            services = stack.enter_context(Client(endpoint))
        wanted = [*missions, *(planned.mission_files if planned is not None else ())]
        if planned is not None and services is not None:
            look("run", partial(check_planned_run, services, planned))
        elif planned is not None:
            wanted += planned.mission_names
            result.add_warning("run", "the services have not looked at it: none run; `daf up` starts them")
        if wanted:
            look("missions", partial(daf_check_mission_configs, wanted, client=services))
    if endpoint and endpoint.host_and_port:
        result.add_warning("machine", f"not looked at: experiments run at {endpoint.address}")
    else:
        if check_disk:
            look("disk", partial(daf_check_disk_space, home(), run=planned))
        if check_memory:
            look("memory", partial(daf_check_memory, run=planned))
        if check_cuda:
            look("cuda", daf_check_cuda_availability)
            if any(check.name == "cuda" and check.passed and not check.warning for check in result.checks):
                look("nccl", daf_check_nccl)
    if check_auth:
        look("sign-in", daf_check_auth)
    return result
