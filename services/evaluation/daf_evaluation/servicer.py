"""EvaluationService: what users and other services call."""

from __future__ import annotations

import asyncio
import codecs
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from daf_common import names, pages
from daf_common.artifacts import ArtifactStore
from daf_common.auth import PRINCIPAL
from daf_common.channel import raising
from daf_common.clock import Clock
from daf_common.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Violation
from daf_common.ids import Ids
from daf_common.requests import once
from daf_common.store import Store, Transaction
from daf_common.watch import Watcher
from daf_common.workloads import Backend, obstacle
from daf_evaluation import convert, shards, store
from daf_evaluation.evaluations import Evaluation, workload_name
from daf_evaluation.logs import Log
from daf_evaluation.replays import Replays
from daf_evaluation.settings import EvaluationSettings
from daf_evaluation.validation import check_spec
from daf_protos.evaluation.v1 import evaluation_service_pb2 as pb
from daf_protos.evaluation.v1.evaluation_pb2 import EvaluationSpec
from daf_protos.evaluation.v1.evaluation_service_pb2_grpc import EvaluationServiceServicer
from daf_protos.statistics.v1.statistics_service_pb2 import DeleteNumbersRequest

if TYPE_CHECKING:
    from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceAsyncStub

log = logging.getLogger(__name__)

FOLLOW_SECONDS = 0.5
"""How often a log that is followed is looked at."""

_CHUNK = 64 << 10

_MAX_RESPONSE_BYTES = 3 << 20  # clients take messages of at most 4 MiB


class EvaluationServicer(EvaluationServiceServicer):
    """Serves evaluations from the store; it writes what is wanted, and the reconciler does it."""

    def __init__(
        self,
        settings: EvaluationSettings,
        database: Store,
        artifacts: ArtifactStore,
        replays: Replays,
        backend: Backend,
        statistics: StatisticsServiceAsyncStub,
        watcher: Watcher,
        clock: Clock,
        ids: Ids,
        enqueue: Callable[[str], None],
    ) -> None:
        self._settings, self._store, self._artifacts, self._replays = settings, database, artifacts, replays
        self._backend, self._statistics, self._watcher = backend, statistics, watcher
        self._clock, self._ids, self._enqueue = clock, ids, enqueue

    async def CreateEvaluation(self, request: pb.CreateEvaluationRequest, context: Any) -> pb.CreateEvaluationResponse:
        id = names.new_id(request.evaluation_id, "eval", self._ids, "evaluation_id")
        check_spec(request.spec)
        await self._check_artifacts(request.spec)
        in_the_way = await obstacle(self._backend)
        evaluation, cut = self._plan(id, request.spec)
        if request.validate_only:
            if in_the_way:
                raise in_the_way
            return pb.CreateEvaluationResponse(evaluation=convert.to_message(evaluation))

        def create(tx: Transaction) -> Evaluation:
            name = once(tx, "CreateEvaluation", request.request_id, request, evaluation.create_time, lambda: add(tx))
            found = store.get(tx, names.EVALUATION.parse(name)[0])
            if found is None:
                raise NotFound(f"{name}, which this request created, was deleted")
            return found

        def add(tx: Transaction) -> str:
            if store.get(tx, id) is not None:
                raise AlreadyExists(f"there is an evaluation {id!r} already: choose another evaluation_id")
            if in_the_way:
                raise in_the_way
            store.insert(tx, evaluation, cut)
            return names.EVALUATION.format(id)

        created = await self._store.run(create)
        self._enqueue(created.id)
        return pb.CreateEvaluationResponse(evaluation=convert.to_message(created))

    async def GetEvaluation(self, request: pb.GetEvaluationRequest, context: Any) -> pb.GetEvaluationResponse:
        return pb.GetEvaluationResponse(evaluation=convert.to_message(await self._get(request.name)))

    async def ListEvaluations(self, request: pb.ListEvaluationsRequest, context: Any) -> pb.ListEvaluationsResponse:
        size = pages.page_size(request.page_size)
        position = pages.decode("ListEvaluations", request.page_token)
        found = await self._store.read(store.page, int(position[0]) if position else None, size + 1)
        response = pb.ListEvaluationsResponse()
        left = _MAX_RESPONSE_BYTES
        for number, evaluation in enumerate(found):
            message = convert.to_message(evaluation)
            left -= message.ByteSize()
            if number == size or (number and left < 0):
                response.next_page_token = pages.encode("ListEvaluations", found[number - 1].number)
                break
            response.evaluations.append(message)
        return response

    async def WatchEvaluations(
        self, request: pb.WatchEvaluationsRequest, context: Any
    ) -> AsyncIterator[pb.WatchEvaluationsResponse]:
        id = names.EVALUATION.parse(request.name)[0] if request.name else ""

        def read(tx: Transaction, revision: int) -> list[Evaluation]:
            return store.changed_since(tx, revision, id)

        scope = f"WatchEvaluations {id}"
        async for changes in self._watcher.changes(scope, store.KIND, read, request.cursor):
            yield pb.WatchEvaluationsResponse(
                evaluations=[convert.to_message(evaluation) for evaluation in changes.rows],
                deleted=[names.EVALUATION.format(gone) for gone in changes.deleted if id in ("", gone)],
                cursor=changes.cursor,
            )

    async def CancelEvaluation(self, request: pb.CancelEvaluationRequest, context: Any) -> pb.CancelEvaluationResponse:
        (id,) = names.EVALUATION.parse(request.name)
        evaluation = await self._store.run(store.request_cancel, id)
        if evaluation is None:
            raise NotFound(f"there is no {request.name}")
        self._enqueue(id)
        return pb.CancelEvaluationResponse(evaluation=convert.to_message(evaluation))

    async def DeleteEvaluation(self, request: pb.DeleteEvaluationRequest, context: Any) -> pb.DeleteEvaluationResponse:
        evaluation = await self._get(request.name)
        if not evaluation.state.ended:
            raise FailedPrecondition(f"{request.name} has not ended: cancel it first", reason="NOT_ENDED")
        if not evaluation.cleaned:
            self._enqueue(evaluation.id)
            message = f"the workers of {request.name} are still being stopped: try again in a moment"
            raise FailedPrecondition(message, reason="NOT_STOPPED", retry_after_seconds=1.0)
        # The numbers first: were they to outlive the evaluation, another of the same name would inherit them.
        await raising(self._statistics.DeleteNumbers(DeleteNumbersRequest(name=request.name)))
        await self._store.run(store.delete, evaluation.id)
        try:
            await self._replays.clear()
        except Exception:
            log.exception("replays of %s could not be deleted; the next deletion tries again", request.name)
        return pb.DeleteEvaluationResponse()

    async def ReadLogs(self, request: pb.ReadLogsRequest, context: Any) -> AsyncIterator[pb.ReadLogsResponse]:
        sent: defaultdict[tuple[int, int], int] = defaultdict(int)
        # One decoder a log: a chunk may end within a character.
        decoders: defaultdict[tuple[int, int], codecs.IncrementalDecoder] = defaultdict(_new_decoder)
        while True:
            evaluation = await self._get(request.name)
            for (attempt, replica), log in (await self._logs(evaluation)).items():
                key, worker = (attempt, replica), f"w{attempt}-{replica}"
                if (skipped := log.skipped - sent[key]) > 0:
                    sent[key] = log.skipped
                    decoders.pop(key, None)
                    yield pb.ReadLogsResponse(worker=worker, text=f"\n... {skipped} bytes were not kept ...\n")
                for start in range(sent[key] - log.skipped, len(log.content), _CHUNK):
                    text = decoders[key].decode(log.content[start : start + _CHUNK])
                    yield pb.ReadLogsResponse(worker=worker, text=text)
                sent[key] = max(sent[key], log.skipped + len(log.content))
            if not request.follow or evaluation.cleaned:
                return
            await asyncio.sleep(FOLLOW_SECONDS)

    async def _get(self, name: str) -> Evaluation:
        (id,) = names.EVALUATION.parse(name)
        evaluation = await self._store.read(store.get, id)
        if evaluation is None:
            raise NotFound(f"there is no {name}")
        return evaluation

    async def _check_artifacts(self, spec: EvaluationSpec) -> None:
        named = convert.artifacts(spec)
        there = await asyncio.gather(*(self._artifacts.exists(artifact) for _, artifact in named))
        missing = [
            Violation(field, f"there is no artifact {artifact.sha256[:12]} of {artifact.owner}: upload it first")
            for (field, artifact), exists in zip(named, there, strict=True)
            if not exists
        ]
        if missing:
            raise InvalidArgument.of(missing)

    def _plan(self, id: str, spec: EvaluationSpec) -> tuple[Evaluation, list[shards.Shard]]:
        agents = convert.agents(spec)
        scenarios = convert.scenarios(spec, agents)
        workers = spec.workers if spec.HasField("workers") else self._settings.evaluation_workers
        evaluation = Evaluation(
            number=0,
            id=id,
            spec=spec.SerializeToString(deterministic=True),
            agents=agents,
            total=len(scenarios) * spec.episodes,
            workers=workers,
            token=self._ids.secret(),
            creator=PRINCIPAL.get(),
            create_time=self._clock.now(),
        )
        return evaluation, shards.cut(len(scenarios), spec.episodes, workers)

    async def _logs(self, evaluation: Evaluation) -> dict[tuple[int, int], Log]:
        """What every process printed, by attempt and replica: what was kept, else what the backend has."""
        kept = await self._store.read(store.logs, evaluation.id)
        for attempt in range(1, evaluation.attempt + 1):
            if not any(key[0] == attempt for key in kept):
                for replica in range(evaluation.workers):
                    content = await self._backend.logs(workload_name(evaluation.id, attempt), replica)
                    if content:
                        kept[attempt, replica] = Log(content)
        return dict(sorted(kept.items()))


def _new_decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")(errors="replace")
