"""Keeps workloads running for evaluations until their episodes are played: observes and performs."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from daf_common import names
from daf_common.channel import raising
from daf_common.clock import Clock
from daf_common.errors import TRANSIENT, FailedPrecondition
from daf_common.leases import Leader
from daf_common.store import Store, Transaction
from daf_common.workloads import Backend, Observation, Resources, Workload
from daf_common.workloads import State as WorkloadState
from daf_evaluation import evaluations, store
from daf_evaluation.evaluations import Action, Archive, Evaluation, Seen, Start, Stop
from daf_evaluation.logs import Log
from daf_evaluation.settings import EvaluationSettings
from daf_evaluation.slots import grant
from daf_protos.statistics.v1.metric_pb2 import Metric
from daf_protos.statistics.v1.statistics_service_pb2 import (
    SummarizeEvaluationRequest,
    SummarizeEvaluationResponse,
)

if TYPE_CHECKING:
    from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceAsyncStub

log = logging.getLogger(__name__)

LAST_LINES = 5


class EvaluationController:
    """See `daf_common.reconciler.Controller`."""

    def __init__(
        self,
        settings: EvaluationSettings,
        database: Store,
        leader: Leader,
        backend: Backend,
        statistics: StatisticsServiceAsyncStub,
        clock: Clock,
        enqueue: Callable[..., None],
    ) -> None:
        self._settings, self._store, self._leader, self._backend = settings, database, leader, backend
        self._statistics, self._clock, self._enqueue = statistics, clock, enqueue
        self._complete: set[str] = set()
        """Workloads that were started from here to the last process; another service may have died half-way."""
        self._refused: dict[str, str] = {}
        """Workloads that could not be started when that was last tried, and why."""
        self._fence: int | None = None  # of the batch at hand

    async def live(self) -> Sequence[str]:
        """See `Controller.live`. Waits until this replica leads."""
        await self._leader.elected()
        return await self._store.read(store.live)

    async def load(self, keys: Sequence[str]) -> Mapping[str, Evaluation]:
        """See `Controller.load`."""
        self._fence = await self._leader.lead()
        if self._fence is None:
            return {}
        return await self._store.read(store.load, keys)

    async def observe(self, rows: Mapping[str, Evaluation]) -> Mapping[str, Seen]:
        """See `Controller.observe`."""
        try:
            found = await self._backend.observe()
        except FailedPrecondition as error:  # workloads are taken to live, since nothing says that they do not
            living = Observation(WorkloadState.RUNNING, waiting=error.message)
            rows = {id: row for id, row in rows.items() if not row.state.ended}  # nor that nothing is left of them
            found = {row.workload: living for row in rows.values() if row.replicas}
        self._complete &= found.keys()
        workloads: defaultdict[str, dict[str, Observation]] = defaultdict(dict)
        for name, observation in found.items():
            if parsed := evaluations.parse_workload_name(name):
                workloads[parsed[0]][name] = observation
        slots: dict[str, int] = {}
        if any(not row.state.ended and not row.replicas for row in rows.values()):
            slots = grant(self._settings.evaluation_slots, await self._store.read(store.claims))
        seen = await asyncio.gather(
            *(self._try_to_look(row, workloads[id], slots.get(id, 0)) for id, row in rows.items())
        )
        return {id: look for id, look in zip(rows, seen, strict=True) if look is not None}

    def decide(self, row: Evaluation, seen: Seen, now: datetime) -> tuple[Evaluation, Sequence[Action]]:
        """See `Controller.decide`."""
        return evaluations.decide(row, seen, now, self._settings.evaluation_attempts)

    async def save(self, changes: Mapping[str, tuple[Evaluation, Evaluation]]) -> None:
        """See `Controller.save`."""
        now, fence = self._clock.now(), self._leader.check(self._fence)
        startable = await self._store.run(store.save, changes, now, self._settings.evaluation_slots, fence)
        self._enqueue(*startable)

    async def perform(self, key: str, row: Evaluation, action: Action) -> None:
        """See `Controller.perform`."""
        self._leader.check(self._fence)
        match action:
            case Start():
                await self._start(row)
            case Stop(workload):
                await self._keep_logs(row, workload)  # some backends forget them
                await self._backend.stop(workload, self._settings.stop_grace_seconds)
            case Archive(workload):
                await self._archive(row, workload)

    async def _start(self, row: Evaluation) -> None:
        try:
            await self._backend.start(self._workload(row))
        except FailedPrecondition as error:  # somebody has to do something: the evaluation says what
            log.warning("%s cannot be started: %s", row.workload, error)
            self._refused[row.workload] = error.message
        else:
            self._refused.pop(row.workload, None)
            self._complete.add(row.workload)

    async def _try_to_look(self, row: Evaluation, workloads: Mapping[str, Observation], slots: int) -> Seen | None:
        try:
            return await self._look(row, workloads, slots)
        except TRANSIENT as error:
            log.info("evaluation %s cannot be observed now: %s", row.id, error)
        except Exception:
            log.exception("evaluation %s cannot be observed", row.id)
        return None

    async def _look(self, row: Evaluation, workloads: Mapping[str, Observation], slots: int) -> Seen:
        if row.state.ended or row.cancel_requested:
            self._refused.pop(row.workload, None)
            return Seen(workloads)
        if row.done == row.total:
            name = names.EVALUATION.format(row.id)
            request = SummarizeEvaluationRequest(evaluation=name, metric=Metric(name="reward"))
            summary: SummarizeEvaluationResponse = await raising(self._statistics.SummarizeEvaluation(request))
            return Seen(workloads, recorded=summary.episodes, digest=summary.digest)
        newest = workloads.get(row.workload)
        if row.replicas and newest is not None and newest.state is not WorkloadState.RUNNING:
            return Seen(workloads, last_words=await self._last_words(row))
        refused = self._refused.get(row.workload, "")
        return Seen(workloads, complete=row.workload in self._complete, refused=refused, slots=slots)

    def _workload(self, row: Evaluation) -> Workload:
        environment = {
            "DAF_WORKER_ADDRESS": self._settings.worker_address or self._settings.listen,
            "DAF_EVALUATION": names.EVALUATION.format(row.id),
            "DAF_ATTEMPT": str(row.attempt),
            "DAF_TOKEN": row.token,
        }
        resources = Resources(self._settings.evaluation_cpus, self._settings.evaluation_memory_gib)
        return Workload(row.workload, "evaluate", environment, row.replicas, resources=resources)

    async def _last_words(self, row: Evaluation) -> str:
        for replica in range(row.replicas):
            lines = (await self._backend.logs(row.workload, replica)).decode(errors="replace").split("\n")
            if last := [line for line in lines if line.strip()][-LAST_LINES:]:
                return "\n".join(last)[-2000:]
        return ""

    async def _archive(self, row: Evaluation, workload: str) -> None:
        await self._keep_logs(row, workload)
        await self._backend.remove(workload)

    async def _keep_logs(self, row: Evaluation, workload: str) -> None:
        parsed = evaluations.parse_workload_name(workload)
        assert parsed is not None
        printed = {}
        for replica in range(row.workers):
            if content := await self._backend.logs(workload, replica):
                printed[replica] = Log(content).kept()

        def keep(tx: Transaction) -> None:
            store.add_logs(tx, *parsed, printed)

        if printed:
            await self._store.run(keep)
