"""What the reconciler sees and does of training jobs."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from daf_common import names
from daf_common.clock import Clock
from daf_common.errors import FailedPrecondition, Unavailable
from daf_common.ids import Ids
from daf_common.leases import Leader
from daf_common.store import Store
from daf_common.workloads import Backend, Observation, Ranks, Resources, State, Workload
from daf_training import jobs, queue_store, store
from daf_training.admission import Granted, Held
from daf_training.attempts import gpu_environment, workload_name
from daf_training.capacity import visible_gpus
from daf_training.jobs import Action, Job, JobState, Seen
from daf_training.logs import last_lines
from daf_training.patience import Patience
from daf_training.settings import TrainingSettings

log = logging.getLogger(__name__)


class JobController:
    """A `daf_common.reconciler.Controller` of training jobs."""

    def __init__(
        self,
        database: Store,
        leader: Leader,
        backend: Backend,
        settings: TrainingSettings,
        clock: Clock,
        ids: Ids,
        enqueue: Callable[..., None],
    ) -> None:
        self._store, self._leader, self._backend, self._settings = database, leader, backend, settings
        self._clock, self._ids, self._enqueue = clock, ids, enqueue
        self._capacity = settings.capacity()
        self._admissions: Mapping[str, Granted | Held] = {}  # of the batch at hand
        self._refused: dict[str, str] = {}
        """Workloads that could not be started when that was last tried, and why."""
        self._patience = Patience(clock, settings.elastic_patience_seconds)
        self._fence: int | None = None

    async def live(self) -> Sequence[str]:
        """See `Controller.live`. Waits until this replica leads."""
        await self._leader.elected()
        return await self._store.read(queue_store.live_jobs)

    async def load(self, keys: Sequence[str]) -> Mapping[str, Job]:
        """See `Controller.load`."""
        self._fence = await self._leader.lead()
        if self._fence is None:
            self._patience.forget()  # nobody here sees what happens from now on
            return {}
        batch = await self._store.read(store.load_jobs, keys, self._capacity)
        self._admissions = batch.admissions
        return batch.jobs

    async def observe(self, rows: Mapping[str, Job]) -> Mapping[str, Seen]:
        """See `Controller.observe`. Jobs whose workloads cannot be seen now are left out."""
        for job in rows.values():
            if job.state is not JobState.STARTING:  # a job of the same id may come after it
                self._patience.forget(workload_name(job.id, job.attempt))
        workloads: Mapping[str, Observation] | None = {}
        if any(job.attempt and not job.ended for job in rows.values()):
            try:
                workloads = await self._backend.observe()
            except Unavailable:
                workloads = None
            except FailedPrecondition as error:
                return {key: _see_nothing(job, error.message) for key, job in rows.items()}
        seen = await asyncio.gather(*(self._see(job, workloads) for job in rows.values()))
        return {key: sight for key, sight in zip(rows, seen, strict=True) if sight is not None}

    async def _see(self, job: Job, workloads: Mapping[str, Observation] | None) -> Seen | None:
        if job.state is JobState.PENDING and (workloads is not None or not job.attempt):
            return self._see_turn(job, workloads or {})
        if job.ended:
            self._refused.pop(workload_name(job.id, job.attempt), None)
            return Seen()
        if workloads is None:
            return None
        try:
            return await self._see_workload(job, workloads)
        except Unavailable as error:  # a machine that cannot be asked for a log holds up no job but its own
            log.info("what became of %s cannot be seen now: %s", job.id, error)
            return None

    def _see_turn(self, job: Job, workloads: Mapping[str, Observation]) -> Seen:
        admission = self._admissions.get(job.id)
        return Seen(
            workload=workloads.get(workload_name(job.id, job.attempt)),
            admission=admission,
            new_token=self._ids.secret() if isinstance(admission, Granted) else "",
        )

    async def _see_workload(self, job: Job, workloads: Mapping[str, Observation]) -> Seen:
        name = workload_name(job.id, job.attempt)
        workload = workloads.get(name)
        if workload is None or workload.state is State.RUNNING:
            has_waited = self._has_waited(job, name, workload)
            return Seen(workload=workload, has_waited=has_waited, refused=self._refused.get(name, ""))
        return Seen(workload=workload, last_lines=last_lines(await self._backend.logs(name, workload.replica)))

    def _has_waited(self, job: Job, name: str, workload: Observation | None) -> bool:
        elastic = job.least.workers < job.granted.workers
        if elastic and job.state is JobState.STARTING and workload is not None and workload.waiting:
            return self._patience.is_over(name, workload.running)
        self._patience.forget(name)
        return False

    def decide(self, row: Job, seen: Seen, now: datetime) -> tuple[Job, Sequence[Action]]:
        """See `Controller.decide`."""
        return jobs.decide(row, seen, now)

    async def save(self, changes: Mapping[str, tuple[Job, Job]]) -> None:
        """See `Controller.save`."""
        now, fence = self._clock.now(), self._leader.check(self._fence)
        next_jobs = await self._store.run(store.save_decided, list(changes.values()), now, self._capacity, fence)
        self._enqueue(*next_jobs)

    async def perform(self, key: str, row: Job, action: Action) -> None:
        """See `Controller.perform`."""
        self._leader.check(self._fence)
        name = workload_name(row.id, row.attempt)
        match action:
            case Action.START_WORKLOAD:
                await self._start(row, name)
            case Action.STOP_WORKLOAD:
                await self._backend.stop(name, self._settings.cancel_grace_seconds)

    async def _start(self, job: Job, name: str) -> None:
        compute = job.granted
        workload = Workload(
            name,
            "train",
            self._environment(job),
            ranks=Ranks(compute.workers, compute.shared_by),
            resources=Resources(compute.cpus, compute.memory_gib, compute.gpus),
            profile=compute.name,
        )
        try:
            await self._backend.start(workload)
        except FailedPrecondition as error:  # somebody has to do something: the job says what, and it is tried again
            log.warning("%s cannot be started: %s", name, error)
            self._refused[name] = error.message
        else:
            self._refused.pop(name, None)

    def _environment(self, job: Job) -> dict[str, str]:
        return {
            "DAF_WORKER_ADDRESS": self._settings.worker_address or self._settings.listen,
            "DAF_TRAINING_JOB": names.TRAINING_JOB.format(job.id),
            "DAF_ATTEMPT": str(job.attempt),
            "DAF_TOKEN": job.token,
            **gpu_environment(job, visible_gpus(os.environ), counted_gpus=self._capacity.gpus is not None),
        }


def _see_nothing(job: Job, why: str) -> Seen:
    """Of a backend that lacks something: its workloads are taken to live, since nothing says that they do not."""
    if not job.attempt or job.ended:
        return Seen()
    return Seen(workload=Observation(State.RUNNING, waiting=why), assumed=True)
