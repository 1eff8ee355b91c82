"""SchedulerService: what clients call. It writes what is wanted; the reconcilers do it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from daf_common import names, pages
from daf_common.auth import PRINCIPAL
from daf_common.clock import Clock
from daf_common.errors import NotFound, Unimplemented
from daf_common.ids import Ids
from daf_common.requests import once
from daf_common.store import Store, Transaction
from daf_common.watch import Watcher
from daf_protos.scheduler.v1 import scheduler_service_pb2 as pb
from daf_protos.scheduler.v1 import sweep_pb2
from daf_protos.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceServicer
from daf_scheduler import store, trial_store
from daf_scheduler.convert import new_sweep, sweep_message, trial_message
from daf_scheduler.search.strategy import create_strategy
from daf_scheduler.sweeps import Sweep
from daf_scheduler.trials import Trial
from daf_scheduler.validation import check_id, check_spec

MAX_RESPONSE_BYTES = 3 << 20
"""Responses stay well under the 4 MiB that a message may have."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class SchedulerServicer(SchedulerServiceServicer):
    """Serves sweeps and trials from the store."""

    def __init__(
        self,
        database: Store,
        watcher: Watcher,
        clock: Clock,
        ids: Ids,
        enqueue_sweeps: Callable[..., None],
        enqueue_trials: Callable[..., None],
    ) -> None:
        self._store, self._watcher, self._clock, self._ids = database, watcher, clock, ids
        self._enqueue_sweeps, self._enqueue_trials = enqueue_sweeps, enqueue_trials

    async def CreateSweep(self, request: pb.CreateSweepRequest, context: Any) -> pb.CreateSweepResponse:
        """See the proto."""
        check_spec(request.spec)
        strategy = create_strategy(request.spec)
        id = request.sweep_id or self._ids.new("sweep")
        check_id(id)
        now = self._clock.now()
        sweep = new_sweep(id, request.spec, strategy, now, PRINCIPAL.get())
        if request.validate_only:
            return pb.CreateSweepResponse(sweep=sweep_message(sweep))

        def create(tx: Transaction) -> Sweep:
            def add() -> str:
                store.add_sweep(tx, sweep)
                return sweep.id

            return store.get_sweep(tx, once(tx, "CreateSweep", request.request_id, request, now, add))

        created = await self._store.run(create)
        self._enqueue_sweeps(created.id)
        return pb.CreateSweepResponse(sweep=sweep_message(created))

    async def GetSweep(self, request: pb.GetSweepRequest, context: Any) -> pb.GetSweepResponse:
        """See the proto."""
        (id,) = names.SWEEP.parse(request.name)
        return pb.GetSweepResponse(sweep=sweep_message(await self._store.read(store.get_sweep, id)))

    async def ListSweeps(self, request: pb.ListSweepsRequest, context: Any) -> pb.ListSweepsResponse:
        """See the proto."""
        size = pages.page_size(request.page_size)
        before = None
        if keys := pages.decode("ListSweeps", request.page_token):
            before = (_EPOCH + int(keys[0]) * _MICROSECOND, str(keys[1]))
        rows = await self._store.read(store.list_sweeps, size + 1, before)
        shown = _fitting([sweep_message(row) for row in rows[:size]])
        token = ""
        if len(shown) < len(rows):
            last = rows[len(shown) - 1]
            token = pages.encode("ListSweeps", (last.create_time - _EPOCH) // _MICROSECOND, last.id)
        return pb.ListSweepsResponse(sweeps=shown, next_page_token=token)

    async def WatchSweeps(self, request: pb.WatchSweepsRequest, context: Any) -> AsyncIterator[pb.WatchSweepsResponse]:
        """See the proto."""
        id = names.SWEEP.parse(request.name)[0] if request.name else None
        if id is not None and not request.cursor:
            await self._store.read(store.get_sweep, id)  # NOT_FOUND rather than silence

        def read(tx: Transaction, revision: int) -> Sequence[Sweep | Trial]:
            return store.changes_after(tx, revision, id)

        cursor = request.cursor
        async for change in self._watcher.changes(f"WatchSweeps/{request.name}", "sweep", read, cursor):
            deleted = [gone for gone in change.deleted if id in (None, gone)]
            for part, more in _parts(change.rows):
                # All parts but the last go on where the change began, so that a broken stream loses none.
                yield pb.WatchSweepsResponse(
                    sweeps=[row for row in part if isinstance(row, sweep_pb2.Sweep)],
                    trials=[row for row in part if isinstance(row, sweep_pb2.Trial)],
                    deleted=[] if more else [names.SWEEP.format(gone) for gone in deleted],
                    cursor=cursor if more else change.cursor,
                )
            cursor = change.cursor

    async def CancelSweep(self, request: pb.CancelSweepRequest, context: Any) -> pb.CancelSweepResponse:
        """See the proto."""
        (id,) = names.SWEEP.parse(request.name)
        sweep = await self._store.run(store.cancel_sweep, id)
        self._enqueue_sweeps(id)
        self._enqueue_trials(*await self._store.read(trial_store.live_trials, id))
        return pb.CancelSweepResponse(sweep=sweep_message(sweep))

    async def DeleteSweep(self, request: pb.DeleteSweepRequest, context: Any) -> pb.DeleteSweepResponse:
        """See the proto."""
        (id,) = names.SWEEP.parse(request.name)
        await self._store.run(store.delete_sweep, id)
        return pb.DeleteSweepResponse()

    async def GetTrial(self, request: pb.GetTrialRequest, context: Any) -> pb.GetTrialResponse:
        """See the proto."""
        sweep, number = names.TRIAL.parse(request.name)
        if int(number) >= 2**31:
            raise NotFound(f"there is no trial {request.name!r}")
        trial = await self._store.read(store.get_trial, sweep, int(number))
        return pb.GetTrialResponse(trial=trial_message(trial))

    async def ListTrials(self, request: pb.ListTrialsRequest, context: Any) -> pb.ListTrialsResponse:
        """See the proto."""
        (id,) = names.SWEEP.parse(request.parent, "parent")
        size, scope = pages.page_size(request.page_size), f"ListTrials/{id}"
        keys = pages.decode(scope, request.page_token)
        rows = await self._store.read(store.list_trials, id, size + 1, int(keys[0]) if keys else 0)
        shown = _fitting([trial_message(row) for row in rows[:size]])
        token = pages.encode(scope, shown[-1].number) if len(shown) < len(rows) else ""
        return pb.ListTrialsResponse(trials=shown, next_page_token=token)

    async def CreatePipeline(self, request: pb.CreatePipelineRequest, context: Any) -> NoReturn:
        """Not built yet."""
        _no_pipelines()

    async def GetPipeline(self, request: pb.GetPipelineRequest, context: Any) -> NoReturn:
        """Not built yet."""
        _no_pipelines()

    async def ListPipelines(self, request: pb.ListPipelinesRequest, context: Any) -> NoReturn:
        """Not built yet."""
        _no_pipelines()

    async def WatchPipelines(
        self, request: pb.WatchPipelinesRequest, context: Any
    ) -> AsyncIterator[pb.WatchPipelinesResponse]:
        """Not built yet."""
        _no_pipelines()
        yield pb.WatchPipelinesResponse()

    async def CancelPipeline(self, request: pb.CancelPipelineRequest, context: Any) -> NoReturn:
        """Not built yet."""
        _no_pipelines()


def _no_pipelines() -> NoReturn:
    raise Unimplemented("pipelines are not built yet: run their stages one by one")


def _fitting[M: (sweep_pb2.Sweep, sweep_pb2.Trial)](messages: Sequence[M]) -> list[M]:
    """As many of the first messages as fit into one response, but at least one."""
    sizes = itertools.accumulate(message.ByteSize() for message in messages)
    count = sum(1 for size in sizes if size <= MAX_RESPONSE_BYTES)
    return list(messages[: max(count, 1)])


def _parts(rows: Sequence[Sweep | Trial]) -> list[tuple[list[sweep_pb2.Sweep | sweep_pb2.Trial], bool]]:
    """Rows as messages, cut into responses that are not too large; each with whether more follow."""
    parts: list[list[sweep_pb2.Sweep | sweep_pb2.Trial]] = [[]]
    size = 0
    for row in rows:
        message = sweep_message(row) if isinstance(row, Sweep) else trial_message(row)
        size += message.ByteSize()
        if parts[-1] and size > MAX_RESPONSE_BYTES:
            parts.append([])
            size = message.ByteSize()
        parts[-1].append(message)
    return [(part, index < len(parts)) for index, part in enumerate(parts, 1)]
