"""Clears away what no job needs any more: workloads of attempts that are over, and artifacts that nothing names."""

from __future__ import annotations

from collections.abc import Mapping

from daf_common.artifacts import ArtifactStore
from daf_common.clock import Clock
from daf_common.errors import TRANSIENT, FailedPrecondition
from daf_common.leases import Leader
from daf_common.periodic import Periodic
from daf_common.store import Store
from daf_common.workloads import Backend, Observation, State
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_training import checkpoint_store, store
from daf_training.attempts import parse_workload_name
from daf_training.jobs import OCCUPYING, Job

INTERVAL_SECONDS = 2.0
EXIT_SECONDS = 5.0
"""How long a worker whose attempt has ended may take to end by itself."""
STOP_SECONDS = 2.0
BATCH = 100


class Sweeper(Periodic):
    """Looks at everything now and then, where this replica leads. What it misses once, it finds the next time."""

    def __init__(
        self, database: Store, leader: Leader, backend: Backend, artifacts: ArtifactStore, clock: Clock
    ) -> None:
        super().__init__(
            "training-sweeper",
            self.step,
            INTERVAL_SECONDS,
            passing=(*TRANSIENT, FailedPrecondition),  # the latter where the backend lacks something
        )
        self._store, self._leader, self._backend = database, leader, backend
        self._artifacts, self._clock = artifacts, clock
        self._over_since: dict[str, float] = {}
        self._fence: int | None = None

    async def step(self) -> None:
        """One look, once this replica leads."""
        self._fence = await self._leader.elected()
        await self._sweep_workloads()
        await self._sweep_artifacts()

    async def _sweep_workloads(self) -> None:
        # Workloads first: a job that is read later is at least as new as the workloads that were seen.
        workloads = await self._backend.observe()
        attempts = {name: parsed for name in workloads if (parsed := parse_workload_name(name))}
        if not attempts:
            return
        jobs = await self._store.read(store.jobs_by_id, {job_id for job_id, _ in attempts.values()})
        over = [name for name, (job_id, attempt) in attempts.items() if _is_over(jobs.get(job_id), attempt)]
        self._over_since = {name: self._over_since.get(name, self._clock.monotonic()) for name in over}
        for name in over:
            self._leader.check(self._fence)
            await self._clear(name, workloads)

    async def _clear(self, name: str, workloads: Mapping[str, Observation]) -> None:
        if workloads[name].state is not State.RUNNING:
            await self._backend.remove(name)
        elif self._clock.monotonic() - self._over_since[name] >= EXIT_SECONDS:
            await self._backend.stop(name, STOP_SECONDS)

    async def _sweep_artifacts(self) -> None:
        if not await self._store.read(checkpoint_store.has_garbage):
            return
        digests = await self._store.run(checkpoint_store.garbage, BATCH)
        for digest in digests:
            # What a successor has deleted and forgotten may have been written again since.
            self._leader.check(self._fence)
            await self._artifacts.delete(Artifact(sha256=digest, owner=self._artifacts.owner))
        await self._store.run(checkpoint_store.forget_garbage, digests)


def _is_over(job: Job | None, attempt: int) -> bool:
    return job is None or job.state not in OCCUPYING or attempt < job.attempt
