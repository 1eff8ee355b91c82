"""Workloads as local processes: one process a replica, named `{verb}-{workload}-{replica}`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from daf_common.errors import Unavailable
from daf_common.processes import LocalProcesses, ProcessError, State, Status
from daf_common.workloads import Observation, Workload
from daf_common.workloads import State as WorkloadState

WORKER_MAIN = "daf_cogames.runner:main"
"""What every process runs, with the verb as its argument."""


class LocalBackend:
    """The workloads of one verb among the processes of a machine, which all verbs share."""

    def __init__(self, processes: LocalProcesses, verb: str, cache: Path) -> None:
        """Uses processes, which may serve other backends, too; workers keep their downloads in `cache`."""
        self._processes, self._verb, self._cache = processes, verb, cache

    async def check(self) -> None:
        """See `Backend.check`."""

    def watch(self, on_change: Callable[[str], None]) -> None:
        """See `Backend.watch`."""

        def tell(process: str) -> None:
            verb, workload = _verb_and_workload(process)
            if verb == self._verb:
                on_change(workload)

        self._processes.listen(tell)

    async def start(self, workload: Workload) -> None:
        """See `Backend.start`."""
        ranks = workload.ranks
        launch = {"PET_NNODES": "1", "PET_NPROC_PER_NODE": str(ranks.count)} if ranks else {}  # this machine has all
        for replica in range(workload.replicas):
            own = {"DAF_REPLICA": str(replica), "DAF_CACHE": str(self._cache)}
            environment = {**workload.environment, **launch, **own}
            try:
                await self._processes.start(self._process(workload.name, replica), [workload.verb], environment)
            except ProcessError as error:
                raise Unavailable(str(error)) from error

    async def observe(self) -> Mapping[str, Observation]:
        """See `Backend.observe`."""
        return await asyncio.to_thread(self._observe)

    def _observe(self) -> dict[str, Observation]:
        replicas: dict[str, list[Observation]] = {}
        for process in self._processes.names():
            verb, workload = _verb_and_workload(process)
            if verb == self._verb and (status := self._processes.observe(process)):
                replicas.setdefault(workload, []).append(_observation(status, int(process.rpartition("-")[2])))
        return {workload: _of_all(seen) for workload, seen in replicas.items()}

    async def stop(self, name: str, grace_seconds: float) -> None:
        """See `Backend.stop`."""
        for process in self._processes_of(name):
            await self._processes.stop(process, grace_seconds)

    async def logs(self, name: str, replica: int = 0) -> bytes:
        """See `Backend.logs`."""
        return await asyncio.to_thread(self._processes.log, self._process(name, replica))

    async def remove(self, name: str) -> None:
        """See `Backend.remove`."""
        for process in self._processes_of(name):
            await asyncio.to_thread(self._processes.remove, process)

    async def close(self) -> None:
        """See `Backend.close`."""
        await self._processes.close()

    def _process(self, workload: str, replica: int) -> str:
        return f"{self._verb}-{workload}-{replica}"

    def _processes_of(self, workload: str) -> list[str]:
        return [name for name in self._processes.names() if name.rpartition("-")[0] == f"{self._verb}-{workload}"]


def _verb_and_workload(process: str) -> tuple[str, str]:
    verb, _, rest = process.partition("-")
    return verb, rest.rpartition("-")[0]


def _observation(status: Status, replica: int) -> Observation:
    match status:
        case Status(State.RUNNING):
            return Observation(WorkloadState.RUNNING, running=1)
        case Status(State.EXITED, 0):
            return Observation(WorkloadState.SUCCEEDED)
        case Status(State.EXITED, int(code)) if code < 0:
            return _failed(f"ended by {signal.Signals(-code).name}", replica)
        case Status(State.EXITED, code):
            return _failed(f"exit code {code}", replica)
        case _:
            return _failed("it was killed while nobody looked", replica)


def _of_all(replicas: Sequence[Observation]) -> Observation:
    return replace(min(replicas, key=_weight), running=sum(seen.running for seen in replicas))


def _failed(message: str, replica: int) -> Observation:
    return Observation(WorkloadState.FAILED, message, replica=replica)


def _weight(observation: Observation) -> int:
    """A workload is as its first replica in this order: one runs, one failed, all succeeded."""
    return (WorkloadState.RUNNING, WorkloadState.FAILED, WorkloadState.SUCCEEDED).index(observation.state)
